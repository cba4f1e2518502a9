//! Normalisation: batch (batch and running statistics), group, and L2 over channels, each with a fused gradient.
//!
//! Sums run in f64 in a fixed order, so a result does not depend on the number of threads.

mod running;

pub use running::{factor_and_shift, fold_batch_norm};

use super::cuda;
use super::storage::{CHUNK, contiguous, with_values};
use super::tape::{apply2, apply3};
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

/// How ε enters the length that [`l2_norm`] divides by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum L2Eps {
    /// √Σx² + ε (Caffe, amdegroot, mmdet).
    Add(f32),
    /// max(√Σx², ε) (torchvision, `F.normalize`).
    Max(f32),
}

/// Batch normalisation with running statistics: `(x − mean) / √(var + eps) · gamma + beta` for each channel of
/// `[N, C, …]`. Differentiable in `x`, `gamma` and `beta`, all `[C]` but `x`; the statistics are constants.
///
/// # Errors
/// Fewer than two dimensions, a vector that is not `[C]`, or a tensor that is not f32.
pub fn batch_norm(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    running_mean: &Tensor,
    running_var: &Tensor,
    eps: f32,
) -> Result<Tensor> {
    let (n, channels, inner) = planes(x.shape(), "batch_norm")?;
    for vector in [gamma, beta, running_mean, running_var] {
        per_channel(vector.shape(), channels, "batch_norm")?;
    }
    if !x.device().is_cpu() {
        return cuda::norm::batch_norm(x, [gamma, beta, running_mean, running_var], (n, channels, inner), eps);
    }
    let mean = with_values(running_mean, "batch_norm", |v| Ok(v.to_vec()))?;
    let inverse = with_values(running_var, "batch_norm", |v| {
        Ok(v.iter().map(|&var| inverse_deviation(f64::from(var), eps) as f32).collect())
    })?;
    apply3(x, gamma, beta, BatchNorm { mean, inverse, of_batch: false })
}

/// Batch normalisation with the statistics of `x` itself: returns the result, and the batch mean and the unbiased
/// batch variance that running statistics follow, `[C]` each and no part of the graph. The biased variance normalises,
/// and gradients pass through both.
///
/// # Errors
/// What [`batch_norm`] refuses, and a single value per channel, which has no variance.
pub fn batch_norm_train(x: &Tensor, gamma: &Tensor, beta: &Tensor, eps: f32) -> Result<(Tensor, Tensor, Tensor)> {
    let (n, channels, inner) = planes(x.shape(), "batch_norm_train")?;
    per_channel(gamma.shape(), channels, "batch_norm_train")?;
    per_channel(beta.shape(), channels, "batch_norm_train")?;
    let count = n * inner;
    if count < 2 {
        candle_core::bail!("batch_norm_train needs more than one value per channel, not a batch of {:?}", x.dims());
    }
    if !x.device().is_cpu() {
        return cuda::norm::batch_norm_train(x, [gamma, beta], (n, channels, inner), eps);
    }
    let unbias = count as f64 / (count - 1) as f64;
    let statistics = with_values(x, "batch_norm_train", |x| Ok(channel_statistics(x, n, channels, inner)))?;
    let mean: Vec<f32> = statistics.iter().map(|s| s.0 as f32).collect();
    let inverse = statistics.iter().map(|s| inverse_deviation(s.1, eps) as f32).collect();
    let unbiased: Vec<f32> = statistics.iter().map(|s| (s.1 * unbias) as f32).collect();
    let y = apply3(x, gamma, beta, BatchNorm { mean: mean.clone(), inverse, of_batch: true })?;
    Ok((y, Tensor::from_vec(mean, channels, x.device())?, Tensor::from_vec(unbiased, channels, x.device())?))
}

/// Group normalisation of `[N, C, …]`: statistics over each sample's groups of `C / groups` channels, then `gamma`
/// and `beta`, both `[C]` (Wu & He, "Group Normalization", 2018).
///
/// # Errors
/// Groups that do not divide the channels, or what [`batch_norm`] refuses.
pub fn group_norm(x: &Tensor, gamma: &Tensor, beta: &Tensor, groups: usize, eps: f32) -> Result<Tensor> {
    let (n, channels, inner) = planes(x.shape(), "group_norm")?;
    per_channel(gamma.shape(), channels, "group_norm")?;
    per_channel(beta.shape(), channels, "group_norm")?;
    if groups == 0 || channels % groups != 0 {
        candle_core::bail!("group_norm: {} groups do not divide {} channels", groups, channels);
    }
    if x.device().is_cpu() {
        return apply3(x, gamma, beta, GroupNorm { groups, eps });
    }
    cuda::norm::group_norm([x, gamma, beta], (n, channels, inner), groups, eps)
}

/// Each pixel's channel vector scaled to length 1, then by `gamma` `[C]` (ParseNet; the first SSD source).
///
/// # Errors
/// Fewer than two dimensions, `gamma` that is not `[C]`, or a tensor that is not f32.
pub fn l2_norm(x: &Tensor, gamma: &Tensor, eps: L2Eps) -> Result<Tensor> {
    let (n, channels, inner) = planes(x.shape(), "l2_norm")?;
    per_channel(gamma.shape(), channels, "l2_norm")?;
    if x.device().is_cpu() {
        return apply2(x, gamma, L2Norm(eps));
    }
    cuda::norm::l2_norm(x, gamma, (n, channels, inner), eps)
}

fn inverse_deviation(var: f64, eps: f32) -> f64 {
    1.0 / (var + f64::from(eps)).sqrt()
}

/// Batch, channels, and the product of the remaining dimensions.
fn planes(shape: &Shape, op: &str) -> Result<(usize, usize, usize)> {
    match shape.dims() {
        [n, channels, rest @ ..] => Ok((*n, *channels, rest.iter().product())),
        dims => candle_core::bail!("{} needs a tensor [N, C, ...], not {:?}", op, dims),
    }
}

fn per_channel(shape: &Shape, channels: usize, op: &str) -> Result<()> {
    if shape.dims() != [channels] {
        candle_core::bail!("{} of {} channels needs vectors of that length, not {:?}", op, channels, shape.dims());
    }
    Ok(())
}

/// Σ term(a, b) in eight interleaved partial sums, which the compiler can vectorise without changing their order.
fn sum(a: &[f32], b: &[f32], term: impl Fn(f64, f64) -> f64) -> f64 {
    let term = |(&a, &b): (&f32, &f32)| term(f64::from(a), f64::from(b));
    let mut lanes = [0.0f64; 8];
    let (a_blocks, b_blocks) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = a_blocks.remainder().iter().zip(b_blocks.remainder()).map(term).sum();
    for (a, b) in a_blocks.zip(b_blocks) {
        for (lane, pair) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += term(pair);
        }
    }
    lanes.iter().sum::<f64>() + rest
}

/// Mean and biased variance, the latter about the former.
fn moments<'a>(parts: impl Iterator<Item = &'a [f32]> + Clone, count: usize) -> (f64, f64) {
    let mean = parts.clone().map(|p| sum(p, p, |v, _| v)).sum::<f64>() / count as f64;
    let squares = parts.map(|p| sum(p, p, |v, _| (v - mean) * (v - mean))).sum::<f64>();
    (mean, squares / count as f64)
}

fn channel_statistics(x: &[f32], n: usize, channels: usize, inner: usize) -> Vec<(f64, f64)> {
    let channel = |c: usize| {
        let parts = (0..n).map(|i| &x[(i * channels + c) * inner..][..inner]);
        moments(parts, n * inner)
    };
    (0..channels).into_par_iter().map(channel).collect()
}

struct BatchNorm {
    mean: Vec<f32>,
    /// 1 / √(var + ε)
    inverse: Vec<f32>,
    /// The statistics follow the input, so its gradient passes through them.
    of_batch: bool,
}

impl CustomOp3 for BatchNorm {
    fn name(&self) -> &'static str {
        if self.of_batch { "batch_norm_train" } else { "batch_norm" }
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (_, channels, inner) = planes(l1.shape(), self.name())?;
        let x = contiguous(s1, l1, self.name())?;
        let (gamma, beta) = (contiguous(s2, l2, self.name())?, contiguous(s3, l3, self.name())?);
        let mut y = vec![0.0f32; x.len()];
        if !y.is_empty() {
            y.par_chunks_mut(inner).zip(x.par_chunks(inner)).enumerate().with_min_len((CHUNK / inner).max(1)).for_each(
                |(plane, (y, x))| {
                    let c = plane % channels;
                    let (mean, scale, shift) = (self.mean[c], gamma[c] * self.inverse[c], beta[c]);
                    for (y, &x) in y.iter_mut().zip(x) {
                        *y = (x - mean) * scale + shift;
                    }
                },
            );
        }
        Ok((CpuStorage::F32(y), l1.shape().clone()))
    }

    fn bwd(
        &self,
        arg1: &Tensor,
        arg2: &Tensor,
        arg3: &Tensor,
        _res: &Tensor,
        grad_res: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (n, channels, inner) = planes(arg1.shape(), self.name())?;
        let (gx, sums) = with_values(arg1, self.name(), |x| {
            with_values(grad_res, self.name(), |g| {
                let sums = self.sums(x, g, n, channels, inner);
                let gx = with_values(arg2, self.name(), |gamma| Ok(self.input_gradient(x, g, gamma, &sums, n, inner)))?;
                Ok((gx, sums))
            })
        })?;
        let g_gamma: Vec<f32> = sums.iter().map(|s| s.1 as f32).collect();
        let g_beta: Vec<f32> = sums.iter().map(|s| s.0 as f32).collect();
        Ok((
            Some(Tensor::from_vec(gx, arg1.shape(), arg1.device())?),
            Some(Tensor::from_vec(g_gamma, channels, arg2.device())?),
            Some(Tensor::from_vec(g_beta, channels, arg3.device())?),
        ))
    }
}

impl BatchNorm {
    /// For each channel Σg and Σ g·x̂, x̂ being the normalised input.
    fn sums(&self, x: &[f32], g: &[f32], n: usize, channels: usize, inner: usize) -> Vec<(f64, f64)> {
        let channel = |c: usize| {
            let (mean, inverse) = (f64::from(self.mean[c]), f64::from(self.inverse[c]));
            let (mut plain, mut weighted) = (0.0, 0.0);
            for i in 0..n {
                let start = (i * channels + c) * inner;
                let (x, g) = (&x[start..start + inner], &g[start..start + inner]);
                plain += sum(g, g, |g, _| g);
                weighted += sum(x, g, |x, g| (x - mean) * g);
            }
            (plain, weighted * inverse)
        };
        (0..channels).into_par_iter().map(channel).collect()
    }

    fn input_gradient(
        &self,
        x: &[f32],
        g: &[f32],
        gamma: &[f32],
        sums: &[(f64, f64)],
        n: usize,
        inner: usize,
    ) -> Vec<f32> {
        let (channels, count) = (self.mean.len(), (n * inner) as f64);
        let mut gx = vec![0.0f32; x.len()];
        if gx.is_empty() {
            return gx;
        }
        let inputs = x.par_chunks(inner).zip(g.par_chunks(inner));
        gx.par_chunks_mut(inner).zip(inputs).enumerate().with_min_len((CHUNK / inner).max(1)).for_each(
            |(plane, (gx, (x, g)))| {
                let c = plane % channels;
                let (mean, scale) = (self.mean[c], gamma[c] * self.inverse[c]);
                if self.of_batch {
                    let level = (sums[c].0 / count) as f32;
                    let tilt = (sums[c].1 / count * f64::from(self.inverse[c])) as f32;
                    for ((gx, &x), &g) in gx.iter_mut().zip(x).zip(g) {
                        *gx = scale * ((g - level) - (x - mean) * tilt);
                    }
                } else {
                    for (gx, &g) in gx.iter_mut().zip(g) {
                        *gx = scale * g;
                    }
                }
            },
        );
        gx
    }
}

struct GroupNorm {
    groups: usize,
    eps: f32,
}

impl CustomOp3 for GroupNorm {
    fn name(&self) -> &'static str {
        "group_norm"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (_, channels, inner) = planes(l1.shape(), self.name())?;
        let x = contiguous(s1, l1, self.name())?;
        let (gamma, beta) = (contiguous(s2, l2, self.name())?, contiguous(s3, l3, self.name())?);
        let members = channels / self.groups;
        let mut y = vec![0.0f32; x.len()];
        if !y.is_empty() {
            let block = members * inner;
            y.par_chunks_mut(block).zip(x.par_chunks(block)).enumerate().for_each(|(b, (y, x))| {
                let (mean, var) = moments(std::iter::once(x), block);
                let (mean, inverse) = (mean as f32, inverse_deviation(var, self.eps) as f32);
                let first = b % self.groups * members;
                for (k, (y, x)) in y.chunks_exact_mut(inner).zip(x.chunks_exact(inner)).enumerate() {
                    let (scale, shift) = (gamma[first + k] * inverse, beta[first + k]);
                    for (y, &x) in y.iter_mut().zip(x) {
                        *y = (x - mean) * scale + shift;
                    }
                }
            });
        }
        Ok((CpuStorage::F32(y), l1.shape().clone()))
    }

    fn bwd(
        &self,
        arg1: &Tensor,
        arg2: &Tensor,
        _arg3: &Tensor,
        _res: &Tensor,
        grad_res: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (n, channels, inner) = planes(arg1.shape(), self.name())?;
        let (gx, sums) = with_values(arg1, self.name(), |x| {
            with_values(grad_res, self.name(), |g| {
                with_values(arg2, self.name(), |gamma| Ok(self.gradients(x, g, gamma, (n, channels, inner))))
            })
        })?;
        let (mut g_gamma, mut g_beta) = (vec![0.0f64; channels], vec![0.0f64; channels]);
        for (i, (plain, weighted)) in sums.iter().enumerate() {
            g_beta[i % channels] += plain;
            g_gamma[i % channels] += weighted;
        }
        let vector = |values: Vec<f64>| {
            let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
            Tensor::from_vec(values, channels, arg1.device())
        };
        let gx = Tensor::from_vec(gx, arg1.shape(), arg1.device())?;
        Ok((Some(gx), Some(vector(g_gamma)?), Some(vector(g_beta)?)))
    }
}

impl GroupNorm {
    /// The gradient of the input, and for each plane of `[N, C]` Σg and Σ g·x̂.
    fn gradients(
        &self,
        x: &[f32],
        g: &[f32],
        gamma: &[f32],
        (n, channels, inner): (usize, usize, usize),
    ) -> (Vec<f32>, Vec<(f64, f64)>) {
        let members = channels / self.groups;
        let mut gx = vec![0.0f32; x.len()];
        let mut sums = vec![(0.0f64, 0.0f64); n * channels];
        if gx.is_empty() {
            return (gx, sums);
        }
        let block = members * inner;
        let inputs = x.par_chunks(block).zip(g.par_chunks(block));
        gx.par_chunks_mut(block).zip(sums.par_chunks_mut(members)).zip(inputs).enumerate().for_each(
            |(b, ((gx, sums), (x, g)))| {
                let (mean, var) = moments(std::iter::once(x), block);
                let inverse = inverse_deviation(var, self.eps);
                let gamma = &gamma[b % self.groups * members..][..members];
                let (mut level, mut tilt) = (0.0, 0.0);
                for (k, (x, g)) in x.chunks_exact(inner).zip(g.chunks_exact(inner)).enumerate() {
                    sums[k] = (sum(g, g, |g, _| g), sum(x, g, |x, g| (x - mean) * g) * inverse);
                    level += f64::from(gamma[k]) * sums[k].0 / block as f64;
                    tilt += f64::from(gamma[k]) * sums[k].1 / block as f64;
                }
                let (level, tilt) = (level as f32, (tilt * inverse) as f32);
                let (mean, inverse) = (mean as f32, inverse as f32);
                let rows = x.chunks_exact(inner).zip(g.chunks_exact(inner));
                for (k, (gx, (x, g))) in gx.chunks_exact_mut(inner).zip(rows).enumerate() {
                    for ((gx, &x), &g) in gx.iter_mut().zip(x).zip(g) {
                        *gx = inverse * (gamma[k] * g - level - (x - mean) * tilt);
                    }
                }
            },
        );
        (gx, sums)
    }
}

struct L2Norm(L2Eps);

impl L2Norm {
    /// The divisor for a vector of length `root`.
    fn divisor(&self, root: f64) -> f64 {
        match self.0 {
            L2Eps::Add(eps) => root + f64::from(eps),
            L2Eps::Max(eps) => root.max(f64::from(eps)),
        }
    }

    /// Whether the divisor grows with the length at `root`.
    fn follows(&self, root: f64) -> bool {
        match self.0 {
            L2Eps::Add(_) => root > 0.0,
            L2Eps::Max(eps) => root > 0.0 && root >= f64::from(eps),
        }
    }

    /// √Σ x² over the channels of every pixel, `[N · inner]`.
    fn roots(x: &[f32], dims: (usize, usize, usize)) -> Vec<f64> {
        across_channels(dims, |_, place| f64::from(x[place]) * f64::from(x[place])).into_iter().map(f64::sqrt).collect()
    }
}

/// Σ over channels of `term(channel, place)` for every pixel of `[N, C, inner]`; `place` is the flat index.
fn across_channels(
    (n, channels, inner): (usize, usize, usize),
    term: impl Fn(usize, usize) -> f64 + Sync + Send,
) -> Vec<f64> {
    const BLOCK: usize = 256;
    let mut sums = vec![0.0f64; n * inner];
    if sums.is_empty() {
        return sums;
    }
    for (i, image) in sums.chunks_exact_mut(inner).enumerate() {
        image.par_chunks_mut(BLOCK).enumerate().for_each(|(b, block)| {
            for c in 0..channels {
                let start = (i * channels + c) * inner + b * BLOCK;
                for (k, total) in block.iter_mut().enumerate() {
                    *total += term(c, start + k);
                }
            }
        });
    }
    sums
}

impl CustomOp2 for L2Norm {
    fn name(&self) -> &'static str {
        "l2_norm"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, channels, inner) = planes(l1.shape(), self.name())?;
        let (x, gamma) = (contiguous(s1, l1, self.name())?, contiguous(s2, l2, self.name())?);
        let roots = Self::roots(&x, (n, channels, inner));
        let divisors: Vec<f32> = roots.into_iter().map(|root| self.divisor(root) as f32).collect();
        let mut y = vec![0.0f32; x.len()];
        if !y.is_empty() {
            y.par_chunks_mut(inner).zip(x.par_chunks(inner)).enumerate().for_each(|(plane, (y, x))| {
                let (gamma, divisors) = (gamma[plane % channels], &divisors[plane / channels * inner..][..inner]);
                for ((y, &x), &divisor) in y.iter_mut().zip(x).zip(divisors) {
                    *y = gamma * (x / divisor);
                }
            });
        }
        Ok((CpuStorage::F32(y), l1.shape().clone()))
    }

    /// With r = √Σx², d the divisor and S = Σ γ g x over channels: gx = γ g / d − x S / (d² r), the second part only
    /// where d follows r.
    fn bwd(
        &self,
        arg1: &Tensor,
        arg2: &Tensor,
        _res: &Tensor,
        grad_res: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (n, channels, inner) = planes(arg1.shape(), self.name())?;
        let dims = (n, channels, inner);
        let (gx, g_gamma) = with_values(arg1, self.name(), |x| {
            with_values(grad_res, self.name(), |g| {
                with_values(arg2, self.name(), |gamma| {
                    let products = across_channels(dims, |c, place| {
                        f64::from(gamma[c]) * f64::from(g[place]) * f64::from(x[place])
                    });
                    let pull = |(root, product): (f64, f64)| {
                        let divisor = self.divisor(root);
                        let along = if self.follows(root) { product / (divisor * divisor * root) } else { 0.0 };
                        ((1.0 / divisor) as f32, along as f32)
                    };
                    let factors: Vec<(f32, f32)> = Self::roots(x, dims).into_iter().zip(products).map(pull).collect();
                    let mut gx = vec![0.0f32; x.len()];
                    let mut sums = vec![0.0f64; n * channels];
                    if !gx.is_empty() {
                        let inputs = x.par_chunks(inner).zip(g.par_chunks(inner));
                        gx.par_chunks_mut(inner).zip(sums.par_iter_mut()).zip(inputs).enumerate().for_each(
                            |(plane, ((gx, sum), (x, g)))| {
                                let gamma = gamma[plane % channels];
                                let factors = &factors[plane / channels * inner..][..inner];
                                for (((gx, &x), &g), &(inverse, along)) in gx.iter_mut().zip(x).zip(g).zip(factors) {
                                    *gx = gamma * g * inverse - x * along;
                                    *sum += f64::from(g) * f64::from(x * inverse);
                                }
                            },
                        );
                    }
                    let mut g_gamma = vec![0.0f64; channels];
                    for (plane, sum) in sums.iter().enumerate() {
                        g_gamma[plane % channels] += sum;
                    }
                    Ok((gx, g_gamma.iter().map(|&v| v as f32).collect::<Vec<f32>>()))
                })
            })
        })?;
        let gx = Tensor::from_vec(gx, arg1.shape(), arg1.device())?;
        Ok((Some(gx), Some(Tensor::from_vec(g_gamma, channels, arg1.device())?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// Channel values 1, 3 and 2, 6: means 2 and 4, biased variances 1 and 4, unbiased 2 and 8.
    #[test]
    fn batch_statistics_match_hand_computation() -> Result<()> {
        let device = &Device::Cpu;
        let x = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 6.0], (2, 2, 1), device)?;
        let gamma = Tensor::from_slice(&[1.0f32, 3.0], 2, device)?;
        let beta = Tensor::from_slice(&[0.0f32, 0.5], 2, device)?;
        let (y, mean, var) = batch_norm_train(&x, &gamma, &beta, 0.0)?;
        assert_eq!((mean.to_vec1::<f32>()?, var.to_vec1::<f32>()?), (vec![2.0, 4.0], vec![2.0, 8.0]));
        assert_eq!(y.flatten_all()?.to_vec1::<f32>()?, [-1.0, -2.5, 1.0, 3.5]);
        assert!(batch_norm_train(&x.narrow(0, 0, 1)?, &gamma, &beta, 0.0).is_err());
        Ok(())
    }

    #[test]
    fn lengths_follow_their_rule_for_epsilon() -> Result<()> {
        let device = &Device::Cpu;
        let x = Tensor::from_slice(&[3.0f32, 0.0, 4.0, 0.0], (1, 2, 2), device)?;
        let gamma = Tensor::from_slice(&[10.0f32, 20.0], 2, device)?;
        let y = l2_norm(&x, &gamma, L2Eps::Max(1e-12))?;
        assert_eq!(y.flatten_all()?.to_vec1::<f32>()?, [6.0, 0.0, 16.0, 0.0]);
        let y = l2_norm(&x, &gamma, L2Eps::Add(5.0))?;
        assert_eq!(y.flatten_all()?.to_vec1::<f32>()?, [3.0, 0.0, 8.0, 0.0]);
        Ok(())
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors() -> Result<()> {
        let device = &Device::Cpu;
        let x = Tensor::zeros((2, 3, 2, 2), candle_core::DType::F32, device)?;
        let (three, two) = (x.narrow(0, 0, 1)?.sum((0, 2, 3))?, x.narrow(1, 0, 2)?.sum((0, 2, 3))?);
        assert!(batch_norm(&x, &three, &two, &three, &three, 1e-5).is_err());
        assert!(group_norm(&x, &three, &three, 2, 1e-5).is_err());
        assert!(l2_norm(&x, &two, L2Eps::Add(1e-10)).is_err());
        assert!(l2_norm(&three, &three, L2Eps::Add(1e-10)).is_err());
        Ok(())
    }
}
