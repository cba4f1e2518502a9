//! The worker's single steps: phases, the way back, the range test, and what is told when the run pauses by itself.

use super::Worker;
use super::scoring::Ticker;
use crate::engine::event::{Event, Severity};
use crate::engine::latest::Stepped;
use crate::engine::outbox::Outbox;
use crate::imaging::preprocess::ChannelOrder;
use crate::train::blackbox::Record;
use crate::train::{Phase, RangeSettings, Run, StepReport, TrainError};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const TRAINING: &str = "training";
const RANGE_TEST: &str = "range test";
const BLACK_BOX: &str = "black box";
pub(super) const NO_RUN: &str = "there is no run; start one in the Step panel";
/// While training runs, the black box is told this often at most.
const TELL_EVERY: Duration = Duration::from_secs(1);

impl Worker {
    /// Takes in a finished iteration: its traces go into their slot, its numbers to whoever listens.
    pub(super) fn stepped(&mut self, mut report: StepReport) {
        if !report.traces.is_empty() {
            let traces = std::mem::take(&mut report.traces);
            self.show_step(StepReport { traces, ..report.clone() }, None);
        }
        if let (true, Some(scale)) = (report.skipped, report.loss_scale) {
            let message = format!(
                "iteration {}: gradients overflowed at loss scale {scale}; nothing was updated, the scale is halved",
                report.iteration
            );
            self.log(Severity::Warning, TRAINING, message);
        }
        let finished = self.run.as_ref().is_some_and(Run::is_finished);
        self.out.put(Event::Stepped(Arc::new(report)));
        if finished || self.told.elapsed() > TELL_EVERY {
            self.tell_remembered();
        }
        if finished {
            _ = self.end_run(true);
        }
    }

    /// Puts a probed iteration, or what is known of it before phase `next`, where panels look for it.
    fn show_step(&mut self, report: StepReport, next: Option<Phase>) {
        let Some(run) = &self.run else { return };
        let preprocess = run.detector.preprocess();
        self.slots.stepped.put(Stepped {
            report,
            next,
            mean: preprocess.mean,
            std: preprocess.std,
            bgr: preprocess.order == ChannelOrder::Bgr,
            classes: run.detector.classes().to_vec(),
            coder: run.detector.config().coder(),
        });
    }

    /// Takes in an iteration that did not come to its end: interrupted, failed, or paused by what was found in it.
    pub(super) fn not_stepped(&mut self, error: TrainError) {
        self.to_run = 0;
        let Some(run) = &mut self.run else { return };
        let (iteration, unrecorded) = (run.iteration, run.take_unrecorded());
        if let TrainError::Incident(incident) = &error {
            self.out.put(Event::Incident(Arc::new((**incident).clone())));
        }
        if let Some(problem) = unrecorded {
            self.log(Severity::Warning, BLACK_BOX, format!("this pause is not recorded: {problem}"));
        }
        if !error.is_interruption() {
            self.error(TRAINING, error);
        }
        self.tell_remembered();
        self.out.put(Event::Training { running: false, iteration });
    }

    /// Tells what the black box remembers.
    pub(super) fn tell_remembered(&mut self) {
        let Some(run) = &self.run else { return };
        let records: Vec<Record> = run.remembered().cloned().collect();
        self.told = Instant::now();
        self.out.put(Event::Remembered(Arc::new(records)));
    }

    /// Tells that the run stands still after a change of its weights, and looks at the image again.
    pub(super) fn settled(&mut self) {
        let Some(run) = &self.run else { return };
        let iteration = run.iteration;
        self.tell_remembered();
        self.out.put(Event::Training { running: false, iteration });
        self.show_again();
    }

    /// Ends what is left to run, and says so.
    fn halt(&mut self) {
        let was_running = std::mem::take(&mut self.to_run) > 0;
        if let Some(iteration) = self.run.as_ref().filter(|_| was_running).map(|run| run.iteration) {
            self.out.put(Event::Training { running: false, iteration });
        }
    }

    /// One phase of an iteration, probed.
    pub(super) fn phase(&mut self) {
        self.halt();
        let Some(run) = &mut self.run else {
            return self.error(TRAINING, NO_RUN);
        };
        let outcome = run.phase(true);
        tell_late(run, &mut self.out);
        match outcome {
            Ok((done, Some(report))) => {
                self.out.put(Event::Phase { done, next: None });
                self.stepped(report);
                self.settled();
            }
            Ok((done, None)) => {
                if let Some((partial, next)) = run.in_progress() {
                    self.show_step(partial, Some(next));
                    self.out.put(Event::Phase { done, next: Some(next) });
                }
            }
            Err(error) => self.not_stepped(error),
        }
    }

    /// To before the last iteration, or out of the one in progress.
    pub(super) fn back(&mut self) {
        self.halt();
        let Some(run) = &mut self.run else {
            return self.error(TRAINING, NO_RUN);
        };
        match run.back() {
            Ok(true) => {
                let (iteration, left) = (run.iteration, run.steps_back());
                self.out.put(Event::WentBack { iteration, left });
                self.settled();
            }
            Ok(false) => {
                let text = "no earlier state is kept; start the run with more states to step back to, or fork it from \
                            a kept checkpoint in the Runs panel";
                self.error(TRAINING, text);
            }
            Err(error) => self.error(TRAINING, error),
        }
    }

    /// Passes over the batch that the next iteration would learn from.
    pub(super) fn skip_batch(&mut self) {
        self.halt();
        let Some(run) = &mut self.run else {
            return self.error(TRAINING, NO_RUN);
        };
        let iteration = run.iteration;
        match run.skip_batch() {
            Ok(()) => self.out.put(Event::WentBack { iteration, left: self.steps_back() }),
            Err(error) => self.error(TRAINING, error),
        }
    }

    fn steps_back(&self) -> usize {
        self.run.as_ref().map_or(0, Run::steps_back)
    }

    /// A range test from the run's weights as they are; they are put back afterwards.
    pub(super) fn find_rate(&mut self) {
        self.halt();
        let Some(run) = &mut self.run else {
            return self.error(TRAINING, NO_RUN);
        };
        let iteration = run.iteration;
        let mut ticker = Ticker::new(&mut self.out, RANGE_TEST);
        let found = run.range_test(&RangeSettings::default(), |done, total| ticker.tell(done as usize, total as usize));
        match found {
            Ok(test) => {
                self.out.put(Event::RateFound(Arc::new(test)));
                self.finish(RANGE_TEST, Ok(()));
            }
            Err(error) => self.finish(RANGE_TEST, Err(error.to_string())),
        }
        self.out.put(Event::WentBack { iteration, left: self.steps_back() });
        self.out.put(Event::Training { running: false, iteration });
    }

    /// Repeats the step that paused the run in `folder`.
    pub(super) fn replay_incident(&mut self, folder: &Path) {
        match Run::replay(folder, &self.devices()) {
            Ok(replay) => self.out.put(Event::Replayed(Arc::new(replay))),
            Err(error) => self.error(BLACK_BOX, error),
        }
    }
}

/// Tells the validation that the run made up for, if it did.
pub(super) fn tell_late(run: &mut Run, out: &mut Outbox) {
    if let Some(validation) = run.take_late() {
        out.put(Event::Validated(Arc::new(validation)));
    }
}
