//! SSD's matching, coding and mining.

use super::matching::{Objects, overlaps};
use super::select::{HARDEST, bounds, counters};
use super::{Arg, floats, indices, launch, make, with_operands, wrap};
use crate::ops::multibox::{LossSettings, PriorRule};
use candle_core::{CudaStorage, Result, Shape, Tensor};

/// What every row of a batch learns.
pub(in crate::ops) struct Targets {
    images: usize,
    /// Column of the cross-entropy, i32 `[rows]`.
    pub(in crate::ops) labels: Tensor,
    /// `[rows, 4]`; zeros where no box is learnt.
    pub(in crate::ops) codes: Tensor,
    states: CudaStorage,
    positives: CudaStorage,
}

pub(in crate::ops) fn targets(rule: &PriorRule<'_>, objects: &Objects) -> Result<Targets> {
    let dims = rule.priors.dims();
    let (shared, per_image) = (usize::from(dims.len() == 2), dims[dims.len() - 2]);
    let rows = objects.images * per_image;
    let (objectness, least, filter) = match rule.filter {
        None => (rule.priors, 0.0, 0),
        Some(filter) => (filter.objectness, filter.least, 1 + usize::from(filter.of_positives)),
    };
    with_operands([rule.priors, objectness], |device, [priors, objectness]| {
        let [iou, best, peaks] = overlaps(device, priors, (shared, per_image), objects)?;
        let mut first = counters(device, objects.count)?;
        launch(
            device,
            "first_peaks",
            rows,
            &mut [
                Arg::In(priors),
                Arg::Ints(&[shared, per_image]),
                Arg::All(&objects.boxes),
                Arg::All(&objects.starts),
                Arg::All(&peaks),
                Arg::Out(&mut first),
            ],
        )?;
        let (mut labels, mut codes) = (indices(device, rows)?, floats(device, 4 * rows)?);
        let (mut states, mut positives) = (indices(device, rows)?, counters(device, objects.images)?);
        launch(
            device,
            "prior_targets",
            rows,
            &mut [
                Arg::In(priors),
                Arg::Ints(&[shared, per_image]),
                Arg::All(&objects.boxes),
                Arg::All(&objects.classes),
                Arg::All(&objects.starts),
                Arg::All(&iou),
                Arg::All(&best),
                Arg::All(&first),
                Arg::In(objectness),
                Arg::Ints(&[filter, usize::from(rule.binary)]),
                Arg::Float(least),
                Arg::Float(rule.positive_iou),
                Arg::Float(rule.log_epsilon),
                Arg::Out(&mut labels),
                Arg::Out(&mut codes),
                Arg::Out(&mut states),
                Arg::Out(&mut positives),
            ],
        )?;
        let (labels, codes) = (wrap(labels, Shape::from(rows)), wrap(codes, Shape::from((rows, 4))));
        Ok(Targets { images: objects.images, labels, codes, states, positives })
    })
}

/// The weight of every row in the loss of classes `[rows]` and of boxes `[rows, 4]`, from the cross-entropy of every row.
pub(in crate::ops) fn weights(entropy: &Tensor, targets: &Targets, settings: &LossSettings) -> Result<[Tensor; 2]> {
    let (rows, images) = (entropy.elem_count(), targets.images);
    let per_image = rows / images.max(1);
    let hardness = make([entropy], rows, |device, [entropy], y| {
        launch(device, "hardness", rows, &mut [Arg::In(entropy), Arg::All(&targets.states), Arg::Out(y)])
    })?;
    with_operands([&hardness], |device, [hardness]| {
        let mut wanted = indices(device, 3 * images)?;
        launch(
            device,
            "wanted_negatives",
            images,
            &mut [
                Arg::All(&targets.positives),
                Arg::Ints(&[per_image.saturating_sub(1)]),
                Arg::Float(settings.negative_ratio),
                Arg::Out(&mut wanted),
            ],
        )?;
        let runs: Vec<[usize; 4]> = (0..images).map(|image| [image * per_image, per_image, 0, 0]).collect();
        let found = bounds(device, hardness, &runs, HARDEST, &wanted)?;
        let (mut weights, mut of_boxes) = (floats(device, rows)?, floats(device, 4 * rows)?);
        launch(
            device,
            "row_weights",
            rows,
            &mut [
                Arg::In(hardness),
                Arg::All(&targets.states),
                Arg::All(&targets.positives),
                Arg::Ints(&[images, per_image]),
                Arg::All(&wanted),
                Arg::All(&found.bounds),
                Arg::Float(settings.localization_weight),
                Arg::Out(&mut weights),
                Arg::Out(&mut of_boxes),
            ],
        )?;
        Ok([wrap(weights, Shape::from(rows)), wrap(of_boxes, Shape::from((rows, 4)))])
    })
}

/// Priors `[P, 4]` moved by `codes` `[N, P, 4]`.
pub(in crate::ops) fn decoded(priors: &Tensor, codes: &Tensor) -> Result<Tensor> {
    let count = codes.elem_count() / 4;
    make([priors, codes], codes.shape(), |device, [priors, codes], boxes| {
        let sizes = [priors.1.shape().elem_count() / 4];
        launch(
            device,
            "decode_priors",
            count,
            &mut [Arg::In(priors), Arg::Ints(&sizes), Arg::In(codes), Arg::Out(boxes)],
        )
    })
}
