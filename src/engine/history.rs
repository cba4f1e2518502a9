//! The runs on disk, read on a thread of their own, so that neither the window nor a training run waits for them.

use super::Wake;
use super::curves::Curves;
use super::run_folder::RunSummary;
use super::runs::{Difference, Runs};
use crate::train::blackbox::Recording;
use crate::train::checkpoint;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Questions that may wait, and answers that may wait unread.
const WAITING: usize = 32;

/// What can be asked. Runs are named by their folder within `root`.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// All runs; with `scan` the folders are looked through anew.
    List {
        root: PathBuf,
        scan: bool,
    },
    /// Puts the run in `folder` into the index beside it, and lists all runs of `root`.
    Note {
        root: PathBuf,
        folder: PathBuf,
    },
    /// The settings in which two runs differ.
    Difference {
        root: PathBuf,
        left: String,
        right: String,
    },
    /// Checkpoints and black box.
    Details {
        root: PathBuf,
        name: String,
    },
    Curves {
        folder: PathBuf,
    },
}

/// What comes back.
#[derive(Clone, Debug)]
pub enum Answer {
    Runs(Arc<Vec<RunSummary>>),
    Difference {
        left: String,
        right: String,
        differences: Arc<Vec<Difference>>,
    },
    Details(Arc<RunDetails>),
    Curves {
        folder: PathBuf,
        curves: Box<Curves>,
    },
    /// What failed, and what to do.
    Failed(String),
}

/// What a run's folder holds beyond its summary.
#[derive(Clone, Debug)]
pub struct RunDetails {
    pub name: String,
    /// Kept checkpoints by iterations done, rising, the last one among them.
    pub checkpoints: Vec<(u64, PathBuf)>,
    /// The weights of the best validation, where there was one.
    pub best: Option<PathBuf>,
    /// What was written when the run paused by itself.
    pub recording: Option<Recording>,
}

/// The thread that reads. Dropping it lets a question under way finish.
pub struct History {
    questions: Option<Sender<Question>>,
    answers: Receiver<Answer>,
    reader: Option<JoinHandle<()>>,
}

impl History {
    /// Starts the thread; `wake` is called with every answer.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start(wake: Wake) -> std::io::Result<Self> {
        let (questions, asked) = bounded::<Question>(WAITING);
        let (answer, answers) = bounded(WAITING);
        let reader = std::thread::Builder::new().name("boxwright-runs".into()).spawn(move || {
            for question in asked {
                // Nobody listens any more: the window is gone.
                if answer.send(answered(&question)).is_err() {
                    return;
                }
                wake();
            }
        })?;
        Ok(Self { questions: Some(questions), answers, reader: Some(reader) })
    }

    /// Asks; false when too many questions wait already.
    pub fn ask(&self, question: Question) -> bool {
        self.questions.as_ref().is_some_and(|questions| questions.try_send(question).is_ok())
    }

    /// The next answer, if there is one.
    pub fn poll(&self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }
}

impl Drop for History {
    fn drop(&mut self) {
        // Without a sender the questions end; what is unread makes room for what the thread still wants to say.
        self.questions = None;
        let (_, nothing) = bounded(0);
        drop(std::mem::replace(&mut self.answers, nothing));
        if let Some(reader) = self.reader.take()
            && reader.join().is_err()
        {
            tracing::error!("reading runs ended by a panic");
        }
    }
}

fn answered(question: &Question) -> Answer {
    let failed = |error: super::runs::RunsError| Answer::Failed(error.to_string());
    match question {
        Question::List { root, scan } => list(root, *scan).unwrap_or_else(failed),
        Question::Note { root, folder } => {
            let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let own = if folder.starts_with(root) { root.as_path() } else { parent };
            let noted = Runs::open(own).and_then(|runs| runs.note(folder));
            noted.and_then(|()| list(root, false)).unwrap_or_else(failed)
        }
        Question::Difference { root, left, right } => {
            let found = Runs::open(root).and_then(|runs| runs.difference(left, right));
            found.map_or_else(failed, |differences| Answer::Difference {
                left: left.clone(),
                right: right.clone(),
                differences: Arc::new(differences),
            })
        }
        Question::Details { root, name } => Answer::Details(Arc::new(details(root, name))),
        Question::Curves { folder } => match Curves::read(folder) {
            Ok(curves) => Answer::Curves { folder: folder.clone(), curves: Box::new(curves) },
            Err(error) => Answer::Failed(error),
        },
    }
}

/// A folder without runs, or none at all, is an empty list; nothing is made there.
fn list(root: &Path, scan: bool) -> Result<Answer, super::runs::RunsError> {
    if !root.is_dir() {
        return Ok(Answer::Runs(Arc::default()));
    }
    let mut runs = Runs::open(root)?;
    if scan {
        runs.scan()?;
    }
    Ok(Answer::Runs(Arc::new(runs.list()?)))
}

fn details(root: &Path, name: &str) -> RunDetails {
    let folder = root.join(name);
    let mut checkpoints = checkpoint::kept(&folder);
    let last = checkpoint::last(&folder);
    if let Some(done) = checkpoint::saved_iteration(&last)
        && checkpoints.last().is_none_or(|(newest, _)| *newest < done)
    {
        checkpoints.push((done, last));
    }
    let best = checkpoint::best(&folder);
    RunDetails {
        name: name.to_string(),
        checkpoints,
        best: best.is_file().then_some(best),
        recording: Recording::read(&folder).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn wait(history: &History) -> Answer {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(answer) = history.poll() {
                return answer;
            }
            assert!(Instant::now() < deadline, "no answer");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn questions_are_answered_in_order_and_what_is_not_there_is_said() {
        let root = tempfile::tempdir().unwrap();
        let history = History::start(Arc::new(|| {})).unwrap();
        assert!(history.ask(Question::List { root: root.path().join("none"), scan: false }));
        assert!(matches!(wait(&history), Answer::Runs(runs) if runs.is_empty()));
        assert!(!root.path().join("none").exists(), "looking makes nothing");
        history.ask(Question::List { root: root.path().to_path_buf(), scan: true });
        history.ask(Question::Difference { root: root.path().to_path_buf(), left: "a".into(), right: "b".into() });
        history.ask(Question::Curves { folder: root.path().join("a") });
        assert!(matches!(wait(&history), Answer::Runs(runs) if runs.is_empty()));
        assert!(matches!(wait(&history), Answer::Failed(_)));
        assert!(matches!(wait(&history), Answer::Failed(text) if text.contains("metrics.jsonl")));
    }

    #[test]
    fn dropping_it_with_answers_unread_ends_the_thread() {
        let root = tempfile::tempdir().unwrap();
        let history = History::start(Arc::new(|| {})).unwrap();
        for _ in 0..2 * WAITING {
            history.ask(Question::Details { root: root.path().to_path_buf(), name: "a".into() });
        }
        let start = Instant::now();
        drop(history);
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}
