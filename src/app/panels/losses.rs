//! Losses panel: every part by iteration, raw and smoothed, with learning rate and gradient norm.

use crate::app::action::Action;
use crate::app::state::State;
use crate::app::theme;
use egui::{Color32, Ui};
use egui_plot::{Legend, Line, Plot, PlotPoints};

/// Scratch of the panel.
#[derive(Debug)]
pub struct LossesPanel {
    logarithmic: bool,
    smooth: bool,
    chosen: Vec<String>,
}

impl Default for LossesPanel {
    fn default() -> Self {
        Self { logarithmic: false, smooth: true, chosen: Vec::new() }
    }
}

impl LossesPanel {
    pub fn ui(&mut self, ui: &mut Ui, state: &State, actions: &mut Vec<Action>) {
        let curves = &state.curves;
        if curves.len == 0 {
            ui.label("No iteration yet: press Step in the Step panel, or “.” on the keyboard.");
            if state.training.is_none() && ui.button("Start a run on the open data").clicked() {
                actions.push(Action::StartTraining { from_current: true });
            }
            return;
        }
        ui.horizontal_wrapped(|ui| {
            ui.checkbox(&mut self.logarithmic, "log scale");
            ui.checkbox(&mut self.smooth, "smoothed").on_hover_text("Exponential moving average, decay 0.95");
            ui.separator();
            for (index, name) in curves.series.keys().enumerate() {
                let mut on = self.is_on(name);
                let text = egui::RichText::new(name).color(line_color(index));
                if ui.checkbox(&mut on, text).changed() {
                    self.choose(curves.series.keys(), name, on);
                }
            }
            ui.separator();
            ui.weak(format!(
                "{:.2} it/s, waiting for data {:.0} %",
                curves.iterations_per_second,
                curves.data_share * 100.0
            ));
        });
        let buckets = (ui.available_width() as usize).clamp(64, 4096);
        let scale = |value: f32| if self.logarithmic { f64::from(value.max(1e-12)).log10() } else { f64::from(value) };
        let plot = Plot::new("loss curves")
            .legend(Legend::default())
            .x_axis_label("iteration")
            .y_axis_label(if self.logarithmic { "log10" } else { "value" })
            .allow_scroll(false);
        plot.show(ui, |plot| {
            for (index, (name, series)) in curves.series.iter().enumerate() {
                if !self.is_on(name) {
                    continue;
                }
                let draw = |pyramid: &crate::stats::MinMaxPyramid| -> Vec<[f64; 2]> {
                    let mut points = Vec::new();
                    for (x, min, max) in pyramid.query(0, curves.len, buckets) {
                        let x = f64::from(x) + curves.first as f64;
                        points.push([x, scale(min)]);
                        if max > min {
                            points.push([x, scale(max)]);
                        }
                    }
                    points
                };
                let color = line_color(index);
                let raw = if self.smooth { color.gamma_multiply(0.35) } else { color };
                plot.line(Line::new(name.clone(), PlotPoints::from(draw(series))).color(raw));
                if self.smooth
                    && let Some(smooth) = curves.smooth.get(name)
                {
                    plot.line(
                        Line::new(format!("{name}, smoothed"), PlotPoints::from(draw(smooth))).color(color).width(2.0),
                    );
                }
            }
        });
    }

    /// Loss and its parts are on until a choice is made.
    fn is_on(&self, name: &str) -> bool {
        if self.chosen.is_empty() {
            !["learning rate", "gradient norm"].contains(&name)
        } else {
            self.chosen.iter().any(|c| c == name)
        }
    }

    fn choose<'a>(&mut self, all: impl Iterator<Item = &'a String>, name: &str, on: bool) {
        let mut chosen: Vec<String> = all.filter(|n| self.is_on(n)).cloned().collect();
        chosen.retain(|c| c != name);
        if on {
            chosen.push(name.to_string());
        }
        self.chosen = chosen;
    }
}

fn line_color(index: usize) -> Color32 {
    theme::class_color(index as u32 + 3)
}
