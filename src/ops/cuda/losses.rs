//! Losses per element, row and box.

use super::{Arg, apply2, doubles, floats, lanes, launch, make, upload, with_operands, wrap};
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

/// The loss that `losses.cu` numbers `code` of every box of `[M, 4]` with its target `[M, 4]`, four corners each.
pub(in crate::ops) fn box_loss(boxes: &Tensor, targets: &Tensor, code: usize, eps: f32) -> Result<Tensor> {
    let (rows, kind) = (boxes.dim(0)?, [code]);
    apply2(
        [boxes, targets],
        "box_iou_loss",
        move |[x, targets]| {
            let mut y = floats(x.0.device(), rows)?;
            launch(
                x.0.device(),
                "box_loss",
                rows,
                &mut [Arg::In(x), Arg::In(targets), Arg::Ints(&kind), Arg::Float(eps), Arg::Out(&mut y)],
            )?;
            Ok((y, Shape::from(rows)))
        },
        move |[x, targets], _, g| {
            let gradient = make([x, targets, g], x.shape(), |device, [x, targets, g], gx| {
                launch(
                    device,
                    "box_loss_gradient",
                    rows,
                    &mut [Arg::In(x), Arg::In(targets), Arg::In(g), Arg::Ints(&kind), Arg::Float(eps), Arg::Out(gx)],
                )
            })?;
            Ok([Some(gradient), None])
        },
    )
}

/// Σ wᵢ xᵢ of two tensors of one shape.
pub(in crate::ops) fn weighted_sum(x: &Tensor, weights: &Tensor) -> Result<Tensor> {
    let total = x.elem_count();
    // Enough threads to fill a GPU, and as many parts for each of the next as for the last one.
    let parts = lanes(1, total);
    let left = parts.isqrt();
    apply2(
        [x, weights],
        "weighted_sum",
        move |[x, weights]| {
            let device = x.0.device();
            let (mut many, mut few) = (doubles(device, parts)?, doubles(device, left)?);
            let (mut sum, totals) = (floats(device, 1)?, [total, parts, left]);
            launch(
                device,
                "weighted_parts",
                parts,
                &mut [Arg::In(x), Arg::In(weights), Arg::Ints(&totals[..1]), Arg::Out(&mut many)],
            )?;
            launch(device, "fewer_parts", left, &mut [Arg::All(&many), Arg::Ints(&totals[1..2]), Arg::Out(&mut few)])?;
            launch(device, "sum_lanes", 1, &mut [Arg::All(&few), Arg::Ints(&totals[2..]), Arg::Out(&mut sum)])?;
            Ok((sum, Shape::from(())))
        },
        move |[x, weights], _, g| {
            let gradient = make([weights, g], x.shape(), |device, [weights, g], gx| {
                launch(device, "weighted_sum_gradient", total, &mut [Arg::In(weights), Arg::In(g), Arg::Out(gx)])
            })?;
            Ok([Some(gradient), None])
        },
    )
}
