//! SSD: Single Shot MultiBox Detector.
//!
//! Liu et al., "SSD: Single Shot MultiBox Detector" (ECCV 2016). Names, priors, matching, mining and losses follow
//! torchvision's `ssd300_vgg16`, so its checkpoints load by name; background is class 0 of the head.

mod config;
mod decode;

pub use config::{Extra, SsdConfig};

use super::multibox::prior_losses;
use super::{Config, Detector, Losses, Outputs};
use crate::geometry::priors::ssd_priors;
use crate::geometry::{BBox, Detection, Object};
use crate::nn::backbone::vgg::{Layer, Vgg};
use crate::nn::{Conv, Init, Params, Pass, Role};
use crate::ops::conv::ConvSpec;
use crate::ops::maps::by_cell;
use crate::ops::multibox::LossSettings;
use crate::ops::norm::{L2Eps, l2_norm};
use crate::trace::{AnchorLevel, Anchors};
use candle_core::{Device, Result, Tensor, Var};

/// The network and its settings.
#[derive(Debug)]
pub struct Ssd {
    config: Config,
    ssd: SsdConfig,
    params: Params,
    backbone: Vgg,
    /// γ of the L2 norm on conv4_3, `[C]`, starting at 20.
    scale: Var,
    extras: Vec<(Layer, Layer)>,
    classification: Vec<Conv>,
    regression: Vec<Conv>,
}

impl Ssd {
    /// # Errors
    /// Settings whose lists disagree in length, or a device that cannot hold the network.
    pub fn new(config: &SsdConfig, device: &Device, seed: u64) -> Result<Self> {
        let tagged = Config::Ssd(config.clone());
        let [low, high] = config.linear_scales;
        if [low, high] != [0.0; 2] && !(low > 0.0 && low <= high) {
            candle_core::bail!(
                "linear_scales are s_min and s_max with 0 < s_min ≤ s_max, or [0, 0] for the listed sizes, not [{low}, {high}]"
            );
        }
        let config = &SsdConfig { priors: config.prior_spec(), ..config.clone() };
        let sources = config.extras.len() + 2;
        let lists = [config.priors.steps.len(), config.priors.min_sizes.len(), config.priors.aspect_ratios.len()];
        if lists.iter().any(|&n| n != sources) {
            candle_core::bail!(
                "SSD with {} extras has {sources} sources, but {lists:?} steps, sizes and ratios",
                config.extras.len()
            );
        }
        let params = Params::new(device, seed);
        let scope = params.root().enter("backbone");
        let width = config.widths.stages[3];
        let scale = scope.param("scale_weight", &[width], Init::Constant(20.0), Role::Norm)?;
        let backbone = Vgg::new(&scope, config.widths, config.batch_norm)?;
        let mut channels = vec![width, config.widths.fc];
        let mut extras = Vec::new();
        for (index, e) in config.extras.iter().enumerate() {
            let scope = scope.enter("extra").enter(index + 1);
            let input = channels[channels.len() - 1];
            let layer = |name: usize, shape, spec| -> Result<Layer> {
                Layer::new(&scope.enter(name), shape, spec, false, Init::XavierUniform)
            };
            let spec = ConvSpec::new().stride(e.stride).padding(e.padding);
            extras.push((
                layer(0, (input, e.reduce, 1), ConvSpec::new())?,
                layer(2, (e.reduce, e.output, e.kernel), spec)?,
            ));
            channels.push(e.output);
        }
        let head = |branch: &str, outputs: usize| -> Result<Vec<Conv>> {
            let scope = params.root().enter("head").enter(branch).enter("module_list");
            let heads = channels.iter().enumerate().map(|(level, &input)| {
                let shape = (input, config.priors_per_cell(level) * outputs, 3);
                Conv::new(&scope.enter(level), shape, ConvSpec::new().padding(1), Init::XavierUniform)
            });
            heads.collect()
        };
        let classification = head("classification_head", config.logits())?;
        let regression = head("regression_head", 4)?;
        let ssd = config.clone();
        Ok(Self { config: tagged, ssd, params, backbone, scale, extras, classification, regression })
    }

    /// The feature maps that the heads read, finest first.
    fn sources(&self, images: &Tensor, pass: &Pass) -> Result<Vec<Tensor>> {
        let (conv4_3, mut x) = self.backbone.forward(images, pass)?;
        let mut sources = vec![l2_norm(&conv4_3, self.scale.as_tensor(), L2Eps::Max(1e-12))?, x.clone()];
        for (reduce, expand) in &self.extras {
            x = expand.forward(&reduce.forward(&x, pass)?, pass)?;
            sources.push(x.clone());
        }
        Ok(sources)
    }

    /// Priors for heads of these sizes, input pixels.
    fn priors(&self, outputs: &Outputs) -> Vec<BBox> {
        ssd_priors(&self.ssd.priors, &outputs.maps)
    }

    fn anchors(&self, outputs: &Outputs) -> Anchors {
        let mut start = 0;
        let mut levels = Vec::new();
        for (level, &(rows, columns)) in outputs.maps.iter().enumerate() {
            let per_cell = self.ssd.priors_per_cell(level);
            let len = rows * columns * per_cell;
            levels.push(AnchorLevel { start, len, rows, columns, per_cell, stride: self.ssd.priors.steps[level] });
            start += len;
        }
        Anchors { boxes: self.priors(outputs), levels }
    }
}

impl Detector for Ssd {
    fn config(&self) -> &Config {
        &self.config
    }

    fn params(&self) -> &Params {
        &self.params
    }

    fn forward(&self, images: &Tensor, pass: &Pass) -> Result<Outputs> {
        let (_, _, height, width) = images.dims4()?;
        let sources = pass.stage("backbone", || self.sources(images, pass))?;
        let mut tensors = Vec::new();
        let mut maps = Vec::new();
        for (level, source) in sources.iter().enumerate() {
            let name = format!("features.{level}");
            pass.tap(&name, level, source)?;
            let (_, _, rows, columns) = source.dims4()?;
            maps.push((rows, columns));
            tensors.push((name, source.clone()));
        }
        let (boxes, logits) = pass.stage("head", || {
            let branch = |heads: &[Conv], values: usize| -> Result<Tensor> {
                let maps: Result<Vec<Tensor>> =
                    heads.iter().zip(&sources).map(|(head, x)| head.forward(x, pass)).collect();
                by_cell(&maps?, values)
            };
            Ok((branch(&self.regression, 4)?, branch(&self.classification, self.ssd.logits())?))
        })?;
        tensors.push(("head.bbox_regression".into(), boxes));
        tensors.push(("head.cls_logits".into(), logits));
        let outputs = Outputs { tensors, maps, input: (height, width) };
        if pass.is_probed() {
            let anchors = self.anchors(&outputs);
            for image in 0..images.dim(0)? {
                pass.trace(image, |t| t.anchors.clone_from(&anchors));
            }
        }
        Ok(outputs)
    }

    fn losses(&self, outputs: &Outputs, objects: &[Vec<Object>], pass: &Pass) -> Result<Losses> {
        let settings = LossSettings {
            negative_ratio: self.ssd.negative_ratio,
            smooth_l1_beta: self.ssd.smooth_l1_beta,
            localization_weight: self.ssd.localization_weight,
        };
        let priors = self.priors(outputs);
        let answers = [("bbox_regression", "head.bbox_regression"), ("classification", "head.cls_logits")];
        prior_losses((&priors, self.ssd.positive_threshold), outputs, answers, objects, &settings, pass)
    }

    fn detect(&self, outputs: &Outputs, pass: &Pass) -> Result<Vec<Vec<Detection>>> {
        decode::detect(&self.ssd, &self.priors(outputs), outputs, pass)
    }

    fn layouts(&self) -> &'static [&'static str] {
        &["torchvision", "amdegroot", "lufficc", "mmdet"]
    }
}
