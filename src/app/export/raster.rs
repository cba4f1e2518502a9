//! Text, cells and bars in pixels, on the CPU: what PNGs hold besides pictures and plots.

use super::figure::{Bar, Matrix, Still};
use crate::imaging::draw::{class_color, draw_text};
use crate::imaging::picture::Picture;

/// Height of the line above a picture in a grid, pixels.
pub(super) const TITLE: u32 = 18;
/// One character of the built-in font with the space behind it, and its height.
pub(super) const LETTER: u32 = 6;
pub(super) const HEIGHT: u32 = 7;
pub(super) const GROUND: [u8; 3] = [255, 255, 255];
pub(super) const INK: [u8; 3] = [40, 40, 40];
const RIGHT: [f64; 3] = [46.0, 125.0, 50.0];
const WRONG: [f64; 3] = [192.0, 80.0, 77.0];
/// Names in a matrix are cut to as many characters.
const NAME: usize = 18;
/// And of a bar's.
const BAR_NAME: usize = 28;

/// A number along an axis.
pub(super) fn number(value: f32) -> String {
    if value == 0.0 || value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// The title of a picture in a grid, cut to `room` pixels.
pub(super) fn put_title(sheet: &mut Picture, title: &str, left: u32, top: u32, room: u32) {
    let text = cut(title, (room / LETTER) as usize);
    draw_text(sheet, &text, (i64::from(left) + 4, i64::from(top) + 5), [220, 220, 220], 1);
}

/// Draws a still's labels; one that would lie over an earlier one is left out, as its box still shows its class.
pub(super) fn label_still(picture: &mut Picture, still: &Still) {
    let (width, height) = still.space();
    let scale_x = picture.width as f32 / width.max(1) as f32;
    let scale_y = picture.height as f32 / height.max(1) as f32;
    let mut taken: Vec<[i64; 4]> = Vec::new();
    for label in &still.labels {
        let width = (label.text.chars().count().min(64) as u32 * LETTER + 2).min(picture.width);
        let height = HEIGHT + 4;
        let left = (label.at[0] * scale_x).clamp(0.0, picture.width.saturating_sub(width) as f32) as i64;
        let top = (label.at[1] * scale_y - height as f32).clamp(0.0, picture.height.saturating_sub(height) as f32);
        let area = [left, top as i64, left + i64::from(width), top as i64 + i64::from(height)];
        if taken.iter().any(|t| t[0] < area[2] && area[0] < t[2] && t[1] < area[3] && area[1] < t[3]) {
            continue;
        }
        picture.paste(&Picture::new(width, height, label.color), area[0] as u32, area[1] as u32);
        let luma =
            label.color.iter().zip([299, 587, 114]).map(|(channel, weight)| u32::from(*channel) * weight).sum::<u32>();
        let ink = if luma > 128_000 { [0; 3] } else { [255; 3] };
        draw_text(picture, &cut(&label.text, 64), (area[0] + 2, area[1] + 2), ink, 1);
        taken.push(area);
    }
}

/// Rows: annotated as; columns: detected as.
pub(super) fn matrix(title: &str, matrix: &Matrix) -> Picture {
    let count = matrix.names.len().max(1);
    let cell = (640 / count as u32).clamp(8, 44);
    let longest = matrix.names.iter().map(|name| name.chars().count()).max().unwrap_or(0).min(NAME);
    let (left, top) = (longest as u32 * LETTER + 12, longest as u32 * (HEIGHT + 2) + 40);
    let side = cell * count as u32;
    let width = (left + side + 12).max(title.chars().count() as u32 * LETTER + 16).min(16_384);
    let mut picture = Picture::new(width, top + side + 28, GROUND);
    draw_text(&mut picture, title, (8, 8), INK, 1);
    let note = "rows: annotated as; columns: detected as";
    draw_text(&mut picture, note, (8, i64::from(top + side + 12)), INK, 1);
    for (index, name) in matrix.names.iter().enumerate() {
        let name = cut(name, NAME);
        let middle = i64::from(cell) * index as i64 + i64::from(cell / 2);
        let length = name.chars().count() as i64;
        let start = i64::from(left) - 6 - length * i64::from(LETTER);
        draw_text(&mut picture, &name, (start, i64::from(top) + middle - 3), INK, 1);
        for (row, letter) in name.chars().rev().enumerate() {
            let y = i64::from(top) - 6 - (row as i64 + 1) * i64::from(HEIGHT + 2);
            draw_text(&mut picture, &letter.to_string(), (i64::from(left) + middle - 3, y), INK, 1);
        }
    }
    for (place, (&number, &share)) in matrix.counts.iter().zip(&matrix.shares).enumerate() {
        if number == 0 {
            continue;
        }
        let (row, column) = (place / count, place % count);
        let full = if row == column { RIGHT } else { WRONG };
        let strength = 0.08 + 0.92 * share.clamp(0.0, 1.0);
        let color = full.map(|channel| (255.0 + (channel - 255.0) * strength).round() as u8);
        let (x, y) = (left + cell * column as u32, top + cell * row as u32);
        picture.paste(&Picture::new(cell - 1, cell - 1, color), x, y);
        let text = number.to_string();
        let taken = text.len() as u32 * LETTER;
        if taken < cell {
            let ink = if strength > 0.5 { GROUND } else { INK };
            let at = (i64::from(x + (cell - taken) / 2), i64::from(y + cell / 2) - 3);
            draw_text(&mut picture, &text, at, ink, 1);
        }
    }
    picture
}

/// Horizontal bars with their names and words.
pub(super) fn bars(title: &str, bars: &[Bar]) -> Picture {
    let (row, from, room) = (22, BAR_NAME as u32 * LETTER + 16, 300);
    let words = bars.iter().map(|bar| bar.words.chars().count()).max().unwrap_or(0).min(60) as u32;
    let width = (from + room + words * LETTER + 24).max(title.chars().count() as u32 * LETTER + 16).min(16_384);
    let mut picture = Picture::new(width, 36 + row * bars.len().min(700) as u32, GROUND);
    draw_text(&mut picture, title, (8, 8), INK, 1);
    let longest = bars.iter().map(|bar| bar.length).fold(0.0, f64::max);
    for (index, bar) in bars.iter().enumerate().take(700) {
        let top = 30 + row * index as u32;
        let share = if longest > 0.0 { (bar.length / longest).clamp(0.0, 1.0) } else { 0.0 };
        let length = (share * f64::from(room)) as u32;
        draw_text(&mut picture, &cut(&bar.name, BAR_NAME), (8, i64::from(top) + 4), INK, 1);
        if length > 0 {
            picture.paste(&Picture::new(length, 14, class_color(3)), from, top);
        }
        draw_text(&mut picture, &cut(&bar.words, 60), (i64::from(from + length) + 6, i64::from(top) + 4), INK, 1);
    }
    picture
}

/// The first characters of a text that is too long.
pub(super) fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(2)).chain("..".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_colours_only_what_was_counted() {
        let names = vec!["cat".to_owned(), "background".to_owned()];
        let matrix = Matrix { names, counts: vec![3, 1, 0, 0], shares: vec![0.75, 0.25, 0.0, 0.0] };
        let picture = super::matrix("confusion", &matrix);
        let (cell, left) = (44, 10 * LETTER + 12);
        let top = picture.height - 28 - 2 * cell;
        assert_ne!(picture.pixel(left + 2, top + 2), GROUND);
        assert_ne!(picture.pixel(left + cell + 2, top + 2), GROUND);
        assert_eq!(picture.pixel(left + 2, top + cell + 2), GROUND);
        assert_ne!(picture.pixel(left + 2, top + 2), picture.pixel(left + cell + 2, top + 2));
    }

    #[test]
    fn bars_are_as_long_as_their_shares_and_long_text_is_cut() {
        let bar = |length: f64| Bar { name: "x".repeat(99), length, words: String::new() };
        let picture = bars("t", &[bar(2.0), bar(1.0), bar(0.0)]);
        let from = BAR_NAME as u32 * LETTER + 16;
        let filled = |x: u32, row: u32| picture.pixel(x, 30 + 22 * row + 12) == class_color(3);
        assert!(filled(from + 299, 0) && filled(from + 149, 1) && !filled(from + 160, 1) && !filled(from + 1, 2));
        assert_eq!(cut("abcdef", 4), "ab..");
    }
}
