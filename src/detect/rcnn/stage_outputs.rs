//! Everything between the forward pass and the detections, by name: for comparison with reference implementations.

use super::{Rcnn, decode, mask_decode, regions};
use crate::detect::Outputs;
use crate::nn::Pass;
use candle_core::{Result, Tensor};

impl Rcnn {
    /// What comes after the forward pass, under torchvision's names: `proposals.boxes` `[R, 4]`, `roi_pool`
    /// `[R, C, 7, 7]` of the proposals, `box_predictor.logits` and `.deltas` (in a cascade `box_predictor.0.logits` and
    /// so on, each on its own RoIs), `mask_predictor` `[D, channels, 28, 28]` of the detections by the first mask head.
    ///
    /// # Errors
    /// Outputs of another network.
    pub fn stage_outputs(&self, outputs: &Outputs, pass: &Pass) -> Result<Vec<(String, Tensor)>> {
        let found = self.look(outputs, pass)?;
        let mut named = Vec::new();
        let device = self.params.device();
        let corners = found.proposals.iter().flat_map(|p| &p.boxes).flat_map(|b| [b.x0, b.y0, b.x1, b.y1]);
        let corners: Vec<f32> = corners.collect();
        named.push(("proposals.boxes".to_string(), Tensor::from_slice(&corners, (corners.len() / 4, 4), device)?));
        if let Some(first) = found.steps.first() {
            let pooled = regions::pool(&self.rcnn, &found.levels, &first.rois, self.rcnn.pooled)?;
            named.push(("roi_pool".to_string(), pooled.in_order(&pooled.features)?));
        }
        for (number, step) in found.steps.iter().enumerate() {
            let name = |kind: &str| {
                if self.rcnn.is_cascade() {
                    format!("box_predictor.{number}.{kind}")
                } else {
                    format!("box_predictor.{kind}")
                }
            };
            named.push((name("logits"), step.answers.logits.clone()));
            if let Some(deltas) = &step.answers.deltas {
                named.push((name("deltas"), deltas.clone()));
            }
        }
        if let (Some(mask), Some(head)) = (&self.rcnn.mask, self.masks.first()) {
            let detections =
                decode::detect(self, &found.levels, &found.proposals, &found.steps, found.sizes.values()?, pass)?;
            let rois = mask_decode::rois(&detections);
            if !rois.is_empty() {
                let pooled = regions::pool(&self.rcnn, &found.levels, &rois, mask.mask_pooled)?;
                named.push(("mask_predictor".to_string(), head.forward(&pooled, pass)?.in_order()?));
            }
        }
        Ok(named)
    }
}
