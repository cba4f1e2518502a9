//! RetinaNet's detections: the best of each level, decoded and suppressed (torchvision's `postprocess_detections`).

use super::RetinanetConfig;
use crate::detect::Outputs;
use crate::detect::suppress::{Candidates, Limits, likely, suppress};
use crate::geometry::Detection;
use crate::nn::Pass;
use crate::ops::select::fetch_rows;
use crate::trace::Anchors;
use candle_core::Result;

/// Detections of each image in input pixels, best first.
pub(super) fn detect(
    config: &RetinanetConfig,
    anchors: &Anchors,
    outputs: &Outputs,
    pass: &Pass,
) -> Result<Vec<Vec<Detection>>> {
    let (height, width) = (outputs.input.0 as f32, outputs.input.1 as f32);
    let logits = outputs.get("head.cls_logits")?.detach();
    let deltas = outputs.get("head.bbox_regression")?.detach();
    let (images, count, columns) = logits.dims3()?;
    if count != anchors.boxes.len() || columns != config.logits() {
        candle_core::bail!("{} anchors for logits of shape {:?}", anchors.boxes.len(), logits.dims());
    }
    let limits = Limits {
        score_threshold: config.score_threshold,
        top_k_per_class: config.top_k_per_level,
        nms_threshold: config.nms_threshold,
        max_detections: config.max_detections,
    };
    let (coder, first) = (config.coder(), config.class_layout.first());
    let floor = logit_floor(config.score_threshold);
    let mut all = Vec::with_capacity(images);
    for image in 0..images {
        let candidates = pass.stage("decode", || {
            let logits = logits.get(image)?;
            let (mut chosen, mut scored_classes) = (Vec::new(), Vec::new());
            for level in &anchors.levels {
                // Anchors and classes compete in one list.
                let likely = likely(&logits, level.start..level.start + level.len, floor, first)?;
                let scored = likely.into_iter().map(|(place, logit)| (place, sigmoid(logit)));
                for (place, score) in limits.best_of(scored) {
                    let (cell, column) = (place as usize / columns, place as usize % columns);
                    chosen.push((level.start + cell) as u32);
                    scored_classes.push(((column - first) as u32, score));
                }
            }
            let deltas = fetch_rows(&deltas.get(image)?, &chosen)?;
            let codes = deltas.chunks_exact(4);
            let decoded = chosen.into_iter().zip(scored_classes).zip(codes).map(|((anchor, (class, score)), d)| {
                let bbox = coder.decode(anchors.boxes[anchor as usize], [d[0], d[1], d[2], d[3]]).clip(width, height);
                Detection { bbox, class, score, anchor: Some(anchor), mask: None }
            });
            Ok(decoded.collect::<Candidates>())
        })?;
        all.push(pass.stage("suppress", || Ok(suppress(candidates, &limits, image, pass)))?);
    }
    Ok(all)
}

/// 1 / (1 + e^−x).
pub(in crate::detect) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// A logit below which no probability is above `threshold`: most logits need no exponential. A little low, so that
/// rounding loses none.
pub(in crate::detect) fn logit_floor(threshold: f32) -> f32 {
    if threshold <= 0.0 {
        return f32::NEG_INFINITY;
    }
    (threshold / (1.0 - threshold)).ln() - 1e-3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::retinanet::{ClassLayout, nine_anchors};
    use crate::geometry::BBox;
    use crate::nn::Mode;
    use candle_core::{Device, Tensor};

    const MAPS: [(usize, usize); 5] = [(2, 2), (1, 1), (1, 1), (1, 1), (1, 1)];
    /// 4 cells and 4 single ones, 9 anchors each.
    const COUNT: usize = 72;

    fn config(class_layout: ClassLayout) -> RetinanetConfig {
        let classes = vec!["a".to_string(), "b".to_string()];
        RetinanetConfig { class_layout, ..nine_anchors(&classes) }
    }

    /// Head outputs for an input of 16×16: logits of −9 and deltas of 0 but for these (row, column, value).
    fn outputs(columns: usize, logits: &[(usize, usize, f32)], deltas: &[(usize, usize, f32)]) -> Result<Outputs> {
        let table = |columns: usize, base: f32, changes: &[(usize, usize, f32)]| {
            let mut values = vec![base; COUNT * columns];
            for &(row, column, value) in changes {
                values[row * columns + column] = value;
            }
            Tensor::from_vec(values, (1, COUNT, columns), &Device::Cpu)
        };
        let tensors = vec![
            ("head.cls_logits".to_string(), table(columns, -9.0, logits)?),
            ("head.bbox_regression".to_string(), table(4, 0.0, deltas)?),
        ];
        Ok(Outputs { tensors, maps: MAPS.to_vec(), input: (16, 16) })
    }

    fn run(config: &RetinanetConfig, outputs: &Outputs) -> Result<Vec<Detection>> {
        let anchors = config.anchors_on(outputs.input, &outputs.maps);
        Ok(detect(config, &anchors, outputs, &Pass::new(Mode::Infer))?.remove(0))
    }

    #[test]
    fn one_high_logit_is_one_decoded_box() -> Result<()> {
        for (layout, columns, column) in [(ClassLayout::Contiguous, 2, 1), (ClassLayout::UnusedFirst, 3, 2)] {
            // row 30: cell 3 (row 1, column 1) and its fourth anchor, the square of 8 px around (12, 12); dx of 5 moves
            // it by 5 · 0.1 · 8 = 4 px, past the right edge
            let found = run(&config(layout), &outputs(columns, &[(30, column, 2.0)], &[(30, 0, 5.0)])?)?;
            assert_eq!(found.len(), 1);
            assert_eq!((found[0].class, found[0].anchor), (1, Some(30)));
            assert!((found[0].score - 0.880_797).abs() < 1e-6);
            let expected = BBox::new(12.0, 8.0, 16.0, 16.0);
            let b = found[0].bbox;
            let errors = [b.x0 - expected.x0, b.y0 - expected.y0, b.x1 - expected.x1, b.y1 - expected.y1];
            assert!(errors.iter().all(|e| e.abs() < 1e-5), "{b:?}");
        }
        Ok(())
    }

    #[test]
    fn the_unused_logit_is_never_reported() -> Result<()> {
        let found = run(&config(ClassLayout::UnusedFirst), &outputs(3, &[(3, 0, 9.0), (5, 1, 0.0)], &[])?)?;
        assert_eq!(found.iter().map(|d| (d.anchor, d.class)).collect::<Vec<_>>(), [(Some(5), 0)]);
        Ok(())
    }

    #[test]
    fn each_level_keeps_its_own_best_and_a_class_suppresses_itself_alone() -> Result<()> {
        let limited = RetinanetConfig { top_k_per_level: 2, ..config(ClassLayout::Contiguous) };
        // rows 0 to 35 are level 0, row 36 on level 1; rows 3 and 4 are squares of 8 and 10 px around one cell
        let logits = [(3, 0, 3.0), (3, 1, 2.0), (30, 0, 1.0), (39, 0, 0.5)];
        let found = run(&limited, &outputs(2, &logits, &[])?)?;
        let kept: Vec<(Option<u32>, u32)> = found.iter().map(|d| (d.anchor, d.class)).collect();
        assert_eq!(kept, [(Some(3), 0), (Some(3), 1), (Some(39), 0)]);
        // IoU 8² / 10.08² = 0.63, and more once the larger is clipped
        let found = run(&config(ClassLayout::Contiguous), &outputs(2, &[(3, 0, 1.0), (4, 0, 2.0)], &[])?)?;
        assert_eq!(found.iter().map(|d| d.anchor).collect::<Vec<_>>(), [Some(4)]);
        Ok(())
    }

    #[test]
    fn the_floor_drops_nothing_that_the_threshold_keeps() {
        for threshold in [1e-4f32, 0.01, 0.05, 0.2, 0.5, 0.9, 0.999] {
            let exact = (f64::from(threshold) / (1.0 - f64::from(threshold))).ln() as f32;
            for step in -40..40 {
                let logit = exact + step as f32 * 1e-4;
                assert!(sigmoid(logit) <= threshold || logit > logit_floor(threshold), "{threshold} {logit}");
            }
        }
        assert_eq!(logit_floor(0.0), f32::NEG_INFINITY);
        assert!(sigmoid(-200.0) == 0.0 && sigmoid(200.0) == 1.0);
    }
}
