//! A scored set of images as a report: computed once, written as CSV, as SVG curves and as one HTML page.

pub mod csv;
pub mod html;
pub mod pictures;
pub mod plot;
pub mod svg;

use super::calibration::{Calibration, calibration};
use super::coco::CocoResult;
use super::confusion::{ConfusionMatrix, confusion_of_boxes};
use super::curves::{Curves, curves_of_boxes};
use super::errors::{ErrorReport, ErrorSettings, analyse_boxes};
use super::misses::Misses;
use super::worst::{ImageLoss, WorstBy, worst_images};
use super::{ImageBoxes, IouType};

/// IoU from which a detection is right in curves, confusion, errors, calibration and worst images.
pub const REPORT_IOU: f64 = 0.5;
/// Bins of the calibration diagram.
const CALIBRATION_BINS: usize = 15;

/// Everything that a report shows.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What was scored, for people.
    pub title: String,
    /// Names by class index.
    pub classes: Vec<String>,
    pub coco: CocoResult,
    pub curves: Curves,
    /// Score of highest F1 over all classes: what confusion and worst images are shown at. 0 where nothing is right.
    pub score: f64,
    pub confusion: ConfusionMatrix,
    pub errors: ErrorReport,
    pub calibration: Calibration,
    pub worst: Vec<ImageLoss>,
    /// Where causes of misses were asked for.
    pub misses: Option<Misses>,
    /// What a reader of the numbers should know.
    pub notes: Vec<String>,
}

impl Report {
    /// Computes what the protocol's scores do not say; `worst` is the number of images to name.
    pub fn new(
        title: String,
        images: &[ImageBoxes],
        classes: Vec<String>,
        coco: CocoResult,
        worst: usize,
        notes: Vec<String>,
    ) -> Self {
        let count = classes.len();
        let curves = curves_of_boxes(images, count, REPORT_IOU);
        let score = curves.pooled.best().map_or(0.0, |best| best.score);
        let errors = analyse_boxes(images, count, ErrorSettings { foreground: REPORT_IOU, ..Default::default() });
        Self {
            title,
            confusion: confusion_of_boxes(images, count, score, REPORT_IOU),
            calibration: calibration(images, count, REPORT_IOU, CALIBRATION_BINS),
            worst: worst_images(images, count, &errors, (score, REPORT_IOU), WorstBy::Mistakes, worst),
            classes,
            coco,
            curves,
            score,
            errors,
            misses: None,
            notes,
        }
    }

    /// Name of a class of the curves, errors and confusion.
    fn class_name(&self, class: usize) -> String {
        self.classes.get(class).cloned().unwrap_or_else(|| format!("class {class}"))
    }

    /// Name of a class of the protocol's result, which knows only one without categories.
    fn scored_name(&self, class: usize) -> String {
        if self.coco.settings.use_categories { self.class_name(class) } else { "all classes".to_owned() }
    }

    /// "boxes" or "masks".
    fn compared(&self) -> &'static str {
        match self.coco.settings.iou_type {
            IouType::Bbox => "boxes",
            IouType::Segm => "masks",
        }
    }
}

/// Text for HTML and SVG, in elements and in quoted attributes. Control characters, which XML cannot hold, become spaces.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
pub(super) mod samples {
    use super::super::coco::{CocoSettings, evaluate_boxes};
    use super::super::{ResultBox, TruthBox};
    use super::*;

    /// Three images, two classes with hostile names, every kind of mistake.
    pub fn report() -> (Report, Vec<ImageBoxes>) {
        let at = |x: f64| [x, 10.0, 20.0, 20.0];
        let truth = |class: u32, x: f64| TruthBox { class, xywh: at(x), area: 400.0, id: 1, ..Default::default() };
        let result =
            |class: u32, x: f64, score: f64| ResultBox { class, xywh: at(x), score, area: 400.0, ..Default::default() };
        let image =
            |image_id: u64, truths: Vec<TruthBox>, results: Vec<ResultBox>| ImageBoxes { image_id, truths, results };
        let images = vec![
            image(1, vec![truth(0, 0.0), truth(1, 50.0)], vec![result(0, 0.0, 0.9), result(1, 50.0, 0.8)]),
            image(2, vec![truth(0, 0.0), truth(1, 50.0)], vec![result(1, 0.0, 0.7), result(0, 90.0, 0.95)]),
            image(3, vec![truth(0, 0.0)], vec![result(0, 1.0, 0.6), result(0, 0.0, 0.85)]),
        ];
        let classes = vec!["<cat> & \"co\", Ltd".to_owned(), "dog".to_owned()];
        let coco = evaluate_boxes(&images, 2, &CocoSettings::default());
        let report = Report::new("a <set>".to_owned(), &images, classes, coco, 5, vec!["a & b".to_owned()]);
        (report, images)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_there_and_agrees() {
        let (report, _) = samples::report();
        assert_eq!(report.score, report.curves.pooled.best().unwrap().score);
        assert_eq!(report.worst[0].image_id, 2);
        assert_eq!(report.calibration.bins.len(), CALIBRATION_BINS);
        assert!((report.errors.ap50 - report.coco.stats[1]).abs() < 1e-12);
        assert_eq!((report.class_name(1), report.class_name(7)), ("dog".to_owned(), "class 7".to_owned()));
    }

    #[test]
    fn text_of_files_cannot_break_out() {
        assert_eq!(escape("<a href='x'>&\u{7}\"é"), "&lt;a href=&#39;x&#39;&gt;&amp; &quot;é");
    }
}
