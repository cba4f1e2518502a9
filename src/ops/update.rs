//! In-place arithmetic on parameters: what an optimiser does after the gradients are known.

use super::cuda;
use super::storage::with_values;
use candle_core::{CpuStorage, CudaStorage, InplaceOp2, InplaceOp3, Layout, Result, Tensor};
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

/// `d ← update(d, s)` for every pair of elements; on a GPU by a kernel that is given the same factors.
struct Pairs<'a, F> {
    kernel: &'static str,
    factors: &'a [f32],
    update: F,
}

impl<F: Fn(f32, f32) -> f32 + Sync> InplaceOp2 for Pairs<'_, F> {
    fn name(&self) -> &'static str {
        self.kernel
    }

    fn cpu_fwd(&self, s1: &mut CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<()> {
        let (destination, source) = (write(s1, l1)?, read(s2, l2)?);
        destination.par_chunks_mut(CHUNK).zip(source.par_chunks(CHUNK)).for_each(|(d, s)| {
            for (d, &s) in d.iter_mut().zip(s) {
                *d = (self.update)(*d, s);
            }
        });
        Ok(())
    }

    fn cuda_fwd(&self, s1: &mut CudaStorage, l1: &Layout, s2: &CudaStorage, l2: &Layout) -> Result<()> {
        cuda::update::change(self.kernel, (s1, l1), [(s2, l2)], self.factors)
    }
}

/// `d ← update(d, a, b)` for every triple of elements; on a GPU by a kernel that is given the same factors.
struct Triples<'a, F> {
    kernel: &'static str,
    factors: &'a [f32],
    update: F,
}

impl<F: Fn(f32, f32, f32) -> f32 + Sync> InplaceOp3 for Triples<'_, F> {
    fn name(&self) -> &'static str {
        self.kernel
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
        destination.par_chunks_mut(CHUNK).zip(sources).for_each(|(d, (a, b))| {
            for ((d, &a), &b) in d.iter_mut().zip(a).zip(b) {
                *d = (self.update)(*d, a, b);
            }
        });
        Ok(())
    }

    fn cuda_fwd(
        &self,
        s1: &mut CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
        s3: &CudaStorage,
        l3: &Layout,
    ) -> Result<()> {
        cuda::update::change(self.kernel, (s1, l1), [(s2, l2), (s3, l3)], self.factors)
    }
}

/// `destination ← keep · destination + add · source`, both f32 of one shape.
///
/// # Errors
/// Shapes that differ, or tensors that are not contiguous f32.
pub fn blend(destination: &Tensor, source: &Tensor, keep: f32, add: f32) -> Result<()> {
    same_shape(destination, source)?;
    let update = |d: f32, s: f32| keep * d + add * s;
    destination.inplace_op2(&source.contiguous()?, &Pairs { kernel: "blend", factors: &[keep, add], update })
}

/// One step of momentum: `velocity ← momentum · velocity + scale · gradient + decay · parameter`.
///
/// # Errors
/// Shapes that differ, or tensors that are not contiguous f32.
pub fn velocity(
    velocity: &Tensor,
    gradient: &Tensor,
    parameter: &Tensor,
    (momentum, scale, decay): (f32, f32, f32),
) -> Result<()> {
    same_shape(velocity, gradient)?;
    same_shape(velocity, parameter)?;
    let update = |v: f32, g: f32, p: f32| momentum * v + scale * g + decay * p;
    let op = Triples { kernel: "velocity", factors: &[momentum, scale, decay], update };
    velocity.inplace_op3(&gradient.contiguous()?, parameter, &op)
}

/// Adam's ε.
const EPSILON: f32 = 1e-8;

/// One step of AdamW (Loshchilov & Hutter 2019, algorithm 2) at `step` ≥ 1: both moments and the parameter move.
///
/// # Errors
/// Shapes that differ, or tensors that are not contiguous f32.
pub fn adamw(
    parameter: &Tensor,
    gradient: &Tensor,
    (first, second): (&Tensor, &Tensor),
    (beta1, beta2): (f32, f32),
    (rate, decay, scale): (f32, f32, f32),
    step: u64,
) -> Result<()> {
    for moment in [first, second] {
        same_shape(parameter, moment)?;
    }
    same_shape(parameter, gradient)?;
    let power = step.min(1_000_000) as i32;
    let corrections = (1.0 - f64::from(beta1).powi(power), 1.0 - f64::from(beta2).powi(power));
    blend(first, gradient, beta1, (1.0 - beta1) * scale)?;
    let (keep, add) = (beta2, (1.0 - beta2) * scale * scale);
    let update = |d: f32, g: f32| keep * d + add * g * g;
    let op = Pairs { kernel: "blend_squares", factors: &[keep, add], update };
    second.inplace_op2(&gradient.contiguous()?, &op)?;
    let shrink = 1.0 - rate * decay;
    let rate = (f64::from(rate) / corrections.0) as f32;
    let correction = (1.0 / corrections.1) as f32;
    let update = |p: f32, m: f32, v: f32| shrink * p - rate * m / ((v * correction).sqrt() + EPSILON);
    let op = Triples { kernel: "adaptive_step", factors: &[shrink, rate, correction], update };
    parameter.inplace_op3(first, second, &op)
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

fn same_shape(a: &Tensor, b: &Tensor) -> Result<()> {
    if a.dims() != b.dims() {
        candle_core::bail!("an in-place update of {:?} by {:?}", a.dims(), b.dims());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn two_adamw_steps_follow_the_formula_by_hand() -> Result<()> {
        let tensor = |v: f32| Tensor::from_slice(&[v], 1, &Device::Cpu);
        let (p, m, v) = (tensor(1.0)?, tensor(0.0)?, tensor(0.0)?);
        adamw(&p, &tensor(2.0)?, (&m, &v), (0.9, 0.99), (0.1, 0.5, 1.0), 1)?;
        // Bias-corrected, the first step moves by the rate whatever the gradient: 0.95 · 1 − 0.1 · 2 / √4.
        assert!((p.to_vec1::<f32>()?[0] - 0.85).abs() < 1e-6);
        adamw(&p, &tensor(-1.0)?, (&m, &v), (0.9, 0.99), (0.1, 0.5, 1.0), 2)?;
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
        velocity(&v, &g, var.as_tensor(), (0.5, 1.0, 0.1))?;
        assert_eq!(v.to_vec1::<f32>()?, vec![0.25 + 2.0 + 0.1, 0.25 + 4.0 - 0.2]);
        blend(var.as_tensor(), &v, 1.0, -1.0)?;
        assert_eq!(var.to_vec1::<f32>()?, vec![1.0 - 2.35, -2.0 - 4.05]);
        assert!(blend(&v, &Tensor::zeros(3, candle_core::DType::F32, &Device::Cpu)?, 1.0, 1.0).is_err());
        assert_eq!(squared_norm(&g)?, 20.0);
        Ok(())
    }
}
