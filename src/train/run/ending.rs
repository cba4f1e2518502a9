//! What follows an update: the iteration is counted, validated and written down; and what of it an interruption or a full
//! disk left undone is made up for.

use super::Run;
use crate::train::TrainError;
use crate::train::events::Events;
use crate::train::metrics::Metrics;
use crate::train::step::StepReport;
use crate::train::validation::{Validation, validate};
use crate::train::{checkpoint, journal};
use std::path::Path;

impl Run {
    /// After the update: counts the iteration, validates, writes.
    pub(super) fn finish(&mut self) -> Result<StepReport, TrainError> {
        let Some(step) = self.step.take() else {
            return Err(TrainError::Settings("no iteration is in progress".into()));
        };
        let (mut report, batches) = step.finish();
        let begun = self.position;
        self.iteration += 1;
        self.position = batches.last().map_or(begun, |batch| batch.position);
        report.seconds = self.working;
        if let Some(scale) = &mut self.loss_scale {
            scale.follow(report.skipped);
        }
        self.black_box.push(&report, &batches, begun, self.config.train.black_box);
        drop(batches);
        let validated = self.validate_if_due();
        if let Ok(Some(validation)) = &validated {
            report.validation = Some(validation.clone());
        }
        self.unsaved |= self.checkpoint_is_due();
        // A failure of one must not keep the others from being tried.
        let written = self.write_report(&report);
        let saved = self.save_if_due();
        match validated {
            // An interrupted validation is made up for before the next iteration, or before the run ends.
            Err(error) if !error.is_interruption() => return Err(error),
            _ => {}
        }
        written?;
        saved?;
        Ok(report)
    }

    /// Does what the last iteration left undone: a validation that was interrupted, a checkpoint that a full disk did
    /// not take. Before an iteration, and after the last one, this is done by itself.
    ///
    /// # Errors
    /// A failing network, an interruption, or a disk that cannot be written; the next call tries again.
    pub fn catch_up(&mut self) -> Result<(), TrainError> {
        if let Some(validation) = self.validate_if_due()? {
            // The checkpoint of this iteration was written without it.
            self.unsaved |= self.checkpoint_is_due();
            (self.late, self.unwritten) = (Some(validation.clone()), Some(validation));
        }
        self.write_late()?;
        self.save_if_due()
    }

    /// The validation that [`Self::catch_up`] made last, once: no report has it.
    pub fn take_late(&mut self) -> Option<Validation> {
        self.late.take()
    }

    /// Whether a checkpoint belongs to the state as it is.
    fn checkpoint_is_due(&self) -> bool {
        let every = self.config.train.checkpoint_every;
        (every > 0 && self.iteration.is_multiple_of(every)) || self.is_last()
    }

    fn save_if_due(&mut self) -> Result<(), TrainError> {
        if self.unsaved {
            self.save_and_keep()?;
            self.unsaved = false;
        }
        Ok(())
    }

    fn write_report(&mut self, report: &StepReport) -> Result<(), TrainError> {
        let Some(folder) = self.folder.clone() else {
            return Ok(());
        };
        self.open_files(&folder, self.iteration - 1)?;
        // Both are tried: each keeps for the next time what it could not write.
        let metrics = self.metrics.as_mut().map_or(Ok(()), |metrics| metrics.append(report));
        let events = self.events.as_mut().map_or(Ok(()), |events| events.append(report));
        metrics.and(events)
    }

    /// Writes a validation that came late where it would have stood in time: beside the numbers of its iteration.
    fn write_late(&mut self) -> Result<(), TrainError> {
        let (Some(folder), Some(validation)) = (self.folder.clone(), self.unwritten.clone()) else {
            return Ok(());
        };
        self.open_files(&folder, self.iteration)?;
        if let Some(metrics) = &mut self.metrics {
            metrics.complete(&validation)?;
        }
        self.unwritten = None;
        self.events.as_mut().map_or(Ok(()), |events| events.append_validation(&validation))
    }

    /// Opens what iterations are written to, unless it is open, dropping what stands there after `iteration`.
    fn open_files(&mut self, folder: &Path, iteration: u64) -> Result<(), TrainError> {
        if self.metrics.is_none() {
            self.metrics = Some(Metrics::open(folder, iteration)?);
        }
        if self.events.is_none() {
            self.events = Some(Events::create(folder, iteration)?);
        }
        Ok(())
    }

    /// Whether the settings ask for a validation of the state as it is, and none was made.
    pub(super) fn validation_is_due(&self) -> bool {
        let (every, last) = (self.config.train.validate_every, self.config.train.iterations);
        let now = every > 0 && self.iteration > 0 && (self.iteration.is_multiple_of(every) || self.iteration == last);
        now && self.best.validated != self.iteration && self.validation_data.is_some()
    }

    /// Validates the averaged weights where the settings ask for it now; the best ones are saved.
    fn validate_if_due(&mut self) -> Result<Option<Validation>, TrainError> {
        let Some(data) = self.validation_data.clone().filter(|_| self.validation_is_due()) else {
            return Ok(None);
        };
        let own = self.optimizer.enter_average()?;
        let found = validate(&*self.detector, &data, &self.config.train, self.iteration);
        self.optimizer.leave_average(&own)?;
        let mut validation = found?;
        let mut best = self.best;
        validation.improved = best.take(&validation, self.config.train.best_by);
        if let Some(folder) = &self.folder {
            if validation.improved {
                let path = checkpoint::best(folder);
                if let Some(parent) = path.parent() {
                    let failed = |source| TrainError::Write { path: parent.to_path_buf(), source };
                    std::fs::create_dir_all(parent).map_err(failed)?;
                }
                self.save_weights(&path, false)?;
            }
            let better = if validation.improved { ", the best so far" } else { "" };
            let ap = if validation.ap < 0.0 { "—".to_string() } else { format!("{:.1}", 100.0 * validation.ap) };
            let text = format!(
                "validation after iteration {}: loss {:.4}, AP over IoU .5 to .95 {ap}{better}",
                self.iteration, validation.loss
            );
            journal::note(folder, &text)?;
        }
        // Only now: a validation whose best weights could not be written is done again.
        self.best = best;
        if self.stopped_early()
            && let Some(folder) = &self.folder
        {
            journal::note(folder, &format!("no better validation {} times: the run ends", self.best.without))?;
        }
        Ok(Some(validation))
    }
}
