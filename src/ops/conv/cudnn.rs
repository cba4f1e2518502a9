//! cuDNN's convolutions: forward (with bias and ReLU where it offers that) and both gradients, with the algorithm for a
//! shape and precision chosen once.
//!
//! In 16 bits operands that are not yet so are cast before and results after: cuDNN sums in f32 and writes in the type of
//! the operands. Where matrix units want the channels of a pixel side by side, these copies are made so. TF32 lets matrix units round f32 factors; f32 itself keeps away from them.

use super::spec::Geometry;
use crate::ops::cuda::Operand;
use crate::ops::cuda::maps::{from_channels_last, to_channels_last};
use crate::ops::precision::Precision;
use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::cudnn::sys::{
    cudnnActivationMode_t, cudnnConvolutionBwdDataAlgo_t as DataAlgorithm,
    cudnnConvolutionBwdFilterAlgo_t as FilterAlgorithm, cudnnConvolutionFwdAlgo_t as ForwardAlgorithm,
    cudnnConvolutionMode_t, cudnnMathType_t, cudnnNanPropagation_t, cudnnTensorFormat_t,
};
use candle_core::cuda_backend::cudarc::cudnn::{
    ConvBackwardData, ConvBackwardFilter, ConvBiasActivationForward, ConvDescriptor, ConvForward, Cudnn, CudnnDataType,
    CudnnError, FilterDescriptor, TensorDescriptor,
};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, DevicePtr, DeviceRepr};
use candle_core::cuda_backend::{CudaDType, DeviceId};
use candle_core::{CudaDevice, CudaStorage, DType, Layout, Result, Shape, WithDType, bail};
use half::{bf16, f16};
use std::cell::RefCell;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The most memory an algorithm may work in, in bytes.
const WORKSPACE: usize = 1 << 30;

/// The forward algorithms for any geometry, the faster first.
const FORWARD: [ForwardAlgorithm; 2] = [
    ForwardAlgorithm::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM,
    ForwardAlgorithm::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM,
];

/// A device's handle, which belongs to one thread, and the algorithms found with it.
struct Library {
    handle: Arc<Cudnn>,
    forward: HashMap<Geometry, ForwardAlgorithm>,
    data: HashMap<Geometry, DataAlgorithm>,
    filter: HashMap<Geometry, FilterAlgorithm>,
    /// Those whose bias and activation cuDNN does not add by itself.
    plain: HashSet<Geometry>,
    /// Those that cuDNN does not take with the channels last.
    channels_first: HashSet<Geometry>,
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
                plain: HashSet::new(),
                channels_first: HashSet::new(),
            }),
        };
        work(library)
    })
}

/// What cuDNN's tensors are made of.
trait Element: CudaDType + CudnnDataType + DeviceRepr + WithDType {}

impl Element for f32 {}
impl Element for f16 {}
impl Element for bf16 {}

/// Calls a function with the element type of a geometry's precision.
macro_rules! by_precision {
    ($work:ident($geometry:expr, $operands:expr, $result:expr)) => {
        match $geometry.precision {
            Precision::F32 | Precision::Tf32 => $work::<f32>($geometry, $operands, $result),
            Precision::F16 => $work::<f16>($geometry, $operands, $result),
            Precision::Bf16 => $work::<bf16>($geometry, $operands, $result),
        }
    };
}

/// The sizes of a convolution as cuDNN takes them; products are summed in f32.
struct Descriptors<T> {
    conv: ConvDescriptor<f32>,
    x: TensorDescriptor<T>,
    weight: FilterDescriptor<T>,
    y: TensorDescriptor<T>,
}

impl<T: Element> Descriptors<T> {
    fn new(handle: &Arc<Cudnn>, geometry: &Geometry, channels_last: bool) -> Result<Self> {
        let largest = geometry.input_len().max(geometry.output_len()).max(geometry.weight_len());
        if largest > i32::MAX as usize {
            bail!("conv2d: {largest} elements are more than cuDNN counts; use smaller batches or images ({geometry:?})")
        }
        let int = |size: usize| size as i32;
        let pair = |(down, across): (usize, usize)| [int(down), int(across)];
        let mode = cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        let (padding, stride, dilation) = (pair(geometry.padding), pair(geometry.stride), pair(geometry.dilation));
        let mut conv = handle.create_conv2d::<f32>(padding, stride, dilation, mode)?;
        conv.set_group_count(int(geometry.groups))?;
        conv.set_math_type(match geometry.precision {
            Precision::F32 => cudnnMathType_t::CUDNN_FMA_MATH,
            // Before Ampere the default keeps f16 away from the matrix units.
            Precision::F16 => cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
            Precision::Tf32 | Precision::Bf16 => cudnnMathType_t::CUDNN_DEFAULT_MATH,
        })?;
        let format = match channels_last {
            true => cudnnTensorFormat_t::CUDNN_TENSOR_NHWC,
            false => cudnnTensorFormat_t::CUDNN_TENSOR_NCHW,
        };
        let [height, width] = pair(geometry.input);
        let channels = int(geometry.groups * geometry.in_channels);
        let x = handle.create_4d_tensor::<T>(format, [int(geometry.batch), channels, height, width])?;
        let weight = handle.create_4d_filter::<T>(format, geometry.weight_shape().map(int))?;
        let (n, outs, height, width) = geometry.output_shape();
        let y = handle.create_4d_tensor::<T>(format, [n, outs, height, width].map(int))?;
        Ok(Self { conv, x, weight, y })
    }
}

/// The algorithm kept for a geometry; else, and from then on, the one that cuDNN picks, or where that fails or needs too
/// much memory the first of `others` that works.
fn algorithm<A: Copy, const N: usize>(
    kept: &mut HashMap<Geometry, A>,
    geometry: &Geometry,
    pick: impl FnOnce() -> std::result::Result<A, CudnnError>,
    others: [A; N],
    workspace: impl Fn(A) -> std::result::Result<usize, CudnnError>,
) -> Result<A> {
    if let Some(&known) = kept.get(geometry) {
        return Ok(known);
    }
    let fits = |algorithm: &A| workspace(*algorithm).is_ok_and(|bytes| bytes <= WORKSPACE);
    let Some(found) = pick().into_iter().chain(others).find(fits) else {
        bail!("conv2d: no algorithm of cuDNN works in {} MiB for {geometry:?}", WORKSPACE >> 20)
    };
    kept.insert(*geometry, found);
    Ok(found)
}

fn view<'a, T: Element>(storage: &'a CudaStorage, layout: &Layout) -> Result<CudaView<'a, T>> {
    let start = layout.start_offset();
    match storage.as_cuda_slice::<T>()?.try_slice(start..start + layout.shape().elem_count()) {
        Some(view) => Ok(view),
        None => bail!("conv2d: {layout:?} reaches beyond its memory"),
    }
}

/// A tensor of a convolution.
#[derive(Clone, Copy)]
enum Part {
    /// Of so many channels and pixels.
    Map(usize, usize),
    Weight,
}

/// The elements of an operand as `T`; where it is of another type or order, those of the copy that `room` keeps.
fn elements<'a, T: Element>(
    (storage, layout): Operand<'a>,
    part: Part,
    (geometry, channels_last): (&Geometry, bool),
    room: &'a mut Option<CudaStorage>,
) -> Result<CudaView<'a, T>> {
    let is_cast = storage.dtype() == T::DTYPE;
    let cast = match part {
        Part::Map(channels, pixels) if channels_last => {
            to_channels_last((storage, layout), (channels, pixels), T::DTYPE)?
        }
        Part::Weight if channels_last && !is_cast => storage.to_dtype(&layout.permute(&[0, 2, 3, 1])?, T::DTYPE)?,
        // A weight that was cast before lies as `half_weight` says.
        Part::Weight if !channels_last && is_cast && geometry.channels_last() => {
            storage.to_dtype(&layout.permute(&[0, 3, 1, 2])?, T::DTYPE)?
        }
        _ if is_cast => return view(storage, layout),
        _ => storage.to_dtype(layout, T::DTYPE)?,
    };
    Ok(room.insert(cast).as_cuda_slice::<T>()?.as_view())
}

/// Lets `work` read two operands and write the result as `T`.
fn with_elements<T: Element>(
    [(a, of_a), (b, of_b)]: [(Operand<'_>, Part); 2],
    (result, of_result): (&mut CudaStorage, Part),
    (geometry, channels_last): (&Geometry, bool),
    work: impl FnOnce(&CudaView<'_, T>, &CudaView<'_, T>, &mut CudaSlice<T>) -> Result<()>,
) -> Result<()> {
    let device = a.0.device();
    let (mut room_a, mut room_b) = (None, None);
    let a = elements::<T>(a, of_a, (geometry, channels_last), &mut room_a)?;
    let b = elements::<T>(b, of_b, (geometry, channels_last), &mut room_b)?;
    if T::DTYPE == DType::F32 {
        return work(&a, &b, result.as_cuda_slice_mut::<T>()?);
    }
    let shape: Shape = match of_result {
        Part::Weight => (&geometry.weight_shape()).into(),
        Part::Map(channels, pixels) => (geometry.batch, channels, pixels).into(),
    };
    let count = shape.elem_count();
    // SAFETY: cuDNN writes all of it before anything reads it.
    let mut written = unsafe { device.alloc::<T>(count) }?;
    work(&a, &b, &mut written)?;
    let written = CudaStorage::wrap_cuda_slice(written, device.clone());
    *result = match of_result {
        Part::Map(channels, pixels) if channels_last => from_channels_last(&written, (channels, pixels), count)?,
        Part::Weight if channels_last => {
            let [outs, channels, height, width] = geometry.weight_shape();
            let lies = Layout::contiguous((outs, height, width, channels)).permute(&[0, 3, 1, 2])?;
            written.to_dtype(&lies, DType::F32)?
        }
        _ => written.to_dtype(&Layout::contiguous(shape), DType::F32)?,
    };
    Ok(())
}

/// Runs `work` with the channels last where that is of use, and with the channels first where it is not or fails.
fn in_order(
    device: &CudaDevice,
    geometry: &Geometry,
    mut work: impl FnMut(&mut Library, bool) -> Result<()>,
) -> Result<()> {
    with_library(device, |library| {
        if geometry.channels_last() && !library.channels_first.contains(geometry) {
            if work(library, true).is_ok() {
                return Ok(());
            }
            library.forward.remove(geometry);
            library.data.remove(geometry);
            library.filter.remove(geometry);
            work(library, false)?;
            library.channels_first.insert(*geometry);
            return Ok(());
        }
        work(library, false)
    })
}

/// Memory to work in; its content does not matter.
fn workspace(device: &CudaDevice, bytes: usize) -> Result<CudaSlice<u8>> {
    // SAFETY: cuDNN writes before it reads.
    unsafe { device.alloc::<u8>(bytes.max(1)) }
}

/// The convolution of x with weight into y.
pub(super) fn forward(geometry: &Geometry, x: Operand<'_>, weight: Operand<'_>, y: &mut CudaStorage) -> Result<()> {
    by_precision!(forward_of(geometry, [x, weight], y))
}

/// The maps that a convolution reads and writes.
fn maps(geometry: &Geometry) -> (Part, Part) {
    let channels = geometry.groups * geometry.in_channels;
    let x = Part::Map(channels, geometry.input.0 * geometry.input.1);
    (x, Part::Map(geometry.weight_shape()[0], geometry.output_plane()))
}

fn forward_of<T: Element>(geometry: &Geometry, [x, weight]: [Operand<'_>; 2], y: &mut CudaStorage) -> Result<()> {
    let (device, (of_x, of_y)) = (x.0.device().clone(), maps(geometry));
    in_order(&device, geometry, |library, last| {
        let shapes = Descriptors::<T>::new(&library.handle, geometry, last)?;
        let op = ConvForward { conv: &shapes.conv, x: &shapes.x, w: &shapes.weight, y: &shapes.y };
        let room_for = |algorithm| op.get_workspace_size(algorithm);
        let algorithm = algorithm(&mut library.forward, geometry, || op.pick_algorithm(), FORWARD, room_for)?;
        let mut room = workspace(&device, room_for(algorithm)?)?;
        with_elements::<T>([(x, of_x), (weight, Part::Weight)], (y, of_y), (geometry, last), |x, weight, y| {
            // SAFETY: the descriptors are made of the sizes and types that the tensors have.
            unsafe { op.launch(algorithm, Some(&mut room), (T::one(), T::zero()), x, weight, y) }?;
            Ok(())
        })
    })
}

/// The convolution of x with weight, plus bias, through a ReLU, into y in one pass; false where cuDNN has none for this
/// geometry, and what is in y is of no use. In 16 bits the sum would be rounded elsewhere than on the CPU. cuDNN may turn
/// NaN into 0, which is for passes without a loss that would tell of it.
pub(super) fn forward_relu(
    geometry: &Geometry,
    [x, weight, bias]: [Operand<'_>; 3],
    y: &mut CudaStorage,
) -> Result<bool> {
    if geometry.precision.half().is_some() {
        return Ok(false);
    }
    let device = x.0.device().clone();
    with_library(&device, |library| {
        if library.plain.contains(geometry) {
            return Ok(false);
        }
        let shapes = Descriptors::<f32>::new(&library.handle, geometry, false)?;
        let channels = geometry.weight_shape()[0] as i32;
        let of_bias = library.handle.create_4d_tensor(cudnnTensorFormat_t::CUDNN_TENSOR_NCHW, [1, channels, 1, 1])?;
        let relu = library.handle.create_activation::<f32>(
            cudnnActivationMode_t::CUDNN_ACTIVATION_RELU,
            cudnnNanPropagation_t::CUDNN_NOT_PROPAGATE_NAN,
            0.0,
        )?;
        let Descriptors { conv, x: of_x, weight: of_weight, y: of_y } = &shapes;
        let op =
            ConvBiasActivationForward { conv, act: &relu, x: of_x, w: of_weight, z: of_y, bias: &of_bias, y: of_y };
        let room_for = |algorithm| op.get_workspace_size(algorithm);
        let algorithm = algorithm(&mut library.forward, geometry, || op.pick_algorithm(), FORWARD, room_for)?;
        let mut room = workspace(&device, room_for(algorithm)?)?;
        let [x, weight, bias] = [view(x.0, x.1)?, view(weight.0, weight.1)?, view(bias.0, bias.1)?];
        let y = y.as_cuda_slice_mut::<f32>()?;
        let stream = device.cuda_stream();
        let (place, guard) = y.device_ptr(&stream);
        drop(guard);
        // SAFETY: a second name for y, as the term that is added with factor 0, which cuDNN allows; it is given up below.
        let nothing = unsafe { stream.upgrade_device_ptr::<f32>(place, geometry.output_len()) };
        // SAFETY: the descriptors are made of the sizes and types that the tensors have.
        let outcome =
            unsafe { op.launch(algorithm, Some(&mut room), (1.0, 0.0), &x, &weight, &nothing.as_view(), &bias, y) };
        nothing.leak();
        // Whatever the reason, the plain way either works or says what is wrong.
        if outcome.is_err() {
            library.plain.insert(*geometry);
        }
        Ok(outcome.is_ok())
    })
}

/// The gradient of x from that of the output before its activation.
pub(super) fn input_gradient(
    geometry: &Geometry,
    g: Operand<'_>,
    weight: Operand<'_>,
    gx: &mut CudaStorage,
) -> Result<()> {
    by_precision!(input_gradient_of(geometry, [g, weight], gx))
}

fn input_gradient_of<T: Element>(
    geometry: &Geometry,
    [g, weight]: [Operand<'_>; 2],
    gx: &mut CudaStorage,
) -> Result<()> {
    let (device, (of_x, of_y)) = (g.0.device().clone(), maps(geometry));
    in_order(&device, geometry, |library, last| {
        let shapes = Descriptors::<T>::new(&library.handle, geometry, last)?;
        let op = ConvBackwardData { conv: &shapes.conv, dx: &shapes.x, w: &shapes.weight, dy: &shapes.y };
        let others =
            [DataAlgorithm::CUDNN_CONVOLUTION_BWD_DATA_ALGO_1, DataAlgorithm::CUDNN_CONVOLUTION_BWD_DATA_ALGO_0];
        let room_for = |algorithm| op.get_workspace_size(algorithm);
        let algorithm = algorithm(&mut library.data, geometry, || op.pick_algorithm(), others, room_for)?;
        let mut room = workspace(&device, room_for(algorithm)?)?;
        with_elements::<T>([(g, of_y), (weight, Part::Weight)], (gx, of_x), (geometry, last), |g, weight, gx| {
            // SAFETY: the descriptors are made of the sizes and types that the tensors have.
            unsafe { op.launch(algorithm, Some(&mut room), (T::one(), T::zero()), gx, weight, g) }?;
            Ok(())
        })
    })
}

/// The gradient of the weight from that of the output before its activation.
pub(super) fn weight_gradient(geometry: &Geometry, x: Operand<'_>, g: Operand<'_>, gw: &mut CudaStorage) -> Result<()> {
    by_precision!(weight_gradient_of(geometry, [x, g], gw))
}

fn weight_gradient_of<T: Element>(geometry: &Geometry, [x, g]: [Operand<'_>; 2], gw: &mut CudaStorage) -> Result<()> {
    let (device, (of_x, of_y)) = (x.0.device().clone(), maps(geometry));
    in_order(&device, geometry, |library, last| {
        let shapes = Descriptors::<T>::new(&library.handle, geometry, last)?;
        let op = ConvBackwardFilter { conv: &shapes.conv, x: &shapes.x, dw: &shapes.weight, dy: &shapes.y };
        let others = [
            FilterAlgorithm::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1,
            FilterAlgorithm::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0,
        ];
        let room_for = |algorithm| op.get_workspace_size(algorithm);
        let algorithm = algorithm(&mut library.filter, geometry, || op.pick_algorithm(), others, room_for)?;
        let mut room = workspace(&device, room_for(algorithm)?)?;
        with_elements::<T>([(x, of_x), (g, of_y)], (gw, Part::Weight), (geometry, last), |x, g, gw| {
            // SAFETY: the descriptors are made of the sizes and types that the tensors have.
            unsafe { op.launch(algorithm, Some(&mut room), (T::one(), T::zero()), x, gw, g) }?;
            Ok(())
        })
    })
}
