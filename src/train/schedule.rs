//! Learning rate by iteration: warm-up, then steps, a cosine, a polynomial or nothing.

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
    /// From each milestone on, its share of the full rate.
    Pieces {
        milestones: Vec<u64>,
        shares: Vec<f32>,
    },
    /// Half a cosine from the full rate down to `floor` of it at the last iteration.
    Cosine {
        floor: f32,
    },
    /// `(1 − done)^power` of the full rate, but not below `floor` of it.
    Polynomial {
        power: f32,
        floor: f32,
    },
}

/// Warm-up and decay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    pub learning_rate: f32,
    /// Iterations of warm-up.
    pub warmup: u64,
    /// Share of the full rate at iteration 0.
    pub warmup_factor: f32,
    /// 1 for a linear warm-up, 4 for darknet's burn-in.
    #[serde(default = "super::config::full")]
    pub warmup_power: f32,
    pub decay: Decay,
}

impl Schedule {
    /// The rate of iteration `iteration` (from 0) of `iterations`.
    pub fn rate(&self, iteration: u64, iterations: u64) -> f32 {
        let warm = if iteration < self.warmup {
            let done = iteration as f32 / self.warmup as f32;
            // A power of 1 must not round.
            let done = if self.warmup_power == 1.0 { done } else { done.powf(self.warmup_power) };
            self.warmup_factor + (1.0 - self.warmup_factor) * done
        } else {
            1.0
        };
        let done = (iteration as f64 / iterations.max(1) as f64).min(1.0);
        let decayed = match &self.decay {
            Decay::Constant => 1.0,
            Decay::Step { milestones, factor } => factor.powi(passed(milestones, iteration) as i32),
            Decay::Pieces { milestones, shares } => {
                let index = passed(milestones, iteration).checked_sub(1);
                index.and_then(|index| shares.get(index).or(shares.last())).copied().unwrap_or(1.0)
            }
            Decay::Cosine { floor } => {
                let share = 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
                floor + (1.0 - floor) * share as f32
            }
            Decay::Polynomial { power, floor } => floor.max((1.0 - done).powf(f64::from(*power)) as f32),
        };
        self.learning_rate * warm * decayed
    }

    /// The same with every milestone `times` as late; the warm-up stays.
    pub(super) fn stretched(mut self, times: u64) -> Self {
        if let Decay::Step { milestones, .. } | Decay::Pieces { milestones, .. } = &mut self.decay {
            milestones.iter_mut().for_each(|milestone| *milestone *= times);
        }
        self
    }
}

fn passed(milestones: &[u64], iteration: u64) -> usize {
    milestones.iter().filter(|milestone| **milestone <= iteration).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(learning_rate: f32, warmup: u64, decay: Decay) -> Schedule {
        Schedule { learning_rate, warmup, warmup_factor: 0.0, warmup_power: 1.0, decay }
    }

    #[test]
    fn warm_up_is_linear_and_milestones_multiply() {
        let schedule = schedule(0.1, 10, Decay::Step { milestones: vec![100, 200], factor: 0.1 });
        assert_eq!(schedule.rate(0, 300), 0.0);
        assert!((schedule.rate(5, 300) - 0.05).abs() < 1e-7);
        assert!((schedule.rate(99, 300) - 0.1).abs() < 1e-7);
        assert!((schedule.rate(100, 300) - 0.01).abs() < 1e-7);
        assert!((schedule.rate(250, 300) - 0.001).abs() < 1e-7);
        let burn_in = Schedule { warmup_power: 4.0, ..schedule };
        assert!((burn_in.rate(5, 300) - 0.1 / 16.0).abs() < 1e-7);
    }

    #[test]
    fn a_cosine_ends_at_its_floor() {
        let schedule = schedule(1.0, 0, Decay::Cosine { floor: 0.1 });
        assert!((schedule.rate(0, 100) - 1.0).abs() < 1e-6);
        assert!((schedule.rate(50, 100) - 0.55).abs() < 1e-6);
        assert!((schedule.rate(100, 100) - 0.1).abs() < 1e-6);
    }

    #[test]
    fn a_polynomial_falls_by_its_power_and_pieces_jump_to_their_shares() {
        let polynomial = schedule(2.0, 0, Decay::Polynomial { power: 2.0, floor: 0.01 });
        assert!((polynomial.rate(50, 100) - 0.5).abs() < 1e-6);
        assert!((polynomial.rate(100, 100) - 0.02).abs() < 1e-7);
        let pieces = schedule(1.0, 0, Decay::Pieces { milestones: vec![10, 20], shares: vec![0.5] });
        assert_eq!([9, 10, 25].map(|i| pieces.rate(i, 30)), [1.0, 0.5, 0.5]);
    }
}
