//! The image file of an entry: there, readable, upright, of the size that the annotation says.

use super::likeness::Likeness;
use super::{Depth, Finding, ImageEntry, Severity, Source};
use crate::imaging;
use image::metadata::Orientation;
use image::{ImageDecoder, ImageReader};
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

/// What is read of a file to find its EXIF orientation; cameras write it first.
const HEADER_BYTES: u64 = 256 * 1024;

/// What there is to say about the file, and its likeness where its pixels were read.
pub(super) fn check_file(entry: &ImageEntry, depth: Depth, looked_for_files: bool) -> (Vec<Finding>, Option<Likeness>) {
    let Source::File(path) = &entry.source else {
        return (Vec::new(), None);
    };
    let about =
        |severity: Severity, rule: &str, message: String| vec![Finding::new(severity, rule, &entry.name, message)];
    if !path.is_file() {
        if looked_for_files {
            return (Vec::new(), None);
        }
        let message = "the file is missing; training takes another image in its place".to_owned();
        return (about(Severity::Error, "missing-image", message), None);
    }
    let read = match depth {
        Depth::Headers => imaging::size_of(path).map(|size| (size, None)),
        Depth::Pixels => {
            imaging::load(path).map(|picture| ((picture.width, picture.height), Some(Likeness::of(&picture))))
        }
    };
    match read {
        Err(error) => {
            let message = format!("training takes another image in its place: {error}");
            (about(Severity::Error, "unreadable-image", message), None)
        }
        Ok((size, likeness)) => {
            let orientation = orientation_of(path);
            let remark = turned(entry, size, orientation).or_else(|| other_size(entry, size));
            let findings = remark.map(|(severity, rule, message)| about(severity, rule, message)).unwrap_or_default();
            (findings, likeness)
        }
    }
}

type Remark = (Severity, &'static str, String);

/// A picture whose EXIF data say that it is stored turned or mirrored. `size` is that of the upright picture.
fn turned(entry: &ImageEntry, (width, height): (u32, u32), orientation: Orientation) -> Option<Remark> {
    let (how, sides_change) = match orientation {
        Orientation::NoTransforms => return None,
        Orientation::Rotate90 => ("turned by 90°", true),
        Orientation::Rotate180 => ("turned by 180°", false),
        Orientation::Rotate270 => ("turned by 270°", true),
        Orientation::FlipHorizontal => ("mirrored left to right", false),
        Orientation::FlipVertical => ("mirrored top to bottom", false),
        Orientation::Rotate90FlipH => ("turned by 90° and mirrored", true),
        Orientation::Rotate270FlipH => ("turned by 270° and mirrored", true),
    };
    let stored = (height, width);
    if sides_change && width != height && (entry.width, entry.height) == stored {
        let message = format!(
            "the file is {how} when it is read, as its EXIF data say, and is then {width} × {height}; the annotation \
             has the stored {} × {}, so its boxes are probably laid over the picture before turning and are trained in \
             the wrong place",
            entry.width, entry.height
        );
        return Some((Severity::Warning, "exif-rotation", message));
    }
    if (entry.width, entry.height) != (width, height) {
        return None;
    }
    let known = if sides_change && width != height {
        "the annotation has the upright size, and its boxes are trained on the upright picture"
    } else {
        "training takes the boxes as laid over the upright picture; the sizes cannot tell"
    };
    Some((Severity::Info, "exif-rotation", format!("the file is {how} when it is read, as its EXIF data say; {known}")))
}

fn other_size(entry: &ImageEntry, (width, height): (u32, u32)) -> Option<Remark> {
    if (width, height) == (entry.width, entry.height) {
        return None;
    }
    let message = format!(
        "annotated as {} × {}, the file has {width} × {height}; training takes the boxes as pixels of the file",
        entry.width, entry.height
    );
    Some((Severity::Warning, "size-mismatch", message))
}

/// The EXIF orientation that the beginning of the file tells; none where it is not found.
fn orientation_of(path: &Path) -> Orientation {
    let read = || -> Option<Orientation> {
        let mut start = Vec::new();
        File::open(path).ok()?.take(HEADER_BYTES).read_to_end(&mut start).ok()?;
        let format = image::guess_format(&start).ok()?;
        let mut decoder = ImageReader::with_format(Cursor::new(start.as_slice()), format).into_decoder().ok()?;
        decoder.orientation().ok()
    };
    read().unwrap_or(Orientation::NoTransforms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn entry(width: u32, height: u32) -> ImageEntry {
        let source = Source::File(PathBuf::from("no such file.jpg"));
        ImageEntry { id: 1, name: "a.jpg".to_owned(), source, width, height, objects: Vec::new() }
    }

    #[test]
    fn a_turned_picture_is_told_by_what_its_annotation_says() {
        let rule = |annotated: (u32, u32), orientation: Orientation| {
            turned(&entry(annotated.0, annotated.1), (30, 40), orientation).map(|(severity, rule, _)| (severity, rule))
        };
        assert_eq!(rule((30, 40), Orientation::NoTransforms), None);
        assert_eq!(rule((40, 30), Orientation::Rotate90), Some((Severity::Warning, "exif-rotation")));
        assert_eq!(rule((30, 40), Orientation::Rotate90), Some((Severity::Info, "exif-rotation")));
        assert_eq!(rule((30, 40), Orientation::Rotate180), Some((Severity::Info, "exif-rotation")));
        // a half turn does not explain another size
        assert_eq!(rule((40, 30), Orientation::Rotate180), None);
        assert_eq!(rule((31, 40), Orientation::Rotate270), None);
        assert_eq!(other_size(&entry(31, 40), (30, 40)).map(|r| r.1), Some("size-mismatch"));
        assert_eq!(orientation_of(Path::new("no such file.jpg")), Orientation::NoTransforms);
    }
}
