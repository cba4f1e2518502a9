//! SSD's targets and losses: match priors, mine hard negatives, cross-entropy and smooth-L1 (paper §2.2).

use super::SsdConfig;
use crate::detect::multibox::assignment;
use crate::detect::{Losses, Outputs};
use crate::geometry::coder::BoxCoder;
use crate::geometry::matching::{Force, Matches, match_anchors};
use crate::geometry::mining::hard_negatives;
use crate::geometry::{BBox, Object};
use crate::nn::Pass;
use crate::ops::gather::select_rows;
use crate::ops::losses::{cross_entropy, smooth_l1, weighted_sum};
use crate::trace::{LossPart, Sample};
use candle_core::{Result, Tensor};

/// Localisation (smooth-L1 over positives) and classification (cross-entropy over positives and mined negatives),
/// both divided by the number of positives of the batch, at least 1 (torchvision's `SSD.compute_loss`).
pub(super) fn losses(
    config: &SsdConfig,
    priors: &[BBox],
    outputs: &Outputs,
    objects: &[Vec<Object>],
    pass: &Pass,
) -> Result<Losses> {
    let (boxes, logits) = (outputs.get("head.bbox_regression")?, outputs.get("head.cls_logits")?);
    let (images, anchors, classes) = logits.dims3()?;
    if images != objects.len() || anchors != priors.len() {
        candle_core::bail!(
            "{} object lists and {} priors for head outputs of shape {:?}",
            objects.len(),
            priors.len(),
            logits.dims()
        );
    }
    let targets = pass.stage("assign", || Ok(assign(config, priors, objects)))?;

    let mut labels = Vec::with_capacity(images * anchors);
    let mut positive_rows = Vec::new();
    let mut deltas = Vec::new();
    for (image, matches) in targets.iter().enumerate() {
        for (anchor, &target) in matches.target.iter().enumerate() {
            let object = usize::try_from(target).ok().and_then(|t| objects[image].get(t));
            labels.push(object.map_or(0, |o| i64::from(o.class) + 1));
            if let Some(object) = object {
                positive_rows.push((image * anchors + anchor) as u32);
                deltas.extend(BoxCoder::SSD.encode(priors[anchor], object.bbox));
            }
        }
    }
    let normalizer = positive_rows.len().max(1) as f32;

    let entropy = cross_entropy(&logits.reshape((images * anchors, classes))?, &labels, -100)?;
    let entropy_values: Vec<f32> = entropy.detach().to_vec1()?;
    let negatives = pass.stage("sample", || Ok(mine(config, &targets, &entropy_values)))?;
    let mut weights = vec![0.0; images * anchors];
    for &row in &positive_rows {
        weights[row as usize] = 1.0 / normalizer;
    }
    for (image, mined) in negatives.iter().enumerate() {
        for &anchor in mined {
            weights[image * anchors + anchor as usize] = 1.0 / normalizer;
        }
    }

    let (localization, distances) = if positive_rows.is_empty() {
        (boxes.sum_all()?.affine(0.0, 0.0)?, Vec::new())
    } else {
        let count = positive_rows.len();
        let target = Tensor::from_vec(deltas, (count, 4), boxes.device())?;
        let predicted = select_rows(&boxes.reshape((images * anchors, 4))?, &positive_rows)?;
        let distance = smooth_l1(&predicted, &target, config.smooth_l1_beta)?;
        let weight = config.localization_weight / normalizer;
        let values: Vec<f32> = if pass.is_probed() { distance.detach().flatten_all()?.to_vec1()? } else { Vec::new() };
        (weighted_sum(&distance, vec![weight; count * 4])?, values)
    };
    let classification = weighted_sum(&entropy, weights)?;

    if pass.is_probed() {
        let values = (localization.to_vec0::<f32>()?, classification.to_vec0::<f32>()?);
        for image in 0..images {
            let start = image * anchors;
            let mut distance_of = vec![0.0; anchors];
            for (row, d) in positive_rows.iter().zip(distances.chunks_exact(4)) {
                if let Some(anchor) = (*row as usize).checked_sub(start).filter(|a| *a < anchors) {
                    distance_of[anchor] = d.iter().sum();
                }
            }
            let entropy_of = entropy_values[start..start + anchors].to_vec();
            pass.trace(image, |t| {
                t.sampling = samples(&targets[image], &negatives[image], &entropy_of);
                t.assignment = Some(assignment(&targets[image], &[]));
                let part =
                    |name: &str, value, per_anchor| LossPart { name: name.into(), value, normalizer, per_anchor };
                t.losses =
                    vec![part("bbox_regression", values.0, distance_of), part("classification", values.1, entropy_of)];
            });
        }
    }
    Ok(Losses { parts: vec![("bbox_regression".into(), localization), ("classification".into(), classification)] })
}

/// Positive from the IoU threshold on; the best prior of each object is forced, a later object winning a shared one.
fn assign(config: &SsdConfig, priors: &[BBox], objects: &[Vec<Object>]) -> Vec<Matches> {
    let threshold = config.positive_threshold;
    let per_image = objects.iter().map(|objects| {
        let boxes: Vec<BBox> = objects.iter().map(|o| o.bbox).collect();
        match_anchors(priors, &boxes, threshold, threshold, Force::BestAnchor)
    });
    per_image.collect()
}

/// Per image: the negatives of highest cross-entropy, `negative_ratio` for each positive, hardest first.
fn mine(config: &SsdConfig, targets: &[Matches], entropy: &[f32]) -> Vec<Vec<u32>> {
    let mut start = 0;
    let per_image = targets.iter().map(|matches| {
        let positive: Vec<bool> = matches.target.iter().map(|&t| t >= 0).collect();
        let losses = &entropy[start..start + positive.len()];
        start += positive.len();
        hard_negatives(losses, &positive, config.negative_ratio, None)
    });
    per_image.collect()
}

fn samples(matches: &Matches, negatives: &[u32], entropy: &[f32]) -> Vec<Sample> {
    let positives = matches.target.iter().enumerate().filter(|(_, t)| **t >= 0).map(|(anchor, _)| anchor as u32);
    let sample = |positive: bool| {
        move |(rank, anchor): (usize, u32)| Sample {
            anchor,
            positive,
            rank: rank as u32,
            loss: entropy[anchor as usize],
        }
    };
    let positives = positives.enumerate().map(sample(true));
    positives.chain(negatives.iter().copied().enumerate().map(sample(false))).collect()
}
