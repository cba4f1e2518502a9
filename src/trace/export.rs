//! A trace as named tensors and a JSON summary: what the `trace` command writes and parity checks read.
//!
//! Indices and codes are f32 like everything else, exact up to 2^24. Boxes are rows `x0 y0 x1 y1`; rows of candidates
//! and detections go on with `score class`.

use super::localisation::{CurveSums, DeltaSums, Localisation};
use super::{Rule, Trace};
use crate::geometry::{BBox, Detection};
use serde_json::{Value, json};
use std::collections::HashSet;

/// One named part of a trace, row-major.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TensorOut {
    pub name: String,
    pub shape: Vec<usize>,
    pub data: Vec<f32>,
}

/// Every rule with its name in the summary.
const RULES: [(Rule, &str); 6] = [
    (Rule::Threshold, "threshold"),
    (Rule::BestForObject, "best_for_object"),
    (Rule::Background, "background"),
    (Rule::Ignored, "ignored"),
    (Rule::Filtered, "filtered"),
    (Rule::Center, "center"),
];

/// The number of a rule in `assignment.rule`.
fn rule_code(rule: Rule) -> f32 {
    match rule {
        Rule::Threshold => 0.0,
        Rule::BestForObject => 1.0,
        Rule::Background => 2.0,
        Rule::Ignored => 3.0,
        Rule::Filtered => 4.0,
        Rule::Center => 5.0,
    }
}

/// Tensors under construction; names stay unique.
#[derive(Default)]
struct Collection {
    tensors: Vec<TensorOut>,
    names: HashSet<String>,
}

impl Collection {
    /// Adds a tensor. A shape that does not fit the data becomes flat, a name in use gets a number.
    fn add(&mut self, name: String, shape: Vec<usize>, data: Vec<f32>) {
        let size = shape.iter().try_fold(1_usize, |size, &side| size.checked_mul(side));
        let shape = if size == Some(data.len()) { shape } else { vec![data.len()] };
        let mut unique = name.clone();
        let mut number = 2;
        while !self.names.insert(unique.clone()) {
            unique = format!("{name}.{number}");
            number += 1;
        }
        self.tensors.push(TensorOut { name: unique, shape, data });
    }

    fn vector(&mut self, name: String, data: Vec<f32>) {
        self.add(name, vec![data.len()], data);
    }

    /// A part that may be missing: no tensor for no values.
    fn vector_if_any(&mut self, name: String, data: Vec<f32>) {
        if !data.is_empty() {
            self.vector(name, data);
        }
    }

    fn boxes(&mut self, name: String, boxes: &[BBox]) {
        let data = boxes.iter().flat_map(|b| [b.x0, b.y0, b.x1, b.y1]).collect();
        self.add(name, vec![boxes.len(), 4], data);
    }

    fn detections(&mut self, name: String, detections: &[Detection]) {
        let row = |d: &Detection| [d.bbox.x0, d.bbox.y0, d.bbox.x1, d.bbox.y1, d.score, d.class as f32];
        let data = detections.iter().flat_map(row).collect();
        self.add(name, vec![detections.len(), 6], data);
    }
}

impl Trace {
    /// All parts that the trace has, as tensors:
    ///
    /// | name | shape | columns |
    /// |---|---|---|
    /// | `input`, `maps.<name>` | `[C, H, W]` | |
    /// | `objects.boxes`, `objects.class` | `[O, 4]`, `[O]` | |
    /// | `anchors.boxes` | `[A, 4]` | |
    /// | `anchors.levels` | `[L, 6]` | start, len, rows, columns, per cell, stride |
    /// | `assignment.target`, `.iou`, `.best_object`, `.rule` | `[A]` | rule codes are named in the summary |
    /// | `sampling` | `[S, 4]` | anchor, positive, rank, loss |
    /// | `losses.<name>.per_anchor` | `[A]` | |
    /// | `losses.<name>.predicted` | `[A, K]` | logits or box code; NaN where the head was not asked |
    /// | `losses.<name>.target` | `[A]`, `[A, K]` | wanted column (−1: none), or numbers; NaN where nothing is learnt |
    /// | `losses.<name>.boxes` | `[A, 4]` | predicted boxes of an overlap loss, whose targets are boxes too |
    /// | `proposals.<stage>.boxes`, `.scores`, `.iou`, `.parent` | `[P, 4]`, `[P]` | |
    /// | `localisation.<stage>.input_iou`, `.output_iou` | `[P]` | |
    /// | `localisation.<stage>.deltas`, `.normalized_deltas` | `[Q, 4]` | box code of the positives |
    /// | `suppression.candidates` | `[N, 6]` | box, score, class |
    /// | `suppression.removals` | `[R, 3]` | removed, by, IoU |
    /// | `suppression.kept` | `[K]` | |
    /// | `detections` | `[D, 6]` | box, score, class |
    /// | `detections.anchor` | `[D]` | −1 where none is known |
    pub fn tensors(&self) -> Vec<TensorOut> {
        let mut out = Collection::default();
        if let Some(input) = &self.input {
            out.add("input".into(), vec![input.channels, input.height, input.width], input.data.clone());
        }
        for map in &self.maps {
            out.add(format!("maps.{}", map.name), vec![map.channels, map.height, map.width], map.data.clone());
        }
        if !self.objects.is_empty() {
            let boxes: Vec<BBox> = self.objects.iter().map(|o| o.bbox).collect();
            out.boxes("objects.boxes".into(), &boxes);
            out.vector("objects.class".into(), self.objects.iter().map(|o| o.class as f32).collect());
        }
        if !self.anchors.boxes.is_empty() {
            out.boxes("anchors.boxes".into(), &self.anchors.boxes);
            let levels = &self.anchors.levels;
            let data: Vec<f32> = levels
                .iter()
                .flat_map(|l| {
                    let counts = [l.start, l.len, l.rows, l.columns, l.per_cell];
                    counts.into_iter().map(|count| count as f32).chain([l.stride])
                })
                .collect();
            out.add("anchors.levels".into(), vec![levels.len(), 6], data);
        }
        if let Some(assignment) = &self.assignment {
            out.vector("assignment.target".into(), assignment.target.iter().map(|&t| t as f32).collect());
            out.vector("assignment.iou".into(), assignment.iou.clone());
            out.vector("assignment.best_object".into(), assignment.best_object.iter().map(|&o| o as f32).collect());
            out.vector("assignment.rule".into(), assignment.rule.iter().map(|&r| rule_code(r)).collect());
        }
        if !self.sampling.is_empty() {
            let row = |s: &super::Sample| [s.anchor as f32, f32::from(u8::from(s.positive)), s.rank as f32, s.loss];
            let data: Vec<f32> = self.sampling.iter().flat_map(row).collect();
            out.add("sampling".into(), vec![self.sampling.len(), 4], data);
        }
        for part in &self.losses {
            let name = |what: &str| format!("losses.{}.{what}", part.name);
            out.vector_if_any(name("per_anchor"), part.per_anchor.clone());
            let terms = &part.terms;
            let rows = terms.predicted.len().checked_div(terms.stride).unwrap_or(0);
            for (what, width, table) in [
                ("predicted", terms.stride, &terms.predicted),
                ("target", terms.target_width(), &terms.target),
                ("boxes", 4, &terms.boxes),
            ] {
                if !table.is_empty() {
                    let shape = if width == 1 && what == "target" { vec![rows] } else { vec![rows, width] };
                    out.add(name(what), shape, table.clone());
                }
            }
        }
        for stage in &self.proposals {
            let name = |part: &str| format!("proposals.{}.{part}", stage.name);
            out.boxes(name("boxes"), &stage.boxes);
            out.vector(name("scores"), stage.scores.clone());
            out.vector_if_any(name("iou"), stage.iou.clone());
            out.vector_if_any(name("parent"), stage.parent.iter().map(|&p| p as f32).collect());
        }
        for head in &self.localisation {
            let name = |part: &str| format!("localisation.{}.{part}", head.stage);
            out.vector(name("input_iou"), head.input_iou.clone());
            out.vector(name("output_iou"), head.output_iou.clone());
            let positives = head.deltas.len();
            out.add(name("deltas"), vec![positives, 4], head.deltas.iter().flatten().copied().collect());
            out.add(name("normalized_deltas"), vec![positives, 4], head.normalized().flatten().collect());
        }
        if let Some(suppression) = &self.suppression {
            out.detections("suppression.candidates".into(), &suppression.candidates);
            let removals = &suppression.removals;
            let data: Vec<f32> = removals.iter().flat_map(|r| [r.removed as f32, r.by as f32, r.iou]).collect();
            out.add("suppression.removals".into(), vec![removals.len(), 3], data);
            out.vector("suppression.kept".into(), suppression.kept.iter().map(|&k| k as f32).collect());
        }
        out.detections("detections".into(), &self.detections);
        let anchors = self.detections.iter().map(|d| d.anchor.map_or(-1.0, |anchor| anchor as f32));
        out.vector("detections.anchor".into(), anchors.collect());
        out.tensors
    }

    /// Counts, loss parts, timings and preprocessing; missing parts are null. Numbers that are not finite are null too.
    /// Masks of detections are COCO run lengths of the original image.
    pub fn summary(&self) -> Value {
        let maps: Vec<Value> = self.maps.iter().map(map_summary).collect();
        let losses: Vec<Value> = self
            .losses
            .iter()
            .map(|part| json!({ "name": part.name, "value": part.value, "normalizer": part.normalizer }))
            .collect();
        let proposals: Vec<Value> = self
            .proposals
            .iter()
            .map(|stage| {
                json!({
                    "name": stage.name,
                    "count": stage.boxes.len(),
                    "threshold": stage.threshold,
                    "mean_iou": stage.mean_iou(),
                    "positive_share": stage.positive_share(),
                })
            })
            .collect();
        let localisation: Vec<Value> = self.localisation.iter().map(localisation_summary).collect();
        let sampled_positives = self.sampling.iter().filter(|s| s.positive).count();
        let suppression = self.suppression.as_ref().map(|s| {
            json!({
                "method": s.method,
                "candidates": s.candidates.len(),
                "removals": s.removals.len(),
                "kept": s.kept.len(),
                "iou_threshold": s.iou_threshold,
                "score_threshold": s.score_threshold,
            })
        });
        let total_loss = self.losses.iter().map(|part| part.value).reduce(|sum, value| sum + value);
        let seconds: f64 = self.timings.iter().map(|stage| stage.seconds).sum();
        json!({
            "preprocessing": self.preprocessing,
            "input": self.input.as_ref().map(map_summary),
            "objects": self.objects.len(),
            "maps": maps,
            "anchors": self.anchors_summary(),
            "assignment": self.assignment_summary(),
            "sampling": {
                "positives": sampled_positives,
                "negatives": self.sampling.len() - sampled_positives,
            },
            "losses": losses,
            "total_loss": total_loss,
            "proposals": proposals,
            "localisation": localisation,
            "suppression": suppression,
            "detections": self.detections.len(),
            "masks": self.mask_summary(),
            "timings": self.timings,
            "seconds": seconds,
        })
    }

    fn anchors_summary(&self) -> Value {
        let levels = self.anchors.levels.iter().map(|level| {
            json!({
                "start": level.start,
                "len": level.len,
                "rows": level.rows,
                "columns": level.columns,
                "per_cell": level.per_cell,
                "stride": level.stride,
            })
        });
        json!({ "count": self.anchors.boxes.len(), "levels": levels.collect::<Vec<Value>>() })
    }

    /// Positives, background and ignored; per rule its code in `assignment.rule` and how many anchors it decided.
    fn assignment_summary(&self) -> Option<Value> {
        let assignment = self.assignment.as_ref()?;
        let count = |wanted: fn(i32) -> bool| assignment.target.iter().filter(|&&target| wanted(target)).count();
        let mut rules = serde_json::Map::new();
        for (rule, name) in RULES {
            let decided = assignment.rule.iter().filter(|&&r| r == rule).count();
            rules.insert(name.into(), json!({ "code": rule_code(rule) as u32, "count": decided }));
        }
        Some(json!({
            "positive": count(|target| target >= 0),
            "background": count(|target| target == -1),
            "ignored": count(|target| target == -2),
            "rules": rules,
        }))
    }

    fn mask_summary(&self) -> Vec<Value> {
        let masks = self.detections.iter().enumerate().filter_map(|(index, d)| Some((index, d.mask.as_ref()?)));
        masks
            .map(|(index, mask)| {
                json!({
                    "detection": index,
                    "size": [mask.height, mask.width],
                    "counts": mask.to_coco_string(),
                })
            })
            .collect()
    }
}

/// The localisation curve of one head as (mean IoU before, mean IoU after, boxes), and the spread of its box codes.
fn localisation_summary(head: &Localisation) -> Value {
    let (mut curve, mut before, mut after) = (CurveSums::default(), DeltaSums::default(), DeltaSums::default());
    for (&input, &output) in head.input_iou.iter().zip(&head.output_iou) {
        curve.add(input, output);
    }
    head.deltas.iter().for_each(|&delta| before.add(delta));
    head.normalized().for_each(|delta| after.add(delta));
    json!({
        "stage": head.stage,
        "std": head.std,
        "positives": head.deltas.len(),
        "curve": curve.points(),
        "deltas": { "mean": before.mean(), "std": before.std() },
        "normalized_deltas": { "mean": after.mean(), "std": after.std() },
    })
}

fn map_summary(map: &super::FeatureMap) -> Value {
    json!({ "name": map.name, "level": map.level, "shape": [map.channels, map.height, map.width] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{Mask, Object};
    use crate::trace::{
        AnchorLevel, Anchors, Assignment, FeatureMap, Formula, LossPart, Overlap, Preprocessing, ProposalStage,
        Removal, Sample, StageTime, Suppression, Terms,
    };

    fn map(name: &str, data: usize) -> FeatureMap {
        FeatureMap { name: name.into(), level: 1, channels: 2, height: 3, width: 4, data: vec![0.5; data] }
    }

    fn detection(anchor: Option<u32>) -> Detection {
        Detection { bbox: BBox::new(1.0, 2.0, 3.0, 4.0), class: 7, score: 0.5, anchor, mask: None }
    }

    /// A trace with every part filled.
    fn full() -> Trace {
        let mask = Mask::from_counts(2, 2, vec![1, 3]).unwrap();
        Trace {
            preprocessing: Some(Preprocessing { input_width: 300, ..Preprocessing::default() }),
            input: Some(map("input", 24)),
            objects: vec![Object { bbox: BBox::new(0.0, 0.0, 5.0, 5.0), class: 3, ..Object::default() }],
            maps: vec![map("conv4_3", 24), map("conv4_3", 24), map("short", 5)],
            anchors: Anchors {
                boxes: vec![BBox::new(0.0, 1.0, 2.0, 3.0); 4],
                levels: vec![AnchorLevel { start: 0, len: 4, rows: 2, columns: 1, per_cell: 2, stride: 8.0 }],
            },
            assignment: Some(Assignment {
                target: vec![0, -1, -2, -1],
                rule: vec![Rule::BestForObject, Rule::Background, Rule::Ignored, Rule::Filtered],
                iou: vec![0.4, 0.0, 0.45, 0.1],
                best_object: vec![0, 0, 0, 0],
            }),
            all_background: false,
            sampling: vec![
                Sample { anchor: 0, positive: true, rank: 0, loss: 2.0 },
                Sample { anchor: 3, positive: false, rank: 1, loss: 1.5 },
            ],
            losses: vec![
                LossPart {
                    name: "boxes".into(),
                    value: 0.25,
                    normalizer: 1.0,
                    per_anchor: vec![0.25, 0.0, 0.0, 0.0],
                    terms: Terms {
                        formula: Formula::Overlap(Overlap::Giou),
                        stride: 4,
                        predicted: vec![0.5; 16],
                        target: vec![1.0; 16],
                        boxes: vec![2.0; 16],
                        ..Terms::default()
                    },
                },
                LossPart {
                    name: "classes".into(),
                    value: 1.5,
                    normalizer: 1.0,
                    terms: Terms { stride: 3, predicted: vec![0.5; 12], target: vec![1.0; 4], ..Terms::default() },
                    ..LossPart::default()
                },
            ],
            proposals: vec![ProposalStage {
                name: "rpn".into(),
                boxes: vec![BBox::new(0.0, 0.0, 1.0, 1.0); 2],
                scores: vec![0.9, 0.8],
                iou: vec![0.1, 0.2],
                threshold: Some(0.5),
                parent: Vec::new(),
            }],
            localisation: vec![Localisation {
                stage: "rpn".into(),
                std: [0.5; 4],
                input_iou: vec![0.1, 0.6],
                output_iou: vec![0.2, 0.8],
                deltas: vec![[1.0, 0.0, 0.0, -0.5]],
            }],
            suppression: Some(Suppression {
                candidates: vec![detection(Some(1)), detection(Some(2))],
                removals: vec![Removal { removed: 1, by: 0, iou: 0.75 }],
                kept: vec![0],
                iou_threshold: 0.5,
                score_threshold: 0.25,
                method: "greedy".into(),
            }),
            detections: vec![Detection { mask: Some(mask), ..detection(Some(1)) }, detection(None)],
            timings: vec![
                StageTime { stage: "backbone".into(), seconds: 0.25 },
                StageTime { stage: "head".into(), seconds: 0.5 },
            ],
        }
    }

    #[test]
    fn every_part_is_a_tensor_whose_shape_fits() {
        let tensors = full().tensors();
        let names: Vec<&str> = tensors.iter().map(|t| t.name.as_str()).collect();
        let expected = [
            "input",
            "maps.conv4_3",
            "maps.conv4_3.2",
            "maps.short",
            "objects.boxes",
            "objects.class",
            "anchors.boxes",
            "anchors.levels",
            "assignment.target",
            "assignment.iou",
            "assignment.best_object",
            "assignment.rule",
            "sampling",
            "losses.boxes.per_anchor",
            "losses.boxes.predicted",
            "losses.boxes.target",
            "losses.boxes.boxes",
            "losses.classes.predicted",
            "losses.classes.target",
            "proposals.rpn.boxes",
            "proposals.rpn.scores",
            "proposals.rpn.iou",
            "localisation.rpn.input_iou",
            "localisation.rpn.output_iou",
            "localisation.rpn.deltas",
            "localisation.rpn.normalized_deltas",
            "suppression.candidates",
            "suppression.removals",
            "suppression.kept",
            "detections",
            "detections.anchor",
        ];
        assert_eq!(names, expected);
        for tensor in &tensors {
            assert_eq!(tensor.shape.iter().product::<usize>(), tensor.data.len(), "{}", tensor.name);
        }
        let find = |name: &str| tensors.iter().find(|t| t.name == name).unwrap();
        assert_eq!(find("maps.conv4_3.2").shape, [2, 3, 4]);
        assert_eq!(find("maps.short").shape, [5]);
        assert_eq!(find("anchors.levels").data, [0.0, 4.0, 2.0, 1.0, 2.0, 8.0]);
        assert_eq!(find("assignment.target").data, [0.0, -1.0, -2.0, -1.0]);
        assert_eq!(find("assignment.rule").data, [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(find("sampling").data, [0.0, 1.0, 0.0, 2.0, 3.0, 0.0, 1.0, 1.5]);
        assert_eq!(find("losses.classes.predicted").shape, [4, 3]);
        assert_eq!((&find("losses.classes.target").shape, &find("losses.boxes.target").shape), (&vec![4], &vec![4, 4]));
        assert_eq!(find("localisation.rpn.normalized_deltas").data, [2.0, 0.0, 0.0, -1.0]);
        assert_eq!(find("suppression.removals").data, [1.0, 0.0, 0.75]);
        assert_eq!(find("detections").shape, [2, 6]);
        assert_eq!(find("detections").data[..6], [1.0, 2.0, 3.0, 4.0, 0.5, 7.0]);
        assert_eq!(find("detections.anchor").data, [1.0, -1.0]);
    }

    #[test]
    fn an_empty_trace_has_no_detections_and_nothing_else() {
        let tensors = Trace::default().tensors();
        let shapes: Vec<(&str, &[usize])> = tensors.iter().map(|t| (t.name.as_str(), t.shape.as_slice())).collect();
        assert_eq!(shapes, [("detections", &[0_usize, 6][..]), ("detections.anchor", &[0_usize][..])]);
        let summary = Trace::default().summary();
        assert!(summary["preprocessing"].is_null() && summary["assignment"].is_null());
        assert!(summary["total_loss"].is_null());
        assert_eq!(summary["detections"], 0);
    }

    #[test]
    fn the_summary_counts() {
        let summary = full().summary();
        assert_eq!(summary["preprocessing"]["input_width"], 300);
        assert_eq!(summary["input"]["shape"], json!([2, 3, 4]));
        assert_eq!(summary["anchors"]["levels"][0]["per_cell"], 2);
        let assignment = &summary["assignment"];
        assert_eq!((&assignment["positive"], &assignment["background"]), (&json!(1), &json!(2)));
        assert_eq!(assignment["rules"]["filtered"], json!({ "code": 4, "count": 1 }));
        assert_eq!(summary["sampling"], json!({ "positives": 1, "negatives": 1 }));
        assert_eq!(summary["losses"][1]["value"], 1.5);
        assert_eq!(summary["total_loss"], 1.75);
        assert_eq!(summary["suppression"]["kept"], 1);
        assert_eq!(summary["masks"], json!([{ "detection": 0, "size": [2, 2], "counts": "13" }]));
        assert_eq!(summary["seconds"], 0.75);
        assert_eq!(summary["proposals"][0]["positive_share"], 0.0);
        assert_eq!(summary["localisation"][0]["curve"][1][2], 1);
        assert_eq!(summary["localisation"][0]["normalized_deltas"]["mean"][0], 2.0);
        let mut broken = full();
        broken.losses[0].value = f32::NAN;
        assert!(broken.summary()["losses"][0]["value"].is_null());
    }

    #[test]
    fn each_rule_has_its_own_code() {
        let codes: Vec<f32> = RULES.iter().map(|&(rule, _)| rule_code(rule)).collect();
        assert_eq!(codes, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    }
}
