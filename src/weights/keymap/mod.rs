//! Key maps as data: the names that other code bases give to the same layers, and how they become this program's
//! names, which are torchvision's for SSD, RetinaNet, FCOS and the two-stage detectors, luuuyi's for RefineDet,
//! qijiezhao's for M2Det and mmdetection's for YOLOv3.
//!
//! A row is a pattern and a replacement, see `pattern`. A classification backbone serves several detectors that name
//! its layers differently: its table has one target for each of them, and a tensor is found under all its names.

mod backbone;
mod mmdet;
mod one_stage;
mod pattern;
mod rcnn;
mod retinanet;
mod ssd;

use pattern::captures;
use serde::Serialize;
use std::fmt;

/// Whose names a checkpoint uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Layout {
    /// This program's own; nothing is renamed.
    Native,
    /// torchvision `ssd300_vgg16`.
    TorchvisionSsd,
    /// amdegroot/ssd.pytorch.
    AmdegrootSsd,
    /// lufficc/SSD with its VGG backbone.
    LufficcSsd,
    /// mmdetection's SSD with `SSDVGG` and `SSDNeck`. Its background class is the last one.
    MmdetSsd,
    /// torchvision `fcos_resnet50_fpn`.
    TorchvisionFcos,
    /// mmdetection's FCOS.
    MmdetFcos,
    /// torchvision `retinanet_resnet50_fpn` and `retinanet_resnet50_fpn_v2`, also by their oldest names.
    TorchvisionRetinanet,
    /// mmdetection's RetinaNet.
    MmdetRetinanet,
    /// detectron2's RetinaNet.
    Detectron2Retinanet,
    /// yhenon/pytorch-retinanet.
    YhenonRetinanet,
    /// torchvision's Faster and Mask R-CNN with a feature pyramid, also by their oldest names.
    TorchvisionRcnn,
    /// mmdetection's Faster, Mask and Cascade R-CNN.
    MmdetRcnn,
    /// detectron2's Faster, Mask and Cascade R-CNN with a feature pyramid.
    Detectron2Rcnn,
    /// detectron2's Faster R-CNN on C4, whose head is the backbone's last stage.
    Detectron2RcnnC4,
    /// luuuyi/RefineDet.PyTorch.
    LuuuyiRefinedet,
    /// qijiezhao/M2Det.
    QijiezhaoM2det,
    /// mmdetection's YOLOv3 on Darknet-53.
    MmdetYolov3,
    /// eriklindernoren/PyTorch-YOLOv3, a network from a darknet cfg.
    EriklindernorenDarknet,
    /// torchvision `resnet18` to `resnet152`.
    TorchvisionResnet,
    /// A ResNet by detectron2's names.
    Detectron2Resnet,
    /// A ResNet of the original authors by Caffe2's names, as detectron2 publishes it (`R-50.pkl`). Its batch norms are
    /// a factor and a shift: mean and variance stay 0 and 1.
    MsraResnet,
    /// torchvision `vgg16`, of which the convolutions are used.
    Vgg16Features,
    /// `vgg16_reducedfc.pth`: the convolutions and the two fully connected layers as dilated convolutions.
    Vgg16ReducedFc,
    /// mmdetection's Darknet-53 without a detector (`open-mmlab://darknet53`).
    MmdetDarknet53,
    /// torchvision `mobilenet_v2`.
    TorchvisionMobilenetV2,
}

impl Layout {
    /// Whether it is a classification network, of which a detector takes the backbone.
    pub fn is_backbone(self) -> bool {
        matches!(
            self,
            Layout::TorchvisionResnet
                | Layout::Detectron2Resnet
                | Layout::MsraResnet
                | Layout::Vgg16Features
                | Layout::Vgg16ReducedFc
                | Layout::MmdetDarknet53
                | Layout::TorchvisionMobilenetV2
        )
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layout::Native => "native",
            Layout::TorchvisionSsd => "torchvision SSD",
            Layout::AmdegrootSsd => "amdegroot/ssd.pytorch",
            Layout::LufficcSsd => "lufficc/SSD",
            Layout::MmdetSsd => "mmdetection SSD",
            Layout::TorchvisionFcos => "torchvision FCOS",
            Layout::MmdetFcos => "mmdetection FCOS",
            Layout::TorchvisionRetinanet => "torchvision RetinaNet",
            Layout::MmdetRetinanet => "mmdetection RetinaNet",
            Layout::Detectron2Retinanet => "detectron2 RetinaNet",
            Layout::YhenonRetinanet => "yhenon/pytorch-retinanet",
            Layout::TorchvisionRcnn => "torchvision R-CNN",
            Layout::MmdetRcnn => "mmdetection R-CNN",
            Layout::Detectron2Rcnn => "detectron2 R-CNN",
            Layout::Detectron2RcnnC4 => "detectron2 R-CNN on C4",
            Layout::LuuuyiRefinedet => "luuuyi/RefineDet.PyTorch",
            Layout::QijiezhaoM2det => "qijiezhao/M2Det",
            Layout::MmdetYolov3 => "mmdetection YOLOv3",
            Layout::EriklindernorenDarknet => "eriklindernoren/PyTorch-YOLOv3",
            Layout::TorchvisionResnet => "torchvision ResNet",
            Layout::Detectron2Resnet => "detectron2 ResNet",
            Layout::MsraResnet => "MSRA ResNet by Caffe2's names",
            Layout::Vgg16Features => "torchvision VGG-16",
            Layout::Vgg16ReducedFc => "VGG-16 with reduced fully connected layers",
            Layout::MmdetDarknet53 => "mmdetection Darknet-53",
            Layout::TorchvisionMobilenetV2 => "torchvision MobileNetV2",
        })
    }
}

/// Pattern and replacement; the pattern is without the group's prefix, the replacement is the whole name.
type Row = (&'static str, &'static str);

/// Rows whose patterns share a prefix.
struct Group {
    prefix: &'static str,
    rows: &'static [Row],
}

/// One layout: what tells it from others, and its rows; the first that matches counts.
struct Table {
    layout: Layout,
    /// Every one of these patterns has to match some name.
    signature: &'static [&'static str],
    /// One list of groups for each family of native names that the layout serves.
    targets: &'static [&'static [Group]],
    /// Prefixes of modules that the reference uses several times and saves under as many numbers.
    shared: &'static [&'static str],
}

/// Names that stay as they are.
const SAME: &[Group] = &[Group { prefix: "", rows: &[("*", "*")] }];

/// The order matters where one signature is part of another's names: detectors come before backbones.
const TABLES: &[&[Table]] = &[ssd::TABLES, one_stage::TABLES, retinanet::TABLES, rcnn::TABLES, backbone::TABLES];

fn tables() -> impl Iterator<Item = &'static Table> {
    TABLES.iter().copied().flatten()
}

fn table(layout: Layout) -> Option<&'static Table> {
    tables().find(|table| table.layout == layout)
}

/// The layout that a checkpoint's names belong to, where one of the known ones fits.
pub fn detect_layout(names: &[&str]) -> Option<Layout> {
    let fits = |table: &&Table| {
        table.signature.iter().all(|pattern| names.iter().any(|name| captures(pattern, name).is_some()))
    };
    tables().find(fits).map(|table| table.layout)
}

/// The native name of what `layout` calls `name`; nothing where the network has no such layer. Where the layout serves
/// several detectors, this is the first of [`native_names`].
pub fn to_native(layout: Layout, name: &str) -> Option<String> {
    native_names(layout, name).into_iter().next()
}

/// All native names of what `layout` calls `name`.
pub fn native_names(layout: Layout, name: &str) -> Vec<String> {
    match table(layout) {
        Some(table) => table.targets.iter().filter_map(|groups| replaced(groups, name)).collect(),
        None if layout == Layout::Native => vec![name.to_owned()],
        None => Vec::new(),
    }
}

/// Prefixes of numbered modules that are one and the same in the reference: `leach.0.` to `leach.7.` hold copies.
pub(super) fn shared_modules(layout: Layout) -> &'static [&'static str] {
    table(layout).map_or(&[], |table| table.shared)
}

fn replaced(groups: &[Group], name: &str) -> Option<String> {
    for group in groups {
        let Some(rest) = name.strip_prefix(group.prefix) else {
            continue;
        };
        for (pattern, replacement) in group.rows {
            if let Some(found) = captures(pattern, rest) {
                return found.fill(replacement);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn native_names_stay() {
        assert_eq!(to_native(Layout::Native, "anything").as_deref(), Some("anything"));
        assert_eq!(detect_layout(&[]), None);
        assert_eq!(detect_layout(&["a.weight", "b.bias"]), None);
    }

    #[test]
    fn every_layout_but_the_native_has_one_table_that_its_own_signature_names() {
        let mut seen = Vec::new();
        for table in tables() {
            assert!(!seen.contains(&table.layout), "{} twice", table.layout);
            seen.push(table.layout);
            assert!(!table.signature.is_empty() && !table.targets.is_empty(), "{}", table.layout);
        }
        assert_eq!(seen.len(), 25);
    }

    #[test]
    fn every_row_is_well_formed() {
        // each pattern, its letters put to 7 and its rest to a leaf, maps to a name without braces and stars
        for table in tables() {
            for (pattern, replacement) in table.targets.iter().copied().flatten().flat_map(|group| group.rows) {
                let example = example(pattern);
                let Some(found) = captures(pattern, &example) else { panic!("{pattern} does not match {example}") };
                let name = found.fill(replacement).unwrap_or_else(|| panic!("{pattern} to {replacement}"));
                assert!(!name.contains(['{', '}', '*']) && !name.is_empty(), "{name}");
            }
        }
    }

    /// A name that the pattern matches.
    fn example(pattern: &str) -> String {
        let mut name = String::new();
        let mut rest = pattern;
        while let Some(start) = rest.find(['{', '*']) {
            name.push_str(&rest[..start]);
            if rest[start..].starts_with('*') {
                name.push_str("leaf");
                rest = "";
                continue;
            }
            let end = start + rest[start..].find('}').unwrap();
            // the letters are all 7: 7, 2·7, 2·7 + 1, 7 + 1, …
            let inner = &rest[start + 1..end];
            let scale: usize = inner.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(1);
            let offset: isize = inner.find(['+', '-']).map_or(0, |at| inner[at..].parse().unwrap());
            name.push_str(&(7 * scale).saturating_add_signed(offset).to_string());
            rest = &rest[end + 1..];
        }
        name + rest
    }
}
