//! RetinaNet's targets and losses: match anchors by IoU, focal loss on all but the ignored, box loss on the positives.

use super::{ClassLayout, Normalizer, RegressionLoss, RetinanetConfig};
use crate::detect::multibox::{assignment, corners};
use crate::detect::terms::{at_rows, recorded, recorded_overlap, wanted_columns};
use crate::detect::{Losses, Outputs};
use crate::geometry::coder::BoxCoder;
use crate::geometry::matching::{Force, Matches, match_anchors};
use crate::geometry::{BBox, Object, labelled};
use crate::nn::Pass;
use crate::ops::anchors::{AnchorTargets, Divisor};
use crate::ops::gather::{select_rows, top_k};
use crate::ops::losses::{IouLoss, box_iou_loss, box_iou_loss_of, sigmoid_focal, smooth_l1, sum_by, weighted_sum};
use crate::ops::maps::reshape;
use crate::ops::matching::{MatchRule, Objects, matched};
use crate::ops::select::fill_rows;
use crate::trace::{Formula, LossPart, Sample, Terms};
use candle_core::{D, DType, Device, Result, Tensor};

/// Background anchors that a trace lists: focal loss counts them all, these most.
const TRACED_NEGATIVES: usize = 256;

/// torchvision's ε in the GIoU loss.
const GIOU_EPSILON: f32 = 1e-7;

/// Focal loss (Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, §3) and L1 or smooth-L1 of the deltas, or
/// GIoU of the boxes, summed and divided as the configuration says (torchvision's `RetinaNetHead.compute_loss`).
pub(super) fn losses(
    config: &RetinanetConfig,
    anchors: &[BBox],
    outputs: &Outputs,
    objects: &[Vec<Object>],
    pass: &Pass,
) -> Result<Losses> {
    let (deltas, logits) = (outputs.get("head.bbox_regression")?, outputs.get("head.cls_logits")?);
    let (images, count, columns) = logits.dims3()?;
    if images != objects.len() || count != anchors.len() || columns != config.logits() {
        candle_core::bail!(
            "{} object lists and {} anchors for logits of shape {:?}",
            objects.len(),
            anchors.len(),
            logits.dims()
        );
    }
    let on_device =
        if logits.device().is_cuda() { Some(losses_there(config, anchors, (deltas, logits), objects)?) } else { None };
    // A GPU has the losses; only the record asks for more.
    if let (Some(losses), false) = (&on_device, pass.is_probed()) {
        return Ok(losses.clone());
    }
    let targets = pass.stage("assign", || Ok(assign(config, anchors, objects)))?;
    let positives: Vec<usize> =
        targets.iter().map(|matches| matches.target.iter().filter(|&&t| t >= 0).count()).collect();
    let divisors = config.normalizer.divisors(&positives);

    let coder = config.coder();
    // Elements of the logits that should be 1, and their rows that do not count.
    let (mut wanted, mut ignored): (Vec<u32>, Vec<u32>) = (Vec::new(), Vec::new());
    let mut positive_rows: Vec<u32> = Vec::new();
    let (mut positive_anchors, mut boxes): (Vec<BBox>, Vec<BBox>) = (Vec::new(), Vec::new());
    let mut box_weights: Vec<f32> = Vec::new();
    for (image, matches) in targets.iter().enumerate() {
        let share = 1.0 / divisors[image];
        for (anchor, &target) in matches.target.iter().enumerate() {
            let row = image * count + anchor;
            if target < -1 {
                ignored.push(row as u32);
            }
            let Some(object) = usize::try_from(target).ok().and_then(|t| objects[image].get(t)) else {
                continue;
            };
            wanted.push((row * columns + logit_of(config.class_layout, object.class, columns)?) as u32);
            positive_rows.push(row as u32);
            positive_anchors.push(anchors[anchor]);
            boxes.push(object.bbox);
            box_weights.push(config.box_weight * share);
        }
    }

    let rows = images * count;
    let ones = ones_at(&wanted, (rows, columns), logits.device())?;
    let focal = sigmoid_focal(&reshape(logits, (rows, columns))?, &ones, config.focal_alpha, config.focal_gamma)?;
    let mut weights = Vec::with_capacity(images);
    for &divisor in &divisors {
        weights.push(Tensor::full(1.0 / divisor, (count, columns), logits.device())?);
    }
    let weights = match weights.as_slice() {
        [single] => single.clone(),
        _ => Tensor::cat(&weights, 0)?,
    };
    fill_rows(&weights, &ignored, 0.0)?;
    let classification = sum_by(&focal, &weights)?;
    let codes = || -> Vec<f32> {
        positive_anchors.iter().zip(&boxes).flat_map(|(&anchor, &b)| coder.encode(anchor, b)).collect()
    };
    let (regression, distances) = if positive_rows.is_empty() {
        (nothing(deltas)?, Vec::new())
    } else {
        let predicted = select_rows(&reshape(deltas, (rows, 4))?, &positive_rows)?;
        let distance = match config.regression_loss {
            RegressionLoss::SmoothL1 => {
                let target = Tensor::from_vec(codes(), (positive_rows.len(), 4), deltas.device())?;
                smooth_l1(&predicted, &target, config.smooth_l1_beta)?
            }
            RegressionLoss::Giou => {
                let decoded = decoded(&predicted, &positive_anchors, &coder)?;
                box_iou_loss(&decoded, &boxes, IouLoss::Giou, GIOU_EPSILON)?.unsqueeze(1)?
            }
        };
        let values = if pass.is_probed() { row_sums(&distance)? } else { Vec::new() };
        let columns = distance.dim(1)?;
        let weights = box_weights.iter().flat_map(|&weight| std::iter::repeat_n(weight, columns)).collect();
        (weighted_sum(&distance, weights)?, values)
    };

    if pass.is_probed() {
        let values = (classification.to_vec0::<f32>()?, regression.to_vec0::<f32>()?);
        let (mut focal, mut columns_wanted) = (row_sums(&focal)?, wanted_columns(&wanted, rows, columns));
        for row in ignored.into_iter().map(|row| row as usize) {
            (focal[row], columns_wanted[row]) = (0.0, f32::NAN);
        }
        let distances = scattered(rows, &positive_rows, &distances);
        let formula = Formula::Focal { alpha: config.focal_alpha, gamma: config.focal_gamma };
        let wanted = recorded(formula, logits, columns_wanted)?;
        let wanted = Terms { first_class: Some(config.class_layout.first()), ..wanted };
        let regressed = match config.regression_loss {
            RegressionLoss::SmoothL1 => {
                let formula = Formula::SmoothL1 { beta: config.smooth_l1_beta };
                recorded(formula, deltas, at_rows(rows, 4, &positive_rows, &codes()))?
            }
            RegressionLoss::Giou => {
                let corners = if positive_rows.is_empty() {
                    None
                } else {
                    let predicted = select_rows(&reshape(deltas, (rows, 4))?, &positive_rows)?;
                    Some(decoded(&predicted, &positive_anchors, &coder)?)
                };
                recorded_overlap((IouLoss::Giou, 0.0), deltas, &positive_rows, corners.as_ref(), &boxes)?
            }
        };
        for (image, matches) in targets.iter().enumerate() {
            let own = image * count..(image + 1) * count;
            let (focal, distances) = (focal[own.clone()].to_vec(), distances[own.clone()].to_vec());
            pass.trace(image, |t| {
                t.sampling = samples(&matches.target, &focal);
                t.all_background = true;
                t.assignment = Some(assignment(matches, &[]));
                let part = |name: &str, value: f32, per_anchor: Vec<f32>, terms: &Terms| LossPart {
                    name: name.into(),
                    value,
                    normalizer: divisors[image],
                    per_anchor,
                    terms: terms.rows(own.clone()),
                };
                t.losses = vec![
                    part("classification", values.0, focal, &wanted),
                    part("bbox_regression", values.1, distances, &regressed),
                ];
            });
        }
    }
    Ok(on_device.unwrap_or_else(|| named(classification, regression)))
}

fn named(classification: Tensor, regression: Tensor) -> Losses {
    Losses { parts: vec![("classification".into(), classification), ("bbox_regression".into(), regression)] }
}

/// [`losses`] on a CUDA device, from which nothing comes to main memory.
fn losses_there(
    config: &RetinanetConfig,
    anchors: &[BBox],
    (deltas, logits): (&Tensor, &Tensor),
    objects: &[Vec<Object>],
) -> Result<Losses> {
    let (images, count, columns) = logits.dims3()?;
    let rows = images * count;
    let (there, objects) = (corners(anchors, logits.device())?, Objects::new(logits, &labelled(objects))?);
    let rule = MatchRule {
        positive: config.positive_threshold,
        negative: config.negative_threshold,
        all_ties: config.low_quality_matches,
        least_tie: 0.0,
    };
    let divisor = match config.normalizer {
        Normalizer::PerImage => Divisor::PerImage,
        Normalizer::Batch => Divisor::Batch,
        Normalizer::BatchOfImages => Divisor::BatchOfImages,
    };
    let targets = matched(&there, &objects, &rule, None)?;
    let learnt = AnchorTargets::new(&there, &objects, &targets, None, divisor)?;
    let [ones, weights] = learnt.of_classes(columns, Some(config.class_layout.first()))?;
    let focal = sigmoid_focal(&reshape(logits, (rows, columns))?, &ones, config.focal_alpha, config.focal_gamma)?;
    let (coder, weight) = (config.coder(), config.box_weight);
    let regression = match config.regression_loss {
        RegressionLoss::SmoothL1 => {
            let [codes, weights] = learnt.of_codes(coder.std, weight)?;
            sum_by(&smooth_l1(&reshape(deltas, (rows, 4))?, &codes, config.smooth_l1_beta)?, &weights)?
        }
        RegressionLoss::Giou => {
            let [boxes, weights] = learnt.of_boxes(weight)?;
            let decoded = decoded(deltas, anchors, &coder)?.reshape((rows, 4))?;
            sum_by(&box_iou_loss_of(&decoded, &boxes, IouLoss::Giou, GIOU_EPSILON)?, &weights)?
        }
    };
    Ok(named(sum_by(&focal, &weights)?, regression))
}

/// The corners of the boxes that codes `[…, M, 4]` mean for their anchors; gradients pass, but not through a side at its
/// limit.
fn decoded(codes: &Tensor, anchors: &[BBox], coder: &BoxCoder) -> Result<Tensor> {
    let pairs = |of: fn([f32; 4]) -> [f32; 2]| -> Result<Tensor> {
        let values: Vec<f32> = anchors.iter().flat_map(|anchor| of(anchor.to_cxcywh())).collect();
        Tensor::from_vec(values, (anchors.len(), 2), codes.device())
    };
    let (centers, sides) = (pairs(|[cx, cy, _, _]| [cx, cy])?, pairs(|[_, _, w, h]| [w, h])?);
    let scaled = codes.broadcast_mul(&Tensor::new(&coder.std, codes.device())?)?;
    let (shift, log) = (scaled.narrow(D::Minus1, 0, 2)?, scaled.narrow(D::Minus1, 2, 2)?);
    let log = match coder.max_log {
        Some(limit) => log.minimum(limit)?,
        None => log,
    };
    let center = shift.broadcast_mul(&sides)?.broadcast_add(&centers)?;
    let half = log.exp()?.broadcast_mul(&sides)?.affine(0.5, 0.0)?;
    Tensor::cat(&[center.sub(&half)?, center.add(&half)?], D::Minus1)
}

/// Positive from one IoU on, background below the other, ignored between; then the low-quality matches.
fn assign(config: &RetinanetConfig, anchors: &[BBox], objects: &[Vec<Object>]) -> Vec<Matches> {
    let force = if config.low_quality_matches { Force::AllTies } else { Force::None };
    let of_image = |objects: &Vec<Object>| {
        let boxes: Vec<BBox> = objects.iter().map(|o| o.bbox).collect();
        match_anchors(anchors, &boxes, config.positive_threshold, config.negative_threshold, force)
    };
    objects.iter().map(of_image).collect()
}

/// The logit of an object's class.
///
/// # Errors
/// A class that the head has no logit for.
pub(in crate::detect) fn logit_of(layout: ClassLayout, class: u32, columns: usize) -> Result<usize> {
    let logit = class as usize + layout.first();
    if logit >= columns {
        candle_core::bail!("an object of class {class}, but there are only {} classes", columns - layout.first());
    }
    Ok(logit)
}

/// A table `[rows, columns]` of zeros with ones at these places, counted row by row.
pub(in crate::detect) fn ones_at(places: &[u32], (rows, columns): (usize, usize), device: &Device) -> Result<Tensor> {
    let table = Tensor::zeros(rows * columns, DType::F32, device)?;
    fill_rows(&table, places, 1.0)?;
    table.reshape((rows, columns))
}

/// A loss of 0 that still depends on `prediction`.
pub(in crate::detect) fn nothing(prediction: &Tensor) -> Result<Tensor> {
    sum_by(prediction, &prediction.zeros_like()?)
}

/// Sum of each row of `[M, C]`.
pub(in crate::detect) fn row_sums(values: &Tensor) -> Result<Vec<f32>> {
    values.detach().sum(D::Minus1)?.to_vec1()
}

/// `values` at their rows among `count` rows, 0 elsewhere.
pub(in crate::detect) fn scattered(count: usize, rows: &[u32], values: &[f32]) -> Vec<f32> {
    let mut all = vec![0.0f32; count];
    for (&row, &value) in rows.iter().zip(values) {
        all[row as usize] = value;
    }
    all
}

/// Every positive in its order, then the background anchors of highest loss, hardest first.
pub(in crate::detect) fn samples(target: &[i32], loss: &[f32]) -> Vec<Sample> {
    let sample = |positive: bool| {
        move |(rank, anchor): (usize, u32)| Sample { anchor, positive, rank: rank as u32, loss: loss[anchor as usize] }
    };
    let positives = target.iter().enumerate().filter(|(_, t)| **t >= 0).map(|(anchor, _)| anchor as u32);
    let positives = positives.enumerate().map(sample(true));
    let background: Vec<u32> =
        target.iter().enumerate().filter(|(_, t)| **t == -1).map(|(anchor, _)| anchor as u32).collect();
    let background_loss: Vec<f32> = background.iter().map(|&anchor| loss[anchor as usize]).collect();
    let hardest = top_k(&background_loss, TRACED_NEGATIVES).into_iter().map(|place| background[place as usize]);
    positives.chain(hardest.enumerate().map(sample(false))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::retinanet::{Normalizer, nine_anchors};
    use crate::nn::Mode;
    use crate::trace::Rule;
    use crate::trace::terms::tests::check;
    use candle_core::Var;

    fn anchors() -> Vec<BBox> {
        vec![
            BBox::new(0.0, 0.0, 10.0, 10.0),
            BBox::new(0.0, 0.0, 10.0, 9.0),
            BBox::new(0.0, 0.0, 10.0, 4.5),
            BBox::new(50.0, 50.0, 60.0, 60.0),
        ]
    }

    fn config() -> RetinanetConfig {
        let classes = vec!["a".to_string(), "b".to_string()];
        RetinanetConfig {
            coder_std: [1.0; 4],
            smooth_l1_beta: 0.0,
            normalizer: Normalizer::PerImage,
            ..nine_anchors(&classes)
        }
    }

    fn object(class: u32) -> Object {
        Object { bbox: BBox::new(0.0, 0.0, 10.0, 10.0), class, ..Object::default() }
    }

    /// Logits of 0, whose every focal loss is known: p = ½.
    fn outputs(images: usize, deltas: &[f32]) -> Result<(Outputs, Var, Var)> {
        let logits = Var::zeros((images, 4, 2), candle_core::DType::F32, &Device::Cpu)?;
        let deltas = Var::from_slice(deltas, (images, 4, 4), &Device::Cpu)?;
        let tensors = vec![
            ("head.cls_logits".to_string(), logits.as_tensor().clone()),
            ("head.bbox_regression".to_string(), deltas.as_tensor().clone()),
        ];
        Ok((Outputs { tensors, maps: vec![(1, 1)], input: (64, 64) }, logits, deltas))
    }

    fn values(losses: &Losses) -> Result<Vec<f32>> {
        losses.parts.iter().map(|(_, part)| part.to_vec0()).collect()
    }

    #[test]
    fn both_parts_by_hand() -> Result<()> {
        // image 0: IoUs with its object 1, 0.9, 0.45, 0: two positives, one ignored, one background. Image 1: nothing.
        let mut deltas = [0.0f32; 32];
        (deltas[0], deltas[5], deltas[16]) = (0.25, -0.5, 7.0);
        let (outputs, logits, _) = outputs(2, &deltas)?;
        let losses = losses(&config(), &anchors(), &outputs, &[vec![object(1)], vec![]], &Pass::new(Mode::Train))?;
        let found = values(&losses)?;
        // focal at p = ½: ln 2 / 4 times α = ¼ for the class that is there and ¾ for one that is not
        let (hit, miss) = (2f32.ln() / 16.0, 3.0 * 2f32.ln() / 16.0);
        let first = (2.0 * (hit + miss) + 2.0 * miss) / 2.0;
        let second = 4.0 * 2.0 * miss;
        assert!((found[0] - (first + second) / 2.0).abs() < 1e-5, "{found:?}");
        // codes: anchor 0 none; anchor 1 has dy = 0.5 / 9 and dh = ln(10 / 9)
        let boxes = 0.25 + (0.5 / 9.0 + 0.5) + (10f32 / 9.0).ln();
        assert!((found[1] - boxes / 2.0 / 2.0).abs() < 1e-5, "{found:?}");
        // the ignored anchor gets no gradient
        let gradients = losses.total()?.backward()?;
        let g = gradients.get(logits.as_tensor()).expect("a gradient").to_vec3::<f32>()?;
        assert_eq!(g[0][2], [0.0, 0.0]);
        assert!(g[0][0][1] < 0.0 && g[0][0][0] > 0.0 && g[0][3][1] > 0.0);
        Ok(())
    }

    #[test]
    fn the_loss_of_decoded_boxes_by_hand() -> Result<()> {
        // anchors 0 and 1 are positive for a box that is anchor 0; anchor 0 is moved half its width to the right
        let mut deltas = [0.0f32; 16];
        deltas[0] = 0.5;
        let (outputs, _, deltas) = outputs(1, &deltas)?;
        let config = RetinanetConfig { regression_loss: RegressionLoss::Giou, ..config() };
        let pass = Pass::probed(Mode::Train, 1);
        let losses = losses(&config, &anchors(), &outputs, &[vec![object(1)]], &pass)?;
        // three anchors learn a class, two of them a box; the fourth is ignored
        assert_eq!(check(&pass.into_traces()[0]), 5);
        // 10×10 boxes 5 apart: IoU 50 / 150, and the box around both has 150; 10×9 in 10×10: 0.9
        let expected = ((1.0 - 1.0 / 3.0) + (1.0 - 0.9)) / 2.0;
        assert!((values(&losses)?[1] - expected).abs() < 1e-5, "{:?}", values(&losses)?);
        let gradients = losses.parts[1].1.backward()?;
        let g = gradients.get(deltas.as_tensor()).expect("a gradient").to_vec3::<f32>()?;
        // to the left again, and a taller second box; the others learn nothing
        assert!(g[0][0][0] > 0.0 && g[0][1][3] < 0.0);
        assert!(g[0][2] == [0.0; 4] && g[0][3] == [0.0; 4]);
        Ok(())
    }

    #[test]
    fn decoding_here_is_the_coders() -> Result<()> {
        let anchors = [BBox::new(2.0, 4.0, 12.0, 24.0), BBox::new(0.0, 0.0, 8.0, 8.0)];
        let codes = [[0.3f32, -0.2, 0.5, -0.4], [1.0, 0.0, 9.0, 0.1]];
        for coder in [BoxCoder::SSD, BoxCoder::RETINA] {
            let rows = decoded(&Tensor::new(&codes, &Device::Cpu)?, &anchors, &coder)?.to_vec2::<f32>()?;
            for ((row, &anchor), code) in rows.iter().zip(&anchors).zip(codes) {
                let b = coder.decode(anchor, code);
                for (found, expected) in row.iter().zip([b.x0, b.y0, b.x1, b.y1]) {
                    assert!((found - expected).abs() < 1e-3 * (1.0 + expected.abs()), "{row:?} {b:?}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn without_objects_the_losses_are_finite_and_the_boxes_cost_nothing() -> Result<()> {
        let (outputs, _, deltas) = outputs(1, &[f32::INFINITY; 16])?;
        for normalizer in [Normalizer::PerImage, Normalizer::Batch, Normalizer::BatchOfImages] {
            let config = RetinanetConfig { normalizer, ..config() };
            let losses = losses(&config, &anchors(), &outputs, &[vec![]], &Pass::new(Mode::Train))?;
            let found = values(&losses)?;
            assert!((found[0] - 8.0 * 3.0 * 2f32.ln() / 16.0).abs() < 1e-5, "{found:?}");
            assert_eq!(found[1], 0.0);
            let gradients = losses.total()?.backward()?;
            let g = gradients.get(deltas.as_tensor()).expect("a gradient").flatten_all()?.to_vec1::<f32>()?;
            assert!(g.iter().all(|&g| g == 0.0));
        }
        Ok(())
    }

    #[test]
    fn low_quality_matches_and_the_trace_say_which_rule_decided() -> Result<()> {
        let far = Object { bbox: BBox::new(56.0, 50.0, 66.0, 60.0), ..Object::default() };
        let (outputs, _, _) = outputs(1, &[0.0; 16])?;
        for (low_quality_matches, rule) in [(true, Rule::BestForObject), (false, Rule::Background)] {
            let config = RetinanetConfig { low_quality_matches, ..config() };
            let pass = Pass::probed(Mode::Train, 1);
            losses(&config, &anchors(), &outputs, &[vec![object(0), far.clone()]], &pass)?;
            let trace = pass.into_traces().remove(0);
            let assignment = trace.assignment.unwrap_or_default();
            assert_eq!(assignment.rule, [Rule::Threshold, Rule::Threshold, Rule::Ignored, rule]);
            let positives: Vec<u32> = trace.sampling.iter().filter(|s| s.positive).map(|s| s.anchor).collect();
            assert_eq!(positives, if low_quality_matches { vec![0, 1, 3] } else { vec![0, 1] });
            for part in &trace.losses {
                // over the divisor they give the part again, so the ignored one has none
                let counted: f32 = part.per_anchor.iter().sum();
                assert!((counted / part.normalizer - part.value).abs() < 1e-5, "{}", part.name);
            }
        }
        Ok(())
    }

    #[test]
    fn the_hardest_background_is_listed_first() {
        let listed = samples(&[-1, 0, -2, -1, -1], &[0.1, 0.2, 9.0, 0.4, 0.3]);
        let listed: Vec<(u32, bool, u32)> = listed.iter().map(|s| (s.anchor, s.positive, s.rank)).collect();
        assert_eq!(listed, [(1, true, 0), (3, false, 0), (4, false, 1), (0, false, 2)]);
        let many = samples(&[-1; 1000], &[0.5; 1000]);
        assert_eq!((many.len(), many[0].anchor), (TRACED_NEGATIVES, 0));
    }

    #[test]
    fn a_class_beyond_the_head_is_an_error() -> Result<()> {
        let (outputs, _, _) = outputs(1, &[0.0; 16])?;
        let error = losses(&config(), &anchors(), &outputs, &[vec![object(2)]], &Pass::new(Mode::Train));
        assert!(error.is_err_and(|e| e.to_string().contains("class 2")));
        assert_eq!(logit_of(ClassLayout::UnusedFirst, 1, 3)?, 2);
        Ok(())
    }
}
