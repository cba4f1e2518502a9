//! What the worker reports: small, in order.

use crate::data::dataset::Finding;
use crate::detect::Config;
use crate::eval::coco::CocoResult;
use crate::train::{RunConfig, StepReport};
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
    DataOpened(Arc<DataSummary>),
    /// The newest value of [`super::Slots::shown`] is image `index`.
    Shown {
        index: usize,
    },
    /// A run is ready, paused at `iteration`.
    TrainingReady {
        config: Arc<RunConfig>,
        iteration: u64,
        folder: Option<PathBuf>,
    },
    /// Training runs (true) or is paused (false).
    Training {
        running: bool,
        iteration: u64,
    },
    Stepped(Arc<StepReport>),
    /// The run is over; `finished` when all its iterations are done.
    TrainingEnded {
        iteration: u64,
        finished: bool,
    },
    Evaluated(Arc<EvalSummary>),
    Saved {
        path: PathBuf,
    },
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
}
