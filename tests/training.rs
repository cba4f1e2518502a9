//! Runs: resumed, killed, forked, taken apart and stepped back they give the same bits; incidents name their cause.

use boxwright::data::{self, Dataset};
use boxwright::detect::{Arch, Config};
use boxwright::engine::run_folder::Status;
use boxwright::engine::runs::Runs;
use boxwright::random::Random;
use boxwright::train::blackbox::Recording;
use boxwright::train::checkpoint::{kept, last, saved_config, saved_iteration};
use boxwright::train::config::BestBy;
use boxwright::train::embedding::recipe;
use boxwright::train::incident::Fault;
use boxwright::train::{Incident, Phase, RangeSettings, Run, RunConfig, TrainConfig, TrainError};
use boxwright::weights;
use candle_core::Device;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const DATA: &str = "shapes:train=24,val=4,test=4";
/// The first convolution of the model.
const FIRST: &str = "backbone.features.0.weight";

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
    Run::new(config(iterations), dataset(), &[Device::Cpu], Some(folder.to_path_buf())).unwrap()
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
    let mut second = Run::resume(saved, dataset(), &[Device::Cpu], halves.path()).unwrap();
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
    let resumed = Run::resume(config(4), dataset(), &[Device::Cpu], folder.path()).unwrap();
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
    let Err(error) = Run::resume(config(4), dataset(), &[Device::Cpu], folder.path()) else { panic!("it loaded") };
    assert!(error.to_string().contains("last.safetensors"), "{error}");
}

/// The lines of `metrics.jsonl` without what the clock says.
fn metrics(folder: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let line = |line: &str| {
        let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["seconds"].take();
        line["data_seconds"].take();
        if let Some(validation) = line.get_mut("validation") {
            validation["seconds"].take();
        }
        line
    };
    text.lines().map(line).collect()
}

#[test]
fn a_validation_that_is_missing_is_made_up_as_if_it_had_come_in_time() {
    // The last validation, and one in the middle.
    for every in [2, 1] {
        let root = tempfile::tempdir().unwrap();
        let (whole, broken) = (root.path().join("whole"), root.path().join("broken"));
        let mut settings = config(2);
        (settings.train.batch, settings.train.validate_every) = (2, every);
        let mut unbroken = Run::new(settings.clone(), dataset(), &[Device::Cpu], Some(whole.clone())).unwrap();
        while !unbroken.is_finished() {
            unbroken.advance(false).unwrap();
        }
        let mut run = Run::new(settings, dataset(), &[Device::Cpu], Some(broken.clone())).unwrap();
        for _ in 1..every {
            run.advance(false).unwrap();
        }
        // The best weights cannot be written, so the validation counts for nothing.
        let best = broken.join("weights/best.safetensors");
        std::fs::create_dir_all(best.join("in the way")).unwrap();
        assert!(run.advance(false).is_err());
        assert_eq!((run.iteration, run.is_finished(), run.over()), (every, false, None));
        std::fs::remove_dir_all(&best).unwrap();
        run.save().unwrap();
        drop(run);
        let saved = saved_config(&broken).unwrap();
        let mut resumed = Run::resume(saved, dataset(), &[Device::Cpu], &broken).unwrap();
        resumed.catch_up().unwrap();
        while !resumed.is_finished() {
            resumed.advance(false).unwrap();
        }
        assert_eq!(metrics(&whole), metrics(&broken));
        assert_eq!(bytes(&whole), bytes(&broken));
        assert_eq!(std::fs::read(whole.join("weights/best.safetensors")).unwrap(), std::fs::read(best).unwrap());
        assert!(resumed.advance(false).is_err_and(|error| error.to_string().contains("the run has ended")));
    }
}

#[test]
fn a_last_checkpoint_that_is_missing_keeps_the_run_open_until_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = config(2);
    (settings.train.batch, settings.train.history) = (2, 1);
    let mut run = Run::new(settings, dataset(), &[Device::Cpu], Some(folder.path().to_path_buf())).unwrap();
    run.advance(false).unwrap();
    let last = folder.path().join("weights/last.safetensors");
    std::fs::create_dir_all(last.join("in the way")).unwrap();
    assert!(run.advance(false).is_err());
    assert_eq!((run.iteration, run.is_finished(), run.over()), (2, false, None));
    // A step back takes with it what was due after the step.
    assert!(run.back().unwrap());
    run.catch_up().unwrap();
    let full = |error: TrainError| matches!(error, TrainError::Write { .. });
    assert!(run.advance(false).is_err_and(full) && run.catch_up().is_err_and(full) && !run.is_finished());
    std::fs::remove_dir_all(&last).unwrap();
    run.catch_up().unwrap();
    assert!(run.is_finished() && last.is_file());
}

#[test]
fn a_resumed_run_pauses_where_the_unbroken_one_does_and_then_lets_it_through() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = config(40);
    // Every loss is a jump, as soon as there are enough before it to tell.
    (settings.train.batch, settings.train.spike_factor) = (2, 1e-3);
    let paused = |run: &mut Run| loop {
        if let Err(error) = run.advance(false) {
            return incident(error).iteration;
        }
    };
    let mut unbroken = Run::new(settings.clone(), dataset(), &[Device::Cpu], None).unwrap();
    let expected = paused(&mut unbroken);
    let mut first = Run::new(settings, dataset(), &[Device::Cpu], Some(folder.path().to_path_buf())).unwrap();
    for _ in 0..12 {
        first.advance(false).unwrap();
    }
    first.save().unwrap();
    let resume = || {
        let saved = saved_config(folder.path()).unwrap();
        Run::resume(saved, dataset(), &[Device::Cpu], folder.path()).unwrap()
    };
    let mut resumed = resume();
    assert_eq!(paused(&mut resumed), expected);
    let replay = Run::replay(folder.path(), &[Device::Cpu]).unwrap();
    assert!(replay.differences.is_empty(), "{:?}", replay.differences);
    resumed.save().unwrap();
    assert_eq!(paused(&mut resume()), expected + 1);
    assert_eq!(paused(&mut unbroken), expected + 1);
}

/// Overwrites one weight of the first convolution.
fn poison(run: &Run) {
    let (_, mut values) = run.detector.params().values().unwrap()[FIRST].clone();
    values[0] = f32::NAN;
    run.detector.params().set(FIRST, &values).unwrap();
}

fn incident(error: TrainError) -> Incident {
    match error {
        TrainError::Incident(incident) => *incident,
        other => panic!("{other}"),
    }
}

#[test]
fn a_poisoned_weight_names_layer_image_and_object_changes_nothing_and_replays() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = run(folder.path(), 4);
    run.advance(false).unwrap();
    poison(&run);
    let mean = "backbone.features.0.norm.running_mean";
    let before = run.detector.params().values().unwrap()[mean].1.clone();
    let error = run.advance(false).unwrap_err();
    let text = error.to_string();
    let incident = incident(error);
    assert_eq!((incident.iteration, incident.fault), (2, Fault::Loss));
    assert_eq!(incident.layer.as_deref(), Some(FIRST));
    assert!(incident.image.as_ref().is_some_and(|image| image.contains("shapes")), "{text}");
    assert!(incident.object.is_some() && text.contains("box ["), "{text}");
    assert_eq!(run.iteration, 1);
    assert_eq!(before, run.detector.params().values().unwrap()[mean].1.clone());
    let recording = Recording::read(folder.path()).unwrap();
    assert_eq!(recording.incident.to_string(), incident.to_string());
    assert_eq!((recording.before.len(), recording.record.iteration), (1, 2));
    // Losses of the paused batch by anchor, and before it every parameter's gradient.
    let parts: Vec<_> = recording.record.batches.iter().flatten().flat_map(|image| &image.losses).collect();
    assert!(parts.iter().any(|part| part.largest.first().is_some_and(|(_, loss)| loss.0.is_nan())), "{parts:?}");
    let before_it = &recording.before[0];
    assert!(before_it.gradient_norms.iter().any(|(name, norm)| name == FIRST && norm.0 > 0.0));
    let whole = before_it.gradient_norms.iter().map(|(_, norm)| norm.0 * norm.0).sum::<f64>().sqrt();
    assert!((whole / before_it.gradient_norm.unwrap().0 - 1.0).abs() < 1e-9);
    let replay = Run::replay(folder.path(), &[Device::Cpu]).unwrap();
    assert!(replay.differences.is_empty(), "{:?}", replay.differences);
    assert!(replay.error.is_some_and(|error| text.contains(&error)));
    // The same batch comes again.
    let again = self::incident(run.advance(false).unwrap_err());
    assert_eq!(again.image, incident.image);
}

#[test]
fn a_pause_that_cannot_be_recorded_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = run(folder.path(), 4);
    run.advance(false).unwrap();
    poison(&run);
    std::fs::create_dir_all(folder.path().join("blackbox.json/in the way")).unwrap();
    incident(run.advance(false).unwrap_err());
    let problem = run.take_unrecorded().unwrap();
    assert!(problem.contains("blackbox.json") && run.take_unrecorded().is_none(), "{problem}");
}

#[test]
fn an_infinite_box_is_named_before_anything_is_computed_and_replays() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = run(folder.path(), 4);
    run.advance(false).unwrap();
    let mut batch = run.next_batch().unwrap();
    let image = batch.objects.iter().position(|objects| !objects.is_empty()).unwrap();
    batch.objects[image][0].bbox.x1 = f32::INFINITY;
    let name = batch.names[image].clone();
    let incident = incident(run.advance_on(batch, false).unwrap_err());
    assert_eq!((incident.fault, incident.image.as_deref()), (Fault::Box, Some(name.as_str())));
    assert_eq!(incident.object.map(|object| object.index), Some(0));
    let replay = Run::replay(folder.path(), &[Device::Cpu]).unwrap();
    assert!(replay.differences.is_empty(), "{:?}", replay.differences);
    // With the data as it is, the run goes on.
    assert_eq!(run.advance(false).unwrap().iteration, 2);
    assert!(Run::replay(&folder.path().join("none"), &[Device::Cpu]).is_err());
}

/// Weights and optimiser state.
fn everything(run: &Run) -> (boxwright::nn::params::Values, Vec<boxwright::train::optimizer::Named>) {
    (run.detector.params().values().unwrap(), run.optimizer.state().unwrap())
}

#[test]
fn phases_stop_where_they_say_and_add_up_to_the_whole_step() {
    let mut whole = Run::new(config(3), dataset(), &[Device::Cpu], None).unwrap();
    let expected = whole.advance(false).unwrap();
    let mut run = Run::new(config(3), dataset(), &[Device::Cpu], None).unwrap();
    for phase in Phase::ALL {
        let (done, report) = run.phase(true).unwrap();
        assert_eq!(done, phase);
        let Some((partial, next)) = run.in_progress() else {
            let report = report.expect("the update ends the step");
            assert_eq!(phase, Phase::Update);
            assert_eq!(report.loss.to_bits(), expected.loss.to_bits());
            assert!(report.traces.len() == 4 && !report.layers.is_empty());
            let moved = report.layers.iter().find(|l| l.name == FIRST).unwrap();
            assert!(moved.update_ratio > 0.0 && moved.gradient_norm > 0.0 && moved.weights.counts.len() > 1);
            break;
        };
        assert!(report.is_none());
        let trace = &partial.traces[0];
        assert_eq!(trace.input.is_some(), phase >= Phase::Augment);
        assert_eq!(!trace.maps.is_empty(), phase >= Phase::Forward);
        assert_eq!(trace.assignment.is_some(), phase >= Phase::Assign);
        assert_eq!(!trace.sampling.is_empty(), phase >= Phase::Sample);
        assert_eq!(!trace.losses.is_empty(), phase >= Phase::Loss);
        assert_eq!(!partial.parts.is_empty(), phase >= Phase::Loss);
        assert_eq!(partial.gradient_norm > 0.0, phase >= Phase::Backward);
        assert!(next > phase);
        assert_eq!(run.iteration, 0);
    }
    assert_eq!(everything(&run), everything(&whole));
    // A probed iteration is remembered with its losses by anchor, another without.
    let told = |run: &Run| {
        let images = run.remembered().flat_map(|record| record.batches.iter().flatten());
        images.map(|image| !image.losses.is_empty()).collect::<Vec<bool>>()
    };
    assert_eq!((told(&run), told(&whole)), (vec![true; 4], vec![false; 4]));
    // Abandoned half-way, the same iteration comes again.
    run.phase(false).unwrap();
    run.phase(false).unwrap();
    run.abandon();
    assert_eq!(run.advance(false).unwrap().loss.to_bits(), whole.advance(false).unwrap().loss.to_bits());
}

#[test]
fn a_step_back_restores_weights_optimiser_and_place_bit_for_bit() {
    let mut settings = config(6);
    settings.train.history = 2;
    let mut run = Run::new(settings, dataset(), &[Device::Cpu], None).unwrap();
    run.advance(false).unwrap();
    let (kept, place) = (everything(&run), run.position);
    let second = run.advance(false).unwrap();
    run.advance(false).unwrap();
    assert_eq!(run.steps_back(), 2);
    assert!(run.back().unwrap() && run.back().unwrap());
    assert_eq!((run.iteration, run.position), (1, place));
    assert_eq!(everything(&run), kept);
    assert!(!run.back().unwrap(), "the recorder is empty");
    let again = run.advance(false).unwrap();
    assert_eq!((again.loss.to_bits(), again.images), (second.loss.to_bits(), second.images));
}

#[test]
fn a_fork_without_a_change_is_the_run_itself_and_one_with_a_change_differs() {
    let root = tempfile::tempdir().unwrap();
    let source = root.path().join("source");
    let mut settings = config(4);
    settings.train.checkpoint_every = 2;
    settings.train.keep_checkpoints = 2;
    let mut whole = Run::new(settings.clone(), dataset(), &[Device::Cpu], Some(source.clone())).unwrap();
    while !whole.is_finished() {
        whole.advance(false).unwrap();
    }
    let names: Vec<u64> = kept(&source).into_iter().map(|(iteration, _)| iteration).collect();
    assert_eq!(names, [2, 4]);
    let fork = |name: &str, config: RunConfig| {
        let folder = root.path().join(name);
        let mut fork = Run::fork(&source, 3, config, &[Device::Cpu], folder.clone(), |_, _| {}).unwrap();
        assert_eq!((fork.iteration, saved_config(&folder).unwrap() == fork.config), (3, true));
        while !fork.is_finished() {
            fork.advance(false).unwrap();
        }
        bytes(&folder)
    };
    assert_eq!(fork("same", settings.clone()), bytes(&source));
    let mut changed = settings.clone();
    changed.train.schedule.learning_rate *= 0.5;
    assert_ne!(fork("changed", changed), bytes(&source));
    let manifest = std::fs::read_to_string(root.path().join("same/manifest.json")).unwrap();
    assert!(manifest.contains("forked_from"), "{manifest}");
    for (iteration, name) in [(1, "early"), (3, "same"), (9, "late")] {
        let folder = root.path().join(name);
        assert!(Run::fork(&source, iteration, settings.clone(), &[Device::Cpu], folder, |_, _| {}).is_err(), "{name}");
    }
}

#[test]
fn a_range_test_leaves_the_run_as_it_was() {
    let mut run = Run::new(config(4), dataset(), &[Device::Cpu], None).unwrap();
    run.advance(false).unwrap();
    let before = everything(&run);
    let settings = RangeSettings { low: 1e-5, high: 1e-2, steps: 3, ..RangeSettings::default() };
    let test = run.range_test(&settings, |_, total| assert_eq!(total, 3)).unwrap();
    assert_eq!((everything(&run), run.iteration), (before, 1));
    let rates: Vec<f32> = test.points.iter().map(|p| p.rate).collect();
    for (rate, expected) in rates.iter().zip([1e-5f32, 10f32.powf(-3.5), 1e-2]) {
        assert!((rate / expected - 1.0).abs() < 1e-4, "{rates:?}");
    }
    assert!(run.range_test(&RangeSettings { low: 0.0, ..settings }, |_, _| {}).is_err());
}

#[test]
fn validation_keeps_the_best_weights_and_ends_a_run_that_no_longer_improves() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = config(50);
    settings.train.validate_every = 1;
    settings.train.patience = 1;
    settings.train.best_by = BestBy::Loss;
    // A rate of 0 leaves the weights as they are, so the second validation is no better.
    settings.train.schedule.learning_rate = 0.0;
    settings.train.ema = 0.0;
    settings.train.batch = 2;
    settings.train.freeze_batch_norm = true;
    let mut run = Run::new(settings, dataset(), &[Device::Cpu], Some(folder.path().to_path_buf())).unwrap();
    let first = run.advance(false).unwrap().validation.expect("a validation");
    assert!(first.improved && first.images == 4 && first.loss.is_finite() && first.ap >= -1.0);
    assert!(folder.path().join("weights/best.safetensors").exists());
    assert!(!run.is_finished());
    let second = run.advance(false).unwrap().validation.expect("a validation");
    assert_eq!((second.improved, second.iteration, run.is_finished()), (false, 2, true));
    let lines = std::fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
    assert_eq!(lines.matches("\"validation\"").count(), 2);
    let log = std::fs::read_to_string(folder.path().join("log.txt")).unwrap();
    assert!(log.contains("the run ends"), "{log}");
    // A resumed run knows its best.
    let saved = saved_config(folder.path()).unwrap();
    let resumed = Run::resume(saved, dataset(), &[Device::Cpu], folder.path()).unwrap();
    assert_eq!((resumed.best, resumed.is_finished()), (run.best, true));
}

#[test]
fn accumulated_batches_are_one_iteration_and_frozen_parts_stay() {
    let mut settings = config(4);
    settings.train.batch = 2;
    settings.train.accumulate = 2;
    settings.train.frozen_prefixes = vec![FIRST.into()];
    let mut run = Run::new(settings.clone(), dataset(), &[Device::Cpu], None).unwrap();
    let before = run.detector.params().values().unwrap();
    let report = run.advance(true).unwrap();
    assert_eq!((report.images.len(), report.traces.len(), run.position.batch, run.iteration), (4, 4, 2, 1));
    let sum: f32 = report.parts.iter().map(|(_, value)| value).sum();
    assert!((sum - report.loss).abs() < 1e-4 * report.loss.abs());
    let after = run.detector.params().values().unwrap();
    assert_eq!(before[FIRST], after[FIRST]);
    assert!(after.iter().any(|(name, value)| before[name] != *value));
    settings.train.frozen_prefixes = vec![String::new()];
    let Err(error) = Run::new(settings, dataset(), &[Device::Cpu], None) else { panic!("nothing is trained") };
    assert!(error.to_string().contains("frozen_prefixes"), "{error}");
}

/// When a run is killed.
struct Kill {
    /// First it makes an iteration and writes its checkpoint.
    saved: bool,
    /// So long after that, or after the start of the program.
    moment: Duration,
}

/// Runs the program's `train` in `folder` to its end, or until it is killed.
fn train(folder: &Path, kill: Option<Kill>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_boxwright"));
    command.args(["train", "--device", "cpu", "--out"]).arg(folder);
    if folder.join("weights/last.safetensors").exists() {
        command.arg("--resume");
    } else {
        command.args(["--model", "ssd-nano", "--data", DATA]);
        for setting in ["batch=2", "iterations=16", "checkpoint_every=1", "keep_checkpoints=2", "workers=1"] {
            command.args(["--set", setting]);
        }
    }
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let done = || saved_iteration(&last(folder));
    let before = done();
    let mut child = command.spawn().unwrap();
    match kill {
        Some(Kill { saved, moment }) => {
            while saved && done() == before && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(2));
            }
            std::thread::sleep(moment);
            // It may have ended by itself; that is no failure.
            let _ = child.kill();
            child.wait().unwrap();
        }
        None => {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

#[test]
fn a_run_killed_ten_times_ends_with_the_weights_of_the_unbroken_one() {
    let root = tempfile::tempdir().unwrap();
    let (whole, broken) = (root.path().join("whole"), root.path().join("broken"));
    let start = Instant::now();
    train(&whole, None);
    let whole_run = start.elapsed();
    let mut random = Random::new(7);
    for number in 0..10 {
        // By turns soon after the start, and somewhere in the next iteration or while its checkpoint is written.
        let saved = number % 2 == 1;
        let (low, high) = if saved { (0.0, 0.05) } else { (0.02, 0.15) };
        train(&broken, Some(Kill { saved, moment: whole_run.mul_f32(random.range(low, high)) }));
    }
    assert!(saved_iteration(&last(&broken)).is_some_and(|done| done >= 5));
    train(&broken, None);
    assert_eq!(bytes(&whole), bytes(&broken));
    let losses = |folder: &Path| -> Vec<String> {
        let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
        let field = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["loss"].to_string();
        text.lines().map(field).collect()
    };
    assert_eq!(losses(&whole), losses(&broken));
    assert_eq!(losses(&whole).len(), 16);
    let runs = Runs::open(root.path()).unwrap();
    let found: Vec<(String, u64, Status)> =
        runs.list().unwrap().into_iter().map(|run| (run.name, run.iteration, run.status)).collect();
    for name in ["whole", "broken"] {
        assert!(found.contains(&(name.to_string(), 16, Status::Finished)), "{found:?}");
    }
}

#[test]
fn the_preset_embed_makes_every_phase_and_goes_on_with_those_that_are_missing() {
    let root = tempfile::tempdir().unwrap();
    let (out, file) = (root.path().join("a"), root.path().join("embedded.safetensors"));
    let make = |resume: bool| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_boxwright"));
        command.args(["train", "--device", "cpu", "--preset", "embed", "--model", "retinanet-nano"]);
        for setting in ["data=shapes:train=8,val=2,test=2", "iterations=1", "batch=2", "workers=1"] {
            command.args(["--set", setting]);
        }
        command.arg("--out").arg(&out).arg("--embed").arg(&file).args(resume.then_some("--resume"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::read(&file).unwrap()
    };
    let embedded = make(false);
    let phases = recipe(Arch::RetinanetNano).len();
    let second = bytes(&out.join("phase-2"));
    assert!(out.join(format!("phase-{phases}")).is_dir() && !out.join(format!("phase-{}", phases + 1)).exists());
    std::fs::remove_dir_all(out.join("phase-2")).unwrap();
    assert_eq!(make(true), embedded);
    assert_eq!(bytes(&out.join("phase-2")), second);
    assert_eq!(weights::open(&file).unwrap().metadata()["boxwright.architecture"], "retinanet-nano");
    let runs = Runs::open(root.path()).unwrap().list().unwrap();
    assert!(runs.iter().any(|run| run.name == "a/phase-1" && run.status == Status::Finished), "{runs:?}");
}

#[test]
fn the_loss_falls_on_a_batch_that_repeats() {
    let mut config = config(30);
    config.data = "shapes:train=4,val=1,test=1".into();
    config.train.augmentation = boxwright::imaging::Augmentation::none();
    config.train.schedule.warmup = 0;
    let dataset = Arc::new(data::open(&config.data, Some("train")).unwrap());
    let mut run = Run::new(config, dataset, &[Device::Cpu], None).unwrap();
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
    let Err(error) = Run::new(config(1), dataset(), &[Device::Cpu], Some(blocked.join("run"))) else {
        panic!("a run below a file")
    };
    assert!(error.to_string().contains("file"), "{error}");
}
