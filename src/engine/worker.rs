//! The worker's loop: takes commands, trains in between, reports.

mod collection;
mod playing;
mod runs;
mod scoring;
mod stepping;

use super::command::{Command, InitialWeights, ModelChoice};
use super::compare::{SLOTS, Slot};
use super::details::EvalDetails;
use super::device::{DeviceChoice, explained};
use super::event::{DataSummary, Event, ImageSummary, OrderAsked, Severity};
use super::latest::{Shown, Slots};
use super::model::{self, Model, ModelError, Permit};
use super::outbox::Outbox;
use super::playback::Playback;
use super::thumbnails::Thumbnails;
use crate::data::statistics::SizeRange;
use crate::data::{self, dataset::Dataset};
use crate::detect::predict::inference_pass;
use crate::detect::{Config, Detector, build, predict};
use crate::ops::interrupt;
use crate::train::checkpoint::saved_config;
use crate::train::{Run, RunConfig};
use crate::weights::LoadReport;
use candle_core::Device;
use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use stepping::{NO_RUN, tell_late};

/// Training goes on until it is done, paused or stopped.
const ENDLESS: u64 = u64::MAX;

pub(super) struct Worker {
    inbox: Receiver<Command>,
    out: Outbox,
    slots: Arc<Slots>,
    requests: Arc<AtomicUsize>,
    device: Device,
    /// Those that training takes beside it.
    further: Vec<Device>,
    model: Option<Model>,
    data: Option<Arc<Dataset>>,
    run: Option<Run>,
    /// Iterations to run while no command waits: what is left of a step, or [`ENDLESS`].
    to_run: u64,
    probe: bool,
    shown: Option<usize>,
    /// What was scored last, for another look at it.
    evaluated: Option<Arc<EvalDetails>>,
    compared: [Option<Slot>; SLOTS],
    playback: Option<Playback>,
    /// When the black box was told last.
    told: Instant,
    /// A command that was taken from the inbox before its turn.
    ahead: Option<Command>,
    /// The iteration whose state could not be saved when the run was to end.
    unsaved: Option<u64>,
}

impl Worker {
    pub(super) fn new(
        choices: &[DeviceChoice],
        inbox: Receiver<Command>,
        mut out: Outbox,
        slots: Arc<Slots>,
        requests: Arc<AtomicUsize>,
    ) -> Self {
        interrupt::watch(Some(requests.clone()));
        let opened = DeviceChoice::open_all(choices).unwrap_or_else(|message| {
            out.put(Event::Log { severity: Severity::Error, source: "device".into(), message });
            Vec::new()
        });
        let mut opened = opened.into_iter();
        Self {
            inbox,
            out,
            slots,
            requests,
            device: opened.next().unwrap_or(Device::Cpu),
            further: opened.collect(),
            model: None,
            data: None,
            run: None,
            to_run: 0,
            probe: true,
            shown: None,
            evaluated: None,
            compared: Default::default(),
            playback: None,
            told: Instant::now(),
            ahead: None,
            unsaved: None,
        }
    }

    pub(super) fn run(mut self) {
        loop {
            self.out.flush();
            if self.out.reader_gone {
                break;
            }
            let command = if let Some(command) = self.ahead.take() {
                Some(command)
            } else if self.to_run > 0 {
                match self.inbox.try_recv() {
                    Ok(command) => Some(command),
                    Err(TryRecvError::Empty) => None,
                    Err(TryRecvError::Disconnected) => break,
                }
            } else if let Some(wait) = self.playback.as_ref().and_then(Playback::wait) {
                match self.inbox.recv_timeout(wait) {
                    Ok(command) => Some(command),
                    Err(RecvTimeoutError::Timeout) => {
                        self.play_on();
                        continue;
                    }
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            } else if self.out.is_empty() {
                match self.inbox.recv() {
                    Ok(command) => Some(command),
                    Err(_) => break,
                }
            } else {
                match self.inbox.recv_timeout(Duration::from_millis(20)) {
                    Ok(command) => Some(command),
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            };
            match command {
                Some(command) => {
                    // Its request has done its work: it ended what ran before this command.
                    if command.interrupts() {
                        self.requests.fetch_sub(1, Ordering::AcqRel);
                    }
                    self.obey(command);
                }
                None => self.train_once(),
            }
        }
        self.end_run(false);
    }

    fn obey(&mut self, command: Command) {
        self.make_way(&command);
        match command {
            Command::LoadModel { choice, weights, permit } => self.load_model(choice, weights, permit),
            Command::Configure(config) => self.configure(&config),
            Command::OpenData { path, split } => self.open_data(&path, split.as_deref()),
            Command::Show { index } => {
                let last = self.last_of_the_shows(index);
                self.show(last);
            }
            Command::Probe(on) => {
                self.probe = on;
                self.show_again();
            }
            Command::StartTraining { config, folder, start } => {
                self.start_training(*config, folder, &start);
            }
            Command::ResumeTraining { folder, config } => self.resume_training(&folder, config.map(|c| *c)),
            Command::Step { iterations } => self.step(iterations),
            Command::Phase => self.phase(),
            Command::Back => self.back(),
            Command::SkipBatch => self.skip_batch(),
            Command::FindRate => self.find_rate(),
            Command::ReplayIncident { folder } => self.replay_incident(&folder),
            Command::Train => self.set_training(true),
            Command::Pause => self.set_training(false),
            Command::StopTraining => _ = self.end_run(true),
            Command::Fork { source, iteration, config, folder } => self.fork(&source, iteration, *config, folder),
            Command::OpenCheckpoint { path } => self.open_checkpoint(&path),
            Command::Scrub { index, checkpoints } => self.scrub(index, &checkpoints),
            Command::ListDevices => self.list_devices(),
            Command::UseDevice(choice) => self.use_device(choice),
            Command::CountFlops => self.count_flops(true),
            Command::Save { path } => self.save(path),
            Command::Evaluate { misses } => self.evaluate(misses),
            Command::EvaluateResults { path } => self.evaluate_results(&path),
            Command::Confusion { score } => self.count_confusion(score),
            Command::SetSlot { slot, source } => self.set_slot(slot, &source),
            Command::ClearSlot { slot } => self.clear_slot(slot),
            Command::CompareImage { index } => self.compare_image(index),
            Command::CompareData => self.compare_data(),
            Command::CheckData { pixels } => self.check_data(pixels),
            Command::MeasureData => self.measure_data(),
            Command::Augment { index, epoch, train } => self.augment(index, epoch, *train),
            Command::SaveResults { path } => self.save_results(path),
            Command::Play(order) => self.play(order),
            Command::Cancel => {}
        }
    }

    /// Of pictures asked for one right after the other, as by a key held down, only the last is wanted.
    fn last_of_the_shows(&mut self, mut index: usize) -> usize {
        while let Ok(command) = self.inbox.try_recv() {
            match command {
                Command::Show { index: later } => index = later,
                other => {
                    self.ahead = Some(other);
                    break;
                }
            }
        }
        index
    }

    fn log(&mut self, severity: Severity, source: &str, message: impl Into<String>) {
        self.out.put(Event::Log { severity, source: source.into(), message: message.into() });
    }

    fn error(&mut self, source: &str, error: impl std::fmt::Display) {
        let message = error.to_string();
        if message.contains(interrupt::INTERRUPTED) {
            self.log(Severity::Info, source, "cancelled");
        } else {
            self.log(Severity::Error, source, explained(message));
        }
    }

    // ---- model and data ----

    fn load_model(&mut self, choice: ModelChoice, weights: Option<PathBuf>, permit: Permit) {
        match model::load_permitting(&choice, weights.as_deref(), permit, &self.device) {
            Ok(model) => self.take_model(model),
            Err(error) => {
                self.error("model", &error);
                if error.asks_for_the_order() {
                    let reason = error.to_string();
                    self.out.put(Event::OrderAsked(OrderAsked { choice, weights, permit, reason }));
                }
            }
        }
    }

    fn take_model(&mut self, model: Model) {
        let summary = model.summary();
        self.model = Some(model);
        self.out.put(Event::ModelLoaded(Arc::new(summary)));
        self.show_again();
        self.count_flops(false);
    }

    /// Rebuilds the network under changed settings with the weights it has.
    fn configure(&mut self, config: &Config) {
        let Some(model) = &mut self.model else {
            return self.error("model", "no model is loaded");
        };
        match rebuilt(&*model.detector, config, &self.device) {
            Ok(detector) => {
                model.detector = detector;
                let summary = model.summary();
                self.out.put(Event::ModelLoaded(Arc::new(summary)));
                self.show_again();
            }
            Err(error) => self.error("model", format!("the changed settings do not fit the loaded weights: {error}")),
        }
    }

    fn open_data(&mut self, path: &str, split: Option<&str>) {
        let dataset = match data::open::open(path, split) {
            Ok(dataset) => Arc::new(dataset),
            Err(error) => return self.error("data", error),
        };
        let images = dataset.images.iter().map(|image| {
            let mut classes: Vec<u32> = image.objects.iter().map(|o| o.class).collect();
            classes.sort_unstable();
            classes.dedup();
            ImageSummary {
                name: image.name.clone(),
                width: image.width,
                height: image.height,
                objects: image.objects.len(),
                classes,
                ranges: SizeRange::ALL
                    .map(|range| image.objects.iter().filter(|o| !o.crowd && SizeRange::of(o) == range).count()),
                crowds: image.objects.iter().filter(|o| o.crowd).count(),
            }
        });
        let summary = DataSummary {
            path: path.to_string(),
            name: dataset.name.clone(),
            split: dataset.split.clone(),
            splits: data::open::splits(path),
            classes: dataset.classes.clone(),
            class_counts: dataset.class_counts(),
            images: images.collect(),
            findings: dataset.warnings.clone(),
            thumbnails: Arc::new(Thumbnails::new(dataset.clone(), self.out.wake())),
        };
        self.data = Some(dataset);
        self.shown = None;
        self.evaluated = None;
        self.out.put(Event::DataOpened(Arc::new(summary)));
        self.read_slots_again();
    }

    fn show_again(&mut self) {
        if self.show_frame_again() {
            return;
        }
        if let Some(index) = self.shown {
            self.show(index);
        }
    }

    /// The picture first, so that there is something to see, then the detections.
    fn show(&mut self, index: usize) {
        let Some(dataset) = self.data.clone() else {
            return self.error("data", "no data is open");
        };
        let Some(entry) = dataset.images.get(index) else {
            return self.error("data", format!("there is no image {index} in {}", dataset.name));
        };
        let picture = match dataset.picture(index) {
            Ok(picture) => Arc::new(picture),
            Err(error) => return self.error("image", error),
        };
        let shown = Shown::undetected(
            index,
            entry.name.clone(),
            picture.clone(),
            entry.objects.clone(),
            dataset.classes.clone(),
        );
        // While the same image is on show its old boxes stay until the new ones are there.
        let plays = self.is_playing() && (self.run.is_some() || self.model.is_some());
        if self.shown != Some(index) && !plays {
            self.slots.shown.put(shown.clone());
            self.out.put(Event::Shown { index });
        }
        self.shown = Some(index);
        let detector = match (&self.run, &self.model) {
            (Some(run), _) => &*run.detector,
            (None, Some(model)) => &*model.detector,
            (None, None) => return,
        };
        let same_classes = detector.classes() == dataset.classes;
        let objects = (same_classes && !entry.objects.is_empty()).then_some(entry.objects.as_slice());
        let probe = self.probe && !plays;
        match predict(detector, &picture, objects.filter(|_| probe), inference_pass(probe)) {
            Ok(prediction) => {
                self.slots.shown.put(shown.with(prediction, detector.classes()));
                self.out.put(Event::Shown { index });
            }
            Err(error) => self.error("detection", error),
        }
    }

    // ---- training ----

    fn start_training(&mut self, config: RunConfig, folder: Option<PathBuf>, start: &InitialWeights) {
        let Some(dataset) = self.data.clone() else {
            return self.error("training", "open a data set to train on first");
        };
        let dataset = match &config.split {
            Some(split) if *split != dataset.split => match data::open::open(&config.data, Some(split)) {
                Ok(dataset) => Arc::new(dataset),
                Err(error) => return self.error("training", error),
            },
            _ => dataset,
        };
        // The run that is open is saved, and its weights are the loaded ones that a new run may start from.
        if !self.end_run(true) {
            return;
        }
        // Read before the new run empties its folder, where the file may lie.
        let (prepared, report) = match self.initial_weights(&config, start) {
            Ok(prepared) => prepared,
            Err(error) => return self.error("training", error),
        };
        match Run::new(config, dataset, &self.devices(), folder) {
            Ok(run) => {
                let set = |(name, values): &(String, Vec<f32>)| run.detector.params().set(name, values);
                match prepared.iter().try_for_each(set) {
                    Ok(()) => self.take_run(run, report.map(Arc::new)),
                    Err(error) => {
                        self.error("training", format!("the loaded weights do not fit this run: {error}"));
                    }
                }
            }
            Err(error) => self.error("training", error),
        }
    }

    /// The weights that a new run starts from, by name; what is not named is random. With the report where they are a
    /// file's, or those embedded for another network.
    fn initial_weights(
        &mut self,
        config: &RunConfig,
        start: &InitialWeights,
    ) -> Result<(NamedWeights, Option<LoadReport>), String> {
        match (start, &self.model) {
            (InitialWeights::Random, _) | (InitialWeights::Loaded, None) => Ok((Vec::new(), None)),
            (InitialWeights::Loaded, Some(model)) => Ok((named_weights(&*model.detector, &|_| true)?, None)),
            (InitialWeights::File(path), _) => {
                let fill = |detector: &dyn Detector| model::initialise(detector, path);
                self.fitting_weights(config, &path.display().to_string(), &fill)
            }
            (InitialWeights::Embedded(relative), _) => {
                let fill = |detector: &dyn Detector| model::initialise_from_embedded(detector, *relative);
                self.fitting_weights(config, &format!("the weights embedded for {relative}"), &fill)
            }
        }
    }

    /// What `fill` loads into the network of `config`, by name.
    fn fitting_weights(
        &mut self,
        config: &RunConfig,
        source: &str,
        fill: &dyn Fn(&dyn Detector) -> Result<LoadReport, ModelError>,
    ) -> Result<(NamedWeights, Option<LoadReport>), String> {
        let detector = build(&config.model, &Device::Cpu, 0).map_err(|error| error.to_string())?;
        let report = fill(&*detector).map_err(|error| error.to_string())?;
        let text = format!(
            "{} of {} tensors ({:.1} % of the weights) start from {source}, the rest at random",
            report.loaded.len(),
            report.loaded.len() + report.missing.len() + report.mismatched.len(),
            report.coverage * 100.0
        );
        self.log(if report.is_complete() { Severity::Info } else { Severity::Warning }, "training", text);
        let weights = named_weights(&*detector, &|name| report.loaded.contains(name))?;
        Ok((weights, Some(report)))
    }

    fn resume_training(&mut self, folder: &Path, config: Option<RunConfig>) {
        if !self.end_run(true) {
            return;
        }
        let resumed = config.map_or_else(|| saved_config(folder), Ok).and_then(|config| {
            let dataset = Arc::new(data::open::open(&config.data, config.split.as_deref())?);
            Run::resume(config, dataset, &self.devices(), folder)
        });
        match resumed {
            Ok(run) => self.take_run(run, None),
            Err(error) => self.error("training", error),
        }
    }

    /// What training runs on.
    fn devices(&self) -> Vec<Device> {
        std::iter::once(&self.device).chain(&self.further).cloned().collect()
    }

    fn take_run(&mut self, run: Run, start: Option<Arc<LoadReport>>) {
        self.to_run = 0;
        self.out.put(Event::TrainingReady {
            config: Arc::new(run.config.clone()),
            iteration: run.iteration,
            epoch: run.iterations_per_epoch(),
            folder: run.folder.clone(),
            start,
        });
        self.run = Some(run);
    }

    fn set_training(&mut self, on: bool) {
        let Some(run) = &self.run else {
            return self.error("training", NO_RUN);
        };
        let (iteration, over) = (run.iteration, run.over().filter(|_| on));
        let running = on && over.is_none();
        self.to_run = if running { ENDLESS } else { 0 };
        if let Some(over) = over {
            self.log(Severity::Warning, "training", over);
        }
        self.out.put(Event::Training { running, iteration });
        if !running {
            self.tell_remembered();
            self.show_again();
        }
    }

    /// Runs one of `iterations` iterations and leaves the others to be run between commands; what is left of an earlier
    /// step is run too.
    fn step(&mut self, iterations: u64) {
        let Some(run) = &self.run else {
            return self.error("training", NO_RUN);
        };
        let iteration = run.iteration;
        if let Some(over) = run.over().filter(|_| iterations > 0) {
            self.error("training", over);
            return self.settled();
        }
        let left = if self.to_run == ENDLESS { 0 } else { self.to_run };
        self.to_run = left.saturating_add(iterations);
        match self.to_run {
            0 => return self.settled(),
            1 => {}
            _ => self.out.put(Event::Training { running: true, iteration }),
        }
        self.train_once();
    }

    /// One iteration. The last one of a step is probed, and the run stands still after it.
    fn train_once(&mut self) {
        let Some(run) = &mut self.run else {
            self.to_run = 0;
            return;
        };
        // What an interruption left undone comes first, and may be all that was left.
        let caught_up = run.catch_up();
        tell_late(run, &mut self.out);
        if let Err(error) = caught_up {
            return self.not_stepped(error);
        }
        if run.is_finished() {
            _ = self.end_run(true);
            return;
        }
        let last = self.to_run == 1;
        match run.advance(last) {
            Ok(report) => {
                if self.to_run != ENDLESS {
                    self.to_run -= 1;
                }
                self.stepped(report);
                if last {
                    self.settled();
                }
            }
            Err(error) => self.not_stepped(error),
        }
    }

    /// Ends the run: its last state is saved, and its averaged weights become the loaded model.
    /// False when the state could not be saved: the run stays open, until it is ended a second time.
    fn end_run(&mut self, keep_model: bool) -> bool {
        self.to_run = 0;
        let Some(run) = self.run.take() else {
            return true;
        };
        let iteration = run.iteration;
        if let Err(error) = run.save() {
            self.error("training", error);
            if keep_model && self.unsaved.replace(iteration) != Some(iteration) {
                let advice = "the run stays open; make room and end it again, which ends it even unsaved";
                self.log(Severity::Warning, "training", advice);
                self.out.put(Event::Training { running: false, iteration });
                self.run = Some(run);
                return false;
            }
        }
        self.unsaved = None;
        self.out.put(Event::TrainingEnded { iteration, finished: run.is_finished() });
        if !keep_model {
            return true;
        }
        let averaged = run.optimizer.averaged().and_then(|values| {
            let own = run.detector.params();
            values.iter().try_for_each(|(name, _, values)| own.set(name, values))
        });
        if let Err(error) = averaged {
            self.error("training", error);
            return true;
        }
        let source = match &run.folder {
            Some(folder) => format!("{} at iteration {iteration}", folder.display()),
            None => format!("trained {iteration} iterations, {}", model::NOT_SAVED),
        };
        self.take_model(Model { detector: run.detector, report: None, source });
        true
    }

    fn save(&mut self, path: PathBuf) {
        let saved = match (&self.run, &self.model) {
            (Some(run), _) => run.save_weights(&path, false).map_err(|e| e.to_string()),
            (None, Some(model)) => {
                crate::train::checkpoint::save_model(&*model.detector, &path).map_err(|e| e.to_string())
            }
            (None, None) => Err("there is no model to save".into()),
        };
        match saved {
            Ok(()) => self.out.put(Event::Saved { path }),
            Err(error) => self.error("save", error),
        }
    }
}

/// Weights by name.
type NamedWeights = Vec<(String, Vec<f32>)>;

/// Those of `detector` whose name is wanted.
fn named_weights(detector: &dyn Detector, wanted: &dyn Fn(&String) -> bool) -> Result<NamedWeights, String> {
    let values = detector.params().values().map_err(|error| error.to_string())?;
    Ok(values.into_iter().filter(|(name, _)| wanted(name)).map(|(name, (_, values))| (name, values)).collect())
}

/// A network under `config` with the weights of `detector`.
fn rebuilt(detector: &dyn Detector, config: &Config, device: &Device) -> candle_core::Result<Box<dyn Detector>> {
    let copy = build(config, device, 0)?;
    for (name, (_, values)) in detector.params().values()? {
        copy.params().set(&name, &values)?;
    }
    Ok(copy)
}
