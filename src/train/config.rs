//! The settings of a training run: at once defaults, TOML file, command line overrides and widgets.

use super::schedule::Schedule;
use crate::imaging::augment::Augmentation;
use serde::{Deserialize, Serialize};

pub use crate::ops::precision::Precision;

/// The rule that moves the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// v ← μ·v + (g + λ·w), w ← w − η·v; with Nesterov's look ahead w ← w − η·(g + λ·w + μ·v).
    Sgd,
    /// Adam with decoupled weight decay; μ is β₁, β₂ is 0.99.
    AdamW,
}

/// What decides which validated weights are the best.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BestBy {
    /// AP averaged over IoU 0.5 … 0.95.
    #[default]
    Ap,
    /// AP at IoU 0.5.
    Ap50,
    /// The validation loss; lower is better.
    Loss,
}

/// How to train, whatever the detector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    pub iterations: u64,
    /// Images that go through the network together.
    pub batch: usize,
    /// Batches whose mean gradient makes one update; an iteration is one update.
    #[serde(default = "one")]
    pub accumulate: usize,
    pub seed: u64,
    /// What convolutions and fully connected layers multiply in; weights and their updates are f32.
    #[serde(default)]
    pub precision: Precision,
    pub method: Method,
    pub momentum: f32,
    /// Nesterov's momentum for SGD.
    #[serde(default)]
    pub nesterov: bool,
    pub weight_decay: f32,
    /// Learning-rate factor of biases (2 in the Caffe reference).
    pub bias_factor: f32,
    /// Weight decay of biases as a share of `weight_decay`. Norms never decay.
    pub bias_decay: f32,
    /// Learning-rate factor of the backbone.
    #[serde(default = "full")]
    pub backbone_factor: f32,
    /// Parameters whose name starts with one of these are not trained.
    #[serde(default)]
    pub frozen_prefixes: Vec<String>,
    /// Batch norms use their running statistics and learn nothing.
    #[serde(default)]
    pub freeze_batch_norm: bool,
    /// Gradients are scaled down to this norm; 0 leaves them.
    pub clip_norm: f32,
    /// Decay of the moving average of weights that is saved and evaluated; 0 turns it off.
    pub ema: f32,
    /// Threads that read and augment.
    pub workers: usize,
    /// A new order of the images every epoch.
    #[serde(default = "yes")]
    pub shuffle: bool,
    /// Leave VOC's `difficult` objects out of the targets.
    pub drop_difficult: bool,
    /// Iterations between checkpoints; 0 saves only at the end.
    pub checkpoint_every: u64,
    /// Newest checkpoints that are kept beside the last one, to fork from.
    #[serde(default)]
    pub keep_checkpoints: usize,
    /// Iterations between validations on the data's validation split; 0 never validates.
    #[serde(default)]
    pub validate_every: u64,
    #[serde(default)]
    pub best_by: BestBy,
    /// Validations in a row without a better one after which the run ends; 0 never ends it early.
    #[serde(default)]
    pub patience: u64,
    /// Batches that the black box remembers.
    #[serde(default = "remembered")]
    pub black_box: usize,
    /// The run pauses where the loss is this many times the moving median; 0 lets it pass.
    #[serde(default = "spike")]
    pub spike_factor: f32,
    /// States kept to step back to.
    #[serde(default)]
    pub history: usize,
    /// Most mebibytes of them.
    #[serde(default = "history_mib")]
    pub history_mib: usize,
    pub schedule: Schedule,
    pub augmentation: Augmentation,
}

impl TrainConfig {
    /// The pass over one batch: a frozen batch norm is the network's frozen mode.
    pub(super) fn mode(&self) -> crate::nn::Mode {
        if self.freeze_batch_norm { crate::nn::Mode::Frozen } else { crate::nn::Mode::Train }
    }
}

pub(super) fn one() -> usize {
    1
}

pub(super) fn full() -> f32 {
    1.0
}

fn yes() -> bool {
    true
}

pub(super) fn remembered() -> usize {
    16
}

pub(super) fn spike() -> f32 {
    20.0
}

pub(super) fn history_mib() -> usize {
    1024
}
