//! A stored tensor: its name, shape and element type, where its bytes lie, and how they become numbers.

use super::error::WeightsError;
use serde::Serialize;
use std::borrow::Cow;
use std::fmt;

/// Most dimensions a stored tensor may have: bounds what one shape in a file can cost.
pub(super) const MAX_RANK: usize = 16;

/// Elements that a broadcast tensor (stride 0) may have beyond what its storage holds.
const MAX_BROADCAST: usize = 65_536;

/// Element types that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Dtype {
    F64,
    F32,
    F16,
    BF16,
    I64,
    U64,
    I32,
    U32,
    I16,
    U16,
    I8,
    U8,
    Bool,
}

impl Dtype {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Dtype::F64 | Dtype::I64 | Dtype::U64 => 8,
            Dtype::F32 | Dtype::I32 | Dtype::U32 => 4,
            Dtype::F16 | Dtype::BF16 | Dtype::I16 | Dtype::U16 => 2,
            Dtype::I8 | Dtype::U8 | Dtype::Bool => 1,
        }
    }

    /// The name that safetensors gives it.
    pub const fn name(self) -> &'static str {
        match self {
            Dtype::F64 => "F64",
            Dtype::F32 => "F32",
            Dtype::F16 => "F16",
            Dtype::BF16 => "BF16",
            Dtype::I64 => "I64",
            Dtype::U64 => "U64",
            Dtype::I32 => "I32",
            Dtype::U32 => "U32",
            Dtype::I16 => "I16",
            Dtype::U16 => "U16",
            Dtype::I8 => "I8",
            Dtype::U8 => "U8",
            Dtype::Bool => "BOOL",
        }
    }

    /// Little-endian elements as `f32`: integers and `f64` are rounded to the nearest, `true` is 1.
    pub(super) fn decode(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Dtype::F64 => each(bytes, |b| f64::from_le_bytes(b) as f32),
            Dtype::F32 => each(bytes, f32::from_le_bytes),
            Dtype::F16 => each(bytes, |b| half::f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => each(bytes, |b| half::bf16::from_le_bytes(b).to_f32()),
            Dtype::I64 => each(bytes, |b| i64::from_le_bytes(b) as f32),
            Dtype::U64 => each(bytes, |b| u64::from_le_bytes(b) as f32),
            Dtype::I32 => each(bytes, |b| i32::from_le_bytes(b) as f32),
            Dtype::U32 => each(bytes, |b| u32::from_le_bytes(b) as f32),
            Dtype::I16 => each(bytes, |b| f32::from(i16::from_le_bytes(b))),
            Dtype::U16 => each(bytes, |b| f32::from(u16::from_le_bytes(b))),
            Dtype::I8 => each(bytes, |b: [u8; 1]| f32::from(i8::from_le_bytes(b))),
            Dtype::U8 => each(bytes, |b: [u8; 1]| f32::from(u8::from_le_bytes(b))),
            Dtype::Bool => each(bytes, |b: [u8; 1]| if b == [0] { 0.0 } else { 1.0 }),
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Every whole group of `N` bytes, converted.
fn each<const N: usize, T>(bytes: &[u8], convert: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|group| convert(*group)).collect()
}

/// Which bytes a region counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blob {
    /// The file itself.
    File,
    /// A buffer that was inflated or decoded from it.
    Buffer(usize),
}

/// A run of bytes that holds one storage; `start <= end`, both inside the blob.
#[derive(Clone, Copy, Debug)]
pub(super) struct Region {
    pub blob: Blob,
    pub start: usize,
    pub end: usize,
    pub big_endian: bool,
}

impl Region {
    /// Bytes from start to end.
    pub fn len(&self) -> usize {
        self.end.saturating_sub(self.start)
    }
}

/// One named tensor of a checkpoint. Reading its numbers is [`super::Checkpoint::read_f32`].
#[derive(Clone, Debug)]
pub struct StoredTensor {
    /// Name in the checkpoint, containers and `module.` already removed.
    pub name: String,
    /// Sizes, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// Element type as stored.
    pub dtype: Dtype,
    elements: usize,
    region: Region,
    offset: usize,
    strides: Vec<usize>,
}

impl StoredTensor {
    /// A tensor of `shape` that starts `offset` elements into its region and steps by `strides` elements; without
    /// strides it is row-major.
    ///
    /// # Errors
    /// More than [`MAX_RANK`] dimensions, a product that overflows, an element outside the region, or many more
    /// elements than the region stores.
    pub(super) fn new(
        name: String,
        dtype: Dtype,
        shape: Vec<usize>,
        strides: Option<Vec<usize>>,
        offset: usize,
        region: Region,
    ) -> Result<Self, WeightsError> {
        let fail = |what: String| WeightsError::Tensor { name: name.clone(), what };
        if shape.len() > MAX_RANK {
            return Err(fail(format!("{} dimensions, at most {MAX_RANK} are supported", shape.len())));
        }
        let elements = element_count(&shape).ok_or_else(|| fail(format!("shape {shape:?} overflows")))?;
        let strides = strides.unwrap_or_else(|| row_major(&shape));
        if strides.len() != shape.len() {
            return Err(fail(format!("{} strides for {} dimensions", strides.len(), shape.len())));
        }
        if elements > 0 {
            let needed = extent(&shape, &strides, offset)
                .and_then(|extent| extent.checked_mul(dtype.size()))
                .ok_or_else(|| fail(format!("strides {strides:?} overflow")))?;
            if needed > region.len() {
                return Err(WeightsError::Truncated {
                    what: format!("tensor `{name}` {shape:?} of {dtype}"),
                    expected: needed as u64,
                    actual: region.len() as u64,
                });
            }
            let stored = region.len() / dtype.size();
            if elements > stored.max(MAX_BROADCAST) {
                return Err(fail(format!("{elements} elements over a storage of {stored}")));
            }
        }
        Ok(StoredTensor { name, shape, dtype, elements, region, offset, strides })
    }

    /// Number of elements; 1 for a scalar.
    pub fn elements(&self) -> usize {
        self.elements
    }

    /// Which bytes the region counts in.
    pub(super) fn blob(&self) -> Blob {
        self.region.blob
    }

    /// The elements row-major and little-endian, in place where they already lie so.
    ///
    /// # Errors
    /// `blob` is shorter than the one this tensor was made for.
    pub(super) fn packed<'b>(&self, blob: &'b [u8]) -> Result<Cow<'b, [u8]>, WeightsError> {
        if self.elements == 0 {
            return Ok(Cow::Borrowed(&[]));
        }
        let storage = blob.get(self.region.start..self.region.end);
        let packed = storage.and_then(|storage| self.arrange(storage));
        let mut packed = packed.ok_or_else(|| WeightsError::Tensor {
            name: self.name.clone(),
            what: "lies outside this checkpoint".to_owned(),
        })?;
        if self.region.big_endian && self.dtype.size() > 1 {
            for element in packed.to_mut().chunks_exact_mut(self.dtype.size()) {
                element.reverse();
            }
        }
        Ok(packed)
    }

    fn arrange<'b>(&self, storage: &'b [u8]) -> Option<Cow<'b, [u8]>> {
        if self.is_row_major() {
            let start = self.offset.checked_mul(self.dtype.size())?;
            let end = start.checked_add(self.elements.checked_mul(self.dtype.size())?)?;
            storage.get(start..end).map(Cow::Borrowed)
        } else {
            self.gather(storage).map(Cow::Owned)
        }
    }

    /// Whether walking the shape row-major walks the storage one element at a time; axes of size 1 may step anyhow.
    fn is_row_major(&self) -> bool {
        let mut expected = 1usize;
        for (&size, &stride) in self.shape.iter().zip(&self.strides).rev() {
            if size != 1 && stride != expected {
                return false;
            }
            expected = expected.saturating_mul(size);
        }
        true
    }

    /// Copies the elements in row-major order. The position may wrap between steps; where an element is read it is
    /// exact, since the constructor checked the farthest one.
    fn gather(&self, storage: &[u8]) -> Option<Vec<u8>> {
        let size = self.dtype.size();
        let mut packed = Vec::with_capacity(self.elements.checked_mul(size)?);
        let mut index = vec![0usize; self.shape.len()];
        let mut position = self.offset;
        for _ in 0..self.elements {
            let start = position.checked_mul(size)?;
            packed.extend_from_slice(storage.get(start..start.checked_add(size)?)?);
            for ((at, &length), &stride) in index.iter_mut().zip(&self.shape).zip(&self.strides).rev() {
                *at += 1;
                position = position.wrapping_add(stride);
                if *at < length {
                    break;
                }
                position = position.wrapping_sub(stride.wrapping_mul(length));
                *at = 0;
            }
        }
        Some(packed)
    }
}

/// Product of the sizes; nothing where it overflows. A size of 0 makes it 0 whatever the others are.
pub(super) fn element_count(shape: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size))
}

/// One more than the farthest element that is reached; sizes must not be 0.
fn extent(shape: &[usize], strides: &[usize], offset: usize) -> Option<usize> {
    let mut last = offset;
    for (&size, &stride) in shape.iter().zip(strides) {
        last = last.checked_add(size.saturating_sub(1).checked_mul(stride)?)?;
    }
    last.checked_add(1)
}

/// Strides of a row-major layout, in elements.
fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    let mut step = 1usize;
    for (stride, &size) in strides.iter_mut().zip(shape).rev() {
        *stride = step;
        step = step.saturating_mul(size);
    }
    strides
}

/// Strides of a column-major layout (numpy's Fortran order), in elements.
pub(super) fn column_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    let mut step = 1usize;
    for (stride, &size) in strides.iter_mut().zip(shape) {
        *stride = step;
        step = step.saturating_mul(size);
    }
    strides
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(end: usize) -> Region {
        Region { blob: Blob::File, start: 0, end, big_endian: false }
    }

    fn tensor(shape: &[usize], strides: &[usize], offset: usize, end: usize) -> Result<StoredTensor, WeightsError> {
        StoredTensor::new("t".into(), Dtype::U8, shape.to_vec(), Some(strides.to_vec()), offset, region(end))
    }

    #[test]
    fn strides_and_offset_select_what_indexing_would() {
        let storage: Vec<u8> = (0..24).collect();
        // [2, 3, 4] row-major seen as [4, 2, 3] (axes 2, 0, 1), and a window that starts at element 5
        for (shape, strides, offset) in
            [(vec![4, 2, 3], vec![1, 12, 4], 0), (vec![2, 2], vec![8, 3], 5), (vec![3, 1, 2], vec![4, 99, 1], 2)]
        {
            let mut expected = Vec::new();
            for flat in 0..shape.iter().product::<usize>() {
                let (mut rest, mut at) = (flat, offset);
                for axis in (0..shape.len()).rev() {
                    at += rest % shape[axis] * strides[axis];
                    rest /= shape[axis];
                }
                expected.push(storage[at]);
            }
            let stored = tensor(&shape, &strides, offset, 24).unwrap();
            assert_eq!(stored.packed(&storage).unwrap().to_vec(), expected, "{shape:?} {strides:?}");
        }
    }

    #[test]
    fn whole_rows_are_borrowed_in_place() {
        let storage: Vec<u8> = (0..12).collect();
        let stored = tensor(&[2, 3], &[3, 1], 4, 12).unwrap();
        assert!(matches!(stored.packed(&storage).unwrap(), Cow::Borrowed([4, 5, 6, 7, 8, 9])));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(tensor(&[4, 3], &[3, 1], 0, 12).is_ok());
        assert!(tensor(&[4, 3], &[3, 1], 1, 12).is_err());
        assert!(tensor(&[4, 3], &[usize::MAX, 1], 0, 12).is_err());
        assert!(tensor(&[usize::MAX, 3], &[0, 0], 0, 12).is_err());
        assert!(tensor(&[1 << 40], &[0], 0, 12).is_err());
        assert!(tensor(&[4], &[1, 1], 0, 12).is_err());
        assert!(tensor(&[1; 17], &[1; 17], 0, 12).is_err());
        // an empty tensor needs no bytes, whatever its other sizes say
        assert_eq!(tensor(&[usize::MAX, 0, usize::MAX], &[1, 1, 1], 7, 0).unwrap().elements(), 0);
        // a small broadcast is allowed
        assert_eq!(tensor(&[5], &[0], 2, 3).unwrap().packed(&[7, 8, 9]).unwrap().to_vec(), vec![9u8; 5]);
    }

    #[test]
    fn every_element_type_becomes_the_same_number() {
        // −2 is 0xc0000000 as f32, 0xc000 as f16 and as the upper half of the f32 (bf16)
        let cases: [(Dtype, &[u8], f32); 13] = [
            (Dtype::F64, &(-2f64).to_le_bytes(), -2.0),
            (Dtype::F32, &(-2f32).to_le_bytes(), -2.0),
            (Dtype::F16, &[0x00, 0xc0], -2.0),
            (Dtype::BF16, &[0x00, 0xc0], -2.0),
            (Dtype::I64, &(-2i64).to_le_bytes(), -2.0),
            (Dtype::U64, &2u64.to_le_bytes(), 2.0),
            (Dtype::I32, &(-2i32).to_le_bytes(), -2.0),
            (Dtype::U32, &2u32.to_le_bytes(), 2.0),
            (Dtype::I16, &(-2i16).to_le_bytes(), -2.0),
            (Dtype::U16, &2u16.to_le_bytes(), 2.0),
            (Dtype::I8, &[0xfe], -2.0),
            (Dtype::U8, &[2], 2.0),
            (Dtype::Bool, &[2], 1.0),
        ];
        for (dtype, bytes, expected) in cases {
            assert_eq!(bytes.len(), dtype.size(), "{dtype}");
            assert_eq!(dtype.decode(bytes), [expected], "{dtype}");
        }
    }

    #[test]
    fn big_endian_bytes_are_turned() {
        let region = Region { blob: Blob::File, start: 0, end: 4, big_endian: true };
        let stored = StoredTensor::new("t".into(), Dtype::U16, vec![2], None, 0, region).unwrap();
        assert_eq!(stored.packed(&[1, 2, 3, 4]).unwrap().to_vec(), vec![2u8, 1, 4, 3]);
    }

    #[test]
    fn column_major_is_row_major_of_the_turned_shape() {
        assert_eq!(row_major(&[2, 3, 5]), [15, 5, 1]);
        assert_eq!(column_major(&[2, 3, 5]), [1, 2, 6]);
    }
}
