//! Backbones: image in, pyramid of feature maps out.

pub mod mobilenet;
pub mod resnet;
pub mod vgg;
pub mod vgg_reduced;

use crate::nn::{Mode, Pass, Scope};
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

/// Runs the stem (0) or a stage (from 1 on) of a body. In training, the first `frozen` of these leave no graph and no
/// statistics behind.
fn run_part(frozen: usize, part: usize, pass: &Pass, run: impl FnOnce(&Pass) -> Result<Tensor>) -> Result<Tensor> {
    if pass.mode == Mode::Infer || part >= frozen {
        return run(pass);
    }
    let still = Pass::new(Mode::Infer);
    let x = run(&still)?;
    pass.count_flops(still.flops());
    Ok(x)
}
