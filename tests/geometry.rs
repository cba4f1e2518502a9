//! Properties of the geometry floor that must hold for every input.

use boxwright::geometry::BBox;
use boxwright::geometry::coder::BoxCoder;
use boxwright::geometry::iou::{ciou, diou, giou, ioa, iou, pairwise_iou};
use boxwright::geometry::masks::Mask;
use boxwright::geometry::matching::{Force, match_anchors};
use boxwright::geometry::mining::hard_negatives;
use boxwright::geometry::nms::{Decay, class_nms, nms, order_by_score, soft_nms};
use proptest::prelude::*;

/// Boxes of ordinary pictures, now and then flat.
fn bbox() -> impl Strategy<Value = BBox> {
    let side = prop_oneof![9 => 0.5_f32..300.0, 1 => Just(0.0_f32)];
    (-100.0_f32..700.0, -100.0_f32..700.0, side.clone(), side).prop_map(|(x, y, w, h)| BBox::from_xywh(x, y, w, h))
}

/// Boxes with sides that a code can be relative to.
fn solid_box() -> impl Strategy<Value = BBox> {
    (0.0_f32..600.0, 0.0_f32..600.0, 4.0_f32..300.0, 4.0_f32..300.0)
        .prop_map(|(x, y, w, h)| BBox::from_xywh(x, y, w, h))
}

/// Any bits at all, NaN and infinities among them.
fn any_box() -> impl Strategy<Value = BBox> {
    (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>())
        .prop_map(|(a, b, c, d)| BBox::new(f32::from_bits(a), f32::from_bits(b), f32::from_bits(c), f32::from_bits(d)))
}

/// Boxes in a small field, so that they overlap, with their scores and classes. Scores often tie.
fn crowd() -> impl Strategy<Value = (Vec<BBox>, Vec<f32>, Vec<u32>)> {
    let one = ((0_u8..40, 0_u8..40, 1_u8..30, 1_u8..30), 0_u8..50, 0_u32..3);
    prop::collection::vec(one, 0..400).prop_map(|rows| {
        let (mut boxes, mut scores, mut classes) = (Vec::new(), Vec::new(), Vec::new());
        for ((x, y, w, h), score, class) in rows {
            boxes.push(BBox::from_xywh(f32::from(x), f32::from(y), f32::from(w), f32::from(h)));
            scores.push(f32::from(score) / 50.0);
            classes.push(class);
        }
        (boxes, scores, classes)
    })
}

/// Height, width and a row-major bitmap.
fn bitmap() -> impl Strategy<Value = (u32, u32, Vec<u8>)> {
    (1_u32..24, 1_u32..24).prop_flat_map(|(height, width)| {
        let bits = prop::collection::vec(0_u8..2, (height * width) as usize);
        (Just(height), Just(width), bits)
    })
}

proptest! {
    #[test]
    fn iou_is_symmetric_and_in_the_unit_range(a in bbox(), b in bbox()) {
        let value = iou(a, b);
        prop_assert_eq!(value.to_bits(), iou(b, a).to_bits());
        prop_assert!((0.0..=1.0).contains(&value));
        // up to the rounding of the union
        prop_assert!(ioa(a, b) >= value - 1e-6 && ioa(a, b) <= 1.0);
        if a.is_proper() {
            prop_assert_eq!(iou(a, a), 1.0);
        }
        // the generalised forms never exceed it by more than rounding
        for lower in [giou(a, b), diou(a, b), ciou(a, b)] {
            prop_assert!(lower <= value + 1e-5);
        }
    }

    #[test]
    fn overlaps_of_any_bits_are_defined(a in any_box(), b in any_box()) {
        for value in [iou(a, b), ioa(a, b), pairwise_iou(&[a], &[b])[0]] {
            prop_assert!((0.0..=1.0).contains(&value), "{value}");
        }
        for value in [giou(a, b), diou(a, b), ciou(a, b)] {
            prop_assert!(value.is_finite());
        }
        prop_assert_eq!(iou(a, b).to_bits(), iou(b, a).to_bits());
    }

    #[test]
    fn decoding_undoes_encoding(anchor in solid_box(), target in solid_box()) {
        for coder in [BoxCoder::SSD, BoxCoder::RETINA] {
            // the clamp is part of the code: sides up to 62.5 times the anchor's come back, all others do not
            prop_assume!(target.width() < 62.0 * anchor.width() && target.height() < 62.0 * anchor.height());
            let back = coder.decode(anchor, coder.encode(anchor, target));
            let scale = target.width().max(target.height()).max(anchor.width()).max(anchor.height());
            for (a, b) in [(back.x0, target.x0), (back.y0, target.y0), (back.x1, target.x1), (back.y1, target.y1)] {
                prop_assert!((a - b).abs() <= 1e-3 * scale, "{back:?} {target:?}");
            }
        }
    }

    #[test]
    fn suppression_is_idempotent_and_complete((boxes, scores, classes) in crowd(), threshold in 0.0_f32..1.0) {
        let mut record = Vec::new();
        let kept = class_nms(&boxes, &scores, &classes, threshold, Some(&mut record));
        // by falling score, and every box is kept or removed
        prop_assert!(kept.windows(2).all(|k| scores[k[0] as usize] >= scores[k[1] as usize]));
        prop_assert_eq!(kept.len() + record.len(), boxes.len());
        // those kept tolerate each other
        for (place, &i) in kept.iter().enumerate() {
            for &j in &kept[..place] {
                let (i, j) = (i as usize, j as usize);
                prop_assert!(classes[i] != classes[j] || iou(boxes[i], boxes[j]) <= threshold);
            }
        }
        // each removal has its reason
        for &(removed, by, overlap) in &record {
            let (removed, by) = (removed as usize, by as usize);
            prop_assert!(kept.contains(&(by as u32)) && classes[removed] == classes[by]);
            prop_assert!(overlap > threshold && overlap == iou(boxes[removed], boxes[by]));
            prop_assert!(scores[by] >= scores[removed]);
        }
        // again over the kept ones: nothing changes
        let again: (Vec<BBox>, Vec<f32>, Vec<u32>) = (
            kept.iter().map(|&i| boxes[i as usize]).collect(),
            kept.iter().map(|&i| scores[i as usize]).collect(),
            kept.iter().map(|&i| classes[i as usize]).collect(),
        );
        let all: Vec<u32> = (0..kept.len() as u32).collect();
        prop_assert_eq!(class_nms(&again.0, &again.1, &again.2, threshold, None), all);
    }

    #[test]
    fn suppression_does_not_depend_on_the_order_up_to_ties((boxes, _, _) in crowd(), threshold in 0.0_f32..1.0) {
        // distinct scores: without ties the input's order must not matter
        let n = boxes.len();
        let scores: Vec<f32> = (0..n).map(|i| ((i * 7919) % 100_003) as f32 / 100_003.0).collect();
        let forward: Vec<BBox> = nms(&boxes, &scores, threshold).iter().map(|&i| boxes[i as usize]).collect();
        let (mut boxes, mut scores) = (boxes, scores);
        boxes.reverse();
        scores.reverse();
        let backward: Vec<BBox> = nms(&boxes, &scores, threshold).iter().map(|&i| boxes[i as usize]).collect();
        prop_assert_eq!(forward, backward);
    }

    #[test]
    fn one_class_at_a_time_gives_the_same((boxes, scores, classes) in crowd(), threshold in 0.0_f32..1.0) {
        let together = class_nms(&boxes, &scores, &classes, threshold, None);
        for class in 0..3 {
            let members: Vec<u32> = (0..boxes.len() as u32).filter(|&i| classes[i as usize] == class).collect();
            let own_boxes: Vec<BBox> = members.iter().map(|&i| boxes[i as usize]).collect();
            let own_scores: Vec<f32> = members.iter().map(|&i| scores[i as usize]).collect();
            let alone: Vec<u32> =
                nms(&own_boxes, &own_scores, threshold).iter().map(|&i| members[i as usize]).collect();
            let of_class: Vec<u32> = together.iter().copied().filter(|&i| classes[i as usize] == class).collect();
            prop_assert_eq!(alone, of_class);
        }
    }

    #[test]
    fn soft_suppression_never_raises_a_score((boxes, scores, _) in crowd(), threshold in 0.1_f32..0.9) {
        for decay in [Decay::Linear, Decay::Gaussian { sigma: 0.5 }, Decay::Naive] {
            let found = soft_nms(&boxes, &scores, threshold, decay, 0.001);
            prop_assert!(found.iter().all(|&(i, score)| score <= scores[i as usize]));
            prop_assert!(found.windows(2).all(|pair| pair[0].1 >= pair[1].1));
            let mut indices: Vec<u32> = found.iter().map(|&(i, _)| i).collect();
            indices.sort_unstable();
            indices.dedup();
            prop_assert_eq!(indices.len(), found.len());
        }
    }

    #[test]
    fn the_order_is_a_permutation_whatever_the_bits(bits in prop::collection::vec(any::<u32>(), 0..60)) {
        let scores: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
        let order = order_by_score(&scores);
        for pair in order.windows(2) {
            let (a, b) = (scores[pair[0] as usize], scores[pair[1] as usize]);
            prop_assert!(b.is_nan() || a >= b);
        }
        let mut sorted = order;
        sorted.sort_unstable();
        prop_assert_eq!(sorted, (0..scores.len() as u32).collect::<Vec<u32>>());
    }

    #[test]
    fn masks_survive_their_forms((height, width, bits) in bitmap()) {
        let mask = Mask::from_bitmap(height, width, &bits).unwrap();
        prop_assert!(mask.check().is_ok());
        prop_assert_eq!(mask.to_bitmap().unwrap(), bits.clone());
        prop_assert_eq!(&Mask::from_coco_string(&mask.to_coco_string(), height, width).unwrap(), &mask);
        prop_assert_eq!(&mask.flip_horizontal().flip_horizontal(), &mask);
        prop_assert_eq!(&mask.merge(&mask).unwrap(), &mask);
        prop_assert_eq!(mask.area(), bits.iter().map(|&b| u64::from(b)).sum::<u64>());
        prop_assert_eq!(mask.intersection(&mask), mask.area());
        let bounds = mask.bbox();
        prop_assert!(bounds.area() >= mask.area() as f32 && bounds.area() <= (height * width) as f32);
    }

    #[test]
    fn no_string_makes_the_mask_reader_panic(text in ".{0,40}", height in any::<u32>(), width in any::<u32>()) {
        if let Ok(mask) = Mask::from_coco_string(&text, height, width) {
            prop_assert!(mask.check().is_ok());
        }
        // sizes small enough to reach the digits
        let _ = Mask::from_coco_string(&text, height % 99, width % 99);
    }

    #[test]
    fn polygons_stay_in_the_picture(
        corners in prop::collection::vec((-40.0_f64..80.0, -40.0_f64..80.0), 3..12),
        height in 1_u32..40,
        width in 1_u32..40,
    ) {
        let polygon: Vec<f64> = corners.iter().flat_map(|&(x, y)| [x, y]).collect();
        let mask = Mask::from_polygons(&[polygon], height, width).unwrap();
        prop_assert!(mask.check().is_ok());
        // no pixel further out than the corners and the rounding to fifths
        let (x0, x1) = corners.iter().fold((f64::MAX, f64::MIN), |(low, high), &(x, _)| (low.min(x), high.max(x)));
        let bounds = mask.bbox();
        prop_assert!(mask.area() == 0 || (f64::from(bounds.x0) >= x0 - 1.0 && f64::from(bounds.x1) <= x1 + 1.0));
    }

    #[test]
    fn matching_keeps_its_promises(
        anchors in prop::collection::vec(bbox(), 1..120),
        objects in prop::collection::vec(bbox(), 0..12),
        (negative, gap) in (0.1_f32..0.6, 0.0_f32..0.3),
    ) {
        let positive = negative + gap;
        for force in [Force::None, Force::BestAnchor, Force::AllTies, Force::Bipartite] {
            let m = match_anchors(&anchors, &objects, positive, negative, force);
            prop_assert_eq!(m.target.len(), anchors.len());
            for (i, &anchor) in anchors.iter().enumerate() {
                let best = objects.iter().map(|&o| iou(o, anchor)).fold(0.0, f32::max);
                prop_assert_eq!(m.iou[i], best);
                prop_assert!(m.target[i] >= -2 && m.target[i] < objects.len() as i32);
                if !m.forced[i] {
                    let expected = match best {
                        v if v < negative || objects.is_empty() => -1,
                        v if v < positive => -2,
                        _ => m.best_object[i],
                    };
                    prop_assert_eq!(m.target[i], expected);
                } else {
                    prop_assert!(force != Force::None && m.target[i] >= 0);
                }
            }
            // an object without rivals gets an anchor if it overlaps any
            if force != Force::None && objects.len() == 1 {
                let best = anchors.iter().map(|&a| iou(a, objects[0])).fold(0.0, f32::max);
                prop_assert!(best <= 1e-6 || m.target.contains(&0));
            }
        }
    }

    #[test]
    fn hard_negatives_are_the_hardest(
        rows in prop::collection::vec((0_u8..30, prop::bool::weighted(0.2)), 0..200),
        ratio in 0.0_f32..5.0,
    ) {
        let loss: Vec<f32> = rows.iter().map(|&(l, _)| f32::from(l)).collect();
        let positive: Vec<bool> = rows.iter().map(|&(_, p)| p).collect();
        let positives = positive.iter().filter(|&&p| p).count();
        let chosen = hard_negatives(&loss, &positive, ratio, None);
        let wanted = (f64::from(ratio) * positives as f64) as usize;
        prop_assert_eq!(chosen.len(), wanted.min(rows.len() - positives));
        let falling = chosen.windows(2).all(|c| {
            let (a, b) = (c[0] as usize, c[1] as usize);
            loss[a] > loss[b] || (loss[a] == loss[b] && a < b)
        });
        prop_assert!(falling);
        if let Some(&last) = chosen.last() {
            let left_out = (0..rows.len()).filter(|&i| !positive[i] && !chosen.contains(&(i as u32)));
            for i in left_out {
                prop_assert!(loss[i] <= loss[last as usize]);
            }
        }
    }
}
