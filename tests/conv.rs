//! Convolution through its public door: values, gradients, threads, caches and errors.

#[path = "../src/ops/conv/reference.rs"]
mod reference;

use boxwright::ops::conv::{Activation, ConvSpec, WeightCache, conv2d};
use boxwright::ops::precision::Precision;
use boxwright::random::Random;
use candle_core::{DType, Device, Result, Tensor, Var};
use reference::Problem;
use std::sync::Arc;

fn numbers(random: &mut Random, shape: &[usize]) -> Vec<f32> {
    (0..shape.iter().product::<usize>()).map(|_| random.normal()).collect()
}

fn tensor(values: &[f32], shape: &[usize]) -> Result<Tensor> {
    Tensor::from_vec(values.to_vec(), shape, &Device::Cpu)
}

fn variable(values: &[f32], shape: &[usize]) -> Result<Var> {
    Var::from_vec(values.to_vec(), shape, &Device::Cpu)
}

fn floats(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.flatten_all()?.to_vec1::<f32>()
}

fn bits(tensor: &Tensor) -> Result<Vec<u32>> {
    Ok(floats(tensor)?.iter().map(|v| v.to_bits()).collect())
}

fn spec_of(problem: &Problem, activation: Activation) -> ConvSpec {
    ConvSpec {
        stride: problem.stride,
        padding: problem.padding,
        dilation: problem.dilation,
        groups: problem.groups,
        activation,
    }
}

/// Largest error relative to the largest expected number; infinite when a number is not finite.
fn error(found: &[f32], expected: &[f64]) -> f64 {
    if found.len() != expected.len() || found.iter().any(|v| !v.is_finite()) {
        return f64::INFINITY;
    }
    let largest = expected.iter().fold(1e-30_f64, |m, v| m.max(v.abs()));
    let errors = found.iter().zip(expected).map(|(&a, &b)| (f64::from(a) - b).abs());
    errors.fold(0.0, f64::max) / largest
}

/// x, weight, bias and a gradient for the output, all random.
struct Operands {
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    gradient: Vec<f32>,
}

impl Operands {
    fn new(problem: &Problem, seed: u64) -> Self {
        let mut random = Random::new(seed);
        Self {
            x: numbers(&mut random, &problem.input_shape()),
            weight: numbers(&mut random, &problem.weight_shape()),
            bias: numbers(&mut random, &[problem.weight_shape()[0]]),
            gradient: numbers(&mut random, &problem.output_shape()),
        }
    }
}

/// Output and the gradients of x, weight and bias of `Σ output · gradient`.
fn run(problem: &Problem, operands: &Operands, activation: Activation, with_bias: bool) -> Result<[Tensor; 4]> {
    let x = variable(&operands.x, &problem.input_shape())?;
    let weight = variable(&operands.weight, &problem.weight_shape())?;
    let bias = variable(&operands.bias, &[operands.bias.len()])?;
    let used = with_bias.then_some(bias.as_tensor());
    let y = conv2d(&x, &weight, used, spec_of(problem, activation), None)?;
    assert_eq!(y.dims(), problem.output_shape());
    let gradient = tensor(&operands.gradient, &problem.output_shape())?;
    let gradients = y.mul(&gradient)?.sum_all()?.backward()?;
    let of = |variable: &Var| match gradients.get(variable.as_tensor()) {
        Some(gradient) => Ok(gradient.clone()),
        None => variable.as_tensor().zeros_like(),
    };
    Ok([y, of(&x)?, of(&weight)?, of(&bias)?])
}

/// What is wrong with one case, if anything, against the sums in f64.
fn complaint(problem: &Problem, activation: Activation, with_bias: bool, tolerance: f64) -> Option<String> {
    let operands = Operands::new(problem, 11);
    let [y, of_x, of_weight, of_bias] = match run(problem, &operands, activation, with_bias) {
        Ok(found) => found.map(|tensor| floats(&tensor).unwrap_or_default()),
        Err(error) => return Some(format!("{problem:?}: {error}")),
    };
    let bias = with_bias.then_some(operands.bias.as_slice());
    let before = problem.forward(&operands.x, &operands.weight, bias);
    let expected: Vec<f64> = before.iter().map(|&v| f64::from(activation.apply(v as f32))).collect();
    // The branch of the activation is taken from the output found: at zero, rounding decides.
    let branches = y.iter().zip(&operands.gradient);
    let through: Vec<f64> = branches.map(|(&y, &g)| f64::from(activation.gradient(y, g))).collect();
    let [x, weight, mut bias] = problem.gradients(&operands.x, &operands.weight, &through);
    if !with_bias {
        bias.fill(0.0);
    }
    let errors = [error(&y, &expected), error(&of_x, &x), error(&of_weight, &weight), error(&of_bias, &bias)];
    let wrong = errors.iter().any(|&e| e.is_nan() || e > tolerance);
    wrong.then(|| format!("{problem:?} {activation:?} bias {with_bias}: y, x, weight, bias {errors:?}"))
}

fn problem(channels: (usize, usize), input: (usize, usize), kernel: (usize, usize)) -> Problem {
    Problem { batch: 1, groups: 1, channels, input, kernel, stride: (1, 1), padding: (0, 0), dilation: (1, 1) }
}

const ACTIVATIONS: [(Activation, bool); 4] =
    [(Activation::None, false), (Activation::None, true), (Activation::Relu, true), (Activation::Leaky(0.1), true)];

#[test]
fn output_and_gradients_match_the_definition() {
    let mut failures: Vec<String> = Vec::new();
    let mut cases: Vec<Problem> = Vec::new();
    for kernel in [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (7, 7), (3, 1), (1, 4)] {
        for stride in [1, 2, 3] {
            for (batch, groups, channels) in [(1, 1, (3, 9)), (3, 2, (2, 3)), (1, 3, (1, 2)), (2, 3, (1, 1))] {
                cases.push(Problem {
                    batch,
                    groups,
                    stride: (stride, stride),
                    padding: (kernel.0 / 2, kernel.1 / 2),
                    ..problem(channels, (10, 13), kernel)
                });
            }
        }
    }
    for padding in [(0, 0), (2, 1), (4, 4)] {
        for dilation in [(1, 1), (2, 3)] {
            for stride in [(1, 1), (2, 1), (3, 2)] {
                cases.push(Problem { padding, dilation, stride, ..problem((5, 7), (9, 11), (3, 3)) });
            }
        }
    }
    for case in &cases {
        for (activation, with_bias) in ACTIVATIONS {
            // Sums of at most some hundred products in f32.
            failures.extend(complaint(case, activation, with_bias, 3e-6));
        }
    }
    assert!(failures.is_empty(), "{} wrong:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn winograd_layers_match_the_definition() {
    let mut failures: Vec<String> = Vec::new();
    let cases = [
        // F(4×4), and for the gradient of x as well.
        (problem((64, 64), (27, 30), (3, 3)), 1e-4),
        // F(2×2) forward, direct backward.
        (problem((64, 33), (13, 17), (3, 3)), 1e-5),
        (problem((70, 32), (13, 40), (3, 3)), 1e-5),
    ];
    for (case, tolerance) in cases {
        let case = Problem { batch: 2, padding: (1, 1), ..case };
        failures.extend(complaint(&case, Activation::Leaky(0.1), true, tolerance));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// An independent opinion: candle's own convolution, forward, where it has the same settings.
#[test]
fn candle_agrees_on_the_forward_pass() -> Result<()> {
    let case = Problem { batch: 2, groups: 2, stride: (2, 2), padding: (1, 1), ..problem((3, 4), (11, 14), (3, 3)) };
    let operands = Operands::new(&case, 3);
    let x = tensor(&operands.x, &case.input_shape())?;
    let weight = tensor(&operands.weight, &case.weight_shape())?;
    let ours = conv2d(&x, &weight, None, spec_of(&case, Activation::None), None)?;
    let theirs = x.conv2d(&weight, 1, 2, 1, 2)?;
    let expected: Vec<f64> = floats(&theirs)?.into_iter().map(f64::from).collect();
    assert!(error(&floats(&ours)?, &expected) < 3e-6);
    Ok(())
}

fn loss(problem: &Problem, operands: &Operands, activation: Activation) -> Result<f64> {
    let x = tensor(&operands.x, &problem.input_shape())?;
    let weight = tensor(&operands.weight, &problem.weight_shape())?;
    let bias = tensor(&operands.bias, &[operands.bias.len()])?;
    let y = conv2d(&x, &weight, Some(&bias), spec_of(problem, activation), None)?;
    Ok(floats(&y)?.iter().zip(&operands.gradient).map(|(&y, &g)| f64::from(y) * f64::from(g)).sum())
}

/// Without activation the loss is linear in each number, so central differences have no error but rounding, whatever
/// the step.
#[test]
fn gradients_match_central_differences() -> Result<()> {
    let case = Problem { batch: 2, groups: 2, stride: (2, 1), padding: (1, 2), ..problem((2, 3), (5, 6), (3, 2)) };
    let mut operands = Operands::new(&case, 17);
    let found = run(&case, &operands, Activation::None, true)?;
    let step = 0.5;
    for (index, pick) in [0_usize, 1, 2].into_iter().zip(["x", "weight", "bias"]) {
        let gradient = floats(&found[index + 1])?;
        for element in 0..gradient.len() {
            let mut at = |shift: f32| -> Result<f64> {
                let values = match index {
                    0 => &mut operands.x,
                    1 => &mut operands.weight,
                    _ => &mut operands.bias,
                };
                let before = values[element];
                values[element] = before + shift;
                let result = loss(&case, &operands, Activation::None);
                match index {
                    0 => operands.x[element] = before,
                    1 => operands.weight[element] = before,
                    _ => operands.bias[element] = before,
                }
                result
            };
            let difference = (at(step)? - at(-step)?) / f64::from(2.0 * step);
            let close = (difference - f64::from(gradient[element])).abs() < 1e-3;
            assert!(close, "{pick} {element}: {difference} but gradient {}", gradient[element]);
        }
    }
    Ok(())
}

/// With an activation: along a random direction through all numbers at once. The few outputs that change branch within
/// the step are the reason for the tolerance, one percent of the sum of absolute contributions.
#[test]
fn gradients_through_activations_match_a_directional_difference() -> Result<()> {
    let case = Problem { padding: (1, 1), ..problem((3, 6), (9, 10), (3, 3)) };
    for activation in [Activation::Relu, Activation::Leaky(0.1)] {
        let operands = Operands::new(&case, 23);
        let direction = Operands::new(&case, 29);
        let [_, of_x, of_weight, of_bias] = run(&case, &operands, activation, true)?;
        let (mut exact, mut scale) = (0.0_f64, 0.0_f64);
        for (gradient, along) in [(of_x, &direction.x), (of_weight, &direction.weight), (of_bias, &direction.bias)] {
            for (&g, &d) in floats(&gradient)?.iter().zip(along) {
                exact += f64::from(g) * f64::from(d);
                scale += (f64::from(g) * f64::from(d)).abs();
            }
        }
        let step = 1e-3_f32;
        let moved = |by: f32| -> Result<f64> {
            let shift = |values: &[f32], along: &[f32]| -> Vec<f32> {
                values.iter().zip(along).map(|(&v, &d)| v + by * d).collect()
            };
            let there = Operands {
                x: shift(&operands.x, &direction.x),
                weight: shift(&operands.weight, &direction.weight),
                bias: shift(&operands.bias, &direction.bias),
                gradient: operands.gradient.clone(),
            };
            loss(&case, &there, activation)
        };
        let difference = (moved(step)? - moved(-step)?) / f64::from(2.0 * step);
        assert!((difference - exact).abs() < 0.01 * scale, "{activation:?}: {difference} but {exact} of {scale}");
    }
    Ok(())
}

/// Shapes of every method; on 1 thread the first takes Winograd's schedule by panels, on more the one by phases.
#[test]
fn the_number_of_threads_changes_no_bit() -> Result<()> {
    let cases = [
        problem((64, 40), (62, 60), (3, 3)),
        problem((64, 40), (15, 14), (3, 3)),
        problem((20, 40), (19, 19), (3, 3)),
        Problem { groups: 8, stride: (2, 2), ..problem((1, 2), (21, 20), (3, 3)) },
        Problem { batch: 3, groups: 2, stride: (2, 2), padding: (3, 3), ..problem((3, 20), (40, 33), (7, 7)) },
        problem((130, 70), (9, 8), (1, 1)),
    ];
    for case in &cases {
        let operands = Operands::new(case, 31);
        let mut expected: Vec<Vec<u32>> = Vec::new();
        for threads in [1, 2, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(candle_core::Error::msg)?;
            let found = pool.install(|| run(case, &operands, Activation::Relu, true))?;
            let found = found.iter().map(bits).collect::<Result<Vec<_>>>()?;
            if expected.is_empty() {
                expected = found;
            } else {
                assert!(expected == found, "{threads} threads: {case:?}");
            }
        }
    }
    Ok(())
}

/// What [`run`] has to give in a precision: the same kernels on rounded factors. In 16 bits their sums are rounded too,
/// before the bias and the activation; the bias's own gradient is f32's.
fn on_rounded_factors(
    problem: &Problem,
    operands: &Operands,
    activation: Activation,
    with_bias: bool,
    precision: Precision,
) -> Result<[Vec<f32>; 4]> {
    let round = |values: &[f32]| -> Vec<f32> { values.iter().map(|&value| precision.round(value)).collect() };
    let half = matches!(precision, Precision::F16 | Precision::Bf16);
    let sums =
        |tensor: &Tensor| -> Result<Vec<f32>> { Ok(if half { round(&floats(tensor)?) } else { floats(tensor)? }) };
    let towards = |gradient: Vec<f32>| Operands {
        x: round(&operands.x),
        weight: round(&operands.weight),
        bias: operands.bias.clone(),
        gradient,
    };
    let plain = towards(operands.gradient.clone());
    let y: Vec<f32> = if half {
        let [y, ..] = run(problem, &plain, Activation::None, false)?;
        let [_, outs, height, width] = problem.output_shape();
        let bias = |at: usize| if with_bias { operands.bias[at / (height * width) % outs] } else { 0.0 };
        sums(&y)?.iter().enumerate().map(|(at, sum)| activation.apply(sum + bias(at))).collect()
    } else {
        let [y, ..] = run(problem, &plain, activation, with_bias)?;
        floats(&y)?
    };
    let before: Vec<f32> = y.iter().zip(&operands.gradient).map(|(&y, &g)| activation.gradient(y, g)).collect();
    let [_, of_x, of_weight, _] = run(problem, &towards(round(&before)), Activation::None, false)?;
    let [_, _, _, of_bias] = run(problem, &towards(before), Activation::None, with_bias)?;
    Ok([y, sums(&of_x)?, sums(&of_weight)?, floats(&of_bias)?])
}

#[test]
fn every_precision_is_f32_on_rounded_factors_bit_for_bit() -> Result<()> {
    let cases = [
        Problem { padding: (1, 1), ..problem((5, 9), (10, 13), (3, 3)) },
        Problem { batch: 2, groups: 2, stride: (2, 2), ..problem((4, 6), (9, 8), (3, 3)) },
        Problem { batch: 2, groups: 6, padding: (1, 1), ..problem((1, 1), (9, 11), (3, 3)) },
        Problem { batch: 3, ..problem((7, 5), (1, 1), (1, 1)) },
        // Winograd's transforms begin with rounded factors too.
        Problem { padding: (1, 1), ..problem((64, 32), (28, 28), (3, 3)) },
    ];
    for case in &cases {
        let operands = Operands::new(case, 5);
        for precision in Precision::ALL {
            for (activation, with_bias) in ACTIVATIONS {
                let found = precision.within(|| run(case, &operands, activation, with_bias))?;
                let expected = on_rounded_factors(case, &operands, activation, with_bias, precision)?;
                for (part, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    let name = format!("part {part} in {precision}, {activation:?} of {case:?}");
                    assert_eq!(floats(found)?, *expected, "{name}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn gradients_have_the_precision_of_their_forward_pass_and_cached_weights_that_of_their_call() -> Result<()> {
    let case = Problem { padding: (1, 1), ..problem((5, 6), (8, 8), (3, 3)) };
    let operands = Operands::new(&case, 9);
    let spec = spec_of(&case, Activation::None);
    let x = variable(&operands.x, &case.input_shape())?;
    let weight = variable(&operands.weight, &case.weight_shape())?;
    let cache = Arc::new(WeightCache::default());
    let forward = || conv2d(&x, &weight, None, spec, Some((&cache, 1)));
    let gradient = |y: &Tensor| -> Result<Vec<u32>> {
        match y.sqr()?.sum_all()?.backward()?.get(x.as_tensor()) {
            Some(gradient) => bits(gradient),
            None => candle_core::bail!("no gradient"),
        }
    };
    let mut seen = Vec::new();
    for precision in Precision::ALL {
        let y = precision.within(forward)?;
        assert_eq!(bits(&y)?, bits(&precision.within(|| conv2d(&x, &weight, None, spec, None))?)?);
        let outside = gradient(&y)?;
        assert_eq!(outside, Precision::Bf16.within(|| gradient(&y))?);
        assert!(!seen.contains(&outside), "{precision} is another precision");
        seen.push(outside);
    }
    Ok(())
}

#[test]
fn a_new_version_makes_cached_weights_stale() -> Result<()> {
    // One shape each for packed, F(2×2) and F(4×4) weights.
    for (channels, side) in [((5, 6), 8), ((64, 32), 15), ((64, 32), 28)] {
        let case = problem(channels, (side, side), (3, 3));
        let (first, second) = (Operands::new(&case, 1), Operands::new(&case, 2));
        let spec = spec_of(&case, Activation::None);
        let x = tensor(&first.x, &case.input_shape())?;
        let weight = variable(&first.weight, &case.weight_shape())?;
        let cache = Arc::new(WeightCache::default());
        let cached = |version: u64| -> Result<Vec<u32>> {
            bits(&conv2d(&x, weight.as_tensor(), None, spec, Some((&cache, version)))?)
        };
        let fresh = |weight: &Tensor| -> Result<Vec<u32>> { bits(&conv2d(&x, weight, None, spec, None)?) };
        assert_eq!(cached(7)?, fresh(weight.as_tensor())?);
        assert_eq!(cached(7)?, fresh(weight.as_tensor())?);
        let before = cached(7)?;
        weight.set(&tensor(&second.weight, &case.weight_shape())?)?;
        // Written in place: without a new version the cache cannot know.
        assert_eq!(cached(7)?, before);
        assert_eq!(cached(8)?, fresh(weight.as_tensor())?);
        assert_ne!(cached(8)?, before);
    }
    Ok(())
}

#[test]
fn views_are_read_as_what_they_show() -> Result<()> {
    let case = Problem { batch: 3, padding: (1, 1), ..problem((4, 5), (7, 9), (3, 3)) };
    let operands = Operands::new(&case, 37);
    let spec = spec_of(&case, Activation::Relu);
    let x = tensor(&operands.x, &case.input_shape())?;
    let weight = tensor(&operands.weight, &case.weight_shape())?;
    let whole = conv2d(&x, &weight, None, spec, None)?;
    // Contiguous behind an offset.
    let last = conv2d(&x.narrow(0, 2, 1)?, &weight, None, spec, None)?;
    assert_eq!(bits(&last)?, bits(&whole.narrow(0, 2, 1)?)?);
    // Not contiguous: stored with height and width exchanged, a weight out of a larger one.
    let turned = x.transpose(2, 3)?.contiguous()?.transpose(2, 3)?;
    let wide = Tensor::cat(&[&weight, &weight], 1)?.narrow(1, 0, 4)?;
    assert!(!turned.is_contiguous() && !wide.is_contiguous());
    assert_eq!(bits(&conv2d(&turned, &wide, None, spec, None)?)?, bits(&whole)?);
    Ok(())
}

#[test]
fn an_empty_batch_has_an_empty_output() -> Result<()> {
    for groups in [1, 4] {
        let x = Var::zeros((0, 4, 9, 9), DType::F32, &Device::Cpu)?;
        let weight = Var::ones((8, 4 / groups, 3, 3), DType::F32, &Device::Cpu)?;
        let bias = Var::ones(8, DType::F32, &Device::Cpu)?;
        let spec = ConvSpec::new().padding(1).stride(2).groups(groups).activation(Activation::Relu);
        let y = conv2d(&x, &weight, Some(bias.as_tensor()), spec, None)?;
        assert_eq!(y.dims(), [0, 8, 5, 5]);
    }
    Ok(())
}

#[test]
fn only_what_is_asked_for_gets_a_gradient() -> Result<()> {
    let case = problem((3, 4), (8, 8), (3, 3));
    let operands = Operands::new(&case, 41);
    let x = tensor(&operands.x, &case.input_shape())?;
    let weight = variable(&operands.weight, &case.weight_shape())?;
    let bias = tensor(&operands.bias, &[4])?;
    let y = conv2d(&x, &weight, Some(&bias), ConvSpec::new(), None)?;
    let gradients = y.sum_all()?.backward()?;
    assert!(gradients.get(&x).is_none() && gradients.get(&bias).is_none());
    assert!(gradients.get(weight.as_tensor()).is_some());
    Ok(())
}

#[test]
fn what_cannot_be_done_is_a_message_with_shapes() -> Result<()> {
    let x = Tensor::zeros((1, 4, 8, 8), DType::F32, &Device::Cpu)?;
    let weight = Tensor::zeros((6, 4, 3, 3), DType::F32, &Device::Cpu)?;
    let spec = ConvSpec::new();
    let bias = Tensor::zeros(5, DType::F32, &Device::Cpu)?;
    let double = x.to_dtype(DType::F64)?;
    let flat = x.flatten_from(2)?;
    for (result, words) in [
        (conv2d(&x, &weight, Some(&bias), spec, None), "[5]"),
        (conv2d(&double, &weight, None, spec, None), "F64"),
        (conv2d(&flat, &weight, None, spec, None), "[1, 4, 64]"),
        (conv2d(&x, &weight, None, spec.groups(2), None), "2 groups"),
        (conv2d(&x, &weight, None, spec.dilation(5), None), "(8, 8)"),
        (conv2d(&x, &weight, None, spec.stride(0), None), "stride (0, 0)"),
        (conv2d(&x, &weight, None, spec.activation(Activation::Leaky(-1.0)), None), "slope"),
    ] {
        let message = result.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(message.contains(words), "{words:?} not in {message:?}");
    }
    Ok(())
}
