//! M2Det: a single-shot detector on a multi-level feature pyramid.
//!
//! Zhao et al., "M2Det: A Single-Shot Object Detector based on Multi-Level Feature Pyramid Network" (AAAI 2019),
//! <https://arxiv.org/abs/1811.04533>. VGG-16 or ResNet-101 → base feature (FFMv1) → U-shape modules in a row (TUM, FFMv2) →
//! aggregation by scale (SFAM) → multibox heads. Names, layers and settings follow qijiezhao/M2Det, so its checkpoints
//! load by name; what the paper has and its weights lack is a setting. Background is class 0 of the head.

mod basic;
mod config;
mod decode;
mod ffm;
mod sfam;
mod soft;
mod trunk;
mod tum;

pub use config::M2detConfig;

use super::multibox::{MultiboxHead, anchors, normalised_priors, prior_losses};
use super::{Config, Detector, Losses, Outputs};
use crate::geometry::coder::BoxCoder;
use crate::geometry::priors::{PriorSpec, ssd_priors};
use crate::geometry::{BBox, Detection, Object};
use crate::nn::neck::map_norm::MapNorm;
use crate::nn::{Init, Params, Pass};
use crate::ops::multibox::LossSettings;
use candle_core::{Device, Result, Tensor};
use ffm::{BaseFusion, Leach, fuse};
use sfam::{Attention, aggregate};
use trunk::Trunk;
use tum::Tum;

/// SSD's variances without a limit on the sides.
const CODER: BoxCoder = BoxCoder { max_log: None, ..BoxCoder::SSD };

/// The network and its settings.
#[derive(Debug)]
pub struct M2det {
    config: Config,
    m2det: M2detConfig,
    params: Params,
    backbone: Trunk,
    fusion: BaseFusion,
    leach: Leach,
    modules: Vec<Tum>,
    attention: Option<Attention>,
    /// On the finest aggregated map alone.
    norm: MapNorm,
    head: MultiboxHead,
}

/// What stands between backbone and head.
struct Pyramid {
    base: Tensor,
    /// Maps of each module, coarsest first.
    modules: Vec<Vec<Tensor>>,
    /// What the head reads, finest first.
    sources: Vec<Tensor>,
}

impl M2det {
    /// # Errors
    /// Settings whose numbers do not fit together, or a device that cannot hold the network.
    pub fn new(config: &M2detConfig, device: &Device, seed: u64) -> Result<Self> {
        if config.priors.levels() != config.scales || config.levels == 0 || config.planes < 2 {
            candle_core::bail!(
                "M2Det with {} modules of {} scales and {} planes does not fit priors of {} levels",
                config.levels,
                config.scales,
                config.planes,
                config.priors.levels()
            );
        }
        let params = Params::new(device, seed);
        let root = params.root();
        let leached = config.planes / 2;
        let mut modules = Vec::with_capacity(config.levels);
        for level in 0..config.levels {
            let scope = root.enter(format!("unet{}", level + 1));
            let input = if level == 0 { leached } else { leached + config.planes };
            modules.push(Tum::new(&scope, input, config.planes, config.scales, config.smooth)?);
        }
        let backbone = Trunk::new(&root, config)?;
        let (shallow, deep) = Trunk::channels(config);
        let fusion = BaseFusion::new(&root, (shallow, config.shallow), (deep, config.deep))?;
        let base = config.shallow + config.deep;
        let leach = Leach::new(&root, (base, leached), config.levels, config.separate_leach)?;
        let channels = config.levels * config.planes;
        let attention = if config.sfam {
            let scope = root.enter("sfam_module");
            Some(Attention::new(&scope, channels, config.sfam_reduction, config.scales, config.separate_sfam)?)
        } else {
            None
        };
        let norm = MapNorm::new(&root.enter("Norm"), channels)?;
        let levels: Vec<(usize, usize)> = (0..config.scales).map(|l| (channels, config.priors.per_cell(l))).collect();
        // PyTorch's default for a convolution, which the reference leaves in force: uniform in ±1 / √(fan in)
        let init = Init::Normal((3.0 * 9.0 * channels as f32).sqrt().recip());
        let head = MultiboxHead::new(&root, ("loc", "conf"), &levels, config.logits(), init)?;
        let tagged = Config::M2det(config.clone());
        let m2det = config.clone();
        Ok(Self { config: tagged, m2det, params, backbone, fusion, leach, modules, attention, norm, head })
    }

    fn pyramid(&self, (shallow, deep): &(Tensor, Tensor), pass: &Pass) -> Result<Pyramid> {
        let base = self.fusion.forward(shallow, deep, pass)?;
        let leached = self.leach.forward(&base, pass)?;
        let mut modules: Vec<Vec<Tensor>> = Vec::with_capacity(self.modules.len());
        for (module, leached) in self.modules.iter().zip(&leached) {
            let previous = modules.last().and_then(|maps| maps.last());
            let maps = module.forward(&fuse(leached, previous)?, pass)?;
            modules.push(maps);
        }
        let mut sources = aggregate(&modules)?;
        if let Some(attention) = &self.attention {
            sources = attention.forward(&sources, pass)?;
        }
        if let Some(finest) = sources.first_mut() {
            *finest = self.norm.forward(finest, pass)?;
        }
        Ok(Pyramid { base, modules, sources })
    }

    /// The published settings at the configured size. At another, sides stay the same pixels and steps become the
    /// distance of cells.
    fn prior_spec(&self, outputs: &Outputs) -> Result<PriorSpec> {
        let own = &self.m2det.priors;
        let (height, width) = outputs.input;
        if outputs.input == self.m2det.input {
            return Ok(own.clone());
        }
        if height != width {
            candle_core::bail!("M2Det has priors for square inputs, not for {width}×{height}");
        }
        let side = width as f32;
        let steps: Vec<f32> = outputs.maps.iter().map(|&(_, columns)| side / columns.max(1) as f32).collect();
        Ok(PriorSpec { image: (side, side), steps, ..own.clone() })
    }

    /// Priors for heads of these sizes, input pixels.
    fn priors(&self, outputs: &Outputs) -> Result<Vec<BBox>> {
        Ok(ssd_priors(&self.prior_spec(outputs)?, &outputs.maps))
    }
}

impl Detector for M2det {
    fn config(&self) -> &Config {
        &self.config
    }

    fn params(&self) -> &Params {
        &self.params
    }

    fn forward(&self, images: &Tensor, pass: &Pass) -> Result<Outputs> {
        let (count, _, height, width) = images.dims4()?;
        let maps = pass.stage("backbone", || self.backbone.forward(images, pass))?;
        let pyramid = pass.stage("neck", || self.pyramid(&maps, pass))?;
        let (boxes, logits) = pass.stage("head", || self.head.forward(&pyramid.sources, pass))?;
        pass.tap("base", 0, &pyramid.base)?;
        let mut tensors: Vec<(String, Tensor)> = vec![("loc".into(), boxes), ("conf_logits".into(), logits)];
        let mut maps = Vec::new();
        for (level, source) in pyramid.sources.into_iter().enumerate() {
            let (_, _, rows, columns) = source.dims4()?;
            maps.push((rows, columns));
            let name = format!("features.{level}");
            pass.tap(&name, level, &source)?;
            tensors.push((name, source));
        }
        for (module, scales) in pyramid.modules.into_iter().enumerate() {
            let finest = scales.len();
            for (scale, map) in scales.into_iter().enumerate() {
                let name = format!("tum{}.scale{scale}", module + 1);
                pass.tap(&name, finest - 1 - scale, &map)?;
                tensors.push((name, map));
            }
        }
        let mut outputs = Outputs { tensors, maps, input: (height, width) };
        let spec = self.prior_spec(&outputs)?;
        let priors = ssd_priors(&spec, &outputs.maps);
        let normalised = normalised_priors(&priors, outputs.input, self.params.device())?;
        outputs.tensors.push(("priors_cxcywh".into(), normalised));
        if pass.is_probed() {
            let anchors = anchors(&spec, &outputs.maps, priors);
            for image in 0..count {
                pass.trace(image, |t| t.anchors.clone_from(&anchors));
            }
        }
        Ok(outputs)
    }

    fn losses(&self, outputs: &Outputs, objects: &[Vec<Object>], pass: &Pass) -> Result<Losses> {
        let settings = LossSettings {
            negative_ratio: self.m2det.negative_ratio,
            smooth_l1_beta: self.m2det.smooth_l1_beta,
            localization_weight: self.m2det.localization_weight,
        };
        let priors = self.priors(outputs)?;
        let answers = [("loc", "loc"), ("conf", "conf_logits")];
        prior_losses((&priors, self.m2det.positive_threshold), outputs, answers, objects, &settings, pass)
    }

    fn detect(&self, outputs: &Outputs, pass: &Pass) -> Result<Vec<Vec<Detection>>> {
        decode::detect(&self.m2det, &self.priors(outputs)?, outputs, pass)
    }

    fn layouts(&self) -> &'static [&'static str] {
        &["qijiezhao"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::priors::PriorClip;
    use crate::nn::Mode;
    use crate::nn::backbone::vgg::Widths;

    /// Two modules of three scales: 8 × 8, 4 × 4 and 2 × 2 cells at 64 px.
    fn tiny() -> M2detConfig {
        M2detConfig {
            input: (64, 64),
            dense: false,
            levels: 2,
            scales: 3,
            planes: 4,
            shallow: 3,
            deep: 4,
            widths: Widths { stages: [3, 3, 4, 4, 4], fc: 5 },
            priors: PriorSpec {
                image: (64.0, 64.0),
                steps: vec![8.0, 16.0, 32.0],
                min_sizes: vec![10.0, 20.0, 40.0],
                max_sizes: vec![20.0, 40.0, 64.0],
                aspect_ratios: vec![vec![2.0]; 3],
                clip: PriorClip::CornerAndSize,
            },
            ..M2detConfig::nano(&["a".to_string(), "b".to_string()])
        }
    }

    const PRIORS: usize = 4 * (64 + 16 + 4);

    fn images(count: usize, side: usize) -> Result<Tensor> {
        let pixels: Vec<f32> = (0..count * 3 * side * side).map(|i| ((i * 37 % 101) as f32 - 50.0) / 25.0).collect();
        Tensor::from_vec(pixels, (count, 3, side, side), &Device::Cpu)
    }

    fn object(x: f32, y: f32, side: f32, class: u32) -> Object {
        Object { bbox: BBox::new(x, y, x + side, y + side), class, ..Object::default() }
    }

    #[test]
    fn names_and_shapes_are_the_references() -> Result<()> {
        // the published layer table at an eighth of the width, 81 classes
        let eighth = M2detConfig {
            planes: 32,
            shallow: 32,
            deep: 64,
            widths: Widths { stages: [8, 16, 32, 64, 64], fc: 128 },
            ..M2detConfig::m2det320(&crate::detect::names::names_for(80))
        };
        let detector = M2det::new(&eighth, &Device::Cpu, 1)?;
        // 30 of the backbone, 8 · 16 + 3 units of five, Norm's four, 24 of the head: the reference's 748 without the
        // copies of its shared leach
        assert_eq!(detector.params().all().len(), 30 + (8 * 16 + 3) * 5 + 4 + 24);
        assert_eq!(detector.params().all().len(), 748 - 7 * 5);
        for (name, shape) in [
            ("unet1.layers.0.conv.weight", vec![32, 16, 3, 3]),
            ("unet8.latlayer.4.conv.weight", vec![32, 48, 3, 3]),
            ("unet3.toplayer.0.bn.running_var", vec![32]),
            ("base.31.weight", vec![128, 64, 3, 3]),
            ("reduce.conv.weight", vec![32, 64, 3, 3]),
            ("up_reduce.conv.weight", vec![64, 128, 1, 1]),
            ("leach.0.conv.weight", vec![16, 96, 1, 1]),
            ("Norm.running_mean", vec![256]),
            ("loc.5.weight", vec![24, 256, 3, 3]),
            ("conf.0.bias", vec![486]),
        ] {
            assert_eq!(detector.params().get(name).map(|p| p.var.dims().to_vec()), Some(shape), "{name}");
        }
        Ok(())
    }

    #[test]
    fn outputs_have_a_row_for_each_prior_and_a_map_for_each_module_and_scale() -> Result<()> {
        for (sfam, separate) in [(false, false), (true, true)] {
            let config = M2detConfig { sfam, separate_sfam: separate, separate_leach: separate, ..tiny() };
            let detector = M2det::new(&config, &Device::Cpu, 1)?;
            let pass = Pass::probed(Mode::Infer, 2);
            let outputs = detector.forward(&images(2, 64)?, &pass)?;
            assert_eq!(outputs.maps, [(8, 8), (4, 4), (2, 2)]);
            assert_eq!(outputs.get("loc")?.dims(), [2, PRIORS, 4]);
            assert_eq!(outputs.get("conf_logits")?.dims(), [2, PRIORS, 3]);
            assert_eq!(outputs.get("priors_cxcywh")?.dims(), [PRIORS, 4]);
            assert_eq!(outputs.get("tum1.scale0")?.dims(), [2, 4, 2, 2]);
            assert_eq!(outputs.get("tum2.scale2")?.dims(), [2, 4, 8, 8]);
            assert_eq!(outputs.get("features.0")?.dims(), [2, 8, 8, 8]);
            let trace = pass.into_traces().remove(1);
            let tapped = |name: &str| trace.maps.iter().find(|m| m.name == name).map(|m| (m.level, m.height));
            assert_eq!(tapped("tum2.scale0"), Some((2, 2)));
            assert_eq!(tapped("tum2.scale2"), Some((0, 8)));
            assert_eq!(tapped("sfam.attention.2").is_some(), sfam);
            assert_eq!((trace.anchors.boxes.len(), trace.anchors.levels.len()), (PRIORS, 3));
        }
        Ok(())
    }

    #[test]
    fn losses_are_finite_with_objects_and_without_and_reach_every_parameter() -> Result<()> {
        let detector = M2det::new(&M2detConfig { sfam: true, ..tiny() }, &Device::Cpu, 1)?;
        for objects in [
            vec![vec![object(10.0, 12.0, 20.0, 1), object(0.0, 0.0, 50.0, 0)], Vec::new()],
            vec![Vec::new(), Vec::new()],
            vec![vec![object(30.0, 30.0, 12.0, 0)]],
        ] {
            let empty = objects.iter().all(Vec::is_empty);
            let pass = Pass::new(Mode::Train);
            let outputs = detector.forward(&images(objects.len(), 64)?, &pass)?;
            let losses = detector.losses(&outputs, &objects, &pass)?;
            for (name, value) in &losses.parts {
                let value = value.to_vec0::<f32>()?;
                assert!(value.is_finite() && (value == 0.0) == empty, "{name} is {value}");
            }
            let gradients = losses.total()?.backward()?;
            for param in detector.params().trainable() {
                let gradient = gradients.get(param.var.as_tensor());
                let sum = gradient.map(|g| g.sqr()?.sum_all()?.to_vec0::<f32>()).transpose()?;
                assert!(sum.is_some_and(f32::is_finite), "{}: {sum:?}", param.name);
            }
            pass.commit()?;
        }
        Ok(())
    }

    #[test]
    fn the_trace_holds_assignment_losses_and_suppression() -> Result<()> {
        let config = M2detConfig { score_threshold: 0.0, ..tiny() };
        let detector = M2det::new(&config, &Device::Cpu, 1)?;
        let pass = Pass::probed(Mode::Infer, 1);
        let outputs = detector.forward(&images(1, 64)?, &pass)?;
        detector.losses(&outputs, &[vec![object(10.0, 12.0, 20.0, 1)]], &pass)?;
        let found = detector.detect(&outputs, &pass)?;
        assert!(!found[0].is_empty() && found[0].len() <= 100);
        assert!(found[0].windows(2).all(|w| w[0].score >= w[1].score));
        let trace = pass.into_traces().remove(0);
        let names: Vec<&str> = trace.losses.iter().map(|part| part.name.as_str()).collect();
        assert_eq!(names, ["loc", "conf"]);
        assert!(trace.losses.iter().all(|part| part.per_anchor.len() == PRIORS));
        assert!(trace.assignment.is_some_and(|a| a.rule.len() == PRIORS));
        let record = trace.suppression.expect("a record");
        assert_eq!(record.kept.len(), found[0].len());
        Ok(())
    }

    #[test]
    fn other_square_sizes_get_priors_in_pixels_and_oblong_ones_are_refused() -> Result<()> {
        let detector = M2det::new(&tiny(), &Device::Cpu, 1)?;
        let pass = Pass::probed(Mode::Infer, 1);
        let outputs = detector.forward(&images(1, 96)?, &pass)?;
        assert_eq!(outputs.maps, [(12, 12), (6, 6), (4, 4)]);
        let anchors = pass.into_traces().remove(0).anchors;
        assert_eq!(anchors.levels.iter().map(|l| l.stride).collect::<Vec<_>>(), [8.0, 16.0, 24.0]);
        // the first prior is still 10 px wide
        assert!((anchors.boxes[0].width() - 10.0).abs() < 1e-4);
        let oblong = Tensor::zeros((1, 3, 64, 96), candle_core::DType::F32, &Device::Cpu)?;
        assert!(detector.forward(&oblong, &Pass::new(Mode::Infer)).is_err());
        assert!(M2det::new(&M2detConfig { scales: 4, ..tiny() }, &Device::Cpu, 1).is_err());
        Ok(())
    }
}
