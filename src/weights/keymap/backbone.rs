//! Classification networks whose backbone a detector takes: ResNet, VGG-16, Darknet-53 and MobileNetV2.
//!
//! Sources: torchvision `resnet50`, `vgg16` and `mobilenet_v2`, detectron2's `R-50.pkl` and its `c2_model_loading`,
//! `vgg16_reducedfc.pth`, mmdet `Darknet`. What RetinaNet, FCOS and the two-stage detectors call `backbone.body` is
//! `base` in RefineDet and M2Det; VGG's list of layers is split in SSD, and `vgg` or `base` in the other two.

use super::ssd::VGG16;
use super::{Group, Layout, Row, Table};

/// detectron2's ResNet.
pub(super) const DETECTRON2_RESNET: &[Row] = &[
    ("stem.conv1.norm.*", "backbone.body.bn1.*"),
    ("stem.conv1.*", "backbone.body.conv1.*"),
    ("res{n+1}.{b}.shortcut.norm.*", "backbone.body.layer{n}.{b}.downsample.1.*"),
    ("res{n+1}.{b}.shortcut.*", "backbone.body.layer{n}.{b}.downsample.0.*"),
    ("res{n+1}.{b}.conv{k}.norm.*", "backbone.body.layer{n}.{b}.bn{k}.*"),
    ("res{n+1}.{b}.conv{k}.*", "backbone.body.layer{n}.{b}.conv{k}.*"),
];

const DETECTRON2_RESNET_AS_BASE: &[Row] = &[
    ("stem.conv1.norm.*", "base.bn1.*"),
    ("stem.conv1.*", "base.conv1.*"),
    ("res{n+1}.{b}.shortcut.norm.*", "base.layer{n}.{b}.downsample.1.*"),
    ("res{n+1}.{b}.shortcut.*", "base.layer{n}.{b}.downsample.0.*"),
    ("res{n+1}.{b}.conv{k}.norm.*", "base.layer{n}.{b}.bn{k}.*"),
    ("res{n+1}.{b}.conv{k}.*", "base.layer{n}.{b}.conv{k}.*"),
];

const TORCHVISION_RESNET: &[Row] = &[
    ("conv1.*", "backbone.body.conv1.*"),
    ("bn1.*", "backbone.body.bn1.*"),
    ("layer{n}.*", "backbone.body.layer{n}.*"),
];

const TORCHVISION_RESNET_AS_BASE: &[Row] =
    &[("conv1.*", "base.conv1.*"), ("bn1.*", "base.bn1.*"), ("layer{n}.*", "base.layer{n}.*")];

/// Caffe2's names: `w` of a convolution, `s` and `b` of the scaling that its batch norm was merged into.
const MSRA_RESNET: &[Row] = &[
    ("conv1_w", "backbone.body.conv1.weight"),
    ("res_conv1_bn_s", "backbone.body.bn1.weight"),
    ("res_conv1_bn_b", "backbone.body.bn1.bias"),
    ("res{n+1}_{b}_branch1_w", "backbone.body.layer{n}.{b}.downsample.0.weight"),
    ("res{n+1}_{b}_branch1_bn_s", "backbone.body.layer{n}.{b}.downsample.1.weight"),
    ("res{n+1}_{b}_branch1_bn_b", "backbone.body.layer{n}.{b}.downsample.1.bias"),
    ("res{n+1}_{b}_branch2a_w", "backbone.body.layer{n}.{b}.conv1.weight"),
    ("res{n+1}_{b}_branch2a_bn_s", "backbone.body.layer{n}.{b}.bn1.weight"),
    ("res{n+1}_{b}_branch2a_bn_b", "backbone.body.layer{n}.{b}.bn1.bias"),
    ("res{n+1}_{b}_branch2b_w", "backbone.body.layer{n}.{b}.conv2.weight"),
    ("res{n+1}_{b}_branch2b_bn_s", "backbone.body.layer{n}.{b}.bn2.weight"),
    ("res{n+1}_{b}_branch2b_bn_b", "backbone.body.layer{n}.{b}.bn2.bias"),
    ("res{n+1}_{b}_branch2c_w", "backbone.body.layer{n}.{b}.conv3.weight"),
    ("res{n+1}_{b}_branch2c_bn_s", "backbone.body.layer{n}.{b}.bn3.weight"),
    ("res{n+1}_{b}_branch2c_bn_b", "backbone.body.layer{n}.{b}.bn3.bias"),
];

const MSRA_RESNET_AS_BASE: &[Row] = &[
    ("conv1_w", "base.conv1.weight"),
    ("res_conv1_bn_s", "base.bn1.weight"),
    ("res_conv1_bn_b", "base.bn1.bias"),
    ("res{n+1}_{b}_branch1_w", "base.layer{n}.{b}.downsample.0.weight"),
    ("res{n+1}_{b}_branch1_bn_s", "base.layer{n}.{b}.downsample.1.weight"),
    ("res{n+1}_{b}_branch1_bn_b", "base.layer{n}.{b}.downsample.1.bias"),
    ("res{n+1}_{b}_branch2a_w", "base.layer{n}.{b}.conv1.weight"),
    ("res{n+1}_{b}_branch2a_bn_s", "base.layer{n}.{b}.bn1.weight"),
    ("res{n+1}_{b}_branch2a_bn_b", "base.layer{n}.{b}.bn1.bias"),
    ("res{n+1}_{b}_branch2b_w", "base.layer{n}.{b}.conv2.weight"),
    ("res{n+1}_{b}_branch2b_bn_s", "base.layer{n}.{b}.bn2.weight"),
    ("res{n+1}_{b}_branch2b_bn_b", "base.layer{n}.{b}.bn2.bias"),
    ("res{n+1}_{b}_branch2c_w", "base.layer{n}.{b}.conv3.weight"),
    ("res{n+1}_{b}_branch2c_bn_s", "base.layer{n}.{b}.bn3.weight"),
    ("res{n+1}_{b}_branch2c_bn_b", "base.layer{n}.{b}.bn3.bias"),
];

const VGG16_AS_VGG: &[Row] = &[("{i}.*", "vgg.{i}.*")];
const VGG16_AS_BASE: &[Row] = &[("{i}.*", "base.{i}.*")];

pub(super) const TABLES: &[Table] = &[
    Table {
        layout: Layout::TorchvisionResnet,
        signature: &["conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer4.{b}.conv2.weight"],
        targets: &[
            &[Group { prefix: "", rows: TORCHVISION_RESNET }],
            &[Group { prefix: "", rows: TORCHVISION_RESNET_AS_BASE }],
        ],
        shared: &[],
    },
    Table {
        layout: Layout::Detectron2Resnet,
        signature: &["stem.conv1.weight", "res2.0.conv1.weight", "res5.0.conv1.weight"],
        targets: &[
            &[Group { prefix: "", rows: DETECTRON2_RESNET }],
            &[Group { prefix: "", rows: DETECTRON2_RESNET_AS_BASE }],
        ],
        shared: &[],
    },
    Table {
        layout: Layout::MsraResnet,
        signature: &["conv1_w", "res2_0_branch2a_w", "res5_0_branch2a_w"],
        targets: &[&[Group { prefix: "", rows: MSRA_RESNET }], &[Group { prefix: "", rows: MSRA_RESNET_AS_BASE }]],
        shared: &[],
    },
    Table {
        layout: Layout::Vgg16Features,
        // 17 is missing from VGG-19, 26 from VGG-16 with batch normalisation
        signature: &["features.0.weight", "features.17.weight", "features.26.weight"],
        targets: &[
            &[Group { prefix: "features.", rows: VGG16 }],
            &[Group { prefix: "features.", rows: VGG16_AS_VGG }],
            &[Group { prefix: "features.", rows: VGG16_AS_BASE }],
        ],
        shared: &[],
    },
    Table {
        layout: Layout::Vgg16ReducedFc,
        signature: &["0.weight", "17.weight", "31.weight", "33.weight"],
        targets: &[
            &[Group { prefix: "", rows: VGG16 }],
            &[Group { prefix: "", rows: VGG16_AS_VGG }],
            &[Group { prefix: "", rows: VGG16_AS_BASE }],
        ],
        shared: &[],
    },
    Table {
        layout: Layout::MmdetDarknet53,
        signature: &[
            "conv1.conv.weight",
            "conv_res_block1.conv.conv.weight",
            "conv_res_block5.res{b}.conv1.conv.weight",
        ],
        targets: &[&[Group {
            prefix: "",
            rows: &[("conv1.*", "backbone.conv1.*"), ("conv_res_block{n}.*", "backbone.conv_res_block{n}.*")],
        }]],
        shared: &[],
    },
    Table {
        layout: Layout::TorchvisionMobilenetV2,
        signature: &["features.0.0.weight", "features.1.conv.0.0.weight", "features.17.conv.3.weight"],
        targets: &[&[Group { prefix: "features.", rows: &[("{i}.*", "backbone.body.features.{i}.*")] }]],
        shared: &[],
    },
];

#[cfg(test)]
mod tests {
    use super::super::{detect_layout, native_names, to_native};
    use super::*;

    const VGG: [usize; 15] = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28, 31, 33];

    fn weights(prefix: &str, positions: &[usize]) -> Vec<String> {
        positions.iter().map(|i| format!("{prefix}{i}.weight")).collect()
    }

    fn detected(names: &[String]) -> Option<Layout> {
        detect_layout(&names.iter().map(String::as_str).collect::<Vec<_>>())
    }

    #[test]
    fn backbones_alone_are_told_apart() {
        let mut features = weights("features.", &VGG[..13]);
        features.push("classifier.0.weight".to_owned());
        assert_eq!(detected(&features), Some(Layout::Vgg16Features));
        let map = |name| to_native(Layout::Vgg16Features, name);
        assert_eq!(map("features.21.bias").as_deref(), Some("backbone.features.21.bias"));
        assert_eq!(map("features.28.weight").as_deref(), Some("backbone.extra.0.5.weight"));
        assert_eq!(map("classifier.0.weight"), None);

        assert_eq!(detected(&weights("", &VGG)), Some(Layout::Vgg16ReducedFc));
        let all = native_names(Layout::Vgg16ReducedFc, "31.weight");
        assert_eq!(all, ["backbone.extra.0.7.1.weight", "vgg.31.weight", "base.31.weight"]);

        // VGG-19 has no convolution at 17, VGG-16 with batch normalisation none at 26
        assert_eq!(detect_layout(&["features.0.weight", "features.16.weight", "features.26.weight"]), None);
        assert_eq!(detect_layout(&["features.0.weight", "features.17.weight", "features.27.weight"]), None);
    }

    #[test]
    fn darknet_53_alone_becomes_a_backbone() {
        let names = [
            "conv1.conv.weight",
            "conv_res_block1.conv.conv.weight",
            "conv_res_block5.res3.conv1.conv.weight",
            "conv_res_block5.res3.conv2.bn.running_var",
        ];
        assert_eq!(detect_layout(&names), Some(Layout::MmdetDarknet53));
        for name in names {
            assert_eq!(to_native(Layout::MmdetDarknet53, name), Some(format!("backbone.{name}")));
        }
        assert_eq!(to_native(Layout::MmdetDarknet53, "fc.weight"), None);
    }

    #[test]
    fn mobilenet_v2_alone_becomes_a_body() {
        let names =
            ["features.0.0.weight", "features.1.conv.0.0.weight", "features.17.conv.3.weight", "classifier.1.bias"];
        assert_eq!(detect_layout(&names), Some(Layout::TorchvisionMobilenetV2));
        for name in &names[..3] {
            let native = to_native(Layout::TorchvisionMobilenetV2, name);
            assert_eq!(native, Some(format!("backbone.body.{name}")));
        }
        assert_eq!(to_native(Layout::TorchvisionMobilenetV2, names[3]), None);
    }

    #[test]
    fn every_name_of_a_resnet_leads_to_the_same_layer() {
        let cases = [
            (Layout::TorchvisionResnet, "layer3.22.conv2.weight", "layer3.22.conv2.weight"),
            (Layout::TorchvisionResnet, "bn1.running_mean", "bn1.running_mean"),
            (Layout::Detectron2Resnet, "res4.22.conv2.weight", "layer3.22.conv2.weight"),
            (Layout::Detectron2Resnet, "stem.conv1.norm.running_mean", "bn1.running_mean"),
            (Layout::MsraResnet, "res4_22_branch2b_w", "layer3.22.conv2.weight"),
            (Layout::MsraResnet, "res5_0_branch1_bn_s", "layer4.0.downsample.1.weight"),
            (Layout::MsraResnet, "res_conv1_bn_b", "bn1.bias"),
        ];
        for (layout, name, own) in cases {
            assert_eq!(native_names(layout, name), [format!("backbone.body.{own}"), format!("base.{own}")]);
        }
        assert_eq!(to_native(Layout::TorchvisionResnet, "fc.weight"), None);
        assert_eq!(to_native(Layout::MsraResnet, "fc1000_w"), None);
        let names = ["conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer4.1.conv2.weight", "fc.bias"];
        assert_eq!(detect_layout(&names), Some(Layout::TorchvisionResnet));
        assert_eq!(detect_layout(&["conv1_w", "res2_0_branch2a_w", "res5_0_branch2a_w"]), Some(Layout::MsraResnet));
        assert!(Layout::MsraResnet.is_backbone() && !Layout::TorchvisionRcnn.is_backbone());
    }
}
