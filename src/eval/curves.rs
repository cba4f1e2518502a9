//! Precision, recall and F1 against the score threshold, by class and for all classes together.
//!
//! Detections are matched by the COCO rule at one IoU over all object sizes, at most 100 a class and image. A point of
//! the curve is a threshold that the scores can tell apart: detections of equal score are passed together.

use super::matching::{Ranked, RankedClass, rank_classes};
use super::ranking::{Outcome, average_precision, by_score_falling, linspace};
use super::{ImageBoxes, ImageResult, ImageTruth, IouType};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// What remains when every detection below `score` is dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    pub score: f64,
    pub precision: f64,
    pub recall: f64,
    /// Harmonic mean of precision and recall; 0 when both are.
    pub f1: f64,
}

/// One curve, points falling by score.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// `None` for all classes together.
    pub class: Option<u32>,
    pub iou: f64,
    /// Objects that count.
    pub truths: usize,
    pub points: Vec<CurvePoint>,
    /// 101-point average precision of the same ranking; `None` without objects.
    pub ap: Option<f64>,
}

impl Curve {
    /// The point of highest F1, the one of higher score among equals: its `score` is the threshold to choose.
    /// `None` when no detection is correct.
    pub fn best(&self) -> Option<CurvePoint> {
        let mut best: Option<CurvePoint> = None;
        for &point in &self.points {
            if point.f1 > best.map_or(0.0, |b| b.f1) {
                best = Some(point);
            }
        }
        best
    }

    /// At most about `count` of the points, evenly spaced by position, the first, the last and the best among them.
    pub fn thinned(&self, count: usize) -> Vec<CurvePoint> {
        let step = self.points.len().div_ceil(count.max(1)).max(1);
        let last = self.points.len().saturating_sub(1);
        let best = self.best();
        let kept = self.points.iter().enumerate();
        let kept = kept.filter(|&(i, point)| i.is_multiple_of(step) || i == last || Some(*point) == best);
        kept.map(|(_, &point)| point).collect()
    }

    /// Precision and recall with detections of `score` and above; `None` when none is left.
    pub fn at_score(&self, score: f64) -> Option<CurvePoint> {
        let kept = self.points.partition_point(|p| p.score >= score);
        self.points.get(kept.checked_sub(1)?).copied()
    }
}

/// Curves of every class, and one of all classes together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Curves {
    pub per_class: Vec<Curve>,
    pub pooled: Curve,
}

/// Curves of `results` against `truth` at one IoU, for classes `0..classes`.
pub fn curves(truth: &[ImageTruth], results: &[ImageResult], classes: usize, iou: f64) -> Curves {
    curves_of_boxes(&ImageBoxes::join(truth, results, IouType::Bbox), classes, iou)
}

/// See [`curves`].
pub fn curves_of_boxes(images: &[ImageBoxes], classes: usize, iou: f64) -> Curves {
    let ranked = rank_classes(images, classes, iou, 100);
    let per_class: Vec<Curve> =
        ranked.par_iter().enumerate().map(|(k, class)| trace_curve(class, u32::try_from(k).ok(), iou)).collect();
    let mut all = RankedClass::default();
    for class in ranked {
        all.detections.extend(class.detections);
        all.positives.extend(class.positives);
    }
    all.detections.sort_by(|a, b| by_score_falling(a.score, b.score));
    Curves { per_class, pooled: trace_curve(&all, None, iou) }
}

/// The curve of one ranking.
fn trace_curve(ranked: &RankedClass, class: Option<u32>, iou: f64) -> Curve {
    let truths = ranked.positive_count();
    let mut points = Vec::new();
    let (mut correct, mut counted) = (0_usize, 0_usize);
    let same_score = |a: &Ranked, b: &Ranked| by_score_falling(a.score, b.score).is_eq();
    for group in ranked.detections.chunk_by(same_score) {
        correct += group.iter().filter(|d| d.outcome == Outcome::TruePositive).count();
        counted += group.iter().filter(|d| d.outcome != Outcome::Ignored).count();
        if counted == 0 {
            continue;
        }
        let precision = correct as f64 / counted as f64;
        let recall = if truths == 0 { 0.0 } else { correct as f64 / truths as f64 };
        let sum = precision + recall;
        let f1 = if sum > 0.0 { 2.0 * precision * recall / sum } else { 0.0 };
        points.push(CurvePoint { score: group[0].score, precision, recall, f1 });
    }
    let ap = average_precision(&ranked.outcomes(), truths, &linspace(0.0, 1.0, 101));
    Curve { class, iou, truths, points, ap }
}

#[cfg(test)]
mod tests {
    use super::super::{ResultBox, TruthBox};
    use super::*;

    fn result(class: u32, x: f64, score: f64) -> ResultBox {
        ResultBox { class, xywh: [x, 0.0, 10.0, 10.0], score, area: 100.0, mask: None }
    }

    fn sample_curves() -> Curves {
        let truth = |class: u32, x: f64| TruthBox {
            class,
            xywh: [x, 0.0, 10.0, 10.0],
            area: 100.0,
            id: 1,
            ..Default::default()
        };
        let image = ImageBoxes {
            image_id: 1,
            truths: vec![truth(0, 0.0), truth(0, 100.0), truth(1, 200.0)],
            results: vec![
                result(0, 0.0, 0.9),
                result(0, 50.0, 0.6),
                result(0, 100.0, 0.6),
                result(0, 300.0, 0.1),
                result(1, 200.0, 0.3),
            ],
        };
        curves_of_boxes(&[image], 3, 0.5)
    }

    #[test]
    fn equal_scores_are_one_point() {
        let curve = &sample_curves().per_class[0];
        let scores: Vec<f64> = curve.points.iter().map(|p| p.score).collect();
        assert_eq!(scores, [0.9, 0.6, 0.1]);
        // at 0.6: two of three correct, both objects found; F1 = 2 · 2/3 / (5/3) = 0.8
        let point = curve.at_score(0.6).unwrap();
        assert!((point.precision - 2.0 / 3.0).abs() < 1e-12 && point.recall == 1.0);
        assert!((point.f1 - 0.8).abs() < 1e-12);
        assert_eq!(curve.best().unwrap().score, 0.6);
        assert_eq!(curve.truths, 2);
    }

    #[test]
    fn thinning_keeps_both_ends_and_the_best() {
        let point = |i: u32| CurvePoint { score: f64::from(100 - i), f1: f64::from(i % 37), ..Default::default() };
        let curve = Curve { points: (0..100).map(point).collect(), ..Default::default() };
        let thin = curve.thinned(10);
        assert!(thin.len() <= 13 && thin.contains(&curve.best().unwrap()), "{thin:?}");
        assert_eq!((thin[0], thin[thin.len() - 1]), (curve.points[0], curve.points[99]));
        assert_eq!(curve.thinned(1000), curve.points);
        assert!(Curve::default().thinned(5).is_empty());
    }

    #[test]
    fn reading_between_points_takes_the_one_above() {
        let curve = &sample_curves().per_class[0];
        assert_eq!(curve.at_score(0.7).unwrap().score, 0.9);
        assert_eq!(curve.at_score(0.0).unwrap().score, 0.1);
        assert_eq!(curve.at_score(0.95), None);
    }

    #[test]
    fn the_pooled_curve_mixes_classes_by_score() {
        let curves = sample_curves();
        assert_eq!(curves.pooled.truths, 3);
        assert_eq!(curves.pooled.points.iter().map(|p| p.score).collect::<Vec<_>>(), [0.9, 0.6, 0.3, 0.1]);
        let last = curves.pooled.points[3];
        assert!((last.precision - 0.6).abs() < 1e-12 && last.recall == 1.0);
        assert_eq!(curves.per_class[2].ap, None);
        assert_eq!(curves.per_class[2].best(), None);
        // ranked TP, FP, TP of 2: 51 recalls read 1, 50 read 2/3
        let expected = (51.0 + 50.0 * 2.0 / 3.0) / 101.0;
        assert!((curves.per_class[0].ap.unwrap() - expected).abs() < 1e-12);
    }
}
