//! Multi-scale testing: a picture at several sizes, each also mirrored, merged by box voting or Soft-NMS.
//!
//! The procedure of RefineDet's evaluation (Zhang et al., "Single-Shot Refinement Neural Network", CVPR 2018), which
//! counts a box's last pixel: where boxes are filtered by size and vote, a side is one pixel longer than its ends are
//! apart.

mod plan;

pub use plan::Plan;

use super::input::NetworkInput;
use super::{Detector, Prediction};
use crate::geometry::iou::iou;
use crate::geometry::nms::{Decay, box_voting, order_by_score, soft_nms};
use crate::geometry::{BBox, Detection};
use crate::imaging::picture::Picture;
use crate::imaging::preprocess::{Fit, Preprocess};
use crate::nn::{Mode, Pass};
use crate::trace::StageTime;
use candle_core::Result;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The network's input in one test, pixels.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Extent {
    Square(usize),
    /// The picture's longer side becomes `long` and its shorter side `short`, whatever their ratio is.
    Oblong {
        long: usize,
        short: usize,
    },
}

impl Extent {
    /// Width and height of the input for a picture of this size; a square picture counts as tall.
    fn size(self, width: u32, height: u32) -> (usize, usize) {
        match self {
            Self::Square(side) => (side, side),
            Self::Oblong { long, short } if height < width => (long, short),
            Self::Oblong { long, short } => (short, long),
        }
    }

    /// The detector's own way to fit pictures, at this size.
    fn fit(self, own: Fit, width: u32, height: u32) -> Fit {
        let (width, height) = self.size(width, height);
        let short = width.min(height);
        // the bound on the longer side grows and shrinks with the shorter one
        let bound = |old_short: usize, old_long: usize| (old_long * short).div_ceil(old_short.max(1));
        match own {
            Fit::Stretch { .. } => Fit::Stretch { width, height },
            Fit::Letterbox { fill, .. } => Fit::Letterbox { width, height, fill },
            Fit::ShortestEdge { short: s, long: l, divisor } => Fit::ShortestEdge { short, long: bound(s, l), divisor },
            Fit::ShortestEdgeRounded { short: s, long: l, divisor } => {
                Fit::ShortestEdgeRounded { short, long: bound(s, l), divisor }
            }
            Fit::ShortestEdgeAntialias { short: s, long: l, divisor } => {
                Fit::ShortestEdgeAntialias { short, long: bound(s, l), divisor }
            }
        }
    }
}

/// Which boxes of a test count, by their sides in the picture's pixels: a shrunken picture shows large objects well, an
/// enlarged one small objects.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Keep {
    All,
    /// The longer side is above this.
    LongerAbove(f32),
    /// The shorter side is below this.
    ShorterBelow(f32),
}

impl Keep {
    fn admits(self, bbox: BBox) -> bool {
        let bbox = with_last_pixel(bbox);
        match self {
            Self::All => true,
            Self::LongerAbove(limit) => bbox.width().max(bbox.height()) > limit,
            Self::ShorterBelow(limit) => bbox.width().min(bbox.height()) < limit,
        }
    }
}

/// The box with the pixels that its right and lower ends are counted to lie on.
fn with_last_pixel(bbox: BBox) -> BBox {
    BBox::new(bbox.x0, bbox.y0, bbox.x1 + 1.0, bbox.y1 + 1.0)
}

/// IoU of boxes that hold their last pixels.
fn counted_iou(a: BBox, b: BBox) -> f32 {
    iou(with_last_pixel(a), with_last_pixel(b))
}

/// One test.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MultiScale {
    pub extent: Extent,
    pub keep: Keep,
    /// Whether the mirrored picture is tested too.
    pub flip: bool,
}

impl MultiScale {
    /// A square input, also mirrored.
    pub fn square(side: usize, keep: Keep) -> Self {
        Self { extent: Extent::Square(side), keep, flip: true }
    }
}

/// How the detections of all tests become one list.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Voting {
    /// IoU with the best box left from which a box votes for it.
    pub iou_threshold: f32,
    /// A voter also stays as a detection of its own with score · (1 − IoU) where that is at least this (the reference's
    /// COCO evaluation); `None` lets it go (VOC).
    pub soft_floor: Option<f32>,
    pub max_detections: usize,
}

impl Voting {
    /// The reference's VOC rule.
    pub const VOC: Self = Self { iou_threshold: 0.45, soft_floor: None, max_detections: 500 };
    /// The reference's COCO rule; its confidence threshold is 0.01.
    pub const COCO: Self = Self { iou_threshold: 0.45, soft_floor: Some(0.01), max_detections: 500 };
}

/// Merging by Soft-NMS, class by class: boxes stay where they are and lose score to better ones that they overlap.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SoftSuppression {
    /// IoU above which scores fall.
    pub iou_threshold: f32,
    pub decay: Decay,
    /// A box whose lowered score is below this goes.
    pub floor: f32,
    pub max_detections: usize,
}

/// How the detections of all tests are merged.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Merge {
    Voting(Voting),
    Soft(SoftSuppression),
}

impl Merge {
    /// One list, best first.
    pub fn merged(&self, detections: Vec<Detection>) -> Vec<Detection> {
        match self {
            Self::Voting(voting) => merge(detections, voting),
            Self::Soft(soft) => soften(&detections, soft),
        }
    }
}

/// Detects in `picture` at every one of `scales` and merges. Stage times are sums over the tests; there is no trace.
///
/// # Errors
/// Those of the network, such as an input size that it does not take, or "interrupted on request".
pub fn predict_multiscale(
    detector: &dyn Detector,
    picture: &Picture,
    scales: &[MultiScale],
    merge: &Merge,
) -> Result<Prediction> {
    let pass = Pass::new(Mode::Infer);
    let mirrored = if scales.iter().any(|s| s.flip) { Some(picture.flip_horizontal()) } else { None };
    let mut all = Vec::new();
    for scale in scales {
        all.extend(detect_at(detector, picture, scale, false, &pass)?);
        if let (true, Some(mirrored)) = (scale.flip, &mirrored) {
            all.extend(detect_at(detector, mirrored, scale, true, &pass)?);
        }
    }
    let detections = pass.stage("merge", || Ok(merge.merged(all)))?;
    Ok(Prediction { detections, timings: by_stage(&pass.timings()), trace: None })
}

/// Detections of one test, in pixels of the picture that is not mirrored.
fn detect_at(
    detector: &dyn Detector,
    picture: &Picture,
    scale: &MultiScale,
    mirrored: bool,
    pass: &Pass,
) -> Result<Vec<Detection>> {
    let own = detector.preprocess();
    let fit = scale.extent.fit(own.fit, picture.width, picture.height);
    let preprocess = Preprocess { fit, ..own.clone() };
    let device = detector.params().device();
    let input = pass.stage("preprocess", || NetworkInput::new(&preprocess, picture, device))?;
    let outputs = detector.forward(&input.images, pass)?;
    let found = detector.detect(&outputs, pass)?.pop().unwrap_or_default();
    let (width, height) = (picture.width as f32, picture.height as f32);
    let mut kept = Vec::with_capacity(found.len());
    for detection in found {
        let bbox = input.placement.to_original(detection.bbox).clip(width, height);
        let bbox = if mirrored { bbox.flip_horizontal(width) } else { bbox };
        if scale.keep.admits(bbox) {
            // an anchor's number means nothing outside its own test
            kept.push(Detection { bbox, anchor: None, mask: None, ..detection });
        }
    }
    Ok(kept)
}

/// Times with one entry a stage, in the order of their first appearance.
fn by_stage(timings: &[StageTime]) -> Vec<StageTime> {
    let mut sums: Vec<StageTime> = Vec::new();
    for time in timings {
        match sums.iter_mut().find(|sum| sum.stage == time.stage) {
            Some(sum) => sum.seconds += time.seconds,
            None => sums.push(time.clone()),
        }
    }
    sums
}

/// Box voting, class by class: the best box left and all that overlap it enough become their score-weighted mean, with
/// the best score. Returns the detections best first, at most `max_detections`.
pub fn merge(detections: Vec<Detection>, voting: &Voting) -> Vec<Detection> {
    let mut merged = Vec::new();
    for mut rest in by_class(&detections) {
        while !rest.is_empty() {
            rest = vote(rest, voting, &mut merged);
        }
    }
    best_of(merged, voting.max_detections)
}

/// Soft-NMS over the detections of each class.
fn soften(detections: &[Detection], soft: &SoftSuppression) -> Vec<Detection> {
    let mut merged = Vec::new();
    for members in by_class(detections) {
        let boxes: Vec<BBox> = members.iter().map(|d| d.bbox).collect();
        let scores: Vec<f32> = members.iter().map(|d| d.score).collect();
        for (index, score) in soft_nms(&boxes, &scores, soft.iou_threshold, soft.decay, soft.floor) {
            if let Some(member) = members.get(index as usize) {
                merged.push(Detection { score, ..member.clone() });
            }
        }
    }
    best_of(merged, soft.max_detections)
}

/// The detections of each class, classes in rising order, each class best first.
fn by_class(detections: &[Detection]) -> Vec<Vec<Detection>> {
    let scores: Vec<f32> = detections.iter().map(|d| d.score).collect();
    let mut classes: BTreeMap<u32, Vec<Detection>> = BTreeMap::new();
    for detection in order_by_score(&scores).into_iter().filter_map(|i| detections.get(i as usize)) {
        classes.entry(detection.class).or_default().push(detection.clone());
    }
    classes.into_values().collect()
}

fn best_of(mut detections: Vec<Detection>, count: usize) -> Vec<Detection> {
    detections.sort_by(|a, b| b.score.total_cmp(&a.score));
    detections.truncate(count);
    detections
}

/// Merges the first of `rest` (one class, best first) with its voters into `merged`, and returns those without a vote.
fn vote(mut rest: Vec<Detection>, voting: &Voting, merged: &mut Vec<Detection>) -> Vec<Detection> {
    if rest.is_empty() {
        return rest;
    }
    let best = rest.remove(0);
    let (voters, others): (Vec<Detection>, Vec<Detection>) =
        rest.into_iter().partition(|d| counted_iou(best.bbox, d.bbox) >= voting.iou_threshold);
    if let Some(floor) = voting.soft_floor {
        for voter in &voters {
            let score = voter.score * (1.0 - counted_iou(best.bbox, voter.bbox));
            if score >= floor {
                merged.push(Detection { score, ..voter.clone() });
            }
        }
    }
    let members = || std::iter::once(&best).chain(&voters);
    let boxes: Vec<BBox> = members().map(|d| d.bbox).collect();
    let scores: Vec<f32> = members().map(|d| d.score).collect();
    let classes = vec![best.class; boxes.len()];
    // who votes is settled, so any overlap will do
    let elected = box_voting(&[0], &boxes, &scores, &classes, 0.0);
    let (bbox, score) = elected.first().copied().unwrap_or((best.bbox, best.score));
    merged.push(Detection { bbox, score, ..best });
    others
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::{Arch, Config, Losses, Outputs};
    use crate::geometry::Object;
    use crate::nn::Params;
    use candle_core::{Device, Tensor};

    fn bar(x: f32, class: u32, score: f32) -> Detection {
        Detection { bbox: BBox::new(x, 0.0, x + 10.0, 10.0), class, score, anchor: None, mask: None }
    }

    #[test]
    fn overlapping_boxes_of_a_class_become_their_weighted_mean() {
        // IoU of boxes of 11 pixels d apart is (11 − d) / (11 + d): 2 apart 0.692, 6 apart 0.294, 4 apart 0.467
        let found = vec![bar(2.0, 0, 0.2), bar(0.0, 0, 0.6), bar(6.0, 0, 0.3), bar(0.0, 1, 0.5), bar(30.0, 0, 0.1)];
        let merged = merge(found, &Voting::VOC);
        let scores: Vec<f32> = merged.iter().map(|d| d.score).collect();
        assert_eq!(scores, [0.6, 0.5, 0.3, 0.1]);
        // x0 = (0.6 · 0 + 0.2 · 2) / 0.8; the box 6 away keeps its place: its neighbour at 2 had voted already
        assert!((merged[0].bbox.x0 - 0.5).abs() < 1e-6 && (merged[0].bbox.x1 - 10.5).abs() < 1e-6);
        assert_eq!((merged[1].class, merged[1].bbox), (1, bar(0.0, 1, 0.5).bbox));
        assert_eq!(merged[2].bbox, bar(6.0, 0, 0.3).bbox);
        assert_eq!(merge(merged, &Voting { max_detections: 2, ..Voting::VOC }).len(), 2);
    }

    #[test]
    fn soft_voters_stay_with_a_lowered_score() {
        let found = vec![bar(0.0, 0, 0.9), bar(2.0, 0, 0.6), bar(0.0, 0, 0.5)];
        let merged = merge(found, &Voting::COCO);
        // 0.6 · (1 − 9 / 13) stays; the third box has IoU 1 and goes
        let scores: Vec<f32> = merged.iter().map(|d| d.score).collect();
        assert_eq!(scores.len(), 2);
        assert!((scores[0] - 0.9).abs() < 1e-6 && (scores[1] - 2.4 / 13.0).abs() < 1e-6, "{scores:?}");
        assert_eq!(merged[1].bbox, bar(2.0, 0, 0.6).bbox);
        // (0.9 · 0 + 0.6 · 2 + 0.5 · 0) / 2
        assert!((merged[0].bbox.x0 - 0.6).abs() < 1e-6);
        assert!(merge(Vec::new(), &Voting::COCO).is_empty());
    }

    #[test]
    fn the_last_pixel_lets_boxes_vote_that_are_just_too_far_apart_without_it() {
        // 4 apart: 7 / 15 with it, 6 / 14 without; x0 = 0.2 · 4 / 0.8
        let merged = merge(vec![bar(0.0, 0, 0.6), bar(4.0, 0, 0.2)], &Voting::VOC);
        assert!(merged.len() == 1 && (merged[0].bbox.x0 - 1.0).abs() < 1e-6, "{merged:?}");
    }

    #[test]
    fn soft_suppression_keeps_places_and_lowers_scores() {
        let soft = SoftSuppression { iou_threshold: 0.3, decay: Decay::Linear, floor: 0.01, max_detections: 3 };
        let found = vec![bar(0.0, 0, 0.9), bar(2.0, 0, 0.6), bar(0.0, 0, 0.5), bar(0.0, 1, 0.4), bar(30.0, 0, 0.1)];
        let merged = Merge::Soft(soft).merged(found);
        // 0.6 · (1 − 8 / 12) = 0.2; the third box has IoU 1 and goes; the last is beyond the limit
        let kept: Vec<(u32, f32)> = merged.iter().map(|d| (d.class, d.bbox.x0)).collect();
        assert_eq!(kept, [(0, 0.0), (1, 0.0), (0, 2.0)]);
        assert!((merged[2].score - 0.2).abs() < 1e-6);
    }

    #[test]
    fn boxes_without_an_area_end_too() {
        // each is one pixel
        let flat = |x: f32| Detection { bbox: BBox::new(x, 3.0, x, 3.0), score: 0.5, ..Detection::default() };
        assert_eq!(merge(vec![flat(3.0), flat(3.0), flat(4.0)], &Voting::VOC).len(), 2);
        let broken = Detection { bbox: BBox::new(f32::NAN, 0.0, 1.0, 1.0), score: 0.5, ..Detection::default() };
        assert_eq!(merge(vec![broken.clone(), broken], &Voting::VOC).len(), 2);
    }

    #[test]
    fn sizes_follow_the_longer_side_and_the_detectors_own_fit() {
        let oblong = Extent::Oblong { long: 320, short: 192 };
        assert_eq!(oblong.size(40, 30), (320, 192));
        assert_eq!(oblong.size(30, 40), (192, 320));
        assert_eq!(oblong.size(30, 30), (192, 320));
        let stretch = oblong.fit(Fit::Stretch { width: 1, height: 1 }, 40, 30);
        assert_eq!(stretch, Fit::Stretch { width: 320, height: 192 });
        let edge = Extent::Square(400).fit(Fit::ShortestEdge { short: 800, long: 1333, divisor: 32 }, 40, 30);
        assert_eq!(edge, Fit::ShortestEdge { short: 400, long: 667, divisor: 32 });
    }

    #[test]
    fn size_rules_look_at_the_right_side() {
        // 41 pixels by 21, the last ones counted
        let bbox = BBox::new(0.0, 0.0, 40.0, 20.0);
        assert!(Keep::All.admits(bbox));
        assert!(Keep::LongerAbove(40.0).admits(bbox) && !Keep::LongerAbove(41.0).admits(bbox));
        assert!(Keep::ShorterBelow(22.0).admits(bbox) && !Keep::ShorterBelow(21.0).admits(bbox));
    }

    /// Finds the left half of whatever it sees, as class 0, with a score of the input's width / 1000.
    struct LeftHalf {
        config: Config,
        params: Params,
        preprocess: Preprocess,
        classes: Vec<String>,
    }

    impl Detector for LeftHalf {
        fn config(&self) -> &Config {
            &self.config
        }

        fn params(&self) -> &Params {
            &self.params
        }

        fn preprocess(&self) -> &Preprocess {
            &self.preprocess
        }

        fn classes(&self) -> &[String] {
            &self.classes
        }

        fn forward(&self, images: &Tensor, _: &Pass) -> Result<Outputs> {
            let (_, _, height, width) = images.dims4()?;
            Ok(Outputs { tensors: Vec::new(), maps: Vec::new(), input: (height, width) })
        }

        fn losses(&self, _: &Outputs, _: &[Vec<Object>], _: &Pass) -> Result<Losses> {
            Ok(Losses::default())
        }

        fn detect(&self, outputs: &Outputs, _: &Pass) -> Result<Vec<Vec<Detection>>> {
            let (height, width) = (outputs.input.0 as f32, outputs.input.1 as f32);
            let bbox = BBox::new(0.0, 0.0, width / 2.0, height);
            Ok(vec![vec![Detection { bbox, score: width / 1000.0, anchor: Some(7), ..Detection::default() }]])
        }

        fn layouts(&self) -> &'static [&'static str] {
            &[]
        }
    }

    #[test]
    fn tests_come_back_to_the_pictures_pixels_and_mirrored_ones_mirror_back() -> Result<()> {
        let classes = vec!["a".to_string()];
        let config = Config::new(Arch::SsdNano, &classes);
        let preprocess = config.preprocess().clone();
        let detector = LeftHalf { config, params: Params::new(&Device::Cpu, 0), preprocess, classes };
        let picture = Picture::new(40, 20, [1, 2, 3]);
        let scales = [
            MultiScale::square(16, Keep::All),
            MultiScale::square(32, Keep::ShorterBelow(5.0)),
            MultiScale { extent: Extent::Oblong { long: 64, short: 16 }, keep: Keep::LongerAbove(5.0), flip: false },
        ];
        let found = predict_multiscale(&detector, &picture, &scales, &Merge::Voting(Voting::VOC))?;
        assert_eq!(found.detections.len(), 2);
        // the left half from the sides 16 and 64, the right half from the mirrored 16; side 32 shows nothing small
        let (left, right) = (&found.detections[0], &found.detections[1]);
        assert_eq!(left.bbox, BBox::new(0.0, 0.0, 20.0, 20.0));
        assert_eq!(right.bbox, BBox::new(20.0, 0.0, 40.0, 20.0));
        assert!((left.score - 0.064).abs() < 1e-6 && (right.score - 0.016).abs() < 1e-6);
        assert_eq!(left.anchor, None);
        let stages: Vec<&str> = found.timings.iter().map(|t| t.stage.as_str()).collect();
        assert_eq!(stages, ["preprocess", "merge"]);
        Ok(())
    }
}
