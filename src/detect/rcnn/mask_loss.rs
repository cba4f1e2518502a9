//! The mask loss: cross-entropy of the object's channel inside each positive RoI against its piece of the mask.

use super::box_loss::part_name;
use super::config::{MaskConfig, MaskTargets, RcnnConfig};
use super::mask_head::MaskHead;
use super::regions::{Roi, pool, pool_regions};
use super::rpn_loss::{equally_weighted, read_when, zero};
use super::sample::{Sample, Sampled};
use crate::detect::terms::at_rows;
use crate::geometry::{BBox, Mask, Object};
use crate::nn::Pass;
use crate::ops::gather::select_rows;
use crate::ops::losses::bce_with_logits;
use crate::ops::roi::roi_align;
use crate::trace::{Formula, LossPart, Terms};
use candle_core::{Device, Result, Tensor};
use std::collections::BTreeMap;

/// torchvision's name of the part.
const MASK: &str = "loss_mask";

/// A positive RoI whose object has a mask.
struct Positive {
    roi: Roi,
    object: usize,
    /// Its place among the RoIs sampled in its image.
    place: usize,
}

/// The mask part of stage `stage`, averaged over cells and positive RoIs. Objects without a mask take no part.
pub(super) fn loss(
    config: &RcnnConfig,
    mask: &MaskConfig,
    stage: usize,
    head: &MaskHead,
    levels: &[Tensor],
    sample: &Sample,
    objects: &[Vec<Object>],
    pass: &Pass,
) -> Result<(String, Tensor)> {
    let several = mask.mask_per_stage && config.is_cascade();
    let name = if several { part_name(config, stage, MASK) } else { MASK.to_string() };
    let positives = positives(&sample.images, objects);
    let there = match &sample.there {
        Some((rois, batch)) => {
            let (columns, rule) = (config.columns(), config.levels_of_rois());
            rois.with_masks(&batch.objects, &columns, config.mask_channels(), &rule)?.map(|own| (own, batch))
        }
        None => None,
    };
    let Some(like) = levels.first() else { return Ok((name, Tensor::new(0f32, &Device::Cpu)?)) };
    let (chosen, order, targets) = if let Some((own, batch)) = there {
        let masks = head.forward(&pool_regions(config, levels, &own.regions, mask.mask_pooled)?, pass)?;
        let majority = mask.mask_targets == MaskTargets::Majority;
        let targets = own.pieces(&batch.masks, masks.side()?, majority)?;
        (masks.of_places(&own.places)?, (0..targets.dim(0)? as u32).collect(), targets)
    } else if positives.is_empty() || sample.there.is_some() {
        return Ok((name, zero(like)?));
    } else {
        let rois: Vec<Roi> = positives.iter().map(|p| p.roi).collect();
        let masks = head.forward(&pool(config, levels, &rois, mask.mask_pooled)?, pass)?;
        let channels: Vec<usize> =
            positives.iter().map(|p| config.column(objects[p.roi.0 as usize][p.object].class as usize)).collect();
        let (order, targets) = targets(mask.mask_targets, &positives, objects, masks.side()?)?;
        let targets = Tensor::from_slice(&targets, (order.len(), targets.len() / order.len()), like.device())?;
        (select_rows(&masks.of_channels(&channels)?, &order)?, order, targets)
    };
    let entropy = bce_with_logits(&chosen, &targets)?;
    let (count, cells) = entropy.dims2()?;
    let weight = config.stage(stage).loss_weight;
    let normalizer = (count * cells) as f32;
    let values = read_when(pass.is_probed(), &entropy)?;
    let part = equally_weighted(&entropy, weight / normalizer)?;
    if pass.is_probed() {
        let value = part.to_vec0::<f32>()?;
        let (answers, targets) = (read_when(true, &chosen)?, read_when(true, &targets)?);
        for (image, of_image) in sample.images.iter().enumerate() {
            let mut per_anchor = vec![0.0; of_image.boxes.len()];
            let (mut places, mut predicted, mut target) = (Vec::new(), Vec::new(), Vec::new());
            for (index, &row) in order.iter().enumerate() {
                let (positive, own) = (&positives[row as usize], index * cells..(index + 1) * cells);
                if positive.roi.0 as usize == image {
                    per_anchor[positive.place] = values[own.clone()].iter().sum();
                    places.push(positive.place as u32);
                    predicted.extend_from_slice(&answers[own.clone()]);
                    target.extend_from_slice(&targets[own]);
                }
            }
            let table = |values: &[f32]| at_rows(per_anchor.len(), cells, &places, values);
            let (predicted, target) = (table(&predicted), table(&target));
            let terms = Terms { formula: Formula::Sigmoid, stride: cells, predicted, target, ..Terms::default() };
            let part = LossPart { name: name.clone(), value, normalizer, per_anchor, terms };
            pass.trace(image, |t| t.losses.push(part));
        }
    }
    Ok((name, part))
}

fn positives(sampled: &[Sampled], objects: &[Vec<Object>]) -> Vec<Positive> {
    let mut positives = Vec::new();
    for (image, (of_image, objects)) in sampled.iter().zip(objects).enumerate() {
        for (place, (&bbox, &target)) in of_image.boxes.iter().zip(&of_image.target).enumerate() {
            let Ok(object) = usize::try_from(target) else {
                continue;
            };
            let mask = objects.get(object).and_then(|o| o.mask.as_ref());
            if mask.is_some_and(|mask| mask.height > 0 && mask.width > 0) {
                positives.push(Positive { roi: (image as u32, bbox), object, place });
            }
        }
    }
    positives
}

/// Positives grouped by object, and their targets `side` × `side` in that order: an object's mask is laid out once,
/// however many RoIs are on it.
fn targets(
    kind: MaskTargets,
    positives: &[Positive],
    objects: &[Vec<Object>],
    side: usize,
) -> Result<(Vec<u32>, Vec<f32>)> {
    let mut groups: BTreeMap<(u32, usize), Vec<usize>> = BTreeMap::new();
    for (row, positive) in positives.iter().enumerate() {
        groups.entry((positive.roi.0, positive.object)).or_default().push(row);
    }
    let mut order = Vec::with_capacity(positives.len());
    let mut values = Vec::with_capacity(positives.len() * side * side);
    for ((image, object), rows) in groups {
        let Some(mask) = objects[image as usize][object].mask.as_ref() else {
            candle_core::bail!("object {object} of image {image} has no mask");
        };
        let boxes: Vec<BBox> = rows.iter().map(|&row| positives[row].roi.1).collect();
        values.extend(pieces(kind, mask, &boxes, side)?);
        order.extend(rows.iter().map(|&row| row as u32));
    }
    Ok((order, values))
}

/// The mask inside each box, `side` × `side` cells.
fn pieces(kind: MaskTargets, mask: &Mask, boxes: &[BBox], side: usize) -> Result<Vec<f32>> {
    let bitmap = match mask.to_bitmap() {
        Ok(bitmap) => bitmap,
        Err(error) => candle_core::bail!("{error}"),
    };
    let shape = (1, 1, mask.height as usize, mask.width as usize);
    let plane = Tensor::from_vec(bitmap.into_iter().map(f32::from).collect::<Vec<f32>>(), shape, &Device::Cpu)?;
    let rois: Vec<Roi> = boxes.iter().map(|&bbox| (0, bbox)).collect();
    let shifted = kind == MaskTargets::Majority;
    let cells: Vec<f32> = roi_align(&plane, &rois, 1.0, (side, side), 0, shifted)?.flatten_all()?.to_vec1()?;
    Ok(match kind {
        MaskTargets::Covered => cells,
        MaskTargets::Majority => cells.into_iter().map(|cell| if cell >= 0.5 { 1.0 } else { 0.0 }).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Mode, Params};
    use candle_core::DType;

    /// A 16 × 16 picture whose left half belongs to the object.
    fn left_half() -> Mask {
        Mask::from_counts(16, 16, vec![0, 128, 128]).unwrap()
    }

    #[test]
    fn pieces_of_a_half_covered_picture() -> Result<()> {
        let inside = BBox::new(2.0, 2.0, 6.0, 6.0);
        let across = BBox::new(4.0, 4.0, 12.0, 12.0);
        let soft = pieces(MaskTargets::Covered, &left_half(), &[inside, across], 2)?;
        assert_eq!(soft[..4], [1.0; 4]);
        // bins of four samples at 4.5, 5.5, 6.5, 7.5 and 8.5 …: pixel 7 is inside, 8 is not, so 7.5 reads one half
        assert_eq!(soft[4..], [0.875, 0.0, 0.875, 0.0]);
        let hard = pieces(MaskTargets::Majority, &left_half(), &[inside, across], 2)?;
        assert_eq!(hard, [1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.0]);
        Ok(())
    }

    #[test]
    fn targets_come_grouped_by_object_and_rois_without_a_mask_are_left_out() -> Result<()> {
        let masked = Object { mask: Some(left_half()), ..Object::default() };
        let objects = [vec![masked.clone(), Object::default(), masked]];
        let bbox = BBox::new(2.0, 2.0, 6.0, 6.0);
        let sampled = [Sampled {
            boxes: vec![bbox; 5],
            target: vec![2, 0, 1, 2, -1],
            parent: vec![0; 5],
            from_object: vec![false; 5],
        }];
        let found = positives(&sampled, &objects);
        assert_eq!(found.iter().map(|p| (p.object, p.place)).collect::<Vec<_>>(), [(2, 0), (0, 1), (2, 3)]);
        let (order, values) = targets(MaskTargets::Covered, &found, &objects, 2)?;
        assert_eq!((order, values.len()), (vec![1, 0, 2], 12));
        Ok(())
    }

    #[test]
    fn the_loss_reaches_the_head_and_is_zero_without_positives() -> Result<()> {
        let config = RcnnConfig::mask_nano(&["a".to_string()]);
        let Some(mask) = config.mask else {
            candle_core::bail!("no mask branch");
        };
        let params = Params::new(&Device::Cpu, 1);
        let head = MaskHead::new(&params.root(), &config, &mask, None)?;
        let mut levels = Vec::new();
        for side in [16usize, 8, 4, 2] {
            levels.push(Tensor::ones((1, 40, side, side), DType::F32, &Device::Cpu)?);
        }
        let objects = [vec![Object { mask: Some(left_half()), ..Object::default() }]];
        let run = |target: i32, pass: &Pass| {
            let sampled = Sampled {
                boxes: vec![BBox::new(2.0, 2.0, 12.0, 12.0)],
                target: vec![target],
                parent: vec![0],
                from_object: vec![false],
            };
            let sample = Sample { images: vec![sampled], there: None };
            loss(&config, &mask, 0, &head, &levels, &sample, &objects, pass)
        };
        let pass = Pass::probed(Mode::Frozen, 1);
        let (name, value) = run(0, &pass)?;
        assert_eq!(name, "loss_mask");
        let gradients = value.backward()?;
        let reached =
            params.get("mask_predictor.conv5_mask.weight").is_some_and(|p| gradients.get(p.var.as_tensor()).is_some());
        assert!(reached && value.to_vec0::<f32>()? > 0.0);
        let trace = pass.into_traces().remove(0);
        let part = &trace.losses[0];
        assert!((part.per_anchor[0] / part.normalizer / part.value - 1.0).abs() < 1e-4);
        // a sum over the cells, so as close as one in f32 is
        let again = part.terms.loss(0).unwrap_or_default();
        assert!((again / part.per_anchor[0] - 1.0).abs() < 1e-5, "{again}");
        assert_eq!(run(-1, &Pass::new(Mode::Frozen))?.1.to_vec0::<f32>()?, 0.0);
        Ok(())
    }
}
