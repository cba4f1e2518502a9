//! Truth and results as the protocols compare them: boxes in double precision, masks, flags, and their overlap.

use super::{ImageResult, ImageTruth, IouType};
use crate::geometry::{BBox, Detection, Mask, Object};
use std::collections::BTreeMap;

/// One annotated object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TruthBox {
    pub class: u32,
    /// Left, top, width, height in pixels.
    pub xywh: [f64; 4],
    /// What the area ranges look at: COCO's `area` field, in pixels.
    pub area: f64,
    /// A group: may be matched by any number of detections, by intersection over detection area.
    pub crowd: bool,
    /// Left out of the COCO scores, with whatever matches it.
    pub ignore: bool,
    /// Left out of the VOC scores, with whatever matches it.
    pub difficult: bool,
    /// Annotation id. pycocotools takes a match to id 0 for no match at all, and so do we; never 0 in
    /// [`TruthBox::from_object`].
    pub id: u64,
    pub mask: Option<Mask>,
}

/// One detection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResultBox {
    pub class: u32,
    /// Left, top, width, height in pixels.
    pub xywh: [f64; 4],
    pub score: f64,
    /// Pixels; an unmatched detection outside the area range is ignored.
    pub area: f64,
    pub mask: Option<Mask>,
}

/// Everything about one image. Order within the lists decides ties.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageBoxes {
    pub image_id: u64,
    pub truths: Vec<TruthBox>,
    pub results: Vec<ResultBox>,
}

/// Left, top, width, height of `f32` corners. The difference is taken in double precision, so that left + width is the
/// right edge again.
fn xywh(b: BBox) -> [f64; 4] {
    let (x, y) = (f64::from(b.x0), f64::from(b.y0));
    [x, y, f64::from(b.x1) - x, f64::from(b.y1) - y]
}

/// The mask where masks are compared; a box evaluation carries none.
fn mask_for(mask: Option<&Mask>, iou_type: IouType) -> Option<Mask> {
    match iou_type {
        IouType::Segm => mask.cloned(),
        IouType::Bbox => None,
    }
}

impl TruthBox {
    /// Area is the object's `area`; without one, the area of its mask where masks are compared, else of its box. Crowd
    /// and difficult objects are ignored by COCO scores, which know no `difficult`. `id` should not be 0.
    pub fn from_object(object: &Object, id: u64, iou_type: IouType) -> Self {
        let xywh = xywh(object.bbox);
        let mask = mask_for(object.mask.as_ref(), iou_type);
        let region = mask.as_ref().map_or(xywh[2] * xywh[3], |m| m.area() as f64);
        Self {
            class: object.class,
            xywh,
            area: object.area.map_or(region, f64::from),
            crowd: object.crowd,
            ignore: object.crowd || object.difficult,
            difficult: object.difficult,
            id,
            mask,
        }
    }
}

impl ResultBox {
    /// Area is that of the mask where masks are compared, else of the box.
    pub fn from_detection(detection: &Detection, iou_type: IouType) -> Self {
        let xywh = xywh(detection.bbox);
        let mask = mask_for(detection.mask.as_ref(), iou_type);
        let area = mask.as_ref().map_or(xywh[2] * xywh[3], |m| m.area() as f64);
        Self { class: detection.class, xywh, score: f64::from(detection.score), area, mask }
    }
}

impl ImageBoxes {
    /// Truth and results brought together by image id, in rising order of it. Entries with the same id are joined in
    /// the order given; an image that only `results` names is an image without objects.
    pub fn join(truth: &[ImageTruth], results: &[ImageResult], iou_type: IouType) -> Vec<Self> {
        let mut images: BTreeMap<u64, Self> = BTreeMap::new();
        for image in truth {
            images.entry(image.image_id).or_default().add_objects(&image.objects, iou_type);
        }
        for image in results {
            images.entry(image.image_id).or_default().add_detections(&image.detections, iou_type);
        }
        for (&id, image) in &mut images {
            image.image_id = id;
        }
        images.into_values().collect()
    }

    /// What a list of images is compared by: masks where any of them carries one, for images made for box evaluation
    /// carry none; boxes otherwise.
    pub fn compared_by(images: &[Self]) -> IouType {
        let masked = |image: &Self| {
            image.truths.iter().any(|t| t.mask.is_some()) || image.results.iter().any(|r| r.mask.is_some())
        };
        if images.iter().any(masked) { IouType::Segm } else { IouType::Bbox }
    }

    /// Appends objects, numbered from 1 within the image.
    pub fn add_objects(&mut self, objects: &[Object], iou_type: IouType) {
        for object in objects {
            let id = self.truths.len() as u64 + 1;
            self.truths.push(TruthBox::from_object(object, id, iou_type));
        }
    }

    /// Appends detections.
    pub fn add_detections(&mut self, detections: &[Detection], iou_type: IouType) {
        self.results.extend(detections.iter().map(|d| ResultBox::from_detection(d, iou_type)));
    }
}

/// Overlap of a detection with an object, in `[0, 1]`: intersection over union, or over the detection's area for a
/// crowd. What has no mask overlaps nothing where masks are compared.
pub fn overlap(detection: &ResultBox, truth: &TruthBox, iou_type: IouType) -> f64 {
    match iou_type {
        IouType::Bbox => box_overlap(detection.xywh, truth.xywh, truth.crowd),
        IouType::Segm => match (&detection.mask, &truth.mask) {
            (Some(d), Some(t)) => d.iou(t, truth.crowd),
            _ => 0.0,
        },
    }
}

/// Overlap of boxes given as left, top, width, height, in the order of operations of pycocotools' `bbIou`. Never NaN.
pub fn box_overlap(detection: [f64; 4], truth: [f64; 4], crowd: bool) -> f64 {
    let ([dx, dy, dw, dh], [tx, ty, tw, th]) = (detection, truth);
    let width = (dw + dx).min(tw + tx) - dx.max(tx);
    let height = (dh + dy).min(th + ty) - dy.max(ty);
    if width > 0.0 && height > 0.0 {
        let shared = width * height;
        let whole = if crowd { dw * dh } else { dw * dh + tw * th - shared };
        let ratio = shared / whole;
        if ratio > 0.0 { ratio } else { 0.0 }
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_of_boxes_by_hand() {
        let a = [0.0, 0.0, 10.0, 10.0];
        // shared 5×10, union 100 + 100 − 50
        assert_eq!(box_overlap(a, [5.0, 0.0, 10.0, 10.0], false), 50.0 / 150.0);
        // crowd: shared 50 over the detection's 100
        assert_eq!(box_overlap(a, [5.0, 0.0, 100.0, 100.0], true), 0.5);
        // touching, inverted, empty and undefined boxes share nothing
        for other in [[10.0, 0.0, 5.0, 5.0], [8.0, 8.0, -4.0, -4.0], [5.0, 5.0, 0.0, 0.0], [f64::NAN; 4]] {
            assert_eq!(box_overlap(a, other, false), 0.0, "{other:?}");
        }
    }

    #[test]
    fn masks_are_compared_where_asked_and_only_there() {
        // 2×4 pictures, column-major: columns 1 and 2 against columns 2 and 3
        let mask = |counts: &[u32]| Some(Mask { height: 2, width: 4, counts: counts.to_vec() });
        let bbox = BBox::new(0.0, 0.0, 4.0, 2.0);
        let detection = Detection { bbox, mask: mask(&[2, 4, 2]), ..Default::default() };
        let object = Object { bbox, mask: mask(&[4, 4]), ..Default::default() };
        let compared = |iou_type: IouType, crowd: bool| {
            let truth = TruthBox { crowd, ..TruthBox::from_object(&object, 1, iou_type) };
            overlap(&ResultBox::from_detection(&detection, iou_type), &truth, iou_type)
        };
        assert_eq!(compared(IouType::Bbox, false), 1.0);
        assert_eq!(compared(IouType::Segm, false), 2.0 / 6.0);
        assert_eq!(compared(IouType::Segm, true), 2.0 / 4.0);
        assert_eq!(ResultBox::from_detection(&detection, IouType::Segm).area, 4.0);
        assert_eq!(TruthBox::from_object(&object, 1, IouType::Bbox).area, 8.0);
        let images = |iou_type: IouType| {
            let mut image = ImageBoxes::default();
            image.add_objects(std::slice::from_ref(&object), iou_type);
            ImageBoxes::compared_by(&[ImageBoxes::default(), image])
        };
        assert_eq!([images(IouType::Bbox), images(IouType::Segm)], [IouType::Bbox, IouType::Segm]);
        let bare = ResultBox::from_detection(&Detection { bbox, ..Default::default() }, IouType::Segm);
        assert_eq!(overlap(&bare, &TruthBox::from_object(&object, 1, IouType::Segm), IouType::Segm), 0.0);
    }

    #[test]
    fn joining_sorts_images_and_numbers_objects_from_one() {
        let object = Object { bbox: BBox::new(1.0, 2.0, 4.0, 6.0), ..Default::default() };
        let truth = [
            ImageTruth { image_id: 9, objects: vec![object.clone()] },
            ImageTruth {
                image_id: 2,
                objects: vec![object.clone(), Object { area: Some(5.0), crowd: true, ..object }],
            },
        ];
        let results = [ImageResult { image_id: 4, detections: vec![Detection::default()] }];
        let images = ImageBoxes::join(&truth, &results, IouType::Bbox);
        assert_eq!(images.iter().map(|i| i.image_id).collect::<Vec<_>>(), [2, 4, 9]);
        assert_eq!(images[0].truths.iter().map(|t| t.id).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(images[0].truths[0].xywh, [1.0, 2.0, 3.0, 4.0]);
        assert_eq!((images[0].truths[0].area, images[0].truths[1].area), (12.0, 5.0));
        assert!(images[0].truths[1].ignore && !images[0].truths[0].ignore);
        assert_eq!(images[1].results.len(), 1);
    }
}
