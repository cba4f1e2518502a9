//! The network below the first stage: VGG-16 with L2 norms and an extra layer, or a ResNet with a further block.
//!
//! Zhang et al., "Single-Shot Refinement Neural Network for Object Detection" (CVPR 2018), §3.4; the residual variant
//! is that of its Caffe code.

use super::connection::follow;
use super::{RefinedetConfig, SOURCES};
use crate::nn::backbone::resnet::{Block, ResNet, ResNetConfig};
use crate::nn::backbone::vgg::Layer;
use crate::nn::backbone::vgg_reduced::{Tail, VggReduced};
use crate::nn::{Init, Pass, Role, Scope};
use crate::ops::conv::ConvSpec;
use crate::ops::norm::{L2Eps, l2_norm};
use candle_core::{Result, Tensor, Var};

/// Four maps at strides 8, 16, 32 and 64; half that of a dense VGG-16.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a network has one, and boxes would hide the parts")]
pub(super) enum Trunk {
    /// conv4_3, conv5_3, fc7 and a 3×3 layer. Keys: `vgg.{i}`, `conv4_3_L2Norm`, `conv5_3_L2Norm`, `extras.0` and `.1`.
    Vgg {
        backbone: VggReduced,
        /// γ of the L2 norms on conv4_3 and conv5_3, starting at 10 and 8.
        scales: [Var; 2],
        extras: (Layer, Layer),
    },
    /// C3, C4, C5 and one block of stride 2. Keys: those of a ResNet below `base`, and `extras.0`.
    ResNet { backbone: ResNet, coarsest: Block },
}

impl Trunk {
    /// # Errors
    /// A width of 0, or a device that cannot hold the network.
    pub(super) fn new(root: &Scope, config: &RefinedetConfig) -> Result<Self> {
        match &config.resnet {
            Some(resnet) => Self::resnet(root, resnet),
            None => Self::vgg(root, config),
        }
    }

    fn vgg(root: &Scope, config: &RefinedetConfig) -> Result<Self> {
        let norm = config.batch_norm;
        let vgg = VggReduced::new(&root.enter("vgg"), config.widths, Tail::Stride32, norm)?;
        let backbone = vgg.dense(config.dense);
        let gamma = |name: &str, channels: usize, start: f32| -> Result<Var> {
            root.enter(name).param("weight", &[channels], Init::Constant(start), Role::Norm)
        };
        let stages = config.widths.stages;
        let scales = [gamma("conv4_3_L2Norm", stages[3], 10.0)?, gamma("conv5_3_L2Norm", stages[4], 8.0)?];
        let extra = |name: usize, shape: (usize, usize, usize), spec: ConvSpec| -> Result<Layer> {
            Layer::new(&root.enter("extras").enter(name), shape, spec, norm, Init::XavierUniform)
        };
        let (reduce, output) = (config.extra.reduce, config.extra.output);
        let extras = (
            extra(0, (config.widths.fc, reduce, 1), ConvSpec::new())?,
            extra(1, (reduce, output, 3), ConvSpec::new().stride(2).padding(1))?,
        );
        Ok(Self::Vgg { backbone, scales, extras })
    }

    fn resnet(root: &Scope, config: &ResNetConfig) -> Result<Self> {
        let [_, narrow, _, wide] = config.channels();
        let coarsest = Block::new(&root.enter("extras").enter(0), (wide, narrow), 2, config)?;
        Ok(Self::ResNet { backbone: ResNet::new(&root.enter("base"), config)?.with_caffe_pool(), coarsest })
    }

    /// Channels of the maps, finest first.
    pub(super) fn channels(config: &RefinedetConfig) -> [usize; SOURCES] {
        match &config.resnet {
            Some(resnet) => {
                let [_, c3, c4, c5] = resnet.channels();
                [c3, c4, c5, c3]
            }
            None => [config.widths.stages[3], config.widths.stages[4], config.widths.fc, config.extra.output],
        }
    }

    /// `[N, 3, H, W]` → the maps, finest first.
    pub(super) fn forward(&self, images: &Tensor, pass: &Pass) -> Result<Vec<Tensor>> {
        match self {
            Self::Vgg { backbone, scales: [first, second], extras: (reduce, expand) } => {
                let taps = backbone.forward(images, pass)?;
                let coarsest = expand.forward(&reduce.forward(&taps.fc7, pass)?, pass)?;
                Ok(vec![
                    l2_norm(&taps.conv4_3, &follow(first, pass), L2Eps::Add(1e-10))?,
                    l2_norm(&taps.conv5_3, &follow(second, pass), L2Eps::Add(1e-10))?,
                    taps.fc7,
                    coarsest,
                ])
            }
            Self::ResNet { backbone, coarsest } => {
                let [_, c3, c4, c5] = backbone.forward(images, pass)?;
                let c6 = coarsest.forward(&c5, pass)?;
                Ok(vec![c3, c4, c5, c6])
            }
        }
    }
}

/// One block for each map, between it and a stage's head (`res…_inter` of the Caffe code); none on VGG-16.
#[derive(Debug)]
pub(super) struct Adapters {
    blocks: Vec<Block>,
}

impl Adapters {
    /// From maps of `channels` to as many channels as C4 has. Keys: those of a block below `{name}.{level}`.
    pub(super) fn new(root: &Scope, name: &str, channels: [usize; SOURCES], config: &RefinedetConfig) -> Result<Self> {
        let mut blocks = Vec::new();
        if let Some(resnet) = &config.resnet {
            let [_, _, output, _] = resnet.channels();
            for (level, input) in channels.into_iter().enumerate() {
                blocks.push(Block::new(&root.enter(name).enter(level), (input, output), 1, resnet)?);
            }
        }
        Ok(Self { blocks })
    }

    /// Channels behind the blocks for maps of `channels` before them.
    pub(super) fn channels(channels: [usize; SOURCES], config: &RefinedetConfig) -> [usize; SOURCES] {
        match &config.resnet {
            Some(resnet) => [resnet.channels()[2]; SOURCES],
            None => channels,
        }
    }

    /// What the head reads.
    pub(super) fn forward(&self, maps: &[Tensor], pass: &Pass) -> Result<Vec<Tensor>> {
        if self.blocks.is_empty() {
            return Ok(maps.to_vec());
        }
        self.blocks.iter().zip(maps).map(|(block, map)| block.forward(map, pass)).collect()
    }
}
