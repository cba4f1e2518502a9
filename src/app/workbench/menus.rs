//! The menus at the top of the window.

use super::Workbench;
use super::undo::Edit;
use crate::app::action::Action;
use crate::app::theme::Look;
use crate::app::window_action::WindowAction;
use egui::Ui;
use std::path::PathBuf;

/// The menus, by the names of their bindings.
const MENUS: &[(&str, &[&str])] = &[
    (
        "File",
        &[
            "Open image…",
            "Open folder or data set…",
            "Open COCO annotations…",
            "Play a video…",
            "Open the Shapes sample",
            "Load weights…",
            "Save weights…",
            "Export view as PNG…",
            "Save COCO results…",
        ],
    ),
    ("Edit", &["Undo", "Redo", "Close or clear"]),
    (
        "View",
        &[
            "Fit image",
            "Zoom 100 %",
            "Zoom to selection",
            "Zoom in",
            "Zoom out",
            "Ground truth on or off",
            "Predictions on or off",
            "Boxes on or off",
            "Masks on or off",
            "Labels on or off",
            "Positive anchors on or off",
            "Heat map on or off",
            "Next of all, TP, FP, FN",
            "Next theme",
            "Reset layout",
            "Full screen",
        ],
    ),
    (
        "Train",
        &[
            "Start training on the open data",
            "Train or pause",
            "Step one iteration",
            "Step ten iterations",
            "Next phase",
            "Step to the end of the epoch",
            "Find the learning rate",
            "Stop training",
            "Evaluate on the open data",
            "Score COCO results…",
            "Compare on the open data",
            "Cancel",
        ],
    ),
    ("Help", &["Keys", "Palette"]),
];

impl Workbench {
    pub(super) fn menu(&mut self, ui: &mut Ui, actions: &mut Vec<Action>) {
        ui.horizontal(|ui| {
            for (menu, names) in MENUS {
                ui.menu_button(*menu, |ui| {
                    for name in *names {
                        let Some(binding) = self.bindings.iter().find(|b| b.name == *name) else { continue };
                        let keys = binding.keys.first().map(|k| ui.ctx().format_shortcut(k)).unwrap_or_default();
                        if ui.add(egui::Button::new(*name).shortcut_text(keys)).clicked() {
                            actions.push(binding.action.clone());
                        }
                    }
                    if *menu == "File" {
                        recent(ui, &self.settings.recent, actions);
                    }
                    if *menu == "View" {
                        let mut scale = self.settings.scale;
                        let slider = egui::Slider::new(&mut scale, 0.5..=3.0).step_by(0.25).text("UI scale");
                        let slider = ui.add(slider);
                        if slider.drag_stopped() || (slider.changed() && !slider.dragged()) {
                            actions.push(Action::UiScale(scale));
                        }
                        for look in Look::ALL {
                            if ui.radio(self.settings.look == look, look.name()).clicked() {
                                actions.push(Action::Window(WindowAction::Look(look)));
                            }
                        }
                    }
                });
            }
            self.layouts.ui(ui, &self.settings, self.undo.last().map(Edit::name), actions);
        });
    }
}

/// What was open before, newest first.
fn recent(ui: &mut Ui, paths: &[PathBuf], actions: &mut Vec<Action>) {
    ui.add_enabled_ui(!paths.is_empty(), |ui| {
        ui.menu_button("Open recent", |ui| {
            for path in paths {
                if ui.button(path.display().to_string()).clicked() {
                    actions.push(Action::OpenPath(path.clone()));
                }
            }
        });
    });
}
