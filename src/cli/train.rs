//! `boxwright train`: a run on the command line, through the same engine as the window.

mod plan;

use super::{Answer, CliError, Outcome, detect, threads, train_jobs};
use crate::engine::command::{InitialWeights, ModelChoice};
use crate::engine::model::Permit;
use crate::engine::runs::{Runs, RunsError};
use crate::engine::{Command, DeviceChoice, Engine, Event, Precision, Severity};
use crate::train::{Preset, StepReport, Validation};
use plan::{Begin, Job, own_folder, plan};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// While a run goes on, the index of runs is told this often at most.
const NOTE_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Architecture, or a darknet .cfg, which gets the data's classes; when left out, that of the settings that are gone on with, or ssd-nano
    #[arg(long)]
    model: Option<String>,
    /// Data set: a path, or shapes; when left out, that of the settings that are gone on with, or shapes
    #[arg(long)]
    data: Option<String>,
    /// YOLO: learn with priors that k-means finds for the boxes of the data
    #[arg(long, conflicts_with_all = ["resume", "fork"])]
    anchors: bool,
    /// Split to learn from; the one called train when left out
    #[arg(long)]
    split: Option<String>,
    /// Training settings by name: embed (how the embedded weights are made; on the built-in data all phases of it, one
    /// after another), or the published schedule 1x, 2x, 3x
    #[arg(long, conflicts_with_all = ["config", "fork"])]
    preset: Option<Preset>,
    /// TOML file of a run to start from
    #[arg(long, conflicts_with_all = ["resume", "fork"])]
    config: Option<PathBuf>,
    /// Changes a setting (iterations=500, learning_rate=0.01)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// What the network multiplies in: f32, tf32, f16 or bf16; short for --set precision=…
    #[arg(long)]
    precision: Option<Precision>,
    /// Learn from the images as they are
    #[arg(long)]
    no_augmentation: bool,
    /// Weights to start from, of the same architecture and classes; random ones when left out
    #[arg(long, conflicts_with_all = ["resume", "fork"])]
    weights: Option<PathBuf>,
    /// Weights to take what fits from: a classification network's backbone, another detector's body
    #[arg(long, value_name = "FILE", conflicts_with_all = ["weights", "resume", "fork"])]
    backbone: Option<PathBuf>,
    /// Folder of the run; when left out, one in runs that is called as the network
    #[arg(long)]
    out: Option<PathBuf>,
    /// Go on with the run in --out; with --preset embed, with its phases
    #[arg(long, conflicts_with = "fork")]
    resume: bool,
    /// Go on from another run's state after --at iterations, with changed settings, in a folder of its own
    #[arg(long, value_name = "RUN", requires = "at")]
    fork: Option<PathBuf>,
    /// Iterations done where the fork begins
    #[arg(long, value_name = "ITERATION", requires = "fork")]
    at: Option<u64>,
    /// Repeat the step that paused a run by itself, on the --device it ran on, and compare it with the record; exit 1
    /// where they differ
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
    /// cpu, cuda:N or auto; several with commas between them (cuda:0,cuda:1) share every batch
    #[arg(long, default_value = "auto", value_delimiter = ',')]
    pub(super) device: Vec<DeviceChoice>,
    /// Threads that compute; 0 for one a core
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

impl Arguments {
    fn model(&self) -> &str {
        self.model.as_deref().unwrap_or("ssd-nano")
    }

    fn data(&self) -> &str {
        self.data.as_deref().unwrap_or("shapes")
    }
}

pub fn run(arguments: &Arguments) -> Outcome {
    threads(arguments.threads)?;
    DeviceChoice::open_all(&arguments.device)?;
    if let Some(folder) = &arguments.replay {
        return train_jobs::replay(arguments, folder);
    }
    let folder = match (&arguments.out, &arguments.fork, arguments.at) {
        (Some(out), ..) => out.clone(),
        (None, Some(source), Some(at)) => {
            let name = source.file_name().map_or_else(|| "run".into(), |name| name.to_string_lossy());
            source.with_file_name(format!("{name}-fork-{at}"))
        }
        _ => own_folder(arguments)?,
    };
    let jobs = plan(arguments, &folder)?;
    if let (true, Some(job)) = (arguments.lr_range, jobs.first()) {
        return train_jobs::range_test(arguments, &job.config);
    }
    let root = folder.parent().filter(|root| !root.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for (number, job) in jobs.iter().enumerate() {
        if let (Some(source), Some(at)) = (&arguments.fork, arguments.at) {
            train_jobs::fork(&arguments.device, source, at, &job.config, &job.folder)?;
        }
        if jobs.len() > 1 {
            println!("phase {} of {}", number + 1, jobs.len());
        }
        let outcome = train(&arguments.device, job, root);
        index(root, &job.folder);
        outcome?;
    }
    Ok(Answer::Yes)
}

/// Runs one job to its end.
fn train(devices: &[DeviceChoice], job: &Job, root: &Path) -> Result<(), CliError> {
    let Job { config, folder, .. } = job;
    let engine = Engine::start_on(devices.to_vec(), Arc::new(|| {}))?;
    engine.send(Command::Probe(false));
    engine.send(Command::OpenData { path: config.data.clone(), split: config.split.clone() });
    let boxed = Box::new(config.clone());
    let start = match &job.begin {
        Begin::Resume => None,
        Begin::Fresh(start) => Some(start.clone()),
        Begin::Weights(file) => {
            let weights = Some(file.clone());
            engine.send(Command::LoadModel { choice: ModelChoice::FromWeights, weights, permit: Permit::default() });
            Some(InitialWeights::Loaded)
        }
    };
    engine.send(match start {
        None => Command::ResumeTraining { folder: folder.clone(), config: Some(boxed) },
        Some(start) => Command::StartTraining { config: boxed, folder: Some(folder.clone()), start },
    });
    if job.until.is_none() {
        engine.send(Command::Train);
    }
    println!("{} on {}, run folder {}", config.model.arch(), config.data, folder.display());
    follow(&engine, job, root)
}

/// Notes the run in the index at `root`. An index that fails is a warning: the run itself is on disk.
fn index(root: &Path, folder: &Path) {
    if let Err(error) = noted(root, folder) {
        eprintln!("{error}");
    }
}

fn noted(root: &Path, folder: &Path) -> Result<(), RunsError> {
    Runs::open(root)?.note(folder)
}

/// Prints progress until the run ends.
fn follow(engine: &Engine, job: &Job, root: &Path) -> Result<(), CliError> {
    let (total, folder) = (job.config.train.iterations, &job.folder);
    let mut rate = Rate::default();
    let terminal = std::io::stdout().is_terminal();
    let mut ready = false;
    let mut told = Instant::now();
    loop {
        let Some(event) = engine.wait(Duration::MAX) else {
            return Err(CliError("the engine stopped answering".into()));
        };
        match event {
            Event::Log { severity: Severity::Error, source, message } => {
                return Err(CliError(format!("{source}: {message}")));
            }
            Event::Log { severity, source, message } => eprintln!("{severity:?} {source}: {message}"),
            Event::TrainingReady { iteration, start, .. } => {
                ready = true;
                if let Some(report) = start {
                    detect::tell(&report);
                }
                index(root, folder);
                if iteration > 0 {
                    println!("resumed after iteration {iteration}");
                }
                if let Some(until) = job.until {
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
                if let Some(validation) = &report.validation {
                    println!("{}{}", if terminal { "\n" } else { "" }, validation_line(validation));
                }
                if told.elapsed() > NOTE_EVERY {
                    // An index that fails was complained of at the start.
                    _ = noted(root, folder);
                    told = Instant::now();
                }
            }
            Event::Validated(validation) => println!("{}", validation_line(&validation)),
            // Nobody pauses here: the wanted iteration is reached, or the run had no iteration left.
            Event::Training { running: false, iteration } if ready => {
                engine.send(Command::StopTraining);
                println!("\nstopping after iteration {iteration}");
            }
            Event::TrainingEnded { iteration, .. } => {
                let weights = Job::weights(folder);
                println!("\nended after iteration {iteration}; weights: {}", weights.display());
                if let Some(file) = &job.half {
                    embed(&weights, file)?;
                    println!("float16 weights: {}", file.display());
                }
                return Ok(());
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

fn validation_line(v: &Validation) -> String {
    let score = |ap: f64| if ap < 0.0 { "—".to_string() } else { format!("{:.1}", 100.0 * ap) };
    format!(
        "validation after {}: loss {:.3}, AP over IoU .5 to .95 {}, at IoU .5 {} ({} images, {:.1} s){}",
        v.iteration,
        v.loss,
        score(v.ap),
        score(v.ap50),
        v.images,
        v.seconds,
        if v.improved { ", the best so far" } else { "" }
    )
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
