//! Training work that is done once and for all, on a thread of its own: range test, replay, fork.

use super::STACK;
use super::device::DeviceChoice;
use crate::data;
use crate::train::{RangeSettings, RangeTest, Replay, Run, RunConfig, TrainError};
use candle_core::Device;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Runs `work` on a stack that is deep enough for candle's recursion over the graph.
fn on_deep_stack<T: Send>(
    devices: &[DeviceChoice],
    work: impl FnOnce(&[Device]) -> Result<T, TrainError> + Send,
) -> Result<T, String> {
    let devices = DeviceChoice::open_all(devices)?;
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("boxwright-job".into()).stack_size(STACK);
        let thread = builder.spawn_scoped(scope, || work(&devices).map_err(|e| e.to_string()));
        let thread = thread.map_err(|e| format!("no thread starts: {e}"))?;
        match thread.join() {
            Ok(result) => result,
            Err(_) => Err("the work ended by a panic; please report it with the command that led here".into()),
        }
    })
}

/// A learning-rate range test from fresh weights. `progress` hears (done, total).
///
/// # Errors
/// What failed, and what to do.
pub fn range_test(
    config: &RunConfig,
    settings: &RangeSettings,
    devices: &[DeviceChoice],
    progress: impl FnMut(u64, u64) + Send,
) -> Result<RangeTest, String> {
    on_deep_stack(devices, |devices| {
        let dataset = Arc::new(data::open(&config.data, config.split.as_deref())?);
        Run::new(config.clone(), dataset, devices, None)?.range_test(settings, progress)
    })
}

/// Replays the step that paused the run in `folder`.
///
/// # Errors
/// What failed, and what to do.
pub fn replay(folder: &Path, devices: &[DeviceChoice]) -> Result<Replay, String> {
    on_deep_stack(devices, |devices| Run::replay(folder, devices))
}

/// Forks the run in `source` after `iteration` iterations into `folder`, ready to be resumed there.
///
/// # Errors
/// What failed, and what to do.
pub fn fork(
    source: &Path,
    iteration: u64,
    config: RunConfig,
    devices: &[DeviceChoice],
    folder: PathBuf,
    progress: impl FnMut(u64, u64) + Send,
) -> Result<(), String> {
    on_deep_stack(devices, |devices| Run::fork(source, iteration, config, devices, folder, progress).map(|_| ()))
}
