//! Working memory aligned to cache lines, kept per thread: fresh pages cost more than the work done in them.

use bytemuck::{Pod, Zeroable};
use std::cell::RefCell;
use std::fmt;

const LINE: usize = 16;
/// What one thread keeps at most: 96 MiB in up to 6 buffers.
const KEPT_LINES: usize = (96 << 20) / 64;
const KEPT_BUFFERS: usize = 6;

/// One cache line.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

fn zeroed_lines(count: usize) -> Vec<Line> {
    vec![Line([0.0; LINE]); count]
}

/// Floats that start on a cache line.
pub(super) struct Aligned {
    lines: Vec<Line>,
    len: usize,
}

impl Aligned {
    /// `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        Self { lines: zeroed_lines(len.div_ceil(LINE)), len }
    }

    pub fn as_slice(&self) -> &[f32] {
        &bytemuck::cast_slice::<Line, f32>(&self.lines)[..self.len]
    }

    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut::<Line, f32>(&mut self.lines)[..self.len]
    }
}

impl fmt::Debug for Aligned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} floats", self.len)
    }
}

thread_local! {
    static KEPT: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer lent by this thread's store. It is out of the store while it lives, so a kernel that is entered again
/// on the same thread gets another; on drop it goes back.
pub(super) struct Scratch {
    lines: Vec<Line>,
    len: usize,
}

/// At least `len` floats that start on a cache line and hold anything.
pub(super) fn scratch(len: usize) -> Scratch {
    let wanted = len.div_ceil(LINE);
    let found = KEPT.with(|kept| {
        let mut kept = kept.borrow_mut();
        let best = (0..kept.len()).filter(|&i| kept[i].len() >= wanted).min_by_key(|&i| kept[i].len());
        best.map(|i| kept.swap_remove(i))
    });
    Scratch { lines: found.unwrap_or_else(|| zeroed_lines(wanted)), len }
}

impl Scratch {
    pub fn as_slice(&self) -> &[f32] {
        &bytemuck::cast_slice::<Line, f32>(&self.lines)[..self.len]
    }

    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut::<Line, f32>(&mut self.lines)[..self.len]
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        // Fails only while the thread ends; then the buffer is simply freed.
        let _ = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            kept.push(lines);
            if kept.len() > KEPT_BUFFERS {
                drop_one(&mut kept, |kept| (0..kept.len()).min_by_key(|&i| kept[i].len()));
            }
            while kept.iter().map(Vec::len).sum::<usize>() > KEPT_LINES {
                drop_one(&mut kept, |kept| (0..kept.len()).max_by_key(|&i| kept[i].len()));
            }
        });
    }
}

fn drop_one(kept: &mut Vec<Vec<Line>>, pick: impl Fn(&[Vec<Line>]) -> Option<usize>) {
    if let Some(index) = pick(kept) {
        kept.swap_remove(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> (usize, usize) {
        KEPT.with(|kept| (kept.borrow().len(), kept.borrow().iter().map(Vec::len).sum()))
    }

    #[test]
    fn buffers_are_aligned_reused_and_separate() {
        std::thread::spawn(|| {
            let mut first = scratch(100);
            let address = first.as_slice().as_ptr() as usize;
            assert_eq!(address % 64, 0);
            first.as_mut_slice().fill(1.0);
            let mut second = scratch(100);
            second.as_mut_slice().fill(2.0);
            assert!(first.as_slice().iter().all(|&v| v == 1.0));
            drop(first);
            assert_eq!(scratch(90).as_slice().as_ptr() as usize, address);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn what_a_thread_keeps_is_bounded() {
        std::thread::spawn(|| {
            let many: Vec<Scratch> = (0..20).map(|i| scratch(1000 + i)).collect();
            drop(many);
            assert!(kept().0 <= KEPT_BUFFERS);
            drop(scratch((KEPT_LINES + 1) * LINE));
            assert!(kept().1 <= KEPT_LINES);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn aligned_memory_has_its_length() {
        let mut values = Aligned::zeroed(17);
        values.as_mut_slice()[16] = 3.0;
        assert_eq!(values.as_slice().len(), 17);
        assert_eq!(values.as_slice().as_ptr() as usize % 64, 0);
        assert_eq!(format!("{values:?}"), "17 floats");
    }
}
