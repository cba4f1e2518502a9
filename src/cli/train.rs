//! `boxwright train`: a run on the command line, through the same engine as the window.

use super::{Answer, CliError, Outcome, threads, train_jobs};
use crate::data;
use crate::detect::{Arch, config};
use crate::engine::command::{InitialWeights, ModelChoice};
use crate::engine::runs::Runs;
use crate::engine::{Command, DeviceChoice, Engine, Event, Severity};
use crate::imaging::Augmentation;
use crate::train::checkpoint::saved_config;
use crate::train::{Preset, RunConfig, StepReport, TrainConfig};
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
    /// Training settings by name: embed (how the embedded weights are made), or the published schedule 1x, 2x, 3x
    #[arg(long, conflicts_with_all = ["config", "resume", "fork"])]
    preset: Option<Preset>,
    /// TOML file of a run to start from
    #[arg(long)]
    config: Option<PathBuf>,
    /// Changes a setting (iterations=500, learning_rate=0.01)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Learn from the images as they are
    #[arg(long)]
    no_augmentation: bool,
    /// Weights to start from, of the same architecture and classes; random ones when left out
    #[arg(long, conflicts_with_all = ["resume", "fork"])]
    weights: Option<PathBuf>,
    /// Weights to take what fits from: a classification network's backbone, another detector's body
    #[arg(long, value_name = "FILE", conflicts_with_all = ["weights", "resume", "fork"])]
    backbone: Option<PathBuf>,
    /// Folder of the run
    #[arg(long)]
    out: Option<PathBuf>,
    /// Go on with the run in --out
    #[arg(long, conflicts_with = "fork")]
    resume: bool,
    /// Go on from another run's state after --at iterations, with changed settings, in a folder of its own
    #[arg(long, value_name = "RUN", requires = "at")]
    fork: Option<PathBuf>,
    /// Iterations done where the fork begins
    #[arg(long, value_name = "ITERATION", requires = "fork")]
    at: Option<u64>,
    /// Repeat the step that paused a run by itself, and compare it with the record; exit 1 where they differ
    #[arg(long, value_name = "RUN", conflicts_with_all = ["resume", "fork", "lr_range"])]
    pub(super) replay: Option<PathBuf>,
    /// Instead of training, raise the learning rate step by step and suggest one
    #[arg(long, conflicts_with_all = ["resume", "fork"])]
    lr_range: bool,
    /// First and last rate of --lr-range
    #[arg(long, num_args = 2, value_names = ["LOW", "HIGH"], requires = "lr_range")]
    pub(super) rates: Option<Vec<f32>>,
    /// Steps of --lr-range
    #[arg(long, default_value_t = 100)]
    pub(super) range_steps: u64,
    /// Write the result of --lr-range or --replay as JSON (- for stdout)
    #[arg(long)]
    pub(super) json: Option<PathBuf>,
    /// Stop after this iteration, keeping a checkpoint to resume from
    #[arg(long)]
    until: Option<u64>,
    /// Also write the averaged weights as float16 to this file when done
    #[arg(long)]
    embed: Option<PathBuf>,
    /// cpu, cuda:N or auto
    #[arg(long, default_value = "auto")]
    pub(super) device: DeviceChoice,
    /// Threads that compute; 0 for one a core
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

pub fn run(arguments: &Arguments) -> Outcome {
    threads(arguments.threads)?;
    arguments.device.open()?;
    if let Some(folder) = &arguments.replay {
        return train_jobs::replay(arguments, folder);
    }
    let folder = arguments.out.clone().unwrap_or_else(|| match (&arguments.fork, arguments.at) {
        (Some(source), Some(at)) => {
            let name = source.file_name().map_or_else(|| "run".into(), |name| name.to_string_lossy());
            source.with_file_name(format!("{name}-fork-{at}"))
        }
        _ => Path::new("runs").join(&arguments.model),
    });
    let config = run_config(arguments, &folder)?;
    if arguments.lr_range {
        return train_jobs::range_test(arguments, &config);
    }
    if let (Some(source), Some(at)) = (&arguments.fork, arguments.at) {
        train_jobs::fork(arguments.device, source, at, &config, &folder)?;
    }
    let engine = Engine::start(arguments.device, Arc::new(|| {}))?;
    engine.send(Command::Probe(false));
    engine.send(Command::OpenData { path: config.data.clone(), split: config.split.clone() });
    let boxed = Box::new(config.clone());
    if arguments.resume || arguments.fork.is_some() {
        engine.send(Command::ResumeTraining { folder: folder.clone(), config: Some(boxed) });
    } else {
        let mut start = arguments.backbone.clone().map_or(InitialWeights::Random, InitialWeights::File);
        if let Some(file) = &arguments.weights {
            let weights = Some(file.clone());
            engine.send(Command::LoadModel { choice: ModelChoice::FromWeights, weights, allow_partial: false });
            start = InitialWeights::Loaded;
        }
        engine.send(Command::StartTraining { config: boxed, folder: Some(folder.clone()), start });
    }
    match arguments.until {
        Some(_) => {}
        None => _ = engine.send(Command::Train),
    }
    println!("{} on {}, run folder {}", config.model.arch(), config.data, folder.display());
    let outcome = follow(&engine, arguments, &config, &folder);
    index(&folder);
    outcome
}

/// Notes the run in the index beside its folder. An index that fails is a warning: the run itself is on disk.
fn index(folder: &Path) {
    let root = folder.parent().filter(|root| !root.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Err(error) = Runs::open(root).and_then(|runs| runs.note(folder)) {
        eprintln!("{error}");
    }
}

/// Prints progress until the run ends.
fn follow(engine: &Engine, arguments: &Arguments, config: &RunConfig, folder: &Path) -> Outcome {
    let total = config.train.iterations;
    let mut rate = Rate::default();
    let terminal = std::io::stdout().is_terminal();
    let mut ready = false;
    loop {
        let Some(event) = engine.wait(Duration::MAX) else {
            return Err(CliError("the engine stopped answering".into()));
        };
        match event {
            Event::Log { severity: Severity::Error, source, message } => {
                return Err(CliError(format!("{source}: {message}")));
            }
            Event::Log { severity, source, message } => eprintln!("{severity:?} {source}: {message}"),
            Event::TrainingReady { iteration, .. } => {
                ready = true;
                index(folder);
                if iteration > 0 {
                    println!("resumed after iteration {iteration}");
                }
                if let Some(until) = arguments.until {
                    engine.send(Command::Step { iterations: until.saturating_sub(iteration) });
                }
            }
            Event::Stepped(report) => {
                let line = progress_line(&report, total, rate.add(report.iteration));
                if terminal {
                    print!("\r\x1b[K{line}");
                    std::io::stdout().flush()?;
                } else if report.iteration.is_multiple_of(20) || report.iteration == total {
                    println!("{line}");
                }
                if let Some(validation) = validation_line(&report) {
                    println!("{}{validation}", if terminal { "\n" } else { "" });
                }
            }
            // Nobody pauses here: the wanted iteration is reached, or the run had no iteration left.
            Event::Training { running: false, iteration } if ready => {
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

fn progress_line(report: &StepReport, total: u64, speed: f64) -> String {
    let left = total.saturating_sub(report.iteration) as f64 / speed.max(1e-9);
    let parts: Vec<String> = report.parts.iter().map(|(n, v)| format!("{n} {v:.3}")).collect();
    format!(
        "{}/{total}  loss {:.3} ({})  lr {:.5}  {speed:.2} it/s  data wait {:.0} %  {} left",
        report.iteration,
        report.loss,
        parts.join(", "),
        report.learning_rate,
        100.0 * report.data_seconds / report.seconds.max(1e-9),
        clock(left)
    )
}

fn validation_line(report: &StepReport) -> Option<String> {
    let v = report.validation.as_ref()?;
    let score = |ap: f64| if ap < 0.0 { "—".to_string() } else { format!("{:.1}", 100.0 * ap) };
    Some(format!(
        "validation after {}: loss {:.3}, AP over IoU .5 to .95 {}, at IoU .5 {} ({} images, {:.1} s){}",
        v.iteration,
        v.loss,
        score(v.ap),
        score(v.ap50),
        v.images,
        v.seconds,
        if v.improved { ", the best so far" } else { "" }
    ))
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
    let mut base = if let Some(source) = &arguments.fork {
        saved_config(source)?
    } else if arguments.resume {
        saved_config(folder)?
    } else if let Some(path) = &arguments.config {
        let text = std::fs::read_to_string(path)
            .map_err(|e| format!("cannot read the configuration ({e}): {}", path.display()))?;
        toml::from_str(&text).map_err(|e| format!("the configuration does not read ({e}): {}", path.display()))?
    } else {
        let arch: Arch = arguments.model.parse()?;
        let split = arguments.split.clone().or_else(|| data::open::training_split(&arguments.data));
        let dataset = data::open::open(&arguments.data, split.as_deref())?;
        let config = RunConfig::new(arch, &arguments.data, &dataset);
        match arguments.preset {
            Some(preset) => RunConfig { train: TrainConfig::preset(arch, preset)?, ..config },
            None => config,
        }
    };
    if arguments.no_augmentation {
        base.train.augmentation = Augmentation::none();
    }
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
