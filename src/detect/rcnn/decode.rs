//! Detections: proposals refined head by head, scores merged, each class suppressed, masks laid over the picture.

use super::Rcnn;
use super::box_head::Answers;
use super::cascade::proposal_record;
use super::config::{Flow, ScoreMerge};
use super::proposals::Proposals;
use super::refine::{Look, Reading};
use super::regions::{Pooled, Roi, pool};
use crate::detect::suppress::{Candidates, Limits, suppress};
use crate::geometry::{BBox, Detection};
use crate::nn::Pass;
use crate::ops::activation::softmax_last;
use candle_core::{Result, Tensor};

/// One head's look at its RoIs, those of all images in turn.
#[derive(Debug)]
pub(super) struct Step {
    /// The head's number.
    pub(super) stage: usize,
    pub(super) rois: Vec<Roi>,
    pub(super) answers: Answers,
    reading: Reading,
    /// Where the head moves each RoI as its likeliest class, and that class's probability.
    refined: Vec<BBox>,
    scores: Vec<f32>,
}

/// Runs the heads over the proposals; no step at all without a proposal.
pub(super) fn steps(
    network: &Rcnn,
    levels: &[Tensor],
    proposals: &[Proposals],
    sizes: &[(f32, f32)],
    pass: &Pass,
) -> Result<Vec<Step>> {
    let config = &network.rcnn;
    let mut rois: Vec<Roi> = Vec::new();
    for (image, of_image) in proposals.iter().enumerate() {
        rois.extend(of_image.boxes.iter().map(|&bbox| (image as u32, bbox)));
    }
    let mut steps: Vec<Step> = Vec::new();
    if rois.is_empty() {
        return Ok(steps);
    }
    let mut pooled: Option<Pooled> = None;
    for step in 0..config.steps() {
        let stage = config.head_of(step);
        let Some(head) = network.heads.get(stage) else {
            candle_core::bail!("there is no head {stage}");
        };
        let features = match pooled.take() {
            Some(kept) if config.flow == Flow::Integral => kept,
            _ => pass.stage("pool RoIs", || pool(config, levels, &rois, config.pooled))?,
        };
        let answers = pass.stage("box head", || network.ask(head, &features, pass))?;
        pooled = Some(features);
        let reading = Reading::new(&answers)?;
        let mut refined = Vec::with_capacity(rois.len());
        let mut scores = Vec::with_capacity(rois.len());
        for (row, &(image, bbox)) in rois.iter().enumerate() {
            let (class, score) = reading.best_class(config, row);
            let size = sizes.get(image as usize).copied().unwrap_or((0.0, 0.0));
            refined.push(reading.refined(config, stage, row, bbox, class, size));
            scores.push(score);
        }
        let next: Vec<Roi> = rois.iter().zip(&refined).map(|(&(image, _), &bbox)| (image, bbox)).collect();
        let looked_at = if config.flow == Flow::Integral { rois.clone() } else { std::mem::replace(&mut rois, next) };
        steps.push(Step { stage, rois: looked_at, answers, reading, refined, scores });
    }
    Ok(steps)
}

/// Probabilities `[R, classes and background]` from all steps together.
fn merged(network: &Rcnn, levels: &[Tensor], steps: &[Step], pass: &Pass) -> Result<Vec<f32>> {
    let config = &network.rcnn;
    let Some(last) = steps.last() else {
        return Ok(Vec::new());
    };
    let merge = if config.flow == Flow::Integral { ScoreMerge::Probabilities } else { config.score_merge };
    match merge {
        ScoreMerge::LastHead => Ok(last.reading.probabilities.clone()),
        ScoreMerge::Probabilities => Ok(mean(steps.iter().map(|step| step.reading.probabilities.as_slice()))),
        ScoreMerge::Logits => {
            let mut sum = last.answers.logits.zeros_like()?;
            for step in steps {
                sum = sum.add(&step.answers.logits.detach())?;
            }
            softmax_last(&sum.affine(1.0 / steps.len() as f64, 0.0)?)?.flatten_all()?.to_vec1()
        }
        ScoreMerge::LastRois => {
            let pooled = pool(config, levels, &last.rois, config.pooled)?;
            let mut readings = Vec::with_capacity(network.heads.len());
            for head in &network.heads {
                readings.push(Reading::new(&network.ask(head, &pooled, pass)?)?);
            }
            Ok(mean(readings.iter().map(|reading| reading.probabilities.as_slice())))
        }
    }
}

/// The mean of lists of one length; empty for none.
fn mean<'a>(lists: impl Iterator<Item = &'a [f32]>) -> Vec<f32> {
    let mut sum: Vec<f32> = Vec::new();
    let mut count = 0.0;
    for list in lists {
        sum.resize(list.len(), 0.0);
        for (sum, value) in sum.iter_mut().zip(list) {
            *sum += value;
        }
        count += 1.0;
    }
    for value in &mut sum {
        *value /= count;
    }
    sum
}

/// Detections of each image in input pixels, best first, without masks.
pub(super) fn detect(
    network: &Rcnn,
    levels: &[Tensor],
    proposals: &[Proposals],
    steps: &[Step],
    sizes: &[(f32, f32)],
    pass: &Pass,
) -> Result<Vec<Vec<Detection>>> {
    let config = &network.rcnn;
    let limits = Limits {
        score_threshold: config.score_threshold,
        top_k_per_class: usize::MAX,
        nms_threshold: config.nms_threshold,
        max_detections: config.max_detections,
    };
    let probabilities = pass.stage("decode", || merged(network, levels, steps, pass))?;
    // the integral loss trains the first head's regression alone
    let boxes_of = if config.flow == Flow::Integral { steps.first() } else { steps.last() };
    let mut all = Vec::with_capacity(proposals.len());
    let mut start = 0;
    for (image, of_image) in proposals.iter().enumerate() {
        let rows = start..start + of_image.boxes.len();
        start = rows.end;
        let size = sizes.get(image).copied().unwrap_or((0.0, 0.0));
        let candidates = pass.stage("decode", || {
            Ok(boxes_of.map_or_else(Candidates::new, |step| scored(network, step, &probabilities, rows, size)))
        })?;
        all.push(pass.stage("suppress", || Ok(suppress(candidates, &limits, image, pass)))?);
    }
    record(network, proposals, steps, pass);
    Ok(all)
}

/// Every class of the RoIs `rows` above the score threshold, at the box that its head regressed for it.
fn scored(
    network: &Rcnn,
    step: &Step,
    probabilities: &[f32],
    rows: std::ops::Range<usize>,
    size: (f32, f32),
) -> Candidates {
    let config = &network.rcnn;
    let first = rows.start;
    let mut candidates = Candidates::new();
    for row in rows {
        let Some(&(_, roi)) = step.rois.get(row) else {
            continue;
        };
        for class in 0..config.classes.len() {
            let place = row * config.logits() + config.column(class);
            let score = probabilities.get(place).copied().unwrap_or(0.0);
            // false for a NaN
            if score > config.score_threshold {
                let bbox = step.reading.refined(config, step.stage, row, roi, class, size);
                let shorter = bbox.width().min(bbox.height());
                if bbox.is_proper() && shorter >= config.detection_min_size {
                    let anchor = Some((row - first) as u32);
                    candidates.push(Detection { bbox, class: class as u32, score, anchor, mask: None });
                }
            }
        }
    }
    candidates
}

/// The stages of each image, in front of those that training's way through the heads may have left there.
fn record(network: &Rcnn, proposals: &[Proposals], steps: &[Step], pass: &Pass) {
    let mut start = 0;
    for (image, of_image) in proposals.iter().enumerate() {
        let rows = start..start + of_image.boxes.len();
        start = rows.end;
        pass.trace(image, |t| {
            let objects: Vec<BBox> = t.objects.iter().map(|o| o.bbox).collect();
            let mut stages = std::mem::replace(&mut t.proposals, vec![proposal_record(network, of_image, &objects)]);
            let mut heads = std::mem::take(&mut t.localisation);
            for (number, step) in steps.iter().enumerate() {
                let (Some(rois), Some(outputs), Some(scores)) =
                    (step.rois.get(rows.clone()), step.refined.get(rows.clone()), step.scores.get(rows.clone()))
                else {
                    continue;
                };
                let inputs: Vec<BBox> = rois.iter().map(|roi| roi.1).collect();
                let parent = (0..outputs.len() as u32).collect();
                let (place, scores) = ((number, step.stage), scores.to_vec());
                Look { place, inputs: &inputs, outputs, scores, parent }.record(&network.rcnn, &objects, t);
            }
            for name in stages.iter_mut().map(|s| &mut s.name).chain(heads.iter_mut().map(|head| &mut head.stage)) {
                *name = format!("training {name}");
            }
            t.proposals.append(&mut stages);
            t.localisation.append(&mut heads);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_lists() {
        let lists = [vec![1.0, 2.0], vec![3.0, 6.0]];
        assert_eq!(mean(lists.iter().map(Vec::as_slice)), [2.0, 4.0]);
        assert!(mean(std::iter::empty()).is_empty());
    }
}
