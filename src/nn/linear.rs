//! A fully connected layer.

use super::params::{Init, Role, Scope};
use super::pass::{Mode, Pass};
use candle_core::{Result, Tensor, Var};

/// `x · Wᵀ + b`. Keys: `weight` `[out, in]`, `bias` `[out]`.
#[derive(Debug)]
pub struct Linear {
    weight: Var,
    bias: Var,
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
        let y = x.matmul(&weight.t()?)?.broadcast_add(&bias)?;
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
