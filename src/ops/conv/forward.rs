//! The forward pass on slices: which method serves a shape, and running it.

use super::cache::{Form, WeightCache, prepared};
use super::depthwise;
use super::direct::Direct;
use super::pack::{Kernels, Window, pack_weights};
use super::simd::{Simd, is_plain};
use super::spec::{Activation, Geometry};
use super::tasks::filled;
use super::winograd::{self, Winograd};
use candle_core::Result;

/// The ways to compute a convolution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Method {
    /// Loops over pixels, for one channel a group.
    Depthwise,
    /// Implicit matrix product: anything else.
    Direct,
    /// Minimal filtering F(2×2, 3×3): 4/9 of the multiplications, as accurate as direct.
    Winograd2,
    /// Minimal filtering F(4×4, 3×3): a quarter of the multiplications; errors about ten times those of direct.
    Winograd4,
}

/// Smallest side of a map for F(2×2) and F(4×4). Below, too few tiles share a transformed weight; between 13 and 25
/// pixels F(2×2) wins, because at that size reading the weights decides and F(4×4) has 36 numbers for its 16.
const SIDE_FOR_2: usize = 13;
const SIDE_FOR_4: usize = 26;
/// Channels that make up for the transforms.
const INS_FOR_WINOGRAD: usize = 64;
const OUTS_FOR_WINOGRAD: usize = 32;

/// The method for a shape; outside [`plainly`](super::plainly) it depends on the shape alone, so equal inputs give equal bits.
pub(super) fn method(geometry: &Geometry) -> Method {
    let plain = geometry.kernel == (3, 3)
        && geometry.stride == (1, 1)
        && geometry.dilation == (1, 1)
        && geometry.groups == 1
        && geometry.in_channels >= INS_FOR_WINOGRAD
        && geometry.out_channels >= OUTS_FOR_WINOGRAD
        && !is_plain();
    let side = geometry.output.0.min(geometry.output.1);
    if geometry.is_depthwise() {
        Method::Depthwise
    } else if plain && side >= SIDE_FOR_4 {
        Method::Winograd4
    } else if plain && side >= SIDE_FOR_2 {
        Method::Winograd2
    } else {
        Method::Direct
    }
}

/// What a convolution reads: x `[N, C, H, W]`, weight `[O, C/groups, kh, kw]` and bias `[O]`.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a> {
    pub x: &'a [f32],
    pub weight: &'a [f32],
    pub bias: Option<&'a [f32]>,
}

/// `[N, O, H', W']` by `method`, which must suit the shape.
pub(super) fn forward(
    simd: Simd,
    method: Method,
    geometry: &Geometry,
    inputs: Inputs<'_>,
    activation: Activation,
    cache: Option<(&WeightCache, u64)>,
) -> Result<Vec<f32>> {
    let kernels = Kernels::forward(geometry, inputs.weight);
    let (groups, precision) = (geometry.groups, geometry.precision);
    let form = Form { method, shape: geometry.weight_shape(), groups, precision };
    let tile = match method {
        Method::Depthwise => return depthwise::forward(simd, geometry, inputs, activation),
        Method::Direct => {
            let taps = geometry.forward_taps();
            let weights = prepared(cache, form, kernels.packed_len(taps.len()), |to| pack_weights(&kernels, &taps, to));
            let job = Direct {
                batch: geometry.batch,
                groups: geometry.groups,
                ins: geometry.in_channels,
                outs: geometry.out_channels,
                window: Window { size: geometry.input, step: geometry.stride },
                output: geometry.output,
                input: inputs.x,
                taps: &taps,
                weights: weights.as_slice(),
                bias: inputs.bias,
                activation,
            };
            // SAFETY: `run` writes the whole output.
            return unsafe { filled(geometry.output_len(), |to| job.run(simd, to)) };
        }
        Method::Winograd2 => 2,
        Method::Winograd4 => 4,
    };
    let weights = prepared(cache, form, winograd::weights_len(tile, &kernels), |to| {
        winograd::transform_weights(simd, tile, &kernels, false, to);
    });
    let job = Winograd {
        tile,
        batch: geometry.batch,
        ins: geometry.in_channels,
        outs: geometry.out_channels,
        input_size: geometry.input,
        output_size: geometry.output,
        padding: (geometry.padding.0 as isize, geometry.padding.1 as isize),
        input: inputs.x,
        weights: weights.as_slice(),
        bias: inputs.bias,
        activation,
    };
    // SAFETY: `run` writes the whole output.
    unsafe { filled(geometry.output_len(), |to| job.run(simd, to)) }
}

#[cfg(test)]
mod tests {
    use super::super::reference::Problem;
    use super::super::spec::ConvSpec;
    use super::*;
    use crate::random::Random;

    /// Largest error relative to the largest output, of `method` on random numbers against the sums in f64.
    fn error(simd: Simd, method: Method, problem: &Problem, activation: Activation, bias: bool) -> f64 {
        let mut random = Random::new(3);
        let mut numbers = |count: usize| -> Vec<f32> { (0..count).map(|_| random.normal()).collect() };
        let (x_shape, weight_shape) = (problem.input_shape(), problem.weight_shape());
        let x = numbers(x_shape.iter().product());
        let weight = numbers(weight_shape.iter().product());
        let bias = bias.then(|| numbers(weight_shape[0]));
        let spec = ConvSpec {
            stride: problem.stride,
            padding: problem.padding,
            dilation: problem.dilation,
            groups: problem.groups,
            activation,
        };
        let geometry = Geometry::new(&x_shape, &weight_shape, &spec).unwrap();
        let inputs = Inputs { x: &x, weight: &weight, bias: bias.as_deref() };
        let output = forward(simd, method, &geometry, inputs, activation, None).unwrap();
        let expected = problem.forward(&x, &weight, bias.as_deref());
        let expected: Vec<f64> = expected.iter().map(|&v| f64::from(activation.apply(v as f32))).collect();
        assert_eq!(output.len(), expected.len());
        let largest = expected.iter().fold(1e-30_f64, |m, v| m.max(v.abs()));
        let worst = output.iter().zip(&expected).map(|(&a, &b)| (f64::from(a) - b).abs()).fold(0.0, f64::max);
        if output.iter().all(|v| v.is_finite()) { worst / largest } else { f64::INFINITY }
    }

    /// Batch, groups, (ins, outs) of a group, input, kernel, stride, padding, dilation.
    type Case = (usize, usize, (usize, usize), (usize, usize), (usize, usize), (usize, usize), (usize, usize), usize);

    #[rustfmt::skip]
    const CASES: &[Case] = &[
        (1, 1, (1, 1), (1, 1), (1, 1), (1, 1), (0, 0), 1),
        (1, 1, (3, 8), (9, 11), (3, 3), (1, 1), (1, 1), 1),
        (3, 1, (3, 9), (13, 7), (3, 3), (2, 2), (1, 1), 1),
        (1, 1, (3, 17), (31, 45), (7, 7), (2, 2), (3, 3), 1),
        (3, 1, (5, 6), (10, 12), (2, 2), (2, 2), (0, 0), 1),
        (1, 1, (7, 3), (11, 15), (4, 4), (3, 3), (2, 2), 1),
        (1, 1, (70, 16), (12, 16), (1, 1), (1, 1), (0, 0), 1),
        (3, 1, (16, 23), (7, 14), (1, 1), (1, 1), (0, 0), 1),
        (1, 1, (16, 23), (15, 14), (1, 1), (2, 2), (0, 0), 1),
        (1, 1, (4, 5), (6, 6), (1, 1), (1, 1), (2, 2), 1),
        (1, 1, (6, 10), (19, 19), (3, 3), (1, 1), (6, 6), 6),
        (3, 1, (6, 10), (9, 17), (5, 5), (1, 2), (2, 1), 2),
        (1, 1, (9, 8), (12, 9), (3, 1), (1, 1), (1, 0), 1),
        (1, 1, (9, 8), (12, 9), (1, 5), (2, 1), (0, 2), 1),
        (1, 2, (4, 6), (9, 9), (3, 3), (1, 1), (1, 1), 1),
        (3, 4, (2, 9), (8, 5), (3, 3), (2, 2), (1, 1), 1),
        (1, 1, (40, 33), (5, 5), (3, 3), (1, 1), (1, 1), 1),
        (1, 1, (8, 8), (3, 3), (3, 3), (1, 1), (4, 4), 1),
        (1, 1, (2, 3), (1, 130), (1, 3), (1, 1), (0, 1), 1),
        (1, 1, (33, 64), (50, 3), (3, 3), (1, 1), (1, 1), 1),
        (1, 6, (1, 1), (9, 11), (3, 3), (1, 1), (1, 1), 1),
        (3, 5, (1, 2), (10, 7), (3, 3), (2, 2), (1, 1), 1),
        (1, 3, (1, 1), (8, 20), (5, 3), (1, 3), (2, 0), 2),
        (1, 3, (1, 1), (7, 70), (3, 3), (1, 1), (1, 1), 1),
        (1, 4, (1, 1), (9, 70), (3, 3), (2, 2), (1, 1), 1),
        (3, 2, (1, 1), (12, 37), (3, 3), (1, 1), (2, 2), 2),
        (1, 3, (1, 1), (14, 37), (3, 3), (2, 2), (2, 2), 2),
        (1, 5, (1, 2), (1, 1), (3, 3), (1, 1), (1, 1), 1),
        (1, 5, (1, 1), (1, 1), (3, 3), (2, 2), (1, 1), 1),
        (1, 3, (1, 1), (14, 33), (5, 5), (1, 1), (2, 2), 1),
        (1, 3, (1, 2), (14, 19), (5, 5), (2, 2), (2, 2), 1),
        (2, 40, (1, 1), (7, 7), (3, 3), (1, 1), (1, 1), 1),
        (1, 4, (1, 1), (6, 18), (3, 3), (1, 1), (0, 0), 1),
        (1, 2, (1, 1), (8, 40), (3, 3), (2, 1), (1, 1), 1),
        (1, 2, (1, 1), (2, 3), (1, 1), (2, 2), (4, 3), 1),
    ];

    fn problem(case: &Case) -> Problem {
        let &(batch, groups, channels, input, kernel, stride, padding, dilation) = case;
        Problem { batch, groups, channels, input, kernel, stride, padding, dilation: (dilation, dilation) }
    }

    #[test]
    fn direct_and_depthwise_match_the_definition() {
        let mut failures: Vec<String> = Vec::new();
        for simd in Simd::available() {
            for case in CASES {
                let depthwise = case.1 > 1 && case.2.0 == 1;
                let methods: &[Method] =
                    if depthwise { &[Method::Depthwise, Method::Direct] } else { &[Method::Direct] };
                for &method in methods {
                    for (activation, bias) in [
                        (Activation::None, false),
                        (Activation::None, true),
                        (Activation::Relu, true),
                        (Activation::Leaky(0.1), true),
                    ] {
                        let error = error(simd, method, &problem(case), activation, bias);
                        // Sums of up to 630 products in f32.
                        if error > 3e-6 {
                            failures
                                .push(format!("{simd:?} {method:?} {activation:?} bias {bias} {case:?}: {error:e}"));
                        }
                    }
                }
            }
        }
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }

    /// Winograd on maps down to the smallest it takes, with borders that cut tiles, and channels that cut blocks.
    #[test]
    fn winograd_matches_the_definition() {
        let mut failures: Vec<String> = Vec::new();
        #[rustfmt::skip]
        let cases = [
            (1, (5, 8), (13, 13), 1), (1, (3, 9), (14, 29), 1), (3, (4, 3), (17, 15), 1), (1, (9, 17), (30, 41), 0),
            (1, (2, 4), (20, 70), 2), (2, (6, 5), (38, 13), 1), (1, (3, 8), (16, 16), 3),
        ];
        for simd in Simd::available() {
            for (batch, channels, input, padding) in cases {
                let problem = problem(&(batch, 1, channels, input, (3, 3), (1, 1), (padding, padding), 1));
                for (method, tolerance) in [(Method::Winograd2, 3e-6), (Method::Winograd4, 1e-4)] {
                    for (activation, bias) in [(Activation::None, false), (Activation::Leaky(0.1), true)] {
                        let error = error(simd, method, &problem, activation, bias);
                        if error > tolerance {
                            failures.push(format!("{simd:?} {method:?} {channels:?} {input:?} {padding}: {error:e}"));
                        }
                    }
                }
            }
        }
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }

    #[test]
    fn methods_follow_the_measured_table() {
        let of = |ins: usize, outs: usize, side: usize, spec: ConvSpec, kernel: usize| {
            let weight = [outs, ins / spec.groups, kernel, kernel];
            method(&Geometry::new(&[1, ins, side, side], &weight, &spec).unwrap())
        };
        let same = ConvSpec::new().padding(1);
        assert_eq!(of(64, 64, 300, same, 3), Method::Winograd4);
        assert_eq!(of(512, 512, 38, same, 3), Method::Winograd4);
        assert_eq!(of(512, 512, 19, same, 3), Method::Winograd2);
        assert_eq!(of(256, 256, 10, same, 3), Method::Direct);
        assert_eq!(of(3, 64, 300, same, 3), Method::Direct);
        assert_eq!(of(128, 128, 100, same.stride(2), 3), Method::Direct);
        assert_eq!(of(512, 512, 38, ConvSpec::new().padding(6).dilation(6), 3), Method::Direct);
        assert_eq!(of(256, 64, 200, ConvSpec::new(), 1), Method::Direct);
        assert_eq!(of(64, 64, 50, same.groups(64), 3), Method::Depthwise);
        assert_eq!(of(64, 64, 50, same.groups(2), 3), Method::Direct);
    }
}
