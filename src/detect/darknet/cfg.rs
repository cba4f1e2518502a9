//! The text of a darknet cfg: sections of `key=value` lines, each with its line number, and checked values.
//!
//! As darknet reads it: blanks within a line do not count, lines that begin with `#` or `;` are comments, and of a key
//! that stands twice in a section the first counts. Unlike darknet, a value that is no number is an error.

use std::ops::RangeInclusive;
use std::str::FromStr;

/// Longest text, bytes.
const MAX_TEXT: usize = 1 << 20;
/// Most sections of one text.
const MAX_SECTIONS: usize = 2000;
/// Characters of a line that an error repeats.
const SHOWN: usize = 60;

/// A cfg that cannot be used: where and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cfg line {line}, [{section}]: {reason}")]
pub struct CfgError {
    /// Counts from 1.
    pub line: usize,
    pub section: String,
    pub reason: String,
}

/// One `key=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: String,
    pub line: usize,
}

/// One `[name]` and the lines below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Darknet's long name: `conv`, `max`, `avg` and `network` are written out.
    pub name: String,
    pub line: usize,
    pub entries: Vec<Entry>,
}

fn shortened(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

/// Splits a cfg into its sections; the first is `[net]`.
///
/// # Errors
/// A text that is too long or has too many sections, a line that is neither, or no `[net]` at the start.
pub fn parse(text: &str) -> Result<Vec<Section>, CfgError> {
    let fault = |line: usize, section: &str, reason: String| CfgError { line, section: section.to_owned(), reason };
    if text.len() > MAX_TEXT {
        return Err(fault(1, "start", format!("a text of {} bytes, at most {MAX_TEXT} are read", text.len())));
    }
    let mut sections: Vec<Section> = Vec::new();
    for (index, raw) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = index + 1;
        let packed: String = raw.chars().filter(|c| !c.is_whitespace()).collect();
        let bare = packed.split('#').next().unwrap_or_default();
        if bare.is_empty() || bare.starts_with(';') {
            continue;
        }
        if let Some(rest) = bare.strip_prefix('[') {
            let Some(name) = rest.strip_suffix(']').filter(|name| !name.is_empty()) else {
                return Err(fault(line, &shortened(rest), "a section is written [name]".to_owned()));
            };
            let name = match name {
                "network" => "net",
                "conv" => "convolutional",
                "max" => "maxpool",
                "avg" => "avgpool",
                other => other,
            };
            if sections.len() >= MAX_SECTIONS {
                return Err(fault(line, &shortened(name), format!("more than {MAX_SECTIONS} sections")));
            }
            sections.push(Section { name: name.to_owned(), line, entries: Vec::new() });
            continue;
        }
        let Some(section) = sections.last_mut() else {
            return Err(fault(line, "start", format!("{:?} stands before the first section", shortened(bare))));
        };
        let Some((key, value)) = bare.split_once('=') else {
            let reason = format!("{:?} is neither a [section] nor key=value", shortened(bare));
            return Err(fault(line, &section.name, reason));
        };
        section.entries.push(Entry { key: key.to_owned(), value: value.to_owned(), line });
    }
    match sections.first() {
        Some(first) if first.name == "net" => Ok(sections),
        Some(first) => Err(first.fault("a cfg begins with [net]".to_owned())),
        None => Err(fault(1, "start", "there is no section".to_owned())),
    }
}

impl Section {
    /// An error of the section as a whole.
    pub fn fault(&self, reason: String) -> CfgError {
        CfgError { line: self.line, section: shortened(&self.name), reason }
    }

    /// An error of one of its lines.
    pub fn fault_at(&self, entry: &Entry, reason: &str) -> CfgError {
        let written = shortened(&format!("{}={}", entry.key, entry.value));
        CfgError { line: entry.line, section: shortened(&self.name), reason: format!("{written}: {reason}") }
    }

    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// A whole number of `range`; `default` where the key is absent.
    ///
    /// # Errors
    /// Anything else, or an absent key without a default.
    pub fn whole(&self, key: &str, default: Option<usize>, range: RangeInclusive<usize>) -> Result<usize, CfgError> {
        let Some(entry) = self.get(key) else {
            return default.ok_or_else(|| self.fault(format!("{key} is missing")));
        };
        let value = entry.value.parse::<usize>().ok().filter(|value| range.contains(value));
        let expected = || format!("needs a whole number from {} to {}", range.start(), range.end());
        value.ok_or_else(|| self.fault_at(entry, &expected()))
    }

    /// A finite number; `default` where the key is absent.
    ///
    /// # Errors
    /// Anything else.
    pub fn real(&self, key: &str, default: f32) -> Result<f32, CfgError> {
        let Some(entry) = self.get(key) else {
            return Ok(default);
        };
        let value = entry.value.parse::<f32>().ok().filter(|value| value.is_finite());
        value.ok_or_else(|| self.fault_at(entry, "needs a number"))
    }

    /// Numbers between commas; nothing where the key is absent.
    ///
    /// # Errors
    /// A part that is no such number.
    pub fn list<T: FromStr>(&self, key: &str) -> Result<Option<Vec<T>>, CfgError> {
        let Some(entry) = self.get(key) else {
            return Ok(None);
        };
        let parts = entry.value.split(',').filter(|part| !part.is_empty());
        let values: Option<Vec<T>> = parts.map(|part| part.parse::<T>().ok()).collect();
        match values {
            Some(values) if !values.is_empty() => Ok(Some(values)),
            _ => Err(self.fault_at(entry, "needs numbers between commas")),
        }
    }

    /// Fails on a key that has another value than one of those listed with it: it would change what the layer computes,
    /// in a way that is not supported.
    ///
    /// # Errors
    /// The first such key.
    pub fn fixed(&self, keys: &[(&str, &[&str])]) -> Result<(), CfgError> {
        for (key, allowed) in keys {
            if let Some(entry) = self.get(key)
                && !allowed.contains(&entry.value.as_str())
            {
                let only = if allowed.is_empty() { String::new() } else { format!(", only {}", allowed.join(", ")) };
                return Err(self.fault_at(entry, &format!("not supported{only}")));
            }
        }
        Ok(())
    }

    /// Fails on a key that none of the lists has.
    ///
    /// # Errors
    /// The first such key, with those that are known.
    pub fn known(&self, used: &[&str], fixed: &[(&str, &[&str])], training: &[&str]) -> Result<(), CfgError> {
        for entry in &self.entries {
            let key = entry.key.as_str();
            if !used.contains(&key) && !training.contains(&key) && !fixed.iter().any(|(name, _)| *name == key) {
                return Err(self.fault_at(entry, &format!("unknown setting; known are {}", used.join(", "))));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_comments_and_short_names_are_read_as_darknet_reads_them() {
        let text = "\u{feff}# a net\n[network]\n width = 32 \n;gone\n\n[conv]\nfilters= 8 # of them\nfilters=9\n";
        let sections = parse(text).unwrap();
        let names: Vec<(&str, usize)> = sections.iter().map(|s| (s.name.as_str(), s.line)).collect();
        assert_eq!(names, [("net", 2), ("convolutional", 6)]);
        assert_eq!(sections[0].whole("width", None, 1..=64).unwrap(), 32);
        // of two the first counts
        assert_eq!(sections[1].whole("filters", None, 1..=64).unwrap(), 8);
        assert_eq!(sections[1].get("filters").unwrap().line, 7);
    }

    #[test]
    fn errors_name_line_and_section() {
        for (text, line, section, word) in [
            ("", 1, "start", "no section"),
            ("a=1\n[net]", 1, "start", "before the first"),
            ("[net]\n\nwidth 32", 3, "net", "neither"),
            ("[net]\n[conv\n", 2, "conv", "written [name]"),
            ("[net]\n[]\n", 2, "]", "written [name]"),
            ("[yolo]\n", 1, "yolo", "begins with [net]"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!((error.line, error.section.as_str()), (line, section), "{text:?}");
            assert!(error.to_string().contains(word), "{error}");
        }
        assert!(parse(&"#".repeat(MAX_TEXT + 1)).is_err());
        assert!(parse(&"[net]\n".repeat(MAX_SECTIONS + 1)).unwrap_err().reason.contains("sections"));
    }

    #[test]
    fn values_that_do_not_fit_are_errors_of_their_line() {
        let text = "[net]\nstride=0\nscale=inf\nanchors=1,x\nempty=,\nmask=3, 4,\nkind=odd\nhuge=99999999999999999999";
        let sections = parse(text).unwrap();
        let net = &sections[0];
        assert_eq!(net.whole("stride", None, 1..=8).unwrap_err().line, 2);
        assert_eq!(net.real("scale", 1.0).unwrap_err().line, 3);
        assert_eq!(net.list::<f32>("anchors").unwrap_err().line, 4);
        assert_eq!(net.list::<f32>("empty").unwrap_err().line, 5);
        assert_eq!(net.list::<usize>("mask").unwrap(), Some(vec![3, 4]));
        assert_eq!(net.list::<usize>("none").unwrap(), None);
        assert_eq!(net.whole("none", Some(5), 1..=8).unwrap(), 5);
        assert_eq!(net.whole("huge", None, 1..=8).unwrap_err().line, 8);
        assert_eq!(net.whole("none", None, 1..=8).unwrap_err().line, 1);
        let error = net.fixed(&[("kind", &["plain"]), ("absent", &["0"])]).unwrap_err();
        assert!(error.line == 7 && error.reason.contains("only plain"), "{error}");
        let error = net.known(&["stride", "scale", "anchors"], &[("empty", &[])], &["mask"]).unwrap_err();
        assert!(error.line == 7 && error.reason.contains("unknown setting"), "{error}");
    }
}
