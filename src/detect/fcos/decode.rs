//! FCOS's detections: class probability and centre-ness make the score; the best of each level, decoded and suppressed.

use super::{FcosConfig, ScoreRule};
use crate::detect::Outputs;
use crate::detect::retinanet::decode::{logit_floor, sigmoid};
use crate::detect::suppress::{Candidates, Limits, likely, suppress};
use crate::geometry::{BBox, Detection};
use crate::nn::Pass;
use crate::ops::select::{fetch, fetch_rows};
use crate::trace::Anchors;
use candle_core::Result;

/// Detections of each image in input pixels, best first (torchvision's `FCOS.postprocess_detections`).
pub(super) fn detect(
    config: &FcosConfig,
    points: &Anchors,
    outputs: &Outputs,
    pass: &Pass,
) -> Result<Vec<Vec<Detection>>> {
    let (height, width) = (outputs.input.0 as f32, outputs.input.1 as f32);
    let logits = outputs.get("head.cls_logits")?.detach();
    let distances = outputs.get("head.bbox_regression")?.detach();
    let nesses = outputs.get("head.bbox_ctrness")?.detach();
    let (images, count, columns) = logits.dims3()?;
    if count != points.boxes.len() || columns != config.logits() {
        candle_core::bail!("{} points for logits of shape {:?}", points.boxes.len(), logits.dims());
    }
    let limits = Limits {
        score_threshold: config.score_threshold,
        top_k_per_class: config.top_k_per_level,
        nms_threshold: config.nms_threshold,
        max_detections: config.max_detections,
    };
    let first = config.class_layout.first();
    // Centre-ness only lowers a score: a root above t needs a class probability above t².
    let floor = match config.score {
        ScoreRule::GeometricMean => logit_floor(config.score_threshold.max(0.0).powi(2)),
        ScoreRule::Product => logit_floor(config.score_threshold),
    };
    let mut all = Vec::with_capacity(images);
    for image in 0..images {
        let candidates = pass.stage("decode", || {
            let logits = logits.get(image)?;
            let centered: Vec<f32> = fetch(&nesses.get(image)?)?.into_iter().map(sigmoid).collect();
            let (mut chosen, mut scored_classes) = (Vec::new(), Vec::new());
            for level in &points.levels {
                // Points and classes compete in one list.
                let likely = likely(&logits, level.start..level.start + level.len, floor, first)?;
                let ranks = likely.into_iter().map(|(place, logit)| match config.score {
                    ScoreRule::GeometricMean => {
                        (place, (sigmoid(logit) * centered[level.start + place / columns]).sqrt())
                    }
                    ScoreRule::Product => (place, sigmoid(logit)),
                });
                for (place, rank) in limits.best_of(ranks) {
                    let (cell, column) = (place as usize / columns, place as usize % columns);
                    let index = level.start + cell;
                    let score = match config.score {
                        ScoreRule::GeometricMean => rank,
                        ScoreRule::Product => rank * centered[index],
                    };
                    chosen.push(index as u32);
                    scored_classes.push(((column - first) as u32, score));
                }
            }
            let distances = fetch_rows(&distances.get(image)?, &chosen)?;
            let codes = distances.chunks_exact(4);
            let decoded = chosen.into_iter().zip(scored_classes).zip(codes).map(|((index, (class, score)), d)| {
                let point = points.boxes[index as usize];
                let bbox = decode(point, [d[0], d[1], d[2], d[3]], config.unit(point.width())).clip(width, height);
                Detection { bbox, class, score, anchor: Some(index), mask: None }
            });
            Ok(decoded.collect::<Candidates>())
        })?;
        all.push(pass.stage("suppress", || Ok(suppress(candidates, &limits, image, pass)))?);
    }
    Ok(all)
}

/// The box at these distances (left, top, right, bottom), in `unit` pixels, from the middle of `point`.
fn decode(point: BBox, [left, top, right, bottom]: [f32; 4], unit: f32) -> BBox {
    let (x, y) = point.center();
    BBox::new(x - left * unit, y - top * unit, x + right * unit, y + bottom * unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::fcos::{DistanceCode, from_p3};
    use crate::detect::retinanet::ClassLayout;
    use crate::nn::Mode;
    use candle_core::{Device, Tensor};

    const MAPS: [(usize, usize); 5] = [(4, 4), (2, 2), (1, 1), (1, 1), (1, 1)];
    const COUNT: usize = 23;

    fn config(score: ScoreRule) -> FcosConfig {
        let classes = vec!["a".to_string(), "b".to_string()];
        FcosConfig { score, ..from_p3(&classes) }
    }

    /// Head outputs for 32×32: logits of −9 but for these (row, column, value), distances of 1, centre-ness of `ness`
    /// but for these (row, value).
    fn outputs(columns: usize, logits: &[(usize, usize, f32)], ness: f32, nesses: &[(usize, f32)]) -> Result<Outputs> {
        let mut logit_values = vec![-9.0f32; COUNT * columns];
        for &(row, column, value) in logits {
            logit_values[row * columns + column] = value;
        }
        let mut ness_values = vec![ness; COUNT];
        for &(row, value) in nesses {
            ness_values[row] = value;
        }
        let tensors = vec![
            ("head.cls_logits".to_string(), Tensor::from_vec(logit_values, (1, COUNT, columns), &Device::Cpu)?),
            (
                "head.bbox_regression".to_string(),
                Tensor::from_vec(vec![1.0f32; COUNT * 4], (1, COUNT, 4), &Device::Cpu)?,
            ),
            ("head.bbox_ctrness".to_string(), Tensor::from_vec(ness_values, (1, COUNT, 1), &Device::Cpu)?),
        ];
        Ok(Outputs { tensors, maps: MAPS.to_vec(), input: (32, 32) })
    }

    fn run(config: &FcosConfig, outputs: &Outputs) -> Result<Vec<Detection>> {
        let points = config.points_on(outputs.input, &outputs.maps);
        Ok(detect(config, &points, outputs, &Pass::new(Mode::Infer))?.remove(0))
    }

    #[test]
    fn distances_are_strides_around_the_point() {
        let point = BBox::new(12.0, 20.0, 20.0, 28.0);
        assert_eq!(decode(point, [1.0, 2.0, 3.0, 4.0], 8.0), BBox::new(8.0, 8.0, 40.0, 56.0));
        let config = FcosConfig { distance_code: DistanceCode::PixelExp, ..config(ScoreRule::Product) };
        assert_eq!(decode(point, [1.0; 4], config.unit(8.0)), BBox::new(15.0, 23.0, 17.0, 25.0));
    }

    #[test]
    fn the_two_rules_score_alike_but_for_the_root() -> Result<()> {
        // σ(2) = 0.880797, σ(1) = 0.731059: product 0.643914, root 0.802443. Row 5 is the point (12, 12).
        for (rule, expected) in [(ScoreRule::GeometricMean, 0.802_443), (ScoreRule::Product, 0.643_914)] {
            let found = run(&config(rule), &outputs(2, &[(5, 1, 2.0)], 1.0, &[])?)?;
            assert_eq!(found.len(), 1);
            assert!((found[0].score - expected).abs() < 1e-5, "{}", found[0].score);
            assert_eq!((found[0].class, found[0].anchor), (1, Some(5)));
            assert_eq!(found[0].bbox, BBox::new(4.0, 4.0, 20.0, 20.0));
        }
        Ok(())
    }

    #[test]
    fn a_point_off_centre_falls_below_the_threshold_by_one_rule_alone() -> Result<()> {
        // σ(0) · σ(−4) = 0.5 · 0.018 = 0.009, root 0.095: below 0.2; the class probability alone is above it
        let off = outputs(2, &[(5, 0, 0.0)], 0.0, &[(5, -4.0)])?;
        assert!(run(&config(ScoreRule::GeometricMean), &off)?.is_empty());
        assert_eq!(run(&config(ScoreRule::Product), &off)?.len(), 1);
        Ok(())
    }

    #[test]
    fn the_unused_logit_and_numbers_that_are_none_are_never_reported() -> Result<()> {
        let config = FcosConfig { class_layout: ClassLayout::UnusedFirst, ..config(ScoreRule::GeometricMean) };
        let logits = [(0, 0, 9.0), (5, 1, 1.0), (6, 2, f32::NAN)];
        let found = run(&config, &outputs(3, &logits, 1.0, &[])?)?;
        assert_eq!(found.iter().map(|d| (d.anchor, d.class)).collect::<Vec<_>>(), [(Some(5), 0)]);
        Ok(())
    }
}
