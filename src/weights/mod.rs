//! Weights files: readers for what detectors are published in, key maps between code bases, the load report, and the
//! writer.
//!
//! [`open`] tells formats apart by content, maps the file and lists its tensors; numbers are read on request. Every
//! number in a file is treated as hostile: lengths are checked against the bytes there are, and a pickle is read, never
//! run.

mod archive;
mod checkpoint;
mod cursor;
pub mod darknet;
mod error;
mod flatten;
pub mod keymap;
mod machine;
mod numpy;
pub mod pickle;
mod rebuild;
pub mod report;
mod safetensors;
mod source;
mod tensor;
mod torch;
pub mod write;

pub use checkpoint::{Checkpoint, Format};
pub use darknet::{DarknetHeader, DarknetWeights};
pub use error::WeightsError;
pub use keymap::{Layout, detect_layout, native_names, to_native};
pub use report::{ENOUGH_OF_A_BACKBONE, Expected, LoadReport, compare};
pub use source::Source;
pub use tensor::{Dtype, StoredTensor};
pub use write::{TensorData, write_atomically, write_safetensors};

use checkpoint::Contents;
use std::path::Path;

/// Opens a weights file. The content tells the format; the extension helps where the content is too short to.
///
/// # Errors
/// The file cannot be read, is of no known format, is damaged, or uses something that is not supported.
pub fn open(path: &Path) -> Result<Checkpoint, WeightsError> {
    Source::map(path).and_then(|source| read(source, Some(path))).map_err(|problem| problem.in_file(Some(path)))
}

/// Reads a weights file that is in memory, such as one embedded in the program.
///
/// # Errors
/// As [`open`].
pub fn from_bytes(bytes: impl Into<Source>) -> Result<Checkpoint, WeightsError> {
    read(bytes.into(), None)
}

fn read(source: Source, path: Option<&Path>) -> Result<Checkpoint, WeightsError> {
    let extension = path.and_then(Path::extension).and_then(|extension| extension.to_str()).unwrap_or_default();
    let (format, contents) = parse(source.bytes(), &extension.to_ascii_lowercase())?;
    Ok(Checkpoint::new(format, source, contents, path))
}

fn parse(bytes: &[u8], extension: &str) -> Result<(Format, Contents), WeightsError> {
    let Some(format) = recognise(bytes, extension) else {
        return Err(WeightsError::UnknownFormat);
    };
    let contents = match format {
        Format::TorchZip => torch::read_zip(bytes),
        Format::TorchLegacy => torch::read_legacy(bytes),
        Format::Pickle => torch::read_pickle(bytes),
        Format::Safetensors => self::safetensors::read(bytes),
        Format::Darknet => darknet::read(bytes),
    }?;
    Ok((format, contents))
}

/// The format of a file with that content and (lower-case) extension.
fn recognise(bytes: &[u8], extension: &str) -> Option<Format> {
    if bytes.starts_with(b"PK\x03\x04") {
        return Some(Format::TorchZip);
    }
    if torch::is_legacy(bytes) {
        return Some(Format::TorchLegacy);
    }
    if self::safetensors::is_safetensors(bytes) {
        return Some(Format::Safetensors);
    }
    // the opcode that names a protocol; protocols 0 and 1 have none
    if let [0x80, 2..=5, ..] = bytes {
        return Some(Format::Pickle);
    }
    match extension {
        "weights" => Some(Format::Darknet),
        "safetensors" => Some(Format::Safetensors),
        "pkl" | "pickle" => Some(Format::Pickle),
        _ => darknet::is_plausible(bytes).then_some(Format::Darknet),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_decides_before_the_extension() {
        let safetensors = b"\x02\x00\x00\x00\x00\x00\x00\x00{}";
        assert_eq!(recognise(safetensors, "weights"), Some(Format::Safetensors));
        assert_eq!(recognise(b"PK\x03\x04", ""), Some(Format::TorchZip));
        assert_eq!(recognise(b"\x80\x02}.", "pth"), Some(Format::Pickle));
        let legacy = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
        assert_eq!(recognise(legacy, "pkl"), Some(Format::TorchLegacy));
        assert_eq!(recognise(b"", "weights"), Some(Format::Darknet));
        assert_eq!(recognise(b"\0\0\0\0\x02\0\0\0\x05\0\0\0\0\0\0\0\0\0\0\0\0\0\x80?", "74"), Some(Format::Darknet));
        assert_eq!(recognise(b"hello", "txt"), None);
        assert_eq!(recognise(b"", ""), None);
    }

    #[test]
    fn an_unknown_file_is_told_what_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        std::fs::write(&path, b"hello").unwrap();
        let text = open(&path).unwrap_err().to_string();
        assert!(text.contains("safetensors") && text.ends_with("notes.txt"), "{text}");
        assert!(from_bytes(b"hello").is_err());
    }
}
