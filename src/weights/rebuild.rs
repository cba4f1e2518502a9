//! Tensors out of pickled calls: what torch's `_rebuild_…` functions would build, read from their arguments.
//!
//! The argument lists are those of `torch/_utils.py` and of the persistent ids in `torch/serialization.py`.

use super::error::WeightsError;
use super::pickle::{Id, Pickle, RawBytes, Value};
use super::tensor::{Blob, Dtype, MAX_RANK, Region, StoredTensor};
use std::borrow::Cow;
use std::collections::HashMap;

/// Parameters wrap tensors; more wrappers than this are a loop.
const MAX_WRAPPERS: usize = 8;

/// A tensor that has no name yet.
#[derive(Debug)]
pub(super) struct RawTensor {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// In elements; row-major where absent.
    pub strides: Option<Vec<usize>>,
    pub offset: usize,
    pub region: Region,
}

impl RawTensor {
    /// Checks it against its bytes and names it.
    pub(super) fn named(self, name: &str) -> Result<StoredTensor, WeightsError> {
        StoredTensor::new(name.to_owned(), self.dtype, self.shape, self.strides, self.offset, self.region)
    }
}

/// Reads the tensors of one pickle.
pub(super) struct Rebuilder<'p> {
    pub(super) pickle: &'p Pickle<'p>,
    /// Storages by their key.
    storages: HashMap<String, Region>,
    /// Whether the pickle's bytes are the file's own; then arrays inside it are read in place.
    in_file: bool,
    pub(super) buffers: Vec<Vec<u8>>,
    /// Byte strings that were decoded or copied into a buffer, so that naming one often costs once.
    decoded: HashMap<Id, Region>,
}

impl<'p> Rebuilder<'p> {
    pub(super) fn new(
        pickle: &'p Pickle<'p>,
        storages: HashMap<String, Region>,
        buffers: Vec<Vec<u8>>,
        in_file: bool,
    ) -> Self {
        Rebuilder { pickle, storages, in_file, buffers, decoded: HashMap::new() }
    }

    /// The tensor that a value is, or nothing where it is something else.
    ///
    /// # Errors
    /// It is a tensor, but of a kind that is not supported or without its storage.
    pub(super) fn tensor(&mut self, id: Id) -> Result<Option<RawTensor>, WeightsError> {
        self.unwrapped(id, 0)
    }

    /// Whether a value is a tensor, as far as its class tells.
    pub(super) fn is_tensor(&self, id: Id) -> bool {
        let Value::Object(object) = self.pickle.value(id) else {
            return false;
        };
        match self.pickle.class(object.class) {
            Some((module, name)) => is_tensor_class(module, name),
            None => false,
        }
    }

    fn unwrapped(&mut self, id: Id, wrappers: usize) -> Result<Option<RawTensor>, WeightsError> {
        let pickle = self.pickle;
        let Value::Object(object) = pickle.value(id) else {
            return Ok(None);
        };
        let Some((module, name)) = pickle.class(object.class) else {
            return Ok(None);
        };
        let arguments = pickle.items(object.arguments).unwrap_or_default();
        self.call(module, name, arguments, object.state, wrappers)
    }

    fn call(
        &mut self,
        module: &str,
        name: &str,
        arguments: &[Id],
        state: Option<Id>,
        wrappers: usize,
    ) -> Result<Option<RawTensor>, WeightsError> {
        if !is_tensor_class(module, name) {
            return Ok(None);
        }
        if wrappers > MAX_WRAPPERS {
            return malformed(format!("is wrapped more than {MAX_WRAPPERS} times"));
        }
        match name {
            "_rebuild_tensor" | "_rebuild_tensor_v2" => self.strided(arguments, None).map(Some),
            "_rebuild_tensor_v3" => {
                let dtype = arguments.get(6).and_then(|id| self.pickle.class(*id)).and_then(torch_dtype);
                match dtype {
                    Some(dtype) => self.strided(arguments, Some(dtype)).map(Some),
                    None => malformed("has an element type that is not supported".to_owned()),
                }
            }
            "_rebuild_parameter" | "_rebuild_parameter_with_state" | "Parameter" | "Buffer" | "Variable" => {
                match arguments.first() {
                    Some(inner) => self.unwrapped(*inner, wrappers + 1),
                    None => malformed(format!("{module}.{name} without a tensor")),
                }
            }
            // (function, type, arguments, state): a subclass of Tensor
            "_rebuild_from_type_v2" => {
                let pickle = self.pickle;
                let function = arguments.first().and_then(|id| pickle.class(*id));
                let inner = arguments.get(2).and_then(|id| pickle.items(*id));
                match (function, inner) {
                    (Some((module, name)), Some(inner)) => self.call(module, name, inner, None, wrappers + 1),
                    _ => malformed(format!("{module}.{name} without a function")),
                }
            }
            "_reconstruct" => self.array(state),
            "scalar" => self.scalar(arguments),
            "_frombuffer" => self.array_from_buffer(arguments),
            _ => malformed(format!("{module}.{name} is not supported; dense tensors and numpy arrays are")),
        }
    }

    /// `(storage, offset, size, stride, …)`; `dtype` where the storage has none.
    fn strided(&mut self, arguments: &[Id], dtype: Option<Dtype>) -> Result<RawTensor, WeightsError> {
        let [storage, offset, size, stride, ..] = arguments else {
            return malformed(format!("a tensor of {} arguments, needs 4", arguments.len()));
        };
        let Some(storage) = storage_id(self.pickle, *storage)? else {
            return malformed("a tensor without a storage".to_owned());
        };
        let Some(dtype) = dtype.or(storage.dtype) else {
            return malformed(format!("storage `{}` has no element type", storage.key));
        };
        let Some(mut region) = self.storages.get(&*storage.key).copied() else {
            return malformed(format!("storage `{}` is not in the file", storage.key));
        };
        if let Some((first, count)) = storage.view {
            let size = storage.dtype.map_or(1, Dtype::size);
            let start = first.checked_mul(size).and_then(|bytes| region.start.checked_add(bytes));
            let end = start.and_then(|start| start.checked_add(count.checked_mul(size)?));
            match (start, end) {
                (Some(start), Some(end)) if end <= region.end => (region.start, region.end) = (start, end),
                _ => return malformed(format!("a view reaches outside of storage `{}`", storage.key)),
            }
        }
        let Some(offset) = natural(self.pickle, *offset) else {
            return malformed("an offset that is not a count".to_owned());
        };
        let shape = sizes(self.pickle, *size)?;
        let strides = Some(sizes(self.pickle, *stride)?);
        Ok(RawTensor { dtype, shape, strides, offset, region })
    }

    /// Where the bytes of a byte string lie; they are decoded at most once.
    pub(super) fn bytes_region(&mut self, id: Id) -> Option<Region> {
        if let Some(region) = self.decoded.get(&id) {
            return Some(*region);
        }
        let region = match self.pickle.raw(id)? {
            RawBytes::InPlace(span) if self.in_file => {
                Region { blob: Blob::File, start: span.start, end: span.end, big_endian: false }
            }
            RawBytes::InPlace(span) => self.buffer(self.pickle.bytes.get(span.start..span.end)?.to_vec()),
            RawBytes::Decoded(bytes) => self.buffer(bytes),
        };
        self.decoded.insert(id, region);
        Some(region)
    }

    fn buffer(&mut self, bytes: Vec<u8>) -> Region {
        let region = Region { blob: Blob::Buffer(self.buffers.len()), start: 0, end: bytes.len(), big_endian: false };
        self.buffers.push(bytes);
        region
    }
}

/// An error about a tensor whose name the caller knows.
pub(super) fn malformed<T>(what: String) -> Result<T, WeightsError> {
    Err(WeightsError::Malformed(what))
}

fn is_tensor_class(module: &str, name: &str) -> bool {
    match module {
        "torch._utils" => name.starts_with("_rebuild"),
        "torch._tensor" => name == "_rebuild_from_type_v2",
        "torch.nn.parameter" => matches!(name, "Parameter" | "Buffer"),
        "torch.autograd.variable" => name == "Variable",
        "numpy.core.multiarray" | "numpy._core.multiarray" => matches!(name, "_reconstruct" | "scalar"),
        "numpy.core.numeric" | "numpy._core.numeric" => name == "_frombuffer",
        _ => false,
    }
}

/// What a persistent id says about a storage.
pub(super) struct StorageId<'p> {
    pub key: Cow<'p, str>,
    /// Absent for untyped storages, which count bytes.
    pub dtype: Option<Dtype>,
    /// First element and number of elements of a view into another storage.
    pub view: Option<(usize, usize)>,
}

/// The storage that a value refers to: `('storage', class, key, location, count[, view])`. Nothing where it is none.
///
/// # Errors
/// A class of storage that is not supported.
pub(super) fn storage_id<'p>(pickle: &'p Pickle<'p>, id: Id) -> Result<Option<StorageId<'p>>, WeightsError> {
    let Value::Persistent(tuple) = pickle.value(id) else {
        return Ok(None);
    };
    let Some([kind, class, key, _location, _count, rest @ ..]) = pickle.items(*tuple) else {
        return Ok(None);
    };
    if pickle.text(*kind) != Some("storage") {
        return Ok(None);
    }
    let (Some((module, class)), Some(key)) = (pickle.class(*class), pickle.key(*key)) else {
        return malformed("a storage without class or key".to_owned());
    };
    let dtype = match storage_dtype(class) {
        Some(dtype) if module.starts_with("torch") => dtype,
        _ => return malformed(format!("storage class {module}.{class} is not supported")),
    };
    // (key of the view, first element, number of elements)
    let view = rest.first().and_then(|view| pickle.items(*view)).and_then(|view| match view {
        [_, first, count] => Some((natural(pickle, *first)?, natural(pickle, *count)?)),
        _ => None,
    });
    Ok(Some(StorageId { key, dtype, view }))
}

/// The element type of a storage class; `Some(None)` for untyped bytes.
fn storage_dtype(class: &str) -> Option<Option<Dtype>> {
    Some(Some(match class {
        "DoubleStorage" => Dtype::F64,
        "FloatStorage" => Dtype::F32,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::BF16,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ShortStorage" => Dtype::I16,
        "CharStorage" => Dtype::I8,
        "ByteStorage" => Dtype::U8,
        "BoolStorage" => Dtype::Bool,
        "UntypedStorage" | "_UntypedStorage" | "_LoadUntyped" => return Some(None),
        _ => return None,
    }))
}

/// The element type that a global such as `torch.float32` names.
fn torch_dtype((module, name): (&str, &str)) -> Option<Dtype> {
    match name {
        _ if module != "torch" => None,
        "float64" | "double" => Some(Dtype::F64),
        "float32" | "float" => Some(Dtype::F32),
        "float16" | "half" => Some(Dtype::F16),
        "bfloat16" => Some(Dtype::BF16),
        "int64" | "long" => Some(Dtype::I64),
        "uint64" => Some(Dtype::U64),
        "int32" | "int" => Some(Dtype::I32),
        "uint32" => Some(Dtype::U32),
        "int16" | "short" => Some(Dtype::I16),
        "uint16" => Some(Dtype::U16),
        "int8" => Some(Dtype::I8),
        "uint8" => Some(Dtype::U8),
        "bool" => Some(Dtype::Bool),
        _ => None,
    }
}

/// A count or position.
pub(super) fn natural(pickle: &Pickle<'_>, id: Id) -> Option<usize> {
    pickle.int(id).and_then(|number| usize::try_from(number).ok())
}

/// A shape or strides: a tuple, a list or a `torch.Size` of counts.
pub(super) fn sizes(pickle: &Pickle<'_>, id: Id) -> Result<Vec<usize>, WeightsError> {
    let items = match pickle.value(id) {
        Value::Object(object) if pickle.class(object.class) == Some(("torch", "Size")) => {
            let first = pickle.items(object.arguments).and_then(|arguments| arguments.first());
            first.and_then(|first| pickle.items(*first))
        }
        _ => pickle.items(id),
    };
    let Some(items) = items else {
        return malformed("a shape or strides that are not a tuple".to_owned());
    };
    if items.len() > MAX_RANK {
        return malformed(format!("{} dimensions, at most {MAX_RANK} are supported", items.len()));
    }
    let sizes: Option<Vec<usize>> = items.iter().map(|item| natural(pickle, *item)).collect();
    sizes.ok_or_else(|| WeightsError::Malformed("a shape or strides that are not counts".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The storage of `stream` rebuilt over a file of 24 bytes.
    fn rebuild(stream: &[u8]) -> Result<Option<StoredTensor>, WeightsError> {
        let pickle = Pickle::parse(stream, 0).unwrap();
        let region = Region { blob: Blob::File, start: 0, end: 24, big_endian: false };
        let mut rebuilder = Rebuilder::new(&pickle, HashMap::from([("0".to_owned(), region)]), Vec::new(), true);
        match rebuilder.tensor(pickle.root())? {
            Some(raw) => raw.named("t").map(Some),
            None => Ok(None),
        }
    }

    /// `function(('storage', torch.class, key, 'cpu', 6) as a persistent id, rest…)`, written by hand.
    fn call(function: &str, class: &str, key: &str, rest: &[u8]) -> Vec<u8> {
        let head = format!("c{function}\n((U\u{7}storagectorch\n{class}\nU\u{1}{key}U\u{3}cpuK\u{6}tQ");
        let mut stream = head.into_bytes();
        stream.extend_from_slice(rest);
        stream.extend_from_slice(b"tR.");
        stream
    }

    #[test]
    fn a_dense_tensor_has_the_shape_and_strides_of_its_arguments() {
        // offset 1, size (2, 2), stride (1, 2) over six floats
        let rest = b"K\x01K\x02K\x02\x86K\x01K\x02\x86\x89N";
        let stored = rebuild(&call("torch._utils\n_rebuild_tensor_v2", "FloatStorage", "0", rest)).unwrap().unwrap();
        assert_eq!((stored.shape.as_slice(), stored.dtype), ([2, 2].as_slice(), Dtype::F32));
        let file: Vec<u8> = (0..6).flat_map(|number| (number as f32).to_le_bytes()).collect();
        assert_eq!(Dtype::F32.decode(&stored.packed(&file).unwrap()), [1.0, 3.0, 2.0, 4.0]);
    }

    #[test]
    fn an_untyped_storage_takes_the_type_of_its_tensor() {
        let rest = b"K\x02K\x03\x85K\x01\x85\x89Nctorch\nfloat16\n";
        let stored = rebuild(&call("torch._utils\n_rebuild_tensor_v3", "UntypedStorage", "0", rest)).unwrap().unwrap();
        assert_eq!((stored.shape.as_slice(), stored.dtype), ([3].as_slice(), Dtype::F16));
    }

    #[test]
    fn what_cannot_be_built_says_why() {
        let rest = b"K\x00K\x06\x85K\x01\x85";
        for (function, class, key, word) in [
            ("torch._utils\n_rebuild_tensor_v2", "FloatStorage", "9", "not in the file"),
            ("torch._utils\n_rebuild_tensor_v2", "ComplexFloatStorage", "0", "ComplexFloatStorage"),
            ("torch._utils\n_rebuild_tensor_v2", "UntypedStorage", "0", "no element type"),
            ("torch._utils\n_rebuild_tensor_v2", "DoubleStorage", "0", "48 bytes"),
            ("torch._utils\n_rebuild_qtensor", "FloatStorage", "0", "_rebuild_qtensor"),
        ] {
            let text = rebuild(&call(function, class, key, rest)).unwrap_err().to_string();
            assert!(text.contains(word), "{text}");
        }
        assert!(rebuild(&call("os\nsystem", "FloatStorage", "0", rest)).unwrap().is_none());
    }

    #[test]
    fn a_chain_of_wrappers_is_refused() {
        // _rebuild_parameter of _rebuild_parameter of … None, 20 deep
        let mut stream = b"ctorch._utils\n_rebuild_parameter\nq\x000".to_vec();
        for _ in 0..20 {
            stream.extend_from_slice(b"h\x00");
        }
        stream.push(b'N');
        for _ in 0..20 {
            stream.extend_from_slice(b"\x85R");
        }
        stream.push(b'.');
        assert!(rebuild(&stream).unwrap_err().to_string().contains("wrapped"));
    }

    #[test]
    fn views_of_a_storage_stay_inside_it() {
        // view metadata ('v', first, count) as the sixth item of the persistent id, as legacy streams have it
        let stream = |first: u8, count: u8| {
            let mut stream = b"ctorch._utils\n_rebuild_tensor\n((U\x07storagectorch\nFloatStorage\n".to_vec();
            stream.extend_from_slice(b"U\x010U\x03cpuK\x06U\x01v");
            stream.extend_from_slice(&[b'K', first, b'K', count]);
            stream.extend_from_slice(b"\x87tQK\x00K\x02\x85K\x01\x85tR.");
            stream
        };
        assert!(rebuild(&stream(4, 2)).is_ok());
        assert!(rebuild(&stream(4, 3)).is_err());
        assert!(rebuild(&stream(4, 1)).is_err());
    }
}
