//! The drawings of a report, each a file of its own: curves, confusion, mistakes by kind, calibration.

use super::plot::{Line, bars, class_color, curves, matrix};
use super::{REPORT_IOU, Report};
use crate::eval::curves::Curve;

/// Points of a curve at most: more than the drawing has pixels.
const POINTS: usize = 720;

/// One drawing.
pub struct Drawing {
    /// File name with its ending, made of letters, digits and dashes.
    pub file: String,
    pub svg: String,
}

/// All drawings, those of single classes last.
pub fn drawings(report: &Report) -> Vec<Drawing> {
    let mut list = overview(report);
    for (k, curve) in report.curves.per_class.iter().enumerate().filter(|(_, curve)| curve.truths > 0) {
        let name = report.class_name(k);
        let lines = [precision_line(curve, name.clone(), class_color(k), 2.0)];
        list.push(Drawing {
            file: format!("precision-recall-{:03}-{}.svg", k + 1, file_name(&name)),
            svg: curves(&format!("{name}: precision by recall, IoU {REPORT_IOU}"), "recall", "precision", &lines),
        });
    }
    list
}

/// The drawings of all classes together.
pub fn overview(report: &Report) -> Vec<Drawing> {
    let drawing = |file: &str, svg: String| Drawing { file: file.to_owned(), svg };
    vec![
        drawing("precision-recall.svg", precision_recall(report)),
        drawing("scores.svg", by_score(report)),
        drawing("confusion.svg", confusion(report)),
        drawing("errors.svg", errors(report)),
        drawing("calibration.svg", calibration(report)),
    ]
}

/// A class name as part of a file name: letters and digits of ASCII, everything else a dash.
fn file_name(name: &str) -> String {
    let kept = name.chars().take(40).map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' });
    kept.collect()
}

fn precision_line(curve: &Curve, name: String, color: String, width: f64) -> Line {
    let ap = curve.ap.map_or("—".to_owned(), |ap| format!("{:.1}", ap * 100.0));
    let points = curve.thinned(POINTS).iter().map(|p| (p.recall, p.precision)).collect();
    Line { label: format!("{ap}  {name}"), color, width, points }
}

/// Every class thin, all together bold.
fn precision_recall(report: &Report) -> String {
    let classes = report.curves.per_class.iter().enumerate().filter(|(_, curve)| curve.truths > 0);
    let mut lines = vec![precision_line(&report.curves.pooled, "all together".to_owned(), "#000".to_owned(), 3.0)];
    lines.extend(classes.map(|(k, curve)| precision_line(curve, report.class_name(k), class_color(k), 1.2)));
    curves(&format!("Precision by recall, IoU {REPORT_IOU} (AP before the name)"), "recall", "precision", &lines)
}

fn by_score(report: &Report) -> String {
    let points = report.curves.pooled.thinned(POINTS);
    let line = |label: &str, color: &str, of: fn(&crate::eval::curves::CurvePoint) -> f64| Line {
        label: label.to_owned(),
        color: color.to_owned(),
        width: 2.0,
        points: points.iter().map(|p| (p.score, of(p))).collect(),
    };
    let mut lines = vec![
        line("precision", "#1f77b4", |p| p.precision),
        line("recall", "#ff7f0e", |p| p.recall),
        line("F1", "#2e7d32", |p| p.f1),
    ];
    if let Some(best) = report.curves.pooled.best() {
        lines.push(Line {
            label: format!("best F1 {:.3} at {:.3}", best.f1, best.score),
            color: "#888".to_owned(),
            width: 1.0,
            points: vec![(best.score, 0.0), (best.score, 1.0)],
        });
    }
    curves(&format!("Precision, recall and F1 by score, IoU {REPORT_IOU}"), "score threshold", "", &lines)
}

fn confusion(report: &Report) -> String {
    let mut names: Vec<String> = (0..report.confusion.classes).map(|k| report.class_name(k)).collect();
    names.push("background".to_owned());
    let title = format!("Confusion at score {:.3}, IoU {REPORT_IOU}", report.score);
    matrix(&title, &names, &report.confusion.counts, &report.confusion.row_shares())
}

fn errors(report: &Report) -> String {
    let items: Vec<(String, f64, String)> = report
        .errors
        .shares
        .iter()
        .map(|share| {
            let words = format!("{:+.1} AP50, {} mistakes", share.delta_ap50 * 100.0, share.count);
            (share.kind.name().to_owned(), share.delta_ap50.max(0.0), words)
        })
        .collect();
    bars("What AP50 would gain without the mistakes of a kind", &items)
}

fn calibration(report: &Report) -> String {
    let bins = report.calibration.bins.iter();
    let lines = [
        Line {
            label: "perfectly calibrated".to_owned(),
            color: "#888".to_owned(),
            width: 1.0,
            points: vec![(0.0, 0.0), (1.0, 1.0)],
        },
        Line {
            label: format!("precision of the bin, error {:.3}", report.calibration.error),
            color: "#1f77b4".to_owned(),
            width: 2.0,
            points: bins.filter_map(|bin| Some((bin.mean_score, bin.precision()?))).collect(),
        },
    ];
    curves(&format!("Calibration, IoU {REPORT_IOU}"), "mean score", "precision", &lines)
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn every_drawing_is_well_formed_with_a_safe_name() {
        let (report, _) = samples::report();
        let list = drawings(&report);
        let files: Vec<&str> = list.iter().map(|d| d.file.as_str()).collect();
        assert_eq!(
            files[..5],
            ["precision-recall.svg", "scores.svg", "confusion.svg", "errors.svg", "calibration.svg"]
        );
        assert_eq!(files[5..], ["precision-recall-001--cat-----co---ltd.svg", "precision-recall-002-dog.svg"]);
        for drawing in &list {
            let mut reader = quick_xml::Reader::from_str(&drawing.svg);
            let mut events = 0;
            loop {
                match reader.read_event().unwrap_or_else(|e| panic!("{}: {e}", drawing.file)) {
                    quick_xml::events::Event::Eof => break,
                    _ => events += 1,
                }
            }
            assert!(events > 5, "{}", drawing.file);
        }
    }
}
