//! What a run asks of the loader.

use super::TrainConfig;
use crate::data::LoaderSettings;
use crate::detect::Config;

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
