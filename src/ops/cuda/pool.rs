//! Maximum pooling, whose forward pass keeps where each maximum came from.

use super::{Arg, apply1, floats, indices, launch, make};
use crate::ops::pool::Pool;
use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, Result, Shape, Tensor, bail};
use std::sync::{Arc, Mutex, PoisonError};

/// [`crate::ops::pool::max_pool2d`] for windows that it has checked.
pub(in crate::ops) fn max_pool2d(x: &Tensor, pool: Pool) -> Result<Tensor> {
    let (n, channels, h, w) = x.dims4()?;
    let (oh, ow) = pool.output(h, w)?;
    let Pool { kernel, stride, padding, .. } = pool;
    let sizes = [h, w, oh, ow, kernel.0, kernel.1, stride.0, stride.1, padding.0, padding.1];
    let (inputs, outputs) = (n * channels * h * w, n * channels * oh * ow);
    let places: Arc<Mutex<Option<CudaStorage>>> = Arc::default();
    let kept = Arc::clone(&places);
    apply1(
        x,
        "max_pool2d",
        move |[x]| {
            let device = x.0.device();
            let (mut y, mut places) = (floats(device, outputs)?, indices(device, outputs)?);
            launch(
                device,
                "max_pool",
                outputs,
                &mut [Arg::In(x), Arg::Ints(&sizes), Arg::Out(&mut y), Arg::Out(&mut places)],
            )?;
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(places);
            Ok((y, Shape::from((n, channels, oh, ow))))
        },
        move |[x], _, g| {
            let places = places.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(places) = places.as_ref() else { bail!("max_pool2d: no forward pass before the gradient") };
            let gradient = make([g], x.shape(), |device, [g], gx| {
                launch(
                    device,
                    "max_pool_gradient",
                    inputs,
                    &mut [Arg::In(g), Arg::All(places), Arg::Ints(&sizes), Arg::Out(gx)],
                )
            })?;
            Ok([Some(gradient)])
        },
    )
}
