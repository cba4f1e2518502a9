//! Gradients of the tensor operations against differences, norms and losses against their formulas in double precision,
//! empty inputs, extreme logits, and equal bits for any number of threads.

#[path = "ops_devices.rs"]
mod devices;

use boxwright::geometry::BBox;
use boxwright::ops::activation::{leaky_relu, log_softmax_last, mish, relu, relu6, sigmoid, softmax_last, swish};
use boxwright::ops::gather::select_rows;
use boxwright::ops::losses::{
    IouLoss, bce_with_logits, box_iou_loss, cross_entropy, sigmoid_focal, smooth_l1, weighted_sum,
};
use boxwright::ops::norm::{L2Eps, batch_norm, batch_norm_train, group_norm, l2_norm};
use boxwright::ops::pool::{Pool, adaptive_avg_pool2d, avg_pool2d, max_pool2d};
use boxwright::ops::resize::{upsample_bilinear, upsample_nearest};
use boxwright::ops::roi::{roi_align, roi_pool};
use boxwright::ops::transposed::conv_transpose2d;
use boxwright::random::Random;
use candle_core::{Device, Result, Tensor, Var};

/// Values of a tensor and its shape.
type Input = (Vec<f32>, Vec<usize>);

/// Uniform values in `[low, high)`.
fn noise(seed: u64, dims: &[usize], low: f32, high: f32) -> Input {
    let mut random = Random::new(seed);
    let count: usize = dims.iter().product();
    ((0..count).map(|_| random.range(low, high)).collect(), dims.to_vec())
}

/// Distinct values 0.05 apart in random order, none within 0.02 of 0: a small step crosses no kink.
fn spaced(seed: u64, dims: &[usize]) -> Input {
    let count: usize = dims.iter().product();
    let mut values: Vec<f32> = (0..count).map(|i| (i as f32 - (count / 2) as f32 + 0.5) * 0.05).collect();
    Random::new(seed).shuffle(&mut values);
    (values, dims.to_vec())
}

fn tensor(input: &Input) -> Tensor {
    Tensor::from_slice(&input.0, input.1.as_slice(), &Device::Cpu).unwrap()
}

fn values(x: &Tensor) -> Vec<f32> {
    if x.elem_count() == 0 {
        return Vec::new();
    }
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// A single argument.
fn one(input: &Input) -> &[Input] {
    std::slice::from_ref(input)
}

/// Fails unless every value is within `tolerance`, relative to 1 or the expected size.
fn assert_close(name: &str, found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{name}: number of values");
    for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(found) - expected).abs();
        assert!(error <= tolerance * (1.0 + expected.abs()), "{name}: value {i} is {found}, not {expected}");
    }
}

/// Compares the gradient of Σ rᵢ yᵢ (fixed pseudo-random r) with central differences, for up to 40 elements an input.
///
/// The loss is summed in f64, so what is left is the rounding of the f32 outputs (6e-8 each, divided by a step of
/// 0.01: about 1e-4 for a hundred outputs) and the curvature (step² / 6 = 2e-5 times a third derivative of up to 50).
fn check_gradient(name: &str, inputs: &[Input], forward: impl Fn(&[Tensor]) -> Result<Tensor>) {
    const STEP: f32 = 0.01;
    const TOLERANCE: f64 = 2e-3;
    let vars: Vec<Var> = inputs.iter().map(|input| Var::from_tensor(&tensor(input)).unwrap()).collect();
    let arguments: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let y = forward(&arguments).unwrap();
    let probe = noise(77, y.dims(), -1.0, 1.0);
    let gradients = y.mul(&tensor(&probe)).unwrap().sum_all().unwrap().backward().unwrap();

    let loss_at = |which: usize, index: usize, value: f32| -> f64 {
        let mut arguments: Vec<Tensor> = inputs.iter().map(tensor).collect();
        let mut changed = inputs[which].clone();
        changed.0[index] = value;
        arguments[which] = tensor(&changed);
        let y = values(&forward(&arguments).unwrap());
        y.iter().zip(&probe.0).map(|(&y, &r)| f64::from(y) * f64::from(r)).sum()
    };
    for (which, input) in inputs.iter().enumerate() {
        let gradient = values(gradients.get(&arguments[which]).expect("a gradient"));
        assert_eq!(gradient.len(), input.0.len(), "{name}: gradient size of input {which}");
        for index in (0..input.0.len()).step_by((input.0.len() / 40).max(1)) {
            let (high, low) = (input.0[index] + STEP, input.0[index] - STEP);
            let difference = loss_at(which, index, high) - loss_at(which, index, low);
            let expected = difference / (f64::from(high) - f64::from(low));
            let found = f64::from(gradient[index]);
            let close = (found - expected).abs() <= TOLERANCE * (1.0 + expected.abs());
            assert!(close, "{name}: input {which}, element {index}: gradient {found}, difference {expected}");
        }
    }
}

const POOLS: [Pool; 9] = [
    Pool::new(1).stride(2),
    Pool::new(2),
    Pool::new(2).ceil(),
    Pool::new(3).stride(1).padding(1),
    Pool::new(3).stride(2).padding(1),
    Pool::new(3).stride(2).padding(1).ceil(),
    Pool::new(2).stride(3).padding(1).ceil(),
    Pool { kernel: (3, 2), stride: (2, 1), padding: (1, 0), ceil_mode: true },
    Pool { kernel: (2, 5), stride: (1, 4), padding: (0, 2), ceil_mode: false },
];

#[test]
fn pooling_gradients_match_differences() {
    for (case, pool) in POOLS.into_iter().enumerate() {
        let x = spaced(20 + case as u64, &[3, 2, 6, 7]);
        check_gradient("max_pool2d", one(&x), |x| max_pool2d(&x[0], pool));
        check_gradient("avg_pool2d", one(&x), |x| avg_pool2d(&x[0], pool, case % 2 == 0));
    }
    let x = noise(3, &[1, 3, 5, 7], -1.0, 1.0);
    check_gradient("adaptive_avg_pool2d", &[x], |x| adaptive_avg_pool2d(&x[0], (3, 2)));
}

const SIZES: [((usize, usize), (usize, usize)); 7] = [
    ((1, 1), (3, 3)),
    ((3, 3), (5, 5)),
    ((5, 5), (10, 10)),
    ((4, 7), (4, 7)),
    ((7, 5), (3, 4)),
    ((2, 3), (7, 1)),
    ((6, 9), (13, 8)),
];

#[test]
fn resampling_gradients_match_differences_and_add_up() {
    for (case, ((h, w), size)) in SIZES.into_iter().enumerate() {
        let x = [noise(case as u64, &[2, 2, h, w], -1.0, 1.0)];
        check_gradient("upsample_nearest", &x, |x| upsample_nearest(&x[0], size));
        check_gradient("upsample_bilinear", &x, |x| upsample_bilinear(&x[0], size, false));
        check_gradient("upsample_bilinear aligned", &x, |x| upsample_bilinear(&x[0], size, true));
    }
    // Three consumers of one map, as in a feature pyramid: each one's gradient counts.
    let x = [noise(9, &[1, 2, 3, 4], -1.0, 1.0)];
    check_gradient("two upsamplings and the map itself", &x, |x| {
        let merged = upsample_nearest(&x[0], (6, 8))?.add(&upsample_bilinear(&x[0], (6, 8), false)?)?;
        merged.sum_keepdim((2, 3))?.broadcast_add(&x[0].sqr()?)
    });
}

/// Mean and biased variance.
fn moments(values: &[f64]) -> (f64, f64) {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    (mean, values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / values.len() as f64)
}

#[test]
fn normalisation_matches_the_definition() -> Result<()> {
    for dims in [vec![3, 4, 5, 3], vec![2, 4, 1, 1], vec![1, 4, 3, 7], vec![5, 4]] {
        let x = noise(1, &dims, 2.0, 5.0);
        let [gamma, beta, mean] = [2, 3, 4].map(|seed| noise(seed, &[4], -1.0, 1.0));
        let var = noise(6, &[4], 0.5, 2.0);
        let inner: usize = dims[2..].iter().product();
        let channel = |i: usize| i / inner % 4;
        let at = |v: &Input, i: usize| f64::from(v.0[channel(i)]);
        let affine = |i: usize, mean: f64, var: f64| {
            (f64::from(x.0[i]) - mean) / (var + 1e-3).sqrt() * at(&gamma, i) + at(&beta, i)
        };
        let all = 0..x.0.len();
        let members = |keep: &dyn Fn(usize) -> bool| -> (f64, f64) {
            moments(&all.clone().filter(|&i| keep(i)).map(|i| f64::from(x.0[i])).collect::<Vec<f64>>())
        };
        let [tx, tg, tb, tm, tv] = [&x, &gamma, &beta, &mean, &var].map(tensor);

        let expected: Vec<f64> = all.clone().map(|i| affine(i, at(&mean, i), at(&var, i))).collect();
        assert_close("batch_norm", &values(&batch_norm(&tx, &tg, &tb, &tm, &tv, 1e-3)?), &expected, 2e-5);

        let batch: Vec<(f64, f64)> = (0..4).map(|c| members(&|i| channel(i) == c)).collect();
        let expected: Vec<f64> = all.clone().map(|i| affine(i, batch[channel(i)].0, batch[channel(i)].1)).collect();
        if dims[0] * inner > 1 {
            let (y, found_mean, found_var) = batch_norm_train(&tx, &tg, &tb, 1e-3)?;
            let count = (dims[0] * inner) as f64;
            let unbiased: Vec<f64> = batch.iter().map(|b| b.1 * count / (count - 1.0)).collect();
            assert_close("batch_norm_train", &values(&y), &expected, 2e-5);
            assert_close("batch mean", &values(&found_mean), &batch.iter().map(|b| b.0).collect::<Vec<f64>>(), 1e-6);
            assert_close("batch variance", &values(&found_var), &unbiased, 1e-6);
        }

        for groups in [1, 2, 4] {
            let block = 4 / groups * inner;
            let expected: Vec<f64> = all
                .clone()
                .map(|i| {
                    let (mean, var) = members(&|k| k / block == i / block);
                    affine(i, mean, var)
                })
                .collect();
            let y = group_norm(&tx, &tg, &tb, groups, 1e-3)?;
            assert_close(&format!("group_norm {groups} of {dims:?}"), &values(&y), &expected, 2e-5);
        }

        for eps in [L2Eps::Add(1e-10), L2Eps::Add(2.0), L2Eps::Max(1e-12), L2Eps::Max(6.5)] {
            let pixel = |i: usize| (i / inner / 4, i % inner);
            let squares = |i: usize| -> f64 {
                all.clone().filter(|&k| pixel(k) == pixel(i)).map(|k| f64::from(x.0[k]).powi(2)).sum()
            };
            let divisor = |length: f64| match eps {
                L2Eps::Add(eps) => length + f64::from(eps),
                L2Eps::Max(eps) => length.max(f64::from(eps)),
            };
            let expected: Vec<f64> =
                all.clone().map(|i| at(&gamma, i) * f64::from(x.0[i]) / divisor(squares(i).sqrt())).collect();
            assert_close(&format!("l2_norm {eps:?}"), &values(&l2_norm(&tx, &tg, eps)?), &expected, 1e-6);
        }
    }
    Ok(())
}

#[test]
fn normalisation_gradients_match_differences() {
    let vectors = [noise(2, &[4], 0.5, 1.5), noise(3, &[4], -1.0, 1.0)];
    let (mean, var) = (tensor(&noise(4, &[4], -1.0, 1.0)), tensor(&noise(5, &[4], 0.5, 2.0)));
    for dims in [vec![1, 4, 3, 5], vec![3, 4, 2, 2], vec![6, 4]] {
        let inputs = [noise(1, &dims, -2.0, 2.0), vectors[0].clone(), vectors[1].clone()];
        check_gradient("batch_norm", &inputs, |x| batch_norm(&x[0], &x[1], &x[2], &mean, &var, 1e-5));
        check_gradient("batch_norm_train", &inputs, |x| Ok(batch_norm_train(&x[0], &x[1], &x[2], 0.5)?.0));
        for groups in [1, 2] {
            check_gradient("group_norm", &inputs, |x| group_norm(&x[0], &x[1], &x[2], groups, 0.5));
        }
        let inputs = [noise(1, &dims, 0.5, 1.5), vectors[0].clone()];
        // Lengths lie between 1 and 3, so the last floor holds everywhere and the one before nowhere.
        for eps in [L2Eps::Add(1e-10), L2Eps::Add(1.0), L2Eps::Max(1e-12), L2Eps::Max(3.5)] {
            check_gradient("l2_norm", &inputs, |x| l2_norm(&x[0], &x[1], eps));
        }
    }
}

#[test]
fn activation_gradients_match_differences() {
    let x = [spaced(4, &[3, 5, 7])];
    check_gradient("relu", &x, |x| relu(&x[0]));
    check_gradient("leaky_relu", &x, |x| leaky_relu(&x[0], 0.1));
    check_gradient("relu6", &x, |x| relu6(&x[0].affine(4.0, 0.0)?));
    check_gradient("sigmoid", &x, |x| sigmoid(&x[0]));
    check_gradient("swish", &x, |x| swish(&x[0]));
    check_gradient("mish", &x, |x| mish(&x[0]));
    check_gradient("softmax_last", &x, |x| softmax_last(&x[0]));
    check_gradient("log_softmax_last", &x, |x| log_softmax_last(&x[0]));
    // A view that is not contiguous.
    check_gradient("softmax_last of a transpose", &x, |x| softmax_last(&x[0].transpose(0, 2)?));
}

#[test]
fn losses_match_their_definitions_and_differences() -> Result<()> {
    let logits = noise(1, &[5, 4], -3.0, 3.0);
    let classes = [2i64, 0, -100, 3, 1];
    let expected: Vec<f64> = logits
        .0
        .chunks(4)
        .zip(classes)
        .map(|(row, class)| {
            let sum: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
            usize::try_from(class).map_or(0.0, |class| sum.ln() - f64::from(row[class]))
        })
        .collect();
    assert_close("cross_entropy", &values(&cross_entropy(&tensor(&logits), &classes, -100)?), &expected, 5e-6);
    check_gradient("cross_entropy", one(&logits), |x| cross_entropy(&x[0], &classes, -100));

    let hard: Vec<f32> = (0..20).map(|i| (i % 3 == 0) as u8 as f32).collect();
    let soft = noise(8, &[5, 4], 0.0, 1.0);
    for target in [(hard, vec![5, 4]), soft] {
        let pairs = || logits.0.iter().zip(&target.0).map(|(&x, &t)| (f64::from(x), f64::from(t)));
        let sigma = |x: f64| 1.0 / (1.0 + (-x).exp());
        let entropy = |x: f64, t: f64| -t * sigma(x).ln() - (1.0 - t) * (1.0 - sigma(x)).ln();
        let t = tensor(&target);
        let expected: Vec<f64> = pairs().map(|(x, t)| entropy(x, t)).collect();
        assert_close("bce", &values(&bce_with_logits(&tensor(&logits), &t)?), &expected, 5e-6);
        check_gradient("bce", one(&logits), |x| bce_with_logits(&x[0], &t));
        for (alpha, gamma) in [(0.25f32, 2.0f32), (0.6, 1.0), (-1.0, 1.5)] {
            let focal = |(x, t): (f64, f64)| {
                let hit = sigma(x) * t + (1.0 - sigma(x)) * (1.0 - t);
                let alpha = f64::from(alpha);
                let balance = if alpha < 0.0 { 1.0 } else { alpha * t + (1.0 - alpha) * (1.0 - t) };
                balance * (1.0 - hit).powf(f64::from(gamma)) * entropy(x, t)
            };
            let expected: Vec<f64> = pairs().map(focal).collect();
            assert_close("focal", &values(&sigmoid_focal(&tensor(&logits), &t, alpha, gamma)?), &expected, 5e-6);
            check_gradient("focal", one(&logits), |x| sigmoid_focal(&x[0], &t, alpha, gamma));
        }
        for beta in [0.0f32, 1.0 / 9.0, 1.0] {
            let smooth = |(x, t): (f64, f64)| {
                let (d, beta) = ((x - t).abs(), f64::from(beta));
                if d < beta { d * d / (2.0 * beta) } else { d - beta / 2.0 }
            };
            let expected: Vec<f64> = pairs().map(smooth).collect();
            assert_close("smooth_l1", &values(&smooth_l1(&tensor(&logits), &t, beta)?), &expected, 5e-6);
        }
        check_gradient("smooth_l1", one(&logits), |x| smooth_l1(&x[0], &t, 1.0));
    }
    Ok(())
}

/// The value and the gradient towards `x` of the sum of what `loss` returns.
fn value_and_gradient(x: &[f32], dims: &[usize], loss: impl Fn(&Tensor) -> Result<Tensor>) -> (Vec<f32>, Vec<f32>) {
    let x = Var::from_slice(x, dims, &Device::Cpu).unwrap();
    let y = loss(x.as_tensor()).unwrap();
    let gradients = y.sum_all().unwrap().backward().unwrap();
    (values(&y), values(gradients.get(x.as_tensor()).expect("a gradient")))
}

#[test]
fn extreme_logits_stay_finite_and_exact() -> Result<()> {
    let rows = [1e4f32, -1e4, 0.0, -1e4, -1e4, -1e4];
    let (y, g) = value_and_gradient(&rows, &[2, 3], |x| cross_entropy(x, &[1, 7], 7));
    assert_eq!((y, g), (vec![2e4, 0.0], vec![1.0, -1.0, 0.0, 0.0, 0.0, 0.0]));
    let logits = [1e4f32, 1e4, -1e4, -1e4];
    let target = Tensor::from_slice(&[0.0f32, 1.0, 0.0, 1.0], 4, &Device::Cpu)?;
    let (y, g) = value_and_gradient(&logits, &[4], |x| bce_with_logits(x, &target));
    assert_eq!((y, g), (vec![1e4, 0.0, 0.0, 1e4], vec![1.0, 0.0, 0.0, -1.0]));
    let (y, g) = value_and_gradient(&logits, &[4], |x| sigmoid_focal(x, &target, 0.25, 2.0));
    assert_eq!((y, g), (vec![7.5e3, 0.0, 0.0, 2.5e3], vec![0.75, 0.0, 0.0, -0.25]));
    let (_, g) =
        value_and_gradient(&[1.0, 2.0, 3.0], &[3], |x| smooth_l1(x, &Tensor::full(2f32, 3, &Device::Cpu)?, 0.0));
    assert_eq!(g, [-1.0, 0.0, 1.0]);
    // An element of weight 0 does no harm, whatever it holds.
    let x = [1.0f32, f32::INFINITY, f32::NAN, 4.0];
    let (y, g) = value_and_gradient(&x, &[2, 2], |x| weighted_sum(x, vec![0.5, 0.0, 0.0, 2.0]));
    assert_eq!((y, g), (vec![8.5], vec![0.5, 0.0, 0.0, 2.0]));
    Ok(())
}

/// The loss by its formula in double precision; `alpha` freezes CIoU's factor, which the gradient takes as constant.
fn box_loss(p: [f64; 4], t: [f64; 4], kind: IouLoss, alpha: Option<f64>) -> (f64, f64) {
    let eps = 1e-7;
    let area = |b: [f64; 4]| (b[2] - b[0]) * (b[3] - b[1]);
    let meet = (p[2].min(t[2]) - p[0].max(t[0])).max(0.0) * (p[3].min(t[3]) - p[1].max(t[1])).max(0.0);
    let union = area(p) + area(t) - meet;
    let iou = meet / (union + eps);
    let (cw, ch) = (p[2].max(t[2]) - p[0].min(t[0]), p[3].max(t[3]) - p[1].min(t[1]));
    let (dx, dy) = ((p[0] + p[2] - t[0] - t[2]) / 2.0, (p[1] + p[3] - t[1] - t[3]) / 2.0);
    let distance = 1.0 - iou + (dx * dx + dy * dy) / (cw * cw + ch * ch + eps);
    let angle = |b: [f64; 4]| ((b[2] - b[0]) / (b[3] - b[1])).atan();
    let v = 4.0 / std::f64::consts::PI.powi(2) * (angle(t) - angle(p)).powi(2);
    let alpha = alpha.unwrap_or(v / (1.0 - iou + v + eps));
    let loss = match kind {
        IouLoss::Iou => -iou.max(eps).ln(),
        IouLoss::Linear => 1.0 - iou,
        IouLoss::Giou => 1.0 - iou + (cw * ch - union) / (cw * ch + eps),
        IouLoss::Diou => distance,
        IouLoss::Ciou => distance + alpha * v,
    };
    (loss, alpha)
}

#[test]
fn box_losses_match_their_formulas_and_differences() {
    let mut random = Random::new(12);
    let mut draw = |_| {
        let (x, y) = (random.range(0.0, 12.0), random.range(0.0, 12.0));
        BBox::from_xywh(x, y, random.range(1.0, 9.0), random.range(1.0, 9.0))
    };
    let mut predicted: Vec<BBox> = (0..30).map(&mut draw).collect();
    let mut targets: Vec<BBox> = (0..30).map(&mut draw).collect();
    // One inside the other, and far apart.
    predicted.extend([BBox::new(1.0, 1.0, 9.0, 8.0), BBox::new(0.0, 0.0, 2.0, 3.0)]);
    targets.extend([BBox::new(2.0, 3.0, 4.0, 5.0), BBox::new(50.0, 40.0, 55.0, 49.0)]);
    let corners = |b: &BBox| [b.x0, b.y0, b.x1, b.y1];
    let flat: Vec<f32> = predicted.iter().flat_map(corners).collect();
    for kind in [IouLoss::Iou, IouLoss::Linear, IouLoss::Giou, IouLoss::Diou, IouLoss::Ciou] {
        let (y, g) = value_and_gradient(&flat, &[predicted.len(), 4], |x| box_iou_loss(x, &targets, kind, 1e-7));
        let (mut expected, mut differences) = (Vec::new(), Vec::new());
        for (p, t) in predicted.iter().zip(&targets) {
            let (p, t) = (corners(p).map(f64::from), corners(t).map(f64::from));
            let (loss, alpha) = box_loss(p, t, kind, None);
            expected.push(loss);
            for k in 0..4 {
                let moved = |step: f64| {
                    let mut p = p;
                    p[k] += step;
                    box_loss(p, t, kind, Some(alpha)).0
                };
                // Rounding 1e-16 / 1e-6 and curvature 1e-12: far below the f32 of the result.
                differences.push((moved(1e-6) - moved(-1e-6)) / 2e-6);
            }
        }
        assert_close(&format!("{kind:?}"), &y, &expected, 1e-5);
        assert_close(&format!("gradient of {kind:?}"), &g, &differences, 1e-5);
    }
    // Degenerate and inverted predictions give finite numbers.
    let odd = [3.0, 3.0, 3.0, 3.0, 5.0, 5.0, 1.0, 2.0, 0.0, 9.0, 4.0, 1.0];
    for kind in [IouLoss::Iou, IouLoss::Linear, IouLoss::Giou, IouLoss::Diou, IouLoss::Ciou] {
        let targets = [BBox::new(3.0, 3.0, 3.0, 3.0), BBox::new(1.0, 1.0, 4.0, 4.0), BBox::new(0.0, 0.0, 2.0, 2.0)];
        let (y, g) = value_and_gradient(&odd, &[3, 4], |x| box_iou_loss(x, &targets, kind, 1e-7));
        assert!(y.iter().chain(&g).all(|v| v.is_finite()), "{kind:?}: {y:?}, {g:?}");
    }
}

const ROIS: [(u32, BBox); 7] = [
    (0, BBox::new(1.0, 2.0, 9.0, 12.0)),
    (2, BBox::new(-6.0, -3.0, 5.5, 7.25)),
    (1, BBox::new(10.0, 3.0, 31.0, 40.0)),
    (1, BBox::new(4.0, 4.0, 4.0, 4.0)),
    (0, BBox::new(0.0, 0.0, 20.0, 17.0)),
    (2, BBox::new(200.0, 200.0, 220.0, 210.0)),
    (0, BBox::new(7.3, 1.1, 7.9, 15.2)),
];

#[test]
fn region_gradients_match_differences() {
    let x = [spaced(31, &[3, 2, 9, 11])];
    for aligned in [false, true] {
        for (ratio, size, scale) in [(2, (7, 7), 0.5), (0, (3, 2), 0.5), (1, (1, 4), 1.0), (3, (2, 3), 0.25)] {
            check_gradient("roi_align", &x, |x| roi_align(&x[0], &ROIS, scale, size, ratio, aligned));
        }
    }
    for size in [(7, 7), (2, 3)] {
        check_gradient("roi_pool", &x, |x| roi_pool(&x[0], &ROIS, 0.5, size));
    }
}

/// Kernel, stride, padding, output padding, groups and batch of a transposed convolution.
type Transposed = ((usize, usize), usize, usize, usize, usize, usize);

const TRANSPOSED: [Transposed; 5] = [
    ((2, 2), 2, 0, 0, 1, 3),
    ((3, 3), 2, 1, 1, 1, 1),
    ((4, 3), 2, 1, 0, 2, 3),
    ((5, 2), 3, 1, 2, 1, 1),
    ((2, 3), 3, 0, 2, 2, 1),
];

#[test]
fn transposed_convolution_gradients_match_differences() {
    for (kernel, stride, padding, extra, groups, batch) in TRANSPOSED {
        let x = noise(1, &[batch, 4, 3, 5], -1.0, 1.0);
        let weight = noise(2, &[4, 3, kernel.0, kernel.1], -1.0, 1.0);
        let bias = noise(3, &[3 * groups], -1.0, 1.0);
        check_gradient("conv_transpose2d", &[x, weight, bias], |x| {
            conv_transpose2d(&x[0], &x[1], Some(&x[2]), stride, padding, extra, groups)
        });
    }
}

#[test]
fn selected_rows_pass_their_gradients_back() {
    let x = [noise(1, &[6, 3], -1.0, 1.0)];
    check_gradient("select_rows", &x, |x| select_rows(&x[0].sqr()?, &[5, 0, 5, 5, 2]));
    check_gradient("weighted_sum", &x, |x| weighted_sum(&x[0], (0..18).map(|i| i as f32 * 0.1 - 0.5).collect()));
}

/// Shapes of results with nothing in them, and zero gradients where nothing was selected.
#[test]
fn empty_inputs_give_empty_results() -> Result<()> {
    let none = tensor(&(Vec::new(), vec![0, 4, 6, 6]));
    let channel = tensor(&noise(1, &[4], 0.5, 1.0));
    assert_eq!(max_pool2d(&none, Pool::new(2))?.dims(), [0, 4, 3, 3]);
    assert_eq!(avg_pool2d(&none, Pool::new(2), true)?.dims(), [0, 4, 3, 3]);
    assert_eq!(upsample_nearest(&none, (3, 9))?.dims(), [0, 4, 3, 9]);
    assert_eq!(upsample_bilinear(&none, (3, 9), true)?.dims(), [0, 4, 3, 9]);
    assert_eq!(batch_norm(&none, &channel, &channel, &channel, &channel, 0.0)?.dims(), none.dims());
    assert!(batch_norm_train(&none, &channel, &channel, 0.0).is_err());
    assert_eq!(group_norm(&none, &channel, &channel, 2, 1e-5)?.dims(), none.dims());
    assert_eq!(l2_norm(&none, &channel, L2Eps::Max(1e-12))?.dims(), none.dims());
    assert_eq!(relu(&none)?.dims(), none.dims());
    assert_eq!(softmax_last(&none)?.dims(), none.dims());
    let rows = tensor(&(Vec::new(), vec![0, 4]));
    assert_eq!(cross_entropy(&rows, &[], -1)?.dims(), [0]);
    assert_eq!(bce_with_logits(&rows, &rows)?.dims(), [0, 4]);
    assert_eq!(box_iou_loss(&rows, &[], IouLoss::Ciou, 1e-7)?.dims(), [0]);
    assert_eq!(values(&weighted_sum(&rows, Vec::new())?), [0.0]);
    assert!(max_pool2d(&tensor(&(Vec::new(), vec![1, 4, 0, 6])), Pool::new(2)).is_err());

    let map = Var::from_tensor(&tensor(&noise(1, &[1, 2, 4, 4], -1.0, 1.0)))?;
    let regions = [
        roi_align(map.as_tensor(), &[], 1.0, (7, 7), 2, false)?,
        roi_pool(map.as_tensor(), &[], 1.0, (7, 7))?,
        select_rows(map.as_tensor(), &[])?,
    ];
    for empty in regions {
        assert_eq!(empty.elem_count(), 0);
        let gradients = weighted_sum(&empty, Vec::new())?.backward()?;
        assert_eq!(values(gradients.get(map.as_tensor()).expect("a gradient")), vec![0.0; 32]);
    }
    Ok(())
}

/// Bits of the results and gradients of every parallel operation.
fn bits_of_everything() -> Result<Vec<Vec<u32>>> {
    let x = Var::from_tensor(&tensor(&noise(1, &[3, 6, 17, 23], -2.0, 2.0)))?;
    let gamma = Var::from_tensor(&tensor(&noise(2, &[6], 0.5, 1.5)))?;
    let weight = Var::from_tensor(&tensor(&noise(3, &[6, 4, 3, 3], -1.0, 1.0)))?;
    let (t, g) = (x.as_tensor(), gamma.as_tensor());
    let pixels = t.flatten_all()?;
    let target = Tensor::full(1f32, pixels.shape(), &Device::Cpu)?;
    let classes: Vec<i64> = (0..3 * 6 * 17).map(|i| i % 23).collect();
    let (train, mean, var) = batch_norm_train(t, g, g, 1e-5)?;
    let results = [
        max_pool2d(t, Pool::new(3).stride(2).padding(1))?,
        avg_pool2d(t, Pool::new(3).stride(1).padding(1), false)?,
        upsample_bilinear(t, (31, 12), false)?,
        train,
        group_norm(t, g, g, 3, 1e-5)?,
        l2_norm(t, g, L2Eps::Add(1e-10))?,
        mish(t)?,
        softmax_last(t)?,
        cross_entropy(&t.reshape((3 * 6 * 17, 23))?, &classes, -1)?,
        sigmoid_focal(&pixels, &target, 0.25, 2.0)?,
        weighted_sum(&pixels, noise(4, &[3 * 6 * 17 * 23], -1.0, 1.0).0)?,
        roi_align(t, &ROIS, 0.5, (7, 7), 0, true)?,
        roi_pool(t, &ROIS, 0.5, (7, 7))?,
        conv_transpose2d(t, weight.as_tensor(), None, 2, 1, 1, 1)?,
    ];
    let mut bits = vec![values(&mean), values(&var)];
    for y in &results {
        bits.push(values(y));
        let gradients = y.sqr()?.sum_all()?.backward()?;
        for var in [&x, &gamma, &weight] {
            bits.extend(gradients.get(var.as_tensor()).map(values));
        }
    }
    Ok(bits.iter().map(|values| values.iter().map(|v| v.to_bits()).collect()).collect())
}

#[test]
fn any_number_of_threads_gives_the_same_bits() -> Result<()> {
    let with_threads = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
        pool.install(bits_of_everything)
    };
    let (one, three) = (with_threads(1)?, with_threads(3)?);
    assert_eq!(one.len(), three.len());
    for (i, (one, three)) in one.iter().zip(&three).enumerate() {
        assert!(one == three, "result {i} depends on the number of threads");
    }
    Ok(())
}
