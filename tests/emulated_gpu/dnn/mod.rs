//! cuDNN's convolutions: forward, with bias and activation, and both gradients, for four-dimensional NCHW and NHWC tensors of f32,
//! f16 and bf16 whose products are summed in f32.
//!
//! Sizes, types, strides, workspaces and algorithms are checked as the reference manual of cuDNN 9 asks; where it leaves
//! something open the stricter reading holds. What nobody calls is refused: other layouts and types, flipped kernels,
//! pooling, softmax, reductions, activations by themselves.

mod algorithms;
mod conv;
mod descriptors;
mod products;
mod tensor;

use crate::driver::is_ordered;
use crate::memory;
use descriptors::Convolution;
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tensor::Tensor;

const SUCCESS: i32 = 0;
const NOT_INITIALIZED: i32 = 1001;
const BAD_PARAM: i32 = 2000;
const NOT_SUPPORTED: i32 = 3000;
const EXECUTION_FAILED: i32 = 5000;

/// The status of a call that fails, and what to say of it: nothing where asking was no mistake.
struct Refusal(i32, String);

type Answer<T> = Result<T, Refusal>;

fn bad<T>(why: impl Into<String>) -> Answer<T> {
    Err(Refusal(BAD_PARAM, why.into()))
}

fn unsupported<T>(why: impl Into<String>) -> Answer<T> {
    Err(Refusal(NOT_SUPPORTED, why.into()))
}

/// The status of `work`, whose refusal is said on stderr.
fn answer(function: &str, work: impl FnOnce() -> Answer<()>) -> i32 {
    match work() {
        Ok(()) => SUCCESS,
        Err(Refusal(status, why)) => {
            if !why.is_empty() {
                crate::complain(format_args!("{function}: {why}"));
            }
            status
        }
    }
}

/// What a caller holds a pointer to; a descriptor is empty until it is set.
#[derive(Clone, Copy)]
enum Object {
    /// With the device that it belongs to.
    Handle(usize),
    Tensor(Option<Tensor>),
    Filter(Option<Tensor>),
    Convolution(Convolution),
    /// Whether it is ReLU, or else the identity.
    Activation(Option<bool>),
}

/// The objects that live, under the pointers that stand for them. Nothing is stored where these point, so that a caller
/// who goes on with a destroyed one is told so.
static OBJECTS: Mutex<BTreeMap<usize, Object>> = Mutex::new(BTreeMap::new());

fn objects() -> MutexGuard<'static, BTreeMap<usize, Object>> {
    OBJECTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes an object and writes its pointer to `place`.
unsafe fn create(place: *mut *mut c_void, object: Object) -> Answer<()> {
    static NEXT: Mutex<usize> = Mutex::new(0);
    if place.is_null() {
        return bad("no place for what is created");
    }
    let mut next = NEXT.lock().unwrap_or_else(PoisonError::into_inner);
    *next += 16;
    objects().insert(*next, object);
    // SAFETY: the caller's place for a pointer.
    unsafe { place.write(*next as *mut c_void) };
    Ok(())
}

/// Ends an object of the kind that `is` tells; as with cuDNN, of none at all is no mistake.
fn destroy(pointer: *mut c_void, is: impl Fn(&Object) -> bool) -> Answer<()> {
    if pointer.is_null() {
        return Ok(());
    }
    if !objects().get(&(pointer as usize)).is_some_and(is) {
        return bad("not an object of this kind, or one that was destroyed before");
    }
    objects().remove(&(pointer as usize));
    Ok(())
}

fn object(pointer: *mut c_void) -> Option<Object> {
    objects().get(&(pointer as usize)).copied()
}

/// Changes an object by what `change` makes of it: none where it is of another kind.
fn update(pointer: *mut c_void, change: impl Fn(Object) -> Option<Object>) -> Answer<()> {
    match objects().get_mut(&(pointer as usize)) {
        Some(object) if let Some(changed) = change(*object) => *object = changed,
        _ => return bad("not a descriptor of this kind"),
    }
    Ok(())
}

/// Checks that a handle lives and belongs to the thread's current device.
fn check_handle(handle: *mut c_void) -> Answer<()> {
    match object(handle) {
        Some(Object::Handle(device)) if memory::current() == Some(device) => Ok(()),
        Some(Object::Handle(device)) => {
            bad(format!("a handle of device {device}, while the thread's current one is {:?}", memory::current()))
        }
        _ => bad("not a handle"),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudnnCreate(handle: *mut *mut c_void) -> i32 {
    answer("cudnnCreate", || match memory::current() {
        // SAFETY: the caller's place for a handle.
        Some(device) => unsafe { create(handle, Object::Handle(device)) },
        None => Err(Refusal(NOT_INITIALIZED, "the thread has no current device".into())),
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudnnDestroy(handle: *mut c_void) -> i32 {
    answer("cudnnDestroy", || destroy(handle, |object| matches!(object, Object::Handle(_))))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudnnSetStream(handle: *mut c_void, stream: *mut c_void) -> i32 {
    answer("cudnnSetStream", || match is_ordered(stream as u64) {
        true => check_handle(handle),
        false => bad("a stream that nothing orders".to_owned()),
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cudnnGetVersion() -> usize {
    92100
}

#[unsafe(no_mangle)]
pub extern "C" fn cudnnGetCudartVersion() -> usize {
    13000
}

/// Functions that take nothing and succeed.
macro_rules! agree {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() -> i32 {
            SUCCESS
        }
    )*};
}

agree! { cudnnAdvVersionCheck cudnnCnnVersionCheck cudnnOpsVersionCheck }

/// Functions that nobody calls. They look at none of their arguments, which the caller takes back.
macro_rules! refuse {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() -> i32 {
            answer(stringify!($name), || unsupported("not emulated"))
        }
    )*};
}

refuse! {
    cudnnActivationForward cudnnCreatePoolingDescriptor cudnnCreateReduceTensorDescriptor
    cudnnDestroyReduceTensorDescriptor cudnnGetReductionIndicesSize cudnnGetReductionWorkspaceSize cudnnPoolingForward
    cudnnReduceTensor cudnnSetPoolingNdDescriptor cudnnSetReduceTensorDescriptor cudnnSoftmaxForward
}
