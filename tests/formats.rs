//! Data set formats: what each keeps when written and read back, and that nothing in a file can stop a reader.

use boxwright::data::convert::{ConvertSettings, Format, Images, convert};
use boxwright::data::open::{OpenOptions, open_with};
use boxwright::data::{self, CsvColumns, DataError, Dataset, ImageEntry, Severity, ShapesSpec, Source, Split};
use boxwright::geometry::{BBox, Mask, Object};
use boxwright::imaging::{Picture, save_png};
use boxwright::random::Random;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn png(path: &Path, width: u32, height: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    save_png(&Picture::new(width, height, [90, 120, 30]), path).unwrap();
}

fn read(path: &Path) -> Dataset {
    data::open(path.to_str().unwrap(), None).unwrap()
}

fn rules(set: &Dataset) -> Vec<&str> {
    set.warnings.iter().map(|finding| finding.rule.as_str()).collect()
}

/// A mask of two parts, one with a hole.
fn mask(width: u32, height: u32) -> Mask {
    let inside = |x: u32, y: u32| {
        let ring = (2..9).contains(&x) && (1..8).contains(&y) && !((4..6).contains(&x) && (3..6).contains(&y));
        ring || (x == 11 && y == 9)
    };
    let bitmap: Vec<u8> = (0..height).flat_map(|y| (0..width).map(move |x| u8::from(inside(x, y)))).collect();
    Mask::from_bitmap(height, width, &bitmap).unwrap()
}

/// Images with spaces, folders and other scripts in their names; boxes of any decimals, a mask, a crowd, a difficult
/// object, an image without objects, and two classes of which one is never used.
fn made_up(folder: &Path) -> Dataset {
    let names = ["a b.png", "sub/猫 & co.png", "empty, \"one\".png", "z.1.png"];
    let sizes = [(31, 17), (33, 21), (20, 20), (641, 479)];
    let object = |class: u32, corners: [f32; 4]| Object {
        class,
        bbox: BBox::new(corners[0], corners[1], corners[2], corners[3]),
        ..Object::default()
    };
    let shape = mask(33, 21);
    let masked =
        Object { id: 71, area: Some(shape.area() as f32), mask: Some(shape), ..object(2, [2.0, 1.0, 12.0, 10.0]) };
    let objects = [
        vec![object(0, [0.0, 0.0, 31.0, 17.0]), object(2, [1.1, 2.7, 9.83, 12.0])],
        vec![
            masked,
            Object { crowd: true, ..object(0, [3.0, 3.0, 20.25, 20.5]) },
            Object { difficult: true, ..object(0, [0.37, 0.11, 7.77, 20.999]) },
        ],
        Vec::new(),
        vec![
            Object { truncated: true, ..object(2, [123.456, 7.0, 640.99, 478.123]) },
            Object { occluded: true, ..object(0, [5.5, 6.25, 90.0, 80.0]) },
        ],
    ];
    let images = names.iter().zip(sizes).zip(objects).enumerate();
    let images = images.map(|(rank, ((name, (width, height)), objects))| {
        let path = folder.join(format!("source-{rank}.png"));
        png(&path, width, height);
        let source = Source::File(path);
        ImageEntry { id: rank as u64 + 1, name: (*name).to_owned(), source, width, height, objects }
    });
    Dataset {
        name: "made up".to_owned(),
        split: "train".to_owned(),
        classes: ["dog: \"big\"", "never, used", "猫"].map(str::to_owned).to_vec(),
        category_ids: vec![1, 2, 3],
        images: images.collect(),
        warnings: Vec::new(),
    }
}

/// What the formats are asked to keep: per image the objects by class name, corners, flags and mask. Images are known
/// by their size, for names may have to change; objects stay in order.
type Kept = BTreeMap<(u32, u32), Vec<(String, [f32; 4], [bool; 4], Option<Mask>)>>;

fn kept(set: &Dataset) -> Kept {
    let of = |object: &Object| {
        let b = object.bbox;
        let class = set.classes[object.class as usize].clone();
        let flags = [object.crowd, object.difficult, object.truncated, object.occluded];
        (class, [b.x0, b.y0, b.x1, b.y1], flags, object.mask.clone())
    };
    set.images.iter().map(|image| ((image.width, image.height), image.objects.iter().map(of).collect())).collect()
}

/// What `format` can keep of `set`.
fn possible(set: &Kept, format: Format) -> Kept {
    let masks = matches!(format, Format::Coco | Format::YoloSeg | Format::Via | Format::Labelme);
    let crowds = matches!(format, Format::Coco | Format::Via | Format::Labelme | Format::Openimages);
    let difficult = matches!(format, Format::Voc | Format::Via | Format::Labelme);
    let cut = matches!(format, Format::Voc | Format::Openimages);
    let mut set = set.clone();
    for objects in set.values_mut() {
        objects.retain(|(_, _, [crowd, ..], _)| crowds || !crowd);
        for (_, _, [_, is_difficult, truncated, occluded], mask) in objects {
            *is_difficult &= difficult;
            *truncated &= cut;
            *occluded &= cut;
            *mask = mask.take().filter(|_| masks);
        }
    }
    if format == Format::Openimages {
        set.retain(|_, objects| !objects.is_empty());
    }
    set
}

fn settings(images: Images) -> ConvertSettings {
    ConvertSettings { images, overwrite: false }
}

#[test]
fn every_pair_of_formats_keeps_what_both_can_say() {
    let folder = tempfile::tempdir().unwrap();
    let original = made_up(folder.path());
    for first in Format::ALL {
        let one = folder.path().join(first.name());
        let report = convert(std::slice::from_ref(&original), first, &one, settings(Images::Link)).unwrap();
        assert_eq!((report.images, report.linked + report.copied, report.missing), (4, 4, 0), "{first}");
        let set = read(&one);
        let expected = possible(&kept(&original), first);
        assert_eq!(kept(&set), expected, "{first}");
        assert!(set.warnings.is_empty(), "{first}: {:?}", set.warnings);
        assert!((0..set.images.len()).all(|index| set.picture(index).is_ok()), "{first}");
        let objects: usize = expected.values().map(Vec::len).sum();
        assert_eq!(report.objects, objects, "{first}");
        assert_eq!(
            report.dropped.iter().any(|dropped| dropped.what == "crowds"),
            !matches!(first, Format::Coco | Format::Via | Format::Labelme | Format::Openimages)
        );
        if !matches!(first, Format::Voc) {
            assert_eq!(set.classes, original.classes, "{first}: order and unused classes");
        }
        for second in Format::ALL {
            let two = folder.path().join(format!("{first}-{second}"));
            convert(std::slice::from_ref(&set), second, &two, settings(Images::Link)).unwrap();
            assert_eq!(kept(&read(&two)), possible(&expected, second), "{first} to {second}");
        }
    }
}

#[test]
fn what_is_lost_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut set = made_up(folder.path());
    set.category_ids = vec![3, 18, 90];
    set.images[0].id = 500;
    set.images[3].objects.push(Object { bbox: BBox::new(5.0, 5.0, 5.5, 9.0), ..Object::default() });
    set.images[3].objects.push(Object { bbox: BBox::new(5.0, 5.0, 5.0, 9.0), ..Object::default() });
    set.images[3].objects.push(Object { class: 9, bbox: BBox::new(5.0, 5.0, 8.0, 9.0), ..Object::default() });
    let lost = |format: Format| -> BTreeMap<&'static str, usize> {
        let out = folder.path().join(format!("lost-{format}"));
        let report = convert(std::slice::from_ref(&set), format, &out, settings(Images::None)).unwrap();
        assert_eq!((report.linked, report.copied), (0, 0));
        report.dropped.iter().map(|dropped| (dropped.what, dropped.count)).collect()
    };
    let voc = lost(Format::Voc);
    let expected = [
        ("boxes thinner than a pixel", 1),
        ("boxes without area", 1),
        ("category ids", 3),
        ("classes without objects", 1),
        ("crowds", 1),
        ("image ids", 1),
        ("image names", 2),
        ("masks", 1),
        ("object ids", 1),
        ("objects of an unknown class", 1),
        ("areas as annotated", 1),
    ];
    assert_eq!(voc, expected.into_iter().collect::<BTreeMap<&str, usize>>());
    let coco = lost(Format::Coco);
    assert_eq!(coco.get("difficult flags"), Some(&1));
    assert_eq!(coco.get("truncated and occluded flags"), Some(&2));
    assert!(["masks", "crowds", "category ids", "image ids"].iter().all(|what| !coco.contains_key(what)), "{coco:?}");
    assert_eq!(lost(Format::Openimages).get("images without objects"), Some(&1));
}

#[test]
fn coco_keeps_its_ids() {
    let folder = tempfile::tempdir().unwrap();
    let mut set = made_up(folder.path());
    set.category_ids = vec![3, 18, 90];
    set.images[0].id = 500;
    for (id, object) in (40..).zip(set.images.iter_mut().flat_map(|image| &mut image.objects)) {
        object.id = id;
    }
    convert(std::slice::from_ref(&set), Format::Coco, &folder.path().join("out"), settings(Images::Link)).unwrap();
    let back = read(&folder.path().join("out"));
    assert_eq!(back.category_ids, [3, 18, 90]);
    let ids = |set: &Dataset| -> Vec<u64> {
        set.images
            .iter()
            .flat_map(|image| std::iter::once(image.id).chain(image.objects.iter().map(|o| o.id)))
            .collect()
    };
    assert_eq!(ids(&back), ids(&set));
}

#[test]
fn splits_are_written_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let spec = ShapesSpec { train: 3, val: 2, size: (64, 48), ..ShapesSpec::default() };
    let splits = [data::shapes(&spec, Split::Train), data::shapes(&spec, Split::Val)];
    for format in Format::ALL {
        let out = folder.path().join(format.name());
        let report = convert(&splits, format, &out, settings(Images::Link)).unwrap();
        assert_eq!((report.drawn, report.splits.join(" ")), (5, "train val".to_owned()), "{format}");
        let path = out.to_str().unwrap();
        for split in &splits {
            let back = data::open(path, Some(&split.split)).unwrap();
            assert_eq!(back.images.len(), split.images.len(), "{format} {}", split.split);
            let pixels = back.picture(0).unwrap();
            assert_eq!(pixels, split.picture(0).unwrap(), "{format}");
        }
        assert!(matches!(data::open(path, Some("nothing")), Err(DataError::NoSplit { .. })), "{format}");
        let names = data::separate_splits(path, &OpenOptions::default()).unwrap();
        assert_eq!(names, ["train", "val"], "{format}");
    }
}

#[test]
fn a_folder_that_is_in_use_is_not_written_into() {
    let folder = tempfile::tempdir().unwrap();
    let set = made_up(folder.path());
    let out = folder.path().join("out");
    write(&out.join("precious.txt"), "mine");
    let error = convert(std::slice::from_ref(&set), Format::Csv, &out, settings(Images::Copy)).unwrap_err();
    assert!(error.to_string().contains("not empty"), "{error}");
    assert!(!out.join("train.csv").exists());
    let overwrite = ConvertSettings { images: Images::Copy, overwrite: true };
    convert(std::slice::from_ref(&set), Format::Csv, &out, overwrite).unwrap();
    assert_eq!(fs::read_to_string(out.join("precious.txt")).unwrap(), "mine");
    // onto itself: the images are still there
    let own = read(&out);
    convert(std::slice::from_ref(&own), Format::Csv, &out, overwrite).unwrap();
    assert!((0..4).all(|index| read(&out).picture(index).is_ok()));
    let twice = convert(&[set.clone(), set], Format::Coco, &folder.path().join("twice"), overwrite).unwrap_err();
    assert!(twice.to_string().contains("\"train\""), "{twice}");
}

// ---- files as other programs write them

#[test]
fn yolo_folders_come_in_several_shapes() {
    let folder = tempfile::tempdir().unwrap();
    let layouts = [
        ("described", "data/train/img", "data.yaml", "train: data/train/img\nval: data/train/img\nnames: [cat, dog]\n"),
        (
            "exported",
            "train/images",
            "data.yaml",
            "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['cat', 'dog']",
        ),
        ("bare", "images/train", "classes.txt", "cat\ndog\n"),
        ("flat", "images", "classes.txt", "cat\ndog\n"),
        ("listed", "images", "data.yaml", "path: .\ntrain: train.txt\nnames:\n  0: cat\n  1: dog\n"),
    ];
    for (name, images, file, text) in layouts {
        let root = folder.path().join(name);
        png(&root.join(images).join("a.png"), 20, 10);
        png(&root.join(images).join("bare.png"), 20, 10);
        let label = root.join(images.replace("images", "labels")).join("a.txt");
        write(&label, "1 0.5 0.5 0.5 1\n0 0 0 0.5 0 0.5 0.5 0 0.5\n5 0.5 0.5 0.1 0.1\n1 0.5 0.5\n\n");
        write(&root.join(file), text);
        write(&root.join("train.txt"), "./images/a.png\nimages/bare.png\n");
        let set = read(&root);
        assert_eq!(set.classes, ["cat", "dog"], "{name}");
        assert_eq!((set.images.len(), set.images[1].objects.len()), (2, 0), "{name}");
        let objects = &set.images[0].objects;
        assert_eq!(objects[0].bbox, BBox::new(5.0, 0.0, 15.0, 10.0), "{name}");
        assert_eq!((objects[1].bbox, objects[1].class), (BBox::new(0.0, 0.0, 10.0, 5.0), 0), "{name}");
        assert_eq!((objects[0].mask.is_none(), objects[1].mask.as_ref().unwrap().area()), (true, 50), "{name}");
        let found: Vec<&str> = rules(&set).into_iter().filter(|rule| *rule != "missing-split").collect();
        assert_eq!(found, ["unknown-class", "broken-line"], "{name}");
    }
    // the description can be opened itself; one that is broken says where
    assert_eq!(read(&folder.path().join("listed/data.yaml")).images.len(), 2);
    write(&folder.path().join("listed/data.yaml"), "train: train.txt\nnames: [a\n");
    let error = data::open(folder.path().join("listed").to_str().unwrap(), None).unwrap_err().to_string();
    assert!(error.contains("line 2") && error.ends_with("data.yaml"), "{error}");
}

#[test]
fn csv_files_are_known_or_explained() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    png(&root.join("pictures/a.png"), 20, 10);
    png(&root.join("pictures/b.png"), 20, 10);
    let keras = format!(
        "pictures/a.png,1,2,5,6,dog\npictures/b.png,,,,,\n{}/pictures/a.png,3,3,9,9,cat\npictures/a.png,4,4,4,8,dog\n\
         pictures/a.png,x,4,4,8,dog\n",
        fs::canonicalize(root).unwrap().display()
    );
    write(&root.join("train.csv"), &keras);
    let set = read(root);
    assert_eq!((set.split.as_str(), set.classes.join(" ")), ("train", "cat dog".to_owned()));
    assert_eq!(set.images.iter().map(|image| image.objects.len()).collect::<Vec<_>>(), [2, 0]);
    assert_eq!(rules(&set), ["broken-box", "degenerate-box"]);
    write(&root.join("train.csv"), "what;where;left;top;wide;high\nowl;pictures/a.png;1;2;3;4.5\n");
    let path = root.to_str().unwrap();
    assert!(matches!(data::open(path, None).map(|set| set.classes.len()), Ok(0)), "a folder of pictures");
    let columns: CsvColumns = "path=where,x0=left,y0=top,w=wide,h=high,class=what".parse().unwrap();
    let options = OpenOptions { columns: Some(columns), ..OpenOptions::default() };
    let set = open_with(path, None, &options).unwrap();
    assert_eq!(
        (set.images[0].objects[0].bbox, set.classes.as_slice()),
        (BBox::new(1.0, 2.0, 4.0, 6.5), ["owl".to_owned()].as_slice())
    );
}

#[test]
fn openimages_groups_and_display_names_are_read() {
    let folder = tempfile::tempdir().unwrap();
    png(&folder.path().join("validation/0001eeaf4aed83f9.png"), 20, 10);
    write(&folder.path().join("class-descriptions-boxable.csv"), "/m/01g317,Person\n/m/0cmf2,Airplane\n");
    let text = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n\
                0001eeaf4aed83f9,xclick,/m/0cmf2,1,0.25,0.75,0.1,0.9,0,0,1,0,0\n\
                0001eeaf4aed83f9,xclick,/m/01g317,1,0.1,nan,0.1,0.9,0,0,0,0,0\n";
    write(&folder.path().join("validation-annotations-bbox.csv"), text);
    let set = read(folder.path());
    assert_eq!(
        (set.classes.as_slice(), set.split.as_str()),
        (["Person".to_owned(), "Airplane".to_owned()].as_slice(), "validation")
    );
    let object = &set.images[0].objects[0];
    assert_eq!((object.bbox, object.class, object.crowd), (BBox::new(5.0, 1.0, 15.0, 9.0), 1, true));
    assert_eq!(rules(&set), ["broken-box"]);
}

#[test]
fn via_exports_of_both_versions_are_read() {
    let folder = tempfile::tempdir().unwrap();
    png(&folder.path().join("a.png"), 20, 10);
    let regions = |list: &str| {
        format!(r#"{{"a.png123": {{"filename": "a.png", "size": 123, "regions": {list}, "file_attributes": {{}}}}}}"#)
    };
    let polygon = r#"{"shape_attributes": {"name": "polygon", "all_points_x": [2, 8, 8, 2], "all_points_y": [1, 1, 4, 4]}, "region_attributes": {"kind": "dog"}}"#;
    let point = r#"{"shape_attributes": {"name": "point", "cx": 2, "cy": 3}, "region_attributes": {"kind": "dog"}}"#;
    for list in [format!("[{polygon}, {point}]"), format!(r#"{{"1": {point}, "0": {polygon}}}"#)] {
        write(&folder.path().join("via.json"), &regions(&list));
        let set = read(folder.path());
        let object = &set.images[0].objects[0];
        assert_eq!((object.bbox, set.classes.join(" ")), (BBox::new(2.0, 1.0, 8.0, 4.0), "dog".to_owned()));
        assert_eq!((object.mask.as_ref().unwrap().area(), rules(&set)), (18, vec!["no-region"]));
    }
    // no attribute at all: one class; a named one must be there
    write(&folder.path().join("via.json"), &regions(&format!("[{}]", polygon.replace(r#""kind": "dog""#, ""))));
    assert_eq!(read(folder.path()).classes, ["object"]);
    let options = OpenOptions { class_attribute: Some("species".to_owned()), ..OpenOptions::default() };
    let error = open_with(folder.path().to_str().unwrap(), None, &options).unwrap_err();
    assert!(error.to_string().contains("species"), "{error}");
}

#[test]
fn results_of_a_run_are_matched_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let set = made_up(folder.path());
    let path = folder.path().join("run.json");
    let image = "\"file_name\": \"z.1.png\", \"width\": 641, \"height\": 479";
    let result = r#"{"image_id": 1, "category_id": 99, "category": "猫", "bbox": [1, 2, 3, 4], "score": 0.5}"#;
    write(&path, &format!(r#"{{"images": [{{"id": 1, {image}}}], "results": [{result}], "skipped": 0}}"#));
    let detections = data::read_results(&path, &set).unwrap();
    assert_eq!(detections.iter().map(Vec::len).collect::<Vec<_>>(), [0, 0, 0, 1]);
    assert_eq!((detections[3][0].class, detections[3][0].bbox), (2, BBox::new(1.0, 2.0, 4.0, 6.0)));
    let second = r#"{"id": 1, "file_name": "a b.png"}"#;
    write(&path, &format!(r#"{{"images": [{{"id": 1, {image}}}, {second}], "results": [{result}]}}"#));
    let error = data::read_results(&path, &set).unwrap_err();
    assert!(error.to_string().contains("two images"), "{error}");
}

// ---- hostile files

#[test]
fn no_file_leads_out_of_its_folder() {
    let outer = tempfile::tempdir().unwrap();
    png(&outer.path().join("secret.png"), 20, 10);
    let root = outer.path().join("set");
    let secret = fs::canonicalize(outer.path()).unwrap().join("secret.png");
    let secret = secret.to_str().unwrap().replace('\\', "/");
    for name in ["../secret.png", secret.as_str()] {
        let labelme = format!(r#"{{"imagePath": "{name}", "imageWidth": 20, "imageHeight": 10, "shapes": []}}"#);
        let via = format!(r#"{{"k": {{"filename": "{name}", "size": 1, "regions": [], "region_attributes": 1}}}}"#);
        let openimages =
            format!("ImageID,LabelName,XMin,XMax,YMin,YMax\n{},dog,0,1,0,1\n", name.trim_end_matches(".png"));
        let files = [
            ("boxes.csv", format!("{name},1,2,5,6,dog\n")),
            ("a.json", labelme),
            ("via.json", via),
            ("x-annotations-bbox.csv", openimages),
            ("data.yaml", format!("train: {name}\nnames: [dog]\n")),
            ("data.yaml", "train: list.txt\nnames: [dog]\n".to_owned()),
            ("data.yaml", "path: ..\ntrain: .\nnames: [dog]\n".to_owned()),
        ];
        for (file, text) in files {
            fs::create_dir_all(&root).unwrap();
            write(&root.join("list.txt"), &format!("{name}\n"));
            write(&root.join(file), &text);
            match data::open(root.to_str().unwrap(), None) {
                Ok(set) => panic!("{file} with {name} was read: {:?}", set.images),
                Err(DataError::Empty { .. } | DataError::Invalid { .. }) => {}
                Err(error) => panic!("{file} with {name}: {error}"),
            }
            fs::remove_dir_all(&root).unwrap();
        }
    }
}

/// Every annotation file below `folder`.
fn annotation_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(annotation_files(&path));
        } else if path.extension().is_none_or(|extension| extension != "png") {
            files.push(path);
        }
    }
    files.sort();
    files
}

#[test]
fn cut_and_flipped_files_never_stop_a_reader() {
    let folder = tempfile::tempdir().unwrap();
    let mut original = made_up(folder.path());
    // Small pictures and few files: each change is one reading of the whole set.
    original.images.truncate(2);
    let mut random = Random::new(99);
    let (mut read, mut refused) = (0, 0);
    for format in Format::ALL {
        let out = folder.path().join(format.name());
        convert(std::slice::from_ref(&original), format, &out, settings(Images::Link)).unwrap();
        for file in annotation_files(&out) {
            let whole = fs::read(&file).unwrap();
            for round in 0..24 {
                let mut bytes = whole.clone();
                if round % 3 == 0 {
                    bytes.truncate(random.below(whole.len() + 1));
                } else {
                    for _ in 0..=random.below(4) {
                        let at = random.below(bytes.len());
                        if let Some(byte) = bytes.get_mut(at) {
                            *byte ^= 1 << random.below(8);
                        }
                    }
                }
                fs::write(&file, &bytes).unwrap();
                match data::open(out.to_str().unwrap(), None) {
                    Ok(set) => {
                        read += 1;
                        let classes = set.classes.len() as u32;
                        for object in set.images.iter().flat_map(|image| &image.objects) {
                            assert!(object.class < classes && object.bbox.is_proper(), "{format}: {object:?}");
                            assert!(object.mask.as_ref().is_none_or(|mask| mask.check().is_ok()), "{format}");
                        }
                    }
                    Err(error) => {
                        refused += 1;
                        assert!(error.to_string().contains("/"), "names no file: {error}");
                    }
                }
            }
            fs::write(&file, &whole).unwrap();
        }
    }
    assert!(read > 50 && refused > 0, "{read} read, {refused} refused");
}

#[test]
fn absurd_numbers_are_findings() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("yolo");
    png(&root.join("images/a.png"), 20, 10);
    write(
        &root.join("labels/a.txt"),
        "4294967295 0.5 0.5 0.1 0.1\n0 1e300 1e300 1e300 1e300\n0 0 0 1e30 0 1e30 1e30\n",
    );
    let set = read(&root);
    assert!(set.images[0].objects.len() <= 1 && set.classes.len() == 1, "{:?}", set.classes.len());
    assert!(rules(&set).contains(&"unknown-class") && rules(&set).contains(&"degenerate-box"), "{:?}", rules(&set));
    let root = folder.path().join("csv");
    png(&root.join("a.png"), 20, 10);
    write(&root.join("b.csv"), "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,99999999999,-1,dog,0,0,5,5\n");
    let set = read(&root);
    assert_eq!((set.images[0].width, set.images[0].objects.len()), (20, 1), "the size is the file's");
    assert!(set.warnings.iter().all(|finding| finding.severity != Severity::Error));
}
