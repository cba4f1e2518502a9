//! Causes of misses: how many objects were lost at each link from anchor to detection, and of which classes.

use super::{EvaluationPanel, bar};
use crate::app::panels::image_list::ImageList;
use crate::app::theme;
use crate::engine::event::EvalSummary;
use crate::eval::misses::Misses;
use egui::{Button, Grid, RichText, ScrollArea, Ui, vec2};

/// The numbers of the page. Summing them goes through every miss of the data set: once an evaluation.
#[derive(Debug)]
pub(super) struct Causes {
    heading: String,
    missed: usize,
    /// Kinds that occur and their objects, in the order of the chain.
    kinds: Vec<(usize, usize)>,
    /// Classes that have misses, most first, and their objects by those kinds.
    classes: Vec<(usize, Vec<usize>)>,
}

impl Causes {
    fn new(misses: &Misses) -> Self {
        let kinds: Vec<(usize, usize)> =
            misses.kinds().into_iter().map(|kind| (kind, misses.count(None, Some(kind)))).collect();
        let row = |class: usize| -> Vec<usize> {
            kinds.iter().map(|(kind, _)| misses.count(Some(class), Some(*kind))).collect()
        };
        let classes = misses.classes(None).into_iter().map(|(class, _)| (class, row(class))).collect();
        Self { heading: misses.heading(), missed: misses.count(None, None), kinds, classes }
    }
}

impl EvaluationPanel {
    pub(super) fn misses(&mut self, ui: &mut Ui, evaluation: &EvalSummary) {
        let Some(misses) = &evaluation.misses else {
            ui.label(
                "Causes were not asked for: tick “Causes of misses” and evaluate again. They need a model's own passes; \
                 imported results have none.",
            );
            return;
        };
        let causes = self.causes.get_or_insert_with(|| Causes::new(misses));
        ui.label(&causes.heading).on_hover_text("Detections and objects matched one to one by the COCO rule");
        let mut chosen = None;
        ScrollArea::both().auto_shrink(false).show(ui, |ui| {
            Grid::new("causes of misses").num_columns(4).striped(true).show(ui, |ui| {
                for title in ["cause", "objects", "share", ""] {
                    ui.weak(title);
                }
                ui.end_row();
                for &(kind, count) in &causes.kinds {
                    let share = count as f64 / causes.missed.max(1) as f64;
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
                for (kind, _) in &causes.kinds {
                    ui.weak(Misses::name(*kind));
                }
                ui.end_row();
                for (class, counts) in &causes.classes {
                    let class = *class;
                    let name = class_name(evaluation, class);
                    ui.label(RichText::new(name).color(theme::class_text(ui, class as u32)));
                    for (&(kind, _), &count) in causes.kinds.iter().zip(counts) {
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
    use crate::eval::{ImageResult, ImageTruth};
    use crate::geometry::Object;
    use crate::trace::missed::Cause;

    #[test]
    fn the_page_has_the_sums_by_kind_and_class() {
        let object = |class: u32| Object { class, ..Object::default() };
        let truth = ImageTruth { image_id: 1, objects: vec![object(1), object(0), object(1)] };
        let mut misses = Misses::new(0.5, 2);
        let why = |index: usize, _: &[usize]| (index == 1).then_some(Cause::NoAnchor { iou: 0.1 });
        misses.add(0, &truth, &ImageResult::default(), why);
        let causes = Causes::new(&misses);
        let unseen = Cause::NAMES.len();
        assert_eq!((causes.missed, causes.heading.as_str()), (3, misses.heading().as_str()));
        assert_eq!(causes.kinds, [(1, 1), (unseen, 2)]);
        assert_eq!(causes.classes, [(1, vec![0, 2]), (0, vec![1, 0])]);
    }

    #[test]
    fn every_cause_has_a_meaning() {
        let meanings: std::collections::HashSet<&str> = (0..=Cause::NAMES.len()).map(meaning).collect();
        assert_eq!(meanings.len(), Cause::NAMES.len() + 1);
    }
}
