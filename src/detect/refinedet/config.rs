//! RefineDet's settings: the published 320 and 512 networks on VGG-16 and ResNet-101 and a narrow one for two CPU cores.

use crate::detect::Arch;
use crate::detect::multiscale::{Extent, Keep, MultiScale};
use crate::geometry::priors::{PriorClip, PriorSpec};
use crate::imaging::preprocess::{ChannelOrder, Fit, Preprocess};
use crate::nn::backbone::resnet::{Depth, Norm, ResNetConfig, StrideStyle};
use crate::nn::backbone::vgg::Widths;
use serde::{Deserialize, Serialize};

/// What the anchors that the first stage calls background with near certainty lose in the second stage's training.
/// Detections lose them either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectnessFilter {
    /// Their place among the negatives: unmatched ones leave the loss (the paper, Caffe).
    #[default]
    Negatives,
    /// Their place among the positives. Such an anchor may then be mined like a negative although its label is still
    /// its object's class; unmatched ones stay (luuuyi).
    Positives,
}

/// The layers between fc7 and the coarsest source: 1×1 to `reduce` channels, then 3×3 at stride 2 to `output`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Extra {
    pub reduce: usize,
    pub output: usize,
}

/// Everything that defines a RefineDet but its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RefinedetConfig {
    pub arch: Arch,
    /// Height and width of the input, pixels: multiples of 64, or of 32 for a dense network.
    pub input: (usize, usize),
    /// Batch norm after every convolution but the heads' (the published networks have none).
    pub batch_norm: bool,
    /// No pool before conv4: VGG's maps at half their strides, for small pictures of small objects.
    #[serde(default)]
    pub dense: bool,
    /// Channels of the transfer connection blocks, and so of the second stage's maps.
    pub connection: usize,
    /// IoU from which a prior, or a refined anchor, is positive; below it is background.
    pub positive_threshold: f32,
    /// Mined negatives per positive, in both stages.
    pub negative_ratio: f32,
    /// Where smooth-L1 turns from quadratic to linear.
    pub smooth_l1_beta: f32,
    /// Weight of both localisation losses.
    pub localization_weight: f32,
    /// Anchors whose objectness is below this are filtered (1 − θ of the paper); 0 turns the filter off.
    pub objectness_threshold: f32,
    pub objectness_filter: ObjectnessFilter,
    /// Added to the quotient of sides inside the logarithm of a target's code, so that it stays finite.
    pub log_epsilon: f32,
    /// Detections at or below this score are dropped.
    pub score_threshold: f32,
    /// Candidates kept per class before suppression.
    pub top_k: usize,
    /// IoU above which the lower-scored box of a class is suppressed.
    pub nms_threshold: f32,
    pub max_detections: usize,
    /// Class names, background excluded.
    pub classes: Vec<String>,
    pub extra: Extra,
    pub widths: Widths,
    /// A ResNet in place of VGG-16, whose widths and extra layer then mean nothing.
    pub resnet: Option<ResNetConfig>,
    pub priors: PriorSpec,
    pub preprocess: Preprocess,
}

impl RefinedetConfig {
    /// RefineDet320 after the paper and its Caffe code: 6375 anchors.
    pub fn refinedet320(classes: &[String]) -> Self {
        Self {
            arch: Arch::Refinedet320,
            input: (320, 320),
            batch_norm: false,
            dense: false,
            connection: 256,
            positive_threshold: 0.5,
            negative_ratio: 3.0,
            smooth_l1_beta: 1.0,
            localization_weight: 1.0,
            objectness_threshold: 0.01,
            objectness_filter: ObjectnessFilter::Negatives,
            log_epsilon: 1e-5,
            score_threshold: 0.01,
            top_k: 1000,
            nms_threshold: 0.45,
            max_detections: 500,
            classes: classes.to_vec(),
            extra: Extra { reduce: 256, output: 512 },
            widths: Widths::VGG16,
            resnet: None,
            priors: Self::prior_spec(320, &[32.0, 64.0, 128.0, 256.0]),
            preprocess: Self::stretch(320),
        }
    }

    /// RefineDet512: the same network at 512 px, 16320 anchors.
    pub fn refinedet512(classes: &[String]) -> Self {
        Self {
            arch: Arch::Refinedet512,
            input: (512, 512),
            priors: Self::prior_spec(512, &[32.0, 64.0, 128.0, 256.0]),
            preprocess: Self::stretch(512),
            ..Self::refinedet320(classes)
        }
    }

    /// RefineDet320 with ResNet-101, as in the Caffe code: C3 to C5 and one more block instead of VGG's maps, no L2
    /// norm, batch norm in the connection blocks, and a block before each head.
    pub fn refinedet320_r101(classes: &[String]) -> Self {
        Self { arch: Arch::Refinedet320R101, ..Self::refinedet320(classes).residual() }
    }

    /// RefineDet512 with ResNet-101.
    pub fn refinedet512_r101(classes: &[String]) -> Self {
        Self { arch: Arch::Refinedet512R101, ..Self::refinedet512(classes).residual() }
    }

    /// The same on ResNet-101, whose original weights expect BGR.
    fn residual(self) -> Self {
        let resnet = ResNetConfig {
            depth: Depth::R101,
            width: 64,
            style: StrideStyle::Caffe,
            norm: Norm::Trained,
            epsilon: 1e-5,
            frozen_stages: 0,
        };
        let preprocess =
            Preprocess { order: ChannelOrder::Bgr, mean: [104.0, 117.0, 123.0], ..self.preprocess.clone() };
        Self { batch_norm: true, resnet: Some(resnet), preprocess, ..self }
    }

    /// The same topology, narrow and with batch norm, at 256 px: trains in minutes on two CPU cores. Objects are small
    /// there, so the finest map has stride 4; the fourth prior of a cell is a larger square.
    pub fn nano(classes: &[String]) -> Self {
        Self {
            arch: Arch::RefinedetNano,
            input: (256, 256),
            batch_norm: true,
            dense: true,
            connection: 32,
            extra: Extra { reduce: 32, output: 64 },
            widths: Widths { stages: [8, 16, 24, 32, 64], fc: 112 },
            priors: PriorSpec {
                steps: vec![4.0, 8.0, 16.0, 32.0],
                max_sizes: vec![24.0, 50.0, 112.0, 250.0],
                ..Self::prior_spec(256, &[11.0, 24.0, 50.0, 112.0])
            },
            preprocess: Self::stretch(256),
            ..Self::refinedet320(classes)
        }
    }

    /// What luuuyi/RefineDet.PyTorch does differently from the paper: its filter takes positives away, its priors are
    /// clamped, and it never cuts the list of detections.
    pub fn with_luuuyi_rules(self) -> Self {
        Self {
            objectness_filter: ObjectnessFilter::Positives,
            max_detections: 1_000_000,
            priors: PriorSpec { clip: PriorClip::CornerAndSize, ..self.priors },
            ..self
        }
    }

    /// The tests of the reference's multi-scale evaluation (its "+" results) for this input size; `coco` adds the ones
    /// that it runs on COCO only. Inputs are rounded to the multiples of 64 (or 32) that the network takes.
    pub fn multi_scales(&self, coco: bool) -> Vec<MultiScale> {
        let (base, stride) = (self.input.1 as f32, self.coarsest_stride());
        let side = |factor: f32| {
            let cells = (factor * base / stride as f32).round() as usize;
            cells.max(1) * stride
        };
        let square = |factor: f32, keep: Keep| MultiScale::square(side(factor), keep);
        let oblong = |ratio: f32| MultiScale {
            extent: Extent::Oblong { long: side(1.0), short: side(ratio) },
            keep: Keep::All,
            flip: true,
        };
        let below = Keep::ShorterBelow;
        if self.input.1 >= 512 {
            let mut scales = vec![
                square(1.0, Keep::All),
                oblong(0.75),
                square(0.5, Keep::All),
                square(0.75, Keep::All),
                square(1.75, below(128.0)),
                square(1.5, below(192.0)),
            ];
            if coco {
                scales.extend([square(1.25, below(224.0)), square(2.0, below(96.0)), square(2.25, below(64.0))]);
            }
            return scales;
        }
        let mut scales = vec![
            square(1.0, Keep::All),
            oblong(0.6),
            square(0.6, Keep::LongerAbove(32.0)),
            square(1.2, below(160.0)),
            square(1.4, below(128.0)),
            square(1.6, below(96.0)),
            square(1.8, below(64.0)),
            square(2.2, below(32.0)),
        ];
        if coco {
            scales.push(square(2.0, below(48.0)));
        }
        scales
    }

    /// Three priors a cell of area `sizes[level]`²: a square, twice as wide as tall, and its transpose. Lengths stay the
    /// same pixels whatever the input's size.
    fn prior_spec(side: usize, sizes: &[f32]) -> PriorSpec {
        PriorSpec {
            image: (side as f32, side as f32),
            steps: vec![8.0, 16.0, 32.0, 64.0],
            min_sizes: sizes.to_vec(),
            max_sizes: Vec::new(),
            aspect_ratios: vec![vec![2.0]; 4],
            clip: PriorClip::None,
        }
    }

    /// RGB minus (123, 117, 104), stretched to a square of `side` pixels.
    fn stretch(side: usize) -> Preprocess {
        Preprocess {
            fit: Fit::Stretch { width: side, height: side },
            order: ChannelOrder::Rgb,
            mean: [123.0, 117.0, 104.0],
            std: [1.0; 3],
        }
    }

    /// Pixels of the input for each cell of the coarsest map.
    pub fn coarsest_stride(&self) -> usize {
        if self.dense { 32 } else { 64 }
    }

    /// Classes of the second stage: background first.
    pub fn logits(&self) -> usize {
        self.classes.len() + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::priors::ssd_priors;

    #[test]
    fn anchor_counts_are_the_papers() {
        let classes = ["a".to_string()];
        let count = |config: RefinedetConfig| {
            let steps = config.priors.steps.iter().map(|&step| step as usize);
            let maps: Vec<(usize, usize)> = steps.map(|s| (config.input.0 / s, config.input.1 / s)).collect();
            ssd_priors(&config.priors, &maps).len()
        };
        assert_eq!(count(RefinedetConfig::refinedet320(&classes)), 6375);
        assert_eq!(count(RefinedetConfig::refinedet512(&classes)), 16320);
        // 4 · (64² + 32² + 16² + 8²)
        assert_eq!(count(RefinedetConfig::nano(&classes)), 21_760);
    }

    #[test]
    fn the_luuuyi_rules_clamp_the_largest_prior() {
        let config = RefinedetConfig::refinedet320(&["a".to_string()]);
        let maps = [(40, 40), (20, 20), (10, 10), (5, 5)];
        // 256 · √2 = 362.04 px wide, at 320 the whole width
        let widest =
            |config: &RefinedetConfig| ssd_priors(&config.priors, &maps).iter().map(|p| p.width()).fold(0.0, f32::max);
        assert!((widest(&config) - 362.04).abs() < 0.01);
        let quirky = config.with_luuuyi_rules();
        assert!((widest(&quirky) - 320.0).abs() < 1e-3);
        assert_eq!(quirky.objectness_filter, ObjectnessFilter::Positives);
    }

    #[test]
    fn every_test_size_is_one_that_the_network_takes() {
        let classes = ["a".to_string()];
        let small = RefinedetConfig::refinedet320(&classes);
        let large = RefinedetConfig::refinedet512(&classes);
        let nano = RefinedetConfig::nano(&classes);
        for config in [&small, &large, &nano] {
            for scale in config.multi_scales(true) {
                let (long, short) = match scale.extent {
                    Extent::Square(side) => (side, side),
                    Extent::Oblong { long, short } => (long, short),
                };
                let stride = config.coarsest_stride();
                assert!(short > 0 && long.is_multiple_of(stride) && short.is_multiple_of(stride), "{scale:?}");
            }
        }
        // 320 · (1, 0.6, 0.6, 1.2, 1.4, 1.6, 1.8, 2.2): all whole multiples of 64 already
        let sides: Vec<Extent> = small.multi_scales(false).iter().map(|s| s.extent).collect();
        let squares = [192, 384, 448, 512, 576, 704].map(Extent::Square);
        assert_eq!(sides[..2], [Extent::Square(320), Extent::Oblong { long: 320, short: 192 }]);
        assert_eq!(sides[2..], squares);
        assert_eq!((small.multi_scales(true).len(), large.multi_scales(true).len()), (9, 9));
        assert_eq!(large.multi_scales(true)[8], MultiScale::square(1152, Keep::ShorterBelow(64.0)));
    }
}
