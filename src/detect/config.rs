//! One configuration per detector: at once the defaults, the TOML file, the command line's overrides and the widgets.

use super::darknet::DarknetConfig;
use super::fcos::FcosConfig;
use super::m2det::M2detConfig;
use super::rcnn::RcnnConfig;
use super::refinedet::RefinedetConfig;
use super::retinanet::RetinanetConfig;
use super::ssd::SsdConfig;
use super::yolov3::Yolov3Config;
use crate::geometry::coder::BoxCoder;
use crate::imaging::preprocess::Preprocess;
use crate::nn::backbone::resnet::Depth;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The architectures that can be built by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Arch {
    #[serde(rename = "ssd300")]
    Ssd300,
    #[serde(rename = "ssd512")]
    Ssd512,
    #[serde(rename = "ssd-nano")]
    SsdNano,
    #[serde(rename = "retinanet-r18")]
    RetinanetR18,
    #[serde(rename = "retinanet-r34")]
    RetinanetR34,
    #[serde(rename = "retinanet-r50")]
    RetinanetR50,
    #[serde(rename = "retinanet-r50-v2")]
    RetinanetR50V2,
    #[serde(rename = "retinanet-r101")]
    RetinanetR101,
    #[serde(rename = "retinanet-r152")]
    RetinanetR152,
    #[serde(rename = "retinanet-nano")]
    RetinanetNano,
    #[serde(rename = "fcos-r50")]
    FcosR50,
    #[serde(rename = "fcos-nano")]
    FcosNano,
    #[serde(rename = "refinedet320")]
    Refinedet320,
    #[serde(rename = "refinedet512")]
    Refinedet512,
    #[serde(rename = "refinedet320-r101")]
    Refinedet320R101,
    #[serde(rename = "refinedet512-r101")]
    Refinedet512R101,
    #[serde(rename = "refinedet-nano")]
    RefinedetNano,
    #[serde(rename = "m2det320-vgg")]
    M2det320,
    #[serde(rename = "m2det512-vgg")]
    M2det512,
    #[serde(rename = "m2det704-vgg")]
    M2det704,
    #[serde(rename = "m2det800-vgg")]
    M2det800,
    #[serde(rename = "m2det320-r101")]
    M2det320R101,
    #[serde(rename = "m2det512-r101")]
    M2det512R101,
    #[serde(rename = "m2det-nano")]
    M2detNano,
    #[serde(rename = "yolov3")]
    Yolov3,
    #[serde(rename = "yolov3-spp")]
    Yolov3Spp,
    #[serde(rename = "yolov3-tiny")]
    Yolov3Tiny,
    #[serde(rename = "yolov3-nano")]
    Yolov3Nano,
    #[serde(rename = "darknet")]
    Darknet,
    #[serde(rename = "faster-r18")]
    FasterR18,
    #[serde(rename = "faster-r34")]
    FasterR34,
    #[serde(rename = "faster-r50")]
    FasterR50,
    #[serde(rename = "faster-r50-v2")]
    FasterR50V2,
    #[serde(rename = "faster-r50-c4")]
    FasterR50C4,
    #[serde(rename = "faster-r101")]
    FasterR101,
    #[serde(rename = "faster-r152")]
    FasterR152,
    #[serde(rename = "mask-r50")]
    MaskR50,
    #[serde(rename = "mask-r50-v2")]
    MaskR50V2,
    #[serde(rename = "mask-r101")]
    MaskR101,
    #[serde(rename = "cascade-r50")]
    CascadeR50,
    #[serde(rename = "cascade-r101")]
    CascadeR101,
    #[serde(rename = "cascade-mask-r50")]
    CascadeMaskR50,
    #[serde(rename = "faster-nano")]
    FasterNano,
    #[serde(rename = "mask-nano")]
    MaskNano,
    #[serde(rename = "cascade-nano")]
    CascadeNano,
}

impl Arch {
    pub const ALL: [Self; 45] = [
        Self::Ssd300,
        Self::Ssd512,
        Self::SsdNano,
        Self::RetinanetR18,
        Self::RetinanetR34,
        Self::RetinanetR50,
        Self::RetinanetR50V2,
        Self::RetinanetR101,
        Self::RetinanetR152,
        Self::RetinanetNano,
        Self::FcosR50,
        Self::FcosNano,
        Self::Refinedet320,
        Self::Refinedet512,
        Self::Refinedet320R101,
        Self::Refinedet512R101,
        Self::RefinedetNano,
        Self::M2det320,
        Self::M2det512,
        Self::M2det704,
        Self::M2det800,
        Self::M2det320R101,
        Self::M2det512R101,
        Self::M2detNano,
        Self::Yolov3,
        Self::Yolov3Spp,
        Self::Yolov3Tiny,
        Self::Yolov3Nano,
        Self::Darknet,
        Self::FasterR18,
        Self::FasterR34,
        Self::FasterR50,
        Self::FasterR50V2,
        Self::FasterR50C4,
        Self::FasterR101,
        Self::FasterR152,
        Self::MaskR50,
        Self::MaskR50V2,
        Self::MaskR101,
        Self::CascadeR50,
        Self::CascadeR101,
        Self::CascadeMaskR50,
        Self::FasterNano,
        Self::MaskNano,
        Self::CascadeNano,
    ];

    /// The name used in files, on the command line and on the screen.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ssd300 => "ssd300",
            Self::Ssd512 => "ssd512",
            Self::SsdNano => "ssd-nano",
            Self::RetinanetR18 => "retinanet-r18",
            Self::RetinanetR34 => "retinanet-r34",
            Self::RetinanetR50 => "retinanet-r50",
            Self::RetinanetR50V2 => "retinanet-r50-v2",
            Self::RetinanetR101 => "retinanet-r101",
            Self::RetinanetR152 => "retinanet-r152",
            Self::RetinanetNano => "retinanet-nano",
            Self::FcosR50 => "fcos-r50",
            Self::FcosNano => "fcos-nano",
            Self::Refinedet320 => "refinedet320",
            Self::Refinedet512 => "refinedet512",
            Self::Refinedet320R101 => "refinedet320-r101",
            Self::Refinedet512R101 => "refinedet512-r101",
            Self::RefinedetNano => "refinedet-nano",
            Self::M2det320 => "m2det320-vgg",
            Self::M2det512 => "m2det512-vgg",
            Self::M2det704 => "m2det704-vgg",
            Self::M2det800 => "m2det800-vgg",
            Self::M2det320R101 => "m2det320-r101",
            Self::M2det512R101 => "m2det512-r101",
            Self::M2detNano => "m2det-nano",
            Self::Yolov3 => "yolov3",
            Self::Yolov3Spp => "yolov3-spp",
            Self::Yolov3Tiny => "yolov3-tiny",
            Self::Yolov3Nano => "yolov3-nano",
            Self::Darknet => "darknet",
            Self::FasterR18 => "faster-r18",
            Self::FasterR34 => "faster-r34",
            Self::FasterR50 => "faster-r50",
            Self::FasterR50V2 => "faster-r50-v2",
            Self::FasterR50C4 => "faster-r50-c4",
            Self::FasterR101 => "faster-r101",
            Self::FasterR152 => "faster-r152",
            Self::MaskR50 => "mask-r50",
            Self::MaskR50V2 => "mask-r50-v2",
            Self::MaskR101 => "mask-r101",
            Self::CascadeR50 => "cascade-r50",
            Self::CascadeR101 => "cascade-r101",
            Self::CascadeMaskR50 => "cascade-mask-r50",
            Self::FasterNano => "faster-nano",
            Self::MaskNano => "mask-nano",
            Self::CascadeNano => "cascade-nano",
        }
    }

    /// Safetensors trained by this program on the built-in Shapes set, where there are any.
    pub fn embedded_weights(self) -> Option<&'static [u8]> {
        match self {
            Self::SsdNano => Some(include_bytes!("../../assets/ssd-nano.safetensors")),
            Self::RetinanetNano => Some(include_bytes!("../../assets/retinanet-nano.safetensors")),
            Self::FcosNano => Some(include_bytes!("../../assets/fcos-nano.safetensors")),
            Self::RefinedetNano => Some(include_bytes!("../../assets/refinedet-nano.safetensors")),
            Self::M2detNano => Some(include_bytes!("../../assets/m2det-nano.safetensors")),
            Self::Yolov3Nano => Some(include_bytes!("../../assets/yolov3-nano.safetensors")),
            Self::FasterNano => Some(include_bytes!("../../assets/faster-nano.safetensors")),
            Self::MaskNano => Some(include_bytes!("../../assets/mask-nano.safetensors")),
            Self::CascadeNano => Some(include_bytes!("../../assets/cascade-nano.safetensors")),
            _ => None,
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Arch {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Self, ConfigError> {
        Self::ALL.into_iter().find(|a| a.name() == name).ok_or_else(|| ConfigError::UnknownArch {
            name: name.to_string(),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }
}

/// Limits that every detector has.
pub struct LimitsMut<'a> {
    /// Scores at or below this never reach suppression.
    pub score_threshold: &'a mut f32,
    /// Candidates that enter suppression, per class (SSD) or level (RetinaNet, FCOS).
    pub top_k: &'a mut usize,
    pub nms_threshold: &'a mut f32,
    pub max_detections: &'a mut usize,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("there is no architecture {name:?}; there are: {known}")]
    UnknownArch { name: String, known: String },
    #[error("{key} is not a setting; settings with similar names: {similar}")]
    UnknownKey { key: String, similar: String },
    #[error("{key} = {value} does not fit: {reason}")]
    BadValue { key: String, value: String, reason: String },
    #[error("the configuration does not read: {0}")]
    Syntax(String),
}

/// Everything that defines a detector except its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "family", rename_all = "kebab-case")]
#[allow(clippy::large_enum_variant, reason = "a handful exist at a time, and boxes would hide the fields")]
pub enum Config {
    Ssd(SsdConfig),
    Retinanet(RetinanetConfig),
    Fcos(FcosConfig),
    Refinedet(RefinedetConfig),
    M2det(M2detConfig),
    Yolov3(Yolov3Config),
    Darknet(DarknetConfig),
    Rcnn(RcnnConfig),
}

/// The same expression over whichever configuration it is.
macro_rules! of_each {
    ($config:expr, $c:ident => $value:expr) => {
        match $config {
            Config::Ssd($c) => $value,
            Config::Retinanet($c) => $value,
            Config::Fcos($c) => $value,
            Config::Refinedet($c) => $value,
            Config::M2det($c) => $value,
            Config::Yolov3($c) => $value,
            Config::Darknet($c) => $value,
            Config::Rcnn($c) => $value,
        }
    };
}

impl Config {
    /// The published settings of `arch` for `classes`.
    pub fn new(arch: Arch, classes: &[String]) -> Self {
        match arch {
            Arch::Ssd300 => Self::Ssd(SsdConfig::ssd300(classes)),
            Arch::Ssd512 => Self::Ssd(SsdConfig::ssd512(classes)),
            Arch::SsdNano => Self::Ssd(SsdConfig::nano(classes)),
            Arch::RetinanetR18 => Self::Retinanet(RetinanetConfig::of_depth(Depth::R18, classes)),
            Arch::RetinanetR34 => Self::Retinanet(RetinanetConfig::of_depth(Depth::R34, classes)),
            Arch::RetinanetR50 => Self::Retinanet(RetinanetConfig::r50(classes)),
            Arch::RetinanetR50V2 => Self::Retinanet(RetinanetConfig::r50_v2(classes)),
            Arch::RetinanetR101 => Self::Retinanet(RetinanetConfig::of_depth(Depth::R101, classes)),
            Arch::RetinanetR152 => Self::Retinanet(RetinanetConfig::of_depth(Depth::R152, classes)),
            Arch::RetinanetNano => Self::Retinanet(RetinanetConfig::nano(classes)),
            Arch::FcosR50 => Self::Fcos(FcosConfig::r50(classes)),
            Arch::FcosNano => Self::Fcos(FcosConfig::nano(classes)),
            Arch::Refinedet320 => Self::Refinedet(RefinedetConfig::refinedet320(classes)),
            Arch::Refinedet512 => Self::Refinedet(RefinedetConfig::refinedet512(classes)),
            Arch::Refinedet320R101 => Self::Refinedet(RefinedetConfig::refinedet320_r101(classes)),
            Arch::Refinedet512R101 => Self::Refinedet(RefinedetConfig::refinedet512_r101(classes)),
            Arch::RefinedetNano => Self::Refinedet(RefinedetConfig::nano(classes)),
            Arch::M2det320 => Self::M2det(M2detConfig::m2det320(classes)),
            Arch::M2det512 => Self::M2det(M2detConfig::m2det512(classes)),
            Arch::M2det704 => Self::M2det(M2detConfig::m2det704(classes)),
            Arch::M2det800 => Self::M2det(M2detConfig::m2det800(classes)),
            Arch::M2det320R101 => Self::M2det(M2detConfig::m2det320_r101(classes)),
            Arch::M2det512R101 => Self::M2det(M2detConfig::m2det512_r101(classes)),
            Arch::M2detNano => Self::M2det(M2detConfig::nano(classes)),
            Arch::Yolov3 => Self::Yolov3(Yolov3Config::yolov3(classes)),
            Arch::Yolov3Spp => Self::Darknet(DarknetConfig::spp(classes)),
            Arch::Yolov3Tiny => Self::Darknet(DarknetConfig::tiny(classes)),
            Arch::Yolov3Nano => Self::Yolov3(Yolov3Config::nano(classes)),
            Arch::Darknet => Self::Darknet(DarknetConfig::yolov3(classes)),
            Arch::FasterR18 => Self::Rcnn(RcnnConfig::faster(classes).of_depth(arch, Depth::R18)),
            Arch::FasterR34 => Self::Rcnn(RcnnConfig::faster(classes).of_depth(arch, Depth::R34)),
            Arch::FasterR50 => Self::Rcnn(RcnnConfig::faster(classes)),
            Arch::FasterR50V2 => Self::Rcnn(RcnnConfig::faster_v2(classes)),
            Arch::FasterR50C4 => Self::Rcnn(RcnnConfig::c4(classes)),
            Arch::FasterR101 => Self::Rcnn(RcnnConfig::faster(classes).of_depth(arch, Depth::R101)),
            Arch::FasterR152 => Self::Rcnn(RcnnConfig::faster(classes).of_depth(arch, Depth::R152)),
            Arch::MaskR50 => Self::Rcnn(RcnnConfig::mask(classes)),
            Arch::MaskR50V2 => Self::Rcnn(RcnnConfig::mask_v2(classes)),
            Arch::MaskR101 => Self::Rcnn(RcnnConfig::mask(classes).of_depth(arch, Depth::R101)),
            Arch::CascadeR50 => Self::Rcnn(RcnnConfig::cascade(classes)),
            Arch::CascadeR101 => Self::Rcnn(RcnnConfig::cascade(classes).of_depth(arch, Depth::R101)),
            Arch::CascadeMaskR50 => Self::Rcnn(RcnnConfig::cascade_mask(classes)),
            Arch::FasterNano => Self::Rcnn(RcnnConfig::faster_nano(classes)),
            Arch::MaskNano => Self::Rcnn(RcnnConfig::mask_nano(classes)),
            Arch::CascadeNano => Self::Rcnn(RcnnConfig::cascade_nano(classes)),
        }
    }

    pub fn arch(&self) -> Arch {
        match self {
            Self::Ssd(config) => config.arch,
            Self::Retinanet(config) => config.arch,
            Self::Fcos(config) => config.arch,
            Self::Refinedet(config) => config.arch,
            Self::M2det(config) => config.arch,
            Self::Yolov3(config) => config.arch,
            Self::Darknet(config) => darknet_arch(config),
            Self::Rcnn(config) => config.arch,
        }
    }

    pub fn classes(&self) -> &[String] {
        of_each!(self, config => &config.classes)
    }

    /// The same network for other classes; nothing for a darknet network, whose cfg has the head.
    pub fn with_classes(&self, classes: &[String]) -> Option<Self> {
        let mut other = self.clone();
        match &mut other {
            Self::Darknet(_) => return None,
            Self::Ssd(config) => config.classes = classes.to_vec(),
            Self::Retinanet(config) => config.classes = classes.to_vec(),
            Self::Fcos(config) => config.classes = classes.to_vec(),
            Self::Refinedet(config) => config.classes = classes.to_vec(),
            Self::M2det(config) => config.classes = classes.to_vec(),
            Self::Yolov3(config) => config.classes = classes.to_vec(),
            Self::Rcnn(config) => config.classes = classes.to_vec(),
        }
        Some(other)
    }

    /// The limits between head and result, to be changed in place: they need no other weights.
    pub fn limits_mut(&mut self) -> LimitsMut<'_> {
        macro_rules! limits {
            ($c:ident, $($top_k:ident).+) => {
                LimitsMut {
                    score_threshold: &mut $c.score_threshold,
                    top_k: &mut $c.$($top_k).+,
                    nms_threshold: &mut $c.nms_threshold,
                    max_detections: &mut $c.max_detections,
                }
            };
        }
        match self {
            Self::Ssd(c) => limits!(c, top_k),
            Self::Retinanet(c) => limits!(c, top_k_per_level),
            Self::Fcos(c) => limits!(c, top_k_per_level),
            Self::Refinedet(c) => limits!(c, top_k),
            Self::M2det(c) => limits!(c, top_k),
            Self::Yolov3(c) => limits!(c, top_k),
            Self::Darknet(c) => limits!(c, top_k),
            Self::Rcnn(c) => limits!(c, rpn.test_per_level),
        }
    }

    /// How boxes are coded against anchors, where the detector codes them so.
    pub fn coder(&self) -> Option<BoxCoder> {
        match self {
            Self::Ssd(_) | Self::M2det(_) => Some(BoxCoder::SSD),
            Self::Retinanet(config) => Some(config.coder()),
            Self::Rcnn(_) => Some(BoxCoder::RETINA),
            Self::Fcos(_) | Self::Refinedet(_) | Self::Yolov3(_) | Self::Darknet(_) => None,
        }
    }

    /// How a picture becomes the network's input.
    pub fn preprocess(&self) -> &Preprocess {
        of_each!(self, config => &config.preprocess)
    }

    /// How many priors a YOLO network chooses among, whose shapes are the data's; nothing for other detectors.
    pub fn shape_priors(&self) -> Option<usize> {
        match self {
            Self::Yolov3(config) => Some(config.anchors.iter().map(Vec::len).sum()),
            Self::Darknet(config) => Some(config.priors()),
            _ => None,
        }
    }

    /// A YOLO network with other priors: width and height in input pixels, by rising area.
    ///
    /// # Errors
    /// Another number of priors than [`Self::shape_priors`], or a detector without any.
    pub fn with_shape_priors(&self, priors: &[[f32; 2]]) -> Result<Self, ConfigError> {
        let bad = |reason: String| ConfigError::BadValue {
            key: "anchors".to_string(),
            value: format!("{} priors", priors.len()),
            reason,
        };
        let own = self.shape_priors().ok_or_else(|| bad(format!("{} chooses none by shape", self.arch())))?;
        let count = || bad(format!("{} has {own}", self.arch()));
        match self {
            Self::Yolov3(config) => config.with_priors(priors).map(Self::Yolov3).ok_or_else(count),
            Self::Darknet(config) if own == priors.len() => {
                config.with_priors(priors).map(Self::Darknet).map_err(|e| bad(e.to_string()))
            }
            _ => Err(count()),
        }
    }

    /// Whether training needs the objects' masks.
    pub fn needs_masks(&self) -> bool {
        matches!(self, Self::Rcnn(config) if config.mask.is_some())
    }

    /// Height and width of the network's input, pixels.
    pub fn input(&self) -> (usize, usize) {
        match self {
            Self::Ssd(config) => config.input,
            Self::Retinanet(config) => config.input,
            Self::Fcos(config) => config.input,
            Self::Refinedet(config) => config.input,
            Self::M2det(config) => config.input,
            Self::Yolov3(config) => config.input(),
            Self::Darknet(config) => config.input(),
            Self::Rcnn(config) => config.input,
        }
    }
}

/// A cfg has the name of the published network whose text it is, and otherwise none of its own.
fn darknet_arch(config: &DarknetConfig) -> Arch {
    if config.cfg == DarknetConfig::tiny(&config.classes).cfg {
        Arch::Yolov3Tiny
    } else if config.cfg == DarknetConfig::spp(&config.classes).cfg {
        Arch::Yolov3Spp
    } else {
        Arch::Darknet
    }
}

/// Sets `key` (dotted, or the end of it alone where that is unique) of any configuration to the TOML value `text`.
///
/// # Errors
/// An unknown or ambiguous key (with the likely ones), or a value of the wrong kind or range.
pub fn set<T>(config: &T, key: &str, text: &str) -> Result<T, ConfigError>
where
    T: Serialize + for<'de> Deserialize<'de>,
{
    let mut tree = toml::Value::try_from(config).map_err(|e| ConfigError::Syntax(e.to_string()))?;
    let mut paths = Vec::new();
    leaves(&tree, &mut Vec::new(), &mut paths);
    let end = format!(".{key}");
    let matching: Vec<&Vec<String>> = paths.iter().filter(|p| format!(".{}", p.join(".")).ends_with(&end)).collect();
    let [path] = matching[..] else {
        let similar = paths.iter().map(|p| p.join(".")).filter(|p| p.contains(key) || key.contains(p.as_str()));
        let similar: Vec<String> = similar.take(12).collect();
        let similar = if similar.is_empty() { paths.iter().map(|p| p.join(".")).collect() } else { similar };
        return Err(ConfigError::UnknownKey { key: key.to_string(), similar: similar.join(", ") });
    };
    let bad = |reason: String| ConfigError::BadValue { key: key.to_string(), value: text.to_string(), reason };
    let mut slot = &mut tree;
    for part in path {
        slot = slot.get_mut(part).ok_or_else(|| bad("no such table".into()))?;
    }
    // A bare word is a string; a whole number where a real one stood stays one.
    let parsed: toml::Table = toml::from_str(&format!("v = {text}"))
        .or_else(|_| toml::from_str(&format!("v = {}", toml::Value::String(text.to_string()))))
        .map_err(|e: toml::de::Error| bad(e.to_string()))?;
    let value = parsed.get("v").cloned().ok_or_else(|| bad("empty".into()))?;
    *slot = match (&*slot, value) {
        (toml::Value::Float(_), toml::Value::Integer(n)) => toml::Value::Float(n as f64),
        (_, value) => value,
    };
    tree.try_into().map_err(|e: toml::de::Error| bad(e.to_string()))
}

fn leaves(tree: &toml::Value, path: &mut Vec<String>, out: &mut Vec<Vec<String>>) {
    match tree {
        toml::Value::Table(table) => {
            for (key, value) in table {
                path.push(key.clone());
                leaves(value, path, out);
                path.pop();
            }
        }
        _ => out.push(path.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_an_unknown_one_lists_the_known() {
        for arch in Arch::ALL {
            assert_eq!(arch.name().parse::<Arch>().unwrap(), arch);
        }
        let error = "ssd-huge".parse::<Arch>().unwrap_err().to_string();
        assert!(error.contains("ssd300"), "{error}");
    }

    #[test]
    fn priors_of_a_data_set_replace_those_of_yolo_alone() {
        let classes = vec!["a".to_string()];
        for (arch, count) in [(Arch::Yolov3Nano, 9), (Arch::Yolov3Tiny, 6), (Arch::Darknet, 9)] {
            let config = Config::new(arch, &classes);
            assert_eq!(config.shape_priors(), Some(count));
            let priors: Vec<[f32; 2]> = (1..=count).map(|k| [k as f32 * 7.0, k as f32 * 8.0]).collect();
            let own = config.with_shape_priors(&priors).unwrap();
            assert_ne!(own, config);
            assert_eq!(own.shape_priors(), Some(count));
            assert!(config.with_shape_priors(&priors[1..]).is_err());
        }
        assert!(Config::new(Arch::SsdNano, &classes).with_shape_priors(&[[1.0, 2.0]]).is_err());
    }

    #[test]
    fn a_key_may_be_the_end_of_its_path() {
        #[derive(Serialize, Deserialize)]
        struct Run {
            model: Config,
        }
        let run = Run { model: Config::new(Arch::RetinanetNano, &["a".to_string()]) };
        for key in ["model.backbone.depth", "backbone.depth"] {
            let Config::Retinanet(changed) = set(&run, key, "mobile-v2").unwrap().model else { panic!("{key}") };
            assert_eq!(changed.backbone.depth, Depth::MobileV2);
        }
        assert!(set(&run, "bone.depth", "mobile-v2").is_err());
    }

    #[test]
    fn every_config_survives_toml_and_overrides_reach_it() {
        let classes = vec!["a".to_string(), "b".to_string()];
        for arch in Arch::ALL {
            let config = Config::new(arch, &classes);
            assert_eq!(config.arch(), arch);
            let text = toml::to_string(&config).unwrap();
            assert_eq!(toml::from_str::<Config>(&text).unwrap(), config, "{text}");
            let changed = set(&config, "nms_threshold", "1").unwrap();
            let text = toml::to_string(&changed).unwrap();
            assert!(text.contains("nms_threshold = 1.0"), "{text}");
            assert!(matches!(set(&config, "nms_treshold", "0.3"), Err(ConfigError::UnknownKey { .. })));
            assert!(matches!(set(&config, "nms_threshold", "wide"), Err(ConfigError::BadValue { .. })));
        }
    }
}
