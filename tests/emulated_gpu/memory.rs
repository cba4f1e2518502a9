//! The memory of the emulated devices: main memory, of which every allocation is known, so that a read or write outside
//! of one is an error and not a surprise.

use std::alloc::{Layout, alloc, dealloc};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

/// Bytes that every allocation starts on a multiple of, as the driver promises.
const ALIGNMENT: usize = 256;

/// What fresh memory holds: a NaN in f32, f64 and both 16-bit types, so that what was never written shows.
const FRESH: u8 = 0xff;

/// A stretch of one device's memory.
#[derive(Clone, Copy)]
pub struct Area {
    pub start: u64,
    pub bytes: usize,
    pub device: usize,
}

impl Area {
    /// Whether `bytes` from `at` lie in it.
    pub fn holds(&self, at: u64, bytes: usize) -> bool {
        at >= self.start && bytes <= self.bytes && at - self.start <= (self.bytes - bytes) as u64
    }
}

static AREAS: RwLock<BTreeMap<u64, Area>> = RwLock::new(BTreeMap::new());

thread_local! {
    static CURRENT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The device that this thread works on.
pub fn current() -> Option<usize> {
    CURRENT.get()
}

pub fn set_current(device: Option<usize>) {
    CURRENT.set(device);
}

/// Room on the current device, filled with what shows when it is read unwritten; none where the machine has no more.
pub fn allocate(bytes: usize) -> Option<u64> {
    let layout = Layout::from_size_align(bytes.max(1), ALIGNMENT).ok()?;
    // SAFETY: the layout is not empty.
    let start = unsafe { alloc(layout) };
    if start.is_null() {
        return None;
    }
    // SAFETY: just allocated with this many bytes.
    unsafe { start.write_bytes(FRESH, bytes) };
    let area = Area { start: start as u64, bytes, device: current()? };
    AREAS.write().unwrap_or_else(PoisonError::into_inner).insert(area.start, area);
    Some(area.start)
}

/// Gives an allocation back; false where there is none that starts there.
pub fn free(start: u64) -> bool {
    let Some(area) = AREAS.write().unwrap_or_else(PoisonError::into_inner).remove(&start) else { return false };
    let Ok(layout) = Layout::from_size_align(area.bytes.max(1), ALIGNMENT) else { return false };
    // SAFETY: allocated above with this layout, and no longer listed.
    unsafe { dealloc(start as *mut u8, layout) };
    true
}

/// The allocation of the current device that holds `bytes` from `at`.
pub fn area(at: u64, bytes: usize) -> Option<Area> {
    let areas = AREAS.read().unwrap_or_else(PoisonError::into_inner);
    let (_, area) = areas.range(..=at).next_back()?;
    (area.holds(at, bytes) && Some(area.device) == current()).then_some(*area)
}

/// `len` values on the current device, or none where they do not lie inside one allocation.
pub fn view<'a, T>(at: u64, len: usize) -> Option<&'a [T]> {
    if len == 0 {
        return Some(&[]);
    }
    area(at, len.checked_mul(size_of::<T>())?)?;
    // SAFETY: inside an allocation; the caller's types are plain numbers, and devices run one call at a time.
    (at as usize).is_multiple_of(align_of::<T>()).then(|| unsafe { std::slice::from_raw_parts(at as *const T, len) })
}

/// [`view`] to write to.
pub fn view_mut<'a, T>(at: u64, len: usize) -> Option<&'a mut [T]> {
    if len == 0 {
        return Some(&mut []);
    }
    area(at, len.checked_mul(size_of::<T>())?)?;
    // SAFETY: as in `view`.
    (at as usize).is_multiple_of(align_of::<T>()).then(|| unsafe { std::slice::from_raw_parts_mut(at as *mut T, len) })
}
