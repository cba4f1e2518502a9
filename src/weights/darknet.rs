//! Darknet `.weights`: a header and one run of floats in the order of the cfg file's layers.
//!
//! Source: `load_weights_upto` of pjreddie/darknet, `src/parser.c`. Which float belongs to which layer is the cfg's
//! business.

use super::checkpoint::{Checkpoint, Contents, Format};
use super::error::WeightsError;
use super::rebuild::malformed;
use super::source::{Source, array_at, u32_at, u64_at};
use super::tensor::{Blob, Dtype, Region, StoredTensor};
use std::collections::BTreeMap;
use std::path::Path;

/// Name of the one tensor that a darknet file has as a checkpoint.
pub const TENSOR: &str = "darknet";

/// What stands before the floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DarknetHeader {
    pub major: i32,
    pub minor: i32,
    pub revision: i32,
    /// Images seen in training.
    pub seen: u64,
    /// Bytes of the header: 16 or 20.
    pub bytes: usize,
}

impl DarknetHeader {
    /// Reads it. `seen` has 8 bytes from version 0.2 on and 4 before.
    ///
    /// # Errors
    /// The file ends within the header, or a version number is negative.
    pub fn parse(bytes: &[u8]) -> Result<Self, WeightsError> {
        let truncated = |expected: u64| WeightsError::Truncated {
            what: "darknet header".to_owned(),
            expected,
            actual: bytes.len() as u64,
        };
        let number = |at: usize| array_at(bytes, at).map(i32::from_le_bytes).ok_or_else(|| truncated(16));
        let (major, minor, revision) = (number(0)?, number(4)?, number(8)?);
        if major < 0 || minor < 0 || revision < 0 {
            return malformed(format!("darknet version {major}.{minor}.{revision}: not darknet weights"));
        }
        let wide = i64::from(major) * 10 + i64::from(minor) >= 2 && major < 1000 && minor < 1000;
        let (seen, bytes) = if wide {
            (u64_at(bytes, 12).ok_or_else(|| truncated(20))?, 20)
        } else {
            (u64::from(u32_at(bytes, 12).ok_or_else(|| truncated(16))?), 16)
        };
        Ok(DarknetHeader { major, minor, revision, seen, bytes })
    }

    /// Whether fully connected layers are stored transposed.
    pub fn transposed(&self) -> bool {
        self.major > 1000 || self.minor > 1000
    }
}

/// A whole file in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct DarknetWeights {
    pub header: DarknetHeader,
    /// For every convolution in the order of the cfg: β, γ, mean and variance of its batch normalisation (or its bias
    /// alone), then its kernel `[out, in / groups, height, width]`.
    pub floats: Vec<f32>,
}

impl DarknetWeights {
    /// Reads header and floats.
    ///
    /// # Errors
    /// A damaged header, or a payload that is not whole floats.
    pub fn parse(bytes: &[u8]) -> Result<Self, WeightsError> {
        let (header, _) = layout(bytes)?;
        let floats = Dtype::F32.decode(bytes.get(header.bytes..).unwrap_or_default());
        Ok(DarknetWeights { header, floats })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// As [`Self::parse`], and when the file cannot be read.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let source = Source::map(path).map_err(|problem| problem.in_file(Some(path)))?;
        Self::parse(source.bytes()).map_err(|problem| problem.in_file(Some(path)))
    }

    /// The same from a checkpoint that is open already.
    ///
    /// # Errors
    /// The checkpoint has another format.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Self, WeightsError> {
        let weights = match checkpoint.format() {
            Format::Darknet => Self::parse(checkpoint.bytes()),
            other => malformed(format!("needs darknet weights, this is {other}")),
        };
        weights.map_err(|problem| problem.in_file(checkpoint.path()))
    }
}

/// The header and the number of floats behind it.
fn layout(bytes: &[u8]) -> Result<(DarknetHeader, usize), WeightsError> {
    let header = DarknetHeader::parse(bytes)?;
    let payload = bytes.len().saturating_sub(header.bytes);
    if !payload.is_multiple_of(4) {
        return Err(WeightsError::Truncated {
            what: "darknet payload of whole floats".to_owned(),
            expected: payload.next_multiple_of(4) as u64,
            actual: payload as u64,
        });
    }
    Ok((header, payload / 4))
}

/// Whether bytes without a telling name look like darknet weights: a version that was ever written, and whole floats.
pub(super) fn is_plausible(bytes: &[u8]) -> bool {
    match layout(bytes) {
        Ok((header, count)) => {
            header.major == 0 && (1..=2).contains(&header.minor) && header.revision <= 100 && count > 0
        }
        Err(_) => false,
    }
}

/// The file as a checkpoint of one tensor, [`TENSOR`].
pub(super) fn read(bytes: &[u8]) -> Result<Contents, WeightsError> {
    let (header, count) = layout(bytes)?;
    let region = Region { blob: Blob::File, start: header.bytes, end: bytes.len(), big_endian: false };
    let tensor = StoredTensor::new(TENSOR.to_owned(), Dtype::F32, vec![count], None, 0, region)?;
    let metadata = BTreeMap::from([
        ("major".to_owned(), header.major.to_string()),
        ("minor".to_owned(), header.minor.to_string()),
        ("revision".to_owned(), header.revision.to_string()),
        ("seen".to_owned(), header.seen.to_string()),
    ]);
    Ok(Contents { tensors: vec![tensor], buffers: Vec::new(), metadata })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: [i32; 3], seen: &[u8], floats: &[f32]) -> Vec<u8> {
        let mut bytes: Vec<u8> = version.iter().flat_map(|number| number.to_le_bytes()).collect();
        bytes.extend_from_slice(seen);
        bytes.extend(floats.iter().flat_map(|number| number.to_le_bytes()));
        bytes
    }

    #[test]
    fn the_width_of_seen_follows_the_version() {
        let wide = DarknetWeights::parse(&file([0, 2, 5], &7u64.to_le_bytes(), &[1.0, -2.0])).unwrap();
        assert_eq!((wide.header.seen, wide.header.bytes, wide.floats), (7, 20, vec![1.0, -2.0]));
        let narrow = DarknetWeights::parse(&file([0, 1, 0], &7u32.to_le_bytes(), &[1.0, -2.0])).unwrap();
        assert_eq!((narrow.header.seen, narrow.header.bytes, narrow.floats), (7, 16, vec![1.0, -2.0]));
        // 1001 marks transposed connected layers and keeps the narrow count
        let header = DarknetHeader::parse(&file([0, 1001, 0], &7u32.to_le_bytes(), &[])).unwrap();
        assert!(header.transposed() && header.bytes == 16);
    }

    #[test]
    fn ends_in_the_wrong_place_are_errors() {
        let bytes = file([0, 2, 0], &7u64.to_le_bytes(), &[1.0]);
        for length in (0..20).chain(21..24) {
            assert!(read(&bytes[..length]).is_err(), "{length} bytes");
        }
        assert_eq!(read(&bytes).unwrap().tensors[0].shape, [1]);
        assert!(read(&file([0, -2, 0], &7u64.to_le_bytes(), &[])).is_err());
    }

    #[test]
    fn only_versions_that_were_written_look_like_darknet() {
        assert!(is_plausible(&file([0, 2, 5], &7u64.to_le_bytes(), &[1.0])));
        assert!(!is_plausible(&file([0, 2, 5], &7u64.to_le_bytes(), &[])));
        assert!(!is_plausible(&file([0, 0, 0], &7u64.to_le_bytes(), &[1.0])));
        assert!(!is_plausible(b"hello, these are no weights!"));
    }
}
