//! Numbers behind a view as comma-separated values (RFC 4180).

use crate::eval::report::csv::field;
use std::fmt::Display;

/// Rows under a heading, kept as the text that is written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    text: String,
    columns: usize,
    rows: usize,
}

impl Table {
    pub fn new(columns: &[&str]) -> Self {
        let mut table = Self { text: String::new(), columns: columns.len(), rows: 0 };
        table.line(columns.iter().map(|name| field(name)));
        table
    }

    /// Adds a row; cells that the heading has no column for are left out, missing ones stay empty.
    pub fn row(&mut self, cells: &[&dyn Display]) {
        let filled = (0..self.columns).map(|column| cells.get(column).map(|cell| field(&cell.to_string())));
        let filled: Vec<String> = filled.map(Option::unwrap_or_default).collect();
        self.line(filled.into_iter());
        self.rows += 1;
    }

    fn line(&mut self, cells: impl Iterator<Item = String>) {
        for (column, cell) in cells.enumerate() {
            if column > 0 {
                self.text.push(',');
            }
            self.text.push_str(&cell);
        }
        self.text.push_str("\r\n");
    }

    /// Rows without the heading.
    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// The first lines, the heading among them, as cells.
    pub fn lines(&self, most: usize) -> Vec<Vec<String>> {
        let (mut lines, mut line, mut cell, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
        let mut letters = self.text.chars().peekable();
        while lines.len() < most
            && let Some(letter) = letters.next()
        {
            match letter {
                // A quote within quotes is written twice.
                '"' if quoted && letters.next_if_eq(&'"').is_some() => cell.push('"'),
                '"' => quoted = !quoted,
                ',' if !quoted => line.push(std::mem::take(&mut cell)),
                '\r' if !quoted => {}
                '\n' if !quoted => {
                    line.push(std::mem::take(&mut cell));
                    lines.push(std::mem::take(&mut line));
                }
                letter => cell.push(letter),
            }
        }
        lines
    }
}

/// A value, or nothing.
pub struct Maybe<T>(pub Option<T>);

impl<T: Display> Display for Maybe<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.as_ref().map_or(Ok(()), |value| value.fmt(f))
    }
}

/// A score as COCO gives it: nothing where it is undefined (−1).
pub fn score(value: f64) -> Maybe<f64> {
    Maybe((value >= 0.0).then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_the_headings_columns_and_text_is_quoted() {
        let mut table = Table::new(&["class", "score", "box"]);
        table.row(&[&"a \"b\", c", &0.5]);
        table.row(&[&1, &score(-1.0), &3, &4]);
        assert_eq!(table.text(), "class,score,box\r\n\"a \"\"b\"\", c\",0.5,\r\n1,,3\r\n");
        assert_eq!(table.rows(), 2);
        assert_eq!(table.lines(9), [["class", "score", "box"], ["a \"b\", c", "0.5", ""], ["1", "", "3"]]);
        assert_eq!(table.lines(1), [["class", "score", "box"]]);
    }
}
