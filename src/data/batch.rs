//! A batch: preprocessed images side by side, with their objects in input pixels.

use crate::geometry::{Mask, Object};
use crate::imaging::mask_map::{map_mask, resampled};
use crate::imaging::{Applied, Input, Placement};
use serde::{Deserialize, Serialize};

/// A place in the endless stream of batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub epoch: u64,
    /// Batch within the epoch, from 0.
    pub batch: u64,
}

/// Images ready for a network, with their objects.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// `[N, 3, H, W]`; inputs of different sizes are padded on the right and below with zeros (after normalisation).
    pub images: Vec<f32>,
    /// N, 3, H, W.
    pub shape: [usize; 4],
    /// Width and height of each image's own input within H and W.
    pub sizes: Vec<(usize, usize)>,
    /// Training targets of each image, input pixels.
    pub objects: Vec<Vec<Object>>,
    /// Index of each image in the data set.
    pub indices: Vec<usize>,
    pub names: Vec<String>,
    /// What was done to each image, in order, with the amounts drawn. A first entry "stand-in" names the image whose
    /// place this one took. With the run's seed and the epoch that is enough to draw the sample again.
    pub applied: Vec<Vec<Applied>>,
    /// Where the next batch stands.
    pub position: Position,
    /// How long the caller waited for this batch.
    pub wait_seconds: f64,
}

/// One image on its way into a batch.
pub(super) struct Prepared {
    pub(super) input: Input,
    pub(super) objects: Vec<Object>,
    pub(super) index: usize,
    pub(super) name: String,
    pub(super) applied: Vec<Applied>,
}

/// Puts samples side by side; `position` is that of the batch after this one.
pub(super) fn assemble(samples: Vec<Prepared>, position: Position) -> Batch {
    let height = samples.iter().map(|sample| sample.input.height).max().unwrap_or(0);
    let width = samples.iter().map(|sample| sample.input.width).max().unwrap_or(0);
    let mut batch = Batch {
        images: Vec::with_capacity(samples.len() * 3 * height * width),
        shape: [samples.len(), 3, height, width],
        sizes: Vec::new(),
        objects: Vec::new(),
        indices: Vec::new(),
        names: Vec::new(),
        applied: Vec::new(),
        position,
        wait_seconds: 0.0,
    };
    for sample in samples {
        append_padded(&mut batch.images, &sample.input, width, height);
        batch.sizes.push((sample.input.width, sample.input.height));
        batch.objects.push(sample.objects);
        batch.indices.push(sample.index);
        batch.names.push(sample.name);
        batch.applied.push(sample.applied);
    }
    batch
}

/// Adds the three planes of `input`, each grown to `width × height` with zeros on the right and below.
fn append_padded(images: &mut Vec<f32>, input: &Input, width: usize, height: usize) {
    if (input.width, input.height) == (width, height) {
        images.extend_from_slice(&input.planes);
        return;
    }
    let area = input.width * input.height;
    for plane in 0..3 {
        let end = images.len() + width * height;
        for row in 0..input.height {
            let start = plane * area + row * input.width;
            images.extend_from_slice(&input.planes[start..start + input.width]);
            images.resize(images.len() + width - input.width, 0.0);
        }
        images.resize(end, 0.0);
    }
}

/// A training target in input pixels; nothing when no area of it is left.
pub(super) fn object_in_input(object: Object, input: &Input) -> Option<Object> {
    let place = &input.placement;
    let bbox = place.to_input(object.bbox).clip(input.width as f32, input.height as f32);
    if !bbox.is_proper() {
        return None;
    }
    let mask = object.mask.as_ref().and_then(|mask| mask_in_input(mask, place, input.width, input.height));
    Some(Object { bbox, mask, area: object.area.map(|area| area * place.scale_x * place.scale_y), ..object })
}

/// Each input pixel takes the mask's pixel under its centre; padding is outside.
fn mask_in_input(mask: &Mask, place: &Placement, width: usize, height: usize) -> Option<Mask> {
    let columns = resampled(width, place.scale_x, place.offset_x, mask.width);
    let rows = resampled(height, place.scale_y, place.offset_y, mask.height);
    map_mask(mask, &columns, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::BBox;

    fn input(width: usize, height: usize) -> Input {
        let planes = (1..=3 * width * height).map(|v| v as f32).collect();
        Input { width, height, planes, placement: Placement::default() }
    }

    #[test]
    fn smaller_inputs_are_padded_on_the_right_and_below() {
        let mut images = Vec::new();
        append_padded(&mut images, &input(2, 1), 3, 2);
        let expected: [f32; 18] =
            [1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0, 5.0, 6.0, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(images, expected);
        append_padded(&mut images, &input(1, 1), 1, 1);
        assert_eq!(images[18..], [1.0, 2.0, 3.0]);
    }

    #[test]
    fn masks_follow_a_letterbox() {
        // A 4 × 2 picture at twice its size, two rows below the top of an 8 × 8 input.
        let place =
            Placement { scale_x: 2.0, scale_y: 2.0, offset_x: 0.0, offset_y: 2.0, original: (4, 2), content: (8, 4) };
        let mask = Mask::from_bitmap(2, 4, &[0, 1, 0, 0, 0, 0, 0, 1]).unwrap();
        let moved = mask_in_input(&mask, &place, 8, 8).unwrap();
        assert_eq!((moved.height, moved.width, moved.area()), (8, 8, 8));
        let bitmap = moved.to_bitmap().unwrap();
        for (x, y) in [(2, 2), (3, 3), (6, 4), (7, 5)] {
            assert_eq!(bitmap[y * 8 + x], 1, "{x}, {y}");
        }
        let input = Input { width: 8, height: 8, planes: vec![0.0; 192], placement: place };
        let object =
            Object { bbox: BBox::new(1.0, 0.0, 4.0, 2.0), area: Some(2.0), mask: Some(mask), ..Object::default() };
        let object = object_in_input(object, &input).unwrap();
        assert_eq!((object.bbox, object.area), (BBox::new(2.0, 2.0, 8.0, 6.0), Some(8.0)));
        let outside = Object { bbox: BBox::new(5.0, 0.0, 6.0, 1.0), ..Object::default() };
        assert!(object_in_input(outside, &input).is_none());
    }
}
