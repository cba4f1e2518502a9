//! How fast the inner loop of a convolution runs alone: the ceiling that layers are compared with.

use super::gemm::{Kernel, PLAIN, Product, TILE_COLUMNS, TILE_ROWS};
use super::scratch::Aligned;
use super::simd::{Simd, dispatch};
use std::time::{Duration, Instant};

/// A packed weight matrix times one panel of pixels, as the convolution's inner loop does it.
///
/// # Safety
/// The CPU has `V`'s instructions; a is `[n][depth][8]`, b `[depth][48]`, c `[n][8][48]`.
#[inline(always)]
unsafe fn sweep<V: Kernel>(depth: usize, a: &[f32], b: &[f32], c: &mut [f32]) {
    for (rows, sums) in a.chunks_exact(depth * TILE_ROWS).zip(c.chunks_exact_mut(TILE_ROWS * TILE_COLUMNS)) {
        let product = Product {
            depth,
            a: rows.as_ptr(),
            b: b.as_ptr(),
            b_stride: TILE_COLUMNS,
            columns: TILE_COLUMNS,
            c: sums.as_mut_ptr(),
            c_stride: TILE_COLUMNS,
            epilogue: &PLAIN,
        };
        // SAFETY: by the contract.
        unsafe { V::tile(&product) }
    }
}

/// Operations per second of one thread, measured for about `time`.
fn rate(simd: Simd, time: Duration) -> f64 {
    const DEPTH: usize = 192;
    const ROWS: usize = 256;
    let mut a = Aligned::zeroed(ROWS * DEPTH);
    let mut b = Aligned::zeroed(DEPTH * TILE_COLUMNS);
    let mut c = Aligned::zeroed(ROWS * TILE_COLUMNS);
    a.as_mut_slice().fill(0.5);
    b.as_mut_slice().fill(0.25);
    let start = Instant::now();
    let mut operations = 0.0;
    while start.elapsed() < time {
        let (a, b, c) = (a.as_slice(), b.as_slice(), c.as_mut_slice());
        // SAFETY: slices of the sizes that `sweep` names.
        unsafe { dispatch!(simd, sweep(depth: usize = DEPTH, a: &[f32] = a, b: &[f32] = b, c: &mut [f32] = c)) };
        operations += 2.0 * (ROWS * DEPTH * TILE_COLUMNS) as f64;
    }
    std::hint::black_box(c.as_slice());
    operations / start.elapsed().as_secs_f64()
}

/// The rate the kernels' tiles reach from cache, in GFLOP/s (a multiply-add counts as two), over about 0.2 s on
/// `threads` threads (0 = as many as rayon's current pool has).
pub fn peak_gflops(threads: usize) -> f64 {
    let simd = Simd::current();
    let count = if threads == 0 { rayon::current_num_threads() } else { threads };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..count)
            .filter_map(|index| {
                let builder = std::thread::Builder::new().name(format!("peak-{index}"));
                builder.spawn_scoped(scope, move || rate(simd, Duration::from_millis(200))).ok()
            })
            .collect();
        running.into_iter().filter_map(|thread| thread.join().ok()).sum::<f64>() / 1e9
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_a_rate() {
        let rate = peak_gflops(1);
        assert!(rate.is_finite() && rate > 0.01, "{rate}");
    }
}
