//! The PASCAL VOC protocol: average precision at one IoU, with 11 points (2007) or as area (2010 on).
//!
//! Follows the devkit: a detection looks at the one object of its class that it overlaps most, difficult ones included;
//! a second detection of a taken object is a false positive even where another object would do; a difficult object
//! neither counts nor makes its detections count. There is no cap on detections. Equal scores keep the order of images
//! and of detections within them, as in the devkit; the sort of its Python ports is not stable.

use super::ranking::by_score_falling;
use super::{ImageBoxes, ImageResult, ImageTruth, IouType};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// How a precision curve becomes one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// Mean over recalls 0, 0.1, …, 1 of the highest precision at or beyond them (VOC2007).
    Eleven,
    /// Area under the falling envelope (VOC2010 and later).
    Area,
}

/// Parameters of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct VocSettings {
    pub metric: Metric,
    /// Widths and heights are `x1 − x0 + 1`: right for boxes whose far corner is the last pixel's index, as in the XML
    /// files (a common shift of both corners does not matter); see [`VocSettings::continuous`] for other boxes.
    pub plus_one: bool,
    /// IoU from which a detection is correct.
    pub threshold: f64,
    /// Correct only above the threshold, as in the Python ports that published numbers come from (py-faster-rcnn and
    /// what was made from it); else at it as well (the MATLAB code of the devkit, mmdet, ChainerCV).
    pub strict: bool,
}

impl VocSettings {
    /// VOC2007 as the devkit does it.
    pub const fn voc07() -> Self {
        Self { metric: Metric::Eleven, plus_one: true, threshold: 0.5, strict: true }
    }

    /// VOC2010 to VOC2012 as the devkit does it.
    pub const fn voc12() -> Self {
        Self { metric: Metric::Area, ..Self::voc07() }
    }

    /// The same for continuous boxes, whose width is `x1 − x0`: those of the program's VOC reader and of COCO files.
    pub const fn continuous(self) -> Self {
        Self { plus_one: false, ..self }
    }
}

impl Default for VocSettings {
    fn default() -> Self {
        Self::voc07()
    }
}

/// Scores of every class.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VocResult {
    /// Average precision by class; `None` without an object that counts.
    pub ap: Vec<Option<f64>>,
    /// Mean over the classes that have one; 0 when none has.
    pub map: f64,
}

/// Scores `results` against `truth` for classes `0..classes`. Crowds are treated as difficult.
pub fn evaluate(truth: &[ImageTruth], results: &[ImageResult], classes: usize, settings: VocSettings) -> VocResult {
    evaluate_boxes(&ImageBoxes::join(truth, results, IouType::Bbox), classes, settings)
}

/// Scores images whose boxes are already in double precision; see [`evaluate`].
pub fn evaluate_boxes(images: &[ImageBoxes], classes: usize, settings: VocSettings) -> VocResult {
    let ap: Vec<Option<f64>> =
        (0..classes).into_par_iter().map(|class| average_precision(images, class, settings)).collect();
    let defined: Vec<f64> = ap.iter().copied().flatten().collect();
    let map = if defined.is_empty() { 0.0 } else { defined.iter().sum::<f64>() / defined.len() as f64 };
    VocResult { ap, map }
}

/// Overlap with the devkit's pixel convention; boxes are left, top, width, height.
fn overlap(a: [f64; 4], b: [f64; 4], plus: f64) -> f64 {
    let width = (a[0] + a[2]).min(b[0] + b[2]) - a[0].max(b[0]) + plus;
    let height = (a[1] + a[3]).min(b[1] + b[3]) - a[1].max(b[1]) + plus;
    if width > 0.0 && height > 0.0 {
        let shared = width * height;
        let whole = (a[2] + plus) * (a[3] + plus) + (b[2] + plus) * (b[3] + plus) - shared;
        let ratio = shared / whole;
        if ratio > 0.0 { ratio } else { 0.0 }
    } else {
        0.0
    }
}

/// One object as the matching sees it.
struct Target {
    xywh: [f64; 4],
    excluded: bool,
    taken: bool,
}

/// Average precision of one class; `None` without an object that counts.
fn average_precision(images: &[ImageBoxes], class: usize, settings: VocSettings) -> Option<f64> {
    let of_class = |other: u32| other as usize == class;
    let mut targets: Vec<Vec<Target>> = Vec::with_capacity(images.len());
    let mut detections: Vec<(f64, usize, [f64; 4])> = Vec::new();
    for (index, image) in images.iter().enumerate() {
        let objects = image.truths.iter().filter(|t| of_class(t.class));
        targets
            .push(objects.map(|t| Target { xywh: t.xywh, excluded: t.difficult || t.crowd, taken: false }).collect());
        let found = image.results.iter().filter(|r| of_class(r.class));
        detections.extend(found.map(|r| (r.score, index, r.xywh)));
    }
    let positives = targets.iter().flatten().filter(|t| !t.excluded).count();
    if positives == 0 {
        return None;
    }
    detections.sort_by(|a, b| by_score_falling(a.0, b.0));

    let plus = if settings.plus_one { 1.0 } else { 0.0 };
    let (mut true_positives, mut false_positives) = (0.0_f64, 0.0_f64);
    let mut recall = Vec::with_capacity(detections.len());
    let mut precision = Vec::with_capacity(detections.len());
    for (_, image, xywh) in &detections {
        let mut best: Option<(f64, &mut Target)> = None;
        for target in &mut targets[*image] {
            let value = overlap(*xywh, target.xywh, plus);
            if best.as_ref().is_none_or(|(highest, _)| value > *highest) {
                best = Some((value, target));
            }
        }
        match best.filter(|(value, _)| is_correct(*value, settings)) {
            Some((_, target)) if target.excluded => {}
            Some((_, target)) if !target.taken => {
                target.taken = true;
                true_positives += 1.0;
            }
            _ => false_positives += 1.0,
        }
        recall.push(true_positives / positives as f64);
        precision.push(true_positives / (true_positives + false_positives).max(f64::EPSILON));
    }
    Some(match settings.metric {
        Metric::Eleven => eleven_points(&recall, &precision),
        Metric::Area => area_under(&recall, &precision),
    })
}

/// Whether an overlap is enough.
fn is_correct(value: f64, settings: VocSettings) -> bool {
    if settings.strict { value > settings.threshold } else { value >= settings.threshold }
}

/// Mean of the highest precision at or beyond each of eleven recalls.
fn eleven_points(recall: &[f64], precision: &[f64]) -> f64 {
    (0..11_u32)
        .map(|i| {
            let wanted = f64::from(i) * 0.1;
            let reached = recall.iter().zip(precision).filter(|(r, _)| **r >= wanted);
            reached.map(|(_, &p)| p).fold(0.0, f64::max) / 11.0
        })
        .sum()
}

/// Area under the falling envelope of the curve, from recall 0 to the last one reached.
fn area_under(recall: &[f64], precision: &[f64]) -> f64 {
    let mut envelope = precision.to_vec();
    for i in (1..envelope.len()).rev() {
        envelope[i - 1] = envelope[i - 1].max(envelope[i]);
    }
    let mut before = 0.0;
    let mut area = 0.0;
    for (&r, &p) in recall.iter().zip(&envelope) {
        area += (r - before) * p;
        before = r;
    }
    area
}

#[cfg(test)]
mod tests {
    use super::super::{ResultBox, TruthBox};
    use super::*;

    fn truth(x: f64, difficult: bool) -> TruthBox {
        TruthBox { xywh: [x, 0.0, 9.0, 9.0], difficult, id: 1, ..Default::default() }
    }

    fn result(x: f64, score: f64) -> ResultBox {
        ResultBox { xywh: [x, 0.0, 9.0, 9.0], score, ..Default::default() }
    }

    fn score(truths: Vec<TruthBox>, results: Vec<ResultBox>, settings: VocSettings) -> Option<f64> {
        evaluate_boxes(&[ImageBoxes { image_id: 1, truths, results }], 1, settings).ap[0]
    }

    #[test]
    fn eleven_points_and_area_by_hand() {
        // Three objects, ranked TP FP TP: recall 1/3, 1/3, 2/3; precision 1, 1/2, 2/3.
        // Eleven points: recall 0…0.3 read 1 (four points), 0.4…0.6 read 2/3 (three), the rest 0: (4 + 2) / 11.
        // Area: 1/3 · 1 + 1/3 · 2/3 = 5/9.
        let truths = || vec![truth(0.0, false), truth(100.0, false), truth(200.0, false)];
        let results = || vec![result(0.0, 0.9), result(50.0, 0.8), result(100.0, 0.7)];
        let eleven = score(truths(), results(), VocSettings::voc07()).unwrap();
        assert!((eleven - 6.0 / 11.0).abs() < 1e-12, "{eleven}");
        let area = score(truths(), results(), VocSettings::voc12()).unwrap();
        assert!((area - 5.0 / 9.0).abs() < 1e-12, "{area}");
    }

    #[test]
    fn difficult_objects_neither_count_nor_cost() {
        let truths = vec![truth(0.0, false), truth(100.0, true)];
        let ap = score(truths, vec![result(100.0, 0.9), result(0.0, 0.5)], VocSettings::voc12());
        assert_eq!(ap, Some(1.0));
        assert_eq!(score(vec![truth(0.0, true)], vec![result(0.0, 0.9)], VocSettings::voc12()), None);
    }

    #[test]
    fn a_taken_object_is_not_traded_for_the_next_best() {
        // Both detections overlap the first object most; the second of them would also reach the other object.
        let truths = vec![truth(0.0, false), truth(3.0, false)];
        let results = vec![result(0.0, 0.9), result(1.0, 0.8)];
        let ap = score(truths, results, VocSettings::voc12()).unwrap();
        // recall stays 1/2
        assert!((ap - 0.5).abs() < 1e-12, "{ap}");
    }

    #[test]
    fn the_threshold_is_strict_and_pixels_are_inclusive() {
        // columns x to x + 2 of one row of pixels
        let wide = |x: f64| [x, 0.0, 2.0, 0.0];
        let run = |settings: VocSettings| {
            let truth = TruthBox { xywh: wide(0.0), id: 1, ..Default::default() };
            score(vec![truth], vec![ResultBox { xywh: wide(1.0), score: 1.0, ..Default::default() }], settings)
        };
        // 3 pixels each, 2 shared, 4 in the union: IoU 1/2
        assert_eq!(run(VocSettings::voc07()), Some(0.0));
        assert_eq!(run(VocSettings { strict: false, ..VocSettings::voc12() }), Some(1.0));
        // without plus one these boxes are lines without area
        assert_eq!(run(VocSettings { strict: false, plus_one: false, ..VocSettings::voc12() }), Some(0.0));
    }

    #[test]
    fn the_mean_skips_classes_without_objects() {
        let image = ImageBoxes {
            image_id: 1,
            truths: vec![truth(0.0, false)],
            results: vec![result(0.0, 0.9), ResultBox { class: 1, ..result(0.0, 0.9) }],
        };
        let scores = evaluate_boxes(&[image], 2, VocSettings::voc12());
        assert_eq!(scores.ap, [Some(1.0), None]);
        assert_eq!(scores.map, 1.0);
    }
}
