//! Checkpoints of a run as detectors: the averaged weights, which are what a run is judged by.

use crate::detect::{Detector, build};
use crate::train::checkpoint::described_model;
use crate::train::optimizer::AVERAGE;
use crate::weights::{self, WeightsError};
use candle_core::Device;
use std::path::{Path, PathBuf};

/// Why a checkpoint makes no detector.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    #[error("no run of this program wrote it; load it as weights in the Model panel: {}", .path.display())]
    Undescribed { path: PathBuf },
    #[error("{missing} of its tensors are missing or of another shape; the file is damaged: {}", .path.display())]
    Partial { missing: usize, path: PathBuf },
}

/// Builds the network that the checkpoint describes and fills it: with the moving average of the weights where one was
/// kept, else with the weights themselves.
///
/// # Errors
/// A file that does not read, that no run wrote, or that lacks tensors.
pub fn open_checkpoint(path: &Path, device: &Device) -> Result<Box<dyn Detector>, CheckpointError> {
    let checkpoint = weights::open(path)?;
    let undescribed = || CheckpointError::Undescribed { path: path.to_path_buf() };
    let config = described_model(checkpoint.metadata()).ok_or_else(undescribed)?;
    let detector = build(&config, device, 0)?;
    let report = detector.params().load(&checkpoint)?;
    if !report.is_complete() {
        let missing = report.missing.len() + report.mismatched.len();
        return Err(CheckpointError::Partial { missing, path: path.to_path_buf() });
    }
    for stored in checkpoint.tensors() {
        if let Some(name) = stored.name.strip_prefix(AVERAGE) {
            detector.params().set(name, &checkpoint.read_f32(stored)?)?;
        }
    }
    Ok(detector)
}
