//! In-place arithmetic on parameters.

use super::{Arg, Operand, doubles, launch, with_operands};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, Layout, Result, Tensor, bail};

/// Changes a tensor by a kernel of `update.cu` that reads one or two others and then three or fewer numbers.
pub(in crate::ops) fn change<const N: usize>(
    kernel: &str,
    destination: (&mut CudaStorage, &Layout),
    sources: [Operand<'_>; N],
    factors: &[f32],
) -> Result<()> {
    let (storage, layout) = destination;
    let device = storage.device().clone();
    let mut arguments = vec![Arg::Change(storage, layout)];
    arguments.extend(sources.map(Arg::In));
    arguments.extend(factors.iter().map(|&factor| Arg::Float(factor)));
    launch(&device, kernel, layout.shape().elem_count(), &mut arguments)
}

/// Σ x² of each tensor in double precision; all are read back at once.
pub(in crate::ops) fn squared_norms(tensors: &[&Tensor]) -> Result<Vec<f64>> {
    /// Parts that a tensor's sum is made of, and those of them that are summed up on the device.
    const PARTS: usize = 1 << 12;
    const LANES: usize = 1 << 6;
    let Some(first) = tensors.first() else { return Ok(Vec::new()) };
    let device = first.device().as_cuda_device()?;
    let mut parts = doubles(device, tensors.len() * PARTS)?;
    for (index, x) in tensors.iter().enumerate() {
        with_operands([x], |device, [x]| {
            let sizes = [x.1.shape().elem_count(), index * PARTS];
            launch(device, "squares", PARTS, &mut [Arg::In(x), Arg::Ints(&sizes), Arg::Out(&mut parts)])
        })?;
    }
    let count = tensors.len() * PARTS / LANES;
    let mut sums = doubles(device, count)?;
    launch(device, "sum_parts", count, &mut [Arg::All(&parts), Arg::Ints(&[LANES]), Arg::Out(&mut sums)])?;
    match sums.to_cpu_storage()? {
        CpuStorage::F64(sums) => Ok(sums.chunks_exact(PARTS / LANES).map(|own| own.iter().sum()).collect()),
        other => bail!("squared_norms: sums came back as {:?}", other.dtype()),
    }
}
