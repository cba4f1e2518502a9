//! Whole networks on a CUDA device against the CPU: detections, training in every precision, several devices.

use boxwright::data::{self, Dataset};
use boxwright::detect::predict::{inference_pass, predict};
use boxwright::detect::rcnn::{Flow, GivenProposals, MaskConfig, MaskTargets, Pooling, RcnnConfig, RoiSource};
use boxwright::detect::refinedet::ObjectnessFilter;
use boxwright::detect::retinanet::{Normalizer, RegressionLoss};
use boxwright::detect::{Arch, Config, Detector, build};
use boxwright::engine::command::ModelChoice;
use boxwright::engine::device::DeviceChoice;
use boxwright::engine::model::load;
use boxwright::geometry::{BBox, Mask, Object};
use boxwright::imaging::Augmentation;
use boxwright::imaging::picture::Picture;
use boxwright::nn::{Mode, Pass};
use boxwright::ops::tape::Tape;
use boxwright::ops::update::squared_norm;
use boxwright::train::checkpoint::saved_config;
use boxwright::train::config::Precision;
use boxwright::train::{Run, RunConfig, StepReport, TrainConfig};
use candle_core::{Device, Tensor};
use std::path::Path;
use std::sync::Arc;

const DATA: &str = "shapes:train=8,val=1,test=1";

/// The first `count` CUDA devices; without them, says which test is skipped.
fn devices(count: usize, test: &str) -> Option<Vec<Device>> {
    let choices: Vec<DeviceChoice> = (0..count).map(DeviceChoice::Cuda).collect();
    match DeviceChoice::open_all(&choices) {
        Ok(devices) => Some(devices),
        Err(reason) => {
            assert!(std::env::var_os("EMULATED_GPUS").is_none(), "{test}: {reason}");
            println!("skipped: {test} ({reason})");
            None
        }
    }
}

fn nanos() -> impl Iterator<Item = Arch> {
    Arch::ALL.into_iter().filter(|arch| arch.embedded_weights().is_some())
}

fn dataset() -> Arc<Dataset> {
    Arc::new(data::open(DATA, Some("train")).unwrap())
}

fn config(arch: Arch, precision: Precision) -> RunConfig {
    let mut train = TrainConfig { iterations: 3, batch: 2, checkpoint_every: 0, precision, ..TrainConfig::new(arch) };
    (train.augmentation, train.schedule.warmup) = (Augmentation::none(), 0);
    RunConfig { data: DATA.into(), split: Some("train".into()), train, model: Config::new(arch, &dataset().classes) }
}

/// Loss and gradient norm, 0 where the update was skipped.
fn of(report: &StepReport) -> [f64; 2] {
    [report.loss.into(), if report.skipped { 0.0 } else { report.gradient_norm }]
}

/// The same of every iteration.
fn learn(config: RunConfig, devices: &[Device], folder: Option<&Path>) -> Vec<[f64; 2]> {
    let mut run = Run::new(config, dataset(), devices, folder.map(Path::to_path_buf)).unwrap();
    let mut found = Vec::new();
    while !run.is_finished() {
        found.push(of(&run.advance(false).unwrap()));
    }
    found
}

/// The largest relative difference of two lists.
fn apart(found: &[[f64; 2]], expected: &[[f64; 2]]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let pairs = found.iter().flatten().zip(expected.iter().flatten());
    let errors: Vec<f64> = pairs.map(|(a, b)| (a - b).abs() / b.abs().max(1e-9)).collect();
    assert!(errors.iter().all(|error| error.is_finite()), "{found:?} and {expected:?}");
    errors.into_iter().fold(0.0, f64::max)
}

#[test]
fn detections_on_a_gpu_equal_those_on_the_cpu() {
    let Some(gpu) = devices(1, "detections of all embedded networks") else { return };
    let scene = data::open(DATA, Some("test")).unwrap();
    let picture: Picture = scene.picture(0).unwrap();
    for arch in nanos() {
        let on = |device: &Device| {
            let model = load(&ModelChoice::Named(arch.name().into()), None, false, device).unwrap();
            predict(&*model.detector, &picture, None, inference_pass(false)).unwrap().detections
        };
        let (expected, found) = (on(&Device::Cpu), on(&gpu[0]));
        assert!(!expected.is_empty() && found.len() == expected.len(), "{arch}: {} found", found.len());
        for (a, b) in found.iter().zip(&expected) {
            let corners = |d: &boxwright::geometry::Detection| [d.bbox.x0, d.bbox.y0, d.bbox.x1, d.bbox.y1];
            let moved = corners(&a.clone()).into_iter().zip(corners(b)).any(|(a, b)| (a - b).abs() > 0.01);
            assert!(a.class == b.class && (a.score - b.score).abs() < 1e-4 && !moved, "{arch}: {a:?} and {b:?}");
        }
    }
}

#[test]
fn training_on_a_gpu_equals_that_on_the_cpu() {
    let Some(gpu) = devices(1, "training of all embedded networks") else { return };
    for arch in nanos() {
        let found = learn(config(arch, Precision::F32), &gpu, None);
        let expected = learn(config(arch, Precision::F32), &[Device::Cpu], None);
        // RoIs are drawn by what the network answers, to the last bit; later, anchors that are nearly as hard trade places.
        let draws = ["faster", "mask", "cascade"].iter().any(|name| arch.name().starts_with(name));
        let (first, later) = if draws { (0.2, 0.3) } else { (1e-3, 0.1) };
        let losses = |all: &[[f64; 2]]| all.iter().map(|[loss, _]| [*loss; 2]).collect::<Vec<_>>();
        let (start, whole) = (apart(&found[..1], &expected[..1]), apart(&losses(&found), &losses(&expected)));
        assert!(start < first && whole < later, "{arch}: {found:?} and {expected:?}");
    }
}

/// Networks whose targets a GPU makes by itself, with settings that the presets do not have. Two-stage ones learn from all
/// anchors and proposals: which are drawn hangs on the last bits of the answers.
fn matching_on_the_device() -> Vec<Config> {
    let of = |arch: Arch| Config::new(arch, &dataset().classes);
    let mut all: Vec<Config> =
        [Arch::SsdNano, Arch::M2detNano, Arch::RefinedetNano, Arch::RetinanetNano].map(of).into();
    for arch in [Arch::RefinedetNano, Arch::Yolov3Nano, Arch::RetinanetNano] {
        let mut config = of(arch);
        match &mut config {
            Config::Refinedet(own) => {
                (own.objectness_filter, own.objectness_threshold) = (ObjectnessFilter::Positives, 0.5);
            }
            Config::Yolov3(own) => own.objective.ignore_threshold = 0.1,
            Config::Retinanet(own) => {
                (own.regression_loss, own.normalizer) = (RegressionLoss::Giou, Normalizer::BatchOfImages);
                (own.low_quality_matches, own.box_weight) = (!own.low_quality_matches, 0.5);
            }
            _ => panic!("{arch} has another config"),
        }
        all.push(config);
    }
    let two_stage = |arch: Arch, change: fn(RcnnConfig) -> RcnnConfig| {
        let Config::Rcnn(own) = of(arch) else { panic!("{arch} has another config") };
        let mut own = change(own);
        (own.roi_samples, own.rpn.anchor_samples) = (1_000_000, 1_000_000);
        (own.roi_positive_share, own.rpn.anchor_positive_share) = (1.0, 1.0);
        Config::Rcnn(own)
    };
    all.push(two_stage(Arch::FasterNano, |mut own| {
        (own.rpn.ignore_crossing, own.rpn.forced_minimum) = (true, 0.2);
        RcnnConfig { pooling: Pooling::Max, objects_as_rois: false, ..own }
    }));
    all.push(two_stage(Arch::MaskNano, |own| own));
    all.push(two_stage(Arch::MaskNano, |own| {
        let mask =
            own.mask.map(|mask| MaskConfig { mask_per_stage: true, mask_targets: MaskTargets::Majority, ..mask });
        let cascade = RcnnConfig::cascade_nano(&own.classes);
        RcnnConfig { mask, pooled_gradient: 0.5, ..cascade }
    }));
    all.push(two_stage(Arch::CascadeNano, |own| RcnnConfig { resample: false, class_agnostic: false, ..own }));
    all.push(two_stage(Arch::CascadeNano, |own| RcnnConfig { flow: Flow::Integral, sampling_ratio: 0, ..own }));
    all
}

/// Two objects of one box, which share their best prior, and one more, one of them without a mask; a second image has none.
fn annotated() -> [Vec<Object>; 2] {
    let object = |x: f32, side: f32, class| {
        let bbox = BBox::new(x, 20.0, x + side, 20.0 + side);
        let inside = |i: usize| bbox.contains((i % 192) as f32 + 0.5, (i / 192) as f32 * 0.9);
        let bitmap: Vec<u8> = (0..192 * 192).map(|i| u8::from(inside(i))).collect();
        let mask = (class != 1).then(|| Mask::from_bitmap(192, 192, &bitmap).unwrap());
        Object { bbox, class, mask, ..Object::default() }
    };
    [vec![object(30.0, 60.0, 0), object(30.0, 60.0, 1), object(120.0, 25.0, 2)], Vec::new()]
}

/// What two pictures teach.
struct Learnt {
    parts: Vec<(String, f32)>,
    /// The same as the record of the first picture has them.
    recorded: Vec<(String, f32)>,
    /// The norm of every gradient that is not zero, by parameter.
    norms: Vec<(String, f64)>,
}

fn learnt(detector: &dyn Detector, device: &Device, probed: bool) -> Learnt {
    let (height, width) = (192, 192);
    let values = (0..2 * 3 * height * width).map(|i| (i as f32 * 0.013).sin() + (i as f32 * 0.0007).cos());
    let images = Tensor::from_vec(values.collect::<Vec<f32>>(), (2, 3, height, width), device).unwrap();
    // Norms of two images' last cells would enlarge every rounding.
    let pass = if probed { Pass::probed(Mode::Frozen, 2) } else { Pass::new(Mode::Frozen) };
    let mut tape = Tape::default();
    let losses = tape.record(|| {
        let outputs = detector.forward(&images, &pass).unwrap();
        detector.losses(&outputs, &annotated(), &pass).unwrap()
    });
    let gradients = tape.backward(&losses.total().unwrap()).unwrap();
    let norm = |g: &Tensor| squared_norm(g).unwrap().sqrt();
    let all = detector.params().trainable().into_iter();
    let norms = all.filter_map(|p| gradients.get(p.var.as_tensor()).map(|g| (p.name.clone(), norm(g))));
    let norms = norms.filter(|(_, norm)| *norm > 0.0).collect();
    let parts = losses.parts.iter().map(|(name, part)| (name.clone(), part.to_vec0().unwrap())).collect();
    let recorded = pass.into_traces().first().map(|trace| trace.losses.clone()).unwrap_or_default();
    Learnt { parts, recorded: recorded.into_iter().map(|part| (part.name, part.value)).collect(), norms }
}

/// Whether two lists have the same names and nearly the same values, beside the largest of them.
fn alike<T: Into<f64> + Copy>(found: &[(String, T)], expected: &[(String, T)]) -> bool {
    let largest = expected.iter().fold(1e-6, |most: f64, (_, value)| most.max((*value).into()));
    let near = |a: f64, b: f64| (a - b).abs() <= 1e-3 * b.abs().max(1e-2 * largest);
    let pairs = found.iter().zip(expected);
    found.len() == expected.len() && pairs.into_iter().all(|(a, b)| a.0 == b.0 && near(a.1.into(), b.1.into()))
}

/// Compares the CPU and a GPU, which must have the same losses with a probe.
fn learns_alike(name: &str, on: impl Fn(&Device, bool) -> Learnt, gpu: &Device) {
    let (expected, found, probed) = (on(&Device::Cpu, false), on(gpu, false), on(gpu, true));
    assert_eq!(probed.parts, found.parts, "{name}: the probe changes a loss");
    assert!(alike(&found.parts, &expected.parts), "{name}: {:?} and {:?}", found.parts, expected.parts);
    assert!(alike(&found.norms, &expected.norms), "{name}: {:?} and {:?}", found.norms, expected.norms);
    // The CPU's way makes the record.
    let known = on(&Device::Cpu, true).recorded;
    assert!(!known.is_empty() && alike(&probed.recorded, &known), "{name}: {:?} and {known:?}", probed.recorded);
}

#[test]
fn losses_on_a_gpu_are_those_of_the_cpu_and_of_a_probed_pass() {
    let Some(gpu) = devices(1, "losses with and without objects") else { return };
    for config in matching_on_the_device() {
        let on = |device: &Device, probed: bool| learnt(&*build(&config, device, 7).unwrap(), device, probed);
        learns_alike(&format!("{config:?}"), on, &gpu[0]);
    }
}

#[test]
fn proposals_from_outside_are_learnt_from_on_a_gpu() {
    let Some(gpu) = devices(1, "losses of given proposals") else { return };
    let Config::Rcnn(mut config) = Config::new(Arch::MaskNano, &dataset().classes) else { panic!("another config") };
    let boxes = |count: usize| -> Vec<(BBox, f32)> {
        (0..count).map(|i| (BBox::new(20.0 + i as f32, 15.0, 70.0 + 3.0 * i as f32, 85.0), 0.5)).collect()
    };
    let given = |device: &Device, probed: bool| {
        let all = GivenProposals::new(build(&Config::Rcnn(config.clone()), device, 7).unwrap()).unwrap();
        all.set(vec![boxes(9), boxes(4)]);
        learnt(&all, device, probed)
    };
    learns_alike("given", given, &gpu[0]);
    config.roi_source = RoiSource::JitteredObjects;
    let jittered = |probed| learnt(&*build(&Config::Rcnn(config.clone()), &gpu[0], 7).unwrap(), &gpu[0], probed).parts;
    assert!(
        jittered(false) == jittered(true) && jittered(false).iter().all(|(_, part)| part.is_finite() && *part > 0.0)
    );
}

#[test]
fn every_precision_on_a_gpu_equals_its_twin_on_the_cpu() {
    let Some(gpu) = devices(1, "training in every precision") else { return };
    for precision in Precision::ALL {
        let found = learn(config(Arch::SsdNano, precision), &gpu, None);
        let expected = learn(config(Arch::SsdNano, precision), &[Device::Cpu], None);
        assert!(apart(&found[..1], &expected[..1]) < 2e-2, "{precision}: {found:?} and {expected:?}");
    }
}

#[test]
fn a_run_resumed_on_a_gpu_goes_on_where_it_was() {
    let Some(gpu) = devices(1, "resuming a run") else { return };
    let folder = tempfile::tempdir().unwrap();
    let whole = learn(config(Arch::SsdNano, Precision::F16), &gpu, None);
    {
        let config = config(Arch::SsdNano, Precision::F16);
        let mut first = Run::new(config, dataset(), &gpu, Some(folder.path().to_path_buf())).unwrap();
        first.advance(false).unwrap();
        first.save().unwrap();
    }
    let saved = saved_config(folder.path()).unwrap();
    let mut second = Run::resume(saved, dataset(), &gpu, folder.path()).unwrap();
    let next = second.advance(true).unwrap();
    assert_eq!(next.traces.len(), 2);
    assert!(apart(&[of(&next)], &whole[1..2]) < 1e-3, "{next:?} and {whole:?}");
}

#[test]
fn two_devices_on_a_gpu_machine_learn_as_two_processors_do() {
    let Some(gpus) = devices(2, "data-parallel training") else { return };
    let run = |devices: &[Device]| {
        let mut config = config(Arch::SsdNano, Precision::F32);
        config.train.batch = 4;
        learn(config, devices, None)
    };
    let (found, expected) = (run(&gpus), run(&[Device::Cpu, Device::Cpu]));
    assert!(apart(&found[..1], &expected[..1]) < 1e-3 && apart(&found, &expected) < 2e-2, "{found:?} and {expected:?}");
}
