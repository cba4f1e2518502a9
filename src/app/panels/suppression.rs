//! Suppression panel: candidates before, detections after; removal by removal, and by other methods and thresholds.

pub mod figure;

use crate::app::panels::canvas::{Canvas, Frame};
use crate::app::panels::why::{class_name, corners};
use crate::app::scene::{class_style, instance};
use crate::app::state::State;
use crate::app::theme;
use crate::detect::Config;
use crate::engine::Shown;
use crate::geometry::nms::Decay;
use crate::geometry::replay::{Method, Replay, Rules, difference, replay};
use crate::render::{BoxFilter, BoxInstance, BoxLayer, BoxLook, BoxStyle, Scene};
use crate::trace::{Suppression, Trace};
use egui::{Align2, Color32, ComboBox, FontId, Panel, RichText, ScrollArea, Slider, Stroke, Ui};
use std::sync::Arc;

/// The panel's buffers.
const VIEW_ID: u64 = 22;
/// Where an instance's score stands for the removal that takes it: survivors outlive every removal.
const SURVIVES: f32 = 1e9;
/// One that takes no part.
const ABSENT: f32 = -1.0;

/// Scratch of the panel.
#[derive(Debug)]
pub struct SuppressionPanel {
    pub canvas: Canvas,
    /// What the model does; moved settings go when this changes.
    own: Option<Rules>,
    rules: Option<Rules>,
    /// Removals done so far.
    step: usize,
    /// A candidate chosen in the table or on the picture.
    selected: Option<u32>,
    differences_only: bool,
    made: Option<Made>,
    versions: u64,
    style: Arc<BoxStyle>,
}

/// What one image and one choice of rules give.
#[derive(Debug)]
struct Made {
    of: (u64, Rules),
    replay: Replay,
    /// By candidate: what became of it.
    fates: Vec<Fate>,
    /// Kept here and not by the model, and the other way round.
    added: Vec<u32>,
    lost: Vec<u32>,
    version: u64,
    /// The candidates, last first, so that better ones lie on top. Score is the number of the removal that takes it.
    boxes: Arc<Vec<BoxInstance>>,
    /// The last step.
    steps: usize,
}

/// What became of a candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Kept {
        score: f32,
    },
    Removed {
        step: usize,
        by: u32,
        iou: f32,
    },
    /// Beyond the limit on detections, or faded without a named remover.
    Cut,
    /// Below the score threshold.
    Absent,
}

impl Default for SuppressionPanel {
    fn default() -> Self {
        Self {
            canvas: Canvas::default(),
            own: None,
            rules: None,
            step: 0,
            selected: None,
            differences_only: false,
            made: None,
            versions: 0,
            style: Arc::new(class_style()),
        }
    }
}

impl Made {
    fn new(trace: &Trace, record: &Suppression, of: (u64, Rules), version: u64) -> Self {
        let result = replay(&record.candidates, &of.1);
        let taking_part = |score: f32| score > of.1.score_threshold;
        let start = |score: f32| if taking_part(score) { Fate::Cut } else { Fate::Absent };
        let mut fates: Vec<Fate> = record.candidates.iter().map(|c| start(c.score)).collect();
        let mut settle = |index: u32, fate: Fate| {
            if let Some(slot) = fates.get_mut(index as usize) {
                *slot = fate;
            }
        };
        for &(index, score) in &result.kept {
            settle(index, Fate::Kept { score });
        }
        for (place, &(removed, by, iou)) in result.removals.iter().enumerate() {
            settle(removed, Fate::Removed { step: place + 1, by, iou });
        }
        let last = result.removals.len();
        let steps = if fates.contains(&Fate::Cut) { last + 1 } else { last };
        let taken_by = |fate: &Fate| match fate {
            Fate::Kept { .. } => SURVIVES,
            Fate::Removed { step, .. } => *step as f32 - 1.0,
            Fate::Cut => last as f32,
            Fate::Absent => ABSENT,
        };
        let pairs = record.candidates.iter().zip(&fates).rev();
        let boxes = pairs.map(|(c, fate)| instance(trace, c.bbox, taken_by(fate), c.class)).collect();
        let (added, lost) = difference(&result, &record.kept);
        Self { of, replay: result, fates, added, lost, version, boxes: Arc::new(boxes), steps }
    }

    /// Where candidate `index` lies among the instances.
    fn position(&self, index: u32) -> Option<u32> {
        (self.boxes.len() as u32).checked_sub(index + 1)
    }
}

impl SuppressionPanel {
    /// Goes so many removals on, or back.
    pub fn advance(&mut self, by: i64) {
        let last = self.made.as_ref().map_or(0, |made| made.steps);
        self.step = self.step.saturating_add_signed(by as isize).min(last);
        self.selected = None;
    }

    pub fn ui(&mut self, ui: &mut Ui, state: &State, backdrop: Option<Scene>) {
        let (Some(shown), Some(backdrop)) = (state.shown.clone(), backdrop) else {
            ui.label("Open an image to see its candidates.");
            return;
        };
        let record = shown.trace.as_deref().and_then(|trace| Some((trace, trace.suppression.as_ref()?)));
        let Some((trace, record)) = record else {
            ui.label("The model has not run on this image yet.");
            return;
        };
        let own = own_rules(state.config(), record);
        // The limit on detections is known by the images that meet it alone: no other model when it changes.
        let same = self.own.is_some_and(|before| Rules { max_detections: own.max_detections, ..before } == own);
        self.rules = self.rules.filter(|_| same).map(|rules| Rules { max_detections: own.max_detections, ..rules });
        self.own = Some(own);
        let of = (state.shown_version, self.rules.unwrap_or(own));
        if self.made.as_ref().is_none_or(|made| made.of != of) {
            if self.made.as_ref().is_none_or(|made| made.of.0 != of.0) {
                self.selected = None;
                self.step = usize::MAX;
            }
            self.versions += 1;
            let made = Made::new(trace, record, of, self.versions);
            self.step = self.step.min(made.steps);
            self.made = Some(made);
        }
        Panel::right("suppression settings").resizable(true).default_size(320.0).show(ui, |ui| {
            self.settings(ui, own, record);
            self.steps(ui, &shown, record);
            self.table(ui, &shown, record);
        });
        let chosen = self.selected.and_then(|s| record.candidates.get(s as usize));
        let frame = self.canvas.frame(ui, &shown, chosen.map(|c| trace.to_original(c.bbox)));
        if let Some([x, y]) = frame.at.filter(|_| frame.response.clicked()) {
            self.selected = self.candidate_at(trace, record, x, y);
        }
        let painter = frame.paint(ui, VIEW_ID, self.scene(backdrop));
        self.draw_removal(&painter, &frame, trace, record);
    }

    /// The smallest candidate under a point of the picture that is still there.
    fn candidate_at(&self, trace: &Trace, record: &Suppression, x: f32, y: f32) -> Option<u32> {
        let made = self.made.as_ref()?;
        let there = |fate: &Fate| match fate {
            Fate::Kept { .. } => true,
            Fate::Removed { step, .. } => *step > self.step,
            Fate::Cut => self.step < made.steps,
            Fate::Absent => false,
        };
        let alive = record.candidates.iter().zip(&made.fates).enumerate().filter(|(_, (_, fate))| there(fate));
        let here = alive.filter(|(_, (c, _))| trace.to_original(c.bbox).contains(x, y));
        here.min_by(|a, b| a.1.0.bbox.area().total_cmp(&b.1.0.bbox.area())).map(|(index, _)| index as u32)
    }

    /// The picture with the candidates after the current step over it. Stepping moves two filters and two highlights:
    /// nothing is uploaded.
    pub fn scene(&self, backdrop: Scene) -> Scene {
        let Some(made) = &self.made else { return backdrop };
        let now = self.step as f32;
        let layer = |filter: BoxFilter, look: BoxLook| BoxLayer {
            version: made.version,
            boxes: made.boxes.clone(),
            style: self.style.clone(),
            filter,
            look,
        };
        let removal = self.step.checked_sub(1).and_then(|at| made.replay.removals.get(at));
        let gone = BoxFilter { score_min: 0.0, score_max: now - 0.5, ..BoxFilter::default() };
        let there = BoxFilter { score_min: now, ..BoxFilter::default() };
        let faint = BoxLook {
            opacity: 0.25,
            line_width: 1.0,
            hovered: removal.and_then(|r| made.position(r.0)),
            ..BoxLook::default()
        };
        let clear = BoxLook {
            hovered: removal.and_then(|r| made.position(r.1)),
            selected: self.selected.and_then(|s| made.position(s)),
            ..BoxLook::default()
        };
        Scene { boxes: vec![layer(gone, faint), layer(there, clear)], ..backdrop }
    }

    /// A line from the box that stays to the one that goes, with their IoU.
    fn draw_removal(&self, painter: &egui::Painter, frame: &Frame, trace: &Trace, record: &Suppression) {
        let removals = self.made.as_ref().map(|made| made.replay.removals.as_slice()).unwrap_or_default();
        let Some(&(removed, by, iou)) = self.step.checked_sub(1).and_then(|at| removals.get(at)) else { return };
        let center = |index: u32| {
            let bbox = trace.to_original(record.candidates.get(index as usize)?.bbox);
            let (x, y) = bbox.center();
            Some(frame.point(x, y))
        };
        let (Some(from), Some(to)) = (center(by), center(removed)) else { return };
        painter.line_segment([from, to], Stroke::new(2.0, theme::ERROR));
        painter.circle_filled(to, 4.0, theme::ERROR);
        let text = format!("{by} removes {removed} at IoU {iou:.2}");
        let galley = painter.layout_no_wrap(text, FontId::proportional(13.0), Color32::WHITE);
        let area = Align2::CENTER_BOTTOM.anchor_size(from.lerp(to, 0.5), galley.size()).expand(3.0);
        painter.rect_filled(area, 2.0, Color32::from_black_alpha(180));
        painter.galley(area.min + egui::vec2(3.0, 3.0), galley, Color32::WHITE);
    }

    fn settings(&mut self, ui: &mut Ui, own: Rules, record: &Suppression) {
        // Sliders without a number of decimals: rounding would change the model's own values.
        let mut rules = self.rules.unwrap_or(own);
        ui.weak(format!("The model: {}", record.method));
        let choice =
            ComboBox::from_id_salt("suppression method").selected_text(rules.method.name()).show_ui(ui, |ui| {
                for method in Method::ALL {
                    ui.selectable_value(&mut rules.method, method, method.name());
                }
            });
        choice.response.on_hover_text(
            "Non-maximum suppression (NMS): greedy removes boxes above the IoU threshold; Soft-NMS lowers their scores",
        );
        let threshold = Slider::new(&mut rules.iou_threshold, 0.0..=1.0).text("NMS threshold");
        ui.add(threshold)
            .on_hover_text("IoU = |A ∩ B| / |A ∪ B| above which the lower-scored box goes, or loses score");
        let lowest = record.score_threshold.clamp(0.0, 1.0);
        let score = Slider::new(&mut rules.score_threshold, lowest..=1.0).text("candidate score");
        ui.add(score).on_hover_text("Candidates at or below this score take no part; lower ones were not stored");
        match rules.method {
            Method::SoftGaussian => {
                let sigma = Slider::new(&mut rules.sigma, 0.05..=2.0).text("sigma");
                ui.add(sigma).on_hover_text("Score times exp(−IoU² / σ)");
            }
            Method::SoftLinear => _ = ui.weak("Score times 1 − IoU, above the threshold"),
            Method::Greedy | Method::ClassAgnostic => {}
        }
        if rules.method.is_soft() {
            let floor = Slider::new(&mut rules.floor, 0.0..=0.5).text("lowest score kept");
            ui.add(floor).on_hover_text("A box whose lowered score is below this goes");
        }
        if rules != self.rules.unwrap_or(own) {
            self.rules = Some(rules);
        }
        let reset = ui.add_enabled(self.rules.is_some(), egui::Button::new("Reset to the model's"));
        if reset.on_hover_text("Method and thresholds of the loaded model").clicked() {
            self.rules = None;
        }
    }

    fn steps(&mut self, ui: &mut Ui, shown: &Shown, record: &Suppression) {
        let Some(made) = &self.made else { return };
        ui.separator();
        let (candidates, kept) = (made.replay.kept.len() + made.replay.removals.len(), made.replay.kept.len());
        let cut = made.fates.iter().filter(|fate| **fate == Fate::Cut).count();
        ui.label(RichText::new(format!("{} candidates before, {kept} detections after", candidates + cut)).strong());
        if cut > 0 {
            ui.weak(format!("{cut} went beyond the limit on detections, or faded away"));
        }
        let same = made.added.is_empty() && made.lost.is_empty();
        ui.label(if same {
            "Same boxes as the model's".to_string()
        } else {
            format!("Against the model: {} more, {} fewer", made.added.len(), made.lost.len())
        });
        ui.add(Slider::new(&mut self.step, 0..=made.steps).text("removals"))
            .on_hover_text("Removals done, by falling score of the removed box; “.” and “,” go one on and back");
        let text = match self.step.checked_sub(1) {
            None => "Nothing is removed yet".to_string(),
            Some(at) => match made.replay.removals.get(at) {
                Some(&(removed, by, iou)) => {
                    let class = |index: u32| {
                        let candidate = record.candidates.get(index as usize);
                        candidate.map_or("?", |c| class_name(&shown.detection_classes, c.class))
                    };
                    let (gone, stays) = (class(removed), class(by));
                    format!("{gone} {removed} went because of {stays} {by}: IoU {iou:.3}")
                }
                None => "The last ones went without a remover".to_string(),
            },
        };
        let last = made.steps;
        let mut by = 0;
        ui.horizontal(|ui| {
            let previous = ui.add_enabled(self.step > 0, egui::Button::new("Previous removal"));
            if previous.on_hover_text("One removal back: “,”").clicked() {
                by = -1;
            }
            let next = ui.add_enabled(self.step < last, egui::Button::new("Next removal"));
            if next.on_hover_text("One removal on: “.”").clicked() {
                by = 1;
            }
        });
        ui.label(text);
        if by != 0 {
            self.advance(by);
        }
    }

    fn table(&mut self, ui: &mut Ui, shown: &Shown, record: &Suppression) {
        ui.separator();
        ui.checkbox(&mut self.differences_only, "only what differs from the model")
            .on_hover_text("Candidates that are kept here and not by the model, or the other way round");
        let Some(made) = &self.made else { return };
        if let Some((index, candidate)) = self.selected.and_then(|s| Some((s, record.candidates.get(s as usize)?))) {
            let removed = made.replay.removals.iter().filter(|r| r.1 == index).count();
            ui.label(format!("Candidate {index}: {}; it removed {removed}", corners(candidate.bbox)));
        }
        let rows: Vec<u32> = if self.differences_only {
            made.added.iter().chain(&made.lost).copied().collect()
        } else {
            (0..record.candidates.len() as u32).collect()
        };
        let height = ui.spacing().interact_size.y;
        let (mut selected, mut step) = (self.selected, self.step);
        ScrollArea::both().auto_shrink(false).show_rows(ui, height, rows.len(), |ui, range| {
            for &index in rows.get(range).unwrap_or_default() {
                let (Some(candidate), Some(fate)) =
                    (record.candidates.get(index as usize), made.fates.get(index as usize))
                else {
                    continue;
                };
                let name = class_name(&shown.detection_classes, candidate.class);
                let (fate_text, color) = match *fate {
                    Fate::Kept { score } if score == candidate.score => ("kept".to_string(), theme::TRUTH),
                    Fate::Kept { score } => (format!("kept with {score:.3}"), theme::TRUTH),
                    Fate::Removed { by, iou, .. } => (format!("removed by {by}, IoU {iou:.2}"), theme::ERROR),
                    Fate::Cut => ("over the limit".to_string(), theme::WARNING),
                    Fate::Absent => ("below the score".to_string(), theme::WARNING),
                };
                let model = if made.added.contains(&index) {
                    ", the model drops it"
                } else if made.lost.contains(&index) {
                    ", the model keeps it"
                } else {
                    ""
                };
                let text = format!("{index}  {name} {:.3}  {fate_text}{model}", candidate.score);
                let text = RichText::new(text).color(theme::readable(ui, color));
                if ui.selectable_label(selected == Some(index), text).clicked() {
                    selected = Some(index);
                    if let Fate::Removed { step: at, .. } = fate {
                        step = *at;
                    }
                }
            }
        });
        (self.selected, self.step) = (selected, step);
    }
}

/// What the model itself does, as far as a replay can do it: limits on each class are not replayed.
fn own_rules(config: Option<&Config>, record: &Suppression) -> Rules {
    let mut rules = Rules {
        method: Method::Greedy,
        iou_threshold: record.iou_threshold,
        score_threshold: record.score_threshold,
        sigma: 0.5,
        floor: 0.001,
        max_detections: usize::MAX,
    };
    if let Some(Config::M2det(c)) = config
        && c.soft_nms
    {
        rules.floor = c.soft_floor;
        match c.soft_decay {
            Decay::Linear => rules.method = Method::SoftLinear,
            Decay::Gaussian { sigma } => (rules.method, rules.sigma) = (Method::SoftGaussian, sigma),
            Decay::Naive => {}
        }
    }
    // What was kept tells the limit that was met; without one being met none is seen.
    let removed = record.removals.len();
    if record.kept.len() + removed < record.candidates.len() && !record.kept.is_empty() && !rules.method.is_soft() {
        rules.max_detections = record.kept.len();
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::suppress::{Limits, suppress};
    use crate::geometry::{BBox, Detection};
    use crate::nn::{Mode, Pass};

    fn candidate(x: f32, class: u32, score: f32) -> Detection {
        Detection { bbox: BBox::new(x, 0.0, x + 10.0, 10.0), class, score, ..Detection::default() }
    }

    /// What a model records of four candidates, of which the second is removed.
    fn record(max_detections: usize) -> Trace {
        let pass = Pass::probed(Mode::Infer, 1);
        let limits = Limits { score_threshold: 0.01, top_k_per_class: 9, nms_threshold: 0.5, max_detections };
        let candidates =
            vec![candidate(0.0, 0, 0.9), candidate(1.0, 0, 0.8), candidate(50.0, 0, 0.7), candidate(0.0, 1, 0.6)];
        suppress(candidates, &limits, 0, &pass);
        pass.into_traces().remove(0)
    }

    #[test]
    fn the_models_own_rules_give_the_models_own_result() {
        for limit in [9, 2] {
            let trace = record(limit);
            let suppression = trace.suppression.as_ref().unwrap();
            let own = own_rules(None, suppression);
            let made = Made::new(&trace, suppression, (1, own), 1);
            assert!(made.added.is_empty() && made.lost.is_empty(), "{limit}");
            assert_eq!(made.steps, if limit == 2 { 2 } else { 1 });
        }
    }

    #[test]
    fn steps_are_filters_over_one_buffer() {
        let trace = record(9);
        let suppression = trace.suppression.as_ref().unwrap();
        let mut panel = SuppressionPanel {
            made: Some(Made::new(&trace, suppression, (1, own_rules(None, suppression)), 1)),
            ..SuppressionPanel::default()
        };
        let backdrop = || Scene {
            version: 1,
            width: 1,
            height: 1,
            pixels: Arc::new(vec![0; 4]),
            look: crate::render::ImageLook::default(),
            heat: None,
            boxes: Vec::new(),
        };
        let counts = |panel: &SuppressionPanel| -> Vec<usize> {
            let scene = panel.scene(backdrop());
            scene.boxes.iter().map(|l| l.boxes.iter().filter(|b| l.filter.shows(b)).count()).collect()
        };
        assert_eq!(counts(&panel), [0, 4]);
        panel.advance(1);
        assert_eq!(counts(&panel), [1, 3]);
        let scene = panel.scene(backdrop());
        // candidate 1 of 4 went because of candidate 0; the last one comes first in the buffer
        assert_eq!((scene.boxes[0].look.hovered, scene.boxes[1].look.hovered), (Some(2), Some(3)));
        panel.advance(5);
        assert_eq!(panel.step, 1);
        panel.advance(-9);
        assert_eq!(counts(&panel), [0, 4]);
    }

    #[test]
    fn class_agnostic_differs_by_the_box_of_the_other_class() {
        let trace = record(9);
        let suppression = trace.suppression.as_ref().unwrap();
        let rules = Rules { method: Method::ClassAgnostic, ..own_rules(None, suppression) };
        let made = Made::new(&trace, suppression, (1, rules), 1);
        assert_eq!((made.added, made.lost), (vec![], vec![3]));
        assert_eq!(made.fates[3], Fate::Removed { step: 2, by: 0, iou: 1.0 });
    }
}
