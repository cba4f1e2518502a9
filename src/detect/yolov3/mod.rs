//! YOLOv3 on Darknet-53 in mmdet's layout, and the narrow YOLOv3 of the same topology.
//!
//! Redmon & Farhadi, "YOLOv3: An Incremental Improvement" (2018). Names, targets and losses follow mmdet's
//! `yolov3_d53`; the detection layer and darknet's own targets are those of [`super::darknet`]. Levels are listed
//! coarsest first.

mod config;
mod network;

pub use config::Yolov3Config;

use super::darknet::head::{Head, Level};
use super::darknet::{check_input, decode, loss};
use super::suppress::Limits;
use super::{Config, Detector, Losses, Outputs};
use crate::geometry::{Detection, Object};
use crate::nn::{Params, Pass};
use candle_core::{Device, Result, Tensor};
use network::Network;

/// The network and its settings.
#[derive(Debug)]
pub struct Yolov3 {
    config: Config,
    yolo: Yolov3Config,
    params: Params,
    network: Network,
    head: Head,
}

/// The grid that the settings describe. All priors compete for an object, whatever their level.
fn head_of(config: &Yolov3Config) -> Head {
    let priors: Vec<[f32; 2]> = config.anchors.iter().flatten().copied().collect();
    let mut start = 0;
    let mut levels = Vec::with_capacity(config.anchors.len());
    for (index, own) in config.anchors.iter().enumerate() {
        let mask = (start..start + own.len()).collect();
        levels.push(Level { output: format!("bbox_head.0.{index}"), priors: priors.clone(), mask, scale_xy: 1.0 });
        start += own.len();
    }
    Head { levels, classes: config.classes.len(), offsets: config.offsets }
}

impl Yolov3 {
    /// # Errors
    /// Settings that make no network (another number of levels than three, a level without priors, odd widths, no
    /// classes), or a device that cannot hold it.
    pub fn new(config: &Yolov3Config, device: &Device, seed: u64) -> Result<Self> {
        check_input(config.input())?;
        if config.anchors.len() != 3 || config.anchors.iter().any(Vec::is_empty) {
            let levels: Vec<usize> = config.anchors.iter().map(Vec::len).collect();
            candle_core::bail!("YOLOv3 has three levels with at least one prior each, not {levels:?}");
        }
        let proper = |side: f32| side.is_finite() && side > 0.0;
        if !config.anchors.iter().flatten().flatten().all(|&side| proper(side)) {
            candle_core::bail!("the sides of priors need to be above 0, not {:?}", config.anchors);
        }
        if config.stem == 0 || config.stages.iter().any(|width| *width == 0 || !width.is_multiple_of(2)) {
            candle_core::bail!("the widths of stages need to be even and above 0, not {:?}", config.stages);
        }
        if config.classes.is_empty() {
            candle_core::bail!("a detector needs at least one class");
        }
        let head = head_of(config);
        let params = Params::new(device, seed);
        let network = Network::new(&params, config, &head)?;
        Ok(Self { config: Config::Yolov3(config.clone()), yolo: config.clone(), params, network, head })
    }
}

impl Detector for Yolov3 {
    fn config(&self) -> &Config {
        &self.config
    }

    fn params(&self) -> &Params {
        &self.params
    }

    fn forward(&self, images: &Tensor, pass: &Pass) -> Result<Outputs> {
        let (count, _, height, width) = images.dims4()?;
        check_input((height, width))?;
        let maps = self.network.forward(images, pass)?;
        let mut outputs = Outputs { tensors: Vec::new(), maps: Vec::new(), input: (height, width) };
        for map in &maps.head {
            let (_, _, rows, columns) = map.dims4()?;
            outputs.maps.push((rows, columns));
        }
        for (prefix, tensors) in [("backbone", maps.backbone), ("neck", maps.neck), ("bbox_head.0", maps.head)] {
            let named = tensors.into_iter().enumerate().map(|(index, map)| (format!("{prefix}.{index}"), map));
            outputs.tensors.extend(named);
        }
        if pass.is_probed() {
            let anchors = self.head.anchors(&outputs);
            for image in 0..count {
                pass.trace(image, |t| t.anchors.clone_from(&anchors));
            }
        }
        Ok(outputs)
    }

    fn losses(&self, outputs: &Outputs, objects: &[Vec<Object>], pass: &Pass) -> Result<Losses> {
        loss::losses(&self.head, &self.yolo.objective, outputs, objects, pass)
    }

    fn detect(&self, outputs: &Outputs, pass: &Pass) -> Result<Vec<Vec<Detection>>> {
        let limits = Limits {
            score_threshold: self.yolo.score_threshold,
            top_k_per_class: self.yolo.top_k,
            nms_threshold: self.yolo.nms_threshold,
            max_detections: self.yolo.max_detections,
        };
        decode::detect(&self.head, &limits, outputs, pass)
    }

    fn layouts(&self) -> &'static [&'static str] {
        &["mmdet", "darknet"]
    }
}

#[cfg(test)]
mod tests {
    use super::super::darknet::weights::checkpoint;
    use super::*;
    use crate::geometry::BBox;
    use crate::nn::{Mode, Role};
    use crate::random::Random;
    use crate::weights::{DarknetHeader, DarknetWeights};

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|k| format!("c{k}")).collect()
    }

    /// The topology as narrow and short as it can be.
    fn thin() -> Yolov3Config {
        Yolov3Config { stem: 2, stages: [2, 4, 4, 6, 8], blocks: [1, 0, 1, 0, 1], ..Yolov3Config::nano(&names(2)) }
            .sized(64, 96, true)
    }

    #[test]
    fn parameters_have_mmdets_names() -> Result<()> {
        let detector = Yolov3::new(&thin(), &Device::Cpu, 1)?;
        let params = detector.params().all();
        // 6 + 3·2 convolutions with batch norm below, 15 + 2 + 3 above, and 3 with a bias
        assert_eq!(params.len(), 5 * (6 + 3 * 2 + 20) + 2 * 3);
        for (name, shape) in [
            ("backbone.conv1.conv.weight", vec![2, 3, 3, 3]),
            ("backbone.conv_res_block1.conv.bn.running_var", vec![2]),
            ("backbone.conv_res_block5.res0.conv2.conv.weight", vec![8, 4, 3, 3]),
            ("neck.detect1.conv1.conv.weight", vec![4, 8, 1, 1]),
            ("neck.conv1.conv.weight", vec![3, 4, 1, 1]),
            ("neck.detect2.conv1.conv.weight", vec![3, 9, 1, 1]),
            ("neck.detect3.conv5.bn.bias", vec![2]),
            ("bbox_head.convs_bridge.2.conv.weight", vec![4, 2, 3, 3]),
            ("bbox_head.convs_pred.2.weight", vec![21, 4, 1, 1]),
        ] {
            assert_eq!(detector.params().get(name).map(|p| p.var.dims().to_vec()), Some(shape), "{name}");
        }
        Ok(())
    }

    #[test]
    fn darknet_weights_fill_it_in_darknets_order() -> Result<()> {
        let detector = Yolov3::new(&thin(), &Device::Cpu, 1)?;
        let header = DarknetHeader { major: 0, minor: 2, revision: 0, seen: 0, bytes: 20 };
        let count = detector.params().elements();
        let weights = DarknetWeights { header, floats: (0..count).map(|i| i as f32).collect() };
        let file = checkpoint(detector.params(), &weights).unwrap();
        assert!(detector.params().load(&file).unwrap().is_complete());
        let values = detector.params().values()?;
        let first = |name: &str| values[name].1[0] as usize;
        assert_eq!(first("backbone.conv1.bn.bias"), 0);
        assert_eq!(first("backbone.conv1.conv.weight"), 8);
        // the coarsest level is whole before the way up to the next
        let order = [
            "backbone.conv_res_block5.res0.conv2.conv.weight",
            "neck.detect1.conv1.bn.bias",
            "neck.detect1.conv5.conv.weight",
            "bbox_head.convs_bridge.0.bn.bias",
            "bbox_head.convs_pred.0.bias",
            "bbox_head.convs_pred.0.weight",
            "neck.conv1.bn.bias",
            "neck.detect2.conv1.bn.bias",
            "bbox_head.convs_pred.1.weight",
            "neck.conv2.bn.bias",
            "neck.detect3.conv5.conv.weight",
            "bbox_head.convs_pred.2.bias",
        ];
        assert!(order.windows(2).all(|pair| first(pair[0]) < first(pair[1])));
        // 3·(5 + 2) filters of 4 channels end the file
        assert_eq!(first("bbox_head.convs_pred.2.weight"), count - 21 * 4);
        Ok(())
    }

    #[test]
    fn a_still_backbone_keeps_its_statistics_and_the_neck_does_not() -> Result<()> {
        let detector = Yolov3::new(&Yolov3Config { still_backbone: true, ..thin() }, &Device::Cpu, 1)?;
        let pass = Pass::new(Mode::Train);
        detector.forward(&Tensor::rand(0f32, 1.0, (2, 3, 64, 96), &Device::Cpu)?, &pass)?;
        pass.commit()?;
        let values = detector.params().values()?;
        let moved = |part: &str| {
            let means = values.iter().filter(|(name, _)| name.starts_with(part) && name.ends_with("running_mean"));
            means.flat_map(|(_, (_, values))| values).any(|&mean| mean != 0.0)
        };
        assert!(!moved("backbone") && moved("neck") && moved("bbox_head"));
        Ok(())
    }

    #[test]
    fn a_batch_learns_and_its_traces_are_filled() -> Result<()> {
        let detector = Yolov3::new(&thin(), &Device::Cpu, 1)?;
        let mut random = Random::new(2);
        let pixels: Vec<f32> = (0..2 * 3 * 64 * 96).map(|_| random.unit()).collect();
        let images = Tensor::from_vec(pixels, (2, 3, 64, 96), &Device::Cpu)?;
        let pass = Pass::probed(Mode::Train, 2);
        let outputs = detector.forward(&images, &pass)?;
        assert_eq!(outputs.maps, [(2, 3), (4, 6), (8, 12)]);
        assert_eq!(outputs.get("backbone.0")?.dims(), [2, 4, 8, 12]);
        assert_eq!(outputs.get("neck.1")?.dims(), [2, 3, 4, 6]);
        assert_eq!(outputs.get("bbox_head.0.2")?.dims(), [2, 21, 8, 12]);
        let object = Object { bbox: BBox::new(3.0, 4.0, 28.0, 27.0), class: 1, ..Object::default() };
        let total = detector.losses(&outputs, &[vec![object], Vec::new()], &pass)?.total()?;
        let gradients = total.backward()?;
        for param in detector.params().all() {
            let reached = gradients.get(param.var.as_tensor()).is_some();
            assert_eq!(reached, param.role != Role::Buffer, "{}", param.name);
        }
        detector.detect(&outputs, &pass)?;
        pass.commit()?;
        let traces = pass.into_traces();
        let trace = &traces[0];
        assert_eq!((trace.anchors.boxes.len(), trace.anchors.levels.len()), (3 * (6 + 24 + 96), 3));
        assert_eq!(trace.anchors.levels[2].stride, 8.0);
        let assignment = trace.assignment.as_ref().unwrap();
        // 25×23 in the middle (15.5, 15.5): the 21×21 prior of the finest level, cell (1, 1)
        let positives: Vec<usize> = (0..assignment.target.len()).filter(|&a| assignment.target[a] == 0).collect();
        assert_eq!(positives, [3 * (6 + 24) + (12 + 1) * 3 + 2]);
        assert!(trace.suppression.is_some() && trace.losses.iter().all(|part| part.per_anchor.len() == 378));
        Ok(())
    }

    #[test]
    fn settings_that_make_no_network_are_errors() {
        let make = |change: fn(&mut Yolov3Config)| {
            let mut config = thin();
            change(&mut config);
            Yolov3::new(&config, &Device::Cpu, 1).map(|_| ())
        };
        assert!(make(|_| {}).is_ok());
        assert!(make(|c| c.anchors.truncate(2)).is_err());
        assert!(make(|c| c.anchors[1].clear()).is_err());
        assert!(make(|c| c.anchors[0][0] = [0.0, 4.0]).is_err());
        assert!(make(|c| c.stages[4] = 7).is_err());
        assert!(make(|c| c.classes.clear()).is_err());
        assert!(make(|c| c.preprocess = thin().sized(60, 64, true).preprocess).is_err());
    }
}
