//! The load report: which parameters of a network a checkpoint fills, and which of either are left over.

use super::checkpoint::Checkpoint;
use serde::Serialize;
use std::fmt;

/// Share of a backbone's numbers without which a detector is not worth asking.
pub const ENOUGH_OF_A_BACKBONE: f64 = 0.95;

/// Entries of each list that are printed for people.
const SHOWN: usize = 20;

/// A parameter that a network has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Expected {
    pub name: String,
    pub shape: Vec<usize>,
}

/// What loading a checkpoint into a network does, key by key. Counters of batch normalisation
/// (`num_batches_tracked`) are left out on both sides: nothing computes with them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LoadReport {
    /// Names that are in both with the same shape.
    pub loaded: Vec<String>,
    /// What the network has and the checkpoint lacks.
    pub missing: Vec<Expected>,
    /// Name and shape of what the checkpoint has and the network lacks.
    pub unexpected: Vec<(String, Vec<usize>)>,
    /// Name, shape in the network and shape in the checkpoint, where they differ.
    pub mismatched: Vec<(String, Vec<usize>, Vec<usize>)>,
    /// Those of `mismatched` that keep the values they were built with because the caller asked for that: a head of
    /// another number of classes.
    pub reinitialised: Vec<String>,
    /// Loaded elements ÷ elements of the network, 0 to 1; 0 for a network without parameters.
    pub coverage: f64,
    /// Elements of each entry of `loaded`.
    #[serde(skip)]
    loaded_elements: Vec<usize>,
}

/// Compares what a network expects with what a checkpoint holds, by name and shape. Nothing is read.
pub fn compare(expected: &[Expected], checkpoint: &Checkpoint) -> LoadReport {
    let mut report = LoadReport {
        loaded: Vec::new(),
        missing: Vec::new(),
        unexpected: Vec::new(),
        mismatched: Vec::new(),
        reinitialised: Vec::new(),
        coverage: 0.0,
        loaded_elements: Vec::new(),
    };
    let mut used = vec![false; checkpoint.tensors().len()];
    for parameter in expected.iter().filter(|parameter| !is_counter(&parameter.name)) {
        let position = checkpoint.position(&parameter.name);
        if let Some(used) = position.and_then(|position| used.get_mut(position)) {
            *used = true;
        }
        match checkpoint.get(&parameter.name) {
            Some(stored) if stored.shape == parameter.shape => {
                report.loaded.push(parameter.name.clone());
                report.loaded_elements.push(elements(&parameter.shape));
            }
            Some(stored) => {
                report.mismatched.push((parameter.name.clone(), parameter.shape.clone(), stored.shape.clone()));
            }
            None => report.missing.push(parameter.clone()),
        }
    }
    for (stored, used) in checkpoint.tensors().iter().zip(used) {
        if !used && !is_counter(&stored.name) {
            report.unexpected.push((stored.name.clone(), stored.shape.clone()));
        }
    }
    report.coverage = report.covered("");
    report
}

impl LoadReport {
    /// Whether every parameter of the network is filled.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.mismatched.is_empty()
    }

    /// Coverage of the parameters whose names start with `prefix`, such as `backbone.`: whether a file of a backbone
    /// alone fills it. 0 where there are none.
    pub fn backbone_coverage(&self, prefix: &str) -> f64 {
        self.covered(prefix)
    }

    /// Lets parameters of another shape outside of `backbone` keep the values they were built with.
    pub fn reinitialise(&mut self, backbone: &str) {
        let head = self.mismatched.iter().map(|(name, ..)| name).filter(|name| !name.starts_with(backbone));
        self.reinitialised = head.cloned().collect();
    }

    /// Whether a detector with these weights is worth asking: all is filled, or what is not (and was not given up by
    /// [`Self::reinitialise`]) lies in the backbone, at least [`ENOUGH_OF_A_BACKBONE`] of which is.
    pub fn suffices(&self, backbone: Option<&str>) -> bool {
        let mismatched = self.mismatched.iter().map(|(name, ..)| name);
        let unfilled = self.missing.iter().map(|entry| &entry.name).chain(mismatched);
        let mut unfilled = unfilled.filter(|name| !self.reinitialised.contains(name)).peekable();
        if unfilled.peek().is_none() {
            return true;
        }
        backbone.is_some_and(|backbone| {
            unfilled.all(|name| name.starts_with(backbone)) && self.covered(backbone) >= ENOUGH_OF_A_BACKBONE
        })
    }

    fn covered(&self, prefix: &str) -> f64 {
        let names = self.loaded.iter().map(String::as_str);
        let loaded = total_below(prefix, names.zip(self.loaded_elements.iter().copied()));
        let missing = self.missing.iter().map(|entry| (entry.name.as_str(), elements(&entry.shape)));
        let mismatched = self.mismatched.iter().map(|(name, shape, _)| (name.as_str(), elements(shape)));
        let unfilled = total_below(prefix, missing) + total_below(prefix, mismatched);
        let total = loaded + unfilled;
        if total > 0.0 { loaded / total } else { 0.0 }
    }
}

/// Sum of the counts whose names start with `prefix`.
fn total_below<'a>(prefix: &str, counts: impl Iterator<Item = (&'a str, usize)>) -> f64 {
    counts.filter(|(name, _)| name.starts_with(prefix)).fold(0.0, |sum, (_, count)| sum + count as f64)
}

fn elements(shape: &[usize]) -> usize {
    shape.iter().fold(1usize, |product, &size| product.saturating_mul(size))
}

fn is_counter(name: &str) -> bool {
    name == "num_batches_tracked" || name.ends_with(".num_batches_tracked")
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} loaded, {} missing, {} unexpected, {} of another shape; {:.1} % of the network's numbers are filled",
            self.loaded.len(),
            self.missing.len(),
            self.unexpected.len(),
            self.mismatched.len(),
            self.coverage * 100.0
        )?;
        let missing = self.missing.iter().map(|entry| format!("{} {:?}", entry.name, entry.shape));
        list(f, "missing", missing)?;
        let unexpected = self.unexpected.iter().map(|(name, shape)| format!("{name} {shape:?}"));
        list(f, "unexpected", unexpected)?;
        let mismatched = self
            .mismatched
            .iter()
            .map(|(name, expected, found)| format!("{name}: the network has {expected:?}, the file {found:?}"));
        list(f, "of another shape", mismatched)?;
        list(f, "left as built, as asked", self.reinitialised.iter().cloned())
    }
}

/// The first entries of a list under its title; nothing for an empty one.
fn list(f: &mut fmt::Formatter<'_>, title: &str, entries: impl ExactSizeIterator<Item = String>) -> fmt::Result {
    let count = entries.len();
    if count == 0 {
        return Ok(());
    }
    writeln!(f, "{title}:")?;
    for entry in entries.take(SHOWN) {
        writeln!(f, "  {entry}")?;
    }
    if count > SHOWN {
        writeln!(f, "  … and {} more", count - SHOWN)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::checkpoint::{Contents, Format};
    use crate::weights::source::Source;
    use crate::weights::tensor::{Blob, Dtype, Region, StoredTensor};

    fn checkpoint(entries: &[(&str, &[usize])]) -> Checkpoint {
        let region = Region { blob: Blob::File, start: 0, end: 1000, big_endian: false };
        let mut contents = Contents::default();
        for (name, shape) in entries {
            let tensor = StoredTensor::new((*name).to_owned(), Dtype::U8, shape.to_vec(), None, 0, region).unwrap();
            contents.tensors.push(tensor);
        }
        Checkpoint::new(Format::Safetensors, Source::Static(&[]), contents, None)
    }

    fn expected(entries: &[(&str, &[usize])]) -> Vec<Expected> {
        entries.iter().map(|(name, shape)| Expected { name: (*name).to_owned(), shape: shape.to_vec() }).collect()
    }

    #[test]
    fn every_key_is_in_one_list_and_coverage_counts_elements() {
        let network = expected(&[
            ("backbone.w", &[2, 3]),
            ("backbone.b", &[2]),
            ("head.w", &[10]),
            ("head.b", &[2]),
            ("bn.num_batches_tracked", &[]),
        ]);
        let file = checkpoint(&[
            ("backbone.w", &[2, 3]),
            ("head.w", &[5, 2]),
            ("head.b", &[2]),
            ("fc.w", &[7]),
            ("x.num_batches_tracked", &[]),
        ]);
        let report = compare(&network, &file);
        assert_eq!(report.loaded, ["backbone.w", "head.b"]);
        assert_eq!(report.missing, expected(&[("backbone.b", &[2])]));
        assert_eq!(report.unexpected, [("fc.w".to_owned(), vec![7])]);
        assert_eq!(report.mismatched, [("head.w".to_owned(), vec![10], vec![5, 2])]);
        // (6 + 2) of 6 + 2 + 10 + 2 elements; in the backbone 6 of 8
        assert!((report.coverage - 8.0 / 20.0).abs() < 1e-12);
        assert!((report.backbone_coverage("backbone.") - 6.0 / 8.0).abs() < 1e-12);
        assert_eq!(report.backbone_coverage("neck."), 0.0);
        assert!(!report.is_complete());
    }

    #[test]
    fn a_backbone_may_lack_a_little_and_a_head_nothing() {
        let network = expected(&[("backbone.w", &[97]), ("backbone.b", &[3]), ("head.w", &[10])]);
        let whole: &[(&str, &[usize])] = &[("backbone.w", &[97]), ("backbone.b", &[3]), ("head.w", &[10])];
        let report = |entries: &[(&str, &[usize])]| compare(&network, &checkpoint(entries));
        let backbone = Some("backbone.");
        assert!(report(whole).suffices(backbone) && report(whole).suffices(None));
        let little = report(&[whole[0], whole[2]]);
        assert!(little.suffices(backbone) && !little.suffices(None));
        assert!(!report(&[whole[1], whole[2]]).suffices(backbone));
        assert!(!report(&whole[..2]).suffices(backbone));
        // a head of another shape only where that was asked for
        let mut other = report(&[whole[0], whole[1], ("head.w", &[20])]);
        assert!(!other.suffices(backbone));
        other.reinitialise("backbone.");
        assert_eq!(other.reinitialised, ["head.w"]);
        assert!(other.suffices(backbone) && other.suffices(None) && !other.is_complete());
        assert!(other.to_string().contains("as asked:\n  head.w"), "{other}");
    }

    #[test]
    fn people_see_counts_and_the_first_entries_and_machines_see_all() {
        let names: Vec<String> = (0..25).map(|number| format!("layer{number}")).collect();
        let network: Vec<Expected> = names.iter().map(|name| Expected { name: name.clone(), shape: vec![1] }).collect();
        let report = compare(&network, &checkpoint(&[]));
        let text = report.to_string();
        assert!(text.contains("25 missing") && text.contains("layer19 [1]") && text.contains("5 more"), "{text}");
        assert!(!text.contains("layer20") && !text.contains("unexpected:"), "{text}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["missing"].as_array().unwrap().len(), 25);
        assert_eq!(json["missing"][24]["name"], "layer24");
        assert!(json.get("loaded_elements").is_none());
    }
}
