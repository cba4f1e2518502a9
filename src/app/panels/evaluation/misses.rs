//! Causes of misses: how many objects were lost at each link from anchor to detection, and of which classes.

use super::{EvaluationPanel, bar};
use crate::app::panels::image_list::ImageList;
use crate::app::theme;
use crate::engine::event::EvalSummary;
use crate::eval::misses::Misses;
use egui::{Button, Grid, RichText, ScrollArea, Ui, vec2};

impl EvaluationPanel {
    pub(super) fn misses(&mut self, ui: &mut Ui, evaluation: &EvalSummary) {
        let Some(misses) = &evaluation.misses else {
            ui.label(
                "Causes were not asked for: tick “Causes of misses” and evaluate again. They need a model's own passes; \
                 imported results have none.",
            );
            return;
        };
        ui.label(misses.heading()).on_hover_text("Detections and objects matched one to one by the COCO rule");
        let kinds = misses.kinds();
        let missed = misses.count(None, None).max(1) as f64;
        let mut chosen = None;
        ScrollArea::both().auto_shrink(false).show(ui, |ui| {
            Grid::new("causes of misses").num_columns(4).striped(true).show(ui, |ui| {
                for title in ["cause", "objects", "share", ""] {
                    ui.weak(title);
                }
                ui.end_row();
                for &kind in &kinds {
                    let count = misses.count(None, Some(kind));
                    let share = count as f64 / missed;
                    let button = ui.selectable_label(self.miss == Some((None, kind)), Misses::name(kind));
                    if button.on_hover_text(meaning(kind)).clicked() {
                        chosen = Some((None, kind));
                    }
                    ui.label(count.to_string());
                    ui.label(format!("{:.1} %", share * 100.0));
                    bar(ui, share);
                    ui.end_row();
                }
            });
            ui.weak("A click on a cause, or on a number below, lists its images, those with most first.");
            Grid::new("misses by class").striped(true).show(ui, |ui| {
                ui.weak("class");
                for &kind in &kinds {
                    ui.weak(Misses::name(kind));
                }
                ui.end_row();
                for (class, _) in misses.classes(None) {
                    let name = class_name(evaluation, class);
                    ui.label(RichText::new(name).color(theme::class_color(class as u32)));
                    for &kind in &kinds {
                        let count = misses.count(Some(class), Some(kind));
                        if count == 0 {
                            ui.weak("");
                            continue;
                        }
                        let cell = (Some(class), kind);
                        let button = Button::selectable(self.miss == Some(cell), count.to_string());
                        let response = ui.add(button.min_size(vec2(40.0, 0.0)));
                        let words = format!("{name}, {}: {count}", Misses::name(kind));
                        if response.accessible_name(words).clicked() {
                            chosen = Some(cell);
                        }
                    }
                    ui.end_row();
                }
            });
        });
        if let Some((class, kind)) = chosen {
            self.miss = chosen;
            let name = class.map_or("all classes", |class| class_name(evaluation, class));
            let rows = misses.images(class, Some(kind)).into_iter().map(|(index, count)| (index, format!("{count}×")));
            self.list = Some(ImageList::new(format!("{name}, {}", Misses::name(kind)), rows));
        }
    }
}

fn class_name(evaluation: &EvalSummary, class: usize) -> &str {
    evaluation.classes.get(class).map_or("?", String::as_str)
}

/// A kind in a sentence, by its number in [`Cause`](crate::trace::missed::Cause).
fn meaning(kind: usize) -> &'static str {
    const MEANINGS: [&str; 11] = [
        "A detection finds it",
        "No anchor overlaps it enough: sizes or ratios of the anchors do not suit it",
        "No proposal lies on it after some stage: its objectness was too low for the top k, or it was moved away",
        "The first stage was sure that its anchors are background, and the second never saw them",
        "No box on it got more than the model's own score threshold, for any class",
        "A box lies well, with a score that counts, but as another class",
        "A box of its class, with a score that counts, lies below IoU .5",
        "A good box was removed by a better one that overlaps it",
        "The only good box is a detection that finds another object",
        "A good box came after the last detection that the model may give",
        "A good box is there, with a score below the threshold",
    ];
    MEANINGS.get(kind).copied().unwrap_or("Its image could not be read")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::missed::Cause;

    #[test]
    fn every_cause_has_a_meaning() {
        let meanings: std::collections::HashSet<&str> = (0..=Cause::NAMES.len()).map(meaning).collect();
        assert_eq!(meanings.len(), Cause::NAMES.len() + 1);
    }
}
