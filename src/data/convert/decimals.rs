//! Coordinates as short decimals that read back as the same `f32`.

/// The shortest decimal of `value`, as `f64`: 0.1 and not 0.10000000149011612.
pub(super) fn decimal(value: f32) -> f64 {
    let short = value.to_string().parse::<f64>().unwrap_or_else(|_| f64::from(value));
    if short as f32 == value { short } else { f64::from(value) }
}

/// A width that leads from the left edge `low`, written by [`decimal`], back to exactly `high`, as short as can be.
pub(super) fn extent(low: f32, high: f32) -> f64 {
    let (start, exact) = (decimal(low), decimal(high) - decimal(low));
    let mut rounded = (0..10).map(|digits| {
        let scale = 10f64.powi(digits);
        (exact * scale).round() / scale
    });
    let returns = |width: &f64| *width > 0.0 && (start + width) as f32 == high;
    rounded.find(returns).unwrap_or(exact)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn decimals_are_short_and_lead_back() {
        assert_eq!([decimal(0.1), decimal(10.25), decimal(-3.0)], [0.1, 10.25, -3.0]);
        assert_eq!([extent(10.1, 15.4), extent(0.0, 7.0), extent(1.0, 1.5)], [5.3, 7.0, 0.5]);
        let mut random = Random::new(5);
        for size in [1.0f32, 100.0, 5000.0, 32_768.0] {
            for _ in 0..500 {
                let low = random.range(-size, size);
                let high = low + random.range(1e-3, size);
                if high > low {
                    assert_eq!(decimal(low) as f32, low);
                    assert_eq!((decimal(low) + extent(low, high)) as f32, high, "{low} {high}");
                    // the borders of other formats: VOC counts from 1, others divide by the side
                    assert_eq!((decimal(high) + 1.0 - 1.0) as f32, high);
                    assert_eq!((decimal(high) / 641.0 * 641.0) as f32, high);
                }
            }
        }
    }
}
