//! What `eval` gives: a table, JSON, and the reports that are asked for.

use super::super::{Answer, CliError, Outcome, write_json};
use super::pictures::Pictures;
use super::{Arguments, to_stdout};
use crate::eval::ImageBoxes;
use crate::eval::bootstrap::{ApComparison, BootstrapSettings, Interval, ap_interval, compare_ap};
use crate::eval::coco::{CocoResult, CocoSettings, evaluate_boxes};
use crate::eval::misses::{MISS_IOU, Misses};
use crate::eval::report::{Report, csv, html, svg};
use crate::eval::table;
use crate::weights::write_atomically;
use serde_json::{Value, json};
use std::path::Path;

/// Something scored, not yet evaluated.
pub struct Scored {
    /// For people.
    pub title: String,
    pub images: Vec<ImageBoxes>,
    pub classes: Vec<String>,
    pub notes: Vec<String>,
    /// The same images with somebody else's results.
    pub against: Option<Vec<ImageBoxes>>,
    /// Where causes of misses were asked for.
    pub misses: Option<Misses>,
    pub pictures: Pictures,
}

/// Evaluates by the COCO protocol and writes everything that the arguments ask for.
pub fn write(arguments: &Arguments, scored: Scored) -> Outcome {
    let iou_type = arguments.iou_type.iou_type();
    let settings = arguments.choices.settings(iou_type);
    let count = scored.classes.len();
    let mut result = evaluate_boxes(&scored.images, count, &settings);
    result.class_names = if settings.use_categories { scored.classes.clone() } else { vec!["all classes".to_owned()] };
    result.notes.clone_from(&scored.notes);
    let proposals = arguments.choices.proposals.then(|| {
        let settings = arguments.choices.proposal_settings(iou_type);
        evaluate_boxes(&scored.images, count, &settings)
    });
    let (interval, comparison) = intervals(arguments, &scored, &settings);

    if !to_stdout(arguments) {
        print!("{}", table::table(&result, &result.class_names));
        if let Some(proposals) = &proposals {
            print!("{}", table::proposals(proposals));
        }
        if let Some(interval) = &interval {
            println!("AP {}", words(interval));
        }
        if let Some(comparison) = &comparison {
            print!("{}", compared(comparison));
        }
        if let Some(misses) = &scored.misses {
            print!("{}", misses.table(&scored.classes));
        }
    }
    if let Some(file) = &arguments.json {
        let mut value = scores(&result, arguments.full);
        let mut add = |name: &str, part: Value| {
            if let Some(object) = value.as_object_mut() {
                object.insert(name.to_owned(), part);
            }
        };
        if let Some(proposals) = &proposals {
            let by_area = |label: &String| json!({ "area": label, "recall": proposals.by_limit(label) });
            add("proposals", proposals.settings.areas.iter().map(|area| by_area(&area.0)).collect());
        }
        if let Some(interval) = &interval {
            add("interval", json!(interval));
        }
        if let Some(comparison) = &comparison {
            add("comparison", json!(comparison));
        }
        if let Some(misses) = &scored.misses {
            add("misses", causes(misses, &scored.classes));
        }
        write_json(file, &value)?;
    }
    reports(arguments, scored, result)?;
    Ok(Answer::Yes)
}

/// Missed objects by cause, each with its classes, most first.
fn causes(misses: &Misses, names: &[String]) -> Value {
    let named = |(class, count): (usize, usize)| (names.get(class).cloned().unwrap_or_default(), count);
    let kinds = misses.kinds().into_iter().map(|kind| {
        let classes: Vec<(String, usize)> = misses.classes(Some(kind)).into_iter().map(named).collect();
        json!({ "cause": Misses::name(kind), "objects": misses.count(None, Some(kind)), "classes": classes })
    });
    json!({
        "score": misses.score,
        "iou": MISS_IOU,
        "objects": misses.objects(),
        "missed": misses.count(None, None),
        "causes": kinds.collect::<Vec<_>>(),
    })
}

/// The intervals that are asked for: of one result, or of two and their difference.
fn intervals(
    arguments: &Arguments,
    scored: &Scored,
    settings: &CocoSettings,
) -> (Option<Interval>, Option<ApComparison>) {
    let mut draw = BootstrapSettings { seed: arguments.seed, ..Default::default() };
    draw.samples = arguments.bootstrap.unwrap_or(draw.samples);
    let count = scored.classes.len();
    match &scored.against {
        Some(other) => (None, Some(compare_ap(&scored.images, other, count, settings, draw))),
        None if arguments.bootstrap.is_some() => (Some(ap_interval(&scored.images, count, settings, draw)), None),
        None => (None, None),
    }
}

/// A value with its interval, in percent.
fn words(interval: &Interval) -> String {
    let percent = |value: f64| format!("{:.1}", value * 100.0);
    format!("{} [{}, {}]", percent(interval.value), percent(interval.low), percent(interval.high))
}

fn compared(comparison: &ApComparison) -> String {
    format!(
        "AP of --results  {}\nAP of --against  {}\ndifference       {}\n--against is better in {:.1} % of {} draws\n",
        words(&comparison.first),
        words(&comparison.second),
        words(&comparison.difference),
        comparison.second_wins * 100.0,
        comparison.samples
    )
}

/// The scores as JSON; with `full` the arrays too, each with its shape.
fn scores(result: &CocoResult, full: bool) -> Value {
    let per_class: Vec<_> = result.class_names.iter().zip(&result.per_class).collect();
    let mut value = json!({
        "stats": result.stats,
        "stat_names": result.stat_names(),
        "per_class": per_class,
        "areas": result.by_area(),
        "thresholds": result.by_threshold(),
        "settings": result.settings,
        "notes": result.notes,
    });
    if let Some(object) = value.as_object_mut().filter(|_| full) {
        let settings = &result.settings;
        let (areas, limits) = (settings.areas.len(), settings.max_detections.len());
        let (rows, classes) = (settings.thresholds.len(), result.per_class.len());
        let shape = [rows, settings.recalls, classes, areas, limits];
        object.insert("precision".to_owned(), json!({ "shape": shape, "values": result.precision }));
        object.insert("recall".to_owned(), json!({ "shape": [rows, classes, areas, limits], "values": result.recall }));
    }
    value
}

fn reports(arguments: &Arguments, scored: Scored, result: CocoResult) -> Result<(), CliError> {
    if arguments.csv.is_none() && arguments.svg.is_none() && arguments.html.is_none() {
        return Ok(());
    }
    let Scored { title, images, classes, notes, pictures, misses, .. } = scored;
    let report = Report { misses, ..Report::new(title, &images, classes, result, arguments.worst, notes) };
    if let Some(file) = &arguments.csv {
        write_atomically(file, csv::per_class(&report).as_bytes())?;
        write_atomically(&beside(file, "-curves"), csv::curves(&report).as_bytes())?;
    }
    if let Some(folder) = &arguments.svg {
        let failed = |error: std::io::Error| format!("cannot make the folder ({error}): {}", folder.display());
        std::fs::create_dir_all(folder).map_err(failed)?;
        for drawing in svg::drawings(&report) {
            write_atomically(&folder.join(&drawing.file), drawing.svg.as_bytes())?;
        }
    }
    if let Some(file) = &arguments.html {
        write_atomically(file, html::page(&report, &pictures.worst(&report, &images)).as_bytes())?;
    }
    Ok(())
}

/// `scores.csv` with `-curves`: `scores-curves.csv` in the same folder.
fn beside(file: &Path, ending: &str) -> std::path::PathBuf {
    let mut name = file.file_stem().unwrap_or_default().to_os_string();
    name.push(ending);
    if let Some(extension) = file.extension() {
        name.push(".");
        name.push(extension);
    }
    file.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::{ResultBox, TruthBox};

    #[test]
    fn the_second_file_stands_beside_the_first() {
        assert_eq!(beside(Path::new("a/scores.csv"), "-curves"), Path::new("a/scores-curves.csv"));
        assert_eq!(beside(Path::new("scores"), "-curves"), Path::new("scores-curves"));
    }

    #[test]
    fn causes_of_misses_have_their_classes() {
        use crate::eval::{ImageResult, ImageTruth};
        let object = |class: u32| crate::geometry::Object { class, ..Default::default() };
        let truth = ImageTruth { image_id: 1, objects: vec![object(1), object(0), object(1)] };
        let mut misses = Misses::new(0.5, 2);
        misses.add(0, &truth, &ImageResult::default(), |_, _| None);
        let value = causes(&misses, &["cat", "dog"].map(str::to_owned));
        assert_eq!((&value["objects"], &value["missed"], &value["score"]), (&json!(3), &json!(3), &json!(0.5)));
        let cause = json!({ "cause": "not looked into", "objects": 3, "classes": [["dog", 2], ["cat", 1]] });
        assert_eq!(value["causes"], json!([cause]));
    }

    #[test]
    fn arrays_are_written_only_in_full() {
        let xywh = [0.0, 0.0, 10.0, 10.0];
        let truth = TruthBox { xywh, area: 100.0, id: 1, ..Default::default() };
        let image = ImageBoxes { image_id: 1, truths: vec![truth], results: vec![ResultBox::default()] };
        let mut result = evaluate_boxes(&[image], 1, &CocoSettings::default());
        result.class_names = vec!["cat".to_owned()];
        assert!(scores(&result, false).get("precision").is_none());
        let full = scores(&result, true);
        assert_eq!(full["precision"]["shape"], json!([10, 101, 1, 4, 3]));
        assert_eq!(full["precision"]["values"].as_array().map(Vec::len), Some(12_120));
        assert_eq!(full["recall"]["values"].as_array().map(Vec::len), Some(120));
        assert_eq!(full["per_class"][0][0], "cat");
    }
}
