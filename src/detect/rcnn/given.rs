//! Proposals from outside instead of the RPN's (Fast R-CNN): a list for each image, or the objects moved and stretched.
//!
//! Girshick, "Fast R-CNN" (ICCV 2015): the heads learn and detect in boxes that something else proposed.

use super::picture::Sizes;
use super::proposals::Proposals;
use super::refine::NO_PARENT;
use crate::detect::{Config, Detector, Losses, Outputs};
use crate::geometry::{BBox, Detection, Object};
use crate::nn::{Params, Pass};
use crate::random::Random;
use candle_core::{Device, Result, Tensor};
use std::cell::RefCell;

/// Name of the given proposals `[R, 6]` among the outputs: image, box, score.
const GIVEN: &str = "given_proposals";

/// Numbers of one given proposal.
const COLUMNS: usize = 6;

/// A two-stage detector that looks at proposals from outside. Its RPN takes no part, in the loss neither.
pub struct GivenProposals {
    detector: Box<dyn Detector>,
    /// Of each image of the next batch: box in input pixels and score.
    next: RefCell<Vec<Vec<(BBox, f32)>>>,
}

impl GivenProposals {
    /// # Errors
    /// A detector of one stage.
    pub fn new(detector: Box<dyn Detector>) -> Result<Self> {
        if !matches!(detector.config(), Config::Rcnn(_)) {
            candle_core::bail!("{} is no two-stage detector: it looks at no proposals", detector.config().arch());
        }
        Ok(Self { detector, next: RefCell::default() })
    }

    /// Sets the proposals of the next forward pass: of each image of its batch, boxes in input pixels with scores.
    pub fn set(&self, proposals: Vec<Vec<(BBox, f32)>>) {
        self.next.replace(proposals);
    }
}

impl Detector for GivenProposals {
    fn config(&self) -> &Config {
        self.detector.config()
    }

    fn params(&self) -> &Params {
        self.detector.params()
    }

    fn forward(&self, images: &Tensor, pass: &Pass) -> Result<Outputs> {
        let proposals = self.next.take();
        let count = images.dim(0)?;
        if proposals.len() != count {
            candle_core::bail!("proposals were given for {} images, the batch has {count}", proposals.len());
        }
        let mut outputs = self.detector.forward(images, pass)?;
        let mut rows = Vec::new();
        for (image, of_image) in proposals.iter().enumerate() {
            for (b, score) in of_image {
                rows.extend([image as f32, b.x0, b.y0, b.x1, b.y1, *score]);
            }
        }
        let shape = (rows.len() / COLUMNS, COLUMNS);
        outputs.tensors.push((GIVEN.to_string(), Tensor::from_vec(rows, shape, &Device::Cpu)?));
        Ok(outputs)
    }

    fn losses(&self, outputs: &Outputs, objects: &[Vec<Object>], pass: &Pass) -> Result<Losses> {
        self.detector.losses(outputs, objects, pass)
    }

    fn detect(&self, outputs: &Outputs, pass: &Pass) -> Result<Vec<Vec<Detection>>> {
        self.detector.detect(outputs, pass)
    }

    fn stage_outputs(&self, outputs: &Outputs, pass: &Pass) -> Result<Vec<(String, Tensor)>> {
        self.detector.stage_outputs(outputs, pass)
    }

    fn layouts(&self) -> &'static [&'static str] {
        self.detector.layouts()
    }
}

/// The given proposals of each image, clipped to the pictures of these heights and widths; boxes without an area are
/// left out. None where the RPN proposes.
pub(super) fn given(outputs: &Outputs, sizes: &Sizes) -> Result<Option<Vec<Proposals>>> {
    let Some((_, tensor)) = outputs.tensors.iter().find(|(name, _)| name == GIVEN) else {
        return Ok(None);
    };
    let sizes = sizes.values()?;
    let mut all = vec![Proposals::default(); sizes.len()];
    let rows: Vec<f32> = if tensor.elem_count() == 0 { Vec::new() } else { tensor.flatten_all()?.to_vec1()? };
    for row in rows.chunks_exact(COLUMNS) {
        let &[image, x0, y0, x1, y1, score] = row else {
            continue;
        };
        let image = image as usize;
        if let (Some(of_image), Some(&(height, width))) = (all.get_mut(image), sizes.get(image)) {
            let whole = BBox::new(x0, y0, x1, y1);
            let bbox = whole.clip(width, height);
            if whole.is_proper() && bbox.is_proper() {
                of_image.push(bbox, if score.is_finite() { score } else { 0.0 }, NO_PARENT);
            }
        }
    }
    Ok(Some(all))
}

/// `count` boxes for the objects of a picture of `size` (height, width): three of four are an object, each in turn,
/// moved by up to `jitter` of its sides and stretched by up to 1 + `jitter` either way; the others, and all of them
/// without objects, lie anywhere.
pub(super) fn jittered(
    objects: &[Object],
    (count, jitter): (usize, f32),
    (height, width): (f32, f32),
    rng: &mut Random,
) -> Proposals {
    let objects: Vec<BBox> = objects.iter().map(|o| o.bbox).filter(|bbox| bbox.is_proper()).collect();
    let around = if objects.is_empty() { 0 } else { count * 3 / 4 };
    let mut proposals = Proposals::default();
    for index in 0..count {
        let bbox = if index < around {
            let [cx, cy, w, h] = objects[index % objects.len()].to_cxcywh();
            let stretch = (1.0 + jitter).ln();
            let (cx, cy) = (cx + w * rng.range(-jitter, jitter), cy + h * rng.range(-jitter, jitter));
            let (w, h) = (w * rng.range(-stretch, stretch).exp(), h * rng.range(-stretch, stretch).exp());
            BBox::from_cxcywh(cx, cy, w, h)
        } else {
            let (a, b) = (rng.range(0.0, width), rng.range(0.0, width));
            let (c, d) = (rng.range(0.0, height), rng.range(0.0, height));
            BBox::new(a.min(b), c.min(d), a.max(b), c.max(d))
        };
        let bbox = bbox.clip(width, height);
        if bbox.is_proper() {
            proposals.push(bbox, 1.0, NO_PARENT);
        }
    }
    proposals
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::iou::iou;

    #[test]
    fn jittered_objects_stay_near_and_the_rest_lies_anywhere() {
        let object = Object { bbox: BBox::new(20.0, 20.0, 60.0, 50.0), ..Object::default() };
        let own = std::slice::from_ref(&object);
        let drawn = |jitter: f32| jittered(own, (400, jitter), (64.0, 96.0), &mut Random::new(3));
        let found = drawn(0.5);
        assert!(found.boxes.iter().all(|b| b.is_proper() && b.x1 <= 96.0 && b.y1 <= 64.0));
        // at worst a box of two thirds of the sides, half a side away each way: 1/12
        let near = |&b: &BBox| iou(b, object.bbox) > 0.05;
        assert!(found.boxes[..300].iter().all(near) && !found.boxes[300..].iter().all(near));
        assert!(drawn(0.0).boxes[..300].iter().all(|&b| iou(b, object.bbox) > 0.999));
        assert_eq!(found, drawn(0.5));
        let nothing = jittered(&[], (8, 0.5), (64.0, 96.0), &mut Random::new(3));
        assert!(nothing.boxes.len() > 4 && nothing.anchors.iter().all(|&anchor| anchor == NO_PARENT));
    }

    #[test]
    fn given_rows_find_their_image_and_are_clipped() -> Result<()> {
        let nan = f32::NAN;
        let rows = [
            [1.0, -5.0, 0.0, 10.0, 10.0, 0.5],
            [0.0, 70.0, 0.0, 90.0, 10.0, 0.5],
            [7.0, 0.0, 0.0, 9.0, 9.0, 1.0],
            [0.0, nan, 0.0, 9.0, 9.0, 1.0],
            [0.0, 1.0, 1.0, 9.0, 9.0, nan],
        ];
        let tensor = Tensor::from_vec(rows.concat(), (rows.len(), COLUMNS), &Device::Cpu)?;
        let mut outputs = Outputs { tensors: Vec::new(), maps: Vec::new(), input: (64, 64) };
        let sizes = Sizes::new(Tensor::full(64f32, (2, 2), &Device::Cpu)?);
        assert!(given(&outputs, &sizes)?.is_none());
        outputs.tensors.push((GIVEN.to_string(), tensor));
        let found = given(&outputs, &sizes)?.unwrap_or_default();
        assert_eq!(found[1].boxes, [BBox::new(0.0, 0.0, 10.0, 10.0)]);
        assert_eq!((found[0].boxes.as_slice(), found[0].scores[0]), (&[BBox::new(1.0, 1.0, 9.0, 9.0)][..], 0.0));
        Ok(())
    }
}
