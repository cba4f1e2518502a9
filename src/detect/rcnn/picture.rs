//! Which part of each input is picture: the rest is padding on the right and below, exact zeros after normalisation.
//!
//! Proposals and detections are clipped to the picture, not to the input, as the reference implementations do.

use crate::imaging::preprocess::Fit;
use crate::ops::picture::extents;
use candle_core::{Result, Tensor};
use std::cell::OnceCell;

/// Heights and widths of the pictures of a batch, pixels of the input. They come from the network's device once somebody
/// asks for them.
#[derive(Debug)]
pub(super) struct Sizes {
    /// `[N, 2]`
    pub(super) tensor: Tensor,
    values: OnceCell<Vec<(f32, f32)>>,
}

impl Sizes {
    pub(super) fn new(tensor: Tensor) -> Self {
        Self { tensor, values: OnceCell::new() }
    }

    /// # Errors
    /// A device that does not answer.
    pub(super) fn values(&self) -> Result<&[(f32, f32)]> {
        if let Some(values) = self.values.get() {
            return Ok(values);
        }
        let values: Vec<f32> = self.tensor.flatten_all()?.to_vec1()?;
        Ok(self.values.get_or_init(|| values.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()))
    }
}

/// Height and width of the picture within each image of the batch `[N, 3, H, W]`: `[N, 2]`.
///
/// A last row or column of zeros in all three planes is padding: no 8-bit colour is normalised to exactly 0 by means
/// with a fraction. An image of nothing but zeros counts as picture all over.
pub(super) fn sizes(images: &Tensor, fit: Fit) -> Result<Tensor> {
    let (count, planes, height, width) = images.dims4()?;
    let is_filled = matches!(fit, Fit::Stretch { .. } | Fit::Letterbox { .. }) || planes * height * width == 0;
    if count > 0 && !is_filled && images.device().is_cuda() {
        return extents(images);
    }
    let mut sides = Vec::with_capacity(2 * count);
    for image in 0..count {
        let (height, width) = if is_filled {
            (height, width)
        } else {
            let values: Vec<f32> = images.get(image)?.detach().flatten_all()?.to_vec1()?;
            size(&values, height, width)
        };
        sides.extend([height as f32, width as f32]);
    }
    Tensor::from_vec(sides, (count, 2), images.device())
}

/// Height and width of what is not padding in the planes of one image.
fn size(values: &[f32], height: usize, width: usize) -> (usize, usize) {
    let line = |plane: usize, y: usize| &values[(plane * height + y) * width..(plane * height + y + 1) * width];
    let planes = values.len() / (height * width);
    let row_is_picture = |y: usize| (0..planes).any(|plane| line(plane, y).iter().any(|&v| v != 0.0));
    let Some(last_row) = (0..height).rev().find(|&y| row_is_picture(y)) else {
        return (height, width);
    };
    let column_is_picture = |x: usize| (0..planes).any(|plane| (0..=last_row).any(|y| line(plane, y)[x] != 0.0));
    let last_column = (0..width).rev().find(|&x| column_is_picture(x)).unwrap_or(width - 1);
    (last_row + 1, last_column + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Error};

    #[test]
    fn padding_ends_where_the_last_colour_stands() -> Result<()> {
        let mut values = vec![0.0f32; 3 * 3 * 4 * 5];
        // image 0: up to row 2, column 3, in different planes; image 1 is full; image 2 is empty
        values[2 * 5] = 0.5;
        values[20 + 3] = -0.5;
        values[60..120].fill(1.0);
        let images = Tensor::from_vec(values, (3, 3, 4, 5), &Device::Cpu)?;
        let padded = Fit::ShortestEdge { short: 4, long: 5, divisor: 1 };
        let found = |images: &Tensor, fit: Fit| Ok::<_, Error>(Sizes::new(sizes(images, fit)?).values()?.to_vec());
        assert_eq!(found(&images, padded)?, [(3.0, 4.0), (4.0, 5.0), (4.0, 5.0)]);
        assert_eq!(found(&images, Fit::Stretch { width: 5, height: 4 })?, [(4.0, 5.0); 3]);
        assert!(found(&images.narrow(0, 0, 0)?, padded)?.is_empty());
        Ok(())
    }
}
