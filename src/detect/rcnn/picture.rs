//! Which part of each input is picture: the rest is padding on the right and below, exact zeros after normalisation.
//!
//! Proposals and detections are clipped to the picture, not to the input, as the reference implementations do.

use crate::imaging::preprocess::Fit;
use crate::ops::select::fetch;
use candle_core::{Result, Tensor};

/// Height and width of the picture within each image of the batch `[N, 3, H, W]`.
///
/// A last row or column of zeros in all three planes is padding: no 8-bit colour is normalised to exactly 0 by means
/// with a fraction. An image of nothing but zeros counts as picture all over.
pub(super) fn sizes(images: &Tensor, fit: Fit) -> Result<Vec<(usize, usize)>> {
    let (count, planes, height, width) = images.dims4()?;
    if matches!(fit, Fit::Stretch { .. } | Fit::Letterbox { .. }) || count * planes * height * width == 0 {
        return Ok(vec![(height, width); count]);
    }
    if !images.device().is_cpu() {
        return by_sums(images);
    }
    let mut sizes = Vec::with_capacity(count);
    for image in 0..count {
        let values: Vec<f32> = images.get(image)?.detach().flatten_all()?.to_vec1()?;
        sizes.push(size(&values, height, width));
    }
    Ok(sizes)
}

/// The same from what the rows and the columns add up to, which is all that leaves the device.
fn by_sums(images: &Tensor) -> Result<Vec<(usize, usize)>> {
    let (_, _, height, width) = images.dims4()?;
    let colours = images.detach().abs()?.sum(1)?;
    let (rows, columns) = (fetch(&colours.sum(2)?)?, fetch(&colours.sum(1)?)?);
    let last = |sums: &[f32]| sums.iter().rposition(|&sum| sum != 0.0);
    let size = |(rows, columns): (&[f32], &[f32])| match (last(rows), last(columns)) {
        (Some(row), Some(column)) => (row + 1, column + 1),
        _ => (height, width),
    };
    Ok(rows.chunks_exact(height).zip(columns.chunks_exact(width)).map(size).collect())
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
    use candle_core::Device;

    #[test]
    fn padding_ends_where_the_last_colour_stands() -> Result<()> {
        let mut values = vec![0.0f32; 3 * 3 * 4 * 5];
        // image 0: up to row 2, column 3, in different planes; image 1 is full; image 2 is empty
        values[2 * 5] = 0.5;
        values[20 + 3] = -0.5;
        values[60..120].fill(1.0);
        let images = Tensor::from_vec(values, (3, 3, 4, 5), &Device::Cpu)?;
        let padded = Fit::ShortestEdge { short: 4, long: 5, divisor: 1 };
        assert_eq!(sizes(&images, padded)?, [(3, 4), (4, 5), (4, 5)]);
        assert_eq!(by_sums(&images)?, sizes(&images, padded)?);
        assert_eq!(sizes(&images, Fit::Stretch { width: 5, height: 4 })?, [(4, 5); 3]);
        assert!(sizes(&images.narrow(0, 0, 0)?, padded)?.is_empty());
        Ok(())
    }
}
