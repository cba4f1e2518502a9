//! Which tests multi-scale testing makes of a picture with a detector, and how it merges them.

use super::{Extent, Keep, Merge, MultiScale, SoftSuppression, Voting, predict_multiscale};
use crate::detect::m2det::M2detConfig;
use crate::detect::{Config, ConfigError, Detector, Prediction};
use crate::geometry::nms::Decay;
use crate::imaging::picture::Picture;
use candle_core::Result;

/// Tests and merging for one detector.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub scales: Vec<MultiScale>,
    pub merge: Merge,
}

/// Sizes relative to the detector's own, where its authors give none.
const FACTORS: [f32; 4] = [0.75, 1.0, 1.25, 1.5];

/// Sides that can be asked for, pixels, and how many of them.
const SIDES: std::ops::RangeInclusive<usize> = 32..=4096;
const MOST_SIDES: usize = 32;

impl Plan {
    /// The tests of RefineDet's evaluation for RefineDet; for others four sizes around their own. M2Det, whose own
    /// suppression is soft, is merged by Soft-NMS, others by box voting: by the rule for COCO where the classes are
    /// COCO's 80.
    ///
    /// # Errors
    /// A detector whose anchors belong to one size.
    pub fn published(config: &Config) -> std::result::Result<Self, ConfigError> {
        let coco = config.classes().len() == 80;
        if let Config::Refinedet(refinedet) = config {
            return Ok(Self { scales: refinedet.multi_scales(coco), merge: merge_of(config) });
        }
        let step = step_of(config)?;
        let (short, _) = sides(config);
        let mut wanted: Vec<usize> = FACTORS.iter().map(|factor| rounded(factor * short as f32, step)).collect();
        wanted.dedup();
        wanted.retain(|&side| fits(config, side));
        Self::of_sides(config, &wanted)
    }

    /// One test for each length of the shorter side, each also mirrored; boxes of every size count.
    ///
    /// # Errors
    /// A detector whose anchors belong to one size, or a length that it does not take.
    pub fn of_sides(config: &Config, wanted: &[usize]) -> std::result::Result<Self, ConfigError> {
        let bad = |value: String, reason: String| ConfigError::BadValue { key: "scales".to_string(), value, reason };
        let step = step_of(config)?;
        if wanted.is_empty() || wanted.len() > MOST_SIDES {
            return Err(bad(format!("{} sizes", wanted.len()), format!("there can be 1 to {MOST_SIDES}")));
        }
        let (short, long) = sides(config);
        let mut scales = Vec::with_capacity(wanted.len());
        for &side in wanted {
            if !SIDES.contains(&side) || !side.is_multiple_of(step) || !fits(config, side) {
                let (low, high) = (SIDES.start(), SIDES.end());
                let reason = format!("{} takes multiples of {step} from {low} to {high} pixels", config.arch());
                return Err(bad(side.to_string(), reason));
            }
            let extent = if short == long {
                Extent::Square(side)
            } else {
                Extent::Oblong { long: rounded(side as f32 * long as f32 / short as f32, step), short: side }
            };
            scales.push(MultiScale { extent, keep: Keep::All, flip: true });
        }
        Ok(Self { scales, merge: merge_of(config) })
    }

    /// The same without mirrored pictures.
    pub fn without_flip(mut self) -> Self {
        for scale in &mut self.scales {
            scale.flip = false;
        }
        self
    }

    /// Box voting whatever the detector is.
    pub fn with_voting(self, config: &Config) -> Self {
        Self { merge: Merge::Voting(voting_of(config)), ..self }
    }

    /// Soft-NMS whatever the detector is.
    pub fn with_soft_nms(self, config: &Config) -> Self {
        Self { merge: Merge::Soft(soft_of(config)), ..self }
    }

    /// Makes all tests of one picture and merges them.
    ///
    /// # Errors
    /// Those of the network, or an interruption.
    pub fn predict(&self, detector: &dyn Detector, picture: &Picture) -> Result<Prediction> {
        predict_multiscale(detector, picture, &self.scales, &self.merge)
    }
}

/// Shorter and longer side of the detector's own input.
fn sides(config: &Config) -> (usize, usize) {
    let (height, width) = config.input();
    (height.min(width), height.max(width))
}

/// What the sides of an input have to be multiples of.
fn step_of(config: &Config) -> std::result::Result<usize, ConfigError> {
    match config {
        Config::Refinedet(refinedet) => Ok(refinedet.coarsest_stride()),
        Config::M2det(_) => Ok(16),
        Config::Retinanet(_) | Config::Fcos(_) | Config::Yolov3(_) | Config::Darknet(_) | Config::Rcnn(_) => Ok(32),
        Config::Ssd(_) => Err(ConfigError::BadValue {
            key: "multi-scale".to_string(),
            value: config.arch().to_string(),
            reason: "SSD's priors belong to its one input size".to_string(),
        }),
    }
}

fn rounded(side: f32, step: usize) -> usize {
    ((side / step as f32).round() as usize).max(1) * step
}

/// Whether the network has a map at every scale for an input of this side.
fn fits(config: &Config, side: usize) -> bool {
    match config {
        Config::M2det(m2det) => encoder_fits(m2det, side),
        _ => true,
    }
}

/// The last convolution of a U-shape module's encoder has no padding and needs a map of three pixels.
fn encoder_fits(config: &M2detConfig, side: usize) -> bool {
    let halvings = config.scales.saturating_sub(2);
    let finest = side / if config.dense { 4 } else { 8 };
    (0..halvings).fold(finest, |map, _| map.div_ceil(2)) >= 3
}

fn merge_of(config: &Config) -> Merge {
    match config {
        Config::M2det(m2det) if m2det.soft_nms => Merge::Soft(soft_of(config)),
        _ => Merge::Voting(voting_of(config)),
    }
}

fn voting_of(config: &Config) -> Voting {
    if config.classes().len() == 80 { Voting::COCO } else { Voting::VOC }
}

fn soft_of(config: &Config) -> SoftSuppression {
    match config {
        Config::M2det(m2det) => SoftSuppression {
            iou_threshold: m2det.soft_threshold,
            decay: m2det.soft_decay,
            floor: m2det.soft_floor,
            max_detections: Voting::VOC.max_detections,
        },
        // RefineDet's COCO evaluation: linear from an IoU of 0.3 on
        _ => SoftSuppression {
            iou_threshold: 0.3,
            decay: Decay::Linear,
            floor: 0.01,
            max_detections: Voting::VOC.max_detections,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Arch;
    use crate::detect::names::names_for;

    fn config(arch: Arch, classes: usize) -> Config {
        Config::new(arch, &names_for(classes))
    }

    fn extents(plan: &Plan) -> Vec<Extent> {
        plan.scales.iter().map(|scale| scale.extent).collect()
    }

    #[test]
    fn refinedet_is_tested_as_its_authors_did() {
        let coco = Plan::published(&config(Arch::Refinedet320, 80)).unwrap();
        assert_eq!((coco.scales.len(), coco.merge), (9, Merge::Voting(Voting::COCO)));
        let voc = Plan::published(&config(Arch::Refinedet320, 20)).unwrap();
        assert_eq!((voc.scales.len(), voc.merge), (8, Merge::Voting(Voting::VOC)));
        assert!(voc.scales.iter().all(|s| s.flip) && voc.without_flip().scales.iter().all(|s| !s.flip));
    }

    #[test]
    fn others_are_tested_around_their_own_size() {
        let m2det = Plan::published(&config(Arch::M2det512, 80)).unwrap();
        assert_eq!(extents(&m2det), [384, 512, 640, 768].map(Extent::Square));
        assert!(matches!(m2det.merge, Merge::Soft(_)));
        // at 240 pixels the encoder's last map but one has 2 cells: 30, 15, 8, 4, 2
        let small = Plan::published(&config(Arch::M2det320, 80)).unwrap();
        assert_eq!(extents(&small), [320, 400, 480].map(Extent::Square));
        let nano = Plan::published(&config(Arch::RetinanetNano, 8)).unwrap();
        let (short, long) = sides(&config(Arch::RetinanetNano, 8));
        assert!(extents(&nano).contains(&Extent::Oblong { long, short }));
        assert!(nano.scales.len() >= 3);
    }

    #[test]
    fn sizes_that_a_network_does_not_take_are_refused_with_those_that_it_does() {
        let yolo = config(Arch::Yolov3, 80);
        assert_eq!(extents(&Plan::of_sides(&yolo, &[320, 608]).unwrap()), [320, 608].map(Extent::Square));
        let text = Plan::of_sides(&yolo, &[300]).unwrap_err().to_string();
        assert!(text.contains("multiples of 32") && text.contains("300"), "{text}");
        assert!(Plan::of_sides(&yolo, &[]).is_err() && Plan::of_sides(&yolo, &[64; 33]).is_err());
        assert!(Plan::of_sides(&config(Arch::M2det320, 80), &[240]).is_err());
        let text = Plan::published(&config(Arch::Ssd300, 20)).unwrap_err().to_string();
        assert!(text.contains("ssd300"), "{text}");
        let soft = Plan::of_sides(&yolo, &[416]).unwrap().with_soft_nms(&yolo);
        assert!(matches!(soft.merge, Merge::Soft(_)));
        assert!(matches!(soft.with_voting(&yolo).merge, Merge::Voting(_)));
    }
}
