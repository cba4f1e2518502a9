//! RetinaNet: one-stage detection with focal loss on a feature pyramid.
//!
//! Lin et al., "Focal Loss for Dense Object Detection" (ICCV 2017). Names, anchors, matching, losses and
//! post-processing follow torchvision's `retinanet_resnet50_fpn`, so its checkpoints load by name; what other
//! implementations do otherwise is a setting.

mod config;
pub(super) mod decode;
pub(super) mod loss;

#[cfg(test)]
use config::nine_anchors;
pub use config::{ClassLayout, Normalizer, RegressionLoss, RetinanetConfig, TowerConfig};
pub(super) use config::{backbone_maps, grid, imagenet, published_level};

use super::{Config, Detector, Losses, Outputs};
use crate::geometry::{Detection, Object};
use crate::nn::backbone::Body;
use crate::nn::neck::fpn::Fpn;
use crate::nn::{Conv, Init, Mode, Params, Pass, Role, Scope};
use crate::ops::activation::relu;
use crate::ops::conv::{Activation, ConvSpec};
use crate::ops::maps::by_cell;
use crate::ops::norm::group_norm;
use crate::trace::Anchors;
use candle_core::{Device, Result, Tensor, Var};

/// Deviation of the heads' initial weights (paper, §4.1).
pub(super) const HEAD_INIT: Init = Init::Normal(0.01);

/// The network and its settings.
#[derive(Debug)]
pub struct Retinanet {
    config: Config,
    retinanet: RetinanetConfig,
    params: Params,
    backbone: Body,
    neck: Fpn,
    classification: Tower,
    logits: Conv,
    regression: Tower,
    deltas: Conv,
}

impl Retinanet {
    /// # Errors
    /// No class, anchors that do not fit the levels, or a device that cannot hold the network.
    pub fn new(config: &RetinanetConfig, device: &Device, seed: u64) -> Result<Self> {
        let (levels, per_cell) = (config.levels(), config.anchors_per_cell());
        let sizes = &config.anchors.sizes;
        if per_cell == 0 || sizes.len() != levels || sizes.iter().any(|s| s.len() != sizes[0].len()) {
            candle_core::bail!(
                "RetinaNet with {levels} levels needs equally many anchor sizes on each of them and a ratio, not sizes \
                 {sizes:?} and ratios {:?}",
                config.anchors.aspect_ratios
            );
        }
        if config.classes.is_empty() {
            candle_core::bail!("RetinaNet needs at least one class");
        }
        let params = Params::new(device, seed);
        let (backbone, neck) = {
            let scope = params.root().enter("backbone");
            let backbone = Body::new(&scope.enter("body"), &config.backbone)?;
            let channels = finest_maps(&config.backbone.channels(), config.finest_level)?.to_vec();
            (backbone, Fpn::new(&scope.enter("fpn"), &channels, &config.neck)?)
        };
        let head = params.root().enter("head");
        let (classification, regression) = (head.enter("classification_head"), head.enter("regression_head"));
        let channels = config.neck.channels;
        let tower = |scope: &Scope| {
            let scope = scope.enter("conv");
            Tower::new(config.towers, channels, |index| {
                let layer = scope.enter(index);
                (layer.enter(0), layer.enter(1))
            })
        };
        let spec = ConvSpec::new().padding(1);
        let (logit_shape, delta_shape) = ((channels, per_cell * config.logits(), 3), (channels, per_cell * 4, 3));
        let logits = classification.enter("cls_logits");
        Ok(Self {
            classification: tower(&classification)?,
            logits: Conv::with_bias(&logits, logit_shape, spec, HEAD_INIT, prior_bias(config.prior))?,
            regression: tower(&regression)?,
            deltas: Conv::new(&regression.enter("bbox_reg"), delta_shape, spec, HEAD_INIT)?,
            config: Config::Retinanet(config.clone()),
            retinanet: config.clone(),
            params,
            backbone,
            neck,
        })
    }

    fn anchors(&self, outputs: &Outputs) -> Anchors {
        self.retinanet.anchors_on(outputs.input, &outputs.maps)
    }
}

/// The bias at which a sigmoid gives `prior`: −ln((1 − π) / π).
pub(super) fn prior_bias(prior: f32) -> f32 {
    let prior = prior.clamp(1e-6, 1.0 - 1e-6);
    -((1.0 - prior) / prior).ln()
}

/// The convolutions of one branch of a head, shared by all levels.
#[derive(Debug)]
pub(super) struct Tower {
    layers: Vec<(Conv, Option<GroupNorm>)>,
}

/// Scale and shift of a group norm that follows a convolution.
#[derive(Debug)]
struct GroupNorm {
    gamma: Var,
    beta: Var,
    groups: usize,
}

impl Tower {
    /// `names` gives the scopes of each layer's convolution and of its norm.
    ///
    /// # Errors
    /// Groups that do not divide the channels, or a device that cannot hold the weights.
    pub(super) fn new(config: TowerConfig, channels: usize, names: impl Fn(usize) -> (Scope, Scope)) -> Result<Self> {
        if config.groups > 0 && !channels.is_multiple_of(config.groups) {
            candle_core::bail!("{} groups of a group norm do not divide {channels} channels", config.groups);
        }
        let activation = if config.groups == 0 { Activation::Relu } else { Activation::None };
        let spec = ConvSpec::new().padding(1).activation(activation);
        let mut layers = Vec::with_capacity(config.convs);
        for index in 0..config.convs {
            let (conv, norm) = names(index);
            let shape = (channels, channels, 3);
            let conv = if config.bias {
                Conv::new(&conv, shape, spec, HEAD_INIT)?
            } else {
                Conv::without_bias(&conv, shape, spec, HEAD_INIT)?
            };
            let norm = if config.groups == 0 {
                None
            } else {
                let gamma = norm.param("weight", &[channels], Init::Constant(1.0), Role::Norm)?;
                let beta = norm.param("bias", &[channels], Init::Constant(0.0), Role::Norm)?;
                Some(GroupNorm { gamma, beta, groups: config.groups })
            };
            layers.push((conv, norm));
        }
        Ok(Self { layers })
    }

    /// `[N, channels, H, W]` → the same shape.
    pub(super) fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let mut x = x.clone();
        for (conv, norm) in &self.layers {
            x = conv.forward(&x, pass)?;
            if let Some(norm) = norm {
                x = relu(&norm.forward(&x, pass)?)?;
            }
        }
        Ok(x)
    }
}

impl GroupNorm {
    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let (gamma, beta) = match pass.mode {
            Mode::Infer => (self.gamma.detach(), self.beta.detach()),
            Mode::Train | Mode::Frozen => (self.gamma.as_tensor().clone(), self.beta.as_tensor().clone()),
        };
        group_norm(x, &gamma, &beta, self.groups, 1e-5)
    }
}

/// Of what a backbone has for C2 to C5, that of the maps from number `finest` on.
///
/// # Errors
/// A number that is not one of theirs.
pub(super) fn finest_maps<T>(stages: &[T], finest: usize) -> Result<&[T]> {
    match stages.len().checked_sub(backbone_maps(finest)).and_then(|first| stages.get(first..)) {
        Some(maps) if !maps.is_empty() => Ok(maps),
        _ => candle_core::bail!("a pyramid can begin at C2 to C5, not at C{finest}"),
    }
}

/// Features of a backbone's last maps and the neck above them, tapped as `fpn.<name>`.
pub(super) fn pyramid(backbone: &Body, neck: &Fpn, images: &Tensor, pass: &Pass) -> Result<Vec<(String, Tensor)>> {
    let stages = pass.stage("backbone", || backbone.forward(images, pass))?;
    let used = stages.len().saturating_sub(neck.inputs());
    let levels = pass.stage("neck", || neck.forward(&stages[used..], pass))?;
    let mut named = Vec::with_capacity(levels.len());
    for (level, (name, map)) in neck.names().into_iter().zip(levels).enumerate() {
        let name = format!("fpn.{name}");
        pass.tap(&name, level, &map)?;
        named.push((name, map));
    }
    Ok(named)
}

/// Rows and columns of each map.
pub(super) fn sizes(maps: &[(String, Tensor)]) -> Result<Vec<(usize, usize)>> {
    maps.iter().map(|(_, map)| map.dims4().map(|(_, _, rows, columns)| (rows, columns))).collect()
}

impl Detector for Retinanet {
    fn config(&self) -> &Config {
        &self.config
    }

    fn params(&self) -> &Params {
        &self.params
    }

    fn forward(&self, images: &Tensor, pass: &Pass) -> Result<Outputs> {
        let (count, _, height, width) = images.dims4()?;
        let mut tensors = pyramid(&self.backbone, &self.neck, images, pass)?;
        let maps = sizes(&tensors)?;
        let (logits, deltas) = pass.stage("head", || {
            let branch = |tower: &Tower, output: &Conv, values: usize| -> Result<Tensor> {
                let level = |(_, map): &(String, Tensor)| output.forward(&tower.forward(map, pass)?, pass);
                by_cell(&tensors.iter().map(level).collect::<Result<Vec<Tensor>>>()?, values)
            };
            let logits = branch(&self.classification, &self.logits, self.retinanet.logits())?;
            Ok((logits, branch(&self.regression, &self.deltas, 4)?))
        })?;
        tensors.push(("head.cls_logits".into(), logits));
        tensors.push(("head.bbox_regression".into(), deltas));
        let outputs = Outputs { tensors, maps, input: (height, width) };
        if pass.is_probed() {
            let anchors = self.anchors(&outputs);
            for image in 0..count {
                pass.trace(image, |t| t.anchors.clone_from(&anchors));
            }
        }
        Ok(outputs)
    }

    fn losses(&self, outputs: &Outputs, objects: &[Vec<Object>], pass: &Pass) -> Result<Losses> {
        loss::losses(&self.retinanet, &self.anchors(outputs).boxes, outputs, objects, pass)
    }

    fn detect(&self, outputs: &Outputs, pass: &Pass) -> Result<Vec<Vec<Detection>>> {
        decode::detect(&self.retinanet, &self.anchors(outputs), outputs, pass)
    }

    fn layouts(&self) -> &'static [&'static str] {
        &["torchvision", "mmdet", "detectron2", "yhenon"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::BBox;
    use crate::nn::backbone::resnet::{Depth, Norm, ResNetConfig};
    use crate::nn::neck::fpn::{ExtraLevels, FpnConfig};
    use crate::random::Random;
    use crate::trace::Rule;

    fn tiny() -> RetinanetConfig {
        let classes = vec!["a".to_string(), "b".to_string()];
        let nano = nine_anchors(&classes);
        RetinanetConfig {
            towers: TowerConfig { convs: 1, groups: 4, bias: false },
            backbone: ResNetConfig { width: 8, ..nano.backbone },
            neck: FpnConfig { channels: 16, ..nano.neck },
            ..nano
        }
    }

    fn images(count: usize) -> Result<Tensor> {
        let mut rng = Random::new(9);
        let values: Vec<f32> = (0..count * 3 * 64 * 96).map(|_| rng.normal()).collect();
        Tensor::from_vec(values, (count, 3, 64, 96), &Device::Cpu)
    }

    fn object() -> Object {
        Object { bbox: BBox::new(20.0, 10.0, 52.0, 40.0), class: 1, ..Object::default() }
    }

    #[test]
    fn outputs_have_the_names_and_shapes_of_the_reference() -> Result<()> {
        let network = Retinanet::new(&tiny(), &Device::Cpu, 1)?;
        let outputs = network.forward(&images(2)?, &Pass::new(Mode::Infer))?;
        assert_eq!(outputs.maps, [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]);
        // 9 · (96 + 24 + 6 + 2 + 1)
        assert_eq!(outputs.get("head.cls_logits")?.dims(), [2, 1161, 2]);
        assert_eq!(outputs.get("head.bbox_regression")?.dims(), [2, 1161, 4]);
        for name in ["fpn.0", "fpn.1", "fpn.2", "fpn.p6", "fpn.p7"] {
            assert_eq!(outputs.get(name)?.dim(1)?, 16, "{name}");
        }
        // an untrained network gives every class the prior
        let logits: Vec<f32> = outputs.get("head.cls_logits")?.flatten_all()?.to_vec1()?;
        let mean = logits.iter().sum::<f32>() / logits.len() as f32;
        assert!((mean + 4.595_12).abs() < 0.5, "{mean}");
        assert!((prior_bias(0.01) + 4.595_12).abs() < 1e-5);
        assert!(network.detect(&outputs, &Pass::new(Mode::Infer))?.iter().all(Vec::is_empty));
        Ok(())
    }

    #[test]
    fn a_pyramid_can_begin_at_c2() -> Result<()> {
        let classes = vec!["a".to_string(), "b".to_string()];
        let nano = RetinanetConfig::nano(&classes);
        let config = RetinanetConfig { backbone: ResNetConfig { width: 8, ..nano.backbone }, ..nano };
        let network = Retinanet::new(&config, &Device::Cpu, 1)?;
        let outputs = network.forward(&images(1)?, &Pass::new(Mode::Infer))?;
        assert_eq!(outputs.maps, [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]);
        assert_eq!(outputs.get("head.cls_logits")?.dims(), [1, 6 * (384 + 96 + 24 + 6 + 2), 2]);
        assert!(network.params().get("backbone.fpn.inner_blocks.3.0.weight").is_some());
        assert!(outputs.get("fpn.pool").is_ok());
        Ok(())
    }

    #[test]
    fn the_pyramid_can_stand_on_mobilenet() -> Result<()> {
        let config = RetinanetConfig::nano(&["a".to_string(), "b".to_string()]);
        let tagged = crate::detect::config::set(&Config::Retinanet(config), "backbone.depth", "mobile-v2").unwrap();
        let Config::Retinanet(config) = tagged else { panic!("another family") };
        assert_eq!(config.backbone.depth, Depth::MobileV2);
        let network = Retinanet::new(&config, &Device::Cpu, 1)?;
        assert!(network.params().get("backbone.body.features.17.conv.2.weight").is_some());
        let pass = Pass::new(Mode::Train);
        let outputs = network.forward(&images(1)?, &pass)?;
        assert_eq!(outputs.maps[0], (16, 24));
        let gradients = network.losses(&outputs, &[vec![object()]], &pass)?.total()?.backward()?;
        for param in network.params().trainable() {
            assert!(gradients.get(param.var.as_tensor()).is_some(), "{}", param.name);
        }
        Ok(())
    }

    #[test]
    fn parameters_are_named_as_in_torchvision() -> Result<()> {
        let config = RetinanetConfig { towers: TowerConfig { convs: 4, groups: 0, bias: true }, ..tiny() };
        let config = RetinanetConfig { backbone: ResNetConfig { norm: Norm::Frozen, ..config.backbone }, ..config };
        let network = Retinanet::new(&config, &Device::Cpu, 1)?;
        for (name, shape) in [
            ("backbone.body.layer4.1.bn2.running_var", vec![64]),
            ("backbone.fpn.inner_blocks.2.0.weight", vec![16, 64, 1, 1]),
            ("backbone.fpn.layer_blocks.0.0.bias", vec![16]),
            ("backbone.fpn.extra_blocks.p7.weight", vec![16, 16, 3, 3]),
            ("head.classification_head.conv.3.0.weight", vec![16, 16, 3, 3]),
            ("head.classification_head.cls_logits.bias", vec![18]),
            ("head.regression_head.conv.0.0.bias", vec![16]),
            ("head.regression_head.bbox_reg.weight", vec![36, 16, 3, 3]),
        ] {
            assert_eq!(network.params().get(name).map(|p| p.var.dims().to_vec()), Some(shape), "{name}");
        }
        // ResNet-18 has 20 layers of 5 tensors; the neck 8 convolutions, the towers 8, the outputs 2
        assert_eq!(network.params().all().len(), 100 + 2 * 18);
        Ok(())
    }

    #[test]
    fn a_training_step_reaches_every_part_and_fills_the_trace() -> Result<()> {
        let network = Retinanet::new(&tiny(), &Device::Cpu, 1)?;
        let pass = Pass::probed(Mode::Train, 2);
        let outputs = network.forward(&images(2)?, &pass)?;
        let losses = network.losses(&outputs, &[vec![object()], vec![]], &pass)?;
        let names: Vec<&str> = losses.parts.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["classification", "bbox_regression"]);
        let total = losses.total()?;
        assert!(total.to_vec0::<f32>()?.is_finite());
        let gradients = total.backward()?;
        for param in network.params().trainable() {
            assert!(gradients.get(param.var.as_tensor()).is_some(), "{}", param.name);
        }
        network.detect(&outputs, &pass)?;
        let traces = pass.into_traces();
        for trace in &traces {
            assert_eq!(trace.anchors.boxes.len(), 1161);
            assert_eq!(trace.losses[0].per_anchor.len(), 1161);
            assert!(trace.suppression.is_some());
            assert!(trace.maps.iter().any(|m| m.name == "fpn.p6") && trace.maps.iter().any(|m| m.name == "c2"));
        }
        let rules = traces[0].assignment.as_ref().map(|a| a.rule.clone()).unwrap_or_default();
        assert!(rules.contains(&Rule::Threshold) || rules.contains(&Rule::BestForObject));
        assert!(traces[0].sampling.iter().any(|s| s.positive) && traces[1].sampling.iter().all(|s| !s.positive));
        assert_eq!(traces[1].sampling.len(), 256);
        Ok(())
    }

    #[test]
    fn settings_that_make_no_network_are_errors() {
        let refused = |config: RetinanetConfig| Retinanet::new(&config, &Device::Cpu, 0).is_err();
        assert!(refused(RetinanetConfig { classes: Vec::new(), ..tiny() }));
        assert!(refused(RetinanetConfig { finest_level: 6, ..tiny() }));
        assert!(refused(RetinanetConfig { towers: TowerConfig { convs: 1, groups: 3, bias: true }, ..tiny() }));
        let neck = FpnConfig { extra: ExtraLevels::None, ..tiny().neck };
        assert!(refused(RetinanetConfig { neck, ..tiny() }));
        let mut uneven = tiny();
        uneven.anchors.sizes[1].pop();
        assert!(refused(uneven));
        assert!(!refused(tiny()));
    }
}
