//! A network under rebuilt weights against a reference implementation's recorded numbers.
//!
//! Every parameter and the input follow from their names and element indices (FNV-1a and SplitMix64), so a fixture
//! carries no weights. Tolerances: outputs 1e-3 · abs_max + 1e-6, losses 1e-3 relative, gradients 5e-3 · abs_max,
//! detections one to one with IoU ≥ 0.99 and score within 2e-3.

use crate::detect::fcos::FcosConfig;
use crate::detect::rcnn::RcnnConfig;
use crate::detect::refinedet::RefinedetConfig;
use crate::detect::retinanet::RetinanetConfig;
use crate::detect::yolov3::Yolov3Config;
use crate::detect::{Arch, Config, Detector, Outputs, build, names::names_for};
use crate::geometry::{BBox, Mask, Object, iou};
use crate::imaging::preprocess::{Input, Placement};
use crate::nn::{Mode, Pass};
use crate::ops::conv::plainly;
use candle_core::{Device, Tensor};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Why a fixture could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum ParityError {
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    #[error("cannot read the fixture ({source}): {path}")]
    Read { source: std::io::Error, path: PathBuf },
    #[error("{reason}: {path}")]
    Unfit { reason: String, path: PathBuf },
}

/// All comparisons of one fixture.
#[derive(Debug)]
pub struct Parity {
    pub model: String,
    pub source: String,
    pub checks: Vec<Check>,
}

/// One recorded run of a reference implementation.
#[derive(Debug, Deserialize)]
struct Fixture {
    model: String,
    source: String,
    params: Vec<(String, Vec<usize>, f64, f64)>,
    input: RecordedInput,
    outputs: Vec<Sampled>,
    targets: Option<Targets>,
    #[serde(default)]
    losses: std::collections::BTreeMap<String, f64>,
    #[serde(default)]
    gradients: Vec<Sampled>,
    detections: Option<Found>,
    /// Normalised corners.
    detections_class_score_xyxy: Option<Vec<[f32; 6]>>,
}

#[derive(Debug, Deserialize)]
struct RecordedInput {
    name: String,
    shape: Vec<usize>,
    offset: f64,
    scale: f64,
}

/// A tensor of which some elements were written down.
#[derive(Debug, Deserialize)]
struct Sampled {
    name: String,
    shape: Vec<usize>,
    abs_max: f64,
    index: Vec<usize>,
    value: Vec<f64>,
}

#[derive(Debug, Deserialize)]
struct Targets {
    #[serde(default)]
    boxes: Vec<[f32; 4]>,
    #[serde(default)]
    boxes_normalised: Vec<[f32; 4]>,
    /// Background counts as 0.
    #[serde(default)]
    labels: Vec<u32>,
    #[serde(default)]
    labels_without_background: Vec<u32>,
    /// A word on the masks where there are any: ellipses inscribed in the boxes.
    masks: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Found {
    boxes: Vec<[f32; 4]>,
    scores: Vec<f32>,
    labels: Vec<u32>,
}

/// One comparison: the largest error found and the largest that is allowed.
#[derive(Debug)]
pub struct Check {
    pub name: String,
    pub error: f64,
    pub allowed: f64,
}

impl Check {
    pub fn agrees(&self) -> bool {
        self.error <= self.allowed
    }
}

/// Rebuilds the network that the fixture at `path` recorded and compares: with plain convolutions at the tolerances
/// above, or with the `quick` ones that training and detection use, at twice them. Their rounding differs (Winograd's
/// errors are about ten times larger) and flips ReLU masks near zero: in the gradient of SSD300's first layer, a sum
/// over the whole picture, any two kernels differ by 0.2 to 0.8 % of its largest element.
///
/// # Errors
/// A file that is no fixture, or one of a network that cannot be built.
pub fn compare_file(path: &Path, quick: bool) -> Result<Parity, ParityError> {
    let text = std::fs::read_to_string(path).map_err(|source| ParityError::Read { source, path: path.into() })?;
    let fixture: Fixture = serde_json::from_str(&text)
        .map_err(|e| ParityError::Unfit { reason: format!("this is no fixture ({e})"), path: path.into() })?;
    let mut checks = if quick { compare(&fixture, path)? } else { plainly(|| compare(&fixture, path))? };
    for check in checks.iter_mut().filter(|_| quick) {
        check.allowed *= 2.0;
    }
    Ok(Parity { model: fixture.model, source: fixture.source, checks })
}

fn unfit(reason: String, path: &Path) -> ParityError {
    ParityError::Unfit { reason, path: path.into() }
}

/// Element `index` of the tensor `name`, in [−1, 1).
fn unit(hash: u64, index: usize) -> f64 {
    let mut z = hash.wrapping_add((index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    (z >> 40) as f64 / f64::from(1 << 24) * 2.0 - 1.0
}

fn rebuilt(name: &str, count: usize, offset: f64, scale: f64) -> Vec<f32> {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    (0..count).map(|i| (offset + scale * unit(hash, i)) as f32).collect()
}

/// How a reference's recording maps onto a network of this program.
struct Case {
    config: Config,
    /// The input enters before the model's own preprocessing (pixels in [0, 1]) or after it.
    preprocessed: bool,
    /// Losses and gradients were recorded with batch norm in training mode, or with running statistics.
    loss_mode: Mode,
    /// What the reference adds to a class of this program.
    label_offset: u32,
    /// This program's name of a parameter, output or loss; none for what it does not compute.
    own_name: fn(&Config, &str) -> Option<String>,
}

fn same_name(_: &Config, name: &str) -> Option<String> {
    Some(name.to_string())
}

fn case(model: &str) -> Option<Case> {
    let case = |config: Config| Case {
        config,
        preprocessed: false,
        loss_mode: Mode::Frozen,
        label_offset: 1,
        own_name: same_name,
    };
    // torchvision's detectors with a ResNet were recorded with the V1 networks built afresh: ε 1e-5, losses in training
    // mode with every batch norm following its batch.
    let trained = |backbone: &mut crate::nn::backbone::resnet::ResNetConfig| {
        backbone.norm = crate::nn::backbone::resnet::Norm::Trained;
        backbone.epsilon = 1e-5;
        backbone.frozen_stages = 0;
    };
    let rcnn = |mut config: RcnnConfig| {
        config.rpn.anchor_samples = 10_000_000;
        config.roi_samples = 10_000_000;
        config
    };
    Some(match model {
        "torchvision_ssd300_vgg16" => case(Config::new(Arch::Ssd300, &names_for(90))),
        "torchvision_retinanet_resnet50_fpn" => {
            let mut config = RetinanetConfig::r50(&names_for(90));
            trained(&mut config.backbone);
            Case { loss_mode: Mode::Train, ..case(Config::Retinanet(config)) }
        }
        "torchvision_fcos_resnet50_fpn" => {
            let mut config = FcosConfig::r50(&names_for(90));
            trained(&mut config.backbone);
            Case { loss_mode: Mode::Train, ..case(Config::Fcos(config)) }
        }
        "torchvision_fasterrcnn_resnet50_fpn" | "torchvision_maskrcnn_resnet50_fpn" => {
            let names = names_for(90);
            let mask = model.contains("mask");
            let mut config = rcnn(if mask { RcnnConfig::mask(&names) } else { RcnnConfig::faster(&names) });
            trained(&mut config.backbone);
            Case { loss_mode: Mode::Train, ..case(Config::Rcnn(config)) }
        }
        "refinedet320_vgg16" => Case {
            preprocessed: true,
            ..case(Config::Refinedet(RefinedetConfig::refinedet320(&names_for(20)).with_luuuyi_rules()))
        },
        "m2det320_vgg" => Case {
            preprocessed: true,
            own_name: |config, name| match config {
                Config::M2det(config) => Some(config.own_name(name)),
                _ => None,
            },
            ..case(Config::new(Arch::M2det320, &names_for(80)))
        },
        "mmdet_yolov3_d53" => {
            let mut config = Yolov3Config::yolov3(&names_for(80)).sized(320, 320, true);
            // Two recorded boxes overlap by 0.450006: which of them stays is decided by the last bit.
            config.nms_threshold = 0.4501;
            Case { preprocessed: true, loss_mode: Mode::Train, label_offset: 0, ..case(Config::Yolov3(config)) }
        }
        _ => return None,
    })
}

fn compare(fixture: &Fixture, path: &Path) -> Result<Vec<Check>, ParityError> {
    let Some(case) = case(&fixture.model) else {
        return Err(unfit(format!("no architecture here answers to the fixture's model {:?}", fixture.model), path));
    };
    let detector = build(&case.config, &Device::Cpu, 0)?;
    let mut given = std::collections::BTreeSet::new();
    for (name, shape, offset, scale) in &fixture.params {
        if let Some(own) = (case.own_name)(&case.config, name) {
            detector.params().set(&own, &rebuilt(name, shape.iter().product(), *offset, *scale))?;
            given.insert(own);
        }
    }
    let own = detector.params().all().len();
    if given.len() != own {
        return Err(unfit(format!("the fixture has {} parameters and the network {own}", given.len()), path));
    }
    let (channels, height, width) = match fixture.input.shape[..] {
        [channels, height, width] | [1, channels, height, width] => (channels, height, width),
        _ => return Err(unfit(format!("an input of shape {:?}", fixture.input.shape), path)),
    };
    let count = channels * height * width;
    let pixels = rebuilt(&fixture.input.name, count, fixture.input.offset, fixture.input.scale);
    let input = if case.preprocessed {
        let size = (width as u32, height as u32);
        let placement =
            Placement { scale_x: 1.0, scale_y: 1.0, offset_x: 0.0, offset_y: 0.0, original: size, content: size };
        Input { width, height, planes: pixels, placement }
    } else {
        detector.preprocess().apply_planes(&pixels, width, height)
    };
    let images = Tensor::from_slice(&input.planes, (1, 3, input.height, input.width), &Device::Cpu)?;

    let mut checks = Vec::new();
    let infer = Pass::new(Mode::Infer);
    let outputs = detector.forward(&images, &infer)?;
    let further = detector.stage_outputs(&outputs, &infer)?;
    for sampled in &fixture.outputs {
        if sampled.name == "priors_cxcywh" {
            checks.push(sampled.check(&normalised_anchors(&*detector, &images)?, 1e-3, 1e-6)?);
            continue;
        }
        let ours = match further.iter().find(|(name, _)| *name == sampled.name) {
            Some((_, tensor)) => tensor,
            None => outputs.get(&sampled.name)?,
        };
        checks.push(sampled.check_rows(ours)?);
    }
    let found = detector.detect(&outputs, &infer)?.pop().unwrap_or_default();
    let (w, h) = (width as f32, height as f32);
    let found: Vec<(BBox, u32, f32)> = found
        .into_iter()
        .map(|d| (input.placement.to_original(d.bbox).clip(w, h), d.class + case.label_offset, d.score))
        .collect();
    if let Some(expected) = &fixture.detections {
        checks.extend(expected.check(&found));
    }
    if let Some(rows) = &fixture.detections_class_score_xyxy {
        let expected = Found {
            boxes: rows.iter().map(|r| [r[2] * w, r[3] * h, r[4] * w, r[5] * h]).map(|b| clipped(b, w, h)).collect(),
            scores: rows.iter().map(|r| r[1]).collect(),
            labels: rows.iter().map(|r| r[0] as u32).collect(),
        };
        checks.extend(expected.check(&found));
    }
    drop((outputs, further));
    if let Some(targets) = &fixture.targets {
        let objects = targets.objects(&case, &input, (w, h));
        checks.extend(losses(fixture, &case, &*detector, &images, &objects)?);
    }
    Ok(checks)
}

fn clipped(b: [f32; 4], width: f32, height: f32) -> [f32; 4] {
    let b = BBox::new(b[0], b[1], b[2], b[3]).clip(width, height);
    [b.x0, b.y0, b.x1, b.y1]
}

/// Anchors of a probed pass as centre and size, divided by the input's sides, `[P, 4]`.
fn normalised_anchors(detector: &dyn Detector, images: &Tensor) -> Result<Tensor, ParityError> {
    let (_, _, height, width) = images.dims4()?;
    let pass = Pass::probed(Mode::Infer, 1);
    detector.forward(images, &pass)?;
    let anchors = pass.into_traces().pop().unwrap_or_default().anchors.boxes;
    let sides = [width as f32, height as f32, width as f32, height as f32];
    let values: Vec<f32> =
        anchors.iter().flat_map(|b| b.to_cxcywh().into_iter().zip(sides).map(|(v, side)| v / side)).collect();
    Ok(Tensor::from_vec(values, (anchors.len(), 4), &Device::Cpu)?)
}

impl Targets {
    fn objects(&self, case: &Case, input: &Input, (width, height): (f32, f32)) -> Vec<Object> {
        let pixels = self.boxes.iter().map(|b| BBox::new(b[0], b[1], b[2], b[3]));
        let scaled = self.boxes_normalised.iter().map(|b| BBox::new(b[0], b[1], b[2], b[3]).scale(width, height));
        let classes = self
            .labels
            .iter()
            .map(|l| l.saturating_sub(case.label_offset.max(1)))
            .chain(self.labels_without_background.iter().copied());
        let ellipses = self.masks.is_some();
        let object = |(bbox, class): (BBox, u32)| Object {
            bbox: input.placement.to_input(bbox),
            class,
            mask: ellipses.then(|| ellipse(bbox, input, (width, height))).flatten(),
            ..Object::default()
        };
        pixels.chain(scaled).zip(classes).map(object).collect()
    }
}

/// The ellipse inscribed in a box, drawn on the original picture by pixel centres and enlarged to the input by nearest.
fn ellipse(bbox: BBox, input: &Input, (width, height): (f32, f32)) -> Option<Mask> {
    let (cx, cy) = bbox.center();
    let (rx, ry) = (bbox.width() / 2.0, bbox.height() / 2.0);
    let inside = |x: usize, y: usize| {
        let (dx, dy) = ((x as f32 + 0.5 - cx) / rx, (y as f32 + 0.5 - cy) / ry);
        dx * dx + dy * dy <= 1.0
    };
    let content = (input.placement.content.0 as usize, input.placement.content.1 as usize);
    let mut bitmap = vec![0u8; input.width * input.height];
    for y in 0..content.1.min(input.height) {
        for x in 0..content.0.min(input.width) {
            let source = (x * width as usize / content.0, y * height as usize / content.1);
            bitmap[y * input.width + x] = u8::from(inside(source.0, source.1));
        }
    }
    Mask::from_bitmap(input.height as u32, input.width as u32, &bitmap).ok()
}

fn losses(
    fixture: &Fixture,
    case: &Case,
    detector: &dyn Detector,
    images: &Tensor,
    objects: &[Object],
) -> Result<Vec<Check>, ParityError> {
    let pass = Pass::new(case.loss_mode);
    let outputs: Outputs = detector.forward(images, &pass)?;
    let losses = detector.losses(&outputs, &[objects.to_vec()], &pass)?;
    let mut checks = Vec::new();
    for (name, expected) in &fixture.losses {
        let Some(own) = (case.own_name)(&case.config, name) else { continue };
        let Some((_, value)) = losses.parts.iter().find(|(n, _)| *n == own) else {
            return Err(unfit(format!("this detector has no loss named {own}"), Path::new("")));
        };
        let error = (f64::from(value.to_vec0::<f32>()?) - expected).abs() / expected.abs().max(1e-12);
        checks.push(Check { name: format!("loss {name}"), error, allowed: 1e-3 });
    }
    let gradients = losses.total()?.backward()?;
    for sampled in &fixture.gradients {
        let name = sampled.name.trim_start_matches("grad:");
        let own = (case.own_name)(&case.config, name).unwrap_or_else(|| name.to_string());
        let gradient = detector.params().get(&own).and_then(|p| gradients.get(p.var.as_tensor()).cloned());
        let Some(gradient) = gradient else {
            return Err(unfit(format!("no gradient reached {own}"), Path::new("")));
        };
        checks.push(sampled.check(&gradient, 5e-3, 1e-12)?);
    }
    Ok(checks)
}

impl Sampled {
    /// An output at the tolerance of outputs. Rows of proposals whose scores nearly tie may stand in another order: a
    /// few rows may then differ, 1 % of the samples of the tensors that are listed by proposal.
    fn check_rows(&self, ours: &Tensor) -> Result<Check, ParityError> {
        let strict = self.check(ours, 1e-3, 1e-6)?;
        let by_proposal = self.name.starts_with("proposals.") || self.name.starts_with("box_predictor.");
        if strict.agrees() || !by_proposal {
            return Ok(strict);
        }
        let values: Vec<f32> = ours.detach().flatten_all()?.to_vec1()?;
        let far = |(index, expected): (&usize, &f64)| {
            (f64::from(values.get(*index).copied().unwrap_or(f32::NAN)) - expected).abs() <= strict.allowed
        };
        let wrong = self.index.iter().zip(&self.value).filter(|pair| !far(*pair)).count();
        let name = format!("{}: share of samples in other rows", self.name);
        Ok(Check { name, error: wrong as f64 / self.index.len().max(1) as f64, allowed: 0.015 })
    }

    fn check(&self, ours: &Tensor, relative: f64, absolute: f64) -> Result<Check, ParityError> {
        let allowed = relative * self.abs_max + absolute;
        let values: Vec<f32> = ours.detach().flatten_all()?.to_vec1()?;
        if values.len() != self.shape.iter().product::<usize>() {
            return Err(unfit(
                format!("{}: ours has shape {:?}, the reference {:?}", self.name, ours.dims(), self.shape),
                Path::new(""),
            ));
        }
        let mut error = 0f64;
        for (&index, &expected) in self.index.iter().zip(&self.value) {
            let ours = values.get(index).copied().unwrap_or(f32::NAN);
            error = error.max((f64::from(ours) - expected).abs());
            if ours.is_nan() {
                error = f64::INFINITY;
            }
        }
        Ok(Check { name: self.name.clone(), error, allowed })
    }
}

impl Found {
    /// Pairs each reference detection with an unused one of ours of its class: IoU ≥ 0.99, score within 2e-3.
    fn check(&self, ours: &[(BBox, u32, f32)]) -> Vec<Check> {
        let mut used = vec![false; ours.len()];
        let (mut unmatched, mut worst) = (0usize, 0f64);
        for ((b, &score), &label) in self.boxes.iter().zip(&self.scores).zip(&self.labels) {
            let reference = BBox::new(b[0], b[1], b[2], b[3]);
            let pair = ours.iter().enumerate().position(|(i, (bbox, class, s))| {
                !used[i] && *class == label && (s - score).abs() <= 2e-3 && iou::iou(*bbox, reference) >= 0.99
            });
            match pair {
                Some(i) => {
                    used[i] = true;
                    worst = worst.max(f64::from((ours[i].2 - score).abs()));
                }
                None => unmatched += 1,
            }
        }
        vec![
            Check {
                name: format!("detections without a partner, of {}", self.boxes.len()),
                error: unmatched as f64,
                allowed: 0.0,
            },
            Check { name: "detection scores".into(), error: worst, allowed: 2e-3 },
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rebuilt_values_match_the_recipes_test_vectors() {
        // The recipe's own vectors: unit("input", 0…4) and unit("backbone.features.0.weight", 7).
        let input = rebuilt("input", 5, 0.0, 1.0);
        let expected = [-0.804_363_37, 0.304_720_76, -0.592_751_5, -0.451_110_72, 0.582_195_04];
        for (ours, theirs) in input.iter().zip(expected) {
            assert!((ours - theirs).abs() < 1e-6, "{ours} {theirs}");
        }
        assert!((rebuilt("backbone.features.0.weight", 8, 0.0, 1.0)[7] + 0.241_270_3).abs() < 1e-6);
    }
}
