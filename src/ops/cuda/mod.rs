//! The operations on NVIDIA GPUs: kernels, and how they are launched and differentiated.
//!
//! The `.cu` files are one program, which NVRTC compiles when it is first needed. Everything but `driver` is built and
//! checked without the `cuda` feature too: candle then has a device that cannot exist, and launching is an error. A
//! twin here does the arithmetic of its CPU operation, with its gradients (samples are drawn by other numbers); tensors are f32 but where a function says so.

pub(super) mod activation;
pub(super) mod anchors;
#[cfg(feature = "cuda")]
mod driver;
pub(super) mod losses;
pub(super) mod maps;
pub(super) mod matching;
pub(super) mod multibox;
pub(super) mod norm;
pub(super) mod picture;
pub(super) mod pool;
pub(super) mod proposals;
pub(super) mod resize;
pub(super) mod roi;
pub(super) mod rois;
pub(super) mod sampling;
pub(super) mod select;
#[cfg(test)]
mod signatures;
pub(super) mod transposed;
pub(super) mod update;

use super::tape;
use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::op::BackpropOp;
use candle_core::{
    CpuStorage, CudaDevice, CudaStorage, CustomOp1, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Storage,
    StorageRef, Tensor, bail,
};

#[cfg(not(feature = "cuda"))]
mod driver {
    //! What stands in for the driver in a build without CUDA.

    use super::{Arg, Operand};
    use candle_core::{CudaDevice, Error, Result};

    pub(super) fn address(_: &CudaDevice, _: Operand<'_>) -> Result<u64> {
        Err(Error::NotCompiledWithCudaSupport)
    }

    pub(super) fn launch(_: &CudaDevice, _: &str, _: i32, _: &mut [Arg<'_>]) -> Result<()> {
        Err(Error::NotCompiledWithCudaSupport)
    }
}

/// A tensor inside an operation: its storage, and how it lies there.
pub(super) type Operand<'a> = (&'a CudaStorage, &'a Layout);

/// What a kernel is given, in the order of its parameters.
#[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "only the driver looks into storages"))]
pub(super) enum Arg<'a> {
    /// A contiguous f32 tensor to read.
    In(Operand<'a>),
    /// A whole storage of any type to read.
    All(&'a CudaStorage),
    /// A whole storage of any type to write.
    Out(&'a mut CudaStorage),
    /// A contiguous f32 tensor to change in place.
    Change(&'a mut CudaStorage, &'a Layout),
    /// One `int` each.
    Ints(&'a [usize]),
    Float(f32),
}

/// The largest number that kernels count to.
const MOST: usize = i32::MAX as usize;

/// Runs `kernel` for `count` elements, which is its first parameter; the others are `arguments`.
///
/// # Errors
/// More elements than 32 bits count, a tensor that is not contiguous f32, or what the driver says.
pub(super) fn launch(device: &CudaDevice, kernel: &str, count: usize, arguments: &mut [Arg<'_>]) -> Result<()> {
    let mut largest = count;
    for argument in arguments.iter() {
        match argument {
            Arg::In((_, layout)) | Arg::Change(_, layout) => {
                if !layout.is_contiguous() {
                    bail!("{kernel} needs contiguous tensors, not {layout:?}")
                }
                largest = largest.max(layout.shape().elem_count());
            }
            Arg::Ints(values) => largest = values.iter().copied().fold(largest, usize::max),
            Arg::All(_) | Arg::Out(_) | Arg::Float(_) => {}
        }
    }
    if largest > MOST {
        bail!("{kernel}: {largest} elements are more than a kernel counts; use smaller batches or images")
    }
    // An empty grid is an error to the driver.
    if count == 0 { Ok(()) } else { driver::launch(device, kernel, count as i32, arguments) }
}

/// Room for `len` elements that nobody has written. Never empty, which the driver refuses.
fn room(device: &CudaDevice, len: usize, dtype: DType) -> Result<CudaStorage> {
    // SAFETY: the callers' kernels write what others read; of what comes to main memory, the rest is cut off.
    unsafe { device.alloc_uninit(&Shape::from(len.max(1)), dtype) }
}

/// Room for `len` f32 that a kernel is to write.
pub(super) fn floats(device: &CudaDevice, len: usize) -> Result<CudaStorage> {
    room(device, len, DType::F32)
}

/// Room for `len` partial sums in f64 that a kernel is to write.
pub(super) fn doubles(device: &CudaDevice, len: usize) -> Result<CudaStorage> {
    room(device, len, DType::F64)
}

/// Room for `len` indices that a kernel is to write.
pub(super) fn indices(device: &CudaDevice, len: usize) -> Result<CudaStorage> {
    room(device, len, DType::I32)
}

/// A copy of `values` on the device; of nothing, one element.
pub(super) fn upload<T: candle_core::WithDType>(device: &CudaDevice, values: &[T]) -> Result<CudaStorage> {
    if values.is_empty() { device.storage_from_slice(&[T::zero()]) } else { device.storage_from_slice(values) }
}

/// Fails unless a tensor is all of a storage of i32, as kernels read targets.
///
/// # Errors
/// A view, or another type.
pub(super) fn whole_integers(tensor: &Tensor) -> Result<()> {
    let (_, layout) = tensor.storage_and_layout();
    if tensor.dtype() != DType::I32 || !layout.is_contiguous() || layout.start_offset() != 0 {
        bail!("integers of type {:?} that lie {layout:?}", tensor.dtype())
    }
    Ok(())
}

/// In how many interleaved parts each of `rows` sums over `length` elements is made: enough to fill a GPU, none of
/// fewer than 16 elements.
pub(super) fn lanes(rows: usize, length: usize) -> usize {
    const THREADS: usize = 1 << 16;
    (THREADS / rows.max(1)).clamp(1, length.div_ceil(16).max(1))
}

/// Calls `read` with tensors of one CUDA device, each brought into row-major order first where it is not.
///
/// # Errors
/// A tensor on another device, or what `read` returns.
pub(super) fn with_operands<R, const N: usize>(
    tensors: [&Tensor; N],
    read: impl FnOnce(&CudaDevice, [Operand<'_>; N]) -> Result<R>,
) -> Result<R> {
    let tensors: Vec<Tensor> = tensors.iter().map(|tensor| tensor.contiguous()).collect::<Result<_>>()?;
    let held: Vec<(StorageRef<'_>, &Layout)> = tensors.iter().map(Tensor::storage_and_layout).collect();
    let mut operands: Vec<Operand<'_>> = Vec::with_capacity(N);
    for (storage, layout) in &held {
        match &**storage {
            Storage::Cuda(storage) => operands.push((storage, *layout)),
            _ => bail!("an operation on a CUDA device was given a tensor of another"),
        }
    }
    match <[Operand<'_>; N]>::try_from(operands) {
        Ok(operands) => read(operands[0].0.device(), operands),
        Err(_) => bail!("an operation on a CUDA device lost an operand"),
    }
}

/// A new f32 tensor of `shape` that `fill` writes from `tensors`.
pub(super) fn make<const N: usize>(
    tensors: [&Tensor; N],
    shape: impl Into<Shape>,
    fill: impl FnOnce(&CudaDevice, [Operand<'_>; N], &mut CudaStorage) -> Result<()>,
) -> Result<Tensor> {
    make_in(floats, tensors, shape.into(), fill)
}

/// [`make`] where the storage starts as zeros, for kernels that add.
pub(super) fn add_up<const N: usize>(
    tensors: [&Tensor; N],
    shape: impl Into<Shape>,
    fill: impl FnOnce(&CudaDevice, [Operand<'_>; N], &mut CudaStorage) -> Result<()>,
) -> Result<Tensor> {
    let zeros = |device: &CudaDevice, len: usize| device.zeros_impl(&Shape::from(len.max(1)), DType::F32);
    make_in(zeros, tensors, shape.into(), fill)
}

/// [`make`] in the room that `allocate` gives for a number of elements.
fn make_in<const N: usize>(
    allocate: impl FnOnce(&CudaDevice, usize) -> Result<CudaStorage>,
    tensors: [&Tensor; N],
    shape: Shape,
    fill: impl FnOnce(&CudaDevice, [Operand<'_>; N], &mut CudaStorage) -> Result<()>,
) -> Result<Tensor> {
    let storage = with_operands(tensors, |device, operands| {
        let mut storage = allocate(device, shape.elem_count())?;
        fill(device, operands, &mut storage)?;
        Ok(storage)
    })?;
    Ok(wrap(storage, shape))
}

fn wrap(storage: CudaStorage, shape: Shape) -> Tensor {
    Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false)
}

/// Sums over images and pixels of each channel of `g` `[N, C, …]`: the gradient of a bias, `[C]`.
pub(super) fn channel_sums(g: &Tensor) -> Result<Tensor> {
    let (n, channels) = (g.dim(0)?, g.dim(1)?);
    let total = g.elem_count() / channels.max(1);
    let (inner, lanes) = (total / n.max(1), lanes(channels, total));
    make([g], channels, |device, [g], sums| {
        let count = channels * lanes;
        let mut parts = doubles(device, count)?;
        let sizes = [channels, inner, total, lanes];
        launch(device, "channel_sums", count, &mut [Arg::In(g), Arg::Ints(&sizes), Arg::Out(&mut parts)])?;
        launch(device, "sum_lanes", channels, &mut [Arg::All(&parts), Arg::Ints(&[lanes]), Arg::Out(sums)])
    })
}

/// An operation from two functions: the result and its shape from the operands, and the operands' gradients from the
/// operands, the result and its gradient.
struct Run<const N: usize, F, B> {
    name: &'static str,
    forward: F,
    backward: B,
}

impl<const N: usize, F, B> Run<N, F, B> {
    fn refuse(&self) -> Result<(CpuStorage, Shape)> {
        bail!("{}: all tensors must be on the same device", self.name)
    }
}

impl<F, B> CustomOp1 for Run<1, F, B>
where
    F: Fn([Operand<'_>; 1]) -> Result<(CudaStorage, Shape)>,
    B: Fn([&Tensor; 1], &Tensor, &Tensor) -> Result<[Option<Tensor>; 1]>,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.refuse()
    }

    fn cuda_fwd(&self, s1: &CudaStorage, l1: &Layout) -> Result<(CudaStorage, Shape)> {
        (self.forward)([(s1, l1)])
    }

    fn bwd(&self, arg: &Tensor, res: &Tensor, grad_res: &Tensor) -> Result<Option<Tensor>> {
        let [g1] = (self.backward)([arg], res, grad_res)?;
        Ok(g1)
    }
}

impl<F, B> CustomOp2 for Run<2, F, B>
where
    F: Fn([Operand<'_>; 2]) -> Result<(CudaStorage, Shape)>,
    B: Fn([&Tensor; 2], &Tensor, &Tensor) -> Result<[Option<Tensor>; 2]>,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.refuse()
    }

    fn cuda_fwd(&self, s1: &CudaStorage, l1: &Layout, s2: &CudaStorage, l2: &Layout) -> Result<(CudaStorage, Shape)> {
        (self.forward)([(s1, l1), (s2, l2)])
    }

    fn bwd(
        &self,
        arg1: &Tensor,
        arg2: &Tensor,
        res: &Tensor,
        grad_res: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [g1, g2] = (self.backward)([arg1, arg2], res, grad_res)?;
        Ok((g1, g2))
    }
}

impl<F, B> CustomOp3 for Run<3, F, B>
where
    F: Fn([Operand<'_>; 3]) -> Result<(CudaStorage, Shape)>,
    B: Fn([&Tensor; 3], &Tensor, &Tensor) -> Result<[Option<Tensor>; 3]>,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.refuse()
    }

    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
        s3: &CudaStorage,
        l3: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        (self.forward)([(s1, l1), (s2, l2), (s3, l3)])
    }

    fn bwd(
        &self,
        arg1: &Tensor,
        arg2: &Tensor,
        arg3: &Tensor,
        res: &Tensor,
        grad_res: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [g1, g2, g3] = (self.backward)([arg1, arg2, arg3], res, grad_res)?;
        Ok((g1, g2, g3))
    }
}

/// The operation of `forward` and `backward` on `x`.
pub(super) fn apply1<F, B>(x: &Tensor, name: &'static str, forward: F, backward: B) -> Result<Tensor>
where
    F: Fn([Operand<'_>; 1]) -> Result<(CudaStorage, Shape)> + Send + Sync + 'static,
    B: Fn([&Tensor; 1], &Tensor, &Tensor) -> Result<[Option<Tensor>; 1]> + Send + Sync + 'static,
{
    tape::apply1(&x.contiguous()?, Run::<1, F, B> { name, forward, backward })
}

/// The operation of `forward` and `backward` on two tensors.
pub(super) fn apply2<F, B>([x, a]: [&Tensor; 2], name: &'static str, forward: F, backward: B) -> Result<Tensor>
where
    F: Fn([Operand<'_>; 2]) -> Result<(CudaStorage, Shape)> + Send + Sync + 'static,
    B: Fn([&Tensor; 2], &Tensor, &Tensor) -> Result<[Option<Tensor>; 2]> + Send + Sync + 'static,
{
    tape::apply2(&x.contiguous()?, &a.contiguous()?, Run::<2, F, B> { name, forward, backward })
}

/// The operation of `forward` and `backward` on three tensors.
pub(super) fn apply3<F, B>([x, a, b]: [&Tensor; 3], name: &'static str, forward: F, backward: B) -> Result<Tensor>
where
    F: Fn([Operand<'_>; 3]) -> Result<(CudaStorage, Shape)> + Send + Sync + 'static,
    B: Fn([&Tensor; 3], &Tensor, &Tensor) -> Result<[Option<Tensor>; 3]> + Send + Sync + 'static,
{
    tape::apply3(&x.contiguous()?, &a.contiguous()?, &b.contiguous()?, Run::<3, F, B> { name, forward, backward })
}
