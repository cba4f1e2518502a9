//! `boxwright weights`: what a file holds, and what of it fits a model, key by key.

use super::{Answer, Outcome, write_json};
use crate::detect::{Arch, Config, names::names_for};
use crate::engine::model::{fit, implied_config, translate};
use crate::train::checkpoint::described_model;
use crate::weights;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Architecture to compare with; what the file says when left out
    #[arg(long)]
    model: Option<String>,
    /// Write the report as JSON (- for stdout)
    #[arg(long)]
    json: Option<PathBuf>,
    /// Weights file
    file: PathBuf,
}

/// Exit 1 when a model was named and the file does not fill it.
pub fn run(arguments: &Arguments) -> Outcome {
    let mut checkpoint = weights::open(&arguments.file)?;
    let listed: Vec<_> = checkpoint
        .tensors()
        .iter()
        .map(|t| serde_json::json!({ "name": t.name, "shape": t.shape, "dtype": format!("{:?}", t.dtype) }))
        .collect();
    let format = format!("{:?}", checkpoint.format());
    let elements: usize = checkpoint.tensors().iter().map(|t| t.shape.iter().product::<usize>()).sum();
    let described = described_model(checkpoint.metadata());
    let asked = arguments.model.as_deref().map(str::parse::<Arch>).transpose()?;
    let layout = translate(&mut checkpoint);
    let config = match (asked, described) {
        (Some(arch), Some(config)) if config.arch() == arch => Some(config),
        (Some(arch), None) => Some(implied_config(arch, &checkpoint)),
        (Some(arch), Some(_)) => Some(Config::new(arch, &names_for(80))),
        (None, described) => described,
    };
    let report = config.as_ref().map(|config| fit(config, &checkpoint)).transpose()?;
    let fits = report.as_ref().is_none_or(|r| r.missing.is_empty() && r.mismatched.is_empty());
    if let Some(file) = &arguments.json {
        write_json(
            file,
            &serde_json::json!({
                "format": format,
                "layout": layout.map(|l| format!("{l:?}")),
                "tensors": listed,
                "elements": elements,
                "model": config.as_ref().map(|c| c.arch().name()),
                "report": report,
                "metadata": checkpoint.metadata(),
            }),
        )?;
    } else {
        let layout = layout.map_or("unknown".to_string(), |l| format!("{l:?}"));
        println!("{format}, {} tensors, {elements} values, layout {layout}", listed.len());
        match (&config, &report) {
            (Some(config), Some(report)) => println!("as {}:\n{report}", config.arch()),
            _ => {
                for tensor in &listed {
                    println!(
                        "  {} {} {}",
                        tensor["name"].as_str().unwrap_or_default(),
                        tensor["shape"],
                        tensor["dtype"]
                    );
                }
            }
        }
    }
    Ok(if fits { Answer::Yes } else { Answer::No })
}
