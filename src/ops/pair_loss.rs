//! Losses of two tensors element by element: binary cross-entropy, focal, smooth L1. The public functions are in `losses`.

use super::conv::simd::{Lanes, Simd, dispatch};
use super::cuda;
use super::logistic::{exp_minus, ln_1p, sigmoid_of};
use super::storage::{contiguous, in_chunks, same_shape, with_values};
use super::tape::apply2;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

/// A loss of an element x and its target t, which has no gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum PairLoss {
    Bce,
    Focal { alpha: f32, gamma: f32 },
    SmoothL1 { beta: f32 },
}

impl PairLoss {
    /// The loss of every element.
    pub fn of(self, x: &Tensor, target: &Tensor) -> Result<Tensor> {
        same_shape(x, target, self.name())?;
        let target = target.detach();
        if x.device().is_cpu() {
            return apply2(x, &target, self);
        }
        let (code, parameters) = match self {
            Self::Bce => (0, (0.0, 0.0)),
            Self::Focal { alpha, gamma } => (1, (alpha, gamma)),
            Self::SmoothL1 { beta } => (2, (beta, 0.0)),
        };
        cuda::losses::pair_loss(x, &target, self.name(), code, parameters)
    }

    #[inline(always)]
    fn value(self, x: f32, t: f32) -> f32 {
        match self {
            Self::Bce => entropy(x, t),
            Self::Focal { alpha, gamma } => focal(x, t, alpha, gamma).0,
            Self::SmoothL1 { beta } => {
                let d = (x - t).abs();
                if d < beta { 0.5 * d * d / beta } else { d - 0.5 * beta }
            }
        }
    }

    #[inline(always)]
    fn derivative(self, x: f32, t: f32) -> f32 {
        match self {
            Self::Bce => sigmoid_of(x) - t,
            Self::Focal { alpha, gamma } => focal(x, t, alpha, gamma).1,
            Self::SmoothL1 { beta } => {
                let d = x - t;
                if d.abs() < beta {
                    d / beta
                } else if d == 0.0 {
                    0.0
                } else {
                    d.signum()
                }
            }
        }
    }
}

/// Binary cross-entropy of a logit: `max(x, 0) − x·t + ln(1 + e^−|x|)`, the first two terms as one product, so that
/// nothing cancels.
#[inline(always)]
fn entropy(x: f32, t: f32) -> f32 {
    let missed = if x >= 0.0 { 1.0 - t } else { t };
    // An infinite logit on the right side costs nothing; its product would be NaN.
    let distance = if missed == 0.0 { 0.0 } else { missed * x.abs() };
    distance + ln_1p(exp_minus(x.abs()))
}

#[inline(always)]
fn power(base: f32, exponent: f32) -> f32 {
    if exponent == 2.0 { base * base } else { base.powf(exponent) }
}

/// Focal loss of one logit and its derivative.
///
/// With p = σ(x) and q = σ(−x), neither taken from the other: 1 − pₜ = p (1 − t) + q t with the derivative
/// p q (1 − 2t), and BCE's derivative is p (1 − t) − q t. So both results hold for any size of logit.
#[inline(always)]
fn focal(x: f32, t: f32, alpha: f32, gamma: f32) -> (f32, f32) {
    let balance = if alpha < 0.0 { 1.0 } else { alpha * t + (1.0 - alpha) * (1.0 - t) };
    let (p, q) = (sigmoid_of(x), sigmoid_of(-x));
    let (false_alarm, omission) = (p * (1.0 - t), q * t);
    let miss = false_alarm + omission;
    let focus = balance * power(miss, gamma);
    let entropy = entropy(x, t);
    // 0 / 0 where the chance of a miss is too small for f32.
    let steepness = p * q / miss;
    let steepness = if miss == 0.0 { 0.0 } else { steepness };
    let pull = gamma * steepness * (1.0 - 2.0 * t) * entropy;
    (focus * entropy, focus * (pull + (false_alarm - omission)))
}

/// `$work` written for each loss, which is a constant in it: so its loops become vectors.
macro_rules! for_each_loss {
    ($loss:ident, $work:block) => {
        match $loss {
            PairLoss::Bce => {
                let $loss = PairLoss::Bce;
                $work
            }
            PairLoss::Focal { alpha, gamma: 2.0 } => {
                let $loss = PairLoss::Focal { alpha, gamma: 2.0 };
                $work
            }
            PairLoss::Focal { alpha, gamma } => {
                let $loss = PairLoss::Focal { alpha, gamma };
                $work
            }
            PairLoss::SmoothL1 { beta } => {
                let $loss = PairLoss::SmoothL1 { beta };
                $work
            }
        }
    };
}

/// Writes the losses of some elements.
///
/// # Safety
/// The CPU has `V`'s instructions.
#[allow(clippy::extra_unused_type_parameters, reason = "V says which instruction set to compile for")]
#[inline(always)]
unsafe fn pair_values<V: Lanes>(loss: PairLoss, x: &[f32], t: &[f32], to: &mut [f32]) {
    for_each_loss!(loss, {
        for ((to, &x), &t) in to.iter_mut().zip(x).zip(t) {
            *to = loss.value(x, t);
        }
    });
}

/// Writes the gradients of some elements from those of their losses; where that is 0, the result is 0 whatever x is.
///
/// # Safety
/// The CPU has `V`'s instructions.
#[allow(clippy::extra_unused_type_parameters, reason = "V says which instruction set to compile for")]
#[inline(always)]
unsafe fn pair_gradients<V: Lanes>(loss: PairLoss, x: &[f32], t: &[f32], g: &[f32], to: &mut [f32]) {
    for_each_loss!(loss, {
        for (((to, &x), &t), &g) in to.iter_mut().zip(x).zip(t).zip(g) {
            let gradient = g * loss.derivative(x, t);
            *to = if g == 0.0 { 0.0 } else { gradient };
        }
    });
}

impl CustomOp2 for PairLoss {
    fn name(&self) -> &'static str {
        match self {
            Self::Bce => "bce_with_logits",
            Self::Focal { .. } => "sigmoid_focal",
            Self::SmoothL1 { .. } => "smooth_l1",
        }
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, t) = (contiguous(s1, l1, self.name())?, contiguous(s2, l2, self.name())?);
        let (loss, simd) = (*self, Simd::current());
        let values = in_chunks(x.len(), |range, to| {
            let (x, t) = (&x[range.clone()], &t[range]);
            // SAFETY: safe code, compiled for an instruction set that the CPU has.
            unsafe {
                dispatch!(simd, pair_values(loss: PairLoss = loss, x: &[f32] = x, t: &[f32] = t, to: &mut [f32] = to))
            }
        });
        Ok((CpuStorage::F32(values), l1.shape().clone()))
    }

    fn bwd(
        &self,
        arg1: &Tensor,
        arg2: &Tensor,
        _res: &Tensor,
        grad_res: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (loss, simd) = (*self, Simd::current());
        let gradient = with_values(arg1, self.name(), |x| {
            with_values(arg2, self.name(), |t| {
                with_values(grad_res, self.name(), |g| {
                    Ok(in_chunks(x.len(), |range, to| {
                        let (x, t, g) = (&x[range.clone()], &t[range.clone()], &g[range]);
                        // SAFETY: safe code, compiled for an instruction set that the CPU has.
                        unsafe {
                            dispatch!(
                                simd,
                                pair_gradients(
                                    loss: PairLoss = loss,
                                    x: &[f32] = x,
                                    t: &[f32] = t,
                                    g: &[f32] = g,
                                    to: &mut [f32] = to,
                                )
                            )
                        }
                    }))
                })
            })
        })?;
        Ok((Some(Tensor::from_vec(gradient, arg1.shape(), arg1.device())?), None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOCAL: PairLoss = PairLoss::Focal { alpha: 0.25, gamma: 2.0 };

    /// From −200 to 200, tiny and huge; an odd number, so that vectors have a rest.
    fn logits() -> Vec<f32> {
        let steps = (-800..=800).map(|i| i as f32 * 0.25);
        steps.chain([1e-42, -1e-42, 1e-20, -1e-20, 1e4, -1e4, 3e38, -3e38]).collect()
    }

    #[test]
    fn every_instruction_set_gives_the_bits_of_one_number_at_a_time() {
        let x = logits();
        let t: Vec<f32> = (0..x.len()).map(|i| [0.0, 1.0, 0.3][i % 3]).collect();
        let g: Vec<f32> = (0..x.len()).map(|i| [1.0, 0.0, -2.5, 0.125][i % 4]).collect();
        let general = PairLoss::Focal { alpha: -1.0, gamma: 1.5 };
        for loss in [PairLoss::Bce, FOCAL, general, PairLoss::SmoothL1 { beta: 0.5 }] {
            for simd in Simd::available() {
                let (mut y, mut gx) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
                // SAFETY: the set is available.
                unsafe {
                    dispatch!(
                        simd,
                        pair_values(loss: PairLoss = loss, x: &[f32] = &x, t: &[f32] = &t, to: &mut [f32] = &mut y)
                    );
                    dispatch!(
                        simd,
                        pair_gradients(
                            loss: PairLoss = loss,
                            x: &[f32] = &x,
                            t: &[f32] = &t,
                            g: &[f32] = &g,
                            to: &mut [f32] = &mut gx,
                        )
                    );
                }
                for i in 0..x.len() {
                    let gradient = if g[i] == 0.0 { 0.0 } else { g[i] * loss.derivative(x[i], t[i]) };
                    let expected = [loss.value(x[i], t[i]), gradient].map(f32::to_bits);
                    assert_eq!([y[i], gx[i]].map(f32::to_bits), expected, "{loss:?} {simd:?} {}", x[i]);
                    assert!(y[i].is_finite() && gx[i].is_finite(), "{loss:?} {simd:?} {}", x[i]);
                }
            }
        }
    }

    /// By the formulas in f64. Each number stands for a handful of roundings, of 6e-8 each; what is below the smallest
    /// normal number may vanish.
    #[test]
    fn entropy_and_focal_loss_hold_for_any_logit() {
        let close = |found: f32, exact: f64| (f64::from(found) - exact).abs() <= 2e-6 * exact.abs() + 1.2e-38;
        for x in logits() {
            for t in [0.0_f32, 1.0] {
                // Towards the wrong answer.
                let sign = 1.0 - 2.0 * f64::from(t);
                let wrong = sign * f64::from(x);
                let sigma = |x: f64| if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) };
                let (entropy, miss) = (wrong.max(0.0) + (-wrong.abs()).exp().ln_1p(), sigma(wrong));
                assert!(close(PairLoss::Bce.value(x, t), entropy), "entropy of {x} towards {t}");
                let focus = (if t == 1.0 { 0.25 } else { 0.75 }) * miss * miss;
                let derivative = sign * focus * (2.0 * sigma(-wrong) * entropy + miss);
                assert!(close(FOCAL.value(x, t), focus * entropy), "focal loss of {x} towards {t}");
                assert!(close(FOCAL.derivative(x, t), derivative), "focal derivative of {x} towards {t}");
            }
        }
    }

    #[test]
    fn limits_are_taken_and_nan_stays() {
        let (inf, bce) = (f32::INFINITY, |x, t| PairLoss::Bce.value(x, t));
        assert_eq!([bce(inf, 1.0), bce(-inf, 0.0), bce(inf, 0.0), bce(-inf, 1.0)], [0.0, 0.0, inf, inf]);
        assert_eq!([FOCAL.value(inf, 1.0), FOCAL.value(-inf, 0.0)], [0.0, 0.0]);
        for loss in [PairLoss::Bce, FOCAL] {
            assert!(loss.value(f32::NAN, 1.0).is_nan() && loss.derivative(f32::NAN, 0.0).is_nan());
        }
    }
}
