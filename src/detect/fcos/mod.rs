//! FCOS: one-stage detection without anchors; every point of the pyramid predicts the distances to its box's sides.
//!
//! Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection" (ICCV 2019). Names, targets, losses and
//! post-processing follow torchvision's `fcos_resnet50_fpn`, so its checkpoints load by name; what the paper and mmdet
//! do otherwise is a setting.

mod config;
mod decode;
mod loss;

#[cfg(test)]
use config::from_p3;
pub use config::{BoxLoss, DistanceCode, FcosConfig, ScoreRule};

use super::retinanet::{HEAD_INIT, Tower, finest_maps, prior_bias, pyramid, sizes};
use super::{Config, Detector, Losses, Outputs};
use crate::geometry::{Detection, Object};
use crate::nn::backbone::Body;
use crate::nn::neck::fpn::Fpn;
use crate::nn::{Conv, Init, Mode, Params, Pass, Role, Scope};
use crate::ops::activation::relu;
use crate::ops::conv::ConvSpec;
use crate::ops::maps::by_cell;
use crate::trace::Anchors;
use candle_core::{Device, Result, Tensor, Var};

/// The network and its settings.
#[derive(Debug)]
pub struct Fcos {
    config: Config,
    fcos: FcosConfig,
    params: Params,
    backbone: Body,
    neck: Fpn,
    classification: Tower,
    logits: Conv,
    regression: Tower,
    distances: Conv,
    centerness: Conv,
    /// One number a level, or none.
    scales: Vec<Var>,
}

impl Fcos {
    /// # Errors
    /// No class, ranges that do not fit the levels, or a device that cannot hold the network.
    pub fn new(config: &FcosConfig, device: &Device, seed: u64) -> Result<Self> {
        let levels = config.levels();
        if config.range_limits.len() + 1 != levels {
            candle_core::bail!(
                "FCOS with {levels} levels needs {} range limits between them, not {:?}",
                levels.saturating_sub(1),
                config.range_limits
            );
        }
        if config.classes.is_empty() {
            candle_core::bail!("FCOS needs at least one class");
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
            // Convolution, norm and ReLU count through in torchvision's list.
            Tower::new(config.towers, channels, |index| (scope.enter(3 * index), scope.enter(3 * index + 1)))
        };
        let spec = ConvSpec::new().padding(1);
        let logits = classification.enter("cls_logits");
        let mut scales = Vec::new();
        if config.level_scales {
            for level in 0..levels {
                let scope = regression.enter("scales").enter(level);
                scales.push(scope.param("scale", &[], Init::Constant(1.0), Role::Weight)?);
            }
        }
        Ok(Self {
            classification: tower(&classification)?,
            logits: Conv::with_bias(
                &logits,
                (channels, config.logits(), 3),
                spec,
                HEAD_INIT,
                prior_bias(config.prior),
            )?,
            regression: tower(&regression)?,
            distances: Conv::new(&regression.enter("bbox_reg"), (channels, 4, 3), spec, HEAD_INIT)?,
            centerness: Conv::new(&regression.enter("bbox_ctrness"), (channels, 1, 3), spec, HEAD_INIT)?,
            scales,
            config: Config::Fcos(config.clone()),
            fcos: config.clone(),
            params,
            backbone,
            neck,
        })
    }

    fn points(&self, outputs: &Outputs) -> Anchors {
        self.fcos.points_on(outputs.input, &outputs.maps)
    }

    /// Logits `[N, C, H, W]`, distances `[N, 4, H, W]` and centre-ness `[N, 1, H, W]` of one level.
    fn level(&self, level: usize, map: &Tensor, pass: &Pass) -> Result<[Tensor; 3]> {
        let of_class = self.classification.forward(map, pass)?;
        let of_box = self.regression.forward(map, pass)?;
        let logits = self.logits.forward(&of_class, pass)?;
        let mut distances = self.distances.forward(&of_box, pass)?;
        if let Some(scale) = self.scales.get(level) {
            let scale = if pass.mode == Mode::Infer { scale.detach() } else { scale.as_tensor().clone() };
            distances = distances.broadcast_mul(&scale)?;
        }
        let distances = match self.fcos.distance_code {
            DistanceCode::StrideRelu => relu(&distances)?,
            DistanceCode::PixelExp => distances.exp()?,
        };
        let shared = if self.fcos.centerness_on_regression { &of_box } else { &of_class };
        let centerness = self.centerness.forward(shared, pass)?;
        Ok([logits, distances, centerness])
    }
}

impl Detector for Fcos {
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
        let heads = pass.stage("head", || {
            let (mut logits, mut distances, mut centerness) = (Vec::new(), Vec::new(), Vec::new());
            for (level, (_, map)) in tensors.iter().enumerate() {
                let [own_logits, own_distances, own_centerness] = self.level(level, map, pass)?;
                logits.push(own_logits);
                distances.push(own_distances);
                centerness.push(own_centerness);
            }
            Ok([by_cell(&logits, self.fcos.logits())?, by_cell(&distances, 4)?, by_cell(&centerness, 1)?])
        })?;
        let names = ["head.cls_logits", "head.bbox_regression", "head.bbox_ctrness"];
        tensors.extend(names.map(String::from).into_iter().zip(heads));
        let outputs = Outputs { tensors, maps, input: (height, width) };
        if pass.is_probed() {
            let points = self.points(&outputs);
            for image in 0..count {
                pass.trace(image, |t| t.anchors.clone_from(&points));
            }
        }
        Ok(outputs)
    }

    fn losses(&self, outputs: &Outputs, objects: &[Vec<Object>], pass: &Pass) -> Result<Losses> {
        loss::losses(&self.fcos, &self.points(outputs), outputs, objects, pass)
    }

    fn detect(&self, outputs: &Outputs, pass: &Pass) -> Result<Vec<Vec<Detection>>> {
        decode::detect(&self.fcos, &self.points(outputs), outputs, pass)
    }

    fn layouts(&self) -> &'static [&'static str] {
        &["torchvision", "mmdet"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::retinanet::TowerConfig;
    use crate::geometry::BBox;
    use crate::nn::backbone::resnet::ResNetConfig;
    use crate::nn::neck::fpn::FpnConfig;
    use crate::random::Random;

    fn tiny() -> FcosConfig {
        let classes = vec!["a".to_string(), "b".to_string()];
        let nano = from_p3(&classes);
        FcosConfig {
            towers: TowerConfig { convs: 1, groups: 4, bias: true },
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

    #[test]
    fn outputs_have_the_names_and_shapes_of_the_reference() -> Result<()> {
        let network = Fcos::new(&tiny(), &Device::Cpu, 1)?;
        let outputs = network.forward(&images(2)?, &Pass::new(Mode::Infer))?;
        // 96 + 24 + 6 + 2 + 1 points
        for (name, columns) in [("head.cls_logits", 2), ("head.bbox_regression", 4), ("head.bbox_ctrness", 1)] {
            assert_eq!(outputs.get(name)?.dims(), [2, 129, columns], "{name}");
        }
        assert_eq!(outputs.maps, [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]);
        let distances: Vec<f32> = outputs.get("head.bbox_regression")?.flatten_all()?.to_vec1()?;
        assert!(distances.iter().all(|&d| d >= 0.0));
        assert!(network.detect(&outputs, &Pass::new(Mode::Infer))?.iter().all(Vec::is_empty));
        Ok(())
    }

    #[test]
    fn parameters_are_named_as_in_torchvision() -> Result<()> {
        let config = FcosConfig { towers: TowerConfig { convs: 4, groups: 4, bias: true }, ..tiny() };
        let network = Fcos::new(&config, &Device::Cpu, 1)?;
        for (name, shape) in [
            ("head.classification_head.conv.9.weight", vec![16, 16, 3, 3]),
            ("head.classification_head.conv.10.bias", vec![16]),
            ("head.classification_head.cls_logits.weight", vec![2, 16, 3, 3]),
            ("head.regression_head.conv.0.bias", vec![16]),
            ("head.regression_head.conv.1.weight", vec![16]),
            ("head.regression_head.bbox_reg.bias", vec![4]),
            ("head.regression_head.bbox_ctrness.weight", vec![1, 16, 3, 3]),
        ] {
            assert_eq!(network.params().get(name).map(|p| p.var.dims().to_vec()), Some(shape), "{name}");
        }
        // ResNet-18 has 20 layers of 5 tensors; 8 layers of 4 in the towers; 8 + 3 other convolutions
        assert_eq!(network.params().all().len(), 100 + 32 + 22);
        Ok(())
    }

    #[test]
    fn a_training_step_reaches_every_part_in_either_family_of_settings() -> Result<()> {
        let paper = FcosConfig {
            center_radius: 0.0,
            distance_code: DistanceCode::PixelExp,
            level_scales: true,
            centerness_on_regression: false,
            box_loss: BoxLoss::Iou,
            centerness_weighted: true,
            score: ScoreRule::Product,
            ..tiny()
        };
        // as wide as it is tall and large enough for a point of each of the first four levels
        let objects = |x: f32, side: f32| Object { bbox: BBox::new(x, 2.0, x + side, 2.0 + side), ..Object::default() };
        let objects = vec![vec![objects(2.0, 12.0), objects(30.0, 28.0), objects(4.0, 60.0)], vec![]];
        for config in [tiny(), paper] {
            let network = Fcos::new(&config, &Device::Cpu, 1)?;
            let bias = "head.regression_head.bbox_reg.bias";
            network.params().set(bias, &[1.0; 4])?;
            let pass = Pass::probed(Mode::Train, 2);
            let outputs = network.forward(&images(2)?, &pass)?;
            let losses = network.losses(&outputs, &objects, &pass)?;
            let names: Vec<&str> = losses.parts.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, ["classification", "bbox_regression", "bbox_ctrness"]);
            let total = losses.total()?;
            assert!(total.to_vec0::<f32>()?.is_finite());
            let gradients = total.backward()?;
            for param in network.params().trainable() {
                assert!(gradients.get(param.var.as_tensor()).is_some(), "{}", param.name);
            }
            network.detect(&outputs, &pass)?;
            let traces = pass.into_traces();
            assert!(traces[0].sampling.iter().any(|s| s.positive));
            assert_eq!(traces[1].sampling.len(), 129);
            assert!(traces.iter().all(|t| t.suppression.is_some() && t.anchors.boxes.len() == 129));
        }
        Ok(())
    }

    #[test]
    fn settings_that_make_no_network_are_errors() {
        let refused = |config: FcosConfig| Fcos::new(&config, &Device::Cpu, 0).is_err();
        assert!(refused(FcosConfig { classes: Vec::new(), ..tiny() }));
        assert!(refused(FcosConfig { range_limits: vec![16.0], ..tiny() }));
        assert!(refused(FcosConfig { finest_level: 1, ..tiny() }));
        assert!(!refused(tiny()));
    }
}
