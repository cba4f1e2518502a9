//! The configuration that a checkpoint implies: architecture, depth and number of classes read from its tensors.

use super::class_order::{ClassOrder, ordered};
use super::config::{Arch, Config};
use super::conventions::adapted;
use super::names::names_for;
use crate::nn::backbone::resnet::Depth;
use crate::weights::{Checkpoint, Layout};

/// The published configuration of `arch` under the conventions of the (translated) checkpoint's code base, with as many
/// classes as its head has; with COCO's 80 where it has no head.
pub fn implied_config(arch: Arch, checkpoint: &Checkpoint) -> Config {
    implied_with(arch, checkpoint, |config| config)
}

/// The same for a head whose background is known to stand elsewhere than in the code base's own weights; nothing where
/// the detector's head cannot have it there.
pub fn implied_in_order(arch: Arch, checkpoint: &Checkpoint, order: ClassOrder) -> Option<Config> {
    ordered(Config::new(arch, &[]), order)?;
    Some(implied_with(arch, checkpoint, |config| ordered(config.clone(), order).unwrap_or(config)))
}

fn implied_with(arch: Arch, checkpoint: &Checkpoint, change: impl Fn(Config) -> Config) -> Config {
    let make = |count: usize| change(adapted(Config::new(arch, &names_for(count)), checkpoint));
    let config = make(80);
    match classes_of(&config, checkpoint) {
        Some(count) if (1..=MAX_CLASSES).contains(&count) => make(count),
        _ => config,
    }
}

/// More classes than any detector has; a file that implies more is damaged or of another architecture.
const MAX_CLASSES: usize = 100_000;

/// Classes of the checkpoint's head, background excluded, where it has one that `config` describes.
pub fn classes_of(config: &Config, checkpoint: &Checkpoint) -> Option<usize> {
    let rows = |name: &str| checkpoint.get(name).and_then(|t| t.shape.first()).copied();
    let per_anchor = |name: &str, anchors: usize| rows(name).map(|rows| rows / anchors.max(1));
    match config {
        Config::Ssd(ssd) => {
            per_anchor("head.classification_head.module_list.0.weight", ssd.priors_per_cell(0))?.checked_sub(1)
        }
        Config::Retinanet(retinanet) => {
            per_anchor("head.classification_head.cls_logits.weight", retinanet.anchors_per_cell())?
                .checked_sub(retinanet.class_layout.first())
        }
        Config::Fcos(fcos) => {
            rows("head.classification_head.cls_logits.weight")?.checked_sub(fcos.class_layout.first())
        }
        Config::Refinedet(refinedet) => per_anchor("odm_conf.0.weight", refinedet.priors.per_cell(0))?.checked_sub(1),
        Config::M2det(m2det) => per_anchor("conf.0.weight", m2det.priors.per_cell(0))?.checked_sub(1),
        Config::Yolov3(yolov3) => {
            let priors = yolov3.anchors.first().map_or(3, Vec::len);
            per_anchor("bbox_head.convs_pred.0.weight", priors)?.checked_sub(5)
        }
        Config::Rcnn(_) => rows("roi_heads.box_predictor.cls_score.weight")
            .or_else(|| rows("roi_heads.box_predictor.0.cls_score.weight"))?
            .checked_sub(1),
        Config::Darknet(_) => None,
    }
}

/// The architecture that the (translated) checkpoint is of, where its names leave no choice. RefineDet's and M2Det's
/// weights fit several sizes: the answer is the published one.
pub fn implied_arch(checkpoint: &Checkpoint) -> Option<Arch> {
    let has = |name: &str| checkpoint.get(name).is_some();
    Some(match checkpoint.layout()? {
        Layout::TorchvisionSsd | Layout::AmdegrootSsd | Layout::LufficcSsd | Layout::MmdetSsd => {
            if has("backbone.extra.5.0.weight") { Arch::Ssd512 } else { Arch::Ssd300 }
        }
        Layout::TorchvisionRetinanet
        | Layout::MmdetRetinanet
        | Layout::Detectron2Retinanet
        | Layout::YhenonRetinanet => match depth_of(checkpoint)? {
            Depth::R18 => Arch::RetinanetR18,
            Depth::R34 => Arch::RetinanetR34,
            Depth::R50 if has("head.classification_head.conv.0.1.weight") => Arch::RetinanetR50V2,
            Depth::R50 | Depth::MobileV2 => Arch::RetinanetR50,
            Depth::R101 => Arch::RetinanetR101,
            Depth::R152 => Arch::RetinanetR152,
        },
        Layout::TorchvisionFcos | Layout::MmdetFcos => Arch::FcosR50,
        Layout::TorchvisionRcnn | Layout::MmdetRcnn | Layout::Detectron2Rcnn => {
            let cascade = has("roi_heads.box_predictor.0.cls_score.weight");
            let mask = has("roi_heads.mask_head.0.0.weight") || has("roi_heads.mask_head.0.0.0.weight");
            let second = has(SECOND_RCNN);
            match (cascade, mask, depth_of(checkpoint)) {
                (false, false, _) if second => Arch::FasterR50V2,
                (false, false, Some(Depth::R18)) => Arch::FasterR18,
                (false, false, Some(Depth::R34)) => Arch::FasterR34,
                (false, false, Some(Depth::R101)) => Arch::FasterR101,
                (false, false, Some(Depth::R152)) => Arch::FasterR152,
                (false, false, _) => Arch::FasterR50,
                (false, true, _) if second => Arch::MaskR50V2,
                (false, true, Some(Depth::R101)) => Arch::MaskR101,
                (false, true, _) => Arch::MaskR50,
                (true, false, Some(Depth::R101)) => Arch::CascadeR101,
                (true, false, _) => Arch::CascadeR50,
                (true, true, _) => Arch::CascadeMaskR50,
            }
        }
        Layout::Detectron2RcnnC4 => Arch::FasterR50C4,
        Layout::LuuuyiRefinedet if has("base.conv1.weight") => Arch::Refinedet320R101,
        Layout::LuuuyiRefinedet => Arch::Refinedet320,
        Layout::QijiezhaoM2det if has("base.conv1.weight") => Arch::M2det512R101,
        Layout::QijiezhaoM2det => Arch::M2det512,
        Layout::MmdetYolov3 => Arch::Yolov3,
        Layout::Native
        | Layout::EriklindernorenDarknet
        | Layout::TorchvisionResnet
        | Layout::Detectron2Resnet
        | Layout::MsraResnet
        | Layout::Vgg16Features
        | Layout::Vgg16ReducedFc
        | Layout::MmdetDarknet53
        | Layout::TorchvisionMobilenetV2 => return None,
    })
}

/// A norm that torchvision's second Faster and Mask R-CNN have in their pyramid.
pub(super) const SECOND_RCNN: &str = "backbone.fpn.inner_blocks.0.1.weight";

/// Depth of the ResNet below `backbone.body`, by its blocks.
pub(super) fn depth_of(checkpoint: &Checkpoint) -> Option<Depth> {
    let has = |block: &str| checkpoint.get(&format!("backbone.body.{block}.weight")).is_some();
    if !has("layer1.0.conv1") {
        return None;
    }
    Some(match has("layer1.0.conv3") {
        false if has("layer3.5.conv1") => Depth::R34,
        false => Depth::R18,
        true if has("layer3.35.conv1") => Depth::R152,
        true if has("layer3.22.conv1") => Depth::R101,
        true => Depth::R50,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::rcnn::{Background, Trunk};
    use crate::detect::retinanet::ClassLayout;
    use crate::geometry::anchors::AnchorOrder;
    use crate::geometry::priors::PriorClip;
    use crate::imaging::preprocess::{ChannelOrder, Fit};
    use crate::nn::backbone::resnet::StrideStyle;
    use crate::nn::neck::fpn::ExtraLevels;
    use crate::weights;

    /// A translated file of empty tensors with these names and shapes; a size of 0 keeps the file small.
    fn checkpoint(tensors: &[(&str, &[usize])]) -> Checkpoint {
        let entries: Vec<String> = tensors
            .iter()
            .map(|(name, shape)| format!("\"{name}\":{{\"dtype\":\"F32\",\"shape\":{shape:?},\"data_offsets\":[0,0]}}"))
            .collect();
        let header = format!("{{{}}}", entries.join(","));
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        let mut checkpoint = weights::from_bytes(bytes).unwrap();
        checkpoint.translate();
        checkpoint
    }

    const BLOCK: &[usize] = &[0];

    #[test]
    fn detectron2s_retinanet_brings_its_own_conventions() {
        let file = checkpoint(&[
            ("backbone.bottom_up.stem.conv1.weight", BLOCK),
            ("backbone.bottom_up.res2.0.conv1.weight", BLOCK),
            ("backbone.bottom_up.res2.0.conv3.weight", BLOCK),
            ("backbone.bottom_up.res4.22.conv1.weight", BLOCK),
            ("head.cls_subnet.0.weight", BLOCK),
            ("head.cls_score.weight", &[9 * 7, 0, 3, 3]),
        ]);
        assert_eq!(implied_arch(&file), Some(Arch::RetinanetR101));
        let Config::Retinanet(config) = implied_config(Arch::RetinanetR101, &file) else { panic!("another family") };
        assert_eq!((config.classes.len(), config.class_layout), (7, ClassLayout::Contiguous));
        assert_eq!((config.anchors.order, config.neck.extra), (AnchorOrder::SizeMajor, ExtraLevels::P6P7FromC5));
        assert_eq!((config.backbone.style, config.preprocess.order), (StrideStyle::Caffe, ChannelOrder::Bgr));
        assert_eq!(config.preprocess.std, [1.0; 3]);
        assert!(matches!(config.preprocess.fit, Fit::ShortestEdgeAntialias { .. }));
    }

    #[test]
    fn torchvisions_two_retinanets_are_told_apart_and_count_a_class_that_is_none() {
        let body: [(&str, &[usize]); 3] = [
            ("backbone.body.layer1.0.conv1.weight", BLOCK),
            ("backbone.body.layer1.0.conv3.weight", BLOCK),
            ("head.regression_head.bbox_reg.weight", BLOCK),
        ];
        let logits: (&str, &[usize]) = ("head.classification_head.cls_logits.weight", &[9 * 91, 0, 3, 3]);
        let norm: (&str, &[usize]) = ("head.classification_head.conv.0.1.weight", BLOCK);
        let first = checkpoint(&[&body[..], &[logits]].concat());
        let second = checkpoint(&[&body[..], &[logits, norm]].concat());
        assert_eq!(implied_arch(&first), Some(Arch::RetinanetR50));
        assert_eq!(implied_arch(&second), Some(Arch::RetinanetR50V2));
        for (file, groups) in [(&first, 0), (&second, 32)] {
            let Config::Retinanet(config) = implied_config(Arch::RetinanetR50, file) else { panic!("another family") };
            assert_eq!((config.classes.len(), config.towers.groups), (90, groups));
            assert!(config.anchors.rounded && config.integer_strides);
        }
    }

    #[test]
    fn a_background_that_a_person_knows_changes_the_count_of_classes() {
        let file = checkpoint(&[
            ("backbone.body.layer1.0.conv1.weight", BLOCK),
            ("backbone.body.layer1.0.conv3.weight", BLOCK),
            ("head.regression_head.bbox_reg.weight", BLOCK),
            ("head.classification_head.cls_logits.weight", &[9 * 80, 0, 3, 3]),
        ]);
        let count =
            |order| implied_in_order(Arch::RetinanetR50, &file, order).map(|config: Config| config.classes().len());
        assert_eq!(implied_config(Arch::RetinanetR50, &file).classes().len(), 79);
        assert_eq!(count(ClassOrder::NoBackground), Some(80));
        assert_eq!((count(ClassOrder::BackgroundFirst), count(ClassOrder::BackgroundLast)), (Some(79), None));
    }

    #[test]
    fn mmdetections_ssd_counts_whole_pixels_and_yhenons_retinanet_half_cells() {
        let file = checkpoint(&[
            ("backbone.features.0.weight", BLOCK),
            ("neck.l2_norm.weight", BLOCK),
            ("bbox_head.cls_convs.0.0.weight", &[4 * 21, 0, 3, 3]),
        ]);
        assert_eq!(implied_arch(&file), Some(Arch::Ssd300));
        let Config::Ssd(config) = implied_config(Arch::Ssd512, &file) else { panic!("another family") };
        assert_eq!((config.classes.len(), config.priors.clip), (20, PriorClip::None));
        assert_eq!(config.priors.min_sizes[..2], [35.0, 76.0]);
        assert_eq!(config.priors.max_sizes[6], 537.0);
        assert!((config.preprocess.mean[0] - 123.675).abs() < 1e-4);

        let file = checkpoint(&[
            ("layer1.0.conv1.weight", BLOCK),
            ("fpn.P5_1.weight", BLOCK),
            ("regressionModel.output.weight", BLOCK),
            ("classificationModel.output.weight", &[720, 0, 3, 3]),
        ]);
        let Config::Retinanet(config) = implied_config(Arch::RetinanetR18, &file) else { panic!("another family") };
        assert_eq!((config.anchors.center, config.classes.len(), config.coder_std[0]), (0.5, 80, 0.1));
        assert_eq!(config.arch, Arch::RetinanetR18);
    }

    #[test]
    fn a_cascade_knows_its_background_and_a_backbone_its_channels() {
        let file = checkpoint(&[
            ("neck.lateral_convs.0.conv.weight", BLOCK),
            ("backbone.layer1.0.conv1.weight", BLOCK),
            ("rpn_head.rpn_conv.weight", BLOCK),
            ("roi_head.bbox_head.0.fc_cls.weight", &[81, 0]),
            ("roi_head.bbox_head.0.fc_reg.weight", &[4, 0]),
        ]);
        assert_eq!(implied_arch(&file), Some(Arch::CascadeR50));
        let Config::Rcnn(config) = implied_config(Arch::CascadeR50, &file) else { panic!("another family") };
        assert_eq!((config.classes.len(), config.background), (80, Background::Last));
        assert!(config.class_agnostic && config.backbone.depth == Depth::R18);

        let msra = checkpoint(&[("conv1_w", BLOCK), ("res2_0_branch2a_w", BLOCK), ("res5_0_branch2a_w", BLOCK)]);
        assert_eq!(implied_arch(&msra), None);
        let Config::Rcnn(config) = implied_config(Arch::FasterR50, &msra) else { panic!("another family") };
        assert_eq!((config.backbone.style, config.preprocess.order), (StrideStyle::Caffe, ChannelOrder::Bgr));
        // this program's own narrow networks stay what they are
        assert_eq!(implied_config(Arch::FasterNano, &msra), Config::new(Arch::FasterNano, &names_for(80)));
    }

    #[test]
    fn two_stage_networks_are_told_apart_by_version_depth_and_trunk() {
        let body: [(&str, &[usize]); 4] = [
            ("backbone.body.layer1.0.conv1.weight", BLOCK),
            ("backbone.body.layer1.0.conv3.weight", BLOCK),
            ("rpn.head.cls_logits.weight", BLOCK),
            ("roi_heads.box_predictor.cls_score.weight", &[91, 0]),
        ];
        let norm: (&str, &[usize]) = (SECOND_RCNN, BLOCK);
        let mask: (&str, &[usize]) = ("roi_heads.mask_head.0.0.weight", BLOCK);
        let deep: (&str, &[usize]) = ("backbone.body.layer3.22.conv1.weight", BLOCK);
        let of = |further: &[(&str, &[usize])]| checkpoint(&[&body[..], further].concat());
        assert_eq!(implied_arch(&of(&[])), Some(Arch::FasterR50));
        assert_eq!(implied_arch(&of(&[deep])), Some(Arch::FasterR101));
        assert_eq!(implied_arch(&of(&[mask, deep])), Some(Arch::MaskR101));
        assert_eq!(implied_arch(&of(&[mask, norm])), Some(Arch::MaskR50V2));
        let second = of(&[norm]);
        assert_eq!(implied_arch(&second), Some(Arch::FasterR50V2));
        // asked for by the name of the first version, the layers are still the file's
        let Config::Rcnn(config) = implied_config(Arch::FasterR50, &second) else { panic!("another family") };
        assert_eq!((config.classes.len(), config.head_convolutions, config.rpn.convolutions), (90, 4, 2));

        let c4 = checkpoint(&[
            ("backbone.stem.conv1.weight", BLOCK),
            ("backbone.res2.0.conv1.weight", BLOCK),
            ("backbone.res2.0.conv3.weight", BLOCK),
            ("backbone.res4.22.conv1.weight", BLOCK),
            ("proposal_generator.rpn_head.conv.weight", BLOCK),
            ("roi_heads.res5.0.conv1.weight", BLOCK),
            ("roi_heads.box_predictor.cls_score.weight", &[21, 0]),
        ]);
        assert_eq!(implied_arch(&c4), Some(Arch::FasterR50C4));
        assert!(c4.get("backbone.body.layer4.0.conv1.weight").is_some());
        let Config::Rcnn(config) = implied_config(Arch::FasterR50C4, &c4) else { panic!("another family") };
        assert_eq!((config.classes.len(), config.backbone.depth, config.trunk), (20, Depth::R101, Trunk::C4));
        // weights on a pyramid change nothing but the depth of a network on C4
        let Config::Rcnn(config) = implied_config(Arch::FasterR50C4, &second) else { panic!("another family") };
        assert_eq!((config.trunk, config.head_convolutions, config.check().is_ok()), (Trunk::C4, 0, true));
    }

    #[test]
    fn m2dets_shared_modules_are_found_shared() {
        let tensors: Vec<(String, Vec<usize>)> = (0..8)
            .map(|k| (format!("leach.{k}.conv.weight"), vec![0]))
            .chain([("unet1.toplayer.0.conv.weight".to_string(), vec![0]), ("conf.0.weight".to_string(), vec![486, 0])])
            .collect();
        let borrowed: Vec<(&str, &[usize])> = tensors.iter().map(|(n, s)| (n.as_str(), s.as_slice())).collect();
        let file = checkpoint(&borrowed);
        assert_eq!(file.tensors().len(), 3);
        let Config::M2det(config) = implied_config(Arch::M2det320, &file) else { panic!("another family") };
        assert_eq!((config.classes.len(), config.separate_leach, config.sfam), (80, false, false));
    }
}
