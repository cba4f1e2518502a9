//! VGG-16 with its reduced fully connected layers as one flat list, the way RefineDet and M2Det number it.
//!
//! Simonyan & Zisserman, "Very Deep Convolutional Networks" (2014); fc6 and fc7 as convolutions after Liu et al.,
//! "SSD: Single Shot MultiBox Detector" (2016), §2.1. A key is the layer's position in the list, pools and rectifiers
//! counted: `<scope>.{0,2,5,7,10,12,14,17,19,21,24,26,28,31,33}`, as in `vgg16_reducedfc.pth`.

use super::vgg::{Layer, Widths};
use crate::nn::{Init, Pass, Scope};
use crate::ops::conv::ConvSpec;
use crate::ops::pool::{Pool, max_pool2d};
use candle_core::{Result, Tensor};

/// How pool5 and fc6 keep the receptive field of VGG's fc6, and with it the stride of fc7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// pool5 3×3 at stride 1 and fc6 dilated by 6: fc7 at stride 16 (SSD, M2Det).
    Stride16,
    /// pool5 2×2 at stride 2 and fc6 dilated by 3: fc7 at stride 32 (RefineDet).
    Stride32,
}

impl Tail {
    fn pool(self) -> Pool {
        match self {
            Self::Stride16 => Pool::new(3).stride(1).padding(1),
            Self::Stride32 => Pool::new(2).stride(2),
        }
    }

    /// Dilation and padding of fc6.
    fn dilation(self) -> usize {
        match self {
            Self::Stride16 => 6,
            Self::Stride32 => 3,
        }
    }
}

/// What the detectors read, each after its ReLU.
#[derive(Clone, Debug)]
pub struct Taps {
    /// Stride 8.
    pub conv4_3: Tensor,
    /// Stride 16.
    pub conv5_3: Tensor,
    /// Stride 16 or 32, by the tail.
    pub fc7: Tensor,
}

/// Positions of each stage's 3×3 convolutions in the list.
const POSITIONS: [&[usize]; 5] = [&[0, 2], &[5, 7], &[10, 12, 14], &[17, 19, 21], &[24, 26, 28]];

/// The whole list up to fc7.
#[derive(Debug)]
pub struct VggReduced {
    stages: Vec<Vec<Layer>>,
    fc6: Layer,
    fc7: Layer,
    tail: Tail,
    dense: bool,
}

impl VggReduced {
    /// With `norm`, batch norm stands between each convolution and its ReLU, under `<scope>.{i}.norm.*`.
    ///
    /// # Errors
    /// A name that is taken, or a device that cannot hold the weights.
    pub fn new(scope: &Scope, widths: Widths, tail: Tail, norm: bool) -> Result<Self> {
        let mut input = 3;
        let mut stages = Vec::new();
        for (positions, &output) in POSITIONS.iter().zip(&widths.stages) {
            let mut layers = Vec::new();
            for position in *positions {
                let spec = ConvSpec::new().padding(1);
                layers.push(Layer::new(&scope.enter(position), (input, output, 3), spec, norm, Init::Kaiming)?);
                input = output;
            }
            stages.push(layers);
        }
        let dilated = ConvSpec::new().padding(tail.dilation()).dilation(tail.dilation());
        let fc6 = Layer::new(&scope.enter(31), (input, widths.fc, 3), dilated, norm, Init::XavierUniform)?;
        let fc7 = Layer::new(&scope.enter(33), (widths.fc, widths.fc, 1), ConvSpec::new(), norm, Init::XavierUniform)?;
        Ok(Self { stages, fc6, fc7, tail, dense: false })
    }

    /// Without the pool before conv4 (if `dense`): every tap has half its stride. For small pictures of small objects.
    pub fn dense(self, dense: bool) -> Self {
        Self { dense, ..self }
    }

    /// `[N, 3, H, W]` → the three taps. pool3 rounds its size up (75 → 38), the other pools down.
    ///
    /// # Errors
    /// An input too small for the pools.
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Taps> {
        let mut x = x.clone();
        let mut ends = Vec::with_capacity(self.stages.len());
        for (stage, layers) in self.stages.iter().enumerate() {
            if stage > 0 && !(stage == 3 && self.dense) {
                let pool = if stage == 3 { Pool::new(2).stride(2).ceil() } else { Pool::new(2).stride(2) };
                x = max_pool2d(&x, pool)?;
            }
            for layer in layers {
                x = layer.forward(&x, pass)?;
            }
            pass.tap(&format!("conv{}", stage + 1), stage, &x)?;
            ends.push(x.clone());
        }
        let x = max_pool2d(&x, self.tail.pool())?;
        let fc7 = self.fc7.forward(&self.fc6.forward(&x, pass)?, pass)?;
        match (ends.get(3), ends.get(4)) {
            (Some(conv4_3), Some(conv5_3)) => Ok(Taps { conv4_3: conv4_3.clone(), conv5_3: conv5_3.clone(), fc7 }),
            _ => candle_core::bail!("the backbone has no fourth and fifth stage"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Mode, Params};
    use candle_core::{DType, Device};

    const NARROW: Widths = Widths { stages: [4, 4, 4, 6, 8], fc: 10 };

    #[test]
    fn the_two_tails_differ_in_stride_alone() -> Result<()> {
        // 100 → 50 → 25 → 13 (rounded up) → 6; pool5 keeps 6 or halves it
        for (tail, side) in [(Tail::Stride16, 6), (Tail::Stride32, 3)] {
            let params = Params::new(&Device::Cpu, 1);
            let vgg = VggReduced::new(&params.root().enter("base"), NARROW, tail, false)?;
            let x = Tensor::ones((2, 3, 100, 100), DType::F32, &Device::Cpu)?;
            let taps = vgg.forward(&x, &Pass::new(Mode::Infer))?;
            assert_eq!(taps.conv4_3.dims(), [2, 6, 13, 13]);
            assert_eq!(taps.conv5_3.dims(), [2, 8, 6, 6]);
            assert_eq!(taps.fc7.dims(), [2, 10, side, side]);
        }
        Ok(())
    }

    #[test]
    fn a_dense_network_has_half_the_strides() -> Result<()> {
        let params = Params::new(&Device::Cpu, 1);
        let vgg = VggReduced::new(&params.root(), NARROW, Tail::Stride32, false)?.dense(true);
        let x = Tensor::ones((1, 3, 64, 96), DType::F32, &Device::Cpu)?;
        let taps = vgg.forward(&x, &Pass::new(Mode::Infer))?;
        assert_eq!(taps.conv4_3.dims(), [1, 6, 16, 24]);
        assert_eq!(taps.conv5_3.dims(), [1, 8, 8, 12]);
        assert_eq!(taps.fc7.dims(), [1, 10, 4, 6]);
        Ok(())
    }

    #[test]
    fn keys_are_positions_in_the_list() -> Result<()> {
        let params = Params::new(&Device::Cpu, 1);
        VggReduced::new(&params.root().enter("vgg"), NARROW, Tail::Stride32, false)?;
        assert_eq!(params.all().len(), 30);
        for position in [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28, 31, 33] {
            assert!(params.get(&format!("vgg.{position}.weight")).is_some(), "{position}");
            assert!(params.get(&format!("vgg.{position}.bias")).is_some(), "{position}");
        }
        let normed = Params::new(&Device::Cpu, 1);
        VggReduced::new(&normed.root().enter("vgg"), NARROW, Tail::Stride32, true)?;
        assert!(normed.get("vgg.31.norm.running_var").is_some() && normed.get("vgg.31.bias").is_none());
        Ok(())
    }

    #[test]
    fn a_probe_sees_every_stage() -> Result<()> {
        let params = Params::new(&Device::Cpu, 1);
        let vgg = VggReduced::new(&params.root(), NARROW, Tail::Stride16, true)?;
        let pass = Pass::probed(Mode::Infer, 1);
        vgg.forward(&Tensor::ones((1, 3, 64, 64), DType::F32, &Device::Cpu)?, &pass)?;
        let names: Vec<String> = pass.into_traces().remove(0).maps.into_iter().map(|m| m.name).collect();
        assert_eq!(names, ["conv1", "conv2", "conv3", "conv4", "conv5"]);
        Ok(())
    }
}
