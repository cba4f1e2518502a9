//! The narrow one-stage detectors on the built-in Shapes set: what their anchors reach, how large they are, and what
//! testing at several sizes makes of a picture.

use boxwright::data::{self, Dataset, ShapesSpec, Split};
use boxwright::detect::multiscale::{Keep, MultiScale, Plan};
use boxwright::detect::names::names_for;
use boxwright::detect::{Arch, Config, build};
use boxwright::engine::reach::{Reach, reach};
use boxwright::geometry::BBox;
use boxwright::nn::{Mode, Pass};
use candle_core::{DType, Device, Tensor};

fn scenes(count: usize) -> Dataset {
    data::shapes(&ShapesSpec { test: count, ..ShapesSpec::default() }, Split::Test)
}

fn reached(arch: Arch, set: &Dataset) -> Reach {
    reach(&Config::new(arch, &set.classes), set, &mut |_, _| true).unwrap()
}

#[test]
fn anchors_reach_the_objects_of_200_scenes() {
    let set = scenes(200);
    for arch in [Arch::RetinanetNano, Arch::RefinedetNano, Arch::M2detNano] {
        let found = reached(arch, &set);
        let all = &found.sizes[0];
        assert_eq!((found.threshold, found.images), (Some(0.5), 200));
        assert!(all.objects > 600, "{arch}: {} objects", all.objects);
        let recall = all.recall.unwrap();
        assert!(recall >= 0.97, "{arch}: {recall:.3} of {} objects, {:?}", all.objects, found.sizes);
    }
}

#[test]
fn detectors_with_a_rule_of_their_own_reach_them_too() {
    let set = scenes(40);
    for arch in [Arch::FcosNano, Arch::Yolov3Nano] {
        let found = reached(arch, &set);
        let recall = found.sizes[0].recall.unwrap();
        assert!(recall >= 0.97, "{arch}: {recall:.3}, {:?}", found.findings);
    }
}

/// Best IoU of a box of these sides with one of the anchors of a level, their centres put together.
fn best_shape(anchors: &[BBox], side: f32) -> f32 {
    let overlap = |b: &BBox| {
        let inside = b.width().min(side) * b.height().min(side);
        inside / (b.area() + side * side - inside)
    };
    anchors.iter().map(overlap).fold(0.0, f32::max)
}

#[test]
fn every_size_from_10_to_230_pixels_has_an_anchor_of_its_shape() {
    for arch in [Arch::RetinanetNano, Arch::RefinedetNano, Arch::M2detNano] {
        let config = Config::new(arch, &names_for(8));
        let detector = build(&config, &Device::Cpu, 0).unwrap();
        let (height, width) = config.input();
        let images = Tensor::zeros((1, 3, height, width), DType::F32, &Device::Cpu).unwrap();
        let pass = Pass::probed(Mode::Infer, 1);
        detector.forward(&images, &pass).unwrap();
        let anchors = pass.into_traces().remove(0).anchors;
        // one cell of each level stands for all
        let shapes: Vec<BBox> = anchors
            .levels
            .iter()
            .flat_map(|level| anchors.boxes[level.start..level.start + level.per_cell].iter().copied())
            .collect();
        for side in (10..=230).step_by(5) {
            let best = best_shape(&shapes, side as f32);
            assert!(best >= 0.5, "{arch}: {side} pixels: {best:.2}");
        }
    }
}

#[test]
fn narrow_networks_stay_small() {
    let classes = names_for(data::CLASSES.len());
    let archs = [Arch::RetinanetNano, Arch::FcosNano, Arch::RefinedetNano, Arch::M2detNano, Arch::Yolov3Nano];
    for arch in archs {
        let config = Config::new(arch, &classes);
        let detector = build(&config, &Device::Cpu, 0).unwrap();
        let (height, width) = config.input();
        let pass = Pass::new(Mode::Infer);
        let images = Tensor::zeros((1, 3, height, width), DType::F32, &Device::Cpu).unwrap();
        detector.forward(&images, &pass).unwrap();
        let (parameters, flops) = (detector.params().elements(), pass.flops());
        assert!((300_000..650_000).contains(&parameters), "{arch}: {parameters} parameters");
        assert!(flops > 1e8 && flops <= 2e9, "{arch}: {:.2} GFLOPs", flops / 1e9);
    }
}

#[test]
fn a_picture_is_tested_at_every_size_of_a_plan() {
    let set = scenes(1);
    let picture = set.picture(0).unwrap();
    for arch in [Arch::RefinedetNano, Arch::M2detNano] {
        let config = Config::new(arch, &set.classes);
        let detector = build(&config, &Device::Cpu, 1).unwrap();
        let plan = Plan::published(&config).unwrap();
        assert!(plan.scales.len() >= 4, "{arch}");
        // one small size is enough to see that the network takes others than its own
        let side = if arch == Arch::RefinedetNano { 160 } else { 192 };
        let small = Plan { scales: vec![MultiScale::square(side, Keep::All)], ..plan };
        let found = small.predict(&*detector, &picture).unwrap();
        assert!(found.timings.iter().any(|time| time.stage == "merge"));
        let (width, height) = (picture.width as f32, picture.height as f32);
        assert!(found.detections.iter().all(|d| d.bbox.clip(width, height) == d.bbox && d.anchor.is_none()));
    }
}
