//! The containers of torch: the zip archive of 1.6 and later, the pickle stream with storages behind it before, and
//! plain pickles with numpy arrays.
//!
//! Format: `torch/serialization.py`, functions `_save` and `_legacy_save`.

use super::archive::{self, Entry};
use super::checkpoint::Contents;
use super::error::WeightsError;
use super::flatten::flatten;
use super::pickle::{Pickle, Value};
use super::rebuild::{Rebuilder, malformed, storage_id};
use super::source::{array_at, u64_at};
use super::tensor::{Blob, Dtype, Region};
use std::borrow::Cow;
use std::collections::HashMap;

/// How a legacy stream begins: protocol, then the magic number as a long of ten bytes, then stop. The protocol stands
/// in the second byte.
const LEGACY_MAGIC: [u8; 15] =
    [0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, b'.'];

/// Version of the legacy stream, its second pickle.
const LEGACY_VERSION: i64 = 1001;

/// Inflated entries may hold this many times the bytes of the file, and [`SPARE`] more.
const INFLATION: usize = 16;
const SPARE: usize = 1 << 20;

/// Whether the bytes begin like a legacy stream.
pub(super) fn is_legacy(bytes: &[u8]) -> bool {
    let Some(mut head) = array_at::<15>(bytes, 0) else {
        return false;
    };
    // any protocol that can write the number
    if (2..=5).contains(&head[1]) {
        head[1] = LEGACY_MAGIC[1];
    }
    head == LEGACY_MAGIC
}

/// Reads a zip archive: `*/data.pkl`, `*/data/KEY` and, where there is one, `*/byteorder`.
pub(super) fn read_zip(bytes: &[u8]) -> Result<Contents, WeightsError> {
    let entries = archive::entries(bytes)?;
    let is_pickle = |entry: &&Entry| entry.name == "data.pkl" || entry.name.ends_with("/data.pkl");
    let Some(pickle_entry) = entries.iter().find(is_pickle) else {
        return malformed(format!("zip archive of {} entries without data.pkl: not a torch checkpoint", entries.len()));
    };
    let folder = pickle_entry.name.strip_suffix("data.pkl").unwrap_or_default();
    let mut inflater =
        Inflater { bytes, left: bytes.len().saturating_mul(INFLATION).saturating_add(SPARE), buffers: Vec::new() };
    let big_endian = match entries.iter().find(|entry| entry.name.strip_prefix(folder) == Some("byteorder")) {
        Some(entry) => inflater.content(entry)?.trim_ascii() == b"big",
        None => false,
    };
    let mut storages = HashMap::new();
    for entry in &entries {
        let key = entry.name.strip_prefix(folder).and_then(|name| name.strip_prefix("data/"));
        if let Some(key) = key {
            let region = inflater.region(entry, big_endian)?;
            storages.insert(key.to_owned(), region);
        }
    }
    if pickle_entry.is_stored() {
        let range = pickle_entry.range(bytes)?;
        let pickle = Pickle::parse(bytes.get(..range.end).unwrap_or_default(), range.start)?;
        contents(&pickle, storages, inflater.buffers, true)
    } else {
        let inflated = inflater.content(pickle_entry)?;
        let pickle = Pickle::parse(&inflated, 0)?;
        contents(&pickle, storages, inflater.buffers, false)
    }
}

/// Entries of an archive as regions; what is compressed goes into buffers.
struct Inflater<'b> {
    bytes: &'b [u8],
    /// Bytes that may still come out.
    left: usize,
    buffers: Vec<Vec<u8>>,
}

impl<'b> Inflater<'b> {
    fn content(&mut self, entry: &Entry) -> Result<Cow<'b, [u8]>, WeightsError> {
        if entry.is_stored() {
            return Ok(Cow::Borrowed(self.bytes.get(entry.range(self.bytes)?).unwrap_or_default()));
        }
        let inflated = entry.inflate(self.bytes, self.left)?;
        self.left = self.left.saturating_sub(inflated.len());
        Ok(Cow::Owned(inflated))
    }

    fn region(&mut self, entry: &Entry, big_endian: bool) -> Result<Region, WeightsError> {
        if entry.is_stored() {
            let range = entry.range(self.bytes)?;
            return Ok(Region { blob: Blob::File, start: range.start, end: range.end, big_endian });
        }
        let inflated = self.content(entry)?.into_owned();
        let region = Region { blob: Blob::Buffer(self.buffers.len()), start: 0, end: inflated.len(), big_endian };
        self.buffers.push(inflated);
        Ok(region)
    }
}

/// Reads a legacy stream: pickles of magic number, version, system, object and list of keys, then for every key its
/// element count and its elements. The elements are little-endian on every system.
pub(super) fn read_legacy(bytes: &[u8]) -> Result<Contents, WeightsError> {
    let magic = Pickle::parse(bytes, 0)?;
    let version = Pickle::parse(bytes, magic.end())?;
    if version.int(version.root()) != Some(LEGACY_VERSION) {
        return malformed(format!("torch legacy stream of another version than {LEGACY_VERSION}"));
    }
    let system = Pickle::parse(bytes, version.end())?;
    let object = Pickle::parse(bytes, system.end())?;
    let keys = Pickle::parse(bytes, object.end())?;
    let storages = legacy_storages(bytes, &object, &keys)?;
    contents(&object, storages, Vec::new(), true)
}

fn legacy_storages(
    bytes: &[u8],
    object: &Pickle<'_>,
    keys: &Pickle<'_>,
) -> Result<HashMap<String, Region>, WeightsError> {
    let mut sizes: HashMap<Cow<'_, str>, usize> = HashMap::new();
    for position in 0..object.values().len() {
        let Some(id) = object.id(position) else {
            break;
        };
        if matches!(object.value(id), Value::Persistent(_))
            && let Some(storage) = storage_id(object, id)?
        {
            sizes.insert(storage.key, storage.dtype.map_or(1, Dtype::size));
        }
    }
    let Some(listed) = keys.items(keys.root()) else {
        return malformed("torch legacy stream without its list of storages".to_owned());
    };
    let mut storages = HashMap::with_capacity(listed.len());
    let mut at = keys.end();
    for key in listed {
        let Some(key) = keys.key(*key) else {
            return malformed("torch legacy stream: a storage's key is not a text".to_owned());
        };
        let Some(size) = sizes.get(&*key) else {
            return malformed(format!("torch legacy stream: no tensor tells the element type of storage `{key}`"));
        };
        let Some(count) = u64_at(bytes, at) else {
            let actual = bytes.len().saturating_sub(at) as u64;
            return Err(WeightsError::Truncated { what: format!("length of storage `{key}`"), expected: 8, actual });
        };
        let start = at + 8;
        let expected = count.saturating_mul(*size as u64);
        let end = usize::try_from(expected).ok().and_then(|length| start.checked_add(length));
        at = match end {
            Some(end) if end <= bytes.len() => end,
            _ => {
                let actual = bytes.len().saturating_sub(start) as u64;
                return Err(WeightsError::Truncated { what: format!("storage `{key}`"), expected, actual });
            }
        };
        storages.insert(key.into_owned(), Region { blob: Blob::File, start, end: at, big_endian: false });
    }
    Ok(storages)
}

/// Reads a plain pickle, whose arrays are numpy's.
pub(super) fn read_pickle(bytes: &[u8]) -> Result<Contents, WeightsError> {
    contents(&Pickle::parse(bytes, 0)?, HashMap::new(), Vec::new(), true)
}

fn contents(
    pickle: &Pickle<'_>,
    storages: HashMap<String, Region>,
    buffers: Vec<Vec<u8>>,
    in_file: bool,
) -> Result<Contents, WeightsError> {
    let mut rebuilder = Rebuilder::new(pickle, storages, buffers, in_file);
    let (tensors, metadata) = flatten(&mut rebuilder, pickle.root())?;
    if tensors.is_empty() {
        return malformed("the file holds no tensors".to_owned());
    }
    Ok(Contents { tensors, buffers: rebuilder.buffers, metadata })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `{'w': tensor of two floats in storage 'k'}` as a legacy stream with `count` elements declared.
    fn legacy(version: u8, count: u64, data: &[u8]) -> Vec<u8> {
        let mut stream = LEGACY_MAGIC.to_vec();
        stream.extend_from_slice(&[0x80, 2, b'M', version, 3, b'.', 0x80, 2, b'}', b'.', 0x80, 2]);
        stream.extend_from_slice(b"}U\x01wctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\n");
        stream.extend_from_slice(b"U\x01kU\x03cpuK\x02NtQK\x00K\x02\x85K\x01\x85\x89}tRs.\x80\x02]U\x01ka.");
        stream.extend_from_slice(&count.to_le_bytes());
        stream.extend_from_slice(data);
        stream
    }

    #[test]
    fn a_legacy_stream_gives_its_storage() {
        let data: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|number| number.to_le_bytes()).collect();
        let stream = legacy(0xe9, 2, &data);
        assert!(is_legacy(&stream));
        let contents = read_legacy(&stream).unwrap();
        assert_eq!(contents.tensors.len(), 1);
        let stored = &contents.tensors[0];
        assert_eq!((stored.name.as_str(), stored.shape.as_slice()), ("w", [2].as_slice()));
        assert_eq!(Dtype::F32.decode(&stored.packed(&stream).unwrap()), [1.5, -2.0]);
    }

    #[test]
    fn a_legacy_stream_that_lies_about_its_length_is_cut_short() {
        for (count, data) in [(2, 7usize), (3, 8), (u64::MAX, 8), (1 << 62, 8)] {
            let problem = read_legacy(&legacy(0xe9, count, &vec![0; data])).unwrap_err();
            assert!(matches!(problem, WeightsError::Truncated { .. }), "{problem}");
        }
        // fewer elements than the tensor wants
        assert!(read_legacy(&legacy(0xe9, 1, &[0; 8])).is_err());
        assert!(read_legacy(&legacy(0xe8, 2, &[0; 8])).unwrap_err().to_string().contains("version"));
    }

    #[test]
    fn a_stream_without_tensors_is_an_error() {
        assert!(read_pickle(b"\x80\x02}.").unwrap_err().to_string().contains("no tensors"));
    }
}
