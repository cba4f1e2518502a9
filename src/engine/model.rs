//! Loading a model: which network, which weights, and whether what loaded is enough to detect with.

use super::command::ModelChoice;
use super::device::device_name;
use super::event::ModelSummary;
use crate::detect::{Arch, Config, ConfigError, Detector, build, darknet, names};
use crate::nn::{Mode, Params, Pass};
use crate::train::checkpoint::described_model;
use crate::weights::{self, Checkpoint, DarknetWeights, Format, LoadReport, WeightsError, keymap};
use candle_core::{DType, Device, Tensor};
use std::path::{Path, PathBuf};

/// Why there is no model.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    #[error("these weights do not say which architecture they are for; name one with --model ({known}): {path}")]
    Undescribed { known: String, path: PathBuf },
    #[error("the weights are for {found}, not {asked}; leave out --model or choose other weights: {path}")]
    OtherArch { found: Arch, asked: Arch, path: PathBuf },
    #[error("{arch} has no embedded weights; give a file with --weights, or --allow-partial for random ones")]
    NoWeights { arch: Arch },
    #[error(
        "{path}: only {coverage:.1} % of {arch} is in this file ({loaded} tensors fit, {missing} are missing, {mismatched} \
         have another shape); it may be of another architecture. See `boxwright weights`, or use --allow-partial"
    )]
    Partial { arch: Arch, coverage: f64, loaded: usize, missing: usize, mismatched: usize, path: PathBuf },
}

/// A network with its weights.
pub struct Model {
    pub detector: Box<dyn Detector>,
    pub report: Option<LoadReport>,
    /// "embedded", the file, or "random".
    pub source: String,
}

impl Model {
    pub fn summary(&self) -> ModelSummary {
        ModelSummary {
            config: self.detector.config().clone(),
            weights: self.source.clone(),
            report: self.report.clone(),
            parameters: self.detector.params().trained_elements(),
            device: device_name(self.detector.params().device()),
            layouts: self.detector.layouts().to_vec(),
            flops: 0.0,
        }
    }
}

/// Builds the chosen network and loads `file`, or the embedded weights, or (only with `allow_partial`) random ones.
///
/// # Errors
/// An unknown name, a file that does not read or does not fit. See [`ModelError`].
pub fn load(
    choice: &ModelChoice,
    file: Option<&Path>,
    allow_partial: bool,
    device: &Device,
) -> Result<Model, ModelError> {
    let asked = match choice {
        ModelChoice::Named(name) => Some(name.parse::<Arch>()?),
        ModelChoice::Configured(config) => Some(config.arch()),
        ModelChoice::FromWeights => None,
    };
    let Some(path) = file else {
        return without_file(choice, asked.unwrap_or(Arch::SsdNano), allow_partial, device);
    };
    let mut checkpoint = weights::open(path)?;
    let described = described_model(checkpoint.metadata());
    if let (Some(found), Some(asked)) = (described.as_ref().map(Config::arch), asked)
        && found != asked
    {
        return Err(ModelError::OtherArch { found, asked, path: path.into() });
    }
    let layout = translate(&mut checkpoint);
    let config = match (described, choice, asked) {
        (_, ModelChoice::Configured(config), _) => (**config).clone(),
        (Some(config), _, _) => config,
        (None, _, Some(arch)) => implied_config(arch, &checkpoint),
        (None, _, None) => {
            let known = Arch::ALL.map(Arch::name).join(", ");
            return Err(ModelError::Undescribed { known, path: path.into() });
        }
    };
    let detector = build(&config, device, 0)?;
    if checkpoint.format() == Format::Darknet {
        checkpoint = darknet::weights::checkpoint(detector.params(), &DarknetWeights::from_checkpoint(&checkpoint)?)?;
    }
    let report = detector.params().load(&checkpoint)?;
    if let (Some(keymap::Layout::MmdetSsd), Config::Ssd(ssd)) = (layout, &config) {
        background_first(detector.params(), ssd.logits())?;
    }
    if !allow_partial && (!report.missing.is_empty() || !report.mismatched.is_empty()) {
        return Err(ModelError::Partial {
            arch: config.arch(),
            coverage: report.coverage * 100.0,
            loaded: report.loaded.len(),
            missing: report.missing.len(),
            mismatched: report.mismatched.len(),
            path: path.into(),
        });
    }
    Ok(Model { detector, report: Some(report), source: path.display().to_string() })
}

fn without_file(choice: &ModelChoice, arch: Arch, allow_partial: bool, device: &Device) -> Result<Model, ModelError> {
    let embedded = match arch.embedded_weights() {
        Some(bytes) => Some(weights::from_bytes(bytes)?),
        None => None,
    };
    match embedded {
        Some(checkpoint) => {
            let config = match (choice, described_model(checkpoint.metadata())) {
                (ModelChoice::Configured(config), _) => (**config).clone(),
                (_, Some(config)) => config,
                (_, None) => implied_config(arch, &checkpoint),
            };
            let detector = build(&config, device, 0)?;
            let report = detector.params().load(&checkpoint)?;
            Ok(Model { detector, report: Some(report), source: "embedded".into() })
        }
        None if allow_partial => {
            let config = match choice {
                ModelChoice::Configured(config) => (**config).clone(),
                _ => Config::new(arch, &names::names_for(80)),
            };
            Ok(Model { detector: build(&config, device, 0)?, report: None, source: "random".into() })
        }
        None => Err(ModelError::NoWeights { arch }),
    }
}

/// Builds `arch` for 80 classes under random weights and counts its operations in one forward pass.
///
/// # Errors
/// A device that cannot hold the network.
pub fn survey(arch: Arch, device: &Device) -> Result<ModelSummary, ModelError> {
    let config = Config::new(arch, &names::names_for(80));
    let model = Model { detector: build(&config, device, 0)?, report: None, source: "random".into() };
    let (height, width) = config.input();
    let pass = Pass::new(Mode::Infer);
    model.detector.forward(&Tensor::zeros((1, 3, height, width), DType::F32, device)?, &pass)?;
    Ok(ModelSummary { flops: pass.flops(), ..model.summary() })
}

/// What of a (translated) checkpoint fits the network that `config` describes.
///
/// # Errors
/// A configuration that makes no network.
pub fn fit(config: &Config, checkpoint: &Checkpoint) -> Result<LoadReport, ModelError> {
    Ok(weights::compare(&build(config, &Device::Cpu, 0)?.params().expected(), checkpoint))
}

/// mmdetection counts background last: every anchor's group of class rows is turned by one.
fn background_first(params: &Params, logits: usize) -> candle_core::Result<()> {
    for (name, (_, mut values)) in params.values()? {
        if !name.starts_with("head.classification_head.module_list.") {
            continue;
        }
        let rows = params.get(&name).and_then(|p| p.var.dims().first().copied()).unwrap_or(1).max(1);
        let row = values.len() / rows;
        for anchor in values.chunks_exact_mut(logits * row) {
            anchor.rotate_right(row);
        }
        params.set(&name, &values)?;
    }
    Ok(())
}

/// Renames the keys of a known layout to this program's own.
pub fn translate(checkpoint: &mut Checkpoint) -> Option<keymap::Layout> {
    let layout = {
        let names: Vec<&str> = checkpoint.tensors().iter().map(|t| t.name.as_str()).collect();
        keymap::detect_layout(&names)
    }?;
    checkpoint.rename(|name| keymap::to_native(layout, name));
    Some(layout)
}

/// The published configuration of `arch` with as many classes as the (native) checkpoint's head has.
pub fn implied_config(arch: Arch, checkpoint: &Checkpoint) -> Config {
    let config = Config::new(arch, &names::names_for(80));
    let rows = |name: &str| checkpoint.get(name).and_then(|t| t.shape.first()).copied();
    let count = match &config {
        Config::Ssd(ssd) => rows("head.classification_head.module_list.0.weight")
            .and_then(|n| (n / ssd.priors_per_cell(0).max(1)).checked_sub(1)),
        Config::Retinanet(retinanet) => rows("head.classification_head.cls_logits.weight")
            .and_then(|n| (n / retinanet.anchors_per_cell().max(1)).checked_sub(retinanet.class_layout.first())),
        Config::Refinedet(refinedet) => {
            rows("odm_conf.0.weight").and_then(|n| (n / refinedet.priors.per_cell(0).max(1)).checked_sub(1))
        }
        Config::M2det(m2det) => {
            rows("conf.0.weight").and_then(|n| (n / m2det.priors.per_cell(0).max(1)).checked_sub(1))
        }
        Config::Yolov3(_) => rows("bbox_head.convs_pred.0.weight").and_then(|n| (n / 3).checked_sub(5)),
        Config::Rcnn(_) => rows("roi_heads.box_predictor.cls_score.weight")
            .or_else(|| rows("roi_heads.box_predictor.0.cls_score.weight"))
            .and_then(|n| n.checked_sub(1)),
        Config::Darknet(_) => None,
        Config::Fcos(fcos) => {
            rows("head.classification_head.cls_logits.weight").and_then(|n| n.checked_sub(fcos.class_layout.first()))
        }
    };
    match count {
        Some(count) if count > 0 => Config::new(arch, &names::names_for(count)),
        _ => config,
    }
}
