//! One image in linked views, one for each side, with what the sides disagree about drawn and listed.

use super::{ComparePanel, letter};
use crate::app::action::{Action, Layer};
use crate::app::outcome::color;
use crate::app::panels::canvas::{Frame, Wish};
use crate::app::scene::{MASK, Marks, TRUTH_MASK, class_style};
use crate::app::settings::Settings;
use crate::app::state::State;
use crate::app::theme;
use crate::engine::Shown;
use crate::engine::compare::{ComparedImage, ComparedSide, SLOTS};
use crate::eval::difference::{Difference, DifferenceKind, differences};
use crate::geometry::{BBox, Detection, Mask};
use crate::render::{
    BoxColor, BoxFilter, BoxInstance, BoxLayer, BoxLook, BoxStyle, ImageLook, LineStyle, Outcome, Scene,
};
use egui::{Align2, Color32, FontId, Grid, Rect, RichText, ScrollArea, Stroke, Ui, UiBuilder, pos2, vec2};
use std::sync::Arc;

/// Buffers of the view of slot 0; those of the others follow.
const VIEW_ID: u64 = 0xC0;
/// IoU from which two boxes are one.
const SAME_IOU: f32 = 0.5;
/// Share of the panel that the views take.
const VIEWS_SHARE: f32 = 0.6;
/// Differing boxes that get a label.
const LABELS: usize = 60;

/// Boxes of all sides and their differences, remade when what they depend on changes.
#[derive(Debug)]
pub(super) struct Sides {
    key: (u64, u64, u32, usize, usize),
    style: Arc<BoxStyle>,
    truth: Marks,
    /// By slot.
    marks: [Marks; SLOTS],
    /// Of the chosen pair.
    list: Vec<Difference>,
}

impl ComparePanel {
    pub(super) fn image(
        &mut self,
        ui: &mut Ui,
        state: &State,
        settings: &Settings,
        filled: &[usize],
        actions: &mut Vec<Action>,
    ) {
        let Some(shown) = state.shown.clone() else {
            ui.label("Open an image first.");
            return;
        };
        if shown.is_live() {
            ui.label("Frames of a video are not compared: show an image of a data set.");
            return;
        }
        let cause = (shown.index, state.slots_version, state.data_version);
        let mut asks = self.question.is_new(state, "comparison", cause);
        let compared = state.compared.clone().filter(|c| c.index == shown.index);
        if compared.is_none() {
            asks |= self.question.ui(ui, state, "The sides are being run on this image.");
        }
        if asks {
            actions.push(Action::CompareImage(shown.index));
        }
        let Some(compared) = compared else { return };
        ui.horizontal_wrapped(|ui| {
            ui.checkbox(&mut self.by_class, "colour by class").on_hover_text("Else by agreement with the other side");
            for (name, outcome) in [
                ("both", Outcome::TruePositive),
                ("only here", Outcome::FalsePositive),
                ("other class", Outcome::Duplicate),
                ("only on the other side (dashed)", Outcome::FalseNegative),
            ] {
                let [r, g, b] = color(outcome);
                let ground = Color32::from_rgb(r, g, b);
                let text = RichText::new(format!(" {name} ")).background_color(ground);
                ui.label(text.color(theme::text_on(ground)));
            }
            ui.weak(format!("one box from IoU {SAME_IOU} on"));
        });
        self.prepare(&shown, &compared, state, settings);
        let whole = ui.available_rect_before_wrap();
        let height = (whole.height() * VIEWS_SHARE).max(40.0);
        let width = whole.width() / filled.len().max(1) as f32;
        for (column, &slot) in filled.iter().enumerate() {
            let corner = whole.min + vec2(column as f32 * width, 0.0);
            let place = Rect::from_min_size(corner, vec2((width - 4.0).max(8.0), height));
            let builder = UiBuilder::new().id_salt(("compared view", slot)).max_rect(place);
            ui.scope_builder(builder, |ui| self.view(ui, slot, &shown, &compared, state, settings));
        }
        let below = Rect::from_min_max(pos2(whole.min.x, whole.min.y + height + 4.0), whole.max);
        let builder = UiBuilder::new().id_salt("differences").max_rect(below);
        ui.scope_builder(builder, |ui| self.list(ui, &compared));
    }

    pub(super) fn prepare(&mut self, shown: &Shown, compared: &ComparedImage, state: &State, settings: &Settings) {
        let key = (state.compared_version, state.shown_version, settings.score.to_bits(), self.first, self.second);
        if self.sides.as_ref().is_some_and(|sides| sides.key == key) {
            return;
        }
        if self.pixels.as_ref().is_none_or(|(version, _)| *version != state.shown_version) {
            self.pixels = Some((state.shown_version, Arc::new(shown.picture.rgba())));
        }
        self.made += 1;
        self.chosen = None;
        let side = |slot: usize| compared.sides.get(slot).and_then(Option::as_ref);
        let of = |slot: usize| side(slot).map_or(&[][..], |side| side.detections.as_slice());
        let against =
            |first: usize, second: usize| differences(of(first), of(second), &shown.objects, settings.score, SAME_IOU);
        let list = against(self.first, self.second);
        let size = (shown.picture.width, shown.picture.height);
        let marks = std::array::from_fn(|slot| {
            let marks = if slot == self.first {
                marked(&list, of(self.first), of(self.second), true)
            } else {
                marked(&against(self.first, slot), of(slot), of(self.first), false)
            };
            Marks::new(marks.into_iter(), size)
        });
        let truth = shown.objects.iter().enumerate().map(|(index, object)| {
            let mark = instance(object.bbox, object.class).with_level(index as u32);
            (mark.with_style(LineStyle::Dotted), object.mask.as_ref())
        });
        self.sides = Some(Sides { key, style: Arc::new(class_style()), truth: Marks::new(truth, size), marks, list });
    }

    /// The picture with what one slot finds in it: boxes, masks and ground truth as these layers are on. The colours stay
    /// those of the comparison.
    pub(super) fn scene(&self, slot: usize, shown: &Shown, settings: &Settings) -> Option<Scene> {
        let (Some(sides), Some((version, pixels))) = (&self.sides, &self.pixels) else { return None };
        let own = sides.marks.get(slot)?;
        let mut boxes = Vec::new();
        let mut add = |number: u64, marks: &Arc<Vec<BoxInstance>>, look: BoxLook| {
            if !marks.is_empty() {
                let (version, style) = (self.made * 4 + number, sides.style.clone());
                boxes.push(BoxLayer { version, boxes: marks.clone(), style, filter: BoxFilter::default(), look });
            }
        };
        let truth = settings.shows(Layer::Truth);
        let of_truth = BoxLook { color: BoxColor::Outcome, line_width: 1.0, ..BoxLook::default() };
        let color = if self.by_class { BoxColor::Class } else { BoxColor::Outcome };
        let of_own = BoxLook { color, ..BoxLook::default() };
        if settings.shows(Layer::Masks) {
            if truth {
                add(0, &sides.truth.masks, BoxLook { line_width: 0.0, fill_opacity: TRUTH_MASK, ..of_truth });
            }
            add(1, &own.masks, BoxLook { line_width: 0.0, fill_opacity: MASK, ..of_own });
        }
        if settings.shows(Layer::Boxes) {
            if truth {
                add(2, &sides.truth.boxes, of_truth);
            }
            add(3, &own.boxes, of_own);
        }
        Some(Scene {
            version: *version,
            width: shown.picture.width,
            height: shown.picture.height,
            pixels: pixels.clone(),
            look: ImageLook::default(),
            heat: None,
            boxes,
        })
    }

    fn view(
        &mut self,
        ui: &mut Ui,
        slot: usize,
        shown: &Shown,
        compared: &ComparedImage,
        state: &State,
        settings: &Settings,
    ) {
        let side = compared.sides.get(slot).and_then(Option::as_ref);
        let name = state.slots.get(slot).and_then(Option::as_ref).map_or("", |summary| summary.name.as_str());
        ui.add(egui::Label::new(title(slot, name, side, settings.score)).truncate());
        let selection = self.selection(compared);
        let frame = self.canvas.frame(ui, shown, selection);
        if frame.at.is_some() && frame.response.hovered() {
            self.cursor = frame.at;
        }
        let Some(scene) = self.scene(slot, shown, settings) else { return };
        let painter = frame.paint(ui, VIEW_ID + slot as u64, scene);
        if let Some([x, y]) = self.cursor.filter(|_| !frame.response.hovered()) {
            let at = frame.point(x, y);
            let stroke = Stroke::new(1.0, Color32::WHITE);
            painter.line_segment([at - vec2(6.0, 0.0), at + vec2(6.0, 0.0)], stroke);
            painter.line_segment([at - vec2(0.0, 6.0), at + vec2(0.0, 6.0)], stroke);
        }
        if let Some(bbox) = selection {
            let stroke = Stroke::new(1.5, Color32::WHITE);
            painter.rect_stroke(frame.bounds(bbox).expand(3.0), 0.0, stroke, egui::StrokeKind::Outside);
        }
        if settings.shows(Layer::Labels)
            && let Some(side) = side
        {
            self.labels(&painter, &frame, slot, side, compared);
        }
    }

    /// The place of the chosen difference.
    fn selection(&self, compared: &ComparedImage) -> Option<BBox> {
        let difference = self.sides.as_ref()?.list.get(self.chosen?)?;
        let found = |slot: usize, index: Option<usize>| {
            let side = compared.sides.get(slot)?.as_ref()?;
            side.detections.get(index?).map(|d| d.bbox)
        };
        found(self.first, difference.first).or_else(|| found(self.second, difference.second))
    }

    /// Class and score of what this side of the pair has alone or calls otherwise.
    fn labels(
        &self,
        painter: &egui::Painter,
        frame: &Frame,
        slot: usize,
        side: &ComparedSide,
        compared: &ComparedImage,
    ) {
        let Some(sides) = &self.sides else { return };
        let own = |d: &Difference| {
            if slot == self.first {
                d.first
            } else if slot == self.second {
                d.second
            } else {
                None
            }
        };
        let differing = sides.list.iter().filter(|d| d.kind != DifferenceKind::Both).filter_map(own);
        for detection in differing.filter_map(|index| side.detections.get(index)).take(LABELS) {
            let text = format!("{} {:.2}", class_name(compared, detection.class), detection.score);
            let color = theme::class_color(detection.class);
            let galley = painter.layout_no_wrap(text, FontId::proportional(11.0), theme::text_on(color));
            let corner = frame.bounds(detection.bbox).min;
            let area = Align2::LEFT_BOTTOM.anchor_size(corner, galley.size() + vec2(6.0, 0.0));
            painter.rect_filled(area, 2.0, color);
            painter.galley(area.min + vec2(3.0, 0.0), galley, theme::text_on(color));
        }
    }

    /// What the pair disagrees about; a click zooms every view to it.
    fn list(&mut self, ui: &mut Ui, compared: &ComparedImage) {
        let Some(sides) = &self.sides else { return };
        let (first, second) = (letter(self.first), letter(self.second));
        let count = |kind: DifferenceKind| sides.list.iter().filter(|d| d.kind == kind).count();
        ui.label(format!(
            "Both {}, only {first} {}, only {second} {}, other class {}",
            count(DifferenceKind::Both),
            count(DifferenceKind::OnlyFirst),
            count(DifferenceKind::OnlySecond),
            count(DifferenceKind::OtherClass)
        ));
        let detection = |slot: usize, index: Option<usize>| -> Option<&Detection> {
            compared.sides.get(slot)?.as_ref()?.detections.get(index?)
        };
        let mut clicked = None;
        ScrollArea::both().auto_shrink(false).show(ui, |ui| {
            Grid::new("list of differences").num_columns(6).striped(true).show(ui, |ui| {
                let titles = ["", first, second, "IoU", "Δscore", "ΔIoU"];
                let help =
                    ["", "", "", "Of the two boxes", "Second minus first", "With the object, second minus first"];
                for (title, help) in titles.iter().zip(help) {
                    let label = ui.weak(*title);
                    if !help.is_empty() {
                        label.on_hover_text(help);
                    }
                }
                ui.end_row();
                for (index, difference) in sides.list.iter().enumerate() {
                    let kind = kind_name(difference.kind, first, second);
                    let text = format!("{} {kind}", index + 1);
                    if ui.selectable_label(self.chosen == Some(index), text).clicked() {
                        clicked = Some(index);
                    }
                    for found in [detection(self.first, difference.first), detection(self.second, difference.second)] {
                        match found {
                            Some(d) => {
                                let text = format!("{} {:.2}", class_name(compared, d.class), d.score);
                                ui.label(RichText::new(text).color(theme::class_text(ui, d.class)));
                            }
                            None => _ = ui.label("—"),
                        }
                    }
                    let paired = difference.first.is_some() && difference.second.is_some();
                    ui.label(if paired { format!("{:.2}", difference.iou) } else { "—".into() });
                    ui.label(format!("{:+.2}", difference.score_change));
                    ui.label(difference.iou_change.map_or("—".into(), |change| format!("{change:+.2}")));
                    ui.end_row();
                }
            });
        });
        if clicked.is_some() {
            self.chosen = clicked;
            self.canvas.wish(Wish::Selection);
        }
    }
}

fn kind_name(kind: DifferenceKind, first: &str, second: &str) -> String {
    match kind {
        DifferenceKind::Both => "both".into(),
        DifferenceKind::OnlyFirst => format!("only {first}"),
        DifferenceKind::OnlySecond => format!("only {second}"),
        DifferenceKind::OtherClass => "other class".into(),
    }
}

fn title(slot: usize, name: &str, side: Option<&ComparedSide>, score: f32) -> String {
    let Some(side) = side else { return format!("{}: {name}", letter(slot)) };
    let count = side.detections.iter().filter(|d| d.score >= score).count();
    match side.seconds {
        Some(seconds) => format!("{}: {name}, {count} boxes, {:.0} ms", letter(slot), seconds * 1e3),
        None => format!("{}: {name}, {count} boxes", letter(slot)),
    }
}

fn class_name(compared: &ComparedImage, class: u32) -> &str {
    compared.classes.get(class as usize).map_or("?", String::as_str)
}

fn instance(bbox: BBox, class: u32) -> BoxInstance {
    BoxInstance::new([bbox.x0, bbox.y0, bbox.x1, bbox.y1], 1.0, class)
}

/// One side's boxes by what the other side says of them, and the other's that are missing here, without their masks;
/// better ones on top.
fn marked<'a>(
    list: &[Difference],
    own: &'a [Detection],
    other: &'a [Detection],
    is_first: bool,
) -> Vec<(BoxInstance, Option<&'a Mask>)> {
    let mut marks: Vec<_> = list
        .iter()
        .enumerate()
        .filter_map(|(index, difference)| {
            let (here, there) = match is_first {
                true => (difference.first, difference.second),
                false => (difference.second, difference.first),
            };
            let (detection, outcome) = match (here.and_then(|i| own.get(i)), there.and_then(|i| other.get(i))) {
                (Some(detection), None) => (detection, Outcome::FalsePositive),
                (Some(detection), Some(_)) if difference.kind == DifferenceKind::OtherClass => {
                    (detection, Outcome::Duplicate)
                }
                (Some(detection), Some(_)) => (detection, Outcome::TruePositive),
                (None, Some(detection)) => (detection, Outcome::FalseNegative),
                (None, None) => return None,
            };
            let mark = instance(detection.bbox, detection.class).with_level(index as u32).with_outcome(outcome);
            Some((mark, detection.mask.as_ref().filter(|_| outcome != Outcome::FalseNegative)))
        })
        .collect();
    marks.reverse();
    marks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Object;
    use crate::imaging::Picture;

    #[test]
    fn each_side_sees_its_own_boxes_and_what_it_lacks() {
        let detection = |x: f32, class: u32| Detection {
            bbox: BBox::new(x, 0.0, x + 10.0, 10.0),
            class,
            score: 0.9,
            ..Detection::default()
        };
        let first = [detection(0.0, 0), detection(50.0, 0), detection(100.0, 0)];
        let second = [detection(0.0, 0), detection(100.0, 1)];
        let list = differences(&first, &second, &[], 0.5, 0.5);
        let outcomes = |marks: Vec<(BoxInstance, Option<&Mask>)>| {
            let mut flags: Vec<u32> = marks.iter().map(|(mark, _)| mark.flags).collect();
            flags.sort_unstable();
            flags
        };
        let (both, alone, lacking, flip) = (
            Outcome::TruePositive as u32,
            Outcome::FalsePositive as u32,
            Outcome::FalseNegative as u32,
            Outcome::Duplicate as u32,
        );
        assert_eq!(outcomes(marked(&list, &first, &second, true)), [both, alone, flip]);
        assert_eq!(outcomes(marked(&list, &second, &first, false)), [both, lacking, flip]);
    }

    #[test]
    fn boxes_and_masks_are_drawn_as_their_layers_are_on() {
        let mask = Mask::from_bitmap(8, 8, &[1; 64]).ok();
        let bbox = BBox::new(0.0, 0.0, 8.0, 8.0);
        let found = Detection { bbox, score: 0.9, mask: mask.clone(), ..Detection::default() };
        let object = Object { bbox, mask, ..Object::default() };
        let picture = Arc::new(Picture::new(8, 8, [0; 3]));
        let shown = Shown::undetected(0, "x".into(), picture, vec![object], vec!["a".into()]);
        let side = |detections: Vec<Detection>| Some(ComparedSide { detections, seconds: None });
        let sides = [side(vec![found]), side(Vec::new()), None, None];
        let compared = ComparedImage { index: 0, classes: vec!["a".into()], sides };
        let mut panel = ComparePanel { second: 1, ..ComparePanel::default() };
        let mut settings = Settings::default();
        panel.prepare(&shown, &compared, &State::default(), &settings);
        // Where each layer is filled or has a line.
        let widths = |panel: &ComparePanel, slot: usize, settings: &Settings| -> Vec<f32> {
            let scene = panel.scene(slot, &shown, settings).unwrap();
            scene.boxes.iter().map(|layer| layer.look.line_width).collect()
        };
        assert_eq!(widths(&panel, 0, &settings), [0.0, 0.0, 1.0, 2.0]);
        // What the other side alone finds is a box here, and no mask.
        assert_eq!(widths(&panel, 1, &settings), [0.0, 1.0, 2.0]);
        settings.toggle(Layer::Boxes);
        assert_eq!(widths(&panel, 0, &settings), [0.0, 0.0]);
        settings.toggle(Layer::Masks);
        assert!(widths(&panel, 0, &settings).is_empty());
        settings.toggle(Layer::Boxes);
        settings.toggle(Layer::Truth);
        assert_eq!(widths(&panel, 0, &settings), [2.0]);
    }
}
