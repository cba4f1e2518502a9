//! The way of a training sample: every augmentation keeps boxes and masks on their pixels, and every batch can be drawn
//! again, with any number of threads.

use boxwright::data::{
    self, Batch, DataError, Dataset, ImageEntry, Loader, LoaderSettings, Position, ShapesSpec, Source, Split,
    draw_sample,
};
use boxwright::geometry::{BBox, Mask, Object};
use boxwright::imaging::{
    Augmentation, ChannelOrder, Fit, Frame, Partner, Partners, Picture, Preprocess, Sample, SampleRef, augment,
    augment_with, save_png,
};
use boxwright::random::Random;
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;

const COLORS: [[u8; 3]; 4] = [[250, 0, 0], [0, 250, 0], [0, 0, 250], [250, 250, 0]];
const GREY: [u8; 3] = [110; 3];

/// A rectangle `left, top, width, height` of a class's colour, and the object with its mask that it is.
fn rectangle(picture: &mut Picture, class: u32, [left, top, width, height]: [u32; 4]) -> Object {
    picture.paste(&Picture::new(width, height, COLORS[class as usize]), left, top);
    let bbox = BBox::from_xywh(left as f32, top as f32, width as f32, height as f32);
    let inside = |i: u32| bbox.contains((i % picture.width) as f32 + 0.5, (i / picture.width) as f32 + 0.5);
    let bitmap: Vec<u8> = (0..picture.width * picture.height).map(|i| u8::from(inside(i))).collect();
    let mask = Mask::from_bitmap(picture.height, picture.width, &bitmap).unwrap();
    let id = u64::from(class) + 1;
    Object { id, bbox, class, area: Some((width * height) as f32), mask: Some(mask), ..Object::default() }
}

/// Three rectangles that do not touch.
fn three() -> Sample {
    let mut picture = Picture::new(64, 48, [0; 3]);
    let places = [[4, 5, 15, 11], [30, 8, 22, 17], [12, 30, 9, 14]];
    let objects = places.iter().zip(0..).map(|(place, class)| rectangle(&mut picture, class, *place)).collect();
    Sample { picture, objects }
}

/// Mask, box and area of every object are exactly the pixels of its colour.
fn assert_exact(sample: &Sample, what: &str) {
    for object in &sample.objects {
        let mask = object.mask.as_ref().unwrap();
        assert_eq!((mask.width, mask.height), (sample.picture.width, sample.picture.height), "{what}");
        let bitmap = mask.to_bitmap().unwrap();
        for y in 0..sample.picture.height {
            for x in 0..sample.picture.width {
                let colored = sample.picture.pixel(x, y) == COLORS[object.class as usize];
                let masked = bitmap[(y * sample.picture.width + x) as usize] == 1;
                let boxed = object.bbox.contains(x as f32 + 0.5, y as f32 + 0.5);
                assert_eq!((colored, colored), (masked, boxed), "{what}: class {} at {x}, {y}", object.class);
            }
        }
        assert_eq!(object.area, Some(mask.area() as f32), "{what}");
    }
}

#[test]
fn every_geometric_part_keeps_boxes_and_masks_on_their_pixels() {
    let parts = [
        ("flip", Augmentation { flip: 1.0, ..Augmentation::none() }),
        ("vertical flip", Augmentation { vertical_flip: 1.0, ..Augmentation::none() }),
        ("zoom out", Augmentation { zoom_out: 1.0, zoom_max: 2.0, ..Augmentation::none() }),
        ("crop", Augmentation { iou_crop: 1.0, ..Augmentation::none() }),
        ("all", Augmentation { photometric: false, vertical_flip: 0.5, zoom_max: 2.0, ..Augmentation::ssd() }),
    ];
    for (name, settings) in parts {
        let mut happened = 0;
        for seed in 0..24 {
            let (found, applied) = augment(three(), &settings, GREY, &mut Random::new(seed));
            assert!(!found.objects.is_empty(), "{name}: a target stays");
            assert_exact(&found, name);
            happened += usize::from(applied.iter().any(|a| a.name == name || name == "all"));
        }
        assert!(happened > 8, "{name} happened {happened} times");
    }
}

/// Within its box, a little away from the edge, an object has its colour; its mask reaches as far as the box.
fn assert_covered(picture: &Picture, objects: &[Object], margin: f32, colored: impl Fn([u8; 3], u32) -> bool) {
    for object in objects {
        let b = object.bbox;
        assert!(b.is_proper() && b.clip(picture.width as f32, picture.height as f32) == b, "{b:?}");
        let inner = BBox::new(b.x0 + margin, b.y0 + margin, b.x1 - margin, b.y1 - margin);
        for y in 0..picture.height {
            for x in 0..picture.width {
                if inner.contains(x as f32 + 0.5, y as f32 + 0.5) {
                    let pixel = picture.pixel(x, y);
                    assert!(colored(pixel, object.class), "class {}: {pixel:?} at {x}, {y} of {b:?}", object.class);
                }
            }
        }
        let m = object.mask.as_ref().unwrap().bbox();
        let gaps = [m.x0 - b.x0, m.y0 - b.y0, b.x1 - m.x1, b.y1 - m.y1];
        assert!(gaps.iter().all(|gap| gap.abs() <= 1.0), "{m:?} in {b:?}");
        assert_eq!(object.area, object.mask.as_ref().map(|mask| mask.area() as f32));
    }
}

/// One picture for each colour, of different sizes.
fn four() -> Vec<Sample> {
    let sizes = [(64, 48), (48, 64), (90, 40), (33, 31)];
    let sample = |((width, height), class): ((u32, u32), u32)| {
        let mut picture = Picture::new(width, height, [0; 3]);
        let object = rectangle(&mut picture, class, [width / 4, height / 5, width / 2, height / 2]);
        Sample { picture, objects: vec![object] }
    };
    sizes.into_iter().zip(0..).map(sample).collect()
}

#[test]
fn a_mosaic_shows_four_pictures_with_their_objects() {
    let samples = four();
    let given = |k: usize| SampleRef { picture: &samples[k].picture, objects: &samples[k].objects };
    let partners = Partners { mosaic: [1, 2, 3].map(|k| Partner { index: k, sample: given(k) }).to_vec(), mixup: None };
    let frame = Frame { fill: GREY, size: (60, 44) };
    let settings = Augmentation { mosaic: 1.0, flip: 0.5, vertical_flip: 0.5, ..Augmentation::none() };
    let mut seen = [0; 4];
    for seed in 0..30 {
        let made = augment_with(given(0), &partners, &frame, &settings, &mut Random::new(seed));
        let again = augment_with(given(0), &partners, &frame, &settings, &mut Random::new(seed));
        assert_eq!(made, again);
        assert_eq!(made.applied[0].name, "mosaic");
        let picture = made.picture.unwrap();
        // Tiles are enlarged by up to 1.5: an edge blends over less than two of their pixels.
        assert_covered(&picture, &made.objects, 2.0, |pixel, class| pixel == COLORS[class as usize]);
        made.objects.iter().for_each(|object| seen[object.class as usize] += 1);
    }
    assert!(seen.iter().all(|count| *count > 5), "{seen:?}");
}

#[test]
fn mixup_keeps_the_objects_of_both() {
    let samples = four();
    let given = |k: usize| SampleRef { picture: &samples[k].picture, objects: &samples[k].objects };
    let partners = Partners { mosaic: Vec::new(), mixup: Some(Partner { index: 1, sample: given(1) }) };
    let frame = Frame { fill: [0; 3], size: (60, 44) };
    let settings = Augmentation { mixup: 1.0, flip: 0.5, ..Augmentation::none() };
    for seed in 0..12 {
        let made = augment_with(given(0), &partners, &frame, &settings, &mut Random::new(seed));
        let picture = made.picture.unwrap();
        assert_eq!((picture.width, picture.height, made.objects.len()), (64, 48, 2));
        let share = made.applied[0].parameters.iter().find(|(name, _)| name == "share").unwrap().1;
        assert!((0.2..0.8).contains(&share), "{share}");
        // The channel of the object's colour has at least its share; the other picture may add to it.
        assert_covered(&picture, &made.objects, 2.0, |pixel, class| {
            let own = if class == 0 { share } else { 1.0 - share };
            f32::from(pixel[class as usize]) >= 250.0 * own - 1.0
        });
    }
}

// ---- batches

fn settings(augmentation: Augmentation, fit: Fit, workers: usize) -> LoaderSettings {
    LoaderSettings {
        batch: 4,
        workers,
        shuffle: true,
        seed: 23,
        augmentation,
        preprocess: Preprocess { fit, order: ChannelOrder::Rgb, mean: [10.0, 20.0, 30.0], std: [50.0; 3] },
        drop_difficult: true,
        masks: true,
    }
}

fn everything() -> Augmentation {
    Augmentation { mosaic: 0.5, mixup: 0.4, vertical_flip: 0.3, ..Augmentation::ssd() }
}

const STRETCH: Fit = Fit::Stretch { width: 40, height: 32 };
const EDGE: Fit = Fit::ShortestEdge { short: 32, long: 64, divisor: 8 };

fn take(mut loader: Loader, count: usize) -> Vec<Batch> {
    let batches = (0..count).map(|_| Batch { wait_seconds: 0.0, ..loader.next().unwrap() });
    batches.collect()
}

fn shapes(count: usize) -> Arc<Dataset> {
    let spec = ShapesSpec { train: count, size: (64, 48), ..ShapesSpec::default() };
    Arc::new(data::shapes(&spec, Split::Train))
}

/// PNG files, landscape and portrait by turns, with one rectangle each; numbers in `broken` do not read.
fn files(folder: &Path, count: usize, broken: &[usize]) -> Arc<Dataset> {
    let entry = |k: usize| {
        let path = folder.join(format!("{k}.png"));
        let (width, height) = if k.is_multiple_of(2) { (40, 26) } else { (26, 40) };
        let mut picture = Picture::new(width, height, [k as u8; 3]);
        let object = rectangle(&mut picture, (k % 4) as u32, [4, 5, 16, 14]);
        if broken.contains(&k) {
            std::fs::write(&path, "no picture").unwrap();
        } else {
            save_png(&picture, &path).unwrap();
        }
        let (name, source) = (format!("{k}.png"), Source::File(path));
        ImageEntry { id: k as u64 + 1, name, source, width, height, objects: vec![object] }
    };
    Arc::new(Dataset {
        name: "files".to_owned(),
        split: "all".to_owned(),
        classes: ["red", "green", "blue", "yellow"].map(str::to_owned).to_vec(),
        category_ids: (1..=4).collect(),
        images: (0..count).map(entry).collect(),
        warnings: Vec::new(),
    })
}

#[test]
fn one_two_and_five_workers_and_any_cache_give_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let scaled = Augmentation { scale_low: 24, scale_high: 40, scale_step: 8, group_by_aspect: true, ..everything() };
    let cases = [(shapes(10), everything(), STRETCH), (files(folder.path(), 11, &[4]), scaled, EDGE)];
    for (set, augmentation, fit) in cases {
        let stream = |workers: usize, cache: usize| {
            let settings = settings(augmentation, fit, workers);
            take(Loader::with_cache(Arc::clone(&set), settings, Position::default(), cache).unwrap(), 6)
        };
        let one = stream(1, 0);
        assert_eq!(one, stream(2, 1 << 20));
        assert_eq!(one, stream(5, 10_000));
        let mut names: Vec<&str> = one.iter().flat_map(|b| b.applied.iter().flatten()).map(|a| &*a.name).collect();
        names.sort_unstable();
        names.dedup();
        for name in ["mosaic", "mixup", "photometric", "zoom out", "crop", "flip"] {
            assert!(names.contains(&name), "{name} never happened: {names:?}");
        }
    }
}

#[test]
fn every_sample_can_be_drawn_again_from_its_record() {
    let folder = tempfile::tempdir().unwrap();
    let set = files(folder.path(), 9, &[2, 3]);
    let settings = settings(everything(), STRETCH, 2);
    let batches = take(Loader::new(Arc::clone(&set), settings.clone(), Position::default()).unwrap(), 6);
    let (mut epoch, mut stand_ins) = (0, 0);
    for batch in batches {
        let [count, channels, height, width] = batch.shape;
        for k in 0..count {
            let stand_in = batch.applied[k].first().filter(|applied| applied.name == "stand-in");
            let slot = stand_in.map_or(batch.indices[k], |applied| applied.parameters[0].1 as usize);
            stand_ins += usize::from(stand_in.is_some());
            let again = draw_sample(&set, &settings, epoch, slot).unwrap();
            let size = channels * height * width;
            assert_eq!(again.images, batch.images[k * size..(k + 1) * size], "image {slot} of epoch {epoch}");
            assert_eq!((&again.objects[0], &again.applied[0]), (&batch.objects[k], &batch.applied[k]));
            assert_eq!((again.indices[0], &again.names[0]), (batch.indices[k], &batch.names[k]));
        }
        epoch = batch.position.epoch;
    }
    assert!(stand_ins > 0, "two of nine images are broken");
}

#[test]
fn landscape_and_portrait_go_into_batches_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let set = files(folder.path(), 22, &[]);
    let mixed = |group_by_aspect: bool| {
        let augmentation = Augmentation { group_by_aspect, ..Augmentation::flip_only() };
        let batches =
            take(Loader::new(Arc::clone(&set), settings(augmentation, EDGE, 2), Position::default()).unwrap(), 5);
        assert!(batches.iter().all(|batch| batch.indices.len() == 4 && batch.position.epoch < 2));
        let wides = batches.iter().map(|batch| batch.indices.iter().filter(|i| i.is_multiple_of(2)).count());
        wides.filter(|wides| ![0, 4].contains(wides)).count()
    };
    assert!(mixed(true) <= 1);
    assert!(mixed(false) > 1, "by chance alone most batches are mixed");
}

#[test]
fn a_random_scale_changes_the_shorter_side_and_needs_an_input_that_has_one() {
    let set = shapes(8);
    let scaled = Augmentation { scale_low: 24, scale_high: 48, scale_step: 8, ..Augmentation::none() };
    let batches = take(Loader::new(Arc::clone(&set), settings(scaled, EDGE, 1), Position::default()).unwrap(), 8);
    let mut sides = Vec::new();
    for (size, applied) in batches.iter().flat_map(|batch| batch.sizes.iter().zip(&batch.applied)) {
        let scale = applied.iter().find(|applied| applied.name == "scale").unwrap();
        // 64 × 48 images: sides are multiples of 8 already.
        assert_eq!(size.1 as f32, scale.parameters[0].1);
        sides.push(size.1);
    }
    sides.sort_unstable();
    sides.dedup();
    assert_eq!(sides, [24, 32, 40, 48]);
    let refused = Loader::new(set, settings(scaled, STRETCH, 1), Position::default());
    assert!(matches!(refused, Err(DataError::Loader { message }) if message.contains("scale_high")));
}

#[test]
fn objects_of_a_batch_lie_on_their_pixels() {
    let folder = tempfile::tempdir().unwrap();
    let set = files(folder.path(), 8, &[]);
    let augmentation = Augmentation { photometric: false, vertical_flip: 0.5, ..Augmentation::ssd() };
    let fit = Fit::Letterbox { width: 96, height: 96, fill: 110.0 };
    let mut settings = settings(augmentation, fit, 2);
    (settings.preprocess.mean, settings.preprocess.std) = ([0.0; 3], [1.0; 3]);
    let (mut checked, area) = (0, 96 * 96);
    for batch in take(Loader::new(set, settings, Position::default()).unwrap(), 8) {
        for (image, objects) in batch.images.chunks_exact(3 * area).zip(&batch.objects) {
            for object in objects {
                let color = COLORS[object.class as usize];
                let (x, y) = object.bbox.center();
                let at = y as usize * 96 + x as usize;
                let pixel = [0, 1, 2].map(|channel: usize| image[channel * area + at]);
                assert!(pixel.iter().zip(color).all(|(v, c)| (v - f32::from(c)).abs() < 1.0), "{pixel:?}, {object:?}");
                let mask = object.mask.as_ref().unwrap();
                assert_eq!((mask.width, mask.height), (96, 96));
                checked += 1;
            }
        }
    }
    assert!(checked > 20, "{checked}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_rectangle_stays_under_its_mask_and_box(
        (width, height, left, top) in (8u32..40, 8u32..40, 0u32..6, 0u32..6),
        (wide, high) in (1u32..34, 1u32..34),
        seed in any::<u64>(),
    ) {
        let mut picture = Picture::new(width, height, [0; 3]);
        let place = [left, top, wide.min(width - left), high.min(height - top)];
        let object = rectangle(&mut picture, 1, place);
        let settings = Augmentation { photometric: false, vertical_flip: 0.5, zoom_max: 1.5, ..Augmentation::ssd() };
        let sample = Sample { picture, objects: vec![object] };
        let (found, _) = augment(sample, &settings, GREY, &mut Random::new(seed));
        prop_assert_eq!(found.objects.len(), 1);
        assert_exact(&found, "any");
    }

    #[test]
    fn a_mosaic_of_anything_has_proper_objects_inside_it(
        sizes in prop::array::uniform4((1u32..20, 1u32..20)),
        (frame_width, frame_height) in (0u32..24, 0u32..24),
        (low, high) in (0.0f32..2.0, 0.0f32..3.0),
        seed in any::<u64>(),
    ) {
        let samples: Vec<Sample> = sizes.iter().zip(0..).map(|((width, height), class)| {
            let mut picture = Picture::new(*width, *height, [0; 3]);
            let object = rectangle(&mut picture, class, [0, 0, *width, *height]);
            Sample { picture, objects: vec![object] }
        }).collect();
        let given = |k: usize| SampleRef { picture: &samples[k].picture, objects: &samples[k].objects };
        let partner = |k: usize| Partner { index: k, sample: given(k) };
        let partners = Partners { mosaic: [1, 2, 3].map(partner).to_vec(), mixup: Some(partner(2)) };
        let frame = Frame { fill: GREY, size: (frame_width, frame_height) };
        let settings = Augmentation {
            mosaic: 1.0,
            mosaic_scale_min: low,
            mosaic_scale_max: high,
            mixup: 1.0,
            ..Augmentation::none()
        };
        let made = augment_with(given(0), &partners, &frame, &settings, &mut Random::new(seed));
        let picture = made.picture.unwrap();
        prop_assert_eq!(picture.rgb.len(), 3 * (picture.width * picture.height) as usize);
        for object in &made.objects {
            let b = object.bbox;
            prop_assert!(b.is_proper() && b.clip(picture.width as f32, picture.height as f32) == b);
            let mask = object.mask.as_ref().unwrap();
            prop_assert_eq!((mask.width, mask.height), (picture.width, picture.height));
            // Each pixel of a mask has its centre in the box, up to rounding.
            let m = mask.bbox();
            prop_assert!(m.x0 >= b.x0 - 0.51 && m.y0 >= b.y0 - 0.51 && m.x1 <= b.x1 + 0.51 && m.y1 <= b.y1 + 0.51);
        }
    }
}
