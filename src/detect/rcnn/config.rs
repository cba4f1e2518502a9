//! Settings of the two-stage detectors. What was published, and the narrow ones, stand in `published`.

use crate::detect::Arch;
use crate::geometry::anchors::AnchorSpec;
use crate::geometry::coder::BoxCoder;
use crate::imaging::preprocess::Preprocess;
use crate::nn::backbone::resnet::ResNetConfig;
use crate::nn::neck::fpn::FpnConfig;
use crate::ops::roi;
use crate::ops::rois::Columns;
use serde::{Deserialize, Serialize};

/// Where the box heads' background class stands. It belongs to the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Background {
    /// Column 0, with regression rows and a mask channel of its own that nothing reads (torchvision).
    First,
    /// The last column; regression and masks have none (detectron2, mmdet).
    Last,
}

/// What the RPN and the RoIs read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trunk {
    /// A pyramid on C2 to C5; the heads are fully connected.
    #[default]
    Pyramid,
    /// C4 alone. The backbone's last stage looks at each RoI, and the heads read its mean over the cells (He et al., "Deep
    /// Residual Learning", appendix A; detectron2's `C4`).
    C4,
}

/// How a RoI's features are brought to one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// RoIAlign without the half-cell shift, RoIs at least one cell wide (torchvision's models).
    Align,
    /// RoIAlign shifted by half a cell (detectron2, mmdet).
    AlignShifted,
    /// RoIPool: the maximum of whole cells (Fast R-CNN).
    Max,
}

/// Where the guard against rounding stands in k = ⌊4 + log₂(√area / canonical)⌋ (FPN paper, equation 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LevelRule {
    /// Added to the logarithm (torchvision).
    AfterLogarithm,
    /// Added to the ratio of the sides (mmdet).
    BeforeLogarithm,
}

/// How many heads there are, and which boxes each of them works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flow {
    /// The first stage's head alone, once (Fast, Faster and Mask R-CNN).
    Single,
    /// The first stage's head alone; when detecting it looks `refinements` times, each time at the boxes that it
    /// regressed before (iterative box regression, the first baseline of the Cascade R-CNN paper).
    Iterative,
    /// A head for each stage, on the boxes that the head before regressed (Cascade R-CNN).
    Cascade,
    /// A classifier for each of `integral_thresholds` on the proposals, their probabilities averaged, with the first
    /// one's boxes; otherwise all follow the first stage (the integral loss, the paper's second baseline).
    Integral,
}

/// Where the RoIs of training come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoiSource {
    /// The RPN.
    Rpn,
    /// The objects, moved and stretched at random, and boxes anywhere: what a head can learn whatever the RPN finds
    /// (Fast R-CNN). The RPN learns beside it.
    JitteredObjects,
}

/// How the scores of several heads become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScoreMerge {
    /// Softmax of the mean logits, each head on its own RoIs (mmdet).
    Logits,
    /// Mean of the softmaxes, each head on its own RoIs (detectron2).
    Probabilities,
    /// Mean of the softmaxes of all heads on the last head's RoIs (the Caffe original).
    LastRois,
    /// The last head alone.
    LastHead,
}

/// What a mask head learns inside a RoI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MaskTargets {
    /// The share of each cell that the object covers, by RoIAlign without a shift (torchvision).
    Covered,
    /// 1 where a shifted RoIAlign covers at least half of a cell (mmdet).
    Majority,
}

/// How a mask is laid over the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Paste {
    /// Padded by a cell and stretched over the enlarged box cut to whole pixels; inside above the threshold
    /// (torchvision).
    WholePixels,
    /// Read at every pixel's centre with the box as it is; inside from the threshold on (detectron2, mmdet).
    PixelCenters,
}

/// The region proposal network and what becomes of its proposals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RpnConfig {
    /// 3×3 convolutions before the two 1×1 ones.
    pub convolutions: usize,
    /// Pixels between the cells of each level, finest first.
    pub strides: Vec<f32>,
    /// Take the strides from the input's and the maps' sizes instead, rounded down (torchvision).
    pub integer_strides: bool,
    /// IoU from which an anchor is positive.
    pub anchor_positive: f32,
    /// IoU below which an anchor is background; between the two it is ignored.
    pub anchor_negative: f32,
    /// An object's best anchors are positive too from this IoU on (mmdet's `min_pos_iou`); above 1 turns that off.
    pub forced_minimum: f32,
    /// Ignore anchors that cross the picture's border (mmdet's Cascade R-CNN).
    pub ignore_crossing: bool,
    /// Anchors per image in the loss.
    pub anchor_samples: usize,
    /// Most of them that may be positive, as a share.
    pub anchor_positive_share: f32,
    /// Where the smooth L1 of the anchors turns from quadratic to linear.
    pub anchor_smooth_l1_beta: f32,
    /// Best proposals of each level before suppression, and of the image after it, when training.
    pub train_per_level: usize,
    pub train_proposals: usize,
    /// The same when detecting.
    pub test_per_level: usize,
    pub test_proposals: usize,
    /// IoU above which the lower-scored of two proposals of a level goes.
    pub proposal_nms: f32,
    /// Proposals with a shorter side go, pixels.
    pub proposal_min_size: f32,
    pub anchors: AnchorSpec,
}

/// The mask branch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MaskConfig {
    /// Cells of a RoI on each side; the mask has twice as many.
    pub mask_pooled: usize,
    pub mask_convolutions: usize,
    /// A batch norm behind each of them instead of a bias (torchvision's second version).
    #[serde(default)]
    pub mask_norm: bool,
    pub mask_width: usize,
    /// A mask head for each stage, their probabilities averaged (mmdet), or one for all (detectron2).
    pub mask_per_stage: bool,
    pub mask_targets: MaskTargets,
    pub paste: Paste,
    pub mask_threshold: f32,
}

/// One box head.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageConfig {
    /// IoU from which a RoI is positive; below it is background.
    pub positive_iou: f32,
    /// Deviations of the box code.
    pub std: [f32; 4],
    /// Weight of the head's losses.
    pub loss_weight: f32,
}

/// Everything that defines a two-stage detector but its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RcnnConfig {
    pub arch: Arch,
    /// Height and width of a typical input, pixels.
    pub input: (usize, usize),
    pub background: Background,
    /// One regressed box for all classes instead of one each.
    pub class_agnostic: bool,
    /// Detections at or below this score are dropped.
    pub score_threshold: f32,
    /// IoU above which the lower-scored box of a class is suppressed.
    pub nms_threshold: f32,
    pub max_detections: usize,
    /// Detections with a shorter side are dropped, pixels of the input.
    pub detection_min_size: f32,
    pub flow: Flow,
    /// Later stages assign and sample anew, with the objects among the RoIs (mmdet); otherwise they keep all RoIs of
    /// the first (detectron2).
    pub resample: bool,
    /// Looks of the one head when boxes are refined iteratively.
    pub refinements: usize,
    /// How the heads' scores become one; the classifiers of the integral loss are averaged whatever stands here.
    pub score_merge: ScoreMerge,
    /// IoU from which a RoI is positive, for each classifier of the integral loss.
    pub integral_thresholds: Vec<f32>,
    /// Divide box codes by each stage's deviations; otherwise they are learnt as they are.
    pub normalize_deltas: bool,
    /// Factor on the gradient from the heads to the pyramid (detectron2's Cascade: ⅓).
    pub pooled_gradient: f32,
    #[serde(default)]
    pub trunk: Trunk,
    /// 3×3 convolutions with batch norm before the one fully connected layer of a head (torchvision's second version has
    /// four). Without any there are two such layers.
    #[serde(default)]
    pub head_convolutions: usize,
    /// Width of the heads' fully connected layers.
    pub head_width: usize,
    pub pooling: Pooling,
    /// Bilinear samples of a bin along each axis; 0 for as many as keep them a cell apart.
    pub sampling_ratio: usize,
    /// Cells of a RoI on each side.
    pub pooled: usize,
    /// Levels that RoIs read, from the finest.
    pub roi_levels: usize,
    /// A square RoI of this side reads the third level, pixels; twice the side is one level coarser.
    pub canonical_size: f32,
    pub level_rule: LevelRule,
    /// RoIs per image in the loss.
    pub roi_samples: usize,
    /// Most of them that may be positive, as a share.
    pub roi_positive_share: f32,
    /// Objects join the proposals when training.
    pub objects_as_rois: bool,
    pub roi_source: RoiSource,
    /// RoIs of an image that come from jittered objects.
    pub jittered_rois: usize,
    /// How far a jittered object moves and by how much its sides change, as a share of them.
    pub jitter: f32,
    /// Where the smooth L1 of the RoIs turns from quadratic to linear; 0 is L1.
    pub roi_smooth_l1_beta: f32,
    /// Class names, background excluded.
    pub classes: Vec<String>,
    pub backbone: ResNetConfig,
    pub neck: FpnConfig,
    pub rpn: RpnConfig,
    /// None for a detector of boxes alone.
    pub mask: Option<MaskConfig>,
    pub preprocess: Preprocess,
    /// The stages of a cascade. Every other flow knows the first alone.
    pub stages: Vec<StageConfig>,
}

/// Most RoIs that are made from the objects of an image.
const MAX_JITTERED: usize = 100_000;

/// The first stage of every detector (torchvision's weights 10, 10, 5, 5).
const FIRST: StageConfig = StageConfig { positive_iou: 0.5, std: BoxCoder::SSD.std, loss_weight: 1.0 };

impl RcnnConfig {
    /// Columns of the classifier.
    pub fn logits(&self) -> usize {
        self.classes.len() + 1
    }

    /// The classifier's column of the background.
    pub fn background_column(&self) -> usize {
        match self.background {
            Background::First => 0,
            Background::Last => self.classes.len(),
        }
    }

    /// The classifier's column of a class, and its channel among the masks.
    pub fn column(&self, class: usize) -> usize {
        match self.background {
            Background::First => class + 1,
            Background::Last => class,
        }
    }

    /// Channels of the masks.
    pub fn mask_channels(&self) -> usize {
        match self.background {
            Background::First => self.classes.len() + 1,
            Background::Last => self.classes.len(),
        }
    }

    /// Boxes that a head regresses for each RoI.
    pub fn regressed(&self) -> usize {
        if self.class_agnostic { 1 } else { self.mask_channels() }
    }

    /// Which of them is meant for a class.
    pub fn regressed_box(&self, class: usize) -> usize {
        if self.class_agnostic { 0 } else { self.column(class) }
    }

    /// What the columns of the box heads stand for.
    pub(super) fn columns(&self) -> Columns {
        Columns {
            classes: self.classes.len(),
            first: self.column(0),
            background: self.background_column(),
            regressed: self.regressed(),
            agnostic: self.class_agnostic,
        }
    }

    /// Which level a RoI reads.
    pub(super) fn levels_of_rois(&self) -> roi::LevelRule {
        roi::LevelRule {
            before_logarithm: self.level_rule == LevelRule::BeforeLogarithm,
            canonical_size: self.canonical_size,
            levels: self.roi_levels,
        }
    }

    /// Maps that the RPN reads.
    pub fn levels(&self) -> usize {
        match self.trunk {
            Trunk::Pyramid => 4 + self.neck.extra.count(),
            Trunk::C4 => 1,
        }
    }

    /// Channels of those maps.
    pub fn map_channels(&self) -> usize {
        match self.trunk {
            Trunk::Pyramid => self.neck.channels,
            Trunk::C4 => self.backbone.channels()[2],
        }
    }

    /// Heads of the network.
    pub fn heads(&self) -> usize {
        match self.flow {
            Flow::Single | Flow::Iterative => 1,
            Flow::Cascade => self.stages.len(),
            Flow::Integral => self.integral_thresholds.len(),
        }
    }

    /// Threshold, deviations and weight of the head `stage`.
    pub fn stage(&self, stage: usize) -> StageConfig {
        let first = self.stages.first().copied().unwrap_or(FIRST);
        match self.flow {
            Flow::Single | Flow::Iterative => first,
            Flow::Cascade => self.stages.get(stage).copied().unwrap_or(first),
            Flow::Integral => {
                let positive_iou = self.integral_thresholds.get(stage).copied().unwrap_or(first.positive_iou);
                StageConfig { positive_iou, ..first }
            }
        }
    }

    /// The box code of the head `stage`, with the limit on growth that all references share.
    pub fn coder(&self, stage: usize) -> BoxCoder {
        let std = if self.normalize_deltas { self.stage(stage).std } else { BoxCoder::RETINA.std };
        BoxCoder { std, ..BoxCoder::RETINA }
    }

    /// Looks at RoIs in a row when detecting.
    pub fn steps(&self) -> usize {
        if self.flow == Flow::Iterative { self.refinements } else { self.heads() }
    }

    /// The head that makes look `step`, both from 0.
    pub fn head_of(&self, step: usize) -> usize {
        step.min(self.heads().saturating_sub(1))
    }

    /// Whether there are several heads, whose numbers are then part of the names of parameters and losses.
    pub fn is_cascade(&self) -> bool {
        self.heads() > 1
    }

    /// Why these settings make no network.
    ///
    /// # Errors
    /// Lists that disagree in length, or a size of 0.
    pub fn check(&self) -> candle_core::Result<()> {
        let levels = self.levels();
        if self.trunk == Trunk::C4 && (self.mask.is_some() || self.head_convolutions > 0) {
            candle_core::bail!("on C4 there is neither a mask branch nor a box head with convolutions");
        }
        let (anchors, strides) = (&self.rpn.anchors, &self.rpn.strides);
        if anchors.sizes.len() != levels || strides.len() != levels {
            candle_core::bail!(
                "{levels} levels need as many anchor sizes and strides, not {} and {}",
                anchors.sizes.len(),
                strides.len()
            );
        }
        let per_cell = anchors.per_cell(0);
        if per_cell == 0 || (1..levels).any(|level| anchors.per_cell(level) != per_cell) {
            candle_core::bail!("one RPN head for all levels needs as many anchors a cell on each, and at least one");
        }
        if strides.iter().any(|&stride| !stride.is_finite() || stride <= 0.0) {
            candle_core::bail!("strides must be above 0, not {strides:?}");
        }
        if !(1..=levels).contains(&self.roi_levels) {
            candle_core::bail!("RoIs can read 1 to {levels} levels, not {}", self.roi_levels);
        }
        if self.stages.is_empty() || self.heads() == 0 || self.steps() == 0 {
            candle_core::bail!("at least one stage, one head and one refinement are needed");
        }
        if !self.jitter.is_finite() || self.jitter < 0.0 || self.jittered_rois > MAX_JITTERED {
            candle_core::bail!(
                "jittered objects need a finite share and at most {MAX_JITTERED} RoIs, not {} and {}",
                self.jitter,
                self.jittered_rois
            );
        }
        let sides = [self.pooled, self.head_width, self.classes.len(), self.mask.map_or(1, |mask| mask.mask_pooled)];
        if sides.contains(&0) || self.mask.is_some_and(|mask| mask.mask_width == 0) {
            candle_core::bail!("pooled sides, head widths and the number of classes must be above 0");
        }
        let positive = |value: f32| value.is_finite() && value > 0.0;
        let mut stds = self.stages.iter().flat_map(|stage| stage.std);
        if !positive(self.canonical_size) || !stds.all(positive) {
            candle_core::bail!("the canonical size and the deviations of the box code must be above 0");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|k| format!("class {k}")).collect()
    }

    #[test]
    fn settings_that_make_no_network_are_errors() {
        let faster = RcnnConfig::faster(&names(3));
        assert!(faster.check().is_ok());
        assert!(RcnnConfig { stages: Vec::new(), ..faster.clone() }.check().is_err());
        assert!(RcnnConfig { roi_levels: 6, ..faster.clone() }.check().is_err());
        assert!(RcnnConfig { flow: Flow::Iterative, refinements: 0, ..faster.clone() }.check().is_err());
        let thresholdless = RcnnConfig { flow: Flow::Integral, integral_thresholds: Vec::new(), ..faster.clone() };
        assert!(thresholdless.check().is_err());
        assert!(RcnnConfig { jitter: f32::NAN, ..faster.clone() }.check().is_err());
        assert!(RcnnConfig { canonical_size: 0.0, ..faster.clone() }.check().is_err());
        let short = RpnConfig { strides: vec![4.0; 4], ..faster.rpn.clone() };
        assert!(RcnnConfig { rpn: short, ..faster }.check().is_err());
        let c4 = RcnnConfig::c4(&names(3));
        assert_eq!((c4.levels(), c4.map_channels(), c4.check().is_ok()), (1, 1024, true));
        assert!(RcnnConfig { mask: RcnnConfig::mask(&names(3)).mask, ..c4.clone() }.check().is_err());
        assert!(RcnnConfig { trunk: Trunk::Pyramid, ..c4 }.check().is_err());
    }

    #[test]
    fn classes_find_their_columns_in_both_orders() {
        let first = RcnnConfig::faster(&names(3));
        assert_eq!((first.logits(), first.background_column(), first.column(2)), (4, 0, 3));
        assert_eq!((first.regressed(), first.regressed_box(2), first.mask_channels()), (4, 3, 4));
        let last = RcnnConfig::cascade(&names(3));
        assert_eq!((last.logits(), last.background_column(), last.column(2)), (4, 3, 2));
        assert_eq!((last.regressed(), last.regressed_box(2), last.mask_channels()), (1, 0, 3));
        let specific = RcnnConfig { class_agnostic: false, ..last };
        assert_eq!((specific.regressed(), specific.regressed_box(2)), (3, 2));
    }

    #[test]
    fn later_stages_have_finer_codes_and_each_baseline_is_one_field_away() {
        let cascade = RcnnConfig::cascade(&names(1));
        assert_eq!(cascade.coder(1).std, [0.05, 0.05, 0.1, 0.1]);
        assert_eq!(cascade.coder(0).max_log, BoxCoder::SSD.max_log);
        assert_eq!([0, 1, 2, 5].map(|step| cascade.head_of(step)), [0, 1, 2, 2]);
        assert!(cascade.is_cascade() && !RcnnConfig::faster(&names(1)).is_cascade());
        let of = |flow: Flow| {
            let config = RcnnConfig { flow, ..cascade.clone() };
            let last = config.stage(config.heads() - 1);
            (config.heads(), config.steps(), config.head_of(2), last.positive_iou, config.coder(1).std[0])
        };
        assert_eq!(of(Flow::Single), (1, 1, 0, 0.5, 0.1));
        assert_eq!(of(Flow::Iterative), (1, 3, 0, 0.5, 0.1));
        assert_eq!(of(Flow::Cascade), (3, 3, 2, 0.7, 0.05));
        assert_eq!(of(Flow::Integral), (6, 6, 2, 0.75, 0.1));
        let plain = RcnnConfig { normalize_deltas: false, ..cascade };
        assert_eq!(plain.coder(2).std, [1.0; 4]);
    }
}
