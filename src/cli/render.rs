//! `boxwright render`: any view as a PNG, without a window.

use super::{Answer, CliError, Outcome, detect};
use crate::app::export::{plot_to_png, scene_to_png};
use crate::app::scene::{Choice, Prepared};
use crate::data;
use crate::detect::predict;
use crate::detect::predict::inference_pass;
use crate::engine::{DeviceChoice, Shown, model};
use crate::stats::Histogram;
use clap::ValueEnum;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum View {
    /// The picture with its boxes
    Image,
    /// Loss and its parts of a run folder, by iteration
    Losses,
    /// Histogram of candidate scores before suppression
    Scores,
    /// Histogram of every anchor's best IoU with an object
    AnchorIou,
}

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[arg(long, value_enum)]
    view: View,
    /// PNG to write
    #[arg(long)]
    out: PathBuf,
    /// Image, data set or (for losses) run folder
    #[arg(long, default_value = "shapes")]
    data: String,
    /// Split of the data set
    #[arg(long)]
    split: Option<String>,
    /// Which image of the data set
    #[arg(long, default_value_t = 0)]
    index: usize,
    /// Architecture; may be left out when the weights say it
    #[arg(long)]
    model: Option<String>,
    /// Weights file; the embedded ones when left out
    #[arg(long)]
    weights: Option<PathBuf>,
    /// Lowest score that is drawn
    #[arg(long, default_value_t = 0.4)]
    score: f32,
    /// Also draw ground truth
    #[arg(long)]
    truth: bool,
    /// Also draw positive anchors and mined negatives
    #[arg(long)]
    anchors: bool,
    /// Feature map to lay over the picture (conv4, features.0, …)
    #[arg(long)]
    heat: Option<String>,
    /// Width and height of a plot
    #[arg(long, num_args = 2, default_values_t = [960, 540])]
    size: Vec<u32>,
}

pub fn run(arguments: &Arguments) -> Outcome {
    match arguments.view {
        View::Losses => losses(arguments)?,
        View::Image | View::Scores | View::AnchorIou => detected(arguments)?,
    }
    println!("{}", arguments.out.display());
    Ok(Answer::Yes)
}

fn plot_size(arguments: &Arguments) -> (u32, u32) {
    let side = |at: usize| arguments.size.get(at).copied().unwrap_or(540).clamp(64, 8192);
    (side(0), side(1))
}

fn losses(arguments: &Arguments) -> Result<(), CliError> {
    let path = PathBuf::from(&arguments.data).join("metrics.jsonl");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("no metrics of a run ({e}): {}", path.display()))?;
    let mut series: std::collections::BTreeMap<String, Vec<[f32; 2]>> = std::collections::BTreeMap::new();
    for line in text.lines() {
        // A torn last line of a killed run is no reason to draw nothing.
        let Ok(value) = serde_json::from_str::<serde_json::Value>(line) else { break };
        let x = value["iteration"].as_f64().unwrap_or_default() as f32;
        let mut add = |name: &str, y: Option<f64>| {
            if let Some(y) = y {
                series.entry(name.to_string()).or_default().push([x, y as f32]);
            }
        };
        add("loss", value["loss"].as_f64());
        for (name, part) in value["parts"].as_object().into_iter().flatten() {
            add(name, part.as_f64());
        }
    }
    if series.is_empty() {
        return Err(CliError(format!("no iteration is recorded yet: {}", path.display())));
    }
    Ok(plot_to_png(plot_size(arguments), &series, None, &arguments.out)?)
}

fn detected(arguments: &Arguments) -> Result<(), CliError> {
    let device = DeviceChoice::Auto.open()?;
    let choice = detect::choice(arguments.model.as_deref(), arguments.weights.as_deref())?;
    let model = model::load(&choice, arguments.weights.as_deref(), false, &device)?;
    let dataset = data::open::open(&arguments.data, arguments.split.as_deref())?;
    let Some(entry) = dataset.images.get(arguments.index) else {
        return Err(CliError(format!(
            "{} has {} images, none numbered {}",
            dataset.name,
            dataset.images.len(),
            arguments.index
        )));
    };
    let picture = dataset.picture(arguments.index)?;
    let same = dataset.classes == model.detector.classes();
    let objects = (same && !entry.objects.is_empty()).then_some(entry.objects.as_slice());
    let prediction = predict(&*model.detector, &picture, objects, inference_pass(true))?;
    let Some(trace) = prediction.trace else {
        return Err(CliError("the pass left no trace".into()));
    };
    match arguments.view {
        View::Scores => {
            let scores = trace.suppression.iter().flat_map(|s| &s.candidates).map(|c| c.score);
            return histogram(arguments, scores, arguments.score);
        }
        View::AnchorIou => {
            let Some(assignment) = &trace.assignment else {
                return Err(CliError(
                    "anchors have an IoU only with objects: choose data that is annotated in the model's classes"
                        .into(),
                ));
            };
            return histogram(arguments, assignment.iou.iter().copied().filter(|v| *v > 0.0), 0.5);
        }
        View::Image | View::Losses => {}
    }
    let shown = Shown {
        index: arguments.index,
        name: entry.name.clone(),
        picture: Arc::new(picture),
        objects: entry.objects.clone(),
        object_classes: dataset.classes.clone(),
        detections: prediction.detections,
        detection_classes: model.detector.classes().to_vec(),
        detected: true,
        timings: prediction.timings,
        trace: Some(Arc::new(trace)),
    };
    if let (Some(name), Some(trace)) = (&arguments.heat, &shown.trace)
        && !trace.maps.iter().any(|m| m.name == *name)
    {
        let names: Vec<&str> = trace.maps.iter().map(|m| m.name.as_str()).collect();
        return Err(CliError(format!("there is no map {name:?}; there are: {}", names.join(", "))));
    }
    let choice = Choice {
        truth: arguments.truth,
        predictions: true,
        anchors: arguments.anchors,
        heat: arguments.heat.clone(),
        score: arguments.score,
        isolated: None,
        selected: None,
        hovered: None,
    };
    Ok(scene_to_png(&Prepared::new(&shown, 1).scene(&shown, &choice), &arguments.out)?)
}

fn histogram(arguments: &Arguments, values: impl Iterator<Item = f32>, threshold: f32) -> Result<(), CliError> {
    let mut histogram = Histogram::new(0.0, 1.0, 50);
    for value in values {
        histogram.add(value);
    }
    let heights: Vec<f32> = histogram.counts().iter().map(|&c| c as f32).collect();
    let series = std::collections::BTreeMap::new();
    Ok(plot_to_png(plot_size(arguments), &series, Some((&heights, threshold)), &arguments.out)?)
}
