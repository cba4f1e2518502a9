//! What arithmetic instructions do to the registers of a warp.

use super::number::{Bf16, F16, Number, Toward, add_toward_zero, flushed, fma_toward, least, most};

/// Threads of a warp, which run together.
pub const LANES: usize = 32;

/// A register of every thread.
pub type Register = [u64; LANES];

/// An instruction without effects: a register from up to four.
pub type Row = fn([&Register; 4], &mut Register);

macro_rules! row {
    (|$($v:ident),+| $result:expr) => {{
        fn run(inputs: [&Register; 4], result: &mut Register) {
            for lane in 0..LANES {
                let mut values = inputs.iter().map(|register| register[lane]);
                $(let $v = values.next().unwrap_or_default();)+
                result[lane] = $result;
            }
        }
        Some(run as Row)
    }};
}
/// [`row`] of values of one type, `T`.
macro_rules! typed_row {
    ($t:ty, ($($v:ident),+), $r:ty, $result:expr) => {{
        #[allow(dead_code, reason = "not every result is of the operands' type")]
        type T = $t;
        row!(|$($v),+| { $(let $v = <$t as Number>::get($v);)+ <$r as Number>::put($result) })
    }};
}
/// A row for whichever of these types it is; the result is of the type that follows the arrow.
macro_rules! of_type {
    ($ty:expr, [$($name:pat => $t:ty),+], $values:tt -> $r:ty { $result:expr }) => {
        match $ty {
            $($name => typed_row!($t, $values, $r, $result),)+
            _ => None,
        }
    };
}
macro_rules! whole {
    ($ty:expr, $values:tt -> $r:ty { $result:expr }) => {
        of_type!($ty, [
            "u8" => u8, "s8" => i8, "u16" => u16, "s16" => i16, "u32" => u32, "s32" => i32, "u64" => u64, "s64" => i64
        ], $values -> $r { $result })
    };
}
macro_rules! real {
    ($ty:expr, $values:tt -> $r:ty { $result:expr }) => {
        of_type!($ty, ["f32" => f32, "f64" => f64, "f16" => F16, "bf16" => Bf16], $values -> $r { $result })
    };
}
macro_rules! bits {
    ($ty:expr, $values:tt $result:expr) => {
        of_type!($ty, ["pred" | "b8" => u8, "b16" => u16, "b32" => u32, "b64" => u64], $values -> T { $result })
    };
}

/// What an instruction such as `add.rn.f32` computes; none where it is not one of arithmetic, or not known.
pub fn row(instruction: &str) -> Option<Row> {
    let (name, rest) = instruction.split_once('.')?;
    let parts: Vec<&str> = rest.split('.').collect();
    let (ty, has) = (*parts.last()?, |part: &str| parts.contains(&part));
    if name == "cvt" {
        return conversion(&parts);
    }
    let is_real = matches!(ty, "f32" | "f64" | "f16" | "bf16");
    match name {
        "add" if has("rz") && ty == "f32" => {
            of_type!(ty, ["f32" => f32], (a, b) -> T { fma_toward(a, 1.0, b, Toward::Zero) })
        }
        "add" if has("rz") => of_type!(ty, ["f64" => f64], (a, b) -> T { add_toward_zero(a, b) }),
        "add" if is_real && plain(&parts) => real!(ty, (a, b) -> T { a + b }),
        "sub" if is_real && plain(&parts) => real!(ty, (a, b) -> T { a - b }),
        "mul" if is_real && plain(&parts) => real!(ty, (a, b) -> T { a * b }),
        "div" if is_real && (plain(&parts) || has("full") || has("approx")) => real!(ty, (a, b) -> T { a / b }),
        "fma" if has("rm") => of_type!(ty, ["f32" => f32], (a, b, c) -> T { fma_toward(a, b, c, Toward::Below) }),
        "fma" if has("rp") => of_type!(ty, ["f32" => f32], (a, b, c) -> T { fma_toward(a, b, c, Toward::Above) }),
        "fma" if has("rz") => of_type!(ty, ["f32" => f32], (a, b, c) -> T { fma_toward(a, b, c, Toward::Zero) }),
        "fma" if plain(&parts) => real!(ty, (a, b, c) -> T { a.mul_add(b, c) }),
        "neg" if is_real => real!(ty, (a) -> T { -a }),
        "abs" if is_real => real!(ty, (a) -> T { a.abs() }),
        "min" if ty == "f64" => of_type!(ty, ["f64" => f64], (a, b) -> T { least(a, b) }),
        "max" if ty == "f64" => of_type!(ty, ["f64" => f64], (a, b) -> T { most(a, b) }),
        "min" if is_real && !has("NaN") => {
            of_type!(ty, ["f32" => f32, "f16" => F16, "bf16" => Bf16], (a, b) -> T { least(a.into(), b.into()) as f32 })
        }
        "max" if is_real && !has("NaN") => {
            of_type!(ty, ["f32" => f32, "f16" => F16, "bf16" => Bf16], (a, b) -> T { most(a.into(), b.into()) as f32 })
        }
        "min" if has("NaN") => {
            of_type!(ty, ["f32" => f32, "f16" => F16, "bf16" => Bf16], (a, b) -> T { if a.is_nan() { a } else if b.is_nan() { b } else { a.min(b) } })
        }
        "max" if has("NaN") => {
            of_type!(ty, ["f32" => f32, "f16" => F16, "bf16" => Bf16], (a, b) -> T { if a.is_nan() { a } else if b.is_nan() { b } else { a.max(b) } })
        }
        // The sign is the first operand's.
        "copysign" => real!(ty, (a, b) -> T { b.copysign(a) }),
        "rcp" => real!(ty, (a) -> T { 1.0 / a }),
        "sqrt" => real!(ty, (a) -> T { a.sqrt() }),
        "rsqrt" => real!(ty, (a) -> T { 1.0 / a.sqrt() }),
        "ex2" => of_type!(ty, ["f32" => f32], (a) -> T { flushed(flushed(a).exp2()) }),
        "lg2" => of_type!(ty, ["f32" => f32], (a) -> T { flushed(a).log2() }),
        "sin" => of_type!(ty, ["f32" => f32], (a) -> T { a.sin() }),
        "cos" => of_type!(ty, ["f32" => f32], (a) -> T { a.cos() }),
        "tanh" => of_type!(ty, ["f32" => f32], (a) -> T { a.tanh() }),
        "add" => whole!(ty, (a, b) -> T { a.wrapping_add(b) }),
        "sub" => whole!(ty, (a, b) -> T { a.wrapping_sub(b) }),
        "mul" | "mad" if has("wide") => wide(name, ty),
        "mul" | "mad" if has("hi") => high(name, ty),
        "mul" if has("lo") => whole!(ty, (a, b) -> T { a.wrapping_mul(b) }),
        "mad" if has("lo") => whole!(ty, (a, b, c) -> T { a.wrapping_mul(b).wrapping_add(c) }),
        // What division by zero gives is left open.
        "div" => whole!(ty, (a, b) -> T { a.checked_div(b).unwrap_or(!0) }),
        "rem" => whole!(ty, (a, b) -> T { a.checked_rem(b).unwrap_or(a) }),
        "neg" => of_type!(ty, ["s16" => i16, "s32" => i32, "s64" => i64], (a) -> T { a.wrapping_neg() }),
        "abs" => of_type!(ty, ["s16" => i16, "s32" => i32, "s64" => i64], (a) -> T { a.wrapping_abs() }),
        "min" => whole!(ty, (a, b) -> T { a.min(b) }),
        "max" => whole!(ty, (a, b) -> T { a.max(b) }),
        "not" if ty == "pred" => row!(|a| a ^ 1),
        "not" => bits!(ty, (a) !a),
        "and" => bits!(ty, (a, b) a & b),
        "or" => bits!(ty, (a, b) a | b),
        "xor" => bits!(ty, (a, b) a ^ b),
        "shl" => match ty {
            "b16" => row!(|a, b| (a as u16).checked_shl(b as u32).unwrap_or(0).into()),
            "b32" => row!(|a, b| (a as u32).checked_shl(b as u32).unwrap_or(0).into()),
            "b64" => row!(|a, b| a.checked_shl(b as u32).unwrap_or(0)),
            _ => None,
        },
        "shr" => match ty {
            "u16" | "b16" => row!(|a, b| (a as u16).checked_shr(b as u32).unwrap_or(0).into()),
            "u32" | "b32" => row!(|a, b| (a as u32).checked_shr(b as u32).unwrap_or(0).into()),
            "u64" | "b64" => row!(|a, b| a.checked_shr(b as u32).unwrap_or(0)),
            "s16" => row!(|a, b| (a as i16 >> (b as u32).min(15)) as u64),
            "s32" => row!(|a, b| (a as i32 >> (b as u32).min(31)) as u64),
            "s64" => row!(|a, b| (a as i64 >> (b as u32).min(63)) as u64),
            _ => None,
        },
        "setp" | "set" => compare(name, &parts),
        "selp" => row!(|a, b, p| if p & 1 == 1 { a } else { b }),
        "mov" => row!(|a| a),
        "cvta" => row!(|a| a),
        "brev" => match ty {
            "b32" => row!(|a| (a as u32).reverse_bits().into()),
            "b64" => row!(|a| a.reverse_bits()),
            _ => None,
        },
        "clz" => match ty {
            "b32" => row!(|a| (a as u32).leading_zeros().into()),
            "b64" => row!(|a| a.leading_zeros().into()),
            _ => None,
        },
        "popc" => match ty {
            "b32" => row!(|a| (a as u32).count_ones().into()),
            "b64" => row!(|a| a.count_ones().into()),
            _ => None,
        },
        // How far the highest bit is from the top; all ones where there is none.
        "bfind" if has("shiftamt") && ty == "u32" => {
            row!(|a| if a as u32 == 0 { u32::MAX.into() } else { (a as u32).leading_zeros().into() })
        }
        "bfi" => match ty {
            "b32" => row!(|a, b, at, len| inserted(a as u32 as u64, b as u32 as u64, at, len)),
            "b64" => row!(|a, b, at, len| inserted(a, b, at, len)),
            _ => None,
        },
        "prmt" if parts == ["b32"] => row!(|a, b, how| permuted(a, b, how)),
        _ => None,
    }
}

/// Whether a real instruction has the rounding that Rust's operators have.
fn plain(parts: &[&str]) -> bool {
    parts[..parts.len() - 1].iter().all(|part| *part == "rn")
}

fn inserted(a: u64, b: u64, at: u64, len: u64) -> u64 {
    let (at, len) = (at as u32 & 255, len as u32 & 255);
    let mask = 1u64.checked_shl(len).map_or(!0, |bit| bit - 1).checked_shl(at).unwrap_or(0);
    (b & !mask) | (a.checked_shl(at).unwrap_or(0) & mask)
}

/// Four bytes picked from eight; bit 3 of a pick spreads the byte's sign.
fn permuted(a: u64, b: u64, how: u64) -> u64 {
    let all = (a as u32 as u64) | (b << 32);
    (0..4).fold(0, |result, byte| {
        let pick = how >> (4 * byte) & 15;
        let value = (all >> (8 * (pick & 7))) & 255;
        let value = if pick & 8 == 0 { value } else { (value >> 7) * 255 };
        result | (value << (8 * byte))
    })
}

fn wide(name: &str, ty: &str) -> Option<Row> {
    match (name, ty) {
        ("mul", "u16") => row!(|a, b| u64::from(a as u16 as u32 * b as u16 as u32)),
        ("mul", "s16") => row!(|a, b| (a as i16 as i32 * b as i16 as i32) as u64),
        ("mul", "u32") => row!(|a, b| a as u32 as u64 * b as u32 as u64),
        ("mul", "s32") => row!(|a, b| (a as i32 as i64 * b as i32 as i64) as u64),
        ("mad", "u32") => row!(|a, b, c| (a as u32 as u64 * b as u32 as u64).wrapping_add(c)),
        ("mad", "s32") => row!(|a, b, c| ((a as i32 as i64 * b as i32 as i64) as u64).wrapping_add(c)),
        _ => None,
    }
}

fn high(name: &str, ty: &str) -> Option<Row> {
    match (name, ty) {
        ("mul", "u32") => row!(|a, b| (a as u32 as u64 * b as u32 as u64) >> 32),
        ("mul", "s32") => row!(|a, b| ((a as i32 as i64 * b as i32 as i64) >> 32) as u64),
        ("mul", "u64") => row!(|a, b| ((a as u128 * b as u128) >> 64) as u64),
        ("mul", "s64") => row!(|a, b| ((a as i64 as i128 * b as i64 as i128) >> 64) as u64),
        ("mad", "u32") => row!(|a, b, c| ((a as u32 as u64 * b as u32 as u64) >> 32).wrapping_add(c)),
        _ => None,
    }
}

/// `setp.lt.f32`, whose result is a predicate, and `set.eq.f16.f16`, whose result is a number.
fn compare(name: &str, parts: &[&str]) -> Option<Row> {
    let (how, ty) = match (name, parts) {
        ("setp", [how, ty]) => (*how, *ty),
        ("set", ["eq", result, ty]) if result == ty => {
            return of_type!(*ty, ["f16" => F16, "bf16" => Bf16, "f32" => f32], (a, b) -> T { f32::from(a == b) });
        }
        _ => return None,
    };
    macro_rules! both {
        ($values:tt $result:expr) => {
            whole!(ty, $values -> u8 { u8::from($result) })
                .or(real!(ty, $values -> u8 { u8::from($result) }))
                .or(of_type!(ty, ["b16" => u16, "b32" => u32, "b64" => u64], $values -> u8 { u8::from($result) }))
        };
    }
    #[allow(clippy::neg_cmp_op_on_partial_ord, reason = "the unordered comparisons are those with NaN")]
    match how {
        "eq" => both!((a, b) a == b),
        "ne" if !ty.contains('f') => both!((a, b) a != b),
        "ne" => real!(ty, (a, b) -> u8 { u8::from(a != b && !a.is_nan() && !b.is_nan()) }),
        "lt" | "lo" => both!((a, b) a < b),
        "le" | "ls" => both!((a, b) a <= b),
        "gt" | "hi" => both!((a, b) a > b),
        "ge" | "hs" => both!((a, b) a >= b),
        "equ" => real!(ty, (a, b) -> u8 { u8::from(a == b || a.is_nan() || b.is_nan()) }),
        "neu" => real!(ty, (a, b) -> u8 { u8::from(a != b) }),
        "ltu" => real!(ty, (a, b) -> u8 { u8::from(!(a >= b)) }),
        "leu" => real!(ty, (a, b) -> u8 { u8::from(!(a > b)) }),
        "gtu" => real!(ty, (a, b) -> u8 { u8::from(!(a <= b)) }),
        "geu" => real!(ty, (a, b) -> u8 { u8::from(!(a < b)) }),
        "num" => real!(ty, (a, b) -> u8 { u8::from(!a.is_nan() && !b.is_nan()) }),
        "nan" => real!(ty, (a, b) -> u8 { u8::from(a.is_nan() || b.is_nan()) }),
        _ => None,
    }
}

/// `cvt[.rounding][.ftz][.sat].to.from`.
fn conversion(parts: &[&str]) -> Option<Row> {
    let [modes @ .., to, from] = parts else { return None };
    let (is_real, has) = (|ty: &str| matches!(ty, "f16" | "bf16" | "f32" | "f64"), |mode| modes.contains(&mode));
    match (is_real(from), is_real(to)) {
        (false, false) if modes.is_empty() => match *to {
            "u8" => row!(|a| a & 255),
            "s8" => row!(|a| a as i8 as u64),
            _ => whole!(*from, (a) -> u64 { a as u64 }),
        },
        (false, true) if modes == ["rn"] => match *to {
            "f64" => whole!(*from, (a) -> f64 { a as f64 }),
            "f32" => whole!(*from, (a) -> f32 { a as f32 }),
            "f16" => whole!(*from, (a) -> F16 { a as f32 }),
            "bf16" => whole!(*from, (a) -> Bf16 { a as f32 }),
            _ => None,
        },
        (true, true) if has("sat") && to == from => real!(*to, (a) -> T { if a > 0.0 { a.min(1.0) } else { 0.0 } }),
        (true, true) if to == from && modes.len() == 1 => match modes[0] {
            "rni" => real!(*to, (a) -> T { a.round_ties_even() }),
            "rzi" => real!(*to, (a) -> T { a.trunc() }),
            "rmi" => real!(*to, (a) -> T { a.floor() }),
            "rpi" => real!(*to, (a) -> T { a.ceil() }),
            _ => None,
        },
        (true, true) if modes.is_empty() || modes == ["rn"] => match *to {
            "f64" => real!(*from, (a) -> f64 { a as f64 }),
            "f32" => real!(*from, (a) -> f32 { a as f32 }),
            "f16" => real!(*from, (a) -> F16 { a as f32 }),
            "bf16" => real!(*from, (a) -> Bf16 { a as f32 }),
            _ => None,
        },
        (true, false) if modes.len() == 1 => {
            macro_rules! rounded {
                ($round:ident) => {
                    match *to {
                        "u8" => real!(*from, (a) -> u8 { a.$round() as u8 }),
                        "u16" => real!(*from, (a) -> u16 { a.$round() as u16 }),
                        "u32" => real!(*from, (a) -> u32 { a.$round() as u32 }),
                        "u64" => real!(*from, (a) -> u64 { a.$round() as u64 }),
                        "s16" => real!(*from, (a) -> i16 { a.$round() as i16 }),
                        "s32" => real!(*from, (a) -> i32 { a.$round() as i32 }),
                        "s64" => real!(*from, (a) -> i64 { a.$round() as i64 }),
                        _ => None,
                    }
                };
            }
            match modes[0] {
                "rni" => rounded!(round_ties_even),
                "rzi" => rounded!(trunc),
                "rmi" => rounded!(floor),
                "rpi" => rounded!(ceil),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The carry that `add.cc`, `sub.cc` or `mad.…cc` of u32 leaves; the last operand is the carry that it takes.
pub fn carry(instruction: &str) -> Option<(Row, Row, usize)> {
    let name = instruction.strip_suffix(".u32")?;
    let name = name.strip_suffix(".cc").unwrap_or(name);
    Some(match name {
        "add" => (
            row!(|a, b| a as u32 as u64 + b as u32 as u64)?,
            row!(|a, b| (a as u32 as u64 + b as u32 as u64) >> 32)?,
            2,
        ),
        "addc" => (
            row!(|a, b, c| a as u32 as u64 + b as u32 as u64 + c)?,
            row!(|a, b, c| (a as u32 as u64 + b as u32 as u64 + c) >> 32)?,
            2,
        ),
        "sub" => (
            row!(|a, b| (a as u32).wrapping_sub(b as u32) as u64)?,
            row!(|a, b| u64::from((a as u32) < (b as u32)))?,
            2,
        ),
        "subc" => (
            row!(|a, b, c| (a as u32).wrapping_sub(b as u32).wrapping_sub(c as u32) as u64)?,
            row!(|a, b, c| u64::from((a as u32 as u64) < b as u32 as u64 + c))?,
            2,
        ),
        "mad.lo" => (
            row!(|a, b, d| u64::from((a as u32).wrapping_mul(b as u32)) + d as u32 as u64)?,
            row!(|a, b, d| (u64::from((a as u32).wrapping_mul(b as u32)) + d as u32 as u64) >> 32)?,
            3,
        ),
        "madc.lo" => (
            row!(|a, b, d, c| u64::from((a as u32).wrapping_mul(b as u32)) + d as u32 as u64 + c)?,
            row!(|a, b, d, c| (u64::from((a as u32).wrapping_mul(b as u32)) + d as u32 as u64 + c) >> 32)?,
            3,
        ),
        "madc.hi" => (
            row!(|a, b, d, c| ((a as u32 as u64 * b as u32 as u64) >> 32) + d as u32 as u64 + c)?,
            row!(|a, b, d, c| (((a as u32 as u64 * b as u32 as u64) >> 32) + d as u32 as u64 + c) >> 32)?,
            3,
        ),
        _ => return None,
    })
}
