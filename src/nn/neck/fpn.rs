//! The feature pyramid: lateral 1×1 convolutions, a top-down path, 3×3 smoothing, and coarser levels on top.
//!
//! Lin et al., "Feature Pyramid Networks for Object Detection" (CVPR 2017), §3. Names are torchvision's:
//! `inner_blocks.{i}.0`, `layer_blocks.{i}.0`, `extra_blocks.p6` and `.p7`; batch norms are `inner_blocks.{i}.1` and
//! `layer_blocks.{i}.1`.

use crate::nn::{Conv, ConvBlock, Init, Pass, Scope};
use crate::ops::activation::relu;
use crate::ops::conv::{Activation, ConvSpec};
use crate::ops::maps::add;
use crate::ops::pool::{Pool, max_pool2d};
use crate::ops::resize::upsample_nearest;
use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

/// Levels coarser than the backbone's last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExtraLevels {
    None,
    /// One: every second pixel of the coarsest level (the two-stage detectors).
    MaxPool,
    /// P6 by a 3×3 convolution of stride 2 from the backbone's C5, P7 likewise from P6 (the RetinaNet paper,
    /// detectron2, mmdet, torchvision's second version).
    P6P7FromC5,
    /// P6 from the pyramid's P5 (torchvision's first RetinaNet, FCOS).
    P6P7FromP5,
}

impl ExtraLevels {
    /// How many levels it adds.
    pub fn count(self) -> usize {
        match self {
            Self::None => 0,
            Self::MaxPool => 1,
            Self::P6P7FromC5 | Self::P6P7FromP5 => 2,
        }
    }
}

/// Everything that defines a pyramid but its weights.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FpnConfig {
    /// Channels of every level; 256 as published.
    pub channels: usize,
    pub extra: ExtraLevels,
    /// ReLU on P6 before the convolution that makes P7; mmdet's RetinaNet has none.
    pub relu_before_p7: bool,
    /// A batch norm instead of the bias of every lateral and smoothing convolution (torchvision's second Faster and Mask
    /// R-CNN).
    #[serde(default)]
    pub pyramid_norm: bool,
}

/// The neck.
#[derive(Debug)]
pub struct Fpn {
    inner: Vec<ConvBlock>,
    smooth: Vec<ConvBlock>,
    /// P6 and P7, where they are convolutions.
    coarse: Option<(Conv, Conv)>,
    extra: ExtraLevels,
    relu_before_p7: bool,
}

impl Fpn {
    /// A pyramid on maps with these channels, finest first.
    ///
    /// # Errors
    /// No map, no channel, or a device that cannot hold the weights.
    pub fn new(scope: &Scope, inputs: &[usize], config: &FpnConfig) -> Result<Self> {
        let Some(&last) = inputs.last().filter(|_| config.channels > 0) else {
            candle_core::bail!("a pyramid of {} channels on {} maps", config.channels, inputs.len());
        };
        let channels = config.channels;
        let init = Init::XavierUniform;
        let (mut inner, mut smooth) = (Vec::new(), Vec::new());
        for (level, &input) in inputs.iter().enumerate() {
            let lateral = scope.enter("inner_blocks").enter(level);
            inner.push(ConvBlock::new(&lateral, (input, channels, 1), ConvSpec::new(), init, config.pyramid_norm)?);
            let (smoothing, three) = (scope.enter("layer_blocks").enter(level), ConvSpec::new().padding(1));
            smooth.push(ConvBlock::new(&smoothing, (channels, channels, 3), three, init, config.pyramid_norm)?);
        }
        let source = match config.extra {
            ExtraLevels::None | ExtraLevels::MaxPool => None,
            ExtraLevels::P6P7FromC5 => Some(last),
            ExtraLevels::P6P7FromP5 => Some(channels),
        };
        let coarse = match source {
            Some(source) => {
                let scope = scope.enter("extra_blocks");
                let spec = ConvSpec::new().stride(2).padding(1);
                let p6 = Conv::new(&scope.enter("p6"), (source, channels, 3), spec, init)?;
                Some((p6, Conv::new(&scope.enter("p7"), (channels, channels, 3), spec, init)?))
            }
            None => None,
        };
        Ok(Self { inner, smooth, coarse, extra: config.extra, relu_before_p7: config.relu_before_p7 })
    }

    /// Maps that it reads.
    pub fn inputs(&self) -> usize {
        self.inner.len()
    }

    /// torchvision's name of each level, finest first: `0`, `1`, …, then `pool`, or `p6` and `p7`.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = (0..self.inner.len()).map(|level| level.to_string()).collect();
        let extra: &[&str] = match self.extra {
            ExtraLevels::None => &[],
            ExtraLevels::MaxPool => &["pool"],
            ExtraLevels::P6P7FromC5 | ExtraLevels::P6P7FromP5 => &["p6", "p7"],
        };
        names.extend(extra.iter().map(|name| (*name).to_string()));
        names
    }

    /// Maps of the backbone, finest first → `[N, channels, H, W]` of every level. A coarser map is brought to the exact
    /// size of the finer one, by nearest neighbours.
    ///
    /// # Errors
    /// Another number of maps than the pyramid was built for, or other channels.
    pub fn forward(&self, maps: &[Tensor], pass: &Pass) -> Result<Vec<Tensor>> {
        if maps.len() != self.inner.len() {
            candle_core::bail!("a pyramid on {} maps got {}", self.inner.len(), maps.len());
        }
        let mut levels = Vec::with_capacity(maps.len() + self.extra.count());
        let mut above: Option<Tensor> = None;
        for ((map, inner), smooth) in maps.iter().zip(&self.inner).zip(&self.smooth).rev() {
            let lateral = inner.forward(map, pass)?;
            let merged = match &above {
                Some(coarser) => {
                    let (_, _, height, width) = lateral.dims4()?;
                    add(&lateral, &upsample_nearest(coarser, (height, width))?, Activation::None)?
                }
                None => lateral,
            };
            levels.push(smooth.forward(&merged, pass)?);
            above = Some(merged);
        }
        levels.reverse();
        self.add_coarse(maps, &mut levels, pass)?;
        Ok(levels)
    }

    fn add_coarse(&self, maps: &[Tensor], levels: &mut Vec<Tensor>, pass: &Pass) -> Result<()> {
        let (Some(c5), Some(p5)) = (maps.last(), levels.last()) else {
            candle_core::bail!("a pyramid without levels");
        };
        let added = match (self.extra, &self.coarse) {
            (ExtraLevels::MaxPool, _) => vec![max_pool2d(p5, Pool::new(1).stride(2))?],
            (extra, Some((first, second))) => {
                let source = if extra == ExtraLevels::P6P7FromC5 { c5 } else { p5 };
                let p6 = first.forward(source, pass)?;
                let p7 =
                    if self.relu_before_p7 { second.forward(&relu(&p6)?, pass)? } else { second.forward(&p6, pass)? };
                vec![p6, p7]
            }
            (_, None) => Vec::new(),
        };
        levels.extend(added);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Mode, Params};
    use candle_core::{DType, Device};

    fn pyramid(inputs: &[usize], extra: ExtraLevels, relu_before_p7: bool) -> Result<(Params, Fpn)> {
        let params = Params::new(&Device::Cpu, 2);
        let config = FpnConfig { channels: 1, extra, relu_before_p7, pyramid_norm: false };
        let fpn = Fpn::new(&params.root().enter("fpn"), inputs, &config)?;
        Ok((params, fpn))
    }

    /// 3×3 weights that hand the middle pixel on, times `factor`.
    fn middle(factor: f32) -> [f32; 9] {
        [0.0, 0.0, 0.0, 0.0, factor, 0.0, 0.0, 0.0, 0.0]
    }

    fn map(values: &[f32], height: usize, width: usize) -> Result<Tensor> {
        Tensor::from_slice(values, (1, 1, height, width), &Device::Cpu)
    }

    fn values(map: &Tensor) -> Result<Vec<f32>> {
        map.flatten_all()?.to_vec1()
    }

    #[test]
    fn a_coarse_map_is_stretched_to_the_finer_ones_size_and_added() -> Result<()> {
        let (params, fpn) = pyramid(&[1, 1], ExtraLevels::None, true)?;
        for level in 0..2 {
            params.set(&format!("fpn.inner_blocks.{level}.0.weight"), &[1.0])?;
            params.set(&format!("fpn.layer_blocks.{level}.0.weight"), &middle(1.0))?;
        }
        params.set("fpn.inner_blocks.0.0.bias", &[10.0])?;
        let fine = map(&[0.0; 9], 3, 3)?;
        let coarse = map(&[1.0, 2.0, 3.0, 4.0], 2, 2)?;
        let levels = fpn.forward(&[fine, coarse], &Pass::new(Mode::Infer))?;
        // rows and columns 0, 1, 2 read ⌊2i / 3⌋ = 0, 0, 1
        assert_eq!(values(&levels[0])?, [11.0, 11.0, 12.0, 11.0, 11.0, 12.0, 13.0, 13.0, 14.0]);
        assert_eq!(values(&levels[1])?, [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(fpn.names(), ["0", "1"]);
        Ok(())
    }

    #[test]
    fn p6_reads_what_the_configuration_says_and_p7_its_positive_part() -> Result<()> {
        let cases = [(ExtraLevels::P6P7FromC5, 5.0), (ExtraLevels::P6P7FromP5, 15.0)];
        for (extra, source) in cases {
            for relu_before_p7 in [true, false] {
                let (params, fpn) = pyramid(&[1], extra, relu_before_p7)?;
                params.set("fpn.inner_blocks.0.0.weight", &[3.0])?;
                params.set("fpn.layer_blocks.0.0.weight", &middle(1.0))?;
                params.set("fpn.extra_blocks.p6.weight", &middle(-1.0))?;
                params.set("fpn.extra_blocks.p7.weight", &middle(2.0))?;
                let levels = fpn.forward(&[map(&[5.0; 9], 3, 3)?], &Pass::new(Mode::Infer))?;
                let dims: Vec<&[usize]> = levels.iter().map(Tensor::dims).collect();
                assert_eq!(dims, [[1, 1, 3, 3], [1, 1, 2, 2], [1, 1, 1, 1]]);
                assert_eq!(values(&levels[1])?, [-source; 4]);
                let p7 = if relu_before_p7 { 0.0 } else { -2.0 * source };
                assert_eq!(values(&levels[2])?, [p7]);
                assert_eq!(fpn.names(), ["0", "p6", "p7"]);
            }
        }
        Ok(())
    }

    #[test]
    fn pooling_keeps_every_second_pixel() -> Result<()> {
        let (params, fpn) = pyramid(&[1], ExtraLevels::MaxPool, true)?;
        params.set("fpn.inner_blocks.0.0.weight", &[1.0])?;
        params.set("fpn.layer_blocks.0.0.weight", &middle(1.0))?;
        let numbers: Vec<f32> = (0..9).map(|v| v as f32).collect();
        let levels = fpn.forward(&[map(&numbers, 3, 3)?], &Pass::new(Mode::Infer))?;
        assert_eq!(values(&levels[1])?, [0.0, 2.0, 6.0, 8.0]);
        assert_eq!(fpn.names(), ["0", "pool"]);
        Ok(())
    }

    /// 2 · (3x − 4) / √(15.99999 + 1e-5) + 0.5 by the lateral, which the smoothing hands on.
    #[test]
    fn a_norm_takes_the_place_of_each_bias() -> Result<()> {
        let params = Params::new(&Device::Cpu, 2);
        let config = FpnConfig { channels: 1, extra: ExtraLevels::MaxPool, relu_before_p7: false, pyramid_norm: true };
        let fpn = Fpn::new(&params.root().enter("fpn"), &[1], &config)?;
        let values_of: [(&str, &[f32]); 7] = [
            ("inner_blocks.0.0.weight", &[3.0]),
            ("inner_blocks.0.1.weight", &[2.0]),
            ("inner_blocks.0.1.bias", &[0.5]),
            ("inner_blocks.0.1.running_mean", &[4.0]),
            ("inner_blocks.0.1.running_var", &[15.999_99]),
            ("layer_blocks.0.0.weight", &middle(1.0)),
            ("layer_blocks.0.1.running_var", &[0.999_99]),
        ];
        for (name, values) in values_of {
            params.set(&format!("fpn.{name}"), values)?;
        }
        assert!(params.get("fpn.inner_blocks.0.0.bias").is_none());
        let levels = fpn.forward(&[map(&[0.0, 2.0, 4.0, 6.0], 2, 2)?], &Pass::new(Mode::Infer))?;
        for (found, expected) in values(&levels[0])?.into_iter().zip([-1.5, 1.5, 4.5, 7.5]) {
            assert!((found - expected).abs() < 1e-4, "{found} {expected}");
        }
        Ok(())
    }

    #[test]
    fn gradients_reach_every_level_and_wrong_inputs_are_errors() -> Result<()> {
        let (params, fpn) = pyramid(&[2, 3, 4], ExtraLevels::P6P7FromP5, false)?;
        let maps =
            [(2, 7, 9), (3, 4, 5), (4, 2, 3)].map(|(c, h, w)| Tensor::ones((2, c, h, w), DType::F32, &Device::Cpu));
        let maps: Vec<Tensor> = maps.into_iter().collect::<Result<_>>()?;
        let levels = fpn.forward(&maps, &Pass::new(Mode::Train))?;
        assert_eq!(levels.len(), 5);
        // through the top-down path, the coarsest lateral convolution hears of the finest level
        let gradients = levels[0].sum_all()?.backward()?;
        let reached = |name: &str| params.get(name).is_some_and(|p| gradients.get(p.var.as_tensor()).is_some());
        assert!(reached("fpn.inner_blocks.2.0.weight") && !reached("fpn.layer_blocks.2.0.weight"));
        assert!(fpn.forward(&maps[..2], &Pass::new(Mode::Infer)).is_err());
        assert!(pyramid(&[], ExtraLevels::None, true).is_err());
        Ok(())
    }
}
