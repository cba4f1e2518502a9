//! The CUDA driver: devices, contexts, streams and events; memory and launches are in files of their own.
//!
//! What a stream is given is done before the call returns, so a wait that is missing does not show; streams that nothing
//! orders do. What a handle is used for must fit the thread's context, sizes of nothing are refused where the
//! driver refuses them, and a kernel that fails leaves its context broken, as on a device.

mod modules;
pub mod transfers;

use crate::{complain, devices, memory};
use std::ffi::{c_char, c_void};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Instant;

const OK: i32 = 0;
const INVALID_VALUE: i32 = 1;
const OUT_OF_MEMORY: i32 = 2;
const INVALID_DEVICE: i32 = 101;
const INVALID_CONTEXT: i32 = 201;
const INVALID_PTX: i32 = 218;
const INVALID_HANDLE: i32 = 400;
const NOT_FOUND: i32 = 500;
const ILLEGAL_ADDRESS: i32 = 700;
const ASSERT: i32 = 710;
const MISALIGNED_ADDRESS: i32 = 716;
const LAUNCH_FAILED: i32 = 719;

/// Bytes of a device's memory: `EMULATED_GPU_MIB` mebibytes, or 12 GiB.
pub static MEMORY: LazyLock<usize> = LazyLock::new(|| {
    let mebibytes = std::env::var("EMULATED_GPU_MIB").ok().and_then(|text| text.parse::<usize>().ok());
    mebibytes.unwrap_or(12 << 10) << 20
});

/// The error of the last kernel that failed: nothing works after it.
static BROKEN: AtomicI32 = AtomicI32::new(OK);

/// Whether launches and copies are listed on stderr.
static LISTS: LazyLock<bool> = LazyLock::new(|| std::env::var_os("EMULATED_GPU_LOG").is_some());

/// The handle of the default stream that every thread has one of, and the thread that uses its own.
const PER_THREAD: usize = 2;
static THREAD: Mutex<Option<ThreadId>> = Mutex::new(None);

/// How many streams were created: none of them waits for a default stream, as programs ask for it.
static OWN_STREAMS: AtomicUsize = AtomicUsize::new(0);

struct Stream {
    device: usize,
}

struct Event {
    device: usize,
    recorded: Option<Instant>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The current device, if there is one and it still works.
fn here() -> Result<usize, i32> {
    match BROKEN.load(Ordering::Relaxed) {
        OK => memory::current().ok_or(INVALID_CONTEXT),
        broken => Err(broken),
    }
}

/// Whether what is given to a stream comes after what the program gave to others; 0, 1 and 2 are the default streams.
pub(crate) fn is_ordered(stream: u64) -> bool {
    let this = thread::current().id();
    if stream == PER_THREAD as u64 && *locked(&THREAD).get_or_insert(this) != this {
        complain(format_args!("two threads use the stream that each has for itself: nothing orders their work"));
        return false;
    }
    if stream <= PER_THREAD as u64 && OWN_STREAMS.load(Ordering::Relaxed) > 0 {
        complain(format_args!("a default stream, and others beside it that do not wait for it"));
        return false;
    }
    true
}

/// The device of a stream, which must be the thread's.
#[track_caller]
unsafe fn on(stream: *mut c_void) -> Result<usize, i32> {
    let device = here()?;
    if !is_ordered(stream as u64) {
        return Err(INVALID_HANDLE);
    }
    // SAFETY: streams other than the default ones are made below.
    if stream.addr() > PER_THREAD && unsafe { &*stream.cast::<Stream>() }.device != device {
        complain(format_args!("a stream of another device than the thread's: {}", std::panic::Location::caller()));
        return Err(INVALID_HANDLE);
    }
    Ok(device)
}

unsafe fn put<T>(at: *mut T, value: T) -> i32 {
    if at.is_null() {
        return INVALID_VALUE;
    }
    // SAFETY: the caller's place for a result.
    unsafe { at.write(value) };
    OK
}

#[unsafe(no_mangle)]
pub extern "C" fn cuInit(flags: u32) -> i32 {
    if flags == 0 { OK } else { INVALID_VALUE }
}

/// NVRTC looks for one; there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetExportTable(table: *mut *const c_void, _name: *const c_void) -> i32 {
    if !table.is_null() {
        // SAFETY: the caller's place for a table.
        unsafe { *table = std::ptr::null() };
    }
    NOT_FOUND
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(error: i32, name: *mut *const c_char) -> i32 {
    let text = match error {
        OK => c"CUDA_SUCCESS",
        INVALID_VALUE => c"CUDA_ERROR_INVALID_VALUE",
        OUT_OF_MEMORY => c"CUDA_ERROR_OUT_OF_MEMORY",
        INVALID_DEVICE => c"CUDA_ERROR_INVALID_DEVICE",
        INVALID_CONTEXT => c"CUDA_ERROR_INVALID_CONTEXT",
        INVALID_PTX => c"CUDA_ERROR_INVALID_PTX",
        INVALID_HANDLE => c"CUDA_ERROR_INVALID_HANDLE",
        NOT_FOUND => c"CUDA_ERROR_NOT_FOUND",
        ILLEGAL_ADDRESS => c"CUDA_ERROR_ILLEGAL_ADDRESS",
        ASSERT => c"CUDA_ERROR_ASSERT",
        MISALIGNED_ADDRESS => c"CUDA_ERROR_MISALIGNED_ADDRESS",
        LAUNCH_FAILED => c"CUDA_ERROR_LAUNCH_FAILED",
        _ => c"CUDA_ERROR_UNKNOWN",
    };
    unsafe { put(name, text.as_ptr()) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(error: i32, text: *mut *const c_char) -> i32 {
    unsafe { cuGetErrorName(error, text) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(count: *mut i32) -> i32 {
    unsafe { put(count, devices() as i32) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(device: *mut i32, ordinal: i32) -> i32 {
    if ordinal < 0 || ordinal as usize >= devices() {
        return INVALID_DEVICE;
    }
    unsafe { put(device, ordinal) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(value: *mut i32, attribute: i32, _device: i32) -> i32 {
    let found = match attribute {
        1 => 1024,          // threads of a block
        2..=3 => 1024,      // its width and height
        4 => 64,            // its depth
        5 => i32::MAX,      // blocks of a grid along x
        6 | 7 => 65_535,    // and along y and z
        8 => SHARED as i32, // shared memory of a block
        10 => LANES,        // threads of a warp
        16 => 4,            // multiprocessors
        39 => 2048,         // threads of one
        75 => 9,            // compute capability
        76 => 0,
        81 => MOST_SHARED as i32, // shared memory of a multiprocessor
        97 => MOST_SHARED as i32, // and of a block that asks
        41 | 90 | 95 | 115 => 1,  // unified addresses, cooperative launches, memory pools
        _ => {
            complain(format_args!("cuDeviceGetAttribute: attribute {attribute} is not known"));
            return INVALID_VALUE;
        }
    };
    unsafe { put(value, found) }
}

const LANES: i32 = 32;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, len: i32, device: i32) -> i32 {
    let text = format!("Emulated GPU {device}\0");
    if text.len() > len as usize {
        return INVALID_VALUE;
    }
    // SAFETY: the caller has room for `len` bytes.
    unsafe { ptr::copy_nonoverlapping(text.as_ptr(), name.cast(), text.len()) };
    OK
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetUuid_v2(uuid: *mut [u8; 16], device: i32) -> i32 {
    unsafe { put(uuid, [device as u8; 16]) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, _device: i32) -> i32 {
    unsafe { put(bytes, *MEMORY) }
}

/// A device's primary context stands for the device: its handle is the ordinal, and one.
fn context_of(device: usize) -> *mut c_void {
    ptr::without_provenance_mut(device + 1)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut *mut c_void, device: i32) -> i32 {
    if device < 0 || device as usize >= devices() {
        return INVALID_DEVICE;
    }
    unsafe { put(context, context_of(device as usize)) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRelease_v2(_device: i32) -> i32 {
    OK
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetCurrent(context: *mut c_void) -> i32 {
    let device = context.addr().checked_sub(1);
    if device.is_some_and(|device| device >= devices()) {
        return INVALID_CONTEXT;
    }
    memory::set_current(device);
    OK
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetCurrent(context: *mut *mut c_void) -> i32 {
    unsafe { put(context, memory::current().map_or(ptr::null_mut(), context_of)) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSynchronize() -> i32 {
    here().err().unwrap_or(OK)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetFlags(_flags: u32) -> i32 {
    OK
}

unsafe fn create_stream(stream: *mut *mut c_void) -> i32 {
    OWN_STREAMS.fetch_add(1, Ordering::Relaxed);
    match here() {
        Ok(device) => unsafe { put(stream, Box::into_raw(Box::new(Stream { device })).cast()) },
        Err(why) => why,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreate(stream: *mut *mut c_void, _flags: u32) -> i32 {
    unsafe { create_stream(stream) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreateWithPriority(stream: *mut *mut c_void, _flags: u32, _priority: i32) -> i32 {
    unsafe { create_stream(stream) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamDestroy_v2(stream: *mut c_void) -> i32 {
    if stream.addr() <= 2 {
        return INVALID_HANDLE;
    }
    // SAFETY: made by `create_stream`, and destroyed once.
    drop(unsafe { Box::from_raw(stream.cast::<Stream>()) });
    OK
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamSynchronize(stream: *mut c_void) -> i32 {
    if *LISTS {
        eprintln!("wait");
    }
    unsafe { on(stream) }.err().unwrap_or(OK)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamIsCapturing(_stream: *mut c_void, state: *mut i32) -> i32 {
    unsafe { put(state, 0) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamWaitEvent(stream: *mut c_void, event: *mut c_void, _flags: u32) -> i32 {
    if event.is_null() {
        return INVALID_HANDLE;
    }
    unsafe { on(stream) }.err().unwrap_or(OK)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventCreate(event: *mut *mut c_void, _flags: u32) -> i32 {
    match here() {
        Ok(device) => unsafe { put(event, Box::into_raw(Box::new(Event { device, recorded: None })).cast()) },
        Err(why) => why,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventDestroy_v2(event: *mut c_void) -> i32 {
    if event.is_null() {
        return INVALID_HANDLE;
    }
    // SAFETY: made by `cuEventCreate`, and destroyed once.
    drop(unsafe { Box::from_raw(event.cast::<Event>()) });
    OK
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventRecord(event: *mut c_void, stream: *mut c_void) -> i32 {
    if event.is_null() {
        return INVALID_HANDLE;
    }
    // SAFETY: made by `cuEventCreate`.
    let event = unsafe { &mut *event.cast::<Event>() };
    match unsafe { on(stream) } {
        Ok(device) if device == event.device => event.recorded = Some(Instant::now()),
        Ok(_) => {
            complain(format_args!("cuEventRecord: event and stream are of different devices"));
            return INVALID_HANDLE;
        }
        Err(why) => return why,
    }
    OK
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventSynchronize(event: *mut c_void) -> i32 {
    if event.is_null() { INVALID_HANDLE } else { BROKEN.load(Ordering::Relaxed) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventQuery(event: *mut c_void) -> i32 {
    cuEventSynchronize(event)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventElapsedTime_v2(ms: *mut f32, start: *mut c_void, end: *mut c_void) -> i32 {
    if start.is_null() || end.is_null() {
        return INVALID_HANDLE;
    }
    // SAFETY: made by `cuEventCreate`.
    let (start, end) = unsafe { ((*start.cast::<Event>()).recorded, (*end.cast::<Event>()).recorded) };
    match (start, end) {
        (Some(start), Some(end)) => unsafe { put(ms, end.saturating_duration_since(start).as_secs_f32() * 1e3) },
        _ => INVALID_HANDLE,
    }
}

/// Bytes of shared memory that a block may have without asking, and at most.
const SHARED: usize = 48 << 10;
const MOST_SHARED: usize = 227 << 10;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchHostFunc(
    stream: *mut c_void,
    function: Option<unsafe extern "C" fn(*mut c_void)>,
    data: *mut c_void,
) -> i32 {
    if let Some(function) = function {
        // SAFETY: the caller's function with the caller's data.
        unsafe { function(data) };
    }
    unsafe { on(stream) }.err().unwrap_or(OK)
}
