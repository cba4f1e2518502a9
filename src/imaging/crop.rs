//! Zoom-out and IoU-constrained crop of SSD: which canvas and which window are drawn, and who is kept in it.
//!
//! W. Liu et al., "SSD: Single Shot MultiBox Detector" (2016), sections 2.2 and 3.6 (augmentation, small objects).

use crate::geometry::iou::iou;
use crate::geometry::{BBox, Object};
use crate::random::Random;

/// Windows that are tried for one constraint.
const TRIALS: usize = 50;
/// Constraints that are tried before the picture is kept whole.
const ROUNDS: usize = 20;
/// Pixels of the largest canvas: a large photograph zooms out by less.
pub(super) const MAX_CANVAS: f32 = 67_108_864.0;

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
    /// All of a picture.
    pub fn whole(width: u32, height: u32) -> Self {
        Self { left: 0, top: 0, width, height }
    }

    /// In pixels of the picture.
    pub fn bbox(&self) -> BBox {
        BBox::from_xywh(self.left as f32, self.top as f32, self.width as f32, self.height as f32)
    }

    /// A box of the picture in the window's pixels, cut at its border; nothing for a box whose centre is not strictly
    /// inside or of which nothing is left.
    pub fn keep(&self, bbox: BBox) -> Option<BBox> {
        let frame = self.bbox();
        let (x, y) = bbox.center();
        let inside = x > frame.x0 && x < frame.x1 && y > frame.y0 && y < frame.y1;
        let part = bbox.shift(-self.left as f32, -self.top as f32).clip(self.width as f32, self.height as f32);
        (inside && part.is_proper()).then_some(part)
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
    /// The canvas in pixels of the picture: its corner lies left of the picture's and above it.
    pub canvas: Window,
}

/// A canvas whose sides are `1..max_ratio` times the picture's, with the picture at a random place of it.
pub fn draw_zoom_out((width, height): (u32, u32), max_ratio: f32, rng: &mut Random) -> ZoomOut {
    let (wide, high) = (width as f32, height as f32);
    let possible = (MAX_CANVAS / (wide * high).max(1.0)).sqrt();
    let ratio = rng.range(1.0, max_ratio.max(1.0)).min(possible).max(1.0);
    let canvas_width = ((wide * ratio) as u32).max(width);
    let canvas_height = ((high * ratio) as u32).max(height);
    let left = rng.below((canvas_width - width) as usize + 1) as i64;
    let top = rng.below((canvas_height - height) as usize + 1) as i64;
    ZoomOut { ratio, canvas: Window { left: -left, top: -top, width: canvas_width, height: canvas_height } }
}

/// Draws a constraint and a window that satisfies it, as SSD's reference code with its acceptance test repaired: a
/// window is refused when the best IoU of an object with it is below the minimum. Objects whose centre is strictly
/// inside stay.
///
/// At least one training target (an object that is no crowd) stays if there was one; a picture without objects is kept
/// whole. So is one for which no window was found.
pub fn draw_crop((width, height): (u32, u32), objects: &[Object], rng: &mut Random) -> Crop {
    let targets = objects.iter().any(|o| !o.crowd);
    let counted: Vec<BBox> = objects.iter().filter(|o| !(targets && o.crowd)).map(|o| o.bbox).collect();
    if !objects.is_empty() && width > 0 && height > 0 {
        for _ in 0..ROUNDS {
            let constraint = CONSTRAINTS[rng.below(CONSTRAINTS.len())];
            if constraint == Constraint::Whole {
                break;
            }
            for _ in 0..TRIALS {
                let Some(window) = draw_window(width, height, rng) else {
                    continue;
                };
                if let Constraint::MinIou(min) = constraint {
                    let overlaps = counted.iter().map(|b| iou(*b, window.bbox()));
                    if overlaps.fold(0.0f32, f32::max) < min {
                        continue;
                    }
                }
                if counted.iter().any(|b| window.keep(*b).is_some()) {
                    return Crop { constraint, window };
                }
            }
        }
    }
    Crop { constraint: Constraint::Whole, window: Window::whole(width, height) }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::slice::from_ref;

    fn object(bbox: BBox) -> Object {
        Object { bbox, ..Object::default() }
    }

    #[test]
    fn a_canvas_holds_the_picture() {
        for seed in 0..20 {
            let zoom = draw_zoom_out((10, 6), 4.0, &mut Random::new(seed));
            let canvas = zoom.canvas;
            assert!((1.0..4.0).contains(&zoom.ratio));
            assert_eq!((canvas.width, canvas.height), ((10.0 * zoom.ratio) as u32, (6.0 * zoom.ratio) as u32));
            assert!(canvas.left <= 0 && canvas.left + i64::from(canvas.width) >= 10, "{canvas:?}");
            assert!(canvas.top <= 0 && canvas.top + i64::from(canvas.height) >= 6, "{canvas:?}");
        }
    }

    #[test]
    fn a_crop_keeps_what_its_constraint_asks_for() {
        let boxes =
            [BBox::new(10.0, 10.0, 30.0, 40.0), BBox::new(50.0, 20.0, 90.0, 55.0), BBox::new(70.0, 60.0, 80.0, 66.0)];
        let objects: Vec<Object> = boxes.iter().map(|b| object(*b)).collect();
        let mut seen = Vec::new();
        for seed in 0..300 {
            let crop = draw_crop((100, 70), &objects, &mut Random::new(seed));
            let window = crop.window;
            if crop.constraint == Constraint::Whole {
                assert_eq!(window, Window::whole(100, 70));
            } else {
                let aspect = window.height as f32 / window.width as f32;
                // Cutting to whole pixels moves the sides by less than one of at least 21.
                assert!((0.45..2.2).contains(&aspect), "{window:?}");
                assert!(window.width >= 29 && window.height >= 20, "{window:?}");
                assert!(window.left >= 0 && window.left + i64::from(window.width) <= 100, "{window:?}");
                assert!(window.top >= 0 && window.top + i64::from(window.height) <= 70, "{window:?}");
            }
            if let Constraint::MinIou(min) = crop.constraint {
                let best = boxes.iter().map(|b| iou(*b, window.bbox())).fold(0.0, f32::max);
                assert!(best >= min, "{best} below {min}");
            }
            assert!(boxes.iter().any(|b| window.keep(*b).is_some()), "seed {seed}");
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
        for seed in 0..100 {
            let crop = draw_crop((100, 70), &[crowd.clone(), target.clone()], &mut Random::new(seed));
            assert!(crop.window.keep(target.bbox).is_some(), "seed {seed}");
            let crop = draw_crop((100, 70), from_ref(&crowd), &mut Random::new(seed));
            assert!(crop.window.keep(crowd.bbox).is_some(), "seed {seed}");
        }
    }

    #[test]
    fn a_kept_box_is_cut_at_the_window_and_a_centre_on_its_border_is_out() {
        let window = Window { left: 4, top: 0, width: 6, height: 10 };
        assert_eq!(window.keep(BBox::new(0.0, 0.0, 10.0, 10.0)), Some(BBox::new(0.0, 0.0, 6.0, 10.0)));
        assert_eq!(window.keep(BBox::new(0.0, 0.0, 8.0, 10.0)), None);
        assert_eq!(window.keep(BBox::new(7.0, 3.0, 7.0, 5.0)), None, "no area");
    }

    #[test]
    fn tiny_pictures_and_boxes_of_no_size_do_not_fail() {
        for (width, height) in [(0, 0), (1, 1), (1, 50), (2, 3)] {
            let flat = object(BBox::new(0.5, 0.5, 0.5, 0.5));
            let whole = object(BBox::new(0.0, 0.0, width as f32, height as f32));
            for seed in 0..10 {
                let mut rng = Random::new(seed);
                let crop = draw_crop((width, height), &[flat.clone(), whole.clone()], &mut rng);
                assert!(crop.window.width <= width && crop.window.height <= height);
                let zoom = draw_zoom_out((width, height), 4.0, &mut rng);
                assert!(zoom.canvas.width >= width && zoom.canvas.height >= height);
            }
        }
    }
}
