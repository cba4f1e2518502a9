//! Networks from darknet cfg files: YOLOv3, YOLOv3-tiny, YOLOv3-SPP, and any other of the same sections.
//!
//! Redmon & Farhadi, "YOLOv3: An Incremental Improvement" (2018). Layers, padding, decoding and the order of weights
//! follow pjreddie/darknet, and AlexeyAB/darknet for what came later. The detection layer is shared with
//! [`super::yolov3`].

pub(in crate::detect) mod assign;
pub mod cfg;
pub(in crate::detect) mod config;
pub(in crate::detect) mod decode;
pub(in crate::detect) mod head;
pub mod layers;
pub(in crate::detect) mod loss;
mod network;
pub mod objective;
mod published;
mod sections;
pub mod weights;

pub use cfg::CfgError;
pub use config::DarknetConfig;
pub use objective::{Assigner, Coordinates, Normalizer, Objective, Objectness, Offsets};

use super::suppress::Limits;
use super::{Config, Detector, Losses, Outputs};
use crate::geometry::{Detection, Object};
use crate::nn::{Params, Pass};
use candle_core::{Device, Result, Tensor};
use head::{Head, Level};
use network::Network;

/// What the sides of an input are multiples of: five halvings.
pub(in crate::detect) const STRIDE: usize = 32;

/// The network and its settings.
#[derive(Debug)]
pub struct Darknet {
    config: Config,
    darknet: DarknetConfig,
    params: Params,
    network: Network,
    head: Head,
}

/// Fails unless both sides of an input are multiples of [`STRIDE`].
pub(in crate::detect) fn check_input((height, width): (usize, usize)) -> Result<()> {
    if height == 0 || width == 0 || !height.is_multiple_of(STRIDE) || !width.is_multiple_of(STRIDE) {
        candle_core::bail!("an input of {width}×{height} pixels: both sides need to be multiples of {STRIDE}");
    }
    Ok(())
}

impl Darknet {
    /// # Errors
    /// A cfg that makes no network at this size, names for another number of classes, or a device that cannot hold it.
    pub fn new(config: &DarknetConfig, device: &Device, seed: u64) -> Result<Self> {
        check_input(config.input())?;
        let sections = cfg::parse(&config.cfg).map_err(candle_core::Error::wrap)?;
        let plan = layers::plan(&sections, config.input()).map_err(candle_core::Error::wrap)?;
        let levels: Vec<Level> = plan
            .yolos()
            .enumerate()
            .map(|(index, yolo)| Level {
                output: format!("yolo{index}.raw"),
                priors: yolo.anchors.clone(),
                mask: yolo.mask.clone(),
                scale_xy: yolo.scale_xy,
            })
            .collect();
        let classes = plan.yolos().next().map_or(0, |yolo| yolo.classes);
        if classes != config.classes.len() {
            candle_core::bail!("the cfg has {classes} classes, and there are {} names", config.classes.len());
        }
        let head = Head { levels, classes, offsets: config.offsets };
        let params = Params::new(device, seed);
        let network = Network::new(&params, &plan, &head, config.norm_epsilon)?;
        Ok(Self { config: Config::Darknet(config.clone()), darknet: config.clone(), params, network, head })
    }
}

impl Detector for Darknet {
    fn config(&self) -> &Config {
        &self.config
    }

    fn params(&self) -> &Params {
        &self.params
    }

    fn forward(&self, images: &Tensor, pass: &Pass) -> Result<Outputs> {
        let (count, _, height, width) = images.dims4()?;
        check_input((height, width))?;
        let raw = pass.stage("network", || self.network.forward(images, pass))?;
        let mut outputs = Outputs { tensors: Vec::new(), maps: Vec::new(), input: (height, width) };
        for (level, map) in self.head.levels.iter().zip(raw) {
            let (_, _, rows, columns) = map.dims4()?;
            outputs.maps.push((rows, columns));
            outputs.tensors.push((level.output.clone(), map));
        }
        if pass.is_probed() {
            let anchors = self.head.anchors(&outputs);
            for image in 0..count {
                pass.trace(image, |t| t.anchors.clone_from(&anchors));
            }
        }
        Ok(outputs)
    }

    fn losses(&self, outputs: &Outputs, objects: &[Vec<Object>], pass: &Pass) -> Result<Losses> {
        loss::losses(&self.head, &self.darknet.objective, outputs, objects, pass)
    }

    fn detect(&self, outputs: &Outputs, pass: &Pass) -> Result<Vec<Vec<Detection>>> {
        let limits = Limits {
            score_threshold: self.darknet.score_threshold,
            top_k_per_class: self.darknet.top_k,
            nms_threshold: self.darknet.nms_threshold,
            max_detections: self.darknet.max_detections,
        };
        decode::detect(&self.head, &limits, outputs, pass)
    }

    fn layouts(&self) -> &'static [&'static str] {
        &["darknet"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::BBox;
    use crate::nn::Mode;
    use crate::random::Random;

    /// Two levels, at strides 32 and 16, of one network, as the published ones are wired.
    const CFG: &str = "[net]\nwidth=64\nheight=64\n\
        [convolutional]\nbatch_normalize=1\nfilters=4\nsize=3\nstride=2\npad=1\nactivation=leaky\n\
        [maxpool]\nsize=2\nstride=2\n\
        [maxpool]\nsize=2\nstride=2\n\
        [convolutional]\nbatch_normalize=1\nfilters=8\nsize=3\nstride=2\npad=1\nactivation=leaky\n\
        [convolutional]\nbatch_normalize=1\nfilters=8\nsize=3\nstride=2\npad=1\nactivation=mish\n\
        [convolutional]\nfilters=7\nsize=1\nactivation=linear\n\
        [yolo]\nmask=1\nanchors=10,12, 30,28\nclasses=2\nnum=2\nignore_thresh=.7\n\
        [route]\nlayers=-3\n\
        [upsample]\nstride=2\n\
        [route]\nlayers=-1,3\n\
        [convolutional]\nfilters=7\nsize=1\nactivation=linear\n\
        [yolo]\nmask=0\nanchors=10,12, 30,28\nclasses=2\nnum=2\nignore_thresh=.7\n";

    fn detector(config: &DarknetConfig) -> Result<Darknet> {
        Darknet::new(config, &Device::Cpu, 3)
    }

    fn config() -> DarknetConfig {
        DarknetConfig::read(CFG).unwrap()
    }

    fn noise(shape: (usize, usize, usize, usize)) -> Result<Tensor> {
        let mut random = Random::new(5);
        let count = shape.0 * shape.1 * shape.2 * shape.3;
        Tensor::from_vec((0..count).map(|_| random.unit()).collect::<Vec<f32>>(), shape, &Device::Cpu)
    }

    #[test]
    fn a_batch_of_any_multiple_of_32_goes_through_and_learns() -> Result<()> {
        let detector = detector(&config())?;
        for (height, width) in [(64, 64), (32, 96)] {
            let images = noise((2, 3, height, width))?;
            let pass = Pass::probed(Mode::Train, 2);
            let outputs = detector.forward(&images, &pass)?;
            assert_eq!(outputs.maps, [(height / 32, width / 32), (height / 16, width / 16)]);
            let object = Object { bbox: BBox::new(3.0, 4.0, 14.0, 15.0), class: 1, ..Object::default() };
            let total = detector.losses(&outputs, &[vec![object], Vec::new()], &pass)?.total()?;
            assert!(total.to_vec0::<f32>()?.is_finite());
            let gradients = total.backward()?;
            for param in detector.params().trainable() {
                assert!(gradients.get(param.var.as_tensor()).is_some(), "no gradient reaches {}", param.name);
            }
            pass.commit()?;
            let traces = pass.into_traces();
            let anchors = (height / 32) * (width / 32) * 5;
            assert_eq!(traces[1].anchors.boxes.len(), anchors);
            assert_eq!(traces[0].assignment.as_ref().unwrap().target.len(), anchors);
            assert_eq!(traces[0].losses.len(), 4);
        }
        let odd = Tensor::zeros((1, 3, 64, 48), candle_core::DType::F32, &Device::Cpu)?;
        assert!(detector.forward(&odd, &Pass::new(Mode::Infer)).is_err());
        Ok(())
    }

    #[test]
    fn a_new_network_detects_next_to_nothing() -> Result<()> {
        let mut settings = config();
        settings.score_threshold = 0.05;
        let detector = detector(&settings)?;
        let images = noise((2, 3, 64, 64))?;
        let pass = Pass::new(Mode::Infer);
        let outputs = detector.forward(&images, &pass)?;
        let found = detector.detect(&outputs, &pass)?;
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(Vec::is_empty));
        Ok(())
    }

    #[test]
    fn settings_that_do_not_fit_are_errors() {
        assert!(detector(&config().sized(48, 64, true)).is_err());
        let mut unnamed = config();
        unnamed.classes.pop();
        assert!(detector(&unnamed).unwrap_err().to_string().contains("2 classes"));
        let mut broken = config();
        broken.cfg = broken.cfg.replace("activation=mish", "activation=odd");
        assert!(detector(&broken).unwrap_err().to_string().contains("line 30"));
    }
}
