//! An RGB picture in memory: 8 bits a channel, interleaved, no alpha.

use super::decode::ImageError;

/// Row-major `[height, width, 3]` bytes, sRGB as the file had it.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    pub width: u32,
    pub height: u32,
    /// Interleaved red, green, blue: `3 · width · height` bytes.
    pub rgb: Vec<u8>,
}

impl Picture {
    /// A picture of one colour.
    pub fn new(width: u32, height: u32, fill: [u8; 3]) -> Self {
        Self { width, height, rgb: fill.repeat(width as usize * height as usize) }
    }

    /// Takes interleaved bytes over.
    ///
    /// # Errors
    /// [`ImageError::PixelCount`] when there are not exactly `3 · width · height` bytes.
    pub fn from_rgb(width: u32, height: u32, rgb: Vec<u8>) -> Result<Self, ImageError> {
        let expected = 3 * u128::from(width) * u128::from(height);
        if rgb.len() as u128 != expected {
            return Err(ImageError::PixelCount { width, height, found: rgb.len() });
        }
        Ok(Self { width, height, rgb })
    }

    /// Colour at column `x` of row `y`. A place outside gives the nearest pixel; an empty picture is black.
    pub fn pixel(&self, x: u32, y: u32) -> [u8; 3] {
        let x = x.min(self.width.saturating_sub(1)) as usize;
        let y = y.min(self.height.saturating_sub(1)) as usize;
        let start = 3 * (y * self.width as usize + x);
        match self.rgb.get(start..start + 3) {
            Some(&[red, green, blue]) => [red, green, blue],
            _ => [0; 3],
        }
    }

    /// Sets the pixel at column `x` of row `y`; a place outside changes nothing.
    pub fn set_pixel(&mut self, x: u32, y: u32, color: [u8; 3]) {
        if x < self.width && y < self.height {
            let start = 3 * (y as usize * self.width as usize + x as usize);
            if let Some(pixel) = self.rgb.get_mut(start..start + 3) {
                pixel.copy_from_slice(&color);
            }
        }
    }

    /// Interleaved red, green, blue, 255: what a GPU texture takes.
    pub fn rgba(&self) -> Vec<u8> {
        let mut rgba = Vec::with_capacity(self.rgb.len() / 3 * 4);
        for pixel in self.rgb.chunks_exact(3) {
            rgba.extend_from_slice(pixel);
            rgba.push(255);
        }
        rgba
    }

    /// Bytes of row `y`, which must be below `height`.
    pub(super) fn row(&self, y: usize) -> &[u8] {
        let bytes = 3 * self.width as usize;
        &self.rgb[y * bytes..(y + 1) * bytes]
    }

    /// Mirrored left to right.
    pub fn flip_horizontal(&self) -> Self {
        let mut rgb = Vec::with_capacity(self.rgb.len());
        for row in self.rgb.chunks_exact(self.row_bytes()) {
            for pixel in row.chunks_exact(3).rev() {
                rgb.extend_from_slice(pixel);
            }
        }
        Self { width: self.width, height: self.height, rgb }
    }

    /// Mirrored top to bottom.
    pub fn flip_vertical(&self) -> Self {
        let mut rgb = Vec::with_capacity(self.rgb.len());
        for row in self.rgb.chunks_exact(self.row_bytes()).rev() {
            rgb.extend_from_slice(row);
        }
        Self { width: self.width, height: self.height, rgb }
    }

    /// The part that starts at (`left`, `top`), cut off at the borders.
    pub fn crop(&self, left: u32, top: u32, width: u32, height: u32) -> Self {
        let left = left.min(self.width);
        let top = top.min(self.height);
        let width = width.min(self.width - left);
        let height = height.min(self.height - top);
        let mut rgb = Vec::with_capacity(3 * width as usize * height as usize);
        for y in top..top + height {
            let row = self.row(y as usize);
            rgb.extend_from_slice(&row[3 * left as usize..3 * (left + width) as usize]);
        }
        Self { width, height, rgb }
    }

    /// Puts `other` with its corner at (`left`, `top`); what would stand outside is left away.
    pub fn paste(&mut self, other: &Self, left: u32, top: u32) {
        if left >= self.width || top >= self.height {
            return;
        }
        let width = other.width.min(self.width - left) as usize;
        let height = other.height.min(self.height - top) as usize;
        for y in 0..height {
            let start = 3 * ((y + top as usize) * self.width as usize + left as usize);
            self.rgb[start..start + 3 * width].copy_from_slice(&other.row(y)[..3 * width]);
        }
    }

    /// Bytes of a row, at least 1: a chunk size may not be 0.
    fn row_bytes(&self) -> usize {
        (3 * self.width as usize).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 3 × 2 pixels whose red counts up.
    fn counting() -> Picture {
        let rgb = (0..6u8).flat_map(|i| [i, 10 + i, 20 + i]).collect();
        Picture::from_rgb(3, 2, rgb).unwrap()
    }

    fn reds(picture: &Picture) -> Vec<u8> {
        picture.rgb.chunks_exact(3).map(|p| p[0]).collect()
    }

    #[test]
    fn flips_crops_and_pastes_move_whole_pixels() {
        let picture = counting();
        assert_eq!(reds(&picture.flip_horizontal()), [2, 1, 0, 5, 4, 3]);
        assert_eq!(reds(&picture.flip_vertical()), [3, 4, 5, 0, 1, 2]);
        assert_eq!(picture.flip_horizontal().pixel(0, 0), [2, 12, 22]);
        let part = picture.crop(1, 1, 9, 9);
        assert_eq!((part.width, part.height, reds(&part)), (2, 1, vec![4, 5]));
        let mut canvas = Picture::new(4, 3, [9, 9, 9]);
        canvas.paste(&picture, 2, 1);
        assert_eq!(reds(&canvas), [9, 9, 9, 9, 9, 9, 0, 1, 9, 9, 3, 4]);
        canvas.paste(&picture, 4, 0);
    }

    #[test]
    fn a_wrong_byte_count_is_an_error_and_empty_pictures_are_harmless() {
        let error = Picture::from_rgb(2, 2, vec![0; 11]).unwrap_err().to_string();
        assert!(error.contains("2 × 2") && error.contains("11"), "{error}");
        assert!(Picture::from_rgb(u32::MAX, u32::MAX, Vec::new()).is_err());
        let empty = Picture::new(0, 4, [1, 2, 3]);
        assert_eq!(empty.flip_horizontal(), empty);
        assert_eq!(empty.flip_vertical(), empty);
        assert_eq!(empty.pixel(3, 3), [0, 0, 0]);
        assert!(empty.rgba().is_empty());
    }

    #[test]
    fn pixels_are_read_and_written_by_column_and_row() {
        let mut picture = counting();
        assert_eq!(picture.pixel(2, 1), [5, 15, 25]);
        assert_eq!(picture.pixel(99, 0), [2, 12, 22]);
        picture.set_pixel(1, 1, [7, 8, 9]);
        picture.set_pixel(3, 0, [0, 0, 0]);
        assert_eq!(reds(&picture), [0, 1, 2, 3, 7, 5]);
        assert_eq!(picture.rgba()[16..20], [7, 8, 9, 255]);
    }
}
