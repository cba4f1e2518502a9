//! VGG-16 with SSD's "reduced fc" tail, at any width, with or without batch norm.
//!
//! Simonyan & Zisserman, "Very Deep Convolutional Networks" (2014); fc6 and fc7 as convolutions after Liu et al.,
//! "SSD: Single Shot MultiBox Detector" (2016), §2.1. Names are torchvision's `ssd300_vgg16`:
//! `features.N` up to conv4_3, `extra.0.N` for conv5 and the fc layers.

use crate::nn::{Conv, ConvNorm, Init, Pass, Scope};
use crate::ops::conv::{Activation, ConvSpec};
use crate::ops::pool::{Pool, max_pool2d};
use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

/// A convolution with ReLU, with or without batch norm between.
#[derive(Debug)]
pub enum Layer {
    Plain(Conv),
    Normed(ConvNorm),
}

impl Layer {
    /// Kernel 3×3 or 1×1 by `shape`; with `norm` the batch norm's keys are `<scope>.norm.*`.
    pub fn new(scope: &Scope, shape: (usize, usize, usize), spec: ConvSpec, norm: bool, init: Init) -> Result<Self> {
        let spec = spec.activation(Activation::Relu);
        Ok(if norm {
            Self::Normed(ConvNorm::new(scope, &scope.enter("norm"), shape, spec, Init::Kaiming)?)
        } else {
            Self::Plain(Conv::new(scope, shape, spec, init)?)
        })
    }

    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        match self {
            Self::Plain(conv) => conv.forward(x, pass),
            Self::Normed(conv) => conv.forward(x, pass),
        }
    }
}

/// Channel counts of the five stages and of fc6 and fc7. The published network is `[64, 128, 256, 512, 512]` and 1024.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Widths {
    pub stages: [usize; 5],
    pub fc: usize,
}

impl Widths {
    pub const VGG16: Self = Self { stages: [64, 128, 256, 512, 512], fc: 1024 };
}

/// The network up to fc7; taps conv4_3 (before any L2 norm) and fc7.
#[derive(Debug)]
pub struct Vgg {
    /// Stages 1 to 4, then stage 5: lists of 3×3 convolutions.
    stages: Vec<Vec<Layer>>,
    fc6: Layer,
    fc7: Layer,
}

/// Position of each stage's convolutions in torchvision's `features`; stage 5 counts within `extra.0`.
const POSITIONS: [&[usize]; 5] = [&[0, 2], &[5, 7], &[10, 12, 14], &[17, 19, 21], &[1, 3, 5]];

impl Vgg {
    pub fn new(scope: &Scope, widths: Widths, norm: bool) -> Result<Self> {
        let features = scope.enter("features");
        let tail = scope.enter("extra").enter(0);
        let mut input = 3;
        let mut stages = Vec::new();
        for (stage, positions) in POSITIONS.iter().enumerate() {
            let output = widths.stages[stage];
            let parent = if stage < 4 { &features } else { &tail };
            let mut layers = Vec::new();
            for position in *positions {
                let spec = ConvSpec::new().padding(1);
                layers.push(Layer::new(&parent.enter(position), (input, output, 3), spec, norm, Init::Kaiming)?);
                input = output;
            }
            stages.push(layers);
        }
        let fc = tail.enter(7);
        let dilated = ConvSpec::new().padding(6).dilation(6);
        Ok(Self {
            stages,
            fc6: Layer::new(&fc.enter(1), (input, widths.fc, 3), dilated, norm, Init::XavierUniform)?,
            fc7: Layer::new(&fc.enter(3), (widths.fc, widths.fc, 1), ConvSpec::new(), norm, Init::XavierUniform)?,
        })
    }

    /// `[N, 3, H, W]` → conv4_3 at stride 8 (pool3 rounds up: 75 → 38) and fc7 at stride 16.
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Result<(Tensor, Tensor)> {
        let mut x = x.clone();
        let mut conv4_3 = None;
        for (stage, layers) in self.stages.iter().enumerate() {
            if stage > 0 {
                let pool = if stage == 3 { Pool::new(2).stride(2).ceil() } else { Pool::new(2).stride(2) };
                x = max_pool2d(&x, pool)?;
            }
            for layer in layers {
                x = layer.forward(&x, pass)?;
            }
            pass.tap(&format!("conv{}", stage + 1), stage, &x)?;
            if stage == 3 {
                conv4_3 = Some(x.clone());
            }
        }
        let x = max_pool2d(&x, Pool::new(3).stride(1).padding(1))?;
        let x = self.fc7.forward(&self.fc6.forward(&x, pass)?, pass)?;
        match conv4_3 {
            Some(conv4_3) => Ok((conv4_3, x)),
            None => candle_core::bail!("the backbone has no fourth stage"),
        }
    }
}
