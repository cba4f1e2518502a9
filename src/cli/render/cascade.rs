//! The view `cascade-iou`: overlap of every stage's boxes with the objects, as a table, a picture and JSON.

use super::{Arguments, CliError};
use crate::app::export::{self, Chart, Drawing, Figure, THRESHOLD, Table};
use crate::cli::{detect, write_json};
use crate::data;
use crate::detect::predict;
use crate::detect::predict::inference_pass;
use crate::engine::cascade_iou::{Overlaps, SHARES, StageOverlap, survey};
use crate::engine::fast_rcnn::FastRcnn;
use crate::engine::{DeviceChoice, model};
use crate::render::Threshold;

/// Where a box that a head leaves alone would lie.
const UNCHANGED: [[f32; 2]; 2] = [[0.0, 0.0], [1.0, 1.0]];

pub(super) fn draw(arguments: &Arguments) -> Result<(), CliError> {
    let device = DeviceChoice::Auto.open()?;
    let choice = detect::choice(arguments.model.as_deref(), arguments.weights.as_deref())?;
    let model = model::load(&choice, arguments.weights.as_deref(), arguments.allow_partial, &device)?;
    let dataset = data::open::open(&arguments.data, arguments.split.as_deref())?;
    if dataset.classes != model.detector.classes() {
        return Err(CliError(format!(
            "overlaps need objects in the model's classes: {} has {}, the model {}",
            dataset.name,
            dataset.classes.join(", "),
            model.detector.classes().join(", ")
        )));
    }
    let progress = |done: usize, total: usize| {
        if done.is_multiple_of(50) || done == total {
            eprintln!("{done} of {total} images");
        }
    };
    let overlaps = match &arguments.proposals {
        Some(file) => {
            let fast = FastRcnn::open(model.detector, file, &dataset)?;
            let look =
                |index, picture: &_, objects: &[_]| fast.predict(index, picture, Some(objects), inference_pass(true));
            survey(&dataset, arguments.limit, look, progress)?
        }
        None => {
            let detector = &*model.detector;
            let look = |_, picture: &_, objects: &[_]| {
                predict(detector, picture, Some(objects), inference_pass(true)).map_err(|e| e.to_string())
            };
            survey(&dataset, arguments.limit, look, progress)?
        }
    };
    for skipped in &overlaps.skipped {
        eprintln!("left out: {skipped}");
    }
    match &arguments.json {
        Some(file) => write_json(file, &overlaps.json())?,
        None => print!("{}", table(&overlaps)),
    }
    picture(arguments, &overlaps)
}

/// One line a stage; numbers of boxes and shares in per cent, and the deviations of the box codes of its positives before
/// and after they are divided by the stage's own.
fn table(overlaps: &Overlaps) -> String {
    let mut text = format!(
        "{:<18} {:>8} {:>9} {:>8} {:>8} {:>8} {:>16}   {:<27} {}\n",
        "stage", "boxes", "mean IoU", "IoU≥.5", "IoU≥.6", "IoU≥.7", "positive", "std of dx dy dw dh", "normalised"
    );
    for stage in &overlaps.stages {
        let [a, b, c] = stage.shares().map(|share| 100.0 * share);
        let positive = match (stage.positive_share(), stage.threshold) {
            (Some(share), Some(threshold)) => format!("{:.1} % ≥ {threshold:.2}", 100.0 * share),
            _ => "—".to_string(),
        };
        let (mut before, mut after) = ("—".to_string(), "—".to_string());
        if let Some(head) = stage.head.as_ref().filter(|head| head.deltas.count > 0) {
            let four = |values: [f32; 4]| values.map(|value| format!("{value:.3}")).join(" ");
            (before, after) = (four(head.deltas.std()), four(head.normalized.std()));
        }
        text += &format!(
            "{:<18} {:>8} {:>9.3} {a:>6.1} % {b:>5.1} % {c:>5.1} % {positive:>16}   {before:<27} {after}\n",
            stage.name,
            stage.boxes,
            stage.mean(),
        );
    }
    text
}

/// A row for each stage of detection: the histogram of its overlaps, and its head's localisation curve; beside the
/// proposals the curves of all heads.
fn picture(arguments: &Arguments, overlaps: &Overlaps) -> Result<(), CliError> {
    let stages: Vec<&StageOverlap> = overlaps.stages.iter().filter(|stage| !stage.of_training()).collect();
    let heights: Vec<Vec<f32>> = stages.iter().map(|stage| heights(stage)).collect();
    let curves: Vec<Vec<[f32; 2]>> = stages.iter().map(|stage| curve(stage)).collect();
    let top = heights.iter().flatten().copied().fold(0.0, f32::max);
    let mut charts = Vec::with_capacity(2 * stages.len());
    for (index, stage) in stages.iter().enumerate() {
        let mut lines: Vec<Threshold> =
            SHARES.iter().map(|&value| Threshold { value, color: [0.6, 0.6, 0.6, 1.0] }).collect();
        lines.extend(stage.threshold.map(|value| Threshold { value, color: THRESHOLD }));
        charts.push(Chart {
            title: format!("{}: % of {} boxes by IoU, mean {:.3}", stage.name, stage.boxes, stage.mean()),
            x_range: [0.0, 1.0],
            top: if top > 0.0 { 1.05 * top } else { 1.0 },
            bars: heights.get(index).map(|heights| (heights.clone(), lines)),
            ..Chart::default()
        });
        let mut series: Vec<(String, Vec<[f32; 2]>)> = vec![("unchanged".into(), UNCHANGED.to_vec())];
        for (place, (other, curve)) in stages.iter().zip(&curves).enumerate() {
            if (place == index || stage.head.is_none()) && !curve.is_empty() {
                series.push((other.name.clone(), curve.clone()));
            }
        }
        let title = if stage.head.is_some() { "IoU before and after" } else { "IoU before and after, all heads" };
        charts.push(Chart { title: title.into(), x_range: [0.0, 1.0], top: 1.0, series, ..Chart::default() });
    }
    let width = arguments.size.first().copied().unwrap_or(960).clamp(64, 8192);
    let row = arguments.size.get(1).copied().unwrap_or(540).clamp(64, 8192) / 2;
    let height = (row * stages.len().max(1) as u32).min(8192);
    let drawing = Some(Drawing::Charts { charts, columns: 2 });
    let figure = Figure { title: "Overlap with objects by stage".into(), drawing, table: bins(&stages) };
    Ok(export::write(&figure, &arguments.out, (width, height))?)
}

/// Boxes of every stage by overlap.
fn bins(stages: &[&StageOverlap]) -> Table {
    let mut table = Table::new(&["stage", "low", "high", "boxes"]);
    for stage in stages {
        for (bin, count) in stage.histogram.counts().iter().enumerate() {
            let (low, high) = stage.histogram.edges(bin);
            table.row(&[&stage.name, &low, &high, count]);
        }
    }
    table
}

/// Boxes of each bin, per cent of all.
fn heights(stage: &StageOverlap) -> Vec<f32> {
    let share = |&count: &u64| (100.0 * count as f64 / stage.boxes.max(1) as f64) as f32;
    stage.histogram.counts().iter().map(share).collect()
}

/// Mean overlap after over mean overlap before, by bins.
fn curve(stage: &StageOverlap) -> Vec<[f32; 2]> {
    let points = stage.head.as_ref().map(|head| head.curve.points()).unwrap_or_default();
    points.into_iter().map(|(before, after, _)| [before, after]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::BBox;
    use crate::trace::{Localisation, ProposalStage, Trace};

    #[test]
    fn the_table_has_a_line_for_each_stage() {
        let proposals = |name: &str, iou: Vec<f32>, threshold| ProposalStage {
            name: name.into(),
            boxes: vec![BBox::default(); iou.len()],
            iou,
            threshold,
            ..ProposalStage::default()
        };
        let head = Localisation {
            stage: "stage 1".into(),
            std: [0.1, 0.1, 0.2, 0.2],
            input_iou: vec![0.55],
            output_iou: vec![0.8],
            deltas: vec![[0.1, 0.0, 0.2, 0.0], [0.3, 0.0, 0.2, 0.0]],
        };
        let trace = Trace {
            proposals: vec![proposals("given", vec![0.55, 0.0], None), proposals("stage 1", vec![0.8, 0.0], Some(0.5))],
            localisation: vec![head],
            ..Trace::default()
        };
        let mut overlaps = Overlaps::default();
        overlaps.add(&trace);
        let text = table(&overlaps);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[1].starts_with("given") && lines[1].contains("50.0 %") && lines[1].contains('—'), "{text}");
        assert!(lines[2].contains("50.0 % ≥ 0.50") && lines[2].contains("0.100 0.000 0.000 0.000"), "{text}");
        assert!(lines[2].ends_with("1.000 0.000 0.000 0.000"), "{text}");
        assert_eq!(curve(&overlaps.stages[1]), [[0.55, 0.8]]);
        assert_eq!(heights(&overlaps.stages[0]).iter().sum::<f32>(), 100.0);
    }
}
