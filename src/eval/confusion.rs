//! Confusion matrix: which class is taken for which, with background as one more row and column.
//!
//! Detections below the score threshold are dropped. The rest are paired with objects one to one in two passes: first
//! within their class by the COCO rule, so that a right answer is never lost to a wrong one beside it; then what is
//! left over, across classes, by falling IoU. Detections without a partner are in the background row, objects without
//! one in the background column. Crowds and ignored objects are no row; a detection on one of its class is left out.

use super::matching::{Role, assign, by_class, search_order};
use super::regions::overlap;
use super::{ImageBoxes, ImageResult, ImageTruth, IouType};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Counts of (object, detection) pairs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfusionMatrix {
    /// Without background, which is index `classes`.
    pub classes: usize,
    /// `[classes + 1, classes + 1]` row-major: the object's class by the detection's class.
    pub counts: Vec<u64>,
}

/// One cell off the diagonal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    pub truth: usize,
    pub detection: usize,
    pub count: u64,
}

impl ConfusionMatrix {
    fn new(classes: usize) -> Self {
        Self { classes, counts: vec![0; (classes + 1) * (classes + 1)] }
    }

    /// Pairs of an object of class `truth` with a detection of class `detection`; index `classes` is background.
    pub fn at(&self, truth: usize, detection: usize) -> u64 {
        if truth > self.classes || detection > self.classes {
            return 0;
        }
        self.counts.get(truth * (self.classes + 1) + detection).copied().unwrap_or(0)
    }

    /// Each row divided by its sum, `[classes + 1, classes + 1]`; an empty row stays 0.
    pub fn row_shares(&self) -> Vec<f64> {
        let mut shares = Vec::with_capacity(self.counts.len());
        for row in self.counts.chunks(self.classes + 1) {
            let sum: u64 = row.iter().sum();
            shares.extend(row.iter().map(|&count| if sum == 0 { 0.0 } else { count as f64 / sum as f64 }));
        }
        shares
    }

    /// The `count` commonest mix-ups of two classes (no background), falling by count, then rising by class.
    pub fn most_confused(&self, count: usize) -> Vec<Confusion> {
        let mut found: Vec<Confusion> = Vec::new();
        for truth in 0..self.classes {
            for detection in (0..self.classes).filter(|&d| d != truth) {
                let count = self.at(truth, detection);
                if count > 0 {
                    found.push(Confusion { truth, detection, count });
                }
            }
        }
        found.sort_by_key(|c| std::cmp::Reverse(c.count));
        found.truncate(count);
        found
    }

    fn add(&mut self, truth: usize, detection: usize) {
        if let Some(cell) = self.counts.get_mut(truth * (self.classes + 1) + detection) {
            *cell += 1;
        }
    }
}

/// Confusion of `results` with `truth`, for detections of at least `score` and pairs of at least `iou`.
pub fn confusion(
    truth: &[ImageTruth],
    results: &[ImageResult],
    classes: usize,
    score: f64,
    iou: f64,
) -> ConfusionMatrix {
    confusion_of_boxes(&ImageBoxes::join(truth, results, IouType::Bbox), classes, score, iou)
}

/// See [`confusion`].
pub fn confusion_of_boxes(images: &[ImageBoxes], classes: usize, score: f64, iou: f64) -> ConfusionMatrix {
    let iou_type = ImageBoxes::compared_by(images);
    let pairs: Vec<Vec<(usize, usize)>> =
        images.par_iter().map(|image| pairs_of_image(image, classes, score, iou, iou_type)).collect();
    let mut matrix = ConfusionMatrix::new(classes);
    for (truth, detection) in pairs.into_iter().flatten() {
        matrix.add(truth, detection);
    }
    matrix
}

/// Class pairs of one image, background as `classes`.
fn pairs_of_image(image: &ImageBoxes, classes: usize, score: f64, iou: f64, iou_type: IouType) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    let (mut free_truths, mut free_results) = (Vec::new(), Vec::new());
    for class in by_class(std::slice::from_ref(image), classes, usize::MAX).iter().flatten() {
        let kept = class.results.iter().take_while(|r| r.score >= score).count();
        let roles: Vec<Role> =
            class.truths.iter().map(|t| Role { crowd: t.crowd, ignored: t.crowd || t.ignore }).collect();
        let overlaps = class.overlaps(iou_type);
        let taken = assign(&overlaps[..kept * roles.len()], &roles, &search_order(&roles), iou);
        let mut found = vec![false; roles.len()];
        for i in 0..kept {
            match taken.get(i).copied().flatten() {
                Some(truth) if roles[truth].ignored => {}
                Some(truth) => {
                    found[truth] = true;
                    let same = class.truths[truth].class as usize;
                    pairs.push((same, same));
                }
                None => free_results.push(class.result_index[i]),
            }
        }
        free_truths.extend((0..roles.len()).filter(|&i| !found[i] && !roles[i].ignored).map(|i| class.truth_index[i]));
    }
    pair_across_classes(image, classes, (iou, iou_type), &free_truths, &free_results, &mut pairs);
    pairs
}

/// Pairs leftovers by falling IoU; equal overlaps by falling score, then in the image's order.
fn pair_across_classes(
    image: &ImageBoxes,
    classes: usize,
    (iou, iou_type): (f64, IouType),
    free_truths: &[usize],
    free_results: &[usize],
    pairs: &mut Vec<(usize, usize)>,
) {
    let mut candidates: Vec<(f64, usize, usize)> = Vec::new();
    for &t in free_truths {
        for &r in free_results {
            let value = overlap(&image.results[r], &image.truths[t], iou_type);
            if value >= iou {
                candidates.push((value, t, r));
            }
        }
    }
    candidates.sort_by(|a, b| {
        let by_score = image.results[b.2].score.total_cmp(&image.results[a.2].score);
        b.0.total_cmp(&a.0).then(by_score).then((a.1, a.2).cmp(&(b.1, b.2)))
    });
    let mut truth_used = vec![false; image.truths.len()];
    let mut result_used = vec![false; image.results.len()];
    for (_, t, r) in candidates {
        if !truth_used[t] && !result_used[r] {
            truth_used[t] = true;
            result_used[r] = true;
            pairs.push((image.truths[t].class as usize, image.results[r].class as usize));
        }
    }
    let lost = free_truths.iter().filter(|&&t| !truth_used[t]);
    pairs.extend(lost.map(|&t| (image.truths[t].class as usize, classes)));
    let strays = free_results.iter().filter(|&&r| !result_used[r]);
    pairs.extend(strays.map(|&r| (classes, image.results[r].class as usize)));
}

#[cfg(test)]
mod tests {
    use super::super::{ResultBox, TruthBox};
    use super::*;

    fn truth(class: u32, x: f64) -> TruthBox {
        TruthBox { class, xywh: [x, 0.0, 10.0, 10.0], area: 100.0, id: 1, ..Default::default() }
    }

    fn result(class: u32, x: f64, score: f64) -> ResultBox {
        ResultBox { class, xywh: [x, 0.0, 10.0, 10.0], score, area: 100.0, mask: None }
    }

    #[test]
    fn every_kind_of_pair_lands_in_its_cell() {
        let crowd = TruthBox { crowd: true, ignore: true, ..truth(0, 500.0) };
        let image = ImageBoxes {
            image_id: 1,
            truths: vec![truth(0, 0.0), truth(0, 100.0), truth(1, 200.0), crowd],
            results: vec![
                result(1, 0.0, 0.95),  // sits better on the first object, but of the wrong class
                result(0, 1.0, 0.9),   // the right one
                result(1, 100.0, 0.8), // second object taken for class 1
                result(1, 300.0, 0.7), // nothing there
                result(0, 500.0, 0.6), // on the crowd: left out
                result(1, 200.0, 0.2), // right, but below the score threshold
            ],
        };
        let matrix = confusion_of_boxes(&[image], 2, 0.5, 0.5);
        // rows: class 0, class 1, background
        assert_eq!(matrix.counts, [1, 1, 0, 0, 0, 1, 0, 2, 0]);
        assert_eq!(matrix.most_confused(5), [Confusion { truth: 0, detection: 1, count: 1 }]);
        assert_eq!(matrix.row_shares()[..3], [0.5, 0.5, 0.0]);
        assert_eq!((matrix.at(2, 1), matrix.at(3, 0)), (2, 0));
    }

    #[test]
    fn sums_are_kept() {
        // Each object is in one cell of its row, each detection in one cell of its column.
        let image = ImageBoxes {
            image_id: 1,
            truths: (0..7).map(|i| truth(i % 3, f64::from(i) * 4.0)).collect(),
            results: (0..9).map(|i| result(i % 2, f64::from(i) * 3.0, 0.5 + f64::from(i) * 0.01)).collect(),
        };
        let matrix = confusion_of_boxes(&[image], 3, 0.0, 0.3);
        let row = |truth: usize| (0..4).map(|d| matrix.at(truth, d)).sum::<u64>();
        let column = |detection: usize| (0..4).map(|t| matrix.at(t, detection)).sum::<u64>();
        assert_eq!([row(0), row(1), row(2)], [3, 2, 2]);
        assert_eq!([column(0), column(1), column(2)], [5, 4, 0]);
    }
}
