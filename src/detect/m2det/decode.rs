//! M2Det's detections: softmax, decode, and suppression class by class.

use super::soft::select;
use super::{CODER, M2detConfig};
use crate::detect::Outputs;
use crate::detect::suppress::{Candidates, Limits};
use crate::geometry::{BBox, Detection};
use crate::nn::Pass;
use crate::ops::activation::softmax_last;
use crate::ops::select::fetch_rows;
use candle_core::{Result, Tensor};

/// Detections of each image in input pixels, best first; boxes may leave the input, as in the reference.
pub(super) fn detect(
    config: &M2detConfig,
    priors: &[BBox],
    outputs: &Outputs,
    pass: &Pass,
) -> Result<Vec<Vec<Detection>>> {
    let (scores, codes) = pass
        .stage("decode", || Ok((softmax_last(&outputs.get("conf_logits")?.detach())?, outputs.get("loc")?.detach())))?;
    let (images, anchors, logits) = scores.dims3()?;
    if anchors != priors.len() || logits != config.logits() {
        candle_core::bail!("{} priors and {} classes for scores {:?}", priors.len(), config.logits(), scores.dims());
    }
    let mut all = Vec::with_capacity(images);
    for image in 0..images {
        let candidates =
            pass.stage("decode", || candidates(config, priors, &scores.get(image)?, &codes.get(image)?))?;
        all.push(pass.stage("suppress", || Ok(select(candidates, config, image, pass)))?);
    }
    Ok(all)
}

/// The best priors of every class, decoded. Boxes that overflowed are left out.
fn candidates(config: &M2detConfig, priors: &[BBox], scores: &Tensor, codes: &Tensor) -> Result<Candidates> {
    let limits = Limits {
        score_threshold: config.score_threshold,
        top_k_per_class: config.top_k,
        nms_threshold: config.nms_threshold,
        max_detections: config.max_detections,
    };
    let best = limits.best_of_classes(scores)?;
    let chosen: Vec<u32> = best.iter().map(|&(_, anchor, _)| anchor).collect();
    let codes = fetch_rows(codes, &chosen)?;
    let mut candidates = Candidates::default();
    for ((class, anchor, score), c) in best.into_iter().zip(codes.chunks_exact(4)) {
        let bbox = CODER.decode(priors[anchor as usize], [c[0], c[1], c[2], c[3]]);
        if bbox.is_proper() {
            candidates.push(Detection { bbox, class, score, anchor: Some(anchor), mask: None });
        }
    }
    Ok(candidates)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn candidates_by_hand() -> Result<()> {
        let config = M2detConfig::nano(&["a".to_string(), "b".to_string()]);
        let priors = [BBox::new(0.0, 0.0, 10.0, 20.0), BBox::new(40.0, 0.0, 50.0, 10.0)];
        // dx = 0.1 · 2 · 10 px, dh = e^(0.2 · 5 · ln 2) = 2 times the height
        let codes = [2.0, 0.0, 0.0, 5.0 * 2.0_f32.ln(), 0.0, 0.0, 0.0, 1e9];
        let scores = [0.2_f32, 0.7, 0.1, 0.3, 0.3, 0.4];
        let codes = Tensor::from_slice(&codes, (2, 4), &Device::Cpu)?;
        let found = candidates(&config, &priors, &Tensor::from_slice(&scores, (2, 3), &Device::Cpu)?, &codes)?;
        // class b of the first prior has no more than the threshold; the second prior's box overflows
        assert_eq!(found.len(), 1);
        let expected = BBox::new(2.0, -10.0, 12.0, 30.0);
        let b = found[0].bbox;
        let pairs = [(b.x0, expected.x0), (b.y0, expected.y0), (b.x1, expected.x1), (b.y1, expected.y1)];
        assert!(pairs.iter().all(|(a, b)| (a - b).abs() < 1e-4), "{b:?}");
        assert_eq!((found[0].class, found[0].score, found[0].anchor), (0, 0.7, Some(0)));
        Ok(())
    }
}
