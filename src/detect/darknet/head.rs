//! The grid behind YOLO's raw maps: which cell and which prior every number belongs to, and the box code.
//!
//! A level's map is `[N, A·(5 + C), H, W]`, for each of its A priors tx, ty, tw, th, objectness, then C classes. Boxes:
//! centre (σ(tx) + column, σ(ty) + row) in cells, sides (prior width · e^tw, prior height · e^th) (paper §2.1).

use super::objective::Offsets;
use crate::detect::Outputs;
use crate::geometry::BBox;
use crate::ops::maps::by_cell;
use crate::trace::{AnchorLevel, Anchors};
use candle_core::{Result, Tensor};

/// Objectness that a new network predicts everywhere.
const PRIOR_OBJECTNESS: f32 = 0.01;
/// Least factor between an object's side and its prior's, as mmdet bounds it.
const LEAST_RATIO: f32 = 1e-6;

/// 1 / (1 + e^−x).
pub(in crate::detect) fn logistic(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// One detection layer.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::detect) struct Level {
    /// Name of its raw map among the outputs.
    pub output: String,
    /// Width and height of all the priors that compete for an object, input pixels.
    pub priors: Vec<[f32; 2]>,
    /// Indices of those that this level predicts with.
    pub mask: Vec<usize>,
    /// Logistic offsets are stretched by this about the middle of the cell, so that they reach its edge (darknet's
    /// `scale_x_y`); 1 does nothing.
    pub scale_xy: f32,
}

/// All detection layers of a network, in the order of its outputs.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::detect) struct Head {
    pub levels: Vec<Level>,
    pub classes: usize,
    pub offsets: Offsets,
}

/// One anchor: a prior in a cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::detect) struct Slot {
    pub column: f32,
    pub row: f32,
    /// Pixels of the input between neighbouring cells, across and down.
    pub stride: [f32; 2],
    /// Width and height, input pixels.
    pub prior: [f32; 2],
    pub scale_xy: f32,
}

impl Slot {
    /// The prior around the middle of its cell.
    pub fn anchor(&self) -> BBox {
        let (x, y) = ((self.column + 0.5) * self.stride[0], (self.row + 0.5) * self.stride[1]);
        BBox::from_cxcywh(x, y, self.prior[0], self.prior[1])
    }

    /// The box that tx, ty, tw, th mean, in input pixels; not clipped, and not finite where a side overflows.
    pub fn decode(&self, [tx, ty, tw, th]: [f32; 4], offsets: Offsets) -> BBox {
        let place = |t: f32, axis: usize| match offsets {
            Offsets::Logistic => logistic(t) * self.scale_xy - (self.scale_xy - 1.0) / 2.0,
            Offsets::Linear => t,
            Offsets::Anchor => 0.5 + t * self.prior[axis] / self.stride[axis],
        };
        let (x, y) = ((place(tx, 0) + self.column) * self.stride[0], (place(ty, 1) + self.row) * self.stride[1]);
        BBox::from_cxcywh(x, y, tw.exp() * self.prior[0], th.exp() * self.prior[1])
    }

    /// What should be learnt for `bbox`: the logistics of tx and ty (themselves where they are linear), then tw, th.
    pub fn encode(&self, bbox: BBox, offsets: Offsets) -> [f32; 4] {
        let [x, y, width, height] = bbox.to_cxcywh();
        let place = |center: f32, axis: usize, cell: f32| {
            let inside = center / self.stride[axis] - cell;
            match offsets {
                Offsets::Logistic => ((inside + (self.scale_xy - 1.0) / 2.0) / self.scale_xy).clamp(0.0, 1.0),
                Offsets::Linear => inside,
                Offsets::Anchor => (inside - 0.5) * self.stride[axis] / self.prior[axis],
            }
        };
        [
            place(x, 0, self.column),
            place(y, 1, self.row),
            (width / self.prior[0]).max(LEAST_RATIO).ln(),
            (height / self.prior[1]).max(LEAST_RATIO).ln(),
        ]
    }
}

impl Head {
    /// Numbers of one anchor.
    pub fn attributes(&self) -> usize {
        5 + self.classes
    }

    /// The raw maps of all levels as rows `[N, M, 5 + C]`: level by level, cells row-major, priors within the cell.
    ///
    /// # Errors
    /// A raw map that is missing or has another number of channels.
    pub fn rows(&self, outputs: &Outputs) -> Result<Tensor> {
        let mut maps = Vec::with_capacity(self.levels.len());
        for level in &self.levels {
            let map = outputs.get(&level.output)?;
            let (_, channels, ..) = map.dims4()?;
            let per_cell = level.mask.len();
            if channels != per_cell * self.attributes() {
                candle_core::bail!(
                    "{} has {channels} channels, not {per_cell}·(5 + {} classes)",
                    level.output,
                    self.classes
                );
            }
            maps.push(map);
        }
        by_cell(maps, self.attributes())
    }

    /// The run of anchors of each level.
    pub fn runs(&self, outputs: &Outputs) -> Vec<AnchorLevel> {
        let mut start = 0;
        let mut runs = Vec::with_capacity(self.levels.len());
        for (level, &(rows, columns)) in self.levels.iter().zip(&outputs.maps) {
            let per_cell = level.mask.len();
            let len = rows * columns * per_cell;
            let stride = outputs.input.1 as f32 / columns.max(1) as f32;
            runs.push(AnchorLevel { start, len, rows, columns, per_cell, stride });
            start += len;
        }
        runs
    }

    /// Every anchor in the order of [`Self::rows`].
    pub fn slots(&self, outputs: &Outputs) -> Vec<Slot> {
        let mut slots = Vec::new();
        for (level, &(rows, columns)) in self.levels.iter().zip(&outputs.maps) {
            let stride = [outputs.input.1 as f32 / columns.max(1) as f32, outputs.input.0 as f32 / rows.max(1) as f32];
            let priors: Vec<[f32; 2]> = level.mask.iter().filter_map(|&i| level.priors.get(i).copied()).collect();
            for row in 0..rows {
                for column in 0..columns {
                    let cell = |&prior: &[f32; 2]| Slot {
                        column: column as f32,
                        row: row as f32,
                        stride,
                        prior,
                        scale_xy: level.scale_xy,
                    };
                    slots.extend(priors.iter().map(cell));
                }
            }
        }
        slots
    }

    /// The anchors for a trace.
    pub fn anchors(&self, outputs: &Outputs) -> Anchors {
        Anchors { boxes: self.slots(outputs).iter().map(Slot::anchor).collect(), levels: self.runs(outputs) }
    }

    /// Bias of a new network's last convolution of a level: objects are rare and every class is as likely.
    pub fn first_bias(&self, per_cell: usize) -> Vec<f32> {
        let odds = |p: f32| (p / (1.0 - p)).ln();
        let class = odds(1.0 / self.classes.max(2) as f32);
        let mut anchor = vec![0.0, 0.0, 0.0, 0.0, odds(PRIOR_OBJECTNESS)];
        anchor.resize(self.attributes(), class);
        anchor.repeat(per_cell)
    }
}

#[cfg(test)]
pub(in crate::detect) mod tests {
    use super::*;
    use candle_core::Device;

    /// Two levels of a 64×32 input (2×4 and 1×2 cells) with one and two of three priors, and two classes.
    pub(in crate::detect) fn small_head(offsets: Offsets) -> Head {
        let priors = vec![[8.0, 10.0], [20.0, 16.0], [30.0, 40.0]];
        let level = |output: &str, mask: Vec<usize>| Level {
            output: output.to_owned(),
            priors: priors.clone(),
            mask,
            scale_xy: 1.0,
        };
        Head { levels: vec![level("fine", vec![0]), level("coarse", vec![1, 2])], classes: 2, offsets }
    }

    /// Raw maps whose numbers come from `value(image, anchor, attribute)`.
    pub(in crate::detect) fn raw_outputs(
        head: &Head,
        images: usize,
        value: impl Fn(usize, usize, usize) -> f32,
    ) -> Result<Outputs> {
        let mut outputs = Outputs { tensors: Vec::new(), maps: vec![(2, 4), (1, 2)], input: (32, 64) };
        let mut start = 0;
        for (level, (rows, columns)) in head.levels.iter().zip([(2usize, 4usize), (1, 2)]) {
            let (per_cell, attributes) = (level.mask.len(), head.attributes());
            let mut map = vec![0.0; images * per_cell * attributes * rows * columns];
            for image in 0..images {
                for cell in 0..rows * columns {
                    for position in 0..per_cell {
                        for attribute in 0..attributes {
                            let channel = position * attributes + attribute;
                            let at = (image * per_cell * attributes + channel) * rows * columns + cell;
                            map[at] = value(image, start + cell * per_cell + position, attribute);
                        }
                    }
                }
            }
            let shape = (images, per_cell * attributes, rows, columns);
            outputs.tensors.push((level.output.clone(), Tensor::from_vec(map, shape, &Device::Cpu)?));
            start += rows * columns * per_cell;
        }
        Ok(outputs)
    }

    #[test]
    fn rows_slots_and_runs_are_in_one_order() -> Result<()> {
        let head = small_head(Offsets::Logistic);
        let outputs = raw_outputs(&head, 2, |image, anchor, k| (image * 1000 + anchor * 10 + k) as f32)?;
        let rows = head.rows(&outputs)?;
        assert_eq!(rows.dims(), [2, 12, 7]);
        assert_eq!(rows.get(1)?.get(9)?.to_vec1::<f32>()?, [1090.0, 1091.0, 1092.0, 1093.0, 1094.0, 1095.0, 1096.0]);
        let slots = head.slots(&outputs);
        let fifth = Slot { column: 1.0, row: 1.0, stride: [16.0; 2], prior: [8.0, 10.0], scale_xy: 1.0 };
        assert_eq!((slots.len(), slots[5]), (12, fifth));
        let last = Slot { column: 1.0, row: 0.0, stride: [32.0; 2], prior: [30.0, 40.0], scale_xy: 1.0 };
        assert_eq!(slots[11], last);
        let anchors = head.anchors(&outputs);
        assert_eq!(anchors.boxes[5], BBox::new(20.0, 19.0, 28.0, 29.0));
        assert_eq!((anchors.levels[1].start, anchors.levels[1].len, anchors.levels[1].stride), (8, 4, 32.0));
        assert_eq!(anchors.level_of(7), Some(0));
        Ok(())
    }

    #[test]
    fn a_map_with_other_channels_is_an_error() -> Result<()> {
        let head = small_head(Offsets::Logistic);
        let mut outputs = raw_outputs(&head, 1, |_, _, _| 0.0)?;
        outputs.tensors[0].1 = outputs.tensors[0].1.narrow(1, 0, 6)?;
        assert!(head.rows(&outputs).unwrap_err().to_string().contains("fine has 6 channels"));
        outputs.tensors.clear();
        assert!(head.rows(&outputs).is_err());
        Ok(())
    }

    #[test]
    fn one_cell_by_hand() {
        let slot = Slot { column: 3.0, row: 1.0, stride: [16.0; 2], prior: [8.0, 10.0], scale_xy: 1.0 };
        let ln2 = std::f32::consts::LN_2;
        // σ(0) = 1/2 and σ(ln 3) = 3/4: centre (3.5, 1.75)·16; sides 8·2 and 10/2
        let bbox = slot.decode([0.0, 3f32.ln(), ln2, -ln2], Offsets::Logistic);
        let expected = BBox::from_cxcywh(56.0, 28.0, 16.0, 5.0);
        for (ours, by_hand) in bbox.to_xywh().iter().zip(expected.to_xywh()) {
            assert!((ours - by_hand).abs() < 1e-4, "{bbox:?}");
        }
        let code = slot.encode(expected, Offsets::Logistic);
        for (ours, by_hand) in code.iter().zip([0.5, 0.75, ln2, -ln2]) {
            assert!((ours - by_hand).abs() < 1e-5, "{code:?}");
        }
        let linear = slot.decode([0.25, 1.5, 0.0, 0.0], Offsets::Linear);
        assert_eq!(linear.center(), (52.0, 40.0));
        assert_eq!(slot.encode(linear, Offsets::Linear)[..2], [0.25, 1.5]);
        // the middle of the cell is (56, 24); a quarter of the prior's width and half its height from there
        let anchored = slot.decode([0.25, -0.5, 0.0, 0.0], Offsets::Anchor);
        assert_eq!(anchored.center(), (58.0, 19.0));
        assert_eq!(slot.encode(anchored, Offsets::Anchor)[..2], [0.25, -0.5]);
    }

    #[test]
    fn a_stretched_offset_reaches_the_edge_of_its_cell() {
        let slot = Slot { column: 0.0, row: 0.0, stride: [10.0; 2], prior: [4.0, 4.0], scale_xy: 1.2 };
        // 1.2·σ − 0.1 is 0 where σ = 1/12: t = −ln 11
        let edge = slot.decode([-(11f32.ln()), 0.0, 0.0, 0.0], Offsets::Logistic);
        assert!(edge.center().0.abs() < 1e-5 && (edge.center().1 - 5.0).abs() < 1e-5);
        assert!((slot.encode(edge, Offsets::Logistic)[0] - 1.0 / 12.0).abs() < 1e-6);
        // a centre that no logistic reaches is held at the nearest that one does
        assert_eq!(slot.encode(edge.shift(-5.0, 0.0), Offsets::Logistic)[0], 0.0);
    }

    #[test]
    fn a_new_network_finds_objects_unlikely() {
        let bias = small_head(Offsets::Logistic).first_bias(2);
        assert_eq!(bias.len(), 14);
        assert!((logistic(bias[4]) - 0.01).abs() < 1e-6 && (logistic(bias[12]) - 0.5).abs() < 1e-6);
        assert_eq!(&bias[7..11], [0.0; 4]);
    }
}
