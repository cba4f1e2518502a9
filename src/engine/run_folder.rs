//! What the folder of a run tells about it: model, data, progress, best score, how it stands.

use crate::train::blackbox::Recording;
use crate::train::{RunConfig, checkpoint, manifest};
use serde::Serialize;
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::str::FromStr;

/// Bytes at the end of `metrics.jsonl` that the last iteration is looked for in.
const TAIL: u64 = 1 << 16;

/// How a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Iterations are left: it runs, was stopped or was killed.
    Unfinished,
    /// It paused by itself; its black box says why.
    Paused,
    /// Ended before its last iteration, because validation no longer improved.
    EndedEarly,
    Finished,
}

impl Status {
    const ALL: [Self; 4] = [Self::Unfinished, Self::Paused, Self::EndedEarly, Self::Finished];

    /// For people and for the index.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unfinished => "unfinished",
            Self::Paused => "paused",
            Self::EndedEarly => "ended early",
            Self::Finished => "finished",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Status {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|s| s.name() == name).ok_or_else(|| format!("{name:?} is no status of a run"))
    }
}

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunSummary {
    /// Its folder, within the folder of runs.
    pub name: String,
    pub model: String,
    pub data: String,
    /// Seconds since 1970; 0 where the manifest does not say.
    pub started: u64,
    /// Iterations done, and those it is to do.
    pub iteration: u64,
    pub iterations: u64,
    /// Best AP of its validations, in 0..1.
    pub best_ap: Option<f64>,
    pub status: Status,
    /// The whole configuration, as TOML.
    pub config: String,
}

/// Reads the run in `folder`, called `name`; none when there is no configuration of a run that reads.
pub fn read(folder: &Path, name: &str) -> Option<RunSummary> {
    let text = std::fs::read_to_string(folder.join("config.toml")).ok()?;
    let config: RunConfig = toml::from_str(&text).ok()?;
    let last = checkpoint::last(folder);
    let best = checkpoint::saved_best(&last);
    let saved = checkpoint::saved_iteration(&last).unwrap_or(0);
    let iteration = last_iteration(folder).unwrap_or(0).max(saved);
    let train = &config.train;
    let patience = best.is_some_and(|best| train.patience > 0 && best.without >= train.patience);
    let paused = || Recording::read(folder).is_ok_and(|recording| recording.record.iteration == iteration + 1);
    // The last validation may have been interrupted: resumed, the run makes it up.
    let validated = train.validate_every == 0 || best.is_some_and(|best| best.validated >= train.iterations);
    let status = if iteration >= train.iterations && validated {
        Status::Finished
    } else if patience {
        Status::EndedEarly
    } else if paused() {
        Status::Paused
    } else {
        Status::Unfinished
    };
    Some(RunSummary {
        name: name.to_string(),
        model: config.model.arch().name().to_string(),
        data: config.data.clone(),
        started: manifest::read(folder).and_then(|manifest| manifest["started"].as_u64()).unwrap_or(0),
        iteration,
        iterations: train.iterations,
        best_ap: best.and_then(|best| best.ap),
        status,
        config: text,
    })
}

/// The iteration of the last whole line of `metrics.jsonl`.
fn last_iteration(folder: &Path) -> Option<u64> {
    let mut file = File::open(folder.join("metrics.jsonl")).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).ok()?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail).ok()?;
    let mut lines = tail.split(|byte| *byte == b'\n').rev();
    lines.find_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok()?["iteration"].as_u64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Arch;

    #[test]
    fn a_folder_tells_its_progress_past_a_torn_line_and_one_without_a_run_tells_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path(), "a"), None);
        let dataset = crate::data::open("shapes:train=1,val=1,test=1", None).unwrap();
        let mut config = RunConfig::new(Arch::SsdNano, "shapes", &dataset);
        std::fs::write(folder.path().join("config.toml"), toml::to_string(&config).unwrap()).unwrap();
        std::fs::write(folder.path().join("metrics.jsonl"), "{\"iteration\":4}\n{\"iteration\":5}\n{\"iter").unwrap();
        let summary = read(folder.path(), "a").unwrap();
        assert_eq!((summary.iteration, summary.model.as_str()), (5, "ssd-nano"));
        assert_eq!((summary.status, summary.best_ap), (Status::Unfinished, None));
        let line = format!("{{\"iteration\":{}}}\n", config.train.iterations);
        std::fs::write(folder.path().join("metrics.jsonl"), line).unwrap();
        assert_eq!(read(folder.path(), "a").unwrap().status, Status::Finished);
        config.train.validate_every = 10;
        std::fs::write(folder.path().join("config.toml"), toml::to_string(&config).unwrap()).unwrap();
        assert_eq!(read(folder.path(), "a").unwrap().status, Status::Unfinished, "its last validation is missing");
    }

    #[test]
    fn names_of_a_status_come_back() {
        for status in Status::ALL {
            assert_eq!(status.name().parse(), Ok(status));
        }
        assert!("gone".parse::<Status>().is_err());
    }
}
