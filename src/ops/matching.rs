//! Anchors matched to the objects of a batch.

use super::cuda;
use super::cuda::multibox::Objects;
use super::select::fetch;
use crate::geometry::BBox;
use crate::geometry::iou::iou;
use crate::geometry::matching::{Force, Matches, match_anchors};
use candle_core::{Device, Result, Tensor};

/// Pairs of anchors and objects of an image from which on a CUDA device compares them sooner than the processor.
const MANY: usize = 1 << 18;

/// [`match_anchors`] for the objects of each image of a batch, on `device` where they are many. What comes from a GPU
/// lacks IoUs below both thresholds, which decide nothing, and says 0 instead; `whole` asks for them.
///
/// # Errors
/// Those of the device.
pub fn match_batch(
    anchors: &[BBox],
    objects: &[Vec<BBox>],
    (positive, negative): (f32, f32),
    force: Force,
    device: &Device,
    whole: bool,
) -> Result<Vec<Matches>> {
    let is_large = |own: &[BBox]| anchors.len() * own.len() >= MANY;
    let on_device = match device {
        Device::Cuda(device) if !whole && force != Force::Bipartite && objects.iter().any(|own| is_large(own)) => {
            Some(cuda::matching::Anchors::new(device, anchors)?)
        }
        _ => None,
    };
    let matches = |own: &Vec<BBox>| match &on_device {
        Some(on_device) if is_large(own) => on_device.matches(own, (positive, negative), force),
        _ => Ok(match_anchors(anchors, own, positive, negative, force)),
    };
    objects.iter().map(matches).collect()
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
        return cuda::multibox::best_overlaps(boxes, &Objects::new(boxes, objects)?);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_image_has_its_own_matches() -> Result<()> {
        let square = |x: f32| BBox::new(x, 0.0, x + 10.0, 10.0);
        let (anchors, objects) = ([square(0.0), square(20.0)], [vec![square(21.0)], Vec::new()]);
        let found = match_batch(&anchors, &objects, (0.5, 0.5), Force::None, &Device::Cpu, false)?;
        assert_eq!((found[0].target.as_slice(), found[1].target.as_slice()), (&[-1, 0][..], &[-1, -1][..]));
        Ok(())
    }
}
