//! `boxwright eval`: scores a model on a data set, or somebody's results against ground truth.

use super::{Answer, CliError, Outcome, detect, threads, write_json};
use crate::data;
use crate::engine::{DeviceChoice, evaluate, model};
use crate::eval::coco::{CocoResult, CocoSettings, IouType, evaluate_boxes};
use crate::eval::{files, table, voc};
use clap::ValueEnum;
use std::io::Write;
use std::path::PathBuf;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    Coco,
    Voc07,
    Voc12,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Overlap {
    Bbox,
    Segm,
}

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Architecture; may be left out when the weights say it
    #[arg(long, conflicts_with_all = ["gt", "results"])]
    model: Option<String>,
    /// Weights file; the embedded ones when left out
    #[arg(long, conflicts_with_all = ["gt", "results"])]
    weights: Option<PathBuf>,
    /// Data set: a path, or shapes
    #[arg(long, conflicts_with_all = ["gt", "results"])]
    data: Option<String>,
    /// Split of the data set
    #[arg(long, default_value = "test")]
    split: String,
    /// Ground truth as COCO JSON
    #[arg(long, requires = "results")]
    gt: Option<PathBuf>,
    /// Results as COCO JSON
    #[arg(long, requires = "gt")]
    results: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t = Overlap::Bbox)]
    iou_type: Overlap,
    #[arg(long, value_enum, default_value_t = Protocol::Coco)]
    protocol: Protocol,
    /// Write the scores as JSON (- for stdout)
    #[arg(long)]
    json: Option<PathBuf>,
    /// cpu, cuda:N or auto
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Score although weights are missing or random
    #[arg(long)]
    allow_partial: bool,
    /// Threads that compute; 0 for one a core
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

pub fn run(arguments: &Arguments) -> Outcome {
    threads(arguments.threads)?;
    match (&arguments.gt, &arguments.results) {
        (Some(gt), Some(results)) => {
            if arguments.protocol != Protocol::Coco {
                let scored = files::evaluate_voc_files(gt, results, &voc_settings(arguments.protocol))?;
                return show_voc(arguments, &scored.classes, &scored.result);
            }
            let iou_type = match arguments.iou_type {
                Overlap::Bbox => IouType::Bbox,
                Overlap::Segm => IouType::Segm,
            };
            let settings = CocoSettings { iou_type, ..CocoSettings::default() };
            let files = files::read_files(gt, results, iou_type)?;
            for note in &files.notes {
                eprintln!("note: {note}");
            }
            let result = evaluate_boxes(&files.images, files.classes.len(), &settings);
            show(arguments, &files.classes, &result)
        }
        _ => model_on_data(arguments),
    }
}

fn model_on_data(arguments: &Arguments) -> Outcome {
    let Some(data) = &arguments.data else {
        return Err(CliError("say what to score: --data DATA, or --gt GT.json --results R.json".into()));
    };
    let device = arguments.device.open()?;
    let choice = detect::choice(arguments.model.as_deref(), arguments.weights.as_deref())?;
    let model = model::load(&choice, arguments.weights.as_deref(), arguments.allow_partial, &device)?;
    let dataset = data::open::open(data, Some(&arguments.split))?;
    let scored = evaluate::score(&*model.detector, &dataset, |done, total| {
        if done.is_multiple_of(20) || done == total {
            eprint!("\r{done}/{total}");
            _ = std::io::stderr().flush();
        }
    })?;
    eprintln!(" images in {:.1} s", scored.seconds);
    for skipped in &scored.skipped {
        eprintln!("counted as without detections: {skipped}");
    }
    if arguments.protocol == Protocol::Coco {
        return show(arguments, &dataset.classes, &scored.result);
    }
    let truth: Vec<_> =
        dataset.images.iter().map(|i| crate::eval::ImageTruth { image_id: i.id, objects: i.objects.clone() }).collect();
    let result =
        voc::evaluate(&truth, &scored.detections, dataset.classes.len(), voc_settings(arguments.protocol).continuous());
    show_voc(arguments, &dataset.classes, &result)
}

fn voc_settings(protocol: Protocol) -> voc::VocSettings {
    if protocol == Protocol::Voc07 { voc::VocSettings::voc07() } else { voc::VocSettings::voc12() }
}

fn show(arguments: &Arguments, classes: &[String], result: &CocoResult) -> Outcome {
    println!("{}", table::table(result, classes));
    if let Some(file) = &arguments.json {
        let per_class: Vec<_> = classes.iter().zip(&result.per_class).collect();
        write_json(file, &serde_json::json!({ "stats": result.stats, "per_class": per_class }))?;
    }
    Ok(Answer::Yes)
}

fn show_voc(arguments: &Arguments, classes: &[String], result: &voc::VocResult) -> Outcome {
    for (name, ap) in classes.iter().zip(&result.ap) {
        println!("{name:<20} {}", ap.map_or("—".into(), |ap| format!("{:.1}", ap * 100.0)));
    }
    println!("{:<20} {:.1}", "mAP", result.map * 100.0);
    if let Some(file) = &arguments.json {
        let per_class: Vec<_> = classes.iter().zip(&result.ap).collect();
        write_json(file, &serde_json::json!({ "map": result.map, "per_class": per_class }))?;
    }
    Ok(Answer::Yes)
}
