//! ResNet-18 to ResNet-152 in torchvision's and Caffe's stride styles, at any width, with trained or frozen batch norm.
//!
//! He et al., "Deep Residual Learning for Image Recognition" (CVPR 2016), table 1. Names are torchvision's: `conv1`,
//! `bn1`, `layer1.0.conv1`, …, `layer1.0.downsample.0` and `.1`.

use super::{mobilenet, run_part};
use crate::nn::{ConvNorm, Init, Mode, Pass, Role, Scope};
use crate::ops::conv::{Activation, ConvSpec, WeightCache, conv2d};
use crate::ops::maps::add;
use crate::ops::norm;
use crate::ops::pool::{Pool, max_pool2d};
use candle_core::{Result, Tensor, Var};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, PoisonError};

/// The published networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Depth {
    R18,
    R34,
    R50,
    R101,
    R152,
    /// Not a ResNet but MobileNetV2 ([`super::mobilenet`]), for the detectors on a pyramid that have no second stage.
    MobileV2,
}

impl Depth {
    /// Residual blocks of the four stages.
    pub fn blocks(self) -> [usize; 4] {
        match self {
            Self::R18 => [2, 2, 2, 2],
            Self::R34 | Self::R50 => [3, 4, 6, 3],
            Self::R101 => [3, 4, 23, 3],
            Self::R152 => [3, 8, 36, 3],
            Self::MobileV2 => [3, 3, 7, 4],
        }
    }

    /// Whether a block is 1×1, 3×3, 1×1 with four times as many channels coming out; otherwise it is two 3×3.
    pub fn bottleneck(self) -> bool {
        matches!(self, Self::R50 | Self::R101 | Self::R152)
    }

    fn expansion(self) -> usize {
        if self.bottleneck() { 4 } else { 1 }
    }
}

/// Which convolution of a bottleneck has its stage's stride. Weights of one style make no sense in the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StrideStyle {
    /// The 3×3: torchvision, mmdet's default.
    Pytorch,
    /// The first 1×1: the paper's Caffe models, detectron2, mmdet's `caffe`.
    Caffe,
}

/// What training does to the batch norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Norm {
    /// Normalises with the batch and learns scale and shift: for training from scratch.
    Trained,
    /// Statistics, scale and shift stay as loaded (torchvision's `FrozenBatchNorm2d`): for small batches on pretrained
    /// weights.
    Frozen,
}

/// Everything that defines a ResNet but its weights.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResNetConfig {
    pub depth: Depth,
    /// Channels of the stem and of the first stage's 3×3 convolutions, doubled by each later stage; 64 as published.
    pub width: usize,
    pub style: StrideStyle,
    pub norm: Norm,
    /// Added to the variance: 1e-5, but 0 for torchvision's first COCO weights of RetinaNet, Faster and Mask R-CNN.
    pub epsilon: f32,
    /// Parts that training leaves as they are: 0 none, 1 the stem, 2 the first stage as well, and so on to 5.
    pub frozen_stages: usize,
}

impl ResNetConfig {
    /// Channels of C2 to C5.
    pub fn channels(&self) -> [usize; 4] {
        if self.depth == Depth::MobileV2 {
            return mobilenet::channels(self.width);
        }
        [1, 2, 4, 8].map(|factor| self.width * factor * self.depth.expansion())
    }
}

/// Index of the stage that makes C5.
const LAST_STAGE: usize = 3;

/// The network without its classifier.
#[derive(Debug)]
pub struct ResNet {
    stem: Layer,
    pool: Pool,
    stages: Vec<Vec<Block>>,
    frozen_stages: usize,
}

impl ResNet {
    /// # Errors
    /// A width of 0, a negative ε, or a device that cannot hold the network.
    pub fn new(scope: &Scope, config: &ResNetConfig) -> Result<Self> {
        Self::with_strides(scope, config, [1, 2, 2, 2])
    }

    /// The same with another stride of each stage: M2Det's third stage keeps its size.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_strides(scope: &Scope, config: &ResNetConfig, strides: [usize; 4]) -> Result<Self> {
        if config.width == 0 || config.epsilon.is_nan() || config.epsilon < 0.0 {
            candle_core::bail!(
                "a ResNet needs a width above 0 and an epsilon of at least 0, not {} and {}",
                config.width,
                config.epsilon
            );
        }
        if config.depth == Depth::MobileV2 {
            candle_core::bail!("this detector stands on a ResNet; RetinaNet and FCOS can stand on MobileNetV2");
        }
        let spec = ConvSpec::new().stride(2).padding(3).activation(Activation::Relu);
        let stem = Layer::new(&scope.enter("conv1"), &scope.enter("bn1"), (3, config.width, 7), spec, config)?;
        let mut input = config.width;
        let mut stages = Vec::new();
        for (stage, (blocks, output)) in config.depth.blocks().into_iter().zip(config.channels()).enumerate() {
            let scope = scope.enter(format!("layer{}", stage + 1));
            let mut built = Vec::new();
            for index in 0..blocks {
                let stride = if index == 0 { strides[stage] } else { 1 };
                built.push(Block::new(&scope.enter(index), (input, output), stride, config)?);
                input = output;
            }
            stages.push(built);
        }
        let pool = Pool::new(3).stride(2).padding(1);
        Ok(Self { stem, pool, stages, frozen_stages: config.frozen_stages })
    }

    /// With Caffe's pool behind the stem: no padding, the last window cut at the border.
    pub fn with_caffe_pool(self) -> Self {
        Self { pool: Pool::new(3).stride(2).ceil(), ..self }
    }

    /// `[N, 3, H, W]` → C2, C3, C4, C5 at strides 4, 8, 16, 32 (sizes rounded up).
    pub fn forward(&self, images: &Tensor, pass: &Pass) -> Result<[Tensor; 4]> {
        match <[Tensor; 4]>::try_from(self.maps(images, self.stages.len(), pass)?) {
            Ok(maps) => Ok(maps),
            Err(maps) => candle_core::bail!("a ResNet of {} stages instead of four", maps.len()),
        }
    }

    /// `[N, 3, H, W]` → C4 at stride 16: all stages but the last.
    ///
    /// # Errors
    /// Images of other than three planes.
    pub fn c4(&self, images: &Tensor, pass: &Pass) -> Result<Tensor> {
        match self.maps(images, LAST_STAGE, pass)?.pop() {
            Some(map) => Ok(map),
            None => candle_core::bail!("a ResNet without stages"),
        }
    }

    /// Pieces of C4 `[R, C4, H, W]` through the last stage → `[R, C5, H / 2, W / 2]` (sizes rounded up).
    ///
    /// # Errors
    /// Another number of channels than C4 has.
    pub fn last_stage(&self, pieces: &Tensor, pass: &Pass) -> Result<Tensor> {
        run_part(self.frozen_stages, LAST_STAGE + 1, pass, |pass| self.stage(LAST_STAGE, pieces, pass))
    }

    /// What the first `count` stages make of images, finest first.
    fn maps(&self, images: &Tensor, count: usize, pass: &Pass) -> Result<Vec<Tensor>> {
        let x = run_part(self.frozen_stages, 0, pass, |pass| self.stem.forward(images, pass))?;
        let mut x = max_pool2d(&x, self.pool)?;
        let mut maps = Vec::with_capacity(count);
        for stage in 0..count {
            x = run_part(self.frozen_stages, stage + 1, pass, |pass| self.stage(stage, &x, pass))?;
            pass.tap(&format!("c{}", stage + 2), stage, &x)?;
            maps.push(x.clone());
        }
        Ok(maps)
    }

    fn stage(&self, stage: usize, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        self.stages.get(stage).into_iter().flatten().try_fold(x.clone(), |x, block| block.forward(&x, pass))
    }
}

/// Convolutions with a shortcut around them. Keys: `conv1`, `bn1`, …, `downsample.0` and `.1`.
#[derive(Debug)]
pub struct Block {
    convs: Vec<Layer>,
    downsample: Option<Layer>,
}

impl Block {
    /// From `input` to `output` channels, in the kind, style and norm of `config`. A bottleneck is a quarter as wide
    /// inside.
    ///
    /// # Errors
    /// A name that is taken, or a device that cannot hold the weights.
    pub fn new(scope: &Scope, (input, output): (usize, usize), stride: usize, config: &ResNetConfig) -> Result<Self> {
        let (one, three) = (ConvSpec::new(), ConvSpec::new().padding(1));
        let plan: Vec<((usize, usize, usize), ConvSpec)> = if config.depth.bottleneck() {
            let planes = output / config.depth.expansion();
            let (first, middle) = match config.style {
                StrideStyle::Pytorch => (one, three.stride(stride)),
                StrideStyle::Caffe => (one.stride(stride), three),
            };
            vec![((input, planes, 1), first), ((planes, planes, 3), middle), ((planes, output, 1), one)]
        } else {
            vec![((input, output, 3), three.stride(stride)), ((output, output, 3), three)]
        };
        let last = plan.len() - 1;
        let mut convs = Vec::with_capacity(plan.len());
        for (index, (shape, spec)) in plan.into_iter().enumerate() {
            let spec = if index < last { spec.activation(Activation::Relu) } else { spec };
            let (conv, norm) = (format!("conv{}", index + 1), format!("bn{}", index + 1));
            convs.push(Layer::new(&scope.enter(conv), &scope.enter(norm), shape, spec, config)?);
        }
        let downsample = if stride != 1 || input != output {
            let scope = scope.enter("downsample");
            let shape = (input, output, 1);
            Some(Layer::new(&scope.enter(0), &scope.enter(1), shape, one.stride(stride), config)?)
        } else {
            None
        };
        Ok(Self { convs, downsample })
    }

    /// `[N, input, H, W]` → `[N, output, H', W']`.
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let shortcut = match &self.downsample {
            Some(layer) => layer.forward(x, pass)?,
            None => x.clone(),
        };
        let mut y = x.clone();
        for conv in &self.convs {
            y = conv.forward(&y, pass)?;
        }
        add(&y, &shortcut, Activation::Relu)
    }
}

/// Convolution, batch norm, activation.
#[derive(Debug)]
enum Layer {
    Trained(ConvNorm),
    Frozen(FrozenConvNorm),
}

impl Layer {
    fn new(
        conv: &Scope,
        norm: &Scope,
        shape: (usize, usize, usize),
        spec: ConvSpec,
        config: &ResNetConfig,
    ) -> Result<Self> {
        Ok(match config.norm {
            Norm::Trained => {
                Self::Trained(ConvNorm::new(conv, norm, shape, spec, Init::Kaiming)?.epsilon(config.epsilon))
            }
            Norm::Frozen => Self::Frozen(FrozenConvNorm::new(conv, norm, shape, spec, config.epsilon)?),
        })
    }

    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        match self {
            Self::Trained(layer) => layer.forward(x, pass),
            Self::Frozen(layer) => layer.forward(x, pass),
        }
    }
}

/// A batch norm whose numbers never change is one factor and one shift a channel, so the layer is a convolution with
/// scaled weights in every mode; gradients reach the weights through the factor.
#[derive(Debug)]
struct FrozenConvNorm {
    weight: Var,
    gamma: Var,
    beta: Var,
    running_mean: Var,
    running_var: Var,
    epsilon: f32,
    spec: ConvSpec,
    scope: Scope,
    cache: Arc<WeightCache>,
    scaled: Mutex<Option<Scaled>>,
}

/// Weight and shift of one version of the parameters.
#[derive(Debug)]
struct Scaled {
    version: u64,
    weight: Tensor,
    shift: Tensor,
}

impl FrozenConvNorm {
    fn new(
        conv: &Scope,
        norm: &Scope,
        (input, output, kernel): (usize, usize, usize),
        spec: ConvSpec,
        epsilon: f32,
    ) -> Result<Self> {
        let constant = |name: &str, value: f32| norm.param(name, &[output], Init::Constant(value), Role::Buffer);
        Ok(Self {
            weight: conv.param("weight", &[output, input, kernel, kernel], Init::Kaiming, Role::Weight)?,
            gamma: constant("weight", 1.0)?,
            beta: constant("bias", 0.0)?,
            running_mean: constant("running_mean", 0.0)?,
            running_var: constant("running_var", 1.0)?,
            epsilon,
            spec,
            scope: conv.clone(),
            cache: Arc::default(),
            scaled: Mutex::new(None),
        })
    }

    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let version = self.scope.params().version();
        let (weight, shift) = match pass.mode {
            Mode::Infer => self.scaled(version)?,
            Mode::Train | Mode::Frozen => {
                let (factor, shift) = self.factor_and_shift()?;
                (self.weight.as_tensor().broadcast_mul(&factor)?, shift)
            }
        };
        let y = conv2d(x, &weight, Some(&shift), self.spec, Some((&self.cache, version)))?;
        let per_output = weight.elem_count() / shift.elem_count().max(1);
        pass.count_flops(2.0 * y.elem_count() as f64 * per_output as f64);
        Ok(y)
    }

    /// γ / √(var + ε) as `[O, 1, 1, 1]`, and β − mean · γ / √(var + ε) as `[O]`.
    fn factor_and_shift(&self) -> Result<(Tensor, Tensor)> {
        let vectors = [&self.gamma, &self.beta, &self.running_mean, &self.running_var].map(Var::as_tensor);
        let (factor, shift) = norm::factor_and_shift(vectors, self.epsilon)?;
        Ok((factor.reshape(((), 1, 1, 1))?, shift))
    }

    /// Scaled weight and shift without a graph, made once for each version of the parameters.
    fn scaled(&self, version: u64) -> Result<(Tensor, Tensor)> {
        let mut kept = self.scaled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(scaled) = kept.as_ref().filter(|s| s.version == version) {
            return Ok((scaled.weight.clone(), scaled.shift.clone()));
        }
        let (factor, shift) = self.factor_and_shift()?;
        let weight = self.weight.detach().broadcast_mul(&factor)?;
        *kept = Some(Scaled { version, weight: weight.clone(), shift: shift.clone() });
        Ok((weight, shift))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Params;
    use crate::ops::activation::relu;
    use crate::ops::norm::batch_norm;
    use crate::random::Random;
    use candle_core::{DType, Device};

    fn config(depth: Depth, norm: Norm) -> ResNetConfig {
        ResNetConfig { depth, width: 8, style: StrideStyle::Pytorch, norm, epsilon: 1e-5, frozen_stages: 0 }
    }

    fn network(config: &ResNetConfig) -> Result<(Params, ResNet)> {
        let params = Params::new(&Device::Cpu, 1);
        let network = ResNet::new(&params.root().enter("body"), config)?;
        Ok((params, network))
    }

    /// Norms of a network that has seen something.
    fn unsettle(params: &Params) -> Result<()> {
        let mut rng = Random::new(7);
        for param in params.all() {
            let (low, high) = match param.name.rsplit('.').next() {
                Some("running_var") => (0.5, 1.5),
                Some("running_mean" | "bias") => (-0.2, 0.2),
                _ if param.var.rank() == 1 => (0.5, 1.0),
                _ => continue,
            };
            let values: Vec<f32> = (0..param.var.elem_count()).map(|_| rng.range(low, high)).collect();
            params.set(&param.name, &values)?;
        }
        Ok(())
    }

    fn noise(shape: &[usize]) -> Result<Tensor> {
        let mut rng = Random::new(3);
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.normal()).collect();
        Tensor::from_vec(values, shape, &Device::Cpu)
    }

    /// Largest difference over the largest value.
    fn difference(a: &Tensor, b: &Tensor) -> Result<f32> {
        let largest = |t: &Tensor| t.abs()?.flatten_all()?.max(0)?.to_vec0::<f32>();
        Ok(largest(&a.sub(b)?)? / largest(b)?)
    }

    /// Counts from table 1 of the paper with a width of 8: 53 convolutions (367 512 weights, 3320 channels) in
    /// ResNet-50, 20 (175 512 weights, 600 channels) in ResNet-18.
    #[test]
    fn names_and_counts_are_those_of_torchvision() -> Result<()> {
        let cases = [(Depth::R50, 53, 367_512, 3320), (Depth::R18, 20, 175_512, 600)];
        for (depth, convolutions, weights, channels) in cases {
            let (trained, _) = network(&config(depth, Norm::Trained))?;
            let (frozen, _) = network(&config(depth, Norm::Frozen))?;
            assert_eq!(trained.all().len(), 5 * convolutions);
            assert_eq!(trained.trained_elements(), weights + 2 * channels);
            assert_eq!(frozen.trained_elements(), weights);
            let names = |params: &Params| params.all().into_iter().map(|p| p.name).collect::<Vec<_>>();
            assert_eq!(names(&trained), names(&frozen));
            let last = if depth.bottleneck() { "body.layer4.2.conv3.weight" } else { "body.layer4.1.conv2.weight" };
            for name in ["body.conv1.weight", "body.bn1.running_var", "body.layer2.0.downsample.1.running_mean", last] {
                assert!(trained.get(name).is_some(), "{name}");
            }
            // only a bottleneck changes the channels of the first stage
            assert_eq!(trained.get("body.layer1.0.downsample.0.weight").is_some(), depth.bottleneck());
        }
        Ok(())
    }

    #[test]
    fn maps_have_the_strides_and_channels_of_the_paper() -> Result<()> {
        for style in [StrideStyle::Pytorch, StrideStyle::Caffe] {
            let config = ResNetConfig { style, ..config(Depth::R50, Norm::Frozen) };
            let (_, network) = network(&config)?;
            let maps = network.forward(&noise(&[2, 3, 50, 65])?, &Pass::new(Mode::Infer))?;
            let dims: Vec<&[usize]> = maps.iter().map(Tensor::dims).collect();
            // each stride of 2 rounds up: 50 → 25 → 13 → 7 → 4 → 2 and 65 → 33 → 17 → 9 → 5 → 3
            assert_eq!(dims, [[2, 32, 13, 17], [2, 64, 7, 9], [2, 128, 4, 5], [2, 256, 2, 3]]);
            assert_eq!(config.channels(), [32, 64, 128, 256]);
        }
        Ok(())
    }

    #[test]
    fn strides_and_the_first_pool_can_be_anothers() -> Result<()> {
        let params = Params::new(&Device::Cpu, 1);
        let config = config(Depth::R18, Norm::Frozen);
        let network = ResNet::with_strides(&params.root(), &config, [1, 2, 1, 2])?;
        let maps = network.forward(&noise(&[1, 3, 64, 64])?, &Pass::new(Mode::Infer))?;
        let sides: Vec<usize> = maps.iter().map(|m| m.dim(3)).collect::<Result<_>>()?;
        assert_eq!(sides, [16, 8, 8, 4]);
        // 64 → 32 → ⌈(32 − 3) / 2⌉ + 1 = 16 again, over windows that begin a pixel later
        let caffe = network.with_caffe_pool();
        let shifted = caffe.forward(&noise(&[1, 3, 64, 64])?, &Pass::new(Mode::Infer))?;
        assert_eq!(shifted[0].dims(), maps[0].dims());
        assert!(difference(&shifted[0], &maps[0])? > 1e-3);
        Ok(())
    }

    #[test]
    fn the_last_stage_can_be_taken_apart() -> Result<()> {
        for frozen_stages in [0, 5] {
            let (params, network) = network(&ResNetConfig { frozen_stages, ..config(Depth::R18, Norm::Frozen) })?;
            unsettle(&params)?;
            let pass = Pass::new(Mode::Train);
            let [.., c4, c5] = network.forward(&noise(&[1, 3, 64, 64])?, &pass)?;
            let apart = Pass::new(Mode::Train);
            let own = network.c4(&noise(&[1, 3, 64, 64])?, &apart)?;
            assert_eq!(difference(&own, &c4)?, 0.0);
            assert_eq!(difference(&network.last_stage(&own, &apart)?, &c5)?, 0.0);
            assert_eq!((apart.flops(), c5.track_op()), (pass.flops(), frozen_stages == 0));
        }
        Ok(())
    }

    #[test]
    fn the_stride_styles_differ_from_the_second_stage_on() -> Result<()> {
        let run = |style: StrideStyle| -> Result<[Tensor; 4]> {
            let (_, network) = network(&ResNetConfig { style, ..config(Depth::R50, Norm::Frozen) })?;
            network.forward(&noise(&[1, 3, 64, 64])?, &Pass::new(Mode::Infer))
        };
        let (pytorch, caffe) = (run(StrideStyle::Pytorch)?, run(StrideStyle::Caffe)?);
        assert_eq!(difference(&pytorch[0], &caffe[0])?, 0.0);
        assert!(difference(&pytorch[1], &caffe[1])? > 1e-3);
        Ok(())
    }

    #[test]
    fn a_frozen_layer_is_convolution_then_batch_norm() -> Result<()> {
        let params = Params::new(&Device::Cpu, 5);
        let (conv, norm) = (params.root().enter("conv"), params.root().enter("bn"));
        let spec = ConvSpec::new().padding(1).stride(2).activation(Activation::Relu);
        let layer = FrozenConvNorm::new(&conv, &norm, (3, 6, 3), spec, 1e-3)?;
        unsettle(&params)?;
        let x = noise(&[2, 3, 9, 7])?;
        let plain = conv2d(&x, layer.weight.as_tensor(), None, spec.activation(Activation::None), None)?;
        let [gamma, beta, mean, var] =
            [&layer.gamma, &layer.beta, &layer.running_mean, &layer.running_var].map(Var::as_tensor);
        let expected = relu(&batch_norm(&plain, gamma, beta, mean, var, 1e-3)?)?;
        for mode in [Mode::Infer, Mode::Frozen, Mode::Train] {
            let y = layer.forward(&x, &Pass::new(mode))?;
            assert!(difference(&y, &expected)? < 1e-5, "{mode:?}");
        }
        // and the gradient is the one that passes through both
        let gradient = |y: &Tensor| -> Result<Tensor> {
            match y.sqr()?.sum_all()?.backward()?.get(layer.weight.as_tensor()) {
                Some(gradient) => Ok(gradient.clone()),
                None => candle_core::bail!("no gradient"),
            }
        };
        let ours = gradient(&layer.forward(&x, &Pass::new(Mode::Train))?)?;
        assert!(difference(&ours, &gradient(&expected)?)? < 1e-4);
        // new weights are noticed
        params.set("conv.weight", &vec![0.0; layer.weight.elem_count()])?;
        let (_, shift) = layer.scaled(params.version())?;
        let shifts: Vec<f32> = relu(&shift)?.to_vec1()?;
        let y = layer.forward(&x, &Pass::new(Mode::Infer))?;
        assert!((y.get(0)?.get(1)?.flatten_all()?.to_vec1::<f32>()?[0] - shifts[1]).abs() < 1e-6);
        Ok(())
    }

    #[test]
    fn frozen_parts_get_no_gradient_also_where_norms_keep_their_statistics() -> Result<()> {
        let (params, network) = network(&ResNetConfig { frozen_stages: 2, ..config(Depth::R18, Norm::Trained) })?;
        let x = noise(&[2, 3, 64, 64])?;
        for mode in [Mode::Train, Mode::Frozen] {
            let pass = Pass::new(mode);
            let maps = network.forward(&x, &pass)?;
            let gradients = maps[3].sqr()?.sum_all()?.backward()?;
            let reached = |name: &str| params.get(name).is_some_and(|p| gradients.get(p.var.as_tensor()).is_some());
            assert!(reached("body.layer2.0.conv1.weight"));
            assert!(!reached("body.conv1.weight") && !reached("body.layer1.1.conv2.weight"));
            assert!(pass.flops() > 0.0);
            pass.commit()?;
            let mean: Vec<f32> = params.values()?["body.bn1.running_mean"].1.clone();
            assert!(mean.iter().all(|&m| m == 0.0));
        }
        Ok(())
    }

    #[test]
    fn inference_agrees_with_running_statistics_and_impossible_settings_are_errors() -> Result<()> {
        let (params, network) = network(&config(Depth::R18, Norm::Trained))?;
        unsettle(&params)?;
        let x = noise(&[1, 3, 33, 40])?;
        let folded = network.forward(&x, &Pass::new(Mode::Infer))?;
        let plain = network.forward(&x, &Pass::new(Mode::Frozen))?;
        for (a, b) in folded.iter().zip(&plain) {
            assert!(difference(a, b)? < 1e-4);
        }
        let scope = Params::new(&Device::Cpu, 0).root();
        assert!(ResNet::new(&scope, &ResNetConfig { width: 0, ..config(Depth::R18, Norm::Trained) }).is_err());
        assert!(ResNet::new(&scope, &ResNetConfig { epsilon: f32::NAN, ..config(Depth::R18, Norm::Frozen) }).is_err());
        assert!(
            network
                .forward(&Tensor::zeros((1, 4, 32, 32), DType::F32, &Device::Cpu)?, &Pass::new(Mode::Infer))
                .is_err()
        );
        Ok(())
    }
}
