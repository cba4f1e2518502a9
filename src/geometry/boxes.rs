//! A box in continuous corner coordinates `x0 y0 x1 y1`: no +1 anywhere.

use bytemuck::{Pod, Zeroable};
use serde::{Deserialize, Serialize};

/// Axis-aligned box, pixels (or normalised where a name says so). Width is `x1 - x0`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable, Serialize, Deserialize)]
pub struct BBox {
    pub x0: f32,
    pub y0: f32,
    pub x1: f32,
    pub y1: f32,
}

impl BBox {
    pub const fn new(x0: f32, y0: f32, x1: f32, y1: f32) -> Self {
        Self { x0, y0, x1, y1 }
    }

    /// From COCO's left, top, width, height.
    pub fn from_xywh(x: f32, y: f32, w: f32, h: f32) -> Self {
        Self::new(x, y, x + w, y + h)
    }

    /// From centre and size.
    pub fn from_cxcywh(cx: f32, cy: f32, w: f32, h: f32) -> Self {
        Self::new(cx - w / 2.0, cy - h / 2.0, cx + w / 2.0, cy + h / 2.0)
    }

    /// COCO's left, top, width, height.
    pub fn to_xywh(self) -> [f32; 4] {
        [self.x0, self.y0, self.width(), self.height()]
    }

    /// Centre and size.
    pub fn to_cxcywh(self) -> [f32; 4] {
        [(self.x0 + self.x1) / 2.0, (self.y0 + self.y1) / 2.0, self.width(), self.height()]
    }

    pub fn width(self) -> f32 {
        self.x1 - self.x0
    }

    pub fn height(self) -> f32 {
        self.y1 - self.y0
    }

    pub fn center(self) -> (f32, f32) {
        ((self.x0 + self.x1) / 2.0, (self.y0 + self.y1) / 2.0)
    }

    /// Width times height; 0 for an inverted box.
    pub fn area(self) -> f32 {
        self.width().max(0.0) * self.height().max(0.0)
    }

    /// Area shared with `other`.
    pub fn intersection(self, other: Self) -> f32 {
        let w = self.x1.min(other.x1) - self.x0.max(other.x0);
        let h = self.y1.min(other.y1) - self.y0.max(other.y0);
        w.max(0.0) * h.max(0.0)
    }

    /// Clamped to the image `[0, width] × [0, height]`.
    pub fn clip(self, width: f32, height: f32) -> Self {
        Self::new(
            self.x0.clamp(0.0, width),
            self.y0.clamp(0.0, height),
            self.x1.clamp(0.0, width),
            self.y1.clamp(0.0, height),
        )
    }

    /// Each axis scaled by its own factor.
    pub fn scale(self, sx: f32, sy: f32) -> Self {
        Self::new(self.x0 * sx, self.y0 * sy, self.x1 * sx, self.y1 * sy)
    }

    pub fn shift(self, dx: f32, dy: f32) -> Self {
        Self::new(self.x0 + dx, self.y0 + dy, self.x1 + dx, self.y1 + dy)
    }

    /// Mirrored about the vertical axis of an image `width` wide.
    pub fn flip_horizontal(self, width: f32) -> Self {
        Self::new(width - self.x1, self.y0, width - self.x0, self.y1)
    }

    pub fn contains(self, x: f32, y: f32) -> bool {
        x >= self.x0 && x <= self.x1 && y >= self.y0 && y <= self.y1
    }

    /// All coordinates finite, and both sides longer than zero.
    pub fn is_proper(self) -> bool {
        [self.x0, self.y0, self.x1, self.y1].iter().all(|v| v.is_finite()) && self.x1 > self.x0 && self.y1 > self.y0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_agree() {
        let b = BBox::new(2.0, 3.0, 12.0, 7.0);
        assert_eq!(b.to_xywh(), [2.0, 3.0, 10.0, 4.0]);
        assert_eq!(b.to_cxcywh(), [7.0, 5.0, 10.0, 4.0]);
        assert_eq!(BBox::from_xywh(2.0, 3.0, 10.0, 4.0), b);
        assert_eq!(BBox::from_cxcywh(7.0, 5.0, 10.0, 4.0), b);
        assert_eq!((b.center(), b.area()), ((7.0, 5.0), 40.0));
    }

    #[test]
    fn an_inverted_box_has_no_area_and_is_not_proper() {
        let inverted = BBox::new(5.0, 0.0, 1.0, 4.0);
        assert_eq!(inverted.area(), 0.0);
        assert_eq!(inverted.intersection(BBox::new(0.0, 0.0, 9.0, 9.0)), 0.0);
        assert!(!inverted.is_proper());
        assert!(!BBox::new(0.0, 0.0, 0.0, 1.0).is_proper());
        assert!(!BBox::new(f32::NAN, 0.0, 1.0, 1.0).is_proper());
        assert!(!BBox::new(0.0, 0.0, f32::INFINITY, 1.0).is_proper());
        assert!(BBox::new(-1.0, 0.0, 1.0, 1.0).is_proper());
    }

    #[test]
    fn clipped_scaled_shifted_and_mirrored() {
        let b = BBox::new(-2.0, 3.0, 12.0, 7.0);
        assert_eq!(b.clip(10.0, 5.0), BBox::new(0.0, 3.0, 10.0, 5.0));
        assert_eq!(b.scale(0.5, 2.0), BBox::new(-1.0, 6.0, 6.0, 14.0));
        assert_eq!(b.shift(1.0, -1.0), BBox::new(-1.0, 2.0, 13.0, 6.0));
        assert_eq!(b.flip_horizontal(20.0), BBox::new(8.0, 3.0, 22.0, 7.0));
        assert_eq!(b.flip_horizontal(20.0).flip_horizontal(20.0), b);
        assert_eq!(b.intersection(BBox::new(10.0, 0.0, 30.0, 4.0)), 2.0);
        assert!(b.contains(12.0, 7.0) && !b.contains(12.5, 7.0));
    }
}
