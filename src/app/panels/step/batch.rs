//! The probed batch: its images, and what was matched and mined in one of them.

use super::anchor::{card, class_name, rule_name};
use super::formula::Names;
use super::{StepPanel, wide};
use crate::app::action::Action;
use crate::app::panels::name_picture;
use crate::app::state::State;
use crate::app::theme;
use crate::engine::Stepped;
use crate::trace::{Assignment, FeatureMap, Formula, LossPart, Sample, Trace};
use egui::{Color32, ColorImage, Grid, Pos2, Rect, RichText, Sense, Stroke, StrokeKind, Ui, vec2};
use std::cmp::Ordering;

/// Negatives that are drawn without being chosen.
const DRAWN: u32 = 12;
/// Rows of a table.
const ROWS: usize = 100;

impl StepPanel {
    pub(super) fn batch(&mut self, ui: &mut Ui, stepped: &Stepped, state: &State, actions: &mut Vec<Action>) {
        let traces = &stepped.report.traces;
        if traces.is_empty() {
            return;
        }
        self.image = self.image.min(traces.len() - 1);
        ui.label(RichText::new(format!("Batch of iteration {}", stepped.report.iteration)).strong());
        ui.horizontal_wrapped(|ui| {
            for (index, trace) in traces.iter().enumerate() {
                let name = stepped.report.images.get(index).map_or("", String::as_str);
                let text = if trace.losses.is_empty() {
                    format!("{}", index + 1)
                } else {
                    format!("{:.2}", image_loss(trace))
                };
                let words = format!("Image {}, share of the loss: {text}", index + 1);
                let button = ui.selectable_label(index == self.image, text);
                let button = button.on_hover_text(format!("{name}: share of the loss"));
                if button.accessible_name(words).clicked() {
                    actions.push(Action::StepImage(index));
                }
            }
        });
        let Some(trace) = traces.get(self.image) else { return };
        let name = stepped.report.images.get(self.image).map_or("", String::as_str);
        ui.weak(name);
        self.picture(ui, stepped, trace, state.stepped_version);
        self.tables(ui, stepped, trace, name, state);
    }

    fn picture(&mut self, ui: &mut Ui, stepped: &Stepped, trace: &Trace, version: u64) {
        let Some(input) = &trace.input else { return };
        let current = self.texture.as_ref().is_some_and(|(v, i, _)| (*v, *i) == (version, self.image));
        if !current {
            let pixels = input_rgb(input, stepped);
            let image = ColorImage::from_rgb([input.width, input.height], &pixels);
            let texture = ui.ctx().load_texture("training image", image, egui::TextureOptions::NEAREST);
            self.texture = Some((version, self.image, texture));
        }
        let Some((_, _, texture)) = &self.texture else { return };
        let width = ui.available_width().min(420.0);
        let scale = width / input.width.max(1) as f32;
        let (rect, response) = ui.allocate_exact_size(vec2(width, input.height as f32 * scale), Sense::click());
        name_picture(&response, "The training image with its objects, positive anchors and hardest negatives");
        let painter = ui.painter_at(rect);
        painter.image(texture.id(), rect, Rect::from_min_max(Pos2::ZERO, Pos2::new(1.0, 1.0)), Color32::WHITE);
        let to_screen = |b: crate::geometry::BBox| {
            let min = rect.min + vec2(b.x0, b.y0) * scale;
            Rect::from_min_max(min, rect.min + vec2(b.x1, b.y1) * scale)
        };
        for sample in &trace.sampling {
            let Some(&anchor) = trace.anchors.boxes.get(sample.anchor as usize) else { continue };
            let color = if sample.positive { theme::TRUTH } else { theme::ERROR };
            let chosen = self.anchor == Some(sample.anchor as usize);
            if sample.positive || sample.rank < DRAWN || chosen {
                let stroke =
                    Stroke::new(if chosen { 3.0 } else { 1.0 }, color.gamma_multiply(if chosen { 1.0 } else { 0.6 }));
                painter.rect_stroke(to_screen(anchor), 0.0, stroke, StrokeKind::Middle);
            }
        }
        for object in &trace.objects {
            painter.rect_stroke(to_screen(object.bbox), 0.0, Stroke::new(2.0, Color32::WHITE), StrokeKind::Middle);
        }
        if let Some(pointer) = response.interact_pointer_pos().filter(|_| response.clicked()) {
            let at = (pointer - rect.min) / scale;
            self.anchor = nearest_sample(trace, at.x, at.y);
        }
        ui.weak(
            "white: objects · green: positive anchors · orange: the 12 hardest negatives · click chooses an anchor",
        );
    }

    fn tables(&mut self, ui: &mut Ui, stepped: &Stepped, trace: &Trace, image: &str, state: &State) {
        let Some(assignment) = &trace.assignment else { return };
        ui.label(entering(trace, assignment));
        if let Some(anchor) = self.anchor {
            card(ui, stepped, trace, image, anchor, state);
        }
        ui.collapsing("Positives", |ui| wide(ui, "positives", |ui| self.positives(ui, stepped, trace, assignment)));
        ui.collapsing("Negatives by loss", |ui| {
            wide(ui, "negatives", |ui| self.negatives(ui, trace, assignment, image, state));
        });
        self.rois(ui, trace, &Names::new(state.config(), &stepped.classes));
    }

    fn positives(&mut self, ui: &mut Ui, stepped: &Stepped, trace: &Trace, assignment: &Assignment) {
        Grid::new("positives").num_columns(5).striped(true).show(ui, |ui| {
            header(
                ui,
                &[
                    ("anchor", "Its number; a click opens its card"),
                    ("object", "What it learns"),
                    ("rule", "Why it is positive"),
                    ("IoU", "|A ∩ B| / |A ∪ B| with the object that it overlaps most"),
                    ("loss", "What it adds to the loss, before the division by N"),
                ],
            );
            for sample in trace.sampling.iter().filter(|s| s.positive).take(ROWS) {
                let index = sample.anchor as usize;
                self.anchor_link(ui, index);
                let target = assignment.target.get(index).copied().unwrap_or(-1);
                let object = usize::try_from(target).ok().and_then(|t| trace.objects.get(t));
                ui.label(object.map_or("—", |o| class_name(stepped, o.class)));
                ui.label(assignment.rule.get(index).map_or("—", |r| rule_name(*r)));
                ui.label(format!("{:.2}", assignment.iou.get(index).copied().unwrap_or(0.0)));
                ui.label(format!("{:.3}", sample.loss));
                ui.end_row();
            }
        });
    }

    fn negatives(&mut self, ui: &mut Ui, trace: &Trace, assignment: &Assignment, image: &str, state: &State) {
        Grid::new("negatives").num_columns(6).striped(true).show(ui, |ui| {
            header(
                ui,
                &[
                    ("rank", "1 is the background anchor of the highest loss, of those that enter"),
                    ("anchor", "Its number; a click opens its card"),
                    ("IoU", "|A ∩ B| / |A ∪ B| with the object that it overlaps most"),
                    ("loss", "Its classification loss, which it is ranked by"),
                    ("weight", "Of the cross-entropy: 1, or the focal weight α_t (1 − p_t)^γ"),
                    ("came back", "Probed iterations that listed this patch here, of those with its image"),
                ],
            );
            for sample in trace.sampling.iter().filter(|s| !s.positive).take(ROWS) {
                let index = sample.anchor as usize;
                ui.label((sample.rank + 1).to_string());
                self.anchor_link(ui, index);
                ui.label(format!("{:.2}", assignment.iou.get(index).copied().unwrap_or(0.0)));
                ui.label(format!("{:.3}", sample.loss));
                ui.label(weight(trace, index).map_or("—".to_string(), |weight| format!("{weight:.4}")));
                ui.label(came_back(trace, image, sample, state));
                ui.end_row();
            }
        });
    }

    fn anchor_link(&mut self, ui: &mut Ui, anchor: usize) {
        if ui.selectable_label(self.anchor == Some(anchor), anchor.to_string()).clicked() {
            self.anchor = Some(anchor);
        }
    }
}

/// How many anchors there are, and which of them enter the loss once that is known.
fn entering(trace: &Trace, assignment: &Assignment) -> String {
    let (anchors, background) = (assignment.target.len(), assignment.background());
    let positives = trace.sampling.iter().filter(|s| s.positive).count();
    let listed = trace.sampling.len() - positives;
    if trace.sampling.is_empty() {
        format!("{anchors} anchors, {background} of them background")
    } else if trace.all_background {
        format!(
            "{anchors} anchors: {positives} positive, all {background} background enter, the {listed} hardest listed"
        )
    } else {
        format!("{anchors} anchors: {positives} positive, {listed} of {background} background enter")
    }
}

/// How often the patch of a negative was listed, of the probed iterations that its image was in.
fn came_back(trace: &Trace, image: &str, sample: &Sample, state: &State) -> String {
    let bbox = trace.anchors.boxes.get(sample.anchor as usize);
    match (bbox, &trace.input) {
        (Some(bbox), Some(input)) => {
            let (mined, seen) = state.stepping.hard.times(image, *bbox, input.width, input.height);
            format!("{mined} of {seen}")
        }
        _ => "—".to_string(),
    }
}

/// What a softmax or a focal loss leaves of an anchor's cross-entropy: the focal weight says how little an easy negative
/// counts.
fn weight(trace: &Trace, anchor: usize) -> Option<f32> {
    trace.losses.iter().filter(|part| by_anchor(trace, part)).find_map(|part| match part.terms.formula {
        Formula::Softmax if part.terms.answers(anchor).is_some() => Some(1.0),
        _ => part.terms.focal_share(anchor),
    })
}

/// Titles of columns, each with what it means.
pub(super) fn header(ui: &mut Ui, titles: &[(&str, &str)]) {
    for (title, help) in titles {
        ui.weak(*title).on_hover_text(*help);
    }
    ui.end_row();
}

/// Whether a part has a loss for each anchor. A second stage counts by RoI, which says nothing of anchors.
pub(super) fn by_anchor(trace: &Trace, part: &LossPart) -> bool {
    part.per_anchor.len() == trace.anchors.boxes.len()
}

/// What a sampled anchor adds to the batch's loss: its parts over their normalisers.
fn anchor_loss(trace: &Trace, anchor: usize) -> f32 {
    let parts = trace.losses.iter().filter(|part| by_anchor(trace, part));
    let own = |part: &LossPart| part.per_anchor.get(anchor).copied().unwrap_or(0.0);
    parts.map(|part| own(part) / part.normalizer.max(f32::MIN_POSITIVE)).sum()
}

/// What this image adds to the batch's loss: that of its anchors that enter, and of its RoIs where there are any.
fn image_loss(trace: &Trace) -> f32 {
    if trace.all_background {
        let share = |part: &LossPart| part.per_anchor.iter().sum::<f32>() / part.normalizer.max(f32::MIN_POSITIVE);
        return trace.losses.iter().map(share).sum();
    }
    let by_roi = trace.losses.iter().filter(|part| !by_anchor(trace, part));
    let of_rois: f32 = by_roi.map(|part| part.per_anchor.iter().sum::<f32>() / part.normalizer.max(1.0)).sum();
    of_rois + trace.sampling.iter().map(|sample| anchor_loss(trace, sample.anchor as usize)).sum::<f32>()
}

/// Orders losses from the largest down, those that are no number first, whatever its sign.
pub(super) fn downwards(a: f32, b: f32) -> Ordering {
    b.abs().total_cmp(&a.abs())
}

/// The image that adds most to the loss, the first of equals, and the sampled anchor that adds most to its share; none
/// while there are no losses.
pub(super) fn hardest(traces: &[Trace]) -> (usize, Option<usize>) {
    let losses = traces.iter().map(image_loss).enumerate();
    let Some((image, _)) = losses.min_by(|a, b| downwards(a.1, b.1)) else { return (0, None) };
    let trace = &traces[image];
    let sampled = trace.sampling.iter().map(|sample| sample.anchor as usize).filter(|_| !trace.losses.is_empty());
    (image, sampled.min_by(|a, b| downwards(anchor_loss(trace, *a), anchor_loss(trace, *b))))
}

/// The sampled anchor whose centre is nearest to a point of the input.
fn nearest_sample(trace: &Trace, x: f32, y: f32) -> Option<usize> {
    let distance = |index: usize| {
        trace.anchors.boxes.get(index).map_or(f32::INFINITY, |b| {
            let (cx, cy) = b.center();
            (cx - x).powi(2) + (cy - y).powi(2)
        })
    };
    let sampled = trace.sampling.iter().map(|s| s.anchor as usize);
    sampled.min_by(|a, b| distance(*a).total_cmp(&distance(*b)))
}

/// The network's input as 8-bit RGB again.
fn input_rgb(input: &FeatureMap, stepped: &Stepped) -> Vec<u8> {
    let plane = input.width * input.height;
    let mut pixels = vec![0; plane * 3];
    for channel in 0..3 {
        let shown = if stepped.bgr { 2 - channel } else { channel };
        let Some(values) = input.data.get(channel * plane..(channel + 1) * plane) else { continue };
        for (index, value) in values.iter().enumerate() {
            pixels[index * 3 + shown] =
                (value * stepped.std[channel] + stepped.mean[channel]).round().clamp(0.0, 255.0) as u8;
        }
    }
    pixels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::BBox;

    #[test]
    fn it_is_told_whether_some_background_enters_or_all() {
        let assignment = Assignment { target: vec![0, -1, -1, -2, -1], ..Assignment::default() };
        let sample = |anchor, positive| Sample { anchor, positive, rank: 0, loss: 0.0 };
        let mut trace = Trace::default();
        assert_eq!(entering(&trace, &assignment), "5 anchors, 3 of them background");
        trace.sampling = vec![sample(0, true), sample(1, false), sample(2, false)];
        assert_eq!(entering(&trace, &assignment), "5 anchors: 1 positive, 2 of 3 background enter");
        trace.all_background = true;
        let all = "5 anchors: 1 positive, all 3 background enter, the 2 hardest listed";
        assert_eq!(entering(&trace, &assignment), all);
    }

    #[test]
    fn the_image_and_the_anchor_that_move_the_loss_most_are_found() {
        let sample = |anchor, positive| Sample { anchor, positive, rank: 0, loss: 0.0 };
        let part = |per_anchor: Vec<f32>, normalizer| LossPart { per_anchor, normalizer, ..LossPart::default() };
        let trace = |losses: Vec<LossPart>| {
            let mut trace = Trace { sampling: vec![sample(0, true), sample(2, false)], losses, ..Trace::default() };
            trace.anchors.boxes = vec![BBox::default(); 3];
            trace
        };
        // Anchor 1 is not sampled; the last part is by RoI.
        let first = trace(vec![part(vec![1.0, 99.0, 2.0], 2.0), part(vec![2.0, 0.0, 0.0], 1.0)]);
        let second = trace(vec![part(vec![0.0, 0.0, 4.0], 2.0), part(vec![3.0, 3.0], 2.0)]);
        assert_eq!((image_loss(&first), image_loss(&second)), (3.5, 5.0));
        assert_eq!(hardest(&[first.clone(), second.clone()]), (1, Some(2)));
        assert_eq!(hardest(&[first.clone(), first]), (0, Some(0)));
        assert_eq!(hardest(&[trace(Vec::new()), trace(Vec::new())]), (0, None));
        assert_eq!(hardest(&[]), (0, None));
        // What is no number comes first, and a small normaliser counts.
        let focal = Trace { all_background: true, ..trace(vec![part(vec![1.0, 99.0, 2.0], 2.0)]) };
        assert_eq!(image_loss(&focal), 51.0);
        let torn = trace(vec![part(vec![1.0, 0.0, -f32::NAN], 2.0)]);
        assert_eq!(hardest(&[second, torn]), (1, Some(2)));
        assert_eq!(image_loss(&trace(vec![part(vec![1.0, 0.0, 0.0], 0.5)])), 2.0);
    }
}
