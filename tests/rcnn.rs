//! Two-stage detectors at nano size: what their anchors reach, what they weigh, and inputs that nobody wishes for.

use boxwright::data::shapes::{ShapesSpec, Split, shapes};
use boxwright::detect::names::names_for;
use boxwright::detect::rcnn::{Flow, Pooling, RcnnConfig};
use boxwright::detect::{Arch, Config, Detector, build, config};
use boxwright::engine::cascade_iou::{Overlaps, survey};
use boxwright::geometry::iou::pairwise_iou;
use boxwright::geometry::{BBox, Object};
use boxwright::nn::backbone::resnet::Depth;
use boxwright::nn::{Mode, Pass};
use boxwright::random::Random;
use boxwright::trace::Trace;
use candle_core::{Device, Result, Tensor};

const NANOS: [Arch; 3] = [Arch::FasterNano, Arch::MaskNano, Arch::CascadeNano];

fn names() -> Vec<String> {
    (0..8).map(|k| format!("class {k}")).collect()
}

fn rcnn(arch: Arch) -> RcnnConfig {
    match Config::new(arch, &names()) {
        Config::Rcnn(config) => config,
        other => panic!("{:?}", other.arch()),
    }
}

/// The topology of `arch` with next to no channels.
fn slim(arch: Arch) -> RcnnConfig {
    let mut config = rcnn(arch);
    config.head_width = 16;
    config.backbone.width = 4;
    config.neck.channels = 8;
    config
}

fn built(config: RcnnConfig) -> Box<dyn Detector> {
    build(&Config::Rcnn(config), &Device::Cpu, 7).unwrap()
}

fn pictures(count: usize, (height, width): (usize, usize)) -> Tensor {
    let mut rng = Random::new(3);
    let values: Vec<f32> = (0..count * 3 * height * width).map(|_| rng.normal()).collect();
    Tensor::from_vec(values, (count, 3, height, width), &Device::Cpu).unwrap()
}

fn object(bbox: BBox, class: u32) -> Object {
    Object { bbox, class, ..Object::default() }
}

fn losses(detector: &dyn Detector, images: &Tensor, objects: &[Vec<Object>]) -> Result<Vec<f32>> {
    let pass = Pass::new(Mode::Train);
    let losses = detector.losses(&detector.forward(images, &pass)?, objects, &pass)?;
    losses.total()?.backward()?;
    losses.parts.iter().map(|(_, part)| part.to_vec0::<f32>()).collect()
}

/// The anchors of an input of 256×192.
fn anchors(config: &RcnnConfig) -> Vec<BBox> {
    let maps = [(48, 64), (24, 32), (12, 16), (6, 8), (3, 4)];
    let strides: Vec<(f32, f32)> = config.rpn.strides.iter().map(|&stride| (stride, stride)).collect();
    config.rpn.anchors.grid_anchors(&maps, &strides)
}

/// The share of `boxes` with an anchor of IoU 0.5.
fn reached(boxes: &[BBox], anchors: &[BBox]) -> f32 {
    let of_chunk = |chunk: &[BBox]| {
        let table = pairwise_iou(chunk, anchors);
        table.chunks_exact(anchors.len()).filter(|row| row.iter().any(|&iou| iou >= 0.5)).count()
    };
    boxes.chunks(50).map(of_chunk).sum::<usize>() as f32 / boxes.len() as f32
}

#[test]
fn hardly_an_object_is_without_an_anchor() {
    let dataset = shapes(&ShapesSpec { train: 150, ..ShapesSpec::default() }, Split::Train);
    let whole = dataset.images.iter().flat_map(|image| &image.objects).filter(|object| !object.crowd);
    // 320×240 becomes 256×192
    let shapes: Vec<BBox> = whole.map(|object| object.bbox.scale(0.8, 0.8)).collect();
    assert!(shapes.len() > 300);
    let mut rng = Random::new(5);
    let mut any = Vec::new();
    while any.len() < 300 {
        let (side, stretch) = (10.0 * 23f32.powf(rng.unit()), rng.range(-0.25, 0.25).exp());
        let (w, h) = ((side * stretch).min(250.0), (side / stretch).min(188.0));
        let (x, y) = (rng.range(0.0, 256.0 - w), rng.range(0.0, 192.0 - h));
        any.push(BBox::new(x, y, x + w, y + h));
    }
    for arch in [Arch::FasterNano, Arch::CascadeNano] {
        let config = rcnn(arch);
        assert!(!config.rpn.ignore_crossing);
        let anchors = anchors(&config);
        let (of_shapes, of_any) = (reached(&shapes, &anchors), reached(&any, &anchors));
        assert!(of_shapes >= 0.97 && of_any >= 0.97, "{arch}: {of_shapes} of Shapes, {of_any} of any");
    }
}

#[test]
fn nano_networks_are_small() {
    for arch in NANOS {
        let parameters = built(rcnn(arch)).params().trained_elements();
        assert!((500_000..950_000).contains(&parameters), "{arch}: {parameters}");
    }
}

#[test]
fn the_second_mask_rcnn_has_as_many_parameters_as_torchvisions() {
    let detector = build(&Config::new(Arch::MaskR50V2, &names_for(90)), &Device::Cpu, 0).unwrap();
    assert_eq!(detector.params().trained_elements(), 46_359_409);
}

#[test]
fn every_two_stage_name_makes_a_network_of_its_own_depth() {
    let mut seen = 0;
    for arch in Arch::ALL {
        let Config::Rcnn(config) = Config::new(arch, &names()) else { continue };
        assert!(config.check().is_ok(), "{arch}");
        let depth = config.backbone.depth;
        for (name, own) in [("r18", Depth::R18), ("r34", Depth::R34), ("r101", Depth::R101), ("r152", Depth::R152)] {
            assert!(!arch.name().contains(name) || depth == own, "{arch}: {depth:?}");
        }
        seen += 1;
    }
    assert_eq!(seen, 16);
}

#[test]
fn no_object_and_boxes_of_one_pixel_have_finite_losses() -> Result<()> {
    let images = pictures(2, (96, 128));
    let specks = vec![object(BBox::new(30.0, 30.0, 31.0, 31.0), 1), object(BBox::new(5.0, 5.0, 5.0, 9.0), 0)];
    for arch in NANOS {
        let detector = built(slim(arch));
        for objects in [[Vec::new(), Vec::new()], [specks.clone(), Vec::new()]] {
            let parts = losses(&*detector, &images, &objects)?;
            assert!(parts.iter().all(|part| part.is_finite()), "{arch}: {parts:?}");
        }
    }
    Ok(())
}

#[test]
fn two_thousand_objects_in_one_image_have_finite_losses() -> Result<()> {
    let crowd: Vec<Object> = (0..2000)
        .map(|i| {
            let (x, y) = ((i % 50) as f32 * 2.0, (i / 50) as f32 * 1.5);
            object(BBox::new(x, y, x + 9.0, y + 8.0), i % 8)
        })
        .collect();
    let parts = losses(&*built(slim(Arch::CascadeNano)), &pictures(2, (64, 96)), &[crowd, Vec::new()])?;
    assert!(parts.iter().all(|part| part.is_finite()), "{parts:?}");
    Ok(())
}

#[test]
fn nothing_above_the_threshold_is_an_empty_result() -> Result<()> {
    let images = pictures(2, (64, 96));
    for arch in NANOS {
        let unsure = RcnnConfig { score_threshold: 1.0, ..slim(arch) };
        let mut idle = slim(arch);
        idle.rpn.proposal_min_size = 1e9;
        for config in [unsure, idle] {
            let detector = built(config);
            let pass = Pass::probed(Mode::Infer, 2);
            let found = detector.detect(&detector.forward(&images, &pass)?, &pass)?;
            assert!(found.len() == 2 && found.iter().all(Vec::is_empty), "{arch}");
            assert_eq!(pass.into_traces().len(), 2);
        }
    }
    Ok(())
}

#[test]
fn each_question_of_the_paper_is_one_setting() -> Result<()> {
    let images = pictures(1, (64, 96));
    let objects = [vec![object(BBox::new(8.0, 8.0, 40.0, 44.0), 2)]];
    for (key, value, expected) in [
        ("flow", "single", 1),
        ("flow", "iterative", 1),
        ("flow", "integral", 6),
        ("pooling", "max", 3),
        ("class_agnostic", "false", 3),
        ("normalize_deltas", "false", 3),
        ("roi_source", "jittered-objects", 3),
        ("depth", "r34", 3),
    ] {
        let changed = config::set(&Config::Rcnn(slim(Arch::CascadeNano)), key, value).unwrap();
        let Config::Rcnn(settings) = &changed else { panic!("{key}") };
        assert_eq!(settings.heads(), expected, "{key} = {value}");
        let detector = build(&changed, &Device::Cpu, 1)?;
        assert!(losses(&*detector, &images, &objects)?.iter().all(|part| part.is_finite()), "{key} = {value}");
        let pass = Pass::new(Mode::Infer);
        assert_eq!(detector.detect(&detector.forward(&images, &pass)?, &pass)?.len(), 1);
    }
    let max = config::set(&Config::Rcnn(slim(Arch::FasterNano)), "pooling", "max").unwrap();
    assert!(matches!(max, Config::Rcnn(RcnnConfig { pooling: Pooling::Max, flow: Flow::Single, .. })));
    Ok(())
}

/// A pass with ground truth through `detector`.
fn traced(detector: &dyn Detector, images: &Tensor, objects: &[Object]) -> Result<Trace> {
    let pass = Pass::probed(Mode::Infer, 1);
    let outputs = detector.forward(images, &pass)?;
    pass.trace(0, |t| t.objects = objects.to_vec());
    detector.losses(&outputs, &[objects.to_vec()], &pass)?;
    detector.detect(&outputs, &pass)?;
    Ok(pass.into_traces().remove(0))
}

#[test]
fn the_trace_has_every_heads_overlaps_and_box_codes() -> Result<()> {
    let objects = [object(BBox::new(8.0, 8.0, 40.0, 44.0), 2)];
    let config = RcnnConfig { objects_as_rois: true, ..slim(Arch::CascadeNano) };
    let trace = traced(&*built(config.clone()), &pictures(1, (64, 96)), &objects)?;
    let stages: Vec<&str> = trace.localisation.iter().map(|head| head.stage.as_str()).collect();
    let own = ["stage 1", "stage 2", "stage 3", "training stage 1", "training stage 2", "training stage 3"];
    assert_eq!(stages, own);
    for (index, head) in trace.localisation.iter().enumerate() {
        assert_eq!(head.std, config.coder(index % 3).std);
        let made = trace.proposals.iter().find(|stage| stage.name == head.stage).unwrap();
        assert_eq!((head.input_iou.len(), &head.output_iou), (made.boxes.len(), &made.iou));
    }
    // the object itself is among the sampled RoIs: a positive whose code is 0
    let first = &trace.localisation[3];
    assert!(first.input_iou.contains(&1.0) && first.deltas.contains(&[0.0; 4]));
    for (delta, normalized) in first.deltas.iter().zip(first.normalized()) {
        assert!((0..4).all(|k| (normalized[k] * first.std[k] - delta[k]).abs() < 1e-5));
    }
    // what comes out of one stage goes into the next
    assert_eq!(trace.localisation[1].input_iou, trace.localisation[0].output_iou);
    let tensors = trace.tensors();
    for name in ["localisation.stage 2.input_iou", "localisation.training stage 3.normalized_deltas"] {
        assert!(tensors.iter().any(|tensor| tensor.name == name), "{name}");
    }
    let mut overlaps = Overlaps::default();
    overlaps.add(&trace);
    assert_eq!(overlaps.stages.iter().filter(|stage| !stage.of_training()).count(), 4);
    Ok(())
}

#[test]
fn a_survey_adds_up_the_images_of_a_data_set() {
    let spec = ShapesSpec { test: 3, size: (64, 48), ..ShapesSpec::default() };
    let dataset = shapes(&spec, Split::Test);
    let detector = built(slim(Arch::CascadeNano));
    let look = |_: usize, picture: &_, objects: &[Object]| {
        let pass = Pass::probed(Mode::Infer, 1);
        boxwright::detect::predict(&*detector, picture, Some(objects), pass).map_err(|e| e.to_string())
    };
    let mut last = (0, 0);
    let overlaps = survey(&dataset, 2, look, |done, total| last = (done, total)).unwrap();
    assert_eq!((overlaps.images, last), (2, (2, 2)));
    assert_eq!(overlaps.stages[0].name, "RPN");
    assert!(overlaps.stages.iter().all(|stage| stage.boxes == stage.histogram.total()));
    let one_stage = build(&Config::new(Arch::SsdNano, &dataset.classes), &Device::Cpu, 1).unwrap();
    let look = |_: usize, picture: &_, objects: &[Object]| {
        let pass = Pass::probed(Mode::Infer, 1);
        boxwright::detect::predict(&*one_stage, picture, Some(objects), pass).map_err(|e| e.to_string())
    };
    assert!(survey(&dataset, 1, look, |_, _| {}).unwrap_err().contains("cascade-nano"));
}
