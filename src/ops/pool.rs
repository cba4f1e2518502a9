//! Maximum and average pooling by PyTorch's rules: padding, rounding up, adaptive windows, any kernel and stride.

use super::cuda;
use super::resize::{Axis, resample};
use super::storage::{contiguous, with_values};
use super::tape::apply1;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;
use std::hint::select_unpredictable;

/// The windows of a pooling layer; pairs are (vertical, horizontal), in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    pub kernel: (usize, usize),
    pub stride: (usize, usize),
    pub padding: (usize, usize),
    /// Round the output size up, so that a last window may reach past the input.
    pub ceil_mode: bool,
}

impl Pool {
    /// Square windows of side `kernel` that do not overlap, without padding, rounding down.
    pub const fn new(kernel: usize) -> Self {
        Self { kernel: (kernel, kernel), stride: (kernel, kernel), padding: (0, 0), ceil_mode: false }
    }

    /// The same stride on both axes.
    pub const fn stride(mut self, stride: usize) -> Self {
        self.stride = (stride, stride);
        self
    }

    /// The same padding on all four sides.
    pub const fn padding(mut self, padding: usize) -> Self {
        self.padding = (padding, padding);
        self
    }

    /// Rounds the output size up.
    pub const fn ceil(mut self) -> Self {
        self.ceil_mode = true;
        self
    }

    /// Output height and width for an input of `h` by `w`.
    ///
    /// # Errors
    /// A zero kernel or stride, padding of more than half the kernel, or an input too small for one window.
    pub fn output(&self, h: usize, w: usize) -> Result<(usize, usize)> {
        Ok((
            output_length(h, self.kernel.0, self.stride.0, self.padding.0, self.ceil_mode)?,
            output_length(w, self.kernel.1, self.stride.1, self.padding.1, self.ceil_mode)?,
        ))
    }
}

/// The number of windows along one axis. Rounding up, the last one must start inside the input or its left padding.
fn output_length(input: usize, kernel: usize, stride: usize, padding: usize, ceil_mode: bool) -> Result<usize> {
    if kernel == 0 || stride == 0 || padding > kernel / 2 {
        candle_core::bail!(
            "pooling needs a kernel and stride above 0 and padding of at most half the kernel, not {}, {} and {}",
            kernel,
            stride,
            padding
        );
    }
    let padded = input + 2 * padding;
    let room = match (padded.checked_sub(kernel), ceil_mode) {
        (Some(room), false) => Some(room),
        (Some(room), true) => Some(room + stride - 1),
        (None, false) => None,
        // Rounding up, one partial window fits while it misses less than a stride.
        (None, true) => (padded + stride - 1).checked_sub(kernel),
    };
    let Some(room) = room.filter(|_| input > 0) else {
        candle_core::bail!("pooling of {} pixels with a kernel of {} gives an empty map", input, kernel);
    };
    let output = room / stride + 1;
    let past_the_end = ceil_mode && (output - 1) * stride >= input + padding;
    Ok(if past_the_end { output - 1 } else { output })
}

/// Maximum of every window of `[N, C, H, W]`. Among equals the first in row-major order gets the gradient.
///
/// # Errors
/// A tensor that is not rank 4 f32, or what [`Pool::output`] refuses.
pub fn max_pool2d(x: &Tensor, pool: Pool) -> Result<Tensor> {
    let (_, _, h, w) = x.dims4()?;
    pool.output(h, w)?;
    if x.device().is_cpu() { apply1(x, MaxPool(pool)) } else { cuda::pool::max_pool2d(x, pool) }
}

/// Mean of every window of `[N, C, H, W]`; padded zeros count as pixels with `count_include_pad`.
///
/// # Errors
/// A tensor that is not rank 4 f32, or what [`Pool::output`] refuses.
pub fn avg_pool2d(x: &Tensor, pool: Pool, count_include_pad: bool) -> Result<Tensor> {
    let (_, _, h, w) = x.dims4()?;
    let (oh, ow) = pool.output(h, w)?;
    let axis = |length: usize, output: usize, kernel: usize, stride: usize, padding: usize| {
        let windows = (0..output).map(|o| {
            let (start, end) = window(o, kernel, stride, padding, length);
            // The part of the window inside the padded input: rounding up may leave less than the kernel.
            let padded = (o * stride + kernel).min(length + 2 * padding) - o * stride;
            (start, end, if count_include_pad { padded } else { end - start })
        });
        Axis::means(length, windows)
    };
    let rows = axis(h, oh, pool.kernel.0, pool.stride.0, pool.padding.0);
    let columns = axis(w, ow, pool.kernel.1, pool.stride.1, pool.padding.1);
    resample(x, rows, columns, "avg_pool2d")
}

/// Means over `h` by `w` windows that cover the map evenly: window i spans ⌊i·H/h⌋ to ⌈(i+1)·H/h⌉.
///
/// # Errors
/// A tensor that is not rank 4 f32, or an empty side.
pub fn adaptive_avg_pool2d(x: &Tensor, (h, w): (usize, usize)) -> Result<Tensor> {
    let (_, _, height, width) = x.dims4()?;
    if height == 0 || width == 0 || h == 0 || w == 0 {
        candle_core::bail!("adaptive_avg_pool2d of {:?} to {}x{}: no side may be empty", x.dims(), h, w);
    }
    let axis = |length: usize, output: usize| {
        let windows = (0..output).map(|i| {
            let (start, end) = (i * length / output, ((i + 1) * length).div_ceil(output));
            (start, end, end - start)
        });
        Axis::means(length, windows)
    };
    resample(x, axis(height, h), axis(width, w), "adaptive_avg_pool2d")
}

/// Mean of every plane: `[N, C, H, W]` to `[N, C, 1, 1]`.
///
/// # Errors
/// A tensor that is not rank 4 f32, or an empty side.
pub fn global_avg_pool(x: &Tensor) -> Result<Tensor> {
    adaptive_avg_pool2d(x, (1, 1))
}

/// First and one past the last input of window `o`; never empty for an output that [`output_length`] counted.
fn window(o: usize, kernel: usize, stride: usize, padding: usize, length: usize) -> (usize, usize) {
    let start = (o * stride).saturating_sub(padding);
    let end = (o * stride + kernel).saturating_sub(padding).min(length);
    (start, end.max(start))
}

struct MaxPool(Pool);

impl MaxPool {
    fn windows(&self, (h, w): (usize, usize), (oh, ow): (usize, usize)) -> [Vec<(usize, usize)>; 2] {
        let Pool { kernel, stride, padding, .. } = self.0;
        [
            (0..oh).map(|o| window(o, kernel.0, stride.0, padding.0, h)).collect(),
            (0..ow).map(|o| window(o, kernel.1, stride.1, padding.1, w)).collect(),
        ]
    }
}

/// The larger of the two; NaN wins, as in PyTorch.
#[inline(always)]
fn larger(best: f32, value: f32) -> f32 {
    if value > best || value.is_nan() { value } else { best }
}

/// Maximum of one plane: down the rows of a window first, which vectorises, then across.
fn max_plane(x: &[f32], width: usize, windows: &[Vec<(usize, usize)>; 2], y: &mut [f32], row: &mut [f32]) {
    let [rows, columns] = windows;
    for (&(top, bottom), y) in rows.iter().zip(y.chunks_exact_mut(columns.len())) {
        row.copy_from_slice(&x[top * width..(top + 1) * width]);
        for source in x[(top + 1) * width..bottom * width].chunks_exact(width) {
            for (best, &value) in row.iter_mut().zip(source) {
                *best = larger(*best, value);
            }
        }
        for (y, &(left, right)) in y.iter_mut().zip(columns) {
            *y = row[left + 1..right].iter().fold(row[left], |best, &value| larger(best, value));
        }
    }
}

/// Adds every gradient of `g` to the place its maximum came from.
fn max_plane_gradient(x: &[f32], width: usize, windows: &[Vec<(usize, usize)>; 2], g: &[f32], gx: &mut [f32]) {
    let [rows, columns] = windows;
    for (&(top, bottom), g) in rows.iter().zip(g.chunks_exact(columns.len())) {
        for (&g, &(left, right)) in g.iter().zip(columns) {
            let (mut best, mut most) = (top * width + left, x[top * width + left]);
            for y in top..bottom {
                let first = y * width + left;
                for (place, &value) in (first..).zip(&x[first..y * width + right]) {
                    // No branch: which one is largest cannot be predicted.
                    let better = (value > most) | value.is_nan();
                    best = select_unpredictable(better, place, best);
                    most = select_unpredictable(better, value, most);
                }
            }
            gx[best] += g;
        }
    }
}

impl CustomOp1 for MaxPool {
    fn name(&self) -> &'static str {
        "max_pool2d"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, c, h, w) = layout.shape().dims4()?;
        let (oh, ow) = self.0.output(h, w)?;
        let x = contiguous(storage, layout, self.name())?;
        let windows = self.windows((h, w), (oh, ow));
        let mut y = vec![0.0f32; n * c * oh * ow];
        y.par_chunks_mut(oh * ow)
            .zip(x.par_chunks(h * w))
            .for_each_init(|| vec![0.0f32; w], |row, (y, x)| max_plane(x, w, &windows, y, row));
        Ok((CpuStorage::F32(y), Shape::from((n, c, oh, ow))))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad_res: &Tensor) -> Result<Option<Tensor>> {
        let (_, _, h, w) = arg.dims4()?;
        let (oh, ow) = self.0.output(h, w)?;
        let windows = self.windows((h, w), (oh, ow));
        let gradient = with_values(arg, self.name(), |x| {
            with_values(grad_res, self.name(), |g| {
                let mut gx = vec![0.0f32; x.len()];
                let inputs = x.par_chunks(h * w).zip(g.par_chunks(oh * ow));
                gx.par_chunks_mut(h * w).zip(inputs).for_each(|(gx, (x, g))| max_plane_gradient(x, w, &windows, g, gx));
                Ok(gx)
            })
        })?;
        Ok(Some(Tensor::from_vec(gradient, arg.shape(), arg.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    /// PyTorch 2's `pooling_output_shape`, evaluated by hand for the shapes detectors meet.
    #[test]
    fn output_sizes_follow_pytorch() -> Result<()> {
        let two = Pool::new(2);
        assert_eq!(two.ceil().output(75, 38)?, (38, 19)); // SSD pool3
        assert_eq!(two.output(75, 38)?, (37, 19));
        assert_eq!(Pool::new(3).stride(1).padding(1).output(19, 19)?, (19, 19)); // SSD pool5
        assert_eq!(Pool::new(3).stride(2).padding(1).output(112, 113)?, (56, 57)); // ResNet's stem
        assert_eq!(Pool::new(3).stride(2).ceil().output(112, 113)?, (56, 56)); // Caffe's stem
        assert_eq!(two.ceil().output(1, 3)?, (1, 2));
        // A third window would start past the input and its left padding.
        assert_eq!(Pool::new(2).stride(3).padding(1).ceil().output(5, 4)?, (2, 2));
        assert_eq!(Pool::new(1).stride(2).output(7, 8)?, (4, 4)); // FPN's P6
        assert!(two.output(1, 4).is_err());
        assert!(two.output(0, 4).is_err());
        assert!(Pool::new(2).padding(2).output(8, 8).is_err());
        assert!(Pool::new(0).output(8, 8).is_err());
        assert!(Pool::new(2).stride(0).output(8, 8).is_err());
        Ok(())
    }

    /// Every window cell by cell, cells outside the input skipped, against PyTorch's divisors.
    #[test]
    fn windows_match_the_definition() -> Result<()> {
        let mut pools = vec![
            Pool::new(1).stride(2),
            Pool::new(2),
            Pool::new(2).ceil(),
            Pool::new(3).stride(1).padding(1),
            Pool::new(3).stride(2).padding(1).ceil(),
            Pool::new(2).stride(3).padding(1).ceil(),
        ];
        let odd = Pool::new(1).ceil();
        pools.push(Pool { kernel: (3, 2), stride: (2, 1), padding: (1, 0), ..odd });
        pools.push(Pool { kernel: (2, 5), stride: (1, 4), padding: (0, 2), ..odd });
        for (n, c, h, w) in [(1, 2, 5, 7), (3, 1, 6, 5), (3, 2, 9, 6), (1, 1, 7, 8)] {
            let values: Vec<f32> = (0..n * c * h * w).map(|i| ((i * 61) % 97) as f32 - 50.0).collect();
            let x = Tensor::from_slice(&values, (n, c, h, w), &Device::Cpu)?;
            for &pool in &pools {
                let (oh, ow) = pool.output(h, w)?;
                let (mut largest, mut means, mut padded_means) = (Vec::new(), Vec::new(), Vec::new());
                for index in 0..n * c * oh * ow {
                    let (plane, i, j) = (index / (oh * ow), index / ow % oh, index % ow);
                    let top = (i * pool.stride.0) as isize - pool.padding.0 as isize;
                    let left = (j * pool.stride.1) as isize - pool.padding.1 as isize;
                    let bottom = (top + pool.kernel.0 as isize).min((h + pool.padding.0) as isize);
                    let right = (left + pool.kernel.1 as isize).min((w + pool.padding.1) as isize);
                    let mut cells = Vec::new();
                    for y in top.max(0)..bottom.min(h as isize) {
                        for x in left.max(0)..right.min(w as isize) {
                            cells.push(values[(plane * h + y as usize) * w + x as usize]);
                        }
                    }
                    let sum: f32 = cells.iter().sum();
                    largest.push(cells.iter().copied().fold(f32::NEG_INFINITY, f32::max));
                    means.push(sum / cells.len() as f32);
                    padded_means.push(sum / ((bottom - top) * (right - left)) as f32);
                }
                let y = max_pool2d(&x, pool)?;
                assert_eq!(y.dims(), [n, c, oh, ow]);
                assert_eq!(y.flatten_all()?.to_vec1::<f32>()?, largest, "{pool:?}");
                for (include, expected) in [(false, means), (true, padded_means)] {
                    let y = avg_pool2d(&x, pool, include)?.flatten_all()?.to_vec1::<f32>()?;
                    // Cells are whole numbers below 50, so only the weights 1 / divisor are rounded.
                    let close = y.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4);
                    assert!(close && y.len() == expected.len(), "{pool:?}, include {include}: {y:?}, {expected:?}");
                }
            }
        }
        Ok(())
    }

    /// Five pixels in three bins are pixels 0–1, 1–3 and 3–4.
    #[test]
    fn adaptive_bins_overlap_where_sizes_do_not_divide() -> Result<()> {
        let x = Tensor::from_slice(&[1.0f32, 3.0, 5.0, 10.0, 20.0], (1, 1, 1, 5), &Device::Cpu)?;
        let y = adaptive_avg_pool2d(&x, (1, 3))?.flatten_all()?.to_vec1::<f32>()?;
        for (y, expected) in y.iter().zip([2.0f32, 6.0, 15.0]) {
            assert!((y - expected).abs() < 1e-5);
        }
        let y = global_avg_pool(&x)?;
        assert_eq!(y.dims(), [1, 1, 1, 1]);
        assert!((y.flatten_all()?.to_vec1::<f32>()?[0] - 7.8).abs() < 1e-5);
        assert!(adaptive_avg_pool2d(&x, (0, 1)).is_err());
        Ok(())
    }

    #[test]
    fn the_first_maximum_gets_the_gradient_and_nan_wins() -> Result<()> {
        let x = Var::from_slice(&[1.0f32, 2.0, 2.0, 1.0], (1, 1, 2, 2), &Device::Cpu)?;
        let gradients = max_pool2d(x.as_tensor(), Pool::new(2))?.sum_all()?.backward()?;
        let g = gradients.get(x.as_tensor()).expect("a gradient").flatten_all()?;
        assert_eq!(g.to_vec1::<f32>()?, [0.0, 1.0, 0.0, 0.0]);
        let x = Tensor::from_slice(&[1.0f32, f32::NAN, 2.0, 1.0], (1, 1, 2, 2), &Device::Cpu)?;
        assert!(max_pool2d(&x, Pool::new(2))?.flatten_all()?.to_vec1::<f32>()?[0].is_nan());
        Ok(())
    }
}
