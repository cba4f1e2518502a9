//! The bytes of a weights file, mapped or held, and checked little-endian numbers out of them.

use super::error::WeightsError;
use memmap2::Mmap;
use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// Where the bytes of a checkpoint live.
pub enum Source {
    /// A file mapped read-only.
    Mapped(Mmap),
    /// Bytes shared in memory.
    Shared(Arc<[u8]>),
    /// Bytes embedded in the program.
    Static(&'static [u8]),
}

impl Source {
    /// Maps a file.
    ///
    /// # Errors
    /// The file cannot be opened or mapped, or is not a regular file.
    pub(super) fn map(path: &Path) -> Result<Self, WeightsError> {
        let file = File::open(path).map_err(|cause| WeightsError::Io { action: "open", cause })?;
        let metadata = file.metadata().map_err(|cause| WeightsError::Io { action: "look at", cause })?;
        if !metadata.is_file() {
            return Err(WeightsError::Malformed("not a regular file".to_owned()));
        }
        if metadata.len() == 0 {
            return Ok(Source::Static(&[]));
        }
        // SAFETY: the map is only ever read, through slices whose length is the map's own. A file that another
        // process shortens meanwhile is the one danger a mapping has; this program replaces weights by renaming a new
        // file over the name, which leaves the mapped one whole.
        let map = unsafe { Mmap::map(&file) }.map_err(|cause| WeightsError::Io { action: "map", cause })?;
        Ok(Source::Mapped(map))
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Source::Mapped(map) => map,
            Source::Shared(bytes) => bytes,
            Source::Static(bytes) => bytes,
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Source::Mapped(_) => "Mapped",
            Source::Shared(_) => "Shared",
            Source::Static(_) => "Static",
        };
        write!(f, "{kind}({} bytes)", self.bytes().len())
    }
}

impl From<Arc<[u8]>> for Source {
    fn from(bytes: Arc<[u8]>) -> Self {
        Source::Shared(bytes)
    }
}

impl From<Vec<u8>> for Source {
    fn from(bytes: Vec<u8>) -> Self {
        Source::Shared(bytes.into())
    }
}

impl From<&'static [u8]> for Source {
    fn from(bytes: &'static [u8]) -> Self {
        Source::Static(bytes)
    }
}

impl<const N: usize> From<&'static [u8; N]> for Source {
    fn from(bytes: &'static [u8; N]) -> Self {
        Source::Static(bytes)
    }
}

/// The `N` bytes at `at`, or nothing where they reach past the end.
pub(super) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    let end = at.checked_add(N)?;
    <[u8; N]>::try_from(bytes.get(at..end)?).ok()
}

/// Little-endian `u16` at `at`.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_le_bytes)
}

/// Little-endian `u32` at `at`.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_le_bytes)
}

/// Little-endian `u64` at `at`.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_past_the_end_are_absent() {
        let bytes = [1u8, 2, 0, 0, 0];
        assert_eq!(u16_at(&bytes, 0), Some(0x0201));
        assert_eq!(u32_at(&bytes, 1), Some(2));
        assert_eq!(u32_at(&bytes, 2), None);
        assert_eq!(u64_at(&bytes, usize::MAX), None);
    }

    #[test]
    fn a_folder_and_a_missing_file_are_errors_and_an_empty_file_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Source::map(folder.path()).is_err());
        assert!(matches!(Source::map(&folder.path().join("none")), Err(WeightsError::Io { action: "open", .. })));
        let empty = folder.path().join("empty");
        std::fs::write(&empty, b"").unwrap();
        assert!(Source::map(&empty).unwrap().bytes().is_empty());
    }
}
