//! Training augmentation of one sample, from mosaic to mirroring; every draw is reported.
//!
//! The order is that of YOLOX (mosaic, mixup) and then SSD's. All randomness comes from the generator that is passed in,
//! so a sample's augmentation repeats.

pub use super::augmentation::{Augmentation, Partners};

use super::augmentation::happens;
use super::crop::{Constraint, Crop, ZoomOut, draw_crop, draw_zoom_out};
use super::mixup::mixup;
use super::mosaic::mosaic;
use super::photometric::Photometric;
use super::picture::Picture;
use super::view::View;
use crate::geometry::Object;
use crate::random::Random;
use serde::{Deserialize, Serialize};

/// A picture with its objects, in its pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub picture: Picture,
    pub objects: Vec<Object>,
}

/// The same where somebody else keeps it, say a cache.
#[derive(Clone, Copy, Debug)]
pub struct SampleRef<'a> {
    pub picture: &'a Picture,
    pub objects: &'a [Object],
}

/// Another image that a sample is made with.
#[derive(Clone, Copy, Debug)]
pub struct Partner<'a> {
    /// Its number in the data set, for the record.
    pub index: usize,
    pub sample: SampleRef<'a>,
}

/// What surrounds pictures, and the size they are heading for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Colour of a canvas where no picture is: the mean that the network subtracts.
    pub fill: [u8; 3],
    /// Width and height of a tile of a mosaic: the size that the network sees.
    pub size: (u32, u32),
}

/// One thing that was done, and the amounts drawn for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    pub name: String,
    pub parameters: Vec<(String, f32)>,
}

impl Applied {
    pub fn new(name: &str, parameters: &[(&str, f32)]) -> Self {
        let parameters = parameters.iter().map(|(name, amount)| ((*name).to_string(), *amount)).collect();
        Self { name: name.to_string(), parameters }
    }

    fn zoom_out(zoom: &ZoomOut) -> Self {
        let canvas = zoom.canvas;
        // The place of the picture on the canvas.
        let (left, top) = ((-canvas.left) as f32, (-canvas.top) as f32);
        let size = [("width", canvas.width as f32), ("height", canvas.height as f32)];
        Self::new("zoom out", &[("ratio", zoom.ratio), ("left", left), ("top", top), size[0], size[1]])
    }

    fn crop(crop: &Crop) -> Self {
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
        Self::new("crop", &parameters)
    }
}

/// An augmented sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Augmented {
    /// Nothing where no pixel was touched: it is the picture that was given.
    pub picture: Option<Picture>,
    pub objects: Vec<Object>,
    pub applied: Vec<Applied>,
}

/// Draws an augmentation and applies it to a sample of its own: mosaic and mixup, which need other images, are left
/// out. `fill` is the colour of a canvas.
///
/// Objects stay with their pixels: boxes are clipped to a crop, masks follow, and an object whose centre leaves the
/// picture is dropped; a crop that would drop the last training target is drawn again.
pub fn augment(sample: Sample, settings: &Augmentation, fill: [u8; 3], rng: &mut Random) -> (Sample, Vec<Applied>) {
    let Sample { picture, objects } = sample;
    let given = SampleRef { picture: &picture, objects: &objects };
    let frame = Frame { fill, size: (picture.width, picture.height) };
    let made = augment_with(given, &Partners::none(), &frame, settings, rng);
    (Sample { picture: made.picture.unwrap_or(picture), objects: made.objects }, made.applied)
}

/// Draws an augmentation and applies it, with the partners that [`Augmentation::partners`] drew from the same generator
/// just before. A mosaic drops objects of which too little is seen.
pub fn augment_with(
    sample: SampleRef<'_>,
    partners: &Partners<Partner<'_>>,
    frame: &Frame,
    settings: &Augmentation,
    rng: &mut Random,
) -> Augmented {
    let mut applied = Vec::new();
    let mut made: Option<(Picture, Vec<Object>)> = None;
    if let [first, second, third] = partners.mosaic.as_slice() {
        let scales = (settings.mosaic_scale_min, settings.mosaic_scale_max);
        let (picture, objects, done) = mosaic(sample, [first, second, third], frame, scales, rng);
        made = Some((picture, objects));
        applied.push(done);
    }
    if let Some(partner) = &partners.mixup {
        let (mut picture, mut objects) = made.unwrap_or_else(|| (sample.picture.clone(), sample.objects.to_vec()));
        applied.push(mixup(&mut picture, &mut objects, partner, frame, settings.mixup_beta, rng));
        made = Some((picture, objects));
    }
    match made {
        Some((picture, objects)) => {
            let shown = SampleRef { picture: &picture, objects: &objects };
            let (changed, objects) = show(shown, settings, frame.fill, rng, &mut applied);
            Augmented { picture: Some(changed.unwrap_or(picture)), objects, applied }
        }
        None => {
            let (picture, objects) = show(sample, settings, frame.fill, rng, &mut applied);
            Augmented { picture, objects, applied }
        }
    }
}

/// The parts that need one picture alone; no picture where none of its pixels changed.
fn show(
    sample: SampleRef<'_>,
    settings: &Augmentation,
    fill: [u8; 3],
    rng: &mut Random,
    applied: &mut Vec<Applied>,
) -> (Option<Picture>, Vec<Object>) {
    let distortion = if settings.photometric { Photometric::draw(rng) } else { Photometric::default() };
    let parameters = distortion.parameters();
    if !parameters.is_empty() {
        applied.push(Applied { name: "photometric".to_string(), parameters });
    }
    let mut view = View::new(sample.picture, sample.objects);
    if happens(settings.zoom_out, rng) {
        let zoom = draw_zoom_out(view.size(), settings.zoom_max, rng);
        view.zoom_out(&zoom.canvas);
        applied.push(Applied::zoom_out(&zoom));
    }
    if happens(settings.iou_crop, rng) {
        let crop = draw_crop(view.size(), &view.objects(), rng);
        if crop.constraint != Constraint::Whole {
            view.crop(&crop.window);
            applied.push(Applied::crop(&crop));
        }
    }
    if happens(settings.flip, rng) {
        view.flip_horizontal();
        applied.push(Applied::new("flip", &[]));
    }
    if happens(settings.vertical_flip, rng) {
        view.flip_vertical();
        applied.push(Applied::new("vertical flip", &[]));
    }
    (view.pixels(fill, &distortion), view.finish())
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
    fn a_picture_without_objects_passes_through() {
        for seed in 0..10 {
            let empty = Sample { picture: Picture::new(9, 7, [3; 3]), objects: Vec::new() };
            let (found, _) = augment(empty, &Augmentation::ssd(), GREY, &mut Random::new(seed));
            assert!(found.objects.is_empty() && found.picture.width >= 9);
        }
    }
}
