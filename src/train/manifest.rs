//! `manifest.json`: what made a run, and every session that took it up again.

use super::TrainError;
use super::events::seconds_now;
use serde_json::{Value, json};
use std::path::Path;

/// What is known when a run begins.
#[derive(Clone, Debug, Default)]
pub struct Manifest {
    pub data: String,
    pub data_digest: u64,
    pub device: String,
    pub seed: u64,
    /// Run and iteration that it was forked from.
    pub forked_from: Option<(String, u64)>,
}

impl Manifest {
    /// Writes the manifest of a new run.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), TrainError> {
        let mut manifest = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "data": self.data,
            "data_digest": format!("{:016x}", self.data_digest),
            "device": self.device,
            "seed": self.seed,
            "command": command(),
            "started": seconds_now() as u64,
        });
        if let Some((run, iteration)) = &self.forked_from {
            manifest["forked_from"] = json!({ "run": run, "iteration": iteration });
        }
        save(folder, &manifest)
    }

    /// Adds a session to the manifest that is there; writes a new one when there is none that reads.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn resume(&self, folder: &Path, iteration: u64) -> Result<(), TrainError> {
        let Some(mut manifest) = read(folder) else {
            return self.write(folder);
        };
        let session = json!({
            "iteration": iteration,
            "at": seconds_now() as u64,
            "device": self.device,
            "data_digest": format!("{:016x}", self.data_digest),
            "command": command(),
        });
        match manifest.get_mut("resumed").and_then(Value::as_array_mut) {
            Some(sessions) => sessions.push(session),
            None => manifest["resumed"] = json!([session]),
        }
        save(folder, &manifest)
    }
}

/// The manifest of the run in `folder`, when there is one that reads.
pub fn read(folder: &Path) -> Option<Value> {
    let text = std::fs::read_to_string(folder.join("manifest.json")).ok()?;
    serde_json::from_str::<Value>(&text).ok().filter(Value::is_object)
}

fn command() -> Vec<String> {
    std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect()
}

fn save(folder: &Path, manifest: &Value) -> Result<(), TrainError> {
    crate::weights::write_atomically(&folder.join("manifest.json"), format!("{manifest:#}\n").as_bytes())
        .map_err(TrainError::unwritten)
}
