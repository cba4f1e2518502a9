//! The region proposal network: one small head on every level of the pyramid, and the anchors it speaks of.
//!
//! Ren et al., "Faster R-CNN" (NIPS 2015), §3.1; on a pyramid after Lin et al., "Feature Pyramid Networks" (CVPR 2017),
//! §4.1.

use super::config::RpnConfig;
use crate::detect::Outputs;
use crate::geometry::anchors::integer_strides;
use crate::nn::{Conv, Init, Pass, Scope};
use crate::ops::conv::{Activation, ConvSpec};
use crate::ops::maps::{by_cell, reshape};
use crate::trace::{AnchorLevel, Anchors};
use candle_core::{Result, Tensor};

/// 3×3 convolutions with ReLU, then objectness and box code by 1×1.
#[derive(Debug)]
pub(super) struct RpnHead {
    convolutions: Vec<Conv>,
    objectness: Conv,
    regression: Conv,
}

impl RpnHead {
    /// `scope` is torchvision's `rpn.head`.
    pub(super) fn new(scope: &Scope, channels: usize, config: &RpnConfig) -> Result<Self> {
        let init = Init::Normal(0.01);
        let three = ConvSpec::new().padding(1).activation(Activation::Relu);
        let convolutions: Result<Vec<Conv>> = (0..config.convolutions)
            .map(|index| Conv::new(&scope.enter("conv").enter(index).enter(0), (channels, channels, 3), three, init))
            .collect();
        let per_cell = config.anchors.per_cell(0);
        let one = ConvSpec::new();
        Ok(Self {
            convolutions: convolutions?,
            objectness: Conv::new(&scope.enter("cls_logits"), (channels, per_cell, 1), one, init)?,
            regression: Conv::new(&scope.enter("bbox_pred"), (channels, 4 * per_cell, 1), one, init)?,
        })
    }

    /// Of each named level `[N, C, H, W]` the objectness logits `[N, A, H, W]` and the box code `[N, 4A, H, W]`.
    pub(super) fn forward(&self, levels: &[(String, Tensor)], pass: &Pass) -> Result<Vec<(Tensor, Tensor)>> {
        let mut answers = Vec::with_capacity(levels.len());
        for (_, level) in levels {
            let mut x = level.clone();
            for convolution in &self.convolutions {
                x = convolution.forward(&x, pass)?;
            }
            answers.push((self.objectness.forward(&x, pass)?, self.regression.forward(&x, pass)?));
        }
        Ok(answers)
    }
}

/// The anchors of all levels in the order of [`answers`], input pixels.
pub(super) fn anchors(config: &RpnConfig, outputs: &Outputs) -> Anchors {
    let strides: Vec<(f32, f32)> = if config.integer_strides {
        integer_strides(outputs.input, &outputs.maps)
    } else {
        config.strides.iter().map(|&stride| (stride, stride)).collect()
    };
    let mut start = 0;
    let mut levels = Vec::with_capacity(outputs.maps.len());
    for (level, (&(rows, columns), &(stride, _))) in outputs.maps.iter().zip(&strides).enumerate() {
        let per_cell = config.anchors.per_cell(level);
        let len = rows * columns * per_cell;
        levels.push(AnchorLevel { start, len, rows, columns, per_cell, stride });
        start += len;
    }
    Anchors { boxes: config.anchors.grid_anchors(&outputs.maps, &strides), levels }
}

/// Objectness `[N, anchors]` and box code `[N, anchors, 4]` from the outputs of a forward pass.
pub(super) fn answers(outputs: &Outputs) -> Result<(Tensor, Tensor)> {
    let levels = 0..outputs.maps.len();
    let logits: Result<Vec<&Tensor>> = levels.clone().map(|level| outputs.get(&logits_name(level))).collect();
    let deltas: Result<Vec<&Tensor>> = levels.map(|level| outputs.get(&deltas_name(level))).collect();
    let (logits, deltas) = (by_cell(logits?, 1)?, by_cell(deltas?, 4)?);
    let (images, anchors, _) = deltas.dims3()?;
    Ok((reshape(&logits, (images, anchors))?, deltas))
}

/// Name of a level's objectness among the outputs.
pub(super) fn logits_name(level: usize) -> String {
    format!("rpn_head.logits{level}")
}

/// Name of a level's box code among the outputs.
pub(super) fn deltas_name(level: usize) -> String {
    format!("rpn_head.deltas{level}")
}

#[cfg(test)]
mod tests {
    use super::super::config::RcnnConfig;
    use super::*;
    use crate::nn::{Mode, Params};
    use candle_core::{DType, Device};

    #[test]
    fn one_head_serves_maps_of_any_size() -> Result<()> {
        let config = RcnnConfig::faster_nano(&["a".to_string()]).rpn;
        let params = Params::new(&Device::Cpu, 1);
        let head = RpnHead::new(&params.root().enter("rpn").enter("head"), 8, &config)?;
        for name in ["rpn.head.conv.0.0.weight", "rpn.head.cls_logits.bias", "rpn.head.bbox_pred.weight"] {
            assert!(params.get(name).is_some(), "{name}");
        }
        let map = |h: usize, w: usize| -> Result<(String, Tensor)> {
            Ok((String::new(), Tensor::ones((2, 8, h, w), DType::F32, &Device::Cpu)?))
        };
        let answers = head.forward(&[map(5, 7)?, map(1, 1)?], &Pass::new(Mode::Infer))?;
        assert_eq!((answers[0].0.dims(), answers[0].1.dims()), (&[2, 6, 5, 7][..], &[2, 24, 5, 7][..]));
        assert_eq!(answers[1].0.dims(), [2, 6, 1, 1]);
        Ok(())
    }

    #[test]
    fn anchors_follow_the_maps_and_the_rule_of_strides() {
        let config = RcnnConfig::faster_nano(&["a".to_string()]).rpn;
        let maps = vec![(48, 64), (24, 32), (12, 16), (6, 8), (3, 4)];
        let outputs = Outputs { tensors: Vec::new(), maps, input: (192, 256) };
        let found = anchors(&config, &outputs);
        // 6 · (3072 + 768 + 192 + 48 + 12)
        assert_eq!(found.boxes.len(), 24_552);
        assert_eq!(found.levels.iter().map(|l| l.stride as usize).collect::<Vec<_>>(), [4, 8, 16, 32, 64]);
        assert_eq!((found.levels[4].start, found.levels[4].len), (24_480, 72));
        // the third is the smaller square
        assert_eq!(found.boxes[2].width(), 10.0);
        // 200 rows over 13 cells: 15 by division, 64 by the table
        let odd = Outputs {
            tensors: Vec::new(),
            maps: vec![(50, 50), (25, 25), (13, 13), (7, 7), (13, 4)],
            input: (200, 200),
        };
        assert_eq!(anchors(&config, &odd).levels[4].stride, 15.0);
        let fixed = RpnConfig { integer_strides: false, ..config };
        assert_eq!(anchors(&fixed, &odd).levels[4].stride, 64.0);
    }
}
