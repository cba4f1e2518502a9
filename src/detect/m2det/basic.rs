//! M2Det's unit: convolution with batch norm and ReLU.

use crate::nn::conv::ConvShape;
use crate::nn::{ConvNorm, Init, Mode, Pass, Scope};
use crate::ops::conv::{Activation, ConvSpec};
use candle_core::{Result, Tensor};

/// Share of a new batch in the running statistics of every [`BasicConv`].
pub(super) const MOMENTUM: f32 = 0.01;

/// Convolution without bias, batch norm, ReLU. Keys: `conv.weight`, `bn.*`.
#[derive(Debug)]
pub(super) struct BasicConv {
    conv: ConvNorm,
    kernel: usize,
    spec: ConvSpec,
}

impl BasicConv {
    pub(super) fn new(scope: &Scope, shape: ConvShape, spec: ConvSpec) -> Result<Self> {
        Self::with_momentum(scope, shape, spec, MOMENTUM)
    }

    pub(super) fn with_momentum(scope: &Scope, shape: ConvShape, spec: ConvSpec, momentum: f32) -> Result<Self> {
        let spec = spec.activation(Activation::Relu);
        let conv = ConvNorm::new(&scope.enter("conv"), &scope.enter("bn"), shape, spec, Init::Kaiming)?;
        Ok(Self { conv: conv.momentum(momentum), kernel: shape.2, spec })
    }

    /// `[N, in, H, W]` → `[N, out, H', W']`.
    ///
    /// In training, a batch that leaves one value per channel (one image at the coarsest scale) has no variance; its
    /// running statistics stand in, where the reference refuses the batch.
    pub(super) fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let (images, _, height, width) = x.dims4()?;
        let (rows, columns) = self.spec.output_size((height, width), (self.kernel, self.kernel))?;
        if pass.mode == Mode::Train && images * rows * columns == 1 {
            let frozen = Pass::new(Mode::Frozen);
            let y = self.conv.forward(x, &frozen)?;
            pass.count_flops(frozen.flops());
            return Ok(y);
        }
        self.conv.forward(x, pass)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Params;
    use candle_core::Device;

    fn values(x: &Tensor) -> Result<Vec<f32>> {
        x.flatten_all()?.to_vec1()
    }

    #[test]
    fn statistics_move_by_a_hundredth() -> Result<()> {
        let params = Params::new(&Device::Cpu, 0);
        let basic = BasicConv::new(&params.root().enter("a"), (1, 1, 1), ConvSpec::new())?;
        params.set("a.conv.weight", &[1.0])?;
        // mean 2, unbiased variance 2
        let x = Tensor::from_slice(&[1.0_f32, 3.0], (1, 1, 1, 2), &Device::Cpu)?;
        let pass = Pass::new(Mode::Train);
        let y = values(&basic.forward(&x, &pass)?)?;
        // (3 − 2) / √(1 + ε) and its negative, which the ReLU cuts
        assert!(y[0] == 0.0 && (y[1] - 1.0).abs() < 1e-4, "{y:?}");
        pass.commit()?;
        let stored = params.values()?;
        for (name, expected) in [("a.bn.running_mean", 0.02), ("a.bn.running_var", 1.01)] {
            let found: f32 = stored[name].1[0];
            assert!((found - expected).abs() < 1e-6, "{name}: {found}");
        }
        Ok(())
    }

    #[test]
    fn a_single_value_takes_the_running_statistics_and_leaves_them() -> Result<()> {
        let params = Params::new(&Device::Cpu, 0);
        let basic = BasicConv::new(&params.root().enter("a"), (1, 1, 3), ConvSpec::new())?;
        params.set("a.conv.weight", &[1.0; 9])?;
        let x = Tensor::from_slice(&[0.5_f32; 9], (1, 1, 3, 3), &Device::Cpu)?;
        let pass = Pass::new(Mode::Train);
        let y = basic.forward(&x, &pass)?;
        pass.commit()?;
        assert!((values(&y)?[0] - 4.5).abs() < 1e-3);
        assert_eq!(params.values()?["a.bn.running_mean"].1, [0.0]);
        assert!(pass.flops() > 0.0);
        Ok(())
    }
}
