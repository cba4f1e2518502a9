//! Networks against recorded numbers of their reference implementations; tolerances in `engine::parity`.

use boxwright::engine::parity::compare_file;
use std::path::Path;

fn agrees(fixture: &str, quick: bool) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(fixture);
    let parity = compare_file(&path, quick).unwrap();
    let wrong: Vec<String> = parity
        .checks
        .iter()
        .filter(|c| !c.agrees())
        .map(|c| format!("{}: {} > {}", c.name, c.error, c.allowed))
        .collect();
    assert!(parity.checks.len() > 3, "only {} comparisons", parity.checks.len());
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
