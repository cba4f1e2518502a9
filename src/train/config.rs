//! The settings of a training run: at once defaults, TOML file, command line overrides and widgets.

use super::schedule::{Decay, Schedule};
use crate::detect::Arch;
use crate::imaging::augment::Augmentation;
use serde::{Deserialize, Serialize};

/// How to train, whatever the detector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    pub iterations: u64,
    /// Images per iteration.
    pub batch: usize,
    pub seed: u64,
    pub momentum: f32,
    pub weight_decay: f32,
    /// Learning-rate factor of biases (2 in the Caffe reference).
    pub bias_factor: f32,
    /// Weight decay of biases as a share of `weight_decay`. Norms never decay.
    pub bias_decay: f32,
    /// Gradients are scaled down to this norm; 0 leaves them.
    pub clip_norm: f32,
    /// Decay of the moving average of weights that is saved and evaluated; 0 turns it off.
    pub ema: f32,
    /// Threads that read and augment.
    pub workers: usize,
    /// Leave VOC's `difficult` objects out of the targets.
    pub drop_difficult: bool,
    /// Iterations between checkpoints; 0 saves only at the end.
    pub checkpoint_every: u64,
    pub schedule: Schedule,
    pub augmentation: Augmentation,
}

impl TrainConfig {
    /// Settings to start from for `arch`: the reference's for the published networks, quick ones for nano.
    pub fn new(arch: Arch) -> Self {
        let reference = Self {
            iterations: 120_000,
            batch: 32,
            seed: 1,
            momentum: 0.9,
            weight_decay: 5e-4,
            bias_factor: 1.0,
            bias_decay: 1.0,
            clip_norm: 0.0,
            ema: 0.0,
            workers: 2,
            drop_difficult: true,
            checkpoint_every: 1000,
            schedule: Schedule {
                learning_rate: 1e-3,
                warmup: 500,
                warmup_factor: 1.0 / 3.0,
                decay: Decay::Step { milestones: vec![80_000, 100_000], factor: 0.1 },
            },
            augmentation: Augmentation::ssd(),
        };
        match arch {
            Arch::Ssd300 | Arch::Ssd512 => reference,
            Arch::SsdNano => Self {
                iterations: 2000,
                batch: 16,
                clip_norm: 10.0,
                ema: 0.995,
                checkpoint_every: 200,
                schedule: Schedule {
                    learning_rate: 0.02,
                    warmup: 100,
                    warmup_factor: 0.1,
                    decay: Decay::Cosine { floor: 0.01 },
                },
                ..reference
            },
        }
    }
}
