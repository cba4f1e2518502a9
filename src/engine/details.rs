//! What explains a score: curves thinned for drawing, mistakes by kind, confusion, and how each image came out.

use crate::eval::coco::evaluate_boxes;
use crate::eval::confusion::{ConfusionMatrix, confusion};
use crate::eval::curves::{Curve, CurvePoint, Curves, curves, curves_of_boxes};
use crate::eval::errors::{ErrorKind, ErrorReport, ErrorSettings, ErrorShare, analyse};
use crate::eval::tally::ImageTally;
use crate::eval::voc::{self, VocResult, VocSettings};
use crate::eval::{CocoResult, CocoSettings, ImageBoxes, ImageResult, ImageTruth, IouType};
use rayon::prelude::*;
use std::collections::{BTreeMap, HashMap};

/// IoU thresholds that curves are drawn for.
pub const CURVE_IOUS: [f64; 2] = [0.5, 0.75];
/// A curve is drawn with about this many points; a screen shows no more.
const CURVE_POINTS: usize = 1000;

/// Everything behind a score that a person may ask for. Images are in the data set's order.
#[derive(Clone, Debug, Default)]
pub struct EvalDetails {
    pub truth: Vec<ImageTruth>,
    /// Class indices are the data set's.
    pub results: Vec<ImageResult>,
    /// One entry for each of [`CURVE_IOUS`].
    pub curves: Vec<CurveSet>,
    /// AP at IoU .5 as the analysis of mistakes computes it.
    pub ap50: f64,
    /// By kind, in the order of [`ErrorKind::ALL`].
    pub errors: Vec<ErrorShare>,
    /// By kind: images with such mistakes and their number, most first.
    pub error_images: Vec<(ErrorKind, Vec<(usize, usize)>)>,
    /// At IoU .5.
    pub tallies: Vec<ImageTally>,
    /// VOC2007's 11 points and VOC2010's area, both at IoU .5.
    pub voc: [VocResult; 2],
}

/// COCO's scores of masks, and their curves as [`EvalDetails`] has those of boxes.
#[derive(Clone, Debug)]
pub struct MaskScores {
    pub result: CocoResult,
    pub curves: Vec<CurveSet>,
}

impl MaskScores {
    /// None where no object or no detection has a mask.
    pub fn new(truth: &[ImageTruth], results: &[ImageResult], classes: usize) -> Option<Self> {
        let asked = truth.iter().flat_map(|image| &image.objects).any(|object| object.mask.is_some());
        let answered = results.iter().flat_map(|image| &image.detections).any(|detection| detection.mask.is_some());
        if !asked || !answered {
            return None;
        }
        let images = ImageBoxes::join(truth, results, IouType::Segm);
        let settings = CocoSettings { iou_type: IouType::Segm, ..CocoSettings::default() };
        let curves = CURVE_IOUS.map(|iou| curve_set(&curves_of_boxes(&images, classes, iou), iou)).to_vec();
        Some(Self { result: evaluate_boxes(&images, classes, &settings), curves })
    }
}

/// Curves at one IoU.
#[derive(Clone, Debug, Default)]
pub struct CurveSet {
    pub iou: f64,
    /// All classes together.
    pub pooled: CurveView,
    pub classes: Vec<CurveView>,
}

/// One curve as it is drawn.
#[derive(Clone, Debug, Default)]
pub struct CurveView {
    /// 101-point AP of the whole curve; `None` without objects.
    pub ap: Option<f64>,
    pub truths: usize,
    /// The point of highest F1 of the whole curve.
    pub best: Option<CurvePoint>,
    /// Falling by score.
    pub points: Vec<CurvePoint>,
}

/// The confusion matrix at one score threshold, with the images behind each cell.
#[derive(Clone, Debug, Default)]
pub struct ConfusionDetails {
    pub score: f64,
    pub iou: f64,
    pub matrix: ConfusionMatrix,
    /// By object's and detection's class (background is the class count): images and their number of such pairs, most
    /// first.
    pub images: HashMap<(usize, usize), Vec<(usize, usize)>>,
}

impl EvalDetails {
    /// `truth` and `results` are beside each other, in the data set's order.
    pub fn new(truth: Vec<ImageTruth>, results: Vec<ImageResult>, classes: usize) -> Self {
        let curves = CURVE_IOUS.map(|iou| curve_set(&curves(&truth, &results, classes, iou), iou)).to_vec();
        let report = analyse(&truth, &results, classes, ErrorSettings::default());
        let voc = [VocSettings::voc07(), VocSettings::voc12()]
            .map(|settings| voc::evaluate(&truth, &results, classes, settings.continuous()));
        Self {
            curves,
            ap50: report.ap50,
            error_images: error_images(&truth, &report),
            errors: report.shares,
            tallies: tallies(&truth, &results, classes),
            voc,
            truth,
            results,
        }
    }

    /// The score with the highest F1 over all classes at IoU .5; 0.5 when nothing is right.
    pub fn best_score(&self) -> f64 {
        self.curves.first().and_then(|set| set.pooled.best).map_or(0.5, |point| point.score)
    }

    /// Confusion of detections of at least `score`, paired at IoU .5.
    pub fn confusion(&self, classes: usize, score: f64) -> ConfusionDetails {
        let iou = 0.5;
        let cells: Vec<Vec<((usize, usize), u64)>> = self
            .truth
            .par_iter()
            .zip(&self.results)
            .map(|(truth, result)| {
                let matrix = confusion(std::slice::from_ref(truth), std::slice::from_ref(result), classes, score, iou);
                let side = classes + 1;
                let counts = matrix.counts.iter().enumerate().filter(|(_, count)| **count > 0);
                counts.map(|(cell, &count)| ((cell / side, cell % side), count)).collect()
            })
            .collect();
        let mut images: HashMap<(usize, usize), Vec<(usize, usize)>> = HashMap::new();
        for (index, cells) in cells.into_iter().enumerate() {
            for (cell, count) in cells {
                images.entry(cell).or_default().push((index, count as usize));
            }
        }
        for list in images.values_mut() {
            list.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        }
        ConfusionDetails { score, iou, matrix: confusion(&self.truth, &self.results, classes, score, iou), images }
    }

    /// Images with a detection (of `class`, or any) whose score is near `score`: position and that score, nearest first.
    pub fn images_near_score(&self, class: Option<u32>, score: f32, most: usize) -> Vec<(usize, f32)> {
        let mut near: Vec<(usize, f32)> = Vec::new();
        for (index, result) in self.results.iter().enumerate() {
            let own = result.detections.iter().filter(|d| class.is_none_or(|class| d.class == class));
            let nearest = own.min_by(|a, b| (a.score - score).abs().total_cmp(&(b.score - score).abs()));
            near.extend(nearest.map(|d| (index, d.score)));
        }
        near.sort_by(|a, b| (a.1 - score).abs().total_cmp(&(b.1 - score).abs()).then(a.0.cmp(&b.0)));
        near.truncate(most);
        near
    }
}

/// How every image comes out, at IoU .5.
pub fn tallies(truth: &[ImageTruth], results: &[ImageResult], classes: usize) -> Vec<ImageTally> {
    truth.par_iter().zip(results).map(|(truth, result)| ImageTally::new(truth, result, classes, 0.5)).collect()
}

fn curve_set(all: &Curves, iou: f64) -> CurveSet {
    CurveSet { iou, pooled: view(&all.pooled), classes: all.per_class.iter().map(view).collect() }
}

fn view(curve: &Curve) -> CurveView {
    CurveView { ap: curve.ap, truths: curve.truths, best: curve.best(), points: curve.thinned(CURVE_POINTS) }
}

fn error_images(truth: &[ImageTruth], report: &ErrorReport) -> Vec<(ErrorKind, Vec<(usize, usize)>)> {
    let position: HashMap<u64, usize> = truth.iter().enumerate().map(|(i, image)| (image.image_id, i)).collect();
    ErrorKind::ALL
        .iter()
        .map(|&kind| {
            let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
            for item in report.items.iter().filter(|item| item.kind == kind) {
                if let Some(&index) = position.get(&item.image_id) {
                    *counts.entry(index).or_default() += 1;
                }
            }
            let mut images: Vec<(usize, usize)> = counts.into_iter().collect();
            images.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
            (kind, images)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{BBox, Detection, Mask, Object};

    fn details() -> EvalDetails {
        let bbox = BBox::new(0.0, 0.0, 10.0, 10.0);
        let far = BBox::new(50.0, 50.0, 60.0, 60.0);
        let truth =
            |id: u64| ImageTruth { image_id: id, objects: vec![Object { bbox, class: 0, ..Object::default() }] };
        let found = |id: u64, boxes: &[(BBox, u32, f32)]| ImageResult {
            image_id: id,
            detections: boxes
                .iter()
                .map(|&(bbox, class, score)| Detection { bbox, class, score, ..Detection::default() })
                .collect(),
        };
        let results =
            vec![found(7, &[(bbox, 0, 0.9), (far, 0, 0.4), (far, 1, 0.3)]), found(3, &[(bbox, 1, 0.8)]), found(9, &[])];
        EvalDetails::new(vec![truth(7), truth(3), truth(9)], results, 2)
    }

    #[test]
    fn masks_are_scored_where_both_sides_have_them() {
        let bbox = BBox::new(0.0, 0.0, 4.0, 2.0);
        // 2×4 pictures, column-major: the whole, and its left half
        let mask = |counts: &[u32]| Some(Mask { height: 2, width: 4, counts: counts.to_vec() });
        let object = Object { bbox, mask: mask(&[0, 8]), ..Object::default() };
        let truth = [ImageTruth { image_id: 1, objects: vec![object] }];
        let scores = |mask: Option<Mask>| {
            let detection = Detection { bbox, mask, score: 0.9, ..Detection::default() };
            MaskScores::new(&truth, &[ImageResult { image_id: 1, detections: vec![detection] }], 1)
        };
        assert!(scores(None).is_none());
        // The box is perfect; the half mask has an IoU of .5, which is one of COCO's ten thresholds.
        let half = scores(mask(&[0, 4, 4])).unwrap();
        assert!((half.result.stats[0] - 0.1).abs() < 1e-6 && (half.result.stats[1] - 1.0).abs() < 1e-6);
        let ap: Vec<f64> = half.curves.iter().filter_map(|set| set.pooled.ap).collect();
        assert!(ap.len() == 2 && (ap[0] - 1.0).abs() < 1e-6 && ap[1] == 0.0, "{ap:?}");
        let whole = scores(mask(&[0, 8])).unwrap();
        assert!((whole.result.stats[0] - 1.0).abs() < 1e-6);
    }

    #[test]
    fn a_cell_of_the_matrix_knows_its_images_by_position() {
        let details = details();
        let confusion = details.confusion(2, 0.35);
        assert_eq!(confusion.matrix.at(0, 1), 1);
        assert_eq!(confusion.images[&(0, 1)], [(1, 1)]);
        assert_eq!(confusion.images[&(0, 0)], [(0, 1)]);
        assert_eq!(confusion.images[&(0, 2)], [(2, 1)]);
        assert_eq!(confusion.images[&(2, 0)], [(0, 1)]);
        assert!(!confusion.images.contains_key(&(2, 1)), "0.3 is below the threshold");
        let sum: usize = confusion.images.values().flatten().map(|(_, count)| count).sum();
        assert_eq!(sum as u64, confusion.matrix.counts.iter().sum::<u64>());
    }

    #[test]
    fn mistakes_and_scores_lead_to_their_images() {
        let details = details();
        let of = |kind: ErrorKind| &details.error_images.iter().find(|(k, _)| *k == kind).unwrap().1;
        assert_eq!(*of(ErrorKind::Background), [(0, 2)]);
        assert_eq!(*of(ErrorKind::Classification), [(1, 1)]);
        assert_eq!(*of(ErrorKind::Missed), [(2, 1)]);
        assert_eq!(details.images_near_score(Some(0), 0.5, 10), [(0, 0.4)]);
        assert_eq!(details.images_near_score(None, 0.75, 1), [(1, 0.8)]);
        assert!((details.best_score() - 0.9).abs() < 1e-6);
        assert_eq!(details.tallies[0].at(0.5).value(), 1);
        assert_eq!(details.curves.len(), CURVE_IOUS.len());
    }
}
