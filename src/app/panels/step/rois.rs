//! RoIs of a second stage: a table by loss, and everything about a chosen one.

use super::StepPanel;
use super::anchor::{corners, losses};
use super::batch::{by_anchor, downwards, header};
use super::formula::Names;
use super::wide;
use crate::trace::{LossPart, Trace};
use egui::{Grid, RichText, Ui};

/// Rows of the table.
const ROWS: usize = 100;

/// The heads of a second stage, by the number of theirs from 0: parts whose losses count by RoI.
fn stages(trace: &Trace) -> Vec<(usize, Vec<&LossPart>)> {
    let mut stages: Vec<(usize, Vec<&LossPart>)> = Vec::new();
    for part in trace.losses.iter().filter(|part| !part.per_anchor.is_empty() && !by_anchor(trace, part)) {
        let stage = stage_of(&part.name);
        match stages.iter_mut().find(|(known, _)| *known == stage) {
            Some((_, parts)) => parts.push(part),
            None => stages.push((stage, vec![part])),
        }
    }
    stages
}

/// The stage of a cascade that a part's name begins with, as in `s1.loss_classifier`; the only one is 0.
fn stage_of(part: &str) -> usize {
    let digits = part.strip_prefix('s').and_then(|rest| rest.split_once('.')).map(|(digits, _)| digits);
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// What the parts take from a RoI, over their normalisers.
fn roi_loss(parts: &[&LossPart], roi: usize) -> f32 {
    parts.iter().map(|part| part.per_anchor.get(roi).copied().unwrap_or(0.0) / part.normalizer.max(1.0)).sum()
}

/// The class that a RoI learns.
fn learns(parts: &[&LossPart], roi: usize, names: &Names) -> String {
    let classified = parts.iter().find_map(|part| Some((part, part.terms.wanted(roi)??)));
    classified.map_or("—".to_string(), |(part, column)| names.of(part, column))
}

impl StepPanel {
    /// The stages' tables, each with the card of the RoI that was chosen in it.
    pub(super) fn rois(&mut self, ui: &mut Ui, trace: &Trace, names: &Names) {
        for (stage, parts) in stages(trace) {
            ui.collapsing(format!("RoIs of stage {} by loss", stage + 1), |ui| {
                if let Some((_, roi)) = self.roi.filter(|(chosen, _)| *chosen == stage) {
                    card(ui, trace, (stage, parts.as_slice()), roi, names);
                }
                let stage = (stage, parts.as_slice());
                wide(ui, &format!("RoIs of stage {}", stage.0), |ui| self.roi_table(ui, trace, stage, names));
            });
        }
    }

    fn roi_table(&mut self, ui: &mut Ui, trace: &Trace, (stage, parts): (usize, &[&LossPart]), names: &Names) {
        let count = parts.iter().map(|part| part.per_anchor.len()).max().unwrap_or(0);
        let mut order: Vec<(usize, f32)> = (0..count).map(|roi| (roi, roi_loss(parts, roi))).collect();
        order.sort_by(|a, b| downwards(a.1, b.1));
        Grid::new(("RoIs", stage)).num_columns(4).striped(true).show(ui, |ui| {
            header(
                ui,
                &[
                    ("RoI", "Its number among those sampled; a click opens its card"),
                    ("learns", "The class that it should be given"),
                    ("IoU", "With the object that it overlaps most, before and after the head moves it"),
                    ("loss", "What it adds to the loss: all parts of this stage over N"),
                ],
            );
            for (roi, loss) in order.into_iter().take(ROWS) {
                let button = ui.selectable_label(self.roi == Some((stage, roi)), roi.to_string());
                if button.accessible_name(format!("RoI {roi} of stage {}", stage + 1)).clicked() {
                    self.roi = Some((stage, roi));
                }
                ui.label(learns(parts, roi, names));
                ui.label(overlaps(trace, stage, roi).unwrap_or("—".to_string()));
                ui.label(format!("{loss:.5}"));
                ui.end_row();
            }
        });
    }
}

/// IoU before and after the head; none without objects.
fn overlaps(trace: &Trace, stage: usize, roi: usize) -> Option<String> {
    let name = format!("stage {}", stage + 1);
    let head = trace.localisation.iter().find(|head| head.stage == name)?;
    Some(format!("{:.2} → {:.2}", head.input_iou.get(roi)?, head.output_iou.get(roi)?))
}

/// Everything about one RoI.
fn card(ui: &mut Ui, trace: &Trace, (stage, parts): (usize, &[&LossPart]), roi: usize, names: &Names) {
    ui.group(|ui| {
        ui.label(RichText::new(format!("RoI {roi} at stage {}", stage + 1)).strong());
        ui.label(format!("learns {}", learns(parts, roi, names)));
        if let Some(overlaps) = overlaps(trace, stage, roi) {
            ui.label(format!("IoU {overlaps} by this head"));
        }
        let name = format!("stage {}", stage + 1);
        if let Some(index) = trace.proposals.iter().position(|proposals| proposals.name == name) {
            let own = &trace.proposals[index];
            let before = index.checked_sub(1).and_then(|before| trace.proposals.get(before));
            let parent = own.parent.get(roi).and_then(|&parent| before?.boxes.get(parent as usize));
            ui.label(match (parent, before) {
                (Some(parent), Some(before)) => format!("box of {}: {}", before.name, corners(*parent)),
                _ => "an annotated object itself".to_string(),
            });
            if let Some(moved) = own.boxes.get(roi) {
                ui.label(format!("moved to {}", corners(*moved)));
            }
        }
        losses(ui, parts.iter().copied(), roi, true, names);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::BBox;
    use crate::trace::Terms;

    #[test]
    fn parts_are_grouped_by_stage_and_a_roi_tells_its_class_and_its_loss() {
        let part = |name: &str, per_anchor: Vec<f32>| LossPart {
            name: name.into(),
            normalizer: 2.0,
            per_anchor,
            terms: Terms { stride: 2, predicted: vec![0.0; 4], target: vec![1.0, 0.0], ..Terms::default() },
            ..LossPart::default()
        };
        let mut trace = Trace {
            losses: vec![
                part("loss_objectness", vec![1.0; 3]),
                part("s0.loss_classifier", vec![3.0, 1.0]),
                part("s1.loss_classifier", vec![5.0]),
                part("s0.loss_box_reg", vec![1.0, 0.0]),
                part("s2.loss_box_reg", Vec::new()),
            ],
            ..Trace::default()
        };
        trace.anchors.boxes = vec![BBox::default(); 3];
        let found = stages(&trace);
        assert_eq!(found.iter().map(|(stage, parts)| (*stage, parts.len())).collect::<Vec<_>>(), [(0, 2), (1, 1)]);
        assert_eq!((roi_loss(&found[0].1, 0), roi_loss(&found[0].1, 1)), (2.0, 0.5));
        let names = Names::new(None, &[]);
        assert_eq!(learns(&found[0].1, 0, &names), "object");
        assert_eq!((stage_of("loss_mask"), stage_of("s2.loss_mask"), stage_of("score.x")), (0, 2, 0));
        assert_eq!(overlaps(&trace, 0, 0), None);
    }
}
