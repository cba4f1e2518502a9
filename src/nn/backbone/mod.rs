//! Backbones: image in, pyramid of feature maps out.

pub mod mobilenet;
pub mod resnet;
pub mod vgg;
pub mod vgg_reduced;

use crate::nn::{Pass, Scope};
use candle_core::{Result, Tensor};
use mobilenet::MobileNet;
use resnet::{Depth, ResNet, ResNetConfig};

/// What stands below a feature pyramid.
#[derive(Debug)]
pub enum Body {
    ResNet(ResNet),
    MobileNet(MobileNet),
}

impl Body {
    /// # Errors
    /// Settings that make no network, or a device that cannot hold it.
    pub fn new(scope: &Scope, config: &ResNetConfig) -> Result<Self> {
        Ok(match config.depth {
            Depth::MobileV2 => Self::MobileNet(MobileNet::new(scope, config)?),
            _ => Self::ResNet(ResNet::new(scope, config)?),
        })
    }

    /// `[N, 3, H, W]` → C2, C3, C4, C5 at strides 4, 8, 16, 32 (sizes rounded up).
    pub fn forward(&self, images: &Tensor, pass: &Pass) -> Result<[Tensor; 4]> {
        match self {
            Self::ResNet(resnet) => resnet.forward(images, pass),
            Self::MobileNet(mobilenet) => mobilenet.forward(images, pass),
        }
    }
}
