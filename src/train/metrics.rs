//! `metrics.jsonl`: one line an iteration, appended, valid up to its last whole line whatever happens.

use super::{StepReport, TrainError};
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

/// An open metrics file.
#[derive(Debug)]
pub struct Metrics {
    file: File,
}

impl Metrics {
    /// Opens `folder/metrics.jsonl`, dropping lines after `iteration` (a resumed run writes them again) and a torn last line.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn open(folder: &Path, iteration: u64) -> Result<Self, TrainError> {
        let path = folder.join("metrics.jsonl");
        let failed = |source: std::io::Error| TrainError::Write { path: path.clone(), source };
        if path.exists() {
            let mut kept = Vec::new();
            for line in BufReader::new(File::open(&path).map_err(failed)?).lines() {
                let Ok(line) = line else { break };
                let Ok(value) = serde_json::from_str::<serde_json::Value>(&line) else { break };
                if value["iteration"].as_u64().is_some_and(|i| i > iteration) {
                    break;
                }
                kept.extend_from_slice(line.as_bytes());
                kept.push(b'\n');
            }
            crate::weights::write_atomically(&path, &kept).map_err(|e| TrainError::Checkpoint(e.to_string()))?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(failed)?;
        Ok(Self { file })
    }

    /// Appends one iteration.
    ///
    /// # Errors
    /// A disk that is full or gone.
    pub fn append(&mut self, folder: &Path, report: &StepReport) -> Result<(), TrainError> {
        let parts: serde_json::Map<String, serde_json::Value> =
            report.parts.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let line = json!({
            "iteration": report.iteration,
            "loss": report.loss,
            "parts": parts,
            "learning_rate": report.learning_rate,
            "gradient_norm": report.gradient_norm,
            "seconds": report.seconds,
            "data_seconds": report.data_seconds,
        });
        let path = folder.join("metrics.jsonl");
        writeln!(self.file, "{line}").map_err(|source| TrainError::Write { path, source })
    }
}
