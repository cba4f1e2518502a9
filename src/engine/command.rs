//! What the worker can be told to do.

use crate::detect::Config;
use crate::train::RunConfig;
use std::path::PathBuf;

/// An order to the worker; done one after another.
#[derive(Clone, Debug)]
pub enum Command {
    /// Builds a model and loads weights: from a file, or the embedded ones, or (refused for detection unless
    /// `allow_partial`) random ones. The image shown is detected again.
    LoadModel { choice: ModelChoice, weights: Option<PathBuf>, allow_partial: bool },
    /// Changes limits of the loaded model (thresholds, top-k) without touching its weights.
    Configure(Box<Config>),
    /// Opens a data set, folder or picture, or "shapes".
    OpenData { path: String, split: Option<String> },
    /// Decodes image `index` of the open data and detects in it.
    Show { index: usize },
    /// Whether showing and stepping fill traces.
    Probe(bool),
    /// Prepares a run on the open data, paused before its first iteration. Without a folder nothing is written.
    /// With `from_current` the loaded model's weights are where it starts.
    StartTraining { config: Box<RunConfig>, folder: Option<PathBuf>, from_current: bool },
    /// Takes up the run in `folder`, paused; `config` replaces the settings it was saved with.
    ResumeTraining { folder: PathBuf, config: Option<Box<RunConfig>> },
    /// Runs iterations with the probe on the last of them, then pauses.
    Step { iterations: u64 },
    /// Trains until it is done, paused or stopped.
    Train,
    /// Pauses after (or instead of) the current iteration, which then leaves no trace.
    Pause,
    /// Ends the run, keeping its last checkpoint; the trained weights become the loaded model.
    StopTraining,
    /// Writes the trained (or loaded) weights to a file.
    Save { path: PathBuf },
    /// Scores the loaded (or training) model on the open data.
    Evaluate,
    /// Ends whatever runs now.
    Cancel,
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
