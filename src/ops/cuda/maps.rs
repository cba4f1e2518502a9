//! Maps put together.

use super::{Arg, apply1, apply2, floats, launch, make};
use candle_core::backend::BackendStorage;
use candle_core::{Result, Tensor};

/// a + b, below zero times `slope`.
pub(in crate::ops) fn add(a: &Tensor, b: &Tensor, slope: f32) -> Result<Tensor> {
    apply2(
        [a, b],
        "add",
        move |[a, b]| {
            let (device, count) = (a.0.device(), a.1.shape().elem_count());
            let mut y = floats(device, count)?;
            launch(device, "add", count, &mut [Arg::In(a), Arg::In(b), Arg::Float(slope), Arg::Out(&mut y)])?;
            Ok((y, a.1.shape().clone()))
        },
        move |[a, b], y, g| {
            let gradient = if slope == 1.0 {
                g.clone()
            } else {
                make([y, g], y.shape(), |device, [y, g], before| {
                    let count = y.1.shape().elem_count();
                    launch(
                        device,
                        "before_activation",
                        count,
                        &mut [Arg::In(y), Arg::In(g), Arg::Float(slope), Arg::Out(before)],
                    )
                })?
            };
            Ok([a.track_op().then(|| gradient.clone()), b.track_op().then_some(gradient)])
        },
    )
}

/// A map `[N, A·k, H, W]` as rows `[N, H·W·A, k]` of `values` = k numbers.
pub(in crate::ops) fn cell_rows(map: &Tensor, values: usize) -> Result<Tensor> {
    let (images, channels, height, width) = map.dims4()?;
    let (count, cells) = (map.elem_count(), height * width);
    apply1(
        map,
        "cell_rows",
        move |[x]| {
            let mut y = floats(x.0.device(), count)?;
            let sizes = [channels, cells];
            launch(x.0.device(), "transpose", count, &mut [Arg::In(x), Arg::Ints(&sizes), Arg::Out(&mut y)])?;
            Ok((y, (images, cells * channels / values, values).into()))
        },
        move |[map], _, g| {
            let gradient = make([g], map.shape(), |device, [g], gx| {
                let sizes = [cells, channels];
                launch(device, "transpose", count, &mut [Arg::In(g), Arg::Ints(&sizes), Arg::Out(gx)])
            })?;
            Ok([Some(gradient)])
        },
    )
}
