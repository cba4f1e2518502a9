//! SSD's priors (default boxes): per cell one or two squares and a wide and a tall box for each aspect ratio.
//!
//! RefineDet and M2Det use the same generator: RefineDet has no second square, so its `max_sizes` are empty.

use super::BBox;
use serde::{Deserialize, Serialize};

/// What becomes of a prior that leaves the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PriorClip {
    None,
    /// Centre and size each clamped to the image, as amdegroot, lufficc and M2Det do: the box may still cross the
    /// border.
    CornerAndSize,
    /// Only the sizes clamped, as torchvision does.
    SizeOnly,
}

/// Everything that decides the priors of all levels, finest level first. Lengths are pixels of the network's input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PriorSpec {
    /// Width and height of the network's input.
    pub image: (f32, f32),
    /// Distance of neighbouring cells, per level.
    pub steps: Vec<f32>,
    /// Side s of the first square, per level.
    pub min_sizes: Vec<f32>,
    /// s' = √(min · max) is the side of the second square; a level without an entry has no second square.
    pub max_sizes: Vec<f32>,
    /// For each r of a level: a box r times as wide as tall, and its transpose, both of area s².
    pub aspect_ratios: Vec<Vec<f32>>,
    pub clip: PriorClip,
}

impl PriorSpec {
    /// SSD300 with VOC's scales: 8732 priors on maps 38, 19, 10, 5, 3, 1.
    pub fn ssd300_voc() -> Self {
        Self::square(
            300.0,
            &[8.0, 16.0, 32.0, 64.0, 100.0, 300.0],
            &[30.0, 60.0, 111.0, 162.0, 213.0, 264.0, 315.0],
            PriorClip::CornerAndSize,
        )
    }

    /// SSD300 with COCO's smaller scales.
    pub fn ssd300_coco() -> Self {
        Self::square(
            300.0,
            &[8.0, 16.0, 32.0, 64.0, 100.0, 300.0],
            &[21.0, 45.0, 99.0, 153.0, 207.0, 261.0, 315.0],
            PriorClip::CornerAndSize,
        )
    }

    /// SSD512 with VOC's scales (lufficc): 24564 priors on maps 64, 32, 16, 8, 4, 2, 1.
    pub fn ssd512_voc() -> Self {
        Self::square(
            512.0,
            &[8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0],
            &[35.84, 76.8, 153.6, 230.4, 307.2, 384.0, 460.8, 537.65],
            PriorClip::CornerAndSize,
        )
    }

    /// SSD512 with COCO's smaller scales.
    pub fn ssd512_coco() -> Self {
        Self::square(
            512.0,
            &[8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0],
            &[20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72],
            PriorClip::CornerAndSize,
        )
    }

    /// torchvision's `ssd300_vgg16`: scales .07 .15 .33 .51 .69 .87 1.05 of 300, only the sizes clamped.
    pub fn torchvision_ssd300() -> Self {
        Self { clip: PriorClip::SizeOnly, ..Self::ssd300_coco() }
    }

    /// A square input whose level k has min `sizes[k]` and max `sizes[k + 1]`, with SSD's ratios: 2 on the first and
    /// the last two levels, 2 and 3 between.
    fn square(side: f32, steps: &[f32], sizes: &[f32], clip: PriorClip) -> Self {
        let levels = steps.len();
        let ratios = |level: usize| {
            if level == 0 || level + 2 >= levels { vec![2.0] } else { vec![2.0, 3.0] }
        };
        Self {
            image: (side, side),
            steps: steps.to_vec(),
            min_sizes: sizes.iter().copied().take(levels).collect(),
            max_sizes: sizes.iter().copied().skip(1).take(levels).collect(),
            aspect_ratios: (0..levels).map(ratios).collect(),
            clip,
        }
    }

    /// Levels that steps, sizes and ratios all describe.
    pub fn levels(&self) -> usize {
        self.steps.len().min(self.min_sizes.len()).min(self.aspect_ratios.len())
    }

    /// Priors of each cell of a level; 0 for a level that the spec lacks.
    pub fn per_cell(&self, level: usize) -> usize {
        self.cell_sizes(level).len()
    }

    /// Widths and heights of a level's priors in their order: s × s; s' × s'; then for each r the wide and the tall
    /// one.
    fn cell_sizes(&self, level: usize) -> Vec<(f64, f64)> {
        if level >= self.levels() {
            return Vec::new();
        }
        let s = f64::from(self.min_sizes[level]);
        let mut sizes = vec![(s, s)];
        if let Some(&max) = self.max_sizes.get(level) {
            let second = (s * f64::from(max)).sqrt();
            sizes.push((second, second));
        }
        for &r in &self.aspect_ratios[level] {
            let root = f64::from(r).sqrt();
            sizes.push((s * root, s / root));
            sizes.push((s / root, s * root));
        }
        sizes
    }

    /// One prior after the clip rule, from centre and size.
    fn prior(&self, cx: f64, cy: f64, w: f64, h: f64) -> BBox {
        let (width, height) = (f64::from(self.image.0), f64::from(self.image.1));
        let within = |value: f64, limit: f64| value.min(limit).max(0.0);
        let (cx, cy, w, h) = match self.clip {
            PriorClip::None => (cx, cy, w, h),
            PriorClip::CornerAndSize => (within(cx, width), within(cy, height), within(w, width), within(h, height)),
            PriorClip::SizeOnly => (cx, cy, within(w, width), within(h, height)),
        };
        BBox::new((cx - w / 2.0) as f32, (cy - h / 2.0) as f32, (cx + w / 2.0) as f32, (cy + h / 2.0) as f32)
    }
}

/// Priors of all levels in pixels of the network's input, in the order of the heads' outputs: level, row, column, prior
/// within the cell. `maps` are (rows, columns) of the feature maps; a map beyond the spec's levels gets no prior.
pub fn ssd_priors(spec: &PriorSpec, maps: &[(usize, usize)]) -> Vec<BBox> {
    let mut priors = Vec::new();
    for (level, (&(rows, columns), &step)) in maps.iter().zip(&spec.steps).enumerate() {
        let sizes = spec.cell_sizes(level);
        let step = f64::from(step);
        for row in 0..rows {
            for column in 0..columns {
                let (cx, cy) = ((column as f64 + 0.5) * step, (row as f64 + 0.5) * step);
                priors.extend(sizes.iter().map(|&(w, h)| spec.prior(cx, cy, w, h)));
            }
        }
    }
    priors
}

/// The paper's linear rule in pixels (SSD §2.2): level k of m has s_min + (s_max − s_min) · k / (m − 1), times `image`.
pub fn scales(s_min: f32, s_max: f32, levels: usize, image: f32) -> Vec<f32> {
    let gaps = levels.saturating_sub(1).max(1) as f32;
    (0..levels).map(|k| (s_min + (s_max - s_min) * k as f32 / gaps) * image).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS_300: [(usize, usize); 6] = [(38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)];

    fn squares(sides: &[usize]) -> Vec<(usize, usize)> {
        sides.iter().map(|&s| (s, s)).collect()
    }

    fn assert_cxcywh(b: BBox, expected: [f32; 4], tolerance: f32) {
        for (value, expected) in b.to_cxcywh().into_iter().zip(expected) {
            assert!((value - expected).abs() < tolerance, "{b:?} is not {expected:?}");
        }
    }

    fn assert_elements(priors: &[BBox], side: f32, elements: &[(usize, usize, f32)]) {
        for &(row, place, expected) in elements {
            let value = priors[row].to_cxcywh()[place] / side;
            assert!((value - expected).abs() < 1e-6, "prior {row}, element {place}: {value}, not {expected}");
        }
    }

    #[test]
    fn counts_are_the_papers() {
        let maps_512 = squares(&[64, 32, 16, 8, 4, 2, 1]);
        for spec in [PriorSpec::ssd300_voc(), PriorSpec::ssd300_coco(), PriorSpec::torchvision_ssd300()] {
            assert_eq!(ssd_priors(&spec, &MAPS_300).len(), 8732);
        }
        for spec in [PriorSpec::ssd512_voc(), PriorSpec::ssd512_coco()] {
            assert_eq!(ssd_priors(&spec, &maps_512).len(), 24564);
            assert_eq!((0..8).map(|l| spec.per_cell(l)).collect::<Vec<_>>(), [4, 6, 6, 6, 6, 4, 4, 0]);
        }
    }

    #[test]
    fn the_first_priors_of_ssd300() {
        let priors = ssd_priors(&PriorSpec::ssd300_voc(), &MAPS_300);
        // centre .5 · 8 / 300 of the image, s = 30, s' = √(30 · 60)
        assert_cxcywh(priors[0], [4.0, 4.0, 30.0, 30.0], 1e-4);
        assert_cxcywh(priors[1], [4.0, 4.0, 300.0 * 0.141_421, 300.0 * 0.141_421], 1e-3);
        assert_cxcywh(priors[2], [4.0, 4.0, 300.0 * 0.141_421, 300.0 * 0.070_711], 1e-3);
        assert_cxcywh(priors[3], [4.0, 4.0, 300.0 * 0.070_711, 300.0 * 0.141_421], 1e-3);
        // columns run before rows
        assert_cxcywh(priors[4], [12.0, 4.0, 30.0, 30.0], 1e-4);
        assert_cxcywh(priors[38 * 4], [4.0, 12.0, 30.0, 30.0], 1e-4);
    }

    #[test]
    fn the_clip_rules_differ_where_a_prior_is_larger_than_the_image() {
        let last = |clip| {
            let spec = PriorSpec { clip, ..PriorSpec::ssd300_voc() };
            ssd_priors(&spec, &MAPS_300)[8730]
        };
        // level 6: cell centre 150, s = 264, so the wide box is 264 · √2 = 373.35 by 186.68
        assert_cxcywh(last(PriorClip::None), [150.0, 150.0, 373.352, 186.676], 1e-2);
        assert_cxcywh(last(PriorClip::SizeOnly), [150.0, 150.0, 300.0, 186.676], 1e-2);
        assert_cxcywh(last(PriorClip::CornerAndSize), [150.0, 150.0, 300.0, 186.676], 1e-2);
        // a step that puts the last centre outside tells the other two apart
        let outside = |clip| {
            let spec = PriorSpec { clip, steps: vec![400.0; 6], ..PriorSpec::ssd300_voc() };
            ssd_priors(&spec, &[(1, 2)])[4]
        };
        assert_cxcywh(outside(PriorClip::SizeOnly), [600.0, 200.0, 30.0, 30.0], 1e-4);
        assert_cxcywh(outside(PriorClip::CornerAndSize), [300.0, 200.0, 30.0, 30.0], 1e-4);
    }

    #[test]
    fn refinedet_without_a_second_square() {
        let spec = PriorSpec {
            image: (320.0, 320.0),
            steps: vec![8.0, 16.0, 32.0, 64.0],
            min_sizes: vec![32.0, 64.0, 128.0, 256.0],
            max_sizes: Vec::new(),
            aspect_ratios: vec![vec![2.0]; 4],
            clip: PriorClip::CornerAndSize,
        };
        let priors = ssd_priors(&spec, &squares(&[40, 20, 10, 5]));
        assert_eq!(priors.len(), 6375);
        assert_cxcywh(priors[0], [4.0, 4.0, 32.0, 32.0], 1e-4);
        // elements of the priors that luuuyi/RefineDet.PyTorch computes: row, place in (cx, cy, w, h), value
        let elements = [
            (10, 2, 0.141_421_36),
            (71, 0, 0.5875),
            (250, 0, 0.0875),
            (286, 1, 0.0625),
            (4859, 3, 0.282_842_73),
            (6152, 3, 0.565_685_45),
            (6336, 0, 0.5),
        ];
        assert_elements(&priors, 320.0, &elements);
        // the wide box of the last level, 256 · √2 = 362, is cut to the image
        assert!((priors[6373].width() - 320.0).abs() < 1e-4);
    }

    #[test]
    fn m2det_320() {
        let sizes: Vec<f32> = [0.08, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05].iter().map(|p| p * 320.0).collect();
        let spec = PriorSpec {
            image: (320.0, 320.0),
            steps: vec![8.0, 16.0, 32.0, 64.0, 107.0, 320.0],
            min_sizes: sizes[..6].to_vec(),
            max_sizes: sizes[1..].to_vec(),
            aspect_ratios: vec![vec![2.0, 3.0]; 6],
            clip: PriorClip::CornerAndSize,
        };
        let priors = ssd_priors(&spec, &squares(&[40, 20, 10, 5, 3, 1]));
        assert_eq!(priors.len(), 12810);
        // elements of the priors that qijiezhao/M2Det computes: row, place in (cx, cy, w, h), value
        let elements = [
            (21, 2, 0.056_568_54),
            (137, 1, 0.0125),
            (1021, 2, 0.109_544_51),
            (1186, 3, 0.046_188_02),
            (10925, 3, 0.259_807_62),
            (12052, 2, 0.571_576_8),
            (12604, 2, 0.883_345_9),
            (12724, 1, 0.9),
        ];
        assert_elements(&priors, 320.0, &elements);
    }

    #[test]
    fn a_non_square_map_and_missing_levels() {
        let spec = PriorSpec { image: (480.0, 320.0), ..PriorSpec::ssd300_voc() };
        let priors = ssd_priors(&spec, &[(2, 3)]);
        assert_eq!(priors.len(), 2 * 3 * 4);
        assert_cxcywh(priors[5 * 4], [20.0, 12.0, 30.0, 30.0], 1e-4);
        assert_eq!(ssd_priors(&spec, &[(1, 1); 9]).len(), 4 + 6 + 6 + 6 + 4 + 4);
        assert_eq!(spec.per_cell(6), 0);
    }

    #[test]
    fn the_linear_rule_gives_ssd300s_scales() {
        // SSD §2.2 with s_min .2, s_max .9 and six levels
        let expected = [60.0, 102.0, 144.0, 186.0, 228.0, 270.0];
        for (a, b) in scales(0.2, 0.9, 6, 300.0).into_iter().zip(expected) {
            assert!((a - b).abs() < 1e-3);
        }
        assert_eq!(scales(0.5, 0.9, 1, 100.0), [50.0]);
        assert!(scales(0.2, 0.9, 0, 100.0).is_empty());
    }
}
