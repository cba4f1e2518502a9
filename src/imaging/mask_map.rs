//! A mask under a map of its axes: cropped, moved, mirrored or resized, all by one rule and run by run.

use crate::geometry::Mask;

/// The mask whose pixel in column `x` and row `y` is that of `mask` in `columns[x]` and `rows[y]`; a pixel without a
/// source is outside. Nothing for a mask that does not read or a result above 2^28 pixels.
///
/// Only columns with something inside are walked, so a small object in a large picture costs little.
pub fn map_mask(mask: &Mask, columns: &[Option<usize>], rows: &[Option<usize>]) -> Option<Mask> {
    mask.check().ok()?;
    let (height, width) = (u32::try_from(rows.len()).ok()?, u32::try_from(columns.len()).ok()?);
    height.checked_mul(width)?;
    let source_height = u64::from(mask.height);
    let ranges = ranges(mask);
    // Without columns a mask may claim any height.
    let mut column = vec![false; if mask.width == 0 { 0 } else { mask.height as usize }];
    let mut runs = Runs::default();
    for source in columns {
        let Some((start, inside)) = source.and_then(|x| runs_in_column(&ranges, x, mask)) else {
            runs.push(false, height);
            continue;
        };
        let within = |at: u64| at.saturating_sub(start).min(source_height) as usize;
        for range in inside {
            column[within(range.0)..within(range.1)].fill(true);
        }
        for row in rows {
            runs.push(row.is_some_and(|y| column.get(y).is_some_and(|inside| *inside)), 1);
        }
        column.fill(false);
    }
    Mask::from_counts(height, width, runs.finish()).ok()
}

/// Where column `x` starts, and the runs that touch it; nothing for a column that is outside or empty.
fn runs_in_column<'a>(ranges: &'a [(u64, u64)], x: usize, mask: &Mask) -> Option<(u64, &'a [(u64, u64)])> {
    if x >= mask.width as usize {
        return None;
    }
    let start = x as u64 * u64::from(mask.height);
    let end = start + u64::from(mask.height);
    let first = ranges.partition_point(|range| range.1 <= start);
    let last = ranges.partition_point(|range| range.0 < end);
    ranges.get(first..last).filter(|inside| !inside.is_empty()).map(|inside| (start, inside))
}

/// For each of `length` pixels, the pixel at `offset` from it among `limit`; from the other end when `mirrored`.
pub fn shifted(length: u32, offset: i64, limit: u32, mirrored: bool) -> Vec<Option<usize>> {
    let source = |at: u32| -> Option<usize> {
        let at = if mirrored { length - 1 - at } else { at };
        let place = i64::from(at).checked_add(offset)?;
        usize::try_from(place).ok().filter(|place| *place < limit as usize)
    };
    (0..length).map(source).collect()
}

/// For each of `length` pixels, the one of `limit` pixels that lies under its centre, where
/// `pixel = source · scale + offset`; nothing beyond either end.
pub fn resampled(length: usize, scale: f32, offset: f32, limit: u32) -> Vec<Option<usize>> {
    let source = |at: usize| -> Option<usize> {
        let place = ((at as f32 + 0.5 - offset) / scale).floor();
        // False for a place that is not a number.
        (place >= 0.0 && place < limit as f32).then_some(place as usize)
    };
    (0..length).map(source).collect()
}

/// Runs of ones as half-open ranges of column-major positions, rising.
fn ranges(mask: &Mask) -> Vec<(u64, u64)> {
    let mut at = 0u64;
    let mut ranges = Vec::with_capacity(mask.counts.len() / 2);
    for pair in mask.counts.chunks(2) {
        let &[zeros, ones] = pair else { break };
        let start = at + u64::from(zeros);
        at = start + u64::from(ones);
        if ones > 0 {
            ranges.push((start, at));
        }
    }
    ranges
}

/// Alternating run lengths, zeros first.
#[derive(Default)]
struct Runs {
    counts: Vec<u32>,
    inside: bool,
    length: u32,
}

impl Runs {
    fn push(&mut self, inside: bool, length: u32) {
        if inside != self.inside {
            self.counts.push(self.length);
            self.inside = inside;
            self.length = 0;
        }
        self.length += length;
    }

    fn finish(mut self) -> Vec<u32> {
        if self.length > 0 || self.counts.is_empty() {
            self.counts.push(self.length);
        }
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn noise(width: u32, height: u32, share: f32, seed: u64) -> Vec<u8> {
        let mut rng = Random::new(seed);
        (0..width * height).map(|_| u8::from(rng.chance(share))).collect()
    }

    #[test]
    fn every_map_agrees_with_looking_each_pixel_up() {
        for (seed, (width, height)) in [(1u32, 1u32), (5, 3), (2, 9), (13, 8)].into_iter().enumerate() {
            for share in [0.0, 0.2, 0.8, 1.0] {
                let bitmap = noise(width, height, share, seed as u64);
                let mask = Mask::from_bitmap(height, width, &bitmap).unwrap();
                let maps = [
                    (shifted(width, 0, width, false), shifted(height, 0, height, false)),
                    (shifted(width, 0, width, true), shifted(height, 0, height, true)),
                    (shifted(width + 4, -2, width, false), shifted(3, 1, height, true)),
                    (resampled(11, 2.3, 1.5, width), resampled(7, 0.6, -0.4, height)),
                    (vec![None, Some(0), Some(99)], vec![Some(0), None, Some(99), Some(0)]),
                ];
                for (columns, rows) in maps {
                    let found = map_mask(&mask, &columns, &rows).unwrap();
                    let pixel = |x: Option<usize>, y: Option<usize>| match (x, y) {
                        (Some(x), Some(y)) if x < width as usize && y < height as usize => {
                            bitmap[y * width as usize + x]
                        }
                        _ => 0,
                    };
                    let mut expected = Vec::new();
                    for y in &rows {
                        expected.extend(columns.iter().map(|x| pixel(*x, *y)));
                    }
                    let expected = Mask::from_bitmap(rows.len() as u32, columns.len() as u32, &expected).unwrap();
                    assert_eq!(found, expected, "{width}×{height}, {columns:?}, {rows:?}");
                }
            }
        }
    }

    #[test]
    fn a_mirror_agrees_with_the_masks_own() {
        let mask = Mask::from_bitmap(4, 6, &noise(6, 4, 0.5, 3)).unwrap();
        let mirrored = map_mask(&mask, &shifted(6, 0, 6, true), &shifted(4, 0, 4, false));
        assert_eq!(mirrored, Some(mask.flip_horizontal()));
    }

    #[test]
    fn torn_masks_and_empty_sizes_are_harmless() {
        let torn = Mask { height: 5, width: 9, counts: vec![1] };
        assert_eq!(map_mask(&torn, &shifted(9, 0, 9, false), &shifted(5, 0, 5, false)), None);
        let empty = Mask::from_bitmap(0, 0, &[]).unwrap();
        assert_eq!(map_mask(&empty, &[], &[]), Some(empty.clone()));
        assert_eq!(map_mask(&empty, &[None], &[Some(0)]).map(|m| m.counts), Some(vec![1]));
        assert!(shifted(2, i64::MAX, 5, false).iter().all(Option::is_none));
        assert!(resampled(3, f32::NAN, 0.0, 5).iter().all(Option::is_none));
    }
}
