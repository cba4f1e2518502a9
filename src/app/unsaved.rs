//! Trained weights that are written nowhere: what would lose them is asked about first.

use super::action::{Action, Dialog};
use super::dialogs::is_weights_path;
use super::run_action::RunAction;
use super::state::State;
use egui::{Context, Id, ViewportCommand};

/// What waits for an answer.
#[derive(Clone, Debug)]
enum Waiting {
    Action(Box<Action>),
    Close,
}

/// The question, and what goes on after it.
#[derive(Debug, Default)]
pub struct Unsaved {
    waiting: Option<Waiting>,
    /// The answer was to go on without the weights.
    agreed: bool,
}

impl Unsaved {
    /// Whether `action` is held back until somebody answers.
    pub fn holds(&mut self, action: &Action, state: &State) -> bool {
        if std::mem::take(&mut self.agreed) || !replaces_the_model(action) || !is_unsaved(state) {
            return false;
        }
        self.waiting = Some(Waiting::Action(Box::new(action.clone())));
        true
    }

    pub fn is_asking(&self) -> bool {
        self.waiting.is_some()
    }

    /// Keeps the window open where closing it would lose weights.
    pub fn guard_closing(&mut self, ctx: &Context, state: &State) {
        if ctx.input(|i| i.viewport().close_requested()) && !self.agreed && is_unsaved(state) {
            ctx.send_viewport_cmd(ViewportCommand::CancelClose);
            self.waiting = Some(Waiting::Close);
        }
    }

    /// Closes the window without a question.
    pub fn close(&mut self, ctx: &Context) {
        self.agreed = true;
        ctx.send_viewport_cmd(ViewportCommand::Close);
    }

    /// Asks, where something waits; what was held back comes out when the answer is to go on.
    pub fn show(&mut self, ctx: &Context, actions: &mut Vec<Action>) {
        let Some(waiting) = self.waiting.clone() else { return };
        let mut done = false;
        let question = egui::Modal::new(Id::unique("unsaved weights")).show(ctx, |ui| {
            ui.set_width(380.0);
            ui.heading("The trained weights are not saved");
            ui.label("The run was not written to disk: what it learned is lost when you go on.");
            ui.horizontal(|ui| {
                if ui.button("Save weights…").clicked() {
                    actions.push(Action::OpenDialog(Dialog::SaveWeights));
                    done = true;
                }
                if ui.button("Go on without them").clicked() {
                    done = true;
                    match &waiting {
                        Waiting::Close => self.close(ctx),
                        Waiting::Action(action) => {
                            self.agreed = true;
                            actions.push((**action).clone());
                        }
                    }
                }
                done |= ui.button("Stay").clicked();
            });
        });
        if done || question.should_close() {
            self.waiting = None;
        }
    }
}

/// Whether it puts another model in the place of the trained one.
fn replaces_the_model(action: &Action) -> bool {
    match action {
        Action::LoadModel { .. } | Action::Run(RunAction::OpenCheckpoint(_)) => true,
        Action::OpenPath(path) => is_weights_path(path),
        _ => false,
    }
}

fn is_unsaved(state: &State) -> bool {
    if state.weights_kept {
        return false;
    }
    match &state.training {
        Some(training) => training.folder.is_none() && training.iteration > 0,
        None => state.model.as_ref().is_some_and(|model| model.weights.ends_with(crate::engine::model::NOT_SAVED)),
    }
}
