//! Learning rate by iteration: linear warm-up, then steps, a cosine or nothing.

use serde::{Deserialize, Serialize};

/// What happens to the rate after the warm-up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Decay {
    Constant,
    /// Times `factor` at each milestone.
    Step {
        milestones: Vec<u64>,
        factor: f32,
    },
    /// Half a cosine from the full rate down to `floor` of it at the last iteration.
    Cosine {
        floor: f32,
    },
}

/// Warm-up and decay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    pub learning_rate: f32,
    /// Iterations of linear warm-up.
    pub warmup: u64,
    /// Share of the full rate at iteration 0.
    pub warmup_factor: f32,
    pub decay: Decay,
}

impl Schedule {
    /// The rate of iteration `iteration` (from 0) of `iterations`.
    pub fn rate(&self, iteration: u64, iterations: u64) -> f32 {
        let warm = if iteration < self.warmup {
            let done = iteration as f32 / self.warmup as f32;
            self.warmup_factor + (1.0 - self.warmup_factor) * done
        } else {
            1.0
        };
        let decayed = match &self.decay {
            Decay::Constant => 1.0,
            Decay::Step { milestones, factor } => {
                factor.powi(milestones.iter().filter(|m| **m <= iteration).count() as i32)
            }
            Decay::Cosine { floor } => {
                let done = iteration as f64 / iterations.max(1) as f64;
                let share = 0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos());
                floor + (1.0 - floor) * share as f32
            }
        };
        self.learning_rate * warm * decayed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_up_is_linear_and_milestones_multiply() {
        let decay = Decay::Step { milestones: vec![100, 200], factor: 0.1 };
        let schedule = Schedule { learning_rate: 0.1, warmup: 10, warmup_factor: 0.0, decay };
        assert_eq!(schedule.rate(0, 300), 0.0);
        assert!((schedule.rate(5, 300) - 0.05).abs() < 1e-7);
        assert!((schedule.rate(99, 300) - 0.1).abs() < 1e-7);
        assert!((schedule.rate(100, 300) - 0.01).abs() < 1e-7);
        assert!((schedule.rate(250, 300) - 0.001).abs() < 1e-7);
    }

    #[test]
    fn a_cosine_ends_at_its_floor() {
        let schedule =
            Schedule { learning_rate: 1.0, warmup: 0, warmup_factor: 0.0, decay: Decay::Cosine { floor: 0.1 } };
        assert!((schedule.rate(0, 100) - 1.0).abs() < 1e-6);
        assert!((schedule.rate(50, 100) - 0.55).abs() < 1e-6);
        assert!((schedule.rate(100, 100) - 0.1).abs() < 1e-6);
    }
}
