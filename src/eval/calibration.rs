//! Whether scores are probabilities: the share of right detections against their score, and how far the two lie apart.
//!
//! Detections are matched by the COCO rule at one IoU and sorted into bins of equal width by score. The expected
//! calibration error is the mean distance between score and precision over bins, each counted by its detections
//! (Guo et al., "On Calibration of Modern Neural Networks", 2017; for detections Küppers et al., 2020).

use super::ImageBoxes;
use super::matching::{RankedClass, rank_classes};
use super::ranking::Outcome;
use serde::{Deserialize, Serialize};

/// Detections with scores in one range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CalibrationBin {
    /// Scores from here (included) …
    pub low: f64,
    /// … to here (excluded, but for the last bin).
    pub high: f64,
    /// Right and wrong ones; those on groups and ignored objects are left out.
    pub detections: usize,
    pub correct: usize,
    /// Mean score of the bin; 0 when it is empty.
    pub mean_score: f64,
}

impl CalibrationBin {
    /// Share of right detections; `None` when the bin is empty.
    pub fn precision(&self) -> Option<f64> {
        (self.detections > 0).then(|| self.correct as f64 / self.detections as f64)
    }
}

/// The diagram of all classes together, and the error of each class.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    pub iou: f64,
    pub bins: Vec<CalibrationBin>,
    /// Expected calibration error, all classes together; 0 without detections.
    pub error: f64,
    /// Largest distance of a bin that is not empty.
    pub largest: f64,
    /// Expected calibration error by class; `None` without detections.
    pub per_class: Vec<Option<f64>>,
}

/// Calibration at one IoU with `bins` bins over `[0, 1]`; scores outside go to the nearest one.
pub fn calibration(images: &[ImageBoxes], classes: usize, iou: f64, bins: usize) -> Calibration {
    let ranked = rank_classes(images, classes, iou, 100);
    let together = sorted_in(ranked.iter(), bins);
    let per_class = ranked.iter().map(|class| {
        let own = sorted_in(std::iter::once(class), bins);
        own.iter().any(|bin| bin.detections > 0).then(|| expected_error(&own))
    });
    Calibration {
        iou,
        error: expected_error(&together),
        largest: together.iter().filter_map(distance).fold(0.0, f64::max),
        per_class: per_class.collect(),
        bins: together,
    }
}

fn sorted_in<'a>(ranked: impl Iterator<Item = &'a RankedClass>, bins: usize) -> Vec<CalibrationBin> {
    let edge = |i: usize| i as f64 / bins as f64;
    let mut sorted: Vec<CalibrationBin> =
        (0..bins).map(|i| CalibrationBin { low: edge(i), high: edge(i + 1), ..Default::default() }).collect();
    let mut sums = vec![0.0; bins];
    for detection in ranked.flat_map(|class| &class.detections).filter(|d| d.outcome != Outcome::Ignored) {
        // a score that is not a number is as good as 0
        let place = ((detection.score * bins as f64) as usize).min(bins.saturating_sub(1));
        if let (Some(bin), Some(sum)) = (sorted.get_mut(place), sums.get_mut(place)) {
            bin.detections += 1;
            bin.correct += usize::from(detection.outcome == Outcome::TruePositive);
            *sum += if detection.score.is_finite() { detection.score.clamp(0.0, 1.0) } else { 0.0 };
        }
    }
    for (bin, sum) in sorted.iter_mut().zip(sums) {
        bin.mean_score = sum / bin.detections.max(1) as f64;
    }
    sorted
}

/// Distance between score and precision; `None` when the bin is empty.
fn distance(bin: &CalibrationBin) -> Option<f64> {
    bin.precision().map(|precision| (precision - bin.mean_score).abs())
}

fn expected_error(bins: &[CalibrationBin]) -> f64 {
    let all: usize = bins.iter().map(|bin| bin.detections).sum();
    let sum: f64 = bins.iter().filter_map(|bin| Some(distance(bin)? * bin.detections as f64)).sum();
    sum / all.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::super::{ResultBox, TruthBox};
    use super::*;

    fn image(scores: &[(f64, bool)]) -> ImageBoxes {
        let xywh = |i: usize, right: bool| [i as f64 * 20.0, if right { 0.0 } else { 500.0 }, 10.0, 10.0];
        let truths = (0..scores.len()).map(|i| TruthBox { xywh: xywh(i, true), id: 1, ..Default::default() });
        let results = scores.iter().enumerate();
        let results =
            results.map(|(i, &(score, right))| ResultBox { xywh: xywh(i, right), score, ..Default::default() });
        ImageBoxes { image_id: 1, truths: truths.collect(), results: results.collect() }
    }

    #[test]
    fn bins_and_errors_by_hand() {
        // bin 0 to ½: one of two right at mean score ¼; bin ½ to 1: all three right at mean score 0.8
        let image = image(&[(0.2, true), (0.3, false), (0.6, true), (0.8, true), (1.0, true)]);
        let found = calibration(&[image], 2, 0.5, 2);
        assert_eq!(found.bins.iter().map(|b| (b.detections, b.correct)).collect::<Vec<_>>(), [(2, 1), (3, 3)]);
        assert!((found.bins[1].mean_score - 0.8).abs() < 1e-12);
        assert!((found.error - (2.0 * 0.25 + 3.0 * 0.2) / 5.0).abs() < 1e-12);
        assert!((found.largest - 0.25).abs() < 1e-12);
        assert_eq!(found.per_class, [Some(found.error), None]);
    }

    #[test]
    fn odd_scores_and_empty_data_are_no_error() {
        let found = calibration(&[image(&[(-3.0, true), (7.0, true), (f64::NAN, false)])], 1, 0.5, 10);
        assert_eq!((found.bins[0].detections, found.bins[9].detections), (2, 1));
        assert!(found.error.is_finite());
        let none = calibration(&[], 1, 0.5, 10);
        assert_eq!((none.error, none.largest, none.per_class), (0.0, 0.0, vec![None]));
        assert!(calibration(&[image(&[(0.5, true)])], 1, 0.5, 0).bins.is_empty());
    }
}
