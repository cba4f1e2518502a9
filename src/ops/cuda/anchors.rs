//! What anchors learn, with which weights.

use super::select::counters;
use super::{Arg, floats, launch, with_operands, wrap};
use crate::ops::matching::Objects;
use candle_core::{Result, Shape, Tensor};

/// How the divisor of each image's sum follows from a number of each image, as `anchors.cu` numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Divisor {
    /// The image's own number, at least 1, times the images.
    PerImage,
    /// That of the batch, at least 1.
    Batch,
    /// That of the batch, an image counting at least 1.
    BatchOfImages,
}

/// How many rows of each image learn an object: i32 `[N]`.
pub(in crate::ops) fn positives(targets: &Tensor, images: usize) -> Result<Tensor> {
    let rows = targets.elem_count();
    with_operands([targets], |device, [targets]| {
        let mut positives = counters(device, images)?;
        let sizes = [rows / images];
        launch(
            device,
            "count_positives",
            rows,
            &mut [Arg::All(targets.0), Arg::Ints(&sizes), Arg::Out(&mut positives)],
        )?;
        Ok(wrap(positives, Shape::from(images)))
    })
}

/// 1 over the divisor of each image: `[N]`.
pub(in crate::ops) fn shares(numbers: &Tensor, divisor: Divisor) -> Result<Tensor> {
    let images = numbers.elem_count();
    with_operands([numbers], |device, [numbers]| {
        let mut shares = floats(device, images)?;
        let rule = [divisor as usize];
        launch(device, "loss_shares", images, &mut [Arg::All(numbers.0), Arg::Ints(&rule), Arg::Out(&mut shares)])?;
        Ok(wrap(shares, Shape::from(images)))
    })
}

/// 1 at each row's own column and 0 elsewhere, and the weight of each element: both `[N · P, columns]`. The first class
/// stands in column `first`; if `None`, column 0 is that of all classes.
pub(in crate::ops) fn class_targets(
    [targets, shares]: [&Tensor; 2],
    objects: &Objects,
    (columns, first): (usize, Option<usize>),
) -> Result<[Tensor; 2]> {
    let rows = targets.elem_count();
    let (count, per_image) = (rows * columns, rows / objects.images);
    with_operands([targets, shares], |device, [targets, shares]| {
        let (mut ones, mut weights) = (floats(device, count)?, floats(device, count)?);
        launch(
            device,
            "class_targets",
            count,
            &mut [
                Arg::All(targets.0),
                Arg::All(&objects.classes),
                Arg::In(shares),
                Arg::Ints(&[per_image, columns, first.unwrap_or(0), usize::from(first.is_none())]),
                Arg::Out(&mut ones),
                Arg::Out(&mut weights),
            ],
        )?;
        let shape = Shape::from((rows, columns));
        Ok([wrap(ones, shape.clone()), wrap(weights, shape)])
    })
}

/// The code of each row's object and the weights of its numbers: both `[N · P, 4]`.
pub(in crate::ops) fn code_targets(
    [targets, anchors, shares]: [&Tensor; 3],
    objects: &Objects,
    weight: f32,
    std: [f32; 4],
) -> Result<[Tensor; 2]> {
    let rows = targets.elem_count();
    with_operands([targets, anchors, shares], |device, [targets, anchors, shares]| {
        let (mut codes, mut weights) = (floats(device, 4 * rows)?, floats(device, 4 * rows)?);
        launch(
            device,
            "code_targets",
            rows,
            &mut [
                Arg::All(targets.0),
                Arg::In(anchors),
                Arg::All(&objects.boxes),
                Arg::In(shares),
                Arg::Ints(&[rows / objects.images]),
                Arg::Float(weight),
                Arg::Float(std[0]),
                Arg::Float(std[1]),
                Arg::Float(std[2]),
                Arg::Float(std[3]),
                Arg::Out(&mut codes),
                Arg::Out(&mut weights),
            ],
        )?;
        Ok([wrap(codes, Shape::from((rows, 4))), wrap(weights, Shape::from((rows, 4)))])
    })
}

/// Each row's object `[N · P, 4]`, its anchor where it has none, and its weight `[N · P]`.
pub(in crate::ops) fn box_targets(
    [targets, anchors, shares]: [&Tensor; 3],
    objects: &Objects,
    weight: f32,
) -> Result<[Tensor; 2]> {
    let rows = targets.elem_count();
    with_operands([targets, anchors, shares], |device, [targets, anchors, shares]| {
        let (mut boxes, mut weights) = (floats(device, 4 * rows)?, floats(device, rows)?);
        launch(
            device,
            "box_targets",
            rows,
            &mut [
                Arg::All(targets.0),
                Arg::In(anchors),
                Arg::All(&objects.boxes),
                Arg::In(shares),
                Arg::Ints(&[rows / objects.images]),
                Arg::Float(weight),
                Arg::Out(&mut boxes),
                Arg::Out(&mut weights),
            ],
        )?;
        Ok([wrap(boxes, Shape::from((rows, 4))), wrap(weights, Shape::from(rows))])
    })
}
