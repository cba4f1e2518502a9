//! RetinaNet's settings: torchvision's published network and a narrow one for two CPU cores.

use crate::detect::Arch;
use crate::geometry::anchors::{AnchorOrder, AnchorSpec, integer_strides};
use crate::geometry::coder::BoxCoder;
use crate::imaging::preprocess::{ChannelOrder, Fit, Preprocess};
use crate::nn::backbone::resnet::{Depth, Norm, ResNetConfig, StrideStyle};
use crate::nn::neck::fpn::{ExtraLevels, FpnConfig};
use crate::trace::{AnchorLevel, Anchors};
use serde::{Deserialize, Serialize};

/// Which class each of an anchor's logits stands for. There is no background: a box of no class has all logits low.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClassLayout {
    /// Logit k is class k: the paper, detectron2, mmdet, yhenon.
    Contiguous,
    /// Logit k + 1 is class k; logit 0 only ever learns to be low and is not reported. torchvision, whose logits count
    /// COCO's category ids from 0.
    UnusedFirst,
}

impl ClassLayout {
    /// The logit of class 0.
    pub fn first(self) -> usize {
        match self {
            Self::Contiguous => 0,
            Self::UnusedFirst => 1,
        }
    }

    /// Logits of one anchor for so many classes.
    pub fn logits(self, classes: usize) -> usize {
        classes + self.first()
    }
}

/// What the losses summed over anchors are divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Normalizer {
    /// Each image's sum by its own positives, at least 1; then the mean over the images (torchvision, yhenon).
    PerImage,
    /// The batch's sum by its positives, at least 1 (the paper, FCOS).
    Batch,
    /// The batch's sum by its positives, an image without any counting 1 (mmdet).
    BatchOfImages,
}

impl Normalizer {
    /// For each image with so many positives, the divisor of its sum; the quotients add up to the batch's loss.
    pub fn divisors(self, positives: &[usize]) -> Vec<f32> {
        let images = positives.len();
        let at_least_one = |count: &usize| (*count).max(1);
        match self {
            Self::PerImage => positives.iter().map(|count| (at_least_one(count) * images) as f32).collect(),
            Self::Batch => vec![positives.iter().sum::<usize>().max(1) as f32; images],
            Self::BatchOfImages => vec![positives.iter().map(at_least_one).sum::<usize>() as f32; images],
        }
    }
}

/// Loss between predicted and wanted boxes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RegressionLoss {
    /// Of the codes, with `smooth_l1_beta` (the paper, torchvision's first version, detectron2, mmdet, yhenon).
    #[default]
    SmoothL1,
    /// 1 − GIoU of the decoded boxes (torchvision's second version).
    Giou,
}

/// The 3×3 convolutions before an output, each with ReLU, shared by all levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TowerConfig {
    pub convs: usize,
    /// Groups of the group norm after each convolution; 0 for no norm.
    pub groups: usize,
    /// Whether the convolutions have a bias.
    pub bias: bool,
}

/// Everything that defines a RetinaNet but its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetinanetConfig {
    pub arch: Arch,
    /// Height and width of the input for a picture of 4:3, pixels.
    pub input: (usize, usize),
    /// Number of the backbone's finest map in the pyramid: C3 at stride 8 as published, or C2 at stride 4.
    #[serde(default = "published_level")]
    pub finest_level: usize,
    pub class_layout: ClassLayout,
    /// Cells as far apart as ⌊input / map⌋ (torchvision) instead of 8, 16, 32, 64, 128 pixels (half that from C2 on).
    pub integer_strides: bool,
    /// IoU from which an anchor is positive.
    pub positive_threshold: f32,
    /// IoU below which it is background; between the two it is ignored.
    pub negative_threshold: f32,
    /// Make every anchor that ties for the best of an object positive, whatever its IoU.
    pub low_quality_matches: bool,
    /// Deviations of dx, dy, dw, dh.
    pub coder_std: [f32; 4],
    /// α of the focal loss: weight of the positives, 1 − α that of the negatives.
    pub focal_alpha: f32,
    /// γ of the focal loss.
    pub focal_gamma: f32,
    /// π: the probability that an untrained network gives to every class.
    pub prior: f32,
    /// Where smooth-L1 turns from quadratic to linear; 0 is L1.
    pub smooth_l1_beta: f32,
    #[serde(default)]
    pub regression_loss: RegressionLoss,
    /// Weight of the box loss.
    pub box_weight: f32,
    pub normalizer: Normalizer,
    /// Detections at or below this score are dropped.
    pub score_threshold: f32,
    /// Candidates, that is pairs of anchor and class, kept per level before suppression.
    pub top_k_per_level: usize,
    /// IoU above which the lower-scored box of a class is suppressed.
    pub nms_threshold: f32,
    pub max_detections: usize,
    /// Class names, background excluded.
    pub classes: Vec<String>,
    pub towers: TowerConfig,
    pub anchors: AnchorSpec,
    pub backbone: ResNetConfig,
    pub neck: FpnConfig,
    pub preprocess: Preprocess,
}

impl RetinanetConfig {
    /// RetinaNet with ResNet-50 as torchvision's `retinanet_resnet50_fpn` (first weights).
    pub fn r50(classes: &[String]) -> Self {
        Self {
            arch: Arch::RetinanetR50,
            input: (800, 1088),
            finest_level: published_level(),
            class_layout: ClassLayout::UnusedFirst,
            integer_strides: true,
            positive_threshold: 0.5,
            negative_threshold: 0.4,
            low_quality_matches: true,
            coder_std: [1.0; 4],
            focal_alpha: 0.25,
            focal_gamma: 2.0,
            prior: 0.01,
            smooth_l1_beta: 0.0,
            regression_loss: RegressionLoss::SmoothL1,
            box_weight: 1.0,
            normalizer: Normalizer::PerImage,
            score_threshold: 0.05,
            top_k_per_level: 1000,
            nms_threshold: 0.5,
            max_detections: 300,
            classes: classes.to_vec(),
            towers: TowerConfig { convs: 4, groups: 0, bias: true },
            anchors: AnchorSpec::torchvision_retinanet(),
            backbone: ResNetConfig {
                depth: Depth::R50,
                width: 64,
                style: StrideStyle::Pytorch,
                norm: Norm::Frozen,
                epsilon: 0.0,
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

    /// RetinaNet with ResNet-50 as torchvision's `retinanet_resnet50_fpn_v2`: group norm in the towers, P6 from C5, a
    /// GIoU loss, and batch norm that trains.
    pub fn r50_v2(classes: &[String]) -> Self {
        let first = Self::r50(classes);
        Self {
            arch: Arch::RetinanetR50V2,
            regression_loss: RegressionLoss::Giou,
            towers: TowerConfig { convs: 4, groups: 32, bias: false },
            backbone: ResNetConfig { norm: Norm::Trained, epsilon: 1e-5, ..first.backbone },
            neck: FpnConfig { extra: ExtraLevels::P6P7FromC5, ..first.neck },
            ..first
        }
    }

    /// RetinaNet of another depth, with the paper's settings: no logit without a class, P6 from C5, anchors that are
    /// not rounded. For ResNet-50 it is [`Self::r50`].
    pub fn of_depth(depth: Depth, classes: &[String]) -> Self {
        let first = Self::r50(classes);
        let arch = match depth {
            Depth::R18 => Arch::RetinanetR18,
            Depth::R34 => Arch::RetinanetR34,
            // MobileNetV2 has no name of its own
            Depth::R50 | Depth::MobileV2 => return first,
            Depth::R101 => Arch::RetinanetR101,
            Depth::R152 => Arch::RetinanetR152,
        };
        Self {
            arch,
            class_layout: ClassLayout::Contiguous,
            integer_strides: false,
            normalizer: Normalizer::Batch,
            max_detections: 100,
            anchors: AnchorSpec::mmdet_retinanet(),
            backbone: ResNetConfig { depth, epsilon: 1e-5, ..first.backbone },
            neck: FpnConfig { extra: ExtraLevels::P6P7FromC5, ..first.neck },
            ..first
        }
    }

    /// The same parts, narrow, with batch norm and group norm trained from scratch, at 256×192 px: trains in minutes on
    /// two CPU cores. Objects are small there, so the pyramid begins at stride 4, and six anchors a cell are two and a
    /// half to three and a half strides long: from 10 to 226 px, each object has one that overlaps it by half.
    pub fn nano(classes: &[String]) -> Self {
        let octaves = |stride: f32| vec![2.5 * stride, 2.5 * std::f32::consts::SQRT_2 * stride];
        Self {
            arch: Arch::RetinanetNano,
            input: (192, 256),
            finest_level: 2,
            class_layout: ClassLayout::Contiguous,
            integer_strides: false,
            coder_std: [0.1, 0.1, 0.2, 0.2],
            smooth_l1_beta: 1.0 / 9.0,
            normalizer: Normalizer::Batch,
            max_detections: 100,
            towers: TowerConfig { convs: 2, groups: 8, bias: false },
            anchors: AnchorSpec {
                sizes: [4.0, 8.0, 16.0, 32.0, 64.0].map(octaves).to_vec(),
                aspect_ratios: vec![0.6, 1.0, 1.67],
                order: AnchorOrder::RatioMajor,
                rounded: false,
                center: 0.5,
            },
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

    /// Anchors of one cell, the same on every level.
    pub fn anchors_per_cell(&self) -> usize {
        self.anchors.per_cell(0)
    }

    /// Logits of one anchor.
    pub fn logits(&self) -> usize {
        self.class_layout.logits(self.classes.len())
    }

    /// The box code, its sides limited as in torchvision.
    pub fn coder(&self) -> BoxCoder {
        BoxCoder { std: self.coder_std, ..BoxCoder::RETINA }
    }

    /// Anchors in the order of the head's rows, for an input (height, width) and maps of (rows, columns), finest first.
    pub fn anchors_on(&self, input: (usize, usize), maps: &[(usize, usize)]) -> Anchors {
        grid(&self.anchors, self.finest_level, self.integer_strides, input, maps)
    }
}

/// C3.
pub(in crate::detect) fn published_level() -> usize {
    3
}

/// Maps of the backbone from number `finest` to C5; none for a number that there is not.
pub(in crate::detect) fn backbone_maps(finest: usize) -> usize {
    if (2..=5).contains(&finest) { 6 - finest } else { 0 }
}

/// Anchors of `spec` on maps from number `finest` on.
pub(in crate::detect) fn grid(
    spec: &AnchorSpec,
    finest: usize,
    integer: bool,
    input: (usize, usize),
    maps: &[(usize, usize)],
) -> Anchors {
    let strides: Vec<(f32, f32)> = if integer {
        integer_strides(input, maps)
    } else {
        let powers = std::iter::successors(Some((finest as f32).exp2()), |stride| Some(stride * 2.0));
        powers.take(maps.len()).map(|stride| (stride, stride)).collect()
    };
    let mut start = 0;
    let mut levels = Vec::with_capacity(maps.len());
    for (level, (&(rows, columns), &(_, stride))) in maps.iter().zip(&strides).enumerate() {
        let per_cell = spec.per_cell(level);
        let len = rows * columns * per_cell;
        levels.push(AnchorLevel { start, len, rows, columns, per_cell, stride });
        start += len;
    }
    Anchors { boxes: spec.grid_anchors(maps, &strides), levels }
}

/// RGB with ImageNet's mean and deviation.
pub(in crate::detect) fn imagenet(fit: Fit) -> Preprocess {
    Preprocess { fit, order: ChannelOrder::Rgb, mean: [123.675, 116.28, 103.53], std: [58.395, 57.12, 57.375] }
}

/// The narrow network on P3 to P7 with nine anchors a cell of 8 px and more, for tests that count by hand.
#[cfg(test)]
pub(super) fn nine_anchors(classes: &[String]) -> RetinanetConfig {
    let octaves = |base: f32| [0.0, 1.0, 2.0].map(|third: f32| base * (third / 3.0).exp2()).to_vec();
    let nano = RetinanetConfig::nano(classes);
    RetinanetConfig {
        finest_level: 3,
        anchors: AnchorSpec {
            sizes: [8.0, 16.0, 32.0, 64.0, 128.0].map(octaves).to_vec(),
            aspect_ratios: vec![0.5, 1.0, 2.0],
            ..nano.anchors
        },
        neck: FpnConfig { extra: ExtraLevels::P6P7FromP5, ..nano.neck },
        ..nano
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_grid_has_the_published_number_of_anchors() {
        let config = RetinanetConfig::r50(&[]);
        let maps = [(100, 168), (50, 84), (25, 42), (13, 21), (7, 11)];
        let anchors = config.anchors_on((800, 1344), &maps);
        // 9 · (16800 + 4200 + 1050 + 273 + 77)
        assert_eq!(anchors.boxes.len(), 201_600);
        assert_eq!(anchors.levels.iter().map(|l| l.start + l.len).next_back(), Some(201_600));
        assert_eq!(anchors.level_of(9 * 16_800), Some(1));
        // ⌊1344 / 21⌋ and ⌊1344 / 11⌋
        let strides: Vec<f32> = anchors.levels.iter().map(|l| l.stride).collect();
        assert_eq!(strides, [8.0, 16.0, 32.0, 64.0, 122.0]);
        let config = RetinanetConfig { integer_strides: false, ..config };
        assert_eq!(config.anchors_on((800, 1344), &maps).levels[4].stride, 128.0);
    }

    #[test]
    fn divisors_are_those_of_each_implementation() {
        let positives = [4, 0, 2];
        // torchvision: Σ sumᵢ / max(1, nᵢ) / 3
        assert_eq!(Normalizer::PerImage.divisors(&positives), [12.0, 3.0, 6.0]);
        assert_eq!(Normalizer::Batch.divisors(&positives), [6.0; 3]);
        assert_eq!(Normalizer::BatchOfImages.divisors(&positives), [7.0; 3]);
        assert_eq!(Normalizer::Batch.divisors(&[0, 0]), [1.0; 2]);
        assert!(Normalizer::PerImage.divisors(&[]).is_empty());
    }

    #[test]
    fn depths_and_versions_differ_where_the_publications_do() {
        let classes = vec!["a".to_string()];
        let v2 = RetinanetConfig::r50_v2(&classes);
        assert_eq!((v2.neck.extra, v2.towers.groups, v2.logits()), (ExtraLevels::P6P7FromC5, 32, 2));
        assert_eq!((v2.regression_loss, v2.backbone.depth), (RegressionLoss::Giou, Depth::R50));
        for (depth, channels) in [(Depth::R18, 512), (Depth::R34, 512), (Depth::R101, 2048), (Depth::R152, 2048)] {
            let config = RetinanetConfig::of_depth(depth, &classes);
            assert_eq!((config.backbone.channels()[3], config.logits()), (channels, 1));
            assert_eq!(config.arch.name().parse::<Arch>().unwrap(), config.arch);
        }
        assert_eq!(RetinanetConfig::of_depth(Depth::R50, &classes), RetinanetConfig::r50(&classes));
    }

    #[test]
    fn nano_fits_its_input_and_its_classes() {
        let classes = vec!["a".to_string(), "b".to_string()];
        let config = RetinanetConfig::nano(&classes);
        let largest = config.anchors.sizes.iter().flatten().copied().fold(0.0, f32::max);
        assert!((largest - 226.274).abs() < 1e-2, "{largest}");
        assert_eq!((config.logits(), config.anchors_per_cell(), config.levels()), (2, 6, 5));
        let anchors = config.anchors_on(config.input, &[(48, 64), (24, 32), (12, 16), (6, 8), (3, 4)]);
        assert_eq!(anchors.levels.iter().map(|l| l.stride).collect::<Vec<_>>(), [4.0, 8.0, 16.0, 32.0, 64.0]);
        assert_eq!(anchors.boxes[0].center(), (2.0, 2.0));
        assert_eq!(RetinanetConfig::r50(&classes).logits(), 3);
    }
}
