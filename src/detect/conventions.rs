//! What another code base's weights expect beside their names: class order, anchors, channel order, thresholds.
//!
//! Weights of one implementation under the anchors or the normalisation of another detect badly without any error, so
//! everything that differs is set here, one function a family. The narrow networks of this program are never touched.

use super::Config;
use super::fcos::{BoxLoss, DistanceCode, FcosConfig, ScoreRule};
use super::implied::{SECOND_RCNN, depth_of};
use super::m2det::M2detConfig;
use super::rcnn::{
    Background, LevelRule, MaskConfig, MaskTargets, Paste, Pooling, RcnnConfig, RpnConfig, ScoreMerge, Trunk,
};
use super::refinedet::RefinedetConfig;
use super::retinanet::{ClassLayout, Normalizer, RegressionLoss, RetinanetConfig, TowerConfig, imagenet};
use super::ssd::SsdConfig;
use super::yolov3::Yolov3Config;
use crate::geometry::anchors::AnchorSpec;
use crate::geometry::priors::{PriorClip, PriorSpec};
use crate::imaging::preprocess::{ChannelOrder, Fit, Preprocess};
use crate::nn::backbone::resnet::{ResNetConfig, StrideStyle};
use crate::nn::neck::fpn::{ExtraLevels, FpnConfig};
use crate::weights::{Checkpoint, Layout};

/// `config` as the (translated) checkpoint's code base has it. Where the names are this program's own or unknown, it
/// comes back as it is.
pub fn adapted(config: Config, checkpoint: &Checkpoint) -> Config {
    let Some(layout) = checkpoint.layout() else {
        return config;
    };
    if config.arch().name().ends_with("-nano") {
        return config;
    }
    match config {
        Config::Ssd(ssd) => Config::Ssd(ssd_of(ssd, layout)),
        Config::Retinanet(retinanet) => Config::Retinanet(retinanet_of(retinanet, layout, checkpoint)),
        Config::Fcos(fcos) => Config::Fcos(fcos_of(fcos, layout, checkpoint)),
        Config::Refinedet(refinedet) => Config::Refinedet(refinedet_of(refinedet, layout)),
        Config::M2det(m2det) => Config::M2det(m2det_of(m2det, checkpoint)),
        Config::Yolov3(yolov3) => Config::Yolov3(yolov3_of(yolov3, layout)),
        Config::Rcnn(rcnn) => Config::Rcnn(rcnn_of(rcnn, layout, checkpoint)),
        Config::Darknet(_) => config,
    }
}

/// The published sizes of pictures for detectors on a pyramid.
const SHORT: usize = 800;
const LONG: usize = 1333;
const DIVISOR: usize = 32;

/// ImageNet's mean in BGR, without a deviation: the original authors' ResNet.
const BGR_MEAN: [f32; 3] = [103.53, 116.28, 123.675];

/// mmdetection's resizing.
const MMDET_FIT: Fit = Fit::ShortestEdgeRounded { short: SHORT, long: LONG, divisor: DIVISOR };
/// detectron2's resizing.
const DETECTRON2_FIT: Fit = Fit::ShortestEdgeAntialias { short: SHORT, long: LONG, divisor: DIVISOR };

fn bgr(fit: Fit, mean: [f32; 3]) -> Preprocess {
    Preprocess { fit, order: ChannelOrder::Bgr, mean, std: [1.0; 3] }
}

/// Stride style and normalisation that belong to a ResNet classifier's weights; nothing for other layouts.
fn of_backbone(resnet: ResNetConfig, preprocess: &Preprocess, layout: Layout) -> Option<(ResNetConfig, Preprocess)> {
    match layout {
        Layout::TorchvisionResnet | Layout::TorchvisionMobilenetV2 => {
            let resnet = ResNetConfig { style: StrideStyle::Pytorch, epsilon: 1e-5, ..resnet };
            Some((resnet, imagenet(preprocess.fit)))
        }
        Layout::MsraResnet | Layout::Detectron2Resnet => {
            let resnet = ResNetConfig { style: StrideStyle::Caffe, epsilon: 1e-5, ..resnet };
            Some((resnet, bgr(preprocess.fit, BGR_MEAN)))
        }
        _ => None,
    }
}

fn ssd_of(config: SsdConfig, layout: Layout) -> SsdConfig {
    let voc = config.classes.len() == 20;
    let large = config.input.1 >= 512;
    let listed = match (large, voc) {
        (false, false) => PriorSpec::ssd300_coco(),
        (false, true) => PriorSpec::ssd300_voc(),
        (true, false) => PriorSpec::ssd512_coco(),
        (true, true) => PriorSpec::ssd512_voc(),
    };
    match layout {
        // RGB minus (123, 117, 104) like torchvision
        Layout::AmdegrootSsd | Layout::LufficcSsd => SsdConfig { priors: listed, ..config },
        Layout::MmdetSsd => {
            // its scales are whole pixels
            let whole = |sizes: &[f32]| -> Vec<f32> { sizes.iter().map(|size| size.floor()).collect() };
            let priors = PriorSpec {
                clip: PriorClip::None,
                min_sizes: whole(&listed.min_sizes),
                max_sizes: whole(&listed.max_sizes),
                ..listed
            };
            let preprocess = Preprocess { std: [1.0; 3], ..imagenet(config.preprocess.fit) };
            SsdConfig { priors, preprocess, score_threshold: 0.02, top_k: 1000, ..config }
        }
        _ => config,
    }
}

fn retinanet_of(config: RetinanetConfig, layout: Layout, checkpoint: &Checkpoint) -> RetinanetConfig {
    // what mmdetection, detectron2 and yhenon share
    let contiguous = |config: RetinanetConfig| RetinanetConfig {
        class_layout: ClassLayout::Contiguous,
        integer_strides: false,
        max_detections: 100,
        smooth_l1_beta: 0.0,
        regression_loss: RegressionLoss::SmoothL1,
        towers: TowerConfig { convs: 4, groups: 0, bias: true },
        anchors: AnchorSpec::mmdet_retinanet(),
        backbone: ResNetConfig { epsilon: 1e-5, ..config.backbone },
        neck: FpnConfig { extra: ExtraLevels::P6P7FromC5, relu_before_p7: true, ..config.neck },
        ..config
    };
    match layout {
        Layout::TorchvisionRetinanet => {
            // the second version has group norms in its towers
            let second = checkpoint.get("head.classification_head.conv.0.1.weight").is_some();
            let make = if second { RetinanetConfig::r50_v2 } else { RetinanetConfig::r50 };
            let torchvision = make(&config.classes);
            let backbone = ResNetConfig { depth: config.backbone.depth, ..torchvision.backbone };
            RetinanetConfig { arch: config.arch, backbone, ..torchvision }
        }
        Layout::MmdetRetinanet => RetinanetConfig {
            normalizer: Normalizer::BatchOfImages,
            neck: FpnConfig { extra: ExtraLevels::P6P7FromC5, relu_before_p7: false, ..config.neck },
            preprocess: imagenet(MMDET_FIT),
            ..contiguous(config)
        },
        Layout::Detectron2Retinanet => {
            let config = contiguous(config);
            RetinanetConfig {
                normalizer: Normalizer::Batch,
                anchors: AnchorSpec::detectron2_retinanet(),
                backbone: ResNetConfig { style: StrideStyle::Caffe, ..config.backbone },
                preprocess: bgr(DETECTRON2_FIT, BGR_MEAN),
                ..config
            }
        }
        Layout::YhenonRetinanet => RetinanetConfig {
            coder_std: [0.1, 0.1, 0.2, 0.2],
            low_quality_matches: false,
            normalizer: Normalizer::PerImage,
            smooth_l1_beta: 1.0 / 9.0,
            anchors: AnchorSpec::yhenon_retinanet(),
            preprocess: imagenet(Fit::ShortestEdgeRounded { short: 608, long: 1024, divisor: DIVISOR }),
            ..contiguous(config)
        },
        _ => match of_backbone(config.backbone, &config.preprocess, layout) {
            Some((backbone, preprocess)) => RetinanetConfig { backbone, preprocess, ..config },
            None => config,
        },
    }
}

fn fcos_of(config: FcosConfig, layout: Layout, checkpoint: &Checkpoint) -> FcosConfig {
    let depth = depth_of(checkpoint).unwrap_or(config.backbone.depth);
    let config = FcosConfig { backbone: ResNetConfig { depth, ..config.backbone }, ..config };
    match layout {
        Layout::MmdetFcos => {
            // the improved settings are those whose towers have a bias beside their group norm
            let improved = checkpoint.get("head.classification_head.conv.0.bias").is_some();
            let mean = if improved { BGR_MEAN } else { [102.9801, 115.9465, 122.7717] };
            FcosConfig {
                class_layout: ClassLayout::Contiguous,
                center: 0.5,
                integer_strides: false,
                center_radius: if improved { 1.5 } else { 0.0 },
                inclusive_ranges: true,
                distance_code: if improved { DistanceCode::StrideRelu } else { DistanceCode::PixelExp },
                level_scales: true,
                centerness_on_regression: improved,
                box_loss: if improved { BoxLoss::Giou } else { BoxLoss::Iou },
                centerness_weighted: true,
                score: ScoreRule::Product,
                score_threshold: 0.05,
                nms_threshold: if improved { 0.6 } else { 0.5 },
                towers: TowerConfig { bias: improved, ..config.towers },
                backbone: ResNetConfig { style: StrideStyle::Caffe, ..config.backbone },
                preprocess: bgr(MMDET_FIT, mean),
                ..config
            }
        }
        _ => match of_backbone(config.backbone, &config.preprocess, layout) {
            Some((backbone, preprocess)) => FcosConfig { backbone, preprocess, ..config },
            None => config,
        },
    }
}

fn refinedet_of(config: RefinedetConfig, layout: Layout) -> RefinedetConfig {
    if layout == Layout::LuuuyiRefinedet {
        let priors = PriorSpec { clip: PriorClip::CornerAndSize, ..config.priors };
        return RefinedetConfig { priors, ..config };
    }
    match config.resnet.and_then(|resnet| of_backbone(resnet, &config.preprocess, layout)) {
        Some((resnet, preprocess)) => RefinedetConfig { resnet: Some(resnet), preprocess, ..config },
        None => config,
    }
}

fn m2det_of(config: M2detConfig, checkpoint: &Checkpoint) -> M2detConfig {
    let has = |name: &str| checkpoint.get(name).is_some();
    if !has("leach.0.conv.weight") {
        return config;
    }
    // copies of shared modules were left out
    M2detConfig {
        separate_leach: has("leach.1.conv.weight"),
        sfam: has("sfam_module.fc1.0.weight"),
        separate_sfam: has("sfam_module.fc1.1.weight"),
        ..config
    }
}

fn yolov3_of(config: Yolov3Config, layout: Layout) -> Yolov3Config {
    if layout != Layout::MmdetYolov3 {
        return config;
    }
    let (height, width) = config.input();
    let side = height.max(width);
    let fit = Fit::ShortestEdgeRounded { short: side, long: side, divisor: DIVISOR };
    let preprocess = Preprocess { fit, ..config.preprocess };
    Yolov3Config { preprocess, score_threshold: 0.05, ..config }
}

fn rcnn_of(config: RcnnConfig, layout: Layout, checkpoint: &Checkpoint) -> RcnnConfig {
    let depth = depth_of(checkpoint).unwrap_or(config.backbone.depth);
    let config = RcnnConfig { backbone: ResNetConfig { depth, ..config.backbone }, ..config };
    let cascade = config.is_cascade();
    let regressed = ["roi_heads.box_predictor.bbox_pred.weight", "roi_heads.box_predictor.0.bbox_pred.weight"];
    let class_agnostic = regressed.iter().any(|name| checkpoint.get(name).is_some_and(|t| t.shape.first() == Some(&4)));
    let mask_per_stage = checkpoint.get("roi_heads.mask_predictor.0.conv5_mask.weight").is_some();
    // what mmdetection and detectron2 share
    let shared = |config: RcnnConfig| RcnnConfig {
        background: Background::Last,
        class_agnostic,
        detection_min_size: 0.0,
        pooling: Pooling::AlignShifted,
        sampling_ratio: 0,
        level_rule: LevelRule::BeforeLogarithm,
        backbone: ResNetConfig { epsilon: 1e-5, ..config.backbone },
        rpn: RpnConfig {
            integer_strides: false,
            proposal_min_size: 0.0,
            anchors: AnchorSpec::float_rpn(),
            ..config.rpn
        },
        mask: config.mask.map(|mask| MaskConfig {
            mask_per_stage,
            mask_targets: MaskTargets::Majority,
            paste: Paste::PixelCenters,
            ..mask
        }),
        ..config
    };
    let pyramid = config.trunk == Trunk::Pyramid;
    match layout {
        Layout::TorchvisionRcnn if pyramid && checkpoint.get(SECOND_RCNN).is_some() => config.second(),
        Layout::Detectron2RcnnC4 => {
            let c4 = RcnnConfig::c4(&config.classes);
            RcnnConfig { arch: config.arch, backbone: ResNetConfig { depth, ..c4.backbone }, ..c4 }
        }
        Layout::MmdetRcnn if pyramid => {
            let config = shared(config);
            RcnnConfig {
                score_merge: if cascade { ScoreMerge::Logits } else { config.score_merge },
                roi_smooth_l1_beta: if cascade { 1.0 } else { 0.0 },
                rpn: RpnConfig { forced_minimum: 0.3, ignore_crossing: cascade, ..config.rpn },
                preprocess: imagenet(MMDET_FIT),
                ..config
            }
        }
        Layout::Detectron2Rcnn if pyramid => {
            let config = shared(config);
            RcnnConfig {
                score_merge: if cascade { ScoreMerge::Probabilities } else { config.score_merge },
                resample: !cascade,
                pooled_gradient: if cascade { 1.0 / 3.0 } else { 1.0 },
                roi_smooth_l1_beta: 0.0,
                backbone: ResNetConfig { style: StrideStyle::Caffe, ..config.backbone },
                preprocess: bgr(DETECTRON2_FIT, BGR_MEAN),
                ..config
            }
        }
        _ => match of_backbone(config.backbone, &config.preprocess, layout) {
            Some((backbone, preprocess)) => RcnnConfig { backbone, preprocess, ..config },
            None => config,
        },
    }
}
