//! The health of a whole data set: each of its splits, and what must not stand in two of them.

use super::classes::compare_classes;
use super::likeness::{Alike, Likeness, shared};
use super::{CheckSettings, Checked, Dataset, Finding, Severity, Source, check_with};
use crate::data::error::DataError;
use crate::data::findings::Findings;
use crate::data::open;
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// One split and what was found in it.
#[derive(Clone, Debug)]
pub struct CheckedSet {
    pub dataset: Dataset,
    /// Errors first.
    pub findings: Vec<Finding>,
}

/// What was found in a data set.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub sets: Vec<CheckedSet>,
    /// What shows only when splits are laid side by side.
    pub across: Vec<Finding>,
}

impl Report {
    /// Every finding with the name of its split; an empty name for those about several.
    pub fn findings(&self) -> impl Iterator<Item = (&str, &Finding)> {
        let own = self.sets.iter().flat_map(|set| set.findings.iter().map(|f| (set.dataset.split.as_str(), f)));
        own.chain(self.across.iter().map(|finding| ("", finding)))
    }

    pub fn count(&self, severity: Severity) -> usize {
        self.findings().filter(|(_, finding)| finding.severity == severity).count()
    }

    /// Whether nothing annotated is lost.
    pub fn is_healthy(&self) -> bool {
        self.count(Severity::Error) == 0
    }
}

/// What a split is for, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Train,
    Validation,
    Test,
}

impl Role {
    /// Unions of parts (`trainval`, `all`) are none.
    fn of(split: &str) -> Option<Self> {
        let name = split.to_ascii_lowercase();
        match name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '_' || c == '-') {
            "train" | "training" => Some(Self::Train),
            "val" | "valid" | "validation" | "minival" => Some(Self::Validation),
            "test" | "testing" => Some(Self::Test),
            _ => None,
        }
    }
}

/// The splits of a data set that are for different things, one of each kind, `opened` before others of its kind; none
/// where they are all for the same.
fn parts_of(path_or_name: &str, opened: &str) -> Vec<String> {
    let mut splits = open::splits(path_or_name);
    splits.sort_by_key(|name| name != opened);
    let mut parts: Vec<(Role, String)> = Vec::new();
    for name in splits {
        if let Some(role) = Role::of(&name)
            && parts.iter().all(|(taken, _)| *taken != role)
        {
            parts.push((role, name));
        }
    }
    if parts.len() < 2 {
        return Vec::new();
    }
    parts.into_iter().map(|(_, name)| name).collect()
}

/// Checks `split` of a data set; without one, what [`open::open`] opens, and how the splits for training, validation and
/// test agree. Where what is opened is one of those splits, the others are checked like it.
///
/// `go_on` is that of [`check_with`], for one split after another.
///
/// # Errors
/// Those of [`open::open`] for the first split; another one that does not open is a finding.
pub fn report(
    path_or_name: &str,
    split: Option<&str>,
    settings: CheckSettings<'_>,
    go_on: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<Report, DataError> {
    let first = open::open(path_or_name, split)?;
    let drawn = first.images.iter().all(|image| matches!(image.source, Source::Shapes { .. }));
    let names = if split.is_none() && !drawn { parts_of(path_or_name, &first.split) } else { Vec::new() };
    let whole = !names.contains(&first.split);
    let names: Vec<String> = names.into_iter().filter(|name| *name != first.split).collect();

    let Checked { findings, likenesses } = check_with(&first, settings, go_on);
    let mut across: Vec<Finding> = Vec::new();
    let mut parts: Vec<Part> = Vec::new();
    let mut sets: Vec<CheckedSet> = Vec::new();
    if whole {
        // the parts' images are among those that were looked at
        let known = by_path(&first, &likenesses);
        for name in &names {
            match open::open(path_or_name, Some(name)) {
                Ok(dataset) => parts.push(Part::of_known(dataset, &known)),
                Err(error) => across.push(unopened(name, &error)),
            }
        }
        drop(known);
        sets.push(CheckedSet { dataset: first, findings });
    } else {
        parts.push(Part { dataset: first, findings, likenesses });
        for name in &names {
            match open::open(path_or_name, Some(name)) {
                Ok(dataset) => {
                    let Checked { findings, likenesses } = check_with(&dataset, settings, go_on);
                    parts.push(Part { dataset, findings, likenesses });
                }
                Err(error) => across.push(unopened(name, &error)),
            }
        }
    }
    across.extend(compare(&parts));
    across.sort_by_key(|finding| finding.severity);
    if !whole {
        sets.extend(parts.into_iter().map(|Part { dataset, findings, .. }| CheckedSet { dataset, findings }));
    }
    Ok(Report { sets, across })
}

fn unopened(split: &str, error: &DataError) -> Finding {
    let message = format!("the split does not open; training and evaluation on it will fail: {error}");
    Finding::new(Severity::Error, "unreadable-split", split, message)
}

/// A split that is compared with others.
struct Part {
    dataset: Dataset,
    findings: Vec<Finding>,
    likenesses: Vec<Option<Likeness>>,
}

impl Part {
    /// One whose images were looked at as those of another split.
    fn of_known(dataset: Dataset, known: &HashMap<&Path, Likeness>) -> Self {
        let likeness = |source: &Source| path_of(source).and_then(|path| known.get(path).copied());
        let likenesses = dataset.images.iter().map(|entry| likeness(&entry.source)).collect();
        Self { dataset, findings: Vec::new(), likenesses }
    }
}

fn path_of(source: &Source) -> Option<&Path> {
    match source {
        Source::File(path) => Some(path),
        Source::Shapes { .. } => None,
    }
}

fn by_path<'a>(dataset: &'a Dataset, likenesses: &[Option<Likeness>]) -> HashMap<&'a Path, Likeness> {
    let pairs = dataset.images.iter().zip(likenesses);
    pairs.filter_map(|(entry, likeness)| Some((path_of(&entry.source)?, (*likeness)?))).collect()
}

/// What two splits share that should not, and what one of them lacks.
fn compare(parts: &[Part]) -> Vec<Finding> {
    let mut findings = Findings::default();
    let datasets: Vec<&Dataset> = parts.iter().map(|part| &part.dataset).collect();
    findings.extend(compare_classes(&datasets));
    let mut listed: HashMap<&Path, (usize, usize)> = HashMap::new();
    let mut told: HashSet<(usize, usize)> = HashSet::new();
    for (group, part) in parts.iter().enumerate() {
        for (index, entry) in part.dataset.images.iter().enumerate() {
            let Some(path) = path_of(&entry.source) else { continue };
            let &mut earlier = listed.entry(path).or_insert((group, index));
            if earlier.0 != group {
                told.insert((group, index));
                findings.push(in_two_splits(parts, (group, index), earlier, "is listed in both splits"));
            }
        }
    }
    let groups: Vec<&[Option<Likeness>]> = parts.iter().map(|part| part.likenesses.as_slice()).collect();
    for pair in shared(&groups).into_iter().filter(|pair| !told.contains(&pair.picture)) {
        let how = match pair.alike {
            Alike::Same => "has the same pixels".to_owned(),
            Alike::Near(bits) => format!("looks the same (hashes differ in {bits} of 256 bits)"),
        };
        findings.push(in_two_splits(parts, pair.picture, pair.earlier, &how));
    }
    findings.finish("all splits")
}

fn in_two_splits(parts: &[Part], picture: (usize, usize), earlier: (usize, usize), how: &str) -> Finding {
    let name = |(group, index): (usize, usize)| match parts.get(group) {
        Some(part) => {
            let image = part.dataset.images.get(index).map_or("", |entry| entry.name.as_str());
            (image, part.dataset.split.as_str())
        }
        None => ("", ""),
    };
    let ((image, split), (other, other_split)) = (name(picture), name(earlier));
    let message = format!(
        "of split {split} {how} as {other} of split {other_split}; a model trained on one of them has seen the answer to \
         the other, and its score there is too good"
    );
    Finding::new(Severity::Warning, "image-in-two-splits", image, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_a_split_is_for() {
        for name in ["train", "train2017", "Training", "train_1"] {
            assert_eq!(Role::of(name), Some(Role::Train), "{name}");
        }
        for name in ["val", "valid", "val2017", "minival2014"] {
            assert_eq!(Role::of(name), Some(Role::Validation), "{name}");
        }
        assert_eq!(Role::of("test-2"), Some(Role::Test));
        for name in ["trainval", "all", "", "2017", "test-dev"] {
            assert_eq!(Role::of(name), None, "{name}");
        }
    }
}
