//! `boxwright parity`: a network against a reference implementation's recorded outputs, losses and gradients.

use super::{Answer, Outcome, write_json};
use crate::engine::DeviceChoice;
use crate::engine::parity::compare_file;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Write every comparison as JSON (- for stdout)
    #[arg(long)]
    json: Option<PathBuf>,
    /// Compare with the convolutions that training and detection use, at twice the tolerance
    #[arg(long)]
    quick: bool,
    /// Where the networks run: cpu, cuda:N or auto
    #[arg(long, default_value = "cpu")]
    device: DeviceChoice,
    /// Fixture files. Published weights that one names are looked for in the folder of BOXWRIGHT_WEIGHTS, beside the
    /// fixture and in data/weights of the folders above it
    #[arg(required = true)]
    fixtures: Vec<PathBuf>,
}

/// Exit 1 when something is outside its tolerance.
pub fn run(arguments: &Arguments) -> Outcome {
    let mut all = Vec::new();
    let mut agree = true;
    for path in &arguments.fixtures {
        let parity = compare_file(path, arguments.quick, arguments.device)?;
        println!("{} ({})", parity.model, parity.source);
        for check in &parity.checks {
            let verdict = if check.agrees() { "ok" } else { "DIFFERS" };
            agree &= check.agrees();
            println!("  {:<52} {:>10.3e}  allowed {:>9.3e}  {verdict}", check.name, check.error, check.allowed);
            all.push(serde_json::json!({
                "fixture": parity.model, "name": check.name, "error": check.error, "allowed": check.allowed,
                "agrees": check.agrees(),
            }));
        }
    }
    if let Some(file) = &arguments.json {
        write_json(file, &serde_json::Value::Array(all))?;
    }
    println!("{}", if agree { "all within tolerance" } else { "some outside tolerance" });
    Ok(if agree { Answer::Yes } else { Answer::No })
}
