//! What the evaluation makes of the detections and objects on show: its verdicts as they are drawn, named and chosen.

use crate::engine::Shown;
use crate::eval::verdicts::{DetectionVerdict, ImageMatch, Verdict, match_all};
use crate::eval::{ImageBoxes, IouType};
use crate::geometry::{Detection, Object};
use crate::render::{BoxStyle, Outcome};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// IoU from which a detection finds an object.
pub const FOUND: f32 = 0.5;

/// The outcomes of a legend, in its order.
pub const OUTCOMES: [Outcome; 5] =
    [Outcome::TruePositive, Outcome::FalsePositive, Outcome::Duplicate, Outcome::FalseNegative, Outcome::Ignored];

/// What the colours of detections tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Coloring {
    /// One colour a class, the same in every image
    #[default]
    Class,
    /// Another colour for each detection
    Instance,
    /// viridis from 0 to 1
    Score,
    /// True and false positives, duplicates, missed and ignored objects
    Error,
}

impl Coloring {
    pub const ALL: [Self; 4] = [Self::Class, Self::Instance, Self::Score, Self::Error];

    pub fn name(self) -> &'static str {
        match self {
            Self::Class => "colour: class",
            Self::Instance => "colour: instance",
            Self::Score => "colour: score",
            Self::Error => "colour: error",
        }
    }
}

/// Which detections and objects are shown, by what becomes of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutcomeFilter {
    #[default]
    All,
    /// Detections that find an object, and these objects
    TruePositives,
    /// Detections that find none, duplicates among them
    FalsePositives,
    /// Objects that no detection finds
    FalseNegatives,
}

impl OutcomeFilter {
    pub const ALL: [Self; 4] = [Self::All, Self::TruePositives, Self::FalsePositives, Self::FalseNegatives];

    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all outcomes",
            Self::TruePositives => "only true positives",
            Self::FalsePositives => "only false positives",
            Self::FalseNegatives => "only false negatives",
        }
    }

    /// The one after it, around.
    pub fn next(self) -> Self {
        match self {
            Self::All => Self::TruePositives,
            Self::TruePositives => Self::FalsePositives,
            Self::FalsePositives => Self::FalseNegatives,
            Self::FalseNegatives => Self::All,
        }
    }

    /// Bit n is set where the [`Outcome`] of that number is shown.
    pub fn bits(self) -> u32 {
        let bit = |outcome: Outcome| 1 << outcome as u32;
        match self {
            Self::All => u32::MAX,
            Self::TruePositives => bit(Outcome::TruePositive),
            Self::FalsePositives => bit(Outcome::FalsePositive) | bit(Outcome::Duplicate),
            Self::FalseNegatives => bit(Outcome::FalseNegative),
        }
    }

    pub fn shows(self, outcome: Outcome) -> bool {
        (self.bits() >> outcome as u32) & 1 == 1
    }
}

/// The verdicts on the detections of an image; `None` before a model has run, or where the objects are of other classes.
///
/// Detections take objects by falling score, so a verdict does not depend on what scores lower: the same ones hold at
/// every score threshold, and an object is missed above the score of the detection that takes it.
pub fn judge(shown: &Shown) -> Option<ImageMatch> {
    if !shown.detected || shown.object_classes != shown.detection_classes {
        return None;
    }
    verdicts(&shown.objects, &shown.detections, shown.detection_classes.len())
}

/// The verdicts on detections of an image whose `classes` are numbered as those of its objects.
pub fn verdicts(objects: &[Object], detections: &[Detection], classes: usize) -> Option<ImageMatch> {
    let mut image = ImageBoxes::default();
    image.add_objects(objects, IouType::Bbox);
    image.add_detections(detections, IouType::Bbox);
    match_all(&[image], classes, f64::from(FOUND), IouType::Bbox).pop()
}

/// How a detection with this verdict is drawn.
pub fn outcome_of(verdict: &DetectionVerdict) -> Outcome {
    match verdict.verdict {
        Verdict::TruePositive => Outcome::TruePositive,
        // It would have taken the object, had no better detection done so.
        Verdict::FalsePositive if verdict.iou >= f64::from(FOUND) => Outcome::Duplicate,
        Verdict::FalsePositive => Outcome::FalsePositive,
        Verdict::Ignored => Outcome::Ignored,
    }
}

/// The mark of an outcome beside its colour; nothing where nothing is judged.
pub fn letter(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::None => "",
        Outcome::TruePositive => "TP",
        Outcome::FalsePositive => "FP",
        Outcome::FalseNegative => "FN",
        Outcome::Duplicate => "D",
        Outcome::Ignored => "I",
    }
}

/// An outcome with its line.
pub fn name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::None => "not judged",
        Outcome::TruePositive => "true positive, solid",
        Outcome::FalsePositive => "false positive, solid",
        Outcome::FalseNegative => "missed object, dashed",
        Outcome::Duplicate => "duplicate, dotted",
        Outcome::Ignored => "ignored, hatched",
    }
}

/// The colour of an outcome.
pub fn color(outcome: Outcome) -> [u8; 3] {
    BoxStyle::default().outcome_colors.get(outcome as usize).copied().map_or([255; 3], bytes)
}

/// Red, green and blue of a colour from 0 to 1.
pub fn bytes([r, g, b, _]: [f32; 4]) -> [u8; 3] {
    [r, g, b].map(|channel| (255.0 * channel.clamp(0.0, 1.0)).round() as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::BBox;
    use crate::imaging::Picture;
    use crate::random::Random;
    use std::sync::Arc;

    fn shown(objects: Vec<Object>, detections: Vec<Detection>) -> Shown {
        let classes = vec!["a".to_string(), "b".to_string()];
        let picture = Arc::new(Picture::new(8, 8, [0; 3]));
        let empty = Shown::undetected(0, "x".into(), picture, objects, classes.clone());
        Shown { detections, detection_classes: classes, detected: true, ..empty }
    }

    fn at(x: f32) -> BBox {
        BBox::from_xywh(x, 0.0, 10.0, 10.0)
    }

    #[test]
    fn every_verdict_has_its_mark_and_each_filter_its_outcomes() {
        let object = |x: f32, crowd: bool| Object { bbox: at(x), crowd, ..Object::default() };
        let found = |x: f32, class: u32, score: f32| Detection { bbox: at(x), class, score, ..Detection::default() };
        let objects = vec![object(0.0, false), object(100.0, false), object(200.0, true)];
        let detections =
            vec![found(0.0, 0, 0.9), found(1.0, 0, 0.8), found(5.0, 0, 0.7), found(0.0, 1, 0.6), found(200.0, 0, 0.5)];
        let judged = judge(&shown(objects.clone(), detections.clone())).unwrap();
        let outcomes: Vec<Outcome> = judged.detections.iter().map(outcome_of).collect();
        // IoU 1/3 with its object, and another class on it, find nothing.
        let marks = ["TP", "D", "FP", "FP", "I"];
        assert_eq!(outcomes.iter().copied().map(letter).collect::<Vec<_>>(), marks);
        assert_eq!(judged.missed, [1]);
        let kept = |filter: OutcomeFilter| outcomes.iter().filter(|o| filter.shows(**o)).count();
        assert_eq!(OutcomeFilter::ALL.map(kept), [5, 1, 3, 0]);
        assert!(OutcomeFilter::FalseNegatives.shows(Outcome::FalseNegative));
        assert_eq!(OutcomeFilter::ALL.map(|filter| filter.next().next().next().next()), OutcomeFilter::ALL);
        // No colour stands for two outcomes.
        let mut colors = OUTCOMES.map(color).to_vec();
        colors.sort_unstable();
        colors.dedup();
        assert_eq!(colors.len(), OUTCOMES.len());
        let others = Shown { object_classes: vec!["c".into()], ..shown(objects.clone(), detections.clone()) };
        assert!(judge(&others).is_none());
        assert!(judge(&Shown { detected: false, ..shown(objects, detections) }).is_none());
    }

    #[test]
    fn verdicts_hold_at_every_score_threshold() {
        let mut rng = Random::new(5);
        for _ in 0..20 {
            let objects: Vec<Object> = (0..6)
                .map(|index| Object {
                    bbox: at(rng.range(0.0, 40.0)),
                    class: index % 2,
                    crowd: index == 5,
                    ..Object::default()
                })
                .collect();
            let detections: Vec<Detection> = (0..12)
                .map(|index| Detection {
                    bbox: at(rng.range(0.0, 40.0)),
                    class: rng.below(2) as u32,
                    score: 0.95 - 0.05 * index as f32,
                    ..Detection::default()
                })
                .collect();
            let all = judge(&shown(objects.clone(), detections.clone())).unwrap();
            for kept in 0..detections.len() {
                let some = judge(&shown(objects.clone(), detections[..kept].to_vec())).unwrap();
                assert_eq!(some.detections, all.detections[..kept]);
                let takes = |index: usize| {
                    let verdict = all.detections[index];
                    verdict.verdict == Verdict::TruePositive && index >= kept
                };
                let later = (0..detections.len()).filter(|index| takes(*index));
                let mut missed: Vec<usize> = later.filter_map(|index| all.detections[index].truth).collect();
                missed.extend(&all.missed);
                missed.sort_unstable();
                assert_eq!(some.missed, missed);
            }
        }
    }
}
