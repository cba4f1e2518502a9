//! A run forked from another at a step, with changed settings from there on.

use super::checkpoint::{at_or_before, config_of, last};
use super::error::TrainError;
use super::run::{Run, RunConfig};
use super::validation::Best;
use crate::data;
use candle_core::Device;
use std::path::{Path, PathBuf};
use std::sync::Arc;

impl Run {
    /// Forks the run in `source` after `iteration` iterations: from the newest checkpoint at or before, the steps in
    /// between are run again under the old settings, then `config` holds. The fork lives in `folder`, with a
    /// checkpoint of its first state. `progress` hears the iterations run again and how many there are.
    ///
    /// # Errors
    /// No checkpoint that early, a folder that holds a run already, settings that do not fit the weights, or what
    /// [`Run::advance`] fails with.
    pub fn fork(
        source: &Path,
        iteration: u64,
        config: RunConfig,
        devices: &[Device],
        folder: PathBuf,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Self, TrainError> {
        if last(&folder).exists() {
            return Err(TrainError::Settings(format!(
                "a run is there already; choose another folder for the fork: {}",
                folder.display()
            )));
        }
        let (done, path) = at_or_before(source, iteration)?;
        let mut old = config_of(&path)?;
        // What the run was let through before, it is let through again.
        old.train.spike_factor = 0.0;
        let dataset = Arc::new(data::open(&old.data, old.split.as_deref())?);
        let same_data = (&old.data, &old.split) == (&config.data, &config.split);
        let mut run = Self::in_memory(old, dataset.clone(), devices)?;
        run.restore(&path)?;
        while run.iteration < iteration {
            if run.is_finished() {
                return Err(TrainError::Settings(format!(
                    "the run ended after iteration {}, before {iteration}: {}",
                    run.iteration,
                    source.display()
                )));
            }
            run.advance(false)?;
            progress(run.iteration - done, iteration - done);
        }
        let mut state = run.state()?;
        if !same_data || run.config.train.best_by != config.train.best_by {
            // A best measured otherwise cannot be beaten, or too easily.
            state.best = Best::default();
        }
        if !same_data {
            // Neither can a loss be held against those on other data.
            state.losses.clear();
        }
        drop(run);
        let dataset = if same_data { dataset } else { Arc::new(data::open(&config.data, config.split.as_deref())?) };
        let mut fork = Self::in_memory(config, dataset, devices)?;
        fork.put_back(state)?;
        fork.settle(folder, Some((source.display().to_string(), iteration)))?;
        fork.save()?;
        Ok(fork)
    }
}
