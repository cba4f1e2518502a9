//! Which samples of a picture a polygon covers: exact integer scan conversion at four by four samples a pixel.
//!
//! Edges are anti-aliased by counting the covered samples of a pixel; boxes and visible parts come from the same
//! samples, so an annotation says exactly what was drawn.

/// Samples along each side of a pixel.
pub(super) const SAMPLES: i64 = 4;
/// Samples of one pixel.
pub(super) const FULL: u8 = 16;
/// Units of the fixed-point edge coordinates in one sample; a sample's centre lies at half of it.
const UNITS: i64 = 16;

/// A run of covered samples in one row of samples: `start..end`, not clipped to the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) row: i64,
    pub(super) start: i64,
    pub(super) end: i64,
}

/// Samples inside closed polygons by the even-odd rule. `polygons`: image pixels. Each sample is in at most one span.
pub(super) fn spans(polygons: &[Vec<[f64; 2]>]) -> Vec<Span> {
    let mut crossings: Vec<(i64, i64)> = Vec::new();
    for polygon in polygons {
        let fixed: Vec<(i64, i64)> = polygon.iter().map(|p| (to_units(p[0]), to_units(p[1]))).collect();
        for (k, &from) in fixed.iter().enumerate() {
            let to = fixed[(k + 1) % fixed.len()];
            cross_rows(from, to, &mut crossings);
        }
    }
    crossings.sort_unstable();
    // A closed polygon crosses every row an even number of times, so a pair never straddles two rows.
    let pairs = crossings.chunks_exact(2);
    pairs
        .filter(|pair| pair[0].1 < pair[1].1)
        .map(|pair| Span { row: pair[0].0, start: pair[0].1, end: pair[1].1 })
        .collect()
}

/// Pixels to fixed-point units. Coordinates are bounded by the layout, far inside `i64`.
fn to_units(pixels: f64) -> i64 {
    (pixels * (SAMPLES * UNITS) as f64).round() as i64
}

/// For each sample row whose centre the edge passes: the row, and the first sample right of the crossing.
fn cross_rows(from: (i64, i64), to: (i64, i64), crossings: &mut Vec<(i64, i64)>) {
    let (top, bottom) = if from.1 <= to.1 { (from, to) } else { (to, from) };
    let height = bottom.1 - top.1;
    if height == 0 {
        return;
    }
    let slope = bottom.0 - top.0;
    let half = UNITS / 2;
    // Half-open in y, so a corner that lies on a row's centre counts once.
    let first = ceil_div(top.1 - half, UNITS);
    let last = ceil_div(bottom.1 - half, UNITS);
    for row in first..last {
        let below_top = row * UNITS + half - top.1;
        let sample = ceil_div((top.0 - half) * height + below_top * slope, UNITS * height);
        crossings.push((row, sample));
    }
}

/// The quotient rounded up; `b` is positive.
fn ceil_div(a: i64, b: i64) -> i64 {
    -((-a).div_euclid(b))
}

/// Number of samples, those outside the picture included.
pub(super) fn count(spans: &[Span]) -> u64 {
    spans.iter().map(|s| (s.end - s.start) as u64).sum()
}

/// Pixels `x0..x1` by `y0..y1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PixelArea {
    pub(super) x0: usize,
    pub(super) y0: usize,
    pub(super) x1: usize,
    pub(super) y1: usize,
}

impl PixelArea {
    pub(super) fn width(&self) -> usize {
        self.x1 - self.x0
    }

    pub(super) fn height(&self) -> usize {
        self.y1 - self.y0
    }
}

/// A set of samples of a `width × height` picture, one bit each.
pub(super) struct SampleSet {
    columns: usize,
    rows: usize,
    words: usize,
    bits: Vec<u64>,
}

impl SampleSet {
    /// Empty, for a picture of so many pixels.
    pub(super) fn new(width: u32, height: u32) -> Self {
        let columns = width as usize * SAMPLES as usize;
        let rows = height as usize * SAMPLES as usize;
        let words = columns.div_ceil(64);
        Self { columns, rows, words, bits: vec![0; words * rows] }
    }

    /// The part of a span inside the picture, as row and columns.
    fn clip(&self, span: &Span) -> Option<(usize, usize, usize)> {
        let row = usize::try_from(span.row).ok().filter(|&row| row < self.rows)?;
        let start = span.start.clamp(0, self.columns as i64) as usize;
        let end = span.end.clamp(0, self.columns as i64) as usize;
        (start < end).then_some((row, start, end))
    }

    /// Calls `visit(row, word, mask, word_in_row)` for each word of each clipped span.
    fn for_each_word(&self, spans: &[Span], mut visit: impl FnMut(usize, usize, u64, usize)) {
        for (row, start, end) in spans.iter().filter_map(|span| self.clip(span)) {
            for (word, mask) in words_of(start, end) {
                visit(row, row * self.words + word, mask, word);
            }
        }
    }

    /// Adds the samples of `spans`.
    pub(super) fn insert(&mut self, spans: &[Span]) {
        for span in spans {
            let Some((row, start, end)) = self.clip(span) else {
                continue;
            };
            for (word, mask) in words_of(start, end) {
                self.bits[row * self.words + word] |= mask;
            }
        }
    }

    /// Samples of `spans` that lie in the picture and not in this set.
    pub(super) fn count_missing(&self, spans: &[Span]) -> u64 {
        let mut total = 0;
        self.for_each_word(spans, |_, index, mask, _| total += u64::from((mask & !self.bits[index]).count_ones()));
        total
    }

    /// Bounds of `spans` inside the picture in samples: left, top, right, bottom (exclusive). Nothing when outside.
    pub(super) fn bounds(&self, spans: &[Span]) -> Option<[usize; 4]> {
        let mut bounds: Option<[usize; 4]> = None;
        for (row, start, end) in spans.iter().filter_map(|span| self.clip(span)) {
            bounds = Some(match bounds {
                None => [start, row, end, row + 1],
                Some(b) => [b[0].min(start), b[1].min(row), b[2].max(end), b[3].max(row + 1)],
            });
        }
        bounds
    }

    /// The pixels that `spans` touch inside the picture.
    pub(super) fn pixel_area(&self, spans: &[Span]) -> Option<PixelArea> {
        let [x0, y0, x1, y1] = self.bounds(spans)?;
        let side = SAMPLES as usize;
        Some(PixelArea { x0: x0 / side, y0: y0 / side, x1: x1.div_ceil(side), y1: y1.div_ceil(side) })
    }

    /// For each pixel of `area` (row-major) how many of its 16 samples `spans` cover and this set does not.
    /// `area` comes from `pixel_area` of spans that contain these.
    pub(super) fn missing_by_pixel(&self, spans: &[Span], area: &PixelArea) -> Vec<u8> {
        let mut counts = vec![0u8; area.width() * area.height()];
        let width = area.width();
        self.for_each_word(spans, |row, index, mask, word| {
            let visible = mask & !self.bits[index];
            if visible == 0 {
                return;
            }
            // Samples of each of the word's 16 pixels, four bits a pixel: sums of pairs, then of pairs of pairs.
            let pairs = visible - ((visible >> 1) & 0x5555_5555_5555_5555);
            let samples = (pairs & 0x3333_3333_3333_3333) + ((pairs >> 2) & 0x3333_3333_3333_3333);
            let first = visible.trailing_zeros() as usize / 4;
            let last = (63 - visible.leading_zeros() as usize) / 4;
            let line = (row / SAMPLES as usize - area.y0) * width;
            let start = line + word * 16 + first - area.x0;
            for (pixel, count) in (first..).zip(&mut counts[start..=start + last - first]) {
                *count += ((samples >> (4 * pixel)) & 15) as u8;
            }
        });
        counts
    }
}

/// The words of a row that columns `start..end` touch, each with the bits that are meant; `start` is below `end`.
fn words_of(start: usize, end: usize) -> impl Iterator<Item = (usize, u64)> {
    let (first, last) = (start / 64, (end - 1) / 64);
    (first..=last).map(move |word| {
        let low = if word == first { start % 64 } else { 0 };
        let high = if word == last { (end - 1) % 64 } else { 63 };
        (word, (u64::MAX << low) & (u64::MAX >> (63 - high)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rectangle(x0: f64, y0: f64, x1: f64, y1: f64) -> Vec<[f64; 2]> {
        vec![[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
    }

    /// Even-odd by counting, for one sample centre: how many edges cross the ray to its left.
    fn covers(polygons: &[Vec<[f64; 2]>], x: f64, y: f64) -> bool {
        let mut inside = false;
        for polygon in polygons {
            for (k, a) in polygon.iter().enumerate() {
                let b = polygon[(k + 1) % polygon.len()];
                if (a[1] <= y) != (b[1] <= y) && a[0] + (y - a[1]) * (b[0] - a[0]) / (b[1] - a[1]) <= x {
                    inside = !inside;
                }
            }
        }
        inside
    }

    #[test]
    fn a_rectangle_on_the_pixel_grid_fills_its_pixels_exactly() {
        let spans = spans(&[rectangle(1.0, 2.0, 4.0, 4.0)]);
        assert_eq!(count(&spans), 3 * 2 * 16);
        let set = SampleSet::new(8, 8);
        assert_eq!(set.bounds(&spans), Some([4, 8, 16, 16]));
        let area = set.pixel_area(&spans).unwrap();
        assert_eq!(area, PixelArea { x0: 1, y0: 2, x1: 4, y1: 4 });
        assert!(set.missing_by_pixel(&spans, &area).iter().all(|&n| n == FULL));
    }

    #[test]
    fn spans_agree_with_point_in_polygon_on_odd_shapes() {
        // corners on multiples of 1/64 pixel, so rounding to units changes nothing
        let star = vec![[3.015625, 0.5], [5.25, 7.984375], [0.25, 2.75], [6.5, 2.515625], [1.0, 8.25]];
        let hole = vec![[2.5, 2.5], [4.0, 3.25], [3.0, 4.75]];
        let polygons = vec![star, hole];
        let spans = spans(&polygons);
        let mut differences = 0;
        for row in -4..40i64 {
            for column in -4..32i64 {
                let (x, y) = ((column as f64 + 0.5) / 4.0, (row as f64 + 0.5) / 4.0);
                let ours = spans.iter().any(|s| s.row == row && (s.start..s.end).contains(&column));
                differences += usize::from(ours != covers(&polygons, x, y));
            }
        }
        assert_eq!(differences, 0);
    }

    #[test]
    fn occlusion_and_the_picture_edge_are_counted() {
        // 130 pixels wide: rows of 520 samples, so words of 64 straddle
        let mut set = SampleSet::new(130, 4);
        let wide = spans(&[rectangle(-10.0, 1.0, 120.0, 2.0)]);
        assert_eq!(count(&wide), 130 * 16);
        assert_eq!(set.count_missing(&wide), 120 * 16);
        set.insert(&spans(&[rectangle(15.5, 0.0, 50.0, 1.5)]));
        // 34.5 pixels of half a row are hidden
        assert_eq!(set.count_missing(&wide), 120 * 16 - 69 * 4);
        let area = set.pixel_area(&wide).unwrap();
        let counts = set.missing_by_pixel(&wide, &area);
        assert_eq!(counts.len(), 120);
        assert_eq!((counts[14], counts[15], counts[16], counts[49], counts[50]), (16, 12, 8, 8, 16));
        assert_eq!(set.bounds(&spans(&[rectangle(0.0, 5.0, 3.0, 6.0)])), None);
    }
}
