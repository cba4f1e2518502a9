//! What is in a picture: annotated objects (ground truth) and detections. Classes count from 0, background excluded.

use super::{BBox, Mask};
use serde::{Deserialize, Serialize};

/// One annotated object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object {
    /// Annotation id of the source file; 0 where the format has none.
    pub id: u64,
    /// Pixels of the image it belongs to.
    pub bbox: BBox,
    /// Index into the data set's class names.
    pub class: u32,
    /// COCO `iscrowd`: a group, never a training target, matched by intersection over detection area.
    pub crowd: bool,
    /// VOC `difficult`.
    pub difficult: bool,
    /// VOC `truncated`, OpenImages `IsTruncated`: the object goes on beyond its box. Kept, and used by nothing here.
    pub truncated: bool,
    /// VOC `occluded`, OpenImages `IsOccluded`. Kept, and used by nothing here.
    pub occluded: bool,
    /// Segmentation area in pixels where the annotation gives one; box area is used otherwise.
    pub area: Option<f32>,
    pub mask: Option<Mask>,
}

/// Boxes and classes of the objects of each image.
pub fn labelled(objects: &[Vec<Object>]) -> Vec<Vec<(BBox, u32)>> {
    objects.iter().map(|own| own.iter().map(|object| (object.bbox, object.class)).collect()).collect()
}

/// One detection of a model, or of somebody's results file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    /// Pixels of the original image.
    pub bbox: BBox,
    /// Index into the model's class names, background excluded.
    pub class: u32,
    /// In `[0, 1]`.
    pub score: f32,
    /// The anchor (prior) or proposal that it came from.
    pub anchor: Option<u32>,
    #[serde(skip)]
    pub mask: Option<Mask>,
}
