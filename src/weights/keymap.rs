//! Key maps as data: the names that other code bases give to the same layers, and how they become this program's
//! names, which are torchvision's.
//!
//! A row is a pattern and a replacement. `{i}` captures an index; `{2k}` and `{2k+1}` capture even and odd ones, and
//! `{k+1}` in the replacement counts from it; `{}` is an index without a name; `*` at the end is the rest of the name.
//! Sources: the module definitions of torchvision, amdegroot/ssd.pytorch, lufficc/SSD and mmdetection.

use serde::Serialize;
use std::fmt;

/// Whose names a checkpoint uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Layout {
    /// This program's own, which are torchvision's; nothing is renamed.
    Native,
    /// torchvision `ssd300_vgg16`.
    TorchvisionSsd,
    /// amdegroot/ssd.pytorch.
    AmdegrootSsd,
    /// lufficc/SSD with its VGG backbone.
    LufficcSsd,
    /// mmdetection's SSD with `SSDVGG` and `SSDNeck`. Its background class is the last one.
    MmdetSsd,
    /// torchvision `vgg16`, of which the convolutions are used.
    Vgg16Features,
    /// `vgg16_reducedfc.pth`: the convolutions and the two fully connected layers as dilated convolutions.
    Vgg16ReducedFc,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layout::Native => "native",
            Layout::TorchvisionSsd => "torchvision SSD",
            Layout::AmdegrootSsd => "amdegroot/ssd.pytorch",
            Layout::LufficcSsd => "lufficc/SSD",
            Layout::MmdetSsd => "mmdetection SSD",
            Layout::Vgg16Features => "torchvision VGG-16",
            Layout::Vgg16ReducedFc => "VGG-16 with reduced fully connected layers",
        })
    }
}

/// Pattern and replacement, both without the group's prefix.
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
    groups: &'static [Group],
}

/// VGG-16 by the position in torchvision's `features`: conv5 and the two fully connected layers stand in
/// `backbone.extra.0` there.
const VGG16: &[Row] = &[
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

const TABLES: &[Table] = &[
    Table {
        layout: Layout::TorchvisionSsd,
        signature: &["backbone.scale_weight", "backbone.extra.0.7.1.*", "head.classification_head.module_list.{k}.*"],
        groups: &[Group { prefix: "", rows: &[("*", "*")] }],
    },
    Table {
        layout: Layout::AmdegrootSsd,
        signature: &["vgg.{i}.*", "L2Norm.weight", "loc.{k}.*", "conf.{k}.*"],
        groups: &[
            Group { prefix: "vgg.", rows: VGG16 },
            Group { prefix: "L2Norm.", rows: SCALE },
            Group { prefix: "extras.", rows: EXTRA_PAIRS },
            Group { prefix: "loc.", rows: REGRESSION },
            Group { prefix: "conf.", rows: CLASSIFICATION },
        ],
    },
    Table {
        layout: Layout::LufficcSsd,
        signature: &["backbone.vgg.{i}.*", "box_head.predictor.cls_headers.{k}.*"],
        groups: &[
            Group { prefix: "backbone.vgg.", rows: VGG16 },
            Group { prefix: "backbone.l2_norm.", rows: SCALE },
            Group { prefix: "backbone.extras.", rows: EXTRA_PAIRS },
            Group { prefix: "box_head.predictor.reg_headers.", rows: REGRESSION },
            Group { prefix: "box_head.predictor.cls_headers.", rows: CLASSIFICATION },
        ],
    },
    Table {
        layout: Layout::MmdetSsd,
        signature: &["backbone.features.{i}.*", "neck.l2_norm.weight", "bbox_head.cls_convs.{k}.0.*"],
        groups: &[
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
        ],
    },
    Table {
        layout: Layout::Vgg16Features,
        // 17 is missing from VGG-19, 26 from VGG-16 with batch normalisation
        signature: &["features.0.weight", "features.17.weight", "features.26.weight"],
        groups: &[Group { prefix: "features.", rows: VGG16 }],
    },
    Table {
        layout: Layout::Vgg16ReducedFc,
        signature: &["0.weight", "17.weight", "31.weight", "33.weight"],
        groups: &[Group { prefix: "", rows: VGG16 }],
    },
];

/// The layout that a checkpoint's names belong to, where one of the known ones fits.
pub fn detect_layout(names: &[&str]) -> Option<Layout> {
    let fits = |table: &&Table| {
        table.signature.iter().all(|pattern| names.iter().any(|name| captures(pattern, name).is_some()))
    };
    TABLES.iter().find(fits).map(|table| table.layout)
}

/// The native name of what `layout` calls `name`; nothing where the network has no such layer.
pub fn to_native(layout: Layout, name: &str) -> Option<String> {
    if layout == Layout::Native {
        return Some(name.to_owned());
    }
    let table = TABLES.iter().find(|table| table.layout == layout)?;
    for group in table.groups {
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

/// What a pattern captured.
#[derive(Debug, Default)]
struct Captures<'n> {
    /// Letter and value; `_` for an index without a name.
    indices: Vec<(char, usize)>,
    /// What `*` stands for.
    rest: &'n str,
}

/// `scale · letter + offset`, what stands between braces.
#[derive(Debug, PartialEq)]
struct Affine {
    scale: usize,
    letter: char,
    offset: isize,
}

impl Affine {
    fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Affine { scale: 1, letter: '_', offset: 0 });
        }
        let (scale, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
        let scale = if scale.is_empty() { 1 } else { scale.parse().ok()? };
        let mut letters = rest.chars();
        let letter = letters.next()?;
        let offset = letters.as_str();
        // `parse` reads the sign
        let offset = if offset.is_empty() { 0 } else { offset.parse().ok()? };
        Some(Affine { scale, letter, offset })
    }

    /// The letter's value that gives `number`, where one does.
    fn solve(&self, number: usize) -> Option<usize> {
        let scaled = number.checked_add_signed(self.offset.checked_neg()?)?;
        let whole = scaled.checked_rem(self.scale)? == 0;
        whole.then_some(scaled / self.scale)
    }

    fn apply(&self, value: usize) -> Option<usize> {
        value.checked_mul(self.scale)?.checked_add_signed(self.offset)
    }
}

/// Matches the whole of `name` against `pattern`.
fn captures<'n>(pattern: &str, name: &'n str) -> Option<Captures<'n>> {
    let mut found = Captures::default();
    let (mut pattern, mut name) = (pattern, name);
    while let Some(special) = pattern.find(['{', '*']) {
        let (literal, rest) = pattern.split_at(special);
        name = name.strip_prefix(literal)?;
        if rest == "*" {
            found.rest = name;
            return (!name.is_empty()).then_some(found);
        }
        let (expression, behind) = rest.strip_prefix('{')?.split_once('}')?;
        let affine = Affine::parse(expression)?;
        let digits = name.bytes().take_while(u8::is_ascii_digit).count();
        let (number, remaining) = name.split_at(digits);
        if number.len() > 1 && number.starts_with('0') {
            return None;
        }
        let value = affine.solve(number.parse().ok()?)?;
        match found.indices.iter().find(|(letter, _)| *letter == affine.letter) {
            Some((_, earlier)) if *earlier != value => return None,
            Some(_) => {}
            None => found.indices.push((affine.letter, value)),
        }
        (pattern, name) = (behind, remaining);
    }
    (pattern == name).then_some(found)
}

impl Captures<'_> {
    /// The replacement with indices and rest put in; nothing where it asks for what was not captured.
    fn fill(&self, replacement: &str) -> Option<String> {
        let mut name = String::with_capacity(replacement.len() + self.rest.len());
        let mut replacement = replacement;
        while let Some(special) = replacement.find(['{', '*']) {
            let (literal, rest) = replacement.split_at(special);
            name.push_str(literal);
            if let Some(behind) = rest.strip_prefix('*') {
                name.push_str(self.rest);
                replacement = behind;
                continue;
            }
            let (expression, behind) = rest.strip_prefix('{')?.split_once('}')?;
            let affine = Affine::parse(expression)?;
            let (_, value) = self.indices.iter().find(|(letter, _)| *letter == affine.letter)?;
            name.push_str(&affine.apply(*value)?.to_string());
            replacement = behind;
        }
        name.push_str(replacement);
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(pattern: &str, replacement: &str, name: &str) -> Option<String> {
        captures(pattern, name).and_then(|found| found.fill(replacement))
    }

    #[test]
    fn indices_are_captured_and_computed() {
        assert_eq!(mapped("a.{}.b", "{}.c", "a.12.b").as_deref(), Some("12.c"));
        assert_eq!(
            mapped("res{n}.{b}.*", "layer{n-1}.{b}.*", "res3.10.conv.weight").as_deref(),
            Some("layer2.10.conv.weight")
        );
        assert_eq!(mapped("x.{2k+1}", "{k}.{3k+2}", "x.7").as_deref(), Some("3.11"));
        for (pattern, name) in [
            ("x.{2k+1}", "x.8"),
            ("x.{2k}", "x.7"),
            ("res{n+2}", "res1"),
            ("x.{i}", "x."),
            ("x.{i}", "x.1a"),
            ("x.{i}", "x.01"),
            ("x.{i}", "x.99999999999999999999"),
            ("x.*", "x."),
            ("{i}.{i}", "1.2"),
            ("x", "xy"),
        ] {
            assert!(captures(pattern, name).is_none(), "{pattern} {name}");
        }
        assert!(mapped("x.{i}", "{k}", "x.1").is_none());
        assert!(mapped("x.{i}", "{i-2}", "x.1").is_none());
    }

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

    #[test]
    fn backbones_alone_are_told_apart() {
        let features: Vec<String> = with_leaves(VGG[..13].iter().map(|i| format!("features.{i}")).collect());
        let mut names: Vec<&str> = features.iter().map(String::as_str).collect();
        names.push("classifier.0.weight");
        assert_eq!(detect_layout(&names), Some(Layout::Vgg16Features));
        let map = |name| to_native(Layout::Vgg16Features, name);
        assert_eq!(map("features.21.bias").as_deref(), Some("backbone.features.21.bias"));
        assert_eq!(map("features.28.weight").as_deref(), Some("backbone.extra.0.5.weight"));
        assert_eq!(map("classifier.0.weight"), None);

        let reduced: Vec<String> = with_leaves(VGG.iter().map(|i| i.to_string()).collect());
        let names: Vec<&str> = reduced.iter().map(String::as_str).collect();
        assert_eq!(detect_layout(&names), Some(Layout::Vgg16ReducedFc));
        let map = |name| to_native(Layout::Vgg16ReducedFc, name);
        assert_eq!(map("31.weight").as_deref(), Some("backbone.extra.0.7.1.weight"));

        // VGG-19 has no convolution at 17, VGG-16 with batch normalisation none at 26
        assert_eq!(detect_layout(&["features.0.weight", "features.16.weight", "features.26.weight"]), None);
        assert_eq!(detect_layout(&["features.0.weight", "features.17.weight", "features.27.weight"]), None);
        assert_eq!(detect_layout(&[]), None);
    }

    #[test]
    fn native_names_stay() {
        assert_eq!(to_native(Layout::Native, "anything").as_deref(), Some("anything"));
    }
}
