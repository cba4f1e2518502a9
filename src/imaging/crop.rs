//! Zoom-out and IoU-constrained crop of SSD, with boxes and masks following their pixels.
//!
//! W. Liu et al., "SSD: Single Shot MultiBox Detector" (2016), sections 2.2 and 3.6 (augmentation, small objects).

use super::picture::Picture;
use crate::geometry::iou::iou;
use crate::geometry::{BBox, Mask, Object};
use crate::random::Random;

/// Windows that are tried for one constraint.
const TRIALS: usize = 50;
/// Constraints that are tried before the picture is kept whole.
const ROUNDS: usize = 20;
/// Pixels of the largest canvas: a large photograph zooms out by less.
const MAX_CANVAS: f32 = 67_108_864.0;

/// What a crop must satisfy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Constraint {
    /// No crop.
    Whole,
    /// The best overlap of an object with the window is at least this IoU.
    MinIou(f32),
    /// Any window that keeps an object.
    Any,
}

/// The modes, each as likely as the others.
pub const CONSTRAINTS: [Constraint; 7] = [
    Constraint::Whole,
    Constraint::MinIou(0.1),
    Constraint::MinIou(0.3),
    Constraint::MinIou(0.5),
    Constraint::MinIou(0.7),
    Constraint::MinIou(0.9),
    Constraint::Any,
];

/// A part of a picture, or a frame around it, in whole pixels of the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub left: i64,
    pub top: i64,
    pub width: u32,
    pub height: u32,
}

impl Window {
    fn bbox(&self) -> BBox {
        BBox::from_xywh(self.left as f32, self.top as f32, self.width as f32, self.height as f32)
    }
}

/// The crop that was taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crop {
    pub constraint: Constraint,
    pub window: Window,
}

/// The canvas that was drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ZoomOut {
    /// Side of the canvas over that of the picture.
    pub ratio: f32,
    /// Place of the picture on it, pixels.
    pub left: u32,
    pub top: u32,
}

/// Puts the picture at a random place of a canvas of colour `fill`, whose sides are `1..max_ratio` times its own.
pub fn zoom_out(
    picture: &Picture,
    objects: &[Object],
    max_ratio: f32,
    fill: [u8; 3],
    rng: &mut Random,
) -> (Picture, Vec<Object>, ZoomOut) {
    let (width, height) = (picture.width as f32, picture.height as f32);
    let possible = (MAX_CANVAS / (width * height).max(1.0)).sqrt();
    let ratio = rng.range(1.0, max_ratio.max(1.0)).min(possible).max(1.0);
    let canvas_width = ((width * ratio) as u32).max(picture.width);
    let canvas_height = ((height * ratio) as u32).max(picture.height);
    let left = rng.below((canvas_width - picture.width) as usize + 1) as u32;
    let top = rng.below((canvas_height - picture.height) as usize + 1) as u32;
    let mut canvas = Picture::new(canvas_width, canvas_height, fill);
    canvas.paste(picture, left, top);
    let frame = Window { left: -i64::from(left), top: -i64::from(top), width: canvas_width, height: canvas_height };
    let objects = objects.iter().map(|o| moved(o, &frame)).collect();
    (canvas, objects, ZoomOut { ratio, left, top })
}

/// Draws a constraint and a window that satisfies it, as SSD's reference code with its acceptance test repaired: a
/// window is refused when the best IoU of an object with it is below the minimum. Objects whose centre is strictly
/// inside stay, clipped to the window.
///
/// At least one training target (an object that is no crowd) stays if there was one; a picture without objects is kept
/// whole. So is one for which no window was found.
pub fn iou_crop(picture: &Picture, objects: &[Object], rng: &mut Random) -> (Picture, Vec<Object>, Crop) {
    let full = Window { left: 0, top: 0, width: picture.width, height: picture.height };
    let targets = objects.iter().any(|o| !o.crowd);
    let counts = |o: &Object| !(targets && o.crowd);
    if !objects.is_empty() && picture.width > 0 && picture.height > 0 {
        for _ in 0..ROUNDS {
            let constraint = CONSTRAINTS[rng.below(CONSTRAINTS.len())];
            if constraint == Constraint::Whole {
                break;
            }
            for _ in 0..TRIALS {
                let Some(window) = draw_window(picture.width, picture.height, rng) else {
                    continue;
                };
                if let Constraint::MinIou(min) = constraint {
                    let overlaps = objects.iter().filter(|&o| counts(o)).map(|o| iou(o.bbox, window.bbox()));
                    if overlaps.fold(0.0f32, f32::max) < min {
                        continue;
                    }
                }
                let kept = objects_in(objects, &window);
                if kept.iter().any(counts) {
                    let part = picture.crop(window.left as u32, window.top as u32, window.width, window.height);
                    return (part, kept, Crop { constraint, window });
                }
            }
        }
    }
    (picture.clone(), objects.to_vec(), Crop { constraint: Constraint::Whole, window: full })
}

/// Objects whose centre lies strictly inside the window, clipped to it and in its pixels.
pub fn objects_in(objects: &[Object], window: &Window) -> Vec<Object> {
    let frame = window.bbox();
    let inside = |o: &&Object| {
        let (x, y) = o.bbox.center();
        x > frame.x0 && x < frame.x1 && y > frame.y0 && y < frame.y1
    };
    let (width, height) = (window.width as f32, window.height as f32);
    let clipped = |object: &Object| -> Object {
        let mut part = moved(object, window);
        let box_area = part.bbox.area();
        part.bbox = part.bbox.clip(width, height);
        let share = if box_area > 0.0 { part.bbox.area() / box_area } else { 0.0 };
        // With a mask the area is counted again; without one it shrinks as the box does.
        part.area = match &part.mask {
            Some(mask) => object.area.map(|_| mask.area() as f32),
            None => object.area.map(|a| a * share),
        };
        part
    };
    objects.iter().filter(inside).map(clipped).filter(|o| o.bbox.is_proper()).collect()
}

/// Mirrors objects of a picture `width` pixels wide, left to right.
pub fn flip_objects_horizontal(objects: &mut [Object], width: u32) {
    for object in objects {
        object.bbox = object.bbox.flip_horizontal(width as f32);
        object.mask = object.mask.as_ref().map(Mask::flip_horizontal);
    }
}

/// Mirrors objects of a picture `height` pixels high, top to bottom. A mask that does not read is dropped.
pub fn flip_objects_vertical(objects: &mut [Object], height: u32) {
    for object in objects {
        let b = object.bbox;
        object.bbox = BBox::new(b.x0, height as f32 - b.y1, b.x1, height as f32 - b.y0);
        object.mask = object.mask.as_ref().and_then(upside_down);
    }
}

fn draw_window(width: u32, height: u32, rng: &mut Random) -> Option<Window> {
    let (wide, high) = (width as f32, height as f32);
    let (w, h) = (rng.range(0.3, 1.0) * wide, rng.range(0.3, 1.0) * high);
    if h / w < 0.5 || h / w > 2.0 {
        return None;
    }
    let (left, top) = (rng.range(0.0, wide - w), rng.range(0.0, high - h));
    // Corners are cut to whole pixels each on its own.
    let (x0, y0) = (left as u32, top as u32);
    let (x1, y1) = (((left + w) as u32).min(width), ((top + h) as u32).min(height));
    if x1 <= x0 || y1 <= y0 {
        return None;
    }
    Some(Window { left: i64::from(x0), top: i64::from(y0), width: x1 - x0, height: y1 - y0 })
}

/// The object in the pixels of the window, not clipped; its mask is that of the window.
fn moved(object: &Object, window: &Window) -> Object {
    Object {
        bbox: object.bbox.shift(-window.left as f32, -window.top as f32),
        mask: object.mask.as_ref().and_then(|m| seen_through(m, window)),
        ..object.clone()
    }
}

/// The mask through the window, empty where the window lies outside; `None` for a mask that does not read.
fn seen_through(mask: &Mask, window: &Window) -> Option<Mask> {
    let bitmap = mask.to_bitmap().ok()?;
    let (width, height) = (window.width as usize, window.height as usize);
    let mut part = vec![0u8; width * height];
    // Columns and rows of the window that lie over the mask.
    let over = |start: i64, size: u32, limit: u32| -> (i64, i64) {
        let first = (-start).clamp(0, i64::from(size));
        (first, (i64::from(limit) - start).clamp(first, i64::from(size)))
    };
    let (first_column, end_column) = over(window.left, window.width, mask.width);
    let (first_row, end_row) = over(window.top, window.height, mask.height);
    if first_column < end_column {
        let count = (end_column - first_column) as usize;
        for row in first_row..end_row {
            let source = (row + window.top) as usize * mask.width as usize + (first_column + window.left) as usize;
            let target = row as usize * width + first_column as usize;
            part[target..target + count].copy_from_slice(&bitmap[source..source + count]);
        }
    }
    Mask::from_bitmap(window.height, window.width, &part).ok()
}

fn upside_down(mask: &Mask) -> Option<Mask> {
    let bitmap = mask.to_bitmap().ok()?;
    let rows = bitmap.chunks_exact((mask.width as usize).max(1)).rev();
    let flipped: Vec<u8> = rows.flatten().copied().collect();
    Mask::from_bitmap(mask.height, mask.width, &flipped).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::slice::from_ref;

    const FILL: [u8; 3] = [9, 99, 199];

    fn object(bbox: BBox) -> Object {
        Object { bbox, ..Object::default() }
    }

    /// A bitmap of the picture's size that is 1 inside the box, whose corners are whole.
    fn mask_of(bbox: BBox, width: u32, height: u32) -> Mask {
        let inside = |i: u32| bbox.contains((i % width) as f32 + 0.5, (i / width) as f32 + 0.5);
        let bitmap: Vec<u8> = (0..width * height).map(|i| u8::from(inside(i))).collect();
        Mask::from_bitmap(height, width, &bitmap).unwrap()
    }

    #[test]
    fn a_canvas_holds_the_picture_and_its_objects_where_it_says() {
        let bbox = BBox::new(2.0, 1.0, 7.0, 5.0);
        let given = Object { mask: Some(mask_of(bbox, 10, 6)), area: Some(20.0), ..object(bbox) };
        let picture = Picture::new(10, 6, [1, 2, 3]);
        for seed in 0..20 {
            let (canvas, objects, zoom) = zoom_out(&picture, from_ref(&given), 4.0, FILL, &mut Random::new(seed));
            assert!((1.0..4.0).contains(&zoom.ratio));
            assert_eq!(canvas.width, (10.0 * zoom.ratio) as u32);
            assert_eq!(canvas.crop(zoom.left, zoom.top, 10, 6), picture);
            let count = canvas.rgb.chunks_exact(3).filter(|p| *p == [1, 2, 3]).count();
            assert_eq!(count, 60, "all of it, and nothing else");
            let moved = bbox.shift(zoom.left as f32, zoom.top as f32);
            assert_eq!(objects[0].bbox, moved);
            assert_eq!(objects[0].mask, Some(mask_of(moved, canvas.width, canvas.height)));
            assert_eq!(objects[0].area, Some(20.0));
        }
    }

    #[test]
    fn a_crop_keeps_what_its_constraint_asks_for() {
        let boxes =
            [BBox::new(10.0, 10.0, 30.0, 40.0), BBox::new(50.0, 20.0, 90.0, 55.0), BBox::new(70.0, 60.0, 80.0, 66.0)];
        let objects: Vec<Object> = boxes
            .iter()
            .zip(1u64..)
            .map(|(b, id)| Object { id, mask: Some(mask_of(*b, 100, 70)), area: Some(b.area()), ..object(*b) })
            .collect();
        // Every pixel tells its place.
        let rgb = (0..7000u32).flat_map(|i| [(i % 100) as u8, (i / 100) as u8, 0]).collect();
        let picture = Picture::from_rgb(100, 70, rgb).unwrap();
        let mut seen = Vec::new();
        for seed in 0..300 {
            let (part, kept, crop) = iou_crop(&picture, &objects, &mut Random::new(seed));
            let window = crop.window;
            assert_eq!((part.width, part.height), (window.width, window.height));
            assert_eq!(part.pixel(0, 0), [window.left as u8, window.top as u8, 0]);
            assert!(!kept.is_empty(), "seed {seed}");
            if crop.constraint == Constraint::Whole {
                assert_eq!((&part, &kept), (&picture, &objects));
            } else {
                let aspect = window.height as f32 / window.width as f32;
                // Cutting to whole pixels moves the sides by less than one of at least 21.
                assert!((0.45..2.2).contains(&aspect), "{window:?}");
                assert!(window.width >= 29 && window.height >= 20, "{window:?}");
            }
            if let Constraint::MinIou(min) = crop.constraint {
                let best = boxes.iter().map(|b| iou(*b, window.bbox())).fold(0.0, f32::max);
                assert!(best >= min, "{best} below {min}");
            }
            for object in &kept {
                let original = boxes[object.id as usize - 1];
                let (x, y) = original.center();
                assert!(window.bbox().contains(x, y));
                let expected = original.shift(-window.left as f32, -window.top as f32);
                let expected = expected.clip(window.width as f32, window.height as f32);
                assert_eq!(object.bbox, expected);
                assert_eq!(object.mask, Some(mask_of(expected, window.width, window.height)));
                assert_eq!(object.area, Some(expected.area()));
            }
            seen.push(crop.constraint);
        }
        for constraint in CONSTRAINTS {
            let count = seen.iter().filter(|c| **c == constraint).count();
            // Large overlaps are rare with these boxes: those draws fall to another constraint.
            let rare = matches!(constraint, Constraint::MinIou(min) if min > 0.4);
            assert!(rare || count > 10, "{constraint:?} {count} times");
        }
    }

    #[test]
    fn a_crowd_alone_does_not_count_as_kept() {
        let crowd = Object { crowd: true, ..object(BBox::new(0.0, 0.0, 100.0, 70.0)) };
        let target = object(BBox::new(5.0, 5.0, 9.0, 9.0));
        let picture = Picture::new(100, 70, FILL);
        for seed in 0..100 {
            let (_, kept, _) = iou_crop(&picture, &[crowd.clone(), target.clone()], &mut Random::new(seed));
            assert!(kept.iter().any(|o| !o.crowd), "seed {seed}");
            let (_, kept, _) = iou_crop(&picture, from_ref(&crowd), &mut Random::new(seed));
            assert_eq!(kept.len(), 1);
        }
    }

    #[test]
    fn boxes_without_a_mask_shrink_their_area_with_the_clip() {
        let window = Window { left: 4, top: 0, width: 6, height: 10 };
        let half = Object { area: Some(30.0), ..object(BBox::new(0.0, 0.0, 10.0, 10.0)) };
        let out = object(BBox::new(0.0, 0.0, 8.0, 10.0));
        let kept = objects_in(&[half, out], &window);
        assert_eq!(kept.len(), 1, "a centre on the border is not inside");
        assert_eq!(kept[0].bbox, BBox::new(0.0, 0.0, 6.0, 10.0));
        assert_eq!(kept[0].area, Some(18.0));
    }

    #[test]
    fn mirrors_move_masks_as_they_move_boxes() {
        let bbox = BBox::new(1.0, 1.0, 4.0, 3.0);
        let mut objects = [Object { mask: Some(mask_of(bbox, 9, 5)), ..object(bbox) }];
        flip_objects_horizontal(&mut objects, 9);
        assert_eq!(objects[0].mask, Some(mask_of(BBox::new(5.0, 1.0, 8.0, 3.0), 9, 5)));
        flip_objects_vertical(&mut objects, 5);
        assert_eq!(objects[0].bbox, BBox::new(5.0, 2.0, 8.0, 4.0));
        assert_eq!(objects[0].mask, Some(mask_of(objects[0].bbox, 9, 5)));
        let torn = Mask { height: 5, width: 9, counts: vec![1] };
        let mut objects = [Object { mask: Some(torn), ..object(bbox) }];
        flip_objects_vertical(&mut objects, 5);
        assert_eq!(objects[0].mask, None);
    }

    #[test]
    fn tiny_pictures_and_boxes_of_no_size_do_not_fail() {
        for (width, height) in [(0, 0), (1, 1), (1, 50), (2, 3)] {
            let picture = Picture::new(width, height, FILL);
            let flat = object(BBox::new(0.5, 0.5, 0.5, 0.5));
            let whole = object(BBox::new(0.0, 0.0, width as f32, height as f32));
            for seed in 0..10 {
                let mut rng = Random::new(seed);
                let (_, kept, _) = iou_crop(&picture, &[flat.clone(), whole.clone()], &mut rng);
                assert!(!kept.is_empty());
                let (canvas, _, _) = zoom_out(&picture, from_ref(&flat), 4.0, FILL, &mut rng);
                assert!(canvas.width >= width && canvas.height >= height);
            }
        }
    }
}
