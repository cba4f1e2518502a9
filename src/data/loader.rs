//! Batches for training: worker threads decode, augment and preprocess ahead; the order never depends on their number.
//!
//! Batch `n` is made by worker `n mod workers` and handed over in a channel of its own, so batches come in order without
//! a waiting room that could grow. Everything random about a sample follows from (seed, epoch, image).

pub use super::batch::{Batch, Position};

use super::batch::assemble;
use super::dataset::{Dataset, Finding};
use super::error::DataError;
use super::order::epoch_order;
use super::sampler::{Halt, Sampler};
use crate::imaging::{Augmentation, Preprocess};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rayon::{ThreadPoolBuildError, ThreadPoolBuilder};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Most worker threads of one loader.
const MAX_WORKERS: usize = 64;
/// Finished batches that a worker keeps ready.
const READY_PER_WORKER: usize = 1;
/// How long a wait for a batch lasts before it looks whether it is still wanted.
const PATIENCE: Duration = Duration::from_millis(20);
/// Bytes of decoded pictures that a loader of shuffled epochs keeps.
const CACHE_BYTES: usize = 512 << 20;

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
    stream: Arc<Stream>,
    channels: Vec<Receiver<Result<Batch, DataError>>>,
    threads: Vec<JoinHandle<()>>,
    /// Batches before the first one of this loader, counted from the beginning of epoch 0.
    first: u64,
    /// Batches handed out.
    taken: u64,
}

impl Loader {
    /// Starts the threads, beginning with the batch at `start`. Shuffled epochs keep up to 512 MiB of decoded pictures;
    /// an ordered epoch is taken to be gone through once, and keeps none.
    ///
    /// # Errors
    /// [`DataError::Loader`] when there is no image, the batch size is 0, the augmentation does not suit the input or a
    /// thread cannot be started.
    pub fn new(dataset: Arc<Dataset>, settings: LoaderSettings, start: Position) -> Result<Self, DataError> {
        let cache_bytes = if settings.shuffle { CACHE_BYTES } else { 0 };
        Self::with_cache(dataset, settings, start, cache_bytes)
    }

    /// The same with a limit to the decoded pictures that are kept, in bytes. The batches do not depend on it.
    ///
    /// # Errors
    /// As [`Loader::new`].
    pub fn with_cache(
        dataset: Arc<Dataset>,
        settings: LoaderSettings,
        start: Position,
        cache_bytes: usize,
    ) -> Result<Self, DataError> {
        let failed = |message: String| DataError::Loader { message };
        let images = dataset.images.len();
        if settings.batch == 0 {
            return Err(failed("a batch needs at least one image".to_owned()));
        }
        let whole = images / settings.batch;
        let batches = if settings.shuffle && whole > 0 { whole } else { images.div_ceil(settings.batch) } as u64;
        let workers = settings.workers.clamp(1, MAX_WORKERS);
        let stream = Arc::new(Stream { sampler: Sampler::new(dataset, settings, cache_bytes)?, batches });
        let first = start.epoch.saturating_mul(batches).saturating_add(start.batch);
        let mut loader = Self { stream, channels: Vec::new(), threads: Vec::new(), first, taken: 0 };
        for worker in 0..workers {
            let (sender, receiver) = bounded(READY_PER_WORKER);
            let stream = Arc::clone(&loader.stream);
            let begin = first.saturating_add(worker as u64);
            let thread = spawn(format!("loader-{worker}"), move || stream.work(begin, workers as u64, &sender))
                .map_err(|error| failed(format!("thread {worker} cannot be started: {error}")))?;
            loader.channels.push(receiver);
            loader.threads.extend(thread);
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
        let batch = self.next_unless(|| false)?;
        batch.ok_or_else(|| DataError::Loader { message: "the wait for a batch was given up".to_owned() })
    }

    /// The next batch; waits for it until `stopped`, after which the same batch comes next.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn next_unless(&mut self, stopped: impl Fn() -> bool) -> Result<Option<Batch>, DataError> {
        let worker = (self.taken % self.channels.len().max(1) as u64) as usize;
        let ended = || DataError::Loader { message: "its thread has ended".to_owned() };
        let channel = self.channels.get(worker).ok_or_else(ended)?;
        let begin = Instant::now();
        let mut batch = loop {
            match channel.recv_timeout(PATIENCE) {
                Ok(batch) => break batch?,
                Err(RecvTimeoutError::Timeout) if stopped() => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(ended()),
            }
        };
        batch.wait_seconds = begin.elapsed().as_secs_f64();
        self.taken += 1;
        Ok(Some(batch))
    }

    /// Where the batch stands that `next` gives next.
    pub fn position(&self) -> Position {
        self.stream.position(self.first.saturating_add(self.taken))
    }

    /// Batches in an epoch.
    pub fn batches_per_epoch(&self) -> u64 {
        self.stream.batches
    }

    /// Images that could not be read so far, by their order in the data set; others stand in for them.
    pub fn skipped(&self) -> Vec<Finding> {
        self.stream.sampler.skips().values().cloned().collect()
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.stream.sampler.stop();
        // A worker that waits to hand a batch over is freed by the end of its channel.
        self.channels.clear();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::warn!("a loader thread panicked");
            }
        }
    }
}

/// Draws one sample anew, as a batch of one: the sample that image `slot` (its index in the data set, or what a
/// "stand-in" in [`Batch::applied`] names) gave or will give in `epoch` under these settings. Its position names the
/// epoch. Beside others of another size the same pixels are padded.
///
/// # Errors
/// As [`Loader::new`] and [`Loader::next`].
pub fn draw_sample(
    dataset: &Arc<Dataset>,
    settings: &LoaderSettings,
    epoch: u64,
    slot: usize,
) -> Result<Batch, DataError> {
    let sampler = Sampler::new(Arc::clone(dataset), settings.clone(), 0)?;
    match sampler.sample(slot, epoch) {
        Ok(sample) => Ok(assemble(vec![sample], Position { epoch, batch: 0 })),
        Err(Halt::Failed(error)) => Err(error),
        Err(Halt::Stopped) => Err(DataError::Loader { message: "it was stopped".to_owned() }),
    }
}

/// Runs `work` on a thread that is a thread pool of its own: what resizing and the like do in parallel happens right
/// there, instead of queueing behind the network's operations in the pool that trains.
fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> Result<Option<JoinHandle<()>>, ThreadPoolBuildError> {
    let mut handle = None;
    let pool = ThreadPoolBuilder::new()
        .num_threads(1)
        .panic_handler(|_| tracing::warn!("a loader thread panicked"))
        .spawn_handler(|thread| {
            handle = Some(thread::Builder::new().name(name.clone()).spawn(move || thread.run())?);
            Ok(())
        })
        .build()?;
    // The thread ends when its work is done, since the pool has no other owner.
    pool.spawn(work);
    Ok(handle)
}

/// The endless stream of batches, which all workers see.
struct Stream {
    sampler: Sampler,
    /// In an epoch; at least 1.
    batches: u64,
}

impl Stream {
    fn position(&self, number: u64) -> Position {
        Position { epoch: number / self.batches, batch: number % self.batches }
    }

    /// Makes every `step`-th batch from number `number` on, until stopped or failed.
    fn work(&self, mut number: u64, step: u64, sender: &Sender<Result<Batch, DataError>>) {
        let mut order: (Option<u64>, Vec<usize>) = (None, Vec::new());
        while !self.sampler.stopped() {
            let position = self.position(number);
            if order.0 != Some(position.epoch) {
                let images = epoch_order(&self.sampler.dataset, &self.sampler.settings, position.epoch);
                order = (Some(position.epoch), images);
            }
            let made = match self.batch(position, &order.1, self.position(number.saturating_add(1))) {
                Ok(batch) => Ok(batch),
                Err(Halt::Failed(error)) => Err(error),
                Err(Halt::Stopped) => return,
            };
            let failed = made.is_err();
            if sender.send(made).is_err() || failed {
                return;
            }
            number = number.saturating_add(step);
        }
    }

    /// The batch at `position`.
    fn batch(&self, position: Position, order: &[usize], next: Position) -> Result<Batch, Halt> {
        let size = self.sampler.settings.batch;
        let slots = order.iter().skip((position.batch as usize).saturating_mul(size)).take(size);
        let samples = slots.map(|&slot| self.sampler.sample(slot, position.epoch));
        Ok(assemble(samples.collect::<Result<Vec<_>, Halt>>()?, next))
    }
}
