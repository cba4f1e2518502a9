//! RoIs of training on a CUDA device: candidates, the sample of them, and what each of it learns. Of all this only how
//! many there are comes to main memory, since it shapes what follows.
//!
//! The CPU's way, which also keeps the record of every decision, is `detect::rcnn`.

use super::cuda::rois as kernels;
pub use super::cuda::rois::{Candidates, Masks, Rois, Sampled};
use super::matching::{MatchRule, Objects, matched};
use super::proposals::Proposed;
use super::roi::{LevelRule, Regions};
use super::sampling::{Draw, Share, drawn};
use crate::geometry::coder::BoxCoder;
use candle_core::{Result, Tensor};
use std::sync::Arc;

/// What the columns of a head stand for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Columns {
    pub classes: usize,
    /// Column of the first class; the others follow.
    pub first: usize,
    pub background: usize,
    /// Boxes that the head regresses for each RoI: one for all classes if `agnostic`, else one a column.
    pub regressed: usize,
    pub agnostic: bool,
}

impl Columns {
    fn check(&self, objects: &Objects) -> Result<()> {
        let fits = self.agnostic || self.regressed >= self.first + self.classes;
        if objects.known_classes > self.classes || !fits || self.regressed == 0 {
            candle_core::bail!("objects of {} classes for a head of {self:?}", objects.known_classes);
        }
        Ok(())
    }
}

/// What the sampled RoIs learn.
pub struct RoiTargets {
    /// Column of each RoI, i32 `[R]`.
    pub columns: Tensor,
    /// Of the positives their rows among the regressed boxes `[R · regressed, 4]`, u32 `[P]`, and their codes `[P, 4]`;
    /// none without a positive.
    pub of_boxes: Option<(Tensor, Tensor)>,
}

/// The positives whose object has a mask.
pub struct Masked {
    pub regions: Arc<Regions>,
    /// For each its row among the masks `[M · channels, …]`, u32 `[M]`.
    pub places: Tensor,
    pub(super) objects: candle_core::CudaStorage,
}

impl Candidates {
    /// The proposals of each image, and its objects behind them where they `join`.
    ///
    /// # Errors
    /// Proposals of another number of images, or a device that is not CUDA.
    pub fn proposed(proposed: &Proposed, objects: &Objects, join: bool) -> Result<Self> {
        kernels::proposed_candidates(proposed, objects, join)
    }

    /// RoIs at their boxes `refined` `[R, 4]`, and the objects behind them where they `join`; what was an object before
    /// goes then.
    ///
    /// # Errors
    /// Other boxes than RoIs.
    pub fn refined(refined: &Tensor, rois: &Rois, objects: &Objects, join: bool) -> Result<Self> {
        if refined.dims() != [rois.count(), 4] || rois.count() == 0 {
            candle_core::bail!("boxes {:?} for {} RoIs", refined.dims(), rois.count());
        }
        kernels::refined_candidates(refined, rois, objects, join)
    }

    /// Draws RoIs: positive from an IoU of `positive` on, background below. `levels` says which map each reads.
    ///
    /// # Errors
    /// Those of the device.
    pub fn sample(
        &self,
        (objects, masks): (&Objects, &Masks),
        positive: f32,
        share: Share,
        draw: &Draw<'_>,
        levels: &LevelRule,
    ) -> Result<Rois> {
        let rule = MatchRule { positive, negative: positive, all_ties: false, least_tie: 0.0 };
        let Some(boxes) = self.boxes() else { return Rois::none(objects) };
        let targets = matched(boxes, objects, &rule, None)?;
        let [targets, _] = drawn(&targets, objects.images, share, draw)?;
        kernels::sampled(self, &targets, share.most, masks, levels)
    }
}

impl Rois {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.sizes.iter().map(|own| own[0] + own[1]).sum()
    }

    /// How many learn an object.
    pub fn positives(&self) -> usize {
        self.sizes.iter().map(|own| own[0]).sum()
    }

    /// How many learn an object with a mask.
    pub fn masked(&self) -> usize {
        self.sizes.iter().map(|own| own[2]).sum()
    }

    /// Their columns and codes.
    ///
    /// # Errors
    /// An object of a class that the head does not have.
    pub fn targets(&self, objects: &Objects, columns: &Columns, coder: &BoxCoder) -> Result<RoiTargets> {
        columns.check(objects)?;
        kernels::targets(self, objects, columns, coder)
    }

    /// Where a head moves them, clipped to pictures of these heights and widths `[N, 2]`: as its object's class, or for
    /// background as the one of largest logit. From logits `[R, columns]` and codes `[R, 4 · regressed]`: `[R, 4]`. A RoI
    /// stays where the answer is not finite.
    ///
    /// # Errors
    /// Answers of another shape, or an object of a class that the head does not have.
    pub fn refined(
        &self,
        objects: &Objects,
        (logits, codes): (&Tensor, &Tensor),
        columns: &Columns,
        coder: &BoxCoder,
        sizes: &Tensor,
    ) -> Result<Tensor> {
        columns.check(objects)?;
        let (rows, all) = logits.dims2()?;
        let fits = all == columns.classes + 1 && columns.first + columns.classes <= all;
        if rows != self.count()
            || !fits
            || sizes.dims() != [objects.images, 2]
            || codes.dims() != [rows, 4 * columns.regressed]
        {
            candle_core::bail!("logits {:?} and codes {:?} for {} RoIs", logits.dims(), codes.dims(), self.count());
        }
        kernels::refined(self, objects, (&logits.detach(), &codes.detach()), columns, coder, sizes)
    }

    /// The positives whose object has a mask, of which a head answers with `channels` masks each; none if there is none.
    ///
    /// # Errors
    /// An object of a class that the head does not have.
    pub fn with_masks(
        &self,
        objects: &Objects,
        columns: &Columns,
        channels: usize,
        levels: &LevelRule,
    ) -> Result<Option<Masked>> {
        columns.check(objects)?;
        if columns.first + columns.classes > channels {
            candle_core::bail!("{channels} masks for {} classes", columns.classes);
        }
        if self.masked() == 0 {
            Ok(None)
        } else {
            kernels::with_masks(self, objects, (columns.first, channels), levels).map(Some)
        }
    }
}

impl Masked {
    /// Each RoI's piece of its object's mask, `[M, side · side]`: the share of each cell that is covered, by RoIAlign, or if
    /// `majority` 1 from a half on, by RoIAlign with the shift. Rounding decides about exact halves.
    ///
    /// # Errors
    /// Those of the device.
    pub fn pieces(&self, masks: &Masks, side: usize, majority: bool) -> Result<Tensor> {
        kernels::pieces(self, masks, side, majority)
    }
}
