//! The logistic curve and the exponential and logarithm that it and its entropy are made of.
//!
//! Additions, multiplications and divisions alone, without a branch: loops over them become vectors, and every
//! instruction set gives the same bits.

use std::f32::consts::LOG2_E;

/// e^−a for a ≥ 0, subnormal results included: about one unit in the last place from the true value.
///
/// With n the integer nearest to a / ln 2 it is 2^−n · e^r, |r| ≤ ln 2 / 2; e^r is its Taylor polynomial of degree 7.
#[inline(always)]
pub(super) fn exp_minus(a: f32) -> f32 {
    /// ln 2 in two parts, the first of 9 bits, so that n times it is exact.
    const LN_2_HIGH: f32 = 355.0 / 512.0;
    const LN_2_LOW: f32 = (std::f64::consts::LN_2 - 355.0 / 512.0) as f32;
    /// 1.5 · 2^23: a sum with it has the nearest integer in its lowest bits.
    const SHIFT: f32 = 12_582_912.0;
    // From 104 on the result rounds to 0. Written so that NaN passes through.
    let a = if a > 104.0 { 104.0 } else { a };
    let shifted = a * LOG2_E + SHIFT;
    let n = shifted - SHIFT;
    let r = (n * LN_2_HIGH - a) + n * LN_2_LOW;
    let tail = 1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0));
    let tail = 1.0 / 2.0 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * tail));
    let power = 1.0 + (r + r * r * tail);
    // Two factors, for 2^−n may be too small for f32.
    let n = shifted.to_bits().wrapping_sub(SHIFT.to_bits());
    power * two_to_minus(n / 2) * two_to_minus(n - n / 2)
}

/// 2^−n for n up to 126.
#[inline(always)]
fn two_to_minus(n: u32) -> f32 {
    f32::from_bits(127_u32.wrapping_sub(n) << 23)
}

/// ln(1 + e) for e in `[0, 1]`, within 2 units in the last place, tiny e included.
///
/// It is 2 artanh(s) = 2s + s · (2s²/3 + 2s⁴/5 + …) for s = e / (2 + e), where 2s = e − s·e.
#[inline(always)]
pub(super) fn ln_1p(e: f32) -> f32 {
    let s = e / (2.0 + e);
    let z = s * s;
    let tail = 2.0 / 9.0 + z * (2.0 / 11.0 + z * (2.0 / 13.0));
    let tail = z * (2.0 / 3.0 + z * (2.0 / 5.0 + z * (2.0 / 7.0 + z * tail)));
    e - s * (e - tail)
}

/// `1 / (1 + e^−x)` of one number, without overflow.
#[inline(always)]
pub(super) fn sigmoid_of(x: f32) -> f32 {
    let e = exp_minus(x.abs());
    (if x >= 0.0 { 1.0 } else { e }) / (1.0 + e)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// The largest distance from `exact`, in units in the last place of f32, and where it is.
    fn worst(points: &[f32], found: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64) -> (f64, f32) {
        let error = |&x: &f32| {
            let exact = exact(f64::from(x));
            let near = (exact as f32).abs();
            let unit = f64::from(f32::from_bits(near.to_bits() + 1)) - f64::from(near);
            let error = (f64::from(found(x)) - exact).abs() / unit;
            (if error.is_nan() { f64::INFINITY } else { error }, x)
        };
        points.iter().map(error).fold((0.0, 0.0), |most, next| if next.0 > most.0 { next } else { most })
    }

    /// Numbers of `low..high`, every power of 2 below 1, and 0.
    fn points(low: f32, high: f32) -> Vec<f32> {
        let mut random = Random::new(1);
        let within: Vec<f32> = (0..200_000).map(|_| random.range(low, high)).collect();
        within.into_iter().chain((-149..0).map(|power| 2.0_f64.powi(power) as f32)).chain([0.0]).collect()
    }

    #[test]
    fn exponentials_are_within_units_of_the_true_ones() {
        for high in [1.0, 110.0] {
            let (error, at) = worst(&points(0.0, high), exp_minus, |a| (-a).exp());
            assert!(error <= 1.5, "{error} at {at}");
        }
        assert_eq!([0.0, 104.0, 1e30, f32::INFINITY].map(exp_minus), [1.0, 0.0, 0.0, 0.0]);
        assert!(exp_minus(f32::NAN).is_nan());
    }

    #[test]
    fn logarithms_are_within_units_of_the_true_ones() {
        let (error, at) = worst(&points(0.0, 1.0), ln_1p, f64::ln_1p);
        assert!(error <= 2.0, "{error} at {at}");
        assert_eq!(ln_1p(0.0).to_bits(), 0);
        assert!(ln_1p(f32::NAN).is_nan());
    }

    #[test]
    fn sigmoids_are_within_units_of_the_true_ones() {
        let exact = |x: f64| if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) };
        let mut points: Vec<f32> = points(-200.0, 200.0).into_iter().chain(points(-20.0, 20.0)).collect();
        points.extend([-1e-30, -1e30, 1e30]);
        let (error, at) = worst(&points, sigmoid_of, exact);
        assert!(error <= 2.5, "{error} at {at}");
        assert_eq!([f32::NEG_INFINITY, -0.0, f32::INFINITY].map(sigmoid_of), [0.0, 0.5, 1.0]);
        assert!(sigmoid_of(f32::NAN).is_nan());
    }
}
