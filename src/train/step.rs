//! The one training step: forward → assign → sample → loss → backward → update.

use super::TrainError;
use super::optimizer::Optimizer;
use crate::data::loader::Batch;
use crate::detect::Detector;
use crate::nn::{Mode, Pass};
use crate::trace::{FeatureMap, StageTime, Trace};
use candle_core::Tensor;
use serde::Serialize;

/// What one iteration did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StepReport {
    /// Counts from 1.
    pub iteration: u64,
    pub learning_rate: f32,
    pub loss: f32,
    pub parts: Vec<(String, f32)>,
    pub gradient_norm: f64,
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
}

/// One iteration on `batch`. `pass` decides whether a probe watches; it is the same arithmetic either way.
///
/// # Errors
/// A failing operation, or a loss or gradient that is no number: then nothing is updated and the error names the
/// images and boxes of the batch.
pub fn step(
    detector: &dyn Detector,
    optimizer: &mut Optimizer,
    batch: &Batch,
    rate: f32,
    iteration: u64,
    pass: Pass,
) -> Result<StepReport, TrainError> {
    let images = Tensor::from_slice(&batch.images, &batch.shape, detector.params().device())?;
    record_inputs(batch, &pass);
    let outputs = pass.stage("forward", || detector.forward(&images, &pass))?;
    let losses = pass.stage("loss", || detector.losses(&outputs, &batch.objects, &pass))?;
    let mut parts = Vec::with_capacity(losses.parts.len());
    for (name, value) in &losses.parts {
        parts.push((name.clone(), value.to_vec0::<f32>()?));
    }
    let total = losses.total()?;
    let loss = total.to_vec0::<f32>()?;
    if !loss.is_finite() {
        return Err(not_finite("loss", loss, &parts, batch));
    }
    let gradients = pass.stage("backward", || total.backward())?;
    let norm = pass.stage("gradient norm", || optimizer.gradient_norm(&gradients))?;
    if !norm.is_finite() {
        return Err(not_finite("gradient norm", norm as f32, &parts, batch));
    }
    let update = pass.stage("update", || optimizer.update(&gradients, rate, norm, iteration))?;
    pass.commit()?;
    let timings = pass.timings();
    Ok(StepReport {
        iteration: iteration + 1,
        learning_rate: rate,
        loss,
        parts,
        gradient_norm: update.gradient_norm,
        seconds: 0.0,
        data_seconds: batch.wait_seconds,
        timings,
        images: batch.names.clone(),
        traces: pass.into_traces(),
    })
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
    for (index, data) in batch.images.chunks_exact(channels * height * width).enumerate() {
        let objects = batch.objects.get(index).cloned().unwrap_or_default();
        let data = data.to_vec();
        pass.trace(index, |t| {
            t.input = Some(FeatureMap { name: "input".into(), level: 0, channels, height, width, data });
            t.objects = objects;
        });
    }
}

fn not_finite(what: &str, value: f32, parts: &[(String, f32)], batch: &Batch) -> TrainError {
    let parts: Vec<String> = parts.iter().map(|(name, value)| format!("{name} {value}")).collect();
    let images: Vec<String> = batch
        .names
        .iter()
        .zip(&batch.objects)
        .map(|(name, objects)| {
            let boxes: Vec<String> = objects
                .iter()
                .map(|o| format!("[{:.1} {:.1} {:.1} {:.1}]", o.bbox.x0, o.bbox.y0, o.bbox.x1, o.bbox.y1))
                .collect();
            format!("{name}: boxes {}", if boxes.is_empty() { "none".into() } else { boxes.join(" ") })
        })
        .collect();
    TrainError::NotFinite { what: what.into(), value, parts: parts.join(", "), images: images.join("; ") }
}
