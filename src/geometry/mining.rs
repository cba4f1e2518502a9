//! Hard-negative mining: of the negatives of one image, those with the highest loss.

use super::nms::falling_key;

/// Indices of the `ratio` · positives hardest negatives, hardest first, at most `cap`; the lower index first on ties.
///
/// A NaN loss counts as the hardest, so that it enters the loss and is noticed. An anchor that may not be taken
/// (ignored, or dropped by an earlier stage) has loss −∞. An image without positives gives no negatives (SSD §2.2).
pub fn hard_negatives(loss: &[f32], is_positive: &[bool], ratio: f32, cap: Option<usize>) -> Vec<u32> {
    let positives = is_positive.iter().filter(|&&p| p).count();
    hardest(loss, is_positive, wanted(positives, ratio, cap))
}

/// How many negatives go with `positives`: `ratio` for each, at most `cap`.
pub fn wanted(positives: usize, ratio: f32, cap: Option<usize>) -> usize {
    // a negative or NaN ratio casts to 0
    ((f64::from(ratio) * positives as f64) as usize).min(cap.unwrap_or(usize::MAX))
}

/// Indices of the `wanted` hardest negatives in the order of [`hard_negatives`].
pub fn hardest(loss: &[f32], is_positive: &[bool], wanted: usize) -> Vec<u32> {
    if wanted == 0 {
        return Vec::new();
    }
    let negatives = loss.iter().zip(is_positive).enumerate();
    let negatives = negatives.filter(|&(_, (&loss, &positive))| !positive && loss != f32::NEG_INFINITY);
    // one number per negative: the loss falls with its upper half, the index breaks ties in its lower half
    let mut keys: Vec<u64> = negatives
        .map(|(index, (&loss, _))| {
            let key = if loss.is_nan() { 0 } else { falling_key(loss) };
            (u64::from(key) << 32) | index as u64
        })
        .collect();
    if wanted < keys.len() {
        keys.select_nth_unstable(wanted);
        keys.truncate(wanted);
    }
    keys.sort_unstable();
    keys.into_iter().map(|key| key as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn three_hardest_for_each_positive() {
        let loss = [0.5, 9.0, 0.1, 0.7, 0.7, 0.2, 0.9];
        let positive = [false, true, false, false, false, false, false];
        assert_eq!(hard_negatives(&loss, &positive, 3.0, None), [6, 3, 4]);
        assert_eq!(hard_negatives(&loss, &positive, 3.0, Some(2)), [6, 3]);
        assert_eq!(hard_negatives(&loss, &positive, 30.0, None), [6, 3, 4, 0, 5, 2]);
        assert_eq!(hard_negatives(&loss, &positive, 1.9, None), [6]);
        for ratio in [0.0, -1.0, f32::NAN] {
            assert!(hard_negatives(&loss, &positive, ratio, None).is_empty());
        }
    }

    #[test]
    fn no_positive_no_negative() {
        assert!(hard_negatives(&[1.0, 2.0], &[false, false], 3.0, None).is_empty());
        assert!(hard_negatives(&[], &[], 3.0, None).is_empty());
        assert!(hard_negatives(&[1.0], &[true], 3.0, None).is_empty());
    }

    #[test]
    fn nan_comes_first_and_minus_infinity_never() {
        let loss = [f32::NEG_INFINITY, 1.0, f32::INFINITY, -f32::NAN, -2.0, 5.0];
        let positive = [false, false, false, false, false, true];
        assert_eq!(hard_negatives(&loss, &positive, 9.0, None), [3, 2, 1, 4]);
    }

    #[test]
    fn agrees_with_a_stable_sort_of_everything() {
        let mut rng = Random::new(11);
        for n in [1, 2, 7, 100, 1001] {
            // few distinct values, so ties are many
            let loss: Vec<f32> = (0..n).map(|_| rng.below(20) as f32 / 4.0 - 1.0).collect();
            let positive: Vec<bool> = (0..n).map(|_| rng.chance(0.1)).collect();
            let mut expected: Vec<u32> = (0..n as u32).filter(|&i| !positive[i as usize]).collect();
            expected.sort_by(|&a, &b| loss[b as usize].total_cmp(&loss[a as usize]));
            expected.truncate(3 * positive.iter().filter(|&&p| p).count());
            assert_eq!(hard_negatives(&loss, &positive, 3.0, None), expected);
        }
    }
}
