//! From scored candidates to detections: class-aware greedy suppression, with a record of who removed whom.

use crate::geometry::Detection;
use crate::geometry::nms::{class_nms, order_by_score};
use crate::nn::Pass;
use crate::ops::select::above;
use crate::trace::{Removal, Suppression};
use candle_core::{Result, Tensor};
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

    /// The (class, anchor, score) of every class's best, class by class, from the probabilities `[anchors, 1 + classes]`
    /// of an image, background first.
    ///
    /// # Errors
    /// Another number of dimensions.
    pub fn best_of_classes(&self, scores: &Tensor) -> Result<Vec<(u32, u32, f32)>> {
        let columns = scores.dim(1)?;
        let mut by_column = vec![Vec::new(); columns];
        for (place, score) in above(scores, self.score_threshold, 1)? {
            by_column[place % columns].push((place / columns, score));
        }
        let mut best = Vec::new();
        for (class, scored) in by_column.into_iter().skip(1).enumerate() {
            best.extend(self.best_of(scored.into_iter()).into_iter().map(|(anchor, s)| (class as u32, anchor, s)));
        }
        Ok(best)
    }
}

/// Places and values of a level's logits that are above `floor` and of a class, in order. `logits` `[anchors, columns]`
/// are an image's, `rows` the level's, and columns before `first_class` name none.
///
/// # Errors
/// Rows that are not there.
pub fn likely(logits: &Tensor, rows: Range<usize>, floor: f32, first_class: usize) -> Result<Vec<(usize, f32)>> {
    above(&logits.narrow(0, rows.start, rows.len())?, floor, first_class)
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
    use candle_core::Device;

    fn detection(x: f32, class: u32, score: f32) -> Detection {
        Detection { bbox: BBox::new(x, 0.0, x + 10.0, 10.0), class, score, ..Detection::default() }
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

    #[test]
    fn every_class_has_its_best_and_the_background_none() -> Result<()> {
        let limits = Limits { score_threshold: 0.1, top_k_per_class: 2, nms_threshold: 0.5, max_detections: 2 };
        let scores = [0.7f32, 0.3, 0.0, 0.9, 0.2, 0.1, 0.5, 0.4, 0.6];
        let scores = Tensor::from_slice(&scores, (3, 3), &Device::Cpu)?;
        assert_eq!(limits.best_of_classes(&scores)?, [(0, 2, 0.4), (0, 0, 0.3), (1, 2, 0.6)]);
        Ok(())
    }
}
