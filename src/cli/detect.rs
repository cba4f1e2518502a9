//! `boxwright detect`: detections of images, as text, JSON and annotated PNGs.

use super::multiscale::MultiScaleArguments;
use super::{Answer, CliError, Outcome, threads, write_json};
use crate::data;
use crate::detect::class_order::ClassOrder;
use crate::detect::darknet::DarknetConfig;
use crate::detect::predict::inference_pass;
use crate::detect::{Config, predict};
use crate::engine::command::ModelChoice;
use crate::engine::model::{self, Permit};
use crate::engine::{DeviceChoice, Precision};
use crate::imaging::draw::{draw_detections, save_png};
use crate::weights::LoadReport;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Architecture; may be left out when the weights say it
    #[arg(long)]
    model: Option<String>,
    /// Weights file; the embedded ones when left out
    #[arg(long)]
    weights: Option<PathBuf>,
    /// Lowest score that is shown, drawn and written
    #[arg(long, default_value_t = 0.3)]
    score: f32,
    /// cpu, cuda:N or auto
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// What the network multiplies in: f32, tf32, f16 or bf16
    #[arg(long, default_value = "f32")]
    precision: Precision,
    /// Folder for annotated PNGs
    #[arg(long)]
    out: Option<PathBuf>,
    /// File for results (COCO results plus image and times); - for stdout
    #[arg(long)]
    json: Option<PathBuf>,
    /// Changes a setting of the model (nms_threshold=0.5)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Detect although weights are missing or random
    #[arg(long)]
    allow_partial: bool,
    /// Leave a head of another number of classes than the weights' as it is built, at random
    #[arg(long)]
    reinit_head: bool,
    /// Where the class logits of --weights have their background: first, last or none; its names tell when left out
    #[arg(long, value_name = "PLACE", requires = "weights")]
    background: Option<ClassOrder>,
    #[command(flatten)]
    multi_scale: MultiScaleArguments,
    /// Threads that compute; 0 for one a core
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Images, folders or data sets
    #[arg(required = true)]
    paths: Vec<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Outcome {
    threads(arguments.threads)?;
    let device = arguments.device.open()?;
    let choice = choice(arguments.model.as_deref(), arguments.weights.as_deref())?;
    let permit = Permit {
        partial: arguments.allow_partial,
        reinitialise_head: arguments.reinit_head,
        class_order: arguments.background,
    };
    let weights = arguments.weights.as_deref();
    // settings of the configuration may change the head, so the first load only finds out what it is
    let first = Permit { partial: permit.partial || !arguments.set.is_empty(), ..permit };
    let mut model = model::load_permitting(&choice, weights, first, &device)?;
    if !arguments.set.is_empty() {
        let config = overridden(model.detector.config(), &arguments.set)?;
        let choice = ModelChoice::Configured(Box::new(config));
        model = model::load_permitting(&choice, weights, permit, &device)?;
    }
    if let Some(report) = &model.report {
        tell(report);
    }
    let plan = arguments.multi_scale.plan(model.detector.config())?;
    if let Some(folder) = &arguments.out {
        std::fs::create_dir_all(folder).map_err(|e| format!("cannot make the folder ({e}): {}", folder.display()))?;
    }
    let classes = model.detector.classes().to_vec();
    let (mut results, mut images, mut skipped) = (Vec::new(), Vec::new(), 0);
    for path in &arguments.paths {
        let dataset = data::open::open(&path.to_string_lossy(), None)?;
        for (index, entry) in dataset.images.iter().enumerate() {
            let picture = match dataset.picture(index) {
                Ok(picture) => picture,
                Err(error) => {
                    eprintln!("skipped: {error}");
                    skipped += 1;
                    continue;
                }
            };
            let prediction = arguments.precision.within(|| match &plan {
                Some(plan) => plan.predict(&*model.detector, &picture),
                None => predict(&*model.detector, &picture, None, inference_pass(false)),
            })?;
            let shown: Vec<_> = prediction.detections.into_iter().filter(|d| d.score >= arguments.score).collect();
            let seconds: f64 = prediction.timings.iter().map(|t| t.seconds).sum();
            if arguments.json.as_deref() != Some(Path::new("-")) {
                println!("{}: {} objects, {:.1} ms", entry.name, shown.len(), seconds * 1e3);
                for d in &shown {
                    let name = classes.get(d.class as usize).map_or("?", String::as_str);
                    let b = d.bbox;
                    println!("  {name:<16} {:.3}  [{:.1} {:.1} {:.1} {:.1}]", d.score, b.x0, b.y0, b.x1, b.y1);
                }
            }
            for d in &shown {
                results.push(serde_json::json!({
                    "image_id": entry.id,
                    "category_id": d.class + 1,
                    "category": classes.get(d.class as usize),
                    "bbox": d.bbox.to_xywh(),
                    "score": d.score,
                }));
            }
            images.push(serde_json::json!({
                "id": entry.id,
                "file_name": entry.name,
                "width": picture.width,
                "height": picture.height,
                "times": prediction.timings,
            }));
            if let Some(folder) = &arguments.out {
                let mut drawn = picture;
                draw_detections(&mut drawn, &shown, &classes);
                save_png(&drawn, &annotated_path(folder, &entry.name))?;
            }
        }
    }
    if let Some(file) = &arguments.json {
        write_json(file, &serde_json::json!({ "images": images, "results": results, "skipped": skipped }))?;
    }
    if images.is_empty() {
        return Err(CliError(format!("none of the {skipped} images could be read")));
    }
    Ok(Answer::Yes)
}

/// Prints what did not load, in red; nothing where all did.
pub(super) fn tell(report: &LoadReport) {
    if !report.is_complete() {
        let (red, plain) = if std::io::stderr().is_terminal() { ("\x1b[31m", "\x1b[0m") } else { ("", "") };
        eprint!("{red}{report}{plain}");
    }
}

/// What the two options together ask for: an architecture's name, a darknet `.cfg`, or what the weights say.
pub(super) fn choice(model: Option<&str>, weights: Option<&Path>) -> Result<ModelChoice, CliError> {
    match (model, weights) {
        (Some(cfg), _) if cfg.ends_with(".cfg") => {
            let text = std::fs::read_to_string(cfg).map_err(|e| format!("cannot read the network ({e}): {cfg}"))?;
            let config = DarknetConfig::read(&text).map_err(|e| format!("{e}: {cfg}"))?;
            Ok(ModelChoice::Configured(Box::new(Config::Darknet(config))))
        }
        (Some(name), _) => Ok(ModelChoice::Named(name.to_string())),
        (None, Some(_)) => Ok(ModelChoice::FromWeights),
        (None, None) => Ok(ModelChoice::Named("ssd-nano".into())),
    }
}

/// `config` with every `KEY=VALUE` applied.
pub(super) fn overridden(config: &Config, settings: &[String]) -> Result<Config, CliError> {
    settings.iter().try_fold(config.clone(), |config, setting| {
        let Some((key, value)) = setting.split_once('=') else {
            return Err(CliError(format!("--set {setting}: write it as key=value")));
        };
        Ok(crate::detect::config::set(&config, key.trim(), value.trim())?)
    })
}

/// A file in `folder` named after the image; a folder in the image's name becomes part of the file's.
fn annotated_path(folder: &Path, name: &str) -> PathBuf {
    let stem = Path::new(name).with_extension("");
    let flat: String = stem
        .to_string_lossy()
        .chars()
        .map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' })
        .collect();
    folder.join(format!("{}.png", flat.trim_start_matches('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_annotated_picture_stays_in_its_folder() {
        let folder = Path::new("out");
        assert_eq!(annotated_path(folder, "a/b.jpg"), Path::new("out/a_b.png"));
        assert_eq!(annotated_path(folder, "../../etc/x.jpg"), Path::new("out/_.._etc_x.png"));
    }
}
