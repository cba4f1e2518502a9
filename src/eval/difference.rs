//! Where two sets of detections on one image disagree: found by both, by one alone, or called something else.
//!
//! Detections below the score threshold are left out. The rest are paired one to one by falling IoU, first within a
//! class, so that an agreement is never lost to a mix-up beside it, then across classes. No ground truth is needed.

use crate::geometry::iou::iou;
use crate::geometry::{BBox, Detection, Object};

/// What became of a pair, or of a detection without a partner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DifferenceKind {
    OnlyFirst,
    OnlySecond,
    /// The same place under two class names.
    OtherClass,
    Both,
}

impl DifferenceKind {
    pub const ALL: [Self; 4] = [Self::OnlyFirst, Self::OnlySecond, Self::OtherClass, Self::Both];
}

/// One pair, or one detection alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    pub kind: DifferenceKind,
    /// Position among the first side's detections.
    pub first: Option<usize>,
    pub second: Option<usize>,
    /// IoU of the two boxes; 0 for one alone.
    pub iou: f32,
    /// Second score minus first; a side that has nothing there counts as 0.
    pub score_change: f32,
    /// IoU of the second box with the object that the two overlap most, minus that of the first. `None` without a
    /// partner or an object.
    pub iou_change: Option<f32>,
}

/// Pairs the detections of both sides that score at least `score`, at an IoU of at least `threshold`.
///
/// Class indices of both sides must mean the same. `objects` (groups left out) give [`Difference::iou_change`]. What
/// differs comes first, by kind, then by falling score.
pub fn differences(
    first: &[Detection],
    second: &[Detection],
    objects: &[Object],
    score: f32,
    threshold: f32,
) -> Vec<Difference> {
    let kept = |side: &[Detection]| -> Vec<usize> {
        side.iter().enumerate().filter(|(_, d)| d.score >= score).map(|(index, _)| index).collect()
    };
    let (firsts, seconds) = (kept(first), kept(second));
    let mut candidates: Vec<(bool, f32, usize, usize)> = Vec::new();
    for &i in &firsts {
        for &j in &seconds {
            let (a, b) = (&first[i], &second[j]);
            let overlap = iou(a.bbox, b.bbox);
            if overlap >= threshold && overlap > 0.0 {
                candidates.push((a.class != b.class, overlap, i, j));
            }
        }
    }
    candidates.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)).then((a.2, a.3).cmp(&(b.2, b.3))));
    let mut taken = (vec![false; first.len()], vec![false; second.len()]);
    let mut found = Vec::new();
    for (flipped, overlap, i, j) in candidates {
        if taken.0[i] || taken.1[j] {
            continue;
        }
        (taken.0[i], taken.1[j]) = (true, true);
        let (a, b) = (&first[i], &second[j]);
        found.push(Difference {
            kind: if flipped { DifferenceKind::OtherClass } else { DifferenceKind::Both },
            first: Some(i),
            second: Some(j),
            iou: overlap,
            score_change: b.score - a.score,
            iou_change: iou_change(a.bbox, b.bbox, objects),
        });
    }
    let alone = |kind: DifferenceKind, index: usize, score_change: f32| Difference {
        kind,
        first: (kind == DifferenceKind::OnlyFirst).then_some(index),
        second: (kind == DifferenceKind::OnlySecond).then_some(index),
        iou: 0.0,
        score_change,
        iou_change: None,
    };
    let (left, right) = &taken;
    found.extend(firsts.iter().filter(|i| !left[**i]).map(|&i| alone(DifferenceKind::OnlyFirst, i, -first[i].score)));
    found
        .extend(seconds.iter().filter(|j| !right[**j]).map(|&j| alone(DifferenceKind::OnlySecond, j, second[j].score)));
    let best = |d: &Difference| {
        let score = |side: &[Detection], index: Option<usize>| index.and_then(|i| side.get(i)).map_or(0.0, |d| d.score);
        score(first, d.first).max(score(second, d.second))
    };
    found.sort_by(|a, b| a.kind.cmp(&b.kind).then(best(b).total_cmp(&best(a))));
    found
}

/// How much nearer the second box is to the object that the two overlap most.
fn iou_change(first: BBox, second: BBox, objects: &[Object]) -> Option<f32> {
    let overlaps = objects.iter().filter(|o| !o.crowd).map(|o| (iou(first, o.bbox), iou(second, o.bbox)));
    let (a, b) = overlaps.max_by(|x, y| (x.0 + x.1).total_cmp(&(y.0 + y.1)))?;
    (a + b > 0.0).then_some(b - a)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detection(x: f32, class: u32, score: f32) -> Detection {
        Detection { bbox: BBox::new(x, 0.0, x + 10.0, 10.0), class, score, ..Detection::default() }
    }

    #[test]
    fn each_kind_is_told_apart() {
        let first = [detection(0.0, 0, 0.9), detection(50.0, 0, 0.8), detection(100.0, 1, 0.7), detection(0.0, 0, 0.1)];
        let second = [detection(1.0, 0, 0.6), detection(100.0, 2, 0.5), detection(200.0, 1, 0.95)];
        let found = differences(&first, &second, &[], 0.3, 0.5);
        let kinds: Vec<DifferenceKind> = found.iter().map(|d| d.kind).collect();
        assert_eq!(kinds, DifferenceKind::ALL);
        assert_eq!((found[0].first, found[1].second), (Some(1), Some(2)));
        assert_eq!((found[2].first, found[2].second), (Some(2), Some(1)));
        let both = found[3];
        assert!((both.score_change + 0.3).abs() < 1e-6 && (both.iou - 9.0 / 11.0).abs() < 1e-6);
        assert_eq!(both.iou_change, None);
    }

    #[test]
    fn an_agreement_is_not_lost_to_a_closer_box_of_another_class() {
        let first = [detection(0.0, 0, 0.9)];
        let second = [detection(0.0, 1, 0.9), detection(2.0, 0, 0.4)];
        let found = differences(&first, &second, &[], 0.3, 0.5);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].kind, found[0].second), (DifferenceKind::OnlySecond, Some(0)));
        assert_eq!((found[1].kind, found[1].second), (DifferenceKind::Both, Some(1)));
    }

    #[test]
    fn the_nearer_box_gains_and_groups_are_no_objects() {
        let object = Object { bbox: BBox::new(0.0, 0.0, 10.0, 10.0), ..Object::default() };
        let (first, second) = ([detection(5.0, 0, 0.5)], [detection(3.0, 0, 0.5)]);
        let change = |objects: &[Object]| differences(&first, &second, objects, 0.0, 0.3)[0].iou_change;
        let gained = change(std::slice::from_ref(&object)).unwrap();
        assert!((gained - (7.0 / 13.0 - 5.0 / 15.0)).abs() < 1e-6);
        assert_eq!(change(&[Object { crowd: true, ..object }]), None);
    }

    #[test]
    fn nothing_and_numbers_that_are_none_do_no_harm() {
        assert!(differences(&[], &[], &[], 0.0, 0.5).is_empty());
        let broken = [detection(f32::NAN, 0, f32::NAN), detection(f32::NAN, 0, 0.5)];
        let found = differences(&broken, &broken, &[], 0.0, 0.5);
        assert!(found.iter().all(|d| d.kind != DifferenceKind::Both));
        assert_eq!(found.len(), 2);
    }
}
