//! `boxwright data check`: what is wrong with a data set, and what training will do about it.

use super::model_config;
use crate::cli::{Answer, Outcome, write_json};
use crate::data::check::{CheckSettings, CheckedSet, Depth, Report, report};
use crate::data::dataset::{Finding, Severity};
use crate::engine::reach::{Reach, reach};
use serde::Serialize;
use serde_json::json;
use std::collections::HashMap;
use std::io::IsTerminal;
use std::path::PathBuf;

/// Findings of one rule and split that are printed unless all are asked for.
const SHOWN: usize = 10;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Data set: a path, or shapes
    data: String,
    /// Split of the data set; all of it, and its splits against each other, when left out
    #[arg(long)]
    split: Option<String>,
    /// Look at image headers only: broken and repeated images are not found
    #[arg(long)]
    quick: bool,
    /// Architecture whose input and anchors the objects have to suit
    #[arg(long)]
    model: Option<String>,
    /// Changes a setting of the architecture (nms_threshold=0.5)
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "model")]
    set: Vec<String>,
    /// Print every finding
    #[arg(long)]
    all: bool,
    /// Write as JSON (- for stdout); objects count from 0
    #[arg(long)]
    json: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let config = match &arguments.model {
        Some(name) => Some(model_config(name, &arguments.set)?),
        None => None,
    };
    let settings = CheckSettings {
        depth: if arguments.quick { Depth::Headers } else { Depth::Pixels },
        preprocess: config.as_ref().map(|config| config.preprocess()),
    };
    let mut checked = report(&arguments.data, arguments.split.as_deref(), settings, &mut progress)?;
    let mut reaches: Vec<Reach> = Vec::new();
    if let Some(config) = &config {
        for set in &mut checked.sets {
            let found = reach(config, &set.dataset, &mut progress)?;
            set.findings.extend(found.findings.iter().cloned());
            set.findings.sort_by_key(|finding| finding.severity);
            reaches.push(found);
        }
    }
    match &arguments.json {
        Some(file) => write_json(file, &as_json(&checked, &reaches)?)?,
        None => print(&checked, &reaches, arguments),
    }
    Ok(if checked.is_healthy() { Answer::Yes } else { Answer::No })
}

/// Shows how far the work is where somebody is looking; never stops it.
fn progress(done: usize, total: usize) -> bool {
    if std::io::stderr().is_terminal() {
        if done < total {
            eprint!("\r{done} of {total} images");
        } else {
            eprint!("\r\x1b[K");
        }
    }
    true
}

/// A finding with the split that it is about.
#[derive(Serialize)]
struct InSplit<'a> {
    split: &'a str,
    #[serde(flatten)]
    finding: &'a Finding,
}

fn as_json(checked: &Report, reaches: &[Reach]) -> Result<serde_json::Value, serde_json::Error> {
    let sets: Vec<serde_json::Value> = checked
        .sets
        .iter()
        .map(|CheckedSet { dataset, .. }| {
            json!({
                "name": dataset.name,
                "split": dataset.split,
                "images": dataset.images.len(),
                "objects": dataset.object_count(),
            })
        })
        .collect();
    let findings: Vec<InSplit<'_>> = checked.findings().map(|(split, finding)| InSplit { split, finding }).collect();
    let reaches: Vec<serde_json::Value> = checked
        .sets
        .iter()
        .zip(reaches)
        .map(|(set, reach)| Ok(json!({ "split": set.dataset.split, "reach": serde_json::to_value(reach)? })))
        .collect::<Result<_, serde_json::Error>>()?;
    Ok(json!({
        "errors": checked.count(Severity::Error),
        "warnings": checked.count(Severity::Warning),
        "notes": checked.count(Severity::Info),
        "sets": sets,
        "findings": serde_json::to_value(findings)?,
        "reach": reaches,
    }))
}

fn print(checked: &Report, reaches: &[Reach], arguments: &Arguments) {
    let mut seen: HashMap<(&str, &str), usize> = HashMap::new();
    for (split, finding) in checked.findings() {
        let seen = seen.entry((split, finding.rule.as_str())).or_insert(0);
        *seen += 1;
        if arguments.all || *seen <= SHOWN {
            println!("{}", line(finding));
        }
    }
    let mut hidden: Vec<((&str, &str), usize)> =
        seen.into_iter().filter(|(_, count)| !arguments.all && *count > SHOWN).collect();
    hidden.sort_unstable();
    for ((split, rule), count) in hidden {
        let of = if split.is_empty() { String::new() } else { format!(" in {split}") };
        println!("         … {} more of {rule}{of}; --all prints them", count - SHOWN);
    }
    for (index, CheckedSet { dataset, .. }) in checked.sets.iter().enumerate() {
        let (images, objects) = (dataset.images.len(), dataset.object_count());
        println!("{} {}: {images} images, {objects} objects", dataset.name, dataset.split);
        if let Some(reach) = reaches.get(index) {
            print_reach(reach);
        }
    }
    if arguments.quick {
        println!("only headers were read: files that break off and repeated images are not among the findings");
    }
    println!(
        "{} errors, {} warnings, {} notes",
        checked.count(Severity::Error),
        checked.count(Severity::Warning),
        checked.count(Severity::Info)
    );
}

/// Severity, file, object (counted from 1), rule, and what training will do.
fn line(finding: &Finding) -> String {
    let severity = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Info => "note",
    };
    let object = finding.object.map(|object| format!(" object {}", object + 1)).unwrap_or_default();
    format!("{severity:<8} {}{object}  {}: {}", finding.file, finding.rule, finding.message)
}

fn print_reach(reach: &Reach) {
    println!("{}: {}", reach.model, reach.rule);
    println!("  {:<7} {:>9} {:>9} {:>9} {:>9} {:>9}", "size", "objects", "reached", "forced", "recall", "mean IoU");
    for size in &reach.sizes {
        let recall = size.recall.map_or_else(|| "—".to_owned(), |recall| format!("{:.1}", 100.0 * recall));
        let iou = size.mean_iou.map_or_else(|| "—".to_owned(), |iou| format!("{iou:.2}"));
        let (objects, reached, forced) = (size.objects, size.reached, size.forced);
        println!("  {:<7} {objects:>9} {reached:>9} {forced:>9} {recall:>9} {iou:>9}", size.name);
    }
    let at = reach.threshold.map(|threshold| format!(" at IoU {threshold}")).unwrap_or_default();
    let near = match reach.approximated {
        0 => String::new(),
        count => format!("; {count} of them with the anchors of the nearest frequent input size"),
    };
    println!("  best possible recall{at} in percent, over {} images{near}", reach.images);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_file_object_rule_and_consequence() {
        let finding = Finding::new(Severity::Warning, "degenerate-box", "a.xml", "left out".to_owned()).of_object(2);
        assert_eq!(line(&finding), "warning  a.xml object 3  degenerate-box: left out");
        let finding = Finding { object: None, severity: Severity::Info, ..finding };
        assert_eq!(line(&finding), "note     a.xml  degenerate-box: left out");
    }

    #[test]
    fn json_carries_the_split_of_each_finding() {
        let finding = Finding::new(Severity::Error, "missing-image", "a.png", "gone".to_owned());
        let report = Report { sets: Vec::new(), across: vec![finding] };
        let value = as_json(&report, &[]).unwrap();
        assert_eq!((&value["errors"], &value["warnings"]), (&json!(1), &json!(0)));
        let expected = json!({
            "split": "", "severity": "error", "file": "a.png", "object": null, "rule": "missing-image", "message": "gone"
        });
        assert_eq!(value["findings"][0], expected);
    }
}
