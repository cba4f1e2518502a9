//! Views as files: every figure's SVG is well-formed, its CSV has a row for each thing, its PNG a picture.

use boxwright::app::export::{self, Bar, Drawing, Figure, Format, Matrix, Table, views};
use boxwright::app::scene::{Choice, Prepared};
use boxwright::engine::command::ModelChoice;
use boxwright::engine::event::EvalSummary;
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
        engine.send(Command::LoadModel { choice, weights: None, allow_partial: false });
        engine.send(Command::OpenData { path: DATA.into(), split: Some("test".into()) });
        engine.send(Command::Show { index: 0 });
        engine.send(Command::Evaluate);
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
        truth: true,
        predictions: true,
        anchors: true,
        heat: shown.trace.as_ref().and_then(|trace| trace.maps.first()).map(|map| map.name.clone()),
        score: 0.4,
        isolated: None,
        selected: Some(0),
        hovered: None,
    };
    let scene = prepared.scene(shown, &choice);
    let trace = shown.trace.as_ref().unwrap();
    let maps: Vec<usize> = (0..trace.maps.len().min(3)).collect();
    let channels = views::Channels::Reduced(Reduction::Mean);
    let own = config();
    vec![
        ("image", views::image(shown, scene, 0.4, true)),
        ("anchors", views::assigned(&own, shown, prepared.picture()).expect("it has anchors")),
        ("suppression", views::before_and_after(&own, shown, prepared.picture()).expect("it was suppressed")),
        ("features", views::map_grid(trace, &maps, channels, ColorMap::Viridis, true)),
        ("principal", views::map_grid(trace, &maps, views::Channels::Principal, ColorMap::Viridis, false)),
        ("precision", views::precision_recall(evaluation, 0, None)),
        ("score", views::by_score(evaluation, 0, None)),
        ("confusion", views::confusion(evaluation)),
        ("mistakes", views::mistakes(evaluation)),
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
                assert_eq!(count("text"), labels, "{found:?}");
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
            other => panic!("{other} has no expectation"),
        };
        assert_eq!(figure.table.rows(), expected, "{name}");
    }
    let kept = written(&figures().remove(2).1, "view.csv").lines().filter(|line| line.contains(",kept,")).count();
    assert_eq!(kept, trace.suppression.as_ref().unwrap().kept.len());
    let numbers = written(&views::numbers(evaluation), "view.csv");
    assert_eq!(rows(&numbers), evaluation.classes.len() + 1);
    let all: Vec<&str> = numbers.lines().nth(1).unwrap().split(',').collect();
    assert_eq!(all[1].parse::<f64>().unwrap(), evaluation.result.stats[0]);
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
    for (view, file) in [("suppression", "s.csv"), ("confusion", "c.svg"), ("statistics", "d.csv")] {
        let (code, words) = render(view, file);
        assert_eq!(code, Some(0), "{view}: {words}");
        assert!(Format::of(Path::new(file)).is_ok() && read(file).len() > 40, "{view}");
    }
    assert!(elements(&read("c.svg")).contains_key("rect"));
    assert!(rows(&read("s.csv")) > 0 && rows(&read("d.csv")) == boxwright::data::CLASSES.len());
    for (view, file, said) in [
        ("image", "a.gif", ".png, .svg or .csv"),
        ("numbers", "n.svg", "is a table"),
        ("proposals", "p.svg", "has no proposals"),
    ] {
        let (code, words) = render(view, file);
        assert!(code == Some(2) && words.contains(said), "{view}: {code:?} {words}");
    }
}
