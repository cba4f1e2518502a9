//! Activation functions and softmax.

use super::{Arg, apply1, floats, launch, make};
use candle_core::backend::BackendStorage;
use candle_core::{D, Result, Tensor};

/// The function that `activation.cu` numbers `code`.
pub(in crate::ops) fn curve(x: &Tensor, name: &'static str, code: usize, slope: f32) -> Result<Tensor> {
    apply1(
        x,
        name,
        move |[x]| {
            let (device, count) = (x.0.device(), x.1.shape().elem_count());
            let mut y = floats(device, count)?;
            let kind = [code];
            launch(
                device,
                "activation",
                count,
                &mut [Arg::In(x), Arg::Ints(&kind), Arg::Float(slope), Arg::Out(&mut y)],
            )?;
            Ok((y, x.1.shape().clone()))
        },
        move |[x], _, g| {
            let gradient = make([x, g], x.shape(), |device, [x, g], gx| {
                let (count, kind) = (x.1.shape().elem_count(), [code]);
                launch(
                    device,
                    "activation_gradient",
                    count,
                    &mut [Arg::In(x), Arg::In(g), Arg::Ints(&kind), Arg::Float(slope), Arg::Out(gx)],
                )
            })?;
            Ok([Some(gradient)])
        },
    )
}

/// Softmax over the last dimension, or its logarithm.
pub(in crate::ops) fn softmax_last(x: &Tensor, log: bool) -> Result<Tensor> {
    let width = x.dim(D::Minus1)?;
    let rows = x.elem_count() / width.max(1);
    let sizes = [width, usize::from(log)];
    apply1(
        x,
        "softmax_last",
        move |[x]| {
            let device = x.0.device();
            let mut y = floats(device, rows * width)?;
            launch(device, "softmax", rows, &mut [Arg::In(x), Arg::Ints(&sizes), Arg::Out(&mut y)])?;
            Ok((y, x.1.shape().clone()))
        },
        move |[x], y, g| {
            let gradient = make([y, g], x.shape(), |device, [y, g], gx| {
                launch(device, "softmax_gradient", rows, &mut [Arg::In(y), Arg::In(g), Arg::Ints(&sizes), Arg::Out(gx)])
            })?;
            Ok([Some(gradient)])
        },
    )
}
