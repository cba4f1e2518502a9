//! What the window knows: a pure fold over the engine's events.

use super::past_runs::PastRuns;
use super::stepping::Stepping;
use crate::data::dataset::Finding;
use crate::data::statistics::Statistics;
use crate::detect::Config;
use crate::engine::compare::{CompareSummary, ComparedImage, SLOTS, SlotSummary};
use crate::engine::curves::Curves;
use crate::engine::devices::Devices;
use crate::engine::event::{DataSummary, EvalSummary, ModelSummary, OrderAsked};
use crate::engine::playback::PlayStatus;
use crate::engine::{Augmented, Event, Scrubbed, Severity, Shown, Stepped};
use crate::train::{RunConfig, StepReport};
use crate::weights::LoadReport;
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Lines kept in the log; the oldest go first.
const LOG_LINES: usize = 5000;
/// A warning that nothing follows stands in the status bar for so long.
const STANDS: Duration = Duration::from_secs(20);
/// Who reports that a command did not reach the engine.
pub const ENGINE: &str = "engine";
/// What the engine says of work that somebody ended.
const CANCELLED: &str = "cancelled";

/// One line of the log.
#[derive(Clone, Debug)]
pub struct LogLine {
    pub severity: Severity,
    pub source: String,
    pub message: String,
    pub at: Instant,
}

/// A long task under way.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    pub task: String,
    pub done: u64,
    pub total: u64,
    pub per_second: f64,
}

impl Progress {
    /// Seconds left, where that can be known.
    pub fn seconds_left(&self) -> Option<f64> {
        (self.total > self.done && self.per_second > 0.0).then(|| (self.total - self.done) as f64 / self.per_second)
    }
}

/// The training run, if there is one.
#[derive(Clone, Debug)]
pub struct Training {
    pub config: Arc<RunConfig>,
    pub folder: Option<PathBuf>,
    pub iteration: u64,
    /// Iterations that one pass over the data takes.
    pub epoch: u64,
    pub running: bool,
    /// What of another network's weights it started from, where it did; the rest was random.
    pub start: Option<Arc<LoadReport>>,
}

/// Everything that panels read.
#[derive(Debug, Default)]
pub struct State {
    pub data: Option<Arc<DataSummary>>,
    /// Counts changes of `data`.
    pub data_version: u64,
    pub model: Option<Arc<ModelSummary>>,
    /// The file that did not load because of the order of its class logits, until something loads.
    pub order_asked: Option<OrderAsked>,
    pub shown: Option<Arc<Shown>>,
    /// Counts changes of `shown`.
    pub shown_version: u64,
    pub stepped: Option<Arc<Stepped>>,
    pub stepped_version: u64,
    pub training: Option<Training>,
    pub last_step: Option<Arc<StepReport>>,
    pub curves: Curves,
    pub stepping: Stepping,
    pub runs: PastRuns,
    /// The devices there are, and the name of the one in use.
    pub devices: Option<(Arc<Devices>, String)>,
    pub scrubbed: Option<Arc<Scrubbed>>,
    /// Counts changes of `scrubbed`.
    pub scrubbed_version: u64,
    pub evaluation: Option<Arc<EvalSummary>>,
    /// Counts changes of `evaluation`.
    pub evaluation_version: u64,
    /// What is compared, by slot.
    pub slots: [Option<SlotSummary>; SLOTS],
    /// Counts changes of `slots`.
    pub slots_version: u64,
    pub compared: Option<Arc<ComparedImage>>,
    /// Counts changes of `compared`.
    pub compared_version: u64,
    pub comparison: Option<Arc<CompareSummary>>,
    /// What the check of the open data found.
    pub checked: Option<Arc<Vec<Finding>>>,
    pub statistics: Option<Arc<Statistics>>,
    pub augmented: Option<Arc<Augmented>>,
    /// Counts changes of `augmented`.
    pub augmented_version: u64,
    /// What plays.
    pub playing: Option<PlayStatus>,
    pub progress: Option<Progress>,
    pub log: VecDeque<LogLine>,
    /// By source: how many requests had no answer, and what was said of the last.
    failures: HashMap<String, (u64, String)>,
    /// Errors that nobody has looked at yet.
    pub unseen_errors: usize,
    /// The weights as they are now were written to a file.
    pub weights_kept: bool,
    /// The image that was asked for last.
    pub wanted: usize,
    /// The selected object of the image on show, an index into its annotated ones.
    pub object: Option<usize>,
}

impl State {
    /// Takes one event in.
    pub fn fold(&mut self, event: Event) {
        match event {
            Event::Log { severity, source, message } => {
                if severity == Severity::Error || message == CANCELLED {
                    self.fail(&source, &message);
                }
                self.note(severity, &source, message);
            }
            Event::Progress { task, done, total, per_second } => {
                self.progress = Some(Progress { task, done, total, per_second });
            }
            Event::Idle { .. } => self.progress = None,
            Event::ModelLoaded(mut model) => {
                let same = self.model.as_ref().filter(|before| {
                    before.config.arch() == model.config.arch() && before.parameters == model.parameters
                });
                // Operations are counted once a network, not once a change of its limits.
                if let Some(before) = same.filter(|_| model.flops == 0.0) {
                    Arc::make_mut(&mut model).flops = before.flops;
                }
                let report = model.report.as_ref().map(|r| format!(", {:.1} % of it loaded", r.coverage * 100.0));
                let text =
                    format!("{} with {} weights{}", model.config.arch(), model.weights, report.unwrap_or_default());
                self.note(Severity::Info, "model", text);
                self.model = Some(model);
                self.order_asked = None;
                self.weights_kept = self.training.is_none() && self.weights_kept;
            }
            Event::OrderAsked(asked) => self.order_asked = Some(asked),
            Event::DataOpened(data) => {
                let text = format!("{} {}: {} images", data.name, data.split, data.images.len());
                self.note(Severity::Info, "data", text);
                for finding in &data.findings {
                    self.note_finding(finding);
                }
                self.data = Some(data);
                self.data_version += 1;
                self.shown = None;
                self.shown_version += 1;
                self.evaluation = None;
                self.evaluation_version += 1;
                self.compared = None;
                self.compared_version += 1;
                self.comparison = None;
                self.scrubbed = None;
                self.scrubbed_version += 1;
                self.checked = None;
                self.statistics = None;
                self.augmented = None;
                self.wanted = 0;
            }
            Event::Shown { .. } => {}
            Event::TrainingReady { config, iteration, epoch, folder, start } => {
                let place = folder.as_ref().map_or("not written to disk".into(), |f| format!("in {}", f.display()));
                self.note(Severity::Info, "training", format!("run ready at iteration {iteration}, {place}"));
                self.training = Some(Training { config, folder, iteration, epoch, running: false, start });
                self.curves = Curves::with_decay(self.curves.decay());
                self.stepping = Stepping::default();
                self.last_step = None;
                self.stepped = None;
            }
            Event::Training { running, iteration } => {
                if let Some(training) = &mut self.training {
                    training.running = running;
                    training.iteration = iteration;
                }
            }
            Event::Stepped(report) => {
                if let Some(training) = &mut self.training {
                    training.iteration = report.iteration;
                }
                self.weights_kept = false;
                self.curves.add(&report);
                self.stepping.next = None;
                self.stepping.left = None;
                if self.stepping.incident.as_ref().is_some_and(|incident| incident.iteration <= report.iteration) {
                    self.stepping.incident = None;
                }
                self.last_step = Some(report);
            }
            Event::Validated(validation) => self.curves.add_validation(&validation),
            event @ (Event::Phase { .. }
            | Event::WentBack { .. }
            | Event::Remembered(_)
            | Event::Incident(_)
            | Event::Replayed(_)
            | Event::RateFound(_)) => self.fold_step(event),
            Event::TrainingEnded { iteration, finished } => {
                let how = if finished { "finished" } else { "stopped" };
                self.note(Severity::Info, "training", format!("{how} after iteration {iteration}"));
                self.training = None;
                self.stepping.next = None;
            }
            Event::Evaluated(summary) => {
                let [ap, ap50, ..] = summary.result.stats;
                let text = format!(
                    "{} on {}: AP {}, AP at IoU .5 {} ({} images, {:.1} s)",
                    summary.model,
                    summary.data,
                    percent(ap),
                    percent(ap50),
                    summary.images,
                    summary.seconds
                );
                self.note(Severity::Info, "evaluation", text);
                self.evaluation = Some(summary);
                self.evaluation_version += 1;
            }
            Event::Confused(confusion) => {
                if let Some(evaluation) = &mut self.evaluation {
                    Arc::make_mut(evaluation).confusion = confusion;
                }
            }
            Event::Slots(slots) => {
                self.slots = slots;
                self.slots_version += 1;
                self.compared = None;
                self.compared_version += 1;
                self.comparison = None;
            }
            Event::ImageCompared { .. } | Event::Augmented { .. } | Event::Scrubbed { .. } => {}
            Event::Devices { found, current } => self.devices = Some((found, current)),
            Event::Flops(flops) => {
                if let Some(model) = &mut self.model {
                    Arc::make_mut(model).flops = flops;
                }
            }
            Event::Checked(findings) => {
                let errors = findings.iter().filter(|f| f.severity == crate::data::Severity::Error).count();
                self.note(Severity::Info, "check", format!("{} findings, {errors} of them errors", findings.len()));
                self.checked = Some(findings);
            }
            Event::Measured(statistics) => self.statistics = Some(statistics),
            Event::Playing(status) => self.playing = status,
            Event::DataCompared(comparison) => {
                let text =
                    format!("{} sides on {}: {:.1} s", comparison.sides.len(), comparison.data, comparison.seconds);
                self.note(Severity::Info, "comparison", text);
                self.comparison = Some(comparison);
            }
            Event::Saved { path } => {
                self.weights_kept = true;
                self.note(Severity::Info, "save", format!("written: {}", path.display()));
            }
        }
    }

    /// Adds a line to the log.
    pub fn note(&mut self, severity: Severity, source: &str, message: impl Into<String>) {
        if self.log.len() >= LOG_LINES {
            self.log.pop_front();
        }
        if severity == Severity::Error {
            self.unseen_errors += 1;
        }
        self.log.push_back(LogLine { severity, source: source.into(), message: message.into(), at: Instant::now() });
    }

    fn fail(&mut self, source: &str, message: &str) {
        let (count, said) = self.failures.entry(source.into()).or_default();
        *count += 1;
        *said = message.into();
    }

    /// Adds a warning that something asked of `source` will have no answer.
    pub fn refuse(&mut self, source: &str, message: &str) {
        self.fail(source, message);
        self.note(Severity::Warning, source, message);
    }

    /// How many requests to `source` had no answer, and what was said of the last.
    pub fn failures(&self, source: &str) -> (u64, &str) {
        self.failures.get(source).map_or((0, ""), |(count, said)| (*count, said.as_str()))
    }

    /// The newest line, while it is a warning or an error and not old: what came after it has succeeded. With the time
    /// that it stands yet.
    pub fn standing(&self, now: Instant) -> Option<(&LogLine, Duration)> {
        let line = self.log.back().filter(|line| line.severity >= Severity::Warning)?;
        let left = STANDS.saturating_sub(now.saturating_duration_since(line.at));
        (!left.is_zero()).then_some((line, left))
    }

    fn note_finding(&mut self, finding: &Finding) {
        let severity = match finding.severity {
            crate::data::dataset::Severity::Error => Severity::Error,
            crate::data::dataset::Severity::Warning => Severity::Warning,
            crate::data::dataset::Severity::Info => Severity::Info,
        };
        let object = finding.object.map(|o| format!(" object {o}")).unwrap_or_default();
        self.note(severity, "data", format!("{}{object}: {}: {}", finding.file, finding.rule, finding.message));
    }

    /// Settings of the network that looks at images: those of the run while there is one.
    pub fn config(&self) -> Option<&Config> {
        let training = self.training.as_ref().map(|t| &t.config.model);
        training.or(self.model.as_ref().map(|m| &m.config))
    }

    /// Number of images of the open data.
    pub fn images(&self) -> usize {
        self.data.as_ref().map_or(0, |d| d.images.len())
    }

    pub fn is_training(&self) -> bool {
        self.training.as_ref().is_some_and(|t| t.running)
    }
}

/// An AP in per cent with one decimal; COCO's −1 (undefined) as a dash.
pub fn percent(value: f64) -> String {
    if value < 0.0 { "—".into() } else { format!("{:.1}", value * 100.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(iteration: u64, loss: f32) -> Event {
        Event::Stepped(Arc::new(StepReport {
            iteration,
            loss,
            parts: vec![("classification".into(), loss / 2.0)],
            seconds: 0.5,
            data_seconds: 0.05,
            ..StepReport::default()
        }))
    }

    #[test]
    fn steps_become_points_of_every_part() {
        let mut state = State::default();
        state.fold(step(5, 4.0));
        state.fold(step(6, 2.0));
        assert_eq!(state.curves.first, 5);
        assert_eq!(state.curves.len, 2);
        assert!(state.curves.series.contains_key("classification"));
        assert!((state.curves.iterations_per_second - 2.0).abs() < 1e-9);
        assert!((state.curves.data_share - 0.1).abs() < 1e-6);
        let late = crate::train::Validation { iteration: 6, ..Default::default() };
        state.fold(Event::Validated(Arc::new(late)));
        assert_eq!(state.curves.validations.iter().map(|v| v.iteration).collect::<Vec<_>>(), [6]);
    }

    #[test]
    fn errors_are_counted_until_seen_and_the_log_is_bounded() {
        let mut state = State::default();
        for _ in 0..LOG_LINES + 10 {
            state.note(Severity::Error, "test", "x");
        }
        assert_eq!(state.log.len(), LOG_LINES);
        assert_eq!(state.unseen_errors, LOG_LINES + 10);
        assert_eq!(percent(-1.0), "—");
        assert_eq!(percent(0.9123), "91.2");
    }

    #[test]
    fn an_ended_task_shows_no_progress() {
        let mut state = State::default();
        state.fold(Event::Progress { task: "evaluation".into(), done: 5, total: 10, per_second: 2.5 });
        assert_eq!(state.progress.as_ref().and_then(Progress::seconds_left), Some(2.0));
        state.fold(Event::Idle { task: "evaluation".into(), cancelled: true });
        assert!(state.progress.is_none());
    }

    #[test]
    fn a_warning_stands_until_something_succeeds_or_it_is_old() {
        let mut state = State::default();
        state.note(Severity::Warning, "keys", "taken");
        let now = Instant::now();
        assert_eq!(state.standing(now).map(|(line, _)| line.message.as_str()), Some("taken"));
        assert!(state.standing(now + STANDS).is_none());
        state.note(Severity::Info, "save", "written");
        assert!(state.standing(now).is_none() && state.log.len() == 2);
    }

    #[test]
    fn what_had_no_answer_is_counted_by_source_and_warnings_are_not() {
        let mut state = State::default();
        let said =
            |severity, message: &str| Event::Log { severity, source: "comparison".into(), message: message.into() };
        state.fold(said(Severity::Warning, "counted as without detections: a.png"));
        assert_eq!(state.failures("comparison"), (0, ""));
        state.fold(said(Severity::Error, "torn"));
        state.fold(said(Severity::Info, CANCELLED));
        state.refuse(ENGINE, "full");
        assert_eq!((state.failures("comparison"), state.failures(ENGINE)), ((2, CANCELLED), (1, "full")));
    }
}
