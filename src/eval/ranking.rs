//! Detections ranked by score: the order, what each counts as, and precision at given recalls.
//!
//! Arithmetic follows pycocotools' `COCOeval.accumulate` and `summarize` operation by operation, so that the same
//! matches give the same bits.

use std::cmp::Ordering;

/// What one ranked detection counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Matched to an object.
    TruePositive,
    /// Matched to nothing.
    FalsePositive,
    /// Neither: matched to an ignored object, or unmatched and outside the area range.
    Ignored,
}

/// Falling by score; equal scores (and −0 beside 0) compare equal, so a stable sort keeps their order. NaN comes last.
pub fn by_score_falling(a: f64, b: f64) -> Ordering {
    match b.partial_cmp(&a) {
        Some(order) => order,
        None => a.is_nan().cmp(&b.is_nan()),
    }
}

/// `count` numbers from `start` to `stop`, both included, with numpy's rounding: step times index plus start, and the
/// last one exactly `stop`.
pub fn linspace(start: f64, stop: f64, count: usize) -> Vec<f64> {
    if count < 2 {
        return vec![start; count];
    }
    let step = (stop - start) / (count - 1) as f64;
    let mut values: Vec<f64> = (0..count).map(|i| i as f64 * step + start).collect();
    values[count - 1] = stop;
    values
}

/// Sum in numpy's pairwise order: eight running sums over blocks of at most 128, halves above.
fn pairwise_sum(values: &[f64]) -> f64 {
    let n = values.len();
    if n < 8 {
        return values.iter().sum();
    }
    if n <= 128 {
        let mut lanes = [0.0_f64; 8];
        lanes.copy_from_slice(&values[..8]);
        let whole = n - n % 8;
        for chunk in values[8..whole].chunks_exact(8) {
            for (lane, v) in lanes.iter_mut().zip(chunk) {
                *lane += v;
            }
        }
        let sum = ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
        return values[whole..].iter().fold(sum, |sum, v| sum + v);
    }
    let half = n / 2;
    let half = half - half % 8;
    pairwise_sum(&values[..half]) + pairwise_sum(&values[half..])
}

/// Mean of the values above −1, the mark of "undefined"; −1 when there is none. Rounds as `numpy.mean` does.
pub fn mean_of_defined(values: impl Iterator<Item = f64>) -> f64 {
    let defined: Vec<f64> = values.filter(|&v| v > -1.0).collect();
    if defined.is_empty() { -1.0 } else { pairwise_sum(&defined) / defined.len() as f64 }
}

/// Best precision at or beyond each of the rising `recalls`, 0 where it is never reached: of `outcomes` in ranked order,
/// for `positives` objects in all (at least 1).
fn precision_at(outcomes: &[Outcome], positives: usize, recalls: &[f64]) -> Vec<f64> {
    let (mut true_positives, mut false_positives) = (0.0_f64, 0.0_f64);
    let mut recall = Vec::with_capacity(outcomes.len());
    let mut precision = Vec::with_capacity(outcomes.len());
    for outcome in outcomes {
        match outcome {
            Outcome::TruePositive => true_positives += 1.0,
            Outcome::FalsePositive => false_positives += 1.0,
            Outcome::Ignored => {}
        }
        recall.push(true_positives / positives as f64);
        precision.push(true_positives / (false_positives + true_positives + f64::EPSILON));
    }
    for i in (1..precision.len()).rev() {
        if precision[i] > precision[i - 1] {
            precision[i - 1] = precision[i];
        }
    }
    let read = |&wanted: &f64| precision.get(recall.partition_point(|&r| r < wanted)).copied().unwrap_or(0.0);
    recalls.iter().map(read).collect()
}

/// Average precision over `recalls` of outcomes in ranked order; `None` without positives.
pub fn average_precision(outcomes: &[Outcome], positives: usize, recalls: &[f64]) -> Option<f64> {
    (positives > 0).then(|| mean_of_defined(precision_at(outcomes, positives, recalls).into_iter()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Outcome::{FalsePositive, Ignored, TruePositive};

    #[test]
    fn the_order_is_total_with_nan_last() {
        let mut scores = [0.5, f64::NAN, 0.9, f64::NEG_INFINITY, 0.5];
        scores.sort_by(|a, b| by_score_falling(*a, *b));
        assert_eq!(scores[..4], [0.9, 0.5, 0.5, f64::NEG_INFINITY]);
        assert!(scores[4].is_nan());
        assert_eq!(by_score_falling(0.0, -0.0), Ordering::Equal);
    }

    #[test]
    fn linspace_gives_numpys_thresholds() {
        // numpy.linspace(.5, .95, 10).tolist(): the ninth is not 0.9
        let expected = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.8999999999999999, 0.95];
        assert_eq!(linspace(0.5, 0.95, 10), expected);
        assert_eq!(linspace(0.0, 1.0, 101)[100], 1.0);
        assert_eq!(linspace(0.3, 1.0, 1), [0.3]);
        assert!(linspace(0.0, 1.0, 0).is_empty());
    }

    #[test]
    fn the_sum_is_exact_on_integers_of_every_length() {
        for n in [0_usize, 1, 7, 8, 9, 15, 16, 127, 128, 129, 136, 257, 1010] {
            let values: Vec<f64> = (0..n).map(|i| i as f64).collect();
            let expected = if n == 0 { 0.0 } else { (n * (n - 1) / 2) as f64 };
            assert_eq!(pairwise_sum(&values), expected, "{n} values");
        }
    }

    #[test]
    fn the_sum_rounds_as_numpy_does() {
        // numpy.mean([1 / (i + 1) for i in range(1000)]); a sum from left to right gives …0343 instead
        let values = (0..1000).map(|i| 1.0 / f64::from(i + 1));
        assert_eq!(mean_of_defined(values), 0.007485470860550345);
    }

    #[test]
    fn undefined_values_stay_out_of_the_mean() {
        assert_eq!(mean_of_defined([-1.0, 0.5, -1.0, 1.0].into_iter()), 0.75);
        assert_eq!(mean_of_defined([-1.0, -1.0].into_iter()), -1.0);
        assert_eq!(mean_of_defined(std::iter::empty()), -1.0);
    }

    #[test]
    fn a_curve_is_read_at_its_envelope() {
        // Two objects; ranked TP, FP, TP: precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1; the envelope is 1, 2/3, 2/3.
        let precision = precision_at(&[TruePositive, FalsePositive, TruePositive], 2, &[0.0, 0.5, 0.6, 1.0]);
        let expected = [1.0, 1.0, 2.0 / 3.0, 2.0 / 3.0];
        for (got, want) in precision.iter().zip(expected) {
            assert!((got - want).abs() < 1e-15, "{got} against {want}");
        }
    }

    #[test]
    fn recall_that_is_never_reached_has_precision_zero() {
        let precision = precision_at(&[Ignored, TruePositive], 4, &[0.0, 0.25, 0.26]);
        assert!((precision[1] - 1.0).abs() < 1e-15);
        assert_eq!(precision[2], 0.0);
        assert_eq!(precision_at(&[], 3, &[0.0, 1.0]), [0.0, 0.0]);
        assert_eq!(average_precision(&[], 0, &[0.0]), None);
    }
}
