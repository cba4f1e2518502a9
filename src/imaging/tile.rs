//! A resized picture somewhere on a canvas: its pixels, and its objects with their boxes, masks and areas.

use super::crop::Window;
use super::mask_map::{map_mask, resampled};
use super::picture::Picture;
use super::resize::{Kernel, resize_picture};
use crate::geometry::Object;

/// A tile's objects keep their place as training targets if at least this share of their box is seen …
const MIN_SHARE: f32 = 0.2;
/// … and both sides of what is seen are this long, pixels. Both are the limits of MMDetection's `RandomAffine`.
const MIN_SIDE: f32 = 2.0;

/// Width and height of a picture resized to fit a frame with its aspect kept, sides rounded down.
pub(super) fn fitted(from: (u32, u32), frame: (u32, u32)) -> (u32, u32) {
    let (width, height) = (f64::from(from.0.max(1)), f64::from(from.1.max(1)));
    let scale = (f64::from(frame.0) / width).min(f64::from(frame.1) / height);
    let side = |length: f64, limit: u32| ((length * scale) as u32).clamp(1, limit.max(1));
    (side(width, frame.0), side(height, frame.1))
}

/// Resizes the picture to the size of `tile` and puts it there, as far as that is on the canvas.
pub(super) fn paste(canvas: &mut Picture, picture: &Picture, tile: &Window) {
    let part = |start: i64, length: u32, limit: u32| -> Option<(u32, u32, u32)> {
        let first = start.clamp(0, i64::from(limit));
        let end = start.saturating_add(i64::from(length)).clamp(first, i64::from(limit));
        let (cut, count) = (u32::try_from(first - start).ok()?, u32::try_from(end - first).ok()?);
        (count > 0).then_some((u32::try_from(first).ok()?, cut, count))
    };
    let across = part(tile.left, tile.width, canvas.width);
    let down = part(tile.top, tile.height, canvas.height);
    let (Some((left, cut_left, width)), Some((top, cut_top, height))) = (across, down) else { return };
    let resized = resize_picture(picture, tile.width, tile.height, Kernel::BilinearHalfPixel);
    if (width, height) == (tile.width, tile.height) {
        canvas.paste(&resized, left, top);
    } else {
        canvas.paste(&resized.crop(cut_left, cut_top, width, height), left, top);
    }
}

/// An object of a picture of `from` pixels that lies in `tile` of a canvas of `size` pixels (width, height); nothing
/// when too little of it is seen.
pub(super) fn place(object: &Object, from: (u32, u32), tile: &Window, size: (u32, u32)) -> Option<Object> {
    let scale_x = tile.width as f32 / from.0.max(1) as f32;
    let scale_y = tile.height as f32 / from.1.max(1) as f32;
    let (left, top) = (tile.left as f32, tile.top as f32);
    let whole = object.bbox.scale(scale_x, scale_y).shift(left, top);
    let bbox = whole.clip(size.0 as f32, size.1 as f32);
    let share = bbox.area() / whole.area();
    let enough = bbox.is_proper() && bbox.width().min(bbox.height()) >= MIN_SIDE && share >= MIN_SHARE;
    if !enough {
        return None;
    }
    let mask = object.mask.as_ref().and_then(|mask| {
        let columns = resampled(size.0 as usize, scale_x, left, mask.width);
        let rows = resampled(size.1 as usize, scale_y, top, mask.height);
        map_mask(mask, &columns, &rows)
    });
    let area = match &mask {
        Some(mask) => object.area.map(|_| mask.area() as f32),
        None => object.area.map(|area| area * scale_x * scale_y * share),
    };
    Some(Object { bbox, area, mask, ..*object })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{BBox, Mask};

    #[test]
    fn a_fitted_picture_touches_its_frame_and_keeps_its_aspect() {
        assert_eq!(fitted((200, 100), (50, 50)), (50, 25));
        assert_eq!(fitted((100, 200), (50, 50)), (25, 50));
        assert_eq!(fitted((10, 10), (40, 30)), (30, 30));
        assert_eq!(fitted((5000, 1), (40, 30)), (40, 1));
        assert_eq!(fitted((0, 0), (0, 0)), (1, 1));
    }

    #[test]
    fn a_tile_is_cut_at_the_canvas_with_its_objects() {
        let mut picture = Picture::new(4, 2, [10, 0, 0]);
        picture.paste(&Picture::new(2, 2, [0, 200, 0]), 2, 0);
        // Twice the size, three columns beyond the left edge: 5 of 8 are seen, of which the last 4 are green.
        let tile = Window { left: -3, top: 1, width: 8, height: 4 };
        let mut canvas = Picture::new(7, 6, [1, 1, 1]);
        paste(&mut canvas, &picture, &tile);
        assert_eq!(canvas.pixel(0, 0), [1, 1, 1]);
        assert_eq!([canvas.pixel(2, 2), canvas.pixel(4, 4)], [[0, 200, 0]; 2]);
        assert_eq!([canvas.pixel(5, 2), canvas.pixel(2, 5)], [[1, 1, 1]; 2]);
        let mask = Mask::from_bitmap(2, 4, &[0, 0, 1, 1, 0, 0, 1, 1]).unwrap();
        let green =
            Object { bbox: BBox::new(2.0, 0.0, 4.0, 2.0), area: Some(4.0), mask: Some(mask), ..Object::default() };
        let placed = place(&green, (4, 2), &tile, (7, 6)).unwrap();
        assert_eq!((placed.bbox, placed.area), (BBox::new(1.0, 1.0, 5.0, 5.0), Some(16.0)));
        assert_eq!(placed.mask.map(|mask| mask.bbox()), Some(placed.bbox));
        // One column of it is seen: too narrow.
        let red = Object { bbox: BBox::new(0.0, 0.0, 2.0, 2.0), ..Object::default() };
        assert!(place(&red, (4, 2), &tile, (7, 6)).is_none());
        let outside = Window { left: 7, ..tile };
        let before = canvas.clone();
        paste(&mut canvas, &picture, &outside);
        assert_eq!(canvas, before);
        assert!(place(&green, (4, 2), &outside, (7, 6)).is_none());
    }
}
