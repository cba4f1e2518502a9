//! Convolution of each channel with its own kernels (one input channel a group) and its gradients.
//!
//! There is nothing to sum over but the taps, so a matrix product would be mostly padding. The forward pass and the
//! gradients that have its form keep sums in registers (`depthwise_planes`). What that does not cover (horizontal
//! strides above 2, other gradients) gathers one scaled input row per tap into each output row; a task is one plane.

use super::depthwise_planes::Planes;
use super::forward::Inputs;
use super::simd::{Lanes, Simd, dispatch};
use super::spec::{Activation, Geometry};
use super::tasks::filled;
use candle_core::Result;
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
pub(super) fn forward(simd: Simd, geometry: &Geometry, inputs: Inputs<'_>, activation: Activation) -> Result<Vec<f32>> {
    match Planes::new(simd, geometry, inputs, activation) {
        // SAFETY: `run` writes the whole output.
        Some(planes) => unsafe { filled(geometry.output_len(), |to| planes.run(simd, to)) },
        None => Ok(by_taps(simd, geometry, inputs, activation)),
    }
}

/// The forward pass of any stride, a pass over the output rows for each tap.
fn by_taps(simd: Simd, geometry: &Geometry, inputs: Inputs<'_>, activation: Activation) -> Vec<f32> {
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

/// The convolution that makes the input's gradient of the output's, with the kernels turned by 180°. There is one for
/// stride 1, one output channel a group, and a padding of at most the kernel's reach.
fn turned(geometry: &Geometry) -> Option<Geometry> {
    let &Geometry { input, kernel, output, padding, dilation, .. } = geometry;
    let vertical = ((kernel.0 - 1) * dilation.0).checked_sub(padding.0)?;
    let horizontal = ((kernel.1 - 1) * dilation.1).checked_sub(padding.1)?;
    let alike = geometry.out_channels == 1 && geometry.stride == (1, 1);
    alike.then_some(Geometry { input: output, output: input, padding: (vertical, horizontal), ..*geometry })
}

/// The gradient of the input from that of the output.
pub(super) fn input_gradient(simd: Simd, geometry: &Geometry, output: &[f32], weight: &[f32]) -> Result<Vec<f32>> {
    if let Some(turned) = turned(geometry) {
        let weight: Vec<f32> = weight.chunks(geometry.taps()).flat_map(|kernel| kernel.iter().rev().copied()).collect();
        return forward(simd, &turned, Inputs { x: output, weight: &weight, bias: None }, Activation::None);
    }
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
    Ok(gradient)
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
    use crate::random::Random;

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

    fn numbers(random: &mut Random, count: usize) -> Vec<f32> {
        (0..count).map(|_| random.normal()).collect()
    }

    /// Where products are rounded before they are added, copied planes sum exactly as passes over the rows do.
    #[cfg(not(target_arch = "aarch64"))]
    #[test]
    fn copied_planes_sum_in_the_order_of_the_taps() {
        let mut random = Random::new(5);
        for (kernel, stride, dilation, padding) in
            [(3, 1, 1, 1), (3, 2, 1, 1), (3, 1, 2, 2), (5, 2, 1, 2), (5, 1, 1, 0)]
        {
            let spec = ConvSpec::new().stride(stride).padding(padding).dilation(dilation).groups(3);
            let geometry = Geometry::new(&[2, 3, 11, 22], &[6, 1, kernel, kernel], &spec).unwrap();
            let x = numbers(&mut random, geometry.input_len());
            let weight = numbers(&mut random, geometry.weight_len());
            let bias = numbers(&mut random, 6);
            let inputs = Inputs { x: &x, weight: &weight, bias: Some(&bias) };
            assert!(Planes::new(Simd::Portable, &geometry, inputs, Activation::Relu).is_some());
            let copied = forward(Simd::Portable, &geometry, inputs, Activation::Relu).unwrap();
            assert_eq!(copied, by_taps(Simd::Portable, &geometry, inputs, Activation::Relu));
        }
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        let mut random = Random::new(6);
        let spec = ConvSpec::new().padding(1).groups(100);
        let geometry = Geometry::new(&[1, 100, 13, 19], &[100, 1, 3, 3], &spec).unwrap();
        assert!(geometry.output_len() * geometry.taps() > 200_000);
        let x = numbers(&mut random, geometry.input_len());
        let weight = numbers(&mut random, geometry.weight_len());
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let inputs = Inputs { x: &x, weight: &weight, bias: None };
            pool.install(|| forward(Simd::current(), &geometry, inputs, Activation::None).unwrap())
        };
        let alone = run(1);
        assert_eq!(run(2), alone);
        assert_eq!(run(3), alone);
    }

    #[test]
    fn gradients_that_are_convolutions_are_known() {
        let of = |spec: ConvSpec, outs: usize| {
            turned(&Geometry::new(&[1, 2, 9, 8], &[outs, 1, 3, 3], &spec.groups(2)).unwrap())
        };
        let found = of(ConvSpec::new().padding(1).dilation(2), 2).unwrap();
        assert_eq!((found.input, found.output, found.padding), ((7, 6), (9, 8), (3, 3)));
        assert!(of(ConvSpec::new().padding(3), 2).is_none());
        assert!(of(ConvSpec::new().stride(2), 2).is_none());
        assert!(of(ConvSpec::new(), 4).is_none());
    }
}
