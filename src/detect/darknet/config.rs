//! The settings of a network that a darknet cfg describes. They hold the whole text, so that a checkpoint needs no
//! second file.

use super::cfg::{CfgError, Section, parse};
use super::layers::{Plan, Yolo, net_size, plan};
use super::objective::{Coordinates, Objective, Offsets};
use super::published;
use crate::detect::names::names_for;
use crate::imaging::preprocess::{ChannelOrder, Fit, Preprocess};
use serde::{Deserialize, Serialize};

/// Darknet's letterbox grey.
const GREY: f32 = 127.5;

fn default_norm_epsilon() -> f32 {
    1e-5
}

/// Everything that defines a cfg's network but its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DarknetConfig {
    /// The text of the cfg. Its `[net]` section gives the first input size and nothing else.
    pub cfg: String,
    /// Detections at or below this score are dropped.
    pub score_threshold: f32,
    /// Candidates kept per class before suppression.
    pub top_k: usize,
    /// IoU above which the lower-scored box of a class is suppressed.
    pub nms_threshold: f32,
    pub max_detections: usize,
    /// Added to the variance of batch norms: 1e-5 as on the GPUs that trained the published weights; OpenCV adds 1e-6.
    #[serde(default = "default_norm_epsilon")]
    pub norm_epsilon: f32,
    /// What the first two numbers of a prediction mean.
    pub offsets: Offsets,
    /// Class names; as many as the detection layers have.
    pub classes: Vec<String>,
    pub objective: Objective,
    pub preprocess: Preprocess,
}

/// RGB divided by 255, in a frame of this size: darknet's letterbox, or stretched.
pub(in crate::detect) fn framed(height: usize, width: usize, letterbox: bool) -> Preprocess {
    let fit = if letterbox { Fit::Letterbox { width, height, fill: GREY } } else { Fit::Stretch { width, height } };
    Preprocess { fit, order: ChannelOrder::Rgb, mean: [0.0; 3], std: [255.0; 3] }
}

/// Height and width of the input that a fit makes; for one that depends on the picture, those of a wide one.
pub(in crate::detect) fn input_of(preprocess: &Preprocess) -> (usize, usize) {
    match preprocess.fit {
        Fit::Stretch { width, height } | Fit::Letterbox { width, height, .. } => (height, width),
        Fit::ShortestEdge { short, long, divisor }
        | Fit::ShortestEdgeRounded { short, long, divisor }
        | Fit::ShortestEdgeAntialias { short, long, divisor } => {
            let up = |side: usize| side.div_ceil(divisor.max(1)) * divisor.max(1);
            (up(short), up(long))
        }
    }
}

impl DarknetConfig {
    /// The network of a cfg at its own size, its classes named after COCO or VOC where their number is theirs.
    ///
    /// # Errors
    /// A cfg that makes no network.
    pub fn read(cfg: &str) -> Result<Self, CfgError> {
        let sections = parse(cfg)?;
        let (height, width) = net_size(&sections)?;
        let plan = plan(&sections, (height, width))?;
        let classes = plan.yolos().next().map_or(0, |yolo| yolo.classes);
        let objective = objective(&sections, &plan)?;
        Ok(Self { objective, ..Self::published(cfg.to_owned(), &names_for(classes), (height, width)) })
    }

    /// YOLOv3 at 416×416.
    pub fn yolov3(classes: &[String]) -> Self {
        Self::published(published::yolov3(classes.len(), 416, false), classes, (416, 416))
    }

    /// YOLOv3-SPP at 608×608.
    pub fn spp(classes: &[String]) -> Self {
        Self::published(published::yolov3(classes.len(), 608, true), classes, (608, 608))
    }

    /// YOLOv3-tiny at 416×416.
    pub fn tiny(classes: &[String]) -> Self {
        Self::published(published::tiny(classes.len(), 416), classes, (416, 416))
    }

    fn published(cfg: String, classes: &[String], (height, width): (usize, usize)) -> Self {
        Self {
            cfg,
            score_threshold: 0.01,
            top_k: 1000,
            nms_threshold: 0.45,
            max_detections: 100,
            norm_epsilon: default_norm_epsilon(),
            offsets: Offsets::Logistic,
            classes: classes.to_vec(),
            objective: Objective::DARKNET,
            preprocess: framed(height, width, true),
        }
    }

    /// The same network for an input of another size, any multiple of 32 each way: letterboxed or stretched.
    pub fn sized(self, height: usize, width: usize, letterbox: bool) -> Self {
        Self { preprocess: framed(height, width, letterbox), ..self }
    }

    /// Height and width of the input, pixels.
    pub fn input(&self) -> (usize, usize) {
        input_of(&self.preprocess)
    }

    /// The same network for other classes: `classes=` of every detection layer and `filters=` of the convolution before
    /// it are rewritten.
    ///
    /// # Errors
    /// A cfg that makes no network.
    pub fn with_classes(&self, classes: &[String]) -> Result<Self, CfgError> {
        let cfg = rewritten(&self.cfg, classes.len())?;
        plan(&parse(&cfg)?, self.input())?;
        Ok(Self { cfg, classes: classes.to_vec(), ..self.clone() })
    }

    /// Priors among which the detection layers choose; 0 for a cfg that does not read.
    pub fn priors(&self) -> usize {
        let plan = parse(&self.cfg).and_then(|sections| plan(&sections, self.input()));
        plan.ok().and_then(|plan| plan.yolos().map(|yolo| yolo.anchors.len()).max()).unwrap_or(0)
    }

    /// The same network with other priors, width and height in input pixels, by rising area: `anchors=` of every
    /// detection layer is rewritten, whose masks stay.
    ///
    /// # Errors
    /// A cfg that makes no network, or another number of priors than it has.
    pub fn with_priors(&self, priors: &[[f32; 2]]) -> Result<Self, CfgError> {
        let sections = parse(&self.cfg)?;
        let mut lines = lines_of(&self.cfg);
        let sides: Vec<String> = priors.iter().flatten().map(|side| format!("{side:.2}")).collect();
        for section in sections.iter().filter(|section| section.name == "yolo") {
            put(&mut lines, section, "anchors", &sides.join(","));
        }
        let cfg = lines.join("\n") + "\n";
        plan(&parse(&cfg)?, self.input())?;
        Ok(Self { cfg, ..self.clone() })
    }
}

/// The objective that the detection layers agree on.
fn objective(sections: &[Section], plan: &Plan) -> Result<Objective, CfgError> {
    let mut first: Option<Objective> = None;
    for (section, yolo) in sections.iter().filter(|section| section.name == "yolo").zip(plan.yolos()) {
        let own = objective_of(yolo);
        match first {
            Some(agreed) if agreed != own => {
                let reason = "its thresholds and weights differ from the first [yolo] layer's, all need the same";
                return Err(section.fault(reason.to_owned()));
            }
            _ => first = Some(own),
        }
    }
    Ok(first.unwrap_or(Objective::DARKNET))
}

fn objective_of(yolo: &Yolo) -> Objective {
    let coordinates = match yolo.iou_loss.as_str() {
        "iou" => Coordinates::Iou,
        "giou" => Coordinates::Giou,
        "diou" => Coordinates::Diou,
        "ciou" => Coordinates::Ciou,
        _ => Coordinates::Parts,
    };
    Objective {
        ignore_threshold: yolo.ignore_threshold,
        shape_threshold: yolo.iou_threshold,
        coordinates,
        xy_weight: yolo.iou_weight,
        wh_weight: yolo.iou_weight,
        box_weight: yolo.iou_weight,
        objectness_weight: yolo.objectness_weight,
        class_weight: yolo.class_weight,
        ..Objective::DARKNET
    }
}

/// The lines of a cfg, to be changed one by one.
fn lines_of(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

/// Sets `key` of a section of these lines. Line numbers stay what they are: a new key shares the line of the header.
fn put(lines: &mut [String], section: &Section, key: &str, value: &str) {
    let written = format!("{key}={value}");
    match section.get(key) {
        Some(entry) => {
            if let Some(line) = lines.get_mut(entry.line - 1) {
                *line = written;
            }
        }
        None => {
            if let Some(line) = lines.get_mut(section.line - 1) {
                *line = format!("{line}\n{written}");
            }
        }
    }
}

/// The text with `classes` classes.
fn rewritten(text: &str, classes: usize) -> Result<String, CfgError> {
    let sections = parse(text)?;
    let mut lines = lines_of(text);
    for pair in sections.windows(2) {
        let [before, section] = pair else {
            continue;
        };
        if section.name != "yolo" {
            continue;
        }
        let anchors = section.list::<f32>("anchors")?.map_or(0, |sides| sides.len() / 2);
        let per_cell = section.list::<usize>("mask")?.map_or(anchors, |mask| mask.len());
        if before.name != "convolutional" {
            return Err(section.fault("needs a convolution before it to change the classes".to_owned()));
        }
        put(&mut lines, section, "classes", &classes.to_string());
        put(&mut lines, before, "filters", &per_cell.saturating_mul(classes.saturating_add(5)).to_string());
    }
    Ok(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(count: usize) -> Vec<String> {
        (0..count).map(|k| format!("c{k}")).collect()
    }

    const CFG: &str = "[net]\nwidth=64\nheight=32\n[convolutional]\nactivation=linear\nfilters=12\n\
        [yolo]\nanchors=4,5, 6,7\nclasses=1\nignore_thresh=.6\niou_loss=ciou\niou_normalizer=.07\niou_thresh=.213\n";

    #[test]
    fn a_cfg_gives_size_classes_and_objective() {
        let config = DarknetConfig::read(CFG).unwrap();
        assert_eq!((config.input(), config.classes.len()), ((32, 64), 1));
        let objective = config.objective;
        assert_eq!((objective.ignore_threshold, objective.shape_threshold), (0.6, 0.213));
        assert_eq!((objective.coordinates, objective.box_weight), (Coordinates::Ciou, 0.07));
        assert_eq!(config.clone().sized(64, 96, false).input(), (64, 96));
        let text = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<DarknetConfig>(&text).unwrap(), config, "{text}");
    }

    #[test]
    fn detection_layers_that_disagree_are_an_error_of_the_second() {
        let text = format!("{CFG}[route]\nlayers=0\n[yolo]\nanchors=4,5, 6,7\nclasses=1\nignore_thresh=.5\n");
        let error = DarknetConfig::read(&text).unwrap_err();
        assert!(error.line == 16 && error.reason.contains("differ"), "{error}");
    }

    #[test]
    fn other_classes_change_the_layers_before_the_detection_layers() {
        let config = DarknetConfig::read(CFG).unwrap().with_classes(&named(7)).unwrap();
        assert!(config.cfg.contains("filters=24\n") && config.cfg.contains("classes=7\n"), "{}", config.cfg);
        assert_eq!(DarknetConfig::read(&config.cfg).unwrap().classes.len(), 7);
        // a text that leaves the classes to darknet's default of 20
        let silent = CFG.replace("classes=1\n", "").replace("filters=12", "filters=50");
        let three = DarknetConfig::read(&silent).unwrap().with_classes(&named(3)).unwrap();
        assert_eq!(DarknetConfig::read(&three.cfg).unwrap().classes.len(), 3);
        let tiny = DarknetConfig::tiny(&named(80)).with_classes(&named(2)).unwrap();
        assert_eq!(tiny.cfg.matches("filters=21\n").count(), 2);
    }

    #[test]
    fn other_priors_stand_in_every_detection_layer_and_their_number_stays() {
        let tiny = DarknetConfig::tiny(&named(2));
        let priors: Vec<[f32; 2]> = (1..=6).map(|k| [k as f32 * 10.0, k as f32 * 12.25]).collect();
        assert_eq!(tiny.priors(), 6);
        let own = tiny.with_priors(&priors).unwrap();
        let plan = plan(&parse(&own.cfg).unwrap(), own.input()).unwrap();
        assert!(plan.yolos().all(|yolo| yolo.anchors == priors));
        assert_eq!(plan.yolos().map(|yolo| yolo.mask[0]).collect::<Vec<_>>(), [3, 0]);
        assert!(tiny.with_priors(&priors[..5]).unwrap_err().reason.contains("pairs"));
    }

    #[test]
    fn the_input_of_a_fit_that_follows_the_picture_is_rounded_up() {
        let fit = Fit::ShortestEdgeRounded { short: 400, long: 416, divisor: 32 };
        assert_eq!(input_of(&Preprocess { fit, ..framed(32, 32, true) }), (416, 416));
    }
}
