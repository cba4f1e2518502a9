//! Anchors of RetinaNet and RPN: every size with every ratio around each cell of a feature map.
//!
//! Implementations differ in rounding, in the order within a cell and in where a cell's centre lies; anchors of one
//! must never meet weights of another, so the spec names all three.

use super::BBox;
use serde::{Deserialize, Serialize};

/// Order of the anchors of one cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AnchorOrder {
    /// Ratio outside, size inside: torchvision, mmdet, yhenon.
    RatioMajor,
    /// Size outside, ratio inside: detectron2.
    SizeMajor,
}

/// Everything that decides the anchors of all levels, finest level first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnchorSpec {
    /// Per level: the sides of the square anchors in pixels of the network's input.
    pub sizes: Vec<Vec<f32>>,
    /// Height over width. An anchor of size s and ratio r is s / √r wide and s · √r tall.
    pub aspect_ratios: Vec<f32>,
    pub order: AnchorOrder,
    /// Corners of the cell's anchors rounded half to even (torchvision).
    pub rounded: bool,
    /// Where in the cell its centre lies, in strides: 0 for the top left corner, 0.5 for the middle.
    pub center: f32,
}

/// RetinaNet's three sizes of each of the levels P3..P7: base · {1, 2^⅓, 2^⅔}.
fn retina_sizes(truncated: bool) -> Vec<Vec<f32>> {
    let level = |base: f64| -> Vec<f32> {
        (0..3_i32)
            .map(|octave| {
                let size = base * (f64::from(octave) / 3.0).exp2();
                // the first size is exact, so truncation cannot lose a whole pixel to rounding
                if truncated { size.floor() as f32 } else { size as f32 }
            })
            .collect()
    };
    [32.0, 64.0, 128.0, 256.0, 512.0].into_iter().map(level).collect()
}

impl AnchorSpec {
    /// torchvision's RetinaNet: integer sizes, rounded corners, cells at their top left corner.
    pub fn torchvision_retinanet() -> Self {
        Self { sizes: retina_sizes(true), rounded: true, ..Self::mmdet_retinanet() }
    }

    /// mmdet's RetinaNet: float, ratio-major.
    pub fn mmdet_retinanet() -> Self {
        Self {
            sizes: retina_sizes(false),
            aspect_ratios: vec![0.5, 1.0, 2.0],
            order: AnchorOrder::RatioMajor,
            rounded: false,
            center: 0.0,
        }
    }

    /// detectron2's RetinaNet: float, size-major.
    pub fn detectron2_retinanet() -> Self {
        Self { order: AnchorOrder::SizeMajor, ..Self::mmdet_retinanet() }
    }

    /// yhenon's RetinaNet: float, ratio-major, around the middle of the cell.
    pub fn yhenon_retinanet() -> Self {
        Self { center: 0.5, ..Self::mmdet_retinanet() }
    }

    /// torchvision's RPN on P2..P6: one size a level, rounded corners.
    pub fn torchvision_rpn() -> Self {
        Self { rounded: true, ..Self::float_rpn() }
    }

    /// The RPN of detectron2 and mmdet on P2..P6: one size a level, float.
    pub fn float_rpn() -> Self {
        Self { sizes: [32.0, 64.0, 128.0, 256.0, 512.0].map(|s| vec![s]).to_vec(), ..Self::mmdet_retinanet() }
    }

    /// Anchors of each cell of a level; 0 for a level that the spec lacks.
    pub fn per_cell(&self, level: usize) -> usize {
        self.sizes.get(level).map_or(0, |sizes| sizes.len() * self.aspect_ratios.len())
    }

    /// Anchors of one cell of a level around the origin.
    pub fn cell_anchors(&self, level: usize) -> Vec<BBox> {
        let sizes: &[f32] = self.sizes.get(level).map(Vec::as_slice).unwrap_or_default();
        let mut anchors = Vec::with_capacity(self.per_cell(level));
        match self.order {
            AnchorOrder::RatioMajor => {
                for &ratio in &self.aspect_ratios {
                    anchors.extend(sizes.iter().map(|&size| self.cell_anchor(size, ratio)));
                }
            }
            AnchorOrder::SizeMajor => {
                for &size in sizes {
                    anchors.extend(self.aspect_ratios.iter().map(|&ratio| self.cell_anchor(size, ratio)));
                }
            }
        }
        anchors
    }

    fn cell_anchor(&self, size: f32, ratio: f32) -> BBox {
        if self.rounded {
            // in f32 like torchvision, so that a value at the edge rounds to the same side
            let tall = ratio.sqrt();
            let half_width = (1.0 / tall * size / 2.0).round_ties_even();
            let half_height = (tall * size / 2.0).round_ties_even();
            return BBox::new(-half_width, -half_height, half_width, half_height);
        }
        let (size, tall) = (f64::from(size), f64::from(ratio).sqrt());
        let (half_width, half_height) = ((size / tall / 2.0) as f32, (size * tall / 2.0) as f32);
        BBox::new(-half_width, -half_height, half_width, half_height)
    }

    /// Anchors of all levels in the order of the heads' outputs: level, row, column, anchor within the cell.
    /// `maps` are (rows, columns) of the feature maps, `strides` (down a row, along a column) in pixels; a map without
    /// its stride or sizes gets no anchor.
    pub fn grid_anchors(&self, maps: &[(usize, usize)], strides: &[(f32, f32)]) -> Vec<BBox> {
        let mut anchors = Vec::new();
        for (level, (&(rows, columns), &(down, along))) in maps.iter().zip(strides).enumerate() {
            let cell = self.cell_anchors(level);
            for row in 0..rows {
                let y = (row as f32 + self.center) * down;
                for column in 0..columns {
                    let x = (column as f32 + self.center) * along;
                    anchors.extend(cell.iter().map(|anchor| anchor.shift(x, y)));
                }
            }
        }
        anchors
    }
}

/// torchvision's strides: the padded input's (height, width) over each map's (rows, columns), rounded down.
/// On the coarse levels they differ from 8, 16, 32, … and between the axes. An empty map has stride 0.
pub fn integer_strides(input: (usize, usize), maps: &[(usize, usize)]) -> Vec<(f32, f32)> {
    let floor = |length: usize, cells: usize| length.checked_div(cells).unwrap_or(0) as f32;
    maps.iter().map(|&(rows, columns)| (floor(input.0, rows), floor(input.1, columns))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: [(usize, usize); 5] = [(100, 168), (50, 84), (25, 42), (13, 21), (7, 11)];

    fn corners(b: &BBox) -> [f32; 4] {
        [b.x0, b.y0, b.x1, b.y1]
    }

    #[test]
    fn torchvisions_rounded_anchors() {
        let rpn = AnchorSpec::torchvision_rpn();
        let cell: Vec<[f32; 4]> = rpn.cell_anchors(0).iter().map(corners).collect();
        // printed by torchvision's AnchorGenerator for size 32 and ratios ½, 1, 2
        assert_eq!(cell, [[-23.0, -11.0, 23.0, 11.0], [-16.0, -16.0, 16.0, 16.0], [-11.0, -23.0, 11.0, 23.0]]);
        let retina = AnchorSpec::torchvision_retinanet();
        assert_eq!(retina.sizes[0], [32.0, 40.0, 50.0]);
        assert_eq!(retina.sizes[2], [128.0, 161.0, 203.0]);
        assert_eq!(retina.sizes[4], [512.0, 645.0, 812.0]);
        // 40 / √½ / 2 = 28.28 and 40 · √½ / 2 = 14.14; 50: 35.36 and 17.68
        let cell = retina.cell_anchors(0);
        assert_eq!(corners(&cell[1]), [-28.0, -14.0, 28.0, 14.0]);
        assert_eq!(corners(&cell[2]), [-35.0, -18.0, 35.0, 18.0]);
        assert_eq!(corners(&cell[5]), [-25.0, -25.0, 25.0, 25.0]);
    }

    #[test]
    fn the_orders_hold_the_same_anchors() {
        let by_ratio = AnchorSpec::mmdet_retinanet().cell_anchors(1);
        let by_size = AnchorSpec::detectron2_retinanet().cell_anchors(1);
        assert_eq!((by_ratio.len(), by_size.len()), (9, 9));
        for ratio in 0..3 {
            for size in 0..3 {
                assert_eq!(by_ratio[ratio * 3 + size], by_size[size * 3 + ratio]);
            }
        }
        // area s² and height over width as asked: s = 64 · 2^⅓, r = 2
        let b = by_ratio[7];
        assert!((b.area() / 6502.0 - 1.0).abs() < 1e-4, "{}", b.area());
        assert!((b.height() / b.width() - 2.0).abs() < 1e-5);
    }

    #[test]
    fn counts_for_an_800_by_1344_input() {
        let strides = integer_strides((800, 1344), &MAPS);
        assert_eq!(AnchorSpec::torchvision_retinanet().grid_anchors(&MAPS, &strides).len(), 201_600);
        // torchvision's strides on P6 and P7: 800 / 13 = 61.5, 1344 / 21 = 64, 800 / 7 = 114.3, 1344 / 11 = 122.2
        assert_eq!(strides[..2], [(8.0, 8.0), (16.0, 16.0)]);
        assert_eq!(strides[3..], [(61.0, 64.0), (114.0, 122.0)]);
        let maps = [(200, 336), (100, 168), (50, 84), (25, 42), (13, 21)];
        let strides: Vec<(f32, f32)> = [4.0, 8.0, 16.0, 32.0, 64.0].map(|s| (s, s)).to_vec();
        assert_eq!(AnchorSpec::float_rpn().grid_anchors(&maps, &strides).len(), 268_569);
        assert_eq!(integer_strides((10, 10), &[(0, 5)]), [(0.0, 2.0)]);
    }

    #[test]
    fn cells_run_along_rows_and_the_middle_is_half_a_stride_away() {
        let (maps, strides) = ([(2, 3)], [(8.0, 16.0)]);
        let corner = AnchorSpec::torchvision_rpn().grid_anchors(&maps, &strides);
        assert_eq!(corner.len(), 18);
        // fourth cell: row 1, column 0; sixth: row 1, column 2
        assert_eq!(corner[9 + 1].center(), (0.0, 8.0));
        assert_eq!(corner[15 + 1].center(), (32.0, 8.0));
        let middle = AnchorSpec::yhenon_retinanet().grid_anchors(&maps, &strides);
        assert_eq!(middle[4].center(), (8.0, 4.0));
        assert_eq!(AnchorSpec::float_rpn().grid_anchors(&[(1, 1); 7], &[(8.0, 8.0); 7]).len(), 15);
        assert_eq!(AnchorSpec::float_rpn().per_cell(5), 0);
    }
}
