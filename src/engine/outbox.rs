//! The way out for events: never blocks, keeps order, keeps what the reader has no room for until it has.

use super::Wake;
use super::event::Event;
use crossbeam_channel::{Sender, TrySendError};
use std::collections::VecDeque;

/// Events kept for a reader that is away (a hidden window); beyond it the oldest of them are dropped.
const KEPT: usize = 200_000;

pub(super) struct Outbox {
    sender: Sender<Event>,
    waiting: VecDeque<Event>,
    wake: Wake,
    pub(super) reader_gone: bool,
}

impl Outbox {
    pub(super) fn new(sender: Sender<Event>, wake: Wake) -> Self {
        Self { sender, waiting: VecDeque::new(), wake, reader_gone: false }
    }

    pub(super) fn put(&mut self, event: Event) {
        if matches!(event, Event::Remembered(_)) {
            // Whole batches are written in it, and a newer one says everything: no more than one of them waits.
            let older = self.waiting.iter().rposition(|waiting| matches!(waiting, Event::Remembered(_)));
            if let Some(at) = older {
                self.waiting.remove(at);
            }
        }
        if self.waiting.len() >= KEPT {
            self.waiting.pop_front();
        }
        self.waiting.push_back(event);
        self.flush();
        (self.wake)();
    }

    /// What is called whenever there is something new.
    pub(super) fn wake(&self) -> Wake {
        self.wake.clone()
    }

    /// Hands over what waits, as far as there is room.
    pub(super) fn flush(&mut self) {
        while let Some(event) = self.waiting.pop_front() {
            match self.sender.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    self.waiting.push_front(event);
                    return;
                }
                Err(TrySendError::Disconnected(_)) => {
                    self.reader_gone = true;
                    self.waiting.clear();
                }
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_reader_that_is_away_blocks_nothing_and_loses_nothing() {
        let (sender, receiver) = crossbeam_channel::bounded(2);
        let woken = Arc::new(AtomicUsize::new(0));
        let counter = woken.clone();
        let mut outbox = Outbox::new(sender, Arc::new(move || _ = counter.fetch_add(1, Ordering::Relaxed)));
        for index in 0..10 {
            outbox.put(Event::Shown { index });
        }
        let mut seen = Vec::new();
        while seen.len() < 10 {
            while let Ok(Event::Shown { index }) = receiver.try_recv() {
                seen.push(index);
            }
            outbox.flush();
        }
        assert_eq!(seen, (0..10).collect::<Vec<_>>());
        assert_eq!(woken.load(Ordering::Relaxed), 10);
        assert!(outbox.is_empty());
    }
}
