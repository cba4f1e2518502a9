//! Mangled files for every reader of weights and networks: bounded runs from seeds that the tests make. Nothing may
//! panic, hang, or hold more memory than a small multiple of the file.

use crate::weights::{exercise, samples, weighed};
use boxwright::detect::darknet::DarknetConfig;
use boxwright::detect::names::names_for;
use boxwright::random::Random;
use boxwright::weights::{DarknetWeights, Format};

/// Numbers that lengths, counts and offsets are set to.
const EXTREMES: [u64; 8] = [0, 1, 0x7f, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX >> 1, u64::MAX];

/// A file with one thing done to it that careless and hostile writers do.
fn mangled(bytes: &[u8], others: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut mangled = bytes.to_vec();
    if mangled.is_empty() {
        return mangled;
    }
    let at = random.below(mangled.len());
    let run = at..(at + 1 + random.below(40)).min(mangled.len());
    match random.below(7) {
        0 => mangled.truncate(at),
        1 => drop(mangled.drain(run)),
        2 => {
            let copy = mangled[run].to_vec();
            let to = random.below(mangled.len());
            mangled.splice(to..to, copy);
        }
        3 => {
            let number = EXTREMES[random.below(EXTREMES.len())].to_le_bytes();
            let width = [1, 2, 4, 8][random.below(4)];
            for (byte, value) in mangled.iter_mut().skip(at).zip(&number[..width]) {
                *byte = *value;
            }
        }
        4 => {
            let repeated = vec![mangled[at]; 1 + random.below(300)];
            mangled.splice(at..at, repeated);
        }
        5 => {
            let other = &others[random.below(others.len())];
            let from = random.below(other.len());
            let piece = other[from..(from + 60).min(other.len())].to_vec();
            mangled.splice(run, piece);
        }
        _ => mangled[run].reverse(),
    }
    mangled
}

/// The seeds of one format.
fn seeds(format: Format) -> Vec<Vec<u8>> {
    let all = samples().into_iter();
    all.filter(|bytes| exercise(bytes).is_ok_and(|checkpoint| checkpoint.format() == format)).collect()
}

fn survives(format: Format, cases: u64) {
    let (seeds, others) = (seeds(format), samples());
    assert!(!seeds.is_empty());
    for case in 0..cases {
        let mut random = Random::keyed(23, &[format as u64, case]);
        let mut bytes = seeds[random.below(seeds.len())].clone();
        for _ in 0..1 + random.below(4) {
            bytes = mangled(&bytes, &others, &mut random);
        }
        // bounds are asserted within
        let opened = exercise(&bytes);
        if let Ok(checkpoint) = opened
            && checkpoint.format() == Format::Darknet
        {
            let _ = DarknetWeights::from_checkpoint(&checkpoint);
        }
    }
}

#[test]
fn mangled_archives_are_survived() {
    survives(Format::TorchZip, 1500);
}

#[test]
fn mangled_legacy_streams_are_survived() {
    survives(Format::TorchLegacy, 2500);
}

#[test]
fn mangled_pickles_are_survived() {
    survives(Format::Pickle, 2500);
}

#[test]
fn mangled_safetensors_are_survived() {
    survives(Format::Safetensors, 2500);
}

#[test]
fn mangled_darknet_weights_are_survived() {
    survives(Format::Darknet, 2500);
}

/// A cfg with every kind of section.
const CFG: &str = "[net]\nwidth=64\nheight=64\nchannels=3\n\
    [convolutional]\nbatch_normalize=1\nfilters=8\nsize=3\nstride=2\npad=1\nactivation=leaky\n\
    [convolutional]\nbatch_normalize=1\nfilters=8\nsize=3\npad=1\ngroups=8\nactivation=swish\n\
    [avgpool]\n\
    [convolutional]\nfilters=8\nsize=1\nactivation=logistic\n\
    [scale_channels]\nfrom=-3\n\
    [dropout]\nprobability=.1\n\
    [shortcut]\nfrom=-5\nactivation=linear\n\
    [maxpool]\nsize=2\nstride=2\n\
    [route]\nlayers=-1\ngroups=2\ngroup_id=1\n\
    [upsample]\nstride=2\n\
    [convolutional]\nfilters=14\nsize=1\nactivation=linear\n\
    [yolo]\nmask=0,1\nanchors=4,5, 10,12\nclasses=2\nnum=2\nignore_thresh=.7\n";

/// Values that a line of a cfg is set to.
const VALUES: [&str; 10] =
    ["0", "-1", "1", "65536", "2147483647", "99999999999999999999", "-2147483648", "1e9", "", "x"];

/// The text with one line changed, lost, doubled or moved.
fn mangled_text(text: &str, random: &mut Random) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if lines.is_empty() {
        return String::new();
    }
    let at = random.below(lines.len());
    match random.below(6) {
        0 => drop(lines.remove(at)),
        1 => lines.insert(random.below(lines.len()), lines[at].clone()),
        2 => {
            if let Some((key, _)) = lines[at].split_once('=') {
                lines[at] = format!("{key}={}", VALUES[random.below(VALUES.len())]);
            }
        }
        3 => {
            let other = random.below(lines.len());
            lines.swap(at, other);
        }
        4 => lines.truncate(at),
        _ => lines[at].push_str([",-1", ",9", "]", "=", " ", "0"][random.below(6)]),
    }
    lines.join("\n")
}

#[test]
fn mangled_cfgs_are_read_or_refused() {
    let seeds = [CFG.to_string(), DarknetConfig::tiny(&names_for(3)).cfg, DarknetConfig::spp(&names_for(2)).cfg];
    let mut readable = 0;
    for case in 0..1500u64 {
        let mut random = Random::keyed(29, &[case]);
        let mut text = seeds[random.below(seeds.len())].clone();
        for _ in 0..1 + random.below(4) {
            text = mangled_text(&text, &mut random);
        }
        let (read, peak) = weighed(|| DarknetConfig::read(&text));
        assert!(peak <= 64 * text.len() as isize + (32 << 20), "{peak} bytes held for a text of {}", text.len());
        match read {
            Ok(config) => readable += usize::from(!config.classes.is_empty()),
            // the line that is named is one of the text's
            Err(error) => assert!(error.line >= 1 && error.line <= text.lines().count().max(1), "{error}"),
        }
    }
    // the mangling is mild enough that readers get beyond their first checks
    assert!(readable > 50, "{readable} of 1500 still read");
}
