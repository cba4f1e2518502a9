//! Overlaps of boxes with the objects of a batch, and what follows from them.

use super::select::counters;
use super::{Arg, Operand, floats, indices, launch, make, upload, with_operands, wrap};
use crate::geometry::BBox;
use crate::ops::matching::MatchRule;
use candle_core::{CudaDevice, CudaStorage, Result, Shape, Tensor};

/// The objects of a batch on a CUDA device: corners, classes, and where those of each image begin and end.
pub struct Objects {
    pub(in crate::ops) images: usize,
    /// Objects of the batch.
    pub(super) count: usize,
    /// Objects of the image that has most.
    pub(super) most: usize,
    /// One more than the largest class; 0 without objects.
    pub(in crate::ops) known_classes: usize,
    pub(super) boxes: CudaStorage,
    pub(super) classes: CudaStorage,
    pub(super) starts: CudaStorage,
    /// The same in main memory.
    pub(super) firsts: Vec<i32>,
}

impl Objects {
    /// Boxes and classes of each image, on the device of `like`.
    ///
    /// # Errors
    /// A device that is not CUDA.
    pub fn new(like: &Tensor, objects: &[Vec<(BBox, u32)>]) -> Result<Self> {
        let mut starts = vec![0];
        for own in objects {
            starts.push(starts.last().unwrap_or(&0) + own.len() as i32);
        }
        let boxes: Vec<BBox> = objects.iter().flatten().map(|&(bbox, _)| bbox).collect();
        let classes: Vec<i32> = objects.iter().flatten().map(|&(_, class)| class as i32).collect();
        with_operands([like], |device, _| {
            Ok(Self {
                images: objects.len(),
                count: boxes.len(),
                most: objects.iter().map(Vec::len).max().unwrap_or(0),
                known_classes: objects.iter().flatten().map(|&(_, class)| class as usize + 1).max().unwrap_or(0),
                boxes: upload::<f32>(device, bytemuck::cast_slice(&boxes))?,
                classes: upload(device, &classes)?,
                starts: upload(device, &starts)?,
                firsts: starts,
            })
        })
    }
}

/// Each box's best object and IoU, and the bits of each object's best IoU. Boxes are `shared` by all images or not.
pub(super) fn overlaps(
    device: &CudaDevice,
    boxes: Operand<'_>,
    (shared, per_image): (usize, usize),
    objects: &Objects,
) -> Result<[CudaStorage; 3]> {
    let rows = objects.images * per_image;
    let (mut iou, mut best) = (floats(device, rows)?, indices(device, rows)?);
    let mut peaks = counters(device, objects.count)?;
    launch(
        device,
        "best_objects",
        rows,
        &mut [
            Arg::In(boxes),
            Arg::Ints(&[shared, per_image]),
            Arg::All(&objects.boxes),
            Arg::All(&objects.starts),
            Arg::Out(&mut iou),
            Arg::Out(&mut best),
            Arg::Out(&mut peaks),
        ],
    )?;
    Ok([iou, best, peaks])
}

/// The best IoU of every box of `[N · P, 4]`.
pub(in crate::ops) fn best_overlaps(boxes: &Tensor, objects: &Objects) -> Result<Tensor> {
    let rows = boxes.dim(0)?;
    with_operands([boxes], |device, [boxes]| {
        let [iou, _, _] = overlaps(device, boxes, (0, rows / objects.images), objects)?;
        Ok(wrap(iou, Shape::from(rows)))
    })
}

/// Boxes `[P, 4]` for each picture of these heights and widths `[N, 2]`, those that cross its border without corners:
/// `[N, P, 4]`.
pub(in crate::ops) fn inside(boxes: &Tensor, sizes: &Tensor) -> Result<Tensor> {
    let (images, per_image) = (sizes.dim(0)?, [boxes.dim(0)?]);
    make([boxes, sizes], (images, per_image[0], 4), |device, [boxes, sizes], y| {
        launch(
            device,
            "inside_boxes",
            images * per_image[0],
            &mut [Arg::In(boxes), Arg::In(sizes), Arg::Ints(&per_image), Arg::Out(y)],
        )
    })
}

/// [`crate::ops::matching::matched`] for boxes `[P, 4]` or `[N, P, 4]`: i32 `[N · P]`.
pub(in crate::ops) fn matched(boxes: &Tensor, objects: &Objects, rule: &MatchRule) -> Result<Tensor> {
    let dims = boxes.dims();
    let (shared, per_image) = (usize::from(dims.len() == 2), dims[dims.len() - 2]);
    let rows = objects.images * per_image;
    with_operands([boxes], |device, [boxes]| {
        let [iou, best, peaks] = overlaps(device, boxes, (shared, per_image), objects)?;
        let mut targets = indices(device, rows)?;
        launch(
            device,
            "match_objects",
            rows,
            &mut [
                Arg::In(boxes),
                Arg::Ints(&[shared, per_image]),
                Arg::All(&objects.boxes),
                Arg::All(&objects.starts),
                Arg::All(&iou),
                Arg::All(&best),
                Arg::All(&peaks),
                Arg::Float(rule.positive),
                Arg::Float(rule.negative),
                Arg::Ints(&[usize::from(rule.all_ties)]),
                Arg::Float(rule.least_tie),
                Arg::Out(&mut targets),
            ],
        )?;
        Ok(wrap(targets, Shape::from(rows)))
    })
}
