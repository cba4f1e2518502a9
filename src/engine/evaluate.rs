//! A detector over a whole data set, scored by the COCO protocol.

use crate::data::dataset::Dataset;
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

/// Detects in every image of `dataset` and scores the result. `progress` hears (done, total) after each image.
///
/// # Errors
/// Classes of model and data that do not agree, a failing network, or an interruption.
pub fn score(
    detector: &dyn Detector,
    dataset: &Dataset,
    mut progress: impl FnMut(usize, usize),
) -> Result<Scored, String> {
    let start = Instant::now();
    let mapping = map_classes(detector.classes(), &dataset.classes).map_err(|e| e.to_string())?;
    let total = dataset.images.len();
    let (mut truth, mut results, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
    for (index, entry) in dataset.images.iter().enumerate() {
        interrupt::check().map_err(|e| e.to_string())?;
        let detections = match dataset.picture(index) {
            Ok(picture) => {
                predict(detector, &picture, None, inference_pass(false)).map_err(|e| e.to_string())?.detections
            }
            Err(error) => {
                skipped.push(format!("{}: {error}", entry.name));
                Vec::new()
            }
        };
        let mapped = detections.into_iter().filter_map(|d| {
            let class = mapping.get(d.class as usize).copied().flatten()?;
            Some(Detection { class, ..d })
        });
        results.push(ImageResult { image_id: entry.id, detections: mapped.collect() });
        truth.push(ImageTruth { image_id: entry.id, objects: entry.objects.iter().map(scored_object).collect() });
        progress(index + 1, total);
    }
    let result = evaluate(&truth, &results, dataset.classes.len(), &CocoSettings::default());
    Ok(Scored { result, detections: results, skipped, seconds: start.elapsed().as_secs_f64() })
}

/// `difficult` objects are neither asked for nor counted against a detection that finds them.
fn scored_object(object: &Object) -> Object {
    Object { crowd: object.crowd || object.difficult, ..object.clone() }
}
