//! Mosaic: four pictures around one point, seen through a window of random size.
//!
//! A. Bochkovskiy et al., "YOLOv4: Optimal Speed and Accuracy of Object Detection" (2020), section 3.3. The layout is
//! that of MMDetection's `Mosaic` (centre in the middle half of a canvas of two by two tiles, each picture fitted into
//! a tile with its corner at the centre); the window is the scaling and shifting that YOLOv5 and YOLOX apply to it,
//! without turning or shearing: scaled by a random factor around the middle, moved by up to a tenth of its sides.

use super::augment::{Applied, Frame, Partner, SampleRef};
use super::crop::{MAX_CANVAS, Window};
use super::picture::Picture;
use super::tile::{fitted, paste, place};
use crate::geometry::Object;
use crate::random::Random;

/// Centre of the four pictures, in tiles from the canvas's corner.
const CENTER: (f32, f32) = (0.5, 1.5);
/// Largest shift of the window over its side.
const SHIFT: f32 = 0.1;
/// Longest side of a tile, pixels.
const MAX_TILE: u32 = 16_384;
/// Smallest factor that a tile is scaled by: a window of 20 by 20 tiles.
const MIN_SCALE: f32 = 0.05;

/// Puts `own` at the top left, and three partners at the top right, bottom left and bottom right. A tile has the size
/// of `frame`; scale factors are uniform in `scales`, and above 1 the window is smaller than a tile.
pub(super) fn mosaic(
    own: SampleRef<'_>,
    partners: [&Partner<'_>; 3],
    frame: &Frame,
    scales: (f32, f32),
    rng: &mut Random,
) -> (Picture, Vec<Object>, Applied) {
    let (wide, high) = (frame.size.0.clamp(1, MAX_TILE), frame.size.1.clamp(1, MAX_TILE));
    let center_x = (rng.range(CENTER.0, CENTER.1) * wide as f32) as i64;
    let center_y = (rng.range(CENTER.0, CENTER.1) * high as f32) as i64;
    let least = (wide as f32 * high as f32 / MAX_CANVAS).sqrt().max(MIN_SCALE);
    let scale = rng.range(scales.0, scales.1.max(scales.0)).max(least);
    let (shift_x, shift_y) = (rng.range(-SHIFT, SHIFT), rng.range(-SHIFT, SHIFT));
    let span = |tile: u32, shift: f32| -> (i64, u32) {
        let length = (tile as f32 / scale).round().max(1.0);
        // The middle of the canvas is one tile from its corner.
        ((tile as f32 - length * (0.5 + shift)).round() as i64, length as u32)
    };
    let ((left, width), (top, height)) = (span(wide, shift_x), span(high, shift_y));
    let [second, third, fourth] = partners;
    let mut picture = Picture::new(width, height, frame.fill);
    let mut objects = Vec::new();
    // Whether a picture lies right of the centre, and below it.
    let places = [(false, false), (true, false), (false, true), (true, true)];
    for (sample, (right, below)) in [own, second.sample, third.sample, fourth.sample].into_iter().zip(places) {
        let from = (sample.picture.width, sample.picture.height);
        let (tile_width, tile_height) = fitted(from, (wide, high));
        let tile = Window {
            left: center_x - left - if right { 0 } else { i64::from(tile_width) },
            top: center_y - top - if below { 0 } else { i64::from(tile_height) },
            width: tile_width,
            height: tile_height,
        };
        paste(&mut picture, sample.picture, &tile);
        objects.extend(sample.objects.iter().filter_map(|object| place(object, from, &tile, (width, height))));
    }
    let applied = Applied::new(
        "mosaic",
        &[
            ("top right", second.index as f32),
            ("bottom left", third.index as f32),
            ("bottom right", fourth.index as f32),
            ("center x", center_x as f32),
            ("center y", center_y as f32),
            ("scale", scale),
            ("left", left as f32),
            ("top", top as f32),
            ("width", width as f32),
            ("height", height as f32),
        ],
    );
    (picture, objects, applied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::BBox;

    const GREY: [u8; 3] = [114; 3];

    /// A picture of one colour under one object of that colour's number.
    fn plain(width: u32, height: u32, color: [u8; 3], class: u32) -> (Picture, Vec<Object>) {
        let bbox = BBox::new(0.0, 0.0, width as f32, height as f32);
        (Picture::new(width, height, color), vec![Object { bbox, class, ..Object::default() }])
    }

    #[test]
    fn four_pictures_meet_at_the_centre_and_their_boxes_cover_them() {
        let colors = [[250, 0, 0], [0, 250, 0], [0, 0, 250], [250, 250, 0]];
        let sizes = [(40, 30), (20, 60), (64, 64), (7, 5)];
        let given: Vec<(Picture, Vec<Object>)> =
            (0..4).map(|k| plain(sizes[k].0, sizes[k].1, colors[k], k as u32)).collect();
        let sample = |k: usize| SampleRef { picture: &given[k].0, objects: &given[k].1 };
        let partner = |k: usize| Partner { index: k, sample: sample(k) };
        let partners = [partner(1), partner(2), partner(3)];
        let [first, second, third] = &partners;
        let frame = Frame { fill: GREY, size: (48, 32) };
        let mut seen = [0usize; 4];
        for seed in 0..60 {
            let mut rng = Random::new(seed);
            let (picture, objects, applied) = mosaic(sample(0), [first, second, third], &frame, (0.5, 1.5), &mut rng);
            let amount = |name: &str| applied.parameters.iter().find(|(known, _)| known == name).unwrap().1;
            assert_eq!((picture.width as f32, picture.height as f32), (amount("width"), amount("height")));
            assert!((amount("width") - 48.0 / amount("scale")).abs() <= 0.5);
            for (k, color) in colors.iter().enumerate() {
                let bbox = objects.iter().find(|o| o.class == k as u32).map(|o| o.bbox);
                seen[k] += usize::from(bbox.is_some());
                for y in 0..picture.height {
                    for x in 0..picture.width {
                        let inside = bbox.is_some_and(|b| b.contains(x as f32 + 0.5, y as f32 + 0.5));
                        let colored = picture.pixel(x, y) == *color;
                        // A corner of which less than a fifth is seen has no box.
                        assert!(inside == colored || (bbox.is_none() && colored), "seed {seed}, {k}: {x}, {y}");
                    }
                }
            }
        }
        assert!(seen.iter().all(|n| *n > 15), "{seen:?}");
    }

    #[test]
    fn strange_sizes_and_scales_stay_within_bounds() {
        let (picture, objects) = plain(0, 9, GREY, 0);
        let sample = SampleRef { picture: &picture, objects: &objects };
        let partner = Partner { index: 0, sample };
        for (size, scales) in [((0, 0), (0.0, 0.0)), ((9, 1), (f32::NAN, 2.0)), ((3, 3), (9.0, -1.0))] {
            let frame = Frame { fill: GREY, size };
            let partners = [&partner, &partner, &partner];
            let (found, _, _) = mosaic(sample, partners, &frame, scales, &mut Random::new(1));
            assert!((1..=200).contains(&found.width) && (1..=200).contains(&found.height), "{size:?}");
        }
    }
}
