//! Numbers as they lie in registers, and the roundings that Rust has no operator for.

use crate::half::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};

/// A type of PTX: how it is read from the low bits of a register, and how written.
pub trait Number {
    type Value: Copy;
    fn get(bits: u64) -> Self::Value;
    fn put(value: Self::Value) -> u64;
}

macro_rules! whole {
    ($($t:ty),*) => {$(
        impl Number for $t {
            type Value = $t;
            fn get(bits: u64) -> $t { bits as $t }
            fn put(value: $t) -> u64 { value as u64 }
        }
    )*};
}
whole!(u8, u16, u32, u64, i8, i16, i32, i64);

impl Number for f32 {
    type Value = f32;
    fn get(bits: u64) -> f32 {
        f32::from_bits(bits as u32)
    }
    fn put(value: f32) -> u64 {
        value.to_bits().into()
    }
}

impl Number for f64 {
    type Value = f64;
    fn get(bits: u64) -> f64 {
        f64::from_bits(bits)
    }
    fn put(value: f64) -> u64 {
        value.to_bits()
    }
}

/// The 16-bit types, which are computed with in f32.
pub struct F16;
pub struct Bf16;

impl Number for F16 {
    type Value = f32;
    fn get(bits: u64) -> f32 {
        f16_to_f32(bits as u16)
    }
    fn put(value: f32) -> u64 {
        f32_to_f16(value).into()
    }
}

impl Number for Bf16 {
    type Value = f32;
    fn get(bits: u64) -> f32 {
        bf16_to_f32(bits as u16)
    }
    fn put(value: f32) -> u64 {
        f32_to_bf16(value).into()
    }
}

/// A rounded sum and what rounding lost.
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let part = sum - a;
    (sum, (a - (sum - part)) + (b - part))
}

/// Where a directed rounding goes.
#[derive(Clone, Copy, PartialEq)]
pub enum Toward {
    Zero,
    Below,
    Above,
}

/// `sum + lost` in f32.
fn directed((sum, lost): (f64, f64), toward: Toward) -> f32 {
    let nearest = sum as f32;
    let excess = (f64::from(nearest) - sum) - lost;
    match toward {
        Toward::Below | Toward::Zero if excess > 0.0 && (toward == Toward::Below || sum > 0.0) => nearest.next_down(),
        Toward::Above | Toward::Zero if excess < 0.0 && (toward == Toward::Above || sum < 0.0) => nearest.next_up(),
        _ => nearest,
    }
}

/// `a b + c` in f32, rounded in one direction.
pub fn fma_toward(a: f32, b: f32, c: f32, toward: Toward) -> f32 {
    directed(two_sum(f64::from(a) * f64::from(b), c.into()), toward)
}

pub fn add_toward_zero(a: f64, b: f64) -> f64 {
    let (sum, lost) = two_sum(a, b);
    match (sum > 0.0, lost) {
        (true, lost) if lost < 0.0 => sum.next_down(),
        (false, lost) if lost > 0.0 => sum.next_up(),
        _ => sum,
    }
}

/// Numbers too small for a full mantissa as zeros.
pub fn flushed(x: f32) -> f32 {
    if x.is_subnormal() { 0.0f32.copysign(x) } else { x }
}

/// Of two numbers the one that is asked for, a number before a NaN, and of zeros −0 as the smaller.
pub fn least(a: f64, b: f64) -> f64 {
    match (a.is_nan(), b.is_nan()) {
        (true, _) => b,
        (_, true) => a,
        _ if a == b => {
            if a.is_sign_negative() {
                a
            } else {
                b
            }
        }
        _ => {
            if a < b {
                a
            } else {
                b
            }
        }
    }
}

pub fn most(a: f64, b: f64) -> f64 {
    -least(-a, -b)
}
