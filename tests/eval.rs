//! The evaluation protocols against the reference implementations, by hand, and under changes that must not matter.

use boxwright::eval::coco::{self, CocoResult, CocoSettings, IouType};
use boxwright::eval::files::{evaluate_files, evaluate_voc_files};
use boxwright::eval::voc::{self, VocSettings};
use boxwright::eval::{ImageResult, ImageTruth};
use boxwright::geometry::{BBox, Detection, Mask, Object};
use proptest::prelude::*;
use serde_json::{Value, json};

/// SplitMix64 and whole numbers only: the data are those of `Scene` in `tests/eval_pycocotools.py`, draw by draw.
struct Scene {
    state: u64,
}

impl Scene {
    fn below(&mut self, n: u32) -> u32 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % u64::from(n)) as u32
    }

    /// A detection in quarters of a pixel, with one of 64 scores: every number is exact in `f32`.
    fn detection(&mut self, class: u32, [x, y, w, h]: [u32; 4]) -> Detection {
        let score = self.below(64) as f32 / 64.0;
        Detection { bbox: quarters([x, y, w, h]), class, score, ..Default::default() }
    }

    fn boxes(mut self) -> (Vec<ImageTruth>, Vec<ImageResult>) {
        let (mut truth, mut results) = (Vec::new(), Vec::new());
        let mut count = 0;
        for i in 0..40_u32 {
            let image_id = u64::from((i * 37 + 11) % 1009);
            let (mut objects, mut detections) = (Vec::new(), Vec::new());
            for _ in 0..self.below(7) {
                let scale = [60, 240, 900][self.below(3) as usize];
                let (x, y) = (self.below(1600), self.below(1600));
                let (w, h) = (8 + self.below(scale), 8 + self.below(scale));
                let class = self.below(4);
                let crowd = self.below(8) == 0;
                let area = w * h * (4 + self.below(5)) / 128;
                count += 1;
                objects.push(Object {
                    id: count,
                    bbox: quarters([x, y, w, h]),
                    class,
                    crowd,
                    area: Some(area as f32),
                    ..Default::default()
                });
                for _ in 0..self.below(4) {
                    let (dx, dy) = (self.below(w / 4 + 1), self.below(h / 4 + 1));
                    let (dw, dh) = (self.below(w / 8 + 1), self.below(h / 8 + 1));
                    let class = if self.below(8) == 0 { self.below(5) } else { class };
                    detections.push(self.detection(class, [x + dx, y + dy, w - dw, h - dh]));
                }
            }
            // more than 100 detections of a class: the cap
            let crowded = i % 8 == 7;
            let strays = if crowded { 130 } else { self.below(6) };
            for _ in 0..strays {
                let (x, y) = (self.below(1600), self.below(1600));
                let (w, h) = (8 + self.below(400), 8 + self.below(400));
                let class = if crowded { i / 8 % 4 } else { self.below(5) };
                detections.push(self.detection(class, [x, y, w, h]));
            }
            truth.push(ImageTruth { image_id, objects });
            results.push(ImageResult { image_id, detections });
        }
        (truth, results)
    }

    fn masks(mut self) -> (Vec<ImageTruth>, Vec<ImageResult>) {
        let (mut truth, mut results) = (Vec::new(), Vec::new());
        for i in 0..20_u32 {
            let image_id = u64::from(100 - i);
            let (mut objects, mut detections) = (Vec::new(), Vec::new());
            for _ in 0..self.below(5) {
                let (x, y) = (self.below(40), self.below(30));
                let (w, h) = (4 + self.below(50), 4 + self.below(40));
                let class = self.below(2);
                let crowd = self.below(6) == 0;
                let mask = holed([x, y, w, h], 5 + self.below(8));
                objects.push(Object { class, crowd, area: Some((w * h) as f32), mask, ..Default::default() });
                for _ in 0..self.below(4) {
                    let (x, y) = (x + self.below(w / 4 + 1), y + self.below(h / 4 + 1));
                    let mask = holed([x, y, w, h], 5 + self.below(8));
                    let class = if self.below(8) == 0 { self.below(3) } else { class };
                    let score = self.below(64) as f32 / 64.0;
                    detections.push(Detection { class, score, mask, ..Default::default() });
                }
            }
            truth.push(ImageTruth { image_id, objects });
            results.push(ImageResult { image_id, detections });
        }
        (truth, results)
    }
}

fn quarters([x, y, w, h]: [u32; 4]) -> BBox {
    let pixels = |v: u32| v as f32 / 4.0;
    BBox::from_xywh(pixels(x), pixels(y), pixels(w), pixels(h))
}

/// A rectangle with a lattice of holes in a picture of 48×64 pixels.
fn holed([x, y, w, h]: [u32; 4], step: u32) -> Option<Mask> {
    let mut bitmap = vec![0_u8; 48 * 64];
    for row in y..(y + h).min(48) {
        for column in x..(x + w).min(64) {
            bitmap[(row * 64 + column) as usize] = u8::from(!(row * 3 + column).is_multiple_of(step));
        }
    }
    Some(Mask::from_bitmap(48, 64, &bitmap).unwrap())
}

/// Printed by `tests/eval_pycocotools.py --golden` (pycocotools 2.0.11, numpy 2.4).
const BOX_STATS: [f64; 12] = [
    0.05765578396554563,
    0.15246848805080676,
    0.03281334340677946,
    0.0943304600869384,
    0.03780280619621179,
    0.2496422677982084,
    0.1682989970181621,
    0.3628121893918858,
    0.36722395409776815,
    0.3842080024229372,
    0.2999084249084249,
    0.38,
];
const BOX_AP: [f64; 5] = [0.02657695157483765, 0.07040989849592671, 0.060020772114966245, 0.0736155136764519, -1.0];
const MASK_STATS: [f64; 12] = [
    0.11178116137191088,
    0.501320629774648,
    0.007150715071507149,
    0.10369435721897108,
    0.13787128712871288,
    -1.0,
    0.13014705882352945,
    0.2130514705882353,
    0.2130514705882353,
    0.21850649350649354,
    0.14999999999999997,
    -1.0,
];
/// A direct port of the devkit, in the same script.
const VOC07_MAP: f64 = 0.1582125755081696;
const VOC12_MAP: f64 = 0.15558405754048457;
const VOC12_CONTINUOUS_MAP: f64 = 0.14976209737996088;

#[test]
fn boxes_agree_with_pycocotools_to_the_last_bit() {
    let (truth, results) = Scene { state: 2024 }.boxes();
    let counts: (usize, usize) =
        (truth.iter().map(|i| i.objects.len()).sum(), results.iter().map(|i| i.detections.len()).sum());
    assert_eq!(counts, (141, 939), "the data are not those of the script");
    let scores = coco::evaluate(&truth, &results, 5, &CocoSettings::default());
    assert_eq!(scores.stats, BOX_STATS);
    assert_eq!(scores.per_class.iter().map(|c| c.ap).collect::<Vec<_>>(), BOX_AP);
}

#[test]
fn masks_agree_with_pycocotools_to_the_last_bit() {
    let (truth, results) = Scene { state: 7 }.masks();
    let settings = CocoSettings { iou_type: IouType::Segm, ..Default::default() };
    let scores = coco::evaluate(&truth, &results, 5, &settings);
    assert_eq!(scores.stats, MASK_STATS);
}

#[test]
fn voc_agrees_with_the_devkit() {
    let (truth, results) = Scene { state: 2024 }.boxes();
    let close = |settings: VocSettings, expected: f64| {
        let map = voc::evaluate(&truth, &results, 5, settings).map;
        assert!((map - expected).abs() < 1e-12, "{map} against {expected}");
    };
    close(VocSettings::voc07(), VOC07_MAP);
    close(VocSettings::voc12(), VOC12_MAP);
    close(VocSettings::voc12().continuous(), VOC12_CONTINUOUS_MAP);
}

/// The scene as COCO files: category ids with gaps, lists in another order than the ids.
fn as_files(truth: &[ImageTruth], results: &[ImageResult]) -> (Value, Value) {
    let category = |class: u32| class * 10 + 3;
    let mut annotations = Vec::new();
    for image in truth {
        for object in &image.objects {
            annotations.push(json!({
                "id": object.id, "image_id": image.image_id, "category_id": category(object.class),
                "bbox": object.bbox.to_xywh(), "area": object.area, "iscrowd": u8::from(object.crowd),
            }));
        }
    }
    let mut list = Vec::new();
    for image in results {
        for detection in &image.detections {
            list.push(json!({
                "image_id": image.image_id, "category_id": category(detection.class),
                "bbox": detection.bbox.to_xywh(), "score": detection.score,
            }));
        }
    }
    let images: Vec<Value> = truth.iter().rev().map(|i| json!({"id": i.image_id, "file_name": "x.jpg"})).collect();
    let categories: Vec<Value> = (0..5).rev().map(|c| json!({"id": category(c), "name": format!("c{c}")})).collect();
    (json!({"images": images, "annotations": annotations, "categories": categories}), Value::Array(list))
}

#[test]
fn files_give_the_same_scores() {
    let (truth, results) = Scene { state: 2024 }.boxes();
    let (gt_json, results_json) = as_files(&truth, &results);
    let folder = tempfile::tempdir().unwrap();
    let (gt, found) = (folder.path().join("gt.json"), folder.path().join("results.json"));
    std::fs::write(&gt, gt_json.to_string()).unwrap();
    std::fs::write(&found, results_json.to_string()).unwrap();

    let scores = evaluate_files(&gt, &found, &CocoSettings::default()).unwrap();
    assert_eq!(scores.stats, BOX_STATS);
    assert_eq!(scores.class_names, ["c0", "c1", "c2", "c3", "c4"]);
    assert!(scores.notes.is_empty(), "{:?}", scores.notes);
    let voc = evaluate_voc_files(&gt, &found, &VocSettings::voc07()).unwrap();
    assert!((voc.result.map - VOC07_MAP).abs() < 1e-12);

    let missing = folder.path().join("none.json");
    let message = evaluate_files(&missing, &found, &CocoSettings::default()).unwrap_err().to_string();
    assert!(message.starts_with("cannot read the ground truth") && message.ends_with("none.json"), "{message}");
    // the two files the wrong way round
    let message = evaluate_files(&found, &gt, &CocoSettings::default()).unwrap_err().to_string();
    assert!(message.starts_with("not COCO ground truth in JSON"), "{message}");
}

/// An array of a fixture: different values and runs of their positions.
fn decoded(coded: &Value) -> Vec<f64> {
    let values: Vec<f64> = coded["values"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    let runs: Vec<usize> = coded["runs"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect();
    runs.chunks_exact(2).flat_map(|run| std::iter::repeat_n(values[run[0]], run[1])).collect()
}

/// The settings that a case of a fixture was scored with.
fn settings_of(case: &Value, iou_type: IouType) -> CocoSettings {
    let chosen = &case["settings"];
    let use_categories = chosen["agnostic"] != json!(true);
    let mut settings = CocoSettings { iou_type, use_categories, ..Default::default() };
    if let Some(thresholds) = chosen["thresholds"].as_array() {
        settings.thresholds = thresholds.iter().map(|t| t.as_f64().unwrap()).collect();
        settings.areas = serde_json::from_value(chosen["areas"].clone()).unwrap();
        settings.max_detections = serde_json::from_value(chosen["limits"].clone()).unwrap();
    }
    settings
}

fn assert_equal(got: &[f64], expected: &[f64], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!((g - e).abs() <= 1e-12, "{what}, entry {i}: {g} against {e}");
    }
}

/// Scores the sets of a file that `tests/eval_pycocotools.py --fixtures` wrote and compares every number.
fn agrees_with(fixture: &str, iou_type: IouType) {
    let sets: Vec<Value> = serde_json::from_str(fixture).unwrap();
    assert_eq!(sets.len(), 15);
    let folder = tempfile::tempdir().unwrap();
    let (gt, results) = (folder.path().join("gt.json"), folder.path().join("results.json"));
    for set in &sets {
        std::fs::write(&gt, set["gt"].to_string()).unwrap();
        std::fs::write(&results, set["results"].to_string()).unwrap();
        for case in set["cases"].as_array().unwrap() {
            let what = format!("{iou_type:?}, seed {}, {}", set["seed"], case["settings"]);
            let settings = settings_of(case, iou_type);
            let scores = evaluate_files(&gt, &results, &settings).unwrap();
            if let Some(stats) = case["stats"].as_array() {
                let stats: Vec<f64> = stats.iter().map(|s| s.as_f64().unwrap()).collect();
                assert_equal(&scores.stats, &stats, &what);
            }
            assert_equal(&scores.recall, &decoded(&case["recall"]), &what);
            // in the fixture recalls run fastest
            let expected = decoded(&case["precision"]);
            let recalls = settings.recalls;
            let cells = scores.per_class.len() * settings.areas.len() * settings.max_detections.len();
            let mut reordered = Vec::with_capacity(expected.len());
            for t in 0..settings.thresholds.len() {
                for r in 0..recalls {
                    reordered.extend((0..cells).map(|cell| expected[(t * cells + cell) * recalls + r]));
                }
            }
            assert_equal(&scores.precision, &reordered, &what);
        }
    }
}

#[test]
fn random_boxes_agree_with_pycocotools_in_every_entry() {
    agrees_with(include_str!("fixtures/eval_boxes.json"), IouType::Bbox);
}

#[test]
fn random_masks_agree_with_pycocotools_in_every_entry() {
    agrees_with(include_str!("fixtures/eval_masks.json"), IouType::Segm);
}

#[test]
fn scores_do_not_depend_on_the_number_of_threads() {
    let (truth, results) = Scene { state: 2024 }.boxes();
    let score = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| coco::evaluate(&truth, &results, 5, &CocoSettings::default()))
    };
    assert_eq!(score(1), score(5));
}

#[test]
fn voc_files_know_difficult_objects_pixels_and_eleven_points() {
    // Boxes are first and last pixel. One object of three is difficult and found first: it neither counts nor costs.
    // Then: right, the same again, nothing there. Recall 1/2, 1/2, 1/2; precision 1, 1/2, 1/3.
    let gt = json!({
        "images": [{"id": 1}], "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]},
            {"id": 2, "image_id": 1, "category_id": 1, "bbox": [50, 0, 9, 9]},
            {"id": 3, "image_id": 1, "category_id": 1, "bbox": [100, 0, 9, 9], "difficult": 1},
        ],
    });
    let found = |x: f64, score: f64| json!({"image_id": 1, "category_id": 1, "bbox": [x, 0, 9, 9], "score": score});
    let results = json!([found(100.0, 0.9), found(0.0, 0.8), found(0.0, 0.7), found(200.0, 0.6)]);
    let folder = tempfile::tempdir().unwrap();
    let (gt_file, results_file) = (folder.path().join("gt.json"), folder.path().join("results.json"));
    std::fs::write(&gt_file, gt.to_string()).unwrap();
    std::fs::write(&results_file, results.to_string()).unwrap();
    let map = |settings: VocSettings| evaluate_voc_files(&gt_file, &results_file, &settings).unwrap().result.map;
    // recalls 0 to 0.5 read 1: six of eleven points; half of the area
    assert_close(map(VocSettings::voc07()), 6.0 / 11.0);
    assert_close(map(VocSettings::voc12()), 0.5);
    // Shifted by 4: 6 × 10 pixels of 14 × 10 are shared, .43; of continuous boxes 5 × 9 of 13 × 9, .38.
    std::fs::write(&results_file, json!([found(4.0, 0.8)]).to_string()).unwrap();
    let at = |settings: VocSettings| map(VocSettings { threshold: 0.41, ..settings });
    assert_close(at(VocSettings::voc12()), 0.5);
    assert_close(at(VocSettings::voc12().continuous()), 0.0);
}

fn object(class: u32, x: f32) -> Object {
    Object { class, bbox: BBox::from_xywh(x, 0.0, 20.0, 20.0), ..Default::default() }
}

fn detection(class: u32, x: f32, score: f32) -> Detection {
    Detection { class, bbox: BBox::from_xywh(x, 0.0, 20.0, 20.0), score, ..Default::default() }
}

/// Scores of one image a pair, class count 2.
fn score(images: Vec<(Vec<Object>, Vec<Detection>)>) -> CocoResult {
    let (mut truth, mut results) = (Vec::new(), Vec::new());
    for (image_id, (objects, detections)) in (1_u64..).zip(images) {
        truth.push(ImageTruth { image_id, objects });
        results.push(ImageResult { image_id, detections });
    }
    coco::evaluate(&truth, &results, 2, &CocoSettings::default())
}

fn assert_close(value: f64, expected: f64) {
    assert!((value - expected).abs() < 1e-12, "{value} against {expected}");
}

#[test]
fn perfect_and_empty_results() {
    let objects = || vec![object(0, 0.0), object(0, 100.0), object(1, 200.0)];
    let perfect = vec![detection(0, 0.0, 0.9), detection(0, 100.0, 0.8), detection(1, 200.0, 0.7)];
    let scores = score(vec![(objects(), perfect)]);
    for index in [0, 1, 2, 3, 8, 9] {
        assert_close(scores.stats[index], 1.0);
    }
    // one detection an image and class: half the objects of class 0, all of class 1
    assert_close(scores.stats[6], 0.75);
    let scores = score(vec![(objects(), Vec::new())]);
    assert_eq!((scores.stats[0], scores.stats[8], scores.stats[5]), (0.0, 0.0, -1.0));
    assert!(score(vec![(Vec::new(), vec![detection(0, 0.0, 0.5)])]).stats.iter().all(|&s| s == -1.0));
}

#[test]
fn a_crowd_is_never_missed_and_swallows_what_lies_on_it() {
    let crowd = Object { crowd: true, bbox: BBox::from_xywh(300.0, 0.0, 200.0, 200.0), ..Default::default() };
    // both detections on the crowd come first; they must not count against the one that is right
    let found = vec![detection(0, 310.0, 0.9), detection(0, 350.0, 0.8), detection(0, 0.0, 0.7)];
    let scores = score(vec![(vec![crowd, object(0, 0.0)], found)]);
    assert_close(scores.stats[0], 1.0);
    assert_eq!(scores.per_class[0].truths, 1);
}

#[test]
fn a_second_detection_of_an_object_is_wrong() {
    // TP, FP, TP of two objects: 51 recalls at precision 1, 50 at 2/3
    let found = vec![detection(0, 0.0, 0.9), detection(0, 0.0, 0.8), detection(0, 100.0, 0.7)];
    let scores = score(vec![(vec![object(0, 0.0), object(0, 100.0)], found)]);
    assert_close(scores.stats[0], (51.0 + 50.0 * 2.0 / 3.0) / 101.0);
}

#[test]
fn size_ranges_look_at_the_area_field_and_include_both_ends() {
    // boxes of 400 pixels whose segmentation is said to have 1024: small and medium at once
    let both = Object { area: Some(1024.0), ..object(0, 0.0) };
    let scores = score(vec![(vec![both], vec![detection(0, 0.0, 0.5)])]);
    assert_close(scores.stats[3], 1.0);
    assert_close(scores.stats[4], 1.0);
    let medium = Object { area: Some(1025.0), ..object(0, 0.0) };
    let scores = score(vec![(vec![medium], vec![detection(0, 0.0, 0.5)])]);
    assert_eq!(scores.stats[3], -1.0);
    assert_close(scores.stats[4], 1.0);
}

#[test]
fn the_hundred_and_first_detection_of_a_class_is_dropped() {
    let strays = |count: usize| (0..count).map(|i| detection(0, 1000.0 + 30.0 * i as f32, 0.9));
    let with_last = |count: usize| strays(count).chain([detection(0, 0.0, 0.1)]).collect::<Vec<_>>();
    let scores = score(vec![(vec![object(0, 0.0)], with_last(99))]);
    assert_close(scores.stats[0], 0.01);
    assert_eq!(scores.stats[6..9], [0.0, 0.0, 1.0]);
    let scores = score(vec![(vec![object(0, 0.0)], with_last(100))]);
    assert_eq!((scores.stats[0], scores.stats[8]), (0.0, 0.0));
    // another class has a hundred of its own
    let mut found = with_last(100);
    found.push(detection(1, 0.0, 0.1));
    let scores = score(vec![(vec![object(1, 0.0)], found)]);
    assert_close(scores.stats[0], 1.0);
}

#[test]
fn equal_scores_keep_the_order_of_image_ids_and_of_detections() {
    let (right, wrong) = (detection(0, 0.0, 0.5), detection(0, 500.0, 0.5));
    let within = |list: Vec<Detection>| score(vec![(vec![object(0, 0.0)], list)]).stats[0];
    assert_close(within(vec![right.clone(), wrong.clone()]), 1.0);
    assert_close(within(vec![wrong.clone(), right.clone()]), 0.5);
    let across = |first: Vec<Detection>, second: Vec<Detection>| {
        score(vec![(vec![object(0, 0.0)], first), (vec![object(0, 0.0)], second)]).stats[0]
    };
    // TP FP of two objects: precision 1 up to recall 1/2; FP TP: 1/2 up to recall 1/2
    assert_close(across(vec![right.clone()], vec![wrong.clone()]), 51.0 / 101.0);
    assert_close(across(vec![wrong], vec![right]), 25.5 / 101.0);
}

/// Objects (class, x, y, w, h) and detections (the same, and a score in thousandths) of a few images.
type Drawn = Vec<(Vec<(u32, [u16; 4])>, Vec<(u32, [u16; 4], u16)>)>;

fn scenes() -> impl Strategy<Value = Drawn> {
    let rectangle = || (0..100_u16, 0..100_u16, 1..90_u16, 1..90_u16).prop_map(|(x, y, w, h)| [x, y, w, h]);
    let objects = prop::collection::vec((0..2_u32, rectangle()), 0..6);
    let detections = prop::collection::vec((0..2_u32, rectangle(), 1..1000_u16), 0..10);
    prop::collection::vec((objects, detections), 1..5)
}

fn pixels([x, y, w, h]: [u16; 4]) -> BBox {
    BBox::from_xywh(f32::from(x), f32::from(y), f32::from(w), f32::from(h))
}

fn build(drawn: &Drawn, rescale: impl Fn(u16) -> f32) -> (Vec<ImageTruth>, Vec<ImageResult>) {
    let (mut truth, mut results) = (Vec::new(), Vec::new());
    for (image_id, (objects, detections)) in (0_u64..).zip(drawn) {
        let objects = objects.iter().map(|&(class, b)| Object { class, bbox: pixels(b), ..Default::default() });
        truth.push(ImageTruth { image_id, objects: objects.collect() });
        let detections = detections.iter().map(|&(class, b, score)| Detection {
            class,
            bbox: pixels(b),
            score: rescale(score),
            ..Default::default()
        });
        results.push(ImageResult { image_id, detections: detections.collect() });
    }
    (truth, results)
}

fn thousandths(score: u16) -> f32 {
    f32::from(score) / 1000.0
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn only_the_order_of_scores_matters(drawn in scenes()) {
        let (truth, results) = build(&drawn, thousandths);
        // squares below 10^6 are exact in f32, so equal stays equal and above stays above
        let (_, squared) = build(&drawn, |score| (f32::from(score) * f32::from(score)) / 1_000_000.0);
        let settings = CocoSettings::default();
        let scores = coco::evaluate(&truth, &results, 2, &settings);
        prop_assert_eq!(scores.stats, coco::evaluate(&truth, &squared, 2, &settings).stats);
        prop_assert!(scores.stats.iter().all(|&s| s == -1.0 || (0.0..=1.0).contains(&s)), "{:?}", scores.stats);
        for voc in [VocSettings::voc07(), VocSettings::voc12()] {
            prop_assert_eq!(voc::evaluate(&truth, &results, 2, voc), voc::evaluate(&truth, &squared, 2, voc));
        }
    }

    #[test]
    fn a_last_false_positive_never_raises_a_score(drawn in scenes()) {
        let (truth, results) = build(&drawn, thousandths);
        let mut worse = results.clone();
        let stray = Detection { bbox: BBox::from_xywh(5000.0, 0.0, 40.0, 40.0), ..Default::default() };
        worse[0].detections.push(stray);
        let settings = CocoSettings::default();
        let (before, after) =
            (coco::evaluate(&truth, &results, 2, &settings), coco::evaluate(&truth, &worse, 2, &settings));
        for (b, a) in before.stats.iter().zip(&after.stats) {
            prop_assert!(a <= b, "{:?} became {:?}", before.stats, after.stats);
        }
        let voc = VocSettings::voc12();
        prop_assert!(voc::evaluate(&truth, &worse, 2, voc).map <= voc::evaluate(&truth, &results, 2, voc).map);
    }

    #[test]
    fn the_order_of_images_does_not_matter(drawn in scenes()) {
        let (mut truth, mut results) = build(&drawn, thousandths);
        let settings = CocoSettings { match_thresholds: vec![0.5], ..Default::default() };
        let scores = coco::evaluate(&truth, &results, 2, &settings);
        truth.reverse();
        results.rotate_left(1);
        prop_assert_eq!(scores, coco::evaluate(&truth, &results, 2, &settings));
    }
}
