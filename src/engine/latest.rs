//! Slots for heavy values: the newest wins, a reader sees by a number whether there is a newer one.

use super::compare::ComparedImage;
use crate::detect::predict::Prediction;
use crate::geometry::coder::BoxCoder;
use crate::geometry::{Detection, Object};
use crate::imaging::Applied;
use crate::imaging::picture::Picture;
use crate::trace::{StageTime, Trace};
use crate::train::{Phase, StepReport};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// One slot.
#[derive(Debug)]
pub struct Latest<T> {
    value: Mutex<Option<Arc<T>>>,
    version: AtomicU64,
}

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self { value: Mutex::new(None), version: AtomicU64::new(0) }
    }
}

impl<T> Latest<T> {
    /// Puts a value in, dropping the one before.
    pub fn put(&self, value: T) {
        let value = Some(Arc::new(value));
        *self.value.lock().unwrap_or_else(PoisonError::into_inner) = value;
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Counts the values put in; 0 before the first.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub fn get(&self) -> Option<Arc<T>> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The value if it is newer than `seen`, which then moves up.
    pub fn newer(&self, seen: &mut u64) -> Option<Arc<T>> {
        let version = self.version();
        if version == *seen {
            return None;
        }
        *seen = version;
        self.get()
    }
}

/// All slots of an engine.
#[derive(Debug, Default)]
pub struct Slots {
    pub shown: Latest<Shown>,
    pub stepped: Latest<Stepped>,
    pub compared: Latest<ComparedImage>,
    pub augmented: Latest<Augmented>,
    pub scrubbed: Latest<Scrubbed>,
}

/// The image on show, and what the model made of it.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Position in the open data.
    pub index: usize,
    pub name: String,
    pub picture: Arc<Picture>,
    /// Ground truth, original pixels.
    pub objects: Vec<Object>,
    /// The data set's class names, for `objects`.
    pub object_classes: Vec<String>,
    /// Everything above the model's own score threshold, best first; empty before a model is there.
    pub detections: Vec<Detection>,
    /// The model's class names, for `detections`.
    pub detection_classes: Vec<String>,
    /// False while only the picture is there and the model has not run yet.
    pub detected: bool,
    pub timings: Vec<StageTime>,
    pub trace: Option<Arc<Trace>>,
}

impl Shown {
    /// [`index`](Self::index) of a frame that is not of the open data.
    pub const LIVE: usize = usize::MAX;

    /// A picture with its ground truth, before a model has run.
    pub fn undetected(
        index: usize,
        name: String,
        picture: Arc<Picture>,
        objects: Vec<Object>,
        object_classes: Vec<String>,
    ) -> Self {
        Self {
            index,
            name,
            picture,
            objects,
            object_classes,
            detections: Vec::new(),
            detection_classes: Vec::new(),
            detected: false,
            timings: Vec::new(),
            trace: None,
        }
    }

    /// What a model of these classes made of it.
    #[must_use]
    pub fn with(self, prediction: Prediction, classes: &[String]) -> Self {
        Self {
            detections: prediction.detections,
            detection_classes: classes.to_vec(),
            detected: true,
            timings: prediction.timings,
            trace: prediction.trace.map(Arc::new),
            ..self
        }
    }

    /// Whether this is a frame of a video or a camera.
    pub fn is_live(&self) -> bool {
        self.index == Self::LIVE
    }
}

/// An image before and after augmentation.
#[derive(Clone, Debug)]
pub struct Augmented {
    /// Position in the open data.
    pub index: usize,
    pub epoch: u64,
    pub before: AnnotatedPicture,
    /// In pixels of the network's input.
    pub after: AnnotatedPicture,
    pub classes: Vec<String>,
    /// What was done, in order.
    pub applied: Vec<Applied>,
}

/// A picture and the objects in it, in its own pixels.
#[derive(Clone, Debug)]
pub struct AnnotatedPicture {
    pub name: String,
    pub picture: Arc<Picture>,
    pub objects: Vec<Object>,
}

/// The last probed training iteration, with one trace an image.
#[derive(Clone, Debug)]
pub struct Stepped {
    pub report: StepReport,
    /// The phase that the iteration waits before, which later numbers do not exist yet for; none when it is done.
    pub next: Option<Phase>,
    /// Undoes the preprocessing for display: value · std + mean, in 0..255, channel order RGB.
    pub mean: [f32; 3],
    pub std: [f32; 3],
    pub bgr: bool,
    pub classes: Vec<String>,
    /// How boxes are coded against anchors, where the detector codes them so.
    pub coder: Option<BoxCoder>,
}

/// What each checkpoint of a run finds in one image.
#[derive(Clone, Debug)]
pub struct Scrubbed {
    /// Position in the open data.
    pub index: usize,
    pub picture: Arc<Picture>,
    /// Ground truth, original pixels.
    pub objects: Vec<Object>,
    /// The data set's class names, for `objects`.
    pub object_classes: Vec<String>,
    /// The model's class names, for detections.
    pub classes: Vec<String>,
    /// In the order that was asked for.
    pub at: Vec<ScrubbedAt>,
}

/// What one checkpoint finds.
#[derive(Clone, Debug)]
pub struct ScrubbedAt {
    /// Iterations done when it was written.
    pub iteration: u64,
    /// Original pixels, best first.
    pub detections: Vec<Detection>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_value_wins_and_is_seen_once() {
        let slot = Latest::default();
        let mut seen = 0;
        assert!(slot.newer(&mut seen).is_none());
        slot.put(1);
        slot.put(2);
        assert_eq!(slot.newer(&mut seen).as_deref(), Some(&2));
        assert!(slot.newer(&mut seen).is_none());
        assert_eq!(slot.get().as_deref(), Some(&2));
    }
}
