//! What a YOLO layer learns: who is responsible for an object, the loss of each part, and how the parts are weighed.

use serde::{Deserialize, Serialize};

/// Which predictions are responsible for an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Assigner {
    /// The prior whose shape fits the object best among those of all levels, in the object's cell. Other predictions
    /// whose box overlaps an object by more than `ignore_threshold` are left out (paper §2.1, darknet).
    BestPrior,
    /// Every prior of the object's cells whose box overlaps it by more than `positive_threshold`, and the best of them
    /// in any case; background are the priors that overlap no object by more than `negative_threshold`, the rest is
    /// left out (mmdet's `GridAssigner`). With .7 and .3 these are the two thresholds that paper §4 tried and dropped.
    Grid,
}

/// What the first two numbers of a prediction mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Offsets {
    /// The logistic of the place within the cell, learnt by cross-entropy.
    Logistic,
    /// The place within the cell itself, in cells, learnt by squared error (paper §4, tried and dropped).
    Linear,
    /// The way from the middle of the cell in sides of the prior, learnt by squared error: the mechanism of region
    /// proposal networks (paper §4, tried and dropped).
    Anchor,
}

/// How boxes are learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Coordinates {
    /// Offsets and logarithms of the sides, each on its own.
    Parts,
    /// 1 − IoU.
    Iou,
    Giou,
    Diou,
    Ciou,
}

/// The loss of the objectness logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Objectness {
    CrossEntropy,
    /// With `focal_alpha` and `focal_gamma` (paper §4, tried and dropped).
    Focal,
}

/// What the sums are divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Normalizer {
    /// Nothing.
    Sum,
    /// The images of the batch: darknet's solver divides its learning rate by them.
    Images,
    /// The positives of the batch, at least 1.
    Positives,
}

/// The targets and losses of all YOLO layers of a network.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Objective {
    pub assigner: Assigner,
    /// Best prior: IoU with an object above which an unchosen prediction is no background (darknet's `ignore_thresh`).
    pub ignore_threshold: f32,
    /// Best prior: further priors whose shape has an IoU above this with the object learn it too; 1 for none (darknet's
    /// `iou_thresh`).
    pub shape_threshold: f32,
    /// Grid: IoU above which a prior of the object's cells is positive.
    pub positive_threshold: f32,
    /// Grid: IoU up to which a prior is background.
    pub negative_threshold: f32,
    pub coordinates: Coordinates,
    /// Whether the parts of a box weigh 2 − w·h, its area being a share of the input's: small boxes count more.
    pub scale_by_size: bool,
    pub objectness: Objectness,
    /// Weight of objects against background; negative for none.
    pub focal_alpha: f32,
    pub focal_gamma: f32,
    /// Weight of the offsets' cross-entropy, or of half their squared error where they are linear.
    pub xy_weight: f32,
    /// Weight of half the squared error of the sides' logarithms.
    pub wh_weight: f32,
    /// Weight of the overlap loss where boxes are learnt by one (darknet's `iou_normalizer`).
    pub box_weight: f32,
    pub objectness_weight: f32,
    pub class_weight: f32,
    pub normalizer: Normalizer,
}

impl Objective {
    /// `yolov3.cfg`'s, as the losses whose gradients darknet's deltas are.
    pub const DARKNET: Self = Self {
        assigner: Assigner::BestPrior,
        ignore_threshold: 0.7,
        shape_threshold: 1.0,
        positive_threshold: 0.5,
        negative_threshold: 0.5,
        coordinates: Coordinates::Parts,
        scale_by_size: true,
        objectness: Objectness::CrossEntropy,
        focal_alpha: 0.25,
        focal_gamma: 2.0,
        xy_weight: 1.0,
        wh_weight: 1.0,
        box_weight: 1.0,
        objectness_weight: 1.0,
        class_weight: 1.0,
        normalizer: Normalizer::Images,
    };

    /// mmdet's `yolov3_d53`: its squared error has weight 2 and no half. mmdet adds up the images of a device, which
    /// is the same for one image.
    pub const MMDET: Self =
        Self { assigner: Assigner::Grid, scale_by_size: false, xy_weight: 2.0, wh_weight: 4.0, ..Self::DARKNET };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_survive_toml() {
        let changed = Objective { coordinates: Coordinates::Ciou, objectness: Objectness::Focal, ..Objective::MMDET };
        for objective in [Objective::DARKNET, Objective::MMDET, changed] {
            let text = toml::to_string(&objective).unwrap();
            assert_eq!(toml::from_str::<Objective>(&text).unwrap(), objective, "{text}");
        }
        assert!(toml::to_string(&Objective::DARKNET).unwrap().contains("best-prior"));
    }
}
