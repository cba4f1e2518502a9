//! cuBLAS: products of matrices in column-major order, in f32, f64 and the two 16-bit types.
//!
//! Refused are negative sizes, leading dimensions below a column's length, types that NVIDIA's table of cublasGemmEx
//! does not put together, results that overlap one another or a factor, and a handle of another device than the current
//! one. Scalars are on the host; integers, complex numbers, scalars on the device and what is no product are not
//! emulated. Sums are made in f32, or in f64 of f64.

use crate::complain;
use crate::driver::is_ordered;
use crate::half::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
use crate::memory::{current, view, view_mut};
use std::ffi::c_void;
use std::ops::{Add, AddAssign, Mul};

const SUCCESS: i32 = 0;
const NOT_INITIALIZED: i32 = 1;
const INVALID_VALUE: i32 = 7;
const EXECUTION_FAILED: i32 = 13;
const NOT_SUPPORTED: i32 = 15;

/// Types of numbers, as cudaDataType_t has them.
const R_32F: i32 = 0;
const R_64F: i32 = 1;
const R_16F: i32 = 2;
const R_16BF: i32 = 14;

/// Types of sums, as cublasComputeType_t has them.
const COMPUTE_16F: i32 = 64;
const COMPUTE_16F_PEDANTIC: i32 = 65;
const COMPUTE_32F: i32 = 68;
const COMPUTE_32F_PEDANTIC: i32 = 69;
const COMPUTE_32F_FAST_16F: i32 = 74;
const COMPUTE_32F_FAST_16BF: i32 = 75;
const COMPUTE_32F_FAST_TF32: i32 = 77;
const COMPUTE_64F: i32 = 70;
const COMPUTE_64F_PEDANTIC: i32 = 71;

/// The algorithm that the library chooses itself.
const ALGO_DEFAULT: i32 = -1;

const POINTER_MODE_HOST: i32 = 0;

pub struct Handle {
    device: usize,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasCreate_v2(handle: *mut *mut Handle) -> i32 {
    let Some(device) = current() else {
        complain(format_args!("cublasCreate: no device is current"));
        return NOT_INITIALIZED;
    };
    if handle.is_null() {
        return INVALID_VALUE;
    }
    // SAFETY: the caller's room for a handle.
    unsafe { *handle = Box::into_raw(Box::new(Handle { device })) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasDestroy_v2(handle: *mut Handle) -> i32 {
    if handle.is_null() {
        return NOT_INITIALIZED;
    }
    // SAFETY: made by `cublasCreate_v2`, and not used again.
    drop(unsafe { Box::from_raw(handle) });
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasSetStream_v2(handle: *mut Handle, stream: u64) -> i32 {
    match handle.is_null() {
        true => NOT_INITIALIZED,
        false if !is_ordered(stream) => EXECUTION_FAILED,
        false => SUCCESS,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasSetPointerMode_v2(handle: *mut Handle, mode: i32) -> i32 {
    match mode {
        _ if handle.is_null() => NOT_INITIALIZED,
        POINTER_MODE_HOST => SUCCESS,
        1 => {
            complain(format_args!("cublasSetPointerMode: scalars on the device are not emulated"));
            NOT_SUPPORTED
        }
        _ => INVALID_VALUE,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasGetPointerMode_v2(handle: *mut Handle, mode: *mut i32) -> i32 {
    if handle.is_null() {
        return NOT_INITIALIZED;
    }
    if mode.is_null() {
        return INVALID_VALUE;
    }
    // SAFETY: the caller's room for a mode.
    unsafe { *mode = POINTER_MODE_HOST };
    SUCCESS
}

/// A run of equally large matrices.
#[derive(Clone, Copy)]
struct Matrices {
    at: u64,
    /// cudaDataType_t.
    kind: i32,
    /// Numbers from one column to the next.
    ld: i32,
    /// Numbers from one matrix to the next.
    stride: i64,
}

impl Matrices {
    /// Numbers from the first to the last of one matrix.
    fn span(&self, rows: i32, columns: i32) -> usize {
        if rows == 0 || columns == 0 { 0 } else { (columns as usize - 1) * self.ld as usize + rows as usize }
    }

    fn bytes(&self) -> u64 {
        match self.kind {
            R_16F | R_16BF => 2,
            R_32F => 4,
            _ => 8,
        }
    }

    /// Where one of them starts.
    fn start(&self, index: i32) -> u64 {
        self.at.wrapping_add((i64::from(index) * self.stride) as u64 * self.bytes())
    }

    /// The addresses from the first to the last of so many.
    fn range(&self, count: i32, span: usize) -> std::ops::Range<u64> {
        self.at..self.start(count - 1) + span as u64 * self.bytes()
    }
}

/// C = alpha · A · B + beta · C for each matrix of a run, where A is m × k, B k × n and C m × n.
struct Product {
    name: &'static str,
    /// cublasOperation_t of A and B: they are as they are stored (0), or transposed.
    operations: [i32; 2],
    sizes: [i32; 3],
    alpha: *const c_void,
    a: Matrices,
    b: Matrices,
    beta: *const c_void,
    c: Matrices,
    count: i32,
    /// cublasComputeType_t.
    compute: i32,
    /// cublasGemmAlgo_t.
    algorithm: i32,
}

impl Product {
    /// The rows and columns of A, B and C as they are stored.
    fn stored(&self) -> [(i32, i32); 3] {
        let [m, n, k] = self.sizes;
        let turned = |operation: i32, (rows, columns)| if operation == 0 { (rows, columns) } else { (columns, rows) };
        [turned(self.operations[0], (m, k)), turned(self.operations[1], (k, n)), (m, n)]
    }

    /// What BLAS refuses, in words.
    fn fault(&self) -> Option<String> {
        if self.operations.iter().any(|operation| !(0..3).contains(operation)) {
            return Some(format!("operations {:?}", self.operations));
        }
        if self.sizes.iter().any(|&size| size < 0) || self.count < 0 {
            return Some(format!("m, n, k {:?}, {} of them", self.sizes, self.count));
        }
        if !matches!(self.algorithm, -1..24 | 99..116 | 999) {
            return Some(format!("algorithm {}", self.algorithm));
        }
        if self.alpha.is_null() || self.beta.is_null() {
            return Some("no alpha or no beta".into());
        }
        for (name, (matrices, (rows, _))) in
            ["A", "B", "C"].iter().zip([self.a, self.b, self.c].iter().zip(self.stored()))
        {
            if matrices.ld < rows.max(1) {
                return Some(format!("the leading dimension of {name} is {} for columns of {rows}", matrices.ld));
            }
            if matrices.stride < 0 {
                return Some(format!("the stride of {name} is {}", matrices.stride));
            }
        }
        None
    }

    /// Which numbers of C are written twice, or read too, in words.
    fn overlap(&self) -> Option<String> {
        let [a, b, c] = self.stored();
        let (span, stride, ld) = (self.c.span(c.0, c.1), self.c.stride, i64::from(self.c.ld));
        let one_after_another = stride >= span as i64;
        let side_by_side = stride >= i64::from(c.0) && i64::from(self.count - 1) * stride + i64::from(c.0) <= ld;
        if self.count > 1 && !one_after_another && !side_by_side {
            return Some(format!("results of {span} numbers, {stride} apart, overlap"));
        }
        let written = self.c.range(self.count, span);
        for (name, matrices, (rows, columns)) in [("A", self.a, a), ("B", self.b, b)] {
            let read = matrices.range(self.count, matrices.span(rows, columns));
            if !read.is_empty() && read.start < written.end && written.start < read.end {
                return Some(format!("C overlaps {name}"));
            }
        }
        None
    }

    fn run(&self, handle: *const Handle) -> i32 {
        if handle.is_null() {
            return NOT_INITIALIZED;
        }
        // SAFETY: a handle of `cublasCreate_v2`.
        let device = unsafe { (*handle).device };
        if current() != Some(device) {
            complain(format_args!("{}: a handle of device {device}, while {:?} is current", self.name, current()));
            return EXECUTION_FAILED;
        }
        if let Some(fault) = self.fault() {
            complain(format_args!("{}: {fault}", self.name));
            return INVALID_VALUE;
        }
        if self.count == 0 || self.sizes[0] == 0 || self.sizes[1] == 0 {
            return SUCCESS;
        }
        if let Some(overlap) = self.overlap() {
            complain(format_args!("{}: {overlap}", self.name));
            return INVALID_VALUE;
        }
        let same = |value: f32| value;
        let kinds = (self.a.kind, self.b.kind, self.c.kind);
        match (self.compute, kinds) {
            (COMPUTE_16F | COMPUTE_16F_PEDANTIC, (R_16F, R_16F, R_16F)) => {
                self.compute(self.scalars(f16_to_f32), f16_to_f32, f16_to_f32, f32_to_f16)
            }
            (COMPUTE_32F | COMPUTE_32F_PEDANTIC, (R_16F, R_16F, R_16F)) => {
                self.compute(self.scalars(same), f16_to_f32, f16_to_f32, f32_to_f16)
            }
            (COMPUTE_32F | COMPUTE_32F_PEDANTIC, (R_16BF, R_16BF, R_16BF)) => {
                self.compute(self.scalars(same), bf16_to_f32, bf16_to_f32, f32_to_bf16)
            }
            (COMPUTE_32F | COMPUTE_32F_PEDANTIC, (R_16F, R_16F, R_32F)) => {
                self.compute(self.scalars(same), f16_to_f32, same, same)
            }
            (COMPUTE_32F | COMPUTE_32F_PEDANTIC, (R_16BF, R_16BF, R_32F)) => {
                self.compute(self.scalars(same), bf16_to_f32, same, same)
            }
            (COMPUTE_32F | COMPUTE_32F_PEDANTIC, (R_32F, R_32F, R_32F)) => {
                self.compute(self.scalars(same), same, same, same)
            }
            (COMPUTE_32F_FAST_16F, (R_32F, R_32F, R_32F)) => {
                self.compute(self.scalars(same), |value| f16_to_f32(f32_to_f16(value)), same, same)
            }
            (COMPUTE_32F_FAST_16BF, (R_32F, R_32F, R_32F)) => {
                self.compute(self.scalars(same), |value| bf16_to_f32(f32_to_bf16(value)), same, same)
            }
            (COMPUTE_32F_FAST_TF32, (R_32F, R_32F, R_32F)) => self.compute(self.scalars(same), f32_to_tf32, same, same),
            (COMPUTE_64F | COMPUTE_64F_PEDANTIC, (R_64F, R_64F, R_64F)) => {
                let same = |value: f64| value;
                self.compute(self.scalars(same), same, same, same)
            }
            (compute, kinds) => {
                complain(format_args!("{}: types {kinds:?} of A, B and C summed in {compute}", self.name));
                NOT_SUPPORTED
            }
        }
    }

    fn outside(&self, matrix: &str) -> i32 {
        complain(format_args!("{}: {matrix} lies outside of any allocation", self.name));
        EXECUTION_FAILED
    }

    /// Alpha and beta.
    fn scalars<S: Copy, T>(&self, load: impl Fn(S) -> T) -> [T; 2] {
        // SAFETY: the caller's scalars, which are of the type that its type of sums demands.
        [self.alpha, self.beta].map(|scalar| load(unsafe { *scalar.cast::<S>() }))
    }

    /// Computes with factors that `load` reads; `read` and `store` are for numbers of C.
    fn compute<T: Number, F: Copy + Sync, C: Copy + Send>(
        &self,
        [alpha, beta]: [T; 2],
        load: impl Fn(F) -> T + Sync,
        read: impl Fn(C) -> T + Sync,
        store: impl Fn(T) -> C + Sync,
    ) -> i32 {
        let [m, n, k] = self.sizes.map(|size| size as usize);
        let [a_stored, b_stored, c_stored] = self.stored();
        for index in 0..self.count {
            let a = view::<F>(self.a.start(index), self.a.span(a_stored.0, a_stored.1));
            let b = view::<F>(self.b.start(index), self.b.span(b_stored.0, b_stored.1));
            let c = view_mut::<C>(self.c.start(index), self.c.span(c_stored.0, c_stored.1));
            let Some(a) = a else { return self.outside("A") };
            let Some(b) = b else { return self.outside("B") };
            let Some(c) = c else { return self.outside("C") };
            let a = panels(a, self.a.ld as usize, self.operations[0] != 0, [m, k], ROWS, &load);
            let b = panels(b, self.b.ld as usize, self.operations[1] == 0, [n, k], COLUMNS, &load);
            let sums = sums(&a, &b, [m, n, k]);
            in_shares(c, self.c.ld as usize, m * n, |column, c| {
                for (row, c) in c.iter_mut().take(m).enumerate() {
                    let panel = row / ROWS * n.next_multiple_of(COLUMNS);
                    let scaled = alpha * sums[(panel + column) * ROWS + row % ROWS];
                    *c = store(if beta == T::default() { scaled } else { scaled + beta * read(*c) });
                }
            });
        }
        SUCCESS
    }
}

trait Number: Copy + Default + PartialEq + Add<Output = Self> + AddAssign + Mul<Output = Self> + Send + Sync {}
impl Number for f32 {}
impl Number for f64 {}

/// Rounded to 10 bits after the point, of two as near to the larger one.
fn f32_to_tf32(value: f32) -> f32 {
    if value.is_finite() { f32::from_bits((value.to_bits() + 0x1000) & !0x1fff) } else { value }
}

/// A tile of the result, which is summed in registers.
const ROWS: usize = 8;
const COLUMNS: usize = 4;

/// Products that are summed before they are added to others, which keeps long sums exact.
const BLOCK: usize = 256;

/// Steps from which threads are worth their start.
const THREADED: usize = 1 << 18;

/// A factor in panels of `width` rows of A or columns of B, each a step of k after another; the last is filled up with
/// 0. `along` says that the steps of one row or column are stored one after another.
fn panels<T: Number, F: Copy + Sync>(
    values: &[F],
    ld: usize,
    along: bool,
    [count, k]: [usize; 2],
    width: usize,
    load: impl Fn(F) -> T + Sync,
) -> Vec<T> {
    let mut packed = vec![T::default(); count.next_multiple_of(width) * k];
    in_shares(&mut packed, width * k, count * k, |panel, packed| {
        for (step, packed) in packed.chunks_exact_mut(width).enumerate() {
            for (at, packed) in (panel * width..count).zip(packed) {
                *packed = load(values[if along { at * ld + step } else { step * ld + at }]);
            }
        }
    });
    packed
}

/// The sums over k, in panels of [`ROWS`] rows, each a column after another up to a multiple of [`COLUMNS`].
fn sums<T: Number>(a: &[T], b: &[T], [m, n, k]: [usize; 3]) -> Vec<T> {
    let panel = n.next_multiple_of(COLUMNS) * ROWS;
    let mut sums = vec![T::default(); m.div_ceil(ROWS) * panel];
    if k == 0 {
        return sums;
    }
    in_shares(&mut sums, panel, m * n * k, |at, sums| {
        let a = &a[at * ROWS * k..][..ROWS * k];
        for (sums, b) in sums.chunks_exact_mut(ROWS * COLUMNS).zip(b.chunks_exact(COLUMNS * k)) {
            tile(sums, a, b);
        }
    });
    sums
}

/// Gives each part of `len` values to `work`, with its number: on several threads where there are so many steps in all
/// that those are worth their start.
fn in_shares<V: Send>(values: &mut [V], len: usize, steps: usize, work: impl Fn(usize, &mut [V]) + Sync) {
    if len == 0 {
        return;
    }
    let threads = if steps < THREADED { 1 } else { std::thread::available_parallelism().map_or(1, usize::from) };
    let share = values.len().div_ceil(len).div_ceil(threads).max(1);
    let all = |first: usize, values: &mut [V]| {
        values.chunks_mut(len).enumerate().for_each(|(part, values)| work(first + part, values));
    };
    if threads == 1 {
        return all(0, values);
    }
    std::thread::scope(|scope| {
        for (index, values) in values.chunks_mut(share * len).enumerate() {
            scope.spawn(move || all(index * share, values));
        }
    });
}

fn tile<T: Number>(sums: &mut [T], a: &[T], b: &[T]) {
    for (a, b) in a.chunks(BLOCK * ROWS).zip(b.chunks(BLOCK * COLUMNS)) {
        let mut block = [[T::default(); ROWS]; COLUMNS];
        for (a, b) in a.as_chunks::<ROWS>().0.iter().zip(b.as_chunks::<COLUMNS>().0) {
            for column in 0..COLUMNS {
                for row in 0..ROWS {
                    block[column][row] += a[row] * b[column];
                }
            }
        }
        for (sum, block) in sums.iter_mut().zip(block.as_flattened()) {
            *sum += *block;
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasGemmStridedBatchedEx(
    handle: *mut Handle,
    transa: i32,
    transb: i32,
    m: i32,
    n: i32,
    k: i32,
    alpha: *const c_void,
    a: u64,
    a_type: i32,
    lda: i32,
    stride_a: i64,
    b: u64,
    b_type: i32,
    ldb: i32,
    stride_b: i64,
    beta: *const c_void,
    c: u64,
    c_type: i32,
    ldc: i32,
    stride_c: i64,
    count: i32,
    compute: i32,
    algorithm: i32,
) -> i32 {
    Product {
        name: "cublasGemmStridedBatchedEx",
        operations: [transa, transb],
        sizes: [m, n, k],
        alpha,
        a: Matrices { at: a, kind: a_type, ld: lda, stride: stride_a },
        b: Matrices { at: b, kind: b_type, ld: ldb, stride: stride_b },
        beta,
        c: Matrices { at: c, kind: c_type, ld: ldc, stride: stride_c },
        count,
        compute,
        algorithm,
    }
    .run(handle)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasGemmEx(
    handle: *mut Handle,
    transa: i32,
    transb: i32,
    m: i32,
    n: i32,
    k: i32,
    alpha: *const c_void,
    a: u64,
    a_type: i32,
    lda: i32,
    b: u64,
    b_type: i32,
    ldb: i32,
    beta: *const c_void,
    c: u64,
    c_type: i32,
    ldc: i32,
    compute: i32,
    algorithm: i32,
) -> i32 {
    Product {
        name: "cublasGemmEx",
        operations: [transa, transb],
        sizes: [m, n, k],
        alpha,
        a: Matrices { at: a, kind: a_type, ld: lda, stride: 0 },
        b: Matrices { at: b, kind: b_type, ld: ldb, stride: 0 },
        beta,
        c: Matrices { at: c, kind: c_type, ld: ldc, stride: 0 },
        count: 1,
        compute,
        algorithm,
    }
    .run(handle)
}

/// The functions for one type of numbers: one product, and a run of them.
macro_rules! products_of {
    ($kind:expr, $compute:expr, $one:ident, $run:ident) => {
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $one(
            handle: *mut Handle,
            transa: i32,
            transb: i32,
            m: i32,
            n: i32,
            k: i32,
            alpha: *const c_void,
            a: u64,
            lda: i32,
            b: u64,
            ldb: i32,
            beta: *const c_void,
            c: u64,
            ldc: i32,
        ) -> i32 {
            Product {
                name: stringify!($one),
                operations: [transa, transb],
                sizes: [m, n, k],
                alpha,
                a: Matrices { at: a, kind: $kind, ld: lda, stride: 0 },
                b: Matrices { at: b, kind: $kind, ld: ldb, stride: 0 },
                beta,
                c: Matrices { at: c, kind: $kind, ld: ldc, stride: 0 },
                count: 1,
                compute: $compute,
                algorithm: ALGO_DEFAULT,
            }
            .run(handle)
        }

        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $run(
            handle: *mut Handle,
            transa: i32,
            transb: i32,
            m: i32,
            n: i32,
            k: i32,
            alpha: *const c_void,
            a: u64,
            lda: i32,
            stride_a: i64,
            b: u64,
            ldb: i32,
            stride_b: i64,
            beta: *const c_void,
            c: u64,
            ldc: i32,
            stride_c: i64,
            count: i32,
        ) -> i32 {
            Product {
                name: stringify!($run),
                operations: [transa, transb],
                sizes: [m, n, k],
                alpha,
                a: Matrices { at: a, kind: $kind, ld: lda, stride: stride_a },
                b: Matrices { at: b, kind: $kind, ld: ldb, stride: stride_b },
                beta,
                c: Matrices { at: c, kind: $kind, ld: ldc, stride: stride_c },
                count,
                compute: $compute,
                algorithm: ALGO_DEFAULT,
            }
            .run(handle)
        }
    };
}

products_of!(R_32F, COMPUTE_32F, cublasSgemm_v2, cublasSgemmStridedBatched);
products_of!(R_64F, COMPUTE_64F, cublasDgemm_v2, cublasDgemmStridedBatched);
