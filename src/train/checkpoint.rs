//! Checkpoints: everything that a resumed run needs to equal the unbroken one, in one safetensors file.

use super::TrainError;
use super::exact::Exact;
use super::optimizer::{AVERAGE, SQUARE, UPDATES, VELOCITY};
use super::run::{Run, RunConfig};
use super::scaling::LossScale;
use super::validation::Best;
use crate::data::loader::Position;
use crate::detect::Config;
use crate::weights::{self, TensorData};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Metadata keys.
pub const CONFIG: &str = "boxwright.config";
pub const MODEL: &str = "boxwright.model";
pub const ARCHITECTURE: &str = "boxwright.architecture";
pub const CLASSES: &str = "boxwright.classes";
pub const PREPROCESS: &str = "boxwright.preprocess";
pub const ITERATION: &str = "boxwright.iteration";
pub const POSITION: &str = "boxwright.position";
pub const VERSION: &str = "boxwright.version";
pub const BEST: &str = "boxwright.best";
pub const LOSSES: &str = "boxwright.losses";
pub const LOSS_SCALE: &str = "boxwright.loss_scale";

/// First part of the name of a kept checkpoint; its iteration follows.
const KEPT: &str = "step-";

/// What describes the weights of `config`, whatever program reads them.
pub fn describe(config: &Config, iteration: u64) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("format".to_string(), "pt".to_string()),
        (ARCHITECTURE.to_string(), config.arch().name().to_string()),
        (MODEL.to_string(), json(config)),
        (CLASSES.to_string(), json(config.classes())),
        (PREPROCESS.to_string(), json(config.preprocess())),
        (ITERATION.to_string(), iteration.to_string()),
        (VERSION.to_string(), env!("CARGO_PKG_VERSION").to_string()),
    ])
}

fn json<T: serde::Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// The model that a safetensors file of this program describes, when it does.
pub fn described_model(metadata: &BTreeMap<String, String>) -> Option<Config> {
    metadata.get(MODEL).and_then(|text| serde_json::from_str(text).ok())
}

/// Where the weights of the run in `folder` are.
fn weights_folder(folder: &Path) -> PathBuf {
    folder.join("weights")
}

/// The checkpoint that the run in `folder` goes on from.
pub fn last(folder: &Path) -> PathBuf {
    weights_folder(folder).join("last.safetensors")
}

/// The weights of the best validation of the run in `folder`.
pub fn best(folder: &Path) -> PathBuf {
    weights_folder(folder).join("best.safetensors")
}

/// The checkpoints kept beside the last one, by iteration, rising.
pub fn kept(folder: &Path) -> Vec<(u64, PathBuf)> {
    let entries = fs::read_dir(weights_folder(folder)).into_iter().flatten().flatten();
    let numbered = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let number = name.strip_prefix(KEPT)?.strip_suffix(".safetensors")?;
        Some((number.parse().ok()?, entry.path()))
    });
    let mut kept: Vec<(u64, PathBuf)> = numbered.collect();
    kept.sort();
    kept
}

/// The newest checkpoint of the run in `folder` with at most `iteration` iterations done, and how many those are.
///
/// # Errors
/// A run without a checkpoint that early.
pub fn at_or_before(folder: &Path, iteration: u64) -> Result<(u64, PathBuf), TrainError> {
    let path = last(folder);
    let newest = saved_iteration(&path).map(|done| (done, path));
    let all = kept(folder).into_iter().chain(newest);
    let found = all.filter(|(done, _)| *done <= iteration).max_by_key(|(done, _)| *done);
    found.ok_or_else(|| {
        let known: Vec<String> = kept(folder).iter().map(|(done, _)| done.to_string()).collect();
        let known = if known.is_empty() { "none".to_string() } else { known.join(", ") };
        TrainError::Checkpoint(format!(
            "there is none at or before iteration {iteration}; kept ones: {known} (see keep_checkpoints): {}",
            folder.display()
        ))
    })
}

/// Iterations done when the checkpoint `path` was written; none when it is no checkpoint of a run.
pub fn saved_iteration(path: &Path) -> Option<u64> {
    weights::open(path).ok()?.metadata().get(ITERATION)?.parse().ok()
}

/// The best validation that the checkpoint `path` knows of.
pub fn saved_best(path: &Path) -> Option<Best> {
    serde_json::from_str(weights::open(path).ok()?.metadata().get(BEST)?).ok()
}

/// Removes what an earlier run left in `folder` that a new one would not overwrite, and its last checkpoint: taking up
/// the new run before its own first one must not go on with the old.
pub(super) fn clear(folder: &Path) -> std::io::Result<()> {
    let stale = kept(folder).into_iter().map(|(_, path)| path);
    let recording = [super::blackbox::RECORD, super::blackbox::STATE].map(|name| folder.join(name));
    let files = [last(folder), best(folder)].into_iter().chain(recording);
    for path in stale.chain(files) {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

impl Run {
    /// Writes `last.safetensors` (weights, velocity, average, iteration, place in the data, recent losses) and
    /// `weights.safetensors` (what to deploy: the averaged weights alone). Each is whole or absent at any moment.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn save(&self) -> Result<(), TrainError> {
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        let folder = weights_folder(folder);
        fs::create_dir_all(&folder).map_err(|source| TrainError::Write { path: folder.clone(), source })?;
        self.save_state(&folder.join("last.safetensors"))?;
        self.save_weights(&folder.join("weights.safetensors"), false)
    }

    /// [`Self::save`], keeping the checkpoint under its iteration's name too, and no more of those than the settings
    /// say.
    pub(super) fn save_and_keep(&self) -> Result<(), TrainError> {
        self.save()?;
        let most = self.config.train.keep_checkpoints;
        let Some(folder) = self.folder.as_ref().filter(|_| most > 0) else {
            return Ok(());
        };
        let path = weights_folder(folder).join(format!("{KEPT}{:08}.safetensors", self.iteration));
        let failed = |source| TrainError::Write { path: path.clone(), source };
        // A later save gives its file the name and leaves this one alone, so a second name costs nothing.
        match fs::hard_link(last(folder), &path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                fs::remove_file(&path).and_then(|()| fs::hard_link(last(folder), &path)).map_err(failed)?;
            }
            // No links here: a copy takes the name when it is whole.
            Err(_) => {
                let partial = path.with_extension("tmp");
                let copied = fs::copy(last(folder), &partial).and_then(|_| fs::rename(&partial, &path));
                if copied.is_err() {
                    let _ = fs::remove_file(&partial);
                }
                copied.map_err(failed)?;
            }
        }
        let kept = kept(folder);
        for (_, old) in kept.iter().take(kept.len().saturating_sub(most)) {
            fs::remove_file(old).map_err(failed)?;
        }
        Ok(())
    }

    /// Writes everything that the run needs to go on from here.
    pub(super) fn save_state(&self, path: &Path) -> Result<(), TrainError> {
        let f32s = |(name, shape, values)| (name, shape, TensorData::F32(values));
        let mut all: Vec<(String, Vec<usize>, TensorData)> = Vec::new();
        for (name, (shape, values)) in self.detector.params().values()? {
            all.push((name, shape, TensorData::F32(values)));
        }
        all.extend(self.optimizer.state()?.into_iter().map(f32s));
        let mut metadata = describe(self.detector.config(), self.iteration);
        let position = self.position;
        metadata.insert(POSITION.into(), format!("{} {}", position.epoch, position.batch));
        metadata.insert(BEST.into(), json(&self.best));
        let losses: Vec<(u64, Exact)> = self.black_box.losses.iter().map(|&(at, loss)| (at, loss.into())).collect();
        metadata.insert(LOSSES.into(), json(&losses));
        if let Some(scale) = &self.loss_scale {
            metadata.insert(LOSS_SCALE.into(), json(scale));
        }
        let config = toml::to_string(&self.config).map_err(|e| TrainError::Checkpoint(e.to_string()))?;
        metadata.insert(CONFIG.into(), config);
        weights::write_safetensors(path, &all, &metadata).map_err(TrainError::unwritten)
    }

    /// Writes the averaged weights alone, as f32 or f16.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save_weights(&self, path: &Path, half: bool) -> Result<(), TrainError> {
        let deployed = self.optimizer.averaged()?.into_iter().map(|(name, shape, values)| {
            let data = if half {
                TensorData::F16(values.iter().map(|&v| half::f16::from_f32(v)).collect())
            } else {
                TensorData::F32(values)
            };
            (name, shape, data)
        });
        let deployed: Vec<_> = deployed.collect();
        weights::write_safetensors(path, &deployed, &describe(self.detector.config(), self.iteration))
            .map_err(TrainError::unwritten)
    }

    /// Takes up the run that the checkpoint `path` holds. Parameters are loaded into the detector, which must have
    /// been built from [`config_of`] it.
    ///
    /// # Errors
    /// A missing or foreign file, or one whose tensors do not fit.
    pub(super) fn restore(&mut self, path: &Path) -> Result<(), TrainError> {
        let failed = |e: weights::WeightsError| TrainError::Checkpoint(e.to_string());
        let checkpoint = weights::open(path).map_err(failed)?;
        let report = self.detector.params().load(&checkpoint).map_err(failed)?;
        if !report.missing.is_empty() || !report.mismatched.is_empty() {
            return Err(TrainError::Checkpoint(format!("it does not fit the model it describes\n{report}")));
        }
        for stored in checkpoint.tensors() {
            if [VELOCITY, SQUARE, AVERAGE, UPDATES].iter().any(|prefix| stored.name.starts_with(prefix)) {
                let values = checkpoint.read_f32(stored).map_err(failed)?;
                if !self.optimizer.restore(&stored.name, &values)? {
                    return Err(TrainError::Checkpoint(format!("{} fits no parameter", stored.name)));
                }
            }
        }
        let number = |text: Option<&String>| text.and_then(|t| t.parse::<u64>().ok());
        let metadata = checkpoint.metadata();
        let position = metadata.get(POSITION).and_then(|text| {
            let (epoch, batch) = text.split_once(' ')?;
            Some(Position { epoch: epoch.parse().ok()?, batch: batch.parse().ok()? })
        });
        let (Some(iteration), Some(position)) = (number(metadata.get(ITERATION)), position) else {
            return Err(TrainError::Checkpoint(format!(
                "iteration or data position is missing, so the run cannot go on: {}",
                path.display()
            )));
        };
        self.iteration = iteration;
        self.position = position;
        // Earlier versions counted iterations.
        if !checkpoint.tensors().iter().any(|stored| stored.name == UPDATES) {
            self.optimizer.assume_updates(iteration);
        }
        let best: Option<Best> = metadata.get(BEST).and_then(|text| serde_json::from_str(text).ok());
        // What was measured otherwise says nothing about what is measured now.
        let saved: Option<RunConfig> = metadata.get(CONFIG).and_then(|text| toml::from_str(text).ok());
        let same = saved.is_none_or(|saved| saved.train.best_by == self.config.train.best_by);
        self.best = best.filter(|_| same).unwrap_or_default();
        let scale: Option<LossScale> = metadata.get(LOSS_SCALE).and_then(|text| serde_json::from_str(text).ok());
        self.loss_scale = LossScale::resumed(self.config.train.precision, scale);
        // Checkpoints of earlier versions have none.
        let losses: Option<Vec<(u64, Exact)>> = metadata.get(LOSSES).and_then(|text| serde_json::from_str(text).ok());
        self.black_box.losses = losses.into_iter().flatten().map(|(at, loss)| (at, loss.single())).collect();
        Ok(())
    }
}

/// The configuration saved in `folder/weights/last.safetensors`.
///
/// # Errors
/// A missing file, or one that no run of this program wrote.
pub fn saved_config(folder: &Path) -> Result<RunConfig, TrainError> {
    config_of(&last(folder))
}

/// The configuration that the checkpoint `path` was saved with.
///
/// # Errors
/// A missing file, or one that no run of this program wrote.
pub fn config_of(path: &Path) -> Result<RunConfig, TrainError> {
    let checkpoint = weights::open(path).map_err(|e| TrainError::Checkpoint(e.to_string()))?;
    let text = checkpoint.metadata().get(CONFIG).ok_or_else(|| {
        TrainError::Checkpoint(format!("no run of this program wrote it, so it cannot be resumed: {}", path.display()))
    })?;
    toml::from_str(text).map_err(|e| TrainError::Checkpoint(format!("its configuration does not read: {e}")))
}

/// Writes the weights of a detector that no run owns.
///
/// # Errors
/// A file that cannot be written.
pub fn save_model(detector: &dyn crate::detect::Detector, path: &Path) -> Result<(), TrainError> {
    let values = detector.params().values()?.into_iter();
    let tensors: Vec<_> = values.map(|(name, (shape, values))| (name, shape, TensorData::F32(values))).collect();
    weights::write_safetensors(path, &tensors, &describe(detector.config(), 0)).map_err(TrainError::unwritten)
}
