//! Anchors from the boxes of a data set: k-means under the distance 1 − IoU of shapes.
//!
//! Redmon & Farhadi, "YOLO9000: Better, Faster, Stronger" (2017), "Dimension Clusters".

use crate::geometry::BBox;
use crate::geometry::iou::iou;
use crate::random::Random;
use rayon::prelude::*;

/// Rounds at most; assignments settle much sooner.
const ROUNDS: usize = 300;
/// Boxes that one thread takes at a time.
const BOXES_PER_TASK: usize = 4096;

/// At most `count` anchors (width, height) for boxes of these sides, by rising area, and the mean IoU of each box with
/// its best anchor. Sides that are not above 0 are left out; fewer anchors come back where there are fewer boxes.
///
/// Starts are drawn far apart (k-means++), so the result depends on `random` alone, not on the number of threads.
pub fn kmeans_anchors(sizes: &[[f32; 2]], count: usize, random: &mut Random) -> (Vec<[f32; 2]>, f32) {
    let boxes: Vec<[f32; 2]> =
        sizes.iter().copied().filter(|side| side.iter().all(|s| s.is_finite() && *s > 0.0)).collect();
    let mut centers = starts(&boxes, count, random);
    let mut owners: Vec<usize> = Vec::new();
    for _ in 0..ROUNDS {
        let nearest: Vec<usize> = in_tasks(&boxes, |side| best_of(&centers, side).0);
        if nearest == owners {
            break;
        }
        owners = nearest;
        let mut sums = vec![(0.0f64, 0.0f64, 0usize); centers.len()];
        for (side, &owner) in boxes.iter().zip(&owners) {
            if let Some((width, height, members)) = sums.get_mut(owner) {
                *width += f64::from(side[0]);
                *height += f64::from(side[1]);
                *members += 1;
            }
        }
        for (center, &(width, height, members)) in centers.iter_mut().zip(&sums) {
            // an anchor that lost all its boxes stays where it is
            if members > 0 {
                *center = [(width / members as f64) as f32, (height / members as f64) as f32];
            }
        }
    }
    centers.sort_by(|a, b| (a[0] * a[1]).total_cmp(&(b[0] * b[1])).then(a[0].total_cmp(&b[0])));
    let overlaps = best_overlaps(&boxes, &centers);
    let total: f64 = overlaps.iter().map(|&overlap| f64::from(overlap)).sum();
    (centers, (total / boxes.len().max(1) as f64) as f32)
}

/// For each box (width, height) the IoU of its shape with the anchor that fits it best; 0 without anchors.
pub fn best_overlaps(boxes: &[[f32; 2]], anchors: &[[f32; 2]]) -> Vec<f32> {
    in_tasks(boxes, |side| best_of(anchors, side).1)
}

/// `work` on every box, in parallel, in order.
fn in_tasks<T: Send>(boxes: &[[f32; 2]], work: impl Fn([f32; 2]) -> T + Sync) -> Vec<T> {
    boxes.par_iter().with_min_len(BOXES_PER_TASK).map(|&side| work(side)).collect()
}

/// IoU of two boxes of these sides around one centre.
fn shape_iou(a: [f32; 2], b: [f32; 2]) -> f32 {
    let at_origin = |[width, height]: [f32; 2]| BBox::new(0.0, 0.0, width, height);
    iou(at_origin(a), at_origin(b))
}

/// Index and IoU of the best center, the first on ties.
fn best_of(centers: &[[f32; 2]], side: [f32; 2]) -> (usize, f32) {
    let mut best = (0, 0.0);
    for (index, &center) in centers.iter().enumerate() {
        let overlap = shape_iou(center, side);
        if overlap > best.1 {
            best = (index, overlap);
        }
    }
    best
}

/// The first center at random, each further one with a chance that grows with the square of its distance to those before.
fn starts(boxes: &[[f32; 2]], count: usize, random: &mut Random) -> Vec<[f32; 2]> {
    let mut centers: Vec<[f32; 2]> = Vec::new();
    while centers.len() < count {
        let distance = |side: [f32; 2]| -> f64 {
            if centers.is_empty() {
                return 1.0;
            }
            let far = f64::from(1.0 - best_of(&centers, side).1);
            far * far
        };
        let weights: Vec<f64> = in_tasks(boxes, distance);
        let total: f64 = weights.iter().sum();
        if total <= 0.0 {
            // every box is a center already
            break;
        }
        let mut left = f64::from(random.unit()) * total;
        let mut drawn = None;
        for (side, &weight) in boxes.iter().zip(&weights).filter(|(_, weight)| **weight > 0.0) {
            drawn = Some(*side);
            if left < weight {
                break;
            }
            left -= weight;
        }
        match drawn {
            Some(side) => centers.push(side),
            None => break,
        }
    }
    centers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn obvious_clusters_are_found_whatever_the_seed() {
        let mut sizes = Vec::new();
        for offset in [-0.01f32, 0.0, 0.01] {
            sizes.push([10.0 + offset, 10.0 - offset]);
            sizes.push([100.0 + offset, 30.0]);
            sizes.push([40.0, 200.0 + offset]);
        }
        for seed in 0..20 {
            let (anchors, overlap) = kmeans_anchors(&sizes, 3, &mut Random::new(seed));
            for (found, by_hand) in anchors.iter().zip([[10.0f32, 10.0], [100.0, 30.0], [40.0, 200.0]]) {
                assert!((found[0] - by_hand[0]).abs() < 1e-3 && (found[1] - by_hand[1]).abs() < 1e-3, "{anchors:?}");
            }
            assert!(overlap > 0.99, "{overlap}");
            assert_eq!(kmeans_anchors(&sizes, 3, &mut Random::new(seed)), (anchors, overlap));
        }
    }

    #[test]
    fn the_mean_overlap_is_that_of_the_best_anchors() {
        // one anchor for 2×2 and 4×4 is 3×3: IoU 4/9 and 9/16
        let sizes = [[2.0, 2.0], [4.0, 4.0]];
        let (anchors, overlap) = kmeans_anchors(&sizes, 1, &mut Random::new(1));
        assert_eq!(anchors, [[3.0, 3.0]]);
        assert!((overlap - (4.0 / 9.0 + 9.0 / 16.0) / 2.0).abs() < 1e-6);
        assert_eq!(best_overlaps(&sizes, &anchors), [4.0 / 9.0, 9.0 / 16.0]);
        assert_eq!(best_overlaps(&sizes, &[]), [0.0, 0.0]);
    }

    #[test]
    fn too_few_and_useless_boxes_give_fewer_anchors() {
        let sizes = [[5.0, 5.0], [5.0, 5.0], [0.0, 4.0], [f32::NAN, 2.0], [9.0, f32::INFINITY]];
        let (anchors, overlap) = kmeans_anchors(&sizes, 9, &mut Random::new(3));
        assert_eq!((anchors, overlap), (vec![[5.0, 5.0]], 1.0));
        assert_eq!(kmeans_anchors(&[], 9, &mut Random::new(3)), (Vec::new(), 0.0));
        assert_eq!(kmeans_anchors(&sizes, 0, &mut Random::new(3)).0.len(), 0);
    }
}
