//! Activation functions with exact derivatives: rectifiers, sigmoid, swish, mish, and softmax over the last dimension.

use super::conv::Activation;
use super::conv::simd::{Lanes, Simd, dispatch};
use super::cuda;
use super::logistic::{exp_minus, sigmoid_of};
use super::storage::{CHUNK, contiguous, in_chunks, with_values};
use super::tape::apply1;
use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

/// `max(x, 0)`; the gradient at exactly 0 is 0, as in PyTorch.
///
/// # Errors
/// A tensor that is not f32.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    Curve::Relu.of(x)
}

/// `x` where positive, `slope · x` elsewhere; the gradient at exactly 0 is `slope`.
///
/// # Errors
/// A tensor that is not f32.
pub fn leaky_relu(x: &Tensor, slope: f32) -> Result<Tensor> {
    Curve::LeakyRelu(slope).of(x)
}

/// `min(max(x, 0), 6)`; the gradient at exactly 0 and 6 is 0.
///
/// # Errors
/// A tensor that is not f32.
pub fn relu6(x: &Tensor) -> Result<Tensor> {
    Curve::Relu6.of(x)
}

/// `1 / (1 + e^−x)`, without overflow for any logit.
///
/// # Errors
/// A tensor that is not f32.
pub fn sigmoid(x: &Tensor) -> Result<Tensor> {
    Curve::Sigmoid.of(x)
}

/// `x · sigmoid(x)`, also called SiLU.
///
/// # Errors
/// A tensor that is not f32.
pub fn swish(x: &Tensor) -> Result<Tensor> {
    Curve::Swish.of(x)
}

/// `x · tanh(ln(1 + e^x))` (Misra, "Mish: a self regularized non-monotonic activation function", 2019).
///
/// # Errors
/// A tensor that is not f32.
pub fn mish(x: &Tensor) -> Result<Tensor> {
    Curve::Mish.of(x)
}

/// The activation that a convolution would have fused, as an operation of its own.
///
/// # Errors
/// A tensor that is not f32.
pub fn apply(x: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::None => Ok(x.clone()),
        Activation::Relu => relu(x),
        Activation::Leaky(slope) => leaky_relu(x, slope),
    }
}

/// Softmax over the last dimension.
///
/// # Errors
/// A scalar, or a tensor that is not f32.
pub fn softmax_last(x: &Tensor) -> Result<Tensor> {
    softmax(x, false)
}

/// Logarithm of the softmax over the last dimension, finite for any finite logits.
///
/// # Errors
/// A scalar, or a tensor that is not f32.
pub fn log_softmax_last(x: &Tensor) -> Result<Tensor> {
    softmax(x, true)
}

fn softmax(x: &Tensor, log: bool) -> Result<Tensor> {
    if x.device().is_cpu() { apply1(x, SoftmaxLast { log }) } else { cuda::activation::softmax_last(x, log) }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Curve {
    Relu,
    LeakyRelu(f32),
    Relu6,
    Sigmoid,
    Swish,
    Mish,
}

impl Curve {
    fn of(self, x: &Tensor) -> Result<Tensor> {
        if x.device().is_cpu() {
            return apply1(x, self);
        }
        let (code, slope) = match self {
            Self::Relu => (0, 0.0),
            Self::LeakyRelu(slope) => (1, slope),
            Self::Relu6 => (2, 0.0),
            Self::Sigmoid => (3, 0.0),
            Self::Swish => (4, 0.0),
            Self::Mish => (5, 0.0),
        };
        cuda::activation::curve(x, self.name(), code, slope)
    }

    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        match self {
            Self::Relu => {
                // Written so that NaN passes through.
                if x <= 0.0 { 0.0 } else { x }
            }
            Self::LeakyRelu(slope) => {
                if x > 0.0 {
                    x
                } else {
                    slope * x
                }
            }
            Self::Relu6 => x.clamp(0.0, 6.0),
            Self::Sigmoid => sigmoid_of(x),
            Self::Swish => x * sigmoid_of(x),
            Self::Mish => x * mish_gate(x).0,
        }
    }

    #[inline(always)]
    fn derivative(self, x: f32) -> f32 {
        match self {
            Self::Relu => {
                if x <= 0.0 {
                    0.0
                } else {
                    1.0
                }
            }
            Self::LeakyRelu(slope) => {
                if x > 0.0 {
                    1.0
                } else {
                    slope
                }
            }
            Self::Relu6 => {
                if x > 0.0 && x < 6.0 {
                    1.0
                } else {
                    0.0
                }
            }
            Self::Sigmoid => {
                let s = sigmoid_of(x);
                s * (1.0 - s)
            }
            Self::Swish => {
                let s = sigmoid_of(x);
                s + x * s * (1.0 - s)
            }
            Self::Mish => {
                let (gate, complement) = mish_gate(x);
                gate + x * complement * sigmoid_of(x)
            }
        }
    }
}

/// `t = tanh(ln(1 + e^x))` and `1 − t²`. With n = e^x (e^x + 2) they are n / (n + 2) and 4 (1 + e^x)² / (n + 2)²; for
/// positive x numerators and denominators are multiplied by e^−2x, so that neither overflows.
#[inline(always)]
fn mish_gate(x: f32) -> (f32, f32) {
    let e = exp_minus(x.abs());
    let n = e * (e + 2.0);
    let (above, below, root) = if x >= 0.0 {
        (1.0 + 2.0 * e, 1.0 + 2.0 * e * (1.0 + e), 2.0 * e * (1.0 + e))
    } else {
        (n, n + 2.0, 2.0 * (1.0 + e))
    };
    let root = root / below;
    (above / below, root * root)
}

/// `$work` written for each curve, which is a constant in it: so its loops become vectors.
macro_rules! for_each_curve {
    ($curve:ident, $work:block) => {
        match $curve {
            Curve::Relu => {
                let $curve = Curve::Relu;
                $work
            }
            Curve::LeakyRelu(slope) => {
                let $curve = Curve::LeakyRelu(slope);
                $work
            }
            Curve::Relu6 => {
                let $curve = Curve::Relu6;
                $work
            }
            Curve::Sigmoid => {
                let $curve = Curve::Sigmoid;
                $work
            }
            Curve::Swish => {
                let $curve = Curve::Swish;
                $work
            }
            Curve::Mish => {
                let $curve = Curve::Mish;
                $work
            }
        }
    };
}

/// Writes the values of some elements.
///
/// # Safety
/// The CPU has `V`'s instructions.
#[allow(clippy::extra_unused_type_parameters, reason = "V says which instruction set to compile for")]
#[inline(always)]
unsafe fn curve_values<V: Lanes>(curve: Curve, x: &[f32], to: &mut [f32]) {
    for_each_curve!(curve, {
        for (to, &x) in to.iter_mut().zip(x) {
            *to = curve.value(x);
        }
    });
}

/// Writes the gradients of some elements from those of their values.
///
/// # Safety
/// The CPU has `V`'s instructions.
#[allow(clippy::extra_unused_type_parameters, reason = "V says which instruction set to compile for")]
#[inline(always)]
unsafe fn curve_gradients<V: Lanes>(curve: Curve, x: &[f32], g: &[f32], to: &mut [f32]) {
    for_each_curve!(curve, {
        for ((to, &x), &g) in to.iter_mut().zip(x).zip(g) {
            *to = g * curve.derivative(x);
        }
    });
}

impl CustomOp1 for Curve {
    fn name(&self) -> &'static str {
        match self {
            Self::Relu => "relu",
            Self::LeakyRelu(_) => "leaky_relu",
            Self::Relu6 => "relu6",
            Self::Sigmoid => "sigmoid",
            Self::Swish => "swish",
            Self::Mish => "mish",
        }
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = contiguous(storage, layout, self.name())?;
        let (curve, simd) = (*self, Simd::current());
        let y = in_chunks(x.len(), |range, to| {
            let x = &x[range];
            // SAFETY: safe code, compiled for an instruction set that the CPU has.
            unsafe { dispatch!(simd, curve_values(curve: Curve = curve, x: &[f32] = x, to: &mut [f32] = to)) }
        });
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad_res: &Tensor) -> Result<Option<Tensor>> {
        let (curve, simd) = (*self, Simd::current());
        let gradient = with_values(arg, self.name(), |x| {
            with_values(grad_res, self.name(), |g| {
                Ok(in_chunks(x.len(), |range, to| {
                    let (x, g) = (&x[range.clone()], &g[range]);
                    // SAFETY: safe code, compiled for an instruction set that the CPU has.
                    unsafe {
                        dispatch!(
                            simd,
                            curve_gradients(curve: Curve = curve, x: &[f32] = x, g: &[f32] = g, to: &mut [f32] = to)
                        )
                    }
                }))
            })
        })?;
        Ok(Some(Tensor::from_vec(gradient, arg.shape(), arg.device())?))
    }
}

struct SoftmaxLast {
    log: bool,
}

impl SoftmaxLast {
    fn row(&self, x: &[f32], y: &mut [f32]) {
        let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut sum = 0.0f64;
        for (y, &x) in y.iter_mut().zip(x) {
            *y = (x - max).exp();
            sum += f64::from(*y);
        }
        if self.log {
            let log_sum = sum.ln() as f32;
            for (y, &x) in y.iter_mut().zip(x) {
                *y = (x - max) - log_sum;
            }
        } else {
            let scale = (1.0 / sum) as f32;
            for y in y.iter_mut() {
                *y *= scale;
            }
        }
    }

    /// Gradient of one row from its result `y`.
    fn row_gradient(&self, y: &[f32], g: &[f32], out: &mut [f32]) {
        if self.log {
            let total: f64 = g.iter().map(|&g| f64::from(g)).sum();
            for ((out, &y), &g) in out.iter_mut().zip(y).zip(g) {
                *out = g - y.exp() * total as f32;
            }
        } else {
            let dot: f64 = y.iter().zip(g).map(|(&y, &g)| f64::from(y) * f64::from(g)).sum();
            for ((out, &y), &g) in out.iter_mut().zip(y).zip(g) {
                *out = y * (g - dot as f32);
            }
        }
    }
}

impl CustomOp1 for SoftmaxLast {
    fn name(&self) -> &'static str {
        if self.log { "log_softmax_last" } else { "softmax_last" }
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let Some(&width) = layout.dims().last() else {
            candle_core::bail!("{} needs at least one dimension", self.name());
        };
        let x = contiguous(storage, layout, self.name())?;
        let mut y = vec![0.0f32; x.len()];
        if !y.is_empty() {
            y.par_chunks_mut(width)
                .zip(x.par_chunks(width))
                .with_min_len((CHUNK / width).max(1))
                .for_each(|(y, x)| self.row(x, y));
        }
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, arg: &Tensor, res: &Tensor, grad_res: &Tensor) -> Result<Option<Tensor>> {
        let width = arg.dim(D::Minus1)?;
        let gradient = with_values(res, self.name(), |y| {
            with_values(grad_res, self.name(), |g| {
                let mut out = vec![0.0f32; y.len()];
                if !out.is_empty() {
                    let rows = y.par_chunks(width).zip(g.par_chunks(width));
                    out.par_chunks_mut(width)
                        .zip(rows)
                        .with_min_len((CHUNK / width).max(1))
                        .for_each(|(out, (y, g))| self.row_gradient(y, g, out));
                }
                Ok(out)
            })
        })?;
        Ok(Some(Tensor::from_vec(gradient, arg.shape(), arg.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    const CURVES: [Curve; 6] =
        [Curve::Relu, Curve::LeakyRelu(0.1), Curve::Relu6, Curve::Sigmoid, Curve::Swish, Curve::Mish];
    const POINTS: [f32; 11] = [-1e4, -30.0, -2.5, -0.7, 0.0, 0.3, 2.0, 6.0, 7.5, 25.0, 1e4];

    fn gradient_of(x: &Var, y: &Tensor) -> Result<Vec<f32>> {
        let gradients = y.sum_all()?.backward()?;
        gradients.get(x.as_tensor()).expect("a gradient").flatten_all()?.to_vec1()
    }

    #[test]
    fn curves_stay_finite_for_any_logit() -> Result<()> {
        for curve in CURVES {
            let x = Var::from_slice(&POINTS, POINTS.len(), &Device::Cpu)?;
            let y = curve.of(x.as_tensor())?;
            let mut values = y.to_vec1::<f32>()?.into_iter().chain(gradient_of(&x, &y)?);
            assert!(values.all(f32::is_finite), "{curve:?}: {y}");
        }
        Ok(())
    }

    #[test]
    fn every_instruction_set_gives_the_bits_of_one_number_at_a_time() {
        let x: Vec<f32> = (-800..=800).map(|i| i as f32 * 0.25).chain(POINTS).chain([1e-42, -1e-42]).collect();
        let g: Vec<f32> = (0..x.len()).map(|i| [1.0, -2.5, 0.125][i % 3]).collect();
        for curve in CURVES {
            for simd in Simd::available() {
                let (mut y, mut gx) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
                // SAFETY: the set is available.
                unsafe {
                    dispatch!(simd, curve_values(curve: Curve = curve, x: &[f32] = &x, to: &mut [f32] = &mut y));
                    dispatch!(
                        simd,
                        curve_gradients(curve: Curve = curve, x: &[f32] = &x, g: &[f32] = &g, to: &mut [f32] = &mut gx)
                    );
                }
                for i in 0..x.len() {
                    let expected = [curve.value(x[i]), g[i] * curve.derivative(x[i])].map(f32::to_bits);
                    assert_eq!([y[i], gx[i]].map(f32::to_bits), expected, "{curve:?} {simd:?} {}", x[i]);
                }
            }
        }
    }

    /// By the definitions in f64; each number stands for a handful of roundings, of 6e-8 each. The derivative is a sum
    /// that passes through 0, so its error is measured against its parts.
    #[test]
    fn mish_and_its_derivative_hold_for_any_number() {
        for x in (-800..=800).map(|i| i as f32 * 0.1) {
            let exact = f64::from(x);
            let softplus = exact.max(0.0) + (-exact.abs()).exp().ln_1p();
            let value = exact * softplus.tanh();
            assert!((f64::from(Curve::Mish.value(x)) - value).abs() <= 2e-6 * value.abs(), "mish of {x}");
            let (gate, rest) = (softplus.tanh(), exact * softplus.cosh().powi(-2) / (1.0 + (-exact).exp()));
            let error = (f64::from(Curve::Mish.derivative(x)) - (gate + rest)).abs();
            assert!(error <= 2e-6 * (gate + rest.abs()), "derivative of mish at {x}: {error}");
        }
    }

    #[test]
    fn gradients_at_the_corners_are_pytorchs() -> Result<()> {
        let x = Var::from_slice(&[0.0f32, 6.0], 2, &Device::Cpu)?;
        assert_eq!(gradient_of(&x, &relu(x.as_tensor())?)?, [0.0, 1.0]);
        assert_eq!(gradient_of(&x, &relu6(x.as_tensor())?)?, [0.0, 0.0]);
        assert_eq!(gradient_of(&x, &leaky_relu(x.as_tensor(), 0.1)?)?, [0.1, 1.0]);
        Ok(())
    }

    /// Values of mish(1) = tanh(ln(1 + e)) and swish(1) = σ(1), from their definitions in double precision.
    #[test]
    fn smooth_curves_have_their_known_values() -> Result<()> {
        let x = Tensor::from_slice(&[1.0f32], 1, &Device::Cpu)?;
        assert!((mish(&x)?.to_vec1::<f32>()?[0] - 0.865_098_4).abs() < 1e-6);
        assert!((swish(&x)?.to_vec1::<f32>()?[0] - 0.731_058_6).abs() < 1e-6);
        assert!((sigmoid(&x)?.to_vec1::<f32>()?[0] - 0.731_058_6).abs() < 1e-6);
        Ok(())
    }

    #[test]
    fn softmax_rows_survive_extreme_logits() -> Result<()> {
        let x = Tensor::from_slice(&[1e4f32, -1e4, 1e4, 0.0, 0.0, f32::NEG_INFINITY], (2, 3), &Device::Cpu)?;
        assert_eq!(softmax_last(&x)?.to_vec2::<f32>()?, [[0.5, 0.0, 0.5], [0.5, 0.5, 0.0]]);
        let half = -std::f32::consts::LN_2;
        let expected = [[half, half - 2e4, half], [half, half, f32::NEG_INFINITY]];
        assert_eq!(log_softmax_last(&x)?.to_vec2::<f32>()?, expected);
        assert!(softmax_last(&x.sum_all()?).is_err());
        assert_eq!(softmax_last(&x.narrow(1, 0, 0)?)?.dims(), [2, 0]);
        Ok(())
    }
}
