//! The mask head: convolutions, a doubling transposed convolution, and one channel of logits a class.
//!
//! He et al., "Mask R-CNN" (ICCV 2017), §3.

use super::config::{MaskConfig, RcnnConfig};
use super::regions::Pooled;
use crate::nn::{Conv, ConvBlock, Init, Mode, Pass, Role, Scope};
use crate::ops::activation::relu;
use crate::ops::conv::{Activation, ConvSpec};
use crate::ops::gather::{select_rows, select_rows_of};
use crate::ops::maps::reshape;
use crate::ops::transposed::conv_transpose2d;
use candle_core::{Result, Tensor, Var};

/// A mask head. Names are torchvision's, with the stage's number where there are several.
#[derive(Debug)]
pub(super) struct MaskHead {
    convolutions: Vec<ConvBlock>,
    /// Transposed convolution 2×2 of stride 2: `[in, out, 2, 2]` and `[out]`.
    weight: Var,
    bias: Var,
    logits: Conv,
}

/// Mask logits of RoIs, in the order of their features.
#[derive(Debug)]
pub(super) struct MaskLogits {
    /// `[R, channels, side, side]`
    pub(super) logits: Tensor,
    rows: Vec<u32>,
}

impl MaskHead {
    /// `scope` is torchvision's `roi_heads`; `stage` is the number in a cascade with a mask head for each stage.
    pub(super) fn new(scope: &Scope, config: &RcnnConfig, mask: &MaskConfig, stage: Option<usize>) -> Result<Self> {
        let numbered = |name: &str| match stage {
            Some(stage) => scope.enter(name).enter(stage),
            None => scope.enter(name),
        };
        let (head, predictor) = (numbered("mask_head"), numbered("mask_predictor"));
        let spec = ConvSpec::new().padding(1).activation(Activation::Relu);
        let width = mask.mask_width;
        let mut input = config.neck.channels;
        let mut convolutions = Vec::with_capacity(mask.mask_convolutions);
        for index in 0..mask.mask_convolutions {
            let shape = (input, width, 3);
            convolutions.push(ConvBlock::new(&head.enter(index), shape, spec, Init::Kaiming, mask.mask_norm)?);
            input = width;
        }
        let doubling = predictor.enter("conv5_mask");
        let shape = (width, config.mask_channels(), 1);
        Ok(Self {
            convolutions,
            weight: doubling.param("weight", &[input, width, 2, 2], Init::Kaiming, Role::Weight)?,
            bias: doubling.param("bias", &[width], Init::Constant(0.0), Role::Bias)?,
            logits: Conv::new(&predictor.enter("mask_fcn_logits"), shape, ConvSpec::new(), Init::Kaiming)?,
        })
    }

    /// Features `[R, C, s, s]` → logits `[R, channels, 2s, 2s]`.
    pub(super) fn forward(&self, pooled: &Pooled, pass: &Pass) -> Result<MaskLogits> {
        let mut x = pooled.features.clone();
        for convolution in &self.convolutions {
            x = convolution.forward(&x, pass)?;
        }
        let (weight, bias) = match pass.mode {
            Mode::Infer => (self.weight.detach(), self.bias.detach()),
            Mode::Train | Mode::Frozen => (self.weight.as_tensor().clone(), self.bias.as_tensor().clone()),
        };
        pass.count_flops(2.0 * x.elem_count() as f64 * 4.0 * bias.elem_count() as f64);
        let x = relu(&conv_transpose2d(&x, &weight, Some(&bias), 2, 0, 0, 1)?)?;
        Ok(MaskLogits { logits: self.logits.forward(&x, pass)?, rows: pooled.rows.clone() })
    }
}

impl MaskLogits {
    /// Cells on each side of a mask.
    pub(super) fn side(&self) -> Result<usize> {
        Ok(self.logits.dims4()?.2)
    }

    /// One channel of each RoI, in the order of the RoIs: `[R, side · side]`.
    ///
    /// # Errors
    /// Another number of channels than RoIs, or one that the head does not have.
    pub(super) fn of_channels(&self, channels: &[usize]) -> Result<Tensor> {
        let (rois, own, height, width) = self.logits.dims4()?;
        if channels.len() != rois || channels.iter().any(|&channel| channel >= own) {
            candle_core::bail!("{} channels asked of mask logits of shape {:?}", channels.len(), self.logits.dims());
        }
        let places = self.rows.iter().zip(channels).map(|(&row, &channel)| row * own as u32 + channel as u32);
        select_rows(&reshape(&self.logits, (rois * own, height * width))?, &places.collect::<Vec<u32>>())
    }

    /// [`Self::of_channels`] on a CUDA device that has the rows among `[R · channels, side · side]`, u32 `[R]`.
    pub(super) fn of_places(&self, places: &Tensor) -> Result<Tensor> {
        let (rois, own, height, width) = self.logits.dims4()?;
        select_rows_of(&reshape(&self.logits, (rois * own, height * width))?, places)
    }

    /// All channels in the order of the RoIs: `[R, channels, side, side]`.
    pub(super) fn in_order(&self) -> Result<Tensor> {
        select_rows(&self.logits, &self.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Params;
    use candle_core::Device;

    #[test]
    fn the_second_version_has_norms_behind_its_convolutions() -> Result<()> {
        let config = RcnnConfig::mask_nano(&["a".to_string()]).second();
        let Some(mask) = config.mask else {
            candle_core::bail!("no mask branch");
        };
        let params = Params::new(&Device::Cpu, 1);
        MaskHead::new(&params.root(), &config, &mask, None)?;
        assert!(params.get("mask_head.1.1.running_mean").is_some() && params.get("mask_head.1.0.bias").is_none());
        Ok(())
    }

    #[test]
    fn masks_have_twice_the_side_and_a_channel_a_class() -> Result<()> {
        let config = RcnnConfig::mask_nano(&["a".to_string(), "b".to_string()]);
        let Some(mask) = config.mask else {
            candle_core::bail!("no mask branch");
        };
        let params = Params::new(&Device::Cpu, 1);
        let head = MaskHead::new(&params.root().enter("roi_heads"), &config, &mask, None)?;
        for name in ["mask_head.0.0.weight", "mask_head.1.0.bias", "mask_predictor.conv5_mask.weight"] {
            assert!(params.get(&format!("roi_heads.{name}")).is_some(), "{name}");
        }
        let features = Tensor::rand(0f32, 1.0, (2, 40, 14, 14), &Device::Cpu)?;
        let pooled = Pooled { features, rows: vec![1, 0] };
        let masks = head.forward(&pooled, &Pass::new(Mode::Infer))?;
        // background first: three channels for two classes
        assert_eq!((masks.logits.dims(), masks.side()?), (&[2, 3, 28, 28][..], 28));
        let picked = masks.of_channels(&[2, 1])?.to_vec2::<f32>()?;
        let expected = |row: usize, channel: usize| -> Result<Vec<f32>> {
            masks.logits.get(row)?.get(channel)?.flatten_all()?.to_vec1()
        };
        assert_eq!(picked, [expected(1, 2)?, expected(0, 1)?]);
        let ordered = masks.in_order()?.get(0)?.get(2)?.flatten_all()?.to_vec1::<f32>()?;
        assert_eq!(ordered, picked[0]);
        assert!(masks.of_channels(&[3, 0]).is_err() && masks.of_channels(&[0]).is_err());
        Ok(())
    }
}
