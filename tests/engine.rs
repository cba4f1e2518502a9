//! The engine as its users see it: commands in, events out, stops that take effect, readers that slow nobody down.

use boxwright::detect::class_order::ClassOrder;
use boxwright::detect::{Arch, Config};
use boxwright::engine::command::{InitialWeights, ModelChoice};
use boxwright::engine::compare::SlotSource;
use boxwright::engine::model::Permit;
use boxwright::engine::{Command, DeviceChoice, Engine, Event, Severity};
use boxwright::train::{Phase, RunConfig, TrainConfig};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const DATA: &str = "shapes:train=32,val=4,test=4";

fn classes() -> Vec<String> {
    boxwright::data::CLASSES.iter().map(|c| (*c).to_string()).collect()
}

fn config(iterations: u64, batch: usize) -> Box<RunConfig> {
    let train = TrainConfig { iterations, batch, checkpoint_every: 0, ..TrainConfig::new(Arch::SsdNano) };
    Box::new(RunConfig {
        data: DATA.into(),
        split: Some("train".into()),
        train,
        model: Config::new(Arch::SsdNano, &classes()),
    })
}

fn start(wake: Arc<AtomicUsize>) -> Engine {
    let wake = Arc::new(move || _ = wake.fetch_add(1, Ordering::Relaxed));
    Engine::start(DeviceChoice::Cpu, wake).unwrap()
}

/// Events until `last` says enough; panics after three minutes or at an error that was not expected.
fn until(engine: &Engine, mut last: impl FnMut(&Event) -> bool) -> Vec<Event> {
    let mut seen = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(180);
    while Instant::now() < deadline {
        let Some(event) = engine.wait(Duration::from_millis(500)) else { continue };
        let done = last(&event);
        seen.push(event);
        if done {
            return seen;
        }
    }
    panic!("nothing more came after {seen:?}");
}

/// Asks for a run from random weights.
fn begin(engine: &Engine, config: Box<RunConfig>, folder: Option<PathBuf>) {
    engine.send(Command::Probe(false));
    engine.send(Command::OpenData { path: DATA.into(), split: Some("train".into()) });
    engine.send(Command::StartTraining { config, folder, start: InitialWeights::Random });
}

fn prepare(engine: &Engine, config: Box<RunConfig>) {
    begin(engine, config, None);
    until(engine, |e| matches!(e, Event::TrainingReady { .. }));
}

#[test]
fn a_pause_takes_effect_within_200_ms_and_the_iteration_it_ended_leaves_no_trace() {
    let engine = start(Arc::default());
    prepare(&engine, config(1000, 16));
    engine.send(Command::Train);
    until(&engine, |e| matches!(e, Event::Stepped(_)));
    let mut worst = Duration::ZERO;
    for _ in 0..4 {
        // Somewhere within an iteration.
        std::thread::sleep(Duration::from_millis(130));
        let asked = Instant::now();
        engine.send(Command::Pause);
        let seen = until(&engine, |e| matches!(e, Event::Training { running: false, .. }));
        worst = worst.max(asked.elapsed());
        let errors = seen.iter().filter(|e| matches!(e, Event::Log { severity: Severity::Error, .. })).count();
        assert_eq!(errors, 0, "{seen:?}");
        engine.send(Command::Train);
        until(&engine, |e| matches!(e, Event::Stepped(_)));
    }
    println!("slowest pause: {} ms", worst.as_millis());
    // The promise is 200 ms on an idle machine; here whole networks are compared on the same two cores meanwhile.
    assert!(worst < Duration::from_millis(1000), "{worst:?}");
}

#[test]
fn a_reader_that_never_reads_does_not_slow_training_and_misses_nothing_when_it_comes_back() {
    let wakes = Arc::new(AtomicUsize::new(0));
    let engine = start(wakes.clone());
    prepare(&engine, config(6, 2));
    let before = wakes.load(Ordering::Relaxed);
    engine.send(Command::Train);
    while wakes.load(Ordering::Relaxed) < before + 9 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let seen = until(&engine, |e| matches!(e, Event::TrainingEnded { .. }));
    let steps: Vec<u64> =
        seen.iter().filter_map(|e| if let Event::Stepped(r) = e { Some(r.iteration) } else { None }).collect();
    assert_eq!(steps, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_step_fills_the_trace_and_the_same_seed_gives_the_same_loss() {
    let losses: Vec<f32> = (0..2)
        .map(|_| {
            let engine = start(Arc::default());
            prepare(&engine, config(50, 4));
            engine.send(Command::Step { iterations: 2 });
            until(&engine, |e| matches!(e, Event::Training { running: false, .. }));
            let stepped = engine.slots.stepped.get().expect("a probed step");
            assert_eq!(stepped.report.iteration, 2);
            assert_eq!(stepped.report.traces.len(), 4);
            let trace = &stepped.report.traces[0];
            let positives = trace.sampling.iter().filter(|s| s.positive).count();
            assert!(positives > 0 && trace.sampling.len() <= positives * 4);
            assert_eq!(trace.losses.len(), 2);
            assert_eq!(trace.losses[1].per_anchor.len(), trace.anchors.boxes.len());
            // Negatives come hardest first.
            let negatives: Vec<f32> = trace.sampling.iter().filter(|s| !s.positive).map(|s| s.loss).collect();
            assert!(negatives.windows(2).all(|w| w[0] >= w[1]));
            stepped.report.loss
        })
        .collect();
    assert_eq!(losses[0].to_bits(), losses[1].to_bits());
}

#[test]
fn phases_in_a_row_equal_a_whole_step_and_the_way_back_is_exact() {
    let engine = start(Arc::default());
    let mut config = config(50, 4);
    config.train.history = 4;
    prepare(&engine, config);
    engine.send(Command::Step { iterations: 1 });
    let seen = until(&engine, |e| matches!(e, Event::Training { running: false, .. }));
    let whole = seen.iter().find_map(|e| if let Event::Stepped(r) = e { Some(r.loss) } else { None }).unwrap();
    assert!(seen.iter().any(|e| matches!(e, Event::Remembered(records) if records.len() == 1)), "{seen:?}");
    engine.send(Command::Back);
    until(&engine, |e| matches!(e, Event::WentBack { iteration: 0, left: 0 }));
    for phase in Phase::ALL {
        engine.send(Command::Phase);
        let seen = until(&engine, |e| matches!(e, Event::Phase { .. }));
        let Some(Event::Phase { done, next }) = seen.last() else { panic!("{seen:?}") };
        assert_eq!((*done, next.is_none()), (phase, phase == Phase::Update));
        if phase < Phase::Update {
            let stepped = engine.slots.stepped.get().expect("what is known so far");
            let trace = &stepped.report.traces[0];
            assert_eq!(stepped.next, *next);
            assert_eq!(trace.assignment.is_some(), phase >= Phase::Assign, "{phase:?}");
            assert_eq!(trace.sampling.is_empty(), phase < Phase::Sample, "{phase:?}");
            assert_eq!(stepped.report.parts.is_empty(), phase < Phase::Loss, "{phase:?}");
        }
    }
    let seen = until(&engine, |e| matches!(e, Event::Stepped(_)));
    let Some(Event::Stepped(report)) = seen.last() else { panic!("{seen:?}") };
    assert_eq!(report.loss.to_bits(), whole.to_bits());
    assert!(!report.layers.is_empty());
    until(&engine, |e| matches!(e, Event::Training { running: false, iteration: 1 }));
    // Out of an iteration: nothing of it stays, and the same batch comes again.
    engine.send(Command::Phase);
    engine.send(Command::Back);
    until(&engine, |e| matches!(e, Event::WentBack { iteration: 1, .. }));
    engine.send(Command::Back);
    until(&engine, |e| matches!(e, Event::WentBack { iteration: 0, .. }));
    engine.send(Command::Step { iterations: 1 });
    let seen = until(&engine, |e| matches!(e, Event::Stepped(_)));
    let Some(Event::Stepped(report)) = seen.last() else { panic!("{seen:?}") };
    assert_eq!(report.loss.to_bits(), whole.to_bits());
}

#[test]
fn a_run_on_disk_is_scrubbed_through_opened_and_forked() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("a");
    let engine = start(Arc::default());
    let mut config = config(50, 2);
    (config.train.checkpoint_every, config.train.keep_checkpoints) = (1, 2);
    let run = config.clone();
    begin(&engine, config, Some(folder.clone()));
    engine.send(Command::Step { iterations: 2 });
    until(&engine, |e| matches!(e, Event::Training { running: false, iteration: 2 }));
    engine.send(Command::StopTraining);
    until(&engine, |e| matches!(e, Event::TrainingEnded { .. }));
    let checkpoints = boxwright::train::checkpoint::kept(&folder);
    assert_eq!(checkpoints.iter().map(|(done, _)| *done).collect::<Vec<_>>(), [1, 2]);
    engine.send(Command::Scrub { index: 1, checkpoints: checkpoints.clone() });
    until(&engine, |e| matches!(e, Event::Idle { task, cancelled: false } if task == "checkpoints"));
    let scrubbed = engine.slots.scrubbed.get().expect("scrubbed");
    assert_eq!((scrubbed.index, scrubbed.at.len(), scrubbed.at[1].iteration), (1, 2, 2));
    // The trained weights are the loaded model: the last checkpoint finds what it finds.
    engine.send(Command::Show { index: 1 });
    until(&engine, |e| matches!(e, Event::Shown { index: 1 }));
    engine.send(Command::OpenCheckpoint { path: checkpoints[1].1.clone() });
    until(&engine, |e| matches!(e, Event::ModelLoaded(_)));
    until(&engine, |e| matches!(e, Event::Shown { index: 1 }));
    let shown = engine.slots.shown.get().expect("shown");
    assert_eq!(shown.detections, scrubbed.at[1].detections);
    let mut changed = run;
    changed.train.schedule.learning_rate *= 0.5;
    let fork = root.path().join("a-fork-1");
    engine.send(Command::Fork { source: folder, iteration: 1, config: changed, folder: fork.clone() });
    let seen = until(&engine, |e| matches!(e, Event::TrainingReady { .. }));
    let Some(Event::TrainingReady { iteration, folder, .. }) = seen.last() else { panic!("{seen:?}") };
    assert_eq!((*iteration, folder.as_ref()), (1, Some(&fork)));
}

#[test]
fn devices_are_listed_and_a_model_is_moved_but_not_under_a_run() {
    let engine = start(Arc::default());
    engine.send(Command::ListDevices);
    let seen = until(&engine, |e| matches!(e, Event::Devices { .. }));
    let Some(Event::Devices { found, current }) = seen.last() else { panic!("{seen:?}") };
    assert_eq!((found.list[0].choice, current.as_str()), (DeviceChoice::Cpu, "cpu"));
    let choice = ModelChoice::Named("ssd-nano".into());
    engine.send(Command::LoadModel { choice, weights: None, permit: Permit::default() });
    until(&engine, |e| matches!(e, Event::Flops(flops) if *flops > 1e6));
    engine.send(Command::UseDevice(DeviceChoice::Cpu));
    until(&engine, |e| matches!(e, Event::ModelLoaded(_)));
    prepare(&engine, config(10, 2));
    engine.send(Command::UseDevice(DeviceChoice::Cpu));
    until(&engine, |e| matches!(e, Event::Log { severity: Severity::Error, .. }));
}

#[test]
fn what_cannot_be_done_is_an_error_event_and_the_engine_goes_on() {
    let engine = start(Arc::default());
    let is_error = |e: &Event| matches!(e, Event::Log { severity: Severity::Error, .. });
    for command in [
        Command::Show { index: 0 },
        Command::Train,
        Command::Evaluate { misses: None },
        Command::Save { path: "nowhere.safetensors".into() },
        Command::OpenData { path: "no/such/place".into(), split: None },
        Command::LoadModel { choice: ModelChoice::Named("ssd-huge".into()), weights: None, permit: Permit::default() },
        Command::LoadModel { choice: ModelChoice::Named("ssd300".into()), weights: None, permit: Permit::default() },
    ] {
        engine.send(command);
        until(&engine, is_error);
    }
    engine.send(Command::OpenData { path: DATA.into(), split: Some("test".into()) });
    until(&engine, |e| matches!(e, Event::DataOpened(_)));
    engine.send(Command::Show { index: 1 });
    until(&engine, |e| matches!(e, Event::Shown { index: 1 }));
    assert_eq!(engine.slots.shown.get().map(|s| s.index), Some(1));
}

#[test]
fn dropping_the_engine_ends_a_running_training_promptly() {
    let engine = start(Arc::default());
    prepare(&engine, config(1000, 8));
    engine.send(Command::Train);
    until(&engine, |e| matches!(e, Event::Stepped(_)));
    let start = Instant::now();
    drop(engine);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn a_model_beside_itself_differs_in_nothing_and_slots_say_what_cannot_be_compared() {
    let engine = start(Arc::default());
    engine.send(Command::Probe(false));
    engine.send(Command::OpenData { path: DATA.into(), split: Some("test".into()) });
    let choice = ModelChoice::Named("ssd-nano".into());
    engine.send(Command::LoadModel { choice: choice.clone(), weights: None, permit: Permit::default() });
    engine.send(Command::SetSlot { slot: 0, source: SlotSource::Loaded });
    until(&engine, |e| matches!(e, Event::Slots(slots) if slots[0].is_some()));
    let is_error = |e: &Event| matches!(e, Event::Log { severity: Severity::Error, .. });
    for command in [
        Command::CompareData,
        Command::Confusion { score: 0.5 },
        Command::SetSlot { slot: 9, source: SlotSource::Loaded },
        Command::SetSlot { slot: 1, source: SlotSource::Results("no/such/results.json".into()) },
        Command::EvaluateResults { path: "no/such/results.json".into() },
        Command::CompareImage { index: 1000 },
    ] {
        engine.send(command);
        until(&engine, is_error);
    }
    engine.send(Command::SetSlot { slot: 3, source: SlotSource::Model { choice, weights: None } });
    engine.send(Command::CompareImage { index: 2 });
    until(&engine, |e| matches!(e, Event::ImageCompared { index: 2 }));
    let compared = engine.slots.compared.get().expect("compared");
    let [Some(first), None, None, Some(last)] = &compared.sides else { panic!("{compared:?}") };
    assert_eq!(first.detections, last.detections);
    engine.send(Command::CompareData);
    let seen = until(&engine, |e| matches!(e, Event::Idle { task, cancelled: false } if task == "comparison"));
    let summary = seen.iter().find_map(|e| if let Event::DataCompared(s) = e { Some(s.clone()) } else { None });
    let summary = summary.expect("a summary before the end");
    assert_eq!(summary.sides.iter().map(|side| side.slot).collect::<Vec<_>>(), [0, 3]);
    assert_eq!(summary.sides[0].tallies, summary.sides[1].tallies);
    let interval = summary.intervals[0].interval;
    assert_eq!((interval.difference, interval.low, interval.high), (0.0, 0.0, 0.0));
    engine.send(Command::ClearSlot { slot: 3 });
    until(&engine, |e| matches!(e, Event::Slots(slots) if slots[3].is_none()));
}

#[test]
fn an_evaluation_explains_itself_and_its_confusion_is_counted_anew() {
    let engine = start(Arc::default());
    engine.send(Command::Probe(false));
    engine.send(Command::OpenData { path: DATA.into(), split: Some("test".into()) });
    let choice = ModelChoice::Named("ssd-nano".into());
    engine.send(Command::LoadModel { choice, weights: None, permit: Permit::default() });
    engine.send(Command::Evaluate { misses: None });
    let seen = until(&engine, |e| matches!(e, Event::Evaluated(_)));
    let Some(Event::Evaluated(summary)) = seen.last() else { panic!("{seen:?}") };
    let details = &summary.details;
    assert_eq!((details.truth.len(), details.tallies.len(), summary.images), (4, 4, 4));
    assert!((details.ap50 - summary.result.stats[1]).abs() < 0.02, "{} {}", details.ap50, summary.result.stats[1]);
    let objects = |counts: &[u64], classes: usize| counts[..classes * (classes + 1)].iter().sum::<u64>();
    let classes = summary.classes.len();
    let asked = objects(&summary.confusion.matrix.counts, classes);
    assert_eq!(asked as usize, details.tallies.iter().map(|tally| tally.objects).sum::<usize>());
    engine.send(Command::Confusion { score: 0.99 });
    let seen = until(&engine, |e| matches!(e, Event::Confused(_)));
    let Some(Event::Confused(confusion)) = seen.last() else { panic!("{seen:?}") };
    // Whatever the score, every object is in one cell of its row.
    assert_eq!(objects(&confusion.matrix.counts, classes), asked);
    let right = |m: &boxwright::eval::confusion::ConfusionMatrix| (0..classes).map(|c| m.at(c, c)).sum::<u64>();
    assert!(right(&confusion.matrix) < right(&summary.confusion.matrix));
}

#[test]
fn a_run_whose_state_cannot_be_saved_stays_open_until_it_is_ended_again() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("a");
    let engine = start(Arc::default());
    begin(&engine, config(50, 2), Some(folder.clone()));
    engine.send(Command::Step { iterations: 1 });
    until(&engine, |e| matches!(e, Event::Training { running: false, iteration: 1 }));
    // Nobody can write below a file.
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::write(&folder, "in the way").unwrap();
    engine.send(Command::StopTraining);
    let seen = until(&engine, |e| matches!(e, Event::Training { running: false, iteration: 1 }));
    let is_said = |e: &Event| matches!(e, Event::Log { severity: Severity::Warning, message, .. } if message.contains("stays open"));
    assert!(seen.iter().any(is_said), "{seen:?}");
    std::fs::remove_file(&folder).unwrap();
    engine.send(Command::StopTraining);
    until(&engine, |e| matches!(e, Event::TrainingEnded { iteration: 1, .. }));
    assert!(folder.join("weights").is_dir());
}

#[test]
fn a_run_starts_from_what_fits_of_a_file_and_a_stranger_is_refused_before_anything_is_lost() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("a");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("note"), "mine").unwrap();
    let engine = start(Arc::default());
    engine.send(Command::Probe(false));
    engine.send(Command::OpenData { path: DATA.into(), split: Some("train".into()) });
    let begin = |file: &str| Command::StartTraining {
        config: config(50, 2),
        folder: Some(folder.clone()),
        start: InitialWeights::File(file.into()),
    };
    engine.send(begin("assets/yolov3-nano.safetensors"));
    let seen = until(&engine, |e| matches!(e, Event::Log { severity: Severity::Error, .. }));
    assert!(format!("{seen:?}").contains("no tensor of it has a name and shape of ssd-nano"), "{seen:?}");
    assert!(folder.join("note").is_file());
    engine.send(begin("assets/ssd-nano.safetensors"));
    let seen = until(&engine, |e| matches!(e, Event::TrainingReady { .. }));
    assert!(format!("{seen:?}").contains("(100.0 % of the weights) start from"), "{seen:?}");
}

#[test]
fn an_order_that_cannot_be_had_is_asked_for_with_what_was_to_be_loaded() {
    let engine = start(Arc::default());
    let choice = ModelChoice::FromWeights;
    let weights = Some(PathBuf::from("assets/fcos-nano.safetensors"));
    let permit = Permit { class_order: Some(ClassOrder::BackgroundLast), ..Permit::default() };
    engine.send(Command::LoadModel { choice: choice.clone(), weights: weights.clone(), permit });
    let seen = until(&engine, |e| matches!(e, Event::OrderAsked(_)));
    assert!(seen.iter().any(|e| matches!(e, Event::Log { severity: Severity::Error, .. })), "{seen:?}");
    let Some(Event::OrderAsked(asked)) = seen.last() else { panic!("{seen:?}") };
    assert_eq!((&asked.choice, &asked.weights, asked.permit), (&choice, &weights, permit));
    engine.send(Command::LoadModel { choice, weights, permit: Permit::default() });
    until(&engine, |e| matches!(e, Event::ModelLoaded(_)));
}

#[test]
fn a_run_from_a_file_with_another_head_tells_what_is_fresh() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("two.safetensors");
    let engine = start(Arc::default());
    engine.send(Command::Probe(false));
    let two = Config::new(Arch::SsdNano, &["a".to_string(), "b".to_string()]);
    engine.send(Command::LoadModel {
        choice: ModelChoice::Configured(Box::new(two)),
        weights: Some("assets/ssd-nano.safetensors".into()),
        permit: Permit { reinitialise_head: true, ..Permit::default() },
    });
    let seen = until(&engine, |e| matches!(e, Event::ModelLoaded(_)));
    let Some(Event::ModelLoaded(model)) = seen.last() else { panic!("{seen:?}") };
    assert!(model.report.as_ref().is_some_and(|report| !report.reinitialised.is_empty()));
    engine.send(Command::Save { path: path.clone() });
    until(&engine, |e| matches!(e, Event::Saved { .. }));
    engine.send(Command::OpenData { path: DATA.into(), split: Some("train".into()) });
    let start = InitialWeights::File(path);
    engine.send(Command::StartTraining { config: config(50, 2), folder: None, start });
    let seen = until(&engine, |e| matches!(e, Event::TrainingReady { .. }));
    let Some(Event::TrainingReady { start: Some(report), .. }) = seen.last() else { panic!("{seen:?}") };
    assert!(!report.mismatched.is_empty());
    assert!(report.mismatched.iter().all(|(name, ..)| name.starts_with("head.classification_head.")));
    assert!(seen.iter().any(|e| matches!(e, Event::Log { severity: Severity::Warning, .. })), "{seen:?}");
}

#[test]
fn a_step_of_many_goes_on_while_images_are_shown_and_ends_at_a_pause() {
    let engine = start(Arc::default());
    prepare(&engine, config(1000, 2));
    engine.send(Command::Step { iterations: 4 });
    engine.send(Command::Show { index: 1 });
    engine.send(Command::Probe(false));
    engine.send(Command::Step { iterations: 2 });
    engine.send(Command::Show { index: 2 });
    let seen = until(&engine, |e| matches!(e, Event::Training { running: false, .. }));
    let steps: Vec<u64> =
        seen.iter().filter_map(|e| if let Event::Stepped(r) = e { Some(r.iteration) } else { None }).collect();
    assert_eq!(steps, [1, 2, 3, 4, 5, 6]);
    assert!(seen.iter().any(|e| matches!(e, Event::Training { running: true, .. })), "it can be paused");
    let shown = seen.iter().position(|e| matches!(e, Event::Shown { index: 2 })).expect("shown in between");
    assert!(seen[shown..].iter().any(|e| matches!(e, Event::Stepped(_))));
    assert_eq!(engine.slots.stepped.get().map(|stepped| stepped.report.iteration), Some(6));
    engine.send(Command::Step { iterations: 900 });
    until(&engine, |e| matches!(e, Event::Stepped(_)));
    engine.send(Command::Pause);
    let seen = until(&engine, |e| matches!(e, Event::Training { running: false, .. }));
    let Some(Event::Training { iteration, .. }) = seen.last() else { panic!("{seen:?}") };
    assert!(*iteration < 200, "{iteration}");
    // What cannot be done while it runs ends it too, and says so, even where it then fails: no earlier state is kept.
    for command in [Command::SkipBatch, Command::Back] {
        engine.send(Command::Step { iterations: 900 });
        until(&engine, |e| matches!(e, Event::Stepped(_)));
        engine.send(command);
        until(&engine, |e| matches!(e, Event::Training { running: false, .. }));
    }
}

#[test]
fn a_missing_last_validation_is_made_up_and_told_before_the_run_ends() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("a");
    let best = folder.join("weights/best.safetensors");
    let engine = start(Arc::default());
    let mut config = config(2, 2);
    config.train.validate_every = 2;
    begin(&engine, config, Some(folder));
    until(&engine, |e| matches!(e, Event::TrainingReady { .. }));
    // The best weights cannot be written, so the validation counts for nothing and the error ends the step.
    std::fs::create_dir_all(best.join("in the way")).unwrap();
    engine.send(Command::Step { iterations: 5 });
    let seen = until(&engine, |e| matches!(e, Event::Training { running: false, iteration: 2 }));
    assert!(seen.iter().any(|e| matches!(e, Event::Log { severity: Severity::Error, .. })), "{seen:?}");
    std::fs::remove_dir_all(&best).unwrap();
    engine.send(Command::Train);
    let seen = until(&engine, |e| matches!(e, Event::TrainingEnded { iteration: 2, finished: true }));
    let told = seen.iter().filter(|e| matches!(e, Event::Validated(validation) if validation.iteration == 2)).count();
    assert_eq!(told, 1, "{seen:?}");
}

#[test]
fn a_finished_run_says_that_it_has_ended_and_what_to_do() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("a");
    let engine = start(Arc::default());
    begin(&engine, config(2, 2), Some(folder.clone()));
    engine.send(Command::Step { iterations: 5 });
    until(&engine, |e| matches!(e, Event::TrainingEnded { iteration: 2, finished: true }));
    engine.send(Command::ResumeTraining { folder, config: None });
    until(&engine, |e| matches!(e, Event::TrainingReady { iteration: 2, .. }));
    for (command, expected) in [
        (Command::Step { iterations: 1 }, Severity::Error),
        (Command::Phase, Severity::Error),
        (Command::Train, Severity::Warning),
    ] {
        engine.send(command);
        let seen = until(&engine, |e| matches!(e, Event::Training { running: false, iteration: 2 }));
        let said = seen.iter().any(|e| {
            matches!(e, Event::Log { severity, message, .. } if *severity == expected
                && message.contains("its 2 iterations are done") && message.contains("--fork"))
        });
        assert!(said, "{seen:?}");
    }
}
