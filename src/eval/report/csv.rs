//! Scores and curves as comma-separated values (RFC 4180), scores as plain numbers from 0 to 1, nothing where undefined.

use super::Report;
use std::fmt::Write;

/// Points of a curve at most, so that a large set gives a file that opens.
const POINTS: usize = 500;

/// A field, quoted where it must be.
pub fn field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

/// A score; nothing where undefined (−1).
fn score(value: f64) -> String {
    if value > -1.0 { value.to_string() } else { String::new() }
}

/// One line a class and one for all together.
pub fn per_class(report: &Report) -> String {
    let mut text = String::from(
        "class,AP,AP50,AP75,AP_small,AP_medium,AP_large,objects,detections,best_F1,best_F1_score,calibration_error\r\n",
    );
    let mut line = |name: &str, scores: &[f64], counts: [usize; 2], rest: [Option<f64>; 3]| {
        let scores: Vec<String> = scores.iter().map(|&value| score(value)).collect();
        let rest = rest.map(|value| value.map(|v| v.to_string()).unwrap_or_default());
        // writing to a String cannot fail
        let _ = write!(text, "{},{},{},{},{}\r\n", field(name), scores.join(","), counts[0], counts[1], rest.join(","));
    };
    let curves = &report.curves;
    for (k, class) in report.coco.per_class.iter().enumerate() {
        // without categories the only line is that of all classes
        let own = report.coco.settings.use_categories;
        let curve = if own { curves.per_class.get(k) } else { Some(&curves.pooled) };
        let best = curve.and_then(|curve| curve.best());
        let error =
            if own { report.calibration.per_class.get(k).copied().flatten() } else { Some(report.calibration.error) };
        let scores = [class.ap, class.ap50, class.ap75, class.small, class.medium, class.large];
        let rest = [best.map(|b| b.f1), best.map(|b| b.score), error];
        line(&report.scored_name(k), &scores, [class.truths, class.detections], rest);
    }
    let total = |of: fn(&crate::eval::ClassResult) -> usize| report.coco.per_class.iter().map(of).sum::<usize>();
    let best = curves.pooled.best();
    let rest = [best.map(|b| b.f1), best.map(|b| b.score), Some(report.calibration.error)];
    line("all", &report.coco.stats[..6], [total(|c| c.truths), total(|c| c.detections)], rest);
    text
}

/// Precision, recall and F1 by score for every class and for all together, at most about 500 points a curve.
pub fn curves(report: &Report) -> String {
    let mut text = String::from("class,iou,score,precision,recall,f1\r\n");
    let named = report.curves.per_class.iter().enumerate().map(|(k, curve)| (report.class_name(k), curve));
    for (name, curve) in named.chain([("all".to_owned(), &report.curves.pooled)]) {
        let name = field(&name);
        for point in curve.thinned(POINTS) {
            let _ = write!(
                text,
                "{name},{},{},{},{},{}\r\n",
                curve.iou, point.score, point.precision, point.recall, point.f1
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    /// Fields of a line, quotes taken away.
    fn split(line: &str) -> Vec<String> {
        let (mut fields, mut quoted) = (vec![String::new()], false);
        for c in line.chars() {
            match c {
                '"' => quoted = !quoted,
                ',' if !quoted => fields.push(String::new()),
                c => fields.last_mut().unwrap().push(c),
            }
        }
        fields
    }

    #[test]
    fn every_line_has_the_heading_s_fields() {
        let (report, _) = samples::report();
        for text in [per_class(&report), curves(&report)] {
            let lines: Vec<Vec<String>> = text.lines().map(split).collect();
            assert!(lines.len() > 3 && lines.iter().all(|l| l.len() == lines[0].len()), "{text}");
        }
        let text = per_class(&report);
        assert!(text.contains("\r\n\"<cat> & \"\"co\"\", Ltd\","), "{text}");
        let all = split(text.lines().last().unwrap());
        assert_eq!(all[1].parse::<f64>().unwrap(), report.coco.stats[0]);
        // nothing is large: an undefined score is an empty field
        assert_eq!((all[6].as_str(), all[7].as_str()), ("", "5"));
    }
}
