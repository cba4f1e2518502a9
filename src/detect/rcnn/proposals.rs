//! From the RPN's answers to proposals: best of each level, decode, clip, suppress level by level, best of the image.

use super::config::RpnConfig;
use crate::geometry::BBox;
use crate::geometry::coder::BoxCoder;
use crate::ops::select::{fetch_rows, nms, top_k_of_runs};
use crate::trace::Anchors;
use candle_core::{Result, Tensor};
use std::ops::Range;

/// How many proposals there may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Limits {
    /// Of one level, before suppression.
    pub(super) per_level: usize,
    /// Of the image, after it.
    pub(super) total: usize,
}

impl Limits {
    pub(super) fn training(config: &RpnConfig) -> Self {
        Self { per_level: config.train_per_level, total: config.train_proposals }
    }

    pub(super) fn detecting(config: &RpnConfig) -> Self {
        Self { per_level: config.test_per_level, total: config.test_proposals }
    }
}

/// Proposals of one image, best first.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Proposals {
    /// Input pixels, clipped to the picture.
    pub(super) boxes: Vec<BBox>,
    /// Probability of an object.
    pub(super) scores: Vec<f32>,
    /// The anchor that each came from; [`NO_PARENT`](super::refine::NO_PARENT) for one from outside.
    pub(super) anchors: Vec<u32>,
}

impl Proposals {
    pub(super) fn push(&mut self, bbox: BBox, score: f32, anchor: u32) {
        self.boxes.push(bbox);
        self.scores.push(score);
        self.anchors.push(anchor);
    }
}

/// Proposals of one image from its objectness `logits` `[anchors]` and box codes `deltas` `[anchors, 4]`.
///
/// `size` is the picture's height and width within the input. An anchor whose answer is not a number proposes nothing.
///
/// # Errors
/// Answers that are not one for each anchor.
pub(super) fn propose(
    config: &RpnConfig,
    limits: Limits,
    anchors: &Anchors,
    (logits, deltas): (&Tensor, &Tensor),
    size: (f32, f32),
) -> Result<Proposals> {
    let count = anchors.boxes.len();
    if logits.dims() != [count] || deltas.dims() != [count, 4] {
        candle_core::bail!("{count} anchors for answers of shape {:?} and {:?}", logits.dims(), deltas.dims());
    }
    let runs: Vec<Range<usize>> = anchors.levels.iter().map(|level| level.start..level.start + level.len).collect();
    let best = top_k_of_runs(logits, &runs, limits.per_level)?;
    let numbered = runs.iter().zip(best).zip(0..);
    let chosen: Vec<(u32, u32, f32)> = numbered
        .flat_map(|((run, best), level)| {
            best.into_iter().map(move |(place, logit)| (level, run.start as u32 + place, logit))
        })
        .collect();
    let rows: Vec<u32> = chosen.iter().map(|&(_, anchor, _)| anchor).collect();
    let codes = fetch_rows(deltas, &rows)?;
    let mut candidates = Proposals::default();
    let mut levels = Vec::new();
    for ((level, anchor, logit), c) in chosen.into_iter().zip(codes.chunks_exact(4)) {
        let start = anchors.boxes[anchor as usize];
        let bbox = BoxCoder::RETINA.decode(start, [c[0], c[1], c[2], c[3]]).clip(size.1, size.0);
        let shorter = bbox.width().min(bbox.height());
        if bbox.is_proper() && shorter >= config.proposal_min_size && !logit.is_nan() {
            candidates.push(bbox, probability(logit), anchor);
            levels.push(level);
        }
    }
    let mut kept = nms(&candidates.boxes, &candidates.scores, &levels, config.proposal_nms, logits.device())?;
    kept.truncate(limits.total);
    let mut proposals = Proposals::default();
    for index in kept {
        let index = index as usize;
        proposals.push(candidates.boxes[index], candidates.scores[index], candidates.anchors[index]);
    }
    Ok(proposals)
}

/// `1 / (1 + e^−x)`.
fn probability(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

#[cfg(test)]
mod tests {
    use super::super::config::RcnnConfig;
    use super::*;
    use crate::trace::AnchorLevel;
    use candle_core::Device;

    fn level(start: usize, len: usize) -> AnchorLevel {
        AnchorLevel { start, len, rows: 1, columns: len, per_cell: 1, stride: 8.0 }
    }

    fn square(x: f32, side: f32) -> BBox {
        BBox::new(x, 0.0, x + side, side)
    }

    fn of_answers(
        config: &RpnConfig,
        limits: Limits,
        anchors: &Anchors,
        logits: &[f32],
        deltas: &[f32],
    ) -> Result<Proposals> {
        let logits = Tensor::from_slice(logits, logits.len(), &Device::Cpu)?;
        let deltas = Tensor::from_slice(deltas, (deltas.len() / 4, 4), &Device::Cpu)?;
        propose(config, limits, anchors, (&logits, &deltas), (50.0, 70.0))
    }

    #[test]
    fn levels_are_suppressed_apart_and_ranked_together() -> Result<()> {
        let config = RcnnConfig::faster_nano(&["a".to_string()]).rpn;
        // the two of the first level overlap by 9 / 11 > 0.7, the second level's first equals the better of them
        let boxes = vec![square(0.0, 10.0), square(1.0, 10.0), square(0.0, 10.0), square(60.0, 20.0)];
        let anchors = Anchors { boxes, levels: vec![level(0, 2), level(2, 2)] };
        let logits = [2.0, 1.0, 0.0, 3.0];
        let deltas = [0.0; 16];
        let limits = Limits { per_level: 5, total: 5 };
        let found = of_answers(&config, limits, &anchors, &logits, &deltas)?;
        assert_eq!(found.anchors, [3, 0, 2]);
        assert_eq!(found.boxes[0], BBox::new(60.0, 0.0, 70.0, 20.0));
        assert!((found.scores[2] - 0.5).abs() < 1e-6 && found.scores[0] > 0.95);
        let best = of_answers(&config, Limits { per_level: 1, total: 1 }, &anchors, &logits, &deltas)?;
        assert_eq!(best.anchors, [3]);
        Ok(())
    }

    #[test]
    fn specks_numbers_that_are_none_and_boxes_outside_propose_nothing() -> Result<()> {
        let config = RcnnConfig::faster_nano(&["a".to_string()]).rpn;
        let boxes = vec![square(0.0, 1e-4), square(0.0, 10.0), square(20.0, 10.0), square(90.0, 10.0)];
        let anchors = Anchors { boxes, levels: vec![level(0, 4)] };
        let limits = Limits { per_level: 9, total: 9 };
        let mut deltas = [0.0; 16];
        deltas[8] = f32::NAN;
        let found = of_answers(&config, limits, &anchors, &[1.0, f32::NAN, 1.0, 1.0], &deltas)?;
        assert_eq!(found, Proposals::default());
        // too few answers are no panic either
        assert!(of_answers(&config, limits, &anchors, &[1.0], &deltas).is_err());
        assert!(of_answers(&config, limits, &anchors, &[1.0; 4], &deltas[..12]).is_err());
        Ok(())
    }
}
