//! The multibox head of SSD, RefineDet and M2Det: its convolutions, its targets, its loss and its record.
//!
//! Liu et al., "SSD: Single Shot MultiBox Detector" (ECCV 2016), §2.2. Rows run over level, cell (row-major), anchor
//! within the cell; background is class 0.

use super::terms::{at_rows, recorded};
use super::{Losses, Outputs};
use crate::geometry::coder::BoxCoder;
use crate::geometry::matching::{Force, Matches, match_anchors};
use crate::geometry::priors::PriorSpec;
use crate::geometry::{BBox, Object, labelled};
use crate::nn::{Conv, Init, Pass, Scope};
use crate::ops::conv::ConvSpec;
use crate::ops::gather::select_rows;
use crate::ops::losses::{cross_entropy, smooth_l1, sum_by, weighted_sum};
use crate::ops::maps::{by_cell, reshape};
use crate::ops::multibox::{LossSettings, PriorRule, losses};
use crate::ops::select::{fill_rows, hard_negatives};
use crate::trace::{AnchorLevel, Anchors, Assignment, Formula, LossPart, Rule, Sample, Terms};
use candle_core::{DType, Device, Result, Tensor};

/// Box codes and class logits from 3×3 convolutions on every level.
#[derive(Debug)]
pub struct MultiboxHead {
    localization: Vec<Conv>,
    classification: Vec<Conv>,
    classes: usize,
}

impl MultiboxHead {
    /// `names` are the scopes of localisation and classification; `levels` lists channels and anchors per cell.
    ///
    /// # Errors
    /// A name that is taken, or a device that cannot hold the weights.
    pub fn new(
        scope: &Scope,
        names: (&str, &str),
        levels: &[(usize, usize)],
        classes: usize,
        init: Init,
    ) -> Result<Self> {
        let branch = |name: &str, values: usize| -> Result<Vec<Conv>> {
            let scope = scope.enter(name);
            let mut convs = Vec::with_capacity(levels.len());
            for (level, &(channels, anchors)) in levels.iter().enumerate() {
                let shape = (channels, anchors * values, 3);
                convs.push(Conv::new(&scope.enter(level), shape, ConvSpec::new().padding(1), init)?);
            }
            Ok(convs)
        };
        Ok(Self { localization: branch(names.0, 4)?, classification: branch(names.1, classes)?, classes })
    }

    /// One map a level → box codes `[N, P, 4]` and logits `[N, P, classes]`.
    ///
    /// # Errors
    /// Another number of maps than levels, or maps of other channels.
    pub fn forward(&self, sources: &[Tensor], pass: &Pass) -> Result<(Tensor, Tensor)> {
        if sources.len() != self.localization.len() {
            candle_core::bail!("a head of {} levels for {} maps", self.localization.len(), sources.len());
        }
        let branch = |convs: &[Conv], values: usize| -> Result<Tensor> {
            let maps = convs.iter().zip(sources).map(|(conv, source)| conv.forward(source, pass));
            by_cell(&maps.collect::<Result<Vec<Tensor>>>()?, values)
        };
        Ok((branch(&self.localization, 4)?, branch(&self.classification, self.classes)?))
    }
}

/// The priors as the references return them: centre and size as parts of the input, `[P, 4]`.
///
/// # Errors
/// A device that cannot hold them.
pub fn normalised_priors(priors: &[BBox], (height, width): (usize, usize), device: &Device) -> Result<Tensor> {
    let (height, width) = (height.max(1) as f32, width.max(1) as f32);
    let mut values = Vec::with_capacity(priors.len() * 4);
    for prior in priors {
        let [cx, cy, w, h] = prior.to_cxcywh();
        values.extend([cx / width, cy / height, w / width, h / height]);
    }
    Tensor::from_vec(values, (priors.len(), 4), device)
}

/// The corners of boxes, `[P, 4]`.
///
/// # Errors
/// A device that cannot hold them.
pub fn corners(boxes: &[BBox], device: &Device) -> Result<Tensor> {
    Tensor::from_slice(bytemuck::cast_slice::<BBox, f32>(boxes), (boxes.len(), 4), device)
}

/// The priors by level, for the trace.
pub fn anchors(spec: &PriorSpec, maps: &[(usize, usize)], boxes: Vec<BBox>) -> Anchors {
    let mut start = 0;
    let mut levels = Vec::with_capacity(maps.len());
    for (level, (&(rows, columns), &stride)) in maps.iter().zip(&spec.steps).enumerate() {
        let per_cell = spec.per_cell(level);
        let len = rows * columns * per_cell;
        levels.push(AnchorLevel { start, len, rows, columns, per_cell, stride });
        start += len;
    }
    Anchors { boxes, levels }
}

/// What every anchor of a batch should learn. Rows are image by image: `image · anchors + anchor`.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    /// Class of the cross-entropy, background 0.
    pub labels: Vec<i64>,
    /// Rows that learn a box and always enter the cross-entropy.
    pub positive: Vec<bool>,
    /// Rows that may be mined as negatives; positive rows never are.
    pub eligible: Vec<bool>,
    /// Box codes of the positive rows, four each, in the order of rows.
    pub codes: Vec<f32>,
}

impl Targets {
    /// Adds one row. `code` is `Some` for a positive.
    pub fn push(&mut self, label: i64, code: Option<[f32; 4]>, eligible: bool) {
        self.labels.push(label);
        self.positive.push(code.is_some());
        self.eligible.push(eligible && code.is_none());
        self.codes.extend(code.into_iter().flatten());
    }
}

/// SSD's losses, which are M2Det's too: match priors, mine hard negatives, cross-entropy and smooth-L1. Both parts are
/// divided by the positives of the batch, at least 1 (torchvision's `SSD.compute_loss`). `priors` come with the IoU from
/// which on they are positive; `answers` are the part and the output of box codes and of class logits.
///
/// # Errors
/// Outputs of another number of priors, or of images than object lists.
pub fn prior_losses(
    (priors, threshold): (&[BBox], f32),
    outputs: &Outputs,
    answers: [(&str, &str); 2],
    objects: &[Vec<Object>],
    settings: &LossSettings,
    pass: &Pass,
) -> Result<Losses> {
    let [(of_boxes, boxes), (of_logits, logits)] = answers;
    let (boxes, logits) = (outputs.get(boxes)?, outputs.get(logits)?);
    let (images, anchors, _) = logits.dims3()?;
    if images != objects.len() || anchors != priors.len() {
        candle_core::bail!(
            "{} object lists and {} priors for head outputs of shape {:?}",
            objects.len(),
            priors.len(),
            logits.dims()
        );
    }
    let named = |[of_box, of_class]: [Tensor; 2]| Losses {
        parts: vec![(of_boxes.into(), of_box), (of_logits.into(), of_class)],
    };
    let mut on_device = None;
    if logits.device().is_cuda() {
        let rule = PriorRule {
            priors: &corners(priors, logits.device())?,
            positive_iou: threshold,
            log_epsilon: 0.0,
            binary: false,
            filter: None,
        };
        on_device = Some(named(losses((boxes, logits), &labelled(objects), &rule, settings)?));
    }
    // A GPU has the losses; only the record asks for more.
    if let (Some(losses), false) = (&on_device, pass.is_probed()) {
        return Ok(losses.clone());
    }
    let (targets, matches) = pass.stage("assign", || Ok(prior_targets(priors, threshold, objects)))?;
    let loss = multibox_loss(boxes, logits, &targets, settings, pass)?;
    if pass.is_probed() {
        for (image, matches) in matches.iter().enumerate() {
            let parts = Vec::from(loss.parts(image, (of_boxes, of_logits))?);
            pass.trace(image, |t| {
                t.assignment = Some(assignment(matches, &[]));
                t.sampling = loss.samples(image, &targets);
                t.losses = parts;
            });
        }
    }
    Ok(on_device.unwrap_or_else(|| named([loss.localization, loss.classification])))
}

/// Positive from the IoU threshold on; the best prior of each object is forced, a later object winning a shared one.
fn prior_targets(priors: &[BBox], threshold: f32, objects: &[Vec<Object>]) -> (Targets, Vec<Matches>) {
    let (mut targets, mut all) = (Targets::default(), Vec::with_capacity(objects.len()));
    for objects in objects {
        let boxes: Vec<BBox> = objects.iter().map(|o| o.bbox).collect();
        let matches = match_anchors(priors, &boxes, threshold, threshold, Force::BestAnchor);
        for (&prior, &target) in priors.iter().zip(&matches.target) {
            let object = usize::try_from(target).ok().and_then(|t| objects.get(t));
            let label = object.map_or(0, |o| i64::from(o.class) + 1);
            targets.push(label, object.map(|o| BoxCoder::SSD.encode(prior, o.bbox)), true);
        }
        all.push(matches);
    }
    (targets, all)
}

/// The two parts of one head's loss, and what its record needs.
#[derive(Debug)]
pub struct HeadLoss {
    pub localization: Tensor,
    pub classification: Tensor,
    /// Positives of the batch, at least 1: both parts are divided by it.
    pub normalizer: f32,
    /// Anchors of one image.
    anchors: usize,
    /// Cross-entropy of every row; empty without a probe.
    entropy: Vec<f32>,
    /// Smooth-L1 of every row, summed over the four numbers; empty without a probe.
    distance: Vec<f32>,
    /// Mined negatives of each image, hardest first.
    negatives: Vec<Vec<u32>>,
    /// What every row's losses were computed from; empty without a probe.
    codes: Terms,
    pub logits: Terms,
}

/// Smooth-L1 over the positives of `boxes` `[N, P, 4]` and cross-entropy of `logits` `[N, P, C]` over positives and
/// mined negatives, both divided by the number of positives of the batch, at least 1.
///
/// # Errors
/// Targets of another number of rows than the head's outputs.
pub fn multibox_loss(
    boxes: &Tensor,
    logits: &Tensor,
    targets: &Targets,
    settings: &LossSettings,
    pass: &Pass,
) -> Result<HeadLoss> {
    let (images, anchors, classes) = logits.dims3()?;
    let count = images * anchors;
    let positive_rows: Vec<u32> =
        targets.positive.iter().enumerate().filter(|(_, positive)| **positive).map(|(row, _)| row as u32).collect();
    let lengths = [targets.labels.len(), targets.positive.len(), targets.eligible.len()];
    if lengths != [count; 3] || targets.codes.len() != 4 * positive_rows.len() || boxes.dims() != [images, anchors, 4] {
        candle_core::bail!(
            "targets of {lengths:?} rows and {} codes for boxes {:?} and logits {:?}",
            targets.codes.len(),
            boxes.dims(),
            logits.dims()
        );
    }
    let normalizer = positive_rows.len().max(1) as f32;

    let entropy = cross_entropy(&reshape(logits, (count, classes))?, &targets.labels, -100)?;
    let values: Vec<f32> = if pass.is_probed() { entropy.detach().to_vec1()? } else { Vec::new() };
    let (eligible, most) = (|row: usize| targets.eligible[row], Some(anchors.saturating_sub(1)));
    let negatives = pass.stage("sample", || {
        hard_negatives(&entropy, images, &targets.positive, eligible, settings.negative_ratio, most)
    })?;
    let mut learnt = positive_rows.clone();
    for (image, mined) in negatives.iter().enumerate() {
        learnt.extend(mined.iter().map(|anchor| (image * anchors) as u32 + anchor));
    }
    let weights = Tensor::zeros(count, DType::F32, logits.device())?;
    fill_rows(&weights, &learnt, 1.0 / normalizer)?;
    let classification = sum_by(&entropy, &weights)?;

    let mut distances = if pass.is_probed() { vec![0.0; count] } else { Vec::new() };
    let localization = if positive_rows.is_empty() {
        // weights of 0 keep the graph whole and give exactly 0, whatever the outputs are
        sum_by(boxes, &boxes.zeros_like()?)?
    } else {
        let target = Tensor::from_slice(&targets.codes, (positive_rows.len(), 4), boxes.device())?;
        let predicted = select_rows(&reshape(boxes, (count, 4))?, &positive_rows)?;
        let distance = smooth_l1(&predicted, &target, settings.smooth_l1_beta)?;
        if pass.is_probed() {
            let values: Vec<f32> = distance.detach().flatten_all()?.to_vec1()?;
            for (&row, values) in positive_rows.iter().zip(values.chunks_exact(4)) {
                distances[row as usize] = values.iter().sum();
            }
        }
        weighted_sum(&distance, vec![settings.localization_weight / normalizer; 4 * positive_rows.len()])?
    };
    let (mut codes, mut columns) = (Terms::default(), Terms::default());
    if pass.is_probed() {
        let formula = Formula::SmoothL1 { beta: settings.smooth_l1_beta };
        codes = recorded(formula, boxes, at_rows(count, 4, &positive_rows, &targets.codes))?;
        let labels = targets.labels.iter().map(|&label| label as f32).collect();
        columns = Terms { first_class: Some(1), ..recorded(Formula::Softmax, logits, labels)? };
    }
    Ok(HeadLoss {
        localization,
        classification,
        normalizer,
        anchors,
        entropy: values,
        distance: distances,
        negatives,
        codes,
        logits: columns,
    })
}

impl HeadLoss {
    /// The two named parts as image `image` of the trace shows them.
    ///
    /// # Errors
    /// A loss that cannot be read back.
    pub fn parts(&self, image: usize, names: (&str, &str)) -> Result<[LossPart; 2]> {
        let range = image * self.anchors..(image + 1) * self.anchors;
        let part = |name: &str, value: &Tensor, rows: &[f32], terms: &Terms| -> Result<LossPart> {
            Ok(LossPart {
                name: name.into(),
                value: value.to_vec0::<f32>()?,
                normalizer: self.normalizer,
                per_anchor: rows.get(range.clone()).unwrap_or_default().to_vec(),
                terms: terms.rows(range.clone()),
            })
        };
        Ok([
            part(names.0, &self.localization, &self.distance, &self.codes)?,
            part(names.1, &self.classification, &self.entropy, &self.logits)?,
        ])
    }

    /// Who entered the loss of image `image`: positives in order, then negatives, hardest first.
    pub fn samples(&self, image: usize, targets: &Targets) -> Vec<Sample> {
        let start = image * self.anchors;
        let sample = |positive: bool, rank: usize, anchor: usize| {
            let loss = self.entropy.get(start + anchor).copied().unwrap_or_default();
            Sample { anchor: anchor as u32, positive, rank: rank as u32, loss }
        };
        let positive = targets.positive.get(start..start + self.anchors).unwrap_or_default();
        let positives = positive.iter().enumerate().filter(|(_, p)| **p).map(|(anchor, _)| anchor);
        let mut samples: Vec<Sample> = positives.enumerate().map(|(rank, anchor)| sample(true, rank, anchor)).collect();
        let negatives = self.negatives.get(image).map(Vec::as_slice).unwrap_or_default();
        samples.extend(negatives.iter().enumerate().map(|(rank, &anchor)| sample(false, rank, anchor as usize)));
        samples
    }
}

/// The record of one image's matching. Where `filtered` (empty for nowhere) says so, the anchor learns nothing as
/// matched: an earlier stage dropped it.
pub fn assignment(matches: &Matches, filtered: &[bool]) -> Assignment {
    let mut target = matches.target.clone();
    let mut rule = Vec::with_capacity(target.len());
    for (anchor, (target, &forced)) in target.iter_mut().zip(&matches.forced).enumerate() {
        let dropped = filtered.get(anchor).copied().unwrap_or(false);
        rule.push(match (dropped, *target) {
            (true, _) => Rule::Filtered,
            (false, 0..) if forced => Rule::BestForObject,
            (false, 0..) => Rule::Threshold,
            (false, -1) => Rule::Background,
            (false, _) => Rule::Ignored,
        });
        if dropped {
            *target = -2;
        }
    }
    Assignment { target, rule, iou: matches.iou.clone(), best_object: matches.best_object.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Mode, Params};
    use candle_core::Var;

    const SETTINGS: LossSettings = LossSettings { negative_ratio: 3.0, smooth_l1_beta: 1.0, localization_weight: 1.0 };

    /// Two images of three anchors and two classes.
    fn outputs() -> Result<(Var, Var)> {
        let device = &Device::Cpu;
        let mut boxes = vec![0.0_f32; 24];
        boxes[4] = 2.5;
        boxes[5] = 0.5;
        let boxes = Var::from_tensor(&Tensor::from_vec(boxes, (2, 3, 4), device)?)?;
        let logits: Vec<f32> = vec![0.0, 0.0, 0.0, 0.0, 3.0, 0.0, 0.0, 0.0, 0.0, 9.0, 0.0, 0.0];
        Ok((boxes, Var::from_tensor(&Tensor::from_vec(logits, (2, 3, 2), device)?)?))
    }

    #[test]
    fn classes_count_from_1_and_codes_belong_to_positives() {
        let square = |x: f32| BBox::new(x, 0.0, x + 10.0, 10.0);
        let priors = [square(0.0), square(20.0), square(22.0)];
        let object = Object { bbox: square(20.0), class: 1, ..Object::default() };
        let (targets, matches) = prior_targets(&priors, 0.5, &[vec![object], Vec::new()]);
        // IoU of boxes 2 apart: 8 / 12
        assert_eq!(targets.labels, [0, 2, 2, 0, 0, 0]);
        assert_eq!(targets.positive, [false, true, true, false, false, false]);
        assert_eq!(targets.codes[..4], [0.0; 4]);
        // (25 − 27) / 10 / 0.1
        assert!((targets.codes[4] + 2.0).abs() < 1e-5);
        assert_eq!(matches[1].best_object, [-1, -1, -1]);
    }

    #[test]
    fn parts_equal_the_sums_by_hand() -> Result<()> {
        let (boxes, logits) = outputs()?;
        let mut targets = Targets::default();
        targets.push(0, None, false);
        targets.push(1, Some([0.0; 4]), true);
        targets.push(0, None, true);
        for _ in 0..3 {
            targets.push(0, None, true);
        }
        let pass = Pass::probed(Mode::Frozen, 2);
        let loss = multibox_loss(boxes.as_tensor(), logits.as_tensor(), &targets, &SETTINGS, &pass)?;
        // smooth-L1 of 2.5 and 0.5: 2 + 0.125
        assert!((loss.localization.to_vec0::<f32>()? - 2.125).abs() < 1e-6);
        // anchor 0 is not eligible, so of the first image the positive (ln 2) and anchor 2 (ln(1 + e^−3)) enter;
        // the second image has no positive, hence no negative
        let expected = 2.0_f32.ln() + (-3.0_f32).exp().ln_1p();
        assert!((loss.classification.to_vec0::<f32>()? - expected).abs() < 1e-6);
        assert_eq!(loss.negatives, [vec![2], vec![]]);
        let samples = loss.samples(0, &targets);
        assert_eq!(samples.iter().map(|s| (s.anchor, s.positive)).collect::<Vec<_>>(), [(1, true), (2, false)]);
        assert!(loss.samples(1, &targets).is_empty());
        let [localization, entropy] = loss.parts(0, ("loc", "conf"))?;
        assert_eq!((localization.name.as_str(), localization.per_anchor), ("loc", vec![0.0, 2.125, 0.0]));
        assert_eq!((entropy.per_anchor.len(), entropy.normalizer), (3, 1.0));
        // what the second image's second anchor answered, and what the positive has to learn
        let [_, others] = loss.parts(1, ("loc", "conf"))?;
        assert_eq!((others.terms.answers(1), others.terms.wanted(1)), (Some(&[0.0, 9.0][..]), Some(Some(0))));
        assert_eq!((entropy.terms.wanted(1), entropy.terms.first_class), (Some(Some(1)), Some(1)));
        Ok(())
    }

    #[test]
    fn without_positives_both_parts_are_zero_and_gradients_exist() -> Result<()> {
        let (boxes, logits) = outputs()?;
        let mut targets = Targets::default();
        for _ in 0..6 {
            targets.push(0, None, true);
        }
        let pass = Pass::new(Mode::Train);
        let loss = multibox_loss(boxes.as_tensor(), logits.as_tensor(), &targets, &SETTINGS, &pass)?;
        let total = loss.localization.add(&loss.classification)?;
        assert_eq!(total.to_vec0::<f32>()?, 0.0);
        let gradients = total.backward()?;
        for var in [&boxes, &logits] {
            let gradient = gradients.get(var.as_tensor()).expect("a gradient").flatten_all()?.to_vec1::<f32>()?;
            assert!(gradient.iter().all(|g| *g == 0.0));
        }
        assert!(multibox_loss(boxes.as_tensor(), logits.as_tensor(), &Targets::default(), &SETTINGS, &pass).is_err());
        Ok(())
    }

    #[test]
    fn a_head_gives_rows_of_all_levels() -> Result<()> {
        let params = Params::new(&Device::Cpu, 3);
        let head = MultiboxHead::new(&params.root(), ("loc", "conf"), &[(2, 3), (5, 1)], 4, Init::XavierUniform)?;
        assert_eq!(params.get("conf.1.weight").map(|p| p.var.dims().to_vec()), Some(vec![4, 5, 3, 3]));
        let maps = [
            Tensor::ones((2, 2, 3, 2), candle_core::DType::F32, &Device::Cpu)?,
            Tensor::ones((2, 5, 1, 1), candle_core::DType::F32, &Device::Cpu)?,
        ];
        let (boxes, logits) = head.forward(&maps, &Pass::new(Mode::Infer))?;
        assert_eq!(boxes.dims(), [2, 19, 4]);
        assert_eq!(logits.dims(), [2, 19, 4]);
        assert!(head.forward(&maps[..1], &Pass::new(Mode::Infer)).is_err());
        Ok(())
    }

    #[test]
    fn filtered_anchors_are_marked_and_learn_nothing() {
        let matches = Matches {
            target: vec![0, 0, -1, -1, -2],
            iou: vec![0.6, 0.2, 0.1, 0.1, 0.45],
            best_object: vec![0; 5],
            forced: vec![false, true, false, false, false],
        };
        let record = assignment(&matches, &[false, false, false, true, false]);
        assert_eq!(record.target, [0, 0, -1, -2, -2]);
        let expected = [Rule::Threshold, Rule::BestForObject, Rule::Background, Rule::Filtered, Rule::Ignored];
        assert_eq!(record.rule, expected);
        assert_eq!(assignment(&matches, &[]).rule[3], Rule::Background);
    }
}
