//! Faster, Mask and Cascade R-CNN as published by torchvision, mmdet and detectron2, and narrow for two CPU cores.

use super::config::{
    Background, Flow, LevelRule, MaskConfig, MaskTargets, Paste, Pooling, RcnnConfig, RoiSource, RpnConfig, ScoreMerge,
    StageConfig, Trunk,
};
use crate::detect::Arch;
use crate::geometry::anchors::{AnchorOrder, AnchorSpec};
use crate::imaging::preprocess::{ChannelOrder, Fit, Preprocess};
use crate::nn::backbone::resnet::{Depth, Norm, ResNetConfig, StrideStyle};
use crate::nn::neck::fpn::{ExtraLevels, FpnConfig};

/// Deviations of the first stage's box code (torchvision's weights 10, 10, 5, 5).
const STD: [f32; 4] = [0.1, 0.1, 0.2, 0.2];

/// The three stages of Cascade R-CNN (paper §4.2 and mmdet's weights of their losses).
const CASCADE: [StageConfig; 3] = [
    StageConfig { positive_iou: 0.5, std: STD, loss_weight: 1.0 },
    StageConfig { positive_iou: 0.6, std: [0.05, 0.05, 0.1, 0.1], loss_weight: 0.5 },
    StageConfig { positive_iou: 0.7, std: [0.033, 0.033, 0.067, 0.067], loss_weight: 0.25 },
];

impl RcnnConfig {
    /// Faster R-CNN with torchvision's settings and the ε of its first COCO weights (`fasterrcnn_resnet50_fpn`).
    pub fn faster(classes: &[String]) -> Self {
        Self {
            arch: Arch::FasterR50,
            input: (800, 1088),
            background: Background::First,
            class_agnostic: false,
            score_threshold: 0.05,
            nms_threshold: 0.5,
            max_detections: 100,
            detection_min_size: 1e-2,
            flow: Flow::Single,
            resample: true,
            refinements: 3,
            score_merge: ScoreMerge::LastHead,
            integral_thresholds: vec![0.5, 0.55, 0.6, 0.65, 0.7, 0.75],
            normalize_deltas: true,
            pooled_gradient: 1.0,
            trunk: Trunk::Pyramid,
            head_convolutions: 0,
            head_width: 1024,
            pooling: Pooling::Align,
            sampling_ratio: 2,
            pooled: 7,
            roi_levels: 4,
            canonical_size: 224.0,
            level_rule: LevelRule::AfterLogarithm,
            roi_samples: 512,
            roi_positive_share: 0.25,
            objects_as_rois: true,
            roi_source: RoiSource::Rpn,
            jittered_rois: 300,
            jitter: 0.5,
            roi_smooth_l1_beta: 1.0 / 9.0,
            classes: classes.to_vec(),
            backbone: ResNetConfig {
                depth: Depth::R50,
                width: 64,
                style: StrideStyle::Pytorch,
                norm: Norm::Frozen,
                epsilon: 0.0,
                frozen_stages: 2,
            },
            neck: FpnConfig { channels: 256, extra: ExtraLevels::MaxPool, relu_before_p7: false, pyramid_norm: false },
            rpn: RpnConfig {
                convolutions: 1,
                strides: vec![4.0, 8.0, 16.0, 32.0, 64.0],
                integer_strides: true,
                anchor_positive: 0.7,
                anchor_negative: 0.3,
                forced_minimum: 0.0,
                ignore_crossing: false,
                anchor_samples: 256,
                anchor_positive_share: 0.5,
                anchor_smooth_l1_beta: 1.0 / 9.0,
                train_per_level: 2000,
                train_proposals: 2000,
                test_per_level: 1000,
                test_proposals: 1000,
                proposal_nms: 0.7,
                proposal_min_size: 1e-3,
                anchors: AnchorSpec::torchvision_rpn(),
            },
            mask: None,
            preprocess: Preprocess {
                fit: Fit::ShortestEdge { short: 800, long: 1333, divisor: 32 },
                order: ChannelOrder::Rgb,
                mean: [0.485, 0.456, 0.406].map(|m: f32| m * 255.0),
                std: [0.229, 0.224, 0.225].map(|s: f32| s * 255.0),
            },
            stages: CASCADE.to_vec(),
        }
    }

    /// Mask R-CNN with torchvision's settings (`maskrcnn_resnet50_fpn`).
    pub fn mask(classes: &[String]) -> Self {
        Self {
            arch: Arch::MaskR50,
            mask: Some(MaskConfig {
                mask_pooled: 14,
                mask_convolutions: 4,
                mask_norm: false,
                mask_width: 256,
                mask_per_stage: false,
                mask_targets: MaskTargets::Covered,
                paste: Paste::WholePixels,
                mask_threshold: 0.5,
            }),
            ..Self::faster(classes)
        }
    }

    /// Cascade R-CNN with mmdet's settings (`cascade-rcnn_r50_fpn_1x_coco`).
    pub fn cascade(classes: &[String]) -> Self {
        let faster = Self::faster(classes);
        Self {
            arch: Arch::CascadeR50,
            background: Background::Last,
            class_agnostic: true,
            detection_min_size: 0.0,
            flow: Flow::Cascade,
            score_merge: ScoreMerge::Logits,
            pooling: Pooling::AlignShifted,
            sampling_ratio: 0,
            level_rule: LevelRule::BeforeLogarithm,
            roi_smooth_l1_beta: 1.0,
            backbone: ResNetConfig { epsilon: 1e-5, ..faster.backbone },
            rpn: RpnConfig {
                integer_strides: false,
                forced_minimum: 0.3,
                ignore_crossing: true,
                proposal_min_size: 0.0,
                anchors: AnchorSpec::float_rpn(),
                ..faster.rpn
            },
            preprocess: Preprocess {
                fit: Fit::ShortestEdgeRounded { short: 800, long: 1333, divisor: 32 },
                mean: [123.675, 116.28, 103.53],
                std: [58.395, 57.12, 57.375],
                order: ChannelOrder::Rgb,
            },
            ..faster
        }
    }

    /// Cascade Mask R-CNN with mmdet's settings: a mask head for each stage.
    pub fn cascade_mask(classes: &[String]) -> Self {
        let mask = Self::mask(classes).mask.map(|mask| MaskConfig {
            mask_per_stage: true,
            mask_targets: MaskTargets::Majority,
            paste: Paste::PixelCenters,
            ..mask
        });
        Self { arch: Arch::CascadeMaskR50, mask, ..Self::cascade(classes) }
    }

    /// Faster R-CNN of torchvision's second version (`fasterrcnn_resnet50_fpn_v2`).
    pub fn faster_v2(classes: &[String]) -> Self {
        Self { arch: Arch::FasterR50V2, ..Self::faster(classes).second() }
    }

    /// Mask R-CNN of torchvision's second version (`maskrcnn_resnet50_fpn_v2`).
    pub fn mask_v2(classes: &[String]) -> Self {
        Self { arch: Arch::MaskR50V2, ..Self::mask(classes).second() }
    }

    /// torchvision's second version of these settings: batch norm that learns all over, in the RPN a second convolution,
    /// in the box head four and one fully connected layer (after Li et al., "Benchmarking Detection Transfer Learning
    /// with Vision Transformers", 2021).
    pub fn second(self) -> Self {
        Self {
            head_convolutions: 4,
            backbone: ResNetConfig { norm: Norm::Trained, epsilon: 1e-5, ..self.backbone },
            neck: FpnConfig { pyramid_norm: true, ..self.neck },
            rpn: RpnConfig { convolutions: 2, ..self.rpn },
            mask: self.mask.map(|mask| MaskConfig { mask_norm: true, ..mask }),
            ..self
        }
    }

    /// These settings on another ResNet, as `arch`.
    pub fn of_depth(self, arch: Arch, depth: Depth) -> Self {
        Self { arch, backbone: ResNetConfig { depth, epsilon: 1e-5, ..self.backbone }, ..self }
    }

    /// Faster R-CNN on C4 with detectron2's settings (`faster_rcnn_R_50_C4`): 15 anchors a cell, and the ResNet's last
    /// stage as the box head.
    pub fn c4(classes: &[String]) -> Self {
        let faster = Self::faster(classes);
        Self {
            arch: Arch::FasterR50C4,
            input: (800, 1067),
            background: Background::Last,
            detection_min_size: 0.0,
            trunk: Trunk::C4,
            pooling: Pooling::AlignShifted,
            sampling_ratio: 0,
            pooled: 14,
            roi_levels: 1,
            roi_smooth_l1_beta: 0.0,
            backbone: ResNetConfig { style: StrideStyle::Caffe, epsilon: 1e-5, ..faster.backbone },
            rpn: RpnConfig {
                strides: vec![16.0],
                integer_strides: false,
                anchor_smooth_l1_beta: 0.0,
                train_per_level: 12_000,
                test_per_level: 6000,
                proposal_min_size: 0.0,
                anchors: AnchorSpec {
                    sizes: vec![vec![32.0, 64.0, 128.0, 256.0, 512.0]],
                    order: AnchorOrder::SizeMajor,
                    ..AnchorSpec::float_rpn()
                },
                ..faster.rpn
            },
            preprocess: Preprocess {
                fit: Fit::ShortestEdgeAntialias { short: 800, long: 1333, divisor: 1 },
                order: ChannelOrder::Bgr,
                mean: [103.53, 116.28, 123.675],
                std: [1.0; 3],
            },
            ..faster
        }
    }

    /// Faster R-CNN on a narrow ResNet-18 at 256×192: trains in minutes on two CPU cores. 0.7 million parameters.
    pub fn faster_nano(classes: &[String]) -> Self {
        Self { arch: Arch::FasterNano, ..Self::faster(classes).narrowed() }
    }

    /// The same with a mask branch of two narrow convolutions.
    pub fn mask_nano(classes: &[String]) -> Self {
        let full = Self::mask(classes);
        let mask = full.mask.map(|mask| MaskConfig { mask_convolutions: 2, mask_width: 24, ..mask });
        Self { arch: Arch::MaskNano, mask, max_detections: 50, ..full.narrowed() }
    }

    /// Cascade R-CNN of the same size; its three heads make it 0.9 million.
    pub fn cascade_nano(classes: &[String]) -> Self {
        Self { arch: Arch::CascadeNano, ..Self::cascade(classes).narrowed() }
    }

    /// The same topology for an input of 256×192: fewer channels and RoIs, batch norm that learns, and two anchor sizes
    /// an octave from 10 pixels on, so that hardly any object of 10 to 230 pixels is without an anchor of IoU 0.5.
    /// Anchors that cross the border learn too: of the large ones none lies inside so small a picture.
    fn narrowed(self) -> Self {
        Self {
            input: (192, 256),
            head_width: 48,
            canonical_size: 56.0,
            roi_samples: 64,
            backbone: ResNetConfig {
                depth: Depth::R18,
                width: 14,
                style: StrideStyle::Pytorch,
                norm: Norm::Trained,
                epsilon: 1e-5,
                frozen_stages: 0,
            },
            neck: FpnConfig { channels: 40, ..self.neck },
            rpn: RpnConfig {
                ignore_crossing: false,
                anchor_samples: 128,
                train_per_level: 500,
                train_proposals: 300,
                test_per_level: 200,
                test_proposals: 150,
                anchors: AnchorSpec {
                    sizes: [[10.0, 14.0], [20.0, 28.0], [40.0, 57.0], [80.0, 113.0], [160.0, 226.0]]
                        .map(|sizes| sizes.to_vec())
                        .to_vec(),
                    ..self.rpn.anchors
                },
                ..self.rpn
            },
            preprocess: Preprocess { fit: Fit::ShortestEdge { short: 192, long: 256, divisor: 32 }, ..self.preprocess },
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|k| format!("class {k}")).collect()
    }

    #[test]
    fn every_setting_makes_a_network_and_survives_toml() {
        for make in [
            RcnnConfig::faster,
            RcnnConfig::mask,
            RcnnConfig::cascade,
            RcnnConfig::cascade_mask,
            RcnnConfig::faster_v2,
            RcnnConfig::mask_v2,
            RcnnConfig::c4,
            RcnnConfig::faster_nano,
            RcnnConfig::mask_nano,
            RcnnConfig::cascade_nano,
        ] {
            let config = make(&names(3));
            assert!(config.check().is_ok(), "{:?}", config.arch);
            assert!(make(&[]).check().is_err());
            let text = toml::to_string(&config).unwrap();
            assert_eq!(toml::from_str::<RcnnConfig>(&text).unwrap(), config, "{text}");
        }
    }

    #[test]
    fn a_nano_keeps_the_kind_of_its_original() {
        let cascade = RcnnConfig::cascade_nano(&names(3));
        assert_eq!(
            (cascade.stages.len(), cascade.background, cascade.rpn.ignore_crossing),
            (3, Background::Last, false)
        );
        let mask = RcnnConfig::mask_nano(&names(3));
        assert_eq!(mask.mask.map(|m| (m.mask_targets, m.mask_width)), Some((MaskTargets::Covered, 24)));
        assert_eq!((mask.rpn.anchors.rounded, mask.rpn.anchors.sizes.len()), (true, 5));
    }

    #[test]
    fn versions_and_depths_differ_where_the_publications_do() {
        let second = RcnnConfig::mask_v2(&names(2));
        assert_eq!((second.arch, second.rpn.convolutions, second.head_convolutions), (Arch::MaskR50V2, 2, 4));
        assert!(second.neck.pyramid_norm && second.mask.is_some_and(|mask| mask.mask_norm));
        assert_eq!((second.backbone.norm, second.backbone.epsilon), (Norm::Trained, 1e-5));
        let deep = RcnnConfig::faster(&names(2)).of_depth(Arch::FasterR101, Depth::R101);
        assert_eq!((deep.arch, deep.backbone.depth, deep.backbone.epsilon), (Arch::FasterR101, Depth::R101, 1e-5));
        let c4 = RcnnConfig::c4(&names(2));
        assert_eq!((c4.rpn.anchors.per_cell(0), c4.regressed(), c4.background), (15, 2, Background::Last));
    }

    #[test]
    fn cascade_mask_rcnn_has_mmdets_masks() {
        let masks = RcnnConfig::cascade_mask(&names(2));
        assert_eq!((masks.arch, masks.heads()), (Arch::CascadeMaskR50, 3));
        assert!(masks.mask.is_some_and(|mask| mask.mask_per_stage && mask.mask_targets == MaskTargets::Majority));
        assert_eq!((masks.roi_smooth_l1_beta, masks.rpn.train_proposals, masks.rpn.ignore_crossing), (1.0, 2000, true));
    }
}
