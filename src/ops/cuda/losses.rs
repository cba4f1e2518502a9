//! Losses per element, row and box.

use super::{Arg, apply1, apply2, floats, launch, make, upload, with_operands, wrap};
use candle_core::backend::BackendStorage;
use candle_core::{Result, Shape, Tensor};

/// The loss that `losses.cu` numbers `code`, with its parameters, of every pair of elements.
pub(in crate::ops) fn pair_loss(
    x: &Tensor,
    target: &Tensor,
    name: &'static str,
    code: usize,
    (a, b): (f32, f32),
) -> Result<Tensor> {
    apply2(
        [x, target],
        name,
        move |[x, t]| {
            let (device, count) = (x.0.device(), x.1.shape().elem_count());
            let (mut y, kind) = (floats(device, count)?, [code]);
            launch(
                device,
                "pair_loss",
                count,
                &mut [Arg::In(x), Arg::In(t), Arg::Ints(&kind), Arg::Float(a), Arg::Float(b), Arg::Out(&mut y)],
            )?;
            Ok((y, x.1.shape().clone()))
        },
        move |[x, t], _, g| {
            let gradient = make([x, t, g], x.shape(), |device, [x, t, g], gx| {
                let (count, kind) = (x.1.shape().elem_count(), [code]);
                launch(
                    device,
                    "pair_loss_gradient",
                    count,
                    &mut [
                        Arg::In(x),
                        Arg::In(t),
                        Arg::In(g),
                        Arg::Ints(&kind),
                        Arg::Float(a),
                        Arg::Float(b),
                        Arg::Out(gx),
                    ],
                )
            })?;
            Ok([Some(gradient), None])
        },
    )
}

/// Cross-entropy of every row of `[M, C]` with its column; one below 0 is ignored.
pub(in crate::ops) fn cross_entropy(logits: &Tensor, columns: &[i32]) -> Result<Tensor> {
    let columns = with_operands([logits], |device, _| upload(device, columns))?;
    cross_entropy_of(logits, &wrap(columns, Shape::from(logits.dim(0)?)))
}

/// [`cross_entropy`] with columns that are on the device, i32 `[M]`.
pub(in crate::ops) fn cross_entropy_of(logits: &Tensor, columns: &Tensor) -> Result<Tensor> {
    let (rows, classes) = logits.dims2()?;
    let sizes = [classes];
    apply2(
        [logits, columns],
        "cross_entropy",
        move |[x, columns]| {
            let device = x.0.device();
            let mut y = floats(device, rows)?;
            launch(
                device,
                "cross_entropy",
                rows,
                &mut [Arg::In(x), Arg::All(columns.0), Arg::Ints(&sizes), Arg::Out(&mut y)],
            )?;
            Ok((y, Shape::from(rows)))
        },
        move |[x, columns], _, g| {
            let gradient = make([x, g, columns], x.shape(), |device, [x, g, columns], gx| {
                launch(
                    device,
                    "cross_entropy_gradient",
                    rows,
                    &mut [Arg::In(x), Arg::In(g), Arg::All(columns.0), Arg::Ints(&sizes), Arg::Out(gx)],
                )
            })?;
            Ok([Some(gradient), None])
        },
    )
}

/// The loss that `losses.cu` numbers `code` of every box of `[M, 4]` with its target, four corners each.
pub(in crate::ops) fn box_loss(boxes: &Tensor, targets: Vec<f32>, code: usize, eps: f32) -> Result<Tensor> {
    let (rows, kind, again) = (boxes.dim(0)?, [code], targets.clone());
    apply1(
        boxes,
        "box_iou_loss",
        move |[x]| {
            let device = x.0.device();
            let (mut y, targets) = (floats(device, rows)?, upload(device, &targets)?);
            launch(
                device,
                "box_loss",
                rows,
                &mut [Arg::In(x), Arg::All(&targets), Arg::Ints(&kind), Arg::Float(eps), Arg::Out(&mut y)],
            )?;
            Ok((y, Shape::from(rows)))
        },
        move |[x], _, g| {
            let gradient = make([x, g], x.shape(), |device, [x, g], gx| {
                let targets = upload(device, &again)?;
                launch(
                    device,
                    "box_loss_gradient",
                    rows,
                    &mut [Arg::In(x), Arg::All(&targets), Arg::In(g), Arg::Ints(&kind), Arg::Float(eps), Arg::Out(gx)],
                )
            })?;
            Ok([Some(gradient)])
        },
    )
}
