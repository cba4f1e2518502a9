//! SSD's targets and losses: match priors, mine hard negatives, cross-entropy and smooth-L1 (paper §2.2).

use super::SsdConfig;
use crate::detect::multibox::assignment;
use crate::detect::terms::{at_rows, recorded};
use crate::detect::{Losses, Outputs};
use crate::geometry::coder::BoxCoder;
use crate::geometry::matching::{Force, Matches, match_anchors};
use crate::geometry::{BBox, Object};
use crate::nn::Pass;
use crate::ops::gather::select_rows;
use crate::ops::losses::{cross_entropy, smooth_l1, sum_by, weighted_sum};
use crate::ops::select::{fill_rows, hard_negatives};
use crate::trace::{Formula, LossPart, Sample, Terms};
use candle_core::{DType, Result, Tensor};

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
    let positive: Vec<bool> = targets.iter().flat_map(|matches| matches.target.iter().map(|&t| t >= 0)).collect();
    let negatives =
        pass.stage("sample", || hard_negatives(&entropy, images, &positive, |_| true, config.negative_ratio, None))?;
    let mut learnt = positive_rows.clone();
    for (image, mined) in negatives.iter().enumerate() {
        learnt.extend(mined.iter().map(|anchor| (image * anchors) as u32 + anchor));
    }
    let weights = Tensor::zeros(images * anchors, DType::F32, logits.device())?;
    fill_rows(&weights, &learnt, 1.0 / normalizer)?;

    let (localization, distances) = if positive_rows.is_empty() {
        (boxes.sum_all()?.affine(0.0, 0.0)?, Vec::new())
    } else {
        let count = positive_rows.len();
        let target = Tensor::from_slice(&deltas, (count, 4), boxes.device())?;
        let predicted = select_rows(&boxes.reshape((images * anchors, 4))?, &positive_rows)?;
        let distance = smooth_l1(&predicted, &target, config.smooth_l1_beta)?;
        let weight = config.localization_weight / normalizer;
        let values: Vec<f32> = if pass.is_probed() { distance.detach().flatten_all()?.to_vec1()? } else { Vec::new() };
        (weighted_sum(&distance, vec![weight; count * 4])?, values)
    };
    let classification = sum_by(&entropy, &weights)?;

    if pass.is_probed() {
        let entropy_values: Vec<f32> = entropy.detach().to_vec1()?;
        let values = (localization.to_vec0::<f32>()?, classification.to_vec0::<f32>()?);
        let codes = at_rows(images * anchors, 4, &positive_rows, &deltas);
        let codes = recorded(Formula::SmoothL1 { beta: config.smooth_l1_beta }, boxes, codes)?;
        let columns = labels.iter().map(|&label| label as f32).collect();
        let columns = Terms { first_class: Some(1), ..recorded(Formula::Softmax, logits, columns)? };
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
                let part = |name: &str, value, per_anchor, terms: &Terms| LossPart {
                    name: name.into(),
                    value,
                    normalizer,
                    per_anchor,
                    terms: terms.rows(start..start + anchors),
                };
                t.losses = vec![
                    part("bbox_regression", values.0, distance_of, &codes),
                    part("classification", values.1, entropy_of, &columns),
                ];
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
