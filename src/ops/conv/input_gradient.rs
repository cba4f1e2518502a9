//! The gradient of a convolution's input: again convolutions, of the output's gradient with the kernels transposed.
//!
//! Input position i receives from output position o through tap k where o · stride + k · dilation − padding = i. For
//! stride 1 that is one convolution whose taps point the other way. For stride s the input positions fall into s · s
//! phases by their remainders; those of one phase share their taps and form a small convolution with stride 1, whose
//! output is spread over the phase's positions. Positions that no output reached (rows left over at the end of an odd map)
//! see only padding and get 0.

use super::depthwise;
use super::direct::Direct;
use super::forward::{Method, method};
use super::pack::{Kernels, Tap, Window, pack_weights};
use super::scratch::scratch;
use super::simd::Simd;
use super::spec::{Activation, Geometry};
use super::tasks::{Destination, filled, parallel};
use super::winograd::{self, Winograd};
use candle_core::Result;

/// Gradient `[N, C, H, W]` from the gradient of the output before its activation `[N, O, H', W']` and the weight.
pub(super) fn input_gradient(simd: Simd, geometry: &Geometry, output: &[f32], weight: &[f32]) -> Result<Vec<f32>> {
    if geometry.is_depthwise() {
        return depthwise::input_gradient(simd, geometry, output, weight);
    }
    let kernels = Kernels::transposed(geometry, weight);
    // SAFETY: each branch writes the whole gradient.
    unsafe {
        filled(geometry.input_len(), |to| {
            if method(&mirrored(geometry)) == Method::Winograd4 {
                by_winograd(simd, geometry, &kernels, output, to);
            } else if geometry.stride == (1, 1) {
                let taps = phase_taps(geometry, (0, 0));
                phase(simd, geometry, &kernels, &taps, geometry.input, output, to);
            } else {
                by_phases(simd, geometry, &kernels, output, to);
            }
        })
    }
}

/// The sizes with input and output exchanged, to choose a method by. F(2×2) is not worth transforming fresh weights.
fn mirrored(geometry: &Geometry) -> Geometry {
    Geometry {
        in_channels: geometry.out_channels,
        out_channels: geometry.in_channels,
        input: geometry.output,
        output: geometry.input,
        ..*geometry
    }
}

fn by_winograd(simd: Simd, geometry: &Geometry, kernels: &Kernels<'_>, output: &[f32], to: Destination) {
    let mut weights = scratch(winograd::weights_len(4, kernels));
    winograd::transform_weights(simd, 4, kernels, true, weights.as_mut_slice());
    let job = Winograd {
        tile: 4,
        batch: geometry.batch,
        ins: kernels.ins,
        outs: kernels.outs,
        input_size: geometry.output,
        output_size: geometry.input,
        padding: (2 - geometry.padding.0 as isize, 2 - geometry.padding.1 as isize),
        input: output,
        weights: weights.as_slice(),
        bias: None,
        activation: Activation::None,
    };
    job.run(simd, to);
}

/// The taps that reach input positions with this remainder, relative to position / stride.
fn phase_taps(geometry: &Geometry, remainder: (usize, usize)) -> Vec<Tap> {
    // From i = stride · j + remainder and the equation above: o = j + (remainder + padding − k · dilation) / stride.
    let shift = |remainder: usize, padding: usize, tap: usize, dilation: usize, stride: usize| -> Option<isize> {
        let distance = (remainder + padding) as isize - (tap * dilation) as isize;
        (distance.rem_euclid(stride as isize) == 0).then(|| distance.div_euclid(stride as isize))
    };
    let mut taps = Vec::new();
    for y in 0..geometry.kernel.0 {
        for x in 0..geometry.kernel.1 {
            let dy = shift(remainder.0, geometry.padding.0, y, geometry.dilation.0, geometry.stride.0);
            let dx = shift(remainder.1, geometry.padding.1, x, geometry.dilation.1, geometry.stride.1);
            if let (Some(dy), Some(dx)) = (dy, dx) {
                taps.push(Tap { dy, dx, weight: y * geometry.kernel.1 + x });
            }
        }
    }
    taps
}

/// One phase's convolution with stride 1, written as planes of `size`.
fn phase(
    simd: Simd,
    geometry: &Geometry,
    kernels: &Kernels<'_>,
    taps: &[Tap],
    size: (usize, usize),
    output: &[f32],
    to: Destination,
) {
    let mut weights = scratch(kernels.packed_len(taps.len()));
    pack_weights(kernels, taps, weights.as_mut_slice());
    let job = Direct {
        batch: geometry.batch,
        groups: geometry.groups,
        ins: kernels.ins,
        outs: kernels.outs,
        window: Window { size: geometry.output, step: (1, 1) },
        output: size,
        input: output,
        taps,
        weights: weights.as_slice(),
        bias: None,
        activation: Activation::None,
    };
    job.run(simd, to);
}

fn by_phases(simd: Simd, geometry: &Geometry, kernels: &Kernels<'_>, output: &[f32], to: Destination) {
    let planes = geometry.batch * geometry.groups * geometry.in_channels;
    let (height, width) = geometry.input;
    let (down, across) = geometry.stride;
    for y in 0..down.min(height) {
        for x in 0..across.min(width) {
            let size = ((height - y).div_ceil(down), (width - x).div_ceil(across));
            let taps = phase_taps(geometry, (y, x));
            let mut values = scratch(planes * size.0 * size.1);
            if taps.is_empty() {
                values.as_mut_slice().fill(0.0);
            } else {
                let whole = Destination::new(values.as_mut_slice());
                phase(simd, geometry, kernels, &taps, size, output, whole);
            }
            let values = values.as_slice();
            parallel(planes, |plane| {
                let from = &values[plane * size.0 * size.1..][..size.0 * size.1];
                for (row, line) in from.chunks_exact(size.1).enumerate() {
                    // SAFETY: row · down + y < height and column · across + x < width; planes and phases are disjoint.
                    unsafe {
                        let place = to.at((plane * height + row * down + y) * width + x);
                        for (column, &value) in line.iter().enumerate() {
                            *place.add(column * across) = value;
                        }
                    }
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::spec::ConvSpec;
    use super::*;

    #[test]
    fn phases_of_stride_two_share_out_the_taps() {
        let spec = ConvSpec::new().stride(2).padding(1);
        let geometry = Geometry::new(&[1, 1, 8, 8], &[1, 1, 3, 3], &spec).unwrap();
        let counts: Vec<usize> =
            [(0, 0), (0, 1), (1, 0), (1, 1)].iter().map(|&remainder| phase_taps(&geometry, remainder).len()).collect();
        assert_eq!(counts, [1, 2, 2, 4]);
        // Input row 0 is reached by output row 0 through the middle tap alone: 0 · 2 + 1 − 1 = 0.
        let middle = Tap { dy: 0, dx: 0, weight: 4 };
        assert_eq!(phase_taps(&geometry, (0, 0)), [middle]);
    }

    #[test]
    fn a_one_by_one_kernel_leaves_phases_without_taps() {
        let geometry = Geometry::new(&[1, 1, 5, 5], &[1, 1, 1, 1], &ConvSpec::new().stride(2)).unwrap();
        assert_eq!(phase_taps(&geometry, (0, 0)).len(), 1);
        assert!(phase_taps(&geometry, (1, 0)).is_empty());
    }
}
