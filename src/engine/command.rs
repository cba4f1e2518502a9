//! What the worker can be told to do.

use super::compare::SlotSource;
use super::device::DeviceChoice;
use super::model::Permit;
use super::playback::PlayOrder;
use crate::detect::{Arch, Config};
use crate::train::{RunConfig, TrainConfig};
use std::path::PathBuf;

/// An order to the worker; done one after another.
#[derive(Clone, Debug)]
pub enum Command {
    /// Builds a model and loads weights: from a file, or the embedded ones, or (refused unless `permit` says
    /// otherwise) random ones. The image shown is detected again.
    LoadModel {
        choice: ModelChoice,
        weights: Option<PathBuf>,
        permit: Permit,
    },
    /// Changes limits of the loaded model (thresholds, top-k) without touching its weights.
    Configure(Box<Config>),
    /// Opens a data set, folder or picture, or "shapes".
    OpenData {
        path: String,
        split: Option<String>,
    },
    /// Decodes image `index` of the open data and detects in it.
    Show {
        index: usize,
    },
    /// Whether showing and stepping fill traces.
    Probe(bool),
    /// Prepares a run on the open data, paused before its first iteration. Without a folder nothing is written.
    StartTraining {
        config: Box<RunConfig>,
        folder: Option<PathBuf>,
        start: InitialWeights,
    },
    /// Takes up the run in `folder`, paused; `config` replaces the settings it was saved with.
    ResumeTraining {
        folder: PathBuf,
        config: Option<Box<RunConfig>>,
    },
    /// Runs iterations with the probe on the last of them, then pauses. Commands that come meanwhile are done in between;
    /// a further step adds its iterations.
    Step {
        iterations: u64,
    },
    /// One phase of an iteration, probed: the next of the one in progress, or the first of a new one.
    Phase,
    /// To before the last iteration, bit for bit; inside an iteration, out of it.
    Back,
    /// Passes over the batch that the next iteration would learn from.
    SkipBatch,
    /// Raises the learning rate step by step from the run's weights, which are put back afterwards.
    FindRate,
    /// Repeats the step that paused the run in `folder` by itself.
    ReplayIncident {
        folder: PathBuf,
    },
    /// Trains until it is done, paused or stopped.
    Train,
    /// Pauses after (or instead of) the current iteration, which then leaves no trace.
    Pause,
    /// Ends the run, keeping its last checkpoint; the trained weights become the loaded model.
    StopTraining,
    /// Forks the run in `source` after `iteration` iterations into `folder` and takes the fork up, paused.
    Fork {
        source: PathBuf,
        iteration: u64,
        config: Box<RunConfig>,
        folder: PathBuf,
    },
    /// Makes the averaged weights of a run's checkpoint the loaded model.
    OpenCheckpoint {
        path: PathBuf,
    },
    /// Detects in image `index` of the open data with each of these checkpoints, by iterations done.
    Scrub {
        index: usize,
        checkpoints: Vec<(u64, PathBuf)>,
    },
    /// Asks which devices there are.
    ListDevices,
    /// Moves the loaded model, and what comes after it, to another device.
    UseDevice(DeviceChoice),
    /// Counts the operations of one pass through the loaded model.
    CountFlops,
    /// Writes the trained (or loaded) weights to a file.
    Save {
        path: PathBuf,
    },
    /// Scores the loaded (or training) model on the open data; with `misses` every pass is looked into, for why objects
    /// are missed by detections of at least that score.
    Evaluate {
        misses: Option<f32>,
    },
    /// Scores somebody's COCO results on the open data.
    EvaluateResults {
        path: PathBuf,
    },
    /// Counts the last scored results' confusion matrix again, for detections of at least `score`.
    Confusion {
        score: f32,
    },
    /// Fills slot 0 to 3 with something to compare.
    SetSlot {
        slot: usize,
        source: SlotSource,
    },
    ClearSlot {
        slot: usize,
    },
    /// Runs every filled slot on image `index` of the open data.
    CompareImage {
        index: usize,
    },
    /// Scores every filled slot on the open data, with intervals for what each gains over the first.
    CompareData,
    /// Looks for what would spoil training or scores; with `pixels` every picture is decoded.
    CheckData {
        pixels: bool,
    },
    /// Measures the open data: classes, sizes, shapes, places.
    MeasureData,
    /// Makes image `index` of the open data as training under `train` sees it in `epoch`.
    Augment {
        index: usize,
        epoch: u64,
        train: Box<TrainConfig>,
    },
    /// Writes what was scored last as COCO results.
    SaveResults {
        path: PathBuf,
    },
    Play(PlayOrder),
    /// Ends whatever runs now.
    Cancel,
}

/// Where the weights of a new run come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum InitialWeights {
    #[default]
    Random,
    /// The loaded model's.
    Loaded,
    /// What of a file fits: the backbone of a classification network, the body of another detector. The rest is random.
    File(PathBuf),
    /// What fits of the weights that are embedded for another network. The rest is random.
    Embedded(Arch),
}

/// Which network to build.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelChoice {
    /// By name, with the classes the weights imply.
    Named(String),
    /// As configured.
    Configured(Box<Config>),
    /// What the weights file says it is.
    FromWeights,
}

impl Command {
    /// Whether the command ends the work in progress rather than waiting for it.
    pub fn interrupts(&self) -> bool {
        matches!(self, Self::Pause | Self::StopTraining | Self::Cancel)
    }
}
