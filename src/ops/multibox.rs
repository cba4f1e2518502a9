//! SSD's matching, mining and losses on a CUDA device, with nothing that comes back to main memory on the way.
//!
//! The CPU's way, which also keeps the record of every decision, is `detect::multibox`; the numbers are the same but for their last bits.

use super::cuda::losses::cross_entropy_of;
use super::cuda::multibox as kernels;
use super::losses::{smooth_l1, sum_by};
use super::maps::reshape;
use super::matching::Objects;
use crate::geometry::BBox;
use candle_core::{Result, Tensor};

/// Boxes that may learn objects: `[P, 4]` for all images, or `[N, P, 4]` for each its own; corners in input pixels.
#[derive(Clone, Copy, Debug)]
pub struct PriorRule<'a> {
    pub priors: &'a Tensor,
    /// A prior learns its best object from this IoU on; the best prior of each object always learns it.
    pub positive_iou: f32,
    /// Added to the quotients of the sides.
    pub log_epsilon: f32,
    /// All objects are of one class.
    pub binary: bool,
    pub filter: Option<ObjectnessFilter<'a>>,
}

/// Drops priors that an earlier stage thinks background.
#[derive(Clone, Copy, Debug)]
pub struct ObjectnessFilter<'a> {
    /// Probability of an object, `[N, P]`.
    pub objectness: &'a Tensor,
    /// Dropped is what has less.
    pub least: f32,
    /// Dropped are priors that learn an object, and not those that do not.
    pub of_positives: bool,
}

/// The numbers of the loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossSettings {
    /// Mined negatives per positive, image by image.
    pub negative_ratio: f32,
    /// Where smooth-L1 turns from quadratic to linear.
    pub smooth_l1_beta: f32,
    pub localization_weight: f32,
}

/// Smooth-L1 over the positives of `boxes` `[N, P, 4]`, coded with SSD's variances, and cross-entropy of `logits`
/// `[N, P, C]` over positives and mined negatives, both divided by the positives of the batch, at least 1. `objects` are
/// boxes and classes of each image; background is column 0.
///
/// # Errors
/// Shapes that do not fit, or a device that is not CUDA.
pub fn losses(
    (boxes, logits): (&Tensor, &Tensor),
    objects: &[Vec<(BBox, u32)>],
    rule: &PriorRule<'_>,
    settings: &LossSettings,
) -> Result<[Tensor; 2]> {
    let (images, priors, classes) = logits.dims3()?;
    let of_priors = rule.priors.dims();
    let fits = of_priors == [priors, 4] || of_priors == [images, priors, 4];
    let filtered = rule.filter.is_none_or(|filter| filter.objectness.dims() == [images, priors]);
    let is_known = |class: u32| if rule.binary { classes > 1 } else { (class as usize) < classes.saturating_sub(1) };
    let known = objects.iter().flatten().all(|&(_, class)| is_known(class));
    if !fits || !filtered || !known || objects.len() != images || boxes.dims() != [images, priors, 4] {
        candle_core::bail!(
            "priors {of_priors:?} and {} object lists for boxes {:?} and logits {:?}",
            objects.len(),
            boxes.dims(),
            logits.dims()
        );
    }
    let rows = images * priors;
    let targets = kernels::targets(rule, &Objects::new(rule.priors, objects)?)?;
    let entropy = cross_entropy_of(&reshape(logits, (rows, classes))?, &targets.labels)?;
    let distance = smooth_l1(&reshape(boxes, (rows, 4))?, &targets.codes, settings.smooth_l1_beta)?;
    let [of_entropy, of_distance] = kernels::weights(&entropy.detach(), &targets, settings)?;
    Ok([sum_by(&distance, &of_distance)?, sum_by(&entropy, &of_entropy)?])
}

/// Priors `[P, 4]` moved by SSD's `codes` `[N, P, 4]`: `[N, P, 4]`, without a gradient.
///
/// # Errors
/// As [`losses`].
pub fn decoded(priors: &Tensor, codes: &Tensor) -> Result<Tensor> {
    let (images, count, _) = codes.dims3()?;
    if priors.dims() != [count, 4] || codes.dims() != [images, count, 4] {
        candle_core::bail!("priors {:?} for codes {:?}", priors.dims(), codes.dims());
    }
    kernels::decoded(priors, &codes.detach())
}
