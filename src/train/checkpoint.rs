//! Checkpoints: everything that a resumed run needs to equal the unbroken one, in one safetensors file.

use super::TrainError;
use super::optimizer::{AVERAGE, SQUARE, VELOCITY};
use super::run::{Run, RunConfig};
use crate::data::loader::Position;
use crate::detect::Config;
use crate::weights::{self, TensorData};
use std::collections::BTreeMap;
use std::path::Path;

/// Metadata keys.
pub const CONFIG: &str = "boxwright.config";
pub const MODEL: &str = "boxwright.model";
pub const ARCHITECTURE: &str = "boxwright.architecture";
pub const CLASSES: &str = "boxwright.classes";
pub const PREPROCESS: &str = "boxwright.preprocess";
pub const ITERATION: &str = "boxwright.iteration";
pub const POSITION: &str = "boxwright.position";
pub const VERSION: &str = "boxwright.version";

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

impl Run {
    /// Writes `last.safetensors` (weights, velocity, average, iteration, place in the data) and `weights.safetensors`
    /// (what to deploy: the averaged weights alone). Each is whole or absent at any moment.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn save(&self) -> Result<(), TrainError> {
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        let folder = folder.join("weights");
        std::fs::create_dir_all(&folder).map_err(|source| TrainError::Write { path: folder.clone(), source })?;
        let f32s = |(name, shape, values)| (name, shape, TensorData::F32(values));
        let mut all: Vec<(String, Vec<usize>, TensorData)> = Vec::new();
        for (name, (shape, values)) in self.detector.params().values()? {
            all.push((name, shape, TensorData::F32(values)));
        }
        all.extend(self.optimizer.state()?.into_iter().map(f32s));
        let mut metadata = describe(self.detector.config(), self.iteration);
        let position = self.position;
        metadata.insert(POSITION.into(), format!("{} {}", position.epoch, position.batch));
        let config = toml::to_string(&self.config).map_err(|e| TrainError::Checkpoint(e.to_string()))?;
        metadata.insert(CONFIG.into(), config);
        let failed = |e: weights::WeightsError| TrainError::Checkpoint(e.to_string());
        weights::write_safetensors(&folder.join("last.safetensors"), &all, &metadata).map_err(failed)?;
        self.save_weights(&folder.join("weights.safetensors"), false)
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
            .map_err(|e| TrainError::Checkpoint(e.to_string()))
    }

    /// Takes up the run that `folder/weights/last.safetensors` holds. Parameters are loaded into the detector,
    /// which must have been built from [`saved_config`].
    ///
    /// # Errors
    /// A missing or foreign file, or one whose tensors do not fit.
    pub(super) fn restore(&mut self, folder: &Path) -> Result<(), TrainError> {
        let path = folder.join("weights").join("last.safetensors");
        let failed = |e: weights::WeightsError| TrainError::Checkpoint(e.to_string());
        let checkpoint = weights::open(&path).map_err(failed)?;
        let report = self.detector.params().load(&checkpoint).map_err(failed)?;
        if !report.missing.is_empty() || !report.mismatched.is_empty() {
            return Err(TrainError::Checkpoint(format!("it does not fit the model it describes\n{report}")));
        }
        for stored in checkpoint.tensors() {
            if [VELOCITY, SQUARE, AVERAGE].iter().any(|prefix| stored.name.starts_with(prefix)) {
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
        Ok(())
    }
}

/// The configuration saved in `folder/weights/last.safetensors`.
///
/// # Errors
/// A missing file, or one that no run of this program wrote.
pub fn saved_config(folder: &Path) -> Result<RunConfig, TrainError> {
    let path = folder.join("weights").join("last.safetensors");
    let checkpoint = weights::open(&path).map_err(|e| TrainError::Checkpoint(e.to_string()))?;
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
    weights::write_safetensors(path, &tensors, &describe(detector.config(), 0))
        .map_err(|e| TrainError::Checkpoint(e.to_string()))
}
