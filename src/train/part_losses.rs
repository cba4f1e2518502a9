//! The losses of one part by anchor or RoI, as the black box keeps them: how many, their sum, and the largest.

use super::exact::Exact;
use crate::trace::Trace;
use serde::{Deserialize, Serialize};

/// Losses that are kept one by one.
const MOST: usize = 256;

/// One part of the loss in one image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartLosses {
    pub part: String,
    /// Anchors or RoIs that have a loss.
    pub count: usize,
    /// Of all of them, before the division by N.
    pub sum: Exact,
    /// Anchor or RoI, and its loss: those that are no number first, then the largest, none that is 0.
    pub largest: Vec<(u32, Exact)>,
}

impl PartLosses {
    /// Those of every part of `trace` that counts by anchor or RoI.
    pub fn of(trace: &Trace) -> Vec<Self> {
        let parts = trace.losses.iter().filter(|part| !part.per_anchor.is_empty());
        let kept = parts.map(|part| Self {
            part: part.name.clone(),
            count: part.per_anchor.len(),
            sum: part.per_anchor.iter().map(|loss| f64::from(*loss)).sum::<f64>().into(),
            largest: largest(&part.per_anchor).into_iter().map(|(index, loss)| (index, loss.into())).collect(),
        });
        kept.collect()
    }
}

/// The largest of `losses` with their places. NaN sorts above every number.
fn largest(losses: &[f32]) -> Vec<(u32, f32)> {
    let order = |a: &(u32, f32), b: &(u32, f32)| b.1.abs().total_cmp(&a.1.abs()).then(a.0.cmp(&b.0));
    let mut all: Vec<(u32, f32)> = (0..).zip(losses.iter().copied()).filter(|(_, loss)| *loss != 0.0).collect();
    if all.len() > MOST {
        all.select_nth_unstable_by(MOST, order);
        all.truncate(MOST);
    }
    all.sort_unstable_by(order);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::LossPart;

    #[test]
    fn the_largest_are_kept_with_their_places_and_all_are_summed() {
        let mut losses: Vec<f32> = (0..1000u16).map(f32::from).collect();
        losses[3] = f32::NAN;
        let found = largest(&losses);
        assert_eq!(found.len(), MOST);
        assert!(found[0].0 == 3 && found[0].1.is_nan());
        assert_eq!((found[1], found[MOST - 1]), ((999, 999.0), (745, 745.0)));
        let part = |name: &str, per_anchor: Vec<f32>| LossPart { name: name.into(), per_anchor, ..LossPart::default() };
        let trace = Trace {
            losses: vec![part("classification", vec![0.0, 2.0, 0.5]), part("mask", Vec::new())],
            ..Trace::default()
        };
        let kept = PartLosses::of(&trace);
        let [part] = kept.as_slice() else { panic!("{kept:?}") };
        assert_eq!((part.part.as_str(), part.count, part.sum), ("classification", 3, Exact(2.5)));
        assert_eq!(part.largest, [(1, Exact(2.0)), (2, Exact(0.5))]);
        let text = serde_json::to_string(part).unwrap();
        assert_eq!(&serde_json::from_str::<PartLosses>(&text).unwrap(), part);
    }
}
