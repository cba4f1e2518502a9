//! Settings that survive a restart: one JSON file in the user's configuration folder, checked when read.

use super::action::Layer;
use super::layout::{self, Panel};
use super::outcome::Coloring;
use super::theme::Look;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Files of a later version are not read.
const VERSION: u32 = 2;
const RECENT: usize = 12;

/// What the window remembers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    pub version: u32,
    pub look: Look,
    pub scale: f32,
    pub score: f32,
    pub layers: Vec<Layer>,
    /// What the colours of detections tell.
    pub coloring: Coloring,
    pub recent: Vec<PathBuf>,
    /// Keys that differ from the defaults, by action name: "Ctrl+O".
    pub keys: BTreeMap<String, String>,
    pub layout: Option<egui_tiles::Tree<Panel>>,
    /// Layouts by the names that they were saved under.
    pub layouts: BTreeMap<String, egui_tiles::Tree<Panel>>,
    /// The folder that runs are written to and listed from.
    pub runs: PathBuf,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            version: VERSION,
            look: Look::Dark,
            scale: 1.0,
            score: 0.4,
            layers: vec![Layer::Truth, Layer::Predictions, Layer::Boxes, Layer::Masks, Layer::Labels],
            coloring: Coloring::Class,
            recent: Vec::new(),
            keys: BTreeMap::new(),
            layout: None,
            layouts: BTreeMap::new(),
            runs: PathBuf::from("runs"),
        }
    }
}

impl Settings {
    /// `$XDG_CONFIG_HOME/boxwright/settings.json`, or under `~/.config` (Windows: `%APPDATA%`).
    pub fn path() -> Option<PathBuf> {
        let folder = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let base = folder("XDG_CONFIG_HOME")
            .or_else(|| folder("APPDATA"))
            .or_else(|| folder("HOME").map(|home| home.join(".config")))?;
        Some(base.join("boxwright").join("settings.json"))
    }

    /// Reads the file; what is missing, of another version or out of range becomes the default.
    pub fn load() -> Self {
        let Some(path) = Self::path() else { return Self::default() };
        let Ok(text) = std::fs::read_to_string(&path) else { return Self::default() };
        Self::read(&text).unwrap_or_else(|| {
            // What this version does not understand is soon written over: keys and layouts stay in a copy beside it.
            let copy = path.with_extension("json.old");
            if let Err(error) = std::fs::copy(&path, &copy) {
                tracing::warn!("settings that cannot be read could not be kept as {}: {error}", copy.display());
            }
            Self::default()
        })
    }

    /// None for a text that is not settings of this version.
    fn read(text: &str) -> Option<Self> {
        let read = serde_json::from_str::<Self>(text).ok();
        let mut settings = read.filter(|settings| (1..=VERSION).contains(&settings.version))?;
        // In version 1 boxes were no layer but always there.
        for layer in [Layer::Boxes, Layer::Masks] {
            if settings.version == 1 && !settings.shows(layer) {
                settings.toggle(layer);
            }
        }
        settings.version = VERSION;
        settings.scale = if settings.scale.is_finite() { settings.scale.clamp(0.5, 3.0) } else { 1.0 };
        settings.score = if settings.score.is_finite() { settings.score.clamp(0.0, 1.0) } else { 0.4 };
        settings.recent.truncate(RECENT);
        settings.layout = settings.layout.filter(layout::is_complete);
        settings.layouts.retain(|_, layout| layout::is_complete(layout));
        if settings.runs.as_os_str().is_empty() {
            settings.runs = Self::default().runs;
        }
        Some(settings)
    }

    /// Writes the file.
    ///
    /// # Errors
    /// A folder that cannot be made or written.
    pub fn save(&self) -> Result<(), String> {
        let Some(path) = Self::path() else {
            return Err("there is no home folder to keep settings in".into());
        };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|e| format!("cannot make the folder ({e}): {}", folder.display()))?;
        }
        let text = serde_json::to_string_pretty(self).map_err(|e| e.to_string())?;
        crate::weights::write_atomically(&path, text.as_bytes()).map_err(|e| e.to_string())
    }

    pub fn shows(&self, layer: Layer) -> bool {
        self.layers.contains(&layer)
    }

    pub fn toggle(&mut self, layer: Layer) {
        if self.shows(layer) {
            self.layers.retain(|l| *l != layer);
        } else {
            self.layers.push(layer);
        }
    }

    /// Puts `path` first among the recent ones.
    pub fn remember(&mut self, path: PathBuf) {
        self.recent.retain(|p| *p != path);
        self.recent.insert(0, path);
        self.recent.truncate(RECENT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_round_trip_and_nonsense_becomes_the_default() {
        let mut settings = Settings { score: 0.7, layout: Some(layout::default_layout()), ..Settings::default() };
        settings.toggle(Layer::Anchors);
        settings.look = Look::HighContrast;
        settings.layouts.insert("mine".into(), layout::default_layout());
        let read = Settings::read(&serde_json::to_string(&settings).unwrap()).unwrap();
        assert_eq!(read.score, 0.7);
        assert!(read.shows(Layer::Anchors) && read.layout.is_some() && read.layouts.contains_key("mine"));
        assert_eq!(read.look, Look::HighContrast);
        assert!(Settings::read("{nonsense").is_none());
        assert!(Settings::read(r#"{"version":99,"score":0.9}"#).is_none());
        assert_eq!(Settings::read(r#"{"version":1,"score":7.0}"#).map(|settings| settings.score), Some(1.0));
        let first = Settings::read(r#"{"version":1,"layers":["Labels"]}"#).unwrap();
        assert_eq!((first.version, first.layers), (2, vec![Layer::Labels, Layer::Boxes, Layer::Masks]));
        let second = Settings::read(r#"{"version":2,"layers":["Labels"]}"#).unwrap();
        assert_eq!(second.layers, [Layer::Labels]);
    }

    #[test]
    fn recent_files_are_unique_and_newest_first() {
        let mut settings = Settings::default();
        for name in ["a", "b", "a"] {
            settings.remember(name.into());
        }
        assert_eq!(settings.recent, [PathBuf::from("a"), PathBuf::from("b")]);
    }
}
