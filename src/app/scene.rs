//! From what the engine shows to what is drawn: the same for the window and for `boxwright render`.

pub use crate::app::choice::Choice;

use crate::app::outcome::{Coloring, OUTCOMES, bytes, judge, letter, outcome_of};
use crate::engine::Shown;
use crate::eval::Verdict;
use crate::geometry::{BBox, Mask};
use crate::imaging::draw::class_color;
use crate::render::{
    BoxAssignment, BoxColor, BoxFilter, BoxInstance, BoxLayer, BoxLook, BoxStyle, CLASS_LIMIT, ColorMap, HeatLayer,
    HeatmapLook, ImageLook, LineStyle, Outcome, Scene,
};
use crate::trace::reduce::Reduction;
use crate::trace::{FeatureMap, Trace};
use std::sync::Arc;

/// Opacity of the masks of detections, and of those of ground truth below them.
pub const MASK: f32 = 0.4;
pub const TRUTH_MASK: f32 = 0.25;

/// Boxes, and the parts of their masks in the same colours.
#[derive(Debug, Default)]
pub struct Marks {
    pub boxes: Arc<Vec<BoxInstance>>,
    pub masks: Arc<Vec<BoxInstance>>,
}

impl Marks {
    /// Masks of another size than the picture are left out. Marks of one list have levels of their own: the parts of a
    /// mask are told by them.
    pub fn new<'a>(marks: impl Iterator<Item = (BoxInstance, Option<&'a Mask>)>, size: (u32, u32)) -> Self {
        let (mut boxes, mut masks) = (Vec::new(), Vec::new());
        for (mark, mask) in marks {
            boxes.push(mark);
            if let Some(mask) = mask.filter(|mask| (mask.width, mask.height) == size) {
                let part = |b: BBox| BoxInstance { bbox: corners(b), ..mark }.with_style(LineStyle::Solid);
                masks.extend(mask.rectangles().into_iter().map(part));
            }
        }
        Self { boxes: Arc::new(boxes), masks: Arc::new(masks) }
    }

    fn with_outcome(&self, outcome: Outcome) -> Self {
        let changed = |marks: &[BoxInstance]| Arc::new(marks.iter().map(|mark| mark.with_outcome(outcome)).collect());
        Self { boxes: changed(&self.boxes), masks: changed(&self.masks) }
    }
}

/// Text at a box.
#[derive(Clone, Debug, PartialEq)]
pub struct Caption {
    /// Pixels of the picture.
    pub bbox: BBox,
    pub text: String,
    /// What stands there where there is no room for all of it.
    pub short: &'static str,
    pub color: [u8; 3],
}

/// Buffers of one shown image, made once; filters and looks are put on per frame.
#[derive(Debug)]
pub struct Prepared {
    version: u64,
    width: u32,
    height: u32,
    pixels: Arc<Vec<u8>>,
    style: Arc<BoxStyle>,
    /// Whether there are verdicts.
    judged: bool,
    /// Lowest score first, so that better boxes lie on top; all lines solid.
    predictions: Marks,
    /// The same boxes with their lines by outcome.
    by_outcome: Arc<Vec<BoxInstance>>,
    /// The score of a truth box is that of the detection that takes it, −1 when none does; ignored ones, and all where
    /// nothing is judged, have the highest one.
    truth: Marks,
    /// The same as missed objects; empty where nothing is judged.
    missed: Marks,
    anchors: Arc<Vec<BoxInstance>>,
    heat: Option<Heat>,
}

/// The map that is laid over the picture.
#[derive(Debug)]
struct Heat {
    name: String,
    reduction: Reduction,
    layer: HeatLayer,
}

impl Prepared {
    /// `version` must differ between images.
    pub fn new(shown: &Shown, version: u64) -> Self {
        let verdicts = judge(shown);
        let judged = verdicts.is_some();
        let verdicts = verdicts.unwrap_or_default();
        let size = (shown.picture.width, shown.picture.height);
        let mark = |index: usize, bbox: BBox, score: f32, class: u32, outcome: Outcome| {
            BoxInstance::new(corners(bbox), score, class).with_level(index as u32).with_outcome(outcome)
        };
        let predictions = shown.detections.iter().enumerate().rev().map(|(index, d)| {
            let outcome = verdicts.detections.get(index).map_or(Outcome::None, outcome_of);
            (mark(index, d.bbox, d.score, d.class, outcome).with_style(LineStyle::Solid), d.mask.as_ref())
        });
        let predictions = Marks::new(predictions, size);
        let by_outcome = predictions.boxes.iter().map(|mark| mark.with_style(LineStyle::ByOutcome)).collect();
        let mut found_from = vec![if judged { -1.0 } else { f32::MAX }; shown.objects.len()];
        for (verdict, d) in verdicts.detections.iter().zip(&shown.detections) {
            if let (Verdict::TruePositive, Some(object)) = (verdict.verdict, verdict.truth) {
                found_from[object] = d.score;
            }
        }
        let truth = shown.objects.iter().zip(found_from).enumerate().map(|(index, (object, found))| {
            let ignored = object.crowd || object.difficult;
            let (score, outcome) = if ignored { (f32::MAX, Outcome::Ignored) } else { (found, Outcome::TruePositive) };
            (mark(index, object.bbox, score, object.class, outcome), object.mask.as_ref())
        });
        let truth = Marks::new(truth, size);
        Self {
            version,
            width: size.0,
            height: size.1,
            pixels: Arc::new(shown.picture.rgba()),
            style: Arc::new(class_style()),
            judged,
            missed: if judged { truth.with_outcome(Outcome::FalseNegative) } else { Marks::default() },
            predictions,
            by_outcome: Arc::new(by_outcome),
            truth,
            anchors: Arc::new(shown.trace.as_deref().map(positive_anchors).unwrap_or_default()),
            heat: None,
        }
    }

    /// The picture alone, for a view that lays its own boxes over it. Shares the pixels.
    pub fn picture(&self) -> Scene {
        Scene {
            version: self.version,
            width: self.width,
            height: self.height,
            pixels: self.pixels.clone(),
            look: ImageLook::default(),
            heat: None,
            boxes: Vec::new(),
        }
    }

    /// Objects that no detection at or above `score` finds, as indices; ignored ones are not asked for.
    pub fn missed(&self, score: f32) -> Vec<usize> {
        let lost = self.missed.boxes.iter().enumerate().filter(|(_, object)| object.score < score);
        lost.map(|(index, _)| index).collect()
    }

    /// Objects that can be missed.
    pub fn asked(&self) -> usize {
        self.truth.boxes.iter().filter(|object| object.outcome() != Outcome::Ignored).count()
    }

    /// Whether the evaluation has verdicts on the detections: objects of the model's classes are there, and it has run.
    pub fn is_judged(&self) -> bool {
        self.judged
    }

    pub fn has_masks(&self) -> bool {
        !(self.predictions.masks.is_empty() && self.truth.masks.is_empty())
    }

    fn prediction(&self, index: usize) -> Option<&BoxInstance> {
        self.predictions.boxes.iter().rev().nth(index)
    }

    /// What becomes of detection `index`, whatever the score threshold.
    pub fn outcome(&self, index: usize) -> Outcome {
        self.prediction(index).map_or(Outcome::None, BoxInstance::outcome)
    }

    /// What becomes of object `index` at a score threshold.
    pub fn object_outcome(&self, index: usize, score: f32) -> Outcome {
        match self.truth.boxes.get(index).filter(|_| self.judged) {
            Some(object) if object.score < score => Outcome::FalseNegative,
            Some(object) => object.outcome(),
            None => Outcome::None,
        }
    }

    /// How many detections of at least `score` come to each outcome, and how many objects are missed then.
    pub fn counts(&self, score: f32) -> [(Outcome, usize); OUTCOMES.len()] {
        let of = |outcome: Outcome| {
            let found = self.predictions.boxes.iter().filter(|mark| mark.score >= score && mark.outcome() == outcome);
            found.count()
        };
        OUTCOMES.map(|outcome| match outcome {
            Outcome::FalseNegative => (outcome, self.missed(score).len()),
            _ => (outcome, of(outcome)),
        })
    }

    /// Whether detection `index` is among what is drawn.
    pub fn shows(&self, index: usize, choice: &Choice) -> bool {
        let [above, _] = self.filters(choice);
        choice.predictions && self.prediction(index).is_some_and(|mark| above.shows(mark))
    }

    /// Whether object `index` is among what is drawn.
    pub fn shows_object(&self, index: usize, choice: &Choice) -> bool {
        let [above, below] = self.filters(choice);
        let found = self.truth.boxes.get(index).is_some_and(|mark| above.shows(mark));
        choice.shows_truth() && (found || self.missed.boxes.get(index).is_some_and(|mark| below.shows(mark)))
    }

    /// Whether colours tell errors: only where there are verdicts.
    pub fn tells_errors(&self, choice: &Choice) -> bool {
        self.color(choice) == BoxColor::Outcome
    }

    fn color(&self, choice: &Choice) -> BoxColor {
        match choice.coloring {
            Coloring::Instance => BoxColor::Instance,
            Coloring::Score => BoxColor::Score,
            Coloring::Error if self.judged => BoxColor::Outcome,
            Coloring::Class | Coloring::Error => BoxColor::Class,
        }
    }

    /// The filters of what counts from the chosen score on, and of objects that are found below it alone.
    fn filters(&self, choice: &Choice) -> [BoxFilter; 2] {
        let outcomes = if self.judged { choice.outcomes.bits() } else { u32::MAX };
        let all = BoxFilter { isolated_class: choice.isolated, outcomes, ..BoxFilter::default() };
        [BoxFilter { score_min: choice.score, ..all }, BoxFilter { score_max: choice.score.next_down(), ..all }]
    }

    /// Text at what is drawn, better detections first and missed objects last: class and score where `written`, and
    /// letters wherever colours tell errors, since a colour alone must not.
    pub fn captions(&self, shown: &Shown, choice: &Choice, written: bool) -> Vec<Caption> {
        let errors = self.tells_errors(choice);
        if !written && !errors {
            return Vec::new();
        }
        let color = self.color(choice);
        let name = |classes: &[String], class: u32| classes.get(class as usize).cloned().unwrap_or_else(|| "?".into());
        let caption = |bbox: BBox, mark: &BoxInstance, words: String| {
            let short = if errors { letter(mark.outcome()) } else { "" };
            let text = if written { format!("{short} {words}").trim_start().to_string() } else { short.to_string() };
            Caption { bbox, text, short, color: bytes(self.style.color(color, mark)) }
        };
        let found = shown.detections.iter().enumerate().filter(|(index, _)| self.shows(*index, choice));
        let found = found.filter_map(|(index, d)| {
            let words = format!("{} {:.2}", name(&shown.detection_classes, d.class), d.score);
            Some(caption(d.bbox, self.prediction(index)?, words))
        });
        let lost = self.missed(choice.score).into_iter().filter(|index| errors && self.shows_object(*index, choice));
        let lost = lost.filter_map(|index| {
            let object = shown.objects.get(index)?;
            let words = name(&shown.object_classes, object.class);
            Some(caption(object.bbox, self.missed.boxes.get(index)?, words))
        });
        found.chain(lost).collect()
    }

    /// The scene under `choice`. Only a newly chosen heat map makes new numbers; everything else is filters and looks.
    pub fn scene(&mut self, shown: &Shown, choice: &Choice) -> Scene {
        // A view keeps its buffers by position among the layers, and layers come and go: each has versions of its own.
        let version = |layer: u64| crate::random::mix(self.version.wrapping_mul(8).wrapping_add(layer));
        let mut boxes = Vec::new();
        let mut add = |layer: u64, marks: &Arc<Vec<BoxInstance>>, filter: BoxFilter, look: BoxLook| {
            if !marks.is_empty() {
                let (version, style) = (version(layer), self.style.clone());
                boxes.push(BoxLayer { version, boxes: marks.clone(), style, filter, look });
            }
        };
        let [above, below] = self.filters(choice);
        let color = self.color(choice);
        if choice.anchors {
            let look = BoxLook { color: BoxColor::Assignment, line_width: 1.0, opacity: 0.8, ..BoxLook::default() };
            add(0, &self.anchors, BoxFilter { isolated_class: choice.isolated, ..BoxFilter::default() }, look);
        }
        let of_truth = BoxLook { color: BoxColor::Outcome, ..BoxLook::default() };
        if choice.masks {
            if choice.shows_truth() {
                let look = BoxLook { line_width: 0.0, fill_opacity: TRUTH_MASK, ..of_truth };
                add(1, &self.truth.masks, above, look);
                add(2, &self.missed.masks, below, look);
            }
            if choice.predictions {
                let look = BoxLook { color, line_width: 0.0, fill_opacity: MASK, ..BoxLook::default() };
                add(3, &self.predictions.masks, above, look);
            }
        }
        if choice.boxes {
            if choice.shows_truth() {
                add(4, &self.truth.boxes, above, BoxLook { line_width: 1.5, ..of_truth });
                add(5, &self.missed.boxes, below, of_truth);
            }
            if choice.predictions {
                let last = self.predictions.boxes.len();
                let position = |index: Option<usize>| Some(last.checked_sub(index? + 1)? as u32);
                let (selected, hovered) = (position(choice.selected), position(choice.hovered));
                let look = BoxLook { color, selected, hovered, ..BoxLook::default() };
                match color {
                    BoxColor::Outcome => add(6, &self.by_outcome, above, look),
                    _ => add(7, &self.predictions.boxes, above, look),
                }
            }
        }
        self.choose_heat(shown, choice.heat.as_deref(), choice.reduction);
        Scene { heat: self.heat.as_ref().map(|heat| heat.layer.clone()), boxes, ..self.picture() }
    }

    /// Name and look of the map that is laid over the picture.
    pub fn heat(&self) -> Option<(&str, HeatmapLook)> {
        self.heat.as_ref().map(|heat| (heat.name.as_str(), heat.layer.look))
    }

    fn choose_heat(&mut self, shown: &Shown, name: Option<&str>, reduction: Reduction) {
        let current = self.heat.as_ref().map(|heat| (heat.name.as_str(), heat.reduction));
        if current == name.map(|name| (name, reduction)) {
            return;
        }
        self.heat = None;
        let Some(name) = name else { return };
        let Some(trace) = shown.trace.as_deref() else { return };
        if let Some(map) = trace.maps.iter().find(|m| m.name == name) {
            let how = format!("{name} {reduction:?}");
            let key = how.bytes().fold(self.version, |h, b| crate::random::mix(h ^ u64::from(b)));
            let layer = heat_layer(map, reduction, trace, key, self.width, self.height);
            self.heat = Some(Heat { name: name.to_string(), reduction, layer });
        }
    }
}

fn corners(b: BBox) -> [f32; 4] {
    [b.x0, b.y0, b.x1, b.y1]
}

/// Where trace and picture know the same object: the index among the trace's objects of object `index` of the picture.
/// The trace leaves crowds out.
pub fn traced_object(shown: &Shown, index: usize) -> Option<usize> {
    let trace = shown.trace.as_deref()?;
    let object = shown.objects.get(index).filter(|o| !o.crowd)?;
    let before = shown.objects.iter().take(index).filter(|o| !o.crowd).count();
    trace.objects.get(before).filter(|o| o.class == object.class).map(|_| before)
}

/// The index among the picture's objects of object `index` of the trace.
pub fn shown_object(shown: &Shown, index: usize) -> Option<usize> {
    shown.objects.iter().enumerate().filter(|(_, o)| !o.crowd).nth(index).map(|(position, _)| position)
}

/// One stable colour for each class.
pub fn class_style() -> BoxStyle {
    let color = |class: u32| {
        let [r, g, b] = class_color(class).map(|c| f32::from(c) / 255.0);
        [r, g, b, 1.0]
    };
    BoxStyle { class_colors: (0..CLASS_LIMIT as u32).map(color).collect(), ..BoxStyle::default() }
}

/// A box of the network's input as an instance in pixels of the picture.
pub fn instance(trace: &Trace, bbox: BBox, score: f32, class: u32) -> BoxInstance {
    BoxInstance::new(corners(trace.to_original(bbox)), score, class)
}

/// Positive anchors and the mined negatives of an inference trace, in original pixels.
fn positive_anchors(trace: &Trace) -> Vec<BoxInstance> {
    if trace.preprocessing.is_none() {
        return Vec::new();
    }
    let samples = trace.sampling.iter().filter_map(|sample| {
        let bbox = trace.anchors.boxes.get(sample.anchor as usize)?;
        let class = trace.assignment.as_ref().and_then(|a| {
            let target = usize::try_from(*a.target.get(sample.anchor as usize)?).ok()?;
            Some(trace.objects.get(target)?.class)
        });
        let level = trace.anchors.level_of(sample.anchor as usize).unwrap_or(0) as u32;
        let assignment = if sample.positive { BoxAssignment::Positive } else { BoxAssignment::Mined };
        let instance = instance(trace, *bbox, 1.0, class.unwrap_or(0));
        Some(instance.with_level(level).with_assignment(assignment))
    });
    let mut boxes: Vec<BoxInstance> = samples.collect();
    boxes.reverse();
    boxes
}

/// A map with its channels reduced, laid over the part of the picture that the network saw. Values of both signs get
/// colours on both sides of zero.
fn heat_layer(
    map: &FeatureMap,
    reduction: Reduction,
    trace: &Trace,
    version: u64,
    width: u32,
    height: u32,
) -> HeatLayer {
    let mut values = map.reduced(reduction);
    values.resize((map.width * map.height).max(1), f32::NAN);
    let low = values.iter().copied().filter(|v| v.is_finite()).fold(f32::INFINITY, f32::min);
    let high = values.iter().copied().filter(|v| v.is_finite()).fold(f32::NEG_INFINITY, f32::max);
    let bounds = match &trace.preprocessing {
        Some(p) => [
            -p.offset_x / p.scale_x,
            -p.offset_y / p.scale_y,
            (p.input_width as f32 - p.offset_x) / p.scale_x,
            (p.input_height as f32 - p.offset_y) / p.scale_y,
        ],
        None => [0.0, 0.0, width as f32, height as f32],
    };
    let (low, high, color_map) = match low.abs().max(high.abs()) {
        most if low < 0.0 => (-most, most, ColorMap::Diverging),
        _ if high > low => (low, high, ColorMap::Viridis),
        _ => (0.0, 1.0, ColorMap::Viridis),
    };
    let look = HeatmapLook { bounds, low, high, color_map, ..HeatmapLook::default() };
    HeatLayer { version, width: map.width as u32, height: map.height as u32, values: Arc::new(values), look }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::outcome::OutcomeFilter;
    use crate::geometry::{Detection, Object};
    use crate::imaging::picture::Picture;

    fn shown() -> Shown {
        let bbox = BBox::new(10.0, 10.0, 20.0, 20.0);
        let names = vec!["a".to_string(), "b".to_string()];
        Shown {
            index: 0,
            name: "x".into(),
            picture: Arc::new(Picture::new(64, 48, [0, 0, 0])),
            objects: vec![
                Object { bbox, class: 1, ..Object::default() },
                Object { bbox: BBox::new(40.0, 0.0, 50.0, 10.0), class: 0, ..Object::default() },
            ],
            object_classes: names.clone(),
            detections: vec![
                Detection { bbox, class: 1, score: 0.9, ..Detection::default() },
                Detection { bbox, class: 0, score: 0.2, ..Detection::default() },
            ],
            detection_classes: names,
            detected: true,
            timings: Vec::new(),
            trace: None,
        }
    }

    #[test]
    fn the_score_moves_a_filter_and_no_data() {
        let shown = shown();
        let mut prepared = Prepared::new(&shown, 7);
        for coloring in Coloring::ALL {
            let choice = Choice { score: 0.3, selected: Some(0), coloring, ..Choice::default() };
            let one = prepared.scene(&shown, &choice);
            let two = prepared.scene(&shown, &Choice { score: 0.1, ..choice });
            // found objects, missed ones, predictions
            let layer = &one.boxes[2];
            assert_eq!(layer.boxes.iter().filter(|b| layer.filter.shows(b)).count(), 1);
            let lower = &two.boxes[2];
            assert_eq!(lower.boxes.iter().filter(|b| lower.filter.shows(b)).count(), 2);
            assert!(Arc::ptr_eq(&layer.boxes, &lower.boxes) && layer.version == lower.version);
            // detection 0 lies last, on top
            assert_eq!(layer.look.selected, Some(1));
        }
    }

    #[test]
    fn every_object_is_drawn_once_found_or_missed_and_layers_never_share_a_version() {
        let plain = shown();
        let mask = Mask::from_bitmap(48, 64, &[1; 48 * 64]).ok();
        let objects = plain.objects.iter().map(|o| Object { mask: mask.clone(), ..o.clone() }).collect();
        let detections = plain.detections.iter().map(|d| Detection { mask: mask.clone(), ..d.clone() }).collect();
        let shown = Shown { objects, detections, ..plain };
        let choice = Choice { score: 0.9, ..Choice::default() };
        let mut prepared = Prepared::new(&shown, 7);
        assert!(prepared.has_masks());
        let scene = prepared.scene(&shown, &choice);
        // masks and boxes of found objects, missed ones and predictions
        let drawn: Vec<usize> =
            scene.boxes.iter().map(|layer| layer.boxes.iter().filter(|b| layer.filter.shows(b)).count()).collect();
        assert_eq!(drawn, [1; 6]);
        let errors = prepared.scene(&shown, &Choice { coloring: Coloring::Error, ..choice.clone() });
        let mut versions: Vec<u64> = scene.boxes.iter().chain(&errors.boxes).map(|layer| layer.version).collect();
        versions.sort_unstable();
        versions.dedup();
        // only the predictions' lines differ
        assert_eq!(versions.len(), 7);
        let layers = |choice: Choice| Prepared::new(&shown, 7).scene(&shown, &choice).boxes.len();
        assert_eq!(layers(Choice { boxes: false, ..choice.clone() }), 3);
        assert_eq!(layers(Choice { masks: false, predictions: false, ..choice }), 2);
    }

    #[test]
    fn a_mask_of_another_size_than_the_picture_is_left_out() {
        let plain = shown();
        let mask = Mask::from_bitmap(4, 6, &[1; 24]).ok();
        let objects = plain.objects.iter().map(|o| Object { mask: mask.clone(), ..o.clone() }).collect();
        assert!(!Prepared::new(&Shown { objects, ..plain }, 1).has_masks());
    }

    #[test]
    fn outcomes_are_shown_alone_counted_and_named_and_follow_the_score() {
        let shown = shown();
        let prepared = Prepared::new(&shown, 7);
        let seen = |outcomes: OutcomeFilter, score: f32, truth: bool| {
            let choice = Choice { outcomes, score, truth, ..Choice::default() };
            let found: Vec<usize> = (0..2).filter(|index| prepared.shows(*index, &choice)).collect();
            let objects: Vec<usize> = (0..2).filter(|index| prepared.shows_object(*index, &choice)).collect();
            (found, objects)
        };
        assert_eq!(seen(OutcomeFilter::All, 0.1, true), (vec![0, 1], vec![0, 1]));
        assert_eq!(seen(OutcomeFilter::TruePositives, 0.1, true), (vec![0], vec![0]));
        assert_eq!(seen(OutcomeFilter::FalsePositives, 0.1, true), (vec![1], vec![]));
        assert_eq!(seen(OutcomeFilter::FalsePositives, 0.3, true), (vec![], vec![]));
        // Missed objects need no ground truth to be on.
        assert_eq!(seen(OutcomeFilter::FalseNegatives, 0.1, false), (vec![], vec![1]));
        assert_eq!(seen(OutcomeFilter::FalseNegatives, 0.95, false), (vec![], vec![0, 1]));
        assert_eq!(prepared.counts(0.1).map(|(_, count)| count), [1, 1, 0, 1, 0]);
        assert_eq!(prepared.counts(0.95).map(|(_, count)| count), [0, 0, 0, 2, 0]);
        assert_eq!(prepared.object_outcome(0, 0.5), Outcome::TruePositive);
        assert_eq!(prepared.object_outcome(0, 0.95), Outcome::FalseNegative);
        let texts = |choice: &Choice, written: bool| -> Vec<String> {
            prepared.captions(&shown, choice, written).into_iter().map(|caption| caption.text).collect()
        };
        let errors = Choice { coloring: Coloring::Error, ..Choice::default() };
        assert_eq!(texts(&errors, true), ["TP b 0.90", "FP a 0.20", "FN a"]);
        assert_eq!(texts(&Choice { score: 0.5, ..errors.clone() }, true), ["TP b 0.90", "FN a"]);
        assert_eq!(texts(&Choice { score: 0.5, ..errors }, false), ["TP", "FN"]);
        assert_eq!(texts(&Choice::default(), true), ["b 0.90", "a 0.20"]);
        assert!(texts(&Choice::default(), false).is_empty());
    }

    #[test]
    fn without_verdicts_everything_is_shown_in_class_colours() {
        let shown = Shown { object_classes: vec!["c".into()], ..shown() };
        let mut prepared = Prepared::new(&shown, 7);
        let outcomes = OutcomeFilter::FalsePositives;
        let choice = Choice { coloring: Coloring::Error, outcomes, score: 0.1, ..Choice::default() };
        assert!(!prepared.is_judged() && !prepared.tells_errors(&choice));
        assert!((0..2).all(|index| prepared.shows(index, &choice) && prepared.shows_object(index, &choice)));
        assert_eq!(prepared.object_outcome(1, 0.5), Outcome::None);
        assert_eq!(prepared.scene(&shown, &choice).boxes.last().map(|layer| layer.look.color), Some(BoxColor::Class));
    }

    #[test]
    fn a_map_is_laid_over_by_its_reduction_and_signed_values_are_centred_on_zero() {
        let map = |name: &str, data: Vec<f32>| FeatureMap {
            name: name.into(),
            channels: 2,
            height: 1,
            width: 2,
            data,
            ..FeatureMap::default()
        };
        let maps = vec![map("signed", vec![-4.0, 1.0, 0.0, 1.0]), map("positive", vec![1.0, 3.0, 3.0, 5.0])];
        let shown = Shown { trace: Some(Arc::new(Trace { maps, ..Trace::default() })), ..shown() };
        let mut prepared = Prepared::new(&shown, 7);
        let mut heat = |name: &str, reduction: Reduction| {
            let layer =
                prepared.scene(&shown, &Choice { heat: Some(name.into()), reduction, ..Choice::default() }).heat;
            let layer = layer.unwrap();
            (layer.values.to_vec(), [layer.look.low, layer.look.high], layer.look.color_map, layer.version)
        };
        let (values, ends, colors, mean) = heat("signed", Reduction::Mean);
        assert_eq!((values, ends, colors), (vec![-2.0, 1.0], [-2.0, 2.0], ColorMap::Diverging));
        let (values, ends, colors, most) = heat("signed", Reduction::Max);
        assert_eq!((values, ends, colors), (vec![0.0, 1.0], [0.0, 1.0], ColorMap::Viridis));
        assert_ne!(mean, most, "other numbers are sent");
        assert_eq!(heat("positive", Reduction::Channel(1)).0, [3.0, 5.0]);
    }

    #[test]
    fn crowds_are_passed_over_between_picture_and_trace() {
        let plain = shown();
        let crowd = Object { crowd: true, ..Object::default() };
        let objects = vec![plain.objects[0].clone(), crowd, plain.objects[1].clone()];
        let trace = Trace { objects: plain.objects.clone(), ..Trace::default() };
        let shown = Shown { objects, trace: Some(Arc::new(trace)), ..plain };
        assert_eq!([0, 1, 2, 3].map(|index| traced_object(&shown, index)), [Some(0), None, Some(1), None]);
        assert_eq!([0, 1, 2].map(|index| shown_object(&shown, index)), [Some(0), Some(2), None]);
    }

    #[test]
    fn an_object_counts_as_missed_by_class_overlap_and_score() {
        let prepared = Prepared::new(&shown(), 1);
        assert_eq!(prepared.missed(0.5), [1]);
        assert_eq!(prepared.missed(0.95), [0, 1]);
        let crowd = Shown { objects: vec![Object { crowd: true, ..shown().objects[1].clone() }], ..shown() };
        assert!(Prepared::new(&crowd, 1).missed(0.5).is_empty());
        let others = Shown { object_classes: vec!["c".into()], ..shown() };
        assert!(Prepared::new(&others, 1).missed(0.5).is_empty());
    }
}
