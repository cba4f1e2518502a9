//! What a run asks of the loader.

use super::{TrainConfig, TrainError};
use crate::data::LoaderSettings;
use crate::data::loader::{Batch, Loader};
use crate::detect::Config;
use crate::ops::interrupt;

/// The loader's next batch, unless this thread's work is to end while it waits.
///
/// # Errors
/// The loader's, or an interruption, after which the same batch comes next.
pub fn next_batch(loader: &mut Loader) -> Result<Batch, TrainError> {
    match loader.next_unless(interrupt::requested)? {
        Some(batch) => Ok(batch),
        None => Err(candle_core::Error::msg(interrupt::INTERRUPTED).into()),
    }
}

/// The loader's settings for training `model` under `train`.
pub fn loader_settings(train: &TrainConfig, model: &Config) -> LoaderSettings {
    LoaderSettings {
        batch: train.batch,
        workers: train.workers,
        shuffle: train.shuffle,
        seed: train.seed,
        augmentation: train.augmentation,
        preprocess: model.preprocess().clone(),
        drop_difficult: train.drop_difficult,
        masks: model.needs_masks(),
    }
}
