//! How one image came out at any score threshold, from a single matching.
//!
//! COCO's assignment goes through the detections by falling score, so dropping those below a threshold changes nothing
//! for the rest: the scores of right and wrong detections say all.

use super::verdicts::{Verdict, match_image};
use super::{ImageResult, ImageTruth};

/// Scores of one image's detections by what they count as.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageTally {
    /// Of detections that found an object.
    pub right: Vec<f32>,
    /// Of detections that found none.
    pub wrong: Vec<f32>,
    /// Objects that count.
    pub objects: usize,
}

/// Counts of one image at one score threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageCounts {
    /// True positives.
    pub found: usize,
    /// False positives.
    pub wrong: usize,
    /// False negatives.
    pub missed: usize,
}

impl ImageCounts {
    /// True positives minus false positives minus false negatives.
    pub fn value(self) -> i64 {
        self.found as i64 - self.wrong as i64 - self.missed as i64
    }
}

impl ImageTally {
    /// Matches one image at `iou`, for classes `0..classes`; groups and ignored objects do not count.
    pub fn new(truth: &ImageTruth, result: &ImageResult, classes: usize, iou: f64) -> Self {
        let matched = match_image(truth, result, classes, iou);
        let mut tally = Self::default();
        for (verdict, detection) in matched.detections.iter().zip(&result.detections) {
            match verdict.verdict {
                Verdict::TruePositive => tally.right.push(detection.score),
                Verdict::FalsePositive => tally.wrong.push(detection.score),
                Verdict::Ignored => {}
            }
        }
        tally.objects = tally.right.len() + matched.missed.len();
        tally
    }

    /// With detections of `score` and above.
    pub fn at(&self, score: f32) -> ImageCounts {
        let count = |scores: &[f32]| scores.iter().filter(|s| **s >= score).count();
        let found = count(&self.right);
        ImageCounts { found, wrong: count(&self.wrong), missed: self.objects.saturating_sub(found) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{BBox, Detection, Object};

    fn image() -> (ImageTruth, ImageResult) {
        let bbox = |x: f32| BBox::new(x, 0.0, x + 10.0, 10.0);
        let objects = vec![
            Object { bbox: bbox(0.0), ..Object::default() },
            Object { bbox: bbox(50.0), ..Object::default() },
            Object { bbox: bbox(90.0), crowd: true, ..Object::default() },
        ];
        let scored = [(0.0, 0.9), (1.0, 0.8), (50.0, 0.3), (90.0, 0.7)].map(|(x, score)| Detection {
            bbox: bbox(x),
            score,
            ..Detection::default()
        });
        (ImageTruth { image_id: 1, objects }, ImageResult { image_id: 1, detections: scored.to_vec() })
    }

    #[test]
    fn one_matching_serves_every_threshold() {
        let (truth, result) = image();
        let tally = ImageTally::new(&truth, &result, 1, 0.5);
        for score in [0.0, 0.3, 0.5, 0.85, 0.95] {
            let kept = result.detections.iter().filter(|d| d.score >= score).cloned().collect();
            let again = ImageTally::new(&truth, &ImageResult { image_id: 1, detections: kept }, 1, 0.5);
            assert_eq!(tally.at(score), again.at(0.0), "{score}");
        }
        assert_eq!(tally.at(0.5), ImageCounts { found: 1, wrong: 1, missed: 1 });
        assert_eq!(tally.at(0.5).value(), -1);
        assert_eq!(tally.at(0.0), ImageCounts { found: 2, wrong: 1, missed: 0 });
    }
}
