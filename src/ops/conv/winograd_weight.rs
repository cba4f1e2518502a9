//! The gradient of a 3×3 kernel, stride 1, in the transformed space of F(4×4, 3×3).
//!
//! The forward pass is `Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A`; its adjoint towards g is `Gᵀ [Σ (A dY Aᵀ) ⊙ (Bᵀ d B)] G`, the
//! sum running over tiles: at each of the 36 points one product of outputs by inputs, as deep as there are tiles.
//! Some panels of tiles at a time, all threads transform the inputs, then the gradients, then share out the points. The
//! order of every sum follows from the shape alone.

use super::gemm::{Kernel, Outer, TILE_COLUMNS, TILE_ROWS};
use super::scratch::{Scratch, scratch};
use super::simd::{Lanes, Simd, dispatch, unroll};
use super::spec::Geometry;
use super::tasks::{Destination, parallel};
use super::tiles::{Field, Group, transform_gradient, transform_input};
use super::winograd::WEIGHTS_4;
use std::ops::Range;

const POINTS: usize = 36;
/// Floats of transformed panels at a time: 24 MiB.
const SPACE_FLOATS: usize = 6 << 20;
/// Channels that one task of a phase transforms; a multiple of 4.
const CHANNELS: usize = 32;
/// Input channels that one task multiplies; a multiple of 8.
const INS: usize = 64;
/// Input channels whose kernels one task transforms back: a kilobyte of an output's row.
const BACK: usize = 32;

/// One gradient to compute.
struct Job<'a> {
    geometry: &'a Geometry,
    x: &'a [f32],
    output: &'a [f32],
    /// Outputs side by side in a product: 16, 32 or 48.
    width: usize,
}

/// Panels in memory: inputs `[panel][point][in][48]`, gradients `[point][owner][panel · 48 + tile][width]`.
#[derive(Clone, Copy)]
struct Space {
    inputs: Destination,
    gradients: Destination,
    /// Number of the first panel, how many there are, and how many the space was made for.
    first: usize,
    count: usize,
    room: usize,
}

/// Writes the gradient `[O, C, 3, 3]` from x `[N, C, H, W]` and the output's gradient before its activation. One group;
/// outputs must have at least 3 tiles a row (see `tiles`).
pub(super) fn weight_gradient(
    simd: Simd,
    geometry: &Geometry,
    width: usize,
    (x, output): (&[f32], &[f32]),
    to: Destination,
) {
    let job = Job { geometry, x, output, width };
    let panels = job.field().tiles().div_ceil(TILE_COLUMNS);
    let each = job.inputs_len() + POINTS * job.owners() * TILE_COLUMNS * width;
    let room = (SPACE_FLOATS / each).clamp(1, panels.max(1));
    let mut inputs = scratch(room * job.inputs_len());
    let mut gradients = scratch(POINTS * job.owners() * room * TILE_COLUMNS * width);
    let mut sums = scratch(POINTS * job.point_sums());
    sums.as_mut_slice().fill(0.0);
    let whole = |space: &mut Scratch| Destination::new(space.as_mut_slice());
    let (inputs, gradients, sums) = (whole(&mut inputs), whole(&mut gradients), whole(&mut sums));
    for first in (0..panels).step_by(room) {
        let space = Space { inputs, gradients, first, count: room.min(panels - first), room };
        job.transform(simd, space);
        job.multiply(simd, space, sums);
    }
    parallel(geometry.in_channels.div_ceil(BACK), |task| {
        let channels = task * BACK..geometry.in_channels.min((task + 1) * BACK);
        // SAFETY: each task writes its input channels' kernels, from sums that are complete.
        unsafe {
            dispatch!(
                simd,
                transform_back(job: &Job<'_> = &job, channels: Range<usize> = channels, sums: Destination = sums, to: Destination = to)
            )
        }
    });
}

impl Job<'_> {
    fn field(&self) -> Field {
        let g = self.geometry;
        Field {
            tile: 4,
            batch: g.batch,
            input: g.input,
            output: g.output,
            padding: (g.padding.0 as isize, g.padding.1 as isize),
            image_strides: (g.in_channels * g.input_plane(), g.out_channels * g.output_plane()),
        }
    }

    /// Blocks of `width` outputs.
    fn owners(&self) -> usize {
        self.geometry.out_channels.div_ceil(self.width)
    }

    /// Floats from point to point of a panel's inputs: 16 more than needed, or they would share cache sets.
    fn input_stride(&self) -> usize {
        self.geometry.in_channels * TILE_COLUMNS + 16
    }

    fn inputs_len(&self) -> usize {
        POINTS * self.input_stride()
    }

    /// Rows of input channels, a multiple of 8.
    fn sum_rows(&self) -> usize {
        self.geometry.in_channels.next_multiple_of(TILE_ROWS)
    }

    /// Floats of one point's sums `[owner][in][width]`.
    fn point_sums(&self) -> usize {
        self.owners() * self.sum_rows() * self.width
    }

    fn columns(&self, panel: usize) -> usize {
        TILE_COLUMNS.min(self.field().tiles() - panel * TILE_COLUMNS)
    }

    fn transform(&self, simd: Simd, space: Space) {
        let groups: Vec<Vec<Group>> = (space.first..space.first + space.count)
            .map(|panel| {
                let (field, lanes, first) = (self.field(), simd.lanes(), panel * TILE_COLUMNS);
                (0..self.columns(panel)).step_by(lanes).map(|column| field.group(first + column, lanes)).collect()
            })
            .collect();
        let part = |length: usize, index: usize| index * CHANNELS..length.min((index + 1) * CHANNELS);
        let parts = self.geometry.in_channels.div_ceil(CHANNELS);
        parallel(space.count * parts, |task| {
            // SAFETY: each task writes its channels of its panel.
            unsafe {
                dispatch!(
                    simd,
                    read_inputs(
                        job: &Job<'_> = self,
                        space: Space = space,
                        panel: usize = task / parts,
                        groups: &[Group] = &groups[task / parts],
                        channels: Range<usize> = part(self.geometry.in_channels, task % parts),
                    )
                )
            }
        });
        let parts = self.geometry.out_channels.div_ceil(CHANNELS);
        parallel(space.count * parts, |task| {
            // SAFETY: each task writes its outputs of its panel.
            unsafe {
                dispatch!(
                    simd,
                    read_gradients(
                        job: &Job<'_> = self,
                        space: Space = space,
                        panel: usize = task / parts,
                        groups: &[Group] = &groups[task / parts],
                        channels: Range<usize> = part(self.geometry.out_channels, task % parts),
                    )
                )
            }
        });
    }

    fn multiply(&self, simd: Simd, space: Space, sums: Destination) {
        let parts = self.geometry.in_channels.div_ceil(INS);
        parallel(POINTS * self.owners() * parts, |task| {
            let (point, rest) = (task / (self.owners() * parts), task % (self.owners() * parts));
            let (owner, part) = (rest / parts, rest % parts);
            // SAFETY: each task adds to its own outputs and inputs at its point, from what is complete.
            unsafe {
                dispatch!(
                    simd,
                    add_products(
                        job: &Job<'_> = self,
                        space: Space = space,
                        point: usize = point,
                        owner: usize = owner,
                        ins: Range<usize> = part * INS..self.geometry.in_channels.min((part + 1) * INS),
                        sums: Destination = sums,
                    )
                )
            }
        });
    }
}

/// Transforms some input channels of a panel.
///
/// # Safety
/// The CPU has `V`'s instructions; nobody else uses these channels of the panel.
#[inline(always)]
unsafe fn read_inputs<V: Kernel>(job: &Job<'_>, space: Space, panel: usize, groups: &[Group], channels: Range<usize>) {
    for channel in channels {
        let plane = job.x.as_ptr().wrapping_add(channel * job.geometry.input_plane());
        for (index, group) in groups.iter().enumerate() {
            let offset = panel * job.inputs_len() + channel * TILE_COLUMNS + index * V::LANES;
            // SAFETY: by the contract; groups lie in the planes of every channel.
            unsafe { transform_input::<V, 4>(group, plane, space.inputs.at(offset), job.input_stride()) };
        }
    }
}

/// Transforms some outputs' gradients of a panel, and turns them so that the outputs lie side by side.
///
/// # Safety
/// The CPU has `V`'s instructions; nobody else uses these outputs of the panel.
#[inline(always)]
unsafe fn read_gradients<V: Kernel>(
    job: &Job<'_>,
    space: Space,
    panel: usize,
    groups: &[Group],
    channels: Range<usize>,
) {
    let outs = job.geometry.out_channels;
    let mut block = [0.0_f32; 16];
    // SAFETY: by the contract; groups lie in the planes of every channel, and the four outputs of a block belong to one
    // owner, for its width is a multiple of 4.
    unsafe {
        let mut tiles = [[V::splat(0.0); POINTS]; 4];
        for first in channels.step_by(4) {
            for (index, group) in groups.iter().enumerate() {
                for (next, tile) in tiles.iter_mut().enumerate() {
                    // Beyond the last output it is repeated: those columns are not used.
                    let out = (first + next).min(outs - 1);
                    let plane = job.output.as_ptr().wrapping_add(out * job.geometry.output_plane());
                    transform_gradient(group, plane, tile);
                }
                let (owner, column) = (first / job.width, first % job.width);
                for point in 0..POINTS {
                    let row = (point * job.owners() + owner) * space.room * TILE_COLUMNS
                        + panel * TILE_COLUMNS
                        + index * V::LANES;
                    let place = space.gradients.at(row * job.width + column);
                    let turned = V::transpose([tiles[0][point], tiles[1][point], tiles[2][point], tiles[3][point]]);
                    // Vector j holds tiles j, j + 4, …, each with its four outputs side by side.
                    unroll!(4: j < 4, {
                        turned[j].store(block.as_mut_ptr());
                        let mut tile = j;
                        while tile < V::LANES {
                            let four = block.as_ptr().add(tile / 4 * 4);
                            place.add(tile * job.width).copy_from_nonoverlapping(four, 4);
                            tile += 4;
                        }
                    });
                }
            }
        }
    }
}

/// Adds the products of one point for one block of outputs and some inputs over the panels of the space.
///
/// # Safety
/// The CPU has `V`'s instructions; inputs and gradients are complete; nobody else uses these sums.
#[inline(always)]
unsafe fn add_products<V: Kernel>(
    job: &Job<'_>,
    space: Space,
    point: usize,
    owner: usize,
    ins: Range<usize>,
    sums: Destination,
) {
    // Whole panels in one go; the last may be short.
    let last = space.first + space.count - 1;
    // A group is summed whole: its tiles are shuffled, and those beyond the last are zeros.
    let short = job.columns(last).next_multiple_of(V::LANES);
    let whole = space.count - usize::from(short < TILE_COLUMNS);
    let runs = [(0, (whole, TILE_COLUMNS)), (whole, (space.count - whole, short))];
    for first in ins.clone().step_by(TILE_ROWS) {
        for (panel, pixels) in runs {
            if pixels.0 == 0 {
                continue;
            }
            let row = (point * job.owners() + owner) * space.room * TILE_COLUMNS + panel * TILE_COLUMNS;
            // SAFETY: by the contract; rows beyond the last input repeat it, and their sums have room.
            unsafe {
                V::outer(&Outer {
                    rows: std::array::from_fn(|r| {
                        let channel = (first + r).min(ins.end - 1);
                        let offset = panel * job.inputs_len() + point * job.input_stride() + channel * TILE_COLUMNS;
                        space.inputs.at(offset).cast_const()
                    }),
                    pixels,
                    steps: (job.inputs_len(), 1),
                    b: space.gradients.at(row * job.width).cast_const(),
                    width: job.width,
                    c: sums.at(point * job.point_sums() + (owner * job.sum_rows() + first) * job.width),
                });
            }
        }
    }
}

/// `Gᵀ U G` for all kernels of some input channels, whose kernels lie side by side in the weight.
///
/// # Safety
/// The CPU has `V`'s instructions; the sums are complete; nobody else writes these channels' kernels.
#[inline(always)]
unsafe fn transform_back<V: Lanes>(job: &Job<'_>, channels: Range<usize>, sums: Destination, to: Destination) {
    let (ins, outs) = (job.geometry.in_channels, job.geometry.out_channels);
    let count = channels.len();
    // `[channel][tap][out]`
    let mut kernels = [0.0_f32; BACK * 9 * 16];
    for owner in 0..job.owners() {
        for first in (0..job.width).step_by(V::LANES) {
            for index in 0..count {
                let row = (owner * job.sum_rows() + channels.start + index) * job.width + first;
                // SAFETY: by the contract: outputs of the row's `width`; the buffer has room for 9 taps a channel.
                unsafe {
                    // half[i] = Σ_y G[y][i] · U[y], one column after the other; tap[i][j] = Σ_x half[i] · G[x][j].
                    let mut taps = [[V::splat(0.0); 3]; 3];
                    unroll!(6: x < 6, {
                        let mut half = [V::splat(0.0); 3];
                        unroll!(6: y < 6, {
                            let point = V::load(sums.at((y * 6 + x) * job.point_sums() + row));
                            unroll!(4: i < 3, {
                                half[i] = point.mul_add(V::splat(WEIGHTS_4[y][i]), half[i]);
                            });
                        });
                        unroll!(4: i < 3, {
                            unroll!(4: j < 3, {
                                taps[i][j] = half[i].mul_add(V::splat(WEIGHTS_4[x][j]), taps[i][j]);
                            });
                        });
                    });
                    unroll!(4: i < 3, {
                        unroll!(4: j < 3, {
                            taps[i][j].store(kernels.as_mut_ptr().add((index * 9 + i * 3 + j) * V::LANES));
                        });
                    });
                }
            }
            let start = owner * job.width + first;
            for out in start..outs.min(start + V::LANES) {
                // SAFETY: within the weight; this task owns the channels.
                let row = unsafe { std::slice::from_raw_parts_mut(to.at((out * ins + channels.start) * 9), count * 9) };
                for (place, taps) in row.iter_mut().zip(kernels.chunks_exact(V::LANES)) {
                    *place = taps[out - start];
                }
            }
        }
    }
}
