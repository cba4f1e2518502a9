//! The overlap of every stage's boxes with the objects of a data set, and what each head adds to it.
//!
//! Cai & Vasconcelos, "Cascade R-CNN" (CVPR 2018): figure 4 is the histograms, figure 1 (c) the localisation curves,
//! figure 2 the spread of the box codes.

use crate::data::dataset::Dataset;
use crate::detect::Prediction;
use crate::geometry::Object;
use crate::imaging::Picture;
use crate::ops::interrupt;
use crate::stats::Histogram;
use crate::trace::localisation::{CurveSums, DeltaSums};
use crate::trace::{Localisation, ProposalStage, Trace};
use serde_json::{Value, json};

/// Overlaps whose shares are reported.
pub const SHARES: [f32; 3] = [0.5, 0.6, 0.7];
/// Bins of the histograms.
const BINS: usize = 50;

/// The boxes of one stage in all images.
#[derive(Clone, Debug)]
pub struct StageOverlap {
    /// `RPN`, `stage 1`, …; what training sampled is called `training …`.
    pub name: String,
    /// Overlap from which the stage calls a box positive.
    pub threshold: Option<f32>,
    pub boxes: u64,
    /// Of the best overlap of each box, over `[0, 1]`.
    pub histogram: Histogram,
    /// The head that made the boxes; none for proposals.
    pub head: Option<HeadSums>,
    sum: f64,
    at_least: [u64; 3],
    positives: u64,
}

/// What one head did to its boxes in all images.
#[derive(Clone, Debug, Default)]
pub struct HeadSums {
    /// Deviations that its box code is divided by.
    pub std: [f32; 4],
    pub curve: CurveSums,
    /// Box codes of its positives before and after the division.
    pub deltas: DeltaSums,
    pub normalized: DeltaSums,
}

/// All stages, in the order in which boxes pass them.
#[derive(Clone, Debug, Default)]
pub struct Overlaps {
    /// Images with objects that were looked at.
    pub images: usize,
    /// Images that could not be read, with the reason.
    pub skipped: Vec<String>,
    pub stages: Vec<StageOverlap>,
}

impl StageOverlap {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_string(),
            threshold: None,
            boxes: 0,
            histogram: Histogram::new(0.0, 1.0, BINS),
            head: None,
            sum: 0.0,
            at_least: [0; 3],
            positives: 0,
        }
    }

    fn add(&mut self, stage: &ProposalStage) {
        self.threshold = stage.threshold;
        for &iou in &stage.iou {
            self.boxes += 1;
            self.sum += f64::from(iou);
            self.histogram.add(iou);
            self.positives += u64::from(stage.threshold.is_some_and(|threshold| iou >= threshold));
            for (count, share) in self.at_least.iter_mut().zip(SHARES) {
                *count += u64::from(iou >= share);
            }
        }
    }

    /// Whether training's samples are meant, not detection's boxes.
    pub fn of_training(&self) -> bool {
        self.name.starts_with("training ")
    }

    pub fn mean(&self) -> f32 {
        (self.sum / self.boxes.max(1) as f64) as f32
    }

    /// Shares of the boxes with an overlap from each of [`SHARES`] on.
    pub fn shares(&self) -> [f32; 3] {
        self.at_least.map(|count| self.share(count))
    }

    /// Share of the boxes that the stage calls positive.
    pub fn positive_share(&self) -> Option<f32> {
        self.threshold.map(|_| self.share(self.positives))
    }

    fn share(&self, count: u64) -> f32 {
        (count as f64 / self.boxes.max(1) as f64) as f32
    }

    fn json(&self) -> Value {
        json!({
            "stage": self.name,
            "threshold": self.threshold,
            "boxes": self.boxes,
            "mean_iou": self.mean(),
            "positive_share": self.positive_share(),
            "share_at_least": SHARES.iter().zip(self.shares()).collect::<Vec<_>>(),
            "histogram": self.histogram.counts(),
            "head": self.head.as_ref().map(|head| json!({
                "std": head.std,
                "curve": head.curve.points(),
                "positives": head.deltas.count,
                "deltas": { "mean": head.deltas.mean(), "std": head.deltas.std() },
                "normalized_deltas": { "mean": head.normalized.mean(), "std": head.normalized.std() },
            })),
        })
    }
}

impl HeadSums {
    fn add(&mut self, head: &Localisation) {
        self.std = head.std;
        for (&before, &after) in head.input_iou.iter().zip(&head.output_iou) {
            self.curve.add(before, after);
        }
        head.deltas.iter().for_each(|&delta| self.deltas.add(delta));
        head.normalized().for_each(|delta| self.normalized.add(delta));
    }
}

impl Overlaps {
    /// The stages of one image, from a trace with ground truth.
    pub fn add(&mut self, trace: &Trace) {
        self.images += 1;
        for stage in trace.proposals.iter().filter(|stage| !stage.iou.is_empty()) {
            self.stage(&stage.name).add(stage);
        }
        for head in &trace.localisation {
            self.stage(&head.stage).head.get_or_insert_default().add(head);
        }
    }

    fn stage(&mut self, name: &str) -> &mut StageOverlap {
        let place = self.stages.iter().position(|stage| stage.name == name).unwrap_or(self.stages.len());
        if place == self.stages.len() {
            self.stages.push(StageOverlap::new(name));
        }
        &mut self.stages[place]
    }

    pub fn json(&self) -> Value {
        let stages: Vec<Value> = self.stages.iter().map(StageOverlap::json).collect();
        json!({ "images": self.images, "skipped": self.skipped, "stages": stages })
    }
}

/// Looks at the first `limit` images of `dataset` that have objects. `look` gets the image's index, picture and objects
/// and makes a probed prediction; `progress` hears (done, total) after each image.
///
/// # Errors
/// What `look` fails with, an interruption, or a detector without stages.
pub fn survey(
    dataset: &Dataset,
    limit: usize,
    mut look: impl FnMut(usize, &Picture, &[Object]) -> Result<Prediction, String>,
    mut progress: impl FnMut(usize, usize),
) -> Result<Overlaps, String> {
    let annotated = |&index: &usize| dataset.images[index].objects.iter().any(|object| !object.crowd);
    let chosen: Vec<usize> = (0..dataset.images.len()).filter(annotated).take(limit).collect();
    if chosen.is_empty() {
        return Err(format!("{} has no image with objects in its split {:?}", dataset.name, dataset.split));
    }
    let mut overlaps = Overlaps::default();
    for (done, &index) in chosen.iter().enumerate() {
        interrupt::check().map_err(|e| e.to_string())?;
        let entry = &dataset.images[index];
        match dataset.picture(index) {
            Ok(picture) => {
                let prediction = look(index, &picture, &entry.objects)?;
                overlaps.add(&prediction.trace.ok_or("the pass left no trace")?);
            }
            Err(error) => overlaps.skipped.push(format!("{}: {error}", entry.name)),
        }
        progress(done + 1, chosen.len());
    }
    if overlaps.images > 0 && overlaps.stages.is_empty() {
        return Err("this detector has no proposals: choose a two-stage one, say cascade-nano".into());
    }
    Ok(overlaps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::BBox;

    fn stage(name: &str, iou: Vec<f32>, threshold: f32) -> ProposalStage {
        let boxes = vec![BBox::default(); iou.len()];
        ProposalStage { name: name.into(), boxes, iou, threshold: Some(threshold), ..ProposalStage::default() }
    }

    #[test]
    fn stages_add_up_over_images_in_their_order() {
        let head = Localisation {
            stage: "stage 1".into(),
            std: [0.1, 0.1, 0.2, 0.2],
            input_iou: vec![0.5, 0.0],
            output_iou: vec![0.75, 0.0],
            deltas: vec![[0.2, 0.0, 0.2, 0.0]],
        };
        let trace = Trace {
            proposals: vec![stage("RPN", vec![0.5, 0.0], 0.7), stage("stage 1", vec![0.75, 0.0], 0.5)],
            localisation: vec![head],
            ..Trace::default()
        };
        let mut overlaps = Overlaps::default();
        overlaps.add(&trace);
        overlaps.add(&trace);
        overlaps.add(&Trace::default());
        assert_eq!((overlaps.images, overlaps.stages.len()), (3, 2));
        let (rpn, first) = (&overlaps.stages[0], &overlaps.stages[1]);
        assert_eq!((rpn.boxes, rpn.mean(), rpn.shares(), rpn.positive_share()), (4, 0.25, [0.5, 0.0, 0.0], Some(0.0)));
        assert_eq!((first.shares(), first.positive_share()), ([0.5; 3], Some(0.5)));
        let head = first.head.as_ref().unwrap();
        assert_eq!(head.curve.points(), [(0.0, 0.0, 2), (0.5, 0.75, 2)]);
        assert_eq!((head.deltas.count, head.deltas.mean()[0], head.normalized.mean()[2]), (2, 0.2, 1.0));
        assert!(rpn.head.is_none() && !rpn.of_training());
        let json = overlaps.json();
        assert_eq!(json["stages"][1]["head"]["curve"][1][2], 2);
        assert_eq!(json["stages"][0]["boxes"], 4);
    }

    #[test]
    fn images_without_objects_and_detectors_without_stages_are_errors() {
        let empty = survey(&Dataset::default(), 5, |_, _, _| Ok(Prediction::default()), |_, _| {});
        assert!(empty.unwrap_err().contains("no image with objects"));
    }
}
