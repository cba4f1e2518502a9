//! Convolution layers: plain, followed by batch normalisation that inference folds away, and either of the two.

use super::params::{Init, Role, Scope};
use super::pass::{Mode, Pass};
use crate::ops::conv::{Activation, ConvSpec, WeightCache, conv2d, conv2d_norm_train};
use crate::ops::norm;
use candle_core::{Result, Tensor, Var};
use std::sync::{Arc, Mutex, PoisonError};

/// Input channels, output channels, square kernel.
pub type ConvShape = (usize, usize, usize);

/// Convolution with an optional bias and a fused activation. Keys: `weight`, `bias`.
#[derive(Debug)]
pub struct Conv {
    weight: Var,
    bias: Option<Var>,
    spec: ConvSpec,
    cache: Arc<WeightCache>,
    scope: Scope,
}

impl Conv {
    /// Weight `[out, in / groups, k, k]` drawn by `init`, bias 0.
    pub fn new(scope: &Scope, shape: ConvShape, spec: ConvSpec, init: Init) -> Result<Self> {
        Self::build(scope, shape, spec, init, Some(0.0))
    }

    /// The same with the bias starting at `bias` (RetinaNet's −ln((1 − π) / π)).
    pub fn with_bias(scope: &Scope, shape: ConvShape, spec: ConvSpec, init: Init, bias: f32) -> Result<Self> {
        Self::build(scope, shape, spec, init, Some(bias))
    }

    /// Without a bias, for a norm to follow.
    pub fn without_bias(scope: &Scope, shape: ConvShape, spec: ConvSpec, init: Init) -> Result<Self> {
        Self::build(scope, shape, spec, init, None)
    }

    fn build(scope: &Scope, shape: ConvShape, spec: ConvSpec, init: Init, bias: Option<f32>) -> Result<Self> {
        let (input, output, kernel) = shape;
        if spec.groups == 0 || input % spec.groups != 0 || output % spec.groups != 0 {
            candle_core::bail!("{} groups do not divide {input} input and {output} output channels", spec.groups);
        }
        let weight = scope.param("weight", &[output, input / spec.groups, kernel, kernel], init, Role::Weight)?;
        let bias = bias.map(|b| scope.param("bias", &[output], Init::Constant(b), Role::Bias)).transpose()?;
        Ok(Self { weight, bias, spec, cache: Arc::default(), scope: scope.clone() })
    }

    /// `[N, in, H, W]` → `[N, out, H', W']`.
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let cache = Some((&self.cache, self.scope.params().version()));
        let y = match pass.mode {
            Mode::Infer => {
                let bias = self.bias.as_ref().map(|b| b.detach());
                conv2d(x, &self.weight.detach(), bias.as_ref(), self.spec, cache)?
            }
            Mode::Train | Mode::Frozen => {
                conv2d(x, self.weight.as_tensor(), self.bias.as_ref().map(Var::as_tensor), self.spec, cache)?
            }
        };
        count(&y, &self.weight, pass);
        Ok(y)
    }
}

/// Adds the operations of a convolution with this output and weight to the pass.
fn count(y: &Tensor, weight: &Tensor, pass: &Pass) {
    let per_output = weight.elem_count() / weight.dims().first().copied().unwrap_or(1).max(1);
    pass.count_flops(2.0 * y.elem_count() as f64 * per_output as f64);
}

/// Convolution without bias, batch norm, activation. Keys: `weight` and `bn.*` in two scopes of the caller's choice.
#[derive(Debug)]
pub struct ConvNorm {
    conv: Conv,
    gamma: Var,
    beta: Var,
    running_mean: Var,
    running_var: Var,
    epsilon: f32,
    momentum: f32,
    activation: Activation,
    folded: Mutex<Option<Folded>>,
}

#[derive(Debug)]
struct Folded {
    version: u64,
    weight: Tensor,
    bias: Tensor,
    cache: Arc<WeightCache>,
}

impl ConvNorm {
    /// `conv` names the convolution's scope and `norm` the batch norm's.
    pub fn new(conv: &Scope, norm: &Scope, shape: ConvShape, spec: ConvSpec, init: Init) -> Result<Self> {
        let activation = spec.activation;
        let channels = [shape.1];
        Ok(Self {
            conv: Conv::without_bias(conv, shape, spec.activation(Activation::None), init)?,
            gamma: norm.param("weight", &channels, Init::Constant(1.0), Role::Norm)?,
            beta: norm.param("bias", &channels, Init::Constant(0.0), Role::Norm)?,
            running_mean: norm.param("running_mean", &channels, Init::Constant(0.0), Role::Buffer)?,
            running_var: norm.param("running_var", &channels, Init::Constant(1.0), Role::Buffer)?,
            epsilon: 1e-5,
            momentum: 0.1,
            activation,
            folded: Mutex::new(None),
        })
    }

    /// Another ε (torchvision's first detection weights use 0, darknet 1e-5 in the root).
    pub fn epsilon(mut self, epsilon: f32) -> Self {
        self.epsilon = epsilon;
        self
    }

    /// Another share of the batch in the running statistics (0.1 as in PyTorch; M2Det and darknet use 0.01).
    pub fn momentum(mut self, momentum: f32) -> Self {
        self.momentum = momentum;
        self
    }

    /// `[N, in, H, W]` → `[N, out, H', W']`. In training the running statistics move by `momentum`.
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        match pass.mode {
            Mode::Infer => {
                let y = self.forward_folded(x)?;
                count(&y, &self.conv.weight, pass);
                Ok(y)
            }
            Mode::Frozen => {
                let y = self.conv.forward(x, pass)?;
                let y = norm::batch_norm(
                    &y,
                    self.gamma.as_tensor(),
                    self.beta.as_tensor(),
                    self.running_mean.as_tensor(),
                    self.running_var.as_tensor(),
                    self.epsilon,
                )?;
                crate::ops::activation::apply(&y, self.activation)
            }
            Mode::Train => {
                let cache = Some((&self.conv.cache, self.conv.scope.params().version()));
                let affine = (self.gamma.as_tensor(), self.beta.as_tensor());
                let spec = self.conv.spec.activation(self.activation);
                let (y, mean, var) =
                    conv2d_norm_train(x, self.conv.weight.as_tensor(), affine, self.epsilon, spec, cache)?;
                count(&y, &self.conv.weight, pass);
                pass.defer(&self.running_mean, mean, self.momentum);
                pass.defer(&self.running_var, var, self.momentum);
                Ok(y)
            }
        }
    }

    fn forward_folded(&self, x: &Tensor) -> Result<Tensor> {
        let version = self.conv.scope.params().version();
        let mut folded = self.folded.lock().unwrap_or_else(PoisonError::into_inner);
        if folded.as_ref().is_none_or(|f| f.version != version) {
            *folded = Some(self.fold(version)?);
        }
        let Some(f) = folded.as_ref() else {
            candle_core::bail!("folded weights are missing");
        };
        let spec = self.conv.spec.activation(self.activation);
        conv2d(x, &f.weight, Some(&f.bias), spec, Some((&f.cache, version)))
    }

    fn fold(&self, version: u64) -> Result<Folded> {
        let weight: Vec<f32> = self.conv.weight.flatten_all()?.to_vec1()?;
        let vector = |v: &Var| v.to_vec1::<f32>();
        let (gamma, beta) = (vector(&self.gamma)?, vector(&self.beta)?);
        let (mean, var) = (vector(&self.running_mean)?, vector(&self.running_var)?);
        let (weight, bias) =
            norm::fold_batch_norm(&weight, None, gamma.len(), &gamma, &beta, &mean, &var, self.epsilon);
        let device = self.conv.weight.device();
        let channels = bias.len();
        Ok(Folded {
            version,
            weight: Tensor::from_vec(weight, self.conv.weight.shape(), device)?,
            bias: Tensor::from_vec(bias, channels, device)?,
            cache: Arc::default(),
        })
    }
}

/// A convolution with a bias, or one with a batch norm instead: networks that exist in both versions. Keys: `0.weight`
/// and `0.bias`, or `0.weight` and `1.*` (torchvision's `Conv2dNormActivation`).
#[derive(Debug)]
pub enum ConvBlock {
    Plain(Conv),
    Normed(ConvNorm),
}

impl ConvBlock {
    /// With a batch norm where `norm` says so; the weight is drawn by `init`.
    ///
    /// # Errors
    /// A name that is taken, or a device that cannot hold the layer.
    pub fn new(scope: &Scope, shape: ConvShape, spec: ConvSpec, init: Init, norm: bool) -> Result<Self> {
        let conv = scope.enter(0);
        Ok(if norm {
            Self::Normed(ConvNorm::new(&conv, &scope.enter(1), shape, spec, init)?)
        } else {
            Self::Plain(Conv::new(&conv, shape, spec, init)?)
        })
    }

    /// `[N, in, H, W]` → `[N, out, H', W']`.
    ///
    /// # Errors
    /// Another number of channels than the layer has.
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        match self {
            Self::Plain(conv) => conv.forward(x, pass),
            Self::Normed(conv) => conv.forward(x, pass),
        }
    }
}
