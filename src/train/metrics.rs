//! `metrics.jsonl`: one line an iteration, appended, valid up to its last whole line whatever happens.

use super::{StepReport, TrainError, Validation};
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

/// A line longer than this is none that a run wrote.
const LONGEST: u64 = 1 << 20;
/// Most bytes that wait for a disk that is full.
const MOST_WAITING: usize = 16 << 20;

/// An open metrics file.
#[derive(Debug)]
pub struct Metrics {
    file: File,
    path: PathBuf,
    /// Lines that a full disk did not take yet.
    waiting: Vec<u8>,
}

impl Metrics {
    /// Opens `folder/metrics.jsonl`, dropping lines after `iteration` (a resumed run writes them again) and a torn last
    /// line.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn open(folder: &Path, iteration: u64) -> Result<Self, TrainError> {
        let path = folder.join("metrics.jsonl");
        let failed = |source: io::Error| TrainError::Write { path: path.clone(), source };
        if path.exists() {
            let file = File::open(&path).map_err(failed)?;
            let length = whole_lines(file, iteration).map_err(failed)?;
            let file = OpenOptions::new().write(true).open(&path).map_err(failed)?;
            file.set_len(length).map_err(failed)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(failed)?;
        Ok(Self { file, path, waiting: Vec::new() })
    }

    /// Appends one iteration, and before it what could not be written earlier.
    ///
    /// # Errors
    /// A disk that is full or gone; the line is kept for the next time.
    pub fn append(&mut self, report: &StepReport) -> Result<(), TrainError> {
        let parts: serde_json::Map<String, serde_json::Value> =
            report.parts.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let mut line = json!({
            "iteration": report.iteration,
            "loss": report.loss,
            "parts": parts,
            "learning_rate": report.learning_rate,
            "gradient_norm": report.gradient_norm,
            "seconds": report.seconds,
            "data_seconds": report.data_seconds,
        });
        if let Some(scale) = report.loss_scale {
            line["loss_scale"] = json!(scale);
        }
        if report.skipped {
            line["skipped"] = json!(true);
        }
        if let Some(validation) = &report.validation {
            line["validation"] = json!(validation);
        }
        self.waiting.extend_from_slice(format!("{line}\n").as_bytes());
        self.flush()
    }

    /// Adds a validation that came late to the last line, which is its iteration's. The file is whole at any moment.
    ///
    /// # Errors
    /// A disk that is full or gone; nothing has changed then.
    pub fn complete(&mut self, validation: &Validation) -> Result<(), TrainError> {
        self.flush()?;
        let failed = |source| TrainError::Write { path: self.path.clone(), source };
        let text = std::fs::read_to_string(&self.path).map_err(failed)?;
        let (before, last) = text.split_at(text.trim_end().rfind('\n').map_or(0, |at| at + 1));
        let Ok(mut line) = serde_json::from_str::<serde_json::Value>(last) else { return Ok(()) };
        // Somebody may have taken lines out of the file.
        if line["iteration"] != json!(validation.iteration) {
            return Ok(());
        }
        line["validation"] = json!(validation);
        crate::weights::write_atomically(&self.path, format!("{before}{line}\n").as_bytes())
            .map_err(TrainError::unwritten)?;
        self.file = OpenOptions::new().append(true).open(&self.path).map_err(failed)?;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), TrainError> {
        write_whole(&mut self.file, &mut self.waiting)
            .map_err(|source| TrainError::Write { path: self.path.clone(), source })
    }
}

/// Appends all of `waiting` and empties it, or takes back what was written of it and keeps it.
pub(super) fn write_whole(file: &mut File, waiting: &mut Vec<u8>) -> io::Result<()> {
    let length = file.metadata()?.len();
    let written = file.write_all(waiting);
    if written.is_err() {
        // Half a line must not stay in the middle; that it cannot be cut either is the same full disk.
        let _ = file.set_len(length);
        if waiting.len() > MOST_WAITING {
            waiting.clear();
        }
        return written;
    }
    waiting.clear();
    Ok(())
}

/// Bytes of the leading lines that are whole and not after `iteration`.
fn whole_lines(file: File, iteration: u64) -> io::Result<u64> {
    let mut reader = BufReader::new(file);
    let (mut length, mut line) = (0, Vec::new());
    loop {
        line.clear();
        let read = reader.by_ref().take(LONGEST).read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return Ok(length);
        }
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(&line) else {
            return Ok(length);
        };
        if value["iteration"].as_u64().is_none_or(|i| i > iteration) {
            return Ok(length);
        }
        length += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(iteration: u64) -> StepReport {
        StepReport { iteration, ..StepReport::default() }
    }

    fn iterations(folder: &Path) -> Vec<u64> {
        let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
        let number = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["iteration"].as_u64();
        text.lines().map(|line| number(line).unwrap()).collect()
    }

    #[test]
    fn a_torn_line_and_lines_after_the_checkpoint_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let mut metrics = Metrics::open(folder.path(), 0).unwrap();
        for iteration in 1..=5 {
            metrics.append(&report(iteration)).unwrap();
        }
        let path = folder.path().join("metrics.jsonl");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.truncate(bytes.len() - 7);
        std::fs::write(&path, bytes).unwrap();
        drop(Metrics::open(folder.path(), 10).unwrap());
        assert_eq!(iterations(folder.path()), [1, 2, 3, 4]);
        let mut metrics = Metrics::open(folder.path(), 2).unwrap();
        metrics.append(&report(3)).unwrap();
        assert_eq!(iterations(folder.path()), [1, 2, 3]);
    }

    #[test]
    fn a_late_validation_stands_in_its_iteration_s_line_as_if_it_had_come_in_time() {
        let (late, timely) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let validation = Validation { iteration: 2, loss: 0.1, ap: 0.25, ..Validation::default() };
        let report = |iteration| StepReport { iteration, loss: 0.1, gradient_norm: 1.0, ..StepReport::default() };
        let mut metrics = Metrics::open(late.path(), 0).unwrap();
        metrics.append(&report(1)).unwrap();
        metrics.complete(&validation).unwrap();
        metrics.append(&report(2)).unwrap();
        metrics.complete(&validation).unwrap();
        metrics.append(&report(3)).unwrap();
        let mut metrics = Metrics::open(timely.path(), 0).unwrap();
        for iteration in 1..=3 {
            let validation = Some(validation.clone()).filter(|validation| validation.iteration == iteration);
            metrics.append(&StepReport { validation, ..report(iteration) }).unwrap();
        }
        let text = |folder: &tempfile::TempDir| std::fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
        assert_eq!(text(&late), text(&timely));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error_and_its_lines_come_later() {
        let folder = tempfile::tempdir().unwrap();
        let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut metrics = Metrics { file: full, path: path.clone(), waiting: Vec::new() };
        let error = metrics.append(&report(1)).unwrap_err().to_string();
        assert!(error.contains("keeps its state") && error.contains("metrics.jsonl"), "{error}");
        metrics.file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        metrics.append(&report(2)).unwrap();
        assert_eq!(iterations(folder.path()), [1, 2]);
    }
}
