//! The gradient of a convolution's weight: for each output and kernel position a sum over all pixels.
//!
//! As a product its depth is the pixels, its rows are (input channel, tap) pairs and its columns are outputs, in blocks
//! of up to 48. A task goes through pixels in rectangles of about 256. For each it copies the input rectangle with its
//! padding where it needs any, turns the output's gradient of a block into `[pixel][outputs]`, which stays in the
//! first-level cache, and lets the tiles read eight rows of the input at a time: shifting a row pointer by a tap replaces
//! the unrolled image.
//!
//! Usually a task owns one block and some input channels of a group, and all pixels. Where weights are few and pixels
//! many, reading the maps again for every block takes longer than multiplying: there a task owns all blocks and channels
//! of a group and a band of the pixels, so that a rectangle comes from memory once, and the bands' sums are added up.
//! Rectangles and bands follow from the shape and every sum runs through them in order, so neither tasks nor threads
//! change a bit.

use super::direct::part;
use super::forward::{Method, method};
use super::gemm::{Kernel, Outer, TILE_ROWS};
use super::pack::copy;
use super::scratch::scratch;
use super::simd::{Simd, dispatch};
use super::spec::Geometry;
use super::tasks::{Destination, filled, parallel};
use super::winograd_weight;
use crate::ops::storage::CHUNK;
use candle_core::Result;
use rayon::prelude::*;

/// Pixels of a rectangle.
const PIXELS: usize = 256;
/// Input channels of a task, at most and at least (where dividing them gives every thread work).
const MOST_CHANNELS: usize = 64;
const LEAST_CHANNELS: usize = 8;
/// Where owners and channels make fewer tasks than this, the images are cut too, into at most so many parts.
const LEAST_TASKS: usize = 8;
/// Tasks own bands where the weights, their outputs in whole blocks, are at most so many floats: a quarter of a megabyte
/// of sums, which stay in the second-level cache. And the pixels of all images must be at least so many.
const FEW_WEIGHTS: usize = 1 << 16;
const MANY_PIXELS: usize = 1 << 13;
/// Bands, counted over all groups.
const BANDS: usize = 16;

/// One gradient to compute: its sizes and slices.
struct Job<'a> {
    geometry: &'a Geometry,
    x: &'a [f32],
    output: &'a [f32],
    /// Outputs of a block: 16, 32 or 48.
    width: usize,
    /// Blocks that a task owns.
    blocks: usize,
    /// Pieces that the input channels of a group are cut into.
    pieces: usize,
    /// Parts that the pixels of all images are cut into, summed apart.
    parts: usize,
}

impl Job<'_> {
    /// Tasks that share the outputs of a group.
    fn owners_of_group(&self) -> usize {
        self.geometry.out_channels.div_ceil(self.blocks * self.width)
    }
}

/// Gradient `[O, C/groups, kh, kw]` from the input and the gradient of the output before its activation.
pub(super) fn weight_gradient(simd: Simd, geometry: &Geometry, x: &[f32], output: &[f32]) -> Result<Vec<f32>> {
    if geometry.is_depthwise() {
        return Ok(super::depthwise::weight_gradient(geometry, x, output));
    }
    let width = tile_width(geometry.out_channels);
    if method(geometry) == Method::Winograd4 {
        // SAFETY: it writes the whole gradient.
        return unsafe {
            filled(geometry.weight_len(), |to| {
                winograd_weight::weight_gradient(simd, geometry, width, (x, output), to);
            })
        };
    }
    let blocks = geometry.out_channels.div_ceil(width);
    let job = if in_bands(geometry, width) {
        Job { geometry, x, output, width, blocks, pieces: 1, parts: BANDS.div_ceil(geometry.groups) }
    } else {
        let owners = geometry.groups * blocks;
        let least = geometry.in_channels.div_ceil(MOST_CHANNELS);
        let most = geometry.in_channels.div_ceil(LEAST_CHANNELS);
        let pieces = (4 * rayon::current_num_threads()).div_ceil(owners).clamp(least, most);
        // Layers of few channels make few tasks: there the images are cut too. The cut follows from the shape alone,
        // for it decides the order of the sums.
        let parts = if owners * most < LEAST_TASKS { geometry.batch.clamp(1, LEAST_TASKS) } else { 1 };
        Job { geometry, x, output, width, blocks: 1, pieces, parts }
    };
    let len = geometry.weight_len();
    let tasks = job.parts * geometry.groups * job.owners_of_group() * job.pieces;
    let sum_up = |to: Destination| {
        parallel(tasks, |task| {
            // SAFETY: `to` has a weight for each part, and each task writes its own outputs and channels of its part.
            unsafe { dispatch!(simd, one_task(job: &Job<'_> = &job, task: usize = task, to: Destination = to)) }
        });
    };
    if job.parts == 1 {
        // SAFETY: the tasks' outputs and channels together are the whole gradient.
        return unsafe { filled(len, sum_up) };
    }
    let mut sums = scratch(job.parts * len);
    sum_up(Destination::new(sums.as_mut_slice()));
    let (first, others) = sums.as_slice().split_at(len);
    let mut total = first.to_vec();
    total.par_chunks_mut(CHUNK).enumerate().for_each(|(index, total)| {
        for other in others.chunks_exact(len) {
            for (sum, &value) in total.iter_mut().zip(&other[index * CHUNK..]) {
                *sum += value;
            }
        }
    });
    Ok(total)
}

/// Whether a task owns a band of the pixels and all of a group's outputs and input channels.
fn in_bands(geometry: &Geometry, width: usize) -> bool {
    let outs = geometry.out_channels.next_multiple_of(width);
    outs * geometry.in_channels * geometry.taps() <= FEW_WEIGHTS
        && geometry.batch * geometry.output_plane() >= MANY_PIXELS
}

/// The tile width that wastes the fewest columns on a number of outputs.
fn tile_width(outs: usize) -> usize {
    if outs.is_multiple_of(48) || (33..48).contains(&outs) {
        48
    } else if outs > 16 {
        32
    } else {
        16
    }
}

/// # Safety
/// The CPU has `V`'s instructions; `to` has room for a weight for each part, and nobody else writes this task's outputs
/// and channels of its part.
#[inline(always)]
unsafe fn one_task<V: Kernel>(job: &Job<'_>, task: usize, to: Destination) {
    let geometry = job.geometry;
    let taps = geometry.taps();
    let (task, own_part) = (task / job.parts, task % job.parts);
    let (owner, piece) = (task / job.pieces, task % job.pieces);
    let (group, owner) = (owner / job.owners_of_group(), owner % job.owners_of_group());
    let first_out = owner * job.blocks * job.width;
    let outs = (job.blocks * job.width).min(geometry.out_channels - first_out);
    let channels = part(geometry.in_channels, job.pieces, piece);
    let rows = channels.len() * taps;
    let tiles = rows.div_ceil(TILE_ROWS);

    let columns = geometry.output.1.div_ceil(geometry.output.1.div_ceil(PIXELS));
    let lines = (PIXELS / columns).clamp(1, geometry.output.0);
    let reach = |count: usize, stride: usize, kernel: usize, dilation: usize| {
        (count - 1) * stride + (kernel - 1) * dilation + 1
    };
    let high = reach(lines, geometry.stride.0, geometry.kernel.0, geometry.dilation.0);
    let wide = reach(columns, geometry.stride.1, geometry.kernel.1, geometry.dilation.1);
    // Of each block `[row][width]`.
    let block_sums = tiles * TILE_ROWS * job.width;
    let mut sums = scratch(job.blocks * block_sums);
    let mut pixels = scratch(lines * columns * job.width);
    let mut window = scratch(channels.len() * high * wide + 16);
    let sums = sums.as_mut_slice();
    sums.fill(0.0);
    let pixels = pixels.as_mut_slice().as_mut_ptr();
    let window = window.as_mut_slice().as_mut_ptr();

    let (plane, output_plane) = (geometry.input_plane(), geometry.output_plane());
    // A strip is a line of rectangles; those of all images are numbered through.
    let strips = geometry.output.0.div_ceil(lines);
    for strip in part(geometry.batch * strips, job.parts, own_part) {
        let (image, y) = (strip / strips, strip % strips * lines);
        let first_plane = (image * geometry.groups + group) * geometry.in_channels + channels.start;
        let planes = &job.x[first_plane * plane..][..channels.len() * plane];
        let first_output = (image * geometry.groups + group) * geometry.out_channels + first_out;
        let gradients = &job.output[first_output * output_plane..][..outs * output_plane];
        for x in (0..geometry.output.1).step_by(columns) {
            let size = (lines.min(geometry.output.0 - y), columns.min(geometry.output.1 - x));
            // SAFETY: the buffers hold the largest rectangle, and this one lies in the image; row pointers stay in the
            // window for every tap and pixel, and the tiles' sums in their block's.
            unsafe {
                let view = view::<V>(geometry, planes, (y, x), size, window);
                for (block, gradients) in gradients.chunks(job.width * output_plane).enumerate() {
                    pixels_first::<V>(geometry, gradients, (y, x), size, job.width, pixels);
                    for tile in 0..tiles {
                        let outer = Outer {
                            rows: std::array::from_fn(|r| {
                                // Rows beyond the last repeat it; their sums are not used.
                                let row = (tile * TILE_ROWS + r).min(rows - 1);
                                let (channel, tap) = (row / taps, row % taps);
                                let tap_y = tap / geometry.kernel.1 * geometry.dilation.0;
                                let tap_x = tap % geometry.kernel.1 * geometry.dilation.1;
                                view.start.wrapping_add(channel * view.plane + tap_y * view.pitch + tap_x)
                            }),
                            pixels: size,
                            steps: (view.pitch * geometry.stride.0, geometry.stride.1),
                            b: pixels.cast_const(),
                            width: job.width,
                            c: sums.as_mut_ptr().wrapping_add(block * block_sums + tile * TILE_ROWS * job.width),
                        };
                        V::outer(&outer);
                    }
                }
            }
        }
    }
    let start = own_part * geometry.weight_len();
    for out in 0..outs {
        let first =
            start + ((group * geometry.out_channels + first_out + out) * geometry.in_channels + channels.start) * taps;
        let column = out / job.width * block_sums + out % job.width;
        for row in 0..rows {
            // SAFETY: within this part's weight; the task owns these outputs and channels.
            unsafe { *to.at(first + row) = sums[column + row * job.width] };
        }
    }
}

/// `[pixel][width]` from the outputs' planes `[outs][H'·W']`; columns beyond the last output are 0.
///
/// # Safety
/// The CPU has `V`'s instructions; the rectangle lies in the planes; `to` has room for it.
#[inline(always)]
unsafe fn pixels_first<V: Kernel>(
    geometry: &Geometry,
    planes: &[f32],
    (top, left): (usize, usize),
    size: (usize, usize),
    width: usize,
    to: *mut f32,
) {
    let plane = geometry.output_plane();
    let outs = planes.len() / plane;
    // SAFETY: by the contract; masks keep reads inside the rectangle.
    unsafe {
        let zero = V::splat(0.0);
        let mut block = [0.0_f32; 64];
        for y in 0..size.0 {
            let line = (top + y) * geometry.output.1 + left;
            for x in (0..size.1).step_by(V::LANES) {
                let count = V::LANES.min(size.1 - x);
                let mask = ((1_u64 << count) - 1) as u32;
                for out in (0..width).step_by(4) {
                    let mut rows = [zero; 4];
                    for (r, row) in rows.iter_mut().enumerate() {
                        if out + r < outs {
                            *row = zero.load_where(planes.as_ptr().add((out + r) * plane + line + x), mask);
                        }
                    }
                    // Vector j holds pixels j, j + 4, …, each with its four outputs side by side.
                    for (j, vector) in V::transpose(rows).iter().enumerate() {
                        vector.store(block.as_mut_ptr().add(j * V::LANES));
                    }
                    for pixel in 0..count {
                        let from = block.as_ptr().add(pixel % 4 * V::LANES + pixel / 4 * 4);
                        let place = to.add((y * size.1 + x + pixel) * width + out);
                        place.copy_from_nonoverlapping(from, 4);
                    }
                }
            }
        }
    }
}

/// An input rectangle with its padding: channel planes of rows `pitch` apart.
struct View {
    start: *const f32,
    pitch: usize,
    plane: usize,
}

/// The input rectangle that an output rectangle sees: in the image itself where it meets no padding, else a copy.
///
/// # Safety
/// The CPU has `V`'s instructions; `copied` has room for the rectangle of every plane and 16 floats more.
#[inline(always)]
unsafe fn view<V: Kernel>(
    geometry: &Geometry,
    planes: &[f32],
    (y, x): (usize, usize),
    size: (usize, usize),
    copied: *mut f32,
) -> View {
    let (height, width) = geometry.input;
    let top = (y * geometry.stride.0) as isize - geometry.padding.0 as isize;
    let left = (x * geometry.stride.1) as isize - geometry.padding.1 as isize;
    let high = (size.0 - 1) * geometry.stride.0 + (geometry.kernel.0 - 1) * geometry.dilation.0 + 1;
    let wide = (size.1 - 1) * geometry.stride.1 + (geometry.kernel.1 - 1) * geometry.dilation.1 + 1;
    let bottom = top + high as isize;
    let right = left + wide as isize;
    if top >= 0 && left >= 0 && bottom <= height as isize && right <= width as isize {
        return View {
            start: planes[top.unsigned_abs() * width + left.unsigned_abs()..].as_ptr(),
            pitch: width,
            plane: height * width,
        };
    }
    // Columns low..end of the rectangle are pixels, the others padding.
    let low = (-left).clamp(0, wide as isize).unsigned_abs();
    let end = (width as isize - left).clamp(low as isize, wide as isize).unsigned_abs();
    let first_column = (left + low as isize).max(0).unsigned_abs();
    for channel in 0..planes.len() / (height * width) {
        for row in 0..high {
            let place = copied.wrapping_add((channel * high + row) * wide);
            let source = top + row as isize;
            // SAFETY: the row lies in the copy, and what `copy` writes beyond belongs to later columns and rows or to
            // the 16 floats at the end.
            unsafe {
                if low >= end || !(0..height as isize).contains(&source) {
                    place.write_bytes(0, wide);
                } else {
                    let start = (channel * height + source.unsigned_abs()) * width + first_column;
                    place.write_bytes(0, low);
                    copy::<V>(planes.as_ptr().add(start), planes.len() - start, end - low, 1, place.add(low));
                    place.add(end).write_bytes(0, wide - end);
                }
            }
        }
    }
    View { start: copied.cast_const(), pitch: wide, plane: high * wide }
}

#[cfg(test)]
mod tests {
    use super::super::input_gradient::input_gradient;
    use super::super::reference::Problem;
    use super::super::spec::ConvSpec;
    use super::*;
    use crate::random::Random;

    /// Batch, groups, (ins, outs) of a group, input, kernel, stride, padding, dilation.
    type Case = (usize, usize, (usize, usize), (usize, usize), (usize, usize), (usize, usize), (usize, usize), usize);

    #[rustfmt::skip]
    const CASES: &[Case] = &[
        (1, 1, (1, 1), (1, 1), (1, 1), (1, 1), (0, 0), 1),
        (2, 1, (3, 9), (9, 11), (3, 3), (1, 1), (1, 1), 1),
        (3, 1, (3, 5), (13, 8), (3, 3), (2, 2), (1, 1), 1),
        (1, 1, (3, 17), (21, 30), (7, 7), (2, 2), (3, 3), 1),
        (1, 1, (5, 6), (10, 13), (2, 2), (2, 2), (0, 0), 1),
        (1, 1, (4, 3), (11, 16), (4, 4), (3, 3), (2, 2), 1),
        (3, 1, (10, 34), (7, 9), (1, 1), (1, 1), (0, 0), 1),
        (1, 1, (9, 16), (8, 11), (1, 1), (2, 2), (0, 0), 1),
        (1, 1, (6, 10), (19, 19), (3, 3), (1, 1), (6, 6), 6),
        (1, 1, (6, 10), (9, 17), (5, 5), (1, 2), (2, 1), 2),
        (1, 1, (7, 8), (12, 9), (3, 1), (1, 1), (1, 0), 1),
        (2, 2, (4, 6), (9, 9), (3, 3), (2, 1), (1, 1), 1),
        (1, 1, (2, 3), (2, 530), (1, 3), (1, 1), (0, 1), 1),
        (1, 1, (8, 8), (3, 3), (3, 3), (1, 1), (4, 4), 1),
        (2, 5, (1, 2), (10, 7), (3, 3), (2, 2), (1, 1), 1),
        (1, 3, (1, 1), (8, 20), (5, 3), (1, 3), (2, 0), 2),
        (1, 1, (40, 66), (26, 27), (3, 3), (1, 1), (1, 1), 1),
        (2, 1, (67, 70), (31, 26), (3, 3), (1, 1), (1, 1), 1),
        (1, 1, (64, 96), (30, 33), (3, 3), (1, 1), (0, 0), 1),
        // Few weights over many pixels.
        (2, 1, (7, 50), (67, 71), (1, 1), (1, 1), (0, 0), 1),
        (1, 1, (3, 50), (95, 99), (3, 3), (1, 1), (1, 1), 1),
        (3, 1, (9, 17), (120, 113), (3, 3), (2, 2), (1, 1), 1),
        (1, 1, (3, 33), (17, 530), (1, 1), (1, 1), (0, 0), 1),
        (2, 2, (5, 51), (64, 66), (1, 1), (1, 1), (0, 0), 1),
        (1, 1, (3, 20), (190, 180), (7, 7), (2, 2), (3, 3), 1),
    ];

    fn worst(found: &[f32], expected: &[f64]) -> f64 {
        assert_eq!(found.len(), expected.len());
        let largest = expected.iter().fold(1e-30_f64, |m, v| m.max(v.abs()));
        let errors = found.iter().zip(expected).map(|(&a, &b)| (f64::from(a) - b).abs());
        if found.iter().all(|v| v.is_finite()) { errors.fold(0.0, f64::max) / largest } else { f64::INFINITY }
    }

    /// Both gradients on every instruction set against the adjoint sums in f64.
    #[test]
    fn gradients_match_the_adjoint_sums() {
        let mut failures: Vec<String> = Vec::new();
        for case in CASES {
            let &(batch, groups, channels, input, kernel, stride, padding, dilation) = case;
            let problem =
                Problem { batch, groups, channels, input, kernel, stride, padding, dilation: (dilation, dilation) };
            let spec = ConvSpec { stride, padding, dilation: (dilation, dilation), ..ConvSpec::new().groups(groups) };
            let mut random = Random::new(5);
            let mut numbers = |shape: [usize; 4]| -> Vec<f32> {
                (0..shape.iter().product::<usize>()).map(|_| random.normal()).collect()
            };
            let (x_shape, weight_shape) = (problem.input_shape(), problem.weight_shape());
            let (x, weight) = (numbers(x_shape), numbers(weight_shape));
            let output = numbers(problem.output_shape());
            let geometry = Geometry::new(&x_shape, &weight_shape, &spec).unwrap();
            let exact: Vec<f64> = output.iter().map(|&v| f64::from(v)).collect();
            let [of_x, of_weight, _] = problem.gradients(&x, &weight, &exact);
            for simd in Simd::available() {
                let found = weight_gradient(simd, &geometry, &x, &output).unwrap();
                let error = worst(&found, &of_weight);
                // Sums of up to 10,000 products in f32, in parts of 256; the cases of many channels take F(4×4).
                if error > if channels.1 >= 64 { 2e-5 } else { 3e-6 } {
                    failures.push(format!("weight {simd:?} {case:?}: {error:e}"));
                }
                let found = input_gradient(simd, &geometry, &output, &weight).unwrap();
                let error = worst(&found, &of_x);
                // The cases of many channels take F(4×4).
                let tolerance = if channels.1 >= 64 { 1e-4 } else { 3e-6 };
                if error > tolerance {
                    failures.push(format!("input {simd:?} {case:?}: {error:e}"));
                }
            }
        }
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }

    #[test]
    fn few_weights_over_many_pixels_go_in_bands() {
        let banded = |x: [usize; 4], weight: [usize; 4]| {
            let geometry = Geometry::new(&x, &weight, &ConvSpec::new()).unwrap();
            in_bands(&geometry, tile_width(geometry.out_channels))
        };
        assert!(banded([1, 64, 200, 200], [256, 64, 1, 1]));
        assert!(banded([1, 256, 200, 200], [64, 256, 1, 1]));
        assert!(banded([8, 3, 40, 40], [50, 3, 3, 3]));
        assert!(!banded([1, 64, 50, 50], [256, 64, 1, 1]));
        assert!(!banded([1, 512, 200, 200], [256, 512, 1, 1]));
    }

    #[test]
    fn bands_do_not_depend_on_the_number_of_threads() {
        let geometry = Geometry::new(&[3, 5, 61, 63], &[50, 5, 3, 3], &ConvSpec::new()).unwrap();
        assert!(in_bands(&geometry, tile_width(geometry.out_channels)));
        let mut random = Random::new(7);
        let mut numbers = |len: usize| -> Vec<f32> { (0..len).map(|_| random.normal()).collect() };
        let (x, output) = (numbers(geometry.input_len()), numbers(geometry.output_len()));
        let [one, three] = [1, 3].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| weight_gradient(Simd::current(), &geometry, &x, &output).unwrap())
        });
        assert!(one.iter().zip(&three).all(|(a, b)| a.to_bits() == b.to_bits()));
    }

    #[test]
    fn tile_widths_waste_little() {
        let widths: Vec<usize> = [3, 16, 17, 32, 40, 48, 64, 96, 100, 512].iter().map(|&n| tile_width(n)).collect();
        assert_eq!(widths, [16, 16, 32, 32, 48, 48, 32, 48, 32, 32]);
    }
}
