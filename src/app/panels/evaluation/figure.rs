//! The Evaluation view as figures: scores, curves, confusion, mistakes and misses, each with the numbers behind it.

use super::{EvaluationPanel, Page};
use crate::app::export::table::{Maybe, score};
use crate::app::export::{Bar, Chart, Draft, Drawing, Figure, Matrix, Table};
use crate::app::settings::Settings;
use crate::app::state::percent;
use crate::engine::details::CurveView;
use crate::engine::event::EvalSummary;
use crate::eval::curves::CurvePoint;
use crate::eval::misses::Misses;
use std::sync::Arc;

impl EvaluationPanel {
    /// The page on show, to be made a figure of.
    pub fn draft(&self, evaluation: Arc<EvalSummary>, settings: &Settings) -> Draft {
        let (page, iou, class, score, masks) = (self.page, self.iou, self.class, settings.score, self.masks);
        let drawn = self.drawn.clone();
        Box::new(move || match page {
            Page::Numbers => numbers(&evaluation, masks),
            Page::PrecisionRecall => precision_recall(&evaluation, iou, Some(drawn.as_slice()), masks),
            Page::ByScore => by_score(&evaluation, iou, class, masks),
            Page::Confusion => confusion(&evaluation),
            Page::Mistakes => mistakes(&evaluation),
            Page::Misses => misses(&evaluation),
            Page::Images => images(&evaluation, score),
        })
    }
}

/// COCO's scores of all classes and of each; of masks where `masks` asks for them and there are any, here and below.
pub fn numbers(evaluation: &EvalSummary, masks: bool) -> Figure {
    let mut table = Table::new(&[
        "class",
        "AP",
        "AP50",
        "AP75",
        "APs",
        "APm",
        "APl",
        "objects",
        "detections",
        "AR1",
        "AR10",
        "AR100",
    ]);
    let result = evaluation.result_by(masks);
    let stats = result.stats;
    let total = |of: fn(&crate::eval::ClassResult) -> usize| result.per_class.iter().map(of).sum::<usize>();
    table.row(&[
        &"all classes",
        &score(stats[0]),
        &score(stats[1]),
        &score(stats[2]),
        &score(stats[3]),
        &score(stats[4]),
        &score(stats[5]),
        &total(|c| c.truths),
        &total(|c| c.detections),
        &score(stats[6]),
        &score(stats[7]),
        &score(stats[8]),
    ]);
    for (name, class) in evaluation.classes.iter().zip(&result.per_class) {
        table.row(&[
            name,
            &score(class.ap),
            &score(class.ap50),
            &score(class.ap75),
            &score(class.small),
            &score(class.medium),
            &score(class.large),
            &class.truths,
            &class.detections,
        ]);
    }
    Figure::numbers(title(evaluation, &format!("Scores{}", of_masks(evaluation, masks))), table)
}

/// Precision by recall at one of the curves' IoU thresholds: of all classes together and of those in `drawn` (all of
/// them without); the table has every class.
pub fn precision_recall(evaluation: &EvalSummary, iou: usize, drawn: Option<&[u32]>, masks: bool) -> Figure {
    let mut table = Table::new(&["class", "iou", "score", "precision", "recall", "f1"]);
    let mut series = Vec::new();
    let mut at = 0.5;
    if let Some(set) = evaluation.curves_by(masks).get(iou) {
        at = set.iou;
        let named = evaluation.classes.iter().map(String::as_str).zip(&set.classes).enumerate();
        let classes = named.map(|(class, (name, view))| (Some(class as u32), name, view));
        for (class, name, view) in std::iter::once((None, "all classes", &set.pooled)).chain(classes) {
            for p in &view.points {
                table.row(&[&name, &set.iou, &p.score, &p.precision, &p.recall, &p.f1]);
            }
            if class.is_none_or(|class| drawn.is_none_or(|drawn| drawn.contains(&class))) {
                let points = view.points.iter().map(|p| [p.recall as f32, p.precision as f32]).collect();
                series.push((format!("{name}: AP {}", percent(view.ap.unwrap_or(-1.0))), points));
            }
        }
    }
    let chart = Chart {
        title: title(evaluation, &format!("Precision by recall, IoU{} {at:.2}", of_masks(evaluation, masks))),
        x_label: "recall".into(),
        y_label: "precision".into(),
        x_range: [0.0, 1.0],
        top: 1.0,
        bars: None,
        series,
    };
    Figure::charts(chart.title.clone(), vec![chart], table)
}

/// Precision, recall and F1 by score, of a class or of all together.
pub fn by_score(evaluation: &EvalSummary, iou: usize, class: Option<u32>, masks: bool) -> Figure {
    let empty = CurveView::default();
    let set = evaluation.curves_by(masks).get(iou);
    let own = |class: u32| set.and_then(|set| set.classes.get(class as usize));
    let view = class.and_then(own).or(set.map(|set| &set.pooled)).unwrap_or(&empty);
    let name = class.and_then(|c| evaluation.classes.get(c as usize)).map_or("all classes", String::as_str);
    let mut table = Table::new(&["class", "score", "precision", "recall", "f1"]);
    for p in &view.points {
        table.row(&[&name, &p.score, &p.precision, &p.recall, &p.f1]);
    }
    type Part = (&'static str, fn(&CurvePoint) -> f64);
    let parts: [Part; 3] = [("precision", |p| p.precision), ("recall", |p| p.recall), ("F1", |p| p.f1)];
    let line = |of: fn(&CurvePoint) -> f64| -> Vec<[f32; 2]> {
        view.points.iter().map(|p| [p.score as f32, of(p) as f32]).collect()
    };
    let (at, of) = (set.map_or(0.5, |set| set.iou), of_masks(evaluation, masks));
    let chart = Chart {
        title: title(evaluation, &format!("{name} by score, IoU{of} {at:.2}")),
        x_label: "score threshold".into(),
        x_range: [0.0, 1.0],
        top: 1.0,
        series: parts.into_iter().map(|(part, of)| (part.to_owned(), line(of))).collect(),
        ..Chart::default()
    };
    Figure::charts(chart.title.clone(), vec![chart], table)
}

/// Objects by what they were found as, background last.
pub fn confusion(evaluation: &EvalSummary) -> Figure {
    let confusion = &evaluation.confusion;
    let mut names = evaluation.classes.clone();
    names.truncate(confusion.matrix.classes);
    names.push("background".into());
    let mut table = Table::new(&["annotated", "detected", "count", "share_of_row"]);
    let shares = confusion.matrix.row_shares();
    for (place, (count, share)) in confusion.matrix.counts.iter().zip(&shares).enumerate() {
        let (row, column) = (place / names.len(), place % names.len());
        if let (Some(annotated), Some(detected)) = (names.get(row), names.get(column)) {
            table.row(&[annotated, detected, count, share]);
        }
    }
    let title = format!("Confusion at score {:.2}, IoU {:.2}", confusion.score, confusion.iou);
    let matrix = Matrix { names, counts: confusion.matrix.counts.clone(), shares };
    Figure { title: self::title(evaluation, &title), drawing: Some(Drawing::Matrix(matrix)), table }
}

/// TIDE's kinds of mistakes with what each costs.
pub fn mistakes(evaluation: &EvalSummary) -> Figure {
    let mut table = Table::new(&["kind", "count", "delta_AP50"]);
    let mut bars = Vec::new();
    for share in &evaluation.details.errors {
        table.row(&[&share.kind.name(), &share.count, &share.delta_ap50]);
        bars.push(Bar {
            name: share.kind.name().to_owned(),
            length: share.delta_ap50.max(0.0),
            words: format!("{:+.1} AP at IoU .5, {} mistakes", share.delta_ap50 * 100.0, share.count),
        });
    }
    let title = title(evaluation, "What AP at IoU .5 would gain without the mistakes of a kind");
    Figure { title, drawing: Some(Drawing::Bars(bars)), table }
}

/// Missed objects by cause, and in the table by class; empty where causes were not asked for.
pub fn misses(evaluation: &EvalSummary) -> Figure {
    let mut table = Table::new(&["cause", "class", "objects"]);
    let mut bars = Vec::new();
    let Some(misses) = &evaluation.misses else {
        return Figure::numbers(title(evaluation, "Causes of misses were not asked for"), table);
    };
    for kind in misses.kinds() {
        for (class, count) in misses.classes(Some(kind)) {
            table.row(&[&Misses::name(kind), &evaluation.classes.get(class).map_or("?", String::as_str), &count]);
        }
        let count = misses.count(None, Some(kind));
        let words = format!("{count} objects, {:.1} %", 100.0 * count as f64 / misses.count(None, None) as f64);
        bars.push(Bar { name: Misses::name(kind).to_owned(), length: count as f64, words });
    }
    Figure { title: title(evaluation, &misses.heading()), drawing: Some(Drawing::Bars(bars)), table }
}

/// How every image comes out at a score threshold, worst first.
pub fn images(evaluation: &EvalSummary, score: f32) -> Figure {
    let mut table = Table::new(&["image", "image_id", "found", "wrong", "missed"]);
    let mut counted: Vec<_> = evaluation.details.tallies.iter().map(|tally| tally.at(score)).enumerate().collect();
    counted.sort_by_key(|(_, counts)| counts.value());
    for (index, counts) in counted {
        let id = evaluation.details.truth.get(index).map(|truth| truth.image_id);
        table.row(&[&index, &Maybe(id), &counts.found, &counts.wrong, &counts.missed]);
    }
    Figure::numbers(title(evaluation, &format!("Images at score {score:.2} and IoU 0.50")), table)
}

/// What a title says of an overlap where masks are scored.
fn of_masks(evaluation: &EvalSummary, masks: bool) -> &'static str {
    if masks && evaluation.masks.is_some() { " of masks" } else { "" }
}

fn title(evaluation: &EvalSummary, what: &str) -> String {
    format!("{what}: {} on {}", evaluation.model, evaluation.data)
}
