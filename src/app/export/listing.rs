//! A view that is a list as a drawing: columns under their titles, in pixels and as SVG.

use super::raster::{GROUND, HEIGHT, INK, LETTER, cut};
use super::svg;
use super::table::Table;
use crate::eval::report::escape;
use crate::imaging::draw::draw_text;
use crate::imaging::picture::Picture;
use std::fmt::Write;

/// Rows that are drawn at most; the table has them all, and how many more there are is written below.
const ROWS: usize = 500;
/// Characters of a cell, and of the space behind a column.
const CELL: usize = 48;
const SPACE: usize = 2;
/// Pixels around the list, and from line to line.
const MARGIN: u32 = 10;
const LINE: u32 = HEIGHT + 7;
/// Width of one character and height of a line in an SVG.
const SVG_LETTER: f64 = 7.3;
const SVG_LINE: f64 = 17.0;
const FAINT: [u8; 3] = [110, 110, 110];

/// What is drawn, and where.
struct Listing {
    /// The heading, then the rows.
    lines: Vec<Vec<String>>,
    /// Where each column begins, and where the last one ends, in characters.
    starts: Vec<usize>,
    /// What is said below.
    note: Option<String>,
}

impl Listing {
    fn new(table: &Table) -> Self {
        let mut lines = table.lines(1 + ROWS);
        let columns = lines.first().map_or(0, Vec::len);
        let mut starts = vec![0];
        for column in 0..columns {
            let cells = lines.iter_mut().filter_map(|line| line.get_mut(column));
            let mut widest = 0;
            for cell in cells {
                // One line of text, whatever the name of a class holds.
                let text: String = cell.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
                *cell = cut(&text, CELL);
                widest = widest.max(cell.chars().count());
            }
            starts.push(starts.last().copied().unwrap_or(0) + widest + SPACE);
        }
        let left_out = table.rows().saturating_sub(ROWS);
        let note = (left_out > 0).then(|| format!("{left_out} more rows are in the CSV"));
        Self { lines, starts, note }
    }

    /// Width in characters, of the title as well, and number of lines with the title and the note.
    fn extent(&self, title: &str) -> (usize, usize) {
        let width = self.starts.last().copied().unwrap_or(0).max(title.chars().count());
        (width, 2 + self.lines.len() + usize::from(self.note.is_some()))
    }
}

/// The list in pixels.
pub(super) fn picture(title: &str, table: &Table) -> Picture {
    let listing = Listing::new(table);
    let (width, height) = listing.extent(title);
    let mut picture = Picture::new(2 * MARGIN + width as u32 * LETTER, 2 * MARGIN + height as u32 * LINE, GROUND);
    let at = |column: usize, line: usize| {
        (i64::from(MARGIN + column as u32 * LETTER), i64::from(MARGIN + line as u32 * LINE))
    };
    draw_text(&mut picture, title, at(0, 0), INK, 1);
    for (number, line) in listing.lines.iter().enumerate() {
        let color = if number == 0 { FAINT } else { INK };
        for (cell, &start) in line.iter().zip(&listing.starts) {
            draw_text(&mut picture, cell, at(start, 2 + number), color, 1);
        }
    }
    if let Some(note) = &listing.note {
        draw_text(&mut picture, note, at(0, height - 1), FAINT, 1);
    }
    picture
}

/// The list as text that can be selected.
pub(super) fn svg(title: &str, table: &Table) -> String {
    let listing = Listing::new(table);
    let (columns, height) = listing.extent(title);
    let margin = f64::from(MARGIN);
    let width = (2.0 * margin + columns as f64 * SVG_LETTER).ceil() as u32;
    let mut text = svg::open(title, width, (2.0 * margin + height as f64 * SVG_LINE).ceil() as u32);
    // Writing to a String cannot fail, so the results of write! are dropped.
    let put = |text: &mut String, column: usize, line: usize, fill: &str, words: &str| {
        let (x, y) = (margin + column as f64 * SVG_LETTER, margin + (line as f64 + 0.8) * SVG_LINE);
        _ = writeln!(text, "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{fill}\">{}</text>", escape(words));
    };
    text.push_str("<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<g font-family=\"monospace\">\n");
    put(&mut text, 0, 0, "#000", title);
    for (number, line) in listing.lines.iter().enumerate() {
        let fill = if number == 0 { "#666" } else { "#222" };
        for (cell, &start) in line.iter().zip(&listing.starts).filter(|(cell, _)| !cell.is_empty()) {
            put(&mut text, start, 2 + number, fill, cell);
        }
    }
    if let Some(note) = &listing.note {
        put(&mut text, 0, height - 1, "#666", note);
    }
    text.push_str("</g>\n</svg>\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: usize) -> Table {
        let mut table = Table::new(&["name", "count"]);
        for row in 0..rows {
            table.row(&[&format!("a, \"b\"\n{row}"), &row]);
        }
        table
    }

    #[test]
    fn columns_stand_below_their_titles_and_text_in_one_line() {
        let listing = Listing::new(&table(2));
        assert_eq!(listing.lines, [["name", "count"], ["a, \"b\" 0", "0"], ["a, \"b\" 1", "1"]]);
        assert_eq!(listing.starts, [0, 8 + SPACE, 8 + 5 + 2 * SPACE]);
        let text = svg("t & u", &table(2));
        assert!(text.contains("a, &quot;b&quot; 0") && text.contains("t &amp; u"), "{text}");
        assert_eq!(text.matches("<text ").count(), 7);
    }

    #[test]
    fn what_is_not_drawn_is_counted() {
        let text = svg("t", &table(ROWS + 3));
        assert!(text.contains("3 more rows are in the CSV"));
        assert_eq!(text.matches("<text ").count(), 2 + 2 * (ROWS + 1));
        let drawn = picture("t", &table(3));
        let dark = drawn.rgb.chunks_exact(3).filter(|pixel| **pixel != GROUND).count();
        assert!(dark > 50, "{dark}");
        // nothing to list is a title and a heading
        assert!(picture("t", &table(0)).height > 2 * MARGIN);
    }
}
