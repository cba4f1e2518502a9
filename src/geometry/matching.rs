//! Which object each anchor should learn: by IoU thresholds, and by force for objects that no anchor fits.

use super::BBox;
use super::iou::Columns;
use serde::{Deserialize, Serialize};

/// Per anchor: what it was matched to and why.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matches {
    /// Object index for a positive, −1 background, −2 ignored.
    pub target: Vec<i32>,
    /// Best IoU with any object; 0 without objects.
    pub iou: Vec<f32>,
    /// Object of that best IoU, the lower index on ties; −1 without objects.
    pub best_object: Vec<i32>,
    /// Where the target comes from `Force` and the thresholds alone would have given another.
    pub forced: Vec<bool>,
}

/// What becomes of an object whose best anchors stay below the positive threshold.
///
/// An object that overlaps no anchor at all (flat, or outside the grid) forces none. The reference implementations then
/// take anchor 0, or let every anchor tie at IoU 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Force {
    /// Nothing: it stays unmatched (yhenon's RetinaNet).
    None,
    /// The best anchor of each object takes it, the lower anchor on ties; of two objects with the same best anchor the
    /// later wins (SSD: amdegroot's `match`, torchvision's `SSDMatcher`).
    BestAnchor,
    /// Every anchor that ties for the best of some object becomes positive for the object it overlaps most itself
    /// (torchvision's and detectron2's low-quality matches: RPN, RetinaNet).
    AllTies,
    /// Best pairs first, each object gets an anchor of its own (Caffe SSD).
    Bipartite,
}

/// Below this IoU Caffe takes no pair.
const BIPARTITE_FLOOR: f32 = 1e-6;

/// Matches anchors to objects. IoU at or above `positive`: the best object. Below `negative`: background. Between:
/// ignored. Then `force` has its say. Without objects every anchor is background.
pub fn match_anchors(anchors: &[BBox], objects: &[BBox], positive: f32, negative: f32, force: Force) -> Matches {
    let n = anchors.len();
    let nobody = if objects.is_empty() { -1 } else { 0 };
    let mut matches =
        Matches { target: vec![-1; n], iou: vec![0.0; n], best_object: vec![nobody; n], forced: vec![false; n] };
    if objects.is_empty() {
        return matches;
    }
    let table = Columns::new(anchors);
    let mut row = vec![0.0; n];
    // (anchor, object) that force wants, in order of objects; for AllTies the object is the anchor's own best
    let mut wanted: Vec<(usize, i32)> = Vec::new();
    let mut peaks: Vec<Option<(usize, f32)>> = Vec::new();
    for (index, &object) in objects.iter().enumerate() {
        let index = index as i32;
        table.iou_row(object, &mut row);
        for ((&value, best), object) in row.iter().zip(&mut matches.iou).zip(&mut matches.best_object) {
            let better = value > *best;
            *best = if better { value } else { *best };
            *object = if better { index } else { *object };
        }
        match force {
            Force::None => {}
            Force::BestAnchor => wanted.extend(peak(&row).map(|(anchor, _)| (anchor, index))),
            Force::AllTies => {
                if let Some((first, best)) = peak(&row) {
                    wanted.extend((first..n).filter(|&anchor| row[anchor] == best).map(|anchor| (anchor, index)));
                }
            }
            Force::Bipartite => peaks.push(peak(&row)),
        }
    }
    if force == Force::Bipartite {
        wanted = bipartite(&table, objects, peaks, &mut row);
    }
    matches.decide(&wanted, positive, negative, force);
    matches
}

impl Matches {
    /// Targets from what is known of the overlaps: by the thresholds, then for the (anchor, object) pairs that `force`
    /// wants, in order of objects.
    fn decide(&mut self, wanted: &[(usize, i32)], positive: f32, negative: f32, force: Force) {
        for ((target, &iou), &best) in self.target.iter_mut().zip(&self.iou).zip(&self.best_object) {
            *target = by_thresholds(iou, best, positive, negative);
        }
        for &(anchor, object) in wanted {
            self.target[anchor] = if force == Force::AllTies { self.best_object[anchor] } else { object };
        }
        for &(anchor, _) in wanted {
            let unforced = by_thresholds(self.iou[anchor], self.best_object[anchor], positive, negative);
            self.forced[anchor] = self.target[anchor] != unforced;
        }
    }
}

/// The label of an anchor whose best object is known, as the thresholds give it.
fn by_thresholds(iou: f32, best_object: i32, positive: f32, negative: f32) -> i32 {
    if iou < negative {
        -1
    } else if iou < positive {
        -2
    } else {
        best_object
    }
}

/// The first of the largest entries above 0.
fn peak(row: &[f32]) -> Option<(usize, f32)> {
    let mut best = None;
    let mut highest = 0.0;
    for (index, &value) in row.iter().enumerate() {
        if value > highest {
            highest = value;
            best = Some((index, value));
        }
    }
    best
}

/// Pairs (anchor, object), taken greedily by falling IoU among anchors and objects that are still free; on ties the
/// lower anchor, then the lower object. `peaks` are the objects' best anchors.
fn bipartite(
    table: &Columns,
    objects: &[BBox],
    mut peaks: Vec<Option<(usize, f32)>>,
    row: &mut [f32],
) -> Vec<(usize, i32)> {
    let mut taken = vec![false; row.len()];
    let mut pairs = Vec::new();
    loop {
        let mut best: Option<(usize, usize, f32)> = None;
        for (object, peak) in peaks.iter().enumerate() {
            if let Some((anchor, iou)) = *peak {
                let better = match best {
                    Some((_, best_anchor, best_iou)) => iou > best_iou || (iou == best_iou && anchor < best_anchor),
                    None => iou > BIPARTITE_FLOOR,
                };
                if better {
                    best = Some((object, anchor, iou));
                }
            }
        }
        let Some((object, anchor, _)) = best else {
            return pairs;
        };
        pairs.push((anchor, object as i32));
        taken[anchor] = true;
        peaks[object] = None;
        for (other, other_peak) in peaks.iter_mut().enumerate() {
            // only the objects that lost their best anchor look for another
            if other_peak.is_some_and(|(at, _)| at == anchor) {
                table.iou_row(objects[other], row);
                for (value, &taken) in row.iter_mut().zip(&taken) {
                    if taken {
                        *value = 0.0;
                    }
                }
                *other_peak = peak(row);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::iou::iou;
    use crate::random::Random;

    /// A unit-high interval: IoUs are those of intervals, easy by hand.
    fn bar(x0: f32, x1: f32) -> BBox {
        BBox::new(x0, 0.0, x1, 1.0)
    }

    #[test]
    fn thresholds_part_positives_ignored_and_background() {
        // IoU with the object [0, 10]: 1, 0.6, 0.5, 0.45, 0.4, 0.1, 0
        let ends = [10.0, 6.0, 5.0, 4.5, 4.0, 1.0];
        let mut anchors: Vec<BBox> = ends.iter().map(|&x| bar(0.0, x)).collect();
        anchors.push(bar(20.0, 30.0));
        let m = match_anchors(&anchors, &[bar(0.0, 10.0)], 0.5, 0.4, Force::None);
        assert_eq!(m.target, [0, 0, 0, -2, -2, -1, -1]);
        assert_eq!(m.best_object, [0; 7]);
        assert_eq!(m.forced, [false; 7]);
        assert!((m.iou[3] - 0.45).abs() < 1e-6 && m.iou[6] == 0.0);
    }

    #[test]
    fn without_objects_all_is_background() {
        for force in [Force::None, Force::BestAnchor, Force::AllTies, Force::Bipartite] {
            let m = match_anchors(&[bar(0.0, 1.0); 3], &[], 0.5, 0.4, force);
            assert_eq!((m.target, m.best_object, m.iou), (vec![-1; 3], vec![-1; 3], vec![0.0; 3]));
            let m = match_anchors(&[], &[bar(0.0, 1.0)], 0.5, 0.4, force);
            assert!(m.target.is_empty());
        }
    }

    #[test]
    fn the_best_anchor_is_forced_and_the_later_object_wins() {
        let anchors = [bar(0.0, 10.0), bar(100.0, 110.0)];
        // both objects have IoU 0.3 and 0.2 with anchor 0 alone
        let objects = [bar(0.0, 3.0), bar(8.0, 10.0)];
        let m = match_anchors(&anchors, &objects, 0.5, 0.5, Force::BestAnchor);
        assert_eq!(m.target, [1, -1]);
        assert_eq!(m.best_object, [0, 0]);
        assert_eq!(m.forced, [true, false]);
        // an anchor above the threshold for one object is still taken over by the other
        let m = match_anchors(&anchors, &[bar(0.0, 10.0), bar(0.0, 3.0)], 0.5, 0.5, Force::BestAnchor);
        assert_eq!((m.target[0], m.forced[0]), (1, true));
        // forced and above the threshold for the same object: the threshold decided
        let m = match_anchors(&anchors, &[bar(0.0, 9.0)], 0.5, 0.5, Force::BestAnchor);
        assert_eq!((m.target[0], m.forced[0]), (0, false));
    }

    #[test]
    fn all_ties_become_positive_for_their_own_best_object() {
        // object 0 = [0, 4]: anchors 0 and 1 tie at IoU 0.4; anchor 1 overlaps object 1 = [4, 10] more (0.6)
        let anchors = [bar(-6.0, 4.0), bar(0.0, 10.0), bar(50.0, 60.0)];
        let objects = [bar(0.0, 4.0), bar(4.0, 10.0)];
        let m = match_anchors(&anchors, &objects, 0.7, 0.3, Force::AllTies);
        assert_eq!(m.target, [0, 1, -1]);
        assert_eq!(m.forced, [true, true, false]);
        let m = match_anchors(&anchors, &objects, 0.7, 0.3, Force::None);
        assert_eq!(m.target, [-2, -2, -1]);
    }

    #[test]
    fn an_object_that_touches_nothing_forces_nothing() {
        let anchors = [bar(0.0, 10.0), bar(10.0, 20.0)];
        for force in [Force::BestAnchor, Force::AllTies, Force::Bipartite] {
            let flat = BBox::new(3.0, 0.5, 3.0, 0.5);
            let m = match_anchors(&anchors, &[flat, bar(500.0, 510.0)], 0.5, 0.5, force);
            assert_eq!(m.target, [-1, -1], "{force:?}");
        }
    }

    #[test]
    fn bipartite_gives_each_object_its_own_anchor() {
        // IoU with anchor 0 = [0, 10]: 0.3 and 0.4; anchor 1 = [-10, 1] touches the first object alone
        let anchors = [bar(0.0, 10.0), bar(-10.0, 1.0)];
        let objects = [bar(0.0, 3.0), bar(6.0, 10.0)];
        let m = match_anchors(&anchors, &objects, 0.5, 0.5, Force::Bipartite);
        assert_eq!(m.target, [1, 0]);
        assert_eq!(m.forced, [true, true]);
        // with one anchor only, the better pair gets it
        let m = match_anchors(&anchors[..1], &objects, 0.5, 0.5, Force::Bipartite);
        assert_eq!(m.target, [1]);
    }

    fn scene(anchors: usize, objects: usize, seed: u64) -> (Vec<BBox>, Vec<BBox>) {
        let mut rng = Random::new(seed);
        let mut boxes = |n: usize| -> Vec<BBox> {
            (0..n)
                .map(|_| {
                    // whole numbers, so that ties occur
                    let (x, y) = (rng.below(40) as f32, rng.below(40) as f32);
                    BBox::new(x, y, x + rng.below(20) as f32, y + rng.below(20) as f32)
                })
                .collect()
        };
        (boxes(anchors), boxes(objects))
    }

    /// The rules on the whole table of IoUs, as the reference implementations word them.
    fn naive(anchors: &[BBox], objects: &[BBox], positive: f32, negative: f32, force: Force) -> Vec<i32> {
        let table: Vec<Vec<f32>> = objects.iter().map(|&o| anchors.iter().map(|&a| iou(o, a)).collect()).collect();
        let own = |a: usize| -> (usize, f32) {
            (0..objects.len()).fold(
                (0, table[0][a]),
                |best, o| {
                    if table[o][a] > best.1 { (o, table[o][a]) } else { best }
                },
            )
        };
        let mut target: Vec<i32> = (0..anchors.len())
            .map(|a| match own(a) {
                (_, v) if v < negative => -1,
                (_, v) if v < positive => -2,
                (o, _) => o as i32,
            })
            .collect();
        let tops: Vec<f32> = table.iter().map(|row| row.iter().copied().fold(0.0, f32::max)).collect();
        match force {
            Force::None => {}
            Force::BestAnchor => {
                for (o, row) in table.iter().enumerate() {
                    if tops[o] > 0.0 {
                        let first = row.iter().position(|&v| v == tops[o]).unwrap();
                        target[first] = o as i32;
                    }
                }
            }
            Force::AllTies => {
                for (o, row) in table.iter().enumerate() {
                    for a in 0..anchors.len() {
                        if tops[o] > 0.0 && row[a] == tops[o] {
                            target[a] = own(a).0 as i32;
                        }
                    }
                }
            }
            Force::Bipartite => {
                let mut pairs: Vec<(usize, usize)> =
                    (0..anchors.len()).flat_map(|a| (0..objects.len()).map(move |o| (a, o))).collect();
                // stable: anchor first, then object
                pairs.sort_by(|&(a, o), &(b, p)| table[p][b].total_cmp(&table[o][a]));
                let (mut used_anchor, mut used_object) = (vec![false; anchors.len()], vec![false; objects.len()]);
                for (a, o) in pairs {
                    if table[o][a] > 1e-6 && !used_anchor[a] && !used_object[o] {
                        (used_anchor[a], used_object[o]) = (true, true);
                        target[a] = o as i32;
                    }
                }
            }
        }
        target
    }

    #[test]
    fn equals_the_rules_on_the_whole_table() {
        for (case, (n, objects)) in [(1, 1), (5, 9), (40, 3), (301, 17), (64, 64)].into_iter().enumerate() {
            let (anchors, objects) = scene(n, objects, case as u64 + 1);
            for force in [Force::None, Force::BestAnchor, Force::AllTies, Force::Bipartite] {
                for (positive, negative) in [(0.5, 0.5), (0.7, 0.3), (0.5, 0.4)] {
                    let found = match_anchors(&anchors, &objects, positive, negative, force);
                    let expected = naive(&anchors, &objects, positive, negative, force);
                    assert_eq!(found.target, expected, "{n} anchors, {force:?}");
                    let plain = match_anchors(&anchors, &objects, positive, negative, Force::None);
                    for a in 0..n {
                        assert_eq!(found.forced[a], found.target[a] != plain.target[a]);
                        let best = objects.iter().map(|&o| iou(o, anchors[a])).fold(0.0, f32::max);
                        assert_eq!(found.iou[a], best);
                    }
                }
            }
        }
    }
}
