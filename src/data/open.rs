//! Opens a data set by what is in it: the built-in Shapes, VOC, COCO, a folder of pictures, a picture.

use super::coco::read_coco;
use super::coco_places::split_of;
use super::dataset::Dataset;
use super::error::DataError;
use super::folder::{has_images, read_folder, read_image};
use super::shapes::{ShapesSpec, Split, shapes};
use super::voc::{read_voc, voc_root, voc_splits};
use crate::imaging;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// The split of a data set that has no splits.
const ALL: &str = "all";
/// What recognition tries, for error messages.
const LOOKED_FOR: &str = "shapes[:train=N,seed=N], a VOC folder (Annotations/*.xml, JPEGImages), \
                          a COCO file or folder (annotations/*.json), a picture, a folder of pictures";
/// Bytes of a JSON file that are searched for a COCO list's name.
const PEEKED: u64 = 1 << 20;

/// What a path or name was recognised as.
enum Kind {
    Shapes(ShapesSpec),
    /// The folder that holds `Annotations`.
    Voc(PathBuf),
    /// Annotation files, one a split, sorted.
    Coco(Vec<PathBuf>),
    Image(PathBuf),
    Folder(PathBuf),
}

/// Opens a split of a data set. Without a split: all of a VOC folder, the training part of Shapes and of a COCO folder
/// (its first file where none is named so), and everything of what has no splits. A COCO split may be asked for without
/// its year: `train` finds `train2017`.
///
/// # Errors
/// [`DataError::Unrecognised`] says what was looked for, [`DataError::NoSplit`] which splits there are,
/// [`DataError::Empty`] that there is nothing in it; else the reader's errors.
pub fn open(path_or_name: &str, split: Option<&str>) -> Result<Dataset, DataError> {
    let kind = recognise(path_or_name)?;
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
        Kind::Coco(files) => {
            let file = match split {
                Some(wanted) => chosen(files, wanted).ok_or_else(|| no_split(wanted, &kind))?,
                None => chosen(files, "train").or(files.first()).ok_or_else(|| no_split("train", &kind))?,
            };
            read_coco(file, None)
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
    recognise(path_or_name).map(|kind| split_names(&kind)).unwrap_or_default()
}

/// The split that training uses unless told otherwise: the one called train, with or without a year. None when there is
/// none, for the data set's own choice.
pub fn training_split(path_or_name: &str) -> Option<String> {
    let names = splits(path_or_name);
    let is_train =
        |name: &&String| name.strip_prefix("train").is_some_and(|year| year.chars().all(|c| c.is_ascii_digit()));
    names.iter().find(is_train).cloned()
}

fn split_names(kind: &Kind) -> Vec<String> {
    match kind {
        Kind::Shapes(_) => Split::ALL.iter().map(|split| split.name().to_owned()).collect(),
        Kind::Voc(root) => voc_splits(root),
        Kind::Coco(files) => files.iter().map(|file| split_of(file)).collect(),
        Kind::Image(_) | Kind::Folder(_) => vec![ALL.to_owned()],
    }
}

/// The file of a split: of exactly that name, or else the only one that is that name and a year.
fn chosen<'a>(files: &'a [PathBuf], wanted: &str) -> Option<&'a PathBuf> {
    if let Some(exact) = files.iter().find(|file| split_of(file) == wanted) {
        return Some(exact);
    }
    let dated = |file: &PathBuf| {
        let split = split_of(file);
        let year = split.strip_prefix(wanted).unwrap_or_default();
        !year.is_empty() && year.chars().all(|c| c.is_ascii_digit())
    };
    let mut matching = files.iter().filter(|file| dated(file));
    match (matching.next(), matching.next()) {
        (Some(only), None) => Some(only),
        _ => None,
    }
}

fn recognise(path_or_name: &str) -> Result<Kind, DataError> {
    if path_or_name == "shapes" || path_or_name.starts_with("shapes:") {
        return Ok(Kind::Shapes(ShapesSpec::parse(path_or_name)?));
    }
    let path = PathBuf::from(path_or_name);
    let metadata = match fs::metadata(&path) {
        Ok(metadata) => metadata,
        Err(source) => {
            return Err(DataError::Read { what: "the data set", path, source });
        }
    };
    if metadata.is_dir() { recognise_folder(path) } else { recognise_file(path) }
}

fn recognise_file(path: PathBuf) -> Result<Kind, DataError> {
    if looks_like_coco(&path) {
        return Ok(Kind::Coco(vec![path]));
    }
    match imaging::size_of(&path) {
        Ok(_) => Ok(Kind::Image(path)),
        // Named like a picture: what is wrong with it says more than what was looked for.
        Err(error) if imaging::is_image_path(&path) => Err(DataError::Image(error)),
        Err(_) => Err(DataError::Unrecognised { path, looked_for: LOOKED_FOR.to_owned() }),
    }
}

fn recognise_folder(path: PathBuf) -> Result<Kind, DataError> {
    let failed = |source: std::io::Error| DataError::Read { what: "the folder", path: path.clone(), source };
    if fs::read_dir(&path).map_err(failed)?.next().is_none() {
        let message = format!("the folder has no files; looked for {LOOKED_FOR}");
        return Err(DataError::Empty { path, message });
    }
    if let Some(root) = voc_root(&path) {
        return Ok(Kind::Voc(root));
    }
    for folder in [path.join("annotations"), path.clone()] {
        let files = coco_files(&folder);
        if !files.is_empty() {
            return Ok(Kind::Coco(files));
        }
    }
    if has_images(&path) {
        return Ok(Kind::Folder(path));
    }
    Err(DataError::Unrecognised { path, looked_for: LOOKED_FOR.to_owned() })
}

/// COCO files of a folder, sorted: those named `instances…` where there are such, for captions and keypoints lie beside
/// them.
fn coco_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")))
        .filter(|path| looks_like_coco(path))
        .collect();
    let is_instances = |path: &PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("instances"));
    if files.iter().any(is_instances) {
        files.retain(is_instances);
    }
    files.sort();
    files
}

/// A JSON object that names one of COCO's lists near its start.
fn looks_like_coco(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let mut start = Vec::new();
    if file.take(64).read_to_end(&mut start).is_err() {
        return false;
    }
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&start);
    if text.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return false;
    }
    let mut start = Vec::new();
    if File::open(path).and_then(|file| file.take(PEEKED).read_to_end(&mut start)).is_err() {
        return false;
    }
    let named = |key: &[u8]| start.windows(key.len()).any(|window| window == key);
    named(b"\"images\"") || named(b"\"annotations\"") || named(b"\"categories\"")
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
        assert_eq!(chosen(&files, "val"), Some(&files[2]));
        assert_eq!(chosen(&files, "train2017"), Some(&files[1]));
        assert_eq!(chosen(&files, "train"), None, "two years: ambiguous");
        assert_eq!(chosen(&files, "va"), None);
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
