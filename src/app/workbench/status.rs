//! The bar at the bottom: model, data, training, the task under way, and what went wrong just now.

use super::Workbench;
use crate::app::action::Action;
use crate::app::layout::Panel;
use crate::app::state::Progress;
use crate::engine::Severity;
use egui::Ui;
use std::time::Instant;

impl Workbench {
    pub(super) fn status(&mut self, ui: &mut Ui, actions: &mut Vec<Action>) {
        ui.horizontal(|ui| {
            if let Some(model) = &self.state.model {
                ui.label(format!("{} on {}", model.config.arch(), model.device));
                ui.separator();
            }
            if let Some(data) = &self.state.data {
                ui.label(format!(
                    "{} {}, image {} of {}",
                    data.name,
                    data.split,
                    (self.state.wanted + 1).min(data.images.len()),
                    data.images.len()
                ));
                ui.separator();
            }
            if let Some(training) = &self.state.training {
                let how = if training.running { "training" } else { "paused" };
                ui.label(format!("{how} at iteration {}", training.iteration));
                ui.separator();
            }
            if let Some(progress) = &self.state.progress {
                ui.label(told(progress));
                if ui.small_button("Cancel").on_hover_text("Ends the task; what it finished stays").clicked() {
                    actions.push(Action::Cancel);
                }
                ui.separator();
            }
            if let Some((line, left)) = self.state.standing(Instant::now()) {
                ui.ctx().request_repaint_after(left);
                let visuals = ui.visuals();
                let error = line.severity == Severity::Error;
                let color = if error { visuals.error_fg_color } else { visuals.warn_fg_color };
                let text = egui::RichText::new(&line.message).color(color);
                let label = ui.add(egui::Label::new(text).truncate().sense(egui::Sense::click()));
                if label.on_hover_text("A click shows the log").clicked() {
                    actions.push(Action::Focus(Panel::Log));
                }
            } else {
                ui.weak("? for keys, Ctrl+P for everything");
            }
        });
    }
}

/// How far a task is, how fast it goes and how long it will take.
fn told(progress: &Progress) -> String {
    let mut text = format!("{} {}", progress.task, progress.done);
    if progress.total > 0 {
        text += &format!("/{}", progress.total);
    }
    if progress.per_second > 0.0 {
        text += &format!(", {:.1} a second", progress.per_second);
    }
    if let Some(left) = progress.seconds_left() {
        text += &format!(", {left:.0} s left");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_time_left_are_told_where_they_are_known() {
        let mut progress = Progress { task: "evaluation".into(), done: 5, total: 10, per_second: 2.5 };
        assert_eq!(told(&progress), "evaluation 5/10, 2.5 a second, 2 s left");
        (progress.total, progress.per_second) = (0, 0.0);
        assert_eq!(told(&progress), "evaluation 5");
    }
}
