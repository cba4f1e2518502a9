//! M2Det's suppression: Soft-NMS class by class, or the greedy kind, with at most so many detections of each class.

use super::M2detConfig;
use crate::detect::suppress::{Candidates, Limits, suppress};
use crate::geometry::iou::iou;
use crate::geometry::nms::{order_by_score, soft_nms};
use crate::geometry::{BBox, Detection};
use crate::nn::Pass;
use crate::trace::{Removal, Suppression};

/// How many of each class have passed.
struct Quota {
    counts: Vec<usize>,
    limit: usize,
}

impl Quota {
    fn new(config: &M2detConfig) -> Self {
        Self { counts: vec![0; config.classes.len()], limit: config.keep_per_class }
    }

    fn admits(&mut self, class: u32) -> bool {
        match self.counts.get_mut(class as usize) {
            Some(count) => {
                *count += 1;
                *count <= self.limit
            }
            None => false,
        }
    }
}

/// Detections of one image, best first; fills `suppression` of image `image`'s trace when the pass is probed.
pub(super) fn select(candidates: Candidates, config: &M2detConfig, image: usize, pass: &Pass) -> Vec<Detection> {
    if config.soft_nms { soft(&candidates, config, image, pass) } else { greedy(candidates, config, image, pass) }
}

fn limit(config: &M2detConfig) -> usize {
    if config.max_detections == 0 { usize::MAX } else { config.max_detections }
}

fn greedy(candidates: Candidates, config: &M2detConfig, image: usize, pass: &Pass) -> Vec<Detection> {
    let limits = Limits {
        score_threshold: config.score_threshold,
        top_k_per_class: config.top_k,
        nms_threshold: config.nms_threshold,
        max_detections: usize::MAX,
    };
    let mut found = suppress(candidates, &limits, image, pass);
    let mut quota = Quota::new(config);
    found.retain(|d| quota.admits(d.class));
    found.truncate(limit(config));
    pass.trace(image, |t| {
        if let Some(record) = &mut t.suppression {
            let mut quota = Quota::new(config);
            let Suppression { candidates, kept, .. } = record;
            kept.retain(|&index| candidates.get(index as usize).is_some_and(|d| quota.admits(d.class)));
            kept.truncate(limit(config));
        }
    });
    found
}

/// Scores of kept boxes are the lowered ones; the record's candidates have the scores of the head.
fn soft(candidates: &[Detection], config: &M2detConfig, image: usize, pass: &Pass) -> Vec<Detection> {
    let scores: Vec<f32> = candidates.iter().map(|d| d.score).collect();
    let sorted: Candidates =
        order_by_score(&scores).into_iter().filter_map(|i| candidates.get(i as usize).cloned()).collect();
    let mut removals = Vec::new();
    let mut selected: Vec<(u32, f32)> = Vec::new();
    for class in 0..config.classes.len() as u32 {
        let members: Vec<u32> =
            sorted.iter().enumerate().filter(|(_, d)| d.class == class).map(|(index, _)| index as u32).collect();
        let boxes: Vec<BBox> = members.iter().map(|&index| sorted[index as usize].bbox).collect();
        let scores: Vec<f32> = members.iter().map(|&index| sorted[index as usize].score).collect();
        let chosen = soft_nms(&boxes, &scores, config.soft_threshold, config.soft_decay, config.soft_floor);
        if pass.is_probed() {
            removals.extend(removed(&boxes, &chosen).into_iter().map(|r| Removal {
                removed: members[r.removed as usize],
                by: members[r.by as usize],
                iou: r.iou,
            }));
        }
        let kept = chosen.into_iter().take(config.keep_per_class);
        selected.extend(kept.map(|(local, score)| (members[local as usize], score)));
    }
    selected.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    selected.truncate(limit(config));
    let found: Vec<Detection> =
        selected.iter().map(|&(index, score)| Detection { score, ..sorted[index as usize].clone() }).collect();
    pass.trace(image, |t| {
        t.suppression = Some(Suppression {
            candidates: sorted,
            removals,
            kept: selected.iter().map(|&(index, _)| index).collect(),
            iou_threshold: config.soft_threshold,
            score_threshold: config.score_threshold,
            method: format!(
                "Soft-NMS ({:?}), class by class: scores fall with every overlap; below {} a box goes, put down to the \
                 kept box that overlaps it most",
                config.soft_decay, config.soft_floor
            ),
        });
    });
    found
}

/// For each box of one class that was not chosen, the chosen one that overlaps it most. Indices are those of `boxes`.
fn removed(boxes: &[BBox], chosen: &[(u32, f32)]) -> Vec<Removal> {
    let mut stays = vec![false; boxes.len()];
    for &(index, _) in chosen {
        stays[index as usize] = true;
    }
    let mut removals = Vec::new();
    for (index, &bbox) in boxes.iter().enumerate().filter(|(index, _)| !stays[*index]) {
        let mut most: Option<(u32, f32)> = None;
        for &(by, _) in chosen {
            let overlap = iou(boxes[by as usize], bbox);
            if most.is_none_or(|(_, best)| overlap > best) {
                most = Some((by, overlap));
            }
        }
        if let Some((by, iou)) = most {
            removals.push(Removal { removed: index as u32, by, iou });
        }
    }
    removals
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Mode;

    fn config() -> M2detConfig {
        M2detConfig::nano(&["a".to_string(), "b".to_string()])
    }

    fn bar(x: f32, class: u32, score: f32) -> Detection {
        Detection { bbox: BBox::new(x, 0.0, x + 10.0, 10.0), class, score, anchor: Some(3), mask: None }
    }

    #[test]
    fn overlapping_boxes_lose_score_within_their_class() {
        let candidates = vec![bar(2.0, 0, 0.6), bar(0.0, 0, 0.9), bar(2.0, 1, 0.5), bar(0.0, 0, 0.4)];
        let pass = Pass::probed(Mode::Infer, 1);
        let found = select(candidates, &config(), 0, &pass);
        let scores: Vec<f32> = found.iter().map(|d| d.score).collect();
        // IoU of boxes 2 apart: 8 / 12, so 0.6 falls to 0.2; the box with IoU 1 falls to 0 and goes
        assert_eq!(scores.len(), 3);
        for (found, expected) in scores.iter().zip([0.9_f32, 0.5, 0.2]) {
            assert!((found - expected).abs() < 1e-6, "{scores:?}");
        }
        let record = pass.into_traces().remove(0).suppression.expect("a record");
        assert_eq!(record.kept, [0, 2, 1]);
        assert_eq!(record.removals, [Removal { removed: 3, by: 0, iou: 1.0 }]);
        assert!(record.method.contains("Linear"), "{}", record.method);
    }

    #[test]
    fn each_class_and_the_image_have_their_limits() {
        let candidates = || (0..6).map(|i| bar(20.0 * i as f32, i % 2, 0.9 - 0.1 * i as f32)).collect::<Candidates>();
        for soft_nms in [true, false] {
            let few = M2detConfig { soft_nms, keep_per_class: 2, ..config() };
            let pass = Pass::probed(Mode::Infer, 1);
            let found = select(candidates(), &few, 0, &pass);
            assert_eq!(found.iter().map(|d| d.class).collect::<Vec<_>>(), [0, 1, 0, 1]);
            let record = pass.into_traces().remove(0).suppression.expect("a record");
            assert_eq!(record.kept, [0, 1, 2, 3]);
            let fewer = M2detConfig { max_detections: 3, ..few };
            assert_eq!(select(candidates(), &fewer, 0, &Pass::new(Mode::Infer)).len(), 3);
        }
    }

    #[test]
    fn greedy_suppression_drops_what_the_soft_kind_lowers() {
        let hard = M2detConfig { soft_nms: false, ..config() };
        let found = select(vec![bar(2.0, 0, 0.6), bar(0.0, 0, 0.9)], &hard, 0, &Pass::new(Mode::Infer));
        assert_eq!(found.iter().map(|d| d.score).collect::<Vec<_>>(), [0.9]);
    }
}
