//! From a tensor to a contiguous `f32` slice and back, done the same way by every op.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, Layout, Result, Storage, Tensor};
use rayon::prelude::*;
use std::borrow::Cow;
use std::ops::Range;

/// Elements that one task of an element-wise op handles.
pub(super) const CHUNK: usize = 1 << 14;

/// The elements of a CPU storage in row-major order: borrowed where the layout is contiguous, gathered otherwise.
///
/// # Errors
/// An element type other than f32; `op` names the operation in the message.
pub fn contiguous<'a>(storage: &'a CpuStorage, layout: &Layout, op: &str) -> Result<Cow<'a, [f32]>> {
    let CpuStorage::F32(values) = storage else {
        candle_core::bail!("{} works on f32 tensors, not {:?}", op, storage.dtype());
    };
    Ok(match layout.contiguous_offsets() {
        Some((start, end)) => Cow::Borrowed(&values[start..end]),
        None => Cow::Owned(gather(values, layout)),
    })
}

/// Calls `read` with the elements of a CPU tensor in row-major order.
///
/// # Errors
/// A tensor on another device, an element type other than f32, or what `read` returns.
pub fn with_values<R>(tensor: &Tensor, op: &str, read: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => read(&contiguous(storage, layout, op)?),
        _ => candle_core::bail!("{} has no implementation for {:?}", op, tensor.device().location()),
    }
}

/// Fails unless both tensors have one shape.
///
/// # Errors
/// Shapes that differ; `op` names the operation in the message.
pub fn same_shape(a: &Tensor, b: &Tensor, op: &str) -> Result<()> {
    if a.dims() != b.dims() {
        candle_core::bail!("{} needs two tensors of one shape, not {:?} and {:?}", op, a.dims(), b.dims());
    }
    Ok(())
}

/// `len` floats: `fill(range, part)` writes those of a range, the ranges in parallel.
pub(super) fn in_chunks(len: usize, fill: impl Fn(Range<usize>, &mut [f32]) + Sync + Send) -> Vec<f32> {
    let mut y = vec![0.0f32; len];
    y.par_chunks_mut(CHUNK).enumerate().for_each(|(index, y)| {
        let start = index * CHUNK;
        fill(start..start + y.len(), y);
    });
    y
}

/// Row-major elements of a layout with any strides.
fn gather(values: &[f32], layout: &Layout) -> Vec<f32> {
    let (dims, strides) = (layout.dims(), layout.stride());
    let count: usize = dims.iter().product();
    let mut out = Vec::with_capacity(count);
    let Some(last) = dims.len().checked_sub(1).filter(|_| count > 0) else {
        return out;
    };
    let mut index = vec![0usize; dims.len()];
    let mut offset = layout.start_offset();
    loop {
        out.extend((0..dims[last]).map(|i| values[offset + i * strides[last]]));
        let mut axis = last;
        loop {
            if axis == 0 {
                return out;
            }
            axis -= 1;
            index[axis] += 1;
            offset += strides[axis];
            if index[axis] < dims[axis] {
                break;
            }
            offset -= strides[axis] * dims[axis];
            index[axis] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn every_layout_reads_as_candle_reads_it() -> Result<()> {
        let base = Tensor::arange(0f32, 120f32, &Device::Cpu)?.reshape((2, 3, 4, 5))?;
        let views = [
            base.clone(),
            base.permute(vec![3, 1, 0, 2])?,
            base.narrow(2, 1, 2)?,
            base.narrow(3, 2, 1)?.transpose(0, 1)?,
            base.narrow(0, 1, 1)?.broadcast_as((4, 3, 4, 5))?,
            base.narrow(1, 0, 0)?,
            base.transpose(0, 3)?.narrow(0, 0, 0)?,
        ];
        for view in views {
            let read = with_values(&view, "test", |v| Ok(v.to_vec()))?;
            assert_eq!(read.len(), view.elem_count());
            if !read.is_empty() {
                let expected: Vec<f32> = view.flatten_all()?.to_vec1()?;
                assert_eq!(read, expected, "{:?}", view.layout());
            }
        }
        Ok(())
    }

    #[test]
    fn other_types_and_shapes_are_named_errors() -> Result<()> {
        let x = Tensor::zeros((2, 2), DType::F64, &Device::Cpu)?;
        let error = with_values(&x, "some_op", |_| Ok(())).unwrap_err().to_string();
        assert!(error.contains("some_op") && error.contains("F64"), "{error}");
        assert!(same_shape(&x, &x.reshape(4)?, "some_op").is_err());
        Ok(())
    }

    #[test]
    fn chunks_cover_the_last_part() {
        let y = in_chunks(CHUNK + 3, |range, to| to.iter_mut().zip(range).for_each(|(to, i)| *to = i as f32));
        assert_eq!(y.len(), CHUNK + 3);
        assert!(y.iter().enumerate().all(|(i, &y)| y == i as f32));
        assert!(in_chunks(0, |_, _| ()).is_empty());
    }
}
