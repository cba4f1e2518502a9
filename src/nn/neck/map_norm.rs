//! Batch norm of a map where no convolution stands right before it to fold it into.

use crate::nn::{Init, Mode, Pass, Role, Scope};
use crate::ops::norm::{batch_norm, batch_norm_train};
use candle_core::{Result, Tensor, Var};

/// Batch norm alone. Keys: `weight`, `bias`, `running_mean`, `running_var`.
#[derive(Debug)]
pub struct MapNorm {
    gamma: Var,
    beta: Var,
    running_mean: Var,
    running_var: Var,
}

const EPSILON: f32 = 1e-5;
/// PyTorch's default share of a new batch in the running statistics.
const MOMENTUM: f32 = 0.1;

impl MapNorm {
    /// # Errors
    /// A name that is taken, or a device that cannot hold the numbers.
    pub fn new(scope: &Scope, channels: usize) -> Result<Self> {
        let vector = |name: &str, value: f32, role: Role| scope.param(name, &[channels], Init::Constant(value), role);
        Ok(Self {
            gamma: vector("weight", 1.0, Role::Norm)?,
            beta: vector("bias", 0.0, Role::Norm)?,
            running_mean: vector("running_mean", 0.0, Role::Buffer)?,
            running_var: vector("running_var", 1.0, Role::Buffer)?,
        })
    }

    /// `[N, C, H, W]` → the same shape. In training the running statistics follow the batch; a batch that leaves one
    /// value per channel has no variance, and the running statistics stand in.
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let values_per_channel = x.elem_count() / x.dim(1)?.max(1);
        match pass.mode {
            Mode::Train if values_per_channel > 1 => {
                let (y, mean, var) = batch_norm_train(x, self.gamma.as_tensor(), self.beta.as_tensor(), EPSILON)?;
                pass.defer(&self.running_mean, mean, MOMENTUM);
                pass.defer(&self.running_var, var, MOMENTUM);
                Ok(y)
            }
            Mode::Train | Mode::Frozen => self.by_running(x, self.gamma.as_tensor(), self.beta.as_tensor()),
            Mode::Infer => self.by_running(x, &self.gamma.detach(), &self.beta.detach()),
        }
    }

    fn by_running(&self, x: &Tensor, gamma: &Tensor, beta: &Tensor) -> Result<Tensor> {
        batch_norm(x, gamma, beta, &self.running_mean.detach(), &self.running_var.detach(), EPSILON)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Params;
    use candle_core::Device;

    #[test]
    fn statistics_move_by_a_tenth_and_not_by_a_single_value() -> Result<()> {
        let params = Params::new(&Device::Cpu, 0);
        let norm = MapNorm::new(&params.root().enter("Norm"), 1)?;
        // mean 2, unbiased variance 2
        let x = Tensor::from_slice(&[1.0_f32, 3.0], (1, 1, 1, 2), &Device::Cpu)?;
        let pass = Pass::new(Mode::Train);
        let y: Vec<f32> = norm.forward(&x, &pass)?.flatten_all()?.to_vec1()?;
        assert!((y[0] + 1.0).abs() < 1e-4 && (y[1] - 1.0).abs() < 1e-4, "{y:?}");
        pass.commit()?;
        for (name, expected) in [("Norm.running_mean", 0.2), ("Norm.running_var", 1.1)] {
            assert!((params.values()?[name].1[0] - expected).abs() < 1e-6_f32, "{name}");
        }
        let pass = Pass::new(Mode::Train);
        let single = norm.forward(&Tensor::from_slice(&[0.2_f32], (1, 1, 1, 1), &Device::Cpu)?, &pass)?;
        pass.commit()?;
        assert!(single.flatten_all()?.to_vec1::<f32>()?[0].abs() < 1e-6);
        assert!((params.values()?["Norm.running_mean"].1[0] - 0.2).abs() < 1e-6);
        Ok(())
    }
}
