//! The RPN's proposals.

use super::config::RpnConfig;
use super::picture::Sizes;
use crate::geometry::BBox;
use crate::ops::proposals::{self, Proposal, ProposalRule};
use crate::trace::Anchors;
use candle_core::{Result, Tensor};
use std::borrow::Cow;
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

/// Proposals of a batch, wherever they lie.
pub(super) enum Proposed {
    /// Of each image.
    Cpu(Vec<Proposals>),
    Cuda(proposals::Proposed),
}

impl Proposed {
    /// Those of each image in main memory.
    pub(super) fn read(&self) -> Result<Cow<'_, [Proposals]>> {
        Ok(match self {
            Self::Cpu(all) => Cow::Borrowed(all),
            Self::Cuda(all) => Cow::Owned(all.read()?.into_iter().map(of_image).collect()),
        })
    }
}

/// [`propose`] in training, where they stay on a CUDA device: `corners` `[anchors, 4]` are the anchors there.
///
/// # Errors
/// As [`propose`].
pub(super) fn proposed(
    config: &RpnConfig,
    anchors: &Anchors,
    corners: Option<&Tensor>,
    answers: (&Tensor, &Tensor),
    sizes: &Sizes,
) -> Result<Proposed> {
    let limits = Limits::training(config);
    match corners {
        None => Ok(Proposed::Cpu(propose(config, limits, anchors, answers, sizes.values()?)?)),
        Some(corners) => {
            let runs = runs(anchors);
            Ok(Proposed::Cuda(proposals::proposed(answers, corners, &sizes.tensor, &rule(config, limits, &runs))?))
        }
    }
}

fn runs(anchors: &Anchors) -> Vec<Range<usize>> {
    anchors.levels.iter().map(|level| level.start..level.start + level.len).collect()
}

fn rule<'a>(config: &RpnConfig, limits: Limits, runs: &'a [Range<usize>]) -> ProposalRule<'a> {
    ProposalRule {
        runs,
        per_run: limits.per_level,
        total: limits.total,
        min_size: config.proposal_min_size,
        nms: config.proposal_nms,
    }
}

fn of_image(found: Vec<Proposal>) -> Proposals {
    let mut proposals = Proposals::default();
    for Proposal { bbox, logit, anchor } in found {
        proposals.push(bbox, probability(logit), anchor);
    }
    proposals
}

/// Proposals of each image from objectness `[N, anchors]` and box codes `[N, anchors, 4]`. `sizes` are the pictures'
/// heights and widths within the input.
///
/// # Errors
/// Answers that are not one for each anchor.
pub(super) fn propose(
    config: &RpnConfig,
    limits: Limits,
    anchors: &Anchors,
    answers: (&Tensor, &Tensor),
    sizes: &[(f32, f32)],
) -> Result<Vec<Proposals>> {
    let runs = runs(anchors);
    let found = proposals::propose(answers, &anchors.boxes, sizes, &rule(config, limits, &runs))?;
    Ok(found.into_iter().map(of_image).collect())
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
        let logits = Tensor::from_slice(logits, (1, logits.len()), &Device::Cpu)?;
        let deltas = Tensor::from_slice(deltas, (1, deltas.len() / 4, 4), &Device::Cpu)?;
        Ok(propose(config, limits, anchors, (&logits, &deltas), &[(50.0, 70.0)])?.remove(0))
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
