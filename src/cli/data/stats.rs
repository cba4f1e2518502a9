//! `boxwright data stats`: what a data set holds, as tables with bars, and the anchors that would fit it.

use super::model_config;
use crate::cli::{Answer, CliError, Outcome, write_json};
use crate::data::open;
use crate::data::statistics::{
    AnchorFit, Bin, Distribution, PositionMap, QUANTILES, Statistics, fit_anchors, statistics,
};
use crate::imaging::{ChannelOrder, Fit, Preprocess};
use serde_json::json;
use std::path::PathBuf;

/// Characters of the longest bar.
const BAR: usize = 30;
/// Classes that are printed; the rest is counted.
const LISTED_CLASSES: usize = 100;
/// Darkness of a cell, emptiest first.
const SHADES: [char; 5] = [' ', '░', '▒', '▓', '█'];
/// The input that anchors are for when nothing else is said: YOLOv3's.
const INPUT: (usize, usize) = (416, 416);

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Data set: a path, or shapes
    data: String,
    /// Split of the data set
    #[arg(long)]
    split: Option<String>,
    /// Find so many anchors by k-means
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u16).range(1..=64))]
    anchors: Option<u16>,
    /// Network input that the anchors are for, pixels (416x416 when left out)
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = parse_size, conflicts_with = "model")]
    input: Option<(usize, usize)>,
    /// Fit whole pictures into the input instead of stretching them over it
    #[arg(long, conflicts_with = "model")]
    letterbox: bool,
    /// Architecture whose input the anchors are for
    #[arg(long)]
    model: Option<String>,
    /// Seed of k-means
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write as JSON (- for stdout)
    #[arg(long)]
    json: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let dataset = open::open(&arguments.data, arguments.split.as_deref())?;
    let measured = statistics(&dataset);
    let fit = match arguments.anchors {
        Some(count) => Some(fit_anchors(&dataset, &preprocess(arguments)?, usize::from(count), arguments.seed)),
        None => None,
    };
    match &arguments.json {
        Some(file) => write_json(file, &json!({ "statistics": measured, "anchors": fit }))?,
        None => {
            print(&measured);
            if let Some(fit) = fit {
                print_anchors(&fit);
            }
        }
    }
    Ok(Answer::Yes)
}

fn preprocess(arguments: &Arguments) -> Result<Preprocess, CliError> {
    if let Some(name) = &arguments.model {
        return Ok(model_config(name, &[])?.preprocess().clone());
    }
    let (width, height) = arguments.input.unwrap_or(INPUT);
    let fit = if arguments.letterbox {
        Fit::Letterbox { width, height, fill: 127.5 }
    } else {
        Fit::Stretch { width, height }
    };
    Ok(Preprocess { fit, order: ChannelOrder::Rgb, mean: [0.0; 3], std: [1.0; 3] })
}

/// Width and height from `416x320`.
fn parse_size(text: &str) -> Result<(usize, usize), String> {
    let side = |text: &str| text.trim().parse::<usize>().ok().filter(|side| (1..=8192).contains(side));
    let (width, height) = text.split_once(['x', '×']).unwrap_or((text, text));
    match (side(width), side(height)) {
        (Some(width), Some(height)) => Ok((width, height)),
        _ => Err("write it as WIDTHxHEIGHT, each from 1 to 8192 pixels".to_owned()),
    }
}

fn print(s: &Statistics) {
    println!("{} {}: {} images, {} objects (digest {})", s.name, s.split, s.images, s.objects, s.digest);
    println!(
        "{} images without objects; {} groups, {} difficult, {} masks",
        s.images_without_objects, s.crowds, s.difficult, s.masks
    );
    println!("\n{:<22} {:>8} {:>8} {:>8}", "class", "objects", "images", "√area");
    let most = s.classes.iter().map(|class| class.objects as u64).max().unwrap_or(0);
    for class in s.classes.iter().take(LISTED_CLASSES) {
        let side = number(class.median_side);
        let bar = bar(class.objects as u64, most);
        println!("{:<22} {:>8} {:>8} {side:>8}  {bar}", class.name, class.objects, class.images);
    }
    if s.classes.len() > LISTED_CLASSES {
        println!("… and {} more classes; --json lists them", s.classes.len() - LISTED_CLASSES);
    }
    println!("\nsizes as COCO counts them (area below 32², below 96², above)");
    for size in &s.sizes {
        let share = 100.0 * size.objects as f64 / s.objects.max(1) as f64;
        println!("{:<22} {:>8} {share:>7.1} %", size.range.name(), size.objects);
    }
    print!("\n{:<22} {:>8}", "", "mean");
    for q in QUANTILES {
        print!(" {:>8}", quantile_name(q));
    }
    println!();
    let rows = [
        ("√area, pixels", &s.side),
        ("width, pixels", &s.width),
        ("height, pixels", &s.height),
        ("width / height", &s.aspect),
        ("√(area / picture)", &s.relative_side),
        ("objects per image", &s.per_image),
    ];
    for (name, distribution) in rows {
        print!("{name:<22} {:>8}", number(distribution.mean));
        for index in 0..QUANTILES.len() {
            print!(" {:>8}", number(distribution.quantiles.get(index).copied()));
        }
        println!();
    }
    print_histogram("√area, pixels", &s.side);
    print_histogram("width / height", &s.aspect);
    print_histogram("objects per image", &s.per_image);
    println!("\nwhere the centres lie, {} × {} cells of the picture", s.positions.columns, s.positions.rows);
    for row in heat_rows(&s.positions) {
        println!("  |{row}|");
    }
    println!("\npicture sizes ({} in all)", s.distinct_picture_sizes);
    for size in &s.picture_sizes {
        println!("{:<22} {:>8}", format!("{} × {}", size.width, size.height), size.images);
    }
}

fn print_histogram(name: &str, distribution: &Distribution) {
    println!("\n{name}");
    let most = distribution.histogram.iter().map(|bin| bin.count).max().unwrap_or(0);
    for Bin { low, high, count } in &distribution.histogram {
        println!("{:>9} to {:>8}  {count:>8}  {}", number(Some(*low)), number(Some(*high)), bar(*count, most));
    }
}

fn print_anchors(fit: &AnchorFit) {
    println!("\n{} anchors for {} ({} boxes)", fit.anchors.len(), fit.preprocessing, fit.objects);
    for [width, height] in &fit.anchors {
        println!("{width:>9.1} × {height:.1}");
    }
    println!(
        "average IoU {:.3}; {:.1} % of the boxes have an anchor of IoU 0.5 by shape",
        fit.average_iou,
        100.0 * fit.fitting
    );
}

/// A bar of at most [`BAR`] characters, in eighths; something is seen of everything above 0.
fn bar(count: u64, most: u64) -> String {
    const PARTS: [char; 8] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];
    let eighths = (count as f64 / most.max(1) as f64 * (8 * BAR) as f64).round() as usize;
    let eighths = if count > 0 { eighths.clamp(1, 8 * BAR) } else { 0 };
    let mut text = "█".repeat(eighths / 8);
    if let Some(part) = (eighths % 8).checked_sub(1).and_then(|part| PARTS.get(part)) {
        text.push(*part);
    }
    text
}

/// One line a row of cells, two characters a cell.
fn heat_rows(map: &PositionMap) -> Vec<String> {
    let most = map.counts.iter().copied().max().unwrap_or(0).max(1);
    let shade = |count: u64| {
        let level = (count as f64 / most as f64 * (SHADES.len() - 1) as f64).ceil() as usize;
        SHADES.get(level).copied().unwrap_or('█')
    };
    let row = |counts: &[u64]| -> String { counts.iter().flat_map(|&count| [shade(count); 2]).collect() };
    map.counts.chunks(map.columns.max(1)).map(row).collect()
}

/// Three digits that matter; a dash where there is no number.
fn number(value: Option<f32>) -> String {
    match value {
        Some(value) if value.is_finite() && value.abs() >= 100.0 => format!("{value:.0}"),
        Some(value) if value.is_finite() && value.abs() >= 10.0 => format!("{value:.1}"),
        Some(value) if value.is_finite() => format!("{value:.2}"),
        _ => "—".to_owned(),
    }
}

fn quantile_name(q: f32) -> String {
    match q {
        0.0 => "least".to_owned(),
        0.5 => "median".to_owned(),
        1.0 => "most".to_owned(),
        q => format!("{:.0} %", 100.0 * q),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_strictly() {
        assert_eq!(parse_size("416x320"), Ok((416, 320)));
        assert_eq!(parse_size("608"), Ok((608, 608)));
        for text in ["", "x", "0x4", "416x", "4x9000", "-1x4", "4x5x6"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bars_and_shades_follow_the_counts() {
        assert_eq!(bar(0, 10), "");
        assert_eq!(bar(10, 10).chars().count(), BAR);
        assert_eq!(bar(1, 1_000_000), "▏");
        // a half of 30 characters, and a sixteenth: one and seven eighths
        assert_eq!(bar(5, 10).chars().count(), 15);
        assert_eq!(bar(1, 16), "█▉");
        let map = PositionMap { rows: 2, columns: 2, counts: vec![0, 1, 4, 2] };
        assert_eq!(heat_rows(&map), ["  ░░", "██▒▒"]);
        assert_eq!([number(None), number(Some(123.4)), number(Some(0.5))], ["—", "123", "0.50"]);
        assert_eq!(QUANTILES.map(quantile_name).join(" "), "least 5 % 25 % median 75 % 95 % most");
    }
}
