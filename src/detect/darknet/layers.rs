//! A cfg as typed layers with their shapes: what it promises as a whole is checked here, before anything is built.
//! Sizes are multiplied with care, and neither parameters nor maps may be larger than a machine's memory.

use super::cfg::{CfgError, Section};
use super::sections::place;

/// Most numbers in all parameters together: 1 GiB of f32.
const MAX_PARAMETERS: usize = 1 << 28;
/// Most numbers in the output of one layer, for one image.
const MAX_MAP: usize = 1 << 28;
/// Most numbers in the outputs of all layers together, for one image.
const MAX_MAPS: usize = 1 << 30;
/// Longest side of an input, pixels.
const MAX_SIDE: usize = 8192;

/// What follows a layer's sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nonlinearity {
    Linear,
    /// Slope 0.1.
    Leaky,
    Relu,
    Relu6,
    Mish,
    Swish,
    Logistic,
    Tanh,
    Elu,
    Selu,
    /// By its approximation with the hyperbolic tangent.
    Gelu,
    /// x above 0, x + x² / 2 from −2 on, 0 below.
    HardMish,
}

/// `[convolutional]`. Pairs are (vertical, horizontal).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convolution {
    pub filters: usize,
    pub size: usize,
    pub stride: (usize, usize),
    pub padding: usize,
    pub dilation: usize,
    pub groups: usize,
    pub batch_normalize: bool,
    pub activation: Nonlinearity,
}

/// `[yolo]`: what the network's last convolutions are read as, and the settings of its targets.
#[derive(Clone, Debug, PartialEq)]
pub struct Yolo {
    /// Width and height in input pixels.
    pub anchors: Vec<[f32; 2]>,
    /// Indices of those that this layer predicts with.
    pub mask: Vec<usize>,
    pub classes: usize,
    pub scale_xy: f32,
    pub ignore_threshold: f32,
    pub iou_threshold: f32,
    /// `mse`, `iou`, `giou`, `diou` or `ciou`.
    pub iou_loss: String,
    pub iou_weight: f32,
    pub objectness_weight: f32,
    pub class_weight: f32,
}

/// One layer; sources are indices of earlier layers.
#[derive(Clone, Debug, PartialEq)]
pub enum Layer {
    Convolutional(Convolution),
    /// `padding` is the sum of both sides; the smaller half lies on the left and on top.
    MaxPool {
        size: usize,
        stride: (usize, usize),
        padding: usize,
    },
    /// Mean of each plane.
    AveragePool,
    /// The chosen group of channels of each source, one after the other.
    Route {
        from: Vec<usize>,
        groups: usize,
        group: usize,
    },
    /// The sum of the layer before and the sources.
    Shortcut {
        from: Vec<usize>,
        activation: Nonlinearity,
    },
    Upsample {
        stride: usize,
    },
    /// Nothing: no random draw takes part in a pass, in training neither.
    Dropout,
    /// The source with each plane scaled by the number that the layer before has for it.
    ScaleChannels {
        from: usize,
        activation: Nonlinearity,
    },
    /// The source times the layer before, number by number.
    Sam {
        from: usize,
        activation: Nonlinearity,
    },
    Yolo(Yolo),
}

/// Channels, height and width of one image's map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub channels: usize,
    pub height: usize,
    pub width: usize,
}

impl Shape {
    fn elements(self) -> Option<usize> {
        self.channels.checked_mul(self.height)?.checked_mul(self.width)
    }
}

/// A layer in its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed {
    pub layer: Layer,
    pub input: Shape,
    pub output: Shape,
}

/// A network that can be built.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub layers: Vec<Placed>,
    /// Height and width of the input for which the shapes hold.
    pub input: (usize, usize),
    /// Numbers in all parameters, running statistics included: the floats of a weights file.
    pub floats: usize,
}

impl Plan {
    /// The detection layers in order.
    pub fn yolos(&self) -> impl Iterator<Item = &Yolo> {
        self.layers.iter().filter_map(|placed| match &placed.layer {
            Layer::Yolo(yolo) => Some(yolo),
            _ => None,
        })
    }
}

/// Height and width that `[net]` gives.
///
/// # Errors
/// Sizes that are missing or out of range.
pub fn net_size(sections: &[Section]) -> Result<(usize, usize), CfgError> {
    match sections.first() {
        Some(net) => Ok((net.whole("height", None, 1..=MAX_SIDE)?, net.whole("width", None, 1..=MAX_SIDE)?)),
        None => Err(CfgError { line: 1, section: "start".to_owned(), reason: "there is no section".to_owned() }),
    }
}

/// Types and checks all layers for an input of this height and width with three channels.
///
/// # Errors
/// An unknown section or setting, a value that cannot be used, layers whose shapes do not fit each other, a network
/// without a `[yolo]` layer or with different class counts, or one that is too large.
pub fn plan(sections: &[Section], input: (usize, usize)) -> Result<Plan, CfgError> {
    let Some((net, layers)) = sections.split_first() else {
        return Err(CfgError { line: 1, section: "start".to_owned(), reason: "there is no section".to_owned() });
    };
    // what else stands there is about training
    net.whole("channels", Some(3), 3..=3)?;
    let (height, width) = input;
    if !(1..=MAX_SIDE).contains(&height) || !(1..=MAX_SIDE).contains(&width) {
        return Err(net.fault(format!("an input of {width}×{height} pixels; each side can be 1 to {MAX_SIDE}")));
    }
    let mut plan = Plan { layers: Vec::new(), input, floats: 0 };
    let mut maps = 0usize;
    for section in layers {
        let before = match plan.layers.last() {
            None => Shape { channels: 3, height, width },
            Some(placed) => placed.output,
        };
        let (layer, output) = place(section, before, &plan.layers)?;
        let parameters = match &layer {
            Layer::Convolutional(convolution) => parameters(convolution, before.channels),
            _ => Some(0),
        };
        plan.floats = parameters
            .and_then(|count| plan.floats.checked_add(count))
            .filter(|total| *total <= MAX_PARAMETERS)
            .ok_or_else(|| section.fault("more than 1 GiB of parameters up to here".to_owned()))?;
        let elements = output.elements().filter(|count| *count <= MAX_MAP);
        maps = elements
            .and_then(|count| maps.checked_add(count))
            .filter(|total| *total <= MAX_MAPS)
            .ok_or_else(|| section.fault(format!("the maps grow too large here: {output:?}")))?;
        plan.layers.push(Placed { layer, input: before, output });
    }
    let classes: Vec<usize> = plan.yolos().map(|yolo| yolo.classes).collect();
    match classes.first() {
        None => Err(net.fault("a network without a [yolo] layer detects nothing".to_owned())),
        Some(first) if classes.iter().any(|other| other != first) => {
            Err(net.fault(format!("the [yolo] layers disagree about the number of classes: {classes:?}")))
        }
        Some(_) => Ok(plan),
    }
}

/// Floats of a convolution: filters, and four numbers or one a filter.
fn parameters(convolution: &Convolution, channels: usize) -> Option<usize> {
    let taps = convolution.size.checked_mul(convolution.size)?;
    let filter = (channels / convolution.groups.max(1)).checked_mul(taps)?;
    let rest = if convolution.batch_normalize { 4 } else { 1 };
    convolution.filters.checked_mul(filter.checked_add(rest)?)
}

#[cfg(test)]
mod tests {
    use super::super::cfg::parse;
    use super::*;

    fn planned(body: &str) -> Result<Plan, CfgError> {
        // the head makes any body a detector of one class with one anchor
        let head = "[convolutional]\nfilters=6\nactivation=linear\n[yolo]\nanchors=4,5\nclasses=1\n";
        plan(&parse(&format!("[net]\nwidth=64\nheight=32\n{body}{head}"))?, (32, 64))
    }

    fn shape(channels: usize, height: usize, width: usize) -> Shape {
        Shape { channels, height, width }
    }

    fn output(body: &str, layer: usize) -> Shape {
        planned(body).unwrap().layers[layer].output
    }

    #[test]
    fn convolutions_pad_by_half_the_size_and_count_their_floats() {
        let body = "[convolutional]\nfilters=8\nsize=3\nstride=2\npad=1\nbatch_normalize=1\nactivation=leaky\n\
                    [convolutional]\nfilters=8\ngroups=8\nsize=5\npad=1\nactivation=mish\n";
        let plan = planned(body).unwrap();
        assert_eq!(plan.layers[0].output, shape(8, 16, 32));
        assert_eq!(plan.layers[1].output, shape(8, 16, 32));
        // 8·(27 + 4), then 8·(25 + 1), then 6·(8 + 1)
        assert_eq!(plan.floats, 8 * 31 + 8 * 26 + 6 * 9);
        let dilated = "[convolutional]\nfilters=4\nsize=3\npad=1\ndilation=3\nactivation=linear\n";
        assert_eq!(output(dilated, 0), shape(4, 32, 64));
        assert!(planned("[convolutional]\nfilters=4\nsize=3\ndilation=3\n").is_err());
    }

    #[test]
    fn routes_shortcuts_and_upsampling_have_the_shapes_of_what_they_join() {
        let conv = |filters: usize, stride: usize| {
            format!("[convolutional]\nfilters={filters}\nsize=3\nstride={stride}\npad=1\nactivation=linear\n")
        };
        let body = format!("{}{}[upsample]\nstride=2\n[route]\nlayers=-1,0\n", conv(8, 1), conv(4, 2));
        assert_eq!(output(&body, 2), shape(4, 32, 64));
        assert_eq!(output(&body, 3), shape(12, 32, 64));
        let body = format!("{}[route]\nlayers=-1\ngroups=2\ngroup_id=1\n", conv(8, 1));
        let plan = planned(&body).unwrap();
        assert_eq!(plan.layers[1].output, shape(4, 32, 64));
        assert_eq!(plan.layers[1].layer, Layer::Route { from: vec![0], groups: 2, group: 1 });
        let body = format!("{}{}[shortcut]\nfrom=-2\nactivation=leaky\n", conv(8, 1), conv(8, 1));
        assert_eq!(output(&body, 2), shape(8, 32, 64));
        let body = format!("{}[avgpool]\n[scale_channels]\nfrom=0\n", conv(8, 1));
        assert_eq!(output(&body, 1), shape(8, 1, 1));
        assert_eq!(output(&body, 2), shape(8, 32, 64));
        let body = format!("{}{}[sam]\nfrom=-2\n", conv(8, 1), conv(8, 1));
        assert_eq!(output(&body, 2), shape(8, 32, 64));
    }

    #[test]
    fn errors_name_the_line_of_what_cannot_be_used() {
        let conv = "[convolutional]\nfilters=8\nactivation=linear\n";
        // bodies begin on line 4
        for (body, line, word) in [
            ("[connected]\noutput=9\n", 4, "unknown section"),
            ("[convolutional]\nfilters=8\nactivation=stair\n", 6, "not supported"),
            ("[convolutional]\nfilters=8\nxnor=1\n", 6, "not supported"),
            ("[convolutional]\nfliters=8\n", 5, "unknown setting"),
            ("[convolutional]\nfilters=0\n", 5, "whole number"),
            ("[convolutional]\nfilters=8\ngroups=2\n", 4, "do not divide"),
            ("[convolutional]\nfilters=8\nsize=99\n", 4, "does not fit"),
            ("[convolutional]\nfilters=1000000\nsize=999\npad=1\n", 4, "1 GiB"),
            ("[upsample]\nstride=64\n[upsample]\nstride=64\n", 6, "too large"),
            ("[route]\nlayers=-1\n", 4, "none of the 0 layers"),
            ("[route]\n", 4, "missing"),
            ("[shortcut]\nfrom=9\n", 4, "none of"),
        ] {
            let error = planned(body).unwrap_err();
            assert!(error.line == line && error.reason.contains(word), "{body:?}: {error}");
        }
        let error = planned(&format!("{conv}[shortcut]\nfrom=0\nweights_type=per_channel\n")).unwrap_err();
        assert_eq!(error.line, 9);
        let wide = "[convolutional]\nfilters=8\nstride=2\nactivation=linear\n";
        assert!(planned(&format!("{conv}{wide}[route]\nlayers=0,1\n")).unwrap_err().reason.contains("does not fit"));
        assert!(planned(&format!("{conv}{wide}[shortcut]\nfrom=0\n")).unwrap_err().reason.contains("cannot add"));
        assert!(planned(&format!("{conv}[scale_channels]\nfrom=0\n")).unwrap_err().reason.contains("one number"));
    }
}
