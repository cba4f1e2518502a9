//! RoIAlign and RoIPool: regions of a feature map cut out and brought to one size.
//!
//! The bilinear samples of a RoIAlign bin lie on a grid, so a region is two sparse matrices (`R · x · Cᵀ`, see
//! [`super::resize::Axis`]) worked out once and used by every channel.

use super::cuda::roi as kernels;
pub use super::cuda::roi::Regions;
use super::resize::{Axis, add_scaled};
use super::storage::{contiguous, with_values};
use super::tape::apply1;
use crate::geometry::BBox;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;
use std::sync::Arc;

/// Planes of one task: a plane of a region takes well under a microsecond.
const PLANES: usize = 64;

/// Regions of `features` `[N, C, H, W]` resampled to `[R, C, h, w]` (He et al., "Mask R-CNN", 2017, §3).
///
/// A RoI is an image of the batch and a box in input pixels, multiplied by `scale`. Every bin averages
/// `sampling_ratio`² bilinear samples, or with 0 as many as make their spacing at most one cell. `aligned` shifts by
/// half a cell and lets regions be smaller than a cell (detectron2's RoIAlignV2); without it they are at least one
/// cell wide (torchvision's models). Arithmetic and borders are torchvision's. The gradient goes to the features, not to
/// the boxes; on a CUDA device a [`Tape`](super::tape::Tape) alone knows it.
///
/// # Errors
/// Features that are not rank 4 f32, an empty output side or feature map, an image outside the batch, or a box that
/// is not finite.
pub fn roi_align(
    features: &Tensor,
    rois: &[(u32, BBox)],
    scale: f32,
    output: (usize, usize),
    sampling_ratio: usize,
    aligned: bool,
) -> Result<Tensor> {
    let (n, _, h, w) = features.dims4()?;
    check(rois, n, (h, w), output, "roi_align")?;
    let grid = |start: f32, end: f32, output: usize| {
        let offset = if aligned { 0.5 } else { 0.0 };
        let start = start * scale - offset;
        let length = (end * scale - offset) - start;
        let length = if aligned { length } else { length.max(1.0) };
        let bin = length / output as f32;
        let samples = if sampling_ratio > 0 { sampling_ratio as f32 } else { bin.ceil() };
        Grid { start, bin, samples }
    };
    let grids = |bbox: BBox| (grid(bbox.y0, bbox.y1, output.0), grid(bbox.x0, bbox.x1, output.1));
    if !features.device().is_cpu() {
        let rule = PoolRule::Align { sampling_ratio, shifted: aligned };
        return pool_levels(std::slice::from_ref(features), &[scale], &regions(features, rois, |_| 0)?, output, rule);
    }
    let region = |&(image, bbox): &(u32, BBox)| {
        let (rows, columns) = grids(bbox);
        let (rows, columns) = (rows.axis(output.0, h), columns.axis(output.1, w));
        let span = columns.span();
        AlignedRegion { image: image as usize, rows, columns, span }
    };
    apply1(features, RoiAlign { regions: rois.iter().map(region).collect(), output })
}

/// Regions of `features` `[N, C, H, W]` reduced to `[R, C, h, w]` by the maximum over bins of whole cells, 0 where a
/// bin is empty (Girshick, "Fast R-CNN", 2015; rounding as in torchvision). Otherwise as [`roi_align`].
///
/// # Errors
/// The same as [`roi_align`].
pub fn roi_pool(features: &Tensor, rois: &[(u32, BBox)], scale: f32, output: (usize, usize)) -> Result<Tensor> {
    let (n, _, h, w) = features.dims4()?;
    check(rois, n, (h, w), output, "roi_pool")?;
    let region = |&(image, bbox): &(u32, BBox)| PooledRegion {
        image: image as usize,
        rows: pooled_axis(bbox.y0 * scale, bbox.y1 * scale, output.0, h),
        columns: pooled_axis(bbox.x0 * scale, bbox.x1 * scale, output.1, w),
    };
    if !features.device().is_cpu() {
        return pool_levels(
            std::slice::from_ref(features),
            &[scale],
            &regions(features, rois, |_| 0)?,
            output,
            PoolRule::Max,
        );
    }
    apply1(features, RoiPool { regions: rois.iter().map(region).collect(), output })
}

/// How regions are brought to one size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PoolRule {
    /// [`roi_align`]
    Align { sampling_ratio: usize, shifted: bool },
    /// [`roi_pool`]
    Max,
}

/// Which of `levels` a box reads: k = ⌊4 + log₂(√area / canonical)⌋ (Lin et al., "Feature Pyramid Networks", 2017,
/// equation 1), 2 being the finest; boxes too small or too large read the nearest there is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LevelRule {
    /// Guard the ratio of the sides against rounding (mmdet) and not its logarithm (torchvision).
    pub before_logarithm: bool,
    /// Side of a square box that reads the third level, pixels.
    pub canonical_size: f32,
    pub levels: usize,
}

impl LevelRule {
    /// Added against rounding where a side is exactly a power of two of the canonical one.
    pub(super) const EPSILON: f32 = 1e-6;

    /// The level of a box, 0 for the finest.
    pub fn level_of(&self, bbox: BBox) -> usize {
        let side = (bbox.width() * bbox.height()).sqrt();
        let level = if self.before_logarithm {
            (side / (self.canonical_size / 4.0) + Self::EPSILON).log2().floor()
        } else {
            (4.0 + (side / self.canonical_size).log2() + Self::EPSILON).floor() - 2.0
        };
        // a negative or undefined level casts to 0
        (level as usize).min(self.levels.saturating_sub(1))
    }
}

/// RoIs on the CUDA device of `map`, a map of their batch; each reads the level that `level` says.
///
/// # Errors
/// An image outside the batch, a box that is not finite, or a device that is not CUDA.
pub fn regions(map: &Tensor, rois: &[(u32, BBox)], level: impl Fn(BBox) -> usize) -> Result<Arc<Regions>> {
    let (n, _, h, w) = map.dims4()?;
    check(rois, n, (h, w), (1, 1), "regions")?;
    Ok(Arc::new(Regions::new(map, rois, level)?))
}

/// Regions on a CUDA device, each read from the map `[N, C, H, W]` of its level: `[R, C, h, w]`. `scales` are the cells
/// of the levels in a pixel. Gradients follow from a
/// [`Tape`](super::tape::Tape) alone.
///
/// # Errors
/// Maps of another batch or of different channels, fewer than the regions' levels, another number of scales, an empty
/// side, or tensors that are not f32.
pub fn pool_levels(
    maps: &[Tensor],
    scales: &[f32],
    regions: &Arc<Regions>,
    output: (usize, usize),
    rule: PoolRule,
) -> Result<Tensor> {
    let channels = maps.first().map(|map| map.dim(1)).transpose()?;
    let (fits, batch) = (|map: &Tensor| map.rank() == 4 && map.dim(1).ok() == channels, regions.batch);
    let fits = maps.iter().all(|map| fits(map) && map.elem_count() > 0 && map.dim(0).is_ok_and(|own| own == batch));
    if !fits || maps.len() < regions.maps || maps.len() != scales.len() || output.0 == 0 || output.1 == 0 {
        candle_core::bail!(
            "regions of {output:?} cells on {} levels of {batch} images from {} maps and {} scales",
            regions.maps,
            maps.len(),
            scales.len()
        );
    }
    kernels::pool(maps, scales, regions, output, rule)
}

fn check(rois: &[(u32, BBox)], n: usize, map: (usize, usize), output: (usize, usize), op: &str) -> Result<()> {
    if map.0 == 0 || map.1 == 0 || output.0 == 0 || output.1 == 0 {
        candle_core::bail!("{} from {:?} cells to {:?}: no side may be empty", op, map, output);
    }
    for (i, (image, bbox)) in rois.iter().enumerate() {
        if *image as usize >= n {
            candle_core::bail!("{}: RoI {} is in image {} of a batch of {}", op, i, image, n);
        }
        if ![bbox.x0, bbox.y0, bbox.x1, bbox.y1].iter().all(|v| v.is_finite()) {
            candle_core::bail!("{}: RoI {} is not finite: {:?}", op, i, bbox);
        }
    }
    Ok(())
}

/// The samples of a region along one axis: where it starts and how long a bin is, both in cells, and samples in a bin.
/// All of it in f32, in torchvision's order of operations: the cell a sample falls into is decided by the last bit.
#[derive(Clone, Copy)]
struct Grid {
    start: f32,
    bin: f32,
    samples: f32,
}

impl Grid {
    /// The sources and weights of `output` bins over `input` cells.
    fn axis(self, output: usize, input: usize) -> Axis {
        let Self { start, bin, samples } = self;
        let mut axis = Axis::empty(input);
        for p in 0..output {
            let base = start + p as f32 * bin;
            let (first, end) = reachable(base, bin, samples, input);
            for i in first..end {
                let position = base + (i as f32 + 0.5) * bin / samples;
                if position < -1.0 || position > input as f32 {
                    continue;
                }
                let position = position.max(0.0);
                let low = position as usize;
                if low >= input - 1 {
                    axis.tap(input - 1, 1.0 / samples);
                } else {
                    let fraction = position - low as f32;
                    axis.tap(low, (1.0 - fraction) / samples);
                    axis.tap(low + 1, fraction / samples);
                }
            }
            axis.close();
        }
        axis
    }
}

/// A range of samples outside which none lies in `[-1, input]`: a region far larger than the map, with samples one
/// cell apart, costs no more than one as large as the map.
fn reachable(base: f32, bin: f32, samples: f32, input: usize) -> (usize, usize) {
    let step = f64::from(bin) / f64::from(samples);
    if !step.is_finite() {
        // No samples at all, or a region beyond the range of numbers.
        return (0, 0);
    }
    if step <= 0.0 {
        return (0, samples as usize);
    }
    let first = (-1.0 - f64::from(base)) / step - 2.0;
    let end = (input as f64 - f64::from(base)) / step + 2.0;
    // A conversion to an integer saturates, so negative and huge bounds are clipped.
    (first as usize, (end as usize).min(samples as usize))
}

/// Cells of every bin along one axis, from the ends of the region in cells.
fn pooled_axis(start: f32, end: f32, output: usize, input: usize) -> Vec<(usize, usize)> {
    let start = start.round();
    let length = (end.round() - start + 1.0).max(1.0);
    let bin = length / output as f32;
    let cell = |v: f32| (v + start).clamp(0.0, input as f32) as usize;
    (0..output).map(|p| (cell((p as f32 * bin).floor()), cell(((p + 1) as f32 * bin).ceil()))).collect()
}

struct AlignedRegion {
    image: usize,
    rows: Axis,
    columns: Axis,
    /// First and one past the last feature column that is read.
    span: (usize, usize),
}

impl AlignedRegion {
    /// One plane: down the rows over the columns in reach, which vectorises, then across.
    fn plane(&self, x: &[f32], width: usize, y: &mut [f32], scratch: &mut Vec<f32>) {
        let (left, right) = self.span;
        scratch.resize(right - left, 0.0);
        for (i, y) in y.chunks_exact_mut(self.columns.outputs()).enumerate() {
            scratch.fill(0.0);
            for &(row, weight) in self.rows.taps(i) {
                add_scaled(scratch, weight, &x[row * width + left..row * width + right]);
            }
            for (j, y) in y.iter_mut().enumerate() {
                *y = self.columns.taps(j).iter().fold(0.0, |sum, &(column, w)| sum + w * scratch[column - left]);
            }
        }
    }

    /// The transpose of [`Self::plane`], added to `gx`.
    fn plane_gradient(&self, g: &[f32], width: usize, gx: &mut [f32], scratch: &mut Vec<f32>) {
        let (left, right) = self.span;
        scratch.resize(right - left, 0.0);
        for (i, g) in g.chunks_exact(self.columns.outputs()).enumerate() {
            scratch.fill(0.0);
            for (j, &g) in g.iter().enumerate() {
                for &(column, weight) in self.columns.taps(j) {
                    scratch[column - left] += weight * g;
                }
            }
            for &(row, weight) in self.rows.taps(i) {
                add_scaled(&mut gx[row * width + left..row * width + right], weight, scratch);
            }
        }
    }
}

struct RoiAlign {
    regions: Vec<AlignedRegion>,
    output: (usize, usize),
}

impl CustomOp1 for RoiAlign {
    fn name(&self) -> &'static str {
        "roi_align"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, channels, h, w) = layout.shape().dims4()?;
        let x = contiguous(storage, layout, self.name())?;
        let size = self.output.0 * self.output.1;
        let mut y = vec![0.0f32; self.regions.len() * channels * size];
        y.par_chunks_mut(size).enumerate().with_min_len(PLANES).for_each_init(Vec::new, |scratch, (i, y)| {
            let region = &self.regions[i / channels];
            let plane = region.image * channels + i % channels;
            region.plane(&x[plane * h * w..(plane + 1) * h * w], w, y, scratch);
        });
        Ok((CpuStorage::F32(y), Shape::from((self.regions.len(), channels, self.output.0, self.output.1))))
    }

    /// Parallel over planes of the features, each of which adds its regions in their order: the same bits whatever
    /// the number of threads.
    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad_res: &Tensor) -> Result<Option<Tensor>> {
        let (_, channels, h, w) = arg.dims4()?;
        let size = self.output.0 * self.output.1;
        let gradient = with_values(grad_res, self.name(), |g| {
            let mut gx = vec![0.0f32; arg.elem_count()];
            gx.par_chunks_mut(h * w).enumerate().for_each_init(Vec::new, |scratch, (plane, gx)| {
                let (image, channel) = (plane / channels, plane % channels);
                for (r, region) in self.regions.iter().enumerate().filter(|(_, region)| region.image == image) {
                    let g = &g[(r * channels + channel) * size..][..size];
                    region.plane_gradient(g, w, gx, scratch);
                }
            });
            Ok(gx)
        })?;
        Ok(Some(Tensor::from_vec(gradient, arg.shape(), arg.device())?))
    }
}

struct PooledRegion {
    image: usize,
    rows: Vec<(usize, usize)>,
    columns: Vec<(usize, usize)>,
}

impl PooledRegion {
    /// Calls `visit` with every bin, in row-major order, and the place of its first maximum, none for an empty bin.
    fn maxima(&self, x: &[f32], width: usize, mut visit: impl FnMut(usize, Option<usize>)) {
        for (i, &(top, bottom)) in self.rows.iter().enumerate() {
            for (j, &(left, right)) in self.columns.iter().enumerate() {
                let mut best: Option<usize> = None;
                for y in top..bottom {
                    for place in y * width + left..y * width + right {
                        if best.is_none_or(|best| x[place] > x[best]) {
                            best = Some(place);
                        }
                    }
                }
                visit(i * self.columns.len() + j, best);
            }
        }
    }
}

struct RoiPool {
    regions: Vec<PooledRegion>,
    output: (usize, usize),
}

impl CustomOp1 for RoiPool {
    fn name(&self) -> &'static str {
        "roi_pool"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, channels, h, w) = layout.shape().dims4()?;
        let x = contiguous(storage, layout, self.name())?;
        let size = self.output.0 * self.output.1;
        let mut y = vec![0.0f32; self.regions.len() * channels * size];
        y.par_chunks_mut(size).enumerate().with_min_len(PLANES).for_each(|(i, y)| {
            let region = &self.regions[i / channels];
            let plane = region.image * channels + i % channels;
            let x = &x[plane * h * w..(plane + 1) * h * w];
            region.maxima(x, w, |bin, place| y[bin] = place.map_or(0.0, |place| x[place]));
        });
        Ok((CpuStorage::F32(y), Shape::from((self.regions.len(), channels, self.output.0, self.output.1))))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad_res: &Tensor) -> Result<Option<Tensor>> {
        let (_, channels, h, w) = arg.dims4()?;
        let size = self.output.0 * self.output.1;
        let gradient = with_values(arg, self.name(), |x| {
            with_values(grad_res, self.name(), |g| {
                let mut gx = vec![0.0f32; x.len()];
                gx.par_chunks_mut(h * w).zip(x.par_chunks(h * w)).enumerate().for_each(|(plane, (gx, x))| {
                    let (image, channel) = (plane / channels, plane % channels);
                    for (r, region) in self.regions.iter().enumerate().filter(|(_, region)| region.image == image) {
                        let g = &g[(r * channels + channel) * size..][..size];
                        region.maxima(x, w, |bin, place| {
                            if let Some(place) = place {
                                gx[place] += g[bin];
                            }
                        });
                    }
                });
                Ok(gx)
            })
        })?;
        Ok(Some(Tensor::from_vec(gradient, arg.shape(), arg.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn ramp(h: usize, w: usize) -> Result<Tensor> {
        let values: Vec<f32> = (0..h * w).map(|i| (i % w) as f32 + 10.0 * (i / w) as f32).collect();
        Tensor::from_vec(values, (1, 1, h, w), &Device::Cpu)
    }

    /// On a linear ramp a bin's mean is the ramp at the bin's centre. Box (2, 1)–(6, 5) in two bins a side: centres at
    /// 3 and 5, 2 and 4, half a cell less when aligned.
    #[test]
    fn a_linear_ramp_is_read_at_the_bin_centres() -> Result<()> {
        let x = ramp(9, 11)?;
        let rois = [(0, BBox::new(4.0, 2.0, 12.0, 10.0))];
        for (aligned, shift) in [(false, 0.0), (true, 0.5)] {
            for ratio in [0, 1, 2, 3] {
                let y = roi_align(&x, &rois, 0.5, (2, 2), ratio, aligned)?.flatten_all()?.to_vec1::<f32>()?;
                for (bin, (cx, cy)) in [(3.0, 2.0), (5.0, 2.0), (3.0, 4.0), (5.0, 4.0)].into_iter().enumerate() {
                    let expected = (cx - shift) + 10.0 * (cy - shift);
                    assert!((y[bin] - expected).abs() < 1e-4, "aligned {aligned}, ratio {ratio}: {y:?}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn a_constant_map_stays_constant_and_far_regions_are_zero() -> Result<()> {
        let x = Tensor::full(3.0f32, (1, 2, 6, 5), &Device::Cpu)?;
        let rois = [(0, BBox::new(0.3, 0.2, 4.4, 5.1)), (0, BBox::new(90.0, 90.0, 99.0, 99.0))];
        for aligned in [false, true] {
            let y = roi_align(&x, &rois, 1.0, (7, 7), 2, aligned)?.flatten_all()?.to_vec1::<f32>()?;
            assert!(y[..98].iter().all(|v| (v - 3.0).abs() < 1e-5));
            assert!(y[98..].iter().all(|v| *v == 0.0));
        }
        Ok(())
    }

    /// torchvision's loop over samples, one by one and bilinear, against the two matrices.
    #[test]
    fn every_sample_counts() -> Result<()> {
        let (n, channels, h, w) = (3, 2, 9, 11);
        let values: Vec<f32> = (0..n * channels * h * w).map(|i| ((i * 61) % 97) as f32 * 0.1 - 5.0).collect();
        let x = Tensor::from_slice(&values, (n, channels, h, w), &Device::Cpu)?;
        let rois = [
            (0, BBox::new(1.0, 2.0, 9.0, 12.0)),
            (2, BBox::new(-6.0, -3.0, 5.5, 7.25)),
            (1, BBox::new(10.0, 3.0, 31.0, 40.0)),
            (1, BBox::new(4.0, 4.0, 4.0, 4.0)),
            (0, BBox::new(7.3, 1.1, 7.9, 15.2)),
        ];
        let bilinear = |plane: usize, y: f32, x: f32| {
            if y < -1.0 || y > h as f32 || x < -1.0 || x > w as f32 {
                return 0.0;
            }
            let (y, x) = (y.clamp(0.0, (h - 1) as f32), x.clamp(0.0, (w - 1) as f32));
            let (top, left) = (y as usize, x as usize);
            let (bottom, right) = ((top + 1).min(h - 1), (left + 1).min(w - 1));
            let (fy, fx) = (f64::from(y - top as f32), f64::from(x - left as f32));
            let cell = |y: usize, x: usize| f64::from(values[(plane * h + y) * w + x]);
            let across = |y: usize| cell(y, left) * (1.0 - fx) + cell(y, right) * fx;
            across(top) * (1.0 - fy) + across(bottom) * fy
        };
        for (ratio, (ph, pw), scale) in [(2, (7, 7), 0.5), (0, (3, 2), 0.5), (1, (1, 4), 1.0), (3, (2, 3), 0.25)] {
            for (aligned, offset, least) in [(false, 0.0, 1.0), (true, 0.5, 0.0)] {
                let y = roi_align(&x, &rois, scale, (ph, pw), ratio, aligned)?;
                assert_eq!(y.dims(), [rois.len(), channels, ph, pw]);
                for (index, found) in y.flatten_all()?.to_vec1::<f32>()?.into_iter().enumerate() {
                    let (image, b) = rois[index / (channels * ph * pw)];
                    let (c, p, q) = (index / (ph * pw) % channels, index / pw % ph, index % pw);
                    let (x0, y0) = (b.x0 * scale - offset, b.y0 * scale - offset);
                    let bin_h = ((b.y1 * scale - offset) - y0).max(least) / ph as f32;
                    let bin_w = ((b.x1 * scale - offset) - x0).max(least) / pw as f32;
                    let grid = |bin: f32| if ratio > 0 { ratio } else { bin.ceil() as usize };
                    let (gh, gw) = (grid(bin_h), grid(bin_w));
                    let mut sum = 0.0;
                    for (i, j) in (0..gh).flat_map(|i| (0..gw).map(move |j| (i, j))) {
                        let y = y0 + p as f32 * bin_h + (i as f32 + 0.5) * bin_h / gh as f32;
                        let x = x0 + q as f32 * bin_w + (j as f32 + 0.5) * bin_w / gw as f32;
                        sum += bilinear(image as usize * channels + c, y, x);
                    }
                    let expected = sum / (gh * gw).max(1) as f64;
                    let error = (f64::from(found) - expected).abs();
                    assert!(error < 1e-5, "aligned {aligned}, ratio {ratio}, {b:?}: {found}, not {expected}");
                }
            }
        }
        Ok(())
    }

    /// A region a million cells wide must not sample a million times: its bins are zero but for the share of the few
    /// samples that meet the map.
    #[test]
    fn huge_regions_are_quick() -> Result<()> {
        let x = Tensor::full(1.0f32, (1, 1, 4, 4), &Device::Cpu)?;
        let rois = [(0, BBox::new(-1e30, -1e30, 1e30, 1e30)), (0, BBox::new(0.0, 0.0, 1e6, 1e6))];
        let y = roi_align(&x, &rois, 1.0, (2, 2), 0, true)?.flatten_all()?.to_vec1::<f32>()?;
        assert!(y.iter().all(|v| v.is_finite()));
        assert_eq!(y[5..], [0.0; 3]);
        Ok(())
    }

    /// Box (0, 0)–(3, 2) covers 4x3 cells with both ends; two bins of 2 by 1.5 cells, the latter read as rows 0–1, 1–2.
    #[test]
    fn pooling_takes_the_maximum_of_whole_cells() -> Result<()> {
        let y = roi_pool(&ramp(4, 6)?, &[(0, BBox::new(0.0, 0.0, 3.0, 2.0))], 1.0, (2, 2))?;
        assert_eq!(y.flatten_all()?.to_vec1::<f32>()?, [11.0, 13.0, 21.0, 23.0]);
        Ok(())
    }

    #[test]
    fn regions_that_do_not_fit_are_errors() -> Result<()> {
        let x = ramp(4, 4)?;
        assert!(roi_align(&x, &[(1, BBox::default())], 1.0, (2, 2), 2, false).is_err());
        assert!(roi_align(&x, &[(0, BBox::new(0.0, f32::NAN, 1.0, 1.0))], 1.0, (2, 2), 2, false).is_err());
        assert!(roi_pool(&x, &[], 1.0, (0, 2)).is_err());
        assert_eq!(roi_align(&x, &[], 1.0, (3, 2), 0, true)?.dims(), [0, 1, 3, 2]);
        Ok(())
    }
}
