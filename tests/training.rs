//! Runs on disk: a resumed run equals the unbroken one bit for bit, checkpoints are whole, errors name their images.

use boxwright::data::{self, Dataset};
use boxwright::detect::{Arch, Config};
use boxwright::train::checkpoint::saved_config;
use boxwright::train::{Run, RunConfig, TrainConfig, TrainError};
use boxwright::weights;
use candle_core::Device;
use std::path::Path;
use std::sync::Arc;

const DATA: &str = "shapes:train=24,val=4,test=4";

fn dataset() -> Arc<Dataset> {
    Arc::new(data::open(DATA, Some("train")).unwrap())
}

fn config(iterations: u64) -> RunConfig {
    let dataset = dataset();
    let train = TrainConfig { iterations, batch: 4, checkpoint_every: 0, ..TrainConfig::new(Arch::SsdNano) };
    RunConfig {
        data: DATA.into(),
        split: Some("train".into()),
        train,
        model: Config::new(Arch::SsdNano, &dataset.classes),
    }
}

fn run(folder: &Path, iterations: u64) -> Run {
    Run::new(config(iterations), dataset(), &Device::Cpu, Some(folder.to_path_buf())).unwrap()
}

fn bytes(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("weights/last.safetensors")).unwrap()
}

#[test]
fn a_resumed_run_equals_the_unbroken_one_bit_for_bit() {
    let (whole, halves) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut unbroken = run(whole.path(), 6);
    while !unbroken.is_finished() {
        unbroken.advance(false).unwrap();
    }
    {
        let mut first = run(halves.path(), 6);
        for _ in 0..3 {
            first.advance(false).unwrap();
        }
        first.save().unwrap();
        // An iteration that was not saved is lost, as after a kill.
        first.advance(false).unwrap();
    }
    let saved = saved_config(halves.path()).unwrap();
    let mut second = Run::resume(saved, dataset(), &Device::Cpu, halves.path()).unwrap();
    assert_eq!(second.iteration, 3);
    while !second.is_finished() {
        second.advance(false).unwrap();
    }
    assert_eq!(bytes(whole.path()), bytes(halves.path()));
    let lines = |folder: &Path| {
        let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
        let field = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["loss"].to_string();
        text.lines().map(field).collect::<Vec<_>>()
    };
    assert_eq!(lines(whole.path()), lines(halves.path()));
}

#[test]
fn threads_and_probe_do_not_change_the_bits() {
    let result = |threads: usize, probe: bool| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).stack_size(16 << 20).build().unwrap();
        pool.install(|| {
            let folder = tempfile::tempdir().unwrap();
            let mut run = run(folder.path(), 2);
            while !run.is_finished() {
                run.advance(probe).unwrap();
            }
            bytes(folder.path())
        })
    };
    let one = result(1, false);
    assert_eq!(one, result(2, false), "two threads");
    assert_eq!(one, result(3, true), "three threads and a probe");
}

#[test]
fn a_torn_write_leaves_the_last_whole_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = run(folder.path(), 4);
    first.advance(false).unwrap();
    first.save().unwrap();
    // What a kill in the middle of the next save leaves behind: half a file under a temporary name.
    let whole = bytes(folder.path());
    std::fs::write(folder.path().join("weights/.last.safetensors.tmp"), &whole[..whole.len() / 2]).unwrap();
    let resumed = Run::resume(config(4), dataset(), &Device::Cpu, folder.path()).unwrap();
    assert_eq!(resumed.iteration, 1);
}

#[test]
fn a_truncated_checkpoint_is_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = run(folder.path(), 4);
    first.advance(false).unwrap();
    first.save().unwrap();
    let whole = bytes(folder.path());
    std::fs::write(folder.path().join("weights/last.safetensors"), &whole[..whole.len() / 3]).unwrap();
    let Err(error) = Run::resume(config(4), dataset(), &Device::Cpu, folder.path()) else { panic!("it loaded") };
    assert!(error.to_string().contains("last.safetensors"), "{error}");
}

#[test]
fn a_loss_that_is_no_number_names_images_and_boxes_and_changes_nothing() {
    let mut run = Run::new(config(4), dataset(), &Device::Cpu, None).unwrap();
    run.advance(false).unwrap();
    let name = "backbone.features.0.weight";
    let (_, mut values) = run.detector.params().values().unwrap()[name].clone();
    values[0] = f32::NAN;
    run.detector.params().set(name, &values).unwrap();
    let mean = "backbone.features.0.norm.running_mean";
    let before = run.detector.params().values().unwrap()[mean].1.clone();
    let error = run.advance(false).unwrap_err();
    assert!(matches!(error, TrainError::NotFinite { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("boxes [") && text.contains("shapes"), "{text}");
    assert_eq!(run.iteration, 1);
    let after = run.detector.params().values().unwrap()[mean].1.clone();
    assert_eq!(before, after);
}

#[test]
fn the_loss_falls_on_a_batch_that_repeats() {
    let mut config = config(30);
    config.data = "shapes:train=4,val=1,test=1".into();
    config.train.augmentation = boxwright::imaging::Augmentation::none();
    config.train.schedule.warmup = 0;
    let dataset = Arc::new(data::open(&config.data, Some("train")).unwrap());
    let mut run = Run::new(config, dataset, &Device::Cpu, None).unwrap();
    let first = run.advance(false).unwrap().loss;
    let mut last = first;
    while !run.is_finished() {
        last = run.advance(false).unwrap().loss;
    }
    println!("{first} → {last}");
    assert!(last < 0.5 * first, "{first} → {last}");
}

#[test]
fn weights_carry_what_they_are_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = run(folder.path(), 1);
    run.advance(false).unwrap();
    let checkpoint = weights::open(&folder.path().join("weights/weights.safetensors")).unwrap();
    assert_eq!(checkpoint.metadata()["boxwright.architecture"], "ssd-nano");
    let described = boxwright::train::checkpoint::described_model(checkpoint.metadata()).unwrap();
    assert_eq!(&described, run.detector.config());
}

#[test]
fn a_folder_that_cannot_be_written_is_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let blocked = folder.path().join("file");
    std::fs::write(&blocked, "in the way").unwrap();
    let Err(error) = Run::new(config(1), dataset(), &Device::Cpu, Some(blocked.join("run"))) else {
        panic!("a run below a file")
    };
    assert!(error.to_string().contains("file"), "{error}");
}
