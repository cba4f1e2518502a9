//! What readers of plain formats share: images found and sized, boxes judged, outlines filled, classes numbered.

use super::class_names::ClassNames;
use super::coco::Masks;
use super::dataset::{Dataset, Finding, ImageEntry, Severity, Source};
use super::error::DataError;
use super::findings::Findings;
use super::judge::judge_box;
use super::paths::inside;
use crate::geometry::{Mask, Object};
use crate::imaging;
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// Distance to a whole pixel (pixels) that a product of a fraction and a side may have from rounding alone.
const ROUNDING: f64 = 1e-9;
/// Corners of the polygon that stands for a circle or an ellipse; a multiple of 4, so that its box is exact.
const ROUND_CORNERS: u32 = 64;

/// Where an object is, as a file says it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shape {
    /// x0, y0, x1, y1 in pixels.
    Corners([f64; 4]),
    /// x0, y0, x1, y1 as fractions of width and height.
    Fractions([f64; 4]),
    /// Outlines `x y x y …` of the parts of one object, pixels.
    Outlines(Vec<Vec<f64>>),
    /// One outline `x y x y …` as fractions of width and height.
    FractionOutline(Vec<f64>),
}

impl Shape {
    /// The outline of an ellipse: centre, radii, and the angle (radians) by which it is turned.
    pub(super) fn ellipse(cx: f64, cy: f64, rx: f64, ry: f64, turned: f64) -> Self {
        let (sin, cos) = turned.sin_cos();
        let corner = |k: u32| {
            // Quarters exactly: sin(π) is not 0 in floating point.
            let (quarter, rest) = (k / (ROUND_CORNERS / 4), k % (ROUND_CORNERS / 4));
            let (s, c) = (std::f64::consts::TAU * f64::from(rest) / f64::from(ROUND_CORNERS)).sin_cos();
            let (u, v) = match quarter {
                0 => (c, s),
                1 => (-s, c),
                2 => (-c, -s),
                _ => (s, -c),
            };
            let (x, y) = (rx * u, ry * v);
            [cx + x * cos - y * sin, cy + x * sin + y * cos]
        };
        Self::Outlines(vec![(0..ROUND_CORNERS).flat_map(corner).collect()])
    }
}

/// One object before its image's size is known.
#[derive(Clone, Debug)]
pub(super) struct RawObject {
    /// Number of its class among [`Gathering::classes`].
    pub(super) class: u32,
    pub(super) shape: Shape,
    pub(super) crowd: bool,
    pub(super) difficult: bool,
    pub(super) truncated: bool,
    pub(super) occluded: bool,
    /// Place in the file, counted from 1: see [`Gathering::noun`].
    pub(super) at: usize,
}

/// One image before it is looked at.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    /// As the data set will call it.
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// 0 where the format gives none: the image's header is read.
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) objects: Vec<RawObject>,
    /// The annotation file, for findings.
    pub(super) file: String,
}

/// State while annotation files are read.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    /// What a place in the file is called: line, region, shape.
    pub(super) noun: &'static str,
    pub(super) findings: Findings,
    pub(super) classes: ClassNames,
    pub(super) images: Vec<Listed>,
    /// Not one image file was found, which is on the list already.
    pub(super) files_missing: bool,
    /// Outlines become masks when there are at most so many.
    mask_limit: usize,
}

impl Gathering {
    pub(super) fn new(noun: &'static str, classes: ClassNames, masks: Masks) -> Self {
        let mask_limit = match masks {
            Masks::Skip => 0,
            Masks::UpTo(limit) => limit,
        };
        Self { noun, classes, mask_limit, ..Self::default() }
    }

    pub(super) fn remark(&mut self, severity: Severity, rule: &str, file: &str, message: String) {
        self.findings.push(Finding::new(severity, rule, file, message));
    }

    /// A remark about one place of a file.
    pub(super) fn remark_at(&mut self, rule: &str, file: &str, at: usize, message: &str) {
        let message = format!("{} {at} {message}; left out", self.noun);
        self.remark(Severity::Warning, rule, file, message);
    }

    /// `name` in `folder`, or a finding and nothing when it would leave `folder`.
    pub(super) fn inside(&mut self, folder: &Path, name: &str, file: &str) -> Option<PathBuf> {
        let path = inside(folder, name);
        if path.is_none() {
            let message = format!("names the image {name:?}, which would leave the data set's folder; left out");
            self.remark(Severity::Error, "path-escape", file, message);
        }
        path
    }

    /// Notes that no image is where it was looked for.
    pub(super) fn no_images_in(&mut self, folders: &[PathBuf], file: &str) {
        let places: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
        let message = format!("the images are not found; looked in {}", places.join(", "));
        self.remark(Severity::Error, "no-image-folder", file, message);
        self.files_missing = true;
    }

    /// Sizes the images, judges the objects and orders the classes. `path` is for the error.
    ///
    /// # Errors
    /// [`DataError::Empty`] when no image can be used.
    pub(super) fn finish(mut self, name: String, split: String, path: &Path) -> Result<Dataset, DataError> {
        let listed = self.images.len();
        let is_outline = |object: &RawObject| matches!(object.shape, Shape::Outlines(_) | Shape::FractionOutline(_));
        let outlines = self.images.iter().flat_map(|image| &image.objects).filter(|object| is_outline(object)).count();
        let masks = outlines <= self.mask_limit;
        if !masks && self.mask_limit > 0 {
            let message = format!("more than {} outlines; masks are left out, boxes are not", self.mask_limit);
            self.remark(Severity::Info, "masks-left-out", &name, message);
        }
        let (classes, index_of) = self.classes.finish();
        let judging = Judging { noun: self.noun, files_missing: self.files_missing, masks, index_of };
        let judged: Vec<(Option<ImageEntry>, Vec<Finding>)> =
            self.images.into_par_iter().map(|image| judging.image(image)).collect();
        let mut images: Vec<ImageEntry> = Vec::with_capacity(judged.len());
        for (entry, findings) in judged {
            self.findings.extend(findings);
            if let Some(mut entry) = entry {
                entry.id = images.len() as u64 + 1;
                images.push(entry);
            }
        }
        let warnings = self.findings.finish(&name);
        if images.is_empty() {
            let example = warnings.first().map(|finding| format!(" ({})", finding.message)).unwrap_or_default();
            let message = format!("none of the {listed} images can be used{example}");
            return Err(DataError::Empty { path: path.to_path_buf(), message });
        }
        Ok(Dataset { name, split, category_ids: (1..=classes.len() as u64).collect(), classes, images, warnings })
    }
}

/// What judging one image needs.
struct Judging {
    noun: &'static str,
    files_missing: bool,
    masks: bool,
    /// Final index of each class number.
    index_of: Vec<u32>,
}

impl Judging {
    /// The image with what is good of its objects, and what is wrong. Its id is set later.
    fn image(&self, image: Listed) -> (Option<ImageEntry>, Vec<Finding>) {
        let mut findings = Vec::new();
        let sides = 1..=imaging::decode::MAX_SIDE;
        let (mut width, mut height) = (image.width, image.height);
        let sized = sides.contains(&width) && sides.contains(&height);
        let present = image.path.is_file();
        if !present && (!self.files_missing || !sized) {
            let rest = if sized {
                "training takes another image in its place"
            } else {
                "nothing else tells its size; left out"
            };
            let message = format!("the image file {} is missing; {rest}", image.path.display());
            findings.push(Finding::new(Severity::Error, "missing-image", &image.name, message));
        }
        if !sized {
            if !present {
                return (None, findings);
            }
            match imaging::size_of(&image.path) {
                Ok(size) => (width, height) = size,
                Err(error) => {
                    let message = format!("left out: {error}");
                    findings.push(Finding::new(Severity::Error, "unreadable-image", &image.name, message));
                    return (None, findings);
                }
            }
        }
        let mut objects = Vec::with_capacity(image.objects.len());
        for raw in image.objects {
            let at = raw.at;
            let who = || format!("{} {at} of {}", self.noun, image.file);
            let (corners, outlines) = in_pixels(raw.shape, width, height);
            let [x0, y0, x1, y1] = corners;
            match judge_box(Some([x0, y0, x1 - x0, y1 - y0]), width, height) {
                Ok((bbox, beyond)) => {
                    let remark = |rule: &str, message: String| {
                        Finding::new(Severity::Warning, rule, &image.name, message).of_object(objects.len())
                    };
                    if beyond {
                        let message = format!("{} leaves the image; training cuts its box at the image's edge", who());
                        findings.push(remark("outside-box", message));
                    }
                    let mut mask = None;
                    if self.masks && !outlines.is_empty() {
                        match Mask::from_polygons(&outlines, height, width) {
                            // An outline thinner than a pixel can miss every pixel's centre.
                            Ok(filled) => mask = (filled.area() > 0).then_some(filled),
                            Err(error) => {
                                let message = format!("{}: no mask, its box is kept: {error}", who());
                                findings.push(remark("broken-mask", message));
                            }
                        }
                    }
                    objects.push(Object {
                        id: 0,
                        bbox,
                        class: self.index_of.get(raw.class as usize).copied().unwrap_or(raw.class),
                        crowd: raw.crowd,
                        difficult: raw.difficult,
                        truncated: raw.truncated,
                        occluded: raw.occluded,
                        area: mask.as_ref().map(|mask| mask.area() as f32),
                        mask,
                    });
                }
                Err((rule, fault)) => {
                    let message = format!("{} {fault}; left out of training and evaluation", who());
                    findings.push(Finding::new(Severity::Warning, rule, &image.name, message));
                }
            }
        }
        let source = Source::File(image.path);
        (Some(ImageEntry { id: 0, name: image.name, source, width, height, objects }), findings)
    }
}

/// Corners and outlines in pixels.
fn in_pixels(shape: Shape, width: u32, height: u32) -> ([f64; 4], Vec<Vec<f64>>) {
    let (width, height) = (f64::from(width), f64::from(height));
    match shape {
        Shape::Corners(corners) => (corners, Vec::new()),
        Shape::Fractions([x0, y0, x1, y1]) => {
            ([scaled(x0, width), scaled(y0, height), scaled(x1, width), scaled(y1, height)], Vec::new())
        }
        Shape::Outlines(outlines) => (hull(&outlines), outlines),
        Shape::FractionOutline(mut outline) => {
            for corner in outline.chunks_exact_mut(2) {
                if let [x, y] = corner {
                    (*x, *y) = (scaled(*x, width), scaled(*y, height));
                }
            }
            let outlines = vec![outline];
            (hull(&outlines), outlines)
        }
    }
}

/// A fraction of a side in pixels; whole pixels come out whole, also 0.
fn scaled(fraction: f64, side: f64) -> f64 {
    let value = fraction * side;
    let whole = value.round();
    if (value - whole).abs() < ROUNDING { whole } else { value }
}

/// The smallest box around all corners; without area when there are none.
fn hull(outlines: &[Vec<f64>]) -> [f64; 4] {
    let mut hull = [f64::INFINITY, f64::INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY];
    for corner in outlines.iter().flat_map(|outline| outline.chunks_exact(2)) {
        if let [x, y] = corner {
            hull = [hull[0].min(*x), hull[1].min(*y), hull[2].max(*x), hull[3].max(*y)];
        }
    }
    if hull[0] <= hull[2] { hull } else { [0.0; 4] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::BBox;

    #[test]
    fn fractions_of_whole_pixels_come_out_whole() {
        for side in [1u32, 3, 7, 480, 641, 32_768] {
            for pixel in 0..side.min(700) {
                let (p, s) = (f64::from(pixel), f64::from(side));
                assert_eq!(scaled(p / s, s), p, "{pixel} of {side}");
                // centre and size, as YOLO writes them
                let (centre, size) = ((p + p + 1.0) / 2.0 / s, 1.0 / s);
                assert_eq!(scaled(centre - size / 2.0, s), p, "{pixel} of {side}");
            }
        }
        assert_eq!(scaled(0.25, 10.5), 2.625);
    }

    #[test]
    fn a_circle_fills_its_box() {
        let Shape::Outlines(outlines) = Shape::ellipse(20.0, 15.0, 8.0, 8.0, 0.0) else { panic!("no outline") };
        assert_eq!(hull(&outlines), [12.0, 7.0, 28.0, 23.0]);
        let area = Mask::from_polygons(&outlines, 40, 50).unwrap().area() as f64;
        // the inscribed 64-gon has 0.16 % less than π r²; pixels along the edge count or not
        assert!((area - std::f64::consts::PI * 64.0).abs() < 6.0, "{area}");
        let turned = Shape::ellipse(20.0, 15.0, 8.0, 4.0, std::f64::consts::FRAC_PI_2);
        let Shape::Outlines(outlines) = turned else { panic!("no outline") };
        let [x0, y0, x1, y1] = hull(&outlines);
        assert!((x0 - 16.0).abs() < 1e-9 && (x1 - 24.0).abs() < 1e-9, "{x0} {x1}");
        assert!((y0 - 7.0).abs() < 1e-9 && (y1 - 23.0).abs() < 1e-9, "{y0} {y1}");
    }

    #[test]
    fn what_is_wrong_with_an_object_leaves_its_image_in_the_set() {
        let folder = tempfile::tempdir().unwrap();
        let mut gathering = Gathering::new("line", ClassNames::default(), Masks::UpTo(100));
        let class = gathering.classes.number("dog").unwrap();
        assert!(gathering.inside(folder.path(), "../a.png", "list.csv").is_none());
        let object = |shape: Shape| RawObject {
            class,
            shape,
            crowd: false,
            difficult: false,
            truncated: false,
            occluded: false,
            at: 7,
        };
        let objects = vec![
            object(Shape::Corners([1.0, 2.0, 4.0, 6.0])),
            object(Shape::Corners([4.0, 2.0, 4.0, 6.0])),
            object(Shape::Outlines(vec![vec![1.0, 1.0, 3.0, 1.0, 3.0, 4.0]])),
            object(Shape::Outlines(Vec::new())),
            object(Shape::FractionOutline(vec![0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0])),
            object(Shape::Fractions([0.5, 0.5, 2.0, 1.0])),
        ];
        let (name, file) = ("a.png".to_owned(), "list.csv".to_owned());
        let path = folder.path().join("a.png");
        gathering.images.push(Listed { name, path, width: 20, height: 10, objects, file });
        let set = gathering.finish("set".to_owned(), "all".to_owned(), folder.path()).unwrap();
        let boxes: Vec<BBox> = set.images[0].objects.iter().map(|object| object.bbox).collect();
        let expected = [[1.0, 2.0, 4.0, 6.0], [1.0, 1.0, 3.0, 4.0], [0.0, 0.0, 20.0, 10.0], [10.0, 5.0, 40.0, 10.0]];
        assert_eq!(boxes, expected.map(|[x0, y0, x1, y1]: [f32; 4]| BBox::new(x0, y0, x1, y1)));
        assert_eq!(set.images[0].objects[2].mask.as_ref().unwrap().area(), 200);
        let rules: Vec<&str> = set.warnings.iter().map(|finding| finding.rule.as_str()).collect();
        assert_eq!(rules, ["path-escape", "missing-image", "degenerate-box", "degenerate-box", "outside-box"]);
        assert!(set.warnings[2].message.starts_with("line 7 of list.csv"), "{}", set.warnings[2].message);
    }

    #[test]
    fn an_image_that_nothing_tells_the_size_of_is_left_out() {
        let mut gathering = Gathering::new("line", ClassNames::default(), Masks::UpTo(100));
        let path = PathBuf::from("nowhere/a.png");
        let (name, file) = ("a.png".to_owned(), "a.txt".to_owned());
        gathering.images.push(Listed { name, path, width: 0, height: 5, objects: Vec::new(), file });
        let error = gathering.finish("set".to_owned(), "all".to_owned(), Path::new("nowhere")).unwrap_err();
        assert!(matches!(&error, DataError::Empty { message, .. } if message.contains("size")), "{error}");
    }
}
