//! What collective calls and messages compute.

use super::clique::{Call, What};
use super::{INVALID_ARGUMENT, INVALID_USAGE};
use crate::half::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
use crate::memory::{current, set_current, view, view_mut};

/// What came of calls: why not, as a status and in words.
pub type Outcome<T = ()> = Result<T, (i32, String)>;

/// Does `$work::<T>($($argument),*)` for the type T that ncclDataType_t means.
macro_rules! by_type {
    ($kind:expr, $work:ident($($argument:expr),*)) => {
        match $kind {
            0 => $work::<i8>($($argument),*),
            1 => $work::<u8>($($argument),*),
            2 => $work::<i32>($($argument),*),
            3 => $work::<u32>($($argument),*),
            4 => $work::<i64>($($argument),*),
            5 => $work::<u64>($($argument),*),
            6 => $work::<F16>($($argument),*),
            7 => $work::<f32>($($argument),*),
            8 => $work::<f64>($($argument),*),
            9 => $work::<Bf16>($($argument),*),
            kind => Err((INVALID_ARGUMENT, format!("numbers of type {kind} are not emulated"))),
        }
    };
}

pub fn collected(devices: &[usize], calls: &[Call]) -> Outcome {
    let same = |call: &&Call| (call.what, call.count, call.kind) == (calls[0].what, calls[0].count, calls[0].kind);
    match calls.iter().find(|call| !same(call)) {
        Some(other) => Err((INVALID_USAGE, format!("the ranks ask for different things: {} and {other}", calls[0]))),
        None => by_type!(calls[0].kind, collect(devices, calls)),
    }
}

pub fn delivered(from: usize, to: usize, sent: &Call, asked: &Call) -> Outcome {
    if (sent.count, sent.kind) != (asked.count, asked.kind) {
        return Err((INVALID_USAGE, format!("{sent} is answered by {asked}")));
    }
    by_type!(sent.kind, deliver(from, to, sent, asked))
}

fn deliver<T: Number>(from: usize, to: usize, sent: &Call, asked: &Call) -> Outcome {
    let values = read::<T>(from, sent, sent.count)?;
    write(to, asked, &values)
}

/// What a rank sends.
fn read<T: Number>(device: usize, call: &Call, len: usize) -> Outcome<Vec<T>> {
    let values = on(device, || view::<T>(call.send, len).map(<[T]>::to_vec));
    values.ok_or_else(|| {
        (INVALID_ARGUMENT, format!("{call}: what is sent lies outside of any allocation on device {device}"))
    })
}

/// Gives a rank what it receives.
fn write<T: Number>(device: usize, call: &Call, values: &[T]) -> Outcome {
    let place = on(device, || view_mut::<T>(call.receive, values.len()));
    let outside =
        || (INVALID_ARGUMENT, format!("{call}: what is received lies outside of any allocation on device {device}"));
    place.ok_or_else(outside)?.copy_from_slice(values);
    Ok(())
}

/// Looks at a device's memory.
fn on<R>(device: usize, look: impl FnOnce() -> R) -> R {
    let before = current();
    set_current(Some(device));
    let seen = look();
    set_current(before);
    seen
}

fn collect<T: Number>(devices: &[usize], calls: &[Call]) -> Outcome {
    let (ranks, what, count) = (calls.len(), calls[0].what, calls[0].count);
    // Numbers that a rank sends and receives.
    let (sent, received) = match what {
        What::AllGather => (count, count * ranks),
        What::ReduceScatter { .. } => (count * ranks, count),
        _ => (count, count),
    };
    let sends = |rank: usize| !matches!(what, What::Broadcast { root } if root != rank);
    let receives = |rank: usize| !matches!(what, What::Reduce { root, .. } if root != rank);
    let bytes = |len: usize| (len * size_of::<T>()) as u64;
    for (rank, call) in calls.iter().enumerate().filter(|&(rank, _)| sends(rank) && receives(rank)) {
        // Where the two may be the same memory.
        let in_place = match what {
            What::AllGather => call.send == call.receive.wrapping_add(bytes(rank * count)),
            What::ReduceScatter { .. } => call.receive == call.send.wrapping_add(bytes(rank * count)),
            _ => call.send == call.receive,
        };
        let apart = call.send.saturating_add(bytes(sent)) <= call.receive
            || call.receive.saturating_add(bytes(received)) <= call.send;
        if count > 0 && !in_place && !apart {
            return Err((INVALID_USAGE, format!("{call}: what rank {rank} receives overlaps what it sends")));
        }
    }
    let senders = calls.iter().enumerate().filter(|&(rank, _)| sends(rank));
    let mut parts = senders.map(|(rank, call)| read::<T>(devices[rank], call, sent));
    let result: Vec<T> = match what {
        What::AllReduce { op } | What::Reduce { op, .. } | What::ReduceScatter { op } => reduced(op, ranks, parts)?,
        What::Broadcast { .. } => parts.next().transpose()?.unwrap_or_default(),
        _ => parts.collect::<Outcome<Vec<_>>>()?.concat(),
    };
    for (rank, call) in calls.iter().enumerate().filter(|&(rank, _)| receives(rank)) {
        let own = match what {
            What::ReduceScatter { .. } => &result[rank * count..(rank + 1) * count],
            _ => &result[..],
        };
        write(devices[rank], call, own)?;
    }
    Ok(())
}

/// All parts put together, in the order of their ranks.
fn reduced<T: Number>(op: i32, ranks: usize, parts: impl Iterator<Item = Outcome<Vec<T>>>) -> Outcome<Vec<T>> {
    let mut result: Option<Vec<T>> = None;
    for part in parts {
        let mut part = part?;
        if op == AVERAGE {
            part.iter_mut().for_each(|value| *value = value.share_before(ranks));
        }
        match &mut result {
            None => result = Some(part),
            Some(result) => result.iter_mut().zip(part).for_each(|(all, own)| *all = all.with(own, op)),
        }
    }
    let mut result = result.unwrap_or_default();
    if op == AVERAGE {
        result.iter_mut().for_each(|value| *value = value.share_after(ranks));
    }
    Ok(result)
}

/// Operators, as ncclRedOp_t has them.
const PRODUCT: i32 = 1;
const LARGEST: i32 = 2;
const LEAST: i32 = 3;
const AVERAGE: i32 = 4;

trait Number: Copy {
    fn with(self, other: Self, op: i32) -> Self;

    /// Floats are divided before they are summed for a mean.
    fn share_before(self, _ranks: usize) -> Self {
        self
    }

    /// Integers are divided after it.
    fn share_after(self, _ranks: usize) -> Self {
        self
    }
}

macro_rules! integers {
    ($($number:ty)*) => {$(
        impl Number for $number {
            #[inline(always)]
            fn with(self, other: Self, op: i32) -> Self {
                match op {
                    PRODUCT => self.wrapping_mul(other),
                    LARGEST => self.max(other),
                    LEAST => self.min(other),
                    _ => self.wrapping_add(other),
                }
            }

            fn share_after(self, ranks: usize) -> Self {
                self / ranks as $number
            }
        }
    )*};
}

macro_rules! floats {
    ($($number:ty)*) => {$(
        impl Number for $number {
            #[inline(always)]
            fn with(self, other: Self, op: i32) -> Self {
                match op {
                    PRODUCT => self * other,
                    LARGEST => self.max(other),
                    LEAST => self.min(other),
                    _ => self + other,
                }
            }

            fn share_before(self, ranks: usize) -> Self {
                self * (1.0 / ranks as $number)
            }
        }
    )*};
}

macro_rules! halves {
    ($($number:ident $widened:ident $narrowed:ident)*) => {$(
        #[derive(Clone, Copy)]
        #[repr(transparent)]
        struct $number(u16);

        impl Number for $number {
            fn with(self, other: Self, op: i32) -> Self {
                Self($narrowed($widened(self.0).with($widened(other.0), op)))
            }

            fn share_before(self, ranks: usize) -> Self {
                Self($narrowed($widened(self.0).share_before(ranks)))
            }
        }
    )*};
}

integers!(i8 u8 i32 u32 i64 u64);
floats!(f32 f64);
halves!(F16 f16_to_f32 f32_to_f16 Bf16 bf16_to_f32 f32_to_bf16);
