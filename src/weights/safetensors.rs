//! Reader of safetensors files, every length checked against the bytes there are.
//!
//! Format: 8 bytes header length, a JSON object of name → type, shape and offsets, then the data without holes. The
//! types of the header are those of the crate `safetensors`; its own reader forgets by how much a file is cut short.

use super::checkpoint::Contents;
use super::error::WeightsError;
use super::rebuild::malformed;
use super::source::u64_at;
use super::tensor::{Blob, Dtype, Region, StoredTensor, element_count};
use ::safetensors::tensor::{Dtype as FileDtype, TensorInfo};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;

/// Longest header, as in the reference implementation.
const MAX_HEADER: u64 = 100_000_000;

/// Whether the bytes begin like a safetensors file: a plausible length, then the header's brace.
pub(super) fn is_safetensors(bytes: &[u8]) -> bool {
    bytes.get(8) == Some(&b'{') && u64_at(bytes, 0).is_some_and(|length| length <= MAX_HEADER)
}

/// The header, in the order of the file.
struct Header {
    metadata: BTreeMap<String, String>,
    tensors: Vec<(String, TensorInfo)>,
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut header = Header { metadata: BTreeMap::new(), tensors: Vec::new() };
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                header.metadata = map.next_value()?;
            } else {
                header.tensors.push((name, map.next_value()?));
            }
        }
        Ok(header)
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

/// Reads the header and places every tensor.
pub(super) fn read(bytes: &[u8]) -> Result<Contents, WeightsError> {
    let actual = bytes.len() as u64;
    let truncated = |what: &str, expected: u64| WeightsError::Truncated { what: what.to_owned(), expected, actual };
    let length = u64_at(bytes, 0).ok_or_else(|| truncated("safetensors header length", 8))?;
    if length > MAX_HEADER {
        return malformed(format!("safetensors header of {length} bytes, at most {MAX_HEADER} are allowed"));
    }
    let data = length.saturating_add(8);
    let start = usize::try_from(data).map_err(|_| truncated("safetensors header", data))?;
    let header = bytes.get(8..start).ok_or_else(|| truncated("safetensors header", data))?;
    let header: Header = serde_json::from_slice(header)
        .map_err(|cause| WeightsError::Malformed(format!("safetensors header: {cause}")))?;
    let Header { metadata, mut tensors } = header;
    tensors.sort_by(|(left, a), (right, b)| a.data_offsets.cmp(&b.data_offsets).then_with(|| left.cmp(right)));

    let end = tensors.iter().map(|(_, info)| info.data_offsets.1).max().unwrap_or(0);
    let expected = data.saturating_add(end as u64);
    if expected > actual {
        return Err(truncated("safetensors file", expected));
    }
    if expected < actual {
        return malformed(format!("safetensors file of {actual} bytes, its header accounts for {expected}"));
    }
    let mut placed = Vec::with_capacity(tensors.len());
    let mut next = 0usize;
    for (name, info) in tensors {
        let (first, last) = info.data_offsets;
        if first != next || last < first {
            let what = format!("offsets {first}..{last} leave a hole or overlap, expected to begin at {next}");
            return Err(WeightsError::Tensor { name, what });
        }
        next = last;
        placed.push(place(name, info, start)?);
    }
    if let Some(name) = repeated(&placed) {
        return malformed(format!("safetensors header names `{name}` twice"));
    }
    Ok(Contents { tensors: placed, buffers: Vec::new(), metadata })
}

fn place(name: String, info: TensorInfo, start: usize) -> Result<StoredTensor, WeightsError> {
    let TensorInfo { dtype: file_dtype, shape, data_offsets: (first, last) } = info;
    let Some(dtype) = dtype(file_dtype) else {
        return Err(WeightsError::Tensor { name, what: format!("element type {file_dtype} is not supported") });
    };
    let length = last.saturating_sub(first);
    if element_count(&shape).and_then(|count| count.checked_mul(dtype.size())) != Some(length) {
        let what = format!("shape {shape:?} of {dtype} does not fill {length} bytes");
        return Err(WeightsError::Tensor { name, what });
    }
    let region = Region {
        blob: Blob::File,
        start: start.saturating_add(first),
        end: start.saturating_add(last),
        big_endian: false,
    };
    StoredTensor::new(name, dtype, shape, None, 0, region)
}

fn dtype(dtype: FileDtype) -> Option<Dtype> {
    match dtype {
        FileDtype::F64 => Some(Dtype::F64),
        FileDtype::F32 => Some(Dtype::F32),
        FileDtype::F16 => Some(Dtype::F16),
        FileDtype::BF16 => Some(Dtype::BF16),
        FileDtype::I64 => Some(Dtype::I64),
        FileDtype::U64 => Some(Dtype::U64),
        FileDtype::I32 => Some(Dtype::I32),
        FileDtype::U32 => Some(Dtype::U32),
        FileDtype::I16 => Some(Dtype::I16),
        FileDtype::U16 => Some(Dtype::U16),
        FileDtype::I8 => Some(Dtype::I8),
        FileDtype::U8 => Some(Dtype::U8),
        FileDtype::BOOL => Some(Dtype::Bool),
        _ => None,
    }
}

/// A name that occurs more than once.
fn repeated(tensors: &[StoredTensor]) -> Option<&str> {
    let mut names: Vec<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    names.sort_unstable();
    names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(data);
        bytes
    }

    const TWO: &str = r#"{"__metadata__":{"author":"me"},"b":{"dtype":"F16","shape":[2],"data_offsets":[4,8]},
        "a":{"dtype":"I32","shape":[],"data_offsets":[0,4]}}"#;

    #[test]
    fn tensors_come_in_the_order_of_their_data_with_metadata() {
        let bytes = file(TWO, &[7, 0, 0, 0, 0, 0x3c, 0, 0xc0]);
        assert!(is_safetensors(&bytes));
        let contents = read(&bytes).unwrap();
        let names: Vec<&str> = contents.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(contents.metadata.get("author").map(String::as_str), Some("me"));
        assert_eq!(Dtype::F16.decode(&contents.tensors[1].packed(&bytes).unwrap()), [1.0, -2.0]);
    }

    #[test]
    fn a_short_file_says_how_long_it_should_be() {
        let bytes = file(TWO, &[0; 8]);
        let short = &bytes[..bytes.len() - 3];
        match read(short).unwrap_err() {
            WeightsError::Truncated { expected, actual, .. } => {
                assert_eq!((expected, actual), (bytes.len() as u64, short.len() as u64));
            }
            other => panic!("{other}"),
        }
        match read(&bytes[..20]).unwrap_err() {
            WeightsError::Truncated { expected, actual, .. } => {
                assert_eq!((expected, actual), (8 + TWO.len() as u64, 20));
            }
            other => panic!("{other}"),
        }
    }

    #[test]
    fn headers_that_contradict_themselves_are_refused() {
        for (header, data, word) in [
            (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, 4, "does not fill"),
            (r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}"#, 4, "hole"),
            (r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[4,0]}}"#, 0, "hole"),
            (r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#, 2, "accounts for"),
            (r#"{"a":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}"#, 1, "F8_E4M3"),
            (r#"{"a":{"dtype":"U8","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,1]}}"#, 1, "fill"),
            (
                r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#,
                2,
                "twice",
            ),
            (r#"{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}"#, 1, "header"),
            (r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,18446744073709551615]}}"#, 1, "needs"),
        ] {
            let text = read(&file(header, &vec![0; data])).unwrap_err().to_string();
            assert!(text.contains(word), "{header}: {text}");
        }
    }
}
