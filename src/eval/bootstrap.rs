//! How sure a difference in AP50 is: a paired bootstrap over images.
//!
//! Images are drawn with replacement, the same ones for both sides, and AP50 of both is computed from the draw; the
//! spread of the differences says what another sample of images might have given (Efron & Tibshirani, "An Introduction
//! to the Bootstrap", 1993, percentile interval). Matching is done once: it does not depend on the draw.

use super::matching::{RankedClass, rank_classes};
use super::ranking::{Outcome, average_precision, linspace};
use super::{ImageBoxes, ImageResult, ImageTruth, IouType};
use crate::random::Random;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// How to draw.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BootstrapSettings {
    pub samples: usize,
    /// Share of the draws that lies inside the interval, in `(0, 1)`.
    pub confidence: f64,
    pub seed: u64,
}

impl Default for BootstrapSettings {
    fn default() -> Self {
        Self { samples: 1000, confidence: 0.95, seed: 0 }
    }
}

/// AP50 of two sides and an interval for their difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PairedInterval {
    /// AP50 of the first side on all images.
    pub first: f64,
    pub second: f64,
    /// Second minus first.
    pub difference: f64,
    pub low: f64,
    pub high: f64,
    /// Share of the draws in which the second is higher; a tie counts half.
    pub second_wins: f64,
    pub samples: usize,
}

/// Compares two sets of results on the images of `truth`; detections on other images are left out.
///
/// The numbers depend on the seed alone, not on the number of threads. Without a draw the interval is the difference.
pub fn paired_ap50(
    truth: &[ImageTruth],
    first: &[ImageResult],
    second: &[ImageResult],
    classes: usize,
    settings: BootstrapSettings,
) -> PairedInterval {
    let known: BTreeSet<u64> = truth.iter().map(|image| image.image_id).collect();
    let rank = |results: &[ImageResult]| {
        let mut images = ImageBoxes::join(truth, results, IouType::Bbox);
        images.retain(|image| known.contains(&image.image_id));
        rank_classes(&images, classes, 0.5, 100)
    };
    let (first, second) = (rank(first), rank(second));
    let recalls = linspace(0.0, 1.0, 101);
    let count = known.len();
    let once = vec![1_u32; count];
    let whole = [mean_ap(&first, &once, &recalls), mean_ap(&second, &once, &recalls)];

    let mut differences: Vec<f64> = (0..settings.samples)
        .into_par_iter()
        .map(|sample| {
            let mut random = Random::keyed(settings.seed, &[sample as u64]);
            let mut weights = vec![0_u32; count];
            for _ in 0..count {
                weights[random.below(count)] += 1;
            }
            mean_ap(&second, &weights, &recalls) - mean_ap(&first, &weights, &recalls)
        })
        .collect();
    differences.sort_by(f64::total_cmp);

    let difference = whole[1] - whole[0];
    let tail = (1.0 - settings.confidence) / 2.0;
    let wins = differences.iter().filter(|&&d| d > 0.0).count() as f64;
    let ties = differences.iter().filter(|&&d| d == 0.0).count() as f64;
    PairedInterval {
        first: whole[0],
        second: whole[1],
        difference,
        low: quantile(&differences, tail).unwrap_or(difference),
        high: quantile(&differences, 1.0 - tail).unwrap_or(difference),
        second_wins: (wins + ties / 2.0) / differences.len().max(1) as f64,
        samples: differences.len(),
    }
}

/// Mean AP over the classes with objects when image `i` is there `weights[i]` times; 0 when no class has one.
fn mean_ap(ranked: &[RankedClass], weights: &[u32], recalls: &[f64]) -> f64 {
    let (mut sum, mut classes) = (0.0, 0_usize);
    let mut outcomes: Vec<Outcome> = Vec::new();
    for class in ranked {
        let positives: usize = class.positives.iter().map(|&(image, count)| count * weights[image] as usize).sum();
        outcomes.clear();
        for detection in &class.detections {
            outcomes.extend(std::iter::repeat_n(detection.outcome, weights[detection.image] as usize));
        }
        if let Some(ap) = average_precision(&outcomes, positives, recalls) {
            sum += ap;
            classes += 1;
        }
    }
    if classes == 0 { 0.0 } else { sum / classes as f64 }
}

/// Linear interpolation between the neighbours of a rising list; `None` for an empty one.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let position = share.clamp(0.0, 1.0) * last as f64;
    let below = (position.floor() as usize).min(last);
    let above = (below + 1).min(last);
    Some(sorted[below] + (sorted[above] - sorted[below]) * (position - below as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{BBox, Detection, Object};

    const BOX: BBox = BBox::new(0.0, 0.0, 10.0, 10.0);
    const AWAY: BBox = BBox::new(50.0, 0.0, 60.0, 10.0);

    fn truth(images: u64) -> Vec<ImageTruth> {
        let object = Object { bbox: BOX, ..Default::default() };
        (0..images).map(|image_id| ImageTruth { image_id, objects: vec![object.clone()] }).collect()
    }

    /// One detection an image, right on those that `is_right` says.
    fn results(images: u64, is_right: impl Fn(u64) -> bool) -> Vec<ImageResult> {
        let detection = |id: u64| Detection {
            bbox: if is_right(id) { BOX } else { AWAY },
            score: 1.0 - id as f32 / 128.0,
            ..Default::default()
        };
        (0..images).map(|id| ImageResult { image_id: id, detections: vec![detection(id)] }).collect()
    }

    #[test]
    fn equal_results_have_no_difference() {
        let results = results(20, |id| !id.is_multiple_of(3));
        let interval = paired_ap50(&truth(20), &results, &results, 1, BootstrapSettings::default());
        assert_eq!((interval.difference, interval.low, interval.high), (0.0, 0.0, 0.0));
        assert_eq!(interval.second_wins, 0.5);
        assert!(interval.first > 0.0);
    }

    #[test]
    fn a_clear_gain_has_an_interval_above_zero_and_repeats_with_its_seed() {
        let (worse, better) = (results(40, |id| id.is_multiple_of(2)), results(40, |_| true));
        let settings = BootstrapSettings { samples: 200, ..Default::default() };
        let interval = paired_ap50(&truth(40), &worse, &better, 1, settings);
        assert!((interval.second - 1.0).abs() < 1e-12);
        assert!(interval.low > 0.0 && interval.low < interval.difference && interval.difference < interval.high);
        assert_eq!(interval.second_wins, 1.0);
        assert_eq!(interval, paired_ap50(&truth(40), &worse, &better, 1, settings));
        let other = paired_ap50(&truth(40), &worse, &better, 1, BootstrapSettings { seed: 1, ..settings });
        assert_ne!(interval.low, other.low);
    }

    #[test]
    fn weights_are_the_same_as_copies() {
        // Image 1 twice and image 2 never, against a data set that really holds image 1 twice.
        let results = results(3, |id| id != 0);
        let rank = |truth: &[ImageTruth], results: &[ImageResult]| {
            rank_classes(&ImageBoxes::join(truth, results, IouType::Bbox), 1, 0.5, 100)
        };
        let recalls = linspace(0.0, 1.0, 101);
        let weighted = mean_ap(&rank(&truth(3), &results), &[1, 2, 0], &recalls);
        let mut copies = results.clone();
        copies[2] = ImageResult { image_id: 2, ..results[1].clone() };
        let copied = mean_ap(&rank(&truth(3), &copies), &[1, 1, 1], &recalls);
        assert_eq!(weighted, copied);
        assert!(weighted > 0.0 && weighted < 1.0);
    }

    #[test]
    fn nothing_to_draw_is_no_error() {
        let settings = BootstrapSettings { samples: 3, ..Default::default() };
        let interval = paired_ap50(&[], &results(2, |_| true), &[], 1, settings);
        assert_eq!((interval.first, interval.second, interval.samples), (0.0, 0.0, 3));
        let none = BootstrapSettings { samples: 0, ..settings };
        let interval = paired_ap50(&truth(2), &[], &results(2, |_| true), 1, none);
        assert_eq!((interval.low, interval.high), (interval.difference, interval.difference));
    }

    #[test]
    fn quantiles_interpolate() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), Some(3.0));
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.0), Some(1.0));
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 1.0), Some(4.0));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
