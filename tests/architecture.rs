//! The floors: a module uses only what stands on a lower floor, or a neighbour that the table lists.

use std::fs;
use std::path::{Path, PathBuf};

/// (module, floor, neighbours on the same floor that it may use)
const FLOORS: [(&str, u8, &[&str]); 17] = [
    ("random", 0, &[]),
    ("geometry", 0, &["random"]),
    ("trace", 0, &["geometry"]),
    ("stats", 0, &["random"]),
    ("ops", 1, &[]),
    ("imaging", 1, &[]),
    ("weights", 1, &[]),
    ("render", 1, &[]),
    ("data", 2, &[]),
    ("eval", 2, &[]),
    ("nn", 2, &[]),
    ("detect", 3, &[]),
    ("train", 4, &[]),
    ("engine", 5, &[]),
    ("app", 6, &["cli"]),
    ("cli", 6, &["app"]),
    ("main", 7, &[]),
];

/// (crate, modules that may name it)
const CRATES: [(&str, &[&str]); 4] = [
    ("candle_core", &["ops", "weights", "nn", "detect", "train", "engine"]),
    ("egui", &["app"]),
    ("eframe", &["app"]),
    ("wgpu", &["render", "app"]),
];

/// Modules that may not know candle although they stand above `ops`.
const WITHOUT_OPS: [&str; 6] = ["imaging", "render", "data", "eval", "app", "cli"];

fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

fn module_of(path: &Path, root: &Path) -> String {
    let first = path.strip_prefix(root).unwrap().components().next().unwrap().as_os_str();
    Path::new(first).file_stem().unwrap().to_string_lossy().into_owned()
}

/// The top-level modules that a line names after `crate::`.
fn named(line: &str) -> Vec<String> {
    let mut out = Vec::new();
    for part in line.split("crate::").skip(1) {
        let word: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if word.is_empty() {
            let inside = part.trim_start_matches('{').split('}').next().unwrap_or("");
            let items = inside.split(',').map(|i| i.trim().split("::").next().unwrap_or("").to_string());
            out.extend(items.filter(|i| !i.is_empty()));
        } else {
            out.push(word);
        }
    }
    out
}

#[test]
fn every_module_stands_on_its_floor() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 30, "the walk found only {} files", files.len());
    let mut wrong = Vec::new();
    for path in &files {
        let module = module_of(path, &root);
        if module == "lib" {
            continue;
        }
        let Some((_, floor, neighbours)) = FLOORS.iter().find(|(name, ..)| *name == module) else {
            wrong.push(format!("{}: module {module} has no floor", path.display()));
            continue;
        };
        for (number, line) in fs::read_to_string(path).unwrap().lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            let place = || format!("{}:{}: {}", path.display(), number + 1, line.trim());
            for used in named(code) {
                let Some((_, below, _)) = FLOORS.iter().find(|(name, ..)| *name == used) else { continue };
                let allowed = used == module || below < floor || neighbours.contains(&used.as_str());
                if !allowed || (used == "ops" && WITHOUT_OPS.contains(&module.as_str())) {
                    wrong.push(format!("{} ({module} may not use {used})", place()));
                }
            }
            for (name, allowed) in CRATES {
                let names_it = code.contains(&format!("{name}::")) || code.contains(&format!("use {name};"));
                if names_it && !allowed.contains(&module.as_str()) && !code.contains(&format!("_{name}::")) {
                    wrong.push(format!("{} ({module} may not know {name})", place()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_check_sees_a_wrong_line() {
    assert_eq!(named("use crate::app::open;"), ["app"]);
    assert_eq!(named("use crate::{data::open, eval};"), ["data", "eval"]);
    assert!(named("use super::open;").is_empty());
}

#[test]
fn files_stay_short_enough_to_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let long: Vec<String> = files
        .iter()
        .map(|path| (path, fs::read_to_string(path).unwrap().lines().count()))
        .filter(|(_, lines)| *lines > 700)
        .map(|(path, lines)| format!("{} has {lines} lines", path.display()))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}
