//! YOLO's losses: boxes and classes of the positives, objectness of everything that is not left out.
//!
//! Darknet defines gradients rather than a loss; with [`Objective::DARKNET`] these sums have the same gradients. With
//! [`Objective::MMDET`] they are those of mmdet's `YOLOV3Head.loss_by_feat`.

use super::assign::{Grid, Targets};
use super::head::{Head, Slot};
use super::objective::{Assigner, Coordinates, Normalizer, Objective, Objectness, Offsets};
use crate::detect::terms::{at_rows, recorded, recorded_overlap};
use crate::detect::{Losses, Outputs};
use crate::geometry::nms::order_by_score;
use crate::geometry::{BBox, Object, labelled};
use crate::nn::Pass;
use crate::ops::activation::sigmoid;
use crate::ops::gather::select_rows;
use crate::ops::losses::{IouLoss, bce_with_logits, box_iou_loss, sigmoid_focal, sum_by, weighted_sum};
use crate::ops::maps::reshape;
use crate::ops::matching::best_overlaps;
use crate::ops::select::fetch;
use crate::trace::{Formula, LossPart, Sample, Terms};
use candle_core::{DType, Result, Tensor};

/// Largest logarithm of a side over its prior's that an overlap loss looks at.
const MAX_LOG: f32 = 8.0;

/// One named sum, what each row gave to it before the normalizer, and from what; the latter two only with a probe.
struct Part {
    name: &'static str,
    value: Tensor,
    rows: Vec<f32>,
    terms: Terms,
}

/// The positives of a batch, by row of the flattened outputs.
#[derive(Default)]
struct Positives {
    /// Rising.
    rows: Vec<u32>,
    slots: Vec<Slot>,
    boxes: Vec<BBox>,
    /// 2 − w·h, or 1.
    scales: Vec<f32>,
    /// `[P, C]`, 1 for the classes of each.
    classes: Vec<f32>,
}

/// What all parts share.
struct Sums<'a> {
    objective: &'a Objective,
    head: &'a Head,
    /// Rows of the batch.
    total: usize,
    normalizer: f32,
    probed: bool,
}

/// The loss parts for the objects of each image, in input pixels.
///
/// # Errors
/// Another number of object lists than images, or a class that the head lacks.
pub(in crate::detect) fn losses(
    head: &Head,
    objective: &Objective,
    outputs: &Outputs,
    objects: &[Vec<Object>],
    pass: &Pass,
) -> Result<Losses> {
    let rows = head.rows(outputs)?;
    let (images, anchors, attributes) = rows.dims3()?;
    let (runs, slots) = (head.runs(outputs), head.slots(outputs));
    if images != objects.len() || anchors != slots.len() {
        candle_core::bail!(
            "{} object lists and {} anchors for head outputs of shape {:?}",
            objects.len(),
            slots.len(),
            rows.dims()
        );
    }
    if let Some(object) = objects.iter().flatten().find(|o| o.class as usize >= head.classes) {
        candle_core::bail!("an object of class {} for a head of {} classes", object.class, head.classes);
    }
    let total = images * anchors;
    let flat = reshape(&rows, (total, attributes))?;
    let compares = objective.assigner == Assigner::BestPrior;
    let on_device = compares && flat.device().is_cuda();
    let targets: Vec<Targets> = pass.stage("assign", || {
        let grid = Grid { head, runs: &runs, slots: &slots, input: outputs.input };
        // A GPU compares by itself; only the record asks for more.
        if !compares || (on_device && !pass.is_probed()) {
            return Ok(objects.iter().map(|objects| grid.assign(objective, None, objects)).collect());
        }
        let coordinates = fetch(&flat.detach().narrow(1, 0, 4)?)?;
        let per_image = objects.iter().zip(coordinates.chunks_exact(anchors.max(1) * 4));
        let assigned = per_image.map(|(objects, numbers)| {
            let boxes: Vec<BBox> = slots
                .iter()
                .zip(numbers.chunks_exact(4))
                .map(|(slot, t)| slot.decode([t[0], t[1], t[2], t[3]], head.offsets))
                .collect();
            grid.assign(objective, Some(&boxes), objects)
        });
        Ok(assigned.collect())
    })?;
    let positives = gather(head, objective, &slots, &targets, objects, outputs.input);
    let normalizer = match objective.normalizer {
        Normalizer::Sum => 1.0,
        Normalizer::Images => images.max(1) as f32,
        Normalizer::Positives => positives.rows.len().max(1) as f32,
    };
    let sums = Sums { objective, head, total, normalizer, probed: pass.is_probed() };

    let mut parts = sums.of_positives(&flat, &positives)?;
    let overlaps = if on_device { Some(sums.overlaps(&flat, &slots, objects)?) } else { None };
    let (objectness, each) = sums.of_objectness(&flat, &targets, overlaps)?;
    parts.push(objectness);

    if pass.is_probed() {
        for (part, terms) in parts.iter_mut().zip(sums.terms(&flat, &positives, &targets)?) {
            part.terms = terms;
        }
        for (image, targets) in targets.iter().enumerate() {
            let range = image * anchors..(image + 1) * anchors;
            let mut traced = Vec::with_capacity(parts.len());
            for part in &parts {
                traced.push(LossPart {
                    name: part.name.to_owned(),
                    value: part.value.to_vec0::<f32>()?,
                    normalizer,
                    per_anchor: part.rows.get(range.clone()).unwrap_or_default().to_vec(),
                    terms: part.terms.rows(range.clone()),
                });
            }
            let samples = samples(targets, each.get(range).unwrap_or_default());
            pass.trace(image, |t| {
                t.sampling = samples;
                t.all_background = true;
                t.assignment = Some(targets.assignment.clone());
                t.losses = traced;
            });
        }
    }
    Ok(Losses { parts: parts.into_iter().map(|part| (part.name.to_owned(), part.value)).collect() })
}

fn gather(
    head: &Head,
    objective: &Objective,
    slots: &[Slot],
    targets: &[Targets],
    objects: &[Vec<Object>],
    input: (usize, usize),
) -> Positives {
    let mut positives = Positives::default();
    let area = (input.0 * input.1).max(1) as f32;
    for (image, (targets, objects)) in targets.iter().zip(objects).enumerate() {
        for (anchor, &target) in targets.assignment.target.iter().enumerate() {
            let object = usize::try_from(target).ok().and_then(|index| objects.get(index));
            if let (Some(object), Some(slot)) = (object, slots.get(anchor)) {
                let scale = if objective.scale_by_size { 2.0 - object.bbox.area() / area } else { 1.0 };
                positives.rows.push((image * slots.len() + anchor) as u32);
                positives.slots.push(*slot);
                positives.boxes.push(object.bbox);
                // an object that reaches far beyond the input weighs no less than one that fills it
                positives.scales.push(scale.max(1.0));
            }
        }
    }
    positives.classes = vec![0.0; positives.rows.len() * head.classes];
    for (image, targets) in targets.iter().enumerate() {
        for &(anchor, class) in &targets.labels {
            let row = (image * slots.len() + anchor) as u32;
            if let Ok(position) = positives.rows.binary_search(&row)
                && let Some(bit) = positives.classes.get_mut(position * head.classes + class as usize)
            {
                *bit = 1.0;
            }
        }
    }
    positives
}

impl Sums<'_> {
    /// Σ `each` · `weights` ÷ normalizer. `rows` are the rows that the leading dimension of `each` stands for.
    fn part(&self, name: &'static str, each: &Tensor, weights: Vec<f32>, rows: &[u32]) -> Result<Part> {
        let mut by_row = Vec::new();
        if self.probed {
            by_row = vec![0.0f32; self.total];
            let values: Vec<f32> = each.detach().flatten_all()?.to_vec1()?;
            let width = (values.len() / rows.len().max(1)).max(1);
            let weighted = values.chunks_exact(width).zip(weights.chunks_exact(width));
            for (&row, (values, weights)) in rows.iter().zip(weighted) {
                if let Some(sum) = by_row.get_mut(row as usize) {
                    *sum = values.iter().zip(weights).map(|(v, w)| if *w == 0.0 { 0.0 } else { v * w }).sum();
                }
            }
        }
        let scaled = weights.iter().map(|weight| weight / self.normalizer).collect();
        Ok(Part { name, value: weighted_sum(each, scaled)?, rows: by_row, terms: Terms::default() })
    }

    /// Boxes and classes; without positives each part is a 0 that gradients pass through.
    fn of_positives(&self, flat: &Tensor, positives: &Positives) -> Result<Vec<Part>> {
        let objective = self.objective;
        let rows = positives.rows.as_slice();
        if rows.is_empty() {
            let names: &[&'static str] = match objective.coordinates {
                Coordinates::Parts => &["loss_xy", "loss_wh", "loss_cls"],
                _ => &["loss_bbox", "loss_cls"],
            };
            let first = flat.narrow(0, 0, flat.dim(0)?.min(1))?;
            let nothing = |name: &'static str| self.part(name, &first, vec![0.0; first.elem_count()], &[]);
            return names.iter().copied().map(nothing).collect();
        }
        let count = rows.len();
        let picked = select_rows(flat, rows)?;
        let (xy, wh) = (picked.narrow(1, 0, 2)?, picked.narrow(1, 2, 2)?);
        let mut parts = Vec::new();
        if let Some(kind) = overlap(objective.coordinates) {
            let boxes = self.corners(&xy, &wh, &positives.slots)?;
            let each = box_iou_loss(&boxes, &positives.boxes, kind, 1e-7)?;
            parts.push(self.part("loss_bbox", &each, vec![objective.box_weight; count], rows)?);
        } else {
            let codes = self.codes(positives);
            let half = |from: usize| Tensor::from_vec(pairs_of(&codes, from), (count, 2), flat.device());
            let weights = |weight: f32| -> Vec<f32> {
                positives.scales.iter().flat_map(|scale| [weight * scale, weight * scale]).collect()
            };
            let (each, weight) = match self.head.offsets {
                Offsets::Logistic => (bce_with_logits(&xy.contiguous()?, &half(0)?)?, objective.xy_weight),
                Offsets::Linear | Offsets::Anchor => (xy.sub(&half(0)?)?.sqr()?, 0.5 * objective.xy_weight),
            };
            parts.push(self.part("loss_xy", &each, weights(weight), rows)?);
            let each = wh.sub(&half(2)?)?.sqr()?;
            parts.push(self.part("loss_wh", &each, weights(0.5 * objective.wh_weight), rows)?);
        }
        let classes = self.head.classes;
        let target = Tensor::from_slice(&positives.classes, (count, classes), flat.device())?;
        let each = bce_with_logits(&picked.narrow(1, 5, classes)?.contiguous()?, &target)?;
        parts.push(self.part("loss_cls", &each, vec![objective.class_weight; count * classes], rows)?);
        Ok(parts)
    }

    /// What the positives' boxes are learnt as.
    fn codes(&self, positives: &Positives) -> Vec<[f32; 4]> {
        let pairs = positives.slots.iter().zip(&positives.boxes);
        pairs.map(|(slot, bbox)| slot.encode(*bbox, self.head.offsets)).collect()
    }

    /// What each part was computed from, in the order of the parts.
    fn terms(&self, flat: &Tensor, positives: &Positives, targets: &[Targets]) -> Result<Vec<Terms>> {
        let (objective, rows, total) = (self.objective, positives.rows.as_slice(), self.total);
        let answers = |from: usize, width: usize| flat.narrow(1, from, width);
        let mut all = Vec::new();
        if let Some(kind) = overlap(objective.coordinates) {
            let corners = if rows.is_empty() {
                None
            } else {
                let picked = select_rows(flat, rows)?;
                Some(self.corners(&picked.narrow(1, 0, 2)?, &picked.narrow(1, 2, 2)?, &positives.slots)?)
            };
            let boxes = recorded_overlap((kind, 0.0), &answers(0, 4)?, rows, corners.as_ref(), &positives.boxes)?;
            all.push(Terms { weights: vec![objective.box_weight; total], ..boxes });
        } else {
            let codes = self.codes(positives);
            let (xy, weight) = match self.head.offsets {
                Offsets::Logistic => (Formula::Sigmoid, objective.xy_weight),
                Offsets::Linear | Offsets::Anchor => (Formula::Squared, 0.5 * objective.xy_weight),
            };
            for (from, formula, weight) in [(0, xy, weight), (2, Formula::Squared, 0.5 * objective.wh_weight)] {
                let target = at_rows(total, 2, rows, &pairs_of(&codes, from));
                let scales: Vec<f32> = positives.scales.iter().map(|scale| weight * scale).collect();
                let weights = at_rows(total, 1, rows, &scales);
                all.push(Terms { weights, ..recorded(formula, &answers(from, 2)?, target)? });
            }
        }
        let classes = self.head.classes;
        let target = at_rows(total, classes, rows, &positives.classes);
        let classified = recorded(Formula::Sigmoid, &answers(5, classes)?, target)?;
        all.push(Terms { weights: vec![objective.class_weight; total], first_class: Some(0), ..classified });
        // For the focal loss a column, which is the only one, or none.
        let (formula, absent, present) = match objective.objectness {
            Objectness::CrossEntropy => (Formula::Sigmoid, 0.0, 1.0),
            Objectness::Focal => {
                (Formula::Focal { alpha: objective.focal_alpha, gamma: objective.focal_gamma }, -1.0, 0.0)
            }
        };
        let wanted = targets.iter().flat_map(|targets| &targets.assignment.target).map(|&target| match target {
            0.. => present,
            -1 => absent,
            _ => f32::NAN,
        });
        let objectness = recorded(formula, &answers(4, 1)?, wanted.collect())?;
        all.push(Terms { weights: vec![objective.objectness_weight; total], ..objectness });
        Ok(all)
    }

    /// Decoded corners `[P, 4]` that gradients pass through.
    fn corners(&self, xy: &Tensor, wh: &Tensor, slots: &[Slot]) -> Result<Tensor> {
        let pairs = |of: fn(&Slot) -> [f32; 2]| -> Result<Tensor> {
            let values: Vec<f32> = slots.iter().flat_map(of).collect();
            Tensor::from_vec(values, (slots.len(), 2), xy.device())
        };
        let cells = pairs(|s| [s.column, s.row])?;
        let places = match self.head.offsets {
            Offsets::Linear => xy.add(&cells)?,
            Offsets::Anchor => {
                let share = pairs(|s| [s.prior[0] / s.stride[0], s.prior[1] / s.stride[1]])?;
                xy.mul(&share)?.add(&cells.affine(1.0, 0.5)?)?
            }
            Offsets::Logistic => {
                let margin = pairs(|s| [(s.scale_xy - 1.0) / 2.0; 2])?;
                sigmoid(xy)?.mul(&pairs(|s| [s.scale_xy; 2])?)?.add(&cells.sub(&margin)?)?
            }
        };
        let center = places.mul(&pairs(|s| s.stride)?)?;
        let half = wh.minimum(MAX_LOG)?.exp()?.mul(&pairs(|s| [s.prior[0] / 2.0, s.prior[1] / 2.0])?)?;
        Tensor::cat(&[center.sub(&half)?, center.add(&half)?], 1)
    }

    /// The best IoU of every decoded box with an object of its image, on a CUDA device: `[total]`.
    fn overlaps(&self, flat: &Tensor, slots: &[Slot], objects: &[Vec<Object>]) -> Result<Tensor> {
        let flat = flat.detach();
        let slots: Vec<Slot> = objects.iter().flat_map(|_| slots).cloned().collect();
        let boxes = self.corners(&flat.narrow(1, 0, 2)?, &flat.narrow(1, 2, 2)?, &slots)?;
        best_overlaps(&boxes, &labelled(objects))
    }

    /// Objectness of positives and background, and the unweighted loss of every row that counts. With `overlaps`,
    /// background that overlaps an object is told by them, and otherwise by its target.
    fn of_objectness(&self, flat: &Tensor, targets: &[Targets], overlaps: Option<Tensor>) -> Result<(Part, Vec<f32>)> {
        let objective = self.objective;
        let wanted = targets.iter().flat_map(|t| &t.assignment.target).map(|&t| if t >= 0 { 1.0 } else { 0.0 });
        let wanted = Tensor::from_vec(wanted.collect::<Vec<f32>>(), self.total, flat.device())?;
        let logits = flat.narrow(1, 4, 1)?.flatten_all()?;
        let each = match objective.objectness {
            Objectness::CrossEntropy => bce_with_logits(&logits, &wanted)?,
            Objectness::Focal => sigmoid_focal(&logits, &wanted, objective.focal_alpha, objective.focal_gamma)?,
        };
        let ignored = targets.iter().flat_map(|t| &t.assignment.target);
        let weights: Vec<f32> = ignored.map(|&t| if t == -2 { 0.0 } else { objective.objectness_weight }).collect();
        let values: Vec<f32> = if self.probed { each.detach().to_vec1()? } else { Vec::new() };
        let all: Vec<u32> = if self.probed { (0..self.total as u32).collect() } else { Vec::new() };
        let mut part = self.part("loss_conf", &each, weights, &all)?;
        if let Some(overlaps) = overlaps {
            let counts = overlaps.le(objective.ignore_threshold)?.to_dtype(DType::F32)?.maximum(&wanted)?;
            let weights = counts.affine(f64::from(objective.objectness_weight / self.normalizer), 0.0)?;
            part.value = sum_by(&each, &weights)?;
        }
        Ok((part, values))
    }
}

/// The loss of boxes that are learnt by their overlap; none for those that are learnt number by number.
fn overlap(coordinates: Coordinates) -> Option<IouLoss> {
    match coordinates {
        Coordinates::Parts => None,
        Coordinates::Iou => Some(IouLoss::Linear),
        Coordinates::Giou => Some(IouLoss::Giou),
        Coordinates::Diou => Some(IouLoss::Diou),
        Coordinates::Ciou => Some(IouLoss::Ciou),
    }
}

/// Two neighbouring numbers of every code.
fn pairs_of(codes: &[[f32; 4]], from: usize) -> Vec<f32> {
    codes.iter().flat_map(|code| [code[from], code[from + 1]]).collect()
}

/// Everything takes part but what is left out: positives in order, then background by falling loss.
fn samples(targets: &Targets, objectness: &[f32]) -> Vec<Sample> {
    let loss = |anchor: u32| objectness.get(anchor as usize).copied().unwrap_or(0.0);
    let of = |wanted: fn(i32) -> bool| -> Vec<u32> {
        let all = targets.assignment.target.iter().enumerate();
        all.filter(|(_, target)| wanted(**target)).map(|(anchor, _)| anchor as u32).collect()
    };
    let (positives, background) = (of(|target| target >= 0), of(|target| target == -1));
    let losses: Vec<f32> = background.iter().map(|&anchor| loss(anchor)).collect();
    let hardest = order_by_score(&losses).into_iter().filter_map(|index| background.get(index as usize).copied());
    let sample = |positive: bool| {
        move |(rank, anchor): (usize, u32)| Sample { anchor, positive, rank: rank as u32, loss: loss(anchor) }
    };
    let positives = positives.into_iter().enumerate().map(sample(true));
    positives.chain(hardest.enumerate().map(sample(false))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::head::tests::{raw_outputs, small_head};
    use super::super::objective::Assigner;
    use super::*;
    use crate::nn::Mode;
    use crate::trace::terms::tests::check;
    use candle_core::Var;

    fn value(losses: &Losses, name: &str) -> f32 {
        losses.parts.iter().find(|(n, _)| n == name).unwrap().1.to_vec0().unwrap()
    }

    /// ln(1 + e^x)
    fn softplus(x: f32) -> f32 {
        x.exp().ln_1p()
    }

    /// An object of 9×8 pixels in the middle of anchor 6 of the small head, whose prior is 8×10.
    fn one_object() -> Vec<Object> {
        vec![Object { bbox: BBox::from_cxcywh(44.0, 20.0, 9.0, 8.0), class: 1, ..Object::default() }]
    }

    #[test]
    fn one_object_by_hand() -> Result<()> {
        let head = small_head(Offsets::Logistic);
        // anchor 6 predicts t = (0.4, −0.2, 0.3, 0.1), objectness 1, classes 0.5 and −0.7; all else is 0
        let row = [0.4, -0.2, 0.3, 0.1, 1.0, 0.5, -0.7];
        let outputs = raw_outputs(&head, 1, |_, anchor, k| if anchor == 6 { row[k] } else { 0.0 })?;
        let pass = Pass::probed(Mode::Frozen, 1);
        let losses = losses(&head, &Objective::DARKNET, &outputs, &[one_object()], &pass)?;
        // middle at (2.75, 1.25) cells; scale 2 − 72 / 2048
        let scale = 2.0 - 72.0 / 2048.0;
        let entropy = |x: f32, t: f32| softplus(x) - x * t;
        let xy = scale * (entropy(0.4, 0.75) + entropy(-0.2, 0.25));
        let (w, h) = ((9f32 / 8.0).ln(), (8f32 / 10.0).ln());
        let wh = scale * 0.5 * ((0.3 - w).powi(2) + (0.1 - h).powi(2));
        let cls = entropy(0.5, 0.0) + entropy(-0.7, 1.0);
        let conf = entropy(1.0, 1.0) + 11.0 * std::f32::consts::LN_2;
        for (name, by_hand) in [("loss_xy", xy), ("loss_wh", wh), ("loss_cls", cls), ("loss_conf", conf)] {
            let ours = value(&losses, name);
            assert!((ours - by_hand).abs() < 1e-5 * by_hand.abs().max(1.0), "{name}: {ours}, by hand {by_hand}");
        }
        let trace = pass.into_traces().remove(0);
        // xy, wh and classes of the one positive, objectness of all twelve
        assert_eq!(check(&trace), 15);
        let part = |name: &str| trace.losses.iter().find(|part| part.name == name).unwrap();
        assert!((part("loss_xy").per_anchor[6] - xy).abs() < 1e-5);
        assert!((part("loss_conf").per_anchor[0] - std::f32::consts::LN_2).abs() < 1e-6);
        assert_eq!((trace.sampling.len(), trace.sampling[0].anchor, trace.sampling[0].positive), (12, 6, true));
        Ok(())
    }

    #[test]
    fn gradients_are_darknets_deltas() -> Result<()> {
        let head = small_head(Offsets::Logistic);
        let made = raw_outputs(&head, 1, |_, anchor, k| 0.1 * (anchor as f32) - 0.2 * (k as f32))?;
        let fine = Var::from_tensor(made.get("fine")?)?;
        let coarse = made.get("coarse")?.clone();
        let tensors = vec![("fine".to_owned(), fine.as_tensor().clone()), ("coarse".to_owned(), coarse)];
        let outputs = Outputs { tensors, maps: made.maps.clone(), input: made.input };
        let losses =
            losses(&head, &Objective::DARKNET, &outputs, &[one_object()], &Pass::new(Mode::Frozen))?.total()?;
        let gradients = losses.backward()?;
        // [1, 7, 2, 4]: attribute k of anchor 6 is at 8·k + 6
        let g = gradients.get(fine.as_tensor()).unwrap().flatten_all()?.to_vec1::<f32>()?;
        let t: Vec<f32> = (0..7).map(|k| 0.6 - 0.2 * k as f32).collect();
        let sigma = |x: f32| 1.0 / (1.0 + (-x).exp());
        let scale = 2.0 - 72.0 / 2048.0;
        // minus the deltas of `forward_yolo_layer`
        let expected = [
            scale * (sigma(t[0]) - 0.75),
            scale * (sigma(t[1]) - 0.25),
            scale * (t[2] - (9f32 / 8.0).ln()),
            scale * (t[3] - (8f32 / 10.0).ln()),
            sigma(t[4]) - 1.0,
            sigma(t[5]),
            sigma(t[6]) - 1.0,
        ];
        for (k, by_hand) in expected.into_iter().enumerate() {
            assert!((g[8 * k + 6] - by_hand).abs() < 1e-5, "{k}: {} {by_hand}", g[8 * k + 6]);
        }
        // another cell learns objectness alone
        assert!((g[8 * 4 + 1] - sigma(0.1 - 0.8)).abs() < 1e-6);
        assert_eq!((g[1], g[8 * 5 + 1]), (0.0, 0.0));
        Ok(())
    }

    #[test]
    fn every_variant_is_finite_with_and_without_objects() -> Result<()> {
        let mut objectives = vec![
            Objective::DARKNET,
            Objective::MMDET,
            Objective { objectness: Objectness::Focal, normalizer: Normalizer::Positives, ..Objective::DARKNET },
            Objective { positive_threshold: 0.7, negative_threshold: 0.3, ..Objective::MMDET },
        ];
        for coordinates in [Coordinates::Iou, Coordinates::Giou, Coordinates::Diou, Coordinates::Ciou] {
            objectives.push(Objective { coordinates, ..Objective::DARKNET });
        }
        for offsets in [Offsets::Logistic, Offsets::Linear, Offsets::Anchor] {
            let head = small_head(offsets);
            for objective in &objectives {
                for (objects, scale) in [(vec![one_object(), Vec::new()], 1.0), (vec![Vec::new(); 2], 50.0)] {
                    let made = raw_outputs(&head, 2, |i, a, k| scale * ((7 * a + 5 * k + i) % 11) as f32 - 4.0)?;
                    let fine = Var::from_tensor(made.get("fine")?)?;
                    let coarse = made.get("coarse")?.clone();
                    let tensors = vec![("fine".to_owned(), fine.as_tensor().clone()), ("coarse".to_owned(), coarse)];
                    let outputs = Outputs { tensors, maps: made.maps.clone(), input: made.input };
                    let pass = Pass::probed(Mode::Frozen, 2);
                    let losses = losses(&head, objective, &outputs, &objects, &pass)?;
                    pass.into_traces().iter().for_each(|trace| assert!(check(trace) > 0));
                    let total = losses.total()?;
                    assert!(total.to_vec0::<f32>()?.is_finite(), "{objective:?}");
                    let gradients = total.backward()?;
                    let g = gradients.get(fine.as_tensor()).unwrap().flatten_all()?.to_vec1::<f32>()?;
                    assert!(g.iter().all(|v| v.is_finite()), "{objective:?}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn a_perfect_box_has_no_overlap_loss() -> Result<()> {
        let head = small_head(Offsets::Logistic);
        // the code of the object: offsets 3/4 and 1/4, sides 9/8 and 8/10
        let code = [3f32.ln(), -(3f32.ln()), (9f32 / 8.0).ln(), (8f32 / 10.0).ln()];
        let outputs = raw_outputs(&head, 1, |_, anchor, k| if anchor == 6 && k < 4 { code[k] } else { 0.0 })?;
        let objective = Objective { coordinates: Coordinates::Giou, box_weight: 3.0, ..Objective::DARKNET };
        let found = losses(&head, &objective, &outputs, &[one_object()], &Pass::new(Mode::Frozen))?;
        assert!(value(&found, "loss_bbox").abs() < 1e-4);
        let away = raw_outputs(&head, 1, |_, _, _| 0.0)?;
        let found = losses(&head, &objective, &away, &[one_object()], &Pass::new(Mode::Frozen))?;
        // 8×10 around (40, 24) and 9×8 around (44, 20): shared 4.5·5, union 80 + 72 − 22.5, hull 12.5·13
        let (shared, union, hull) = (22.5f32, 129.5, 12.5 * 13.0);
        let by_hand = 3.0 * (1.0 - shared / union + (hull - union) / hull);
        assert!((value(&found, "loss_bbox") - by_hand).abs() < 1e-4);
        Ok(())
    }

    #[test]
    fn boxes_are_decoded_alike_for_the_overlap_loss_and_for_detections() -> Result<()> {
        for offsets in [Offsets::Logistic, Offsets::Linear, Offsets::Anchor] {
            let head = small_head(offsets);
            let code = [0.3, 0.2, 0.1, 0.4];
            let made = raw_outputs(&head, 1, |_, anchor, k| if anchor == 6 && k < 4 { code[k] } else { 0.0 })?;
            let bbox = head.slots(&made)[6].decode(code, offsets);
            // an object where the prediction is, whose cell and best prior are those of anchor 6
            let object = Object { bbox, class: 1, ..Object::default() };
            let objective = Objective { coordinates: Coordinates::Iou, ..Objective::DARKNET };
            let found = losses(&head, &objective, &made, &[vec![object]], &Pass::new(Mode::Frozen))?;
            assert!(value(&found, "loss_bbox").abs() < 1e-4, "{offsets:?}");
        }
        Ok(())
    }

    #[test]
    fn sums_are_divided_as_asked_and_wrong_classes_are_errors() -> Result<()> {
        let head = small_head(Offsets::Logistic);
        let outputs = raw_outputs(&head, 2, |_, anchor, k| (anchor as f32 - k as f32) * 0.1)?;
        let of = |normalizer: Normalizer| -> Result<f32> {
            let objective = Objective { normalizer, assigner: Assigner::BestPrior, ..Objective::DARKNET };
            let objects = [one_object(), Vec::new()];
            losses(&head, &objective, &outputs, &objects, &Pass::new(Mode::Frozen))?.total()?.to_vec0::<f32>()
        };
        let sum = of(Normalizer::Sum)?;
        assert!((of(Normalizer::Images)? - sum / 2.0).abs() < 1e-4);
        assert!((of(Normalizer::Positives)? - sum).abs() < 1e-4);
        let mut wrong = one_object();
        wrong[0].class = 2;
        let pass = Pass::new(Mode::Frozen);
        assert!(losses(&head, &Objective::DARKNET, &outputs, &[wrong, Vec::new()], &pass).is_err());
        assert!(losses(&head, &Objective::DARKNET, &outputs, &[Vec::new()], &pass).is_err());
        Ok(())
    }
}
