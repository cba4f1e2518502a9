//! The driver's memory: allocations and copies.

use super::{INVALID_VALUE, LISTS, MEMORY, OK, OUT_OF_MEMORY, PER_THREAD, context_of, here, locked, on, put};
use crate::{complain, devices, memory};
use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

static USED: AtomicUsize = AtomicUsize::new(0);

/// Sizes of what is allocated, to give back to [`USED`].
static SIZES: Mutex<Option<HashMap<u64, usize>>> = Mutex::new(None);

unsafe fn allocate(place: *mut u64, bytes: usize) -> i32 {
    if let Err(why) = here() {
        return why;
    }
    if bytes == 0 {
        complain(format_args!("an allocation of nothing"));
        return INVALID_VALUE;
    }
    if USED.fetch_add(bytes, Ordering::Relaxed) + bytes > *MEMORY * devices() {
        USED.fetch_sub(bytes, Ordering::Relaxed);
        return OUT_OF_MEMORY;
    }
    let Some(start) = memory::allocate(bytes) else { return OUT_OF_MEMORY };
    locked(&SIZES).get_or_insert_default().insert(start, bytes);
    unsafe { put(place, start) }
}

fn release(place: u64) -> i32 {
    if place == 0 {
        return OK;
    }
    let Some(bytes) = locked(&SIZES).get_or_insert_default().remove(&place) else {
        complain(format_args!("what is freed was never allocated, or freed before"));
        return INVALID_VALUE;
    };
    USED.fetch_sub(bytes, Ordering::Relaxed);
    if memory::free(place) { OK } else { INVALID_VALUE }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(place: *mut u64, bytes: usize) -> i32 {
    unsafe { allocate(place, bytes) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocAsync(place: *mut u64, bytes: usize, stream: *mut c_void) -> i32 {
    match unsafe { on(stream) } {
        // candle asks for this where it sums up a single number.
        Ok(_) if bytes == 0 => unsafe { put(place, 0) },
        Ok(_) => unsafe { allocate(place, bytes) },
        Err(why) => why,
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFree_v2(place: u64) -> i32 {
    release(place)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFreeAsync(place: u64, stream: *mut c_void) -> i32 {
    // A tensor may be dropped where another device is the thread's: a stream knows its own.
    match if stream.addr() > PER_THREAD { Ok(0) } else { unsafe { on(stream) } } {
        Ok(_) => release(place),
        Err(why) => why,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> i32 {
    let left = (*MEMORY * devices()).saturating_sub(USED.load(Ordering::Relaxed)).min(*MEMORY);
    unsafe { put(free, left).max(put(total, *MEMORY)) }
}

/// The default pool of a device has no settings that would show here.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetDefaultMemPool(pool: *mut *mut c_void, device: i32) -> i32 {
    unsafe { put(pool, context_of(device as usize)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemPoolSetAttribute(pool: *mut c_void, attribute: i32, value: *mut c_void) -> i32 {
    if pool.is_null() || value.is_null() || !(1..=8).contains(&attribute) { INVALID_VALUE } else { OK }
}

unsafe fn set_bytes(place: u64, value: u8, bytes: usize) -> i32 {
    if let Err(why) = here() {
        return why;
    }
    match memory::view_mut::<u8>(place, bytes) {
        Some(bytes) => {
            bytes.fill(value);
            OK
        }
        None => {
            complain(format_args!("cuMemsetD8: {bytes} bytes lie outside of any allocation"));
            INVALID_VALUE
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD8Async(place: u64, value: u8, bytes: usize, stream: *mut c_void) -> i32 {
    match unsafe { on(stream) } {
        Ok(_) => unsafe { set_bytes(place, value, bytes) },
        Err(why) => why,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD8_v2(place: u64, value: u8, bytes: usize) -> i32 {
    unsafe { set_bytes(place, value, bytes) }
}

/// Copies between main memory and the device, or on the device.
unsafe fn copy(what: &str, to: u64, from: u64, bytes: usize, on_device: (bool, bool)) -> i32 {
    if let Err(why) = here() {
        return why;
    }
    if *LISTS {
        eprintln!("copy {what} {bytes}");
    }
    let outside = |is_there: bool, at| is_there && memory::view::<u8>(at, bytes).is_none();
    if outside(on_device.0, to) || outside(on_device.1, from) {
        complain(format_args!("a copy {what}: {bytes} bytes lie outside of any allocation"));
        return INVALID_VALUE;
    }
    if bytes > 0 {
        // SAFETY: ends on the device were checked, and the caller answers for those in main memory.
        unsafe { ptr::copy(from as *const u8, to as *mut u8, bytes) };
    }
    OK
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, bytes: usize, stream: *mut c_void) -> i32 {
    match unsafe { on(stream) } {
        Ok(_) => unsafe { copy("to the device", to, from as u64, bytes, (true, false)) },
        Err(why) => why,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoD_v2(to: u64, from: *const c_void, bytes: usize) -> i32 {
    unsafe { copy("to the device", to, from as u64, bytes, (true, false)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, bytes: usize, stream: *mut c_void) -> i32 {
    match unsafe { on(stream) } {
        Ok(_) => unsafe { copy("to main memory", to as u64, from, bytes, (false, true)) },
        Err(why) => why,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoH_v2(to: *mut c_void, from: u64, bytes: usize) -> i32 {
    unsafe { copy("to main memory", to as u64, from, bytes, (false, true)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: *mut c_void) -> i32 {
    match unsafe { on(stream) } {
        Ok(_) => unsafe { copy("on the device", to, from, bytes, (true, true)) },
        Err(why) => why,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) -> i32 {
    unsafe { copy("on the device", to, from, bytes, (true, true)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyPeerAsync(
    to: u64,
    to_context: *mut c_void,
    from: u64,
    from_context: *mut c_void,
    bytes: usize,
    stream: *mut c_void,
) -> i32 {
    let device = match unsafe { on(stream) } {
        Ok(device) => device,
        Err(why) => return why,
    };
    memory::set_current(from_context.addr().checked_sub(1));
    let source = memory::view::<u8>(from, bytes);
    memory::set_current(to_context.addr().checked_sub(1));
    let target = memory::view_mut::<u8>(to, bytes);
    memory::set_current(Some(device));
    match (source, target) {
        (Some(source), Some(target)) => {
            target.copy_from_slice(source);
            OK
        }
        _ => {
            complain(format_args!("cuMemcpyPeerAsync: {bytes} bytes lie outside of any allocation"));
            INVALID_VALUE
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostAlloc(place: *mut *mut c_void, bytes: usize, _flags: u32) -> i32 {
    let room = vec![0u8; bytes].into_boxed_slice();
    locked(&PINNED).get_or_insert_default().insert(room.as_ptr() as u64, room.len());
    unsafe { put(place, Box::into_raw(room).cast()) }
}

static PINNED: Mutex<Option<HashMap<u64, usize>>> = Mutex::new(None);

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFreeHost(place: *mut c_void) -> i32 {
    let Some(bytes) = locked(&PINNED).get_or_insert_default().remove(&(place as u64)) else { return INVALID_VALUE };
    // SAFETY: allocated above with this length.
    drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(place.cast::<u8>(), bytes)) });
    OK
}
