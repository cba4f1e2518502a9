//! Suppression of stored candidates by any method, as a list of removals that can be replayed one by one.

use super::iou::iou;
use super::nms::{Decay, class_nms, soft_nms};
use super::{BBox, Detection};

/// How overlapping candidates are thinned out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// Greedy, class by class.
    #[default]
    Greedy,
    /// Greedy, whatever the classes.
    ClassAgnostic,
    /// Soft-NMS: times 1 − IoU above the threshold.
    SoftLinear,
    /// Soft-NMS: times exp(−IoU² / σ) everywhere.
    SoftGaussian,
}

impl Method {
    pub const ALL: [Self; 4] = [Self::Greedy, Self::ClassAgnostic, Self::SoftLinear, Self::SoftGaussian];

    pub fn name(self) -> &'static str {
        match self {
            Self::Greedy => "greedy, class by class",
            Self::ClassAgnostic => "greedy, class-agnostic",
            Self::SoftLinear => "soft, linear",
            Self::SoftGaussian => "soft, Gaussian",
        }
    }

    pub fn is_soft(self) -> bool {
        matches!(self, Self::SoftLinear | Self::SoftGaussian)
    }
}

/// Everything that decides the outcome.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    pub method: Method,
    pub iou_threshold: f32,
    /// Candidates at or below this score do not take part.
    pub score_threshold: f32,
    /// σ of the Gaussian decay.
    pub sigma: f32,
    /// Soft suppression drops a box whose lowered score is below this.
    pub floor: f32,
    pub max_detections: usize,
}

/// What became of the candidates. Indices are those of the candidates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replay {
    /// Survivors with their scores, best first.
    pub kept: Vec<(u32, f32)>,
    /// (removed, by, IoU), by falling score of the removed box. Soft suppression has many hands in one removal: `by`
    /// is the survivor or earlier choice of the class that overlaps it most.
    pub removals: Vec<(u32, u32, f32)>,
    /// Survivors beyond the limit on detections, best first.
    pub cut: Vec<u32>,
}

/// Runs `rules` over `candidates`.
pub fn replay(candidates: &[Detection], rules: &Rules) -> Replay {
    let taking_part = candidates.iter().enumerate().filter(|(_, c)| c.score > rules.score_threshold);
    let members: Vec<u32> = taking_part.map(|(index, _)| index as u32).collect();
    let chosen = |of: &[u32]| -> (Vec<BBox>, Vec<f32>, Vec<u32>) {
        let mut columns: (Vec<BBox>, Vec<f32>, Vec<u32>) = Default::default();
        for candidate in of.iter().filter_map(|&index| candidates.get(index as usize)) {
            columns.0.push(candidate.bbox);
            columns.1.push(candidate.score);
            columns.2.push(candidate.class);
        }
        columns
    };
    let decay = match rules.method {
        Method::Greedy | Method::ClassAgnostic => {
            let (boxes, scores, mut classes) = chosen(&members);
            if rules.method == Method::ClassAgnostic {
                classes.fill(0);
            }
            let mut removals = Vec::new();
            let kept = class_nms(&boxes, &scores, &classes, rules.iou_threshold, Some(&mut removals));
            let kept = kept.iter().map(|&at| (members[at as usize], scores[at as usize])).collect();
            let name = |at: u32| members[at as usize];
            let removals = removals.into_iter().map(|(removed, by, iou)| (name(removed), name(by), iou)).collect();
            return limited(kept, removals, rules.max_detections);
        }
        Method::SoftLinear => Decay::Linear,
        Method::SoftGaussian => Decay::Gaussian { sigma: rules.sigma.max(1e-6) },
    };
    let mut classes = chosen(&members).2;
    classes.sort_unstable();
    classes.dedup();
    let mut kept: Vec<(u32, f32)> = Vec::new();
    let mut removals: Vec<(u32, u32, f32)> = Vec::new();
    for class in classes {
        let is_own = |index: &u32| candidates.get(*index as usize).is_some_and(|c| c.class == class);
        let own: Vec<u32> = members.iter().copied().filter(is_own).collect();
        let (boxes, scores, _) = chosen(&own);
        let selected = soft_nms(&boxes, &scores, rules.iou_threshold, decay, rules.floor);
        removals.extend(removed(&boxes, &selected).into_iter().map(|(r, by, iou)| {
            let name = |at: u32| own[at as usize];
            (name(r), name(by), iou)
        }));
        kept.extend(selected.into_iter().map(|(at, score)| (own[at as usize], score)));
    }
    kept.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let score = |index: u32| candidates.get(index as usize).map_or(0.0, |c| c.score);
    removals.sort_by(|a, b| score(b.0).total_cmp(&score(a.0)).then(a.0.cmp(&b.0)));
    limited(kept, removals, rules.max_detections)
}

fn limited(mut kept: Vec<(u32, f32)>, removals: Vec<(u32, u32, f32)>, limit: usize) -> Replay {
    let cut = kept.split_off(limit.min(kept.len())).into_iter().map(|(index, _)| index).collect();
    Replay { kept, removals, cut }
}

/// For each box of one class that soft suppression did not select, by falling score, the selected one that overlaps it
/// most. One that overlaps none fell below the floor by itself and stays unnamed.
fn removed(boxes: &[BBox], selected: &[(u32, f32)]) -> Vec<(u32, u32, f32)> {
    let mut stays = vec![false; boxes.len()];
    for &(at, _) in selected {
        stays[at as usize] = true;
    }
    let gone = (0..boxes.len()).filter(|&at| !stays[at]);
    gone.filter_map(|at| {
        let overlaps = selected.iter().map(|&(by, _)| (by, iou(boxes[by as usize], boxes[at])));
        let most = overlaps.fold(None, |best: Option<(u32, f32)>, one| match best {
            Some(best) if best.1 >= one.1 => Some(best),
            _ => Some(one),
        });
        most.filter(|(_, iou)| *iou > 0.0).map(|(by, iou)| (at as u32, by, iou))
    })
    .collect()
}

/// What a replay gives and the model did not, and the other way round: indices of the candidates.
pub fn difference(replay: &Replay, model: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let mine: std::collections::HashSet<u32> = replay.kept.iter().map(|(index, _)| *index).collect();
    let others: std::collections::HashSet<u32> = model.iter().copied().collect();
    let added = replay.kept.iter().map(|(index, _)| *index).filter(|index| !others.contains(index)).collect();
    let lost = model.iter().copied().filter(|index| !mine.contains(index)).collect();
    (added, lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(x: f32, class: u32, score: f32) -> Detection {
        Detection { bbox: BBox::new(x, 0.0, x + 10.0, 10.0), class, score, ..Detection::default() }
    }

    /// Two of class 0 that overlap by 9 / 11, one of class 1 on the first, one of class 0 far away, one too faint.
    fn candidates() -> Vec<Detection> {
        vec![
            candidate(0.0, 0, 0.9),
            candidate(0.0, 1, 0.8),
            candidate(1.0, 0, 0.7),
            candidate(50.0, 0, 0.6),
            candidate(80.0, 0, 0.05),
        ]
    }

    fn rules(method: Method) -> Rules {
        Rules { method, iou_threshold: 0.5, score_threshold: 0.1, sigma: 0.5, floor: 0.2, max_detections: 100 }
    }

    fn kept(replay: &Replay) -> Vec<u32> {
        replay.kept.iter().map(|(index, _)| *index).collect()
    }

    #[test]
    fn greedy_with_and_without_classes() {
        let greedy = replay(&candidates(), &rules(Method::Greedy));
        assert_eq!(kept(&greedy), [0, 1, 3]);
        assert_eq!((greedy.removals[0].0, greedy.removals[0].1), (2, 0));
        let agnostic = replay(&candidates(), &rules(Method::ClassAgnostic));
        assert_eq!(kept(&agnostic), [0, 3]);
        assert_eq!(agnostic.removals.iter().map(|r| (r.0, r.1)).collect::<Vec<_>>(), [(1, 0), (2, 0)]);
        assert_eq!(difference(&agnostic, &[0, 1, 3]), (vec![], vec![1]));
    }

    #[test]
    fn a_limit_cuts_the_last() {
        let replay = replay(&candidates(), &Rules { max_detections: 2, ..rules(Method::Greedy) });
        assert_eq!((kept(&replay), replay.cut), (vec![0, 1], vec![3]));
    }

    #[test]
    fn soft_suppression_lowers_scores_and_names_who_overlaps_most() {
        // 0.7 · (1 − 9 / 11) = 0.127 is below the floor of 0.2
        let linear = replay(&candidates(), &rules(Method::SoftLinear));
        assert_eq!(kept(&linear), [0, 1, 3]);
        assert_eq!((linear.removals[0].0, linear.removals[0].1), (2, 0));
        let kinder = replay(&candidates(), &Rules { floor: 0.1, ..rules(Method::SoftLinear) });
        assert_eq!(kept(&kinder), [0, 1, 3, 2]);
        assert!((kinder.kept[3].1 - 0.7 * 2.0 / 11.0).abs() < 1e-6);
        // 0.7 · exp(−(9 / 11)² / 0.5) = 0.183
        let gaussian = replay(&candidates(), &Rules { floor: 0.1, ..rules(Method::SoftGaussian) });
        let lowered = gaussian.kept.iter().find(|(index, _)| *index == 2).unwrap().1;
        assert!((lowered - 0.7 * (-(9.0_f32 / 11.0).powi(2) / 0.5).exp()).abs() < 1e-6);
    }

    #[test]
    fn nothing_in_is_nothing_out() {
        for method in Method::ALL {
            assert_eq!(replay(&[], &rules(method)), Replay::default());
        }
    }
}
