//! FCOS's targets and losses: a point learns the smallest object around it whose size suits its level.

use super::{BoxLoss, FcosConfig};
use crate::detect::retinanet::loss::{logit_of, nothing, ones_at, row_sums, samples, scattered};
use crate::detect::terms::{at_rows, recorded, recorded_overlap, wanted_columns};
use crate::detect::{Losses, Outputs};
use crate::geometry::matching::{Force, match_anchors};
use crate::geometry::{BBox, Object};
use crate::nn::Pass;
use crate::ops::gather::select_rows;
use crate::ops::losses::{IouLoss, bce_with_logits, box_iou_loss, sigmoid_focal, sum_by, weighted_sum};
use crate::ops::maps::reshape;
use crate::ops::select::fetch;
use crate::trace::{Anchors, Assignment, Formula, LossPart, Rule, Terms};
use candle_core::{Device, Result, Tensor};

/// The positive points of a batch and what they learn.
#[derive(Debug, Default)]
struct Positives {
    /// Row in the head's outputs, all images counted through.
    rows: Vec<u32>,
    /// The points' squares.
    points: Vec<BBox>,
    boxes: Vec<BBox>,
    centerness: Vec<f32>,
}

/// Focal loss of all points, box loss and centre-ness entropy of the positives, all divided by the number of positives
/// of the batch, at least 1 (Tian et al., "FCOS", ICCV 2019, §3; torchvision's `FCOSHead.compute_loss`).
pub(super) fn losses(
    config: &FcosConfig,
    points: &Anchors,
    outputs: &Outputs,
    objects: &[Vec<Object>],
    pass: &Pass,
) -> Result<Losses> {
    let logits = outputs.get("head.cls_logits")?;
    let (distances, nesses) = (outputs.get("head.bbox_regression")?, outputs.get("head.bbox_ctrness")?);
    let (images, count, columns) = logits.dims3()?;
    if images != objects.len() || count != points.boxes.len() || columns != config.logits() {
        candle_core::bail!(
            "{} object lists and {} points for logits of shape {:?}",
            objects.len(),
            points.boxes.len(),
            logits.dims()
        );
    }
    let targets: Vec<Vec<i32>> =
        pass.stage("assign", || Ok(objects.iter().map(|objects| assign(config, points, objects)).collect()))?;

    let rows = images * count;
    let mut wanted: Vec<u32> = Vec::new();
    let mut positives = Positives::default();
    for (image, target) in targets.iter().enumerate() {
        for (index, &target) in target.iter().enumerate() {
            let Some(object) = usize::try_from(target).ok().and_then(|t| objects[image].get(t)) else {
                continue;
            };
            let (row, point) = (image * count + index, points.boxes[index]);
            wanted.push((row * columns + logit_of(config.class_layout, object.class, columns)?) as u32);
            positives.rows.push(row as u32);
            positives.points.push(point);
            positives.boxes.push(object.bbox);
            positives.centerness.push(centerness(sides(point.center(), object.bbox)));
        }
    }
    let normalizer = positives.rows.len().max(1) as f32;

    let ones = ones_at(&wanted, (rows, columns), logits.device())?;
    let focal = sigmoid_focal(&reshape(logits, (rows, columns))?, &ones, config.focal_alpha, config.focal_gamma)?;
    let classification = sum_by(&focal, &Tensor::full(1.0 / normalizer, (rows, columns), logits.device())?)?;
    let (box_weights, box_normalizer): (Vec<f32>, f32) = if config.centerness_weighted {
        let total = positives.centerness.iter().sum::<f32>().max(1e-6);
        (positives.centerness.iter().map(|c| c / total).collect(), total)
    } else {
        (vec![1.0 / normalizer; positives.rows.len()], normalizer)
    };
    let kind = match config.box_loss {
        BoxLoss::Giou => (IouLoss::Giou, 1e-7),
        BoxLoss::Iou => (IouLoss::Iou, 1e-6),
    };
    let mut corners = None;
    let (regression, box_values, ness, ness_values) = if positives.rows.is_empty() {
        (nothing(distances)?, Vec::new(), nothing(nesses)?, Vec::new())
    } else {
        let chosen = select_rows(&reshape(distances, (rows, 4))?, &positives.rows)?;
        let boxes = boxes_of(config, &positives.points, &chosen)?;
        let distance = box_iou_loss(&boxes, &positives.boxes, kind.0, kind.1)?;
        corners = Some(boxes);
        let chosen = select_rows(&reshape(nesses, (rows, 1))?, &positives.rows)?;
        let target = Tensor::from_slice(&positives.centerness, (positives.rows.len(), 1), nesses.device())?;
        let entropy = bce_with_logits(&chosen, &target)?;
        let values = match pass.is_probed() {
            true => (fetch(&distance)?, fetch(&entropy)?),
            false => (Vec::new(), Vec::new()),
        };
        let share = vec![1.0 / normalizer; positives.rows.len()];
        (weighted_sum(&distance, box_weights)?, values.0, weighted_sum(&entropy, share)?, values.1)
    };

    if pass.is_probed() {
        let values = [&classification, &regression, &ness].map(|part| part.to_vec0::<f32>());
        let [class_value, box_value, ness_value] = values;
        let formula = Formula::Focal { alpha: config.focal_alpha, gamma: config.focal_gamma };
        let classes = recorded(formula, logits, wanted_columns(&wanted, rows, columns))?;
        let classes = Terms { first_class: Some(config.class_layout.first()), ..classes };
        let mut boxes = recorded_overlap(kind, distances, &positives.rows, corners.as_ref(), &positives.boxes)?;
        let mut box_values = box_values;
        if config.centerness_weighted {
            box_values.iter_mut().zip(&positives.centerness).for_each(|(value, weight)| *value *= weight);
            boxes.weights = scattered(rows, &positives.rows, &positives.centerness);
        }
        let middles = at_rows(rows, 1, &positives.rows, &positives.centerness);
        let middles = recorded(Formula::Sigmoid, &nesses.reshape((rows, 1))?, middles)?;
        let parts = [
            ("classification", class_value?, normalizer, row_sums(&focal)?, classes),
            ("bbox_regression", box_value?, box_normalizer, scattered(rows, &positives.rows, &box_values), boxes),
            ("bbox_ctrness", ness_value?, normalizer, scattered(rows, &positives.rows, &ness_values), middles),
        ];
        for (image, target) in targets.iter().enumerate() {
            let own = image * count..(image + 1) * count;
            pass.trace(image, |t| {
                t.sampling = samples(target, &parts[0].3[own.clone()]);
                t.all_background = true;
                t.assignment = Some(assignment(points, target, &objects[image]));
                t.losses = parts
                    .iter()
                    .map(|(name, value, normalizer, per_anchor, terms)| LossPart {
                        name: (*name).into(),
                        value: *value,
                        normalizer: *normalizer,
                        per_anchor: per_anchor[own.clone()].to_vec(),
                        terms: terms.rows(own.clone()),
                    })
                    .collect();
            });
        }
    }
    Ok(Losses {
        parts: vec![
            ("classification".into(), classification),
            ("bbox_regression".into(), regression),
            ("bbox_ctrness".into(), ness),
        ],
    })
}

/// For each point the smallest object (the first of equals) that it lies in, near whose centre it is, and whose
/// farthest side is within its level's range; −1 where there is none.
pub(super) fn assign(config: &FcosConfig, points: &Anchors, objects: &[Object]) -> Vec<i32> {
    let mut target = vec![-1; points.boxes.len()];
    for (level, run) in points.levels.iter().enumerate() {
        let range = config.range(level);
        let own = points.boxes.iter().zip(&mut target).skip(run.start).take(run.len);
        for (&point, target) in own {
            let mut smallest = f32::INFINITY;
            for (index, object) in objects.iter().enumerate() {
                let area = object.bbox.area();
                if area < smallest && takes(config, point, object.bbox, range) {
                    smallest = area;
                    *target = index as i32;
                }
            }
        }
    }
    target
}

/// Whether an object in `bbox` may be the target of a point at this range of distances.
fn takes(config: &FcosConfig, point: BBox, bbox: BBox, (low, high): (f32, f32)) -> bool {
    let (x, y) = point.center();
    let (center_x, center_y) = bbox.center();
    let near = config.center_radius <= 0.0
        || (x - center_x).abs().max((y - center_y).abs()) < config.center_radius * point.width();
    let sides = sides((x, y), bbox);
    let farthest = sides.into_iter().fold(0.0, f32::max);
    let inside = sides.iter().all(|&side| side > 0.0);
    let in_range =
        if config.inclusive_ranges { farthest >= low && farthest <= high } else { farthest > low && farthest < high };
    near && inside && in_range
}

/// Distances from a point to the left, top, right and bottom side.
fn sides((x, y): (f32, f32), bbox: BBox) -> [f32; 4] {
    [x - bbox.x0, y - bbox.y0, bbox.x1 - x, bbox.y1 - y]
}

/// 1 in the middle, 0 at a side: √(min(l, r) / max(l, r) · min(t, b) / max(t, b)) (paper, eq. 3).
fn centerness([left, top, right, bottom]: [f32; 4]) -> f32 {
    (left.min(right) / left.max(right) * (top.min(bottom) / top.max(bottom))).sqrt()
}

/// Boxes `[M, 4]` at distances `[M, 4]` (left, top, right, bottom) from the points.
fn boxes_of(config: &FcosConfig, points: &[BBox], distances: &Tensor) -> Result<Tensor> {
    let device: &Device = distances.device();
    let mut centers = Vec::with_capacity(points.len() * 4);
    let mut units = Vec::with_capacity(points.len() * 4);
    for point in points {
        let ((x, y), unit) = (point.center(), config.unit(point.width()));
        centers.extend([x, y, x, y]);
        units.extend([-unit, -unit, unit, unit]);
    }
    let centers = Tensor::from_vec(centers, (points.len(), 4), device)?;
    let units = Tensor::from_vec(units, (points.len(), 4), device)?;
    distances.mul(&units)?.add(&centers)
}

/// The IoUs are those of the points' squares: they decide nothing here.
fn assignment(points: &Anchors, target: &[i32], objects: &[Object]) -> Assignment {
    let boxes: Vec<BBox> = objects.iter().map(|o| o.bbox).collect();
    let overlap = match_anchors(&points.boxes, &boxes, 1.0, 1.0, Force::None);
    Assignment {
        target: target.to_vec(),
        rule: target.iter().map(|&t| if t >= 0 { Rule::Center } else { Rule::Background }).collect(),
        iou: overlap.iou,
        best_object: overlap.best_object,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::fcos::from_p3;
    use crate::nn::Mode;
    use crate::trace::terms::tests::check;
    use candle_core::{DType, Var};

    /// A picture of 320×320 through the published network.
    const MAPS: [(usize, usize); 5] = [(40, 40), (20, 20), (10, 10), (5, 5), (3, 3)];

    fn classes() -> Vec<String> {
        vec!["a".to_string(), "b".to_string()]
    }

    fn object(x0: f32, y0: f32, x1: f32, y1: f32, class: u32) -> Object {
        Object { bbox: BBox::new(x0, y0, x1, y1), class, ..Object::default() }
    }

    /// Centres of the positives of each level.
    fn positives(config: &FcosConfig, objects: &[Object]) -> Vec<Vec<(f32, f32, i32)>> {
        let points = config.points_on((320, 320), &MAPS);
        let target = assign(config, &points, objects);
        let mut found = vec![Vec::new(); 5];
        for (index, &target) in target.iter().enumerate().filter(|(_, t)| **t >= 0) {
            let (x, y) = points.boxes[index].center();
            found[points.level_of(index).unwrap_or(0)].push((x, y, target));
        }
        found
    }

    #[test]
    fn small_objects_are_the_finest_levels() {
        // centre (120, 120), radius 1.5 · 8 = 12 exclusive: 112, 120, 128 on both axes, farthest side at most 28
        let found = positives(&FcosConfig::r50(&[]), &[object(100.0, 100.0, 140.0, 140.0, 0)]);
        let expected: Vec<(f32, f32, i32)> =
            [112.0, 120.0, 128.0].iter().flat_map(|&y| [112.0, 120.0, 128.0].map(|x| (x, y, 0))).collect();
        assert_eq!(found[0], expected);
        assert!(found[1..].iter().all(Vec::is_empty));
    }

    #[test]
    fn a_large_object_is_shared_out_by_distance() {
        // centre (200, 200), half a side 100. P3 reaches 64 at most. P4: 192 and 208 are within 24, farthest side 108.
        // P5: 160, 192, 224 are within 48; the farthest side is 140 with a 160 in it, else at most 124, which is P4's.
        let found = positives(&FcosConfig::r50(&[]), &[object(100.0, 100.0, 300.0, 300.0, 0)]);
        let counts: Vec<usize> = found.iter().map(Vec::len).collect();
        assert_eq!(counts, [0, 4, 5, 0, 0]);
        assert!(found[2].iter().all(|&(x, y, _)| x == 160.0 || y == 160.0));
        // without centre sampling P4 takes every point inside whose farthest side is within (64, 128)
        let whole = FcosConfig { center_radius: 0.0, ..FcosConfig::r50(&[]) };
        let found = positives(&whole, &[object(100.0, 100.0, 300.0, 300.0, 0)]);
        // 172 < x, y < 228: 176, 192, 208, 224
        assert_eq!(found[1].len(), 16);
    }

    #[test]
    fn limits_belong_to_no_level_or_to_both() {
        // the point (64, 64) of P3 and P4 is 64 px from the farthest side
        let exactly = [object(32.0, 32.0, 128.0, 96.0, 0)];
        let at = |found: &[(f32, f32, i32)]| found.iter().any(|&(x, y, _)| (x, y) == (64.0, 64.0));
        let config = FcosConfig { center_radius: 0.0, ..FcosConfig::r50(&[]) };
        let found = positives(&config, &exactly);
        assert!(!at(&found[0]) && !at(&found[1]));
        let found = positives(&FcosConfig { inclusive_ranges: true, ..config }, &exactly);
        assert!(at(&found[0]) && at(&found[1]) && !at(&found[2]));
    }

    #[test]
    fn of_two_objects_a_point_learns_the_smaller() {
        let objects = [object(90.0, 90.0, 150.0, 150.0, 0), object(100.0, 100.0, 140.0, 140.0, 1)];
        let found = positives(&FcosConfig::r50(&[]), &objects);
        assert!(found[0].len() == 9 && found[0].iter().all(|p| p.2 == 1));
        // equals go to the first
        let twins = [objects[0].clone(), objects[0].clone()];
        assert!(positives(&FcosConfig::r50(&[]), &twins)[0].iter().all(|p| p.2 == 0));
        // points on a side are not inside
        let edge = positives(&FcosConfig::r50(&[]), &[object(120.0, 120.0, 136.0, 136.0, 0)]);
        assert_eq!(edge[0], [(128.0, 128.0, 0)]);
    }

    #[test]
    fn centerness_by_hand() {
        // √(10 / 30 · 20 / 20)
        assert!((centerness([10.0, 20.0, 30.0, 20.0]) - 0.577_350_3).abs() < 1e-6);
        assert_eq!(centerness([5.0, 7.0, 5.0, 7.0]), 1.0);
    }

    /// Outputs on the nano grid of a 32×32 input: logits of 0, centre-ness of 0, and the same distances everywhere.
    fn outputs(config: &FcosConfig, images: usize, distance: f32) -> Result<(Outputs, Anchors, Var)> {
        let maps = [(4, 4), (2, 2), (1, 1), (1, 1), (1, 1)];
        let points = config.points_on((32, 32), &maps);
        let count = points.boxes.len();
        let zeros = |columns: usize| Tensor::zeros((images, count, columns), DType::F32, &Device::Cpu);
        let distances = Var::from_tensor(&zeros(4)?.affine(1.0, f64::from(distance))?)?;
        let tensors = vec![
            ("head.cls_logits".to_string(), zeros(2)?),
            ("head.bbox_regression".to_string(), distances.as_tensor().clone()),
            ("head.bbox_ctrness".to_string(), zeros(1)?),
        ];
        Ok((Outputs { tensors, maps: maps.to_vec(), input: (32, 32) }, points, distances))
    }

    fn values(losses: &Losses) -> Result<Vec<f32>> {
        losses.parts.iter().map(|(_, part)| part.to_vec0()).collect()
    }

    #[test]
    fn the_parts_by_hand() -> Result<()> {
        // the one point of P3 at (12, 12), in the middle of its object, a distance of 1 stride all around: a perfect box
        let config = FcosConfig { center_radius: 0.5, ..from_p3(&classes()) };
        let (outputs, points, distances) = outputs(&config, 2, 1.0)?;
        let objects = vec![vec![object(4.0, 4.0, 20.0, 20.0, 1)], vec![]];
        let pass = Pass::probed(Mode::Train, 2);
        let losses = losses(&config, &points, &outputs, &objects, &pass)?;
        let found = values(&losses)?;
        // 23 points, 2 images, 2 classes at p = ½: α ln 2 / 4 for the one hit, (1 − α) ln 2 / 4 for the others
        let expected = (0.25 + 91.0 * 0.75) * 2f32.ln() / 4.0;
        assert!((found[0] - expected).abs() < 1e-3, "{found:?} {expected}");
        assert!(found[1].abs() < 1e-5, "{found:?}");
        assert!((found[2] - 2f32.ln()).abs() < 1e-5, "{found:?}");
        let gradients = losses.total()?.backward()?;
        assert!(gradients.get(distances.as_tensor()).is_some());
        let traces = pass.into_traces();
        let rules = traces[0].assignment.clone().unwrap_or_default().rule;
        assert_eq!(rules.iter().filter(|&&r| r == Rule::Center).count(), 1);
        // second row, second column of a map four wide
        assert_eq!((rules[5], traces[0].sampling[0].anchor), (Rule::Center, 5));
        assert_eq!(traces[1].losses.iter().map(|l| l.per_anchor.len()).collect::<Vec<_>>(), [23; 3]);
        Ok(())
    }

    #[test]
    fn a_box_twice_as_wide_costs_its_overlap() -> Result<()> {
        let objects = vec![vec![object(4.0, 4.0, 20.0, 20.0, 0)]];
        // squares of 32 px and 16 px around one point: IoU ¼, and the hull is the larger
        for (box_loss, expected) in [(BoxLoss::Giou, 0.75), (BoxLoss::Iou, 4f32.ln())] {
            for centerness_weighted in [false, true] {
                let nano = from_p3(&classes());
                let config = FcosConfig { center_radius: 0.5, box_loss, centerness_weighted, ..nano };
                let (outputs, points, _) = outputs(&config, 1, 2.0)?;
                let pass = Pass::probed(Mode::Train, 1);
                let found = values(&losses(&config, &points, &outputs, &objects, &pass)?)?;
                assert!((found[1] - expected).abs() < 1e-4, "{box_loss:?} {found:?}");
                // 23 points, one with a box and a centre-ness
                assert_eq!(check(&pass.into_traces()[0]), 25);
            }
        }
        Ok(())
    }

    #[test]
    fn rows_weighted_by_centreness_add_up_to_the_part() -> Result<()> {
        let config = FcosConfig { center_radius: 0.0, centerness_weighted: true, ..from_p3(&classes()) };
        let (outputs, points, _) = outputs(&config, 1, 2.0)?;
        let pass = Pass::probed(Mode::Train, 1);
        let found = values(&losses(&config, &points, &outputs, &[vec![object(2.0, 2.0, 30.0, 22.0, 0)]], &pass)?)?;
        let trace = &pass.into_traces()[0];
        let part = &trace.losses[1];
        let weights: Vec<f32> = part.terms.weights.iter().copied().filter(|w| *w > 0.0).collect();
        assert!(weights.len() > 1 && weights.iter().any(|w| *w < 0.9), "{weights:?}");
        let sum = part.per_anchor.iter().sum::<f32>() / part.normalizer;
        assert!((sum - found[1]).abs() < 1e-5, "{sum} {found:?}");
        assert!(check(trace) > 25);
        Ok(())
    }

    #[test]
    fn without_objects_the_losses_are_finite() -> Result<()> {
        for centerness_weighted in [false, true] {
            let config = FcosConfig { centerness_weighted, ..from_p3(&classes()) };
            let (outputs, points, distances) = outputs(&config, 1, f32::INFINITY)?;
            let losses = losses(&config, &points, &outputs, &[vec![]], &Pass::new(Mode::Train))?;
            let found = values(&losses)?;
            assert!((found[0] - 46.0 * 0.75 * 2f32.ln() / 4.0).abs() < 1e-3, "{found:?}");
            assert_eq!(found[1..], [0.0, 0.0]);
            let gradients = losses.total()?.backward()?;
            let g = gradients.get(distances.as_tensor()).expect("a gradient").flatten_all()?.to_vec1::<f32>()?;
            assert!(g.iter().all(|&g| g == 0.0));
        }
        Ok(())
    }
}
