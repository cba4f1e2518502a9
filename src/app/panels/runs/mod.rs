//! Runs panel: the history of runs, what differs between two of them, and everything that can be done with one: resume,
//! fork, open a checkpoint, lay its curves over others, and look at one image through all its checkpoints.

mod fork;
mod scrub;

use crate::app::action::{Action, Dialog};
use crate::app::run_action::RunAction;
use crate::app::settings::Settings;
use crate::app::state::{State, percent};
use crate::engine::history::RunDetails;
use crate::engine::run_folder::{RunSummary, Status};
use crate::train::journal::utc;
use egui::{Button, CollapsingHeader, Grid, RichText, ScrollArea, TextEdit, Ui};
use fork::ForkForm;
use scrub::Scrub;
use std::sync::Arc;

/// Runs that are listed; the filter finds the others.
const LISTED: usize = 300;

/// Scratch of the panel.
#[derive(Debug, Default)]
pub struct RunsPanel {
    /// The list was asked for.
    asked: bool,
    /// The list that the rest was read beside.
    seen: Option<Arc<Vec<RunSummary>>>,
    filter: String,
    chosen: Option<String>,
    /// The run that the chosen one is compared with.
    other: Option<String>,
    fork: ForkForm,
    scrub: Scrub,
}

impl RunsPanel {
    pub fn ui(&mut self, ui: &mut Ui, state: &State, settings: &Settings, actions: &mut Vec<Action>) {
        if !self.asked {
            self.asked = true;
            actions.push(Action::Run(RunAction::List { scan: false }));
        }
        ui.horizontal_wrapped(|ui| {
            ui.weak(settings.runs.display().to_string()).on_hover_text("The folder of runs");
            if ui.button("Other folder…").clicked() {
                actions.push(Action::OpenDialog(Dialog::Runs));
            }
            if ui.button("Read again").on_hover_text("Looks through the folders anew").clicked() {
                actions.push(Action::Run(RunAction::List { scan: true }));
            }
            let label = ui.label("Find");
            ui.add(TextEdit::singleline(&mut self.filter).desired_width(100.0)).labelled_by(label.id);
        });
        let Some(runs) = state.runs.list.clone() else {
            ui.label("The runs are being read.");
            return;
        };
        if !self.seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, &runs)) {
            // A run may have gone on since.
            if let Some(name) = self.chosen.clone().filter(|_| self.seen.is_some()) {
                actions.push(Action::Run(RunAction::Details(name)));
            }
            self.seen = Some(runs.clone());
        }
        if runs.is_empty() {
            ui.label("There are no runs here yet: start one in the Step panel that is written to disk.");
            return;
        }
        ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
            self.table(ui, &runs, actions);
            let chosen = self.chosen.as_ref().and_then(|name| runs.iter().find(|run| run.name == *name));
            let Some(run) = chosen.cloned() else {
                ui.weak("Choose a run to do something with it; “with” chooses one to compare it with.");
                return;
            };
            ui.separator();
            ui.label(RichText::new(&run.name).strong());
            self.difference(ui, state);
            self.deeds(ui, &run, state, settings, actions);
        });
    }

    fn table(&mut self, ui: &mut Ui, runs: &[RunSummary], actions: &mut Vec<Action>) {
        let wanted = self.filter.to_lowercase();
        let fits = |run: &&RunSummary| {
            wanted.is_empty() || [&run.name, &run.model, &run.data].iter().any(|t| t.to_lowercase().contains(&wanted))
        };
        let found = runs.iter().filter(fits).count();
        Grid::new("runs").num_columns(8).striped(true).show(ui, |ui| {
            for (title, help) in [
                ("run", "Its folder"),
                ("", "A second run to compare it with"),
                ("model", "Architecture"),
                ("data", "What it learns from"),
                ("started", "UTC"),
                ("iterations", "Done, of all"),
                ("best AP", "COCO AP over IoU .5 to .95 of its best validation, in per cent"),
                ("status", "Paused: by itself, see its black box"),
            ] {
                ui.weak(title).on_hover_text(help);
            }
            ui.end_row();
            for run in runs.iter().filter(fits).take(LISTED) {
                self.row(ui, run, actions);
            }
        });
        if found > LISTED {
            ui.weak(format!("{} more; narrow them down with Find", found - LISTED));
        }
    }

    fn row(&mut self, ui: &mut Ui, run: &RunSummary, actions: &mut Vec<Action>) {
        let chosen = self.chosen.as_deref() == Some(run.name.as_str());
        if ui.selectable_label(chosen, &run.name).clicked() && !chosen {
            self.choose(run);
            actions.push(Action::Run(RunAction::Details(run.name.clone())));
            self.compare(actions);
        }
        let with = self.other.as_deref() == Some(run.name.as_str());
        let button = ui.selectable_label(with, "with").on_hover_text("Compare the chosen run with this one");
        if button.accessible_name(format!("Compare with {}", run.name)).clicked() {
            self.other = (!with).then(|| run.name.clone());
            self.compare(actions);
        }
        ui.label(&run.model);
        ui.label(&run.data);
        ui.label(if run.started == 0 { "—".to_string() } else { utc(run.started).replace(['T', 'Z'], " ") });
        ui.label(format!("{} of {}", run.iteration, run.iterations));
        ui.label(percent(run.best_ap.unwrap_or(-1.0)));
        let status = RichText::new(run.status.name());
        let paused = run.status == Status::Paused;
        ui.label(if paused { status.color(ui.visuals().warn_fg_color) } else { status });
        ui.end_row();
    }

    fn choose(&mut self, run: &RunSummary) {
        self.chosen = Some(run.name.clone());
        self.fork = ForkForm::of(run);
        self.scrub = Scrub::default();
    }

    fn compare(&self, actions: &mut Vec<Action>) {
        if let (Some(chosen), Some(other)) = (&self.chosen, &self.other)
            && chosen != other
        {
            actions.push(Action::Run(RunAction::Difference(chosen.clone(), other.clone())));
        }
    }

    /// The settings in which the two chosen runs differ.
    fn difference(&self, ui: &mut Ui, state: &State) {
        let Some((left, right, differences)) = &state.runs.difference else { return };
        if self.chosen.as_ref() != Some(left) || self.other.as_ref() != Some(right) {
            return;
        }
        if differences.is_empty() {
            ui.label(format!("Every setting is that of {right}."));
            return;
        }
        let title = format!("{} settings differ from {right}", differences.len());
        CollapsingHeader::new(title).id_salt("settings that differ").default_open(true).show(ui, |ui| {
            Grid::new("settings that differ").num_columns(3).striped(true).show(ui, |ui| {
                for title in ["setting", left.as_str(), right.as_str()] {
                    ui.weak(title);
                }
                ui.end_row();
                for difference in differences.iter() {
                    ui.monospace(&difference.key);
                    ui.label(difference.left.as_deref().unwrap_or("—"));
                    ui.label(difference.right.as_deref().unwrap_or("—"));
                    ui.end_row();
                }
            });
        });
    }

    /// What can be done with the run.
    fn deeds(&mut self, ui: &mut Ui, run: &RunSummary, state: &State, settings: &Settings, actions: &mut Vec<Action>) {
        let details = state.runs.details.as_deref().filter(|details| details.name == run.name);
        let folder = settings.runs.join(&run.name);
        ui.horizontal_wrapped(|ui| {
            let over = matches!(run.status, Status::Finished | Status::EndedEarly);
            let has_checkpoint = details.is_some_and(|details| !details.checkpoints.is_empty());
            let resume = ui.add_enabled(!over && has_checkpoint, Button::new("Resume"));
            let resume = resume.on_hover_text("Goes on, paused, where its last checkpoint left it");
            if resume.on_disabled_hover_text("It is over, or has no checkpoint").clicked() {
                actions.push(Action::Run(RunAction::Resume(run.name.clone())));
            }
            let mut overlaid = state.runs.is_overlaid(&folder);
            if ui.checkbox(&mut overlaid, "its curves in Losses").changed() {
                actions.push(Action::Run(RunAction::Overlay(run.name.clone())));
            }
        });
        let Some(details) = details else {
            ui.weak("Its folder is being read.");
            return;
        };
        checkpoints(ui, details, actions);
        self.fork.ui(ui, run, details, actions);
        self.scrub.ui(ui, details, state, settings, actions);
        if let Some(recording) = &details.recording {
            ui.label(RichText::new(recording.incident.to_string()).color(ui.visuals().warn_fg_color));
            if ui.button("Replay").on_hover_text("Repeats the step that paused it, and compares every bit").clicked() {
                actions.push(Action::Run(RunAction::ReplayIncident(folder)));
            }
        }
    }
}

/// Every set of weights that the run kept, to be opened as the model.
fn checkpoints(ui: &mut Ui, details: &RunDetails, actions: &mut Vec<Action>) {
    if details.checkpoints.is_empty() {
        ui.weak("No checkpoint was written yet.");
        return;
    }
    ui.horizontal_wrapped(|ui| {
        ui.label("Open as the model:");
        if let Some(best) = &details.best
            && ui.button("best").on_hover_text("The weights of the best validation").clicked()
        {
            actions.push(Action::Run(RunAction::OpenCheckpoint(best.clone())));
        }
        for (iteration, path) in &details.checkpoints {
            let button = ui.button(format!("after {iteration}"));
            if button.on_hover_text("The averaged weights after so many iterations").clicked() {
                actions.push(Action::Run(RunAction::OpenCheckpoint(path.clone())));
            }
        }
    });
}
