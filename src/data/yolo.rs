//! YOLO folders: `images/`, `labels/` with one text file an image, and `data.yaml` with class names and splits.
//!
//! A line is `class cx cy w h`, or `class x y x y …` for an outline, all but the class as fractions of width and height.
//! An image without a label file has no objects. Without a `data.yaml` the folders `images` and `labels` say it all, and
//! the names come from `classes.txt` if there is one.

use super::class_names::ClassNames;
use super::coco::Masks;
use super::dataset::{Dataset, Finding, Severity};
use super::error::DataError;
use super::folder::{has_images, pictures_below, relative_name};
use super::gather::{Gathering, Listed, RawObject, Shape};
use super::paths::{file_name, inside};
use super::text::{MAX_TEXT_FILE, files_with, has_extension, number, read_text};
use super::yolo_yaml::{self, YoloYaml};
use rayon::prelude::*;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders in folders of pictures that are looked into.
const DEPTH: usize = 8;
/// Largest list of images, bytes.
const MAX_LIST: u64 = 1 << 30;
/// Largest class number where there are no names.
const MAX_CLASS: u32 = 9_999;
/// Names of the file of class names in folders without `data.yaml`.
const NAME_FILES: [&str; 4] = ["classes.txt", "obj.names", "labels/classes.txt", "labels.txt"];

/// A data set that was recognised: where its splits are and what its classes are called.
#[derive(Clone, Debug)]
pub(super) struct YoloSet {
    root: PathBuf,
    /// None when nothing names the classes.
    names: Option<Vec<String>>,
    /// Folders of pictures, or text files that list pictures.
    splits: Vec<(String, Vec<PathBuf>)>,
    findings: Vec<Finding>,
}

impl YoloSet {
    pub(super) fn splits(&self) -> Vec<String> {
        self.splits.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Whether the split is made of the same folders as one before it.
    pub(super) fn repeats_another(&self, split: &str) -> bool {
        let Some(at) = self.splits.iter().position(|(name, _)| name == split) else {
            return false;
        };
        let places = |at: usize| self.splits.get(at).map(|(_, places)| places);
        (0..at).any(|before| places(before) == places(at))
    }
}

/// The data set that a folder or a `.yaml` file describes; none when it is no YOLO set.
///
/// # Errors
/// [`DataError::Invalid`] for a `data.yaml` that is not understood or names no folder that is here;
/// [`DataError::Read`].
pub(super) fn recognise(path: &Path) -> Result<Option<YoloSet>, DataError> {
    if path.is_file() {
        if !has_extension(path, "yaml") && !has_extension(path, "yml") {
            return Ok(None);
        }
        let yaml = read_yaml(path)?;
        return described(path, &yaml).map(Some);
    }
    for name in ["data.yaml", "dataset.yaml", "data.yml"] {
        let file = path.join(name);
        if file.is_file() {
            let yaml = read_yaml(&file)?;
            if !yaml.splits.is_empty() {
                return described(&file, &yaml).map(Some);
            }
        }
    }
    let mut others = files_with(path, "yaml");
    others.extend(files_with(path, "yml"));
    for file in others {
        // Other programs' settings lie about as YAML, too.
        if let Ok(yaml) = read_yaml(&file)
            && !yaml.splits.is_empty()
            && !yaml.names.is_empty()
        {
            return described(&file, &yaml).map(Some);
        }
    }
    let splits = undescribed(path);
    if splits.is_empty() {
        return Ok(None);
    }
    Ok(Some(YoloSet { root: path.to_path_buf(), names: names_beside(path)?, splits, findings: Vec::new() }))
}

fn read_yaml(file: &Path) -> Result<YoloYaml, DataError> {
    let text = read_text(file, "the data set's description", MAX_TEXT_FILE)?;
    yolo_yaml::parse(&text).map_err(|message| DataError::Invalid { path: file.to_path_buf(), message })
}

/// The set that a `data.yaml` describes. Its folders count from its own folder, or from `path:` when that lies inside.
fn described(file: &Path, yaml: &YoloYaml) -> Result<YoloSet, DataError> {
    let root = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf();
    let described_by = file_name(file);
    let mut findings = Vec::new();
    let mut bases = Vec::new();
    if let Some(path) = &yaml.path {
        match below(&root, path) {
            Some(base) if base.is_dir() => bases.push(base),
            _ if [".", "./", ""].contains(&path.as_str()) => {}
            _ => {
                let message = format!("path: {path} is not a folder inside this one; the splits are looked for here");
                findings.push(Finding::new(Severity::Info, "ignored-path", &described_by, message));
            }
        }
    }
    bases.push(root.clone());
    let mut splits: Vec<(String, Vec<PathBuf>)> = Vec::new();
    for (split, entries) in &yaml.splits {
        let mut places: Vec<PathBuf> = Vec::new();
        for entry in entries {
            // Some exporters count from a folder that they never made: ../train/images.
            let stripped = entry.trim_start_matches("../");
            let found = [entry.as_str(), stripped]
                .iter()
                .flat_map(|text| bases.iter().filter_map(move |base| below(base, text)))
                .find(|place| place.exists());
            match found {
                Some(place) => places.push(place),
                None if below(&root, stripped).is_none() => {
                    let message = format!("{split}: {entry:?} would leave the data set's folder; left out");
                    findings.push(Finding::new(Severity::Error, "path-escape", &described_by, message));
                }
                None => {
                    let message = format!("{split}: {entry:?} is not here; left out");
                    findings.push(Finding::new(Severity::Info, "missing-split", &described_by, message));
                }
            }
        }
        if !places.is_empty() {
            splits.push((split.clone(), places));
        }
    }
    if splits.is_empty() {
        splits = undescribed(&root);
    }
    if splits.is_empty() {
        let reasons: Vec<&str> = findings.iter().map(|finding| finding.message.as_str()).collect();
        let message = format!("none of the folders of train, val and test can be read ({})", reasons.join("; "));
        return Err(DataError::Invalid { path: file.to_path_buf(), message });
    }
    let names = (!yaml.names.is_empty()).then(|| yaml.names.clone());
    Ok(YoloSet { root, names, splits, findings })
}

/// `text` as a path inside `base`, also when it is written as an absolute path that leads there.
fn below(base: &Path, text: &str) -> Option<PathBuf> {
    if let Some(path) = inside(base, text) {
        return Some(path);
    }
    let absolute = fs::canonicalize(base).ok()?;
    let rest = Path::new(text).strip_prefix(&absolute).ok()?;
    inside(base, &rest.to_string_lossy())
}

/// Splits of a folder without a description: `images/train` and `labels/train`, `train/images` and `train/labels`, or
/// just `images` and `labels`.
fn undescribed(root: &Path) -> Vec<(String, Vec<PathBuf>)> {
    if root.join("images").is_dir() && has_labels(&root.join("labels")) {
        let images = root.join("images");
        let direct = pictures_below(&images, 0).is_ok_and(|pictures| !pictures.is_empty());
        let inner: Vec<PathBuf> = folders_in(&images).into_iter().filter(|folder| has_images(folder)).collect();
        if direct || inner.is_empty() {
            return vec![("all".to_owned(), vec![images])];
        }
        return inner.into_iter().map(|folder| (split_name(&folder), vec![folder])).collect();
    }
    folders_in(root)
        .into_iter()
        .filter(|folder| folder.join("images").is_dir() && has_labels(&folder.join("labels")))
        .map(|folder| (split_name(&folder), vec![folder.join("images")]))
        .collect()
}

fn split_name(folder: &Path) -> String {
    let name = file_name(folder);
    if name == "valid" { "val".to_owned() } else { name }
}

/// Folders directly in `folder`, sorted.
fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut folders: Vec<PathBuf> =
        entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

/// Whether there are text files in `folder` or directly below.
fn has_labels(folder: &Path) -> bool {
    folder.is_dir()
        && (!files_with(folder, "txt").is_empty()
            || folders_in(folder).iter().any(|inner| !files_with(inner, "txt").is_empty()))
}

fn names_beside(root: &Path) -> Result<Option<Vec<String>>, DataError> {
    for name in NAME_FILES {
        let file = root.join(name);
        if file.is_file() {
            let text = read_text(&file, "the list of class names", MAX_TEXT_FILE)?;
            let names: Vec<String> =
                text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect();
            if !names.is_empty() {
                return Ok(Some(names));
            }
        }
    }
    Ok(None)
}

/// What the label file of one image says.
#[derive(Default)]
struct Labels {
    objects: Vec<RawObject>,
    /// Lines that are left out: rule, line, what is wrong.
    faults: Vec<(&'static str, usize, String)>,
}

/// Reads one split.
///
/// # Errors
/// [`DataError::NoSplit`], [`DataError::Empty`], [`DataError::Read`] for a list or folder that cannot be read.
pub(super) fn read(set: &YoloSet, split: &str, masks: Masks) -> Result<Dataset, DataError> {
    let Some((_, places)) = set.splits.iter().find(|(name, _)| name == split) else {
        let data = set.root.display().to_string();
        return Err(DataError::NoSplit { wanted: split.to_owned(), have: set.splits(), data });
    };
    let name = file_name(&fs::canonicalize(&set.root).unwrap_or_else(|_| set.root.clone()));
    let mut gathering = Gathering::new("line", ClassNames::default(), masks);
    gathering.findings.extend(set.findings.clone());
    let mut images: Vec<(String, PathBuf)> = Vec::new();
    for place in places {
        if place.is_dir() {
            let pictures = pictures_below(place, DEPTH)?;
            images.extend(pictures.into_iter().map(|path| (relative_name(place, &path), path)));
        } else {
            images.extend(listed(&set.root, place, &mut gathering)?);
        }
    }
    let limit = set.names.as_ref().map_or(MAX_CLASS as usize + 1, Vec::len);
    let labels: Vec<Result<Labels, String>> = images
        .par_iter()
        .map(|(_, path)| {
            let label = label_of(&set.root, path);
            if !label.is_file() {
                return Ok(Labels::default());
            }
            let text = read_text(&label, "the label file", MAX_TEXT_FILE).map_err(|error| error.to_string())?;
            Ok(parse(&text, limit))
        })
        .collect();
    let mut highest = None;
    for ((name, path), labels) in images.into_iter().zip(labels) {
        let file = file_name(&label_of(&set.root, &path));
        let labels = match labels {
            Ok(labels) => labels,
            Err(error) => {
                let message = format!("the image is left out: {error}");
                gathering.remark(Severity::Error, "broken-annotation", &file, message);
                continue;
            }
        };
        for (rule, at, message) in labels.faults {
            gathering.remark_at(rule, &file, at, &message);
        }
        highest = highest.max(labels.objects.iter().map(|object| object.class).max());
        gathering.images.push(Listed { name, path, width: 0, height: 0, objects: labels.objects, file });
    }
    let names = match &set.names {
        Some(names) => names.clone(),
        None => (0..highest.map_or(0, |class| class + 1)).map(|class| format!("class {class}")).collect(),
    };
    gathering.classes = ClassNames::closed(names);
    gathering.finish(name, split.to_owned(), &set.root)
}

/// Images of a list file, each once: paths from the data set's folder, or from the list's own.
fn listed(root: &Path, list: &Path, gathering: &mut Gathering) -> Result<Vec<(String, PathBuf)>, DataError> {
    let text = read_text(list, "the list of images", MAX_LIST)?;
    let beside = list.parent().unwrap_or(root);
    let file = file_name(list);
    let mut seen: HashSet<&str> = HashSet::new();
    let mut images = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if !seen.insert(line) {
            continue;
        }
        let found = [root, beside].iter().filter_map(|base| below(base, line)).find(|path| path.is_file());
        if let Some(path) = found.or_else(|| gathering.inside(root, line, &file)) {
            images.push((relative_name(root, &path), path));
        }
    }
    Ok(images)
}

/// The label file of an image: the last folder `images` on its way becomes `labels`; beside it where there is none.
pub(super) fn label_of(root: &Path, image: &Path) -> PathBuf {
    let relative = image.strip_prefix(root).unwrap_or(image);
    let parts: Vec<&OsStr> = relative.iter().collect();
    let folders = parts.get(..parts.len().saturating_sub(1)).unwrap_or_default();
    let images = folders.iter().rposition(|part| *part == "images");
    let mut label = if relative == image { PathBuf::new() } else { root.to_path_buf() };
    for (at, part) in parts.iter().enumerate() {
        label.push(if Some(at) == images { OsStr::new("labels") } else { *part });
    }
    label.with_extension("txt")
}

/// Reads the text of a label file; classes from `limit` on are unknown.
fn parse(text: &str, limit: usize) -> Labels {
    let mut labels = Labels::default();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        match parse_line(line) {
            Ok((class, _)) if class as usize >= limit => {
                let fault = format!("has class {class}, and the classes are 0 to {}", limit.saturating_sub(1));
                labels.faults.push(("unknown-class", index + 1, fault));
            }
            Ok((class, shape)) => {
                labels.objects.push(RawObject {
                    class,
                    shape,
                    crowd: false,
                    difficult: false,
                    truncated: false,
                    occluded: false,
                    at: index + 1,
                });
            }
            Err(fault) => labels.faults.push(("broken-line", index + 1, fault.to_owned())),
        }
    }
    labels
}

fn parse_line(line: &str) -> Result<(u32, Shape), &'static str> {
    let mut words = line.split_whitespace();
    let class = words.next().and_then(number).filter(|n| *n >= 0.0 && *n <= f64::from(u32::MAX) && n.fract() == 0.0);
    let Some(class) = class else {
        return Err("does not begin with a class number");
    };
    let Some(numbers) = words.map(number).collect::<Option<Vec<f64>>>() else {
        return Err("has a word that is no number");
    };
    let shape = match numbers.as_slice() {
        [cx, cy, w, h] => Shape::Fractions([cx - w / 2.0, cy - h / 2.0, cx + w / 2.0, cy + h / 2.0]),
        [_, _, _, _, _] => return Err("has a fifth number behind its box, as predictions have"),
        corners if corners.len() >= 6 && corners.len() % 2 == 0 => Shape::FractionOutline(corners.to_vec()),
        _ => return Err("has neither the four numbers of a box nor the corners of an outline"),
    };
    Ok((class as u32, shape))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_boxes_or_outlines() {
        assert_eq!(parse_line("3 0.5 0.25 0.5 0.125"), Ok((3, Shape::Fractions([0.25, 0.1875, 0.75, 0.3125]))));
        assert_eq!(
            parse_line("0.0 0 0 1 0 1 1").unwrap().1,
            Shape::FractionOutline(vec![0.0, 0.0, 1.0, 0.0, 1.0, 1.0])
        );
        for line in ["dog 1 1 1 1", "-1 0 0 1 1", "0", "0 1 1 1", "0 .5 .5 .1 .1 .9", "0 0 0 1 0 1 1 0", "0 a b c d"] {
            assert!(parse_line(line).is_err(), "{line}");
        }
        let labels = parse("0 .5 .5 .1 .1\n\n7 .5 .5 .1 .1\n1 nan 0 0 0\n", 2);
        assert_eq!((labels.objects.len(), labels.objects[0].at), (1, 1));
        let faults: Vec<(&str, usize)> = labels.faults.iter().map(|(rule, at, _)| (*rule, *at)).collect();
        assert_eq!(faults, [("unknown-class", 3), ("broken-line", 4)]);
    }

    #[test]
    fn labels_lie_beside_their_images() {
        let root = Path::new("images/set");
        let cases = [
            ("images/set/images/train/a.b.png", "images/set/labels/train/a.b.txt"),
            ("images/set/train/images/x/a.png", "images/set/train/labels/x/a.txt"),
            ("images/set/a.png", "images/set/a.txt"),
            ("other/images/a.png", "other/labels/a.txt"),
        ];
        for (image, label) in cases {
            assert_eq!(label_of(root, Path::new(image)), Path::new(label));
        }
    }
}
