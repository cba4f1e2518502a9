//! The instruction sets the kernels are compiled for, and one vector type over all of them.
//!
//! A kernel is written once, generic over [`Lanes`], as an `#[inline(always)]` function. `dispatch!` compiles it inside
//! one function per instruction set, so the vector operations become single instructions there.

use std::cell::Cell;
use std::sync::OnceLock;

thread_local! {
    static PLAIN: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` with every convolution of this thread computed directly and with products rounded before they are
/// added: for comparisons with reference implementations. Kernels round differently, which flips ReLU masks near zero,
/// and that shows in gradients summed over many pixels.
pub fn plainly<R>(work: impl FnOnce() -> R) -> R {
    let before = PLAIN.with(|flag| flag.replace(true));
    let result = work();
    PLAIN.with(|flag| flag.set(before));
    result
}

/// Whether this thread is inside [`plainly`].
pub(super) fn is_plain() -> bool {
    PLAIN.with(Cell::get)
}

/// An instruction set that the running CPU has: values come from [`Simd::available`] alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ops) enum Simd {
    /// 16 lanes.
    Avx512,
    /// 8 lanes with fused multiply-add.
    Avx2,
    /// 4 lanes of plain Rust.
    Portable,
}

impl Simd {
    /// What this CPU can run, best first.
    pub fn available() -> Vec<Simd> {
        #[cfg_attr(not(target_arch = "x86_64"), allow(unused_mut))]
        let mut found = vec![Simd::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
                found.insert(0, Simd::Avx2);
            }
            if std::arch::is_x86_feature_detected!("avx512f") {
                found.insert(0, Simd::Avx512);
            }
        }
        found
    }

    /// The best available, or the one that `BOXWRIGHT_SIMD` names; the environment is read once.
    pub fn current() -> Simd {
        if is_plain() {
            return Simd::Portable;
        }
        static CURRENT: OnceLock<Simd> = OnceLock::new();
        *CURRENT.get_or_init(|| choose(std::env::var("BOXWRIGHT_SIMD").ok().as_deref(), &Simd::available()))
    }

    /// Floats in one vector.
    pub fn lanes(self) -> usize {
        match self {
            Simd::Avx512 => 16,
            Simd::Avx2 => 8,
            Simd::Portable => 4,
        }
    }
}

/// The named set where the CPU has it, else the best one.
fn choose(name: Option<&str>, available: &[Simd]) -> Simd {
    let named = match name {
        Some("avx512") => Some(Simd::Avx512),
        Some("avx2") => Some(Simd::Avx2),
        Some("portable") => Some(Simd::Portable),
        _ => None,
    };
    named.filter(|simd| available.contains(simd)).or_else(|| available.first().copied()).unwrap_or(Simd::Portable)
}

/// Calls a generic kernel compiled for the instruction set `$simd`. To be used inside `unsafe`: the kernel's contract
/// is the caller's to keep; that the CPU has the instructions follows from where `Simd` values come from.
macro_rules! dispatch {
    ($simd:expr, $kernel:ident($($name:ident: $kind:ty = $value:expr),* $(,)?)) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f")]
        unsafe fn with_avx512($($name: $kind),*) {
            // SAFETY: the caller's contract, passed on.
            unsafe { $kernel::<std::arch::x86_64::__m512>($($name),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        unsafe fn with_avx2($($name: $kind),*) {
            // SAFETY: the caller's contract, passed on.
            unsafe { $kernel::<std::arch::x86_64::__m256>($($name),*) }
        }
        match $simd {
            #[cfg(target_arch = "x86_64")]
            $crate::ops::conv::simd::Simd::Avx512 => with_avx512($($value),*),
            #[cfg(target_arch = "x86_64")]
            $crate::ops::conv::simd::Simd::Avx2 => with_avx2($($value),*),
            _ => $kernel::<$crate::ops::conv::simd::Quad>($($value),*),
        }
    }};
}
pub(in crate::ops) use dispatch;

/// Writes the body once for each index below `$count`, the index a constant each time, so that arrays indexed by it
/// live in registers whatever the optimiser thinks of unrolling. `$count` is at most 8, or the literal in front.
macro_rules! unroll {
    ($index:ident < $count:expr, $body:block) => {
        $crate::ops::conv::simd::unroll!(@each $index, $count, $body, 0 1 2 3 4 5 6 7)
    };
    (6: $index:ident < $count:expr, $body:block) => {
        $crate::ops::conv::simd::unroll!(@each $index, $count, $body, 0 1 2 3 4 5)
    };
    (4: $index:ident < $count:expr, $body:block) => {
        $crate::ops::conv::simd::unroll!(@each $index, $count, $body, 0 1 2 3)
    };
    (@each $index:ident, $count:expr, $body:block, $($value:literal)*) => {{
        $({
            let $index: usize = $value;
            if $index < $count $body
        })*
    }};
}
pub(super) use unroll;

/// A vector of `LANES` floats. Creating one is unsafe, as it needs the CPU to have the instructions; once it exists,
/// the CPU has them.
pub(in crate::ops) trait Lanes: Copy {
    const LANES: usize;

    /// # Safety
    /// The CPU has this type's instructions (as for all the unsafe functions here).
    unsafe fn splat(value: f32) -> Self;

    /// # Safety
    /// `LANES` floats can be read.
    unsafe fn load(from: *const f32) -> Self;

    /// Floats 0, 2, 4, … of `2 · LANES`.
    ///
    /// # Safety
    /// `2 · LANES` floats can be read.
    unsafe fn evens(from: *const f32) -> Self;

    /// `self` with the lanes whose bit is set in `mask` read from memory; the others are not touched.
    ///
    /// # Safety
    /// The floats of the set lanes can be read.
    unsafe fn load_where(self, from: *const f32, mask: u32) -> Self;

    /// # Safety
    /// `LANES` floats can be written.
    unsafe fn store(self, to: *mut f32);

    /// Writes the lanes whose bit is set in `mask` and touches no others.
    ///
    /// # Safety
    /// The floats of the set lanes can be written.
    unsafe fn store_where(self, to: *mut f32, mask: u32);

    fn plus(self, other: Self) -> Self;
    fn minus(self, other: Self) -> Self;
    /// self · factor + addend.
    fn mul_add(self, factor: Self, addend: Self) -> Self;
    /// The larger of each pair; `other` where either is NaN.
    fn larger(self, other: Self) -> Self;
    /// The smaller of each pair; `other` where either is NaN.
    fn smaller(self, other: Self) -> Self;

    /// Within each block of 4 lanes, transposes the 4×4 matrix whose rows are the four vectors' blocks.
    fn transpose(rows: [Self; 4]) -> [Self; 4];
    /// Within each block of 4 lanes: `[a0 a2 b0 b2]` and `[a1 a3 b1 b3]`.
    fn unzip(a: Self, b: Self) -> [Self; 2];
    /// Undoes `unzip`: `[a0 b0 a1 b1]` and `[a2 b2 a3 b3]`.
    fn zip(a: Self, b: Self) -> [Self; 2];
}

/// Four floats of plain Rust.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Quad([f32; 4]);

impl Quad {
    #[inline(always)]
    fn pairwise(self, other: Self, combine: impl Fn(f32, f32) -> f32) -> Self {
        let (a, b) = (self.0, other.0);
        Quad([combine(a[0], b[0]), combine(a[1], b[1]), combine(a[2], b[2]), combine(a[3], b[3])])
    }
}

/// A fused instruction where every CPU of the kind has one; elsewhere `f32::mul_add` would call a slow function.
#[inline(always)]
fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(target_arch = "aarch64") { a.mul_add(b, c) } else { a * b + c }
}

impl Lanes for Quad {
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Quad([value; 4])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: readable by the contract.
        Quad(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn evens(from: *const f32) -> Self {
        // SAFETY: readable by the contract.
        let all = unsafe { from.cast::<[f32; 8]>().read_unaligned() };
        Quad([all[0], all[2], all[4], all[6]])
    }
    #[inline(always)]
    unsafe fn load_where(self, from: *const f32, mask: u32) -> Self {
        let mut lanes = self.0;
        for (lane, value) in lanes.iter_mut().enumerate() {
            if (mask >> lane) & 1 == 1 {
                // SAFETY: this lane is readable by the contract.
                *value = unsafe { from.wrapping_add(lane).read_unaligned() };
            }
        }
        Quad(lanes)
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: writable by the contract.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn store_where(self, to: *mut f32, mask: u32) {
        for (lane, value) in self.0.iter().enumerate() {
            if (mask >> lane) & 1 == 1 {
                // SAFETY: this lane is writable by the contract.
                unsafe { to.wrapping_add(lane).write_unaligned(*value) }
            }
        }
    }
    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self.pairwise(other, |a, b| a + b)
    }
    #[inline(always)]
    fn minus(self, other: Self) -> Self {
        self.pairwise(other, |a, b| a - b)
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        let (a, b, c) = (self.0, factor.0, addend.0);
        Quad([
            multiply_add(a[0], b[0], c[0]),
            multiply_add(a[1], b[1], c[1]),
            multiply_add(a[2], b[2], c[2]),
            multiply_add(a[3], b[3], c[3]),
        ])
    }
    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        self.pairwise(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn smaller(self, other: Self) -> Self {
        self.pairwise(other, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn transpose(rows: [Self; 4]) -> [Self; 4] {
        let [a, b, c, d] = [rows[0].0, rows[1].0, rows[2].0, rows[3].0];
        [
            Quad([a[0], b[0], c[0], d[0]]),
            Quad([a[1], b[1], c[1], d[1]]),
            Quad([a[2], b[2], c[2], d[2]]),
            Quad([a[3], b[3], c[3], d[3]]),
        ]
    }
    #[inline(always)]
    fn unzip(a: Self, b: Self) -> [Self; 2] {
        let (a, b) = (a.0, b.0);
        [Quad([a[0], a[2], b[0], b[2]]), Quad([a[1], a[3], b[1], b[3]])]
    }
    #[inline(always)]
    fn zip(a: Self, b: Self) -> [Self; 2] {
        let (a, b) = (a.0, b.0);
        [Quad([a[0], b[0], a[1], b[1]]), Quad([a[2], b[2], a[3], b[3]])]
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Lanes;
    use std::arch::x86_64::*;

    /// The methods that differ between AVX-512 and AVX2 by the names of their intrinsics alone.
    macro_rules! same_but_for_names {
        ($splat:ident, $load:ident, $store:ident, $add:ident, $sub:ident, $fma:ident, $max:ident, $min:ident,
         $low:ident, $high:ident, $shuffle:ident) => {
            #[inline(always)]
            unsafe fn splat(value: f32) -> Self {
                // SAFETY: the CPU has the instruction by the contract.
                unsafe { $splat(value) }
            }
            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                // SAFETY: instruction and memory by the contract.
                unsafe { $load(from) }
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                // SAFETY: instruction and memory by the contract.
                unsafe { $store(to, self) }
            }
            #[inline(always)]
            fn plus(self, other: Self) -> Self {
                // SAFETY: a vector exists, so the CPU has the instruction.
                unsafe { $add(self, other) }
            }
            #[inline(always)]
            fn minus(self, other: Self) -> Self {
                // SAFETY: a vector exists, so the CPU has the instruction.
                unsafe { $sub(self, other) }
            }
            #[inline(always)]
            fn mul_add(self, factor: Self, addend: Self) -> Self {
                // SAFETY: a vector exists, so the CPU has the instruction.
                unsafe { $fma(self, factor, addend) }
            }
            #[inline(always)]
            fn larger(self, other: Self) -> Self {
                // SAFETY: a vector exists, so the CPU has the instruction.
                unsafe { $max(self, other) }
            }
            #[inline(always)]
            fn smaller(self, other: Self) -> Self {
                // SAFETY: a vector exists, so the CPU has the instruction.
                unsafe { $min(self, other) }
            }
            #[inline(always)]
            fn transpose(rows: [Self; 4]) -> [Self; 4] {
                let [a, b, c, d] = rows;
                // SAFETY: a vector exists, so the CPU has the instructions.
                unsafe {
                    let (ab_low, ab_high) = ($low(a, b), $high(a, b));
                    let (cd_low, cd_high) = ($low(c, d), $high(c, d));
                    [
                        $shuffle::<0x44>(ab_low, cd_low),
                        $shuffle::<0xEE>(ab_low, cd_low),
                        $shuffle::<0x44>(ab_high, cd_high),
                        $shuffle::<0xEE>(ab_high, cd_high),
                    ]
                }
            }
            #[inline(always)]
            fn unzip(a: Self, b: Self) -> [Self; 2] {
                // SAFETY: a vector exists, so the CPU has the instruction.
                unsafe { [$shuffle::<0x88>(a, b), $shuffle::<0xDD>(a, b)] }
            }
            #[inline(always)]
            fn zip(a: Self, b: Self) -> [Self; 2] {
                // SAFETY: a vector exists, so the CPU has the instructions.
                unsafe { [$low(a, b), $high(a, b)] }
            }
        };
    }

    impl Lanes for __m512 {
        const LANES: usize = 16;
        same_but_for_names!(
            _mm512_set1_ps,
            _mm512_loadu_ps,
            _mm512_storeu_ps,
            _mm512_add_ps,
            _mm512_sub_ps,
            _mm512_fmadd_ps,
            _mm512_max_ps,
            _mm512_min_ps,
            _mm512_unpacklo_ps,
            _mm512_unpackhi_ps,
            _mm512_shuffle_ps
        );
        #[inline(always)]
        unsafe fn evens(from: *const f32) -> Self {
            // SAFETY: instructions and memory by the contract.
            unsafe {
                let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
                _mm512_permutex2var_ps(_mm512_loadu_ps(from), even, _mm512_loadu_ps(from.wrapping_add(16)))
            }
        }
        #[inline(always)]
        unsafe fn load_where(self, from: *const f32, mask: u32) -> Self {
            // SAFETY: instruction and memory by the contract; lanes outside the mask are not read.
            unsafe { _mm512_mask_loadu_ps(self, mask as __mmask16, from) }
        }
        #[inline(always)]
        unsafe fn store_where(self, to: *mut f32, mask: u32) {
            // SAFETY: instruction and memory by the contract; lanes outside the mask are not written.
            unsafe { _mm512_mask_storeu_ps(to, mask as __mmask16, self) }
        }
    }

    /// All bits of each lane whose bit is set in `mask`.
    ///
    /// # Safety
    /// The CPU has AVX2.
    #[inline(always)]
    unsafe fn lane_mask(mask: u32) -> __m256i {
        // SAFETY: by the contract.
        unsafe {
            let bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(mask as i32), bits), bits)
        }
    }

    impl Lanes for __m256 {
        const LANES: usize = 8;
        same_but_for_names!(
            _mm256_set1_ps,
            _mm256_loadu_ps,
            _mm256_storeu_ps,
            _mm256_add_ps,
            _mm256_sub_ps,
            _mm256_fmadd_ps,
            _mm256_max_ps,
            _mm256_min_ps,
            _mm256_unpacklo_ps,
            _mm256_unpackhi_ps,
            _mm256_shuffle_ps
        );
        #[inline(always)]
        unsafe fn evens(from: *const f32) -> Self {
            // SAFETY: instructions and memory by the contract.
            unsafe {
                let (a, b) = (_mm256_loadu_ps(from), _mm256_loadu_ps(from.wrapping_add(8)));
                // Pairs 02 of a, 02 of b, 46 of a, 46 of b, then the middle two exchanged.
                let pairs = _mm256_castps_pd(_mm256_shuffle_ps::<0x88>(a, b));
                _mm256_castpd_ps(_mm256_permute4x64_pd::<0xD8>(pairs))
            }
        }
        #[inline(always)]
        unsafe fn load_where(self, from: *const f32, mask: u32) -> Self {
            // SAFETY: instructions and memory by the contract; lanes outside the mask are not read.
            unsafe {
                if mask == 0xFF {
                    return _mm256_loadu_ps(from);
                }
                let lanes = lane_mask(mask);
                _mm256_blendv_ps(self, _mm256_maskload_ps(from, lanes), _mm256_castsi256_ps(lanes))
            }
        }
        #[inline(always)]
        unsafe fn store_where(self, to: *mut f32, mask: u32) {
            // SAFETY: instructions and memory by the contract; lanes outside the mask are not written.
            unsafe { _mm256_maskstore_ps(to, lane_mask(mask), self) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forced_path_must_exist() {
        let all = [Simd::Avx512, Simd::Avx2, Simd::Portable];
        assert_eq!(choose(Some("avx2"), &all), Simd::Avx2);
        assert_eq!(choose(Some("portable"), &all), Simd::Portable);
        assert_eq!(choose(Some("avx512"), &all[1..]), Simd::Avx2);
        assert_eq!(choose(Some("neon"), &all), Simd::Avx512);
        assert_eq!(choose(None, &all[2..]), Simd::Portable);
        assert!(Simd::available().contains(&Simd::current()));
    }

    /// Runs every method on numbered lanes and appends what comes out.
    #[inline(always)]
    unsafe fn exercise<V: Lanes>(from: *const f32, out: &mut Vec<f32>) {
        let mut put = |value: V| {
            let mut lanes = [0.0_f32; 16];
            // SAFETY: 16 floats hold any vector.
            unsafe { value.store(lanes.as_mut_ptr()) };
            out.extend_from_slice(&lanes[..V::LANES]);
        };
        // SAFETY: the caller gives 64 readable floats and dispatch checked the CPU.
        unsafe {
            let rows = [0, 1, 2, 3].map(|i| V::load(from.add(i * V::LANES)));
            for value in V::transpose(rows) {
                put(value);
            }
            for value in V::unzip(rows[0], rows[1]) {
                put(value);
            }
            for value in V::zip(rows[0], rows[1]) {
                put(value);
            }
            put(V::evens(from));
            put(V::splat(-1.0).load_where(from, 0b1010));
            put(rows[0].plus(rows[1]).minus(rows[2]));
            put(rows[0].mul_add(rows[1], rows[2]));
            put(rows[0].larger(V::splat(2.5)).smaller(V::splat(6.5)));
            let mut lanes = [7.0_f32; 16];
            rows[1].store_where(lanes.as_mut_ptr(), 0b101);
            put(V::load(lanes.as_ptr()));
        }
    }

    #[test]
    fn vectors_do_the_same_on_every_instruction_set() {
        let memory: Vec<f32> = (0..64).map(|i| i as f32).collect();
        for simd in Simd::available() {
            let lanes = simd.lanes();
            let mut out: Vec<f32> = Vec::new();
            // SAFETY: 64 floats are what the widest set reads.
            unsafe { dispatch!(simd, exercise(from: *const f32 = memory.as_ptr(), out: &mut Vec<f32> = &mut out)) };
            let row = |i: usize, lane: usize| (i * lanes + lane) as f32;
            let mut expected: Vec<f32> = Vec::new();
            let mut each = |value: &dyn Fn(usize, usize) -> f32| {
                for lane in 0..lanes {
                    expected.push(value(lane / 4 * 4, lane % 4));
                }
            };
            for i in 0..4 {
                each(&|block, j| row(j, block + i));
            }
            for i in 0..2 {
                each(&|block, j| row(j / 2, block + j % 2 * 2 + i));
            }
            for i in 0..2 {
                each(&|block, j| row(j % 2, block + j / 2 + i * 2));
            }
            each(&|block, j| 2.0 * (block + j) as f32);
            each(&|block, j| if block == 0 && j % 2 == 1 { j as f32 } else { -1.0 });
            each(&|block, j| row(0, block + j) + row(1, block + j) - row(2, block + j));
            each(&|block, j| row(0, block + j) * row(1, block + j) + row(2, block + j));
            each(&|block, j| row(0, block + j).clamp(2.5, 6.5));
            each(&|block, j| if block == 0 && j % 2 == 0 { row(1, j) } else { 7.0 });
            assert_eq!(out, expected, "{simd:?}");
        }
    }
}
