//! What the window knows of the runs on disk: a fold over the answers of the thread that reads them.

use super::state::State;
use crate::engine::Severity;
use crate::engine::curves::Curves;
use crate::engine::history::{Answer, RunDetails};
use crate::engine::run_folder::RunSummary;
use crate::engine::runs::Difference;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Runs, and what was asked about some of them.
#[derive(Debug, Default)]
pub struct PastRuns {
    /// None before the first answer.
    pub list: Option<Arc<Vec<RunSummary>>>,
    pub details: Option<Arc<RunDetails>>,
    /// Two names and the settings in which they differ.
    pub difference: Option<(String, String, Arc<Vec<Difference>>)>,
    /// Curves laid over those of the run at hand, by folder.
    pub overlays: Vec<(PathBuf, Curves)>,
}

impl PastRuns {
    /// Whether the curves of the run in `folder` are laid over.
    pub fn is_overlaid(&self, folder: &Path) -> bool {
        self.overlays.iter().any(|(known, _)| known == folder)
    }

    /// Takes the curves of the run in `folder` away.
    pub fn take_away(&mut self, folder: &Path) {
        self.overlays.retain(|(known, _)| known != folder);
    }
}

impl State {
    /// Takes in what was read of the runs on disk.
    pub fn fold_answer(&mut self, answer: Answer) {
        match answer {
            Answer::Runs(runs) => self.runs.list = Some(runs),
            Answer::Details(details) => self.runs.details = Some(details),
            Answer::Difference { left, right, differences } => self.runs.difference = Some((left, right, differences)),
            Answer::Curves { folder, mut curves } => {
                curves.smooth_with(self.curves.decay());
                let resumed =
                    self.training.as_ref().filter(|training| training.folder.as_deref() == Some(folder.as_path()));
                match resumed {
                    // A run taken up again goes on where its curves ended.
                    Some(training) if self.curves.len == 0 => {
                        self.curves = *curves;
                        self.curves.keep(training.iteration);
                    }
                    // The run at hand has its own.
                    Some(_) => {}
                    None => {
                        self.runs.take_away(&folder);
                        self.runs.overlays.push((folder, *curves));
                    }
                }
            }
            Answer::Failed(message) => self.note(Severity::Error, "runs", message),
        }
    }
}
