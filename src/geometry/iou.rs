//! Overlap of boxes: IoU, its one-sided form for crowds, and the generalised forms.
//!
//! Coordinates are continuous, without +1. A pair with a NaN or infinite side has IoU 0, and so has a pair whose union
//! is empty, so that no NaN ever reaches a threshold. The loops compare with `<` instead of `f32::min`: that is one
//! vector instruction, and the single pair and the whole row give the same bits.

use super::BBox;
use std::f32::consts::PI;

/// Length of a side; 0 when inverted, NaN when either end is.
#[inline(always)]
fn side(low: f32, high: f32) -> f32 {
    let length = high - low;
    if length < 0.0 { 0.0 } else { length }
}

/// Area as IoU takes it: 0 for an inverted box, NaN for a box with a NaN.
#[inline(always)]
pub(super) fn measure(b: BBox) -> f32 {
    side(b.x0, b.x1) * side(b.y0, b.y1)
}

/// Length that two intervals share.
#[inline(always)]
fn shared(a_low: f32, a_high: f32, b_low: f32, b_high: f32) -> f32 {
    let high = if a_high < b_high { a_high } else { b_high };
    let low = if a_low > b_low { a_low } else { b_low };
    let length = high - low;
    if length > 0.0 { length } else { 0.0 }
}

/// Area that two boxes share.
#[inline(always)]
pub(super) fn shared_area(a: BBox, b: BBox) -> f32 {
    shared(a.x0, a.x1, b.x0, b.x1) * shared(a.y0, a.y1, b.y0, b.y1)
}

/// `part / whole` with every undefined case as 0.
#[inline(always)]
fn ratio(part: f32, whole: f32) -> f32 {
    let r = part / whole;
    if r > 0.0 { r } else { 0.0 }
}

/// IoU of boxes whose areas are known.
#[inline(always)]
pub(super) fn iou_of_measured(a: BBox, a_area: f32, b: BBox, b_area: f32) -> f32 {
    let inter = shared_area(a, b);
    ratio(inter, a_area + b_area - inter)
}

/// Intersection over union, in `[0, 1]`; 0 when the union is 0. Never NaN.
pub fn iou(a: BBox, b: BBox) -> f32 {
    iou_of_measured(a, measure(a), b, measure(b))
}

/// Intersection over the area of `a`, in `[0, 1]`: the rule for a detection `a` against a crowd `b` (COCO).
pub fn ioa(a: BBox, b: BBox) -> f32 {
    ratio(shared_area(a, b), measure(a))
}

/// Boxes as one array a coordinate, with their areas: what a vectorised inner loop reads.
pub(super) struct Columns {
    x0: Vec<f32>,
    y0: Vec<f32>,
    x1: Vec<f32>,
    y1: Vec<f32>,
    area: Vec<f32>,
}

impl Columns {
    pub(super) fn new(boxes: &[BBox]) -> Self {
        Self {
            x0: boxes.iter().map(|b| b.x0).collect(),
            y0: boxes.iter().map(|b| b.y0).collect(),
            x1: boxes.iter().map(|b| b.x1).collect(),
            y1: boxes.iter().map(|b| b.y1).collect(),
            area: boxes.iter().map(|&b| measure(b)).collect(),
        }
    }

    /// IoU of `a` with each box, into the front of `row`.
    pub(super) fn iou_row(&self, a: BBox, row: &mut [f32]) {
        let n = row.len().min(self.area.len());
        let a_area = measure(a);
        let (x0, y0, x1, y1) = (&self.x0[..n], &self.y0[..n], &self.x1[..n], &self.y1[..n]);
        let area = &self.area[..n];
        let row = &mut row[..n];
        for i in 0..n {
            row[i] = iou_of_measured(a, a_area, BBox::new(x0[i], y0[i], x1[i], y1[i]), area[i]);
        }
    }
}

/// IoU of every row box with every column box, row-major `[rows, columns]`.
pub fn pairwise_iou(rows: &[BBox], columns: &[BBox]) -> Vec<f32> {
    let mut out = vec![0.0; rows.len() * columns.len()];
    if columns.is_empty() {
        return out;
    }
    let table = Columns::new(columns);
    for (&a, row) in rows.iter().zip(out.chunks_exact_mut(columns.len())) {
        table.iou_row(a, row);
    }
    out
}

/// The smallest box around both.
fn hull(a: BBox, b: BBox) -> BBox {
    BBox::new(a.x0.min(b.x0), a.y0.min(b.y0), a.x1.max(b.x1), a.y1.max(b.y1))
}

/// A pair without a defined overlap counts as the worst.
fn or_worst(value: f32) -> f32 {
    if value.is_finite() { value } else { -1.0 }
}

/// Generalised IoU, in `[-1, 1]`: IoU − (|C| − |U|) / |C| with C the hull (Rezatofighi et al., 2019).
/// Plain IoU where the hull has no area; −1 for coordinates that are not finite.
pub fn giou(a: BBox, b: BBox) -> f32 {
    let inter = shared_area(a, b);
    let union = measure(a) + measure(b) - inter;
    let around = measure(hull(a, b));
    if around == 0.0 {
        return iou(a, b);
    }
    or_worst(ratio(inter, union) - (around - union) / around)
}

/// Squared distance of the centres over the squared diagonal of the hull; 0 where the hull is one point.
fn center_distance(a: BBox, b: BBox) -> f32 {
    let around = hull(a, b);
    let diagonal = around.width() * around.width() + around.height() * around.height();
    if diagonal == 0.0 {
        return 0.0;
    }
    let ((ax, ay), (bx, by)) = (a.center(), b.center());
    ((ax - bx) * (ax - bx) + (ay - by) * (ay - by)) / diagonal
}

/// Distance IoU, in `[-1, 1]`: IoU − ρ² / c² (Zheng et al., 2020). −1 for coordinates that are not finite.
pub fn diou(a: BBox, b: BBox) -> f32 {
    or_worst(iou(a, b) - center_distance(a, b))
}

/// Complete IoU: DIoU − α v with v from the aspect ratios and α = v / (1 − IoU + v) (Zheng et al., 2020).
/// −1 for coordinates that are not finite.
pub fn ciou(a: BBox, b: BBox) -> f32 {
    let overlap = iou(a, b);
    // atan2 is atan(width / height) with a defined value for a flat box
    let turn = b.width().atan2(b.height()) - a.width().atan2(a.height());
    let v = 4.0 / (PI * PI) * turn * turn;
    let penalty = if v > 0.0 { v * v / (1.0 - overlap + v) } else { 0.0 };
    or_worst(overlap - center_distance(a, b) - penalty)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn close(a: f32, b: f32) -> bool {
        (a - b).abs() < 1e-6
    }

    #[test]
    fn overlap_of_hand_computed_pairs() {
        let a = BBox::new(0.0, 0.0, 10.0, 10.0);
        let b = BBox::new(5.0, 0.0, 15.0, 20.0);
        // intersection 5·10, union 100 + 200 − 50
        assert!(close(iou(a, b), 0.2));
        assert!(close(ioa(a, b), 0.5));
        assert!(close(ioa(b, a), 0.25));
        assert_eq!(iou(a, a), 1.0);
        assert_eq!(iou(a, BBox::new(10.0, 0.0, 20.0, 10.0)), 0.0);
        // hull 15·20 = 300, so GIoU = 0.2 − 50 / 300
        assert!(close(giou(a, b), 0.2 - 1.0 / 6.0));
        // centres (5, 5) and (10, 10), hull diagonal² 225 + 400
        assert!(close(diou(a, b), 0.2 - 50.0 / 625.0));
        // atan(1/2) = 0.46364761, atan(1) = 0.78539816: v = 4/π² · 0.32175055² = 0.04195646
        let v = 0.041_956_46_f32;
        assert!(close(ciou(a, b), 0.2 - 0.08 - v * v / (0.8 + v)));
        assert_eq!((giou(a, a), diou(a, a), ciou(a, a)), (1.0, 1.0, 1.0));
    }

    #[test]
    fn boxes_apart_have_negative_generalised_overlap() {
        let a = BBox::new(0.0, 0.0, 1.0, 1.0);
        let b = BBox::new(2.0, 0.0, 3.0, 1.0);
        // hull 3, union 2
        assert!(close(giou(a, b), -1.0 / 3.0));
        // ρ² = 4, c² = 9 + 1
        assert!(close(diou(a, b), -0.4));
        assert!(close(ciou(a, b), -0.4));
    }

    #[test]
    fn nothing_undefined_ever_comes_out() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        let good = BBox::new(0.0, 0.0, 4.0, 4.0);
        let odd = [
            BBox::new(nan, 0.0, 4.0, 4.0),
            BBox::new(0.0, 0.0, nan, 4.0),
            BBox::new(nan, nan, nan, nan),
            BBox::new(-inf, -inf, inf, inf),
            BBox::new(0.0, 0.0, inf, 0.0),
            BBox::new(2.0, 2.0, 2.0, 2.0),
            BBox::new(4.0, 4.0, 0.0, 0.0),
            BBox::new(-3e38, 0.0, 3e38, 1.0),
        ];
        for &b in &odd {
            for &c in odd.iter().chain([&good]) {
                assert_eq!(iou(b, c), 0.0, "{b:?} {c:?}");
                assert_eq!(iou(c, b), 0.0, "{c:?} {b:?}");
                for value in [ioa(b, c), ioa(c, b), giou(b, c), diou(b, c), ciou(b, c)] {
                    assert!(value.is_finite(), "{b:?} {c:?}");
                }
            }
        }
    }

    #[test]
    fn the_table_has_the_bits_of_the_single_pair() {
        let mut rng = Random::new(3);
        let mut boxes = |n: usize| -> Vec<BBox> {
            (0..n)
                .map(|_| {
                    let (x, y) = (rng.range(-20.0, 20.0), rng.range(-20.0, 20.0));
                    BBox::new(x, y, x + rng.range(-2.0, 30.0), y + rng.range(-2.0, 30.0))
                })
                .collect()
        };
        for (rows, columns) in [(0, 3), (3, 0), (1, 1), (5, 17), (33, 64), (7, 1)] {
            let (a, b) = (boxes(rows), boxes(columns));
            let table = pairwise_iou(&a, &b);
            assert_eq!(table.len(), rows * columns);
            for r in 0..rows {
                for c in 0..columns {
                    let value = table[r * columns + c];
                    assert_eq!(value.to_bits(), iou(a[r], b[c]).to_bits());
                    assert!((0.0..=1.0).contains(&value));
                    // the definition in f64, with the sides clamped there
                    let w = f64::from(a[r].x1.min(b[c].x1)) - f64::from(a[r].x0.max(b[c].x0));
                    let h = f64::from(a[r].y1.min(b[c].y1)) - f64::from(a[r].y0.max(b[c].y0));
                    let inter = w.max(0.0) * h.max(0.0);
                    let union = f64::from(a[r].area()) + f64::from(b[c].area()) - inter;
                    let expected = if union > 0.0 { inter / union } else { 0.0 };
                    assert!((f64::from(value) - expected).abs() < 1e-5);
                }
            }
        }
    }
}
