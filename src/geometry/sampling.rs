//! The balanced sampler of RPN and the RoI heads: so many anchors, of which at most a fraction is positive.

use crate::random::Random;

/// Draws up to `total` indices without replacement, at most ⌊`total` · `positive_fraction`⌋ of them positive and the
/// rest negative; missing positives are replaced by negatives, missing negatives by nothing (torchvision's
/// `BalancedPositiveNegativeSampler`). Returns (positives, negatives), each in rising order.
///
/// `target` is an object index for a positive, −1 for background, −2 for ignored.
pub fn sample_balanced(target: &[i32], total: usize, positive_fraction: f32, rng: &mut Random) -> (Vec<u32>, Vec<u32>) {
    let select = |wanted: fn(i32) -> bool| -> Vec<u32> {
        target.iter().enumerate().filter(|&(_, &t)| wanted(t)).map(|(index, _)| index as u32).collect()
    };
    let positives = select(|t| t >= 0);
    let negatives = select(|t| t == -1);
    // a negative or NaN fraction casts to 0
    let most_positives = ((total as f64 * f64::from(positive_fraction)) as usize).min(total);
    let positives = draw(positives, most_positives, rng);
    let negatives = draw(negatives, total - positives.len(), rng);
    (positives, negatives)
}

/// `count` of `items` in rising order; all of them, without a draw, when there are no more than that.
fn draw(mut items: Vec<u32>, count: usize, rng: &mut Random) -> Vec<u32> {
    if items.len() > count {
        // the front of a Fisher–Yates shuffle
        for i in 0..count {
            let other = i + rng.below(items.len() - i);
            items.swap(i, other);
        }
        items.truncate(count);
        items.sort_unstable();
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(positives: usize, negatives: usize, ignored: usize) -> Vec<i32> {
        let mut targets = vec![-2; ignored];
        targets.extend((0..positives).map(|i| i as i32));
        targets.extend(vec![-1; negatives]);
        Random::new(1).shuffle(&mut targets);
        targets
    }

    #[test]
    fn the_sizes_follow_the_rule() {
        // (positives, negatives, total, fraction) → sampled
        let cases = [
            ((1000, 5000, 256, 0.5), (128, 128)),
            ((10, 5000, 256, 0.5), (10, 246)),
            ((1000, 50, 256, 0.5), (128, 50)),
            ((5, 5, 256, 0.5), (5, 5)),
            ((1000, 5000, 512, 0.25), (128, 384)),
            ((0, 9, 4, 0.5), (0, 4)),
            ((9, 9, 0, 0.5), (0, 0)),
            ((9, 9, 4, 7.0), (4, 0)),
            ((9, 9, 4, f32::NAN), (0, 4)),
        ];
        for ((positives, negatives, total, fraction), expected) in cases {
            let target = targets(positives, negatives, 77);
            let (p, n) = sample_balanced(&target, total, fraction, &mut Random::new(2));
            assert_eq!((p.len(), n.len()), expected, "{positives} {negatives} {total} {fraction}");
            assert!(p.iter().all(|&i| target[i as usize] >= 0));
            assert!(n.iter().all(|&i| target[i as usize] == -1));
            for drawn in [&p, &n] {
                assert!(drawn.windows(2).all(|pair| pair[0] < pair[1]), "rising, so without replacement");
            }
        }
    }

    #[test]
    fn every_index_is_as_likely() {
        let target = vec![-1; 20];
        let mut counts = [0_u32; 20];
        let mut rng = Random::new(3);
        for _ in 0..4000 {
            for index in sample_balanced(&target, 5, 0.5, &mut rng).1 {
                counts[index as usize] += 1;
            }
        }
        // expectation 1000, deviation √(4000 · ¼ · ¾) = 27
        assert!(counts.iter().all(|&c| (860..1140).contains(&c)), "{counts:?}");
    }

    #[test]
    fn the_seed_decides() {
        let target = targets(300, 900, 5);
        let draw = |seed: u64| sample_balanced(&target, 64, 0.5, &mut Random::new(seed));
        assert_eq!(draw(4), draw(4));
        assert_ne!(draw(4), draw(5));
    }
}
