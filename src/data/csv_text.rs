//! Comma-separated text, record by record: quotes, doubled quotes, other separators, and no trust in any length.

use std::borrow::Cow;

/// Most fields of a record.
const MAX_FIELDS: usize = 1024;
/// Longest quoted field, bytes.
const MAX_QUOTED: usize = 1 << 16;

/// One record and the line it begins in, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) line: usize,
    /// Without their quotes; spaces around a field that has none are cut.
    pub(super) fields: Vec<Cow<'a, str>>,
}

impl Record<'_> {
    /// Field `index`; empty when there are fewer.
    pub(super) fn field(&self, index: usize) -> &str {
        self.fields.get(index).map_or("", |field| &**field)
    }
}

/// A record that cannot be read: its line and what is wrong. Reading goes on with the next line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) line: usize,
    pub(super) message: &'static str,
}

/// The records of a text; empty lines are passed over.
#[derive(Clone, Debug)]
pub(super) struct Records<'a> {
    rest: &'a str,
    line: usize,
    separator: u8,
}

impl<'a> Records<'a> {
    /// The separator is the one of comma, semicolon and tab that the first line has most of.
    pub(super) fn new(text: &'a str) -> Self {
        let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let count = |separator: u8| first.bytes().filter(|byte| *byte == separator).count();
        let mut separator = b',';
        for other in [b';', b'\t'] {
            if count(other) > count(separator) {
                separator = other;
            }
        }
        Self { rest: text, line: 1, separator }
    }

    /// Cuts the first line off `rest`.
    fn skip_line(&mut self) {
        self.line += 1;
        self.rest = self.rest.split_once('\n').map_or("", |(_, rest)| rest);
    }

    /// The fields of the record that `rest` begins with; the text behind it, and how many lines it takes.
    fn fields(&self) -> Result<(Vec<Cow<'a, str>>, &'a str, usize), &'static str> {
        let ends = |c: char| c == '\n' || c == char::from(self.separator);
        let mut fields = Vec::new();
        let mut rest = self.rest;
        let mut lines = 1;
        loop {
            if fields.len() == MAX_FIELDS {
                return Err("has more than 1024 fields");
            }
            let open = rest.trim_start_matches(' ');
            if let Some(inner) = open.strip_prefix('"') {
                let (field, behind) = quoted(inner)?;
                lines += field.matches('\n').count();
                fields.push(field);
                rest = behind.trim_start_matches([' ', '\r']);
                if !rest.is_empty() && !rest.starts_with(ends) {
                    return Err("has text behind a closing quote");
                }
            } else {
                let end = rest.find(ends).unwrap_or(rest.len());
                let (field, behind) = rest.split_at(end);
                fields.push(Cow::Borrowed(field.trim()));
                rest = behind;
            }
            let mut characters = rest.chars();
            match characters.next() {
                None => return Ok((fields, "", lines)),
                Some('\n') => return Ok((fields, characters.as_str(), lines)),
                Some(_) => rest = characters.as_str(),
            }
        }
    }
}

/// A field up to its closing quote, and what follows.
fn quoted(inner: &str) -> Result<(Cow<'_, str>, &str), &'static str> {
    let mut text: Option<String> = None;
    let mut rest = inner;
    loop {
        let Some((part, behind)) = rest.split_once('"') else {
            return Err("has a quote that is never closed");
        };
        if part.len() + text.as_ref().map_or(0, String::len) > MAX_QUOTED {
            return Err("has a quoted field of more than 65536 bytes");
        }
        let Some(more) = behind.strip_prefix('"') else {
            let field = match text {
                Some(text) => Cow::Owned(text + part),
                None => Cow::Borrowed(part),
            };
            return Ok((field, behind));
        };
        let text = text.get_or_insert_default();
        text.push_str(part);
        text.push('"');
        rest = more;
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let first = self.rest.lines().next()?;
            if !first.trim().is_empty() {
                break;
            }
            self.skip_line();
        }
        let line = self.line;
        match self.fields() {
            Ok((fields, rest, lines)) => {
                self.rest = rest;
                self.line += lines;
                Some(Ok(Record { line, fields }))
            }
            Err(message) => {
                self.skip_line();
                Some(Err(Fault { line, message }))
            }
        }
    }
}

/// `text` as a field: in quotes where it needs them.
pub(super) fn field(text: &str) -> Cow<'_, str> {
    let plain = !text.contains(['"', ',', ';', '\t', '\n', '\r']) && text.trim() == text;
    if plain { Cow::Borrowed(text) } else { Cow::Owned(format!("\"{}\"", text.replace('"', "\"\""))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<(usize, Vec<String>)> {
        Records::new(text)
            .map(|record| match record {
                Ok(record) => (record.line, record.fields.iter().map(|field| field.to_string()).collect()),
                Err(fault) => (fault.line, vec![format!("! {}", fault.message)]),
            })
            .collect()
    }

    fn row(line: usize, fields: &[&str]) -> (usize, Vec<String>) {
        (line, fields.iter().map(|field| (*field).to_owned()).collect())
    }

    #[test]
    fn records_come_with_their_lines() {
        let text = "a, b ,c\r\n\n\"x, \"\"y\"\"\",\"two\nlines\" ,\n,,\n\"open, 1\nlast";
        let expected = [
            row(1, &["a", "b", "c"]),
            row(3, &["x, \"y\"", "two\nlines", ""]),
            row(5, &["", "", ""]),
            row(6, &["! has a quote that is never closed"]),
            row(7, &["last"]),
        ];
        assert_eq!(all(text), expected);
        assert_eq!(all("a;b,c;d\n1;2;3"), [row(1, &["a", "b,c", "d"]), row(2, &["1", "2", "3"])]);
        assert_eq!(all("a\tb\n"), [row(1, &["a", "b"])]);
        assert_eq!(all("\"a\"b\nc,d"), [row(1, &["! has text behind a closing quote"]), row(2, &["c", "d"])]);
        assert!(all("").is_empty() && all("\n \r\n").is_empty());
    }

    #[test]
    fn fields_are_written_as_they_are_read() {
        for text in ["plain", "a b", " spaced ", "q\"q", "a,b", "line\nbreak", "猫", ""] {
            let line = format!("first,{},last", field(text));
            assert_eq!(all(&line), [row(1, &["first", text, "last"])]);
        }
    }

    #[test]
    fn endless_records_are_refused() {
        assert_eq!(all(&",".repeat(5000)), [row(1, &["! has more than 1024 fields"])]);
        let long = format!("\"{}\"", "x".repeat(MAX_QUOTED + 1));
        assert_eq!(all(&long), [row(1, &["! has a quoted field of more than 65536 bytes"])]);
    }
}
