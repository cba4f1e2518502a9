//! Compare panel: up to four models or results files on the same image and the same data set.

mod dataset;
pub mod figure;
mod views;

use super::asking::Question;
use super::canvas::Canvas;
use super::evaluation::progress_bar;
use super::image_list::ImageList;
use super::score_slider;
use crate::app::action::{Action, Dialog};
use crate::app::settings::Settings;
use crate::app::state::State;
use crate::detect::Arch;
use crate::engine::command::ModelChoice;
use crate::engine::compare::{CompareSummary, SLOT_NAMES, SlotSource};
use egui::Ui;
use std::sync::Arc;
use views::Sides;

/// What the panel shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Page {
    #[default]
    Image,
    Data,
}

/// Scratch of the panel.
#[derive(Debug, Default)]
pub struct ComparePanel {
    page: Page,
    /// Slots whose difference is listed, where both are filled.
    first: usize,
    second: usize,
    /// Place and zoom of all views.
    canvas: Canvas,
    /// The picture's point under the pointer, shown in every view.
    cursor: Option<[f32; 2]>,
    /// Colours tell what they do in the Image panel; else how the sides agree.
    by_setting: bool,
    /// What the engine was last asked to run: image, numbers of the slots' and the data's change.
    question: Question<(usize, u64, u64)>,
    /// The picture of this number of change, for all views.
    pixels: Option<(u64, Arc<Vec<u8>>)>,
    sides: Option<Sides>,
    /// Counts the making of `sides`.
    made: u64,
    /// Position in the list of differences.
    chosen: Option<usize>,
    /// Where the second beats the first comes first.
    reversed: bool,
    order: Option<Order>,
}

/// Images by how much one slot beats another, and what the order was made from.
#[derive(Debug)]
struct Order {
    comparison: Arc<CompareSummary>,
    key: (usize, usize, u32, bool),
    list: ImageList,
}

impl ComparePanel {
    /// The place and zoom that view keys move, while pictures are on show.
    pub fn picture(&mut self) -> Option<&mut Canvas> {
        (self.page == Page::Image).then_some(&mut self.canvas)
    }

    pub fn ui(&mut self, ui: &mut Ui, state: &State, settings: &Settings, actions: &mut Vec<Action>) {
        slots(ui, state, actions);
        let filled: Vec<usize> =
            state.slots.iter().enumerate().filter(|(_, slot)| slot.is_some()).map(|(index, _)| index).collect();
        if filled.len() < 2 {
            ui.label("Fill two slots at least: with the loaded model, another network, weights, or COCO results.");
            return;
        }
        self.choose_pair(&filled);
        ui.horizontal_wrapped(|ui| {
            ui.selectable_value(&mut self.page, Page::Image, "This image")
                .on_hover_text("Every side's boxes, and where they disagree");
            ui.selectable_value(&mut self.page, Page::Data, "Whole data set")
                .on_hover_text("Every side's scores, and how sure the difference is");
            ui.separator();
            if filled.len() > 2 {
                pick(ui, "first side", &filled, &mut self.first);
                ui.label("against");
                pick(ui, "second side", &filled, &mut self.second);
                ui.separator();
            }
            let mut score = settings.score;
            let slider = ui.add(score_slider(&mut score));
            if slider.on_hover_text("Of all views; boxes below it are left out").changed() {
                actions.push(Action::Score(score));
            }
            match state.progress.as_ref().filter(|p| p.task == "comparison") {
                Some(progress) => progress_bar(ui, progress, actions),
                None => {
                    let ready = state.images() > 0 && !state.is_training();
                    let start = ui.add_enabled(ready, egui::Button::new("Compare on the open data"));
                    let start = start.on_hover_text("Score every side, with an interval for what each gains");
                    if start.on_disabled_hover_text("Needs a data set, and no training under way").clicked() {
                        self.page = Page::Data;
                        actions.push(Action::CompareData);
                    }
                }
            }
        });
        match self.page {
            Page::Image => self.image(ui, state, settings, &filled, actions),
            Page::Data => self.data(ui, state, settings, actions),
        }
    }

    /// Keeps the pair to filled slots that differ.
    fn choose_pair(&mut self, filled: &[usize]) {
        if !filled.contains(&self.first) {
            self.first = filled.first().copied().unwrap_or(0);
        }
        if !filled.contains(&self.second) || self.second == self.first {
            self.second = filled.iter().copied().find(|slot| *slot != self.first).unwrap_or(0);
        }
    }
}

fn pick(ui: &mut Ui, what: &str, filled: &[usize], slot: &mut usize) {
    let choice = egui::ComboBox::from_id_salt(what).selected_text(letter(*slot)).width(40.0).show_ui(ui, |ui| {
        for &other in filled {
            ui.selectable_value(slot, other, letter(other));
        }
    });
    choice.response.on_hover_text(format!("The {what} of the differences"));
}

/// What people call a slot.
fn letter(slot: usize) -> &'static str {
    SLOT_NAMES.get(slot).copied().unwrap_or("?")
}

/// What is in each slot, and menus to change it.
fn slots(ui: &mut Ui, state: &State, actions: &mut Vec<Action>) {
    ui.horizontal_wrapped(|ui| {
        for (slot, content) in state.slots.iter().enumerate() {
            let name = content.as_ref().map_or("empty", |summary| summary.name.as_str());
            let menu = ui.menu_button(format!("{}: {name}", letter(slot)), |ui| {
                let loaded = ui.add_enabled(state.model.is_some(), egui::Button::new("The loaded model"));
                let loaded = loaded.on_hover_text("A copy of it as it is now, with its settings");
                if loaded.on_disabled_hover_text("No model is loaded").clicked() {
                    actions.push(Action::SetSlot { slot, source: SlotSource::Loaded });
                }
                for arch in Arch::ALL.into_iter().filter(|arch| arch.embedded_weights().is_some()) {
                    let known = ui.button(format!("{arch}, embedded weights"));
                    if known.on_hover_text("Comes with the program").clicked() {
                        let choice = ModelChoice::Named(arch.name().into());
                        actions.push(Action::SetSlot { slot, source: SlotSource::Model { choice, weights: None } });
                    }
                }
                if ui.button("Weights…").on_hover_text("A checkpoint of any of the networks").clicked() {
                    actions.push(Action::OpenDialog(Dialog::SlotWeights(slot)));
                }
                let results = ui.add_enabled(state.data.is_some(), egui::Button::new("COCO results…"));
                let results = results.on_hover_text("Somebody's results.json on the open data");
                if results.on_disabled_hover_text("Open the data set that they were made on").clicked() {
                    actions.push(Action::OpenDialog(Dialog::SlotResults(slot)));
                }
                if content.is_some() && ui.button("Empty it").on_hover_text("Takes it out of the slot").clicked() {
                    actions.push(Action::ClearSlot(slot));
                }
            });
            let detail = content.as_ref().map_or("Nothing to compare here yet", |summary| summary.detail.as_str());
            menu.response.on_hover_text(detail);
        }
    });
}
