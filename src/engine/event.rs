//! What the worker reports: small, in order.

use super::command::ModelChoice;
use super::compare::{CompareSummary, SLOTS, SlotSummary};
use super::details::{ConfusionDetails, CurveSet, EvalDetails, MaskScores};
use super::devices::Devices;
use super::model::Permit;
use super::playback::PlayStatus;
use super::thumbnails::Thumbnails;
use crate::data::dataset::Finding;
use crate::data::statistics::Statistics;
use crate::detect::Config;
use crate::eval::coco::CocoResult;
use crate::eval::misses::Misses;
use crate::train::blackbox::Record;
use crate::train::{Incident, Phase, RangeTest, Replay, RunConfig, StepReport, Validation};
use crate::weights::LoadReport;
use std::path::PathBuf;
use std::sync::Arc;

/// How bad a report is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Info,
    Warning,
    Error,
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// What failed, which file, what to do.
    Log {
        severity: Severity,
        source: String,
        message: String,
    },
    /// A long task moved on; `total` 0 when it is unknown.
    Progress {
        task: String,
        done: u64,
        total: u64,
        per_second: f64,
    },
    /// A long task ended, finished or cancelled.
    Idle {
        task: String,
        cancelled: bool,
    },
    ModelLoaded(Arc<ModelSummary>),
    /// A file did not load because of the order of its class logits; the error was told before.
    OrderAsked(OrderAsked),
    DataOpened(Arc<DataSummary>),
    /// The newest value of [`super::Slots::shown`] is image `index`.
    Shown {
        index: usize,
    },
    /// A run is ready, paused at `iteration`.
    TrainingReady {
        config: Arc<RunConfig>,
        iteration: u64,
        /// Iterations that one pass over the data takes.
        epoch: u64,
        folder: Option<PathBuf>,
        /// What of another network's weights it starts from, where it does; the rest is random.
        start: Option<Arc<LoadReport>>,
    },
    /// Training runs (true) or is paused (false).
    Training {
        running: bool,
        iteration: u64,
    },
    Stepped(Arc<StepReport>),
    /// A validation was made up for; its iteration was told without it.
    Validated(Arc<Validation>),
    /// One phase of an iteration is done, and `next` follows in it; the newest value of [`super::Slots::stepped`] is
    /// what is known so far.
    Phase {
        done: Phase,
        next: Option<Phase>,
    },
    /// No iteration is in progress, and `iteration` are done; `left` times more the run can go back.
    WentBack {
        iteration: u64,
        left: usize,
    },
    /// What the black box remembers, oldest first.
    Remembered(Arc<Vec<Record>>),
    /// The run paused by itself.
    Incident(Arc<Incident>),
    /// The step that paused a run was repeated.
    Replayed(Arc<Replay>),
    RateFound(Arc<RangeTest>),
    /// The run is over; `finished` when all its iterations are done.
    TrainingEnded {
        iteration: u64,
        finished: bool,
    },
    Evaluated(Arc<EvalSummary>),
    /// The last evaluation's confusion matrix at another score.
    Confused(Arc<ConfusionDetails>),
    /// What is in each slot now.
    Slots([Option<SlotSummary>; SLOTS]),
    /// The newest value of [`super::Slots::compared`] is image `index`.
    ImageCompared {
        index: usize,
    },
    DataCompared(Arc<CompareSummary>),
    /// What is wrong with the open data, errors first.
    Checked(Arc<Vec<Finding>>),
    Measured(Arc<Statistics>),
    /// The newest value of [`super::Slots::augmented`] is image `index`.
    Augmented {
        index: usize,
    },
    /// What plays and how; nothing any more.
    Playing(Option<PlayStatus>),
    /// The newest value of [`super::Slots::scrubbed`] is of image `index`.
    Scrubbed {
        index: usize,
    },
    /// The devices there are, and the name of the one in use.
    Devices {
        found: Arc<Devices>,
        current: String,
    },
    /// Operations of one pass through the loaded model, a multiply–add counting two.
    Flops(f64),
    Saved {
        path: PathBuf,
    },
}

/// What was to be loaded, and why somebody has to say where the background of its class logits is.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderAsked {
    pub choice: ModelChoice,
    pub weights: Option<PathBuf>,
    pub permit: Permit,
    pub reason: String,
}

/// A loaded model.
#[derive(Clone, Debug)]
pub struct ModelSummary {
    pub config: Config,
    /// "embedded", a file, or "random".
    pub weights: String,
    pub report: Option<LoadReport>,
    pub parameters: usize,
    pub device: String,
    pub layouts: Vec<&'static str>,
    /// Operations of one forward pass, a multiply–add counting two; 0 before the first.
    pub flops: f64,
}

/// An opened data set: all that lists need, without pictures.
#[derive(Clone, Debug)]
pub struct DataSummary {
    pub path: String,
    pub name: String,
    pub split: String,
    pub splits: Vec<String>,
    pub classes: Vec<String>,
    /// Objects of each class.
    pub class_counts: Vec<usize>,
    pub images: Vec<ImageSummary>,
    pub findings: Vec<Finding>,
    /// Small pictures, made when they are asked for.
    pub thumbnails: Arc<Thumbnails>,
}

/// One image of a data set.
#[derive(Clone, Debug)]
pub struct ImageSummary {
    pub name: String,
    pub width: u32,
    pub height: u32,
    pub objects: usize,
    /// Classes that occur, sorted.
    pub classes: Vec<u32>,
    /// Objects in each of COCO's size ranges.
    pub ranges: [usize; 3],
    pub crowds: usize,
}

/// Scores of a model on a data set.
#[derive(Clone, Debug)]
pub struct EvalSummary {
    pub model: String,
    pub data: String,
    pub classes: Vec<String>,
    pub result: CocoResult,
    pub images: usize,
    pub seconds: f64,
    pub details: Arc<EvalDetails>,
    pub confusion: Arc<ConfusionDetails>,
    /// Where causes of misses were asked for.
    pub misses: Option<Arc<Misses>>,
    /// Where objects and detections have masks.
    pub masks: Option<Arc<MaskScores>>,
}

impl EvalSummary {
    /// COCO's scores of masks where `masks` asks for them and there are any, else of boxes.
    pub fn result_by(&self, masks: bool) -> &CocoResult {
        self.masks.as_deref().filter(|_| masks).map_or(&self.result, |scores| &scores.result)
    }

    /// The curves of those scores, one entry for each of [`super::details::CURVE_IOUS`].
    pub fn curves_by(&self, masks: bool) -> &[CurveSet] {
        let own = self.details.curves.as_slice();
        self.masks.as_deref().filter(|_| masks).map_or(own, |scores| scores.curves.as_slice())
    }
}
