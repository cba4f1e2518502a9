//! What can be asked of a training run, and of the runs on disk.

use crate::train::{RunConfig, TrainConfig};
use std::path::PathBuf;

/// One request. Runs on disk are named by their folder within the folder of runs.
#[derive(Clone, Debug, PartialEq)]
pub enum RunAction {
    /// The next phase of an iteration.
    Phase,
    /// To before the last iteration, or out of the one in progress.
    Back,
    /// Iterations up to the end of this pass over the data.
    StepEpoch,
    /// Passes over the next batch.
    SkipBatch,
    FindRate,
    /// Repeats the step that paused the run in this folder.
    ReplayIncident(PathBuf),
    /// Looks at what iteration `n` learnt from.
    OpenBatch(u64),
    /// Changes the settings of the next run; the change can be undone.
    Draft(Box<TrainConfig>),
    /// The learning rate of the next run; the change can be undone.
    Rate(f32),
    /// The weight of the past in smoothed curves.
    Smooth(f32),
    /// Lists another folder's runs from now on.
    Root(PathBuf),
    /// Reads the list; anew from the folders with `scan`.
    List {
        scan: bool,
    },
    Details(String),
    Difference(String, String),
    /// Lays the curves of this run over those at hand, or takes them away.
    Overlay(String),
    Resume(String),
    Fork {
        name: String,
        iteration: u64,
        config: Box<RunConfig>,
    },
    OpenCheckpoint(PathBuf),
    /// Detects in the image on show with each of these checkpoints, by iterations done.
    Scrub(Vec<(u64, PathBuf)>),
}
