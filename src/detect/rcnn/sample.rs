//! Which RoIs a stage learns from: candidates and objects, matched by IoU and sampled.

use super::config::{Flow, RcnnConfig};
use super::proposals::Proposals;
use super::refine::NO_PARENT;
use crate::geometry::matching::{Force, match_anchors};
use crate::geometry::sampling::sample_balanced;
use crate::geometry::{BBox, Object};
use crate::random::Random;

/// Boxes that a stage may learn from, of one image.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Candidates {
    pub(super) boxes: Vec<BBox>,
    /// Index of each in the stage before.
    pub(super) parent: Vec<u32>,
}

impl Candidates {
    /// The proposals as they are.
    pub(super) fn new(proposals: &Proposals) -> Self {
        Self { boxes: proposals.boxes.clone(), parent: (0..proposals.boxes.len() as u32).collect() }
    }
}

/// RoIs of one image that enter a stage's loss, positives first.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sampled {
    pub(super) boxes: Vec<BBox>,
    /// Object index, or −1 for background.
    pub(super) target: Vec<i32>,
    /// Index in the stage before, [`NO_PARENT`] for an object.
    pub(super) parent: Vec<u32>,
    /// Whether it is an annotated object itself.
    pub(super) from_object: Vec<bool>,
}

/// Whether `stage` draws a sample of its own; otherwise it learns from every candidate.
pub(super) fn draws(config: &RcnnConfig, stage: usize) -> bool {
    stage == 0 || config.resample || config.flow == Flow::Integral
}

/// RoIs of one image for `stage`: positive from the stage's IoU on, background below.
pub(super) fn sample(
    config: &RcnnConfig,
    stage: usize,
    candidates: &Candidates,
    objects: &[Object],
    rng: &mut Random,
) -> Sampled {
    let mut boxes = candidates.boxes.clone();
    let drawn = draws(config, stage);
    let own: Vec<BBox> = objects.iter().map(|o| o.bbox).collect();
    if drawn && config.objects_as_rois {
        boxes.extend(own.iter().filter(|bbox| bbox.is_proper()));
    }
    let threshold = config.stage(stage).positive_iou;
    let matches = match_anchors(&boxes, &own, threshold, threshold, Force::None);
    let (most, share) = if drawn { (config.roi_samples, config.roi_positive_share) } else { (usize::MAX, 1.0) };
    let (positives, negatives) = sample_balanced(&matches.target, most, share, rng);
    let mut sampled = Sampled::default();
    for index in positives.into_iter().chain(negatives) {
        let index = index as usize;
        sampled.boxes.push(boxes[index]);
        sampled.target.push(matches.target[index]);
        sampled.parent.push(candidates.parent.get(index).copied().unwrap_or(NO_PARENT));
        sampled.from_object.push(index >= candidates.boxes.len());
    }
    sampled
}

/// The candidates of the next stage: the RoIs of this one at their `refined` boxes. Where the next stage gets the
/// objects anew, what was an object drops out.
pub(super) fn advance(config: &RcnnConfig, stage: usize, sampled: &Sampled, refined: &[BBox]) -> Candidates {
    let again = draws(config, stage + 1) && config.objects_as_rois;
    let mut next = Candidates::default();
    for (index, (&bbox, &from_object)) in refined.iter().zip(&sampled.from_object).enumerate() {
        if !(again && from_object) {
            next.boxes.push(bbox);
            next.parent.push(index as u32);
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    fn square(x: f32, side: f32) -> BBox {
        BBox::new(x, 0.0, x + side, side)
    }

    fn object(bbox: BBox) -> Object {
        Object { bbox, ..Object::default() }
    }

    fn candidates(boxes: Vec<BBox>) -> Candidates {
        Candidates { parent: (0..boxes.len() as u32).collect(), boxes }
    }

    #[test]
    fn thresholds_rise_from_stage_to_stage_and_objects_join_in() {
        let config = RcnnConfig::cascade_nano(&["a".to_string()]);
        let objects = [object(square(0.0, 10.0))];
        // IoU 0.55 and 0.65 with the object, and none
        let found =
            candidates(vec![BBox::new(0.0, 0.0, 10.0, 5.5), BBox::new(0.0, 0.0, 10.0, 6.5), square(30.0, 10.0)]);
        let mut rng = Random::new(1);
        let mut of_stage = |stage: usize| sample(&config, stage, &found, &objects, &mut rng);
        let first = of_stage(0);
        assert_eq!((first.target.as_slice(), first.parent.as_slice()), (&[0, 0, 0, -1][..], &[0, 1, NO_PARENT, 2][..]));
        assert_eq!(first.from_object, [false, false, true, false]);
        assert_eq!(of_stage(1).target, [0, 0, -1, -1]);
        assert_eq!(of_stage(2).target, [0, -1, -1, -1]);
    }

    #[test]
    fn refined_objects_drop_out_unless_all_rois_are_kept() {
        let config = RcnnConfig::cascade_nano(&["a".to_string()]);
        let objects = [object(square(0.0, 10.0))];
        let sampled = sample(&config, 0, &candidates(vec![square(40.0, 10.0)]), &objects, &mut Random::new(1));
        assert_eq!(sampled.from_object, [true, false]);
        let refined = [square(1.0, 10.0), square(41.0, 10.0)];
        let next = advance(&config, 0, &sampled, &refined);
        assert_eq!(next, Candidates { boxes: vec![refined[1]], parent: vec![1] });
        let kept = RcnnConfig { resample: false, ..config };
        let next = advance(&kept, 0, &sampled, &refined);
        assert_eq!(next.boxes, refined);
        let all = sample(&kept, 1, &next, &objects, &mut Random::new(1));
        assert_eq!((all.target.as_slice(), all.parent.as_slice()), (&[0, -1][..], &[0, 1][..]));
    }

    #[test]
    fn no_object_no_candidate_and_crowds_of_objects_are_fine() {
        let config = RcnnConfig::faster_nano(&["a".to_string()]);
        assert_eq!(sample(&config, 0, &Candidates::default(), &[], &mut Random::new(1)), Sampled::default());
        let background = sample(&config, 0, &candidates(vec![square(0.0, 9.0)]), &[], &mut Random::new(1));
        assert_eq!(background.target, [-1]);
        // flat objects never become RoIs
        let flat = [object(BBox::new(3.0, 3.0, 3.0, 9.0))];
        assert_eq!(sample(&config, 0, &Candidates::default(), &flat, &mut Random::new(1)), Sampled::default());
        let many: Vec<Object> = (0..2000).map(|i| object(square(i as f32 * 4.0, 3.0))).collect();
        let drawn =
            |seed: u64| sample(&config, 0, &candidates(vec![square(5e4, 9.0); 500]), &many, &mut Random::new(seed));
        // 64 of which a quarter positive
        assert_eq!(drawn(1).target.iter().filter(|&&t| t >= 0).count(), 16);
        assert_eq!((drawn(1).boxes.len(), drawn(1) == drawn(1), drawn(1) == drawn(2)), (64, true, false));
    }
}
