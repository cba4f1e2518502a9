//! The one training step as named phases: augment → forward → assign → sample → loss → backward → update.
//!
//! [`step`] runs them all. A [`StepInProgress`] stops after any of them, shows what is there so far, goes on or is
//! dropped; the arithmetic is the same, and nothing in the network changes before the update.

use super::TrainError;
use super::config::Precision;
use super::incident::Scene;
use super::layers::{LayerReport, explain, weights_before};
use super::optimizer::{Gradients, Optimizer};
use super::validation::Validation;
use crate::data::loader::Batch;
use crate::detect::{Detector, Losses, Outputs};
use crate::nn::{Mode, Pass};
use crate::ops::precision;
use crate::ops::tape::Tape;
use crate::trace::{FeatureMap, StageTime, Trace};
use candle_core::Tensor;
use serde::Serialize;
use std::mem::swap;

/// What one iteration did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StepReport {
    /// Counts from 1.
    pub iteration: u64,
    pub learning_rate: f32,
    pub loss: f32,
    pub parts: Vec<(String, f32)>,
    /// NaN where the update was skipped.
    pub gradient_norm: f64,
    /// L2 norm of each trained parameter's gradient before clipping, by name.
    pub gradient_norms: Vec<(String, f64)>,
    /// What the loss was multiplied by for the backward pass, where it was.
    pub loss_scale: Option<f32>,
    /// The scaled gradients overflowed, and no weight has moved.
    pub skipped: bool,
    /// Wall time of the whole iteration, seconds, waiting for data included.
    pub seconds: f64,
    /// Of it, waiting for data.
    pub data_seconds: f64,
    pub timings: Vec<StageTime>,
    /// Names of the batch's images.
    pub images: Vec<String>,
    /// One trace an image when the probe was on.
    #[serde(skip)]
    pub traces: Vec<Trace>,
    /// Every trained parameter, when the probe was on.
    pub layers: Vec<LayerReport>,
    /// The validation that followed the iteration, if one did.
    pub validation: Option<Validation>,
}

/// A named stop of one iteration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Augmented and preprocessed images are on the device.
    Augment,
    /// Head outputs and feature maps are there.
    Forward,
    /// Every anchor has its target.
    Assign,
    /// Those that enter the loss are chosen.
    Sample,
    /// The parts of the loss are summed.
    Loss,
    /// Every parameter has its gradient.
    Backward,
    /// The weights have moved.
    Update,
}

impl Phase {
    pub const ALL: [Self; 7] =
        [Self::Augment, Self::Forward, Self::Assign, Self::Sample, Self::Loss, Self::Backward, Self::Update];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Augment => "augment",
            Self::Forward => "forward",
            Self::Assign => "assign",
            Self::Sample => "sample",
            Self::Loss => "loss",
            Self::Backward => "backward",
            Self::Update => "update",
        }
    }
}

/// An iteration that has not ended. It owns its batches and intermediate results and borrows nothing.
pub struct StepInProgress {
    batches: Vec<Batch>,
    /// The batch that the phases work on; all but one batch only where gradients are accumulated.
    current: usize,
    mode: Mode,
    probe: bool,
    rate: f32,
    /// From 0.
    iteration: u64,
    precision: Precision,
    loss_scale: Option<f32>,
    next: Phase,
    /// One for each batch begun.
    passes: Vec<Pass>,
    images: Option<Tensor>,
    outputs: Option<Outputs>,
    losses: Option<Losses>,
    /// The operations of the current batch.
    tape: Tape,
    total: Option<Tensor>,
    pub(super) gradients: Gradients,
    parts: Vec<(String, f32)>,
    loss: f32,
    gradient_norm: f64,
    gradient_norms: Vec<(String, f64)>,
    layers: Vec<LayerReport>,
    skipped: bool,
    ended: bool,
    /// One of several that make an iteration together: its gradients are not measured by themselves.
    shard: bool,
}

/// How an iteration is run.
#[derive(Clone, Copy, Debug)]
pub struct StepSettings {
    /// [`Mode::Train`], or [`Mode::Frozen`] for frozen batch norms.
    pub mode: Mode,
    /// Fills traces and layers; the arithmetic is the same either way.
    pub probe: bool,
    pub rate: f32,
    /// From 0.
    pub iteration: u64,
    /// Of the products, forward and backward.
    pub precision: Precision,
    /// Multiplies the loss for the backward pass, and is divided out of the gradients. Above 1, an update whose
    /// gradients overflow is skipped; it is no incident.
    pub loss_scale: Option<f32>,
}

impl StepInProgress {
    /// Begins an iteration whose gradient is the mean over `batches`.
    pub fn new(batches: Vec<Batch>, settings: StepSettings) -> Self {
        let StepSettings { mode, probe, rate, iteration, precision, loss_scale } = settings;
        Self {
            batches,
            current: 0,
            mode,
            probe,
            rate,
            iteration,
            precision,
            loss_scale,
            next: Phase::Augment,
            passes: Vec::new(),
            images: None,
            outputs: None,
            losses: None,
            tape: Tape::default(),
            total: None,
            gradients: Gradients::default(),
            parts: Vec::new(),
            loss: 0.0,
            gradient_norm: 0.0,
            gradient_norms: Vec::new(),
            layers: Vec::new(),
            skipped: false,
            ended: false,
            shard: false,
        }
    }

    /// The same as one of several steps that make an iteration together: [`Self::measure`] is left to whoever brings
    /// their gradients together.
    pub(super) fn into_shard(self) -> Self {
        Self { shard: true, ..self }
    }

    /// The phase that [`Self::advance`] runs next; none after the update.
    pub fn next_phase(&self) -> Option<Phase> {
        (!self.ended).then_some(self.next)
    }

    /// The batch that the next phase works on, and how many there are.
    pub fn progress(&self) -> (usize, usize) {
        (self.current, self.batches.len())
    }

    pub fn batches(&self) -> &[Batch] {
        &self.batches
    }

    /// The mean loss over all batches, once it is known.
    pub fn loss(&self) -> Option<f32> {
        let known = self.next > Phase::Loss || self.ended;
        (known && self.current + 1 == self.batches.len()).then_some(self.loss)
    }

    pub fn parts(&self) -> &[(String, f32)] {
        &self.parts
    }

    /// Those of [`StepReport::gradient_norms`], once they are known.
    pub fn gradient_norms(&self) -> &[(String, f64)] {
        &self.gradient_norms
    }

    /// Runs the next phase and says which it was.
    ///
    /// Targets, sampling and losses come out of one call of the detector, which [`Phase::Assign`] makes: targets need
    /// no gradient and take little time. The two phases after it uncover what was computed.
    ///
    /// # Errors
    /// A failing operation, an interruption, or an [`TrainError::Incident`]: then nothing is updated, and the step is
    /// to be dropped.
    pub fn advance(&mut self, detector: &dyn Detector, optimizer: &mut Optimizer) -> Result<Phase, TrainError> {
        self.precision.within(|| self.run_phase(detector, optimizer))
    }

    fn run_phase(&mut self, detector: &dyn Detector, optimizer: &mut Optimizer) -> Result<Phase, TrainError> {
        let ended = || TrainError::Settings("the iteration has ended".into());
        if self.ended {
            return Err(ended());
        }
        let phase = self.next;
        let batch = self.batches.get(self.current).ok_or_else(ended)?;
        match phase {
            Phase::Augment => {
                let scene = self.scene(detector, optimizer).ok_or_else(ended)?;
                if let Some(incident) = scene.unusable_box() {
                    return Err(TrainError::Incident(Box::new(incident)));
                }
                let device = detector.params().device();
                self.images = Some(Tensor::from_slice(&batch.images, &batch.shape, device)?);
                let pass = match self.mode {
                    Mode::Train => training_pass(batch, self.probe),
                    mode if self.probe => Pass::probed(mode, batch.indices.len()),
                    mode => Pass::new(mode),
                };
                record_inputs(batch, &pass);
                self.passes.push(pass);
                self.next = Phase::Forward;
            }
            Phase::Forward => {
                let (pass, images) = (self.passes.last().ok_or_else(ended)?, self.images.take().ok_or_else(ended)?);
                let forward = || pass.stage("forward", || detector.forward(&images, pass));
                self.outputs = Some(self.tape.record(forward)?);
                self.next = Phase::Assign;
            }
            Phase::Assign => {
                let (pass, outputs) = (self.passes.last().ok_or_else(ended)?, self.outputs.take().ok_or_else(ended)?);
                let losses = || pass.stage("loss", || detector.losses(&outputs, &batch.objects, pass));
                self.losses = Some(self.tape.record(losses)?);
                self.next = Phase::Sample;
            }
            Phase::Sample => self.next = Phase::Loss,
            Phase::Loss => {
                let losses = self.losses.take().ok_or_else(ended)?;
                self.sum(&losses, detector, optimizer)?;
                self.next = Phase::Backward;
            }
            Phase::Backward => {
                let (pass, total) = (self.passes.last().ok_or_else(ended)?, self.total.take().ok_or_else(ended)?);
                let total = match self.loss_scale {
                    Some(scale) => total.affine(f64::from(scale), 0.0)?,
                    None => total,
                };
                let tape = std::mem::take(&mut self.tape);
                let mut store = pass.stage("backward", || tape.backward(&total))?;
                self.gradients.add(optimizer.collect(&mut store))?;
                if self.current + 1 < self.batches.len() {
                    self.current += 1;
                    self.next = Phase::Augment;
                } else {
                    if !self.shard {
                        self.measure(detector, optimizer)?;
                    }
                    self.next = Phase::Update;
                }
            }
            Phase::Update => {
                if !self.skipped {
                    self.update(optimizer)?;
                }
                self.gradients = Gradients::default();
                self.ended = true;
            }
        }
        Ok(phase)
    }

    /// Moves the weights, and the running statistics with them.
    fn update(&mut self, optimizer: &mut Optimizer) -> Result<(), TrainError> {
        let pass = self.passes.last().ok_or_else(|| TrainError::Settings("the iteration has ended".into()))?;
        let before = if self.probe { Some(weights_before(optimizer, &self.gradients)?) } else { None };
        pass.stage("update", || optimizer.update(&self.gradients, self.rate, self.gradient_norm, self.iteration))?;
        for pass in &self.passes {
            pass.commit()?;
        }
        if let Some(before) = before {
            self.layers = explain(optimizer, &self.gradients, &before)?;
        }
        Ok(())
    }

    /// Takes the loss scale out of the gradients of all batches, and their norm. Where that is no number, the update is
    /// skipped if the scale may be to blame, and it is an incident if not.
    pub(super) fn measure(&mut self, detector: &dyn Detector, optimizer: &Optimizer) -> Result<(), TrainError> {
        let ended = || TrainError::Settings("the iteration has ended".into());
        if let Some(scale) = self.loss_scale {
            self.gradients.divide(scale)?;
        }
        let pass = self.passes.last().ok_or_else(ended)?;
        let squares = pass.stage("gradient norm", || self.gradients.squares())?;
        let norm = squares.iter().sum::<f64>().sqrt();
        self.gradient_norms = optimizer.gradient_norms(&squares);
        if !norm.is_finite() {
            if self.loss_scale.is_some_and(|scale| scale > 1.0) {
                (self.skipped, self.gradient_norm) = (true, f64::NAN);
                return Ok(());
            }
            let scene = self.scene(detector, optimizer).ok_or_else(ended)?;
            let incident = scene.bad_gradient(norm, &self.gradients, &self.parts)?;
            return Err(TrainError::Incident(Box::new(incident)));
        }
        self.gradient_norm = norm;
        Ok(())
    }

    /// Adds the parts of one batch; an incident where their sum is no number.
    fn sum(&mut self, losses: &Losses, detector: &dyn Detector, optimizer: &Optimizer) -> Result<(), TrainError> {
        let count = self.batches.len();
        let total = losses.total()?;
        // One copy, since each waits for the device.
        let values: Vec<Tensor> =
            losses.parts.iter().map(|(_, part)| part).chain([&total]).map(Tensor::detach).collect();
        let mut values = Tensor::stack(&values, 0)?.to_vec1::<f32>()?;
        let loss = values.pop().unwrap_or_default();
        let own: Vec<(String, f32)> = losses.parts.iter().map(|(name, _)| name.clone()).zip(values).collect();
        if !loss.is_finite() {
            let scene = self.scene(detector, optimizer);
            let scene = scene.ok_or_else(|| TrainError::Settings("the iteration has ended".into()))?;
            return Err(TrainError::Incident(Box::new(scene.bad_loss(loss, &own)?)));
        }
        if count == 1 {
            (self.total, self.loss, self.parts) = (Some(total), loss, own);
            return Ok(());
        }
        let share = 1.0 / count as f64;
        self.total = Some(total.affine(share, 0.0)?);
        self.loss += loss * share as f32;
        for (name, value) in own {
            let value = value * share as f32;
            match self.parts.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += value,
                None => self.parts.push((name, value)),
            }
        }
        Ok(())
    }

    /// Where an incident of the current batch would be looked for.
    pub(super) fn scene<'a>(&'a self, detector: &'a dyn Detector, optimizer: &'a Optimizer) -> Option<Scene<'a>> {
        let batch = self.batches.get(self.current)?;
        let (mode, precision, iteration) = (self.mode, self.precision, self.iteration);
        Some(Scene { detector, optimizer, batch, mode, precision, iteration })
    }

    /// What is known so far: traces hold no more than the phases that have run.
    pub fn partial(&self) -> StepReport {
        let mut traces = Vec::new();
        for (index, pass) in self.passes.iter().enumerate() {
            let images = self.batches.get(index).map_or(0, |batch| batch.indices.len());
            let in_progress = index == self.current && !self.ended;
            for image in 0..images {
                pass.trace(image, |trace| {
                    // What is covered is large, and laid aside so that it is not copied.
                    let mut covered = Trace::default();
                    if in_progress {
                        self.swap_covered(trace, &mut covered);
                    }
                    traces.push(trace.clone());
                    if in_progress {
                        self.swap_covered(trace, &mut covered);
                    }
                });
            }
        }
        StepReport { traces, ..self.report() }
    }

    /// Exchanges what the phases still to come will show of a trace.
    fn swap_covered(&self, trace: &mut Trace, other: &mut Trace) {
        if self.next <= Phase::Assign {
            swap(&mut trace.assignment, &mut other.assignment);
        }
        if self.next <= Phase::Sample {
            swap(&mut trace.sampling, &mut other.sampling);
        }
        if self.next <= Phase::Loss {
            swap(&mut trace.losses, &mut other.losses);
        }
    }

    fn report(&self) -> StepReport {
        StepReport {
            iteration: self.iteration + 1,
            learning_rate: self.rate,
            loss: self.loss,
            parts: self.parts.clone(),
            gradient_norm: self.gradient_norm,
            gradient_norms: self.gradient_norms.clone(),
            loss_scale: self.loss_scale,
            skipped: self.skipped,
            seconds: 0.0,
            data_seconds: self.batches.iter().map(|batch| batch.wait_seconds).sum(),
            timings: self.passes.iter().flat_map(Pass::timings).collect(),
            images: self.batches.iter().flat_map(|batch| batch.names.iter().cloned()).collect(),
            traces: Vec::new(),
            layers: self.layers.clone(),
            validation: None,
        }
    }

    /// The report of an iteration that has ended, and its batches.
    pub fn finish(self) -> (StepReport, Vec<Batch>) {
        let report = self.report();
        let traces = self.passes.into_iter().flat_map(Pass::into_traces).collect();
        (StepReport { traces, ..report }, self.batches)
    }
}

/// One iteration on `batch`, all phases in a row, in the mode and under the probe of `pass`, and in this thread's
/// precision.
///
/// # Errors
/// See [`StepInProgress::advance`].
pub fn step(
    detector: &dyn Detector,
    optimizer: &mut Optimizer,
    batch: &Batch,
    rate: f32,
    iteration: u64,
    pass: Pass,
) -> Result<StepReport, TrainError> {
    let (mode, probe, precision) = (pass.mode, pass.is_probed(), precision::current());
    let settings = StepSettings { mode, probe, rate, iteration, precision, loss_scale: None };
    let mut step = StepInProgress::new(vec![batch.clone()], settings);
    while step.next_phase().is_some() {
        step.advance(detector, optimizer)?;
    }
    Ok(step.finish().0)
}

/// A pass for one training step over `batch`.
pub fn training_pass(batch: &Batch, probe: bool) -> Pass {
    if probe { Pass::probed(Mode::Train, batch.indices.len()) } else { Pass::new(Mode::Train) }
}

fn record_inputs(batch: &Batch, pass: &Pass) {
    if !pass.is_probed() {
        return;
    }
    let [_, channels, height, width] = batch.shape;
    for (index, data) in batch.images.chunks_exact((channels * height * width).max(1)).enumerate() {
        let objects = batch.objects.get(index).cloned().unwrap_or_default();
        let data = data.to_vec();
        pass.trace(index, |t| {
            t.input = Some(FeatureMap { name: "input".into(), level: 0, channels, height, width, data });
            t.objects = objects;
        });
    }
}
