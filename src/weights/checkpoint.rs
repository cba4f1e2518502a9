//! An opened checkpoint: its tensors by name, and their numbers on request.

use super::error::WeightsError;
use super::keymap::{self, Layout};
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
    layout: Option<Layout>,
}

impl Checkpoint {
    pub(super) fn new(format: Format, source: Source, contents: Contents, path: Option<&Path>) -> Self {
        let Contents { tensors, buffers, metadata } = contents;
        let positions = positions(&tensors);
        let path = path.map(Path::to_path_buf);
        Checkpoint { format, source, buffers, tensors, positions, metadata, path, layout: None }
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

    /// Whose names it came with, once [`Self::translate`] has recognised and replaced them.
    pub fn layout(&self) -> Option<Layout> {
        self.layout
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&StoredTensor> {
        self.position(name).and_then(|position| self.tensors.get(position))
    }

    /// Where in [`Self::tensors`] the tensor of that name stands. A tensor may have several names.
    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.positions.get(name).copied()
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

    /// Recognises whose names these are and gives every tensor its native ones ([`keymap::native_names`]). Copies that
    /// the reference saves of one and the same module are left out.
    pub fn translate(&mut self) -> Option<Layout> {
        let layout = {
            let names: Vec<&str> = self.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
            keymap::detect_layout(&names)
        }?;
        for prefix in keymap::shared_modules(layout) {
            self.drop_copies(prefix);
        }
        self.rename(|name| keymap::native_names(layout, name));
        self.layout = Some(layout);
        Some(layout)
    }

    /// Gives every tensor the first name `f` answers, and lets it be found under the others too; without an answer, or
    /// where an earlier tensor has taken that name, it keeps its own.
    fn rename(&mut self, f: impl Fn(&str) -> Vec<String>) {
        let mut taken: HashMap<String, usize> = HashMap::with_capacity(self.tensors.len());
        let mut further: Vec<(String, usize)> = Vec::new();
        for (position, tensor) in self.tensors.iter_mut().enumerate() {
            let mut names = f(&tensor.name).into_iter();
            if let Some(name) = names.next()
                && !taken.contains_key(&name)
            {
                tensor.name = name;
            }
            taken.entry(tensor.name.clone()).or_insert(position);
            further.extend(names.map(|name| (name, position)));
        }
        for (name, position) in further {
            taken.entry(name).or_insert(position);
        }
        self.positions = taken;
    }

    /// Leaves out `{prefix}1.*`, `{prefix}2.*`, … where all of them hold the same values as `{prefix}0.*`.
    fn drop_copies(&mut self, prefix: &str) {
        let mut copies = vec![false; self.tensors.len()];
        for (copy, tensor) in copies.iter_mut().zip(&self.tensors) {
            let Some((number, leaf)) = tensor.name.strip_prefix(prefix).and_then(|rest| rest.split_once('.')) else {
                continue;
            };
            if number == "0" || !number.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            let first = self.get(&format!("{prefix}0.{leaf}"));
            let same = first.is_some_and(|first| {
                let bytes = |tensor: &StoredTensor| self.packed(tensor).ok();
                first.shape == tensor.shape && first.dtype == tensor.dtype && bytes(first) == bytes(tensor)
            });
            // counters of batches may differ, and nothing computes with them
            if !same && leaf.rsplit('.').next() != Some("num_batches_tracked") {
                return;
            }
            *copy = true;
        }
        let mut copies = copies.into_iter();
        self.tensors.retain(|_| !copies.next().unwrap_or(false));
        self.positions = positions(&self.tensors);
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
        renamed.rename(|name| name.strip_prefix("a.").map(str::to_owned).into_iter().collect());
        assert_eq!(renamed.get("weight").unwrap().elements(), 2);
        assert!(renamed.get("a.weight").is_none());
        assert!(renamed.get("b.weight").is_some());
        // both would become `same`: the first does
        renamed.rename(|_| vec!["same".to_owned()]);
        assert_eq!(renamed.get("same").unwrap().dtype, Dtype::U8);
        assert_eq!(renamed.get("b.weight").unwrap().dtype, Dtype::U64);
    }

    #[test]
    fn further_names_lead_to_the_same_tensor() {
        let mut renamed = checkpoint(&BYTES);
        renamed.rename(|name| vec![format!("first.{name}"), format!("second.{name}"), "first.a.weight".to_owned()]);
        assert_eq!(renamed.tensors().len(), 2);
        assert_eq!(renamed.position("second.b.weight"), Some(1));
        assert_eq!(renamed.position("first.b.weight"), Some(1));
        // a name of its own comes before another tensor's further one
        assert_eq!(renamed.position("first.a.weight"), Some(0));
    }

    #[test]
    fn copies_of_a_shared_module_are_left_out_and_others_are_not() {
        let region = |start: usize| Region { blob: Blob::File, start, end: start + 2, big_endian: false };
        for (third, left) in [([1u8, 2], 2), ([1, 3], 4)] {
            let bytes: Vec<u8> = [[1, 2], [1, 2], third, [9, 9]].concat();
            let names = ["leach.0.w", "leach.1.w", "leach.2.w", "leaching.1.w"];
            let tensors = names.iter().enumerate().map(|(index, name)| {
                StoredTensor::new((*name).into(), Dtype::U8, vec![2], None, 0, region(2 * index)).unwrap()
            });
            let contents = Contents { tensors: tensors.collect(), ..Contents::default() };
            let mut checkpoint = Checkpoint::new(Format::Safetensors, Source::from(bytes), contents, None);
            checkpoint.drop_copies("leach.");
            assert_eq!(checkpoint.tensors().len(), left);
            assert_eq!(checkpoint.get("leach.1.w").is_some(), left == 4);
            assert!(checkpoint.get("leach.0.w").is_some() && checkpoint.get("leaching.1.w").is_some());
        }
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
