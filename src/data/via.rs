//! VIA (VGG Image Annotator) JSON: a project of version 2, or the plain export, with regions as list or as map.
//!
//! Rectangles, polygons, circles and ellipses are regions of an image; points and lines are not. The class is the value
//! of one region attribute: the one that is named, or called as such, or else the one that most regions have. `crowd` and
//! `difficult` are read as attributes.

use super::class_names::ClassNames;
use super::coco::Masks;
use super::coco_places::{dataset_name, folders_around, image_folder, split_of};
use super::dataset::Dataset;
use super::error::DataError;
use super::gather::{Gathering, Listed, RawObject, Shape};
use super::paths::file_name;
use super::text::read_text;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

/// Largest file that is read, bytes; its values are all held in memory.
const MAX_VIA: u64 = 512 << 20;
/// Attributes that hold the class, the likeliest first.
const CLASS_ATTRIBUTES: [&str; 8] = ["class", "label", "name", "category", "type", "object", "species", "class_name"];
/// Attributes that are flags of an object.
pub(super) const CROWD: &str = "crowd";
pub(super) const DIFFICULT: &str = "difficult";
/// The class of all regions when not one has an attribute.
const ONLY_CLASS: &str = "object";

/// Reads a VIA file. Its images are looked for in the usual places around it. `class_attribute` names the region
/// attribute that holds the class.
///
/// # Errors
/// [`DataError::Read`]; [`DataError::Json`]; [`DataError::Invalid`] for JSON of another kind or an attribute that no
/// region has; [`DataError::Empty`].
pub(super) fn read(path: &Path, class_attribute: Option<&str>, masks: Masks) -> Result<Dataset, DataError> {
    let text = read_text(path, "the VIA file", MAX_VIA)?;
    let json: Value = serde_json::from_str(&text).map_err(|source| DataError::Json {
        what: "VIA project",
        path: path.to_path_buf(),
        source,
    })?;
    drop(text);
    let file = file_name(path);
    let invalid = |message: &str| DataError::Invalid { path: path.to_path_buf(), message: message.to_owned() };
    let project = json.as_object().ok_or_else(|| invalid("a VIA file is a JSON object"))?;
    let images = match project.get("_via_img_metadata") {
        Some(metadata) => metadata.as_object().ok_or_else(|| invalid("_via_img_metadata is no object"))?,
        None => project,
    };
    let images = in_order(images, project);
    let attribute = match class_attribute {
        Some(wanted) if !images.iter().flat_map(|image| regions(image)).any(|region| has(region, wanted)) => {
            return Err(invalid(&format!("no region has the attribute {wanted:?}")));
        }
        Some(wanted) => Some(wanted.to_owned()),
        None => likeliest(&images),
    };
    let options = attribute.as_ref().map(|attribute| options(project, attribute)).unwrap_or_default();
    let mut gathering = Gathering::new("region", ClassNames::listed(options), masks);
    let folders = folders_around(path);
    let names = images.iter().filter_map(|image| image.get("filename")).filter_map(Value::as_str);
    let folder = image_folder(&folders, names).unwrap_or_else(|| {
        gathering.no_images_in(&folders, &file);
        folders.first().cloned().unwrap_or_default()
    });
    for image in images {
        let Some(name) = image.get("filename").and_then(Value::as_str) else { continue };
        let Some(path) = gathering.inside(&folder, name, &file) else { continue };
        let mut objects = Vec::new();
        for (index, region) in regions(image).into_iter().enumerate() {
            match object(region, attribute.as_deref(), &mut gathering.classes) {
                Ok((class, shape)) => {
                    let flag = |name: &str| attribute_of(region, name).is_some_and(is_set);
                    let (crowd, difficult) = (flag(CROWD), flag(DIFFICULT));
                    objects.push(RawObject {
                        class,
                        shape,
                        crowd,
                        difficult,
                        truncated: false,
                        occluded: false,
                        at: index + 1,
                    });
                }
                Err((rule, message)) => {
                    let message = format!("of {name} {message}");
                    gathering.remark_at(rule, &file, index + 1, &message);
                }
            }
        }
        let (name, file) = (name.to_owned(), format!("{name} in {file}"));
        gathering.images.push(Listed { name, path, width: 0, height: 0, objects, file });
    }
    gathering.finish(dataset_name(path), split_of(path), path)
}

/// The images in the project's own order where it has one, then the others by key.
fn in_order<'a>(images: &'a Map<String, Value>, project: &'a Map<String, Value>) -> Vec<&'a Map<String, Value>> {
    let listed = project.get("_via_image_id_list").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut keys: Vec<&str> = images.keys().map(String::as_str).collect();
    keys.sort_unstable();
    let mut seen = HashSet::new();
    listed
        .iter()
        .filter_map(Value::as_str)
        .chain(keys)
        .filter(|key| seen.insert(*key))
        .filter_map(|key| images.get(key)?.as_object())
        .filter(|image| image.contains_key("filename"))
        .collect()
}

/// The regions of an image, from a list or, as version 1 has it, from a map in the order of its numbers.
fn regions(image: &Map<String, Value>) -> Vec<&Value> {
    match image.get("regions") {
        Some(Value::Array(list)) => list.iter().collect(),
        Some(Value::Object(map)) => {
            let mut numbered: Vec<(u64, &str, &Value)> =
                map.iter().map(|(key, region)| (key.parse().unwrap_or(u64::MAX), key.as_str(), region)).collect();
            numbered.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
            numbered.into_iter().map(|(.., region)| region).collect()
        }
        _ => Vec::new(),
    }
}

fn attribute_of<'a>(region: &'a Value, name: &str) -> Option<&'a Value> {
    region.get("region_attributes")?.get(name)
}

fn has(region: &Value, name: &str) -> bool {
    attribute_of(region, name).and_then(class_name).is_some()
}

/// The text of an attribute: as it stands, a number, or the only option that is ticked.
fn class_name(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        Value::Object(options) => {
            let mut ticked = options.iter().filter(|(_, value)| is_set(value)).map(|(key, _)| key);
            match (ticked.next(), ticked.next()) {
                (Some(only), None) => only.trim().to_owned(),
                _ => return None,
            }
        }
        _ => return None,
    };
    (!text.is_empty()).then_some(text)
}

/// Whether a flag is set: true, a number but 0, a word for yes, or any option ticked.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64().is_some_and(|number| number != 0.0),
        Value::String(text) => ["1", "true", "yes"].contains(&text.trim().to_ascii_lowercase().as_str()),
        Value::Object(options) => options.values().any(|value| value.as_bool() == Some(true)),
        Value::Null | Value::Array(_) => false,
    }
}

/// The attribute that holds the class; none when no region has any.
fn likeliest(images: &[&Map<String, Value>]) -> Option<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for region in images.iter().flat_map(|image| regions(image)) {
        let attributes = region.get("region_attributes").and_then(Value::as_object);
        for (name, value) in attributes.into_iter().flatten() {
            if name != CROWD && name != DIFFICULT && class_name(value).is_some() {
                *counts.entry(name.clone()).or_insert(0) += 1;
            }
        }
    }
    let known = CLASS_ATTRIBUTES
        .iter()
        .find_map(|wanted| counts.keys().find(|name| name.eq_ignore_ascii_case(wanted)).cloned());
    // Of several that are as frequent, the first by name.
    let most = counts.iter().max_by(|a, b| a.1.cmp(b.1).then(b.0.cmp(a.0)));
    known.or_else(|| most.map(|(name, _)| name.clone()))
}

/// The options that the project lists for the attribute, in its order.
fn options(project: &Map<String, Value>, attribute: &str) -> Vec<String> {
    let attributes = project.get("_via_attributes").and_then(|attributes| attributes.get("region"));
    let options = attributes.and_then(|region| region.get(attribute)).and_then(|attribute| attribute.get("options"));
    match options {
        Some(Value::Object(options)) => {
            // A map has no order that every writer keeps; the description may begin with a number that tells it.
            let mut list: Vec<(u64, &String)> = options
                .iter()
                .map(|(name, text)| (text.as_str().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX), name))
                .collect();
            list.sort();
            list.into_iter().map(|(_, name)| name.clone()).collect()
        }
        _ => Vec::new(),
    }
}

/// Class and shape of a region, or the rule that it breaks and how.
fn object(
    region: &Value,
    attribute: Option<&str>,
    classes: &mut ClassNames,
) -> Result<(u32, Shape), (&'static str, String)> {
    let name = match attribute {
        Some(attribute) => attribute_of(region, attribute).and_then(class_name),
        None => Some(ONLY_CLASS.to_owned()),
    };
    let name = name.ok_or_else(|| {
        ("unknown-class", format!("has no single value of the attribute {}", attribute.unwrap_or_default()))
    })?;
    let shape = shape(region.get("shape_attributes"))?;
    let class = classes.number(&name).ok_or_else(|| ("unknown-class", format!("has the unknown class {name:?}")))?;
    Ok((class, shape))
}

fn shape(attributes: Option<&Value>) -> Result<Shape, (&'static str, String)> {
    let kind = attributes.and_then(|attributes| attributes.get("name")).and_then(Value::as_str).unwrap_or_default();
    let number = |key: &str| {
        let value = attributes.and_then(|attributes| attributes.get(key)).and_then(Value::as_f64);
        value.filter(|value| value.is_finite()).ok_or_else(|| ("broken-box", format!("is a {kind} without {key}")))
    };
    match kind {
        "rect" => {
            let (x, y, w, h) = (number("x")?, number("y")?, number("width")?, number("height")?);
            Ok(Shape::Corners([x, y, x + w, y + h]))
        }
        "circle" => {
            let r = number("r")?;
            Ok(Shape::ellipse(number("cx")?, number("cy")?, r, r, 0.0))
        }
        "ellipse" => {
            let turned = number("theta").unwrap_or(0.0);
            Ok(Shape::ellipse(number("cx")?, number("cy")?, number("rx")?, number("ry")?, turned))
        }
        "polygon" => {
            let list = |key: &str| -> Option<Vec<f64>> {
                attributes?.get(key)?.as_array()?.iter().map(Value::as_f64).collect()
            };
            match (list("all_points_x"), list("all_points_y")) {
                (Some(xs), Some(ys)) if xs.len() == ys.len() && xs.len() >= 3 => {
                    Ok(Shape::Outlines(vec![xs.into_iter().zip(ys).flat_map(|(x, y)| [x, y]).collect()]))
                }
                _ => Err(("broken-outline", "is a polygon without x and y of three corners".to_owned())),
            }
        }
        "" => Err(("broken-box", "has no shape".to_owned())),
        other => Err(("no-region", format!("is a {other}, which encloses nothing"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn regions_come_in_their_order_from_list_and_map() {
        let list = json!({"regions": [{"a": 1}, {"a": 2}]});
        let map = json!({"regions": {"10": {"a": 3}, "2": {"a": 2}, "0": {"a": 1}}});
        let numbers = |image: &Value| -> Vec<i64> {
            regions(image.as_object().unwrap()).iter().filter_map(|region| region["a"].as_i64()).collect()
        };
        assert_eq!(numbers(&list), [1, 2]);
        assert_eq!(numbers(&map), [1, 2, 3]);
    }

    #[test]
    fn the_class_attribute_is_found() {
        let image = |attributes: Value| json!({"filename": "a.png", "regions": [{"region_attributes": attributes}]});
        let found = |images: &[Value]| {
            let images: Vec<&Map<String, Value>> = images.iter().filter_map(Value::as_object).collect();
            likeliest(&images)
        };
        assert_eq!(found(&[image(json!({"Label": "x", "aaa": "y"}))]).as_deref(), Some("Label"));
        let most = [image(json!({"b": "x", "a": ""})), image(json!({"b": "y", "a": "z"}))];
        assert_eq!(found(&most).as_deref(), Some("b"));
        assert_eq!(found(&[image(json!({"b": 1, "a": {"cat": true, "dog": false}}))]).as_deref(), Some("a"));
        assert_eq!(found(&[image(json!({"crowd": "1"}))]), None);
    }

    #[test]
    fn shapes_that_enclose_nothing_are_refused_by_name() {
        let of = |value: Value| shape(Some(&value));
        assert_eq!(
            of(json!({"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4.5})),
            Ok(Shape::Corners([1.0, 2.0, 4.0, 6.5]))
        );
        assert!(
            of(json!({"name": "polyline", "all_points_x": [1], "all_points_y": [1]}))
                .unwrap_err()
                .1
                .contains("polyline")
        );
        assert_eq!(
            of(json!({"name": "polygon", "all_points_x": [1, 2, 3], "all_points_y": [1]})).unwrap_err().0,
            "broken-outline"
        );
        assert!(of(json!({"name": "rect", "x": 1})).unwrap_err().1.contains("without y"));
        assert!(shape(None).is_err() && of(json!({"name": "circle", "cx": 1, "cy": 1, "r": 2})).is_ok());
    }
}
