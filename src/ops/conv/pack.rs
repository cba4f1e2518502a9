//! Operands brought into the order that the tiles read: weights `[8 outputs][depth]` once, panels of 48 pixels per task.
//!
//! A convolution is described by its taps: where each looks relative to the output position, and which weight it
//! multiplies. The depth of the product runs over taps, then channels within a tap: all channels of one tap see the
//! same part of the image, so which pixels are padding is worked out once per tap and panel, and no padded copy of
//! the image is needed.

use super::gemm::{TILE_COLUMNS, TILE_ROWS};
use super::simd::Lanes;
use super::spec::Geometry;
use rayon::prelude::*;

/// One kernel position: output (y, x) reads input (y·step + dy, x·step + dx) and multiplies by weight number `weight`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tap {
    pub dy: isize,
    pub dx: isize,
    pub weight: usize,
}

/// A weight tensor seen as a matrix of kernels: out o, in i, tap weight t of a group lie at
/// `o · out_stride + i · in_stride + t`.
#[derive(Clone, Copy)]
pub(super) struct Kernels<'a> {
    pub values: &'a [f32],
    pub groups: usize,
    pub outs: usize,
    pub ins: usize,
    pub out_stride: usize,
    pub in_stride: usize,
}

impl<'a> Kernels<'a> {
    /// As the forward pass reads them.
    pub fn forward(geometry: &Geometry, values: &'a [f32]) -> Self {
        Self {
            values,
            groups: geometry.groups,
            outs: geometry.out_channels,
            ins: geometry.in_channels,
            out_stride: geometry.in_channels * geometry.taps(),
            in_stride: geometry.taps(),
        }
    }

    /// Inputs and outputs exchanged, as the gradient of the input reads them.
    pub fn transposed(geometry: &Geometry, values: &'a [f32]) -> Self {
        let forward = Self::forward(geometry, values);
        Self {
            outs: forward.ins,
            ins: forward.outs,
            out_stride: forward.in_stride,
            in_stride: forward.out_stride,
            ..forward
        }
    }

    /// Weights of one kernel, which lie side by side.
    fn taps(&self) -> usize {
        self.in_stride.min(self.out_stride)
    }

    /// Blocks of 8 outputs in a group.
    pub fn blocks(&self) -> usize {
        self.outs.div_ceil(TILE_ROWS)
    }

    /// Number of the weight with tap weight 0 of an output and input of a group.
    #[inline(always)]
    pub fn start(&self, group: usize, out: usize, channel: usize) -> usize {
        group * (self.values.len() / self.groups) + out * self.out_stride + channel * self.in_stride
    }

    /// Floats that [`pack_weights`] writes.
    pub fn packed_len(&self, taps: usize) -> usize {
        self.groups * self.blocks() * taps * self.ins * TILE_ROWS
    }
}

/// Inputs whose weights are packed together.
const AT_ONCE: usize = 16;

/// Weights as `[group][block of 8 outputs][tap][input][8]`; outputs beyond the last are 0. Every float is written.
pub(super) fn pack_weights(kernels: &Kernels<'_>, taps: &[Tap], to: &mut [f32]) {
    let blocks = kernels.blocks();
    let depth = taps.len() * kernels.ins;
    to.par_chunks_mut(depth * TILE_ROWS).enumerate().for_each(|(index, chunk)| {
        let (group, first) = (index / blocks, index % blocks * TILE_ROWS);
        let outs = TILE_ROWS.min(kernels.outs - first);
        if outs < TILE_ROWS {
            chunk.fill(0.0);
        }
        // Some inputs at a time, so that what is read and written stays close by.
        for some in (0..kernels.ins).step_by(AT_ONCE) {
            for r in 0..outs {
                for channel in some..kernels.ins.min(some + AT_ONCE) {
                    let kernel = &kernels.values[kernels.start(group, first + r, channel)..][..kernels.taps()];
                    for (number, tap) in taps.iter().enumerate() {
                        chunk[(number * kernels.ins + channel) * TILE_ROWS + r] = kernel[tap.weight];
                    }
                }
            }
        }
    });
}

/// The part of an output row that lies in a panel: positions (y, x..x+len) are the panel's columns from `column` on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Row {
    pub y: usize,
    pub x: usize,
    pub len: usize,
    pub column: usize,
}

/// The rows of `count` output positions from number `first` on, `width` positions a row.
pub(super) fn panel_rows(first: usize, count: usize, width: usize) -> Vec<Row> {
    let mut rows = Vec::with_capacity(count / width + 2);
    let mut column = 0;
    while column < count {
        let (y, x) = ((first + column) / width, (first + column) % width);
        let len = (width - x).min(count - column);
        rows.push(Row { y, x, len, column });
        column += len;
    }
    rows
}

/// Columns of a panel that are read from one run of a plane (`source` is its first float) or are padding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Segment {
    pub column: usize,
    pub len: usize,
    pub source: Option<usize>,
}

/// How input positions follow from output positions: sizes of the plane and steps, each (vertical, horizontal).
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub size: (usize, usize),
    pub step: (usize, usize),
}

impl Window {
    /// The input row that a tap sees from output row y, if there is one.
    fn row(&self, tap: &Tap, y: usize) -> Option<usize> {
        let row = (y * self.step.0) as isize + tap.dy;
        (row >= 0 && (row as usize) < self.size.0).then_some(row as usize)
    }

    /// The output columns `low..high` among x..x+len for which a tap sees a pixel; `low == high` when none.
    fn columns(&self, tap: &Tap, x: usize, len: usize) -> (usize, usize) {
        let step = self.step.1 as isize;
        // Smallest p with p · step + dx ≥ 0, and smallest with p · step + dx ≥ width.
        let from = (-tap.dx).max(0).unsigned_abs().div_ceil(step.unsigned_abs());
        let until = (self.size.1 as isize - tap.dx).max(0).unsigned_abs().div_ceil(step.unsigned_abs());
        let low = from.clamp(x, x + len);
        (low, until.clamp(low, x + len))
    }

    /// Whether a tap sees any pixel from these rows.
    pub fn sees(&self, tap: &Tap, rows: &[Row]) -> bool {
        rows.iter().any(|row| {
            let (low, high) = self.columns(tap, row.x, row.len);
            low < high && self.row(tap, row.y).is_some()
        })
    }

    /// Where a tap's panel comes from, left to right without gaps.
    pub fn segments(&self, tap: &Tap, rows: &[Row], segments: &mut Vec<Segment>) {
        segments.clear();
        for row in rows {
            let mut put = |from: usize, until: usize, source: Option<usize>| {
                if from < until {
                    segments.push(Segment { column: row.column + from - row.x, len: until - from, source });
                }
            };
            let end = row.x + row.len;
            match self.row(tap, row.y) {
                None => put(row.x, end, None),
                Some(y) => {
                    let (low, high) = self.columns(tap, row.x, row.len);
                    // Meaningful only where low < high, and then not negative.
                    let x = ((low * self.step.1) as isize + tap.dx).max(0).unsigned_abs();
                    put(row.x, low, None);
                    put(low, high, Some(y * self.size.1 + x));
                    put(high, end, None);
                }
            }
        }
    }
}

/// Copies `len` floats that lie `step` apart. May write up to `LANES − 1` floats more than `len`, and reads no further
/// than `readable` floats from `from`.
///
/// # Safety
/// The CPU has `V`'s instructions; `readable` floats can be read and hold the `len` · `step` asked for; `len` rounded
/// up to whole vectors can be written.
#[inline(always)]
pub(super) unsafe fn copy<V: Lanes>(from: *const f32, readable: usize, len: usize, step: usize, to: *mut f32) {
    let rounded = len.next_multiple_of(V::LANES);
    // SAFETY: by the contract; whole vectors are read only where `readable` allows it.
    unsafe {
        if step == 1 && rounded <= readable {
            for at in (0..len).step_by(V::LANES) {
                V::load(from.add(at)).store(to.add(at));
            }
        } else if step == 2 && 2 * rounded <= readable {
            for at in (0..len).step_by(V::LANES) {
                V::evens(from.add(2 * at)).store(to.add(at));
            }
        } else {
            for at in 0..len {
                *to.add(at) = *from.add(at * step);
            }
        }
    }
}

/// Packs one tap of `count` planes, each `plane` floats long from the start of `input`: `[count][48]`.
///
/// # Safety
/// The CPU has `V`'s instructions; segments lie in the planes; `count` · 48 + 16 floats can be written.
#[inline(always)]
pub(super) unsafe fn pack_panel<V: Lanes>(
    input: &[f32],
    plane: usize,
    count: usize,
    segments: &[Segment],
    step: usize,
    to: *mut f32,
) {
    // SAFETY: by the contract. What is written beyond a segment belongs to the next segment or row, written later,
    // or to the 16 floats after the last.
    unsafe {
        if let [Segment { len: TILE_COLUMNS, source: Some(source), .. }] = *segments
            && step == 1
        {
            // A whole panel from one image row, the usual case on wide maps.
            for channel in 0..count {
                let from = input.as_ptr().add(channel * plane + source);
                let row = to.add(channel * TILE_COLUMNS);
                for at in (0..TILE_COLUMNS).step_by(V::LANES) {
                    V::load(from.add(at)).store(row.add(at));
                }
            }
            return;
        }
        for channel in 0..count {
            for segment in segments {
                let row = to.add(channel * TILE_COLUMNS + segment.column);
                if let Some(source) = segment.source {
                    let start = channel * plane + source;
                    copy::<V>(input.as_ptr().add(start), input.len() - start, segment.len, step, row);
                } else {
                    for at in (0..segment.len).step_by(V::LANES) {
                        V::splat(0.0).store(row.add(at));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::{Simd, dispatch};
    use super::*;

    #[test]
    fn rows_of_a_panel_follow_line_breaks() {
        let row = |y, x, len, column| Row { y, x, len, column };
        assert_eq!(panel_rows(0, 5, 9), [row(0, 0, 5, 0)]);
        assert_eq!(panel_rows(7, 6, 4), [row(1, 3, 1, 0), row(2, 0, 4, 1), row(3, 0, 1, 5)]);
    }

    /// Segments and packing against the definition, pixel by pixel, over borders, steps and instruction sets.
    #[test]
    fn panels_hold_what_each_tap_sees() {
        let planes = 3;
        let mut failures: Vec<String> = Vec::new();
        for (height, width) in [(1, 1), (5, 7), (9, 4), (4, 70)] {
            let input: Vec<f32> = (1..=planes * height * width).map(|v| v as f32).collect();
            for step in [(1, 1), (2, 2), (3, 1), (1, 3)] {
                let window = Window { size: (height, width), step };
                let out_width = width.div_ceil(step.1) + 1;
                for (dy, dx) in [(0, 0), (-1, -2), (2, 1), (-9, 0), (0, 90), (1, -3)] {
                    let tap = Tap { dy, dx, weight: 0 };
                    for (first, count) in [(0, 48), (3, 20), (11, 48)] {
                        let rows = panel_rows(first, count, out_width);
                        let mut segments = Vec::new();
                        window.segments(&tap, &rows, &mut segments);
                        let covered: usize = segments.iter().map(|s| s.len).sum();
                        let any = segments.iter().any(|s| s.source.is_some());
                        if covered != count || any != window.sees(&tap, &rows) {
                            failures.push(format!("{height}x{width} {step:?} {dy} {dx}: segments {segments:?}"));
                            continue;
                        }
                        for simd in Simd::available() {
                            let mut panel = vec![-1.0_f32; planes * TILE_COLUMNS + 16];
                            // SAFETY: the segments come from this plane size, the panel has its 16 floats more.
                            unsafe {
                                dispatch!(
                                    simd,
                                    pack_panel(
                                        input: &[f32] = &input,
                                        plane: usize = height * width,
                                        count: usize = planes,
                                        segments: &[Segment] = &segments,
                                        step: usize = step.1,
                                        to: *mut f32 = panel.as_mut_ptr(),
                                    )
                                )
                            };
                            for index in 0..planes * count {
                                let (channel, column) = (index / count, index % count);
                                let (y, x) = ((first + column) / out_width, (first + column) % out_width);
                                let (row, pixel) = ((y * step.0) as isize + dy, (x * step.1) as isize + dx);
                                let inside = row >= 0 && pixel >= 0 && row < height as isize && pixel < width as isize;
                                let expected = if inside {
                                    input[(channel * height + row as usize) * width + pixel as usize]
                                } else {
                                    0.0
                                };
                                if panel[channel * TILE_COLUMNS + column] != expected {
                                    failures.push(format!("{simd:?} {height}x{width} {step:?} {dy} {dx} {index}"));
                                }
                            }
                        }
                    }
                }
            }
        }
        assert!(failures.is_empty(), "{} wrong, first {:?}", failures.len(), failures.first());
    }

    #[test]
    fn packed_weights_are_eight_outputs_side_by_side() {
        // 2 groups of 1 output × 2 inputs × 2 taps, numbered in order.
        let values: Vec<f32> = (0..8).map(|v| v as f32).collect();
        let kernels = Kernels { values: &values, groups: 2, outs: 1, ins: 2, out_stride: 4, in_stride: 2 };
        let tap = |weight| Tap { dy: 0, dx: 0, weight };
        let mut packed = vec![-1.0; kernels.packed_len(2)];
        pack_weights(&kernels, &[tap(0), tap(1)], &mut packed);
        let firsts: Vec<f32> = packed.iter().step_by(8).copied().collect();
        assert_eq!(firsts, [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
        assert!(packed.iter().enumerate().all(|(index, &v)| index % 8 == 0 || v == 0.0));
    }
}
