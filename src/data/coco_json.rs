//! COCO annotation JSON as written, one entry at a time, nothing trusted.
//!
//! A value of the wrong type is kept as "absent" and judged later, so that one bad annotation does not cost the file;
//! text that is no JSON, or whose lists are no lists, is an error. The usual file, an object with lists of objects, is
//! cut into its entries first, which are then read in parallel; whatever is not of that form is read as a stream, which
//! also finds the place of an error.

use super::coco_entries::{Entries, entries};
use rayon::prelude::*;
use serde::Deserialize;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::fmt;

/// An entry of `images`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct RawImage {
    pub(super) id: Option<u64>,
    pub(super) file_name: String,
    /// 0 where absent or no size.
    pub(super) width: u32,
    pub(super) height: u32,
}

/// An entry of `categories`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct RawCategory {
    pub(super) id: Option<u64>,
    pub(super) name: String,
}

/// An entry of `annotations`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct RawAnnotation {
    pub(super) id: u64,
    pub(super) image_id: Option<u64>,
    pub(super) category_id: Option<u64>,
    /// Left, top, width, height.
    pub(super) bbox: Option<[f64; 4]>,
    pub(super) area: Option<f64>,
    pub(super) crowd: bool,
    pub(super) segmentation: Option<Segmentation>,
}

/// Where an object is, pixel by pixel.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Segmentation {
    /// Corners `x y x y …` of each part, pixels.
    Polygons(Vec<Vec<f64>>),
    /// COCO's compressed run lengths.
    Compressed { height: u32, width: u32, counts: String },
    /// Run lengths in column-major order, background first.
    Runs { height: u32, width: u32, counts: Vec<u32> },
    /// Present and not understood.
    Broken,
}

/// The three lists of an annotation file.
#[derive(Debug, Default)]
pub(super) struct CocoFile {
    pub(super) images: Vec<RawImage>,
    pub(super) categories: Vec<RawCategory>,
    pub(super) annotations: Vec<RawAnnotation>,
    /// There were more segmentations than the limit, so none is kept.
    pub(super) segmentations_dropped: bool,
    /// Which of the lists were there at all.
    pub(super) has_images: bool,
    pub(super) has_annotations: bool,
}

/// Reads a file's bytes. Segmentations are kept when there are at most `segmentation_limit` of them.
///
/// # Errors
/// The JSON error with line and column.
pub(super) fn parse(bytes: &[u8], segmentation_limit: usize) -> Result<CocoFile, serde_json::Error> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    match entries(bytes).and_then(|entries| parse_entries(&entries, segmentation_limit)) {
        Some(file) => Ok(file),
        None => parse_stream(bytes, segmentation_limit),
    }
}

/// Reads the entries in parallel; nothing when one of them is not what it should be.
fn parse_entries(entries: &Entries<'_>, segmentation_limit: usize) -> Option<CocoFile> {
    if entries.others.iter().any(|other| serde_json::from_slice::<IgnoredAny>(other).is_err()) {
        return None;
    }
    let images: Vec<RawImage> = each(entries.images.as_deref().unwrap_or_default(), JsonImage::raw)?;
    let categories: Vec<RawCategory> = each(entries.categories.as_deref().unwrap_or_default(), JsonCategory::raw)?;
    let list = entries.annotations.as_deref().unwrap_or_default();
    // Most of a large file are segmentations: whether they are wanted is known when they are counted.
    let first: Vec<(RawAnnotation, bool)> = each(list, |annotation: &JsonAnnotation<Presence>| {
        (annotation.raw(None), annotation.segmentation.as_ref().is_some_and(|presence| presence.0))
    })?;
    let segmentations = first.iter().filter(|(_, present)| *present).count();
    let dropped = segmentation_limit == 0 || segmentations > segmentation_limit;
    let annotations = if dropped || segmentations == 0 {
        first.into_iter().map(|(annotation, _)| annotation).collect()
    } else {
        drop(first);
        each(list, |annotation: &JsonAnnotation<Value>| {
            annotation.raw(annotation.segmentation.as_ref().and_then(segmentation))
        })?
    };
    Some(CocoFile {
        images,
        categories,
        annotations,
        segmentations_dropped: dropped && entries.annotations.is_some(),
        has_images: entries.images.is_some(),
        has_annotations: entries.annotations.is_some(),
    })
}

/// Every entry as what `of` makes of it, in order; nothing when one is not well-formed.
fn each<J: DeserializeOwned, T: Send>(entries: &[&[u8]], of: impl Fn(&J) -> T + Sync) -> Option<Vec<T>> {
    entries.par_iter().map(|entry| serde_json::from_slice::<J>(entry).ok().map(|json| of(&json))).collect()
}

/// Reads the whole text in order.
fn parse_stream(bytes: &[u8], segmentation_limit: usize) -> Result<CocoFile, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let file = (&mut deserializer).deserialize_map(FileVisitor { segmentation_limit })?;
    deserializer.end()?;
    Ok(file)
}

struct FileVisitor {
    segmentation_limit: usize,
}

impl<'de> Visitor<'de> for FileVisitor {
    type Value = CocoFile;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object with the lists images, annotations and categories")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<CocoFile, A::Error> {
        let mut file = CocoFile::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "images" => {
                    let images: Vec<JsonImage> = map.next_value()?;
                    file.images = images.iter().map(JsonImage::raw).collect();
                    file.has_images = true;
                }
                "categories" => {
                    let categories: Vec<JsonCategory> = map.next_value()?;
                    file.categories = categories.iter().map(JsonCategory::raw).collect();
                }
                "annotations" => {
                    file.annotations.clear();
                    file.has_annotations = true;
                    map.next_value_seed(Annotations { file: &mut file, limit: self.segmentation_limit })?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(file)
    }
}

#[derive(Deserialize)]
struct JsonImage {
    #[serde(default)]
    id: Value,
    #[serde(default)]
    file_name: Value,
    #[serde(default)]
    width: Value,
    #[serde(default)]
    height: Value,
}

impl JsonImage {
    fn raw(&self) -> RawImage {
        RawImage {
            id: whole(&self.id),
            file_name: self.file_name.as_str().unwrap_or_default().to_owned(),
            width: side(&self.width),
            height: side(&self.height),
        }
    }
}

#[derive(Deserialize)]
struct JsonCategory {
    #[serde(default)]
    id: Value,
    #[serde(default)]
    name: Value,
}

impl JsonCategory {
    fn raw(&self) -> RawCategory {
        RawCategory { id: whole(&self.id), name: self.name.as_str().unwrap_or_default().to_owned() }
    }
}

/// `S` is `Value` where segmentations are wanted and `IgnoredAny` where they are skipped.
#[derive(Deserialize)]
struct JsonAnnotation<S> {
    #[serde(default)]
    id: Value,
    #[serde(default)]
    image_id: Value,
    #[serde(default)]
    category_id: Value,
    #[serde(default)]
    bbox: Value,
    #[serde(default)]
    area: Value,
    #[serde(default)]
    iscrowd: Value,
    segmentation: Option<S>,
}

impl<S> JsonAnnotation<S> {
    fn raw(&self, segmentation: Option<Segmentation>) -> RawAnnotation {
        RawAnnotation {
            id: whole(&self.id).unwrap_or(0),
            image_id: whole(&self.image_id),
            category_id: whole(&self.category_id),
            bbox: four(&self.bbox),
            area: number(&self.area),
            crowd: self.iscrowd.as_bool().unwrap_or(false) || number(&self.iscrowd).is_some_and(|v| v != 0.0),
            segmentation,
        }
    }
}

/// Whether a segmentation is there: anything but an empty list.
struct Presence(bool);

impl<'de> Deserialize<'de> for Presence {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PresenceVisitor)
    }
}

struct PresenceVisitor;

impl<'de> Visitor<'de> for PresenceVisitor {
    type Value = Presence;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a segmentation")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Presence, A::Error> {
        let mut present = false;
        while seq.next_element::<IgnoredAny>()?.is_some() {
            present = true;
        }
        Ok(Presence(present))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Presence, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Presence(true))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Presence, E> {
        Ok(Presence(true))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Presence, E> {
        Ok(Presence(true))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Presence, E> {
        Ok(Presence(true))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Presence, E> {
        Ok(Presence(true))
    }

    fn visit_str<E>(self, _: &str) -> Result<Presence, E> {
        Ok(Presence(true))
    }
}

/// Reads the annotation list into `file`, one entry at a time.
struct Annotations<'a> {
    file: &'a mut CocoFile,
    limit: usize,
}

impl<'de> DeserializeSeed<'de> for Annotations<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Annotations<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of annotations")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let file = self.file;
        let mut segmentations = 0usize;
        file.segmentations_dropped = self.limit == 0;
        loop {
            if file.segmentations_dropped {
                match seq.next_element::<JsonAnnotation<IgnoredAny>>()? {
                    Some(annotation) => file.annotations.push(annotation.raw(None)),
                    None => return Ok(()),
                }
                continue;
            }
            let Some(annotation) = seq.next_element::<JsonAnnotation<Value>>()? else {
                return Ok(());
            };
            let segmentation = annotation.segmentation.as_ref().and_then(segmentation);
            segmentations += usize::from(segmentation.is_some());
            if segmentations > self.limit {
                file.segmentations_dropped = true;
                for earlier in &mut file.annotations {
                    earlier.segmentation = None;
                }
                file.annotations.push(annotation.raw(None));
            } else {
                file.annotations.push(annotation.raw(segmentation));
            }
        }
    }
}

/// A finite number.
fn number(value: &Value) -> Option<f64> {
    value.as_f64().filter(|v| v.is_finite())
}

/// A whole number that is not negative, also when written as `7.0`.
pub(super) fn whole(value: &Value) -> Option<u64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    value.as_u64().or_else(|| number(value).filter(|v| *v >= 0.0 && *v <= EXACT && v.fract() == 0.0).map(|v| v as u64))
}

fn side(value: &Value) -> u32 {
    whole(value).and_then(|v| u32::try_from(v).ok()).unwrap_or(0)
}

fn four(value: &Value) -> Option<[f64; 4]> {
    match value.as_array()?.as_slice() {
        [a, b, c, d] => Some([number(a)?, number(b)?, number(c)?, number(d)?]),
        _ => None,
    }
}

/// A segmentation in any of COCO's three forms; nothing for an empty list.
pub(super) fn segmentation(value: &Value) -> Option<Segmentation> {
    match value {
        Value::Array(parts) if parts.is_empty() => None,
        Value::Array(parts) => {
            // Some tools write a single polygon without the outer list.
            let polygons: Option<Vec<Vec<f64>>> = if parts.iter().all(Value::is_number) {
                polygon(parts).map(|corners| vec![corners])
            } else {
                parts.iter().map(|part| polygon(part.as_array()?)).collect()
            };
            Some(polygons.map_or(Segmentation::Broken, Segmentation::Polygons))
        }
        Value::Object(map) => Some(runs(map.get("size"), map.get("counts")).unwrap_or(Segmentation::Broken)),
        _ => Some(Segmentation::Broken),
    }
}

/// At least three corners, both coordinates of each.
fn polygon(corners: &[Value]) -> Option<Vec<f64>> {
    if corners.len() < 6 || !corners.len().is_multiple_of(2) {
        return None;
    }
    corners.iter().map(number).collect()
}

fn runs(size: Option<&Value>, counts: Option<&Value>) -> Option<Segmentation> {
    let [height, width] = size?.as_array()?.as_slice() else {
        return None;
    };
    let (height, width) = (side(height), side(width));
    match counts? {
        Value::String(counts) => Some(Segmentation::Compressed { height, width, counts: counts.clone() }),
        Value::Array(counts) => {
            let counts: Option<Vec<u32>> =
                counts.iter().map(|v| whole(v).and_then(|v| u32::try_from(v).ok())).collect();
            Some(Segmentation::Runs { height, width, counts: counts? })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{
        "info": {"nested": [1, {"a": null}]},
        "annotations": [
            {"id": 5, "image_id": 9.0, "category_id": 18, "bbox": [1, 2.5, 3, 4], "area": 7.5, "iscrowd": 0,
             "segmentation": [[1, 1, 4, 1, 4, 5]]},
            {"id": "x", "image_id": -1, "bbox": [1, 2, 3], "iscrowd": true,
             "segmentation": {"size": [4, 6], "counts": [3, 5, 16]}},
            {"bbox": [1, "2", 3, 4], "iscrowd": 1, "segmentation": {"size": [4, 6], "counts": "PPYo0"}},
            {"segmentation": [[1, 2, 3]], "bbox": null},
            {"segmentation": []}
        ],
        "images": [{"id": 9, "file_name": "a.jpg", "height": 4, "width": 6}, {"id": 10, "width": 1e12}],
        "categories": [{"id": 18, "name": "dog", "supercategory": "animal"}]
    }"#;

    #[test]
    fn odd_values_are_absent_and_the_rest_is_read() {
        let file = parse(TEXT.as_bytes(), 100).unwrap();
        let a = &file.annotations;
        assert_eq!((a[0].id, a[0].image_id, a[0].category_id, a[0].crowd), (5, Some(9), Some(18), false));
        assert_eq!((a[0].bbox, a[0].area), (Some([1.0, 2.5, 3.0, 4.0]), Some(7.5)));
        assert_eq!(a[0].segmentation, Some(Segmentation::Polygons(vec![vec![1.0, 1.0, 4.0, 1.0, 4.0, 5.0]])));
        assert_eq!((a[1].id, a[1].image_id, a[1].bbox, a[1].crowd), (0, None, None, true));
        assert_eq!(a[1].segmentation, Some(Segmentation::Runs { height: 4, width: 6, counts: vec![3, 5, 16] }));
        assert!(matches!(&a[2].segmentation, Some(Segmentation::Compressed { counts, .. }) if counts == "PPYo0"));
        assert!(a[2].bbox.is_none() && a[2].crowd);
        assert_eq!((&a[3].segmentation, &a[4].segmentation), (&Some(Segmentation::Broken), &None));
        assert_eq!(file.images[0], RawImage { id: Some(9), file_name: "a.jpg".to_owned(), width: 6, height: 4 });
        assert_eq!(file.images[1].width, 0, "no size of a picture");
        assert_eq!(file.categories[0], RawCategory { id: Some(18), name: "dog".to_owned() });
    }

    #[test]
    fn beyond_the_limit_no_segmentation_is_kept() {
        for (limit, dropped) in [(0, true), (3, true), (4, false)] {
            let file = parse(TEXT.as_bytes(), limit).unwrap();
            assert_eq!(file.segmentations_dropped, dropped, "limit {limit}");
            assert_eq!(file.annotations.iter().any(|a| a.segmentation.is_some()), !dropped);
            assert_eq!((file.annotations.len(), file.annotations[0].id), (5, 5));
        }
    }

    #[test]
    fn entries_and_stream_agree() {
        let other_order = r#"{"categories": [], "images": [{"id": 1}], "annotations": [], "x": {"[": "]\\\""}} "#;
        for text in [TEXT, other_order, "{}", r#"{"images": []}"#, "{\"annotations\": [ { } , {}\n]}"] {
            for limit in [0, 1, 4, 100] {
                let list = entries(text.as_bytes()).expect(text);
                let split = parse_entries(&list, limit).expect(text);
                let whole = parse_stream(text.as_bytes(), limit).unwrap();
                assert_eq!(split.images, whole.images, "{text}");
                assert_eq!(split.categories, whole.categories, "{text}");
                assert_eq!(split.annotations, whole.annotations, "{text}, {limit}");
                assert_eq!(
                    (split.has_images, split.has_annotations, split.segmentations_dropped),
                    (whole.has_images, whole.has_annotations, whole.segmentations_dropped),
                    "{text}, {limit}"
                );
            }
        }
    }

    #[test]
    fn broken_text_is_an_error_with_a_line() {
        for text in ["", "[]", "{\"annotations\": 3}", "{\"images\": [1]}", "{\"annotations\": [{}", "{} {}", "nan"] {
            let error = parse(text.as_bytes(), 9).expect_err(text);
            assert!(error.to_string().contains("line 1"), "{text}: {error}");
        }
    }
}
