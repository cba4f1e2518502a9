//! The best that a model can do on a data set before any training: which objects its anchors, or its own rule, reach.
//!
//! The anchors are those that the network lists in a trace, for every input size that the data set's pictures come to.

use crate::data::dataset::{Dataset, Finding, ImageEntry, Severity};
use crate::data::placements::{Fitted, Placements};
use crate::data::statistics::SizeRange;
use crate::detect::{Config, Detector, Outputs, build};
use crate::geometry::iou::iou;
use crate::geometry::{BBox, Object};
use crate::nn::{Mode, Pass};
use crate::ops::interrupt::INTERRUPTED;
use crate::trace::{AnchorLevel, Anchors};
use candle_core::{DType, Device, Result, Tensor};
use rayon::prelude::*;
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Input sizes that a network is run at, the most frequent ones; pictures of others take the nearest of them.
const MAX_INPUTS: usize = 12;
/// Images that a network assigns by a rule of its own, spread over the data set: each costs a pass through its losses.
const ASSIGNED_IMAGES: usize = 400;
/// Objects that are listed; more are counted.
const LISTED: usize = 1000;

/// Objects of one range of sizes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SizeReach {
    /// `all`, or the name of a [`SizeRange`].
    pub name: &'static str,
    pub objects: usize,
    /// Those with an anchor at the matching threshold, or taken by the model's own rule.
    pub reached: usize,
    /// Those below the threshold that training gives their best anchor all the same.
    pub forced: usize,
    /// `reached / objects`; none without objects.
    pub recall: Option<f64>,
    /// Mean IoU of each object with its best anchor; none where the rule is not about overlap.
    pub mean_iou: Option<f64>,
}

/// The best possible recall of a model on a data set.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Reach {
    pub model: String,
    /// What counts as reached, for people.
    pub rule: String,
    /// IoU at which an anchor is positive; none where the rule is not about overlap.
    pub threshold: Option<f32>,
    /// Anchors (or points) of the most frequent input size.
    pub anchors: usize,
    /// Images that were looked at.
    pub images: usize,
    /// Images that were answered with the anchors of another input size than their own.
    pub approximated: usize,
    /// All objects, then small, medium and large ones.
    pub sizes: Vec<SizeReach>,
    /// One for each object that is not reached, up to a bound.
    #[serde(skip)]
    pub findings: Vec<Finding>,
}

/// Who decides what an object is learnt by.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    /// Anchors from this IoU on; objects below it take their best anchor if that has at least `forced`.
    Overlap { threshold: f32, forced: Option<f32>, inside_only: bool },
    /// The assignment that the network's losses make.
    Own { what: &'static str, otherwise: &'static str },
}

impl Rule {
    fn of(config: &Config) -> Self {
        let overlap = |threshold: f32, forced: Option<f32>| Self::Overlap { threshold, forced, inside_only: false };
        let yolo = Self::Own {
            what: "an object is learnt by the prior of its cell that fits it best",
            otherwise: "another object takes the same prior in the same cell, and training learns that one's box",
        };
        match config {
            Config::Ssd(c) => overlap(c.positive_threshold, Some(0.0)),
            Config::Refinedet(c) => overlap(c.positive_threshold, Some(0.0)),
            Config::M2det(c) => overlap(c.positive_threshold, Some(0.0)),
            Config::Retinanet(c) => overlap(c.positive_threshold, c.low_quality_matches.then_some(0.0)),
            Config::Rcnn(c) => Self::Overlap {
                threshold: c.rpn.anchor_positive,
                forced: (c.rpn.forced_minimum <= 1.0).then_some(c.rpn.forced_minimum),
                inside_only: c.rpn.ignore_crossing,
            },
            Config::Yolov3(_) | Config::Darknet(_) => yolo,
            Config::Fcos(_) => Self::Own {
                what: "there are no anchors: an object is learnt by points near its centre, on the level of its size",
                otherwise: "no point takes it, as it lies between the points or smaller objects have them",
            },
        }
    }

    fn text(self) -> String {
        match self {
            Self::Own { what, .. } => what.to_owned(),
            Self::Overlap { threshold, forced, .. } => {
                let below = match forced {
                    None => "objects below are not trained on".to_owned(),
                    Some(least) if least > 0.0 => format!("objects below, down to {least}, take their best anchors"),
                    Some(_) => "objects below take their best anchor".to_owned(),
                };
                format!("an anchor reaches an object from an IoU of {threshold} on; {below}")
            }
        }
    }
}

/// What becomes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Reached,
    /// Below the threshold, and trained on its best anchor.
    Forced,
    Never,
}

/// One object that was looked at.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Index in its image.
    object: usize,
    range: SizeRange,
    /// With the best anchor; none where the rule is not about overlap.
    iou: Option<f32>,
    fate: Fate,
}

/// An object of an image, cut at the image's edge, in pixels of the network's input.
struct Target {
    object: usize,
    range: SizeRange,
    bbox: BBox,
}

/// What `config`'s model reaches of `dataset`'s objects; groups (crowd) and boxes without area take no part. Weights are
/// not needed. `go_on` hears (done, total) images; when it answers no, the work ends with an error.
///
/// # Errors
/// A configuration that makes no network, a failing pass, or an interruption.
pub fn reach(config: &Config, dataset: &Dataset, go_on: &mut dyn FnMut(usize, usize) -> bool) -> Result<Reach> {
    let rule = Rule::of(config);
    let detector = build(config, &Device::Cpu, 0)?;
    let placements = Placements::new(detector.preprocess(), dataset);
    let step = match rule {
        Rule::Overlap { .. } => 1,
        Rule::Own { .. } => dataset.images.len().div_ceil(ASSIGNED_IMAGES).max(1),
    };
    let images: Vec<usize> = (0..dataset.images.len()).step_by(step).collect();
    let (groups, approximated) = by_input(dataset, &placements, &images);
    let (total, mut done, mut anchor_count) = (images.len(), 0, 0);
    let mut seen: BTreeMap<usize, Vec<Seen>> = BTreeMap::new();
    for (input, group) in groups {
        let (outputs, anchors) = look(&*detector, input)?;
        // the first group is the largest
        anchor_count = if anchor_count == 0 { anchors.boxes.len() } else { anchor_count };
        let targets = |index: usize| -> Vec<Target> {
            dataset.images.get(index).map(|entry| targets_of(entry, placements.of(entry))).unwrap_or_default()
        };
        match rule {
            Rule::Overlap { threshold, forced, inside_only } => {
                let content = |index: usize| -> Option<(f32, f32)> {
                    let fitted = placements.of(dataset.images.get(index)?)?;
                    let (width, height) = fitted.placement.content;
                    inside_only.then_some((width as f32, height as f32))
                };
                let judge = |target: &Target, inside: Option<(f32, f32)>| {
                    let best = best_iou(&anchors, target.bbox, inside);
                    let fate = match forced {
                        _ if best >= threshold => Fate::Reached,
                        Some(least) if best >= least && best > 0.0 => Fate::Forced,
                        _ => Fate::Never,
                    };
                    Seen { object: target.object, range: target.range, iou: Some(best), fate }
                };
                let judged: Vec<(usize, Vec<Seen>)> = group
                    .par_iter()
                    .map(|&index| (index, targets(index).iter().map(|t| judge(t, content(index))).collect()))
                    .collect();
                seen.extend(judged);
            }
            Rule::Own { .. } => {
                for &index in &group {
                    seen.insert(index, assigned(&*detector, &outputs, &targets(index))?);
                    if !go_on(seen.len(), total) {
                        candle_core::bail!("{INTERRUPTED}");
                    }
                }
            }
        }
        done += group.len();
        if !go_on(done, total) {
            candle_core::bail!("{INTERRUPTED}");
        }
    }
    Ok(Reach {
        model: config.arch().name().to_owned(),
        rule: rule.text(),
        threshold: match rule {
            Rule::Overlap { threshold, .. } => Some(threshold),
            Rule::Own { .. } => None,
        },
        anchors: anchor_count,
        images: total,
        approximated,
        sizes: by_size(&seen),
        findings: findings(dataset, rule, &seen),
    })
}

/// Sizes of inputs (width, height) with the images that are looked at there.
type Groups = Vec<((usize, usize), Vec<usize>)>;

/// Images by the size of their input, the most frequent first, and how many were put to a size that is not their own.
fn by_input(dataset: &Dataset, placements: &Placements, images: &[usize]) -> (Groups, usize) {
    let mut by_size: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
    for &index in images {
        if let Some(fitted) = dataset.images.get(index).and_then(|entry| placements.of(entry)) {
            by_size.entry(fitted.input).or_default().push(index);
        }
    }
    let mut groups: Groups = by_size.into_iter().collect();
    groups.sort_by_key(|(_, images)| Reverse(images.len()));
    let rare = groups.split_off(groups.len().min(MAX_INPUTS));
    let mut approximated = 0;
    for ((width, height), images) in rare {
        let distance = |(w, h): (usize, usize)| w.abs_diff(width) + h.abs_diff(height);
        if let Some((_, group)) = groups.iter_mut().min_by_key(|(input, _)| distance(*input)) {
            approximated += images.len();
            group.extend(images);
        }
    }
    (groups, approximated)
}

/// A pass at one input size (width, height): its outputs, and the anchors that it lists.
fn look(detector: &dyn Detector, (width, height): (usize, usize)) -> Result<(Outputs, Anchors)> {
    // zeros on the right and below would be taken for padding
    let images = Tensor::ones((1, 3, height, width), DType::F32, detector.params().device())?;
    let pass = Pass::probed(Mode::Infer, 1);
    let outputs = detector.forward(&images, &pass)?;
    Ok((outputs, pass.into_traces().pop().map(|trace| trace.anchors).unwrap_or_default()))
}

/// The objects of an image that training would take.
fn targets_of(entry: &ImageEntry, fitted: Option<Fitted>) -> Vec<Target> {
    let Some(fitted) = fitted else { return Vec::new() };
    let (width, height) = (entry.width as f32, entry.height as f32);
    let trained = entry.objects.iter().enumerate().filter(|(_, o)| !o.crowd && o.bbox.is_proper());
    trained
        .map(|(index, object)| Target {
            object: index,
            range: SizeRange::of(object),
            bbox: fitted.placement.to_input(object.bbox.clip(width, height)),
        })
        .filter(|target| target.bbox.is_proper())
        .collect()
}

/// What the network's own losses assign to the objects of one image.
fn assigned(detector: &dyn Detector, outputs: &Outputs, targets: &[Target]) -> Result<Vec<Seen>> {
    if targets.is_empty() {
        return Ok(Vec::new());
    }
    // every network has a class 0, and the class decides nothing here
    let objects: Vec<Object> = targets.iter().map(|target| Object { bbox: target.bbox, ..Object::default() }).collect();
    let pass = Pass::probed(Mode::Infer, 1);
    detector.losses(outputs, &[objects], &pass)?;
    let mut taken = vec![false; targets.len()];
    let assignment = pass.into_traces().pop().and_then(|trace| trace.assignment).unwrap_or_default();
    for target in assignment.target {
        if let Some(taken) = usize::try_from(target).ok().and_then(|object| taken.get_mut(object)) {
            *taken = true;
        }
    }
    let fate = |taken: bool| if taken { Fate::Reached } else { Fate::Never };
    let seen = targets.iter().zip(taken);
    Ok(seen.map(|(t, taken)| Seen { object: t.object, range: t.range, iou: None, fate: fate(taken) }).collect())
}

/// IoU of a box with the best anchor; of those inside `[0, width] × [0, height]` where that is given.
fn best_iou(anchors: &Anchors, bbox: BBox, inside: Option<(f32, f32)>) -> f32 {
    let best_of = |boxes: &[BBox]| boxes.iter().map(|&anchor| iou(bbox, anchor)).fold(0.0, f32::max);
    if let Some((width, height)) = inside {
        let usable = |b: &&BBox| b.x0 >= 0.0 && b.y0 >= 0.0 && b.x1 < width && b.y1 < height;
        return anchors.boxes.iter().filter(usable).map(|&anchor| iou(bbox, anchor)).fold(0.0, f32::max);
    }
    let mut best = 0.0f32;
    let mut looked_at = 0;
    for run in &anchors.levels {
        let own = anchors.boxes.get(run.start..run.start + run.len).unwrap_or_default();
        looked_at += own.len();
        best = best.max(best_of_level(own, run, bbox).unwrap_or_else(|| best_of(own)));
    }
    if looked_at == anchors.boxes.len() { best } else { best_of(&anchors.boxes) }
}

/// [`best_iou`] with the anchors of one level, from those around the box's centre alone: of two anchors of one shape the
/// nearer overlaps more. None where the anchors are no grid.
fn best_of_level(own: &[BBox], run: &AnchorLevel, bbox: BBox) -> Option<f32> {
    let cells = run.rows.checked_mul(run.columns)?;
    if run.per_cell == 0 || own.len() != cells * run.per_cell {
        return None;
    }
    let first = own.first()?.center();
    let last = own.get((cells - 1) * run.per_cell)?.center();
    let (x, y) = bbox.center();
    let around = |at: f32, first: f32, last: f32, count: usize| {
        let step = (last - first) / count.saturating_sub(1).max(1) as f32;
        // a cast of what is negative or undefined gives 0
        let nearest = (((at - first) / step).round() as usize).min(count.saturating_sub(1));
        nearest.saturating_sub(1)..(nearest + 2).min(count)
    };
    let mut best = 0.0f32;
    for row in around(y, first.1, last.1, run.rows) {
        for column in around(x, first.0, last.0, run.columns) {
            let start = (row * run.columns + column) * run.per_cell;
            for &anchor in own.get(start..start + run.per_cell)? {
                best = best.max(iou(bbox, anchor));
            }
        }
    }
    Some(best)
}

fn by_size(seen: &BTreeMap<usize, Vec<Seen>>) -> Vec<SizeReach> {
    let of = |name: &'static str, range: Option<SizeRange>| {
        let own = || seen.values().flatten().filter(move |seen| range.is_none_or(|range| seen.range == range));
        let count = |fate: Fate| own().filter(|seen| seen.fate == fate).count();
        let (objects, reached) = (own().count(), count(Fate::Reached));
        let overlaps = own().filter_map(|seen| seen.iou).map(f64::from);
        let (sum, measured) = overlaps.fold((0.0, 0usize), |(sum, n), iou| (sum + iou, n + 1));
        SizeReach {
            name,
            objects,
            reached,
            forced: count(Fate::Forced),
            recall: (objects > 0).then(|| reached as f64 / objects as f64),
            mean_iou: (measured > 0).then(|| sum / measured as f64),
        }
    };
    let ranges = SizeRange::ALL.into_iter().map(|range| of(range.name(), Some(range)));
    std::iter::once(of("all", None)).chain(ranges).collect()
}

/// The objects that are not reached.
fn findings(dataset: &Dataset, rule: Rule, seen: &BTreeMap<usize, Vec<Seen>>) -> Vec<Finding> {
    let mut list = Vec::new();
    let mut missed = 0usize;
    for (&index, objects) in seen {
        let Some(entry) = dataset.images.get(index) else { continue };
        for seen in objects.iter().filter(|seen| seen.fate != Fate::Reached) {
            missed += 1;
            if missed > LISTED {
                continue;
            }
            let what = match rule {
                Rule::Overlap { threshold, .. } => {
                    let then = match seen.fate {
                        Fate::Forced => "training takes that anchor all the same",
                        _ => "it is not trained on",
                    };
                    let iou = seen.iou.unwrap_or_default();
                    format!("overlaps its best anchor with an IoU of {iou:.2}, below {threshold}; {then}")
                }
                Rule::Own { otherwise, .. } => format!("is not learnt: {otherwise}"),
            };
            let severity = if seen.fate == Fate::Forced { Severity::Info } else { Severity::Warning };
            let (w, h) = entry.objects.get(seen.object).map_or((0.0, 0.0), |o| (o.bbox.width(), o.bbox.height()));
            let message = format!("object {}, {w:.1} × {h:.1} pixels, {what}", seen.object + 1);
            list.push(Finding::new(severity, "no-anchor", &entry.name, message).of_object(seen.object));
        }
    }
    if missed > LISTED {
        let message = format!("{} more findings of the rule no-anchor are not listed", missed - LISTED);
        list.push(Finding::new(Severity::Info, "more-of-the-same", &dataset.name, message));
    }
    list.sort_by_key(|finding| finding.severity);
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::dataset::Source;
    use crate::detect::Arch;
    use crate::random::Random;

    fn config(arch: Arch) -> Config {
        Config::new(arch, &["thing".to_owned()])
    }

    /// One picture of the input's own size.
    fn set(config: &Config, objects: &[BBox]) -> Dataset {
        let (height, width) = config.input();
        let entry = ImageEntry {
            id: 1,
            name: "a.png".to_owned(),
            source: Source::Shapes { seed: 1, index: 0 },
            width: width as u32,
            height: height as u32,
            objects: objects.iter().map(|&bbox| Object { bbox, ..Object::default() }).collect(),
        };
        Dataset {
            name: "set".to_owned(),
            classes: vec!["thing".to_owned()],
            category_ids: vec![1],
            images: vec![entry],
            ..Dataset::default()
        }
    }

    #[test]
    fn no_anchor_overlaps_more_than_those_around_the_centre() -> Result<()> {
        for arch in [Arch::SsdNano, Arch::RetinanetNano, Arch::Yolov3Nano] {
            let config = config(arch);
            let (height, width) = config.input();
            let detector = build(&config, &Device::Cpu, 0)?;
            let (_, anchors) = look(&*detector, (width, height))?;
            assert!(anchors.boxes.len() > 100);
            let mut random = Random::new(5);
            for _ in 0..100 {
                let (w, h) = (random.range(2.0, 200.0), random.range(2.0, 200.0));
                let (x, y) = (random.range(0.0, width as f32), random.range(0.0, height as f32));
                let bbox = BBox::from_cxcywh(x, y, w, h).clip(width as f32, height as f32);
                let all = anchors.boxes.iter().map(|&anchor| iou(bbox, anchor)).fold(0.0, f32::max);
                // anchors around a box or inside it tie but for rounding
                assert!((best_iou(&anchors, bbox, None) - all).abs() < 1e-5, "{arch}: {bbox:?}");
            }
        }
        Ok(())
    }

    #[test]
    fn an_object_on_an_anchor_is_reached_and_a_speck_is_forced() -> Result<()> {
        let config = config(Arch::SsdNano);
        let (height, width) = config.input();
        let (_, anchors) = look(&*build(&config, &Device::Cpu, 0)?, (width, height))?;
        let inside = |b: &&BBox| b.x0 >= 0.0 && b.y0 >= 0.0 && b.x1 <= width as f32 && b.y1 <= height as f32;
        let anchor = *anchors.boxes.iter().find(inside).unwrap();
        let mut set = set(&config, &[anchor, BBox::new(20.0, 20.0, 22.0, 22.0), BBox::new(5.0, 5.0, 5.0, 9.0)]);
        set.images[0].objects.push(Object { crowd: true, bbox: anchor, ..Object::default() });
        let found = reach(&config, &set, &mut |_, _| true)?;
        let all = &found.sizes[0];
        assert_eq!((all.name, all.objects, all.reached, all.forced, all.recall), ("all", 2, 1, 1, Some(0.5)));
        assert!(found.anchors == anchors.boxes.len() && found.threshold == Some(0.5));
        let [finding] = found.findings.as_slice() else { panic!("{:?}", found.findings) };
        assert_eq!((finding.object, finding.severity, finding.rule.as_str()), (Some(1), Severity::Info, "no-anchor"));
        assert!(reach(&config, &set, &mut |_, _| false).is_err());
        Ok(())
    }

    #[test]
    fn detectors_without_matching_anchors_answer_by_their_own_rule() -> Result<()> {
        let fcos = config(Arch::FcosNano);
        let found = reach(
            &fcos,
            &set(&fcos, &[BBox::new(40.0, 40.0, 110.0, 100.0), BBox::new(3.0, 3.0, 4.0, 4.0)]),
            &mut |_, _| true,
        )?;
        assert_eq!((found.sizes[0].objects, found.sizes[0].reached, found.threshold), (2, 1, None));
        assert_eq!(found.findings[0].object, Some(1));
        // the later of two objects in one place takes the prior
        let yolo = config(Arch::Yolov3Nano);
        let bbox = BBox::new(40.0, 40.0, 100.0, 100.0);
        let found = reach(&yolo, &set(&yolo, &[bbox, bbox]), &mut |_, _| true)?;
        assert_eq!((found.sizes[0].reached, found.findings[0].object), (1, Some(0)));
        Ok(())
    }

    #[test]
    fn rare_input_sizes_join_the_nearest_frequent_one() {
        let config = config(Arch::RetinanetR50);
        let mut set = set(&config, &[]);
        let first = set.images[0].clone();
        // more shapes of picture than inputs that are run
        set.images = (0..40).map(|k| ImageEntry { width: 400 + 16 * k, height: 400, ..first.clone() }).collect();
        let placements = Placements::new(config.preprocess(), &set);
        let images: Vec<usize> = (0..40).collect();
        let (groups, approximated) = by_input(&set, &placements, &images);
        assert_eq!(groups.len(), MAX_INPUTS);
        assert_eq!(groups.iter().map(|(_, images)| images.len()).sum::<usize>(), 40);
        assert!(approximated > 0);
    }

    #[test]
    fn anchors_that_leave_the_picture_can_be_left_out() {
        let boxes = vec![BBox::new(-2.0, 0.0, 10.0, 10.0), BBox::new(0.0, 0.0, 6.0, 10.0)];
        let anchors = Anchors { boxes, levels: Vec::new() };
        let bbox = BBox::new(0.0, 0.0, 10.0, 10.0);
        assert_eq!(best_iou(&anchors, bbox, None), 100.0 / 120.0);
        assert_eq!(best_iou(&anchors, bbox, Some((20.0, 20.0))), 0.6);
    }
}
