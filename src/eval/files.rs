//! Scores of a results file against a ground-truth file, both COCO JSON, with the numbers as they are written.
//!
//! What the reference implementation accepts is scored as it scores it: annotations of images or categories that the
//! file does not list are left out, sizes of results are those of their boxes as soon as the first result has a box.
//! What it would score wrongly in silence (repeated annotation ids, results of unknown categories) is an error.

use super::coco::{self, CocoResult, CocoSettings};
use super::coco_json::{Id, JsonImage, JsonTruth, Outline, Segmentation, four, is_set, parse, to_mask};
use super::results_file::ResultList;
use super::voc::{self, VocResult, VocSettings};
use super::{ImageBoxes, IouType, TruthBox};
use memmap2::Mmap;
use serde::de::IgnoredAny;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why two files cannot be scored.
#[derive(Debug, Error)]
pub enum EvalError {
    #[error("cannot read {what}: {source}: {}", .path.display())]
    Read { what: &'static str, path: PathBuf, source: io::Error },
    #[error("not COCO {what} in JSON: {source}: {}", .path.display())]
    Json { what: &'static str, path: PathBuf, source: serde_json::Error },
    /// A result for an image that the ground truth does not list.
    #[error(
        "result {position} is for image {image_id}, which is none of the {known} images of the ground truth: {}",
        .path.display()
    )]
    UnknownImage { position: usize, image_id: u64, known: usize, path: PathBuf },
    /// A result of a category that the ground truth does not list.
    #[error("result {position} is of category {category_id}; the ground truth has {known}: {}", .path.display())]
    UnknownCategory { position: usize, category_id: u64, known: String, path: PathBuf },
    /// An entry that contradicts itself or lacks what the protocol needs.
    #[error("{entry}: {fault}: {}", .path.display())]
    Entry { entry: String, fault: String, path: PathBuf },
}

/// Ground truth and results brought together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EvaluationFiles {
    /// Every image of the ground truth, by rising id.
    pub images: Vec<ImageBoxes>,
    /// `file_name` of each image; empty where the file has none.
    pub file_names: Vec<String>,
    /// Names by class index: categories by rising id.
    pub classes: Vec<String>,
    pub category_ids: Vec<u64>,
    /// Peculiarities of the input that a reader of the scores should know.
    pub notes: Vec<String>,
}

/// VOC scores of two files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VocFilesResult {
    /// Names by class index.
    pub classes: Vec<String>,
    pub result: VocResult,
    pub notes: Vec<String>,
}

/// COCO scores of `results` against `gt`; class names and notes are filled in.
///
/// # Errors
/// Any [`EvalError`].
pub fn evaluate_files(gt: &Path, results: &Path, settings: &CocoSettings) -> Result<CocoResult, EvalError> {
    let files = read_files(gt, results, settings.iou_type)?;
    let mut result = coco::evaluate_boxes(&files.images, files.classes.len(), settings);
    result.class_names = if settings.use_categories { files.classes } else { vec!["all classes".to_owned()] };
    result.notes = files.notes;
    Ok(result)
}

/// VOC scores of `results` against `gt`, where `ignore` or `difficult` mark difficult objects. Boxes of COCO files are
/// continuous: see [`VocSettings::continuous`].
///
/// # Errors
/// Any [`EvalError`].
pub fn evaluate_voc_files(gt: &Path, results: &Path, settings: &VocSettings) -> Result<VocFilesResult, EvalError> {
    let files = read_files(gt, results, IouType::Bbox)?;
    let result = voc::evaluate_boxes(&files.images, files.classes.len(), *settings);
    Ok(VocFilesResult { classes: files.classes, result, notes: files.notes })
}

/// Reads both files at the same time; masks are read only where they are compared or where a result has no box.
///
/// # Errors
/// Any [`EvalError`].
pub fn read_files(gt: &Path, results: &Path, iou_type: IouType) -> Result<EvaluationFiles, EvalError> {
    let truth_bytes = FileBytes::open("the ground truth", gt)?;
    let result_bytes = FileBytes::open("the results", results)?;
    let (collected, list) = rayon::join(
        || match iou_type {
            IouType::Bbox => collect_truth::<IgnoredAny>(parse("ground truth", gt, &truth_bytes)?, iou_type, gt),
            IouType::Segm => collect_truth::<Segmentation>(parse("ground truth", gt, &truth_bytes)?, iou_type, gt),
        },
        || ResultList::read(results, &result_bytes),
    );
    let mut collected = collected?;
    collected.add_results(list?, iou_type, results)?;
    Ok(collected.finish())
}

/// A file's bytes: mapped where that can be done, else read.
enum FileBytes {
    Mapped(Mmap),
    Held(Vec<u8>),
}

impl FileBytes {
    fn open(what: &'static str, path: &Path) -> Result<Self, EvalError> {
        let fault = |source: io::Error| EvalError::Read { what, path: path.to_path_buf(), source };
        let mut file = File::open(path).map_err(fault)?;
        if file.metadata().map_err(fault)?.is_file() {
            // SAFETY: the map is only ever read, through a slice whose length is the map's own, and it lives as long as
            // the reading of the two files takes. A file that another process shortens in that time is the one danger a
            // mapping has; results are written once and scored afterwards.
            if let Ok(map) = unsafe { Mmap::map(&file) } {
                return Ok(Self::Mapped(map));
            }
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(fault)?;
        Ok(Self::Held(bytes))
    }
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Held(bytes) => bytes,
        }
    }
}

/// The ground truth while results are being added.
pub(super) struct Collected {
    pub images: Vec<ImageBoxes>,
    /// As written, beside `images`.
    pub sizes: Vec<JsonImage>,
    pub image_index: HashMap<u64, usize>,
    /// Class index and name by category id.
    pub categories: BTreeMap<u64, (u32, String)>,
    pub notes: Vec<String>,
}

/// Ground truth by image, objects in the file's order.
fn collect_truth<S: Outline>(truth: JsonTruth<S>, iou_type: IouType, path: &Path) -> Result<Collected, EvalError> {
    let by_id: BTreeMap<u64, JsonImage> = truth.images.into_iter().map(|image| (image.id.0, image)).collect();
    let names: BTreeMap<u64, Option<String>> = truth.categories.into_iter().map(|c| (c.id.0, c.name)).collect();
    let mut collected = Collected {
        images: by_id.keys().map(|&image_id| ImageBoxes { image_id, ..Default::default() }).collect(),
        image_index: by_id.keys().enumerate().map(|(index, &id)| (id, index)).collect(),
        sizes: by_id.into_values().collect(),
        categories: names
            .into_iter()
            .zip(0_u32..)
            .map(|((id, name), class)| (id, (class, name.unwrap_or_else(|| format!("category {id}")))))
            .collect(),
        notes: Vec::new(),
    };
    let mut ids: HashSet<u64> = HashSet::with_capacity(truth.annotations.len());
    let (mut left_out, mut zero) = (0_usize, false);
    for (position, annotation) in truth.annotations.iter().enumerate() {
        let fault = |fault: String| EvalError::Entry {
            entry: match annotation.id {
                Some(id) => format!("annotation {} (id {})", position + 1, id.0),
                None => format!("annotation {}", position + 1),
            },
            fault,
            path: path.to_path_buf(),
        };
        if let Some(id) = annotation.id
            && !ids.insert(id.0)
        {
            return Err(fault("its id stands at an earlier annotation, and ids must differ".to_owned()));
        }
        let index = collected.image_index.get(&annotation.image_id.0).copied();
        let class = collected.categories.get(&annotation.category_id.0).map(|category| category.0);
        let (Some(index), Some(class)) = (index, class) else {
            left_out += 1;
            continue;
        };
        let bbox = four(annotation.bbox.as_deref());
        let (xywh, mask) = match iou_type {
            IouType::Bbox => (bbox.ok_or_else(|| fault("it has no bbox of four numbers".to_owned()))?, None),
            IouType::Segm => {
                let outline = annotation.segmentation.as_ref().and_then(Outline::outline);
                let outline = outline.ok_or_else(|| fault("it has no segmentation".to_owned()))?;
                (bbox.unwrap_or_default(), Some(to_mask(outline, &collected.sizes[index]).map_err(fault)?))
            }
        };
        let region = mask.as_ref().map_or(xywh[2] * xywh[3], |m| m.area() as f64);
        let crowd = is_set(annotation.iscrowd);
        zero |= annotation.id == Some(Id(0));
        collected.images[index].truths.push(TruthBox {
            class,
            xywh,
            area: annotation.area.unwrap_or(region),
            crowd,
            ignore: crowd,
            difficult: is_set(annotation.ignore) || is_set(annotation.difficult),
            id: annotation.id.map_or(1, |id| id.0),
            mask,
        });
    }
    if left_out > 0 {
        collected.notes.push(format!("{left_out} annotations of images or categories that the file does not list"));
    }
    if zero {
        collected
            .notes
            .push("annotation id 0: detections matched to it count as unmatched, as in pycocotools".to_owned());
    }
    Ok(collected)
}

impl Collected {
    fn finish(self) -> EvaluationFiles {
        let category_ids = self.categories.keys().copied().collect();
        let classes = self.categories.into_values().map(|(_, name)| name).collect();
        let name = |image: JsonImage| image.file_name.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
        let file_names = self.sizes.into_iter().map(name).collect();
        EvaluationFiles { images: self.images, file_names, classes, category_ids, notes: self.notes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Mask;

    const TRUTH: &str = r#"{
        "images": [{"id": 9, "height": 4, "width": 6}, {"id": 3.0, "height": 4, "width": 6}],
        "categories": [{"id": 44, "name": "cup"}, {"id": 7}],
        "annotations": [
            {"id": 1, "image_id": 9, "category_id": 44, "bbox": [0.1, 0, 2, 4], "area": 7.5, "iscrowd": 0,
             "segmentation": {"size": [4, 6], "counts": [0, 8, 16]}},
            {"id": 2, "image_id": 3, "category_id": 7, "bbox": [1, 1, 2, 2], "iscrowd": true, "ignore": 1,
             "segmentation": [[1, 1, 3, 1, 3, 3, 1, 3]]},
            {"id": 3, "image_id": 5, "category_id": 7, "bbox": [1, 1, 2, 2]}
        ]
    }"#;

    fn read(truth: &str, results: &str, iou_type: IouType) -> Result<EvaluationFiles, EvalError> {
        let path = Path::new("x.json");
        let mut files = match iou_type {
            IouType::Bbox => collect_truth::<IgnoredAny>(parse("truth", path, truth.as_bytes())?, iou_type, path)?,
            IouType::Segm => collect_truth::<Segmentation>(parse("truth", path, truth.as_bytes())?, iou_type, path)?,
        };
        files.add_results(ResultList::read(path, results.as_bytes())?, iou_type, path)?;
        Ok(files.finish())
    }

    #[test]
    fn numbers_stay_as_written_and_ids_are_sorted() {
        let results = r#"[{"image_id": 9, "category_id": 44, "bbox": [0.3, 0.25, 2, 4], "score": 0.1}]"#;
        let files = read(TRUTH, results, IouType::Bbox).unwrap();
        assert_eq!(files.classes, ["category 7", "cup"]);
        assert_eq!(files.category_ids, [7, 44]);
        assert_eq!(files.images.iter().map(|i| i.image_id).collect::<Vec<_>>(), [3, 9]);
        let (crowd, cup) = (&files.images[0].truths[0], &files.images[1].truths[0]);
        assert_eq!((cup.xywh, cup.area, cup.class, cup.id), ([0.1, 0.0, 2.0, 4.0], 7.5, 1, 1));
        assert!(crowd.crowd && crowd.ignore && crowd.difficult && !cup.ignore);
        assert_eq!(crowd.area, 4.0);
        let result = &files.images[1].results[0];
        assert_eq!((result.xywh, result.score, result.area), ([0.3, 0.25, 2.0, 4.0], 0.1, 8.0));
        // the annotation of an unlisted image is left out, and said so
        assert_eq!(files.notes.len(), 1);
    }

    #[test]
    fn masks_come_from_polygons_lists_and_strings() {
        let text = Mask { height: 4, width: 6, counts: vec![0, 8, 16] }.to_coco_string();
        let results = format!(
            r#"[{{"image_id": 9, "category_id": 44, "score": 1,
                "segmentation": {{"size": [4, 6], "counts": {text:?}}}}}]"#
        );
        let files = read(TRUTH, &results, IouType::Segm).unwrap();
        let (truth, result) = (&files.images[1].truths[0], &files.images[1].results[0]);
        assert_eq!(truth.mask, result.mask);
        assert_eq!((result.area, result.xywh), (8.0, [0.0, 0.0, 2.0, 4.0]));
        assert_eq!(files.images[0].truths[0].mask.as_ref().map(Mask::area), Some(4));
        // without boxes, box evaluation takes those of the masks and keeps the masks' areas
        let files = read(TRUTH, &results, IouType::Bbox).unwrap();
        assert_eq!(files.images[1].results[0].xywh, [0.0, 0.0, 2.0, 4.0]);
        assert_eq!(files.images[1].results[0].mask, None);
    }

    #[test]
    fn faults_name_the_first_entry() {
        let fails = |truth: &str, results: &str, iou_type: IouType, part: &str| {
            let message = read(truth, results, iou_type).unwrap_err().to_string();
            assert!(message.contains(part) && message.ends_with("x.json"), "{message}");
        };
        let result = |fields: &str| format!(r#"[{{"image_id": 9, "category_id": 44, "score": 0.5, {fields}}}]"#);
        let unknown = r#"[{"image_id": 4, "category_id": 44, "bbox": [0, 0, 1, 1], "score": 0.5}]"#;
        fails(TRUTH, unknown, IouType::Bbox, "result 1 is for image 4, which is none of the 2 images");
        let unknown = r#"[{"image_id": 9, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5}]"#;
        fails(TRUTH, unknown, IouType::Bbox, "category 1; the ground truth has 2 categories: 7, 44");
        fails(TRUTH, &result(r#""bbox": []"#), IouType::Bbox, "neither bbox nor segmentation");
        fails(TRUTH, &result(r#""bbox": [1, 2, 3]"#), IouType::Bbox, "no bbox of four numbers");
        fails(TRUTH, &result(r#""bbox": [1, 2, 3, 4]"#), IouType::Segm, "no segmentation");
        fails(TRUTH, &result(r#""segmentation": 3"#), IouType::Segm, "neither polygons nor run lengths");
        let huge = r#""segmentation": {"size": [4294967295, 4294967295], "counts": [1]}"#;
        fails(TRUTH, &result(huge), IouType::Segm, "too large");
        fails(TRUTH, r#"[{"image_id": 9.5}]"#, IouType::Bbox, "9.5 is no id");
        fails("{}", "[]", IouType::Bbox, "missing field");
        fails(&TRUTH.replace("\"id\": 2,", "\"id\": 1,"), "[]", IouType::Bbox, "annotation 2 (id 1)");
        fails(&TRUTH.replace("\"height\": 4,", ""), "[]", IouType::Segm, "height and width");
    }
}
