//! The health report and the statistics of data sets made up here, with real files, and of real sets where they are.

use boxwright::data::check::{CheckSettings, Report, report};
use boxwright::data::statistics::{fit_anchors, statistics};
use boxwright::data::{self, Dataset, Depth, Finding, ImageEntry, Severity, ShapesSpec, Source, Split};
use boxwright::detect::{Arch, Config};
use boxwright::engine::reach::reach;
use boxwright::geometry::{BBox, Object};
use boxwright::imaging::{Kernel, Picture, Preprocess, resize_picture, save_png};
use boxwright::random::Random;
use std::fs;
use std::path::{Path, PathBuf};

const PIXELS: CheckSettings<'static> = CheckSettings { depth: Depth::Pixels, preprocess: None };
const HEADERS: CheckSettings<'static> = CheckSettings { depth: Depth::Headers, preprocess: None };

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn write_picture(path: &Path, picture: &Picture) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    save_png(picture, path).unwrap();
}

fn plain(grey: u8) -> Picture {
    Picture::new(40, 30, [grey; 3])
}

/// Soft blobs of light, different for each seed.
fn scene(seed: u64) -> Picture {
    let mut random = Random::new(seed);
    let blobs: Vec<[f32; 4]> =
        (0..12).map(|_| [random.unit(), random.unit(), random.range(0.05, 0.2), random.range(-120.0, 120.0)]).collect();
    let (width, height) = (96u32, 80u32);
    let mut picture = Picture::new(width, height, [0; 3]);
    for y in 0..height {
        for x in 0..width {
            let (u, v) = (x as f32 / width as f32, y as f32 / height as f32);
            let light = |b: &[f32; 4]| b[3] / (1.0 + ((u - b[0]).powi(2) + (v - b[1]).powi(2)) / (b[2] * b[2]));
            let grey = (127.0 + blobs.iter().map(light).sum::<f32>()).clamp(0.0, 255.0) as u8;
            picture.set_pixel(x, y, [grey; 3]);
        }
    }
    picture
}

/// A JPEG of 40 × 30 stored pixels that EXIF turns by 90°.
fn write_turned_jpeg(path: &Path) {
    let mut jpeg = Vec::new();
    let mut encoder = image::codecs::jpeg::JpegEncoder::new(&mut jpeg);
    encoder.encode(&plain(90).rgb, 40, 30, image::ExtendedColorType::Rgb8).unwrap();
    // "Exif", a little-endian TIFF header, one entry: orientation (0x0112), one short, 6
    let exif: &[u8] = b"\xff\xe1\0\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    fs::write(path, [&jpeg[..2], exif, &jpeg[2..]].concat()).unwrap();
}

fn entry(path: PathBuf, (width, height): (u32, u32)) -> ImageEntry {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let objects = vec![Object { bbox: BBox::new(4.0, 4.0, 20.0, 20.0), ..Object::default() }];
    ImageEntry { id: 1, name, source: Source::File(path), width, height, objects }
}

fn set(images: Vec<ImageEntry>) -> Dataset {
    Dataset {
        name: "made up".to_owned(),
        split: "all".to_owned(),
        classes: vec!["thing".to_owned()],
        category_ids: vec![1],
        images,
        warnings: Vec::new(),
    }
}

fn named(findings: &[Finding]) -> Vec<(Severity, &str, &str)> {
    findings.iter().map(|f| (f.severity, f.rule.as_str(), f.file.as_str())).collect()
}

/// The folder of real data beside the repository, where there is one.
fn shared(name: &str) -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join("shared").join("data").join(name);
    if path.is_dir() {
        return path.to_str().map(str::to_owned);
    }
    eprintln!("skipped: {} is not there", path.display());
    None
}

fn whole_report(path: &str, settings: CheckSettings<'_>) -> Report {
    report(path, None, settings, &mut |_, _| true).unwrap()
}

// ---- image files

#[test]
fn each_fault_of_an_image_file_has_its_rule() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write_picture(&at("good.png"), &plain(1));
    write_picture(&at("copy.png"), &plain(1));
    write_picture(&at("wide.png"), &plain(2));
    write(&at("broken.png"), "no picture");
    write_turned_jpeg(&at("lying.jpg"));
    let cut = fs::read(at("lying.jpg")).unwrap();
    fs::write(at("cut.jpg"), &cut[..cut.len() - 9]).unwrap();
    let set = set(vec![
        entry(at("good.png"), (40, 30)),
        entry(at("copy.png"), (40, 30)),
        entry(at("wide.png"), (41, 30)),
        entry(at("broken.png"), (40, 30)),
        entry(at("gone.png"), (40, 30)),
        entry(at("lying.jpg"), (40, 30)),
        entry(at("cut.jpg"), (30, 40)),
    ]);
    let expected = [
        (Severity::Error, "unreadable-image", "broken.png"),
        (Severity::Error, "missing-image", "gone.png"),
        (Severity::Error, "unreadable-image", "cut.jpg"),
        (Severity::Warning, "size-mismatch", "wide.png"),
        (Severity::Warning, "exif-rotation", "lying.jpg"),
        (Severity::Warning, "same-image", "copy.png"),
    ];
    assert_eq!(named(&data::check(&set, Depth::Pixels)), expected);
    // headers do not show what is broken behind them, nor what is the same
    let quick = data::check(&set, Depth::Headers);
    let rules: Vec<&str> = quick.iter().map(|finding| finding.rule.as_str()).collect();
    assert_eq!(rules, ["unreadable-image", "missing-image", "size-mismatch", "exif-rotation", "exif-rotation"]);
}

#[test]
fn a_turned_picture_whose_annotation_is_upright_is_only_noted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("upright.jpg");
    write_turned_jpeg(&path);
    let findings = data::check(&set(vec![entry(path, (30, 40))]), Depth::Pixels);
    assert_eq!(named(&findings), [(Severity::Info, "exif-rotation", "upright.jpg")]);
    assert!(findings[0].message.contains("turned by 90°"), "{}", findings[0].message);
}

// ---- splits

fn voc_annotation(root: &Path, id: &str, class: &str) {
    let text = format!(
        "<annotation><filename>{id}.png</filename><size><width>96</width><height>80</height></size>\
         <object><name>{class}</name><difficult>0</difficult><bndbox><xmin>11</xmin><ymin>11</ymin>\
         <xmax>40</xmax><ymax>50</ymax></bndbox></object></annotation>"
    );
    write(&root.join("Annotations").join(format!("{id}.xml")), &text);
}

#[test]
fn what_stands_in_two_splits_is_found_by_list_by_pixels_and_by_likeness() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let pictures = root.join("JPEGImages");
    for (id, seed, class) in [("a", 1, "cat"), ("b", 2, "cat"), ("c", 3, "dog"), ("e", 5, "cat"), ("f", 1, "cat")] {
        write_picture(&pictures.join(format!("{id}.png")), &scene(seed));
        voc_annotation(root, id, class);
    }
    // d: b at another size, shown at the size that its annotation says
    let small = resize_picture(&scene(2), 60, 50, Kernel::BilinearAntialias);
    write_picture(&pictures.join("d.png"), &resize_picture(&small, 96, 80, Kernel::BilinearAntialias));
    voc_annotation(root, "d", "cat");
    let lists = root.join("ImageSets").join("Main");
    write(&lists.join("train.txt"), "a\nb\nc\n");
    write(&lists.join("val.txt"), "d\ne\nf\na\n");
    write(&lists.join("trainval.txt"), "a\nb\nc\nd\ne\nf\n");
    let found = whole_report(root.to_str().unwrap(), PIXELS);
    assert_eq!(found.sets.len(), 1, "all images, once");
    assert!(found.is_healthy());
    assert_eq!(
        named(&found.sets[0].findings),
        [(Severity::Warning, "same-image", "f.png")],
        "what is only near is told between splits"
    );
    let mut across = named(&found.across);
    across.sort_unstable();
    let expected = [
        (Severity::Warning, "class-missing-in-split", "val"),
        (Severity::Warning, "image-in-two-splits", "a.png"),
        (Severity::Warning, "image-in-two-splits", "d.png"),
        (Severity::Warning, "image-in-two-splits", "f.png"),
    ];
    assert_eq!(across, expected);
    let message = |file: &str| found.across.iter().find(|finding| finding.file == file).unwrap().message.clone();
    assert!(message("a.png").contains("is listed in both splits"));
    assert!(message("d.png").contains("looks the same") && message("d.png").contains("b.png of split train"));
    assert!(message("f.png").contains("has the same pixels as a.png"));
    assert!(message("val").contains("dog"));
    // a single split is not compared, and headers alone show what the lists share
    let single = report(root.to_str().unwrap(), Some("val"), PIXELS, &mut |_, _| true).unwrap();
    assert!(single.across.is_empty() && single.sets[0].dataset.images.len() == 4);
    let quick = whole_report(root.to_str().unwrap(), HEADERS);
    assert_eq!(quick.across.iter().filter(|finding| finding.rule == "image-in-two-splits").count(), 1);
}

fn coco_file(root: &Path, split: &str, images: &[&str], categories: &str) {
    let listed: Vec<String> = images
        .iter()
        .enumerate()
        .map(|(id, name)| format!(r#"{{"id": {id}, "file_name": "{name}", "width": 40, "height": 30}}"#))
        .collect();
    let text = format!(
        r#"{{"images": [{}], "annotations": [
            {{"id": 1, "image_id": 0, "category_id": 2, "bbox": [1, 2, 10, 12], "area": 120, "iscrowd": 0}},
            {{"id": 2, "image_id": 0, "category_id": 2, "bbox": [5, 5, 0, 3], "area": 0, "iscrowd": 0}}
        ], "categories": [{categories}]}}"#,
        listed.join(", ")
    );
    write(&root.join("annotations").join(format!("instances_{split}.json")), &text);
}

#[test]
fn every_split_of_a_coco_folder_is_checked_and_one_lost_image_makes_it_unhealthy() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (name, grey) in [("a.png", 10), ("b.png", 60)] {
        write_picture(&root.join("images").join(name), &plain(grey));
    }
    coco_file(root, "train", &["a.png"], r#"{"id": 2, "name": "cat"}, {"id": 5, "name": "dog"}"#);
    coco_file(root, "val", &["b.png"], r#"{"id": 2, "name": "cat"}"#);
    let path = root.to_str().unwrap();
    let found = whole_report(path, PIXELS);
    let splits: Vec<&str> = found.sets.iter().map(|set| set.dataset.split.as_str()).collect();
    assert_eq!(splits, ["train", "val"]);
    for set in &found.sets {
        let degenerate: Vec<&Finding> = set.findings.iter().filter(|f| f.rule == "degenerate-box").collect();
        assert_eq!(degenerate.len(), 1, "{:?}", set.findings);
        assert!(degenerate[0].message.contains("annotation 2"), "{degenerate:?}");
    }
    assert!(found.sets[0].findings.iter().any(|f| f.rule == "gapped-categories" && f.message.contains("without 3, 4")));
    assert_eq!(named(&found.across), [(Severity::Warning, "classes-differ", "val")]);
    assert!(found.across[0].message.contains("class 2 is \"dog\" here and none there"), "{}", found.across[0].message);
    assert!(found.is_healthy(), "warnings are no errors");
    // an image that is lost, and a split that does not open
    coco_file(root, "val", &["b.png", "gone.png"], r#"{"id": 2, "name": "cat"}"#);
    let found = whole_report(path, HEADERS);
    assert!(!found.is_healthy());
    let errors: Vec<(&str, &str)> = found
        .findings()
        .filter(|(_, finding)| finding.severity == Severity::Error)
        .map(|(split, finding)| (split, finding.file.as_str()))
        .collect();
    assert_eq!(errors, [("val", "gone.png")]);
    coco_file(root, "val", &[], "");
    let found = whole_report(path, HEADERS);
    assert_eq!(named(&found.across), [(Severity::Error, "unreadable-split", "val")]);
    assert_eq!((found.sets.len(), found.count(Severity::Error)), (1, 1));
}

#[test]
fn what_does_not_open_is_an_error_and_not_a_report() {
    assert!(report("no such path", None, HEADERS, &mut |_, _| true).is_err());
    let shapes = report("shapes:train=6,size=64x48", None, HEADERS, &mut |_, _| true).unwrap();
    assert_eq!((shapes.sets.len(), shapes.across.len(), shapes.is_healthy()), (1, 0, true));
}

// ---- anchors

fn twelve_shapes() -> Dataset {
    data::shapes(&ShapesSpec { train: 12, size: (256, 192), ..ShapesSpec::default() }, Split::Train)
}

#[test]
fn more_anchors_fit_better_and_a_seed_fixes_them() {
    let set = twelve_shapes();
    let config = Config::new(Arch::Yolov3Nano, &set.classes);
    let preprocess: &Preprocess = config.preprocess();
    let overlaps: Vec<f32> =
        [1, 3, 9].iter().map(|&count| fit_anchors(&set, preprocess, count, 1).average_iou).collect();
    assert!(overlaps.is_sorted() && overlaps[2] < 1.0, "{overlaps:?}");
    let fit = fit_anchors(&set, preprocess, 5, 7);
    assert_eq!((fit.anchors.len(), fit.objects), (5, statistics(&set).objects));
    assert!(fit.anchors.is_sorted_by_key(|[width, height]| width * height));
    assert_eq!(fit_anchors(&set, preprocess, 5, 7), fit);
}

#[test]
fn the_best_possible_recall_counts_every_object_once() {
    let set = twelve_shapes();
    let config = Config::new(Arch::SsdNano, &set.classes);
    let found = reach(&config, &set, &mut |_, _| true).unwrap();
    let [all, by_range @ ..] = found.sizes.as_slice() else { panic!("{:?}", found.sizes) };
    assert_eq!(all.objects, statistics(&set).objects);
    assert_eq!(by_range.iter().map(|range| range.objects).sum::<usize>(), all.objects);
    assert_eq!(by_range.iter().map(|range| range.reached).sum::<usize>(), all.reached);
    assert_eq!(found.findings.len(), all.objects - all.reached);
    // the built-in detector is made for these pictures
    assert!(all.recall.unwrap() > 0.8, "{all:?}");
    assert_eq!((found.images, found.approximated), (12, 0));
}

// ---- real data, where it is

#[test]
fn the_two_degenerate_boxes_of_the_blood_cells_are_named() {
    let Some(path) = shared("bccd") else { return };
    let found = whole_report(&path, HEADERS);
    assert!(found.is_healthy(), "{:?}", named(&found.sets[0].findings));
    let degenerate: Vec<&Finding> = found.sets[0].findings.iter().filter(|f| f.rule == "degenerate-box").collect();
    let files: Vec<&str> = degenerate.iter().map(|finding| finding.file.as_str()).collect();
    assert_eq!(files, ["BloodImage_00338.xml", "BloodImage_00343.xml"]);
    assert!(degenerate.iter().all(|finding| finding.message.contains("left out of training")));
    let measured = statistics(&found.sets[0].dataset);
    assert_eq!((measured.objects, measured.images_without_objects), (4888 - 2, 0));
}

#[test]
fn the_coco_subset_has_gaps_and_rare_classes_and_nothing_is_lost() {
    let Some(path) = shared("coco-train68") else { return };
    let found = whole_report(&path, PIXELS);
    assert!(found.is_healthy(), "{:?}", named(&found.sets[0].findings));
    let message = |rule: &str| {
        let finding = found.sets[0].findings.iter().find(|finding| finding.rule == rule);
        finding.map(|finding| finding.message.clone()).unwrap_or_default()
    };
    assert!(message("gapped-categories").contains("from 1 to 90 without 12, 26, 29, 30, 45, … (10 in all)"));
    assert!(message("unused-class").contains("18 of 80 classes"));
    assert!(message("uneven-classes").contains("person has"), "{}", message("uneven-classes"));
    assert!(found.sets[0].findings.iter().all(|finding| finding.rule != "same-image"));
    assert_eq!(statistics(&found.sets[0].dataset).crowds, 6);
}
