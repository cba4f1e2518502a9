//! Convolution on a CUDA device: cuDNN's where it is built in, else plain kernels; bias and activation are one pass.
//!
//! In another precision than f32 the plain kernels work on rounded copies: slower, with the numbers that cuDNN has.

use super::cache::WeightCache;
use super::spec::{Activation, Geometry};
use crate::ops::cuda::norm::Norm;
use crate::ops::cuda::{Arg, Operand, add_up, apply2, apply3, channel_sums, floats, launch, make, with_operands};
use crate::ops::precision;
use crate::ops::tape::made_from;
use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, Result, Shape, Tensor, bail};
use std::sync::Arc;

#[cfg(feature = "cudnn")]
use super::cudnn::{forward, forward_relu, input_gradient, weight_gradient};
#[cfg(not(feature = "cudnn"))]
use crate::ops::precision::Precision;
#[cfg(not(feature = "cudnn"))]
use candle_core::{DType, Layout};

/// The settings as the kernels take them.
#[cfg(not(feature = "cudnn"))]
fn sizes(geometry: &Geometry) -> [usize; 15] {
    let Geometry { groups, in_channels, out_channels, input, kernel, output, stride, padding, dilation, .. } =
        *geometry;
    [
        groups,
        in_channels,
        out_channels,
        input.0,
        input.1,
        kernel.0,
        kernel.1,
        output.0,
        output.1,
        stride.0,
        stride.1,
        padding.0,
        padding.1,
        dilation.0,
        dilation.1,
    ]
}

/// A copy rounded to 16 bits, or else to TF32. What has 16 bits is rounded already.
#[cfg(not(feature = "cudnn"))]
fn round(half: Option<DType>, (storage, layout): Operand<'_>) -> Result<(CudaStorage, Layout)> {
    let count = layout.shape().elem_count();
    let whole = Layout::contiguous(count);
    if storage.dtype() != DType::F32 {
        return Ok((storage.to_dtype(layout, DType::F32)?, whole));
    }
    if let Some(half) = half {
        return Ok((storage.to_dtype(layout, half)?.to_dtype(&whole, DType::F32)?, whole));
    }
    let mut y = floats(storage.device(), count)?;
    launch(storage.device(), "round_tf32", count, &mut [Arg::In((storage, layout)), Arg::Out(&mut y)])?;
    Ok((y, whole))
}

/// Runs `kernel` on the factors of a product of `count` results, in a precision.
#[cfg(not(feature = "cudnn"))]
fn rounded(
    precision: Precision,
    [a, b]: [Operand<'_>; 2],
    (y, count): (&mut CudaStorage, usize),
    kernel: impl FnOnce([Operand<'_>; 2], &mut CudaStorage) -> Result<()>,
) -> Result<()> {
    if precision == Precision::F32 {
        return kernel([a, b], y);
    }
    let half = precision.half();
    let ((a, of_a), (b, of_b)) = (round(half, a)?, round(half, b)?);
    kernel([(&a, &of_a), (&b, &of_b)], y)?;
    if half.is_some() {
        *y = round(half, (&*y, &Layout::contiguous(count)))?.0;
    }
    Ok(())
}

/// The convolution of x with weight into y.
#[cfg(not(feature = "cudnn"))]
fn forward(geometry: &Geometry, x: Operand<'_>, weight: Operand<'_>, y: &mut CudaStorage) -> Result<()> {
    let (sizes, count) = (sizes(geometry), geometry.output_len());
    rounded(geometry.precision, [x, weight], (y, count), |[x, weight], y| {
        launch(x.0.device(), "conv", count, &mut [Arg::In(x), Arg::In(weight), Arg::Ints(&sizes), Arg::Out(y)])
    })
}

/// The plain kernels leave bias and ReLU to a pass of their own.
#[cfg(not(feature = "cudnn"))]
fn forward_relu(_: &Geometry, _: [Operand<'_>; 3], _: &mut CudaStorage) -> Result<bool> {
    Ok(false)
}

/// The gradient of x from that of the output before its activation.
#[cfg(not(feature = "cudnn"))]
fn input_gradient(geometry: &Geometry, g: Operand<'_>, weight: Operand<'_>, gx: &mut CudaStorage) -> Result<()> {
    let (sizes, count) = (sizes(geometry), geometry.input_len());
    rounded(geometry.precision, [g, weight], (gx, count), |[g, weight], gx| {
        launch(
            g.0.device(),
            "conv_input_gradient",
            count,
            &mut [Arg::In(g), Arg::In(weight), Arg::Ints(&sizes), Arg::Out(gx)],
        )
    })
}

/// The gradient of the weight from that of the output before its activation.
#[cfg(not(feature = "cudnn"))]
fn weight_gradient(geometry: &Geometry, x: Operand<'_>, g: Operand<'_>, gw: &mut CudaStorage) -> Result<()> {
    let (device, weights) = (x.0.device(), geometry.weight_len());
    let lanes = crate::ops::cuda::lanes(weights, geometry.batch * geometry.output_plane());
    let mut parts = crate::ops::cuda::doubles(device, weights * lanes)?;
    let sizes = sizes(geometry);
    rounded(geometry.precision, [x, g], (gw, weights), |[x, g], gw| {
        launch(
            device,
            "conv_weight_gradient",
            weights * lanes,
            &mut [Arg::In(x), Arg::In(g), Arg::Ints(&sizes), Arg::Ints(&[geometry.batch, lanes]), Arg::Out(&mut parts)],
        )?;
        launch(device, "sum_lanes", weights, &mut [Arg::All(&parts), Arg::Ints(&[lanes]), Arg::Out(gw)])
    })
}

/// Calls `work` with the weight in 16 bits where it is kept so, and else as it is.
fn with_weight<R>(
    half: Option<&Tensor>,
    weight: Operand<'_>,
    work: impl FnOnce(Operand<'_>) -> Result<R>,
) -> Result<R> {
    match half {
        Some(half) => with_operands([half], |_, [half]| work(half)),
        None => work(weight),
    }
}

/// The whole forward pass: `[N, O, H', W']`. `learns` where a gradient will follow.
fn run(
    geometry: &Geometry,
    slope: f32,
    [x, weight]: [Operand<'_>; 2],
    bias: Option<Operand<'_>>,
    learns: bool,
) -> Result<(CudaStorage, Shape)> {
    let (device, count) = (x.0.device(), geometry.output_len());
    let mut y = floats(device, count)?;
    if let Some(bias) = bias.filter(|_| slope == 0.0 && count > 0 && !learns)
        && forward_relu(geometry, [x, weight, bias], &mut y)?
    {
        return Ok((y, geometry.output_shape().into()));
    }
    if count > 0 {
        forward(geometry, x, weight, &mut y)?;
    }
    let (_, channels, ..) = geometry.output_shape();
    if let Some(bias) = bias {
        let sizes = [channels, geometry.output_plane()];
        launch(
            device,
            "bias_activation",
            count,
            &mut [Arg::Out(&mut y), Arg::In(bias), Arg::Ints(&sizes), Arg::Float(slope)],
        )?;
    } else if slope != 1.0 {
        launch(device, "plain_activation", count, &mut [Arg::Out(&mut y), Arg::Float(slope)])?;
    }
    Ok((y, geometry.output_shape().into()))
}

/// Gradients of x and weight, each only where something depends on it, and of the output before its activation.
fn gradients(
    geometry: &Geometry,
    slope: f32,
    [x, weight, y, g]: [&Tensor; 4],
    half: Option<&Tensor>,
) -> Result<(Option<Tensor>, Option<Tensor>, Tensor)> {
    let before = if slope == 1.0 {
        g.contiguous()?
    } else {
        make([y, g], y.shape(), |device, [y, g], before| {
            launch(
                device,
                "before_activation",
                geometry.output_len(),
                &mut [Arg::In(y), Arg::In(g), Arg::Float(slope), Arg::Out(before)],
            )
        })?
    };
    let of_x = if x.track_op() {
        Some(make([&before, half.unwrap_or(weight)], x.shape(), |_, [g, weight], gx| {
            if geometry.input_len() > 0 { input_gradient(geometry, g, weight, gx) } else { Ok(()) }
        })?)
    } else {
        None
    };
    let of_weight = if weight.track_op() {
        Some(add_up([x, &before], weight.shape(), |_, [x, g], gw| {
            if geometry.output_len() > 0 { weight_gradient(geometry, x, g, gw) } else { Ok(()) }
        })?)
    } else {
        None
    };
    Ok((of_x, of_weight, before))
}

/// [`super::conv2d`] for shapes that it has checked.
pub(super) fn conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    geometry: Geometry,
    activation: Activation,
    cache: Option<(&Arc<WeightCache>, u64)>,
) -> Result<Tensor> {
    let slope = activation.slope();
    let half = half_weight(&geometry, weight, cache)?;
    let kept = half.clone();
    let learns = [Some(x), Some(weight), bias].into_iter().flatten().any(Tensor::track_op);
    match bias {
        None => apply2(
            [x, weight],
            "conv2d",
            move |[x, weight]| {
                with_weight(half.as_ref(), weight, |weight| run(&geometry, slope, [x, weight], None, learns))
            },
            move |[x, weight], y, g| {
                let (of_x, of_weight, _) = gradients(&geometry, slope, [x, weight, y, g], kept.as_ref())?;
                Ok([of_x, of_weight])
            },
        ),
        Some(bias) => apply3(
            [x, weight, bias],
            "conv2d with bias",
            move |[x, weight, bias]| {
                with_weight(half.as_ref(), weight, |weight| run(&geometry, slope, [x, weight], Some(bias), learns))
            },
            move |[x, weight, bias], y, g| {
                let (of_x, of_weight, before) = gradients(&geometry, slope, [x, weight, y, g], kept.as_ref())?;
                let of_bias = if bias.track_op() { Some(channel_sums(&before)?) } else { None };
                Ok([of_x, of_weight, of_bias])
            },
        ),
    }
}

/// [`super::conv2d_norm_train`] of x, weight, gamma and beta for shapes that it has checked.
pub(super) fn conv2d_norm_train(
    [x, weight, gamma, beta]: [&Tensor; 4],
    geometry: Geometry,
    slope: f32,
    eps: f32,
    cache: Option<(&Arc<WeightCache>, u64)>,
) -> Result<(Tensor, Tensor, Tensor)> {
    let geometry = geometry.at(precision::current());
    let (n, channels, height, width) = geometry.output_shape();
    let half = half_weight(&geometry, weight, cache)?;
    let before = conv2d(&x.detach(), &weight.detach(), None, geometry, Activation::None, cache)?;
    let norm = Norm::of_batch(&before, (n, channels, height * width), eps, slope)?;
    let (mean, variance) = norm.mean_and_variance()?;
    let made = with_operands([&before, gamma, beta], |_, operands| norm.run(operands))?;
    let gradient = move |inputs: &[Tensor], _: &Tensor, g: &Tensor| {
        let [x, weight, gamma, beta] = inputs else { bail!("conv2d_norm_train lost an input") };
        let (g, of_affine) = norm.gradients([&before, g, gamma, beta])?;
        let (of_x, of_weight, _) = gradients(&geometry, 1.0, [x, weight, &before, &g], half.as_ref())?;
        Ok(vec![of_x, of_weight, Some(of_affine.get(1)?), Some(of_affine.get(0)?)])
    };
    let inputs = [x, weight, gamma, beta].map(Tensor::clone);
    let y = made_from(&inputs, (made, geometry.output_shape().into()), gradient)?;
    Ok((y, mean, variance))
}

/// The weight in 16 bits, where the geometry asks for them and they are kept: `[O, kh, kw, C/groups]` where cuDNN likes
/// the channels last.
fn half_weight(
    geometry: &Geometry,
    weight: &Tensor,
    cache: Option<(&Arc<WeightCache>, u64)>,
) -> Result<Option<Tensor>> {
    match (geometry.precision.half(), cache) {
        (Some(half), Some((cache, version))) => {
            Ok(Some(cache.half(version, weight, half, cfg!(feature = "cudnn") && geometry.channels_last())?))
        }
        _ => Ok(None),
    }
}
