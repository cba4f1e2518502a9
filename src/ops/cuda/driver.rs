//! Launching through the CUDA driver.

use super::{Arg, Operand};
use candle_core::cuda_backend::cudarc::driver::{
    CudaSlice, CudaStream, DevicePtr, DevicePtrMut, LaunchConfig, PushKernelArg, SyncOnDrop,
};
use candle_core::cuda_backend::cudarc::nvrtc::{CompileOptions, compile_ptx_with_opts};
use candle_core::cuda_backend::{CudaStorageSlice, WrapErr};
use candle_core::{CudaDevice, Result, bail};
use std::sync::OnceLock;

/// All kernels; the first file holds what the others rely on.
const SOURCE: &str = concat!(
    include_str!("prelude.cuh"),
    include_str!("activation.cu"),
    include_str!("boxes.cu"),
    include_str!("conv.cu"),
    include_str!("losses.cu"),
    include_str!("maps.cu"),
    include_str!("norm.cu"),
    include_str!("picture.cu"),
    include_str!("pool.cu"),
    include_str!("resize.cu"),
    include_str!("roi.cu"),
    include_str!("select.cu"),
    include_str!("multibox.cu"),
    include_str!("proposals.cu"),
    include_str!("sampling.cu"),
    include_str!("anchors.cu"),
    include_str!("rois.cu"),
    include_str!("transposed.cu"),
    include_str!("update.cu"),
);

/// Threads of a block.
const THREADS: u32 = 256;

/// The program for any GPU, which the driver translates for its own; candle keeps that for each device.
fn program() -> Result<&'static str> {
    static PROGRAM: OnceLock<std::result::Result<String, String>> = OnceLock::new();
    let compiled = PROGRAM.get_or_init(|| {
        // Products are rounded before they are added, as on the CPU: the cell of a RoIAlign sample hangs on the last bit.
        let options = CompileOptions { fmad: Some(false), ..CompileOptions::default() };
        compile_ptx_with_opts(SOURCE, options).map(|ptx| ptx.to_src()).map_err(|error| error.to_string())
    });
    match compiled {
        Ok(program) => Ok(program),
        Err(error) => bail!("the CUDA kernels do not compile here: {error}"),
    }
}

/// One parameter as the driver takes it.
enum Value {
    Pointer(u64),
    Int(i32),
    Float(f32),
}

/// Reads and writes of a kernel that is not launched yet; dropping one records it in the stream.
type Pending<'a> = Vec<SyncOnDrop<'a>>;

fn read<'a, T>(slice: &'a CudaSlice<T>, stream: &'a CudaStream, pending: &mut Pending<'a>) -> u64 {
    let (pointer, guard) = slice.device_ptr(stream);
    pending.push(guard);
    pointer
}

fn write<'a, T>(slice: &'a mut CudaSlice<T>, stream: &'a CudaStream, pending: &mut Pending<'a>) -> u64 {
    let (pointer, guard) = slice.device_ptr_mut(stream);
    pending.push(guard);
    pointer
}

/// Bytes before element `start` of a tensor of f32.
fn offset(start: usize) -> u64 {
    (start * size_of::<f32>()) as u64
}

/// Where the first element of an f32 tensor lies. Of use only to what runs on the device's stream while it lives.
pub(super) fn address(device: &CudaDevice, (storage, layout): Operand<'_>) -> Result<u64> {
    let (place, _) = storage.as_cuda_slice::<f32>()?.device_ptr(&device.cuda_stream());
    Ok(place + offset(layout.start_offset()))
}

/// Starts `kernel` on the device's stream; see [`super::launch`], which has checked sizes and layouts.
pub(super) fn launch(device: &CudaDevice, kernel: &str, count: i32, arguments: &mut [Arg<'_>]) -> Result<()> {
    let function = device.get_or_load_custom_func(kernel, "boxwright", program()?)?;
    let stream = device.cuda_stream();
    let mut pending: Pending<'_> = Vec::with_capacity(arguments.len());
    let mut values = Vec::with_capacity(arguments.len() + 16);
    for argument in arguments.iter_mut() {
        match argument {
            Arg::In((storage, layout)) => {
                let start = read(storage.as_cuda_slice::<f32>()?, &stream, &mut pending);
                values.push(Value::Pointer(start + offset(layout.start_offset())));
            }
            Arg::All(storage) => values.push(Value::Pointer(match &storage.slice {
                CudaStorageSlice::F32(slice) => read(slice, &stream, &mut pending),
                CudaStorageSlice::F64(slice) => read(slice, &stream, &mut pending),
                CudaStorageSlice::I32(slice) => read(slice, &stream, &mut pending),
                CudaStorageSlice::U32(slice) => read(slice, &stream, &mut pending),
                CudaStorageSlice::I64(slice) => read(slice, &stream, &mut pending),
                CudaStorageSlice::U8(slice) => read(slice, &stream, &mut pending),
                CudaStorageSlice::F16(slice) => read(slice, &stream, &mut pending),
                CudaStorageSlice::BF16(slice) => read(slice, &stream, &mut pending),
                _ => bail!("{kernel} reads f32, f64, i32, u32, i64, u8, f16 and bf16 alone"),
            })),
            Arg::Out(storage) => values.push(Value::Pointer(match &mut storage.slice {
                CudaStorageSlice::F32(slice) => write(slice, &stream, &mut pending),
                CudaStorageSlice::F64(slice) => write(slice, &stream, &mut pending),
                CudaStorageSlice::I32(slice) => write(slice, &stream, &mut pending),
                CudaStorageSlice::U32(slice) => write(slice, &stream, &mut pending),
                CudaStorageSlice::F16(slice) => write(slice, &stream, &mut pending),
                CudaStorageSlice::BF16(slice) => write(slice, &stream, &mut pending),
                _ => bail!("{kernel} writes f32, f64, i32, u32, f16 and bf16 alone"),
            })),
            Arg::Change(storage, layout) => {
                let start = write(storage.as_cuda_slice_mut::<f32>()?, &stream, &mut pending);
                values.push(Value::Pointer(start + offset(layout.start_offset())));
            }
            Arg::Ints(ints) => values.extend(ints.iter().map(|&value| Value::Int(value as i32))),
            Arg::Float(value) => values.push(Value::Float(*value)),
        }
    }
    let mut builder = function.builder();
    builder.arg(&count);
    for value in &values {
        match value {
            Value::Pointer(pointer) => builder.arg(pointer),
            Value::Int(int) => builder.arg(int),
            Value::Float(float) => builder.arg(float),
        };
    }
    let blocks = (count as u32).div_ceil(THREADS);
    let config = LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 };
    // SAFETY: the arguments are of the kernel's types and in its order, which a test reads off the sources; the kernel
    // stays inside what its sizes say, and the storages are kept until the stream has been told of their use.
    unsafe { builder.launch(config) }.w()?;
    Ok(())
}
