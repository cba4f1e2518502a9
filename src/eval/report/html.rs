//! A report as one page that needs nothing else: styles, drawings and pictures are inside, and no script.

use super::pictures::WorstImage;
use super::{REPORT_IOU, Report, escape, svg};
use crate::eval::misses::Misses;
use crate::eval::table::percent;
use std::fmt::Write;

const STYLE: &str = "body{font:14px/1.45 sans-serif;color:#222;margin:2em auto;max-width:1100px;padding:0 1em}\
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}table{border-collapse:collapse}\
td,th{padding:.2em .7em;border-bottom:1px solid #ddd;text-align:right}td:first-child,th:first-child{text-align:left}\
.numbers{display:flex;flex-wrap:wrap;gap:.6em}.numbers div{border:1px solid #ddd;border-radius:6px;padding:.4em .8em}\
.numbers b{display:block;font-size:1.3em}.drawings{display:flex;flex-wrap:wrap;gap:1em}\
figure{margin:0 0 1.5em}figure svg{max-width:100%;height:auto}figcaption{color:#555}\
svg{max-width:100%;height:auto}.note{color:#8a5a00}";

/// Longest side of a picture on the page, pixels.
const SIDE: f64 = 520.0;

/// The page; `worst` are the report's worst images, pictures included where they could be read.
pub fn page(report: &Report, worst: &[WorstImage]) -> String {
    let title = escape(&report.title);
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n\
         <p>COCO protocol on {}. Scores are in percent, — where there is nothing to measure. Curves, confusion, \
         mistakes, calibration and images are at IoU {REPORT_IOU}.</p>\n",
        report.compared()
    );
    for note in &report.notes {
        let _ = writeln!(html, "<p class=\"note\">Note: {}</p>", escape(note));
    }
    html.push_str("<div class=\"numbers\">");
    for (name, value) in report.coco.stat_names().iter().zip(report.coco.stats) {
        let _ = write!(html, "<div>{}<b>{}</b></div>", escape(name), percent(value));
    }
    html.push_str("</div>\n<h2>Classes</h2>\n");
    classes(&mut html, report);
    html.push_str("<h2>Curves, confusion and mistakes</h2>\n<div class=\"drawings\">\n");
    for drawing in svg::overview(report) {
        html.push_str(&drawing.svg);
    }
    html.push_str("</div>\n");
    mistakes(&mut html, report);
    if let Some(found) = &report.misses {
        misses(&mut html, report, found);
    }
    let _ = writeln!(
        html,
        "<h2>Worst images</h2>\n<p>By wrong detections and missed objects at score {:.3}, the one of highest F1. \
         <span style=\"color:#2e7d32\">Green</span> is right, <span style=\"color:#d32f2f\">red</span> is wrong, \
         <span style=\"color:#1565c0\">dashed blue</span> is missed.</p>",
        report.score
    );
    for image in worst {
        figure(&mut html, image);
    }
    html.push_str("</body></html>\n");
    html
}

fn classes(html: &mut String, report: &Report) {
    html.push_str("<table><tr><th>class</th>");
    for heading in ["AP", "AP50", "AP75", "APs", "APm", "APl", "objects", "detections"] {
        let _ = write!(html, "<th>{heading}</th>");
    }
    html.push_str("</tr>\n");
    for (k, class) in report.coco.per_class.iter().enumerate() {
        let _ = write!(html, "<tr><td>{}</td>", escape(&report.scored_name(k)));
        for value in [class.ap, class.ap50, class.ap75, class.small, class.medium, class.large] {
            let _ = write!(html, "<td>{}</td>", percent(value));
        }
        let _ = writeln!(html, "<td>{}</td><td>{}</td></tr>", class.truths, class.detections);
    }
    html.push_str("</table>\n");
}

fn mistakes(html: &mut String, report: &Report) {
    let confused = report.confusion.most_confused(10);
    if confused.is_empty() {
        return;
    }
    html.push_str(
        "<h2>Classes taken for each other</h2>\n<table><tr><th>annotated</th><th>detected</th><th>times</th></tr>\n",
    );
    for pair in confused {
        let (truth, detection) = (report.class_name(pair.truth), report.class_name(pair.detection));
        let _ = writeln!(
            html,
            "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&truth),
            escape(&detection),
            pair.count
        );
    }
    html.push_str("</table>\n");
}

/// Why objects were missed, a line a cause.
fn misses(html: &mut String, report: &Report, misses: &Misses) {
    let _ = write!(
        html,
        "<h2>Causes of misses</h2>\n<p>{}.</p>\n<table><tr><th>cause</th><th>objects</th><th>classes</th></tr>\n",
        escape(&misses.heading())
    );
    for kind in misses.kinds() {
        let (name, count) = (Misses::name(kind), misses.count(None, Some(kind)));
        let classes = escape(&misses.words(kind, &report.classes));
        let _ = writeln!(html, "<tr><td>{}</td><td>{count}</td><td>{classes}</td></tr>", escape(name));
    }
    html.push_str("</table>\n");
}

/// One image: the picture, the outlines over it, and its mistakes in words.
fn figure(html: &mut String, image: &WorstImage) {
    let (width, height) = match &image.thumbnail {
        Some(picture) => (f64::from(picture.width.max(1)), f64::from(picture.height.max(1))),
        None => extent(image),
    };
    let scale = (SIDE / width.max(height)).min(1.0);
    let stroke = 2.0 / scale;
    let _ = write!(
        html,
        "<figure><svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{:.0}\" \
         height=\"{:.0}\" font-family=\"sans-serif\" font-size=\"{:.1}\">",
        width * scale,
        height * scale,
        11.0 / scale
    );
    match &image.thumbnail {
        Some(picture) => {
            let data = escape(&picture.data);
            let _ = write!(html, "<image href=\"{data}\" width=\"{width}\" height=\"{height}\"/>");
        }
        None => html.push_str("<rect width=\"100%\" height=\"100%\" fill=\"#f3f3f3\"/>"),
    }
    for outline in &image.outlines {
        let [x, y, w, h] = outline.xywh;
        let (color, words) = (outline.mark.color(), escape(&outline.words));
        let dashes = if outline.mark == super::pictures::Mark::Missed {
            format!(" stroke-dasharray=\"{:.1}\"", 3.0 * stroke)
        } else {
            String::new()
        };
        let _ = write!(
            html,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"none\" stroke=\"{color}\" \
             stroke-width=\"{stroke:.1}\"{dashes}><title>{words}</title></rect>\
             <text x=\"{x:.1}\" y=\"{:.1}\" fill=\"{color}\" stroke=\"#fff\" stroke-width=\"{:.1}\" \
             paint-order=\"stroke\">{words}</text>",
            w.max(0.0),
            h.max(0.0),
            (y - stroke).max(11.0 / scale),
            stroke * 1.5
        );
    }
    let loss = &image.loss;
    let _ = write!(
        html,
        "</svg><figcaption>{}: {} right, {} wrong, {} missed, F1 {:.2}",
        escape(&image.name),
        loss.true_positives,
        loss.false_positives,
        loss.missed,
        loss.f1
    );
    let kinds = crate::eval::errors::ErrorKind::ALL.map(|kind| {
        let count = loss.mistakes.iter().filter(|mistake| mistake.kind == kind).count();
        (kind.name(), count)
    });
    for (name, count) in kinds.into_iter().filter(|&(_, count)| count > 0) {
        let _ = write!(html, "; {name} {count}");
    }
    if image.thumbnail.is_none() {
        html.push_str(" (its picture was not found)");
    }
    html.push_str("</figcaption></figure>\n");
}

/// Width and height that hold every outline, where there is no picture.
fn extent(image: &WorstImage) -> (f64, f64) {
    let far = |of: fn(&[f64; 4]) -> f64| image.outlines.iter().map(|o| of(&o.xywh)).fold(1.0, f64::max).min(1e6);
    (far(|b| b[0] + b[2]), far(|b| b[1] + b[3]))
}

#[cfg(test)]
mod tests {
    use super::super::pictures::{Thumbnail, outlines};
    use super::super::samples;
    use super::*;
    use crate::eval::{ImageResult, ImageTruth};
    use crate::geometry::Object;
    use crate::trace::missed::Cause;

    #[test]
    fn the_page_stands_alone_and_text_stays_text() {
        let (report, images) = samples::report();
        let mut worst: Vec<WorstImage> = report
            .worst
            .iter()
            .map(|loss| WorstImage {
                loss: loss.clone(),
                name: "<img src=x onerror=alert(1)>.jpg".to_owned(),
                thumbnail: None,
                outlines: outlines(&report, &images[loss.image]),
            })
            .collect();
        let html = page(&report, &worst);
        assert!(!html.contains("<img") && !html.contains("<cat>") && !html.contains("<set>"), "{html}");
        assert!(!html.contains("<script") && !html.contains("src=\"http"));
        assert!(html.contains("&lt;cat&gt; &amp; &quot;co&quot;, Ltd"));
        assert!(html.contains(&format!("<div>AP<b>{}</b></div>", percent(report.coco.stats[0]))));
        assert!(html.contains("0 right, 1 wrong, 2 missed") && html.contains("its picture was not found"));
        assert!(!html.contains("Causes of misses"));
        let data = "data:image/jpeg;base64,AAAA".to_owned();
        worst[0].thumbnail = Some(Thumbnail { width: 1040, height: 300, data });
        let html = page(&report, &worst);
        assert!(html.contains("viewBox=\"0 0 1040 300\" width=\"520\" height=\"150\""));
        assert!(html.contains("<image href=\"data:image/jpeg;base64,AAAA\" width=\"1040\" height=\"300\"/>"));
    }

    #[test]
    fn causes_of_misses_stand_on_the_page_when_they_are_known() {
        let (report, _) = samples::report();
        let truth = ImageTruth { image_id: 1, objects: vec![Object::default()] };
        let mut misses = Misses::new(0.4, 2);
        misses.add(0, &truth, &ImageResult::default(), |_, _| Some(Cause::NoAnchor { iou: 0.1 }));
        let html = page(&Report { misses: Some(misses), ..report }, &[]);
        assert!(html.contains("1 of 1 objects missed at score 0.40"), "{html}");
        assert!(html.contains("<td>no anchor reached it</td><td>1</td><td>&lt;cat&gt;"), "{html}");
    }
}
