//! Image panel: the picture with ground truth, predictions, anchors and heat maps over it.

use crate::app::action::{Action, Layer};
use crate::app::panels::canvas::{Canvas, Frame};
use crate::app::panels::{score_slider, why};
use crate::app::scene::{Choice, Prepared};
use crate::app::settings::Settings;
use crate::app::state::State;
use crate::app::theme;
use crate::engine::Shown;
use crate::render::Scene;
use egui::{Align2, Color32, CursorIcon, FontId, Rect, RichText, Stroke, StrokeKind, Ui, vec2};
use std::sync::Arc;

pub use crate::app::panels::canvas::Wish;

/// The image panel's buffers.
const VIEW_ID: u64 = 1;

/// Scratch of the panel.
#[derive(Debug, Default)]
pub struct ImagePanel {
    pub canvas: Canvas,
    prepared: Option<(u64, Prepared)>,
    heat: Option<String>,
    pub isolated: Option<u32>,
    pub selected: Option<usize>,
    hovered: Option<usize>,
    /// What the open menu is about.
    asked: Option<Asked>,
}

/// What was right-clicked.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Asked {
    /// Why this detection?
    Box(usize),
    /// Why was this object missed?
    Object(usize),
}

impl ImagePanel {
    /// Chooses the feature map that is laid over the picture.
    pub fn lay_over(&mut self, map: String) {
        self.heat = Some(map);
    }

    /// The scene as it is on screen, for an export.
    pub fn current(&mut self, shown: &Shown, version: u64, settings: &Settings) -> crate::render::Scene {
        let choice = self.choice(settings);
        self.prepared(shown, version).scene(shown, &choice)
    }

    pub fn ui(&mut self, ui: &mut Ui, state: &State, settings: &Settings, actions: &mut Vec<Action>) {
        let Some(shown) = state.shown.clone() else {
            ui.centered_and_justified(|ui| ui.label("Drop an image, a folder, a data set or weights here."));
            return;
        };
        self.toolbar(ui, &shown, state, settings, actions);
        let selection = match (self.selected.and_then(|s| shown.detections.get(s)), state.object) {
            (Some(detection), _) => Some(detection.bbox),
            (None, Some(object)) => shown.objects.get(object).map(|o| o.bbox),
            (None, None) => None,
        };
        let frame = self.canvas.frame(ui, &shown, selection);
        if frame.fresh {
            self.selected = None;
            self.asked = None;
        }
        let missed = self.prepared(&shown, state.shown_version).missed(settings.score);
        let under: Vec<usize> = frame.at.map(|[x, y]| self.boxes_at(&shown, settings, x, y)).unwrap_or_default();
        let lost = frame.at.and_then(|at| self.missed_at(&shown, settings, &missed, at));
        self.hovered = under.first().copied();
        if frame.response.clicked() {
            // A second click on the same place goes to the next box below.
            let next = match self.selected.and_then(|s| under.iter().position(|u| *u == s)) {
                Some(position) => under.get(position + 1).or(under.first()),
                None => under.first(),
            };
            actions.push(Action::Select(next.copied()));
            actions.push(Action::SelectObject(if next.is_none() { lost } else { None }));
        }
        if frame.response.secondary_clicked() {
            self.asked = self.asked_at(&shown, &under, lost);
        }
        let choice = self.choice(settings);
        let scene = self.prepared(&shown, state.shown_version).scene(&shown, &choice);
        let painter = frame.paint(ui, VIEW_ID, scene);
        if let Some(object) = state.object.and_then(|o| shown.objects.get(o)) {
            let stroke = Stroke::new(3.0, Color32::WHITE);
            painter.rect_stroke(frame.bounds(object.bbox), 0.0, stroke, StrokeKind::Outside);
        }
        if settings.shows(Layer::Labels) {
            self.labels(&painter, &shown, settings, &frame);
        }
        if let Some(at) = frame.at {
            pixel_readout(&painter, &shown, &frame, at);
            ui.ctx().set_cursor_icon(if self.hovered.or(lost).is_some() {
                CursorIcon::PointingHand
            } else {
                CursorIcon::Default
            });
        }
        let response = match (self.hovered, lost) {
            (Some(index), _) => frame.response.on_hover_ui_at_pointer(|ui| why::box_card(ui, &shown, index, false)),
            (None, Some(_)) => frame.response.on_hover_text_at_pointer("Missed: right-click to see why"),
            (None, None) => frame.response,
        };
        let asked = self.asked;
        response.context_menu(|ui| match asked {
            Some(Asked::Box(index)) => why::box_card(ui, &shown, index, true),
            Some(Asked::Object(object)) => why::missed_card(ui, &shown, object, settings.score),
            None => {
                _ = ui.label("Right-click a box to see why it is there, or a missed object to see why it was missed")
            }
        });
    }

    /// The picture alone, for the views of other panels; `None` while there is none.
    pub fn backdrop(&mut self, state: &State) -> Option<Scene> {
        let shown = state.shown.clone()?;
        Some(self.prepared(&shown, state.shown_version).picture())
    }

    /// The smallest thing under the pointer: a visible box, or an object that was missed.
    fn asked_at(&self, shown: &Shown, under: &[usize], lost: Option<usize>) -> Option<Asked> {
        let found = under.first().and_then(|&b| Some((b, shown.detections.get(b)?.bbox.area())));
        let lost = lost.and_then(|o| Some((o, shown.objects.get(o)?.bbox.area())));
        match (found, lost) {
            (Some((index, area)), Some((object, other))) => {
                Some(if other < area { Asked::Object(object) } else { Asked::Box(index) })
            }
            (Some((index, _)), None) => Some(Asked::Box(index)),
            (None, Some((object, _))) => Some(Asked::Object(object)),
            (None, None) => None,
        }
    }

    /// The smallest missed object that contains a point, where ground truth is on.
    fn missed_at(&self, shown: &Shown, settings: &Settings, missed: &[usize], [x, y]: [f32; 2]) -> Option<usize> {
        if !settings.shows(Layer::Truth) {
            return None;
        }
        let here = missed.iter().filter_map(|&index| Some((index, shown.objects.get(index)?)));
        let here = here.filter(|(_, o)| o.bbox.contains(x, y) && self.isolated.is_none_or(|class| class == o.class));
        here.min_by(|a, b| a.1.bbox.area().total_cmp(&b.1.bbox.area())).map(|(index, _)| index)
    }

    fn choice(&self, settings: &Settings) -> Choice {
        Choice {
            truth: settings.shows(Layer::Truth),
            predictions: settings.shows(Layer::Predictions),
            anchors: settings.shows(Layer::Anchors),
            heat: self.heat.clone().filter(|_| settings.shows(Layer::HeatMap)),
            score: settings.score,
            isolated: self.isolated,
            selected: self.selected,
            hovered: self.hovered,
        }
    }

    fn prepared(&mut self, shown: &Shown, version: u64) -> &mut Prepared {
        let stale = self.prepared.as_ref().is_none_or(|(made, _)| *made != version);
        let slot = self.prepared.get_or_insert_with(|| (version, Prepared::new(shown, version)));
        if stale {
            *slot = (version, Prepared::new(shown, version));
        }
        &mut slot.1
    }

    fn toolbar(
        &mut self,
        ui: &mut Ui,
        shown: &Arc<Shown>,
        state: &State,
        settings: &Settings,
        actions: &mut Vec<Action>,
    ) {
        let missed = self.prepared(shown, state.shown_version).missed(settings.score);
        ui.horizontal_wrapped(|ui| {
            if ui.button("Back").on_hover_text("Previous image: Left or A").clicked() {
                actions.push(Action::Previous);
            }
            if ui.button("Next").on_hover_text("Next image: Right or D").clicked() {
                actions.push(Action::Next);
            }
            let mut score = settings.score;
            let slider = ui.add(score_slider(&mut score));
            if slider.on_hover_text("Boxes below this score are hidden; nothing is run again").changed() {
                actions.push(Action::Score(score));
            }
            for layer in Layer::ALL {
                let mut on = settings.shows(layer);
                if ui.checkbox(&mut on, layer.name()).changed() {
                    actions.push(Action::Toggle(layer));
                }
            }
            if settings.shows(Layer::HeatMap)
                && let Some(trace) = &shown.trace
            {
                let chosen = self.heat.clone().unwrap_or_else(|| "choose a map".into());
                let choice = egui::ComboBox::from_id_salt("heat map").selected_text(chosen).show_ui(ui, |ui| {
                    for map in &trace.maps {
                        let text = format!("{}  {}×{}×{}", map.name, map.channels, map.height, map.width);
                        ui.selectable_value(&mut self.heat, Some(map.name.clone()), text);
                    }
                });
                choice.response.on_hover_text("The feature map that is laid over the picture");
            }
            let names = if shown.detected { &shown.detection_classes } else { &shown.object_classes };
            let chosen = self.isolated.and_then(|c| names.get(c as usize)).map_or("all classes", String::as_str);
            let choice = egui::ComboBox::from_id_salt("isolated class").selected_text(chosen).show_ui(ui, |ui| {
                if ui.selectable_label(self.isolated.is_none(), "all classes").clicked() {
                    actions.push(Action::Isolate(None));
                }
                for (class, name) in names.iter().enumerate() {
                    let class = class as u32;
                    let text = RichText::new(name).color(theme::class_color(class));
                    if ui.selectable_label(self.isolated == Some(class), text).clicked() {
                        actions.push(Action::Isolate(Some(class)));
                    }
                }
            });
            choice.response.on_hover_text("Only boxes of this class");
            let visible = shown.detections.iter().filter(|d| d.score >= settings.score).count();
            let noun = if visible == 1 { "box" } else { "boxes" };
            let mut text = format!("{}: {visible} {noun}", shown.name);
            if !shown.detected {
                text = format!("{}: not detected yet", shown.name);
            }
            let total: f64 = shown.timings.iter().map(|t| t.seconds).sum();
            ui.label(text).on_hover_text("At the score above");
            if !missed.is_empty() {
                let asked = shown.objects.iter().filter(|o| !o.crowd).count();
                let text = format!("{} of {asked} objects missed", missed.len());
                let menu = ui.menu_button(text, |ui| why::missed_list(ui, shown, &missed, settings.score));
                if let Some(object) = menu.inner.flatten() {
                    actions.push(Action::Select(None));
                    actions.push(Action::SelectObject(Some(object)));
                    actions.push(Action::ZoomSelection);
                }
                menu.response.on_hover_text(format!("Why? An object counts as found from IoU {} on", why::FOUND));
            } else if shown.detected && !shown.objects.is_empty() && shown.object_classes == shown.detection_classes {
                ui.weak("no object missed");
            }
            if shown.detected {
                ui.weak(format!("{:.0} ms", total * 1e3)).on_hover_ui(|ui| {
                    for time in &shown.timings {
                        ui.label(format!("{}: {:.1} ms", time.stage, time.seconds * 1e3));
                    }
                });
            }
        });
    }

    fn is_visible(&self, shown: &Shown, settings: &Settings, index: usize) -> bool {
        shown.detections.get(index).is_some_and(|d| {
            settings.shows(Layer::Predictions)
                && d.score >= settings.score
                && self.isolated.is_none_or(|class| class == d.class)
        })
    }

    /// Visible detections that contain a point, smallest first.
    fn boxes_at(&self, shown: &Shown, settings: &Settings, x: f32, y: f32) -> Vec<usize> {
        let containing = shown
            .detections
            .iter()
            .enumerate()
            .filter(|(i, d)| d.bbox.contains(x, y) && self.is_visible(shown, settings, *i));
        let mut found: Vec<(usize, f32)> = containing.map(|(i, d)| (i, d.bbox.area())).collect();
        found.sort_by(|a, b| a.1.total_cmp(&b.1));
        found.into_iter().map(|(i, _)| i).collect()
    }

    /// Labels in screen space; where two would overlap the lower-scored one is shortened to a mark.
    fn labels(&self, painter: &egui::Painter, shown: &Shown, settings: &Settings, frame: &Frame) {
        let font = FontId::proportional(12.0);
        let mut taken: Vec<Rect> = Vec::new();
        for (index, d) in shown.detections.iter().enumerate() {
            if !self.is_visible(shown, settings, index) {
                continue;
            }
            let corner = frame.point(d.bbox.x0, d.bbox.y0);
            if !frame.rect.expand(60.0).contains(corner) {
                continue;
            }
            let name = shown.detection_classes.get(d.class as usize).map_or("?", String::as_str);
            let color = theme::class_color(d.class);
            let full = painter.layout_no_wrap(format!("{name} {:.2}", d.score), font.clone(), theme::text_on(color));
            let place = |size: egui::Vec2| Rect::from_min_size(corner - vec2(0.0, size.y), size + vec2(6.0, 0.0));
            let mut area = place(full.size());
            let mut galley = full;
            if taken.iter().any(|t| t.intersects(area)) {
                galley = painter.layout_no_wrap("…".into(), font.clone(), theme::text_on(color));
                area = place(galley.size());
            }
            painter.rect_filled(area, 2.0, color);
            painter.galley(area.min + vec2(3.0, 0.0), galley, theme::text_on(color));
            taken.push(area);
        }
    }
}

/// Position, colour and zoom under the pointer.
fn pixel_readout(painter: &egui::Painter, shown: &Shown, frame: &Frame, [x, y]: [f32; 2]) {
    let inside = x >= 0.0 && y >= 0.0 && x < shown.picture.width as f32 && y < shown.picture.height as f32;
    let mut text = format!("{:.0} %", frame.view.zoom * 100.0);
    if inside {
        let [r, g, b] = shown.picture.pixel(x as u32, y as u32);
        text = format!("x {x:.1}  y {y:.1}   RGB {r} {g} {b}   {text}");
    }
    let galley = painter.layout_no_wrap(text, FontId::monospace(11.0), Color32::WHITE);
    let area = Align2::LEFT_BOTTOM.anchor_size(frame.rect.left_bottom(), galley.size() + vec2(8.0, 4.0));
    painter.rect_filled(area, 0.0, Color32::from_black_alpha(160));
    painter.galley(area.min + vec2(4.0, 2.0), galley, Color32::WHITE);
}
