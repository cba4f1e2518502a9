//! Every operation on a CUDA device against the CPU: results and gradients, over the shapes of the CPU's own tests.

use super::{Input, POOLS, ROIS, SIZES, TRANSPOSED, noise, spaced, tensor, values};
use boxwright::detect::input::NetworkInput;
use boxwright::engine::DeviceChoice;
use boxwright::geometry::BBox;
use boxwright::geometry::matching::{Force, match_anchors};
use boxwright::imaging::{ChannelOrder, Fit, Picture, Preprocess};
use boxwright::ops::activation::{leaky_relu, log_softmax_last, mish, relu, relu6, sigmoid, softmax_last, swish};
use boxwright::ops::conv::{Activation, ConvSpec, conv2d, conv2d_norm_train};
use boxwright::ops::gather::select_rows;
use boxwright::ops::linear::linear;
use boxwright::ops::losses::{
    IouLoss, bce_with_logits, box_iou_loss, cross_entropy, sigmoid_focal, smooth_l1, sum_by, weighted_sum,
};
use boxwright::ops::maps::{add, by_cell, cat, reshape};
use boxwright::ops::matching::{MatchRule, Objects, best_overlaps, matched};
use boxwright::ops::norm::{L2Eps, batch_norm, batch_norm_train, factor_and_shift, group_norm, l2_norm};
use boxwright::ops::picture::extents;
use boxwright::ops::pool::{adaptive_avg_pool2d, avg_pool2d, max_pool2d};
use boxwright::ops::precision::Precision;
use boxwright::ops::proposals::{ProposalRule, propose};
use boxwright::ops::resize::{upsample_bilinear, upsample_nearest};
use boxwright::ops::roi::{roi_align, roi_pool};
use boxwright::ops::sampling::{Draw, Key, Share, drawn};
use boxwright::ops::select::{above, fetch, fetch_rows, fill_rows, hard_negatives};
use boxwright::ops::tape::Tape;
use boxwright::ops::transposed::conv_transpose2d;
use boxwright::ops::update::{Adam, adamw_all, blend_all, squared_norm, velocity_all};
use candle_core::{DType, Device, Result, Tensor, Var};
use std::sync::Arc;

type Operation = Box<dyn Fn(&[Tensor]) -> Result<Tensor>>;

/// An operation and what it is given.
struct Case {
    name: String,
    inputs: Vec<Input>,
    forward: Operation,
    /// Of the largest number.
    tolerance: f32,
}

#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn add(
        &mut self,
        name: impl Into<String>,
        inputs: &[Input],
        forward: impl Fn(&[Tensor]) -> Result<Tensor> + 'static,
    ) {
        // Sums, of up to 2,640 numbers, are made in another order.
        let (name, tolerance) = (name.into(), 5e-5);
        self.0.push(Case { name, inputs: inputs.to_vec(), forward: Box::new(forward), tolerance });
    }

    /// Gives the last case another tolerance.
    fn allow(&mut self, tolerance: f32) {
        if let Some(case) = self.0.last_mut() {
            case.tolerance = tolerance;
        }
    }
}

fn activations(cases: &mut Cases) {
    // A view that is not contiguous.
    let x = [spaced(4, &[3, 5, 7])];
    let flipped = |x: &[Tensor]| x[0].transpose(0, 2);
    cases.add("relu", &x, move |x| relu(&flipped(x)?));
    cases.add("leaky_relu", &x, move |x| leaky_relu(&flipped(x)?, 0.1));
    cases.add("relu6", &x, move |x| relu6(&flipped(x)?.affine(4.0, 0.0)?));
    cases.add("sigmoid", &x, move |x| sigmoid(&flipped(x)?));
    cases.add("swish", &x, move |x| swish(&flipped(x)?));
    cases.add("mish", &x, move |x| mish(&flipped(x)?));
    cases.add("softmax_last", &x, move |x| softmax_last(&flipped(x)?));
    cases.add("log_softmax_last", &x, move |x| log_softmax_last(&flipped(x)?));
}

fn norms(cases: &mut Cases) {
    for dims in [vec![3, 4, 5, 3], vec![2, 4, 1, 1], vec![1, 4, 3, 7], vec![5, 4], vec![2, 4, 40, 33]] {
        let inputs = [noise(1, &dims, 2.0, 5.0), noise(2, &[4], 0.5, 1.5), noise(3, &[4], -1.0, 1.0)];
        let (mean, var) = (tensor(&noise(4, &[4], -1.0, 1.0)), tensor(&noise(5, &[4], 0.5, 2.0)));
        cases.add(format!("batch_norm {dims:?}"), &inputs, move |x| {
            let (mean, var) = (mean.to_device(x[0].device())?, var.to_device(x[0].device())?);
            batch_norm(&x[0], &x[1], &x[2], &mean, &var, 1e-3)
        });
        cases.add(format!("batch_norm_train {dims:?}"), &inputs, |x| {
            let (y, mean, var) = batch_norm_train(&x[0], &x[1], &x[2], 1e-3)?;
            // The statistics go into the result, so that they are compared too.
            let statistics = (mean.affine(0.75, 0.0)? + var.affine(0.25, 0.0)?)?.sum_all()?;
            y.broadcast_add(&statistics)
        });
        cases.add(format!("factor_and_shift {dims:?}"), &inputs[1..], |x| {
            let (gamma, beta) = (x[0].detach(), x[1].detach());
            let (factor, shift) = factor_and_shift([&gamma, &beta, &beta, &gamma], 1e-3)?;
            x[0].mul(&factor)?.add(&x[1])?.add(&shift)
        });
        for groups in [1, 2, 4] {
            let group_norm = move |x: &[Tensor]| group_norm(&x[0], &x[1], &x[2], groups, 1e-2);
            cases.add(format!("group_norm {groups} of {dims:?}"), &inputs, group_norm);
        }
        for eps in [L2Eps::Add(1e-10), L2Eps::Add(2.0), L2Eps::Max(1e-12), L2Eps::Max(6.5)] {
            cases.add(format!("l2_norm {eps:?} of {dims:?}"), &inputs[..2], move |x| l2_norm(&x[0], &x[1], eps));
        }
    }
}

fn maps(cases: &mut Cases) {
    for pool in POOLS {
        let x = [spaced(20, &[3, 2, 6, 7])];
        cases.add(format!("max_pool2d {pool:?}"), &x, move |x| max_pool2d(&x[0], pool));
        for include in [false, true] {
            cases.add(format!("avg_pool2d {pool:?} {include}"), &x, move |x| avg_pool2d(&x[0], pool, include));
        }
    }
    let pair = [noise(11, &[2, 6, 5, 3], -1.0, 1.0), noise(12, &[2, 6, 5, 3], -1.0, 1.0)];
    for activation in [Activation::None, Activation::Relu, Activation::Leaky(0.1)] {
        cases.add(format!("add {activation:?}"), &pair, move |x| add(&x[0], &x[1], activation));
    }
    let levels = [noise(13, &[2, 6, 5, 3], -1.0, 1.0), noise(14, &[2, 6, 1, 2], -1.0, 1.0)];
    cases.add("by_cell", &levels, |x| by_cell(x, 3));
    cases.add("cat and reshape", &pair, |x| {
        let view = x[1].narrow(1, 1, 2)?;
        reshape(&cat(&[x[0].clone(), view, x[0].clone()], 1)?, (4, 105))
    });
    let layer = [noise(15, &[5, 7], -1.0, 1.0), noise(16, &[3, 7], -1.0, 1.0), noise(17, &[3], -1.0, 1.0)];
    cases.add("linear", &layer, |x| linear(&x[0], &x[1], &x[2]));
    let x = [noise(3, &[1, 3, 5, 7], -1.0, 1.0)];
    cases.add("adaptive_avg_pool2d", &x, |x| adaptive_avg_pool2d(&x[0], (3, 2)));
    for ((h, w), size) in SIZES {
        let x = [noise(1, &[2, 2, h, w], -1.0, 1.0)];
        cases.add(format!("upsample_nearest {h}x{w}"), &x, move |x| upsample_nearest(&x[0], size));
        for align in [false, true] {
            let name = format!("upsample_bilinear {h}x{w} {align}");
            cases.add(name, &x, move |x| upsample_bilinear(&x[0], size, align));
        }
    }
    let x = [spaced(31, &[3, 2, 9, 11])];
    for aligned in [false, true] {
        for (ratio, size, scale) in [(2, (7, 7), 0.5), (0, (3, 2), 0.5), (1, (1, 4), 1.0), (3, (2, 3), 0.25)] {
            let name = format!("roi_align {ratio} {aligned}");
            cases.add(name, &x, move |x| roi_align(&x[0], &ROIS, scale, size, ratio, aligned));
        }
    }
    for size in [(7, 7), (2, 3)] {
        cases.add(format!("roi_pool {size:?}"), &x, move |x| roi_pool(&x[0], &ROIS, 0.5, size));
    }
}

fn losses(cases: &mut Cases) {
    let logits = [noise(1, &[5, 4], -3.0, 3.0)];
    cases.add("cross_entropy", &logits, |x| cross_entropy(&x[0], &[2, 0, -100, 3, 1], -100));
    let hard = ((0..20).map(|i| (i % 3 == 0) as u8 as f32).collect(), vec![5, 4]);
    for target in [hard, noise(8, &[5, 4], 0.0, 1.0)] {
        let target = tensor(&target);
        let on = move |x: &[Tensor]| target.to_device(x[0].device());
        let t = on.clone();
        cases.add("bce_with_logits", &logits, move |x| bce_with_logits(&x[0], &t(x)?));
        for (alpha, gamma) in [(0.25, 2.0), (0.6, 1.0), (-1.0, 1.5)] {
            let t = on.clone();
            cases.add(format!("focal {alpha} {gamma}"), &logits, move |x| sigmoid_focal(&x[0], &t(x)?, alpha, gamma));
        }
        for beta in [0.0, 1.0 / 9.0, 1.0] {
            let t = on.clone();
            cases.add(format!("smooth_l1 {beta}"), &logits, move |x| smooth_l1(&x[0], &t(x)?, beta));
        }
    }
    let boxes = ([1.0, 2.0, 7.0, 9.0, 3.0, 3.0, 3.0, 3.0, 5.0, 5.0, 1.0, 2.0, 0.0, 0.0, 2.0, 3.0].to_vec(), vec![4, 4]);
    let targets = [
        BBox::new(2.0, 1.0, 8.0, 6.0),
        BBox::new(3.0, 3.0, 3.0, 3.0),
        BBox::new(1.0, 1.0, 4.0, 4.0),
        BBox::new(50.0, 40.0, 55.0, 49.0),
    ];
    for kind in [IouLoss::Iou, IouLoss::Linear, IouLoss::Giou, IouLoss::Diou, IouLoss::Ciou] {
        let loss = move |x: &[Tensor]| box_iou_loss(&x[0], &targets, kind, 1e-7);
        cases.add(format!("box_iou_loss {kind:?}"), std::slice::from_ref(&boxes), loss);
    }
    let rows = [noise(1, &[6, 3], -1.0, 1.0)];
    cases.add("select_rows", &rows, |x| select_rows(&x[0].sqr()?, &[5, 0, 5, 5, 2]));
    cases.add("weighted_sum", &rows, |x| weighted_sum(&x[0], (0..18).map(|i| i as f32 * 0.1 - 0.5).collect()));
}

fn convolutions(cases: &mut Cases) {
    // batch, groups, (ins, outs) of a group, input, kernel, stride, padding, dilation
    for (n, groups, (ins, outs), (h, w), (kh, kw), stride, padding, dilation) in [
        (1, 1, (3, 8), (9, 11), (3, 3), (1, 1), (1, 1), (1, 1)),
        (3, 1, (5, 6), (10, 12), (2, 2), (2, 2), (0, 0), (1, 1)),
        (1, 1, (6, 10), (19, 19), (3, 3), (1, 1), (6, 6), (6, 6)),
        (3, 1, (6, 10), (9, 17), (5, 5), (1, 2), (2, 1), (2, 2)),
        (3, 4, (2, 9), (8, 5), (3, 3), (2, 2), (1, 1), (1, 1)),
        (1, 6, (1, 1), (9, 11), (3, 3), (1, 1), (1, 1), (1, 1)),
        (3, 5, (1, 2), (10, 7), (3, 3), (2, 2), (1, 1), (1, 1)),
        (1, 1, (16, 23), (15, 14), (1, 1), (2, 2), (0, 0), (1, 1)),
        (2, 1, (32, 24), (30, 27), (3, 3), (1, 1), (1, 1), (1, 1)),
        (2, 1, (8, 16), (9, 12), (3, 3), (2, 1), (2, 2), (2, 2)),
        (3, 1, (24, 8), (1, 5), (1, 3), (1, 2), (0, 1), (1, 1)),
    ] {
        let spec = ConvSpec { stride, padding, dilation, groups, activation: Activation::None };
        let all = [
            noise(1, &[n, groups * ins, h, w], -1.0, 1.0),
            noise(2, &[groups * outs, ins, kh, kw], -1.0, 1.0),
            noise(3, &[groups * outs], -1.0, 1.0),
            noise(4, &[groups * outs], 0.5, 1.5),
        ];
        let name = format!("of {n}x{groups}x{ins}x{h}x{w} with {outs}x{kh}x{kw} {spec:?}");
        cases.add(format!("conv2d {name}"), &all[..2], move |x| conv2d(&x[0], &x[1], None, spec, None));
        // A sum that lies between two numbers of the type may become either; TF32's factors may also be cut off.
        for (precision, tolerance) in [(Precision::Tf32, 4e-3), (Precision::F16, 2e-3), (Precision::Bf16, 2e-2)] {
            cases.add(format!("conv2d in {precision} {name}"), &all[..3], move |x| {
                precision.within(|| conv2d(&x[0], &x[1], Some(&x[2]), spec, Some((&Arc::default(), 1))))
            });
            cases.allow(tolerance);
        }
        for activation in [Activation::None, Activation::Relu, Activation::Leaky(0.1)] {
            let spec = spec.activation(activation);
            cases.add(format!("conv2d {activation:?} {name}"), &all[..3], move |x| {
                conv2d(&x[0], &x[1], Some(&x[2]), spec, None)
            });
            cases.add(format!("conv2d_norm_train {activation:?} {name}"), &all, move |x| {
                Ok(conv2d_norm_train(&x[0], &x[1], (&x[3], &x[2]), 1e-2, spec, None)?.0)
            });
        }
    }
    for (kernel, stride, padding, extra, groups, batch) in TRANSPOSED {
        let inputs = [
            noise(1, &[batch, 4, 3, 5], -1.0, 1.0),
            noise(2, &[4, 3, kernel.0, kernel.1], -1.0, 1.0),
            noise(3, &[3 * groups], -1.0, 1.0),
        ];
        cases.add(format!("conv_transpose2d {kernel:?} {stride}"), &inputs, move |x| {
            conv_transpose2d(&x[0], &x[1], Some(&x[2]), stride, padding, extra, groups)
        });
    }
}

/// A list in main memory as a result that hangs on `x`.
fn listed(x: &Tensor, list: Vec<f32>) -> Result<Tensor> {
    let nothing = x.flatten_all()?.narrow(0, 0, 1)?.affine(0.0, 0.0)?;
    Tensor::from_vec(list.clone(), list.len(), x.device())?.broadcast_add(&nothing)
}

/// Places and values in one list.
fn flat(pairs: impl IntoIterator<Item = (f32, f32)>) -> Vec<f32> {
    pairs.into_iter().flat_map(|(place, value)| [place, value]).collect()
}

fn choices(cases: &mut Cases) {
    // Values with ties: a list of 6,000, whose places need two bytes.
    let many: [Input; 1] = [(noise(1, &[6000], -9.0, 9.0).0.into_iter().map(f32::round).collect(), vec![6000])];
    cases.add("fetch", &many, |x| listed(&x[0], fetch(&x[0].reshape((60, 100))?.t()?.narrow(0, 7, 9)?)?));
    cases.add("fetch_rows", &many, |x| listed(&x[0], fetch_rows(&x[0].reshape((60, 100))?, &[59, 0, 59])?));
    for (bound, first) in [(-5.0, 0), (3.0, 2), (8.0, 0)] {
        cases.add(format!("above {bound}"), &many, move |x| {
            let found = above(&x[0].reshape((1500, 4))?, bound, first)?;
            listed(&x[0], flat(found.into_iter().map(|(place, value)| (place as f32, value))))
        });
    }
    for cap in [None, Some(99)] {
        cases.add(format!("hard_negatives {cap:?}"), &many, move |x| {
            let positive: Vec<bool> = (0..6000).map(|i| i % 37 == 0).collect();
            let mined = hard_negatives(&x[0], 3, &positive, |row| row % 5 != 0, 3.0, cap)?.concat();
            listed(&x[0], mined.into_iter().map(|anchor| anchor as f32).collect())
        });
    }
    cases.add("fill_rows and sum_by", &many, |x| {
        let weights = Tensor::zeros((1500, 4), DType::F32, x[0].device())?;
        fill_rows(&weights, &[1499, 3, 700], 0.25)?;
        sum_by(&x[0], &weights)
    });
}

fn proposals(cases: &mut Cases) {
    // Boxes of 10 to 30 pixels on 70, some of which the codes make negative or move out; logits with ties and none.
    let (anchors, images) = (2000, 2);
    let mut logits = noise(5, &[images, anchors], -3.0, 3.0);
    logits.0.iter_mut().for_each(|logit| *logit = (*logit * 200.0).round() / 200.0);
    (logits.0[17], logits.0[18], logits.0[19]) = (f32::NAN, f32::INFINITY, f32::NEG_INFINITY);
    let codes = noise(6, &[images, anchors, 4], -0.4, 0.4);
    let places = noise(7, &[anchors, 4], 10.0, 30.0);
    let inputs = [logits, codes, places];
    for (per_run, total, nms, min_size) in
        [(700, 300, 0.7, 0.0), (9000, 9000, 0.0, 12.0), (50, 10, 0.5, 1e-3), (1, 9, 0.5, 0.0)]
    {
        cases.add(format!("propose {per_run} {total} {nms}"), &inputs, move |x| {
            let of = |row: &[f32]| BBox::from_cxcywh(3.0 * row[0] - 20.0, 3.0 * row[1] - 20.0, row[2], row[3]);
            let boxes: Vec<BBox> = fetch(&x[2])?.chunks_exact(4).map(of).collect();
            let runs = [0..1500, 1500..1500, 1500..1900, 1900..2000];
            let rule = ProposalRule { runs: &runs, per_run, total, min_size, nms };
            let found = propose((&x[0], &x[1]), &boxes, &[(70.0, 60.0), (50.0, 70.0)], &rule)?;
            let mut values = Vec::new();
            for (image, proposal) in found.iter().enumerate().flat_map(|(i, own)| own.iter().map(move |p| (i, p))) {
                let b = proposal.bbox;
                values.extend([image as f32, proposal.anchor as f32, proposal.logit.clamp(-9.0, 9.0)]);
                values.extend([b.x0, b.y0, b.x1, b.y1]);
            }
            listed(&x[0].narrow(1, 40, 3)?, values)
        });
    }
}

/// What [`matched`] returns, by the matching of single images.
fn matched_one_by_one(
    anchors: &[BBox],
    objects: &[Vec<BBox>],
    rule: &MatchRule,
    sizes: Option<&[(f32, f32); 3]>,
) -> Vec<i32> {
    let (mut targets, mut first) = (Vec::new(), 0);
    for (image, own) in objects.iter().enumerate() {
        let crosses = |b: &BBox| {
            sizes.is_some_and(|all| b.x0 < 0.0 || b.y0 < 0.0 || b.x1 >= all[image].1 || b.y1 >= all[image].0)
        };
        // an empty box overlaps nothing
        let inside = anchors.iter().map(|b| if crosses(b) { BBox::default() } else { *b });
        let force = if rule.all_ties { Force::AllTies } else { Force::None };
        let found = match_anchors(&inside.collect::<Vec<_>>(), own, rule.positive, rule.negative, force);
        for (index, anchor) in anchors.iter().enumerate() {
            let weak = found.forced[index] && found.iou[index] < rule.least_tie;
            targets.push(match found.target[index] {
                _ if crosses(anchor) => -2,
                _ if weak && found.iou[index] < rule.negative => -1,
                _ if weak => -2,
                target if target < 0 => target,
                target => first + target,
            });
        }
        first += own.len() as i32;
    }
    targets
}

fn matches(cases: &mut Cases) {
    // Boxes on a coarse grid, so that many overlap alike.
    let values = noise(6, &[30_000, 4], 0.0, 90.0).0.into_iter().map(f32::round).collect();
    let corners: [Input; 1] = [(values, vec![30_000, 4])];
    let sizes = [(150.0, 160.0), (90.0, 90.0), (120.0, 1.0)];
    for (all_ties, least_tie, crossing) in [(false, 0.0, false), (true, 0.0, false), (true, 0.5, true)] {
        let rule = MatchRule { positive: 0.6, negative: 0.4, all_ties, least_tie };
        cases.add(format!("matched {all_ties} {least_tie} {crossing}"), &corners, move |x| {
            let of = |row: &[f32]| BBox::new(row[0], row[1], row[0] + row[2], row[1] + row[3]);
            let boxes: Vec<BBox> = fetch(&x[0])?.chunks_exact(4).map(of).collect();
            let (objects, anchors) = boxes.split_at(12);
            let objects = [objects.to_vec(), Vec::new(), objects[3..].to_vec()];
            let targets = if x[0].device().is_cpu() {
                matched_one_by_one(anchors, &objects, &rule, crossing.then_some(&sizes))
            } else {
                let sides: Vec<f32> = anchors.iter().flat_map(|b| [b.x0, b.y0, b.x1, b.y1]).collect();
                let anchors = Tensor::from_vec(sides, (anchors.len(), 4), x[0].device())?;
                let with_classes = objects.map(|own| own.into_iter().map(|bbox| (bbox, 0)).collect());
                let objects = Objects::new(&anchors, &with_classes)?;
                {
                    let sizes = Tensor::new(&sizes.map(|(height, width)| [height, width]), x[0].device())?;
                    matched(&anchors, &objects, &rule, crossing.then_some(&sizes))?.to_vec1()?
                }
            };
            listed(&x[0], targets.into_iter().map(|target| target as f32).collect())
        });
    }
    cases.add("best_overlaps", &corners, |x| {
        let rows = fetch(&x[0])?;
        let of = |row: &[f32]| BBox::new(row[0], row[1], row[0] + row[2], row[1] + row[3]);
        let own: Vec<(BBox, u32)> = rows.chunks_exact(4).take(7).map(|row| (of(row), 0)).collect();
        let sums = Tensor::cat(&[x[0].narrow(1, 0, 2)?, (x[0].narrow(1, 0, 2)? + x[0].narrow(1, 2, 2)?)?], 1)?;
        best_overlaps(&sums, &[own[..4].to_vec(), Vec::new(), own])
    });
}

fn pictures(cases: &mut Cases) {
    let bytes = [noise(7, &[23, 37, 3], 0.0, 256.0)];
    for fit in [
        Fit::Stretch { width: 30, height: 31 },
        Fit::ShortestEdge { short: 40, long: 60, divisor: 32 },
        Fit::ShortestEdgeAntialias { short: 9, long: 17, divisor: 4 },
        Fit::Letterbox { width: 48, height: 40, fill: 127.5 },
    ] {
        let order = ChannelOrder::Bgr;
        let preprocess = Preprocess { fit, order, mean: [103.5, 116.3, 123.7], std: [57.4, 57.1, 58.4] };
        cases.add(format!("picture to input by {fit:?}"), &bytes, move |x| {
            let rgb = fetch(&x[0])?.into_iter().map(|value| value as u8).collect();
            let picture = Picture::from_rgb(37, 23, rgb).unwrap();
            let input = NetworkInput::new(&preprocess, &picture, x[0].device())?;
            listed(&x[0], fetch(&input.images)?)
        });
        // Products are rounded before they are added on both.
        cases.allow(1e-6);
    }
}

fn padded(cases: &mut Cases) {
    let mut images = noise(9, &[4, 3, 37, 50], -1.0, 1.0);
    // 30 × 50, 37 × 1, nothing, and one pixel in one plane
    let keeps = |image: usize, plane: usize, y: usize, x: usize| match image {
        0 => y < 30,
        1 => x < 1,
        2 => false,
        _ => (plane, y, x) == (1, 20, 33),
    };
    for (i, value) in images.0.iter_mut().enumerate() {
        let kept = keeps(i / 5550, i / 1850 % 3, i / 50 % 37, i % 50);
        *value = if kept { *value } else { 0.0 };
    }
    cases.add("extents", &[images], |x| {
        let sizes = if x[0].device().is_cpu() {
            vec![30.0, 50.0, 37.0, 1.0, 37.0, 50.0, 21.0, 34.0]
        } else {
            fetch(&extents(&x[0])?)?
        };
        listed(&x[0], sizes)
    });
}

/// What changes tensors in place shows in a product with the first input.
fn updates(cases: &mut Cases) {
    let inputs: Vec<Input> = (1..4).map(|seed| noise(seed, &[7, 5], 0.1, 1.0)).collect();
    // Several tensors at once, one of them a part of a larger one.
    cases.add("blend", &inputs[..2], |x| {
        let [d, e] = [0, 1].map(|i| x[i].detach().copy());
        let (d, e, part) = (d?, e?.narrow(0, 2, 4)?, x[0].detach().narrow(0, 3, 4)?);
        blend_all(&[(&d, &x[1].detach(), (0.9, 0.5)), (&e, &part, (0.25, 2.0))])?;
        x[0].mul(&d)?.narrow(0, 0, 4)?.add(&e)
    });
    cases.add("velocity", &inputs, |x| {
        let d = x[0].detach().copy()?;
        velocity_all(&[([&d, &x[1].detach(), &x[2].detach()], (0.9, 0.5, 0.1))])?;
        x[0].mul(&d)
    });
    cases.add("adamw", &inputs, |x| {
        let [p, first, second] = [0, 1, 2].map(|i| x[i].detach().copy());
        let (p, first, second) = (p?, first?, second?);
        let (parameter, gradient, moments) = (&p, &x[1].detach(), (&first, &second));
        let adam = Adam { parameter, gradient, moments, rate: 0.1, decay: 0.5, scale: 1.0, step: 3 };
        adamw_all(&[adam], (0.9, 0.99))?;
        x[0].mul(&p)?.add(&first)?.add(&second)
    });
    cases.add("squared_norm", &inputs[..1], |x| x[0].affine(squared_norm(&x[0])?, 0.0));
}

/// The result, and the gradients of Σ rᵢ yᵢ (fixed pseudo-random r), in main memory.
fn run(case: &Case, device: &Device) -> Result<Vec<Vec<f32>>> {
    let vars: Vec<Var> =
        case.inputs.iter().map(|input| Var::from_tensor(&tensor(input).to_device(device)?)).collect::<Result<_>>()?;
    let arguments: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let mut tape = Tape::default();
    let y = tape.record(|| (case.forward)(&arguments))?;
    let probe = tensor(&noise(77, y.dims(), -1.0, 1.0)).to_device(device)?;
    let gradients = tape.backward(&y.mul(&probe)?.sum_all()?)?;
    let of_inputs = arguments.iter().map(|argument| gradients.get(argument).map(values).unwrap_or_default());
    Ok(std::iter::once(values(&y)).chain(of_inputs).collect())
}

/// Why two results differ, if they do.
fn complaint(found: &[Vec<f32>], expected: &[Vec<f32>], tolerance: f32) -> Option<String> {
    for (part, (found, expected)) in found.iter().zip(expected).enumerate() {
        let largest = expected.iter().fold(1.0f32, |m, v| m.max(v.abs()));
        if found.len() != expected.len() {
            return Some(format!("part {part} has {} values, not {}", found.len(), expected.len()));
        }
        let far = |(a, b): (&f32, &f32)| {
            let error = (a - b).abs();
            error.is_nan() || error > tolerance * largest
        };
        if let Some(at) = found.iter().zip(expected).position(far) {
            return Some(format!("value {at} of part {part} is {}, not {}", found[at], expected[at]));
        }
    }
    None
}

#[test]
fn operations_on_a_gpu_equal_those_on_the_cpu() {
    let mut cases = Cases::default();
    for fill in [activations, norms, maps, losses, choices, proposals, matches, convolutions, pictures, padded, updates]
    {
        fill(&mut cases);
    }
    let device = DeviceChoice::Cuda(0).open();
    if let Err(reason) = &device {
        assert!(std::env::var_os("EMULATED_GPUS").is_none(), "{reason}");
        println!("skipped: {} operations on a CUDA device ({reason})", cases.0.len());
    }
    let mut failures: Vec<String> = Vec::new();
    for case in &cases.0 {
        let expected = run(case, &Device::Cpu).unwrap();
        let finite = expected.iter().flatten().all(|v| v.is_finite());
        assert!(finite && !expected[0].is_empty(), "{} on the CPU: {expected:?}", case.name);
        let Ok(device) = &device else { continue };
        match run(case, device) {
            Ok(found) => {
                let why = complaint(&found, &expected, case.tolerance);
                failures.extend(why.map(|why| format!("{}: {why}", case.name)));
            }
            Err(error) => failures.push(format!("{}: {error}", case.name)),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn samples_on_a_gpu_follow_the_rule_and_every_row_is_as_likely() {
    let device = match DeviceChoice::Cuda(0).open() {
        Ok(device) => device,
        Err(reason) => {
            assert!(std::env::var_os("EMULATED_GPUS").is_none(), "{reason}");
            return println!("skipped: samples on a CUDA device ({reason})");
        }
    };
    let answers = tensor(&noise(3, &[2, 300], -1.0, 1.0)).to_device(&device).unwrap();
    let key = Key::new(&answers).unwrap();
    let sampled = |targets: &[i32], share: Share, salt: u64| -> (Vec<i32>, Vec<i32>) {
        let targets = Tensor::from_slice(targets, targets.len(), &device).unwrap();
        let [learnt, sizes] = drawn(&targets, 2, share, &Draw { key: &key, salt }).unwrap();
        (learnt.to_vec1().unwrap(), sizes.to_vec1().unwrap())
    };
    // (positives, negatives, most, share) of the first image; the second has none
    for (positives, negatives, most, share, expected) in [
        (100, 400, 64, 0.5, (32, 32)),
        (5, 400, 64, 0.5, (5, 59)),
        (300, 20, 64, 0.5, (32, 20)),
        (5, 6, 64, 0.5, (5, 6)),
        (9, 9, 4, f32::NAN, (0, 4)),
        (9, 9, usize::MAX, 1.0, (9, 9)),
        (9, 9, 0, 0.5, (0, 0)),
    ] {
        let mut targets: Vec<i32> = vec![-2; 2000];
        let kinds = std::iter::repeat_n(7, positives).chain(std::iter::repeat_n(-1, negatives));
        for (i, kind) in kinds.enumerate() {
            targets[(i * 617) % 1000] = kind;
        }
        let (learnt, sizes) = sampled(&targets, Share { most, positive: share }, 1);
        let count = |kind: i32| learnt.iter().filter(|&&own| own == kind).count();
        assert_eq!((count(7), count(-1)), expected, "{positives} {negatives} {most} {share}");
        assert!(learnt.iter().zip(&targets).all(|(own, known)| own == known || *own == -2));
        assert_eq!(sizes, [(expected.0 + expected.1) as i32, 0]);
    }
    let (targets, share) = (vec![-1; 40], Share { most: 5, positive: 0.5 });
    let draw = |salt: u64| sampled(&targets, share, salt).0;
    assert!(draw(8) == draw(8) && draw(8) != draw(9));
    let mut counts = vec![0; 40];
    for salt in 0..600u64 {
        for (count, own) in counts.iter_mut().zip(draw(salt.wrapping_mul(0x9E37_79B9_7F4A_7C15))) {
            *count += i32::from(own == -1);
        }
    }
    // expectation 150, deviation √(600 · ¼ · ¾) = 10.6
    assert!(counts.iter().all(|count| (105..195).contains(count)), "{counts:?}");
}
