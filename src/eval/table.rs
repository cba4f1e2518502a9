//! COCO scores as a table of text.

use super::coco::{CocoResult, CocoSettings, STAT_NAMES};
use std::fmt::Write;

/// A score in percent with one decimal; "—" where undefined (−1).
pub fn percent(value: f64) -> String {
    if value > -1.0 { format!("{:.1}", value * 100.0) } else { "—".to_owned() }
}

/// One line a class (classes without a name by index), one for all, and the recalls below. Scores are in percent.
pub fn table(result: &CocoResult, class_names: &[String]) -> String {
    let name = |index: usize| class_names.get(index).cloned().unwrap_or_else(|| format!("class {index}"));
    let names: Vec<String> = (0..result.per_class.len()).map(name).collect();
    let width = names.iter().map(|n| n.chars().count()).max().unwrap_or(0).max("class".len());

    let mut text = format!("{:width$}", "class");
    for heading in &STAT_NAMES[..6] {
        pad(&mut text, heading, 7);
    }
    pad(&mut text, "objects", 9);
    pad(&mut text, "detections", 12);
    text.push('\n');
    for (class, name) in result.per_class.iter().zip(&names) {
        let scores = [class.ap, class.ap50, class.ap75, class.small, class.medium, class.large];
        line(&mut text, name, width, &scores, class.truths, class.detections);
    }
    let objects: usize = result.per_class.iter().map(|c| c.truths).sum();
    let detections: usize = result.per_class.iter().map(|c| c.detections).sum();
    line(&mut text, "all", width, &result.stats[..6], objects, detections);
    for (heading, value) in result.stat_names().iter().zip(&result.stats).skip(6) {
        if !text.ends_with('\n') {
            text.push_str("  ");
        }
        text.push_str(heading);
        text.push(' ');
        text.push_str(&percent(*value));
    }
    text.push('\n');
    other_choices(&mut text, result);
    text
}

/// Lines for thresholds and size ranges that the twelve numbers do not cover.
fn other_choices(text: &mut String, result: &CocoResult) {
    let usual = CocoSettings::default();
    if result.settings.thresholds != usual.thresholds {
        for (threshold, ap) in result.by_threshold() {
            let _ = writeln!(text, "AP at IoU {threshold}  {}", percent(ap));
        }
    }
    if result.settings.areas != usual.areas {
        for area in result.by_area() {
            let _ = writeln!(
                text,
                "{} ({} to {} pixels)  AP {}  AR {}",
                area.label,
                area.low,
                area.high,
                percent(area.ap),
                percent(area.ar)
            );
        }
    }
}

/// Average recall by detection limit (rows) and size range (columns) of a class-agnostic result: how many objects are
/// found at all among so many proposals.
pub fn proposals(result: &CocoResult) -> String {
    let mut text = format!("{:<10}", "proposals");
    let columns: Vec<Vec<(usize, f64)>> = result.settings.areas.iter().map(|area| result.by_limit(&area.0)).collect();
    for (label, ..) in &result.settings.areas {
        pad(&mut text, &format!("AR {label}"), 12);
    }
    text.push('\n');
    for (m, limit) in result.settings.max_detections.iter().enumerate() {
        let _ = write!(text, "{limit:<10}");
        for column in &columns {
            pad(&mut text, &percent(column.get(m).map_or(-1.0, |entry| entry.1)), 12);
        }
        text.push('\n');
    }
    text
}

/// Appends `cell` right-aligned in `width` columns.
fn pad(text: &mut String, cell: &str, width: usize) {
    // Writing to a String cannot fail.
    let _ = write!(text, "{cell:>width$}");
}

/// Appends one line.
fn line(text: &mut String, name: &str, width: usize, scores: &[f64], objects: usize, detections: usize) {
    let _ = write!(text, "{name:width$}");
    for &score in scores {
        pad(text, &percent(score), 7);
    }
    pad(text, &objects.to_string(), 9);
    pad(text, &detections.to_string(), 12);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::ClassResult;
    use super::*;

    #[test]
    fn other_thresholds_ranges_and_proposals_have_their_lines() {
        use super::super::coco::evaluate_boxes;
        use super::super::{ImageBoxes, ResultBox, TruthBox};
        let xywh = [0.0, 0.0, 10.0, 10.0];
        let truth = TruthBox { xywh, area: 100.0, id: 1, ..Default::default() };
        let result = ResultBox { xywh, area: 100.0, score: 0.5, ..Default::default() };
        let image = [ImageBoxes { image_id: 1, truths: vec![truth], results: vec![result] }];
        let areas = vec![("all".to_owned(), 0.0, 1e10), ("tiny".to_owned(), 0.0, 200.0)];
        let settings =
            CocoSettings { thresholds: vec![0.3], areas, max_detections: vec![5, 50], ..CocoSettings::default() };
        let text = table(&evaluate_boxes(&image, 1, &settings), &[]);
        assert!(text.contains("AP at IoU 0.3  100.0\n"), "{text}");
        assert!(text.contains("tiny (0 to 200 pixels)  AP 100.0  AR 100.0\n") && text.contains("AR5 100.0"), "{text}");
        let settings = CocoSettings { use_categories: false, max_detections: vec![10, 300], ..Default::default() };
        let text = proposals(&evaluate_boxes(&image, 1, &settings));
        let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[2], ["300", "100.0", "100.0", "—", "—"]);
    }

    #[test]
    fn undefined_scores_are_dashes_and_columns_line_up() {
        let class = |ap: f64| ClassResult {
            ap,
            ap50: 1.0,
            ap75: 0.0,
            small: -1.0,
            medium: -1.0,
            large: 0.12345,
            truths: 12,
            detections: 345,
        };
        let result = CocoResult {
            stats: [0.3712, 1.0, 0.0, -1.0, -1.0, 0.12345, 0.1, 0.2, 0.3, -1.0, -1.0, 0.4],
            per_class: vec![class(0.3712), class(-1.0)],
            ..Default::default()
        };
        let text = table(&result, &["élan".to_owned()]);
        let expected = "\
class       AP   AP50   AP75    APs    APm    APl  objects  detections
élan      37.1  100.0    0.0      —      —   12.3       12         345
class 1      —  100.0    0.0      —      —   12.3       12         345
all       37.1  100.0    0.0      —      —   12.3       24         690
AR1 10.0  AR10 20.0  AR100 30.0  ARs —  ARm —  ARl 40.0
";
        // The first column is as wide as its longest entry, "class 1".
        let squeeze = |s: &str| s.split_whitespace().collect::<Vec<_>>().join(" ");
        for (got, want) in text.lines().zip(expected.lines()) {
            assert_eq!(squeeze(got), squeeze(want));
        }
        let lengths: Vec<usize> = text.lines().take(4).map(|l| l.chars().count()).collect();
        assert!(lengths.iter().all(|&l| l == lengths[0]), "{lengths:?}\n{text}");
    }
}
