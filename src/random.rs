//! The one seeded generator of the program: xoshiro256++ seeded by SplitMix64.
//!
//! Its state is four words that can be saved, restored and split by key, so that a sample's
//! augmentation depends on (seed, epoch, sample) and not on which thread draws it.
//! Algorithms: Blackman & Vigna, "Scrambled linear pseudorandom number generators" (2019).

use serde::{Deserialize, Serialize};

/// Seeded generator. Only integer arithmetic and exact float operations: the same numbers on every machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Random {
    state: [u64; 4],
}

/// One step of SplitMix64: a bijective mix of `z`.
pub fn mix(z: u64) -> u64 {
    let z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Random {
    /// A generator whose whole sequence follows from `seed`.
    pub fn new(seed: u64) -> Self {
        let mut z = seed;
        let mut state = [0; 4];
        for word in &mut state {
            *word = mix(z);
            z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
        }
        Self { state }
    }

    /// A generator for one item (say a sample of an epoch): depends on all keys, not on draws made elsewhere.
    pub fn keyed(seed: u64, keys: &[u64]) -> Self {
        Self::new(keys.iter().fold(seed, |h, &k| mix(h ^ mix(k))))
    }

    /// The next 64 uniform bits.
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Uniform in `[0, 1)` with 24 random bits.
    pub fn unit(&mut self) -> f32 {
        (self.next_u64() >> 40) as f32 * (1.0 / 16_777_216.0)
    }

    /// Uniform in `[low, high)`; `low` when the range is empty.
    pub fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Uniform integer in `0..n`; 0 when `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next_u64()) * n as u128) >> 64) as usize
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f32) -> bool {
        self.unit() < p
    }

    /// Approximately normal with mean 0 and deviation 1 (sum of twelve uniforms: exact arithmetic, tails end at ±6).
    pub fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.unit()).sum::<f32>() - 6.0
    }

    /// Fisher–Yates shuffle in place.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }

    /// The state as words, for a checkpoint.
    pub fn state(&self) -> [u64; 4] {
        self.state
    }

    /// A generator that continues from a saved state.
    pub fn from_state(state: [u64; 4]) -> Self {
        Self { state }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyed_generators_repeat_and_differ() {
        let a: Vec<u64> = (0..4).map(|_| Random::keyed(1, &[2, 3]).next_u64()).collect();
        assert!(a.iter().all(|&x| x == a[0]));
        assert_ne!(a[0], Random::keyed(1, &[3, 2]).next_u64());
    }

    #[test]
    fn uniform_draws_stay_in_range_with_the_right_mean() {
        let mut rng = Random::new(7);
        let draws: Vec<f32> = (0..10_000).map(|_| rng.unit()).collect();
        assert!(draws.iter().all(|u| (0.0..1.0).contains(u)));
        // standard error of the mean is 0.0029
        assert!((draws.iter().sum::<f32>() / 10_000.0 - 0.5).abs() < 0.012);
        assert!((0..1000).all(|_| rng.below(3) < 3));
        assert_eq!(rng.below(0), 0);
    }

    #[test]
    fn a_restored_state_continues_the_sequence() {
        let mut rng = Random::new(9);
        rng.next_u64();
        let mut copy = Random::from_state(rng.state());
        assert_eq!(rng.next_u64(), copy.next_u64());
    }
}
