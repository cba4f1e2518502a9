//! Public weights that are not part of this repository: read where they lie beside it, skipped elsewhere.

use boxwright::detect::Config;
use boxwright::detect::darknet::DarknetConfig;
use boxwright::engine::model::fit;
use boxwright::weights::{DarknetWeights, Dtype, Format, open};
use std::path::{Path, PathBuf};

/// A published file, where the folder with such files lies beside the repository.
fn published(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/weights").join(name);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is not there", path.display());
    None
}

#[test]
fn published_darknet_and_torch_files_of_one_network_hold_the_same_floats() {
    let (Some(torch), Some(darknet)) = (published("yolo-fastest-xl.pt"), published("yolo-fastest-xl.weights")) else {
        return;
    };
    let torch = open(&torch).unwrap();
    assert_eq!((torch.format(), torch.tensors().len()), (Format::TorchZip, 502));
    let mut from_torch: Vec<u32> = Vec::new();
    for tensor in torch.tensors().iter().filter(|tensor| tensor.dtype == Dtype::F32) {
        from_torch.extend(torch.read_f32(tensor).unwrap().iter().map(|value| value.to_bits()));
    }
    let weights = DarknetWeights::from_checkpoint(&open(&darknet).unwrap()).unwrap();
    assert_eq!((weights.header.minor, weights.header.revision, weights.header.seen), (2, 5, 18_627_200));
    let mut from_darknet: Vec<u32> = weights.floats.iter().map(|value| value.to_bits()).collect();
    assert_eq!((from_torch.len(), from_darknet.len()), (912_686, 912_686));
    // torch keeps γ before β and the kernel first: the same floats in another order
    from_torch.sort_unstable();
    from_darknet.sort_unstable();
    assert!(from_torch == from_darknet);
}

#[test]
fn published_cfgs_are_filled_by_their_weights_of_either_kind() {
    for (cfg, file) in [
        ("yolo-fastest-1.1.cfg", "yolo-fastest-1.1.weights"),
        ("yolo-fastest-xl.cfg", "yolo-fastest-xl.weights"),
        ("yolo-fastest-xl.cfg", "yolo-fastest-xl.pt"),
    ] {
        let (Some(cfg), Some(path)) = (published(cfg), published(file)) else {
            continue;
        };
        let config = DarknetConfig::read(&std::fs::read_to_string(cfg).unwrap()).unwrap();
        let mut checkpoint = open(&path).unwrap();
        checkpoint.translate();
        let (named, report) = fit(&Config::Darknet(config), checkpoint).unwrap();
        assert!(report.is_complete() && report.unexpected.is_empty(), "{file}: {report}");
        assert!(named.get("module_list.0.Conv2d.weight").is_some(), "{file}");
    }
}

#[test]
fn published_torch_and_safetensors_files_list_the_same_tensors() {
    let (Some(torch), Some(safetensors)) = (published("mnist.pt"), published("mnist.safetensors")) else {
        return;
    };
    let (torch, safetensors) = (open(&torch).unwrap(), open(&safetensors).unwrap());
    assert_eq!((torch.tensors().len(), safetensors.tensors().len()), (20, 20));
    // The two were saved after different trainings: names, shapes and types are the same, the numbers are not.
    for tensor in safetensors.tensors() {
        let other = torch.get(&tensor.name).unwrap();
        assert_eq!((&other.shape, other.dtype), (&tensor.shape, tensor.dtype), "{}", tensor.name);
        assert_eq!(
            torch.read_f32(other).unwrap().len(),
            safetensors.read_f32(tensor).unwrap().len(),
            "{}",
            tensor.name
        );
    }
}

#[test]
fn published_legacy_streams_list_every_tensor() {
    // tensors and elements as Python's own unpickler counts them
    for (name, first, tensors, elements) in
        [("blazeface.pth", "backbone1.0.weight", 74, 101_390), ("resnet20-12fca82f.th", "conv1.weight", 97, 271_098)]
    {
        let Some(path) = published(name) else {
            continue;
        };
        let checkpoint = open(&path).unwrap();
        assert_eq!(checkpoint.format(), Format::TorchLegacy);
        assert_eq!(checkpoint.tensors().len(), tensors, "{name}");
        assert_eq!(checkpoint.tensors()[0].name, first);
        assert_eq!(checkpoint.tensors().iter().map(|tensor| tensor.elements()).sum::<usize>(), elements, "{name}");
        for tensor in checkpoint.tensors() {
            let numbers = checkpoint.read_f32(tensor).unwrap();
            assert!(numbers.iter().all(|number| number.is_finite()), "{name} {}", tensor.name);
        }
    }
}
