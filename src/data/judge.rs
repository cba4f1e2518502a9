//! Judges a box as annotated: usable, sticking out of its image, or broken, and by which rule.

use crate::geometry::BBox;

/// Boxes may stick out this far (pixels) without remark; COCO rounds to hundredths.
const EDGE_SLACK: f32 = 1.0;

/// The box `left, top, width, height` in pixels, and whether it sticks out of the image; or the rule that it breaks and
/// how.
pub(super) fn judge_box(
    bbox: Option<[f64; 4]>,
    width: u32,
    height: u32,
) -> Result<(BBox, bool), (&'static str, String)> {
    let Some([x, y, w, h]) = bbox else {
        return Err(("broken-box", "has no box of four numbers".to_owned()));
    };
    // Summed before rounding to f32, so that the right edge is not rounded twice.
    let bbox = BBox::new(x as f32, y as f32, (x + w) as f32, (y + h) as f32);
    if w <= 0.0 || h <= 0.0 || !bbox.is_proper() {
        return Err(("degenerate-box", format!("has a box without area, {w} × {h} at {x}, {y}")));
    }
    let image = BBox::new(0.0, 0.0, width as f32, height as f32);
    if bbox.intersection(image) <= 0.0 {
        return Err(("outside-box", format!("has its box outside the image, {w} × {h} at {x}, {y}")));
    }
    let beyond = bbox.x0 < -EDGE_SLACK
        || bbox.y0 < -EDGE_SLACK
        || bbox.x1 > image.x1 + EDGE_SLACK
        || bbox.y1 > image.y1 + EDGE_SLACK;
    Ok((bbox, beyond))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_judged_and_kept_as_annotated() {
        let (bbox, beyond) = judge_box(Some([10.5, 20.0, 5.0, 4.0]), 100, 50).unwrap();
        assert_eq!((bbox, beyond), (BBox::new(10.5, 20.0, 15.5, 24.0), false));
        assert!(!judge_box(Some([-0.5, 0.0, 101.0, 50.9]), 100, 50).unwrap().1, "a pixel of slack");
        assert!(judge_box(Some([90.0, 0.0, 15.0, 10.0]), 100, 50).unwrap().1);
        let rule = |bbox: Option<[f64; 4]>| judge_box(bbox, 100, 50).unwrap_err().0;
        assert_eq!(rule(None), "broken-box");
        assert_eq!(rule(Some([1.0, 1.0, 0.0, 5.0])), "degenerate-box");
        assert_eq!(rule(Some([1.0, 1.0, 5.0, -5.0])), "degenerate-box");
        assert_eq!(rule(Some([1.0, 1.0, 1e300, 5.0])), "degenerate-box");
        assert_eq!(rule(Some([100.0, 1.0, 5.0, 5.0])), "outside-box");
    }
}
