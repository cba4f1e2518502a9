//! SSD's detections: softmax, decode, and class by class suppression (torchvision's `SSD.postprocess_detections`).

use super::SsdConfig;
use crate::detect::Outputs;
use crate::detect::suppress::{Candidates, Limits, suppress};
use crate::geometry::coder::BoxCoder;
use crate::geometry::{BBox, Detection};
use crate::nn::Pass;
use crate::ops::activation::softmax_last;
use candle_core::Result;

/// Detections of each image in input pixels, best first.
pub(super) fn detect(
    config: &SsdConfig,
    priors: &[BBox],
    outputs: &Outputs,
    pass: &Pass,
) -> Result<Vec<Vec<Detection>>> {
    let (height, width) = (outputs.input.0 as f32, outputs.input.1 as f32);
    let (scores, deltas) = pass.stage("decode", || {
        let scores = softmax_last(&outputs.get("head.cls_logits")?.detach())?;
        Ok((scores, outputs.get("head.bbox_regression")?.detach()))
    })?;
    let limits = Limits {
        score_threshold: config.score_threshold,
        top_k_per_class: config.top_k,
        nms_threshold: config.nms_threshold,
        max_detections: config.max_detections,
    };
    let (images, _, logits) = scores.dims3()?;
    let mut all = Vec::with_capacity(images);
    for image in 0..images {
        let scores: Vec<f32> = scores.get(image)?.flatten_all()?.to_vec1()?;
        let deltas: Vec<f32> = deltas.get(image)?.flatten_all()?.to_vec1()?;
        let candidates = pass.stage("decode", || {
            let mut candidates = Candidates::default();
            for class in 1..logits {
                let column = (0..priors.len()).map(|anchor| scores[anchor * logits + class]);
                let kept = limits.best_of_class(column);
                candidates.extend(kept.into_iter().map(|(anchor, score)| {
                    let d = &deltas[anchor as usize * 4..anchor as usize * 4 + 4];
                    let bbox = BoxCoder::SSD.decode(priors[anchor as usize], [d[0], d[1], d[2], d[3]]);
                    let class = class as u32 - 1;
                    Detection { bbox: bbox.clip(width, height), class, score, anchor: Some(anchor), mask: None }
                }));
            }
            Ok(candidates)
        })?;
        all.push(pass.stage("suppress", || Ok(suppress(candidates, &limits, image, pass)))?);
    }
    Ok(all)
}
