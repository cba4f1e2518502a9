//! What the Anchors panel computes: matching under other thresholds, anchors of other sizes and ratios, and the best
//! possible recall. Everything is in pixels of the network's input.

use crate::detect::Config;
use crate::detect::multibox::assignment;
use crate::geometry::BBox;
use crate::geometry::anchors::{AnchorSpec, integer_strides};
use crate::geometry::iou::pairwise_iou;
use crate::geometry::matching::{Force, match_anchors};
use crate::geometry::priors::{PriorSpec, ssd_priors};
use crate::trace::{AnchorLevel, Anchors, Assignment, Rule, Trace};

/// How a detector matches anchors to objects by IoU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Matching {
    /// IoU from which an anchor is positive.
    pub positive: f32,
    /// IoU below which it is background; between the two it is ignored.
    pub negative: f32,
    pub force: Force,
    /// IoU that a forced match needs.
    pub forced_minimum: f32,
}

/// The rule of a detector; `None` where it is not one of IoU thresholds.
pub fn matching_of(config: &Config) -> Option<Matching> {
    let single = |threshold: f32| Matching {
        positive: threshold,
        negative: threshold,
        force: Force::BestAnchor,
        forced_minimum: 0.0,
    };
    match config {
        Config::Ssd(c) => Some(single(c.positive_threshold)),
        Config::M2det(c) => Some(single(c.positive_threshold)),
        Config::Refinedet(c) => Some(single(c.positive_threshold)),
        Config::Retinanet(c) => Some(Matching {
            positive: c.positive_threshold,
            negative: c.negative_threshold,
            force: if c.low_quality_matches { Force::AllTies } else { Force::None },
            forced_minimum: 0.0,
        }),
        // Anchors that cross the border take no part there, which thresholds alone do not tell.
        Config::Rcnn(c) if !c.rpn.ignore_crossing => Some(Matching {
            positive: c.rpn.anchor_positive,
            negative: c.rpn.anchor_negative,
            force: if c.rpn.forced_minimum <= 1.0 { Force::AllTies } else { Force::None },
            forced_minimum: c.rpn.forced_minimum,
        }),
        _ => None,
    }
}

/// The recipe of a detector's anchors.
#[derive(Clone, Debug, PartialEq)]
pub enum Spec {
    /// SSD's priors.
    Priors(PriorSpec),
    /// Sizes times ratios on a grid; strides (down, along).
    Grid(AnchorSpec, Vec<(f32, f32)>),
}

/// Changes of a recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct Shapes {
    /// Factor of all sizes.
    pub scale: f32,
    /// Every ratio of the recipe, and what it becomes.
    pub ratios: Vec<(f32, f32)>,
    /// One ratio more, on every level.
    pub extra: Option<f32>,
}

impl Shapes {
    /// Whether it leaves every recipe as it is.
    pub fn is_unchanged(&self) -> bool {
        self.scale == 1.0 && self.extra.is_none() && self.ratios.iter().all(|(old, new)| old == new)
    }

    fn ratio(&self, old: f32) -> f32 {
        self.ratios.iter().find(|(from, _)| *from == old).map_or(old, |(_, to)| *to)
    }

    fn ratios(&self, old: &[f32]) -> Vec<f32> {
        old.iter().map(|&ratio| self.ratio(ratio)).chain(self.extra).collect()
    }
}

impl Spec {
    /// The recipe behind a trace's anchors; `None` where the detector has none, or it does not give these anchors.
    pub fn of(config: &Config, trace: &Trace) -> Option<Self> {
        let place = trace.preprocessing.as_ref()?;
        let (width, height) = (place.input_width as usize, place.input_height as usize);
        let strides: Vec<f32> = trace.anchors.levels.iter().map(|level| level.stride).collect();
        let grid = |spec: &AnchorSpec, integer: bool| {
            let maps = maps(trace);
            let strides = if integer {
                integer_strides((height, width), &maps)
            } else {
                strides.iter().map(|&stride| (stride, stride)).collect()
            };
            Self::Grid(spec.clone(), strides)
        };
        let priors = |spec: &PriorSpec| {
            let image = (width as f32, height as f32);
            Self::Priors(PriorSpec { image, steps: strides.clone(), ..spec.clone() })
        };
        let spec = match config {
            Config::Ssd(c) => priors(&c.prior_spec()),
            Config::M2det(c) => priors(&c.priors),
            Config::Refinedet(c) => priors(&c.priors),
            Config::Retinanet(c) => grid(&c.anchors, c.integer_strides),
            Config::Rcnn(c) => grid(&c.rpn.anchors, c.rpn.integer_strides),
            _ => return None,
        };
        let same = spec.anchors(trace, &spec.shapes()).boxes == trace.anchors.boxes;
        same.then_some(spec)
    }

    /// The recipe's own sizes and ratios.
    pub fn shapes(&self) -> Shapes {
        let all: Vec<f32> = match self {
            Self::Priors(spec) => spec.aspect_ratios.iter().flatten().copied().collect(),
            Self::Grid(spec, _) => spec.aspect_ratios.clone(),
        };
        let mut ratios: Vec<(f32, f32)> = Vec::new();
        for ratio in all {
            if !ratios.iter().any(|(known, _)| *known == ratio) {
                ratios.push((ratio, ratio));
            }
        }
        Shapes { scale: 1.0, ratios, extra: None }
    }

    /// The anchors of the trace's maps under changed sizes and ratios.
    pub fn anchors(&self, trace: &Trace, shapes: &Shapes) -> Anchors {
        let maps = maps(trace);
        let scaled = |sizes: &[f32]| -> Vec<f32> { sizes.iter().map(|size| size * shapes.scale).collect() };
        let (boxes, per_cell): (Vec<BBox>, Vec<usize>) = match self {
            Self::Priors(spec) => {
                let spec = PriorSpec {
                    min_sizes: scaled(&spec.min_sizes),
                    max_sizes: scaled(&spec.max_sizes),
                    aspect_ratios: spec.aspect_ratios.iter().map(|ratios| shapes.ratios(ratios)).collect(),
                    ..spec.clone()
                };
                (ssd_priors(&spec, &maps), (0..maps.len()).map(|level| spec.per_cell(level)).collect())
            }
            Self::Grid(spec, strides) => {
                let spec = AnchorSpec {
                    sizes: spec.sizes.iter().map(|sizes| scaled(sizes)).collect(),
                    aspect_ratios: shapes.ratios(&spec.aspect_ratios),
                    ..spec.clone()
                };
                (spec.grid_anchors(&maps, strides), (0..maps.len()).map(|level| spec.per_cell(level)).collect())
            }
        };
        let mut start = 0;
        let mut levels = Vec::with_capacity(maps.len());
        for (old, per_cell) in trace.anchors.levels.iter().zip(per_cell) {
            let len = old.rows * old.columns * per_cell;
            levels.push(AnchorLevel { start, len, per_cell, ..old.clone() });
            start += len;
        }
        Anchors { boxes, levels }
    }
}

/// Rows and columns of the maps that predict.
fn maps(trace: &Trace) -> Vec<(usize, usize)> {
    trace.anchors.levels.iter().map(|level| (level.rows, level.columns)).collect()
}

/// Anchors and what each of them would learn.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Live {
    pub anchors: Anchors,
    /// `None` without objects.
    pub assignment: Option<Assignment>,
    /// The best IoU that any anchor has with each object.
    pub best: Vec<f32>,
    /// Positive anchors of each object.
    pub positives: Vec<usize>,
}

impl Live {
    /// `matching` gives a new assignment; without it that of `recorded` holds, if its anchors are these.
    pub fn new(anchors: Anchors, trace: &Trace, matching: Option<&Matching>, recorded: Option<&Assignment>) -> Self {
        let objects: Vec<BBox> = trace.objects.iter().map(|o| o.bbox).collect();
        let best = best_overlaps(&objects, &anchors.boxes);
        let mut live = Self { anchors, assignment: None, best, positives: Vec::new() };
        live.match_again(trace, matching, recorded);
        live
    }

    /// The same anchors under another rule.
    pub fn match_again(&mut self, trace: &Trace, matching: Option<&Matching>, recorded: Option<&Assignment>) {
        let objects: Vec<BBox> = trace.objects.iter().map(|o| o.bbox).collect();
        let count = self.anchors.boxes.len();
        self.assignment = match matching {
            Some(rule) if !objects.is_empty() => Some(matched(&self.anchors.boxes, &objects, rule)),
            _ => recorded.filter(|a| a.target.len() == count).cloned(),
        };
        self.positives = vec![0; objects.len()];
        for &target in self.assignment.iter().flat_map(|a| &a.target) {
            if let Some(count) = usize::try_from(target).ok().and_then(|t| self.positives.get_mut(t)) {
                *count += 1;
            }
        }
    }

    /// Share of the objects that some anchor overlaps with `threshold` or more: what recall cannot exceed when only
    /// such anchors learn. `None` without objects.
    pub fn recall(&self, threshold: f32) -> Option<f32> {
        let covered = self.best.iter().filter(|iou| **iou >= threshold).count();
        (!self.best.is_empty()).then(|| covered as f32 / self.best.len() as f32)
    }

    /// How many anchors a rule decided as `wanted`.
    pub fn count(&self, wanted: Rule) -> usize {
        self.assignment.as_ref().map_or(0, |a| a.rule.iter().filter(|rule| **rule == wanted).count())
    }

    /// Anchors of the cells, one a level, that a point of the input lies in.
    pub fn cell(&self, x: f32, y: f32) -> Vec<usize> {
        let mut members = Vec::new();
        for level in &self.anchors.levels {
            // A negative or undefined quotient casts to 0.
            let at = |v: f32, count: usize| ((v / level.stride.max(1e-3)) as usize).min(count.saturating_sub(1));
            let first = level.start + (at(y, level.rows) * level.columns + at(x, level.columns)) * level.per_cell;
            let end = (first + level.per_cell).min(level.start + level.len).min(self.anchors.boxes.len());
            members.extend(first..end);
        }
        members
    }
}

/// The best IoU of each object with any anchor; a few objects at a time, so that the table stays small.
fn best_overlaps(objects: &[BBox], anchors: &[BBox]) -> Vec<f32> {
    if anchors.is_empty() {
        return vec![0.0; objects.len()];
    }
    let mut best = Vec::with_capacity(objects.len());
    for few in objects.chunks(16) {
        let table = pairwise_iou(few, anchors);
        best.extend(table.chunks_exact(anchors.len()).map(|row| row.iter().copied().fold(0.0, f32::max)));
    }
    best
}

fn matched(anchors: &[BBox], objects: &[BBox], rule: &Matching) -> Assignment {
    let mut matches = match_anchors(anchors, objects, rule.positive, rule.negative, rule.force);
    let forced = matches.forced.iter_mut().zip(&matches.iou).zip(&mut matches.target);
    for ((forced, &iou), target) in forced {
        if *forced && iou < rule.forced_minimum {
            *target = if iou < rule.negative { -1 } else { -2 };
            *forced = false;
        }
    }
    assignment(&matches, &[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Arch;
    use crate::geometry::Object;
    use crate::trace::Preprocessing;

    fn classes() -> Vec<String> {
        vec!["a".into()]
    }

    /// A trace with the anchors that `spec` gives on 4 × 4 and 2 × 2 cells of a 64 px input.
    fn trace(spec: &Spec, strides: [f32; 2]) -> Trace {
        let level = |side: usize, stride: f32| AnchorLevel { rows: side, columns: side, stride, ..Default::default() };
        let mut trace = Trace {
            preprocessing: Some(Preprocessing { input_width: 64, input_height: 64, ..Preprocessing::default() }),
            anchors: Anchors { boxes: Vec::new(), levels: vec![level(4, strides[0]), level(2, strides[1])] },
            objects: vec![Object { bbox: BBox::new(0.0, 0.0, 16.0, 16.0), ..Object::default() }],
            ..Trace::default()
        };
        trace.anchors = spec.anchors(&trace, &spec.shapes());
        trace
    }

    fn priors() -> (Config, Spec) {
        let mut config = Config::new(Arch::SsdNano, &classes());
        let Config::Ssd(ssd) = &mut config else { panic!("an SSD") };
        ssd.priors = PriorSpec {
            image: (64.0, 64.0),
            steps: vec![16.0, 32.0],
            min_sizes: vec![16.0, 32.0],
            max_sizes: vec![32.0, 64.0],
            aspect_ratios: vec![vec![2.0], vec![2.0, 3.0]],
            ..ssd.priors.clone()
        };
        let spec = Spec::Priors(ssd.priors.clone());
        (config, spec)
    }

    #[test]
    fn a_recipe_is_found_again_and_moved() {
        let (config, spec) = priors();
        let trace = trace(&spec, [16.0, 32.0]);
        assert_eq!(trace.anchors.boxes.len(), 16 * 4 + 4 * 6);
        assert_eq!(Spec::of(&config, &trace), Some(spec.clone()));
        let mut shapes = spec.shapes();
        assert_eq!(shapes.ratios, [(2.0, 2.0), (3.0, 3.0)]);
        assert!(shapes.is_unchanged());
        shapes.extra = Some(5.0);
        shapes.ratios[0].1 = 4.0;
        assert!(!shapes.is_unchanged());
        let moved = spec.anchors(&trace, &shapes);
        assert_eq!(moved.boxes.len(), 16 * 6 + 4 * 8);
        assert_eq!((moved.levels[1].start, moved.levels[1].per_cell), (96, 8));
        // the wide one of the first cell: 16 · √4 by 16 / √4
        assert_eq!((moved.boxes[2].width(), moved.boxes[2].height()), (32.0, 8.0));
        // anchors that the recipe does not give have none
        let mut other = trace;
        other.anchors.boxes[3].x0 -= 1.0;
        assert_eq!(Spec::of(&config, &other), None);
        assert_eq!(Spec::of(&Config::new(Arch::FcosNano, &classes()), &other), None);
    }

    #[test]
    fn grids_are_found_again_too() {
        let config = Config::new(Arch::FasterNano, &classes());
        let Config::Rcnn(rcnn) = &config else { panic!("an R-CNN") };
        let strides = if rcnn.rpn.integer_strides { [16.0, 32.0] } else { [4.0, 8.0] };
        let spec = Spec::Grid(rcnn.rpn.anchors.clone(), strides.iter().map(|&s| (s, s)).collect());
        let trace = trace(&spec, strides);
        assert_eq!(Spec::of(&config, &trace), Some(spec));
        assert!(matching_of(&config).is_some() && matching_of(&Config::new(Arch::FcosNano, &classes())).is_none());
    }

    #[test]
    fn thresholds_move_the_assignment_and_recall_falls_with_them() {
        let (config, spec) = priors();
        let trace = trace(&spec, [16.0, 32.0]);
        let rule = matching_of(&config).unwrap();
        let live = |positive: f32, negative: f32| {
            let rule = Matching { positive, negative, ..rule };
            Live::new(trace.anchors.clone(), &trace, Some(&rule), None)
        };
        // the first square of the first cell is the object itself
        let strict = live(0.9, 0.4);
        assert_eq!((strict.count(Rule::Threshold), strict.positives[0], strict.best[0]), (1, 1, 1.0));
        let loose = live(0.4, 0.4);
        assert!(loose.positives[0] > 1 && loose.count(Rule::Ignored) == 0 && strict.count(Rule::Ignored) > 0);
        assert_eq!((strict.recall(1.0), Live::default().recall(0.5)), (Some(1.0), None));
    }

    #[test]
    fn the_record_holds_until_something_is_moved() {
        let (_, spec) = priors();
        let trace = trace(&spec, [16.0, 32.0]);
        let record = Assignment { target: vec![-1; trace.anchors.boxes.len()], ..Assignment::default() };
        let live = Live::new(trace.anchors.clone(), &trace, None, Some(&record));
        assert_eq!(live.assignment.as_ref(), Some(&record));
        let short = Assignment { target: vec![-1; 3], ..Assignment::default() };
        assert_eq!(Live::new(trace.anchors.clone(), &trace, None, Some(&short)).assignment, None);
    }

    #[test]
    fn a_point_lies_in_one_cell_a_level() {
        let (_, spec) = priors();
        let trace = trace(&spec, [16.0, 32.0]);
        let live = Live::new(trace.anchors.clone(), &trace, None, None);
        // row 1, column 2 of the first level; row 0, column 1 of the second
        let expected: Vec<usize> = (6 * 4..7 * 4).chain(64 + 6..64 + 12).collect();
        assert_eq!(live.cell(40.0, 20.0), expected);
        assert_eq!(live.cell(-5.0, f32::NAN).first(), Some(&0));
        assert_eq!(live.cell(1e9, 1e9).len(), 10);
    }
}
