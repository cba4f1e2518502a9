//! One image before and after augmentation, as the run (or the next one) would see it in some epoch.

use crate::app::action::Action;
use crate::app::export::{Figure, Still, Table};
use crate::app::panels::asking::Question;
use crate::app::panels::canvas::Canvas;
use crate::app::scene::{Choice, Prepared};
use crate::app::state::State;
use crate::engine::latest::AnnotatedPicture;
use crate::engine::{Augmented, Shown};
use crate::render::Scene;
use egui::{DragValue, Rect, RichText, ScrollArea, Ui, UiBuilder, pos2};
use std::sync::Arc;

/// Buffers of the two views.
const VIEW_IDS: [u64; 2] = [0xD0, 0xD1];
/// Height that is left for what was done, points.
const LIST: f32 = 90.0;

/// Scratch of the page.
#[derive(Default)]
pub(super) struct AugmentationPage {
    epoch: u64,
    /// What the engine was last asked for: number of the data's change, model and run, image, epoch.
    question: Question<(u64, [usize; 2], usize, u64)>,
    sides: Option<(u64, [Side; 2])>,
    canvases: [Canvas; 2],
}

/// One of the two pictures, ready to be drawn.
struct Side {
    shown: Shown,
    prepared: Prepared,
}

impl Side {
    /// `number` fits the canvas, and `version` the buffers, to the picture anew when it changes.
    fn new(augmented: &Augmented, one: &AnnotatedPicture, number: u64, version: u64) -> Self {
        let (objects, classes) = (one.objects.clone(), augmented.classes.clone());
        let shown = Shown::undetected(number as usize, one.name.clone(), one.picture.clone(), objects, classes);
        let prepared = Prepared::new(&shown, version);
        Self { shown, prepared }
    }

    fn scene(&mut self) -> Scene {
        self.prepared.scene(&self.shown, &Choice { predictions: false, ..Choice::default() })
    }
}

/// An image before and after augmentation; behind it what was done.
pub fn augmented(augmented: &Augmented) -> Figure {
    let mut table = Table::new(&["step", "parameter", "amount"]);
    for applied in &augmented.applied {
        if applied.parameters.is_empty() {
            table.row(&[&applied.name]);
        }
        for (parameter, amount) in &applied.parameters {
            table.row(&[&applied.name, parameter, amount]);
        }
    }
    let still = |number: u64, one: &AnnotatedPicture| {
        Still::new(one.name.clone(), Side::new(augmented, one, number, number).scene())
    };
    let title = format!("{} in epoch {}", augmented.before.name, augmented.epoch);
    Figure::stills(title, vec![still(0, &augmented.before), still(1, &augmented.after)], 2, table)
}

impl AugmentationPage {
    pub(super) fn ui(&mut self, ui: &mut Ui, state: &State, actions: &mut Vec<Action>) {
        if state.model.is_none() {
            ui.label("A model is needed: its preprocessing is part of what training sees.");
            return;
        }
        ui.horizontal_wrapped(|ui| {
            let epoch = ui.add(DragValue::new(&mut self.epoch).range(0..=100_000).prefix("epoch "));
            epoch
                .on_hover_text("Everything random follows from the run's seed, the epoch and the image")
                .accessible_name("Epoch");
            if ui.button("Another").on_hover_text("The next epoch's look").clicked() {
                self.epoch += 1;
            }
        });
        // Preprocessing is the model's, augmentation the run's: another one makes another image.
        let model = state.model.as_ref().map_or(0, |model| Arc::as_ptr(model) as usize);
        let run = state.training.as_ref().map_or(0, |training| Arc::as_ptr(&training.config) as usize);
        let cause = (state.data_version, [model, run], state.wanted, self.epoch);
        let mut asks = self.question.is_new(state, "augmentation", cause);
        if state.augmented.is_none() {
            asks |= self.question.ui(ui, state, "The image is being made.");
        }
        if asks {
            actions.push(Action::Augment { index: state.wanted, epoch: self.epoch });
        }
        let Some(augmented) = state.augmented.clone() else { return };
        self.prepare(&augmented, state.augmented_version);
        let whole = ui.available_rect_before_wrap();
        let bottom = (whole.max.y - LIST).max(whole.min.y + 40.0);
        let beside = whole.width() > bottom - whole.min.y;
        let halves = halves(Rect::from_min_max(whole.min, pos2(whole.max.x, bottom)), beside);
        if let Some((_, sides)) = &mut self.sides {
            let views = sides.iter_mut().zip(&mut self.canvases).zip(halves).zip(VIEW_IDS);
            for (((side, canvas), place), id) in views {
                let builder = UiBuilder::new().id_salt(("augmented view", id)).max_rect(place);
                ui.scope_builder(builder, |ui| {
                    ui.add(egui::Label::new(RichText::new(&side.shown.name).small()).truncate());
                    let frame = canvas.frame(ui, &side.shown, None);
                    frame.paint(ui, id, side.scene());
                });
            }
        }
        let below = Rect::from_min_max(pos2(whole.min.x, bottom + 4.0), whole.max);
        let builder = UiBuilder::new().id_salt("augmentation list").max_rect(below);
        ui.scope_builder(builder, |ui| done(ui, &augmented));
    }

    fn prepare(&mut self, augmented: &Augmented, version: u64) {
        if self.sides.as_ref().is_some_and(|(made, _)| *made == version) {
            return;
        }
        let side = |number: u64, one: &AnnotatedPicture| Side::new(augmented, one, version, 2 * version + number);
        self.sides = Some((version, [side(0, &augmented.before), side(1, &augmented.after)]));
    }
}

/// What was done, with its amounts.
fn done(ui: &mut Ui, augmented: &Augmented) {
    let (before, after) = (augmented.before.objects.len(), augmented.after.objects.len());
    ui.label(format!("{before} objects before, {after} after"));
    ScrollArea::vertical().id_salt("applied").auto_shrink(false).show(ui, |ui| {
        if augmented.applied.is_empty() {
            ui.weak("Nothing was done in this epoch.");
        }
        for applied in &augmented.applied {
            let amounts = applied.parameters.iter().map(|(name, amount)| format!("{name} {amount:.2}"));
            ui.horizontal_wrapped(|ui| {
                ui.label(&applied.name);
                ui.weak(amounts.collect::<Vec<_>>().join(", "));
            });
        }
    });
}

/// A rectangle in two, beside or above each other.
fn halves(whole: Rect, beside: bool) -> [Rect; 2] {
    let middle = whole.center();
    if beside {
        [
            Rect::from_min_max(whole.min, pos2(middle.x - 2.0, whole.max.y)),
            Rect::from_min_max(pos2(middle.x + 2.0, whole.min.y), whole.max),
        ]
    } else {
        [
            Rect::from_min_max(whole.min, pos2(whole.max.x, middle.y - 2.0)),
            Rect::from_min_max(pos2(whole.min.x, middle.y + 2.0), whole.max),
        ]
    }
}
