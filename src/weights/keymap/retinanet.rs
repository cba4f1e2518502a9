//! RetinaNet by torchvision, mmdetection, detectron2 and yhenon.
//!
//! Sources: torchvision `retinanet_resnet50_fpn` and its v2, mmdet `RetinaHead`, detectron2 `RetinaNet` with
//! `build_retinanet_resnet_fpn_backbone`, yhenon/pytorch-retinanet.

use super::backbone::DETECTRON2_RESNET;
use super::{Group, Layout, Row, Table, mmdet};

/// torchvision's pyramid by its present names, and by those before version 0.13, which lack the `.0`.
pub(super) const TORCHVISION_NECK: &[Row] = &[
    ("inner_blocks.{i}.{j}.*", "backbone.fpn.inner_blocks.{i}.{j}.*"),
    ("inner_blocks.{i}.*", "backbone.fpn.inner_blocks.{i}.0.*"),
    ("layer_blocks.{i}.{j}.*", "backbone.fpn.layer_blocks.{i}.{j}.*"),
    ("layer_blocks.{i}.*", "backbone.fpn.layer_blocks.{i}.0.*"),
];

pub(super) const TABLES: &[Table] = &[
    Table {
        layout: Layout::TorchvisionRetinanet,
        signature: &[
            "backbone.body.layer1.{b}.conv1.weight",
            "head.classification_head.cls_logits.weight",
            "head.regression_head.bbox_reg.weight",
        ],
        targets: &[&[
            Group { prefix: "backbone.fpn.", rows: TORCHVISION_NECK },
            Group {
                prefix: "head.",
                rows: &[
                    ("classification_head.conv.{i}.{j}.*", "head.classification_head.conv.{i}.{j}.*"),
                    ("classification_head.conv.{2i}.*", "head.classification_head.conv.{i}.0.*"),
                    ("regression_head.conv.{i}.{j}.*", "head.regression_head.conv.{i}.{j}.*"),
                    ("regression_head.conv.{2i}.*", "head.regression_head.conv.{i}.0.*"),
                ],
            },
            Group { prefix: "", rows: &[("*", "*")] },
        ]],
        shared: &[],
    },
    Table {
        layout: Layout::MmdetRetinanet,
        signature: &["neck.lateral_convs.{i}.conv.weight", "bbox_head.retina_cls.weight"],
        targets: &[&[
            mmdet::BODY,
            mmdet::NECK_P6_P7,
            Group {
                prefix: "bbox_head.",
                rows: &[
                    ("cls_convs.{i}.conv.*", "head.classification_head.conv.{i}.0.*"),
                    ("reg_convs.{i}.conv.*", "head.regression_head.conv.{i}.0.*"),
                    ("retina_cls.*", "head.classification_head.cls_logits.*"),
                    ("retina_reg.*", "head.regression_head.bbox_reg.*"),
                ],
            },
        ]],
        shared: &[],
    },
    Table {
        layout: Layout::Detectron2Retinanet,
        signature: &["backbone.bottom_up.stem.conv1.weight", "head.cls_subnet.{i}.weight"],
        targets: &[&[
            Group { prefix: "backbone.bottom_up.", rows: DETECTRON2_RESNET },
            Group {
                prefix: "backbone.",
                rows: &[
                    ("fpn_lateral{i+3}.*", "backbone.fpn.inner_blocks.{i}.0.*"),
                    ("fpn_output{i+3}.*", "backbone.fpn.layer_blocks.{i}.0.*"),
                    ("top_block.p6.*", "backbone.fpn.extra_blocks.p6.*"),
                    ("top_block.p7.*", "backbone.fpn.extra_blocks.p7.*"),
                ],
            },
            Group {
                prefix: "head.",
                rows: &[
                    ("cls_subnet.{2i}.*", "head.classification_head.conv.{i}.0.*"),
                    ("bbox_subnet.{2i}.*", "head.regression_head.conv.{i}.0.*"),
                    ("cls_score.*", "head.classification_head.cls_logits.*"),
                    ("bbox_pred.*", "head.regression_head.bbox_reg.*"),
                ],
            },
        ]],
        shared: &[],
    },
    Table {
        layout: Layout::YhenonRetinanet,
        signature: &["fpn.P5_1.weight", "regressionModel.output.weight", "classificationModel.output.weight"],
        targets: &[&[
            Group {
                prefix: "fpn.",
                rows: &[
                    ("P6.*", "backbone.fpn.extra_blocks.p6.*"),
                    ("P7_2.*", "backbone.fpn.extra_blocks.p7.*"),
                    ("P{i+3}_1.*", "backbone.fpn.inner_blocks.{i}.0.*"),
                    ("P{i+3}_2.*", "backbone.fpn.layer_blocks.{i}.0.*"),
                ],
            },
            Group {
                prefix: "classificationModel.",
                rows: &[
                    ("conv{i+1}.*", "head.classification_head.conv.{i}.0.*"),
                    ("output.*", "head.classification_head.cls_logits.*"),
                ],
            },
            Group {
                prefix: "regressionModel.",
                rows: &[
                    ("conv{i+1}.*", "head.regression_head.conv.{i}.0.*"),
                    ("output.*", "head.regression_head.bbox_reg.*"),
                ],
            },
            Group {
                prefix: "",
                rows: &[
                    ("conv1.*", "backbone.body.conv1.*"),
                    ("bn1.*", "backbone.body.bn1.*"),
                    ("layer{n}.*", "backbone.body.layer{n}.*"),
                ],
            },
        ]],
        shared: &[],
    },
];

#[cfg(test)]
mod tests {
    use super::super::{detect_layout, to_native};
    use super::*;

    /// The tensors of torchvision's `retinanet_resnet50_fpn` outside of its ResNet, from its module definition, and the
    /// first and last layers within.
    fn native() -> Vec<String> {
        let mut layers: Vec<String> = (0..3)
            .flat_map(|i| ["inner", "layer"].map(|kind| format!("backbone.fpn.{kind}_blocks.{i}.0")))
            .chain(["p6", "p7"].map(|level| format!("backbone.fpn.extra_blocks.{level}")))
            .collect();
        for (head, output) in [("classification", "cls_logits"), ("regression", "bbox_reg")] {
            layers.extend((0..4).map(|i| format!("head.{head}_head.conv.{i}.0")));
            layers.push(format!("head.{head}_head.{output}"));
        }
        let mut names: Vec<String> = layers.iter().flat_map(|l| [format!("{l}.weight"), format!("{l}.bias")]).collect();
        names.extend(
            ["conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight", "layer2.0.downsample.0.weight"]
                .map(|name| format!("backbone.body.{name}")),
        );
        names.extend(
            ["layer2.0.downsample.1.bias", "layer4.2.bn3.running_var"].map(|name| format!("backbone.body.{name}")),
        );
        names.sort();
        names
    }

    /// What the layout calls a native name.
    fn foreign(layout: Layout, native: &str) -> String {
        let mut name = native.to_owned();
        let mut swap = |pairs: &[(&str, &str)]| {
            for (from, to) in pairs {
                name = name.replace(from, to);
            }
        };
        match layout {
            Layout::MmdetRetinanet => swap(&[
                ("backbone.body.", "backbone."),
                ("backbone.fpn.inner_blocks.", "neck.lateral_convs."),
                ("backbone.fpn.layer_blocks.", "neck.fpn_convs."),
                ("backbone.fpn.extra_blocks.p6", "neck.fpn_convs.3.conv"),
                ("backbone.fpn.extra_blocks.p7", "neck.fpn_convs.4.conv"),
                (".0.weight", ".conv.weight"),
                (".0.bias", ".conv.bias"),
                ("downsample.conv.weight", "downsample.0.weight"),
                ("head.classification_head.conv", "bbox_head.cls_convs"),
                ("head.regression_head.conv", "bbox_head.reg_convs"),
                ("head.classification_head.cls_logits", "bbox_head.retina_cls"),
                ("head.regression_head.bbox_reg", "bbox_head.retina_reg"),
            ]),
            Layout::YhenonRetinanet => swap(&[
                ("backbone.body.", ""),
                ("backbone.fpn.extra_blocks.p6", "fpn.P6"),
                ("backbone.fpn.extra_blocks.p7", "fpn.P7_2"),
                ("backbone.fpn.inner_blocks.0.0", "fpn.P3_1"),
                ("backbone.fpn.inner_blocks.1.0", "fpn.P4_1"),
                ("backbone.fpn.inner_blocks.2.0", "fpn.P5_1"),
                ("backbone.fpn.layer_blocks.0.0", "fpn.P3_2"),
                ("backbone.fpn.layer_blocks.1.0", "fpn.P4_2"),
                ("backbone.fpn.layer_blocks.2.0", "fpn.P5_2"),
                ("head.classification_head.cls_logits", "classificationModel.output"),
                ("head.regression_head.bbox_reg", "regressionModel.output"),
                ("head.classification_head.conv.0.0", "classificationModel.conv1"),
                ("head.classification_head.conv.1.0", "classificationModel.conv2"),
                ("head.classification_head.conv.2.0", "classificationModel.conv3"),
                ("head.classification_head.conv.3.0", "classificationModel.conv4"),
                ("head.regression_head.conv.0.0", "regressionModel.conv1"),
                ("head.regression_head.conv.1.0", "regressionModel.conv2"),
                ("head.regression_head.conv.2.0", "regressionModel.conv3"),
                ("head.regression_head.conv.3.0", "regressionModel.conv4"),
            ]),
            Layout::Detectron2Retinanet => swap(&[
                ("backbone.body.conv1.", "backbone.bottom_up.stem.conv1."),
                ("backbone.body.bn1.", "backbone.bottom_up.stem.conv1.norm."),
                ("backbone.body.layer1.", "backbone.bottom_up.res2."),
                ("backbone.body.layer2.", "backbone.bottom_up.res3."),
                ("backbone.body.layer4.", "backbone.bottom_up.res5."),
                ("downsample.0.", "shortcut."),
                ("downsample.1.", "shortcut.norm."),
                (".bn3.", ".conv3.norm."),
                ("backbone.fpn.inner_blocks.0.0", "backbone.fpn_lateral3"),
                ("backbone.fpn.inner_blocks.1.0", "backbone.fpn_lateral4"),
                ("backbone.fpn.inner_blocks.2.0", "backbone.fpn_lateral5"),
                ("backbone.fpn.layer_blocks.0.0", "backbone.fpn_output3"),
                ("backbone.fpn.layer_blocks.1.0", "backbone.fpn_output4"),
                ("backbone.fpn.layer_blocks.2.0", "backbone.fpn_output5"),
                ("backbone.fpn.extra_blocks.", "backbone.top_block."),
                ("head.classification_head.conv.0.0", "head.cls_subnet.0"),
                ("head.classification_head.conv.1.0", "head.cls_subnet.2"),
                ("head.classification_head.conv.2.0", "head.cls_subnet.4"),
                ("head.classification_head.conv.3.0", "head.cls_subnet.6"),
                ("head.regression_head.conv.0.0", "head.bbox_subnet.0"),
                ("head.regression_head.conv.1.0", "head.bbox_subnet.2"),
                ("head.regression_head.conv.2.0", "head.bbox_subnet.4"),
                ("head.regression_head.conv.3.0", "head.bbox_subnet.6"),
                ("head.classification_head.cls_logits", "head.cls_score"),
                ("head.regression_head.bbox_reg", "head.bbox_pred"),
            ]),
            _ => {}
        }
        name
    }

    #[test]
    fn whole_detectors_map_onto_the_native_names() {
        let native = native();
        for layout in
            [Layout::TorchvisionRetinanet, Layout::MmdetRetinanet, Layout::Detectron2Retinanet, Layout::YhenonRetinanet]
        {
            let names: Vec<String> = native.iter().map(|name| foreign(layout, name)).collect();
            let borrowed: Vec<&str> = names.iter().map(String::as_str).collect();
            assert_eq!(detect_layout(&borrowed), Some(layout));
            let mut mapped: Vec<String> = names.iter().filter_map(|name| to_native(layout, name)).collect();
            mapped.sort();
            assert_eq!(mapped, native, "{layout}");
        }
    }

    #[test]
    fn torchvisions_oldest_names_become_its_present_ones() {
        let map = |name: &str| to_native(Layout::TorchvisionRetinanet, name);
        for (name, native) in [
            ("backbone.fpn.inner_blocks.2.weight", "backbone.fpn.inner_blocks.2.0.weight"),
            ("backbone.fpn.layer_blocks.0.0.bias", "backbone.fpn.layer_blocks.0.0.bias"),
            ("backbone.fpn.extra_blocks.p6.weight", "backbone.fpn.extra_blocks.p6.weight"),
            ("head.classification_head.conv.6.weight", "head.classification_head.conv.3.0.weight"),
            ("head.regression_head.conv.3.1.bias", "head.regression_head.conv.3.1.bias"),
            ("head.regression_head.bbox_reg.bias", "head.regression_head.bbox_reg.bias"),
        ] {
            assert_eq!(map(name).as_deref(), Some(native));
        }
    }
}
