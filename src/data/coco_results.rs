//! Detections in COCO's results format: a JSON list of `image_id, category_id, bbox, score` and maybe `segmentation`.
//!
//! Boxwright's own record of a run is read as well: an object with `images` (`id`, `file_name`) and such a list in
//! `results`, where `category` is the class by name. Images are then found by name, for the run numbered them itself.

use super::coco::{read_json, to_mask};
use super::coco_json::{segmentation, whole};
use super::dataset::Dataset;
use super::error::DataError;
use crate::geometry::{BBox, Detection, Mask};
use serde::ser::{SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// A mask as COCO writes it: compressed run lengths.
#[derive(Serialize)]
pub(super) struct WrittenMask {
    /// Height and width.
    size: [u32; 2],
    counts: String,
}

impl WrittenMask {
    pub(super) fn of(mask: &Mask) -> Self {
        Self { size: [mask.height, mask.width], counts: mask.to_coco_string() }
    }
}

#[derive(Serialize)]
struct WrittenResult {
    image_id: u64,
    category_id: u64,
    /// Left, top, width, height.
    bbox: [f32; 4],
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    segmentation: Option<WrittenMask>,
}

/// Writes the detections of each image of `dataset`, in its order; those with a number that is not finite are left out,
/// for JSON has no such numbers.
///
/// # Errors
/// [`DataError::Invalid`] when the lists do not match the images or a class is unknown; [`DataError::Write`].
pub fn write_results(path: &Path, dataset: &Dataset, detections: &[Vec<Detection>]) -> Result<(), DataError> {
    let invalid = |message: String| DataError::Invalid { path: path.to_path_buf(), message };
    if detections.len() != dataset.images.len() {
        let message = format!("detections of {} images for {} images", detections.len(), dataset.images.len());
        return Err(invalid(message));
    }
    let mut results = Vec::new();
    for (image, detections) in dataset.images.iter().zip(detections) {
        for detection in detections {
            let Some(&category_id) = dataset.category_ids.get(detection.class as usize) else {
                let message =
                    format!("class {} detected, the data set has {}", detection.class, dataset.category_ids.len());
                return Err(invalid(message));
            };
            let bbox = detection.bbox.to_xywh();
            if !detection.score.is_finite() || !bbox.iter().all(|v| v.is_finite()) {
                continue;
            }
            let segmentation = detection.mask.as_ref().map(WrittenMask::of);
            results.push(WrittenResult { image_id: image.id, category_id, bbox, score: detection.score, segmentation });
        }
    }
    let failed = |source: std::io::Error| DataError::Write { what: "the results", path: path.to_path_buf(), source };
    let mut file = BufWriter::new(File::create(path).map_err(failed)?);
    write_list(&mut file, &results).map_err(|error| failed(error.into()))?;
    file.flush().map_err(failed)
}

fn write_list(file: &mut BufWriter<File>, results: &[WrittenResult]) -> Result<(), serde_json::Error> {
    let mut serializer = serde_json::Serializer::new(file);
    let mut list = (&mut serializer).serialize_seq(Some(results.len()))?;
    for result in results {
        list.serialize_element(result)?;
    }
    list.end()
}

#[derive(Deserialize)]
struct ReadResult {
    /// Ids also come as `7.0`.
    image_id: Value,
    category_id: Value,
    /// The class by name, in Boxwright's own record.
    category: Option<Value>,
    bbox: Option<[f64; 4]>,
    score: f64,
    segmentation: Option<Value>,
}

/// Boxwright's own record of a run.
#[derive(Deserialize)]
struct ReadRun {
    images: Vec<RunImage>,
    results: Vec<ReadResult>,
}

#[derive(Deserialize)]
struct RunImage {
    id: Value,
    file_name: String,
}

/// Results with what their numbers mean.
struct Known {
    results: Vec<ReadResult>,
    /// Index in the data set of each image id that the results use.
    image_of: HashMap<u64, usize>,
    class_of: HashMap<u64, u32>,
    /// Index of each class by name, where the results name them.
    class_named: HashMap<String, u32>,
}

fn parse(bytes: &[u8], path: &Path, dataset: &Dataset) -> Result<Known, DataError> {
    let failed =
        |what: &'static str, source: serde_json::Error| DataError::Json { what, path: path.to_path_buf(), source };
    let class_of: HashMap<u64, u32> = dataset.category_ids.iter().copied().zip(0u32..).collect();
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        let results: Vec<ReadResult> =
            serde_json::from_slice(bytes).map_err(|source| failed("COCO results list", source))?;
        let image_of = dataset.images.iter().enumerate().map(|(k, image)| (image.id, k)).collect();
        return Ok(Known { results, image_of, class_of, class_named: HashMap::new() });
    }
    let run: ReadRun = serde_json::from_slice(bytes).map_err(|source| failed("record of detections", source))?;
    let named: HashMap<&str, usize> =
        dataset.images.iter().enumerate().map(|(k, image)| (image.name.as_str(), k)).collect();
    let mut image_of: HashMap<u64, usize> = HashMap::new();
    for image in &run.images {
        let Some(id) = whole(&image.id) else { continue };
        let found = named.get(image.file_name.as_str()).copied();
        if let (Some(index), Some(before)) = (found, image_of.get(&id))
            && index != *before
        {
            let message = format!("image id {id} stands for two images; run the detection on one data set at a time");
            return Err(DataError::Invalid { path: path.to_path_buf(), message });
        }
        image_of.extend(found.map(|index| (id, index)));
    }
    let class_named = dataset.classes.iter().cloned().zip(0u32..).collect();
    Ok(Known { results: run.results, image_of, class_of, class_named })
}

/// Reads results for the images of `dataset`: a list of detections for each, in the file's order.
///
/// Categories that the data set does not have are skipped, as COCO's own evaluation skips them. A result without a box
/// gets that of its mask.
///
/// # Errors
/// [`DataError::Read`]; [`DataError::Json`]; [`DataError::Invalid`] for an image that the data set does not have, a box
/// that is no box, or a mask that does not fit its image.
pub fn read_results(path: &Path, dataset: &Dataset) -> Result<Vec<Vec<Detection>>, DataError> {
    let bytes = read_json(path, "the results")?;
    let Known { results, image_of, class_of, class_named } = parse(&bytes, path, dataset)?;
    drop(bytes);
    let mut detections: Vec<Vec<Detection>> = vec![Vec::new(); dataset.images.len()];
    let mut skipped = 0usize;
    for (position, result) in results.iter().enumerate() {
        let invalid = |fault: String| DataError::Invalid {
            path: path.to_path_buf(),
            message: format!("result {} of image {}: {fault}", position + 1, result.image_id),
        };
        let Some(&index) = whole(&result.image_id).and_then(|id| image_of.get(&id)) else {
            return Err(invalid("the data set has no such image".to_owned()));
        };
        let by_name = result.category.as_ref().and_then(Value::as_str).filter(|_| !class_named.is_empty());
        let class = match by_name {
            Some(name) => class_named.get(name),
            None => whole(&result.category_id).and_then(|id| class_of.get(&id)),
        };
        let Some(&class) = class else {
            skipped += 1;
            continue;
        };
        let (Some(image), Some(list)) = (dataset.images.get(index), detections.get_mut(index)) else {
            continue;
        };
        let mask = match result.segmentation.as_ref().and_then(segmentation) {
            Some(segmentation) => Some(to_mask(&segmentation, image.height, image.width).map_err(invalid)?),
            None => None,
        };
        let bbox = match (result.bbox, &mask) {
            (Some([x, y, w, h]), _) => BBox::new(x as f32, y as f32, (x + w) as f32, (y + h) as f32),
            (None, Some(mask)) => mask.bbox(),
            (None, None) => return Err(invalid("it has neither box nor segmentation".to_owned())),
        };
        if ![bbox.x0, bbox.y0, bbox.x1, bbox.y1].iter().all(|v| v.is_finite()) {
            return Err(invalid("its box is too large for a picture".to_owned()));
        }
        list.push(Detection { bbox, class, score: result.score as f32, anchor: None, mask });
    }
    if skipped > 0 {
        tracing::warn!(skipped, "results of categories that the data set does not have: {}", path.display());
    }
    Ok(detections)
}
