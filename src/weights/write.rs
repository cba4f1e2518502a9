//! Writer of safetensors files: the same tensors always give the same bytes, and a file is there whole or not at all.

use super::error::WeightsError;
use super::rebuild::malformed;
use super::tensor::{Dtype, element_count};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Values converted to bytes at a time.
const CHUNK: usize = 16_384;

/// Elements of a tensor to be written, row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum TensorData {
    F32(Vec<f32>),
    F16(Vec<half::f16>),
    U64(Vec<u64>),
    U8(Vec<u8>),
}

impl TensorData {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            TensorData::F32(values) => values.len(),
            TensorData::F16(values) => values.len(),
            TensorData::U64(values) => values.len(),
            TensorData::U8(values) => values.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Element type.
    pub fn dtype(&self) -> Dtype {
        match self {
            TensorData::F32(_) => Dtype::F32,
            TensorData::F16(_) => Dtype::F16,
            TensorData::U64(_) => Dtype::U64,
            TensorData::U8(_) => Dtype::U8,
        }
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        match self {
            TensorData::F32(values) => write_values(values, |value| value.to_le_bytes(), out),
            TensorData::F16(values) => write_values(values, |value| value.to_le_bytes(), out),
            TensorData::U64(values) => write_values(values, |value| value.to_le_bytes(), out),
            TensorData::U8(values) => out.write_all(values),
        }
    }
}

fn write_values<T, const N: usize>(
    values: &[T],
    bytes_of: impl Fn(&T) -> [u8; N],
    out: &mut impl Write,
) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(CHUNK.min(values.len()) * N);
    for chunk in values.chunks(CHUNK) {
        bytes.clear();
        for value in chunk {
            bytes.extend_from_slice(&bytes_of(value));
        }
        out.write_all(&bytes)?;
    }
    Ok(())
}

/// Writes named tensors and metadata as one safetensors file.
///
/// The bytes depend on the arguments alone, not on their order: wider element types come first, so that every tensor
/// is aligned, then names by their bytes. The file replaces an older one in one step ([`write_atomically`]).
///
/// # Errors
/// A name that occurs twice or is reserved, a shape that does not match its data, or a folder that cannot be written.
pub fn write_safetensors(
    path: &Path,
    tensors: &[(String, Vec<usize>, TensorData)],
    metadata: &BTreeMap<String, String>,
) -> Result<(), WeightsError> {
    let mut order: Vec<&(String, Vec<usize>, TensorData)> = tensors.iter().collect();
    order.sort_by(|left, right| {
        let by_width = right.2.dtype().size().cmp(&left.2.dtype().size());
        by_width.then_with(|| left.0.cmp(&right.0))
    });
    let header = header(&order, metadata).map_err(|problem| problem.in_file(Some(path)))?;
    replace(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(header.as_bytes())?;
        order.iter().try_for_each(|(_, _, data)| data.write(out))
    })
}

/// The JSON header, padded with spaces to a multiple of 8.
fn header(
    order: &[&(String, Vec<usize>, TensorData)],
    metadata: &BTreeMap<String, String>,
) -> Result<String, WeightsError> {
    let mut names: Vec<&str> = order.iter().map(|(name, _, _)| name.as_str()).collect();
    names.sort_unstable();
    if let Some([name, ..]) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return malformed(format!("tensor `{name}` is given twice"));
    }
    let mut parts = Vec::with_capacity(order.len() + 1);
    if !metadata.is_empty() {
        let mut entries = Vec::with_capacity(metadata.len());
        for (key, value) in metadata {
            entries.push(format!("{}:{}", json(key)?, json(value)?));
        }
        parts.push(format!("\"__metadata__\":{{{}}}", entries.join(",")));
    }
    let mut offset = 0usize;
    for (name, shape, data) in order {
        if name == "__metadata__" {
            return malformed("a tensor must not be called `__metadata__`".to_owned());
        }
        if element_count(shape) != Some(data.len()) {
            let what = format!("shape {shape:?} does not hold {} elements", data.len());
            return Err(WeightsError::Tensor { name: name.clone(), what });
        }
        let end = offset + data.len() * data.dtype().size();
        let mut sizes = String::new();
        for (axis, size) in shape.iter().enumerate() {
            let separator = if axis == 0 { "" } else { "," };
            // writing to a String cannot fail
            let _ = write!(sizes, "{separator}{size}");
        }
        parts.push(format!(
            "{}:{{\"dtype\":\"{}\",\"shape\":[{sizes}],\"data_offsets\":[{offset},{end}]}}",
            json(name)?,
            data.dtype()
        ));
        offset = end;
    }
    let mut header = format!("{{{}}}", parts.join(","));
    let padding = header.len().next_multiple_of(8) - header.len();
    header.extend(std::iter::repeat_n(' ', padding));
    Ok(header)
}

/// A text as a JSON string.
fn json(text: &str) -> Result<String, WeightsError> {
    serde_json::to_string(text).map_err(|cause| WeightsError::Malformed(format!("`{text}` as JSON: {cause}")))
}

/// Writes a whole file or leaves what was there: the bytes go to a temporary name in the same folder, reach the disk,
/// and then take the name.
///
/// # Errors
/// The folder does not exist or cannot be written; the temporary file is removed then.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), WeightsError> {
    replace(path, |out| out.write_all(bytes))
}

fn replace(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<(), WeightsError> {
    let temporary = temporary_name(path).map_err(|problem| problem.in_file(Some(path)))?;
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&temporary)
        .map_err(|cause| failed("create", path, cause))?;
    let result = fill(file, write).map_err(|cause| failed("write", path, cause)).and_then(|()| {
        fs::rename(&temporary, path).map_err(|cause| failed("give the finished file its name", path, cause))
    });
    if result.is_err() {
        // what failed is reported; that the leftover could not be removed either would only hide it
        let _ = fs::remove_file(&temporary);
        return result;
    }
    sync_folder(path).map_err(|cause| failed("sync the folder", path, cause))
}

fn failed(action: &'static str, path: &Path, cause: io::Error) -> WeightsError {
    WeightsError::Io { action, cause }.in_file(Some(path))
}

fn fill(file: File, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, file);
    write(&mut out)?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()
}

/// A name beside `path` that no other write of any process has at the same time.
fn temporary_name(path: &Path) -> Result<PathBuf, WeightsError> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let Some(name) = path.file_name() else {
        return malformed("the path names no file".to_owned());
    };
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}-{}.tmp", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)));
    Ok(path.with_file_name(temporary))
}

/// Makes the new name itself durable; a folder can be opened for that on Unix only.
#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_path: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensors() -> Vec<(String, Vec<usize>, TensorData)> {
        vec![
            ("b".to_owned(), vec![2], TensorData::F32(vec![1.0, -2.0])),
            ("a".to_owned(), vec![], TensorData::F32(vec![0.5])),
            ("bytes".to_owned(), vec![3], TensorData::U8(vec![1, 2, 3])),
            ("state".to_owned(), vec![1], TensorData::U64(vec![u64::MAX])),
        ]
    }

    #[test]
    fn the_bytes_are_those_of_the_format_and_follow_from_the_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let metadata = BTreeMap::from([("note \"x\"".to_owned(), "1".to_owned())]);
        write_safetensors(&path, &tensors(), &metadata).unwrap();
        let bytes = fs::read(&path).unwrap();
        // written by hand: eight-byte elements first, then by name, then the padding
        let header = r#"{"__metadata__":{"note \"x\"":"1"},"state":{"dtype":"U64","shape":[1],"data_offsets":[0,8]},"#
            .to_owned()
            + r#""a":{"dtype":"F32","shape":[],"data_offsets":[8,12]},"#
            + r#""b":{"dtype":"F32","shape":[2],"data_offsets":[12,20]},"#
            + r#""bytes":{"dtype":"U8","shape":[3],"data_offsets":[20,23]}}"#;
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        assert_eq!(length % 8, 0);
        assert_eq!(std::str::from_utf8(&bytes[8..8 + length]).unwrap().trim_end(), header);
        let data: Vec<u8> =
            [&[0xffu8; 8][..], &0.5f32.to_le_bytes(), &1f32.to_le_bytes(), &(-2f32).to_le_bytes(), &[1, 2, 3]].concat();
        assert_eq!(&bytes[8 + length..], data.as_slice());
        // the reference implementation reads it
        assert_eq!(::safetensors::SafeTensors::deserialize(&bytes).unwrap().len(), 4);

        let mut turned = tensors();
        turned.reverse();
        write_safetensors(&path, &turned, &metadata).unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }

    #[test]
    fn wrong_arguments_write_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let one = |name: &str, shape: Vec<usize>| (name.to_owned(), shape, TensorData::U8(vec![1, 2]));
        for wrong in
            [vec![one("a", vec![3])], vec![one("a", vec![2]), one("a", vec![2])], vec![one("__metadata__", vec![2])]]
        {
            assert!(write_safetensors(&path, &wrong, &BTreeMap::new()).is_err());
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_atomically(&path, b"old").unwrap();
        let result = replace(&path, |out| {
            out.write_all(b"half of the new")?;
            Err(io::Error::other("disk on fire"))
        });
        assert!(result.unwrap_err().to_string().contains("disk on fire"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        write_atomically(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(write_atomically(&folder.path().join("none").join("file"), b"").is_err());
        assert!(write_atomically(Path::new("/"), b"").is_err());
    }
}
