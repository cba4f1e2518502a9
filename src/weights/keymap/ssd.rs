//! SSD by torchvision, amdegroot, lufficc and mmdetection.
//!
//! Sources: torchvision `ssd300_vgg16`, amdegroot/ssd.pytorch, lufficc/SSD, mmdet `SSDVGG`, `SSDNeck`, `SSDHead`.

use super::{Group, Layout, Row, SAME, Table};

/// VGG-16 by the position in torchvision's `features`: conv5 and the two fully connected layers stand in
/// `backbone.extra.0` there.
pub(super) const VGG16: &[Row] = &[
    ("24.*", "backbone.extra.0.1.*"),
    ("26.*", "backbone.extra.0.3.*"),
    ("28.*", "backbone.extra.0.5.*"),
    ("31.*", "backbone.extra.0.7.1.*"),
    ("33.*", "backbone.extra.0.7.3.*"),
    ("{i}.*", "backbone.features.{i}.*"),
];

/// Extra layers as one list of 1×1 and 3×3 convolutions in turn.
const EXTRA_PAIRS: &[Row] = &[("{2k}.*", "backbone.extra.{k+1}.0.*"), ("{2k+1}.*", "backbone.extra.{k+1}.2.*")];

const CLASSIFICATION: &[Row] = &[("{k}.*", "head.classification_head.module_list.{k}.*")];
const REGRESSION: &[Row] = &[("{k}.*", "head.regression_head.module_list.{k}.*")];
const SCALE: &[Row] = &[("weight", "backbone.scale_weight")];

pub(super) const TABLES: &[Table] = &[
    Table {
        layout: Layout::TorchvisionSsd,
        signature: &["backbone.scale_weight", "backbone.extra.0.7.1.*", "head.classification_head.module_list.{k}.*"],
        targets: &[SAME],
        shared: &[],
    },
    Table {
        layout: Layout::AmdegrootSsd,
        signature: &["vgg.{i}.*", "L2Norm.weight", "loc.{k}.*", "conf.{k}.*"],
        targets: &[&[
            Group { prefix: "vgg.", rows: VGG16 },
            Group { prefix: "L2Norm.", rows: SCALE },
            Group { prefix: "extras.", rows: EXTRA_PAIRS },
            Group { prefix: "loc.", rows: REGRESSION },
            Group { prefix: "conf.", rows: CLASSIFICATION },
        ]],
        shared: &[],
    },
    Table {
        layout: Layout::LufficcSsd,
        signature: &["backbone.vgg.{i}.*", "box_head.predictor.cls_headers.{k}.*"],
        targets: &[&[
            Group { prefix: "backbone.vgg.", rows: VGG16 },
            Group { prefix: "backbone.l2_norm.", rows: SCALE },
            Group { prefix: "backbone.extras.", rows: EXTRA_PAIRS },
            Group { prefix: "box_head.predictor.reg_headers.", rows: REGRESSION },
            Group { prefix: "box_head.predictor.cls_headers.", rows: CLASSIFICATION },
        ]],
        shared: &[],
    },
    Table {
        layout: Layout::MmdetSsd,
        signature: &["backbone.features.{i}.*", "neck.l2_norm.weight", "bbox_head.cls_convs.{k}.0.*"],
        targets: &[&[
            Group { prefix: "backbone.features.", rows: VGG16 },
            Group { prefix: "neck.l2_norm.", rows: SCALE },
            Group {
                prefix: "neck.extra_layers.",
                rows: &[("{j}.0.conv.*", "backbone.extra.{j+1}.0.*"), ("{j}.1.conv.*", "backbone.extra.{j+1}.2.*")],
            },
            Group { prefix: "bbox_head.reg_convs.", rows: &[("{k}.0.*", "head.regression_head.module_list.{k}.*")] },
            Group {
                prefix: "bbox_head.cls_convs.",
                rows: &[("{k}.0.*", "head.classification_head.module_list.{k}.*")],
            },
        ]],
        shared: &[],
    },
];

#[cfg(test)]
mod tests {
    use super::super::{detect_layout, to_native};
    use super::*;

    /// The 71 tensors of torchvision's `ssd300_vgg16`, from its module definition.
    fn native() -> Vec<String> {
        let mut layers: Vec<String> =
            [0, 2, 5, 7, 10, 12, 14, 17, 19, 21].iter().map(|i| format!("backbone.features.{i}")).collect();
        layers.extend(["0.1", "0.3", "0.5", "0.7.1", "0.7.3"].iter().map(|i| format!("backbone.extra.{i}")));
        layers.extend((1..5).flat_map(|k| [0, 2].map(|i| format!("backbone.extra.{k}.{i}"))));
        for head in ["classification", "regression"] {
            layers.extend((0..6).map(|k| format!("head.{head}_head.module_list.{k}")));
        }
        let mut names: Vec<String> = layers.iter().flat_map(|l| [format!("{l}.weight"), format!("{l}.bias")]).collect();
        names.push("backbone.scale_weight".to_owned());
        names.sort();
        names
    }

    const VGG: [usize; 15] = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28, 31, 33];

    fn with_leaves(layers: Vec<String>) -> Vec<String> {
        layers.iter().flat_map(|layer| [format!("{layer}.weight"), format!("{layer}.bias")]).collect()
    }

    fn foreign(layout: Layout) -> Vec<String> {
        let mut layers = Vec::new();
        match layout {
            Layout::AmdegrootSsd => {
                layers.extend(VGG.map(|i| format!("vgg.{i}")));
                layers.extend((0..8).map(|i| format!("extras.{i}")));
                layers.extend((0..6).flat_map(|k| [format!("loc.{k}"), format!("conf.{k}")]));
                let mut names = with_leaves(layers);
                names.push("L2Norm.weight".to_owned());
                names
            }
            Layout::LufficcSsd => {
                layers.extend(VGG.map(|i| format!("backbone.vgg.{i}")));
                layers.extend((0..8).map(|i| format!("backbone.extras.{i}")));
                layers
                    .extend((0..6).flat_map(|k| ["reg", "cls"].map(|h| format!("box_head.predictor.{h}_headers.{k}"))));
                let mut names = with_leaves(layers);
                names.push("backbone.l2_norm.weight".to_owned());
                names
            }
            Layout::MmdetSsd => {
                layers.extend(VGG.map(|i| format!("backbone.features.{i}")));
                layers.extend((0..4).flat_map(|j| [0, 1].map(|i| format!("neck.extra_layers.{j}.{i}.conv"))));
                layers.extend((0..6).flat_map(|k| ["reg", "cls"].map(|h| format!("bbox_head.{h}_convs.{k}.0"))));
                let mut names = with_leaves(layers);
                names.push("neck.l2_norm.weight".to_owned());
                names
            }
            _ => native(),
        }
    }

    #[test]
    fn whole_detectors_map_onto_the_71_native_names() {
        let native = native();
        assert_eq!(native.len(), 71);
        for layout in [Layout::TorchvisionSsd, Layout::AmdegrootSsd, Layout::LufficcSsd, Layout::MmdetSsd] {
            let names = foreign(layout);
            let borrowed: Vec<&str> = names.iter().map(String::as_str).collect();
            assert_eq!(detect_layout(&borrowed), Some(layout));
            let mut mapped: Vec<String> = names.iter().filter_map(|name| to_native(layout, name)).collect();
            mapped.sort();
            assert_eq!(mapped, native, "{layout}");
        }
    }

    #[test]
    fn extra_layers_pair_up_also_beyond_300_pixels() {
        let map = |name| to_native(Layout::LufficcSsd, name);
        assert_eq!(map("backbone.extras.0.weight").as_deref(), Some("backbone.extra.1.0.weight"));
        assert_eq!(map("backbone.extras.3.bias").as_deref(), Some("backbone.extra.2.2.bias"));
        assert_eq!(map("backbone.extras.9.weight").as_deref(), Some("backbone.extra.5.2.weight"));
    }
}
