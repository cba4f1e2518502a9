//! Masks of final detections: features of their boxes, the channel of their class, laid over the picture.

use super::Rcnn;
use super::config::MaskConfig;
use super::paste::Patch;
use super::regions::{Roi, pool};
use crate::geometry::Detection;
use crate::nn::Pass;
use crate::ops::activation::sigmoid;
use candle_core::{Result, Tensor};

/// Gives every detection its mask, in input pixels of a picture of its image's size (height, width).
pub(super) fn attach(
    network: &Rcnn,
    mask: &MaskConfig,
    levels: &[Tensor],
    detections: &mut [Vec<Detection>],
    sizes: &[(f32, f32)],
    pass: &Pass,
) -> Result<()> {
    let config = &network.rcnn;
    let mut channels = Vec::new();
    for detection in detections.iter().flatten() {
        channels.push(config.column(detection.class as usize));
    }
    if channels.is_empty() {
        return Ok(());
    }
    let rois = rois(detections);
    let (probabilities, side) = pass.stage("mask head", || {
        let pooled = pool(config, levels, &rois, mask.mask_pooled)?;
        let mut sum: Option<Tensor> = None;
        let mut side = 0;
        for head in &network.masks {
            let masks = head.forward(&pooled, pass)?;
            side = masks.side()?;
            let own = sigmoid(&masks.of_channels(&channels)?)?;
            sum = Some(match sum {
                Some(others) => others.add(&own)?,
                None => own,
            });
        }
        let Some(sum) = sum else {
            candle_core::bail!("there is no mask head");
        };
        let mean = if network.masks.len() > 1 { sum.affine(1.0 / network.masks.len() as f64, 0.0)? } else { sum };
        Ok((mean.detach().flatten_all()?.to_vec1::<f32>()?, side))
    })?;
    pass.stage("paste masks", || {
        let mut pieces = probabilities.chunks_exact((side * side).max(1));
        for (of_image, &(height, width)) in detections.iter_mut().zip(sizes) {
            let size = (height as usize, width as usize);
            for detection in of_image {
                if let Some(piece) = pieces.next() {
                    let patch = Patch::new(piece, side, detection.bbox, size, mask.paste);
                    detection.mask = patch.mask(mask.mask_threshold, mask.paste, size);
                }
            }
        }
        Ok(())
    })
}

/// The boxes of all images' detections in turn.
pub(super) fn rois(detections: &[Vec<Detection>]) -> Vec<Roi> {
    let mut rois = Vec::new();
    for (image, of_image) in detections.iter().enumerate() {
        rois.extend(of_image.iter().map(|detection| (image as u32, detection.bbox)));
    }
    rois
}
