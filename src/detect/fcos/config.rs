//! FCOS's settings: torchvision's published network and a narrow one for two CPU cores.

use crate::detect::Arch;
use crate::detect::retinanet::{ClassLayout, TowerConfig, backbone_maps, grid, imagenet, published_level};
use crate::geometry::anchors::{AnchorOrder, AnchorSpec};
use crate::imaging::preprocess::{Fit, Preprocess};
use crate::nn::backbone::resnet::{Depth, Norm, ResNetConfig, StrideStyle};
use crate::nn::neck::fpn::{ExtraLevels, FpnConfig};
use crate::trace::Anchors;
use serde::{Deserialize, Serialize};

/// How the four numbers of the head become distances to a box's sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DistanceCode {
    /// max(x, 0) times the stride: torchvision, mmdet's improved settings.
    StrideRelu,
    /// e^x in pixels: the paper, mmdet's base settings.
    PixelExp,
}

/// Loss between predicted and wanted box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BoxLoss {
    /// 1 − GIoU: torchvision, mmdet's improved settings.
    Giou,
    /// −ln IoU: the paper, mmdet's base settings.
    Iou,
}

/// How class probability and centre-ness make a score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScoreRule {
    /// Root of the product; the threshold and the best of a level go by it (torchvision).
    GeometricMean,
    /// The product; the threshold and the best of a level go by the class probability alone (the paper, mmdet).
    Product,
}

/// Everything that defines an FCOS but its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FcosConfig {
    pub arch: Arch,
    /// Height and width of the input for a picture of 4:3, pixels.
    pub input: (usize, usize),
    /// Number of the backbone's finest map in the pyramid: C3 at stride 8 as published, or C2 at stride 4.
    #[serde(default = "published_level")]
    pub finest_level: usize,
    pub class_layout: ClassLayout,
    /// Where in its cell a point lies, in strides: 0 for the top left corner (torchvision), 0.5 for the middle (mmdet).
    pub center: f32,
    /// Points as far apart as ⌊input / map⌋ (torchvision) instead of 8, 16, 32, 64, 128 pixels (half that from C2 on).
    pub integer_strides: bool,
    /// A point is positive within this many strides of an object's centre, on both axes; 0 takes the whole box.
    pub center_radius: f32,
    /// Between each two levels: the distance in pixels from a point to the farthest side of its box that parts them.
    pub range_limits: Vec<f32>,
    /// Whether a distance that equals a limit belongs to both levels (mmdet) or to none (torchvision).
    pub inclusive_ranges: bool,
    pub distance_code: DistanceCode,
    /// A learned factor for each level on the numbers of the box head (the paper, mmdet).
    pub level_scales: bool,
    /// Centre-ness from the box tower (torchvision, mmdet's improved settings) or from the class tower (the paper).
    pub centerness_on_regression: bool,
    /// α of the focal loss: weight of the positives, 1 − α that of the negatives.
    pub focal_alpha: f32,
    /// γ of the focal loss.
    pub focal_gamma: f32,
    /// π: the probability that an untrained network gives to every class.
    pub prior: f32,
    pub box_loss: BoxLoss,
    /// Weigh each box loss by its point's true centre-ness (the paper, mmdet).
    pub centerness_weighted: bool,
    pub score: ScoreRule,
    /// What the threshold and the best of a level go by must be above this.
    pub score_threshold: f32,
    /// Candidates, that is pairs of point and class, kept per level before suppression.
    pub top_k_per_level: usize,
    /// IoU above which the lower-scored box of a class is suppressed.
    pub nms_threshold: f32,
    pub max_detections: usize,
    /// Class names, background excluded.
    pub classes: Vec<String>,
    pub towers: TowerConfig,
    pub backbone: ResNetConfig,
    pub neck: FpnConfig,
    pub preprocess: Preprocess,
}

impl FcosConfig {
    /// FCOS with ResNet-50 as torchvision's `fcos_resnet50_fpn`.
    pub fn r50(classes: &[String]) -> Self {
        Self {
            arch: Arch::FcosR50,
            input: (800, 1088),
            finest_level: published_level(),
            class_layout: ClassLayout::UnusedFirst,
            center: 0.0,
            integer_strides: true,
            center_radius: 1.5,
            range_limits: vec![64.0, 128.0, 256.0, 512.0],
            inclusive_ranges: false,
            distance_code: DistanceCode::StrideRelu,
            level_scales: false,
            centerness_on_regression: true,
            focal_alpha: 0.25,
            focal_gamma: 2.0,
            prior: 0.01,
            box_loss: BoxLoss::Giou,
            centerness_weighted: false,
            score: ScoreRule::GeometricMean,
            score_threshold: 0.2,
            top_k_per_level: 1000,
            nms_threshold: 0.6,
            max_detections: 100,
            classes: classes.to_vec(),
            towers: TowerConfig { convs: 4, groups: 32, bias: true },
            backbone: ResNetConfig {
                depth: Depth::R50,
                width: 64,
                style: StrideStyle::Pytorch,
                norm: Norm::Frozen,
                epsilon: 1e-5,
                frozen_stages: 2,
            },
            neck: FpnConfig {
                channels: 256,
                extra: ExtraLevels::P6P7FromP5,
                relu_before_p7: true,
                pyramid_norm: false,
            },
            preprocess: imagenet(Fit::ShortestEdge { short: 800, long: 1333, divisor: 32 }),
        }
    }

    /// The same parts, narrow and with trained batch norm, at 256×192 px: trains in minutes on two CPU cores. Objects are
    /// small there, so the pyramid begins at stride 4; a level's objects are up to six strides long, and points lie in
    /// the middle of their cells.
    pub fn nano(classes: &[String]) -> Self {
        Self {
            arch: Arch::FcosNano,
            input: (192, 256),
            finest_level: 2,
            class_layout: ClassLayout::Contiguous,
            center: 0.5,
            integer_strides: false,
            range_limits: vec![12.0, 24.0, 48.0, 96.0],
            inclusive_ranges: true,
            towers: TowerConfig { convs: 2, groups: 8, bias: false },
            backbone: ResNetConfig {
                depth: Depth::R18,
                width: 12,
                style: StrideStyle::Pytorch,
                norm: Norm::Trained,
                epsilon: 1e-5,
                frozen_stages: 0,
            },
            neck: FpnConfig { channels: 40, extra: ExtraLevels::MaxPool, relu_before_p7: true, pyramid_norm: false },
            preprocess: imagenet(Fit::Stretch { width: 256, height: 192 }),
            ..Self::r50(classes)
        }
    }

    /// Levels of the pyramid: from the finest to P5, and the coarser ones.
    pub fn levels(&self) -> usize {
        backbone_maps(self.finest_level) + self.neck.extra.count()
    }

    /// Logits of one point.
    pub fn logits(&self) -> usize {
        self.class_layout.logits(self.classes.len())
    }

    /// The points in the order of the head's rows, for an input (height, width) and maps of (rows, columns), finest
    /// first: each as the square of its stride (8, 16, 32, … pixels) around it, which is its level's unit of length.
    pub fn points_on(&self, input: (usize, usize), maps: &[(usize, usize)]) -> Anchors {
        let sides = std::iter::successors(Some((self.finest_level as f32).exp2()), |side| Some(side * 2.0));
        let spec = AnchorSpec {
            sizes: sides.take(maps.len()).map(|side| vec![side]).collect(),
            aspect_ratios: vec![1.0],
            order: AnchorOrder::RatioMajor,
            rounded: false,
            center: self.center,
        };
        grid(&spec, self.finest_level, self.integer_strides, input, maps)
    }

    /// Shortest and longest distance, in pixels, from a point to the farthest side of a box that is this level's.
    pub fn range(&self, level: usize) -> (f32, f32) {
        let limit = |index: usize| self.range_limits.get(index).copied();
        let low = level.checked_sub(1).and_then(limit).unwrap_or(0.0);
        (low, limit(level).unwrap_or(f32::INFINITY))
    }

    /// Pixels that a predicted distance of 1 means at a point whose square has this side.
    pub fn unit(&self, side: f32) -> f32 {
        match self.distance_code {
            DistanceCode::StrideRelu => side,
            DistanceCode::PixelExp => 1.0,
        }
    }
}

/// The narrow network on P3 to P7 with a quarter of the published ranges, for tests that count by hand.
#[cfg(test)]
pub(super) fn from_p3(classes: &[String]) -> FcosConfig {
    let nano = FcosConfig::nano(classes);
    FcosConfig {
        finest_level: 3,
        range_limits: vec![16.0, 32.0, 64.0, 128.0],
        neck: FpnConfig { extra: ExtraLevels::P6P7FromP5, ..nano.neck },
        ..nano
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::BBox;

    #[test]
    fn points_are_squares_of_their_stride() {
        let r50 = FcosConfig::r50(&[]);
        let points = r50.points_on((800, 1056), &[(100, 132), (50, 66), (25, 33), (13, 17), (7, 9)]);
        // the reference's fixture has 17609 points
        assert_eq!(points.boxes.len(), 17_609);
        assert_eq!(points.boxes[0], BBox::new(-4.0, -4.0, 4.0, 4.0));
        assert_eq!(points.boxes[133].center(), (8.0, 8.0));
        // P6: ⌊1056 / 17⌋ across and ⌊800 / 13⌋ down, but 64 wide
        let p6 = &points.boxes[points.levels[3].start + 18];
        assert_eq!((p6.center(), p6.width()), ((62.0, 61.0), 64.0));
        let nano = FcosConfig::nano(&[]);
        let points = nano.points_on((192, 256), &[(48, 64), (24, 32), (12, 16), (6, 8), (3, 4)]);
        assert_eq!((points.boxes[0].center(), points.boxes[0].width()), ((2.0, 2.0), 4.0));
        assert_eq!(points.levels.iter().map(|l| l.per_cell).collect::<Vec<_>>(), [1; 5]);
    }

    #[test]
    fn ranges_tile_all_distances() {
        let config = FcosConfig::r50(&[]);
        let ranges: Vec<(f32, f32)> = (0..config.levels()).map(|level| config.range(level)).collect();
        let infinity = f32::INFINITY;
        assert_eq!(ranges, [(0.0, 64.0), (64.0, 128.0), (128.0, 256.0), (256.0, 512.0), (512.0, infinity)]);
    }
}
