//! Views that are lists: images of the data, the load report, the curves and samples of training, the log.

use super::figure::{Chart, Figure};
use super::table::{Maybe, Table};
use super::views;
use crate::app::state::LogLine;
use crate::data::Finding;
use crate::data::statistics::{Bin, Distribution, Statistics};
use crate::engine::Stepped;
use crate::engine::curves::{Curves, DATA_WAIT, GRADIENT_NORM, LEARNING_RATE, SPEED, Validated};
use crate::engine::event::{DataSummary, ModelSummary};
use crate::engine::run_folder::RunSummary;
use std::collections::BTreeMap;

/// Images of the open data by position.
pub fn images(data: &DataSummary, positions: &[usize]) -> Figure {
    let mut table = Table::new(&[
        "position", "name", "width", "height", "objects", "small", "medium", "large", "crowds", "classes",
    ]);
    for &position in positions {
        let Some(image) = data.images.get(position) else { continue };
        let names = image.classes.iter().filter_map(|class| data.classes.get(*class as usize).map(String::as_str));
        let names: Vec<&str> = names.collect();
        let [small, medium, large] = image.ranges;
        table.row(&[
            &position,
            &image.name,
            &image.width,
            &image.height,
            &image.objects,
            &small,
            &medium,
            &large,
            &image.crowds,
            &names.join(" "),
        ]);
    }
    Figure::numbers(format!("{} {}", data.name, data.split), table)
}

/// What is wrong with a data set, worst first.
pub fn findings(findings: &[Finding]) -> Figure {
    let mut table = Table::new(&["severity", "rule", "file", "object", "message"]);
    for finding in findings {
        let severity = format!("{:?}", finding.severity).to_lowercase();
        table.row(&[&severity, &finding.rule, &finding.file, &Maybe(finding.object), &finding.message]);
    }
    Figure::numbers("Findings", table)
}

/// The distributions of a data set as histograms; behind them the classes.
pub fn statistics(statistics: &Statistics) -> Figure {
    let mut table = Table::new(&["class", "category_id", "objects", "images", "crowds", "median_side"]);
    for class in &statistics.classes {
        let (name, id) = (&class.name, &class.category_id);
        table.row(&[name, id, &class.objects, &class.images, &class.crowds, &Maybe(class.median_side)]);
    }
    let charts = vec![
        chart("Objects by side, log2 of pixels", &statistics.side, f32::log2),
        chart("Objects by width over height, log2", &statistics.aspect, f32::log2),
        chart("Objects by side over the picture's, log2", &statistics.relative_side, f32::log2),
        chart("Images by number of objects", &statistics.per_image, |edge| edge),
    ];
    Figure::charts(format!("{} {}", statistics.name, statistics.split), charts, table)
}

/// Bars over axes on which they are equally wide.
fn chart(title: &str, distribution: &Distribution, axis: fn(f32) -> f32) -> Chart {
    let bins: &[Bin] = &distribution.histogram;
    let heights: Vec<f32> = bins.iter().map(|bin| bin.count as f32).collect();
    let top = heights.iter().copied().fold(1.0, f32::max);
    let edge = |bin: Option<&Bin>, of: fn(&Bin) -> f32| bin.map_or(0.0, |bin| axis(of(bin)));
    let (first, last) = (edge(bins.first(), |bin| bin.low), edge(bins.last(), |bin| bin.high));
    Chart {
        title: title.into(),
        x_range: [first, if last > first { last } else { first + 1.0 }],
        top: 1.05 * top,
        bars: Some((heights, Vec::new())),
        ..Chart::default()
    }
}

/// What loading the weights did, key by key.
pub fn model(model: &ModelSummary) -> Figure {
    let mut table = Table::new(&["key", "outcome", "shape_of_network", "shape_in_file"]);
    if let Some(report) = &model.report {
        for name in &report.loaded {
            table.row(&[name, &"loaded"]);
        }
        for missing in &report.missing {
            table.row(&[&missing.name, &"missing", &shape(&missing.shape)]);
        }
        for (name, found) in &report.unexpected {
            table.row(&[name, &"unexpected", &"", &shape(found)]);
        }
        for (name, expected, found) in &report.mismatched {
            table.row(&[name, &"other shape", &shape(expected), &shape(found)]);
        }
    }
    Figure::numbers(format!("{} with {} weights", model.config.arch(), model.weights), table)
}

fn shape(sides: &[usize]) -> String {
    sides.iter().map(usize::to_string).collect::<Vec<_>>().join("x")
}

/// Every curve of a run by iteration; drawn are the losses, for the others have scales of their own.
pub fn losses(curves: &Curves) -> Figure {
    let mut all: BTreeMap<String, Vec<[f32; 2]>> = BTreeMap::new();
    for (name, series) in &curves.series {
        let points = series.values().iter().enumerate().filter(|(_, value)| !value.is_nan());
        let points = points.map(|(at, value)| [(curves.first + at as u64) as f32, *value]);
        all.insert(name.clone(), points.collect());
    }
    if !curves.validations.is_empty() {
        let point = |of: fn(&Validated) -> f32| -> Vec<[f32; 2]> {
            curves.validations.iter().map(|v| [v.iteration as f32, of(v)]).collect()
        };
        all.insert("validation loss".into(), point(|v| v.loss));
        all.insert("validation AP".into(), point(|v| v.ap as f32));
    }
    let aside = |name: &str| [LEARNING_RATE, GRADIENT_NORM, SPEED, DATA_WAIT, "validation AP"].contains(&name);
    let drawn: BTreeMap<String, Vec<[f32; 2]>> =
        all.iter().filter(|(name, _)| !aside(name)).map(|(name, points)| (name.clone(), points.clone())).collect();
    Figure { table: views::curve_table(&all), ..views::losses(&drawn) }
}

/// The runs on disk.
pub fn runs(list: &[RunSummary]) -> Figure {
    let mut table = Table::new(&["name", "model", "data", "started", "iteration", "iterations", "best_AP", "status"]);
    for run in list {
        let status = run.status.name();
        let (done, total) = (run.iteration, run.iterations);
        table.row(&[&run.name, &run.model, &run.data, &run.started, &done, &total, &Maybe(run.best_ap), &status]);
    }
    Figure::numbers("Runs", table)
}

/// Who entered the loss of the last probed iteration, image by image.
pub fn step(stepped: &Stepped) -> Figure {
    let mut table = Table::new(&["image", "anchor", "positive", "rank", "loss", "iou", "rule"]);
    for (position, trace) in stepped.report.traces.iter().enumerate() {
        let unnamed = position.to_string();
        let name = stepped.report.images.get(position).unwrap_or(&unnamed);
        let assignment = trace.assignment.as_ref();
        for sample in &trace.sampling {
            let index = sample.anchor as usize;
            let iou = assignment.and_then(|a| a.iou.get(index));
            let rule = assignment.and_then(|a| a.rule.get(index)).map(|rule| format!("{rule:?}"));
            let positive = u8::from(sample.positive);
            table.row(&[name, &index, &positive, &sample.rank, &sample.loss, &Maybe(iou), &Maybe(rule)]);
        }
    }
    Figure::numbers(format!("Samples of iteration {}", stepped.report.iteration), table)
}

/// The lines of the log, oldest first.
pub fn log<'a>(lines: impl Iterator<Item = &'a LogLine>) -> Figure {
    let mut table = Table::new(&["severity", "source", "message"]);
    for line in lines {
        table.row(&[&format!("{:?}", line.severity).to_lowercase(), &line.source, &line.message]);
    }
    Figure::numbers("Log", table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::export::Drawing;
    use crate::data::statistics::statistics as measure;
    use crate::train::StepReport;

    #[test]
    fn statistics_have_a_row_for_each_class_and_axes_that_hold_their_bars() {
        let dataset = crate::data::open("shapes:train=0,val=0,test=6", Some("test")).unwrap();
        let figure = statistics(&measure(&dataset));
        assert_eq!(figure.table.rows(), dataset.classes.len());
        let Some(Drawing::Charts { charts, .. }) = &figure.drawing else { panic!("no plots") };
        assert_eq!(charts.len(), 4);
        assert!(charts.iter().all(|chart| chart.x_range[1] > chart.x_range[0] && chart.top > 1.0));
        let Some(Drawing::Charts { charts, .. }) = statistics(&Statistics::default()).drawing else { panic!() };
        assert_eq!(charts[0].x_range, [0.0, 1.0]);
    }

    #[test]
    fn the_learning_rate_is_written_and_not_drawn() {
        let mut curves = Curves::default();
        for (iteration, loss) in [(7, 2.0), (8, 1.0)] {
            let report = StepReport { iteration, loss, learning_rate: 0.25, seconds: 0.5, ..StepReport::default() };
            curves.add(&report);
        }
        let figure = losses(&curves);
        // the loss, learning rate, gradient norm, speed and wait of two iterations
        assert_eq!(figure.table.rows(), 10);
        assert!(figure.table.text().contains("learning rate,8,0.25"), "{}", figure.table.text());
        let Some(Drawing::Charts { charts, .. }) = &figure.drawing else { panic!("no plot") };
        assert_eq!(charts[0].series, [("loss".to_owned(), vec![[7.0, 2.0], [8.0, 1.0]])]);
    }
}
