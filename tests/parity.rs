//! Networks against recorded numbers of their reference implementations; tolerances in `engine::parity`.

use boxwright::engine::DeviceChoice;
use boxwright::engine::parity::{WEIGHTS_FOLDER, compare_file};
use std::path::Path;

fn agrees(fixture: &str, quick: bool) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(fixture);
    let parity = compare_file(&path, quick, DeviceChoice::Cpu).unwrap();
    let wrong: Vec<String> = parity
        .checks
        .iter()
        .filter(|c| !c.agrees())
        .map(|c| format!("{}: {} > {}", c.name, c.error, c.allowed))
        .collect();
    assert!(parity.checks.len() > 1, "only {} comparisons", parity.checks.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn ssd300_agrees_with_torchvision() {
    agrees("torchvision_ssd300_vgg16.json", false);
}

#[test]
fn ssd300_agrees_with_torchvision_through_the_quick_kernels() {
    agrees("torchvision_ssd300_vgg16.json", true);
}

#[test]
fn retinanet_agrees_with_torchvision() {
    agrees("torchvision_retinanet_resnet50_fpn.json", true);
}

#[test]
fn fcos_agrees_with_torchvision() {
    agrees("torchvision_fcos_resnet50_fpn.json", true);
}

#[test]
fn yolov3_agrees_with_mmdet() {
    agrees("mmdet_yolov3_d53.json", true);
}

#[test]
fn cascade_rcnn_agrees_with_mmdet() {
    agrees("mmdet_cascade_rcnn_r50_fpn.json", false);
}

#[test]
fn the_second_faster_rcnn_agrees_with_torchvision() {
    agrees("torchvision_fasterrcnn_resnet50_fpn_v2.json", false);
}

#[test]
fn yolo_fastest_agrees_with_opencv() {
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/weights/yolo-fastest-1.1.weights");
    if !weights.exists() && std::env::var_os(WEIGHTS_FOLDER).is_none() {
        println!("skipped: {} is not there", weights.display());
        return;
    }
    agrees("darknet_yolo-fastest-1.1.json", false);
}
