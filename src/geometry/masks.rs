//! Segmentation masks as COCO run lengths: column-major, zeros first.
//!
//! Sizes and run lengths come from files, so every reading is checked: no picture above 2^28 pixels, and the runs must
//! fill the picture exactly. The string form and the polygon rule are those of cocoapi's `maskApi`, bit for bit.

use super::BBox;

/// Pixels that a mask may have: 16384 × 16384.
const MAX_PIXELS: u64 = 1 << 28;
/// Steps of a fifth of a pixel that the outlines of one mask may have; a million pixels of outline are 5·10⁶.
const MAX_OUTLINE: u64 = 1 << 26;
/// Polygon corners further out than this are an error.
const MAX_COORDINATE: f64 = 1e8;

/// Why a mask cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MaskError {
    #[error("a mask of {height}×{width} is too large: at most 2^28 pixels")]
    TooLarge { height: u32, width: u32 },
    #[error("run lengths of a {height}×{width} mask add up to {sum}: they must fill the picture exactly")]
    Sum { sum: u64, height: u32, width: u32 },
    #[error("a {height}×{width} bitmap has {length} elements: expected height · width")]
    Bitmap { height: u32, width: u32, length: usize },
    #[error("byte {byte:#04x} at {position} of a run-length string: valid are '0' to 'o'")]
    Character { byte: u8, position: usize },
    #[error("the run-length string breaks off or leaves the range of a run at byte {position}")]
    Run { position: usize },
    #[error("masks of {0}×{1} and {2}×{3} (height×width) cannot be merged: sizes must agree")]
    Sizes(u32, u32, u32, u32),
    #[error("polygon {polygon} has {length} numbers: coordinates come in pairs x, y")]
    Pairs { polygon: usize, length: usize },
    #[error("polygon {polygon} has a coordinate that is not a number within ±10^8")]
    Coordinate { polygon: usize },
    #[error("the outline up to polygon {polygon} is too long: at most 2^26 fifths of a pixel")]
    Outline { polygon: usize },
}

/// A binary mask of `height` × `width` pixels. `counts` are lengths of runs in column-major order, alternately zeros
/// and ones, zeros first. [`Mask::check`] tells whether they fill the picture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mask {
    pub height: u32,
    pub width: u32,
    pub counts: Vec<u32>,
}

/// Pixels of a picture within the limit.
fn pixels(height: u32, width: u32) -> Result<u64, MaskError> {
    let pixels = u64::from(height) * u64::from(width);
    if pixels > MAX_PIXELS { Err(MaskError::TooLarge { height, width }) } else { Ok(pixels) }
}

fn as_run(length: u64) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

impl Mask {
    /// From run lengths that must fill the picture.
    pub fn from_counts(height: u32, width: u32, counts: Vec<u32>) -> Result<Self, MaskError> {
        let mask = Self { height, width, counts };
        mask.check()?;
        Ok(mask)
    }

    /// An error when the picture is too large or the runs do not fill it.
    pub fn check(&self) -> Result<(), MaskError> {
        let pixels = pixels(self.height, self.width)?;
        let sum = self.counts.iter().fold(0_u64, |sum, &count| sum.saturating_add(u64::from(count)));
        if sum == pixels { Ok(()) } else { Err(MaskError::Sum { sum, height: self.height, width: self.width }) }
    }

    /// From a row-major bitmap `[height, width]`; everything but 0 is inside.
    pub fn from_bitmap(height: u32, width: u32, bitmap: &[u8]) -> Result<Self, MaskError> {
        let pixels = pixels(height, width)?;
        if bitmap.len() as u64 != pixels {
            return Err(MaskError::Bitmap { height, width, length: bitmap.len() });
        }
        if pixels == 0 {
            return Ok(Self::from_ranges(height, width, Vec::new()));
        }
        let (h, w) = (height as usize, width as usize);
        // most masks cover a small part: only the rows and columns with something inside are walked by column
        let mut column_used = vec![0_u8; w];
        let (mut top, mut bottom) = (h, 0);
        for (y, row) in bitmap.chunks_exact(w).enumerate() {
            if row.iter().any(|&v| v != 0) {
                top = top.min(y);
                bottom = y + 1;
                for (used, &v) in column_used.iter_mut().zip(row) {
                    *used |= v;
                }
            }
        }
        let mut ranges = Vec::new();
        for x in (0..w).filter(|&x| column_used[x] != 0) {
            let mut start = None;
            for y in top..bottom {
                let inside = bitmap[y * w + x] != 0;
                if inside && start.is_none() {
                    start = Some(y);
                } else if !inside && let Some(from) = start.take() {
                    ranges.push(((x * h + from) as u64, (x * h + y) as u64));
                }
            }
            if let Some(from) = start {
                ranges.push(((x * h + from) as u64, (x * h + bottom) as u64));
            }
        }
        Ok(Self::from_ranges(height, width, ranges))
    }

    /// Row-major bitmap `[height, width]` of 0 and 1.
    pub fn to_bitmap(&self) -> Result<Vec<u8>, MaskError> {
        self.check()?;
        let (h, w) = (u64::from(self.height), self.width as usize);
        let mut bitmap = vec![0_u8; self.height as usize * w];
        for (mut start, end) in self.ranges() {
            // column by column
            while start < end {
                let column = start / h;
                let stop = end.min((column + 1) * h);
                for row in start - column * h..stop - column * h {
                    bitmap[row as usize * w + column as usize] = 1;
                }
                start = stop;
            }
        }
        Ok(bitmap)
    }

    /// From COCO's compressed string: differences to the run before the last, in groups of five bits.
    pub fn from_coco_string(text: &str, height: u32, width: u32) -> Result<Self, MaskError> {
        let pixels = pixels(height, width)?;
        let mut counts: Vec<u32> = Vec::new();
        let (mut sum, mut value, mut shift) = (0_u64, 0_i64, 0_u32);
        for (position, byte) in text.bytes().enumerate() {
            let digit = byte.wrapping_sub(48);
            if digit > 63 {
                return Err(MaskError::Character { byte, position });
            }
            // seven groups hold any difference of two runs
            if shift > 30 {
                return Err(MaskError::Run { position });
            }
            value |= i64::from(digit & 0x1f) << shift;
            shift += 5;
            if digit & 0x20 != 0 {
                continue;
            }
            if digit & 0x10 != 0 {
                value |= -1_i64 << shift;
            }
            if counts.len() > 2 {
                value += i64::from(counts[counts.len() - 2]);
            }
            let count = u32::try_from(value).map_err(|_| MaskError::Run { position })?;
            counts.push(count);
            sum += u64::from(count);
            if sum > pixels {
                return Err(MaskError::Sum { sum, height, width });
            }
            (value, shift) = (0, 0);
        }
        if shift > 0 {
            return Err(MaskError::Run { position: text.len() });
        }
        Self::from_counts(height, width, counts)
    }

    /// COCO's compressed string.
    pub fn to_coco_string(&self) -> String {
        let mut text = String::with_capacity(2 * self.counts.len());
        for (i, &count) in self.counts.iter().enumerate() {
            let before = if i > 2 { self.counts[i - 2] } else { 0 };
            let mut value = i64::from(count) - i64::from(before);
            loop {
                let group = (value & 0x1f) as u8;
                value >>= 5;
                let last = if group & 0x10 == 0 { value == 0 } else { value == -1 };
                text.push(char::from(48 + group + if last { 0 } else { 0x20 }));
                if last {
                    break;
                }
            }
        }
        text
    }

    /// Union of polygons `x y x y …` in pixels, filled by cocoapi's rule. A polygon of fewer than three corners is
    /// empty.
    ///
    /// Corners are rounded to fifths of a pixel in f64: polygons of a COCO file should be given as f64, since a decimal
    /// like 10.7 can round to another fifth in f32.
    pub fn from_polygons<T: Copy + Into<f64>>(polygons: &[Vec<T>], height: u32, width: u32) -> Result<Self, MaskError> {
        let pixels = pixels(height, width)?;
        let mut steps_left = MAX_OUTLINE;
        let mut ranges = Vec::new();
        for (polygon, coordinates) in polygons.iter().enumerate() {
            if !coordinates.len().is_multiple_of(2) {
                return Err(MaskError::Pairs { polygon, length: coordinates.len() });
            }
            let mut corners = Vec::with_capacity(coordinates.len() / 2);
            for pair in coordinates.chunks_exact(2) {
                let (x, y): (f64, f64) = (pair[0].into(), pair[1].into());
                // false for a NaN
                let near = |v: f64| v.abs() <= MAX_COORDINATE;
                if !near(x) || !near(y) {
                    return Err(MaskError::Coordinate { polygon });
                }
                corners.push((to_fifths(x), to_fifths(y)));
            }
            if corners.len() < 3 {
                continue;
            }
            let found = crossings(&corners, height, width, &mut steps_left);
            let mut found = found.ok_or(MaskError::Outline { polygon })?;
            found.sort_unstable();
            if found.len() % 2 == 1 {
                found.push(pixels);
            }
            ranges.extend(found.chunks_exact(2).map(|pair| (pair[0], pair[1])));
        }
        Ok(Self::from_ranges(height, width, ranges))
    }

    /// Runs of ones as half-open ranges of column-major positions, rising.
    fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut at = 0_u64;
        self.counts.chunks(2).filter_map(move |pair| {
            let start = at.saturating_add(u64::from(pair[0]));
            let ones = pair.get(1).copied().unwrap_or(0);
            at = start.saturating_add(u64::from(ones));
            (ones > 0).then_some((start, at))
        })
    }

    /// From ranges of ones in any order; they may touch, overlap or be empty.
    fn from_ranges(height: u32, width: u32, mut ranges: Vec<(u64, u64)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
        for (start, end) in ranges.into_iter().filter(|(start, end)| start < end) {
            match merged.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => merged.push((start, end)),
            }
        }
        let mut counts = Vec::with_capacity(2 * merged.len() + 1);
        let mut at = 0;
        for (start, end) in merged {
            counts.push(as_run(start - at));
            counts.push(as_run(end - start));
            at = end;
        }
        let pixels = u64::from(height) * u64::from(width);
        if at < pixels || counts.is_empty() {
            counts.push(as_run(pixels.saturating_sub(at)));
        }
        Self { height, width, counts }
    }

    /// Pixels inside.
    pub fn area(&self) -> u64 {
        self.counts.iter().skip(1).step_by(2).map(|&count| u64::from(count)).sum()
    }

    /// The smallest box around the pixels inside, pixel edges; all zeros for an empty mask.
    pub fn bbox(&self) -> BBox {
        let h = u64::from(self.height);
        if h == 0 {
            return BBox::default();
        }
        let mut hull: Option<(u64, u64, u64, u64)> = None;
        for (start, end) in self.ranges() {
            let (first, last) = (start / h, (end - 1) / h);
            // a run over a column's end touches the top and the bottom
            let (top, bottom) = if first == last { (start % h, (end - 1) % h + 1) } else { (0, h) };
            hull = Some(match hull {
                Some((x0, y0, x1, y1)) => (x0.min(first), y0.min(top), x1.max(last + 1), y1.max(bottom)),
                None => (first, top, last + 1, bottom),
            });
        }
        hull.map_or_else(BBox::default, |(x0, y0, x1, y1)| BBox::new(x0 as f32, y0 as f32, x1 as f32, y1 as f32))
    }

    /// The pixels inside as boxes that do not overlap: the runs of each column, joined with equal ones of the columns
    /// beside it. Nothing for a mask that does not read.
    pub fn rectangles(&self) -> Vec<BBox> {
        if self.check().is_err() {
            return Vec::new();
        }
        let height = u64::from(self.height);
        let mut found: Vec<BBox> = Vec::new();
        // Positions in `found` of what ends at the left and at the right edge of the column, by rising row.
        let (mut column, mut left, mut right) = (0, Vec::new(), Vec::new());
        for (mut start, end) in self.ranges() {
            while start < end {
                let x = start / height;
                if x != column {
                    left = std::mem::take(&mut right);
                    if x != column + 1 {
                        left.clear();
                    }
                    column = x;
                }
                let stop = end.min((x + 1) * height);
                let (top, bottom) = ((start - x * height) as f32, (stop - x * height) as f32);
                let beside = left.binary_search_by(|&at: &usize| found[at].y0.total_cmp(&top));
                match beside.map(|place| left[place]) {
                    Ok(at) if found[at].y1 == bottom => {
                        found[at].x1 = (x + 1) as f32;
                        right.push(at);
                    }
                    _ => {
                        right.push(found.len());
                        found.push(BBox::new(x as f32, top, (x + 1) as f32, bottom));
                    }
                }
                start = stop;
            }
        }
        found
    }

    fn same_size(&self, other: &Self) -> bool {
        (self.height, self.width) == (other.height, other.width)
    }

    /// Pixels inside both; 0 when the sizes differ.
    pub fn intersection(&self, other: &Self) -> u64 {
        if !self.same_size(other) {
            return 0;
        }
        let (mut own, mut others) = (self.ranges(), other.ranges());
        let (mut a, mut b) = (own.next(), others.next());
        let mut shared = 0;
        while let (Some((a0, a1)), Some((b0, b1))) = (a, b) {
            shared += a1.min(b1).saturating_sub(a0.max(b0));
            if a1 <= b1 {
                a = own.next();
            } else {
                b = others.next();
            }
        }
        shared
    }

    /// Intersection over union, or over the area of `self` when `other` is a crowd (COCO). 0 for empty masks and for
    /// different sizes.
    pub fn iou(&self, other: &Self, crowd: bool) -> f64 {
        let shared = self.intersection(other);
        if shared == 0 {
            return 0.0;
        }
        let whole = if crowd { self.area() } else { self.area() + other.area() - shared };
        shared as f64 / whole as f64
    }

    /// Union of two masks of one size.
    pub fn merge(&self, other: &Self) -> Result<Self, MaskError> {
        if !self.same_size(other) {
            return Err(MaskError::Sizes(self.height, self.width, other.height, other.width));
        }
        Ok(Self::from_ranges(self.height, self.width, self.ranges().chain(other.ranges()).collect()))
    }

    /// Mirrored about the vertical axis.
    pub fn flip_horizontal(&self) -> Self {
        let (h, w) = (u64::from(self.height), u64::from(self.width));
        if h == 0 {
            return self.clone();
        }
        let mut ranges = Vec::new();
        // a piece within one column keeps its rows
        let within = |start: u64, end: u64| {
            let mirrored = (w - 1 - start / h) * h + start % h;
            (mirrored, mirrored + (end - start))
        };
        for (start, end) in self.ranges() {
            let (start, end) = (start.min(h * w), end.min(h * w));
            if start == end {
                continue;
            }
            let head = end.min((start / h + 1) * h);
            let tail = (end / h * h).max(head);
            ranges.push(within(start, head));
            // the whole columns between head and tail stay one block
            ranges.push((h * w - tail, h * w - head));
            if tail < end {
                ranges.push(within(tail, end));
            }
        }
        Self::from_ranges(self.height, self.width, ranges)
    }
}

/// To the grid of fifths of a pixel; the cast cuts towards zero as cocoapi's does.
fn to_fifths(value: f64) -> i64 {
    (5.0 * value + 0.5) as i64
}

/// Where the outline through `corners` (in fifths of a pixel) crosses the centre line of a pixel column, as
/// column-major positions of the first pixel below. `None` when more than `steps_left` steps are needed.
///
/// The outline is walked in unit steps along its longer axis; the walk always starts at the lower end of an edge, so
/// that an edge shared by two polygons gives the same points to both.
fn crossings(corners: &[(i64, i64)], height: u32, width: u32, steps_left: &mut u64) -> Option<Vec<u64>> {
    let (height, width) = (i64::from(height), i64::from(width));
    let mut found = Vec::new();
    let mut last: Option<(i64, i64)> = None;
    let next_corners = corners.iter().cycle().skip(1);
    for (&from, &to) in corners.iter().zip(next_corners) {
        let (dx, dy) = ((to.0 - from.0).abs(), (to.1 - from.1).abs());
        let steps = dx.max(dy);
        *steps_left = steps_left.checked_sub(steps as u64 + 1)?;
        let wide = dx >= dy;
        let backward = if wide { from.0 > to.0 } else { from.1 > to.1 };
        let (low, high) = if backward { (to, from) } else { (from, to) };
        let rise = if wide { high.1 - low.1 } else { high.0 - low.0 };
        let slope = if steps == 0 { 0.0 } else { rise as f64 / steps as f64 };
        for step in 0..=steps {
            let t = if backward { steps - step } else { step };
            let point = if wide {
                (low.0 + t, (low.1 as f64 + slope * t as f64 + 0.5) as i64)
            } else {
                ((low.0 as f64 + slope * t as f64 + 0.5) as i64, low.1 + t)
            };
            if let Some(before) = last
                && before.0 != point.0
            {
                // the centre of column c lies between fifths 5c + 2 and 5c + 3
                let left = if point.0 < before.0 { point.0 } else { point.0 - 1 };
                let line = left - 2;
                if line % 5 == 0 && (0..width).contains(&(line / 5)) {
                    let row = -((2 - point.1.min(before.1)).div_euclid(5));
                    found.push((line / 5 * height + row.clamp(0, height)) as u64);
                }
            }
            last = Some(point);
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn mask(height: u32, width: u32, counts: &[u32]) -> Mask {
        Mask::from_counts(height, width, counts.to_vec()).unwrap()
    }

    fn random_bitmap(h: u32, w: u32, density: f32, rng: &mut Random) -> Vec<u8> {
        (0..h * w).map(|_| u8::from(rng.chance(density))).collect()
    }

    #[test]
    fn runs_go_down_the_columns() {
        // 2 rows, 3 columns: 0 1 1 / 1 1 0
        let m = Mask::from_bitmap(2, 3, &[0, 1, 7, 1, 1, 0]).unwrap();
        assert_eq!(m.counts, [1, 4, 1]);
        assert_eq!(m.to_bitmap().unwrap(), [0, 1, 1, 1, 1, 0]);
        assert_eq!((m.area(), m.bbox()), (4, BBox::new(0.0, 0.0, 3.0, 2.0)));
        assert_eq!(Mask::from_bitmap(1, 2, &[1, 1]).unwrap().counts, [0, 2]);
        assert_eq!(Mask::from_bitmap(3, 0, &[]).unwrap().counts, [0]);
    }

    #[test]
    fn strings_and_measures_as_pycocotools_prints_them() {
        // frPyObjects, area and toBbox (left, top, width, height) of pycocotools 2.0
        type Case = (u32, u32, &'static [u32], &'static str, u64, [f32; 4]);
        let cases: [Case; 4] = [
            (1000, 100, &[0, 5, 1000, 3, 70000, 2, 28990], "05Xo0NX\\S2O^ngN", 10, [0.0, 0.0, 72.0, 10.0]),
            (10, 10, &[100], "T3", 0, [0.0; 4]),
            (10, 10, &[0, 100], "0T3", 100, [0.0, 0.0, 10.0, 10.0]),
            (10, 10, &[40, 1, 40, 1, 18], "X11X10ZO", 2, [4.0, 0.0, 5.0, 2.0]),
        ];
        for (height, width, counts, text, area, xywh) in cases {
            let m = mask(height, width, counts);
            assert_eq!(m.to_coco_string(), text);
            assert_eq!(Mask::from_coco_string(text, height, width).unwrap(), m);
            assert_eq!((m.area(), m.bbox().to_xywh()), (area, xywh));
        }
    }

    #[test]
    fn polygons_are_filled_as_pycocotools_does() {
        // counts of frPyObjects; the polygons lie inside, cover the picture from outside, and sit on pixel edges
        let polygons: [(&[f64], u32, u32, &[u32]); 3] = [
            (&[1.5, 1.5, 7.3, 2.1, 5.9, 8.4, 2.2, 6.6], 10, 9, &[22, 5, 5, 5, 5, 6, 4, 6, 4, 4, 24]),
            (&[-3.0, 2.0, 4.5, -2.5, 12.0, 5.0, 3.3, 14.0], 8, 7, &[0, 56]),
            (&[2.0, 1.0, 6.0, 1.0, 6.0, 5.0, 2.0, 5.0], 6, 8, &[13, 4, 2, 4, 2, 4, 2, 4, 13]),
        ];
        for (polygon, height, width, counts) in polygons {
            let m = Mask::from_polygons(&[polygon.to_vec()], height, width).unwrap();
            assert_eq!(m.counts, counts);
            // the other way round and with a corner doubled it encloses the same
            let mut corners: Vec<&[f64]> = polygon.chunks(2).rev().collect();
            corners.push(&polygon[..2]);
            assert_eq!(Mask::from_polygons(&[corners.concat()], height, width).unwrap(), m);
        }
        let square = |x: f32| vec![x, 1.0, x + 2.0, 1.0, x + 2.0, 3.0, x, 3.0];
        let two = Mask::from_polygons(&[square(1.0), square(2.0), vec![0.0, 0.0, 5.0, 5.0]], 4, 6).unwrap();
        assert_eq!((two.area(), two.bbox()), (6, BBox::new(1.0, 1.0, 4.0, 3.0)));
    }

    #[test]
    fn overlap_as_pycocotools_prints_it() {
        let (a, b) = (mask(5, 2, &[3, 4, 3]), mask(5, 2, &[5, 5]));
        assert_eq!(a.intersection(&b), 2);
        assert!((a.iou(&b, false) - 2.0 / 7.0).abs() < 1e-12);
        assert_eq!(a.iou(&b, true), 0.5);
        assert_eq!(a.iou(&mask(2, 5, &[5, 5]), false), 0.0);
        assert_eq!(mask(1, 1, &[1]).iou(&mask(1, 1, &[1]), true), 0.0);
    }

    #[test]
    fn agrees_with_bitmaps() {
        let mut rng = Random::new(6);
        for (h, w) in [(1, 1), (1, 9), (9, 1), (4, 5), (17, 8), (31, 33)] {
            for density in [0.0, 0.05, 0.5, 0.95, 1.0] {
                let (a, b) = (random_bitmap(h, w, density, &mut rng), random_bitmap(h, w, 0.3, &mut rng));
                let (ma, mb) = (Mask::from_bitmap(h, w, &a).unwrap(), Mask::from_bitmap(h, w, &b).unwrap());
                ma.check().unwrap();
                assert_eq!(ma.to_bitmap().unwrap(), a);
                let both: u64 = a.iter().zip(&b).map(|(&p, &q)| u64::from(p & q)).sum();
                assert_eq!(ma.intersection(&mb), both);
                let union: Vec<u8> = a.iter().zip(&b).map(|(&p, &q)| p | q).collect();
                assert_eq!(ma.merge(&mb).unwrap(), Mask::from_bitmap(h, w, &union).unwrap());
                let mirrored: Vec<u8> =
                    a.chunks(w as usize).flat_map(|row| row.iter().rev().copied().collect::<Vec<u8>>()).collect();
                assert_eq!(ma.flip_horizontal(), Mask::from_bitmap(h, w, &mirrored).unwrap());
                assert_eq!(Mask::from_coco_string(&ma.to_coco_string(), h, w).unwrap(), ma);
                let inside = (0..h * w).filter(|&i| a[i as usize] != 0);
                let hull = inside.fold(None, |hull: Option<(u32, u32, u32, u32)>, i| {
                    let (y, x) = (i / w, i % w);
                    let (x0, y0, x1, y1) = hull.unwrap_or((x, y, x, y));
                    Some((x0.min(x), y0.min(y), x1.max(x), y1.max(y)))
                });
                let expected = hull.map_or_else(BBox::default, |(x0, y0, x1, y1)| {
                    BBox::new(x0 as f32, y0 as f32, x1 as f32 + 1.0, y1 as f32 + 1.0)
                });
                assert_eq!(ma.bbox(), expected);
            }
        }
    }

    #[test]
    fn rectangles_cover_every_pixel_inside_once() {
        let mut rng = Random::new(7);
        for (h, w) in [(1, 1), (1, 9), (9, 1), (4, 5), (17, 8)] {
            for density in [0.0, 0.1, 0.5, 0.9, 1.0] {
                let bitmap = random_bitmap(h, w, density, &mut rng);
                let mut covered = vec![0_u8; bitmap.len()];
                for b in Mask::from_bitmap(h, w, &bitmap).unwrap().rectangles() {
                    for y in b.y0 as usize..b.y1 as usize {
                        for x in b.x0 as usize..b.x1 as usize {
                            covered[y * w as usize + x] += 1;
                        }
                    }
                }
                assert_eq!(covered, bitmap, "{h}×{w}");
            }
        }
        // Columns that are alike are one box, also where a run goes over their ends; others are not.
        assert_eq!(mask(2, 3, &[0, 6]).rectangles(), [BBox::new(0.0, 0.0, 3.0, 2.0)]);
        assert_eq!(mask(3, 3, &[1, 1, 2, 1, 2, 1, 1]).rectangles(), [BBox::new(0.0, 1.0, 3.0, 2.0)]);
        assert_eq!(mask(1, 3, &[0, 1, 1, 1]).rectangles().len(), 2);
        assert!(Mask { height: 5, width: 9, counts: vec![1] }.rectangles().is_empty());
    }

    #[test]
    fn hostile_masks_are_errors() {
        let huge = 0xffff_ffff;
        assert_eq!(Mask::from_counts(huge, huge, vec![1]), Err(MaskError::TooLarge { height: huge, width: huge }));
        assert_eq!(
            Mask::from_counts(2, 2, vec![1, huge, huge]),
            Err(MaskError::Sum { sum: 1 + 2 * 0xffff_ffff, height: 2, width: 2 })
        );
        assert!(matches!(Mask::from_coco_string("T3", 3, 3), Err(MaskError::Sum { sum: 100, .. })));
        assert!(matches!(Mask::from_coco_string("", 3, 3), Err(MaskError::Sum { sum: 0, .. })));
        assert!(matches!(Mask::from_coco_string("0 3", 3, 3), Err(MaskError::Character { byte: 32, position: 1 })));
        // ever more groups, a group without its end, and a run below zero
        assert!(matches!(Mask::from_coco_string("oooooooooo", 3, 3), Err(MaskError::Run { position: 7 })));
        assert!(matches!(Mask::from_coco_string("o", 3, 3), Err(MaskError::Run { position: 1 })));
        assert!(matches!(Mask::from_coco_string("O", 3, 3), Err(MaskError::Run { position: 0 })));
        assert!(matches!(Mask::from_bitmap(3, 3, &[0; 8]), Err(MaskError::Bitmap { length: 8, .. })));
        let polygon = |p: &[f64]| Mask::from_polygons(&[p.to_vec()], 9, 9);
        assert_eq!(polygon(&[1.0, 2.0, 3.0]), Err(MaskError::Pairs { polygon: 0, length: 3 }));
        assert_eq!(polygon(&[1.0, f64::NAN]), Err(MaskError::Coordinate { polygon: 0 }));
        assert_eq!(polygon(&[1.0, 1e300]), Err(MaskError::Coordinate { polygon: 0 }));
        assert_eq!(polygon(&[-9e7, 0.0, 9e7, 1.0, 0.0, 5.0]), Err(MaskError::Outline { polygon: 0 }));
        // fields are public, so measures of a mask that was never checked must hold up too
        let wild = Mask { height: 3, width: 2, counts: vec![huge, huge, 0, huge] };
        assert!(wild.to_bitmap().is_err());
        let _ = (wild.area(), wild.bbox(), wild.flip_horizontal(), wild.iou(&wild, false), wild.to_coco_string());
    }
}
