//! Evaluation panel: COCO's numbers for the loaded model on the open data, whole and by class.

use crate::app::action::Action;
use crate::app::state::{State, percent};
use crate::app::theme;
use egui::{Grid, RichText, ScrollArea, Ui};

/// COCO's twelve numbers in their order.
const NAMES: [&str; 12] = [
    "AP  IoU .50:.95",
    "AP  IoU .50",
    "AP  IoU .75",
    "AP  small (< 32²)",
    "AP  medium",
    "AP  large (> 96²)",
    "AR  1 a class",
    "AR  10 a class",
    "AR  100 a class",
    "AR  small",
    "AR  medium",
    "AR  large",
];

pub fn ui(ui: &mut Ui, state: &State, actions: &mut Vec<Action>) {
    let ready = state.model.is_some() && state.images() > 0 && !state.is_training();
    let running = state.progress.as_ref().filter(|p| p.task == "evaluation");
    ui.horizontal(|ui| {
        if let Some(progress) = running {
            ui.add(
                egui::ProgressBar::new(progress.done as f32 / progress.total.max(1) as f32).desired_width(200.0).text(
                    match progress.seconds_left() {
                        Some(left) => format!("{}/{}, {left:.0} s left", progress.done, progress.total),
                        None => format!("{}/{}", progress.done, progress.total),
                    },
                ),
            );
            if ui.button("Cancel").clicked() {
                actions.push(Action::Cancel);
            }
        } else if ui
            .add_enabled(ready, egui::Button::new("Evaluate"))
            .on_hover_text("Detect in every image of the open data and score by the COCO protocol")
            .on_disabled_hover_text("Needs a model and a data set, and no training under way")
            .clicked()
        {
            actions.push(Action::Evaluate);
        }
    });
    let Some(evaluation) = &state.evaluation else {
        ui.label("Nothing is evaluated yet.");
        return;
    };
    ui.weak(format!(
        "{} on {}, {} images, {:.1} s; in per cent, — where there is nothing to measure",
        evaluation.model, evaluation.data, evaluation.images, evaluation.seconds
    ));
    ScrollArea::both().auto_shrink(false).show(ui, |ui| {
        ui.horizontal_top(|ui| {
            Grid::new("twelve numbers").num_columns(2).striped(true).show(ui, |ui| {
                for (name, value) in NAMES.iter().zip(evaluation.result.stats) {
                    ui.label(*name);
                    ui.label(RichText::new(percent(value)).strong());
                    ui.end_row();
                }
            });
            ui.separator();
            Grid::new("by class").num_columns(5).striped(true).show(ui, |ui| {
                for title in ["class", "AP", "AP .50", "AP .75", "objects"] {
                    ui.weak(title);
                }
                ui.end_row();
                for (class, (name, scores)) in evaluation.classes.iter().zip(&evaluation.result.per_class).enumerate() {
                    ui.label(RichText::new(name).color(theme::class_color(class as u32)));
                    ui.label(percent(scores.ap));
                    ui.label(percent(scores.ap50));
                    ui.label(percent(scores.ap75));
                    ui.label(scores.truths.to_string());
                    ui.end_row();
                }
            });
        });
    });
}
