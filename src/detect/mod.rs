//! Floor 3: the detectors, one file each, behind one trait.
//!
//! A forward pass reads transform → backbone → neck → head; losses are a named list; decoding and suppression turn
//! head outputs into detections. All fill the same [`Trace`] when the pass carries a probe.

pub mod class_order;
pub mod config;
pub mod conventions;
pub mod darknet;
pub mod fcos;
pub mod implied;
pub mod input;
pub mod m2det;
pub mod multibox;
pub mod multiscale;
pub mod names;
pub mod predict;
pub mod rcnn;
pub mod refinedet;
pub mod retinanet;
pub mod ssd;
pub mod suppress;
mod terms;
pub mod yolov3;

pub use config::{Arch, Config, ConfigError};
pub use predict::{Prediction, predict};

use crate::geometry::{Detection, Object};
use crate::imaging::preprocess::Preprocess;
use crate::nn::{Params, Pass};
use candle_core::{Device, Result, Tensor};

/// Raw outputs of one forward pass over a batch.
#[derive(Debug)]
pub struct Outputs {
    /// Named tensors, batch first; names follow the reference implementation's.
    pub tensors: Vec<(String, Tensor)>,
    /// Rows and columns of each head's feature map.
    pub maps: Vec<(usize, usize)>,
    /// Height and width of the network's input, pixels.
    pub input: (usize, usize),
}

impl Outputs {
    /// The tensor called `name`.
    ///
    /// # Errors
    /// When the pass made no such tensor.
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        match self.tensors.iter().find(|(n, _)| n == name) {
            Some((_, tensor)) => Ok(tensor),
            None => candle_core::bail!("this detector has no output named {name}"),
        }
    }
}

/// The parts of a loss, each a differentiable scalar.
#[derive(Clone, Debug, Default)]
pub struct Losses {
    pub parts: Vec<(String, Tensor)>,
}

impl Losses {
    /// Sum of the parts.
    ///
    /// # Errors
    /// When there are no parts.
    pub fn total(&self) -> Result<Tensor> {
        let mut parts = self.parts.iter().map(|(_, tensor)| tensor);
        let Some(first) = parts.next() else {
            candle_core::bail!("a loss without parts");
        };
        parts.try_fold(first.clone(), |sum, part| sum + part)
    }
}

/// A detector: network, targets, losses and decoding.
pub trait Detector: Send {
    fn config(&self) -> &Config;
    fn params(&self) -> &Params;

    /// How a picture becomes the network's input.
    fn preprocess(&self) -> &Preprocess {
        self.config().preprocess()
    }

    /// Class names, background excluded.
    fn classes(&self) -> &[String] {
        self.config().classes()
    }

    /// Preprocessed images `[N, 3, H, W]` → raw head outputs.
    fn forward(&self, images: &Tensor, pass: &Pass) -> Result<Outputs>;

    /// Loss parts for the objects of each image (input pixels, crowds left out).
    fn losses(&self, outputs: &Outputs, objects: &[Vec<Object>], pass: &Pass) -> Result<Losses>;

    /// Decoded and suppressed detections of each image, in input pixels, best first.
    fn detect(&self, outputs: &Outputs, pass: &Pass) -> Result<Vec<Vec<Detection>>>;

    /// Further tensors of the pass that a reference implementation names: a two-stage network's proposals and heads.
    fn stage_outputs(&self, _outputs: &Outputs, _pass: &Pass) -> Result<Vec<(String, Tensor)>> {
        Ok(Vec::new())
    }

    /// Names under which checkpoints of this architecture may be read.
    fn layouts(&self) -> &'static [&'static str];
}

/// Builds the network that `config` describes, with initial values from `seed`.
///
/// # Errors
/// A configuration that makes no network, or a device that cannot hold it.
pub fn build(config: &Config, device: &Device, seed: u64) -> Result<Box<dyn Detector>> {
    match config {
        Config::Ssd(config) => Ok(Box::new(ssd::Ssd::new(config, device, seed)?)),
        Config::Retinanet(config) => Ok(Box::new(retinanet::Retinanet::new(config, device, seed)?)),
        Config::Fcos(config) => Ok(Box::new(fcos::Fcos::new(config, device, seed)?)),
        Config::Refinedet(config) => Ok(Box::new(refinedet::Refinedet::new(config, device, seed)?)),
        Config::M2det(config) => Ok(Box::new(m2det::M2det::new(config, device, seed)?)),
        Config::Yolov3(config) => Ok(Box::new(yolov3::Yolov3::new(config, device, seed)?)),
        Config::Darknet(config) => Ok(Box::new(darknet::Darknet::new(config, device, seed)?)),
        Config::Rcnn(config) => Ok(Box::new(rcnn::Rcnn::new(config, device, seed)?)),
    }
}
