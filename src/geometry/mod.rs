//! Floor 0: boxes, overlap, suppression, coding, anchors, matching, mining, masks. Plain `f32`, one idea a file.

pub mod anchors;
pub mod boxes;
pub mod coder;
pub mod instances;
pub mod iou;
pub mod masks;
pub mod matching;
pub mod mining;
pub mod nms;
pub mod priors;
pub mod replay;
pub mod sampling;

pub use boxes::BBox;
pub use instances::{Detection, Object, labelled};
pub use masks::{Mask, MaskError};
