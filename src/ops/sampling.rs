//! The balanced sampler of RPN and the RoI heads on a CUDA device, with nothing that comes back to main memory.
//!
//! Each row gets a random key, and of each kind the rows of lowest key are drawn: without replacement, every row as
//! likely as any other. The CPU's sampler is [`crate::geometry::sampling`], which draws other rows.

use super::cuda;
use candle_core::{CudaStorage, Result, Tensor};

/// What the samples of an iteration follow from: the last answers of each image, which are the coarsest level's.
pub struct Key {
    pub(super) words: CudaStorage,
}

impl Key {
    /// The key of a network's answers `[N, P]`: the same for the same answers.
    ///
    /// # Errors
    /// Another shape, or a device that is not CUDA.
    pub fn new(answers: &Tensor) -> Result<Self> {
        /// Answers of an image that are looked at.
        const LOOKED_AT: usize = 1 << 8;
        let own = answers.dims2()?.1.min(LOOKED_AT);
        Ok(Self { words: cuda::sampling::digest(&answers.detach(), own)? })
    }

    /// The key in main memory.
    ///
    /// # Errors
    /// Those of the device.
    pub fn read(&self) -> Result<u64> {
        let words = cuda::select::read(&self.words)?;
        Ok(words.iter().fold(0, |value, &word| value << 32 | u64::from(word as u32)))
    }
}

/// Which of the samples with one key it is.
#[derive(Clone, Copy)]
pub struct Draw<'a> {
    pub key: &'a Key,
    pub salt: u64,
}

/// Rows of an image that are drawn, and how many of them may be positive, as a share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    pub most: usize,
    pub positive: f32,
}

impl Share {
    /// ⌊`most` · `positive`⌋; a share that is negative or no number is 0.
    pub fn most_positive(self) -> usize {
        ((self.most as f64 * f64::from(self.positive)) as usize).min(self.most)
    }
}

/// Draws of each image's rows as `share` says: missing positives are replaced by negatives, missing negatives by nothing.
/// `targets` i32 `[N · P]` are an object for a positive, −1 for background, −2 for rows that take no part. Returns those
/// of the drawn rows with −2 elsewhere, and i32 `[N]`, how many of each image there are.
///
/// # Errors
/// Rows that `images` do not share evenly, or a device that is not CUDA.
pub fn drawn(targets: &Tensor, images: usize, share: Share, draw: &Draw<'_>) -> Result<[Tensor; 2]> {
    if images == 0 || !targets.elem_count().is_multiple_of(images) {
        candle_core::bail!("{:?} rows for {images} images", targets.dims());
    }
    cuda::whole_integers(targets)?;
    cuda::sampling::drawn(targets, images, share, draw)
}
