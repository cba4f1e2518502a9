//! Image panel: the picture with ground truth, predictions, masks, anchors and heat maps over it.

use crate::app::action::{Action, Layer};
use crate::app::export::{Figure, views};
use crate::app::outcome::{self, Coloring, FOUND, OutcomeFilter, letter};
use crate::app::panels::canvas::{Canvas, Frame};
use crate::app::panels::{chip, color_bar, coloring_choice, number, score_legend, score_slider, why};
use crate::app::scene::{Choice, Prepared};
use crate::app::settings::Settings;
use crate::app::state::State;
use crate::app::theme;
use crate::engine::Shown;
use crate::render::Scene;
use crate::trace::reduce::Reduction;
use egui::{Align2, Color32, CursorIcon, FontId, RichText, Stroke, StrokeKind, Ui, vec2};
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
    /// How the channels of that map become one number.
    reduction: Reduction,
    pub isolated: Option<u32>,
    pub outcomes: OutcomeFilter,
    pub selected: Option<usize>,
    hovered: Option<usize>,
    /// What the open menu is about.
    asked: Option<Asked>,
    /// What the list of missed objects tells.
    causes: why::Causes,
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
    pub fn lay_over(&mut self, map: String, reduction: Reduction) {
        (self.heat, self.reduction) = (Some(map), reduction);
    }

    /// The picture as it is on screen, for an export.
    pub fn figure(&mut self, shown: &Shown, version: u64, settings: &Settings) -> Figure {
        let choice = self.choice(settings);
        views::image(shown, self.prepared(shown, version), &choice, settings.shows(Layer::Labels))
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
        let choice = self.choice(settings);
        let prepared = self.prepared(&shown, state.shown_version);
        let under = frame.at.map(|at| boxes_at(&shown, prepared, &choice, at)).unwrap_or_default();
        let lost = frame.at.and_then(|at| missed_at(&shown, prepared, &choice, at));
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
        let prepared = self.prepared(&shown, state.shown_version);
        frame.write(&painter, &prepared.captions(&shown, &choice, settings.shows(Layer::Labels)));
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

    fn choice(&self, settings: &Settings) -> Choice {
        Choice {
            heat: self.heat.clone().filter(|_| settings.shows(Layer::HeatMap)),
            reduction: self.reduction,
            outcomes: self.outcomes,
            isolated: self.isolated,
            selected: self.selected,
            hovered: self.hovered,
            ..Choice::of(settings)
        }
    }

    fn prepared(&mut self, shown: &Shown, version: u64) -> &mut Prepared {
        self.prepared.take_if(|(made, _)| *made != version);
        &mut self.prepared.get_or_insert_with(|| (version, Prepared::new(shown, version))).1
    }

    fn toolbar(
        &mut self,
        ui: &mut Ui,
        shown: &Arc<Shown>,
        state: &State,
        settings: &Settings,
        actions: &mut Vec<Action>,
    ) {
        let prepared = self.prepared(shown, state.shown_version);
        let (missed, asked) = (prepared.missed(settings.score), prepared.asked());
        let has_masks = prepared.has_masks();
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
            for layer in Layer::ALL.into_iter().filter(|layer| has_masks || *layer != Layer::Masks) {
                let mut on = settings.shows(layer);
                if ui.checkbox(&mut on, layer.name()).on_hover_text(layer.help()).changed() {
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
                if let Some((_, look)) = self.prepared(shown, state.shown_version).heat() {
                    color_bar(ui, look.color_map, &number(look.low), &number(look.high));
                }
            }
            let names = if shown.detected { &shown.detection_classes } else { &shown.object_classes };
            let chosen = self.isolated.and_then(|c| names.get(c as usize)).map_or("all classes", String::as_str);
            let choice = egui::ComboBox::from_id_salt("isolated class").selected_text(chosen).show_ui(ui, |ui| {
                if ui.selectable_label(self.isolated.is_none(), "all classes").clicked() {
                    actions.push(Action::Isolate(None));
                }
                for (class, name) in names.iter().enumerate() {
                    let class = class as u32;
                    let text = RichText::new(name).color(theme::class_text(ui, class));
                    if ui.selectable_label(self.isolated == Some(class), text).clicked() {
                        actions.push(Action::Isolate(Some(class)));
                    }
                }
            });
            choice.response.on_hover_text("Only boxes of this class");
            let made = coloring_choice(ui, Some(settings.coloring), &Coloring::ALL.map(Some));
            actions.extend(made.flatten().map(Action::Color));
            let choice =
                egui::ComboBox::from_id_salt("outcomes").selected_text(self.outcomes.name()).show_ui(ui, |ui| {
                    for outcomes in OutcomeFilter::ALL {
                        if ui.selectable_label(self.outcomes == outcomes, outcomes.name()).clicked() {
                            actions.push(Action::Outcomes(outcomes));
                        }
                    }
                });
            choice.response.on_hover_text("T: all, then only true positives, false positives or missed objects");
            let visible = shown.detections.iter().filter(|d| d.score >= settings.score).count();
            let noun = if visible == 1 { "box" } else { "boxes" };
            let mut text = format!("{}: {visible} {noun}", shown.name);
            if !shown.detected {
                text = format!("{}: not detected yet", shown.name);
            }
            let total: f64 = shown.timings.iter().map(|t| t.seconds).sum();
            ui.label(text).on_hover_text("At the score above");
            if !missed.is_empty() {
                let text = format!("{} of {asked} objects missed", missed.len());
                let (version, score) = (state.shown_version, settings.score);
                let causes = &mut self.causes;
                let menu = ui.menu_button(text, |ui| why::missed_list(ui, shown, version, &missed, score, causes));
                if let Some(object) = menu.inner.flatten() {
                    actions.push(Action::Select(None));
                    actions.push(Action::SelectObject(Some(object)));
                    actions.push(Action::ZoomSelection);
                }
                menu.response.on_hover_text(format!("Why? An object counts as found from IoU {} on", FOUND));
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
            let outcomes = self.outcomes;
            legend(ui, self.prepared(shown, state.shown_version), settings, outcomes);
        });
    }
}

/// Visible detections that contain a point, smallest first.
fn boxes_at(shown: &Shown, prepared: &Prepared, choice: &Choice, [x, y]: [f32; 2]) -> Vec<usize> {
    let here = shown.detections.iter().enumerate();
    let here = here.filter(|(index, d)| d.bbox.contains(x, y) && prepared.shows(*index, choice));
    let mut found: Vec<(usize, f32)> = here.map(|(index, d)| (index, d.bbox.area())).collect();
    found.sort_by(|a, b| a.1.total_cmp(&b.1));
    found.into_iter().map(|(index, _)| index).collect()
}

/// The smallest visible missed object that contains a point.
fn missed_at(shown: &Shown, prepared: &Prepared, choice: &Choice, [x, y]: [f32; 2]) -> Option<usize> {
    let missed = prepared.missed(choice.score).into_iter();
    let here = missed.filter_map(|index| Some((index, shown.objects.get(index)?.bbox)));
    let here = here.filter(|(index, bbox)| bbox.contains(x, y) && prepared.shows_object(*index, choice));
    here.min_by(|a, b| a.1.area().total_cmp(&b.1.area())).map(|(index, _)| index)
}

/// What colours and letters tell and how often, or why nothing is judged.
fn legend(ui: &mut Ui, prepared: &Prepared, settings: &Settings, outcomes: OutcomeFilter) {
    if settings.coloring == Coloring::Score {
        score_legend(ui);
    }
    if settings.coloring != Coloring::Error && outcomes == OutcomeFilter::All {
        return;
    }
    if !prepared.is_judged() {
        ui.weak("Nothing is judged: that needs detections, and objects of the same classes");
        return;
    }
    for (outcome, count) in prepared.counts(settings.score) {
        chip(ui, &format!("{} {count}", letter(outcome)), outcome::color(outcome), outcome::name(outcome));
    }
    ui.weak(format!("at IoU {FOUND} and score {:.2}", settings.score));
    if outcomes != OutcomeFilter::All {
        ui.strong(format!("{} are shown", outcomes.name()));
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
