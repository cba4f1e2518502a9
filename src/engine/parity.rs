//! A network under rebuilt weights against a reference implementation's recorded numbers.
//!
//! Every parameter and the input follow from their names and element indices (FNV-1a and SplitMix64), so a fixture
//! carries no weights. Tolerances: outputs 1e-3 · abs_max + 1e-6, losses 1e-3 relative, gradients 5e-3 · abs_max,
//! detections one to one with IoU ≥ 0.99 and score within 2e-3.

use crate::detect::{Arch, Config, Detector, Outputs, build, names::names_for};
use crate::geometry::{BBox, Object, iou};
use crate::nn::{Mode, Pass};
use crate::ops::conv::without_winograd;
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
    input: Input,
    outputs: Vec<Sampled>,
    targets: Option<Targets>,
    #[serde(default)]
    losses: std::collections::BTreeMap<String, f64>,
    #[serde(default)]
    gradients: Vec<Sampled>,
    detections: Option<Found>,
}

#[derive(Debug, Deserialize)]
struct Input {
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
    boxes: Vec<[f32; 4]>,
    labels: Vec<u32>,
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

/// Rebuilds the network that the fixture at `path` recorded and compares: with direct convolutions at the tolerances
/// above, or as training and detection run, with Winograd's, at twice them (its rounding errors are about ten times
/// larger and flip more ReLU masks near zero, which shows in gradients summed over a whole picture).
///
/// # Errors
/// A file that is no fixture, or one of a network that cannot be built.
pub fn compare_file(path: &Path, winograd: bool) -> Result<Parity, ParityError> {
    let text = std::fs::read_to_string(path).map_err(|source| ParityError::Read { source, path: path.into() })?;
    let fixture: Fixture = serde_json::from_str(&text)
        .map_err(|e| ParityError::Unfit { reason: format!("this is no fixture ({e})"), path: path.into() })?;
    let mut checks =
        if winograd { compare(&fixture, path)? } else { without_winograd(|| compare(&fixture, path))? };
    for check in checks.iter_mut().filter(|_| winograd) {
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

fn compare(fixture: &Fixture, path: &Path) -> Result<Vec<Check>, ParityError> {
    let config = match fixture.model.as_str() {
        "torchvision_ssd300_vgg16" => {
            Config::new(Arch::Ssd300, &names_for(90))
        }
        other => return Err(unfit(format!("no architecture here answers to the fixture's model {other:?}", ), path)),
    };
    let detector = build(&config, &Device::Cpu, 0)?;
    for (name, shape, offset, scale) in &fixture.params {
        detector.params().set(name, &rebuilt(name, shape.iter().product(), *offset, *scale))?;
    }
    let given = fixture.params.len();
    let own = detector.params().all().len();
    if given != own {
        return Err(unfit(format!("the fixture has {given} parameters and the network {own}", ), path));
    }
    let [channels, height, width] = fixture.input.shape[..] else {
        return Err(unfit(format!("an input of shape {:?}", fixture.input.shape), path));
    };
    let count = channels * height * width;
    let pixels = rebuilt(&fixture.input.name, count, fixture.input.offset, fixture.input.scale);
    let input = detector.preprocess().apply_planes(&pixels, width, height);
    let images = Tensor::from_slice(&input.planes, (1, 3, input.height, input.width), &Device::Cpu)?;

    let mut checks = Vec::new();
    let outputs = detector.forward(&images, &Pass::new(Mode::Infer))?;
    for sampled in &fixture.outputs {
        checks.push(sampled.check(outputs.get(&sampled.name)?, 1e-3, 1e-6)?);
    }
    if let Some(expected) = &fixture.detections {
        let found = detector.detect(&outputs, &Pass::new(Mode::Infer))?.pop().unwrap_or_default();
        let place = &input.placement;
        let found: Vec<_> =
            found.into_iter().map(|d| (place.to_original(d.bbox), d.class + 1, d.score)).collect();
        checks.extend(expected.check(&found));
    }
    drop(outputs);
    if let Some(targets) = &fixture.targets {
        let objects = targets.boxes.iter().zip(&targets.labels).map(|(b, label)| Object {
            bbox: input.placement.to_input(BBox::new(b[0], b[1], b[2], b[3])),
            class: label.saturating_sub(1),
            ..Object::default()
        });
        checks.extend(losses(fixture, &*detector, &images, &objects.collect::<Vec<_>>())?);
    }
    Ok(checks)
}

fn losses(
    fixture: &Fixture,
    detector: &dyn Detector,
    images: &Tensor,
    objects: &[Object],
) -> Result<Vec<Check>, ParityError> {
    let pass = Pass::new(Mode::Frozen);
    let outputs: Outputs = detector.forward(images, &pass)?;
    let losses = detector.losses(&outputs, &[objects.to_vec()], &pass)?;
    let mut checks = Vec::new();
    for (name, expected) in &fixture.losses {
        let Some((_, value)) = losses.parts.iter().find(|(n, _)| n == name) else {
            return Err(unfit(format!("this detector has no loss named {name}"), Path::new("")));
        };
        let error = (f64::from(value.to_vec0::<f32>()?) - expected).abs() / expected.abs().max(1e-12);
        checks.push(Check { name: format!("loss {name}"), error, allowed: 1e-3 });
    }
    let gradients = losses.total()?.backward()?;
    for sampled in &fixture.gradients {
        let name = sampled.name.trim_start_matches("grad:");
        let gradient = detector.params().get(name).and_then(|p| gradients.get(p.var.as_tensor()).cloned());
        let Some(gradient) = gradient else {
            return Err(unfit(format!("no gradient reached {name}"), Path::new("")));
        };
        checks.push(sampled.check(&gradient, 5e-3, 1e-12)?);
    }
    Ok(checks)
}

impl Sampled {
    fn check(&self, ours: &Tensor, relative: f64, absolute: f64) -> Result<Check, ParityError> {
        let allowed = relative * self.abs_max + absolute;
        let values: Vec<f32> = ours.detach().flatten_all()?.to_vec1()?;
        if values.len() != self.shape.iter().product::<usize>() {
            return Err(unfit(format!("{}: ours has shape {:?}, the reference {:?}", self.name, ours.dims(), self.shape), Path::new("")));
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
            Check { name: format!("detections without a partner, of {}", self.boxes.len()), error: unmatched as f64, allowed: 0.0 },
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
