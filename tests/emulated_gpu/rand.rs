//! cuRAND: uniform and normal numbers in f32 and f64 from the pseudo-random default generator.
//!
//! The numbers are not NVIDIA's, but they hang, as there, on seed and position alone. Refused are an odd number of
//! normal ones, which come in pairs, and a generator of another device than the current one; other generators and
//! distributions are not emulated.

use crate::complain;
use crate::memory::{current, view_mut};

const SUCCESS: i32 = 0;
const NOT_INITIALIZED: i32 = 101;
const TYPE_ERROR: i32 = 103;
const LENGTH_NOT_MULTIPLE: i32 = 105;
const LAUNCH_FAILURE: i32 = 201;
const INITIALIZATION_FAILED: i32 = 203;

/// CURAND_RNG_PSEUDO_DEFAULT, and XORWOW, which it is.
const KINDS: [i32; 2] = [100, 101];

pub struct Generator {
    device: usize,
    seed: u64,
    /// Where the seed's sequence starts.
    offset: u64,
    /// How many numbers it has given since.
    given: u64,
}

impl Generator {
    /// The next 64 bits (SplitMix64 of seed and position).
    fn bits(&mut self) -> u64 {
        let position = self.offset.wrapping_add(self.given);
        self.given = self.given.wrapping_add(1);
        let mixed = |x: u64| {
            let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ (x >> 31)
        };
        mixed(mixed(self.seed).wrapping_add(position.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// Above 0, up to 1, with 24 bits, as f32 holds it.
    fn uniform_f32(&mut self) -> f32 {
        ((self.bits() >> 40) + 1) as f32 / (1u64 << 24) as f32
    }

    /// Above 0, up to 1.
    fn uniform_f64(&mut self) -> f64 {
        ((self.bits() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Two independent numbers of mean 0 and deviation 1 (Box and Muller 1958).
    fn normal_pair(&mut self) -> [f64; 2] {
        let (radius, angle) = ((-2.0 * self.uniform_f64().ln()).sqrt(), std::f64::consts::TAU * self.uniform_f64());
        [radius * angle.cos(), radius * angle.sin()]
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandCreateGenerator(generator: *mut *mut Generator, kind: i32) -> i32 {
    if !KINDS.contains(&kind) {
        complain(format_args!("curandCreateGenerator: the generator {kind} is not emulated"));
        return TYPE_ERROR;
    }
    let (Some(device), false) = (current(), generator.is_null()) else {
        complain(format_args!("curandCreateGenerator: no device is current, or there is no room for a generator"));
        return INITIALIZATION_FAILED;
    };
    let made = Generator { device, seed: 0, offset: 0, given: 0 };
    // SAFETY: the caller's room for a generator.
    unsafe { *generator = Box::into_raw(Box::new(made)) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandDestroyGenerator(generator: *mut Generator) -> i32 {
    if generator.is_null() {
        return NOT_INITIALIZED;
    }
    // SAFETY: made by `curandCreateGenerator`, and not used again.
    drop(unsafe { Box::from_raw(generator) });
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandSetStream(generator: *mut Generator, _stream: u64) -> i32 {
    if generator.is_null() { NOT_INITIALIZED } else { SUCCESS }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandSetPseudoRandomGeneratorSeed(generator: *mut Generator, seed: u64) -> i32 {
    // SAFETY: null, or made by `curandCreateGenerator` and used by one thread at a time.
    let Some(generator) = (unsafe { generator.as_mut() }) else { return NOT_INITIALIZED };
    (generator.seed, generator.given) = (seed, 0);
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandSetGeneratorOffset(generator: *mut Generator, offset: u64) -> i32 {
    // SAFETY: as above.
    let Some(generator) = (unsafe { generator.as_mut() }) else { return NOT_INITIALIZED };
    (generator.offset, generator.given) = (offset, 0);
    SUCCESS
}

/// Fills `len` numbers at `to`, which come in groups of `group`.
fn generate<T>(
    name: &str,
    generator: *mut Generator,
    (to, len): (u64, usize),
    group: usize,
    fill: impl Fn(&mut Generator, &mut [T]),
) -> i32 {
    // SAFETY: null, or made by `curandCreateGenerator` and used by one thread at a time.
    let Some(generator) = (unsafe { generator.as_mut() }) else { return NOT_INITIALIZED };
    if !len.is_multiple_of(group) {
        complain(format_args!("{name}: {len} numbers, which is no multiple of {group}"));
        return LENGTH_NOT_MULTIPLE;
    }
    if current() != Some(generator.device) {
        let device = generator.device;
        complain(format_args!("{name}: a generator of device {device}, while {:?} is current", current()));
        return LAUNCH_FAILURE;
    }
    let Some(values) = view_mut::<T>(to, len) else {
        complain(format_args!("{name}: the output lies outside of any allocation"));
        return LAUNCH_FAILURE;
    };
    values.chunks_exact_mut(group).for_each(|values| fill(generator, values));
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandGenerateUniform(generator: *mut Generator, to: u64, len: usize) -> i32 {
    generate("curandGenerateUniform", generator, (to, len), 1, |generator, value: &mut [f32]| {
        value[0] = generator.uniform_f32();
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandGenerateUniformDouble(generator: *mut Generator, to: u64, len: usize) -> i32 {
    generate("curandGenerateUniformDouble", generator, (to, len), 1, |generator, value: &mut [f64]| {
        value[0] = generator.uniform_f64();
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandGenerateNormal(
    generator: *mut Generator,
    to: u64,
    len: usize,
    mean: f32,
    deviation: f32,
) -> i32 {
    generate("curandGenerateNormal", generator, (to, len), 2, |generator, pair: &mut [f32]| {
        pair.copy_from_slice(&generator.normal_pair().map(|value| mean + deviation * value as f32));
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandGenerateNormalDouble(
    generator: *mut Generator,
    to: u64,
    len: usize,
    mean: f64,
    deviation: f64,
) -> i32 {
    generate("curandGenerateNormalDouble", generator, (to, len), 2, |generator, pair: &mut [f64]| {
        pair.copy_from_slice(&generator.normal_pair().map(|value| mean + deviation * value));
    })
}
