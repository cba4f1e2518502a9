//! Floor 2: data sets: reading, drawing, checking, and batches for training. Uses geometry, imaging and random.

mod batch;
pub mod check;
pub mod coco;
mod coco_json;
mod coco_places;
pub mod coco_results;
pub mod dataset;
pub mod error;
pub mod findings;
pub mod folder;
pub mod loader;
pub mod open;
mod paths;
pub mod shapes;
mod shapes_coverage;
mod shapes_draw;
mod shapes_layout;
mod shapes_outline;
pub mod voc;
mod voc_xml;

pub use check::{Depth, check};
pub use coco::{Masks, read_coco, read_coco_with};
pub use coco_results::{read_results, write_results};
pub use dataset::{Dataset, Finding, ImageEntry, Severity, Source};
pub use error::DataError;
pub use folder::{read_folder, read_image};
pub use loader::{Batch, Loader, LoaderSettings, Position};
pub use open::{open, splits};
pub use shapes::{CLASSES, ShapesSpec, Split, scene, shapes};
pub use voc::read_voc;
