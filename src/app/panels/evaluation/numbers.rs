//! The numbers: COCO's twelve, VOC's two, and those of each class by size.

use crate::app::state::percent;
use crate::app::theme;
use crate::engine::event::EvalSummary;
use egui::{Grid, RichText, ScrollArea, Ui};

/// COCO's twelve numbers in their order.
const NAMES: [&str; 12] = [
    "AP  IoU .50:.95",
    "AP  IoU .50",
    "AP  IoU .75",
    "AP  small (< 32²)",
    "AP  medium",
    "AP  large (> 96²)",
    "AR  1 a class",
    "AR  10 a class",
    "AR  100 a class",
    "AR  small",
    "AR  medium",
    "AR  large",
];

/// Of masks, where `masks` asks for them and there are any; VOC knows boxes only.
pub(super) fn ui(ui: &mut Ui, evaluation: &EvalSummary, masks: bool) {
    let result = evaluation.result_by(masks);
    let by_boxes = !masks || evaluation.masks.is_none();
    ScrollArea::both().auto_shrink(false).show(ui, |ui| {
        ui.horizontal_top(|ui| {
            Grid::new("twelve numbers").num_columns(2).striped(true).show(ui, |ui| {
                for (name, value) in NAMES.iter().zip(result.stats) {
                    ui.label(*name);
                    ui.label(RichText::new(percent(value)).strong());
                    ui.end_row();
                }
                let voc = ["VOC07 mAP, 11 points", "VOC12 mAP, area"].iter().zip(&evaluation.details.voc);
                for (name, voc) in voc.filter(|_| by_boxes) {
                    ui.label(*name).on_hover_text("At IoU .5, boxes in continuous coordinates");
                    let map = if voc.ap.iter().any(Option::is_some) { voc.map } else { -1.0 };
                    ui.label(RichText::new(percent(map)).strong());
                    ui.end_row();
                }
            });
            ui.separator();
            Grid::new("by class").num_columns(9).striped(true).show(ui, |ui| {
                for title in ["class", "AP", "AP .50", "AP .75", "small", "medium", "large", "objects", "detections"] {
                    ui.weak(title);
                }
                ui.end_row();
                for (class, (name, scores)) in evaluation.classes.iter().zip(&result.per_class).enumerate() {
                    ui.label(RichText::new(name).color(theme::class_text(ui, class as u32)));
                    for value in [scores.ap, scores.ap50, scores.ap75, scores.small, scores.medium, scores.large] {
                        ui.label(percent(value));
                    }
                    ui.label(scores.truths.to_string());
                    ui.label(scores.detections.to_string());
                    ui.end_row();
                }
            });
        });
    });
}
