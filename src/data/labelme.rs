//! LabelMe folders: a JSON file beside each image, with shapes of a label each.
//!
//! Rectangles, polygons, circles and masks are objects (of a mask the box alone is read); points and lines are not.
//! Polygons of one label and `group_id` are parts of one object. The flags `crowd` and `difficult` of a shape are read.
//! A file `labels.txt` in the folder gives the order of the classes. Folders in a folder without such files are splits.

use super::class_names::ClassNames;
use super::coco::Masks;
use super::dataset::{Dataset, Severity};
use super::error::DataError;
use super::folder::relative_name;
use super::gather::{Gathering, Listed, RawObject, Shape};
use super::paths::{file_name, inside};
use super::text::{MAX_TEXT_FILE, files_with, read_text, side};
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders in folders of annotations that are looked into.
const DEPTH: usize = 6;
/// Annotation files that are looked at to recognise a folder.
const LOOKED_AT: usize = 4;
/// Most annotation files of a data set.
const MAX_FILES: usize = 4_000_000;
/// Name of the file with the order of the classes.
pub(super) const LABEL_FILE: &str = "labels.txt";
/// Lines of that file that are no classes.
const NO_CLASSES: [&str; 2] = ["__ignore__", "_background_"];
/// Flags of an object.
pub(super) const CROWD: &str = "crowd";
pub(super) const DIFFICULT: &str = "difficult";

/// One annotation file as written. The picture that it may hold is not kept.
#[derive(Deserialize)]
struct Annotation {
    shapes: Vec<Value>,
    #[serde(rename = "imagePath")]
    image_path: String,
    #[serde(rename = "imageWidth", default)]
    width: Value,
    #[serde(rename = "imageHeight", default)]
    height: Value,
}

/// Whether `folder` holds annotation files: `is_labelme` is asked about a few of its JSON files.
pub(super) fn holds(folder: &Path, is_labelme: impl Fn(&Path) -> bool) -> bool {
    files_with(folder, "json").iter().take(LOOKED_AT).any(|file| is_labelme(file))
}

/// The folders in `root` that hold annotation files, each a split by its name, sorted.
pub(super) fn splits(root: &Path, is_labelme: impl Fn(&Path) -> bool) -> Vec<(String, PathBuf)> {
    let Ok(entries) = fs::read_dir(root) else {
        return Vec::new();
    };
    let mut folders: Vec<(String, PathBuf)> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.is_dir() && holds(path, &is_labelme))
        .map(|path| (file_name(&path), path))
        .collect();
    folders.sort();
    folders
}

/// Reads the annotation files of `folder` and of the folders in it. `root` is the data set's folder.
///
/// # Errors
/// [`DataError::Read`] for a list of labels that cannot be read; [`DataError::Json`] when not one annotation file can be
/// read; [`DataError::Empty`].
pub(super) fn read(root: &Path, split: &str, folder: &Path, masks: Masks) -> Result<Dataset, DataError> {
    let mut files = Vec::new();
    list(folder, DEPTH, &mut files);
    files.sort();
    let read: Vec<Result<Annotation, DataError>> = files.par_iter().map(|file| annotation(file)).collect();
    let readable = read.iter().any(Result::is_ok);
    let mut gathering = Gathering::new("shape", listed_classes(root, folder)?, masks);
    for (path, annotation) in files.iter().zip(read) {
        let file = relative_name(folder, path);
        match annotation {
            Ok(annotation) => take(folder, path, &file, annotation, &mut gathering),
            Err(error) if !readable => return Err(error),
            Err(error) => {
                let message = format!("the image is left out: {error}");
                gathering.remark(Severity::Error, "broken-annotation", &file, message);
            }
        }
    }
    let name = file_name(&fs::canonicalize(root).unwrap_or_else(|_| root.to_path_buf()));
    gathering.finish(name, split.to_owned(), folder)
}

/// Adds the JSON files of `folder` and of the folders in it, `depth` levels down.
fn list(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    files.extend(files_with(folder, "json"));
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.filter_map(|entry| entry.ok().map(|entry| entry.path())) {
        // Links can lead in circles.
        if depth > 0 && files.len() < MAX_FILES && path.is_dir() {
            list(&path, depth - 1, files);
        }
    }
}

fn annotation(path: &Path) -> Result<Annotation, DataError> {
    let text = read_text(path, "the annotation", MAX_TEXT_FILE)?;
    serde_json::from_str(&text).map_err(|source| DataError::Json {
        what: "LabelMe annotation",
        path: path.to_path_buf(),
        source,
    })
}

/// The classes that a label file lists.
fn listed_classes(root: &Path, folder: &Path) -> Result<ClassNames, DataError> {
    let Some(file) = [folder, root].iter().map(|place| place.join(LABEL_FILE)).find(|file| file.is_file()) else {
        return Ok(ClassNames::default());
    };
    let text = read_text(&file, "the list of labels", MAX_TEXT_FILE)?;
    let names = text.lines().map(str::trim).filter(|name| !name.is_empty() && !NO_CLASSES.contains(name));
    Ok(ClassNames::listed(names.map(str::to_owned)))
}

/// Adds the image of one annotation file.
fn take(folder: &Path, path: &Path, file: &str, annotation: Annotation, gathering: &mut Gathering) {
    let beside = path.parent().unwrap_or(folder);
    // Images may lie in a folder beside that of the annotations, but not outside of the data set.
    let climbed = annotation.image_path.replace('\\', "/");
    let found = inside(beside, &climbed).or_else(|| {
        let mut base = beside;
        let mut rest = climbed.as_str();
        while let Some(further) = rest.strip_prefix("../") {
            if base == folder {
                return None;
            }
            (base, rest) = (base.parent()?, further);
        }
        inside(base, rest)
    });
    let Some(image) = found.or_else(|| gathering.inside(beside, &annotation.image_path, file)) else {
        return;
    };
    let mut objects: Vec<RawObject> = Vec::new();
    let mut group_of: HashMap<(u32, String), usize> = HashMap::new();
    for (index, shape) in annotation.shapes.iter().enumerate() {
        let at = index + 1;
        let read = shape.as_object().ok_or_else(|| ("broken-box", "is no object".to_owned()));
        let read = read.and_then(|shape| Ok((outline(shape)?, label(shape, &mut gathering.classes)?)));
        let (outline, class) = match read {
            Ok(read) => read,
            Err((rule, message)) => {
                gathering.remark_at(rule, file, at, &message);
                continue;
            }
        };
        let flag = |name: &str| shape.get("flags").and_then(|flags| flags.get(name)).and_then(Value::as_bool);
        let group = shape.get("group_id").filter(|group| !group.is_null()).map(Value::to_string);
        if let (Some(group), Shape::Outlines(parts)) = (group, &outline) {
            let known = group_of.get(&(class, group.clone())).and_then(|&index| objects.get_mut(index));
            if let Some(RawObject { shape: Shape::Outlines(whole), .. }) = known {
                whole.extend(parts.iter().cloned());
                continue;
            }
            group_of.insert((class, group), objects.len());
        }
        let (crowd, difficult) = (flag(CROWD) == Some(true), flag(DIFFICULT) == Some(true));
        objects.push(RawObject { class, shape: outline, crowd, difficult, truncated: false, occluded: false, at });
    }
    let size = |value: &Value| value.as_f64().map_or(0, side);
    let (width, height) = (size(&annotation.width), size(&annotation.height));
    let name = relative_name(folder, &image);
    gathering.images.push(Listed { name, path: image, width, height, objects, file: file.to_owned() });
}

fn label(shape: &Map<String, Value>, classes: &mut ClassNames) -> Result<u32, (&'static str, String)> {
    let name = shape.get("label").and_then(Value::as_str).unwrap_or_default();
    classes.number(name).ok_or_else(|| ("unknown-class", "has no label".to_owned()))
}

/// The shape in pixels, or the rule that it breaks and how.
fn outline(shape: &Map<String, Value>) -> Result<Shape, (&'static str, String)> {
    // Files of the first versions have polygons only and do not say so.
    let kind = shape.get("shape_type").and_then(Value::as_str).unwrap_or("polygon");
    let points = points(shape).ok_or_else(|| ("broken-box", format!("is a {kind} without points x, y")))?;
    match (kind, points.as_slice()) {
        ("rectangle", [[ax, ay], [bx, by]]) => Ok(Shape::Corners([ax.min(*bx), ay.min(*by), ax.max(*bx), ay.max(*by)])),
        // The last pixel, not the edge behind it.
        ("mask", [[ax, ay], [bx, by]]) => Ok(Shape::Corners([*ax, *ay, bx + 1.0, by + 1.0])),
        // Written by some versions as all four corners.
        ("rectangle", [_, _, _, _]) | ("polygon", [_, _, _, ..]) => {
            let outline: Vec<f64> = points.iter().flatten().copied().collect();
            Ok(Shape::Outlines(vec![outline]))
        }
        ("circle", [[cx, cy], [x, y]]) => {
            let r = (x - cx).hypot(y - cy);
            Ok(Shape::ellipse(*cx, *cy, r, r, 0.0))
        }
        ("rectangle" | "mask" | "polygon" | "circle", _) => {
            Err(("broken-outline", format!("is a {kind} with {} points", points.len())))
        }
        (other, _) => Err(("no-region", format!("is a {other}, which encloses nothing"))),
    }
}

fn points(shape: &Map<String, Value>) -> Option<Vec<[f64; 2]>> {
    let point = |value: &Value| match value.as_array()?.as_slice() {
        [x, y] => Some([x.as_f64()?, y.as_f64()?]),
        _ => None,
    };
    shape.get("points")?.as_array()?.iter().map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(value: Value) -> Result<Shape, (&'static str, String)> {
        outline(value.as_object().unwrap())
    }

    #[test]
    fn shapes_are_boxes_and_outlines() {
        let rectangle = of(json!({"shape_type": "rectangle", "points": [[5, 1.5], [2, 4]]}));
        assert_eq!(rectangle, Ok(Shape::Corners([2.0, 1.5, 5.0, 4.0])));
        let polygon = of(json!({"points": [[0, 0], [4, 0], [4, 3]]}));
        assert_eq!(polygon, Ok(Shape::Outlines(vec![vec![0.0, 0.0, 4.0, 0.0, 4.0, 3.0]])));
        assert!(of(json!({"shape_type": "circle", "points": [[5, 5], [5, 8]]})).is_ok());
        for (kind, rule) in [("point", "no-region"), ("linestrip", "no-region"), ("polygon", "broken-outline")] {
            assert_eq!(of(json!({"shape_type": kind, "points": [[1, 2]]})).unwrap_err().0, rule);
        }
        assert_eq!(of(json!({"shape_type": "rectangle", "points": [[1], [2]]})).unwrap_err().0, "broken-box");
    }

    #[test]
    fn parts_of_a_group_are_one_object_and_images_stay_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let square = |x: f64| json!([[x, 1], [x + 2.0, 1], [x + 2.0, 3], [x, 3]]);
        let text = json!({
            "imagePath": "..\\pictures\\a.png", "imageWidth": 20, "imageHeight": 10,
            "shapes": [
                {"label": "dog", "points": square(1.0), "group_id": 7},
                {"label": "dog", "points": square(5.0), "group_id": null, "flags": {"crowd": true}},
                {"label": "dog", "points": square(9.0), "group_id": 7},
                {"label": "cat", "points": square(1.0), "group_id": 7},
            ]
        });
        let inner = folder.path().join("labels");
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("a.json"), text.to_string()).unwrap();
        let escape = json!({"imagePath": "../../a.png", "imageWidth": 20, "imageHeight": 10, "shapes": []});
        fs::write(inner.join("b.json"), escape.to_string()).unwrap();
        fs::write(inner.join("c.json"), "{").unwrap();
        let set = read(folder.path(), "all", folder.path(), Masks::UpTo(9)).unwrap();
        assert_eq!((set.images.len(), set.images[0].name.as_str()), (1, "pictures/a.png"));
        let objects = &set.images[0].objects;
        assert_eq!((objects.len(), objects[0].bbox.to_xywh()), (3, [1.0, 1.0, 10.0, 2.0]));
        assert_eq!(objects[0].mask.as_ref().unwrap().area(), 8);
        assert!(objects[1].crowd && !objects[0].crowd);
        assert_eq!(set.classes, ["cat", "dog"]);
        let rules: Vec<&str> = set.warnings.iter().map(|finding| finding.rule.as_str()).collect();
        assert_eq!(rules, ["path-escape", "broken-annotation", "missing-image"]);
    }
}
