//! An opened checkpoint: its tensors by name, and their numbers on request.

use super::error::WeightsError;
use super::source::Source;
use super::tensor::{Blob, Dtype, StoredTensor};
use crate::random::mix;
use serde::Serialize;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

/// The container a checkpoint came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Format {
    /// Zip archive of torch 1.6 and later.
    TorchZip,
    /// Pickle stream followed by storages, torch before 1.6.
    TorchLegacy,
    /// Plain pickle with numpy arrays (detectron2).
    Pickle,
    Safetensors,
    /// Header and one run of floats, in the order of the layers of a cfg file.
    Darknet,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::TorchZip => "torch zip",
            Format::TorchLegacy => "torch legacy stream",
            Format::Pickle => "pickle",
            Format::Safetensors => "safetensors",
            Format::Darknet => "darknet weights",
        })
    }
}

/// What a reader finds in the bytes of a file.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub tensors: Vec<StoredTensor>,
    /// Bytes that do not lie in the file as they are: inflated entries, decoded strings.
    pub buffers: Vec<Vec<u8>>,
    pub metadata: BTreeMap<String, String>,
}

/// A weights file that is open: the tensors are listed, their numbers stay in the file until they are read.
#[derive(Debug)]
pub struct Checkpoint {
    format: Format,
    source: Source,
    buffers: Vec<Vec<u8>>,
    tensors: Vec<StoredTensor>,
    positions: HashMap<String, usize>,
    metadata: BTreeMap<String, String>,
    path: Option<PathBuf>,
}

impl Checkpoint {
    pub(super) fn new(format: Format, source: Source, contents: Contents, path: Option<&Path>) -> Self {
        let Contents { tensors, buffers, metadata } = contents;
        let positions = positions(&tensors);
        Checkpoint { format, source, buffers, tensors, positions, metadata, path: path.map(Path::to_path_buf) }
    }

    /// All tensors in the order of the file.
    pub fn tensors(&self) -> &[StoredTensor] {
        &self.tensors
    }

    /// What the file says beside its tensors: safetensors metadata, numbers and texts beside a state dict, the header
    /// of darknet weights. `container` is the path of keys that led to the state dict.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The container it came in.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The file it came from; none for bytes from memory.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&StoredTensor> {
        self.positions.get(name).and_then(|&position| self.tensors.get(position))
    }

    /// The numbers of `tensor` row-major as `f32`; wider types are rounded to the nearest, `true` is 1.
    ///
    /// # Errors
    /// The tensor belongs to another checkpoint and does not fit this one.
    pub fn read_f32(&self, tensor: &StoredTensor) -> Result<Vec<f32>, WeightsError> {
        Ok(tensor.dtype.decode(&self.packed(tensor)?))
    }

    /// The numbers of a `U64` or `I64` tensor, bit for bit: generator states and counters, which `f32` would round.
    ///
    /// # Errors
    /// Another element type, or a tensor of another checkpoint.
    pub fn read_u64(&self, tensor: &StoredTensor) -> Result<Vec<u64>, WeightsError> {
        if !matches!(tensor.dtype, Dtype::U64 | Dtype::I64) {
            let what = format!("is {}, needs U64 or I64", tensor.dtype);
            let problem = WeightsError::Tensor { name: tensor.name.clone(), what };
            return Err(problem.in_file(self.path()));
        }
        let packed = self.packed(tensor)?;
        Ok(packed.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect())
    }

    /// The bytes of `tensor`, row-major and little-endian.
    ///
    /// # Errors
    /// The tensor belongs to another checkpoint and does not fit this one.
    pub fn read_bytes(&self, tensor: &StoredTensor) -> Result<Vec<u8>, WeightsError> {
        Ok(self.packed(tensor)?.into_owned())
    }

    /// Gives every tensor the name `f` answers; without an answer, or where an earlier tensor has taken that name, it
    /// keeps its own.
    pub fn rename(&mut self, f: impl Fn(&str) -> Option<String>) {
        let mut taken: HashMap<String, usize> = HashMap::with_capacity(self.tensors.len());
        for (position, tensor) in self.tensors.iter_mut().enumerate() {
            if let Some(name) = f(&tensor.name)
                && !taken.contains_key(&name)
            {
                tensor.name = name;
            }
            taken.entry(tensor.name.clone()).or_insert(position);
        }
        self.positions = taken;
    }

    /// Fingerprint of the file's bytes, 32 hexadecimal digits, the same on every machine. It tells files apart; it is
    /// no protection against forgery.
    pub fn digest(&self) -> String {
        let bytes = self.source.bytes();
        let (words, rest) = bytes.as_chunks::<8>();
        // four lanes, since each step of one waits for the step before it
        let mut lanes = [1u64, 2, 3, 4].map(mix);
        for (position, word) in words.iter().enumerate() {
            let lane = &mut lanes[position % 4];
            *lane = mix(*lane ^ u64::from_le_bytes(*word));
        }
        let mut last = [0u8; 8];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        let tail = mix(bytes.len() as u64) ^ u64::from_le_bytes(last);
        let high = lanes.iter().fold(mix(tail), |hash, &lane| mix(hash ^ lane));
        let low = lanes.iter().rev().fold(mix(!tail), |hash, &lane| mix(hash ^ lane));
        format!("{high:016x}{low:016x}")
    }

    /// All bytes of the file.
    pub(super) fn bytes(&self) -> &[u8] {
        self.source.bytes()
    }

    fn packed(&self, tensor: &StoredTensor) -> Result<Cow<'_, [u8]>, WeightsError> {
        let blob = match tensor.blob() {
            Blob::File => self.source.bytes(),
            Blob::Buffer(buffer) => self.buffers.get(buffer).map(Vec::as_slice).unwrap_or_default(),
        };
        tensor.packed(blob).map_err(|problem| problem.in_file(self.path()))
    }
}

fn positions(tensors: &[StoredTensor]) -> HashMap<String, usize> {
    let mut positions = HashMap::with_capacity(tensors.len());
    for (position, tensor) in tensors.iter().enumerate() {
        positions.entry(tensor.name.clone()).or_insert(position);
    }
    positions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::tensor::Region;

    fn checkpoint(bytes: &[u8]) -> Checkpoint {
        let region = |start: usize, end: usize| Region { blob: Blob::File, start, end, big_endian: false };
        let tensors = vec![
            StoredTensor::new("a.weight".into(), Dtype::U8, vec![2], None, 0, region(0, 2)).unwrap(),
            StoredTensor::new("b.weight".into(), Dtype::U64, vec![1], None, 0, region(2, 10)).unwrap(),
        ];
        let contents = Contents { tensors, ..Contents::default() };
        Checkpoint::new(Format::Safetensors, Source::from(bytes.to_vec()), contents, None)
    }

    const BYTES: [u8; 11] = [3, 4, 1, 0, 0, 0, 0, 0, 0, 0x80, 9];

    #[test]
    fn numbers_are_read_by_name_and_64_bits_survive() {
        let checkpoint = checkpoint(&BYTES);
        assert_eq!(checkpoint.read_f32(checkpoint.get("a.weight").unwrap()).unwrap(), [3.0, 4.0]);
        let counter = checkpoint.get("b.weight").unwrap();
        assert_eq!(checkpoint.read_u64(counter).unwrap(), [0x8000_0000_0000_0001]);
        assert_eq!(checkpoint.read_bytes(counter).unwrap(), BYTES[2..10].to_vec());
        assert!(checkpoint.read_u64(checkpoint.get("a.weight").unwrap()).is_err());
        assert!(checkpoint.get("c").is_none());
    }

    #[test]
    fn a_tensor_of_a_longer_checkpoint_is_an_error() {
        let (long, short) = (checkpoint(&BYTES), checkpoint(&BYTES[..5]));
        assert!(short.read_f32(&long.tensors()[1]).is_err());
    }

    #[test]
    fn renaming_keeps_what_has_no_answer_and_never_hides_a_tensor() {
        let mut renamed = checkpoint(&BYTES);
        renamed.rename(|name| name.strip_prefix("a.").map(str::to_owned));
        assert_eq!(renamed.get("weight").unwrap().elements(), 2);
        assert!(renamed.get("a.weight").is_none());
        assert!(renamed.get("b.weight").is_some());
        // both would become `same`: the first does
        renamed.rename(|_| Some("same".to_owned()));
        assert_eq!(renamed.get("same").unwrap().dtype, Dtype::U8);
        assert_eq!(renamed.get("b.weight").unwrap().dtype, Dtype::U64);
    }

    #[test]
    fn the_digest_sees_every_byte_and_the_length() {
        let digest = checkpoint(&BYTES).digest();
        assert_eq!(digest.len(), 32);
        assert_eq!(digest, checkpoint(&BYTES).digest());
        for position in 0..BYTES.len() {
            let mut changed = BYTES;
            changed[position] ^= 1;
            assert_ne!(digest, checkpoint(&changed).digest(), "byte {position}");
        }
        let longer: Vec<u8> = BYTES.iter().copied().chain([0]).collect();
        assert_ne!(digest, checkpoint(&longer).digest());
    }
}
