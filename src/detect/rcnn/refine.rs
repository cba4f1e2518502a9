//! What a head's answers mean: the probability of every class, and the box that it moves each RoI to.

use super::box_head::Answers;
use super::config::RcnnConfig;
use crate::geometry::BBox;
use crate::geometry::iou::pairwise_iou;
use crate::ops::activation::softmax_last;
use crate::trace::{Localisation, ProposalStage, Trace};
use candle_core::Result;

/// The index of the stage before for a RoI that was no proposal but an object.
pub(super) const NO_PARENT: u32 = u32::MAX;

/// A head's answers in main memory, a row a RoI.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    /// `[R, classes and background]`
    pub(super) probabilities: Vec<f32>,
    /// `[R, 4 · regressed boxes]`; empty for a head that only classifies.
    deltas: Vec<f32>,
}

impl Reading {
    /// # Errors
    /// A tensor that cannot be read back.
    pub(super) fn new(answers: &Answers) -> Result<Self> {
        let probabilities = softmax_last(&answers.logits.detach())?.flatten_all()?.to_vec1()?;
        let deltas = match &answers.deltas {
            Some(deltas) => deltas.detach().flatten_all()?.to_vec1()?,
            None => Vec::new(),
        };
        Ok(Self { probabilities, deltas })
    }

    /// The class that row `row` thinks most likely, background left out, and its probability. Of equals the first.
    pub(super) fn best_class(&self, config: &RcnnConfig, row: usize) -> (usize, f32) {
        let mut best = (0, 0.0);
        for class in 0..config.classes.len() {
            let place = row * config.logits() + config.column(class);
            let score = self.probabilities.get(place).copied().unwrap_or(0.0);
            if score > best.1 {
                best = (class, score);
            }
        }
        best
    }

    /// Where row `row` moves its RoI `bbox` as an object of `class`, clipped to the picture's `size` (height, width).
    /// A head without regression, or an answer that is not finite, leaves the RoI where it is.
    pub(super) fn refined(
        &self,
        config: &RcnnConfig,
        stage: usize,
        row: usize,
        bbox: BBox,
        class: usize,
        size: (f32, f32),
    ) -> BBox {
        let place = 4 * (row * config.regressed() + config.regressed_box(class));
        let Some(&code) = self.deltas.get(place..).and_then(|rest| rest.first_chunk::<4>()) else {
            return bbox;
        };
        let moved = config.coder(stage).decode(bbox, code);
        if [moved.x0, moved.y0, moved.x1, moved.y1].iter().all(|v| v.is_finite()) {
            moved.clip(size.1, size.0)
        } else {
            bbox
        }
    }
}

/// The best IoU of each box with any object; empty without objects.
pub(super) fn best_overlaps(boxes: &[BBox], objects: &[BBox]) -> Vec<f32> {
    if objects.is_empty() {
        return Vec::new();
    }
    let table = pairwise_iou(boxes, objects);
    table.chunks_exact(objects.len()).map(|row| row.iter().copied().fold(0.0, f32::max)).collect()
}

/// The boxes that one look at RoIs leads to.
pub(super) struct Look<'a> {
    /// Number of the look and of the head that makes it, both from 0.
    pub(super) place: (usize, usize),
    pub(super) inputs: &'a [BBox],
    pub(super) outputs: &'a [BBox],
    /// Probability of the likeliest class.
    pub(super) scores: Vec<f32>,
    /// Index of each RoI in the stage before.
    pub(super) parent: Vec<u32>,
}

impl Look<'_> {
    /// Adds the look to the stages of a trace, and beside `objects` what the head did to each box.
    pub(super) fn record(self, config: &RcnnConfig, objects: &[BBox], trace: &mut Trace) {
        let (step, stage) = self.place;
        let threshold = config.stage(stage).positive_iou;
        let name = format!("stage {}", step + 1);
        let rule = (threshold, config.coder(stage).std);
        trace.localisation.extend(Localisation::new(&name, rule, self.inputs, self.outputs, objects));
        trace.proposals.push(ProposalStage {
            name,
            boxes: self.outputs.to_vec(),
            scores: self.scores,
            iou: best_overlaps(self.outputs, objects),
            threshold: Some(threshold),
            parent: self.parent,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|k| format!("class {k}")).collect()
    }

    fn reading(logits: &[f32], columns: usize, deltas: &[f32]) -> Result<Reading> {
        let rows = logits.len() / columns;
        Reading::new(&Answers {
            logits: Tensor::from_slice(logits, (rows, columns), &Device::Cpu)?,
            deltas: Some(Tensor::from_slice(deltas, (rows, deltas.len() / rows), &Device::Cpu)?),
        })
    }

    #[test]
    fn the_background_is_never_the_best_class() -> Result<()> {
        let faster = RcnnConfig::faster_nano(&names(2));
        // background first: softmax of (ln 6, ln 1, ln 3) is (0.6, 0.1, 0.3)
        let (six, three) = (6f32.ln(), 3f32.ln());
        let read = reading(&[six, 0.0, three], 3, &[0.0; 12])?;
        let (class, score) = read.best_class(&faster, 0);
        assert!(class == 1 && (score - 0.3).abs() < 1e-6);
        let cascade = RcnnConfig::cascade_nano(&names(2));
        let (class, score) = read.best_class(&cascade, 0);
        assert!(class == 0 && (score - 0.6).abs() < 1e-6);
        assert_eq!(read.best_class(&cascade, 7), (0, 0.0));
        Ok(())
    }

    /// By hand: dx = 2 with deviation 0.05 moves a 100 wide box by 10; in the third stage with 0.033 by 6.6.
    #[test]
    fn each_stage_moves_boxes_by_its_own_deviations() -> Result<()> {
        let config = RcnnConfig::cascade_nano(&names(2));
        let read = reading(&[0.0; 6], 3, &[0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0])?;
        let start = BBox::new(0.0, 0.0, 100.0, 50.0);
        assert_eq!(read.refined(&config, 1, 0, start, 1, (300.0, 300.0)), start);
        for (stage, shift) in [(0, 20.0), (1, 10.0), (2, 6.6)] {
            let moved = read.refined(&config, stage, 1, start, 0, (300.0, 300.0));
            assert!((moved.x0 - shift).abs() < 1e-4 && (moved.x1 - 100.0 - shift).abs() < 1e-4, "{stage}: {moved:?}");
        }
        assert_eq!(read.refined(&config, 1, 1, start, 0, (300.0, 105.0)).x1, 105.0);
        Ok(())
    }

    #[test]
    fn classes_move_boxes_apart_and_nonsense_leaves_them() -> Result<()> {
        let config = RcnnConfig::faster_nano(&names(2));
        let mut deltas = [0.0; 12];
        deltas[8] = 1.0;
        let start = BBox::new(10.0, 10.0, 30.0, 30.0);
        let read = reading(&[0.0; 3], 3, &deltas)?;
        // rows: background, class 0, class 1; dx = 1 · 0.1 · 20
        assert_eq!(read.refined(&config, 0, 0, start, 0, (99.0, 99.0)), start);
        assert!((read.refined(&config, 0, 0, start, 1, (99.0, 99.0)).x0 - 12.0).abs() < 1e-4);
        deltas[4] = f32::NAN;
        assert_eq!(reading(&[0.0; 3], 3, &deltas)?.refined(&config, 0, 0, start, 0, (99.0, 99.0)), start);
        assert_eq!(Reading::default().refined(&config, 0, 0, start, 0, (99.0, 99.0)), start);
        Ok(())
    }

    #[test]
    fn overlaps_are_with_the_best_object() {
        let (a, b) = (BBox::new(0.0, 0.0, 10.0, 10.0), BBox::new(50.0, 0.0, 60.0, 10.0));
        assert_eq!(best_overlaps(&[b, BBox::new(0.0, 0.0, 10.0, 5.0)], &[a, b]), [1.0, 0.5]);
        assert!(best_overlaps(&[a], &[]).is_empty());
        assert!(best_overlaps(&[], &[a]).is_empty());
    }
}
