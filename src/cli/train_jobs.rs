//! What `boxwright train` does instead of a run: range test, replay, and the fork that a run goes on from.

use super::train::Arguments;
use super::{Answer, CliError, Outcome, write_json};
use crate::engine::{DeviceChoice, jobs};
use crate::train::{RangeSettings, RunConfig};
use serde_json::json;
use std::path::Path;

/// Lines of the table that a range test prints at most.
const MOST_LINES: usize = 20;

/// Prints the curve and the suggestion.
pub fn range_test(arguments: &Arguments, config: &RunConfig) -> Outcome {
    let standard = RangeSettings { steps: arguments.range_steps, ..RangeSettings::default() };
    let settings = match arguments.rates.as_deref() {
        Some([low, high]) => RangeSettings { low: *low, high: *high, ..standard },
        _ => standard,
    };
    let test = jobs::range_test(config, &settings, &arguments.device, |done, total| {
        if done.is_multiple_of(20) {
            eprintln!("{done} of {total} steps");
        }
    })?;
    println!("{:>12}  {:>10}  {:>10}", "rate", "loss", "smoothed");
    let every = test.points.len().div_ceil(MOST_LINES).max(1);
    for point in test.points.iter().step_by(every) {
        println!("{:>12.3e}  {:>10.4}  {:>10.4}", point.rate, point.loss, point.smoothed);
    }
    if let Some(rate) = test.diverged_at {
        println!("diverged at {rate:.3e}");
    }
    match test.suggestion {
        Some(rate) => println!("suggestion: --set learning_rate={rate:.2e} (the loss falls fastest there)"),
        None => {
            println!("no suggestion: the loss fell at no rate; try --rates with other bounds or more --range-steps")
        }
    }
    if let Some(file) = &arguments.json {
        write_json(file, &serde_json::to_value(&test)?)?;
    }
    Ok(if test.suggestion.is_some() { Answer::Yes } else { Answer::No })
}

/// Repeats the step that paused a run and says whether it repeats bit for bit.
pub fn replay(arguments: &Arguments, folder: &Path) -> Outcome {
    let replay = jobs::replay(folder, &arguments.device)?;
    println!("recorded: {}", replay.recording.incident);
    match &replay.error {
        Some(error) => println!("replayed: {error}"),
        None => println!("replayed: the step went through"),
    }
    for image in replay.recording.record.batches.iter().flatten() {
        let applied: Vec<&str> = image.applied.iter().map(|a| a.name.as_str()).collect();
        let applied = if applied.is_empty() { "as it is".to_string() } else { applied.join(", ") };
        println!("  {}: {} objects, {applied}", image.name, image.objects.len());
    }
    for difference in &replay.differences {
        println!("differs: {difference}");
    }
    let same = replay.differences.is_empty();
    println!("{}", if same { "the step repeats bit for bit" } else { "the step does not repeat" });
    if let Some(file) = &arguments.json {
        write_json(file, &json!({ "repeats": same, "replay": replay }))?;
    }
    Ok(if same { Answer::Yes } else { Answer::No })
}

/// Makes the fork's folder with its first checkpoint.
pub fn fork(
    devices: &[DeviceChoice],
    source: &Path,
    iteration: u64,
    config: &RunConfig,
    folder: &Path,
) -> Result<(), CliError> {
    println!("fork of {} after iteration {iteration}", source.display());
    jobs::fork(source, iteration, config.clone(), devices, folder.to_path_buf(), |done, total| {
        if done.is_multiple_of(20) || done == total {
            println!("run again from the checkpoint before: {done} of {total} iterations");
        }
    })?;
    Ok(())
}
