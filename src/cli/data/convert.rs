//! `boxwright data convert`: writes a data set in another format and tells what that format cannot keep.

use crate::cli::{Answer, Outcome, write_json};
use crate::data::convert::{ConvertReport, ConvertSettings, Format, Images, convert};
use crate::data::dataset::{Dataset, Severity};
use crate::data::open::{OpenOptions, open_with, separate_splits};
use crate::data::{CsvColumns, Masks};
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Data set: a path, or shapes
    data: String,
    /// Format to write: coco, voc, yolo, yolo-seg, csv, via, labelme, openimages
    #[arg(long)]
    to: Format,
    /// Folder to write into; made when it is not there
    #[arg(long)]
    out: PathBuf,
    /// Splits to write; every one that shares no image with another when left out
    #[arg(long, value_delimiter = ',')]
    split: Vec<String>,
    /// Columns of a CSV file: path=0,x0=1,y0=2,x1=3,y1=4,class=5, or names of its header
    #[arg(long)]
    columns: Option<CsvColumns>,
    /// Region attribute of a VIA file that holds the class
    #[arg(long)]
    class_attribute: Option<String>,
    /// Copy the images; else they are linked where the file system can
    #[arg(long, conflicts_with = "no_images")]
    copy_images: bool,
    /// Write annotations alone
    #[arg(long)]
    no_images: bool,
    /// Write into a folder that is not empty, over files of the same name
    #[arg(long)]
    overwrite: bool,
    /// Write the report as JSON (- for stdout)
    #[arg(long)]
    json: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let options = OpenOptions {
        columns: arguments.columns.clone(),
        class_attribute: arguments.class_attribute.clone(),
        // What is not read cannot be written.
        masks: Masks::UpTo(usize::MAX),
    };
    let names = match arguments.split.as_slice() {
        [] => separate_splits(&arguments.data, &options)?,
        chosen => chosen.to_vec(),
    };
    let mut splits: Vec<Dataset> = Vec::with_capacity(names.len());
    for name in &names {
        splits.push(open_with(&arguments.data, Some(name), &options)?);
    }
    let images = match (arguments.copy_images, arguments.no_images) {
        (true, _) => Images::Copy,
        (false, true) => Images::None,
        (false, false) => Images::Link,
    };
    let settings = ConvertSettings { images, overwrite: arguments.overwrite };
    let report = convert(&splits, arguments.to, &arguments.out, settings)?;
    let findings: Vec<_> = splits.iter().flat_map(|split| &split.warnings).collect();
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    match &arguments.json {
        Some(file) => {
            let report = serde_json::to_value(&report)?;
            write_json(file, &json!({ "report": report, "findings": findings, "errors": errors }))?;
        }
        None => print(&report, findings.len(), errors, arguments),
    }
    Ok(Answer::Yes)
}

fn print(report: &ConvertReport, findings: usize, errors: usize, arguments: &Arguments) {
    println!(
        "{} {}: {} images, {} objects, {} masks, {} classes: {}",
        report.format,
        report.splits.join(", "),
        report.images,
        report.objects,
        report.masks,
        report.classes,
        arguments.out.display()
    );
    let files = [
        (report.linked, "linked"),
        (report.copied, "copied"),
        (report.drawn, "drawn"),
        (report.missing, "missing, so not there"),
    ];
    let told: Vec<String> =
        files.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    if told.is_empty() {
        println!("image files: none written");
    } else {
        println!("image files: {}", told.join(", "));
    }
    if report.dropped.is_empty() {
        println!("nothing was lost");
    }
    for dropped in &report.dropped {
        println!("lost: {} {}: {}", dropped.count, dropped.what, dropped.how);
    }
    if findings > 0 {
        println!("{findings} findings in what was read, {errors} of them errors: see boxwright data check");
    }
}
