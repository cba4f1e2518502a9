//! `boxwright data`: the health and the statistics of a data set.

use super::{Answer, Outcome, write_json};
use crate::data::dataset::{Dataset, Finding, Severity};
use crate::data::{check, open};
use clap::Subcommand;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Health report; exit 1 when there are errors
    Check(Source),
    /// Classes, sizes and counts
    Stats(Source),
}

#[derive(Debug, clap::Args)]
struct Source {
    /// Data set: a path, or shapes
    data: String,
    /// Split of the data set
    #[arg(long)]
    split: Option<String>,
    /// Look at image headers only, not at every pixel
    #[arg(long)]
    quick: bool,
    /// Write as JSON (- for stdout)
    #[arg(long)]
    json: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Outcome {
    match &arguments.action {
        Action::Check(source) => check_health(source),
        Action::Stats(source) => statistics(source),
    }
}

fn check_health(source: &Source) -> Outcome {
    let dataset = open::open(&source.data, source.split.as_deref())?;
    let depth = if source.quick { check::Depth::Headers } else { check::Depth::Pixels };
    let findings: Vec<Finding> = check::check(&dataset, depth);
    let errors = findings.iter().filter(|f| f.severity == Severity::Error).count();
    if let Some(file) = &source.json {
        write_json(file, &serde_json::json!({ "errors": errors, "findings": findings }))?;
    } else {
        for finding in &findings {
            let object = finding.object.map(|o| format!(" object {o}")).unwrap_or_default();
            println!("{:?}  {}{object}  {}: {}", finding.severity, finding.file, finding.rule, finding.message);
        }
        println!("{}: {} images, {} findings, {errors} errors", dataset.name, dataset.images.len(), findings.len());
    }
    Ok(if errors == 0 { Answer::Yes } else { Answer::No })
}

fn statistics(source: &Source) -> Outcome {
    let dataset: Dataset = open::open(&source.data, source.split.as_deref())?;
    let objects: usize = dataset.images.iter().map(|i| i.objects.len()).sum();
    let counts = dataset.class_counts();
    let mut sides: Vec<f32> = dataset
        .images
        .iter()
        .flat_map(|i| &i.objects)
        .map(|o| o.bbox.area().sqrt())
        .filter(|s| s.is_finite())
        .collect();
    let quantiles: Vec<f32> = [0.0, 0.25, 0.5, 0.75, 1.0]
        .iter()
        .map(|&q| crate::stats::quantile(&mut sides, q).unwrap_or(f32::NAN))
        .collect();
    if let Some(file) = &source.json {
        let per_class: Vec<_> = dataset.classes.iter().zip(&counts).collect();
        write_json(
            file,
            &serde_json::json!({
                "name": dataset.name, "split": dataset.split, "images": dataset.images.len(), "objects": objects,
                "classes": per_class, "object_side_quantiles": quantiles, "digest": format!("{:016x}", dataset.digest()),
            }),
        )?;
        return Ok(Answer::Yes);
    }
    println!("{} {}: {} images, {objects} objects", dataset.name, dataset.split, dataset.images.len());
    for (name, count) in dataset.classes.iter().zip(&counts) {
        println!("  {name:<20} {count}");
    }
    println!("object side (√area), pixels: min, quartiles, max: {quantiles:.1?}");
    Ok(Answer::Yes)
}
