//! Settings by name: the published schedules of each family, and what the embedded nano weights were made with.

use super::config::{BestBy, Method, Precision, TrainConfig, full, history_mib, one, remembered, spike};
use super::schedule::{Decay, Schedule};
use crate::detect::{Arch, Config};
use crate::imaging::augment::Augmentation;
use std::fmt;
use std::str::FromStr;

/// A named set of training settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// How the embedded weights of a nano network are made.
    Embed,
    /// The published schedule, once, twice or three times as long.
    Published(u64),
}

impl FromStr for Preset {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "embed" => Ok(Self::Embed),
            "1x" => Ok(Self::Published(1)),
            "2x" => Ok(Self::Published(2)),
            "3x" => Ok(Self::Published(3)),
            _ => Err(format!("{name:?} is no preset; there are: embed, 1x, 2x, 3x")),
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embed => f.write_str("embed"),
            Self::Published(times) => write!(f, "{times}x"),
        }
    }
}

/// Iterations of one epoch of M2Det's COCO training set in batches of 16.
const M2DET_EPOCH: u64 = 7330;

impl TrainConfig {
    /// Settings to start from: the published ones, quick ones for a nano network.
    pub fn new(arch: Arch) -> Self {
        if is_nano(arch) { nano() } else { published(arch, 1) }
    }

    /// The settings called `preset` for `arch`.
    ///
    /// # Errors
    /// `embed` for a network that is not nano.
    pub fn preset(arch: Arch, preset: Preset) -> Result<Self, String> {
        match preset {
            Preset::Embed if is_nano(arch) => Ok(nano()),
            Preset::Embed => Err(format!("the preset embed is for the nano networks, not {arch}; take 1x, 2x or 3x")),
            Preset::Published(times) if is_nano(arch) => Ok(Self { iterations: 3200 * times, ..nano() }),
            Preset::Published(times) => Ok(published(arch, times)),
        }
    }
}

fn is_nano(arch: Arch) -> bool {
    arch.name().ends_with("-nano")
}

/// Caffe's SSD on VOC 07+12: no warm-up, biases learn twice as fast and do not decay.
fn reference() -> TrainConfig {
    TrainConfig {
        iterations: 120_000,
        batch: 32,
        accumulate: one(),
        seed: 1,
        precision: Precision::F32,
        method: Method::Sgd,
        momentum: 0.9,
        nesterov: false,
        weight_decay: 5e-4,
        bias_factor: 2.0,
        bias_decay: 0.0,
        backbone_factor: full(),
        frozen_prefixes: Vec::new(),
        freeze_batch_norm: false,
        clip_norm: 0.0,
        ema: 0.0,
        workers: 2,
        shuffle: true,
        drop_difficult: true,
        checkpoint_every: 1000,
        keep_checkpoints: 0,
        validate_every: 0,
        best_by: BestBy::Ap,
        patience: 0,
        black_box: remembered(),
        spike_factor: spike(),
        history: 0,
        history_mib: history_mib(),
        schedule: Schedule {
            learning_rate: 1e-3,
            warmup: 0,
            warmup_factor: 1.0,
            warmup_power: 1.0,
            decay: steps(&[80_000, 100_000]),
        },
        augmentation: Augmentation::ssd(),
    }
}

/// Quick on two cores, with averaged weights.
fn nano() -> TrainConfig {
    TrainConfig {
        iterations: 3200,
        batch: 8,
        method: Method::AdamW,
        weight_decay: 0.02,
        bias_factor: 1.0,
        bias_decay: 1.0,
        clip_norm: 10.0,
        ema: 0.995,
        augmentation: Augmentation { iou_crop: 0.5, ..Augmentation::flip_only() },
        checkpoint_every: 200,
        schedule: Schedule {
            learning_rate: 2e-3,
            warmup: 100,
            warmup_factor: 0.1,
            warmup_power: 1.0,
            decay: Decay::Cosine { floor: 0.01 },
        },
        ..reference()
    }
}

/// The published settings with a schedule `times` as long.
fn published(arch: Arch, times: u64) -> TrainConfig {
    let once = match Config::new(arch, &[]) {
        Config::M2det(_) => m2det(),
        Config::Yolov3(_) | Config::Darknet(_) => darknet(),
        Config::Rcnn(_) => return detectron(0.02, times),
        Config::Retinanet(_) | Config::Fcos(_) => return detectron(0.01, times),
        Config::Ssd(_) | Config::Refinedet(_) => reference(),
    };
    TrainConfig { iterations: once.iterations * times, schedule: once.schedule.stretched(times), ..once }
}

/// The released configuration: five epochs of warm-up from 1e-6 to 4e-3, drops after 90, 110, 130 and 150 of 160.
fn m2det() -> TrainConfig {
    TrainConfig {
        iterations: 160 * M2DET_EPOCH,
        batch: 16,
        bias_factor: 1.0,
        bias_decay: 1.0,
        schedule: Schedule {
            learning_rate: 4e-3,
            warmup: 5 * M2DET_EPOCH,
            warmup_factor: 2.5e-4,
            warmup_power: 1.0,
            decay: Decay::Pieces {
                milestones: [90, 110, 130, 150].map(|epoch| epoch * M2DET_EPOCH).to_vec(),
                shares: vec![0.5, 0.1, 0.01, 0.001],
            },
        },
        ..reference()
    }
}

/// `yolov3.cfg`: burn-in with the fourth power over 1000 iterations, tenths at 400k and 450k.
fn darknet() -> TrainConfig {
    TrainConfig {
        iterations: 500_200,
        batch: 64,
        bias_factor: 1.0,
        bias_decay: 0.0,
        schedule: Schedule {
            learning_rate: 1e-3,
            warmup: 1000,
            warmup_factor: 0.0,
            warmup_power: 4.0,
            decay: steps(&[400_000, 450_000]),
        },
        ..reference()
    }
}

/// detectron2: 90k, 180k or 270k iterations of 16 images, with the last two drops 60k and 20k before the end beyond 1x;
/// mirrored, and the shorter side one of 640, 672, … 800 pixels, landscape and portrait in batches of their own.
fn detectron(learning_rate: f32, times: u64) -> TrainConfig {
    let iterations = 90_000 * times;
    let milestones = if times == 1 { [60_000, 80_000] } else { [iterations - 60_000, iterations - 20_000] };
    TrainConfig {
        iterations,
        batch: 16,
        weight_decay: 1e-4,
        bias_factor: 1.0,
        bias_decay: 1.0,
        schedule: Schedule {
            learning_rate,
            warmup: 1000,
            warmup_factor: 0.001,
            warmup_power: 1.0,
            decay: steps(&milestones),
        },
        augmentation: Augmentation {
            scale_low: 640,
            scale_high: 800,
            scale_step: 32,
            group_by_aspect: true,
            ..Augmentation::flip_only()
        },
        ..reference()
    }
}

fn steps(milestones: &[u64]) -> Decay {
    Decay::Step { milestones: milestones.to_vec(), factor: 0.1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::random_scale::with_shorter_side;

    fn rate(config: &TrainConfig, iteration: u64) -> f32 {
        config.schedule.rate(iteration, config.iterations)
    }

    #[test]
    fn the_published_schedules_have_their_rates_where_the_papers_put_them() {
        let near = |a: f32, b: f32| assert!((a - b).abs() < 1e-4 * b, "{a} and {b}");
        for (times, end, first, second) in [(1, 90_000, 60_000, 80_000), (3, 270_000, 210_000, 250_000)] {
            let faster = TrainConfig::preset(Arch::FasterR50, Preset::Published(times)).unwrap();
            assert_eq!((faster.iterations, faster.batch, faster.weight_decay), (end, 16, 1e-4));
            near(rate(&faster, 0), 2e-5);
            near(rate(&faster, first - 1), 0.02);
            near(rate(&faster, first), 0.002);
            near(rate(&faster, second), 0.0002);
        }
        near(rate(&TrainConfig::new(Arch::RetinanetR50), 2000), 0.01);
        let ssd = TrainConfig::new(Arch::Ssd300);
        assert_eq!((ssd.bias_factor, ssd.bias_decay, ssd.schedule.warmup), (2.0, 0.0, 0));
        near(rate(&ssd, 80_000), 1e-4);
        near(rate(&ssd, 100_000), 1e-5);
        let twice = TrainConfig::preset(Arch::Ssd300, Preset::Published(2)).unwrap();
        near(rate(&twice, 159_999), 1e-3);
        near(rate(&twice, 160_000), 1e-4);
        let m2det = TrainConfig::new(Arch::M2det512);
        near(rate(&m2det, 0), 1e-6);
        for (epoch, expected) in [(89, 4e-3), (90, 2e-3), (110, 4e-4), (130, 4e-5), (150, 4e-6)] {
            near(rate(&m2det, epoch * M2DET_EPOCH), expected);
        }
        let yolo = TrainConfig::new(Arch::Yolov3);
        near(rate(&yolo, 500), 1e-3 / 16.0);
        near(rate(&yolo, 450_000), 1e-5);
    }

    #[test]
    fn each_family_has_the_batch_the_decay_and_the_augmentation_of_its_reference() {
        for arch in Arch::ALL.into_iter().filter(|arch| !is_nano(*arch)) {
            let (config, train) = (Config::new(arch, &[]), TrainConfig::new(arch));
            let (batch, decay, biases) = match config {
                Config::Ssd(_) | Config::Refinedet(_) => (32, 5e-4, (2.0, 0.0)),
                Config::M2det(_) => (16, 5e-4, (1.0, 1.0)),
                Config::Yolov3(_) | Config::Darknet(_) => (64, 5e-4, (1.0, 0.0)),
                Config::Rcnn(_) | Config::Retinanet(_) | Config::Fcos(_) => (16, 1e-4, (1.0, 1.0)),
            };
            assert_eq!((train.method, train.momentum, train.batch), (Method::Sgd, 0.9, batch), "{arch}");
            assert_eq!((train.weight_decay, (train.bias_factor, train.bias_decay)), (decay, biases), "{arch}");
            let augmentation = train.augmentation;
            if decay == 1e-4 {
                let sides = (augmentation.scale_low, augmentation.scale_high, augmentation.scale_step);
                assert_eq!((augmentation.flip, sides, augmentation.group_by_aspect), (0.5, (640, 800, 32), true));
                // The loader refuses a random side of an input that has one size.
                assert!(with_shorter_side(config.preprocess().fit, 640).is_some(), "{arch}");
            } else {
                assert_eq!(augmentation, Augmentation::ssd(), "{arch}");
            }
        }
    }

    #[test]
    fn embed_is_for_nano_networks_and_unknown_names_list_the_known() {
        assert_eq!(TrainConfig::preset(Arch::SsdNano, Preset::Embed), Ok(TrainConfig::new(Arch::SsdNano)));
        assert!(TrainConfig::preset(Arch::Ssd300, Preset::Embed).is_err());
        for name in ["embed", "1x", "2x", "3x"] {
            assert_eq!(name.parse::<Preset>().unwrap().to_string(), name);
        }
        assert!("4x".parse::<Preset>().unwrap_err().contains("embed"));
    }

    #[test]
    fn settings_of_an_older_file_read_with_today_s_defaults() {
        let config = TrainConfig::new(Arch::SsdNano);
        let mut tree = toml::Value::try_from(&config).unwrap();
        for key in ["accumulate", "nesterov", "shuffle", "patience", "black_box", "spike_factor", "history"] {
            assert!(tree.as_table_mut().unwrap().remove(key).is_some(), "{key}");
        }
        let text = toml::to_string(&tree).unwrap();
        assert_eq!(toml::from_str::<TrainConfig>(&text).unwrap(), config);
    }
}
