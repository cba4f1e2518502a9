//! One image in linked views, one for each side, with what the sides disagree about drawn and listed.

use super::{ComparePanel, letter};
use crate::app::action::{Action, Layer};
use crate::app::outcome::{self, Coloring, FOUND, OUTCOMES, bytes, outcome_of, verdicts};
use crate::app::panels::canvas::Wish;
use crate::app::panels::{chip, coloring_choice, score_legend};
use crate::app::scene::{Caption, MASK, Marks, TRUTH_MASK, class_style};
use crate::app::settings::Settings;
use crate::app::state::State;
use crate::app::theme;
use crate::engine::Shown;
use crate::engine::compare::{ComparedImage, ComparedSide, SLOTS};
use crate::eval::Verdict;
use crate::eval::difference::{Difference, DifferenceKind, differences};
use crate::geometry::{BBox, Detection, Mask};
use crate::render::{
    BoxColor, BoxFilter, BoxInstance, BoxLayer, BoxLook, BoxStyle, ImageLook, LineStyle, Outcome, Scene,
};
use egui::{Color32, Grid, Rect, RichText, ScrollArea, Stroke, Ui, UiBuilder, pos2, vec2};
use std::sync::Arc;

/// Buffers of the view of slot 0; those of the others follow.
const VIEW_ID: u64 = 0xC0;
/// IoU from which two boxes are one.
const SAME_IOU: f32 = 0.5;
/// Share of the panel that the views take.
const VIEWS_SHARE: f32 = 0.6;
/// How sides agree about a box, as outcomes: the mark beside the colour, and what it says.
const AGREEMENT: [(Outcome, &str, &str); 4] = [
    (Outcome::TruePositive, "=", "both"),
    (Outcome::FalsePositive, "+", "only here"),
    (Outcome::Duplicate, "~", "other class (dotted)"),
    (Outcome::FalseNegative, "-", "only on the other side (dashed)"),
];

/// Boxes of all sides and their differences, remade when what they depend on changes.
#[derive(Debug)]
pub(super) struct Sides {
    key: (u64, u64, u32, usize, usize, bool),
    style: Arc<BoxStyle>,
    truth: Marks,
    /// By slot; their outcomes are verdicts where they are `judged`, else how the side agrees with the other one.
    marks: [Marks; SLOTS],
    judged: bool,
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
            let offered = [None].into_iter().chain(Coloring::ALL.map(Some)).collect::<Vec<_>>();
            if let Some(made) = coloring_choice(ui, self.coloring(settings), &offered) {
                self.by_setting = made.is_some();
                actions.extend(made.map(Action::Color));
            }
            self.prepare(&shown, &compared, state, settings);
            self.legend(ui, settings);
        });
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

    /// What the colours tell; nothing for how the sides agree.
    fn coloring(&self, settings: &Settings) -> Option<Coloring> {
        self.by_setting.then_some(settings.coloring)
    }

    /// The same for the shader. Where nothing is judged, errors cannot be told.
    fn color(&self, settings: &Settings) -> BoxColor {
        match self.coloring(settings) {
            None => BoxColor::Outcome,
            Some(Coloring::Instance) => BoxColor::Instance,
            Some(Coloring::Score) => BoxColor::Score,
            Some(Coloring::Error) if self.sides.as_ref().is_some_and(|sides| sides.judged) => BoxColor::Outcome,
            Some(Coloring::Class | Coloring::Error) => BoxColor::Class,
        }
    }

    /// What colours and marks tell.
    fn legend(&self, ui: &mut Ui, settings: &Settings) {
        match (self.coloring(settings), self.color(settings)) {
            (None, _) => {
                for (outcome, mark, name) in AGREEMENT {
                    chip(ui, &format!("{mark} {name}"), outcome::color(outcome), "Against the other side");
                }
                ui.weak(format!("one box from IoU {SAME_IOU} on"));
            }
            (Some(Coloring::Score), _) => score_legend(ui),
            (Some(Coloring::Error), BoxColor::Outcome) => {
                for outcome in OUTCOMES {
                    chip(ui, outcome::letter(outcome), outcome::color(outcome), outcome::name(outcome));
                }
                ui.weak(format!("at IoU {FOUND} and score {:.2}", settings.score));
            }
            (Some(Coloring::Error), _) => _ = ui.weak("Nothing is judged: that needs annotated objects"),
            (Some(Coloring::Class | Coloring::Instance), _) => {}
        }
    }

    pub(super) fn prepare(&mut self, shown: &Shown, compared: &ComparedImage, state: &State, settings: &Settings) {
        let judged = self.coloring(settings) == Some(Coloring::Error) && !shown.object_classes.is_empty();
        let score = settings.score;
        let key = (state.compared_version, state.shown_version, score.to_bits(), self.first, self.second, judged);
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
        let against = |first: usize, second: usize| differences(of(first), of(second), &shown.objects, score, SAME_IOU);
        let list = against(self.first, self.second);
        let size = (shown.picture.width, shown.picture.height);
        let marks = std::array::from_fn(|slot| {
            let marks = if judged {
                self::judged(shown, of(slot), compared.classes.len(), score)
            } else if slot == self.first {
                marked(&list, of(self.first), of(self.second), true)
            } else {
                marked(&against(self.first, slot), of(slot), of(self.first), false)
            };
            Marks::new(marks.into_iter(), size)
        });
        let truth = shown.objects.iter().enumerate().map(|(index, object)| {
            let mark = instance(object.bbox, 1.0, object.class).with_level(index as u32);
            (mark.with_style(LineStyle::Dotted), object.mask.as_ref())
        });
        let truth = Marks::new(truth, size);
        self.sides = Some(Sides { key, style: Arc::new(class_style()), truth, marks, judged, list });
    }

    /// The picture with what one slot finds in it: boxes, masks and ground truth as these layers are on.
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
        let of_own = BoxLook { color: self.color(settings), ..BoxLook::default() };
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
        let mut frame = self.canvas.frame(ui, shown, selection);
        let what = format!("Picture {} with the boxes of side {}", shown.name, letter(slot));
        frame.response = frame.response.accessible_name(what);
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
        frame.write(&painter, &self.captions(slot, compared, settings));
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

    /// Text at the boxes of one side, better ones first: class and score where labels are on, and a mark wherever colours
    /// tell outcomes, since a colour alone must not.
    pub(super) fn captions(&self, slot: usize, compared: &ComparedImage, settings: &Settings) -> Vec<Caption> {
        let (written, color) = (settings.shows(Layer::Labels), self.color(settings));
        let marked = color == BoxColor::Outcome;
        let own = self.sides.as_ref().and_then(|sides| Some((sides, sides.marks.get(slot)?)));
        let Some((sides, own)) = own.filter(|_| written || marked) else { return Vec::new() };
        let caption = |mark: &BoxInstance| {
            let (outcome, name) = (mark.outcome(), class_name(compared, mark.class));
            let short = match (marked, sides.judged) {
                (false, _) => "",
                (true, true) => outcome::letter(outcome),
                (true, false) => AGREEMENT.iter().find(|(of, ..)| *of == outcome).map_or("", |(_, mark, _)| *mark),
            };
            let missed = sides.judged && outcome == Outcome::FalseNegative;
            let words = if missed { name.to_string() } else { format!("{name} {:.2}", mark.score) };
            let text = if written { format!("{short} {words}").trim_start().to_string() } else { short.to_string() };
            let [x0, y0, x1, y1] = mark.bbox;
            Caption { bbox: BBox::new(x0, y0, x1, y1), text, short, color: bytes(sides.style.color(color, mark)) }
        };
        // What the other side alone finds is named where its mark says so.
        let own = own.boxes.iter().rev().filter(|mark| marked || mark.outcome() != Outcome::FalseNegative);
        own.map(caption).collect()
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

fn instance(bbox: BBox, score: f32, class: u32) -> BoxInstance {
    BoxInstance::new([bbox.x0, bbox.y0, bbox.x1, bbox.y1], score, class)
}

/// One side's boxes of at least `score` by the verdicts on them, and the objects that it misses; better ones on top. What
/// is of a class that the data set does not know cannot be wrong.
fn judged<'a>(shown: &Shown, own: &'a [Detection], classes: usize, score: f32) -> Vec<(BoxInstance, Option<&'a Mask>)> {
    let judged = verdicts(&shown.objects, own, classes).unwrap_or_default();
    let kept = || own.iter().zip(&judged.detections).enumerate().filter(move |(_, (d, _))| d.score >= score);
    let mut found = vec![false; shown.objects.len()];
    for (_, (_, verdict)) in kept() {
        let object = verdict.truth.filter(|_| verdict.verdict == Verdict::TruePositive);
        if let Some(found) = object.and_then(|object| found.get_mut(object)) {
            *found = true;
        }
    }
    let known = |class: u32| (class as usize) < shown.object_classes.len();
    let boxes = kept().map(|(index, (d, verdict))| {
        let outcome = if known(d.class) { outcome_of(verdict) } else { Outcome::Ignored };
        let mark = instance(d.bbox, d.score, d.class).with_level(index as u32).with_outcome(outcome);
        (mark, d.mask.as_ref())
    });
    let asked = shown.objects.iter().zip(found).enumerate().filter(|(_, (o, _))| !o.crowd && !o.difficult);
    let missed = asked.filter(|(_, (_, found))| !found).map(|(index, (object, _))| {
        let level = (own.len() + index) as u32;
        (instance(object.bbox, 1.0, object.class).with_level(level).with_outcome(Outcome::FalseNegative), None)
    });
    let mut marks: Vec<_> = boxes.chain(missed).collect();
    marks.reverse();
    marks
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
            let mark = instance(detection.bbox, detection.score, detection.class);
            let mark = mark.with_level(index as u32).with_outcome(outcome);
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
    fn colours_follow_the_setting_and_none_that_tells_outcomes_stands_without_a_mark() {
        let at = |x: f32| BBox::new(x, 0.0, x + 10.0, 10.0);
        let found = |x: f32, class: u32, score: f32| Detection { bbox: at(x), class, score, ..Detection::default() };
        let object = Object { bbox: at(0.0), ..Object::default() };
        let picture = Arc::new(Picture::new(64, 16, [0; 3]));
        let shown = Shown::undetected(0, "x".into(), picture, vec![object], vec!["a".into()]);
        let side = |detections: Vec<Detection>| Some(ComparedSide { detections, seconds: None });
        let first = vec![found(0.0, 0, 0.9), found(30.0, 0, 0.6), found(50.0, 1, 0.5)];
        let sides = [side(first), side(vec![found(0.0, 1, 0.8)]), None, None];
        let compared = ComparedImage { index: 0, classes: vec!["a".into(), "b".into()], sides };
        let mut panel = ComparePanel { second: 1, ..ComparePanel::default() };
        let mut settings = Settings::default();
        let look = |panel: &mut ComparePanel, settings: &Settings| {
            panel.prepare(&shown, &compared, &State::default(), settings);
            let color = panel.scene(0, &shown, settings).unwrap().boxes.last().unwrap().look.color;
            let texts = |slot: usize| -> Vec<String> {
                panel.captions(slot, &compared, settings).into_iter().map(|caption| caption.text).collect()
            };
            (color, texts(0), texts(1))
        };
        let (color, own, other) = look(&mut panel, &settings);
        assert_eq!(color, BoxColor::Outcome);
        assert_eq!(own, ["+ a 0.60", "+ b 0.50", "~ a 0.90"]);
        assert_eq!(other, ["- a 0.60", "- b 0.50", "~ b 0.80"]);
        panel.by_setting = true;
        for (coloring, expected) in [
            (Coloring::Class, BoxColor::Class),
            (Coloring::Instance, BoxColor::Instance),
            (Coloring::Score, BoxColor::Score),
        ] {
            settings.coloring = coloring;
            let (color, own, other) = look(&mut panel, &settings);
            assert_eq!((color, own.len(), other), (expected, 3, vec!["b 0.80".to_string()]));
        }
        settings.coloring = Coloring::Error;
        let (color, own, other) = look(&mut panel, &settings);
        assert_eq!(color, BoxColor::Outcome);
        // The data set knows no class b.
        assert_eq!(own, ["TP a 0.90", "FP a 0.60", "I b 0.50"]);
        assert_eq!(other, ["I b 0.80", "FN a"]);
        settings.toggle(Layer::Labels);
        assert_eq!(look(&mut panel, &settings).1, ["TP", "FP", "I"]);
        settings.coloring = Coloring::Class;
        assert!(look(&mut panel, &settings).1.is_empty());
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
