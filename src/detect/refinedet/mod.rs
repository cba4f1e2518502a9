//! RefineDet: Single-Shot Refinement Neural Network for Object Detection.
//!
//! Zhang et al. (CVPR 2018), <https://arxiv.org/abs/1711.06897>. Anchor refinement module (ARM) on four sources →
//! transfer connection blocks → object detection module (ODM) on the refined anchors. Names follow
//! luuuyi/RefineDet.PyTorch, so its checkpoints load as they are; rules follow the paper and its Caffe code where the
//! two differ, with the other as a setting. Background is class 0 of both heads.

mod cascade;
mod config;
mod connection;
mod decode;
mod loss;
mod trunk;

pub use config::{Extra, ObjectnessFilter, RefinedetConfig};

use super::multibox::{MultiboxHead, anchors, normalised_priors};
use super::{Config, Detector, Losses, Outputs};
use crate::geometry::priors::{PriorSpec, ssd_priors};
use crate::geometry::{BBox, Detection, Object};
use crate::nn::{Init, Params, Pass, Scope};
use candle_core::{Device, Result, Tensor};
use connection::{Connection, Norms};
use trunk::{Adapters, Trunk};

/// Maps of the trunk.
const SOURCES: usize = 4;

/// The network and its settings.
#[derive(Debug)]
pub struct Refinedet {
    config: Config,
    refinedet: RefinedetConfig,
    params: Params,
    trunk: Trunk,
    arm_adapters: Adapters,
    arm: MultiboxHead,
    /// Finest level first.
    connections: Vec<Connection>,
    odm_adapters: Adapters,
    odm: MultiboxHead,
}

impl Refinedet {
    /// # Errors
    /// Settings whose lists do not describe four levels, an input that is no multiple of the coarsest stride, or a
    /// device that cannot hold the network.
    pub fn new(config: &RefinedetConfig, device: &Device, seed: u64) -> Result<Self> {
        let levels = config.priors.levels();
        if levels != SOURCES {
            candle_core::bail!("RefineDet has {SOURCES} sources, but the priors describe {levels} levels");
        }
        check_input(config.input, config.coarsest_stride())?;
        if config.dense && config.resnet.is_some() {
            candle_core::bail!("a dense RefineDet stands on VGG-16, not on a ResNet");
        }
        let params = Params::new(device, seed);
        let root = params.root();
        let trunk = Trunk::new(&root, config)?;
        let channels = Trunk::channels(config);
        let arm_adapters = Adapters::new(&root, "arm_inter", channels, config)?;
        let arm = head(&root, config, ("arm_loc", "arm_conf"), Adapters::channels(channels, config), 2)?;
        let norms = match (config.batch_norm, &config.resnet) {
            (false, _) => Norms::None,
            (true, None) => Norms::Convolutions,
            (true, Some(_)) => Norms::All,
        };
        let mut connections = Vec::with_capacity(SOURCES);
        for (level, &input) in channels.iter().enumerate() {
            let top = level + 1 == SOURCES;
            connections.push(Connection::new(&root, level, (input, config.connection), top, norms)?);
        }
        let connected = [config.connection; SOURCES];
        let odm_adapters = Adapters::new(&root, "odm_inter", connected, config)?;
        let outputs = Adapters::channels(connected, config);
        let odm = head(&root, config, ("odm_loc", "odm_conf"), outputs, config.logits())?;
        let tagged = Config::Refinedet(config.clone());
        let refinedet = config.clone();
        Ok(Self { config: tagged, refinedet, params, trunk, arm_adapters, arm, connections, odm_adapters, odm })
    }

    /// The maps of the second stage, finest first; made from the coarsest down.
    fn connected(&self, sources: &[Tensor], pass: &Pass) -> Result<Vec<Tensor>> {
        let mut maps: Vec<Tensor> = Vec::with_capacity(sources.len());
        for (connection, source) in self.connections.iter().zip(sources).rev() {
            let map = connection.forward(source, maps.last(), pass)?;
            maps.push(map);
        }
        maps.reverse();
        Ok(maps)
    }

    /// Priors for heads of these sizes, input pixels.
    fn priors(&self, outputs: &Outputs) -> Vec<BBox> {
        // the clip rule is about the input at hand, which multi-scale testing changes
        let image = (outputs.input.1 as f32, outputs.input.0 as f32);
        ssd_priors(&PriorSpec { image, ..self.refinedet.priors.clone() }, &outputs.maps)
    }
}

fn head(
    root: &Scope,
    config: &RefinedetConfig,
    names: (&str, &str),
    channels: [usize; SOURCES],
    classes: usize,
) -> Result<MultiboxHead> {
    let per_level = channels.iter().enumerate().map(|(level, &c)| (c, config.priors.per_cell(level)));
    let levels: Vec<(usize, usize)> = per_level.collect();
    MultiboxHead::new(root, names, &levels, classes, Init::XavierUniform)
}

/// Every map but the coarsest has to be exactly twice the next one.
fn check_input((height, width): (usize, usize), stride: usize) -> Result<()> {
    let fits = |side: usize| side > 0 && side.is_multiple_of(stride);
    if !fits(height) || !fits(width) {
        candle_core::bail!("RefineDet takes inputs whose sides are multiples of {stride} pixels, not {width}×{height}");
    }
    Ok(())
}

impl Detector for Refinedet {
    fn config(&self) -> &Config {
        &self.config
    }

    fn params(&self) -> &Params {
        &self.params
    }

    fn forward(&self, images: &Tensor, pass: &Pass) -> Result<Outputs> {
        let (count, _, height, width) = images.dims4()?;
        check_input((height, width), self.refinedet.coarsest_stride())?;
        let sources = pass.stage("backbone", || self.trunk.forward(images, pass))?;
        let (arm_boxes, arm_logits) =
            pass.stage("head", || self.arm.forward(&self.arm_adapters.forward(&sources, pass)?, pass))?;
        let connected = pass.stage("neck", || self.connected(&sources, pass))?;
        let (odm_boxes, odm_logits) =
            pass.stage("head", || self.odm.forward(&self.odm_adapters.forward(&connected, pass)?, pass))?;
        let mut tensors = Vec::new();
        let mut maps = Vec::new();
        for (level, (source, map)) in sources.into_iter().zip(connected).enumerate() {
            let (_, _, rows, columns) = map.dims4()?;
            maps.push((rows, columns));
            for (name, tensor) in [(format!("features.{level}"), source), (format!("tcb.{level}"), map)] {
                pass.tap(&name, level, &tensor)?;
                tensors.push((name, tensor));
            }
        }
        tensors.push(("arm_loc".into(), arm_boxes));
        tensors.push(("arm_conf_logits".into(), arm_logits));
        tensors.push(("odm_loc".into(), odm_boxes));
        tensors.push(("odm_conf_logits".into(), odm_logits));
        let mut outputs = Outputs { tensors, maps, input: (height, width) };
        let priors = self.priors(&outputs);
        let normalised = normalised_priors(&priors, outputs.input, self.params.device())?;
        outputs.tensors.push(("priors_cxcywh".into(), normalised));
        if pass.is_probed() {
            let anchors = anchors(&self.refinedet.priors, &outputs.maps, priors);
            for image in 0..count {
                pass.trace(image, |t| t.anchors.clone_from(&anchors));
            }
        }
        Ok(outputs)
    }

    fn losses(&self, outputs: &Outputs, objects: &[Vec<Object>], pass: &Pass) -> Result<Losses> {
        loss::losses(&self.refinedet, &self.priors(outputs), outputs, objects, pass)
    }

    fn detect(&self, outputs: &Outputs, pass: &Pass) -> Result<Vec<Vec<Detection>>> {
        decode::detect(&self.refinedet, &self.priors(outputs), outputs, pass)
    }

    fn layouts(&self) -> &'static [&'static str] {
        &["luuuyi"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::names::names_for;
    use crate::nn::Mode;
    use crate::nn::backbone::resnet::{Depth, ResNetConfig};
    use crate::nn::backbone::vgg::Widths;
    use crate::trace::Rule;

    fn tiny(norm: bool) -> RefinedetConfig {
        RefinedetConfig {
            input: (128, 64),
            batch_norm: norm,
            connection: 4,
            extra: Extra { reduce: 4, output: 6 },
            dense: false,
            widths: Widths { stages: [3, 4, 4, 5, 6], fc: 7 },
            priors: PriorSpec { min_sizes: vec![16.0, 36.0, 76.0, 160.0], ..RefinedetConfig::refinedet320(&[]).priors },
            ..RefinedetConfig::nano(&["a".to_string(), "b".to_string()])
        }
    }

    fn images(count: usize, height: usize, width: usize) -> Result<Tensor> {
        let pixels: Vec<f32> = (0..count * 3 * height * width).map(|i| ((i * 37 % 101) as f32 - 50.0) / 25.0).collect();
        Tensor::from_vec(pixels, (count, 3, height, width), &Device::Cpu)
    }

    fn object(x: f32, y: f32, side: f32, class: u32) -> Object {
        Object { bbox: BBox::new(x, y, x + side, y + side), class, ..Object::default() }
    }

    /// 16 × 8, 8 × 4, 4 × 2 and 2 × 1 cells of three anchors.
    const ANCHORS: usize = 3 * (128 + 32 + 8 + 2);

    #[test]
    fn the_published_network_has_the_published_size_and_names() -> Result<()> {
        // the layer table of the published network with 21 classes, at an eighth of the width
        let eighth = RefinedetConfig {
            connection: 32,
            extra: Extra { reduce: 32, output: 64 },
            widths: Widths { stages: [8, 16, 32, 64, 64], fc: 128 },
            ..RefinedetConfig::refinedet320(&names_for(20))
        };
        let detector = Refinedet::new(&eighth, &Device::Cpu, 1)?;
        let names: Vec<String> = detector.params().all().into_iter().map(|p| p.name).collect();
        // 15 + 2 + 8 + 8 + 8 + 3 + 4 layers with weight and bias, and two scales
        assert_eq!(names.len(), 2 * 48 + 2);
        for name in ["vgg.33.weight", "conv5_3_L2Norm.weight", "extras.1.bias", "arm_conf.3.weight", "odm_loc.0.bias"] {
            assert!(names.iter().any(|n| n == name), "{name}");
        }
        for (name, shape) in [
            ("arm_loc.2.weight", vec![12, 128, 3, 3]),
            ("arm_conf.0.weight", vec![6, 64, 3, 3]),
            ("odm_conf.3.weight", vec![63, 32, 3, 3]),
            ("tcb0.6.weight", vec![32, 128, 3, 3]),
            ("tcb1.2.weight", vec![32, 32, 2, 2]),
            ("tcb2.10.weight", vec![32, 32, 3, 3]),
        ] {
            assert_eq!(detector.params().get(name).map(|p| p.var.dims().to_vec()), Some(shape), "{name}");
        }
        Ok(())
    }

    #[test]
    fn outputs_have_a_row_for_each_anchor() -> Result<()> {
        for norm in [false, true] {
            let detector = Refinedet::new(&tiny(norm), &Device::Cpu, 1)?;
            let outputs = detector.forward(&images(2, 128, 64)?, &Pass::new(Mode::Infer))?;
            assert_eq!(outputs.maps, [(16, 8), (8, 4), (4, 2), (2, 1)]);
            assert_eq!(outputs.get("arm_loc")?.dims(), [2, ANCHORS, 4]);
            assert_eq!(outputs.get("arm_conf_logits")?.dims(), [2, ANCHORS, 2]);
            assert_eq!(outputs.get("odm_loc")?.dims(), [2, ANCHORS, 4]);
            assert_eq!(outputs.get("odm_conf_logits")?.dims(), [2, ANCHORS, 3]);
            assert_eq!(outputs.get("priors_cxcywh")?.dims(), [ANCHORS, 4]);
            assert_eq!(outputs.get("tcb.3")?.dims(), [2, 4, 2, 1]);
            // another size that the network takes, and two that it does not
            let other = detector.forward(&images(1, 64, 192)?, &Pass::new(Mode::Infer))?;
            assert_eq!(other.maps[0], (8, 24));
            assert!(detector.forward(&images(1, 96, 64)?, &Pass::new(Mode::Infer)).is_err());
        }
        assert!(Refinedet::new(&RefinedetConfig { input: (240, 240), ..tiny(true) }, &Device::Cpu, 1).is_err());
        Ok(())
    }

    #[test]
    fn losses_are_finite_with_objects_and_without_and_reach_every_parameter() -> Result<()> {
        let detector = Refinedet::new(&tiny(true), &Device::Cpu, 1)?;
        for objects in [
            vec![vec![object(10.0, 20.0, 30.0, 1), object(0.0, 0.0, 50.0, 0)], Vec::new()],
            vec![Vec::new(), Vec::new()],
        ] {
            let empty = objects.iter().all(Vec::is_empty);
            let pass = Pass::new(Mode::Train);
            let outputs = detector.forward(&images(2, 128, 64)?, &pass)?;
            let losses = detector.losses(&outputs, &objects, &pass)?;
            let names: Vec<&str> = losses.parts.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, ["arm_loc", "arm_conf", "odm_loc", "odm_conf"]);
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
        }
        let outputs = detector.forward(&images(1, 128, 64)?, &Pass::new(Mode::Infer))?;
        assert!(detector.losses(&outputs, &[], &Pass::new(Mode::Infer)).is_err());
        Ok(())
    }

    #[test]
    fn a_dense_network_takes_multiples_of_32() -> Result<()> {
        let nano = RefinedetConfig { input: (96, 64), ..RefinedetConfig::nano(&["a".to_string()]) };
        let detector = Refinedet::new(&nano, &Device::Cpu, 1)?;
        let outputs = detector.forward(&images(1, 96, 64)?, &Pass::new(Mode::Infer))?;
        assert_eq!(outputs.maps, [(24, 16), (12, 8), (6, 4), (3, 2)]);
        assert_eq!(outputs.get("odm_loc")?.dims(), [1, 4 * (384 + 96 + 24 + 6), 4]);
        let resnet = RefinedetConfig::refinedet320_r101(&["a".to_string()]).resnet;
        assert!(Refinedet::new(&RefinedetConfig { resnet, ..nano }, &Device::Cpu, 1).is_err());
        Ok(())
    }

    #[test]
    fn the_residual_network_normalises_its_connections_and_adapts_its_heads() -> Result<()> {
        let published = RefinedetConfig::refinedet320_r101(&["a".to_string(), "b".to_string()]);
        let resnet = published.resnet.map(|resnet| ResNetConfig { depth: Depth::R50, width: 4, ..resnet });
        let config = RefinedetConfig { input: (128, 64), connection: 4, resnet, ..published };
        let detector = Refinedet::new(&config, &Device::Cpu, 1)?;
        let shape = |name: &str| detector.params().get(name).map(|p| p.var.dims().to_vec());
        for (name, expected) in [
            ("base.layer4.2.conv3.weight", vec![128, 32, 1, 1]),
            ("extras.0.downsample.0.weight", vec![32, 128, 1, 1]),
            ("arm_inter.3.conv1.weight", vec![16, 32, 1, 1]),
            ("odm_inter.0.conv3.weight", vec![64, 16, 1, 1]),
            ("arm_conf.0.weight", vec![6, 64, 3, 3]),
            ("odm_loc.3.weight", vec![12, 64, 3, 3]),
            ("tcb0.9.norm.running_var", vec![4]),
            ("tcb1.0.weight", vec![4, 4, 2, 2]),
            ("tcb1.0.norm.weight", vec![4]),
        ] {
            assert_eq!(shape(name), Some(expected), "{name}");
        }
        assert!(shape("tcb1.0.bias").is_none() && shape("vgg.0.weight").is_none());
        let pass = Pass::new(Mode::Train);
        let outputs = detector.forward(&images(1, 128, 64)?, &pass)?;
        assert_eq!(outputs.maps, [(16, 8), (8, 4), (4, 2), (2, 1)]);
        let losses = detector.losses(&outputs, &[vec![object(10.0, 20.0, 30.0, 1)]], &pass)?;
        let gradients = losses.total()?.backward()?;
        for name in
            ["arm_inter.0.conv1.weight", "odm_inter.3.conv2.weight", "tcb1.2.weight", "base.layer3.0.conv1.weight"]
        {
            let param = detector.params().get(name).expect("a parameter");
            assert!(gradients.get(param.var.as_tensor()).is_some(), "{name}");
        }
        Ok(())
    }

    #[test]
    fn the_trace_tells_the_whole_story() -> Result<()> {
        let mut config = tiny(false);
        config.score_threshold = 0.0;
        config.objectness_threshold = 0.5;
        let detector = Refinedet::new(&config, &Device::Cpu, 1)?;
        let pass = Pass::probed(Mode::Infer, 1);
        let outputs = detector.forward(&images(1, 128, 64)?, &pass)?;
        detector.losses(&outputs, &[vec![object(10.0, 20.0, 30.0, 1)]], &pass)?;
        let found = detector.detect(&outputs, &pass)?;
        assert_eq!(found.len(), 1);
        assert!(found[0].windows(2).all(|w| w[0].score >= w[1].score));
        let trace = pass.into_traces().remove(0);
        assert_eq!((trace.anchors.boxes.len(), trace.anchors.levels.len()), (ANCHORS, 4));
        let assignment = trace.assignment.expect("an assignment");
        assert_eq!(assignment.rule.len(), ANCHORS);
        // a threshold of one half filters what the untrained first stage leans towards calling background
        let [arm, odm] = &trace.proposals[..] else { panic!("{} stages", trace.proposals.len()) };
        for (rule, &objectness) in assignment.rule.iter().zip(&arm.scores) {
            assert!(*rule != Rule::Filtered || objectness < 0.5);
            assert!(*rule != Rule::Background || objectness >= 0.5);
        }
        assert_eq!((arm.boxes.len(), odm.boxes.len()), (ANCHORS, ANCHORS));
        assert!(trace.losses.len() == 4 && trace.losses.iter().all(|part| part.per_anchor.len() == ANCHORS));
        assert!(trace.sampling.iter().any(|s| s.positive));
        let names: Vec<&str> = trace.maps.iter().map(|m| m.name.as_str()).collect();
        assert!(names.contains(&"conv5") && names.contains(&"features.0") && names.contains(&"tcb.3"), "{names:?}");
        assert!(trace.suppression.is_some());
        Ok(())
    }

    #[test]
    fn passes_of_all_modes_agree_without_batch_norm() -> Result<()> {
        let detector = Refinedet::new(&tiny(false), &Device::Cpu, 1)?;
        let x = images(1, 128, 64)?;
        let values = |mode: Mode| -> Result<Vec<f32>> {
            detector.forward(&x, &Pass::new(mode))?.get("odm_conf_logits")?.detach().flatten_all()?.to_vec1()
        };
        // rounding of another convolution kernel at most
        for (a, b) in values(Mode::Infer)?.iter().zip(values(Mode::Train)?) {
            assert!((a - b).abs() <= 1e-4 * (1.0 + b.abs()), "{a} and {b}");
        }
        Ok(())
    }
}
