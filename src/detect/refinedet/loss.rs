//! RefineDet's targets and losses: the first stage parts objects from background on the priors, the second classes on
//! the anchors that the first refined (paper §3.2, §3.3).

use super::RefinedetConfig;
use super::cascade::{Refined, encode, find, record, refine};
use super::config::ObjectnessFilter;
use crate::detect::multibox::{Targets, assignment, corners, multibox_loss};
use crate::detect::{Losses, Outputs};
use crate::geometry::matching::{Force, Matches, match_anchors};
use crate::geometry::{BBox, Object, labelled};
use crate::nn::Pass;
use crate::ops::activation::softmax_last;
use crate::ops::multibox::{LossSettings, ObjectnessFilter as Dropped, PriorRule, decoded, losses as prior_losses};
use candle_core::{Result, Tensor};

/// The four parts `arm_loc`, `arm_conf`, `odm_loc`, `odm_conf`, each divided by the positives of its own stage over the
/// batch, at least 1. Targets of the second stage are constants: no gradient flows through the refined anchors.
///
/// A trace holds the second stage's assignment and samples; filtered anchors have their own rule.
pub(super) fn losses(
    config: &RefinedetConfig,
    priors: &[BBox],
    outputs: &Outputs,
    objects: &[Vec<Object>],
    pass: &Pass,
) -> Result<Losses> {
    let (arm_boxes, arm_logits) = (outputs.get("arm_loc")?, outputs.get("arm_conf_logits")?);
    let (odm_boxes, odm_logits) = (outputs.get("odm_loc")?, outputs.get("odm_conf_logits")?);
    let (images, anchors, _) = arm_logits.dims3()?;
    if images != objects.len() || anchors != priors.len() {
        candle_core::bail!(
            "{} object lists and {} priors for head outputs of shape {:?}",
            objects.len(),
            priors.len(),
            arm_logits.dims()
        );
    }
    let settings = LossSettings {
        negative_ratio: config.negative_ratio,
        smooth_l1_beta: config.smooth_l1_beta,
        localization_weight: config.localization_weight,
    };
    let mut on_device = None;
    if arm_logits.device().is_cuda() {
        let (priors, arm, odm) =
            (corners(priors, arm_logits.device())?, (arm_boxes, arm_logits), (odm_boxes, odm_logits));
        on_device = Some(losses_on_device(config, &priors, arm, odm, objects, &settings)?);
    }
    // A GPU has the losses; only the record asks for more.
    if let (Some(losses), false) = (&on_device, pass.is_probed()) {
        return Ok(losses.clone());
    }
    let refined = refine(priors, outputs)?;
    let (first, second, matches) = pass.stage("assign", || Ok(targets(config, priors, &refined, objects)))?;
    let mut arm = multibox_loss(arm_boxes, arm_logits, &first, &settings, pass)?;
    // its columns are background and object
    arm.logits.first_class = None;
    let odm = multibox_loss(odm_boxes, odm_logits, &second, &settings, pass)?;

    if pass.is_probed() {
        for (image, (matches, refined)) in matches.iter().zip(&refined).enumerate() {
            let filtered: Vec<bool> =
                (0..anchors).map(|anchor| is_filtered(config, matches, refined, anchor)).collect();
            let mut parts = Vec::from(arm.parts(image, ("arm_loc", "arm_conf"))?);
            parts.extend(odm.parts(image, ("odm_loc", "odm_conf"))?);
            pass.trace(image, |t| {
                t.assignment = Some(assignment(matches, &filtered));
                t.sampling = odm.samples(image, &second);
                t.losses = parts;
            });
        }
        let found = find(config, &refined, outputs)?;
        record(config, &refined, &found, Some(objects), pass);
    }
    let own = || named([arm.localization, arm.classification, odm.localization, odm.classification]);
    Ok(on_device.unwrap_or_else(own))
}

fn named(parts: [Tensor; 4]) -> Losses {
    let names = ["arm_loc", "arm_conf", "odm_loc", "odm_conf"].map(String::from);
    Losses { parts: names.into_iter().zip(parts).collect() }
}

/// The parts from both stages' codes and logits, matched on a CUDA device.
fn losses_on_device(
    config: &RefinedetConfig,
    priors: &Tensor,
    arm: (&Tensor, &Tensor),
    odm: (&Tensor, &Tensor),
    objects: &[Vec<Object>],
    settings: &LossSettings,
) -> Result<Losses> {
    let objects = labelled(objects);
    let (positive_iou, log_epsilon) = (config.positive_threshold, config.log_epsilon);
    let first = PriorRule { priors, positive_iou, log_epsilon, binary: true, filter: None };
    let [arm_boxes, arm_logits] = prior_losses(arm, &objects, &first, settings)?;
    let objectness = softmax_last(&arm.1.detach())?.narrow(2, 1, 1)?.squeeze(2)?;
    let filter = Dropped {
        objectness: &objectness,
        least: config.objectness_threshold,
        of_positives: config.objectness_filter == ObjectnessFilter::Positives,
    };
    let refined = decoded(priors, arm.0)?;
    let second = PriorRule { priors: &refined, binary: false, filter: Some(filter), ..first };
    let [odm_boxes, odm_logits] = prior_losses(odm, &objects, &second, settings)?;
    Ok(named([arm_boxes, arm_logits, odm_boxes, odm_logits]))
}

/// Targets of both stages for the whole batch, and the second stage's matching of each image.
fn targets(
    config: &RefinedetConfig,
    priors: &[BBox],
    refined: &[Refined],
    objects: &[Vec<Object>],
) -> (Targets, Targets, Vec<Matches>) {
    let (mut first, mut second, mut all) = (Targets::default(), Targets::default(), Vec::new());
    for (refined, objects) in refined.iter().zip(objects) {
        let boxes: Vec<BBox> = objects.iter().map(|o| o.bbox).collect();
        let threshold = config.positive_threshold;
        let matches = match_anchors(priors, &boxes, threshold, threshold, Force::BestAnchor);
        for (&prior, &target) in priors.iter().zip(&matches.target) {
            let object = usize::try_from(target).ok().and_then(|t| objects.get(t));
            let code = object.map(|o| encode(prior, o.bbox, config.log_epsilon));
            first.push(i64::from(object.is_some()), code, true);
        }
        let matches = match_anchors(&refined.boxes, &boxes, threshold, threshold, Force::BestAnchor);
        for (anchor, (&bbox, &target)) in refined.boxes.iter().zip(&matches.target).enumerate() {
            let object = usize::try_from(target).ok().and_then(|t| objects.get(t));
            let filtered = is_filtered(config, &matches, refined, anchor);
            let label = object.map_or(0, |o| i64::from(o.class) + 1);
            let code = match object {
                Some(o) if !filtered => Some(encode(bbox, o.bbox, config.log_epsilon)),
                _ => None,
            };
            // a filtered positive stays eligible, with its class as label
            second.push(label, code, !filtered || object.is_some());
        }
        all.push(matches);
    }
    (first, second, all)
}

/// Whether the objectness filter takes this anchor of the second stage away from its place.
fn is_filtered(config: &RefinedetConfig, matches: &Matches, refined: &Refined, anchor: usize) -> bool {
    let positive = matches.target.get(anchor).is_some_and(|&target| target >= 0);
    let concerned = match config.objectness_filter {
        ObjectnessFilter::Negatives => !positive,
        ObjectnessFilter::Positives => positive,
    };
    concerned && refined.is_background(anchor, config.objectness_threshold)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(filter: ObjectnessFilter) -> RefinedetConfig {
        RefinedetConfig { objectness_filter: filter, ..RefinedetConfig::nano(&["a".to_string(), "b".to_string()]) }
    }

    /// Four squares in a row; the first stage moved the second onto the object of class 1 at 20.
    fn scene() -> (Vec<BBox>, Refined, Vec<Vec<Object>>) {
        let square = |x: f32| BBox::new(x, 0.0, x + 10.0, 10.0);
        let priors = vec![square(0.0), square(10.0), square(20.0), square(30.0)];
        let refined = Refined {
            boxes: vec![square(0.0), square(20.0), square(20.0), square(30.0)],
            objectness: vec![0.005, 0.009, 0.5, 0.02],
        };
        (priors, refined, vec![vec![Object { bbox: square(20.0), class: 1, ..Object::default() }]])
    }

    #[test]
    fn the_papers_filter_takes_sure_background_from_the_negatives() {
        let (priors, refined, objects) = scene();
        let config = config(ObjectnessFilter::Negatives);
        let (first, second, matches) = targets(&config, &priors, std::slice::from_ref(&refined), &objects);
        assert_eq!(first.labels, [0, 0, 1, 0]);
        assert_eq!(first.eligible, [true, true, false, true]);
        // anchors 1 and 2 lie on the object; anchor 0 is background with objectness 0.005, anchor 3 with 0.02
        assert_eq!(second.labels, [0, 2, 2, 0]);
        assert_eq!(second.positive, [false, true, true, false]);
        assert_eq!(second.eligible, [false, false, false, true]);
        assert_eq!(second.codes.len(), 8);
        assert!(is_filtered(&config, &matches[0], &refined, 0) && !is_filtered(&config, &matches[0], &refined, 1));
    }

    #[test]
    fn luuuyis_filter_takes_positives_and_keeps_their_label() {
        let (priors, refined, objects) = scene();
        let config = config(ObjectnessFilter::Positives);
        let (_, second, matches) = targets(&config, &priors, std::slice::from_ref(&refined), &objects);
        assert_eq!(second.labels, [0, 2, 2, 0]);
        assert_eq!(second.positive, [false, false, true, false]);
        assert_eq!(second.eligible, [true, true, false, true]);
        assert!(is_filtered(&config, &matches[0], &refined, 1) && !is_filtered(&config, &matches[0], &refined, 0));
    }

    #[test]
    fn the_filter_can_be_turned_off() {
        let (priors, refined, objects) = scene();
        let config = RefinedetConfig { objectness_threshold: 0.0, ..config(ObjectnessFilter::Negatives) };
        let (_, second, _) = targets(&config, &priors, &[refined], &objects);
        assert_eq!(second.eligible, [true, false, false, true]);
    }

    #[test]
    fn without_objects_everything_is_background() {
        let (priors, refined, _) = scene();
        let config = config(ObjectnessFilter::Negatives);
        let (first, second, _) = targets(&config, &priors, &[refined], &[Vec::new()]);
        assert_eq!((first.labels, second.labels), (vec![0; 4], vec![0; 4]));
        assert!(first.codes.is_empty() && second.codes.is_empty());
    }
}
