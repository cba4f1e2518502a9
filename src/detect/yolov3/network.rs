//! Darknet-53, the three detection blocks above it, and the last convolutions, at any width.
//!
//! Redmon & Farhadi, "YOLOv3: An Incremental Improvement" (2018), §2.3–2.4. Names are mmdet's; parameters come into
//! being in the order of darknet's weights file, so both kinds of checkpoint load.

use super::Yolov3Config;
use crate::detect::darknet::head::Head;
use crate::nn::{Conv, ConvNorm, Init, Mode, Params, Pass, Scope};
use crate::ops::conv::{Activation, ConvSpec};
use crate::ops::maps::{add, cat};
use crate::ops::resize::upsample_nearest;
use candle_core::{Result, Tensor};

/// Convolution, batch norm and leaky rectifier; keys `conv.*` and `bn.*` below `scope`.
fn layer(scope: &Scope, input: usize, output: usize, kernel: usize, stride: usize) -> Result<ConvNorm> {
    let spec = ConvSpec::new().stride(stride).padding(kernel / 2).activation(Activation::Leaky(0.1));
    ConvNorm::new(&scope.enter("conv"), &scope.enter("bn"), (input, output, kernel), spec, Init::Kaiming)
}

/// Halving convolution, then residual blocks: 1×1 to half the channels, 3×3 to all, added to what came in.
#[derive(Debug)]
struct Stage {
    down: ConvNorm,
    blocks: Vec<(ConvNorm, ConvNorm)>,
}

impl Stage {
    fn new(scope: &Scope, input: usize, output: usize, blocks: usize) -> Result<Self> {
        let down = layer(&scope.enter("conv"), input, output, 3, 2)?;
        let mut pairs = Vec::with_capacity(blocks);
        for block in 0..blocks {
            let scope = scope.enter(format!("res{block}"));
            let reduce = layer(&scope.enter("conv1"), output, output / 2, 1, 1)?;
            pairs.push((reduce, layer(&scope.enter("conv2"), output / 2, output, 3, 1)?));
        }
        Ok(Self { down, blocks: pairs })
    }

    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let mut x = self.down.forward(x, pass)?;
        for (reduce, expand) in &self.blocks {
            x = add(&x, &expand.forward(&reduce.forward(&x, pass)?, pass)?, Activation::None)?;
        }
        Ok(x)
    }
}

/// What one level adds: the way up from the coarser level, five convolutions, and the two that predict.
#[derive(Debug)]
struct Level {
    lateral: Option<ConvNorm>,
    convolutions: Vec<ConvNorm>,
    bridge: ConvNorm,
    prediction: Conv,
}

/// Maps of one pass; backbone finest first, the rest coarsest first, as mmdet lists them.
pub(super) struct Maps {
    pub backbone: Vec<Tensor>,
    pub neck: Vec<Tensor>,
    pub head: Vec<Tensor>,
}

/// The whole network.
#[derive(Debug)]
pub(super) struct Network {
    stem: ConvNorm,
    stages: Vec<Stage>,
    levels: Vec<Level>,
    still_backbone: bool,
}

impl Network {
    pub fn new(params: &Params, config: &Yolov3Config, head: &Head) -> Result<Self> {
        let root = params.root();
        let backbone = root.enter("backbone");
        let stem = layer(&backbone.enter("conv1"), 3, config.stem, 3, 1)?;
        let mut input = config.stem;
        let mut stages = Vec::with_capacity(config.stages.len());
        for (index, (&output, &blocks)) in config.stages.iter().zip(&config.blocks).enumerate() {
            stages.push(Stage::new(&backbone.enter(format!("conv_res_block{}", index + 1)), input, output, blocks)?);
            input = output;
        }
        let (neck, bbox_head) = (root.enter("neck"), root.enter("bbox_head"));
        let mut levels = Vec::with_capacity(head.levels.len());
        let mut above: Option<usize> = None;
        // the three coarsest stages, from the last
        for (index, (&feature, level)) in config.stages.iter().rev().zip(&head.levels).enumerate() {
            let width = feature / 2;
            let (lateral, input) = match above {
                Some(above) => (Some(layer(&neck.enter(format!("conv{index}")), above, width, 1, 1)?), feature + width),
                None => (None, feature),
            };
            let scope = neck.enter(format!("detect{}", index + 1));
            let mut convolutions = Vec::with_capacity(5);
            for (position, (from, to, kernel)) in
                [(input, width, 1), (width, feature, 3), (feature, width, 1), (width, feature, 3), (feature, width, 1)]
                    .into_iter()
                    .enumerate()
            {
                convolutions.push(layer(&scope.enter(format!("conv{}", position + 1)), from, to, kernel, 1)?);
            }
            let bridge = layer(&bbox_head.enter("convs_bridge").enter(index), width, feature, 3, 1)?;
            let outputs = level.mask.len() * head.attributes();
            let scope = bbox_head.enter("convs_pred").enter(index);
            let prediction = Conv::new(&scope, (feature, outputs, 1), ConvSpec::new(), Init::Normal(0.01))?;
            params.set(&format!("bbox_head.convs_pred.{index}.bias"), &head.first_bias(level.mask.len()))?;
            levels.push(Level { lateral, convolutions, bridge, prediction });
            above = Some(width);
        }
        Ok(Self { stem, stages, levels, still_backbone: config.still_backbone })
    }

    /// Images `[N, 3, H, W]`, both sides multiples of 32.
    pub fn forward(&self, images: &Tensor, pass: &Pass) -> Result<Maps> {
        let backbone = pass.stage("backbone", || {
            let still = Pass::new(Mode::Frozen);
            let own = if self.still_backbone && pass.mode == Mode::Train { &still } else { pass };
            let mut x = self.stem.forward(images, own)?;
            let mut features = Vec::with_capacity(self.stages.len());
            for (index, stage) in self.stages.iter().enumerate() {
                x = stage.forward(&x, own)?;
                pass.tap(&format!("conv_res_block{}", index + 1), index, &x)?;
                features.push(x.clone());
            }
            pass.count_flops(still.flops());
            Ok(features.split_off(features.len().saturating_sub(self.levels.len())))
        })?;
        let neck = pass.stage("neck", || {
            let mut neck: Vec<Tensor> = Vec::with_capacity(self.levels.len());
            for (index, (level, feature)) in self.levels.iter().zip(backbone.iter().rev()).enumerate() {
                let mut x = match (&level.lateral, neck.last()) {
                    (Some(lateral), Some(coarser)) => {
                        let (_, _, height, width) = feature.dims4()?;
                        let up = upsample_nearest(&lateral.forward(coarser, pass)?, (height, width))?;
                        cat(&[up, feature.clone()], 1)?
                    }
                    _ => feature.clone(),
                };
                for convolution in &level.convolutions {
                    x = convolution.forward(&x, pass)?;
                }
                pass.tap(&format!("neck.{index}"), self.levels.len() - 1 - index, &x)?;
                neck.push(x);
            }
            Ok(neck)
        })?;
        let head = pass.stage("head", || {
            let mut maps = Vec::with_capacity(neck.len());
            for (level, x) in self.levels.iter().zip(&neck) {
                maps.push(level.prediction.forward(&level.bridge.forward(x, pass)?, pass)?);
            }
            Ok(maps)
        })?;
        Ok(Maps { backbone, neck, head })
    }
}
