//! Which float of a darknet weights file belongs to which parameter.
//!
//! Order, layer by layer: with batch normalisation β, γ, mean and variance, without it the bias, then the kernel
//! (`load_convolutional_weights` of pjreddie/darknet, `src/parser.c`). A network whose parameters come into being in the
//! order of the cfg therefore says itself where they belong, whatever their names.

use crate::nn::{Params, Role};
use crate::weights::{self, Checkpoint, DarknetWeights, WeightsError};
use std::fmt::Write as _;

/// Name and shape.
type Entry = (String, Vec<usize>);

/// One convolution's parameters in the order of a weights file: β, γ, mean, variance, kernel; or bias, kernel.
struct Layer {
    parameters: Vec<Entry>,
}

impl Layer {
    fn floats(&self) -> usize {
        self.parameters.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }
}

/// The convolutions of a network in order of creation.
fn layers(params: &Params) -> Result<Vec<Layer>, WeightsError> {
    let mut layers: Vec<Layer> = Vec::new();
    // β, γ, mean, variance or bias of the convolution that is being collected, by place in the file
    let mut vectors: [Option<Entry>; 4] = Default::default();
    let mut kernel: Option<Entry> = None;
    let mut finish = |kernel: Option<Entry>, vectors: &mut [Option<Entry>; 4]| {
        if let Some(kernel) = kernel {
            let mut parameters: Vec<Entry> = vectors.iter_mut().filter_map(Option::take).collect();
            parameters.push(kernel);
            layers.push(Layer { parameters });
        }
    };
    for param in params.all() {
        let entry: Entry = (param.name.clone(), param.var.dims().to_vec());
        let place = match (param.role, param.name.rsplit('.').next()) {
            (Role::Weight, _) => {
                finish(kernel.replace(entry), &mut vectors);
                continue;
            }
            (Role::Bias, _) | (Role::Norm, Some("bias")) => 0,
            (Role::Norm, Some("weight")) => 1,
            (Role::Buffer, Some("running_mean")) => 2,
            (Role::Buffer, Some("running_var")) => 3,
            _ => {
                let what = "has no place in darknet weights".to_owned();
                return Err(WeightsError::Tensor { name: param.name.clone(), what });
            }
        };
        vectors[place] = Some(entry);
    }
    finish(kernel.take(), &mut vectors);
    Ok(layers)
}

/// The floats of `weights` under the names that `params` has for them.
///
/// A file that ends after a whole layer gives the layers up to there, which is how backbones are published
/// (`darknet53.conv.74`); a load report then lists the rest as missing.
///
/// # Errors
/// A file that ends within a layer or holds more floats than the network: both counts are named.
pub fn checkpoint(params: &Params, weights: &DarknetWeights) -> Result<Checkpoint, WeightsError> {
    let layers = layers(params)?;
    let (needed, found) = (layers.iter().map(Layer::floats).sum::<usize>(), weights.floats.len());
    if found > needed {
        return Err(WeightsError::Malformed(format!(
            "the weights hold {found} floats and the network {needed}: they belong to another cfg"
        )));
    }
    let mut header = String::from("{");
    let mut end = 0usize;
    for layer in &layers {
        if end == found {
            break;
        }
        if end + layer.floats() > found {
            let (name, _) = layer.parameters.last().cloned().unwrap_or_default();
            return Err(WeightsError::Truncated {
                what: format!("the network, of which the weights end within `{name}`,"),
                expected: needed as u64 * 4,
                actual: found as u64 * 4,
            });
        }
        for (name, shape) in &layer.parameters {
            let start = end;
            end += shape.iter().product::<usize>();
            let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
            let comma = if start == 0 { "" } else { "," };
            // writing to a String cannot fail
            let _ = write!(
                header,
                "{comma}\"{name}\":{{\"dtype\":\"F32\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                sizes.join(","),
                start * 4,
                end * 4
            );
        }
    }
    header.push('}');
    // the floats stand in the file in the order of the names, so they are copied as they are
    let mut bytes = Vec::with_capacity(8 + header.len() + end * 4);
    bytes.extend_from_slice(&(header.len() as u64).to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend(weights.floats.iter().take(end).flat_map(|value| value.to_le_bytes()));
    weights::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::{Darknet, DarknetConfig};
    use super::*;
    use crate::detect::Detector;
    use crate::weights::DarknetHeader;
    use candle_core::{Device, Result};

    /// 3→2 with batch norm, a depthwise 3×3 with batch norm, then the head with a bias.
    const CFG: &str = "[net]\nwidth=32\nheight=32\n\
        [convolutional]\nfilters=2\nsize=1\nbatch_normalize=1\nactivation=leaky\n\
        [convolutional]\nfilters=2\nsize=3\npad=1\ngroups=2\nbatch_normalize=1\nactivation=linear\n\
        [shortcut]\nfrom=-2\n\
        [convolutional]\nfilters=6\nsize=1\nactivation=linear\n\
        [yolo]\nanchors=4,5\nclasses=1\n";

    fn detector() -> Result<Darknet> {
        let config = DarknetConfig::read(CFG).map_err(candle_core::Error::wrap)?;
        Darknet::new(&config, &Device::Cpu, 1)
    }

    fn counting(count: usize) -> DarknetWeights {
        let header = DarknetHeader { major: 0, minor: 2, revision: 5, seen: 7, bytes: 20 };
        DarknetWeights { header, floats: (0..count).map(|i| i as f32).collect() }
    }

    #[test]
    fn every_float_lands_where_darknet_puts_it() -> Result<()> {
        let detector = detector()?;
        // 4·2 + 6, then 4·2 + 18, then 6 + 12
        let file = checkpoint(detector.params(), &counting(14 + 26 + 18)).unwrap();
        let report = detector.params().load(&file).unwrap();
        assert!(report.is_complete() && report.unexpected.is_empty(), "{report}");
        let values = detector.params().values()?;
        for (name, shape, first) in [
            ("module_list.0.BatchNorm2d.bias", vec![2], 0.0f32),
            ("module_list.0.BatchNorm2d.weight", vec![2], 2.0),
            ("module_list.0.BatchNorm2d.running_mean", vec![2], 4.0),
            ("module_list.0.BatchNorm2d.running_var", vec![2], 6.0),
            ("module_list.0.Conv2d.weight", vec![2, 3, 1, 1], 8.0),
            ("module_list.1.BatchNorm2d.bias", vec![2], 14.0),
            ("module_list.1.Conv2d.weight", vec![2, 1, 3, 3], 22.0),
            ("module_list.3.Conv2d.bias", vec![6], 40.0),
            ("module_list.3.Conv2d.weight", vec![6, 2, 1, 1], 46.0),
        ] {
            let (found, numbers) = &values[name];
            let expected: Vec<f32> = (0..numbers.len()).map(|i| first + i as f32).collect();
            assert_eq!((found, numbers), (&shape, &expected), "{name}");
        }
        Ok(())
    }

    #[test]
    fn files_of_another_length_name_both_counts() -> Result<()> {
        let detector = detector()?;
        let short = checkpoint(detector.params(), &counting(57)).unwrap_err().to_string();
        assert!(short.contains("232") && short.contains("228") && short.contains("module_list.3"), "{short}");
        let long = checkpoint(detector.params(), &counting(59)).unwrap_err().to_string();
        assert!(long.contains("59") && long.contains("58"), "{long}");
        Ok(())
    }

    #[test]
    fn a_backbone_alone_fills_its_layers() -> Result<()> {
        let detector = detector()?;
        for (count, missing) in [(40, 2), (14, 7), (0, 12)] {
            let file = checkpoint(detector.params(), &counting(count)).unwrap();
            let report = detector.params().load(&file).unwrap();
            assert_eq!((report.missing.len(), report.loaded.len()), (missing, 12 - missing), "{count}");
        }
        Ok(())
    }
}
