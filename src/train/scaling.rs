//! Dynamic loss scaling, which keeps gradients inside the narrow range of f16.
//!
//! Micikevicius et al., "Mixed Precision Training" (ICLR 2018), §3.2; the numbers are those of PyTorch's
//! `torch.amp.GradScaler`. Powers of two scale without rounding.

use super::config::Precision;
use serde::{Deserialize, Serialize};

const START: f32 = 65_536.0;
/// What the scale is multiplied by after [`INTERVAL`] updates in a row, and by where gradients overflow.
const GROWTH: f32 = 2.0;
const BACKOFF: f32 = 0.5;
const INTERVAL: u32 = 2000;

/// What the loss is multiplied by before the backward pass, and the gradients divided by after it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossScale {
    factor: f32,
    /// Updates since it changed.
    updates: u32,
}

impl LossScale {
    /// What a run begins with: f16 alone needs a scale.
    pub fn new(precision: Precision) -> Option<Self> {
        (precision == Precision::F16).then_some(Self { factor: START, updates: 0 })
    }

    /// `saved`, where the precision needs a scale.
    pub fn resumed(precision: Precision, saved: Option<Self>) -> Option<Self> {
        Self::new(precision).map(|new| saved.unwrap_or(new))
    }

    pub fn factor(self) -> f32 {
        self.factor
    }

    /// Follows an iteration whose update was made, or `skipped` because its gradients overflowed. The scale never falls
    /// below 1: what overflows there is not to be had by scaling.
    pub fn follow(&mut self, skipped: bool) {
        if skipped {
            *self = Self { factor: (self.factor * BACKOFF).max(1.0), updates: 0 };
            return;
        }
        self.updates += 1;
        if self.updates == INTERVAL {
            let grown = self.factor * GROWTH;
            *self = Self { factor: if grown.is_finite() { grown } else { self.factor }, updates: 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_after_two_thousand_updates_in_a_row_and_halves_at_once_down_to_one() {
        let mut scale = LossScale::new(Precision::F16).unwrap();
        for _ in 0..1999 {
            scale.follow(false);
        }
        assert_eq!(scale.factor(), 65_536.0);
        scale.follow(false);
        assert_eq!(scale.factor(), 131_072.0);
        for _ in 0..1999 {
            scale.follow(false);
        }
        scale.follow(true);
        assert_eq!(scale.factor(), 65_536.0);
        // The count began anew.
        scale.follow(false);
        assert_eq!(scale.factor(), 65_536.0);
        for _ in 0..40 {
            scale.follow(true);
        }
        assert_eq!(scale.factor(), 1.0);
        let mut largest = LossScale { factor: 2f32.powi(127), updates: INTERVAL - 1 };
        largest.follow(false);
        assert_eq!(largest, LossScale { factor: 2f32.powi(127), updates: 0 });
    }

    #[test]
    fn only_f16_has_one_and_it_comes_back_as_it_was() {
        for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
            assert_eq!(LossScale::new(precision), None);
            assert_eq!(LossScale::resumed(precision, LossScale::new(Precision::F16)), None);
        }
        let mut scale = LossScale::new(Precision::F16).unwrap();
        scale.follow(true);
        scale.follow(false);
        let text = serde_json::to_string(&scale).unwrap();
        assert_eq!(serde_json::from_str::<LossScale>(&text).unwrap(), scale);
        assert_eq!(LossScale::resumed(Precision::F16, Some(scale)), Some(scale));
        assert_eq!(LossScale::resumed(Precision::F16, None), LossScale::new(Precision::F16));
    }
}
