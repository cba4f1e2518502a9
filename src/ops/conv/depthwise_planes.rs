//! The depthwise forward pass for horizontal strides 1 and 2: each plane is copied with its padding, and the sums of a
//! few output rows stay in registers over all taps.

use super::forward::Inputs;
use super::gemm::activate;
use super::scratch::scratch;
use super::simd::{Lanes, Simd, dispatch, unroll};
use super::spec::{Activation, Geometry};
use super::tasks::{Destination, parallel};
use std::ops::Range;

/// Multiply-adds of a task of small planes.
const TASK: usize = 1 << 15;
/// Multiply-adds of a whole convolution below which waking other threads costs more than they save.
const ALONE: usize = 100_000;
/// Floats of the largest padded plane that is copied: 16 MiB.
const LARGEST_PLANE: usize = 1 << 22;

/// A convolution whose planes are copied with their padding; horizontal strides are 1 and 2.
pub(super) struct Planes<'a> {
    geometry: &'a Geometry,
    inputs: Inputs<'a>,
    activation: Activation,
    /// Rows of a padded plane that taps see.
    rows: usize,
    /// Floats from one padded row to the next, a multiple of the vector's: taps read whole vectors within a row.
    pitch: usize,
}

impl<'a> Planes<'a> {
    /// `None` for larger horizontal strides, and where a padded plane would exceed [`LARGEST_PLANE`].
    pub fn new(simd: Simd, geometry: &'a Geometry, inputs: Inputs<'a>, activation: Activation) -> Option<Self> {
        let &Geometry { input, kernel, output, stride, padding, dilation, .. } = geometry;
        if stride.1 > 2 || input.1 + 2 * padding.1 > LARGEST_PLANE {
            return None;
        }
        let lanes = simd.lanes();
        let rows = (output.0 - 1) * stride.0 + (kernel.0 - 1) * dilation.0 + 1;
        let read = output.1.next_multiple_of(lanes) * stride.1 + (kernel.1 - 1) * dilation.1;
        let written = padding.1 + input.1.next_multiple_of(lanes);
        let pitch = read.max(written).next_multiple_of(lanes);
        let fits = rows.checked_mul(pitch).is_some_and(|floats| floats <= LARGEST_PLANE);
        fits.then_some(Self { geometry, inputs, activation, rows, pitch })
    }

    /// Writes the whole output.
    pub fn run(&self, simd: Simd, to: Destination) {
        let planes = self.geometry.batch * self.geometry.groups * self.geometry.out_channels;
        let work = self.geometry.output_plane() * self.geometry.taps();
        let each = if planes.saturating_mul(work) < ALONE { planes } else { TASK / work }.max(1);
        parallel(planes.div_ceil(each), |task| {
            // SAFETY: tasks have planes of their own; the slices have the sizes that the geometry names.
            unsafe {
                dispatch!(
                    simd,
                    convolve(
                        job: &Planes<'_> = self,
                        range: Range<usize> = task * each..planes.min((task + 1) * each),
                        to: Destination = to,
                    )
                )
            }
        });
    }

    /// Input rows that taps see; they follow the padding in a padded plane.
    fn copied(&self) -> Range<usize> {
        let top = self.geometry.padding.0;
        top..top + self.geometry.input.0.min(self.rows.saturating_sub(top))
    }

    /// Zeros everything in a padded plane that [`Planes::copy`] does not write.
    ///
    /// # Safety
    /// The CPU has `V`'s instructions, and `padded` has room for the rows and a vector more.
    #[inline(always)]
    unsafe fn clear<V: Lanes>(&self, padded: *mut f32) {
        let left = self.geometry.padding.1;
        let right = left + self.geometry.input.1.next_multiple_of(V::LANES);
        let copied = self.copied();
        for row in 0..self.rows {
            // SAFETY: within the row, or less than a vector beyond, where the next row or the spare vector lies.
            unsafe {
                let row_start = padded.add(row * self.pitch);
                if copied.contains(&row) {
                    zero::<V>(row_start, left);
                    zero::<V>(row_start.add(right), self.pitch - right);
                } else {
                    zero::<V>(row_start, self.pitch);
                }
            }
        }
    }

    /// Copies input plane number `index` to its place; zeros fill each row's last vector.
    ///
    /// # Safety
    /// As for [`Planes::clear`], and the plane exists.
    #[inline(always)]
    unsafe fn copy<V: Lanes>(&self, index: usize, padded: *mut f32) {
        let (size, width) = (self.geometry.input_plane(), self.geometry.input.1);
        let plane = &self.inputs.x[index * size..][..size];
        for (row, pixels) in self.copied().zip(plane.chunks_exact(width)) {
            // SAFETY: whole vectors of a row fit in after the padding; pixels beyond the row are not read.
            unsafe {
                let to = padded.add(row * self.pitch + self.geometry.padding.1);
                for x in (0..width).step_by(V::LANES) {
                    let (from, left) = (pixels.as_ptr().add(x), width - x);
                    let vector = if left >= V::LANES {
                        V::load(from)
                    } else {
                        V::splat(0.0).load_where(from, (1_u32 << left) - 1)
                    };
                    vector.store(to.add(x));
                }
            }
        }
    }
}

/// `count` zeros, and less than a vector more.
///
/// # Safety
/// The CPU has `V`'s instructions, and so many floats can be written.
#[inline(always)]
unsafe fn zero<V: Lanes>(to: *mut f32, count: usize) {
    for x in (0..count).step_by(V::LANES) {
        // SAFETY: by the contract.
        unsafe { V::splat(0.0).store(to.add(x)) }
    }
}

/// The output planes of `range`.
///
/// # Safety
/// The CPU has `V`'s instructions, which `job` was made for; the planes exist, and nobody else writes them.
#[inline(always)]
unsafe fn convolve<V: Lanes>(job: &Planes<'_>, range: Range<usize>, to: Destination) {
    let geometry = job.geometry;
    let mut padded = scratch(job.rows * job.pitch + V::LANES);
    let padded = padded.as_mut_slice().as_mut_ptr();
    let mut held = None;
    // SAFETY: the scratch has the padded plane's rows and a vector more; the rest by the contract.
    unsafe {
        job.clear::<V>(padded);
        for plane in range {
            let input = plane / geometry.out_channels;
            if held != Some(input) {
                job.copy::<V>(input, padded);
                held = Some(input);
            }
            let channel = plane % (geometry.groups * geometry.out_channels);
            let to = to.at(plane * geometry.output_plane());
            if geometry.stride.1 == 1 {
                one_plane::<V, 1, 4>(job, padded, channel, to);
            } else {
                one_plane::<V, 2, 2>(job, padded, channel, to);
            }
        }
    }
}

/// One output plane from the padded one, ROWS rows at a time where it has so many.
///
/// # Safety
/// The CPU has `V`'s instructions; STRIDE is the horizontal one; `padded` holds the plane, and `to` has room for one.
#[inline(always)]
unsafe fn one_plane<V: Lanes, const STRIDE: usize, const ROWS: usize>(
    job: &Planes<'_>,
    padded: *const f32,
    channel: usize,
    to: *mut f32,
) {
    let geometry = job.geometry;
    let square = geometry.kernel == (3, 3) && geometry.dilation == (1, 1) && geometry.stride.0 == STRIDE;
    // SAFETY: by the contract.
    unsafe {
        match (square, geometry.output.0 >= ROWS) {
            (true, true) => blocks::<V, STRIDE, ROWS, true>(job, padded, channel, to),
            (true, false) => blocks::<V, STRIDE, 1, true>(job, padded, channel, to),
            (false, true) => blocks::<V, STRIDE, ROWS, false>(job, padded, channel, to),
            (false, false) => blocks::<V, STRIDE, 1, false>(job, padded, channel, to),
        }
    }
}

/// One output plane in blocks of ROWS × LANES. With SQUARE the kernel is 3×3 without dilation, both strides are
/// STRIDE, and the weights stay in registers. The taps of a column are summed before those of the next.
///
/// # Safety
/// As for [`one_plane`]; the output has at least ROWS rows.
#[inline(always)]
unsafe fn blocks<V: Lanes, const STRIDE: usize, const ROWS: usize, const SQUARE: bool>(
    job: &Planes<'_>,
    padded: *const f32,
    channel: usize,
    to: *mut f32,
) {
    let (geometry, pitch) = (job.geometry, job.pitch);
    let (height, width) = geometry.output;
    let weight = &job.inputs.weight[channel * geometry.taps()..][..geometry.taps()];
    let bias = job.inputs.bias.map_or(0.0, |bias| bias[channel]);
    // SAFETY: taps of whole vectors stay within a padded row, those of the last output row within the padded plane.
    unsafe {
        let bias = V::splat(bias);
        let columns = if SQUARE {
            [kernel_column::<V>(weight, 0), kernel_column::<V>(weight, 1), kernel_column::<V>(weight, 2)]
        } else {
            [[bias; 3]; 3]
        };
        for block in (0..height).step_by(ROWS) {
            // The last block may begin in the one before: the shared rows are computed again, to the same bits.
            let y = block.min(height - ROWS);
            let from = padded.add(y * geometry.stride.0 * pitch);
            let to = to.add(y * width);
            for x in (0..width).step_by(V::LANES) {
                let pixels = from.add(x * STRIDE);
                let mut sums = [bias; ROWS];
                if SQUARE {
                    sums = add_column::<V, STRIDE, ROWS>(pixels, pitch, columns[0], sums);
                    sums = add_column::<V, STRIDE, ROWS>(pixels.add(1), pitch, columns[1], sums);
                    sums = add_column::<V, STRIDE, ROWS>(pixels.add(2), pitch, columns[2], sums);
                } else {
                    sums = add_taps::<V, STRIDE, ROWS>(geometry, pixels, pitch, weight, sums);
                }
                let left = width - x;
                unroll!(4: row < ROWS, {
                    let (value, to) = (activate(sums[row], job.activation), to.add(row * width + x));
                    if left >= V::LANES {
                        value.store(to);
                    } else {
                        value.store_where(to, (1_u32 << left) - 1);
                    }
                });
            }
        }
    }
}

/// The three weights of a 3×3 kernel's column.
///
/// # Safety
/// The CPU has `V`'s instructions.
#[inline(always)]
unsafe fn kernel_column<V: Lanes>(weight: &[f32], column: usize) -> [V; 3] {
    // SAFETY: by the contract.
    unsafe { [V::splat(weight[column]), V::splat(weight[3 + column]), V::splat(weight[6 + column])] }
}

/// Every STRIDE-th of the floats from an address on.
///
/// # Safety
/// The CPU has `V`'s instructions, and STRIDE · LANES floats can be read.
#[inline(always)]
unsafe fn pixels_of<V: Lanes, const STRIDE: usize>(from: *const f32) -> V {
    // SAFETY: by the contract.
    unsafe { if STRIDE == 1 { V::load(from) } else { V::evens(from) } }
}

/// Adds a 3×3 kernel's column to the sums of ROWS output rows. Each input row is read once.
///
/// # Safety
/// The CPU has `V`'s instructions, and all rows can be read.
#[inline(always)]
unsafe fn add_column<V: Lanes, const STRIDE: usize, const ROWS: usize>(
    from: *const f32,
    pitch: usize,
    weights: [V; 3],
    mut sums: [V; ROWS],
) -> [V; ROWS] {
    unroll!(input < (ROWS - 1) * STRIDE + 3, {
        // SAFETY: by the contract.
        let pixels: V = unsafe { pixels_of::<V, STRIDE>(from.add(input * pitch)) };
        unroll!(4: row < ROWS, {
            let tap = input.wrapping_sub(row * STRIDE);
            if tap < 3 {
                sums[row] = pixels.mul_add(weights[tap], sums[row]);
            }
        });
    });
    sums
}

/// Adds all taps of any kernel to the sums of ROWS output rows.
///
/// # Safety
/// The CPU has `V`'s instructions, and all rows can be read.
#[inline(always)]
unsafe fn add_taps<V: Lanes, const STRIDE: usize, const ROWS: usize>(
    geometry: &Geometry,
    from: *const f32,
    pitch: usize,
    weight: &[f32],
    mut sums: [V; ROWS],
) -> [V; ROWS] {
    let &Geometry { kernel, stride, dilation, .. } = geometry;
    for tap_x in 0..kernel.1 {
        for tap_y in 0..kernel.0 {
            // SAFETY: by the contract.
            unsafe {
                let scale = V::splat(weight[tap_y * kernel.1 + tap_x]);
                let from = from.add(tap_y * dilation.0 * pitch + tap_x * dilation.1);
                unroll!(4: row < ROWS, {
                    let pixels: V = pixels_of::<V, STRIDE>(from.add(row * stride.0 * pitch));
                    sums[row] = pixels.mul_add(scale, sums[row]);
                });
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::super::spec::ConvSpec;
    use super::*;

    #[test]
    fn planes_too_large_or_strided_to_copy_pass_over_the_taps() {
        let copies = |input: &[usize], spec: ConvSpec| {
            let geometry = Geometry::new(input, &[2, 1, 3, 3], &spec.groups(2)).unwrap();
            let inputs = Inputs { x: &[], weight: &[], bias: None };
            Planes::new(Simd::Portable, &geometry, inputs, Activation::None).is_some()
        };
        assert!(copies(&[1, 2, 9, 9], ConvSpec::new().stride(2)));
        assert!(!copies(&[1, 2, 9, 9], ConvSpec::new().stride(3)));
        assert!(!copies(&[1, 2, 1, 1], ConvSpec::new().padding(1 << 20).dilation(1 << 20)));
    }
}
