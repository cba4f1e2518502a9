//! Tensors with a row for each proposal, compared row by row with the partner that each recorded row has here.
//!
//! Proposals come in the order of their scores. Where two scores nearly tie, rounding decides which comes first, and
//! where an overlap lies at the threshold of suppression, one side keeps a proposal that the other drops and every row
//! below moves by one. Such rows hold the same proposals in other places. A recording has a few elements of each row
//! and nothing else to know a proposal by, so a row's partner is the nearest row, up to [`REACH`] places away, that
//! agrees with everything that was recorded of it in all tensors together: box, features, classes and box codes.

use super::Check;
use super::fixture::Sampled;
use std::collections::BTreeMap;

/// Places that a partner may be away.
const REACH: usize = 8;
/// Share of a tensor's recorded elements that may have no partner: proposals that one side alone kept.
const ASTRAY: f64 = 0.01;

/// A recorded tensor and ours, row-major, with the largest difference that counts as agreement.
pub(super) struct Pair<'a> {
    pub(super) recorded: &'a Sampled,
    pub(super) ours: Vec<f32>,
    pub(super) tolerance: f64,
}

/// One recorded element: which tensor, which column, what value.
struct Element {
    tensor: usize,
    column: usize,
    value: f64,
}

impl Pair<'_> {
    fn columns(&self) -> usize {
        self.recorded.shape.iter().skip(1).product::<usize>().max(1)
    }

    /// The difference of our element in `row` from `value`; infinite where we have none.
    fn difference(&self, row: usize, column: usize, value: f64) -> f64 {
        let ours = self.ours.get(row * self.columns() + column).copied().unwrap_or(f32::NAN);
        let difference = (f64::from(ours) - value).abs();
        if difference.is_nan() { f64::INFINITY } else { difference }
    }
}

/// One check for each tensor: its largest difference under the partners where all its elements agree, and otherwise
/// the share of those that do not. Elements within `slack` tolerances agree; the checks name the tolerance itself.
pub(super) fn checks(pairs: &[Pair<'_>], slack: f64) -> Vec<Check> {
    let mut rows: BTreeMap<usize, Vec<Element>> = BTreeMap::new();
    for (tensor, pair) in pairs.iter().enumerate() {
        for (&index, &value) in pair.recorded.index.iter().zip(&pair.recorded.value) {
            let element = Element { tensor, column: index % pair.columns(), value };
            rows.entry(index / pair.columns()).or_default().push(element);
        }
    }
    let mut worst = vec![0f64; pairs.len()];
    let mut astray = vec![0usize; pairs.len()];
    for (&row, elements) in &rows {
        let partner = partner(pairs, slack, row, elements);
        for element in elements {
            let pair = &pairs[element.tensor];
            let difference = pair.difference(partner, element.column, element.value);
            if difference <= slack * pair.tolerance {
                worst[element.tensor] = worst[element.tensor].max(difference);
            } else {
                astray[element.tensor] += 1;
            }
        }
    }
    let check = |((pair, worst), astray): ((&Pair<'_>, f64), usize)| match astray {
        0 => Check { name: pair.recorded.name.clone(), error: worst, allowed: pair.tolerance },
        _ => {
            let name = format!("{}: share without a partner", pair.recorded.name);
            let error = astray as f64 / pair.recorded.index.len().max(1) as f64;
            Check { name, error, allowed: ASTRAY }
        }
    };
    pairs.iter().zip(worst).zip(astray).map(check).collect()
}

/// Our row for the recorded row `row`: of those with the most agreeing elements the nearest, the upper one first.
fn partner(pairs: &[Pair<'_>], slack: f64, row: usize, elements: &[Element]) -> usize {
    let agreeing = |candidate: usize| {
        let agrees = |e: &&Element| {
            let pair = &pairs[e.tensor];
            pair.difference(candidate, e.column, e.value) <= slack * pair.tolerance
        };
        elements.iter().filter(agrees).count()
    };
    let mut best = (row, agreeing(row));
    for away in 1..=REACH {
        for candidate in [row.checked_sub(away), Some(row + away)].into_iter().flatten() {
            if best.1 == elements.len() {
                return best.0;
            }
            let count = agreeing(candidate);
            if count > best.1 {
                best = (candidate, count);
            }
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampled(shape: [usize; 2], values: &[(usize, f64)]) -> Sampled {
        Sampled {
            name: "t".into(),
            shape: shape.to_vec(),
            abs_max: 1.0,
            index: values.iter().map(|v| v.0).collect(),
            value: values.iter().map(|v| v.1).collect(),
        }
    }

    #[test]
    fn swapped_rows_are_partners_and_all_tensors_decide_together() {
        // rows 1 and 2 stand the other way round here; by the first tensor alone row 1 would be its own partner
        let (first, second) =
            (sampled([4, 2], &[(0, 0.0), (2, 5.0), (4, 5.0)]), sampled([4, 1], &[(1, 1.0), (2, 2.0)]));
        let pairs = [
            Pair { recorded: &first, ours: vec![0.0, 9.0, 5.0, 9.0, 5.0, 9.0, 7.0, 9.0], tolerance: 1e-3 },
            Pair { recorded: &second, ours: vec![0.0, 2.0, 1.0, 3.0], tolerance: 1e-3 },
        ];
        let found = checks(&pairs, 1.0);
        assert!(found.iter().all(Check::agrees), "{found:?}");
        assert_eq!((found[0].error, found[1].name.as_str()), (0.0, "t"));
    }

    #[test]
    fn a_wrong_tensor_has_no_partners() {
        let wanted: Vec<(usize, f64)> = (0..40).map(|row| (row, 1.0)).collect();
        let recorded = sampled([40, 1], &wanted);
        let found = checks(&[Pair { recorded: &recorded, ours: vec![1.1; 40], tolerance: 1e-3 }], 1.0);
        assert!(!found[0].agrees() && found[0].error == 1.0 && found[0].name.ends_with("partner"));
        let short = checks(&[Pair { recorded: &recorded, ours: vec![1.0; 20], tolerance: 1e-3 }], 1.0);
        assert!(!short[0].agrees() && short[0].error > 0.2);
        let nan = checks(&[Pair { recorded: &recorded, ours: vec![f32::NAN; 40], tolerance: 1e-3 }], 1.0);
        assert_eq!(nan[0].error, 1.0);
    }
}
