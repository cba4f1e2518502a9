//! The typed record of one pass of one image through a detector: plain arrays, filled only when a probe is on.
//!
//! Every panel, the parity command and `boxwright trace` read this and nothing else. Boxes of anchors, proposals and
//! candidates are in pixels of the network's input; detections are in pixels of the original image.

use crate::geometry::{BBox, Detection, Object};
use serde::{Deserialize, Serialize};

/// Everything that happened to one image in one pass. A part that the detector has no notion of stays empty.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    pub preprocessing: Option<Preprocessing>,
    /// Network input after preprocessing, `[3, height, width]`.
    pub input: Option<FeatureMap>,
    /// Objects as the network saw them: input pixels, after augmentation.
    pub objects: Vec<Object>,
    pub maps: Vec<FeatureMap>,
    pub anchors: Anchors,
    pub assignment: Option<Assignment>,
    pub sampling: Vec<Sample>,
    /// Every background anchor enters the loss, whether `sampling` lists it or not.
    pub all_background: bool,
    pub losses: Vec<LossPart>,
    pub proposals: Vec<ProposalStage>,
    /// What each head did to its boxes; empty without ground truth.
    pub localisation: Vec<Localisation>,
    pub suppression: Option<Suppression>,
    pub detections: Vec<Detection>,
    pub timings: Vec<StageTime>,
}

/// How the picture became the network's input.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Preprocessing {
    pub original_width: u32,
    pub original_height: u32,
    pub input_width: u32,
    pub input_height: u32,
    /// input x = original x · scale_x + offset_x
    pub scale_x: f32,
    pub scale_y: f32,
    pub offset_x: f32,
    pub offset_y: f32,
    /// For people: "stretch 300×300, RGB − (123, 117, 104)".
    pub description: String,
}

impl Preprocessing {
    /// A box of the picture, in pixels of the input. Not clipped.
    pub fn to_input(&self, bbox: BBox) -> BBox {
        bbox.scale(self.scale_x, self.scale_y).shift(self.offset_x, self.offset_y)
    }

    /// A box of the input, in pixels of the picture. Not clipped.
    pub fn to_original(&self, bbox: BBox) -> BBox {
        let inverse = |scale: f32| if scale > 0.0 { 1.0 / scale } else { 0.0 };
        bbox.shift(-self.offset_x, -self.offset_y).scale(inverse(self.scale_x), inverse(self.scale_y))
    }
}

/// One tapped map, `[channels, height, width]` row-major.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FeatureMap {
    pub name: String,
    /// Position in the pyramid, finest 0.
    pub level: usize,
    pub channels: usize,
    pub height: usize,
    pub width: usize,
    pub data: Vec<f32>,
}

/// Anchors (priors) of all levels, in the order of the head's outputs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Anchors {
    pub boxes: Vec<BBox>,
    pub levels: Vec<AnchorLevel>,
}

/// A run of anchors that one feature map predicts for: cell row-major, then anchor within the cell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AnchorLevel {
    pub start: usize,
    pub len: usize,
    pub rows: usize,
    pub columns: usize,
    pub per_cell: usize,
    /// Pixels of the input between neighbouring cells.
    pub stride: f32,
}

impl Trace {
    /// Background anchors that enter the loss; none before they are sampled.
    pub fn negatives(&self) -> usize {
        match &self.assignment {
            Some(assignment) if self.all_background && !self.sampling.is_empty() => assignment.background(),
            _ => self.sampling.iter().filter(|sample| !sample.positive).count(),
        }
    }

    /// The stages of detection, in order. What a training pass leaves behind them is named `training …`.
    pub fn stages(&self) -> &[ProposalStage] {
        let count = self.proposals.iter().take_while(|stage| !stage.name.starts_with("training ")).count();
        self.proposals.get(..count).unwrap_or_default()
    }

    /// The way of a detection's box: its row in each of the [`stages`](Self::stages), and the anchor that it began as.
    /// `from` is [`Detection::anchor`], the row in the last stage, or the anchor itself where there are no stages.
    /// A way that cannot be followed to its start has no rows and no anchor.
    pub fn way(&self, from: u32) -> (Vec<u32>, Option<u32>) {
        let mut rows = Vec::new();
        let mut row = from;
        for stage in self.stages().iter().rev() {
            let known = stage.boxes.get(row as usize).and(stage.parent.get(row as usize));
            let Some(&parent) = known else { return (Vec::new(), None) };
            rows.push(row);
            row = parent;
        }
        rows.reverse();
        (rows, self.anchors.boxes.get(row as usize).map(|_| row))
    }

    /// A box of the input in pixels of the picture; unchanged where the preprocessing is not known.
    pub fn to_original(&self, bbox: BBox) -> BBox {
        self.preprocessing.as_ref().map_or(bbox, |place| place.to_original(bbox))
    }

    /// A box of the picture in pixels of the input; unchanged where the preprocessing is not known.
    pub fn to_input(&self, bbox: BBox) -> BBox {
        self.preprocessing.as_ref().map_or(bbox, |place| place.to_input(bbox))
    }
}

impl Anchors {
    /// The level that anchor `index` belongs to.
    pub fn level_of(&self, index: usize) -> Option<usize> {
        self.levels.iter().position(|l| (l.start..l.start + l.len).contains(&index))
    }
}

/// Which rule decided an anchor's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rule {
    /// IoU at or above the positive threshold.
    Threshold,
    /// The best anchor of its object, taken whatever its IoU.
    BestForObject,
    /// Below the negative threshold.
    Background,
    /// Between the thresholds, or on a crowd or ignored object.
    Ignored,
    /// Dropped by an earlier stage (RefineDet's 0.99 filter).
    Filtered,
    /// A point inside the object's centre region and the level's range (FCOS).
    Center,
}

/// Per anchor: what it should learn.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Assignment {
    /// Object index for a positive, −1 background, −2 ignored.
    pub target: Vec<i32>,
    pub rule: Vec<Rule>,
    /// Best IoU with any object; 0 without objects.
    pub iou: Vec<f32>,
    /// Object of that best IoU, −1 without objects.
    pub best_object: Vec<i32>,
}

impl Assignment {
    /// Anchors that learn background.
    pub fn background(&self) -> usize {
        self.target.iter().filter(|target| **target == -1).count()
    }
}

/// One sampled anchor or RoI: who enters the loss and why.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub anchor: u32,
    pub positive: bool,
    /// Rank by loss among the negatives, hardest 0; for a positive, its order.
    pub rank: u32,
    pub loss: f32,
}

/// One named part of the loss.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LossPart {
    pub name: String,
    /// As it enters the total (normalised by `normalizer`).
    pub value: f32,
    pub normalizer: f32,
    /// Unnormalised loss of each anchor or RoI; empty where the part has none.
    pub per_anchor: Vec<f32>,
    /// What those were computed from; the formula alone where a batch has more than [`terms::MOST_KEPT`] numbers.
    pub terms: Terms,
}

/// Boxes after one stage: RPN, ARM, cascade 1..3.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProposalStage {
    pub name: String,
    pub boxes: Vec<BBox>,
    pub scores: Vec<f32>,
    /// IoU with the best object; empty without ground truth.
    pub iou: Vec<f32>,
    /// IoU from which this stage calls a proposal positive.
    pub threshold: Option<f32>,
    /// Index of the proposal in the stage before.
    pub parent: Vec<u32>,
}

impl ProposalStage {
    /// Mean IoU with the best object; none without ground truth.
    pub fn mean_iou(&self) -> Option<f32> {
        let sum: f32 = self.iou.iter().sum();
        (!self.iou.is_empty()).then(|| sum / self.iou.len() as f32)
    }

    /// The share that this stage calls positive; none without ground truth or without a threshold.
    pub fn positive_share(&self) -> Option<f32> {
        let threshold = self.threshold.filter(|_| !self.iou.is_empty())?;
        let positives = self.iou.iter().filter(|&&iou| iou >= threshold).count();
        Some(positives as f32 / self.iou.len() as f32)
    }
}

/// Candidates before suppression, and who removed whom.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Suppression {
    /// In order of processing (score falling); input pixels.
    pub candidates: Vec<Detection>,
    pub removals: Vec<Removal>,
    /// Indices into `candidates` that survived, in output order.
    pub kept: Vec<u32>,
    pub iou_threshold: f32,
    pub score_threshold: f32,
    pub method: String,
}

/// Candidate `removed` went because of candidate `by`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Removal {
    pub removed: u32,
    pub by: u32,
    pub iou: f32,
}

/// Wall time of one stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StageTime {
    pub stage: String,
    pub seconds: f64,
}

mod export;
pub mod localisation;
pub mod missed;
pub mod reduce;
pub mod targets;
pub mod terms;
pub use export::TensorOut;
pub use localisation::Localisation;
pub use terms::{Formula, Overlap, Terms};
