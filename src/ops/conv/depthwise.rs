//! Convolution of each channel with its own kernels (one input channel a group) and its gradients.
//!
//! There is nothing to sum over but the taps, so a matrix product would be mostly padding. Instead each output row
//! gathers one scaled input row per tap; a task is one plane, and the compiler turns the row loops into vectors.

use super::forward::Inputs;
use super::simd::{Lanes, Simd, dispatch};
use super::spec::{Activation, Geometry};
use rayon::prelude::*;

/// Output row `y` and kernel row `tap`: the input row they meet, if it is not padding.
fn input_row(geometry: &Geometry, y: usize, tap: usize) -> Option<usize> {
    let row = (y * geometry.stride.0 + tap * geometry.dilation.0).checked_sub(geometry.padding.0)?;
    (row < geometry.input.0).then_some(row)
}

/// For kernel column `tap`: the output columns that meet pixels, as (first, count), and the first one's input column.
fn columns(geometry: &Geometry, tap: usize) -> (usize, usize, usize) {
    let (stride, shift, padding) = (geometry.stride.1, tap * geometry.dilation.1, geometry.padding.1);
    let first = padding.saturating_sub(shift).div_ceil(stride).min(geometry.output.1);
    let end = (geometry.input.1 + padding).saturating_sub(shift).div_ceil(stride).clamp(first, geometry.output.1);
    // Meaningful only where the count is not 0.
    let source = (first * stride + shift).saturating_sub(padding);
    (first, end - first, source)
}

/// Calls `row(weight index, output row start, input row start, count)` for every tap and output row that meet pixels;
/// starts are float numbers in their planes.
#[inline(always)]
fn each_row(geometry: &Geometry, mut row: impl FnMut(usize, usize, usize, usize)) {
    for tap_x in 0..geometry.kernel.1 {
        let (first, count, source) = columns(geometry, tap_x);
        if count == 0 {
            continue;
        }
        for y in 0..geometry.output.0 {
            for tap_y in 0..geometry.kernel.0 {
                if let Some(input_y) = input_row(geometry, y, tap_y) {
                    let weight = tap_y * geometry.kernel.1 + tap_x;
                    row(weight, y * geometry.output.1 + first, input_y * geometry.input.1 + source, count);
                }
            }
        }
    }
}

/// `[N, groups · multiplier, H', W']`.
pub(super) fn forward(simd: Simd, geometry: &Geometry, inputs: Inputs<'_>, activation: Activation) -> Vec<f32> {
    let mut output = vec![0.0; geometry.output_len()];
    let channels = geometry.groups * geometry.out_channels;
    output.par_chunks_mut(geometry.output_plane()).enumerate().for_each(|(index, to)| {
        let plane = &inputs.x[index / geometry.out_channels * geometry.input_plane()..][..geometry.input_plane()];
        let channel = index % channels;
        let weight = &inputs.weight[channel * geometry.taps()..][..geometry.taps()];
        to.fill(inputs.bias.map_or(0.0, |bias| bias[channel]));
        // SAFETY: safe code, compiled for an instruction set that the CPU has.
        unsafe {
            dispatch!(
                simd,
                gather(
                    geometry: &Geometry = geometry,
                    plane: &[f32] = plane,
                    weight: &[f32] = weight,
                    activation: Activation = activation,
                    to: &mut [f32] = to,
                )
            )
        }
    });
    output
}

/// One output plane.
///
/// # Safety
/// The CPU has `V`'s instructions.
#[allow(clippy::extra_unused_type_parameters, reason = "V says which instruction set to compile for")]
#[inline(always)]
unsafe fn gather<V: Lanes>(geometry: &Geometry, plane: &[f32], weight: &[f32], activation: Activation, to: &mut [f32]) {
    let stride = geometry.stride.1;
    each_row(geometry, |tap, output, input, count| {
        add_scaled(&mut to[output..output + count], &plane[input..], stride, weight[tap]);
    });
    for value in to.iter_mut() {
        *value = activation.apply(*value);
    }
}

/// `to[i] += scale · from[i · stride]`.
#[inline(always)]
fn add_scaled(to: &mut [f32], from: &[f32], stride: usize, scale: f32) {
    if stride == 1 {
        for (value, pixel) in to.iter_mut().zip(from) {
            *value += scale * pixel;
        }
    } else {
        for (value, pixel) in to.iter_mut().zip(from.iter().step_by(stride)) {
            *value += scale * pixel;
        }
    }
}

/// The gradient of the input from that of the output.
pub(super) fn input_gradient(simd: Simd, geometry: &Geometry, output: &[f32], weight: &[f32]) -> Vec<f32> {
    let mut gradient = vec![0.0; geometry.input_len()];
    gradient.par_chunks_mut(geometry.input_plane()).enumerate().for_each(|(index, to)| {
        let multiplier = geometry.out_channels;
        let planes = &output[index * multiplier * geometry.output_plane()..];
        let weights = &weight[index % geometry.groups * multiplier * geometry.taps()..];
        // SAFETY: safe code, compiled for an instruction set that the CPU has.
        unsafe {
            dispatch!(
                simd,
                scatter(
                    geometry: &Geometry = geometry,
                    planes: &[f32] = planes,
                    weights: &[f32] = weights,
                    to: &mut [f32] = to,
                )
            )
        }
    });
    gradient
}

/// One plane of the input's gradient from the planes of its outputs.
///
/// # Safety
/// The CPU has `V`'s instructions.
#[allow(clippy::extra_unused_type_parameters, reason = "V says which instruction set to compile for")]
#[inline(always)]
unsafe fn scatter<V: Lanes>(geometry: &Geometry, planes: &[f32], weights: &[f32], to: &mut [f32]) {
    let stride = geometry.stride.1;
    for out in 0..geometry.out_channels {
        let plane = &planes[out * geometry.output_plane()..][..geometry.output_plane()];
        let weight = &weights[out * geometry.taps()..][..geometry.taps()];
        each_row(geometry, |tap, output, input, count| {
            let from = &plane[output..output + count];
            if stride == 1 {
                add_scaled(&mut to[input..input + count], from, 1, weight[tap]);
            } else {
                for (value, gradient) in to[input..].iter_mut().step_by(stride).zip(from) {
                    *value += weight[tap] * gradient;
                }
            }
        });
    }
}

/// The gradient of the weight: rows summed in f32, images and rows in f64.
pub(super) fn weight_gradient(geometry: &Geometry, x: &[f32], output: &[f32]) -> Vec<f32> {
    let channels = geometry.groups * geometry.out_channels;
    let mut gradient = vec![0.0; geometry.weight_len()];
    gradient.par_chunks_mut(geometry.taps()).enumerate().for_each(|(channel, to)| {
        let mut sums = vec![0.0_f64; to.len()];
        for image in 0..geometry.batch {
            let input = image * geometry.groups + channel / geometry.out_channels;
            let plane = &x[input * geometry.input_plane()..][..geometry.input_plane()];
            let from = &output[(image * channels + channel) * geometry.output_plane()..][..geometry.output_plane()];
            each_row(geometry, |tap, output, input, count| {
                sums[tap] += f64::from(dot(&from[output..output + count], &plane[input..], geometry.stride.1));
            });
        }
        for (value, sum) in to.iter_mut().zip(&sums) {
            *value = *sum as f32;
        }
    });
    gradient
}

/// `Σ a[i] · b[i · stride]` in eight sums side by side.
#[inline(always)]
fn dot(a: &[f32], b: &[f32], stride: usize) -> f32 {
    let mut sums = [0.0_f32; 8];
    let mut groups = a.chunks_exact(8);
    let mut at = 0;
    for group in &mut groups {
        for (lane, value) in group.iter().enumerate() {
            sums[lane] += value * b[(at + lane) * stride];
        }
        at += 8;
    }
    for (lane, value) in groups.remainder().iter().enumerate() {
        sums[lane] += value * b[(at + lane) * stride];
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::super::spec::ConvSpec;
    use super::*;

    #[test]
    fn columns_and_rows_stay_inside_the_image() {
        let spec = ConvSpec::new().stride(3).padding(4).dilation(2).groups(2);
        let geometry = Geometry::new(&[1, 2, 5, 7], &[2, 1, 3, 3], &spec).unwrap();
        for tap in 0..3 {
            let (first, count, source) = columns(&geometry, tap);
            let expected: Vec<usize> =
                (0..geometry.output.1).filter(|x| (4..4 + 7).contains(&(x * 3 + tap * 2))).collect();
            assert_eq!((first..first + count).collect::<Vec<_>>(), expected);
            assert!(count == 0 || source == first * 3 + tap * 2 - 4);
            for y in 0..geometry.output.0 {
                let row = y * 3 + tap * 2;
                assert_eq!(input_row(&geometry, y, tap), (4..4 + 5).contains(&row).then(|| row - 4));
            }
        }
    }
}
