//! Losses panel: every part by iteration, raw and smoothed, with validation, learning rate, gradient norm, speed and
//! waiting for data; other runs laid over it; and the curve of a range test.

mod range_test;

use crate::app::action::Action;
use crate::app::export::Draft;
use crate::app::export::records::{self, CurveValues};
use crate::app::layout::Panel;
use crate::app::panels::name_picture;
use crate::app::panels::plot_line::{LineIds, add_line};
use crate::app::run_action::RunAction;
use crate::app::state::State;
use crate::app::theme;
use crate::engine::command::InitialWeights;
use crate::engine::curves::{
    Curves, DATA_WAIT, GRADIENT_NORM, LEARNING_RATE, SPEED, VALIDATION_AP, VALIDATION_LOSS, has_own_scale,
};
use crate::stats::MinMaxPyramid;
use egui::{Color32, PointerButton, RichText, ScrollArea, Slider, Ui};
use egui_plot::{Line, LineStyle, Plot, PlotPoints, PlotUi, Points, VLine};
use std::path::{Path, PathBuf};

/// The shader's lines of both plots.
const PLOTS: [u64; 2] = [1, 2];
/// More passes over the data than this are not marked one by one.
const MOST_EPOCHS: u64 = 60;
/// Names of curves take at most so many points above the plot; more of them scroll.
const NAMES: f32 = 44.0;
/// A line's style, and the mark that stands for it in text.
type MarkedLine = (fn() -> LineStyle, &'static str);
/// How the lines of the runs that are laid over are told apart, in turn.
const OVERLAYS: [MarkedLine; 4] = [
    (LineStyle::dashed_dense, "– – –"),
    (LineStyle::dotted_dense, "· · ·"),
    (LineStyle::dashed_loose, "–  –"),
    (LineStyle::dotted_loose, "·  ·"),
];

/// What the panel shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Page {
    #[default]
    Curves,
    RangeTest,
}

/// Scratch of the panel.
#[derive(Debug)]
pub struct LossesPanel {
    page: Page,
    logarithmic: bool,
    smooth: bool,
    /// The curves that are on, once somebody has chosen.
    chosen: Option<Vec<String>>,
    /// The weight of the past while its slider is dragged.
    decay: Option<f32>,
}

impl Default for LossesPanel {
    fn default() -> Self {
        Self { page: Page::Curves, logarithmic: false, smooth: true, chosen: None, decay: None }
    }
}

impl LossesPanel {
    /// Turns to the range test.
    pub fn show_range_test(&mut self) {
        self.page = Page::RangeTest;
    }

    /// The page on show, to be made a figure of: the curves that are on, with the numbers of all; nothing while there are
    /// none.
    pub fn draft(&self, state: &State) -> Option<Draft> {
        if self.page == Page::RangeTest {
            let test = state.stepping.rate.clone()?;
            return Some(Box::new(move || records::range_test(&test)));
        }
        let own = Some(&state.curves).filter(|curves| curves.len > 0).map(|curves| CurveValues::of("", curves));
        let over = state.runs.overlays.iter().map(|(folder, curves)| CurveValues::of(&title(folder), curves));
        let runs: Vec<CurveValues> = own.into_iter().chain(over).collect();
        if runs.is_empty() {
            return None;
        }
        let chosen = self.chosen.clone();
        Some(Box::new(move || records::losses(&runs, |name| is_on(chosen.as_deref(), name))))
    }

    pub fn ui(&mut self, ui: &mut Ui, state: &State, actions: &mut Vec<Action>) {
        ui.horizontal_wrapped(|ui| {
            ui.selectable_value(&mut self.page, Page::Curves, "Curves")
                .on_hover_text("Loss, its parts and what goes with them, by iteration");
            ui.selectable_value(&mut self.page, Page::RangeTest, "Range test")
                .on_hover_text("The loss while the learning rate grows (L. Smith, WACV 2017)");
        });
        match self.page {
            Page::Curves => self.curves(ui, state, actions),
            Page::RangeTest => range_test::ui(ui, state, actions),
        }
    }

    fn curves(&mut self, ui: &mut Ui, state: &State, actions: &mut Vec<Action>) {
        let curves = &state.curves;
        let overlays = &state.runs.overlays;
        if curves.len == 0 && overlays.is_empty() {
            ui.label("No iteration yet: press Step in the Step panel, or “.” on the keyboard.");
            ui.horizontal_wrapped(|ui| {
                if state.training.is_none() && ui.button("Start a run on the open data").clicked() {
                    actions.push(Action::StartTraining(InitialWeights::Loaded));
                }
                if ui.button("Lay a past run over it").clicked() {
                    actions.push(Action::Focus(Panel::Runs));
                }
            });
            return;
        }
        let names = names(curves, overlays.iter().map(|(_, curves)| curves));
        self.choices(ui, curves, actions);
        self.legend(ui, &names, overlays, actions);
        ui.weak(
            "drag to zoom, drag with the right button to move, double-click for everything; a click opens the batch",
        );
        let buckets = (ui.available_width() as usize).clamp(64, 4096);
        let plot = Plot::new("loss curves")
            .x_axis_label("iteration")
            .y_axis_label(if self.logarithmic { "log10" } else { "value" })
            .boxed_zoom_pointer_button(PointerButton::Primary)
            .pan_pointer_button(PointerButton::Secondary)
            .allow_scroll(false);
        let epoch = state.training.as_ref().map_or(0, |training| training.epoch);
        let answer = plot.show(ui, |plot| {
            let view = if plot.auto_bounds().x {
                (f64::NEG_INFINITY, f64::INFINITY)
            } else {
                (plot.plot_bounds().min()[0], plot.plot_bounds().max()[0])
            };
            let drawing = Drawing { panel: self, names: &names, view, buckets };
            let mut ids = LineIds::of_plot(PLOTS[0]);
            drawing.run(plot, &mut ids, curves, "", LineStyle::Solid);
            for ((folder, curves), (style, _)) in overlays.iter().zip(OVERLAYS.iter().cycle()) {
                drawing.run(plot, &mut ids, curves, &title(folder), style());
            }
            epochs(plot, curves, epoch);
        });
        name_picture(&answer.response, "Curves by iteration; the black box in the Step panel lists the same batches");
        let clicked = answer.response.interact_pointer_pos().filter(|_| answer.response.clicked());
        if let Some(position) = clicked.filter(|_| curves.len > 0) {
            let at = answer.transform.value_from_position(position).x.round();
            let last = curves.first + curves.len as u64 - 1;
            let iteration = (at.max(0.0) as u64).clamp(curves.first, last);
            actions.push(Action::Run(RunAction::OpenBatch(iteration)));
        }
    }

    fn choices(&mut self, ui: &mut Ui, curves: &Curves, actions: &mut Vec<Action>) {
        ui.horizontal_wrapped(|ui| {
            ui.checkbox(&mut self.logarithmic, "log scale").on_hover_text("log10 of every value; none where it is ≤ 0");
            ui.checkbox(&mut self.smooth, "smoothed").on_hover_text("Exponential moving average beside the raw curve");
            if self.smooth {
                let mut decay = self.decay.unwrap_or(curves.decay());
                let slider = ui.add(Slider::new(&mut decay, 0.0..=0.999).fixed_decimals(3).text("decay"));
                let slider = slider.on_hover_text("s ← d·s + (1 − d)·x, without the pull of its start");
                if slider.drag_stopped() || (slider.changed() && !slider.dragged()) {
                    actions.push(Action::Run(RunAction::Smooth(decay)));
                    self.decay = None;
                } else if slider.dragged() {
                    self.decay = Some(decay);
                }
            }
            if curves.len > 0 {
                ui.separator();
                let (speed, share) = (curves.iterations_per_second, curves.data_share * 100.0);
                ui.weak(format!("{speed:.2} it/s, waiting for data {share:.0} %"));
            }
        });
    }

    /// What the lines are, each with its switch, where it hides none of them.
    fn legend(&mut self, ui: &mut Ui, names: &[String], overlays: &[(PathBuf, Curves)], actions: &mut Vec<Action>) {
        ScrollArea::vertical().id_salt("names of the curves").max_height(NAMES).show(ui, |ui| {
            ui.horizontal_wrapped(|ui| {
                for (index, name) in names.iter().enumerate() {
                    let mut on = self.is_on(name);
                    let text = RichText::new(name).color(theme::readable(ui, line_color(index)));
                    if ui.checkbox(&mut on, text).on_hover_text(meaning(name)).changed() {
                        self.choose(names, name, on);
                    }
                }
                for ((folder, _), (_, mark)) in overlays.iter().zip(OVERLAYS.iter().cycle()) {
                    let (name, mut on) = (title(folder), true);
                    let run = ui.checkbox(&mut on, format!("{mark} {name}"));
                    if run.on_hover_text("A past run in the same colours; unticking takes it away").changed() {
                        actions.push(Action::Run(RunAction::Overlay(name)));
                    }
                }
            });
        });
    }

    fn is_on(&self, name: &str) -> bool {
        is_on(self.chosen.as_deref(), name)
    }

    fn choose(&mut self, all: &[String], name: &str, on: bool) {
        let mut chosen: Vec<String> = all.iter().filter(|n| self.is_on(n)).cloned().collect();
        chosen.retain(|c| c != name);
        if on {
            chosen.push(name.to_string());
        }
        self.chosen = Some(chosen);
    }

    fn scale(&self, value: f32) -> f64 {
        match self.logarithmic {
            true if value > 0.0 => f64::from(value).log10(),
            true => f64::NAN,
            false => f64::from(value),
        }
    }
}

/// What all runs of one frame are drawn with.
struct Drawing<'a> {
    panel: &'a LossesPanel,
    names: &'a [String],
    /// First and last iteration on the screen.
    view: (f64, f64),
    buckets: usize,
}

impl Drawing<'_> {
    /// Draws the curves that are on, of the run called `run`, or of the one at hand without a name.
    fn run(&self, plot: &mut PlotUi<'_>, ids: &mut LineIds, curves: &Curves, run: &str, style: LineStyle) {
        let of = |name: &str| if run.is_empty() { name.to_string() } else { format!("{run}: {name}") };
        for (index, name) in self.names.iter().enumerate().filter(|(_, name)| self.panel.is_on(name)) {
            let color = line_color(index);
            if let Some(series) = curves.series.get(name) {
                let raw = if self.panel.smooth { color.gamma_multiply(0.35) } else { color };
                add_line(plot, ids, Line::new(of(name), self.points(curves, series)).color(raw), 1.5, style);
            }
            if let Some(smooth) = curves.smooth.get(name).filter(|_| self.panel.smooth) {
                let line = Line::new(of(&format!("{name}, smoothed")), self.points(curves, smooth));
                add_line(plot, ids, line.color(color), 2.0, style);
            }
            let validated: Vec<[f64; 2]> = match name.as_str() {
                VALIDATION_LOSS => self.validations(curves, |v| v.loss),
                VALIDATION_AP => self.validations(curves, |v| if v.ap < 0.0 { f32::NAN } else { 100.0 * v.ap as f32 }),
                _ => Vec::new(),
            };
            if !validated.is_empty() {
                let marks: Vec<[f64; 2]> = validated.iter().copied().filter(|[_, y]| y.is_finite()).collect();
                add_line(plot, ids, Line::new(of(name), validated).color(color), 2.0, style);
                plot.points(Points::new(of(name), marks).color(color).radius(3.0));
            }
        }
    }

    /// At most eight points for each column of the screen. They reach beyond the view, to round places, so that they stay
    /// the same ones while it is moved. A column without a number has one NaN, which leaves a gap.
    fn points(&self, curves: &Curves, curve: &MinMaxPyramid) -> PlotPoints<'static> {
        let first = curves.first as f64;
        // One more on each side, so that lines lead out of the view.
        let from = (self.view.0 - first - 1.0).max(0.0) as usize;
        let to = ((self.view.1 - first + 2.0).max(0.0) as usize).min(curves.len);
        let round = to.saturating_sub(from).next_power_of_two();
        let (from, to) = (from / round * round, to.next_multiple_of(round));
        let mut points = Vec::new();
        // A stretch of `round` points is less than two views.
        for (x, min, max) in curve.query(from, to, 2 * self.buckets * to.saturating_sub(from) / round) {
            let (x, known) = (f64::from(x) + first, points.len());
            for value in [min, max].into_iter().take(if max > min { 2 } else { 1 }) {
                let y = self.panel.scale(value);
                if y.is_finite() {
                    points.push([x, y]);
                }
            }
            if points.len() == known {
                points.push([x, f64::NAN]);
            }
        }
        PlotPoints::from(points)
    }

    fn validations(&self, curves: &Curves, value: impl Fn(&crate::engine::curves::Validated) -> f32) -> Vec<[f64; 2]> {
        curves.validations.iter().map(|v| [v.iteration as f64, self.panel.scale(value(v))]).collect()
    }
}

/// The curves there are, by name, each once.
fn names<'a>(own: &'a Curves, others: impl Iterator<Item = &'a Curves>) -> Vec<String> {
    let mut names = Vec::new();
    for curves in std::iter::once(own).chain(others) {
        names.extend(curves.series.keys().cloned());
        if !curves.validations.is_empty() {
            names.extend([VALIDATION_LOSS.to_string(), VALIDATION_AP.to_string()]);
        }
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// A line where each pass over the data ends, while there are few.
fn epochs(plot: &mut PlotUi<'_>, curves: &Curves, epoch: u64) {
    let last = curves.first + curves.len as u64;
    if epoch == 0 || curves.len == 0 || last / epoch > MOST_EPOCHS {
        return;
    }
    for end in (1..=last / epoch).map(|number| number * epoch).filter(|end| *end >= curves.first) {
        let line = VLine::new("epoch", end as f64).color(Color32::from_gray(128).gamma_multiply(0.4));
        plot.vline(line.style(LineStyle::dotted_loose()));
    }
}

/// Loss and its parts, and that of the validations, are on until a choice is made.
fn is_on(chosen: Option<&[String]>, name: &str) -> bool {
    chosen.map_or_else(|| !has_own_scale(name), |chosen| chosen.iter().any(|c| c == name))
}

/// What a run is called.
fn title(folder: &Path) -> String {
    folder.file_name().map_or_else(|| folder.display().to_string(), |name| name.to_string_lossy().into_owned())
}

fn meaning(name: &str) -> &'static str {
    match name {
        "loss" => "L = Σ parts of the batch's loss",
        LEARNING_RATE => "η of each iteration",
        GRADIENT_NORM => "‖g‖, the L2 norm of all gradients before clipping",
        SPEED => "Iterations a second",
        DATA_WAIT => "Share of an iteration that went to waiting for data",
        VALIDATION_LOSS => "Mean loss of the averaged weights on the validation split",
        VALIDATION_AP => "COCO AP over IoU .5 to .95 of the averaged weights on the validation split, in per cent",
        _ => "One part of the loss",
    }
}

fn line_color(index: usize) -> Color32 {
    theme::class_color(index as u32 + 3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::{StepReport, Validation};
    use egui::accesskit::Role;
    use egui_kittest::Harness;
    use egui_kittest::kittest::Queryable;
    use std::cell::RefCell;
    use std::rc::Rc;

    #[test]
    fn every_curve_is_named_once_and_above_the_plot_and_a_run_is_taken_away_there() {
        let mut state = State::default();
        for iteration in 1..=3 {
            let parts = vec![("classification".to_string(), 0.5)];
            state.curves.add(&StepReport { iteration, loss: 1.0, parts, seconds: 1.0, ..StepReport::default() });
        }
        let other = state.curves.clone();
        state.runs.overlays.push(("runs/old".into(), other));
        let raised: Rc<RefCell<Vec<Action>>> = Rc::default();
        let (inner, mut panel) = (raised.clone(), LossesPanel::default());
        let mut harness = Harness::new_ui(move |ui| panel.ui(ui, &state, &mut inner.borrow_mut()));
        harness.run_steps(3);
        // A legend inside the plot would have a box of the same name.
        for name in ["loss", "classification", "– – – old"] {
            assert_eq!(harness.query_all_by_role_and_label(Role::CheckBox, name).count(), 1, "{name}");
        }
        assert!(harness.query_by_label("loss, smoothed").is_none());
        harness.get_by_role_and_label(Role::CheckBox, "– – – old").click_accesskit();
        harness.run_steps(3);
        assert_eq!(*raised.borrow(), [Action::Run(RunAction::Overlay("old".into()))]);
    }

    #[test]
    fn a_choice_begins_with_what_is_on_and_logs_have_no_zero() {
        let mut panel = LossesPanel::default();
        let all: Vec<String> = ["loss", "a", LEARNING_RATE].map(String::from).to_vec();
        assert!(panel.is_on("a") && !panel.is_on(LEARNING_RATE));
        panel.choose(&all, LEARNING_RATE, true);
        panel.choose(&all, "a", false);
        assert!(panel.is_on("loss") && panel.is_on(LEARNING_RATE) && !panel.is_on("a"));
        panel.logarithmic = true;
        assert_eq!(panel.scale(100.0), 2.0);
        assert!(panel.scale(0.0).is_nan());
    }

    #[test]
    fn a_view_that_moves_keeps_its_points_and_one_past_the_end_has_none() {
        let mut curves = Curves::default();
        for iteration in 1..=4000 {
            let loss = (iteration as f32).sin();
            curves.add(&StepReport { iteration, loss, seconds: 1.0, ..StepReport::default() });
        }
        let panel = LossesPanel::default();
        let points = |view: (f64, f64)| {
            let drawing = Drawing { panel: &panel, names: &[], view, buckets: 20 };
            drawing.points(&curves, &curves.series["loss"]).points().to_vec()
        };
        let still = points((1100.0, 1500.0));
        // 400 iterations in 20 columns or finer, two points a column.
        assert!(still.iter().filter(|p| (1100.0..1500.0).contains(&p.x)).count() >= 40, "{}", still.len());
        assert!(still.len() <= 8 * 20, "{}", still.len());
        assert_eq!(points((1103.0, 1503.0)), still);
        assert!(points((9000.0, 9400.0)).is_empty());
    }

    #[test]
    fn an_iteration_without_a_number_leaves_a_gap() {
        let mut curves = Curves::default();
        for (iteration, loss) in (1..).zip([f32::NAN, 2.0, f32::NAN, 4.0]) {
            curves.add(&StepReport { iteration, loss, seconds: 1.0, ..StepReport::default() });
        }
        let panel = LossesPanel::default();
        let view = (f64::NEG_INFINITY, f64::INFINITY);
        let drawing = Drawing { panel: &panel, names: &[], view, buckets: 64 };
        let points = drawing.points(&curves, &curves.series["loss"]);
        let points: Vec<(f64, Option<f64>)> =
            points.points().iter().map(|p| (p.x, Some(p.y).filter(|y| y.is_finite()))).collect();
        assert_eq!(points, [(1.0, None), (2.0, Some(2.0)), (3.0, None), (4.0, Some(4.0))]);
    }

    #[test]
    fn curves_of_all_runs_are_named_once_and_validations_where_there_are_any() {
        let mut own = Curves::default();
        own.add(&StepReport { iteration: 1, seconds: 1.0, ..StepReport::default() });
        let mut other = own.clone();
        let validation = Some(Validation { iteration: 2, ..Validation::default() });
        other.add(&StepReport { iteration: 2, seconds: 1.0, validation, ..StepReport::default() });
        assert!(!names(&own, std::iter::empty()).contains(&VALIDATION_LOSS.to_string()));
        let both = names(&own, std::iter::once(&other));
        assert_eq!(both.iter().filter(|name| *name == "loss").count(), 1);
        assert!(both.contains(&VALIDATION_LOSS.to_string()));
    }
}
