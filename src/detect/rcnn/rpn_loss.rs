//! The RPN's targets and losses: match anchors, sample, cross-entropy of objectness and smooth L1 of the boxes.
//!
//! Both are divided by the number of sampled anchors of the batch (torchvision's `RegionProposalNetwork`).

use super::config::RpnConfig;
use super::picture::Sizes;
use super::sample::{OnDevice, Sampler};
use crate::detect::multibox::assignment;
use crate::detect::retinanet::loss::nothing;
use crate::detect::terms::{at_rows, recorded};
use crate::geometry::coder::BoxCoder;
use crate::geometry::matching::{Force, Matches, match_anchors};
use crate::geometry::nms::order_by_score;
use crate::geometry::sampling::sample_balanced;
use crate::geometry::{BBox, Object};
use crate::nn::Pass;
use crate::ops::anchors::{AnchorTargets, Divisor};
use crate::ops::gather::select_rows;
use crate::ops::losses::{bce_with_logits, smooth_l1, sum_by};
use crate::ops::maps::reshape;
use crate::ops::matching::{MatchRule, matched};
use crate::ops::sampling::{Share, drawn};
use crate::trace::{Anchors, Formula, LossPart, Sample, Terms};
use candle_core::{DType, Result, Tensor};

/// Names of the two parts, torchvision's.
const OBJECTNESS: &str = "loss_objectness";
const REGRESSION: &str = "loss_rpn_box_reg";

/// Sampled anchors of one image, each list in rising order.
struct Sampled {
    positives: Vec<u32>,
    negatives: Vec<u32>,
}

impl Sampled {
    /// From what each anchor learns.
    fn of_device(learnt: &[i32]) -> Self {
        let those = |wanted: fn(i32) -> bool| {
            learnt.iter().zip(0..).filter(|&(&target, _)| wanted(target)).map(|(_, anchor)| anchor).collect()
        };
        Self { positives: those(|target| target >= 0), negatives: those(|target| target == -1) }
    }
}

/// Both parts from objectness `[N, anchors]` and box codes `[N, anchors, 4]`. `sizes` are the pictures' heights and
/// widths within the input; `corners` `[anchors, 4]` are the anchors on a CUDA device.
pub(super) fn losses(
    config: &RpnConfig,
    (anchors, corners): (&Anchors, Option<&Tensor>),
    (logits, deltas): (&Tensor, &Tensor),
    objects: &[Vec<Object>],
    sizes: &Sizes,
    sampler: &mut Sampler,
    pass: &Pass,
) -> Result<Vec<(String, Tensor)>> {
    let (images, count) = logits.dims2()?;
    if images != objects.len() || images != sizes.tensor.dim(0)? || count != anchors.boxes.len() {
        candle_core::bail!(
            "{} object lists and {} anchors for objectness of shape {:?}",
            objects.len(),
            anchors.boxes.len(),
            logits.dims()
        );
    }
    let on_device = match (&*sampler, corners) {
        (Sampler::Cuda(there), Some(corners)) => {
            Some(losses_there(config, corners, (logits, deltas), &sizes.tensor, there)?)
        }
        (Sampler::Cuda(_), None) => candle_core::bail!("the anchors are not where the samples are drawn"),
        (Sampler::Cpu(_), _) => None,
    };
    // A GPU has the losses; only the record asks for more.
    if let (Some((parts, _)), false) = (&on_device, pass.is_probed()) {
        return Ok(parts.clone());
    }
    let matches = pass.stage("assign anchors", || {
        let of_image = |(objects, &size): (&Vec<Object>, &(f32, f32))| {
            let boxes: Vec<BBox> = objects.iter().map(|o| o.bbox).collect();
            assign(config, &anchors.boxes, &boxes, size)
        };
        Ok(objects.iter().zip(sizes.values()?).map(of_image).collect::<Vec<Matches>>())
    })?;
    let sampled: Vec<Sampled> = match (sampler, &on_device) {
        (Sampler::Cpu(rng), _) => {
            let mut of_image = |matches: &Matches| {
                let (most, share) = (config.anchor_samples, config.anchor_positive_share);
                let (positives, negatives) = sample_balanced(&matches.target, most, share, rng);
                Sampled { positives, negatives }
            };
            matches.iter().map(&mut of_image).collect()
        }
        (Sampler::Cuda(_), on_device) => {
            let learnt: Vec<i32> = on_device.as_ref().map_or_else(|| Ok(Vec::new()), |(_, learnt)| learnt.to_vec1())?;
            learnt.chunks_exact(count.max(1)).map(Sampled::of_device).collect()
        }
    };

    let mut rows = Vec::new();
    let mut wanted = Vec::new();
    let mut positive_rows = Vec::new();
    let mut codes = Vec::new();
    for (image, of_image) in sampled.iter().enumerate() {
        let start = (image * count) as u32;
        for &anchor in &of_image.positives {
            let target = usize::try_from(matches[image].target[anchor as usize]).ok();
            if let Some(object) = target.and_then(|target| objects[image].get(target)) {
                positive_rows.push(start + anchor);
                codes.extend(BoxCoder::RETINA.encode(anchors.boxes[anchor as usize], object.bbox));
            }
        }
        rows.extend(of_image.positives.iter().chain(&of_image.negatives).map(|anchor| start + anchor));
        wanted.extend(std::iter::repeat_n(1.0f32, of_image.positives.len()));
        wanted.extend(std::iter::repeat_n(0.0f32, of_image.negatives.len()));
    }
    let normalizer = rows.len().max(1) as f32;

    let (objectness, entropies) = if rows.is_empty() {
        (nothing(logits)?, Vec::new())
    } else {
        let chosen = select_rows(&reshape(logits, (images * count, 1))?, &rows)?;
        let entropy = bce_with_logits(&chosen, &Tensor::from_slice(&wanted, (rows.len(), 1), logits.device())?)?;
        let values: Vec<f32> = read_when(pass.is_probed(), &entropy)?;
        (equally_weighted(&entropy, 1.0 / normalizer)?, values)
    };
    let (regression, distances) = if positive_rows.is_empty() {
        (nothing(deltas)?, Vec::new())
    } else {
        let places = positive_rows.len();
        let chosen = select_rows(&reshape(deltas, (images * count, 4))?, &positive_rows)?;
        let target = Tensor::from_slice(&codes, (places, 4), logits.device())?;
        let distance = smooth_l1(&chosen, &target, config.anchor_smooth_l1_beta)?;
        let values: Vec<f32> = read_when(pass.is_probed(), &distance)?;
        (equally_weighted(&distance, 1.0 / normalizer)?, values)
    };

    if pass.is_probed() {
        let values = (objectness.to_vec0::<f32>()?, regression.to_vec0::<f32>()?);
        let total = images * count;
        let wanted = recorded(Formula::Sigmoid, &logits.reshape((total, 1))?, at_rows(total, 1, &rows, &wanted))?;
        let formula = Formula::SmoothL1 { beta: config.anchor_smooth_l1_beta };
        let codes = recorded(formula, deltas, at_rows(total, 4, &positive_rows, &codes))?;
        for (image, of_image) in sampled.iter().enumerate() {
            let within = |row: u32| (row as usize).checked_sub(image * count).filter(|&anchor| anchor < count);
            let mut entropy_of = vec![0.0; count];
            for (&row, &entropy) in rows.iter().zip(&entropies) {
                if let Some(anchor) = within(row) {
                    entropy_of[anchor] = entropy;
                }
            }
            let mut distance_of = vec![0.0; count];
            for (&row, distance) in positive_rows.iter().zip(distances.chunks_exact(4)) {
                if let Some(anchor) = within(row) {
                    distance_of[anchor] = distance.iter().sum();
                }
            }
            pass.trace(image, |t| {
                t.sampling = samples(of_image, &entropy_of);
                t.assignment = Some(assignment(&matches[image], &[]));
                let part = |name: &str, value, per_anchor, terms: &Terms| LossPart {
                    name: name.into(),
                    value,
                    normalizer,
                    per_anchor,
                    terms: terms.rows(image * count..(image + 1) * count),
                };
                t.losses = vec![
                    part(OBJECTNESS, values.0, entropy_of, &wanted),
                    part(REGRESSION, values.1, distance_of, &codes),
                ];
            });
        }
    }
    let parts = named(objectness, regression);
    Ok(on_device.map_or(parts, |(parts, _)| parts))
}

fn named(objectness: Tensor, regression: Tensor) -> Vec<(String, Tensor)> {
    vec![(OBJECTNESS.into(), objectness), (REGRESSION.into(), regression)]
}

/// [`losses`] on a CUDA device; and what each anchor learns, i32 `[N · anchors]`, −2 for those that were not drawn.
fn losses_there(
    config: &RpnConfig,
    anchors: &Tensor,
    (logits, deltas): (&Tensor, &Tensor),
    sizes: &Tensor,
    there: &OnDevice,
) -> Result<(Vec<(String, Tensor)>, Tensor)> {
    let (images, count) = logits.dims2()?;
    let rule = MatchRule {
        positive: config.anchor_positive,
        negative: config.anchor_negative,
        all_ties: config.forced_minimum <= 1.0,
        least_tie: config.forced_minimum,
    };
    let targets = matched(anchors, &there.objects, &rule, config.ignore_crossing.then_some(sizes))?;
    let share = Share { most: config.anchor_samples, positive: config.anchor_positive_share };
    let [targets, numbers] = drawn(&targets, images, share, &there.draw(0))?;
    let learnt = AnchorTargets::new(anchors, &there.objects, &targets, Some(&numbers), Divisor::Batch)?;
    let [wanted, weights] = learnt.of_classes(1, None)?;
    let objectness = sum_by(&bce_with_logits(&reshape(logits, (images * count, 1))?, &wanted)?, &weights)?;
    let [codes, weights] = learnt.of_codes(BoxCoder::RETINA.std, 1.0)?;
    let distance = smooth_l1(&reshape(deltas, (images * count, 4))?, &codes, config.anchor_smooth_l1_beta)?;
    Ok((named(objectness, sum_by(&distance, &weights)?), targets))
}

/// The sum of all elements times one weight.
pub(super) fn equally_weighted(values: &Tensor, weight: f32) -> Result<Tensor> {
    sum_by(values, &Tensor::full(weight, values.shape(), values.device())?)
}

/// A loss of 0 without a graph, on the device of `like`.
pub(super) fn zero(like: &Tensor) -> Result<Tensor> {
    Tensor::zeros((), DType::F32, like.device())
}

/// All elements, or nothing when nobody wants them.
pub(super) fn read_when(wanted: bool, values: &Tensor) -> Result<Vec<f32>> {
    if wanted { values.detach().flatten_all()?.to_vec1() } else { Ok(Vec::new()) }
}

/// Thresholds, then each object's best anchors. With `ignore_crossing`, anchors that leave the picture take no part.
fn assign(config: &RpnConfig, anchors: &[BBox], objects: &[BBox], (height, width): (f32, f32)) -> Matches {
    let force = if config.forced_minimum <= 1.0 { Force::AllTies } else { Force::None };
    let (positive, negative) = (config.anchor_positive, config.anchor_negative);
    let mut matches = if config.ignore_crossing {
        let is_inside = |b: &BBox| b.x0 >= 0.0 && b.y0 >= 0.0 && b.x1 < width && b.y1 < height;
        let inside: Vec<usize> = (0..anchors.len()).filter(|&index| is_inside(&anchors[index])).collect();
        let boxes: Vec<BBox> = inside.iter().map(|&index| anchors[index]).collect();
        spread(match_anchors(&boxes, objects, positive, negative, force), &inside, anchors.len())
    } else {
        match_anchors(anchors, objects, positive, negative, force)
    };
    for index in 0..anchors.len() {
        if matches.forced[index] && matches.iou[index] < config.forced_minimum {
            matches.target[index] = if matches.iou[index] < negative { -1 } else { -2 };
            matches.forced[index] = false;
        }
    }
    matches
}

/// Matches of the anchors `inside` among `count`, of which the others are ignored.
fn spread(found: Matches, inside: &[usize], count: usize) -> Matches {
    let mut matches = Matches {
        target: vec![-2; count],
        iou: vec![0.0; count],
        best_object: vec![-1; count],
        forced: vec![false; count],
    };
    for (from, &to) in inside.iter().enumerate() {
        matches.target[to] = found.target[from];
        matches.iou[to] = found.iou[from];
        matches.best_object[to] = found.best_object[from];
        matches.forced[to] = found.forced[from];
    }
    matches
}

/// Positives in their order, then negatives with their rank by loss.
fn samples(sampled: &Sampled, entropy: &[f32]) -> Vec<Sample> {
    let mut all = Vec::with_capacity(sampled.positives.len() + sampled.negatives.len());
    for (rank, &anchor) in sampled.positives.iter().enumerate() {
        all.push(Sample { anchor, positive: true, rank: rank as u32, loss: entropy[anchor as usize] });
    }
    let losses: Vec<f32> = sampled.negatives.iter().map(|&anchor| entropy[anchor as usize]).collect();
    for (rank, place) in order_by_score(&losses).into_iter().enumerate() {
        let (anchor, loss) = (sampled.negatives[place as usize], losses[place as usize]);
        all.push(Sample { anchor, positive: false, rank: rank as u32, loss });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::config::RcnnConfig;
    use super::*;
    use crate::nn::Mode;
    use crate::random::Random;
    use crate::trace::Rule;
    use candle_core::Device;

    fn square(x: f32, side: f32) -> BBox {
        BBox::new(x, 0.0, x + side, side)
    }

    fn of((height, width): (f32, f32)) -> Result<Sizes> {
        Ok(Sizes::new(Tensor::new(&[[height, width]], &Device::Cpu)?))
    }

    fn config() -> RpnConfig {
        RcnnConfig::faster_nano(&["a".to_string()]).rpn
    }

    #[test]
    fn a_weak_best_anchor_counts_from_the_minimum_on_and_crossing_anchors_never() {
        // object [0, 10]: IoU 1/3 with the first (its best), 0 with the second; the third leaves the picture
        let anchors = [BBox::new(0.0, 0.0, 10.0, 30.0), square(40.0, 10.0), BBox::new(-2.0, 0.0, 8.0, 10.0)];
        let assigned = |config: &RpnConfig| assign(config, &anchors, &[square(0.0, 10.0)], (50.0, 60.0));
        let crossing = RpnConfig { ignore_crossing: true, ..config() };
        let found = assigned(&crossing);
        assert_eq!((found.target.as_slice(), found.forced[0]), (&[0, -1, -2][..], true));
        let strict = RpnConfig { forced_minimum: 0.4, ..crossing.clone() };
        assert_eq!(assigned(&strict).target, [-2, -1, -2]);
        let never = RpnConfig { forced_minimum: 2.0, ..crossing };
        assert_eq!(assigned(&never).target, [-2, -1, -2]);
        // all anchors: the third is the best with 80 / 120, so the first is only ignored
        assert_eq!(assigned(&config()).target, [-2, -1, 0]);
    }

    #[test]
    fn losses_by_hand_and_none_without_objects() -> Result<()> {
        let boxes = vec![square(0.0, 10.0), square(40.0, 10.0)];
        let anchors = Anchors { boxes, levels: Vec::new() };
        let logits = Tensor::from_slice(&[0.0f32, 0.0], (1, 2), &Device::Cpu)?;
        let deltas = Tensor::from_slice(&[1.0f32, 0.0, 0.0, 0.0, 9.0, 9.0, 9.0, 9.0], (1, 2, 4), &Device::Cpu)?;
        let object = Object { bbox: square(0.0, 10.0), ..Object::default() };
        let value = |objects: Vec<Object>, pass: &Pass| -> Result<Vec<f32>> {
            let (mut sampler, answers) = (Sampler::Cpu(Random::new(1)), (&logits, &deltas));
            let parts =
                losses(&config(), (&anchors, None), answers, &[objects], &of((50.0, 60.0))?, &mut sampler, pass)?;
            parts.iter().map(|(_, value)| value.to_vec0::<f32>()).collect()
        };
        let pass = Pass::probed(Mode::Infer, 1);
        let with = value(vec![object], &pass)?;
        // two anchors of entropy ln 2 over two; smooth L1 of 1 is 1 − β/2, over two
        assert!((with[0] - std::f32::consts::LN_2).abs() < 1e-6);
        assert!((with[1] - (1.0 - 1.0 / 18.0) / 2.0).abs() < 1e-6);
        let trace = pass.into_traces().remove(0);
        assert_eq!(trace.sampling.iter().map(|s| (s.anchor, s.positive)).collect::<Vec<_>>(), [(0, true), (1, false)]);
        assert_eq!(trace.assignment.map(|a| a.rule), Some(vec![Rule::Threshold, Rule::Background]));
        assert_eq!((trace.losses[1].per_anchor.len(), trace.losses[1].normalizer), (2, 2.0));
        let without = value(Vec::new(), &Pass::new(Mode::Infer))?;
        assert!((without[0] - std::f32::consts::LN_2).abs() < 1e-6 && without[1] == 0.0);
        Ok(())
    }

    #[test]
    fn the_sampler_repeats_with_its_seed() -> Result<()> {
        let boxes: Vec<BBox> = (0..600).map(|i| square(i as f32, 10.0)).collect();
        let anchors = Anchors { boxes, levels: Vec::new() };
        let values: Vec<f32> = (0..600).map(|i| (i as f32 * 0.37).sin()).collect();
        let logits = Tensor::from_vec(values, (1, 600), &Device::Cpu)?;
        let deltas = Tensor::zeros((1, 600, 4), DType::F32, &Device::Cpu)?;
        let object = Object { bbox: square(50.0, 10.0), ..Object::default() };
        let drawn = |seed: u64| -> Result<Vec<u32>> {
            let pass = Pass::probed(Mode::Infer, 1);
            let (objects, mut sampler) = ([vec![object.clone()]], Sampler::Cpu(Random::new(seed)));
            let answers = (&logits, &deltas);
            losses(&config(), (&anchors, None), answers, &objects, &of((50.0, 700.0))?, &mut sampler, &pass)?;
            Ok(pass.into_traces().remove(0).sampling.iter().map(|s| s.anchor).collect())
        };
        assert_eq!(drawn(5)?.len(), 128);
        assert_eq!(drawn(5)?, drawn(5)?);
        assert_ne!(drawn(5)?, drawn(6)?);
        Ok(())
    }
}
