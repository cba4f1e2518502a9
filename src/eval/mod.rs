//! Scores of detections against ground truth: the COCO and VOC protocols, and what explains a score.
//!
//! Every protocol works on [`ImageBoxes`], boxes in double precision. Files read by [`files`] keep the numbers they
//! were written with, so that scores agree with the reference implementations; results of the program's own detectors
//! come in through [`ImageTruth`] and [`ImageResult`], whose `f32` corners are widened without rounding.
//! Class indices are contiguous from 0, background excluded; the class count is given by the caller, and an entry whose
//! class lies outside it takes no part.

pub mod bootstrap;
pub mod calibration;
pub mod coco;
mod coco_image;
mod coco_json;
mod coco_ranking;
mod coco_result;
pub mod confusion;
pub mod curves;
pub mod difference;
pub mod errors;
pub mod files;
mod json_scan;
pub mod mapping;
mod matching;
pub mod misses;
mod ranking;
mod regions;
pub mod report;
mod results_file;
pub mod table;
pub mod tally;
pub mod verdicts;
pub mod voc;
pub mod worst;

use crate::geometry::{Detection, Object};

pub use coco::{ClassResult, CocoResult, CocoSettings, IouType};
pub use files::{EvalError, evaluate_files, evaluate_voc_files};
pub use mapping::{MappingError, map_classes};
pub use regions::{ImageBoxes, ResultBox, TruthBox};
pub use verdicts::{DetectionVerdict, ImageMatch, Verdict, match_image};

/// The annotated objects of one image, boxes in pixels of the original image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageTruth {
    pub image_id: u64,
    pub objects: Vec<Object>,
}

/// The detections of one image, boxes in pixels of the original image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageResult {
    pub image_id: u64,
    pub detections: Vec<Detection>,
}
