//! Pictures without annotation: one file, or a folder with the folders directly in it.

use super::dataset::{Dataset, Finding, ImageEntry, Severity, Source};
use super::error::DataError;
use super::findings::Findings;
use super::paths::file_name;
use crate::imaging;
use rayon::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};

/// Most pictures that one data set is made of.
const MAX_LISTED: usize = 4_000_000;

/// A data set of one picture, without classes.
///
/// # Errors
/// [`DataError::Image`] when its header cannot be read.
pub fn read_image(path: &Path) -> Result<Dataset, DataError> {
    let (width, height) = imaging::size_of(path)?;
    let name = file_name(path);
    let source = Source::File(path.to_path_buf());
    let entry = ImageEntry { id: 1, name: name.clone(), source, width, height, objects: Vec::new() };
    Ok(Dataset { name, split: "all".to_owned(), images: vec![entry], ..Dataset::default() })
}

/// All pictures of `folder` and of the folders directly in it, sorted by path. Hidden files are passed over. Names are
/// relative to `folder`, with `/`. A picture whose header cannot be read is a finding and left out.
///
/// # Errors
/// [`DataError::Read`] when the folder cannot be listed, [`DataError::Empty`] when it holds no readable picture.
pub fn read_folder(folder: &Path) -> Result<Dataset, DataError> {
    let paths = image_paths(folder)?;
    if paths.is_empty() {
        let message = "no pictures in this folder or the folders in it".to_owned();
        return Err(DataError::Empty { path: folder.to_path_buf(), message });
    }
    let sizes: Vec<Result<(u32, u32), imaging::ImageError>> =
        paths.par_iter().map(|path| imaging::size_of(path)).collect();
    let mut findings = Findings::default();
    let mut images = Vec::new();
    for (path, size) in paths.into_iter().zip(sizes) {
        let name = relative_name(folder, &path);
        match size {
            Ok((width, height)) => {
                let id = images.len() as u64 + 1;
                images.push(ImageEntry { id, name, source: Source::File(path), width, height, objects: Vec::new() });
            }
            Err(error) => {
                let message = format!("left out: {error}");
                findings.push(Finding::new(Severity::Error, "unreadable-image", &name, message));
            }
        }
    }
    let name = file_name(folder);
    let warnings = findings.finish(&name);
    if images.is_empty() {
        let example = warnings.first().map(|finding| finding.message.clone()).unwrap_or_default();
        let message = format!("no picture in this folder can be read ({example})");
        return Err(DataError::Empty { path: folder.to_path_buf(), message });
    }
    Ok(Dataset { name, split: "all".to_owned(), images, warnings, ..Dataset::default() })
}

/// Whether `folder`, or a folder directly in it, holds a file named like a picture.
pub(super) fn has_images(folder: &Path) -> bool {
    image_paths(folder).is_ok_and(|paths| !paths.is_empty())
}

/// Pictures of `folder` and of the folders directly in it, sorted.
fn image_paths(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    pictures_below(folder, 1)
}

/// Pictures of `folder` and of the folders in it, `depth` levels down, sorted. Hidden ones are passed over.
///
/// # Errors
/// [`DataError::Read`] when `folder` cannot be listed; [`DataError::Invalid`] when it holds too many pictures.
pub(super) fn pictures_below(folder: &Path, depth: usize) -> Result<Vec<PathBuf>, DataError> {
    let mut paths = Vec::new();
    let mut level = Vec::new();
    list(folder, &mut paths, &mut level)?;
    for _ in 0..depth {
        let mut below = Vec::new();
        for inner in &level {
            // A folder that may not be listed hides only its own pictures.
            if list(inner, &mut paths, &mut below).is_err() {
                tracing::warn!("cannot list {}", inner.display());
            }
            // Links can lead in circles.
            if paths.len() > MAX_LISTED || below.len() > MAX_LISTED {
                let message = format!("more than {MAX_LISTED} pictures or folders below this one");
                return Err(DataError::Invalid { path: folder.to_path_buf(), message });
            }
        }
        level = below;
    }
    paths.sort();
    Ok(paths)
}

/// Adds the pictures of `folder` to `images` and the folders in it to `below`.
fn list(folder: &Path, images: &mut Vec<PathBuf>, below: &mut Vec<PathBuf>) -> Result<(), DataError> {
    let failed = |source: std::io::Error| DataError::Read { what: "the folder", path: folder.to_path_buf(), source };
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if file_name(&path).starts_with('.') {
            continue;
        }
        if path.is_dir() {
            below.push(path);
        } else if imaging::is_image_path(&path) {
            images.push(path);
        }
    }
    Ok(())
}

/// The name of `path` relative to `folder`, with `/`.
pub(super) fn relative_name(folder: &Path, path: &Path) -> String {
    let relative = path.strip_prefix(folder).unwrap_or(path);
    let parts: Vec<String> =
        relative.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_relative_to_the_folder() {
        let folder = Path::new("set");
        assert_eq!(relative_name(folder, &folder.join("a.png")), "a.png");
        assert_eq!(relative_name(folder, &folder.join("day").join("a.png")), "day/a.png");
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = read_folder(Path::new("no such folder")).unwrap_err();
        assert!(matches!(error, DataError::Read { .. }));
        assert!(error.to_string().ends_with("no such folder"), "{error}");
    }
}
