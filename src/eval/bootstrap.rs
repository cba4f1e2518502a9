//! How sure a score or a difference of two is: a bootstrap over images, paired where there are two sides.
//!
//! Images are drawn with replacement, the same ones for both sides, and AP is computed from the draw; the spread says
//! what another sample of images might have given (Efron & Tibshirani, "An Introduction to the Bootstrap", 1993,
//! percentile interval). Matching is done once: it does not depend on the draw.

use super::coco::{CocoSettings, IouType};
use super::coco_image::{Cells, MatchedImage, Scratch, match_image};
use super::coco_ranking::{ClassRanking, rank_matched};
use super::ranking::linspace;
use super::{ImageBoxes, ImageResult, ImageTruth};
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

/// A value on all images, and the interval that the draws give it. Without a draw the interval is the value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

impl Interval {
    fn new(value: f64, mut drawn: Vec<f64>, confidence: f64) -> Self {
        drawn.sort_by(f64::total_cmp);
        let tail = (1.0 - confidence) / 2.0;
        Self {
            value,
            low: quantile(&drawn, tail).unwrap_or(value),
            high: quantile(&drawn, 1.0 - tail).unwrap_or(value),
        }
    }
}

/// Average precision of two sides on the same images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ApComparison {
    pub first: Interval,
    pub second: Interval,
    /// Second minus first.
    pub difference: Interval,
    /// Share of the draws in which the second is higher; a tie counts half.
    pub second_wins: f64,
    pub samples: usize,
}

/// AP of the protocol with an interval: the mean over thresholds, recalls and classes for the first size range and the
/// largest limit of `settings`; 0 where no class has an object.
pub fn ap_interval(
    images: &[ImageBoxes],
    classes: usize,
    settings: &CocoSettings,
    draw: BootstrapSettings,
) -> Interval {
    let side = Side::new(images, classes, settings);
    let drawn = (0..draw.samples).into_par_iter().map(|sample| side.mean_ap(&weights(sample, side.images, draw.seed)));
    Interval::new(side.mean_ap(&vec![1; side.images]), drawn.collect(), draw.confidence)
}

/// Compares two sides by the same AP as [`ap_interval`]. Both lists must hold the same images in the same order, so that
/// a draw takes the same images of both.
///
/// The numbers depend on the seed alone, not on the number of threads.
pub fn compare_ap(
    first: &[ImageBoxes],
    second: &[ImageBoxes],
    classes: usize,
    settings: &CocoSettings,
    draw: BootstrapSettings,
) -> ApComparison {
    let (first, second) = (Side::new(first, classes, settings), Side::new(second, classes, settings));
    let count = first.images.max(second.images);
    let drawn: Vec<[f64; 2]> = (0..draw.samples)
        .into_par_iter()
        .map(|sample| {
            let weights = weights(sample, count, draw.seed);
            [first.mean_ap(&weights), second.mean_ap(&weights)]
        })
        .collect();
    let once = vec![1; count];
    let whole = [first.mean_ap(&once), second.mean_ap(&once)];
    let of = |side: usize| Interval::new(whole[side], drawn.iter().map(|pair| pair[side]).collect(), draw.confidence);
    let differences: Vec<f64> = drawn.iter().map(|pair| pair[1] - pair[0]).collect();
    let wins = differences.iter().filter(|&&d| d > 0.0).count() as f64;
    let ties = differences.iter().filter(|&&d| d == 0.0).count() as f64;
    ApComparison {
        first: of(0),
        second: of(1),
        second_wins: (wins + ties / 2.0) / differences.len().max(1) as f64,
        samples: differences.len(),
        difference: Interval::new(whole[1] - whole[0], differences, draw.confidence),
    }
}

/// Compares AP50 of two sets of results on the images of `truth`; detections on other images are left out.
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
    let join = |results: &[ImageResult]| {
        let mut images = ImageBoxes::join(truth, results, IouType::Bbox);
        images.retain(|image| known.contains(&image.image_id));
        images
    };
    let at_half = CocoSettings { thresholds: vec![0.5], ..CocoSettings::default() };
    let compared = compare_ap(&join(first), &join(second), classes, &at_half, settings);
    PairedInterval {
        first: compared.first.value,
        second: compared.second.value,
        difference: compared.difference.value,
        low: compared.difference.low,
        high: compared.difference.high,
        second_wins: compared.second_wins,
        samples: compared.samples,
    }
}

/// How often each of `count` images is in a draw.
fn weights(sample: usize, count: usize, seed: u64) -> Vec<u32> {
    let mut random = Random::keyed(seed, &[sample as u64]);
    let mut weights = vec![0_u32; count];
    for _ in 0..count {
        weights[random.below(count)] += 1;
    }
    weights
}

/// One set of results, matched and ranked.
struct Side {
    ranked: Vec<ClassRanking>,
    cells: Cells,
    limit: usize,
    recalls: Vec<f64>,
    images: usize,
}

impl Side {
    fn new(images: &[ImageBoxes], classes: usize, settings: &CocoSettings) -> Self {
        let limit = settings.max_detections.iter().copied().max().unwrap_or(0);
        let first_area = settings.areas.iter().take(1).cloned().collect();
        let settings = CocoSettings { areas: first_area, max_detections: vec![limit], ..settings.clone() };
        let matched: Vec<MatchedImage> = images
            .par_iter()
            .map_init(Scratch::default, |scratch, image| match_image(image, classes, &settings, scratch))
            .collect();
        let cells = Cells::of(&settings);
        let classes = if settings.use_categories { classes } else { 1 };
        let recalls = linspace(0.0, 1.0, settings.recalls);
        Self { ranked: rank_matched(&matched, classes, cells), cells, limit, recalls, images: images.len() }
    }

    /// Mean AP over the classes with objects when image `i` is there `weights[i]` times; 0 when no class has one.
    fn mean_ap(&self, weights: &[u32]) -> f64 {
        if self.cells.count() == 0 || self.recalls.is_empty() {
            return 0.0;
        }
        let weight = |image: u32| weights.get(image as usize).copied().unwrap_or(0);
        let (mut sum, mut classes) = (0.0, 0_usize);
        for class in &self.ranked {
            let positives = class.positives(self.cells, 0, weight);
            if positives == 0.0 {
                continue;
            }
            let mut of_class = 0.0;
            for curve in class.curves(self.cells, self.limit, weight) {
                curve.read(positives, &self.recalls, |_, reading| of_class += reading.precision);
            }
            sum += of_class / (self.cells.count() * self.recalls.len()) as f64;
            classes += 1;
        }
        if classes == 0 { 0.0 } else { sum / classes as f64 }
    }
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

    fn side(truth: &[ImageTruth], results: &[ImageResult]) -> Side {
        let images = ImageBoxes::join(truth, results, IouType::Bbox);
        Side::new(&images, 1, &CocoSettings { thresholds: vec![0.5], ..Default::default() })
    }

    #[test]
    fn weights_are_the_same_as_copies() {
        // Image 1 twice and image 2 never, against a data set that really holds image 1 twice.
        let results = results(3, |id| id != 0);
        let weighted = side(&truth(3), &results).mean_ap(&[1, 2, 0]);
        let mut copies = results.clone();
        copies[2] = ImageResult { image_id: 2, ..results[1].clone() };
        let copied = side(&truth(3), &copies).mean_ap(&[1, 1, 1]);
        assert_eq!(weighted, copied);
        assert!(weighted > 0.0 && weighted < 1.0);
    }

    #[test]
    fn the_value_is_the_protocols_ap() {
        let shifted = |id: u64| BBox::new(0.0, 0.0, 10.0, 10.0 - (id % 5) as f32);
        let mut results = results(30, |_| true);
        for result in &mut results {
            result.detections[0].bbox = shifted(result.image_id);
        }
        let images = ImageBoxes::join(&truth(30), &results, IouType::Bbox);
        let settings = CocoSettings::default();
        let ap = super::super::coco::evaluate_boxes(&images, 1, &settings).stats[0];
        let draw = BootstrapSettings { samples: 100, ..Default::default() };
        let interval = ap_interval(&images, 1, &settings, draw);
        assert!((interval.value - ap).abs() < 1e-12, "{interval:?} against {ap}");
        assert!(interval.low < ap && ap < interval.high, "{interval:?} around {ap}");
        let compared = compare_ap(&images, &images, 1, &settings, draw);
        assert_eq!((compared.first, compared.second), (interval, interval));
        assert_eq!(compared.difference, Interval::default());
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
