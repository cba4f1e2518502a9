//! Up to four things side by side: networks with their weights, or somebody's results; on one image and on a data set.

use super::command::ModelChoice;
use super::model::Model;
use crate::data::dataset::Dataset;
use crate::detect::predict;
use crate::detect::predict::inference_pass;
use crate::eval::ImageResult;
use crate::eval::bootstrap::PairedInterval;
use crate::eval::tally::ImageTally;
use crate::geometry::Detection;
use crate::imaging::picture::Picture;
use std::path::PathBuf;
use std::time::Instant;

/// Things that can be compared at once.
pub const SLOTS: usize = 4;
/// What people call them.
pub const SLOT_NAMES: [&str; SLOTS] = ["A", "B", "C", "D"];

/// What to put into a slot.
#[derive(Clone, Debug, PartialEq)]
pub enum SlotSource {
    /// A copy of the loaded model as it is now; it stays when another one is loaded.
    Loaded,
    /// A network; without a file, with its embedded weights.
    Model { choice: ModelChoice, weights: Option<PathBuf> },
    /// COCO results made on the open data.
    Results(PathBuf),
}

/// What is in a slot, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotSummary {
    pub name: String,
    pub detail: String,
}

/// Every slot's detections in one image.
#[derive(Clone, Debug, Default)]
pub struct ComparedImage {
    /// Position in the open data.
    pub index: usize,
    /// Class names that all sides' indices point into: the data set's first, then those that only a side knows.
    pub classes: Vec<String>,
    /// By slot; `None` for an empty one.
    pub sides: [Option<ComparedSide>; SLOTS],
}

/// One slot's detections in one image.
#[derive(Clone, Debug, Default)]
pub struct ComparedSide {
    /// Best first.
    pub detections: Vec<Detection>,
    /// Time of the whole pass; `None` where nothing was run.
    pub seconds: Option<f64>,
}

/// Every slot scored on the open data.
#[derive(Clone, Debug, Default)]
pub struct CompareSummary {
    pub data: String,
    pub images: usize,
    pub seconds: f64,
    /// Filled slots in order.
    pub sides: Vec<SideScore>,
    /// The first filled slot against each other one, AP at IoU .5.
    pub intervals: Vec<SlotInterval>,
}

/// One slot's scores.
#[derive(Clone, Debug, Default)]
pub struct SideScore {
    pub slot: usize,
    pub name: String,
    /// COCO's twelve numbers.
    pub stats: [f64; 12],
    /// By image, at IoU .5.
    pub tallies: Vec<ImageTally>,
}

/// Two slots and the interval of what the second gains.
#[derive(Clone, Copy, Debug, Default)]
pub struct SlotInterval {
    pub first: usize,
    pub second: usize,
    pub interval: PairedInterval,
}

/// A filled slot.
pub(super) struct Slot {
    pub(super) summary: SlotSummary,
    pub(super) content: SlotContent,
}

pub(super) enum SlotContent {
    Model(Box<Model>),
    Results { path: PathBuf, results: Vec<ImageResult> },
}

impl Slot {
    /// Detections in image `index` of `dataset`, their classes moved into `classes`, which grows by unknown names.
    ///
    /// # Errors
    /// Those of the network, or an interruption.
    pub(super) fn detect(
        &self,
        dataset: &Dataset,
        index: usize,
        picture: &Picture,
        classes: &mut Vec<String>,
    ) -> Result<ComparedSide, String> {
        match &self.content {
            SlotContent::Model(model) => {
                let start = Instant::now();
                let found = predict(&*model.detector, picture, None, inference_pass(false));
                let found = found.map_err(|e| e.to_string())?.detections;
                let seconds = Some(start.elapsed().as_secs_f64());
                let common = common_classes(model.detector.classes(), classes);
                let moved = found.into_iter().filter_map(|d| {
                    let class = *common.get(d.class as usize)?;
                    Some(Detection { class, ..d })
                });
                Ok(ComparedSide { detections: moved.collect(), seconds })
            }
            SlotContent::Results { results, .. } => {
                let id = dataset.images.get(index).map(|image| image.id);
                let own = results.get(index).filter(|result| Some(result.image_id) == id);
                let detections = own.map(|result| result.detections.clone()).unwrap_or_default();
                Ok(ComparedSide { detections, seconds: None })
            }
        }
    }
}

/// For each of a side's names its index among `common`, case aside; unknown ones are added.
fn common_classes(own: &[String], common: &mut Vec<String>) -> Vec<u32> {
    own.iter()
        .map(|name| {
            let known = common.iter().position(|c| c.to_lowercase() == name.to_lowercase());
            let index = known.unwrap_or_else(|| {
                common.push(name.clone());
                common.len() - 1
            });
            index as u32
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_with_other_class_lists_meet_in_one() {
        let list = |names: &[&str]| -> Vec<String> { names.iter().map(|n| (*n).to_string()).collect() };
        let mut common = list(&["cat", "Dog"]);
        assert_eq!(common_classes(&list(&["dog", "bird"]), &mut common), [1, 2]);
        assert_eq!(common_classes(&list(&["BIRD", "cat"]), &mut common), [2, 0]);
        assert_eq!(common, list(&["cat", "Dog", "bird"]));
    }
}
