//! The black box: what the last batches were and what came of them, written down when the run pauses by itself.

use super::TrainError;
use super::exact::Exact;
use super::incident::Incident;
use super::part_losses::PartLosses;
use super::step::StepReport;
use crate::data::Batch;
use crate::data::loader::Position;
use crate::geometry::{BBox, Object};
use crate::imaging::Applied;
use crate::stats::median;
use crate::trace::Trace;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::path::Path;

/// File of the record, in the run's folder.
pub const RECORD: &str = "blackbox.json";
/// File of the state before the step, in the run's folder.
pub const STATE: &str = "blackbox.safetensors";
/// Losses that the moving median is taken over, and how many there must be before a spike is called one.
const WINDOW: usize = 64;
const ENOUGH: usize = 20;

/// One object that a batch was to teach.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObjectRecord {
    pub id: u64,
    pub class: u32,
    /// Input pixels: x0, y0, x1, y1.
    pub bbox: [Exact; 4],
}

/// One image of a batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageRecord {
    pub index: usize,
    pub name: String,
    /// What augmentation did.
    pub applied: Vec<Applied>,
    pub objects: Vec<ObjectRecord>,
    /// By anchor or RoI: of a probed iteration, and of the batch that paused the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<PartLosses>,
}

/// One iteration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Counts from 1.
    pub iteration: u64,
    pub learning_rate: Exact,
    /// Where its first batch stood: with the run's seed, the state of every generator.
    pub position: Position,
    /// Batches whose gradients were accumulated, image by image.
    pub batches: Vec<Vec<ImageRecord>>,
    pub parts: Vec<(String, Exact)>,
    pub loss: Option<Exact>,
    pub gradient_norm: Option<Exact>,
    /// Of each trained parameter, by name; none before the gradients are there.
    #[serde(default)]
    pub gradient_norms: Vec<(String, Exact)>,
    /// Of all pixels of all batches, for the iteration that paused the run.
    pub digest: Option<String>,
}

/// What is written at a pause.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recording {
    pub version: String,
    pub incident: Incident,
    /// The iteration that was not finished.
    pub record: Record,
    /// Those before it, oldest first.
    pub before: Vec<Record>,
}

impl Recording {
    /// Reads the recording of the run in `folder`.
    ///
    /// # Errors
    /// No recording, or one that does not read.
    pub fn read(folder: &Path) -> Result<Self, TrainError> {
        let path = folder.join(RECORD);
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            TrainError::Checkpoint(format!(
                "{what} ({error}); only a run that paused by itself has one: {}",
                path.display()
            ))
        };
        let text = std::fs::read_to_string(&path).map_err(|e| failed("the black box cannot be read", &e))?;
        serde_json::from_str(&text).map_err(|e| failed("the black box does not read", &e))
    }
}

/// Iterations and their losses, oldest first: what a jump is told from.
pub type LossWindow = VecDeque<(u64, f32)>;

/// The ring of the last iterations, and the recent losses.
#[derive(Debug, Default)]
pub struct BlackBox {
    ring: VecDeque<Record>,
    /// Part of the run's state: it decides where the run pauses.
    pub losses: LossWindow,
    /// An iteration whose jump was reported already and is let through.
    seen: Option<u64>,
}

impl BlackBox {
    /// Remembers a finished iteration, forgetting the oldest beyond `most`.
    pub fn push(&mut self, report: &StepReport, batches: &[Batch], position: Position, most: usize) {
        self.losses.push_back((report.iteration, report.loss));
        while self.losses.len() > WINDOW {
            self.losses.pop_front();
        }
        if most > 0 {
            let mut record = Record::new(report.iteration, report.learning_rate, position, batches);
            record.parts = exact_parts(&report.parts);
            record.loss = Some(report.loss.into());
            record.gradient_norm = Some(report.gradient_norm.into());
            record.gradient_norms = exact_norms(&report.gradient_norms);
            record.batches.iter_mut().flatten().zip(&report.traces).for_each(|(image, trace)| image.explain(trace));
            self.ring.push_back(record);
        }
        while self.ring.len() > most {
            self.ring.pop_front();
        }
    }

    /// The median that `loss` stands out of by more than `factor`, unless this iteration was reported before.
    pub fn spike(&mut self, iteration: u64, loss: f32, factor: f32) -> Option<f32> {
        if factor <= 0.0 || self.losses.len() < ENOUGH || self.seen == Some(iteration) {
            return None;
        }
        let mut recent: Vec<f32> = self.losses.iter().map(|(_, loss)| *loss).collect();
        let median = median(&mut recent)?;
        let jumps = loss > factor * median;
        if jumps {
            self.seen = Some(iteration);
        }
        jumps.then_some(median)
    }

    /// Takes the jump of `iteration` as reported.
    pub fn let_through(&mut self, iteration: u64) {
        self.seen = Some(iteration);
    }

    /// Forgets that a jump was reported: nobody has seen it.
    pub fn not_seen(&mut self) {
        self.seen = None;
    }

    /// Forgets records after `iteration`: the run went back.
    pub fn forget_after(&mut self, iteration: u64) {
        while self.ring.back().is_some_and(|record| record.iteration > iteration) {
            self.ring.pop_back();
        }
    }

    /// The iterations remembered, oldest first.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.ring.iter()
    }

    /// What is to be written about `incident`, which the iteration on `batches` met.
    pub fn recording(&self, incident: &Incident, mut record: Record, batches: &[Batch]) -> Recording {
        record.parts.clone_from(&incident.parts);
        record.digest = Some(digest(batches));
        Recording {
            version: env!("CARGO_PKG_VERSION").into(),
            incident: incident.clone(),
            record,
            before: self.ring.iter().cloned().collect(),
        }
    }
}

impl Record {
    /// What is known of an iteration before it has run.
    pub fn new(iteration: u64, rate: f32, position: Position, batches: &[Batch]) -> Self {
        Self {
            iteration,
            learning_rate: rate.into(),
            position,
            batches: batches.iter().map(images).collect(),
            parts: Vec::new(),
            loss: None,
            gradient_norm: None,
            gradient_norms: Vec::new(),
            digest: None,
        }
    }
}

/// The parts of a loss as they are recorded.
pub fn exact_parts(parts: &[(String, f32)]) -> Vec<(String, Exact)> {
    parts.iter().map(|(name, value)| (name.clone(), Exact::from(*value))).collect()
}

/// The norms of gradients as they are recorded.
pub fn exact_norms(norms: &[(String, f64)]) -> Vec<(String, Exact)> {
    norms.iter().map(|(name, norm)| (name.clone(), Exact(*norm))).collect()
}

fn images(batch: &Batch) -> Vec<ImageRecord> {
    let image = |(at, &index): (usize, &usize)| ImageRecord {
        index,
        name: batch.names.get(at).cloned().unwrap_or_default(),
        applied: batch.applied.get(at).cloned().unwrap_or_default(),
        objects: batch.objects.get(at).into_iter().flatten().map(ObjectRecord::new).collect(),
        losses: Vec::new(),
    };
    batch.indices.iter().enumerate().map(image).collect()
}

impl ImageRecord {
    /// Takes in what `trace` says of the image's losses.
    pub fn explain(&mut self, trace: &Trace) {
        self.losses = PartLosses::of(trace);
    }
}

impl ObjectRecord {
    fn new(object: &Object) -> Self {
        let b = object.bbox;
        Self { id: object.id, class: object.class, bbox: [b.x0, b.y0, b.x1, b.y1].map(Exact::from) }
    }

    /// The object again, with the mask and flags of `drawn`, its like in a batch drawn anew.
    pub fn restore(&self, drawn: Option<&Object>) -> Object {
        let [x0, y0, x1, y1] = self.bbox.map(Exact::single);
        let drawn = drawn.cloned().unwrap_or_default();
        Object { id: self.id, class: self.class, bbox: BBox::new(x0, y0, x1, y1), ..drawn }
    }
}

/// A number that changes with every bit of the pixels of `batches` (FNV-1a over their words).
pub fn digest(batches: &[Batch]) -> String {
    let pixels = batches.iter().flat_map(|batch| &batch.images);
    let hash = pixels.fold(0xcbf2_9ce4_8422_2325u64, |hash, pixel| {
        (hash ^ u64::from(pixel.to_bits())).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(iteration: u64, loss: f32) -> StepReport {
        StepReport { iteration, loss, ..StepReport::default() }
    }

    #[test]
    fn a_jump_is_called_once_and_only_when_the_median_is_known() {
        let mut black_box = BlackBox::default();
        assert_eq!(black_box.spike(0, 1e6, 10.0), None);
        for i in 0..30 {
            black_box.push(&report(i, 2.0), &[], Position::default(), 4);
        }
        assert_eq!(black_box.records().count(), 4);
        assert_eq!(black_box.spike(30, 19.0, 10.0), None);
        assert_eq!(black_box.spike(30, 21.0, 10.0), Some(2.0));
        assert_eq!(black_box.spike(30, 21.0, 10.0), None, "it was looked at");
        assert_eq!(black_box.spike(31, 21.0, 0.0), None, "turned off");
        black_box.forget_after(27);
        assert_eq!(black_box.records().last().map(|r| r.iteration), Some(27));
        black_box.forget_after(15);
        assert_eq!(black_box.records().count(), 0);
        let mut again = BlackBox { losses: black_box.losses, ..BlackBox::default() };
        again.let_through(31);
        assert_eq!((again.spike(31, 21.0, 10.0), again.spike(32, 21.0, 10.0)), (None, Some(2.0)));
    }

    #[test]
    fn an_object_comes_back_with_an_infinite_side() {
        let object = Object { id: 3, class: 2, bbox: BBox::new(0.1, 0.0, f32::INFINITY, 4.0), ..Object::default() };
        let text = serde_json::to_string(&ObjectRecord::new(&object)).unwrap();
        let read: ObjectRecord = serde_json::from_str(&text).unwrap();
        assert_eq!(read.restore(None), object);
    }
}
