//! What became of each detection and object of one image: true positive, false positive, ignored, missed.

use super::matching::{Role, assign, by_class, search_order};
use super::{ImageBoxes, ImageResult, ImageTruth, IouType};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// What a detection counts as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    TruePositive,
    FalsePositive,
    /// Matched a crowd or an ignored object, or its class takes no part.
    #[default]
    Ignored,
}

/// One detection's fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DetectionVerdict {
    pub verdict: Verdict,
    /// Position of the object that it took.
    pub truth: Option<usize>,
    /// Overlap with that object; without one, the highest overlap with any object of the class.
    pub iou: f64,
}

/// All fates of one image at one IoU threshold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageMatch {
    pub image_id: u64,
    pub iou_threshold: f64,
    /// One for each detection, in the order of the input.
    pub detections: Vec<DetectionVerdict>,
    /// Positions of the objects that count and that nothing took, rising.
    pub missed: Vec<usize>,
}

/// Matches one image's boxes by the COCO rule at one IoU threshold, whatever their size and number.
/// The ids of the two arguments are not compared.
pub fn match_image(truth: &ImageTruth, result: &ImageResult, classes: usize, iou: f64) -> ImageMatch {
    let mut image = ImageBoxes { image_id: truth.image_id, ..Default::default() };
    image.add_objects(&truth.objects, IouType::Bbox);
    image.add_detections(&result.detections, IouType::Bbox);
    match_boxes(&image, classes, iou, IouType::Bbox)
}

/// [`match_image`] over many images, in their order.
pub fn match_all(images: &[ImageBoxes], classes: usize, iou: f64, iou_type: IouType) -> Vec<ImageMatch> {
    images.par_iter().map(|image| match_boxes(image, classes, iou, iou_type)).collect()
}

/// See [`match_image`].
fn match_boxes(image: &ImageBoxes, classes: usize, iou: f64, iou_type: IouType) -> ImageMatch {
    let mut detections = vec![DetectionVerdict::default(); image.results.len()];
    let mut missed: Vec<usize> = Vec::new();
    for class in by_class(std::slice::from_ref(image), classes, usize::MAX).iter().flatten() {
        let roles: Vec<Role> =
            class.truths.iter().map(|t| Role { crowd: t.crowd, ignored: t.crowd || t.ignore }).collect();
        let overlaps = class.overlaps(iou_type);
        let taken = assign(&overlaps, &roles, &search_order(&roles), iou);
        let mut found = vec![false; roles.len()];
        for (i, &index) in class.result_index.iter().enumerate() {
            let row = &overlaps[i * roles.len()..(i + 1) * roles.len()];
            detections[index] = match taken.get(i).copied().flatten() {
                Some(truth) => {
                    found[truth] = true;
                    DetectionVerdict {
                        verdict: if roles[truth].ignored { Verdict::Ignored } else { Verdict::TruePositive },
                        truth: Some(class.truth_index[truth]),
                        iou: row[truth],
                    }
                }
                None => DetectionVerdict {
                    verdict: Verdict::FalsePositive,
                    truth: None,
                    iou: row.iter().copied().fold(0.0, f64::max),
                },
            };
        }
        let lost = (0..roles.len()).filter(|&i| !found[i] && !roles[i].ignored);
        missed.extend(lost.map(|i| class.truth_index[i]));
    }
    missed.sort_unstable();
    ImageMatch { image_id: image.image_id, iou_threshold: iou, detections, missed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{BBox, Detection, Object};

    #[test]
    fn every_fate_appears_in_input_order() {
        let object = |class: u32, x: f32, crowd: bool| Object {
            class,
            bbox: BBox::from_xywh(x, 0.0, 10.0, 10.0),
            crowd,
            ..Default::default()
        };
        let detection = |class: u32, x: f32, score: f32| Detection {
            class,
            bbox: BBox::from_xywh(x, 0.0, 10.0, 10.0),
            score,
            ..Default::default()
        };
        let truth = ImageTruth {
            image_id: 3,
            objects: vec![object(1, 0.0, false), object(0, 100.0, false), object(1, 200.0, true)],
        };
        let result = ImageResult {
            image_id: 3,
            detections: vec![
                detection(1, 5.0, 0.4),   // IoU 50 / 150 with the first object
                detection(1, 0.0, 0.9),   // takes it
                detection(1, 1.0, 0.3),   // would, but it is gone
                detection(1, 201.0, 0.5), // on the crowd
                detection(8, 0.0, 0.5),   // no such class
            ],
        };
        let fate = match_image(&truth, &result, 2, 0.5);
        let verdicts: Vec<Verdict> = fate.detections.iter().map(|d| d.verdict).collect();
        use Verdict::{FalsePositive, Ignored, TruePositive};
        assert_eq!(verdicts, [FalsePositive, TruePositive, FalsePositive, Ignored, Ignored]);
        assert!((fate.detections[0].iou - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!((fate.detections[1].truth, fate.detections[1].iou), (Some(0), 1.0));
        assert_eq!(fate.detections[3].truth, Some(2));
        assert_eq!(fate.missed, [1]);
        assert_eq!(fate.image_id, 3);
    }
}
