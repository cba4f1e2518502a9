//! One configuration per detector: at once the defaults, the TOML file, the command line's overrides and the widgets.

use super::ssd::SsdConfig;
use crate::imaging::preprocess::Preprocess;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The architectures that can be built by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arch {
    #[serde(rename = "ssd300")]
    Ssd300,
    #[serde(rename = "ssd512")]
    Ssd512,
    SsdNano,
}

impl Arch {
    pub const ALL: [Self; 3] = [Self::Ssd300, Self::Ssd512, Self::SsdNano];

    /// The name used in files, on the command line and on the screen.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ssd300 => "ssd300",
            Self::Ssd512 => "ssd512",
            Self::SsdNano => "ssd-nano",
        }
    }

    /// Safetensors trained by this program on the built-in Shapes set, where there are any.
    pub fn embedded_weights(self) -> Option<&'static [u8]> {
        match self {
            Self::SsdNano => Some(include_bytes!("../../assets/ssd-nano.safetensors")),
            Self::Ssd300 | Self::Ssd512 => None,
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
pub enum Config {
    Ssd(SsdConfig),
}

impl Config {
    /// The published settings of `arch` for `classes`.
    pub fn new(arch: Arch, classes: &[String]) -> Self {
        match arch {
            Arch::Ssd300 => Self::Ssd(SsdConfig::ssd300(classes)),
            Arch::Ssd512 => Self::Ssd(SsdConfig::ssd512(classes)),
            Arch::SsdNano => Self::Ssd(SsdConfig::nano(classes)),
        }
    }

    pub fn arch(&self) -> Arch {
        match self {
            Self::Ssd(config) => config.arch,
        }
    }

    pub fn classes(&self) -> &[String] {
        match self {
            Self::Ssd(config) => &config.classes,
        }
    }

    /// How a picture becomes the network's input.
    pub fn preprocess(&self) -> &Preprocess {
        match self {
            Self::Ssd(config) => &config.preprocess,
        }
    }

    /// Height and width of the network's input, pixels.
    pub fn input(&self) -> (usize, usize) {
        match self {
            Self::Ssd(config) => config.input,
        }
    }
}

/// Sets `key` (dotted, or the last part alone where that is unique) of any configuration to the TOML value `text`.
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
    let matching: Vec<&Vec<String>> =
        paths.iter().filter(|p| p.join(".") == key || p.last().is_some_and(|last| last == key)).collect();
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
    fn every_config_survives_toml_and_overrides_reach_it() {
        let classes = vec!["a".to_string(), "b".to_string()];
        for arch in Arch::ALL {
            let config = Config::new(arch, &classes);
            let text = toml::to_string(&config).unwrap();
            assert_eq!(toml::from_str::<Config>(&text).unwrap(), config, "{text}");
            let Config::Ssd(changed) = set(&config, "nms_threshold", "1").unwrap();
            assert_eq!(changed.nms_threshold, 1.0);
            assert!(matches!(set(&config, "nms_treshold", "0.3"), Err(ConfigError::UnknownKey { .. })));
            assert!(matches!(set(&config, "nms_threshold", "wide"), Err(ConfigError::BadValue { .. })));
        }
    }
}
