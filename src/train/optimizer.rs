//! Stochastic gradient descent with momentum, or AdamW, with parameter groups by role, gradient clipping and weight averaging.
//!
//! As PyTorch's `SGD`: v ← μ·v + (g + λ·w), w ← w − η·v.

use super::TrainConfig;
use super::config::Method;
use crate::nn::{Params, Role};
use crate::ops::update::{adamw, blend, squared_norm, velocity};
use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};

/// State of one parameter.
#[derive(Debug)]
struct Slot {
    name: String,
    var: Var,
    role: Role,
    velocity: Option<Tensor>,
    /// AdamW's second moment.
    square: Option<Tensor>,
    average: Option<Tensor>,
}

/// The optimiser of a run.
#[derive(Debug)]
pub struct Optimizer {
    slots: Vec<Slot>,
    params: Params,
    method: Method,
    momentum: f32,
    weight_decay: f32,
    bias_factor: f32,
    bias_decay: f32,
    clip_norm: f32,
    ema: f32,
}

/// Name, shape and row-major values of one tensor.
pub type Named = (String, Vec<usize>, Vec<f32>);

/// What one update did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Update {
    /// L2 norm of all gradients before clipping.
    pub gradient_norm: f64,
}

impl Optimizer {
    pub fn new(params: &Params, config: &TrainConfig) -> Self {
        let slots = params.all().into_iter().map(|p| Slot {
            name: p.name,
            var: p.var,
            role: p.role,
            velocity: None,
            square: None,
            average: None,
        });
        Self {
            slots: slots.collect(),
            params: params.clone(),
            method: config.method,
            momentum: config.momentum,
            weight_decay: config.weight_decay,
            bias_factor: config.bias_factor,
            bias_decay: config.bias_decay,
            clip_norm: config.clip_norm,
            ema: config.ema,
        }
    }

    /// L2 norm of all gradients.
    ///
    /// # Errors
    /// A gradient that cannot be read back.
    pub fn gradient_norm(&self, gradients: &GradStore) -> Result<f64> {
        let mut sum = 0.0;
        for slot in self.slots.iter().filter(|s| s.role != Role::Buffer) {
            if let Some(gradient) = gradients.get(slot.var.as_tensor()) {
                sum += squared_norm(gradient)?;
            }
        }
        Ok(sum.sqrt())
    }

    /// Moves every trained parameter one step against its gradient, and the average after it.
    ///
    /// `iteration` counts from 0; the average starts fast: its decay is min(ema, (1 + i) / (10 + i)).
    ///
    /// # Errors
    /// A gradient of another shape than its parameter.
    pub fn update(&mut self, gradients: &GradStore, rate: f32, norm: f64, iteration: u64) -> Result<Update> {
        let scale = if self.clip_norm > 0.0 && norm > f64::from(self.clip_norm) {
            (f64::from(self.clip_norm) / norm) as f32
        } else {
            1.0
        };
        for slot in self.slots.iter_mut().filter(|s| s.role != Role::Buffer) {
            let Some(gradient) = gradients.get(slot.var.as_tensor()) else {
                continue;
            };
            let (rate, decay) = match slot.role {
                Role::Bias => (rate * self.bias_factor, self.weight_decay * self.bias_decay),
                Role::Norm => (rate, 0.0),
                Role::Weight | Role::Buffer => (rate, self.weight_decay),
            };
            let momentum = match slot.velocity.take() {
                Some(v) => v,
                None => slot.var.zeros_like()?,
            };
            let weights = slot.var.as_tensor();
            match self.method {
                Method::Sgd => {
                    velocity(&momentum, gradient, weights, (self.momentum, scale, decay))?;
                    blend(weights, &momentum, 1.0, -rate)?;
                }
                Method::AdamW => {
                    let square = match slot.square.take() {
                        Some(square) => square,
                        None => slot.var.zeros_like()?,
                    };
                    let betas = (self.momentum, BETA2);
                    adamw(weights, gradient, (&momentum, &square), betas, (rate, decay, scale), iteration + 1)?;
                    slot.square = Some(square);
                }
            }
            slot.velocity = Some(momentum);
        }
        if self.ema > 0.0 {
            let keep = self.ema.min((1.0 + iteration as f32) / (10.0 + iteration as f32));
            for slot in &mut self.slots {
                match &slot.average {
                    Some(average) => blend(average, slot.var.as_tensor(), keep, 1.0 - keep)?,
                    None => slot.average = Some(slot.var.as_tensor().copy()?.detach()),
                }
            }
        }
        self.params.touch();
        Ok(Update { gradient_norm: norm })
    }

    /// Every tensor of the optimiser's state under a prefix of its own, for a checkpoint.
    ///
    /// # Errors
    /// A tensor that cannot be read back.
    pub fn state(&self) -> Result<Vec<Named>> {
        let mut out = Vec::new();
        for slot in &self.slots {
            for (prefix, tensor) in [(VELOCITY, &slot.velocity), (SQUARE, &slot.square), (AVERAGE, &slot.average)] {
                if let Some(t) = tensor {
                    out.push((format!("{prefix}{}", slot.name), t.dims().to_vec(), t.flatten_all()?.to_vec1()?));
                }
            }
        }
        Ok(out)
    }

    /// Takes back one tensor of [`Self::state`]; false when no parameter has that name and size.
    ///
    /// # Errors
    /// A device that cannot hold it.
    pub fn restore(&mut self, name: &str, values: &[f32]) -> Result<bool> {
        for slot in &mut self.slots {
            let own = |prefix: &str| name.strip_prefix(prefix) == Some(slot.name.as_str());
            let target = if own(VELOCITY) {
                &mut slot.velocity
            } else if own(SQUARE) {
                &mut slot.square
            } else if own(AVERAGE) {
                &mut slot.average
            } else {
                continue;
            };
            if slot.var.elem_count() != values.len() {
                return Ok(false);
            }
            *target = Some(Tensor::from_slice(values, slot.var.shape(), slot.var.device())?);
            return Ok(true);
        }
        Ok(false)
    }

    /// Averaged weights where there are any, the plain ones otherwise: what is evaluated and shipped.
    ///
    /// # Errors
    /// A tensor that cannot be read back.
    pub fn averaged(&self) -> Result<Vec<Named>> {
        let slots = self.slots.iter().map(|slot| {
            let tensor = slot.average.as_ref().unwrap_or(slot.var.as_tensor());
            Ok((slot.name.clone(), tensor.dims().to_vec(), tensor.flatten_all()?.to_vec1()?))
        });
        slots.collect()
    }
}

/// AdamW's decay of the squared gradients.
const BETA2: f32 = 0.99;

/// Prefixes of the optimiser's tensors in a checkpoint.
pub const VELOCITY: &str = "optimizer.velocity/";
pub const SQUARE: &str = "optimizer.square/";
pub const AVERAGE: &str = "optimizer.average/";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Arch;
    use crate::nn::Init;
    use candle_core::Device;

    #[test]
    fn two_steps_follow_the_formula_by_hand_and_norms_do_not_decay() -> Result<()> {
        let params = Params::new(&Device::Cpu, 0);
        let w = params.root().param("w", &[1], Init::Constant(1.0), Role::Weight)?;
        let n = params.root().param("n", &[1], Init::Constant(1.0), Role::Norm)?;
        let config = TrainConfig {
            method: Method::Sgd,
            weight_decay: 0.5,
            ema: 0.0,
            clip_norm: 0.0,
            ..TrainConfig::new(Arch::SsdNano)
        };
        let mut optimizer = Optimizer::new(&params, &config);
        for iteration in 0..2 {
            // d(2w + 3n) = (2, 3)
            let loss = ((w.as_tensor() * 2.0)? + (n.as_tensor() * 3.0)?)?.sum_all()?;
            let gradients = loss.backward()?;
            let norm = optimizer.gradient_norm(&gradients)?;
            assert!((norm - 13f64.sqrt()).abs() < 1e-6);
            optimizer.update(&gradients, 0.1, norm, iteration)?;
        }
        // v1 = 2.5, w1 = 0.75; v2 = 0.9·2.5 + 2 + 0.375 = 4.625, w2 = 0.2875
        assert!((w.to_vec1::<f32>()?[0] - 0.2875).abs() < 1e-6);
        // v1 = 3, n1 = 0.7; v2 = 5.7, n2 = 0.13
        assert!((n.to_vec1::<f32>()?[0] - 0.13).abs() < 1e-6);
        Ok(())
    }
}
