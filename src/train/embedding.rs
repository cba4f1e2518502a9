//! How the embedded weights of each nano network are made: phases of training on built-in scenes, one after another.

use super::config::TrainConfig;
use super::run::RunConfig;
use crate::data::CLASSES;
use crate::detect::config::set;
use crate::detect::{Arch, Config, ConfigError};

/// Where the weights of a phase come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Random,
    /// The averaged weights that the phase before ended with.
    Last,
    /// The same as they would be embedded, in float16.
    LastHalf,
    /// What fits of the weights that are embedded for another network; the rest is random.
    Body(Arch),
}

/// One phase: a run of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EmbeddingPhase {
    pub start: Start,
    /// How many training scenes, and their seed.
    pub scenes: (usize, u64),
    pub iterations: u64,
    /// Ends the phase here, before its schedule does.
    pub until: Option<u64>,
    /// Of weights, order and augmentation.
    pub seed: u64,
    pub learning_rate: f32,
    /// Settings of the network that are not its own ones.
    pub network: &'static [(&'static str, &'static str)],
}

/// Sides of ssd-nano's priors at first, pixels.
const FIRST_PRIORS: [(&str, &str); 2] =
    [("min_sizes", "[10.0,24.0,48.0,84.0,130.0,190.0]"), ("max_sizes", "[24.0,48.0,84.0,130.0,190.0,240.0]")];

/// The phases of `arch`, first to last; none for a network without embedded weights.
pub fn recipe(arch: Arch) -> Vec<EmbeddingPhase> {
    use Start::{Body, Last, LastHalf, Random};
    let first = |iterations| phase(Random, (12_000, 21), iterations, 7, 2e-3);
    let second = |start, iterations, rate| phase(start, (20_000, 31), iterations, 8, rate);
    let third = |iterations| phase(LastHalf, (20_000, 41), iterations, 9, 1.5e-3);
    match arch {
        Arch::SsdNano => vec![
            EmbeddingPhase { until: Some(2600), network: &FIRST_PRIORS, ..phase(Random, (20_000, 1), 4000, 1, 2e-3) },
            phase(Last, (20_000, 5), 1900, 2, 1.5e-3),
            phase(Last, (20_000, 9), 1300, 3, 1.5e-3),
            phase(Last, (20_000, 13), 1500, 4, 1.5e-3),
        ],
        Arch::CascadeNano => vec![first(1800), second(LastHalf, 3600, 1.5e-3)],
        Arch::FasterNano => vec![second(Body(Arch::CascadeNano), 3600, 2e-3)],
        Arch::MaskNano => vec![second(Body(Arch::FasterNano), 1800, 2e-3)],
        Arch::RetinanetNano => {
            let fourth = phase(LastHalf, (20_000, 51), 2600, 10, 2e-3);
            vec![first(1500), second(LastHalf, 3500, 1.5e-3), third(2600), fourth]
        }
        Arch::FcosNano => vec![second(Body(Arch::RetinanetNano), 3300, 2e-3)],
        Arch::Yolov3Nano => vec![first(3000), second(LastHalf, 5000, 2e-3)],
        Arch::RefinedetNano => vec![first(1200), second(LastHalf, 2600, 2e-3)],
        Arch::M2detNano => vec![first(1100), second(LastHalf, 2600, 2e-3), third(1300)],
        _ => Vec::new(),
    }
}

fn phase(start: Start, scenes: (usize, u64), iterations: u64, seed: u64, learning_rate: f32) -> EmbeddingPhase {
    EmbeddingPhase { start, scenes, iterations, until: None, seed, learning_rate, network: &[] }
}

impl EmbeddingPhase {
    /// The settings of its run: those of every nano network, but for mirroring top to bottom and no crops.
    ///
    /// # Errors
    /// Settings that the network of `arch` does not have.
    pub fn config(&self, arch: Arch) -> Result<RunConfig, ConfigError> {
        let (count, seed) = self.scenes;
        let classes: Vec<String> = CLASSES.iter().map(|class| (*class).to_string()).collect();
        let mut train = TrainConfig { iterations: self.iterations, seed: self.seed, ..TrainConfig::new(arch) };
        train.schedule.learning_rate = self.learning_rate;
        (train.augmentation.vertical_flip, train.augmentation.iou_crop) = (0.5, 0.0);
        let config = RunConfig {
            data: format!("shapes:train={count},seed={seed}"),
            split: Some("train".into()),
            train,
            model: Config::new(arch, &classes),
        };
        self.network.iter().try_fold(config, |config, (key, value)| set(&config, key, value))
    }

    /// Iterations that are done when the phase is, of a run under `train`.
    pub fn end(&self, train: &TrainConfig) -> u64 {
        self.until.map_or(train.iterations, |until| until.min(train.iterations))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::open;

    #[test]
    fn every_embedded_network_has_a_recipe_that_begins_somewhere_and_no_other_has_one() {
        for arch in Arch::ALL {
            let phases = recipe(arch);
            assert_eq!(phases.is_empty(), arch.embedded_weights().is_none(), "{arch}");
            for (number, phase) in phases.iter().enumerate() {
                let config = phase.config(arch).unwrap();
                assert_eq!((config.model.arch(), config.train.seed), (arch, phase.seed));
                assert!(phase.end(&config.train) <= phase.iterations);
                let known = match phase.start {
                    Start::Random => true,
                    Start::Last | Start::LastHalf => number > 0,
                    Start::Body(relative) => relative != arch && relative.embedded_weights().is_some(),
                };
                assert!(known, "{arch}: {phase:?}");
            }
        }
    }

    #[test]
    fn a_phase_has_its_scenes_its_rate_and_the_settings_of_its_network() {
        let phases = recipe(Arch::SsdNano);
        let config = phases[0].config(Arch::SsdNano).unwrap();
        assert_eq!(open(&config.data, config.split.as_deref()).unwrap().images.len(), 20_000);
        assert_eq!((config.train.schedule.learning_rate, phases[0].end(&config.train)), (2e-3, 2600));
        assert_eq!((config.train.augmentation.vertical_flip, config.train.augmentation.iou_crop), (0.5, 0.0));
        let later = phases[1].config(Arch::SsdNano).unwrap();
        assert_ne!(config.model, later.model);
        assert_eq!(later.model, Config::new(Arch::SsdNano, later.model.classes()));
        assert_eq!(later.train.schedule.learning_rate, 1.5e-3);
    }
}
