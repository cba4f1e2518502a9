//! What the Proposals panel computes: the lives of boxes through the stages, and numbers of each stage.
//!
//! Boxes are in pixels of the network's input. Stage 0 is where the proposals began: their anchors.

use crate::geometry::BBox;
use crate::geometry::coder::BoxCoder;
use crate::geometry::iou::{iou, pairwise_iou};
use crate::stats::mean;
use crate::trace::Trace;

/// Thresholds of the table's shares.
pub const SHARES: [f32; 3] = [0.5, 0.6, 0.7];

/// One box from its anchor to the last stage that has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Life {
    /// Its row in each of the trace's stages.
    pub rows: Vec<u32>,
    pub anchor: u32,
    /// The anchor, then the box after each stage; shorter than the stages for one that was filtered on the way.
    pub path: Vec<BBox>,
    /// What the last stage gave it.
    pub score: f32,
}

impl Life {
    /// The box at `place`, from 0 (the anchor) to the number of stages (the last box), straight between stages. One that
    /// the next stage does not have stays where it is until then.
    pub fn at(&self, place: f32) -> Option<BBox> {
        if place >= self.path.len() as f32 {
            return None;
        }
        let segment = (place.ceil() as usize).clamp(1, self.path.len().max(2) - 1) - 1;
        let (from, to) = (self.path.get(segment)?, self.path.get(segment + 1)?);
        let t = (place - segment as f32).clamp(0.0, 1.0);
        let between = |a: f32, b: f32| a + (b - a) * t;
        Some(BBox::new(
            between(from.x0, to.x0),
            between(from.y0, to.y0),
            between(from.x1, to.x1),
            between(from.y1, to.y1),
        ))
    }
}

/// The lives of all boxes of the last stage, best score first. One that cannot be followed to its anchor is left out. A
/// score of 0 says that an earlier stage filtered the box, and that this one never looked at it.
pub fn lives(trace: &Trace) -> Vec<Life> {
    let stages = trace.stages();
    let Some(last) = stages.last() else { return Vec::new() };
    let mut lives: Vec<Life> = (0..last.boxes.len() as u32)
        .filter_map(|row| {
            let (rows, anchor) = trace.way(row);
            let anchor = anchor?;
            let mut path = vec![*trace.anchors.boxes.get(anchor as usize)?];
            for (stage, &row) in stages.iter().zip(&rows) {
                if stage.scores.get(row as usize).is_some_and(|&score| score <= 0.0) {
                    break;
                }
                path.push(*stage.boxes.get(row as usize)?);
            }
            let score = last.scores.get(row as usize).copied().unwrap_or(0.0);
            Some(Life { rows, anchor, path, score })
        })
        .collect();
    lives.sort_by(|a, b| b.score.total_cmp(&a.score));
    lives
}

/// The best IoU of a box with any object; `None` without objects.
pub fn best_iou(bbox: BBox, objects: &[BBox]) -> Option<f32> {
    objects.iter().map(|&object| iou(bbox, object)).max_by(f32::total_cmp)
}

/// The numbers of one stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbers {
    pub name: String,
    pub count: usize,
    /// IoU from which the stage calls a proposal positive.
    pub threshold: Option<f32>,
    /// All that needs objects.
    pub overlap: Option<Overlap>,
    /// Mean and deviation of dx, dy, dw, dh from the stage before, without the coder's own deviations; `None` for
    /// anchors.
    pub deltas: Option<Deltas>,
}

/// How a stage's boxes lie on their objects.
#[derive(Clone, Debug, PartialEq)]
pub struct Overlap {
    pub mean: f32,
    /// Shares at or above [`SHARES`].
    pub shares: [f32; 3],
    /// Share at or above the stage's threshold.
    pub positives: Option<f32>,
    /// Of each box, the best IoU with any object.
    pub values: Vec<f32>,
}

/// The spread of a stage's regression.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Deltas {
    pub mean: [f32; 4],
    pub deviation: [f32; 4],
    /// Boxes that were counted.
    pub count: usize,
    /// Whether they are the positives alone.
    pub of_positives: bool,
}

/// The numbers of the anchors that became proposals, and of every stage.
pub fn numbers(trace: &Trace) -> Vec<Numbers> {
    let objects: Vec<BBox> = trace.objects.iter().map(|o| o.bbox).collect();
    let stages = trace.stages();
    let Some(first) = stages.first() else { return Vec::new() };
    let anchors: Vec<BBox> =
        first.parent.iter().filter_map(|&parent| trace.anchors.boxes.get(parent as usize).copied()).collect();
    let overlaps = |boxes: &[BBox]| -> Vec<f32> {
        let table = pairwise_iou(boxes, &objects);
        table.chunks_exact(objects.len().max(1)).map(|row| row.iter().copied().fold(0.0, f32::max)).collect()
    };
    let mut all = vec![Numbers {
        name: "anchors".into(),
        count: anchors.len(),
        threshold: None,
        overlap: overlap(&overlaps(&anchors), None),
        deltas: None,
    }];
    let mut before = trace.anchors.boxes.as_slice();
    for stage in stages {
        let pairs = stage.boxes.iter().zip(&stage.parent).enumerate();
        let moves: Vec<(usize, BBox, BBox)> = pairs
            .filter_map(|(row, (&to, &parent))| Some((row, *before.get(parent as usize)?, to)))
            .filter(|(_, from, to)| from.is_proper() && to.is_proper())
            .collect();
        let is_positive = |row: usize| match (stage.threshold, stage.iou.get(row)) {
            (Some(threshold), Some(&iou)) => iou >= threshold,
            _ => false,
        };
        let positives: Vec<_> = moves.iter().filter(|(row, ..)| is_positive(*row)).copied().collect();
        let of_positives = !positives.is_empty();
        all.push(Numbers {
            name: stage.name.clone(),
            count: stage.boxes.len(),
            threshold: stage.threshold,
            overlap: overlap(&stage.iou, stage.threshold),
            deltas: deltas(if of_positives { &positives } else { &moves }, of_positives),
        });
        before = &stage.boxes;
    }
    all
}

fn overlap(overlaps: &[f32], threshold: Option<f32>) -> Option<Overlap> {
    let mean = mean(overlaps)?;
    let share = |threshold: f32| overlaps.iter().filter(|v| **v >= threshold).count() as f32 / overlaps.len() as f32;
    Some(Overlap { mean, shares: SHARES.map(share), positives: threshold.map(share), values: overlaps.to_vec() })
}

fn deltas(moves: &[(usize, BBox, BBox)], of_positives: bool) -> Option<Deltas> {
    let count = moves.len();
    if count == 0 {
        return None;
    }
    let codes: Vec<[f32; 4]> = moves.iter().map(|&(_, from, to)| BoxCoder::RETINA.encode(from, to)).collect();
    let over_all = |term: &dyn Fn(&[f32; 4]) -> f64| codes.iter().map(term).sum::<f64>() / count as f64;
    let means: [f64; 4] = std::array::from_fn(|k| over_all(&|code: &[f32; 4]| f64::from(code[k])));
    let deviations: [f64; 4] =
        std::array::from_fn(|k| over_all(&|code: &[f32; 4]| (f64::from(code[k]) - means[k]).powi(2)).sqrt());
    let narrow = |values: [f64; 4]| values.map(|v| v as f32);
    Some(Deltas { mean: narrow(means), deviation: narrow(deviations), count, of_positives })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Object;
    use crate::trace::{Anchors, ProposalStage};

    fn square(x: f32, side: f32) -> BBox {
        BBox::new(x, 0.0, x + side, side)
    }

    /// Two proposals, from anchors 2 and 0, moved once more.
    fn trace() -> Trace {
        let stage = |name: &str, boxes: Vec<BBox>, parent: Vec<u32>, scores: Vec<f32>| ProposalStage {
            name: name.into(),
            iou: boxes.iter().filter_map(|&b| best_iou(b, &[square(0.0, 10.0)])).collect(),
            boxes,
            scores,
            parent,
            threshold: Some(0.5),
        };
        Trace {
            objects: vec![Object { bbox: square(0.0, 10.0), ..Object::default() }],
            anchors: Anchors { boxes: vec![square(40.0, 10.0), square(90.0, 5.0), square(8.0, 10.0)], levels: vec![] },
            proposals: vec![
                stage("RPN", vec![square(4.0, 10.0), square(40.0, 20.0)], vec![2, 0], vec![0.6, 0.9]),
                stage("stage 1", vec![square(0.0, 10.0), square(42.0, 20.0)], vec![0, 1], vec![0.8, 0.1]),
                stage("training RPN", vec![square(0.0, 1.0)], vec![0], vec![1.0]),
            ],
            ..Trace::default()
        }
    }

    #[test]
    fn a_life_runs_from_the_anchor_to_the_last_box() {
        let lives = lives(&trace());
        assert_eq!(lives.len(), 2);
        assert_eq!((lives[0].anchor, lives[0].score, lives[0].rows.as_slice()), (2, 0.8, [0, 0].as_slice()));
        let at = |place: f32| lives[0].at(place).map(|b| b.x0);
        assert_eq!([0.0, 0.5, 1.0, 1.5, 2.0].map(at), [8.0, 6.0, 4.0, 2.0, 0.0].map(Some));
        assert_eq!(lives[0].at(f32::NAN).map(|b| b.x0.is_nan()), Some(true));
    }

    #[test]
    fn a_filtered_box_ends_on_the_way() {
        let mut trace = trace();
        trace.proposals[1].scores[1] = 0.0;
        let lives = lives(&trace);
        assert_eq!((lives[0].path.len(), lives[1].path.len()), (3, 2));
        let at = |place: f32| lives[1].at(place).map(|b| b.x0);
        assert_eq!([0.0, 1.0, 1.9].map(at), [40.0; 3].map(Some));
        assert_eq!(at(2.0), None);
    }

    #[test]
    fn stages_have_their_numbers() {
        let all = numbers(&trace());
        assert_eq!(all.iter().map(|n| n.name.as_str()).collect::<Vec<_>>(), ["anchors", "RPN", "stage 1"]);
        let overlap = |stage: usize| all[stage].overlap.clone().unwrap();
        // 8 px off: 2 / 18; 4 px off: 6 / 14; then exact; the other never meets the object
        assert!((overlap(0).mean - 1.0 / 18.0).abs() < 1e-6 && (overlap(1).mean - 3.0 / 14.0).abs() < 1e-6);
        assert_eq!((overlap(1).shares, overlap(2).shares), ([0.0; 3], [0.5; 3]));
        assert_eq!((overlap(0).positives, overlap(2).positives), (None, Some(0.5)));
        assert_eq!(overlap(2).values, [1.0, 0.0]);
        assert!(all[0].deltas.is_none());
        // no proposal of the RPN is positive: both count. dx = −0.4 and 0.5, dw = 0 and ln 2
        let rpn = all[1].deltas.unwrap();
        assert!(!rpn.of_positives && rpn.count == 2);
        assert!((rpn.mean[0] - 0.05).abs() < 1e-6 && (rpn.deviation[0] - 0.45).abs() < 1e-6);
        assert!((rpn.mean[2] - std::f32::consts::LN_2 / 2.0).abs() < 1e-6);
        let last = all[2].deltas.unwrap();
        assert!(last.of_positives && last.count == 1 && (last.mean[0] + 0.4).abs() < 1e-6);
    }

    #[test]
    fn nothing_proposed_and_no_objects() {
        assert!(lives(&Trace::default()).is_empty() && numbers(&Trace::default()).is_empty());
        let mut bare = trace();
        bare.objects.clear();
        bare.proposals.iter_mut().for_each(|stage| stage.iou.clear());
        let all = numbers(&bare);
        assert!(all.iter().all(|n| n.overlap.is_none()) && all[1].deltas.is_some());
    }
}
