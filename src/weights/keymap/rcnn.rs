//! Faster, Mask and Cascade R-CNN by torchvision, mmdetection and detectron2.
//!
//! Sources: torchvision `fasterrcnn_resnet50_fpn`, `maskrcnn_resnet50_fpn` and their second versions, mmdet
//! `StandardRoIHead` and `CascadeRoIHead`, detectron2 `StandardROIHeads`, `CascadeROIHeads` and `Res5ROIHeads`.

use super::backbone::DETECTRON2_RESNET;
use super::retinanet::TORCHVISION_NECK;
use super::{Group, Layout, Row, Table, mmdet};

/// mmdetection's RPN.
const MMDET_RPN: &[Row] = &[
    ("rpn_conv.*", "rpn.head.conv.0.0.*"),
    ("rpn_cls.*", "rpn.head.cls_logits.*"),
    ("rpn_reg.*", "rpn.head.bbox_pred.*"),
];

/// mmdetection's box and mask heads; a cascade's carry the number of their stage.
const MMDET_HEADS: &[Row] = &[
    ("bbox_head.shared_fcs.0.*", "roi_heads.box_head.fc6.*"),
    ("bbox_head.shared_fcs.1.*", "roi_heads.box_head.fc7.*"),
    ("bbox_head.fc_cls.*", "roi_heads.box_predictor.cls_score.*"),
    ("bbox_head.fc_reg.*", "roi_heads.box_predictor.bbox_pred.*"),
    ("bbox_head.{s}.shared_fcs.0.*", "roi_heads.box_head.{s}.fc6.*"),
    ("bbox_head.{s}.shared_fcs.1.*", "roi_heads.box_head.{s}.fc7.*"),
    ("bbox_head.{s}.fc_cls.*", "roi_heads.box_predictor.{s}.cls_score.*"),
    ("bbox_head.{s}.fc_reg.*", "roi_heads.box_predictor.{s}.bbox_pred.*"),
    ("mask_head.convs.{i}.conv.*", "roi_heads.mask_head.{i}.0.*"),
    ("mask_head.upsample.*", "roi_heads.mask_predictor.conv5_mask.*"),
    ("mask_head.conv_logits.*", "roi_heads.mask_predictor.mask_fcn_logits.*"),
    ("mask_head.{s}.convs.{i}.conv.*", "roi_heads.mask_head.{s}.{i}.0.*"),
    ("mask_head.{s}.upsample.*", "roi_heads.mask_predictor.{s}.conv5_mask.*"),
    ("mask_head.{s}.conv_logits.*", "roi_heads.mask_predictor.{s}.mask_fcn_logits.*"),
];

/// detectron2's RPN.
const DETECTRON2_RPN: Group = Group {
    prefix: "proposal_generator.rpn_head.",
    rows: &[
        ("conv.*", "rpn.head.conv.0.0.*"),
        ("objectness_logits.*", "rpn.head.cls_logits.*"),
        ("anchor_deltas.*", "rpn.head.bbox_pred.*"),
    ],
};

/// detectron2's box and mask heads.
const DETECTRON2_HEADS: &[Row] = &[
    ("box_head.fc1.*", "roi_heads.box_head.fc6.*"),
    ("box_head.fc2.*", "roi_heads.box_head.fc7.*"),
    ("box_head.{s}.fc1.*", "roi_heads.box_head.{s}.fc6.*"),
    ("box_head.{s}.fc2.*", "roi_heads.box_head.{s}.fc7.*"),
    ("box_predictor.*", "roi_heads.box_predictor.*"),
    ("mask_head.mask_fcn{i+1}.*", "roi_heads.mask_head.{i}.0.*"),
    ("mask_head.deconv.*", "roi_heads.mask_predictor.conv5_mask.*"),
    ("mask_head.predictor.*", "roi_heads.mask_predictor.mask_fcn_logits.*"),
];

pub(super) const TABLES: &[Table] = &[
    Table {
        layout: Layout::TorchvisionRcnn,
        signature: &["backbone.body.layer1.{b}.conv1.weight", "rpn.head.cls_logits.weight"],
        targets: &[&[
            Group { prefix: "backbone.fpn.", rows: TORCHVISION_NECK },
            Group {
                prefix: "",
                rows: &[
                    ("rpn.head.conv.{i}.{j}.*", "rpn.head.conv.{i}.{j}.*"),
                    // before version 0.13
                    ("rpn.head.conv.*", "rpn.head.conv.0.0.*"),
                    ("roi_heads.mask_head.mask_fcn{i+1}.*", "roi_heads.mask_head.{i}.0.*"),
                    ("*", "*"),
                ],
            },
        ]],
        shared: &[],
    },
    Table {
        layout: Layout::MmdetRcnn,
        signature: &["neck.lateral_convs.{i}.conv.weight", "rpn_head.rpn_conv.weight"],
        targets: &[&[
            mmdet::BODY,
            mmdet::NECK,
            Group { prefix: "rpn_head.", rows: MMDET_RPN },
            Group { prefix: "roi_head.", rows: MMDET_HEADS },
        ]],
        shared: &[],
    },
    Table {
        layout: Layout::Detectron2Rcnn,
        signature: &["backbone.bottom_up.stem.conv1.weight", "proposal_generator.rpn_head.conv.weight"],
        targets: &[&[
            Group { prefix: "backbone.bottom_up.", rows: DETECTRON2_RESNET },
            Group {
                prefix: "backbone.",
                rows: &[
                    ("fpn_lateral{i+2}.*", "backbone.fpn.inner_blocks.{i}.0.*"),
                    ("fpn_output{i+2}.*", "backbone.fpn.layer_blocks.{i}.0.*"),
                ],
            },
            DETECTRON2_RPN,
            Group { prefix: "roi_heads.", rows: DETECTRON2_HEADS },
        ]],
        shared: &[],
    },
    Table {
        layout: Layout::Detectron2RcnnC4,
        signature: &["backbone.stem.conv1.weight", "roi_heads.res5.{b}.conv1.weight"],
        targets: &[&[
            Group { prefix: "backbone.", rows: DETECTRON2_RESNET },
            DETECTRON2_RPN,
            Group { prefix: "roi_heads.", rows: DETECTRON2_RESNET },
            Group { prefix: "roi_heads.", rows: DETECTRON2_HEADS },
        ]],
        shared: &[],
    },
];

#[cfg(test)]
mod tests {
    use super::super::{detect_layout, to_native};
    use super::*;

    fn assert_maps(layout: Layout, pairs: &[(&str, &str)]) {
        for (name, native) in pairs {
            assert_eq!(to_native(layout, name).as_deref(), Some(*native), "{layout}");
        }
    }

    #[test]
    fn mmdetections_heads_keep_the_number_of_their_stage() {
        assert_maps(
            Layout::MmdetRcnn,
            &[
                ("backbone.layer1.0.conv1.weight", "backbone.body.layer1.0.conv1.weight"),
                ("neck.fpn_convs.3.conv.bias", "backbone.fpn.layer_blocks.3.0.bias"),
                ("rpn_head.rpn_conv.weight", "rpn.head.conv.0.0.weight"),
                ("rpn_head.rpn_reg.bias", "rpn.head.bbox_pred.bias"),
                ("roi_head.bbox_head.shared_fcs.1.weight", "roi_heads.box_head.fc7.weight"),
                ("roi_head.bbox_head.2.shared_fcs.0.bias", "roi_heads.box_head.2.fc6.bias"),
                ("roi_head.bbox_head.fc_cls.bias", "roi_heads.box_predictor.cls_score.bias"),
                ("roi_head.bbox_head.0.fc_reg.weight", "roi_heads.box_predictor.0.bbox_pred.weight"),
                ("roi_head.mask_head.convs.3.conv.bias", "roi_heads.mask_head.3.0.bias"),
                ("roi_head.mask_head.1.convs.2.conv.bias", "roi_heads.mask_head.1.2.0.bias"),
                ("roi_head.mask_head.1.upsample.bias", "roi_heads.mask_predictor.1.conv5_mask.bias"),
                ("roi_head.mask_head.conv_logits.bias", "roi_heads.mask_predictor.mask_fcn_logits.bias"),
            ],
        );
        let names = ["backbone.conv1.weight", "neck.lateral_convs.0.conv.weight", "rpn_head.rpn_conv.weight"];
        assert_eq!(detect_layout(&names), Some(Layout::MmdetRcnn));
    }

    #[test]
    fn detectron2_counts_stages_of_the_backbone_from_2() {
        assert_maps(
            Layout::Detectron2Rcnn,
            &[
                ("backbone.bottom_up.stem.conv1.weight", "backbone.body.conv1.weight"),
                ("backbone.bottom_up.stem.conv1.norm.running_var", "backbone.body.bn1.running_var"),
                ("backbone.bottom_up.res2.0.shortcut.weight", "backbone.body.layer1.0.downsample.0.weight"),
                ("backbone.bottom_up.res4.5.conv2.norm.bias", "backbone.body.layer3.5.bn2.bias"),
                ("backbone.fpn_lateral2.weight", "backbone.fpn.inner_blocks.0.0.weight"),
                ("backbone.fpn_output5.bias", "backbone.fpn.layer_blocks.3.0.bias"),
                ("proposal_generator.rpn_head.conv.weight", "rpn.head.conv.0.0.weight"),
                ("proposal_generator.rpn_head.objectness_logits.bias", "rpn.head.cls_logits.bias"),
                ("roi_heads.box_head.fc1.weight", "roi_heads.box_head.fc6.weight"),
                ("roi_heads.box_head.1.fc2.weight", "roi_heads.box_head.1.fc7.weight"),
                ("roi_heads.box_predictor.2.bbox_pred.bias", "roi_heads.box_predictor.2.bbox_pred.bias"),
                ("roi_heads.mask_head.mask_fcn4.bias", "roi_heads.mask_head.3.0.bias"),
                ("roi_heads.mask_head.predictor.weight", "roi_heads.mask_predictor.mask_fcn_logits.weight"),
            ],
        );
        assert_eq!(to_native(Layout::Detectron2Rcnn, "proposal_generator.anchor_generator.cell_anchors.0"), None);
        let names = ["backbone.bottom_up.stem.conv1.weight", "proposal_generator.rpn_head.conv.weight"];
        assert_eq!(detect_layout(&names), Some(Layout::Detectron2Rcnn));
    }

    #[test]
    fn detectron2s_last_stage_is_the_head_on_c4() {
        assert_maps(
            Layout::Detectron2RcnnC4,
            &[
                ("backbone.stem.conv1.norm.weight", "backbone.body.bn1.weight"),
                ("backbone.res4.5.conv2.norm.bias", "backbone.body.layer3.5.bn2.bias"),
                ("roi_heads.res5.0.shortcut.weight", "backbone.body.layer4.0.downsample.0.weight"),
                ("roi_heads.res5.2.conv3.norm.running_var", "backbone.body.layer4.2.bn3.running_var"),
                ("roi_heads.box_predictor.bbox_pred.bias", "roi_heads.box_predictor.bbox_pred.bias"),
                ("proposal_generator.rpn_head.anchor_deltas.weight", "rpn.head.bbox_pred.weight"),
            ],
        );
        let names =
            ["backbone.stem.conv1.weight", "proposal_generator.rpn_head.conv.weight", "roi_heads.res5.0.conv1.weight"];
        assert_eq!(detect_layout(&names), Some(Layout::Detectron2RcnnC4));
    }

    #[test]
    fn torchvisions_oldest_names_become_its_present_ones() {
        assert_maps(
            Layout::TorchvisionRcnn,
            &[
                ("rpn.head.conv.weight", "rpn.head.conv.0.0.weight"),
                ("rpn.head.conv.0.0.bias", "rpn.head.conv.0.0.bias"),
                ("backbone.fpn.layer_blocks.3.bias", "backbone.fpn.layer_blocks.3.0.bias"),
                ("roi_heads.mask_head.mask_fcn1.weight", "roi_heads.mask_head.0.0.weight"),
                ("roi_heads.mask_head.2.0.weight", "roi_heads.mask_head.2.0.weight"),
                ("backbone.fpn.inner_blocks.3.1.running_var", "backbone.fpn.inner_blocks.3.1.running_var"),
                ("rpn.head.conv.1.0.bias", "rpn.head.conv.1.0.bias"),
                ("roi_heads.box_head.5.weight", "roi_heads.box_head.5.weight"),
                ("roi_heads.box_head.0.fc6.weight", "roi_heads.box_head.0.fc6.weight"),
            ],
        );
    }
}
