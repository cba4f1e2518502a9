//! The settings of a training run: at once defaults, TOML file, command line overrides and widgets.

use super::schedule::{Decay, Schedule};
use crate::detect::Arch;
use crate::imaging::augment::Augmentation;
use serde::{Deserialize, Serialize};

/// The rule that moves the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// v ← μ·v + (g + λ·w), w ← w − η·v.
    Sgd,
    /// Adam with decoupled weight decay; μ is β₁, β₂ is 0.99.
    AdamW,
}

/// How to train, whatever the detector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    pub iterations: u64,
    /// Images per iteration.
    pub batch: usize,
    pub seed: u64,
    pub method: Method,
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
            method: Method::Sgd,
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
            Arch::Ssd300 | Arch::Ssd512 | Arch::Refinedet320 | Arch::Refinedet512 => reference,
            Arch::M2det320 | Arch::M2det512 | Arch::M2det704 | Arch::M2det800 => Self {
                iterations: 1_170_000,
                batch: 16,
                schedule: Schedule {
                    learning_rate: 4e-3,
                    warmup: 36_650,
                    warmup_factor: 2.5e-4,
                    decay: Decay::Step { milestones: vec![659_700, 806_300, 952_900, 1_099_500], factor: 0.1 },
                },
                ..reference
            },
            Arch::Yolov3 | Arch::Darknet => Self {
                iterations: 500_200,
                batch: 64,
                schedule: Schedule {
                    learning_rate: 1e-3,
                    warmup: 1000,
                    warmup_factor: 0.001,
                    decay: Decay::Step { milestones: vec![400_000, 450_000], factor: 0.1 },
                },
                ..reference
            },
            Arch::FasterR50 | Arch::MaskR50 | Arch::CascadeR50 => Self {
                iterations: 90_000,
                batch: 16,
                weight_decay: 1e-4,
                schedule: Schedule {
                    learning_rate: 0.02,
                    warmup: 1000,
                    warmup_factor: 0.001,
                    decay: Decay::Step { milestones: vec![60_000, 80_000], factor: 0.1 },
                },
                augmentation: Augmentation::flip_only(),
                ..reference
            },
            Arch::RetinanetR50 | Arch::FcosR50 => Self {
                iterations: 90_000,
                batch: 16,
                weight_decay: 1e-4,
                schedule: Schedule {
                    learning_rate: 0.01,
                    warmup: 1000,
                    warmup_factor: 0.001,
                    decay: Decay::Step { milestones: vec![60_000, 80_000], factor: 0.1 },
                },
                augmentation: Augmentation::flip_only(),
                ..reference
            },
            Arch::SsdNano
            | Arch::RetinanetNano
            | Arch::FcosNano
            | Arch::RefinedetNano
            | Arch::M2detNano
            | Arch::Yolov3Nano
            | Arch::FasterNano
            | Arch::MaskNano
            | Arch::CascadeNano => Self {
                iterations: 3200,
                batch: 8,
                method: Method::AdamW,
                weight_decay: 0.02,
                clip_norm: 10.0,
                ema: 0.995,
                augmentation: Augmentation { iou_crop: 0.5, ..Augmentation::flip_only() },
                checkpoint_every: 200,
                schedule: Schedule {
                    learning_rate: 2e-3,
                    warmup: 100,
                    warmup_factor: 0.1,
                    decay: Decay::Cosine { floor: 0.01 },
                },
                ..reference
            },
        }
    }
}
