//! M2Det's settings: the published VGG and ResNet networks and a narrow one for two CPU cores.

use crate::detect::Arch;
use crate::geometry::nms::Decay;
use crate::geometry::priors::{PriorClip, PriorSpec};
use crate::imaging::preprocess::{ChannelOrder, Fit, Preprocess};
use crate::nn::backbone::resnet::{Depth, Norm, ResNetConfig, StrideStyle};
use crate::nn::backbone::vgg::Widths;
use serde::{Deserialize, Serialize};

/// Everything that defines an M2Det but its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct M2detConfig {
    pub arch: Arch,
    /// Height and width of the input, pixels.
    pub input: (usize, usize),
    /// Batch norm in the backbone too (the published networks have it everywhere else).
    pub batch_norm: bool,
    /// No pool before conv4: VGG's maps at half their strides, for small pictures of small objects.
    #[serde(default)]
    pub dense: bool,
    /// Thinned U-shape modules, one after another.
    pub levels: usize,
    /// Maps of each module, and of the pyramid.
    pub scales: usize,
    /// Channels of each module's maps.
    pub planes: usize,
    /// Channels that the base feature takes from conv4_3.
    pub shallow: usize,
    /// Channels that the base feature takes from fc7.
    pub deep: usize,
    /// 1×1 convolutions on the modules' outputs.
    pub smooth: bool,
    /// One convolution of the base feature for each module (the paper) instead of one for all (the code).
    pub separate_leach: bool,
    /// Channel attention on the aggregated maps (the paper). All published settings and weights are without.
    pub sfam: bool,
    /// Attention weights of their own for each scale (the paper) instead of shared ones (the code).
    pub separate_sfam: bool,
    /// Channels of the aggregated maps over those between the attention's two layers.
    pub sfam_reduction: usize,
    /// IoU from which a prior is positive; below it is background.
    pub positive_threshold: f32,
    /// Mined negatives per positive.
    pub negative_ratio: f32,
    /// Where smooth-L1 turns from quadratic to linear.
    pub smooth_l1_beta: f32,
    pub localization_weight: f32,
    /// Detections at or below this score are dropped.
    pub score_threshold: f32,
    /// Candidates kept per class before suppression, which bounds its time (the reference has no bound).
    pub top_k: usize,
    /// Soft-NMS; otherwise greedy suppression at `nms_threshold`.
    pub soft_nms: bool,
    /// IoU above which Soft-NMS lowers scores. The reference means to set 0.45 and leaves 0.3 in force.
    pub soft_threshold: f32,
    /// Soft-NMS drops a box whose lowered score is below this.
    pub soft_floor: f32,
    /// IoU above which greedy suppression drops the lower-scored box of a class.
    pub nms_threshold: f32,
    /// Detections of each class.
    pub keep_per_class: usize,
    /// Detections of the image; 0 for all, as in the reference.
    pub max_detections: usize,
    /// Class names, background excluded.
    pub classes: Vec<String>,
    /// How Soft-NMS lowers scores.
    pub soft_decay: Decay,
    pub widths: Widths,
    /// A ResNet in place of VGG-16, whose widths then mean nothing.
    pub resnet: Option<ResNetConfig>,
    pub priors: PriorSpec,
    pub preprocess: Preprocess,
}

impl M2detConfig {
    /// M2Det320 with VGG-16: 12810 priors.
    pub fn m2det320(classes: &[String]) -> Self {
        Self {
            arch: Arch::M2det320,
            input: (320, 320),
            batch_norm: false,
            dense: false,
            levels: 8,
            scales: 6,
            planes: 256,
            shallow: 256,
            deep: 512,
            smooth: true,
            separate_leach: false,
            sfam: false,
            separate_sfam: false,
            sfam_reduction: 16,
            positive_threshold: 0.5,
            negative_ratio: 3.0,
            smooth_l1_beta: 1.0,
            localization_weight: 1.0,
            score_threshold: 0.1,
            top_k: 1000,
            soft_nms: true,
            soft_threshold: 0.3,
            soft_floor: 0.001,
            nms_threshold: 0.45,
            keep_per_class: 50,
            max_detections: 0,
            classes: classes.to_vec(),
            soft_decay: Decay::Linear,
            widths: Widths::VGG16,
            resnet: None,
            priors: patterned(320, &[8.0, 16.0, 32.0, 64.0, 107.0, 320.0], [0.08, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05]),
            preprocess: stretch(320),
        }
    }

    /// M2Det512: 32760 priors.
    pub fn m2det512(classes: &[String]) -> Self {
        let steps = [8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
        Self {
            arch: Arch::M2det512,
            input: (512, 512),
            priors: patterned(512, &steps, [0.06, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05]),
            preprocess: stretch(512),
            ..Self::m2det320(classes)
        }
    }

    /// M2Det704: 62022 priors.
    pub fn m2det704(classes: &[String]) -> Self {
        let steps = [8.0, 16.0, 32.0, 64.0, 117.0, 176.0];
        Self {
            arch: Arch::M2det704,
            input: (704, 704),
            priors: patterned(704, &steps, [0.04, 0.11, 0.23, 0.39, 0.58, 0.80, 1.05]),
            preprocess: stretch(704),
            ..Self::m2det320(classes)
        }
    }

    /// M2Det800: 80208 priors. The fourth step is 62 in the published settings although the map has 13 cells.
    pub fn m2det800(classes: &[String]) -> Self {
        let steps = [8.0, 16.0, 32.0, 62.0, 115.0, 160.0];
        Self {
            arch: Arch::M2det800,
            input: (800, 800),
            priors: patterned(800, &steps, [0.04, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05]),
            preprocess: stretch(800),
            ..Self::m2det320(classes)
        }
    }

    /// M2Det320 with ResNet-101. The reference feeds it BGR without a deviation too, although its backbone starts from
    /// torchvision's weights.
    pub fn m2det320_r101(classes: &[String]) -> Self {
        Self { arch: Arch::M2det320R101, resnet: Some(resnet101()), ..Self::m2det320(classes) }
    }

    /// M2Det512 with ResNet-101.
    pub fn m2det512_r101(classes: &[String]) -> Self {
        Self { arch: Arch::M2det512R101, resnet: Some(resnet101()), ..Self::m2det512(classes) }
    }

    /// The same topology with three modules, narrow and with batch norm throughout, at 240 px: trains in minutes on two CPU
    /// cores. Objects are small there, so the finest map has stride 4 and priors of two to three strides.
    pub fn nano(classes: &[String]) -> Self {
        Self {
            arch: Arch::M2detNano,
            input: (240, 240),
            batch_norm: true,
            dense: true,
            levels: 3,
            scales: 6,
            planes: 24,
            shallow: 24,
            deep: 40,
            widths: Widths { stages: [8, 16, 24, 32, 48], fc: 96 },
            priors: PriorSpec {
                image: (240.0, 240.0),
                steps: vec![4.0, 8.0, 16.0, 30.0, 60.0, 120.0],
                min_sizes: vec![11.0, 24.0, 48.0, 90.0, 140.0, 190.0],
                max_sizes: vec![24.0, 48.0, 90.0, 140.0, 190.0, 250.0],
                aspect_ratios: vec![vec![2.0]; 6],
                clip: PriorClip::CornerAndSize,
            },
            preprocess: stretch(240),
            ..Self::m2det320(classes)
        }
    }

    /// Head classes: background first.
    pub fn logits(&self) -> usize {
        self.classes.len() + 1
    }

    /// The parameter here that a reference checkpoint calls `name`. The reference saves modules that it uses several
    /// times under as many names (`leach.0` to `leach.7`, and SFAM's layers by scale), all with the same values; here
    /// they exist once, under the first name.
    pub fn own_name(&self, name: &str) -> String {
        let shared = [
            ("leach.", !self.separate_leach),
            ("sfam_module.fc1.", !self.separate_sfam),
            ("sfam_module.fc2.", !self.separate_sfam),
        ];
        for (prefix, shared) in shared {
            if let (true, Some(rest)) = (shared, name.strip_prefix(prefix))
                && let Some((index, leaf)) = rest.split_once('.')
                && index.bytes().all(|b| b.is_ascii_digit())
            {
                return format!("{prefix}0.{leaf}");
            }
        }
        name.to_string()
    }
}

/// torchvision's ResNet-101, batch norm trained along.
fn resnet101() -> ResNetConfig {
    ResNetConfig {
        depth: Depth::R101,
        width: 64,
        style: StrideStyle::Pytorch,
        norm: Norm::Trained,
        epsilon: 1e-5,
        frozen_stages: 0,
    }
}

/// Six levels of six priors: two squares, and boxes 2 and 3 times as wide as tall with their transposes. Sizes are
/// parts of the input's side, rounded to hundredths of a pixel.
fn patterned(side: usize, steps: &[f32], pattern: [f64; 7]) -> PriorSpec {
    let sizes = pattern.map(|part| ((part * side as f64 * 100.0).round() / 100.0) as f32);
    PriorSpec {
        image: (side as f32, side as f32),
        steps: steps.to_vec(),
        min_sizes: sizes[..6].to_vec(),
        max_sizes: sizes[1..].to_vec(),
        aspect_ratios: vec![vec![2.0, 3.0]; 6],
        clip: PriorClip::CornerAndSize,
    }
}

/// BGR minus (104, 117, 123), stretched to a square of `side` pixels.
fn stretch(side: usize) -> Preprocess {
    Preprocess {
        fit: Fit::Stretch { width: side, height: side },
        order: ChannelOrder::Bgr,
        mean: [104.0, 117.0, 123.0],
        std: [1.0; 3],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::priors::ssd_priors;

    #[test]
    fn prior_counts_are_the_publications() {
        let classes = ["a".to_string()];
        for (config, maps, count) in [
            (M2detConfig::m2det320(&classes), [40, 20, 10, 5, 3, 1], 12810),
            (M2detConfig::m2det512(&classes), [64, 32, 16, 8, 4, 2], 32760),
            (M2detConfig::m2det704(&classes), [88, 44, 22, 11, 6, 4], 62022),
            (M2detConfig::m2det800(&classes), [100, 50, 25, 13, 7, 5], 80208),
        ] {
            assert_eq!(ssd_priors(&config.priors, &maps.map(|m| (m, m))).len(), count);
        }
        let nano = M2detConfig::nano(&classes);
        // 4 · (60² + 30² + 15² + 8² + 4² + 2²)
        assert_eq!(ssd_priors(&nano.priors, &[60, 30, 15, 8, 4, 2].map(|m| (m, m))).len(), 19_236);
    }

    #[test]
    fn the_first_priors_at_320_pixels() {
        let config = M2detConfig::m2det320(&["a".to_string()]);
        let priors = ssd_priors(&config.priors, &[(40, 40)]);
        // .08 · 320 = 25.6; √(25.6 · 48) = 35.0543; 25.6 · √2 and / √2; 25.6 · √3 and / √3
        let expected: [[f32; 2]; 6] = [
            [25.6, 25.6],
            [35.0543, 35.0543],
            [36.2039, 18.1019],
            [18.1019, 36.2039],
            [44.3405, 14.7802],
            [14.7802, 44.3405],
        ];
        for (prior, [w, h]) in priors.iter().zip(expected) {
            let (cx, cy) = prior.center();
            assert!((cx - 4.0).abs() < 1e-4 && (cy - 4.0).abs() < 1e-4);
            assert!((prior.width() - w).abs() < 1e-3 && (prior.height() - h).abs() < 1e-3, "{prior:?}");
        }
    }

    #[test]
    fn names_of_shared_modules_lead_to_the_first() {
        let config = M2detConfig::m2det320(&["a".to_string()]);
        assert_eq!(config.own_name("leach.7.bn.running_mean"), "leach.0.bn.running_mean");
        assert_eq!(config.own_name("sfam_module.fc2.3.bias"), "sfam_module.fc2.0.bias");
        assert_eq!(config.own_name("unet7.layers.3.conv.weight"), "unet7.layers.3.conv.weight");
        assert_eq!(config.own_name("leach.x.y"), "leach.x.y");
        let separate = M2detConfig { separate_leach: true, ..config };
        assert_eq!(separate.own_name("leach.7.conv.weight"), "leach.7.conv.weight");
    }
}
