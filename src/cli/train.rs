//! `boxwright train`: a run on the command line, through the same engine as the window.

use super::{Answer, CliError, Outcome, threads};
use crate::data;
use crate::detect::{Arch, config};
use crate::engine::command::ModelChoice;
use crate::engine::{Command, DeviceChoice, Engine, Event, Severity};
use crate::train::RunConfig;
use crate::train::checkpoint::saved_config;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Architecture
    #[arg(long, default_value = "ssd-nano")]
    model: String,
    /// Data set: a path, or shapes
    #[arg(long, default_value = "shapes")]
    data: String,
    /// Split to learn from; the one called train when left out
    #[arg(long)]
    split: Option<String>,
    /// TOML file of a run to start from
    #[arg(long)]
    config: Option<PathBuf>,
    /// Changes a setting (iterations=500, learning_rate=0.01)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Weights to start from, of the same architecture and classes; random ones when left out
    #[arg(long, conflicts_with = "resume")]
    weights: Option<PathBuf>,
    /// Folder of the run
    #[arg(long)]
    out: Option<PathBuf>,
    /// Go on with the run in --out
    #[arg(long)]
    resume: bool,
    /// Stop after this iteration, keeping a checkpoint to resume from
    #[arg(long)]
    until: Option<u64>,
    /// Also write the averaged weights as float16 to this file when done
    #[arg(long)]
    embed: Option<PathBuf>,
    /// cpu, cuda:N or auto
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Threads that compute; 0 for one a core
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

pub fn run(arguments: &Arguments) -> Outcome {
    threads(arguments.threads)?;
    arguments.device.open()?;
    let folder = arguments.out.clone().unwrap_or_else(|| Path::new("runs").join(&arguments.model));
    let config = run_config(arguments, &folder)?;
    let engine = Engine::start(arguments.device, Arc::new(|| {}))?;
    engine.send(Command::Probe(false));
    engine.send(Command::OpenData { path: config.data.clone(), split: config.split.clone() });
    let boxed = Box::new(config.clone());
    if arguments.resume {
        engine.send(Command::ResumeTraining { folder: folder.clone(), config: Some(boxed) });
    } else {
        let from_current = arguments.weights.is_some();
        if let Some(file) = &arguments.weights {
            let weights = Some(file.clone());
            engine.send(Command::LoadModel { choice: ModelChoice::FromWeights, weights, allow_partial: false });
        }
        engine.send(Command::StartTraining { config: boxed, folder: Some(folder.clone()), from_current });
    }
    match arguments.until {
        Some(_) => {}
        None => _ = engine.send(Command::Train),
    }
    println!("{} on {}, run folder {}", config.model.arch(), config.data, folder.display());
    follow(&engine, arguments, &config, &folder)
}

/// Prints progress until the run ends.
fn follow(engine: &Engine, arguments: &Arguments, config: &RunConfig, folder: &Path) -> Outcome {
    let total = config.train.iterations;
    let mut rate = Rate::default();
    let terminal = std::io::stdout().is_terminal();
    let mut ready = false;
    loop {
        let Some(event) = engine.wait(Duration::from_secs(3600)) else {
            return Err(CliError("the engine stopped answering".into()));
        };
        match event {
            Event::Log { severity: Severity::Error, source, message } => {
                return Err(CliError(format!("{source}: {message}")));
            }
            Event::Log { severity, source, message } => eprintln!("{severity:?} {source}: {message}"),
            Event::TrainingReady { iteration, .. } => {
                ready = true;
                if iteration > 0 {
                    println!("resumed after iteration {iteration}");
                }
                if let Some(until) = arguments.until {
                    engine.send(Command::Step { iterations: until.saturating_sub(iteration) });
                }
            }
            Event::Stepped(report) => {
                let speed = rate.add(report.iteration);
                let left = total.saturating_sub(report.iteration) as f64 / speed.max(1e-9);
                let parts: Vec<String> = report.parts.iter().map(|(n, v)| format!("{n} {v:.3}")).collect();
                let line = format!(
                    "{}/{total}  loss {:.3} ({})  lr {:.5}  {speed:.2} it/s  data wait {:.0} %  {} left",
                    report.iteration,
                    report.loss,
                    parts.join(", "),
                    report.learning_rate,
                    100.0 * report.data_seconds / report.seconds.max(1e-9),
                    clock(left)
                );
                if terminal {
                    print!("\r\x1b[K{line}");
                    std::io::stdout().flush()?;
                } else if report.iteration.is_multiple_of(20) || report.iteration == total {
                    println!("{line}");
                }
            }
            Event::Training { running: false, iteration } if ready && arguments.until.is_some() => {
                engine.send(Command::StopTraining);
                println!("\nstopping after iteration {iteration}");
            }
            Event::TrainingEnded { iteration, .. } => {
                let weights = folder.join("weights").join("weights.safetensors");
                println!("\nended after iteration {iteration}; weights: {}", weights.display());
                if let Some(file) = &arguments.embed {
                    embed(&weights, file)?;
                    println!("float16 weights: {}", file.display());
                }
                return Ok(Answer::Yes);
            }
            _ => {}
        }
    }
}

/// Rewrites deployed weights as float16 with the same metadata.
fn embed(weights: &Path, file: &Path) -> Result<(), CliError> {
    use crate::weights::{TensorData, open, write_safetensors};
    let checkpoint = open(weights)?;
    let mut tensors = Vec::new();
    for stored in checkpoint.tensors() {
        let values = checkpoint.read_f32(stored)?;
        let half = values.iter().map(|&v| half::f16::from_f32(v)).collect();
        tensors.push((stored.name.clone(), stored.shape.clone(), TensorData::F16(half)));
    }
    write_safetensors(file, &tensors, checkpoint.metadata())?;
    Ok(())
}

fn run_config(arguments: &Arguments, folder: &Path) -> Result<RunConfig, CliError> {
    let base = if arguments.resume {
        saved_config(folder)?
    } else if let Some(path) = &arguments.config {
        let text = std::fs::read_to_string(path)
            .map_err(|e| format!("cannot read the configuration ({e}): {}", path.display()))?;
        toml::from_str(&text).map_err(|e| format!("the configuration does not read ({e}): {}", path.display()))?
    } else {
        let arch: Arch = arguments.model.parse()?;
        let split = arguments.split.clone().or_else(|| data::open::training_split(&arguments.data));
        let dataset = data::open::open(&arguments.data, split.as_deref())?;
        RunConfig::new(arch, &arguments.data, &dataset)
    };
    arguments.set.iter().try_fold(base, |config, setting| {
        let Some((key, value)) = setting.split_once('=') else {
            return Err(CliError(format!("--set {setting}: write it as key=value")));
        };
        Ok(config::set(&config, key.trim(), value.trim())?)
    })
}

/// Iterations per second over the last seconds.
#[derive(Default)]
struct Rate {
    marks: std::collections::VecDeque<(Instant, u64)>,
}

impl Rate {
    fn add(&mut self, iteration: u64) -> f64 {
        let now = Instant::now();
        self.marks.push_back((now, iteration));
        while self.marks.len() > 2 && self.marks.front().is_some_and(|(t, _)| now - *t > Duration::from_secs(20)) {
            self.marks.pop_front();
        }
        match self.marks.front() {
            Some((first, at)) if iteration > *at => (iteration - at) as f64 / (now - *first).as_secs_f64().max(1e-9),
            _ => 0.0,
        }
    }
}

fn clock(seconds: f64) -> String {
    let s = seconds.min(359_999.0) as u64;
    format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}
