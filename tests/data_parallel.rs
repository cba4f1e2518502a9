//! Training on several devices, here several times the CPU: reproducible, resumable, by phases, on the command line.

use boxwright::data::{self, Dataset};
use boxwright::detect::Arch;
use boxwright::train::checkpoint::saved_config;
use boxwright::train::incident::Fault;
use boxwright::train::{Phase, Run, RunConfig, TrainError};
use candle_core::Device;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

const DATA: &str = "shapes:train=8,val=2,test=2";
const TWO: [Device; 2] = [Device::Cpu, Device::Cpu];

fn dataset() -> Arc<Dataset> {
    Arc::new(data::open(DATA, Some("train")).unwrap())
}

fn config() -> RunConfig {
    let mut config = RunConfig::new(Arch::SsdNano, DATA, &dataset());
    (config.train.iterations, config.train.batch, config.train.checkpoint_every) = (4, 4, 0);
    config
}

fn on_two(folder: &Path) -> Run {
    Run::new(config(), dataset(), &TWO, Some(folder.to_path_buf())).unwrap()
}

fn bytes(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("weights/last.safetensors")).unwrap()
}

fn end(mut run: Run) {
    while !run.is_finished() {
        run.advance(false).unwrap();
    }
}

#[test]
fn the_same_seed_gives_the_same_bits_whole_resumed_or_by_phases() {
    let folders = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let [whole, again, broken, phased] = folders.each_ref().map(tempfile::TempDir::path);
    end(on_two(whole));
    end(on_two(again));
    assert!(bytes(whole) == bytes(again), "a second run");
    {
        let mut first = on_two(broken);
        first.advance(false).unwrap();
        first.advance(true).unwrap();
        first.save().unwrap();
    }
    end(Run::resume(saved_config(broken).unwrap(), dataset(), &TWO, broken).unwrap());
    assert!(bytes(whole) == bytes(broken), "resumed");
    let mut run = on_two(phased);
    while run.phase(true).unwrap().0 != Phase::Forward {}
    let (partial, next) = run.in_progress().unwrap();
    assert_eq!((partial.traces.len(), partial.images.len(), next), (4, 4, Phase::Assign));
    assert!(partial.traces.iter().all(|trace| !trace.maps.is_empty()));
    run.abandon();
    while !run.is_finished() {
        run.phase(true).unwrap();
    }
    assert!(bytes(whole) == bytes(phased), "by phases");
    let manifest = std::fs::read_to_string(whole.join("manifest.json")).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&manifest).unwrap()["device"], "Cpu, Cpu");
}

#[test]
fn a_poisoned_weight_pauses_the_run_with_layer_and_image_and_changes_nothing() {
    const FIRST: &str = "backbone.features.0.weight";
    let folder = tempfile::tempdir().unwrap();
    let mut run = on_two(folder.path());
    let drawn = run.next_batch().unwrap();
    run.advance_on(drawn.clone(), false).unwrap();
    let (_, mut values) = run.detector.params().values().unwrap()[FIRST].clone();
    values[0] = f32::NAN;
    run.detector.params().set(FIRST, &values).unwrap();
    let TrainError::Incident(incident) = run.advance_on(drawn.clone(), false).unwrap_err() else {
        panic!("no incident")
    };
    assert_eq!((incident.iteration, incident.fault, incident.layer.as_deref()), (2, Fault::Loss, Some(FIRST)));
    assert!(incident.image.is_some_and(|image| drawn.names.contains(&image)));
    assert_eq!(run.iteration, 1);
    assert!(folder.path().join("blackbox.json").exists());
}

#[test]
fn the_last_batch_of_an_ordered_epoch_may_have_fewer_images_than_devices() {
    let weights = || {
        let mut config = config();
        (config.train.batch, config.train.iterations, config.train.shuffle) = (7, 3, false);
        // A map of one cell has no batch statistics over one image.
        config.train.freeze_batch_norm = true;
        let mut run = Run::new(config, dataset(), &TWO, None).unwrap();
        let images = [(); 3].map(|()| run.advance(false).unwrap().images.len());
        assert_eq!(images, [7, 1, 7]);
        run.detector.params().values().unwrap()
    };
    assert!(weights() == weights());
}

#[test]
fn the_command_line_takes_a_list_of_devices() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let train = |devices: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_boxwright"));
        command.args(["train", "--model", "ssd-nano", "--data", DATA, "--device", devices]);
        for setting in ["batch=4", "iterations=2", "workers=1"] {
            command.args(["--set", setting]);
        }
        command.arg("--out").arg(&out).output().unwrap()
    };
    let output = train("cpu,cpu");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let manifest = std::fs::read_to_string(out.join("manifest.json")).unwrap();
    assert!(manifest.contains("Cpu, Cpu"), "{manifest}");
    let output = train("cpu,cpu,cpu,cpu,cpu");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("a batch of 4 cannot be cut for 5 devices"), "{text}");
    assert!(!train("cpu,gpu").status.success());
}
