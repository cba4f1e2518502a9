//! A recorded run of a reference implementation: what its JSON holds, and how weights and input follow from names.

use super::{Check, ParityError, unfit};
use crate::geometry::{BBox, Mask, Object, iou};
use crate::imaging::preprocess::{Input, Placement};
use candle_core::Tensor;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// One recorded run.
#[derive(Debug, Deserialize)]
pub(super) struct Fixture {
    pub(super) model: String,
    pub(super) source: String,
    /// Name, shape, offset and scale. Empty where the weights are a published file.
    #[serde(default)]
    pub(super) params: Vec<(String, Vec<usize>, f64, f64)>,
    /// Names of a published darknet cfg and of its weights.
    pub(super) cfg: Option<String>,
    pub(super) weights: Option<String>,
    pub(super) input: RecordedInput,
    pub(super) outputs: Vec<Sampled>,
    pub(super) targets: Option<Targets>,
    #[serde(default)]
    pub(super) losses: BTreeMap<String, f64>,
    #[serde(default)]
    pub(super) gradients: Vec<Sampled>,
    pub(super) detections: Option<Found>,
    /// Normalised corners.
    pub(super) detections_class_score_xyxy: Option<Vec<[f32; 6]>>,
    pub(super) train_mode: Option<TrainMode>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RecordedInput {
    name: String,
    shape: Vec<usize>,
    offset: f64,
    scale: f64,
}

/// Images of an input: number, height and width.
pub(super) type Extent = (usize, usize, usize);

impl RecordedInput {
    /// The pixels `[N, 3, H, W]` with N, H and W.
    ///
    /// # Errors
    /// A shape that is no image's.
    pub(super) fn pixels(&self, path: &Path) -> Result<(Vec<f32>, Extent), ParityError> {
        let extent = match self.shape[..] {
            [3, height, width] => (1, height, width),
            [count, 3, height, width] => (count, height, width),
            _ => return Err(unfit(format!("an input of shape {:?}", self.shape), path)),
        };
        Ok((rebuilt(&self.name, self.shape.iter().product(), self.offset, self.scale), extent))
    }
}

/// A tensor of which some elements were written down.
#[derive(Debug, Deserialize)]
pub(super) struct Sampled {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) abs_max: f64,
    pub(super) index: Vec<usize>,
    pub(super) value: Vec<f64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Targets {
    #[serde(default)]
    boxes: Vec<[f32; 4]>,
    #[serde(default)]
    boxes_normalised: Vec<[f32; 4]>,
    /// Background counts as 0.
    #[serde(default)]
    labels: Vec<u32>,
    #[serde(default)]
    labels_without_background: Vec<u32>,
    /// A word on the masks where there are any: ellipses inscribed in the boxes.
    masks: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Found {
    pub(super) boxes: Vec<[f32; 4]>,
    pub(super) scores: Vec<f32>,
    pub(super) labels: Vec<u32>,
}

/// The same network on a batch with its norms following the batch. The first image has all objects, further ones the
/// first two.
#[derive(Debug, Deserialize)]
pub(super) struct TrainMode {
    pub(super) input: RecordedInput,
    pub(super) losses: BTreeMap<String, f64>,
    #[serde(default)]
    pub(super) running_stats_after: Vec<Sampled>,
}

/// Element `index` of the tensor whose name has this hash, in [−1, 1).
fn unit(hash: u64, index: usize) -> f64 {
    let mut z = hash.wrapping_add((index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    (z >> 40) as f64 / f64::from(1 << 24) * 2.0 - 1.0
}

/// The values of the tensor `name`.
pub(super) fn rebuilt(name: &str, count: usize, offset: f64, scale: f64) -> Vec<f32> {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    (0..count).map(|i| (offset + scale * unit(hash, i)) as f32).collect()
}

impl Targets {
    /// The objects in input pixels; `added` is what the reference adds to a class of this program.
    pub(super) fn objects(&self, added: u32, placement: &Placement, input: (usize, usize)) -> Vec<Object> {
        let (width, height) = (placement.original.0 as f32, placement.original.1 as f32);
        let pixels = self.boxes.iter().map(|b| BBox::new(b[0], b[1], b[2], b[3]));
        let scaled = self.boxes_normalised.iter().map(|b| BBox::new(b[0], b[1], b[2], b[3]).scale(width, height));
        let classes = self
            .labels
            .iter()
            .map(|l| l.saturating_sub(added.max(1)))
            .chain(self.labels_without_background.iter().copied());
        let ellipses = self.masks.is_some();
        let object = |(bbox, class): (BBox, u32)| Object {
            bbox: placement.to_input(bbox),
            class,
            mask: ellipses.then(|| ellipse(bbox, placement, input)).flatten(),
            ..Object::default()
        };
        pixels.chain(scaled).zip(classes).map(object).collect()
    }
}

/// The ellipse inscribed in a box, drawn on the original picture by pixel centres and enlarged to the input's height and
/// width by nearest.
fn ellipse(bbox: BBox, placement: &Placement, (height, width): (usize, usize)) -> Option<Mask> {
    let (cx, cy) = bbox.center();
    let (rx, ry) = (bbox.width() / 2.0, bbox.height() / 2.0);
    let inside = |x: usize, y: usize| {
        let (dx, dy) = ((x as f32 + 0.5 - cx) / rx, (y as f32 + 0.5 - cy) / ry);
        dx * dx + dy * dy <= 1.0
    };
    let content = (placement.content.0 as usize, placement.content.1 as usize);
    let original = (placement.original.0 as usize, placement.original.1 as usize);
    let mut bitmap = vec![0u8; width * height];
    for y in 0..content.1.min(height) {
        for x in 0..content.0.min(width) {
            let source = (x * original.0 / content.0, y * original.1 / content.1);
            bitmap[y * width + x] = u8::from(inside(source.0, source.1));
        }
    }
    Mask::from_bitmap(height as u32, width as u32, &bitmap).ok()
}

/// The input of a network that takes the recorded pixels as they are.
pub(super) fn untouched(planes: Vec<f32>, height: usize, width: usize) -> Input {
    let size = (width as u32, height as u32);
    let placement =
        Placement { scale_x: 1.0, scale_y: 1.0, offset_x: 0.0, offset_y: 0.0, original: size, content: size };
    Input { width, height, planes, placement }
}

impl Sampled {
    /// The largest difference that an output may have.
    pub(super) fn tolerance(&self, relative: f64, absolute: f64) -> f64 {
        relative * self.abs_max + absolute
    }

    pub(super) fn check(&self, ours: &Tensor, relative: f64, absolute: f64) -> Result<Check, ParityError> {
        let values: Vec<f32> = ours.detach().flatten_all()?.to_vec1()?;
        if values.len() != self.shape.iter().product::<usize>() {
            return Err(unfit(
                format!("{}: ours has shape {:?}, the reference {:?}", self.name, ours.dims(), self.shape),
                Path::new(""),
            ));
        }
        let mut error = 0f64;
        for (&index, &expected) in self.index.iter().zip(&self.value) {
            let ours = values.get(index).copied().unwrap_or(f32::NAN);
            error = error.max((f64::from(ours) - expected).abs());
            if ours.is_nan() {
                error = f64::INFINITY;
            }
        }
        Ok(Check { name: self.name.clone(), error, allowed: self.tolerance(relative, absolute) })
    }
}

impl Found {
    /// Pairs each reference detection with an unused one of ours of its class: IoU ≥ 0.99, score within 2e-3.
    pub(super) fn check(&self, ours: &[(BBox, u32, f32)]) -> Vec<Check> {
        let mut used = vec![false; ours.len()];
        let (mut unmatched, mut worst) = (0usize, 0f64);
        for ((b, &score), &label) in self.boxes.iter().zip(&self.scores).zip(&self.labels) {
            let reference = BBox::new(b[0], b[1], b[2], b[3]);
            let pair = ours.iter().enumerate().position(|(i, (bbox, class, s))| {
                !used[i] && *class == label && (s - score).abs() <= 2e-3 && iou::iou(*bbox, reference) >= 0.99
            });
            match pair {
                Some(i) => {
                    used[i] = true;
                    worst = worst.max(f64::from((ours[i].2 - score).abs()));
                }
                None => unmatched += 1,
            }
        }
        vec![
            Check {
                name: format!("detections without a partner, of {}", self.boxes.len()),
                error: unmatched as f64,
                allowed: 0.0,
            },
            Check { name: "detection scores".into(), error: worst, allowed: 2e-3 },
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rebuilt_values_match_the_recipes_test_vectors() {
        // The recipe's own vectors: unit("input", 0…4) and unit("backbone.features.0.weight", 7).
        let input = rebuilt("input", 5, 0.0, 1.0);
        let expected = [-0.804_363_37, 0.304_720_76, -0.592_751_5, -0.451_110_72, 0.582_195_04];
        for (ours, theirs) in input.iter().zip(expected) {
            assert!((ours - theirs).abs() < 1e-6, "{ours} {theirs}");
        }
        assert!((rebuilt("backbone.features.0.weight", 8, 0.0, 1.0)[7] + 0.241_270_3).abs() < 1e-6);
    }
}
