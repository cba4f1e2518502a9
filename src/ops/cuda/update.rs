//! In-place arithmetic on parameters.

use super::{Arg, Operand, doubles, driver, launch, upload};
use crate::ops::update::Change;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaDevice, Result, Storage, Tensor, bail};

/// Makes changes of one rule's kind in as few launches as 32-bit counts allow.
pub(in crate::ops) fn apply(changes: &[Change<'_>]) -> Result<()> {
    /// Elements of a launch; a single tensor of more is refused by it.
    const MOST: usize = 1 << 30;
    let mut rest = changes;
    while let Some(first) = rest.first() {
        let (mut total, mut taken) = (0, 0);
        while let Some(change) = rest.get(taken)
            && (taken == 0 || total + change.destination.elem_count() <= MOST)
        {
            total += change.destination.elem_count();
            taken += 1;
        }
        let (now, later) = rest.split_at(taken);
        apply_at_once(first.destination.device().as_cuda_device()?, now, total)?;
        rest = later;
    }
    Ok(())
}

fn apply_at_once(device: &CudaDevice, changes: &[Change<'_>], total: usize) -> Result<()> {
    let (mut table, mut factors, mut end, mut kind) = (Vec::new(), Vec::new(), 0, 0);
    // Copies live until the kernel has been started, and what is freed then stays as it is until it has run.
    let mut rows = Vec::with_capacity(changes.len());
    for change in changes {
        let [a, b] = change.sources;
        rows.push([change.destination.clone(), a.contiguous()?, b.contiguous()?]);
    }
    for (change, tensors) in changes.iter().zip(&rows) {
        end += change.destination.elem_count();
        table.push(end as i64);
        for tensor in tensors {
            table.push(with_storage(tensor, |operand| driver::address(device, operand))? as i64);
        }
        let (rule, own) = change.rule.coded();
        factors.extend(own);
        kind = rule;
    }
    let (table, factors) = (upload(device, &table)?, upload(device, &factors)?);
    let sizes = [changes.len(), kind];
    launch(device, "update", total, &mut [Arg::All(&table), Arg::All(&factors), Arg::Ints(&sizes)])
}

/// Calls `work` with a tensor of a CUDA device as it lies there.
fn with_storage<R>(tensor: &Tensor, work: impl FnOnce(Operand<'_>) -> Result<R>) -> Result<R> {
    match tensor.storage_and_layout() {
        (storage, layout) if layout.is_contiguous() => match &*storage {
            Storage::Cuda(storage) => work((storage, layout)),
            _ => bail!("an update on a CUDA device was given a tensor of another"),
        },
        (_, layout) => bail!("an in-place update needs contiguous tensors, not {layout:?}"),
    }
}

/// Σ x² of each tensor in double precision; all are read back at once.
pub(in crate::ops) fn squared_norms(tensors: &[&Tensor]) -> Result<Vec<f64>> {
    /// Parts that a tensor's sum is made of, and those of them that are summed up on the device.
    const PARTS: usize = 1 << 12;
    const LANES: usize = 1 << 6;
    let Some(first) = tensors.first() else { return Ok(Vec::new()) };
    let device = first.device().as_cuda_device()?;
    // As in an update, copies live until the kernel has been started.
    let tensors: Vec<Tensor> = tensors.iter().map(|x| x.contiguous()).collect::<Result<_>>()?;
    let mut table = Vec::with_capacity(2 * tensors.len());
    for x in &tensors {
        table.push(x.elem_count() as i64);
        table.push(with_storage(x, |operand| driver::address(device, operand))? as i64);
    }
    let (all, table) = (tensors.len() * PARTS, upload(device, &table)?);
    let mut parts = doubles(device, all)?;
    launch(device, "squares", all, &mut [Arg::All(&table), Arg::Ints(&[PARTS]), Arg::Out(&mut parts)])?;
    let count = all / LANES;
    let mut sums = doubles(device, count)?;
    launch(device, "sum_parts", count, &mut [Arg::All(&parts), Arg::Ints(&[LANES]), Arg::Out(&mut sums)])?;
    match sums.to_cpu_storage()? {
        CpuStorage::F64(sums) => Ok(sums.chunks_exact(PARTS / LANES).map(|own| own.iter().sum()).collect()),
        other => bail!("squared_norms: sums came back as {:?}", other.dtype()),
    }
}
