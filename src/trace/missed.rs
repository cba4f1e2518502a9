//! Why a detector missed an object: the first link from anchor to detection that broke for it.
//!
//! Anchors, proposals and candidates are compared with the object in pixels of the input, where the trace has both;
//! detections are brought there first.

use super::{Rule, Trace};
use crate::geometry::iou::iou as overlap;
use crate::geometry::{BBox, Detection};
use std::collections::HashSet;

/// A box that overlaps an object less than this is about something else.
const NEAR: f32 = 0.1;

/// Where the chain broke, in the order of the chain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cause {
    /// It did not break: this detection finds the object.
    Found { detection: usize, score: f32, iou: f32 },
    /// No anchor was matched to the object but by force; `iou` is the best that any anchor has with it.
    NoAnchor { iou: f32 },
    /// No proposal of stage `stage` (an index into [`Trace::stages`]) lies on it; `iou` is that of the best one.
    NotProposed { stage: usize, iou: f32 },
    /// An early stage was sure that its anchors are background; `objectness` is the highest that it gave them.
    Filtered { objectness: Option<f32> },
    /// No box on the object got more than the model's own score threshold `limit` for any class; `score` is the best
    /// that a stage gave one, where stages keep scores.
    LowScore { limit: f32, score: Option<f32> },
    /// A box lies well, with a score that counts, but as another class.
    WrongClass { class: u32, score: f32, iou: f32 },
    /// A box of the object's class, with a score that counts, lies too badly.
    PoorBox { iou: f32, score: f32 },
    /// A good candidate was removed by a better one: indices into the candidates, and their IoU.
    Suppressed { candidate: u32, by: u32, iou: f32, score: f32 },
    /// The only good box is a detection that finds another object.
    Shared { detection: usize, iou: f32 },
    /// A good candidate came after the last detection that the model may give.
    OverLimit { candidate: u32, score: f32, limit: usize },
    /// A good box is there, with a score below the threshold that was asked for.
    BelowThreshold { score: f32, threshold: f32 },
}

impl Cause {
    /// What causes are called, in the order of the chain.
    pub const NAMES: [&str; 11] = [
        "found",
        "no anchor reached it",
        "not proposed",
        "filtered early",
        "low score",
        "wrong class",
        "poor box",
        "suppressed",
        "its box finds another object",
        "over the detection limit",
        "below the threshold",
    ];

    /// Position in [`Cause::NAMES`].
    pub fn kind(&self) -> usize {
        match self {
            Self::Found { .. } => 0,
            Self::NoAnchor { .. } => 1,
            Self::NotProposed { .. } => 2,
            Self::Filtered { .. } => 3,
            Self::LowScore { .. } => 4,
            Self::WrongClass { .. } => 5,
            Self::PoorBox { .. } => 6,
            Self::Suppressed { .. } => 7,
            Self::Shared { .. } => 8,
            Self::OverLimit { .. } => 9,
            Self::BelowThreshold { .. } => 10,
        }
    }

    pub fn name(&self) -> &'static str {
        Self::NAMES.get(self.kind()).copied().unwrap_or_default()
    }
}

/// One link of the chain: what was asked, and the number that answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    pub name: String,
    pub holds: bool,
    /// IoU for anchors, stages and boxes, score otherwise; `None` where there is nothing to measure.
    pub value: Option<f32>,
}

/// The answer for one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Missed {
    /// Index into the trace's objects.
    pub object: usize,
    pub class: u32,
    pub cause: Cause,
    /// Every link that the detector has, from anchors to detections.
    pub links: Vec<Link>,
}

/// The best IoU of any of `boxes` with `object`; `None` without boxes.
fn best_overlap(boxes: &[BBox], object: BBox) -> Option<f32> {
    boxes.iter().map(|&bbox| overlap(bbox, object)).max_by(f32::total_cmp)
}

/// Why object `object` of the trace, of class `class`, is not found by any detection with score `score_threshold` and
/// IoU `iou` or more. `None` for an object that the trace does not have.
pub fn why_missed(trace: &Trace, object: usize, class: u32, score_threshold: f32, iou: f32) -> Option<Missed> {
    let view = Look::new(trace, object, class, score_threshold, iou, &[])?;
    Some(Missed { object, class, cause: view.cause(), links: view.links() })
}

/// As [`why_missed`], for an object that matching one to one left without a detection: the detections `taken` find
/// other objects, and neither they nor what they removed speak for this one. Never [`Cause::Found`].
pub fn why_unmatched(
    trace: &Trace,
    object: usize,
    class: u32,
    score_threshold: f32,
    iou: f32,
    taken: &[usize],
) -> Option<Cause> {
    Some(match Look::new(trace, object, class, score_threshold, iou, taken)?.cause() {
        // Matching takes every box that lies well: this one does so by rounding alone.
        Cause::Found { score, iou, .. } => Cause::PoorBox { iou, score },
        cause => cause,
    })
}

/// The question with all that it is about.
struct Look<'a> {
    trace: &'a Trace,
    object: usize,
    /// Input pixels.
    bbox: BBox,
    class: u32,
    score: f32,
    iou: f32,
    /// Detections that find other objects.
    taken: &'a [usize],
    /// The candidates that those were.
    taken_candidates: HashSet<u32>,
}

impl<'a> Look<'a> {
    fn new(trace: &'a Trace, object: usize, class: u32, score: f32, iou: f32, taken: &'a [usize]) -> Option<Self> {
        let bbox = trace.objects.get(object)?.bbox;
        // Detections stand in the order of the kept candidates.
        let kept = trace.suppression.as_ref().map(|s| s.kept.as_slice()).unwrap_or_default();
        let taken_candidates = taken.iter().filter_map(|&index| kept.get(index).copied()).collect();
        Some(Self { trace, object, bbox, class, score, iou, taken, taken_candidates })
    }

    fn cause(&self) -> Cause {
        self.output().or_else(|| self.heads()).unwrap_or_else(|| self.upstream())
    }

    fn candidates(&self) -> &[Detection] {
        self.trace.suppression.as_ref().map(|s| s.candidates.as_slice()).unwrap_or_default()
    }

    /// The best-scored detection of the class that lies well, of those that find another object or of the others:
    /// index, score, IoU.
    fn detection(&self, taken: bool) -> Option<(usize, f32, f32)> {
        let own = self.trace.detections.iter().enumerate().filter(|(_, d)| d.class == self.class);
        let well = own.map(|(index, d)| (index, d.score, overlap(self.trace.to_input(d.bbox), self.bbox)));
        let well = well.filter(|(index, _, iou)| *iou >= self.iou && self.taken.contains(index) == taken);
        well.max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))
    }

    /// The best-scored candidate of the class that lies well.
    fn good_candidate(&self) -> Option<(usize, f32)> {
        let own = self.candidates().iter().enumerate().filter(|(_, c)| c.class == self.class);
        let well = own.filter(|(_, c)| overlap(c.bbox, self.bbox) >= self.iou).map(|(index, c)| (index, c.score));
        let free = well.filter(|(index, _)| !self.taken_candidates.contains(&(*index as u32)));
        free.max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))
    }

    /// Candidates with a score that counts and their IoU with the object, without those that find another object and
    /// those that such a one removed.
    fn counting(&self) -> Vec<(&Detection, f32)> {
        let removals = self.trace.suppression.as_ref().map(|s| s.removals.as_slice()).unwrap_or_default();
        let removed = removals.iter().filter(|r| self.taken_candidates.contains(&r.by)).map(|r| r.removed);
        let others: HashSet<u32> = self.taken_candidates.iter().copied().chain(removed).collect();
        let counting = (0..).zip(self.candidates()).filter(|(_, c)| c.score >= self.score);
        let own = counting.filter(|(index, _)| !others.contains(index));
        own.map(|(_, c)| (c, overlap(c.bbox, self.bbox))).collect()
    }

    /// The end of the chain: a detection finds the object, or a good candidate was lost on the way to one.
    fn output(&self) -> Option<Cause> {
        let detection = self.detection(false);
        if let Some((detection, score, iou)) = detection.filter(|(_, score, _)| *score >= self.score) {
            return Some(Cause::Found { detection, score, iou });
        }
        let below = |score| Some(Cause::BelowThreshold { score, threshold: self.score });
        let (index, score) = match self.good_candidate() {
            Some(candidate) => candidate,
            None => {
                let shared = || self.detection(true).map(|(detection, _, iou)| Cause::Shared { detection, iou });
                return detection.and_then(|(_, score, _)| below(score)).or_else(shared);
            }
        };
        let suppression = self.trace.suppression.as_ref()?;
        let candidate = index as u32;
        if score < self.score {
            return below(score);
        }
        // Soft suppression keeps a box and lowers its score.
        if suppression.kept.contains(&candidate) {
            return below(detection.map_or(score, |(_, lowered, _)| lowered));
        }
        match suppression.removals.iter().find(|r| r.removed == candidate) {
            Some(removal) => Some(Cause::Suppressed { candidate, by: removal.by, iou: removal.iou, score }),
            None => Some(Cause::OverLimit { candidate, score, limit: suppression.kept.len() }),
        }
    }

    /// The middle: boxes about the object, with a score that counts, but of another class or lying badly.
    fn heads(&self) -> Option<Cause> {
        let counting = self.counting();
        let other = counting.iter().filter(|(c, iou)| c.class != self.class && *iou >= self.iou);
        if let Some(&(candidate, iou)) = other.max_by(|a, b| a.0.score.total_cmp(&b.0.score)) {
            return Some(Cause::WrongClass { class: candidate.class, score: candidate.score, iou });
        }
        let own = counting.iter().filter(|(c, iou)| c.class == self.class && *iou >= NEAR);
        own.max_by(|a, b| a.1.total_cmp(&b.1)).map(|&(candidate, iou)| Cause::PoorBox { iou, score: candidate.score })
    }

    /// The start: nothing about the object came as far as suppression.
    fn upstream(&self) -> Cause {
        if let Some((iou, false)) = self.anchor() {
            return Cause::NoAnchor { iou };
        }
        let stages = self.trace.stages();
        let overlaps: Vec<f32> =
            stages.iter().map(|stage| best_overlap(&stage.boxes, self.bbox).unwrap_or(0.0)).collect();
        // A later stage may still pull a proposal onto the object: the loss counts from where it stays lost.
        let lost = overlaps.iter().rposition(|&iou| iou >= self.iou).map_or(0, |last| last + 1);
        if let Some(&iou) = overlaps.get(lost) {
            return Cause::NotProposed { stage: lost, iou };
        }
        let score = self.stage_score();
        if score.is_some_and(|score| score <= 0.0) || self.is_filtered() {
            return Cause::Filtered { objectness: self.objectness() };
        }
        let limit = self.trace.suppression.as_ref().map_or(self.score, |s| s.score_threshold);
        Cause::LowScore { limit, score }
    }

    /// The best IoU of an anchor, and whether one was matched to the object by more than force. `None` without anchors.
    fn anchor(&self) -> Option<(f32, bool)> {
        let best = best_overlap(&self.trace.anchors.boxes, self.bbox)?;
        let matched = self.trace.assignment.as_ref().is_some_and(|assignment| {
            let own = assignment.target.iter().zip(&assignment.rule);
            let mut own = own.filter(|(target, _)| usize::try_from(**target).is_ok_and(|t| t == self.object));
            own.any(|(_, rule)| matches!(rule, Rule::Threshold | Rule::Center))
        });
        Some((best, matched || best >= self.iou || self.is_filtered()))
    }

    /// Whether the anchors that lie on the object were all dropped by an earlier stage.
    fn is_filtered(&self) -> bool {
        let Some(assignment) = &self.trace.assignment else { return false };
        let own = assignment.best_object.iter().zip(&assignment.iou).zip(&assignment.rule);
        let mut own = own
            .filter(|((object, iou), _)| usize::try_from(**object).is_ok_and(|o| o == self.object) && **iou >= self.iou)
            .map(|(_, rule)| *rule == Rule::Filtered)
            .peekable();
        own.peek().is_some() && own.all(|filtered| filtered)
    }

    /// The best score that the last stage gave a box on the object.
    fn stage_score(&self) -> Option<f32> {
        let last = self.trace.stages().last()?;
        let on_it = last.boxes.iter().zip(&last.scores).filter(|(b, _)| overlap(**b, self.bbox) >= self.iou);
        on_it.map(|(_, score)| *score).max_by(f32::total_cmp)
    }

    /// The best score that the first stage gave a box on the object.
    fn objectness(&self) -> Option<f32> {
        let first = self.trace.stages().first()?;
        let on_it = first.boxes.iter().zip(&first.scores).filter(|(b, _)| overlap(**b, self.bbox) >= self.iou);
        on_it.map(|(_, score)| *score).max_by(f32::total_cmp)
    }

    fn links(&self) -> Vec<Link> {
        let mut links = Vec::new();
        let mut add = |name: String, holds: bool, value: Option<f32>| links.push(Link { name, holds, value });
        if let Some((iou, reached)) = self.anchor() {
            add("an anchor reaches it (best IoU)".into(), reached, Some(iou));
        }
        for stage in self.trace.stages() {
            let best = best_overlap(&stage.boxes, self.bbox);
            add(format!("{} lies on it (best IoU)", stage.name), best.is_some_and(|b| b >= self.iou), best);
        }
        let well = |c: &&Detection| overlap(c.bbox, self.bbox) >= self.iou;
        let any = self.candidates().iter().filter(well).map(|c| c.score).max_by(f32::total_cmp);
        add("a candidate of any class lies on it (best score)".into(), any.is_some(), any);
        let good = self.good_candidate();
        add("a candidate of its class lies on it (best score)".into(), good.is_some(), good.map(|(_, score)| score));
        let detection = self.detection(false);
        add("it outlives suppression (score)".into(), detection.is_some(), detection.map(|(_, score, _)| score));
        let above = detection.is_some_and(|(_, score, _)| score >= self.score);
        add(format!("its score is {:.2} or more", self.score), above, detection.map(|(_, score, _)| score));
        links
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Object;
    use crate::trace::{Anchors, Assignment, Preprocessing, ProposalStage, Removal, Suppression};

    const OBJECT: BBox = BBox::new(0.0, 0.0, 10.0, 10.0);

    fn candidate(x: f32, class: u32, score: f32) -> Detection {
        Detection { bbox: OBJECT.shift(x, 0.0), class, score, anchor: Some(0), mask: None }
    }

    /// An object of class 1 with an anchor on it, and these candidates, all kept.
    fn trace(candidates: Vec<Detection>) -> Trace {
        Trace {
            preprocessing: Some(Preprocessing { scale_x: 0.5, scale_y: 0.25, offset_x: 2.0, ..Default::default() }),
            objects: vec![Object { bbox: OBJECT, class: 1, ..Object::default() }],
            anchors: Anchors { boxes: vec![OBJECT, OBJECT.shift(100.0, 0.0)], levels: Vec::new() },
            assignment: Some(Assignment {
                target: vec![0, -1],
                rule: vec![Rule::Threshold, Rule::Background],
                iou: vec![1.0, 0.0],
                best_object: vec![0, 0],
            }),
            suppression: Some(Suppression {
                kept: (0..candidates.len() as u32).collect(),
                candidates,
                score_threshold: 0.01,
                ..Suppression::default()
            }),
            ..Trace::default()
        }
    }

    /// The same with the kept candidates as detections, in pixels of the picture.
    fn detected(mut trace: Trace) -> Trace {
        let suppression = trace.suppression.clone().unwrap();
        let kept = suppression.kept.iter().map(|&k| suppression.candidates[k as usize].clone());
        trace.detections = kept.map(|d| Detection { bbox: trace.to_original(d.bbox), ..d }).collect();
        trace
    }

    fn cause(trace: &Trace) -> Cause {
        why_missed(trace, 0, 1, 0.5, 0.5).unwrap().cause
    }

    fn stage(name: &str, x: f32, score: f32) -> ProposalStage {
        ProposalStage {
            name: name.into(),
            boxes: vec![OBJECT.shift(x, 0.0)],
            scores: vec![score],
            parent: vec![0],
            ..ProposalStage::default()
        }
    }

    #[test]
    fn spaces_are_joined_and_a_found_object_is_not_missed() {
        let found = detected(trace(vec![candidate(1.0, 1, 0.9)]));
        // (0 + 1 − 2) / 0.5
        assert_eq!(found.detections[0].bbox.x0, -2.0);
        let answer = why_missed(&found, 0, 1, 0.5, 0.5).unwrap();
        assert!(matches!(answer.cause, Cause::Found { detection: 0, .. }), "{answer:?}");
        assert!(answer.links.iter().all(|l| l.holds));
        assert!(why_missed(&found, 3, 1, 0.5, 0.5).is_none());
    }

    #[test]
    fn no_anchor_reached_it() {
        let mut trace = trace(Vec::new());
        trace.anchors.boxes[0] = OBJECT.shift(7.0, 0.0);
        let assignment = trace.assignment.as_mut().unwrap();
        assignment.rule[0] = Rule::BestForObject;
        assignment.iou[0] = 3.0 / 17.0;
        let Cause::NoAnchor { iou } = cause(&trace) else { panic!("{:?}", cause(&trace)) };
        assert!((iou - 3.0 / 17.0).abs() < 1e-6);
        // without anchors there is no such link
        trace.anchors = Anchors::default();
        trace.assignment = None;
        assert_eq!(cause(&trace), Cause::LowScore { limit: 0.01, score: None });
    }

    #[test]
    fn lost_between_the_stages() {
        let mut trace = trace(Vec::new());
        trace.proposals = vec![stage("RPN", 8.0, 0.9), stage("stage 1", 6.0, 0.9), stage("training RPN", 0.0, 1.0)];
        assert!(matches!(cause(&trace), Cause::NotProposed { stage: 0, .. }));
        trace.proposals[0] = stage("RPN", 1.0, 0.9);
        assert!(matches!(cause(&trace), Cause::NotProposed { stage: 1, .. }));
        trace.proposals[1] = stage("stage 1", 0.0, 0.005);
        assert_eq!(cause(&trace), Cause::LowScore { limit: 0.01, score: Some(0.005) });
    }

    #[test]
    fn filtered_by_the_first_stage() {
        let mut trace = trace(Vec::new());
        trace.proposals = vec![stage("ARM", 0.0, 0.004), stage("ODM", 0.0, 0.0)];
        assert_eq!(cause(&trace), Cause::Filtered { objectness: Some(0.004) });
        trace.proposals.clear();
        let assignment = trace.assignment.as_mut().unwrap();
        (assignment.rule[0], assignment.target[0]) = (Rule::Filtered, -2);
        assert_eq!(cause(&trace), Cause::Filtered { objectness: None });
    }

    #[test]
    fn another_class_comes_before_a_poor_box() {
        let poor = candidate(5.0, 1, 0.8);
        let found = detected(trace(vec![candidate(0.0, 0, 0.9), poor.clone()]));
        assert_eq!(cause(&found), Cause::WrongClass { class: 0, score: 0.9, iou: 1.0 });
        let found = detected(trace(vec![candidate(0.0, 0, 0.3), poor]));
        let Cause::PoorBox { iou, score } = cause(&found) else { panic!("{:?}", cause(&found)) };
        assert!((iou - 1.0 / 3.0).abs() < 1e-6 && score == 0.8);
    }

    #[test]
    fn suppressed_cut_off_or_below_the_threshold() {
        let mut suppressed = trace(vec![candidate(5.0, 1, 0.9), candidate(1.0, 1, 0.7)]);
        let record = suppressed.suppression.as_mut().unwrap();
        record.kept = vec![0];
        record.removals = vec![Removal { removed: 1, by: 0, iou: 0.6 }];
        let suppressed = detected(suppressed);
        assert_eq!(cause(&suppressed), Cause::Suppressed { candidate: 1, by: 0, iou: 0.6, score: 0.7 });
        let mut cut = suppressed.clone();
        cut.suppression.as_mut().unwrap().removals.clear();
        assert_eq!(cause(&cut), Cause::OverLimit { candidate: 1, score: 0.7, limit: 1 });
        let below = detected(trace(vec![candidate(0.0, 1, 0.3)]));
        assert_eq!(cause(&below), Cause::BelowThreshold { score: 0.3, threshold: 0.5 });
        // soft suppression: kept, with a lower score than the head gave
        let mut soft = detected(trace(vec![candidate(0.0, 1, 0.8)]));
        soft.detections[0].score = 0.2;
        assert_eq!(cause(&soft), Cause::BelowThreshold { score: 0.2, threshold: 0.5 });
    }

    #[test]
    fn what_finds_another_object_does_not_find_this_one() {
        let unmatched = |trace: &Trace, taken: &[usize]| why_unmatched(trace, 0, 1, 0.5, 0.5, taken).unwrap();
        // the only box on it belongs to another object
        let alone = detected(trace(vec![candidate(1.0, 1, 0.9)]));
        assert!(matches!(cause(&alone), Cause::Found { .. }));
        assert!(matches!(unmatched(&alone, &[0]), Cause::Shared { detection: 0, .. }));
        // by rounding alone
        assert!(matches!(unmatched(&alone, &[]), Cause::PoorBox { iou, score } if iou > 0.8 && score == 0.9));
        // and it removed the box that would have been this one's
        let mut crowded = trace(vec![candidate(2.0, 1, 0.9), candidate(0.0, 1, 0.7)]);
        let record = crowded.suppression.as_mut().unwrap();
        record.kept = vec![0];
        record.removals = vec![Removal { removed: 1, by: 0, iou: 0.6 }];
        let crowded = detected(crowded);
        assert_eq!(unmatched(&crowded, &[0]), Cause::Suppressed { candidate: 1, by: 0, iou: 0.6, score: 0.7 });
        // a neighbour's box, and what it removed, are no poor boxes and no wrong classes of this object
        let mut beside = trace(vec![candidate(6.0, 1, 0.9), candidate(5.0, 1, 0.8), candidate(0.0, 0, 0.7)]);
        let record = beside.suppression.as_mut().unwrap();
        record.kept = vec![0, 2];
        record.removals = vec![Removal { removed: 1, by: 0, iou: 0.8 }];
        let beside = detected(beside);
        assert!(matches!(unmatched(&beside, &[]), Cause::WrongClass { class: 0, .. }));
        assert_eq!(unmatched(&beside, &[0, 1]), Cause::LowScore { limit: 0.01, score: None });
    }

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        let causes = [
            Cause::Found { detection: 0, score: 0.0, iou: 0.0 },
            Cause::NoAnchor { iou: 0.0 },
            Cause::NotProposed { stage: 0, iou: 0.0 },
            Cause::Filtered { objectness: None },
            Cause::LowScore { limit: 0.0, score: None },
            Cause::WrongClass { class: 0, score: 0.0, iou: 0.0 },
            Cause::PoorBox { iou: 0.0, score: 0.0 },
            Cause::Suppressed { candidate: 0, by: 0, iou: 0.0, score: 0.0 },
            Cause::Shared { detection: 0, iou: 0.0 },
            Cause::OverLimit { candidate: 0, score: 0.0, limit: 0 },
            Cause::BelowThreshold { score: 0.0, threshold: 0.0 },
        ];
        assert_eq!(causes.map(|cause| cause.name()), Cause::NAMES);
    }
}
