//! `boxwright weights`: what a file holds, and what of it fits a model, key by key.

use super::{Answer, Outcome, detect, write_json};
use crate::detect::{Arch, Config, names::names_for};
use crate::engine::command::ModelChoice;
use crate::engine::model::{fit, implied_config, translate};
use crate::train::checkpoint::described_model;
use crate::weights::{self, Checkpoint, Format};
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Architecture, or a darknet .cfg, to compare with; what the file says when left out
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
    let mut tensors = listed(&checkpoint);
    let format = checkpoint.format();
    let elements: usize = checkpoint.tensors().iter().map(|t| t.shape.iter().product::<usize>()).sum();
    let metadata = checkpoint.metadata().clone();
    let described = described_model(&metadata);
    let layout = translate(&mut checkpoint);
    let config = match &arguments.model {
        None => described,
        Some(model) => Some(match detect::choice(Some(model.as_str()), None)? {
            ModelChoice::Configured(config) => *config,
            _ => named(model.parse()?, described, &checkpoint),
        }),
    };
    let report = match &config {
        None => None,
        Some(config) => {
            let (checkpoint, report) = fit(config, checkpoint)?;
            if format == Format::Darknet {
                tensors = listed(&checkpoint);
            }
            Some(report)
        }
    };
    let fits = report.as_ref().is_none_or(|r| r.missing.is_empty() && r.mismatched.is_empty());
    if let Some(file) = &arguments.json {
        let json = json!({
            "format": format!("{format:?}"),
            "layout": layout.map(|l| format!("{l:?}")),
            "tensors": tensors,
            "elements": elements,
            "model": config.as_ref().map(|c| c.arch().name()),
            "report": report,
            "metadata": metadata,
        });
        write_json(file, &json)?;
    } else {
        let layout = layout.map_or("unknown".to_string(), |l| format!("{l:?}"));
        println!("{format:?}, {} tensors, {elements} values, layout {layout}", tensors.len());
        // a report names what is not right; the layers of darknet's floats are news in any case
        if report.is_none() || format == Format::Darknet {
            for tensor in &tensors {
                println!("  {} {} {}", tensor["name"].as_str().unwrap_or_default(), tensor["shape"], tensor["dtype"]);
            }
        }
        if let (Some(config), Some(report)) = (&config, &report) {
            println!("as {} with {} classes:\n{report}", config.arch(), config.classes().len());
        }
    }
    Ok(if fits { Answer::Yes } else { Answer::No })
}

/// The settings of `arch` that the file is compared with: its own, where it is one of that architecture.
fn named(arch: Arch, described: Option<Config>, checkpoint: &Checkpoint) -> Config {
    match described {
        Some(config) if config.arch() == arch => config,
        Some(_) => Config::new(arch, &names_for(80)),
        None => implied_config(arch, checkpoint),
    }
}

fn listed(checkpoint: &Checkpoint) -> Vec<Value> {
    let tensors = checkpoint.tensors().iter();
    tensors.map(|t| json!({ "name": t.name, "shape": t.shape, "dtype": format!("{:?}", t.dtype) })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CFG: &str = "[net]\nwidth=32\nheight=32\n\
        [convolutional]\nbatch_normalize=1\nfilters=2\nsize=1\nactivation=leaky\n\
        [convolutional]\nfilters=6\nsize=1\nactivation=linear\n[yolo]\nanchors=4,5\nclasses=1\n";

    #[test]
    fn the_layers_of_darknets_floats_are_listed_by_the_cfg() {
        let folder = tempfile::tempdir().unwrap();
        let (cfg, file, json) =
            (folder.path().join("net.cfg"), folder.path().join("net.weights"), folder.path().join("report.json"));
        std::fs::write(&cfg, CFG).unwrap();
        let arguments = |model: Option<String>| Arguments { model, json: Some(json.clone()), file: file.clone() };
        let reported = |model: Option<String>| {
            let answer = run(&arguments(model)).unwrap();
            (answer, serde_json::from_slice::<Value>(&std::fs::read(&json).unwrap()).unwrap())
        };
        // 4·2 + 6 and 6 + 12 floats behind the header of version 0.2.5
        let header = b"\0\0\0\0\x02\0\0\0\x05\0\0\0\0\0\0\0\0\0\0\0";
        let floats = |count: usize| [header.as_slice(), &[0u8; 4].repeat(count)].concat();
        std::fs::write(&file, floats(32)).unwrap();
        let (answer, report) = reported(Some(cfg.display().to_string()));
        assert_eq!((answer, report["format"].as_str()), (Answer::Yes, Some("Darknet")));
        let names: Vec<&str> =
            report["tensors"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
        assert_eq!(
            (names.len(), names[0], names[6]),
            (7, "module_list.0.BatchNorm2d.bias", "module_list.1.Conv2d.weight")
        );
        assert_eq!(report["report"]["loaded"].as_array().unwrap().len(), 7);
        // the first layer alone leaves two tensors without numbers
        std::fs::write(&file, floats(14)).unwrap();
        let (answer, report) = reported(Some(cfg.display().to_string()));
        assert_eq!((answer, report["report"]["missing"].as_array().unwrap().len()), (Answer::No, 2));
        // without a network there are floats and nothing more
        assert_eq!(reported(None).1["tensors"][0]["name"], "darknet");
    }
}
