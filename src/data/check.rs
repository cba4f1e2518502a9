//! Health of a data set: what would spoil training or scores without any error being raised.

use super::dataset::{Dataset, Finding, ImageEntry, Severity, Source};
use super::findings::Findings;
use crate::geometry::Object;
use crate::imaging;
use rayon::prelude::*;
use std::collections::HashSet;

/// How closely image files are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Their headers: seconds for thousands of images.
    Headers,
    /// Every pixel is decoded, which also finds files that break off.
    Pixels,
}

/// A side below this (pixels) is hard to learn at any input size.
const TINY: f32 = 3.0;
/// Boxes may stick out this far (pixels) without remark.
const EDGE_SLACK: f32 = 1.0;
/// Two boxes of a class that overlap so far are one object annotated twice.
const SAME_BOX: f32 = 0.95;
/// Objects of one image that are compared with each other.
const COMPARED: usize = 2000;
/// The largest class may have so many times the objects of the smallest.
const IMBALANCE: usize = 50;
/// Names in one message.
const NAMED: usize = 5;

/// What the reader found and what shows now, errors first. Rules that the reader has reported are not repeated.
pub fn check(dataset: &Dataset, depth: Depth) -> Vec<Finding> {
    let reported: HashSet<&str> = dataset.warnings.iter().map(|finding| finding.rule.as_str()).collect();
    let looked_for_files = reported.contains("missing-image") || reported.contains("no-image-folder");
    let by_image: Vec<Vec<Finding>> = dataset
        .images
        .par_iter()
        .map(|entry| {
            let mut list = check_file(entry, depth, looked_for_files);
            list.extend(check_objects(entry).into_iter().filter(|finding| !reported.contains(finding.rule.as_str())));
            list
        })
        .collect();
    let mut findings = Findings::default();
    for list in by_image {
        findings.extend(list);
    }
    findings.extend(check_classes(dataset));
    let mut all = dataset.warnings.clone();
    all.extend(findings.finish(&dataset.name));
    all.sort_by_key(|finding| finding.severity);
    all
}

/// The image file: there, readable, of the size that the annotation says.
fn check_file(entry: &ImageEntry, depth: Depth, looked_for_files: bool) -> Vec<Finding> {
    let Source::File(path) = &entry.source else {
        return Vec::new();
    };
    if !path.is_file() {
        if looked_for_files {
            return Vec::new();
        }
        let message = "the file is missing; training takes another image in its place".to_owned();
        return vec![Finding::new(Severity::Error, "missing-image", &entry.name, message)];
    }
    let size = match depth {
        Depth::Headers => imaging::size_of(path),
        Depth::Pixels => imaging::load(path).map(|picture| (picture.width, picture.height)),
    };
    match size {
        Err(error) => {
            let message = format!("training takes another image in its place: {error}");
            vec![Finding::new(Severity::Error, "unreadable-image", &entry.name, message)]
        }
        Ok((width, height)) if (width, height) != (entry.width, entry.height) => {
            let message = format!(
                "annotated as {} × {}, the file has {width} × {height}; boxes are taken as pixels of the file",
                entry.width, entry.height
            );
            vec![Finding::new(Severity::Warning, "size-mismatch", &entry.name, message)]
        }
        Ok(_) => Vec::new(),
    }
}

fn check_objects(entry: &ImageEntry) -> Vec<Finding> {
    let mut list = Vec::new();
    let (width, height) = (entry.width as f32, entry.height as f32);
    for (index, object) in entry.objects.iter().enumerate() {
        let b = object.bbox;
        let sides = format!("object {}, {:.1} × {:.1} pixels", index + 1, b.width(), b.height());
        let mut remark = |severity: Severity, rule: &str, message: String| {
            list.push(Finding::new(severity, rule, &entry.name, message).of_object(index));
        };
        if !b.is_proper() {
            remark(Severity::Warning, "degenerate-box", format!("{sides}, has no area; training leaves it out"));
            continue;
        }
        if b.x0 < -EDGE_SLACK || b.y0 < -EDGE_SLACK || b.x1 > width + EDGE_SLACK || b.y1 > height + EDGE_SLACK {
            let message = format!("{sides}, leaves the image; training cuts it at the image's edge");
            remark(Severity::Warning, "outside-box", message);
        }
        if b.width() < TINY || b.height() < TINY {
            let message = format!("{sides}, is tiny; it is trained, and hardly any anchor will match it");
            remark(Severity::Info, "tiny-box", message);
        }
        if let Some(first) = duplicate_of(&entry.objects, index) {
            let message = format!("{sides}, is almost object {} of the same class; both are trained", first + 1);
            remark(Severity::Warning, "repeated-box", message);
        }
    }
    list
}

/// The first earlier object of the same class in the same place.
fn duplicate_of(objects: &[Object], index: usize) -> Option<usize> {
    let object = objects.get(index)?;
    objects.iter().take(index.min(COMPARED)).position(|other| {
        let shared = other.bbox.intersection(object.bbox);
        let union = other.bbox.area() + object.bbox.area() - shared;
        other.class == object.class && other.crowd == object.crowd && shared > SAME_BOX * union
    })
}

/// Classes without objects, uneven classes, images without objects.
fn check_classes(dataset: &Dataset) -> Vec<Finding> {
    let mut list = Vec::new();
    let mut remark = |severity: Severity, rule: &str, message: String| {
        list.push(Finding::new(severity, rule, &dataset.name, message))
    };
    if dataset.object_count() == 0 {
        remark(Severity::Info, "no-objects", "nothing is annotated; good for detection, not for training".to_owned());
        return list;
    }
    let bare: Vec<&str> =
        dataset.images.iter().filter(|image| image.objects.is_empty()).map(|image| image.name.as_str()).collect();
    if !bare.is_empty() {
        let message = format!(
            "{} of {} images have no object and are trained as background: {}",
            bare.len(),
            dataset.images.len(),
            some_of(&bare)
        );
        remark(Severity::Info, "image-without-objects", message);
    }
    let counts = dataset.class_counts();
    let unused: Vec<&str> =
        dataset.classes.iter().zip(&counts).filter(|(_, n)| **n == 0).map(|(name, _)| name.as_str()).collect();
    if !unused.is_empty() {
        let message = format!("{} classes have no object in this split: {}", unused.len(), some_of(&unused));
        remark(Severity::Info, "unused-class", message);
    }
    let used = || dataset.classes.iter().zip(&counts).filter(|(_, n)| **n > 0);
    if let (Some((many, most)), Some((few, least))) = (used().max_by_key(|(_, n)| **n), used().min_by_key(|(_, n)| **n))
        && *most > IMBALANCE * *least
    {
        let message = format!("{many} has {most} objects and {few} has {least}; the rare ones will be learnt late");
        remark(Severity::Warning, "uneven-classes", message);
    }
    list
}

fn some_of(names: &[&str]) -> String {
    let shown: Vec<&str> = names.iter().take(NAMED).copied().collect();
    let more = if names.len() > NAMED { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::BBox;
    use std::path::PathBuf;

    fn object(class: u32, x0: f32, y0: f32, x1: f32, y1: f32) -> Object {
        Object { class, bbox: BBox::new(x0, y0, x1, y1), ..Object::default() }
    }

    fn set(objects: Vec<Object>) -> Dataset {
        let image = |name: &str, objects: Vec<Object>| ImageEntry {
            id: 1,
            name: name.to_owned(),
            source: Source::Shapes { seed: 1, index: 0 },
            width: 100,
            height: 80,
            objects,
        };
        Dataset {
            name: "set".to_owned(),
            split: "all".to_owned(),
            classes: ["cat", "dog", "emu"].map(str::to_owned).to_vec(),
            category_ids: vec![1, 2, 3],
            images: vec![image("a", objects), image("b", Vec::new())],
            warnings: Vec::new(),
        }
    }

    #[test]
    fn every_rule_about_boxes_fires_once() {
        let set = set(vec![
            object(0, 10.0, 10.0, 30.0, 30.0),
            object(0, 10.0, 10.0, 30.0, 30.5),
            object(1, 10.0, 10.0, 30.0, 30.0),
            object(1, 90.0, 60.0, 103.0, 80.0),
            object(1, 50.0, 50.0, 52.0, 60.0),
            object(1, 50.0, 50.0, 50.0, 60.0),
        ]);
        let found: Vec<(String, Option<usize>)> =
            check(&set, Depth::Headers).into_iter().map(|finding| (finding.rule, finding.object)).collect();
        let expected = [
            ("repeated-box", Some(1)),
            ("outside-box", Some(3)),
            ("degenerate-box", Some(5)),
            ("tiny-box", Some(4)),
            ("image-without-objects", None),
            ("unused-class", None),
        ];
        let expected: Vec<(String, Option<usize>)> =
            expected.iter().map(|(rule, object)| ((*rule).to_owned(), *object)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn reported_rules_are_not_repeated_and_uneven_classes_are_named() {
        let mut uneven = set((0..101).map(|k| object(0, k as f32, 0.0, k as f32 + 20.0, 20.0)).collect());
        uneven.images[0].width = 1000;
        uneven.images[1].objects = vec![object(2, 0.0, 0.0, 9.0, 99.0), object(2, 60.0, 0.0, 90.0, 20.0)];
        uneven.warnings = vec![Finding::new(Severity::Error, "outside-box", "b", "as the reader said".to_owned())];
        let found = check(&uneven, Depth::Headers);
        assert_eq!(found[0], uneven.warnings[0]);
        assert_eq!(found.iter().filter(|finding| finding.rule == "outside-box").count(), 1);
        // 101 against 2 objects: 50.5 times
        let message = &found.iter().find(|finding| finding.rule == "uneven-classes").unwrap().message;
        assert!(message.contains("cat has 101") && message.contains("emu has 2"), "{message}");
    }

    #[test]
    fn missing_files_and_sets_without_objects_are_told() {
        let mut bare = set(Vec::new());
        bare.images[0].source = Source::File(PathBuf::from("no such file.png"));
        let rules: Vec<String> = check(&bare, Depth::Pixels).into_iter().map(|finding| finding.rule).collect();
        assert_eq!(rules, ["missing-image", "no-objects"]);
    }
}
