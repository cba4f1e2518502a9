//! Replays the step that paused a run, from its record and the state before it, and compares bit by bit.

use super::blackbox::{Recording, STATE, digest, exact_parts};
use super::checkpoint::config_of;
use super::error::TrainError;
use super::exact::Exact;
use super::incident::{Fault, Incident};
use super::run::Run;
use crate::data;
use crate::data::loader::Batch;
use candle_core::Device;
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;

/// What the replay found.
#[derive(Clone, Debug, Serialize)]
pub struct Replay {
    pub recording: Recording,
    /// What the replay met; none where the step went through.
    pub error: Option<String>,
    pub loss: Option<Exact>,
    /// Everything that is not as recorded; empty for a step that repeats bit for bit.
    pub differences: Vec<String>,
}

impl Run {
    /// Replays the step that paused the run in `folder`. Nothing is written.
    ///
    /// # Errors
    /// A run that never paused by itself, data that is gone, or a failing operation.
    pub fn replay(folder: &Path, devices: &[Device]) -> Result<Replay, TrainError> {
        let recording = Recording::read(folder)?;
        let state = folder.join(STATE);
        let mut config = config_of(&state)?;
        config.train.validate_every = 0;
        // A recorded jump is traced below, from its recorded median.
        config.train.spike_factor = 0.0;
        let dataset = Arc::new(data::open(&config.data, config.split.as_deref())?);
        let mut run = Self::in_memory(config, dataset, devices)?;
        run.restore(&state)?;
        let mut differences = Vec::new();
        let mut compare = |what: &str, recorded: String, found: String| {
            if recorded != found {
                differences.push(format!("{what}: recorded {recorded}, found {found}"));
            }
        };
        compare("iteration", recording.record.iteration.to_string(), (run.iteration + 1).to_string());
        let batches = run.recorded_batches(&recording)?;
        compare("pixels", recording.record.digest.clone().unwrap_or_default(), digest(&batches));
        let (error, loss, parts) = run.repeat(batches, &recording)?;
        compare("incident", recording.incident.to_string(), error.clone().unwrap_or_default());
        for (name, recorded) in &recording.incident.parts {
            let found = parts.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
            if !found.is_some_and(|found| found.same(*recorded)) {
                let found = found.map_or("nothing".to_string(), |found| found.to_string());
                compare(name.as_str(), format!("{recorded} exactly"), found);
            }
        }
        Ok(Replay { recording, error, loss, differences })
    }

    /// The recorded batches drawn anew, with the objects as recorded.
    fn recorded_batches(&mut self, recording: &Recording) -> Result<Vec<Batch>, TrainError> {
        let mut batches = Vec::with_capacity(recording.record.batches.len());
        for images in &recording.record.batches {
            let mut batch = self.next_batch()?;
            for (drawn, image) in batch.objects.iter_mut().zip(images) {
                let restored = image.objects.iter().enumerate().map(|(at, object)| object.restore(drawn.get(at)));
                *drawn = restored.collect();
            }
            batches.push(batch);
        }
        Ok(batches)
    }

    /// Runs the step; gives what it met, the loss and its parts.
    fn repeat(&mut self, batches: Vec<Batch>, recording: &Recording) -> Result<Met, TrainError> {
        let met = |incident: Incident| (Some(incident.to_string()), Some(incident.value), incident.parts);
        self.begin(batches, false);
        // A jump is told from its recorded median: the states of earlier versions have no losses before it.
        if let (Fault::Spike, Some(median)) = (recording.incident.fault, recording.incident.median) {
            return Ok(met(self.jump_from(median.single())?));
        }
        match self.advance(false) {
            Ok(report) => Ok((None, Some(report.loss.into()), exact_parts(&report.parts))),
            Err(TrainError::Incident(incident)) => Ok(met(*incident)),
            Err(error) => Err(error),
        }
    }
}

/// Text of the incident, loss, parts.
type Met = (Option<String>, Option<Exact>, Vec<(String, Exact)>);
