//! Image panel: the picture with ground truth, predictions, anchors and heat maps over it.

use crate::app::action::{Action, Layer};
use crate::app::bridge::paint_scene;
use crate::app::scene::{Choice, Prepared, missed};
use crate::app::settings::Settings;
use crate::app::state::State;
use crate::app::theme;
use crate::engine::Shown;
use crate::geometry::BBox;
use crate::render::{View, Viewport};
use egui::{Align2, Color32, CursorIcon, FontId, Pos2, Rect, RichText, Sense, Slider, Ui, vec2};
use std::sync::Arc;

/// The image panel's buffers.
const VIEW_ID: u64 = 1;

/// Scratch of the panel.
#[derive(Debug, Default)]
pub struct ImagePanel {
    view: Option<View>,
    /// The picture that the view was fitted to.
    fitted: Option<(usize, u32, u32)>,
    prepared: Option<(u64, Prepared)>,
    heat: Option<String>,
    pub isolated: Option<u32>,
    pub selected: Option<usize>,
    hovered: Option<usize>,
    wishes: Vec<Wish>,
}

/// Changes of the view asked for by keys, done when the panel's size is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wish {
    Fit,
    Actual,
    Selection,
    Zoom(f32),
}

impl ImagePanel {
    pub fn wish(&mut self, wish: Wish) {
        self.wishes.push(wish);
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
        self.toolbar(ui, &shown, settings, actions);
        let (rect, response) =
            ui.allocate_exact_size(ui.available_size().max(vec2(16.0, 16.0)), Sense::click_and_drag());
        let scale = ui.ctx().pixels_per_point();
        let viewport =
            Viewport::new(rect.min.x * scale, rect.min.y * scale, rect.width() * scale, rect.height() * scale);
        let size = [shown.picture.width as f32, shown.picture.height as f32];
        let key = (shown.index, shown.picture.width, shown.picture.height);
        let mut view = match self.view {
            Some(view) if self.fitted == Some(key) => View { viewport, ..view },
            _ => {
                self.selected = None;
                View::fit(size, viewport)
            }
        };
        self.fitted = Some(key);
        for wish in std::mem::take(&mut self.wishes) {
            match wish {
                Wish::Fit => view = View::fit(size, viewport),
                Wish::Actual => view.set_zoom(1.0),
                Wish::Zoom(factor) => view.zoom_at(viewport.center(), factor),
                Wish::Selection => {
                    if let Some(d) = self.selected.and_then(|s| shown.detections.get(s)) {
                        view.look_at([d.bbox.x0, d.bbox.y0, d.bbox.x1, d.bbox.y1]);
                    }
                }
            }
        }
        if response.dragged() {
            let by = response.drag_delta() * scale;
            view.pan([by.x, by.y]);
        }
        let pointer = response.hover_pos();
        if let Some(pointer) = pointer {
            let (scroll, pinch) = ui.input(|i| (i.smooth_scroll_delta.y, i.zoom_delta()));
            let factor = (scroll * 0.005).exp() * pinch;
            if (factor - 1.0).abs() > 1e-4 {
                view.zoom_at([pointer.x * scale, pointer.y * scale], factor);
            }
        }
        self.view = Some(view);

        let at = pointer.map(|p| view.image_from_screen([p.x * scale, p.y * scale]));
        let under: Vec<usize> = at.map(|[x, y]| self.boxes_at(&shown, settings, x, y)).unwrap_or_default();
        self.hovered = under.first().copied();
        if response.clicked() {
            // A second click on the same place goes to the next box below.
            let next = match self.selected.and_then(|s| under.iter().position(|u| *u == s)) {
                Some(position) => under.get(position + 1).or(under.first()),
                None => under.first(),
            };
            actions.push(Action::Select(next.copied()));
        }
        let choice = self.choice(settings);
        let scene = self.prepared(&shown, state.shown_version).scene(&shown, &choice);
        let painter = ui.painter_at(rect);
        painter.rect_filled(rect, 0.0, ui.visuals().extreme_bg_color);
        painter.add(paint_scene(rect, VIEW_ID, scene, view));
        if settings.shows(Layer::Labels) {
            self.labels(&painter, &shown, settings, &view, rect, scale);
        }
        if let Some([x, y]) = at {
            pixel_readout(&painter, &shown, &view, rect, x, y);
            ui.ctx().set_cursor_icon(if self.hovered.is_some() {
                CursorIcon::PointingHand
            } else {
                CursorIcon::Default
            });
        }
        let response = match self.hovered {
            Some(index) => response.on_hover_ui_at_pointer(|ui| describe(ui, &shown, index, false)),
            None => response,
        };
        let told = self.selected.or(self.hovered);
        response.context_menu(|ui| match told {
            Some(index) => describe(ui, &shown, index, true),
            None => _ = ui.label("Right-click a box to see why it is there"),
        });
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

    fn toolbar(&mut self, ui: &mut Ui, shown: &Arc<Shown>, settings: &Settings, actions: &mut Vec<Action>) {
        ui.horizontal_wrapped(|ui| {
            if ui.button("Back").on_hover_text("Previous image: Left or A").clicked() {
                actions.push(Action::Previous);
            }
            if ui.button("Next").on_hover_text("Next image: Right or D").clicked() {
                actions.push(Action::Next);
            }
            let mut score = settings.score;
            let slider = ui.add(Slider::new(&mut score, 0.0..=1.0).fixed_decimals(2).text("score"));
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
            let mut text = format!("{}: {visible} boxes", shown.name);
            if !shown.detected {
                text = format!("{}: not detected yet", shown.name);
            } else if !shown.objects.is_empty() && shown.object_classes == shown.detection_classes {
                text.push_str(&format!(
                    ", {} of {} objects missed",
                    missed(shown, settings.score),
                    shown.objects.len()
                ));
            }
            let total: f64 = shown.timings.iter().map(|t| t.seconds).sum();
            let label = ui.label(text);
            if shown.detected {
                ui.weak(format!("{:.0} ms", total * 1e3)).on_hover_ui(|ui| {
                    for time in &shown.timings {
                        ui.label(format!("{}: {:.1} ms", time.stage, time.seconds * 1e3));
                    }
                });
            }
            label.on_hover_text("At the score above; an object counts as found from IoU 0.5 on");
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
    fn labels(&self, painter: &egui::Painter, shown: &Shown, settings: &Settings, view: &View, rect: Rect, scale: f32) {
        let font = FontId::proportional(12.0);
        let mut taken: Vec<Rect> = Vec::new();
        for (index, d) in shown.detections.iter().enumerate() {
            if !self.is_visible(shown, settings, index) {
                continue;
            }
            let [x, y] = view.screen_from_image([d.bbox.x0, d.bbox.y0]);
            let corner = Pos2::new(x / scale, y / scale);
            if !rect.expand(60.0).contains(corner) {
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
fn pixel_readout(painter: &egui::Painter, shown: &Shown, view: &View, rect: Rect, x: f32, y: f32) {
    let inside = x >= 0.0 && y >= 0.0 && x < shown.picture.width as f32 && y < shown.picture.height as f32;
    let mut text = format!("{:.0} %", view.zoom * 100.0);
    if inside {
        let [r, g, b] = shown.picture.pixel(x as u32, y as u32);
        text = format!("x {x:.1}  y {y:.1}   RGB {r} {g} {b}   {text}");
    }
    let galley = painter.layout_no_wrap(text, FontId::monospace(11.0), Color32::WHITE);
    let area = Align2::LEFT_BOTTOM.anchor_size(rect.left_bottom(), galley.size() + vec2(8.0, 4.0));
    painter.rect_filled(area, 0.0, Color32::from_black_alpha(160));
    painter.galley(area.min + vec2(4.0, 2.0), galley, Color32::WHITE);
}

/// What is known of one detection; `why` adds where it came from and whom it removed.
fn describe(ui: &mut Ui, shown: &Shown, index: usize, why: bool) {
    let Some(d) = shown.detections.get(index) else { return };
    let name = shown.detection_classes.get(d.class as usize).map_or("?", String::as_str);
    ui.label(RichText::new(format!("{name}  {:.3}", d.score)).strong().color(theme::class_color(d.class)));
    let size =
        |b: BBox| format!("[{:.1} {:.1} {:.1} {:.1}]  {:.0}×{:.0} px", b.x0, b.y0, b.x1, b.y1, b.width(), b.height());
    ui.label(size(d.bbox));
    let Some(trace) = &shown.trace else { return };
    let Some(anchor) = d.anchor else { return };
    let level = trace.anchors.level_of(anchor as usize);
    let map = level.and_then(|l| trace.anchors.levels.get(l));
    if let (Some(level), Some(map)) = (level, map) {
        ui.label(format!("anchor {anchor}, level {level} ({}×{}, stride {:.0})", map.columns, map.rows, map.stride));
    }
    if !why {
        return;
    }
    ui.separator();
    ui.label(RichText::new("Why this box?").strong());
    if let Some(bbox) = trace.anchors.boxes.get(anchor as usize) {
        ui.label(format!("It was predicted from the anchor {} of the network's input.", size(*bbox)));
    }
    if let Some(suppression) = &trace.suppression {
        let own = suppression.candidates.iter().position(|c| c.anchor == Some(anchor) && c.class == d.class);
        let removed: Vec<_> = suppression.removals.iter().filter(|r| own == Some(r.by as usize)).collect();
        ui.label(format!(
            "Of {} candidates above {:.3}, it removed {} with IoU above {:.2}:",
            suppression.candidates.len(),
            suppression.score_threshold,
            removed.len(),
            suppression.iou_threshold
        ));
        for removal in removed.iter().take(8) {
            if let Some(candidate) = suppression.candidates.get(removal.removed as usize) {
                ui.label(format!("  score {:.3} at IoU {:.2}", candidate.score, removal.iou));
            }
        }
        if removed.len() > 8 {
            ui.weak(format!("  and {} more", removed.len() - 8));
        }
    }
}
