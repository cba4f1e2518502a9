//! The black box on the screen: what paused the run, what the last iterations learnt from, and the replay.

use crate::app::action::Action;
use crate::app::layout::Panel;
use crate::app::run_action::RunAction;
use crate::app::state::State;
use crate::imaging::Applied;
use crate::train::blackbox::{ImageRecord, Record};
use egui::{CollapsingHeader, Grid, RichText, Ui};

/// Parameters named by their gradients.
const STEEPEST: usize = 3;

/// What the run paused for, and what can be done about it.
pub fn incident(ui: &mut Ui, state: &State, actions: &mut Vec<Action>) {
    let Some(incident) = &state.stepping.incident else { return };
    ui.group(|ui| {
        let color = ui.visuals().error_fg_color;
        ui.label(RichText::new("The run paused by itself").strong().color(color));
        ui.label(incident.to_string());
        ui.label("Nothing was updated. Look at the image and the object, lower the learning rate, or go on:");
        ui.horizontal_wrapped(|ui| {
            let index = incident.image.as_ref().and_then(|name| image_called(state, name, None));
            if let Some(index) = index
                && ui.button("Show the image").clicked()
            {
                actions.push(Action::Show(index));
                actions.push(Action::Focus(Panel::Image));
            }
            let open = state.training.is_some();
            if open && ui.button("Step through it").on_hover_text("The same batch again, phase by phase").clicked() {
                actions.push(Action::Run(RunAction::Phase));
            }
            if open && ui.button("Skip the batch").on_hover_text("The next iteration takes the one after it").clicked()
            {
                actions.push(Action::Run(RunAction::SkipBatch));
            }
            if let Some(folder) = state.training.as_ref().and_then(|training| training.folder.clone()) {
                let replay = ui.button("Replay");
                if replay.on_hover_text("Repeats the step from its record and compares every bit").clicked() {
                    actions.push(Action::Run(RunAction::ReplayIncident(folder)));
                }
            }
        });
    });
    if let Some(replay) = &state.stepping.replay {
        let met = replay.error.as_deref().unwrap_or("the step went through");
        ui.label(format!("Replayed: {met}"));
        if replay.differences.is_empty() {
            ui.label("It repeats bit for bit.");
        }
        for difference in &replay.differences {
            ui.label(RichText::new(difference).color(ui.visuals().warn_fg_color));
        }
    }
}

/// The last iterations, newest first; `opened` is looked at closely.
pub fn ui(ui: &mut Ui, state: &State, opened: &mut Option<u64>, actions: &mut Vec<Action>) {
    let records = &state.stepping.remembered;
    if records.is_empty() {
        return;
    }
    // One that is no longer remembered would hold the list open for good.
    *opened = opened.filter(|opened| records.iter().any(|record| record.iteration == *opened));
    ui.separator();
    let header = CollapsingHeader::new(format!("Black box: the last {} batches", records.len()));
    header.id_salt("black box").open(opened.is_some().then_some(true)).show(ui, |ui| {
        Grid::new("black box").num_columns(4).striped(true).show(ui, |ui| {
            for (title, help) in [
                ("iteration", "A click shows what it learnt from"),
                ("loss", "Total"),
                ("‖g‖", "Gradient norm before clipping"),
                ("η", "Learning rate"),
            ] {
                ui.weak(title).on_hover_text(help);
            }
            ui.end_row();
            for record in records.iter().rev() {
                let chosen = *opened == Some(record.iteration);
                if ui.selectable_label(chosen, format!("batch {}", record.iteration)).clicked() {
                    *opened = if chosen { None } else { Some(record.iteration) };
                }
                let number =
                    |value: Option<crate::train::Exact>| value.map_or("—".to_string(), |v| format!("{:.4}", v.0));
                ui.label(number(record.loss));
                ui.label(number(record.gradient_norm));
                ui.label(format!("{:.2e}", record.learning_rate.0));
                ui.end_row();
            }
        });
        let record = records.iter().find(|record| Some(record.iteration) == *opened);
        if let Some(record) = record {
            contents(ui, record, state, actions);
        }
    });
}

/// Losses and images of one iteration.
fn contents(ui: &mut Ui, record: &Record, state: &State, actions: &mut Vec<Action>) {
    ui.separator();
    ui.label(RichText::new(format!("Iteration {} learnt from", record.iteration)).strong());
    let parts: Vec<String> = record.parts.iter().map(|(name, value)| format!("{name} {:.4}", value.0)).collect();
    ui.weak(parts.join(", "));
    if let Some(text) = steepest(record) {
        ui.weak(text).on_hover_text("L2 norm of the parameter's gradient, before clipping");
    }
    for image in record.batches.iter().flatten() {
        ui.horizontal_wrapped(|ui| {
            match image_called(state, &image.name, Some(image.index)) {
                Some(index) => {
                    if ui.link(&image.name).on_hover_text("Show it as it is, without augmentation").clicked() {
                        actions.push(Action::Show(index));
                        actions.push(Action::Focus(Panel::Image));
                    }
                }
                None => _ = ui.label(&image.name),
            }
            ui.weak(told(image));
        });
    }
}

/// The parameters with the largest gradients; those that are no number first.
fn steepest(record: &Record) -> Option<String> {
    let mut norms: Vec<_> = record.gradient_norms.iter().collect();
    norms.sort_by(|a, b| b.1.0.abs().total_cmp(&a.1.0.abs()));
    let named: Vec<String> = norms.iter().take(STEEPEST).map(|(name, norm)| format!("{name} {:.3}", norm.0)).collect();
    (!named.is_empty()).then(|| format!("largest gradients: {}", named.join(", ")))
}

/// Objects, augmentation and losses of an image.
fn told(image: &ImageRecord) -> String {
    let amount = |(name, value): &(String, f32)| format!("{name} {value:.3}");
    let step = |applied: &Applied| {
        let amounts: Vec<String> = applied.parameters.iter().map(amount).collect();
        if amounts.is_empty() { applied.name.clone() } else { format!("{} ({})", applied.name, amounts.join(", ")) }
    };
    let steps: Vec<String> = image.applied.iter().map(step).collect();
    let steps = if steps.is_empty() { "as it is".to_string() } else { steps.join(" → ") };
    let losses = image.losses.iter().map(|part| {
        let worst = part.largest.first().map(|(at, loss)| format!(", {:.3} of it at {at}", loss.0));
        format!("; {} {:.3} over {}{}", part.part, part.sum.0, part.count, worst.unwrap_or_default())
    });
    format!("{} objects, {steps}{}", image.objects.len(), losses.collect::<String>())
}

/// Position of an image in the open data, where that is what the run learns from; `place` is where it was.
fn image_called(state: &State, name: &str, place: Option<usize>) -> Option<usize> {
    let data = state.data.as_ref()?;
    if let Some(training) = &state.training
        && (training.config.data != data.path
            || training.config.split.as_ref().is_some_and(|split| *split != data.split))
    {
        return None;
    }
    let is_there = |place: &usize| data.images.get(*place).is_some_and(|image| image.name == name);
    place.filter(is_there).or_else(|| data.images.iter().position(|image| image.name == name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Position;
    use crate::train::Exact;
    use crate::train::part_losses::PartLosses;

    #[test]
    fn what_was_done_to_an_image_is_told_in_order() {
        let applied = |name: &str, parameters: &[(&str, f32)]| Applied {
            name: name.into(),
            parameters: parameters.iter().map(|(name, value)| ((*name).to_string(), *value)).collect(),
        };
        let mut image =
            ImageRecord { index: 0, name: "a".into(), applied: Vec::new(), objects: Vec::new(), losses: Vec::new() };
        assert_eq!(told(&image), "0 objects, as it is");
        image.applied = vec![applied("flip", &[]), applied("zoom out", &[("ratio", 2.0)])];
        assert_eq!(told(&image), "0 objects, flip → zoom out (ratio 2.000)");
        let largest = vec![(7, Exact(1.5))];
        image.losses = vec![PartLosses { part: "class".into(), count: 9, sum: Exact(2.0), largest }];
        assert!(told(&image).ends_with("; class 2.000 over 9, 1.500 of it at 7"), "{}", told(&image));
    }

    #[test]
    fn the_largest_gradients_are_named_with_those_that_are_no_number_first() {
        let mut record = Record::new(1, 0.1, Position::default(), &[]);
        assert_eq!(steepest(&record), None);
        let norms = [("a", 1.0), ("b", f64::NAN), ("c", 3.0), ("d", 2.0)];
        record.gradient_norms = norms.map(|(name, norm)| (name.to_string(), Exact(norm))).to_vec();
        assert_eq!(steepest(&record).as_deref(), Some("largest gradients: b NaN, c 3.000, d 2.000"));
    }
}
