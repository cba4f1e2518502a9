//! Text files of bounded size, lists of files by their ending, and numbers that must be numbers.

use super::error::DataError;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Largest annotation file or list of one image's size that is read, bytes.
pub(super) const MAX_TEXT_FILE: u64 = 64 << 20;

/// Reads a regular file of at most `limit` bytes as text, without a byte order mark.
///
/// # Errors
/// [`DataError::Read`], also for text that is not UTF-8; [`DataError::Invalid`] for a file above the limit.
pub(super) fn read_text(path: &Path, what: &'static str, limit: u64) -> Result<String, DataError> {
    let failed = |source: io::Error| DataError::Read { what, path: path.to_path_buf(), source };
    let metadata = fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        // A pipe or a device could deliver for ever.
        return Err(failed(io::Error::other("not a regular file")));
    }
    if metadata.len() > limit {
        let message = format!("{what} has {} bytes; up to {limit} are read", metadata.len());
        return Err(DataError::Invalid { path: path.to_path_buf(), message });
    }
    let mut text = fs::read_to_string(path).map_err(failed)?;
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

/// Whether the file name ends so, in any case.
pub(super) fn has_extension(path: &Path, wanted: &str) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(wanted))
}

/// Files of `folder` that end in `extension`, sorted; none when the folder cannot be listed. Hidden files are passed
/// over.
pub(super) fn files_with(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| has_extension(path, extension))
        .filter(|path| !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')))
        .collect();
    files.sort();
    files
}

/// A finite number.
pub(super) fn number(text: &str) -> Option<f64> {
    text.trim().parse::<f64>().ok().filter(|value| value.is_finite())
}

/// A side in pixels, also when written with decimals; 0 when it is none.
pub(super) fn pixels(text: &str) -> u32 {
    number(text).map_or(0, side)
}

/// A side in pixels; 0 when the number is none.
pub(super) fn side(value: f64) -> u32 {
    if value >= 1.0 && value <= f64::from(u32::MAX) { value as u32 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_within_bounds_and_without_its_mark() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        fs::write(&path, "\u{feff}two words").unwrap();
        assert_eq!(read_text(&path, "the list", 100).unwrap(), "two words");
        let error = read_text(&path, "the list", 4).unwrap_err();
        assert!(error.to_string().contains("12 bytes") && error.to_string().ends_with("a.txt"), "{error}");
        assert!(matches!(read_text(folder.path(), "the list", 4), Err(DataError::Read { .. })));
        fs::write(&path, b"\xff\xfe").unwrap();
        assert!(matches!(read_text(&path, "the list", 100), Err(DataError::Read { .. })));
        fs::write(folder.path().join(".hidden.txt"), "").unwrap();
        fs::write(folder.path().join("B.TXT"), "").unwrap();
        assert_eq!(files_with(folder.path(), "txt"), [folder.path().join("B.TXT"), path]);
    }

    #[test]
    fn only_numbers_are_numbers() {
        assert_eq!(
            [number(" 2.5 "), number("1e3"), number("nan"), number("inf"), number("")].map(|v| v.is_some()),
            [true, true, false, false, false]
        );
        assert_eq!(["12", "12.0", "-5", "0", "1e99", "many"].map(pixels), [12, 12, 0, 0, 0, 0]);
    }
}
