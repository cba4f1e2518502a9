//! Convolution 3×3, stride 1, by minimal filtering: transforms around (M+2)² independent matrix products.
//!
//! Panels are 48 tiles. For one panel the transformed input is `[point][in][48]` and the products `[point][out][48]`;
//! a point is one of the (M+2)² places in a transformed tile. Rows of points are 16 floats longer than needed, or
//! they would share the same cache sets. Two schedules give the same bits, as every output is computed alike in both:
//! with many panels and few channels a task takes one panel from image to image, so nothing but the weights
//! leaves its cache; with few panels, or weights beyond the cache, all threads transform, then share out the points so
//! that each transformed weight is read once, then transform back.

use super::gemm::{Kernel, PLAIN, Product, TILE_COLUMNS, TILE_ROWS};
use super::pack::Kernels;
use super::scratch::scratch;
use super::simd::{Lanes, Simd, dispatch};
use super::spec::Activation;
use super::tasks::{Destination, parallel};
use super::tiles::{Field, Group, transform_input, transform_output};
use std::ops::Range;

/// `G` of F(4×4, 3×3) and F(2×2, 3×3): a row per point.
pub(super) const WEIGHTS_4: [[f32; 3]; 6] = [
    [1.0 / 4.0, 0.0, 0.0],
    [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
    [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
    [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
    [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
    [0.0, 0.0, 1.0],
];
/// Channels whose weights are transformed before they are written: 512 bytes at each point.
const AT_ONCE: usize = 16;
const WEIGHTS_2: [[f32; 3]; 4] = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];

/// From so many input channels on the weights leave the cache between panels.
const INS_FOR_PHASES: usize = 512;
/// Floats of transformed panels at a time in the phased schedule: 24 MiB.
const PHASE_FLOATS: usize = 6 << 20;
/// Channels that one task of a phase transforms.
const CHANNELS: usize = 32;

/// Floats of the transformed weights: `[point][block of 8 outputs][input][8]`.
pub(super) fn weights_len(tile: usize, kernels: &Kernels<'_>) -> usize {
    (tile + 2) * (tile + 2) * kernels.blocks() * kernels.ins * TILE_ROWS
}

/// `G g Gᵀ` of every 3×3 kernel of one group; `flipped` turns each kernel by half a turn first, as the gradient of the
/// input needs it. Every float of `to` is written.
pub(super) fn transform_weights(simd: Simd, tile: usize, kernels: &Kernels<'_>, flipped: bool, to: &mut [f32]) {
    debug_assert_eq!(to.len(), weights_len(tile, kernels));
    let to = Destination::new(to);
    parallel(kernels.blocks(), |block| {
        // SAFETY: each task writes its block at every point.
        unsafe {
            dispatch!(
                simd,
                transform_block(
                    tile: usize = tile,
                    kernels: &Kernels<'_> = kernels,
                    flipped: bool = flipped,
                    block: usize = block,
                    to: Destination = to,
                )
            )
        }
    });
}

/// `row · (a, b, c)` for 8 outputs side by side.
#[inline(always)]
fn weighted(row: &[f32; 3], a: &[f32; 8], b: &[f32; 8], c: &[f32; 8]) -> [f32; 8] {
    let mut sums = [0.0; 8];
    for r in 0..8 {
        sums[r] = row[0] * a[r] + row[1] * b[r] + row[2] * c[r];
    }
    sums
}

/// One block of 8 outputs for all inputs and points.
///
/// # Safety
/// The CPU has `V`'s instructions; `to` has [`weights_len`] floats, and nobody else writes this block.
#[allow(clippy::extra_unused_type_parameters, reason = "V says which instruction set to compile for")]
#[inline(always)]
unsafe fn transform_block<V: Lanes>(tile: usize, kernels: &Kernels<'_>, flipped: bool, block: usize, to: Destination) {
    let matrix: &[[f32; 3]] = if tile == 4 { &WEIGHTS_4 } else { &WEIGHTS_2 };
    let side = matrix.len();
    // `[point][channel][out]`: what is written at once, for the points lie far apart.
    let mut points = [0.0_f32; 36 * AT_ONCE * TILE_ROWS];
    for first in (0..kernels.ins).step_by(AT_ONCE) {
        let count = AT_ONCE.min(kernels.ins - first);
        for index in 0..count {
            let mut kernel = [[0.0_f32; 8]; 9];
            for r in 0..TILE_ROWS.min(kernels.outs - block * TILE_ROWS) {
                let start = kernels.start(0, block * TILE_ROWS + r, first + index);
                let values = &kernels.values[start..start + 9];
                for t in 0..9 {
                    kernel[t][r] = values[if flipped { 8 - t } else { t }];
                }
            }
            for (y, row_y) in matrix.iter().enumerate() {
                let half_0 = weighted(row_y, &kernel[0], &kernel[3], &kernel[6]);
                let half_1 = weighted(row_y, &kernel[1], &kernel[4], &kernel[7]);
                let half_2 = weighted(row_y, &kernel[2], &kernel[5], &kernel[8]);
                for (x, row_x) in matrix.iter().enumerate() {
                    let values = weighted(row_x, &half_0, &half_1, &half_2);
                    points[((y * side + x) * AT_ONCE + index) * TILE_ROWS..][..TILE_ROWS].copy_from_slice(&values);
                }
            }
        }
        for point in 0..side * side {
            let from = &points[point * AT_ONCE * TILE_ROWS..][..count * TILE_ROWS];
            let offset = ((point * kernels.blocks() + block) * kernels.ins + first) * TILE_ROWS;
            // SAFETY: by the contract.
            unsafe { to.at(offset).copy_from_nonoverlapping(from.as_ptr(), from.len()) };
        }
    }
}

/// A 3×3 convolution with stride 1, dilation 1 and one group.
///
/// The output must have at least 7 tiles a row with `tile` 2, 3 with `tile` 4 (see `tiles`).
#[derive(Clone, Copy)]
pub(super) struct Winograd<'a> {
    /// Outputs per tile and direction: 2 or 4.
    pub tile: usize,
    pub batch: usize,
    pub ins: usize,
    pub outs: usize,
    pub input_size: (usize, usize),
    pub output_size: (usize, usize),
    pub padding: (isize, isize),
    /// `[batch, ins, input_size]`.
    pub input: &'a [f32],
    /// As [`transform_weights`] leaves them.
    pub weights: &'a [f32],
    pub bias: Option<&'a [f32]>,
    pub activation: Activation,
}

/// Some panels' transformed floats: for each panel the input's points, then the products'.
#[derive(Clone, Copy)]
struct Panels {
    start: Destination,
    /// Number of the first panel, and how many.
    first: usize,
    count: usize,
}

impl Winograd<'_> {
    /// Writes the whole output `[batch, outs, output_size]`.
    pub fn run(&self, simd: Simd, to: Destination) {
        let panels = self.field().tiles().div_ceil(TILE_COLUMNS);
        let threads = rayon::current_num_threads();
        if self.ins < INS_FOR_PHASES && panels >= 4 * threads {
            parallel(panels, |panel| {
                let mut space = scratch(self.panel_len());
                let space = Panels { start: Destination::new(space.as_mut_slice()), first: panel, count: 1 };
                let groups = self.groups(simd, panel);
                // SAFETY: each task has its own space and writes its own tiles.
                unsafe {
                    dispatch!(
                        simd,
                        whole_panel(
                            job: &Winograd<'_> = self,
                            space: Panels = space,
                            groups: &[Group] = &groups,
                            to: Destination = to,
                        )
                    )
                }
            });
        } else if panels > 0 {
            let at_once = (PHASE_FLOATS / self.panel_len()).clamp(1, panels);
            let mut space = scratch(at_once * self.panel_len());
            let start = Destination::new(space.as_mut_slice());
            for first in (0..panels).step_by(at_once) {
                let count = at_once.min(panels - first);
                self.run_phases(simd, Panels { start, first, count }, to);
            }
        }
    }

    /// Transform, products and way back of some panels, each phase shared by all threads.
    fn run_phases(&self, simd: Simd, space: Panels, to: Destination) {
        let groups: Vec<Vec<Group>> = (0..space.count).map(|panel| self.groups(simd, space.first + panel)).collect();
        let some = |length: usize, part: usize| part * CHANNELS..length.min((part + 1) * CHANNELS);

        let parts = self.ins.div_ceil(CHANNELS);
        parallel(space.count * parts, |task| {
            // SAFETY: each task writes its channels of its panel.
            unsafe {
                dispatch!(
                    simd,
                    read_channels(
                        job: &Winograd<'_> = self,
                        space: Panels = space,
                        panel: usize = task / parts,
                        groups: &[Group] = &groups[task / parts],
                        channels: Range<usize> = some(self.ins, task % parts),
                    )
                )
            }
        });

        let halves = self.blocks().min(2);
        parallel(self.points() * halves, |task| {
            let (blocks, half) = (self.blocks(), task % halves);
            // SAFETY: each task writes its blocks of its point, from inputs that are complete.
            unsafe {
                dispatch!(
                    simd,
                    multiply(
                        job: &Winograd<'_> = self,
                        space: Panels = space,
                        point: usize = task / halves,
                        blocks: Range<usize> = blocks * half / halves..blocks * (half + 1) / halves,
                    )
                )
            }
        });

        let parts = self.outs.div_ceil(CHANNELS);
        parallel(space.count * parts, |task| {
            // SAFETY: each task writes its channels of its panel's tiles, from products that are complete.
            unsafe {
                dispatch!(
                    simd,
                    write_channels(
                        job: &Winograd<'_> = self,
                        space: Panels = space,
                        panel: usize = task / parts,
                        groups: &[Group] = &groups[task / parts],
                        channels: Range<usize> = some(self.outs, task % parts),
                        to: Destination = to,
                    )
                )
            }
        });
    }

    fn field(&self) -> Field {
        Field {
            tile: self.tile,
            batch: self.batch,
            input: self.input_size,
            output: self.output_size,
            padding: self.padding,
            image_strides: (self.ins * self.input_plane(), self.outs * self.output_plane()),
        }
    }

    fn input_plane(&self) -> usize {
        self.input_size.0 * self.input_size.1
    }

    fn output_plane(&self) -> usize {
        self.output_size.0 * self.output_size.1
    }

    fn points(&self) -> usize {
        (self.tile + 2) * (self.tile + 2)
    }

    fn blocks(&self) -> usize {
        self.outs.div_ceil(TILE_ROWS)
    }

    /// Floats from point to point in a panel's inputs and in its products.
    fn point_strides(&self) -> (usize, usize) {
        (self.ins * TILE_COLUMNS + 16, self.blocks() * TILE_ROWS * TILE_COLUMNS + 16)
    }

    /// Floats of one panel.
    fn panel_len(&self) -> usize {
        let (inputs, products) = self.point_strides();
        self.points() * (inputs + products)
    }

    /// Tiles in a panel.
    fn columns(&self, panel: usize) -> usize {
        TILE_COLUMNS.min(self.field().tiles() - panel * TILE_COLUMNS)
    }

    /// The groups of tiles in a panel.
    fn groups(&self, simd: Simd, panel: usize) -> Vec<Group> {
        let (field, lanes, first) = (self.field(), simd.lanes(), panel * TILE_COLUMNS);
        (0..self.columns(panel)).step_by(lanes).map(|column| field.group(first + column, lanes)).collect()
    }

    /// Where a panel's inputs and products start, `panel` counted within `space`.
    ///
    /// # Safety
    /// `space` holds that panel.
    unsafe fn places(&self, space: Panels, panel: usize) -> (*mut f32, *mut f32) {
        let inputs = panel * self.panel_len();
        // SAFETY: by the contract.
        unsafe { (space.start.at(inputs), space.start.at(inputs + self.points() * self.point_strides().0)) }
    }
}

/// Everything for one panel.
///
/// # Safety
/// The CPU has `V`'s instructions; `space` is this task's own, `groups` are its panel's.
#[inline(always)]
unsafe fn whole_panel<V: Kernel>(job: &Winograd<'_>, space: Panels, groups: &[Group], to: Destination) {
    // SAFETY: by the contract.
    unsafe {
        read_channels::<V>(job, space, 0, groups, 0..job.ins);
        for point in 0..job.points() {
            multiply::<V>(job, space, point, 0..job.blocks());
        }
        write_channels::<V>(job, space, 0, groups, 0..job.outs, to);
    }
}

/// Transforms some input channels of a panel.
///
/// # Safety
/// The CPU has `V`'s instructions; nobody else uses these channels of the panel.
#[inline(always)]
unsafe fn read_channels<V: Kernel>(
    job: &Winograd<'_>,
    space: Panels,
    panel: usize,
    groups: &[Group],
    channels: Range<usize>,
) {
    let stride = job.point_strides().0;
    // SAFETY: by the contract; groups lie in the planes of every channel.
    unsafe {
        let (inputs, _) = job.places(space, panel);
        for channel in channels {
            let plane = job.input.as_ptr().wrapping_add(channel * job.input_plane());
            for (index, group) in groups.iter().enumerate() {
                let to = inputs.add(channel * TILE_COLUMNS + index * V::LANES);
                if job.tile == 4 {
                    transform_input::<V, 4>(group, plane, to, stride);
                } else {
                    transform_input::<V, 2>(group, plane, to, stride);
                }
            }
        }
    }
}

/// The products of one point for some blocks of outputs and all panels of the space.
///
/// # Safety
/// The CPU has `V`'s instructions; the inputs are complete; nobody else uses these products.
#[inline(always)]
unsafe fn multiply<V: Kernel>(job: &Winograd<'_>, space: Panels, point: usize, blocks: Range<usize>) {
    let (input_stride, product_stride) = job.point_strides();
    for block in blocks {
        let weights = &job.weights[(point * job.blocks() + block) * job.ins * TILE_ROWS..][..job.ins * TILE_ROWS];
        for panel in 0..space.count {
            // SAFETY: by the contract.
            unsafe {
                let (inputs, products) = job.places(space, panel);
                V::tile(&Product {
                    depth: job.ins,
                    a: weights.as_ptr(),
                    b: inputs.add(point * input_stride).cast_const(),
                    b_stride: TILE_COLUMNS,
                    columns: job.columns(space.first + panel),
                    c: products.add(point * product_stride + block * TILE_ROWS * TILE_COLUMNS),
                    c_stride: TILE_COLUMNS,
                    epilogue: &PLAIN,
                });
            }
        }
    }
}

/// Transforms some output channels of a panel back into the output.
///
/// # Safety
/// The CPU has `V`'s instructions; the products are complete; nobody else writes these channels of the panel's tiles.
#[inline(always)]
unsafe fn write_channels<V: Kernel>(
    job: &Winograd<'_>,
    space: Panels,
    panel: usize,
    groups: &[Group],
    channels: Range<usize>,
    to: Destination,
) {
    let stride = job.point_strides().1;
    // SAFETY: by the contract; groups lie in the planes of every channel.
    unsafe {
        let (_, products) = job.places(space, panel);
        for channel in channels {
            let plane = to.at(channel * job.output_plane());
            let bias = job.bias.map_or(0.0, |bias| bias[channel]);
            for (index, group) in groups.iter().enumerate() {
                let from = products.add(channel * TILE_COLUMNS + index * V::LANES).cast_const();
                if job.tile == 4 {
                    transform_output::<V, 4>(group, from, stride, plane, bias, job.activation);
                } else {
                    transform_output::<V, 2>(group, from, stride, plane, bias, job.activation);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: F(2×2) of a kernel that is 1 everywhere has G·1 = (1, 3/2, 1/2, 1) in each direction.
    #[test]
    fn transformed_weights_of_a_constant_kernel() {
        let values = [1.0_f32; 9];
        let kernels = Kernels { values: &values, groups: 1, outs: 1, ins: 1, out_stride: 9, in_stride: 9 };
        for simd in Simd::available() {
            let mut packed = vec![-1.0; weights_len(2, &kernels)];
            transform_weights(simd, 2, &kernels, false, &mut packed);
            let line = [1.0, 1.5, 0.5, 1.0];
            for (index, &value) in packed.iter().enumerate() {
                let (point, r) = (index / 8, index % 8);
                let expected = if r == 0 { line[point / 4] * line[point % 4] } else { 0.0 };
                assert_eq!(value, expected, "{simd:?} {index}");
            }
        }
    }

    /// Flipping turns the kernel by half a turn: the corner weights sit at the corner points unchanged.
    #[test]
    fn flipped_weights_exchange_corners() {
        let values: [f32; 9] = std::array::from_fn(|i| i as f32);
        let kernels = Kernels { values: &values, groups: 1, outs: 1, ins: 1, out_stride: 9, in_stride: 9 };
        let mut packed = vec![0.0; weights_len(2, &kernels)];
        transform_weights(Simd::Portable, 2, &kernels, true, &mut packed);
        assert_eq!([packed[0], packed[3 * 8], packed[12 * 8], packed[15 * 8]], [8.0, 6.0, 2.0, 0.0]);
    }
}
