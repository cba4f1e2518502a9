//! Boxes matched to the objects of a batch.

use super::cuda::matching as kernels;
pub use super::cuda::matching::Objects;
use super::select::fetch;
use crate::geometry::BBox;
use crate::geometry::iou::iou;
use candle_core::{Result, Tensor};

/// Which boxes learn an object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MatchRule {
    /// IoU with its best object from which on a box learns it.
    pub positive: f32,
    /// IoU below which a box is background; between the two it takes no part.
    pub negative: f32,
    /// A box that no other one beats for some object learns its own best one too
    /// ([`AllTies`](crate::geometry::matching::Force::AllTies)).
    pub all_ties: bool,
    /// From this IoU on.
    pub least_tie: f32,
}

/// [`match_anchors`](crate::geometry::matching::match_anchors) on a CUDA device for boxes `[P, 4]` that all images share, or
/// `[N, P, 4]`: i32 `[N · P]`, the object's number in the batch, −1 for background, −2 for boxes that take no part, as
/// those whose corners are no numbers. With the heights and widths of the pictures `[N, 2]`, boxes that cross a border take none.
///
/// # Errors
/// Boxes of another shape, sizes for boxes that are each image's own, or a device that is not CUDA.
pub fn matched(boxes: &Tensor, objects: &Objects, rule: &MatchRule, sizes: Option<&Tensor>) -> Result<Tensor> {
    let fits = match *boxes.dims() {
        [images, _, 4] => images == objects.images && sizes.is_none(),
        [_, 4] => sizes.is_none_or(|sizes| sizes.dims() == [objects.images, 2]),
        _ => false,
    };
    if !fits {
        candle_core::bail!("boxes {:?} for {} images", boxes.dims(), objects.images);
    }
    match sizes {
        Some(sizes) => kernels::matched(&kernels::inside(boxes, sizes)?, objects, rule),
        None => kernels::matched(boxes, objects, rule),
    }
}

/// The best IoU of every box of `boxes` `[N · P, 4]` with the objects of its image; 0 without any: `[N · P]`.
///
/// # Errors
/// Rows that the images do not share evenly, or a tensor that is not f32.
pub fn best_overlaps(boxes: &Tensor, objects: &[Vec<(BBox, u32)>]) -> Result<Tensor> {
    let (rows, sides) = boxes.dims2()?;
    if sides != 4 || objects.is_empty() || !rows.is_multiple_of(objects.len()) {
        candle_core::bail!("boxes {:?} for {} images", boxes.dims(), objects.len());
    }
    if !boxes.device().is_cpu() {
        return kernels::best_overlaps(boxes, &Objects::new(boxes, objects)?);
    }
    let values = fetch(boxes)?;
    let of_image = |(rows, objects): (&[f32], &Vec<(BBox, u32)>)| -> Vec<f32> {
        let best = |b: &[f32]| {
            let own = BBox::new(b[0], b[1], b[2], b[3]);
            objects.iter().map(|&(bbox, _)| iou(bbox, own)).fold(0.0, f32::max)
        };
        rows.chunks_exact(4).map(best).collect()
    };
    let per_image = (4 * rows / objects.len()).max(1);
    let found: Vec<f32> = values.chunks_exact(per_image).zip(objects).flat_map(of_image).collect();
    Tensor::from_vec(found, rows, boxes.device())
}
