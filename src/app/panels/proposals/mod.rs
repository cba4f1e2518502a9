//! Proposals panel: the life of a box from its anchor through the stages, and what each stage gains.

pub mod figure;
mod stages;

use crate::app::bridge::Samples;
use crate::app::panels::canvas::Canvas;
use crate::app::panels::histogram::{BINS, HistogramView};
use crate::app::panels::why::corners;
use crate::app::scene::{class_style, instance};
use crate::app::state::State;
use crate::geometry::BBox;
use crate::render::{BoxColor, BoxFilter, BoxInstance, BoxLayer, BoxLook, BoxStyle, Scene, Stages};
use crate::trace::Trace;
use egui::{Grid, Panel, RichText, ScrollArea, Slider, SliderClamping, Ui};
use stages::{Life, Numbers, SHARES, best_iou, lives, numbers};
use std::sync::Arc;

/// The panel's buffers.
const VIEW_ID: u64 = 23;
const OVERLAPS: u64 = 1;
/// Boxes take so long from stage to stage, seconds.
const TRAVEL: f32 = 0.2;

/// Scratch of the panel.
#[derive(Debug)]
pub struct ProposalsPanel {
    pub canvas: Canvas,
    /// 0 for the anchors, then one more for each stage; between them boxes are on their way.
    place: f32,
    /// Where boxes are drawn: on its way to `place`.
    drawn_at: f32,
    /// Best boxes that are shown.
    most: usize,
    /// Lowest IoU shown; lowest score without objects.
    least: f32,
    /// Bars of the histograms.
    bins: u32,
    /// One of the lives.
    selected: Option<usize>,
    image: Option<Image>,
    versions: u64,
    style: Arc<BoxStyle>,
}

/// What one image gives.
#[derive(Debug)]
struct Image {
    of: u64,
    lives: Vec<Life>,
    numbers: Vec<Numbers>,
    drawn: Option<Drawn>,
    truth: Arc<Vec<BoxInstance>>,
    /// The best IoU of every box, by stage.
    overlaps: Arc<Samples>,
}

/// The best boxes at every place of their lives.
#[derive(Debug)]
struct Drawn {
    /// How many were asked for, and how many there are.
    most: usize,
    each: usize,
    version: u64,
    /// Anchors, then stage after stage, each worst first; score is the IoU with the best object, or without objects the
    /// last stage's score, and NaN where the stage does not have the box.
    boxes: Arc<Vec<BoxInstance>>,
}

impl Image {
    fn new(of: u64, trace: &Trace) -> Self {
        let truth = trace.objects.iter().map(|o| instance(trace, o.bbox, 1.0, o.class)).collect();
        let numbers = numbers(trace);
        let overlaps = Arc::new(overlaps(of, &numbers));
        Self { of, lives: lives(trace), numbers, drawn: None, truth: Arc::new(truth), overlaps }
    }
}

impl Default for ProposalsPanel {
    fn default() -> Self {
        Self {
            canvas: Canvas::default(),
            place: 1.0,
            drawn_at: 1.0,
            most: 100,
            least: 0.0,
            bins: 20,
            selected: None,
            image: None,
            versions: 0,
            style: Arc::new(class_style()),
        }
    }
}

impl ProposalsPanel {
    /// Goes to the next stage, or to the one before.
    pub fn advance(&mut self, by: i64) {
        let last = self.image.as_ref().map_or(1, |image| image.numbers.len().max(2) - 1);
        let next = if by > 0 { self.place.floor() + by as f32 } else { self.place.ceil() + by as f32 };
        self.place = next.clamp(0.0, last as f32);
    }

    pub fn ui(&mut self, ui: &mut Ui, state: &State, backdrop: Option<Scene>) {
        let (Some(shown), Some(backdrop)) = (state.shown.clone(), backdrop) else {
            ui.label("Open an image to see its proposals.");
            return;
        };
        let Some(trace) = shown.trace.as_deref() else {
            ui.label("The model has not run on this image yet.");
            return;
        };
        if trace.stages().is_empty() {
            ui.label(
                "This detector has no proposals: it decides in one step. Two-stage R-CNNs, cascades and RefineDet have.",
            );
            return;
        }
        if self.image.as_ref().is_none_or(|image| image.of != state.shown_version) {
            let image = Image::new(state.shown_version, trace);
            self.selected = None;
            self.place = self.place.min(image.numbers.len() as f32 - 1.0);
            self.drawn_at = self.place;
            self.image = Some(image);
        }
        Panel::right("proposal settings").resizable(true).default_size(340.0).show(ui, |ui| {
            ScrollArea::both().auto_shrink(false).show(ui, |ui| {
                self.scrubber(ui, trace);
                self.life(ui, trace);
                if let Some(image) = &self.image {
                    table(ui, &image.numbers);
                    spread(ui, &image.numbers);
                    histograms(ui, image, &mut self.bins);
                }
            });
        });
        self.draw_boxes(trace);
        self.drawn_at = self.nearer(ui.style().animation_time, ui.input(|i| i.stable_dt));
        if self.drawn_at != self.place {
            ui.ctx().request_repaint();
        }
        let chosen = self.selected.and_then(|s| self.image.as_ref()?.lives.get(s)?.at(self.place));
        let frame = self.canvas.frame(ui, &shown, chosen.map(|b| trace.to_original(b)));
        if let Some([x, y]) = frame.at.filter(|_| frame.response.clicked()) {
            self.selected = self.life_at(trace, x, y);
        }
        frame.paint(ui, VIEW_ID, self.scene(backdrop, self.drawn_at));
    }

    /// Where boxes are drawn `seconds` after the last frame: at `place` at once where animations are off
    /// (`animation_time` 0).
    fn nearer(&self, animation_time: f32, seconds: f32) -> f32 {
        let left = self.place - self.drawn_at;
        // A farther way is gone faster.
        let step = seconds / TRAVEL * left.abs().max(1.0);
        if animation_time > 0.0 && step < left.abs() { self.drawn_at + step.copysign(left) } else { self.place }
    }

    /// Lays out the best boxes of all stages, when their number changed. The way between stages is the shader's.
    fn draw_boxes(&mut self, trace: &Trace) {
        let Some(image) = &mut self.image else { return };
        if image.drawn.as_ref().is_some_and(|drawn| drawn.most == self.most) {
            return;
        }
        self.versions += 1;
        let objects: Vec<BBox> = trace.objects.iter().map(|o| o.bbox).collect();
        let best = || image.lives.iter().take(self.most).rev();
        let at = |stage: usize, life: &Life| match life.path.get(stage) {
            Some(&bbox) => instance(trace, bbox, best_iou(bbox, &objects).unwrap_or(life.score), 0),
            None => BoxInstance::new([0.0; 4], f32::NAN, 0),
        };
        let boxes = (0..image.numbers.len()).flat_map(|stage| best().map(move |life| (stage, life)));
        let boxes: Vec<BoxInstance> = boxes.map(|(stage, life)| at(stage, life)).collect();
        let (most, each) = (self.most, best().len());
        image.drawn = Some(Drawn { most, each, version: self.versions, boxes: Arc::new(boxes) });
    }

    /// The picture with objects and boxes at a place of their lives over it.
    pub fn scene(&self, backdrop: Scene, place: f32) -> Scene {
        let Some(image) = &self.image else { return backdrop };
        let Some(drawn) = &image.drawn else { return backdrop };
        let layer = |version: u64, boxes: &Arc<Vec<BoxInstance>>, filter: BoxFilter, look: BoxLook| BoxLayer {
            version,
            boxes: boxes.clone(),
            style: self.style.clone(),
            filter,
            look,
        };
        let look = BoxLook {
            color: BoxColor::Score,
            line_width: 1.5,
            selected: self.selected.and_then(|s| drawn.each.checked_sub(s + 1)).map(|at| at as u32),
            stages: Some(Stages { each: drawn.each as u32, place }),
            ..BoxLook::default()
        };
        let filter =
            BoxFilter { score_min: if self.least > 0.0 { self.least } else { f32::MIN }, ..BoxFilter::default() };
        let truth = layer(image.of, &image.truth, BoxFilter::default(), BoxLook::default());
        Scene { boxes: vec![truth, layer(drawn.version, &drawn.boxes, filter, look)], ..backdrop }
    }

    /// The life whose box is the smallest under a point of the picture, among those shown.
    fn life_at(&self, trace: &Trace, x: f32, y: f32) -> Option<usize> {
        let lives = &self.image.as_ref()?.lives;
        let objects: Vec<BBox> = trace.objects.iter().map(|o| o.bbox).collect();
        let boxes = lives.iter().take(self.most).enumerate().filter_map(|(index, life)| {
            let bbox = life.at(self.place)?;
            let counts = best_iou(bbox, &objects).unwrap_or(life.score) >= self.least;
            let bbox = trace.to_original(bbox);
            (counts && bbox.contains(x, y)).then_some((index, bbox.area()))
        });
        boxes.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(index, _)| index)
    }

    fn scrubber(&mut self, ui: &mut Ui, trace: &Trace) {
        let Some(image) = &self.image else { return };
        let last = image.numbers.len().max(2) - 1;
        let slider = ui.add(Slider::new(&mut self.place, 0.0..=last as f32).fixed_decimals(2).text("stage"));
        // The boxes follow the hand without delay.
        if slider.changed() {
            self.drawn_at = self.place;
        }
        slider.on_hover_text("From the anchors through each stage's regression; “.” and “,” go one stage on and back");
        let mut by = 0;
        ui.horizontal(|ui| {
            if ui.add_enabled(self.place > 0.0, egui::Button::new("Previous stage")).clicked() {
                by = -1;
            }
            if ui.add_enabled(self.place < last as f32, egui::Button::new("Next stage")).clicked() {
                by = 1;
            }
        });
        let name = |index: usize| image.numbers.get(index).map_or("", |n| n.name.as_str());
        let (from, to) = (self.place.floor() as usize, self.place.ceil() as usize);
        let text = if from == to {
            format!("Boxes of {}", name(from))
        } else {
            format!("From {} to {}", name(from), name(to))
        };
        ui.label(RichText::new(text).strong());
        let most = image.lives.len().max(1);
        // An image with few boxes must not lower the number for the next one.
        let slider = Slider::new(&mut self.most, 1..=most).logarithmic(true).clamping(SliderClamping::Edits);
        ui.add(slider.text("best boxes")).on_hover_text("As many boxes are shown, best score of the last stage first");
        let least = if trace.objects.is_empty() { "score at least" } else { "IoU at least" };
        ui.add(Slider::new(&mut self.least, 0.0..=1.0).fixed_decimals(2).text(least))
            .on_hover_text("Colour and filter go by the IoU with the best object, or by score where there is none");
        if by != 0 {
            self.advance(by);
        }
    }

    /// The life of the selected box, stage by stage.
    fn life(&self, ui: &mut Ui, trace: &Trace) {
        let life = self.selected.and_then(|s| self.image.as_ref()?.lives.get(s));
        let Some(life) = life else {
            ui.weak("Click a box to follow its life.");
            return;
        };
        let objects: Vec<BBox> = trace.objects.iter().map(|o| o.bbox).collect();
        let number = |value: Option<f32>| value.map_or("—".to_string(), |v| format!("{v:.3}"));
        Grid::new("life of a box").num_columns(4).striped(true).show(ui, |ui| {
            for title in ["stage", "score", "IoU", "box of the network's input"] {
                ui.weak(title);
            }
            ui.end_row();
            for (index, bbox) in life.path.iter().enumerate() {
                let stage = index.checked_sub(1).and_then(|at| Some((trace.stages().get(at)?, life.rows.get(at)?)));
                match stage {
                    Some((stage, _)) => ui.label(&stage.name),
                    None => ui.label(format!("anchor {}", life.anchor)),
                };
                ui.label(number(stage.and_then(|(stage, row)| stage.scores.get(*row as usize).copied())));
                ui.label(number(best_iou(*bbox, &objects)));
                ui.label(corners(*bbox));
                ui.end_row();
            }
        });
    }
}

fn table(ui: &mut Ui, numbers: &[Numbers]) {
    ui.separator();
    let percent = |share: Option<f32>| share.map_or("—".to_string(), |s| format!("{:.1} %", s * 100.0));
    Grid::new("proposal stages").num_columns(7).striped(true).show(ui, |ui| {
        for title in ["stage", "boxes", "mean IoU"] {
            ui.weak(title);
        }
        for share in SHARES {
            ui.weak(format!("IoU ≥ {share}"));
        }
        ui.weak("positive").on_hover_text("At or above the IoU from which the stage calls a proposal positive");
        ui.end_row();
        for stage in numbers {
            ui.label(&stage.name);
            ui.label(stage.count.to_string());
            let overlap = stage.overlap.as_ref();
            ui.label(overlap.map_or("—".to_string(), |o| format!("{:.3}", o.mean)));
            for index in 0..SHARES.len() {
                ui.label(percent(overlap.map(|o| o.shares[index])));
            }
            let at = stage.threshold.map(|t| format!(" at {t:.2}")).unwrap_or_default();
            ui.label(format!("{}{at}", percent(overlap.and_then(|o| o.positives))));
            ui.end_row();
        }
    });
}

/// Mean and deviation of the regression, stage by stage.
fn spread(ui: &mut Ui, numbers: &[Numbers]) {
    ui.separator();
    ui.label(RichText::new("Spread of the regression").strong()).on_hover_text(
        "δ from each box to the next: dx and dy over the sides, dw and dh as logarithms; mean ± standard deviation",
    );
    Grid::new("regression spread").num_columns(6).striped(true).show(ui, |ui| {
        for title in ["stage", "boxes", "dx", "dy", "dw", "dh"] {
            ui.weak(title);
        }
        ui.end_row();
        for stage in numbers {
            let Some(deltas) = &stage.deltas else { continue };
            ui.label(&stage.name);
            let which = if deltas.of_positives { "positives" } else { "all" };
            ui.label(format!("{} {which}", deltas.count));
            for (mean, deviation) in deltas.mean.iter().zip(deltas.deviation) {
                ui.label(format!("{mean:+.2} ± {deviation:.2}"));
            }
            ui.end_row();
        }
    });
}

/// A histogram of each stage. `bins` is how many bars they have.
fn histograms(ui: &mut Ui, image: &Image, bins: &mut u32) {
    if image.overlaps.values.is_empty() {
        return;
    }
    ui.separator();
    ui.label(RichText::new("IoU with the best object").strong());
    ui.add(Slider::new(bins, BINS).text("bins")).on_hover_text("Bars of each histogram");
    for (index, stage) in image.numbers.iter().enumerate() {
        let Some(overlap) = &stage.overlap else { continue };
        let positives = match (stage.threshold, overlap.positives) {
            (Some(threshold), Some(share)) => format!(": {:.1} % positive from IoU {threshold:.2}", share * 100.0),
            _ => String::new(),
        };
        ui.label(format!("{}{positives}", stage.name));
        let view = HistogramView {
            id: (OVERLAPS, index),
            samples: &image.overlaps,
            group: Some(index as u32),
            bins: *bins,
            threshold: stage.threshold,
            things: "boxes",
            axis: "IoU",
            width: ui.available_width().clamp(120.0, 320.0),
        };
        view.ui(ui);
    }
}

/// The best IoU of every box, by stage.
fn overlaps(of: u64, numbers: &[Numbers]) -> Samples {
    let mut samples = Samples { version: of, ..Samples::default() };
    for (stage, overlap) in (0..).zip(numbers.iter().map(|numbers| &numbers.overlap)) {
        let values = overlap.iter().flat_map(|overlap| &overlap.values);
        samples.values.extend(values);
        samples.groups.resize(samples.values.len(), stage);
    }
    samples
}

#[cfg(test)]
mod tests {
    use super::stages::Overlap;
    use super::*;
    use crate::geometry::Object;
    use crate::render::ImageLook;
    use crate::trace::{Anchors, ProposalStage};

    /// Two anchors of an ARM; the second is filtered before the ODM.
    fn trace() -> Trace {
        let square = |x: f32| BBox::new(x, 0.0, x + 10.0, 10.0);
        let stage = |name: &str, x: f32, scores: Vec<f32>| ProposalStage {
            name: name.into(),
            boxes: vec![square(x), square(60.0 + x)],
            scores,
            parent: vec![0, 1],
            ..ProposalStage::default()
        };
        Trace {
            objects: vec![Object { bbox: square(8.0), ..Object::default() }],
            anchors: Anchors { boxes: vec![square(0.0), square(60.0)], levels: Vec::new() },
            proposals: vec![stage("ARM", 4.0, vec![0.9, 0.005]), stage("ODM", 8.0, vec![0.8, 0.0])],
            ..Trace::default()
        }
    }

    fn panel() -> ProposalsPanel {
        let mut panel = ProposalsPanel { image: Some(Image::new(1, &trace())), ..ProposalsPanel::default() };
        panel.draw_boxes(&trace());
        panel
    }

    fn backdrop() -> Scene {
        let pixels = Arc::new(vec![0; 4]);
        Scene { version: 1, width: 1, height: 1, pixels, look: ImageLook::default(), heat: None, boxes: Vec::new() }
    }

    #[test]
    fn overlaps_of_all_stages_are_told_apart_by_their_place() {
        let stage = |values: Vec<f32>| Numbers {
            name: String::new(),
            count: values.len(),
            threshold: None,
            overlap: Some(Overlap { mean: 0.0, shares: [0.0; 3], positives: None, values }),
            deltas: None,
        };
        let bare = Numbers { overlap: None, ..stage(Vec::new()) };
        let found = overlaps(3, &[stage(vec![0.1, 0.2]), bare, stage(vec![0.9])]);
        assert_eq!((found.version, found.values, found.groups), (3, vec![0.1, 0.2, 0.9], vec![0, 0, 2]));
    }

    #[test]
    fn scrubbing_changes_a_uniform_and_no_boxes() {
        let mut panel = panel();
        let first = panel.scene(backdrop(), 0.0).boxes.remove(1);
        for place in [0.0, 0.3, 1.0, 1.99, 2.0] {
            (panel.place, panel.drawn_at) = (place, place);
            panel.draw_boxes(&trace());
            let layer = panel.scene(backdrop(), place).boxes.remove(1);
            assert!(layer.version == first.version && Arc::ptr_eq(&layer.boxes, &first.boxes), "{place}");
            assert_eq!(layer.look.stages, Some(Stages { each: 2, place }));
        }
        // three stages of two boxes, the better one last
        assert_eq!(first.boxes.len(), 6);
        assert_eq!([1, 3, 5].map(|at| first.boxes[at].bbox[0]), [0.0, 4.0, 8.0]);
        assert!(first.boxes[5].score > 0.99 && first.boxes[2].score == 0.0 && first.boxes[4].score.is_nan());
        panel.most = 1;
        panel.draw_boxes(&trace());
        assert_ne!(panel.scene(backdrop(), 0.0).boxes[1].version, first.version);
    }

    #[test]
    fn a_click_finds_only_boxes_that_are_shown() {
        let mut panel = panel();
        // The ARM's boxes at (4, 0) and (64, 0); the object lies at (8, 0), so the second one does not touch it.
        panel.place = 1.0;
        assert_eq!([5.0, 65.0].map(|x| panel.life_at(&trace(), x, 5.0)), [Some(0), Some(1)]);
        panel.least = 0.3;
        assert_eq!([5.0, 65.0].map(|x| panel.life_at(&trace(), x, 5.0)), [Some(0), None]);
    }

    #[test]
    fn boxes_travel_for_a_fifth_of_a_second_and_not_at_all_without_animations() {
        let mut panel = panel();
        panel.advance(1);
        assert_eq!((panel.place, panel.drawn_at), (2.0, 1.0));
        assert_eq!(panel.nearer(0.0, 0.016), 2.0);
        assert!((panel.nearer(0.1, 0.05) - 1.25).abs() < 1e-6);
        assert_eq!(panel.nearer(0.1, 0.2), 2.0);
        panel.drawn_at = 2.0;
        panel.place = 0.0;
        assert!((panel.nearer(0.1, 0.1) - 1.0).abs() < 1e-6, "a farther way is gone faster");
    }
}
