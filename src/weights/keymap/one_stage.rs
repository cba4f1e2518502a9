//! RefineDet, M2Det, YOLOv3 and FCOS.
//!
//! Sources: luuuyi/RefineDet.PyTorch, qijiezhao/M2Det, mmdet `YOLOV3Head` and `FCOSHead`, torchvision
//! `fcos_resnet50_fpn`, eriklindernoren/PyTorch-YOLOv3.

use super::{Group, Layout, SAME, Table, mmdet};

pub(super) const TABLES: &[Table] = &[
    Table {
        layout: Layout::LuuuyiRefinedet,
        signature: &["arm_loc.{k}.*", "odm_conf.{k}.*", "tcb0.{i}.*"],
        targets: &[SAME],
        shared: &[],
    },
    Table {
        layout: Layout::QijiezhaoM2det,
        signature: &["unet{n}.toplayer.0.conv.weight", "leach.0.conv.weight", "conf.{k}.*"],
        targets: &[SAME],
        shared: &["leach.", "sfam_module.fc1.", "sfam_module.fc2."],
    },
    Table {
        layout: Layout::MmdetYolov3,
        signature: &["backbone.conv_res_block1.conv.conv.weight", "bbox_head.convs_pred.{k}.weight"],
        targets: &[SAME],
        shared: &[],
    },
    Table {
        layout: Layout::EriklindernorenDarknet,
        signature: &["module_list.{i}.conv_{i}.weight", "module_list.{i}.batch_norm_{i}.weight"],
        targets: &[&[Group {
            prefix: "module_list.",
            rows: &[
                ("{i}.conv_{i}.*", "module_list.{i}.Conv2d.*"),
                ("{i}.batch_norm_{i}.*", "module_list.{i}.BatchNorm2d.*"),
            ],
        }]],
        shared: &[],
    },
    Table {
        layout: Layout::TorchvisionFcos,
        signature: &["backbone.body.layer1.{b}.conv1.weight", "head.regression_head.bbox_ctrness.weight"],
        targets: &[SAME],
        shared: &[],
    },
    Table {
        layout: Layout::MmdetFcos,
        signature: &["neck.lateral_convs.{i}.conv.weight", "bbox_head.scales.{l}.scale"],
        targets: &[&[
            mmdet::BODY,
            mmdet::NECK_P6_P7,
            Group {
                prefix: "bbox_head.",
                // torchvision numbers convolution, norm and ReLU of its towers through
                rows: &[
                    ("cls_convs.{k}.conv.*", "head.classification_head.conv.{3k}.*"),
                    ("cls_convs.{k}.gn.*", "head.classification_head.conv.{3k+1}.*"),
                    ("reg_convs.{k}.conv.*", "head.regression_head.conv.{3k}.*"),
                    ("reg_convs.{k}.gn.*", "head.regression_head.conv.{3k+1}.*"),
                    ("conv_cls.*", "head.classification_head.cls_logits.*"),
                    ("conv_reg.*", "head.regression_head.bbox_reg.*"),
                    ("conv_centerness.*", "head.regression_head.bbox_ctrness.*"),
                    // before version 2
                    ("fcos_cls.*", "head.classification_head.cls_logits.*"),
                    ("fcos_reg.*", "head.regression_head.bbox_reg.*"),
                    ("fcos_centerness.*", "head.regression_head.bbox_ctrness.*"),
                    ("scales.{l}.scale", "head.regression_head.scales.{l}.scale"),
                ],
            },
        ]],
        shared: &[],
    },
];

#[cfg(test)]
mod tests {
    use super::super::{detect_layout, shared_modules, to_native};
    use super::*;

    #[test]
    fn detectors_by_their_authors_names_are_told_apart() {
        for (layout, names) in [
            (Layout::LuuuyiRefinedet, &["vgg.0.weight", "arm_loc.0.weight", "odm_conf.3.bias", "tcb0.2.weight"][..]),
            (Layout::QijiezhaoM2det, &["unet3.toplayer.0.conv.weight", "leach.0.conv.weight", "conf.1.bias"]),
            (
                Layout::MmdetYolov3,
                &["backbone.conv_res_block1.conv.conv.weight", "bbox_head.convs_pred.0.weight", "neck.conv1.bn.bias"],
            ),
            (
                Layout::TorchvisionFcos,
                &[
                    "backbone.body.layer1.0.conv1.weight",
                    "head.regression_head.bbox_ctrness.weight",
                    "head.classification_head.cls_logits.weight",
                    "head.regression_head.bbox_reg.weight",
                ],
            ),
            (Layout::MmdetFcos, &["neck.lateral_convs.0.conv.weight", "bbox_head.scales.0.scale"]),
            (Layout::EriklindernorenDarknet, &["module_list.0.conv_0.weight", "module_list.0.batch_norm_0.weight"]),
        ] {
            assert_eq!(detect_layout(names), Some(layout));
        }
        assert!(shared_modules(Layout::QijiezhaoM2det).contains(&"leach."));
        assert!(shared_modules(Layout::MmdetFcos).is_empty());
    }

    #[test]
    fn mmdetections_fcos_becomes_torchvisions() {
        let map = |name: &str| to_native(Layout::MmdetFcos, name);
        for (name, native) in [
            ("backbone.layer4.2.bn3.running_var", "backbone.body.layer4.2.bn3.running_var"),
            ("neck.lateral_convs.2.conv.bias", "backbone.fpn.inner_blocks.2.0.bias"),
            ("neck.fpn_convs.1.conv.weight", "backbone.fpn.layer_blocks.1.0.weight"),
            ("neck.fpn_convs.3.conv.weight", "backbone.fpn.extra_blocks.p6.weight"),
            ("neck.fpn_convs.4.conv.bias", "backbone.fpn.extra_blocks.p7.bias"),
            ("bbox_head.cls_convs.3.conv.weight", "head.classification_head.conv.9.weight"),
            ("bbox_head.reg_convs.2.gn.bias", "head.regression_head.conv.7.bias"),
            ("bbox_head.conv_cls.weight", "head.classification_head.cls_logits.weight"),
            ("bbox_head.fcos_centerness.bias", "head.regression_head.bbox_ctrness.bias"),
            ("bbox_head.scales.4.scale", "head.regression_head.scales.4.scale"),
        ] {
            assert_eq!(map(name).as_deref(), Some(native));
        }
        assert_eq!(map("bbox_head.loss_cls.weight"), None);
    }

    #[test]
    fn numbered_layers_of_a_cfg_agree_with_themselves() {
        let map = |name: &str| to_native(Layout::EriklindernorenDarknet, name);
        assert_eq!(map("module_list.81.conv_81.bias").as_deref(), Some("module_list.81.Conv2d.bias"));
        assert_eq!(
            map("module_list.4.batch_norm_4.running_var").as_deref(),
            Some("module_list.4.BatchNorm2d.running_var")
        );
        assert_eq!(map("module_list.4.conv_5.weight"), None);
        assert_eq!(map("module_list.82.yolo_82.anchors"), None);
    }
}
