//! A training run: detector, data, optimiser and its folder on disk, advanced by phases or whole iterations.

mod ending;

use super::blackbox::{BlackBox, Record, Recording};
use super::config::TrainConfig;
use super::error::TrainError;
use super::events::Events;
use super::incident::{Fault, Incident};
use super::loading::{loader_settings, next_batch};
use super::manifest::Manifest;
use super::metrics::Metrics;
use super::optimizer::Optimizer;
use super::recorder::{Recorder, State};
use super::replicas::{Replicas, SharedStep};
use super::scaling::LossScale;
use super::step::{Phase, StepReport, StepSettings};
use super::validation::{Best, Validation, validation_data};
use super::{blackbox, checkpoint, journal};
use crate::data::dataset::Dataset;
use crate::data::loader::{Batch, Loader, Position};
use crate::detect::{Arch, Config, Detector, build};
use candle_core::Device;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Batches of one iteration: they are in memory together.
const MOST_ACCUMULATED: usize = 1024;

/// Model and training settings together: what `config.toml` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunConfig {
    /// Data set path, or "shapes".
    pub data: String,
    /// Its split to learn from; the data set's own choice when left out.
    #[serde(default)]
    pub split: Option<String>,
    pub train: TrainConfig,
    pub model: Config,
}

impl RunConfig {
    /// Defaults of `arch` for the classes of `dataset`.
    pub fn new(arch: Arch, data: &str, dataset: &Dataset) -> Self {
        Self {
            data: data.to_string(),
            split: Some(dataset.split.clone()),
            train: TrainConfig::new(arch),
            model: Config::new(arch, &dataset.classes),
        }
    }
}

/// A run in progress.
pub struct Run {
    pub config: RunConfig,
    pub detector: Box<dyn Detector>,
    pub optimizer: Optimizer,
    pub(super) replicas: Replicas,
    pub folder: Option<PathBuf>,
    /// Iterations done.
    pub iteration: u64,
    /// Where the next batch starts.
    pub position: Position,
    /// The best validation so far.
    pub best: Best,
    /// Of the next iteration, where the precision needs one.
    pub loss_scale: Option<LossScale>,
    dataset: Arc<Dataset>,
    validation_data: Option<Arc<Dataset>>,
    loader: Option<Loader>,
    metrics: Option<Metrics>,
    events: Option<Events>,
    recorder: Recorder,
    pub(super) black_box: BlackBox,
    step: Option<SharedStep>,
    /// When the step in progress began to be worked on, and the seconds that its earlier phases took.
    working: f64,
    /// A validation that was interrupted and done later than its iteration's report: to be told.
    late: Option<Validation>,
    /// The same, until it is written down.
    unwritten: Option<Validation>,
    /// A checkpoint that is due but could not be written.
    unsaved: bool,
    /// Why the black box could not be written at the last pause: to be told.
    unrecorded: Option<String>,
}

impl Run {
    /// A fresh run on one device or several ([`Replicas`]). With `folder`, configuration, metrics and checkpoints are
    /// written there, over those of a run that was there before.
    ///
    /// # Errors
    /// Settings that make no run, or a folder that cannot be written.
    pub fn new(
        config: RunConfig,
        dataset: Arc<Dataset>,
        devices: &[Device],
        folder: Option<PathBuf>,
    ) -> Result<Self, TrainError> {
        let mut run = Self::in_memory(config, dataset, devices)?;
        if let Some(folder) = folder {
            run.settle(folder, None)?;
        }
        Ok(run)
    }

    /// Takes a run up again where its last checkpoint left it.
    ///
    /// # Errors
    /// No checkpoint, or one that does not fit.
    pub fn resume(
        config: RunConfig,
        dataset: Arc<Dataset>,
        devices: &[Device],
        folder: &Path,
    ) -> Result<Self, TrainError> {
        let mut run = Self::in_memory(config, dataset, devices)?;
        run.restore(&checkpoint::last(folder))?;
        // A jump that was reported is let through, as in the run that was not interrupted.
        if let Ok(recording) = Recording::read(folder)
            && recording.incident.fault == Fault::Spike
        {
            run.black_box.let_through(recording.record.iteration.saturating_sub(1));
        }
        run.write_config(folder)?;
        run.manifest(None).resume(folder, run.iteration)?;
        journal::note(folder, &format!("resumed after iteration {}", run.iteration))?;
        run.folder = Some(folder.to_path_buf());
        Ok(run)
    }

    /// A fresh run that writes nothing.
    pub(super) fn in_memory(config: RunConfig, dataset: Arc<Dataset>, devices: &[Device]) -> Result<Self, TrainError> {
        let Some(device) = devices.first() else {
            return Err(TrainError::Settings("a run needs a device".into()));
        };
        check(&config, &dataset)?;
        let validation_data = match config.train.validate_every {
            0 => None,
            _ => Some(validation_data(&config.data, config.model.classes())?),
        };
        let detector = build(&config.model, device, config.train.seed)?;
        let optimizer = Optimizer::new(detector.params(), &config.train);
        if !optimizer.trains_anything() {
            return Err(TrainError::Settings("every parameter is frozen: shorten frozen_prefixes".into()));
        }
        let replicas = Replicas::new(&config, devices)?;
        let loss_scale = LossScale::new(config.train.precision);
        Ok(Self {
            config,
            detector,
            optimizer,
            replicas,
            folder: None,
            iteration: 0,
            position: Position { epoch: 0, batch: 0 },
            best: Best::default(),
            loss_scale,
            dataset,
            validation_data,
            loader: None,
            metrics: None,
            events: None,
            recorder: Recorder::default(),
            black_box: BlackBox::default(),
            step: None,
            working: 0.0,
            late: None,
            unwritten: None,
            unsaved: false,
            unrecorded: None,
        })
    }

    /// Makes `folder` this run's own.
    pub(super) fn settle(&mut self, folder: PathBuf, forked_from: Option<(String, u64)>) -> Result<(), TrainError> {
        let failed = |source| TrainError::Write { path: folder.clone(), source };
        std::fs::create_dir_all(&folder).map_err(failed)?;
        checkpoint::clear(&folder).map_err(failed)?;
        self.write_config(&folder)?;
        let begun = match &forked_from {
            Some((run, iteration)) => format!("forked from {run} after iteration {iteration}"),
            None => format!("started on {} {}", self.dataset.name, self.dataset.split),
        };
        self.manifest(forked_from).write(&folder)?;
        journal::note(&folder, &begun)?;
        self.folder = Some(folder);
        Ok(())
    }

    /// The data that the run learns from.
    pub fn dataset(&self) -> &Arc<Dataset> {
        &self.dataset
    }

    /// All iterations are done, or validation has not improved for as long as the settings allow; and nothing is left
    /// to be made up for.
    pub fn is_finished(&self) -> bool {
        self.is_last() && !self.validation_is_due() && self.unwritten.is_none() && !self.unsaved
    }

    /// No iteration follows.
    fn is_last(&self) -> bool {
        self.iteration >= self.config.train.iterations || self.stopped_early()
    }

    /// Why a finished run does not go on, and what to do.
    pub fn over(&self) -> Option<String> {
        if !self.is_finished() {
            return None;
        }
        let (done, train) = (self.iteration, &self.config.train);
        let (reason, setting) = if done >= train.iterations {
            (format!("its {} iterations are done", train.iterations), "iterations")
        } else {
            (format!("validation has not improved {} times", train.patience), "patience")
        };
        Some(format!(
            "the run has ended after iteration {done}: {reason}. Fork it with more {setting} in the Runs panel, or with \
             `boxwright train --fork RUN --at {done} --set {setting}=N`, or start a new run"
        ))
    }

    /// Ended by `patience`.
    pub fn stopped_early(&self) -> bool {
        let patience = self.config.train.patience;
        patience > 0 && self.best.without >= patience
    }

    /// Iterations that one pass over the data takes.
    pub fn iterations_per_epoch(&self) -> u64 {
        let train = &self.config.train;
        let images = train.batch.max(1).saturating_mul(train.accumulate.max(1));
        (self.dataset.images.len() as u64 / images as u64).max(1)
    }

    /// The batch that the next iteration will see.
    ///
    /// # Errors
    /// Data of which nothing can be read.
    pub fn next_batch(&mut self) -> Result<Batch, TrainError> {
        if self.loader.is_none() {
            let settings = loader_settings(&self.config.train, &self.config.model);
            self.loader = Some(Loader::new(self.dataset.clone(), settings, self.position)?);
        }
        let next = match &mut self.loader {
            Some(loader) => next_batch(loader),
            None => return Err(TrainError::Settings("the loader did not start".into())),
        };
        if next.as_ref().is_err_and(|error| !error.is_interruption()) {
            // Its thread has ended; the next try begins anew.
            self.loader = None;
        }
        next
    }

    /// One iteration, or the rest of the one in progress; `probe` fills the report's traces and layers. An interruption
    /// or an error leaves the run as it was.
    ///
    /// # Errors
    /// See [`Self::phase`].
    pub fn advance(&mut self, probe: bool) -> Result<StepReport, TrainError> {
        loop {
            if let (_, Some(report)) = self.phase(probe)? {
                return Ok(report);
            }
        }
    }

    /// One iteration on a batch of the caller's: the loader's next batch stays the next one.
    ///
    /// # Errors
    /// See [`Self::phase`].
    pub fn advance_on(&mut self, mut batch: Batch, probe: bool) -> Result<StepReport, TrainError> {
        batch.position = self.position;
        self.loader = None;
        self.begin(vec![batch], probe);
        self.advance(probe)
    }

    /// Runs the next phase of the iteration in progress, or the first of a new one, which `probe` then watches. The
    /// report comes with the last phase.
    ///
    /// # Errors
    /// A run that is over, a failing operation, an interruption, or an incident that pauses the run
    /// ([`TrainError::Incident`]): then the iteration is abandoned and nothing has changed. A disk that cannot be
    /// written ([`TrainError::Write`]) is reported after the update, and what was to be written is kept for the next
    /// time.
    pub fn phase(&mut self, probe: bool) -> Result<(Phase, Option<StepReport>), TrainError> {
        let start = Instant::now();
        if self.step.is_none() {
            self.catch_up()?;
            if let Some(over) = self.over() {
                return Err(TrainError::Settings(over));
            }
            let count = self.config.train.accumulate.max(1);
            let batches: Result<Vec<Batch>, TrainError> = (0..count).map(|_| self.next_batch()).collect();
            let begun = batches.map(|batches| self.begin(batches, probe));
            if begun.is_err() {
                self.loader = None;
            }
            begun?;
        }
        let phase = match self.run_phase() {
            Ok(phase) => phase,
            Err(error) => {
                self.pause_with(&error);
                return Err(error);
            }
        };
        self.working += start.elapsed().as_secs_f64();
        if phase != Phase::Update {
            return Ok((phase, None));
        }
        let report = self.finish()?;
        Ok((phase, Some(report)))
    }

    /// What the iteration in progress has shown so far, and its next phase.
    pub fn in_progress(&self) -> Option<(StepReport, Phase)> {
        let step = self.step.as_ref()?;
        Some((step.partial(), step.next_phase()?))
    }

    /// Drops the iteration in progress; its batch comes again.
    pub fn abandon(&mut self) {
        if self.step.take().is_some() {
            self.loader = None;
        }
    }

    /// Passes over the batch that the next iteration would have learnt from.
    ///
    /// # Errors
    /// Data of which nothing can be read.
    pub fn skip_batch(&mut self) -> Result<(), TrainError> {
        self.abandon();
        self.position = self.next_batch()?.position;
        Ok(())
    }

    /// Goes back to before the last iteration, bit for bit; false when the recorder holds no state
    /// ([`TrainConfig::history`]). Inside an iteration, that iteration is abandoned and nothing else happens.
    ///
    /// # Errors
    /// A device that cannot take the state.
    pub fn back(&mut self) -> Result<bool, TrainError> {
        if self.step.is_some() {
            self.abandon();
            return Ok(true);
        }
        let Some(state) = self.recorder.pop() else {
            return Ok(false);
        };
        self.put_back(state)?;
        (self.late, self.unwritten, self.unsaved) = (None, None, false);
        self.black_box.forget_after(self.iteration);
        Ok(true)
    }

    /// How many times [`Self::back`] can be called.
    pub fn steps_back(&self) -> usize {
        self.recorder.len()
    }

    /// Why the black box could not be written when the run paused by itself, once.
    pub fn take_unrecorded(&mut self) -> Option<String> {
        self.unrecorded.take()
    }

    /// The iterations that the black box remembers, oldest first.
    pub fn remembered(&self) -> impl Iterator<Item = &Record> {
        self.black_box.records()
    }

    /// A copy of everything that an iteration changes.
    pub(super) fn state(&self) -> Result<State, TrainError> {
        let optimizer = self.optimizer.snapshot()?;
        let (iteration, position, best) = (self.iteration, self.position, self.best);
        let (losses, loss_scale) = (self.black_box.losses.clone(), self.loss_scale);
        Ok(State { iteration, position, best, losses, loss_scale, optimizer })
    }

    /// Puts back what [`Self::state`] copied.
    pub(super) fn put_back(&mut self, state: State) -> Result<(), TrainError> {
        self.optimizer.put_back(state.optimizer)?;
        (self.iteration, self.position, self.best) = (state.iteration, state.position, state.best);
        self.black_box.losses = state.losses;
        self.loss_scale = LossScale::resumed(self.config.train.precision, state.loss_scale);
        (self.loader, self.metrics, self.events, self.step) = (None, None, None, None);
        Ok(())
    }

    pub(super) fn begin(&mut self, batches: Vec<Batch>, probe: bool) {
        let settings = StepSettings {
            mode: self.config.train.mode(),
            probe,
            rate: self.config.train.schedule.rate(self.iteration, self.config.train.iterations),
            iteration: self.iteration,
            precision: self.config.train.precision,
            loss_scale: self.loss_scale.map(LossScale::factor),
        };
        self.working = 0.0;
        self.step = Some(SharedStep::new(batches, settings, self.replicas.count()));
    }

    /// The phase itself, and around the update what protects it.
    fn run_phase(&mut self) -> Result<Phase, TrainError> {
        let missing = || TrainError::Settings("no iteration is in progress".into());
        let next = self.step.as_ref().and_then(SharedStep::next_phase).ok_or_else(missing)?;
        let (most, bytes) = (self.config.train.history, self.config.train.history_mib.saturating_mul(1 << 20));
        let before = if next == Phase::Update && most > 0 { Some(self.state()?) } else { None };
        let step = self.step.as_mut().ok_or_else(missing)?;
        let phase = match step.advance(&mut self.replicas, &*self.detector, &mut self.optimizer) {
            Ok(phase) => phase,
            Err(error) => {
                if let Some(before) = before {
                    self.optimizer.put_back(before.optimizer)?;
                }
                return Err(error);
            }
        };
        if let Some(before) = before {
            self.recorder.push(before, most, bytes);
        }
        if let (Phase::Loss, Some(loss)) = (phase, step.loss())
            && let Some(median) = self.black_box.spike(self.iteration, loss, self.config.train.spike_factor)
        {
            let traced = step.spike(&self.replicas, &*self.detector, &self.optimizer, median);
            if traced.is_err() {
                // Interrupted: the jump is still to be reported.
                self.black_box.not_seen();
            }
            return Err(TrainError::Incident(Box::new(traced?)));
        }
        Ok(phase)
    }

    /// Runs the iteration in progress up to its loss and traces that as a jump from `median`.
    pub(super) fn jump_from(&mut self, median: f32) -> Result<Incident, TrainError> {
        loop {
            let phase = self.run_phase()?;
            if let (Phase::Loss, Some(step)) = (phase, &self.step)
                && step.loss().is_some()
            {
                return step.spike(&self.replicas, &*self.detector, &self.optimizer, median);
            }
        }
    }

    /// Abandons the iteration; an incident is recorded first.
    fn pause_with(&mut self, error: &TrainError) {
        if let TrainError::Incident(incident) = error {
            let written = self.write_recording(incident);
            if let Err(problem) = written {
                self.unrecorded = Some(problem.to_string());
            }
        }
        // The batch was drawn but not learnt from: the next one must be the same.
        self.step = None;
        self.loader = None;
    }

    fn write_recording(&self, incident: &Incident) -> Result<(), TrainError> {
        let (Some(folder), Some(step)) = (&self.folder, &self.step) else {
            return Ok(());
        };
        let rate = self.config.train.schedule.rate(self.iteration, self.config.train.iterations);
        let mut record = Record::new(self.iteration + 1, rate, self.position, step.batches());
        record.gradient_norms = blackbox::exact_norms(step.gradient_norms());
        // With a box that is not finite nothing has been computed.
        if incident.fault != Fault::Box
            && let Ok(traces) = step.look_again(&self.replicas, &*self.detector, &self.optimizer)
        {
            let paused = record.batches.get_mut(step.progress().0).into_iter().flatten();
            paused.zip(&traces).for_each(|(image, trace)| image.explain(trace));
        }
        let recording = self.black_box.recording(incident, record, step.batches());
        self.save_state(&folder.join(blackbox::STATE))?;
        let text = serde_json::to_string_pretty(&recording).map_err(|e| TrainError::Checkpoint(e.to_string()))?;
        crate::weights::write_atomically(&folder.join(blackbox::RECORD), format!("{text}\n").as_bytes())
            .map_err(TrainError::unwritten)?;
        journal::note(folder, &format!("paused: {incident}"))
    }

    fn write_config(&self, folder: &Path) -> Result<(), TrainError> {
        let config = toml::to_string(&self.config).map_err(|e| TrainError::Settings(e.to_string()))?;
        crate::weights::write_atomically(&folder.join("config.toml"), config.as_bytes()).map_err(TrainError::unwritten)
    }

    fn manifest(&self, forked_from: Option<(String, u64)>) -> Manifest {
        let names: Vec<String> = self.replicas.devices().iter().map(|d| format!("{:?}", d.location())).collect();
        Manifest {
            data: self.config.data.clone(),
            data_digest: self.dataset.digest(),
            device: names.join(", "),
            seed: self.config.train.seed,
            forked_from,
        }
    }
}

fn check(config: &RunConfig, dataset: &Dataset) -> Result<(), TrainError> {
    let settings = |text: String| Err(TrainError::Settings(text));
    if config.train.batch == 0 {
        return settings("a batch needs at least one image: set batch".into());
    }
    if config.train.accumulate > MOST_ACCUMULATED {
        return settings(format!("accumulate takes 1 to {MOST_ACCUMULATED} batches, not {}", config.train.accumulate));
    }
    if dataset.images.is_empty() {
        return settings(format!("{} ({}) has no images to train on", dataset.name, dataset.split));
    }
    if dataset.images.iter().all(|i| i.objects.is_empty()) {
        return settings(format!("{} ({}) has images but no objects to learn", dataset.name, dataset.split));
    }
    if config.model.classes() != dataset.classes {
        return settings(format!(
            "the model's classes ({}) are not the data set's ({})",
            config.model.classes().join(", "),
            dataset.classes.join(", ")
        ));
    }
    Ok(())
}
