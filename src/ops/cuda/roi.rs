//! RoIAlign and RoIPool. Regions overlap, so their gradients are added up in no fixed order.

use super::{Arg, Operand, add_up, floats, indices, launch, upload, with_operands};
use crate::geometry::BBox;
use crate::ops::roi::{LevelRule, PoolRule};
use crate::ops::tape;
use candle_core::{CudaDevice, CudaStorage, Result, Shape, Tensor};
use std::sync::Arc;

/// Regions of a batch: boxes `[R, 4]` in input pixels, and an image and a level of each.
pub struct Regions {
    pub(in crate::ops) count: usize,
    pub(super) boxes: CudaStorage,
    pub(super) images: CudaStorage,
    levels: CudaStorage,
    /// One more than the coarsest level that a region may read.
    pub(in crate::ops) maps: usize,
    /// Images of the batch.
    pub(in crate::ops) batch: usize,
}

impl Regions {
    /// Regions from main memory, of which each reads the level that `level` says, on the device of `like`,
    /// a map of their batch.
    pub(in crate::ops) fn new(like: &Tensor, rois: &[(u32, BBox)], level: impl Fn(BBox) -> usize) -> Result<Self> {
        let boxes: Vec<BBox> = rois.iter().map(|&(_, bbox)| bbox).collect();
        let images: Vec<i32> = rois.iter().map(|&(image, _)| image as i32).collect();
        let levels: Vec<i32> = boxes.iter().map(|&bbox| level(bbox) as i32).collect();
        let batch = like.dim(0)?;
        let maps = levels.iter().map(|&level| level as usize + 1).max().unwrap_or(0);
        with_operands([like], |device, _| {
            Ok(Self {
                count: rois.len(),
                boxes: upload::<f32>(device, bytemuck::cast_slice(&boxes))?,
                images: upload(device, &images)?,
                levels: upload(device, &levels)?,
                maps,
                batch,
            })
        })
    }

    /// `count` regions of a batch that are on the device.
    pub(super) fn of_boxes(
        device: &CudaDevice,
        (count, batch): (usize, usize),
        (boxes, images): (CudaStorage, CudaStorage),
        rule: &LevelRule,
    ) -> Result<Self> {
        let mut levels = indices(device, count)?;
        launch(
            device,
            "roi_levels",
            count,
            &mut [
                Arg::All(&boxes),
                Arg::Ints(&[usize::from(rule.before_logarithm), rule.levels.saturating_sub(1)]),
                Arg::Float(rule.canonical_size),
                Arg::Float(LevelRule::EPSILON),
                Arg::Out(&mut levels),
            ],
        )?;
        Ok(Self { count, boxes, images, levels, maps: rule.levels, batch })
    }
}

/// The sizes of one launch, and how many elements it makes.
struct Sizes {
    level: usize,
    map: [usize; 3],
    side: [usize; 2],
    scale: f32,
    count: usize,
}

fn sizes(map: &Tensor, (level, scale): (usize, f32), regions: usize, (ph, pw): (usize, usize)) -> Result<Sizes> {
    let (_, channels, h, w) = map.dims4()?;
    Ok(Sizes { level, map: [channels, h, w], side: [ph, pw], scale, count: regions * channels * ph * pw })
}

/// Writes the regions of one level to their rows of `y`.
fn pooled(
    device: &CudaDevice,
    x: Operand<'_>,
    regions: &Regions,
    own: &Sizes,
    rule: PoolRule,
    y: &mut CudaStorage,
) -> Result<()> {
    let Regions { boxes, images, levels, .. } = regions;
    let (level, map, side) = ([own.level], own.map, own.side);
    match rule {
        PoolRule::Max => launch(
            device,
            "roi_pool",
            own.count,
            &mut [
                Arg::In(x),
                Arg::All(boxes),
                Arg::All(images),
                Arg::All(levels),
                Arg::Ints(&level),
                Arg::Ints(&map),
                Arg::Ints(&side),
                Arg::Float(own.scale),
                Arg::Out(y),
            ],
        ),
        PoolRule::Align { sampling_ratio, shifted } => launch(
            device,
            "roi_align",
            own.count,
            &mut [
                Arg::In(x),
                Arg::All(boxes),
                Arg::All(images),
                Arg::All(levels),
                Arg::Ints(&level),
                Arg::Ints(&map),
                Arg::Ints(&side),
                Arg::Ints(&[sampling_ratio, usize::from(shifted)]),
                Arg::Float(own.scale),
                Arg::Out(y),
            ],
        ),
    }
}

/// The gradient of one level's map.
fn pooled_gradient(x: &Tensor, g: &Tensor, regions: &Regions, own: &Sizes, rule: PoolRule) -> Result<Tensor> {
    let Regions { boxes, images, levels, .. } = regions;
    let (level, map, side) = ([own.level], own.map, own.side);
    add_up([x, g], x.shape(), |device, [x, g], gx| match rule {
        PoolRule::Max => launch(
            device,
            "roi_pool_gradient",
            own.count,
            &mut [
                Arg::In(x),
                Arg::In(g),
                Arg::All(boxes),
                Arg::All(images),
                Arg::All(levels),
                Arg::Ints(&level),
                Arg::Ints(&map),
                Arg::Ints(&side),
                Arg::Float(own.scale),
                Arg::Out(gx),
            ],
        ),
        PoolRule::Align { sampling_ratio, shifted } => launch(
            device,
            "roi_align_gradient",
            own.count,
            &mut [
                Arg::In(g),
                Arg::All(boxes),
                Arg::All(images),
                Arg::All(levels),
                Arg::Ints(&level),
                Arg::Ints(&map),
                Arg::Ints(&side),
                Arg::Ints(&[sampling_ratio, usize::from(shifted)]),
                Arg::Float(own.scale),
                Arg::Out(gx),
            ],
        ),
    })
}

/// The regions, each cut out of the map `[N, C, H, W]` of its level and brought to one size: `[R, C, h, w]`. `scales`
/// are the levels' cells in a pixel.
pub(in crate::ops) fn pool(
    maps: &[Tensor],
    scales: &[f32],
    regions: &Arc<Regions>,
    output: (usize, usize),
    rule: PoolRule,
) -> Result<Tensor> {
    let Some(finest) = maps.first() else { candle_core::bail!("there is no map to pool from") };
    let shape = Shape::from((regions.count, finest.dim(1)?, output.0, output.1));
    let of_level = |(level, (map, &scale))| sizes(map, (level, scale), regions.count, output);
    let all: Vec<Sizes> = maps.iter().zip(scales).enumerate().map(of_level).collect::<Result<_>>()?;
    let made = with_operands([finest], |device, _| {
        let mut y = floats(device, shape.elem_count())?;
        for (map, own) in maps.iter().zip(&all) {
            with_operands([map], |device, [x]| pooled(device, x, regions, own, rule, &mut y))?;
        }
        Ok(y)
    })?;
    let regions = regions.clone();
    let gradient = move |maps: &[Tensor], _: &Tensor, g: &Tensor| {
        let of_level = |(map, own): (&Tensor, &Sizes)| {
            map.track_op().then(|| pooled_gradient(map, g, &regions, own, rule)).transpose()
        };
        maps.iter().zip(&all).map(of_level).collect()
    };
    tape::made_from(maps, (made, shape), gradient)
}
