//! Curves of a run by iteration: from the reports of a training run under way, or from the file of one on disk.

use crate::stats::{MinMaxPyramid, MovingAverage};
use crate::train::{StepReport, Validation};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// Decay of the smoothed curves at first.
pub const SMOOTHING: f32 = 0.95;
/// Iterations that may be missing between two points; beyond it the curves begin anew.
const MOST_MISSING: usize = 100_000;
/// A line longer than this is none that a run wrote.
const LONGEST: u64 = 1 << 20;
/// Names of the curves that every run has.
pub const LOSS: &str = "loss";
pub const LEARNING_RATE: &str = "learning rate";
pub const GRADIENT_NORM: &str = "gradient norm";
pub const SPEED: &str = "it/s";
pub const DATA_WAIT: &str = "data wait";
/// Curves of the validations, beside those of the iterations.
pub const VALIDATION_LOSS: &str = "validation loss";
pub const VALIDATION_AP: &str = "validation AP ×100";

/// Whether a curve is on a scale of its own, beside which losses would be flat: it is drawn where it is asked for.
pub fn has_own_scale(name: &str) -> bool {
    [LEARNING_RATE, GRADIENT_NORM, SPEED, DATA_WAIT, VALIDATION_AP].contains(&name)
}

/// One validation, as a point of a curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Validated {
    /// Iterations done before it.
    pub iteration: u64,
    pub loss: f32,
    /// COCO AP in 0..1; −1 where nothing was to be found.
    pub ap: f64,
}

/// Curves of one run, by name: the loss and its parts, learning rate, gradient norm, iterations a second, share of the
/// time that went to waiting for data.
#[derive(Clone, Debug)]
pub struct Curves {
    /// All of one length; NaN where an iteration has no such number.
    pub series: BTreeMap<String, MinMaxPyramid>,
    /// Exponentially smoothed twins.
    pub smooth: BTreeMap<String, MinMaxPyramid>,
    averages: BTreeMap<String, MovingAverage>,
    decay: f32,
    pub validations: Vec<Validated>,
    /// Iteration of the first point.
    pub first: u64,
    pub len: usize,
    /// Of the last iterations.
    pub iterations_per_second: f64,
    pub data_share: f64,
}

impl Default for Curves {
    fn default() -> Self {
        Self {
            series: BTreeMap::new(),
            smooth: BTreeMap::new(),
            averages: BTreeMap::new(),
            decay: SMOOTHING,
            validations: Vec::new(),
            first: 0,
            len: 0,
            iterations_per_second: 0.0,
            data_share: 0.0,
        }
    }
}

impl Curves {
    /// No curve yet; those to come are smoothed with this weight of the past.
    pub fn with_decay(decay: f32) -> Self {
        Self { decay, ..Self::default() }
    }

    /// Reads `metrics.jsonl` of the run in `folder`, up to its last whole line.
    ///
    /// # Errors
    /// A file that cannot be opened.
    pub fn read(folder: &Path) -> Result<Self, String> {
        let path = folder.join("metrics.jsonl");
        let unread = |e: std::io::Error| format!("no curves ({e}); the run may not have begun: {}", path.display());
        let file = std::fs::File::open(&path).map_err(unread)?;
        let mut reader = BufReader::new(file);
        let (mut curves, mut line) = (Self::default(), Vec::new());
        loop {
            line.clear();
            let read = reader.by_ref().take(LONGEST).read_until(b'\n', &mut line);
            if !matches!(read, Ok(bytes) if bytes > 0) || line.last() != Some(&b'\n') {
                return Ok(curves);
            }
            let Ok(value) = serde_json::from_slice::<Value>(&line) else { return Ok(curves) };
            curves.add_line(&value);
        }
    }

    /// Takes an iteration in.
    pub fn add(&mut self, report: &StepReport) {
        let parts = report.parts.iter().map(|(name, value)| (name.as_str(), *value));
        let numbers = [report.loss, report.learning_rate, report.gradient_norm as f32];
        self.push(report.iteration, numbers, parts, report.seconds, report.data_seconds);
        if let Some(validation) = &report.validation {
            self.add_validation(validation);
        }
    }

    /// Takes a validation in.
    pub fn add_validation(&mut self, validation: &Validation) {
        let (iteration, loss, ap) = (validation.iteration, validation.loss, validation.ap);
        self.validations.push(Validated { iteration, loss, ap });
    }

    fn add_line(&mut self, line: &Value) {
        let Some(iteration) = line["iteration"].as_u64() else { return };
        // JSON has no NaN: such a number is null there.
        let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
        let parts: Vec<(&str, f32)> = match line["parts"].as_object() {
            Some(parts) => parts.iter().map(|(name, value)| (name.as_str(), number(value) as f32)).collect(),
            None => Vec::new(),
        };
        let numbers = [&line["loss"], &line["learning_rate"], &line["gradient_norm"]].map(|v| number(v) as f32);
        let (seconds, data_seconds) = (number(&line["seconds"]), number(&line["data_seconds"]));
        self.push(iteration, numbers, parts.into_iter(), seconds, data_seconds);
        let validation = &line["validation"];
        if let Some(iteration) = validation["iteration"].as_u64() {
            let (loss, ap) = (number(&validation["loss"]) as f32, number(&validation["ap"]));
            self.validations.push(Validated { iteration, loss, ap });
        }
    }

    fn push<'a>(
        &mut self,
        iteration: u64,
        [loss, rate, norm]: [f32; 3],
        parts: impl Iterator<Item = (&'a str, f32)>,
        seconds: f64,
        data_seconds: f64,
    ) {
        let missing = iteration.saturating_sub(self.first.saturating_add(self.len as u64));
        if self.len == 0 || iteration < self.first || missing > MOST_MISSING as u64 {
            *self = Self { first: iteration, ..Self::with_decay(self.decay) };
        }
        // A run that went back passes here again.
        self.keep(iteration.saturating_sub(1));
        let at = (iteration - self.first) as usize;
        let per_second = |part: f64| if seconds > 0.0 { part / seconds } else { f64::NAN };
        let (speed, share) = (per_second(1.0), per_second(data_seconds));
        let own = [
            (LOSS, loss),
            (LEARNING_RATE, rate),
            (GRADIENT_NORM, norm),
            (SPEED, speed as f32),
            (DATA_WAIT, share as f32),
        ];
        for (name, value) in own.into_iter().chain(parts) {
            let decay = self.decay;
            let series = self.series.entry(name.to_string()).or_default();
            let smooth = self.smooth.entry(name.to_string()).or_default();
            let average = self.averages.entry(name.to_string()).or_insert_with(|| MovingAverage::new(decay));
            // A part that bears the name of another curve would be a second point of the same iteration.
            if series.len() > at {
                continue;
            }
            lengthen(series, at);
            lengthen(smooth, at);
            series.push(value);
            smooth.push(average.add(value));
        }
        self.len = at + 1;
        for curve in self.series.values_mut().chain(self.smooth.values_mut()) {
            lengthen(curve, self.len);
        }
        let follow = if self.len == 1 { 1.0 } else { 0.1 };
        if speed.is_finite() && share.is_finite() {
            self.iterations_per_second += follow * (speed - self.iterations_per_second);
            self.data_share += follow * (share - self.data_share);
        }
    }

    /// Forgets what came after `iteration`: the run went back.
    pub fn keep(&mut self, iteration: u64) {
        let wanted = iteration.saturating_add(1).saturating_sub(self.first);
        if wanted >= self.len as u64 {
            return;
        }
        self.len = wanted as usize;
        for series in self.series.values_mut() {
            *series = pyramid(series.values().iter().copied().take(self.len));
        }
        self.validations.retain(|validated| validated.iteration <= iteration);
        self.smooth_with(self.decay);
    }

    /// Smooths anew: `decay` in `[0, 1)` is the weight of the past.
    pub fn smooth_with(&mut self, decay: f32) {
        self.decay = decay;
        for (name, series) in &self.series {
            let mut average = MovingAverage::new(decay);
            self.smooth.insert(name.clone(), pyramid(series.values().iter().map(|value| average.add(*value))));
            self.averages.insert(name.clone(), average);
        }
    }

    /// The weight of the past in the smoothed curves.
    pub fn decay(&self) -> f32 {
        self.decay
    }
}

fn pyramid(values: impl Iterator<Item = f32>) -> MinMaxPyramid {
    let mut curve = MinMaxPyramid::new();
    values.for_each(|value| curve.push(value));
    curve
}

/// Fills a gap up to `len` points.
fn lengthen(curve: &mut MinMaxPyramid, len: usize) {
    while curve.len() < len {
        curve.push(f32::NAN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(iteration: u64, loss: f32) -> StepReport {
        let parts = vec![("classification".to_string(), loss / 2.0)];
        StepReport { iteration, loss, parts, seconds: 0.5, data_seconds: 0.05, ..StepReport::default() }
    }

    #[test]
    fn a_run_that_goes_back_writes_its_points_again() {
        let mut curves = Curves::default();
        for (iteration, loss) in [(5, 4.0), (6, 2.0), (7, 9.0)] {
            curves.add(&report(iteration, loss));
        }
        let smoothed = curves.smooth["loss"].values()[1];
        curves.keep(6);
        assert_eq!((curves.first, curves.len), (5, 2));
        assert_eq!(curves.smooth["loss"].values(), [4.0, smoothed]);
        curves.add(&report(7, 1.0));
        assert_eq!(curves.series["loss"].values(), [4.0, 2.0, 1.0]);
        curves.add(&report(6, 3.0));
        assert_eq!(curves.series["loss"].values(), [4.0, 3.0]);
        curves.add(&report(2, 8.0));
        assert_eq!((curves.first, curves.len), (2, 1));
    }

    #[test]
    fn missing_iterations_and_late_parts_leave_gaps_and_keep_the_places() {
        let mut curves = Curves::default();
        curves.add(&StepReport { parts: Vec::new(), ..report(1, 4.0) });
        curves.add(&report(3, 2.0));
        let (loss, part) = (curves.series["loss"].values(), curves.series["classification"].values());
        assert!(loss[1].is_nan() && part[0].is_nan() && part[1].is_nan());
        assert_eq!((loss[2], part[2], curves.len), (2.0, 1.0, 3));
    }

    #[test]
    fn a_file_is_read_up_to_its_torn_line_with_its_validations() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Curves::read(folder.path()).is_err());
        let text = "{\"iteration\":1,\"loss\":3.0,\"parts\":{\"a\":1.0},\"learning_rate\":0.1,\"gradient_norm\":2.0,\
                    \"seconds\":0.5,\"data_seconds\":0.1}\n{\"iteration\":2,\"loss\":null,\"parts\":{\"a\":2.0},\
                    \"seconds\":0.5,\"validation\":{\"iteration\":2,\"loss\":1.5,\"ap\":0.25}}\n{\"iteration\":3,\"lo";
        std::fs::write(folder.path().join("metrics.jsonl"), text).unwrap();
        let curves = Curves::read(folder.path()).unwrap();
        assert_eq!((curves.first, curves.len), (1, 2));
        assert_eq!(curves.series["a"].values(), [1.0, 2.0]);
        assert!(curves.series["loss"].values()[1].is_nan());
        assert_eq!(curves.validations, [Validated { iteration: 2, loss: 1.5, ap: 0.25 }]);
    }

    #[test]
    fn without_smoothing_both_curves_are_one() {
        let mut curves = Curves::default();
        for iteration in 1..5 {
            curves.add(&report(iteration, iteration as f32));
        }
        curves.smooth_with(0.0);
        assert_eq!(curves.smooth["loss"].values(), curves.series["loss"].values());
    }
}
