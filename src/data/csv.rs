//! CSV files with a box a line: `filename,width,height,class,xmin,ymin,xmax,ymax`, the headerless
//! `path,x1,y1,x2,y2,class`, and others by a mapping of columns.
//!
//! Corners are continuous pixels, taken as they stand. A line without a box is an image without objects. A file
//! `classes.csv` beside it (`name,number`) gives the order of the classes.

use super::class_names::ClassNames;
use super::coco::{MAX_JSON, Masks};
use super::coco_places::{dataset_name, folders_around, image_folder, split_of};
use super::csv_columns::{CsvColumns, Field, Layout};
use super::csv_text::{Record, Records};
use super::dataset::Dataset;
use super::error::DataError;
use super::gather::{Gathering, Listed, RawObject, Shape};
use super::paths::file_name;
use super::text::{MAX_TEXT_FILE, pixels, read_text};
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Name of the file with the order of the classes.
pub(super) const CLASS_FILE: &str = "classes.csv";
/// The class of boxes in files that have no such column.
const ONLY_CLASS: &str = "object";
/// Bytes of a file in which its first record must end.
const PEEKED: u64 = 1 << 16;

/// The first record of a file, as owned text; none when it has none.
pub(super) fn first_line(path: &Path) -> Option<String> {
    let mut start = Vec::new();
    File::open(path).ok()?.take(PEEKED).read_to_end(&mut start).ok()?;
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&start);
    let text = String::from_utf8_lossy(start);
    text.lines().find(|line| !line.trim().is_empty()).map(str::to_owned)
}

/// Whether the first record is a known header or of the known form without one.
pub(super) fn looks_like_csv(path: &Path) -> bool {
    let Some(line) = first_line(path) else { return false };
    let first = Records::new(&line).next();
    first.and_then(Result::ok).is_some_and(|record| Layout::of(&record, None).is_ok_and(|layout| layout.is_some()))
}

/// Reads a CSV file. Its images are looked for in the usual places around it.
///
/// # Errors
/// [`DataError::Read`]; [`DataError::Invalid`] when the columns are neither known nor told; [`DataError::Empty`].
pub(super) fn read(path: &Path, columns: Option<&CsvColumns>) -> Result<Dataset, DataError> {
    let text = read_text(path, "the CSV file", MAX_JSON)?;
    let file = file_name(path);
    let invalid = |message: String| DataError::Invalid { path: path.to_path_buf(), message };
    let mut gathering = Gathering::new("line", listed_classes(path)?, Masks::Skip);
    let mut records = Records::new(&text).peekable();
    let layout = match records.peek() {
        None => return Err(DataError::Empty { path: path.to_path_buf(), message: "no line in it".to_owned() }),
        Some(Err(fault)) => return Err(invalid(format!("line {} {}", fault.line, fault.message))),
        Some(Ok(first)) => Layout::of(first, columns).map_err(invalid)?.ok_or_else(|| {
            let message = "the columns are not known; say which is which (columns path=0,x0=1,y0=2,x1=3,y1=4,class=5)";
            invalid(message.to_owned())
        })?,
    };
    if layout.header {
        records.next();
    }
    let folders = folders_around(path);
    let mut index_of: HashMap<String, usize> = HashMap::new();
    let mut images: Vec<(String, Listed)> = Vec::new();
    for record in records {
        let record = match record {
            Ok(record) => record,
            Err(fault) => {
                gathering.remark_at("broken-line", &file, fault.line, fault.message);
                continue;
            }
        };
        let name = relative(layout.text(&record, Field::Path), folders.first());
        if name.is_empty() {
            gathering.remark_at("broken-line", &file, record.line, "names no image");
            continue;
        }
        let index = match index_of.get(name) {
            Some(&index) => index,
            None => {
                index_of.insert(name.to_owned(), images.len());
                images.push((name.to_owned(), listed(&record, &layout, &file)));
                images.len() - 1
            }
        };
        match object(&record, &layout, &mut gathering.classes) {
            Ok(None) => {}
            Ok(Some(object)) => {
                if let Some((_, image)) = images.get_mut(index) {
                    image.objects.push(object);
                }
            }
            Err((rule, message)) => gathering.remark_at(rule, &file, record.line, message),
        }
    }
    let folder = image_folder(&folders, images.iter().map(|(name, _)| name.as_str())).unwrap_or_else(|| {
        gathering.no_images_in(&folders, &file);
        folders.first().cloned().unwrap_or_default()
    });
    for (name, mut image) in images {
        if let Some(path) = gathering.inside(&folder, &name, &file) {
            (image.name, image.path) = (name, path);
            gathering.images.push(image);
        }
    }
    gathering.finish(dataset_name(path), split_of(path), path)
}

/// Names from the class file beside `path`, by their numbers.
fn listed_classes(path: &Path) -> Result<ClassNames, DataError> {
    let file = path.with_file_name(CLASS_FILE);
    if !file.is_file() {
        return Ok(ClassNames::default());
    }
    let text = read_text(&file, "the list of classes", MAX_TEXT_FILE)?;
    let mut names: Vec<(u64, String)> = Vec::new();
    for record in Records::new(&text).flatten() {
        // A header or a stray line has no number.
        if let ([name, number], false) = (record.fields.as_slice(), record.field(0).is_empty())
            && let Ok(number) = number.parse::<u64>()
        {
            names.push((number, name.to_string()));
        }
    }
    names.sort();
    Ok(ClassNames::listed(names.into_iter().map(|(_, name)| name)))
}

/// The image of a record, still without objects and path.
fn listed(record: &Record<'_>, layout: &Layout, file: &str) -> Listed {
    Listed {
        name: String::new(),
        path: PathBuf::new(),
        width: pixels(layout.text(record, Field::Width)),
        height: pixels(layout.text(record, Field::Height)),
        objects: Vec::new(),
        file: file.to_owned(),
    }
}

/// The object of a record, or the rule that it breaks and how.
fn object(
    record: &Record<'_>,
    layout: &Layout,
    classes: &mut ClassNames,
) -> Result<Option<RawObject>, (&'static str, &'static str)> {
    let Some(corners) = layout.corners(record).map_err(|fault| ("broken-box", fault))? else {
        return Ok(None);
    };
    let name = if layout.has(Field::Class) { layout.text(record, Field::Class) } else { ONLY_CLASS };
    let class = classes.number(name).ok_or(("unknown-class", "has a box without a class"))?;
    let shape = Shape::Corners(corners);
    Ok(Some(RawObject {
        class,
        shape,
        crowd: false,
        difficult: false,
        truncated: false,
        occluded: false,
        at: record.line,
    }))
}

/// `name` as counted from the file's own folder when it is written as an absolute path that leads there; else as it is.
fn relative<'n>(name: &'n str, beside: Option<&PathBuf>) -> &'n str {
    let rest = beside.and_then(|folder| Path::new(name).strip_prefix(folder).ok()).and_then(Path::to_str);
    rest.unwrap_or(name)
}
