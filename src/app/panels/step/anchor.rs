//! Everything about one anchor of the probed batch, with the formulas of its losses filled in.

use super::batch::by_anchor;
use super::formula::Names;
use crate::app::state::State;
use crate::engine::Stepped;
use crate::geometry::BBox;
use crate::trace::{LossPart, Rule, Trace};
use egui::{RichText, Ui};

/// The card of anchor number `anchor` in one image.
pub fn card(ui: &mut Ui, stepped: &Stepped, trace: &Trace, image: &str, anchor: usize, state: &State) {
    let Some(&bbox) = trace.anchors.boxes.get(anchor) else { return };
    ui.group(|ui| {
        let level = trace.anchors.level_of(anchor).map_or("—".to_string(), |l| l.to_string());
        ui.label(RichText::new(format!("Anchor {anchor}, level {level}")).strong());
        ui.label(format!("{}, {:.0}×{:.0} px", corners(bbox), bbox.width(), bbox.height()));
        let Some(assignment) = &trace.assignment else { return };
        let Some(&target) = assignment.target.get(anchor) else { return };
        let object = usize::try_from(target).ok().and_then(|t| trace.objects.get(t));
        let learns = object.map_or("background", |o| class_name(stepped, o.class));
        let rule = assignment.rule.get(anchor).map_or("—", |r| rule_name(*r));
        let iou = assignment.iou.get(anchor).copied().unwrap_or(0.0);
        ui.label(format!("learns {learns}: {rule}, best IoU {iou:.3}"))
            .on_hover_text("IoU = |A ∩ B| / |A ∪ B| with the object that it overlaps most");
        let sample = trace.sampling.iter().find(|s| s.anchor as usize == anchor);
        let names = Names::new(state.config(), &stepped.classes);
        // A second stage counts its losses by RoI, which says nothing of anchors.
        let parts = trace.losses.iter().filter(|part| by_anchor(trace, part));
        let counts = sample.is_some() || (trace.all_background && target == -1);
        losses(ui, parts, anchor, counts, &names);
        if let Some(sample) = sample.filter(|s| !s.positive) {
            ui.label(format!("negative number {} by loss", sample.rank + 1));
            if let Some(input) = &trace.input {
                let (mined, seen) = state.stepping.hard.times(image, bbox, input.width, input.height);
                ui.label(format!("this patch of the image was listed in {mined} of {seen} probed iterations"))
                    .on_hover_text(
                        "Boxes of about this size around the same sixteenth of the input count as one patch",
                    );
            }
        }
        if let (Some(object), Some(coder)) = (object, stepped.coder) {
            let t = coder.encode(bbox, object.bbox);
            ui.label(format!("target deltas ({:.3}, {:.3}, {:.3}, {:.3})", t[0], t[1], t[2], t[3]))
                .on_hover_text("((x−xa)/wa/σx, (y−ya)/ha/σy, ln(w/wa)/σw, ln(h/ha)/σh)");
            ui.label(format!("object {}", corners(object.bbox)));
        }
    });
}

/// What some parts of the loss take from an anchor or RoI, and why it is that much.
pub fn losses<'a>(ui: &mut Ui, parts: impl Iterator<Item = &'a LossPart>, row: usize, counted: bool, names: &Names) {
    for part in parts {
        let Some(&own) = part.per_anchor.get(row) else { continue };
        let share = if counted { own / part.normalizer } else { 0.0 };
        let note = if counted { "" } else { " (not sampled: counts 0)" };
        ui.label(format!("{}: {own:.4} / N = {own:.4} / {:.0} = {share:.5}{note}", part.name, part.normalizer));
        if let Some(filled) = names.filled(part, row) {
            ui.label(filled).on_hover_text("p_t is the probability of what is right, d what is predicted − its target");
        }
        names.table(ui, part, row);
    }
}

pub fn corners(b: BBox) -> String {
    format!("[{:.1} {:.1} {:.1} {:.1}]", b.x0, b.y0, b.x1, b.y1)
}

pub fn rule_name(rule: Rule) -> &'static str {
    match rule {
        Rule::Threshold => "IoU above the threshold",
        Rule::BestForObject => "best anchor of its object",
        Rule::Background => "background",
        Rule::Ignored => "ignored",
        Rule::Filtered => "filtered",
        Rule::Center => "inside the centre region",
    }
}

pub fn class_name(stepped: &Stepped, class: u32) -> &str {
    stepped.classes.get(class as usize).map_or("?", String::as_str)
}
