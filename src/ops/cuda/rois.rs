//! RoIs of training.

use super::matching::Objects;
use super::proposals::Proposed;
use super::roi::Regions;
use super::select::{counters, read};
use super::{Arg, floats, indices, launch, make, room, upload, with_operands, wrap};
use crate::geometry::coder::BoxCoder;
use crate::geometry::{BBox, Mask};
use crate::ops::roi::LevelRule;
use crate::ops::rois::{Columns, Masked, RoiTargets};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaDevice, CudaStorage, DType, Result, Shape, Tensor, bail};
use std::sync::Arc;

/// Boxes that a stage may learn from.
pub struct Candidates {
    images: usize,
    room: usize,
    /// `[N, room, 4]`; none where there is no room.
    boxes: Option<Tensor>,
    origins: CudaStorage,
}

impl Candidates {
    pub(in crate::ops) fn boxes(&self) -> Option<&Tensor> {
        self.boxes.as_ref()
    }
}

/// The sampled RoIs of a batch, image by image, positives first.
pub struct Rois {
    /// Of each image: positives, background, and positives whose object has a mask.
    pub(in crate::ops) sizes: Vec<[usize; 3]>,
    /// The boxes; none without a RoI.
    regions: Option<Arc<Regions>>,
    /// Four numbers a RoI, as `list_sampled` writes them.
    rows: CudaStorage,
}

/// The RoIs of one image, in main memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sampled {
    pub boxes: Vec<BBox>,
    /// The object of each among those of its image, −1 for background.
    pub target: Vec<i32>,
    /// The candidate that each was, −1 for an object.
    pub origin: Vec<i32>,
}

/// The masks of all objects as runs down their columns.
pub struct Masks {
    /// Where those of each object begin, and the end.
    starts: CudaStorage,
    /// Where each run ends.
    ends: CudaStorage,
    /// Heights and widths.
    extents: CudaStorage,
}

impl Masks {
    /// The masks of the objects of a batch one after the other, on the device of `like`. One without an area is none.
    ///
    /// # Errors
    /// Runs that do not fill their mask, masks with more pixels than 31 bits count, or a device that is not CUDA.
    pub fn new<'a>(like: &Tensor, masks: impl IntoIterator<Item = Option<&'a Mask>>) -> Result<Self> {
        let (mut starts, mut ends, mut extents) = (vec![0], Vec::new(), Vec::new());
        for mask in masks {
            let mask = mask.filter(|mask| mask.height > 0 && mask.width > 0);
            if let Some(mask) = mask {
                if let Err(error) = mask.check() {
                    bail!("{error}")
                }
                let mut end = 0u64;
                ends.extend(mask.counts.iter().map(|&count| {
                    end += u64::from(count);
                    end as i32
                }));
                if end > i32::MAX as u64 || ends.len() > i32::MAX as usize {
                    bail!("masks of {} × {} pixels are too large for a CUDA device", mask.height, mask.width)
                }
            }
            extents.extend(mask.map_or([0, 0], |mask| [mask.height as i32, mask.width as i32]));
            starts.push(ends.len() as i32);
        }
        with_operands([like], |device, _| {
            Ok(Self {
                starts: upload(device, &starts)?,
                ends: upload(device, &ends)?,
                extents: upload(device, &extents)?,
            })
        })
    }
}

pub(in crate::ops) fn proposed_candidates(proposed: &Proposed, objects: &Objects, join: bool) -> Result<Candidates> {
    let (images, most) = (proposed.images, proposed.most);
    let room = most + if join { objects.most } else { 0 };
    if images != objects.images {
        bail!("proposals of {images} images for objects of {}", objects.images)
    }
    candidates((proposed.rows.device(), images, room), |boxes, origins| {
        launch(
            proposed.rows.device(),
            "proposed_candidates",
            images * room,
            &mut [
                Arg::All(&proposed.rows),
                Arg::Ints(&[most, room]),
                Arg::All(&objects.boxes),
                Arg::All(&objects.starts),
                Arg::Out(boxes),
                Arg::Out(origins),
            ],
        )
    })
}

/// Candidates of which `fill` writes boxes and origins.
fn candidates(
    (device, images, room): (&CudaDevice, usize, usize),
    fill: impl FnOnce(&mut CudaStorage, &mut CudaStorage) -> Result<()>,
) -> Result<Candidates> {
    let (mut boxes, mut origins) = (floats(device, 4 * images * room)?, indices(device, images * room)?);
    fill(&mut boxes, &mut origins)?;
    let boxes = (images * room > 0).then(|| wrap(boxes, Shape::from((images, room, 4))));
    Ok(Candidates { images, room, boxes, origins })
}

pub(in crate::ops) fn refined_candidates(
    refined: &Tensor,
    rois: &Rois,
    objects: &Objects,
    join: bool,
) -> Result<Candidates> {
    let most = rois.sizes.iter().map(|own| own[0] + own[1]).max().unwrap_or(0);
    let room = most + if join { objects.most } else { 0 };
    let mut firsts = vec![0];
    for own in &rois.sizes {
        firsts.push(firsts.last().unwrap_or(&0) + (own[0] + own[1]) as i32);
    }
    with_operands([refined], |device, [refined]| {
        let firsts = upload(device, &firsts)?;
        candidates((device, objects.images, room), |boxes, origins| {
            launch(
                device,
                "refined_candidates",
                objects.images * room,
                &mut [
                    Arg::In(refined),
                    Arg::All(&rois.rows),
                    Arg::All(&firsts),
                    Arg::Ints(&[most, usize::from(join), room]),
                    Arg::All(&objects.boxes),
                    Arg::All(&objects.starts),
                    Arg::Out(boxes),
                    Arg::Out(origins),
                ],
            )
        })
    })
}

/// The candidates that learn something by `drawn`, i32 `[N · room]`.
pub(in crate::ops) fn sampled(
    candidates: &Candidates,
    drawn: &Tensor,
    most: usize,
    masks: &Masks,
    levels: &LevelRule,
) -> Result<Rois> {
    let (images, room) = (candidates.images, candidates.room);
    let Some(boxes) = &candidates.boxes else { bail!("there is no candidate") };
    with_operands([boxes, drawn], |device, [boxes, drawn]| {
        let mut sizes = counters(device, 3 * images)?;
        launch(
            device,
            "sampled_sizes",
            images * room,
            &mut [Arg::All(drawn.0), Arg::All(&masks.starts), Arg::Ints(&[room]), Arg::Out(&mut sizes)],
        )?;
        let all = images * most.min(room);
        let (mut chosen, mut of_images) = (floats(device, 4 * all)?, indices(device, all)?);
        let mut rows = indices(device, 4 * all)?;
        launch(
            device,
            "list_sampled",
            images * room,
            &mut [
                Arg::In(boxes),
                Arg::All(&candidates.origins),
                Arg::All(drawn.0),
                Arg::All(&masks.starts),
                Arg::All(&sizes),
                Arg::Ints(&[room]),
                Arg::Out(&mut chosen),
                Arg::Out(&mut of_images),
                Arg::Out(&mut rows),
            ],
        )?;
        let sizes: Vec<[usize; 3]> =
            read(&sizes)?.chunks_exact(3).map(|own| [own[0] as usize, own[1] as usize, own[2] as usize]).collect();
        let count = sizes.iter().map(|own| own[0] + own[1]).sum();
        let regions = match count {
            0 => None,
            _ => Some(Arc::new(Regions::of_boxes(device, (count, images), (chosen, of_images), levels)?)),
        };
        Ok(Rois { sizes, regions, rows })
    })
}

impl Rois {
    /// No RoI in any image.
    pub(in crate::ops) fn none(objects: &Objects) -> Result<Self> {
        let rows = indices(objects.boxes.device(), 0)?;
        Ok(Self { sizes: vec![[0; 3]; objects.images], regions: None, rows })
    }

    /// The boxes, to be pooled.
    ///
    /// # Errors
    /// No RoI at all.
    pub fn regions(&self) -> Result<&Arc<Regions>> {
        match &self.regions {
            Some(regions) => Ok(regions),
            None => bail!("there is no RoI to pool"),
        }
    }

    /// The RoIs of each image in main memory, for the record.
    ///
    /// # Errors
    /// Those of the device.
    pub fn read(&self, objects: &Objects) -> Result<Vec<Sampled>> {
        let Some(regions) = &self.regions else { return Ok(vec![Sampled::default(); self.sizes.len()]) };
        let (CpuStorage::F32(boxes), rows) = (regions.boxes.to_cpu_storage()?, read(&self.rows)?) else {
            bail!("boxes came back as something else")
        };
        let mut all = boxes.chunks_exact(4).zip(rows.chunks_exact(4));
        let of_image = |(own, first): (&[usize; 3], &i32)| {
            let mut sampled = Sampled::default();
            for (b, row) in all.by_ref().take(own[0] + own[1]) {
                sampled.boxes.push(BBox::new(b[0], b[1], b[2], b[3]));
                sampled.target.push(if row[0] < 0 { -1 } else { row[0] - first });
                sampled.origin.push(row[1]);
            }
            sampled
        };
        Ok(self.sizes.iter().zip(&objects.firsts).map(of_image).collect())
    }
}

/// Room for `len` u32 that a kernel is to write.
fn places(device: &CudaDevice, len: usize) -> Result<CudaStorage> {
    room(device, len, DType::U32)
}

pub(in crate::ops) fn targets(
    rois: &Rois,
    objects: &Objects,
    columns: &Columns,
    coder: &BoxCoder,
) -> Result<RoiTargets> {
    let (regions, positives) = (rois.regions()?, rois.positives());
    let (device, std) = (regions.boxes.device(), coder.std);
    let mut own = indices(device, regions.count)?;
    let (mut rows, mut codes) = (places(device, positives)?, floats(device, 4 * positives)?);
    launch(
        device,
        "roi_targets",
        regions.count,
        &mut [
            Arg::All(&regions.boxes),
            Arg::All(&rois.rows),
            Arg::All(&objects.boxes),
            Arg::All(&objects.classes),
            Arg::Ints(&[columns.first, columns.background, usize::from(columns.agnostic), columns.regressed]),
            Arg::Float(std[0]),
            Arg::Float(std[1]),
            Arg::Float(std[2]),
            Arg::Float(std[3]),
            Arg::Out(&mut own),
            Arg::Out(&mut rows),
            Arg::Out(&mut codes),
        ],
    )?;
    let columns = wrap(own, Shape::from(regions.count));
    let of_boxes = (wrap(rows, Shape::from(positives.max(1))), wrap(codes, Shape::from((positives.max(1), 4))));
    Ok(RoiTargets { columns, of_boxes: (positives > 0).then_some(of_boxes) })
}

pub(in crate::ops) fn refined(
    rois: &Rois,
    objects: &Objects,
    (logits, codes): (&Tensor, &Tensor),
    columns: &Columns,
    coder: &BoxCoder,
    sizes: &Tensor,
) -> Result<Tensor> {
    let (regions, std, limit) = (rois.regions()?, coder.std, coder.max_log.unwrap_or(f32::INFINITY));
    make([logits, codes, sizes], (regions.count, 4), |device, [logits, codes, sizes], y| {
        launch(
            device,
            "refine_rois",
            regions.count,
            &mut [
                Arg::All(&regions.boxes),
                Arg::All(&regions.images),
                Arg::All(&rois.rows),
                Arg::All(&objects.classes),
                Arg::In(logits),
                Arg::Ints(&[columns.classes + 1, columns.first, columns.classes]),
                Arg::In(codes),
                Arg::Ints(&[usize::from(columns.agnostic), columns.regressed]),
                Arg::In(sizes),
                Arg::Float(std[0]),
                Arg::Float(std[1]),
                Arg::Float(std[2]),
                Arg::Float(std[3]),
                Arg::Float(limit),
                Arg::Out(y),
            ],
        )
    })
}

pub(in crate::ops) fn with_masks(
    rois: &Rois,
    objects: &Objects,
    (first, channels): (usize, usize),
    levels: &LevelRule,
) -> Result<Masked> {
    let (regions, count) = (rois.regions()?, rois.masked());
    let device = regions.boxes.device();
    let (mut boxes, mut images) = (floats(device, 4 * count)?, indices(device, count)?);
    let (mut own, mut rows) = (indices(device, count)?, places(device, count)?);
    launch(
        device,
        "masked_rois",
        regions.count,
        &mut [
            Arg::All(&regions.boxes),
            Arg::All(&regions.images),
            Arg::All(&rois.rows),
            Arg::All(&objects.classes),
            Arg::Ints(&[first, channels]),
            Arg::Out(&mut boxes),
            Arg::Out(&mut images),
            Arg::Out(&mut own),
            Arg::Out(&mut rows),
        ],
    )?;
    let regions = Arc::new(Regions::of_boxes(device, (count, objects.images), (boxes, images), levels)?);
    Ok(Masked { regions, places: wrap(rows, Shape::from(count)), objects: own })
}

pub(in crate::ops) fn pieces(masked: &Masked, masks: &Masks, side: usize, majority: bool) -> Result<Tensor> {
    let (device, count) = (masked.objects.device(), masked.regions.count * side * side);
    let mut cells = floats(device, count)?;
    launch(
        device,
        "mask_targets",
        count,
        &mut [
            Arg::All(&masked.regions.boxes),
            Arg::All(&masked.objects),
            Arg::All(&masks.starts),
            Arg::All(&masks.ends),
            Arg::All(&masks.extents),
            Arg::Ints(&[side, usize::from(majority)]),
            Arg::Out(&mut cells),
        ],
    )?;
    Ok(wrap(cells, Shape::from((masked.regions.count, side * side))))
}
