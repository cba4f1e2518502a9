//! Convolution as an operation on tensors: candle's custom ops around the slice kernels.

use super::cache::WeightCache;
use super::cuda;
use super::forward::{Inputs, forward, method};
use super::input_gradient::input_gradient;
use super::simd::{Lanes, Simd, dispatch};
use super::spec::{Activation, ConvSpec, Geometry};
use super::tasks::{Destination, filled};
use super::weight_gradient::weight_gradient;
use crate::ops::interrupt;
use crate::ops::precision::{self, Precision};
use crate::ops::tape::{apply2, apply3};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Device, Layout, Result, Shape, Storage, Tensor, bail};
use rayon::prelude::*;
use std::borrow::Cow;
use std::sync::Arc;

/// Convolution of x `[N, C, H, W]` with weight `[O, C/groups, kh, kw]`, plus bias `[O]`, then the activation:
/// `[N, O, H', W']`, differentiable in x, weight and bias. Products are those of [`precision::current`], in the gradients
/// too.
///
/// `cache`, with the version of the weights it is to hold, keeps from call to call what is made of them: packed weights
/// for our kernels on the CPU, 16-bit ones for a CUDA device. There cuDNN computes, or plain kernels in a build without.
///
/// # Errors
/// Shapes that do not fit, and other types than f32; messages name the shapes.
pub fn conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    spec: ConvSpec,
    cache: Option<(&Arc<WeightCache>, u64)>,
) -> Result<Tensor> {
    let geometry = Geometry::new(x.dims(), weight.dims(), &spec)?;
    let outs = geometry.weight_shape()[0];
    if let Some(bias) = bias
        && bias.dims() != [outs]
    {
        bail!("conv2d: bias {:?} must be [{outs}] for weight {:?}", bias.dims(), weight.dims())
    }
    for tensor in [Some(x), Some(weight), bias].into_iter().flatten() {
        if tensor.dtype() != DType::F32 {
            bail!("conv2d: tensor {:?} is {:?}, it must be F32", tensor.dims(), tensor.dtype())
        }
    }
    if !x.device().is_cpu() {
        return cuda::conv2d(x, weight, bias, geometry.at(precision::current()), spec.activation, cache);
    }
    let op = Convolution::new(spec, cache);
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    match bias {
        Some(bias) => apply3(&x, &weight, &bias.contiguous()?, op),
        None => apply2(&x, &weight, op),
    }
}

/// The operation of one call.
pub(super) struct Convolution {
    spec: ConvSpec,
    precision: Precision,
    cache: Option<(Arc<WeightCache>, u64)>,
}

/// The floats of a contiguous tensor.
pub(super) fn contiguous_floats<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => match values.get(start..end) {
            Some(values) => Ok(values),
            None => bail!("conv2d: {layout:?} reaches beyond its {} floats", values.len()),
        },
        _ => bail!("conv2d: needs contiguous f32, not {:?} with {layout:?}", storage.dtype()),
    }
}

/// The same where the storage may be on any device.
fn cpu_floats<'a>(storage: &'a Storage, layout: &Layout) -> Result<&'a [f32]> {
    match storage {
        Storage::Cpu(storage) => contiguous_floats(storage, layout),
        _ => bail!("conv2d: the gradient of a convolution on the CPU must be on the CPU"),
    }
}

impl Convolution {
    pub(super) fn new(spec: ConvSpec, cache: Option<(&Arc<WeightCache>, u64)>) -> Self {
        let cache = cache.map(|(cache, version)| (Arc::clone(cache), version));
        Self { spec, precision: precision::current(), cache }
    }

    pub(super) fn geometry(&self, x: &[usize], weight: &[usize]) -> Result<Geometry> {
        Ok(Geometry::new(x, weight, &self.spec)?.at(self.precision))
    }

    /// The output's floats.
    pub(super) fn values(
        &self,
        x: (&CpuStorage, &Layout),
        weight: (&CpuStorage, &Layout),
        bias: Option<(&CpuStorage, &Layout)>,
    ) -> Result<Vec<f32>> {
        interrupt::check()?;
        let geometry = self.geometry(x.1.dims(), weight.1.dims())?;
        let (precision, activation) = (self.precision, self.spec.activation);
        let x = precision.factors(contiguous_floats(x.0, x.1)?);
        let weight = precision.factors(contiguous_floats(weight.0, weight.1)?);
        let bias = bias.map(|(storage, layout)| contiguous_floats(storage, layout)).transpose()?;
        let cache = self.cache.as_ref().map(|(cache, version)| (cache.as_ref(), *version));
        let (simd, method) = (Simd::current(), method(&geometry));
        let inputs = Inputs { x: &x, weight: &weight, bias };
        if precision.half().is_none() {
            return forward(simd, method, &geometry, inputs, activation, cache);
        }
        // The sums are rounded before bias and activation, which are f32's.
        let inputs = Inputs { bias: None, ..inputs };
        let mut y = forward(simd, method, &geometry, inputs, Activation::None, cache)?;
        let outs = geometry.weight_shape()[0];
        y.par_chunks_mut(geometry.output_plane()).enumerate().for_each(|(plane, y)| {
            let bias = bias.map_or(0.0, |bias| bias[plane % outs]);
            y.iter_mut().for_each(|y| *y = activation.apply(precision.round(*y) + bias));
        });
        Ok(y)
    }

    fn run(
        &self,
        x: (&CpuStorage, &Layout),
        weight: (&CpuStorage, &Layout),
        bias: Option<(&CpuStorage, &Layout)>,
    ) -> Result<(CpuStorage, Shape)> {
        let output = self.values(x, weight, bias)?;
        Ok((CpuStorage::F32(output), self.geometry(x.1.dims(), weight.1.dims())?.output_shape().into()))
    }

    /// Gradients of x, weight and bias, each only where something depends on it.
    fn gradients(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        y: &Tensor,
        gradient: &Tensor,
    ) -> Result<[Option<Tensor>; 3]> {
        let geometry = self.geometry(x.dims(), weight.dims())?;
        let gradient = gradient.contiguous()?;
        let (y_storage, y_layout) = y.storage_and_layout();
        let (gradient_storage, gradient_layout) = gradient.storage_and_layout();
        let y_values = cpu_floats(&y_storage, y_layout)?;
        let gradient_values = cpu_floats(&gradient_storage, gradient_layout)?;
        if gradient_values.len() != geometry.output_len() || y_values.len() != geometry.output_len() {
            bail!("conv2d: gradient {:?} must have the output's shape {:?}", gradient.dims(), y.dims())
        }
        let simd = Simd::current();
        let summed = bias.is_some_and(Tensor::track_op);
        let (before, sums) =
            before_activation(simd, &geometry, (self.spec.activation, summed), y_values, gradient_values)?;
        let (of_x, of_weight) = self.input_and_weight_gradients(&geometry, x, weight, &before)?;
        let of_bias = match bias {
            Some(bias) if summed => {
                Some(Tensor::from_vec(bias_gradient(&geometry, &sums), bias.shape(), &Device::Cpu)?)
            }
            _ => None,
        };
        Ok([of_x, of_weight, of_bias])
    }

    /// Gradients of x and weight from that of the output before its activation, each only where something depends on
    /// it.
    pub(super) fn input_and_weight_gradients(
        &self,
        geometry: &Geometry,
        x: &Tensor,
        weight: &Tensor,
        before: &[f32],
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (x_storage, x_layout) = x.storage_and_layout();
        let (weight_storage, weight_layout) = weight.storage_and_layout();
        let x_values = cpu_floats(&x_storage, x_layout)?;
        let weight_values = cpu_floats(&weight_storage, weight_layout)?;
        let (simd, precision) = (Simd::current(), self.precision);
        let before = precision.factors(before);
        interrupt::check()?;
        let of_x = if x.track_op() {
            let values = input_gradient(simd, geometry, &before, &precision.factors(weight_values))?;
            let values = precision.results(values);
            Some(Tensor::from_vec(values, x.shape(), &Device::Cpu)?)
        } else {
            None
        };
        interrupt::check()?;
        let of_weight = if weight.track_op() {
            let values = weight_gradient(simd, geometry, &precision.factors(x_values), &before)?;
            let values = precision.results(values);
            Some(Tensor::from_vec(values, weight.shape(), &Device::Cpu)?)
        } else {
            None
        };
        Ok((of_x, of_weight))
    }
}

/// The gradient of the output before its activation, and its sums over every plane `[N, O]`; where they are not asked
/// for and there is no activation, none are made.
fn before_activation<'a>(
    simd: Simd,
    geometry: &Geometry,
    (activation, summed): (Activation, bool),
    output: &[f32],
    gradient: &'a [f32],
) -> Result<(Cow<'a, [f32]>, Vec<f64>)> {
    let plane = geometry.output_plane();
    let sums_of = |to: Option<Destination>| -> Vec<f64> {
        let sum = |index: usize| {
            let (y, g) = (&output[index * plane..][..plane], &gradient[index * plane..][..plane]);
            let mut sums = [0.0; 8];
            // SAFETY: `simd` is what this CPU has; each plane is written by one task.
            unsafe {
                dispatch!(
                    simd,
                    before_in_plane(
                        activation: Activation = activation,
                        y: &[f32] = y,
                        g: &[f32] = g,
                        to: *mut f32 = to.map_or(std::ptr::null_mut(), |to| to.at(index * plane)),
                        sums: &mut [f64; 8] = &mut sums,
                    )
                );
            }
            sums.iter().sum()
        };
        (0..output.len() / plane).into_par_iter().map(sum).collect()
    };
    if activation == Activation::None {
        return Ok((Cow::Borrowed(gradient), if summed { sums_of(None) } else { Vec::new() }));
    }
    let mut sums = Vec::new();
    // SAFETY: the planes are the whole gradient.
    let before = unsafe { filled(output.len(), |to| sums = sums_of(Some(to)))? };
    Ok((Cow::Owned(before), sums))
}

/// One plane of [`before_activation`]; without an activation nothing is written.
///
/// # Safety
/// The CPU has `V`'s instructions, and `to` has room for the plane where there is an activation.
#[allow(clippy::extra_unused_type_parameters, reason = "V says which instruction set to compile for")]
#[inline(always)]
unsafe fn before_in_plane<V: Lanes>(activation: Activation, y: &[f32], g: &[f32], to: *mut f32, sums: &mut [f64; 8]) {
    // SAFETY: by the contract.
    unsafe {
        match activation {
            Activation::None => {
                for g in g.chunks(8) {
                    for (sum, &g) in sums.iter_mut().zip(g) {
                        *sum += f64::from(g);
                    }
                }
            }
            Activation::Relu => write_and_sum(y, g, to, sums, |y, g| Activation::Relu.gradient(y, g)),
            Activation::Leaky(slope) => write_and_sum(y, g, to, sums, |y, g| Activation::Leaky(slope).gradient(y, g)),
        }
    }
}

/// # Safety
/// `to` has room for the plane.
#[inline(always)]
unsafe fn write_and_sum(y: &[f32], g: &[f32], to: *mut f32, sums: &mut [f64; 8], before: impl Fn(f32, f32) -> f32) {
    for (block, (y, g)) in y.chunks(8).zip(g.chunks(8)).enumerate() {
        for (lane, (sum, (&y, &g))) in sums.iter_mut().zip(y.iter().zip(g)).enumerate() {
            let value = before(y, g);
            *sum += f64::from(value);
            // SAFETY: by the contract.
            unsafe { *to.add(block * 8 + lane) = value };
        }
    }
}

/// Sum over images and pixels of each output channel.
fn bias_gradient(geometry: &Geometry, planes: &[f64]) -> Vec<f32> {
    let (batch, outs, ..) = geometry.output_shape();
    (0..outs).map(|out| (0..batch).map(|image| planes[image * outs + out]).sum::<f64>() as f32).collect()
}

impl CustomOp2 for Convolution {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        self.run((s1, l1), (s2, l2), None)
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        y: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [of_x, of_weight, _] = self.gradients(x, weight, None, y, gradient)?;
        Ok((of_x, of_weight))
    }
}

impl CustomOp3 for Convolution {
    fn name(&self) -> &'static str {
        "conv2d with bias"
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
        self.run((s1, l1), (s2, l2), Some((s3, l3)))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        y: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [of_x, of_weight, of_bias] = self.gradients(x, weight, Some(bias), y, gradient)?;
        Ok((of_x, of_weight, of_bias))
    }
}
