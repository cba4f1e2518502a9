//! Pascal VOC folders: `Annotations/*.xml`, `JPEGImages`, `ImageSets/Main/{split}.txt`.
//!
//! Corners in the files are 1-based and inclusive; here they become continuous: x0 = xmin − 1, y0 = ymin − 1, x1 = xmax,
//! y1 = ymax. A box whose corners coincide on an axis is taken as degenerate although, read to the letter, it is one
//! pixel thick: it comes from a click without a drag.

use super::dataset::{Dataset, Finding, ImageEntry, Severity, Source};
use super::error::DataError;
use super::findings::Findings;
use super::paths::{file_name, inside, is_bare_name};
use super::text::{MAX_TEXT_FILE, files_with, has_extension, read_text};
use super::voc_xml::{self, VocAnnotation, VocObject};
use crate::geometry::{BBox, Object};
use crate::imaging;
use rayon::prelude::*;
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

/// The split that holds every annotated image.
pub const ALL: &str = "all";
/// Endings tried for an image, the usual one first.
pub(super) const EXTENSIONS: [&str; 10] = ["jpg", "png", "jpeg", "JPG", "PNG", "JPEG", "bmp", "webp", "tif", "tiff"];
/// Folders tried for an image.
const IMAGE_FOLDERS: [&str; 2] = ["JPEGImages", "images"];
/// Boxes may stick out this far (pixels) without remark: lists counted from 0 do so everywhere.
const EDGE_SLACK: f32 = 1.0;

/// The folder that holds `Annotations/*.xml`: `path` itself, or the one folder in it that does (`VOCdevkit/VOC2007`).
pub fn voc_root(path: &Path) -> Option<PathBuf> {
    if has_annotations(path) {
        return Some(path.to_path_buf());
    }
    let folders: Vec<PathBuf> = fs::read_dir(path)
        .ok()?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|folder| has_annotations(folder))
        .collect();
    match folders.as_slice() {
        [only] => Some(only.clone()),
        _ => None,
    }
}

fn has_annotations(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder.join("Annotations")) else {
        return false;
    };
    entries.filter_map(Result::ok).any(|entry| has_extension(&entry.path(), "xml"))
}

/// Files of `folder` that end in `extension`, without it, sorted.
fn stems(folder: &Path, extension: &str) -> Vec<String> {
    let stem = |path: &PathBuf| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let mut stems: Vec<String> = files_with(folder, extension).iter().filter_map(stem).collect();
    stems.sort();
    stems
}

/// Names of the splits of a VOC root, lists of single classes (`cat_train`) left out, `all` last.
pub fn voc_splits(root: &Path) -> Vec<String> {
    let lists = stems(&root.join("ImageSets").join("Main"), "txt");
    let of_a_class = |name: &str| {
        lists.iter().any(|list| name.strip_suffix(list.as_str()).is_some_and(|class| class.ends_with('_')))
    };
    let mut splits: Vec<String> = lists.iter().filter(|name| !of_a_class(name.as_str())).cloned().collect();
    if !splits.iter().any(|name| name == ALL) {
        splits.push(ALL.to_owned());
    }
    splits
}

/// Reads one split (`None`: every annotated image). Classes are `classes`, or else the sorted set of all names in all
/// annotation files, whatever the split, so that indices agree between splits.
///
/// A missing image, a broken annotation file and a bad box are findings; images whose file is missing stay listed.
///
/// # Errors
/// [`DataError::NoSplit`]; [`DataError::Empty`]; [`DataError::Read`] for a list that cannot be read;
/// [`DataError::Xml`] when not one annotation file is readable.
pub fn read_voc(root: &Path, split: Option<&str>, classes: Option<&[String]>) -> Result<Dataset, DataError> {
    let annotation_folder = root.join("Annotations");
    let stems = stems(&annotation_folder, "xml");
    let mut findings = Findings::default();
    let split_name = split.unwrap_or(ALL);
    let ids = split_ids(root, split_name, &stems, &mut findings)?;
    if ids.is_empty() {
        let message = format!("the split {split_name:?} lists no annotated image");
        return Err(DataError::Empty { path: root.to_path_buf(), message });
    }
    let parsed: Vec<Result<VocAnnotation, DataError>> = stems
        .par_iter()
        .map(|stem| {
            let path = annotation_folder.join(format!("{stem}.xml"));
            voc_xml::parse(&read_text(&path, "the annotation", MAX_TEXT_FILE)?, &path)
        })
        .collect();
    let readable = parsed.iter().any(Result::is_ok);
    let classes: Vec<String> = match classes {
        Some(classes) => classes.to_vec(),
        None => {
            let objects = parsed.iter().flatten().flat_map(|annotation| &annotation.objects);
            let names: BTreeSet<&str> = objects.map(|object| object.name.as_str()).filter(|n| !n.is_empty()).collect();
            names.into_iter().map(str::to_owned).collect()
        }
    };
    let mut by_stem: HashMap<&str, (usize, Result<VocAnnotation, DataError>)> = HashMap::new();
    for (rank, (stem, result)) in stems.iter().zip(parsed).enumerate() {
        if !readable && let Err(error) = result {
            return Err(error);
        }
        by_stem.insert(stem.as_str(), (rank, result));
    }
    let mut images: Vec<ImageEntry> = Vec::new();
    for id in &ids {
        let file = format!("{id}.xml");
        match by_stem.get(id.as_str()) {
            None => findings.push(Finding::new(
                Severity::Error,
                "missing-annotation",
                &file,
                format!("listed in {split_name}.txt, but there is no such annotation file; the image is left out"),
            )),
            Some((_, Err(error))) => findings.push(Finding::new(
                Severity::Error,
                "broken-annotation",
                &file,
                format!("the image is left out: {error}"),
            )),
            Some((rank, Ok(annotation))) => {
                images.extend(entry(root, id, *rank, annotation, &classes, &mut findings));
            }
        }
    }
    if images.is_empty() {
        let message = format!("none of the {} images of the split {split_name:?} can be used", ids.len());
        return Err(DataError::Empty { path: root.to_path_buf(), message });
    }
    let name = file_name(root);
    Ok(Dataset {
        split: split_name.to_owned(),
        category_ids: (1..=classes.len() as u64).collect(),
        classes,
        images,
        warnings: findings.finish(&name),
        name,
    })
}

/// Image ids of a split in the list's order, each once.
fn split_ids(root: &Path, split: &str, stems: &[String], findings: &mut Findings) -> Result<Vec<String>, DataError> {
    let list = root.join("ImageSets").join("Main").join(format!("{split}.txt"));
    if !is_bare_name(split) || (split != ALL && !list.is_file()) {
        return Err(DataError::NoSplit {
            wanted: split.to_owned(),
            have: voc_splits(root),
            data: root.display().to_string(),
        });
    }
    if !list.is_file() {
        return Ok(stems.to_vec());
    }
    let text = read_text(&list, "the split list", MAX_TEXT_FILE)?;
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut ids = Vec::new();
    for line in text.lines().map(str::trim) {
        // A second word is a class list's flag, unless there is an annotation of that whole name.
        let whole = stems.binary_search_by(|stem| stem.as_str().cmp(line)).is_ok();
        let Some(id) = (if whole { Some(line) } else { line.split_whitespace().next() }) else {
            continue;
        };
        if !is_bare_name(id) {
            let message = format!("the entry {id:?} would leave the data set's folder; refused");
            findings.push(Finding::new(Severity::Error, "path-escape", &format!("{split}.txt"), message));
        } else if seen.insert(id) {
            ids.push(id.to_owned());
        }
    }
    Ok(ids)
}

/// The image of an annotation: the file named like the annotation, or else the one it names.
fn find_image(root: &Path, id: &str, filename: &str) -> Option<PathBuf> {
    for folder in IMAGE_FOLDERS.map(|folder| root.join(folder)) {
        for extension in EXTENSIONS {
            let path = folder.join(format!("{id}.{extension}"));
            if path.is_file() {
                return Some(path);
            }
        }
        if let Some(path) = inside(&folder, filename).filter(|path| path.is_file()) {
            return Some(path);
        }
    }
    None
}

/// The listed image, or a finding why it is left out.
fn entry(
    root: &Path,
    id: &str,
    rank: usize,
    annotation: &VocAnnotation,
    classes: &[String],
    findings: &mut Findings,
) -> Option<ImageEntry> {
    let file = format!("{id}.xml");
    let found = find_image(root, id, &annotation.filename);
    if found.is_none() && !annotation.filename.is_empty() && inside(root, &annotation.filename).is_none() {
        let message =
            format!("names the image {:?}, which would leave the data set's folder; left out", annotation.filename);
        findings.push(Finding::new(Severity::Error, "path-escape", &file, message));
        return None;
    }
    let path = match found {
        Some(path) => path,
        None => {
            let message = "its image is not in JPEGImages; training takes another image in its place".to_owned();
            findings.push(Finding::new(Severity::Error, "missing-image", &file, message));
            root.join("JPEGImages").join(format!("{id}.jpg"))
        }
    };
    let sides = 1..=imaging::decode::MAX_SIDE;
    let (mut width, mut height) = (annotation.width, annotation.height);
    if !sides.contains(&width) || !sides.contains(&height) {
        match imaging::size_of(&path) {
            Ok(size) => {
                (width, height) = size;
                let message = format!("gives no usable size; {width} × {height} is taken from the image");
                findings.push(Finding::new(Severity::Info, "missing-size", &file, message));
            }
            Err(error) => {
                let message = format!("gives no usable size, nor does the image; left out: {error}");
                findings.push(Finding::new(Severity::Error, "missing-size", &file, message));
                return None;
            }
        }
    }
    let image = BBox::new(0.0, 0.0, width as f32, height as f32);
    let mut objects = Vec::new();
    for (index, object) in annotation.objects.iter().enumerate() {
        match convert(object, image, classes) {
            Ok((object, remark)) => {
                if let Some(remark) = remark {
                    findings.push(remark.at(&file, index));
                }
                objects.push(object);
            }
            Err(remark) => findings.push(remark.at(&file, index)),
        }
    }
    Some(ImageEntry { id: rank as u64 + 1, name: file_name(&path), source: Source::File(path), width, height, objects })
}

/// A finding about a box before it knows its place.
struct Remark {
    severity: Severity,
    rule: &'static str,
    message: String,
}

impl Remark {
    fn at(self, file: &str, index: usize) -> Finding {
        let message = format!("object {}: {}", index + 1, self.message);
        Finding::new(self.severity, self.rule, file, message).of_object(index)
    }
}

/// An object in continuous coordinates, with a remark where it sticks out of the image; or why it is left out.
fn convert(object: &VocObject, image: BBox, classes: &[String]) -> Result<(Object, Option<Remark>), Remark> {
    let warning = |rule: &'static str, message: String| Remark { severity: Severity::Warning, rule, message };
    let name = &object.name;
    let Some(class) = classes.iter().position(|class| class == name) else {
        let message = format!("{name:?} is none of the {} classes; left out", classes.len());
        return Err(warning("unknown-class", message));
    };
    let [Some(xmin), Some(ymin), Some(xmax), Some(ymax)] = object.corners else {
        return Err(warning("broken-box", format!("{name} has a box without its four numbers; left out")));
    };
    let written = format!("{name} with xmin {xmin}, ymin {ymin}, xmax {xmax}, ymax {ymax}");
    let bbox = BBox::new((xmin - 1.0) as f32, (ymin - 1.0) as f32, xmax as f32, ymax as f32);
    if xmax <= xmin || ymax <= ymin || !bbox.is_proper() {
        return Err(warning("degenerate-box", format!("{written} has no area; left out of training and evaluation")));
    }
    if bbox.intersection(image) <= 0.0 {
        let message = format!("{written} lies outside the image; left out of training and evaluation");
        return Err(warning("outside-box", message));
    }
    let beyond = bbox.x0 < -EDGE_SLACK
        || bbox.y0 < -EDGE_SLACK
        || bbox.x1 > image.x1 + EDGE_SLACK
        || bbox.y1 > image.y1 + EDGE_SLACK;
    let remark = beyond
        .then(|| warning("outside-box", format!("{written} leaves the image; training cuts it at the image's edge")));
    let object = Object {
        bbox,
        class: class as u32,
        difficult: object.difficult,
        truncated: object.truncated,
        occluded: object.occluded,
        ..Object::default()
    };
    Ok((object, remark))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(corners: [f64; 4]) -> VocObject {
        VocObject { name: "cat".to_owned(), difficult: true, corners: corners.map(Some), ..VocObject::default() }
    }

    #[test]
    fn inclusive_corners_counted_from_one_become_continuous() {
        let image = BBox::new(0.0, 0.0, 640.0, 480.0);
        let classes = ["cat".to_owned()];
        // A box over the whole 640 × 480 image is written 1 1 640 480.
        let (whole, remark) = convert(&object([1.0, 1.0, 640.0, 480.0]), image, &classes).ok().unwrap();
        assert_eq!(whole.bbox, image);
        assert!(whole.difficult && remark.is_none());
        // Counted from 0 it sticks out by one pixel, which is let pass.
        assert!(convert(&object([0.0, 0.0, 639.0, 479.0]), image, &classes).ok().unwrap().1.is_none());
        assert!(convert(&object([-9.0, 0.0, 639.0, 479.0]), image, &classes).ok().unwrap().1.is_some());
        let rule = |corners: [f64; 4]| convert(&object(corners), image, &classes).err().unwrap().rule;
        // the two of the BCCD data set
        assert_eq!(rule([504.0, 337.0, 504.0, 337.0]), "degenerate-box");
        assert_eq!(rule([30.0, 40.0, 20.0, 50.0]), "degenerate-box");
        assert_eq!(rule([1e300, 1.0, 2e300, 5.0]), "degenerate-box");
        assert_eq!(rule([700.0, 10.0, 720.0, 20.0]), "outside-box");
    }
}
