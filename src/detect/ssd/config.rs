//! SSD's settings: the published 300 and 512 networks and a narrow one for two CPU cores.

use crate::detect::Arch;
use crate::geometry::priors::{PriorClip, PriorSpec, scales};
use crate::imaging::preprocess::{ChannelOrder, Fit, Preprocess};
use crate::nn::backbone::vgg::Widths;
use serde::{Deserialize, Serialize};

/// One extra feature layer: 1×1 to `reduce` channels, then k×k to `output` channels, ReLU after both.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Extra {
    pub reduce: usize,
    pub output: usize,
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
}

/// Everything that defines an SSD but its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SsdConfig {
    pub arch: Arch,
    /// Height and width of the input, pixels.
    pub input: (usize, usize),
    /// Batch norm after every convolution of the backbone (the published networks have none). The extras have too few
    /// cells for the statistics of a small batch.
    pub batch_norm: bool,
    /// IoU from which a prior is positive; below it is background.
    pub positive_threshold: f32,
    /// Mined negatives per positive.
    pub negative_ratio: f32,
    /// Where smooth-L1 turns from quadratic to linear.
    pub smooth_l1_beta: f32,
    /// Weight of the localisation loss (the paper's α).
    pub localization_weight: f32,
    /// Detections at or below this score are dropped.
    pub score_threshold: f32,
    /// Candidates kept per class before suppression.
    pub top_k: usize,
    /// IoU above which the lower-scored box of a class is suppressed.
    pub nms_threshold: f32,
    pub max_detections: usize,
    /// s_min and s_max of the paper's linear rule (§2.2), shares of the input's side, in place of the sizes that `priors`
    /// lists; 0 and 0 for those.
    #[serde(default)]
    pub linear_scales: [f32; 2],
    /// Class names, background excluded.
    pub classes: Vec<String>,
    pub widths: Widths,
    pub extras: Vec<Extra>,
    pub priors: PriorSpec,
    pub preprocess: Preprocess,
}

const fn extra(reduce: usize, output: usize, kernel: usize, stride: usize, padding: usize) -> Extra {
    Extra { reduce, output, kernel, stride, padding }
}

impl SsdConfig {
    /// SSD300 with torchvision's priors and limits (`ssd300_vgg16`).
    pub fn ssd300(classes: &[String]) -> Self {
        Self {
            arch: Arch::Ssd300,
            input: (300, 300),
            batch_norm: false,
            positive_threshold: 0.5,
            negative_ratio: 3.0,
            smooth_l1_beta: 1.0,
            localization_weight: 1.0,
            score_threshold: 0.01,
            top_k: 400,
            nms_threshold: 0.45,
            max_detections: 200,
            linear_scales: [0.0, 0.0],
            classes: classes.to_vec(),
            widths: Widths::VGG16,
            extras: vec![
                extra(256, 512, 3, 2, 1),
                extra(128, 256, 3, 2, 1),
                extra(128, 256, 3, 1, 0),
                extra(128, 256, 3, 1, 0),
            ],
            priors: PriorSpec::torchvision_ssd300(),
            preprocess: Self::stretch(300),
        }
    }

    /// SSD512 with the paper's seven sources and COCO scales.
    pub fn ssd512(classes: &[String]) -> Self {
        Self {
            arch: Arch::Ssd512,
            input: (512, 512),
            extras: vec![
                extra(256, 512, 3, 2, 1),
                extra(128, 256, 3, 2, 1),
                extra(128, 256, 3, 2, 1),
                extra(128, 256, 3, 2, 1),
                extra(128, 256, 4, 1, 1),
            ],
            priors: PriorSpec::ssd512_coco(),
            preprocess: Self::stretch(512),
            ..Self::ssd300(classes)
        }
    }

    /// The same topology, narrow and with batch norm, at 240 px: trains in minutes on two CPU cores.
    pub fn nano(classes: &[String]) -> Self {
        Self {
            arch: Arch::SsdNano,
            input: (240, 240),
            batch_norm: true,
            widths: Widths { stages: [8, 16, 48, 96, 80], fc: 128 },
            extras: vec![
                extra(48, 80, 3, 2, 1),
                extra(48, 80, 3, 2, 1),
                extra(48, 80, 3, 2, 1),
                extra(48, 80, 3, 2, 1),
            ],
            priors: PriorSpec {
                image: (240.0, 240.0),
                steps: vec![8.0, 16.0, 30.0, 60.0, 120.0, 240.0],
                min_sizes: vec![12.0, 32.0, 64.0, 110.0, 160.0, 210.0],
                max_sizes: vec![32.0, 64.0, 110.0, 160.0, 210.0, 260.0],
                aspect_ratios: vec![vec![2.0]; 6],
                clip: PriorClip::None,
            },
            preprocess: Self::stretch(240),
            ..Self::ssd300(classes)
        }
    }

    /// RGB minus (123, 117, 104), stretched to a square of `side` pixels.
    fn stretch(side: usize) -> Preprocess {
        let mean = [0.48235, 0.45882, 0.40784].map(|m: f32| m * 255.0);
        Preprocess { fit: Fit::Stretch { width: side, height: side }, order: ChannelOrder::Rgb, mean, std: [1.0; 3] }
    }

    /// The priors in force: the listed ones, or those of the linear rule. Its second square has the mean of a level's
    /// scale and the next one's, which the last level continues.
    pub fn prior_spec(&self) -> PriorSpec {
        let [low, high] = self.linear_scales;
        if high <= 0.0 {
            return self.priors.clone();
        }
        let levels = self.priors.levels();
        let gap = (high - low) / levels.saturating_sub(1).max(1) as f32;
        let sizes = scales(low, high + gap, levels + 1, self.input.1 as f32);
        let (min_sizes, max_sizes) = (sizes[..levels].to_vec(), sizes[1..].to_vec());
        PriorSpec { min_sizes, max_sizes, ..self.priors.clone() }
    }

    /// Priors of one cell of source `level`.
    pub fn priors_per_cell(&self, level: usize) -> usize {
        self.prior_spec().per_cell(level)
    }

    /// Head classes: background first.
    pub fn logits(&self) -> usize {
        self.classes.len() + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::ssd::Ssd;
    use candle_core::Device;

    #[test]
    fn scales_are_listed_or_follow_the_papers_rule() {
        let config = SsdConfig::ssd300(&["a".to_string()]);
        assert_eq!(config.prior_spec(), config.priors);
        let linear = SsdConfig { linear_scales: [0.2, 0.9], ..config };
        let spec = linear.prior_spec();
        // .2, .34, … .9 of 300, and .14 further after the last
        let expected = [60.0, 102.0, 144.0, 186.0, 228.0, 270.0, 312.0];
        let close = |found: &[f32], expected: &[f32]| found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-2);
        assert!(spec.min_sizes.len() == 6 && close(&spec.min_sizes, &expected[..6]), "{:?}", spec.min_sizes);
        assert!(spec.max_sizes.len() == 6 && close(&spec.max_sizes, &expected[1..]), "{:?}", spec.max_sizes);
        assert_eq!(linear.priors_per_cell(1), 6);
        for wrong in [[0.0, 0.9], [0.9, 0.2], [0.2, 0.0], [f32::NAN, 0.9]] {
            let config = SsdConfig { linear_scales: wrong, ..linear.clone() };
            assert!(Ssd::new(&config, &Device::Cpu, 0).is_err_and(|e| e.to_string().contains("s_min")), "{wrong:?}");
        }
    }
}
