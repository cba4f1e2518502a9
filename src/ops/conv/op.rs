//! Convolution as an operation on tensors: candle's custom ops around the slice kernels, and the way on other devices.

use super::cache::WeightCache;
use super::forward::{Inputs, forward, method};
use super::input_gradient::input_gradient;
use super::simd::Simd;
use super::spec::{Activation, ConvSpec, Geometry};
use super::weight_gradient::weight_gradient;
use crate::ops::gradients::hand_over;
use crate::ops::interrupt;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Device, Layout, Result, Shape, Storage, Tensor, bail};
use rayon::prelude::*;
use std::borrow::Cow;
use std::sync::Arc;

/// Convolution of x `[N, C, H, W]` with weight `[O, C/groups, kh, kw]`, plus bias `[O]`, then the activation:
/// `[N, O, H', W']`, differentiable in x, weight and bias.
///
/// On the CPU (f32 alone) these are our kernels, and `cache`, with the version of the weights it is to hold, keeps
/// packed weights from call to call. On other devices candle's own operations are composed: their backward is
/// right only where candle's is (odd maps that are not square come out wrong at stride 2), and stride and dilation must
/// be the same both ways.
///
/// # Errors
/// Shapes that do not fit, other types than f32 on the CPU, settings another device lacks; messages name the shapes.
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
    if !x.device().is_cpu() {
        return composed(x, weight, bias, &spec);
    }
    for tensor in [Some(x), Some(weight), bias].into_iter().flatten() {
        if tensor.dtype() != DType::F32 {
            bail!("conv2d: tensor {:?} is {:?}, on the CPU it must be F32", tensor.dims(), tensor.dtype())
        }
    }
    let op = Convolution::new(spec, cache);
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    match bias {
        Some(bias) => x.apply_op3(&weight, &bias.contiguous()?, op),
        None => x.apply_op2(&weight, op),
    }
}

/// The same from candle's operations.
fn composed(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, spec: &ConvSpec) -> Result<Tensor> {
    if spec.stride.0 != spec.stride.1 || spec.dilation.0 != spec.dilation.1 {
        bail!(
            "conv2d: stride {:?} and dilation {:?} must each be the same both ways on this device",
            spec.stride,
            spec.dilation
        )
    }
    let (x, padding) = if spec.padding.0 == spec.padding.1 {
        (x.clone(), spec.padding.0)
    } else {
        let tall = x.pad_with_zeros(2, spec.padding.0, spec.padding.0)?;
        (tall.pad_with_zeros(3, spec.padding.1, spec.padding.1)?, 0)
    };
    let mut y = x.conv2d(weight, padding, spec.stride.0, spec.dilation.0, spec.groups)?;
    if let Some(bias) = bias {
        y = y.broadcast_add(&bias.reshape((1, bias.elem_count(), 1, 1))?)?;
    }
    match spec.activation {
        Activation::None => Ok(y),
        Activation::Relu => y.relu(),
        Activation::Leaky(slope) => {
            // slope · y + (1 − slope) · max(y, 0)
            let slope = f64::from(slope);
            y.affine(slope, 0.0)?.add(&y.relu()?.affine(1.0 - slope, 0.0)?)
        }
    }
}

/// The operation of one call.
pub(super) struct Convolution {
    spec: ConvSpec,
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
        Self { spec, cache: cache.map(|(cache, version)| (Arc::clone(cache), version)) }
    }

    pub(super) fn geometry(&self, x: &[usize], weight: &[usize]) -> Result<Geometry> {
        Geometry::new(x, weight, &self.spec)
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
        let inputs = Inputs {
            x: contiguous_floats(x.0, x.1)?,
            weight: contiguous_floats(weight.0, weight.1)?,
            bias: bias.map(|(storage, layout)| contiguous_floats(storage, layout)).transpose()?,
        };
        let cache = self.cache.as_ref().map(|(cache, version)| (cache.as_ref(), *version));
        let (simd, method) = (Simd::current(), method(&geometry));
        forward(simd, method, &geometry, inputs, self.spec.activation, cache)
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
        let geometry = Geometry::new(x.dims(), weight.dims(), &self.spec)?;
        let gradient = gradient.contiguous()?;
        let (y_storage, y_layout) = y.storage_and_layout();
        let (gradient_storage, gradient_layout) = gradient.storage_and_layout();
        let y_values = cpu_floats(&y_storage, y_layout)?;
        let gradient_values = cpu_floats(&gradient_storage, gradient_layout)?;
        if gradient_values.len() != geometry.output_len() || y_values.len() != geometry.output_len() {
            bail!("conv2d: gradient {:?} must have the output's shape {:?}", gradient.dims(), y.dims())
        }
        let before = before_activation(&geometry, self.spec.activation, y_values, gradient_values);
        let (of_x, of_weight) = self.input_and_weight_gradients(&geometry, x, weight, &before)?;
        let of_bias = match bias {
            Some(bias) if bias.track_op() => {
                hand_over(bias, Tensor::from_vec(bias_gradient(&geometry, &before), bias.shape(), &Device::Cpu)?)?
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
        let simd = Simd::current();
        interrupt::check()?;
        let of_x = if x.track_op() {
            let values = input_gradient(simd, geometry, before, weight_values)?;
            Some(Tensor::from_vec(values, x.shape(), &Device::Cpu)?)
        } else {
            None
        };
        interrupt::check()?;
        let of_weight = if weight.track_op() {
            let values = weight_gradient(simd, geometry, x_values, before)?;
            hand_over(weight, Tensor::from_vec(values, weight.shape(), &Device::Cpu)?)?
        } else {
            None
        };
        Ok((of_x, of_weight))
    }
}

/// The gradient of the output before its activation.
fn before_activation<'a>(
    geometry: &Geometry,
    activation: Activation,
    output: &[f32],
    gradient: &'a [f32],
) -> Cow<'a, [f32]> {
    if activation == Activation::None {
        return Cow::Borrowed(gradient);
    }
    let mut before = gradient.to_vec();
    let plane = geometry.output_plane();
    before.par_chunks_mut(plane).zip(output.par_chunks(plane)).for_each(|(values, outputs)| {
        for (value, &output) in values.iter_mut().zip(outputs) {
            *value = activation.gradient(output, *value);
        }
    });
    Cow::Owned(before)
}

/// Sum over images and pixels of each output channel, in f64.
fn bias_gradient(geometry: &Geometry, gradient: &[f32]) -> Vec<f32> {
    let (_, outs, _, _) = geometry.output_shape();
    let plane = geometry.output_plane();
    let channel = |out: usize| {
        let mut sums = [0.0_f64; 8];
        for image in 0..geometry.batch {
            let values = &gradient[(image * outs + out) * plane..][..plane];
            for group in values.chunks(8) {
                for (sum, &value) in sums.iter_mut().zip(group) {
                    *sum += f64::from(value);
                }
            }
        }
        sums.iter().sum::<f64>() as f32
    };
    (0..outs).into_par_iter().map(channel).collect()
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
