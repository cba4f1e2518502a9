//! Why a run cannot go on.

use super::incident::Incident;
use crate::data::DataError;
use crate::weights::WeightsError;
use std::path::PathBuf;

/// Why a run cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A number that is none, or a loss that jumped: the run pauses before the update.
    #[error(
        "{0}; nothing was updated. Lower the learning rate, or look at what is named; `boxwright train --replay RUN` \
         repeats the step of a run that has a folder"
    )]
    Incident(Box<Incident>),
    #[error("cannot write ({source}); the run keeps its state, free space and go on, or choose another folder: {path}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("checkpoint: {0}")]
    Checkpoint(String),
    #[error("{0}")]
    Settings(String),
}

impl TrainError {
    /// Why a file was not written: where the disk refused, the run can go on once it no longer does.
    pub(super) fn unwritten(error: WeightsError) -> Self {
        match error {
            WeightsError::InFile { problem, path } => match *problem {
                WeightsError::Io { cause, .. } => Self::Write { path, source: cause },
                problem => Self::Weights(WeightsError::InFile { problem: Box::new(problem), path }),
            },
            error => Self::Weights(error),
        }
    }

    /// Whether it is the answer to a request to stop rather than a failure.
    pub fn is_interruption(&self) -> bool {
        matches!(self, Self::Tensor(error) if error.to_string().contains(crate::ops::interrupt::INTERRUPTED))
    }
}
