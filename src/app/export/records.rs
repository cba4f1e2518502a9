//! Views that are lists: images of the data, the load report, the curves and samples of training, the log.

use super::figure::{Chart, Figure};
use super::table::{Maybe, Table};
use super::views;
use crate::app::state::LogLine;
use crate::data::Finding;
use crate::data::statistics::{Bin, Distribution, Statistics};
use crate::engine::Stepped;
use crate::engine::curves::{Curves, VALIDATION_AP, VALIDATION_LOSS, Validated, has_own_scale};
use crate::engine::event::{DataSummary, ModelSummary};
use crate::engine::run_folder::RunSummary;
use crate::train::RangeTest;
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

/// The numbers of a run's curves without what screens need of them: a copy of little cost, to be written elsewhere.
#[derive(Clone, Debug)]
pub struct CurveValues {
    /// What the run is called; nothing for the one at hand.
    run: String,
    /// Iteration of the first value.
    first: u64,
    series: Vec<(String, Vec<f32>)>,
    validations: Vec<Validated>,
}

impl CurveValues {
    pub fn of(run: &str, curves: &Curves) -> Self {
        let series = curves.series.iter().map(|(name, series)| (name.clone(), series.values().to_vec()));
        let (first, validations) = (curves.first, curves.validations.clone());
        Self { run: run.into(), first, series: series.collect(), validations }
    }

    /// Curves by name as points (iteration, value); the AP in per cent, where it is defined.
    fn points(&self) -> Vec<(&str, Vec<[f32; 2]>)> {
        let of_series = self.series.iter().map(|(name, values)| {
            let points = values.iter().enumerate().map(|(at, value)| [(self.first + at as u64) as f32, *value]);
            (name.as_str(), numbers(points))
        });
        let mut all: Vec<(&str, Vec<[f32; 2]>)> = of_series.collect();
        if !self.validations.is_empty() {
            let of =
                |value: fn(&Validated) -> f32| numbers(self.validations.iter().map(|v| [v.iteration as f32, value(v)]));
            all.push((VALIDATION_LOSS, of(|v| v.loss)));
            all.push((VALIDATION_AP, of(|v| if v.ap < 0.0 { f32::NAN } else { 100.0 * v.ap as f32 })));
        }
        all
    }
}

/// Points that can be drawn.
fn numbers(points: impl Iterator<Item = [f32; 2]>) -> Vec<[f32; 2]> {
    points.filter(|[_, y]| !y.is_nan()).collect()
}

/// Every curve of some runs by iteration, one a row in the table; drawn are those that `is_drawn` of their names.
pub fn losses(runs: &[CurveValues], is_drawn: impl Fn(&str) -> bool) -> Figure {
    let (mut all, mut drawn) = (BTreeMap::new(), BTreeMap::new());
    for run in runs {
        for (name, points) in run.points() {
            let title = if run.run.is_empty() { name.to_string() } else { format!("{}: {name}", run.run) };
            if is_drawn(name) {
                drawn.insert(title.clone(), points.clone());
            }
            all.insert(title, points);
        }
    }
    Figure { table: views::curve_table(&all), ..views::losses(&drawn) }
}

/// The losses of a run alone: the other curves have scales of their own.
pub fn losses_of(curves: &Curves) -> Figure {
    losses(&[CurveValues::of("", curves)], |name| !has_own_scale(name))
}

/// Loss by the logarithm of the learning rate, raw and smoothed.
pub fn range_test(test: &RangeTest) -> Figure {
    let mut table = Table::new(&["learning_rate", "loss", "smoothed"]);
    let (mut raw, mut smoothed) = (Vec::new(), Vec::new());
    for point in &test.points {
        table.row(&[&point.rate, &point.loss, &point.smoothed]);
        raw.push([point.rate.log10(), point.loss]);
        smoothed.push([point.rate.log10(), point.smoothed]);
    }
    let edge = |points: Option<&[f32; 2]>| points.map_or(0.0, |[x, _]| *x);
    let (first, last) = (edge(raw.first()), edge(raw.last()));
    // Where it diverges the loss would flatten everything before.
    let start = test.points.first().map_or(1.0, |point| point.loss);
    let title = match test.suggestion {
        Some(rate) => format!("Range test: the loss falls fastest at a learning rate of {rate:.2e}"),
        None => "Range test: the loss falls at no learning rate".to_string(),
    };
    let chart = Chart {
        title: title.clone(),
        x_label: "log10 of the learning rate".into(),
        y_label: "loss".into(),
        x_range: [first, last.max(first + 1e-3)],
        top: if start.is_finite() && start > 0.0 { 2.0 * start } else { 1.0 },
        bars: None,
        series: vec![("loss".into(), raw), ("loss, smoothed".into(), smoothed)],
    };
    Figure::charts(title, vec![chart], table)
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

/// What happened to a run, by the text of its `log.txt`: a date, a space and a message in each line.
pub fn run_log(text: &str) -> Figure {
    let mut table = Table::new(&["time", "message"]);
    for line in text.lines() {
        let (time, message) = line.split_once(' ').unwrap_or(("", line));
        table.row(&[&time, &message]);
    }
    Figure::numbers("Log of a run", table)
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
    use crate::train::range_test::RangePoint;
    use crate::train::{StepReport, Validation};

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

    fn report(iteration: u64, loss: f32) -> StepReport {
        StepReport { iteration, loss, learning_rate: 0.25, seconds: 0.5, ..StepReport::default() }
    }

    #[test]
    fn the_learning_rate_is_written_and_not_drawn() {
        let mut curves = Curves::default();
        curves.add(&report(7, 2.0));
        curves.add(&report(8, 1.0));
        let figure = losses_of(&curves);
        // the loss, learning rate, gradient norm, speed and wait of two iterations
        assert_eq!(figure.table.rows(), 10);
        assert!(figure.table.text().contains("learning rate,8,0.25"), "{}", figure.table.text());
        let Some(Drawing::Charts { charts, .. }) = &figure.drawing else { panic!("no plot") };
        assert_eq!(charts[0].series, [("loss".to_owned(), vec![[7.0, 2.0], [8.0, 1.0]])]);
    }

    #[test]
    fn what_is_written_is_what_was_there_when_it_was_asked_for_with_the_runs_laid_over() {
        let mut curves = Curves::default();
        curves.add(&report(1, 2.0));
        let mut old = curves.clone();
        let validation = |iteration, ap| Validation { iteration, ap, loss: 0.5, ..Validation::default() };
        old.add_validation(&validation(1, 0.25));
        old.add_validation(&validation(2, -1.0));
        let taken = [CurveValues::of("", &curves), CurveValues::of("old", &old)];
        curves.add(&report(2, 1.0));
        let figure = losses(&taken, |name| name == "loss" || name == VALIDATION_AP);
        // five numbers of an iteration each, two validation losses, and the one AP that is defined
        assert_eq!(figure.table.rows(), 5 + 5 + 2 + 1);
        assert!(figure.table.text().contains("old: validation AP ×100,1,25"), "{}", figure.table.text());
        let Some(Drawing::Charts { charts, .. }) = &figure.drawing else { panic!("no plot") };
        let names: Vec<&str> = charts[0].series.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["loss", "old: loss", "old: validation AP ×100"]);
    }

    #[test]
    fn a_range_test_has_a_row_for_each_rate_and_an_axis_that_holds_them() {
        let point = |rate, loss| RangePoint { rate, loss, smoothed: loss };
        let points = vec![point(1e-4, 2.0), point(1e-3, 1.0), point(1e-2, 9.0)];
        let figure = range_test(&RangeTest { points, suggestion: Some(1e-3), diverged_at: Some(1e-2) });
        assert_eq!(figure.table.rows(), 3);
        let Some(Drawing::Charts { charts, .. }) = &figure.drawing else { panic!("no plot") };
        assert!((charts[0].x_range[0] + 4.0).abs() < 1e-5 && (charts[0].x_range[1] + 2.0).abs() < 1e-5);
        assert!(charts[0].top == 4.0 && figure.title.contains("1.00e-3"), "{}", figure.title);
    }
}
