//! Slots for heavy values: the newest wins, a reader sees by a number whether there is a newer one.

use crate::geometry::coder::BoxCoder;
use crate::geometry::{Detection, Object};
use crate::imaging::picture::Picture;
use crate::trace::{StageTime, Trace};
use crate::train::StepReport;
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

/// The last probed training iteration, with one trace an image.
#[derive(Clone, Debug)]
pub struct Stepped {
    pub report: StepReport,
    /// Undoes the preprocessing for display: value · std + mean, in 0..255, channel order RGB.
    pub mean: [f32; 3],
    pub std: [f32; 3],
    pub bgr: bool,
    pub classes: Vec<String>,
    /// How boxes are coded against anchors, where the detector codes them so.
    pub coder: Option<BoxCoder>,
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
