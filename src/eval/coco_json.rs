//! COCO ground truth and results as they stand in JSON, read leniently where tools differ in form, not in meaning.

use super::EvalError;
use crate::geometry::Mask;
use crate::geometry::masks::MaskError;
use serde::de::{Error, IgnoredAny, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::fmt;
use std::path::Path;

/// Reads a whole file's bytes; `what` and `path` are for the message.
pub fn parse<'de, T: Deserialize<'de>>(what: &'static str, path: &Path, bytes: &'de [u8]) -> Result<T, EvalError> {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    serde_json::from_slice(text).map_err(|source| EvalError::Json { what, path: path.to_path_buf(), source })
}

/// An id, also when written as `7.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Id(pub u64);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ids;
        impl Visitor<'_> for Ids {
            type Value = Id;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an id, a whole number from 0")
            }

            fn visit_u64<E: Error>(self, id: u64) -> Result<Id, E> {
                Ok(Id(id))
            }

            fn visit_i64<E: Error>(self, id: i64) -> Result<Id, E> {
                u64::try_from(id).map(Id).map_err(|_| no_id(id))
            }

            fn visit_f64<E: Error>(self, id: f64) -> Result<Id, E> {
                // up to 2^53 a double holds every whole number
                let is_whole = (0.0..=9_007_199_254_740_992.0).contains(&id) && id.fract() == 0.0;
                if is_whole { Ok(Id(id as u64)) } else { Err(no_id(id)) }
            }
        }
        deserializer.deserialize_any(Ids)
    }
}

fn no_id<E: Error>(id: impl fmt::Display) -> E {
    E::custom(format_args!("{id} is no id: ids are whole numbers from 0"))
}

/// A mark that some tools write as a number and some as a boolean.
#[derive(Clone, Copy)]
pub struct Flag(bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Flags;
        impl Visitor<'_> for Flags {
            type Value = Flag;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a mark, 0 or 1")
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Flag, E> {
                Ok(Flag(value))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Flag, E> {
                Ok(Flag(value != 0))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Flag, E> {
                Ok(Flag(value != 0))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Flag, E> {
                Ok(Flag(value != 0.0))
            }
        }
        deserializer.deserialize_any(Flags)
    }
}

/// Whether a mark is there and says yes.
pub fn is_set(flag: Option<Flag>) -> bool {
    flag.is_some_and(|flag| flag.0)
}

/// A segmentation in any of COCO's forms.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Segmentation {
    Polygons(Vec<Vec<f64>>),
    Compressed { size: [u32; 2], counts: String },
    Runs { size: [u32; 2], counts: Vec<u32> },
    Other(IgnoredAny),
}

#[derive(Deserialize)]
pub struct JsonTruth<S> {
    pub images: Vec<JsonImage>,
    pub annotations: Vec<JsonAnnotation<S>>,
    pub categories: Vec<JsonCategory>,
}

#[derive(Deserialize)]
pub struct JsonImage {
    pub id: Id,
    pub height: Option<f64>,
    pub width: Option<f64>,
    /// Wanted for pictures only, so that anything but text is as good as nothing.
    pub file_name: Option<Value>,
}

#[derive(Deserialize)]
pub struct JsonCategory {
    pub id: Id,
    pub name: Option<String>,
}

#[derive(Deserialize)]
pub struct JsonAnnotation<S> {
    pub id: Option<Id>,
    pub image_id: Id,
    pub category_id: Id,
    pub bbox: Option<Vec<f64>>,
    pub area: Option<f64>,
    pub iscrowd: Option<Flag>,
    pub ignore: Option<Flag>,
    pub difficult: Option<Flag>,
    pub segmentation: Option<S>,
}

#[derive(Deserialize)]
pub struct JsonResult {
    pub image_id: Id,
    pub category_id: Id,
    pub bbox: Option<Vec<f64>>,
    pub score: f64,
    pub segmentation: Option<Segmentation>,
}

/// The one thing that reading an annotation asks of its segmentation, so that box evaluation can skip it unread.
pub trait Outline {
    fn outline(&self) -> Option<&Segmentation>;
}

impl Outline for Segmentation {
    fn outline(&self) -> Option<&Segmentation> {
        Some(self)
    }
}

impl Outline for IgnoredAny {
    fn outline(&self) -> Option<&Segmentation> {
        None
    }
}

/// Left, top, width, height when there are four of them.
pub fn four(bbox: Option<&[f64]>) -> Option<[f64; 4]> {
    bbox.and_then(|values| <[f64; 4]>::try_from(values).ok())
}

/// A mask; polygons need the image's height and width.
pub fn to_mask(segmentation: &Segmentation, image: &JsonImage) -> Result<Mask, String> {
    let message = |error: MaskError| error.to_string();
    match segmentation {
        Segmentation::Polygons(polygons) => {
            let side = |value: Option<f64>| {
                let fits = |v: &f64| (0.0..=f64::from(u32::MAX)).contains(v) && v.fract() == 0.0;
                value.filter(fits).map(|v| v as u32)
            };
            let (Some(height), Some(width)) = (side(image.height), side(image.width)) else {
                return Err("its polygons need the height and width of the image, which are missing".to_owned());
            };
            Mask::from_polygons(polygons, height, width).map_err(message)
        }
        Segmentation::Compressed { size: [height, width], counts } => {
            Mask::from_coco_string(counts, *height, *width).map_err(message)
        }
        Segmentation::Runs { size: [height, width], counts } => {
            Mask::from_counts(*height, *width, counts.clone()).map_err(message)
        }
        Segmentation::Other(IgnoredAny) => Err("its segmentation is neither polygons nor run lengths".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_may_be_written_as_fractions_and_nothing_else() {
        let id = |text: &str| serde_json::from_str::<Id>(text).ok().map(|id| id.0);
        assert_eq!(id("7"), Some(7));
        assert_eq!(id("7.0"), Some(7));
        assert_eq!(id("18446744073709551615"), Some(u64::MAX));
        for text in ["7.5", "-1", "1e300", "\"7\"", "null"] {
            assert_eq!(id(text), None, "{text}");
        }
    }

    #[test]
    fn flags_are_numbers_or_booleans() {
        let flag = |text: &str| is_set(serde_json::from_str(text).unwrap());
        assert_eq!(["0", "1", "true", "false", "null", "1.0"].map(flag), [false, true, true, false, false, true]);
    }

    #[test]
    fn segmentations_are_told_apart_by_their_form() {
        let image = |height: f64| JsonImage { id: Id(1), height: Some(height), width: Some(6.0), file_name: None };
        let mask = |text: &str| to_mask(&serde_json::from_str(text).unwrap(), &image(4.0));
        assert_eq!(mask(r#"{"size": [4, 6], "counts": [1, 2, 21]}"#).unwrap().area(), 2);
        assert_eq!(mask("[[1, 1, 3, 1, 3, 3, 1, 3]]").unwrap().area(), 4);
        assert_eq!(mask("[]").unwrap().area(), 0);
        for text in ["3", r#"{"size": [4], "counts": []}"#, r#"{"size": [4, 6], "counts": [1]}"#, "[[1, 2, 3]]"] {
            assert!(mask(text).is_err(), "{text}");
        }
        assert!(to_mask(&Segmentation::Polygons(Vec::new()), &image(4.5)).is_err());
    }
}
