//! Resampling of feature maps: nearest and bilinear, to any size, with gradients that are the exact transpose.
//!
//! Both axes are resampled independently, so an op is two sparse matrices: `y = R · x · Cᵀ` on every plane and
//! `gx = Rᵀ · gy · C` going back. Average pooling and RoIAlign are of the same form and share [`Axis`].

use super::cuda;
use super::storage::{contiguous, with_values};
use super::tape::apply1;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

/// One axis of a separable resampling: every output is a weighted sum of a few inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    input: usize,
    ends: Vec<usize>,
    taps: Vec<(usize, f32)>,
}

impl Axis {
    /// An axis over `input` positions that has no outputs yet.
    pub(super) fn empty(input: usize) -> Self {
        Self { input, ends: Vec::new(), taps: Vec::new() }
    }

    /// Adds `weight` of input `source` to the output being built. The last two sources are merged with a repeated one.
    pub(super) fn tap(&mut self, source: usize, weight: f32) {
        debug_assert!(source < self.input);
        let start = self.ends.last().copied().unwrap_or(0);
        let recent = self.taps.len().saturating_sub(2).max(start);
        match self.taps[recent..].iter_mut().find(|(s, _)| *s == source) {
            Some((_, w)) => *w += weight,
            None => self.taps.push((source, weight)),
        }
    }

    /// Closes the output being built.
    pub(super) fn close(&mut self) {
        self.ends.push(self.taps.len());
    }

    /// PyTorch's `nearest`: output i reads input ⌊i · input / output⌋.
    pub fn nearest(input: usize, output: usize) -> Self {
        let mut axis = Self::empty(input);
        for i in 0..output {
            axis.tap(i * input / output, 1.0);
            axis.close();
        }
        axis
    }

    /// PyTorch's `bilinear`, in its f32 arithmetic: corners onto corners with `align_corners`, else pixel areas.
    pub fn bilinear(input: usize, output: usize, align_corners: bool) -> Self {
        let scale = match (align_corners, output) {
            (true, 0 | 1) => 0.0,
            (true, _) => (input - 1) as f32 / (output - 1) as f32,
            (false, _) => input as f32 / output as f32,
        };
        let mut axis = Self::empty(input);
        for i in 0..output {
            let source = if align_corners { i as f32 * scale } else { ((i as f32 + 0.5) * scale - 0.5).max(0.0) };
            let low = (source as usize).min(input - 1);
            let high = (low + 1).min(input - 1);
            let fraction = (source - low as f32).clamp(0.0, 1.0);
            axis.tap(low, 1.0 - fraction);
            if fraction > 0.0 {
                axis.tap(high, fraction);
            }
            axis.close();
        }
        axis
    }

    /// Means over windows given as (first, one past the last, divisor); an empty window gives 0.
    pub(super) fn means(input: usize, windows: impl Iterator<Item = (usize, usize, usize)>) -> Self {
        let mut axis = Self::empty(input);
        for (start, end, divisor) in windows {
            for source in start..end {
                axis.tap(source, 1.0 / divisor as f32);
            }
            axis.close();
        }
        axis
    }

    /// Number of outputs.
    pub fn outputs(&self) -> usize {
        self.ends.len()
    }

    /// Sources and weights of output `i`.
    pub fn taps(&self, i: usize) -> &[(usize, f32)] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.taps[start..self.ends[i]]
    }

    /// Smallest and one past the largest input read; `(0, 0)` where none is.
    pub(super) fn span(&self) -> (usize, usize) {
        let start = self.taps.iter().map(|t| t.0).min();
        let end = self.taps.iter().map(|t| t.0 + 1).max();
        (start.unwrap_or(0), end.unwrap_or(0))
    }
}

/// Nearest-neighbour resampling of `[N, C, H, W]` to `[N, C, h, w]` (PyTorch `interpolate(mode="nearest")`).
///
/// # Errors
/// A tensor that is not rank 4 f32, or an empty side.
pub fn upsample_nearest(x: &Tensor, (h, w): (usize, usize)) -> Result<Tensor> {
    let (height, width) = sides(x, (h, w), "upsample_nearest")?;
    resample(x, Axis::nearest(height, h), Axis::nearest(width, w), "upsample_nearest")
}

/// Bilinear resampling of `[N, C, H, W]` to `[N, C, h, w]` (PyTorch `interpolate(mode="bilinear")`, no antialiasing).
///
/// # Errors
/// A tensor that is not rank 4 f32, or an empty side.
pub fn upsample_bilinear(x: &Tensor, (h, w): (usize, usize), align_corners: bool) -> Result<Tensor> {
    let (height, width) = sides(x, (h, w), "upsample_bilinear")?;
    let rows = Axis::bilinear(height, h, align_corners);
    let columns = Axis::bilinear(width, w, align_corners);
    resample(x, rows, columns, "upsample_bilinear")
}

fn sides(x: &Tensor, (h, w): (usize, usize), op: &str) -> Result<(usize, usize)> {
    let (_, _, height, width) = x.dims4()?;
    if height == 0 || width == 0 || h == 0 || w == 0 {
        candle_core::bail!("{} from {}x{} to {}x{}: no side may be empty", op, height, width, h, w);
    }
    Ok((height, width))
}

/// `R · x · Cᵀ` on every plane of `[N, C, H, W]`.
pub(super) fn resample(x: &Tensor, rows: Axis, columns: Axis, name: &'static str) -> Result<Tensor> {
    let (_, _, height, width) = x.dims4()?;
    if (rows.input, columns.input) != (height, width) {
        candle_core::bail!("{} was set up for {}x{}, not {:?}", name, rows.input, columns.input, x.dims());
    }
    if x.device().is_cpu() {
        return apply1(x, Resample { rows, columns, name });
    }
    cuda::resize::resample(x, &rows, &columns, name)
}

struct Resample {
    rows: Axis,
    columns: Axis,
    name: &'static str,
}

impl Resample {
    /// One plane; `scratch` holds every input row resampled across.
    fn plane(&self, x: &[f32], y: &mut [f32], scratch: &mut [f32]) {
        let (width, w) = (self.columns.input, self.columns.outputs());
        for (x, across) in x.chunks_exact(width).zip(scratch.chunks_exact_mut(w)) {
            for (i, out) in across.iter_mut().enumerate() {
                *out = self.columns.taps(i).iter().fold(0.0, |sum, &(source, weight)| sum + weight * x[source]);
            }
        }
        for (i, y) in y.chunks_exact_mut(w).enumerate() {
            for &(source, weight) in self.rows.taps(i) {
                add_scaled(y, weight, &scratch[source * w..(source + 1) * w]);
            }
        }
    }

    /// The transpose of [`Self::plane`], added to `gx`.
    fn plane_gradient(&self, g: &[f32], gx: &mut [f32], scratch: &mut [f32]) {
        let (width, w) = (self.columns.input, self.columns.outputs());
        scratch.fill(0.0);
        for (i, g) in g.chunks_exact(w).enumerate() {
            for &(source, weight) in self.rows.taps(i) {
                add_scaled(&mut scratch[source * w..(source + 1) * w], weight, g);
            }
        }
        for (gx, across) in gx.chunks_exact_mut(width).zip(scratch.chunks_exact(w)) {
            for (i, &g) in across.iter().enumerate() {
                for &(source, weight) in self.columns.taps(i) {
                    gx[source] += weight * g;
                }
            }
        }
    }
}

/// `y ← y + weight · x`.
#[inline]
pub(super) fn add_scaled(y: &mut [f32], weight: f32, x: &[f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y += weight * x;
    }
}

impl CustomOp1 for Resample {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, c, height, width) = layout.shape().dims4()?;
        let (h, w) = (self.rows.outputs(), self.columns.outputs());
        let x = contiguous(storage, layout, self.name)?;
        let mut y = vec![0.0f32; n * c * h * w];
        if !y.is_empty() && !x.is_empty() {
            y.par_chunks_mut(h * w)
                .zip(x.par_chunks(height * width))
                .for_each_init(|| vec![0.0f32; height * w], |scratch, (y, x)| self.plane(x, y, scratch));
        }
        Ok((CpuStorage::F32(y), Shape::from((n, c, h, w))))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad_res: &Tensor) -> Result<Option<Tensor>> {
        let (n, c, height, width) = arg.dims4()?;
        let (h, w) = (self.rows.outputs(), self.columns.outputs());
        let gradient = with_values(grad_res, self.name, |g| {
            let mut gx = vec![0.0f32; n * c * height * width];
            if !gx.is_empty() && !g.is_empty() {
                gx.par_chunks_mut(height * width)
                    .zip(g.par_chunks(h * w))
                    .for_each_init(|| vec![0.0f32; height * w], |scratch, (gx, g)| self.plane_gradient(g, gx, scratch));
            }
            Ok(gx)
        })?;
        Ok(Some(Tensor::from_vec(gradient, arg.shape(), arg.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn axes_follow_the_documented_positions() {
        let sources = |axis: Axis| (0..axis.outputs()).map(|i| axis.taps(i)[0].0).collect::<Vec<_>>();
        assert_eq!(sources(Axis::nearest(3, 5)), [0, 0, 1, 1, 2]);
        assert_eq!(sources(Axis::nearest(5, 2)), [0, 2]);
        // (i + 0.5) / 2 - 0.5 = -0.25, 0.25, 0.75, 1.25 with the ends clamped
        let axis = Axis::bilinear(2, 4, false);
        assert_eq!(axis.taps(0), [(0, 1.0)]);
        assert_eq!(axis.taps(1), [(0, 0.75), (1, 0.25)]);
        assert_eq!(axis.taps(2), [(0, 0.25), (1, 0.75)]);
        assert_eq!(axis.taps(3), [(1, 1.0)]);
        // i / 2: corners keep their values
        let axis = Axis::bilinear(2, 3, true);
        assert_eq!((axis.taps(0), axis.taps(2)), (&[(0, 1.0)][..], &[(1, 1.0)][..]));
        assert_eq!(axis.taps(1), [(0, 0.5), (1, 0.5)]);
    }

    /// Every output pixel from its four neighbours, for sizes that grow, shrink and stay.
    #[test]
    fn maps_match_the_definition() -> Result<()> {
        for (n, (h, w), (oh, ow)) in [
            (1, (1, 1), (3, 3)),
            (3, (3, 3), (5, 5)),
            (1, (4, 7), (4, 7)),
            (3, (7, 5), (3, 4)),
            (1, (2, 3), (7, 1)),
            (1, (6, 9), (13, 8)),
        ] {
            let values: Vec<f32> = (0..n * 2 * h * w).map(|i| ((i * 29) % 31) as f32 * 0.1 - 1.5).collect();
            let x = Tensor::from_slice(&values, (n, 2, h, w), &Device::Cpu)?;
            let y = upsample_nearest(&x, (oh, ow))?;
            assert_eq!(y.dims(), [n, 2, oh, ow]);
            for (index, &y) in y.flatten_all()?.to_vec1::<f32>()?.iter().enumerate() {
                let (plane, i, j) = (index / (oh * ow), index / ow % oh, index % ow);
                assert_eq!(y, values[(plane * h + i * h / oh) * w + j * w / ow]);
            }
            for align in [false, true] {
                let position = |i: usize, input: usize, output: usize| {
                    let (i, last) = (i as f64, (input - 1) as f64);
                    match (align, output) {
                        (true, 1) => 0.0,
                        (true, _) => i * last / (output - 1) as f64,
                        (false, _) => ((i + 0.5) * input as f64 / output as f64 - 0.5).clamp(0.0, last),
                    }
                };
                let y = upsample_bilinear(&x, (oh, ow), align)?.flatten_all()?.to_vec1::<f32>()?;
                for (index, &found) in y.iter().enumerate() {
                    let (plane, i, j) = (index / (oh * ow), index / ow % oh, index % ow);
                    let (py, px) = (position(i, h, oh), position(j, w, ow));
                    let mut expected = 0.0;
                    for (y, x) in (0..h).flat_map(|y| (0..w).map(move |x| (y, x))) {
                        // The tent function: each source counts by how near it is, on both axes.
                        let share = (1.0 - (py - y as f64).abs()).max(0.0) * (1.0 - (px - x as f64).abs()).max(0.0);
                        expected += share * f64::from(values[(plane * h + y) * w + x]);
                    }
                    let error = (f64::from(found) - expected).abs();
                    assert!(error < 1e-5, "{h}x{w} to {oh}x{ow}, align {align}: {found}, not {expected}");
                }
            }
        }
        Ok(())
    }
}
