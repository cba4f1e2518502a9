//! A fully connected layer.

use super::params::{Init, Role, Scope};
use super::pass::{Mode, Pass};
use crate::ops::conv::{ConvSpec, WeightCache, conv2d};
use crate::ops::linear::linear;
use crate::ops::precision::{self, Precision};
use candle_core::{Result, Tensor, Var};
use std::sync::Arc;

/// `x · Wᵀ + b`. Keys: `weight` `[out, in]`, `bias` `[out]`.
#[derive(Debug)]
pub struct Linear {
    weight: Var,
    bias: Var,
    cache: Arc<WeightCache>,
    scope: Scope,
}

impl Linear {
    /// Weight drawn by `init`, bias 0.
    ///
    /// # Errors
    /// A name that is taken, or a device that cannot hold the layer.
    pub fn new(scope: &Scope, input: usize, output: usize, init: Init) -> Result<Self> {
        Ok(Self {
            weight: scope.param("weight", &[output, input], init, Role::Weight)?,
            bias: scope.param("bias", &[output], Init::Constant(0.0), Role::Bias)?,
            cache: Arc::default(),
            scope: scope.clone(),
        })
    }

    /// `[M, in]` → `[M, out]`.
    ///
    /// # Errors
    /// Rows of another length than the layer's input.
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let (weight, bias) = match pass.mode {
            Mode::Infer => (self.weight.detach(), self.bias.detach()),
            Mode::Train | Mode::Frozen => (self.weight.as_tensor().clone(), self.bias.as_tensor().clone()),
        };
        let (rows, inputs) = x.dims2()?;
        let y = match precision::current() {
            precision if precision == Precision::F32 || rows == 0 => linear(x, &weight, &bias)?,
            _ => {
                // a convolution of one map that has a pixel for each row
                let (map, kernels) = (x.t()?.reshape((1, inputs, 1, rows))?, weight.unsqueeze(2)?.unsqueeze(3)?);
                let cache = Some((&self.cache, self.scope.params().version()));
                let y = conv2d(&map, &kernels, Some(&bias), ConvSpec::new(), cache)?;
                y.reshape(((), rows))?.t()?.contiguous()?
            }
        };
        pass.count_flops(2.0 * rows as f64 * inputs as f64 * bias.elem_count() as f64);
        Ok(y)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Params;
    use candle_core::Device;

    fn layer() -> Result<(Params, Linear)> {
        let params = Params::new(&Device::Cpu, 1);
        let linear = Linear::new(&params.root().enter("fc"), 3, 2, Init::XavierUniform)?;
        params.set("fc.weight", &[1.0, 2.0, 3.0, -1.0, 0.5, 0.0])?;
        params.set("fc.bias", &[10.0, 20.0])?;
        Ok((params, linear))
    }

    #[test]
    fn rows_times_the_transposed_weight_plus_the_bias() -> Result<()> {
        let (_, linear) = layer()?;
        let x = Tensor::from_slice(&[1.0f32, 1.0, 1.0, 2.0, 0.0, -1.0], (2, 3), &Device::Cpu)?;
        for mode in [Mode::Infer, Mode::Frozen, Mode::Train] {
            let pass = Pass::new(mode);
            let y = linear.forward(&x, &pass)?.to_vec2::<f32>()?;
            // 1 + 2 + 3 + 10, −1 + ½ + 20; 2 − 3 + 10, −2 + 20
            assert_eq!(y, [[16.0, 19.5], [9.0, 18.0]]);
            assert_eq!(pass.flops(), 24.0);
        }
        assert!(linear.forward(&x.t()?, &Pass::new(Mode::Infer)).is_err());
        Ok(())
    }

    /// Products of up to 8 bits are exact in every precision; 1 + 2^-9 is not, in bf16.
    #[test]
    fn other_precisions_round_the_factors_and_nothing_else() -> Result<()> {
        let (params, linear) = layer()?;
        let bias = 10.0 + 2f32.powi(-10);
        params.set("fc.bias", &[bias, 20.0])?;
        let x = Tensor::from_slice(&[1.0f32, 1.0, 1.0, 2.0, 0.0, -1.0 - 2f32.powi(-9)], (2, 3), &Device::Cpu)?;
        for precision in [Precision::Tf32, Precision::Bf16] {
            let y = precision.within(|| linear.forward(&x, &Pass::new(Mode::Train)))?;
            let third = -precision.round(1.0 + 2f32.powi(-9));
            let second = precision.round(2.0 + 3.0 * third) + bias;
            assert_eq!(y.to_vec2::<f32>()?, [[6.0 + bias, 19.5], [second, 18.0]]);
            let gradients = y.sum_all()?.backward()?;
            let gradient = |name: &str| params.get(name).and_then(|p| gradients.get(p.var.as_tensor()).cloned());
            let weight = gradient("fc.weight").expect("a gradient").to_vec2::<f32>()?;
            assert_eq!(weight[0], [3.0, 1.0, precision.round(1.0 + third)]);
            assert_eq!(gradient("fc.bias").expect("a gradient").to_vec1::<f32>()?, [2.0, 2.0]);
        }
        let nothing = x.narrow(0, 0, 0)?;
        let y = Precision::F16.within(|| linear.forward(&nothing, &Pass::new(Mode::Infer)))?;
        assert_eq!(y.dims(), [0, 2]);
        Ok(())
    }

    #[test]
    fn gradients_are_sums_over_rows_and_only_training_keeps_a_graph() -> Result<()> {
        let (params, linear) = layer()?;
        let x = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], (2, 3), &Device::Cpu)?;
        let gradients = linear.forward(&x, &Pass::new(Mode::Train))?.sum_all()?.backward()?;
        let gradient = |name: &str| params.get(name).and_then(|p| gradients.get(p.var.as_tensor()).cloned());
        let weight = gradient("fc.weight").expect("a gradient");
        assert_eq!(weight.to_vec2::<f32>()?, [[5.0, 7.0, 9.0], [5.0, 7.0, 9.0]]);
        assert_eq!(gradient("fc.bias").expect("a gradient").to_vec1::<f32>()?, [2.0, 2.0]);
        assert!(!linear.forward(&x, &Pass::new(Mode::Infer))?.track_op());
        Ok(())
    }
}
