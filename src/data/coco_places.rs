//! What the path of a COCO file tells: the data set's name, the split, and where its images may lie.

use super::paths::file_name;
use std::fs;
use std::path::{Path, PathBuf};

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
    let split = split_of(&json);
    let beside = json.parent().map(Path::to_path_buf).unwrap_or_default();
    let mut folders = vec![beside.clone(), beside.join("images"), beside.join("images").join(&split)];
    folders.push(beside.join(&split));
    if let Some(above) = beside.parent() {
        folders.extend([above.join("images"), above.join("images").join(&split), above.join(&split)]);
        folders.push(above.to_path_buf());
    }
    folders
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
