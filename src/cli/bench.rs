//! `boxwright bench`: times of stages, passes, training steps and single convolutions, in the form of the peers' script.

use super::{Answer, CliError, Outcome, threads, write_json};
use crate::detect::Arch;
use crate::engine::bench::{CONVOLUTIONS, Stages, Times, convolution, forward, peak_gflops, train};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Architectures to time
    #[arg(long, num_args = 1..)]
    model: Vec<String>,
    /// Also time training steps
    #[arg(long)]
    train: bool,
    /// Images per training step
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Time single convolutions of the published networks
    #[arg(long)]
    conv: bool,
    /// Threads that compute; 0 for one a core
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Measured repetitions
    #[arg(long, default_value_t = 8)]
    repeat: usize,
    /// Write as JSON (- for stdout)
    #[arg(long)]
    json: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Outcome {
    threads(arguments.threads)?;
    if arguments.model.is_empty() && !arguments.conv {
        return Err(CliError("say what to time: --model NAME… or --conv".into()));
    }
    let mut out = Map::new();
    let count = crate::engine::bench::thread_count();
    let peak = peak_gflops(count);
    println!("{count} threads, measured peak {peak:.0} GFLOP/s");
    out.insert("threads".into(), json!(count));
    out.insert("peak_gflops".into(), json!(peak));
    if arguments.conv {
        for shape in CONVOLUTIONS {
            let (name, times, gflops) = convolution(shape, arguments.repeat)?;
            let share = gflops / peak;
            println!("{name:<34} {:>8.2} ms  {gflops:>6.0} GFLOP/s  {:>4.0} % of peak", times.median, 100.0 * share);
            let mut value = as_json(times);
            value["gflops"] = json!(gflops);
            value["of_peak"] = json!(share);
            out.insert(name, value);
        }
    }
    for name in &arguments.model {
        let arch: Arch = name.parse()?;
        let (times, stages) = forward(arch, arguments.repeat)?;
        println!("{arch} forward, 640×480 picture: {}", text(times));
        out.insert(format!("{name} forward"), with_stages(times, stages));
        if arguments.train {
            let (times, stages) = train(arch, arguments.batch, arguments.repeat)?;
            println!("{arch} training step, batch {}: {}", arguments.batch, text(times));
            out.insert(format!("{name} train batch {}", arguments.batch), with_stages(times, stages));
        }
    }
    if let Some(file) = &arguments.json {
        write_json(file, &Value::Object(out))?;
    }
    Ok(Answer::Yes)
}

/// Prints the stages and puts them beside the whole.
fn with_stages(times: Times, stages: Stages) -> Value {
    for (stage, median) in &stages {
        println!("  {stage:<14} {median:>8.2} ms");
    }
    let mut value = as_json(times);
    value["stages_ms"] =
        stages.into_iter().map(|(stage, ms)| (stage, json!(ms))).collect::<Map<String, Value>>().into();
    value
}

fn text(times: Times) -> String {
    format!("median {:.1} ms ({:.1}–{:.1})", times.median, times.min, times.max)
}

fn as_json(times: Times) -> Value {
    json!({ "median_ms": times.median, "min_ms": times.min, "max_ms": times.max })
}
