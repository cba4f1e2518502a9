//! How each recorded model maps onto a network of this program: its settings, names and modes.

use super::fixture::Fixture;
use super::{ParityError, unfit};
use crate::detect::darknet::{self, DarknetConfig};
use crate::detect::fcos::FcosConfig;
use crate::detect::rcnn::{RcnnConfig, native_name};
use crate::detect::refinedet::RefinedetConfig;
use crate::detect::retinanet::RetinanetConfig;
use crate::detect::yolov3::Yolov3Config;
use crate::detect::{Arch, Config, Detector, names::names_for};
use crate::imaging::preprocess::Fit;
use crate::nn::Mode;
use crate::nn::backbone::resnet::{Norm, ResNetConfig};
use crate::weights::{DarknetWeights, Layout, WeightsError, to_native};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Environment variable with the folder of the published files that fixtures name.
pub const WEIGHTS_FOLDER: &str = "BOXWRIGHT_WEIGHTS";
/// Folders that are looked through for them, below the fixture's folder and each one above it.
const WEIGHTS_BELOW: [&str; 3] = ["", "data/weights", "shared/data/weights"];

/// How a reference's recording maps onto a network of this program.
pub(super) struct Case {
    pub(super) config: Config,
    /// The input enters after the model's own preprocessing; otherwise before it, as pixels in [0, 1].
    pub(super) preprocessed: bool,
    /// Losses and gradients were recorded with batch norm in training mode, or with running statistics.
    pub(super) loss_mode: Mode,
    /// What the reference adds to a class of this program.
    pub(super) label_offset: u32,
    /// This program's name of a parameter, output or loss; none for what it does not compute.
    pub(super) own_name: fn(&Config, &str) -> Option<String>,
    /// A darknet weights file instead of rebuilt values.
    weights: Option<PathBuf>,
}

impl Case {
    fn new(config: Config) -> Self {
        Self {
            config,
            preprocessed: false,
            loss_mode: Mode::Frozen,
            label_offset: 1,
            own_name: |_, name| Some(name.to_string()),
            weights: None,
        }
    }

    /// The case of a fixture that was read from `path`.
    ///
    /// # Errors
    /// A model that nothing here answers to, or published files that are not found or not understood.
    pub(super) fn of(fixture: &Fixture, path: &Path) -> Result<Self, ParityError> {
        if let (Some(cfg), Some(weights)) = (&fixture.cfg, &fixture.weights) {
            return Self::darknet(cfg, weights, path);
        }
        let every = 10_000_000;
        let sampling_all = |mut config: RcnnConfig| {
            config.rpn.anchor_samples = every;
            config.roi_samples = every;
            config
        };
        Ok(match fixture.model.as_str() {
            "torchvision_ssd300_vgg16" => Self::new(Config::new(Arch::Ssd300, &names_for(90))),
            "torchvision_retinanet_resnet50_fpn" => {
                let mut config = RetinanetConfig::r50(&names_for(90));
                built_afresh(&mut config.backbone);
                Self { loss_mode: Mode::Train, ..Self::new(Config::Retinanet(config)) }
            }
            "torchvision_fcos_resnet50_fpn" => {
                let mut config = FcosConfig::r50(&names_for(90));
                built_afresh(&mut config.backbone);
                Self { loss_mode: Mode::Train, ..Self::new(Config::Fcos(config)) }
            }
            "torchvision_fasterrcnn_resnet50_fpn" | "torchvision_maskrcnn_resnet50_fpn" => {
                let names = names_for(90);
                let mask = fixture.model.contains("mask");
                let mut config = sampling_all(if mask { RcnnConfig::mask(&names) } else { RcnnConfig::faster(&names) });
                built_afresh(&mut config.backbone);
                Self { loss_mode: Mode::Train, ..Self::new(Config::Rcnn(config)) }
            }
            // Recorded on a picture of 240 × 312 pixels with few proposals, for four convolutions look at each of them.
            "torchvision_fasterrcnn_resnet50_fpn_v2" => {
                let mut config = sampling_all(RcnnConfig::faster_v2(&names_for(90)));
                built_afresh(&mut config.backbone);
                config.preprocess.fit = Fit::ShortestEdge { short: 240, long: 1333, divisor: 32 };
                (config.rpn.train_proposals, config.rpn.test_proposals) = (400, 200);
                Self::new(Config::Rcnn(config))
            }
            // mmdet keeps the statistics of its ResNet's norms while training.
            "mmdet_cascade_rcnn_r50_fpn" => {
                let mut config = sampling_all(RcnnConfig::cascade(&names_for(80)));
                // Recorded down to the stem's gradient.
                config.backbone.frozen_stages = 0;
                Self {
                    preprocessed: true,
                    label_offset: 0,
                    own_name: |_, name| to_native(Layout::MmdetRcnn, name).or_else(|| native_name(name)),
                    ..Self::new(Config::Rcnn(config))
                }
            }
            "refinedet320_vgg16" => Self {
                preprocessed: true,
                ..Self::new(Config::Refinedet(RefinedetConfig::refinedet320(&names_for(20)).with_luuuyi_rules()))
            },
            "m2det320_vgg" => Self {
                preprocessed: true,
                own_name: |config, name| match config {
                    Config::M2det(config) => Some(config.own_name(name)),
                    _ => None,
                },
                ..Self::new(Config::new(Arch::M2det320, &names_for(80)))
            },
            "mmdet_yolov3_d53" => {
                let mut config = Yolov3Config::yolov3(&names_for(80)).sized(320, 320, true);
                // Two recorded boxes overlap by 0.450006: which of them stays is decided by the last bit.
                config.nms_threshold = 0.4501;
                // mmdet keeps the statistics of Darknet-53's norms while training, not those of neck and head.
                config.still_backbone = true;
                Self {
                    preprocessed: true,
                    loss_mode: Mode::Train,
                    label_offset: 0,
                    ..Self::new(Config::Yolov3(config))
                }
            }
            model => return Err(unfit(format!("no architecture here answers to the fixture's model {model:?}"), path)),
        })
    }

    /// A published cfg with its weights, recorded with OpenCV, whose importer puts 1e-6 under the root of batch norms.
    fn darknet(cfg: &str, weights: &str, path: &Path) -> Result<Self, ParityError> {
        let file = published(cfg, path)?;
        let text = std::fs::read_to_string(&file).map_err(|source| ParityError::Read { source, path: file.clone() })?;
        let mut config = DarknetConfig::read(&text).map_err(|e| unfit(e.to_string(), &file))?;
        config.norm_epsilon = 1e-6;
        let weights = Some(published(weights, path)?);
        Ok(Self { preprocessed: true, label_offset: 0, weights, ..Self::new(Config::Darknet(config)) })
    }

    /// Gives `detector` the values that the reference ran with.
    ///
    /// # Errors
    /// Values that are not those of this network.
    pub(super) fn fill(&self, detector: &dyn Detector, fixture: &Fixture, path: &Path) -> Result<(), ParityError> {
        let params = detector.params();
        if let Some(file) = &self.weights {
            let fault = |e: WeightsError| unfit(e.to_string(), file);
            let weights = DarknetWeights::open(file).map_err(fault)?;
            let report = params.load(&darknet::weights::checkpoint(params, &weights).map_err(fault)?).map_err(fault)?;
            if !report.missing.is_empty() {
                return Err(unfit(format!("{} parameters are not in these weights", report.missing.len()), file));
            }
            return Ok(());
        }
        let mut given = BTreeSet::new();
        for (name, shape, offset, scale) in &fixture.params {
            if let Some(own) = (self.own_name)(&self.config, name) {
                params.set(&own, &super::fixture::rebuilt(name, shape.iter().product(), *offset, *scale))?;
                given.insert(own);
            }
        }
        let own = params.all().len();
        if given.len() != own {
            return Err(unfit(format!("the fixture has {} parameters and the network {own}", given.len()), path));
        }
        Ok(())
    }
}

/// torchvision's detectors with a ResNet were recorded with the V1 networks built afresh: ε 1e-5, losses in training
/// mode with every batch norm following its batch.
fn built_afresh(backbone: &mut ResNetConfig) {
    backbone.norm = Norm::Trained;
    backbone.epsilon = 1e-5;
    backbone.frozen_stages = 0;
}

/// The published file `name`: in the folder that [`WEIGHTS_FOLDER`] names, beside the fixture, or in a folder with
/// weights on the way up.
fn published(name: &str, fixture: &Path) -> Result<PathBuf, ParityError> {
    let Some(name) = Path::new(name).file_name() else {
        return Err(unfit(format!("{name:?} is no name of a file"), fixture));
    };
    let whole = std::fs::canonicalize(fixture).unwrap_or_else(|_| fixture.to_path_buf());
    let mut folders: Vec<PathBuf> = std::env::var_os(WEIGHTS_FOLDER).map(PathBuf::from).into_iter().collect();
    for folder in whole.ancestors().skip(1) {
        folders.extend(WEIGHTS_BELOW.map(|below| folder.join(below)));
    }
    folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file()).ok_or_else(|| {
        let name = name.display();
        let reason =
            format!("the published file {name} is not found; name its folder in {WEIGHTS_FOLDER}, for fixture");
        unfit(reason, fixture)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_files_are_found_beside_the_fixture_and_above() {
        let folder = tempfile::tempdir().unwrap();
        let (fixtures, weights) = (folder.path().join("a/tests/fixtures"), folder.path().join("a/data/weights"));
        for folder in [&fixtures, &weights] {
            std::fs::create_dir_all(folder).unwrap();
        }
        let fixture = fixtures.join("f.json");
        std::fs::write(&fixture, "{}").unwrap();
        std::fs::write(weights.join("far.cfg"), "").unwrap();
        std::fs::write(fixtures.join("near.cfg"), "").unwrap();
        let found = |name: &str| published(name, &fixture).map(|file| file.file_name().map(|n| n.to_os_string()));
        assert_eq!(found("near.cfg").unwrap().unwrap(), "near.cfg");
        assert_eq!(found("../../far.cfg").unwrap().unwrap(), "far.cfg");
        let error = found("none.cfg").unwrap_err().to_string();
        assert!(error.contains("none.cfg") && error.contains(WEIGHTS_FOLDER), "{error}");
        assert!(published("..", &fixture).is_err());
    }
}
