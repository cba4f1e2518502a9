//! Training's way through the stages: sample, pool, ask the head, add its losses, hand its boxes to the next.
//!
//! Cai & Vasconcelos, "Cascade R-CNN: Delving into High Quality Object Detection" (CVPR 2018), §4. Boxes carry no
//! gradient from stage to stage. Faster and Mask R-CNN are cascades of one.

use super::Rcnn;
use super::box_head::Answers;
use super::config::Flow;
use super::picture::Sizes;
use super::proposals::{Proposals, Proposed};
use super::refine::{Look, NO_PARENT, Reading, best_overlaps};
use super::regions::{Roi, pool, pool_regions};
use super::sample::{OnDevice, Pool, Sampled, Sampler, advance, sample};
use super::{box_loss, mask_loss};
use crate::geometry::{BBox, Object};
use crate::nn::Pass;
use crate::ops::rois::Rois;
use crate::trace::ProposalStage;
use candle_core::{Result, Tensor};

/// All parts of the RoI heads' loss. `sizes` are the pictures' heights and widths within the input.
pub(super) fn losses(
    network: &Rcnn,
    levels: &[Tensor],
    proposed: &Proposed,
    objects: &[Vec<Object>],
    sizes: &Sizes,
    sampler: &mut Sampler,
    pass: &Pass,
) -> Result<Vec<(String, Tensor)>> {
    let config = &network.rcnn;
    let Some(finest) = levels.first() else {
        candle_core::bail!("RoI heads need a pyramid");
    };
    if pass.is_probed() {
        record_proposals(network, &proposed.read()?, objects, pass);
    }
    let mut candidates = Pool::new(config, proposed, sampler, finest)?;
    let mut parts = Vec::new();
    for (stage, head) in network.heads.iter().enumerate() {
        let sampled =
            pass.stage("sample RoIs", || sample(config, stage, &candidates, objects, sampler, pass.is_probed()))?;
        if sampled.is_empty() {
            parts.extend(box_loss::nothing(config, stage, network.regresses(stage), finest)?);
        } else {
            let pooled = pass.stage("pool RoIs", || match &sampled.there {
                Some((rois, _)) => pool_regions(config, levels, rois.regions()?, config.pooled),
                None => pool(config, levels, &all_rois(&sampled.images), config.pooled),
            })?;
            let answers = pass.stage("box head", || network.ask(head, &pooled, pass))?;
            parts.extend(box_loss::losses(config, stage, &sampled, objects, &answers, pass)?);
            let goes_on = stage + 1 < network.heads.len() && config.flow == Flow::Cascade;
            let refined = if pass.is_probed() || (goes_on && sampled.there.is_none()) {
                let reading = Reading::new(&answers)?;
                refine(network, stage, &sampled.images, objects, sizes.values()?, &reading, pass)
            } else {
                Vec::new()
            };
            if goes_on {
                let on_device = |rois: &Rois, batch: &OnDevice| {
                    refine_there(network, stage, (rois, batch), &answers, &sizes.tensor)
                };
                candidates = advance(config, stage, &sampled, &refined, on_device)?;
            }
        }
        if let (Some(mask), Some(head)) = (&config.mask, network.masks.get(stage)) {
            let part = pass
                .stage("mask head", || mask_loss::loss(config, mask, stage, head, levels, &sampled, objects, pass))?;
            parts.push(part);
        }
    }
    Ok(parts)
}

/// [`refine`] on a CUDA device: `[R, 4]`.
fn refine_there(
    network: &Rcnn,
    stage: usize,
    (rois, batch): (&Rois, &OnDevice),
    answers: &Answers,
    sizes: &Tensor,
) -> Result<Tensor> {
    let config = &network.rcnn;
    let Some(deltas) = &answers.deltas else { candle_core::bail!("stage {stage} moves no RoI") };
    rois.refined(&batch.objects, (&answers.logits, deltas), &config.columns(), &config.coder(stage), sizes)
}

/// RoIs of all images in turn.
fn all_rois(sampled: &[Sampled]) -> Vec<Roi> {
    let mut rois = Vec::new();
    for (image, of_image) in sampled.iter().enumerate() {
        rois.extend(of_image.boxes.iter().map(|&bbox| (image as u32, bbox)));
    }
    rois
}

/// Where the head moves each RoI, image by image: as its object's class, or for background as the likeliest one.
fn refine(
    network: &Rcnn,
    stage: usize,
    sampled: &[Sampled],
    objects: &[Vec<Object>],
    sizes: &[(f32, f32)],
    reading: &Reading,
    pass: &Pass,
) -> Vec<Vec<BBox>> {
    let config = &network.rcnn;
    let mut row = 0;
    let mut refined = Vec::with_capacity(sampled.len());
    for (image, ((of_image, objects), &size)) in sampled.iter().zip(objects).zip(sizes).enumerate() {
        let mut boxes = Vec::with_capacity(of_image.boxes.len());
        let mut scores = Vec::with_capacity(of_image.boxes.len());
        for (&bbox, &target) in of_image.boxes.iter().zip(&of_image.target) {
            let (likeliest, score) = reading.best_class(config, row);
            let object = usize::try_from(target).ok().and_then(|target| objects.get(target));
            let class = object.map_or(likeliest, |o| o.class as usize);
            boxes.push(reading.refined(config, stage, row, bbox, class, size));
            scores.push(score);
            row += 1;
        }
        pass.trace(image, |t| {
            let own: Vec<BBox> = objects.iter().map(|o| o.bbox).collect();
            let (inputs, outputs, parent) = (of_image.boxes.as_slice(), boxes.as_slice(), of_image.parent.clone());
            Look { place: (stage, stage), inputs, outputs, scores, parent }.record(config, &own, t);
        });
        refined.push(boxes);
    }
    refined
}

/// Starts the record of stages with the RPN's proposals; their parents are anchors.
fn record_proposals(network: &Rcnn, proposals: &[Proposals], objects: &[Vec<Object>], pass: &Pass) {
    for (image, (proposals, objects)) in proposals.iter().zip(objects).enumerate() {
        pass.trace(image, |t| {
            let own: Vec<BBox> = objects.iter().map(|o| o.bbox).collect();
            t.proposals = vec![proposal_record(network, proposals, &own)];
            t.localisation.clear();
        });
    }
}

/// The proposals as the first stage: the RPN's, or those from outside, which no anchor made.
pub(super) fn proposal_record(network: &Rcnn, proposals: &Proposals, objects: &[BBox]) -> ProposalStage {
    let outside = proposals.anchors.contains(&NO_PARENT);
    ProposalStage {
        name: if outside { "given" } else { "RPN" }.into(),
        boxes: proposals.boxes.clone(),
        scores: proposals.scores.clone(),
        iou: best_overlaps(&proposals.boxes, objects),
        threshold: (!outside).then_some(network.rcnn.rpn.anchor_positive),
        parent: if outside { Vec::new() } else { proposals.anchors.clone() },
    }
}
