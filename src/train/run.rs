//! A training run: detector, data, optimiser and its folder on disk, advanced one iteration at a time.

use super::config::TrainConfig;
use super::metrics::Metrics;
use super::optimizer::Optimizer;
use super::step::{StepReport, step, training_pass};
use crate::data::DataError;
use crate::data::dataset::Dataset;
use crate::data::loader::{Batch, Loader, LoaderSettings, Position};
use crate::detect::{Arch, Config, Detector, build};
use crate::weights::WeightsError;
use candle_core::Device;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Why a run cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error(
        "the {what} became {value} ({parts}); nothing was updated. Lower the learning rate or look at the images: {images}"
    )]
    NotFinite { what: String, value: f32, parts: String, images: String },
    #[error("cannot write ({source}); free space or choose another folder: {path}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("checkpoint: {0}")]
    Checkpoint(String),
    #[error("{0}")]
    Settings(String),
}

/// Model and training settings together: what `config.toml` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunConfig {
    /// Data set path, or "shapes".
    pub data: String,
    /// Its split to learn from; the data set's own choice when left out.
    #[serde(default)]
    pub split: Option<String>,
    pub train: TrainConfig,
    pub model: Config,
}

impl RunConfig {
    /// Defaults of `arch` for the classes of `dataset`.
    pub fn new(arch: Arch, data: &str, dataset: &Dataset) -> Self {
        Self {
            data: data.to_string(),
            split: Some(dataset.split.clone()),
            train: TrainConfig::new(arch),
            model: Config::new(arch, &dataset.classes),
        }
    }
}

/// A run in progress.
pub struct Run {
    pub config: RunConfig,
    pub detector: Box<dyn Detector>,
    pub optimizer: Optimizer,
    pub folder: Option<PathBuf>,
    /// Iterations done.
    pub iteration: u64,
    /// Where the next batch starts.
    pub position: Position,
    dataset: Arc<Dataset>,
    loader: Option<Loader>,
    metrics: Option<Metrics>,
}

impl Run {
    /// A fresh run. With `folder`, configuration, metrics and checkpoints are written there.
    ///
    /// # Errors
    /// Settings that make no run, or a folder that cannot be written.
    pub fn new(
        config: RunConfig,
        dataset: Arc<Dataset>,
        device: &Device,
        folder: Option<PathBuf>,
    ) -> Result<Self, TrainError> {
        check(&config, &dataset)?;
        let detector = build(&config.model, device, config.train.seed)?;
        let optimizer = Optimizer::new(detector.params(), &config.train);
        let run = Self {
            config,
            detector,
            optimizer,
            folder,
            iteration: 0,
            position: Position { epoch: 0, batch: 0 },
            dataset,
            loader: None,
            metrics: None,
        };
        run.describe_folder()?;
        Ok(run)
    }

    /// Takes a run up again where its last checkpoint left it.
    ///
    /// # Errors
    /// No checkpoint, or one that does not fit.
    pub fn resume(
        config: RunConfig,
        dataset: Arc<Dataset>,
        device: &Device,
        folder: &Path,
    ) -> Result<Self, TrainError> {
        let mut run = Self::new(config, dataset, device, Some(folder.to_path_buf()))?;
        run.restore(folder)?;
        Ok(run)
    }

    /// The data that the run learns from.
    pub fn dataset(&self) -> &Arc<Dataset> {
        &self.dataset
    }

    pub fn is_finished(&self) -> bool {
        self.iteration >= self.config.train.iterations
    }

    /// Iterations that one pass over the data takes.
    pub fn iterations_per_epoch(&self) -> u64 {
        (self.dataset.images.len() as u64 / self.config.train.batch.max(1) as u64).max(1)
    }

    /// The batch that the next iteration will see.
    ///
    /// # Errors
    /// Data of which nothing can be read.
    pub fn next_batch(&mut self) -> Result<Batch, TrainError> {
        if self.loader.is_none() {
            let train = &self.config.train;
            let settings = LoaderSettings {
                batch: train.batch,
                workers: train.workers,
                shuffle: true,
                seed: train.seed,
                augmentation: train.augmentation,
                preprocess: self.detector.preprocess().clone(),
                drop_difficult: train.drop_difficult,
                masks: self.config.model.needs_masks(),
            };
            self.loader = Some(Loader::new(self.dataset.clone(), settings, self.position)?);
        }
        match &mut self.loader {
            Some(loader) => Ok(loader.next()?),
            None => Err(TrainError::Settings("the loader did not start".into())),
        }
    }

    /// One iteration; `probe` fills the report's traces. An interruption or an error leaves the run as it was.
    ///
    /// # Errors
    /// See [`step`].
    pub fn advance(&mut self, probe: bool) -> Result<StepReport, TrainError> {
        let start = Instant::now();
        let batch = self.next_batch()?;
        let rate = self.config.train.schedule.rate(self.iteration, self.config.train.iterations);
        let pass = training_pass(&batch, probe);
        let result = step(&*self.detector, &mut self.optimizer, &batch, rate, self.iteration, pass);
        let mut report = match result {
            Ok(report) => report,
            Err(error) => {
                // The batch was drawn but not learnt from: the next one must be the same.
                self.loader = None;
                return Err(error);
            }
        };
        self.iteration += 1;
        self.position = batch.position;
        report.seconds = start.elapsed().as_secs_f64();
        if let Some(folder) = &self.folder {
            if self.metrics.is_none() {
                self.metrics = Some(Metrics::open(folder, self.iteration - 1)?);
            }
            if let Some(metrics) = &mut self.metrics {
                metrics.append(folder, &report)?;
            }
        }
        let every = self.config.train.checkpoint_every;
        if (every > 0 && self.iteration.is_multiple_of(every)) || self.is_finished() {
            self.save()?;
        }
        Ok(report)
    }

    fn describe_folder(&self) -> Result<(), TrainError> {
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        std::fs::create_dir_all(folder).map_err(|source| TrainError::Write { path: folder.clone(), source })?;
        let config = toml::to_string(&self.config).map_err(|e| TrainError::Settings(e.to_string()))?;
        let manifest = serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "data": self.config.data,
            "data_digest": format!("{:016x}", self.dataset.digest()),
            "device": format!("{:?}", self.detector.params().device()),
            "seed": self.config.train.seed,
            "command": std::env::args().collect::<Vec<_>>(),
        });
        for (name, text) in [("config.toml", config), ("manifest.json", format!("{manifest:#}\n"))] {
            crate::weights::write_atomically(&folder.join(name), text.as_bytes())
                .map_err(|e| TrainError::Checkpoint(e.to_string()))?;
        }
        Ok(())
    }
}

fn check(config: &RunConfig, dataset: &Dataset) -> Result<(), TrainError> {
    let settings = |text: String| Err(TrainError::Settings(text));
    if config.train.batch == 0 {
        return settings("a batch needs at least one image: set batch".into());
    }
    if dataset.images.is_empty() {
        return settings(format!("{} ({}) has no images to train on", dataset.name, dataset.split));
    }
    if dataset.images.iter().all(|i| i.objects.is_empty()) {
        return settings(format!("{} ({}) has images but no objects to learn", dataset.name, dataset.split));
    }
    if config.model.classes() != dataset.classes {
        return settings(format!(
            "the model's classes ({}) are not the data set's ({})",
            config.model.classes().join(", "),
            dataset.classes.join(", ")
        ));
    }
    Ok(())
}
