//! YOLOv3's settings: the published network on Darknet-53 and a narrow one for two CPU cores.

use crate::detect::Arch;
use crate::detect::darknet::config::{framed, input_of};
use crate::detect::darknet::{Normalizer, Objective, Offsets};
use crate::imaging::preprocess::Preprocess;
use serde::{Deserialize, Serialize};

/// Everything that defines a YOLOv3 but its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Yolov3Config {
    pub arch: Arch,
    /// Detections at or below this score are dropped.
    pub score_threshold: f32,
    /// Candidates kept per class before suppression.
    pub top_k: usize,
    /// IoU above which the lower-scored box of a class is suppressed.
    pub nms_threshold: f32,
    pub max_detections: usize,
    /// Channels of the first convolution.
    pub stem: usize,
    /// Channels of the five stages, each at half the size of the one before.
    pub stages: [usize; 5],
    /// Residual blocks of each stage.
    pub blocks: [usize; 5],
    /// What the first two numbers of a prediction mean.
    pub offsets: Offsets,
    /// Batch norms of the backbone keep their statistics while training (mmdet, for pretrained weights); their scale and
    /// shift still learn.
    #[serde(default)]
    pub still_backbone: bool,
    /// Class names; there is no background.
    pub classes: Vec<String>,
    /// Priors of each level, coarsest first: width and height in input pixels.
    pub anchors: Vec<Vec<[f32; 2]>>,
    pub objective: Objective,
    pub preprocess: Preprocess,
}

impl Yolov3Config {
    /// YOLOv3 with Darknet-53 at 416×416, with mmdet's targets and losses.
    pub fn yolov3(classes: &[String]) -> Self {
        Self {
            arch: Arch::Yolov3,
            score_threshold: 0.01,
            top_k: 1000,
            nms_threshold: 0.45,
            max_detections: 100,
            stem: 32,
            stages: [64, 128, 256, 512, 1024],
            blocks: [1, 2, 8, 8, 4],
            offsets: Offsets::Logistic,
            still_backbone: false,
            classes: classes.to_vec(),
            anchors: vec![
                vec![[116.0, 90.0], [156.0, 198.0], [373.0, 326.0]],
                vec![[30.0, 61.0], [62.0, 45.0], [59.0, 119.0]],
                vec![[10.0, 13.0], [16.0, 30.0], [33.0, 23.0]],
            ],
            objective: Objective::MMDET,
            preprocess: framed(416, 416, true),
        }
    }

    /// The same topology at a quarter of the width with fewer blocks, for 256×192 pixels: trains in minutes on two CPU
    /// cores. Targets and losses are the paper's, divided by the positives, so that steps do not grow with the objects.
    pub fn nano(classes: &[String]) -> Self {
        Self {
            arch: Arch::Yolov3Nano,
            stem: 8,
            stages: [16, 32, 48, 80, 96],
            blocks: [1, 1, 2, 2, 1],
            anchors: vec![
                vec![[84.0, 84.0], [112.0, 110.0], [145.0, 138.0]],
                vec![[31.0, 31.0], [45.0, 46.0], [62.0, 62.0]],
                vec![[9.0, 9.0], [14.0, 14.0], [21.0, 21.0]],
            ],
            objective: Objective { normalizer: Normalizer::Positives, ..Objective::DARKNET },
            preprocess: framed(192, 256, true),
            ..Self::yolov3(classes)
        }
    }

    /// The same network for an input of another size, any multiple of 32 each way: letterboxed or stretched.
    pub fn sized(self, height: usize, width: usize, letterbox: bool) -> Self {
        Self { preprocess: framed(height, width, letterbox), ..self }
    }

    /// The same network with other priors, width and height in input pixels, by rising area: the largest go to the
    /// coarsest level. Each level keeps its number of them; nothing where there are not as many as before.
    pub fn with_priors(&self, priors: &[[f32; 2]]) -> Option<Self> {
        let mut rest = priors;
        let mut anchors = Vec::with_capacity(self.anchors.len());
        for level in &self.anchors {
            let (smaller, own) = rest.split_at_checked(rest.len().checked_sub(level.len())?)?;
            anchors.push(own.to_vec());
            rest = smaller;
        }
        rest.is_empty().then(|| Self { anchors, ..self.clone() })
    }

    /// Height and width of the input, pixels.
    pub fn input(&self) -> (usize, usize) {
        input_of(&self.preprocess)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_of_other_priors_go_to_the_coarsest_level() {
        let nano = Yolov3Config::nano(&["a".to_owned()]);
        let priors: Vec<[f32; 2]> = (1..=9).map(|k| [k as f32, k as f32 + 0.5]).collect();
        let own = nano.with_priors(&priors).unwrap();
        assert_eq!(own.anchors, [&priors[6..], &priors[3..6], &priors[..3]]);
        assert!(nano.with_priors(&priors[1..]).is_none());
        let more = [&priors[..], &priors[..1]].concat();
        assert!(nano.with_priors(&more).is_none());
    }

    #[test]
    fn settings_survive_toml() {
        let classes = vec!["a".to_owned()];
        for config in [Yolov3Config::yolov3(&classes), Yolov3Config::nano(&classes)] {
            let text = toml::to_string(&config).unwrap();
            assert_eq!(toml::from_str::<Yolov3Config>(&text).unwrap(), config, "{text}");
        }
        let wide = Yolov3Config::yolov3(&classes).sized(320, 608, false);
        assert_eq!((wide.input(), Yolov3Config::nano(&classes).input()), ((320, 608), (192, 256)));
    }
}
