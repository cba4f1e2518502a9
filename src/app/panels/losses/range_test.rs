//! The curve of a learning-rate range test, and the rate that it suggests.

use crate::app::action::Action;
use crate::app::panels::evaluation::progress_bar;
use crate::app::panels::name_picture;
use crate::app::panels::plot_line::{LineIds, add_line};
use crate::app::run_action::RunAction;
use crate::app::state::State;
use crate::app::theme;
use crate::train::RangeTest;
use egui::{Button, Color32, Ui};
use egui_plot::{Line, LineStyle, Plot, PlotPoints, VLine};

const SMOOTHED: Color32 = Color32::from_rgb(86, 180, 233);

pub fn ui(ui: &mut Ui, state: &State, actions: &mut Vec<Action>) {
    ui.horizontal_wrapped(|ui| {
        match state.progress.as_ref().filter(|progress| progress.task == "range test") {
            Some(progress) => progress_bar(ui, progress, actions),
            None => {
                let ready = !state.is_training() && state.data.is_some();
                let find = ui.add_enabled(ready, Button::new("Find the learning rate"));
                let find = find.on_hover_text("Raises η from 1e-6 to 1 in 100 steps; the weights are put back");
                if find.on_disabled_hover_text("Needs a data set, and no training under way").clicked() {
                    actions.push(Action::Run(RunAction::FindRate));
                }
            }
        }
        if let Some(rate) = state.stepping.rate.as_ref().and_then(|test| test.suggestion) {
            ui.label(format!("the loss falls fastest at η = {rate:.2e}"));
            let take = ui.button("Use it for the next run");
            if take.on_hover_text("As its learning rate η; can be undone").clicked() {
                actions.push(Action::Run(RunAction::Rate(rate)));
            }
        }
    });
    match state.stepping.rate.as_deref() {
        Some(test) => curve(ui, test),
        None => _ = ui.label("No range test yet: it shows where the loss begins to fall, and where it diverges."),
    }
}

fn curve(ui: &mut Ui, test: &RangeTest) {
    if let Some(rate) = test.diverged_at {
        ui.label(format!("it diverged at η = {rate:.2e}"));
    }
    ui.weak("faint: loss · strong: smoothed · green: where it falls fastest · orange: where it diverged");
    let at = |rate: f32| f64::from(rate).log10();
    let line = |value: fn(&crate::train::range_test::RangePoint) -> f32| -> PlotPoints<'static> {
        let points = test.points.iter().map(|point| [at(point.rate), f64::from(value(point))]);
        points.filter(|[_, y]| y.is_finite()).collect()
    };
    let plot = Plot::new("range test").x_axis_label("log10 η").y_axis_label("loss");
    let answer = plot.allow_scroll(false).show(ui, |plot| {
        let mut ids = LineIds::of_plot(super::PLOTS[1]);
        let loss = Line::new("loss", line(|point| point.loss)).color(SMOOTHED.gamma_multiply(0.4));
        add_line(plot, &mut ids, loss, 1.5, LineStyle::Solid);
        let smoothed = Line::new("loss, smoothed", line(|point| point.smoothed)).color(SMOOTHED);
        add_line(plot, &mut ids, smoothed, 2.0, LineStyle::Solid);
        if let Some(rate) = test.suggestion {
            plot.vline(VLine::new("suggestion", at(rate)).color(theme::TRUTH));
        }
        if let Some(rate) = test.diverged_at {
            plot.vline(VLine::new("diverged", at(rate)).color(theme::ERROR));
        }
    });
    name_picture(&answer.response, "Loss by learning rate");
}
