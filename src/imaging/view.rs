//! A picture and its objects through a window, perhaps mirrored: what the geometric parts of augmentation compose to.
//!
//! Zoom-out, crop and mirroring move the window and the boxes alone. Pixels and masks are copied once, at the end, so a
//! large canvas of which a crop keeps a corner is never made, and colours are distorted only where they are seen.

use super::crop::Window;
use super::mask_map::{map_mask, shifted};
use super::photometric::Photometric;
use super::picture::Picture;
use crate::geometry::{BBox, Object};

/// The window over a picture. Mirroring comes after it: a mirrored view is not cropped again.
pub struct View<'a> {
    picture: &'a Picture,
    objects: &'a [Object],
    /// In the picture's pixels; beyond its border there is the fill.
    window: Window,
    mirrored: bool,
    upside_down: bool,
    cropped: bool,
    seen: Vec<Seen>,
}

/// An object in the view's pixels; its mask is made at the end.
struct Seen {
    /// Of the view's objects.
    source: usize,
    object: Object,
}

impl<'a> View<'a> {
    /// All of the picture.
    pub fn new(picture: &'a Picture, objects: &'a [Object]) -> Self {
        let seen = |(source, object): (usize, &Object)| Seen { source, object: Object { mask: None, ..*object } };
        Self {
            picture,
            objects,
            window: Window::whole(picture.width, picture.height),
            mirrored: false,
            upside_down: false,
            cropped: false,
            seen: objects.iter().enumerate().map(seen).collect(),
        }
    }

    /// Width and height.
    pub fn size(&self) -> (u32, u32) {
        (self.window.width, self.window.height)
    }

    /// The objects that are left, without their masks.
    pub fn objects(&self) -> Vec<Object> {
        self.seen.iter().map(|seen| Object { mask: None, ..seen.object }).collect()
    }

    /// Onto a canvas around the view, in the view's pixels. Everybody stays.
    pub fn zoom_out(&mut self, canvas: &Window) {
        for seen in &mut self.seen {
            seen.object.bbox = seen.object.bbox.shift(-canvas.left as f32, -canvas.top as f32);
        }
        self.look_through(canvas);
    }

    /// To a window of the view. Objects whose centre is strictly inside stay, clipped; without a mask their area
    /// shrinks as the box does.
    pub fn crop(&mut self, window: &Window) {
        self.seen.retain_mut(|Seen { object, .. }| {
            let before = object.bbox.area();
            let Some(kept) = window.keep(object.bbox) else { return false };
            object.bbox = kept;
            let share = if before > 0.0 { kept.area() / before } else { 0.0 };
            object.area = object.area.map(|area| area * share);
            true
        });
        self.look_through(window);
        self.cropped = true;
    }

    /// Left to right.
    pub fn flip_horizontal(&mut self) {
        self.mirrored = !self.mirrored;
        for seen in &mut self.seen {
            seen.object.bbox = seen.object.bbox.flip_horizontal(self.window.width as f32);
        }
    }

    /// Top to bottom.
    pub fn flip_vertical(&mut self) {
        self.upside_down = !self.upside_down;
        for seen in &mut self.seen {
            let b = seen.object.bbox;
            let height = self.window.height as f32;
            seen.object.bbox = BBox::new(b.x0, height - b.y1, b.x1, height - b.y0);
        }
    }

    /// The pixels with `distortion` applied to the picture's own, on a ground of `fill`; nothing where that is the
    /// picture as it was given.
    pub fn pixels(&self, fill: [u8; 3], distortion: &Photometric) -> Option<Picture> {
        if self.is_whole() && distortion.is_none() {
            return None;
        }
        let distortion = distortion.prepare();
        let (width, height) = (self.window.width as usize, self.window.height as usize);
        let mut out = Picture::new(self.window.width, self.window.height, fill);
        let (first, end) = over(self.window.left, self.window.width, self.picture.width);
        let (first_row, end_row) = over(self.window.top, self.window.height, self.picture.height);
        if first >= end {
            return Some(out);
        }
        let count = end - first;
        let start = if self.mirrored { width - end } else { first };
        for row in first_row..end_row {
            let source = self.picture.row((row as i64 + self.window.top) as usize);
            let column = (first as i64 + self.window.left) as usize;
            let source = &source[3 * column..3 * (column + count)];
            let row = if self.upside_down { height - 1 - row } else { row };
            let target = &mut out.rgb[3 * (row * width + start)..3 * (row * width + start + count)];
            if self.mirrored {
                for (to, from) in target.chunks_exact_mut(3).zip(source.chunks_exact(3).rev()) {
                    to.copy_from_slice(from);
                }
            } else {
                target.copy_from_slice(source);
            }
            distortion.apply(target);
        }
        Some(out)
    }

    /// The objects with their masks. A mask that does not read is dropped unless nothing changed; where the view was
    /// cropped the area of a masked object is counted anew.
    pub fn finish(self) -> Vec<Object> {
        let whole = self.is_whole();
        let Self { objects, window, mirrored, upside_down, cropped, seen, .. } = self;
        let masked = |Seen { source, mut object }: Seen| -> Object {
            let Some(given) = objects.get(source) else { return object };
            object.mask = match &given.mask {
                Some(mask) if whole => Some(mask.clone()),
                Some(mask) => {
                    let columns = shifted(window.width, window.left, mask.width, mirrored);
                    let rows = shifted(window.height, window.top, mask.height, upside_down);
                    map_mask(mask, &columns, &rows)
                }
                None => None,
            };
            if cropped && let Some(mask) = &object.mask {
                object.area = given.area.map(|_| mask.area() as f32);
            }
            object
        };
        seen.into_iter().map(masked).collect()
    }

    fn is_whole(&self) -> bool {
        let all = Window::whole(self.picture.width, self.picture.height);
        self.window == all && !self.mirrored && !self.upside_down
    }

    fn look_through(&mut self, window: &Window) {
        let (left, top) = (self.window.left + window.left, self.window.top + window.top);
        self.window = Window { left, top, width: window.width, height: window.height };
    }
}

/// Of a window's pixels from `start` on, those that lie over a picture of `limit` pixels: first and end.
fn over(start: i64, length: u32, limit: u32) -> (usize, usize) {
    let first = (-start).clamp(0, i64::from(length));
    (first as usize, (i64::from(limit) - start).clamp(first, i64::from(length)) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Mask;

    const FILL: [u8; 3] = [9, 99, 199];

    /// A bitmap of the picture's size that is 1 inside the box, whose corners are whole.
    fn mask_of(bbox: BBox, width: u32, height: u32) -> Mask {
        let inside = |i: u32| bbox.contains((i % width) as f32 + 0.5, (i / width) as f32 + 0.5);
        let bitmap: Vec<u8> = (0..width * height).map(|i| u8::from(inside(i))).collect();
        Mask::from_bitmap(height, width, &bitmap).unwrap()
    }

    /// Every pixel tells its place.
    fn places(width: u32, height: u32) -> Picture {
        let rgb = (0..width * height).flat_map(|i| [(i % width) as u8, (i / width) as u8, 0]).collect();
        Picture::from_rgb(width, height, rgb).unwrap()
    }

    fn pixels(view: &View<'_>) -> Picture {
        view.pixels(FILL, &Photometric::default()).unwrap()
    }

    #[test]
    fn a_view_equals_the_steps_taken_one_by_one_on_pixels() {
        let picture = places(20, 12);
        let canvas = Window { left: -7, top: -3, width: 40, height: 30 };
        let crop = Window { left: 5, top: 1, width: 18, height: 9 };
        let mut steps = Picture::new(40, 30, FILL);
        steps.paste(&picture, 7, 3);
        let steps = steps.crop(5, 1, 18, 9);
        let mut view = View::new(&picture, &[]);
        assert_eq!(view.pixels(FILL, &Photometric::default()), None, "as it was given");
        view.zoom_out(&canvas);
        view.crop(&crop);
        assert_eq!((view.size(), pixels(&view)), ((18, 9), steps.clone()));
        view.flip_horizontal();
        assert_eq!(pixels(&view), steps.flip_horizontal());
        view.flip_vertical();
        assert_eq!(pixels(&view), steps.flip_horizontal().flip_vertical());
        view.flip_horizontal();
        assert_eq!(pixels(&view), steps.flip_vertical());
    }

    #[test]
    fn boxes_masks_and_areas_follow() {
        let bbox = BBox::new(2.0, 1.0, 8.0, 5.0);
        let picture = places(20, 12);
        let object = |mask: Option<Mask>| Object { id: 4, bbox, area: Some(24.0), mask, ..Object::default() };
        let objects = [object(Some(mask_of(bbox, 20, 12))), object(None)];
        let mut view = View::new(&picture, &objects);
        view.zoom_out(&Window { left: -1, top: -2, width: 22, height: 16 });
        let moved = BBox::new(3.0, 3.0, 9.0, 7.0);
        assert_eq!(view.objects()[0].bbox, moved);
        view.crop(&Window { left: 5, top: 0, width: 10, height: 16 });
        view.flip_vertical();
        // Four of six columns are left, at the window's left edge; upside down in 16 rows.
        let left = BBox::new(0.0, 9.0, 4.0, 13.0);
        let found = view.finish();
        assert_eq!((found[0].bbox, found[0].area, found[0].id), (left, Some(16.0), 4));
        assert_eq!(found[0].mask, Some(mask_of(left, 10, 16)));
        assert_eq!((found[1].bbox, found[1].area, &found[1].mask), (left, Some(16.0), &None));
    }

    #[test]
    fn torn_masks_are_dropped_when_something_moves() {
        let torn = Mask { height: 5, width: 9, counts: vec![1] };
        let bbox = BBox::new(1.0, 1.0, 4.0, 3.0);
        let picture = places(9, 5);
        let objects = [Object { bbox, mask: Some(torn.clone()), ..Object::default() }];
        assert_eq!(View::new(&picture, &objects).finish()[0].mask, Some(torn));
        let mut view = View::new(&picture, &objects);
        view.flip_vertical();
        assert_eq!((view.finish()[0].mask.clone(), objects[0].bbox), (None, bbox));
    }

    #[test]
    fn colours_are_distorted_on_the_picture_and_not_on_the_ground() {
        let picture = Picture::new(3, 2, [10, 20, 30]);
        let mut view = View::new(&picture, &[]);
        view.zoom_out(&Window { left: -1, top: 0, width: 5, height: 2 });
        let brighter = Photometric { brightness: Some(5.0), ..Photometric::default() };
        let found = view.pixels(FILL, &brighter).unwrap();
        assert_eq!([found.pixel(0, 0), found.pixel(1, 1), found.pixel(4, 0)], [FILL, [15, 25, 35], FILL]);
    }

    #[test]
    fn a_window_that_misses_the_picture_shows_the_ground() {
        let picture = places(4, 4);
        for (left, top) in [(4, 0), (-9, 0), (0, 9), (0, -9)] {
            let mut view = View::new(&picture, &[]);
            view.zoom_out(&Window { left, top, width: 3, height: 3 });
            assert_eq!(pixels(&view), Picture::new(3, 3, FILL), "{left}, {top}");
        }
    }
}
