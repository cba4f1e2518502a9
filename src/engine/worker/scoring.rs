//! The worker's evaluations: one model or results file on the open data, and up to four side by side.

use super::{Worker, rebuilt};
use crate::data::dataset::Dataset;
use crate::data::read_results;
use crate::detect::Detector;
use crate::engine::compare::{
    CompareSummary, ComparedImage, SLOT_NAMES, SLOTS, SideScore, Slot, SlotContent, SlotInterval, SlotSource,
    SlotSummary,
};
use crate::engine::details::{EvalDetails, MaskScores, tallies};
use crate::engine::evaluate::{Detected, detect_all, score_results, truth_of};
use crate::engine::event::{EvalSummary, Event, Severity};
use crate::engine::model::{self, Model};
use crate::engine::outbox::Outbox;
use crate::eval::bootstrap::{BootstrapSettings, paired_ap50};
use crate::eval::misses::Misses;
use crate::eval::{ImageResult, ImageTruth};
use crate::ops::interrupt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const EVALUATION: &str = "evaluation";
const COMPARISON: &str = "comparison";

/// Tells how far a task over images is, ten times a second.
pub(super) struct Ticker<'a> {
    out: &'a mut Outbox,
    task: &'static str,
    start: Instant,
    told: Instant,
}

impl<'a> Ticker<'a> {
    pub(super) fn new(out: &'a mut Outbox, task: &'static str) -> Self {
        let now = Instant::now();
        Self { out, task, start: now, told: now }
    }

    pub(super) fn tell(&mut self, done: usize, total: usize) {
        if self.told.elapsed() > Duration::from_millis(100) || done == total {
            self.told = Instant::now();
            let per_second = done as f64 / self.start.elapsed().as_secs_f64().max(1e-9);
            let (done, total) = (done as u64, total as u64);
            self.out.put(Event::Progress { task: self.task.into(), done, total, per_second });
        }
    }
}

/// A data set's name for people.
fn title(dataset: &Dataset) -> String {
    format!("{} {}", dataset.name, dataset.split)
}

/// COCO results for every image of a data set, in its order, best first.
fn results_of(path: &Path, dataset: &Dataset) -> Result<Vec<ImageResult>, String> {
    let lists = read_results(path, dataset).map_err(|e| e.to_string())?;
    let images = dataset.images.iter().zip(lists).map(|(image, mut detections)| {
        // Stable: equal scores keep the file's order.
        detections.sort_by(|a, b| b.score.total_cmp(&a.score));
        ImageResult { image_id: image.id, detections }
    });
    Ok(images.collect())
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

impl Worker {
    // ---- one side ----

    /// With `misses` also why objects are missed by detections of at least that score.
    pub(super) fn evaluate(&mut self, misses: Option<f32>) {
        let Some(dataset) = self.data.clone() else {
            return self.error(EVALUATION, "no data is open");
        };
        let start = Instant::now();
        let mut misses = misses.map(|score| Misses::new(score, dataset.classes.len()));
        let detected = {
            let (detector, source): (&dyn Detector, String) = match (&self.run, &self.model) {
                (Some(run), _) => (&*run.detector, format!("training run, iteration {}", run.iteration)),
                (None, Some(model)) => (&*model.detector, model.source.clone()),
                (None, None) => return self.error(EVALUATION, "no model is loaded"),
            };
            let name = format!("{} ({source})", detector.config().arch());
            let mut ticker = Ticker::new(&mut self.out, EVALUATION);
            detect_all(detector, &dataset, None, misses.as_mut(), |done, total| ticker.tell(done, total))
                .map(|detected| (detected, name))
        };
        let outcome = detected.and_then(|(detected, name)| {
            self.warn_of_skipped(EVALUATION, &detected.skipped);
            self.summarize(&dataset, name, detected.results, misses, start)
        });
        self.finish(EVALUATION, outcome);
    }

    pub(super) fn evaluate_results(&mut self, path: &Path) {
        let Some(dataset) = self.data.clone() else {
            return self.error(EVALUATION, "no data is open: open the data set that the results were made on");
        };
        let start = Instant::now();
        let outcome = results_of(path, &dataset)
            .and_then(|results| self.summarize(&dataset, file_name(path), results, None, start));
        self.finish(EVALUATION, outcome);
    }

    /// Scores what was found in the open data and explains it.
    fn summarize(
        &mut self,
        dataset: &Dataset,
        model: String,
        results: Vec<ImageResult>,
        misses: Option<Misses>,
        start: Instant,
    ) -> Result<(), String> {
        let classes = dataset.classes.len();
        let truth = truth_of(dataset);
        let result = score_results(&truth, &results, classes);
        interrupt::check().map_err(|e| e.to_string())?;
        let masks = MaskScores::new(&truth, &results, classes).map(Arc::new);
        interrupt::check().map_err(|e| e.to_string())?;
        let details = Arc::new(EvalDetails::new(truth, results, classes));
        interrupt::check().map_err(|e| e.to_string())?;
        let confusion = Arc::new(details.confusion(classes, details.best_score()));
        self.evaluated = Some(details.clone());
        self.out.put(Event::Evaluated(Arc::new(EvalSummary {
            model,
            data: title(dataset),
            classes: dataset.classes.clone(),
            result,
            images: dataset.images.len(),
            seconds: start.elapsed().as_secs_f64(),
            details,
            confusion,
            misses: misses.map(Arc::new),
            masks,
        })));
        Ok(())
    }

    pub(super) fn count_confusion(&mut self, score: f32) {
        let (Some(details), Some(dataset)) = (&self.evaluated, &self.data) else {
            return self.error(EVALUATION, "nothing has been evaluated on the open data yet");
        };
        let confusion = details.confusion(dataset.classes.len(), f64::from(score));
        self.out.put(Event::Confused(Arc::new(confusion)));
    }

    fn warn_of_skipped(&mut self, task: &str, skipped: &[String]) {
        for image in skipped {
            self.log(Severity::Warning, task, format!("counted as without detections: {image}"));
        }
    }

    /// Reports a failure, then that the task is over.
    pub(super) fn finish(&mut self, task: &str, outcome: Result<(), String>) {
        let cancelled = outcome.is_err();
        if let Err(error) = outcome {
            self.error(task, error);
        }
        self.out.put(Event::Idle { task: task.into(), cancelled });
    }

    // ---- side by side ----

    pub(super) fn set_slot(&mut self, slot: usize, source: &SlotSource) {
        let filled = match source {
            SlotSource::Loaded => self.copy_of_loaded(),
            SlotSource::Model { choice, weights } => {
                let loaded = model::load(choice, weights.as_deref(), false, &self.device);
                loaded.map(of_model).map_err(|e| e.to_string())
            }
            SlotSource::Results(path) => self.slot_of_results(path.clone()),
        };
        let Some(place) = self.compared.get_mut(slot) else {
            return self.error(COMPARISON, format!("there is no slot {slot}; there are {SLOTS}"));
        };
        match filled {
            Ok(filled) => {
                *place = Some(filled);
                self.tell_slots();
            }
            Err(error) => self.error(COMPARISON, error),
        }
    }

    pub(super) fn clear_slot(&mut self, slot: usize) {
        if let Some(place) = self.compared.get_mut(slot) {
            *place = None;
        }
        self.tell_slots();
    }

    fn tell_slots(&mut self) {
        let summaries = self.compared.each_ref().map(|slot| slot.as_ref().map(|slot| slot.summary.clone()));
        self.out.put(Event::Slots(summaries));
    }

    fn copy_of_loaded(&self) -> Result<Slot, String> {
        let Some(model) = &self.model else {
            return Err("no model is loaded".into());
        };
        let detector = rebuilt(&*model.detector, model.detector.config(), &self.device).map_err(|e| e.to_string())?;
        Ok(of_model(Model { detector, report: model.report.clone(), source: model.source.clone() }))
    }

    fn slot_of_results(&self, path: PathBuf) -> Result<Slot, String> {
        let Some(dataset) = &self.data else {
            return Err("no data is open: open the data set that the results were made on".into());
        };
        let results = results_of(&path, dataset)?;
        let count: usize = results.iter().map(|image| image.detections.len()).sum();
        let detail = format!("{count} detections from {}", path.display());
        let summary = SlotSummary { name: file_name(&path), detail };
        Ok(Slot { summary, content: SlotContent::Results { path, results } })
    }

    /// Results belong to one data set: on another one they are read anew, or let go.
    pub(super) fn read_slots_again(&mut self) {
        let mut changed = false;
        for index in 0..SLOTS {
            let Some(Some(Slot { content: SlotContent::Results { path, .. }, .. })) = self.compared.get(index) else {
                continue;
            };
            let again = self.slot_of_results(path.clone());
            changed = true;
            let (filled, error) = match again {
                Ok(slot) => (Some(slot), None),
                Err(error) => (None, Some(error)),
            };
            if let Some(place) = self.compared.get_mut(index) {
                *place = filled;
            }
            if let Some(error) = error {
                let slot = SLOT_NAMES.get(index).copied().unwrap_or_default();
                self.log(Severity::Warning, COMPARISON, format!("slot {slot} is empty now: {error}"));
            }
        }
        if changed {
            self.tell_slots();
        }
    }

    pub(super) fn compare_image(&mut self, index: usize) {
        let Some(dataset) = self.data.clone() else {
            return self.error(COMPARISON, "no data is open");
        };
        let picture = match dataset.picture(index) {
            Ok(picture) => picture,
            Err(error) => return self.error(COMPARISON, error),
        };
        let mut compared = ComparedImage { index, classes: dataset.classes.clone(), ..ComparedImage::default() };
        for (slot, side) in self.compared.iter().zip(&mut compared.sides) {
            let Some(slot) = slot else { continue };
            match slot.detect(&dataset, index, &picture, &mut compared.classes) {
                Ok(found) => *side = Some(found),
                Err(error) => return self.error(COMPARISON, error),
            }
        }
        self.slots.compared.put(compared);
        self.out.put(Event::ImageCompared { index });
    }

    pub(super) fn compare_data(&mut self) {
        let outcome = self.score_slots();
        self.finish(COMPARISON, outcome);
    }

    fn score_slots(&mut self) -> Result<(), String> {
        let Some(dataset) = self.data.clone() else {
            return Err("no data is open".into());
        };
        let start = Instant::now();
        let filled: Vec<(usize, &Slot)> =
            self.compared.iter().enumerate().filter_map(|(i, slot)| Some((i, slot.as_ref()?))).collect();
        if filled.len() < 2 {
            return Err("fill two slots at least: with the loaded model, another model or a results file".into());
        }
        let run_by = |slot: &Slot| matches!(slot.content, SlotContent::Model(_));
        let total = filled.iter().filter(|(_, slot)| run_by(slot)).count() * dataset.images.len();
        let mut before = 0;
        let mut ticker = Ticker::new(&mut self.out, COMPARISON);
        let mut skipped = Vec::new();
        let mut sides: Vec<(usize, String, Vec<ImageResult>)> = Vec::new();
        for (index, slot) in filled {
            let results = match &slot.content {
                SlotContent::Model(model) => {
                    let Detected { results, skipped: own } =
                        detect_all(&*model.detector, &dataset, None, None, |done, _| ticker.tell(before + done, total))
                            .map_err(|error| format!("slot {}: {error}", SLOT_NAMES[index]))?;
                    before += dataset.images.len();
                    skipped = own;
                    results
                }
                SlotContent::Results { results, .. } => results.clone(),
            };
            sides.push((index, slot.summary.name.clone(), results));
        }
        self.warn_of_skipped(COMPARISON, &skipped);
        let summary = contrast(&dataset, &sides, start)?;
        self.out.put(Event::DataCompared(Arc::new(summary)));
        Ok(())
    }
}

fn of_model(model: Model) -> Slot {
    let arch = model.detector.config().arch();
    let detail = format!("{arch} with {} weights", model.source);
    Slot { summary: SlotSummary { name: arch.to_string(), detail }, content: SlotContent::Model(Box::new(model)) }
}

/// Scores of all sides, and what each gains over the first.
fn contrast(
    dataset: &Dataset,
    sides: &[(usize, String, Vec<ImageResult>)],
    start: Instant,
) -> Result<CompareSummary, String> {
    let classes = dataset.classes.len();
    let truth: Vec<ImageTruth> = truth_of(dataset);
    let mut summary =
        CompareSummary { data: title(dataset), images: dataset.images.len(), ..CompareSummary::default() };
    for (slot, name, results) in sides {
        interrupt::check().map_err(|e| e.to_string())?;
        summary.sides.push(SideScore {
            slot: *slot,
            name: name.clone(),
            stats: score_results(&truth, results, classes).stats,
            tallies: tallies(&truth, results, classes),
        });
    }
    if let Some(((first, _, reference), others)) = sides.split_first() {
        for (second, _, results) in others {
            interrupt::check().map_err(|e| e.to_string())?;
            let interval = paired_ap50(&truth, reference, results, classes, BootstrapSettings::default());
            summary.intervals.push(SlotInterval { first: *first, second: *second, interval });
        }
    }
    summary.seconds = start.elapsed().as_secs_f64();
    Ok(summary)
}
