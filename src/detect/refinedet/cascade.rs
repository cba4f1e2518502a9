//! Two-step coding: the first stage moves the priors, the second moves what came of them; and what a trace keeps of it.

use super::RefinedetConfig;
use crate::detect::Outputs;
use crate::geometry::coder::BoxCoder;
use crate::geometry::iou::iou;
use crate::geometry::{BBox, Object};
use crate::nn::Pass;
use crate::ops::activation::softmax_last;
use crate::ops::select::fetch;
use crate::trace::ProposalStage;
use candle_core::{Result, Tensor};

/// The code of both steps: SSD's variances without a limit on the sides.
pub(super) const CODER: BoxCoder = BoxCoder { max_log: None, ..BoxCoder::SSD };

/// Code of `target` relative to `anchor`, with `epsilon` added to the quotients of the sides.
pub(super) fn encode(anchor: BBox, target: BBox, epsilon: f32) -> [f32; 4] {
    let [dx, dy, _, _] = CODER.encode(anchor, target);
    let side = |target: f32, anchor: f32, std: f32| (target / anchor + epsilon).ln() / std;
    [dx, dy, side(target.width(), anchor.width(), CODER.std[2]), side(target.height(), anchor.height(), CODER.std[3])]
}

/// One image after the first stage.
#[derive(Clone, Debug, Default)]
pub(super) struct Refined {
    /// Priors moved by the first stage, input pixels.
    pub boxes: Vec<BBox>,
    /// Probability of an object, by anchor.
    pub objectness: Vec<f32>,
}

impl Refined {
    /// Whether the first stage is all but certain that anchor `index` is background.
    pub fn is_background(&self, index: usize, threshold: f32) -> bool {
        self.objectness.get(index).is_some_and(|&p| p < threshold)
    }
}

/// The first stage of every image. No gradient flows through it.
///
/// # Errors
/// Outputs that are not a RefineDet's for these priors.
pub(super) fn refine(priors: &[BBox], outputs: &Outputs) -> Result<Vec<Refined>> {
    let codes = outputs.get("arm_loc")?.detach();
    let probabilities = softmax_last(&outputs.get("arm_conf_logits")?.detach())?;
    let mut images = Vec::new();
    for image in 0..codes.dim(0)? {
        let boxes = decode(priors, &codes.get(image)?)?;
        let pairs = fetch(&probabilities.get(image)?)?;
        images.push(Refined { boxes, objectness: pairs.chunks_exact(2).map(|p| p[1]).collect() });
    }
    Ok(images)
}

/// One image after the second stage.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// Refined anchors moved by the second stage, input pixels.
    pub boxes: Vec<BBox>,
    /// Probability of every class, background first, `[P · C]`; 0 for filtered anchors.
    pub scores: Vec<f32>,
}

/// The second stage on what the first one found.
///
/// # Errors
/// Outputs that are not a RefineDet's.
pub(super) fn find(config: &RefinedetConfig, refined: &[Refined], outputs: &Outputs) -> Result<Vec<Found>> {
    let codes = outputs.get("odm_loc")?.detach();
    let probabilities = softmax_last(&outputs.get("odm_conf_logits")?.detach())?;
    let (_, _, classes) = probabilities.dims3()?;
    let mut images = Vec::new();
    for (image, first) in refined.iter().enumerate() {
        let boxes = decode(&first.boxes, &codes.get(image)?)?;
        let mut scores = fetch(&probabilities.get(image)?)?;
        for (anchor, row) in scores.chunks_exact_mut(classes).enumerate() {
            if first.is_background(anchor, config.objectness_threshold) {
                row.fill(0.0);
            }
        }
        images.push(Found { boxes, scores });
    }
    Ok(images)
}

/// Codes `[P, 4]` of one image on their anchors.
fn decode(anchors: &[BBox], codes: &Tensor) -> Result<Vec<BBox>> {
    let codes = fetch(codes)?;
    if codes.len() != 4 * anchors.len() {
        candle_core::bail!("{} box codes for {} anchors", codes.len() / 4, anchors.len());
    }
    let pairs = anchors.iter().zip(codes.chunks_exact(4));
    Ok(pairs.map(|(&anchor, c)| CODER.decode(anchor, [c[0], c[1], c[2], c[3]])).collect())
}

/// Fills the proposals of every image's trace when the pass is probed: `ARM` with objectness and `ODM` with the best
/// class's score (0 where the objectness filter took the anchor), each with its IoU where objects are known. Without
/// `objects`, those that the trace already holds count.
pub(super) fn record(
    config: &RefinedetConfig,
    refined: &[Refined],
    found: &[Found],
    objects: Option<&[Vec<Object>]>,
    pass: &Pass,
) {
    for (image, (refined, found)) in refined.iter().zip(found).enumerate() {
        pass.trace(image, |t| {
            let objects = objects.and_then(|lists| lists.get(image)).unwrap_or(&t.objects);
            let objects: Vec<BBox> = objects.iter().map(|o| o.bbox).collect();
            let classes = config.logits();
            let best = |row: &[f32]| row.iter().skip(1).copied().fold(0.0, f32::max);
            let parent: Vec<u32> = (0..refined.boxes.len() as u32).collect();
            t.proposals = vec![
                ProposalStage {
                    name: "ARM".into(),
                    boxes: refined.boxes.clone(),
                    scores: refined.objectness.clone(),
                    iou: best_overlap(&refined.boxes, &objects),
                    threshold: Some(config.positive_threshold),
                    parent: parent.clone(),
                },
                ProposalStage {
                    name: "ODM".into(),
                    boxes: found.boxes.clone(),
                    scores: found.scores.chunks_exact(classes).map(best).collect(),
                    iou: best_overlap(&found.boxes, &objects),
                    threshold: None,
                    parent,
                },
            ];
        });
    }
}

/// IoU of each box with its best object; empty without objects.
fn best_overlap(boxes: &[BBox], objects: &[BBox]) -> Vec<f32> {
    if objects.is_empty() {
        return Vec::new();
    }
    boxes.iter().map(|&b| objects.iter().map(|&o| iou(b, o)).fold(0.0, f32::max)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Mode;
    use candle_core::Device;

    fn assert_near(found: BBox, expected: BBox, tolerance: f32) {
        let pairs =
            [(found.x0, expected.x0), (found.y0, expected.y0), (found.x1, expected.x1), (found.y1, expected.y1)];
        assert!(pairs.iter().all(|(a, b)| (a - b).abs() < tolerance), "{found:?} is not {expected:?}");
    }

    fn outputs(arm: &[f32], odm: &[f32]) -> Result<Outputs> {
        let anchors = arm.len() / 4;
        let tensor = |values: &[f32], width: usize| Tensor::from_slice(values, (1, anchors, width), &Device::Cpu);
        // objectness 1 / 99 and 1 / 101 in turn: a little above and a little below 0.01
        let objectness: Vec<f32> =
            (0..anchors).flat_map(|a| [if a % 2 == 0 { 98_f32.ln() } else { 100_f32.ln() }, 0.0]).collect();
        let classes: Vec<f32> = (0..anchors).flat_map(|_| [0.0, 0.0, 2_f32.ln()]).collect();
        Ok(Outputs {
            tensors: vec![
                ("arm_loc".into(), tensor(arm, 4)?),
                ("arm_conf_logits".into(), tensor(&objectness, 2)?),
                ("odm_loc".into(), tensor(odm, 4)?),
                ("odm_conf_logits".into(), tensor(&classes, 3)?),
            ],
            maps: vec![(1, anchors)],
            input: (64, 64),
        })
    }

    #[test]
    fn a_target_encoded_in_two_steps_comes_back() -> Result<()> {
        let prior = BBox::new(0.0, 0.0, 32.0, 32.0);
        let halfway = BBox::new(4.0, 2.0, 44.0, 30.0);
        let target = BBox::new(10.0, -3.0, 70.0, 21.0);
        let first = CODER.encode(prior, halfway);
        let second = encode(halfway, target, 0.0);
        let outputs = outputs(&first, &second)?;
        let refined = refine(&[prior], &outputs)?;
        assert_near(refined[0].boxes[0], halfway, 1e-4);
        let config = RefinedetConfig::nano(&["a".to_string(), "b".to_string()]);
        let found = find(&config, &refined, &outputs)?;
        assert_near(found[0].boxes[0], target, 1e-3);
        Ok(())
    }

    #[test]
    fn epsilon_keeps_a_flat_target_finite_and_hardly_moves_others() {
        let anchor = BBox::new(0.0, 0.0, 10.0, 10.0);
        let target = BBox::new(2.0, 1.0, 8.0, 9.0);
        for (a, b) in encode(anchor, target, 1e-5).into_iter().zip(CODER.encode(anchor, target)) {
            assert!((a - b).abs() < 1e-3);
        }
        let flat = encode(anchor, BBox::new(2.0, 1.0, 2.0, 9.0), 1e-5);
        // ln(1e-5) / 0.2
        assert!((flat[2] + 57.565).abs() < 0.01, "{flat:?}");
    }

    #[test]
    fn anchors_below_the_objectness_threshold_score_nothing() -> Result<()> {
        let priors = [BBox::new(0.0, 0.0, 8.0, 8.0), BBox::new(8.0, 0.0, 16.0, 8.0)];
        let outputs = outputs(&[0.0; 8], &[0.0; 8])?;
        let config = RefinedetConfig::nano(&["a".to_string(), "b".to_string()]);
        let refined = refine(&priors, &outputs)?;
        assert!(!refined[0].is_background(0, 0.01) && refined[0].is_background(1, 0.01));
        assert!(!refined[0].is_background(1, 0.0));
        let found = find(&config, &refined, &outputs)?;
        let expected: [f32; 6] = [0.25, 0.25, 0.5, 0.0, 0.0, 0.0];
        assert!(found[0].scores.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{:?}", found[0].scores);

        let pass = Pass::probed(Mode::Infer, 1);
        let objects = vec![vec![Object { bbox: BBox::new(0.0, 0.0, 8.0, 4.0), ..Object::default() }]];
        record(&config, &refined, &found, Some(&objects), &pass);
        let stages = pass.into_traces().remove(0).proposals;
        assert_eq!((stages[0].name.as_str(), stages[1].name.as_str()), ("ARM", "ODM"));
        assert!((stages[0].scores[0] - 1.0 / 99.0).abs() < 1e-6);
        assert_eq!((stages[1].scores[1], stages[0].iou.clone()), (0.0, vec![0.5, 0.0]));
        Ok(())
    }

    #[test]
    fn without_objects_there_is_no_overlap() -> Result<()> {
        let outputs = outputs(&[0.0; 4], &[0.0; 4])?;
        let config = RefinedetConfig::nano(&["a".to_string(), "b".to_string()]);
        let refined = refine(&[BBox::new(0.0, 0.0, 8.0, 8.0)], &outputs)?;
        let found = find(&config, &refined, &outputs)?;
        let pass = Pass::probed(Mode::Infer, 1);
        record(&config, &refined, &found, None, &pass);
        let stages = pass.into_traces().remove(0).proposals;
        assert!(stages.len() == 2 && stages.iter().all(|s| s.iou.is_empty() && s.boxes.len() == 1));
        assert!(refine(&[], &outputs).is_err());
        Ok(())
    }
}
