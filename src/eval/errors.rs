//! What kinds of mistakes cost how much AP50: classification, localisation, both, duplicate, background, missed.
//!
//! After TIDE (Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020): every false
//! positive has one kind, every object that neither a detection nor a repaired mistake would find is missed, and the
//! cost of a kind is what AP50 gains when its mistakes alone are repaired.

use super::matching::{Ranked, RankedClass, rank_classes};
use super::ranking::{Outcome, average_precision, by_score_falling, linspace};
use super::regions::overlap;
use super::{ImageBoxes, ImageResult, ImageTruth, IouType, TruthBox};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Kind of a mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// On an object of another class, well enough placed.
    Classification,
    /// On an object of its class, placed between the two thresholds.
    Localisation,
    /// On an object of another class, placed between the two thresholds.
    Both,
    /// On an object of its class that a better detection has taken.
    Duplicate,
    /// On nothing.
    Background,
    /// An object that nothing found.
    Missed,
}

impl ErrorKind {
    pub const ALL: [Self; 6] =
        [Self::Classification, Self::Localisation, Self::Both, Self::Duplicate, Self::Background, Self::Missed];

    /// One word for tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Classification => "classification",
            Self::Localisation => "localisation",
            Self::Both => "both",
            Self::Duplicate => "duplicate",
            Self::Background => "background",
            Self::Missed => "missed",
        }
    }
}

/// IoU thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorSettings {
    /// At or above: well enough placed.
    pub foreground: f64,
    /// Below: on nothing.
    pub background: f64,
}

impl Default for ErrorSettings {
    fn default() -> Self {
        Self { foreground: 0.5, background: 0.1 }
    }
}

/// One mistake.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorItem {
    pub kind: ErrorKind,
    pub image_id: u64,
    /// Position among the image's detections; `None` for a missed object.
    pub detection: Option<usize>,
    /// Position among the image's objects of the one it concerns; `None` on background.
    pub truth: Option<usize>,
    /// Overlap of the two; 0 where one is missing.
    pub iou: f64,
}

/// Number and cost of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorShare {
    pub kind: ErrorKind,
    pub count: usize,
    /// AP with these mistakes repaired, minus AP as it is.
    pub delta_ap50: f64,
}

/// The whole analysis.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// Mean AP at the foreground threshold over classes with objects; 0 when no class has one.
    pub ap50: f64,
    /// One entry a kind, in the order of [`ErrorKind::ALL`].
    pub shares: Vec<ErrorShare>,
    /// By image; within it detections by falling score, then missed objects.
    pub items: Vec<ErrorItem>,
}

/// A mistake with what its repair needs.
struct Finding {
    item: ErrorItem,
    /// Position of the image.
    image: usize,
    score: f64,
    /// Repaired, the detection takes its object: the best of those that could, and the object is still free.
    repairable: bool,
}

/// Sorts the mistakes of `results` by kind, for classes `0..classes`.
pub fn analyse(truth: &[ImageTruth], results: &[ImageResult], classes: usize, settings: ErrorSettings) -> ErrorReport {
    analyse_boxes(&ImageBoxes::join(truth, results, IouType::Bbox), classes, settings)
}

/// See [`analyse`].
pub fn analyse_boxes(images: &[ImageBoxes], classes: usize, settings: ErrorSettings) -> ErrorReport {
    let ranked = rank_classes(images, classes, settings.foreground, 100);
    let iou_type = ImageBoxes::compared_by(images);
    let mut by_image: Vec<Vec<Ranked>> = vec![Vec::new(); images.len()];
    for detection in ranked.iter().flat_map(|class| &class.detections) {
        by_image[detection.image].push(*detection);
    }
    let findings: Vec<Finding> = images
        .par_iter()
        .zip(by_image)
        .enumerate()
        .flat_map_iter(|(index, (image, detections))| {
            mistakes_of_image(index, image, detections, classes, settings, iou_type)
        })
        .collect();

    let mut kinds: Vec<Vec<Option<ErrorKind>>> = images.iter().map(|image| vec![None; image.results.len()]).collect();
    for finding in &findings {
        if let Some(detection) = finding.item.detection {
            kinds[finding.image][detection] = Some(finding.item.kind);
        }
    }
    let ap50 = mean_ap(images, &ranked, &findings, &kinds, None);
    let shares = ErrorKind::ALL
        .iter()
        .map(|&kind| ErrorShare {
            kind,
            count: findings.iter().filter(|f| f.item.kind == kind).count(),
            delta_ap50: mean_ap(images, &ranked, &findings, &kinds, Some(kind)) - ap50,
        })
        .collect();
    ErrorReport { ap50, shares, items: findings.into_iter().map(|f| f.item).collect() }
}

/// The object of highest overlap so far, the first of equals.
#[derive(Clone, Copy, Default)]
struct Closest {
    iou: f64,
    truth: Option<usize>,
}

impl Closest {
    fn see(&mut self, iou: f64, truth: usize) {
        if self.truth.is_none() || iou > self.iou {
            *self = Self { iou, truth: Some(truth) };
        }
    }
}

/// The mistakes of one image, whose ranked detections are given in any order.
fn mistakes_of_image(
    index: usize,
    image: &ImageBoxes,
    mut detections: Vec<Ranked>,
    classes: usize,
    settings: ErrorSettings,
    iou_type: IouType,
) -> Vec<Finding> {
    detections.sort_by(|a, b| by_score_falling(a.score, b.score).then(a.detection.cmp(&b.detection)));
    let counts = |t: &TruthBox| !t.crowd && !t.ignore && (t.class as usize) < classes;
    let mut found = vec![false; image.truths.len()];
    for detection in detections.iter().filter(|d| d.outcome == Outcome::TruePositive) {
        if let Some(truth) = detection.truth {
            found[truth] = true;
        }
    }
    let mut claimed = vec![false; image.truths.len()];
    let mut findings = Vec::new();
    for detection in detections.iter().filter(|d| d.outcome == Outcome::FalsePositive) {
        let result = &image.results[detection.detection];
        let (mut same, mut taken, mut other) = (Closest::default(), Closest::default(), Closest::default());
        for (i, truth) in image.truths.iter().enumerate().filter(|(_, t)| counts(t)) {
            let iou = overlap(result, truth, iou_type);
            if truth.class != result.class {
                other.see(iou, i);
                continue;
            }
            same.see(iou, i);
            if found[i] {
                taken.see(iou, i);
            }
        }
        let (kind, on) = if same.iou >= settings.background && same.iou < settings.foreground {
            (ErrorKind::Localisation, same)
        } else if other.iou >= settings.foreground {
            (ErrorKind::Classification, other)
        } else if taken.iou >= settings.foreground {
            (ErrorKind::Duplicate, taken)
        } else if other.iou >= settings.background {
            (ErrorKind::Both, other)
        } else {
            (ErrorKind::Background, Closest::default())
        };
        let mut repairable = false;
        if let (ErrorKind::Localisation | ErrorKind::Classification, Some(truth)) = (kind, on.truth) {
            repairable = !found[truth] && !claimed[truth];
            claimed[truth] = true;
        }
        findings.push(Finding {
            item: ErrorItem {
                kind,
                image_id: image.image_id,
                detection: Some(detection.detection),
                truth: on.truth,
                iou: on.iou,
            },
            image: index,
            score: detection.score,
            repairable,
        });
    }
    for (i, _) in image.truths.iter().enumerate().filter(|(i, t)| counts(t) && !found[*i] && !claimed[*i]) {
        findings.push(Finding {
            item: ErrorItem {
                kind: ErrorKind::Missed,
                image_id: image.image_id,
                detection: None,
                truth: Some(i),
                iou: 0.0,
            },
            image: index,
            score: 0.0,
            repairable: false,
        });
    }
    findings
}

/// Mean AP with the mistakes of one kind repaired: those that can be become true positives of their object's class,
/// other detections go, missed objects no longer count.
fn mean_ap(
    images: &[ImageBoxes],
    ranked: &[RankedClass],
    findings: &[Finding],
    kinds: &[Vec<Option<ErrorKind>>],
    repaired: Option<ErrorKind>,
) -> f64 {
    let mut lists: Vec<Vec<(f64, usize, usize, Outcome)>> = ranked
        .iter()
        .map(|class| {
            let kept = class.detections.iter();
            let kept = kept.filter(|d| repaired.is_none() || kinds[d.image][d.detection] != repaired);
            kept.map(|d| (d.score, d.image, d.detection, d.outcome)).collect()
        })
        .collect();
    let mut positives: Vec<usize> = ranked.iter().map(RankedClass::positive_count).collect();
    for finding in findings.iter().filter(|f| Some(f.item.kind) == repaired) {
        let Some(truth) = finding.item.truth else { continue };
        let class = images[finding.image].truths[truth].class as usize;
        match finding.item.detection {
            Some(detection) if finding.repairable => {
                lists[class].push((finding.score, finding.image, detection, Outcome::TruePositive));
            }
            Some(_) => {}
            None => positives[class] -= 1,
        }
    }
    let recalls = linspace(0.0, 1.0, 101);
    let ap: Vec<Option<f64>> = lists
        .par_iter_mut()
        .zip(&positives)
        .map(|(list, &count)| {
            list.sort_by(|a, b| by_score_falling(a.0, b.0).then((a.1, a.2).cmp(&(b.1, b.2))));
            let outcomes: Vec<Outcome> = list.iter().map(|entry| entry.3).collect();
            average_precision(&outcomes, count, &recalls)
        })
        .collect();
    let defined: Vec<f64> = ap.into_iter().flatten().collect();
    if defined.is_empty() { 0.0 } else { defined.iter().sum::<f64>() / defined.len() as f64 }
}

#[cfg(test)]
mod tests {
    use super::super::ResultBox;
    use super::*;

    fn truth(class: u32, x: f64) -> TruthBox {
        TruthBox { class, xywh: [x, 0.0, 10.0, 10.0], area: 100.0, id: 1, ..Default::default() }
    }

    fn result(class: u32, x: f64, score: f64) -> ResultBox {
        ResultBox { class, xywh: [x, 0.0, 10.0, 10.0], score, area: 100.0, mask: None }
    }

    fn report(truths: Vec<TruthBox>, results: Vec<ResultBox>) -> ErrorReport {
        let image = ImageBoxes { image_id: 5, truths, results };
        analyse_boxes(&[image], 3, ErrorSettings::default())
    }

    fn delta(report: &ErrorReport, kind: ErrorKind) -> f64 {
        report.shares.iter().find(|s| s.kind == kind).unwrap().delta_ap50
    }

    #[test]
    fn every_kind_is_told_apart() {
        let report = report(
            vec![truth(0, 0.0), truth(1, 100.0), truth(0, 200.0), truth(2, 300.0), truth(1, 400.0)],
            vec![
                result(0, 0.0, 0.9),   // right
                result(0, 1.0, 0.8),   // second on the same object
                result(0, 101.0, 0.7), // class 1 called 0
                result(0, 206.0, 0.6), // IoU 4 / 16 = 1/4 with its object
                result(0, 306.0, 0.5), // the same with an object of class 2
                result(0, 600.0, 0.4), // nothing there
            ],
        );
        let kinds: Vec<ErrorKind> = report.items.iter().map(|i| i.kind).collect();
        use ErrorKind::{Background, Both, Classification, Duplicate, Localisation, Missed};
        assert_eq!(kinds, [Duplicate, Classification, Localisation, Both, Background, Missed, Missed]);
        // an object under a mistake of both kinds is missed; one under a wrong class or a bad box is not
        assert_eq!(report.items[5].truth, Some(3));
        assert_eq!(report.items[6].truth, Some(4));
        assert!(report.items.iter().all(|i| i.image_id == 5));
        assert!((report.items[2].iou - 0.25).abs() < 1e-12);
        assert_eq!(report.shares.iter().map(|s| s.count).collect::<Vec<_>>(), [1, 1, 1, 1, 1, 2]);
    }

    #[test]
    fn repairing_a_duplicate_lifts_what_stands_below_it() {
        // Ranked TP FP TP of two objects: 51 recalls at 1, 50 at 2/3; without the duplicate AP is 1.
        let report = report(
            vec![truth(0, 0.0), truth(0, 100.0)],
            vec![result(0, 0.0, 0.9), result(0, 1.0, 0.8), result(0, 100.0, 0.7)],
        );
        let base = (51.0 + 50.0 * 2.0 / 3.0) / 101.0;
        assert!((report.ap50 - base).abs() < 1e-12);
        assert!((delta(&report, ErrorKind::Duplicate) - (1.0 - base)).abs() < 1e-12);
        assert_eq!(delta(&report, ErrorKind::Background), 0.0);
    }

    #[test]
    fn a_repaired_class_or_box_finds_its_object_once() {
        // Class 1 has one object, found by two detections of class 0 and badly placed by one of its own.
        let report = report(
            vec![truth(0, 0.0), truth(1, 100.0)],
            vec![result(0, 0.0, 0.9), result(0, 100.0, 0.8), result(0, 100.0, 0.7), result(1, 106.0, 0.6)],
        );
        assert!((report.ap50 - 0.5).abs() < 1e-12);
        // the best claims the object: class 1 then ranks TP, FP (its own bad box), AP 1
        assert!((delta(&report, ErrorKind::Classification) - 0.5).abs() < 1e-12);
        // the bad box comes too late to claim it, so repairing it only removes a false positive
        assert_eq!(delta(&report, ErrorKind::Localisation), 0.0);
        assert_eq!(delta(&report, ErrorKind::Missed), 0.0);
    }

    #[test]
    fn missed_objects_stop_counting_when_repaired() {
        let report = report(vec![truth(0, 0.0), truth(0, 100.0)], vec![result(0, 0.0, 0.9)]);
        // recall ends at 1/2: 51 of 101 recalls
        assert!((report.ap50 - 51.0 / 101.0).abs() < 1e-12);
        assert!((delta(&report, ErrorKind::Missed) - 50.0 / 101.0).abs() < 1e-12);
    }

    #[test]
    fn nothing_gives_an_empty_report() {
        let report = report(Vec::new(), vec![result(0, 0.0, 0.9)]);
        assert_eq!(report.ap50, 0.0);
        assert_eq!(report.items[0].kind, ErrorKind::Background);
        assert!(report.shares.iter().all(|s| s.delta_ap50 == 0.0));
    }
}
