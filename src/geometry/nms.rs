//! Suppression of overlapping boxes: greedy, class by class, soft, and by voting.
//!
//! Greedy suppression asks of each box, best score first, whether a box kept before it overlaps it by more than the
//! threshold. An IoU above t bounds how far two boxes can differ in place and size, so the kept boxes lie in a hash
//! grid keyed by size and place, and a box meets only those that could remove it; boxes in reach of each other that
//! were all kept overlap little, so they are few however crowded the picture is. Every decision is the exact IoU: the
//! result is that of the loop over all pairs.

use super::BBox;
use super::iou::{iou, iou_of_measured, measure, shared_area};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Sort key that falls as the score rises, by `total_cmp`; a NaN comes after every number.
pub(super) fn falling_key(score: f32) -> u32 {
    if score.is_nan() {
        return u32::MAX;
    }
    let bits = score.to_bits();
    let rising = if bits >> 31 == 1 { !bits } else { bits | 0x8000_0000 };
    !rising
}

/// Indices by falling score; the lower index first on ties, NaN last.
pub fn order_by_score(scores: &[f32]) -> Vec<u32> {
    let key = |(index, &score): (usize, &f32)| (u64::from(falling_key(score)) << 32) | index as u64;
    let mut keys: Vec<u64> = scores.iter().enumerate().map(key).collect();
    keys.sort_unstable();
    keys.into_iter().map(|key| key as u32).collect()
}

/// Greedy suppression: a box goes when its IoU with a better kept box is above `threshold` (strictly).
/// Returns the kept indices by falling score.
pub fn nms(boxes: &[BBox], scores: &[f32], threshold: f32) -> Vec<u32> {
    suppress(boxes, scores, None, threshold, None)
}

/// Greedy suppression among boxes of the same class. Returns the kept indices of all classes by falling score.
///
/// `record` gets (removed, by, IoU) of every removal, in the order of the removed boxes' scores; `by` is the best kept
/// box that overlaps enough, the one that removes it in the loop over all pairs.
pub fn class_nms(
    boxes: &[BBox],
    scores: &[f32],
    classes: &[u32],
    threshold: f32,
    record: Option<&mut Vec<(u32, u32, f32)>>,
) -> Vec<u32> {
    suppress(boxes, scores, Some(classes), threshold, record)
}

fn suppress(
    boxes: &[BBox],
    scores: &[f32],
    classes: Option<&[u32]>,
    threshold: f32,
    mut record: Option<&mut Vec<(u32, u32, f32)>>,
) -> Vec<u32> {
    let n = boxes.len().min(scores.len()).min(classes.map_or(usize::MAX, <[u32]>::len));
    let boxes = &boxes[..n];
    let mut survivors = Survivors::new(boxes, threshold);
    let mut kept: Vec<u32> = Vec::new();
    for index in order_by_score(&scores[..n]) {
        let candidate = boxes[index as usize];
        let class = classes.map_or(0, |classes| classes[index as usize]);
        match survivors.remover(candidate, class, record.is_some()) {
            Some(rank) => {
                if let Some(record) = record.as_deref_mut() {
                    let by = kept[rank];
                    record.push((index, by, iou(boxes[by as usize], candidate)));
                }
            }
            None => {
                survivors.push(candidate, class);
                kept.push(index);
            }
        }
    }
    kept
}

/// Fewer boxes than this are compared one with all.
const GRID_FROM: usize = 192;
/// Below this threshold a box reaches so many cells that comparing with all is quicker.
const GRID_THRESHOLD: f32 = 0.2;
/// Thresholds are lowered by this part where f32 rounding must not lose a pair (IoU in f32 is exact to about 1e-6).
const SLACK: f32 = 1e-5;
/// Sizes and coordinates up to 2^±40 are left to the grid; rounding there is far below `SLACK`.
const GRID_EXPONENT: i32 = 40;
/// Kept boxes compared at a time.
const BLOCK: usize = 64;

/// The boxes kept so far, by falling score.
struct Survivors {
    threshold: f32,
    /// One array a coordinate, for the vectorised comparison with all.
    x0: Vec<f32>,
    y0: Vec<f32>,
    x1: Vec<f32>,
    y1: Vec<f32>,
    area: Vec<f32>,
    class: Vec<u32>,
    grid: Option<Grid>,
}

impl Survivors {
    fn new(boxes: &[BBox], threshold: f32) -> Self {
        let gridded = boxes.len() >= GRID_FROM
            && threshold >= GRID_THRESHOLD
            && boxes.iter().all(|&b| !b.is_proper() || Grid::holds(b));
        Self {
            threshold,
            x0: Vec::new(),
            y0: Vec::new(),
            x1: Vec::new(),
            y1: Vec::new(),
            area: Vec::new(),
            class: Vec::new(),
            grid: gridded.then(|| Grid::new(threshold)),
        }
    }

    fn push(&mut self, b: BBox, class: u32) {
        if let Some(grid) = &mut self.grid {
            grid.push(b, class);
        }
        self.x0.push(b.x0);
        self.y0.push(b.y0);
        self.x1.push(b.x1);
        self.y1.push(b.y1);
        self.area.push(measure(b));
        self.class.push(class);
    }

    /// Rank of a kept box of the class whose IoU with `b` is above the threshold; the best such box if `first`.
    fn remover(&self, b: BBox, class: u32, first: bool) -> Option<usize> {
        if self.threshold < 0.0 {
            // every pair is above a negative threshold, even one with IoU 0
            return self.class.iter().position(|&c| c == class);
        }
        if !b.is_proper() {
            // IoU 0 with everything
            return None;
        }
        match &self.grid {
            Some(grid) if self.area.len() >= GRID_FROM => grid.find(self, b, class, first),
            _ => self.scan(b, class),
        }
    }

    fn removes(&self, rank: usize, b: BBox, area: f32, class: u32) -> bool {
        let kept = BBox::new(self.x0[rank], self.y0[rank], self.x1[rank], self.y1[rank]);
        self.class[rank] == class && iou_of_measured(kept, self.area[rank], b, area) > self.threshold
    }

    /// The lowest rank that removes `b`, by comparison with all. A division-free test passes over whole blocks.
    fn scan(&self, b: BBox, class: u32) -> Option<usize> {
        let area = measure(b);
        let bound = self.threshold * (1.0 - SLACK);
        let n = self.area.len();
        for start in (0..n).step_by(BLOCK) {
            let end = (start + BLOCK).min(n);
            let (x0, y0) = (&self.x0[start..end], &self.y0[start..end]);
            let (x1, y1) = (&self.x1[start..end], &self.y1[start..end]);
            let (areas, classes) = (&self.area[start..end], &self.class[start..end]);
            let mut close = 0_u32;
            for i in 0..end - start {
                let inter = shared_area(BBox::new(x0[i], y0[i], x1[i], y1[i]), b);
                let above = inter > bound * (areas[i] + area - inter);
                close += u32::from(above & (classes[i] == class));
            }
            if close > 0 {
                let found = (start..end).find(|&rank| self.removes(rank, b, area, class));
                if found.is_some() {
                    return found;
                }
            }
        }
        None
    }
}

/// Kept boxes by level and cell. A level is a power of two of the width and one of the height; a level's cells are
/// twice that wide and tall, and a box lies in the cell of its centre.
///
/// With IoU > t the intervals on each axis have IoU > t too. So one width is more than t times the other, and the
/// centres are nearer than (1/t − 1) / 2 times the smaller width: these two bounds choose the levels and cells to
/// look into.
struct Grid {
    /// Lowered by `SLACK`.
    threshold: f64,
    /// Newest kept box of each cell.
    newest: HashMap<u64, u32, BuildHasherDefault<CellHasher>>,
    /// For each kept box the one before it in its cell; `NONE` ends the chain.
    before: Vec<u32>,
    /// For each level of width, a bit for every level of height in use.
    used: Vec<u128>,
}

const NONE: u32 = u32::MAX;

/// One axis of a box as the grid sees it.
#[derive(Clone, Copy)]
struct Extent {
    length: f64,
    center: f64,
    level: i32,
}

/// ⌊log2⌋ of a positive normal number.
fn level_of(length: f32) -> i32 {
    ((length.to_bits() >> 23) & 0xff) as i32 - 127
}

impl Extent {
    fn new(low: f32, high: f32) -> Self {
        let length = high - low;
        let center = (f64::from(low) + f64::from(high)) / 2.0;
        Self { length: f64::from(length), center, level: level_of(length) }
    }

    /// 2^(level + 1), put together from its exponent bits.
    fn cell_size(level: i32) -> f64 {
        f64::from_bits(((level + 1 + 1023) as u64) << 52)
    }

    fn cell(self) -> i64 {
        (self.center / Self::cell_size(self.level)).floor() as i64
    }

    /// First and last level of an axis that reaches an IoU above `threshold` with this one.
    fn levels(self, threshold: f64) -> (i32, i32) {
        let lowest = level_of((self.length * threshold) as f32).max(-GRID_EXPONENT);
        (lowest, level_of((self.length / threshold) as f32).min(GRID_EXPONENT))
    }

    /// First and last cell of `level` where the centre of such an axis can lie.
    fn cells(self, level: i32, threshold: f64) -> (i64, i64) {
        let size = Self::cell_size(level);
        let reach = self.length.min(size) * (1.0 / threshold - 1.0) / 2.0;
        (((self.center - reach) / size).floor() as i64, ((self.center + reach) / size).floor() as i64)
    }
}

impl Grid {
    fn new(threshold: f32) -> Self {
        Self {
            threshold: f64::from(threshold) * (1.0 - f64::from(SLACK)),
            newest: HashMap::default(),
            before: Vec::new(),
            used: vec![0; 2 * GRID_EXPONENT as usize + 1],
        }
    }

    /// Whether a proper box is within the grid's range of sizes and places.
    fn holds(b: BBox) -> bool {
        let limit = (GRID_EXPONENT as f32).exp2();
        let near = |v: f32| v.abs() <= limit;
        let sized = |length: f32| (1.0 / limit..limit).contains(&length);
        near(b.x0) && near(b.y0) && near(b.x1) && near(b.y1) && sized(b.width()) && sized(b.height())
    }

    fn push(&mut self, b: BBox, class: u32) {
        let rank = self.before.len() as u32;
        if !b.is_proper() {
            // removes nothing, so no cell has to know it
            self.before.push(NONE);
            return;
        }
        let (x, y) = (Extent::new(b.x0, b.x1), Extent::new(b.y0, b.y1));
        if let Some(used) = self.used.get_mut((x.level + GRID_EXPONENT) as usize) {
            *used |= 1_u128 << (y.level + GRID_EXPONENT);
        }
        let older = self.newest.insert(cell_key(class, (x.level, y.level), (x.cell(), y.cell())), rank);
        self.before.push(older.unwrap_or(NONE));
    }

    fn find(&self, survivors: &Survivors, b: BBox, class: u32, first: bool) -> Option<usize> {
        let area = measure(b);
        let (x, y) = (Extent::new(b.x0, b.x1), Extent::new(b.y0, b.y1));
        let (x_levels, y_levels) = (x.levels(self.threshold), y.levels(self.threshold));
        let mut best: Option<usize> = None;
        for x_level in x_levels.0..=x_levels.1 {
            let used = self.used[(x_level + GRID_EXPONENT) as usize];
            let columns = x.cells(x_level, self.threshold);
            for y_level in y_levels.0..=y_levels.1 {
                if (used >> (y_level + GRID_EXPONENT)) & 1 == 0 {
                    continue;
                }
                let rows = y.cells(y_level, self.threshold);
                for row in rows.0..=rows.1 {
                    for column in columns.0..=columns.1 {
                        let key = cell_key(class, (x_level, y_level), (column, row));
                        let mut rank = self.newest.get(&key).copied().unwrap_or(NONE);
                        while rank != NONE {
                            let at = rank as usize;
                            if survivors.removes(at, b, area, class) {
                                if !first {
                                    return Some(at);
                                }
                                best = Some(best.map_or(at, |other| other.min(at)));
                            }
                            rank = self.before[at];
                        }
                    }
                }
            }
        }
        best
    }
}

/// Two cells with the same key share a chain, which costs comparisons and changes nothing.
fn cell_key(class: u32, levels: (i32, i32), cell: (i64, i64)) -> u64 {
    let levels = (i64::from(levels.0) << 8) ^ i64::from(levels.1);
    let mut key = u64::from(class);
    for part in [levels as u64, cell.0 as u64, cell.1 as u64] {
        key = (key ^ part).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        key ^= key >> 29;
    }
    key.wrapping_mul(0xBF58_476D_1CE4_E5B9)
}

/// Passes a `cell_key` through: it is mixed already.
#[derive(Default)]
struct CellHasher(u64);

impl Hasher for CellHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

/// How Soft-NMS lowers the score of a box that overlaps a better one by `o`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Decay {
    /// Times 1 − o where o is above the threshold.
    Linear,
    /// Times exp(−o² / σ) everywhere.
    Gaussian { sigma: f32 },
    /// 0 where o is above the threshold.
    Naive,
}

impl Decay {
    fn weight(self, overlap: f32, threshold: f32) -> f32 {
        match self {
            Self::Linear if overlap > threshold => 1.0 - overlap,
            Self::Gaussian { sigma } => (-overlap * overlap / sigma).exp(),
            Self::Naive if overlap > threshold => 0.0,
            _ => 1.0,
        }
    }
}

/// Soft-NMS of one class (Bodla et al., 2017; the loop of mmcv's operator): (index, decayed score) in the order of
/// selection, the lower index first on ties. A box leaves when, after a selection, its score is below `min_score`.
/// NaN scores never enter.
pub fn soft_nms(boxes: &[BBox], scores: &[f32], threshold: f32, decay: Decay, min_score: f32) -> Vec<(u32, f32)> {
    let numbered = boxes.iter().zip(scores).enumerate();
    let mut rest: Vec<(u32, f32, BBox)> = numbered
        .filter(|(_, (_, score))| !score.is_nan())
        .map(|(index, (&bbox, &score))| (index as u32, score, bbox))
        .collect();
    let mut selected = Vec::new();
    while !rest.is_empty() {
        let mut best = 0;
        for place in 1..rest.len() {
            if rest[place].1 > rest[best].1 {
                best = place;
            }
        }
        // keeps the order of the others, so that ties go to the lower index
        let (index, score, winner) = rest.remove(best);
        selected.push((index, score));
        rest.retain_mut(|(_, score, bbox)| {
            *score *= decay.weight(iou(winner, *bbox), threshold);
            *score >= min_score
        });
    }
    selected
}

/// Box voting (RefineDet's evaluation uses threshold 0.45): each kept box becomes the score-weighted mean of all
/// candidates of its class with IoU at or above `threshold`, with the highest of their scores. A box that only
/// supports itself stays bit for bit as it is. `kept` are indices into the candidates; others are passed over.
pub fn box_voting(kept: &[u32], boxes: &[BBox], scores: &[f32], classes: &[u32], threshold: f32) -> Vec<(BBox, f32)> {
    let n = boxes.len().min(scores.len()).min(classes.len());
    let mut voted = Vec::with_capacity(kept.len());
    for center in kept.iter().map(|&index| index as usize).filter(|&index| index < n) {
        let (mut sum, mut weight, mut voters, mut highest) = ([0.0_f64; 4], 0.0_f64, 0_u32, scores[center]);
        for i in 0..n {
            let votes = i == center || (classes[i] == classes[center] && iou(boxes[i], boxes[center]) >= threshold);
            // a NaN or negative score has no vote
            if votes && scores[i] >= 0.0 {
                let (b, score) = (boxes[i], f64::from(scores[i]));
                for (sum, value) in sum.iter_mut().zip([b.x0, b.y0, b.x1, b.y1]) {
                    *sum += score * f64::from(value);
                }
                weight += score;
                voters += 1;
                highest = highest.max(scores[i]);
            }
        }
        let bbox = if voters > 1 && weight > 0.0 {
            let [x0, y0, x1, y1] = sum.map(|s| (s / weight) as f32);
            BBox::new(x0, y0, x1, y1)
        } else {
            boxes[center]
        };
        voted.push((bbox, highest));
    }
    voted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    type Removals = Vec<(u32, u32, f32)>;

    /// The textbook loop: walk by score, and let each survivor remove every later box of its class.
    fn naive(boxes: &[BBox], scores: &[f32], classes: &[u32], threshold: f32) -> (Vec<u32>, Removals) {
        let mut order: Vec<u32> = (0..boxes.len() as u32).collect();
        order.sort_by(|&a, &b| {
            let (a, b) = (scores[a as usize], scores[b as usize]);
            a.is_nan().cmp(&b.is_nan()).then(if a.is_nan() { a.total_cmp(&a) } else { b.total_cmp(&a) })
        });
        let mut gone = vec![false; boxes.len()];
        let (mut kept, mut removals) = (Vec::new(), Vec::new());
        for (place, &i) in order.iter().enumerate() {
            if gone[i as usize] {
                continue;
            }
            kept.push(i);
            for &j in &order[place + 1..] {
                let (a, b) = (i as usize, j as usize);
                if !gone[b] && classes[a] == classes[b] && iou(boxes[a], boxes[b]) > threshold {
                    gone[b] = true;
                    removals.push((j, i, iou(boxes[a], boxes[b])));
                }
            }
        }
        (kept, removals)
    }

    /// Boxes in clusters over three orders of magnitude, a few of them degenerate; scores with ties and NaN.
    fn scene(n: usize, spread: f32, seed: u64) -> (Vec<BBox>, Vec<f32>, Vec<u32>) {
        let mut rng = Random::new(seed);
        let (mut boxes, mut scores, mut classes): (Vec<BBox>, Vec<f32>, Vec<u32>) = Default::default();
        for i in 0..n {
            let mut b = if i > 0 && rng.chance(0.6) {
                // near one that is there already
                let b = boxes[rng.below(i)];
                let step = 0.4 * (b.width() + b.height()).abs().min(100.0);
                BBox::new(
                    b.x0 + rng.range(-step, step),
                    b.y0 + rng.range(-step, step),
                    b.x1 + rng.range(-step, step),
                    b.y1 + rng.range(-step, step),
                )
            } else {
                let (x, y) = (rng.range(-spread, spread), rng.range(-spread, spread));
                let size = rng.range(0.0, 9.0).exp2();
                BBox::new(x, y, x + size * rng.range(0.3, 1.0), y + size * rng.range(0.3, 1.0))
            };
            match rng.below(40) {
                0 => b.x1 = b.x0,
                1 => b.y1 = b.y0 - 3.0,
                2 => b.x0 = f32::NAN,
                3 => b.y1 = f32::INFINITY,
                4 if i > 0 => b = boxes[rng.below(i)],
                _ => {}
            }
            boxes.push(b);
            scores.push(if rng.chance(0.02) { f32::NAN } else { rng.below(200) as f32 / 100.0 - 0.5 });
            classes.push(rng.below(3) as u32);
        }
        (boxes, scores, classes)
    }

    #[test]
    fn the_order_is_stable_and_nan_comes_last() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        let scores = [0.5, nan, 2.0, -1.0, 0.5, -inf, inf, -nan, 0.0];
        assert_eq!(order_by_score(&scores), [6, 2, 0, 4, 8, 3, 5, 1, 7]);
        assert!(order_by_score(&[]).is_empty());
    }

    #[test]
    fn equals_the_loop_over_all_pairs() {
        for (n, spread) in [(0, 1.0), (1, 1.0), (2, 1.0), (65, 40.0), (191, 300.0), (1200, 60.0), (1200, 3000.0)] {
            let (boxes, scores, classes) = scene(n, spread, n as u64);
            let one_class = vec![0; n];
            for threshold in [-0.1, 0.0, 0.05, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0, 1.5, f32::NAN] {
                let (expected, mut removals) = naive(&boxes, &scores, &classes, threshold);
                let mut record = Vec::new();
                let kept = class_nms(&boxes, &scores, &classes, threshold, Some(&mut record));
                assert_eq!(kept, expected, "{n} boxes, threshold {threshold}");
                removals.sort_by_key(|r| r.0);
                record.sort_by_key(|r| r.0);
                assert_eq!(record, removals, "{n} boxes, threshold {threshold}");
                assert_eq!(class_nms(&boxes, &scores, &classes, threshold, None), expected);
                let (expected, _) = naive(&boxes, &scores, &one_class, threshold);
                assert_eq!(nms(&boxes, &scores, threshold), expected, "{n} boxes, threshold {threshold}");
            }
        }
    }

    #[test]
    fn sizes_and_places_beyond_the_grid_change_nothing() {
        for factor in [1e-30, 1e-14, 1e15] {
            let (mut boxes, scores, classes) = scene(400, 100.0, 5);
            for b in boxes.iter_mut().take(60) {
                *b = b.scale(factor, factor);
            }
            let (expected, _) = naive(&boxes, &scores, &classes, 0.4);
            assert_eq!(class_nms(&boxes, &scores, &classes, 0.4, None), expected, "scaled by {factor}");
        }
    }

    #[test]
    fn many_boxes_of_random_places_and_sizes_agree_too() {
        // all kept boxes are many here, so the grid carries the work
        let mut rng = Random::new(8);
        let boxes: Vec<BBox> = (0..3000)
            .map(|_| {
                let (x, y) = (rng.range(0.0, 2000.0), rng.range(0.0, 2000.0));
                BBox::new(x, y, x + rng.range(1.0, 400.0), y + rng.range(1.0, 400.0))
            })
            .collect();
        let scores: Vec<f32> = (0..3000).map(|_| rng.unit()).collect();
        for threshold in [0.25, 0.5, 0.8] {
            let (expected, _) = naive(&boxes, &scores, &[0; 3000], threshold);
            assert!(expected.len() > 500);
            assert_eq!(nms(&boxes, &scores, threshold), expected);
        }
    }

    #[test]
    fn the_threshold_is_strict() {
        // IoU of the two is 50 / 100
        let boxes = [BBox::new(0.0, 0.0, 10.0, 10.0), BBox::new(0.0, 0.0, 10.0, 5.0)];
        assert_eq!(nms(&boxes, &[0.9, 0.8], 0.5), [0, 1]);
        assert_eq!(nms(&boxes, &[0.9, 0.8], 0.499), [0]);
        assert_eq!(nms(&boxes, &[0.8, 0.9], 0.499), [1]);
    }

    #[test]
    fn soft_suppression_of_a_hand_computed_row() {
        // IoU(0, 1) = 8 / 12, IoU(0, 2) = 0, IoU(1, 2) = 0
        let boxes = [BBox::new(0.0, 0.0, 10.0, 1.0), BBox::new(2.0, 0.0, 12.0, 1.0), BBox::new(50.0, 0.0, 60.0, 1.0)];
        let scores = [0.9, 0.8, 0.3];
        let check = |decay: Decay, expected: &[(u32, f32)]| {
            let found = soft_nms(&boxes, &scores, 0.3, decay, 1e-3);
            assert_eq!(found.len(), expected.len(), "{decay:?}");
            for (a, b) in found.iter().zip(expected) {
                assert!(a.0 == b.0 && (a.1 - b.1).abs() < 1e-6, "{decay:?} {found:?}");
            }
        };
        check(Decay::Linear, &[(0, 0.9), (2, 0.3), (1, 0.8 / 3.0)]);
        // exp(−(2/3)² / 0.5) = 0.41111229
        check(Decay::Gaussian { sigma: 0.5 }, &[(0, 0.9), (1, 0.8 * 0.411_112_3), (2, 0.3)]);
        check(Decay::Naive, &[(0, 0.9), (2, 0.3)]);
        assert!(soft_nms(&boxes, &[f32::NAN; 3], 0.3, Decay::Linear, 0.0).is_empty());
        assert_eq!(soft_nms(&boxes, &[0.5; 3], 1.0, Decay::Linear, 0.0), [(0, 0.5), (1, 0.5), (2, 0.5)]);
    }

    #[test]
    fn votes_are_weighted_by_score_within_the_class() {
        let boxes = [
            BBox::new(0.0, 0.0, 10.0, 10.0),
            BBox::new(2.0, 0.0, 12.0, 10.0),
            BBox::new(2.0, 0.0, 12.0, 10.0),
            BBox::new(8.0, 0.0, 18.0, 10.0),
        ];
        let voted = box_voting(&[0, 3, 9], &boxes, &[0.6, 0.2, 0.9, 0.5], &[1, 1, 2, 1], 0.45);
        assert_eq!(voted.len(), 2);
        // only box 1 supports box 0 (IoU 8 / 12): x0 = (0.6 · 0 + 0.2 · 2) / 0.8
        let (b, score) = voted[0];
        assert!((b.x0 - 0.5).abs() < 1e-6 && (b.x1 - 10.5).abs() < 1e-6 && score == 0.6, "{b:?}");
        assert_eq!(voted[1], (boxes[3], 0.5));
    }
}
