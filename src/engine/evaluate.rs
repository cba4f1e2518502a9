//! A detector over a whole data set, scored by the COCO protocol.

use crate::data::dataset::Dataset;
use crate::detect::multiscale::Plan;
use crate::detect::predict::inference_pass;
use crate::detect::{Detector, predict};
use crate::eval::coco::{CocoResult, CocoSettings, evaluate};
use crate::eval::mapping::map_classes;
use crate::eval::{ImageResult, ImageTruth};
use crate::geometry::{Detection, Object};
use crate::ops::interrupt;
use std::time::Instant;

/// What came of it.
#[derive(Clone, Debug)]
pub struct Scored {
    pub result: CocoResult,
    pub detections: Vec<ImageResult>,
    /// Images that could not be read, with the reason: they count as having no detections.
    pub skipped: Vec<String>,
    pub seconds: f64,
}

/// Detections in every image of a data set, in its order.
#[derive(Clone, Debug, Default)]
pub struct Detected {
    /// Class indices are the data set's; classes that it does not have are left out.
    pub results: Vec<ImageResult>,
    /// See [`Scored::skipped`].
    pub skipped: Vec<String>,
}

/// Detects in every image of `dataset`, at several sizes where there is a plan, and scores the result. `progress` hears
/// (done, total) after each image.
///
/// # Errors
/// Classes of model and data that do not agree, a failing network, or an interruption.
pub fn score(
    detector: &dyn Detector,
    dataset: &Dataset,
    plan: Option<&Plan>,
    progress: impl FnMut(usize, usize),
) -> Result<Scored, String> {
    let start = Instant::now();
    let Detected { results, skipped } = detect_all(detector, dataset, plan, progress)?;
    let result = score_results(&truth_of(dataset), &results, dataset.classes.len());
    Ok(Scored { result, detections: results, skipped, seconds: start.elapsed().as_secs_f64() })
}

/// Detects in every image of `dataset`, at several sizes where there is a plan. `progress` hears (done, total) after each image.
///
/// # Errors
/// Classes of model and data that do not agree, a failing network, or an interruption.
pub fn detect_all(
    detector: &dyn Detector,
    dataset: &Dataset,
    plan: Option<&Plan>,
    mut progress: impl FnMut(usize, usize),
) -> Result<Detected, String> {
    let mapping = map_classes(detector.classes(), &dataset.classes).map_err(|e| e.to_string())?;
    let total = dataset.images.len();
    let mut detected = Detected::default();
    for (index, entry) in dataset.images.iter().enumerate() {
        interrupt::check().map_err(|e| e.to_string())?;
        let detections = match dataset.picture(index) {
            Ok(picture) => {
                let prediction = match plan {
                    Some(plan) => plan.predict(detector, &picture),
                    None => predict(detector, &picture, None, inference_pass(false)),
                };
                prediction.map_err(|e| e.to_string())?.detections
            }
            Err(error) => {
                detected.skipped.push(format!("{}: {error}", entry.name));
                Vec::new()
            }
        };
        let mapped = detections.into_iter().filter_map(|d| {
            let class = mapping.get(d.class as usize).copied().flatten()?;
            Some(Detection { class, ..d })
        });
        detected.results.push(ImageResult { image_id: entry.id, detections: mapped.collect() });
        progress(index + 1, total);
    }
    Ok(detected)
}

/// The data set's objects as they are scored.
pub fn truth_of(dataset: &Dataset) -> Vec<ImageTruth> {
    let images = dataset.images.iter();
    images
        .map(|entry| ImageTruth { image_id: entry.id, objects: entry.objects.iter().map(scored_object).collect() })
        .collect()
}

/// COCO's scores of boxes.
pub fn score_results(truth: &[ImageTruth], results: &[ImageResult], classes: usize) -> CocoResult {
    evaluate(truth, results, classes, &CocoSettings::default())
}

/// `difficult` objects are neither asked for nor counted against a detection that finds them.
fn scored_object(object: &Object) -> Object {
    Object { crowd: object.crowd || object.difficult, ..object.clone() }
}
