//! Training augmentation of one sample: photometric, zoom-out, IoU crop, mirroring; every draw is reported.
//!
//! The order is SSD's. All randomness comes from the generator that is passed in, so a sample's augmentation repeats.

use super::crop::{Constraint, flip_objects_horizontal, flip_objects_vertical, iou_crop, zoom_out};
use super::photometric::Photometric;
use super::picture::Picture;
use crate::geometry::Object;
use crate::random::Random;
use serde::{Deserialize, Serialize};

/// What may happen to a sample. Probabilities are in `[0, 1]`; 0 turns a part off and draws nothing for it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Augmentation {
    /// Probability of mirroring left to right.
    pub flip: f32,
    /// Probability of mirroring top to bottom.
    pub vertical_flip: f32,
    /// SSD's photometric distortion, whose parts have their own probabilities of ½.
    pub photometric: bool,
    /// Probability of placing the picture on a larger canvas.
    pub zoom_out: f32,
    /// Largest side of that canvas over the picture's: ratios are uniform in `1..zoom_max`.
    pub zoom_max: f32,
    /// Probability of the IoU-constrained crop, which keeps the whole picture in one of its seven modes.
    pub iou_crop: f32,
}

impl Augmentation {
    /// The sample as it is.
    pub const fn none() -> Self {
        Self { flip: 0.0, vertical_flip: 0.0, photometric: false, zoom_out: 0.0, zoom_max: 4.0, iou_crop: 0.0 }
    }

    /// Mirroring with probability ½: RetinaNet, Faster R-CNN and their kin.
    pub const fn flip_only() -> Self {
        Self { flip: 0.5, ..Self::none() }
    }

    /// The full recipe of SSD and RefineDet.
    pub const fn ssd() -> Self {
        Self { flip: 0.5, vertical_flip: 0.0, photometric: true, zoom_out: 0.5, zoom_max: 4.0, iou_crop: 1.0 }
    }
}

impl Default for Augmentation {
    fn default() -> Self {
        Self::none()
    }
}

/// A picture with its objects, in its pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub picture: Picture,
    pub objects: Vec<Object>,
}

/// One thing that was done, and the amounts drawn for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    pub name: String,
    pub parameters: Vec<(String, f32)>,
}

impl Applied {
    fn new(name: &str, parameters: &[(&str, f32)]) -> Self {
        let parameters = parameters.iter().map(|(name, amount)| ((*name).to_string(), *amount)).collect();
        Self { name: name.to_string(), parameters }
    }
}

/// Draws an augmentation and applies it. `fill` is the colour of a zoomed-out canvas (the mean the network subtracts).
///
/// Objects stay with their pixels: boxes are clipped to a crop, masks follow, and an object whose centre leaves the
/// picture is dropped; a crop that would drop the last training target is drawn again.
pub fn augment(sample: Sample, settings: &Augmentation, fill: [u8; 3], rng: &mut Random) -> (Sample, Vec<Applied>) {
    let Sample { mut picture, mut objects } = sample;
    let mut applied = Vec::new();
    if settings.photometric {
        let drawn = Photometric::draw(rng);
        drawn.apply(&mut picture);
        let parameters = drawn.parameters();
        if !parameters.is_empty() {
            applied.push(Applied { name: "photometric".to_string(), parameters });
        }
    }
    if happens(settings.zoom_out, rng) {
        let (canvas, moved, zoom) = zoom_out(&picture, &objects, settings.zoom_max, fill, rng);
        (picture, objects) = (canvas, moved);
        let place = [("ratio", zoom.ratio), ("left", zoom.left as f32), ("top", zoom.top as f32)];
        applied.push(Applied::new("zoom out", &place));
    }
    if happens(settings.iou_crop, rng) {
        let (part, kept, crop) = iou_crop(&picture, &objects, rng);
        (picture, objects) = (part, kept);
        if crop.constraint != Constraint::Whole {
            let window = crop.window;
            let mut parameters = vec![
                ("left", window.left as f32),
                ("top", window.top as f32),
                ("width", window.width as f32),
                ("height", window.height as f32),
            ];
            if let Constraint::MinIou(min) = crop.constraint {
                parameters.insert(0, ("min IoU", min));
            }
            applied.push(Applied::new("crop", &parameters));
        }
    }
    if happens(settings.flip, rng) {
        picture = picture.flip_horizontal();
        flip_objects_horizontal(&mut objects, picture.width);
        applied.push(Applied::new("flip", &[]));
    }
    if happens(settings.vertical_flip, rng) {
        picture = picture.flip_vertical();
        flip_objects_vertical(&mut objects, picture.height);
        applied.push(Applied::new("vertical flip", &[]));
    }
    (Sample { picture, objects }, applied)
}

/// A draw only where there is something to decide, so that turning a part off leaves the other parts' draws alone.
fn happens(probability: f32, rng: &mut Random) -> bool {
    probability > 0.0 && rng.chance(probability)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::BBox;

    const GREY: [u8; 3] = [128, 128, 128];

    /// A white rectangle on black, and the object that is it.
    fn sample() -> Sample {
        let mut picture = Picture::new(60, 40, [0; 3]);
        picture.paste(&Picture::new(18, 11, [255; 3]), 21, 13);
        let object = Object { id: 7, bbox: BBox::new(21.0, 13.0, 39.0, 24.0), class: 2, ..Object::default() };
        Sample { picture, objects: vec![object] }
    }

    /// White pixels lie inside the box, and the box's pixels are white.
    fn assert_box_covers_white(sample: &Sample) {
        let bbox = sample.objects[0].bbox;
        for y in 0..sample.picture.height {
            for x in 0..sample.picture.width {
                let white = sample.picture.pixel(x, y) == [255; 3];
                let inside = bbox.contains(x as f32 + 0.5, y as f32 + 0.5);
                assert_eq!(white, inside, "pixel {x}, {y} and {bbox:?}");
            }
        }
    }

    #[test]
    fn a_rectangle_stays_under_its_box_through_every_geometric_part() {
        let settings = Augmentation { photometric: false, vertical_flip: 0.5, ..Augmentation::ssd() };
        let mut seen: Vec<String> = Vec::new();
        for seed in 0..60 {
            let (found, applied) = augment(sample(), &settings, GREY, &mut Random::new(seed));
            assert_eq!(found.objects.len(), 1, "seed {seed}");
            assert_eq!((found.objects[0].id, found.objects[0].class), (7, 2));
            assert_box_covers_white(&found);
            seen.extend(applied.into_iter().map(|a| a.name));
        }
        for name in ["zoom out", "crop", "flip", "vertical flip"] {
            assert!(seen.iter().any(|s| s == name), "{name} never happened");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_sample_and_none_changes_nothing() {
        let settings = Augmentation::ssd();
        for seed in 0..8 {
            let first = augment(sample(), &settings, GREY, &mut Random::new(seed));
            assert_eq!(first, augment(sample(), &settings, GREY, &mut Random::new(seed)));
        }
        let mut rng = Random::new(1);
        let (same, applied) = augment(sample(), &Augmentation::none(), GREY, &mut rng);
        assert_eq!((same, applied.len()), (sample(), 0));
        assert_eq!(rng, Random::new(1), "nothing to decide, nothing drawn");
    }

    #[test]
    fn a_certain_flip_mirrors_box_and_pixels() {
        let settings = Augmentation { flip: 1.0, ..Augmentation::none() };
        let (found, applied) = augment(sample(), &settings, GREY, &mut Random::new(3));
        assert_eq!(found.objects[0].bbox, BBox::new(21.0, 13.0, 39.0, 24.0).flip_horizontal(60.0));
        assert_box_covers_white(&found);
        assert_eq!(applied[0].name, "flip");
    }

    #[test]
    fn a_partial_file_keeps_the_other_defaults() {
        let read: Augmentation = toml::from_str("flip = 0.5").unwrap();
        assert_eq!(read, Augmentation::flip_only());
        let text = toml::to_string(&Augmentation::ssd()).unwrap();
        assert_eq!(toml::from_str::<Augmentation>(&text).unwrap(), Augmentation::ssd());
    }

    #[test]
    fn a_picture_without_objects_passes_through() {
        for seed in 0..10 {
            let empty = Sample { picture: Picture::new(9, 7, [3; 3]), objects: Vec::new() };
            let (found, _) = augment(empty, &Augmentation::ssd(), GREY, &mut Random::new(seed));
            assert!(found.objects.is_empty() && found.picture.width >= 9);
        }
    }
}
