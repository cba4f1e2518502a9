//! Targets of the RPN's and RetinaNet's anchors on a CUDA device, with nothing that comes back to main memory.
//!
//! The CPU's way, which also keeps the record of every decision, is the detectors' own; the numbers are the same but for
//! their last bits.

use super::cuda::anchors as kernels;
pub use super::cuda::anchors::Divisor;
use super::cuda::whole_integers;
use super::matching::Objects;
use candle_core::{Result, Tensor};

/// What the anchors `[P, 4]` of a batch learn.
pub struct AnchorTargets<'a> {
    anchors: &'a Tensor,
    objects: &'a Objects,
    /// i32 `[N · P]`: the object of a positive, −1 for background, −2 for anchors that take no part.
    targets: &'a Tensor,
    /// 1 over the divisor of each image, `[N]`.
    shares: Tensor,
}

impl<'a> AnchorTargets<'a> {
    /// The loss is divided by the `divisor` of `numbers` i32 `[N]`; if `None`, of the positives of each image.
    ///
    /// # Errors
    /// Shapes that do not fit, targets or numbers that are not i32 or a view, or a device that is not CUDA.
    pub fn new(
        anchors: &'a Tensor,
        objects: &'a Objects,
        targets: &'a Tensor,
        numbers: Option<&Tensor>,
        divisor: Divisor,
    ) -> Result<Self> {
        let (rows, images) = (targets.elem_count(), objects.images);
        let counted = numbers.is_none_or(|numbers| numbers.elem_count() == images);
        if images == 0 || anchors.dims() != [rows / images, 4] || !rows.is_multiple_of(images) || !counted {
            candle_core::bail!("{rows} targets of {images} images for anchors {:?}", anchors.dims());
        }
        for integers in [Some(targets), numbers].into_iter().flatten() {
            whole_integers(integers)?;
        }
        let shares = match numbers {
            Some(numbers) => kernels::shares(numbers, divisor)?,
            None => kernels::shares(&kernels::positives(targets, images)?, divisor)?,
        };
        Ok(Self { anchors, objects, targets, shares })
    }

    /// 1 at each anchor's own column and 0 elsewhere, and the weights of all elements: both `[N · P, columns]`. The first
    /// class stands in column `first`; if `None`, column 0 is that of all classes.
    ///
    /// # Errors
    /// An object of a class without a column, or those of the device.
    pub fn of_classes(&self, columns: usize, first: Option<usize>) -> Result<[Tensor; 2]> {
        let known = self.objects.known_classes;
        let classes = first.map_or(known, |first| columns.saturating_sub(first));
        if known > classes || columns == 0 {
            candle_core::bail!("an object of class {}, but there are only {classes} classes", known.max(1) - 1);
        }
        kernels::class_targets([self.targets, &self.shares], self.objects, (columns, first))
    }

    /// The codes of the objects, with these deviations, and the weights of their numbers, `weight` times the share of the
    /// image: both `[N · P, 4]`, zeros for anchors without an object.
    ///
    /// # Errors
    /// Those of the device.
    pub fn of_codes(&self, std: [f32; 4], weight: f32) -> Result<[Tensor; 2]> {
        kernels::code_targets([self.targets, self.anchors, &self.shares], self.objects, weight, std)
    }

    /// The corners of the objects `[N · P, 4]`, those of the anchor where it has none, and the weights `[N · P]`.
    ///
    /// # Errors
    /// Those of the device.
    pub fn of_boxes(&self, weight: f32) -> Result<[Tensor; 2]> {
        kernels::box_targets([self.targets, self.anchors, &self.shares], self.objects, weight)
    }
}
