//! Splitting work over rayon's pool, and the destination that tasks write to side by side.

use candle_core::{Error, Result};
use rayon::prelude::*;

/// Runs `work(0..tasks)` on the current pool, each task on its own. Tasks must not depend on their order.
pub(super) fn parallel(tasks: usize, work: impl Fn(usize) + Send + Sync) {
    if tasks < 2 || rayon::current_num_threads() == 1 {
        for task in 0..tasks {
            work(task);
        }
    } else {
        (0..tasks).into_par_iter().with_max_len(1).for_each(work);
    }
}

/// The floats that several tasks fill, each its own part: an address and how many floats lie there.
#[derive(Clone, Copy)]
pub(super) struct Destination {
    start: *mut f32,
    len: usize,
}

// SAFETY: an address alone; writing through it is unsafe, and those who do promise that tasks write disjoint parts.
unsafe impl Send for Destination {}
// SAFETY: as above.
unsafe impl Sync for Destination {}

impl Destination {
    /// All of `values`, which the caller leaves alone while tasks write.
    pub fn new(values: &mut [f32]) -> Self {
        Self { start: values.as_mut_ptr(), len: values.len() }
    }

    /// The address of float number `offset`.
    ///
    /// # Safety
    /// `offset` is at most the length, and the memory is still alive.
    #[inline(always)]
    pub unsafe fn at(self, offset: usize) -> *mut f32 {
        debug_assert!(offset <= self.len, "offset {offset} of {}", self.len);
        // SAFETY: within the allocation by the contract.
        unsafe { self.start.add(offset) }
    }
}

/// A vector of `len` floats that `fill` writes: no pass over fresh memory just to zero it.
///
/// # Safety
/// `fill` writes every one of the `len` floats and reads none before it has written it.
pub(super) unsafe fn filled(len: usize, fill: impl FnOnce(Destination)) -> Result<Vec<f32>> {
    let mut values: Vec<f32> = Vec::new();
    values
        .try_reserve_exact(len)
        .map_err(|error| Error::msg(format!("conv2d: no memory for {len} floats: {error}")))?;
    fill(Destination { start: values.as_mut_ptr(), len });
    // SAFETY: capacity is at least len, and the caller promises that all of them are written.
    unsafe { values.set_len(len) };
    Ok(values)
}
