//! Levels: the detections by the level of the anchor they came from; muting a level shows which of them go.

use super::{FeaturesPanel, LevelBoxes, pixels_of};
use crate::app::action::Action;
use crate::app::export::{Figure, Still, Table};
use crate::app::panels::image_list::split;
use crate::app::panels::score_slider;
use crate::app::scene::class_style;
use crate::app::settings::Settings;
use crate::app::theme;
use crate::engine::Shown;
use crate::geometry::Detection;
use crate::render::{BoxColor, BoxFilter, BoxInstance, BoxLayer, BoxLook, ImageLook, LineStyle, Scene};
use crate::trace::Trace;
use egui::{RichText, ScrollArea, Ui, UiBuilder};
use std::sync::Arc;

const VIEW_ID: u64 = 0xE0;
/// Levels that a mask can tell apart.
const LEVELS: usize = 32;

impl FeaturesPanel {
    pub(super) fn levels(
        &mut self,
        ui: &mut Ui,
        shown: &Shown,
        trace: &Trace,
        version: u64,
        settings: &Settings,
        actions: &mut Vec<Action>,
    ) {
        ui.horizontal_wrapped(|ui| {
            for (level, anchors) in trace.anchors.levels.iter().enumerate().take(LEVELS) {
                let mut heard = self.muted & (1 << level) == 0;
                let count = detections(shown, trace, settings.score).filter(|(_, l)| *l == level).count();
                let ticked = ui.checkbox(&mut heard, format!("level {level} ({count})"));
                let help = format!(
                    "{}×{} cells, stride {:.0}, {} anchors; untick it to mute the level",
                    anchors.columns, anchors.rows, anchors.stride, anchors.len
                );
                if ticked.on_hover_text(help).changed() {
                    self.muted ^= 1 << level;
                }
            }
            if self.muted != 0 && ui.button("Hear all").on_hover_text("No level is muted any more").clicked() {
                self.muted = 0;
            }
            let mut score = settings.score;
            let slider = ui.add(score_slider(&mut score));
            if slider.on_hover_text("Boxes below this score are hidden").changed() {
                actions.push(Action::Score(score));
            }
        });
        let going = gone(shown, trace, settings.score, self.muted);
        let (main, side) = split(ui);
        let builder = UiBuilder::new().id_salt("picture by level").max_rect(main);
        ui.scope_builder(builder, |ui| {
            let frame = self.canvas.frame(ui, shown, None);
            let scene = self.level_scene(shown, trace, version, settings);
            frame.paint(ui, VIEW_ID, scene);
        });
        let builder = UiBuilder::new().id_salt("detections that go").max_rect(side);
        ui.scope_builder(builder, |ui| {
            let all = detections(shown, trace, settings.score).count();
            ui.label(RichText::new(format!("{} of {all} detections go", going.len())).strong()).on_hover_text(
                "Those whose anchor lies on a muted level. What they suppressed on other levels does not come back",
            );
            ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
                for (detection, level) in &going {
                    let name = shown.detection_classes.get(detection.class as usize).map_or("?", String::as_str);
                    let text = format!("{name} {:.2}, level {level}", detection.score);
                    ui.label(RichText::new(text).color(theme::class_text(ui, detection.class)));
                }
            });
        });
    }

    /// The picture by level; behind it every detection whose level is known.
    pub(super) fn figure_of_levels(
        &mut self,
        shown: &Shown,
        trace: &Trace,
        version: u64,
        settings: &Settings,
    ) -> Figure {
        let mut table = Table::new(&["class", "score", "level", "muted", "x0", "y0", "x1", "y1"]);
        for (d, level) in detections(shown, trace, settings.score) {
            let name = shown.detection_classes.get(d.class as usize).map_or("?", String::as_str);
            let muted = u8::from(level < LEVELS && self.muted & (1 << level) != 0);
            let b = d.bbox;
            table.row(&[&name, &d.score, &level, &muted, &b.x0, &b.y0, &b.x1, &b.y1]);
        }
        let title = format!("Detections of {} by level", shown.name);
        let scene = self.level_scene(shown, trace, version, settings);
        Figure::stills(title.clone(), vec![Still::new(title, scene)], 1, table)
    }

    fn level_scene(&mut self, shown: &Shown, trace: &Trace, version: u64, settings: &Settings) -> Scene {
        if self.boxes.as_ref().is_none_or(|boxes| boxes.shown != version) {
            let mut staying: Vec<BoxInstance> =
                detections(shown, trace, f32::NEG_INFINITY).map(|(d, level)| instance(d, level)).collect();
            staying.reverse();
            let going = staying.iter().map(|b| b.with_style(LineStyle::Dashed)).collect();
            self.boxes = Some(LevelBoxes {
                shown: version,
                pixels: pixels_of(shown),
                style: Arc::new(class_style()),
                staying: Arc::new(staying),
                going: Arc::new(going),
            });
        }
        let mut layers = Vec::new();
        let mut pixels = Arc::default();
        if let Some(made) = &self.boxes {
            pixels = made.pixels.clone();
            for (number, boxes, levels, opacity) in
                [(0, &made.going, self.muted, 0.6), (1, &made.staying, !self.muted, 1.0)]
            {
                layers.push(BoxLayer {
                    version: version * 2 + number,
                    boxes: boxes.clone(),
                    style: made.style.clone(),
                    filter: BoxFilter { score_min: settings.score, levels, ..BoxFilter::default() },
                    look: BoxLook { color: BoxColor::Level, opacity, ..BoxLook::default() },
                });
            }
        }
        let (width, height) = (shown.picture.width, shown.picture.height);
        Scene { version, width, height, pixels, look: ImageLook::default(), heat: None, boxes: layers }
    }
}

/// Detections of at least `score` whose level is known, with it.
fn detections<'a>(shown: &'a Shown, trace: &'a Trace, score: f32) -> impl Iterator<Item = (&'a Detection, usize)> + 'a {
    let above = shown.detections.iter().filter(move |d| d.score >= score);
    above.filter_map(move |d| Some((d, trace.anchors.level_of(d.anchor? as usize)?)))
}

/// Those of them on a muted level.
fn gone<'a>(shown: &'a Shown, trace: &'a Trace, score: f32, muted: u32) -> Vec<(&'a Detection, usize)> {
    detections(shown, trace, score).filter(|(_, level)| *level < LEVELS && muted & (1 << level) != 0).collect()
}

fn instance(detection: &Detection, level: usize) -> BoxInstance {
    let b = detection.bbox;
    BoxInstance::new([b.x0, b.y0, b.x1, b.y1], detection.score, detection.class)
        .with_level(level as u32)
        .with_style(LineStyle::Solid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::picture::Picture;
    use crate::trace::{AnchorLevel, Anchors};

    #[test]
    fn a_muted_level_takes_its_detections_and_no_others() {
        let level = |start: usize| AnchorLevel { start, len: 10, ..AnchorLevel::default() };
        let anchors = Anchors { levels: vec![level(0), level(10)], ..Anchors::default() };
        let trace = Trace { anchors, ..Trace::default() };
        let detection = |anchor: Option<u32>, score: f32| Detection { anchor, score, ..Detection::default() };
        let shown = Shown {
            index: 0,
            name: String::new(),
            picture: Arc::new(Picture::new(4, 4, [0; 3])),
            objects: Vec::new(),
            object_classes: Vec::new(),
            detections: vec![
                detection(Some(3), 0.9),
                detection(Some(12), 0.8),
                detection(Some(19), 0.2),
                detection(None, 0.7),
                detection(Some(99), 0.7),
            ],
            detection_classes: Vec::new(),
            detected: true,
            timings: Vec::new(),
            trace: None,
        };
        let scores =
            |muted: u32| -> Vec<f32> { gone(&shown, &trace, 0.5, muted).iter().map(|(d, _)| d.score).collect() };
        assert!(scores(0).is_empty());
        assert_eq!(scores(0b10), [0.8]);
        assert_eq!(scores(0b11), [0.9, 0.8]);
        assert_eq!(detections(&shown, &trace, 0.0).count(), 3);
    }
}
