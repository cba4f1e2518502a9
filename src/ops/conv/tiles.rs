//! Winograd's transforms on vectors whose lanes are tiles, and where those tiles lie in the image.
//!
//! F(M×M, 3×3) computes an M×M tile of outputs from (M+2)×(M+2) inputs d and the kernel g as
//! `Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A`; the products ⊙, summed over channels, become (M+2)² independent matrix products.
//! Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015), sections 4.1 to 4.3.
//!
//! Tiles are numbered through all rows and images. A vector covers the pixels of LANES / M neighbouring tiles, M
//! vectors a group of LANES tiles. Exchanging pixels and tiles within blocks of 4 lanes leaves the tiles of a group in a
//! shuffled order; the way back undoes it, and nothing in between cares about the order. Row ends and image borders
//! are masks: a vector meets at most one row end, so two masked accesses always do.

use super::gemm::activate;
use super::simd::{Lanes, unroll};
use super::spec::Activation;

/// Sizes that say where tiles lie. Pairs are (vertical, horizontal).
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    /// Outputs per tile and direction: 2 or 4.
    pub tile: usize,
    pub batch: usize,
    pub input: (usize, usize),
    pub output: (usize, usize),
    pub padding: (isize, isize),
    /// Floats from one image to the next, in the input and in the output.
    pub image_strides: (usize, usize),
}

impl Field {
    /// Tiles in a (column, row) of one image.
    fn tiles_each_way(&self) -> (usize, usize) {
        (self.output.0.div_ceil(self.tile), self.output.1.div_ceil(self.tile))
    }

    /// Tiles of all images.
    pub fn tiles(&self) -> usize {
        let (down, across) = self.tiles_each_way();
        self.batch * down * across
    }

    /// Where the `lanes` tiles from number `first` on are read and written.
    pub fn group(&self, first: usize, lanes: usize) -> Group {
        let mut group = Group::default();
        let (down, across) = self.tiles_each_way();
        let per_vector = lanes / self.tile;
        for index in 0..lanes.min(self.tiles().saturating_sub(first)) {
            let tile = first + index;
            let (vector, lane) = (index / per_vector, index % per_vector * self.tile);
            let (image, row, column) = (tile / across / down, tile / across % down, tile % across);
            self.place_loads(&mut group, (image, row * self.tile, column * self.tile), vector, lane);
            self.place_stores(&mut group, (image, row * self.tile, column * self.tile), vector, lane);
        }
        group
    }

    /// `position` is (image, y, x) of the tile's first output.
    fn place_loads(&self, group: &mut Group, position: (usize, usize, usize), vector: usize, lane: usize) {
        let (image, y, x) = position;
        let (height, width) = (self.input.0 as isize, self.input.1 as isize);
        let side = self.tile as isize;
        for shift in 0..2 {
            let left = x as isize - self.padding.1 + shift as isize * side;
            let mask = lane_bits((-left).clamp(0, side), (width - left).clamp(0, side), lane);
            if mask == 0 {
                continue;
            }
            for row in 0..self.tile + 2 {
                let top = (y + row) as isize - self.padding.0;
                if (0..height).contains(&top) {
                    let offset = (image * self.image_strides.0) as isize + top * width + left - lane as isize;
                    group.loads[row][shift][vector].add(offset, mask);
                }
            }
        }
    }

    fn place_stores(&self, group: &mut Group, position: (usize, usize, usize), vector: usize, lane: usize) {
        let (image, y, x) = position;
        let valid = self.tile.min(self.output.1 - x);
        let mask = lane_bits(0, valid as isize, lane);
        for row in 0..self.tile.min(self.output.0 - y) {
            let offset = image * self.image_strides.1 + (y + row) * self.output.1 + x;
            group.stores[row][vector].add(offset as isize - lane as isize, mask);
        }
    }
}

/// Bits `low..high` counted from bit `lane`.
fn lane_bits(low: isize, high: isize, lane: usize) -> u32 {
    if low >= high { 0 } else { ((1_u32 << high) - (1_u32 << low)) << lane }
}

/// One vector's memory: lanes of `masks[i]` lie at their own number plus `offsets[i]`.
#[derive(Clone, Copy, Debug, Default)]
struct Access {
    offsets: [isize; 2],
    masks: [u32; 2],
}

impl Access {
    fn add(&mut self, offset: isize, mask: u32) {
        let index = usize::from(self.masks[0] != 0 && self.offsets[0] != offset);
        debug_assert!(self.masks[index] == 0 || self.offsets[index] == offset, "three runs in one vector");
        self.offsets[index] = offset;
        self.masks[index] |= mask;
    }

    /// # Safety
    /// The lanes of the masks can be read at `plane` plus their offsets.
    #[inline(always)]
    unsafe fn load<V: Lanes>(&self, plane: *const f32) -> V {
        // SAFETY: by the contract.
        unsafe {
            let value = V::splat(0.0).load_where(plane.wrapping_offset(self.offsets[0]), self.masks[0]);
            if self.masks[1] == 0 {
                value
            } else {
                value.load_where(plane.wrapping_offset(self.offsets[1]), self.masks[1])
            }
        }
    }

    /// # Safety
    /// The lanes of the masks can be written at `plane` plus their offsets.
    #[inline(always)]
    unsafe fn store<V: Lanes>(&self, value: V, plane: *mut f32) {
        // SAFETY: by the contract.
        unsafe {
            let first = plane.wrapping_offset(self.offsets[0]);
            if u64::from(self.masks[0]) + 1 == 1_u64 << V::LANES {
                value.store(first);
            } else {
                value.store_where(first, self.masks[0]);
                if self.masks[1] != 0 {
                    value.store_where(plane.wrapping_offset(self.offsets[1]), self.masks[1]);
                }
            }
        }
    }
}

/// Where a group of LANES tiles is read and written, relative to a channel's plane in the first image.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    /// `[input row][pixels from 0 on, or from M on][vector]`.
    loads: [[[Access; 4]; 2]; 6],
    /// `[output row][vector]`.
    stores: [[Access; 4]; 4],
}

/// `Bᵀ` times a line of M + 2 values; places beyond hold anything.
///
/// # Safety
/// The CPU has `V`'s instructions.
#[inline(always)]
unsafe fn input_line<V: Lanes, const M: usize>(d: [V; 6]) -> [V; 6] {
    if M == 4 {
        // SAFETY: by the contract.
        let (two, four, minus_four, minus_five) =
            unsafe { (V::splat(2.0), V::splat(4.0), V::splat(-4.0), V::splat(-5.0)) };
        let even = d[2].mul_add(minus_four, d[4]);
        let odd = d[1].mul_add(minus_four, d[3]);
        let even_two = d[4].minus(d[2]);
        let odd_two = d[3].minus(d[1]);
        [
            d[0].mul_add(four, d[2].mul_add(minus_five, d[4])),
            even.plus(odd),
            even.minus(odd),
            odd_two.mul_add(two, even_two),
            even_two.minus(odd_two.plus(odd_two)),
            d[1].mul_add(four, d[3].mul_add(minus_five, d[5])),
        ]
    } else {
        [d[0].minus(d[2]), d[1].plus(d[2]), d[2].minus(d[1]), d[1].minus(d[3]), d[4], d[5]]
    }
}

/// `Aᵀ` times a line of M + 2 values: M of them; places beyond hold anything.
///
/// # Safety
/// The CPU has `V`'s instructions.
#[inline(always)]
unsafe fn output_line<V: Lanes, const M: usize>(m: [V; 6]) -> [V; 4] {
    let (sum, difference) = (m[1].plus(m[2]), m[1].minus(m[2]));
    if M == 4 {
        // SAFETY: by the contract.
        let (two, four, eight) = unsafe { (V::splat(2.0), V::splat(4.0), V::splat(8.0)) };
        let (sum_two, difference_two) = (m[3].plus(m[4]), m[3].minus(m[4]));
        [
            m[0].plus(sum).plus(sum_two),
            difference_two.mul_add(two, difference),
            sum_two.mul_add(four, sum),
            difference_two.mul_add(eight, difference).plus(m[5]),
        ]
    } else {
        [m[0].plus(sum), difference.minus(m[3]), m[4], m[5]]
    }
}

/// `A` times a line of 4 values: 6 of them.
///
/// # Safety
/// The CPU has `V`'s instructions.
#[inline(always)]
unsafe fn gradient_line<V: Lanes>(d: [V; 4]) -> [V; 6] {
    // SAFETY: by the contract.
    let four = unsafe { V::splat(4.0) };
    let (even, odd) = (d[0].plus(d[2]), d[1].plus(d[3]));
    let even_two = d[2].mul_add(four, d[0]);
    let odd_two = d[3].mul_add(four, d[1]);
    let odd_two = odd_two.plus(odd_two);
    [d[0], even.plus(odd), even.minus(odd), even_two.plus(odd_two), even_two.minus(odd_two), d[3]]
}

/// Reads a group's 4×4 tiles of an output's gradient and transforms them to 36 vectors, `A dY Aᵀ`.
///
/// # Safety
/// The CPU has `V`'s instructions; the group lies in the plane's images.
#[inline(always)]
pub(super) unsafe fn transform_gradient<V: Lanes>(group: &Group, plane: *const f32, to: &mut [V; 36]) {
    // SAFETY: by the contract.
    unsafe {
        let zero = V::splat(0.0);
        let mut lines = [[zero; 6]; 4];
        unroll!(4: row < 4, {
            let mut vectors = [zero; 4];
            unroll!(4: vector < 4, {
                vectors[vector] = group.stores[row][vector].load::<V>(plane);
            });
            lines[row] = gradient_line(V::transpose(vectors));
        });
        unroll!(6: column < 6, {
            let line = gradient_line([lines[0][column], lines[1][column], lines[2][column], lines[3][column]]);
            unroll!(6: row < 6, {
                to[row * 6 + column] = line[row];
            });
        });
    }
}

/// Reads a group of tiles from a plane and writes its (M+2)² transformed vectors, `stride` floats apart.
///
/// # Safety
/// The CPU has `V`'s instructions; the group lies in the plane's images; all vectors can be written.
#[inline(always)]
pub(super) unsafe fn transform_input<V: Lanes, const M: usize>(
    group: &Group,
    plane: *const f32,
    to: *mut f32,
    stride: usize,
) {
    // SAFETY: by the contract.
    unsafe {
        let zero = V::splat(0.0);
        let mut lines = [[zero; 6]; 6];
        for row in 0..M + 2 {
            let [near, far] = &group.loads[row];
            let mut first = [zero; 4];
            let mut second = [zero; 4];
            unroll!(4: vector < M, {
                first[vector] = near[vector].load::<V>(plane);
                second[vector] = far[vector].load::<V>(plane);
            });
            lines[row] = input_line::<V, M>(if M == 4 {
                let ([a, b, c, d], [e, f, _, _]) = (V::transpose(first), V::transpose(second));
                [a, b, c, d, e, f]
            } else {
                let ([a, b], [c, d]) = (V::unzip(first[0], first[1]), V::unzip(second[0], second[1]));
                [a, b, c, d, zero, zero]
            });
        }
        for column in 0..M + 2 {
            let mut line = [zero; 6];
            unroll!(6: row < M + 2, {
                line[row] = lines[row][column];
            });
            let line = input_line::<V, M>(line);
            unroll!(6: row < M + 2, {
                line[row].store(to.wrapping_add((row * (M + 2) + column) * stride));
            });
        }
    }
}

/// Reads a group's (M+2)² summed vectors, `stride` floats apart, and writes its outputs to a plane.
///
/// # Safety
/// The CPU has `V`'s instructions; all vectors can be read; the group lies in the plane's images.
#[inline(always)]
pub(super) unsafe fn transform_output<V: Lanes, const M: usize>(
    group: &Group,
    from: *const f32,
    stride: usize,
    plane: *mut f32,
    bias: f32,
    activation: Activation,
) {
    // SAFETY: by the contract.
    unsafe {
        let zero = V::splat(0.0);
        let bias = V::splat(bias);
        let mut lines = [[zero; 6]; 4];
        for column in 0..M + 2 {
            let mut line = [zero; 6];
            unroll!(6: row < M + 2, {
                line[row] = V::load(from.wrapping_add((row * (M + 2) + column) * stride));
            });
            let line = output_line::<V, M>(line);
            unroll!(4: row < M, {
                lines[row][column] = line[row];
            });
        }
        for row in 0..M {
            let mut pixels = output_line::<V, M>(lines[row]);
            unroll!(4: x < M, {
                pixels[x] = activate(pixels[x].plus(bias), activation);
            });
            let vectors = if M == 4 {
                V::transpose(pixels)
            } else {
                let [a, b] = V::zip(pixels[0], pixels[1]);
                [a, b, zero, zero]
            };
            unroll!(4: vector < M, {
                group.stores[row][vector].store(vectors[vector], plane);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every input pixel that a tile sees is loaded once into the lane that belongs to it, every output stored once.
    #[test]
    fn groups_cover_the_image_once() {
        for (tile, lanes) in [(2, 4), (2, 8), (2, 16), (4, 4), (4, 8), (4, 16)] {
            for (output, padding) in [((13, 13), 1), ((14, 17), 0), ((16, 31), 2)] {
                let input = (output.0 + 2 - 2 * padding, output.1 + 2 - 2 * padding);
                let field = Field {
                    tile,
                    batch: 3,
                    input,
                    output,
                    padding: (padding as isize, padding as isize),
                    image_strides: (1000, 2000),
                };
                let (mut loaded, mut stored) = (vec![0; 3000], vec![0; 6000]);
                for first in (0..field.tiles()).step_by(lanes) {
                    let group = field.group(first, lanes);
                    let mark = |access: &Access, counts: &mut Vec<i32>| {
                        for (offset, mask) in access.offsets.iter().zip(access.masks) {
                            for lane in (0..lanes).filter(|lane| (mask >> lane) & 1 == 1) {
                                counts[(offset + lane as isize) as usize] += 1;
                            }
                        }
                    };
                    // The first M rows and pixels of each tile: these do not overlap with other tiles'.
                    for row in &group.loads[..tile] {
                        row[0].iter().for_each(|access| mark(access, &mut loaded));
                    }
                    group.stores.iter().flatten().for_each(|access| mark(access, &mut stored));
                }
                for (index, &count) in stored.iter().enumerate() {
                    let inside = index % 2000 < output.0 * output.1;
                    assert_eq!(count, i32::from(inside), "{tile} {lanes} {output:?} output {index}");
                }
                let tiled = (output.0.next_multiple_of(tile), output.1.next_multiple_of(tile));
                for (index, &count) in loaded.iter().enumerate() {
                    let (y, x) = (index % 1000 / input.1 + padding, index % 1000 % input.1 + padding);
                    let inside = index % 1000 < input.0 * input.1 && y < tiled.0 && x < tiled.1;
                    assert_eq!(count, i32::from(inside), "{tile} {lanes} {output:?} input {index}");
                }
            }
        }
    }
}
