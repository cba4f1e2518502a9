//! One iteration over all devices: a step for each on its part of every batch, advanced together.

use super::Replicas;
use crate::data::loader::Batch;
use crate::detect::Detector;
use crate::trace::Trace;
use crate::train::TrainError;
use crate::train::incident::{Incident, Scene};
use crate::train::optimizer::{Gradients, Optimizer};
use crate::train::step::{Phase, StepInProgress, StepReport, StepSettings};
use std::ops::Range;

/// An iteration that has not ended, on one device or several.
pub struct SharedStep {
    /// One for each device that has a part, in order.
    pub(super) shards: Vec<StepInProgress>,
    /// The batches as they were drawn; none where there is one device, whose step has them.
    whole: Vec<Batch>,
}

impl SharedStep {
    /// Begins an iteration whose gradient is the mean over `batches` and over `devices`, or over the first of them where
    /// a batch has fewer images.
    pub fn new(batches: Vec<Batch>, settings: StepSettings, devices: usize) -> Self {
        let devices = batches.iter().map(|batch| batch.indices.len()).fold(devices, usize::min);
        if devices <= 1 {
            return Self { shards: vec![StepInProgress::new(batches, settings)], whole: Vec::new() };
        }
        let shard = |rank| {
            let parts = batches.iter().map(|batch| part(batch, share(batch, rank, devices))).collect();
            StepInProgress::new(parts, settings).into_shard()
        };
        Self { shards: (0..devices).map(shard).collect(), whole: batches }
    }

    /// See [`StepInProgress::next_phase`].
    pub fn next_phase(&self) -> Option<Phase> {
        self.shards.first()?.next_phase()
    }

    pub fn batches(&self) -> &[Batch] {
        match self.shards.first() {
            Some(own) if self.whole.is_empty() => own.batches(),
            _ => &self.whole,
        }
    }

    /// See [`StepInProgress::progress`].
    pub fn progress(&self) -> (usize, usize) {
        self.shards.first().map_or((0, 0), StepInProgress::progress)
    }

    /// Those of [`StepReport::gradient_norms`], once they are known.
    pub fn gradient_norms(&self) -> &[(String, f64)] {
        self.shards.first().map(StepInProgress::gradient_norms).unwrap_or_default()
    }

    /// The mean loss over all batches and devices, once it is known.
    pub fn loss(&self) -> Option<f32> {
        let losses: Option<Vec<f32>> = self.shards.iter().map(StepInProgress::loss).collect();
        Some(mean(losses?))
    }

    /// The parts of the loss, as far as they are known: means over the devices.
    pub fn parts(&self) -> Vec<(String, f32)> {
        mean_parts(self.shards.iter().map(StepInProgress::parts))
    }

    /// Runs the next phase on every device. After the last batch's backward pass the gradients are brought together;
    /// the first device makes the update, and the others are given what came of it before their next phase.
    ///
    /// # Errors
    /// As [`StepInProgress::advance`]; an incident names what is wrong in the part of the device that met it.
    pub fn advance(
        &mut self,
        replicas: &mut Replicas,
        detector: &dyn Detector,
        optimizer: &mut Optimizer,
    ) -> Result<Phase, TrainError> {
        let several = self.shards.len() > 1;
        let Some(own) = self.shards.first_mut() else {
            return Err(TrainError::Settings("an iteration on no device".into()));
        };
        match own.next_phase() {
            Some(next) if next != Phase::Update && several => {
                replicas.follow(detector.params())?;
                let phase = replicas.advance(&mut self.shards, detector, optimizer)?;
                if self.next_phase() == Some(Phase::Update) {
                    self.bring_together(replicas, detector, optimizer)?;
                }
                Ok(phase)
            }
            _ => own.advance(detector, optimizer),
        }
    }

    /// Puts the mean gradient into the first device's step. Where it is no number, the part with such a gradient names
    /// the image.
    fn bring_together(
        &mut self,
        replicas: &Replicas,
        detector: &dyn Detector,
        optimizer: &Optimizer,
    ) -> Result<(), TrainError> {
        let all: Vec<&Gradients> = self.shards.iter().map(|step| &step.gradients).collect();
        let mean = replicas.exchange.mean(&all)?;
        let Some((own, others)) = self.shards.split_first_mut() else { return Ok(()) };
        own.gradients = mean;
        let measured = own.measure(detector, optimizer);
        for (step, replica) in others.iter_mut().zip(&replicas.others) {
            if matches!(measured, Err(TrainError::Incident(_))) {
                let network = replica.network()?;
                step.measure(&*network.detector, &network.optimizer)?;
            }
            step.gradients = Gradients::default();
        }
        measured
    }

    /// Names what a jump of the loss from `median` comes from, in the part with the largest loss.
    ///
    /// # Errors
    /// A failing operation, an interruption, or an iteration whose loss is not known.
    pub fn spike(
        &self,
        replicas: &Replicas,
        detector: &dyn Detector,
        optimizer: &Optimizer,
        median: f32,
    ) -> Result<Incident, TrainError> {
        let unknown = || TrainError::Settings("the loss is not known yet".into());
        let losses = self.shards.iter().map(|step| step.loss().unwrap_or(f32::NEG_INFINITY)).enumerate();
        let (worst, _) = losses.max_by(|a, b| a.1.total_cmp(&b.1)).ok_or_else(unknown)?;
        let scene = self.scene(worst, replicas, detector, optimizer).ok_or_else(unknown)?;
        Ok(scene.spike(self.loss().ok_or_else(unknown)?, median, &self.parts())?)
    }

    /// The traces of a further pass over the batch in progress, image by image.
    ///
    /// # Errors
    /// A failing operation, or an interruption.
    pub fn look_again(
        &self,
        replicas: &Replicas,
        detector: &dyn Detector,
        optimizer: &Optimizer,
    ) -> Result<Vec<Trace>, TrainError> {
        let mut traces = Vec::new();
        for rank in 0..self.shards.len() {
            if let Some(scene) = self.scene(rank, replicas, detector, optimizer) {
                traces.extend(scene.look_again()?);
            }
        }
        Ok(traces)
    }

    /// Where an incident in the part of the device `rank` is looked for.
    fn scene<'a>(
        &'a self,
        rank: usize,
        replicas: &'a Replicas,
        detector: &'a dyn Detector,
        optimizer: &'a Optimizer,
    ) -> Option<Scene<'a>> {
        let step = self.shards.get(rank)?;
        match rank.checked_sub(1) {
            None => step.scene(detector, optimizer),
            Some(other) => {
                let network = replicas.others.get(other)?.network.as_ref()?;
                step.scene(&*network.detector, &network.optimizer)
            }
        }
    }

    /// See [`StepInProgress::partial`].
    pub fn partial(&self) -> StepReport {
        joined(self.shards.iter().map(StepInProgress::partial).collect(), &self.whole)
    }

    /// The report of an iteration that has ended, and its batches as they were drawn.
    pub fn finish(self) -> (StepReport, Vec<Batch>) {
        let Self { shards, whole } = self;
        let (reports, mut batches): (Vec<StepReport>, Vec<Vec<Batch>>) =
            shards.into_iter().map(StepInProgress::finish).unzip();
        let report = joined(reports, &whole);
        (report, if whole.is_empty() { batches.pop().unwrap_or_default() } else { whole })
    }
}

/// The images of `batch` that the device `rank` of `devices` learns from: they are shared out as evenly as they can be.
fn share(batch: &Batch, rank: usize, devices: usize) -> Range<usize> {
    let images = batch.indices.len();
    images * rank / devices..images * (rank + 1) / devices
}

/// Those images of `batch` as a batch, of the same height and width.
pub(super) fn part(batch: &Batch, images: Range<usize>) -> Batch {
    let [_, channels, height, width] = batch.shape;
    let size = channels * height * width;
    Batch {
        images: batch.images[images.start * size..images.end * size].to_vec(),
        shape: [images.len(), channels, height, width],
        sizes: batch.sizes[images.clone()].to_vec(),
        objects: batch.objects[images.clone()].to_vec(),
        indices: batch.indices[images.clone()].to_vec(),
        names: batch.names[images.clone()].to_vec(),
        applied: batch.applied[images].to_vec(),
        ..*batch
    }
}

fn mean(values: Vec<f32>) -> f32 {
    values.iter().sum::<f32>() / values.len() as f32
}

/// Means by name over lists of parts.
fn mean_parts<'a>(lists: impl ExactSizeIterator<Item = &'a [(String, f32)]>) -> Vec<(String, f32)> {
    let count = lists.len() as f32;
    let mut means: Vec<(String, f32)> = Vec::new();
    for (name, value) in lists.flatten() {
        match means.iter_mut().find(|(known, _)| known == name) {
            Some((_, sum)) => *sum += value,
            None => means.push((name.clone(), *value)),
        }
    }
    for (_, sum) in &mut means {
        *sum /= count;
    }
    means
}

/// One report of those of all devices: mean losses, and images and traces in the order of the batches that were cut.
/// The rest is the first device's.
fn joined(reports: Vec<StepReport>, whole: &[Batch]) -> StepReport {
    let devices = reports.len();
    let loss = mean(reports.iter().map(|report| report.loss).collect());
    let parts = mean_parts(reports.iter().map(|report| report.parts.as_slice()));
    let mut reports = reports.into_iter();
    let Some(mut first) = reports.next() else { return StepReport::default() };
    if whole.is_empty() {
        return first;
    }
    let own = std::mem::take(&mut first.traces);
    let mut traces: Vec<_> =
        std::iter::once(own).chain(reports.map(|report| report.traces)).map(Vec::into_iter).collect();
    for batch in whole {
        for (rank, traces) in traces.iter_mut().enumerate() {
            first.traces.extend(traces.take(share(batch, rank, devices).len()));
        }
    }
    StepReport {
        loss,
        parts,
        data_seconds: whole.iter().map(|batch| batch.wait_seconds).sum(),
        images: whole.iter().flat_map(|batch| batch.names.iter().cloned()).collect(),
        ..first
    }
}
