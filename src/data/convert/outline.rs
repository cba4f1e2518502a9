//! The outline of a mask along its pixels' edges, as one closed line that fills back to the same mask.
//!
//! Parts and holes are joined by bridges that are walked both ways: a fill by the even-odd rule does not see them. So one
//! polygon says it all, which is what formats with one polygon an object need.

use crate::geometry::Mask;

/// Directions clockwise, as pictures are drawn: right, down, left, up.
const STEPS: [(i64, i64); 4] = [(1, 0), (0, 1), (-1, 0), (0, -1)];
const RIGHT: usize = 0;
const DOWN: usize = 1;
const LEFT: usize = 2;
const UP: usize = 3;

/// Corners `[x, y]` of the outline, pixel edges. Empty for an empty mask and for runs that do not fill their picture.
pub(super) fn outline(mask: &Mask) -> Vec<[u32; 2]> {
    if mask.check().is_err() {
        return Vec::new();
    }
    let segments = segments(mask);
    let Some(crop) = Crop::around(&segments) else {
        return Vec::new();
    };
    let mut edges = crop.edges(&segments);
    let mut loops: Vec<Vec<[u32; 2]>> = Vec::new();
    for vertex in 0..edges.len() {
        while edges.get(vertex).is_some_and(|out| *out != 0) {
            loops.push(crop.walk(vertex, &mut edges));
        }
    }
    joined(loops)
}

/// A run of pixels inside within one column: x, first row, row behind the last.
type Segment = (u32, u32, u32);

/// Runs of the mask by column, longest possible, from left to right and from top to bottom.
fn segments(mask: &Mask) -> Vec<Segment> {
    let height = u64::from(mask.height.max(1));
    let mut list: Vec<Segment> = Vec::new();
    let mut at = 0u64;
    for (index, &count) in mask.counts.iter().enumerate() {
        let end = at + u64::from(count);
        while index % 2 == 1 && at < end {
            let (column, top) = (at / height, at % height);
            let stop = end.min((column + 1) * height);
            let (x, y0, y1) = (column as u32, top as u32, (top + stop - at) as u32);
            match list.last_mut() {
                // Runs of ones with an empty run between them.
                Some(last) if last.0 == x && last.2 == y0 => last.2 = y1,
                _ => list.push((x, y0, y1)),
            }
            at = stop;
        }
        at = end;
    }
    list
}

/// The part of the picture that holds the mask.
struct Crop {
    x: u32,
    y: u32,
    /// Corners of pixels in a row: one more than pixels.
    stride: usize,
    rows: usize,
}

impl Crop {
    fn around(segments: &[Segment]) -> Option<Self> {
        let (x0, x1) = (segments.first()?.0, segments.last()?.0);
        let y0 = segments.iter().map(|segment| segment.1).min()?;
        let y1 = segments.iter().map(|segment| segment.2).max()?;
        Some(Self { x: x0, y: y0, stride: (x1 - x0) as usize + 2, rows: (y1 - y0) as usize + 1 })
    }

    fn index(&self, x: u32, y: u32) -> usize {
        (y - self.y) as usize * self.stride + (x - self.x) as usize
    }

    /// For each corner of a pixel the directions in which the outline leaves it, as bits; the mask lies to the right.
    fn edges(&self, segments: &[Segment]) -> Vec<u8> {
        let mut edges = vec![0u8; self.stride * self.rows];
        for &(x, y0, y1) in segments {
            edges[self.index(x, y0)] |= 1 << RIGHT;
            edges[self.index(x + 1, y1)] |= 1 << LEFT;
            for y in y0..y1 {
                // The left side is no edge where the pixel before it has left its right side.
                let before = self.index(x, y);
                if edges[before] & (1 << DOWN) != 0 {
                    edges[before] &= !(1 << DOWN);
                } else {
                    edges[self.index(x, y + 1)] |= 1 << UP;
                }
                edges[self.index(x + 1, y)] |= 1 << DOWN;
            }
        }
        edges
    }

    /// Follows the outline from `start` until it is back, taking the edges away. Gives the corners where it turns, the
    /// start first.
    fn walk(&self, start: usize, edges: &mut [u8]) -> Vec<[u32; 2]> {
        let mut corners = Vec::new();
        let mut at = start;
        let mut heading: Option<usize> = None;
        loop {
            // A right turn first: pixels that touch at a corner alone become loops of their own.
            let first = heading.map_or(0, |heading| heading + 1);
            let found = [0, 3, 2, 1]
                .map(|turn| (first + turn) % 4)
                .into_iter()
                .find(|&direction| edges.get(at).is_some_and(|out| *out & (1u8 << direction) != 0));
            let Some(direction) = found else { return corners };
            if heading != Some(direction) {
                corners.push([self.x + (at % self.stride) as u32, self.y + (at / self.stride) as u32]);
            }
            if let Some(out) = edges.get_mut(at) {
                *out &= !(1u8 << direction);
            }
            let (dx, dy) = STEPS[direction];
            at = (at as i64 + dx + dy * self.stride as i64) as usize;
            heading = Some(direction);
            if at == start {
                return corners;
            }
        }
    }
}

/// One closed line through all loops: from start to start, and the same way back.
fn joined(mut loops: Vec<Vec<[u32; 2]>>) -> Vec<[u32; 2]> {
    if loops.len() < 2 {
        return loops.pop().unwrap_or_default();
    }
    let starts: Vec<[u32; 2]> = loops.iter().filter_map(|corners| corners.first().copied()).collect();
    let mut line = Vec::new();
    for corners in loops {
        line.extend(corners.first().copied());
        line.extend(corners.iter().skip(1));
        line.extend(corners.first().copied());
    }
    // The last step, to the first start, closes the line.
    line.extend(starts.iter().skip(1).rev().skip(1));
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn refilled(mask: &Mask) -> Mask {
        let line: Vec<f64> = outline(mask).iter().flatten().map(|&v| f64::from(v)).collect();
        Mask::from_polygons(&[line], mask.height, mask.width).unwrap()
    }

    #[test]
    fn a_rectangle_has_four_corners() {
        let mut bitmap = vec![0u8; 6 * 8];
        for y in 1..4 {
            bitmap[y * 8 + 2..y * 8 + 7].fill(1);
        }
        let mask = Mask::from_bitmap(6, 8, &bitmap).unwrap();
        assert_eq!(outline(&mask), [[2, 1], [7, 1], [7, 4], [2, 4]]);
        assert_eq!(refilled(&mask), mask);
        let split = Mask::from_counts(2, 2, vec![0, 1, 0, 1, 2]).unwrap();
        assert_eq!(outline(&split), [[0, 0], [1, 0], [1, 2], [0, 2]], "an empty run between two runs of ones");
        assert!(outline(&Mask::from_counts(3, 3, vec![9]).unwrap()).is_empty());
        assert!(outline(&Mask { height: 3, width: 3, counts: vec![1, 99] }).is_empty());
    }

    #[test]
    fn parts_holes_and_noise_fill_back_to_the_same_mask() {
        let mut random = Random::new(11);
        for (height, width) in [(1, 1), (1, 7), (7, 1), (5, 4), (17, 8), (24, 31)] {
            for density in [0.05, 0.5, 0.9, 1.0] {
                let bitmap: Vec<u8> = (0..height * width).map(|_| u8::from(random.chance(density))).collect();
                let mask = Mask::from_bitmap(height, width, &bitmap).unwrap();
                if mask.area() > 0 {
                    assert_eq!(refilled(&mask), mask, "{height} × {width}, {density}");
                }
            }
        }
    }
}
