//! What went wrong in a step: a number that is none, or a loss that jumped, with the image, object and layer it is in.

use super::config::Precision;
use super::exact::Exact;
use super::optimizer::{Gradients, Optimizer};
use super::step::training_pass;
use crate::data::Batch;
use crate::detect::Detector;
use crate::geometry::Object;
use crate::nn::{Mode, Pass};
use crate::trace::Trace;
use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What was found to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// A box that is not finite.
    Box,
    /// A pixel that is no number after preprocessing.
    Pixel,
    Loss,
    Gradient,
    /// A loss far above the recent ones.
    Spike,
}

/// One pause of the run, with what it was traced to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Counts from 1.
    pub iteration: u64,
    pub fault: Fault,
    pub value: Exact,
    /// The moving median that a spike stands out of.
    pub median: Option<Exact>,
    pub image: Option<String>,
    pub object: Option<NamedObject>,
    /// Parameter or feature map.
    pub layer: Option<String>,
    /// Parts of the loss as far as they are known.
    pub parts: Vec<(String, Exact)>,
}

/// An object of the batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NamedObject {
    /// Position among the image's objects.
    pub index: usize,
    pub class: String,
    /// Input pixels: x0, y0, x1, y1.
    pub bbox: [Exact; 4],
}

impl fmt::Display for Incident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "iteration {}: ", self.iteration)?;
        match (self.fault, self.median) {
            (Fault::Box, _) => f.write_str("a box is not finite")?,
            (Fault::Pixel, _) => f.write_str("a pixel is no number")?,
            (Fault::Loss, _) => write!(f, "the loss became {}", self.value)?,
            (Fault::Gradient, _) => write!(f, "the gradient norm became {}", self.value)?,
            (Fault::Spike, Some(median)) => {
                write!(f, "the loss jumped to {:.3} from a median of {:.3}", self.value.0, median.0)?;
            }
            (Fault::Spike, None) => write!(f, "the loss jumped to {:.3}", self.value.0)?,
        }
        if !self.parts.is_empty() {
            let parts: Vec<String> = self.parts.iter().map(|(name, value)| format!("{name} {value}")).collect();
            write!(f, " ({})", parts.join(", "))?;
        }
        match &self.layer {
            Some(layer) => write!(f, "; layer {layer}")?,
            None => f.write_str("; no single layer")?,
        }
        match &self.image {
            Some(image) => write!(f, "; image {image}")?,
            None => f.write_str("; no single image")?,
        }
        if let Some(object) = &self.object {
            let [x0, y0, x1, y1] = object.bbox.map(|side| side.0);
            write!(f, "; object {} ({}), box [{x0:.1} {y0:.1} {x1:.1} {y1:.1}]", object.index, object.class)?;
        }
        Ok(())
    }
}

/// Where the search looks.
pub struct Scene<'a> {
    pub detector: &'a dyn Detector,
    pub optimizer: &'a Optimizer,
    pub batch: &'a Batch,
    pub mode: Mode,
    pub precision: Precision,
    /// From 0.
    pub iteration: u64,
}

impl Scene<'_> {
    fn incident(&self, fault: Fault, value: impl Into<Exact>, parts: &[(String, f32)]) -> Incident {
        let parts = parts.iter().map(|(name, value)| (name.clone(), Exact::from(*value))).collect();
        Incident {
            iteration: self.iteration + 1,
            fault,
            value: value.into(),
            median: None,
            image: None,
            object: None,
            layer: None,
            parts,
        }
    }

    /// A box of the batch that no network can learn from; looked for before anything is computed.
    pub fn unusable_box(&self) -> Option<Incident> {
        for (image, objects) in self.batch.objects.iter().enumerate() {
            for (index, object) in objects.iter().enumerate() {
                let b = object.bbox;
                if let Some(side) = [b.x0, b.y0, b.x1, b.y1].into_iter().find(|side| !side.is_finite()) {
                    let mut incident = self.incident(Fault::Box, side, &[]);
                    incident.image = self.batch.names.get(image).cloned();
                    incident.object = Some(self.named(index, object));
                    return Some(incident);
                }
            }
        }
        None
    }

    /// A pixel that is no number.
    fn bad_pixel(&self, parts: &[(String, f32)]) -> Option<Incident> {
        let size = self.batch.shape.iter().skip(1).product::<usize>().max(1);
        let mut images = self.batch.images.chunks(size).enumerate();
        let (image, value) = images
            .find_map(|(image, pixels)| Some((image, pixels.iter().copied().find(|value| !value.is_finite())?)))?;
        let mut incident = self.incident(Fault::Pixel, value, parts);
        incident.image = self.batch.names.get(image).cloned();
        Some(incident)
    }

    /// Traces a loss that is no number to a layer, an image and an object: a further pass with the probe on.
    ///
    /// # Errors
    /// A failing operation.
    pub fn bad_loss(&self, loss: f32, parts: &[(String, f32)]) -> Result<Incident> {
        if let Some(incident) = self.bad_pixel(parts) {
            return Ok(incident);
        }
        let mut incident = self.incident(Fault::Loss, loss, parts);
        incident.layer = self.optimizer.poisoned()?.map(str::to_string);
        let traces = self.look_again()?;
        let bad_map = traces.iter().enumerate().find_map(|(image, trace)| {
            let map = trace.maps.iter().find(|map| map.data.iter().any(|v| !v.is_finite()))?;
            Some((image, map.name.clone()))
        });
        if let Some((image, map)) = bad_map {
            incident.layer = incident.layer.or(Some(map));
            incident.image = self.batch.names.get(image).cloned();
            incident.object = self.worst_object(image, &traces[image], |loss| !loss.is_finite());
        } else if let Some((image, trace)) =
            traces.iter().enumerate().find(|(_, t)| losses(t).any(|loss| !loss.is_finite()))
        {
            incident.image = self.batch.names.get(image).cloned();
            incident.object = self.worst_object(image, trace, |loss| !loss.is_finite());
        }
        Ok(incident)
    }

    /// Names the first parameter whose gradient is no number.
    ///
    /// # Errors
    /// A gradient that cannot be read back.
    pub fn bad_gradient(&self, norm: f64, gradients: &Gradients, parts: &[(String, f32)]) -> Result<Incident> {
        let mut incident = self.incident(Fault::Gradient, norm, parts);
        for trained in self.optimizer.trained(gradients) {
            if let Some(gradient) = trained.gradient
                && !crate::ops::update::squared_norm(gradient)?.is_finite()
            {
                incident.layer = Some(trained.name.to_string());
                break;
            }
        }
        self.blame_the_largest(&mut incident)?;
        Ok(incident)
    }

    /// Names the image and object that a jump of the loss comes from.
    ///
    /// # Errors
    /// A failing operation.
    pub fn spike(&self, loss: f32, median: f32, parts: &[(String, f32)]) -> Result<Incident> {
        let mut incident = self.incident(Fault::Spike, loss, parts);
        incident.median = Some(median.into());
        self.blame_the_largest(&mut incident)?;
        Ok(incident)
    }

    /// The image whose anchors have the largest loss in sum, and the object of its worst anchor.
    fn blame_the_largest(&self, incident: &mut Incident) -> Result<()> {
        let traces = self.look_again()?;
        let sum = |trace: &Trace| losses(trace).map(f64::from).sum::<f64>();
        let worst = traces.iter().enumerate().max_by(|a, b| sum(a.1).total_cmp(&sum(b.1)));
        if let Some((image, trace)) = worst {
            incident.image = self.batch.names.get(image).cloned();
            incident.object = self.worst_object(image, trace, |_| true);
        }
        Ok(())
    }

    /// The same pass again with the probe on; nothing of it is kept.
    pub(super) fn look_again(&self) -> Result<Vec<Trace>> {
        let pass = match self.mode {
            Mode::Train => training_pass(self.batch, true),
            mode => Pass::probed(mode, self.batch.indices.len()),
        };
        let images = Tensor::from_slice(&self.batch.images, &self.batch.shape, self.detector.params().device())?;
        self.precision.within(|| {
            let outputs = self.detector.forward(&images, &pass)?;
            self.detector.losses(&outputs, &self.batch.objects, &pass)
        })?;
        Ok(pass.into_traces())
    }

    /// The object of the anchor with the largest of those losses that count.
    fn worst_object(&self, image: usize, trace: &Trace, counts: impl Fn(f32) -> bool) -> Option<NamedObject> {
        let objects = self.batch.objects.get(image)?;
        let target = &trace.assignment.as_ref()?.target;
        // A second stage counts its losses by RoI, which the assignment of anchors says nothing about.
        let by_anchor = trace.losses.iter().filter(|part| part.per_anchor.len() == target.len());
        let of_objects =
            by_anchor.flat_map(|part| part.per_anchor.iter().copied().zip(target)).filter_map(|(loss, &target)| {
                let index = usize::try_from(target).ok()?;
                let object = objects.get(index)?;
                counts(loss).then_some((loss, index, object))
            });
        // NaN sorts above every number.
        let (_, index, object) = of_objects.max_by(|a, b| a.0.abs().total_cmp(&b.0.abs()))?;
        Some(self.named(index, object))
    }

    fn named(&self, index: usize, object: &Object) -> NamedObject {
        let class = self.detector.classes().get(object.class as usize);
        let b = object.bbox;
        NamedObject {
            index,
            class: class.cloned().unwrap_or_else(|| format!("class {}", object.class)),
            bbox: [b.x0, b.y0, b.x1, b.y1].map(Exact::from),
        }
    }
}

/// The losses of every part that has them per anchor or RoI.
fn losses(trace: &Trace) -> impl Iterator<Item = f32> {
    trace.losses.iter().flat_map(|part| part.per_anchor.iter().copied())
}
