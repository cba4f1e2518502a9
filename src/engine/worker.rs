//! The worker's loop: takes commands, trains in between, reports.

use super::command::{Command, ModelChoice};
use super::device::DeviceChoice;
use super::evaluate::score;
use super::event::{DataSummary, EvalSummary, Event, ImageSummary, Severity};
use super::latest::{Shown, Slots, Stepped};
use super::model::{self, Model};
use super::outbox::Outbox;
use crate::data::{self, dataset::Dataset};
use crate::detect::predict::inference_pass;
use crate::detect::{Config, Detector, build, predict};
use crate::imaging::preprocess::ChannelOrder;
use crate::ops::interrupt;
use crate::train::checkpoint::saved_config;
use crate::train::{Run, RunConfig};
use candle_core::Device;
use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub(super) struct Worker {
    inbox: Receiver<Command>,
    out: Outbox,
    slots: Arc<Slots>,
    requests: Arc<AtomicUsize>,
    device: Device,
    model: Option<Model>,
    data: Option<Arc<Dataset>>,
    run: Option<Run>,
    /// Training goes on whenever no command waits.
    training: bool,
    probe: bool,
    shown: Option<usize>,
}

impl Worker {
    pub(super) fn new(
        choice: DeviceChoice,
        inbox: Receiver<Command>,
        mut out: Outbox,
        slots: Arc<Slots>,
        requests: Arc<AtomicUsize>,
    ) -> Self {
        interrupt::watch(Some(requests.clone()));
        let device = choice.open().unwrap_or_else(|message| {
            out.put(Event::Log { severity: Severity::Error, source: "device".into(), message });
            Device::Cpu
        });
        Self {
            inbox,
            out,
            slots,
            requests,
            device,
            model: None,
            data: None,
            run: None,
            training: false,
            probe: true,
            shown: None,
        }
    }

    pub(super) fn run(mut self) {
        loop {
            self.out.flush();
            if self.out.reader_gone {
                break;
            }
            let command = if self.training {
                match self.inbox.try_recv() {
                    Ok(command) => Some(command),
                    Err(TryRecvError::Empty) => None,
                    Err(TryRecvError::Disconnected) => break,
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
                None => self.train_once(false),
            }
        }
        self.end_run(false);
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::LoadModel { choice, weights, allow_partial } => {
                self.load_model(&choice, weights.as_deref(), allow_partial);
            }
            Command::Configure(config) => self.configure(&config),
            Command::OpenData { path, split } => self.open_data(&path, split.as_deref()),
            Command::Show { index } => self.show(index),
            Command::Probe(on) => {
                self.probe = on;
                self.show_again();
            }
            Command::StartTraining { config, folder, from_current } => {
                self.start_training(*config, folder, from_current);
            }
            Command::ResumeTraining { folder, config } => self.resume_training(&folder, config.map(|c| *c)),
            Command::Step { iterations } => self.step(iterations),
            Command::Train => self.set_training(true),
            Command::Pause => self.set_training(false),
            Command::StopTraining => self.end_run(true),
            Command::Save { path } => self.save(path),
            Command::Evaluate => self.evaluate(),
            Command::Cancel => {}
        }
    }

    fn log(&mut self, severity: Severity, source: &str, message: impl Into<String>) {
        self.out.put(Event::Log { severity, source: source.into(), message: message.into() });
    }

    fn error(&mut self, source: &str, error: impl std::fmt::Display) {
        let message = error.to_string();
        if message.contains(interrupt::INTERRUPTED) {
            self.log(Severity::Info, source, "cancelled");
        } else {
            self.log(Severity::Error, source, message);
        }
    }

    // ---- model and data ----

    fn load_model(&mut self, choice: &ModelChoice, weights: Option<&Path>, allow_partial: bool) {
        match model::load(choice, weights, allow_partial, &self.device) {
            Ok(model) => self.take_model(model),
            Err(error) => self.error("model", error),
        }
    }

    fn take_model(&mut self, model: Model) {
        let summary = model.summary();
        self.model = Some(model);
        self.out.put(Event::ModelLoaded(Arc::new(summary)));
        self.show_again();
    }

    /// Rebuilds the network under changed settings with the weights it has.
    fn configure(&mut self, config: &Config) {
        let Some(model) = &mut self.model else {
            return self.error("model", "no model is loaded");
        };
        let rebuilt = || -> candle_core::Result<Box<dyn Detector>> {
            let detector = build(config, &self.device, 0)?;
            for (name, (_, values)) in model.detector.params().values()? {
                detector.params().set(&name, &values)?;
            }
            Ok(detector)
        };
        match rebuilt() {
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
        };
        self.data = Some(dataset);
        self.shown = None;
        self.out.put(Event::DataOpened(Arc::new(summary)));
    }

    fn show_again(&mut self) {
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
        let mut shown = Shown {
            index,
            name: entry.name.clone(),
            picture: picture.clone(),
            objects: entry.objects.clone(),
            object_classes: dataset.classes.clone(),
            detections: Vec::new(),
            detection_classes: Vec::new(),
            detected: false,
            timings: Vec::new(),
            trace: None,
        };
        // While the same image is on show its old boxes stay until the new ones are there.
        if self.shown != Some(index) {
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
        match predict(detector, &picture, objects.filter(|_| self.probe), inference_pass(self.probe)) {
            Ok(prediction) => {
                shown.detections = prediction.detections;
                shown.detection_classes = detector.classes().to_vec();
                shown.detected = true;
                shown.timings = prediction.timings;
                shown.trace = prediction.trace.map(Arc::new);
                self.slots.shown.put(shown);
                self.out.put(Event::Shown { index });
            }
            Err(error) => self.error("detection", error),
        }
    }

    // ---- training ----

    fn start_training(&mut self, config: RunConfig, folder: Option<PathBuf>, from_current: bool) {
        let Some(dataset) = self.data.clone() else {
            return self.error("training", "open a data set to train on first");
        };
        match Run::new(config, dataset, &self.device, folder) {
            Ok(run) => {
                if from_current && let Some(model) = &self.model {
                    let copied = model.detector.params().values().and_then(|values| {
                        values.iter().try_for_each(|(name, (_, values))| run.detector.params().set(name, values))
                    });
                    if let Err(error) = copied {
                        return self.error("training", format!("the loaded weights do not fit this run: {error}"));
                    }
                }
                self.take_run(run);
            }
            Err(error) => self.error("training", error),
        }
    }

    fn resume_training(&mut self, folder: &Path, config: Option<RunConfig>) {
        let resumed = config.map_or_else(|| saved_config(folder), Ok).and_then(|config| {
            let dataset = Arc::new(data::open::open(&config.data, config.split.as_deref())?);
            Run::resume(config, dataset, &self.device, folder)
        });
        match resumed {
            Ok(run) => self.take_run(run),
            Err(error) => self.error("training", error),
        }
    }

    fn take_run(&mut self, run: Run) {
        self.training = false;
        self.out.put(Event::TrainingReady {
            config: Arc::new(run.config.clone()),
            iteration: run.iteration,
            folder: run.folder.clone(),
        });
        self.run = Some(run);
    }

    fn set_training(&mut self, on: bool) {
        let Some(run) = &self.run else {
            return self.error("training", "there is no run; start one in the Step panel");
        };
        let iteration = run.iteration;
        self.training = on && !run.is_finished();
        self.out.put(Event::Training { running: self.training, iteration });
        if !self.training {
            self.show_again();
        }
    }

    fn step(&mut self, iterations: u64) {
        if self.run.is_none() {
            return self.error("training", "there is no run; start one in the Step panel");
        }
        self.training = false;
        for left in (0..iterations).rev() {
            self.train_once(left == 0);
            if self.run.is_none() || interrupt::requested() || !self.inbox.is_empty() {
                break;
            }
        }
        if let Some(run) = &self.run {
            let iteration = run.iteration;
            self.out.put(Event::Training { running: false, iteration });
            self.show_again();
        }
    }

    fn train_once(&mut self, probe: bool) {
        let Some(run) = &mut self.run else {
            self.training = false;
            return;
        };
        match run.advance(probe) {
            Ok(mut report) => {
                let preprocess = run.detector.preprocess();
                if probe {
                    let traces = std::mem::take(&mut report.traces);
                    self.slots.stepped.put(Stepped {
                        report: crate::train::StepReport { traces, ..report.clone() },
                        mean: preprocess.mean,
                        std: preprocess.std,
                        bgr: preprocess.order == ChannelOrder::Bgr,
                        classes: run.detector.classes().to_vec(),
                        coder: run.detector.config().coder(),
                    });
                }
                let finished = run.is_finished();
                self.out.put(Event::Stepped(Arc::new(report)));
                if finished {
                    self.end_run(true);
                }
            }
            Err(error) => {
                self.training = false;
                let iteration = run.iteration;
                if !error.to_string().contains(interrupt::INTERRUPTED) {
                    self.error("training", error);
                }
                self.out.put(Event::Training { running: false, iteration });
            }
        }
    }

    /// Ends the run: its last state is saved, and its averaged weights become the loaded model.
    fn end_run(&mut self, keep_model: bool) {
        self.training = false;
        let Some(run) = self.run.take() else {
            return;
        };
        if let Err(error) = run.save() {
            self.error("training", error);
        }
        let iteration = run.iteration;
        self.out.put(Event::TrainingEnded { iteration, finished: run.is_finished() });
        if !keep_model {
            return;
        }
        let averaged = run.optimizer.averaged().and_then(|values| {
            let own = run.detector.params();
            values.iter().try_for_each(|(name, _, values)| own.set(name, values))
        });
        if let Err(error) = averaged {
            return self.error("training", error);
        }
        let source = match &run.folder {
            Some(folder) => format!("{} at iteration {iteration}", folder.display()),
            None => format!("trained {iteration} iterations, not saved"),
        };
        self.take_model(Model { detector: run.detector, report: None, source });
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

    fn evaluate(&mut self) {
        const TASK: &str = "evaluation";
        let Some(dataset) = self.data.clone() else {
            return self.error(TASK, "no data is open");
        };
        let start = Instant::now();
        let scored = {
            let (detector, model): (&dyn Detector, String) = match (&self.run, &self.model) {
                (Some(run), _) => (&*run.detector, format!("training run, iteration {}", run.iteration)),
                (None, Some(model)) => (&*model.detector, model.source.clone()),
                (None, None) => return self.error(TASK, "no model is loaded"),
            };
            let model = format!("{} ({model})", detector.config().arch());
            let out = &mut self.out;
            let mut told = Instant::now();
            let scored = score(detector, &dataset, |done, total| {
                if told.elapsed() > Duration::from_millis(100) || done == total {
                    told = Instant::now();
                    let per_second = done as f64 / start.elapsed().as_secs_f64().max(1e-9);
                    let (done, total) = (done as u64, total as u64);
                    out.put(Event::Progress { task: TASK.into(), done, total, per_second });
                }
            });
            scored.map(|s| (s, model))
        };
        let cancelled = match scored {
            Ok((scored, model)) => {
                for skipped in &scored.skipped {
                    self.log(Severity::Warning, TASK, format!("counted as without detections: {skipped}"));
                }
                self.out.put(Event::Evaluated(Arc::new(EvalSummary {
                    model,
                    data: format!("{} {}", dataset.name, dataset.split),
                    classes: dataset.classes.clone(),
                    result: scored.result,
                    images: dataset.images.len(),
                    seconds: scored.seconds,
                })));
                false
            }
            Err(error) => {
                self.error(TASK, error);
                true
            }
        };
        self.out.put(Event::Idle { task: TASK.into(), cancelled });
    }
}
