//! MobileNetV2 without its last convolution and its classifier, at any width: a light body for the narrow detectors.
//!
//! Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (CVPR 2018), table 2. Names are torchvision's
//! `mobilenet_v2`: `features.0.0`, `features.1.conv.0.0`, …

use super::resnet::{Norm, ResNetConfig};
use super::run_part;
use crate::nn::{ConvNorm, Init, Pass, Scope};
use crate::ops::activation::relu6;
use crate::ops::conv::{Activation, ConvSpec};
use crate::ops::maps::add;
use candle_core::{Result, Tensor};

/// Channels of the stem as published, where those of [`ROWS`] count.
const STEM: usize = 32;
/// Map that it belongs to (C2 is 0), expansion, channels, blocks and stride of each row of table 2.
const ROWS: [(usize, usize, usize, usize, usize); 7] = [
    (0, 1, 16, 1, 1),
    (0, 6, 24, 2, 2),
    (1, 6, 32, 3, 2),
    (2, 6, 64, 4, 2),
    (2, 6, 96, 3, 1),
    (3, 6, 160, 3, 2),
    (3, 6, 320, 1, 1),
];
/// Channels are multiples of this.
const DIVISOR: usize = 8;

/// Published `channels` for a stem of `width`: the nearest multiple of 8, and no more than a tenth below.
fn scaled(channels: usize, width: usize) -> usize {
    let exact = channels * width / STEM;
    let nearest = ((exact + DIVISOR / 2) / DIVISOR * DIVISOR).max(DIVISOR);
    if nearest * 10 < exact * 9 { nearest + DIVISOR } else { nearest }
}

/// Channels of C2 to C5 for a stem of `width` channels; 24, 32, 96 and 320 as published, for 32.
pub fn channels(width: usize) -> [usize; 4] {
    [24, 32, 96, 320].map(|published| scaled(published, width))
}

/// The network up to C5.
#[derive(Debug)]
pub struct MobileNet {
    stem: Layer,
    /// Blocks up to each map.
    stages: [Vec<Block>; 4],
    frozen_stages: usize,
}

impl MobileNet {
    /// Of `config` count the width (of the stem), ε and the frozen stages.
    ///
    /// # Errors
    /// A width of 0, a negative ε, frozen batch norms, or a device that cannot hold the network.
    pub fn new(scope: &Scope, config: &ResNetConfig) -> Result<Self> {
        if config.width == 0 || config.epsilon.is_nan() || config.epsilon < 0.0 || config.norm == Norm::Frozen {
            candle_core::bail!("a MobileNet needs a width above 0, an epsilon of at least 0 and trained batch norms");
        }
        let features = scope.enter("features");
        let (epsilon, spec) = (config.epsilon, ConvSpec::new().stride(2).padding(1));
        let first = features.enter(0);
        let mut input = scaled(STEM, config.width);
        let stem = Layer::rectified(&first, (3, input, 3), spec, epsilon)?;
        let mut stages: [Vec<Block>; 4] = Default::default();
        let mut index = 1;
        for (stage, expansion, published, blocks, stride) in ROWS {
            let output = scaled(published, config.width);
            for block in 0..blocks {
                let stride = if block == 0 { stride } else { 1 };
                let scope = features.enter(index).enter("conv");
                stages[stage].push(Block::new(&scope, (input, output), expansion, stride, epsilon)?);
                (input, index) = (output, index + 1);
            }
        }
        Ok(Self { stem, stages, frozen_stages: config.frozen_stages })
    }

    /// `[N, 3, H, W]` → C2, C3, C4, C5 at strides 4, 8, 16, 32 (sizes rounded up).
    pub fn forward(&self, images: &Tensor, pass: &Pass) -> Result<[Tensor; 4]> {
        let mut x = run_part(self.frozen_stages, 0, pass, |pass| self.stem.forward(images, pass))?;
        let mut maps = Vec::with_capacity(self.stages.len());
        for (stage, blocks) in self.stages.iter().enumerate() {
            let run = |pass: &Pass| blocks.iter().try_fold(x.clone(), |x, block| block.forward(&x, pass));
            x = run_part(self.frozen_stages, stage + 1, pass, run)?;
            pass.tap(&format!("c{}", stage + 2), stage, &x)?;
            maps.push(x.clone());
        }
        match <[Tensor; 4]>::try_from(maps) {
            Ok(maps) => Ok(maps),
            Err(maps) => candle_core::bail!("a MobileNet of {} maps instead of four", maps.len()),
        }
    }
}

/// Convolution and batch norm, with or without `min(max(x, 0), 6)` behind.
#[derive(Debug)]
struct Layer {
    conv: ConvNorm,
    rectified: bool,
}

impl Layer {
    /// Keys: `0.*` of the convolution and `1.*` of the norm.
    fn rectified(scope: &Scope, shape: (usize, usize, usize), spec: ConvSpec, epsilon: f32) -> Result<Self> {
        let conv = ConvNorm::new(&scope.enter(0), &scope.enter(1), shape, spec, Init::Kaiming)?;
        Ok(Self { conv: conv.epsilon(epsilon), rectified: true })
    }

    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let y = self.conv.forward(x, pass)?;
        if self.rectified { relu6(&y) } else { Ok(y) }
    }
}

/// An inverted residual: 1×1 to more channels, 3×3 within each, 1×1 to few; around it a shortcut where nothing changes
/// its shape.
#[derive(Debug)]
struct Block {
    layers: Vec<Layer>,
    shortcut: bool,
}

impl Block {
    fn new(
        scope: &Scope,
        (input, output): (usize, usize),
        expansion: usize,
        stride: usize,
        epsilon: f32,
    ) -> Result<Self> {
        let hidden = input * expansion;
        let mut layers = Vec::with_capacity(3);
        if expansion > 1 {
            layers.push(Layer::rectified(&scope.enter(0), (input, hidden, 1), ConvSpec::new(), epsilon)?);
        }
        let within = ConvSpec::new().stride(stride).padding(1).groups(hidden);
        layers.push(Layer::rectified(&scope.enter(layers.len()), (hidden, hidden, 3), within, epsilon)?);
        let (conv, norm) = (scope.enter(layers.len()), scope.enter(layers.len() + 1));
        let conv = ConvNorm::new(&conv, &norm, (hidden, output, 1), ConvSpec::new(), Init::Kaiming)?;
        layers.push(Layer { conv: conv.epsilon(epsilon), rectified: false });
        Ok(Self { layers, shortcut: stride == 1 && input == output })
    }

    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let y = self.layers.iter().try_fold(x.clone(), |x, layer| layer.forward(&x, pass))?;
        if self.shortcut { add(&y, x, Activation::None) } else { Ok(y) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::resnet::{Depth, StrideStyle};
    use super::*;
    use crate::nn::{Mode, Params};
    use candle_core::{DType, Device};

    fn config(width: usize) -> ResNetConfig {
        ResNetConfig {
            depth: Depth::MobileV2,
            width,
            style: StrideStyle::Pytorch,
            norm: Norm::Trained,
            epsilon: 1e-5,
            frozen_stages: 0,
        }
    }

    #[test]
    fn parameters_are_the_published_ones_without_the_last_convolution_and_the_classifier() -> Result<()> {
        let params = Params::new(&Device::Cpu, 1);
        MobileNet::new(&params.root(), &config(32))?;
        // torchvision counts 3,504,872; 320·1280 + 2·1280 and 1280·1000 + 1000 of them are left out
        assert_eq!(params.trained_elements(), 3_504_872 - 412_160 - 1_281_000);
        for (name, shape) in [
            ("features.0.0.weight", vec![32, 3, 3, 3]),
            ("features.1.conv.0.0.weight", vec![32, 1, 3, 3]),
            ("features.1.conv.1.weight", vec![16, 32, 1, 1]),
            ("features.2.conv.0.1.running_var", vec![96]),
            ("features.2.conv.1.0.weight", vec![96, 1, 3, 3]),
            ("features.17.conv.2.weight", vec![320, 960, 1, 1]),
            ("features.17.conv.3.bias", vec![320]),
        ] {
            assert_eq!(params.get(name).map(|p| p.var.dims().to_vec()), Some(shape), "{name}");
        }
        assert!(params.get("features.18.0.weight").is_none());
        for wrong in [config(0), ResNetConfig { epsilon: -1.0, ..config(8) }] {
            assert!(MobileNet::new(&params.root().enter("b"), &wrong).is_err());
        }
        Ok(())
    }

    #[test]
    fn maps_have_the_strides_of_a_pyramid_and_gradients_reach_the_stem() -> Result<()> {
        let params = Params::new(&Device::Cpu, 1);
        let network = MobileNet::new(&params.root(), &config(8))?;
        let images = Tensor::ones((2, 3, 64, 96), DType::F32, &Device::Cpu)?;
        let pass = Pass::new(Mode::Train);
        let maps = network.forward(&images, &pass)?;
        let shapes: Vec<Vec<usize>> = maps.iter().map(|map| map.dims().to_vec()).collect();
        let [c2, c3, c4, c5] = channels(8);
        assert_eq!(shapes, [[2, c2, 16, 24], [2, c3, 8, 12], [2, c4, 4, 6], [2, c5, 2, 3]]);
        let gradients = maps[3].sqr()?.sum_all()?.backward()?;
        let stem = params.get("features.0.0.weight").unwrap();
        assert!(gradients.get(stem.var.as_tensor()).is_some());
        Ok(())
    }

    #[test]
    fn frozen_parts_get_no_gradient() -> Result<()> {
        let params = Params::new(&Device::Cpu, 1);
        let network = MobileNet::new(&params.root(), &ResNetConfig { frozen_stages: 2, ..config(8) })?;
        let images = Tensor::ones((1, 3, 64, 64), DType::F32, &Device::Cpu)?;
        let maps = network.forward(&images, &Pass::new(Mode::Train))?;
        let gradients = maps[3].sqr()?.sum_all()?.backward()?;
        let reached = |name: &str| params.get(name).is_some_and(|p| gradients.get(p.var.as_tensor()).is_some());
        assert!(!reached("features.0.0.weight") && !reached("features.3.conv.2.weight"));
        assert!(reached("features.4.conv.0.0.weight"));
        Ok(())
    }

    #[test]
    fn channels_are_multiples_of_eight_close_to_their_share() {
        assert_eq!(channels(32), [24, 32, 96, 320]);
        assert_eq!(channels(16), [16, 16, 48, 160]);
        // an eighth of 24 and 32 would be 3 and 4
        assert_eq!(channels(4), [8, 8, 16, 40]);
    }
}
