//! The box head of one stage: two fully connected layers, then classes and box codes.

use super::config::RcnnConfig;
use super::regions::Pooled;
use crate::nn::linear::Linear;
use crate::nn::{Init, Pass, Scope};
use crate::ops::activation::relu;
use candle_core::{Result, Tensor};

/// One stage's head. Names are torchvision's, with the stage's number where there are several.
#[derive(Debug)]
pub(super) struct BoxHead {
    fc6: Linear,
    fc7: Linear,
    classes: Linear,
    /// None for a head that only classifies.
    boxes: Option<Linear>,
}

/// What a head says about RoIs, in their order.
#[derive(Clone, Debug)]
pub(super) struct Answers {
    /// `[R, classes and background]`
    pub(super) logits: Tensor,
    /// `[R, 4 · regressed boxes]`
    pub(super) deltas: Option<Tensor>,
}

impl BoxHead {
    /// `scope` is torchvision's `roi_heads`; `stage` is the number in a cascade.
    pub(super) fn new(scope: &Scope, config: &RcnnConfig, stage: Option<usize>, regresses: bool) -> Result<Self> {
        let numbered = |name: &str| match stage {
            Some(stage) => scope.enter(name).enter(stage),
            None => scope.enter(name),
        };
        let (head, predictor) = (numbered("box_head"), numbered("box_predictor"));
        let inputs = config.neck.channels * config.pooled * config.pooled;
        let width = config.head_width;
        let boxes = if regresses {
            Some(Linear::new(&predictor.enter("bbox_pred"), width, 4 * config.regressed(), Init::Normal(0.001))?)
        } else {
            None
        };
        Ok(Self {
            fc6: Linear::new(&head.enter("fc6"), inputs, width, Init::XavierUniform)?,
            fc7: Linear::new(&head.enter("fc7"), width, width, Init::XavierUniform)?,
            classes: Linear::new(&predictor.enter("cls_score"), width, config.logits(), Init::Normal(0.01))?,
            boxes,
        })
    }

    /// Classes and box codes of RoIs whose features were pooled.
    pub(super) fn forward(&self, pooled: &Pooled, pass: &Pass) -> Result<Answers> {
        let x = pooled.features.flatten_from(1)?;
        let x = relu(&self.fc6.forward(&x, pass)?)?;
        let x = relu(&self.fc7.forward(&x, pass)?)?;
        let logits = pooled.in_order(&self.classes.forward(&x, pass)?)?;
        let deltas = match &self.boxes {
            Some(boxes) => Some(pooled.in_order(&boxes.forward(&x, pass)?)?),
            None => None,
        };
        Ok(Answers { logits, deltas })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Mode, Params};
    use candle_core::Device;

    #[test]
    fn names_carry_the_stage_in_a_cascade_alone() -> Result<()> {
        let config = RcnnConfig::faster_nano(&["a".to_string(), "b".to_string()]);
        let params = Params::new(&Device::Cpu, 1);
        let scope = params.root().enter("roi_heads");
        BoxHead::new(&scope, &config, None, true)?;
        BoxHead::new(&scope, &config, Some(2), false)?;
        let shape = |name: &str| params.get(name).map(|p| p.var.dims().to_vec());
        assert_eq!(shape("roi_heads.box_head.fc6.weight"), Some(vec![48, 40 * 49]));
        assert_eq!(shape("roi_heads.box_predictor.bbox_pred.weight"), Some(vec![12, 48]));
        assert_eq!(shape("roi_heads.box_predictor.2.cls_score.bias"), Some(vec![3]));
        assert_eq!(shape("roi_heads.box_predictor.2.bbox_pred.bias"), None);
        Ok(())
    }

    #[test]
    fn answers_come_in_the_order_of_the_rois() -> Result<()> {
        let config = RcnnConfig::cascade_nano(&["a".to_string()]);
        let params = Params::new(&Device::Cpu, 1);
        let head = BoxHead::new(&params.root(), &config, Some(0), true)?;
        let features = Tensor::rand(0f32, 1.0, (3, 40, 7, 7), &Device::Cpu)?;
        let pass = Pass::new(Mode::Infer);
        let ordered = head.forward(&Pooled { features: features.clone(), rows: vec![0, 1, 2] }, &pass)?;
        let turned = head.forward(&Pooled { features, rows: vec![2, 0, 1] }, &pass)?;
        let (a, b) = (ordered.logits.to_vec2::<f32>()?, turned.logits.to_vec2::<f32>()?);
        assert_eq!([&b[0], &b[1], &b[2]], [&a[2], &a[0], &a[1]]);
        let deltas = ordered.deltas.map(|d| d.dims().to_vec());
        assert_eq!(deltas, Some(vec![3, 4]));
        Ok(())
    }
}
