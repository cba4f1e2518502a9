//! The box head of one stage: fully connected layers, then classes and box codes.

use super::config::{RcnnConfig, Trunk};
use super::regions::Pooled;
use crate::nn::linear::Linear;
use crate::nn::{ConvNorm, Init, Pass, Scope};
use crate::ops::activation::relu;
use crate::ops::conv::{Activation, ConvSpec};
use crate::ops::maps::reshape;
use candle_core::{Result, Tensor};

/// One stage's head. Names are torchvision's, with the stage's number where there are several.
#[derive(Debug)]
pub(super) struct BoxHead {
    convolutions: Vec<ConvNorm>,
    /// With a ReLU behind each.
    hidden: Vec<Linear>,
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
        let (convolutions, hidden, width) = match config.trunk {
            Trunk::Pyramid => {
                let (convolutions, hidden) = layers(&head, config)?;
                (convolutions, hidden, config.head_width)
            }
            Trunk::C4 => (Vec::new(), Vec::new(), config.backbone.channels()[3]),
        };
        let boxes = if regresses {
            Some(Linear::new(&predictor.enter("bbox_pred"), width, 4 * config.regressed(), Init::Normal(0.001))?)
        } else {
            None
        };
        Ok(Self {
            convolutions,
            hidden,
            classes: Linear::new(&predictor.enter("cls_score"), width, config.logits(), Init::Normal(0.01))?,
            boxes,
        })
    }

    /// Classes and box codes of RoIs whose features were pooled.
    pub(super) fn forward(&self, pooled: &Pooled, pass: &Pass) -> Result<Answers> {
        let mut x = pooled.features.clone();
        for convolution in &self.convolutions {
            x = convolution.forward(&x, pass)?;
        }
        x = reshape(&x, (x.dim(0)?, x.dims()[1..].iter().product()))?;
        for layer in &self.hidden {
            x = relu(&layer.forward(&x, pass)?)?;
        }
        let logits = pooled.in_order(&self.classes.forward(&x, pass)?)?;
        let deltas = match &self.boxes {
            Some(boxes) => Some(pooled.in_order(&boxes.forward(&x, pass)?)?),
            None => None,
        };
        Ok(Answers { logits, deltas })
    }
}

/// What lies between the RoIs' cells and the two answers: torchvision's `TwoMLPHead`, or with convolutions its
/// `FastRCNNConvFCHead`, whose layers are numbered and whose flattening has a number too.
fn layers(head: &Scope, config: &RcnnConfig) -> Result<(Vec<ConvNorm>, Vec<Linear>)> {
    let (channels, width) = (config.neck.channels, config.head_width);
    let spec = ConvSpec::new().padding(1).activation(Activation::Relu);
    let mut convolutions = Vec::with_capacity(config.head_convolutions);
    for index in 0..config.head_convolutions {
        let (conv, norm) = (head.enter(index).enter(0), head.enter(index).enter(1));
        convolutions.push(ConvNorm::new(&conv, &norm, (channels, channels, 3), spec, Init::Kaiming)?);
    }
    let linear = |name: &str, inputs: usize| Linear::new(&head.enter(name), inputs, width, Init::XavierUniform);
    let cells = channels * config.pooled * config.pooled;
    let hidden = match convolutions.len() {
        0 => vec![linear("fc6", cells)?, linear("fc7", width)?],
        count => vec![linear(&(count + 1).to_string(), cells)?],
    };
    Ok((convolutions, hidden))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Mode, Params};
    use candle_core::Device;

    #[test]
    fn convolutions_come_with_norms_and_one_connected_layer_and_c4_has_none() -> Result<()> {
        let names = ["a".to_string()];
        let shapes = |config: &RcnnConfig| -> Result<Vec<(String, Vec<usize>)>> {
            let params = Params::new(&Device::Cpu, 1);
            BoxHead::new(&params.root(), config, None, true)?;
            Ok(params.all().into_iter().map(|p| (p.name, p.var.dims().to_vec())).collect())
        };
        let second = shapes(&RcnnConfig::faster_nano(&names).second())?;
        let of = |name: &str| second.iter().find(|(own, _)| own == name).map(|(_, shape)| shape.clone());
        assert_eq!(of("box_head.3.0.weight"), Some(vec![40, 40, 3, 3]));
        assert_eq!((of("box_head.3.0.bias"), of("box_head.0.1.running_var")), (None, Some(vec![40])));
        // the flattening is number 4
        assert_eq!((of("box_head.5.weight"), of("box_head.fc6.weight")), (Some(vec![48, 40 * 49]), None));
        // four layers of five tensors, three of two
        assert_eq!(second.len(), 26);
        let c4 = shapes(&RcnnConfig::c4(&names))?;
        assert_eq!((c4.len(), c4[0].1.clone()), (4, vec![4, 2048]));
        Ok(())
    }

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
