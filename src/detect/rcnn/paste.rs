//! A mask of a few cells laid over the picture, by torchvision's rule or by that of detectron2 and mmdet.

use super::config::Paste;
use crate::geometry::{BBox, Mask};
use crate::imaging::preprocess::Placement;
use std::ops::Range;

/// Pixels that a mask's picture may have, as [`Mask`] allows.
const MAX_PIXELS: u64 = 1 << 28;

/// Probabilities of the pixels around one box; 0 everywhere else.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Patch {
    pub left: usize,
    pub top: usize,
    pub width: usize,
    pub height: usize,
    /// `[height, width]` row-major.
    pub values: Vec<f32>,
}

/// Where one pixel reads along an axis: two neighbouring cells and the second one's share. Cells outside are 0.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tap {
    low: i64,
    high: i64,
    share: f32,
}

impl Patch {
    /// Lays `probabilities` `[side, side]` over `bbox` in a picture of `size` (height, width).
    pub fn new(probabilities: &[f32], side: usize, bbox: BBox, size: (usize, usize), rule: Paste) -> Self {
        if side == 0
            || probabilities.len() != side * side
            || ![bbox.x0, bbox.y0, bbox.x1, bbox.y1].iter().all(|v| v.is_finite())
        {
            return Self::default();
        }
        let taps = |low: f32, high: f32, length: usize| match rule {
            Paste::WholePixels => whole_pixels(low, high, side, length),
            Paste::PixelCenters => pixel_centers(low, high, side, length),
        };
        let (left, columns) = taps(bbox.x0, bbox.x1, size.1);
        let (top, rows) = taps(bbox.y0, bbox.y1, size.0);
        let cell = |y: i64, x: i64| -> f32 {
            let inside = |v: i64| usize::try_from(v).ok().filter(|&v| v < side);
            match (inside(y), inside(x)) {
                (Some(y), Some(x)) => probabilities[y * side + x],
                _ => 0.0,
            }
        };
        let mut values = Vec::with_capacity(rows.len() * columns.len());
        for row in &rows {
            for column in &columns {
                let across = |y: i64| (1.0 - column.share) * cell(y, column.low) + column.share * cell(y, column.high);
                values.push((1.0 - row.share) * across(row.low) + row.share * across(row.high));
            }
        }
        Self { left, top, width: columns.len(), height: rows.len(), values }
    }

    /// The probability of the pixel in column `x` of row `y`.
    pub fn at(&self, x: usize, y: usize) -> f32 {
        let inside = |v: usize, start: usize, length: usize| v.checked_sub(start).filter(|&v| v < length);
        match (inside(x, self.left, self.width), inside(y, self.top, self.height)) {
            (Some(x), Some(y)) => self.values[y * self.width + x],
            _ => 0.0,
        }
    }

    /// The pixels inside, in a picture of `size` (height, width). None for a picture that is too large for a mask.
    pub fn mask(&self, threshold: f32, rule: Paste, size: (usize, usize)) -> Option<Mask> {
        let inside = |x: usize, y: usize| match rule {
            Paste::WholePixels => self.at(x, y) > threshold,
            Paste::PixelCenters => self.at(x, y) >= threshold,
        };
        let (columns, rows) = (self.left..self.left + self.width, self.top..self.top + self.height);
        mask_of(size, columns, rows, inside)
    }
}

/// torchvision's `paste_mask_in_image` along one axis: the padded cells over the enlarged box, its ends cut to whole
/// pixels. Returns the first pixel and the taps of all pixels inside the picture.
fn whole_pixels(low: f32, high: f32, side: usize, length: usize) -> (usize, Vec<Tap>) {
    let padded = side + 2;
    let half = (high - low) * 0.5 * (padded as f32 / side as f32);
    let middle = (high + low) * 0.5;
    let (start, end) = ((middle - half) as i64, (middle + half) as i64);
    let pixels = end.saturating_sub(start).saturating_add(1).max(1);
    let scale = padded as f32 / pixels as f32;
    let first = start.clamp(0, length as i64);
    let last = end.saturating_add(1).clamp(first, length as i64);
    let taps = (first..last).map(|pixel| {
        let position = ((pixel.saturating_sub(start) as f32 + 0.5) * scale - 0.5).max(0.0);
        let cell = (position as i64).min(padded as i64 - 1);
        // the padding counts as a cell, so the mask's own cells start at 1
        Tap { low: cell - 1, high: (cell + 1).min(padded as i64 - 1) - 1, share: position - cell as f32 }
    });
    (first as usize, taps.collect())
}

/// The cells under each pixel's centre along one axis, the box as the mask's extent.
fn pixel_centers(low: f32, high: f32, side: usize, length: usize) -> (usize, Vec<Tap>) {
    let cell = (high - low) / side as f32;
    if cell.is_nan() || cell <= 0.0 {
        return (0, Vec::new());
    }
    // beyond half a cell outside the box there is nothing
    let first = ((low - cell / 2.0).floor() as i64).clamp(0, length as i64);
    let last = ((high + cell / 2.0).ceil() as i64).clamp(first, length as i64);
    let taps = (first..last).map(|pixel| {
        let position = (pixel as f32 + 0.5 - low) / (high - low) * side as f32 - 0.5;
        let below = position.floor();
        Tap { low: below as i64, high: below as i64 + 1, share: position - below }
    });
    (first as usize, taps.collect())
}

/// A mask of the pixels of `columns` × `rows` for which `inside(x, y)` holds.
fn mask_of(
    (height, width): (usize, usize),
    columns: Range<usize>,
    rows: Range<usize>,
    inside: impl Fn(usize, usize) -> bool,
) -> Option<Mask> {
    let total = (height as u64).checked_mul(width as u64).filter(|&pixels| pixels <= MAX_PIXELS)?;
    let (columns, rows) = (columns.start..columns.end.min(width), rows.start..rows.end.min(height));
    let mut counts: Vec<u32> = Vec::new();
    // one past the last pixel inside, counted down the columns
    let mut at = 0u64;
    for x in columns {
        let mut y = rows.start;
        while y < rows.end {
            let from = y;
            while y < rows.end && inside(x, y) {
                y += 1;
            }
            if y == from {
                y += 1;
                continue;
            }
            let column = x as u64 * height as u64;
            let (start, end) = (column + from as u64, column + y as u64);
            match counts.last_mut() {
                Some(run) if start == at => *run += (end - start) as u32,
                _ => counts.extend([(start - at) as u32, (end - start) as u32]),
            }
            at = end;
        }
    }
    if at < total || counts.is_empty() {
        counts.push((total - at) as u32);
    }
    Mask::from_counts(u32::try_from(height).ok()?, u32::try_from(width).ok()?, counts).ok()
}

/// A mask of the network's input as a mask of the picture: each pixel takes what the input has under its centre.
/// None for a picture too large for a mask, or a mask whose runs do not fill it.
pub fn mask_in_picture(mask: &Mask, placement: &Placement) -> Option<Mask> {
    let bitmap = mask.to_bitmap().ok()?;
    let (width, height) = (placement.original.0 as usize, placement.original.1 as usize);
    let (own_width, own_height) = (mask.width as usize, mask.height as usize);
    let hull = placement.to_original(mask.bbox());
    let source = |at: usize, scale: f32, offset: f32| ((at as f32 + 0.5) * scale + offset).floor();
    // a negative start casts to 0
    let columns = (hull.x0.floor() as usize).saturating_sub(1)..(hull.x1.ceil() as usize).saturating_add(1).min(width);
    let rows = (hull.y0.floor() as usize).saturating_sub(1)..(hull.y1.ceil() as usize).saturating_add(1).min(height);
    mask_of((height, width), columns, rows, |x, y| {
        let (x, y) =
            (source(x, placement.scale_x, placement.offset_x), source(y, placement.scale_y, placement.offset_y));
        if x < 0.0 || y < 0.0 || x >= own_width as f32 || y >= own_height as f32 {
            return false;
        }
        bitmap.get(y as usize * own_width + x as usize).is_some_and(|&pixel| pixel != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A full mask fills its box, to a pixel where the rule cuts to whole pixels.
    #[test]
    fn a_constant_mask_fills_its_box() {
        let bbox = BBox::new(8.0, 4.0, 16.0, 12.0);
        for rule in [Paste::WholePixels, Paste::PixelCenters] {
            let patch = Patch::new(&[1.0; 196], 14, bbox, (20, 30), rule);
            assert!((patch.at(12, 8) - 1.0).abs() < 1e-5, "{rule:?}");
            assert_eq!(patch.at(25, 8), 0.0);
            let mask = patch.mask(0.5, rule, (20, 30)).unwrap();
            assert_eq!((mask.height, mask.width), (20, 30));
            let hull = mask.bbox();
            for (ours, exact) in [(hull.x0, 8.0), (hull.y0, 4.0), (hull.x1, 16.0), (hull.y1, 12.0)] {
                assert!((ours - exact).abs() <= 1.0, "{rule:?} {hull:?}");
            }
            assert_eq!(u64::from(mask.counts.iter().sum::<u32>()), 600);
        }
    }

    /// Pixel centres at 0.5, 1.5, 2.5, 3.5 of a 4 wide box over 2 cells lie at −0.25, 0.25, 0.75, 1.25 of the cells.
    #[test]
    fn pixel_centers_are_interpolated_between_cells_by_hand() {
        let patch = Patch::new(&[0.0, 1.0, 0.0, 1.0], 2, BBox::new(0.0, 0.0, 4.0, 4.0), (4, 5), Paste::PixelCenters);
        assert_eq!((patch.left, patch.width, patch.height), (0, 5, 4));
        for (x, expected) in [(0, 0.0), (1, 0.25), (2, 0.75), (3, 0.75), (4, 0.25)] {
            assert!((patch.at(x, 1) - expected).abs() < 1e-6, "{x}: {}", patch.at(x, 1));
        }
        // from the threshold on
        let mask = Patch::new(&[0.5; 4], 2, BBox::new(0.0, 0.0, 4.0, 4.0), (4, 4), Paste::PixelCenters);
        assert_eq!(mask.mask(0.5, Paste::PixelCenters, (4, 4)).unwrap().area(), 4);
    }

    /// torchvision's arithmetic by hand: one cell padded to three, box 2–4 enlarged threefold to 0–6, seven pixels;
    /// pixel i reads (i + ½) · 3/7 − ½ of the padded cells, the peak 1 in the middle.
    #[test]
    fn whole_pixels_stretch_the_padded_mask_over_the_enlarged_box() {
        let patch = Patch::new(&[1.0], 1, BBox::new(2.0, 2.0, 4.0, 4.0), (9, 9), Paste::WholePixels);
        assert_eq!((patch.left, patch.top, patch.width, patch.height), (0, 0, 7, 7));
        let row: Vec<f32> = (0..7).map(|x| patch.at(x, 3)).collect();
        let expected = [0.0, 0.142_857, 0.571_429, 1.0, 0.571_429, 0.142_857, 0.0];
        for (ours, exact) in row.iter().zip(expected) {
            assert!((ours - exact).abs() < 1e-5, "{row:?}");
        }
        // cut off where the picture ends
        let cut = Patch::new(&[1.0], 1, BBox::new(-1.0, 2.0, 1.0, 4.0), (9, 9), Paste::WholePixels);
        assert_eq!((cut.left, cut.width), (0, 4));
        assert!((cut.at(0, 3) - 1.0).abs() < 1e-5);
    }

    #[test]
    fn one_pixel_boxes_and_nonsense_are_no_panic() {
        for rule in [Paste::WholePixels, Paste::PixelCenters] {
            for bbox in [
                BBox::new(3.0, 3.0, 4.0, 4.0),
                BBox::new(3.0, 3.0, 3.0, 3.0),
                BBox::new(-1e30, -1e30, 1e30, 1e30),
                BBox::new(f32::NAN, 0.0, 1.0, 1.0),
                BBox::new(50.0, 50.0, 60.0, 60.0),
            ] {
                let patch = Patch::new(&[0.9; 4], 2, bbox, (8, 8), rule);
                assert_eq!(patch.values.len(), patch.width * patch.height);
                let mask = patch.mask(0.5, rule, (8, 8)).unwrap();
                assert!(mask.check().is_ok());
            }
            assert_eq!(Patch::new(&[0.9; 3], 2, BBox::new(0.0, 0.0, 2.0, 2.0), (8, 8), rule), Patch::default());
            let one = Patch::new(&[0.9; 784], 28, BBox::new(3.0, 3.0, 4.0, 4.0), (8, 8), rule);
            assert!(one.mask(0.5, rule, (8, 8)).unwrap().area() >= 1);
        }
    }

    #[test]
    fn runs_join_over_the_end_of_a_column() {
        // rows 1 and 2 of columns 0 and 1 of a 3 × 3 picture, then everything
        let mask = mask_of((3, 3), 0..2, 1..3, |_, _| true).unwrap();
        assert_eq!(mask.counts, [1, 2, 1, 2, 3]);
        assert_eq!(mask_of((3, 3), 0..3, 0..3, |_, _| true).unwrap().counts, [0, 9]);
        assert_eq!(mask_of((3, 3), 0..9, 0..9, |_, _| false).unwrap().counts, [9]);
        assert_eq!(mask_of((0, 3), 0..3, 0..3, |_, _| true).unwrap().counts, [0]);
        assert!(mask_of((1 << 20, 1 << 20), 0..1, 0..1, |_, _| true).is_none());
    }

    #[test]
    fn masks_return_to_the_picture() {
        // a picture of 4 × 2 at twice its size, two rows below the top of the input
        let placement =
            Placement { scale_x: 2.0, scale_y: 2.0, offset_x: 0.0, offset_y: 2.0, original: (4, 2), content: (8, 4) };
        let bitmap: Vec<u8> = (0..64).map(|i| u8::from(i % 8 >= 6 && (2..4).contains(&(i / 8)))).collect();
        let mask = Mask::from_bitmap(8, 8, &bitmap).unwrap();
        let back = mask_in_picture(&mask, &placement).unwrap();
        assert_eq!(back, Mask::from_bitmap(2, 4, &[0, 0, 0, 1, 0, 0, 0, 0]).unwrap());
        let empty = Mask::from_bitmap(8, 8, &[0; 64]).unwrap();
        assert_eq!(mask_in_picture(&empty, &placement).unwrap().area(), 0);
    }
}
