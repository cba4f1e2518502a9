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

/// Σ x² in double precision.
pub(in crate::ops) fn squared_norm(x: &Tensor) -> Result<f64> {
    const PARTS: usize = 1 << 12;
    with_operands([x], |device, [x]| {
        let mut parts = doubles(device, PARTS)?;
        let total = x.1.shape().elem_count();
        launch(device, "squares", PARTS, &mut [Arg::In(x), Arg::Ints(&[total]), Arg::Out(&mut parts)])?;
        match parts.to_cpu_storage()? {
            CpuStorage::F64(parts) => Ok(parts.iter().sum()),
            other => bail!("squared_norm: partial sums came back as {:?}", other.dtype()),
        }
    })
}
