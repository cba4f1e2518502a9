//! M2Det's targets and losses, which are SSD's: match priors, mine hard negatives, cross-entropy and smooth-L1.

use super::{CODER, M2detConfig};
use crate::detect::multibox::{LossSettings, Targets, assignment, multibox_loss};
use crate::detect::{Losses, Outputs};
use crate::geometry::matching::{Force, Matches, match_anchors};
use crate::geometry::{BBox, Object};
use crate::nn::Pass;
use candle_core::Result;

/// The parts `loc` and `conf`, both divided by the positives of the batch, at least 1.
pub(super) fn losses(
    config: &M2detConfig,
    priors: &[BBox],
    outputs: &Outputs,
    objects: &[Vec<Object>],
    pass: &Pass,
) -> Result<Losses> {
    let (boxes, logits) = (outputs.get("loc")?, outputs.get("conf_logits")?);
    let (images, anchors, _) = logits.dims3()?;
    if images != objects.len() || anchors != priors.len() {
        candle_core::bail!(
            "{} object lists and {} priors for head outputs of shape {:?}",
            objects.len(),
            priors.len(),
            logits.dims()
        );
    }
    let (targets, matches) = pass.stage("assign", || Ok(targets(config, priors, objects)))?;
    let settings = LossSettings {
        negative_ratio: config.negative_ratio,
        smooth_l1_beta: config.smooth_l1_beta,
        localization_weight: config.localization_weight,
    };
    let loss = multibox_loss(boxes, logits, &targets, &settings, pass)?;
    if pass.is_probed() {
        for (image, matches) in matches.iter().enumerate() {
            let parts = Vec::from(loss.parts(image, ("loc", "conf"))?);
            pass.trace(image, |t| {
                t.assignment = Some(assignment(matches, &[]));
                t.sampling = loss.samples(image, &targets);
                t.losses = parts;
            });
        }
    }
    Ok(Losses { parts: vec![("loc".into(), loss.localization), ("conf".into(), loss.classification)] })
}

/// Positive from the IoU threshold on; the best prior of each object is forced, a later object winning a shared one.
fn targets(config: &M2detConfig, priors: &[BBox], objects: &[Vec<Object>]) -> (Targets, Vec<Matches>) {
    let (mut targets, mut all) = (Targets::default(), Vec::with_capacity(objects.len()));
    for objects in objects {
        let boxes: Vec<BBox> = objects.iter().map(|o| o.bbox).collect();
        let threshold = config.positive_threshold;
        let matches = match_anchors(priors, &boxes, threshold, threshold, Force::BestAnchor);
        for (&prior, &target) in priors.iter().zip(&matches.target) {
            let object = usize::try_from(target).ok().and_then(|t| objects.get(t));
            let label = object.map_or(0, |o| i64::from(o.class) + 1);
            targets.push(label, object.map(|o| CODER.encode(prior, o.bbox)), true);
        }
        all.push(matches);
    }
    (targets, all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_count_from_1_and_codes_belong_to_positives() {
        let config = M2detConfig::nano(&["a".to_string(), "b".to_string()]);
        let square = |x: f32| BBox::new(x, 0.0, x + 10.0, 10.0);
        let priors = [square(0.0), square(20.0), square(22.0)];
        let object = Object { bbox: square(20.0), class: 1, ..Object::default() };
        let (targets, matches) = targets(&config, &priors, &[vec![object], Vec::new()]);
        // IoU of boxes 2 apart: 8 / 12
        assert_eq!(targets.labels, [0, 2, 2, 0, 0, 0]);
        assert_eq!(targets.positive, [false, true, true, false, false, false]);
        assert_eq!(targets.codes[..4], [0.0; 4]);
        // (25 − 27) / 10 / 0.1
        assert!((targets.codes[4] + 2.0).abs() < 1e-5);
        assert_eq!(matches[1].best_object, [-1, -1, -1]);
    }
}
