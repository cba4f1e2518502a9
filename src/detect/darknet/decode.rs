//! YOLO's detections: objectness times class, every class above the threshold on its own, then suppression class by
//! class (darknet's `get_yolo_detections` and `do_nms_sort`).

use super::head::{Head, Slot, logistic};
use crate::detect::Outputs;
use crate::detect::suppress::{Candidates, Limits, suppress};
use crate::geometry::Detection;
use crate::nn::Pass;
use crate::ops::select::{fetch, fetch_rows};
use candle_core::{Result, Tensor};

/// Detections of each image in input pixels, best first. Boxes are not clipped: suppression compares whole ones.
pub(in crate::detect) fn detect(
    head: &Head,
    limits: &Limits,
    outputs: &Outputs,
    pass: &Pass,
) -> Result<Vec<Vec<Detection>>> {
    let slots = head.slots(outputs);
    let rows = pass.stage("decode", || Ok(head.rows(outputs)?.detach()))?;
    let (images, anchors, _) = rows.dims3()?;
    if anchors != slots.len() {
        candle_core::bail!("{} anchors for head outputs of shape {:?}", slots.len(), rows.dims());
    }
    let mut all = Vec::with_capacity(images);
    for image in 0..images {
        let candidates = pass.stage("decode", || candidates(head, limits, &slots, &rows.get(image)?))?;
        all.push(pass.stage("suppress", || Ok(suppress(candidates, limits, image, pass)))?);
    }
    Ok(all)
}

/// Everything above the score threshold, at most `top_k_per_class` a class.
fn candidates(head: &Head, limits: &Limits, slots: &[Slot], rows: &Tensor) -> Result<Candidates> {
    // a product cannot pass a threshold that its first factor does not pass
    let objectness = fetch(&rows.narrow(1, 4, 1)?)?.into_iter().map(logistic).zip(0..);
    let (objectness, likely): (Vec<f32>, Vec<u32>) = objectness.filter(|(p, _)| *p > limits.score_threshold).unzip();
    let numbers = fetch_rows(rows, &likely)?;
    let rows: Vec<&[f32]> = numbers.chunks_exact(head.attributes()).collect();
    let mut candidates = Candidates::default();
    for class in 0..head.classes {
        let column = objectness.iter().zip(&rows).map(|(objectness, row)| objectness * logistic(row[5 + class]));
        for (position, score) in limits.best_of_class(column) {
            let (anchor, row) = (likely[position as usize], rows[position as usize]);
            let bbox = slots[anchor as usize].decode([row[0], row[1], row[2], row[3]], head.offsets);
            // a side that overflowed or vanished is no box
            if bbox.is_proper() {
                let class = class as u32;
                candidates.push(Detection { bbox, class, score, anchor: Some(anchor), mask: None });
            }
        }
    }
    Ok(candidates)
}

#[cfg(test)]
mod tests {
    use super::super::head::tests::{raw_outputs, small_head};
    use super::super::objective::Offsets;
    use super::*;
    use crate::geometry::BBox;
    use crate::nn::Mode;

    const LIMITS: Limits =
        Limits { score_threshold: 0.1, top_k_per_class: 10, nms_threshold: 0.45, max_detections: 10 };

    fn odds(p: f32) -> f32 {
        (p / (1.0 - p)).ln()
    }

    #[test]
    fn scores_are_products_and_a_box_can_have_two_classes() -> Result<()> {
        let head = small_head(Offsets::Logistic);
        // anchor 6 (row 1, column 2 of the fine level) has objectness 0.8 and classes 0.9 and 0.5; the rest is background
        let outputs = raw_outputs(&head, 2, |image, anchor, k| match (image, anchor, k) {
            (1, 6, 4) => odds(0.8),
            (1, 6, 5) => odds(0.9),
            (1, 6, 6) => odds(0.5),
            (_, _, 4) => odds(0.05),
            _ => 0.0,
        })?;
        let pass = Pass::probed(Mode::Infer, 2);
        let found = detect(&head, &LIMITS, &outputs, &pass)?;
        assert!(found[0].is_empty());
        let summary: Vec<(u32, Option<u32>)> = found[1].iter().map(|d| (d.class, d.anchor)).collect();
        assert_eq!(summary, [(0, Some(6)), (1, Some(6))]);
        assert!((found[1][0].score - 0.72).abs() < 1e-5 && (found[1][1].score - 0.4).abs() < 1e-5);
        // the middle of the cell, the prior's size
        assert_eq!(found[1][0].bbox, BBox::from_cxcywh(40.0, 24.0, 8.0, 10.0));
        let traces = pass.into_traces();
        assert_eq!(traces[1].suppression.as_ref().unwrap().kept, [0, 1]);
        Ok(())
    }

    #[test]
    fn boxes_that_are_none_and_scores_that_are_none_are_dropped() -> Result<()> {
        let head = small_head(Offsets::Logistic);
        let outputs = raw_outputs(&head, 1, |_, anchor, k| match (anchor, k) {
            (0, 2) => 1000.0,
            (1, 2) => -1000.0,
            (2, 4) => f32::NAN,
            (3, 5 | 6) => f32::NAN,
            _ => 3.0,
        })?;
        let found = detect(&head, &LIMITS, &outputs, &Pass::new(Mode::Infer))?;
        assert!(found[0].iter().all(|d| d.anchor.unwrap() > 3 && d.bbox.is_proper()));
        assert!(!found[0].is_empty());
        Ok(())
    }
}
