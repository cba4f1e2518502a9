//! The annotated objects of one image: classes that there are, boxes with an area, inside, once, large enough.

use super::{Finding, ImageEntry, Severity};
use crate::data::placements::Fitted;
use crate::geometry::iou::iou;
use crate::geometry::{Mask, Object};

/// A side below this, in pixels of the picture or of the network's input, is hard to learn.
pub const TINY: f32 = 3.0;
/// Boxes may stick out this far (pixels) without remark.
const EDGE_SLACK: f32 = 1.0;
/// Two boxes of a class with this IoU are one object annotated twice.
pub const SAME_BOX: f32 = 0.99;
/// Objects of one image that are compared with each other.
const COMPARED: usize = 2000;

/// Remarks about the objects of `entry`, of which `classes` are known. `fitted` says how the picture comes to lie in a
/// network's input.
pub(super) fn check_objects(entry: &ImageEntry, classes: usize, fitted: Option<Fitted>) -> Vec<Finding> {
    let mut list = Vec::new();
    for (index, object) in entry.objects.iter().enumerate() {
        let b = object.bbox;
        let mut remark = |severity: Severity, rule: &str, what: String| {
            let message = format!("object {}, {:.1} × {:.1} pixels, {what}", index + 1, b.width(), b.height());
            list.push(Finding::new(severity, rule, &entry.name, message).of_object(index));
        };
        if object.class as usize >= classes {
            let what =
                format!("is of class {} of {classes} classes, counted from 0; it cannot be trained", object.class);
            remark(Severity::Error, "unknown-class", what);
        }
        if !b.is_proper() {
            remark(Severity::Warning, "degenerate-box", "has no area; training leaves it out".to_owned());
            continue;
        }
        let (width, height) = (entry.width as f32, entry.height as f32);
        let cut = b.clip(width, height);
        if !cut.is_proper() {
            remark(Severity::Warning, "outside-box", "lies outside the image; training leaves it out".to_owned());
            continue;
        }
        if b.x0 < -EDGE_SLACK || b.y0 < -EDGE_SLACK || b.x1 > width + EDGE_SLACK || b.y1 > height + EDGE_SLACK {
            let what = "leaves the image; training cuts it at the image's edge".to_owned();
            remark(Severity::Warning, "outside-box", what);
        }
        if has_no_area(object) {
            let what =
                "has a box and an annotated area of 0; training takes the box, scores count it as small".to_owned();
            remark(Severity::Warning, "zero-area", what);
        }
        // groups are neither trained nor looked for one by one
        if object.crowd {
            continue;
        }
        let scaled = fitted.map(|fitted| fitted.placement.to_input(cut));
        if b.width() < TINY || b.height() < TINY {
            let what = "is tiny; it is trained, and hardly any anchor will match it".to_owned();
            remark(Severity::Info, "tiny-box", what);
        } else if let Some(scaled) = scaled.filter(|s| s.width() < TINY || s.height() < TINY) {
            let what = format!(
                "is {:.1} × {:.1} in the network's input; it is trained, and hardly any anchor will match it",
                scaled.width(),
                scaled.height()
            );
            remark(Severity::Info, "tiny-after-resize", what);
        }
        if let Some(first) = duplicate_of(&entry.objects, index) {
            let what = format!("is almost object {} of the same class; both are trained", first + 1);
            remark(Severity::Warning, "repeated-box", what);
        }
    }
    list
}

/// An annotated area, or a mask, of no pixel.
fn has_no_area(object: &Object) -> bool {
    object.area.is_some_and(|area| area <= 0.0) || object.mask.as_ref().map(Mask::area) == Some(0)
}

/// The first earlier object of the same class in the same place.
fn duplicate_of(objects: &[Object], index: usize) -> Option<usize> {
    let object = objects.get(index).filter(|_| index < COMPARED)?;
    objects.iter().take(index).position(|other| {
        other.class == object.class && other.crowd == object.crowd && iou(other.bbox, object.bbox) >= SAME_BOX
    })
}
