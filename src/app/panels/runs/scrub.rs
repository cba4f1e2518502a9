//! One image through all checkpoints of a run: a slider over them, and what each finds.

use crate::app::action::Action;
use crate::app::panels::canvas::Canvas;
use crate::app::panels::evaluation::progress_bar;
use crate::app::run_action::RunAction;
use crate::app::scene::{Choice, Prepared};
use crate::app::settings::Settings;
use crate::app::state::State;
use crate::engine::history::RunDetails;
use crate::engine::{Scrubbed, Shown};
use egui::{Button, Slider, Ui, UiBuilder, vec2};

/// The view's buffers.
const VIEW_ID: u64 = 0x5C;
const HEIGHT: f32 = 280.0;

/// Scratch of the view.
#[derive(Debug, Default)]
pub struct Scrub {
    /// The number of change of what was found when it was asked for; what is newer is the answer.
    asked: Option<u64>,
    at: usize,
    canvas: Canvas,
    /// Made for this number of change and checkpoint.
    made: Option<(u64, usize, Shown, Prepared)>,
}

impl Scrub {
    pub fn ui(
        &mut self,
        ui: &mut Ui,
        details: &RunDetails,
        state: &State,
        settings: &Settings,
        actions: &mut Vec<Action>,
    ) {
        if details.checkpoints.is_empty() {
            return;
        }
        ui.horizontal_wrapped(|ui| match state.progress.as_ref().filter(|progress| progress.task == "checkpoints") {
            Some(progress) => progress_bar(ui, progress, actions),
            None => {
                let ready = state.shown.is_some() && !state.is_training();
                let text = format!("Scrub the image over {} checkpoints", details.checkpoints.len());
                let button = ui.add_enabled(ready, Button::new(text));
                let button = button.on_hover_text("Detects in the image on show with each of them");
                if button.on_disabled_hover_text("Needs an image, and no training under way").clicked() {
                    self.asked = Some(state.scrubbed_version);
                    self.at = details.checkpoints.len() - 1;
                    actions.push(Action::Run(RunAction::Scrub(details.checkpoints.clone())));
                }
            }
        });
        let answered = self.asked.is_some_and(|asked| state.scrubbed_version > asked);
        if let Some(scrubbed) = state.scrubbed.clone().filter(|_| answered) {
            self.view(ui, &scrubbed, state.scrubbed_version, settings);
        }
    }

    fn view(&mut self, ui: &mut Ui, scrubbed: &Scrubbed, version: u64, settings: &Settings) {
        let Some(last) = scrubbed.at.len().checked_sub(1) else { return };
        self.at = self.at.min(last);
        ui.add(Slider::new(&mut self.at, 0..=last).text("checkpoint")).on_hover_text("The boxes follow");
        if self.made.as_ref().is_none_or(|(made, at, ..)| (*made, *at) != (version, self.at)) {
            let Some(shown) = shown(scrubbed, self.at) else { return };
            let prepared = Prepared::new(&shown, crate::random::mix(version.wrapping_mul(1 << 20) + self.at as u64));
            self.made = Some((version, self.at, shown, prepared));
        }
        let Some((_, _, shown, prepared)) = &mut self.made else { return };
        let asked = prepared.asked();
        let above = shown.detections.iter().filter(|found| found.score >= settings.score).count();
        let lost = prepared.missed(settings.score).len();
        ui.label(format!(
            "{}: {} of {asked} objects found, {above} boxes from score {:.2} on",
            shown.name,
            asked - lost.min(asked),
            settings.score
        ));
        // The picture is that of every checkpoint and goes up once.
        let mut scene = prepared.scene(shown, &Choice::of(settings));
        scene.version = version;
        let place = egui::Rect::from_min_size(ui.next_widget_position(), vec2(ui.available_width(), HEIGHT));
        ui.scope_builder(UiBuilder::new().id_salt("scrubbed").max_rect(place), |ui| {
            let frame = self.canvas.frame(ui, shown, None);
            frame.paint(ui, VIEW_ID, scene);
        });
    }
}

/// What a checkpoint finds, as an image on show.
fn shown(scrubbed: &Scrubbed, at: usize) -> Option<Shown> {
    let found = scrubbed.at.get(at)?;
    Some(Shown {
        index: scrubbed.index,
        name: format!("after {} iterations", found.iteration),
        picture: scrubbed.picture.clone(),
        objects: scrubbed.objects.clone(),
        object_classes: scrubbed.object_classes.clone(),
        detections: found.detections.clone(),
        detection_classes: scrubbed.classes.clone(),
        detected: true,
        timings: Vec::new(),
        trace: None,
    })
}
