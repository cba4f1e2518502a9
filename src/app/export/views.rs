//! Figures of the views: here those of a picture, of curves and of histograms; those of the panels come from beside them.

pub use crate::app::panels::anchors::figure::assigned;
pub use crate::app::panels::compare::figure::{side_scores, sides};
pub use crate::app::panels::data::augmentation::augmented;
pub use crate::app::panels::evaluation::figure::{
    by_score, confusion, images, misses, mistakes, numbers, precision_recall,
};
pub use crate::app::panels::features::figure::{Channels, by_level, map_grid};
pub use crate::app::panels::proposals::figure::by_stage;
pub use crate::app::panels::suppression::figure::before_and_after;

use super::figure::{Chart, Figure, Label, Still, THRESHOLD};
use super::table::{Maybe, Table};
use crate::app::outcome::{self, letter};
use crate::app::scene::{Choice, Prepared};
use crate::engine::Shown;
use crate::geometry::BBox;
use crate::render::{Outcome, Threshold};
use crate::stats::{Histogram, quantile};
use std::collections::BTreeMap;

/// Pixels from one line of a legend in a picture to the next.
const LEGEND_LINE: f32 = 14.0;

/// The picture as it is seen, with class and score at the boxes where `labelled`, and a legend where colours tell
/// errors; behind it every object and detection that is drawn.
pub fn image(shown: &Shown, prepared: &mut Prepared, choice: &Choice, labelled: bool) -> Figure {
    let scene = prepared.scene(shown, choice);
    let mut table = Table::new(&["kind", "class", "score", "x0", "y0", "x1", "y1", "crowd", "outcome"]);
    let mut add = |kind: &str, class: &str, score: Option<f32>, b: BBox, crowd: bool, outcome: Outcome| {
        let crowd = u8::from(crowd);
        table.row(&[&kind, &class, &Maybe(score), &b.x0, &b.y0, &b.x1, &b.y1, &crowd, &letter(outcome)]);
    };
    for (index, o) in shown.objects.iter().enumerate().filter(|(index, _)| prepared.shows_object(*index, choice)) {
        let outcome = prepared.object_outcome(index, choice.score);
        add("object", name(&shown.object_classes, o.class), None, o.bbox, o.crowd, outcome);
    }
    for (index, d) in shown.detections.iter().enumerate().filter(|(index, _)| prepared.shows(*index, choice)) {
        let class = name(&shown.detection_classes, d.class);
        add("detection", class, Some(d.score), d.bbox, false, prepared.outcome(index));
    }
    let mut labels = Vec::new();
    if let Some((map, look)) = prepared.heat() {
        let text = format!("{map}: {:.3} to {:.3}, {}", look.low, look.high, look.color_map.name());
        labels.push(Label { at: [2.0, LEGEND_LINE], text, color: [0; 3] });
    }
    if prepared.tells_errors(choice) {
        let seen = prepared.counts(choice.score).into_iter();
        let seen = seen.filter(|(outcome, count)| *count > 0 && choice.outcomes.shows(*outcome));
        labels.extend(seen.enumerate().map(|(row, (outcome, count))| Label {
            at: [2.0, shown.picture.height as f32 - LEGEND_LINE * row as f32],
            text: format!("{} {count}: {}", letter(outcome), outcome::name(outcome)),
            color: outcome::color(outcome),
        }));
    }
    labels.extend(prepared.captions(shown, choice, labelled).into_iter().map(Label::from));
    let still = Still { labels, ..Still::new(shown.name.clone(), scene) };
    Figure::stills(shown.name.clone(), vec![still], 1, table)
}

fn name(classes: &[String], class: u32) -> &str {
    classes.get(class as usize).map_or("?", String::as_str)
}

/// Points of curves, one a row.
pub fn curve_table(series: &BTreeMap<String, Vec<[f32; 2]>>) -> Table {
    let mut table = Table::new(&["series", "iteration", "value"]);
    for (name, points) in series {
        for [x, y] in points {
            table.row(&[name, x, y]);
        }
    }
    table
}

/// Curves of a run by iteration.
pub fn losses(series: &BTreeMap<String, Vec<[f32; 2]>>) -> Figure {
    let points = || series.values().flatten().filter(|p| p.iter().all(|v| v.is_finite()));
    let first = points().map(|p| p[0]).fold(f32::INFINITY, f32::min);
    let last = points().map(|p| p[0]).fold(f32::NEG_INFINITY, f32::max);
    // A run that started high would flatten the rest: the axis ends at the 98th percentile.
    let mut values: Vec<f32> = points().map(|p| p[1]).collect();
    let top = quantile(&mut values, 0.98).unwrap_or(1.0);
    let first = if first.is_finite() { first } else { 0.0 };
    let chart = Chart {
        x_label: "iteration".into(),
        x_range: [first, last.max(first + 1.0)],
        top: if top > 0.0 { top * 1.05 } else { 1.0 },
        series: series.iter().map(|(name, points)| (name.clone(), points.clone())).collect(),
        ..Chart::default()
    };
    Figure::charts("Losses", vec![chart], curve_table(series))
}

/// A histogram over its own range, with a line across it.
pub fn histogram(title: &str, x_label: &str, histogram: &Histogram, threshold: f32) -> Figure {
    let mut table = Table::new(&["low", "high", "count"]);
    for (bin, count) in histogram.counts().iter().enumerate() {
        let (low, high) = histogram.edges(bin);
        table.row(&[&low, &high, count]);
    }
    let heights: Vec<f32> = histogram.counts().iter().map(|&c| c as f32).collect();
    let top = heights.iter().copied().fold(0.0, f32::max);
    let (low, high) = histogram.range();
    let chart = Chart {
        title: title.into(),
        x_label: x_label.into(),
        x_range: [low, high],
        top: if top > 0.0 { top * 1.05 } else { 1.0 },
        bars: Some((heights, vec![Threshold { value: threshold, color: THRESHOLD }])),
        ..Chart::default()
    };
    Figure::charts(title, vec![chart], table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::export::Drawing;

    #[test]
    fn the_axis_holds_the_curves_and_the_table_every_point() {
        let mut series = BTreeMap::new();
        series.insert("loss".to_owned(), vec![[1.0, 4.0], [2.0, f32::NAN], [3.0, 2.0]]);
        series.insert("classification".to_owned(), vec![[1.0, 1.0]]);
        let figure = losses(&series);
        assert_eq!(figure.table.rows(), 4);
        let Some(Drawing::Charts { charts, .. }) = &figure.drawing else { panic!("no plot") };
        assert_eq!((charts[0].x_range, charts[0].series.len()), ([1.0, 3.0], 2));
        // nothing recorded is an empty plot with axes, not an axis without an end
        let Some(Drawing::Charts { charts, .. }) = &losses(&BTreeMap::new()).drawing else { panic!("no plot") };
        assert_eq!((charts[0].x_range, charts[0].top), ([0.0, 1.0], 1.05));
    }

    #[test]
    fn a_histogram_has_a_row_for_each_bin() {
        let mut counts = Histogram::new(0.0, 1.0, 4);
        counts.add_all(&[0.1, 0.2, 0.9]);
        let figure = histogram("t", "IoU", &counts, 0.5);
        assert_eq!(figure.table.text(), "low,high,count\r\n0,0.25,2\r\n0.25,0.5,0\r\n0.5,0.75,0\r\n0.75,1,1\r\n");
    }
}
