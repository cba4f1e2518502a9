//! The transfer connection block: features of the first stage become those of the second, with the coarser level's
//! added (Zhang et al., "Single-Shot Refinement Neural Network for Object Detection", CVPR 2018, §3.1).

use crate::nn::backbone::vgg::Layer;
use crate::nn::neck::map_norm::MapNorm;
use crate::nn::{Conv, ConvNorm, Init, Mode, Pass, Role, Scope};
use crate::ops::activation::relu;
use crate::ops::conv::{Activation, ConvSpec};
use crate::ops::maps::add;
use crate::ops::transposed::conv_transpose2d;
use candle_core::{Result, Tensor, Var};

/// What of a block has batch norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Norms {
    None,
    /// The convolutions.
    Convolutions,
    /// The convolutions and the transposed one (the residual network's).
    All,
}

/// Transposed convolution 2×2 at stride 2: twice the height and width. Keys: `weight` `[in, out, 2, 2]`, and `bias` or
/// `norm.*`.
#[derive(Debug)]
struct Deconv {
    weight: Var,
    shift: Shift,
}

/// What follows the products of a transposed convolution.
#[derive(Debug)]
enum Shift {
    Bias(Var),
    Norm(MapNorm),
}

const SIDE: usize = 2;

impl Deconv {
    fn new(scope: &Scope, channels: usize, norm: bool) -> Result<Self> {
        let shape = [channels, channels, SIDE, SIDE];
        let weight = scope.param("weight", &shape, Init::XavierUniform, Role::Weight)?;
        let shift = if norm {
            Shift::Norm(MapNorm::new(&scope.enter("norm"), channels)?)
        } else {
            Shift::Bias(scope.param("bias", &[channels], Init::Constant(0.0), Role::Bias)?)
        };
        Ok(Self { weight, shift })
    }

    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let weight = follow(&self.weight, pass);
        let y = match &self.shift {
            Shift::Bias(bias) => conv_transpose2d(x, &weight, Some(&follow(bias, pass)), SIDE, 0, 0, 1)?,
            Shift::Norm(norm) => norm.forward(&conv_transpose2d(x, &weight, None, SIDE, 0, 0, 1)?, pass)?,
        };
        // the patches do not overlap: each output is one product per input channel
        pass.count_flops(2.0 * y.elem_count() as f64 * x.dim(1)? as f64);
        Ok(y)
    }
}

/// The parameter's tensor, followed by autograd unless the pass only infers.
pub(super) fn follow(var: &Var, pass: &Pass) -> Tensor {
    match pass.mode {
        Mode::Infer => var.detach(),
        Mode::Train | Mode::Frozen => var.as_tensor().clone(),
    }
}

/// One block. Keys for level k: `tcb0.{3k}`, `tcb0.{3k+2}`, `tcb1.{k}` (absent at the top), `tcb2.{3k+1}`.
#[derive(Debug)]
pub(super) struct Connection {
    reduce: Layer,
    /// Without a ReLU: the sum with the coarser level comes first.
    lateral: Layer,
    upsample: Option<Deconv>,
    output: Layer,
}

impl Connection {
    /// From a source of `input` channels to a map of `output`; the `top` level has none above it.
    pub(super) fn new(
        root: &Scope,
        level: usize,
        (input, output): (usize, usize),
        top: bool,
        norms: Norms,
    ) -> Result<Self> {
        let norm = norms != Norms::None;
        let spec = ConvSpec::new().padding(1);
        let first = root.enter("tcb0").enter(3 * level);
        let second = root.enter("tcb0").enter(3 * level + 2);
        let doubling = root.enter("tcb1").enter(level);
        let upsample = if top { None } else { Some(Deconv::new(&doubling, output, norms == Norms::All)?) };
        let last = root.enter("tcb2").enter(3 * level + 1);
        let shape = (output, output, 3);
        let lateral = if norm {
            Layer::Normed(ConvNorm::new(&second, &second.enter("norm"), shape, spec, Init::Kaiming)?)
        } else {
            Layer::Plain(Conv::new(&second, shape, spec, Init::XavierUniform)?)
        };
        Ok(Self {
            reduce: Layer::new(&first, (input, output, 3), spec, norm, Init::XavierUniform)?,
            lateral,
            upsample,
            output: Layer::new(&last, shape, spec, norm, Init::XavierUniform)?,
        })
    }

    /// `source` `[N, C, H, W]` and the block's output above it at half the size → `[N, output, H, W]`.
    pub(super) fn forward(&self, source: &Tensor, above: Option<&Tensor>, pass: &Pass) -> Result<Tensor> {
        let lateral = self.lateral.forward(&self.reduce.forward(source, pass)?, pass)?;
        let merged = match (&self.upsample, above) {
            (Some(upsample), Some(above)) => add(&lateral, &upsample.forward(above, pass)?, Activation::None)?,
            (None, None) => lateral,
            (Some(_), None) => candle_core::bail!("a connection block below the top needs the level above"),
            (None, Some(_)) => candle_core::bail!("the top connection block has no level above"),
        };
        self.output.forward(&relu(&merged)?, pass)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Params;
    use candle_core::{DType, Device};

    #[test]
    fn the_level_above_is_doubled_and_added() -> Result<()> {
        let params = Params::new(&Device::Cpu, 2);
        let root = params.root();
        let top = Connection::new(&root, 1, (3, 4), true, Norms::None)?;
        let below = Connection::new(&root, 0, (2, 4), false, Norms::None)?;
        let ones = |shape: (usize, usize, usize, usize)| Tensor::ones(shape, DType::F32, &Device::Cpu);
        let pass = Pass::new(Mode::Infer);
        let coarse = top.forward(&ones((2, 3, 2, 3))?, None, &pass)?;
        assert_eq!(coarse.dims(), [2, 4, 2, 3]);
        let fine = below.forward(&ones((2, 2, 4, 6))?, Some(&coarse), &pass)?;
        assert_eq!(fine.dims(), [2, 4, 4, 6]);
        assert!(below.forward(&ones((2, 2, 4, 6))?, None, &pass).is_err());
        assert!(below.forward(&ones((2, 2, 5, 6))?, Some(&coarse), &pass).is_err());
        let names: Vec<String> = params.all().into_iter().map(|p| p.name).filter(|n| n.ends_with("weight")).collect();
        assert!(names.contains(&"tcb0.3.weight".to_string()) && names.contains(&"tcb0.5.weight".to_string()));
        assert!(names.contains(&"tcb2.4.weight".to_string()) && names.contains(&"tcb1.0.weight".to_string()));
        assert!(!names.contains(&"tcb1.1.weight".to_string()));
        Ok(())
    }

    #[test]
    fn a_pass_that_infers_keeps_no_graph_to_the_deconvolution() -> Result<()> {
        let params = Params::new(&Device::Cpu, 2);
        let deconv = Deconv::new(&params.root(), 1, false)?;
        params.set("weight", &[1.0, 2.0, 3.0, 4.0])?;
        params.set("bias", &[0.5])?;
        let x = Tensor::from_slice(&[1.0_f32, 10.0], (1, 1, 1, 2), &Device::Cpu)?;
        let y = deconv.forward(&x, &Pass::new(Mode::Infer))?;
        // each pixel times the kernel, tiled
        assert_eq!(y.flatten_all()?.to_vec1::<f32>()?, [1.5, 2.5, 10.5, 20.5, 3.5, 4.5, 30.5, 40.5]);
        assert!(!y.track_op() && deconv.forward(&x, &Pass::new(Mode::Frozen))?.track_op());
        Ok(())
    }
}
