//! Batches for training: worker threads decode, augment and preprocess ahead; the order never depends on their number.
//!
//! Batch `n` is made by worker `n mod workers` and handed over in a channel of its own, so batches come in order without
//! a waiting room that could grow. Everything random about a sample follows from (seed, epoch, image).

pub use super::batch::{Batch, Position};

use super::batch::{Prepared, assemble, object_in_input};
use super::dataset::{Dataset, Finding, ImageEntry, Severity};
use super::error::DataError;
use crate::geometry::Object;
use crate::imaging::{self, Augmentation, ChannelOrder, Fit, Picture, Preprocess, Sample};
use crate::random::Random;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

/// Most worker threads of one loader.
const MAX_WORKERS: usize = 64;
/// Finished batches that a worker keeps ready.
const READY_PER_WORKER: usize = 1;

/// What batches are made of.
#[derive(Clone, Debug)]
pub struct LoaderSettings {
    /// Images in a batch. A shuffled epoch leaves out the images that do not fill the last one; an ordered epoch ends
    /// with a smaller batch.
    pub batch: usize,
    /// Threads, 1 to 64; any number gives the same batches.
    pub workers: usize,
    pub shuffle: bool,
    pub seed: u64,
    pub augmentation: Augmentation,
    pub preprocess: Preprocess,
    /// Leaves VOC's `difficult` objects out of the training targets.
    pub drop_difficult: bool,
    /// Carries masks along, in input pixels; detectors of boxes alone save their cost.
    pub masks: bool,
}

/// An endless source of batches. Dropping it stops its threads; they look at the flag before every image.
pub struct Loader {
    shared: Arc<Shared>,
    channels: Vec<Receiver<Result<Batch, DataError>>>,
    threads: Vec<JoinHandle<()>>,
    /// Batches before the first one of this loader, counted from the beginning of epoch 0.
    first: u64,
    /// Batches handed out.
    taken: u64,
}

impl Loader {
    /// Starts the threads, beginning with the batch at `start`.
    ///
    /// # Errors
    /// [`DataError::Loader`] when there is no image, the batch size is 0 or a thread cannot be started.
    pub fn new(dataset: Arc<Dataset>, settings: LoaderSettings, start: Position) -> Result<Self, DataError> {
        let failed = |message: String| DataError::Loader { message };
        let images = dataset.images.len();
        if images == 0 {
            return Err(failed(format!("the split {:?} of {:?} has no images", dataset.split, dataset.name)));
        }
        if settings.batch == 0 {
            return Err(failed("a batch needs at least one image".to_owned()));
        }
        let whole = images / settings.batch;
        let batches = if settings.shuffle && whole > 0 { whole } else { images.div_ceil(settings.batch) } as u64;
        let workers = settings.workers.clamp(1, MAX_WORKERS);
        let first = start.epoch.saturating_mul(batches).saturating_add(start.batch);
        let shared = Arc::new(Shared {
            fill: fill_color(&settings.preprocess),
            dataset,
            settings,
            batches,
            stop: AtomicBool::new(false),
            skipped: Mutex::new(BTreeMap::new()),
        });
        let mut loader = Self { shared, channels: Vec::new(), threads: Vec::new(), first, taken: 0 };
        for worker in 0..workers {
            let (sender, receiver) = bounded(READY_PER_WORKER);
            let shared = Arc::clone(&loader.shared);
            let begin = first.saturating_add(worker as u64);
            let thread = thread::Builder::new()
                .name(format!("loader-{worker}"))
                .spawn(move || shared.work(begin, workers as u64, &sender))
                .map_err(|error| failed(format!("thread {worker} cannot be started: {error}")))?;
            loader.channels.push(receiver);
            loader.threads.push(thread);
        }
        Ok(loader)
    }

    /// The next batch; waits for it.
    ///
    /// # Errors
    /// [`DataError::NoReadableImage`] when not one image of the data set can be read; [`DataError::Loader`] after that,
    /// or when a thread died.
    #[allow(clippy::should_implement_trait, reason = "endless and fallible: as an iterator it would invite collect")]
    pub fn next(&mut self) -> Result<Batch, DataError> {
        let worker = (self.taken % self.channels.len().max(1) as u64) as usize;
        let ended = || DataError::Loader { message: "its thread has ended".to_owned() };
        let channel = self.channels.get(worker).ok_or_else(ended)?;
        let begin = Instant::now();
        let mut batch = channel.recv().map_err(|_| ended())??;
        batch.wait_seconds = begin.elapsed().as_secs_f64();
        self.taken += 1;
        Ok(batch)
    }

    /// Where the batch stands that `next` gives next.
    pub fn position(&self) -> Position {
        self.shared.position(self.first.saturating_add(self.taken))
    }

    /// Batches in an epoch.
    pub fn batches_per_epoch(&self) -> u64 {
        self.shared.batches
    }

    /// Images that could not be read so far, by their order in the data set; others stand in for them.
    pub fn skipped(&self) -> Vec<Finding> {
        self.shared.skips().values().cloned().collect()
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // A worker that waits to hand a batch over is freed by the end of its channel.
        self.channels.clear();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::warn!("a loader thread panicked");
            }
        }
    }
}

/// What all workers see.
struct Shared {
    dataset: Arc<Dataset>,
    settings: LoaderSettings,
    /// In an epoch; at least 1.
    batches: u64,
    /// Colour of the canvas around a zoomed-out picture.
    fill: [u8; 3],
    stop: AtomicBool,
    /// Unreadable images by index.
    skipped: Mutex<BTreeMap<usize, Finding>>,
}

impl Shared {
    fn skips(&self) -> MutexGuard<'_, BTreeMap<usize, Finding>> {
        self.skipped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn position(&self, number: u64) -> Position {
        Position { epoch: number / self.batches, batch: number % self.batches }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Makes every `step`-th batch from number `number` on, until stopped or failed.
    fn work(&self, mut number: u64, step: u64, sender: &Sender<Result<Batch, DataError>>) {
        let mut order: (Option<u64>, Vec<usize>) = (None, Vec::new());
        while !self.stopped() {
            let position = self.position(number);
            if order.0 != Some(position.epoch) {
                order = (Some(position.epoch), self.order(position.epoch));
            }
            let made = self.batch(position, &order.1, self.position(number.saturating_add(1)));
            let failed = made.is_err();
            let Some(made) = made.transpose() else { return };
            if sender.send(made).is_err() || failed {
                return;
            }
            number = number.saturating_add(step);
        }
    }

    /// Image indices in the order of an epoch.
    fn order(&self, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.dataset.images.len()).collect();
        if self.settings.shuffle {
            Random::keyed(self.settings.seed, &[epoch]).shuffle(&mut order);
        }
        order
    }

    /// The batch at `position`; nothing when stopped meanwhile.
    fn batch(&self, position: Position, order: &[usize], next: Position) -> Result<Option<Batch>, DataError> {
        let start = position.batch as usize * self.settings.batch;
        let slots = order.iter().skip(start).take(self.settings.batch);
        let mut samples = Vec::new();
        for &slot in slots {
            match self.sample(slot, position.epoch)? {
                Some(sample) => samples.push(sample),
                None => return Ok(None),
            }
        }
        Ok(Some(assemble(samples, next)))
    }

    /// Image `slot`, or the next one by index that can be read; nothing when stopped meanwhile.
    fn sample(&self, slot: usize, epoch: u64) -> Result<Option<Prepared>, DataError> {
        let count = self.dataset.images.len();
        for index in (slot..count).chain(0..slot) {
            if self.stopped() {
                return Ok(None);
            }
            if self.skips().contains_key(&index) {
                continue;
            }
            let Some(entry) = self.dataset.images.get(index) else {
                continue;
            };
            match self.dataset.picture(index) {
                Ok(picture) => {
                    // Keyed by the slot: an image that stands in for another looks different from its own sample.
                    let mut random = Random::keyed(self.settings.seed, &[epoch, slot as u64]);
                    return Ok(Some(self.prepare(index, entry, picture, &mut random)));
                }
                Err(error) => {
                    let message = format!("skipped, the next readable image stands in for it: {error}");
                    let finding = Finding::new(Severity::Error, "unreadable-image", &entry.name, message);
                    self.skips().insert(index, finding);
                }
            }
        }
        let example = self.skips().values().next().map(|finding| finding.message.clone()).unwrap_or_default();
        Err(DataError::NoReadableImage { count, example })
    }

    /// Augments and preprocesses one picture.
    fn prepare(&self, index: usize, entry: &ImageEntry, picture: Picture, random: &mut Random) -> Prepared {
        let settings = &self.settings;
        let (width, height) = (picture.width, picture.height);
        let objects: Vec<Object> = entry
            .objects
            .iter()
            .filter(|object| !(object.crowd || settings.drop_difficult && object.difficult))
            .filter(|object| object.bbox.is_proper())
            .map(|object| Object {
                bbox: object.bbox.clip(width as f32, height as f32),
                mask: object
                    .mask
                    .as_ref()
                    .filter(|mask| settings.masks && (mask.width, mask.height) == (width, height))
                    .cloned(),
                ..*object
            })
            .filter(|object| object.bbox.is_proper())
            .collect();
        let sample = Sample { picture, objects };
        let (sample, applied) = imaging::augment(sample, &settings.augmentation, self.fill, random);
        let input = settings.preprocess.apply(&sample.picture);
        let objects = sample.objects.into_iter().filter_map(|object| object_in_input(object, &input)).collect();
        Prepared { input, objects, index, name: entry.name.clone(), applied }
    }
}

/// The mean colour that preprocessing subtracts, as RGB; the letterbox's grey where it subtracts none.
fn fill_color(preprocess: &Preprocess) -> [u8; 3] {
    let planes = match preprocess.fit {
        Fit::Letterbox { fill, .. } => [fill; 3],
        _ if preprocess.mean == [0.0; 3] => [127.5; 3],
        _ => preprocess.mean,
    };
    let [first, second, third] = planes.map(|value| value.round().clamp(0.0, 255.0) as u8);
    match preprocess.order {
        ChannelOrder::Rgb => [first, second, third],
        ChannelOrder::Bgr => [third, second, first],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canvas_has_the_mean_colour_as_rgb() {
        let mut preprocess = Preprocess {
            fit: Fit::Stretch { width: 8, height: 8 },
            order: ChannelOrder::Bgr,
            mean: [103.53, 116.28, 123.675],
            std: [1.0; 3],
        };
        assert_eq!(fill_color(&preprocess), [124, 116, 104]);
        preprocess.fit = Fit::Letterbox { width: 8, height: 8, fill: 127.5 };
        assert_eq!(fill_color(&preprocess), [128, 128, 128]);
    }
}
