//! The descriptors of tensors, filters, convolutions and activations.

use super::tensor::{Kind, Tensor};
use super::{Answer, Object, answer, bad, create, destroy, object, unsupported, update};
use std::ffi::{c_int, c_void};

/// What a convolution descriptor says; pairs are (vertical, horizontal).
#[derive(Clone, Copy, Debug)]
pub struct Convolution {
    pub window: Option<Window>,
    pub groups: usize,
    /// cuDNN's number of the math type.
    pub math: c_int,
}

#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub padding: [usize; 2],
    pub stride: [usize; 2],
    pub dilation: [usize; 2],
}

impl Convolution {
    /// Whether f32 factors are rounded to TF32: by all math types but the one that asks for fused multiply-adds.
    pub fn rounds(&self) -> bool {
        self.math != 3
    }
}

pub fn tensor(pointer: *mut c_void) -> Answer<Tensor> {
    match object(pointer) {
        Some(Object::Tensor(Some(tensor))) => Ok(tensor),
        _ => bad("a tensor's descriptor that is none, or not set"),
    }
}

pub fn filter(pointer: *mut c_void) -> Answer<Tensor> {
    match object(pointer) {
        Some(Object::Filter(Some(filter))) => Ok(filter),
        _ => bad("a filter's descriptor that is none, or not set"),
    }
}

pub fn convolution(pointer: *mut c_void) -> Answer<(Convolution, Window)> {
    match object(pointer) {
        Some(Object::Convolution(convolution)) if let Some(window) = convolution.window => Ok((convolution, window)),
        _ => bad("a convolution's descriptor that is none, or not set"),
    }
}

/// Whether an activation is ReLU, or else the identity.
pub fn is_relu(pointer: *mut c_void) -> Answer<bool> {
    match object(pointer) {
        Some(Object::Activation(Some(relu))) => Ok(relu),
        _ => bad("an activation's descriptor that is none, or not set"),
    }
}

/// The strides of a format: none for row-major order.
fn strides(format: c_int, [_, c, h, w]: [c_int; 4]) -> Answer<Option<[c_int; 4]>> {
    match format {
        0 => Ok(None),
        1 => Ok(Some([c.saturating_mul(h).saturating_mul(w), 1, c.saturating_mul(w), c])),
        2 => unsupported("only NCHW and NHWC are emulated"),
        _ => bad(format!("tensor format {format}")),
    }
}

/// `N` numbers of the caller's.
unsafe fn numbers<const N: usize>(count: c_int, at: *const c_int) -> Answer<[c_int; N]> {
    if usize::try_from(count) != Ok(N) {
        return unsupported(format!("{count} dimensions where {N} are emulated"));
    }
    if at.is_null() {
        return bad("no sizes");
    }
    // SAFETY: the caller says that there are this many.
    Ok(unsafe { at.cast::<[c_int; N]>().read_unaligned() })
}

fn set_tensor(pointer: *mut c_void, kind: c_int, sizes: [c_int; 4], strides: Option<[c_int; 4]>) -> Answer<()> {
    let tensor = Tensor::new(Kind::new(kind)?, sizes, strides)?;
    update(pointer, |object| matches!(object, Object::Tensor(_)).then_some(Object::Tensor(Some(tensor))))
}

fn set_filter(pointer: *mut c_void, kind: c_int, format: c_int, sizes: [c_int; 4]) -> Answer<()> {
    let filter = Tensor::new(Kind::new(kind)?, sizes, strides(format, sizes)?)?;
    update(pointer, |object| matches!(object, Object::Filter(_)).then_some(Object::Filter(Some(filter))))
}

fn set_convolution(
    pointer: *mut c_void,
    [padding, stride, dilation]: [[c_int; 2]; 3],
    mode: c_int,
    compute: c_int,
) -> Answer<()> {
    if padding.iter().any(|&pixels| pixels < 0) || stride.iter().chain(&dilation).any(|&pixels| pixels < 1) {
        return bad(format!("padding {padding:?}, stride {stride:?}, dilation {dilation:?}"));
    }
    match (mode, compute) {
        (1, 0) => {}
        (0, _) => return unsupported("flipped kernels are not emulated"),
        (1, 1 | 2 | 4) => return unsupported(format!("only sums in f32 are emulated, not in data type {compute}")),
        (1, _) => return bad(format!("sums in data type {compute}")),
        _ => return bad(format!("mode {mode}")),
    }
    let [padding, stride, dilation] = [padding, stride, dilation].map(|pair| pair.map(|pixels| pixels as usize));
    change_convolution(pointer, |old| Convolution { window: Some(Window { padding, stride, dilation }), ..old })
}

fn change_convolution(pointer: *mut c_void, change: impl Fn(Convolution) -> Convolution) -> Answer<()> {
    update(pointer, |object| match object {
        Object::Convolution(convolution) => Some(Object::Convolution(change(convolution))),
        _ => None,
    })
}

/// A function that makes an object, and one that ends it.
macro_rules! object_functions {
    ($($create:ident $($destroy:ident)? => $kind:ident($empty:expr);)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $create(place: *mut *mut c_void) -> i32 {
            // SAFETY: the caller's place for a pointer.
            answer(stringify!($create), || unsafe { create(place, Object::$kind($empty)) })
        }

        $(#[unsafe(no_mangle)]
        pub unsafe extern "C" fn $destroy(pointer: *mut c_void) -> i32 {
            answer(stringify!($destroy), || destroy(pointer, |object| matches!(object, Object::$kind(_))))
        })?
    )*};
}

object_functions! {
    cudnnCreateTensorDescriptor cudnnDestroyTensorDescriptor => Tensor(None);
    cudnnCreateFilterDescriptor cudnnDestroyFilterDescriptor => Filter(None);
    cudnnCreateConvolutionDescriptor cudnnDestroyConvolutionDescriptor
        => Convolution(Convolution { window: None, groups: 1, math: 0 });
    cudnnCreateActivationDescriptor => Activation(None);
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudnnSetTensor4dDescriptor(
    pointer: *mut c_void,
    format: c_int,
    kind: c_int,
    n: c_int,
    c: c_int,
    h: c_int,
    w: c_int,
) -> i32 {
    answer("cudnnSetTensor4dDescriptor", || {
        let sizes = [n, c, h, w];
        set_tensor(pointer, kind, sizes, strides(format, sizes)?)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudnnSetTensor4dDescriptorEx(
    pointer: *mut c_void,
    kind: c_int,
    n: c_int,
    c: c_int,
    h: c_int,
    w: c_int,
    n_stride: c_int,
    c_stride: c_int,
    h_stride: c_int,
    w_stride: c_int,
) -> i32 {
    let strides = [n_stride, c_stride, h_stride, w_stride];
    answer("cudnnSetTensor4dDescriptorEx", || set_tensor(pointer, kind, [n, c, h, w], Some(strides)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudnnSetTensorNdDescriptor(
    pointer: *mut c_void,
    kind: c_int,
    dimensions: c_int,
    sizes: *const c_int,
    strides: *const c_int,
) -> i32 {
    answer("cudnnSetTensorNdDescriptor", || {
        // SAFETY: the caller's arrays of that many numbers.
        let (sizes, strides) = unsafe { (numbers(dimensions, sizes)?, numbers(dimensions, strides)?) };
        set_tensor(pointer, kind, sizes, Some(strides))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudnnSetFilter4dDescriptor(
    pointer: *mut c_void,
    kind: c_int,
    format: c_int,
    k: c_int,
    c: c_int,
    h: c_int,
    w: c_int,
) -> i32 {
    answer("cudnnSetFilter4dDescriptor", || set_filter(pointer, kind, format, [k, c, h, w]))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudnnSetFilterNdDescriptor(
    pointer: *mut c_void,
    kind: c_int,
    format: c_int,
    dimensions: c_int,
    sizes: *const c_int,
) -> i32 {
    // SAFETY: the caller's array of that many numbers.
    let sizes = unsafe { numbers(dimensions, sizes) };
    answer("cudnnSetFilterNdDescriptor", || set_filter(pointer, kind, format, sizes?))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudnnSetConvolution2dDescriptor(
    pointer: *mut c_void,
    pad_h: c_int,
    pad_w: c_int,
    stride_h: c_int,
    stride_w: c_int,
    dilation_h: c_int,
    dilation_w: c_int,
    mode: c_int,
    compute: c_int,
) -> i32 {
    let window = [[pad_h, pad_w], [stride_h, stride_w], [dilation_h, dilation_w]];
    answer("cudnnSetConvolution2dDescriptor", || set_convolution(pointer, window, mode, compute))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudnnSetConvolutionNdDescriptor(
    pointer: *mut c_void,
    dimensions: c_int,
    padding: *const c_int,
    stride: *const c_int,
    dilation: *const c_int,
    mode: c_int,
    compute: c_int,
) -> i32 {
    answer("cudnnSetConvolutionNdDescriptor", || {
        // SAFETY: the caller's arrays of that many numbers.
        let read = |at| unsafe { numbers(dimensions, at) };
        set_convolution(pointer, [read(padding)?, read(stride)?, read(dilation)?], mode, compute)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudnnSetConvolutionGroupCount(pointer: *mut c_void, groups: c_int) -> i32 {
    answer("cudnnSetConvolutionGroupCount", || match usize::try_from(groups) {
        Ok(groups) if groups > 0 => change_convolution(pointer, |old| Convolution { groups, ..old }),
        _ => bad(format!("{groups} groups")),
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudnnSetConvolutionMathType(pointer: *mut c_void, math: c_int) -> i32 {
    answer("cudnnSetConvolutionMathType", || match math {
        0..=3 => change_convolution(pointer, |old| Convolution { math, ..old }),
        _ => bad(format!("math type {math}")),
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudnnSetActivationDescriptor(
    pointer: *mut c_void,
    mode: c_int,
    nan: c_int,
    _coefficient: f64,
) -> i32 {
    answer("cudnnSetActivationDescriptor", || {
        let relu = match (mode, nan) {
            (1 | 5, 0 | 1) => mode == 1,
            (0..=6, 0 | 1) => {
                return unsupported("only ReLU, which always keeps NaN here, and the identity are emulated");
            }
            _ => return bad(format!("activation {mode}, NaN propagation {nan}")),
        };
        update(pointer, |object| matches!(object, Object::Activation(_)).then_some(Object::Activation(Some(relu))))
    })
}
