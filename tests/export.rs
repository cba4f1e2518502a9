//! Views as files: every figure's SVG is well-formed, its CSV has a row for each thing, its PNG a picture.

use boxwright::app::export::{self, Bar, Drawing, Figure, Format, Matrix, Table, views};
use boxwright::app::outcome::{Coloring, OutcomeFilter};
use boxwright::app::scene::{Choice, Prepared};
use boxwright::engine::command::ModelChoice;
use boxwright::engine::event::EvalSummary;
use boxwright::engine::model::Permit;
use boxwright::engine::{Command, DeviceChoice, Engine, Event, Severity, Shown};
use boxwright::render::{ColorMap, Context, RenderError};
use boxwright::trace::reduce::Reduction;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

const DATA: &str = "shapes:train=2,val=2,test=4";

/// One image of the sample with its trace, and the model scored on four.
struct Looked {
    shown: Arc<Shown>,
    evaluation: Arc<EvalSummary>,
}

fn looked() -> &'static Looked {
    static LOOKED: OnceLock<Looked> = OnceLock::new();
    LOOKED.get_or_init(|| {
        let engine = Engine::start(DeviceChoice::Cpu, Arc::new(|| {})).unwrap();
        let choice = ModelChoice::Named("ssd-nano".into());
        engine.send(Command::LoadModel { choice, weights: None, permit: Permit::default() });
        engine.send(Command::OpenData { path: DATA.into(), split: Some("test".into()) });
        engine.send(Command::Show { index: 0 });
        engine.send(Command::Evaluate { misses: Some(1.1) });
        let deadline = Instant::now() + Duration::from_secs(120);
        let evaluation = loop {
            assert!(Instant::now() < deadline, "no evaluation");
            match engine.wait(Duration::from_millis(200)) {
                Some(Event::Evaluated(summary)) => break summary,
                Some(Event::Log { severity: Severity::Error, message, .. }) => panic!("{message}"),
                _ => {}
            }
        };
        let shown = engine.slots.shown.get().expect("an image is on show");
        assert!(shown.detected && shown.trace.is_some());
        Looked { shown, evaluation }
    })
}

fn config() -> boxwright::detect::Config {
    boxwright::detect::Config::new(boxwright::detect::Arch::SsdNano, &looked().shown.detection_classes)
}

/// How often each element occurs, after a strict reading of the whole text.
fn elements(svg: &str) -> std::collections::BTreeMap<String, usize> {
    let mut reader = quick_xml::Reader::from_str(svg);
    let mut found = std::collections::BTreeMap::new();
    let mut depth = 0i64;
    loop {
        match reader.read_event().unwrap_or_else(|error| panic!("{error}: {svg}")) {
            quick_xml::events::Event::Eof => break,
            quick_xml::events::Event::Start(tag) => {
                depth += 1;
                *found.entry(tag.name().0.to_owned()).or_insert(0) += 1;
            }
            quick_xml::events::Event::Empty(tag) => {
                *found.entry(tag.name().0.to_owned()).or_insert(0) += 1;
            }
            quick_xml::events::Event::End(_) => depth -= 1,
            _ => {}
        }
    }
    assert_eq!(depth, 0, "an element is not closed");
    found
}

fn written(figure: &Figure, name: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    export::write(figure, &path, export::PLOT).unwrap_or_else(|error| panic!("{}: {error}", figure.title));
    std::fs::read_to_string(path).unwrap()
}

/// Lines of a CSV whose cells hold no line breaks, without the heading.
fn rows(csv: &str) -> usize {
    csv.lines().count() - 1
}

/// The figures of one pass and of one evaluation.
fn figures() -> Vec<(&'static str, Figure)> {
    let Looked { shown, evaluation } = looked();
    let mut prepared = Prepared::new(shown, 1);
    let choice = Choice {
        anchors: true,
        heat: shown.trace.as_ref().and_then(|trace| trace.maps.first()).map(|map| map.name.clone()),
        score: 0.4,
        selected: Some(0),
        ..Choice::default()
    };
    let trace = shown.trace.as_ref().unwrap();
    let maps: Vec<usize> = (0..trace.maps.len().min(3)).collect();
    let channels = views::Channels::Reduced(Reduction::Mean);
    let own = config();
    vec![
        ("image", views::image(shown, &mut prepared, &choice, true)),
        ("anchors", views::assigned(&own, shown, prepared.picture()).expect("it has anchors")),
        ("suppression", views::before_and_after(&own, shown, prepared.picture()).expect("it was suppressed")),
        ("features", views::map_grid(trace, &maps, channels, ColorMap::Viridis, true)),
        ("principal", views::map_grid(trace, &maps, views::Channels::Principal, ColorMap::Viridis, false)),
        ("precision", views::precision_recall(evaluation, 0, None, false)),
        ("score", views::by_score(evaluation, 0, None, false)),
        ("confusion", views::confusion(evaluation)),
        ("mistakes", views::mistakes(evaluation)),
        ("misses", views::misses(evaluation)),
    ]
}

#[test]
fn every_svg_is_well_formed_and_draws_what_the_view_shows() {
    let shown = &looked().shown;
    for (name, figure) in figures() {
        let svg = written(&figure, "view.svg");
        let found = elements(&svg);
        let count = |element: &str| found.get(element).copied().unwrap_or(0);
        // Base64 of a picture may spell anything.
        let drawn = svg.split("base64,").map(|part| part.split_once('"').map_or(part, |(_, after)| after));
        assert!(!svg.split("base64,").next().unwrap().contains("NaN"), "{name}");
        assert!(drawn.skip(1).all(|part| !part.contains("NaN") && !part.contains("inf\"")), "{name}");
        match name {
            "image" => {
                let labels = shown.detections.iter().filter(|d| d.score >= 0.4).count();
                assert_eq!(count("image"), 1, "{found:?}");
                // And the scale of the map that lies over it.
                assert_eq!(count("text"), labels + 1, "{found:?}");
                assert!(count("rect") >= labels + shown.objects.len(), "{found:?}");
            }
            "suppression" => assert_eq!(count("image"), 2),
            "features" | "principal" => assert_eq!(count("image"), 3),
            "precision" => assert!(count("path") > 10, "{found:?}"),
            _ => assert!(found.len() >= 3, "{name}: {found:?}"),
        }
    }
}

#[test]
fn every_csv_has_a_row_for_each_thing_behind_the_view() {
    let Looked { shown, evaluation } = looked();
    let trace = shown.trace.as_ref().unwrap();
    for (name, figure) in figures() {
        let csv = written(&figure, "view.csv");
        assert_eq!(rows(&csv), figure.table.rows(), "{name}");
        let expected = match name {
            "image" => shown.objects.len() + shown.detections.iter().filter(|d| d.score >= 0.4).count(),
            "anchors" => trace.anchors.boxes.len(),
            "suppression" => trace.suppression.as_ref().unwrap().candidates.len(),
            "features" | "principal" => trace.maps.iter().take(3).map(|map| map.width * map.height).sum(),
            "precision" => {
                let set = &evaluation.details.curves[0];
                set.pooled.points.len() + set.classes.iter().map(|curve| curve.points.len()).sum::<usize>()
            }
            "score" => evaluation.details.curves[0].pooled.points.len(),
            "confusion" => (evaluation.classes.len() + 1).pow(2),
            "mistakes" => evaluation.details.errors.len(),
            "misses" => {
                let misses = evaluation.misses.as_ref().expect("causes were asked for");
                misses.kinds().into_iter().map(|kind| misses.classes(Some(kind)).len()).sum()
            }
            other => panic!("{other} has no expectation"),
        };
        assert_eq!(figure.table.rows(), expected, "{name}");
    }
    let kept = written(&figures().remove(2).1, "view.csv").lines().filter(|line| line.contains(",kept,")).count();
    assert_eq!(kept, trace.suppression.as_ref().unwrap().kept.len());
    let numbers = written(&views::numbers(evaluation, false), "view.csv");
    assert_eq!(rows(&numbers), evaluation.classes.len() + 1);
    let all: Vec<&str> = numbers.lines().nth(1).unwrap().split(',').collect();
    assert_eq!(all[1].parse::<f64>().unwrap(), evaluation.result.stats[0]);
}

#[test]
fn the_picture_is_exported_by_its_layers_and_outcomes() {
    let shown = &looked().shown;
    let mut prepared = Prepared::new(shown, 1);
    let figure = |prepared: &mut Prepared, choice: Choice| {
        let figure = views::image(shown, prepared, &Choice { score: 0.4, ..choice }, false);
        (written(&figure, "view.svg"), written(&figure, "view.csv"))
    };
    let marks = |csv: &str| -> Vec<String> {
        csv.lines().skip(1).filter_map(|line| line.rsplit(',').next()).map(str::to_owned).collect()
    };
    let (svg, csv) = figure(&mut prepared, Choice { boxes: false, masks: false, ..Choice::default() });
    let found = elements(&svg);
    assert!(!found.contains_key("rect") && !found.contains_key("path") && !found.contains_key("text"), "{found:?}");
    assert!(marks(&csv).iter().all(|mark| !mark.is_empty()), "{csv}");
    // A colour is never alone: letters stand at the boxes, and say in a corner what they are.
    let (svg, csv) = figure(&mut prepared, Choice { coloring: Coloring::Error, ..Choice::default() });
    let letters = |letter: &str| svg.matches(&format!(">{letter}</text>")).count();
    let own = marks(&csv);
    let rows = |kind: &str, mark: &str| {
        csv.lines().filter(|line| line.starts_with(kind) && line.ends_with(&format!(",{mark}"))).count()
    };
    assert!(rows("detection", "TP") > 0, "{csv}");
    for mark in ["TP", "FP", "D"] {
        assert_eq!(letters(mark), rows("detection", mark), "{mark}");
    }
    assert_eq!(letters("FN"), rows("object", "FN"));
    assert!(svg.contains(">TP ") && svg.contains(": true positive, solid</text>"));
    for (outcomes, expected) in [
        (OutcomeFilter::TruePositives, &["TP"][..]),
        (OutcomeFilter::FalsePositives, &["FP", "D"][..]),
        (OutcomeFilter::FalseNegatives, &["FN"][..]),
    ] {
        let (_, csv) = figure(&mut prepared, Choice { outcomes, ..Choice::default() });
        let kept: Vec<&String> = own.iter().filter(|mark| expected.contains(&mark.as_str())).collect();
        assert_eq!(marks(&csv).iter().collect::<Vec<_>>(), kept, "{outcomes:?}");
    }
}

#[test]
fn names_of_a_data_set_cannot_break_out_of_a_drawing_or_a_table() {
    let hostile = "<script>alert(\"1\")</script>,\r\n& 'x'";
    let names = vec![hostile.to_owned(), "background".to_owned()];
    let mut table = Table::new(&["name", "count"]);
    table.row(&[&hostile, &1]);
    let bar = Bar { name: hostile.into(), length: 1.0, words: hostile.into() };
    let matrix = Matrix { names, counts: vec![1, 2, 3, 0], shares: vec![0.3, 0.7, 1.0, 0.0] };
    for drawing in [Drawing::Matrix(matrix), Drawing::Bars(vec![bar])] {
        let figure = Figure { title: hostile.into(), drawing: Some(drawing), table: table.clone() };
        let found = elements(&written(&figure, "view.svg"));
        assert!(!found.contains_key("script"), "{found:?}");
        assert!(written(&figure, "view.csv").contains("\"<script>alert(\"\"1\"\")</script>,\r\n& 'x'\",1\r\n"));
    }
}

#[test]
fn every_view_is_drawn_as_pixels_where_there_is_a_graphics_adapter() {
    match Context::headless() {
        Ok(_) => {}
        Err(RenderError::NoAdapter(_)) => {
            println!("skipped: no graphics adapter");
            return;
        }
        Err(error) => panic!("{error}"),
    }
    let folder = tempfile::tempdir().unwrap();
    for (name, figure) in figures() {
        let path = folder.path().join(format!("{name}.png"));
        export::write(&figure, &path, (400, 240)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let picture = boxwright::imaging::load(&path).unwrap();
        let first = picture.pixel(0, 0);
        let differing = picture.rgb.chunks_exact(3).filter(|pixel| **pixel != first).count();
        assert!(differing * 200 > picture.rgb.len() / 3, "{name} is empty");
        if name == "image" {
            let own = &looked().shown.picture;
            assert_eq!((picture.width, picture.height), (own.width, own.height));
        }
    }
}

#[test]
fn the_command_line_writes_views_by_the_files_ending() {
    let folder = tempfile::tempdir().unwrap();
    let render = |view: &str, file: &str| -> (Option<i32>, String) {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_boxwright"));
        command.args(["render", "--view", view, "--data", DATA, "--split", "test", "--out"]);
        let output = command.arg(folder.path().join(file)).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let read = |file: &str| std::fs::read_to_string(folder.path().join(file)).unwrap();
    for (view, file) in [
        ("suppression", "s.csv"),
        ("confusion", "c.svg"),
        ("statistics", "d.csv"),
        ("images", "i.csv"),
        ("health", "h.csv"),
        ("augmentation", "a.svg"),
        ("model", "m.svg"),
        ("step", "t.csv"),
        ("levels", "l.csv"),
        ("worst", "w.csv"),
    ] {
        let (code, words) = render(view, file);
        assert_eq!(code, Some(0), "{view}: {words}");
        assert!(Format::of(Path::new(file)).is_ok() && read(file).len() > 30, "{view}");
    }
    assert!(elements(&read("c.svg")).contains_key("rect"));
    assert!(rows(&read("s.csv")) > 0 && rows(&read("d.csv")) == boxwright::data::CLASSES.len());
    assert_eq!((rows(&read("i.csv")), rows(&read("w.csv"))), (4, 4));
    assert!(read("l.csv").starts_with("class,score,level,muted") && rows(&read("l.csv")) > 0);
    assert!(read("i.csv").starts_with("position,name,width") && read("h.csv").starts_with("severity,rule,file"));
    let positive = |line: &str| line.split(',').nth(2) == Some("1");
    assert!(read("t.csv").lines().any(positive), "no positive entered the loss");
    assert_eq!(elements(&read("a.svg")).get("image"), Some(&2));
    assert!(elements(&read("m.svg")).get("text").is_some_and(|count| *count > 20));
    for (view, file, said) in [
        ("image", "a.gif", ".png, .svg or .csv"),
        ("compare-data", "d.csv", "name what to compare with"),
        ("runs", "r.csv", "there is no folder of runs"),
        ("log", "g.csv", "name the folder of a run"),
        ("proposals", "p.svg", "has no proposals"),
    ] {
        let (code, words) = render(view, file);
        assert!(code == Some(2) && words.contains(said), "{view}: {code:?} {words}");
    }
}

/// The command line's `render` of a CSV on a sample: what it says, and what it writes where it succeeds.
fn rendered(arguments: &[&str]) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("view.csv");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_boxwright"));
    command.args(["render", "--data", DATA, "--split", "test"]).args(arguments).arg("--out").arg(&path);
    let output = command.output().unwrap();
    if output.status.success() {
        Ok(std::fs::read_to_string(path).unwrap())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[test]
fn the_command_line_compares_up_to_four_sides() {
    let against = |count: usize| ["--against-model", "ssd-nano"].repeat(count);
    let csv = rendered(&[&["--view", "compare", "--model", "ssd-nano"][..], &against(3)[..]].concat()).unwrap();
    let of = |side: &str| -> Vec<String> {
        let rows = csv.lines().filter_map(|line| line.strip_prefix(side)?.strip_prefix(','));
        rows.map(str::to_owned).collect()
    };
    assert!(!of("A").is_empty());
    for side in ["B", "C", "D"] {
        assert_eq!(of(side), of("A"), "{side}");
    }
    let mut arguments = [&["--view", "compare-data", "--model", "ssd-nano"][..], &against(1)[..]].concat();
    arguments.extend(["--against-model", "fcos-nano"]);
    let csv = rendered(&arguments).unwrap();
    assert_eq!(csv.lines().skip(1).map(|line| &line[..2]).collect::<Vec<_>>(), ["A,", "B,", "C,"]);
    let error = rendered(&[&["--view", "compare", "--model", "ssd-nano"][..], &against(4)[..]].concat()).unwrap_err();
    assert!(error.contains("5 sides"), "{error}");
}

#[test]
fn the_command_line_scores_masks_where_there_are_any() {
    let numbers = |arguments: &[&str]| rendered(&[&["--view", "numbers", "--model"][..], arguments].concat());
    let (boxes, masks) = (numbers(&["mask-nano"]).unwrap(), numbers(&["mask-nano", "--masks"]).unwrap());
    assert!(rows(&boxes) == rows(&masks) && boxes != masks, "{boxes} {masks}");
    let error = numbers(&["ssd-nano", "--masks"]).unwrap_err();
    assert!(error.contains("no masks to score"), "{error}");
}

#[test]
fn the_command_line_draws_errors_and_only_what_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missed.csv");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_boxwright"));
    command.args(["render", "--view", "image", "--model", "ssd-nano", "--data", DATA, "--split", "test"]);
    // Nothing has a score above 1: every object but the crowds is missed.
    command.args(["--color", "error", "--only", "false-negatives", "--score", "1.1", "--out"]);
    let output = command.arg(&path).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let csv = std::fs::read_to_string(path).unwrap();
    let objects = looked().shown.objects.iter().filter(|object| !object.crowd).count();
    assert_eq!(csv.lines().filter(|line| line.starts_with("object,") && line.ends_with(",FN")).count(), objects);
    assert_eq!(rows(&csv), objects);
}

#[test]
fn the_command_line_says_why_objects_are_missed() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str], file: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_boxwright"));
        let output = command.args(arguments).arg(folder.path().join(file)).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (text, std::fs::read_to_string(folder.path().join(file)).unwrap())
    };
    let (text, json) = run(
        &["eval", "--model", "ssd-nano", "--data", DATA, "--split", "test", "--misses", "1.1", "--json"],
        "scores.json",
    );
    let found: serde_json::Value = serde_json::from_str(&json).unwrap();
    let misses = &found["misses"];
    let number = |value: &serde_json::Value| value.as_u64().unwrap();
    let causes = misses["causes"].as_array().unwrap();
    assert_eq!(causes.iter().map(|cause| number(&cause["objects"])).sum::<u64>(), number(&misses["missed"]));
    assert_eq!(misses["missed"], misses["objects"], "nothing has a score above 1");
    assert!(text.contains("objects missed at score 1.10") && text.contains("below the threshold"), "{text}");
    let (_, csv) =
        run(&["render", "--view", "misses", "--data", DATA, "--split", "test", "--score", "1.1", "--out"], "m.csv");
    assert!(csv.starts_with("cause,class,objects\r\n"), "{csv}");
    let counted: u64 = csv.lines().skip(1).map(|line| line.rsplit(',').next().unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(counted, number(&misses["missed"]));
}
