//! Edits that can be taken back: settings of model and run, the layout, keys, saved layouts.

use super::Workbench;
use crate::app::layout::Panel;
use crate::detect::{Arch, Config};
use crate::engine::{Command, Severity};
use crate::train::TrainConfig;
use egui_tiles::Tree;
use std::collections::BTreeMap;

/// Edits that can be undone.
const UNDO_STEPS: usize = 100;

/// What was there before an edit.
pub(super) enum Edit {
    /// Limits of the loaded model.
    Model(Box<Config>),
    /// Settings of the next run of this network.
    Draft(Arch, Box<TrainConfig>),
    /// Where the panels were.
    Layout(Box<Tree<Panel>>),
    /// The user's own keys.
    Keys(BTreeMap<String, String>),
    /// The saved layouts.
    Layouts(BTreeMap<String, Tree<Panel>>),
}

impl Edit {
    /// What it is about, for people.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Model(_) => "limits of the model",
            Self::Draft(..) => "settings of the next run",
            Self::Layout(_) => "layout",
            Self::Keys(_) => "keys",
            Self::Layouts(_) => "saved layouts",
        }
    }
}

impl Workbench {
    /// Keeps what an edit is about to change.
    pub(super) fn remember(&mut self, edit: Edit) {
        if self.undo.len() >= UNDO_STEPS {
            self.undo.remove(0);
        }
        self.undo.push(edit);
        self.redo.clear();
    }

    /// Puts the panels elsewhere; the change can be undone.
    pub(super) fn lay_out(&mut self, tree: Tree<Panel>) {
        if tree != self.tree {
            let before = std::mem::replace(&mut self.tree, tree);
            self.remember(Edit::Layout(Box::new(before)));
        }
    }

    /// Takes the last edit back, or does it again.
    pub(super) fn travel(&mut self, back: bool) {
        let Some(edit) = (if back { self.undo.pop() } else { self.redo.pop() }) else {
            return self.state.note(Severity::Info, "undo", "there is nothing to undo or redo");
        };
        let name = edit.name();
        if let Some(before) = self.put(edit) {
            let (other, how) = if back { (&mut self.redo, "as before") } else { (&mut self.undo, "changed again") };
            other.push(before);
            self.state.note(Severity::Info, "undo", format!("{name}: {how}"));
        }
    }

    /// Puts in place what an edit has kept; gives what was there.
    fn put(&mut self, edit: Edit) -> Option<Edit> {
        Some(match edit {
            Edit::Model(config) => {
                let fits = |c: &&Config| c.arch() == config.arch() && c.classes() == config.classes();
                // A model loaded since then has other settings; going back into those of another one would break it.
                let Some(current) = self.state.model.as_ref().map(|m| &m.config).filter(fits) else {
                    self.state.note(Severity::Info, "undo", "another model is loaded since that edit");
                    return None;
                };
                let before = Edit::Model(Box::new(current.clone()));
                self.send(Command::Configure(config));
                before
            }
            Edit::Draft(arch, config) => {
                // There are settings of one network's run at a time.
                if arch != self.arch() {
                    self.state.note(Severity::Info, "undo", "another network is loaded since that edit");
                    return None;
                }
                let before = self.drafted(arch);
                self.panels.step.draft = Some((arch, *config));
                Edit::Draft(arch, Box::new(before))
            }
            Edit::Layout(tree) => Edit::Layout(Box::new(std::mem::replace(&mut self.tree, *tree))),
            Edit::Keys(keys) => {
                let before = std::mem::replace(&mut self.settings.keys, keys);
                self.read_keys();
                Edit::Keys(before)
            }
            Edit::Layouts(layouts) => Edit::Layouts(std::mem::replace(&mut self.settings.layouts, layouts)),
        })
    }
}
