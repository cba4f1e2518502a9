//! RefineDet's detections: two decoding steps, the objectness filter, and class by class suppression (paper §3.4).

use super::RefinedetConfig;
use super::cascade::{Found, find, record, refine};
use crate::detect::Outputs;
use crate::detect::suppress::{Candidates, Limits, suppress};
use crate::geometry::{BBox, Detection};
use crate::nn::Pass;
use candle_core::Result;

/// Detections of each image in input pixels, best first; boxes may leave the input, as in the references.
pub(super) fn detect(
    config: &RefinedetConfig,
    priors: &[BBox],
    outputs: &Outputs,
    pass: &Pass,
) -> Result<Vec<Vec<Detection>>> {
    let (refined, found) = pass.stage("decode", || {
        let refined = refine(priors, outputs)?;
        let found = find(config, &refined, outputs)?;
        Ok((refined, found))
    })?;
    if pass.is_probed() {
        record(config, &refined, &found, None, pass);
    }
    let limits = Limits {
        score_threshold: config.score_threshold,
        top_k_per_class: config.top_k,
        nms_threshold: config.nms_threshold,
        max_detections: config.max_detections,
    };
    let mut all = Vec::with_capacity(found.len());
    for (image, found) in found.iter().enumerate() {
        let candidates = pass.stage("decode", || Ok(candidates(found, config.logits(), &limits)))?;
        all.push(pass.stage("suppress", || Ok(suppress(candidates, &limits, image, pass)))?);
    }
    Ok(all)
}

/// The best anchors of every class. Boxes that overflowed are left out.
fn candidates(found: &Found, classes: usize, limits: &Limits) -> Candidates {
    let mut candidates = Candidates::default();
    for class in 1..classes {
        let column = found.scores.iter().skip(class).step_by(classes).copied();
        for (anchor, score) in limits.best_of_class(column) {
            if let Some(&bbox) = found.boxes.get(anchor as usize)
                && bbox.is_proper()
            {
                let class = class as u32 - 1;
                candidates.push(Detection { bbox, class, score, anchor: Some(anchor), mask: None });
            }
        }
    }
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_by_hand() {
        let square = |x: f32| BBox::new(x, 0.0, x + 10.0, 10.0);
        let found = Found {
            boxes: vec![square(0.0), square(20.0), BBox::new(0.0, 0.0, f32::INFINITY, 1.0)],
            // background, class 0, class 1 of each anchor; the second was filtered
            scores: vec![0.1, 0.7, 0.2, 0.0, 0.0, 0.0, 0.2, 0.4, 0.4],
        };
        let limits = Limits { score_threshold: 0.01, top_k_per_class: 9, nms_threshold: 0.45, max_detections: 9 };
        let kept: Vec<(u32, f32, Option<u32>)> =
            candidates(&found, 3, &limits).iter().map(|d| (d.class, d.score, d.anchor)).collect();
        assert_eq!(kept, [(0, 0.7, Some(0)), (1, 0.2, Some(0))]);
    }
}
