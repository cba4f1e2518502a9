//! Settings of a run that is not there yet.

use super::StepPanel;
use crate::app::action::{Action, Dialog};
use crate::app::run_action::RunAction;
use crate::app::state::State;
use crate::detect::Arch;
use crate::engine::command::InitialWeights;
use crate::train::TrainConfig;
use crate::train::config::{BestBy, Method, Precision};
use egui::emath::Numeric;
use egui::{CollapsingHeader, ComboBox, Slider, SliderClamping, Ui};
use std::ops::RangeInclusive;
use std::path::Path;

/// States that a nano network's run keeps to step back to: they are small.
const NANO_HISTORY: usize = 16;

/// What the panel begins with for a network.
pub fn first_draft(arch: Arch) -> TrainConfig {
    let history = if arch.name().ends_with("-nano") { NANO_HISTORY } else { 0 };
    TrainConfig { history, ..TrainConfig::new(arch) }
}

impl StepPanel {
    pub(super) fn prepare(&mut self, ui: &mut Ui, state: &State, runs: &Path, actions: &mut Vec<Action>) {
        let arch = state.model.as_ref().map_or(Arch::SsdNano, |m| m.config.arch());
        if self.draft.as_ref().is_none_or(|(of, _)| *of != arch) {
            self.draft = Some((arch, first_draft(arch)));
            self.edited = None;
        }
        let parameters = state.model.as_ref().map_or(0, |m| m.parameters);
        if let Some((_, draft)) = &self.draft {
            let mut edited = self.edited.take().unwrap_or_else(|| draft.clone());
            settings(ui, &mut edited, parameters);
            if edited != *draft {
                // One drag, or one number typed, is one edit.
                if ui.ctx().egui_is_using_pointer() || ui.ctx().egui_wants_keyboard_input() {
                    self.edited = Some(edited);
                } else {
                    actions.push(Action::Run(RunAction::Draft(Box::new(edited))));
                }
            }
        }
        if let Some(data) = state.data.as_ref().filter(|data| data.splits.len() > 1) {
            let mut split = self.split_of(data);
            let choice = ComboBox::from_label("learns from").selected_text(&split).show_ui(ui, |ui| {
                for name in &data.splits {
                    ui.selectable_value(&mut split, name.clone(), name);
                }
            });
            choice.response.on_hover_text("The split of the open data set whose images are trained on");
            if split != self.split_of(data) {
                self.split = Some(split);
            }
        }
        let text = format!("write the run to {}", runs.join("…").display());
        ui.checkbox(&mut self.write, text).on_hover_text("Metrics and checkpoints to resume and fork from");
        let trainable = state.data.as_ref().is_some_and(|d| d.class_counts.iter().sum::<usize>() > 0);
        let why_not = "Open a data set with annotated objects first";
        let fits = state.model.as_ref().zip(state.data.as_ref()).is_some_and(|(m, d)| m.config.classes() == d.classes);
        ui.horizontal_wrapped(|ui| {
            let fresh = ui.add_enabled(trainable, egui::Button::new("Start from random weights"));
            if fresh.on_disabled_hover_text(why_not).clicked() {
                actions.push(Action::StartTraining(InitialWeights::Random));
            }
            let tune = ui.add_enabled(trainable && fits, egui::Button::new("Start from the loaded weights"));
            if tune.on_disabled_hover_text("Needs a loaded model of the data set's classes").clicked() {
                actions.push(Action::StartTraining(InitialWeights::Loaded));
            }
            let file = ui.add_enabled(trainable, egui::Button::new("Start from a file…"));
            let file = file.on_hover_text("What fits of it: a classification backbone, the body of another detector");
            if file.on_disabled_hover_text(why_not).clicked() {
                actions.push(Action::OpenDialog(Dialog::Start));
            }
            let phase = ui.add_enabled(trainable, egui::Button::new("Next phase"));
            let phase = phase.on_hover_text("Starts a run and does the first phase of its first iteration");
            if phase.on_disabled_hover_text(why_not).clicked() {
                actions.push(Action::Run(RunAction::Phase));
            }
            let step = ui.add_enabled(trainable, egui::Button::new("Step"));
            if step.on_hover_text("Starts a run and takes one iteration").on_disabled_hover_text(why_not).clicked() {
                actions.push(Action::Step(1));
            }
        });
    }
}

/// A value of a file or a published schedule may lie outside of the range, and stays until it is edited.
fn slider<'a, N: Numeric>(value: &'a mut N, range: RangeInclusive<N>, name: &str) -> Slider<'a> {
    Slider::new(value, range).clamping(SliderClamping::Edits).text(name)
}

fn settings(ui: &mut Ui, draft: &mut TrainConfig, parameters: usize) {
    ui.add(slider(&mut draft.iterations, 1..=200_000, "iterations").logarithmic(true))
        .on_hover_text("Updates of the weights");
    ui.add(slider(&mut draft.batch, 1..=64, "images a batch"))
        .on_hover_text("Images that go through the network together");
    let rate = slider(&mut draft.schedule.learning_rate, 1e-6..=1.0, "learning rate").logarithmic(true);
    ui.add(rate).on_hover_text("η, after the warm-up");
    ui.horizontal_wrapped(|ui| {
        let name = |method: Method| if method == Method::Sgd { "SGD" } else { "AdamW" };
        let choice = ComboBox::from_id_salt("method").selected_text(name(draft.method)).show_ui(ui, |ui| {
            for method in [Method::Sgd, Method::AdamW] {
                ui.selectable_value(&mut draft.method, method, name(method));
            }
        });
        choice.response.on_hover_text("SGD: v ← μv + g + λw, w ← w − ηv. AdamW: Adam with decoupled weight decay");
        if draft.method == Method::Sgd {
            ui.checkbox(&mut draft.nesterov, "Nesterov").on_hover_text("w ← w − η(g + λw + μv)");
        }
    });
    ui.add(slider(&mut draft.momentum, 0.0..=0.99, "momentum")).on_hover_text("μ of SGD, β₁ of AdamW");
    ui.add(slider(&mut draft.weight_decay, 0.0..=0.1, "weight decay")).on_hover_text("λ");
    CollapsingHeader::new("More settings").show(ui, |ui| {
        ui.add(slider(&mut draft.accumulate, 1..=32, "batches an update"))
            .on_hover_text("Their mean gradient makes one update");
        ui.add(slider(&mut draft.schedule.warmup, 0..=10_000, "warm-up").logarithmic(true))
            .on_hover_text("Iterations that the rate rises over");
        ui.add(slider(&mut draft.clip_norm, 0.0..=100.0, "clip norm"))
            .on_hover_text("g ← g · c / ‖g‖ where ‖g‖ is above c; 0 leaves gradients as they are");
        ui.add(slider(&mut draft.ema, 0.0..=0.9999, "weight average"))
            .on_hover_text("Decay of the moving average of weights that is saved and evaluated; 0 turns it off");
        ui.add(slider(&mut draft.backbone_factor, 0.0..=1.0, "backbone rate"))
            .on_hover_text("Factor of the learning rate for the backbone");
        ui.horizontal_wrapped(|ui| {
            let choice = ComboBox::from_id_salt("precision").selected_text(draft.precision.name()).show_ui(ui, |ui| {
                for precision in Precision::ALL {
                    ui.selectable_value(&mut draft.precision, precision, precision.name());
                }
            });
            choice.response.on_hover_text(
                "Type of the factors in convolutions and fully connected layers; sums, weights and losses are f32. With \
                 f16 the loss is scaled, so that small gradients do not vanish",
            );
            ui.label("products");
        });
        ui.checkbox(&mut draft.freeze_batch_norm, "freeze batch norms")
            .on_hover_text("They use their running statistics and learn nothing");
        ui.add(slider(&mut draft.seed, 0..=9999, "seed")).on_hover_text("The same seed gives the same bits");
        ui.add(slider(&mut draft.validate_every, 0..=10_000, "validate every"))
            .on_hover_text("Iterations between validations on the split called val; 0 never validates");
        ui.horizontal_wrapped(|ui| {
            let name = |by: BestBy| match by {
                BestBy::Ap => "AP",
                BestBy::Ap50 => "AP at IoU .5",
                BestBy::Loss => "validation loss",
            };
            let choice = ComboBox::from_id_salt("best by").selected_text(name(draft.best_by)).show_ui(ui, |ui| {
                for by in [BestBy::Ap, BestBy::Ap50, BestBy::Loss] {
                    ui.selectable_value(&mut draft.best_by, by, name(by));
                }
            });
            choice.response.on_hover_text("What makes one validation better than another");
            ui.label("decides which weights are the best");
        });
        ui.add(slider(&mut draft.patience, 0..=100, "patience"))
            .on_hover_text("Validations without a better one after which the run ends; 0 never ends it early");
        ui.add(slider(&mut draft.checkpoint_every, 0..=10_000, "checkpoint every"))
            .on_hover_text("Iterations between checkpoints; 0 saves only at the end");
        ui.add(slider(&mut draft.keep_checkpoints, 0..=100, "checkpoints kept"))
            .on_hover_text("To fork from, and to scrub an image over");
        ui.add(slider(&mut draft.black_box, 0..=256, "black box")).on_hover_text("Batches that are remembered");
        ui.add(slider(&mut draft.spike_factor, 0.0..=100.0, "spike factor"))
            .on_hover_text("The run pauses where the loss is this many times its moving median; 0 lets it pass");
        // Weight, velocity and average, 4 bytes each.
        let mebibytes = parameters as f64 * 12.0 / f64::from(1 << 20);
        ui.add(slider(&mut draft.history, 0..=100, "states to step back to")).on_hover_text(format!(
            "Copies of weights and optimiser, about {mebibytes:.1} MiB each, at most {} MiB in all",
            draft.history_mib
        ));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_networks_can_step_back_at_once_and_large_ones_pay_nothing() {
        assert_eq!(first_draft(Arch::SsdNano).history, NANO_HISTORY);
        assert_eq!(first_draft(Arch::Ssd300), TrainConfig::new(Arch::Ssd300));
    }
}
