//! Health of a data set: what would spoil training or scores without any error being raised.

mod classes;
mod files;
pub mod likeness;
mod objects;
pub mod report;

pub use report::{CheckedSet, Report, report};

use super::dataset::{Dataset, Finding, ImageEntry, Severity, Source};
use super::findings::Findings;
use super::placements::Placements;
use crate::imaging::Preprocess;
use likeness::Likeness;
use rayon::prelude::*;
use std::collections::HashSet;

/// How closely image files are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Their headers: seconds for thousands of images.
    Headers,
    /// Every pixel is decoded, which also finds files that break off and pictures that are there twice.
    Pixels,
}

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub struct CheckSettings<'a> {
    pub depth: Depth,
    /// The network input in which objects may become too small.
    pub preprocess: Option<&'a Preprocess>,
}

/// What was found in one split.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// Errors first.
    pub findings: Vec<Finding>,
    /// Of each image whose pixels were read.
    pub likenesses: Vec<Option<Likeness>>,
}

/// Images between two looks at whether to go on.
const CHUNK: usize = 512;

/// What the reader found and what shows now, errors first. Rules that the reader has reported are not repeated.
pub fn check(dataset: &Dataset, depth: Depth) -> Vec<Finding> {
    check_with(dataset, CheckSettings { depth, preprocess: None }, &mut |_, _| true).findings
}

/// [`check`] with everything that can be set. `go_on` hears (done, total) images now and then; when it answers no, the
/// rest is not looked at, and a finding says so.
pub fn check_with(
    dataset: &Dataset,
    settings: CheckSettings<'_>,
    go_on: &mut dyn FnMut(usize, usize) -> bool,
) -> Checked {
    let reported: HashSet<&str> = dataset.warnings.iter().map(|finding| finding.rule.as_str()).collect();
    let without_folder = reported.contains("no-image-folder");
    let looked_for_files = without_folder || reported.contains("missing-image");
    let placements = settings.preprocess.map(|preprocess| Placements::new(preprocess, dataset));
    let look_at = |entry: &ImageEntry| {
        let (mut list, likeness) = if without_folder {
            (Vec::new(), None)
        } else {
            files::check_file(entry, settings.depth, looked_for_files)
        };
        let fitted = placements.as_ref().and_then(|placements| placements.of(entry));
        let objects = objects::check_objects(entry, dataset.classes.len(), fitted);
        list.extend(objects.into_iter().filter(|finding| !reported.contains(finding.rule.as_str())));
        (list, likeness)
    };
    let mut findings = Findings::default();
    let mut likenesses: Vec<Option<Likeness>> = Vec::with_capacity(dataset.images.len());
    let total = dataset.images.len();
    for chunk in dataset.images.chunks(CHUNK) {
        let looked_at: Vec<(Vec<Finding>, Option<Likeness>)> = chunk.par_iter().map(&look_at).collect();
        for (list, likeness) in looked_at {
            findings.extend(list);
            likenesses.push(likeness);
        }
        if !go_on(likenesses.len(), total) && likenesses.len() < total {
            let message = format!("stopped: {} of {total} images were looked at", likenesses.len());
            findings.push(Finding::new(Severity::Info, "check-stopped", &dataset.name, message));
            break;
        }
    }
    findings.extend(repeated_images(dataset, &likenesses));
    findings.extend(classes::check_classes(dataset));
    let mut all = dataset.warnings.clone();
    all.extend(findings.finish(&dataset.name));
    all.sort_by_key(|finding| finding.severity);
    Checked { findings: all, likenesses }
}

/// Images of the same pixels.
fn repeated_images(dataset: &Dataset, likenesses: &[Option<Likeness>]) -> Vec<Finding> {
    let pairs = likeness::repeated(likenesses).into_iter().filter_map(|(index, earlier)| {
        let (entry, earlier) = (dataset.images.get(index)?, dataset.images.get(earlier)?);
        let boxes = if entry.objects == earlier.objects { "the same" } else { "other" };
        let message = format!(
            "has the pixels of {} and {boxes} objects; training and scores count the picture twice",
            earlier.name
        );
        Some(Finding::new(Severity::Warning, "same-image", &entry.name, message))
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{BBox, Object};
    use crate::imaging::{ChannelOrder, Fit};
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

    fn found(findings: Vec<Finding>) -> Vec<(String, Option<usize>)> {
        findings.into_iter().map(|finding| (finding.rule, finding.object)).collect()
    }

    fn expected(list: &[(&str, Option<usize>)]) -> Vec<(String, Option<usize>)> {
        list.iter().map(|(rule, object)| ((*rule).to_owned(), *object)).collect()
    }

    #[test]
    fn every_rule_about_boxes_fires_once() {
        let set = set(vec![
            object(0, 10.0, 10.0, 30.0, 30.0),
            object(0, 10.0, 10.0, 30.0, 30.1),
            object(1, 10.0, 10.0, 30.0, 30.0),
            object(1, 90.0, 60.0, 103.0, 80.0),
            object(1, 50.0, 50.0, 52.0, 60.0),
            object(1, 50.0, 50.0, 50.0, 60.0),
            object(1, 120.0, 50.0, 130.0, 60.0),
            Object { area: Some(0.0), ..object(0, 60.0, 10.0, 70.0, 20.0) },
            object(3, 60.0, 30.0, 70.0, 40.0),
        ]);
        let rules = [
            ("unknown-class", Some(8)),
            ("repeated-box", Some(1)),
            ("outside-box", Some(3)),
            ("degenerate-box", Some(5)),
            ("outside-box", Some(6)),
            ("zero-area", Some(7)),
            ("tiny-box", Some(4)),
            ("image-without-objects", None),
            ("unused-class", None),
        ];
        assert_eq!(found(check(&set, Depth::Headers)), expected(&rules));
    }

    #[test]
    fn objects_that_the_network_input_makes_tiny_are_named() {
        let mut set = set(vec![
            object(0, 10.0, 10.0, 20.0, 20.0),
            object(1, 10.0, 10.0, 40.0, 50.0),
            Object { crowd: true, ..object(1, 70.0, 10.0, 80.0, 20.0) },
            object(2, 10.0, 10.0, 12.0, 20.0),
        ]);
        set.images.truncate(1);
        let preprocess = Preprocess {
            fit: Fit::Stretch { width: 25, height: 20 },
            order: ChannelOrder::Rgb,
            mean: [0.0; 3],
            std: [1.0; 3],
        };
        let settings = CheckSettings { depth: Depth::Headers, preprocess: Some(&preprocess) };
        let checked = check_with(&set, settings, &mut |_, _| true);
        // a quarter of 10 pixels; the crowd is no target, and what is tiny anyway is told once
        assert!(checked.findings[0].message.contains("is 2.5 × 2.5 in the network's input"), "{:?}", checked.findings);
        assert_eq!(found(checked.findings), expected(&[("tiny-after-resize", Some(0)), ("tiny-box", Some(3))]));
        assert_eq!(checked.likenesses, [None]);
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
        bare.category_ids = vec![1, 2, 4];
        let rules: Vec<String> = check(&bare, Depth::Pixels).into_iter().map(|finding| finding.rule).collect();
        assert_eq!(rules, ["missing-image", "gapped-categories", "no-objects"]);
        // a reader that found no image at all has said so once
        bare.warnings = vec![Finding::new(Severity::Error, "no-image-folder", "set", String::new())];
        assert!(check(&bare, Depth::Pixels).iter().all(|finding| finding.rule != "missing-image"));
    }

    #[test]
    fn a_check_that_is_stopped_says_how_far_it_came() {
        let mut many = set(Vec::new());
        many.images = vec![many.images[0].clone(); CHUNK + 1];
        let settings = CheckSettings { depth: Depth::Headers, preprocess: None };
        let checked = check_with(&many, settings, &mut |done, total| {
            assert_eq!((done, total), (CHUNK, CHUNK + 1));
            false
        });
        assert_eq!(checked.likenesses.len(), CHUNK);
        assert!(checked.findings.iter().any(|finding| finding.message.contains("512 of 513")));
    }
}
