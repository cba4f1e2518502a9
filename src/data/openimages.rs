//! OpenImages CSV: `ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,…,IsGroupOf,…`, corners as fractions.
//!
//! Class names and their order come from a `…class-descriptions….csv` beside it or one folder up, which lists
//! `LabelName,DisplayName`. `IsGroupOf` makes an object a crowd. The files know nothing of images without objects.

use super::class_names::ClassNames;
use super::coco::{MAX_JSON, Masks};
use super::coco_places::{dataset_name, folders_of_split, image_folder};
use super::csv::first_line;
use super::csv_text::{Record, Records};
use super::dataset::Dataset;
use super::error::DataError;
use super::gather::{Gathering, Listed, RawObject, Shape};
use super::paths::file_name;
use super::text::{MAX_TEXT_FILE, files_with, number, read_text};
use super::voc::EXTENSIONS;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// What an annotation file's name ends in, behind the split.
pub(super) const SUFFIX: &str = "-annotations-bbox";
/// What the class list's file name contains.
const DESCRIPTIONS: &str = "class-descriptions";

/// Places of the columns that are read.
struct Columns {
    image: usize,
    label: usize,
    /// XMin, YMin, XMax, YMax.
    corners: [usize; 4],
    group: Option<usize>,
    truncated: Option<usize>,
    occluded: Option<usize>,
}

impl Columns {
    fn of(header: &Record<'_>) -> Option<Self> {
        let column = |name: &str| header.fields.iter().position(|field| &**field == name);
        Some(Self {
            image: column("ImageID")?,
            label: column("LabelName")?,
            corners: [column("XMin")?, column("YMin")?, column("XMax")?, column("YMax")?],
            group: column("IsGroupOf"),
            truncated: column("IsTruncated"),
            occluded: column("IsOccluded"),
        })
    }
}

/// Whether the first line is the header of a box file.
pub(super) fn looks_like_openimages(path: &Path) -> bool {
    let Some(line) = first_line(path) else { return false };
    Records::new(&line).next().and_then(Result::ok).is_some_and(|record| Columns::of(&record).is_some())
}

/// The split that a file name tells: `oidv6-train-annotations-bbox.csv` is `train`.
pub(super) fn split_of(path: &Path) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let split = stem.split_once(SUFFIX).map_or(stem.as_str(), |(split, _)| split);
    let split = split.strip_prefix("oidv6-").unwrap_or(split);
    if split.is_empty() { "all".to_owned() } else { split.to_owned() }
}

/// Reads a box file. The images, `ImageID` with a picture's ending, are looked for in the usual places around it.
///
/// # Errors
/// [`DataError::Read`]; [`DataError::Invalid`] for another header; [`DataError::Empty`].
pub(super) fn read(path: &Path) -> Result<Dataset, DataError> {
    let text = read_text(path, "the OpenImages file", MAX_JSON)?;
    let file = file_name(path);
    let mut records = Records::new(&text);
    let header = records.next().and_then(Result::ok);
    let Some(columns) = header.as_ref().and_then(Columns::of) else {
        let message = "the columns ImageID, LabelName, XMin, XMax, YMin and YMax are not all there".to_owned();
        return Err(DataError::Invalid { path: path.to_path_buf(), message });
    };
    let (classes, name_of) = descriptions(path)?;
    let mut gathering = Gathering::new("line", classes, Masks::Skip);
    let mut index_of: HashMap<String, usize> = HashMap::new();
    let mut images: Vec<(String, Vec<RawObject>)> = Vec::new();
    for record in records {
        let record = match record {
            Ok(record) => record,
            Err(fault) => {
                gathering.remark_at("broken-line", &file, fault.line, fault.message);
                continue;
            }
        };
        let (id, label) = (record.field(columns.image), record.field(columns.label));
        if id.is_empty() {
            gathering.remark_at("broken-line", &file, record.line, "names no image");
            continue;
        }
        let index = match index_of.get(id) {
            Some(&index) => index,
            None => {
                index_of.insert(id.to_owned(), images.len());
                images.push((id.to_owned(), Vec::new()));
                images.len() - 1
            }
        };
        let [Some(x0), Some(y0), Some(x1), Some(y1)] = columns.corners.map(|column| number(record.field(column)))
        else {
            gathering.remark_at("broken-box", &file, record.line, "has a box without its four numbers");
            continue;
        };
        let name = name_of.get(label).map_or(label, String::as_str);
        let Some(class) = gathering.classes.number(name) else {
            gathering.remark_at("unknown-class", &file, record.line, "has a box without a class");
            continue;
        };
        let flag = |column: Option<usize>| column.is_some_and(|column| record.field(column) == "1");
        let (crowd, truncated, occluded) = (flag(columns.group), flag(columns.truncated), flag(columns.occluded));
        let shape = Shape::Fractions([x0, y0, x1, y1]);
        if let Some((_, objects)) = images.get_mut(index) {
            objects.push(RawObject { class, shape, crowd, difficult: false, truncated, occluded, at: record.line });
        }
    }
    let folders = folders_of_split(path, &split_of(path));
    let probed: Vec<String> = images
        .iter()
        .take(1)
        .flat_map(|(id, _)| EXTENSIONS.iter().map(move |extension| format!("{id}.{extension}")))
        .collect();
    let folder = image_folder(&folders, probed.iter().map(String::as_str)).unwrap_or_else(|| {
        gathering.no_images_in(&folders, &file);
        folders.first().cloned().unwrap_or_default()
    });
    for (id, objects) in images {
        let usual = format!("{id}.{}", EXTENSIONS[0]);
        let Some(first) = gathering.inside(&folder, &usual, &file) else { continue };
        let path = existing(&first).unwrap_or(first);
        let extension = path.extension().map(|e| e.to_string_lossy().into_owned()).unwrap_or_default();
        let name = format!("{id}.{extension}");
        gathering.images.push(Listed { name, path, width: 0, height: 0, objects, file: file.clone() });
    }
    gathering.finish(dataset_name(path), split_of(path), path)
}

/// `usual`, or the same with another picture's ending, whichever is there.
fn existing(usual: &Path) -> Option<PathBuf> {
    EXTENSIONS.iter().map(|extension| usual.with_extension(extension)).find(|path| path.is_file())
}

/// Classes in the order of the description file, and the display name of each label; nothing where there is no file.
fn descriptions(path: &Path) -> Result<(ClassNames, HashMap<String, String>), DataError> {
    let beside = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut found = files_with(beside, "csv");
    found.extend(files_with(&beside.join(".."), "csv"));
    let Some(file) = found.into_iter().find(|file| file_name(file).contains(DESCRIPTIONS)) else {
        return Ok((ClassNames::default(), HashMap::new()));
    };
    let text = read_text(&file, "the class descriptions", MAX_TEXT_FILE)?;
    let mut name_of = HashMap::new();
    let mut names = Vec::new();
    for record in Records::new(&text).flatten() {
        if let [label, name] = record.fields.as_slice()
            && !name.is_empty()
            && &**label != "LabelName"
        {
            names.push(name.to_string());
            name_of.entry(label.to_string()).or_insert_with(|| name.to_string());
        }
    }
    Ok((ClassNames::listed(names), name_of))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_name_tells_the_split() {
        let cases = [
            ("a/oidv6-train-annotations-bbox.csv", "train"),
            ("validation-annotations-bbox.csv", "validation"),
            ("-annotations-bbox.csv", "all"),
            ("mine.csv", "mine"),
        ];
        for (path, split) in cases {
            assert_eq!(split_of(Path::new(path)), split);
        }
    }
}
