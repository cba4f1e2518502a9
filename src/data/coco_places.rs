//! What the path of an annotation file tells: the data set's name, the split, and where its images may lie.

use super::paths::{file_name, inside};
use std::fs;
use std::path::{Path, PathBuf};

/// Images whose file is looked for to find the image folder.
const PROBED: usize = 16;

/// The split that a file name tells: `instances_train2017.json` is `train2017`; `all` where it tells none.
pub(super) fn split_of(json: &Path) -> String {
    let stem = json.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    if stem == "_annotations.coco" {
        return json.parent().map_or_else(|| "all".to_owned(), file_name);
    }
    let split = stem.strip_prefix("instances").unwrap_or(&stem).trim_start_matches(['_', '-']);
    if split.is_empty() || split == "annotations" { "all".to_owned() } else { split.to_owned() }
}

/// The folder's name, or that of the folder around `annotations`.
pub(super) fn dataset_name(json: &Path) -> String {
    let json = fs::canonicalize(json).unwrap_or_else(|_| json.to_path_buf());
    let folder = json.parent().map(Path::to_path_buf).unwrap_or_default();
    match folder.parent() {
        Some(outer) if folder.ends_with("annotations") => file_name(outer),
        _ => file_name(&folder),
    }
}

/// Where the images of `json` may lie, best first.
pub(super) fn folders_around(json: &Path) -> Vec<PathBuf> {
    let json = fs::canonicalize(json).unwrap_or_else(|_| json.to_path_buf());
    folders_of_split(&json, &split_of(&json))
}

/// Where the images of `split` may lie when `file` describes them, best first.
pub(super) fn folders_of_split(file: &Path, split: &str) -> Vec<PathBuf> {
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_path_buf());
    let beside = file.parent().map(Path::to_path_buf).unwrap_or_default();
    let mut folders = vec![beside.clone(), beside.join("images"), beside.join("images").join(split)];
    folders.push(beside.join(split));
    if let Some(above) = beside.parent() {
        folders.extend([above.join("images"), above.join("images").join(split), above.join(split)]);
        folders.push(above.to_path_buf());
    }
    folders
}

/// The first of `folders` that holds the file of one of the first images.
pub(super) fn image_folder<'a>(folders: &[PathBuf], names: impl Iterator<Item = &'a str>) -> Option<PathBuf> {
    let names: Vec<&str> = names.take(PROBED).collect();
    let holds = |folder: &&PathBuf| names.iter().any(|name| inside(folder, name).is_some_and(|path| path.is_file()));
    folders.iter().find(holds).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_tell_the_split() {
        let cases = [
            ("annotations/instances_train2017.json", "train2017"),
            ("instances.json", "all"),
            ("set/valid/_annotations.coco.json", "valid"),
            ("annotations.json", "all"),
            ("mine.json", "mine"),
        ];
        for (path, split) in cases {
            assert_eq!(split_of(Path::new(path)), split, "{path}");
        }
    }
}
