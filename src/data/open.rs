//! Opens a data set by what is in it: the built-in Shapes, VOC, COCO, YOLO, LabelMe, VIA, OpenImages, CSV, a folder of
//! pictures, a picture.

use super::coco::{MASK_LIMIT, Masks, read_coco_with};
use super::coco_places::split_of;
use super::csv_columns::CsvColumns;
use super::dataset::Dataset;
use super::error::DataError;
use super::folder::{has_images, read_folder, read_image};
use super::shapes::{ShapesSpec, Split, shapes};
use super::text::{files_with, has_extension};
use super::voc::{read_voc, voc_root, voc_splits};
use super::yolo::{self, YoloSet};
use super::{csv, labelme, openimages, via};
use crate::imaging;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// The split of a data set that has no splits.
const ALL: &str = "all";
/// What recognition tries, for error messages.
const LOOKED_FOR: &str = "shapes[:train=N,seed=N], a VOC folder (Annotations/*.xml, JPEGImages), \
                          a COCO file or folder (annotations/*.json), a YOLO folder (data.yaml, images, labels), \
                          LabelMe or VIA JSON, a CSV file with known columns, a picture, a folder of pictures";
/// Bytes of a JSON file that are searched for the names of its lists.
const PEEKED: u64 = 1 << 20;

/// What the files do not tell, and how much of them is wanted.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Which column of a CSV file says what.
    pub columns: Option<CsvColumns>,
    /// The region attribute of a VIA file that holds the class.
    pub class_attribute: Option<String>,
    pub masks: Masks,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { columns: None, class_attribute: None, masks: Masks::UpTo(MASK_LIMIT) }
    }
}

/// What a path or name was recognised as.
enum Kind {
    Shapes(ShapesSpec),
    /// The folder that holds `Annotations`.
    Voc(PathBuf),
    /// Annotation files, one a split, sorted.
    Files(FileKind, Vec<PathBuf>),
    Yolo(Box<YoloSet>),
    /// The data set's folder, and the folder of each split.
    LabelMe(PathBuf, Vec<(String, PathBuf)>),
    Image(PathBuf),
    Folder(PathBuf),
}

/// Formats that have one annotation file a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileKind {
    Coco,
    Via,
    OpenImages,
    Csv,
}

impl FileKind {
    fn split_of(self, file: &Path) -> String {
        if self == Self::OpenImages { openimages::split_of(file) } else { split_of(file) }
    }

    fn read(self, file: &Path, options: &OpenOptions) -> Result<Dataset, DataError> {
        match self {
            Self::Coco => read_coco_with(file, None, options.masks),
            Self::Via => via::read(file, options.class_attribute.as_deref(), options.masks),
            Self::OpenImages => openimages::read(file),
            Self::Csv => csv::read(file, options.columns.as_ref()),
        }
    }
}

/// Opens a split of a data set. Without a split: all of a VOC folder; the training part of other sets (their first
/// split where none is named so); and everything of what has no splits. The split of an annotation file may be asked for
/// without its year: `train` finds `train2017`.
///
/// # Errors
/// [`DataError::Unrecognised`] says what was looked for, [`DataError::NoSplit`] which splits there are,
/// [`DataError::Empty`] that there is nothing in it; else the reader's errors.
pub fn open(path_or_name: &str, split: Option<&str>) -> Result<Dataset, DataError> {
    open_with(path_or_name, split, &OpenOptions::default())
}

/// [`open`] for files that need explaining.
///
/// # Errors
/// Those of [`open`].
pub fn open_with(path_or_name: &str, split: Option<&str>, options: &OpenOptions) -> Result<Dataset, DataError> {
    let kind = recognise(path_or_name, options)?;
    let no_split = |wanted: &str, kind: &Kind| DataError::NoSplit {
        wanted: wanted.to_owned(),
        have: split_names(kind),
        data: path_or_name.to_owned(),
    };
    match &kind {
        Kind::Shapes(spec) => {
            let name = split.unwrap_or(Split::Train.name());
            let split = Split::named(name).ok_or_else(|| no_split(name, &kind))?;
            if spec.count(split) == 0 {
                return Err(DataError::Shapes { message: format!("the split {name} was asked for with 0 pictures") });
            }
            Ok(shapes(spec, split))
        }
        Kind::Voc(root) => read_voc(root, split, None),
        Kind::Files(format, files) => {
            let file = match split {
                Some(wanted) => chosen(*format, files, wanted).ok_or_else(|| no_split(wanted, &kind))?,
                None => chosen(*format, files, "train").or(files.first()).ok_or_else(|| no_split("train", &kind))?,
            };
            format.read(file, options)
        }
        Kind::Yolo(set) => {
            let names = set.splits();
            let wanted = split.unwrap_or_else(|| first_choice(&names));
            yolo::read(set, wanted, options.masks)
        }
        Kind::LabelMe(root, splits) => {
            let names = split_names(&kind);
            let wanted = split.unwrap_or_else(|| first_choice(&names));
            let found = splits.iter().find(|(name, _)| name == wanted);
            let (name, folder) = found.ok_or_else(|| no_split(wanted, &kind))?;
            labelme::read(root, name, folder, options.masks)
        }
        Kind::Image(path) => match split {
            Some(wanted) if wanted != ALL => Err(no_split(wanted, &kind)),
            _ => read_image(path),
        },
        Kind::Folder(path) => match split {
            Some(wanted) if wanted != ALL => Err(no_split(wanted, &kind)),
            _ => read_folder(path),
        },
    }
}

/// Names of the splits that [`open`] takes for this path or name; none when it is not recognised.
pub fn splits(path_or_name: &str) -> Vec<String> {
    recognise(path_or_name, &OpenOptions::default()).map(|kind| split_names(&kind)).unwrap_or_default()
}

/// The split that training uses unless told otherwise: the one called train, with or without a year. None when there is
/// none, for the data set's own choice.
pub fn training_split(path_or_name: &str) -> Option<String> {
    training_split_among(&splits(path_or_name)).cloned()
}

/// The one of these splits that is called train, with or without a year.
pub fn training_split_among(names: &[String]) -> Option<&String> {
    let is_train =
        |name: &&String| name.strip_prefix("train").is_some_and(|year| year.chars().all(|c| c.is_ascii_digit()));
    names.iter().find(is_train)
}

/// Every split that can be read, where no image is in two of them: `all` and `trainval` only when there are no others.
///
/// # Errors
/// Those of [`open`] before anything is read.
pub fn separate_splits(path_or_name: &str, options: &OpenOptions) -> Result<Vec<String>, DataError> {
    let kind = recognise(path_or_name, options)?;
    let mut names = split_names(&kind);
    match &kind {
        Kind::Shapes(spec) => names.retain(|name| Split::named(name).is_some_and(|split| spec.count(split) > 0)),
        // A small set is often its own validation.
        Kind::Yolo(set) => names.retain(|name| !set.repeats_another(name)),
        _ => {}
    }
    let overlapping = |name: &String| name == ALL || name == "trainval";
    if !names.iter().all(overlapping) {
        names.retain(|name| !overlapping(name));
    }
    Ok(names)
}

fn first_choice(names: &[String]) -> &str {
    names.iter().find(|name| *name == "train").or(names.first()).map_or(ALL, String::as_str)
}

fn split_names(kind: &Kind) -> Vec<String> {
    match kind {
        Kind::Shapes(_) => Split::ALL.iter().map(|split| split.name().to_owned()).collect(),
        Kind::Voc(root) => voc_splits(root),
        Kind::Files(format, files) => files.iter().map(|file| format.split_of(file)).collect(),
        Kind::Yolo(set) => set.splits(),
        Kind::LabelMe(_, splits) => splits.iter().map(|(name, _)| name.clone()).collect(),
        Kind::Image(_) | Kind::Folder(_) => vec![ALL.to_owned()],
    }
}

/// The file of a split: of exactly that name, or else the only one that is that name and a year.
fn chosen<'a>(format: FileKind, files: &'a [PathBuf], wanted: &str) -> Option<&'a PathBuf> {
    if let Some(exact) = files.iter().find(|file| format.split_of(file) == wanted) {
        return Some(exact);
    }
    let dated = |file: &PathBuf| {
        let split = format.split_of(file);
        let year = split.strip_prefix(wanted).unwrap_or_default();
        !year.is_empty() && year.chars().all(|c| c.is_ascii_digit())
    };
    let mut matching = files.iter().filter(|file| dated(file));
    match (matching.next(), matching.next()) {
        (Some(only), None) => Some(only),
        _ => None,
    }
}

/// Whether it names the built-in set rather than a place.
pub fn is_built_in(path_or_name: &str) -> bool {
    path_or_name == "shapes" || path_or_name.starts_with("shapes:")
}

fn recognise(path_or_name: &str, options: &OpenOptions) -> Result<Kind, DataError> {
    if is_built_in(path_or_name) {
        return Ok(Kind::Shapes(ShapesSpec::parse(path_or_name)?));
    }
    let path = PathBuf::from(path_or_name);
    let metadata = match fs::metadata(&path) {
        Ok(metadata) => metadata,
        Err(source) => {
            return Err(DataError::Read { what: "the data set", path, source });
        }
    };
    if metadata.is_dir() { recognise_folder(path, options) } else { recognise_file(path, options) }
}

fn recognise_file(path: PathBuf, options: &OpenOptions) -> Result<Kind, DataError> {
    match json_kind(&path) {
        Some(JsonKind::Coco) => return Ok(Kind::Files(FileKind::Coco, vec![path])),
        Some(JsonKind::Via) => return Ok(Kind::Files(FileKind::Via, vec![path])),
        // One annotation of a folder of them.
        Some(JsonKind::LabelMe) => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let splits = vec![(ALL.to_owned(), folder.to_path_buf())];
            return Ok(Kind::LabelMe(folder.to_path_buf(), splits));
        }
        None => {}
    }
    if let Some(kind) = csv_kind(&path, options) {
        return Ok(Kind::Files(kind, vec![path]));
    }
    if let Some(set) = yolo::recognise(&path)? {
        return Ok(Kind::Yolo(Box::new(set)));
    }
    match imaging::size_of(&path) {
        Ok(_) => Ok(Kind::Image(path)),
        // Named like a picture: what is wrong with it says more than what was looked for.
        Err(error) if imaging::is_image_path(&path) => Err(DataError::Image(error)),
        Err(_) => Err(DataError::Unrecognised { path, looked_for: LOOKED_FOR.to_owned() }),
    }
}

fn recognise_folder(path: PathBuf, options: &OpenOptions) -> Result<Kind, DataError> {
    let failed = |source: std::io::Error| DataError::Read { what: "the folder", path: path.clone(), source };
    if fs::read_dir(&path).map_err(failed)?.next().is_none() {
        let message = format!("the folder has no files; looked for {LOOKED_FOR}");
        return Err(DataError::Empty { path, message });
    }
    if let Some(root) = voc_root(&path) {
        return Ok(Kind::Voc(root));
    }
    let is_labelme = |file: &Path| json_kind(file) == Some(JsonKind::LabelMe);
    // Before every JSON file is looked into: there can be one for each image.
    if labelme::holds(&path, is_labelme) {
        let splits = vec![(ALL.to_owned(), path.clone())];
        return Ok(Kind::LabelMe(path, splits));
    }
    for folder in [path.join("annotations"), path.clone()] {
        for (kind, format) in [(JsonKind::Coco, FileKind::Coco), (JsonKind::Via, FileKind::Via)] {
            let files = json_files(&folder, kind);
            if !files.is_empty() {
                return Ok(Kind::Files(format, files));
            }
        }
    }
    if let Some(set) = yolo::recognise(&path)? {
        return Ok(Kind::Yolo(Box::new(set)));
    }
    let splits = labelme::splits(&path, is_labelme);
    if !splits.is_empty() {
        return Ok(Kind::LabelMe(path, splits));
    }
    for folder in [path.join("annotations"), path.clone()] {
        let tables = files_with(&folder, "csv");
        for format in [FileKind::OpenImages, FileKind::Csv] {
            let fits = |file: &&PathBuf| csv_kind(file, options) == Some(format);
            let files: Vec<PathBuf> = tables.iter().filter(fits).cloned().collect();
            if !files.is_empty() {
                return Ok(Kind::Files(format, files));
            }
        }
    }
    if has_images(&path) {
        return Ok(Kind::Folder(path));
    }
    Err(DataError::Unrecognised { path, looked_for: LOOKED_FOR.to_owned() })
}

/// Files of a kind in a folder, sorted: those named `instances…` where there are such, for captions and keypoints lie
/// beside them.
fn json_files(folder: &Path, kind: JsonKind) -> Vec<PathBuf> {
    let mut files = files_with(folder, "json");
    files.retain(|path| json_kind(path) == Some(kind));
    let is_instances = |path: &PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("instances"));
    if files.iter().any(is_instances) {
        files.retain(is_instances);
    }
    files
}

/// Which format a table has; with a mapping of columns every table but a list of classes is one of boxes.
fn csv_kind(path: &Path, options: &OpenOptions) -> Option<FileKind> {
    if !["csv", "tsv", "txt"].iter().any(|extension| has_extension(path, extension)) {
        return None;
    }
    if openimages::looks_like_openimages(path) {
        return Some(FileKind::OpenImages);
    }
    let told = options.columns.is_some() && path.file_name().is_some_and(|name| name != csv::CLASS_FILE);
    (told || csv::looks_like_csv(path)).then_some(FileKind::Csv)
}

/// Which format a JSON file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JsonKind {
    Coco,
    Via,
    LabelMe,
}

/// A JSON object that names near its start what only one format has.
fn json_kind(path: &Path) -> Option<JsonKind> {
    if !fs::metadata(path).is_ok_and(|metadata| metadata.is_file()) {
        return None;
    }
    let mut file = File::open(path).ok()?;
    let mut start = Vec::new();
    file.by_ref().take(64).read_to_end(&mut start).ok()?;
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&start);
    if text.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return None;
    }
    file.take(PEEKED).read_to_end(&mut start).ok()?;
    let named = |key: &str| start.windows(key.len()).any(|window| window == key.as_bytes());
    if named("\"_via_") || (named("\"regions\"") && named("\"region_attributes\"")) {
        return Some(JsonKind::Via);
    }
    if named("\"shapes\"") && (named("\"imagePath\"") || named("\"shape_type\"")) {
        return Some(JsonKind::LabelMe);
    }
    let coco = named("\"images\"") || named("\"annotations\"") || named("\"categories\"");
    coco.then_some(JsonKind::Coco)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_is_found_with_and_without_its_year() {
        let files: Vec<PathBuf> = ["instances_train2014.json", "instances_train2017.json", "instances_val2017.json"]
            .iter()
            .map(PathBuf::from)
            .collect();
        assert_eq!(chosen(FileKind::Coco, &files, "val"), Some(&files[2]));
        assert_eq!(chosen(FileKind::Coco, &files, "train2017"), Some(&files[1]));
        assert_eq!(chosen(FileKind::Coco, &files, "train"), None, "two years: ambiguous");
        assert_eq!(chosen(FileKind::Coco, &files, "va"), None);
    }

    #[test]
    fn shapes_open_by_name_and_name_their_splits() {
        let set = open("shapes:val=3,size=64x48", Some("val")).unwrap();
        assert_eq!((set.images.len(), set.split.as_str(), set.classes.len()), (3, "val", 8));
        assert_eq!(splits("shapes"), ["train", "val", "test"]);
        let error = open("shapes", Some("validation")).unwrap_err().to_string();
        assert!(error.contains("\"validation\"") && error.contains("train, val, test"), "{error}");
        assert!(matches!(open("shapes:val=0", Some("val")), Err(DataError::Shapes { .. })));
        assert!(splits("no such path").is_empty());
        let error = open("no such path", None).unwrap_err().to_string();
        assert!(error.ends_with("no such path"), "{error}");
    }
}
