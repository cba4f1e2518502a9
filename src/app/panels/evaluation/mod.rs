//! Evaluation panel: COCO's numbers, curves, confusion, mistakes and causes of misses; every point and cell leads to its
//! images.

mod confusion;
mod curves;
pub mod figure;
mod misses;
mod numbers;

use super::image_list::{ImageList, image_rows, split};
use crate::app::action::{Action, Dialog};
use crate::app::bridge::Samples;
use crate::app::settings::Settings;
use crate::app::state::{Progress, State, percent};
use crate::engine::event::EvalSummary;
use crate::eval::errors::ErrorKind;
use egui::{Grid, ProgressBar, RichText, ScrollArea, Ui, UiBuilder};
use misses::Causes;
use std::sync::Arc;

/// What the panel shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Page {
    #[default]
    Numbers,
    PrecisionRecall,
    ByScore,
    Confusion,
    Mistakes,
    Misses,
    Images,
}

impl Page {
    const ALL: [Self; 7] = [
        Self::Numbers,
        Self::PrecisionRecall,
        Self::ByScore,
        Self::Confusion,
        Self::Mistakes,
        Self::Misses,
        Self::Images,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Numbers => "Numbers",
            Self::PrecisionRecall => "Precision and recall",
            Self::ByScore => "By score",
            Self::Confusion => "Confusion",
            Self::Mistakes => "Mistakes",
            Self::Misses => "Misses",
            Self::Images => "Worst images",
        }
    }

    fn help(self) -> &'static str {
        match self {
            Self::Numbers => "AP = ∫ p(r) dr: COCO's twelve numbers, VOC's two, and those of each class",
            Self::PrecisionRecall => "p = TP / (TP + FP) against r = TP / (TP + FN) as the score threshold falls",
            Self::ByScore => "Precision, recall and F1 = 2PR / (P + R) at every score threshold",
            Self::Confusion => "What objects were found as, class by class",
            Self::Mistakes => "Kinds of mistakes, and the AP that each costs",
            Self::Misses => "Why objects are missed, summed over the data set",
            Self::Images => "Images by found − wrong − missed, worst first",
        }
    }
}

/// Scratch of the panel.
#[derive(Debug, Default)]
pub struct EvaluationPanel {
    page: Page,
    /// Whether the next evaluation looks for causes of misses.
    pub explains: bool,
    /// The evaluation that the rest is about.
    seen: u64,
    /// Masks are scored instead of boxes, where there are any.
    masks: bool,
    /// Which of the curves' IoU thresholds.
    iou: usize,
    /// Classes whose curves are drawn beside the one of all together.
    drawn: Vec<u32>,
    /// The class of the curves by score; all together when there is none.
    class: Option<u32>,
    /// Bars of the histogram of scores, once chosen.
    bins: Option<u32>,
    /// Every detection's score with its class, once they were on show.
    scores: Option<Arc<Samples>>,
    cell: Option<(usize, usize)>,
    kind: Option<ErrorKind>,
    /// Class and kind of cause whose misses are listed; all classes without one.
    miss: Option<(Option<usize>, usize)>,
    causes: Option<Causes>,
    list: Option<ImageList>,
    worst: Option<(u32, ImageList)>,
}

impl EvaluationPanel {
    pub fn ui(&mut self, ui: &mut Ui, state: &State, settings: &Settings, actions: &mut Vec<Action>) {
        controls(ui, state, &mut self.explains, actions);
        let Some(evaluation) = state.evaluation.clone() else {
            ui.label("Nothing is evaluated yet.");
            return;
        };
        if self.seen != state.evaluation_version {
            let (page, explains, bins, masks) = (self.page, self.explains, self.bins, self.masks);
            *self = Self { page, explains, bins, masks, seen: state.evaluation_version, ..Self::default() };
            self.draw_few_classes(evaluation.classes.len());
        }
        ui.weak(format!(
            "{} on {}, {} images, {:.1} s; in per cent, — where there is nothing to measure",
            evaluation.model, evaluation.data, evaluation.images, evaluation.seconds
        ));
        ui.horizontal_wrapped(|ui| {
            for page in Page::ALL {
                let button = ui.selectable_label(self.page == page, page.name()).on_hover_text(page.help());
                if button.clicked() && self.page != page {
                    self.page = page;
                    self.list = None;
                }
            }
        });
        let by_overlap = matches!(self.page, Page::Numbers | Page::PrecisionRecall | Page::ByScore);
        if by_overlap && evaluation.masks.is_some() {
            ui.horizontal(|ui| {
                ui.selectable_value(&mut self.masks, false, "By boxes").on_hover_text("IoU of boxes");
                ui.selectable_value(&mut self.masks, true, "By masks").on_hover_text("IoU of masks (COCO's segm)");
            });
        }
        ui.separator();
        let list = self.list.take();
        let Some(list) = list else {
            self.page(ui, &evaluation, state, settings, actions);
            return;
        };
        let (main, side) = split(ui);
        ui.scope_builder(UiBuilder::new().max_rect(main), |ui| self.page(ui, &evaluation, state, settings, actions));
        let closed = ui.scope_builder(UiBuilder::new().max_rect(side), |ui| list.ui(ui, state, actions)).inner;
        // A click in the page has put another list in its place.
        if self.list.is_none() && !closed {
            self.list = Some(list);
        } else if closed {
            self.cell = None;
            self.kind = None;
            self.miss = None;
        }
    }

    fn page(
        &mut self,
        ui: &mut Ui,
        evaluation: &EvalSummary,
        state: &State,
        settings: &Settings,
        actions: &mut Vec<Action>,
    ) {
        match self.page {
            Page::Numbers => numbers::ui(ui, evaluation, self.masks),
            Page::PrecisionRecall => self.precision_recall(ui, evaluation),
            Page::ByScore => self.by_score(ui, evaluation, settings, actions),
            Page::Confusion => self.confusion(ui, evaluation, settings, actions),
            Page::Mistakes => self.mistakes(ui, evaluation),
            Page::Misses => self.misses(ui, evaluation),
            Page::Images => self.worst(ui, evaluation, state, settings, actions),
        }
    }

    /// TIDE's kinds with what each costs.
    fn mistakes(&mut self, ui: &mut Ui, evaluation: &EvalSummary) {
        let details = &evaluation.details;
        ui.label(format!("AP at IoU .5: {}. Repairing one kind alone would add:", percent(details.ap50)))
            .on_hover_text("After TIDE (Bolya et al., ECCV 2020); on background below IoU .1, well placed from .5 on");
        let most = details.errors.iter().map(|share| share.delta_ap50).fold(0.01, f64::max);
        let mut chosen = None;
        ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
            Grid::new("mistakes").num_columns(4).striped(true).show(ui, |ui| {
                for title in ["kind", "number", "ΔAP .50", ""] {
                    ui.weak(title);
                }
                ui.end_row();
                for share in &details.errors {
                    let button = ui.selectable_label(self.kind == Some(share.kind), share.kind.name());
                    if button.on_hover_text(meaning(share.kind)).clicked() {
                        chosen = Some(share.kind);
                    }
                    ui.label(share.count.to_string());
                    ui.label(format!("{:+.1}", share.delta_ap50 * 100.0));
                    bar(ui, share.delta_ap50 / most);
                    ui.end_row();
                }
            });
            ui.weak("A click on a kind lists its images, those with most first.");
        });
        if let Some(kind) = chosen {
            self.kind = Some(kind);
            let images =
                details.error_images.iter().find(|(of, _)| *of == kind).map_or(&[][..], |(_, list)| list.as_slice());
            let rows = images.iter().map(|&(index, count)| (index, format!("{count}×")));
            self.list = Some(ImageList::new(format!("Mistake: {}", kind.name()), rows));
        }
    }

    /// Images by what is right minus what is wrong or missing, at the score threshold.
    fn worst(
        &mut self,
        ui: &mut Ui,
        evaluation: &EvalSummary,
        state: &State,
        settings: &Settings,
        actions: &mut Vec<Action>,
    ) {
        let key = settings.score.to_bits();
        if self.worst.as_ref().is_none_or(|(made, _)| *made != key) {
            let counted = evaluation.details.tallies.iter().map(|tally| tally.at(settings.score)).enumerate();
            let mut images: Vec<_> = counted.collect();
            images.sort_by_key(|(_, counts)| counts.value());
            let rows = images.into_iter().map(|(index, counts)| {
                let objects = counts.found + counts.missed;
                (index, format!("found {} of {objects}, {} wrong", counts.found, counts.wrong))
            });
            self.worst = Some((key, ImageList::new("Worst images", rows)));
        }
        ui.weak(format!(
            "By found − wrong − missed at score {:.2} and IoU .5, worst first; a click shows the image",
            settings.score
        ));
        if let Some((_, list)) = &self.worst {
            image_rows(ui, &list.rows, state, actions);
        }
    }
}

/// A horizontal bar, full at a share of 1.
fn bar(ui: &mut Ui, share: f64) {
    let (rect, _) = ui.allocate_exact_size(egui::vec2(120.0, 12.0), egui::Sense::hover());
    let width = rect.width() * share.clamp(0.0, 1.0) as f32;
    let filled = egui::Rect::from_min_size(rect.min, egui::vec2(width, rect.height()));
    ui.painter().rect_filled(filled, 2.0, crate::app::theme::ERROR);
}

/// Start, progress and import. `explains` is whether an evaluation looks for causes of misses.
fn controls(ui: &mut Ui, state: &State, explains: &mut bool, actions: &mut Vec<Action>) {
    ui.horizontal_wrapped(|ui| {
        if let Some(progress) = state.progress.as_ref().filter(|p| p.task == "evaluation") {
            progress_bar(ui, progress, actions);
            return;
        }
        let has_data = state.images() > 0 && !state.is_training();
        let start = ui.add_enabled(has_data && state.model.is_some(), egui::Button::new("Evaluate"));
        let start = start.on_hover_text("Detect in every image of the open data and score by the COCO protocol");
        if start.on_disabled_hover_text("Needs a model and a data set, and no training under way").clicked() {
            actions.push(Action::Evaluate { misses: *explains });
        }
        ui.checkbox(explains, "Causes of misses").on_hover_text(
            "Look into every pass for why objects are missed at the score threshold of the image; takes longer",
        );
        let import = ui.add_enabled(has_data, egui::Button::new("Score results…"));
        let import = import.on_hover_text("Score a COCO results.json that was made on the open data");
        if import.on_disabled_hover_text("Open the data set that the results were made on").clicked() {
            actions.push(Action::OpenDialog(Dialog::Results));
        }
    });
}

/// How far a task is, with a way to end it.
pub(super) fn progress_bar(ui: &mut Ui, progress: &Progress, actions: &mut Vec<Action>) {
    let share = progress.done as f32 / progress.total.max(1) as f32;
    let text = match progress.seconds_left() {
        Some(left) => format!("{}/{}, {left:.0} s left", progress.done, progress.total),
        None => format!("{}/{}", progress.done, progress.total),
    };
    ui.add(ProgressBar::new(share).desired_width(200.0).text(RichText::new(text)));
    if ui.button("Cancel").clicked() {
        actions.push(Action::Cancel);
    }
}

fn meaning(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Classification => "Well placed on an object of another class",
        ErrorKind::Localisation => "On an object of its class, at an IoU between .1 and .5",
        ErrorKind::Both => "Near an object of another class, at an IoU between .1 and .5",
        ErrorKind::Duplicate => "On an object that a better detection has taken",
        ErrorKind::Background => "On nothing: IoU below .1 with every object",
        ErrorKind::Missed => "An object that no detection found, nor would any repaired mistake",
    }
}
