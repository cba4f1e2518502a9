//! Data sets from files and from nothing: what is read, what is refused by name, and which batches come of it.

use boxwright::data::{
    self, Batch, DataError, Dataset, Depth, Finding, ImageEntry, Loader, LoaderSettings, Position, Severity,
    ShapesSpec, Source, Split,
};
use boxwright::geometry::{BBox, Detection, Mask, Object};
use boxwright::imaging::{Augmentation, ChannelOrder, Fit, Picture, Preprocess, save_png};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn write_png(path: &Path, width: u32, height: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    save_png(&Picture::new(width, height, [200, 30, 90]), path).unwrap();
}

fn rules(findings: &[Finding]) -> Vec<&str> {
    findings.iter().map(|finding| finding.rule.as_str()).collect()
}

fn found<'a>(findings: &'a [Finding], rule: &str) -> Vec<&'a Finding> {
    findings.iter().filter(|finding| finding.rule == rule).collect()
}

/// The folder of real data beside the repository, where there is one.
fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join("shared").join("data").join(name);
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("skipped: {} is not there", path.display());
    None
}

// ---- the built-in set

#[test]
fn shapes_are_the_same_for_any_number_of_threads() {
    let spec = ShapesSpec { train: 60, size: (160, 120), seed: 3, ..ShapesSpec::default() };
    let with_threads = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let set = data::shapes(&spec, Split::Train);
            let pixels: Vec<Picture> = (0..8).map(|index| set.picture(index).unwrap()).collect();
            (set.digest(), set, pixels)
        })
    };
    let one = with_threads(1);
    let three = with_threads(3);
    assert_eq!(one.0, three.0);
    assert_eq!(one.1, three.1);
    assert_eq!(one.2, three.2);
    let Source::Shapes { seed, index } = one.1.images[5].source else { panic!("not a drawn image") };
    let (picture, objects) = data::scene(seed, index, (160, 120));
    assert_eq!(picture, one.2[5]);
    assert_eq!(objects, one.1.images[5].objects);
}

#[test]
fn masks_of_front_objects_fill_their_boxes() {
    let spec = ShapesSpec { val: 120, size: (200, 150), ..ShapesSpec::default() };
    let set = data::shapes(&spec, Split::Val);
    let (mut tight, mut total) = (0, 0);
    for image in &set.images {
        for object in &image.objects {
            let (outer, inner) = (object.bbox, object.mask.as_ref().unwrap().bbox());
            assert!(inner.x0 + 1.0 > outer.x0 && inner.y0 + 1.0 > outer.y0, "{}", image.name);
            assert!(inner.x1 - 1.0 < outer.x1 && inner.y1 - 1.0 < outer.y1, "{}", image.name);
            assert_eq!(object.area, Some(object.mask.as_ref().unwrap().area() as f32));
        }
        // nothing but a thin line may lie over the last one; sharp tips cover less than half of their last pixels
        let last = image.objects.last().unwrap();
        let (outer, inner) = (last.bbox, last.mask.as_ref().unwrap().bbox());
        let gap = [inner.x0 - outer.x0, inner.y0 - outer.y0, outer.x1 - inner.x1, outer.y1 - inner.y1];
        tight += usize::from(gap.iter().all(|g| *g < 2.5));
        total += 1;
    }
    assert!(tight * 10 >= total * 8, "{tight} of {total}");
}

// ---- Pascal VOC

fn voc_object(name: &str, corners: [i32; 4]) -> String {
    let [x0, y0, x1, y1] = corners;
    format!(
        "<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>\
         <xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
    )
}

fn voc_annotation(root: &Path, id: &str, filename: &str, objects: &str) {
    let text = format!(
        "<annotation><filename>{filename}</filename><size><width>20</width><height>10</height></size>{objects}</annotation>"
    );
    write(&root.join("Annotations").join(format!("{id}.xml")), &text);
}

/// Three good images a, b, c in two splits, and d to h with one fault each.
fn voc_tree(root: &Path) {
    for id in ["a", "b", "c"] {
        write_png(&root.join("JPEGImages").join(format!("{id}.png")), 20, 10);
    }
    let two = voc_object("dog", [1, 1, 20, 10]) + &voc_object("cat", [3, 4, 8, 9]);
    voc_annotation(root, "a", "a.png", &two);
    let faults =
        voc_object("dog", [5, 5, 5, 5]) + &voc_object("dog", [30, 2, 40, 8]) + &voc_object("dog", [2, 2, 25, 8]);
    voc_annotation(root, "b", "b.png", &faults);
    voc_annotation(root, "c", "c.png", "");
    voc_annotation(root, "d", "d.jpg", &voc_object("emu", [1, 1, 5, 5]));
    voc_annotation(root, "e", "../../etc/passwd", "");
    voc_annotation(root, "f", "/etc/passwd", "");
    write(&root.join("Annotations").join("g.xml"), "<annotation><object><name>dog</annotation>");
    let lists = root.join("ImageSets").join("Main");
    write(&lists.join("train.txt"), "b\na\r\n\n b \n../a\n/etc/passwd\nmissing\n");
    write(&lists.join("val.txt"), "c\n");
    write(&lists.join("dog_train.txt"), "a 1\nb 1\n");
}

#[test]
fn a_voc_folder_is_read_and_its_faults_are_named() {
    let folder = tempfile::tempdir().unwrap();
    voc_tree(folder.path());
    let path = folder.path().to_str().unwrap();
    let set = data::open(path, None).unwrap();
    assert_eq!((set.split.as_str(), set.images.len()), ("all", 4));
    assert_eq!(set.classes, ["cat", "dog", "emu"], "sorted, from all files");
    assert_eq!(set.category_ids, [1, 2, 3]);
    let a = &set.images[0];
    assert_eq!((a.name.as_str(), a.width, a.height), ("a.png", 20, 10));
    assert_eq!(a.objects[0].bbox, BBox::new(0.0, 0.0, 20.0, 10.0));
    assert_eq!((a.objects[1].bbox, a.objects[1].class), (BBox::new(2.0, 3.0, 8.0, 9.0), 0));
    // b: a point, one outside, and one that leaves the image and stays
    assert_eq!(set.images[1].objects.len(), 1);
    assert_eq!(set.images[1].objects[0].bbox, BBox::new(1.0, 1.0, 25.0, 8.0));
    let degenerate = found(&set.warnings, "degenerate-box");
    assert_eq!((degenerate.len(), degenerate[0].file.as_str(), degenerate[0].object), (1, "b.xml", Some(0)));
    assert_eq!(found(&set.warnings, "outside-box").len(), 2);
    // d: listed without its file; e and f: refused; g: broken
    assert_eq!(set.images[3].name, "d.jpg");
    assert_eq!(found(&set.warnings, "missing-image")[0].file, "d.xml");
    let refused: Vec<&str> = found(&set.warnings, "path-escape").iter().map(|f| f.file.as_str()).collect();
    assert_eq!(refused, ["e.xml", "f.xml"]);
    let broken = found(&set.warnings, "broken-annotation");
    assert_eq!((broken.len(), broken[0].file.as_str(), broken[0].severity), (1, "g.xml", Severity::Error));
    assert!(set.picture(0).is_ok());
    assert!(matches!(set.picture(3), Err(DataError::Image(_))));
}

#[test]
fn voc_splits_are_lists_that_cannot_leave_their_folder() {
    let folder = tempfile::tempdir().unwrap();
    voc_tree(folder.path());
    let path = folder.path().to_str().unwrap();
    assert_eq!(data::splits(path), ["train", "val", "all"]);
    let train = data::open(path, Some("train")).unwrap();
    let names: Vec<&str> = train.images.iter().map(|image| image.name.as_str()).collect();
    assert_eq!(names, ["b.png", "a.png"], "in the list's order, each once");
    assert_eq!(train.classes, ["cat", "dog", "emu"], "classes do not depend on the split");
    assert_eq!(found(&train.warnings, "path-escape").len(), 2);
    assert_eq!(found(&train.warnings, "missing-annotation")[0].file, "missing.xml");
    for wanted in ["test", "../Main/train", ""] {
        let error = data::open(path, Some(wanted)).unwrap_err();
        assert!(matches!(&error, DataError::NoSplit { have, .. } if have.len() == 3), "{error}");
        assert!(error.to_string().contains("train, val, all"), "{error}");
    }
    // the folder around it, as VOCdevkit around VOC2007
    let outer = tempfile::tempdir().unwrap();
    voc_tree(&outer.path().join("VOC2007"));
    assert_eq!(data::open(outer.path().to_str().unwrap(), Some("val")).unwrap().images.len(), 1);
}

#[test]
fn a_voc_folder_without_one_readable_annotation_is_an_xml_error() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("Annotations").join("a.xml"), "<annotation><object></annotation>");
    let error = data::open(folder.path().to_str().unwrap(), None).unwrap_err();
    assert!(matches!(&error, DataError::Xml { path, .. } if path.ends_with("a.xml")), "{error}");
}

// ---- COCO

/// Two good images, one whose file is missing, one that is refused; categories 18 and 3.
fn coco_tree(root: &Path) -> PathBuf {
    write_png(&root.join("train2017").join("a.png"), 10, 8);
    write_png(&root.join("train2017").join("sub").join("b.png"), 10, 8);
    let runs = Mask::from_bitmap(8, 10, &[[0u8; 40], [1u8; 40]].concat()).unwrap();
    let text = format!(
        r#"{{
        "images": [
            {{"id": 7, "file_name": "a.png", "width": 10, "height": 8}},
            {{"id": 4, "file_name": "sub/b.png", "width": 0, "height": 0}},
            {{"id": 5, "file_name": "c.png", "width": 10, "height": 8}},
            {{"id": 6, "file_name": "../secret.png", "width": 10, "height": 8}},
            {{"id": 7, "file_name": "again.png", "width": 10, "height": 8}}
        ],
        "annotations": [
            {{"id": 101, "image_id": 7, "category_id": 18, "bbox": [1, 1, 3, 2], "area": 6, "iscrowd": 0,
              "segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]]}},
            {{"id": 102, "image_id": 7, "category_id": 3, "bbox": [0, 4, 10, 4], "area": 40, "iscrowd": 1,
              "segmentation": {{"size": [8, 10], "counts": "{runs}"}}}},
            {{"id": 103, "image_id": 4, "category_id": 3, "bbox": [2, 2, 0, 5], "iscrowd": 0}},
            {{"id": 104, "image_id": 99, "category_id": 3, "bbox": [2, 2, 1, 5], "iscrowd": 0}},
            {{"id": 105, "image_id": 4, "category_id": 4, "bbox": [2, 2, 1, 5], "iscrowd": 0}},
            {{"id": 106, "image_id": 6, "category_id": 3, "bbox": [2, 2, 1, 5], "iscrowd": 0}},
            {{"id": 107, "image_id": 4, "category_id": 3, "bbox": [2, 2, 1, 5], "segmentation": "?"}},
            {{"id": 107, "image_id": 4, "category_id": 3, "bbox": "none"}}
        ],
        "categories": [{{"id": 18, "name": "dog"}}, {{"id": 3, "name": "car"}}]
        }}"#,
        runs = runs.to_coco_string().replace('\\', "\\\\")
    );
    let json = root.join("annotations").join("instances_train2017.json");
    write(&json, &text);
    json
}

#[test]
fn a_coco_file_is_read_and_its_faults_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let json = coco_tree(folder.path());
    let set = data::read_coco(&json, None).unwrap();
    assert_eq!((set.classes.join(" "), set.category_ids.as_slice()), ("car dog".to_owned(), [3, 18].as_slice()));
    let ids: Vec<u64> = set.images.iter().map(|image| image.id).collect();
    assert_eq!(ids, [7, 4, 5]);
    let [dog, cars] = set.images[0].objects.as_slice() else { panic!("{:?}", set.images[0].objects) };
    assert_eq!((dog.id, dog.class, dog.bbox, dog.area), (101, 1, BBox::new(1.0, 1.0, 4.0, 3.0), Some(6.0)));
    assert_eq!(dog.mask.as_ref().unwrap().bbox(), dog.bbox);
    assert!(cars.crowd && cars.mask.as_ref().unwrap().area() == 40);
    assert_eq!((set.images[1].width, set.images[1].height), (10, 8), "from the file");
    assert_eq!(set.images[1].objects.len(), 1);
    assert!(set.picture(1).is_ok() && set.picture(2).is_err());
    let mut seen = rules(&set.warnings);
    seen.sort_unstable();
    let expected = [
        "broken-box",
        "broken-mask",
        "degenerate-box",
        "missing-image",
        "missing-size",
        "path-escape",
        "repeated-annotation",
        "repeated-image",
        "unknown-category",
        "unknown-image",
    ];
    assert_eq!(seen, expected);
    assert!(found(&set.warnings, "degenerate-box")[0].message.contains("annotation 103"));
    // the same through the folder, by the split's name with and without its year
    for split in [None, Some("train2017"), Some("train")] {
        assert_eq!(data::open(folder.path().to_str().unwrap(), split).unwrap(), set);
    }
    let error = data::open(folder.path().to_str().unwrap(), Some("val")).unwrap_err();
    assert!(error.to_string().contains("train2017"), "{error}");
}

#[test]
fn broken_coco_files_are_typed_errors() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("instances.json");
    let read = |text: &str| {
        write(&json, text);
        data::read_coco(&json, None).unwrap_err()
    };
    assert!(matches!(read("{\"images\": [}"), DataError::Json { .. }));
    assert!(matches!(read("[]"), DataError::Json { .. }));
    assert!(matches!(read("{\"images\": [], \"categories\": []}"), DataError::Invalid { .. }));
    assert!(matches!(read("{\"images\": [], \"annotations\": []}"), DataError::Empty { .. }));
    let deep = format!("{{\"images\": {}", "[".repeat(100_000));
    assert!(matches!(read(&deep), DataError::Json { .. }));
    let missing = data::read_coco(&folder.path().join("nothing.json"), None).unwrap_err();
    assert!(matches!(missing, DataError::Read { .. }));
    assert!(missing.to_string().ends_with("nothing.json"), "{missing}");
}

#[test]
fn results_come_back_as_written_and_unknown_images_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let set = data::read_coco(&coco_tree(folder.path()), None).unwrap();
    let mask = set.images[0].objects[0].mask.clone();
    let detection = |class: u32, score: f32, mask: Option<Mask>| Detection {
        bbox: BBox::new(1.0, 1.5, 4.25, 3.0),
        class,
        score,
        anchor: None,
        mask,
    };
    let detections =
        vec![vec![detection(1, 0.5, mask), detection(0, 0.1, None)], Vec::new(), vec![detection(1, 0.75, None)]];
    let path = folder.path().join("results.json");
    data::write_results(&path, &set, &detections).unwrap();
    assert_eq!(data::read_results(&path, &set).unwrap(), detections);
    let error = data::write_results(&path, &set, &[]).unwrap_err();
    assert!(matches!(error, DataError::Invalid { .. }));
    write(&path, r#"[{"image_id": 7.0, "category_id": 99, "bbox": [0, 0, 1, 1], "score": 1}]"#);
    assert!(data::read_results(&path, &set).unwrap().iter().all(Vec::is_empty), "a category of no interest");
    write(&path, r#"[{"image_id": 8, "category_id": 3, "bbox": [0, 0, 1, 1], "score": 1}]"#);
    let error = data::read_results(&path, &set).unwrap_err();
    assert!(matches!(error, DataError::Invalid { .. }) && error.to_string().contains("image 8"), "{error}");
    write(&path, r#"{"images": []}"#);
    assert!(matches!(data::read_results(&path, &set), Err(DataError::Json { .. })));
}

// ---- folders, pictures, recognition

#[test]
fn folders_and_pictures_open_by_what_is_in_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let here = folder.path().to_str().unwrap().to_owned();
    let empty = data::open(&here, None).unwrap_err();
    assert!(matches!(empty, DataError::Empty { .. }) && empty.to_string().contains("looked for"), "{empty}");
    write(&folder.path().join("notes.txt"), "nothing to see");
    let unknown = data::open(&here, None).unwrap_err();
    assert!(matches!(unknown, DataError::Unrecognised { .. }), "{unknown}");
    assert!(matches!(data::open(&path("notes.txt"), None), Err(DataError::Unrecognised { .. })));
    for name in ["b.png", "a.png", "sub/c.png", "sub/deep/not_seen.png", ".hidden.png"] {
        write_png(&folder.path().join(name), 12, 9);
    }
    write(&folder.path().join("broken.jpg"), "no picture");
    let set = data::open(&here, None).unwrap();
    let names: Vec<&str> = set.images.iter().map(|image| image.name.as_str()).collect();
    assert_eq!(names, ["a.png", "b.png", "sub/c.png"]);
    assert_eq!(found(&set.warnings, "unreadable-image")[0].file, "broken.jpg");
    let one = data::open(&path("a.png"), None).unwrap();
    assert_eq!((one.images.len(), one.images[0].width, one.classes.len()), (1, 12, 0));
    assert!(matches!(data::open(&path("broken.jpg"), None), Err(DataError::Image(_))));
    assert!(matches!(data::open(&here, Some("train")), Err(DataError::NoSplit { .. })));
    assert_eq!(data::splits(&here), ["all"]);
}

#[test]
fn a_file_of_another_size_than_annotated_is_a_finding() {
    let folder = tempfile::tempdir().unwrap();
    voc_tree(folder.path());
    write_png(&folder.path().join("JPEGImages").join("c.png"), 21, 10);
    write(&folder.path().join("JPEGImages").join("b.png"), "no picture");
    let set = data::open(folder.path().to_str().unwrap(), None).unwrap();
    for depth in [Depth::Headers, Depth::Pixels] {
        let findings = data::check(&set, depth);
        assert_eq!(found(&findings, "size-mismatch")[0].file, "c.png");
        assert_eq!(found(&findings, "unreadable-image")[0].file, "b.png");
        assert_eq!(found(&findings, "missing-image").len(), 1, "not told twice");
        assert!(findings.is_sorted_by_key(|finding| finding.severity));
    }
}

// ---- batches

fn settings(batch: usize, workers: usize, shuffle: bool) -> LoaderSettings {
    LoaderSettings {
        batch,
        workers,
        shuffle,
        seed: 17,
        augmentation: Augmentation::none(),
        preprocess: Preprocess {
            fit: Fit::Stretch { width: 48, height: 32 },
            order: ChannelOrder::Rgb,
            mean: [123.0, 117.0, 104.0],
            std: [1.0; 3],
        },
        drop_difficult: true,
        masks: true,
    }
}

fn take(loader: &mut Loader, count: usize) -> Vec<Batch> {
    let batches = (0..count).map(|_| {
        let mut batch = loader.next().unwrap();
        assert!(batch.wait_seconds >= 0.0);
        batch.wait_seconds = 0.0;
        batch
    });
    batches.collect()
}

fn ten_shapes() -> Arc<Dataset> {
    let spec = ShapesSpec { train: 10, size: (64, 48), ..ShapesSpec::default() };
    Arc::new(data::shapes(&spec, Split::Train))
}

#[test]
fn batches_do_not_depend_on_the_number_of_workers() {
    let set = ten_shapes();
    let stream = |workers: usize, seed: u64| {
        let mut settings = settings(4, workers, true);
        settings.augmentation = Augmentation::ssd();
        settings.seed = seed;
        let mut loader = Loader::new(Arc::clone(&set), settings, Position::default()).unwrap();
        assert_eq!(loader.batches_per_epoch(), 2);
        take(&mut loader, 7)
    };
    let one = stream(1, 17);
    assert_eq!(one, stream(3, 17));
    assert_ne!(one, stream(1, 18));
    assert_eq!(one[0].shape, [4, 3, 32, 48]);
    assert_eq!(one[0].images.len(), 4 * 3 * 32 * 48);
    let positions: Vec<(u64, u64)> = one.iter().map(|batch| (batch.position.epoch, batch.position.batch)).collect();
    assert_eq!(positions, [(0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1)]);
    // within an epoch no image comes twice; epochs differ
    let epoch = |k: usize| [one[2 * k].indices.clone(), one[2 * k + 1].indices.clone()].concat();
    let mut first = epoch(0);
    assert_ne!(first, epoch(1));
    first.sort_unstable();
    first.dedup();
    assert_eq!(first.len(), 8);
    assert!(one.iter().any(|batch| batch.applied.iter().any(|applied| !applied.is_empty())));
    for object in one.iter().flat_map(|batch| batch.objects.iter().flatten()) {
        assert!(object.bbox.is_proper() && object.bbox.clip(48.0, 32.0) == object.bbox);
        let mask = object.mask.as_ref().unwrap();
        assert_eq!((mask.width, mask.height), (48, 32));
    }
}

#[test]
fn a_resumed_stream_equals_the_unbroken_one() {
    let set = ten_shapes();
    let mut settings = settings(3, 2, true);
    settings.augmentation = Augmentation::flip_only();
    let mut loader = Loader::new(Arc::clone(&set), settings.clone(), Position::default()).unwrap();
    let whole = take(&mut loader, 9);
    for stop in [1, 3, 5] {
        let at = whole[stop - 1].position;
        let mut resumed = Loader::new(Arc::clone(&set), settings.clone(), at).unwrap();
        assert_eq!(resumed.position(), at);
        assert_eq!(take(&mut resumed, 9 - stop), whole[stop..], "resumed after {stop} batches");
    }
}

#[test]
fn an_ordered_epoch_shows_every_image_once() {
    let mut loader = Loader::new(ten_shapes(), settings(4, 2, false), Position::default()).unwrap();
    assert_eq!(loader.batches_per_epoch(), 3);
    let batches = take(&mut loader, 4);
    assert_eq!(batches[0].indices, [0, 1, 2, 3]);
    assert_eq!((batches[2].indices.as_slice(), batches[2].shape[0]), ([8, 9].as_slice(), 2));
    assert_eq!(batches[3].indices, [0, 1, 2, 3]);
    assert_eq!(batches[2].position, Position { epoch: 1, batch: 0 });
}

/// A data set of PNG files with these objects in each.
fn files(folder: &Path, count: usize, objects: Vec<Object>) -> Dataset {
    let images = (0..count).map(|k| {
        let path = folder.join(format!("{k}.png"));
        write_png(&path, 24, 16);
        let objects = objects.clone();
        ImageEntry {
            id: k as u64 + 1,
            name: format!("{k}.png"),
            source: Source::File(path),
            width: 24,
            height: 16,
            objects,
        }
    });
    Dataset {
        name: "files".to_owned(),
        split: "all".to_owned(),
        classes: vec!["thing".to_owned()],
        category_ids: vec![1],
        images: images.collect(),
        warnings: Vec::new(),
    }
}

#[test]
fn an_unreadable_image_is_named_and_the_next_one_stands_in() {
    let folder = tempfile::tempdir().unwrap();
    let set = files(folder.path(), 4, Vec::new());
    write(&folder.path().join("1.png"), "no picture");
    fs::remove_file(folder.path().join("3.png")).unwrap();
    for workers in [1, 2] {
        let mut loader = Loader::new(Arc::new(set.clone()), settings(4, workers, false), Position::default()).unwrap();
        for batch in take(&mut loader, 2) {
            assert_eq!(batch.indices, [0, 2, 2, 0]);
            assert_eq!(batch.names, ["0.png", "2.png", "2.png", "0.png"]);
        }
        let skipped = loader.skipped();
        let named: Vec<&str> = skipped.iter().map(|finding| finding.file.as_str()).collect();
        assert_eq!(named, ["1.png", "3.png"]);
    }
    for name in ["0.png", "2.png"] {
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    let mut loader = Loader::new(Arc::new(set), settings(2, 2, true), Position::default()).unwrap();
    assert!(matches!(loader.next(), Err(DataError::NoReadableImage { count: 4, .. })));
}

#[test]
fn groups_difficult_and_degenerate_objects_are_no_targets() {
    let folder = tempfile::tempdir().unwrap();
    let object = |x0: f32, y0: f32, x1: f32, y1: f32| Object { bbox: BBox::new(x0, y0, x1, y1), ..Object::default() };
    let objects = vec![
        object(6.0, 4.0, 30.0, 8.0),
        Object { crowd: true, ..object(0.0, 0.0, 9.0, 9.0) },
        Object { difficult: true, ..object(1.0, 1.0, 9.0, 9.0) },
        object(5.0, 5.0, 5.0, 9.0),
        object(24.0, 5.0, 29.0, 9.0),
    ];
    let set = Arc::new(files(folder.path(), 1, objects));
    let boxes = |drop_difficult: bool| -> Vec<BBox> {
        let settings = LoaderSettings { drop_difficult, ..settings(1, 1, true) };
        let mut loader = Loader::new(Arc::clone(&set), settings, Position::default()).unwrap();
        take(&mut loader, 1)[0].objects[0].iter().map(|object| object.bbox).collect()
    };
    // 24 × 16 stretched to 48 × 32: twice; the first box is cut at the image's edge
    assert_eq!(boxes(true), [BBox::new(12.0, 8.0, 48.0, 16.0)]);
    assert_eq!(boxes(false), [BBox::new(12.0, 8.0, 48.0, 16.0), BBox::new(2.0, 2.0, 18.0, 18.0)]);
}

#[test]
fn a_dropped_loader_stops_at_once_and_wrong_settings_are_errors() {
    let spec = ShapesSpec { train: 200, size: (320, 240), ..ShapesSpec::default() };
    let set = Arc::new(data::shapes(&spec, Split::Train));
    let mut loader = Loader::new(Arc::clone(&set), settings(100, 2, true), Position::default()).unwrap();
    assert_eq!(loader.next().unwrap().indices.len(), 100);
    let begin = Instant::now();
    drop(loader);
    // a worker finishes at most the image that it is at: milliseconds, here with room for a busy machine
    assert!(begin.elapsed() < Duration::from_secs(2));
    assert_eq!(Arc::strong_count(&set), 1, "the threads are gone");
    assert!(Loader::new(Arc::clone(&set), settings(0, 2, true), Position::default()).is_err());
    assert!(Loader::new(Arc::new(Dataset::default()), settings(4, 2, true), Position::default()).is_err());
}

// ---- real data, where it is

#[test]
fn the_blood_cell_set_is_read_but_for_its_two_degenerate_boxes() {
    let Some(path) = shared("bccd") else { return };
    let set = data::open(path.to_str().unwrap(), None).unwrap();
    assert_eq!(set.images.len(), 364);
    assert_eq!(set.classes, ["Platelets", "RBC", "WBC"]);
    assert_eq!(set.object_count(), 4888 - 2);
    let degenerate = found(&set.warnings, "degenerate-box");
    let named: Vec<&str> = degenerate.iter().map(|finding| finding.file.as_str()).collect();
    assert_eq!(named, ["BloodImage_00338.xml", "BloodImage_00343.xml"]);
    assert!(degenerate.iter().all(|finding| finding.object.is_some() && finding.message.contains("left out")));
    assert_eq!(set.warnings.len(), 2, "{:?}", rules(&set.warnings));
    // first object of BloodImage_00000: 260 177 491 376, 1-based and inclusive
    let first = &set.images[0].objects[0];
    assert_eq!(
        (first.bbox, set.classes[first.class as usize].as_str()),
        (BBox::new(259.0, 176.0, 491.0, 376.0), "WBC")
    );
    let counts = |split: &str| data::open(path.to_str().unwrap(), Some(split)).unwrap().images.len();
    assert_eq!([counts("train"), counts("val"), counts("test"), counts("trainval")], [205, 87, 72, 292]);
}

#[test]
fn the_coco_subset_is_read_whole() {
    let Some(path) = shared("coco-train68") else { return };
    let set = data::open(path.to_str().unwrap(), None).unwrap();
    assert_eq!((set.images.len(), set.object_count(), set.classes.len()), (68, 624, 80));
    assert_eq!((set.category_ids[0], set.category_ids[11], set.category_ids[79]), (1, 13, 90), "id 12 is a gap");
    assert_eq!(set.class_counts().iter().filter(|&&n| n > 0).count(), 62);
    assert_eq!(set.images.iter().flat_map(|image| &image.objects).filter(|object| object.crowd).count(), 6);
    let findings = data::check(&set, Depth::Headers);
    assert!(findings.iter().all(|finding| finding.severity != Severity::Error), "{findings:?}");
}
