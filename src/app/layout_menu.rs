//! The menu of layouts: save under a name, take one up, forget it, pass it on as a file.

use super::action::{Action, Dialog};
use super::settings::Settings;
use super::window_action::WindowAction;
use egui::containers::menu::{MenuButton, MenuConfig};
use egui::{PopupCloseBehavior, TextEdit, Ui};

/// A longer name is cut.
const LONGEST: usize = 40;

/// Scratch of the menu.
#[derive(Debug, Default)]
pub struct LayoutMenu {
    name: String,
}

impl LayoutMenu {
    /// `last` is what the last edit was about, where there is one to undo.
    pub fn ui(&mut self, ui: &mut Ui, settings: &Settings, last: Option<&str>, actions: &mut Vec<Action>) {
        // A click into the name must not close the menu.
        let config = MenuConfig::new().close_behavior(PopupCloseBehavior::CloseOnClickOutside);
        MenuButton::new("Layout").config(config).ui(ui, |ui| {
            ui.set_min_width(220.0);
            ui.horizontal(|ui| {
                let label = ui.label("Name");
                let field = TextEdit::singleline(&mut self.name).char_limit(LONGEST).desired_width(110.0);
                ui.add(field).labelled_by(label.id);
                let name = self.name.trim();
                let save = ui.add_enabled(!name.is_empty(), egui::Button::new("Save layout"));
                let save = save.on_hover_text("Keeps where the panels are under this name");
                if save.on_disabled_hover_text("Give it a name first").clicked() {
                    actions.push(Action::Window(WindowAction::SaveLayout(name.to_string())));
                    self.name.clear();
                    ui.close();
                }
            });
            for name in settings.layouts.keys() {
                ui.horizontal(|ui| {
                    let apply = ui.button(name).on_hover_text("Puts the panels where they were when it was saved");
                    if apply.accessible_name(format!("Use layout {name}")).clicked() {
                        actions.push(Action::Window(WindowAction::UseLayout(name.clone())));
                        ui.close();
                    }
                    let forget = ui.small_button("×").on_hover_text("Forget this layout");
                    if forget.accessible_name(format!("Forget layout {name}")).clicked() {
                        actions.push(Action::Window(WindowAction::ForgetLayout(name.clone())));
                    }
                });
            }
            ui.separator();
            let undo = last.map_or("Undo".to_string(), |last| format!("Undo: {last}"));
            let undo = ui.add_enabled(last.is_some(), egui::Button::new(undo));
            let undo = undo.on_hover_text("Takes the last edit back: moved, reset, loaded and forgotten layouts too");
            if undo.on_disabled_hover_text("Nothing was changed yet").clicked() {
                actions.push(Action::Undo);
            }
            for (name, action) in [
                ("Reset layout", Action::ResetLayout),
                ("Export layout…", Action::OpenDialog(Dialog::ExportLayout)),
                ("Import layout…", Action::OpenDialog(Dialog::ImportLayout)),
            ] {
                if ui.button(name).clicked() {
                    actions.push(action);
                    ui.close();
                }
            }
        });
    }
}
