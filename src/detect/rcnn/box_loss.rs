//! The losses of one box head: cross-entropy of all sampled RoIs, smooth L1 of the positive ones.
//!
//! Both are divided by the number of sampled RoIs of the batch (torchvision's `fastrcnn_loss`).

use super::box_head::Answers;
use super::config::RcnnConfig;
use super::rpn_loss::{equally_weighted, read_when, zero};
use super::sample::Sample;
use crate::detect::retinanet::loss::nothing as no_loss;
use crate::detect::terms::{at_rows, recorded};
use crate::geometry::Object;
use crate::nn::Pass;
use crate::ops::gather::{select_rows, select_rows_of};
use crate::ops::losses::{cross_entropy, cross_entropy_of, smooth_l1};
use crate::ops::maps::reshape;
use crate::trace::{Formula, LossPart, Terms};
use candle_core::{Result, Tensor};

/// Names of the two parts, torchvision's.
const CLASSIFICATION: &str = "loss_classifier";
const REGRESSION: &str = "loss_box_reg";

/// A part's name, with the stage in front where there are several.
pub(super) fn part_name(config: &RcnnConfig, stage: usize, name: &str) -> String {
    if config.is_cascade() { format!("s{stage}.{name}") } else { name.to_string() }
}

/// The parts of stage `stage` where no RoI was sampled.
pub(super) fn nothing(
    config: &RcnnConfig,
    stage: usize,
    regresses: bool,
    like: &Tensor,
) -> Result<Vec<(String, Tensor)>> {
    let names: &[&str] = if regresses { &[CLASSIFICATION, REGRESSION] } else { &[CLASSIFICATION] };
    names.iter().map(|name| Ok((part_name(config, stage, name), zero(like)?))).collect()
}

/// The parts of stage `stage` from a head's answers about the RoIs of all images in turn.
///
/// # Errors
/// Answers about another number of RoIs, or an object of a class that the head does not know.
pub(super) fn losses(
    config: &RcnnConfig,
    stage: usize,
    sample: &Sample,
    objects: &[Vec<Object>],
    answers: &Answers,
    pass: &Pass,
) -> Result<Vec<(String, Tensor)>> {
    let weight = config.stage(stage).loss_weight;
    let coder = config.coder(stage);
    let mut labels = Vec::new();
    let mut positives = Vec::new();
    let mut codes = Vec::new();
    for (of_image, objects) in sample.images.iter().zip(objects) {
        for (&bbox, &target) in of_image.boxes.iter().zip(&of_image.target) {
            let object = usize::try_from(target).ok().and_then(|target| objects.get(target));
            if let Some(object) = object {
                positives.push((labels.len(), config.regressed_box(object.class as usize)));
                codes.extend(coder.encode(bbox, object.bbox));
            }
            labels.push(object.map_or(config.background_column(), |o| config.column(o.class as usize)) as i64);
        }
    }
    let there = match &sample.there {
        Some((rois, batch)) => Some(rois.targets(&batch.objects, &config.columns(), &coder)?),
        None => None,
    };
    let rois = answers.logits.dim(0)?;
    let normalizer = rois.max(1) as f32;
    let entropy = match &there {
        Some(targets) => cross_entropy_of(&answers.logits, &targets.columns)?,
        None => cross_entropy(&answers.logits, &labels, -100)?,
    };
    let entropies = read_when(pass.is_probed(), &entropy)?;
    let classification = equally_weighted(&entropy, weight / normalizer)?;
    let mut parts = vec![(part_name(config, stage, CLASSIFICATION), classification)];

    let mut distances = vec![0.0; rois];
    if let Some(deltas) = &answers.deltas {
        let of_each = reshape(deltas, (rois * config.regressed(), 4))?;
        let pair = match there {
            Some(targets) => match targets.of_boxes {
                Some((places, codes)) => Some((select_rows_of(&of_each, &places)?, codes)),
                None => None,
            },
            None if positives.is_empty() => None,
            None => {
                let rows = rows_of(config, &positives);
                let codes = Tensor::from_slice(&codes, (rows.len(), 4), deltas.device())?;
                Some((select_rows(&of_each, &rows)?, codes))
            }
        };
        let regression = match pair {
            None => no_loss(deltas)?,
            Some((chosen, target)) => {
                let distance = smooth_l1(&chosen, &target, config.roi_smooth_l1_beta)?;
                let values = read_when(pass.is_probed(), &distance)?;
                for (&(roi, _), distance) in positives.iter().zip(values.chunks_exact(4)) {
                    distances[roi] = distance.iter().sum();
                }
                equally_weighted(&distance, weight / normalizer)?
            }
        };
        parts.push((part_name(config, stage, REGRESSION), regression));
    }

    if pass.is_probed() {
        let mut per_roi = [entropies.as_slice(), distances.as_slice()];
        let columns = labels.iter().map(|&label| label as f32).collect();
        let columns = recorded(Formula::Softmax, &answers.logits, columns)?;
        let mut terms = vec![Terms { first_class: Some(config.column(0)), ..columns }];
        if let Some(deltas) = &answers.deltas {
            let (regressed, rows) = (config.regressed(), rows_of(config, &positives));
            let formula = Formula::SmoothL1 { beta: config.roi_smooth_l1_beta };
            terms.push(recorded(formula, deltas, at_rows(rois * regressed, 4, &rows, &codes))?);
        }
        let mut first = 0;
        let mut values = Vec::with_capacity(parts.len());
        for (_, part) in &parts {
            values.push(part.to_vec0::<f32>()?);
        }
        for (image, of_image) in sample.images.iter().enumerate() {
            let own_rows = first..first + of_image.boxes.len();
            first = own_rows.end;
            for ((((name, _), &value), rest), terms) in parts.iter().zip(&values).zip(&mut per_roi).zip(&terms) {
                let left: &[f32] = rest;
                let (own, others) = left.split_at(of_image.boxes.len().min(left.len()));
                *rest = others;
                let (name, terms) = (name.clone(), terms.rows(own_rows.clone()));
                let part = LossPart { name, value, normalizer, per_anchor: own.to_vec(), terms };
                pass.trace(image, |t| t.losses.push(part));
            }
        }
    }
    Ok(parts)
}

/// The rows of RoIs' own boxes among all that are regressed.
fn rows_of(config: &RcnnConfig, positives: &[(usize, usize)]) -> Vec<u32> {
    positives.iter().map(|&(roi, own)| (roi * config.regressed() + own) as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample::Sampled;
    use super::*;
    use crate::geometry::BBox;
    use crate::nn::Mode;
    use crate::trace::terms::tests::check;
    use candle_core::Device;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|k| format!("class {k}")).collect()
    }

    fn of(images: impl Into<Vec<Sampled>>) -> Sample {
        Sample { images: images.into(), there: None }
    }

    fn rois(boxes: Vec<BBox>, target: Vec<i32>) -> Sampled {
        let count = boxes.len();
        Sampled { boxes, target, parent: vec![0; count], from_object: vec![false; count] }
    }

    fn square(x: f32, side: f32) -> BBox {
        BBox::new(x, 0.0, x + side, side)
    }

    /// Two images: one RoI that hits an object of class 1, one background RoI.
    #[test]
    fn both_parts_by_hand() -> Result<()> {
        let config = RcnnConfig::faster_nano(&names(2));
        let sampled = of([rois(vec![square(0.0, 10.0)], vec![0]), rois(vec![square(5.0, 10.0)], vec![-1])]);
        let object = Object { bbox: square(1.0, 10.0), class: 1, ..Object::default() };
        let objects = [vec![object], Vec::new()];
        // all logits equal: entropy ln 3 for each
        let logits = Tensor::from_slice(&[0.5f32; 6], (2, 3), &Device::Cpu)?;
        let mut deltas = [7.0f32; 24];
        // rows background, class 0, class 1 of the first RoI: class 1 starts at 8; its code is dx = 1 / 10 / 0.1
        deltas[8..12].copy_from_slice(&[0.0; 4]);
        let deltas = Some(Tensor::from_slice(&deltas, (2, 12), &Device::Cpu)?);
        let pass = Pass::probed(Mode::Infer, 2);
        let parts = losses(&config, 0, &sampled, &objects, &Answers { logits, deltas }, &pass)?;
        assert_eq!(parts.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), ["loss_classifier", "loss_box_reg"]);
        assert!((parts[0].1.to_vec0::<f32>()? - 3f32.ln()).abs() < 1e-6);
        // smooth L1 of 1 with β = 1/9, over two RoIs
        assert!((parts[1].1.to_vec0::<f32>()? - (1.0 - 1.0 / 18.0) / 2.0).abs() < 1e-5);
        let traces = pass.into_traces();
        assert_eq!(traces[1].losses[1].per_anchor, [0.0]);
        assert!((traces[0].losses[1].per_anchor[0] - (1.0 - 1.0 / 18.0)).abs() < 1e-5);
        assert_eq!((traces[1].losses[0].per_anchor.len(), traces[1].losses[0].normalizer), (1, 2.0));
        // the positive has a class and a box, of which class 1's four numbers learn
        assert_eq!((check(&traces[0]), check(&traces[1])), (2, 1));
        let learnt: Vec<bool> = traces[0].losses[1].terms.terms(0).iter().map(|term| !term.target.is_nan()).collect();
        assert_eq!(learnt, [&[false; 8][..], &[true; 4][..]].concat());
        Ok(())
    }

    #[test]
    fn a_cascade_weighs_its_stages_and_names_them() -> Result<()> {
        let config = RcnnConfig::cascade_nano(&names(1));
        let sampled = of([rois(vec![square(0.0, 10.0)], vec![-1])]);
        let answers = Answers {
            logits: Tensor::from_slice(&[0.0f32, 0.0], (1, 2), &Device::Cpu)?,
            deltas: Some(Tensor::from_slice(&[0.0f32; 4], (1, 4), &Device::Cpu)?),
        };
        let parts = losses(&config, 2, &sampled, &[Vec::new()], &answers, &Pass::new(Mode::Infer))?;
        assert_eq!(parts[0].0, "s2.loss_classifier");
        assert!((parts[0].1.to_vec0::<f32>()? - 0.25 * 2f32.ln()).abs() < 1e-6);
        assert_eq!(parts[1].1.to_vec0::<f32>()?, 0.0);
        let empty = nothing(&config, 1, false, &answers.logits)?;
        assert_eq!((empty.len(), empty[0].0.as_str()), (1, "s1.loss_classifier"));
        // an object of a class beyond the head's is an error
        let alien = [vec![Object { bbox: square(0.0, 10.0), class: 9, ..Object::default() }]];
        let hit = of([rois(vec![square(0.0, 10.0)], vec![0])]);
        assert!(losses(&config, 0, &hit, &alien, &answers, &Pass::new(Mode::Infer)).is_err());
        Ok(())
    }
}
