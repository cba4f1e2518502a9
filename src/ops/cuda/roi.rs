//! RoIAlign and RoIPool. Regions overlap, so their gradients are added up in no fixed order.

use super::{Arg, add_up, apply1, floats, launch, upload};
use candle_core::backend::BackendStorage;
use candle_core::{Result, Shape, Tensor};

/// `regions` features `[N, C, H, W]` sampled to `[R, C, h, w]`; `table` holds seven numbers a region, as `roi.cu` says.
pub(in crate::ops) fn roi_align(
    features: &Tensor,
    table: Vec<f32>,
    regions: usize,
    (ph, pw): (usize, usize),
) -> Result<Tensor> {
    let (_, channels, h, w) = features.dims4()?;
    let (sizes, count) = ([channels, h, w, ph, pw], regions * channels * ph * pw);
    let again = table.clone();
    apply1(
        features,
        "roi_align",
        move |[x]| {
            let device = x.0.device();
            let (mut y, table) = (floats(device, count)?, upload(device, &table)?);
            launch(
                device,
                "roi_align",
                count,
                &mut [Arg::In(x), Arg::All(&table), Arg::Ints(&sizes), Arg::Out(&mut y)],
            )?;
            Ok((y, Shape::from((regions, channels, ph, pw))))
        },
        move |[x], _, g| {
            let gradient = add_up([g], x.shape(), |device, [g], gx| {
                let table = upload(device, &again)?;
                launch(
                    device,
                    "roi_align_gradient",
                    count,
                    &mut [Arg::In(g), Arg::All(&table), Arg::Ints(&sizes), Arg::Out(gx)],
                )
            })?;
            Ok([Some(gradient)])
        },
    )
}

/// Maxima of `regions` whose cells `table` lists, as `roi.cu` says: `[R, C, h, w]`.
pub(in crate::ops) fn roi_pool(
    features: &Tensor,
    table: Vec<i32>,
    regions: usize,
    (ph, pw): (usize, usize),
) -> Result<Tensor> {
    let (_, channels, h, w) = features.dims4()?;
    let (sizes, count) = ([channels, h, w, ph, pw], regions * channels * ph * pw);
    let again = table.clone();
    apply1(
        features,
        "roi_pool",
        move |[x]| {
            let device = x.0.device();
            let (mut y, table) = (floats(device, count)?, upload(device, &table)?);
            launch(
                device,
                "roi_pool",
                count,
                &mut [Arg::In(x), Arg::All(&table), Arg::Ints(&sizes), Arg::Out(&mut y)],
            )?;
            Ok((y, Shape::from((regions, channels, ph, pw))))
        },
        move |[x], _, g| {
            let gradient = add_up([x, g], x.shape(), |device, [x, g], gx| {
                let table = upload(device, &again)?;
                launch(
                    device,
                    "roi_pool_gradient",
                    count,
                    &mut [Arg::In(x), Arg::In(g), Arg::All(&table), Arg::Ints(&sizes), Arg::Out(gx)],
                )
            })?;
            Ok([Some(gradient)])
        },
    )
}
