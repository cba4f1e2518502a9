//! Anchors panel: priors by level, shape and assignment over the image, and what other thresholds and ratios would do.

mod controls;
pub mod figure;
mod live;

use crate::app::action::Action;
use crate::app::panels::canvas::Canvas;
use crate::app::scene::{class_style, instance, traced_object};
use crate::app::state::State;
use crate::detect::{Arch, Config};
use crate::geometry::BBox;
use crate::geometry::iou::iou;
use crate::render::{BoxAssignment, BoxColor, BoxFilter, BoxInstance, BoxLayer, BoxLook, BoxStyle, Scene};
use crate::trace::{Anchors, Trace};
use egui::{Color32, Panel, ScrollArea, Stroke, StrokeKind, Ui};
use live::{Live, Matching, Shapes, Spec, matching_of};
use std::collections::HashSet;
use std::sync::Arc;

/// The panel's buffers.
const VIEW_ID: u64 = 21;

/// Scratch of the panel.
#[derive(Debug)]
pub struct AnchorsPanel {
    pub canvas: Canvas,
    /// Settings of the detector that the moved ones began from.
    arch: Option<Arch>,
    own: Option<Matching>,
    rule: Option<Matching>,
    spec: Option<Spec>,
    shapes: Option<Shapes>,
    /// Show and match the anchors as the first stage moved them, where there is such a stage.
    refined: bool,
    made: Option<Made>,
    /// Counts what was made.
    versions: u64,
    style: Arc<BoxStyle>,
    levels: u32,
    assignments: u32,
    iou_min: f32,
    /// Position within the cell.
    shape: Option<u32>,
    color: BoxColor,
    /// A point of the picture: only the anchors of its cells are shown.
    cell: Option<[f32; 2]>,
}

/// What one image and one choice of settings give.
#[derive(Debug)]
struct Made {
    /// Version of the image on show, and the selected object of its trace.
    of: (u64, Option<usize>),
    live: Live,
    version: u64,
    boxes: Arc<Vec<BoxInstance>>,
    /// Anchors by [`BoxAssignment`].
    counts: [usize; 5],
    /// The anchors of the chosen cells.
    in_cell: Option<(u64, Arc<Vec<BoxInstance>>)>,
    truth: Arc<Vec<BoxInstance>>,
}

impl Default for AnchorsPanel {
    fn default() -> Self {
        Self {
            canvas: Canvas::default(),
            arch: None,
            own: None,
            rule: None,
            spec: None,
            shapes: None,
            refined: true,
            made: None,
            versions: 0,
            style: Arc::new(class_style()),
            levels: u32::MAX,
            // Without the negatives, which cover everything.
            assignments: !(1 << BoxAssignment::Negative as u32),
            iou_min: 0.0,
            shape: None,
            color: BoxColor::Assignment,
            cell: None,
        }
    }
}

/// What a frame asks to be made again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Stale {
    #[default]
    Nothing,
    /// The chosen cell.
    Cell,
    Matching,
    Anchors,
}

impl AnchorsPanel {
    pub fn ui(&mut self, ui: &mut Ui, state: &State, backdrop: Option<Scene>, actions: &mut Vec<Action>) {
        let (Some(shown), Some(backdrop)) = (state.shown.clone(), backdrop) else {
            ui.label("Open an image to see its anchors.");
            return;
        };
        let Some(trace) = shown.trace.as_deref().filter(|t| !t.anchors.boxes.is_empty()) else {
            ui.label(if shown.detected { "This detector has no anchors." } else { "The model has not run yet." });
            return;
        };
        let config = state.config();
        self.follow(config);
        let selected = state.object.and_then(|o| traced_object(&shown, o));
        let of = (state.shown_version, selected);
        if self.made.as_ref().is_none_or(|made| made.of.0 != of.0) {
            self.spec = config.and_then(|config| Spec::of(config, trace));
        }
        if self.made.as_ref().is_none_or(|made| made.of != of) {
            self.make(trace, of, Stale::Anchors);
        }
        let mut stale = Stale::Nothing;
        Panel::right("anchor settings").resizable(true).default_size(300.0).show(ui, |ui| {
            ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
                stale = stale.max(self.filters(ui, trace));
                stale = stale.max(self.thresholds(ui));
                stale = stale.max(self.ratios(ui));
                self.recall(ui);
                self.objects(ui, &shown, selected, actions);
            });
        });
        let frame = self.canvas.frame(ui, &shown, state.object.and_then(|o| shown.objects.get(o)).map(|o| o.bbox));
        if frame.fresh && self.cell.take().is_some() {
            stale = stale.max(Stale::Cell);
        }
        if let Some([x, y]) = frame.at.filter(|_| frame.response.clicked()) {
            let under = shown.objects.iter().enumerate().filter(|(_, o)| !o.crowd && o.bbox.contains(x, y));
            let smallest = under.min_by(|a, b| a.1.bbox.area().total_cmp(&b.1.bbox.area()));
            let other = smallest.map(|(index, _)| index).filter(|index| state.object != Some(*index));
            actions.push(Action::SelectObject(other));
            if smallest.is_none() {
                self.cell = Some([x, y]);
                stale = stale.max(Stale::Cell);
            }
        }
        if stale != Stale::Nothing {
            self.make(trace, of, stale);
        }
        let painter = frame.paint(ui, VIEW_ID, self.scene(backdrop));
        if let Some(object) = state.object.and_then(|o| shown.objects.get(o)) {
            let stroke = Stroke::new(2.0, Color32::WHITE);
            painter.rect_stroke(frame.bounds(object.bbox), 0.0, stroke, StrokeKind::Outside);
        }
    }

    /// Takes over the settings of another detector, and drops moved ones that were of the one before.
    fn follow(&mut self, config: Option<&Config>) {
        let arch = config.map(Config::arch);
        let own = config.and_then(matching_of);
        if self.arch != arch || self.own != own {
            (self.arch, self.own, self.rule, self.shapes) = (arch, own, None, None);
            (self.levels, self.shape) = (u32::MAX, None);
            self.made = None;
        }
    }

    /// Whether the trace's own assignment is what is shown.
    fn is_recorded(&self, trace: &Trace) -> bool {
        self.rule.is_none() && self.shapes.is_none() && (self.refined || first_stage(trace).is_none())
    }

    fn make(&mut self, trace: &Trace, of: (u64, Option<usize>), stale: Stale) {
        self.versions += 1;
        let version = self.versions;
        let recorded = trace.assignment.as_ref().filter(|_| self.is_recorded(trace));
        let rule = if recorded.is_some() { None } else { self.rule.or(self.own) };
        let old = self.made.take().filter(|made| made.of.0 == of.0);
        let (mut live, mut boxes, mut boxes_version, same_object) = match old {
            Some(old) => (Some(old.live), Some(old.boxes), old.version, old.of == of),
            None => (None, None, version, false),
        };
        if live.is_none() || (stale == Stale::Anchors && same_object) {
            let anchors = match (&self.spec, &self.shapes) {
                (Some(spec), Some(shapes)) => spec.anchors(trace, shapes),
                _ => match first_stage(trace).filter(|_| self.refined) {
                    Some(moved) => Anchors { boxes: moved.to_vec(), levels: trace.anchors.levels.clone() },
                    None => trace.anchors.clone(),
                },
            };
            live = Some(Live::new(anchors, trace, rule.as_ref(), recorded));
        } else if stale == Stale::Matching
            && let Some(live) = &mut live
        {
            live.match_again(trace, rule.as_ref(), recorded);
        }
        let live = live.unwrap_or_default();
        if stale >= Stale::Matching || boxes.is_none() {
            boxes = Some(Arc::new(instances(&live, trace, of.1)));
            boxes_version = version;
        }
        let boxes = boxes.unwrap_or_default();
        let in_cell = self.cell.map(|[x, y]| {
            let point = trace.to_input(BBox::new(x, y, x, y));
            let members = live.cell(point.x0, point.y0);
            // A version of its own: the same buffer shows either all anchors or these.
            (u64::MAX - version, Arc::new(members.iter().filter_map(|&i| boxes.get(i).copied()).collect()))
        });
        let mut counts = [0; 5];
        for one in boxes.iter() {
            if let Some(count) = counts.get_mut(((one.flags >> 3) & 0b111) as usize) {
                *count += 1;
            }
        }
        let truth = trace.objects.iter().map(|o| instance(trace, o.bbox, 1.0, o.class)).collect();
        self.made = Some(Made { of, live, version: boxes_version, boxes, counts, in_cell, truth: Arc::new(truth) });
    }

    /// The picture with the chosen anchors over it; choosing among them moves uniforms alone.
    pub fn scene(&self, backdrop: Scene) -> Scene {
        let Some(made) = &self.made else { return backdrop };
        let (version, boxes, assignments) = match &made.in_cell {
            Some((version, boxes)) => (*version, boxes, u32::MAX),
            None => (made.version, &made.boxes, self.assignments),
        };
        let filter = BoxFilter {
            levels: self.levels,
            assignments,
            isolated_class: self.shape,
            score_min: if self.iou_min > 0.0 { self.iou_min } else { f32::MIN },
            ..BoxFilter::default()
        };
        let look = BoxLook { color: self.color, line_width: 1.0, opacity: 0.8, ..BoxLook::default() };
        let layer = |version: u64, boxes: &Arc<Vec<BoxInstance>>, filter: BoxFilter, look: BoxLook| BoxLayer {
            version,
            boxes: boxes.clone(),
            style: self.style.clone(),
            filter,
            look,
        };
        let truth_look = BoxLook { line_width: 2.5, ..BoxLook::default() };
        let boxes =
            vec![layer(version, boxes, filter, look), layer(made.of.0, &made.truth, BoxFilter::default(), truth_look)];
        Scene { boxes, ..backdrop }
    }
}

/// The boxes of a first stage that moved every anchor and left out none (RefineDet's).
fn first_stage(trace: &Trace) -> Option<&[BBox]> {
    let first = trace.stages().first().filter(|stage| stage.boxes.len() == trace.anchors.boxes.len())?;
    let identity = first.parent.iter().enumerate().all(|(index, &parent)| index == parent as usize);
    (identity && first.parent.len() == first.boxes.len()).then_some(first.boxes.as_slice())
}

/// Anchors for the shader: score is the IoU with `object`, or the best with any; class the place within the cell.
fn instances(live: &Live, trace: &Trace, object: Option<usize>) -> Vec<BoxInstance> {
    let object = object.and_then(|o| trace.objects.get(o)).map(|o| o.bbox);
    let mined: HashSet<u32> = trace.sampling.iter().filter(|s| !s.positive).map(|s| s.anchor).collect();
    let mined = if live.anchors.boxes.len() == trace.anchors.boxes.len() { mined } else { HashSet::new() };
    let assignment = live.assignment.as_ref();
    let mut boxes = Vec::with_capacity(live.anchors.boxes.len());
    for (number, level) in live.anchors.levels.iter().enumerate() {
        let range = level.start..level.start + level.len;
        for (offset, &bbox) in live.anchors.boxes.get(range).unwrap_or_default().iter().enumerate() {
            let index = level.start + offset;
            let best = assignment.and_then(|a| a.iou.get(index)).copied().unwrap_or(1.0);
            let score = object.map_or(best, |object| iou(bbox, object));
            let kind = match assignment.and_then(|a| a.target.get(index)).copied() {
                None => BoxAssignment::None,
                Some(0..) => BoxAssignment::Positive,
                Some(-1) if mined.contains(&(index as u32)) => BoxAssignment::Mined,
                Some(-1) => BoxAssignment::Negative,
                Some(_) => BoxAssignment::Ignored,
            };
            let place = (offset % level.per_cell.max(1)) as u32;
            boxes.push(instance(trace, bbox, score, place).with_level(number as u32).with_assignment(kind));
        }
    }
    boxes
}
