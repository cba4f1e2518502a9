//! Files of a data set that is written: texts, JSON, and the images by link, by copy or drawn.

use super::part::Part;
use crate::data::dataset::Source;
use crate::data::error::DataError;
use crate::imaging;
use rayon::prelude::*;
use serde::Serialize;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// What becomes of the image files. Pictures that have no file are drawn, unless no image is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Images {
    /// Second names of the same files where the file system can, copies where it cannot. Changing one changes the other.
    Link,
    Copy,
    /// None are written: annotations alone.
    None,
}

/// Images by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) linked: usize,
    pub(super) copied: usize,
    pub(super) drawn: usize,
    pub(super) missing: usize,
}

impl Placed {
    fn and(self, other: Self) -> Self {
        Self {
            linked: self.linked + other.linked,
            copied: self.copied + other.copied,
            drawn: self.drawn + other.drawn,
            missing: self.missing + other.missing,
        }
    }
}

fn failed(what: &'static str, path: &Path) -> impl Fn(io::Error) -> DataError {
    move |source| DataError::Write { what, path: path.to_path_buf(), source }
}

fn make_folder_of(path: &Path) -> Result<(), DataError> {
    match path.parent() {
        Some(folder) => fs::create_dir_all(folder).map_err(failed("the folder", folder)),
        None => Ok(()),
    }
}

/// Writes a text; the folders on its way are made.
pub(super) fn write_text(path: &Path, what: &'static str, text: &str) -> Result<(), DataError> {
    make_folder_of(path)?;
    remove_link(path).and_then(|()| fs::write(path, text)).map_err(failed(what, path))
}

/// Writes a value as JSON; the folders on its way are made.
pub(super) fn write_json(path: &Path, what: &'static str, value: &impl Serialize) -> Result<(), DataError> {
    make_folder_of(path)?;
    let write = || -> io::Result<()> {
        remove_link(path)?;
        let mut file = BufWriter::new(File::create(path)?);
        serde_json::to_writer(&mut file, value)?;
        file.flush()
    };
    write().map_err(failed(what, path))
}

/// Takes away an older file of that name: written through, it could be the second name of another file.
fn remove_link(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Puts the images where the annotations say.
pub(super) fn place_images(parts: &[Part<'_>], out: &Path, images: Images) -> Result<Placed, DataError> {
    if images == Images::None {
        return Ok(Placed::default());
    }
    let mut placed = Placed::default();
    for part in parts {
        let folder = out.join(part.image_folder());
        let of_part: Result<Placed, DataError> = (0..part.dataset.images.len())
            .into_par_iter()
            .map(|index| place(part, index, &folder, images))
            .try_reduce(Placed::default, |a, b| Ok(a.and(b)));
        placed = placed.and(of_part?);
    }
    Ok(placed)
}

fn place(part: &Part<'_>, index: usize, folder: &Path, images: Images) -> Result<Placed, DataError> {
    let nothing = Placed::default();
    let (Some(image), Some(name)) = (part.dataset.images.get(index), part.names.get(index)) else {
        return Ok(nothing);
    };
    let path = folder.join(name);
    let Source::File(source) = &image.source else {
        make_folder_of(&path)?;
        remove_link(&path).map_err(failed("the image", &path))?;
        imaging::save_png(&part.dataset.picture(index)?, &path)?;
        return Ok(Placed { drawn: 1, ..nothing });
    };
    let Ok(source) = fs::canonicalize(source) else {
        return Ok(Placed { missing: 1, ..nothing });
    };
    if !source.is_file() {
        return Ok(Placed { missing: 1, ..nothing });
    }
    make_folder_of(&path)?;
    // Written over itself the image would be lost.
    if fs::canonicalize(&path).is_ok_and(|there| there == source) {
        return Ok(Placed { linked: 1, ..nothing });
    }
    remove_link(&path).map_err(failed("the image", &path))?;
    if images == Images::Link && fs::hard_link(&source, &path).is_ok() {
        return Ok(Placed { linked: 1, ..nothing });
    }
    fs::copy(&source, &path).map_err(failed("the image", &path))?;
    Ok(Placed { copied: 1, ..nothing })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_file_is_replaced_and_not_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("a.txt"), folder.path().join("sub").join("b.txt"));
        write_text(&first, "the text", "one").unwrap();
        fs::create_dir(folder.path().join("sub")).unwrap();
        fs::hard_link(&first, &second).unwrap();
        write_text(&second, "the text", "two").unwrap();
        write_json(&folder.path().join("c/d.json"), "the list", &[1, 2]).unwrap();
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        assert_eq!((read(&first), read(&second)), ("one".to_owned(), "two".to_owned()));
        assert_eq!(read(&folder.path().join("c/d.json")), "[1,2]");
        let error = write_text(folder.path(), "the text", "x").unwrap_err();
        assert!(matches!(error, DataError::Write { what: "the text", .. }), "{error}");
    }
}
