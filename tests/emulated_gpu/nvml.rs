//! NVML: the driver's version, and identifier, name and memory of each device, which agree with what the driver says.
//!
//! Refused are calls before nvmlInit or after its nvmlShutdown, devices that are none, too little room for a text, and
//! a version of a structure that its caller did not fill in. What else NVML knows is not there to be found.

use crate::{complain, devices, driver};
use std::ffi::{CStr, c_char};
use std::sync::atomic::{AtomicUsize, Ordering};

const SUCCESS: u32 = 0;
const UNINITIALIZED: u32 = 1;
const INVALID_ARGUMENT: u32 = 2;
const NOT_FOUND: u32 = 6;
const INSUFFICIENT_SIZE: u32 = 7;
const ARGUMENT_VERSION_MISMATCH: u32 = 25;

/// A driver of CUDA 13.0.
const DRIVER_VERSION: &str = "580.82.07";

/// Bytes that the driver keeps for itself.
const RESERVED: u64 = 512 << 20;

/// How many users have it initialised.
static USERS: AtomicUsize = AtomicUsize::new(0);

/// A device's handle: its number above an address that is none.
const FIRST_HANDLE: usize = 0x4e56_0000;

#[repr(C)]
pub struct MemoryV2 {
    version: u32,
    total: u64,
    reserved: u64,
    free: u64,
    used: u64,
}

impl MemoryV2 {
    /// NVML_STRUCT_VERSION(Memory, 2).
    const VERSION: u32 = size_of::<Self>() as u32 | 2 << 24;
}

fn ready() -> Result<(), u32> {
    if USERS.load(Ordering::Relaxed) > 0 {
        return Ok(());
    }
    complain(format_args!("NVML is used without nvmlInit"));
    Err(UNINITIALIZED)
}

fn device(handle: usize) -> Result<usize, u32> {
    ready()?;
    handle.checked_sub(FIRST_HANDLE).filter(|&device| device < devices()).ok_or(INVALID_ARGUMENT)
}

fn status(outcome: Result<(), u32>) -> u32 {
    outcome.err().unwrap_or(SUCCESS)
}

fn put<T>(place: *mut T, value: T) -> Result<(), u32> {
    if place.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: the caller's place for a result.
    unsafe { place.write(value) };
    Ok(())
}

/// Writes a text and its final zero to a place of so many bytes.
fn put_text(place: *mut c_char, len: u32, text: &str) -> Result<(), u32> {
    if place.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    if text.len() >= len as usize {
        return Err(INSUFFICIENT_SIZE);
    }
    // SAFETY: the caller's place, which is long enough.
    unsafe {
        place.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), text.len());
        place.add(text.len()).write(0);
    }
    Ok(())
}

/// A device's identifier as NVML writes it.
fn identifier(device: usize) -> String {
    let mut id = [0; 16];
    // SAFETY: a place for an identifier.
    unsafe { driver::cuDeviceGetUuid_v2(&mut id, device as i32) };
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let groups = [&id[..4], &id[4..6], &id[6..8], &id[8..10], &id[10..]].map(hex);
    format!("GPU-{}", groups.join("-"))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlInit_v2() -> u32 {
    USERS.fetch_add(1, Ordering::Relaxed);
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlShutdown() -> u32 {
    status(ready().map(|()| {
        USERS.fetch_sub(1, Ordering::Relaxed);
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlErrorString(error: u32) -> *const c_char {
    let text = match error {
        SUCCESS => c"Success",
        UNINITIALIZED => c"Uninitialized",
        INVALID_ARGUMENT => c"Invalid Argument",
        NOT_FOUND => c"Not Found",
        INSUFFICIENT_SIZE => c"Insufficient Size",
        ARGUMENT_VERSION_MISMATCH => c"The provided version is invalid/unsupported",
        _ => c"Unknown Error",
    };
    text.as_ptr()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(version: *mut c_char, len: u32) -> u32 {
    status(ready().and_then(|()| put_text(version, len, DRIVER_VERSION)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut u32) -> u32 {
    status(ready().and_then(|()| put(count, devices() as u32)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: u32, handle: *mut usize) -> u32 {
    let own = FIRST_HANDLE + index as usize;
    status(device(own).and_then(|_| put(handle, own)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, handle: *mut usize) -> u32 {
    let found = || {
        ready()?;
        if uuid.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        // SAFETY: the caller's text, which ends in a zero.
        let uuid = unsafe { CStr::from_ptr(uuid) }.to_string_lossy();
        let device = (0..devices()).find(|&device| identifier(device) == uuid).ok_or(NOT_FOUND)?;
        put(handle, FIRST_HANDLE + device)
    };
    status(found())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(handle: usize, uuid: *mut c_char, len: u32) -> u32 {
    status(device(handle).and_then(|device| put_text(uuid, len, &identifier(device))))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetName(handle: usize, name: *mut c_char, len: u32) -> u32 {
    // SAFETY: the caller's room for so many bytes.
    let named = |device| match unsafe { driver::cuDeviceGetName(name, len as i32, device as i32) } {
        0 => Ok(()),
        _ => Err(INSUFFICIENT_SIZE),
    };
    status(device(handle).and_then(|device| if name.is_null() { Err(INVALID_ARGUMENT) } else { named(device) }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(handle: usize, memory: *mut MemoryV2) -> u32 {
    let told = || {
        device(handle)?;
        // SAFETY: null, or the caller's structure, of which the version is filled in.
        if unsafe { memory.as_ref() }.ok_or(INVALID_ARGUMENT)?.version != MemoryV2::VERSION {
            return Err(ARGUMENT_VERSION_MISMATCH);
        }
        let (mut free, mut total) = (0, 0);
        // SAFETY: places for two sizes.
        unsafe { driver::transfers::cuMemGetInfo_v2(&mut free, &mut total) };
        let (free, total) = (free as u64, total as u64 + RESERVED);
        let used = total - RESERVED - free;
        put(memory, MemoryV2 { version: MemoryV2::VERSION, total, reserved: RESERVED, free, used })
    };
    status(told())
}
