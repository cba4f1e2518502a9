//! Floor 6: the command line, one file a command. `--json` for machines, plain text for people; exit 0 yes, 1 no, 2 could not.

mod bench;
mod data;
mod detect;
mod eval;
mod models;
mod multiscale;
mod parity;
mod render;
mod trace;
mod train;
mod train_jobs;
mod weights;

use crate::engine::DeviceChoice;
use crate::engine::device::explained;
use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// A desktop workbench for object detection.
#[derive(Debug, Parser)]
#[command(name = "boxwright", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    window: WindowArguments,
}

/// Options of the window.
#[derive(Debug, clap::Args)]
pub struct WindowArguments {
    /// Images, folders, data sets or weights to open; the built-in sample when none is given
    pub paths: Vec<PathBuf>,
    /// cpu, cuda:N or auto
    #[arg(long, default_value = "auto")]
    pub device: DeviceChoice,
    /// Threads that compute; 0 for one a core
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
    /// Print times and what is going on to stderr
    #[arg(long)]
    pub verbose: bool,
    /// Close after this many seconds (for scripts and screenshots)
    #[arg(long)]
    pub exit_after: Option<f32>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List architectures with their input, parameters, operations and checkpoint layouts
    Models(models::Arguments),
    /// Detect in images
    Detect(detect::Arguments),
    /// Train a detector
    Train(train::Arguments),
    /// Score a model, or somebody's results, on a data set
    Eval(eval::Arguments),
    /// Write the record of one pass through a detector
    Trace(trace::Arguments),
    /// Report key by key what a weights file holds and what of it fits a model
    Weights(weights::Arguments),
    /// Check or describe a data set
    Data(data::Arguments),
    /// Compare a network with a reference implementation's recorded outputs
    Parity(parity::Arguments),
    /// Time stages, operations and whole passes
    Bench(bench::Arguments),
    /// Draw a view without a window
    Render(render::Arguments),
}

/// How a command ended that could run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Yes,
    No,
}

/// Why a command could not run: what failed, which file, what to do.
#[derive(Debug)]
pub struct CliError(pub String);

impl<E: std::fmt::Display> From<E> for CliError {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

type Outcome = Result<Answer, CliError>;

/// Parses the arguments and runs.
pub fn run() -> ExitCode {
    let start = Instant::now();
    let arguments = Arguments::parse();
    if arguments.window.verbose {
        tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    }
    let outcome = match arguments.command {
        None => window(arguments.window, start),
        Some(Command::Models(a)) => models::run(&a),
        Some(Command::Detect(a)) => detect::run(&a),
        Some(Command::Train(a)) => train::run(&a),
        Some(Command::Eval(a)) => eval::run(&a),
        Some(Command::Trace(a)) => trace::run(&a),
        Some(Command::Weights(a)) => weights::run(&a),
        Some(Command::Data(a)) => data::run(&a),
        Some(Command::Parity(a)) => parity::run(&a),
        Some(Command::Bench(a)) => bench::run(&a),
        Some(Command::Render(a)) => render::run(&a),
    };
    match outcome {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Err(CliError(message)) => {
            eprintln!("boxwright: {}", explained(message));
            ExitCode::from(2)
        }
    }
}

fn window(arguments: WindowArguments, start: Instant) -> Outcome {
    threads(arguments.threads)?;
    crate::app::open(arguments, start).map_err(CliError)?;
    Ok(Answer::Yes)
}

/// Sets the number of threads of every parallel loop; 0 leaves one a core.
fn threads(count: usize) -> Result<(), CliError> {
    if count > 0 {
        rayon::ThreadPoolBuilder::new().num_threads(count).build_global()?;
    }
    Ok(())
}

/// Prints a value as JSON to `file`, or to stdout for "-".
fn write_json(file: &Path, value: &serde_json::Value) -> Result<(), CliError> {
    let text = format!("{value:#}\n");
    if file == Path::new("-") {
        print!("{text}");
        return Ok(());
    }
    crate::weights::write_atomically(file, text.as_bytes())?;
    Ok(())
}
