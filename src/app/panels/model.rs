//! Model panel: architecture, weights and their load report, preprocessing, and the limits of detection.

use crate::app::action::{Action, Dialog};
use crate::app::state::State;
use crate::app::theme;
use crate::detect::{Arch, Config};
use crate::engine::command::ModelChoice;
use egui::{Grid, RichText, ScrollArea, Slider, Ui};

/// Scratch of the panel.
#[derive(Debug, Default)]
pub struct ModelPanel {
    /// Settings being dragged, sent when let go.
    edited: Option<Config>,
}

impl ModelPanel {
    pub fn ui(&mut self, ui: &mut Ui, state: &State, actions: &mut Vec<Action>) {
        let current = state.model.as_ref().map(|m| m.config.arch());
        ui.horizontal_wrapped(|ui| {
            egui::ComboBox::from_id_salt("architecture")
                .selected_text(current.map_or("choose a model", Arch::name))
                .show_ui(ui, |ui| {
                    for arch in Arch::ALL {
                        let note = if arch.embedded_weights().is_some() { "" } else { " (needs weights)" };
                        if ui.selectable_label(current == Some(arch), format!("{arch}{note}")).clicked() {
                            actions.push(Action::LoadModel {
                                choice: ModelChoice::Named(arch.name().into()),
                                weights: None,
                                allow_partial: false,
                            });
                        }
                    }
                })
                .response
                .on_hover_text("The network; embedded weights are loaded where there are any");
            if ui.button("Load weights…").clicked() {
                actions.push(Action::OpenDialog(Dialog::Weights));
            }
            if ui.add_enabled(state.model.is_some(), egui::Button::new("Save…")).clicked() {
                actions.push(Action::OpenDialog(Dialog::SaveWeights));
            }
        });
        let Some(model) = &state.model else {
            ui.label("No model is loaded.");
            return;
        };
        ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
            let (height, width) = model.config.input();
            Grid::new("model facts").num_columns(2).show(ui, |ui| {
                let mut row = |name: &str, value: String| {
                    ui.weak(name);
                    ui.label(value);
                    ui.end_row();
                };
                row("Weights", model.weights.clone());
                row("Input", format!("{width}×{height}"));
                row("Classes", model.config.classes().len().to_string());
                row("Parameters", format!("{:.3} M", model.parameters as f64 / 1e6));
                row("Device", model.device.clone());
                row("Preprocessing", model.config.preprocess().describe());
                if let Some(report) = &model.report {
                    row("Loaded", format!("{} tensors, {:.1} %", report.loaded.len(), report.coverage * 100.0));
                }
            });
            if let Some(report) = &model.report {
                let troubles = [
                    ("missing", report.missing.iter().map(|e| e.name.clone()).collect::<Vec<_>>()),
                    ("unexpected", report.unexpected.iter().map(|(name, _)| name.clone()).collect()),
                    ("of another shape", report.mismatched.iter().map(|(name, ..)| name.clone()).collect()),
                ];
                for (kind, names) in troubles.into_iter().filter(|(_, names)| !names.is_empty()) {
                    let title = RichText::new(format!("{} {kind}", names.len())).color(theme::ERROR);
                    ui.collapsing(title, |ui| {
                        for name in names.iter().take(200) {
                            ui.monospace(name);
                        }
                    });
                }
            }
            ui.separator();
            self.limits(ui, &model.config, actions);
        });
    }

    /// The limits between head and result: they need no other weights.
    fn limits(&mut self, ui: &mut Ui, config: &Config, actions: &mut Vec<Action>) {
        let edited = self.edited.get_or_insert_with(|| config.clone());
        let mut done = false;
        {
            let limits = edited.limits_mut();
            let mut slider = |ui: &mut Ui, slider: Slider<'_>, help: &str| {
                let response = ui.add(slider).on_hover_text(help);
                done |= response.drag_stopped() || (response.changed() && !response.dragged());
            };
            let help = "The lower-scored of two boxes of one class goes when their IoU is above this";
            slider(ui, Slider::new(limits.nms_threshold, 0.0..=1.0).text("NMS IoU"), help);
            let help = "Candidates at or below this score never reach suppression";
            slider(ui, Slider::new(limits.score_threshold, 0.001..=0.5).logarithmic(true).text("score floor"), help);
            let help = "Candidates of a class (SSD) or level that enter suppression, best first";
            slider(ui, Slider::new(limits.top_k, 1..=1000).text("top-k"), help);
            slider(ui, Slider::new(limits.max_detections, 1..=1000).text("detections"), "Most detections of an image");
        }
        if done && *edited != *config {
            actions.push(Action::Configure(Box::new(edited.clone())));
        }
        if done || !ui.ctx().egui_is_using_pointer() {
            self.edited = None;
        }
    }
}
