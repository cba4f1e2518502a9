//! `boxwright eval`: scores a model on a data set, or somebody's results against ground truth.

mod output;
mod pictures;
mod settings;

use super::multiscale::MultiScaleArguments;
use super::{Answer, CliError, Outcome, detect, threads, write_json};
use crate::data;
use crate::detect::class_order::ClassOrder;
use crate::engine::{DeviceChoice, Precision, evaluate, model};
use crate::eval::coco::IouType;
use crate::eval::misses::Misses;
use crate::eval::{ImageBoxes, files, voc};
use clap::ValueEnum;
use output::Scored;
use pictures::Pictures;
use settings::Choices;
use std::io::Write;
use std::path::{Path, PathBuf};

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

impl Overlap {
    fn iou_type(self) -> IouType {
        match self {
            Self::Bbox => IouType::Bbox,
            Self::Segm => IouType::Segm,
        }
    }
}

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Architecture; may be left out when the weights say it
    #[arg(long, conflicts_with_all = ["gt", "results"])]
    model: Option<String>,
    /// Weights file; the embedded ones when left out
    #[arg(long, conflicts_with_all = ["gt", "results"])]
    weights: Option<PathBuf>,
    #[command(flatten)]
    multi_scale: MultiScaleArguments,
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
    #[command(flatten)]
    choices: Choices,
    /// Other results for the same ground truth: their AP, and an interval for the difference
    #[arg(long, requires = "results", value_name = "RESULTS")]
    against: Option<PathBuf>,
    /// Draws of the bootstrap over images that gives AP an interval; 1000 with --against, none otherwise
    #[arg(long, value_name = "DRAWS")]
    bootstrap: Option<usize>,
    /// Seed of the bootstrap
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Also say why objects are missed by detections of at least this score, 0.4 when none is given (boxes, IoU .5)
    #[arg(
        long,
        value_name = "SCORE",
        num_args = 0..=1,
        default_missing_value = "0.4",
        conflicts_with_all = ["gt", "results", "multi_scale"]
    )]
    misses: Option<f32>,
    /// Write the scores as JSON (- for stdout)
    #[arg(long)]
    json: Option<PathBuf>,
    /// With --json: write the whole precision and recall arrays too
    #[arg(long, requires = "json")]
    full: bool,
    /// Write scores by class as CSV, and the curves beside it (scores.csv, scores-curves.csv)
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write curves, confusion, mistakes and calibration as SVG files into this folder
    #[arg(long, value_name = "FOLDER")]
    svg: Option<PathBuf>,
    /// Write one self-contained page with the worst images
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Where the pictures of --gt are, for --html; beside the file when left out
    #[arg(long, value_name = "FOLDER")]
    images: Option<PathBuf>,
    /// How many of the worst images reports show
    #[arg(long, default_value_t = 12)]
    worst: usize,
    /// cpu, cuda:N or auto
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// What the network multiplies in: f32, tf32, f16 or bf16
    #[arg(long, default_value = "f32", conflicts_with_all = ["gt", "results"])]
    precision: Precision,
    /// Score although weights are missing or random
    #[arg(long)]
    allow_partial: bool,
    /// Where the class logits of --weights have their background: first, last or none; its names tell when left out
    #[arg(long, value_name = "PLACE", requires = "weights")]
    background: Option<ClassOrder>,
    /// Threads that compute; 0 for one a core
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

pub fn run(arguments: &Arguments) -> Outcome {
    threads(arguments.threads)?;
    arguments.choices.check()?;
    if arguments.protocol != Protocol::Coco {
        let reports = [&arguments.csv, &arguments.svg, &arguments.html, &arguments.against];
        let others = arguments.bootstrap.is_some() || arguments.misses.is_some() || arguments.choices.are_made();
        if others || reports.iter().any(|r| r.is_some()) {
            return Err(CliError(
                "a VOC protocol has no choice of thresholds, sizes and limits, no causes of misses, and no report but \
                 --json: leave those options out, or score with --protocol coco"
                    .into(),
            ));
        }
    }
    match (&arguments.gt, &arguments.results) {
        (Some(gt), Some(results)) => results_on_truth(arguments, gt, results),
        _ => model_on_data(arguments),
    }
}

fn results_on_truth(arguments: &Arguments, gt: &Path, results: &Path) -> Outcome {
    if arguments.protocol != Protocol::Coco {
        let scored = files::evaluate_voc_files(gt, results, &voc_settings(arguments.protocol))?;
        return show_voc(arguments, &scored.classes, &scored.result);
    }
    let iou_type = arguments.iou_type.iou_type();
    let files = files::read_files(gt, results, iou_type)?;
    for note in &files.notes {
        eprintln!("note: {note}");
    }
    let against = match &arguments.against {
        Some(other) => Some(files::read_files(gt, other, iou_type)?.images),
        None => None,
    };
    output::write(
        arguments,
        Scored {
            title: format!("{} on {}", results.display(), gt.display()),
            images: files.images,
            classes: files.classes,
            notes: files.notes,
            against,
            misses: None,
            pictures: Pictures::beside(gt, arguments.images.as_deref(), files.file_names),
        },
    )
}

fn model_on_data(arguments: &Arguments) -> Outcome {
    let Some(data) = &arguments.data else {
        return Err(CliError("say what to score: --data DATA, or --gt GT.json --results R.json".into()));
    };
    let device = arguments.device.open()?;
    let choice = detect::choice(arguments.model.as_deref(), arguments.weights.as_deref())?;
    let permit = model::Permit {
        partial: arguments.allow_partial,
        class_order: arguments.background,
        ..model::Permit::default()
    };
    let model = model::load_permitting(&choice, arguments.weights.as_deref(), permit, &device)?;
    let plan = arguments.multi_scale.plan(model.detector.config())?;
    let dataset = data::open::open(data, Some(&arguments.split))?;
    let mut misses = arguments.misses.map(|score| Misses::new(score, dataset.classes.len()));
    let progress = |done: usize, total: usize| {
        if done.is_multiple_of(20) || done == total {
            eprint!("\r{done}/{total}");
            _ = std::io::stderr().flush();
        }
    };
    let score = || evaluate::score(&*model.detector, &dataset, plan.as_ref(), misses.as_mut(), progress);
    let scored = arguments.precision.within(score)?;
    eprintln!(" images in {:.1} s", scored.seconds);
    for skipped in &scored.skipped {
        eprintln!("counted as without detections: {skipped}");
    }
    if arguments.protocol == Protocol::Coco {
        let iou_type = arguments.iou_type.iou_type();
        let images = ImageBoxes::join(&evaluate::truth_of(&dataset), &scored.detections, iou_type);
        let of_skipped = |skipped: &String| format!("counted as without detections: {skipped}");
        return output::write(
            arguments,
            Scored {
                title: format!("{} on {} ({})", model.detector.config().arch(), dataset.name, dataset.split),
                notes: scored.skipped.iter().map(of_skipped).collect(),
                classes: dataset.classes.clone(),
                against: None,
                misses,
                pictures: Pictures::of_data(&images, dataset),
                images,
            },
        );
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

fn show_voc(arguments: &Arguments, classes: &[String], result: &voc::VocResult) -> Outcome {
    if !to_stdout(arguments) {
        for (name, ap) in classes.iter().zip(&result.ap) {
            println!("{name:<20} {}", ap.map_or("—".into(), |ap| format!("{:.1}", ap * 100.0)));
        }
        println!("{:<20} {:.1}", "mAP", result.map * 100.0);
    }
    if let Some(file) = &arguments.json {
        let per_class: Vec<_> = classes.iter().zip(&result.ap).collect();
        write_json(file, &serde_json::json!({ "map": result.map, "per_class": per_class }))?;
    }
    Ok(Answer::Yes)
}

/// Whether JSON takes the place of the text.
fn to_stdout(arguments: &Arguments) -> bool {
    arguments.json.as_deref() == Some(Path::new("-"))
}
