//! The part of YAML that YOLO's `data.yaml` uses: top-level keys with a value, a list or a map of names.
//!
//! Other keys and what is nested below them are passed over. What is not of that form where it matters is an error with
//! its line, never a guess.

use super::text::number;

/// Most class names that a file may give.
const MAX_NAMES: usize = 100_000;

/// What a `data.yaml` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct YoloYaml {
    /// Folder that the others are in.
    pub(super) path: Option<String>,
    /// Folders or list files of each split, in the order train, val, test.
    pub(super) splits: Vec<(String, Vec<String>)>,
    /// Class names by index.
    pub(super) names: Vec<String>,
}

/// Names of the splits that are read, with other spellings.
const SPLITS: [(&str, &[&str]); 3] = [("train", &["train"]), ("val", &["val", "valid"]), ("test", &["test"])];

/// One value as written.
enum Value {
    Scalar(String),
    List(Vec<String>),
    /// Keys and values.
    Map(Vec<(String, String)>),
    Nothing,
}

/// Reads the text of a `data.yaml`.
///
/// # Errors
/// The line and what is wrong with it.
pub(super) fn parse(text: &str) -> Result<YoloYaml, String> {
    let lines: Vec<(usize, String)> = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, without_comment(line).trim_end().to_owned()))
        .filter(|(_, line)| !line.trim().is_empty() && line != "---")
        .collect();
    let mut yaml = YoloYaml::default();
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    let mut count: Option<usize> = None;
    let mut at = 0;
    while let Some((number_of_line, line)) = lines.get(at) {
        at += 1;
        if line.starts_with([' ', '\t', '-']) {
            // Below a key of no interest.
            continue;
        }
        let fail = |message: &str| format!("line {number_of_line}: {message}");
        let (key, rest) = split_key(line).ok_or_else(|| fail("expected a key and a colon"))?;
        let is_split = SPLITS.iter().any(|(_, spellings)| spellings.contains(&key.as_str()));
        if !is_split && !["path", "names", "nc"].contains(&key.as_str()) {
            continue;
        }
        let value = value(rest, &lines, &mut at).map_err(|message| fail(&message))?;
        match (key.as_str(), value) {
            ("path", Value::Scalar(path)) => yaml.path = Some(path),
            ("names", Value::List(names)) => yaml.names = names,
            ("names", Value::Map(pairs)) => yaml.names = numbered(pairs).map_err(|message| fail(&message))?,
            ("nc", Value::Scalar(text)) => {
                let whole = number(&text).filter(|n| *n >= 0.0 && *n <= MAX_NAMES as f64 && n.fract() == 0.0);
                count = Some(whole.ok_or_else(|| fail("nc is the number of classes"))? as usize);
            }
            (_, Value::Scalar(folder)) if is_split => found.push((key.clone(), vec![folder])),
            (_, Value::List(folders)) if is_split => found.push((key.clone(), folders)),
            (_, Value::Nothing) => {}
            _ => return Err(fail(&format!("{key} has a value of an unexpected form"))),
        }
    }
    if yaml.names.len() > MAX_NAMES {
        return Err(format!("more than {MAX_NAMES} class names"));
    }
    match count {
        Some(count) if yaml.names.is_empty() => yaml.names = (0..count).map(|k| format!("class {k}")).collect(),
        Some(count) if count != yaml.names.len() => {
            return Err(format!("nc is {count}, and there are {} names", yaml.names.len()));
        }
        _ => {}
    }
    for (split, spellings) in SPLITS {
        if let Some((_, folders)) = found.iter().find(|(key, _)| spellings.contains(&key.as_str())) {
            yaml.splits.push((split.to_owned(), folders.clone()));
        }
    }
    Ok(yaml)
}

/// The line up to a `#` that begins a comment: at the start or behind a space, and not in quotes.
fn without_comment(line: &str) -> &str {
    let mut quote: Option<char> = None;
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        match (quote, c) {
            (Some(open), _) if c == open && before != '\\' => quote = None,
            (Some(_), _) => {}
            // An apostrophe inside a word opens nothing.
            (None, '"' | '\'') if matches!(before, ' ' | '\t' | '[' | '{' | ',' | ':') => quote = Some(c),
            (None, '#') if before.is_whitespace() => return line.get(..at).unwrap_or(line),
            _ => {}
        }
        before = c;
    }
    line
}

/// `key: rest`; the colon is followed by a space or ends the line.
fn split_key(line: &str) -> Option<(String, &str)> {
    let line = line.trim();
    if let Some(inner) = line.strip_prefix(['"', '\'']) {
        let quote = line.chars().next()?;
        let (key, rest) = inner.split_once(quote)?;
        return Some((key.to_owned(), rest.trim_start().strip_prefix(':')?.trim()));
    }
    match line.split_once(": ") {
        Some((key, rest)) => Some((key.trim().to_owned(), rest.trim())),
        None => line.strip_suffix(':').map(|key| (key.trim().to_owned(), "")),
    }
}

/// The value behind a key: on the same line, on following lines until brackets close, or in the lines below.
fn value(rest: &str, lines: &[(usize, String)], at: &mut usize) -> Result<Value, String> {
    if rest.starts_with(['[', '{']) {
        let mut text = rest.to_owned();
        while !closes(&text) {
            let Some((_, line)) = lines.get(*at) else {
                return Err("a bracket is never closed".to_owned());
            };
            text.push(' ');
            text.push_str(line.trim());
            *at += 1;
        }
        return flow(&text);
    }
    if !rest.is_empty() {
        return if rest == "~" || rest == "null" { Ok(Value::Nothing) } else { Ok(Value::Scalar(scalar(rest)?)) };
    }
    let (mut list, mut map) = (Vec::new(), Vec::new());
    while let Some((number_of_line, line)) = lines.get(*at) {
        let inner = line.trim_start();
        if let Some(item) = inner.strip_prefix("- ") {
            list.push(scalar(item.trim())?);
        } else if line.starts_with([' ', '\t']) {
            let (key, value) =
                split_key(inner).ok_or_else(|| format!("line {number_of_line} is neither an item nor a pair"))?;
            map.push((key, scalar(value)?));
        } else {
            break;
        }
        *at += 1;
    }
    match (list.is_empty(), map.is_empty()) {
        (true, true) => Ok(Value::Nothing),
        (false, true) => Ok(Value::List(list)),
        (true, false) => Ok(Value::Map(map)),
        (false, false) => Err("items and pairs are mixed".to_owned()),
    }
}

/// Whether the bracket that `text` begins with is closed at its end. Brackets do not nest here.
fn closes(text: &str) -> bool {
    text.ends_with(if text.starts_with('[') { ']' } else { '}' })
}

/// `[a, "b"]` or `{0: a, 1: b}`.
fn flow(text: &str) -> Result<Value, String> {
    let inner = text.get(1..text.len().saturating_sub(1)).unwrap_or_default();
    let parts = split_outside_quotes(inner);
    let parts = parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty());
    if text.starts_with('[') {
        return parts.map(scalar).collect::<Result<Vec<String>, String>>().map(Value::List);
    }
    let pair = |part: &str| -> Result<(String, String), String> {
        let (key, value) = split_key(part).ok_or_else(|| format!("{part:?} is no pair of key and value"))?;
        Ok((key, scalar(value)?))
    };
    parts.map(pair).collect::<Result<Vec<(String, String)>, String>>().map(Value::Map)
}

fn split_outside_quotes(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quote: Option<char> = None;
    let mut escaped = false;
    for c in text.chars() {
        let start = parts.last().is_none_or(|part| part.trim().is_empty());
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some('"'), '\\') => escaped = true,
            (Some(open), _) if c == open => quote = None,
            (None, '"' | '\'') if start || parts.last().is_some_and(|part| part.trim_end().ends_with(':')) => {
                quote = Some(c);
            }
            (None, ',') => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts
}

/// A plain or quoted scalar.
fn scalar(text: &str) -> Result<String, String> {
    let unclosed = || format!("a quote is never closed in {text}");
    if let Some(inner) = text.strip_prefix('"') {
        let inner = inner.strip_suffix('"').ok_or_else(unclosed)?;
        // Double quotes of YAML take the escapes of JSON.
        return serde_json::from_str(&format!("\"{inner}\"")).map_err(|_| format!("unknown escape in {text}"));
    }
    if let Some(inner) = text.strip_prefix('\'') {
        return Ok(inner.strip_suffix('\'').ok_or_else(unclosed)?.replace("''", "'"));
    }
    if text.starts_with(['&', '*', '!', '|', '>', '[', '{']) {
        return Err(format!("{text} is YAML that is not read here; write it as a plain value"));
    }
    Ok(text.to_owned())
}

/// Names by index; every index from 0 on must be there once.
fn numbered(pairs: Vec<(String, String)>) -> Result<Vec<String>, String> {
    let mut names: Vec<Option<String>> = vec![None; pairs.len()];
    for (key, name) in pairs {
        let slot = key.parse::<usize>().ok().and_then(|index| names.get_mut(index));
        let slot = slot.ok_or_else(|| format!("the class numbers have a gap or do not begin at 0: {key}"))?;
        if slot.replace(name).is_some() {
            return Err(format!("class {key} is named twice"));
        }
    }
    Ok(names.into_iter().flatten().collect())
}

/// A scalar that reads back as `text`.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_forms_agree() {
        let forms = [
            "path: ../set # root\ntrain: images/train\nval: images/val\nnc: 2\nnames: ['a b', \"c, #d\"]\n",
            "# made by hand\nnames:\n- a b\n- 'c, #d'\npath: ../set\nval:\n  - images/val\ntrain: \"images/train\"\ntest:\n",
            "names:\n  0: a b\n  1: \"c, #d\"\ndownload: |\n  import os\n  # x\ntrain: images/train\nvalid: images/val\n\
             path: ../set\nroboflow:\n  workspace: x\n",
            "names: {0: a b,\n  1: 'c, #d'}\r\ntrain: [images/train]\r\nval: images/val\r\npath: ../set",
        ];
        for form in forms {
            let yaml = parse(form).expect(form);
            assert_eq!(yaml.names, ["a b", "c, #d"], "{form}");
            assert_eq!(yaml.path.as_deref(), Some("../set"), "{form}");
            let one = |split: &str, folder: &str| (split.to_owned(), vec![folder.to_owned()]);
            assert_eq!(yaml.splits, [one("train", "images/train"), one("val", "images/val")], "{form}");
        }
        assert_eq!(parse("nc: 3").unwrap().names, ["class 0", "class 1", "class 2"]);
        assert_eq!(parse("names: [it's, dog's]").unwrap().names, ["it's", "dog's"]);
    }

    #[test]
    fn names_are_written_as_they_are_read() {
        for name in ["plain", "it's", "a: b", "# no", "\"q\"", "tab\tand\nline", "猫", "- x", "[", "a\\"] {
            let text = format!("names:\n  0: {}\n", quoted(name));
            assert_eq!(parse(&text).expect(&text).names, [name]);
        }
    }

    #[test]
    fn other_forms_are_errors_with_a_line() {
        let cases = [
            ("just words", "line 1"),
            ("nc: many", "line 1"),
            ("nc: 1e9", "line 1"),
            ("nc: 3\nnames: [a]", "nc is 3"),
            ("train: a\nnames: [a, b", "line 2"),
            ("names:\n  1: a\n", "gap"),
            ("names:\n  0: a\n  0: b\n", "named twice"),
            ("names: 'a", "never closed"),
            ("names: &x [a]", "not read here"),
            ("names:\n  - a\n  0: b\n", "mixed"),
        ];
        for (text, part) in cases {
            let error = parse(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
