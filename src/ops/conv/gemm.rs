//! The tiles in which all multiplication happens: 8 rows × up to 48 columns of a product, summed in registers.
//!
//! With AVX-512 the 8×48 sums fill 24 of 32 registers; each step loads 3 vectors of B and broadcasts 8 numbers of A,
//! 24 fused multiply-adds for 11 loads. AVX2 has 16 registers and covers the tile by 4×24 blocks, plain Rust by 4×8.
//! Two forms: [`Kernel::tile`] multiplies packed weights `[depth][8]` by a panel of pixels; [`Kernel::outer`] sums
//! over pixels, its A read straight from eight image rows. Sums run along the depth in order, so a result depends
//! neither on the tile's place nor on who computes it.

use super::simd::{Lanes, Quad, unroll};
use super::spec::Activation;

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256, __m512};

/// Rows of a tile: output channels.
pub(super) const TILE_ROWS: usize = 8;
/// Columns of a tile: pixels.
pub(super) const TILE_COLUMNS: usize = 48;

/// What happens to a tile's sums on their way to memory.
pub(super) struct Epilogue {
    /// Add what the destination holds.
    pub accumulate: bool,
    /// After the last part of the depth.
    pub finish: Option<Finish>,
}

/// Bias of each row, then the activation.
pub(super) struct Finish {
    pub bias: [f32; TILE_ROWS],
    pub activation: Activation,
}

/// Overwrites the destination with the sums.
pub(super) const PLAIN: Epilogue = Epilogue { accumulate: false, finish: None };

/// `c[r][x] = Σ_k a[k][r] · b[k][x]` with r in 0..8 and x in 0..columns, then the epilogue.
#[derive(Clone, Copy)]
pub(super) struct Product<'a> {
    pub depth: usize,
    /// `[depth][8]`.
    pub a: *const f32,
    pub b: *const f32,
    /// Floats from one row of b to the next.
    pub b_stride: usize,
    /// 1..=48.
    pub columns: usize,
    pub c: *mut f32,
    /// Floats from one row of c to the next.
    pub c_stride: usize,
    pub epilogue: &'a Epilogue,
}

/// `c[r][x] += Σ over pixels of rows[r][pixel] · b[pixel][x]` with x in 0..width; rows of b and c are `width` apart.
/// The pixels are a rectangle of output positions, seen as steps in the input.
pub(super) struct Outer {
    pub rows: [*const f32; TILE_ROWS],
    /// (height, width) of the rectangle.
    pub pixels: (usize, usize),
    /// Floats in the input from one position to the next (below, to the right).
    pub steps: (usize, usize),
    pub b: *const f32,
    /// 16, 32 or 48.
    pub width: usize,
    pub c: *mut f32,
}

/// A vector type with its tiles.
pub(super) trait Kernel: Lanes {
    /// Tiles are computed in multiples of so many columns.
    const COLUMNS: usize;

    /// The product, its columns rounded up to `COLUMNS`.
    ///
    /// # Safety
    /// The CPU has the instructions, and the pointers have the floats that [`Product`] names, columns rounded up.
    unsafe fn tile(product: &Product<'_>);

    /// # Safety
    /// The CPU has the instructions, and the pointers have the floats that [`Outer`] names.
    unsafe fn outer(outer: &Outer);
}

/// [`Activation::apply`] on a vector.
///
/// # Safety
/// The CPU has `V`'s instructions.
#[inline(always)]
pub(super) unsafe fn activate<V: Lanes>(value: V, activation: Activation) -> V {
    // SAFETY: by the contract. `value` stands second so that NaN survives.
    unsafe {
        match activation {
            Activation::None => value,
            Activation::Relu => V::splat(0.0).larger(value),
            Activation::Leaky(slope) => {
                let zero = V::splat(0.0);
                zero.smaller(value).mul_add(V::splat(slope), zero.larger(value))
            }
        }
    }
}

/// ROWS × (VECTORS · LANES) of a product from (`row`, `column`) on.
///
/// # Safety
/// As for [`Kernel::tile`].
#[inline(always)]
unsafe fn block<V: Lanes, const ROWS: usize, const VECTORS: usize>(product: &Product<'_>, row: usize, column: usize) {
    // SAFETY: by the contract. Steps wrap since the last one may leave the buffers; nothing is read there.
    unsafe {
        let Product { depth, b_stride, c_stride, epilogue, .. } = *product;
        let zero = V::splat(0.0);
        let mut sums = [[zero; VECTORS]; ROWS];
        let mut a = product.a.wrapping_add(row);
        let mut b = product.b.wrapping_add(column);
        for _ in 0..depth {
            let mut pixels = [zero; VECTORS];
            unroll!(v < VECTORS, {
                pixels[v] = V::load(b.wrapping_add(v * V::LANES));
            });
            unroll!(r < ROWS, {
                let weight = V::splat(*a.wrapping_add(r));
                unroll!(v < VECTORS, {
                    sums[r][v] = pixels[v].mul_add(weight, sums[r][v]);
                });
            });
            a = a.wrapping_add(TILE_ROWS);
            b = b.wrapping_add(b_stride);
        }
        let c = product.c.wrapping_add(row * c_stride + column);
        if epilogue.accumulate {
            unroll!(r < ROWS, {
                unroll!(v < VECTORS, {
                    sums[r][v] = V::load(c.wrapping_add(r * c_stride + v * V::LANES)).plus(sums[r][v]);
                });
            });
        }
        if let Some(finish) = &epilogue.finish {
            unroll!(r < ROWS, {
                let bias = V::splat(finish.bias[row + r]);
                unroll!(v < VECTORS, {
                    sums[r][v] = activate(sums[r][v].plus(bias), finish.activation);
                });
            });
        }
        unroll!(r < ROWS, {
            unroll!(v < VECTORS, {
                sums[r][v].store(c.wrapping_add(r * c_stride + v * V::LANES));
            });
        });
    }
}

/// ROWS × (VECTORS · LANES) of an outer sum from (`row`, `column`) on.
///
/// # Safety
/// As for [`Kernel::outer`].
#[inline(always)]
unsafe fn outer_block<V: Lanes, const ROWS: usize, const VECTORS: usize>(outer: &Outer, row: usize, column: usize) {
    // SAFETY: by the contract. Steps wrap since the last one may leave the buffers; nothing is read there.
    unsafe {
        let width = outer.width;
        let zero = V::splat(0.0);
        let mut sums = [[zero; VECTORS]; ROWS];
        let mut rows = [std::ptr::null::<f32>(); ROWS];
        unroll!(r < ROWS, {
            rows[r] = outer.rows[row + r];
        });
        let mut b = outer.b.wrapping_add(column);
        for y in 0..outer.pixels.0 {
            let mut offset = y * outer.steps.0;
            for _ in 0..outer.pixels.1 {
                let mut columns = [zero; VECTORS];
                unroll!(v < VECTORS, {
                    columns[v] = V::load(b.wrapping_add(v * V::LANES));
                });
                unroll!(r < ROWS, {
                    let value = V::splat(*rows[r].wrapping_add(offset));
                    unroll!(v < VECTORS, {
                        sums[r][v] = columns[v].mul_add(value, sums[r][v]);
                    });
                });
                b = b.wrapping_add(width);
                offset += outer.steps.1;
            }
        }
        let c = outer.c.wrapping_add(row * width + column);
        unroll!(r < ROWS, {
            unroll!(v < VECTORS, {
                let place = c.wrapping_add(r * width + v * V::LANES);
                V::load(place).plus(sums[r][v]).store(place);
            });
        });
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[inline(never)]
unsafe fn tile_avx512(product: &Product<'_>) {
    // SAFETY: the contract of `Kernel::tile`.
    unsafe {
        match product.columns.div_ceil(16) {
            3 => block::<__m512, 8, 3>(product, 0, 0),
            2 => block::<__m512, 8, 2>(product, 0, 0),
            _ => block::<__m512, 8, 1>(product, 0, 0),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[inline(never)]
unsafe fn outer_avx512(outer: &Outer) {
    // SAFETY: the contract of `Kernel::outer`.
    unsafe {
        match outer.width / 16 {
            3 => outer_block::<__m512, 8, 3>(outer, 0, 0),
            2 => outer_block::<__m512, 8, 2>(outer, 0, 0),
            _ => outer_block::<__m512, 8, 1>(outer, 0, 0),
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Kernel for __m512 {
    const COLUMNS: usize = 16;

    #[inline(always)]
    unsafe fn tile(product: &Product<'_>) {
        // SAFETY: passed on.
        unsafe { tile_avx512(product) }
    }
    #[inline(always)]
    unsafe fn outer(outer: &Outer) {
        // SAFETY: passed on.
        unsafe { outer_avx512(outer) }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[inline(never)]
unsafe fn tile_avx2(product: &Product<'_>) {
    for column in (0..product.columns).step_by(24) {
        for row in [0, 4] {
            // SAFETY: the contract of `Kernel::tile`.
            unsafe { block::<__m256, 4, 3>(product, row, column) }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[inline(never)]
unsafe fn outer_avx2(outer: &Outer) {
    for column in (0..outer.width).step_by(16) {
        for row in [0, 4] {
            // SAFETY: the contract of `Kernel::outer`.
            unsafe { outer_block::<__m256, 4, 2>(outer, row, column) }
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Kernel for __m256 {
    const COLUMNS: usize = 24;

    #[inline(always)]
    unsafe fn tile(product: &Product<'_>) {
        // SAFETY: passed on.
        unsafe { tile_avx2(product) }
    }
    #[inline(always)]
    unsafe fn outer(outer: &Outer) {
        // SAFETY: passed on.
        unsafe { outer_avx2(outer) }
    }
}

impl Kernel for Quad {
    const COLUMNS: usize = 8;

    #[inline(never)]
    unsafe fn tile(product: &Product<'_>) {
        for column in (0..product.columns).step_by(8) {
            for row in [0, 4] {
                // SAFETY: passed on.
                unsafe { block::<Quad, 4, 2>(product, row, column) }
            }
        }
    }
    #[inline(never)]
    unsafe fn outer(outer: &Outer) {
        for column in (0..outer.width).step_by(8) {
            for row in [0, 4] {
                // SAFETY: passed on.
                unsafe { outer_block::<Quad, 4, 2>(outer, row, column) }
            }
        }
    }
}

/// [`Kernel::tile`] of which only `rows` × `columns` exist in the destination: a whole tile goes there directly, the
/// part at an edge by way of the stack.
///
/// # Safety
/// As for `tile`, but c has only the floats of `rows` × `columns`.
#[inline(always)]
pub(super) unsafe fn tile_into<V: Kernel>(product: &Product<'_>, rows: usize) {
    // SAFETY: by the contract.
    unsafe {
        if rows == TILE_ROWS && product.columns.is_multiple_of(V::COLUMNS) {
            V::tile(product);
            return;
        }
        let mut part = [0.0_f32; TILE_ROWS * TILE_COLUMNS];
        V::tile(&Product { c: part.as_mut_ptr(), c_stride: TILE_COLUMNS, epilogue: &PLAIN, ..*product });
        for r in 0..rows {
            let values = &mut part[r * TILE_COLUMNS..][..product.columns];
            let place = product.c.add(r * product.c_stride);
            if product.epilogue.accumulate {
                for (x, value) in values.iter_mut().enumerate() {
                    *value += *place.add(x);
                }
            }
            if let Some(finish) = &product.epilogue.finish {
                for value in values.iter_mut() {
                    *value = finish.activation.apply(*value + finish.bias[r]);
                }
            }
            place.copy_from_nonoverlapping(values.as_ptr(), values.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::{Simd, dispatch};
    use super::*;
    use crate::random::Random;

    fn numbers(random: &mut Random, count: usize) -> Vec<f32> {
        (0..count).map(|_| random.range(-1.0, 1.0)).collect()
    }

    #[inline(always)]
    unsafe fn one_tile<V: Kernel>(product: &Product<'_>, rows: usize) {
        // SAFETY: the test's buffers have the sizes it names.
        unsafe { tile_into::<V>(product, rows) }
    }

    /// Every width and some heights, with and without epilogue; what lies outside stays untouched.
    #[test]
    fn tiles_of_all_sizes_match_plain_sums() {
        let (depth, stride) = (7, 50);
        let mut random = Random::new(1);
        let (a, b) = (numbers(&mut random, depth * 8), numbers(&mut random, depth * 48));
        let bias = numbers(&mut random, 8);
        let before = numbers(&mut random, 8 * stride);
        let mut failures: Vec<String> = Vec::new();
        let mut check = |simd: Simd, rows: usize, columns: usize, activation: Option<Activation>| {
            let epilogue = Epilogue {
                accumulate: activation.is_some(),
                finish: activation.map(|activation| Finish { bias: std::array::from_fn(|r| bias[r]), activation }),
            };
            let mut c = before.clone();
            let product = Product {
                depth,
                a: a.as_ptr(),
                b: b.as_ptr(),
                b_stride: TILE_COLUMNS,
                columns,
                c: c.as_mut_ptr(),
                c_stride: stride,
                epilogue: &epilogue,
            };
            // SAFETY: a is [7][8], b is [7][48], c is [8][50].
            unsafe { dispatch!(simd, one_tile(product: &Product<'_> = &product, rows: usize = rows)) };
            for (index, &value) in c.iter().enumerate() {
                let (r, x) = (index / stride, index % stride);
                let mut expected = before[index];
                if r < rows && x < columns {
                    let sum: f64 = (0..depth).map(|k| f64::from(a[k * 8 + r]) * f64::from(b[k * 48 + x])).sum();
                    expected = match activation {
                        None => sum as f32,
                        Some(activation) => activation.apply(sum as f32 + before[index] + bias[r]),
                    };
                }
                // 7 products below 1 in f32: a few units in the last place of a number below 9.
                if (value - expected).abs() > 4e-6 {
                    failures.push(format!("{simd:?} {rows}x{columns} {activation:?} at {r},{x}"));
                }
            }
        };
        for simd in Simd::available() {
            for rows in [1, 5, 8] {
                for columns in 1..=48 {
                    for activation in [None, Some(Activation::None), Some(Activation::Leaky(0.1))] {
                        check(simd, rows, columns, activation);
                    }
                }
            }
        }
        assert!(failures.is_empty(), "{} wrong, first {:?}", failures.len(), failures.first());
    }

    #[inline(always)]
    unsafe fn one_outer<V: Kernel>(outer: &Outer) {
        // SAFETY: the test's buffers have the sizes it names.
        unsafe { V::outer(outer) }
    }

    #[test]
    fn outer_sums_match_plain_sums() {
        let mut random = Random::new(2);
        let image = numbers(&mut random, 400);
        let (height, across, pitch, step) = (3, 5, 23, 2);
        let starts: [usize; 8] = std::array::from_fn(|r| r * 40 + r % 3);
        for simd in Simd::available() {
            for width in [16, 32, 48] {
                let b = numbers(&mut random, height * across * width);
                let mut c = vec![1.0_f32; 8 * width];
                let outer = Outer {
                    rows: std::array::from_fn(|r| image[starts[r]..].as_ptr()),
                    pixels: (height, across),
                    steps: (pitch * step, step),
                    b: b.as_ptr(),
                    width,
                    c: c.as_mut_ptr(),
                };
                // SAFETY: the last float read of the image is 7 · 40 + 1 + 2 · 46 + 4 · 2 < 400.
                unsafe { dispatch!(simd, one_outer(outer: &Outer = &outer)) };
                for r in 0..8 {
                    for x in 0..width {
                        let mut sum = 1.0_f64;
                        for p in 0..height * across {
                            let at = starts[r] + p / across * pitch * step + p % across * step;
                            sum += f64::from(image[at]) * f64::from(b[p * width + x]);
                        }
                        assert!((f64::from(c[r * width + x]) - sum).abs() < 1e-5, "{simd:?} {width} {r} {x}");
                    }
                }
            }
        }
    }
}
