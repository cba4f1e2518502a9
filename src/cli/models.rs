//! `boxwright models`: what can be built, and where it can run.

use super::{Answer, Outcome, write_json};
use crate::detect::Arch;
use crate::engine::DeviceChoice;
use crate::engine::devices::devices;
use crate::engine::model::survey;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Write the list as JSON (- for stdout)
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where the networks are built: cpu, cuda:N or auto
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let device = arguments.device.open()?;
    let mut rows = Vec::new();
    for arch in Arch::ALL {
        let summary = survey(arch, &device)?;
        let (height, width) = summary.config.input();
        rows.push(serde_json::json!({
            "name": arch.name(),
            "input": [height, width],
            "classes": summary.config.classes().len(),
            "parameters": summary.parameters,
            "gflops": summary.flops / 1e9,
            "layouts": summary.layouts,
            "embedded_weights": arch.embedded_weights().is_some(),
            "device": summary.device,
        }));
    }
    if let Some(file) = &arguments.json {
        write_json(file, &serde_json::Value::Array(rows))?;
        return Ok(Answer::Yes);
    }
    println!(
        "{:<18} {:>9} {:>12} {:>8}  {:<9} layouts (80 classes)",
        "name", "input", "parameters", "GFLOPs", "embedded"
    );
    for row in &rows {
        let layouts: Vec<&str> = row["layouts"].as_array().into_iter().flatten().filter_map(|l| l.as_str()).collect();
        println!(
            "{:<18} {:>4}×{:<4} {:>12} {:>8.1}  {:<9} {}",
            row["name"].as_str().unwrap_or_default(),
            row["input"][0],
            row["input"][1],
            row["parameters"],
            row["gflops"].as_f64().unwrap_or_default(),
            if row["embedded_weights"] == true { "yes" } else { "no" },
            layouts.join(", ")
        );
    }
    print!("\n{}", devices());
    Ok(Answer::Yes)
}
