//! What the window does with training runs: settings of the next one, single steps, and the runs on disk.

use super::Workbench;
use super::undo::Edit;
use crate::app::layout::{self, Panel};
use crate::app::run_action::RunAction;
use crate::detect::{Arch, Config};
use crate::engine::command::InitialWeights;
use crate::engine::history::Question;
use crate::engine::{Command, Event, Severity, Stepped};
use crate::train::{RunConfig, TrainConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// While a run goes on, the list of runs is told this often at most.
const NOTE_EVERY: Duration = Duration::from_secs(1);
/// Forks of one run after the same iteration.
const MOST_FORKS: usize = 1000;

impl Workbench {
    /// Prepares a run on the open data; false when there is none to train on.
    pub(super) fn start_training(&mut self, start: InitialWeights) -> bool {
        let Some(data) = self.state.data.clone() else {
            self.state.note(Severity::Error, "training", "open a data set to train on first");
            return false;
        };
        let loaded = self.state.model.as_ref().map(|m| m.config.clone());
        let arch = loaded.as_ref().map_or(Arch::SsdNano, Config::arch);
        let fits = loaded.as_ref().is_some_and(|c| c.classes() == data.classes);
        let model = match loaded {
            Some(config) if fits => config,
            _ => Config::new(arch, &data.classes),
        };
        let train = self.drafted(arch);
        let config = RunConfig { data: data.path.clone(), split: Some(self.panels.step.split_of(&data)), train, model };
        let folder = self.panels.step.folder(arch, &self.settings.runs);
        let stays_out = start == InitialWeights::Loaded && !fits;
        if stays_out && self.state.model.is_some() {
            let message = "the loaded weights are of other classes than the data: the run starts from random ones";
            self.state.note(Severity::Warning, "training", message);
        }
        let start = if stays_out { InitialWeights::Random } else { start };
        self.send(Command::StartTraining { config: Box::new(config), folder, start });
        true
    }

    /// A run to work on: the one that is open, or one started for it.
    fn has_run(&mut self) -> bool {
        self.state.training.is_some() || self.start_training(InitialWeights::Loaded)
    }

    /// Takes in a probed iteration, whole or in part.
    pub(super) fn take_stepped(&mut self, stepped: Arc<Stepped>) {
        if stepped.next.is_none() {
            self.state.stepping.hard.count(&stepped);
        }
        let before = self.state.stepped.as_ref().map(|s| s.report.iteration);
        self.panels.step.follow(&stepped, before != Some(stepped.report.iteration));
        self.state.stepped = Some(stepped);
        self.state.stepped_version += 1;
    }

    /// Takes in what was read of the runs on disk, and what was found in one image.
    pub(super) fn take_answers(&mut self) {
        while let Some(answer) = self.history.poll() {
            self.state.fold_answer(answer);
        }
        if let Some(scrubbed) = self.engine.slots.scrubbed.newer(&mut self.scrubbed_seen) {
            self.state.scrubbed = Some(scrubbed);
            self.state.scrubbed_version += 1;
        }
    }

    /// What an event about training sets going.
    pub(super) fn follow_run(&mut self, event: &Event) {
        match event {
            Event::TrainingReady { folder: Some(folder), iteration, .. } => {
                self.note_run(folder);
                // A fork has no curves of its own yet.
                if *iteration > 0 && folder.join("metrics.jsonl").is_file() {
                    self.ask(Question::Curves { folder: folder.clone() });
                }
            }
            Event::Stepped(_) if self.noted_at.elapsed() < NOTE_EVERY => {}
            Event::Stepped(_) | Event::Training { running: false, .. } | Event::TrainingEnded { .. } => {
                if let Some(folder) = self.state.training.as_ref().and_then(|training| training.folder.clone()) {
                    self.note_run(&folder);
                }
            }
            Event::Incident(_) => layout::focus(&mut self.tree, Panel::Step),
            Event::RateFound(_) => {
                self.panels.losses.show_range_test();
                layout::focus(&mut self.tree, Panel::Losses);
            }
            Event::Scrubbed { .. } => layout::focus(&mut self.tree, Panel::Runs),
            _ => {}
        }
    }

    fn note_run(&mut self, folder: &Path) {
        self.noted_at = Instant::now();
        self.ask(Question::Note { root: self.settings.runs.clone(), folder: folder.to_path_buf() });
    }

    fn ask(&mut self, question: Question) {
        if !self.history.ask(question) {
            self.state.note(Severity::Warning, "runs", "too much is being read already; try again in a moment");
        }
    }

    /// Does what was asked of a training run, or of those on disk.
    pub(super) fn apply_run(&mut self, action: RunAction) {
        match action {
            RunAction::Phase => {
                if self.has_run() {
                    self.send(Command::Phase);
                }
            }
            RunAction::Back if self.state.training.is_none() => {
                self.state.note(Severity::Info, "step", "nothing to step back in: no run is open");
            }
            RunAction::Back => self.send(Command::Back),
            RunAction::StepEpoch => self.step_epoch(),
            RunAction::SkipBatch => self.send(Command::SkipBatch),
            RunAction::FindRate => {
                if self.has_run() {
                    self.send(Command::FindRate);
                }
            }
            RunAction::ReplayIncident(folder) => self.send(Command::ReplayIncident { folder }),
            RunAction::OpenBatch(iteration) => self.open_batch(iteration),
            RunAction::Draft(config) => self.draft(*config),
            RunAction::Rate(rate) => {
                let mut config = self.drafted(self.arch());
                config.schedule.learning_rate = rate;
                self.draft(config);
                self.state.note(Severity::Info, "training", format!("the next run begins with a rate of {rate:.2e}"));
            }
            RunAction::Smooth(decay) => {
                let decay = decay.clamp(0.0, 0.999);
                self.state.curves.smooth_with(decay);
                self.state.runs.overlays.iter_mut().for_each(|(_, curves)| curves.smooth_with(decay));
            }
            RunAction::Root(root) => {
                self.settings.runs = root;
                self.state.runs = Default::default();
                self.apply_run(RunAction::List { scan: true });
            }
            RunAction::List { scan } => self.ask(Question::List { root: self.settings.runs.clone(), scan }),
            RunAction::Details(name) => self.ask(Question::Details { root: self.settings.runs.clone(), name }),
            RunAction::Difference(left, right) => {
                self.ask(Question::Difference { root: self.settings.runs.clone(), left, right });
            }
            RunAction::Overlay(name) => {
                let folder = self.settings.runs.join(name);
                if self.state.runs.is_overlaid(&folder) {
                    self.state.runs.take_away(&folder);
                } else {
                    self.ask(Question::Curves { folder });
                }
            }
            RunAction::Resume(name) => self.resume(&name),
            RunAction::Fork { name, iteration, config } => self.fork(&name, iteration, config),
            RunAction::OpenCheckpoint(path) => self.send(Command::OpenCheckpoint { path }),
            RunAction::Scrub(checkpoints) => match self.state.shown.as_ref().filter(|shown| !shown.is_live()) {
                Some(shown) => self.send(Command::Scrub { index: shown.index, checkpoints }),
                None => self.state.note(Severity::Error, "runs", "open an image of a data set to look at first"),
            },
        }
    }

    /// The network that the next run trains.
    pub(super) fn arch(&self) -> Arch {
        self.state.model.as_ref().map_or(Arch::SsdNano, |model| model.config.arch())
    }

    /// Changes the settings of the next run; the change can be undone.
    fn draft(&mut self, config: TrainConfig) {
        let arch = self.arch();
        let before = self.drafted(arch);
        self.panels.step.draft = Some((arch, config));
        self.remember(Edit::Draft(arch, Box::new(before)));
    }

    fn step_epoch(&mut self) {
        match &self.state.training {
            Some(training) => {
                let epoch = training.epoch.max(1);
                let left = epoch - training.iteration % epoch;
                self.send(Command::Step { iterations: left });
            }
            None => self.state.note(Severity::Info, "step", "start a run first: an epoch is one pass over its data"),
        }
    }

    /// Shows what an iteration learnt from, as far as the black box remembers it.
    fn open_batch(&mut self, iteration: u64) {
        let remembered = &self.state.stepping.remembered;
        if remembered.iter().any(|record| record.iteration == iteration) {
            self.panels.step.open_batch(iteration);
            layout::focus(&mut self.tree, Panel::Step);
        } else {
            let known = match (remembered.first(), remembered.last()) {
                (Some(first), Some(last)) => format!("it remembers {} to {}", first.iteration, last.iteration),
                _ => "it remembers none yet".to_string(),
            };
            let text = format!("the batch of iteration {iteration} is not in the black box: {known}");
            self.state.note(Severity::Warning, "black box", text);
        }
    }

    /// The settings that the run `name` was started with, where they read.
    fn run_config(&self, name: &str) -> Option<RunConfig> {
        let summary = self.state.runs.list.as_ref()?.iter().find(|run| run.name == name)?;
        toml::from_str(&summary.config).ok()
    }

    /// Opens the data that a run learns from, unless it is open already.
    fn open_data_of(&mut self, config: &RunConfig) {
        let is_open = self.state.data.as_ref().is_some_and(|data| {
            data.path == config.data && config.split.as_ref().is_none_or(|split| *split == data.split)
        });
        if !is_open {
            self.open_data(&config.data, config.split.clone());
        }
    }

    fn resume(&mut self, name: &str) {
        if let Some(config) = self.run_config(name) {
            self.open_data_of(&config);
        }
        let folder = self.settings.runs.join(name);
        self.send(Command::ResumeTraining { folder, config: None });
        layout::focus(&mut self.tree, Panel::Step);
    }

    fn fork(&mut self, name: &str, iteration: u64, config: Box<RunConfig>) {
        let source = self.settings.runs.join(name);
        let first = self.settings.runs.join(format!("{name}-fork-{iteration}"));
        let free = |path: &PathBuf| !path.exists();
        let others = (2..MOST_FORKS).map(|n| self.settings.runs.join(format!("{name}-fork-{iteration}-{n}")));
        let Some(folder) = std::iter::once(first).chain(others).find(free) else {
            let text = format!("{MOST_FORKS} forks of {name} after {iteration} are there; remove some");
            return self.state.note(Severity::Error, "fork", text);
        };
        self.open_data_of(&config);
        self.send(Command::Fork { source, iteration, config, folder });
        layout::focus(&mut self.tree, Panel::Step);
    }
}
