//! The COCO protocol: average precision and recall over IoU thresholds, object sizes and detection limits.
//!
//! Follows pycocotools' `COCOeval` (bbox and segm) in every operation, so that the twelve numbers agree to the last bit
//! for the same input numbers. The cap on detections holds per image and class, and size ranges look at the
//! annotation's `area`.

use super::matching::{ImageClass, Role, assign, by_class, search_order};
use super::ranking::{Outcome, by_score_falling, linspace, sample};
use super::verdicts::match_all;
use super::{ImageBoxes, ImageResult, ImageTruth};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use super::coco_result::{ClassResult, CocoResult, STAT_NAMES};

/// What is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IouType {
    #[default]
    Bbox,
    Segm,
}

/// Parameters of the protocol; the default is COCO's own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CocoSettings {
    pub iou_type: IouType,
    /// IoU thresholds, rising.
    pub thresholds: Vec<f64>,
    /// Number of recalls from 0 to 1 at which precision is read.
    pub recalls: usize,
    /// Size ranges: label, lowest and highest area in pixels, both included. Statistics look for the labels `all`,
    /// `small`, `medium`, `large`.
    pub areas: Vec<(String, f64, f64)>,
    /// Detections kept per image and class; precision is that of the largest.
    pub max_detections: Vec<usize>,
    /// IoU thresholds at which [`CocoResult::matches`] is filled; none by default.
    #[serde(default)]
    pub match_thresholds: Vec<f64>,
}

impl Default for CocoSettings {
    fn default() -> Self {
        let (small, large, all) = (32.0_f64 * 32.0, 96.0_f64 * 96.0, 1e10);
        Self {
            iou_type: IouType::Bbox,
            thresholds: linspace(0.5, 0.95, 10),
            recalls: 101,
            areas: vec![
                ("all".to_owned(), 0.0, all),
                ("small".to_owned(), 0.0, small),
                ("medium".to_owned(), small, large),
                ("large".to_owned(), large, all),
            ],
            max_detections: vec![1, 10, 100],
            match_thresholds: Vec::new(),
        }
    }
}

/// Scores `results` against `truth` for classes `0..classes`.
///
/// Boxes are compared as `f32` corners widened to double precision. Images are taken in rising order of id, which
/// decides between equal scores; an image that only `results` names counts as one without objects.
pub fn evaluate(truth: &[ImageTruth], results: &[ImageResult], classes: usize, settings: &CocoSettings) -> CocoResult {
    evaluate_boxes(&ImageBoxes::join(truth, results, settings.iou_type), classes, settings)
}

/// Scores images whose boxes are already in double precision; see [`evaluate`]. `images` come in rising order of id.
pub fn evaluate_boxes(images: &[ImageBoxes], classes: usize, settings: &CocoSettings) -> CocoResult {
    let mut settings = settings.clone();
    settings.max_detections.sort_unstable();
    let deepest = settings.max_detections.last().copied().unwrap_or(0);
    let recalls = linspace(0.0, 1.0, settings.recalls);
    let parts: Vec<ClassScores> =
        by_class(images, classes, deepest).par_iter().map(|class| score_class(class, &settings, &recalls)).collect();

    let block = settings.areas.len() * settings.max_detections.len();
    let rows = settings.thresholds.len();
    let mut precision = vec![-1.0; rows * settings.recalls * classes * block];
    let mut scores = precision.clone();
    let mut recall = vec![-1.0; rows * classes * block];
    for (k, part) in parts.iter().enumerate() {
        for row in 0..rows * settings.recalls {
            let (from, to) = (row * block, (row * classes + k) * block);
            precision[to..to + block].copy_from_slice(&part.precision[from..from + block]);
            scores[to..to + block].copy_from_slice(&part.scores[from..from + block]);
        }
        for row in 0..rows {
            let (from, to) = (row * block, (row * classes + k) * block);
            recall[to..to + block].copy_from_slice(&part.recall[from..from + block]);
        }
    }
    let per_class = parts.iter().map(|part| part.counts).collect();
    let matches = settings
        .match_thresholds
        .iter()
        .flat_map(|&threshold| match_all(images, classes, threshold, settings.iou_type))
        .collect();
    let mut result = CocoResult { settings, per_class, precision, scores, recall, matches, ..Default::default() };
    result.summarize();
    result
}

/// The arrays of one class: `precision` and `scores` `[thresholds, recalls, areas, limits]`, `recall` without recalls.
struct ClassScores {
    precision: Vec<f64>,
    scores: Vec<f64>,
    recall: Vec<f64>,
    counts: ClassResult,
}

/// What one image's detections of one class count as.
struct ImageOutcomes {
    /// `[areas, thresholds, detections]` row-major.
    outcomes: Vec<Outcome>,
    /// Objects that count, by area.
    positives: Vec<usize>,
}

/// True below `low` or above `high`; an undefined area is inside, as in the reference.
fn is_outside(area: f64, low: f64, high: f64) -> bool {
    let (too_small, too_large) = (area < low, area > high);
    too_small || too_large
}

/// Matches one image and class at every size range and threshold.
fn match_image_class(image: &ImageClass<'_>, settings: &CocoSettings) -> ImageOutcomes {
    let overlaps = image.overlaps(settings.iou_type);
    let mut outcomes = Vec::with_capacity(settings.areas.len() * settings.thresholds.len() * image.results.len());
    let mut positives = Vec::with_capacity(settings.areas.len());
    for (_, low, high) in &settings.areas {
        let outside = |area: f64| is_outside(area, *low, *high);
        let roles: Vec<Role> =
            image.truths.iter().map(|t| Role { crowd: t.crowd, ignored: t.ignore || outside(t.area) }).collect();
        positives.push(roles.iter().filter(|r| !r.ignored).count());
        let order = search_order(&roles);
        for &threshold in &settings.thresholds {
            let taken = assign(&overlaps, &roles, &order, threshold);
            outcomes.extend(image.results.iter().enumerate().map(|(i, result)| {
                let choice = taken.get(i).copied().flatten();
                let matched = choice.is_some_and(|truth| image.truths[truth].id != 0);
                let ignored = choice.is_some_and(|truth| roles[truth].ignored);
                if ignored || (!matched && outside(result.area)) {
                    Outcome::Ignored
                } else if matched {
                    Outcome::TruePositive
                } else {
                    Outcome::FalsePositive
                }
            }));
        }
    }
    ImageOutcomes { outcomes, positives }
}

/// Scores one class over all its images.
fn score_class(class: &[ImageClass<'_>], settings: &CocoSettings, recalls: &[f64]) -> ClassScores {
    let (rows, areas, limits) = (settings.thresholds.len(), settings.areas.len(), settings.max_detections.len());
    let matched: Vec<ImageOutcomes> = class.par_iter().map(|image| match_image_class(image, settings)).collect();
    // (image, rank within the image), falling by score over the whole class; a sort of any cap's share of it is the
    // same order with the rest left out
    let mut order: Vec<(usize, usize)> =
        class.iter().enumerate().flat_map(|(e, image)| (0..image.results.len()).map(move |rank| (e, rank))).collect();
    let score = |&(e, rank): &(usize, usize)| class[e].results[rank].score;
    order.sort_by(|a, b| by_score_falling(score(a), score(b)));

    let block = areas * limits;
    let mut part = ClassScores {
        precision: vec![-1.0; rows * recalls.len() * block],
        scores: vec![-1.0; rows * recalls.len() * block],
        recall: vec![-1.0; rows * block],
        counts: ClassResult {
            ap: -1.0,
            ap50: -1.0,
            ap75: -1.0,
            small: -1.0,
            medium: -1.0,
            large: -1.0,
            truths: class.iter().flat_map(|image| &image.truths).filter(|t| !t.ignore).count(),
            detections: order.len(),
        },
    };
    for (m, &limit) in settings.max_detections.iter().enumerate() {
        let kept: Vec<(usize, usize)> = order.iter().copied().filter(|&(_, rank)| rank < limit).collect();
        let scores: Vec<f64> = kept.iter().map(score).collect();
        for a in 0..areas {
            let positives: usize = matched.iter().map(|image| image.positives[a]).sum();
            if positives == 0 {
                continue;
            }
            for t in 0..rows {
                let outcome =
                    |&(e, rank): &(usize, usize)| matched[e].outcomes[(a * rows + t) * class[e].results.len() + rank];
                let outcomes: Vec<Outcome> = kept.iter().map(outcome).collect();
                let sampled = sample(&outcomes, &scores, positives, recalls);
                let cell = a * limits + m;
                part.recall[t * block + cell] = sampled.recall;
                for r in 0..recalls.len() {
                    let to = (t * recalls.len() + r) * block + cell;
                    part.precision[to] = sampled.precision[r];
                    part.scores[to] = sampled.scores[r];
                }
            }
        }
    }
    part
}

#[cfg(test)]
mod tests {
    use super::super::{ResultBox, TruthBox};
    use super::*;

    fn truth(class: u32, xywh: [f64; 4]) -> TruthBox {
        TruthBox { class, xywh, area: xywh[2] * xywh[3], id: 1, ..Default::default() }
    }

    fn result(class: u32, xywh: [f64; 4], score: f64) -> ResultBox {
        ResultBox { class, xywh, score, area: xywh[2] * xywh[3], mask: None }
    }

    fn one_image(truths: Vec<TruthBox>, results: Vec<ResultBox>, classes: usize) -> CocoResult {
        let image = ImageBoxes { image_id: 1, truths, results };
        evaluate_boxes(&[image], classes, &CocoSettings::default())
    }

    const BOX: [f64; 4] = [10.0, 10.0, 20.0, 20.0];
    const FAR: [f64; 4] = [500.0, 500.0, 20.0, 20.0];

    #[test]
    fn a_class_without_objects_is_undefined_and_stays_out_of_the_mean() {
        let scores = one_image(vec![truth(0, BOX)], vec![result(0, BOX, 0.5), result(1, BOX, 0.9)], 2);
        assert!((scores.stats[0] - 1.0).abs() < 1e-12);
        assert_eq!(scores.per_class[1].ap, -1.0);
        assert_eq!((scores.per_class[1].truths, scores.per_class[1].detections), (0, 1));
        // a 20×20 object is small: nothing is known of medium and large
        assert_eq!(scores.stats[4..6], [-1.0, -1.0]);
        assert!((scores.per_class[0].small - 1.0).abs() < 1e-12);
    }

    #[test]
    fn annotation_id_zero_counts_as_unmatched() {
        let zero = TruthBox { id: 0, ..truth(0, BOX) };
        let scores = one_image(vec![zero], vec![result(0, BOX, 0.5)], 1);
        assert_eq!(scores.stats[0], 0.0);
    }

    #[test]
    fn an_unmatched_detection_outside_the_size_range_costs_nothing_there() {
        // The large stray detection comes first: AP over all sizes halves at most, small objects stay perfect.
        let stray = result(0, [500.0, 500.0, 200.0, 200.0], 0.9);
        let scores = one_image(vec![truth(0, BOX)], vec![stray, result(0, BOX, 0.5)], 1);
        assert!((scores.stats[0] - 0.5).abs() < 1e-12);
        assert!((scores.stats[3] - 1.0).abs() < 1e-12);
    }

    #[test]
    fn fewer_limits_leave_recalls_undefined() {
        let image = ImageBoxes { image_id: 1, truths: vec![truth(0, BOX)], results: vec![result(0, BOX, 1.0)] };
        let settings = CocoSettings { max_detections: vec![10, 1], ..Default::default() };
        let scores = evaluate_boxes(std::slice::from_ref(&image), 1, &settings);
        assert_eq!(scores.settings.max_detections, [1, 10]);
        assert_eq!(scores.stats[6..9], [1.0, 1.0, -1.0]);
        let none = CocoSettings { max_detections: Vec::new(), areas: Vec::new(), ..Default::default() };
        assert!(evaluate_boxes(&[image], 1, &none).stats.iter().all(|&s| s == -1.0));
    }

    #[test]
    fn entries_are_found_at_their_indices() {
        let scores = one_image(
            vec![truth(1, BOX), truth(1, FAR)],
            vec![result(1, BOX, 0.8), result(1, [300.0, 0.0, 9.0, 9.0], 0.9)],
            3,
        );
        // class 1, all sizes, limit 100: FP then TP of 2 objects gives precision 1/2 up to recall 1/2
        let half = scores.precision_at(0, 50, 1, 0, 2).unwrap();
        assert!((half - 0.5).abs() < 1e-12);
        assert_eq!(scores.precision_at(0, 51, 1, 0, 2), Some(0.0));
        assert_eq!(scores.precision_at(0, 0, 0, 0, 0), Some(-1.0));
        assert_eq!(scores.precision_at(0, 101, 1, 0, 2), None);
        // limit 1 keeps the false positive alone
        assert_eq!(scores.stats[6..9], [0.0, 0.5, 0.5]);
        assert_eq!(scores.precision.len(), 10 * 101 * 3 * 4 * 3);
    }
}
