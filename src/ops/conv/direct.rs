//! Convolution as a matrix product whose second operand is never stored: packed weights times panels of 48 pixels.
//!
//! A task takes one panel (48 consecutive output positions of one image and group). It packs the panel's depth in
//! parts of at most 192 rows, 36 KiB that stay in the first-level cache, and sweeps all blocks of 8 outputs over each
//! part; the sums wait in the output, which for one panel stays in the second-level cache. Bias and activation are
//! applied with the last part. Taps that see only padding from a panel are left out of its depth. When panels are few,
//! the outputs are divided among tasks as well, which changes no sum.

use super::gemm::{Epilogue, Finish, Kernel, Product, TILE_COLUMNS, TILE_ROWS, tile_into};
use super::pack::{Segment, Tap, Window, pack_panel, panel_rows};
use super::scratch::scratch;
use super::simd::{Simd, dispatch};
use super::spec::Activation;
use super::tasks::{Destination, parallel};
use std::ops::Range;

/// Rows of a panel packed at a time.
const DEPTH: usize = 192;

/// A convolution given by taps. Channels are those of one group.
#[derive(Clone, Copy)]
pub(super) struct Direct<'a> {
    pub batch: usize,
    pub groups: usize,
    pub ins: usize,
    pub outs: usize,
    /// Plane size of the input and its step per output position.
    pub window: Window,
    /// (height, width) of the output.
    pub output: (usize, usize),
    /// `[batch, groups · ins, window.size]`.
    pub input: &'a [f32],
    pub taps: &'a [Tap],
    /// As `pack_weights` leaves them.
    pub weights: &'a [f32],
    pub bias: Option<&'a [f32]>,
    pub activation: Activation,
}

impl Direct<'_> {
    /// Writes the whole output `[batch, groups · outs, output]`.
    pub fn run(&self, simd: Simd, to: Destination) {
        let units = self.batch * self.groups * self.panels();
        if units == 0 {
            return;
        }
        let threads = rayon::current_num_threads();
        let wanted = if threads == 1 { 1 } else { 4 * threads };
        let splits = wanted.div_ceil(units).min(self.blocks());
        parallel(units * splits, |task| {
            // SAFETY: tasks have panels or blocks of their own; the slices have the sizes that the fields name.
            unsafe {
                dispatch!(
                    simd,
                    panel(
                        job: &Direct<'_> = self,
                        unit: usize = task / splits,
                        blocks: Range<usize> = part(self.blocks(), splits, task % splits),
                        to: Destination = to,
                    )
                )
            }
        });
    }

    fn panels(&self) -> usize {
        (self.output.0 * self.output.1).div_ceil(TILE_COLUMNS)
    }

    fn blocks(&self) -> usize {
        self.outs.div_ceil(TILE_ROWS)
    }

    fn plane(&self) -> usize {
        self.window.size.0 * self.window.size.1
    }

    /// Whether a tile may read the image itself: 1×1, step 1, no padding.
    fn reads_in_place(&self) -> bool {
        matches!(self.taps, [Tap { dy: 0, dx: 0, .. }]) && self.window.step == (1, 1) && self.window.size == self.output
    }

    /// The epilogue of a block of outputs for part `index` of `count` parts of the depth.
    fn epilogue(&self, group: usize, block: usize, index: usize, count: usize) -> Epilogue {
        let finish = (index + 1 == count).then(|| {
            let mut bias = [0.0; TILE_ROWS];
            if let Some(all) = self.bias {
                let (from, until) = (block * TILE_ROWS, self.outs.min((block + 1) * TILE_ROWS));
                bias[..until - from].copy_from_slice(&all[group * self.outs..][from..until]);
            }
            Finish { bias, activation: self.activation }
        });
        Epilogue { accumulate: index > 0, finish }
    }
}

/// Part `index` of `0..length` cut into `parts` of nearly equal length.
pub(super) fn part(length: usize, parts: usize, index: usize) -> Range<usize> {
    length * index / parts..length * (index + 1) / parts
}

/// The depth in parts of at most [`DEPTH`] rows, leaving out taps that are not seen; one empty part if none is.
fn depth_parts(seen: &[bool], ins: usize) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let mut tap = 0;
    while tap < seen.len() {
        let first = tap;
        while tap < seen.len() && seen[tap] {
            tap += 1;
        }
        let length = (tap - first) * ins;
        let count = length.div_ceil(DEPTH);
        parts.extend((0..count).map(|index| {
            let part = part(length, count, index);
            first * ins + part.start..first * ins + part.end
        }));
        tap += 1;
    }
    if parts.is_empty() {
        parts.push(0..0);
    }
    parts
}

/// One panel of one image and group, for some blocks of outputs.
///
/// # Safety
/// The CPU has `V`'s instructions, `unit` and `blocks` are in range, and nobody else writes this part of the output.
#[inline(always)]
unsafe fn panel<V: Kernel>(job: &Direct<'_>, unit: usize, blocks: Range<usize>, to: Destination) {
    let (image_group, first) = (unit / job.panels(), unit % job.panels() * TILE_COLUMNS);
    let group = image_group % job.groups;
    let pixels = job.output.0 * job.output.1;
    let columns = TILE_COLUMNS.min(pixels - first);
    let plane = job.plane();
    let input = &job.input[image_group * job.ins * plane..];
    let depth = job.taps.len() * job.ins;
    let weights = &job.weights[group * job.blocks() * depth * TILE_ROWS..];

    let rows = panel_rows(first, columns, job.output.1);
    let seen: Vec<bool> = job.taps.iter().map(|tap| job.window.sees(tap, &rows)).collect();
    let parts = depth_parts(&seen, job.ins);
    // Reading in place saves the copy but jumps by planes: it pays only while the panel is read once or twice.
    let in_place = columns == TILE_COLUMNS && blocks.len() <= 2 && job.reads_in_place();
    let mut packed = scratch(DEPTH * TILE_COLUMNS + 16);
    let packed = packed.as_mut_slice().as_mut_ptr();
    let mut segments: Vec<Segment> = Vec::new();

    for (index, range) in parts.iter().enumerate() {
        let (b, b_stride) = if in_place {
            (input[range.start * plane + first..].as_ptr(), plane)
        } else {
            let mut row = range.start;
            while row < range.end {
                let (tap, channel) = (&job.taps[row / job.ins], row % job.ins);
                let count = (job.ins - channel).min(range.end - row);
                job.window.segments(tap, &rows, &mut segments);
                let from = &input[channel * plane..];
                let place = packed.wrapping_add((row - range.start) * TILE_COLUMNS);
                // SAFETY: segments follow from the plane's size; parts have at most DEPTH rows.
                unsafe { pack_panel::<V>(from, plane, count, &segments, job.window.step.1, place) };
                row += count;
            }
            (packed.cast_const(), TILE_COLUMNS)
        };
        for block in blocks.clone() {
            let first_out = block * TILE_ROWS;
            let epilogue = job.epilogue(group, block, index, parts.len());
            // SAFETY: the weights are [blocks][depth][8], b has the part's rows, and the output this panel's columns.
            unsafe {
                let product = Product {
                    depth: range.len(),
                    a: weights.as_ptr().add((block * depth + range.start) * TILE_ROWS),
                    b,
                    b_stride,
                    columns,
                    c: to.at((image_group * job.outs + first_out) * pixels + first),
                    c_stride: pixels,
                    epilogue: &epilogue,
                };
                tile_into::<V>(&product, TILE_ROWS.min(job.outs - first_out));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_depth_skips_unseen_taps_and_covers_the_others() {
        assert_eq!(depth_parts(&[true, true, false, true], 10), [0..20, 30..40]);
        let nothing = depth_parts(&[false, false], 10);
        assert_eq!((nothing.len(), nothing[0].clone()), (1, 0..0));
        assert_eq!(depth_parts(&[false, true], 400), [400..533, 533..666, 666..800]);
        for length in [1, 7, 48] {
            for parts in 1..=7 {
                let joined: Vec<usize> = (0..parts).flat_map(|index| part(length, parts, index)).collect();
                assert_eq!(joined, (0..length).collect::<Vec<_>>());
            }
        }
    }
}
