//! Curves: precision against recall, and precision, recall and F1 against the score; a click lists the images there.

use super::EvaluationPanel;
use crate::app::action::Action;
use crate::app::bridge::Samples;
use crate::app::panels::histogram::{BINS, HistogramView};
use crate::app::panels::image_list::ImageList;
use crate::app::panels::name_picture;
use crate::app::panels::plot_line::{LineIds, add_line};
use crate::app::settings::Settings;
use crate::app::theme;
use crate::engine::details::{CurveSet, CurveView};
use crate::engine::event::EvalSummary;
use crate::eval::ImageResult;
use crate::eval::curves::CurvePoint;
use egui::{Color32, RichText, ScrollArea, Slider, Ui};
use egui_plot::{Corner, Legend, Line, LineStyle, Plot, PlotPoints, Points, VLine};
use std::sync::Arc;

/// Classes up to this number are all drawn at first.
const FEW: usize = 10;
/// The shader's lines of both plots, and the buffers of the scores.
const PLOTS: [u64; 2] = [3, 4];
const SCORES: u64 = 2;
const FIRST_BINS: u32 = 50;
/// Images that a click on a curve lists.
const LISTED: usize = 200;
/// The curve of all classes together, and precision, recall, F1.
const POOLED: Color32 = Color32::from_rgb(150, 150, 150);
const PARTS: [(&str, Color32); 3] = [
    ("precision", Color32::from_rgb(86, 180, 233)),
    ("recall", Color32::from_rgb(230, 159, 0)),
    ("F1", Color32::from_rgb(0, 158, 115)),
];

impl EvaluationPanel {
    pub(super) fn draw_few_classes(&mut self, classes: usize) {
        self.drawn = if classes <= FEW { (0..classes as u32).collect() } else { Vec::new() };
    }

    pub(super) fn precision_recall(&mut self, ui: &mut Ui, evaluation: &EvalSummary) {
        self.choose_iou(ui, evaluation);
        let Some(set) = evaluation.curves_by(self.masks).get(self.iou) else { return };
        ScrollArea::vertical().id_salt("drawn classes").max_height(44.0).show(ui, |ui| {
            ui.horizontal_wrapped(|ui| {
                ui.colored_label(theme::readable(ui, POOLED), titled("all classes", &set.pooled))
                    .on_hover_text("Average precision in per cent; the dot on a curve is its best F1");
                for (class, (name, view)) in evaluation.classes.iter().zip(&set.classes).enumerate() {
                    let class = class as u32;
                    let mut on = self.drawn.contains(&class);
                    let text = RichText::new(titled(name, view)).color(theme::class_text(ui, class));
                    if ui.checkbox(&mut on, text).on_hover_text("Draw this class").changed() {
                        self.drawn.retain(|c| *c != class);
                        if on {
                            self.drawn.push(class);
                        }
                    }
                }
            });
        });
        let shown = self.shown_curves(set, evaluation);
        let plot = Plot::new("precision and recall")
            .x_axis_label("recall")
            .y_axis_label("precision")
            .include_x(0.0)
            .include_x(1.0)
            .include_y(0.0)
            .include_y(1.0)
            .allow_scroll(false);
        let answer = plot.show(ui, |plot| {
            let mut ids = LineIds::of_plot(PLOTS[0]);
            for curve in &shown {
                let points: PlotPoints<'_> = curve.view.points.iter().map(|p| [p.recall, p.precision]).collect();
                let width = if curve.class.is_none() { 2.5 } else { 1.5 };
                // A band over the points of a pixel column would fill the steps of so few points.
                let line = Line::new(curve.title.clone(), points).color(curve.color).allow_band(false);
                add_line(plot, &mut ids, line, width, LineStyle::Solid);
                if let Some(best) = curve.view.best {
                    let mark = Points::new(format!("{}, best F1", curve.title), [best.recall, best.precision]);
                    plot.points(mark.color(curve.color).radius(4.0));
                }
            }
        });
        name_picture(&answer.response, "Precision by recall; the worst images have a page of their own");
        let clicked = answer.response.interact_pointer_pos().filter(|_| answer.response.clicked());
        if let Some(position) = clicked {
            let at = answer.transform.value_from_position(position);
            let distance = |p: &CurvePoint| (p.recall - at.x).powi(2) + (p.precision - at.y).powi(2);
            let points = shown.iter().flat_map(|curve| curve.view.points.iter().map(|p| (curve.class, p)));
            let nearest = points.min_by(|a, b| distance(a.1).total_cmp(&distance(b.1)));
            if let Some((class, point)) = nearest {
                self.list_near(evaluation, class, point.score as f32);
            }
        }
    }

    pub(super) fn by_score(
        &mut self,
        ui: &mut Ui,
        evaluation: &EvalSummary,
        settings: &Settings,
        actions: &mut Vec<Action>,
    ) {
        self.choose_iou(ui, evaluation);
        let Some(set) = evaluation.curves_by(self.masks).get(self.iou) else { return };
        let view = self.class.and_then(|class| set.classes.get(class as usize)).unwrap_or(&set.pooled);
        ui.horizontal_wrapped(|ui| {
            let name = self.class.and_then(|c| evaluation.classes.get(c as usize));
            let chosen = name.map_or("all classes", String::as_str);
            let choice = egui::ComboBox::from_id_salt("class of curves").selected_text(chosen).show_ui(ui, |ui| {
                ui.selectable_value(&mut self.class, None, "all classes");
                for (class, name) in evaluation.classes.iter().enumerate() {
                    let class = class as u32;
                    let text = RichText::new(name).color(theme::class_text(ui, class));
                    ui.selectable_value(&mut self.class, Some(class), text);
                }
            });
            choice.response.on_hover_text("The class whose curves are drawn");
            let Some(best) = view.best else {
                ui.label("No detection is right.");
                return;
            };
            ui.label(format!(
                "Highest F1 {:.1} at score {:.3}: precision {:.1}, recall {:.1}",
                best.f1 * 100.0,
                best.score,
                best.precision * 100.0,
                best.recall * 100.0
            ))
            .on_hover_text("F1 = 2PR / (P + R)");
            if ui.button("Use it as the score threshold").clicked() {
                actions.push(Action::Score(best.score as f32));
            }
        });
        let plot = Plot::new("by score")
            .legend(Legend::default().position(Corner::LeftBottom))
            .x_axis_label("score threshold")
            .include_x(0.0)
            .include_x(1.0)
            .include_y(0.0)
            .include_y(1.0)
            .allow_scroll(false);
        // Beside each other: the panel is wider than high.
        let answer = ui.columns_const(|[left, right]| {
            self.score_histogram(right, evaluation, settings.score);
            plot.show(left, |plot| {
                let parts: [fn(&CurvePoint) -> f64; 3] = [|p| p.precision, |p| p.recall, |p| p.f1];
                let mut ids = LineIds::of_plot(PLOTS[1]);
                for ((name, color), part) in PARTS.into_iter().zip(parts) {
                    let points: PlotPoints<'_> = view.points.iter().map(|p| [p.score, part(p)]).collect();
                    let line = Line::new(name, points).color(color).allow_band(false);
                    add_line(plot, &mut ids, line, 1.5, LineStyle::Solid);
                }
                plot.vline(VLine::new("score threshold", f64::from(settings.score)).color(POOLED));
                if let Some(best) = view.best {
                    plot.vline(VLine::new("best F1", best.score).color(PARTS[2].1));
                }
            })
        });
        name_picture(&answer.response, "Precision, recall and F1 by score");
        let clicked = answer.response.interact_pointer_pos().filter(|_| answer.response.clicked());
        if let Some(position) = clicked {
            let score = answer.transform.value_from_position(position).x as f32;
            self.list_near(evaluation, self.class, score);
        }
    }

    /// How many detections have which score, of the chosen class or of all.
    fn score_histogram(&mut self, ui: &mut Ui, evaluation: &EvalSummary, threshold: f32) {
        let seen = self.seen;
        let samples = self.scores.get_or_insert_with(|| Arc::new(scores(&evaluation.details.results, seen))).clone();
        let mut bins = self.bins.unwrap_or(FIRST_BINS);
        ui.horizontal_wrapped(|ui| {
            ui.weak("detections by score");
            let slider = ui.add(Slider::new(&mut bins, BINS).text("bins"));
            let help = "Bars of the histogram; those from the score threshold on are green";
            if slider.on_hover_text(help).changed() {
                self.bins = Some(bins);
            }
        });
        HistogramView {
            id: (SCORES, 0),
            samples: &samples,
            group: self.class,
            bins,
            threshold: Some(threshold),
            things: "detections",
            axis: "score",
            width: ui.available_width().max(120.0),
        }
        .ui(ui);
    }

    fn choose_iou(&mut self, ui: &mut Ui, evaluation: &EvalSummary) {
        ui.horizontal(|ui| {
            for (index, set) in evaluation.details.curves.iter().enumerate() {
                let text = format!("IoU {:.2}", set.iou);
                ui.selectable_value(&mut self.iou, index, text).on_hover_text("A detection is right from this IoU on");
            }
            ui.weak("a click on a curve lists the images around that score");
        });
    }

    fn shown_curves<'a>(&self, set: &'a CurveSet, evaluation: &EvalSummary) -> Vec<ShownCurve<'a>> {
        let mut shown = vec![ShownCurve::new("all classes", None, POOLED, &set.pooled)];
        for (class, (name, view)) in evaluation.classes.iter().zip(&set.classes).enumerate() {
            let class = class as u32;
            if self.drawn.contains(&class) {
                shown.push(ShownCurve::new(name, Some(class), theme::class_color(class), view));
            }
        }
        shown
    }

    fn list_near(&mut self, evaluation: &EvalSummary, class: Option<u32>, score: f32) {
        let images = evaluation.details.images_near_score(class, score, LISTED);
        let name = class.and_then(|c| evaluation.classes.get(c as usize)).map_or("any class", String::as_str);
        let rows = images.into_iter().map(|(index, score)| (index, format!("{score:.3}")));
        self.list = Some(ImageList::new(format!("{name}, score near {score:.2}"), rows));
    }
}

/// Every detection's score with its class.
fn scores(results: &[ImageResult], version: u64) -> Samples {
    let detections = results.iter().flat_map(|result| &result.detections);
    let (values, groups) = detections.map(|detection| (detection.score, detection.class)).unzip();
    Samples { version, values, groups }
}

/// A name and its average precision in per cent.
fn titled(name: &str, view: &CurveView) -> String {
    format!("{name} {}", crate::app::state::percent(view.ap.unwrap_or(-1.0)))
}

/// One curve of the plot of precision against recall.
struct ShownCurve<'a> {
    title: String,
    class: Option<u32>,
    color: Color32,
    view: &'a CurveView,
}

impl<'a> ShownCurve<'a> {
    fn new(name: &str, class: Option<u32>, color: Color32, view: &'a CurveView) -> Self {
        Self { title: titled(name, view), class, color, view }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Detection;

    #[test]
    fn the_scores_of_all_images_are_counted_by_class() {
        let detection = |class: u32, score: f32| Detection { class, score, ..Detection::default() };
        let image = |detections: Vec<Detection>| ImageResult { detections, ..ImageResult::default() };
        let results = [image(vec![detection(1, 0.9), detection(0, 0.2)]), image(vec![detection(1, 0.3)])];
        let found = scores(&results, 7);
        assert_eq!((found.version, found.values, found.groups), (7, vec![0.9, 0.2, 0.3], vec![1, 0, 1]));
    }
}
