//! The ranks that one identifier connects, and how their calls find one another.

use super::collect::{Outcome, collected, delivered};
use super::{INVALID_USAGE, REMOTE_ERROR, SUCCESS, SYSTEM_ERROR};
use crate::complain;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a rank waits for the others.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// What a rank asks for, with ncclRedOp_t and root or partner.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum What {
    AllReduce { op: i32 },
    Reduce { op: i32, root: usize },
    ReduceScatter { op: i32 },
    Broadcast { root: usize },
    AllGather,
    Send { to: usize },
    Receive { from: usize },
}

/// One rank's part in it.
pub struct Call {
    pub what: What,
    pub send: u64,
    pub receive: u64,
    pub count: usize,
    /// ncclDataType_t.
    pub kind: i32,
    /// The status that the caller is answered with, [`PENDING`] until it is known.
    pub outcome: Arc<AtomicI32>,
}

pub const PENDING: i32 = -1;

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {} numbers of type {}", self.what, self.count, self.kind)
    }
}

/// The ranks that an identifier connects.
pub struct Clique {
    pub ranks: usize,
    pub state: Mutex<State>,
    pub changed: Condvar,
}

#[derive(Default)]
pub struct State {
    /// The device of each rank that has joined.
    pub devices: BTreeMap<usize, usize>,
    /// A rank that has been destroyed.
    pub left: Option<usize>,
    /// Why nothing goes on.
    pub broken: Option<i32>,
    /// Collective calls of each rank that others have not answered yet.
    pub collectives: Vec<VecDeque<Call>>,
    /// The same of messages, by sender and receiver: those sent, and those asked for.
    pub messages: HashMap<(usize, usize), [VecDeque<Call>; 2]>,
}

pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Clique {
    pub fn new(ranks: usize) -> Self {
        let collectives = (0..ranks).map(|_| VecDeque::new()).collect();
        Self { ranks, state: Mutex::new(State { collectives, ..State::default() }), changed: Condvar::new() }
    }

    pub fn join(&self, rank: usize, device: usize) -> i32 {
        let mut state = locked(&self.state);
        let other = state.devices.iter().find(|&(&other, &theirs)| other == rank || theirs == device);
        let status = other.map_or(SUCCESS, |(other, theirs)| {
            complain(format_args!(
                "ncclCommInitRank: rank {rank} on device {device} joins rank {other} on device {theirs}"
            ));
            INVALID_USAGE
        });
        match status {
            SUCCESS => drop(state.devices.insert(rank, device)),
            error => state.broken = Some(error),
        }
        self.changed.notify_all();
        status
    }

    /// Waits until all ranks have joined.
    pub fn complete(&self, rank: usize) -> i32 {
        self.wait(rank, "ncclCommInitRank", |state| (state.devices.len() == self.ranks).then_some(SUCCESS))
    }

    /// Waits until `answer` finds a status.
    pub fn wait(&self, rank: usize, name: &str, answer: impl Fn(&State) -> Option<i32>) -> i32 {
        let deadline = Instant::now() + PATIENCE;
        let mut state = locked(&self.state);
        loop {
            if let Some(status) = answer(&state).or(state.broken) {
                return status;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                complain(format_args!(
                    "{name}: rank {rank} of {} has waited for the others in vain; one thread that calls for several \
                     ranks does so between ncclGroupStart and ncclGroupEnd",
                    self.ranks
                ));
                state.broken = Some(SYSTEM_ERROR);
                self.changed.notify_all();
            } else {
                state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    /// Takes a rank's call, and answers all calls that it completes.
    pub fn take(&self, rank: usize, call: Call) {
        let mut state = locked(&self.state);
        let state = &mut *state;
        if let Some(left) = state.left {
            complain(format_args!("{call}: rank {rank} calls, but rank {left} has left"));
        }
        if let Some(status) = state.broken.or(state.left.map(|_| REMOTE_ERROR)) {
            call.outcome.store(status, Ordering::Release);
            return;
        }
        match call.what {
            What::Send { to } => state.messages.entry((rank, to)).or_default()[0].push_back(call),
            What::Receive { from } => state.messages.entry((from, rank)).or_default()[1].push_back(call),
            _ => state.collectives[rank].push_back(call),
        }
        while state.collectives.iter().all(|calls| !calls.is_empty()) {
            let calls: Vec<Call> = state.collectives.iter_mut().filter_map(VecDeque::pop_front).collect();
            let devices: Vec<usize> = state.devices.values().copied().collect();
            answer(&calls, collected(&devices, &calls));
        }
        for (&(from, to), [sent, asked]) in &mut state.messages {
            while !sent.is_empty() && !asked.is_empty() {
                let calls: Vec<Call> = [sent.pop_front(), asked.pop_front()].into_iter().flatten().collect();
                answer(&calls, delivered(state.devices[&from], state.devices[&to], &calls[0], &calls[1]));
            }
        }
        self.changed.notify_all();
    }

    /// Lets a rank go: what others wait for will not come.
    pub fn leave(&self, rank: usize) {
        let mut state = locked(&self.state);
        state.left = Some(rank);
        let waiting = state.collectives.iter().chain(state.messages.values().flatten()).any(|calls| !calls.is_empty());
        if (waiting || state.devices.len() < self.ranks) && state.broken.is_none() {
            complain(format_args!("rank {rank} leaves while others wait for it"));
            state.broken = Some(REMOTE_ERROR);
        }
        self.changed.notify_all();
    }
}

fn answer(calls: &[Call], outcome: Outcome) {
    let status = outcome.err().map_or(SUCCESS, |(status, why)| {
        complain(format_args!("NCCL: {why}"));
        status
    });
    calls.iter().for_each(|call| call.outcome.store(status, Ordering::Release));
}
