//! Summaries of many numbers: histogram, quantile, moving average, and a min/max pyramid for long curves.

/// Arithmetic mean, summed in f64; `None` without values. A NaN shows in the result.
pub fn mean(values: &[f32]) -> Option<f32> {
    if values.is_empty() {
        return None;
    }
    let sum: f64 = values.iter().map(|&v| f64::from(v)).sum();
    Some((sum / values.len() as f64) as f32)
}

/// The `q`-quantile with linear interpolation between ranks (numpy's default), NaN left out; `None` without numbers.
/// `q` is clamped to `[0, 1]`. Reorders `values`.
pub fn quantile(values: &mut [f32], q: f32) -> Option<f32> {
    let mut numbers = 0;
    for i in 0..values.len() {
        if !values[i].is_nan() {
            values.swap(numbers, i);
            numbers += 1;
        }
    }
    let values = &mut values[..numbers];
    if values.is_empty() {
        return None;
    }
    let rank = f64::from(q).clamp(0.0, 1.0) * (numbers - 1) as f64;
    let lower = rank as usize;
    let (_, at, above) = values.select_nth_unstable_by(lower, |a, b| a.total_cmp(b));
    let at = f64::from(*at);
    let next = above.iter().map(|&v| f64::from(v)).min_by(|a, b| a.total_cmp(b)).unwrap_or(at);
    let fraction = rank - lower as f64;
    // equal ends, also infinite ones, need no interpolation
    let value = if fraction > 0.0 && next != at { at + (next - at) * fraction } else { at };
    Some(value as f32)
}

/// The middle value, NaN left out; `None` without numbers. Reorders `values`.
pub fn median(values: &mut [f32]) -> Option<f32> {
    quantile(values, 0.5)
}

/// Counts over equal bins of a fixed range.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    low: f32,
    high: f32,
    counts: Vec<u64>,
    /// Values under the range.
    pub below: u64,
    /// Values over the range.
    pub above: u64,
    /// NaN values, counted nowhere else.
    pub nan: u64,
}

impl Histogram {
    /// Empty counts over `[low, high]`; at least one bin.
    pub fn new(low: f32, high: f32, bins: usize) -> Self {
        Self { low, high, counts: vec![0; bins.max(1)], below: 0, above: 0, nan: 0 }
    }

    pub fn range(&self) -> (f32, f32) {
        (self.low, self.high)
    }

    /// How many values fell into each bin.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Counts one value; `high` itself falls into the last bin.
    pub fn add(&mut self, value: f32) {
        if value.is_nan() {
            self.nan += 1;
        } else if value < self.low {
            self.below += 1;
        } else if value > self.high {
            self.above += 1;
        } else {
            let bins = self.counts.len();
            // an empty range gives NaN, which casts to the first bin
            let bin = ((value - self.low) / (self.high - self.low) * bins as f32) as usize;
            if let Some(count) = self.counts.get_mut(bin.min(bins - 1)) {
                *count += 1;
            }
        }
    }

    pub fn add_all(&mut self, values: &[f32]) {
        for &value in values {
            self.add(value);
        }
    }

    /// Lower and upper edge of a bin.
    pub fn edges(&self, bin: usize) -> (f32, f32) {
        let width = (self.high - self.low) / self.counts.len() as f32;
        (self.low + bin as f32 * width, self.low + (bin + 1) as f32 * width)
    }

    /// Numbers counted, those outside the range included, NaN not.
    pub fn total(&self) -> u64 {
        self.below + self.above + self.counts.iter().sum::<u64>()
    }

    /// The `q`-quantile, taking the values of a bin as spread evenly over it and those outside as on the border.
    /// `None` without numbers.
    pub fn quantile(&self, q: f32) -> Option<f32> {
        let total = self.total();
        if total == 0 {
            return None;
        }
        let wanted = f64::from(q).clamp(0.0, 1.0) * total as f64;
        let mut passed = self.below as f64;
        if self.below > 0 && wanted <= passed {
            return Some(self.low);
        }
        for (bin, &count) in self.counts.iter().enumerate() {
            let count = count as f64;
            if count > 0.0 && wanted <= passed + count {
                let (left, right) = self.edges(bin);
                return Some(left + (right - left) * ((wanted - passed) / count) as f32);
            }
            passed += count;
        }
        Some(self.high)
    }
}

/// Exponential moving average without the pull of its start: the weights of all values so far add up to 1
/// (Kingma & Ba, "Adam", 2015, §3).
#[derive(Clone, Debug, PartialEq)]
pub struct MovingAverage {
    decay: f64,
    sum: f64,
    weight: f64,
}

impl MovingAverage {
    /// `decay` in `[0, 1)` is the weight of the past: 0.9 averages over about ten values.
    pub fn new(decay: f32) -> Self {
        let decay = if decay.is_nan() { 0.0 } else { f64::from(decay).clamp(0.0, 1.0 - 1e-9) };
        Self { decay, sum: 0.0, weight: 0.0 }
    }

    /// Takes one value in and gives the average so far, NaN while there is none. A value that is not finite is left
    /// out, so that the curve goes on after it.
    pub fn add(&mut self, value: f32) -> f32 {
        if value.is_finite() {
            self.sum = self.decay * self.sum + (1.0 - self.decay) * f64::from(value);
            self.weight = self.decay * self.weight + (1.0 - self.decay);
        }
        self.value().unwrap_or(f32::NAN)
    }

    /// The average so far; `None` before the first value.
    pub fn value(&self) -> Option<f32> {
        (self.weight > 0.0).then(|| (self.sum / self.weight) as f32)
    }
}

/// A curve that only grows, with the lowest and highest value of every aligned block of 2, 4, 8, … points, so that any
/// stretch of it can be drawn with a few pairs per pixel column. NaN leaves a gap.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MinMaxPyramid {
    values: Vec<f32>,
    /// Level k has the complete blocks of 2^(k + 1) points.
    levels: Vec<Vec<(f32, f32)>>,
}

/// Lowest and highest of nothing: lowest above highest.
const NOTHING: (f32, f32) = (f32::INFINITY, f32::NEG_INFINITY);

fn join(a: (f32, f32), b: (f32, f32)) -> (f32, f32) {
    (a.0.min(b.0), a.1.max(b.1))
}

impl MinMaxPyramid {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The points themselves.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Appends a point; constant time on average.
    pub fn push(&mut self, value: f32) {
        self.values.push(value);
        // entries of the level under `level`
        let mut entries = self.values.len();
        let mut level = 0;
        while entries.is_multiple_of(2) {
            let block = join(self.block(level, entries - 2), self.block(level, entries - 1));
            match self.levels.get_mut(level) {
                Some(blocks) => blocks.push(block),
                None => self.levels.push(vec![block]),
            }
            entries /= 2;
            level += 1;
        }
    }

    /// Lowest and highest of the `index`-th complete block of 2^`size` points.
    fn block(&self, size: usize, index: usize) -> (f32, f32) {
        if size == 0 {
            let value = self.values[index];
            return if value.is_nan() { NOTHING } else { (value, value) };
        }
        self.levels[size - 1][index]
    }

    /// Lowest and highest of points `first..last`, NaN left out; `None` when there is no number among them.
    pub fn min_max(&self, first: usize, last: usize) -> Option<(f32, f32)> {
        let last = last.min(self.len());
        let (mut at, mut found) = (first, NOTHING);
        while at < last {
            // the largest aligned block that starts here and fits
            let mut size = 0;
            while at.is_multiple_of(2 << size) && at + (2 << size) <= last {
                size += 1;
            }
            found = join(found, self.block(size, at >> size));
            at += 1 << size;
        }
        (found.0 <= found.1).then_some(found)
    }

    /// Points `first..last` as at most `buckets` triples (x, min, max): x is the middle of a bucket, counted in
    /// points from the curve's start. Buckets are aligned blocks of a power of two, so they keep still while the
    /// curve grows or the view moves; a bucket of NaN alone is a gap, whose both values are NaN.
    pub fn query(&self, first: usize, last: usize, buckets: usize) -> Vec<(f32, f32, f32)> {
        let last = last.min(self.len());
        if first >= last || buckets == 0 {
            return Vec::new();
        }
        let mut size = 0;
        while ((last - 1) >> size) - (first >> size) >= buckets {
            size += 1;
        }
        let blocks = (first >> size)..=((last - 1) >> size);
        let bucket = |block: usize| {
            let (start, end) = ((block << size).max(first), ((block + 1) << size).min(last));
            let middle = (start + end - 1) as f64 / 2.0;
            let (min, max) = self.min_max(start, end).unwrap_or((f32::NAN, f32::NAN));
            (middle as f32, min, max)
        };
        blocks.map(bucket).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn quantiles_as_numpy_gives_them() {
        // numpy.quantile([3, 1, 4, 1, 5, 9, 2, 6], q)
        let values = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0];
        for (q, expected) in [(0.0, 1.0), (0.25, 1.75), (0.5, 3.5), (0.9, 6.9), (1.0, 9.0), (7.0, 9.0), (-1.0, 1.0)] {
            let found = quantile(&mut values.to_vec(), q).unwrap();
            assert!((found - expected).abs() < 1e-5, "{q}: {found}");
        }
        assert_eq!(median(&mut [f32::NAN, 2.0, f32::NAN, 1.0]), Some(1.5));
        assert_eq!(median(&mut [f32::INFINITY; 2]), Some(f32::INFINITY));
        assert_eq!(quantile(&mut [1.0, 2.0], f32::NAN).map(|v| v.is_nan()), Some(false));
        assert_eq!((median(&mut []), median(&mut [f32::NAN]), mean(&[])), (None, None, None));
        assert_eq!(mean(&[1.0, 2.0, 6.0]), Some(3.0));
    }

    #[test]
    fn histogram_counts_and_borders() {
        let mut h = Histogram::new(0.0, 1.0, 4);
        h.add_all(&[0.0, 0.2, 0.25, 0.5, 0.99, 1.0, -0.1, 1.5, f32::NAN, f32::INFINITY]);
        assert_eq!(h.counts(), [2, 1, 1, 2]);
        assert_eq!((h.below, h.above, h.nan, h.total()), (1, 2, 1, 9));
        assert_eq!(h.edges(2), (0.5, 0.75));
        let mut empty_range = Histogram::new(2.0, 2.0, 3);
        empty_range.add(2.0);
        assert_eq!(empty_range.counts(), [1, 0, 0]);
    }

    #[test]
    fn histogram_quantiles_are_within_a_bin() {
        let mut h = Histogram::new(0.0, 10.0, 50);
        let mut rng = Random::new(4);
        let mut values: Vec<f32> = (0..2000).map(|_| rng.range(0.0, 3.0) * rng.range(0.0, 3.0)).collect();
        h.add_all(&values);
        for q in [0.0, 0.1, 0.5, 0.77, 1.0] {
            let (rough, exact) = (h.quantile(q).unwrap(), quantile(&mut values, q).unwrap());
            assert!((rough - exact).abs() <= 0.2, "{q}: {rough} {exact}");
        }
        assert_eq!(Histogram::new(0.0, 1.0, 4).quantile(0.5), None);
        let mut outside = Histogram::new(0.0, 1.0, 4);
        outside.add_all(&[-5.0, 7.0, 8.0]);
        assert_eq!((outside.quantile(0.2), outside.quantile(0.9)), (Some(0.0), Some(1.0)));
    }

    #[test]
    fn the_average_is_not_pulled_to_zero() {
        let mut average = MovingAverage::new(0.9);
        assert!(average.value().is_none() && average.add(f32::INFINITY).is_nan());
        assert_eq!(average.add(4.0), 4.0);
        assert_eq!(average.add(f32::NAN), 4.0);
        average.add(2.0);
        // weights 0.09 and 0.1 of 0.19
        let expected = (0.09 * 4.0 + 0.1 * 2.0) / 0.19;
        assert!((average.value().unwrap() - expected).abs() < 1e-6);
        let mut last = MovingAverage::new(0.0);
        last.add(1.0);
        last.add(7.0);
        assert_eq!(last.value(), Some(7.0));
    }

    #[test]
    fn the_pyramid_agrees_with_the_points() {
        let mut rng = Random::new(5);
        let mut curve = MinMaxPyramid::new();
        assert!(curve.is_empty() && curve.query(0, 10, 4).is_empty());
        for i in 0..777 {
            curve.push(if i % 50 == 3 || (400..420).contains(&i) { f32::NAN } else { rng.range(-5.0, 5.0) });
        }
        let naive = |first: usize, last: usize| {
            let numbers = curve.values()[first..last.min(777)].iter().filter(|v| !v.is_nan());
            numbers.fold(None, |found: Option<(f32, f32)>, &v| {
                Some(found.map_or((v, v), |(low, high)| (low.min(v), high.max(v))))
            })
        };
        for (first, last) in [(0, 777), (0, 1), (3, 4), (5, 600), (401, 419), (128, 256), (776, 9999)] {
            assert_eq!(curve.min_max(first, last), naive(first, last), "{first}..{last}");
            for buckets in [1, 2, 3, 10, 64, 1000] {
                let found = curve.query(first, last, buckets);
                assert!(found.len() <= buckets);
                // all points are covered: the extremes over the buckets are those of the stretch
                let hull = found.iter().fold(NOTHING, |hull, &(_, min, max)| join(hull, (min, max)));
                assert_eq!((hull.0 <= hull.1).then_some(hull), naive(first, last));
                assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0));
            }
        }
        // with room for every point each comes out as it is
        let points = curve.query(10, 14, 4);
        let expected: Vec<(f32, f32, f32)> =
            (10..14).map(|i| (i as f32, curve.values()[i], curve.values()[i])).collect();
        assert_eq!(points, expected);
        assert!(curve.query(5, 5, 3).is_empty() && curve.query(0, 5, 0).is_empty());
        assert_eq!(curve.min_max(401, 419), None);
        let gap = curve.query(399, 403, 4);
        assert_eq!(gap.iter().map(|&(x, ..)| x).collect::<Vec<f32>>(), [399.0, 400.0, 401.0, 402.0]);
        assert!(gap[0].1.is_finite() && gap[1..].iter().all(|(_, min, max)| min.is_nan() && max.is_nan()));
    }

    #[test]
    fn buckets_stay_where_they_are_while_the_curve_grows() {
        let mut curve = MinMaxPyramid::new();
        (0..1000).for_each(|i| curve.push((i * 37 % 101) as f32));
        let before = curve.query(0, 1000, 64);
        (0..20).for_each(|i| curve.push(i as f32));
        let after = curve.query(0, 1020, 64);
        assert_eq!(before[..before.len() - 1], after[..before.len() - 1]);
    }
}
