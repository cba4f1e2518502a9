//! What one head did to the boxes it was given: overlap before and after, and the box codes that it should have answered.
//!
//! Cai & Vasconcelos, "Cascade R-CNN" (CVPR 2018): figure 1 (c) is the curve, figure 2 the spread of the codes.

use crate::geometry::BBox;
use crate::geometry::coder::BoxCoder;
use crate::geometry::iou::pairwise_iou;

/// Bins of the localisation curve over `[0, 1]`.
pub const CURVE_BINS: usize = 20;

/// One head on the boxes of one image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Localisation {
    /// Name of the proposal stage that came out.
    pub stage: String,
    /// Deviations that the head's box code is divided by.
    pub std: [f32; 4],
    /// IoU of each box with its best object, before and after.
    pub input_iou: Vec<f32>,
    pub output_iou: Vec<f32>,
    /// Codes dx, dy, dw, dh from each box that was positive to its best object, before the division.
    pub deltas: Vec<[f32; 4]>,
}

/// Mean and deviation of box codes, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DeltaSums {
    pub count: u64,
    sum: [f64; 4],
    squares: [f64; 4],
}

/// Mean overlap before and after by bins of the overlap before, added up.
#[derive(Clone, Debug, PartialEq)]
pub struct CurveSums {
    /// Boxes, sum of the overlaps before, sum of those after.
    bins: Vec<(u64, f64, f64)>,
}

impl Localisation {
    /// The head whose record is `stage` moved `inputs` to `outputs`; boxes with an IoU from `threshold` on are its
    /// positives. None without objects.
    pub fn new(
        stage: &str,
        (threshold, std): (f32, [f32; 4]),
        inputs: &[BBox],
        outputs: &[BBox],
        objects: &[BBox],
    ) -> Option<Self> {
        if objects.is_empty() {
            return None;
        }
        let mut found = Self { stage: stage.to_string(), std, ..Self::default() };
        let (before, after) = (pairwise_iou(inputs, objects), pairwise_iou(outputs, objects));
        let rows = before.chunks_exact(objects.len()).zip(after.chunks_exact(objects.len()));
        for (&bbox, (before, after)) in inputs.iter().zip(rows) {
            let (object, iou) = best(before);
            found.input_iou.push(iou);
            found.output_iou.push(best(after).1);
            if let Some(&object) = objects.get(object).filter(|o| iou >= threshold && o.is_proper() && bbox.is_proper())
            {
                found.deltas.push(BoxCoder::RETINA.encode(bbox, object));
            }
        }
        Some(found)
    }

    /// The codes as the head learns them: divided by its deviations.
    pub fn normalized(&self) -> impl Iterator<Item = [f32; 4]> + '_ {
        self.deltas.iter().map(|delta| std::array::from_fn(|k| delta[k] / self.std[k]))
    }
}

/// Index and value of the largest entry, the first of equals.
fn best(row: &[f32]) -> (usize, f32) {
    let mut best = (0, 0.0);
    for (index, &value) in row.iter().enumerate() {
        if value > best.1 {
            best = (index, value);
        }
    }
    best
}

impl DeltaSums {
    /// Adds one code; one that is not finite is left out.
    pub fn add(&mut self, delta: [f32; 4]) {
        if delta.iter().all(|v| v.is_finite()) {
            self.count += 1;
            for k in 0..4 {
                self.sum[k] += f64::from(delta[k]);
                self.squares[k] += f64::from(delta[k]) * f64::from(delta[k]);
            }
        }
    }

    pub fn mean(&self) -> [f32; 4] {
        self.sum.map(|sum| (sum / self.count.max(1) as f64) as f32)
    }

    /// Deviation over all codes (not the sample's estimate).
    pub fn std(&self) -> [f32; 4] {
        let count = self.count.max(1) as f64;
        std::array::from_fn(|k| {
            let mean = self.sum[k] / count;
            (self.squares[k] / count - mean * mean).max(0.0).sqrt() as f32
        })
    }
}

impl Default for CurveSums {
    fn default() -> Self {
        Self { bins: vec![(0, 0.0, 0.0); CURVE_BINS] }
    }
}

impl CurveSums {
    /// Adds the overlap of one box before and after.
    pub fn add(&mut self, before: f32, after: f32) {
        // a cast of a number below 0 gives 0
        let bin = ((before * CURVE_BINS as f32) as usize).min(CURVE_BINS - 1);
        if let Some((count, sum_before, sum_after)) = self.bins.get_mut(bin) {
            *count += 1;
            *sum_before += f64::from(before);
            *sum_after += f64::from(after);
        }
    }

    /// Mean overlap before, mean overlap after and the number of boxes of every bin that has any.
    pub fn points(&self) -> Vec<(f32, f32, u64)> {
        let filled = self.bins.iter().filter(|(count, ..)| *count > 0);
        filled.map(|&(n, before, after)| ((before / n as f64) as f32, (after / n as f64) as f32, n)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn square(x: f32, side: f32) -> BBox {
        BBox::new(x, 0.0, x + side, side)
    }

    #[test]
    fn overlaps_and_codes_by_hand() {
        let objects = [square(0.0, 10.0), square(100.0, 10.0)];
        // IoU 9 / 11 with the first object, and none
        let inputs = [square(1.0, 10.0), square(50.0, 10.0)];
        let outputs = [square(0.0, 10.0), square(95.0, 10.0)];
        let found = Localisation::new("stage 1", (0.5, [0.1, 0.1, 0.2, 0.2]), &inputs, &outputs, &objects).unwrap();
        assert!((found.input_iou[0] - 9.0 / 11.0).abs() < 1e-6 && found.input_iou[1] == 0.0);
        assert!(found.output_iou[0] == 1.0 && (found.output_iou[1] - 1.0 / 3.0).abs() < 1e-6);
        assert_eq!(found.deltas, [[-0.1, 0.0, 0.0, 0.0]]);
        assert_eq!(found.normalized().collect::<Vec<_>>(), [[-1.0, 0.0, 0.0, 0.0]]);
        assert!(Localisation::new("stage 1", (0.5, [1.0; 4]), &inputs, &outputs, &[]).is_none());
        let strict = Localisation::new("stage 3", (0.9, [1.0; 4]), &inputs, &outputs, &objects).unwrap();
        assert!(strict.deltas.is_empty());
    }

    #[test]
    fn sums_give_mean_and_deviation() {
        let mut sums = DeltaSums::default();
        assert_eq!((sums.mean(), sums.std()), ([0.0; 4], [0.0; 4]));
        sums.add([1.0, 0.0, 2.0, 0.0]);
        sums.add([3.0, 0.0, 2.0, 0.0]);
        sums.add([f32::INFINITY, 0.0, 0.0, 0.0]);
        assert_eq!((sums.count, sums.mean(), sums.std()), (2, [2.0, 0.0, 2.0, 0.0], [1.0, 0.0, 0.0, 0.0]));
    }

    #[test]
    fn the_curve_has_a_point_for_each_filled_bin() {
        let mut curve = CurveSums::default();
        for (before, after) in [(0.5, 0.75), (0.5, 0.25), (1.0, 1.0), (0.0, 0.0)] {
            curve.add(before, after);
        }
        assert_eq!(curve.points(), [(0.0, 0.0, 1), (0.5, 0.5, 2), (1.0, 1.0, 1)]);
    }
}
