//! A planned cfg as tensors: one node a layer, and the raw maps before the detection layers.
//!
//! Parameters are called `module_list.{i}.Conv2d.*` and `module_list.{i}.BatchNorm2d.*` after the layer's index, as in
//! the cfg-based PyTorch ports whose checkpoints are published, and come into being in the order of a weights file.

use super::head::Head;
use super::layers::{Convolution, Layer, Nonlinearity, Placed, Plan, Yolo};
use crate::nn::{Conv, ConvNorm, Init, Params, Pass};
use crate::ops::activation::{leaky_relu, mish, relu, relu6, sigmoid, swish};
use crate::ops::conv::{Activation, ConvSpec};
use crate::ops::maps::{add, cat};
use crate::ops::pool::{Pool, global_avg_pool, max_pool2d};
use crate::ops::resize::upsample_nearest;
use candle_core::{Result, Tensor};

/// Slope of darknet's leaky rectifier.
const LEAKY: f32 = 0.1;
/// Slope of the scaled exponential unit above 0, and how far below 0 it falls before that (Klambauer et al., 2017).
const SELU: (f64, f64) = (1.0507, 1.6732);

/// A convolution with or without batch normalisation.
#[derive(Debug)]
enum Filter {
    Plain(Box<Conv>),
    Normed(Box<ConvNorm>),
}

/// One layer. Sources are indices.
#[derive(Debug)]
enum Node {
    Convolution { filter: Filter, after: Nonlinearity },
    MaxPool { size: usize, stride: (usize, usize), padding: usize },
    AveragePool,
    Route { from: Vec<usize>, groups: usize, group: usize },
    Shortcut { from: Vec<usize>, after: Nonlinearity },
    Upsample { stride: usize },
    Nothing,
    ScaleChannels { from: usize, after: Nonlinearity },
    Sam { from: usize, after: Nonlinearity },
    Yolo,
}

/// The network of a cfg.
#[derive(Debug)]
pub(super) struct Network {
    nodes: Vec<Node>,
    /// The last layer that reads each layer's output by its index, where one does.
    last_reader: Vec<Option<usize>>,
    /// Layers whose output a probe looks at: name and level.
    taps: Vec<Option<(String, usize)>>,
}

/// What a convolution fuses, and what is left to do after it.
fn fused(activation: Nonlinearity) -> (Activation, Nonlinearity) {
    match activation {
        Nonlinearity::Leaky => (Activation::Leaky(LEAKY), Nonlinearity::Linear),
        Nonlinearity::Relu => (Activation::Relu, Nonlinearity::Linear),
        other => (Activation::None, other),
    }
}

fn activate(x: Tensor, nonlinearity: Nonlinearity) -> Result<Tensor> {
    match nonlinearity {
        Nonlinearity::Linear => Ok(x),
        Nonlinearity::Leaky => leaky_relu(&x, LEAKY),
        Nonlinearity::Relu => relu(&x),
        Nonlinearity::Relu6 => relu6(&x),
        Nonlinearity::Mish => mish(&x),
        Nonlinearity::Swish => swish(&x),
        Nonlinearity::Logistic => sigmoid(&x),
        Nonlinearity::Tanh => x.tanh(),
        Nonlinearity::Elu => x.elu(1.0),
        Nonlinearity::Selu => x.elu(SELU.1)?.affine(SELU.0, 0.0),
        Nonlinearity::Gelu => x.gelu(),
        Nonlinearity::HardMish => {
            let bend = x.clamp(-2f32, 0f32)?;
            relu(&x)?.add(&bend)?.add(&bend.sqr()?.affine(0.5, 0.0)?)
        }
    }
}

/// Maximum of windows by darknet's rule: ⌊(length + padding − size) / stride⌋ + 1 of them, the first ⌊padding / 2⌋
/// pixels outside; nothing outside ever wins.
fn max_pool(x: &Tensor, size: usize, stride: (usize, usize), padding: usize) -> Result<Tensor> {
    let (_, _, height, width) = x.dims4()?;
    let before = padding / 2;
    let after = |length: usize, stride: usize| {
        let windows = (length + padding).saturating_sub(size) / stride.max(1) + 1;
        ((windows - 1) * stride + size).saturating_sub(before + length)
    };
    let (below, right) = (after(height, stride.0), after(width, stride.1));
    let pool = Pool { kernel: (size, size), stride, padding: (0, 0), ceil_mode: false };
    if below == before && right == before && before <= size / 2 {
        return max_pool2d(x, pool.padding(before));
    }
    let padded = grown(&grown(x, 2, before, below)?, 3, before, right)?;
    max_pool2d(&padded.contiguous()?, pool)
}

/// `x` with −∞ on both sides of one dimension.
fn grown(x: &Tensor, dim: usize, before: usize, after: usize) -> Result<Tensor> {
    let lowest = |length: usize| -> Result<Tensor> {
        let mut shape = x.dims().to_vec();
        shape[dim] = length;
        Tensor::full(f32::NEG_INFINITY, shape, x.device())
    };
    match (before, after) {
        (0, 0) => Ok(x.clone()),
        (0, _) => cat(&[x.clone(), lowest(after)?], dim),
        (_, 0) => cat(&[lowest(before)?, x.clone()], dim),
        _ => cat(&[lowest(before)?, x.clone(), lowest(after)?], dim),
    }
}

impl Network {
    /// Builds the planned layers. `head` says how the convolutions before detection layers start, `epsilon` is added to
    /// the variance of batch norms.
    pub fn new(params: &Params, plan: &Plan, head: &Head, epsilon: f32) -> Result<Self> {
        let mut nodes = Vec::with_capacity(plan.layers.len());
        for (index, placed) in plan.layers.iter().enumerate() {
            let detects = match plan.layers.get(index + 1) {
                Some(Placed { layer: Layer::Yolo(yolo), .. }) => Some(yolo),
                _ => None,
            };
            nodes.push(node(params, index, placed, detects, head, epsilon)?);
        }
        let mut last_reader = vec![None; nodes.len()];
        for (reader, node) in nodes.iter().enumerate() {
            for &source in node.sources() {
                if let Some(last) = last_reader.get_mut(source) {
                    *last = Some(reader);
                }
            }
        }
        Ok(Self { nodes, last_reader, taps: taps(plan) })
    }

    /// Images `[N, 3, H, W]` → the raw maps before the detection layers, in their order.
    pub fn forward(&self, images: &Tensor, pass: &Pass) -> Result<Vec<Tensor>> {
        let mut outputs: Vec<Option<Tensor>> = vec![None; self.nodes.len()];
        let mut maps = Vec::new();
        let mut x = images.clone();
        for (index, node) in self.nodes.iter().enumerate() {
            if matches!(node, Node::Yolo) {
                maps.push(x.clone());
                continue;
            }
            x = node.forward(&x, &outputs, pass)?;
            if let Some(Some((name, level))) = self.taps.get(index) {
                pass.tap(name, *level, &x)?;
            }
            for &source in node.sources() {
                if self.last_reader.get(source).is_some_and(|last| *last == Some(index))
                    && let Some(output) = outputs.get_mut(source)
                {
                    *output = None;
                }
            }
            if self.last_reader.get(index).is_some_and(Option::is_some)
                && let Some(output) = outputs.get_mut(index)
            {
                *output = Some(x.clone());
            }
        }
        Ok(maps)
    }
}

/// Builds one layer; `detects` is the detection layer that follows it at once.
fn node(
    params: &Params,
    index: usize,
    placed: &Placed,
    detects: Option<&Yolo>,
    head: &Head,
    epsilon: f32,
) -> Result<Node> {
    Ok(match &placed.layer {
        Layer::Convolutional(convolution) => {
            convolution_node(params, index, convolution, placed.input.channels, detects, head, epsilon)?
        }
        Layer::MaxPool { size, stride, padding } => Node::MaxPool { size: *size, stride: *stride, padding: *padding },
        Layer::AveragePool => Node::AveragePool,
        Layer::Route { from, groups, group } => Node::Route { from: from.clone(), groups: *groups, group: *group },
        Layer::Shortcut { from, activation } => Node::Shortcut { from: from.clone(), after: *activation },
        Layer::Upsample { stride } => Node::Upsample { stride: *stride },
        Layer::Dropout => Node::Nothing,
        Layer::ScaleChannels { from, activation } => Node::ScaleChannels { from: *from, after: *activation },
        Layer::Sam { from, activation } => Node::Sam { from: *from, after: *activation },
        Layer::Yolo(_) => Node::Yolo,
    })
}

fn convolution_node(
    params: &Params,
    index: usize,
    convolution: &Convolution,
    channels: usize,
    detects: Option<&Yolo>,
    head: &Head,
    epsilon: f32,
) -> Result<Node> {
    let scope = params.root().enter("module_list").enter(index);
    let (activation, after) = fused(convolution.activation);
    let shape = (channels, convolution.filters, convolution.size);
    let spec = ConvSpec { stride: convolution.stride, ..ConvSpec::new() }
        .padding(convolution.padding)
        .dilation(convolution.dilation)
        .groups(convolution.groups)
        .activation(activation);
    let filter = if convolution.batch_normalize {
        let norm = scope.enter("BatchNorm2d");
        let conv = ConvNorm::new(&scope.enter("Conv2d"), &norm, shape, spec, Init::Kaiming)?;
        Filter::Normed(Box::new(conv.epsilon(epsilon)))
    } else {
        let init = if detects.is_some() { Init::Normal(0.01) } else { Init::Kaiming };
        let conv = Conv::new(&scope.enter("Conv2d"), shape, spec, init)?;
        if let Some(yolo) = detects {
            params.set(&format!("module_list.{index}.Conv2d.bias"), &head.first_bias(yolo.mask.len()))?;
        }
        Filter::Plain(Box::new(conv))
    };
    Ok(Node::Convolution { filter, after })
}

/// Looked at are the last map of each size on the way down, and what the detection layers' convolutions read.
fn taps(plan: &Plan) -> Vec<Option<(String, usize)>> {
    let mut taps = vec![None; plan.layers.len()];
    for (index, pair) in plan.layers.windows(2).enumerate() {
        let [here, next] = pair else {
            continue;
        };
        let level = |height: usize| (plan.input.0 / height.max(1)).max(1).ilog2() as usize;
        let shrinks = matches!(next.layer, Layer::Convolutional(_) | Layer::MaxPool { .. })
            && next.output.height < here.output.height;
        if shrinks {
            taps[index] = Some((format!("layer.{index}"), level(here.output.height)));
        }
        if matches!(next.layer, Layer::Yolo(_)) && index > 0 {
            taps[index - 1] = Some((format!("layer.{}", index - 1), level(here.output.height)));
        }
    }
    taps
}

impl Node {
    /// The layers that it reads by index.
    fn sources(&self) -> &[usize] {
        match self {
            Self::Route { from, .. } | Self::Shortcut { from, .. } => from,
            Self::ScaleChannels { from, .. } | Self::Sam { from, .. } => std::slice::from_ref(from),
            _ => &[],
        }
    }

    /// `x` is the output of the layer before.
    fn forward(&self, x: &Tensor, outputs: &[Option<Tensor>], pass: &Pass) -> Result<Tensor> {
        match self {
            Self::Convolution { filter, after } => {
                let y = match filter {
                    Filter::Plain(conv) => conv.forward(x, pass)?,
                    Filter::Normed(conv) => conv.forward(x, pass)?,
                };
                activate(y, *after)
            }
            Self::MaxPool { size, stride, padding } => max_pool(x, *size, *stride, *padding),
            Self::AveragePool => global_avg_pool(x),
            Self::Route { from, groups, group } => {
                let mut parts = Vec::with_capacity(from.len());
                for &source in from {
                    let whole = output(outputs, source)?;
                    let share = whole.dim(1)? / (*groups).max(1);
                    parts.push(if *groups > 1 { whole.narrow(1, group * share, share)? } else { whole.clone() });
                }
                match parts.as_slice() {
                    [one] => one.contiguous(),
                    _ => cat(&parts, 1),
                }
            }
            Self::Shortcut { from, after } => {
                let sum = from
                    .iter()
                    .try_fold(x.clone(), |sum, &source| add(&sum, output(outputs, source)?, Activation::None))?;
                activate(sum, *after)
            }
            Self::Upsample { stride } => {
                let (_, _, height, width) = x.dims4()?;
                upsample_nearest(x, (height * stride, width * stride))
            }
            Self::ScaleChannels { from, after } => activate(output(outputs, *from)?.broadcast_mul(x)?, *after),
            Self::Sam { from, after } => activate(output(outputs, *from)?.mul(x)?, *after),
            Self::Nothing | Self::Yolo => Ok(x.clone()),
        }
    }
}

/// The kept output of layer `index`.
fn output(outputs: &[Option<Tensor>], index: usize) -> Result<&Tensor> {
    match outputs.get(index) {
        Some(Some(tensor)) => Ok(tensor),
        _ => candle_core::bail!("the output of layer {index} was not kept"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::cfg::parse;
    use super::super::head::Level;
    use super::super::layers::plan;
    use super::super::objective::Offsets;
    use super::*;
    use crate::nn::Mode;
    use candle_core::{Device, Var};

    /// The body, then a detector of one class with one anchor. Weights of the body's layers are set by the tests.
    fn network(body: &str, input: (usize, usize)) -> Result<(Network, Params)> {
        let text = format!(
            "[net]\nwidth=8\nheight=8\n{body}[convolutional]\nfilters=6\nactivation=linear\n\
             [yolo]\nanchors=4,5\nclasses=1\n"
        );
        let sections = parse(&text).map_err(candle_core::Error::wrap)?;
        let plan = plan(&sections, input).map_err(candle_core::Error::wrap)?;
        let level = Level { output: "yolo0.raw".into(), priors: vec![[4.0, 5.0]], mask: vec![0], scale_xy: 1.0 };
        let head = Head { levels: vec![level], classes: 1, offsets: Offsets::Logistic };
        let params = Params::new(&Device::Cpu, 1);
        Ok((Network::new(&params, &plan, &head, 1e-5)?, params))
    }

    /// What the convolution before the detection layer, set to copy channel 0, makes of counting images.
    fn first_channel(body: &str, input: (usize, usize), channels: usize) -> Result<Tensor> {
        let (network, params) = network(body, input)?;
        let last = network.nodes.len() - 2;
        let mut weight = vec![0.0; 6 * channels];
        weight[0] = 1.0;
        params.set(&format!("module_list.{last}.Conv2d.weight"), &weight)?;
        params.set(&format!("module_list.{last}.Conv2d.bias"), &[0.0; 6])?;
        let count = 3 * input.0 * input.1;
        let images = Tensor::arange(0f32, count as f32, &Device::Cpu)?.reshape((1, 3, input.0, input.1))?;
        let maps = network.forward(&images, &Pass::new(Mode::Infer))?;
        maps[0].narrow(1, 0, 1)?.squeeze(1)?.squeeze(0)
    }

    #[test]
    fn pools_of_size_two_at_stride_one_look_right_and_down_only() -> Result<()> {
        // a 2×3 image counting 0…5
        let pooled = first_channel("[maxpool]\nsize=2\nstride=1\n", (2, 3), 3)?;
        assert_eq!(pooled.to_vec2::<f32>()?, [[4.0, 5.0, 5.0], [4.0, 5.0, 5.0]]);
        let halved = first_channel("[maxpool]\nsize=2\nstride=2\n", (3, 5), 3)?;
        // rows of 5: windows of two, the last one partial on both sides
        assert_eq!(halved.to_vec2::<f32>()?, [[6.0, 8.0, 9.0], [11.0, 13.0, 14.0]]);
        let same = first_channel("[maxpool]\nsize=3\nstride=1\n", (2, 3), 3)?;
        assert_eq!(same.to_vec2::<f32>()?, [[4.0, 5.0, 5.0], [4.0, 5.0, 5.0]]);
        Ok(())
    }

    #[test]
    fn what_is_outside_never_wins_and_gets_no_gradient() -> Result<()> {
        let x = Var::from_tensor(&Tensor::full(-5f32, (1, 1, 3, 3), &Device::Cpu)?)?;
        let y = max_pool(x.as_tensor(), 2, (1, 1), 1)?;
        assert_eq!(y.dims(), [1, 1, 3, 3]);
        assert_eq!(y.min_all()?.to_vec0::<f32>()?, -5.0);
        let gradients = y.sum_all()?.backward()?;
        let sum = gradients.get(x.as_tensor()).unwrap().sum_all()?.to_vec0::<f32>()?;
        assert_eq!(sum, 9.0);
        Ok(())
    }

    #[test]
    fn routes_pick_groups_and_put_maps_side_by_side() -> Result<()> {
        // channels 0, 1, 2 of the image count from 0, 4 and 8
        let picked = first_channel("[dropout]\nprobability=.5\n[route]\nlayers=-1\ngroups=3\ngroup_id=2\n", (2, 2), 1)?;
        assert_eq!(picked.to_vec2::<f32>()?, [[8.0, 9.0], [10.0, 11.0]]);
        let body = "[dropout]\n[route]\nlayers=0\ngroups=3\ngroup_id=1\n[route]\nlayers=-1,0\n";
        assert_eq!(first_channel(body, (2, 2), 4)?.to_vec2::<f32>()?, [[4.0, 5.0], [6.0, 7.0]]);
        Ok(())
    }

    #[test]
    fn shortcuts_add_upsampling_repeats_and_planes_are_scaled() -> Result<()> {
        let sum = first_channel("[dropout]\n[dropout]\n[shortcut]\nfrom=0\nactivation=linear\n", (1, 2), 3)?;
        assert_eq!(sum.to_vec2::<f32>()?, [[0.0, 2.0]]);
        let up = first_channel("[upsample]\nstride=2\n", (1, 2), 3)?;
        assert_eq!(up.to_vec2::<f32>()?, [[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]]);
        // the mean of plane 0 is 0.5
        let scaled = first_channel("[dropout]\n[avgpool]\n[scale_channels]\nfrom=0\n", (1, 2), 3)?;
        assert_eq!(scaled.to_vec2::<f32>()?, [[0.0, 0.5]]);
        let squared = first_channel("[dropout]\n[dropout]\n[sam]\nfrom=0\n", (1, 3), 3)?;
        assert_eq!(squared.to_vec2::<f32>()?, [[0.0, 1.0, 4.0]]);
        Ok(())
    }

    #[test]
    fn activations_are_applied_fused_or_after() -> Result<()> {
        for (name, by_hand) in [
            ("linear", -1.0f32),
            ("leaky", -0.1),
            ("relu", 0.0),
            ("relu6", 0.0),
            ("logistic", 1.0 / (1.0 + 1f32.exp())),
            ("swish", -1.0 / (1.0 + 1f32.exp())),
            ("mish", -((-1f32).exp().ln_1p().tanh())),
            ("tanh", (-1f32).tanh()),
            ("elu", (-1f32).exp_m1()),
            ("selu", 1.0507 * 1.6732 * (-1f32).exp_m1()),
            // darknet's own constants
            ("gelu", -0.5 * (1.0 - (0.797_885f32 + 0.035_677).tanh())),
            ("hard_mish", -0.5),
        ] {
            for normed in [0, 1] {
                let body = format!("[convolutional]\nfilters=1\nbatch_normalize={normed}\nactivation={name}\n");
                let (network, params) = network(&body, (1, 1))?;
                params.set("module_list.0.Conv2d.weight", &[-1.0, 0.0, 0.0])?;
                let mut copy = vec![0.0; 6];
                copy[0] = 1.0;
                params.set("module_list.1.Conv2d.weight", &copy)?;
                params.set("module_list.1.Conv2d.bias", &[0.0; 6])?;
                let images = Tensor::ones((1, 3, 1, 1), candle_core::DType::F32, &Device::Cpu)?;
                for mode in [Mode::Infer, Mode::Frozen] {
                    let maps = network.forward(&images, &Pass::new(mode))?;
                    let ours = maps[0].flatten_all()?.to_vec1::<f32>()?[0];
                    // running statistics 0 and 1: batch norm divides by √(1 + ε)
                    assert!((ours - by_hand).abs() < 2e-5, "{name}: {ours}, by hand {by_hand}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn a_probe_sees_the_last_map_of_each_size_and_what_the_head_reads() -> Result<()> {
        let conv = |filters: usize, stride: usize| {
            format!("[convolutional]\nfilters={filters}\nsize=3\nstride={stride}\npad=1\nactivation=leaky\n")
        };
        let (network, _) = network(&format!("{}{}{}", conv(2, 1), conv(4, 2), conv(3, 1)), (8, 8))?;
        let pass = Pass::probed(Mode::Infer, 1);
        network.forward(&Tensor::zeros((1, 3, 8, 8), candle_core::DType::F32, &Device::Cpu)?, &pass)?;
        let trace = pass.into_traces().remove(0);
        let maps: Vec<(&str, usize, usize)> =
            trace.maps.iter().map(|map| (map.name.as_str(), map.level, map.height)).collect();
        assert_eq!(maps, [("layer.0", 0, 8), ("layer.2", 1, 4)]);
        Ok(())
    }
}
