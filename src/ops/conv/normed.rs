//! Convolution, batch normalisation by the batch's own statistics and activation as one operation with one gradient.
//!
//! Apart they would be three nodes of the graph, each of which writes a map forward, reads three and writes two
//! backward; together the map before the norm is kept and everything else is recomputed from it in two passes.

use super::WeightCache;
use super::cuda;
use super::op::{Convolution, contiguous_floats};
use super::simd::{Lanes, Simd, dispatch};
use super::spec::{Activation, ConvSpec, Geometry};
use super::tasks::{filled, parallel};
use crate::ops::maps::cat;
use crate::ops::tape::apply3;
use candle_core::{CpuStorage, CustomOp3, Device, Layout, Result, Shape, Tensor, bail};
use std::sync::{Arc, Mutex, PoisonError};

/// Convolution without bias, batch norm over the batch's own statistics, and the activation of `spec`:
/// x `[N, C, H, W]`, weight `[O, C/groups, kh, kw]`, gamma and beta `[O]` → `[N, O, H', W']`, differentiable in all four
/// (on a CUDA device by a [`Tape`](crate::ops::tape::Tape) alone).
/// Also returns the batch mean and the unbiased batch variance, `[O]` each, that running statistics follow.
///
/// # Errors
/// Those of [`conv2d`], vectors that are not `[O]`, and a single value per channel, which has no variance.
pub fn conv2d_norm_train(
    x: &Tensor,
    weight: &Tensor,
    (gamma, beta): (&Tensor, &Tensor),
    eps: f32,
    spec: ConvSpec,
    cache: Option<(&Arc<WeightCache>, u64)>,
) -> Result<(Tensor, Tensor, Tensor)> {
    let plain = spec.activation(Activation::None);
    let geometry = Geometry::new(x.dims(), weight.dims(), &plain)?;
    let channels = geometry.weight_shape()[0];
    if gamma.dims() != [channels] || beta.dims() != [channels] {
        bail!("batch norm of {channels} channels needs vectors of that length, not {:?} and {:?}", gamma, beta)
    }
    let count = geometry.output_len() / channels.max(1);
    if count < 2 {
        bail!("batch norm needs more than one value per channel, not an output of {:?}", geometry.output_shape());
    }
    if !x.device().is_cpu() {
        let tensors = [x, weight, gamma, beta];
        return cuda::conv2d_norm_train(tensors, geometry, spec.activation.slope(), eps, cache);
    }
    let kept = Arc::new(Mutex::new(Kept::default()));
    let op = Normed {
        convolution: Convolution::new(plain, cache),
        slope: spec.activation.slope(),
        eps,
        kept: Arc::clone(&kept),
    };
    let affine = cat(&[gamma.clone(), beta.clone()], 0)?;
    let y = apply3(&x.contiguous()?, &weight.contiguous()?, &affine, op)?;
    let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    let unbias = count as f64 / (count - 1) as f64;
    let mean: Vec<f32> = kept.channels.iter().map(|c| c.mean).collect();
    let variance: Vec<f32> = kept.channels.iter().map(|c| (c.variance * unbias) as f32).collect();
    Ok((y, Tensor::from_vec(mean, channels, &Device::Cpu)?, Tensor::from_vec(variance, channels, &Device::Cpu)?))
}

/// One channel's batch statistics.
#[derive(Clone, Copy, Debug)]
struct Channel {
    mean: f32,
    /// Biased.
    variance: f64,
    /// 1 / √(variance + ε)
    inverse: f32,
}

/// What the gradient needs of the forward pass.
#[derive(Debug, Default)]
struct Kept {
    /// The convolution's output.
    before: Vec<f32>,
    channels: Vec<Channel>,
}

struct Normed {
    convolution: Convolution,
    slope: f32,
    eps: f32,
    kept: Arc<Mutex<Kept>>,
}

/// y = max(u, slope · u) with u = (z − mean) · scale + shift.
#[derive(Clone, Copy)]
struct Affine {
    mean: f32,
    scale: f32,
    shift: f32,
    slope: f32,
}

impl Affine {
    fn new(channel: Channel, gamma: f32, beta: f32, slope: f32) -> Self {
        Self { mean: channel.mean, scale: gamma * channel.inverse, shift: beta, slope }
    }

    /// Before the activation.
    #[inline(always)]
    fn before(self, z: f32) -> f32 {
        (z - self.mean) * self.scale + self.shift
    }

    /// The gradient before the activation, from that after it.
    #[inline(always)]
    fn gradient(self, z: f32, g: f32) -> f32 {
        if self.before(z) <= 0.0 { self.slope * g } else { g }
    }
}

/// Sums in f64 over eight interleaved lanes, so that the order is the same on every instruction set.
type Sums = [f64; 8];

/// Adds Σz and Σz² of a plane.
///
/// # Safety
/// The CPU has `V`'s instructions.
#[inline(always)]
unsafe fn add_moments<V: Lanes>(z: &[f32], plain: &mut Sums, squares: &mut Sums) {
    for z in z.chunks(8) {
        for ((plain, square), &z) in plain.iter_mut().zip(squares.iter_mut()).zip(z) {
            let z = f64::from(z);
            *plain += z;
            *square += z * z;
        }
    }
}

/// Writes a plane's output.
///
/// # Safety
/// The CPU has `V`'s instructions, and `to` has room for the plane.
#[inline(always)]
unsafe fn normalise<V: Lanes>(z: &[f32], affine: Affine, to: *mut f32) {
    for (place, &z) in z.iter().enumerate() {
        let u = affine.before(z);
        let y = if u <= 0.0 { affine.slope * u } else { u };
        // SAFETY: within the plane.
        unsafe { *to.add(place) = y };
    }
}

/// Adds Σg and Σ(z − mean)·g of a plane, g being the gradient before the activation.
///
/// # Safety
/// The CPU has `V`'s instructions.
#[inline(always)]
unsafe fn add_gradients<V: Lanes>(z: &[f32], g: &[f32], affine: Affine, plain: &mut Sums, tilted: &mut Sums) {
    for (z, g) in z.chunks(8).zip(g.chunks(8)) {
        for (((plain, tilted), &z), &g) in plain.iter_mut().zip(tilted.iter_mut()).zip(z).zip(g) {
            let g = f64::from(affine.gradient(z, g));
            *plain += g;
            *tilted += f64::from(z - affine.mean) * g;
        }
    }
}

/// Writes a plane's gradient of the convolution's output: scale · (g − level − (z − mean) · tilt).
///
/// # Safety
/// The CPU has `V`'s instructions, and `to` has room for the plane.
#[inline(always)]
unsafe fn write_gradient<V: Lanes>(z: &[f32], g: &[f32], affine: Affine, level: f32, tilt: f32, to: *mut f32) {
    for (place, (&z, &g)) in z.iter().zip(g).enumerate() {
        let g = affine.gradient(z, g);
        // SAFETY: within the plane.
        unsafe { *to.add(place) = affine.scale * ((g - level) - (z - affine.mean) * tilt) };
    }
}

impl Normed {
    /// Each channel's statistics over its planes of `z`.
    fn statistics(&self, simd: Simd, geometry: &Geometry, z: &[f32]) -> Result<Vec<Channel>> {
        let (batch, channels, ..) = geometry.output_shape();
        let plane = geometry.output_plane();
        let count = (batch * plane) as f64;
        let pairs = pairs(channels, |channel, plain, squares| {
            for image in 0..batch {
                let z = &z[(image * channels + channel) * plane..][..plane];
                // SAFETY: `simd` is what this CPU has.
                unsafe {
                    dispatch!(
                        simd,
                        add_moments(z: &[f32] = z, plain: &mut Sums = plain, squares: &mut Sums = squares)
                    )
                }
            }
        })?;
        let channel = |(plain, squares): (f64, f64)| {
            let mean = plain / count;
            let variance = (squares / count - mean * mean).max(0.0);
            let inverse = (1.0 / (variance + f64::from(self.eps)).sqrt()) as f32;
            Channel { mean: mean as f32, variance, inverse }
        };
        Ok(pairs.into_iter().map(channel).collect())
    }

    /// The gradient of the convolution's output, and those of gamma and beta `[2·O]`.
    fn before_norm(
        &self,
        simd: Simd,
        geometry: &Geometry,
        kept: &Kept,
        affine: &[f32],
        gradient: &[f32],
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let (batch, channels, ..) = geometry.output_shape();
        let plane = geometry.output_plane();
        let count = (batch * plane) as f64;
        let of = |channel: usize| {
            Affine::new(kept.channels[channel], affine[channel], affine[channels + channel], self.slope)
        };
        let pairs = pairs(channels, |channel, plain, tilted| {
            for image in 0..batch {
                let at = (image * channels + channel) * plane;
                let (z, g) = (&kept.before[at..][..plane], &gradient[at..][..plane]);
                // SAFETY: `simd` is what this CPU has.
                unsafe {
                    dispatch!(
                        simd,
                        add_gradients(
                            z: &[f32] = z,
                            g: &[f32] = g,
                            affine: Affine = of(channel),
                            plain: &mut Sums = plain,
                            tilted: &mut Sums = tilted,
                        )
                    )
                }
            }
        })?;
        // SAFETY: every plane is written, each by one task.
        let before = unsafe {
            filled(geometry.output_len(), |to| {
                parallel(batch * channels, |index| {
                    let channel = index % channels;
                    let (plain, tilted) = pairs[channel];
                    let inverse = f64::from(kept.channels[channel].inverse);
                    let level = (plain / count) as f32;
                    let tilt = (tilted * inverse * inverse / count) as f32;
                    let at = index * plane;
                    let (z, g) = (&kept.before[at..][..plane], &gradient[at..][..plane]);
                    dispatch!(
                        simd,
                        write_gradient(
                            z: &[f32] = z,
                            g: &[f32] = g,
                            affine: Affine = of(channel),
                            level: f32 = level,
                            tilt: f32 = tilt,
                            to: *mut f32 = to.at(at),
                        )
                    )
                });
            })?
        };
        let of_gamma = pairs.iter().zip(&kept.channels).map(|(p, c)| (p.1 * f64::from(c.inverse)) as f32);
        let of_affine = of_gamma.chain(pairs.iter().map(|p| p.0 as f32)).collect();
        Ok((before, of_affine))
    }
}

/// Two sums for each channel, made in parallel.
fn pairs(channels: usize, work: impl Fn(usize, &mut Sums, &mut Sums) + Send + Sync) -> Result<Vec<(f64, f64)>> {
    use rayon::prelude::*;
    let pair = |channel: usize| {
        let (mut first, mut second) = ([0.0; 8], [0.0; 8]);
        work(channel, &mut first, &mut second);
        (first.iter().sum(), second.iter().sum())
    };
    Ok((0..channels).into_par_iter().with_max_len(1).map(pair).collect())
}

impl CustomOp3 for Normed {
    fn name(&self) -> &'static str {
        "conv2d with batch norm"
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
        let geometry = self.convolution.geometry(l1.dims(), l2.dims())?;
        let before = self.convolution.values((s1, l1), (s2, l2), None)?;
        let affine = contiguous_floats(s3, l3)?;
        let simd = Simd::current();
        let statistics = self.statistics(simd, &geometry, &before)?;
        let (batch, channels, ..) = geometry.output_shape();
        let plane = geometry.output_plane();
        // SAFETY: every plane is written, each by one task.
        let y = unsafe {
            filled(geometry.output_len(), |to| {
                parallel(batch * channels, |index| {
                    let channel = index % channels;
                    let (gamma, beta) = (affine[channel], affine[channels + channel]);
                    let affine = Affine::new(statistics[channel], gamma, beta, self.slope);
                    let z = &before[index * plane..][..plane];
                    dispatch!(
                        simd,
                        normalise(z: &[f32] = z, affine: Affine = affine, to: *mut f32 = to.at(index * plane))
                    )
                });
            })?
        };
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Kept { before, channels: statistics };
        Ok((CpuStorage::F32(y), geometry.output_shape().into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        affine: &Tensor,
        _y: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let geometry = self.convolution.geometry(x.dims(), weight.dims())?;
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if gradient.elem_count() != kept.before.len() {
            bail!("conv2d with batch norm: gradient {:?} must have the output's shape", gradient.dims())
        }
        let values = affine.to_vec1::<f32>()?;
        let (before, of_affine) = crate::ops::storage::with_values(gradient, self.name(), |gradient| {
            self.before_norm(Simd::current(), &geometry, &kept, &values, gradient)
        })?;
        let (of_x, of_weight) = self.convolution.input_and_weight_gradients(&geometry, x, weight, &before)?;
        Ok((of_x, of_weight, Some(Tensor::from_vec(of_affine, affine.shape(), &Device::Cpu)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::conv::conv2d;
    use crate::ops::precision::Precision;
    use crate::ops::{activation, norm};
    use crate::random::Random;
    use candle_core::Var;

    /// Input shape, weight shape, stride, padding, groups.
    type Case = ([usize; 4], [usize; 4], usize, usize, usize);

    const CASES: &[Case] = &[
        ([2, 3, 7, 9], [5, 3, 3, 3], 1, 1, 1),
        ([3, 4, 8, 5], [6, 2, 3, 3], 2, 1, 2),
        ([1, 6, 5, 5], [6, 1, 3, 3], 1, 1, 6),
        ([4, 9, 1, 1], [17, 9, 1, 1], 1, 0, 1),
    ];

    fn numbers(random: &mut Random, shape: &[usize]) -> Result<Var> {
        let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|_| random.normal()).collect();
        Var::from_vec(values, shape, &Device::Cpu)
    }

    fn close(what: &str, a: &Tensor, b: &Tensor) -> Result<()> {
        let (a, b) = (a.flatten_all()?.to_vec1::<f32>()?, b.flatten_all()?.to_vec1::<f32>()?);
        let largest = b.iter().fold(1e-3f32, |m, v| m.max(v.abs()));
        let worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(a.len() == b.len() && worst <= 2e-5 * largest, "{what}: {worst} of {largest}");
        Ok(())
    }

    /// The three operations one after another are the reference; each is checked against its own naive sums.
    #[test]
    fn it_equals_convolution_then_norm_then_activation_with_all_gradients() -> Result<()> {
        for (case, &(input, kernel, stride, padding, groups)) in CASES.iter().enumerate() {
            for activation in [Activation::None, Activation::Relu, Activation::Leaky(0.1)] {
                let mut random = Random::new(case as u64);
                let (x, weight) = (numbers(&mut random, &input)?, numbers(&mut random, &kernel)?);
                let (gamma, beta) = (numbers(&mut random, &kernel[..1])?, numbers(&mut random, &kernel[..1])?);
                let spec = ConvSpec::new().stride(stride).padding(padding).groups(groups);
                let fused = spec.activation(activation);
                let (y, mean, variance) =
                    conv2d_norm_train(&x, &weight, (gamma.as_tensor(), beta.as_tensor()), 1e-5, fused, None)?;
                let z = conv2d(&x, &weight, None, spec, None)?;
                let (expected, mean_apart, variance_apart) = norm::batch_norm_train(&z, &gamma, &beta, 1e-5)?;
                let expected = activation::apply(&expected, activation)?;
                close("output", &y, &expected)?;
                for (found, apart) in [(mean, mean_apart), (variance, variance_apart)] {
                    for (a, b) in found.to_vec1::<f32>()?.iter().zip(apart.to_vec1::<f32>()?) {
                        assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{a} {b}");
                    }
                }
                let towards = numbers(&mut random, y.dims())?.as_detached_tensor();
                let found = (&y * &towards)?.sum_all()?.backward()?;
                let known = (&expected * &towards)?.sum_all()?.backward()?;
                for (name, var) in [("x", &x), ("weight", &weight), ("gamma", &gamma), ("beta", &beta)] {
                    match (found.get(var), known.get(var)) {
                        (Some(found), Some(known)) => close(name, found, known)?,
                        _ => panic!("no gradient of {name}"),
                    }
                }
            }
        }
        Ok(())
    }

    /// The norm is f32's, forward and backward; the convolution's gradients come in the type.
    #[test]
    fn in_sixteen_bits_the_norm_stays_f32() -> Result<()> {
        for precision in [Precision::F16, Precision::Bf16] {
            let mut random = Random::new(4);
            let (x, weight) = (numbers(&mut random, &[2, 3, 7, 9])?, numbers(&mut random, &[5, 3, 3, 3])?);
            let (gamma, beta) = (numbers(&mut random, &[5])?, numbers(&mut random, &[5])?);
            let affine = (gamma.as_tensor(), beta.as_tensor());
            let spec = ConvSpec::new().padding(1);
            let (y, ..) = precision.within(|| conv2d_norm_train(&x, &weight, affine, 1e-5, spec, None))?;
            let z = precision.within(|| conv2d(&x, &weight, None, spec, None))?;
            let (expected, ..) = norm::batch_norm_train(&z, &gamma, &beta, 1e-5)?;
            close("output", &y, &expected)?;
            let towards = numbers(&mut random, y.dims())?.as_detached_tensor();
            let found = (&y * &towards)?.sum_all()?.backward()?;
            let known = (&expected * &towards)?.sum_all()?.backward()?;
            for (name, var) in [("x", &x), ("weight", &weight), ("gamma", &gamma), ("beta", &beta)] {
                let (Some(found), Some(known)) = (found.get(var), known.get(var)) else { panic!("no {name}") };
                if name == "gamma" || name == "beta" {
                    close(name, found, known)?;
                } else {
                    let values = found.flatten_all()?.to_vec1::<f32>()?;
                    assert!(values.iter().all(|&value| precision.round(value) == value), "{name} in {precision}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn one_value_a_channel_and_wrong_vectors_are_errors() -> Result<()> {
        let mut random = Random::new(1);
        let (x, weight) = (numbers(&mut random, &[1, 2, 1, 1])?, numbers(&mut random, &[3, 2, 1, 1])?);
        let vector = numbers(&mut random, &[3])?;
        let short = numbers(&mut random, &[2])?;
        let run = |gamma: &Var| {
            conv2d_norm_train(&x, &weight, (gamma.as_tensor(), vector.as_tensor()), 1e-5, ConvSpec::new(), None)
        };
        assert!(run(&vector).is_err());
        assert!(run(&short).is_err());
        Ok(())
    }
}
