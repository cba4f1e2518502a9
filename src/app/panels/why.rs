//! The answers to “Why this box?” and “Why was this missed?”, as they stand in menus and panels.

use crate::app::outcome::FOUND;
use crate::app::scene::traced_object;
use crate::app::theme;
use crate::engine::Shown;
use crate::geometry::BBox;
use crate::trace::Trace;
use crate::trace::missed::{Cause, Missed, why_missed};
use egui::{Button, Grid, RichText, ScrollArea, TextWrapMode, Ui};
use std::time::{Duration, Instant};

/// Removed candidates that are listed one by one.
const LISTED: usize = 8;
/// A frame looks for causes of misses so long.
const BUDGET: Duration = Duration::from_millis(4);

/// Corners and size, for people.
pub fn corners(b: BBox) -> String {
    format!("[{:.1} {:.1} {:.1} {:.1}]  {:.0}×{:.0} px", b.x0, b.y0, b.x1, b.y1, b.width(), b.height())
}

/// The name of a class, or "?" for one that has none.
pub fn class_name(classes: &[String], class: u32) -> &str {
    classes.get(class as usize).map_or("?", String::as_str)
}

/// What is known of one detection; `why` adds where it came from and whom it removed.
pub fn box_card(ui: &mut Ui, shown: &Shown, index: usize, why: bool) {
    let Some(d) = shown.detections.get(index) else { return };
    let name = class_name(&shown.detection_classes, d.class);
    ui.label(RichText::new(format!("{name}  {:.3}", d.score)).strong().color(theme::class_text(ui, d.class)));
    ui.label(corners(d.bbox));
    let Some(trace) = &shown.trace else { return };
    let Some(from) = d.anchor else { return };
    let (rows, anchor) = trace.way(from);
    let level = anchor.and_then(|a| trace.anchors.level_of(a as usize));
    let map = level.and_then(|l| trace.anchors.levels.get(l));
    if let (Some(anchor), Some(level), Some(map)) = (anchor, level, map) {
        ui.label(format!("anchor {anchor}, level {level} ({}×{}, stride {:.0})", map.columns, map.rows, map.stride));
    }
    if !why {
        return;
    }
    ui.separator();
    ui.label(RichText::new("Why this box?").strong());
    if let Some(bbox) = anchor.and_then(|a| trace.anchors.boxes.get(a as usize)) {
        ui.label(format!("It began as the anchor {} of the network's input.", corners(*bbox)));
    }
    for (stage, &row) in trace.stages().iter().zip(&rows) {
        let row = row as usize;
        let Some(bbox) = stage.boxes.get(row) else { continue };
        let score = stage.scores.get(row).map(|s| format!(", score {s:.3}")).unwrap_or_default();
        let iou = stage.iou.get(row).map(|v| format!(", IoU {v:.2} with its object")).unwrap_or_default();
        ui.label(format!("{} made it {}{score}{iou}.", stage.name, corners(*bbox)));
    }
    if let Some(suppression) = &trace.suppression {
        let own = suppression.candidates.iter().position(|c| c.anchor == Some(from) && c.class == d.class);
        let removed: Vec<_> = suppression.removals.iter().filter(|r| own == Some(r.by as usize)).collect();
        if let Some(own) = own {
            ui.label(format!(
                "By score it is number {} of the {} candidates above {:.3}.",
                own + 1,
                suppression.candidates.len(),
                suppression.score_threshold
            ));
        }
        ui.label(format!(
            "It removed {} of them with IoU above {:.2} ({}){}",
            removed.len(),
            suppression.iou_threshold,
            suppression.method,
            if removed.is_empty() { "." } else { ":" }
        ));
        for removal in removed.iter().take(LISTED) {
            if let Some(candidate) = suppression.candidates.get(removal.removed as usize) {
                let name = class_name(&shown.detection_classes, candidate.class);
                ui.label(format!("  {name}, score {:.3}, at IoU {:.2}", candidate.score, removal.iou));
            }
        }
        if removed.len() > LISTED {
            ui.weak(format!("  and {} more", removed.len() - LISTED));
        }
    }
}

/// The answer for object `object` of the picture; `None` where the pass kept no record of it.
pub fn answer(shown: &Shown, object: usize, score: f32) -> Option<Missed> {
    let trace = shown.trace.as_deref()?;
    let class = shown.objects.get(object)?.class;
    why_missed(trace, traced_object(shown, object)?, class, score, FOUND)
}

/// Why object `object` of the picture is not found, link by link.
pub fn missed_card(ui: &mut Ui, shown: &Shown, object: usize, score: f32) {
    let Some(truth) = shown.objects.get(object) else { return };
    let name = class_name(&shown.object_classes, truth.class);
    ui.label(RichText::new(format!("{name}, object {object}")).strong().color(theme::class_text(ui, truth.class)));
    ui.label(corners(truth.bbox));
    ui.separator();
    ui.label(RichText::new("Why was this missed?").strong());
    let (Some(trace), Some(missed)) = (shown.trace.as_deref(), answer(shown, object, score)) else {
        ui.label("The pass kept no record of this object: the model has other classes, or has not run yet.");
        return;
    };
    ui.label(RichText::new(missed.cause.name()).color(ui.visuals().warn_fg_color).strong());
    ui.label(explain(&missed.cause, trace, &shown.detection_classes));
    Grid::new(("links", object)).num_columns(3).striped(true).show(ui, |ui| {
        for link in &missed.links {
            let (mark, color) = if link.holds { ("yes", theme::TRUTH) } else { ("no", theme::ERROR) };
            ui.label(RichText::new(mark).color(theme::readable(ui, color)));
            ui.label(&link.name);
            ui.label(link.value.map_or("—".to_string(), |value| format!("{value:.2}")));
            ui.end_row();
        }
    });
}

/// Why the missed objects of one picture are missed, as far as they were looked into: each answer goes through every
/// anchor, and there may be thousands of objects.
#[derive(Debug, Default)]
pub struct Causes {
    /// Number of the picture's change, and the bits of the score threshold.
    of: (u64, u32),
    /// Of the first missed objects.
    names: Vec<&'static str>,
}

impl Causes {
    /// Looks into more of the objects, for so long as a frame may take.
    fn look(&mut self, shown: &Shown, version: u64, missed: &[usize], score: f32) {
        let of = (version, score.to_bits());
        if self.of != of {
            *self = Self { of, names: Vec::new() };
        }
        let begun = Instant::now();
        while let Some(&object) = missed.get(self.names.len()) {
            self.names.push(answer(shown, object, score).map_or("not recorded", |m| m.cause.name()));
            if begun.elapsed() > BUDGET {
                break;
            }
        }
    }
}

/// Every missed object of the picture with its cause. Returns the one that was clicked. `version` is the picture's
/// number of change.
pub fn missed_list(
    ui: &mut Ui,
    shown: &Shown,
    version: u64,
    missed: &[usize],
    score: f32,
    causes: &mut Causes,
) -> Option<usize> {
    if shown.trace.is_none() {
        ui.label("The pass kept no record.");
        return None;
    }
    ui.label(RichText::new("Why were these missed?").strong());
    causes.look(shown, version, missed, score);
    for name in Cause::NAMES {
        let count = causes.names.iter().filter(|cause| **cause == name).count();
        if count > 0 {
            ui.weak(format!("{count} × {name}"));
        }
    }
    if causes.names.len() < missed.len() {
        ui.weak(format!("{} of {} looked into", causes.names.len(), missed.len()));
        ui.ctx().request_repaint();
    }
    ui.separator();
    let mut clicked = None;
    let height = ui.spacing().interact_size.y;
    ScrollArea::vertical().max_height(320.0).show_rows(ui, height, missed.len(), |ui, rows| {
        for row in rows {
            let Some(&object) = missed.get(row) else { continue };
            let name = shown.objects.get(object).map_or("?", |o| class_name(&shown.object_classes, o.class));
            let cause = causes.names.get(row).copied().unwrap_or("…");
            let button = Button::new(format!("{name}, object {object}: {cause}")).wrap_mode(TextWrapMode::Extend);
            let button = ui.add(button);
            let chosen = button.clicked();
            button.on_hover_ui(|ui| missed_card(ui, shown, object, score));
            if chosen {
                clicked = Some(object);
            }
        }
    });
    clicked
}

/// A cause in a sentence, with what can be done about it.
fn explain(cause: &Cause, trace: &Trace, classes: &[String]) -> String {
    match *cause {
        Cause::Found { detection, score, iou } => {
            format!("It is found by detection {detection} with score {score:.3} at IoU {iou:.2}.")
        }
        Cause::NoAnchor { iou } => format!(
            "The best anchor overlaps it with IoU {iou:.2} only, so none learnt it but by force: the anchors' sizes or \
             ratios do not suit it."
        ),
        Cause::NotProposed { stage, iou } => {
            let name = trace.stages().get(stage).map_or("the first stage", |s| s.name.as_str());
            format!(
                "After {name} no box lies on it, the best one at IoU {iou:.2}: its score was too low for the top k, it \
                 was suppressed, or it was moved away."
            )
        }
        Cause::Filtered { objectness } => {
            let sure = objectness.map(|p| format!(" (objectness {p:.4} at most)")).unwrap_or_default();
            format!(
                "The first stage was sure that all its anchors are background{sure}, and the second never saw them."
            )
        }
        Cause::LowScore { limit, score } => {
            let best = score.map(|s| format!(", the best {s:.4}")).unwrap_or_default();
            format!("No box on it got a score above the model's own threshold of {limit:.3} for any class{best}.")
        }
        Cause::WrongClass { class, score, iou } => {
            let name = class_name(classes, class);
            format!("It was taken for {name}, with score {score:.3} at IoU {iou:.2}.")
        }
        Cause::PoorBox { iou, score } => {
            format!("Its class was right with score {score:.3}, but the box lies at IoU {iou:.2}, below {FOUND}.")
        }
        Cause::Suppressed { candidate, by, iou, score } => {
            let stronger = trace.suppression.as_ref().and_then(|s| s.candidates.get(by as usize));
            let stronger = stronger.map(|c| format!(" (score {:.3}, {})", c.score, corners(c.bbox)));
            format!(
                "A good box was there, candidate {candidate} with score {score:.3}; candidate {by}{} removed it at IoU \
                 {iou:.2}.",
                stronger.unwrap_or_default()
            )
        }
        Cause::Shared { detection, iou } => {
            format!("The only good box, detection {detection} at IoU {iou:.2}, finds another object.")
        }
        Cause::OverLimit { candidate, score, limit } => format!(
            "A good box was there, candidate {candidate} with score {score:.3}, but the model gives {limit} detections \
             at most."
        ),
        Cause::BelowThreshold { score, threshold } => {
            format!("A good box is there with score {score:.3}, below the threshold of {threshold:.2}.")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Object;
    use crate::imaging::Picture;
    use std::sync::Arc;

    #[test]
    fn causes_are_looked_for_once_a_picture_and_a_score() {
        let object = Object { bbox: BBox::new(0.0, 0.0, 4.0, 4.0), ..Object::default() };
        let picture = Arc::new(Picture::new(8, 8, [0; 3]));
        let plain = Shown::undetected(0, "x".into(), picture, vec![object.clone()], vec!["a".into()]);
        let trace = Trace { objects: vec![object], ..Trace::default() };
        let shown = Shown { trace: Some(Arc::new(trace)), ..plain };
        let mut causes = Causes::default();
        causes.look(&shown, 1, &[0], 0.5);
        assert_eq!(causes.names, ["low score"]);
        causes.names = vec!["kept"];
        causes.look(&shown, 1, &[0], 0.5);
        assert_eq!(causes.names, ["kept"]);
        for (version, score) in [(1, 0.6), (2, 0.6)] {
            causes.names = vec!["kept"];
            causes.look(&shown, version, &[0], score);
            assert_eq!(causes.names, ["low score"]);
        }
    }

    #[test]
    fn every_cause_has_a_sentence_with_its_numbers() {
        let trace = Trace::default();
        let classes = vec!["cat".to_string(), "dog".to_string()];
        let cases = [
            (Cause::NoAnchor { iou: 0.25 }, "0.25"),
            (Cause::NotProposed { stage: 0, iou: 0.3 }, "0.30"),
            (Cause::Filtered { objectness: Some(0.004) }, "0.0040"),
            (Cause::LowScore { limit: 0.01, score: None }, "0.010"),
            (Cause::WrongClass { class: 1, score: 0.9, iou: 0.8 }, "dog"),
            (Cause::PoorBox { iou: 0.4, score: 0.9 }, "0.40"),
            (Cause::Suppressed { candidate: 4, by: 2, iou: 0.6, score: 0.7 }, "candidate 2"),
            (Cause::Shared { detection: 3, iou: 0.7 }, "detection 3"),
            (Cause::OverLimit { candidate: 4, score: 0.7, limit: 200 }, "200"),
            (Cause::BelowThreshold { score: 0.3, threshold: 0.4 }, "0.40"),
        ];
        for (cause, expected) in cases {
            let text = explain(&cause, &trace, &classes);
            assert!(text.contains(expected), "{text}");
        }
    }
}
