//! Writes data sets in other formats: COCO, VOC, YOLO, CSV, VIA, LabelMe, OpenImages; and tells what they cannot keep.
//!
//! What a format keeps it keeps exactly: coordinates are written so that they read back as the same `f32`, masks as run
//! lengths or as outlines that fill back to the same pixels.

mod coco;
mod csv;
mod decimals;
mod files;
mod labelme;
mod losses;
mod names;
mod openimages;
mod outline;
mod part;
mod via;
mod voc;
mod yolo;

pub use files::Images;
pub use losses::Dropped;

use super::dataset::{Dataset, ImageEntry};
use super::error::DataError;
use part::Part;
use serde::Serialize;
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::fs;
use std::path::Path;
use std::str::FromStr;

/// A format that data sets are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    Coco,
    Voc,
    /// Boxes alone.
    Yolo,
    /// Outlines where an object has a mask, boxes where it has none.
    YoloSeg,
    Csv,
    Via,
    Labelme,
    Openimages,
}

/// What a format can say.
#[derive(Clone, Copy, Debug)]
struct Keeps {
    masks: bool,
    crowds: bool,
    difficult: bool,
    /// Truncated and occluded.
    cut: bool,
    /// Classes without objects, and the order of the classes.
    classes: bool,
    /// Ids of images, objects and categories, and areas.
    ids: bool,
    empty_images: bool,
    /// The box beside a mask; else it is read back as the box around the mask.
    box_of_mask: bool,
}

impl Format {
    pub const ALL: [Self; 8] =
        [Self::Coco, Self::Voc, Self::Yolo, Self::YoloSeg, Self::Csv, Self::Via, Self::Labelme, Self::Openimages];

    /// As the command line calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Coco => "coco",
            Self::Voc => "voc",
            Self::Yolo => "yolo",
            Self::YoloSeg => "yolo-seg",
            Self::Csv => "csv",
            Self::Via => "via",
            Self::Labelme => "labelme",
            Self::Openimages => "openimages",
        }
    }

    fn keeps(self) -> Keeps {
        let all = Keeps {
            masks: true,
            crowds: true,
            difficult: true,
            cut: false,
            classes: true,
            ids: true,
            empty_images: true,
            box_of_mask: true,
        };
        let boxes = Keeps { masks: false, crowds: false, difficult: false, ids: false, ..all };
        match self {
            Self::Coco => Keeps { difficult: false, ..all },
            Self::Voc => Keeps { difficult: true, cut: true, classes: false, ..boxes },
            Self::Yolo | Self::Csv => boxes,
            Self::YoloSeg => Keeps { masks: true, box_of_mask: false, ..boxes },
            Self::Via | Self::Labelme => Keeps { ids: false, box_of_mask: false, ..all },
            Self::Openimages => Keeps { crowds: true, cut: true, empty_images: false, ..boxes },
        }
    }

    /// Folder of a split's images in the data set's folder.
    fn image_folder(self, split: &str) -> String {
        match self {
            Self::Voc => "JPEGImages".to_owned(),
            Self::Labelme => split.to_owned(),
            _ => format!("images/{split}"),
        }
    }

    fn write(self, parts: &[Part<'_>], out: &Path) -> Result<(), DataError> {
        match self {
            Self::Coco => coco::write(parts, out),
            Self::Voc => voc::write(parts, out),
            Self::Yolo | Self::YoloSeg => yolo::write(parts, out),
            Self::Csv => csv::write(parts, out),
            Self::Via => via::write(parts, out),
            Self::Labelme => labelme::write(parts, out),
            Self::Openimages => openimages::write(parts, out),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// No format has that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no format {0:?}; the formats are coco, voc, yolo, yolo-seg, csv, via, labelme, openimages")]
pub struct UnknownFormat(String);

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        let wanted = text.to_ascii_lowercase();
        Self::ALL.into_iter().find(|format| format.name() == wanted).ok_or_else(|| UnknownFormat(text.to_owned()))
    }
}

/// How a data set is written.
#[derive(Clone, Copy, Debug)]
pub struct ConvertSettings {
    pub images: Images,
    /// Write into a folder that holds something already: files of the same name are replaced, others stay.
    pub overwrite: bool,
}

/// What was written, and what was left behind.
#[derive(Clone, Debug, Serialize)]
pub struct ConvertReport {
    pub format: Format,
    pub splits: Vec<String>,
    pub classes: usize,
    pub images: usize,
    /// Objects written, crowds included.
    pub objects: usize,
    /// Masks among them.
    pub masks: usize,
    /// Image files by what became of them.
    pub linked: usize,
    pub copied: usize,
    /// Pictures that had no file.
    pub drawn: usize,
    /// Image files that are not where the data set says.
    pub missing: usize,
    pub dropped: Vec<Dropped>,
}

/// Writes splits of one data set as `format` into the folder `out`, which is made. Splits with different classes are
/// given all classes of both.
///
/// # Errors
/// [`DataError::Invalid`] when the folder is not empty and may not be written over, or two splits have one name;
/// [`DataError::Write`]; [`DataError::Image`] when a drawn picture cannot be saved.
pub fn convert(
    splits: &[Dataset],
    format: Format,
    out: &Path,
    settings: ConvertSettings,
) -> Result<ConvertReport, DataError> {
    let invalid = |message: String| DataError::Invalid { path: out.to_path_buf(), message };
    if !settings.overwrite && fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(invalid("the folder is not empty; choose another, or allow writing over it".to_owned()));
    }
    let splits = with_same_classes(splits);
    let parts = part::parts(&splits, format);
    let mut names: BTreeSet<&str> = BTreeSet::new();
    for part in &parts {
        if !names.insert(&part.split) {
            return Err(invalid(format!("two splits are called {:?}; convert them one by one", part.split)));
        }
    }
    fs::create_dir_all(out).map_err(|source| DataError::Write {
        what: "the folder",
        path: out.to_path_buf(),
        source,
    })?;
    format.write(&parts, out)?;
    let placed = files::place_images(&parts, out, settings.images)?;
    let count = |of: fn(&Part<'_>) -> usize| parts.iter().map(of).sum::<usize>();
    Ok(ConvertReport {
        format,
        splits: parts.iter().map(|part| part.split.clone()).collect(),
        classes: parts.first().map_or(0, |part| part.dataset.classes.len()),
        images: count(|part| part.dataset.images.len()),
        objects: count(|part| part.dataset.images.iter().map(|image| part.objects(image).count()).sum()),
        masks: count(|part| {
            let masks = |image: &ImageEntry| part.objects(image).filter(|object| object.mask.is_some()).count();
            part.dataset.images.iter().map(masks).sum()
        }),
        linked: placed.linked,
        copied: placed.copied,
        drawn: placed.drawn,
        missing: placed.missing,
        dropped: losses::losses(&parts, format),
    })
}

/// The splits with one list of classes: the one that they share, or all names of all of them, sorted.
fn with_same_classes(splits: &[Dataset]) -> Cow<'_, [Dataset]> {
    let same = |a: &Dataset, b: &Dataset| a.classes == b.classes && a.category_ids == b.category_ids;
    if splits.windows(2).all(|pair| matches!(pair, [a, b] if same(a, b))) {
        return Cow::Borrowed(splits);
    }
    let names: BTreeSet<&String> = splits.iter().flat_map(|split| &split.classes).collect();
    let classes: Vec<String> = names.iter().map(|name| (*name).clone()).collect();
    let index_of: HashMap<&str, u32> = classes.iter().map(String::as_str).zip(0u32..).collect();
    let mut unified = splits.to_vec();
    for split in &mut unified {
        // A class that the split does not have stays one that nobody has.
        let new: Vec<u32> =
            split.classes.iter().map(|name| index_of.get(name.as_str()).copied().unwrap_or(u32::MAX)).collect();
        for object in split.images.iter_mut().flat_map(|image| &mut image.objects) {
            object.class = new.get(object.class as usize).copied().unwrap_or(u32::MAX);
        }
        split.category_ids = (1..=classes.len() as u64).collect();
        split.classes.clone_from(&classes);
    }
    Cow::Owned(unified)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Object;

    #[test]
    fn formats_have_names() {
        for format in Format::ALL {
            assert_eq!(format.to_string().to_uppercase().parse(), Ok(format));
            assert_eq!(serde_json::to_value(format).unwrap(), format.name());
        }
        let error = "pascal".parse::<Format>().unwrap_err().to_string();
        assert!(Format::ALL.iter().all(|format| error.contains(format.name())), "{error}");
    }

    #[test]
    fn splits_of_different_classes_get_them_all() {
        let split = |classes: [&str; 2]| Dataset {
            classes: classes.map(str::to_owned).to_vec(),
            category_ids: vec![1, 2],
            images: vec![ImageEntry {
                id: 1,
                name: "a".to_owned(),
                source: crate::data::Source::Shapes { seed: 1, index: 0 },
                width: 9,
                height: 9,
                objects: vec![Object { class: 1, ..Object::default() }, Object { class: 7, ..Object::default() }],
            }],
            ..Dataset::default()
        };
        let splits = [split(["dog", "ant"]), split(["dog", "cat"])];
        assert!(matches!(with_same_classes(&splits[..1]), Cow::Borrowed(_)));
        let unified = with_same_classes(&splits);
        assert_eq!(unified[0].classes, ["ant", "cat", "dog"]);
        let classes = |k: usize| unified[k].images[0].objects.iter().map(|o| o.class).collect::<Vec<u32>>();
        assert_eq!((classes(0), classes(1)), (vec![0, u32::MAX], vec![1, u32::MAX]));
    }
}
