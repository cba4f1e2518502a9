//! Random scale: another shorter side for each sample, for preprocessing that keeps the aspect.
//!
//! The value mode takes one of evenly spaced sides, the range mode any whole number of pixels between two: MMDetection's
//! `multiscale_mode` and detectron2's `MIN_SIZE_TRAIN_SAMPLING` ("choice" and "range"). Both train with 640 to 800 by 32.

use super::augmentation::Augmentation;
use super::preprocess::Fit;
use crate::random::Random;

impl Augmentation {
    /// Whether the scale is random at all.
    pub fn scales(&self) -> bool {
        self.scale_high > 0
    }

    /// The shorter side of the next sample, pixels; nothing, and nothing drawn, where the scale is not random.
    pub fn draw_shorter_side(&self, rng: &mut Random) -> Option<usize> {
        if !self.scales() {
            return None;
        }
        let low = self.scale_low.clamp(1, self.scale_high);
        let span = (self.scale_high - low) as usize;
        let side = match self.scale_step as usize {
            0 => rng.below(span + 1),
            step => step * rng.below(span / step + 1),
        };
        Some(low as usize + side)
    }
}

/// The same rule with another shorter side; the limit of the longer one stays. Nothing for a rule whose input has a
/// size of its own.
pub fn with_shorter_side(fit: Fit, short: usize) -> Option<Fit> {
    match fit {
        Fit::ShortestEdge { long, divisor, .. } => Some(Fit::ShortestEdge { short, long, divisor }),
        Fit::ShortestEdgeRounded { long, divisor, .. } => Some(Fit::ShortestEdgeRounded { short, long, divisor }),
        Fit::ShortestEdgeAntialias { long, divisor, .. } => Some(Fit::ShortestEdgeAntialias { short, long, divisor }),
        Fit::Stretch { .. } | Fit::Letterbox { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn sides(scale_low: u32, scale_high: u32, scale_step: u32) -> BTreeSet<usize> {
        let settings = Augmentation { scale_low, scale_high, scale_step, ..Augmentation::none() };
        let mut rng = Random::new(3);
        (0..400).filter_map(|_| settings.draw_shorter_side(&mut rng)).collect()
    }

    #[test]
    fn the_value_mode_takes_the_steps_and_the_range_mode_everything_between() {
        assert!(sides(640, 800, 32).into_iter().eq([640, 672, 704, 736, 768, 800]));
        assert!(sides(10, 15, 0).into_iter().eq(10..=15));
        // The last step must not pass the limit.
        assert!(sides(10, 15, 4).into_iter().eq([10, 14]));
        assert!(sides(0, 0, 4).is_empty());
        assert!(sides(9, 7, 0).into_iter().eq([7]));
    }

    #[test]
    fn only_rules_that_keep_the_aspect_have_a_shorter_side() {
        let edge = Fit::ShortestEdgeRounded { short: 800, long: 1333, divisor: 32 };
        assert_eq!(
            with_shorter_side(edge, 640),
            Some(Fit::ShortestEdgeRounded { short: 640, long: 1333, divisor: 32 })
        );
        assert_eq!(with_shorter_side(Fit::Stretch { width: 8, height: 8 }, 640), None);
    }
}
