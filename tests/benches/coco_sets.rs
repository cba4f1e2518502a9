//! Files of COCO's sizes, made from a seed: how long scoring and checking take, how much memory, and what others need.
//!
//! `cargo bench --bench coco_sets -- [--folder FOLDER] [--rounds N]`. The files (about 520 MB) go to a temporary folder,
//! or to FOLDER, where they are kept and found again. Each measurement is a process of its own, so that its peak memory
//! is its own. With `BOXWRIGHT_PEER_PYTHON` naming a Python, `peer_coco.py` times pycocotools and faster-coco-eval on the
//! same files, in turns with this program.

mod coco_maker;

use boxwright::data::{Depth, check, open};
use boxwright::eval::coco::{CocoSettings, evaluate_boxes};
use boxwright::eval::files::{evaluate_files, read_files};
use serde_json::{Value, json};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Measurements of each kind unless `--rounds` says otherwise.
const ROUNDS: usize = 3;
/// Modules of the script's Python that are tried.
const PEERS: [&str; 2] = ["pycocotools", "faster_coco_eval"];
/// Names the Python that has them.
const PEER_PYTHON: &str = "BOXWRIGHT_PEER_PYTHON";

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    // cargo adds --bench
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["measure-eval", truth, results] => measure_eval(Path::new(truth), Path::new(results)),
        ["measure-check", file] => measure_check(file),
        [] => compare(None, ROUNDS),
        ["--folder", folder] => compare(Some(Path::new(folder)), ROUNDS),
        ["--rounds", rounds] => compare(None, rounds.parse()?),
        ["--folder", folder, "--rounds", rounds] => compare(Some(Path::new(folder)), rounds.parse()?),
        _ => {
            Err(format!("unknown arguments {words:?}; there are --folder FOLDER and --rounds N, in this order").into())
        }
    }
}

/// Scores one pair of files and prints the times in seconds.
fn measure_eval(truth: &Path, results: &Path) -> Outcome<()> {
    let settings = CocoSettings::default();
    let begin = Instant::now();
    let files = read_files(truth, results, settings.iou_type)?;
    let load = begin.elapsed().as_secs_f64();
    let begin = Instant::now();
    let result = evaluate_boxes(&files.images, files.classes.len(), &settings);
    let evaluate = begin.elapsed().as_secs_f64();
    let peak = peak_megabytes();
    drop(files);
    let begin = Instant::now();
    let again = evaluate_files(truth, results, &settings)?;
    let whole = begin.elapsed().as_secs_f64();
    if again.stats != result.stats {
        return Err(format!("two evaluations differ: {:?} and {:?}", result.stats, again.stats).into());
    }
    let stats = result.stats.as_slice();
    println!("{}", json!({ "load": load, "evaluate": evaluate, "whole": whole, "peak_mb": peak, "stats": stats }));
    Ok(())
}

/// Opens one annotation file, checks it without looking at images, and prints the times in seconds.
fn measure_check(file: &str) -> Outcome<()> {
    let begin = Instant::now();
    let set = open(file, None)?;
    let load = begin.elapsed().as_secs_f64();
    let begin = Instant::now();
    let findings = check(&set, Depth::Headers);
    let checked = begin.elapsed().as_secs_f64();
    println!(
        "{}",
        json!({
            "load": load,
            "check": checked,
            "images": set.images.len(),
            "objects": set.object_count(),
            "findings": findings.len(),
            "peak_mb": peak_megabytes(),
        })
    );
    Ok(())
}

/// Most memory that this process has had, where the system tells.
fn peak_megabytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes / 1024.0)
}

fn compare(folder: Option<&Path>, rounds: usize) -> Outcome<()> {
    let rounds = rounds.max(1);
    let temporary;
    let folder: PathBuf = match folder {
        Some(folder) => folder.to_path_buf(),
        None => {
            temporary = tempfile::tempdir()?;
            temporary.path().to_path_buf()
        }
    };
    std::fs::create_dir_all(&folder)?;
    let begin = Instant::now();
    let val = coco_maker::val(&folder)?;
    let train = coco_maker::train(&folder)?;
    println!("files in {} ({:.1} s)", folder.display(), begin.elapsed().as_secs_f64());
    for file in [&val.truth, &val.results, &train] {
        println!("  {:<40} {:>8.1} MB", file.display(), std::fs::metadata(file)?.len() as f64 / 1e6);
    }
    let python = std::env::var_os(PEER_PYTHON).map(PathBuf::from);
    if python.is_none() {
        println!("{PEER_PYTHON} names no Python: nothing to compare with");
    }

    println!("\nscoring {} against {}", val.results.display(), val.truth.display());
    let own: [&Path; 3] = [Path::new("measure-eval"), &val.truth, &val.results];
    let peer: [&Path; 3] = [Path::new("eval"), &val.truth, &val.results];
    report(&in_turns(&own, &peer, python.as_deref(), rounds)?, &["load", "evaluate"]);

    println!("\nopening and checking {}", train.display());
    let own: [&Path; 2] = [Path::new("measure-check"), &train];
    let peer: [&Path; 2] = [Path::new("load"), &train];
    report(&in_turns(&own, &peer, python.as_deref(), rounds)?, &["load", "check"]);
    Ok(())
}

/// Measurements of one program.
struct Series {
    name: String,
    runs: Vec<Value>,
}

/// This program and its peers, one run of each a round.
fn in_turns(own: &[&Path], peer: &[&Path], python: Option<&Path>, rounds: usize) -> Outcome<Vec<Series>> {
    let mut all = vec![Series { name: "boxwright".to_owned(), runs: Vec::new() }];
    if python.is_some() {
        all.extend(PEERS.map(|name| Series { name: name.to_owned(), runs: Vec::new() }));
    }
    let program = std::env::current_exe()?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join("benches").join("peer_coco.py");
    for round in 0..rounds {
        let mut missing = Vec::new();
        for (index, series) in all.iter_mut().enumerate() {
            let mut command = match python {
                Some(python) if index > 0 => {
                    let mut command = Command::new(python);
                    command.arg(&script).arg(&series.name).args(peer);
                    command
                }
                _ => {
                    let mut command = Command::new(&program);
                    command.args(own);
                    command
                }
            };
            let output = command.output()?;
            if output.status.success() {
                series.runs.push(serde_json::from_slice(&output.stdout)?);
                continue;
            }
            let message = String::from_utf8_lossy(&output.stderr).into_owned();
            let last = message.lines().last().unwrap_or_default();
            if index == 0 || round > 0 {
                return Err(format!("{} failed: {last}", series.name).into());
            }
            println!("{} is left out: {last}", series.name);
            missing.push(series.name.clone());
        }
        all.retain(|series| !missing.contains(&series.name));
    }
    Ok(all)
}

/// Medians of the parts and of their sum, peak memory, ratio to this program, and the largest difference of the scores.
fn report(all: &[Series], parts: &[&str]) {
    let whole = |run: &Value| parts.iter().map(|part| run[*part].as_f64().unwrap_or(0.0)).sum::<f64>();
    let Some(own) = all.first() else { return };
    let own_whole = median(own.runs.iter().map(whole));
    for series in all {
        let seconds = median(series.runs.iter().map(whole));
        print!("  {:<18} {seconds:>8.2} s", series.name);
        for part in parts {
            let of_part: Vec<f64> = series.runs.iter().filter_map(|run| run[*part].as_f64()).collect();
            if !of_part.is_empty() {
                print!("  {part} {:.2} s", median(of_part.into_iter()));
            }
        }
        let peak = median(series.runs.iter().filter_map(|run| run["peak_mb"].as_f64()));
        print!("  peak {peak:.0} MB  {:.1} times boxwright", seconds / own_whole);
        if let (Some(ours), Some(theirs)) = (stats(own), stats(series)) {
            let difference = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            print!("  scores within {difference:.1e}, AP {:.4}", theirs.first().copied().unwrap_or(f64::NAN));
        }
        println!();
    }
    if let Some(run) = own.runs.first().filter(|run| run["images"].is_u64()) {
        println!("  {} images, {} objects, {} findings", run["images"], run["objects"], run["findings"]);
    }
}

/// The twelve numbers of a series' first run.
fn stats(series: &Series) -> Option<Vec<f64>> {
    series.runs.first()?["stats"].as_array()?.iter().map(Value::as_f64).collect()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
