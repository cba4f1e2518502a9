//! A network under rebuilt weights against a reference implementation's recorded numbers.
//!
//! Every parameter and the input follow from their names and element indices (FNV-1a and SplitMix64), so a fixture
//! carries no weights. Tolerances: outputs 1e-3 · abs_max + 1e-6, losses 1e-3 relative, gradients 5e-3 · abs_max,
//! detections one to one with IoU ≥ 0.99 and score within 2e-3. Outputs with a row for each proposal are compared with
//! the partner of each row, so that near ties do not count (see `rows`).

mod cases;
mod fixture;
mod rows;

pub use cases::WEIGHTS_FOLDER;

use super::device::DeviceChoice;
use crate::detect::{Detector, Outputs, build};
use crate::geometry::{BBox, Object};
use crate::imaging::preprocess::{Input, Placement};
use crate::nn::{Mode, Pass};
use crate::ops::conv::plainly;
use crate::ops::tape::Tape;
use candle_core::{Device, Tensor};
use cases::Case;
use fixture::{Fixture, Found, TrainMode, untouched};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The running statistics that are compared after a step in training mode. Deeper in M2Det, norms follow the two values
/// of a 1×1 map in two images, whose difference rounding decides.
const COMPARED_STATISTICS: [&str; 3] =
    ["reduce.bn.running_mean", "backbone.fpn.inner_blocks.0.1.running_mean", "roi_heads.box_head.3.1.running_var"];

/// Why a fixture could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum ParityError {
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    #[error("{0}")]
    Device(String),
    #[error("cannot read the file ({source}): {path}")]
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

    fn is_gradient(&self) -> bool {
        self.name.starts_with("grad:")
    }
}

/// Rebuilds the network that the fixture at `path` recorded and compares: with plain convolutions at the tolerances
/// above, or with the `quick` ones that training and detection use, at twice them. Their rounding differs (Winograd's
/// errors are about ten times larger) and flips ReLU masks near zero: in the gradient of SSD300's first layer, a sum
/// over the whole picture, any two kernels differ by 0.2 to 0.8 % of its largest element. So a gradient that is outside
/// with the plain ones is inside where the quick ones put it there, at the same tolerance.
///
/// # Errors
/// A file that is no fixture, one of a network that cannot be built, or a device that does not open.
pub fn compare_file(path: &Path, quick: bool, device: DeviceChoice) -> Result<Parity, ParityError> {
    let device = &device.open().map_err(ParityError::Device)?;
    let text = std::fs::read_to_string(path).map_err(|source| ParityError::Read { source, path: path.into() })?;
    let fixture: Fixture = serde_json::from_str(&text).map_err(|e| unfit(format!("this is no fixture ({e})"), path))?;
    let mut checks =
        if quick { compare(&fixture, path, 2.0, device)? } else { plainly(|| compare(&fixture, path, 1.0, device))? };
    for check in checks.iter_mut().filter(|_| quick) {
        check.allowed *= 2.0;
    }
    if !quick && checks.iter().any(|check| check.is_gradient() && !check.agrees()) {
        // A wrong gradient is wrong with any kernel; a flipped mask is one kernel's own.
        let others = compare(&fixture, path, 1.0, device)?;
        for (check, other) in checks.iter_mut().zip(others).filter(|(check, _)| check.is_gradient()) {
            check.error = check.error.min(other.error);
        }
    }
    Ok(Parity { model: fixture.model, source: fixture.source, checks })
}

fn unfit(reason: String, path: &Path) -> ParityError {
    ParityError::Unfit { reason, path: path.into() }
}

/// `slack` widens what counts as agreement of two rows; what the checks allow is for the caller to widen.
fn compare(fixture: &Fixture, path: &Path, slack: f64, device: &Device) -> Result<Vec<Check>, ParityError> {
    let case = Case::of(fixture, path)?;
    let detector = build(&case.config, device, 0)?;
    case.fill(&*detector, fixture, path)?;
    let (pixels, (count, height, width)) = fixture.input.pixels(path)?;
    if count != 1 {
        return Err(unfit(format!("an input of {count} images"), path));
    }
    let input = entered(&case, &*detector, pixels, (height, width));
    let images = Tensor::from_slice(&input.planes, (1, 3, input.height, input.width), device)?;

    let infer = Pass::new(Mode::Infer);
    let outputs = detector.forward(&images, &infer)?;
    let mut checks = compare_outputs(fixture, &case, &*detector, &images, &outputs, slack)?;
    checks.extend(compare_detections(fixture, &case, &*detector, &outputs, &input.placement)?);
    drop(outputs);
    if let Some(targets) = &fixture.targets {
        let objects = targets.objects(case.label_offset, &input.placement, (input.height, input.width));
        checks.extend(compare_losses(fixture, &case, &*detector, &images, &objects)?);
        if let Some(recorded) = &fixture.train_mode {
            checks.extend(compare_training(recorded, &case, (&*detector, device), &objects, path)?);
        }
    }
    Ok(checks)
}

/// One image as it enters the network.
fn entered(case: &Case, detector: &dyn Detector, pixels: Vec<f32>, (height, width): (usize, usize)) -> Input {
    if case.preprocessed {
        untouched(pixels, height, width)
    } else {
        detector.preprocess().apply_planes(&pixels, width, height)
    }
}

fn compare_outputs(
    fixture: &Fixture,
    case: &Case,
    detector: &dyn Detector,
    images: &Tensor,
    outputs: &Outputs,
    slack: f64,
) -> Result<Vec<Check>, ParityError> {
    let further = detector.stage_outputs(outputs, &Pass::new(Mode::Infer))?;
    let mut checks = Vec::new();
    let mut by_proposal = Vec::new();
    for sampled in &fixture.outputs {
        if sampled.name == "priors_cxcywh" {
            checks.push(sampled.check(&normalised_anchors(detector, images)?, 1e-3, 1e-6)?);
            continue;
        }
        let Some(own) = (case.own_name)(&case.config, &sampled.name) else { continue };
        let ours = match further.iter().find(|(name, _)| *name == own) {
            Some((_, tensor)) => tensor,
            None => outputs.get(&own)?,
        };
        if own == "roi_pool" || own.starts_with("proposals.") || own.starts_with("box_predictor.") {
            if ours.dims().get(1..) != sampled.shape.get(1..) {
                let reason =
                    format!("{}: ours has shape {:?}, the reference {:?}", sampled.name, ours.dims(), sampled.shape);
                return Err(unfit(reason, Path::new("")));
            }
            by_proposal.push(rows::Pair {
                recorded: sampled,
                ours: ours.detach().flatten_all()?.to_vec1()?,
                tolerance: sampled.tolerance(1e-3, 1e-6),
            });
        } else {
            checks.push(sampled.check(ours, 1e-3, 1e-6)?);
        }
    }
    checks.extend(rows::checks(&by_proposal, slack));
    Ok(checks)
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

fn compare_detections(
    fixture: &Fixture,
    case: &Case,
    detector: &dyn Detector,
    outputs: &Outputs,
    placement: &Placement,
) -> Result<Vec<Check>, ParityError> {
    let (w, h) = (placement.original.0 as f32, placement.original.1 as f32);
    let found = detector.detect(outputs, &Pass::new(Mode::Infer))?.pop().unwrap_or_default();
    let found: Vec<(BBox, u32, f32)> = found
        .into_iter()
        .map(|d| (placement.to_original(d.bbox).clip(w, h), d.class + case.label_offset, d.score))
        .collect();
    let mut checks = Vec::new();
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
    Ok(checks)
}

fn clipped(b: [f32; 4], width: f32, height: f32) -> [f32; 4] {
    let b = BBox::new(b[0], b[1], b[2], b[3]).clip(width, height);
    [b.x0, b.y0, b.x1, b.y1]
}

fn compare_losses(
    fixture: &Fixture,
    case: &Case,
    detector: &dyn Detector,
    images: &Tensor,
    objects: &[Object],
) -> Result<Vec<Check>, ParityError> {
    let pass = Pass::new(case.loss_mode);
    let mut tape = Tape::default();
    let losses = tape.record(|| {
        let outputs: Outputs = detector.forward(images, &pass)?;
        detector.losses(&outputs, &[objects.to_vec()], &pass)
    })?;
    let mut checks = parts("loss", &fixture.losses, case, &losses.parts)?;
    let gradients = tape.backward(&losses.total()?)?;
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

/// The recorded parts of a loss against ours, relative.
fn parts(
    title: &str,
    recorded: &BTreeMap<String, f64>,
    case: &Case,
    ours: &[(String, Tensor)],
) -> Result<Vec<Check>, ParityError> {
    let mut checks = Vec::new();
    for (name, expected) in recorded {
        let Some(own) = (case.own_name)(&case.config, name) else { continue };
        let Some((_, value)) = ours.iter().find(|(n, _)| *n == own) else {
            return Err(unfit(format!("this detector has no loss named {own}"), Path::new("")));
        };
        let error = (f64::from(value.to_vec0::<f32>()?) - expected).abs() / expected.abs().max(1e-12);
        checks.push(Check { name: format!("{title} {name}"), error, allowed: 1e-3 });
    }
    Ok(checks)
}

/// Losses of a batch whose norms follow it, and what becomes of the first norm's statistics. Gradients are not compared:
/// they pass the norms named at [`COMPARED_STATISTICS`]. Changes the network's running statistics.
fn compare_training(
    recorded: &TrainMode,
    case: &Case,
    (detector, device): (&dyn Detector, &Device),
    objects: &[Object],
    path: &Path,
) -> Result<Vec<Check>, ParityError> {
    let (pixels, (count, height, width)) = recorded.input.pixels(path)?;
    let images = if count == 1 {
        let input = entered(case, detector, pixels, (height, width));
        Tensor::from_vec(input.planes, (1, 3, input.height, input.width), device)?
    } else if case.preprocessed {
        Tensor::from_vec(pixels, (count, 3, height, width), device)?
    } else {
        return Err(unfit("a batch in training mode that is not preprocessed".into(), path));
    };
    let of_image = |image: usize| objects[..if image == 0 { objects.len() } else { objects.len().min(2) }].to_vec();
    let batch: Vec<Vec<Object>> = (0..count).map(of_image).collect();
    let pass = Pass::new(Mode::Train);
    let losses = detector.losses(&detector.forward(&images, &pass)?, &batch, &pass)?;
    let mut checks = parts("training mode, loss", &recorded.losses, case, &losses.parts)?;
    pass.commit()?;
    for sampled in recorded.running_stats_after.iter().filter(|s| COMPARED_STATISTICS.contains(&s.name.as_str())) {
        let own = (case.own_name)(&case.config, &sampled.name).and_then(|own| detector.params().get(&own));
        let Some(statistic) = own else {
            return Err(unfit(format!("this network has no {}", sampled.name), path));
        };
        let check = sampled.check(statistic.var.as_tensor(), 1e-3, 1e-6)?;
        checks.push(Check { name: format!("training mode, {}", check.name), ..check });
    }
    Ok(checks)
}
