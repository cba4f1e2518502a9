//! Maps put together.

use super::{Arg, Operand, add_up, apply1, apply2, floats, launch, make, room};
use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, DType, Result, Shape, Tensor};

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

/// f32 maps `[n, channels, pixels]`, with channels a multiple of 8, as `half` (f16 or bf16) with the channels of a pixel
/// side by side.
#[cfg_attr(not(feature = "cudnn"), allow(dead_code, reason = "cuDNN alone reads maps that lie so"))]
pub(in crate::ops) fn to_channels_last(
    x: Operand<'_>,
    (channels, pixels): (usize, usize),
    half: DType,
) -> Result<CudaStorage> {
    let (device, count) = (x.0.device(), x.1.shape().elem_count());
    let mut y = room(device, count, half)?;
    let sizes = [channels / 8, pixels, usize::from(half == DType::F16)];
    launch(device, "to_channels_last", count / 8, &mut [Arg::In(x), Arg::Ints(&sizes), Arg::Out(&mut y)])?;
    Ok(y)
}

/// The way back of [`to_channels_last`], for `count` numbers.
#[cfg_attr(not(feature = "cudnn"), allow(dead_code, reason = "cuDNN alone writes maps that lie so"))]
pub(in crate::ops) fn from_channels_last(
    x: &CudaStorage,
    (channels, pixels): (usize, usize),
    count: usize,
) -> Result<CudaStorage> {
    let mut y = floats(x.device(), count)?;
    let sizes = [channels / 8, pixels, usize::from(x.dtype() == DType::F16)];
    launch(x.device(), "from_channels_last", count / 8, &mut [Arg::All(x), Arg::Ints(&sizes), Arg::Out(&mut y)])?;
    Ok(y)
}

/// Rows of `x` `[N, …]` by an index u32 `[M]`, of which all stay below `N`: `[M, …]`.
pub(in crate::ops) fn take_rows(x: &Tensor, index: &Tensor) -> Result<Tensor> {
    let mut dims = x.dims().to_vec();
    let width = [dims[1..].iter().product::<usize>()];
    dims[0] = index.elem_count();
    let (shape, count) = (Shape::from(dims), index.elem_count() * width[0]);
    apply2(
        [x, index],
        "take_rows",
        move |[x, index]| {
            let mut y = floats(x.0.device(), count)?;
            launch(
                x.0.device(),
                "take_rows",
                count,
                &mut [Arg::In(x), Arg::All(index.0), Arg::Ints(&width), Arg::Out(&mut y)],
            )?;
            Ok((y, shape.clone()))
        },
        move |[x, index], _, g| {
            let gradient = add_up([g, index], x.shape(), |device, [g, index], gx| {
                launch(
                    device,
                    "take_rows_gradient",
                    count,
                    &mut [Arg::In(g), Arg::All(index.0), Arg::Ints(&width), Arg::Out(gx)],
                )
            })?;
            Ok([Some(gradient), None])
        },
    )
}
