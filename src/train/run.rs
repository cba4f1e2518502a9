//! A training run: detector, data, optimiser and its folder on disk, advanced by phases or whole iterations.

use super::blackbox::{BlackBox, Record};
use super::config::TrainConfig;
use super::error::TrainError;
use super::events::Events;
use super::incident::Incident;
use super::loading::{loader_settings, next_batch};
use super::manifest::Manifest;
use super::metrics::Metrics;
use super::optimizer::Optimizer;
use super::recorder::{Recorder, State};
use super::step::{Phase, StepInProgress, StepReport, StepSettings};
use super::validation::{Best, Validation, validate, validation_data};
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
    pub folder: Option<PathBuf>,
    /// Iterations done.
    pub iteration: u64,
    /// Where the next batch starts.
    pub position: Position,
    /// The best validation so far.
    pub best: Best,
    dataset: Arc<Dataset>,
    validation_data: Option<Arc<Dataset>>,
    loader: Option<Loader>,
    metrics: Option<Metrics>,
    events: Option<Events>,
    recorder: Recorder,
    black_box: BlackBox,
    step: Option<StepInProgress>,
    /// When the step in progress began to be worked on, and the seconds that its earlier phases took.
    working: f64,
    /// A validation that was interrupted and done later than its iteration's report.
    late: Option<Validation>,
    /// A checkpoint that is due but could not be written.
    unsaved: bool,
}

impl Run {
    /// A fresh run. With `folder`, configuration, metrics and checkpoints are written there, over those of a run that
    /// was there before.
    ///
    /// # Errors
    /// Settings that make no run, or a folder that cannot be written.
    pub fn new(
        config: RunConfig,
        dataset: Arc<Dataset>,
        device: &Device,
        folder: Option<PathBuf>,
    ) -> Result<Self, TrainError> {
        let mut run = Self::in_memory(config, dataset, device)?;
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
        device: &Device,
        folder: &Path,
    ) -> Result<Self, TrainError> {
        let mut run = Self::in_memory(config, dataset, device)?;
        run.restore(&checkpoint::last(folder))?;
        run.write_config(folder)?;
        run.manifest(None).resume(folder, run.iteration)?;
        journal::note(folder, &format!("resumed after iteration {}", run.iteration))?;
        run.folder = Some(folder.to_path_buf());
        Ok(run)
    }

    /// A fresh run that writes nothing.
    pub(super) fn in_memory(config: RunConfig, dataset: Arc<Dataset>, device: &Device) -> Result<Self, TrainError> {
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
        Ok(Self {
            config,
            detector,
            optimizer,
            folder: None,
            iteration: 0,
            position: Position { epoch: 0, batch: 0 },
            best: Best::default(),
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
            unsaved: false,
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

    /// All iterations are done, or validation has not improved for as long as the settings allow.
    pub fn is_finished(&self) -> bool {
        self.iteration >= self.config.train.iterations || self.stopped_early()
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
    /// A failing operation, an interruption, or an incident that pauses the run ([`TrainError::Incident`]): then the
    /// iteration is abandoned and nothing has changed. A disk that cannot be written ([`TrainError::Write`]) is
    /// reported after the update, and what was to be written is kept for the next time.
    pub fn phase(&mut self, probe: bool) -> Result<(Phase, Option<StepReport>), TrainError> {
        let start = Instant::now();
        if self.step.is_none() {
            self.catch_up()?;
            let count = self.config.train.accumulate.max(1);
            let batches: Result<Vec<Batch>, TrainError> = (0..count).map(|_| self.next_batch()).collect();
            if batches.is_err() {
                self.loader = None;
            }
            self.begin(batches?, probe);
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
        self.late = None;
        self.black_box.forget_after(self.iteration);
        Ok(true)
    }

    /// How many times [`Self::back`] can be called.
    pub fn steps_back(&self) -> usize {
        self.recorder.len()
    }

    /// The iterations that the black box remembers, oldest first.
    pub fn remembered(&self) -> impl Iterator<Item = &Record> {
        self.black_box.records()
    }

    /// A copy of everything that an iteration changes.
    pub(super) fn state(&self) -> Result<State, TrainError> {
        let optimizer = self.optimizer.snapshot()?;
        Ok(State { iteration: self.iteration, position: self.position, best: self.best, optimizer })
    }

    /// Puts back what [`Self::state`] copied.
    pub(super) fn put_back(&mut self, state: State) -> Result<(), TrainError> {
        self.optimizer.put_back(state.optimizer)?;
        (self.iteration, self.position, self.best) = (state.iteration, state.position, state.best);
        (self.loader, self.metrics, self.events, self.step) = (None, None, None, None);
        Ok(())
    }

    pub(super) fn begin(&mut self, batches: Vec<Batch>, probe: bool) {
        let settings = StepSettings {
            mode: self.config.train.mode(),
            probe,
            rate: self.config.train.schedule.rate(self.iteration, self.config.train.iterations),
            iteration: self.iteration,
        };
        self.working = 0.0;
        self.step = Some(StepInProgress::new(batches, settings));
    }

    /// The phase itself, and around the update what protects it.
    fn run_phase(&mut self) -> Result<Phase, TrainError> {
        let missing = || TrainError::Settings("no iteration is in progress".into());
        let next = self.step.as_ref().and_then(StepInProgress::next_phase).ok_or_else(missing)?;
        let train = &self.config.train;
        if next == Phase::Update && train.history > 0 {
            let (most, bytes) = (train.history, train.history_mib.saturating_mul(1 << 20));
            let state = self.state()?;
            self.recorder.push(state, most, bytes);
        }
        let step = self.step.as_mut().ok_or_else(missing)?;
        let phase = match step.advance(&*self.detector, &mut self.optimizer) {
            Ok(phase) => phase,
            Err(error) => {
                if next == Phase::Update && self.config.train.history > 0 {
                    self.recorder.pop();
                }
                return Err(error);
            }
        };
        if let (Phase::Loss, Some(loss)) = (phase, step.loss())
            && let Some(median) = self.black_box.spike(self.iteration, loss, self.config.train.spike_factor)
            && let Some(scene) = step.scene(&*self.detector, &self.optimizer)
        {
            let traced = scene.spike(loss, median, step.parts());
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
                && let (Some(loss), Some(scene)) = (step.loss(), step.scene(&*self.detector, &self.optimizer))
            {
                return Ok(scene.spike(loss, median, step.parts())?);
            }
        }
    }

    /// Abandons the iteration; an incident is recorded first.
    fn pause_with(&mut self, error: &TrainError) {
        if let TrainError::Incident(incident) = error {
            let written = self.write_recording(incident);
            if let Err(problem) = written {
                tracing::warn!("the black box could not be written: {problem}");
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
        let record = Record::new(self.iteration + 1, rate, self.position, step.batches());
        let recording = self.black_box.recording(incident, record, step.batches());
        self.save_state(&folder.join(blackbox::STATE))?;
        let text = serde_json::to_string_pretty(&recording).map_err(|e| TrainError::Checkpoint(e.to_string()))?;
        crate::weights::write_atomically(&folder.join(blackbox::RECORD), format!("{text}\n").as_bytes())?;
        journal::note(folder, &format!("paused: {incident}"))
    }

    /// After the update: counts the iteration, validates, writes.
    fn finish(&mut self) -> Result<StepReport, TrainError> {
        let Some(step) = self.step.take() else {
            return Err(TrainError::Settings("no iteration is in progress".into()));
        };
        let (mut report, batches) = step.finish();
        let begun = self.position;
        self.iteration += 1;
        self.position = batches.last().map_or(begun, |batch| batch.position);
        report.seconds = self.working;
        self.black_box.push(&report, &batches, begun, self.config.train.black_box);
        drop(batches);
        report.validation = self.late.take();
        let validated = self.validate_if_due();
        if let Ok(Some(validation)) = &validated {
            report.validation = Some(validation.clone());
        }
        let every = self.config.train.checkpoint_every;
        self.unsaved |= (every > 0 && self.iteration.is_multiple_of(every)) || self.is_finished();
        // A failure of one must not keep the others from being tried.
        let written = self.write_report(&report);
        let saved = self.save_if_due();
        match validated {
            // An interrupted validation is made up for before the next iteration.
            Err(error) if !error.is_interruption() => return Err(error),
            _ => {}
        }
        written?;
        saved?;
        Ok(report)
    }

    /// What the last iteration left undone.
    fn catch_up(&mut self) -> Result<(), TrainError> {
        if let Some(validation) = self.validate_if_due()? {
            self.late = Some(validation);
        }
        self.save_if_due()
    }

    fn save_if_due(&mut self) -> Result<(), TrainError> {
        if self.unsaved {
            self.save_and_keep()?;
            self.unsaved = false;
        }
        Ok(())
    }

    fn write_report(&mut self, report: &StepReport) -> Result<(), TrainError> {
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        if self.metrics.is_none() {
            self.metrics = Some(Metrics::open(folder, self.iteration - 1)?);
        }
        if self.events.is_none() {
            self.events = Some(Events::create(folder, self.iteration - 1)?);
        }
        // Both are tried: each keeps for the next time what it could not write.
        let metrics = self.metrics.as_mut().map_or(Ok(()), |metrics| metrics.append(report));
        let events = self.events.as_mut().map_or(Ok(()), |events| events.append(report));
        metrics.and(events)
    }

    /// Validates the averaged weights where the settings ask for it now; the best ones are saved.
    fn validate_if_due(&mut self) -> Result<Option<Validation>, TrainError> {
        let train = &self.config.train;
        let every = train.validate_every;
        let now = self.iteration > 0 && (every > 0 && self.iteration.is_multiple_of(every));
        let last = every > 0 && self.iteration == train.iterations;
        let Some(data) =
            self.validation_data.clone().filter(|_| (now || last) && self.best.validated != self.iteration)
        else {
            return Ok(None);
        };
        let own = self.optimizer.enter_average()?;
        let found = validate(&*self.detector, &data, &self.config.train, self.iteration);
        self.optimizer.leave_average(&own)?;
        let mut validation = found?;
        let mut best = self.best;
        validation.improved = best.take(&validation, self.config.train.best_by);
        if let Some(folder) = &self.folder {
            if validation.improved {
                let path = checkpoint::best(folder);
                if let Some(parent) = path.parent() {
                    let failed = |source| TrainError::Write { path: parent.to_path_buf(), source };
                    std::fs::create_dir_all(parent).map_err(failed)?;
                }
                self.save_weights(&path, false)?;
            }
            let better = if validation.improved { ", the best so far" } else { "" };
            let ap = if validation.ap < 0.0 { "—".to_string() } else { format!("{:.1}", 100.0 * validation.ap) };
            let text = format!(
                "validation after iteration {}: loss {:.4}, AP over IoU .5 to .95 {ap}{better}",
                self.iteration, validation.loss
            );
            journal::note(folder, &text)?;
        }
        // Only now: a validation whose best weights could not be written is done again.
        self.best = best;
        if self.stopped_early()
            && let Some(folder) = &self.folder
        {
            journal::note(folder, &format!("no better validation {} times: the run ends", self.best.without))?;
        }
        Ok(Some(validation))
    }

    fn write_config(&self, folder: &Path) -> Result<(), TrainError> {
        let config = toml::to_string(&self.config).map_err(|e| TrainError::Settings(e.to_string()))?;
        crate::weights::write_atomically(&folder.join("config.toml"), config.as_bytes())
            .map_err(|e| TrainError::Checkpoint(e.to_string()))
    }

    fn manifest(&self, forked_from: Option<(String, u64)>) -> Manifest {
        Manifest {
            data: self.config.data.clone(),
            data_digest: self.dataset.digest(),
            device: format!("{:?}", self.detector.params().device().location()),
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
