//! In-place arithmetic on parameters: what an optimiser does after the gradients are known.

use super::cuda;
use super::storage::with_values;
use candle_core::{CpuStorage, InplaceOp3, Layout, Result, Tensor};
use rayon::prelude::*;

/// Elements that one task of a parallel update handles.
const CHUNK: usize = 1 << 16;

fn read<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => candle_core::bail!("an in-place update needs contiguous tensors"),
    }
}

fn write<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&mut values[start..end]),
        _ => candle_core::bail!("an in-place update needs a contiguous f32 tensor"),
    }
}

/// What becomes of an element of a parameter or of its state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Rule {
    /// `d ← keep · d + add · a`
    Blend { keep: f32, add: f32 },
    /// `d ← keep · d + add · a²`
    BlendSquares { keep: f32, add: f32 },
    /// `d ← momentum · d + scale · a + decay · b`
    Velocity { momentum: f32, scale: f32, decay: f32 },
    /// `d ← shrink · d − rate · a / (√(b · correction) + ε)`
    AdaptiveStep { shrink: f32, rate: f32, correction: f32 },
}

impl Rule {
    /// The rule's number and its factors, as `update.cu` knows them.
    pub fn coded(self) -> (usize, [f32; 3]) {
        match self {
            Self::Blend { keep, add } => (0, [keep, add, 0.0]),
            Self::BlendSquares { keep, add } => (1, [keep, add, 0.0]),
            Self::Velocity { momentum, scale, decay } => (2, [momentum, scale, decay]),
            Self::AdaptiveStep { shrink, rate, correction } => (3, [shrink, rate, correction]),
        }
    }

    /// Changes `d` by the values of `a` and, where the rule has a second source, `b`.
    fn run(self, d: &mut [f32], a: &[f32], b: &[f32]) {
        match self {
            Self::Blend { keep, add } => d.iter_mut().zip(a).for_each(|(d, &a)| *d = keep * *d + add * a),
            Self::BlendSquares { keep, add } => d.iter_mut().zip(a).for_each(|(d, &a)| *d = keep * *d + add * a * a),
            Self::Velocity { momentum, scale, decay } => {
                d.iter_mut().zip(a).zip(b).for_each(|((d, &a), &b)| *d = momentum * *d + scale * a + decay * b);
            }
            Self::AdaptiveStep { shrink, rate, correction } => {
                let step = |a: f32, b: f32| rate * a / ((b * correction).sqrt() + EPSILON);
                d.iter_mut().zip(a).zip(b).for_each(|((d, &a), &b)| *d = shrink * *d - step(a, b));
            }
        }
    }
}

/// One tensor that changes, what it changes by (the first source twice where there is one), and how.
pub(super) struct Change<'a> {
    pub destination: &'a Tensor,
    pub sources: [&'a Tensor; 2],
    pub rule: Rule,
}

impl<'a> Change<'a> {
    fn new(destination: &'a Tensor, sources: [&'a Tensor; 2], rule: Rule) -> Result<Self> {
        for source in sources {
            if destination.dims() != source.dims() {
                candle_core::bail!("an in-place update of {:?} by {:?}", destination.dims(), source.dims());
            }
        }
        Ok(Self { destination, sources, rule })
    }
}

impl InplaceOp3 for Change<'_> {
    fn name(&self) -> &'static str {
        "update"
    }

    fn cpu_fwd(
        &self,
        s1: &mut CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<()> {
        let (destination, first, second) = (write(s1, l1)?, read(s2, l2)?, read(s3, l3)?);
        let sources = first.par_chunks(CHUNK).zip(second.par_chunks(CHUNK));
        destination.par_chunks_mut(CHUNK).zip(sources).for_each(|(d, (a, b))| self.rule.run(d, a, b));
        Ok(())
    }
}

/// Makes changes that do not depend on each other; on a GPU all at once. All rules are of one kind.
fn apply(changes: &[Change<'_>]) -> Result<()> {
    match changes.first() {
        Some(first) if !first.destination.device().is_cpu() => cuda::update::apply(changes),
        _ => changes.iter().try_for_each(|change| {
            let [a, b] = change.sources;
            change.destination.inplace_op3(&a.contiguous()?, &b.contiguous()?, change)
        }),
    }
}

/// `destination ← keep · destination + add · source` for each `(destination, source, (keep, add))`.
///
/// # Errors
/// Shapes that differ, or tensors that are not contiguous f32 on one device.
pub fn blend_all(all: &[(&Tensor, &Tensor, (f32, f32))]) -> Result<()> {
    let mut changes = Vec::with_capacity(all.len());
    for &(destination, source, (keep, add)) in all {
        changes.push(Change::new(destination, [source; 2], Rule::Blend { keep, add })?);
    }
    apply(&changes)
}

/// Velocity, gradient and parameter; momentum, scale and decay.
pub type Momentum<'a> = ([&'a Tensor; 3], (f32, f32, f32));

/// One step of momentum: `velocity ← momentum · velocity + scale · gradient + decay · parameter` for each.
///
/// # Errors
/// As [`blend_all`].
pub fn velocity_all(all: &[Momentum<'_>]) -> Result<()> {
    let mut changes = Vec::with_capacity(all.len());
    for &([velocity, gradient, parameter], (momentum, scale, decay)) in all {
        changes.push(Change::new(velocity, [gradient, parameter], Rule::Velocity { momentum, scale, decay })?);
    }
    apply(&changes)
}

/// Adam's ε.
const EPSILON: f32 = 1e-8;

/// A parameter of an AdamW step.
#[derive(Clone, Copy, Debug)]
pub struct Adam<'a> {
    pub parameter: &'a Tensor,
    pub gradient: &'a Tensor,
    /// First and second moment.
    pub moments: (&'a Tensor, &'a Tensor),
    pub rate: f32,
    pub decay: f32,
    /// What the gradient is multiplied by.
    pub scale: f32,
    /// Counts from 1.
    pub step: u64,
}

/// One step of AdamW (Loshchilov & Hutter 2019, algorithm 2) for each: both moments and the parameter move.
///
/// # Errors
/// As [`blend_all`].
pub fn adamw_all(all: &[Adam<'_>], (beta1, beta2): (f32, f32)) -> Result<()> {
    let (mut first, mut second, mut steps) = (Vec::new(), Vec::new(), Vec::new());
    for &Adam { parameter, gradient, moments, rate, decay, scale, step } in all {
        let power = step.min(1_000_000) as i32;
        let corrections = (1.0 - f64::from(beta1).powi(power), 1.0 - f64::from(beta2).powi(power));
        let (keep, add) = (beta1, (1.0 - beta1) * scale);
        first.push(Change::new(moments.0, [gradient; 2], Rule::Blend { keep, add })?);
        let (keep, add) = (beta2, (1.0 - beta2) * scale * scale);
        second.push(Change::new(moments.1, [gradient; 2], Rule::BlendSquares { keep, add })?);
        let rule = Rule::AdaptiveStep {
            shrink: 1.0 - rate * decay,
            rate: (f64::from(rate) / corrections.0) as f32,
            correction: (1.0 / corrections.1) as f32,
        };
        steps.push(Change::new(parameter, [moments.0, moments.1], rule)?);
    }
    [first, second, steps].iter().try_for_each(|changes| apply(changes))
}

/// Σ x² of each of `tensors`, which lie on one device, in double precision and in a fixed order.
///
/// # Errors
/// A tensor that cannot be read back as f32.
pub fn squared_norms(tensors: &[&Tensor]) -> Result<Vec<f64>> {
    match tensors.first() {
        Some(first) if !first.device().is_cpu() => cuda::update::squared_norms(tensors),
        _ => tensors.iter().map(|x| on_cpu(x)).collect(),
    }
}

/// [`squared_norms`] of one tensor.
///
/// # Errors
/// A tensor that cannot be read back as f32.
pub fn squared_norm(x: &Tensor) -> Result<f64> {
    Ok(squared_norms(&[x])?.iter().sum())
}

fn on_cpu(x: &Tensor) -> Result<f64> {
    with_values(x, "squared_norms", |values| {
        let chunk = |values: &[f32]| {
            let mut lanes = [0f64; 8];
            for eight in values.chunks(8) {
                for (lane, &v) in lanes.iter_mut().zip(eight) {
                    *lane += f64::from(v) * f64::from(v);
                }
            }
            lanes.iter().sum::<f64>()
        };
        let sums: Vec<f64> = values.par_chunks(CHUNK).map(chunk).collect();
        Ok(sums.iter().sum())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn two_adamw_steps_follow_the_formula_by_hand() -> Result<()> {
        let tensor = |v: f32| Tensor::from_slice(&[v], 1, &Device::Cpu);
        let (p, m, v) = (tensor(1.0)?, tensor(0.0)?, tensor(0.0)?);
        let step = |gradient: f32, step: u64| {
            let (parameter, moments) = (&p, (&m, &v));
            let gradient = &tensor(gradient)?;
            adamw_all(&[Adam { parameter, gradient, moments, rate: 0.1, decay: 0.5, scale: 1.0, step }], (0.9, 0.99))
        };
        step(2.0, 1)?;
        // Bias-corrected, the first step moves by the rate whatever the gradient: 0.95 · 1 − 0.1 · 2 / √4.
        assert!((p.to_vec1::<f32>()?[0] - 0.85).abs() < 1e-6);
        step(-1.0, 2)?;
        // m = 0.08, v = 0.0496; m̂ = 0.08 / 0.19, v̂ = 0.0496 / 0.0199.
        let expected = 0.95 * 0.85 - 0.1 * (0.08 / 0.19) / (0.0496f64 / 0.0199).sqrt();
        assert!((f64::from(p.to_vec1::<f32>()?[0]) - expected).abs() < 1e-6);
        Ok(())
    }

    #[test]
    fn momentum_and_blend_follow_their_formulas() -> Result<()> {
        let var = Var::from_slice(&[1.0f32, -2.0], 2, &Device::Cpu)?;
        let v = Tensor::from_slice(&[0.5f32, 0.5], 2, &Device::Cpu)?;
        let g = Tensor::from_slice(&[2.0f32, 4.0], 2, &Device::Cpu)?;
        velocity_all(&[([&v, &g, var.as_tensor()], (0.5, 1.0, 0.1))])?;
        assert_eq!(v.to_vec1::<f32>()?, vec![0.25 + 2.0 + 0.1, 0.25 + 4.0 - 0.2]);
        blend_all(&[(var.as_tensor(), &v, (1.0, -1.0))])?;
        assert_eq!(var.to_vec1::<f32>()?, vec![1.0 - 2.35, -2.0 - 4.05]);
        let longer = Tensor::zeros(3, candle_core::DType::F32, &Device::Cpu)?;
        assert!(blend_all(&[(&v, &longer, (1.0, 1.0))]).is_err());
        assert_eq!(squared_norm(&g)?, 20.0);
        Ok(())
    }
}
