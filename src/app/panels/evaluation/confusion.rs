//! The confusion matrix: objects by row, detections by column, background last; a click on a cell lists its images.

use super::EvaluationPanel;
use crate::app::action::Action;
use crate::app::panels::image_list::ImageList;
use crate::app::settings::Settings;
use crate::app::theme;
use crate::engine::event::EvalSummary;
use crate::render::ColorMap;
use egui::{Button, Color32, Grid, Label, Rect, RichText, ScrollArea, Sense, Ui, pos2, vec2};

/// Up to this many classes every cell is a button of its own; more are painted.
const BUTTONS: usize = 20;
/// Side of a painted cell, points.
const CELL: f32 = 10.0;
const BUTTON: egui::Vec2 = vec2(40.0, 20.0);
/// Mix-ups of two classes that are listed.
const LISTED: usize = 20;

impl EvaluationPanel {
    pub(super) fn confusion(
        &mut self,
        ui: &mut Ui,
        evaluation: &EvalSummary,
        settings: &Settings,
        actions: &mut Vec<Action>,
    ) {
        let confusion = &evaluation.confusion;
        ui.horizontal_wrapped(|ui| {
            ui.label(format!("Score ≥ {:.2}, IoU ≥ {:.2}", confusion.score, confusion.iou))
                .on_hover_text("At first the score of the highest F1 over all classes");
            let is_new = (confusion.score - f64::from(settings.score)).abs() > 1e-6;
            let text = format!("Count at score {:.2}", settings.score);
            let count = ui.add_enabled(is_new, Button::new(text)).on_hover_text("At the score threshold of the image");
            if count.on_disabled_hover_text("It is counted at this score").clicked() {
                self.list = None;
                self.cell = None;
                actions.push(Action::CountConfusion(settings.score));
            }
            ui.weak("rows: objects, columns: what they were found as; shaded by share of the row");
        });
        let classes = evaluation.classes.len();
        let shares = confusion.matrix.row_shares();
        let mut chosen = None;
        ScrollArea::both().auto_shrink(false).show(ui, |ui| {
            let mixed = confusion.matrix.most_confused(LISTED);
            if !mixed.is_empty() {
                ui.horizontal_wrapped(|ui| {
                    ui.weak("Commonest mix-ups:");
                    for pair in mixed {
                        let (truth, found) = (name(evaluation, pair.truth), name(evaluation, pair.detection));
                        let text = format!("{truth} as {found} {}×", pair.count);
                        if ui.small_button(text).clicked() {
                            chosen = Some((pair.truth, pair.detection));
                        }
                    }
                });
            }
            let clicked = if classes <= BUTTONS {
                buttons(ui, evaluation, &shares, self.cell)
            } else {
                painted(ui, evaluation, &shares, self.cell)
            };
            chosen = chosen.or(clicked);
        });
        if let Some((truth, found)) = chosen {
            self.cell = chosen;
            let images = confusion.images.get(&(truth, found)).map_or(&[][..], Vec::as_slice);
            let rows = images.iter().map(|&(index, count)| (index, format!("{count}×")));
            self.list = Some(ImageList::new(describe(evaluation, truth, found), rows));
        }
    }
}

fn name(evaluation: &EvalSummary, class: usize) -> &str {
    evaluation.classes.get(class).map_or("background", String::as_str)
}

/// A cell in words.
fn describe(evaluation: &EvalSummary, truth: usize, found: usize) -> String {
    let classes = evaluation.classes.len();
    match (truth == classes, found == classes) {
        (true, true) => "background".into(),
        (true, false) => format!("background found as {}", name(evaluation, found)),
        (false, true) => format!("{} not found", name(evaluation, truth)),
        (false, false) => format!("{} found as {}", name(evaluation, truth), name(evaluation, found)),
    }
}

fn shade(share: f64) -> Color32 {
    let [r, g, b] = ColorMap::Viridis.rgb(share as f32);
    Color32::from_rgb(r, g, b)
}

fn share_of(shares: &[f64], classes: usize, truth: usize, found: usize) -> f64 {
    shares.get(truth * (classes + 1) + found).copied().unwrap_or(0.0)
}

/// A grid of buttons; the cell that was clicked.
fn buttons(
    ui: &mut Ui,
    evaluation: &EvalSummary,
    shares: &[f64],
    selected: Option<(usize, usize)>,
) -> Option<(usize, usize)> {
    let classes = evaluation.classes.len();
    let mut clicked = None;
    Grid::new("confusion").spacing([2.0, 2.0]).show(ui, |ui| {
        ui.weak("");
        for found in 0..=classes {
            let text = name(evaluation, found);
            ui.add_sized(BUTTON, Label::new(RichText::new(text).small()).truncate()).on_hover_text(text);
        }
        ui.end_row();
        for truth in 0..=classes {
            ui.label(RichText::new(name(evaluation, truth)).color(color(classes, truth)));
            for found in 0..=classes {
                let count = evaluation.confusion.matrix.at(truth, found);
                if truth == classes && found == classes {
                    ui.weak("");
                    continue;
                }
                let fill = if count == 0 {
                    ui.visuals().extreme_bg_color
                } else {
                    shade(share_of(shares, classes, truth, found))
                };
                let text = RichText::new(count.to_string()).color(if count == 0 {
                    ui.visuals().weak_text_color()
                } else {
                    theme::text_on(fill)
                });
                let mut button = Button::new(text).fill(fill).min_size(BUTTON);
                if selected == Some((truth, found)) {
                    button = button.stroke(egui::Stroke::new(2.0, ui.visuals().strong_text_color()));
                }
                let words = format!("{}: {count}", describe(evaluation, truth, found));
                let share = 100.0 * share_of(shares, classes, truth, found);
                let response = ui.add(button).on_hover_text(format!("{words}, {share:.1} % of the row"));
                if response.accessible_name(words).clicked() {
                    clicked = Some((truth, found));
                }
            }
            ui.end_row();
        }
    });
    clicked
}

fn color(classes: usize, class: usize) -> Color32 {
    if class == classes { Color32::GRAY } else { theme::class_color(class as u32) }
}

/// One painted area; the cell that was clicked.
fn painted(
    ui: &mut Ui,
    evaluation: &EvalSummary,
    shares: &[f64],
    selected: Option<(usize, usize)>,
) -> Option<(usize, usize)> {
    let classes = evaluation.classes.len();
    let side = classes + 1;
    let (rect, response) = ui.allocate_exact_size(vec2(CELL, CELL) * side as f32, Sense::click());
    let painter = ui.painter_at(rect);
    painter.rect_filled(rect, 0.0, ui.visuals().extreme_bg_color);
    let place = |truth: usize, found: usize| {
        let corner = rect.min + vec2(found as f32, truth as f32) * CELL;
        Rect::from_min_max(corner, pos2(corner.x + CELL - 1.0, corner.y + CELL - 1.0))
    };
    let visible = ui.clip_rect();
    for truth in 0..side {
        for found in 0..side {
            let cell = place(truth, found);
            if evaluation.confusion.matrix.at(truth, found) > 0 && visible.intersects(cell) {
                painter.rect_filled(cell, 0.0, shade(share_of(shares, classes, truth, found)));
            }
        }
    }
    if let Some((truth, found)) = selected {
        let stroke = egui::Stroke::new(2.0, ui.visuals().strong_text_color());
        painter.rect_stroke(place(truth, found), 0.0, stroke, egui::StrokeKind::Outside);
    }
    let at = response.hover_pos().map(|p| ((p - rect.min) / CELL).max(egui::Vec2::ZERO));
    let cell = at.map(|at| ((at.y as usize).min(classes), (at.x as usize).min(classes)));
    let response = response.accessible_name("Confusion matrix: the list above leads to the same images");
    let clicked = response.clicked();
    if let Some((truth, found)) = cell {
        let count = evaluation.confusion.matrix.at(truth, found);
        response.on_hover_text_at_pointer(format!("{}: {count}", describe(evaluation, truth, found)));
    }
    cell.filter(|_| clicked)
}
