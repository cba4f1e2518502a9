//! One iteration in phases: the buttons that run them, and the numbers that each has made.

use crate::app::action::Action;
use crate::app::run_action::RunAction;
use crate::app::state::{State, Training};
use crate::engine::Stepped;
use crate::trace::Trace;
use crate::train::{Phase, StepReport};
use egui::{Button, Grid, ProgressBar, RichText, Ui};

/// Maps named in the row of the forward phase.
const MAPS: usize = 4;

/// Buttons of an open run, and how far it is.
pub fn controls(ui: &mut Ui, state: &State, training: &Training, actions: &mut Vec<Action>) {
    let still = !training.running;
    ui.horizontal_wrapped(|ui| {
        let text = if training.running { "Pause" } else { "Train" };
        if ui.button(text).on_hover_text("Space").clicked() {
            actions.push(Action::TrainOrPause);
        }
        let next = state.stepping.next.unwrap_or(Phase::Augment);
        let phase = ui.add_enabled(still, Button::new("Next phase"));
        if phase.on_hover_text(format!("Alt+.: {}, {}", next.name(), meaning(next))).clicked() {
            actions.push(Action::Run(RunAction::Phase));
        }
        for (count, name) in [(1, "Step"), (10, "Step 10"), (100, "Step 100")] {
            let button = ui.add_enabled(still, Button::new(name));
            if button.on_hover_text("Runs with the probe on the last iteration, then pauses").clicked() {
                actions.push(Action::Step(count));
            }
        }
        let epoch = ui.add_enabled(still, Button::new("Step epoch"));
        let left = training.epoch.max(1) - training.iteration % training.epoch.max(1);
        if epoch.on_hover_text(format!("{left} iterations to the end of this pass over the data")).clicked() {
            actions.push(Action::Run(RunAction::StepEpoch));
        }
        let kept = training.config.train.history > 0 && training.iteration > 0 && state.stepping.left != Some(0);
        let inside = state.stepping.next.is_some();
        let back = ui.add_enabled(still && (kept || inside), Button::new("Back"));
        let help = match (inside, state.stepping.left) {
            (true, _) => "Out of this iteration: nothing of it stays".to_string(),
            (false, Some(left)) => format!(", : one iteration back, bit for bit; {left} more are kept"),
            (false, None) => ", : one iteration back, bit for bit".to_string(),
        };
        let why_not = "No earlier state is kept: start the run with more states to step back to";
        // The Image panel has a button of that name too.
        let back = back.on_hover_text(help).on_disabled_hover_text(why_not);
        if back.accessible_name("Back one iteration").clicked() {
            actions.push(Action::Run(RunAction::Back));
        }
        if ui.button("Stop").on_hover_text("Ends the run; its weights become the loaded model").clicked() {
            actions.push(Action::StopTraining);
        }
    });
    let total = training.config.train.iterations;
    let share = training.iteration as f32 / total.max(1) as f32;
    ui.add(ProgressBar::new(share).text(format!("iteration {} of {total}", training.iteration)));
}

/// A phase in the words of the field.
fn meaning(phase: Phase) -> &'static str {
    match phase {
        Phase::Augment => "images are read, augmented and normalised",
        Phase::Forward => "backbone, neck and heads: x → logits and deltas",
        Phase::Assign => "every anchor gets an object or background by its IoU or its place",
        Phase::Sample => "who enters the loss: positives, and hard negatives at a ratio or all",
        Phase::Loss => "L = Σ parts, each Σ over its anchors / N",
        Phase::Backward => "g = ∂L/∂w for every trained weight",
        Phase::Update => "w ← w − η·(…) by the optimiser's rule",
    }
}

/// What each phase of the probed iteration has made so far.
pub fn progress(ui: &mut Ui, stepped: &Stepped) {
    let title = match stepped.next {
        Some(next) => format!("Iteration {}, before: {}", stepped.report.iteration, next.name()),
        None => format!("Iteration {}, all phases done", stepped.report.iteration),
    };
    ui.label(RichText::new(title).strong());
    // With an end to the columns their text is broken into lines.
    let width = ui.available_width();
    Grid::new("phases of the iteration").num_columns(2).max_col_width(width).striped(true).show(ui, |ui| {
        for phase in Phase::ALL {
            let done = stepped.next.is_none_or(|next| phase < next);
            let name = RichText::new(phase.name());
            let name = if stepped.next == Some(phase) { name.strong() } else { name };
            ui.label(name).on_hover_text(meaning(phase));
            ui.label(if done { made(phase, &stepped.report) } else { "—".to_string() });
            ui.end_row();
        }
    });
}

/// The numbers that a phase made.
fn made(phase: Phase, report: &StepReport) -> String {
    let traces = &report.traces;
    let sum = |count: &dyn Fn(&Trace) -> usize| traces.iter().map(count).sum::<usize>();
    match phase {
        Phase::Augment => {
            let size = traces.first().and_then(|t| t.input.as_ref()).map(|i| format!("{}×{}", i.width, i.height));
            format!("{} images of {}, {} objects", traces.len(), size.unwrap_or_default(), sum(&|t| t.objects.len()))
        }
        Phase::Forward => {
            let maps = traces.first().map(|t| t.maps.as_slice()).unwrap_or_default();
            let named = maps.iter().take(MAPS).map(|m| format!("{} {}×{}×{}", m.name, m.channels, m.height, m.width));
            let named: Vec<String> = named.collect();
            let more = if maps.len() > MAPS { ", …" } else { "" };
            format!("{} maps: {}{more}", maps.len(), named.join(", "))
        }
        Phase::Assign => {
            let with = |wanted: fn(i32) -> bool| {
                sum(&|t| t.assignment.as_ref().map_or(0, |a| a.target.iter().filter(|target| wanted(**target)).count()))
            };
            let (positive, background, ignored) = (with(|t| t >= 0), with(|t| t == -1), with(|t| t < -1));
            format!("{positive} anchors with an object, {background} background, {ignored} ignored")
        }
        Phase::Sample => {
            let positive = sum(&|t| t.sampling.iter().filter(|s| s.positive).count());
            format!("{positive} positives and {} negatives enter", sum(&Trace::negatives))
        }
        Phase::Loss => {
            let parts: Vec<String> = report.parts.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
            format!("{:.4} = {}", report.loss, parts.join(" + "))
        }
        Phase::Backward if report.skipped => {
            format!("a gradient overflows with the loss times {}", report.loss_scale.unwrap_or(1.0))
        }
        Phase::Backward => format!("‖g‖ = {:.4}", report.gradient_norm),
        Phase::Update if report.skipped => "skipped; the next loss is scaled by half as much".into(),
        Phase::Update => {
            let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
            let ratios: Vec<f64> = report.layers.iter().map(|layer| layer.update_ratio).collect();
            format!("η = {:.2e}, mean ‖Δw‖/‖w‖ = {:.2e}", report.learning_rate, mean(&ratios))
        }
    }
}

/// The numbers of an iteration: its loss by parts, and its time by phase.
pub fn losses(ui: &mut Ui, report: &StepReport) {
    Grid::new("parts").num_columns(2).show(ui, |ui| {
        ui.label(RichText::new("loss").strong()).on_hover_text("L = Σ of its parts");
        ui.label(RichText::new(format!("{:.4}", report.loss)).strong());
        ui.end_row();
        for (name, value) in &report.parts {
            ui.label(name).on_hover_text("One part of L: Σ over the anchors or RoIs that enter / N");
            ui.label(format!("{value:.4}"));
            ui.end_row();
        }
        ui.weak("gradient norm").on_hover_text("L2 norm of all gradients, before clipping");
        ui.label(format!("{:.3}", report.gradient_norm));
        ui.end_row();
        ui.weak("learning rate").on_hover_text("η of this iteration");
        ui.label(format!("{:.6}", report.learning_rate));
        ui.end_row();
    });
    let whole = report.seconds.max(1e-9);
    ui.collapsing(format!("{:.0} ms, by phase", whole * 1e3), |ui| {
        Grid::new("times").num_columns(3).show(ui, |ui| {
            let mut row = |name: &str, seconds: f64| {
                ui.label(name);
                ui.label(format!("{:.1} ms", seconds * 1e3));
                ui.label(format!("{:.0} %", 100.0 * seconds / whole));
                ui.end_row();
            };
            row("wait for data", report.data_seconds);
            for time in &report.timings {
                row(&time.stage, time.seconds);
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Assignment, Sample};

    #[test]
    fn a_phase_tells_what_it_made() {
        let sample = |positive| Sample { anchor: 0, positive, rank: 0, loss: 1.0 };
        let trace = Trace {
            assignment: Some(Assignment { target: vec![0, -1, -1, -2], ..Assignment::default() }),
            sampling: vec![sample(true), sample(false), sample(false)],
            ..Trace::default()
        };
        // Both lists are of the hardest alone.
        let focal = Trace { all_background: true, sampling: vec![sample(true), sample(false)], ..trace.clone() };
        let report = StepReport { traces: vec![focal.clone(), focal], ..StepReport::default() };
        assert_eq!(made(Phase::Sample, &report), "2 positives and 4 negatives enter");
        let report = StepReport { traces: vec![trace.clone(), trace], loss: 1.5, ..StepReport::default() };
        assert_eq!(made(Phase::Assign, &report), "2 anchors with an object, 4 background, 2 ignored");
        assert_eq!(made(Phase::Sample, &report), "2 positives and 4 negatives enter");
        assert!(made(Phase::Loss, &report).starts_with("1.5000"));
    }
}
