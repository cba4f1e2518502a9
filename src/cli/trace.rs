//! `boxwright trace`: the record of one pass, every part a tensor of a safetensors file.

use super::{Answer, CliError, Outcome, detect, write_json};
use crate::data;
use crate::detect::predict;
use crate::detect::predict::inference_pass;
use crate::engine::fast_rcnn::FastRcnn;
use crate::engine::{DeviceChoice, model};
use crate::weights::{TensorData, write_safetensors};
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Architecture; may be left out when the weights say it
    #[arg(long)]
    model: Option<String>,
    /// Weights file; the embedded ones when left out
    #[arg(long)]
    weights: Option<PathBuf>,
    /// File to write
    #[arg(long)]
    out: PathBuf,
    /// Write a summary as JSON (- for stdout)
    #[arg(long)]
    json: Option<PathBuf>,
    /// Which image of a data set
    #[arg(long, default_value_t = 0)]
    index: usize,
    /// Trace although weights are missing or random
    #[arg(long)]
    allow_partial: bool,
    /// Proposals for a two-stage detector instead of its own: a JSON list of image_id, bbox and maybe score
    #[arg(long)]
    proposals: Option<PathBuf>,
    /// cpu, cuda:N or auto
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// An image, or a data set whose ground truth then takes part
    image: String,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let device = arguments.device.open()?;
    let choice = detect::choice(arguments.model.as_deref(), arguments.weights.as_deref())?;
    let model = model::load(&choice, arguments.weights.as_deref(), arguments.allow_partial, &device)?;
    let dataset = data::open::open(&arguments.image, None)?;
    let Some(entry) = dataset.images.get(arguments.index) else {
        return Err(CliError(format!(
            "{} has {} images, none numbered {}",
            dataset.name,
            dataset.images.len(),
            arguments.index
        )));
    };
    let picture = dataset.picture(arguments.index)?;
    let same_classes = dataset.classes == model.detector.classes();
    let objects = (same_classes && !entry.objects.is_empty()).then_some(entry.objects.as_slice());
    let prediction = match &arguments.proposals {
        Some(file) => {
            let fast = FastRcnn::open(model.detector, file, &dataset)?;
            fast.predict(arguments.index, &picture, objects, inference_pass(true))?
        }
        None => predict(&*model.detector, &picture, objects, inference_pass(true))?,
    };
    let Some(trace) = prediction.trace else {
        return Err(CliError("the pass left no trace".into()));
    };
    let tensors: Vec<_> = trace.tensors().into_iter().map(|t| (t.name, t.shape, TensorData::F32(t.data))).collect();
    let summary = trace.summary();
    let metadata =
        BTreeMap::from([("image".to_string(), entry.name.clone()), ("summary".to_string(), summary.to_string())]);
    write_safetensors(&arguments.out, &tensors, &metadata)?;
    match &arguments.json {
        Some(file) => write_json(file, &summary)?,
        None => println!("{summary:#}"),
    }
    Ok(Answer::Yes)
}
