//! Drawings as SVG text: curves over the unit square, bars, and a matrix.

use super::escape;
use std::fmt::Write;

/// A curve of points in `[0, 1]²`.
pub struct Line {
    pub label: String,
    /// As CSS understands it.
    pub color: String,
    /// Pixels.
    pub width: f64,
    pub points: Vec<(f64, f64)>,
}

/// Side of the square of a plot, pixels, and the room around it.
const SIDE: f64 = 360.0;
const LEFT: f64 = 54.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 46.0;
/// Room for labels at the right.
const LEGEND: f64 = 190.0;
/// Names of bars are cut to as many characters.
const BAR_NAME: usize = 28;
/// Labels beyond these would run out of the picture.
const LEGEND_LINES: usize = 22;

/// CSS colour of class `class`, the same as everywhere in the program.
pub fn class_color(class: usize) -> String {
    let [red, green, blue] = crate::imaging::class_color(u32::try_from(class).unwrap_or(u32::MAX));
    format!("rgb({red},{green},{blue})")
}

/// The opening of a picture of the given size, with its title.
fn open(width: f64, height: f64, title: &str) -> String {
    let title = escape(title);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\" role=\"img\"><title>{title}</title>\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"14\" font-weight=\"bold\">{title}</text>\n"
    )
}

/// A text whose middle, start or end (`anchor`) is at a place.
fn label(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    // writing to a String cannot fail, here and below
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escape(text));
}

/// Curves over the unit square with a legend; points outside are drawn at its edge.
pub fn curves(title: &str, x_label: &str, y_label: &str, lines: &[Line]) -> String {
    let mut svg = open(LEFT + SIDE + LEGEND, TOP + SIDE + BOTTOM, title);
    let x = |value: f64| LEFT + value.clamp(0.0, 1.0) * SIDE;
    let y = |value: f64| TOP + (1.0 - value.clamp(0.0, 1.0)) * SIDE;
    for tick in 0..=5 {
        let value = f64::from(tick) / 5.0;
        let (at_x, at_y) = (x(value), y(value));
        let _ = writeln!(
            svg,
            "<path d=\"M{at_x:.1} {TOP}V{:.1}M{LEFT} {at_y:.1}H{:.1}\" stroke=\"#ddd\" fill=\"none\"/>",
            TOP + SIDE,
            LEFT + SIDE
        );
        label(&mut svg, at_x, TOP + SIDE + 16.0, "middle", &format!("{value:.1}"));
        label(&mut svg, LEFT - 6.0, at_y + 4.0, "end", &format!("{value:.1}"));
    }
    label(&mut svg, LEFT + SIDE / 2.0, TOP + SIDE + 36.0, "middle", x_label);
    let middle = TOP + SIDE / 2.0;
    let _ = writeln!(
        svg,
        "<text transform=\"translate(16 {middle}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        escape(y_label)
    );
    for line in lines {
        let mut path = String::new();
        for (i, &(px, py)) in line.points.iter().filter(|(px, py)| px.is_finite() && py.is_finite()).enumerate() {
            let _ = write!(path, "{}{:.1} {:.1}", if i == 0 { 'M' } else { 'L' }, x(px), y(py));
        }
        if !path.is_empty() {
            let _ = writeln!(
                svg,
                "<path d=\"{path}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\"><title>{}</title></path>",
                line.color,
                line.width,
                escape(&line.label)
            );
        }
    }
    for (i, line) in lines.iter().take(LEGEND_LINES).enumerate() {
        let at = TOP + 8.0 + 16.0 * i as f64;
        let from = LEFT + SIDE + 10.0;
        let _ = writeln!(
            svg,
            "<path d=\"M{from} {at}h16\" stroke=\"{}\" stroke-width=\"{}\"/>",
            line.color,
            line.width.max(2.0)
        );
        label(&mut svg, from + 22.0, at + 4.0, "start", &shortened(&line.label, 26));
    }
    if lines.len() > LEGEND_LINES {
        let at = TOP + 12.0 + 16.0 * LEGEND_LINES as f64;
        label(&mut svg, LEFT + SIDE + 10.0, at, "start", &format!("… and {} more", lines.len() - LEGEND_LINES));
    }
    svg.push_str("</svg>\n");
    svg
}

/// The first characters of a text that is too long.
fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

/// Horizontal bars: name, length (not negative), and the words at its end.
pub fn bars(title: &str, items: &[(String, f64, String)]) -> String {
    let letters = items.iter().map(|item| item.0.chars().count()).max().unwrap_or(0).min(BAR_NAME);
    let (row, from, room) = (24.0, 32.0 + 6.4 * letters as f64, 300.0);
    let mut svg = open(from + room + 180.0, TOP + row * items.len() as f64 + 12.0, title);
    let longest = items.iter().map(|item| item.1).fold(0.0, f64::max);
    for (i, (name, value, words)) in items.iter().enumerate() {
        let top = TOP + row * i as f64;
        let width = if longest > 0.0 { (value / longest).clamp(0.0, 1.0) * room } else { 0.0 };
        label(&mut svg, from - 8.0, top + 16.0, "end", &shortened(name, BAR_NAME));
        let _ = writeln!(
            svg,
            "<rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"16\" fill=\"#c0504d\"/>",
            top + 4.0
        );
        label(&mut svg, from + width + 6.0, top + 16.0, "start", words);
    }
    svg.push_str("</svg>\n");
    svg
}

/// A matrix of shares in `[0, 1]` with a count in each cell; rows and columns have the same names.
pub fn matrix(title: &str, names: &[String], counts: &[u64], shares: &[f64]) -> String {
    let count = names.len();
    let cell = (640.0 / count.max(1) as f64).clamp(9.0, 44.0);
    let (left, top) = (150.0, TOP + 110.0);
    let side = cell * count as f64;
    let mut svg = open(left + side + 20.0, top + side + 30.0, title);
    label(&mut svg, left + side / 2.0, top + side + 20.0, "middle", "columns: detected as; rows: annotated as");
    for (i, name) in names.iter().enumerate() {
        let at = cell * (i as f64 + 0.5);
        label(&mut svg, left - 6.0, top + at + 4.0, "end", &shortened(name, 20));
        let _ = writeln!(
            svg,
            "<text transform=\"translate({:.1} {:.1}) rotate(-60)\">{}</text>",
            left + at + 4.0,
            top - 6.0,
            escape(&shortened(name, 16))
        );
    }
    for (place, (&count_here, &share)) in counts.iter().zip(shares).enumerate().filter(|(_, (c, _))| **c > 0) {
        let (row, column) = (place / count.max(1), place % count.max(1));
        let (x, y) = (left + cell * column as f64, top + cell * row as f64);
        let color = if row == column { "#2e7d32" } else { "#c0504d" };
        let name = |index: usize| escape(names.get(index).map_or("", String::as_str));
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{cell:.1}\" height=\"{cell:.1}\" fill=\"{color}\" \
             fill-opacity=\"{:.3}\"><title>{} as {}: {count_here}</title></rect>",
            0.08 + 0.92 * share.clamp(0.0, 1.0),
            name(row),
            name(column)
        );
        if cell >= 26.0 {
            label(&mut svg, x + cell / 2.0, y + cell / 2.0 + 4.0, "middle", &count_here.to_string());
        }
    }
    let _ = writeln!(
        svg,
        "<rect x=\"{left}\" y=\"{top}\" width=\"{side:.1}\" height=\"{side:.1}\" fill=\"none\" stroke=\"#888\"/>"
    );
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_drawn_where_it_lies() {
        let line = Line {
            label: "a<b".to_owned(),
            color: "red".to_owned(),
            width: 1.0,
            points: vec![(0.0, 1.0), (f64::NAN, 0.5), (1.0, 0.0), (3.0, -1.0)],
        };
        let svg = curves("t", "x", "y", &[line]);
        assert!(svg.contains("d=\"M54.0 34.0L414.0 394.0L414.0 394.0\""), "{svg}");
        assert!(svg.contains("a&lt;b") && !svg.contains("a<b") && !svg.contains("NaN"));
    }

    #[test]
    fn long_legends_end_and_say_so() {
        let line = |i: usize| Line { label: format!("line {i}"), color: "red".into(), width: 1.0, points: Vec::new() };
        let lines: Vec<Line> = (0..30).map(line).collect();
        assert!(curves("t", "x", "y", &lines).contains("… and 8 more"));
        assert_eq!(shortened("abcdef", 4), "abc…");
    }

    #[test]
    fn bars_and_cells_have_their_sizes() {
        let svg = bars("t", &[("one".into(), 2.0, "2".into()), ("none".into(), 0.0, "0".into())]);
        assert!(svg.contains("width=\"300.0\" height=\"16\"") && svg.contains("width=\"0.0\" height=\"16\""), "{svg}");
        let names = ["a".to_owned(), "b".to_owned()];
        let svg = matrix("t", &names, &[3, 0, 1, 0], &[1.0, 0.0, 1.0, 0.0]);
        assert!(svg.contains("a as a: 3") && svg.contains("b as a: 1") && !svg.contains("as b"), "{svg}");
        assert!(bars("t", &[]).ends_with("</svg>\n") && matrix("t", &[], &[], &[]).ends_with("</svg>\n"));
    }
}
