//! Files written by a thread of their own: neither encoding a picture nor a slow disk holds up a frame.

use crate::engine::Wake;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::thread::JoinHandle;

/// Files that may wait to be written, and answers that may wait unread.
const WAITING: usize = 64;

/// Makes and writes one file.
type Work = Box<dyn FnOnce() -> Written + Send>;
/// The file that is there now, or a sentence that names it and says what failed.
pub type Written = Result<PathBuf, String>;

/// The thread that writes. Dropping it waits until everything that was asked for is written.
pub struct Writer {
    works: Option<Sender<Work>>,
    answers: Receiver<Written>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread; `wake` is called with every answer.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start(wake: Wake) -> std::io::Result<Self> {
        let (works, asked) = bounded::<Work>(WAITING);
        let (answer, answers) = bounded(WAITING);
        let thread = std::thread::Builder::new().name("boxwright-writer".into()).spawn(move || {
            for work in asked {
                // What cannot be drawn must not end the thread for the files after it.
                let written = catch_unwind(AssertUnwindSafe(work))
                    .unwrap_or_else(|_| Err("a file is not written: drawing it ended by a panic".into()));
                // Where nobody listens any more the file is written all the same.
                if answer.send(written).is_ok() {
                    wake();
                }
            }
        })?;
        Ok(Self { works: Some(works), answers, thread: Some(thread) })
    }

    /// Has a file written; false when too many wait already.
    pub fn write(&self, work: impl FnOnce() -> Written + Send + 'static) -> bool {
        self.works.as_ref().is_some_and(|works| works.try_send(Box::new(work)).is_ok())
    }

    /// What became of the next file, where one is done.
    pub fn poll(&self) -> Option<Written> {
        self.answers.try_recv().ok()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Without a sender the files end; without a reader no answer waits for room.
        self.works = None;
        let (_, nothing) = bounded(0);
        drop(std::mem::replace(&mut self.answers, nothing));
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("writing files ended by a panic");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn the_asker_goes_on_at_once_and_nothing_is_lost_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let (open, gate) = bounded::<()>(0);
        let writer = Writer::start(Arc::new(|| {})).unwrap();
        let path = |number: usize| folder.path().join(number.to_string());
        for number in 0..5 {
            let (gate, path) = (gate.clone(), path(number));
            assert!(writer.write(move || {
                gate.recv_timeout(Duration::from_secs(60)).map_err(|e| e.to_string())?;
                std::fs::write(&path, b"x").map_err(|e| e.to_string())?;
                Ok(path)
            }));
        }
        assert!(writer.poll().is_none() && !path(0).exists(), "the first file waits for the gate");
        let opener = std::thread::spawn(move || (0..5).for_each(|_| open.send(()).unwrap()));
        drop(writer);
        opener.join().unwrap();
        assert!((0..5).all(|number| path(number).is_file()));
    }

    #[test]
    fn a_failure_is_an_answer() {
        let writer = Writer::start(Arc::new(|| {})).unwrap();
        assert!(writer.write(|| Err("no room: a.png".into())));
        let answer = writer.answers.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!(answer, Err("no room: a.png".to_string()));
    }

    #[test]
    fn a_panic_is_a_failure_and_the_next_file_is_written() {
        let writer = Writer::start(Arc::new(|| {})).unwrap();
        assert!(writer.write(|| panic!("a drawing that goes wrong")) && writer.write(|| Ok("b.png".into())));
        let answer = || writer.answers.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(answer().is_err());
        assert_eq!(answer(), Ok(PathBuf::from("b.png")));
    }
}
