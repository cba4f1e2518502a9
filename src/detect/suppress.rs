//! From scored candidates to detections: class-aware greedy suppression, with a record of who removed whom.

use crate::geometry::Detection;
use crate::geometry::nms::{class_nms, order_by_score};
use crate::nn::Pass;
use crate::ops::storage::with_values;
use crate::trace::{Removal, Suppression};
use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;
use std::ops::Range;

/// Candidate detections of one image, input pixels.
pub type Candidates = Vec<Detection>;

/// What may pass on the way from head to result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Scores at or below this are dropped.
    pub score_threshold: f32,
    pub top_k_per_class: usize,
    /// The lower-scored of two boxes of one class goes when their IoU is above this.
    pub nms_threshold: f32,
    pub max_detections: usize,
}

impl Limits {
    /// The (anchor, score) pairs of one class above the score threshold, best first, at most `top_k_per_class`.
    pub fn best_of_class(&self, scores: impl Iterator<Item = f32>) -> Vec<(u32, f32)> {
        self.best_of(scores.enumerate())
    }

    /// The same of (anchor, score) pairs in rising order of anchors.
    pub fn best_of(&self, scored: impl Iterator<Item = (usize, f32)>) -> Vec<(u32, f32)> {
        let above = scored.filter(|(_, s)| *s > self.score_threshold);
        let mut kept: Vec<(u32, f32)> = above.map(|(anchor, score)| (anchor as u32, score)).collect();
        kept.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        kept.truncate(self.top_k_per_class);
        kept
    }
}

/// Places and values of a level's logits that are above `floor` and of a class, in order. `logits` `[anchors, columns]`
/// are an image's, `rows` the level's, and columns before `first_class` name none.
///
/// # Errors
/// Rows that are not there.
pub fn likely(logits: &Tensor, rows: Range<usize>, floor: f32, first_class: usize) -> Result<Vec<(usize, f32)>> {
    let columns = logits.dim(1)?;
    let own = logits.narrow(0, rows.start, rows.len())?.to_device(&Device::Cpu)?;
    let mut likely = with_values(&own, "decode", |own| Ok(above(own, floor)))?;
    likely.retain(|(place, _)| place % columns >= first_class);
    Ok(likely)
}

/// Places and values of the logits above `floor`, in order. Few are, so blocks without one are passed over at once.
fn above(logits: &[f32], floor: f32) -> Vec<(usize, f32)> {
    /// Logits that one task looks through, and those looked at together.
    const SHARE: usize = 1 << 16;
    const BLOCK: usize = 64;
    let look_through = |(share, logits): (usize, &[f32])| {
        let mut found = Vec::new();
        for (block, logits) in logits.chunks(BLOCK).enumerate() {
            if logits.iter().fold(false, |any, &logit| any | (logit > floor)) {
                let first = share * SHARE + block * BLOCK;
                found.extend((first..).zip(logits).filter(|(_, l)| **l > floor).map(|(place, l)| (place, *l)));
            }
        }
        found
    };
    let found: Vec<Vec<(usize, f32)>> = logits.par_chunks(SHARE).enumerate().map(look_through).collect();
    found.concat()
}

/// Greedy class-aware suppression; fills `suppression` of image `image`'s trace when the pass is probed.
pub fn suppress(candidates: Candidates, limits: &Limits, image: usize, pass: &Pass) -> Vec<Detection> {
    let scores: Vec<f32> = candidates.iter().map(|d| d.score).collect();
    let sorted: Candidates =
        order_by_score(&scores).into_iter().filter_map(|i| candidates.get(i as usize).cloned()).collect();
    let boxes: Vec<_> = sorted.iter().map(|d| d.bbox).collect();
    let scores: Vec<f32> = sorted.iter().map(|d| d.score).collect();
    let classes: Vec<u32> = sorted.iter().map(|d| d.class).collect();
    let mut removals = Vec::new();
    let record = pass.is_probed().then_some(&mut removals);
    let mut kept = class_nms(&boxes, &scores, &classes, limits.nms_threshold, record);
    kept.truncate(limits.max_detections);
    let detections = kept.iter().filter_map(|&i| sorted.get(i as usize).cloned()).collect();
    pass.trace(image, |t| {
        t.suppression = Some(Suppression {
            candidates: sorted,
            removals: removals.into_iter().map(|(removed, by, iou)| Removal { removed, by, iou }).collect(),
            kept,
            iou_threshold: limits.nms_threshold,
            score_threshold: limits.score_threshold,
            method: "greedy, class by class".into(),
        });
    });
    detections
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::BBox;
    use crate::nn::Mode;

    fn detection(x: f32, class: u32, score: f32) -> Detection {
        Detection { bbox: BBox::new(x, 0.0, x + 10.0, 10.0), class, score, ..Detection::default() }
    }

    #[test]
    fn logits_above_a_floor_keep_their_places() {
        let mut logits = vec![-5.0; 200_003];
        for (place, logit) in [(0, 1.0), (63, f32::NAN), (64, 2.0), (65_536, f32::INFINITY), (200_002, -2.9)] {
            logits[place] = logit;
        }
        assert_eq!(above(&logits, -3.0), [(0, 1.0), (64, 2.0), (65_536, f32::INFINITY), (200_002, -2.9)]);
        assert_eq!(above(&logits, f32::NEG_INFINITY).len(), 200_002);
        assert!(above(&[], 0.0).is_empty());
    }

    #[test]
    fn likely_logits_are_those_of_the_level_and_of_a_class() -> Result<()> {
        let logits: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let logits = Tensor::from_vec(logits, (4, 3), &Device::Cpu)?;
        // Rows 1 to 3 are 3..9; above 4, without the first column.
        assert_eq!(likely(&logits, 1..3, 4.0, 1)?, [(2, 5.0), (4, 7.0), (5, 8.0)]);
        assert!(likely(&logits, 3..5, 4.0, 1).is_err());
        Ok(())
    }

    #[test]
    fn the_better_of_two_overlapping_boxes_of_a_class_stays_and_the_trace_says_who_removed_whom() {
        let limits = Limits { score_threshold: 0.1, top_k_per_class: 9, nms_threshold: 0.5, max_detections: 2 };
        let pass = Pass::probed(Mode::Infer, 1);
        let found = suppress(
            vec![detection(0.0, 0, 0.5), detection(1.0, 0, 0.9), detection(1.0, 1, 0.7), detection(50.0, 0, 0.3)],
            &limits,
            0,
            &pass,
        );
        assert_eq!(found.iter().map(|d| d.score).collect::<Vec<_>>(), vec![0.9, 0.7]);
        let trace = pass.into_traces().remove(0);
        let record = trace.suppression.unwrap();
        // IoU of two 10×10 boxes one pixel apart: 90 / 110
        assert_eq!((record.removals[0].removed, record.removals[0].by), (2, 0));
        assert!((record.removals[0].iou - 90.0 / 110.0).abs() < 1e-6);
    }

    #[test]
    fn candidates_of_a_class_are_cut_by_score_then_by_number() {
        let limits = Limits { score_threshold: 0.1, top_k_per_class: 2, nms_threshold: 0.5, max_detections: 2 };
        let kept = limits.best_of_class([0.1, 0.3, f32::NAN, 0.3, 0.2].into_iter());
        assert_eq!(kept, vec![(1, 0.3), (3, 0.3)]);
    }
}
