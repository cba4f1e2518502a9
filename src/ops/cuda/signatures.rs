//! Launches against kernels, read off the sources: what no compiler checks between two languages.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Parameters after the count: `R` a pointer to read, `W` one to write, `I` an int, `F` a float.
fn kernels(source: &str) -> BTreeMap<String, String> {
    let ints = ["int size"; 15].join(",");
    let mut found = BTreeMap::new();
    for kernel in source.split("\nKERNEL ").skip(1) {
        let (name, rest) = kernel.split_once('(').unwrap();
        let parameters = rest.split_once(')').unwrap().0.replace("CONV_SIZES", &ints);
        let kind = |parameter: &str| match parameter.trim() {
            p if p.contains('*') => {
                if p.starts_with("const") {
                    'R'
                } else {
                    'W'
                }
            }
            p if p.starts_with("int ") => 'I',
            p if p.starts_with("float ") => 'F',
            p => panic!("{name}: what is {p:?}?"),
        };
        let mut parameters = parameters.split(',');
        assert_eq!(parameters.next().map(str::trim), Some("int count"), "{name}");
        found.insert(name.to_string(), parameters.map(kind).collect());
    }
    found
}

/// The items of a list whose opening bracket has been read, split at its own commas.
fn items(text: &str) -> Vec<String> {
    let (mut depth, mut items) = (0, vec![String::new()]);
    for c in text.chars() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' if depth == 0 => break,
            ')' | ']' => depth -= 1,
            ',' if depth == 0 => {
                items.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(item) = items.last_mut() {
            item.push(c);
        }
    }
    items.into_iter().map(|item| item.trim().to_string()).filter(|item| !item.is_empty()).collect()
}

/// Kernels and arguments of every launch; `*` stands for ints that a named array holds.
fn launches(source: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for call in source.split("launch(").skip(1) {
        let Some(name) = call.split('"').nth(1).filter(|_| items(call).get(1).is_some_and(|i| i.starts_with('"')))
        else {
            continue;
        };
        let arguments = items(call.split_once("&mut [").unwrap().1);
        let kinds: Vec<String> = arguments
            .iter()
            .map(|argument| match argument.split('(').next().unwrap() {
                "Arg::In" | "Arg::All" | "x" => "R".into(),
                "Arg::Out" | "Arg::Change" => "W".into(),
                "Arg::Float" => "F".into(),
                "Arg::Ints" => match argument.split_once("&[") {
                    Some((_, list)) => "I".repeat(items(list).len()),
                    None => "*".into(),
                },
                other => panic!("{name}: what is {other:?}?"),
            })
            .collect();
        found.push((name.to_string(), kinds.concat()));
    }
    found
}

fn fits(kernel: &[u8], launch: &[u8]) -> bool {
    match (kernel, launch) {
        ([], []) => true,
        ([b'I', kernel @ ..], [b'*', rest @ ..]) => fits(kernel, launch) || fits(kernel, rest),
        ([a, kernel @ ..], [b, launch @ ..]) => a == b && fits(kernel, launch),
        _ => false,
    }
}

#[test]
fn every_launch_gives_its_kernel_what_it_takes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops");
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    let driver = read(&folder.join("cuda/driver.rs"));
    let (mut sources, mut programs) =
        (read(&folder.join("conv/cuda.rs")) + &read(&folder.join("update.rs")), String::new());
    for entry in fs::read_dir(folder.join("cuda")).unwrap() {
        let path = entry.unwrap().path();
        match path.extension().and_then(|e| e.to_str()) {
            Some("rs") if !path.ends_with("signatures.rs") && !path.ends_with("driver.rs") => sources += &read(&path),
            Some("cu" | "cuh") => {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                assert!(driver.contains(&format!("include_str!(\"{name}\")")), "the driver leaves out {name}");
                programs += &read(&path);
            }
            _ => {}
        }
    }
    let (kernels, launches) = (kernels(&programs), launches(&sources));
    assert!(launches.len() > 30, "only {} launches were found", launches.len());
    for (name, given) in &launches {
        let takes = kernels.get(name).unwrap_or_else(|| panic!("{name} is launched, but is no kernel"));
        assert!(fits(takes.as_bytes(), given.as_bytes()), "{name} takes {takes} and is given {given}");
    }
    // nvcc knows them, NVRTC does not.
    let words = || programs.split(|c: char| !c.is_alphanumeric() && c != '_');
    for name in [
        "NAN",
        "INFINITY",
        "FLT_MAX",
        "FLT_MIN",
        "FLT_EPSILON",
        "DBL_MAX",
        "INT_MAX",
        "INT_MIN",
        "M_PI",
        "int64_t",
        "uint32_t",
    ] {
        assert!(!words().any(|word| word == name), "{name} needs a header");
    }
    for name in kernels.keys() {
        assert!(sources.contains(&format!("\"{name}\"")), "nothing launches {name}");
    }
}

#[test]
fn a_wrong_launch_is_seen() {
    assert!(fits(b"RIIW", b"R*W") && fits(b"RIIW", b"RIIW"));
    assert!(!fits(b"RIIW", b"RIW") && !fits(b"RW", b"R*W") && !fits(b"RIF", b"RFI"));
    let sample = "launch(device, \"a\", n, &mut [Arg::In(x), Arg::Ints(&[b(c, d), e])])";
    assert_eq!(launches(sample), [("a".to_string(), "RII".to_string())]);
    assert_eq!(kernels("\nKERNEL a(int count, const int* x, float f, double* y) {}")["a"], "RFW");
}
