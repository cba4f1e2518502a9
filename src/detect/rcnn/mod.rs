//! The two-stage family: Faster, Mask and Cascade R-CNN on a feature pyramid or on C4, one network with one
//! configuration.
//!
//! Ren et al., "Faster R-CNN" (NIPS 2015); He et al., "Mask R-CNN" (ICCV 2017); Cai & Vasconcelos, "Cascade R-CNN"
//! (CVPR 2018). Names are torchvision's (`fasterrcnn_resnet50_fpn`, `maskrcnn_resnet50_fpn`); the heads of a cascade
//! carry their stage's number.

mod box_head;
mod box_loss;
mod cascade;
mod config;
mod decode;
mod given;
mod mask_decode;
mod mask_head;
mod mask_loss;
mod names;
mod paste;
mod picture;
mod proposals;
mod published;
mod refine;
mod regions;
mod rpn;
mod rpn_loss;
mod sample;
mod stage_outputs;

pub use config::{
    Background, Flow, LevelRule, MaskConfig, MaskTargets, Paste, Pooling, RcnnConfig, RoiSource, RpnConfig, ScoreMerge,
    StageConfig, Trunk,
};
pub use given::GivenProposals;
pub use names::native_name;
pub use paste::{Patch, mask_in_picture};

use super::multibox::corners;
use super::{Config, Detector, Losses, Outputs};
use crate::geometry::{Detection, Object};
use crate::nn::backbone::resnet::ResNet;
use crate::nn::neck::fpn::Fpn;
use crate::nn::{Params, Pass};
use crate::ops::select::fetch;
use crate::random::{Random, mix};
use crate::trace::Anchors;
use box_head::{Answers, BoxHead};
use candle_core::{Device, Result, Tensor};
use mask_head::MaskHead;
use picture::Sizes;
use proposals::{Limits, Proposals, Proposed};
use regions::Pooled;
use rpn::RpnHead;
use sample::{OnDevice, Sampler};
use std::rc::Rc;

/// Name of the pictures' heights and widths `[N, 2]` among the outputs.
const PICTURE_SIZES: &str = "image_sizes";

/// The network and its settings.
#[derive(Debug)]
pub struct Rcnn {
    config: Config,
    rcnn: RcnnConfig,
    params: Params,
    backbone: ResNet,
    /// None on C4.
    neck: Option<Fpn>,
    rpn: RpnHead,
    heads: Vec<BoxHead>,
    /// One for each stage or one for all; none without a mask branch.
    masks: Vec<MaskHead>,
    seed: u64,
}

/// Everything between the maps and the detections of a batch.
struct Found {
    levels: Vec<Tensor>,
    sizes: Sizes,
    proposals: Vec<Proposals>,
    steps: Vec<decode::Step>,
}

impl Rcnn {
    /// # Errors
    /// Settings that make no network (see [`RcnnConfig::check`]), or a device that cannot hold it.
    pub fn new(config: &RcnnConfig, device: &Device, seed: u64) -> Result<Self> {
        config.check()?;
        let params = Params::new(device, seed);
        let root = params.root();
        let trunk = root.enter("backbone");
        let backbone = ResNet::new(&trunk.enter("body"), &config.backbone)?;
        let neck = match config.trunk {
            Trunk::Pyramid => Some(Fpn::new(&trunk.enter("fpn"), &config.backbone.channels(), &config.neck)?),
            Trunk::C4 => None,
        };
        let rpn = RpnHead::new(&root.enter("rpn").enter("head"), config.map_channels(), &config.rpn)?;
        let scope = root.enter("roi_heads");
        let mut heads = Vec::with_capacity(config.heads());
        for stage in 0..config.heads() {
            let number = config.is_cascade().then_some(stage);
            heads.push(BoxHead::new(&scope, config, number, regresses(config, stage))?);
        }
        let mut masks = Vec::new();
        if let Some(mask) = &config.mask {
            if mask.mask_per_stage && config.is_cascade() {
                for stage in 0..config.heads() {
                    masks.push(MaskHead::new(&scope, config, mask, Some(stage))?);
                }
            } else {
                masks.push(MaskHead::new(&scope, config, mask, None)?);
            }
        }
        let rcnn = config.clone();
        let config = Config::Rcnn(rcnn.clone());
        Ok(Self { config, rcnn, params, backbone, neck, rpn, heads, masks, seed })
    }

    /// Whether the head of `stage` has a regression.
    fn regresses(&self, stage: usize) -> bool {
        regresses(&self.rcnn, stage)
    }

    /// The maps that the RPN reads, finest first, by their names among outputs and taps.
    fn maps(&self, images: &Tensor, pass: &Pass) -> Result<Vec<(String, Tensor)>> {
        let Some(neck) = &self.neck else {
            let c4 = pass.stage("backbone", || self.backbone.c4(images, pass))?;
            return Ok(vec![("res4".to_string(), c4)]);
        };
        let stages = pass.stage("backbone", || self.backbone.forward(images, pass))?;
        let levels = pass.stage("neck", || neck.forward(&stages, pass))?;
        Ok(neck.names().iter().map(|name| format!("fpn.{name}")).zip(levels).collect())
    }

    /// The maps that RoIs read, finest first: the first among the outputs.
    fn levels(&self, outputs: &Outputs) -> Vec<Tensor> {
        outputs.tensors.iter().take(self.rcnn.roi_levels).map(|(_, map)| map.clone()).collect()
    }

    /// What `head` says about RoIs. On C4 it reads the mean of what the backbone's last stage makes of them.
    fn ask(&self, head: &BoxHead, pooled: &Pooled, pass: &Pass) -> Result<Answers> {
        match self.rcnn.trunk {
            Trunk::Pyramid => head.forward(pooled, pass),
            Trunk::C4 => {
                let features = self.backbone.last_stage(&pooled.features, pass)?.mean((2, 3))?;
                head.forward(&Pooled { features, rows: pooled.rows.clone() }, pass)
            }
        }
    }

    /// Height and width of each picture within the input.
    fn sizes(&self, outputs: &Outputs) -> Result<Sizes> {
        Ok(Sizes::new(outputs.get(PICTURE_SIZES)?.clone()))
    }

    /// Proposals of each image from objectness `[N, anchors]` and box codes `[N, anchors, 4]`.
    fn proposals(
        &self,
        anchors: &Anchors,
        (logits, deltas): (&Tensor, &Tensor),
        sizes: &[(f32, f32)],
        limits: Limits,
        pass: &Pass,
    ) -> Result<Vec<Proposals>> {
        pass.stage("proposals", || proposals::propose(&self.rcnn.rpn, limits, anchors, (logits, deltas), sizes))
    }

    /// What one iteration's samples are drawn by. It follows from the seed, the network's answers and the objects: the
    /// same iteration draws the same samples, also when a run is taken up again, and the next one draws others.
    fn sampler(&self, logits: &Tensor, objects: &[Vec<Object>]) -> Result<Sampler> {
        if logits.device().is_cuda() {
            return Ok(Sampler::Cuda(Rc::new(OnDevice::new(&self.rcnn, logits, objects, self.seed)?)));
        }
        let values = fetch(&logits.detach())?.into_iter().chain(sample::sides(objects));
        let digest = values.fold(0u64, |digest, v| mix(digest ^ u64::from(v.to_bits())));
        Ok(Sampler::Cpu(Random::keyed(self.seed, &[digest])))
    }

    /// Proposals and what the box heads say about them.
    fn look(&self, outputs: &Outputs, pass: &Pass) -> Result<Found> {
        let sizes = self.sizes(outputs)?;
        let proposals = match given::given(outputs, &sizes)? {
            Some(given) => given,
            None => {
                let (logits, deltas) = rpn::answers(outputs)?;
                let anchors = rpn::anchors(&self.rcnn.rpn, outputs);
                let limits = Limits::detecting(&self.rcnn.rpn);
                self.proposals(&anchors, (&logits, &deltas), sizes.values()?, limits, pass)?
            }
        };
        let levels = self.levels(outputs);
        let steps = decode::steps(self, &levels, &proposals, sizes.values()?, pass)?;
        Ok(Found { levels, sizes, proposals, steps })
    }
}

/// Whether the head of `stage` has a regression: with the integral loss only the first one has.
fn regresses(config: &RcnnConfig, stage: usize) -> bool {
    stage == 0 || config.flow == Flow::Cascade
}

impl Detector for Rcnn {
    fn stage_outputs(&self, outputs: &Outputs, pass: &Pass) -> Result<Vec<(String, Tensor)>> {
        Self::stage_outputs(self, outputs, pass)
    }

    fn config(&self) -> &Config {
        &self.config
    }

    fn params(&self) -> &Params {
        &self.params
    }

    fn forward(&self, images: &Tensor, pass: &Pass) -> Result<Outputs> {
        let (count, _, height, width) = images.dims4()?;
        let sizes = picture::sizes(images, self.rcnn.preprocess.fit)?;
        let tensors = self.maps(images, pass)?;
        let mut maps = Vec::with_capacity(tensors.len());
        for (level, (name, map)) in tensors.iter().enumerate() {
            pass.tap(name, level, map)?;
            let (_, _, rows, columns) = map.dims4()?;
            maps.push((rows, columns));
        }
        let answers = pass.stage("rpn", || self.rpn.forward(&tensors, pass))?;
        let mut outputs = Outputs { tensors, maps, input: (height, width) };
        for (level, (logits, deltas)) in answers.into_iter().enumerate() {
            outputs.tensors.push((rpn::logits_name(level), logits));
            outputs.tensors.push((rpn::deltas_name(level), deltas));
        }
        outputs.tensors.push((PICTURE_SIZES.to_string(), sizes));
        if pass.is_probed() {
            let anchors = rpn::anchors(&self.rcnn.rpn, &outputs);
            for image in 0..count {
                pass.trace(image, |t| t.anchors.clone_from(&anchors));
            }
        }
        Ok(outputs)
    }

    fn losses(&self, outputs: &Outputs, objects: &[Vec<Object>], pass: &Pass) -> Result<Losses> {
        let (logits, deltas) = rpn::answers(outputs)?;
        let sizes = self.sizes(outputs)?;
        let config = &self.rcnn.rpn;
        let mut sampler = self.sampler(&logits, objects)?;
        let (mut parts, proposed) = match given::given(outputs, &sizes)? {
            Some(given) => (Vec::new(), Proposed::Cpu(given)),
            None => {
                let anchors = rpn::anchors(config, outputs);
                let device = logits.device();
                let there = device.is_cuda().then(|| corners(&anchors.boxes, device)).transpose()?;
                let (all, answers) = ((&anchors, there.as_ref()), (&logits, &deltas));
                let parts = rpn_loss::losses(config, all, answers, objects, &sizes, &mut sampler, pass)?;
                let proposed = match self.rcnn.roi_source {
                    RoiSource::Rpn => pass.stage("proposals", || {
                        proposals::proposed(config, &anchors, there.as_ref(), answers, &sizes)
                    })?,
                    RoiSource::JitteredObjects => {
                        let mut own;
                        let rng = match &mut sampler {
                            Sampler::Cpu(rng) => rng,
                            Sampler::Cuda(there) => {
                                own = there.generator()?;
                                &mut own
                            }
                        };
                        let rule = (self.rcnn.jittered_rois, self.rcnn.jitter);
                        let of_image =
                            |(objects, &size): (&Vec<Object>, &(f32, f32))| given::jittered(objects, rule, size, rng);
                        Proposed::Cpu(objects.iter().zip(sizes.values()?).map(of_image).collect())
                    }
                };
                (parts, proposed)
            }
        };
        let levels = self.levels(outputs);
        parts.extend(cascade::losses(self, &levels, &proposed, objects, &sizes, &mut sampler, pass)?);
        Ok(Losses { parts })
    }

    fn detect(&self, outputs: &Outputs, pass: &Pass) -> Result<Vec<Vec<Detection>>> {
        let found = self.look(outputs, pass)?;
        let (Found { levels, proposals, steps, .. }, sizes) = (&found, found.sizes.values()?);
        let mut detections = decode::detect(self, levels, proposals, steps, sizes, pass)?;
        if let Some(mask) = &self.rcnn.mask {
            mask_decode::attach(self, mask, levels, &mut detections, sizes, pass)?;
        }
        Ok(detections)
    }

    fn layouts(&self) -> &'static [&'static str] {
        &["torchvision", "mmdet", "detectron2"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{BBox, Mask};
    use crate::nn::Mode;
    use crate::nn::backbone::resnet::ResNetConfig;
    use crate::nn::neck::fpn::FpnConfig;

    const SIDES: (usize, usize) = (64, 96);

    fn names() -> Vec<String> {
        ["a", "b", "c"].map(String::from).to_vec()
    }

    fn tiny(config: RcnnConfig) -> RcnnConfig {
        RcnnConfig {
            head_width: 16,
            backbone: ResNetConfig { width: 4, ..config.backbone },
            neck: FpnConfig { channels: 8, ..config.neck },
            mask: config.mask.map(|mask| MaskConfig { mask_width: 8, mask_pooled: 4, ..mask }),
            ..config
        }
    }

    /// One of each kind that the settings can express.
    fn kinds() -> Vec<RcnnConfig> {
        let (faster, mask) = (RcnnConfig::faster_nano(&names()), RcnnConfig::mask_nano(&names()));
        let cascade = RcnnConfig::cascade_nano(&names());
        let per_stage = mask.mask.map(|mask| MaskConfig {
            mask_per_stage: true,
            mask_targets: MaskTargets::Majority,
            paste: Paste::PixelCenters,
            ..mask
        });
        vec![
            tiny(faster.clone()),
            tiny(mask.clone()),
            tiny(cascade.clone()),
            tiny(RcnnConfig { mask: per_stage, ..cascade.clone() }),
            tiny(RcnnConfig { mask: mask.mask, class_agnostic: false, resample: false, ..cascade.clone() }),
            tiny(RcnnConfig { flow: Flow::Integral, score_merge: ScoreMerge::Probabilities, ..cascade.clone() }),
            tiny(RcnnConfig { score_merge: ScoreMerge::LastRois, pooled_gradient: 0.5, ..cascade }),
            tiny(RcnnConfig { flow: Flow::Iterative, pooling: Pooling::Max, ..faster.clone() }),
            tiny(RcnnConfig { normalize_deltas: false, roi_source: RoiSource::JitteredObjects, ..faster.clone() }),
            tiny(mask.second()),
            tiny(RcnnConfig { backbone: faster.backbone, ..RcnnConfig::c4(&names()) }),
        ]
    }

    fn build(config: &RcnnConfig) -> Result<Rcnn> {
        Rcnn::new(config, &Device::Cpu, 7)
    }

    fn pictures(count: usize) -> Result<Tensor> {
        let mut rng = Random::new(3);
        let values: Vec<f32> = (0..count * 3 * SIDES.0 * SIDES.1).map(|_| rng.normal()).collect();
        Tensor::from_vec(values, (count, 3, SIDES.0, SIDES.1), &Device::Cpu)
    }

    fn object(bbox: BBox, class: u32) -> Object {
        let (height, width) = (SIDES.0 as u32, SIDES.1 as u32);
        let inside = |i: u32| bbox.contains((i % width) as f32 + 0.5, (i / width) as f32 + 0.5);
        let bitmap: Vec<u8> = (0..height * width).map(|i| u8::from(inside(i))).collect();
        Object { bbox, class, mask: Mask::from_bitmap(height, width, &bitmap).ok(), ..Object::default() }
    }

    fn values(losses: &Losses) -> Result<Vec<f32>> {
        losses.parts.iter().map(|(_, part)| part.to_vec0::<f32>()).collect()
    }

    #[test]
    fn a_forward_pass_names_its_maps_as_torchvision_does() -> Result<()> {
        let network = build(&tiny(RcnnConfig::faster_nano(&names())))?;
        let pass = Pass::probed(Mode::Infer, 2);
        let outputs = network.forward(&pictures(2)?, &pass)?;
        assert_eq!(outputs.get("fpn.0")?.dims(), [2, 8, 16, 24]);
        assert_eq!(outputs.get("fpn.pool")?.dims(), [2, 8, 1, 2]);
        assert_eq!(outputs.get("rpn_head.logits1")?.dims(), [2, 6, 8, 12]);
        assert_eq!(outputs.get("rpn_head.deltas4")?.dims(), [2, 24, 1, 2]);
        assert_eq!(network.sizes(&outputs)?.values()?, [(64.0, 96.0); 2]);
        // 6 · (384 + 96 + 24 + 6 + 2)
        let traces = pass.into_traces();
        assert_eq!((traces[1].anchors.boxes.len(), traces[1].anchors.levels.len()), (3072, 5));
        assert!(traces[0].maps.iter().any(|map| map.name == "fpn.pool" && map.level == 4));
        for name in
            ["backbone.body.layer1.0.conv1.weight", "backbone.fpn.inner_blocks.3.0.bias", "rpn.head.conv.0.0.weight"]
        {
            assert!(network.params.get(name).is_some(), "{name}");
        }
        Ok(())
    }

    #[test]
    fn every_kind_learns_and_detects() -> Result<()> {
        let objects = [vec![object(BBox::new(8.0, 8.0, 40.0, 44.0), 2)], Vec::new()];
        for config in kinds() {
            let network = build(&config)?;
            let pass = Pass::new(Mode::Train);
            let outputs = network.forward(&pictures(2)?, &pass)?;
            let losses = network.losses(&outputs, &objects, &pass)?;
            assert!(values(&losses)?.iter().all(|v| v.is_finite()), "{:?}", losses.parts);
            let gradients = losses.total()?.backward()?;
            for param in network.params.trainable() {
                let gradient = gradients.get(param.var.as_tensor());
                assert!(gradient.is_some(), "{:?} {:?}: no gradient for {}", config.arch, config.flow, param.name);
            }
            let pass = Pass::new(Mode::Infer);
            let found = network.detect(&network.forward(&pictures(2)?, &pass)?, &pass)?;
            assert_eq!(found.len(), 2);
            for detection in found.iter().flatten() {
                let b = detection.bbox;
                assert!(b.is_proper() && b.x0 >= 0.0 && b.x1 <= 96.0 && b.y1 <= 64.0 && detection.class < 3);
                assert_eq!(detection.mask.as_ref().map(|m| (m.height, m.width)), config.mask.map(|_| (64, 96)));
            }
            assert!(found.iter().all(|of_image| of_image.len() <= config.max_detections));
        }
        Ok(())
    }

    #[test]
    fn parts_are_named_after_their_stage_in_a_cascade() -> Result<()> {
        let parts = |config: RcnnConfig| -> Result<Vec<String>> {
            let (network, pass) = (build(&tiny(config))?, Pass::new(Mode::Infer));
            let objects = [vec![object(BBox::new(8.0, 8.0, 40.0, 44.0), 0)]];
            let losses = network.losses(&network.forward(&pictures(1)?, &pass)?, &objects, &pass)?;
            Ok(losses.parts.into_iter().map(|(name, _)| name).collect())
        };
        assert_eq!(
            parts(RcnnConfig::mask_nano(&names()))?,
            ["loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask"]
        );
        let cascade = parts(RcnnConfig { flow: Flow::Integral, ..RcnnConfig::cascade_nano(&names()) })?;
        // six classifiers, of which the first one regresses
        assert_eq!(cascade[2..5], ["s0.loss_classifier", "s0.loss_box_reg", "s1.loss_classifier"]);
        assert_eq!((cascade.len(), cascade[8].as_str()), (9, "s5.loss_classifier"));
        Ok(())
    }

    #[test]
    fn no_object_a_speck_and_two_thousand_are_finite() -> Result<()> {
        let speck = vec![object(BBox::new(30.0, 30.0, 31.0, 31.0), 1), object(BBox::new(5.0, 5.0, 5.0, 9.0), 0)];
        let crowd = (0..2000).map(|i| {
            let (x, y) = ((i % 90) as f32, (i / 90) as f32 * 2.5);
            Object { bbox: BBox::new(x, y, x + 4.0, y + 5.0), class: i % 3, ..Object::default() }
        });
        let cases = [Vec::new(), speck, crowd.collect()];
        for config in [RcnnConfig::mask_nano(&names()), RcnnConfig::cascade_nano(&names())] {
            let network = build(&tiny(config))?;
            let pass = Pass::new(Mode::Frozen);
            let outputs = network.forward(&pictures(1)?, &pass)?;
            for objects in &cases {
                let losses = network.losses(&outputs, std::slice::from_ref(objects), &pass)?;
                assert!(values(&losses)?.iter().all(|v| v.is_finite()), "{}: {:?}", objects.len(), losses.parts);
                losses.total()?.backward()?;
            }
        }
        Ok(())
    }

    #[test]
    fn nothing_proposed_is_nothing_found() -> Result<()> {
        for mut config in kinds() {
            config.rpn.proposal_min_size = 1e9;
            let (network, pass) = (build(&config)?, Pass::new(Mode::Infer));
            let outputs = network.forward(&pictures(2)?, &pass)?;
            assert_eq!(network.detect(&outputs, &pass)?, vec![Vec::new(), Vec::new()]);
            let objects = [vec![object(BBox::new(8.0, 8.0, 40.0, 44.0), 0)], Vec::new()];
            assert!(values(&network.losses(&outputs, &objects, &pass)?)?.iter().all(|v| v.is_finite()));
            assert!(
                values(&network.losses(&outputs, &[Vec::new(), Vec::new()], &pass)?)?.iter().all(|v| v.is_finite())
            );
            assert_eq!(network.stage_outputs(&outputs, &pass)?.len(), 1);
        }
        let config = RcnnConfig { score_threshold: 1.0, ..tiny(RcnnConfig::mask_nano(&names())) };
        let (network, pass) = (build(&config)?, Pass::new(Mode::Infer));
        assert!(network.detect(&network.forward(&pictures(1)?, &pass)?, &pass)?[0].is_empty());
        Ok(())
    }

    #[test]
    fn an_iteration_repeats_bit_for_bit_and_another_draws_anew() -> Result<()> {
        let network = build(&tiny(RcnnConfig::cascade_nano(&names())))?;
        let run = |bbox: BBox| -> Result<(Vec<u32>, Vec<u32>)> {
            let pass = Pass::probed(Mode::Frozen, 1);
            let losses = network.losses(&network.forward(&pictures(1)?, &pass)?, &[vec![object(bbox, 1)]], &pass)?;
            let anchors = pass.into_traces().remove(0).sampling.iter().map(|s| s.anchor).collect();
            Ok((values(&losses)?.iter().map(|v| v.to_bits()).collect(), anchors))
        };
        let bbox = BBox::new(8.0, 8.0, 40.0, 44.0);
        assert_eq!(run(bbox)?, run(bbox)?);
        assert_ne!(run(bbox)?.1, run(bbox.shift(0.001, 0.0))?.1);
        Ok(())
    }

    #[test]
    fn the_trace_follows_boxes_from_stage_to_stage() -> Result<()> {
        let network = build(&tiny(RcnnConfig::cascade_nano(&names())))?;
        let pass = Pass::probed(Mode::Infer, 1);
        let objects = [vec![object(BBox::new(8.0, 8.0, 40.0, 44.0), 1)]];
        let outputs = network.forward(&pictures(1)?, &pass)?;
        pass.trace(0, |t| t.objects.clone_from(&objects[0]));
        network.losses(&outputs, &objects, &pass)?;
        let found = network.detect(&outputs, &pass)?;
        let trace = pass.into_traces().remove(0);
        let stages: Vec<&str> = trace.proposals.iter().map(|stage| stage.name.as_str()).collect();
        let own = ["RPN", "stage 1", "stage 2", "stage 3"];
        assert_eq!((&stages[..4], stages[4], stages.len()), (&own[..], "training RPN", 8));
        for stage in &trace.proposals {
            let count = stage.boxes.len();
            assert!(
                count > 0 && stage.scores.len() == count && stage.iou.len() == count && stage.parent.len() == count
            );
        }
        let thresholds: Vec<Option<f32>> = trace.proposals[..4].iter().map(|stage| stage.threshold).collect();
        assert_eq!(thresholds, [Some(0.7), Some(0.5), Some(0.6), Some(0.7)]);
        // a loss has one value for each RoI that its stage learnt from
        let learnt =
            trace.losses.iter().find(|part| part.name == "s2.loss_classifier").map(|part| part.per_anchor.len());
        assert_eq!(learnt, Some(trace.proposals[7].boxes.len()));
        assert_eq!(trace.suppression.map(|s| s.kept.len()), Some(found[0].len()));
        let outputs = network.stage_outputs(&outputs, &Pass::new(Mode::Infer))?;
        let named: Vec<&str> = outputs.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(named[..3], ["proposals.boxes", "roi_pool", "box_predictor.0.logits"]);
        assert_eq!(outputs[0].1.dims(), [trace.proposals[0].boxes.len(), 4]);
        Ok(())
    }
}
