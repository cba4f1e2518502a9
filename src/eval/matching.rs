//! Which detection takes which object: COCO's greedy assignment within one image and class.

use super::IouType;
use super::ranking::{Outcome, by_score_falling};
use super::regions::{ImageBoxes, ResultBox, TruthBox, overlap};
use rayon::prelude::*;

/// How an object takes part in an assignment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// May be taken any number of times.
    pub crowd: bool,
    /// Taken only by detections that find no object that counts.
    pub ignored: bool,
}

/// Objects and detections of one class in one image. Detections fall by score, equal ones in the image's order.
pub struct ImageClass<'a> {
    /// Position of the image in the list given to [`by_class`].
    pub image: usize,
    pub truths: Vec<&'a TruthBox>,
    /// Position of each object among its image's.
    pub truth_index: Vec<usize>,
    pub results: Vec<&'a ResultBox>,
    /// Position of each detection among its image's.
    pub result_index: Vec<usize>,
}

impl ImageClass<'_> {
    fn new(image: usize) -> Self {
        Self { image, truths: Vec::new(), truth_index: Vec::new(), results: Vec::new(), result_index: Vec::new() }
    }

    /// Puts detections in order of falling score and keeps the first `limit`.
    fn rank(&mut self, limit: usize) {
        let mut order: Vec<usize> = (0..self.results.len()).collect();
        order.sort_by(|&a, &b| by_score_falling(self.results[a].score, self.results[b].score));
        order.truncate(limit);
        self.result_index = order.iter().map(|&i| self.result_index[i]).collect();
        self.results = order.iter().map(|&i| self.results[i]).collect();
    }

    /// Overlap of every detection with every object, row-major `[detections, objects]`.
    pub fn overlaps(&self, iou_type: IouType) -> Vec<f64> {
        let mut values = Vec::with_capacity(self.results.len() * self.truths.len());
        for result in &self.results {
            values.extend(self.truths.iter().map(|truth| overlap(result, truth, iou_type)));
        }
        values
    }
}

/// Splits images by class: for each class the images that hold any of it, in the order of `images`, each with at most
/// `limit` detections of the class.
pub fn by_class(images: &[ImageBoxes], classes: usize, limit: usize) -> Vec<Vec<ImageClass<'_>>> {
    let mut split: Vec<Vec<ImageClass<'_>>> = (0..classes).map(|_| Vec::new()).collect();
    for (index, image) in images.iter().enumerate() {
        for (i, truth) in image.truths.iter().enumerate() {
            if let Some(entry) = entry_of(&mut split, truth.class, index) {
                entry.truths.push(truth);
                entry.truth_index.push(i);
            }
        }
        for (i, result) in image.results.iter().enumerate() {
            if let Some(entry) = entry_of(&mut split, result.class, index) {
                entry.results.push(result);
                entry.result_index.push(i);
            }
        }
    }
    split.par_iter_mut().for_each(|class| class.iter_mut().for_each(|image| image.rank(limit)));
    split
}

/// The entry of image `index` in its class, made when it is the first; `None` for a class outside the count.
fn entry_of<'s, 'a>(split: &'s mut [Vec<ImageClass<'a>>], class: u32, index: usize) -> Option<&'s mut ImageClass<'a>> {
    let class = split.get_mut(class as usize)?;
    if class.last().is_none_or(|last| last.image != index) {
        class.push(ImageClass::new(index));
    }
    class.last_mut()
}

/// The order in which a detection looks at objects: those that count first, otherwise as given.
pub fn search_order(roles: &[Role]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..roles.len()).collect();
    order.sort_by_key(|&i| roles[i].ignored);
    order
}

/// Object taken by each of the detections, which come in falling order of score.
///
/// `overlaps` is `[detections, objects]`, `order` from [`search_order`]. A detection takes the object of highest
/// overlap at or above `threshold`, the later one of equals, among those still free (a crowd always is); it turns to
/// ignored objects only when nothing that counts is high enough. Rule of pycocotools' `COCOeval.evaluateImg`.
pub fn assign(overlaps: &[f64], roles: &[Role], order: &[usize], threshold: f64) -> Vec<Option<usize>> {
    if roles.is_empty() {
        return Vec::new();
    }
    let mut free = vec![true; roles.len()];
    let mut taken = Vec::with_capacity(overlaps.len() / roles.len());
    for row in overlaps.chunks_exact(roles.len()) {
        let mut best = threshold.min(1.0 - 1e-10);
        let mut choice: Option<usize> = None;
        for &i in order {
            if !free[i] && !roles[i].crowd {
                continue;
            }
            if choice.is_some_and(|c| !roles[c].ignored) && roles[i].ignored {
                break;
            }
            if row[i] < best {
                continue;
            }
            best = row[i];
            choice = Some(i);
        }
        if let Some(i) = choice {
            free[i] = false;
        }
        taken.push(choice);
    }
    taken
}

/// One detection in the ranking of its class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranked {
    pub score: f64,
    pub outcome: Outcome,
    /// Position of the image in the list given to [`rank_classes`].
    pub image: usize,
    /// Position among the image's detections.
    pub detection: usize,
    /// Position among the image's objects of the one it took.
    pub truth: Option<usize>,
}

/// All detections of one class at one IoU threshold, falling by score.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RankedClass {
    pub detections: Vec<Ranked>,
    /// Objects that count, by image: position of the image and their number, images without any left out.
    pub positives: Vec<(usize, usize)>,
}

impl RankedClass {
    /// Objects that count in all images.
    pub fn positive_count(&self) -> usize {
        self.positives.iter().map(|&(_, count)| count).sum()
    }

    /// What the detections count as, in ranked order.
    pub fn outcomes(&self) -> Vec<Outcome> {
        self.detections.iter().map(|d| d.outcome).collect()
    }
}

/// Ranks every class by its boxes (by its masks, where images carry them), over all object sizes, at one IoU threshold,
/// with at most `limit` detections a class and image.
pub fn rank_classes(images: &[ImageBoxes], classes: usize, threshold: f64, limit: usize) -> Vec<RankedClass> {
    let iou_type = ImageBoxes::compared_by(images);
    by_class(images, classes, limit).par_iter().map(|class| rank_class(class, threshold, iou_type)).collect()
}

/// See [`rank_classes`].
fn rank_class(class: &[ImageClass<'_>], threshold: f64, iou_type: IouType) -> RankedClass {
    let mut ranked = RankedClass::default();
    for image in class {
        let roles: Vec<Role> =
            image.truths.iter().map(|t| Role { crowd: t.crowd, ignored: t.crowd || t.ignore }).collect();
        let count = roles.iter().filter(|r| !r.ignored).count();
        if count > 0 {
            ranked.positives.push((image.image, count));
        }
        let taken = assign(&image.overlaps(iou_type), &roles, &search_order(&roles), threshold);
        for (i, result) in image.results.iter().enumerate() {
            let choice = taken.get(i).copied().flatten();
            let outcome = match choice {
                Some(truth) if roles[truth].ignored => Outcome::Ignored,
                Some(_) => Outcome::TruePositive,
                None => Outcome::FalsePositive,
            };
            ranked.detections.push(Ranked {
                score: result.score,
                outcome,
                image: image.image,
                detection: image.result_index[i],
                truth: choice.map(|truth| image.truth_index[truth]),
            });
        }
    }
    ranked.detections.sort_by(|a, b| by_score_falling(a.score, b.score));
    ranked
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTS: Role = Role { crowd: false, ignored: false };
    const CROWD: Role = Role { crowd: true, ignored: true };

    fn take(overlaps: &[f64], roles: &[Role], threshold: f64) -> Vec<Option<usize>> {
        assign(overlaps, roles, &search_order(roles), threshold)
    }

    #[test]
    fn the_highest_free_object_is_taken_and_the_later_of_equals() {
        // rows: detections; columns: objects
        assert_eq!(take(&[0.6, 0.8, 0.9, 0.9], &[COUNTS; 2], 0.5), [Some(1), Some(0)]);
        assert_eq!(take(&[0.7, 0.7], &[COUNTS; 2], 0.5), [Some(1)]);
        assert_eq!(take(&[0.9, 0.9], &[COUNTS], 0.5), [Some(0), None]);
    }

    #[test]
    fn the_threshold_itself_is_enough_and_one_needs_no_more_than_almost_one() {
        assert_eq!(take(&[0.5], &[COUNTS], 0.5), [Some(0)]);
        assert_eq!(take(&[0.49999], &[COUNTS], 0.5), [None]);
        assert_eq!(take(&[1.0 - 1e-11], &[COUNTS], 1.0), [Some(0)]);
    }

    #[test]
    fn a_crowd_is_taken_often_but_only_after_what_counts() {
        // the crowd overlaps more, yet the object that counts goes first; later detections share the crowd
        let overlaps = [0.95, 0.6, 0.95, 0.6, 0.95, 0.6];
        assert_eq!(take(&overlaps, &[CROWD, COUNTS], 0.5), [Some(1), Some(0), Some(0)]);
    }

    #[test]
    fn nothing_to_take_is_no_error() {
        assert!(take(&[], &[COUNTS], 0.5).is_empty());
        assert!(take(&[], &[], 0.5).is_empty());
    }

    #[test]
    fn detections_are_capped_per_class_and_image_with_ties_in_order() {
        let result = |class: u32, score: f64| ResultBox { class, score, ..Default::default() };
        let image = ImageBoxes {
            image_id: 1,
            results: vec![result(0, 0.3), result(1, 0.9), result(0, 0.5), result(0, 0.5), result(7, 1.0)],
            ..Default::default()
        };
        let split = by_class(std::slice::from_ref(&image), 3, 2);
        assert_eq!(split[0][0].result_index, [2, 3]);
        assert_eq!(split[1][0].result_index, [1]);
        assert!(split[2].is_empty());
    }
}
