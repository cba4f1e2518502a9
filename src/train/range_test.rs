//! Learning-rate range test: the loss while the rate grows from step to step, and the rate where it falls fastest.
//!
//! L. Smith, "Cyclical Learning Rates for Training Neural Networks" (WACV 2017), §3.3.

use super::TrainError;
use super::replicas::SharedStep;
use super::run::Run;
use super::scaling::LossScale;
use super::step::StepSettings;
use crate::stats::MovingAverage;
use serde::Serialize;

/// How the rate grows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RangeSettings {
    /// First rate, above 0.
    pub low: f32,
    /// Last rate, above the first.
    pub high: f32,
    /// Steps from one to the other; each multiplies the rate.
    pub steps: u64,
    /// Weight of the past in the smoothed loss, in `[0, 1)`.
    pub smoothing: f32,
    /// The test ends where the smoothed loss is this many times its lowest.
    pub diverged: f32,
}

impl Default for RangeSettings {
    fn default() -> Self {
        Self { low: 1e-6, high: 1.0, steps: 100, smoothing: 0.9, diverged: 4.0 }
    }
}

/// One step of the test.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RangePoint {
    pub rate: f32,
    pub loss: f32,
    pub smoothed: f32,
}

/// What the test found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RangeTest {
    pub points: Vec<RangePoint>,
    /// The rate at which the smoothed loss falls fastest; none where it never falls.
    pub suggestion: Option<f32>,
    /// The rate at which the loss was no number any more or far above its lowest.
    pub diverged_at: Option<f32>,
}

impl Run {
    /// Runs the test from the weights as they are and puts everything back afterwards. `progress` hears (done, total).
    ///
    /// # Errors
    /// Settings that make no test, a failing operation or an interruption.
    pub fn range_test(
        &mut self,
        settings: &RangeSettings,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<RangeTest, TrainError> {
        let RangeSettings { low, high, steps, .. } = *settings;
        if !(low > 0.0 && high > low && high.is_finite() && steps >= 2) {
            let text = format!("a range test needs 0 < low < high and two steps, not {low} to {high} in {steps}");
            return Err(TrainError::Settings(text));
        }
        self.abandon();
        let before = self.state()?;
        let tested = self.test_rates(settings, &mut progress);
        self.put_back(before)?;
        tested
    }

    fn test_rates(
        &mut self,
        settings: &RangeSettings,
        progress: &mut impl FnMut(u64, u64),
    ) -> Result<RangeTest, TrainError> {
        let mut average = MovingAverage::new(settings.smoothing);
        let mut test = RangeTest::default();
        let mut lowest = f32::INFINITY;
        for number in 0..settings.steps {
            let share = number as f64 / (settings.steps - 1) as f64;
            let growth = (f64::from(settings.high) / f64::from(settings.low)).powf(share);
            let rate = (f64::from(settings.low) * growth) as f32;
            let step_settings = StepSettings {
                mode: self.config.train.mode(),
                probe: false,
                rate,
                iteration: self.iteration,
                precision: self.config.train.precision,
                loss_scale: self.loss_scale.map(LossScale::factor),
            };
            let mut step = SharedStep::new(vec![self.next_batch()?], step_settings, self.replicas.count());
            while step.next_phase().is_some() {
                match step.advance(&mut self.replicas, &*self.detector, &mut self.optimizer) {
                    Ok(_) => {}
                    Err(TrainError::Incident(_)) => {
                        test.diverged_at = Some(rate);
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
            if test.diverged_at.is_some() {
                break;
            }
            self.iteration += 1;
            let (report, _) = step.finish();
            if let Some(scale) = &mut self.loss_scale {
                scale.follow(report.skipped);
            }
            let loss = report.loss;
            let smoothed = average.add(loss);
            test.points.push(RangePoint { rate, loss, smoothed });
            progress(number + 1, settings.steps);
            lowest = lowest.min(smoothed);
            if smoothed > settings.diverged * lowest {
                test.diverged_at = Some(rate);
                break;
            }
        }
        test.suggestion = steepest(&test.points);
        Ok(test)
    }
}

/// The rate at which the smoothed loss falls fastest over the logarithm of the rate.
fn steepest(points: &[RangePoint]) -> Option<f32> {
    let slope = |pair: &[RangePoint]| match pair {
        [a, b] => (b.smoothed - a.smoothed) / (b.rate / a.rate).ln(),
        _ => 0.0,
    };
    let (pair, slope) = points.windows(2).map(|pair| (pair, slope(pair))).min_by(|a, b| a.1.total_cmp(&b.1))?;
    (slope < 0.0).then(|| pair.last().map(|point| point.rate)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suggestion_is_where_the_curve_falls_fastest() {
        let point = |rate: f32, smoothed: f32| RangePoint { rate, loss: smoothed, smoothed };
        let points = [point(1e-4, 5.0), point(1e-3, 4.8), point(1e-2, 3.0), point(1e-1, 2.9), point(1.0, 9.0)];
        assert_eq!(steepest(&points), Some(1e-2));
        assert_eq!(steepest(&[point(1e-4, 1.0), point(1e-3, 2.0)]), None);
        assert_eq!(steepest(&[]), None);
    }
}
