//! Training in 16 bits: the loss falls, what overflows is skipped, and a resumed run is the unbroken one.

use boxwright::data::{self, Dataset};
use boxwright::detect::{Arch, Config, Detector, Losses, Outputs};
use boxwright::geometry::{Detection, Object};
use boxwright::imaging::Augmentation;
use boxwright::nn::{Params, Pass};
use boxwright::train::checkpoint::saved_config;
use boxwright::train::config::Precision;
use boxwright::train::incident::Fault;
use boxwright::train::scaling::LossScale;
use boxwright::train::{Run, RunConfig, TrainConfig, TrainError};
use candle_core::{Device, Result, Tensor};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

const DATA: &str = "shapes:train=8,val=1,test=1";
/// The first convolution of the model.
const FIRST: &str = "backbone.features.0.weight";

fn dataset() -> Arc<Dataset> {
    Arc::new(data::open(DATA, Some("train")).unwrap())
}

fn config(precision: Precision, iterations: u64) -> RunConfig {
    let mut train = TrainConfig { iterations, batch: 4, checkpoint_every: 0, ..TrainConfig::new(Arch::SsdNano) };
    (train.precision, train.augmentation, train.schedule.warmup) = (precision, Augmentation::none(), 0);
    let model = Config::new(Arch::SsdNano, &dataset().classes);
    RunConfig { data: DATA.into(), split: Some("train".into()), train, model }
}

fn scale(factor: f32, updates: u32) -> LossScale {
    serde_json::from_value(json!({ "factor": factor, "updates": updates })).unwrap()
}

fn metrics(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_loss_falls_in_every_precision() {
    for precision in Precision::ALL {
        let mut run = Run::new(config(precision, 16), dataset(), &[Device::Cpu], None).unwrap();
        let batch = run.next_batch().unwrap();
        let mut losses = Vec::new();
        while !run.is_finished() {
            losses.push(run.advance_on(batch.clone(), false).unwrap().loss);
        }
        let (first, last) = (losses[0], losses[15]);
        assert!(last < 0.9 * first, "{precision}: {losses:?}");
    }
}

#[test]
fn a_run_resumed_in_the_middle_equals_the_unbroken_one_and_its_scale_grows_where_it_would_have() {
    let (whole, halves) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let start = |folder: &Path| {
        let config = config(Precision::F16, 6);
        let mut run = Run::new(config, dataset(), &[Device::Cpu], Some(folder.to_path_buf())).unwrap();
        // The fourth update in a row makes the two thousand full.
        run.loss_scale = Some(scale(64.0, 1996));
        run
    };
    let finish = |mut run: Run| {
        while !run.is_finished() {
            run.advance(false).unwrap();
        }
    };
    finish(start(whole.path()));
    let mut first = start(halves.path());
    for _ in 0..3 {
        first.advance(false).unwrap();
    }
    first.save().unwrap();
    drop(first);
    let saved = saved_config(halves.path()).unwrap();
    let second = Run::resume(saved, dataset(), &[Device::Cpu], halves.path()).unwrap();
    assert_eq!(second.loss_scale, Some(scale(64.0, 1999)));
    finish(second);
    let bytes = |folder: &Path| std::fs::read(folder.join("weights/last.safetensors")).unwrap();
    assert_eq!(bytes(whole.path()), bytes(halves.path()));
    let scales =
        |folder: &Path| -> Vec<Value> { metrics(folder).iter().map(|line| line["loss_scale"].clone()).collect() };
    assert_eq!(scales(halves.path()), scales(whole.path()));
    assert_eq!(scales(whole.path()), [64.0, 64.0, 64.0, 64.0, 128.0, 128.0]);
}

/// A detector whose loss has a finite value and an infinite slope in one weight.
struct Steep(Box<dyn Detector>);

impl Detector for Steep {
    fn config(&self) -> &Config {
        self.0.config()
    }

    fn params(&self) -> &Params {
        self.0.params()
    }

    fn forward(&self, images: &Tensor, pass: &Pass) -> Result<Outputs> {
        self.0.forward(images, pass)
    }

    fn losses(&self, outputs: &Outputs, objects: &[Vec<Object>], pass: &Pass) -> Result<Losses> {
        let mut losses = self.0.losses(outputs, objects, pass)?;
        if let Some(first) = self.params().get(FIRST) {
            // √(w − w₀) at w₀
            let root = first.var.as_tensor().sub(&first.var.detach())?.sqrt()?;
            losses.parts.push(("root".into(), root.sum_all()?));
        }
        Ok(losses)
    }

    fn detect(&self, outputs: &Outputs, pass: &Pass) -> Result<Vec<Vec<Detection>>> {
        self.0.detect(outputs, pass)
    }

    fn layouts(&self) -> &'static [&'static str] {
        self.0.layouts()
    }
}

#[test]
fn gradients_that_overflow_are_skipped_and_at_a_scale_of_one_they_are_an_incident() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = config(Precision::F16, 9);
    settings.train.history = 4;
    let mut run = Run::new(settings, dataset(), &[Device::Cpu], Some(folder.path().to_path_buf())).unwrap();
    run.detector = Box::new(Steep(run.detector));
    run.loss_scale = Some(scale(4.0, 7));
    let everything = |run: &Run| (run.detector.params().values().unwrap(), run.optimizer.state().unwrap());
    let before = everything(&run);
    for (iteration, factor) in [(1, 4.0), (2, 2.0)] {
        let report = run.advance(true).unwrap();
        assert_eq!((report.iteration, report.skipped, report.loss_scale), (iteration, true, Some(factor)));
        assert!(report.loss.is_finite() && report.gradient_norm.is_nan() && report.layers.is_empty());
        assert_eq!(run.loss_scale, Some(scale(factor / 2.0, 0)));
    }
    let lines = metrics(folder.path());
    assert!(lines.len() == 2 && lines.iter().all(|line| line["skipped"] == true && line["gradient_norm"].is_null()));
    // A step back takes the scale along.
    assert!(run.back().unwrap());
    assert_eq!(run.loss_scale, Some(scale(2.0, 0)));
    assert!(run.advance(false).unwrap().skipped);
    match run.advance(false) {
        Err(TrainError::Incident(incident)) => {
            assert_eq!(
                (incident.iteration, incident.fault, incident.layer.as_deref()),
                (3, Fault::Gradient, Some(FIRST))
            );
            assert!(incident.image.is_some());
        }
        other => panic!("{:?}", other.map(|report| report.skipped)),
    }
    assert_eq!((everything(&run), run.iteration, run.loss_scale), (before, 2, Some(scale(1.0, 0))));
}

#[test]
fn without_a_scale_such_gradients_are_an_incident_at_once() {
    let mut run = Run::new(config(Precision::Bf16, 2), dataset(), &[Device::Cpu], None).unwrap();
    run.detector = Box::new(Steep(run.detector));
    assert!(matches!(run.advance(false), Err(TrainError::Incident(_))));
}

#[test]
fn settings_without_a_precision_are_f32_and_names_are_those_of_the_command_line() {
    let written = toml::to_string(&config(Precision::Bf16, 1)).unwrap();
    assert!(written.contains("precision = \"bf16\""), "{written}");
    let earlier: RunConfig = toml::from_str(&written.replace("precision = \"bf16\"\n", "")).unwrap();
    assert_eq!(earlier.train.precision, Precision::F32);
    let changed = boxwright::detect::config::set(&earlier, "precision", "f16").unwrap();
    assert_eq!(changed.train.precision, Precision::F16);
}
