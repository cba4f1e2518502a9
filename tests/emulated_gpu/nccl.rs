//! NCCL: collective calls and messages between the devices of one process, whose ranks are called by a thread each or
//! by one thread inside of a group.
//!
//! Streams run at once, so a call outside of a group returns when all ranks have called; inside, the outermost
//! ncclGroupEnd does. Refused are ranks that ask for different things at once, two ranks on one device, an identifier
//! that is used twice, buffers outside of the rank's device, and results that lie partly over what is sent. A rank that
//! nobody answers is told so after [`clique::PATIENCE`], where NCCL would wait for ever, and so are those whose partner
//! has left. Splitting, growing, finalising and configuring communicators, operators of one's own and 8-bit floats are
//! not emulated.

mod clique;
mod collect;

use crate::driver::is_ordered;
use crate::memory::current;
use crate::{complain, devices};
use clique::{Call, Clique, PENDING, What, locked};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::c_char;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const SUCCESS: i32 = 0;
const SYSTEM_ERROR: i32 = 2;
const INVALID_ARGUMENT: i32 = 4;
const INVALID_USAGE: i32 = 5;
const REMOTE_ERROR: i32 = 6;

/// The version of NCCL that this is like.
const VERSION: i32 = 22803;

/// One rank of a clique, on its device.
struct Comm {
    clique: Arc<Clique>,
    rank: usize,
    device: usize,
}

/// Every communicator by its handle.
static COMMS: Mutex<BTreeMap<usize, Arc<Comm>>> = Mutex::new(BTreeMap::new());

/// The identifiers that were given out, each until all its ranks have joined.
static IDENTIFIERS: Mutex<BTreeMap<u64, Option<Arc<Clique>>>> = Mutex::new(BTreeMap::new());

/// What a thread has asked for since the first ncclGroupStart that is not ended.
#[derive(Default)]
struct Group {
    depth: usize,
    /// The first error of a call inside.
    error: Option<i32>,
    joined: Vec<Arc<Comm>>,
    calls: Vec<(Arc<Comm>, Call)>,
}

thread_local! {
    static GROUP: RefCell<Group> = RefCell::default();
}

/// What a call returns: inside of a group its error is the group's too.
fn status(outcome: Result<(), i32>) -> i32 {
    let status = outcome.err().unwrap_or(SUCCESS);
    if status != SUCCESS {
        GROUP.with_borrow_mut(|group| {
            if group.depth > 0 {
                group.error.get_or_insert(status);
            }
        });
    }
    status
}

fn known(comm: usize) -> Result<Arc<Comm>, i32> {
    locked(&COMMS).get(&comm).cloned().ok_or_else(|| {
        complain(format_args!("NCCL: a communicator that is none, or no more"));
        INVALID_ARGUMENT
    })
}

fn put<T>(place: *mut T, value: T) -> Result<(), i32> {
    if place.is_null() {
        complain(format_args!("NCCL: no place for a result"));
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: the caller's place for a result.
    unsafe { place.write(value) };
    Ok(())
}

/// Puts the call of a rank off to the group's end, or waits for its outcome. `rank` is a root or partner, `op` an
/// operator.
fn call(
    comm: usize,
    [send, receive]: [u64; 2],
    (count, kind): (usize, i32),
    (rank, op): (i32, i32),
    what: impl FnOnce(usize, i32) -> What,
) -> i32 {
    let called = || {
        let comm = known(comm)?;
        if rank < 0 || rank as usize >= comm.clique.ranks || !(0..10).contains(&kind) || !(0..5).contains(&op) {
            let ranks = comm.clique.ranks;
            complain(format_args!("NCCL: root or partner {rank} of {ranks}, type {kind}, operator {op}: one is none"));
            return Err(INVALID_ARGUMENT);
        }
        let outcome = Arc::new(AtomicI32::new(PENDING));
        let call = Call { what: what(rank as usize, op), send, receive, count, kind, outcome };
        let call = GROUP.with_borrow_mut(|group| match group.depth {
            0 => Some((comm, call)),
            _ => {
                group.calls.push((comm, call));
                None
            }
        });
        finish(call.into_iter().collect())
    };
    status(called())
}

/// Makes the calls and waits for all their outcomes.
fn finish(calls: Vec<(Arc<Comm>, Call)>) -> Result<(), i32> {
    let mut waiting = Vec::new();
    for (comm, call) in calls {
        waiting.push((comm.clone(), call.to_string(), call.outcome.clone()));
        comm.clique.take(comm.rank, call);
    }
    let mut outcomes = waiting.iter().map(|(comm, name, outcome)| {
        comm.clique.wait(comm.rank, name, |_| Some(outcome.load(Ordering::Acquire)).filter(|&status| status != PENDING))
    });
    outcomes.try_for_each(|status| if status == SUCCESS { Ok(()) } else { Err(status) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclGroupStart() -> i32 {
    GROUP.with_borrow_mut(|group| group.depth += 1);
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclGroupEnd() -> i32 {
    let group = GROUP.with_borrow_mut(|group| match group.depth {
        0 => None,
        1 => Some(std::mem::take(group)),
        _ => {
            group.depth -= 1;
            Some(Group::default())
        }
    });
    let Some(group) = group else {
        complain(format_args!("ncclGroupEnd: no group has been started"));
        return INVALID_USAGE;
    };
    if let Some(error) = group.error {
        return error;
    }
    for comm in &group.joined {
        let status = comm.clique.complete(comm.rank);
        if status != SUCCESS {
            return status;
        }
    }
    finish(group.calls).err().unwrap_or(SUCCESS)
}

/// ncclUniqueId: the number of an identifier, and nothing more.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct UniqueId([u8; 128]);

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclGetUniqueId(id: *mut UniqueId) -> i32 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut bytes = [0; 128];
    bytes[..8].copy_from_slice(&number.to_ne_bytes());
    locked(&IDENTIFIERS).insert(number, None);
    status(put(id, UniqueId(bytes)))
}

/// Joins the clique of an identifier, and waits for the others unless a group is open.
fn joined(place: *mut usize, ranks: i32, id: UniqueId, rank: i32, device: usize) -> Result<(), i32> {
    static NEXT: AtomicUsize = AtomicUsize::new(0x4e43_0000);
    if ranks < 1 || !(0..ranks).contains(&rank) || device >= devices() {
        complain(format_args!("ncclCommInitRank: rank {rank} of {ranks} on device {device}"));
        return Err(INVALID_ARGUMENT);
    }
    let (ranks, rank) = (ranks as usize, rank as usize);
    let mut number = [0; 8];
    number.copy_from_slice(&id.0[..8]);
    let number = u64::from_ne_bytes(number);
    let mut identifiers = locked(&IDENTIFIERS);
    let Some(clique) = identifiers.get_mut(&number) else {
        complain(format_args!("ncclCommInitRank: an identifier that ncclGetUniqueId did not give, or that is used up"));
        return Err(INVALID_ARGUMENT);
    };
    let clique = clique.get_or_insert_with(|| Arc::new(Clique::new(ranks))).clone();
    if clique.ranks != ranks {
        complain(format_args!("ncclCommInitRank: {ranks} ranks, where another one said {}", clique.ranks));
        return Err(INVALID_ARGUMENT);
    }
    match clique.join(rank, device) {
        SUCCESS => {}
        error => return Err(error),
    }
    if locked(&clique.state).devices.len() == ranks {
        identifiers.remove(&number);
    }
    drop(identifiers);
    let comm = Arc::new(Comm { clique, rank, device });
    let handle = NEXT.fetch_add(1, Ordering::Relaxed);
    put(place, handle)?;
    locked(&COMMS).insert(handle, comm.clone());
    let grouped = GROUP.with_borrow_mut(|group| {
        let grouped = group.depth > 0;
        group.joined.extend(grouped.then(|| comm.clone()));
        grouped
    });
    match if grouped { SUCCESS } else { comm.clique.complete(rank) } {
        SUCCESS => Ok(()),
        error => Err(error),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommInitRank(comm: *mut usize, ranks: i32, id: UniqueId, rank: i32) -> i32 {
    // The runtime's device where none has been chosen.
    status(joined(comm, ranks, id, rank, current().unwrap_or(0)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommInitAll(comms: *mut usize, count: i32, list: *const i32) -> i32 {
    if comms.is_null() || count < 0 {
        return status(Err(INVALID_ARGUMENT));
    }
    // SAFETY: the caller's list of so many devices, or none, which means the first ones.
    let device = |rank: i32| if list.is_null() { rank } else { unsafe { *list.add(rank as usize) } };
    if let Some(none) = (0..count).map(device).find(|&device| device < 0 || device as usize >= devices()) {
        complain(format_args!("ncclCommInitAll: there is no device {none}"));
        return status(Err(INVALID_ARGUMENT));
    }
    let mut id = UniqueId([0; 128]);
    // SAFETY: a place for an identifier; a group that is started is ended.
    unsafe {
        ncclGetUniqueId(&mut id);
        ncclGroupStart();
        for rank in 0..count {
            let place = comms.add(rank as usize);
            if status(joined(place, count, id, rank, device(rank) as usize)) != SUCCESS {
                break;
            }
        }
        ncclGroupEnd()
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommDestroy(comm: usize) -> i32 {
    let gone = known(comm).map(|own| {
        locked(&COMMS).remove(&comm);
        own.clique.leave(own.rank);
    });
    status(gone)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommAbort(comm: usize) -> i32 {
    // SAFETY: as here.
    unsafe { ncclCommDestroy(comm) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommGetAsyncError(comm: usize, error: *mut i32) -> i32 {
    status(known(comm).and_then(|comm| put(error, locked(&comm.clique.state).broken.unwrap_or(SUCCESS))))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommCount(comm: usize, count: *mut i32) -> i32 {
    status(known(comm).and_then(|comm| put(count, comm.clique.ranks as i32)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommCuDevice(comm: usize, device: *mut i32) -> i32 {
    status(known(comm).and_then(|comm| put(device, comm.device as i32)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommUserRank(comm: usize, rank: *mut i32) -> i32 {
    status(known(comm).and_then(|comm| put(rank, comm.rank as i32)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclGetVersion(version: *mut i32) -> i32 {
    status(put(version, VERSION))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclGetErrorString(status: i32) -> *const c_char {
    let text = match status {
        SUCCESS => c"no error",
        SYSTEM_ERROR => c"unhandled system error (run with NCCL_DEBUG=INFO for details)",
        INVALID_ARGUMENT => c"invalid argument (run with NCCL_DEBUG=WARN for details)",
        INVALID_USAGE => c"invalid usage (run with NCCL_DEBUG=WARN for details)",
        REMOTE_ERROR => c"remote process exited or there was a network error",
        _ => c"unknown result code",
    };
    text.as_ptr()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclAllReduce(
    send: u64,
    receive: u64,
    count: usize,
    kind: i32,
    op: i32,
    comm: usize,
    stream: u64,
) -> i32 {
    if !is_ordered(stream) {
        return INVALID_ARGUMENT;
    }
    call(comm, [send, receive], (count, kind), (0, op), |_, op| What::AllReduce { op })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclReduce(
    send: u64,
    receive: u64,
    count: usize,
    kind: i32,
    op: i32,
    root: i32,
    comm: usize,
    stream: u64,
) -> i32 {
    if !is_ordered(stream) {
        return INVALID_ARGUMENT;
    }
    call(comm, [send, receive], (count, kind), (root, op), |root, op| What::Reduce { op, root })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclReduceScatter(
    send: u64,
    receive: u64,
    count: usize,
    kind: i32,
    op: i32,
    comm: usize,
    stream: u64,
) -> i32 {
    if !is_ordered(stream) {
        return INVALID_ARGUMENT;
    }
    call(comm, [send, receive], (count, kind), (0, op), |_, op| What::ReduceScatter { op })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclBroadcast(
    send: u64,
    receive: u64,
    count: usize,
    kind: i32,
    root: i32,
    comm: usize,
    stream: u64,
) -> i32 {
    if !is_ordered(stream) {
        return INVALID_ARGUMENT;
    }
    call(comm, [send, receive], (count, kind), (root, 0), |root, _| What::Broadcast { root })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclAllGather(
    send: u64,
    receive: u64,
    count: usize,
    kind: i32,
    comm: usize,
    stream: u64,
) -> i32 {
    if !is_ordered(stream) {
        return INVALID_ARGUMENT;
    }
    call(comm, [send, receive], (count, kind), (0, 0), |_, _| What::AllGather)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclSend(send: u64, count: usize, kind: i32, to: i32, comm: usize, stream: u64) -> i32 {
    if !is_ordered(stream) {
        return INVALID_ARGUMENT;
    }
    call(comm, [send, 0], (count, kind), (to, 0), |to, _| What::Send { to })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclRecv(receive: u64, count: usize, kind: i32, from: i32, comm: usize, stream: u64) -> i32 {
    if !is_ordered(stream) {
        return INVALID_ARGUMENT;
    }
    call(comm, [0, receive], (count, kind), (from, 0), |from, _| What::Receive { from })
}
