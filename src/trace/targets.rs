//! What the assigned anchors of a batch have to learn, in numbers: how many by level, what they cost, and how the codes
//! of their boxes spread.

use super::{LossPart, Trace};
use crate::geometry::BBox;
use crate::geometry::coder::BoxCoder;

/// One level of the pyramid.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LevelTargets {
    /// Anchors with an object that enter the loss, over all images.
    pub positives: usize,
    /// Background anchors that do.
    pub negatives: usize,
    /// Mean IoU of the positives with the object that they overlap most; none without one.
    pub iou: Option<f32>,
    /// Part of the loss, and what the level's anchors that enter add to it: Σ / N. Parts that count by anchor alone.
    pub losses: Vec<(String, f32)>,
}

/// Mean and deviation of dx, dy, dw, dh over the positives.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CodeSpread {
    pub count: usize,
    pub mean: [f32; 4],
    /// Root of the mean squared distance from the mean.
    pub deviation: [f32; 4],
}

/// The levels of a batch in the order of its anchors; none before the anchors are sampled.
pub fn by_level(traces: &[Trace]) -> Vec<LevelTargets> {
    let count = traces.iter().map(|trace| trace.anchors.levels.len()).max().unwrap_or(0);
    let mut levels = vec![LevelTargets::default(); count];
    if traces.iter().all(|trace| trace.sampling.is_empty()) {
        return Vec::new();
    }
    for trace in traces {
        let anchors = trace.anchors.boxes.len();
        // A second stage counts its losses by RoI, which says nothing of anchors.
        let parts: Vec<&LossPart> = trace.losses.iter().filter(|part| part.per_anchor.len() == anchors).collect();
        let overlaps = trace.assignment.as_ref().map(|assignment| assignment.iou.as_slice()).unwrap_or_default();
        let entering = entering(trace);
        for (level, run) in levels.iter_mut().zip(&trace.anchors.levels) {
            let within = run.start..run.start + run.len;
            let own: Vec<(usize, bool)> =
                entering.iter().copied().filter(|(anchor, _)| within.contains(anchor)).collect();
            if own.is_empty() {
                continue;
            }
            for &(anchor, positive) in &own {
                if positive {
                    level.positives += 1;
                    // A sum until all are seen.
                    *level.iou.get_or_insert(0.0) += overlaps.get(anchor).copied().unwrap_or(0.0);
                } else {
                    level.negatives += 1;
                }
            }
            for part in &parts {
                let losses = own.iter().filter_map(|(anchor, _)| part.per_anchor.get(*anchor));
                let sum: f64 = losses.map(|loss| f64::from(*loss)).sum();
                let share = (sum / f64::from(part.normalizer.max(f32::MIN_POSITIVE))) as f32;
                match level.losses.iter_mut().find(|(name, _)| *name == part.name) {
                    Some((_, sum)) => *sum += share,
                    None => level.losses.push((part.name.clone(), share)),
                }
            }
        }
    }
    for level in &mut levels {
        level.iou = level.iou.map(|sum| sum / level.positives as f32);
    }
    levels
}

/// The anchors that enter the loss, and whether each has an object.
fn entering(trace: &Trace) -> Vec<(usize, bool)> {
    match &trace.assignment {
        Some(assignment) if trace.all_background => {
            let targets = assignment.target.iter().enumerate().filter(|(_, target)| **target >= -1);
            targets.map(|(anchor, target)| (anchor, *target >= 0)).collect()
        }
        _ => trace.sampling.iter().map(|sample| (sample.anchor as usize, sample.positive)).collect(),
    }
}

/// How the codes that the positives have to learn spread; none without a positive. Deviations that fit the data give a
/// mean near 0 and a deviation near 1.
pub fn code_spread(traces: &[Trace], coder: &BoxCoder) -> Option<CodeSpread> {
    let pairs = traces.iter().flat_map(|trace| {
        let targets = trace.assignment.iter().flat_map(|assignment| &assignment.target).zip(&trace.anchors.boxes);
        targets.filter_map(move |(target, anchor)| {
            Some((*anchor, trace.objects.get(usize::try_from(*target).ok()?)?.bbox))
        })
    });
    let proper = |(anchor, target): &(BBox, BBox)| anchor.is_proper() && target.is_proper();
    let codes: Vec<[f32; 4]> = pairs.filter(proper).map(|(anchor, target)| coder.encode(anchor, target)).collect();
    if codes.is_empty() {
        return None;
    }
    let mut spread = CodeSpread { count: codes.len(), ..CodeSpread::default() };
    for axis in 0..4 {
        let mean_of = |value: &dyn Fn(f64) -> f64| {
            codes.iter().map(|code| value(f64::from(code[axis]))).sum::<f64>() / codes.len() as f64
        };
        let mean = mean_of(&|code| code);
        spread.mean[axis] = mean as f32;
        spread.deviation[axis] = mean_of(&|code| (code - mean).powi(2)).sqrt() as f32;
    }
    Some(spread)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Object;
    use crate::trace::{AnchorLevel, Anchors, Assignment, Sample};

    /// Two levels of two anchors 10×10; the first anchor of each has an object.
    fn trace() -> Trace {
        let square = |x: f32| BBox::new(x, 0.0, x + 10.0, 10.0);
        let level = |start| AnchorLevel { start, len: 2, ..AnchorLevel::default() };
        let sample = |anchor, positive| Sample { anchor, positive, rank: 0, loss: 0.0 };
        let part =
            |name: &str, per_anchor| LossPart { name: name.into(), normalizer: 2.0, per_anchor, ..LossPart::default() };
        Trace {
            objects: [1.0, 23.0].map(|x| Object { bbox: square(x), ..Object::default() }).to_vec(),
            anchors: Anchors { boxes: [0.0, 10.0, 20.0, 30.0].map(square).to_vec(), levels: vec![level(0), level(2)] },
            assignment: Some(Assignment {
                target: vec![0, -1, 1, -1],
                iou: vec![0.8, 0.1, 0.6, 0.2],
                ..Assignment::default()
            }),
            sampling: vec![sample(0, true), sample(1, false), sample(2, true)],
            losses: vec![part("classification", vec![1.0, 2.0, 3.0, 9.0]), part("second stage", vec![7.0])],
            ..Trace::default()
        }
    }

    #[test]
    fn levels_count_what_was_sampled_and_what_it_costs() {
        let levels = by_level(&[trace(), trace()]);
        let counts: Vec<(usize, usize)> = levels.iter().map(|level| (level.positives, level.negatives)).collect();
        assert_eq!(counts, [(2, 2), (2, 0)]);
        assert_eq!(levels[0].losses, [("classification".to_string(), 3.0)]);
        assert_eq!(levels[1].losses, [("classification".to_string(), 3.0)]);
        assert!((levels[0].iou.unwrap() - 0.8).abs() < 1e-6 && (levels[1].iou.unwrap() - 0.6).abs() < 1e-6);
        assert!(by_level(&[Trace { sampling: Vec::new(), ..trace() }]).is_empty());
        assert!(by_level(&[]).is_empty());
    }

    #[test]
    fn background_that_is_not_listed_counts_where_all_of_it_enters() {
        let focal = Trace { all_background: true, ..trace() };
        assert_eq!((focal.negatives(), trace().negatives()), (2, 1));
        let levels = by_level(&[focal]);
        assert_eq!((levels[0].negatives, levels[1].negatives), (1, 1));
        assert_eq!(levels[1].losses, [("classification".to_string(), 6.0)]);
    }

    #[test]
    fn codes_have_the_mean_and_the_deviation_by_hand() {
        // dx is 0.1 and 0.3 of an anchor: in SSD's code 1 and 3.
        let spread = code_spread(&[trace()], &BoxCoder::SSD).unwrap();
        assert_eq!(spread.count, 2);
        assert!((spread.mean[0] - 2.0).abs() < 1e-4 && (spread.deviation[0] - 1.0).abs() < 1e-4, "{spread:?}");
        assert_eq!((spread.mean[3], spread.deviation[3]), (0.0, 0.0));
        assert_eq!(code_spread(&[Trace::default()], &BoxCoder::SSD), None);
    }
}
