//! What a part of the loss was computed from: the head's answers, what they should have been, and the formula, for every
//! anchor or RoI.

use crate::geometry::BBox;
use crate::geometry::iou::{ciou, diou, giou, iou};
use std::ops::Range;

/// Answers of one part in one batch that its traces keep: 256 MiB. A larger table is left out.
pub const MOST_KEPT: usize = 1 << 26;

/// How a row of answers x becomes a loss.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Formula {
    /// ln Σₖ eˣᵏ − x_t for the wanted column t: cross-entropy of a softmax.
    #[default]
    Softmax,
    /// Σ −t ln σ(x) − (1 − t) ln(1 − σ(x)): binary cross-entropy.
    Sigmoid,
    /// Σ −αₜ (1 − pₜ)^γ ln pₜ; a negative `alpha` weighs both classes 1 (Lin et al., "Focal Loss", ICCV 2017, eq. 5).
    Focal { alpha: f32, gamma: f32 },
    /// Σ d² / 2β where |d| < β, |d| − β/2 elsewhere, for d = x − t; β = 0 is the L1 distance.
    SmoothL1 { beta: f32 },
    /// Σ (x − t)².
    Squared,
    /// Of the box that the row means and its object.
    Overlap(Overlap),
}

/// A loss between a predicted and a wanted box.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Overlap {
    /// −ln IoU, the IoU held at `least` or more (UnitBox, FCOS).
    Log {
        least: f32,
    },
    /// 1 − IoU.
    Linear,
    Giou,
    Diou,
    Ciou,
}

impl Overlap {
    /// IoU, or the GIoU, DIoU or CIoU that takes its place.
    pub fn measure(self, a: BBox, b: BBox) -> f32 {
        match self {
            Self::Log { .. } | Self::Linear => iou(a, b),
            Self::Giou => giou(a, b),
            Self::Diou => diou(a, b),
            Self::Ciou => ciou(a, b),
        }
    }

    fn loss(self, a: BBox, b: BBox) -> f64 {
        let measure = f64::from(self.measure(a, b));
        match self {
            Self::Log { least } => -measure.max(f64::from(least)).ln(),
            _ => 1.0 - measure,
        }
    }
}

/// The record of one part of the loss in one image. Tables are row-major, a row an anchor or RoI.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Terms {
    pub formula: Formula,
    /// Numbers of a row of `predicted`; 0 when nothing was recorded.
    pub stride: usize,
    /// `[A, stride]`: logits or box code as the head gave them; NaN where it was not asked.
    pub predicted: Vec<f32>,
    /// What they should be, NaN where nothing is learnt. Softmax and focal: `[A]`, the wanted column, −1 for none.
    /// Overlap: `[A, 4]`, corners of the object. Otherwise `[A, stride]`.
    pub target: Vec<f32>,
    /// `[A, 4]`: corners of the boxes that the codes mean, NaN where nothing is learnt; for an overlap only.
    pub boxes: Vec<f32>,
    /// `[A]`: what a row's loss is multiplied by; empty for 1.
    pub weights: Vec<f32>,
    /// Column of class 0 where columns are classes; those outside the classes are background or unused.
    pub first_class: Option<usize>,
}

/// One number of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Term {
    pub predicted: f32,
    /// What it should be: a probability for logits, else the number itself; NaN where it learns nothing.
    pub target: f32,
    /// Softmax or sigmoid of a logit; none for box codes.
    pub probability: Option<f32>,
    /// What it adds to the row's loss, before the row's weight.
    pub loss: f32,
}

impl Terms {
    /// Numbers of a row of `target`.
    pub fn target_width(&self) -> usize {
        match self.formula {
            Formula::Softmax | Formula::Focal { .. } => 1,
            Formula::Overlap(_) => 4,
            _ => self.stride,
        }
    }

    /// The record of some rows, as those of one image of a batch.
    #[must_use]
    pub fn rows(&self, rows: Range<usize>) -> Self {
        let cut =
            |table: &[f32], width: usize| table.get(rows.start * width..rows.end * width).unwrap_or_default().to_vec();
        Self {
            predicted: cut(&self.predicted, self.stride),
            target: cut(&self.target, self.target_width()),
            boxes: cut(&self.boxes, 4),
            weights: cut(&self.weights, 1),
            ..*self
        }
    }

    /// The head's answers for a row; none where it gave none.
    pub fn answers(&self, row: usize) -> Option<&[f32]> {
        row_of(&self.predicted, self.stride, row)
    }

    /// What a row's loss is multiplied by.
    pub fn weight(&self, row: usize) -> f32 {
        self.weights.get(row).copied().unwrap_or(1.0)
    }

    /// The predicted and the wanted box of a row whose loss is of their overlap; none where it learns nothing.
    pub fn pair(&self, row: usize) -> Option<(BBox, BBox)> {
        let of = |table: &[f32]| {
            let corners = row_of(table, 4, row)?;
            Some(BBox::new(corners[0], corners[1], corners[2], corners[3]))
        };
        match self.formula {
            Formula::Overlap(_) => Some((of(&self.boxes)?, of(&self.target)?)),
            _ => None,
        }
    }

    /// The wanted column of a row of a softmax or a focal loss: none wanted inside, nothing learnt outside.
    pub fn wanted(&self, row: usize) -> Option<Option<usize>> {
        match self.formula {
            Formula::Softmax | Formula::Focal { .. } => {
                let column = *row_of(&self.target, 1, row)?.first()?;
                Some((column >= 0.0).then_some(column as usize))
            }
            _ => None,
        }
    }

    /// Every number of a row with what it adds to the loss; those of an overlap add nothing one by one. Empty where the
    /// head gave no answer.
    pub fn terms(&self, row: usize) -> Vec<Term> {
        let Some(answers) = self.answers(row) else { return Vec::new() };
        let wanted = self.wanted(row);
        let targets = if self.target_width() == self.stride { row_of(&self.target, self.stride, row) } else { None };
        let log_sum = log_sum_exp(answers);
        let term = |(column, &predicted): (usize, &f32)| {
            let x = f64::from(predicted);
            let hot = wanted.map_or(f32::NAN, |wanted| if wanted == Some(column) { 1.0 } else { 0.0 });
            let own = targets.and_then(|targets| targets.get(column).copied()).unwrap_or(f32::NAN);
            let (target, probability, loss) = match self.formula {
                Formula::Softmax => (hot, Some((x - log_sum).exp()), if hot == 1.0 { log_sum - x } else { 0.0 }),
                Formula::Focal { alpha, gamma } => {
                    let weight = focal_weight(x, hot == 1.0, (alpha, gamma));
                    (hot, Some(sigmoid(x)), weight * binary_entropy(x, f64::from(hot)))
                }
                Formula::Sigmoid => (own, Some(sigmoid(x)), binary_entropy(x, f64::from(own))),
                Formula::SmoothL1 { beta } => (own, None, smooth_l1(x - f64::from(own), f64::from(beta))),
                Formula::Squared => (own, None, (x - f64::from(own)).powi(2)),
                Formula::Overlap(_) => (f32::NAN, None, 0.0),
            };
            let loss = if target.is_nan() { 0.0 } else { loss as f32 };
            Term { predicted, target, probability: probability.map(|p| p as f32), loss }
        };
        answers.iter().enumerate().map(term).collect()
    }

    /// The loss of a row, computed anew from its numbers; none where it learns nothing.
    pub fn loss(&self, row: usize) -> Option<f32> {
        let sum = match (self.formula, self.pair(row)) {
            (Formula::Overlap(overlap), pair) => pair.map(|(predicted, target)| overlap.loss(predicted, target))?,
            _ => {
                let terms = self.terms(row);
                let learns = terms.iter().any(|term| !term.target.is_nan());
                learns.then(|| terms.iter().map(|term| f64::from(term.loss)).sum::<f64>())?
            }
        };
        Some((sum * f64::from(self.weight(row))) as f32)
    }

    /// What the focal weights leave of a row's binary cross-entropy; none for other formulas.
    pub fn focal_share(&self, row: usize) -> Option<f32> {
        let Formula::Focal { .. } = self.formula else { return None };
        let whole = self.terms(row);
        let entropy: f64 = whole.iter().map(|term| binary_entropy(term.predicted.into(), term.target.into())).sum();
        let focal: f64 = whole.iter().map(|term| f64::from(term.loss)).sum();
        (entropy > 0.0).then(|| (focal / entropy) as f32)
    }
}

/// αₜ (1 − pₜ)^γ for a logit that should be 1 where `wanted`, else 0.
fn focal_weight(x: f64, wanted: bool, (alpha, gamma): (f32, f32)) -> f64 {
    let (alpha, gamma) = (f64::from(alpha), f64::from(gamma));
    let balance = match (alpha < 0.0, wanted) {
        (true, _) => 1.0,
        (false, true) => alpha,
        (false, false) => 1.0 - alpha,
    };
    balance * sigmoid(if wanted { -x } else { x }).powf(gamma)
}

/// A row of a table; none where it is all NaN.
fn row_of(table: &[f32], width: usize, row: usize) -> Option<&[f32]> {
    let found = table.get(row * width..(row + 1) * width)?;
    found.iter().any(|value| !value.is_nan()).then_some(found)
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// An infinite logit on the right side costs nothing.
fn binary_entropy(x: f64, target: f64) -> f64 {
    let missed = if x >= 0.0 { 1.0 - target } else { target };
    let distance = if missed == 0.0 { 0.0 } else { missed * x.abs() };
    distance + (-x.abs()).exp().ln_1p()
}

fn smooth_l1(distance: f64, beta: f64) -> f64 {
    let d = distance.abs();
    if d < beta { 0.5 * d * d / beta } else { d - 0.5 * beta }
}

fn log_sum_exp(row: &[f32]) -> f64 {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    f64::from(most) + row.iter().map(|&x| f64::from(x - most).exp()).sum::<f64>().ln()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::trace::Trace;

    /// Every loss that an anchor or RoI has in a trace follows from its record. Returns how many rows were looked at.
    pub(crate) fn check(trace: &Trace) -> usize {
        let mut checked = 0;
        for part in &trace.losses {
            let stride = part.terms.stride;
            assert!(stride > 0, "{}: nothing is recorded", part.name);
            assert_eq!(part.terms.predicted.len(), part.per_anchor.len() * stride, "{}", part.name);
            for (row, &recorded) in part.per_anchor.iter().enumerate() {
                // A row that was not sampled has answers and no loss.
                let Some(found) = part.terms.loss(row) else {
                    assert_eq!(recorded, 0.0, "{} of row {row} has a loss and no terms", part.name);
                    continue;
                };
                let close = (found - recorded).abs() <= 1e-5 * recorded.abs().max(1.0);
                assert!(close, "{} of row {row}: {found} by the formula, {recorded} recorded", part.name);
                checked += 1;
            }
        }
        checked
    }

    fn terms(formula: Formula, predicted: &[f32], target: &[f32]) -> Terms {
        let (predicted, target) = (predicted.to_vec(), target.to_vec());
        Terms { formula, stride: 2, predicted, target, ..Terms::default() }
    }

    fn near(found: Option<f32>, expected: f32) {
        assert!(found.is_some_and(|found| (found - expected).abs() < 1e-6), "{found:?}, not {expected}");
    }

    #[test]
    fn formulas_by_hand() {
        let ln2 = std::f32::consts::LN_2;
        let softmax = terms(Formula::Softmax, &[0.0, 0.0, 0.0, 3.0], &[1.0, f32::NAN]);
        near(softmax.loss(0), ln2);
        assert_eq!(softmax.loss(1), None);
        assert_eq!((softmax.wanted(0), softmax.wanted(1)), (Some(Some(1)), None));
        // p = ½: ¼ of ln 2, with ¼ for what is there and ¾ for what is not
        let focal = terms(Formula::Focal { alpha: 0.25, gamma: 2.0 }, &[0.0; 4], &[0.0, -1.0]);
        near(focal.loss(0), 0.25 * ln2 * 0.25 + 0.75 * ln2 * 0.25);
        near(focal.loss(1), 2.0 * 0.75 * ln2 * 0.25);
        near(focal.focal_share(1), 0.1875);
        assert_eq!(softmax.focal_share(0), None);
        let sigmoid = terms(Formula::Sigmoid, &[0.0, f32::INFINITY], &[0.5, 1.0]);
        near(sigmoid.loss(0), ln2);
        let nan = f32::NAN;
        let smooth = terms(Formula::SmoothL1 { beta: 1.0 }, &[0.5, 3.0, 7.0, 7.0], &[0.0, 0.0, nan, nan]);
        near(smooth.loss(0), 0.125 + 2.5);
        assert_eq!(smooth.loss(1), None);
        assert_eq!(smooth.terms(1).len(), 2);
        let squared = Terms { weights: vec![0.5], ..terms(Formula::Squared, &[1.0, 3.0], &[0.0, nan]) };
        near(squared.loss(0), 0.5);
    }

    #[test]
    fn overlaps_by_hand() {
        // two 2×2 boxes shifted by 1: shared 2, union 6, hull 6; centres 1 apart, diagonal² 13
        let of = |overlap| Terms {
            formula: Formula::Overlap(overlap),
            stride: 4,
            predicted: vec![0.1; 8],
            target: [&[0.0, 0.0, 2.0, 2.0][..], &[f32::NAN; 4][..]].concat(),
            boxes: [&[1.0, 0.0, 3.0, 2.0][..], &[f32::NAN; 4][..]].concat(),
            ..Terms::default()
        };
        near(of(Overlap::Log { least: 1e-6 }).loss(0), 3f32.ln());
        near(of(Overlap::Log { least: 0.5 }).loss(0), 2f32.ln());
        for overlap in [Overlap::Linear, Overlap::Giou] {
            near(of(overlap).loss(0), 2.0 / 3.0);
        }
        for overlap in [Overlap::Diou, Overlap::Ciou] {
            near(of(overlap).loss(0), 2.0 / 3.0 + 1.0 / 13.0);
        }
        assert_eq!(of(Overlap::Giou).loss(1), None);
        assert_eq!(of(Overlap::Giou).answers(1), Some(&[0.1; 4][..]));
    }

    #[test]
    fn rows_of_one_image_are_cut_from_all_tables() {
        let whole = Terms { weights: vec![1.0, 2.0], ..terms(Formula::Softmax, &[1.0, 2.0, 3.0, 4.0], &[0.0, 1.0]) };
        let second = whole.rows(1..2);
        assert_eq!((second.predicted.as_slice(), second.target.as_slice()), (&[3.0, 4.0][..], &[1.0][..]));
        assert_eq!((second.weight(0), second.loss(0)), (2.0, whole.loss(1)));
        assert!(Terms::default().rows(0..2).predicted.is_empty());
    }
}
