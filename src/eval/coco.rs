//! The COCO protocol: average precision and recall over IoU thresholds, object sizes and detection limits.
//!
//! Follows pycocotools' `COCOeval` (bbox and segm) in every operation, so that the twelve numbers agree to the last bit
//! for the same input numbers. The cap on detections holds per image and class, and size ranges look at the
//! annotation's `area`. Images are matched in parallel, then classes are ranked in parallel; the numbers do not depend
//! on the number of threads.

use super::coco_image::{Cells, MatchedImage, Scratch, match_image};
use super::coco_ranking::{ClassRanking, rank_matched};
use super::ranking::linspace;
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
    /// Without categories (pycocotools' `useCats = 0`, category −1) a detection may take an object of any class, and
    /// there is one result for all classes together.
    #[serde(default = "yes")]
    pub use_categories: bool,
    /// IoU thresholds at which [`CocoResult::matches`] is filled; none by default.
    #[serde(default)]
    pub match_thresholds: Vec<f64>,
}

fn yes() -> bool {
    true
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
            use_categories: true,
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

/// Scores images whose boxes are already in double precision; see [`evaluate`].
pub fn evaluate_boxes(images: &[ImageBoxes], classes: usize, settings: &CocoSettings) -> CocoResult {
    let mut scorer = Scorer::new(classes, settings);
    scorer.extend(images);
    let mut result = scorer.finish();
    result.matches = settings
        .match_thresholds
        .iter()
        .flat_map(|&threshold| match_all(images, classes, threshold, settings.iou_type))
        .collect();
    result
}

/// Scores images as they come. Of each image only scores and outcomes are kept, at most the largest detection limit a
/// class; boxes and masks can go.
pub struct Scorer {
    classes: usize,
    settings: CocoSettings,
    images: Vec<MatchedImage>,
}

impl Scorer {
    /// Starts without an image, for classes `0..classes`.
    pub fn new(classes: usize, settings: &CocoSettings) -> Self {
        let mut settings = settings.clone();
        settings.max_detections.sort_unstable();
        Self { classes, settings, images: Vec::new() }
    }

    /// Matches images, many at a time. The order in which images are given does not matter, unless two have one id.
    pub fn extend(&mut self, images: &[ImageBoxes]) {
        let (classes, settings) = (self.classes, &self.settings);
        let matched: Vec<MatchedImage> = images
            .par_iter()
            .map_init(Scratch::default, |scratch, image| match_image(image, classes, settings, scratch))
            .collect();
        self.images.extend(matched);
    }

    /// The scores of all images given, whose order by rising id decides between equal scores.
    pub fn finish(mut self) -> CocoResult {
        self.images.sort_by_key(|image| image.image_id);
        let settings = self.settings;
        let classes = if settings.use_categories { self.classes } else { 1 };
        let cells = Cells::of(&settings);
        let recalls = linspace(0.0, 1.0, settings.recalls);
        let parts: Vec<ClassScores> = rank_matched(&self.images, classes, cells)
            .par_iter()
            .map(|ranking| score_class(ranking, cells, &settings, &recalls))
            .collect();

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
        let mut result = CocoResult { settings, per_class, precision, scores, recall, ..Default::default() };
        result.summarize();
        result
    }
}

/// The arrays of one class: `precision` and `scores` `[thresholds, recalls, areas, limits]`, `recall` without recalls.
struct ClassScores {
    precision: Vec<f64>,
    scores: Vec<f64>,
    recall: Vec<f64>,
    counts: ClassResult,
}

/// Scores one class over all its images.
fn score_class(ranking: &ClassRanking, cells: Cells, settings: &CocoSettings, recalls: &[f64]) -> ClassScores {
    let (rows, areas, limits) = (cells.thresholds, cells.areas, settings.max_detections.len());
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
            truths: ranking.truths,
            detections: ranking.scores.len(),
        },
    };
    for (m, &limit) in settings.max_detections.iter().enumerate() {
        let curves = ranking.curves(cells, limit, |_| 1);
        for a in 0..areas {
            let positives = ranking.positives(cells, a, |_| 1);
            if positives == 0.0 {
                continue;
            }
            let cell = a * limits + m;
            for t in 0..rows {
                let curve = &curves[a * rows + t];
                part.recall[t * block + cell] = curve.recall(positives);
                curve.read(positives, recalls, |r, reading| {
                    let to = (t * recalls.len() + r) * block + cell;
                    part.precision[to] = reading.precision;
                    part.scores[to] = reading.score;
                });
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
    fn images_may_come_one_by_one_and_in_any_order() {
        let images: Vec<ImageBoxes> = (1..6)
            .map(|image_id| ImageBoxes {
                image_id,
                truths: vec![truth(0, BOX), truth(1, FAR)],
                // equal scores: the order of ids decides
                results: vec![result(0, if image_id % 2 == 0 { BOX } else { FAR }, 0.5), result(1, FAR, 0.5)],
            })
            .collect();
        let settings = CocoSettings::default();
        let expected = evaluate_boxes(&images, 2, &settings);
        let mut scorer = Scorer::new(2, &settings);
        for image in images.iter().rev() {
            scorer.extend(std::slice::from_ref(image));
        }
        assert_eq!(scorer.finish(), expected);
        assert!(expected.stats[0] > 0.0 && expected.stats[0] < 1.0);
    }

    #[test]
    fn without_categories_a_wrong_class_is_right() {
        let image = ImageBoxes { image_id: 1, truths: vec![truth(0, BOX)], results: vec![result(1, BOX, 0.5)] };
        let strict = evaluate_boxes(std::slice::from_ref(&image), 2, &CocoSettings::default());
        assert_eq!(strict.stats[0], 0.0);
        let settings = CocoSettings { use_categories: false, ..Default::default() };
        let loose = evaluate_boxes(&[image], 2, &settings);
        assert!((loose.stats[0] - 1.0).abs() < 1e-12);
        assert_eq!((loose.per_class.len(), loose.precision.len()), (1, 10 * 101 * 4 * 3));
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
