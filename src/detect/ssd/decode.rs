//! SSD's detections: softmax, decode, and class by class suppression (torchvision's `SSD.postprocess_detections`).

use super::SsdConfig;
use crate::detect::Outputs;
use crate::detect::suppress::{Candidates, Limits, suppress};
use crate::geometry::coder::BoxCoder;
use crate::geometry::{BBox, Detection};
use crate::nn::Pass;
use crate::ops::activation::softmax_last;
use crate::ops::select::fetch_rows;
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
    let images = scores.dim(0)?;
    let mut all = Vec::with_capacity(images);
    for image in 0..images {
        let candidates = pass.stage("decode", || {
            let best = limits.best_of_classes(&scores.get(image)?)?;
            let chosen: Vec<u32> = best.iter().map(|&(_, anchor, _)| anchor).collect();
            let deltas = fetch_rows(&deltas.get(image)?, &chosen)?;
            let decoded = best.into_iter().zip(deltas.chunks_exact(4)).map(|((class, anchor, score), d)| {
                let bbox = BoxCoder::SSD.decode(priors[anchor as usize], [d[0], d[1], d[2], d[3]]);
                Detection { bbox: bbox.clip(width, height), class, score, anchor: Some(anchor), mask: None }
            });
            Ok(decoded.collect::<Candidates>())
        })?;
        all.push(pass.stage("suppress", || Ok(suppress(candidates, &limits, image, pass)))?);
    }
    Ok(all)
}
