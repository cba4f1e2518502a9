//! What the COCO protocol gives: the arrays of precision and recall, and the means that are quoted from them.

use super::coco::CocoSettings;
use super::ranking::mean_of_defined;
use super::verdicts::ImageMatch;
use serde::{Deserialize, Serialize};

/// Names of [`CocoResult::stats`], in order: precision over IoU thresholds, at 0.5, at 0.75, of small, medium and large
/// objects; recall with each of three detection limits, and of small, medium and large objects.
pub const STAT_NAMES: [&str; 12] =
    ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"];

/// Scores of one class; −1 where undefined.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassResult {
    pub ap: f64,
    pub ap50: f64,
    pub ap75: f64,
    pub small: f64,
    pub medium: f64,
    pub large: f64,
    /// Objects that count (no crowds).
    pub truths: usize,
    /// Detections kept under the largest limit.
    pub detections: usize,
}

/// Scores of one size range; −1 where undefined.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AreaResult {
    pub label: String,
    /// Pixels, both ends included.
    pub low: f64,
    pub high: f64,
    pub ap: f64,
    pub ar: f64,
}

/// Everything the protocol computes. Undefined entries (no object of that class and size) are −1.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CocoResult {
    pub settings: CocoSettings,
    /// See [`STAT_NAMES`]; −1 where undefined.
    pub stats: [f64; 12],
    pub per_class: Vec<ClassResult>,
    /// Precision, `[thresholds, recalls, classes, areas, limits]` row-major.
    #[serde(skip)]
    pub precision: Vec<f64>,
    /// Score of the detection that reaches each recall, shaped as `precision`.
    #[serde(skip)]
    pub scores: Vec<f64>,
    /// Final recall, `[thresholds, classes, areas, limits]` row-major.
    #[serde(skip)]
    pub recall: Vec<f64>,
    /// What became of each detection: every image at the first of `settings.match_thresholds`, then at the second, …
    #[serde(skip)]
    pub matches: Vec<ImageMatch>,
    /// Class names where the input came from a file that has them; otherwise empty.
    pub class_names: Vec<String>,
    /// Peculiarities of the input that a reader of the scores should know.
    pub notes: Vec<String>,
}

/// Which entries of the arrays a mean is taken over; `None` takes all.
#[derive(Clone, Copy)]
struct Selection {
    threshold: Option<f64>,
    class: Option<usize>,
    area: Option<usize>,
    limit: Option<usize>,
}

impl CocoResult {
    /// Index of the size range with this label.
    fn area(&self, label: &str) -> Option<usize> {
        self.settings.areas.iter().position(|(name, _, _)| name == label)
    }

    /// Precision at threshold `t`, recall `r`, class `k`, area `a`, limit `m` (indices); `None` outside the array.
    pub fn precision_at(&self, t: usize, r: usize, k: usize, a: usize, m: usize) -> Option<f64> {
        let (classes, areas, limits) =
            (self.per_class.len(), self.settings.areas.len(), self.settings.max_detections.len());
        if r >= self.settings.recalls || k >= classes || a >= areas || m >= limits {
            return None;
        }
        self.precision.get((((t * self.settings.recalls + r) * classes + k) * areas + a) * limits + m).copied()
    }

    /// Mean of the defined entries of `values`, `[thresholds, inner, classes, areas, limits]`, that `which` selects: in
    /// the array's order, as the rounding of the mean depends on it. Without the area or limit asked for, −1.
    fn mean(&self, values: &[f64], inner: usize, which: Selection) -> f64 {
        let (Some(area), Some(limit)) = (which.area, which.limit) else {
            return -1.0;
        };
        let (classes, limits) = (self.per_class.len(), self.settings.max_detections.len());
        let block = self.settings.areas.len() * limits;
        let offset = area * limits + limit;
        let rows = self.settings.thresholds.iter().enumerate();
        let rows = rows.filter(|&(_, &t)| which.threshold.is_none_or(|wanted| wanted == t));
        let chosen = which.class.map_or(0..classes, |class| class..class + 1);
        let cells = rows.flat_map(move |(t, _)| {
            let chosen = chosen.clone();
            (0..inner).flat_map(move |i| chosen.clone().map(move |k| (t * inner + i) * classes + k))
        });
        mean_of_defined(cells.map(|cell| values.get(cell * block + offset).copied().unwrap_or(-1.0)))
    }

    /// Mean precision at the largest limit.
    fn mean_precision(&self, threshold: Option<f64>, class: Option<usize>, area: &str) -> f64 {
        let limit = self.settings.max_detections.len().checked_sub(1);
        let which = Selection { threshold, class, area: self.area(area), limit };
        self.mean(&self.precision, self.settings.recalls, which)
    }

    /// Mean final recall at the limit with index `limit`.
    fn mean_recall(&self, area: &str, limit: Option<usize>) -> f64 {
        let limit = limit.filter(|&m| m < self.settings.max_detections.len());
        self.mean(&self.recall, 1, Selection { threshold: None, class: None, area: self.area(area), limit })
    }

    /// Average precision and recall (largest limit) of every size range, in the order of the settings.
    pub fn by_area(&self) -> Vec<AreaResult> {
        let last = self.settings.max_detections.len().checked_sub(1);
        let areas = self.settings.areas.iter();
        areas
            .map(|(label, low, high)| AreaResult {
                label: label.clone(),
                low: *low,
                high: *high,
                ap: self.mean_precision(None, None, label),
                ar: self.mean_recall(label, last),
            })
            .collect()
    }

    /// Average precision over all classes and sizes at each threshold.
    pub fn by_threshold(&self) -> Vec<(f64, f64)> {
        self.settings.thresholds.iter().map(|&t| (t, self.mean_precision(Some(t), None, "all"))).collect()
    }

    /// Average recall at each detection limit over objects of one size range.
    pub fn by_limit(&self, area: &str) -> Vec<(usize, f64)> {
        let limits = self.settings.max_detections.iter().enumerate();
        limits.map(|(m, &limit)| (limit, self.mean_recall(area, Some(m)))).collect()
    }

    /// Names of [`CocoResult::stats`] with the detection limits that were used.
    pub fn stat_names(&self) -> [String; 12] {
        let mut names = STAT_NAMES.map(str::to_owned);
        for (name, limit) in names[6..9].iter_mut().zip(&self.settings.max_detections) {
            *name = format!("AR{limit}");
        }
        names
    }

    /// Fills `stats` and the scores of `per_class` from the arrays.
    pub(super) fn summarize(&mut self) {
        let last = self.settings.max_detections.len().checked_sub(1);
        self.stats = [
            self.mean_precision(None, None, "all"),
            self.mean_precision(Some(0.5), None, "all"),
            self.mean_precision(Some(0.75), None, "all"),
            self.mean_precision(None, None, "small"),
            self.mean_precision(None, None, "medium"),
            self.mean_precision(None, None, "large"),
            self.mean_recall("all", Some(0)),
            self.mean_recall("all", Some(1)),
            self.mean_recall("all", Some(2)),
            self.mean_recall("small", last),
            self.mean_recall("medium", last),
            self.mean_recall("large", last),
        ];
        let scored: Vec<ClassResult> = self
            .per_class
            .iter()
            .enumerate()
            .map(|(k, class)| ClassResult {
                ap: self.mean_precision(None, Some(k), "all"),
                ap50: self.mean_precision(Some(0.5), Some(k), "all"),
                ap75: self.mean_precision(Some(0.75), Some(k), "all"),
                small: self.mean_precision(None, Some(k), "small"),
                medium: self.mean_precision(None, Some(k), "medium"),
                large: self.mean_precision(None, Some(k), "large"),
                ..*class
            })
            .collect();
        self.per_class = scored;
    }
}
