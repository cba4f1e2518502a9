//! Runs kernels: blocks on the processor's threads, a block's warps in turn, the threads of a warp in step.
//!
//! Of threads that went apart those at the lowest line run first, so that they meet again where their paths do.

use super::decode::{LANES, Register};
use super::parse::{Atomic, Kernel, LOCAL_WINDOW, SHARED_WINDOW, Slot, Space, Step};
use crate::memory::{self, Area};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// A launch: blocks, threads of a block, bytes of shared memory beside those that the kernel declares.
pub struct Grid {
    pub blocks: [u32; 3],
    pub threads: [u32; 3],
    pub dynamic_shared: usize,
}

/// What went wrong in a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    OutOfBounds,
    Misaligned,
    Assertion,
    /// A barrier that part of a block does not reach.
    Barrier,
}

/// The threads of a mask that stand at a line.
#[derive(Clone, Copy)]
struct Group {
    at: usize,
    lanes: u32,
    /// At a line where all threads of the warp meet.
    waits: bool,
}

struct Warp {
    registers: Vec<Register>,
    local: Vec<u8>,
    groups: Vec<Group>,
}

enum Stop {
    Done,
    Barrier,
}

type Failure = (Fault, String);

struct Worker<'a> {
    kernel: &'a Kernel,
    grid: &'a Grid,
    shared: Vec<u8>,
    /// Allocations that were looked up.
    areas: Vec<Area>,
}

/// Runs `kernel` over `grid` with the bytes of its parameters, on the current device.
pub fn launch(kernel: &Kernel, grid: &Grid, params: &[u8]) -> Result<(), Failure> {
    let blocks: usize = grid.blocks.iter().map(|&n| n as usize).product();
    let threads: usize = grid.threads.iter().map(|&n| n as usize).product();
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get()).min(blocks);
    let (next, failure, device) = (AtomicUsize::new(0), Mutex::new(None), memory::current());
    let work = || {
        memory::set_current(device);
        let mut worker = Worker::new(kernel, grid);
        let count = if kernel.has_barrier { threads.div_ceil(LANES) } else { 1 };
        let mut warps: Vec<Warp> = (0..count).map(|_| Warp::new(kernel, params)).collect();
        loop {
            let block = next.fetch_add(1, Ordering::Relaxed);
            let mut failed = failure.lock().unwrap_or_else(PoisonError::into_inner);
            if block >= blocks || failed.is_some() {
                return;
            }
            drop(failed);
            let outcome = worker.block(&mut warps, block, threads);
            if let Err(why) = outcome {
                failed = failure.lock().unwrap_or_else(PoisonError::into_inner);
                *failed = Some(why);
            }
        }
    };
    if workers <= 1 {
        work();
    } else {
        std::thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(work))));
    }
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

impl Warp {
    fn new(kernel: &Kernel, params: &[u8]) -> Self {
        let mut registers = vec![[0xdead_beef_dead_beef; LANES]; kernel.registers];
        for (slot, bits) in &kernel.constants {
            registers[*slot] = [*bits; LANES];
        }
        for (slot, start, bytes) in &kernel.arguments {
            let mut value = [0; 8];
            value[..*bytes].copy_from_slice(&params[*start..start + bytes]);
            registers[*slot] = [u64::from_le_bytes(value); LANES];
        }
        Self { registers, local: vec![0xff; kernel.local_bytes * LANES], groups: Vec::new() }
    }
}

/// `index` in row-major (x fastest) order of `sizes`.
fn place(index: usize, sizes: [u32; 3]) -> [u64; 3] {
    let [x, y, _] = sizes.map(|size| size as usize);
    [index % x, index / x % y, index / (x * y)].map(|place| place as u64)
}

impl<'a> Worker<'a> {
    fn new(kernel: &'a Kernel, grid: &'a Grid) -> Self {
        Self { kernel, grid, shared: vec![0xff; kernel.shared_bytes + grid.dynamic_shared], areas: Vec::new() }
    }

    fn block(&mut self, warps: &mut [Warp], block: usize, threads: usize) -> Result<(), Failure> {
        self.shared.fill(0xff);
        let count = threads.div_ceil(LANES);
        if warps.len() < count {
            for index in 0..count {
                self.enter(&mut warps[0], block, index, threads);
                self.run(&mut warps[0])?;
            }
            return Ok(());
        }
        for (index, warp) in warps.iter_mut().enumerate() {
            self.enter(warp, block, index, threads);
        }
        loop {
            let mut waiting = 0;
            for warp in warps.iter_mut() {
                waiting += usize::from(matches!(self.run(warp)?, Stop::Barrier));
            }
            if waiting == 0 {
                return Ok(());
            }
        }
    }

    /// Puts a warp at the kernel's first line.
    fn enter(&self, warp: &mut Warp, block: usize, index: usize, threads: usize) {
        let own = (threads - index * LANES).min(LANES);
        warp.groups = vec![Group { at: 0, lanes: if own == LANES { !0 } else { (1 << own) - 1 }, waits: false }];
        let at = place(block, self.grid.blocks);
        for (slot, name) in &self.kernel.places {
            let axis = match name.rsplit('.').next() {
                Some("y") => 1,
                Some("z") => 2,
                _ => 0,
            };
            let all = |value: u64| [value; LANES];
            warp.registers[*slot] = match name.split('.').next() {
                Some("%tid") => std::array::from_fn(|lane| place(index * LANES + lane, self.grid.threads)[axis]),
                Some("%ntid") => all(self.grid.threads[axis].into()),
                Some("%ctaid") => all(at[axis]),
                Some("%nctaid") => all(self.grid.blocks[axis].into()),
                Some("%laneid") => std::array::from_fn(|lane| lane as u64),
                Some("%warpid") => all(index as u64),
                _ => all(self.kernel.shared_bytes as u64),
            };
        }
    }

    /// Runs a warp until its threads have ended or wait.
    fn run(&mut self, warp: &mut Warp) -> Result<Stop, Failure> {
        let Some(mut group) = take_lowest(&mut warp.groups) else { return Ok(Stop::Done) };
        let (mut next, mut all_wait) = (lowest(&warp.groups), false);
        loop {
            if group.at >= next || group.lanes == 0 || group.waits {
                if group.lanes != 0 {
                    warp.groups.push(group);
                }
                all_wait = warp.groups.iter().all(|group| group.waits);
                match take_lowest(&mut warp.groups) {
                    Some(lowest) => group = lowest,
                    None => return Ok(Stop::Done),
                }
                next = lowest(&warp.groups);
            }
            let kernel = self.kernel;
            let line = &kernel.lines[group.at];
            let lanes = match line.guard {
                Some((slot, wanted)) => {
                    let bits = warp.registers[slot].iter().enumerate();
                    bits.fold(0, |mask, (lane, bit)| mask | (u32::from((bit & 1 == 1) == wanted) << lane)) & group.lanes
                }
                None => group.lanes,
            };
            let failed = |fault: Fault| (fault, format!("{}: `{}`", kernel.name, line.text));
            match &line.step {
                Step::Row { row, inputs, result } => {
                    let mut made = [0; LANES];
                    row(inputs.map(|slot| &warp.registers[slot]), &mut made);
                    blend(&mut warp.registers[*result], &made, lanes);
                }
                Step::Jump { to } if lanes == group.lanes => {
                    group.at = *to;
                    continue;
                }
                Step::Jump { to } if lanes != 0 => {
                    warp.groups.push(Group { at: *to, lanes, waits: false });
                    next = next.min(*to);
                    group.lanes &= !lanes;
                }
                Step::Jump { .. } => {}
                Step::Exit => group.lanes &= !lanes,
                Step::Fail if lanes == 0 => {}
                Step::Fail => return Err(failed(Fault::Assertion)),
                Step::Barrier | Step::Butterfly { .. } if !warp.groups.is_empty() => {
                    if all_wait {
                        return Err(failed(Fault::Barrier));
                    }
                    group.waits = true;
                    continue;
                }
                Step::Barrier => {
                    group.at += 1;
                    warp.groups.push(group);
                    return Ok(Stop::Barrier);
                }
                Step::Butterfly { value, mask, whole, result } => {
                    let [bound, members] = whole.map(|slot| warp.registers[slot][0] as u32);
                    let (values, masks) = (warp.registers[*value], warp.registers[*mask]);
                    let partner = |lane: usize| (lane ^ masks[lane] as usize) % LANES;
                    let mut alone = bound & 0x1f1f != 31 || members != !0;
                    each(lanes, |lane| alone |= lanes >> partner(lane) & 1 == 0);
                    if alone {
                        return Err(failed(Fault::Barrier));
                    }
                    let made = std::array::from_fn(|lane| values[partner(lane)]);
                    blend(&mut warp.registers[*result], &made, lanes);
                }
                Step::Load { space, ty, base, offset, results } => {
                    let size = size_of_type(ty);
                    let at =
                        self.addresses(warp, (*space, *base, *offset), lanes, size * results.len()).map_err(failed)?;
                    for (index, result) in results.iter().enumerate() {
                        let register = &mut warp.registers[*result];
                        each(lanes, |lane| register[lane] = load(at[lane] + (index * size) as u64, ty));
                    }
                }
                Step::Store { space, ty, base, offset, values } => {
                    let size = size_of_type(ty);
                    let at =
                        self.addresses(warp, (*space, *base, *offset), lanes, size * values.len()).map_err(failed)?;
                    for (index, value) in values.iter().enumerate() {
                        let register = &warp.registers[*value];
                        each(lanes, |lane| store(at[lane] + (index * size) as u64, size, register[lane]));
                    }
                }
                Step::Atomic { space, ty, what, base, offset, value, result } => {
                    let at = self.addresses(warp, (*space, *base, *offset), lanes, size_of_type(ty)).map_err(failed)?;
                    let values = warp.registers[*value];
                    let mut before = [0; LANES];
                    each(lanes, |lane| before[lane] = atomic(at[lane], ty, *what, values[lane]));
                    if let Some(result) = result {
                        blend(&mut warp.registers[*result], &before, lanes);
                    }
                }
            }
            group.at += 1;
        }
    }

    /// The places in main memory that the threads' addresses stand for, each with room for `bytes`.
    fn addresses(
        &mut self,
        warp: &mut Warp,
        (space, base, offset): (Space, Slot, i64),
        lanes: u32,
        bytes: usize,
    ) -> Result<Register, Fault> {
        let mut at = warp.registers[base];
        for at in &mut at {
            *at = at.wrapping_add(offset as u64);
        }
        let (mut low, mut high, mut crooked) = (u64::MAX, 0, 0);
        each(lanes, |lane| {
            let address = if space == Space::Shared { at[lane] & 0xffff_ffff } else { at[lane] };
            at[lane] = address;
            (low, high, crooked) = (low.min(address), high.max(address), crooked | address);
        });
        if lanes == 0 {
            return Ok(at);
        }
        if crooked & (bytes as u64 - 1) != 0 {
            return Err(Fault::Misaligned);
        }
        if space == Space::Global || (space == Space::Generic && high < LOCAL_WINDOW) {
            if self.areas.iter().any(|area| area.holds(low, bytes) && area.holds(high, bytes)) {
                return Ok(at);
            }
            let mut outside = false;
            each(lanes, |lane| outside |= !self.finds(at[lane], bytes));
            return if outside { Err(Fault::OutOfBounds) } else { Ok(at) };
        }
        let mut outside = false;
        each(lanes, |lane| {
            let (is_shared, offset) = match space {
                Space::Shared => (true, at[lane]),
                Space::Local => (false, at[lane]),
                _ if at[lane] >= SHARED_WINDOW => (true, at[lane] - SHARED_WINDOW),
                _ => (false, at[lane].wrapping_sub(LOCAL_WINDOW)),
            };
            let room = if is_shared { &mut self.shared[..] } else { own(&mut warp.local, lane) };
            let end = offset.saturating_add(bytes as u64);
            outside |= end > room.len() as u64;
            at[lane] = room.as_mut_ptr() as u64 + offset;
        });
        if outside { Err(Fault::OutOfBounds) } else { Ok(at) }
    }

    /// Whether `bytes` from an address lie in an allocation, which is remembered.
    fn finds(&mut self, at: u64, bytes: usize) -> bool {
        if self.areas.iter().any(|area| area.holds(at, bytes)) {
            return true;
        }
        let found = memory::area(at, bytes);
        self.areas.extend(found);
        found.is_some()
    }
}

/// A thread's part of its warp's local memory.
fn own(local: &mut [u8], lane: usize) -> &mut [u8] {
    let bytes = local.len() / LANES;
    &mut local[lane * bytes..(lane + 1) * bytes]
}

/// The lowest line at which a group stands that does not wait.
fn lowest(groups: &[Group]) -> usize {
    groups.iter().filter(|group| !group.waits).map(|group| group.at).min().unwrap_or(usize::MAX)
}

/// Takes the groups at the lowest line, as one; those that wait only when all do.
fn take_lowest(groups: &mut Vec<Group>) -> Option<Group> {
    let waits = groups.iter().all(|group| group.waits);
    let at = groups.iter().filter(|group| group.waits == waits).map(|group| group.at).min()?;
    let taken = |group: &Group| group.at == at && group.waits == waits;
    let lanes = groups.iter().filter(|group| taken(group)).fold(0, |lanes, group| lanes | group.lanes);
    groups.retain(|group| !taken(group));
    Some(Group { at, lanes, waits: false })
}

fn each(lanes: u32, mut act: impl FnMut(usize)) {
    if lanes == !0 {
        (0..LANES).for_each(act);
    } else {
        (0..LANES).filter(|lane| lanes >> lane & 1 == 1).for_each(&mut act);
    }
}

fn blend(register: &mut Register, made: &Register, lanes: u32) {
    if lanes == !0 {
        *register = *made;
    } else {
        each(lanes, |lane| register[lane] = made[lane]);
    }
}

fn size_of_type(ty: &str) -> usize {
    super::module::bytes_of(ty).unwrap_or(8)
}

fn load(at: u64, ty: &str) -> u64 {
    // SAFETY: every caller has found the address inside of memory that is there, and aligned.
    unsafe {
        match ty {
            "u8" | "b8" => (at as *const u8).read().into(),
            "s8" => (at as *const i8).read() as u64,
            "s16" => (at as *const i16).read() as u64,
            "u16" | "b16" | "f16" => (at as *const u16).read().into(),
            "s32" => (at as *const i32).read() as u64,
            "u32" | "b32" | "f32" => (at as *const u32).read_volatile().into(),
            _ => (at as *const u64).read(),
        }
    }
}

fn store(at: u64, size: usize, value: u64) {
    // SAFETY: as in `load`.
    unsafe {
        match size {
            1 => (at as *mut u8).write(value as u8),
            2 => (at as *mut u16).write(value as u16),
            4 => (at as *mut u32).write(value as u32),
            _ => (at as *mut u64).write(value),
        }
    }
}

/// Changes a value in memory and says what it was.
fn atomic(at: u64, ty: &str, what: Atomic, operand: u64) -> u64 {
    let next = |before: u64| -> u64 {
        match (what, ty) {
            (Atomic::Exchange, _) => operand,
            (Atomic::Add, "f32") => (f32::from_bits(before as u32) + f32::from_bits(operand as u32)).to_bits().into(),
            (Atomic::Add, "f64") => (f64::from_bits(before) + f64::from_bits(operand)).to_bits(),
            (Atomic::Add, _) => before.wrapping_add(operand),
            (Atomic::Max, "s32") => (before as i32).max(operand as i32) as u64,
            (Atomic::Max, "u32") => (before as u32).max(operand as u32).into(),
            (Atomic::Max, "s64") => (before as i64).max(operand as i64) as u64,
            (Atomic::Max, _) => before.max(operand),
            (Atomic::Min, "s32") => (before as i32).min(operand as i32) as u64,
            (Atomic::Min, "u32") => (before as u32).min(operand as u32).into(),
            (Atomic::Min, "s64") => (before as i64).min(operand as i64) as u64,
            (Atomic::Min, _) => before.min(operand),
        }
    };
    const ORDER: Ordering = Ordering::Relaxed;
    // SAFETY: as in `load`; other threads change it by this function alone.
    unsafe {
        if size_of_type(ty) == 4 {
            let value = AtomicU32::from_ptr(at as *mut u32);
            value.fetch_update(ORDER, ORDER, |before| Some(next(before.into()) as u32)).unwrap_or(0).into()
        } else {
            let value = AtomicU64::from_ptr(at as *mut u64);
            value.fetch_update(ORDER, ORDER, |before| Some(next(before))).unwrap_or(0)
        }
    }
}
