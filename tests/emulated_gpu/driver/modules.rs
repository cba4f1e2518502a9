//! The driver's modules, and the launches of their kernels.

use super::{
    ASSERT, BROKEN, ILLEGAL_ADDRESS, INVALID_HANDLE, INVALID_PTX, INVALID_VALUE, LAUNCH_FAILED, LISTS,
    MISALIGNED_ADDRESS, MOST_SHARED, NOT_FOUND, OK, SHARED, here, locked, on, put,
};
use crate::complain;
use crate::ptx::{Fault, Grid, Kernel, Module, launch};
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Instant;

struct LoadedModule {
    module: Module,
    device: usize,
    functions: HashMap<String, *mut Function>,
}

struct Function {
    kernel: Arc<Kernel>,
    device: usize,
    dynamic_shared: usize,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadData(module: *mut *mut c_void, image: *const c_void) -> i32 {
    let device = match here() {
        Ok(device) => device,
        Err(why) => return why,
    };
    // SAFETY: an image of text ends with a zero.
    let text = unsafe { CStr::from_ptr(image.cast()) }.to_string_lossy();
    match Module::new(&text) {
        Ok(text) => {
            let loaded = LoadedModule { module: text, device, functions: HashMap::new() };
            unsafe { put(module, Box::into_raw(Box::new(loaded)).cast()) }
        }
        Err(why) => {
            complain(format_args!("cuModuleLoadData: {why}"));
            INVALID_PTX
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleUnload(module: *mut c_void) -> i32 {
    if module.is_null() {
        return INVALID_HANDLE;
    }
    // SAFETY: made by `cuModuleLoadData`, and unloaded once; so are its functions.
    let module = unsafe { Box::from_raw(module.cast::<LoadedModule>()) };
    module.functions.values().for_each(|&function| drop(unsafe { Box::from_raw(function) }));
    OK
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(
    function: *mut *mut c_void,
    module: *mut c_void,
    name: *const c_char,
) -> i32 {
    static READING: Mutex<()> = Mutex::new(());
    let _reading = locked(&READING);
    // SAFETY: made by `cuModuleLoadData`; one caller at a time looks into it.
    let module = unsafe { &mut *module.cast::<LoadedModule>() };
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
    if let Some(known) = module.functions.get(&*name) {
        return unsafe { put(function, known.cast()) };
    }
    if module.module.function(&name).is_none() {
        return NOT_FOUND;
    }
    match Kernel::read(&module.module, &name) {
        Ok(kernel) => {
            let own = Function { kernel: Arc::new(kernel), device: module.device, dynamic_shared: SHARED };
            let own = Box::into_raw(Box::new(own));
            module.functions.insert(name.into_owned(), own);
            unsafe { put(function, own.cast()) }
        }
        Err(why) => {
            complain(format_args!("{name}: {why}"));
            INVALID_PTX
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFuncSetAttribute(function: *mut c_void, attribute: i32, value: i32) -> i32 {
    const MAX_DYNAMIC_SHARED: i32 = 8;
    // SAFETY: made by `cuModuleGetFunction`.
    let function = unsafe { &mut *function.cast::<Function>() };
    if attribute == MAX_DYNAMIC_SHARED {
        if value < 0 || value as usize > MOST_SHARED {
            return INVALID_VALUE;
        }
        function.dynamic_shared = value as usize;
    }
    OK
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernel(
    function: *mut c_void,
    grid_x: u32,
    grid_y: u32,
    grid_z: u32,
    block_x: u32,
    block_y: u32,
    block_z: u32,
    shared: u32,
    stream: *mut c_void,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> i32 {
    let device = match unsafe { on(stream) } {
        Ok(device) => device,
        Err(why) => return why,
    };
    // SAFETY: made by `cuModuleGetFunction`.
    let function = unsafe { &*function.cast::<Function>() };
    let kernel = &function.kernel;
    let grid = Grid {
        blocks: [grid_x, grid_y, grid_z],
        threads: [block_x, block_y, block_z],
        dynamic_shared: shared as usize,
    };
    let refused = match () {
        () if function.device != device => "a function of another device",
        () if grid.blocks.contains(&0) || grid.threads.contains(&0) => "a grid of nothing",
        () if grid.threads.iter().map(|&n| u64::from(n)).product::<u64>() > 1024 => "a block of over 1024 threads",
        () if block_z > 64 => "a block over 64 deep",
        () if grid_x > i32::MAX as u32 || grid_y > 65_535 || grid_z > 65_535 => "too large a grid",
        () if grid.dynamic_shared > function.dynamic_shared => "more shared memory than was asked for",
        () if kernel.shared_bytes + grid.dynamic_shared > MOST_SHARED => "too much shared memory",
        () if !extra.is_null() => "parameters in a buffer, which is not emulated",
        () => "",
    };
    if !refused.is_empty() {
        complain(format_args!("{}: {refused}", kernel.name));
        return INVALID_VALUE;
    }
    let mut bytes = Vec::new();
    for (index, param) in kernel.params.iter().enumerate() {
        bytes.resize(bytes.len().next_multiple_of(param.align), 0u8);
        // SAFETY: the caller gives a place for each of the kernel's parameters.
        let value = unsafe { std::slice::from_raw_parts((*params.add(index)).cast::<u8>(), param.bytes) };
        bytes.extend(value);
    }
    let start = Instant::now();
    let outcome = launch(kernel, &grid, &bytes);
    if *LISTS {
        eprintln!("launch {} {:?}x{:?} {:?}", kernel.name, grid.blocks, grid.threads, start.elapsed());
    }
    let Err((fault, place)) = outcome else { return OK };
    complain(format_args!("{fault:?} in {place}"));
    let error = match fault {
        Fault::OutOfBounds => ILLEGAL_ADDRESS,
        Fault::Misaligned => MISALIGNED_ADDRESS,
        Fault::Assertion => ASSERT,
        Fault::Barrier => LAUNCH_FAILED,
    };
    BROKEN.store(error, Ordering::Relaxed);
    error
}
