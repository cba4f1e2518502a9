//! Timing: single convolutions and operations, whole networks by stage, training steps by phase, peak memory.
//!
//! Names are those of torchvision's builders where it has the same network (`retinanet@800 forward`), so that the times
//! of two programs can be put side by side.

pub mod convolution;
pub mod network;
pub mod operations;
pub mod training;

pub use crate::ops::conv::peak_gflops;

use crate::random::Random;
use candle_core::{Device, Result, Tensor};
use serde_json::{Map, Value, json};
use std::time::Instant;

/// Unmeasured rounds before the measured ones: they pack weights, and touch memory for the first time.
pub const WARM_UP: usize = 2;

/// Milliseconds by stage, in order.
pub type Stages = Vec<(String, f64)>;

/// Milliseconds of repeated work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Times {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Times {
    /// Of single measurements; without any, all are NaN.
    pub fn of(mut milliseconds: Vec<f64>) -> Self {
        milliseconds.sort_by(f64::total_cmp);
        let at = |index: usize| milliseconds.get(index).copied().unwrap_or(f64::NAN);
        let count = milliseconds.len();
        // the mean of the middle two where their number is even, as Python's statistics.median
        let median = 0.5 * (at(count.saturating_sub(1) / 2) + at(count / 2));
        Self { median, min: at(0), max: at(count.saturating_sub(1)) }
    }
}

/// One thing that was timed.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    pub name: String,
    pub times: Times,
    /// Floating-point operations of one run, a multiply–add counting two; 0 where they are not counted.
    pub flops: f64,
    /// Medians.
    pub stages: Stages,
    /// Further numbers by name; the name carries the unit.
    pub numbers: Vec<(&'static str, f64)>,
}

impl Measurement {
    pub fn new(name: impl Into<String>, times: Times) -> Self {
        Self { name: name.into(), times, flops: 0.0, stages: Vec::new(), numbers: Vec::new() }
    }

    /// `median_ms`, `min_ms`, `max_ms`; `gflops` (per second) where operations are counted, `stages_ms` as pairs of
    /// stage and median where there are stages; and the further numbers.
    pub fn to_json(&self) -> Value {
        let mut value = Map::new();
        value.insert("median_ms".into(), json!(self.times.median));
        value.insert("min_ms".into(), json!(self.times.min));
        value.insert("max_ms".into(), json!(self.times.max));
        if self.flops > 0.0 && self.times.median > 0.0 {
            value.insert("gflops".into(), json!(self.flops / self.times.median / 1e6));
        }
        if !self.stages.is_empty() {
            value.insert("stages_ms".into(), json!(self.stages));
        }
        for (name, number) in &self.numbers {
            value.insert((*name).to_string(), json!(number));
        }
        Value::Object(value)
    }
}

/// Threads that parallel loops use.
pub fn thread_count() -> usize {
    rayon::current_num_threads()
}

/// Most memory that this process has held so far, MiB; none where the system does not tell (it does on Linux).
pub fn peak_mebibytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes / 1024.0)
}

/// Milliseconds of one run.
fn timed<E>(work: impl FnOnce() -> std::result::Result<(), E>) -> std::result::Result<f64, E> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// Times of `repeat` runs (at least one) after the warm-up.
///
/// # Errors
/// The first of the work.
pub fn measure<E>(
    repeat: usize,
    mut work: impl FnMut() -> std::result::Result<(), E>,
) -> std::result::Result<Times, E> {
    let mut times = Vec::with_capacity(repeat.max(1));
    for round in 0..repeat.max(1) + WARM_UP {
        let time = timed(&mut work)?;
        if round >= WARM_UP {
            times.push(time);
        }
    }
    Ok(Times::of(times))
}

/// Times of two kinds of work in turns, so that a change of the machine's speed meets both.
///
/// # Errors
/// The first of either.
pub fn measure_in_turns<E>(
    repeat: usize,
    mut first: impl FnMut() -> std::result::Result<(), E>,
    mut second: impl FnMut() -> std::result::Result<(), E>,
) -> std::result::Result<(Times, Times), E> {
    let (mut firsts, mut seconds) = (Vec::new(), Vec::new());
    for round in 0..repeat.max(1) + WARM_UP {
        let (a, b) = (timed(&mut first)?, timed(&mut second)?);
        if round >= WARM_UP {
            firsts.push(a);
            seconds.push(b);
        }
    }
    Ok((Times::of(firsts), Times::of(seconds)))
}

/// The times of stages over many rounds.
#[derive(Debug, Default)]
struct StageTimes {
    stages: Vec<(String, Vec<f64>)>,
}

impl StageTimes {
    /// Adds one round; a stage that ran more than once in it counts with its sum.
    fn add<'a>(&mut self, round: impl IntoIterator<Item = (&'a str, f64)>) {
        let mut sums: Vec<(&str, f64)> = Vec::new();
        for (stage, milliseconds) in round {
            match sums.iter_mut().find(|(known, _)| *known == stage) {
                Some((_, sum)) => *sum += milliseconds,
                None => sums.push((stage, milliseconds)),
            }
        }
        for (stage, sum) in sums {
            match self.stages.iter_mut().find(|(known, _)| *known == stage) {
                Some((_, times)) => times.push(sum),
                None => self.stages.push((stage.to_string(), vec![sum])),
            }
        }
    }

    /// The median of each stage without its first rounds, the warm-up.
    fn medians(self) -> Stages {
        let median = |mut times: Vec<f64>| {
            let counted = times.split_off(WARM_UP.min(times.len().saturating_sub(1)));
            Times::of(counted).median
        };
        self.stages.into_iter().map(|(stage, times)| (stage, median(times))).collect()
    }
}

/// Uniform in ±1.
fn random_tensor(shape: &[usize], rng: &mut Random) -> Result<Tensor> {
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.range(-1.0, 1.0)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_between_the_middle_two() {
        assert_eq!(Times::of(vec![5.0, 1.0, 2.0, 9.0]), Times { median: 3.5, min: 1.0, max: 9.0 });
        assert_eq!(Times::of(vec![4.0]), Times { median: 4.0, min: 4.0, max: 4.0 });
        assert!(Times::of(Vec::new()).median.is_nan());
    }

    #[test]
    fn rounds_after_the_warm_up_are_counted_and_errors_end_them() {
        let mut runs = 0;
        let times = measure(3, || {
            runs += 1;
            Ok::<(), ()>(())
        });
        assert!(times.is_ok_and(|t| t.min <= t.median && t.median <= t.max));
        assert_eq!(runs, 3 + WARM_UP);
        assert_eq!(measure(3, || Err("no")), Err("no"));
        assert!(measure_in_turns(2, || Ok::<(), &str>(()), || Err("no")).is_err());
    }

    #[test]
    fn a_stage_that_runs_twice_a_round_counts_with_its_sum() {
        let mut times = StageTimes::default();
        for warm_up in [50.0, 50.0, 0.0, 0.0, 0.0] {
            times.add([("head", 1.0 + warm_up), ("neck", 5.0), ("head", 2.0)]);
        }
        assert_eq!(times.medians(), [("head".to_string(), 3.0), ("neck".to_string(), 5.0)]);
        let mut once = StageTimes::default();
        once.add([("head", 2.0)]);
        assert_eq!(once.medians(), [("head".to_string(), 2.0)]);
    }

    #[test]
    fn json_has_the_peers_keys() {
        let mut measurement = Measurement::new("x", Times { median: 2.0, min: 1.0, max: 4.0 });
        assert_eq!(measurement.to_json(), json!({ "median_ms": 2.0, "min_ms": 1.0, "max_ms": 4.0 }));
        measurement.flops = 4e6;
        measurement.numbers.push(("peak_mib", 7.5));
        let value = measurement.to_json();
        assert_eq!((value["gflops"].as_f64(), value["peak_mib"].as_f64()), (Some(2.0), Some(7.5)));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_process_has_a_peak() {
        assert!(peak_mebibytes().is_some_and(|mebibytes| mebibytes > 0.5));
    }
}
