//! One remark about one image or box: what is wrong, by which rule, and what training does about it.

use serde::Serialize;
use std::collections::BTreeMap;

/// How bad a finding is; the worst sorts first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something annotated is lost: an image or its annotation cannot be used.
    Error,
    /// Training works, but probably not on what was meant.
    Warning,
    /// Worth knowing.
    Info,
}

/// A remark about a data set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    /// The file (or image name) that it is about, as the data set names it.
    pub file: String,
    /// Object in that file, counted from 0 in the file's order; COCO annotations carry their id in the message.
    pub object: Option<usize>,
    /// Stable name of the rule, say `degenerate-box`.
    pub rule: String,
    /// What is wrong and what training will do about it.
    pub message: String,
}

impl Finding {
    pub fn new(severity: Severity, rule: &str, file: &str, message: String) -> Self {
        Self { severity, file: file.to_owned(), object: None, rule: rule.to_owned(), message }
    }

    /// The same finding about object `index` of the file.
    pub fn of_object(mut self, index: usize) -> Self {
        self.object = Some(index);
        self
    }
}

/// Findings of one rule that are kept in full; more are counted only, so that a broken file cannot fill the memory.
pub(super) const KEPT_PER_RULE: usize = 1000;

/// Gathers findings within bounds.
#[derive(Debug, Default)]
pub(super) struct Findings {
    kept: Vec<Finding>,
    seen: BTreeMap<String, usize>,
}

impl Findings {
    pub(super) fn push(&mut self, finding: Finding) {
        let seen = self.seen.entry(finding.rule.clone()).or_insert(0);
        *seen += 1;
        if *seen <= KEPT_PER_RULE {
            self.kept.push(finding);
        }
    }

    pub(super) fn extend(&mut self, findings: Vec<Finding>) {
        for finding in findings {
            self.push(finding);
        }
    }

    /// All that was kept, in the order found, then one remark for each rule that overflowed. `name`: the data set.
    pub(super) fn finish(self, name: &str) -> Vec<Finding> {
        let mut list = self.kept;
        for (rule, seen) in self.seen {
            if seen > KEPT_PER_RULE {
                let message = format!("{} more findings of the rule {rule} are not listed", seen - KEPT_PER_RULE);
                list.push(Finding::new(Severity::Info, "more-of-the-same", name, message));
            }
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overflowing_rule_is_counted_and_others_stay() {
        let mut findings = Findings::default();
        for index in 0..KEPT_PER_RULE + 7 {
            findings.push(Finding::new(Severity::Warning, "degenerate-box", "a", String::new()).of_object(index));
        }
        findings.push(Finding::new(Severity::Error, "missing-image", "b", String::new()));
        let list = findings.finish("set");
        assert_eq!(list.len(), KEPT_PER_RULE + 2);
        assert_eq!(list[KEPT_PER_RULE].rule, "missing-image");
        assert_eq!(list[KEPT_PER_RULE + 1].message, "7 more findings of the rule degenerate-box are not listed");
        assert!(Severity::Error < Severity::Info, "errors sort first");
    }
}
