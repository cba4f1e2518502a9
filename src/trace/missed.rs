//! Why a detector missed an object: the first link from anchor to detection that broke for it.
//!
//! Anchors, proposals and candidates are compared with the object in pixels of the input, where the trace has both;
//! detections are brought there first.

use super::{Rule, Trace};
use crate::geometry::iou::iou as overlap;
use crate::geometry::{BBox, Detection};

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
    /// A good candidate came after the last detection that the model may give.
    OverLimit { candidate: u32, score: f32, limit: usize },
    /// A good box is there, with a score below the threshold that was asked for.
    BelowThreshold { score: f32, threshold: f32 },
}

impl Cause {
    /// What causes are called, in the order of the chain.
    pub const NAMES: [&str; 10] = [
        "found",
        "no anchor reached it",
        "not proposed",
        "filtered early",
        "low score",
        "wrong class",
        "poor box",
        "suppressed",
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
            Self::OverLimit { .. } => 8,
            Self::BelowThreshold { .. } => 9,
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
    let bbox = trace.objects.get(object)?.bbox;
    let view = Look { trace, object, bbox, class, score: score_threshold, iou };
    let cause = view.output().or_else(|| view.heads()).unwrap_or_else(|| view.upstream());
    Some(Missed { object, class, cause, links: view.links() })
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
}

impl Look<'_> {
    fn candidates(&self) -> &[Detection] {
        self.trace.suppression.as_ref().map(|s| s.candidates.as_slice()).unwrap_or_default()
    }

    /// The best-scored detection of the class that lies well: index, score, IoU.
    fn detection(&self) -> Option<(usize, f32, f32)> {
        let own = self.trace.detections.iter().enumerate().filter(|(_, d)| d.class == self.class);
        let well = own.map(|(index, d)| (index, d.score, overlap(self.trace.to_input(d.bbox), self.bbox)));
        well.filter(|(_, _, iou)| *iou >= self.iou).max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))
    }

    /// The best-scored candidate of the class that lies well.
    fn good_candidate(&self) -> Option<(usize, f32)> {
        let own = self.candidates().iter().enumerate().filter(|(_, c)| c.class == self.class);
        let well = own.filter(|(_, c)| overlap(c.bbox, self.bbox) >= self.iou).map(|(index, c)| (index, c.score));
        well.max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))
    }

    /// The end of the chain: a detection finds the object, or a good candidate was lost on the way to one.
    fn output(&self) -> Option<Cause> {
        let detection = self.detection();
        if let Some((detection, score, iou)) = detection.filter(|(_, score, _)| *score >= self.score) {
            return Some(Cause::Found { detection, score, iou });
        }
        let below = |score| Some(Cause::BelowThreshold { score, threshold: self.score });
        let (index, score) = match self.good_candidate() {
            Some(candidate) => candidate,
            None => return detection.and_then(|(_, score, _)| below(score)),
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
        let counting = || self.candidates().iter().filter(|c| c.score >= self.score);
        let other = counting().filter(|c| c.class != self.class).map(|c| (c, overlap(c.bbox, self.bbox)));
        let other = other.filter(|(_, iou)| *iou >= self.iou).max_by(|a, b| a.0.score.total_cmp(&b.0.score));
        if let Some((candidate, iou)) = other {
            return Some(Cause::WrongClass { class: candidate.class, score: candidate.score, iou });
        }
        let own = counting().filter(|c| c.class == self.class).map(|c| (c, overlap(c.bbox, self.bbox)));
        let own = own.filter(|(_, iou)| *iou >= NEAR).max_by(|a, b| a.1.total_cmp(&b.1));
        own.map(|(candidate, iou)| Cause::PoorBox { iou, score: candidate.score })
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
        let detection = self.detection();
        add("it outlives suppression (score)".into(), detection.is_some(), detection.map(|(_, score, _)| score));
        let above = detection.is_some_and(|(_, score, _)| score >= self.score);
        add(format!("its score is {:.2} or more", self.score), above, detection.map(|(_, score, _)| score));
        links
    }
}

/// Causes counted over the objects of many traces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MissedSummary {
    pub objects: usize,
    /// By position in [`Cause::NAMES`].
    pub counts: [usize; Cause::NAMES.len()],
}

impl MissedSummary {
    /// Counts every object of one trace.
    pub fn add(&mut self, trace: &Trace, score_threshold: f32, iou: f32) {
        for (index, object) in trace.objects.iter().enumerate() {
            if let Some(missed) = why_missed(trace, index, object.class, score_threshold, iou) {
                self.objects += 1;
                if let Some(count) = self.counts.get_mut(missed.cause.kind()) {
                    *count += 1;
                }
            }
        }
    }

    /// All objects of `traces`.
    pub fn of<'a>(traces: impl IntoIterator<Item = &'a Trace>, score_threshold: f32, iou: f32) -> Self {
        let mut summary = Self::default();
        for trace in traces {
            summary.add(trace, score_threshold, iou);
        }
        summary
    }

    /// Objects that no detection finds.
    pub fn missed(&self) -> usize {
        self.objects - self.counts.first().copied().unwrap_or(0)
    }

    /// Causes of misses that occurred, with their counts, in the order of the chain.
    pub fn causes(&self) -> impl Iterator<Item = (&'static str, usize)> + '_ {
        Cause::NAMES.into_iter().zip(self.counts).skip(1).filter(|(_, count)| *count > 0)
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
    fn causes_are_counted_over_traces() {
        let traces = [
            detected(trace(vec![candidate(0.0, 1, 0.9)])),
            detected(trace(vec![candidate(0.0, 1, 0.3)])),
            trace(Vec::new()),
            Trace::default(),
        ];
        let summary = MissedSummary::of(&traces, 0.5, 0.5);
        assert_eq!((summary.objects, summary.missed()), (3, 2));
        let causes: Vec<(&str, usize)> = summary.causes().collect();
        assert_eq!(causes, [("low score", 1), ("below the threshold", 1)]);
    }
}
