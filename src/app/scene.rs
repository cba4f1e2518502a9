//! From what the engine shows to what is drawn: the same for the window and for `boxwright render`.

use crate::engine::Shown;
use crate::geometry::iou::iou;
use crate::geometry::{BBox, Detection, Object};
use crate::imaging::draw::class_color;
use crate::render::{
    BoxAssignment, BoxColor, BoxFilter, BoxInstance, BoxLayer, BoxLook, BoxStyle, CLASS_LIMIT, ColorMap, HeatLayer,
    HeatmapLook, ImageLook, LineStyle, Outcome, Scene,
};
use crate::trace::{FeatureMap, Trace};
use std::sync::Arc;

/// Which of the scene's parts are on, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    pub truth: bool,
    pub predictions: bool,
    pub anchors: bool,
    /// Name of the feature map to lay over the picture.
    pub heat: Option<String>,
    pub score: f32,
    pub isolated: Option<u32>,
    /// Index into the detections.
    pub selected: Option<usize>,
    pub hovered: Option<usize>,
}

/// Buffers of one shown image, made once; filters and looks are put on per frame.
#[derive(Debug)]
pub struct Prepared {
    version: u64,
    width: u32,
    height: u32,
    pixels: Arc<Vec<u8>>,
    style: Arc<BoxStyle>,
    /// Lowest score first, so that better boxes lie on top.
    predictions: Arc<Vec<BoxInstance>>,
    count: usize,
    /// The score of a truth box is that of the best detection that finds it, −1 when none does.
    truth: Arc<Vec<BoxInstance>>,
    /// The same boxes as missed objects, without crowds; empty where classes differ and nothing can be missed.
    missed: Arc<Vec<BoxInstance>>,
    anchors: Arc<Vec<BoxInstance>>,
    heat: Option<(String, HeatLayer)>,
}

impl Prepared {
    /// `version` must differ between images.
    pub fn new(shown: &Shown, version: u64) -> Self {
        let boxes = |b: BBox| [b.x0, b.y0, b.x1, b.y1];
        let mut predictions: Vec<BoxInstance> =
            shown.detections.iter().map(|d| BoxInstance::new(boxes(d.bbox), d.score, d.class)).collect();
        predictions.reverse();
        let same = shown.detected && shown.object_classes == shown.detection_classes;
        let truth = shown.objects.iter().map(|object| {
            let outcome = if object.crowd { Outcome::Ignored } else { Outcome::TruePositive };
            let found = if same && !object.crowd { best_score(object, &shown.detections) } else { 1.0 };
            BoxInstance::new(boxes(object.bbox), found, object.class).with_outcome(outcome).with_style(LineStyle::Solid)
        });
        let truth: Vec<BoxInstance> = truth.collect();
        let as_missed = |b: &BoxInstance| b.with_outcome(Outcome::FalseNegative).with_style(LineStyle::ByOutcome);
        let missed = if same { truth.iter().map(as_missed).collect() } else { Vec::new() };
        let anchors = shown.trace.as_deref().map(positive_anchors).unwrap_or_default();
        Self {
            version,
            width: shown.picture.width,
            height: shown.picture.height,
            pixels: Arc::new(shown.picture.rgba()),
            style: Arc::new(class_style()),
            count: predictions.len(),
            predictions: Arc::new(predictions),
            truth: Arc::new(truth),
            missed: Arc::new(missed),
            anchors: Arc::new(anchors),
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

    /// Objects that no detection at or above `score` finds, as indices; crowds are not asked for.
    pub fn missed(&self, score: f32) -> Vec<usize> {
        let lost = self.missed.iter().enumerate().filter(|(_, object)| object.score < score);
        lost.map(|(index, _)| index).collect()
    }

    /// The scene under `choice`. Only a newly chosen heat map makes new numbers; everything else is filters and looks.
    pub fn scene(&mut self, shown: &Shown, choice: &Choice) -> Scene {
        // A view keeps its buffers by position among the layers, and layers come and go: each has versions of its own.
        let version = |layer: u64| crate::random::mix(self.version.wrapping_mul(4).wrapping_add(layer));
        let layer = |version: u64, boxes: &Arc<Vec<BoxInstance>>, filter: BoxFilter, look: BoxLook| BoxLayer {
            version,
            boxes: boxes.clone(),
            style: self.style.clone(),
            filter,
            look,
        };
        let mut boxes = Vec::new();
        let filter = BoxFilter { isolated_class: choice.isolated, ..BoxFilter::default() };
        if choice.anchors {
            let look = BoxLook { color: BoxColor::Assignment, line_width: 1.0, opacity: 0.8, ..BoxLook::default() };
            boxes.push(layer(version(0), &self.anchors, filter, look));
        }
        if choice.truth {
            let look = BoxLook { color: BoxColor::Outcome, line_width: 1.5, ..BoxLook::default() };
            boxes.push(layer(version(1), &self.truth, BoxFilter { score_min: choice.score, ..filter }, look));
            let below = BoxFilter { score_max: choice.score.next_down(), ..filter };
            boxes.push(layer(version(2), &self.missed, below, BoxLook { line_width: 2.0, ..look }));
        }
        if choice.predictions {
            let position = |index: Option<usize>| {
                index.and_then(|i| self.count.checked_sub(i + 1)).map(|position| position as u32)
            };
            let look = BoxLook {
                selected: position(choice.selected),
                hovered: position(choice.hovered),
                ..BoxLook::default()
            };
            let above = BoxFilter { score_min: choice.score, ..filter };
            boxes.push(layer(version(3), &self.predictions, above, look));
        }
        self.choose_heat(shown, choice.heat.as_deref());
        Scene { heat: self.heat.as_ref().map(|(_, layer)| layer.clone()), boxes, ..self.picture() }
    }

    fn choose_heat(&mut self, shown: &Shown, name: Option<&str>) {
        if self.heat.as_ref().map(|(current, _)| current.as_str()) == name {
            return;
        }
        self.heat = None;
        let Some(name) = name else { return };
        let Some(trace) = shown.trace.as_deref() else { return };
        if let Some(map) = trace.maps.iter().find(|m| m.name == name) {
            let key = name.bytes().fold(self.version, |h, b| crate::random::mix(h ^ u64::from(b)));
            self.heat = Some((name.to_string(), heat_layer(map, trace, key, self.width, self.height)));
        }
    }
}

/// The best score of a detection of the object's class with IoU ≥ 0.5; −1 without one.
fn best_score(object: &Object, detections: &[Detection]) -> f32 {
    let finding = detections.iter().filter(|d| d.class == object.class && iou(d.bbox, object.bbox) >= 0.5);
    finding.map(|d| d.score).fold(-1.0, f32::max)
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
    let b = trace.to_original(bbox);
    BoxInstance::new([b.x0, b.y0, b.x1, b.y1], score, class)
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

/// Mean over channels of a map, laid over the part of the picture that the network saw.
fn heat_layer(map: &FeatureMap, trace: &Trace, version: u64, width: u32, height: u32) -> HeatLayer {
    let plane = (map.width * map.height).max(1);
    let mut values = vec![0.0f32; plane];
    for channel in map.data.chunks_exact(plane) {
        for (sum, value) in values.iter_mut().zip(channel) {
            *sum += value / map.channels as f32;
        }
    }
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
    let look = HeatmapLook {
        bounds,
        low,
        high: if high > low { high } else { low + 1.0 },
        color_map: ColorMap::Viridis,
        ..HeatmapLook::default()
    };
    HeatLayer { version, width: map.width as u32, height: map.height as u32, values: Arc::new(values), look }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let choice = Choice {
            truth: true,
            predictions: true,
            anchors: false,
            heat: None,
            score: 0.3,
            isolated: None,
            selected: Some(0),
            hovered: None,
        };
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

    #[test]
    fn every_object_is_drawn_once_found_or_missed_and_layers_never_share_a_version() {
        let shown = shown();
        let choice = Choice {
            truth: true,
            predictions: true,
            anchors: true,
            heat: None,
            score: 0.9,
            isolated: None,
            selected: None,
            hovered: None,
        };
        let scene = Prepared::new(&shown, 7).scene(&shown, &choice);
        let drawn = |layer: usize| {
            let layer = &scene.boxes[layer];
            layer.boxes.iter().filter(|b| layer.filter.shows(b)).count()
        };
        assert_eq!((drawn(1), drawn(2)), (1, 1));
        let mut versions: Vec<u64> = scene.boxes.iter().map(|layer| layer.version).collect();
        versions.sort_unstable();
        versions.dedup();
        assert_eq!(versions.len(), 4);
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
