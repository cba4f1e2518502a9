//! cuDNN's convolutions: forward and both gradients, with the algorithm for a shape chosen once.
//!
//! `BOXWRIGHT_TF32=1` in the environment lets matrix units round f32 factors to 10 bits, as PyTorch does by default.

use super::spec::Geometry;
use crate::ops::cuda::Operand;
use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::DeviceId;
use candle_core::cuda_backend::cudarc::cudnn::sys::{
    cudnnConvolutionBwdDataAlgo_t as DataAlgorithm, cudnnConvolutionBwdFilterAlgo_t as FilterAlgorithm,
    cudnnConvolutionFwdAlgo_t as ForwardAlgorithm, cudnnConvolutionMode_t, cudnnMathType_t, cudnnTensorFormat_t,
};
use candle_core::cuda_backend::cudarc::cudnn::{
    ConvBackwardData, ConvBackwardFilter, ConvDescriptor, ConvForward, Cudnn, CudnnError, FilterDescriptor,
    TensorDescriptor,
};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView};
use candle_core::{CudaDevice, CudaStorage, Result, bail};
use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, OnceLock};

/// The most memory an algorithm may work in, in bytes.
const WORKSPACE: usize = 1 << 30;

/// A device's handle, which belongs to one thread, and the algorithms found with it.
struct Library {
    handle: Arc<Cudnn>,
    forward: HashMap<Geometry, ForwardAlgorithm>,
    data: HashMap<Geometry, DataAlgorithm>,
    filter: HashMap<Geometry, FilterAlgorithm>,
}

thread_local! {
    static LIBRARIES: RefCell<HashMap<DeviceId, Library>> = RefCell::new(HashMap::new());
}

fn with_library<R>(device: &CudaDevice, work: impl FnOnce(&mut Library) -> Result<R>) -> Result<R> {
    LIBRARIES.with_borrow_mut(|libraries| {
        let library = match libraries.entry(device.id()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(Library {
                handle: Cudnn::new(device.cuda_stream())?,
                forward: HashMap::new(),
                data: HashMap::new(),
                filter: HashMap::new(),
            }),
        };
        work(library)
    })
}

fn math() -> cudnnMathType_t {
    static TF32: OnceLock<bool> = OnceLock::new();
    if *TF32.get_or_init(|| std::env::var("BOXWRIGHT_TF32").is_ok_and(|value| value == "1")) {
        cudnnMathType_t::CUDNN_DEFAULT_MATH
    } else {
        cudnnMathType_t::CUDNN_FMA_MATH
    }
}

/// The sizes of a convolution as cuDNN takes them.
struct Descriptors {
    conv: ConvDescriptor<f32>,
    x: TensorDescriptor<f32>,
    weight: FilterDescriptor<f32>,
    y: TensorDescriptor<f32>,
}

impl Descriptors {
    fn new(handle: &Arc<Cudnn>, geometry: &Geometry) -> Result<Self> {
        // Tensors in memory have sides that fit.
        let int = |size: usize| size as i32;
        let pair = |(down, across): (usize, usize)| [int(down), int(across)];
        let mode = cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        let (padding, stride, dilation) = (pair(geometry.padding), pair(geometry.stride), pair(geometry.dilation));
        let mut conv = handle.create_conv2d::<f32>(padding, stride, dilation, mode)?;
        conv.set_group_count(int(geometry.groups))?;
        conv.set_math_type(math())?;
        let format = cudnnTensorFormat_t::CUDNN_TENSOR_NCHW;
        let [height, width] = pair(geometry.input);
        let channels = int(geometry.groups * geometry.in_channels);
        let x = handle.create_4d_tensor::<f32>(format, [int(geometry.batch), channels, height, width])?;
        let weight = handle.create_4d_filter::<f32>(format, geometry.weight_shape().map(int))?;
        let (n, outs, height, width) = geometry.output_shape();
        let y = handle.create_4d_tensor::<f32>(format, [n, outs, height, width].map(int))?;
        Ok(Self { conv, x, weight, y })
    }
}

/// The first of `algorithms` that works in little enough memory.
fn choose<A: Copy>(algorithms: &[A], workspace: impl Fn(A) -> std::result::Result<usize, CudnnError>) -> Result<A> {
    let fits = |algorithm: &A| workspace(*algorithm).is_ok_and(|bytes| bytes <= WORKSPACE);
    match algorithms.iter().copied().find(fits) {
        Some(algorithm) => Ok(algorithm),
        None => bail!("conv2d: no algorithm of cuDNN works in {} MiB for this shape", WORKSPACE >> 20),
    }
}

fn view<'a>(operand: Operand<'a>) -> Result<CudaView<'a, f32>> {
    let (storage, layout) = operand;
    let start = layout.start_offset();
    match storage.as_cuda_slice::<f32>()?.try_slice(start..start + layout.shape().elem_count()) {
        Some(view) => Ok(view),
        None => bail!("conv2d: {layout:?} reaches beyond its memory"),
    }
}

/// Memory to work in; its content does not matter.
fn workspace(device: &CudaDevice, bytes: usize) -> Result<CudaSlice<u8>> {
    // SAFETY: cuDNN writes before it reads.
    unsafe { device.alloc::<u8>(bytes.max(1)) }
}

/// The convolution of x with weight into y.
pub(super) fn forward(geometry: &Geometry, x: Operand<'_>, weight: Operand<'_>, y: &mut CudaStorage) -> Result<()> {
    let device = x.0.device().clone();
    with_library(&device, |library| {
        let Descriptors { conv, x: x_shape, weight: w_shape, y: y_shape } =
            Descriptors::new(&library.handle, geometry)?;
        let op = ConvForward { conv: &conv, x: &x_shape, w: &w_shape, y: &y_shape };
        let algorithm = match library.forward.get(geometry) {
            Some(&known) => known,
            None => {
                let implicit = ForwardAlgorithm::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM;
                let found = choose(&[op.pick_algorithm()?, implicit], |algorithm| op.get_workspace_size(algorithm))?;
                library.forward.insert(*geometry, found);
                found
            }
        };
        let mut room = workspace(&device, op.get_workspace_size(algorithm)?)?;
        let (x, weight, y) = (view(x)?, view(weight)?, y.as_cuda_slice_mut::<f32>()?);
        // SAFETY: the descriptors are made of the sizes that the tensors have.
        unsafe { op.launch(algorithm, Some(&mut room), (1.0, 0.0), &x, &weight, y) }?;
        Ok(())
    })
}

/// The gradient of x from that of the output before its activation.
pub(super) fn input_gradient(
    geometry: &Geometry,
    g: Operand<'_>,
    weight: Operand<'_>,
    gx: &mut CudaStorage,
) -> Result<()> {
    let device = g.0.device().clone();
    with_library(&device, |library| {
        let Descriptors { conv, x: x_shape, weight: w_shape, y: y_shape } =
            Descriptors::new(&library.handle, geometry)?;
        let op = ConvBackwardData { conv: &conv, dx: &x_shape, w: &w_shape, dy: &y_shape };
        let algorithm = match library.data.get(geometry) {
            Some(&known) => known,
            None => {
                let [first, second] = [
                    DataAlgorithm::CUDNN_CONVOLUTION_BWD_DATA_ALGO_1,
                    DataAlgorithm::CUDNN_CONVOLUTION_BWD_DATA_ALGO_0,
                ];
                let candidates = [op.pick_algorithm()?, first, second];
                let found = choose(&candidates, |algorithm| op.get_workspace_size(algorithm))?;
                library.data.insert(*geometry, found);
                found
            }
        };
        let mut room = workspace(&device, op.get_workspace_size(algorithm)?)?;
        let (g, weight, gx) = (view(g)?, view(weight)?, gx.as_cuda_slice_mut::<f32>()?);
        // SAFETY: the descriptors are made of the sizes that the tensors have.
        unsafe { op.launch(algorithm, Some(&mut room), (1.0, 0.0), gx, &weight, &g) }?;
        Ok(())
    })
}

/// The gradient of the weight from that of the output before its activation.
pub(super) fn weight_gradient(geometry: &Geometry, x: Operand<'_>, g: Operand<'_>, gw: &mut CudaStorage) -> Result<()> {
    let device = x.0.device().clone();
    with_library(&device, |library| {
        let Descriptors { conv, x: x_shape, weight: w_shape, y: y_shape } =
            Descriptors::new(&library.handle, geometry)?;
        let op = ConvBackwardFilter { conv: &conv, x: &x_shape, dw: &w_shape, dy: &y_shape };
        let algorithm = match library.filter.get(geometry) {
            Some(&known) => known,
            None => {
                let [first, second] = [
                    FilterAlgorithm::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1,
                    FilterAlgorithm::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0,
                ];
                let candidates = [op.pick_algorithm()?, first, second];
                let found = choose(&candidates, |algorithm| op.get_workspace_size(algorithm))?;
                library.filter.insert(*geometry, found);
                found
            }
        };
        let mut room = workspace(&device, op.get_workspace_size(algorithm)?)?;
        let (x, g, gw) = (view(x)?, view(g)?, gw.as_cuda_slice_mut::<f32>()?);
        // SAFETY: the descriptors are made of the sizes that the tensors have.
        unsafe { op.launch(algorithm, Some(&mut room), (1.0, 0.0), &x, gw, &g) }?;
        Ok(())
    })
}
