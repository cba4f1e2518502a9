//! Floor 5: the worker that owns device, model, data and training run. Commands go in, events and latest values come out.
//!
//! Two channels lead out: small ordered [`Event`]s, which a slow reader never blocks, and [`Latest`] slots for heavy
//! values, where the newest wins. The window and the command line are two users of the same thing.

pub mod bench;
pub mod cascade_iou;
pub mod checkpoints;
pub mod command;
pub mod compare;
#[cfg(all(feature = "cuda", target_os = "linux", target_arch = "x86_64"))]
mod cuda_libraries;
pub mod curves;
pub mod details;
pub mod device;
pub mod devices;
pub mod evaluate;
pub mod event;
pub mod fast_rcnn;
pub mod history;
pub mod jobs;
pub mod latest;
pub mod model;
mod outbox;
pub mod parity;
pub mod playback;
pub mod reach;
pub mod run_folder;
pub mod runs;
pub mod thumbnails;
pub mod video;
mod worker;

pub use command::Command;
pub use device::DeviceChoice;
pub use event::{Event, Severity};
pub use latest::{Augmented, Latest, Scrubbed, Shown, Slots, Stepped};

pub use crate::ops::precision::Precision;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

/// Called whenever there is something new to look at.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Commands that may wait.
const COMMANDS: usize = 64;
/// Events that may wait unread; later ones stay with the worker until there is room.
const EVENTS: usize = 512;
/// candle sorts its graph by recursion: a deep network needs a deep stack. Only touched pages cost memory.
const STACK: usize = 256 << 20;

/// A running worker. Dropping it stops the work and waits for the thread.
pub struct Engine {
    commands: Sender<Command>,
    events: Receiver<Event>,
    pub slots: Arc<Slots>,
    requests: Arc<AtomicUsize>,
    worker: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts the worker thread.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start(device: DeviceChoice, wake: Wake) -> std::io::Result<Self> {
        Self::start_on(vec![device], wake)
    }

    /// The same on several devices: training shares its batches among them, all else is done on the first.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start_on(devices: Vec<DeviceChoice>, wake: Wake) -> std::io::Result<Self> {
        let (commands, inbox) = bounded(COMMANDS);
        let (outbox, events) = bounded(EVENTS);
        let slots = Arc::new(Slots::default());
        let requests = Arc::new(AtomicUsize::new(0));
        let worker = {
            let (slots, requests) = (slots.clone(), requests.clone());
            std::thread::Builder::new().name("boxwright-engine".into()).stack_size(STACK).spawn(move || {
                worker::Worker::new(&devices, inbox, outbox::Outbox::new(outbox, wake), slots, requests).run();
            })?
        };
        Ok(Self { commands, events, slots, requests, worker: Some(worker) })
    }

    /// Sends a command. Those that end work ([`Command::interrupts`]) also interrupt what runs now.
    /// Returns false when the queue is full or the worker is gone: the command was not taken.
    pub fn send(&self, command: Command) -> bool {
        let interrupts = command.interrupts();
        if interrupts {
            self.requests.fetch_add(1, Ordering::AcqRel);
        }
        match self.commands.try_send(command) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                if interrupts {
                    self.requests.fetch_sub(1, Ordering::AcqRel);
                }
                false
            }
        }
    }

    /// The next event, if there is one.
    pub fn poll(&self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// The next event, waiting up to `timeout`.
    pub fn wait(&self, timeout: std::time::Duration) -> Option<Event> {
        self.events.recv_timeout(timeout).ok()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.requests.fetch_add(1, Ordering::AcqRel);
        let (gone, _) = bounded(0);
        // Without a sender the worker's inbox ends, which ends its loop.
        drop(std::mem::replace(&mut self.commands, gone));
        if let Some(worker) = self.worker.take()
            && worker.join().is_err()
        {
            tracing::error!("the engine ended by a panic");
        }
    }
}
