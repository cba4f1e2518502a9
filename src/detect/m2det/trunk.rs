//! The network below the base feature: VGG-16 up to fc7, or a ResNet whose third stage keeps its size.
//!
//! Both give a shallow map at stride 8 and a deep one at stride 16 (`build_base` of the reference implementation).

use super::M2detConfig;
use crate::nn::backbone::resnet::ResNet;
use crate::nn::backbone::vgg_reduced::{Tail, VggReduced};
use crate::nn::{Pass, Scope};
use candle_core::{Result, Tensor};

/// Strides of the four stages: 4, 8, 8 and 16 pixels after the stem.
const RESNET_STRIDES: [usize; 4] = [1, 2, 1, 2];

/// Keys: `base.{i}.*` by the position in VGG's list, or `base.layer1.0.conv1.*` and so on.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a network has one, and boxes would hide the parts")]
pub(super) enum Trunk {
    Vgg(VggReduced),
    ResNet(ResNet),
}

impl Trunk {
    /// # Errors
    /// A width of 0, or a device that cannot hold the network.
    pub(super) fn new(root: &Scope, config: &M2detConfig) -> Result<Self> {
        let scope = root.enter("base");
        Ok(match &config.resnet {
            Some(resnet) => Self::ResNet(ResNet::with_strides(&scope, resnet, RESNET_STRIDES)?),
            None => {
                let vgg = VggReduced::new(&scope, config.widths, Tail::Stride16, config.batch_norm)?;
                Self::Vgg(vgg.dense(config.dense))
            }
        })
    }

    /// Channels of the shallow and of the deep map.
    pub(super) fn channels(config: &M2detConfig) -> (usize, usize) {
        match &config.resnet {
            Some(resnet) => {
                let [_, shallow, _, deep] = resnet.channels();
                (shallow, deep)
            }
            None => (config.widths.stages[3], config.widths.fc),
        }
    }

    /// `[N, 3, H, W]` → the shallow and the deep map.
    pub(super) fn forward(&self, images: &Tensor, pass: &Pass) -> Result<(Tensor, Tensor)> {
        match self {
            Self::Vgg(vgg) => {
                let taps = vgg.forward(images, pass)?;
                pass.tap("fc7", 1, &taps.fc7)?;
                Ok((taps.conv4_3, taps.fc7))
            }
            Self::ResNet(resnet) => {
                let [_, shallow, _, deep] = resnet.forward(images, pass)?;
                Ok((shallow, deep))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::backbone::resnet::{Depth, ResNetConfig};
    use crate::nn::{Mode, Params};
    use candle_core::{DType, Device};

    #[test]
    fn a_residual_trunk_has_strides_8_and_16_and_names_below_base() -> Result<()> {
        let config = M2detConfig::m2det512_r101(&["a".to_string()]);
        assert_eq!(Trunk::channels(&config), (512, 2048));
        let resnet = config.resnet.map(|resnet| ResNetConfig { depth: Depth::R18, width: 4, ..resnet });
        let config = M2detConfig { resnet, ..config };
        let params = Params::new(&Device::Cpu, 1);
        let trunk = Trunk::new(&params.root(), &config)?;
        assert!(params.get("base.layer3.0.downsample.0.weight").is_some() && params.get("base.bn1.bias").is_some());
        let images = Tensor::ones((1, 3, 64, 64), DType::F32, &Device::Cpu)?;
        let (shallow, deep) = trunk.forward(&images, &Pass::new(Mode::Infer))?;
        assert_eq!((shallow.dims(), deep.dims()), (&[1, 8, 8, 8][..], &[1, 32, 4, 4][..]));
        assert_eq!(Trunk::channels(&config), (8, 32));
        Ok(())
    }
}
