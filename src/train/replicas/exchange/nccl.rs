//! Sums and copies between GPUs of one machine through NCCL.

use candle_core::backend::BackendDevice;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::CudaView;
use candle_core::cuda_backend::cudarc::nccl::result::NcclError;
use candle_core::cuda_backend::cudarc::nccl::{Comm, ReduceOp, group_end, group_start};
use candle_core::op::BackpropOp;
use candle_core::{
    CudaDevice, CudaStorage, DType, Device, Error, Layout, Result, Shape, Storage, StorageRef, Tensor, bail,
};

/// A tensor that is being read.
type Held<'a> = (StorageRef<'a>, &'a Layout);

/// GPUs that NCCL has connected. Tensors are contiguous f32.
pub struct Ring {
    comms: Vec<Comm>,
    devices: Vec<CudaDevice>,
}

impl Ring {
    /// Connects the devices; none where they are not two or more different GPUs, or where NCCL cannot.
    pub fn between(devices: &[Device]) -> Result<Option<Self>> {
        let gpus: Vec<CudaDevice> = devices.iter().filter_map(|d| d.as_cuda_device().ok().cloned()).collect();
        let mut numbers: Vec<usize> = gpus.iter().map(|gpu| gpu.cuda_stream().context().ordinal()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        if devices.len() < 2 || numbers.len() < devices.len() {
            return Ok(None);
        }
        let streams = gpus.iter().map(CudaDevice::cuda_stream).collect();
        match Comm::from_devices(streams) {
            Ok(comms) => Ok(Some(Self { comms, devices: gpus })),
            Err(error) => {
                tracing::warn!(
                    "the GPUs exchange gradients by copies, which is slower: NCCL does not connect them ({:?}); see that \
                     libnccl.so.2 is installed",
                    error.0
                );
                Ok(None)
            }
        }
    }

    /// The sum of each row, which has one tensor a GPU, on the first GPU.
    pub fn sum(&self, rows: &[Vec<Tensor>]) -> Result<Vec<Tensor>> {
        let Some(first) = self.devices.first() else { bail!("a sum over no GPUs") };
        let held: Vec<Vec<Held<'_>>> = rows.iter().map(|row| hold(row)).collect();
        let views: Vec<Vec<CudaView<'_, f32>>> = held.iter().map(|row| views(row)).collect::<Result<_>>()?;
        let shapes: Vec<&Shape> = rows.iter().filter_map(|row| row.first()).map(Tensor::shape).collect();
        let mut sums = room(first, &shapes)?;
        self.together(|| {
            for (views, sum) in views.iter().zip(&mut sums) {
                let mut sum = Some(sum.as_cuda_slice_mut::<f32>()?);
                // The first GPU is given the room.
                for (comm, view) in self.comms.iter().zip(views) {
                    comm.reduce(view, sum.take(), &ReduceOp::Sum, 0).map_err(failed)?;
                }
            }
            Ok(())
        })?;
        Ok(wrapped(sums, &shapes))
    }

    /// Copies of the first GPU's tensors for each of the others.
    pub fn broadcast(&self, tensors: &[Tensor]) -> Result<Vec<Vec<Tensor>>> {
        let held = hold(tensors);
        let views = views(&held)?;
        let shapes: Vec<&Shape> = tensors.iter().map(Tensor::shape).collect();
        // NCCL writes to the first GPU too.
        let mut copies: Vec<Vec<CudaStorage>> =
            self.devices.iter().map(|device| room(device, &shapes)).collect::<Result<_>>()?;
        self.together(|| {
            for (rank, (comm, copies)) in self.comms.iter().zip(&mut copies).enumerate() {
                for (view, copy) in views.iter().zip(copies) {
                    let source = (rank == 0).then_some(view);
                    comm.broadcast(source, copy.as_cuda_slice_mut::<f32>()?, 0).map_err(failed)?;
                }
            }
            Ok(())
        })?;
        Ok(copies.into_iter().skip(1).map(|copies| wrapped(copies, &shapes)).collect())
    }

    /// Starts what `calls` asks for on all GPUs at once, and waits for it.
    fn together(&self, calls: impl FnOnce() -> Result<()>) -> Result<()> {
        group_start().map_err(failed)?;
        let called = calls();
        // A group that has begun must end, whatever came of it.
        let ended = group_end().map_err(failed);
        called?;
        ended?;
        self.comms.iter().try_for_each(|comm| comm.stream().synchronize().w())
    }
}

fn hold(tensors: &[Tensor]) -> Vec<Held<'_>> {
    tensors.iter().map(Tensor::storage_and_layout).collect()
}

fn views<'a>(held: &'a [Held<'_>]) -> Result<Vec<CudaView<'a, f32>>> {
    let view = |(storage, layout): &'a Held<'_>| match &**storage {
        Storage::Cuda(storage) if layout.is_contiguous() => {
            let start = layout.start_offset();
            Ok(storage.as_cuda_slice::<f32>()?.slice(start..start + layout.shape().elem_count()))
        }
        _ => bail!("NCCL takes contiguous tensors on GPUs"),
    };
    held.iter().map(view).collect()
}

/// Room for tensors of these shapes.
fn room(device: &CudaDevice, shapes: &[&Shape]) -> Result<Vec<CudaStorage>> {
    shapes.iter().map(|shape| device.zeros_impl(shape, DType::F32)).collect()
}

fn wrapped(storages: Vec<CudaStorage>, shapes: &[&Shape]) -> Vec<Tensor> {
    let tensor = |(storage, shape): (CudaStorage, &&Shape)| {
        Tensor::from_storage(Storage::Cuda(storage), (*shape).clone(), BackpropOp::none(), false)
    };
    storages.into_iter().zip(shapes).map(tensor).collect()
}

fn failed(error: NcclError) -> Error {
    Error::msg(format!("NCCL: {:?}; see that the GPUs are in nvidia-smi, and resume the run", error.0))
}
