//! Single convolutions of published networks: the forward pass, and the gradients of input and weight.

use super::{Measurement, Times, measure, random_tensor};
use crate::ops::conv::{Activation, ConvSpec, WeightCache, conv2d};
use crate::ops::tape::Tape;
use crate::random::Random;
use candle_core::{Result, Tensor, Var};
use std::fmt;
use std::sync::Arc;

/// Fewest measured runs: the shortest layers take a few microseconds.
const LEAST_RUNS: usize = 5;

/// A square convolution of one image, padded so that at stride 1 the map keeps its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvolutionShape {
    /// Channels in and out.
    pub input: usize,
    pub output: usize,
    /// Height and width of the input, pixels.
    pub side: usize,
    pub kernel: usize,
    pub stride: usize,
    pub dilation: usize,
    pub groups: usize,
}

const fn dense(input: usize, output: usize, side: usize, kernel: usize, stride: usize) -> ConvolutionShape {
    ConvolutionShape { input, output, side, kernel, stride, dilation: 1, groups: 1 }
}

const fn depthwise(channels: usize, side: usize, stride: usize) -> ConvolutionShape {
    ConvolutionShape { groups: channels, ..dense(channels, channels, side, 3, stride) }
}

/// Layers of VGG-16 and SSD300, of ResNet-50 with a pyramid at 800 pixels, of narrow networks, and of MobileNet
/// (Howard et al., "MobileNets", 2017, table 1).
pub const CONVOLUTIONS: [ConvolutionShape; 39] = [
    dense(3, 64, 300, 3, 1),
    dense(64, 64, 300, 3, 1),
    dense(64, 128, 150, 3, 1),
    dense(128, 128, 150, 3, 1),
    dense(256, 256, 75, 3, 1),
    dense(512, 512, 38, 3, 1),
    dense(512, 512, 19, 3, 1),
    ConvolutionShape { dilation: 6, ..dense(512, 1024, 19, 3, 1) },
    dense(1024, 1024, 19, 1, 1),
    dense(256, 256, 100, 3, 1),
    dense(64, 256, 200, 1, 1),
    dense(256, 64, 200, 1, 1),
    dense(512, 2048, 25, 1, 1),
    dense(128, 128, 100, 3, 2),
    dense(3, 64, 800, 7, 2),
    dense(256, 256, 13, 3, 1),
    dense(64, 256, 100, 1, 1),
    dense(256, 64, 100, 1, 1),
    dense(3, 64, 640, 7, 2),
    dense(12, 12, 240, 3, 1),
    dense(48, 48, 60, 3, 1),
    depthwise(32, 112, 1),
    depthwise(64, 112, 2),
    depthwise(128, 56, 1),
    depthwise(128, 56, 2),
    depthwise(256, 28, 1),
    depthwise(256, 28, 2),
    depthwise(512, 14, 1),
    depthwise(512, 14, 2),
    depthwise(1024, 7, 1),
    dense(32, 64, 112, 1, 1),
    dense(64, 128, 56, 1, 1),
    dense(128, 128, 56, 1, 1),
    dense(128, 256, 28, 1, 1),
    dense(256, 256, 28, 1, 1),
    dense(256, 512, 14, 1, 1),
    dense(512, 512, 14, 1, 1),
    dense(512, 1024, 7, 1, 1),
    dense(1024, 1024, 7, 1, 1),
];

impl fmt::Display for ConvolutionShape {
    /// `conv 64->128 150x150 k3 s1`, then dilation and groups where they are not 1: ` d6`, ` g32`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { input, output, side, kernel, stride, dilation, groups } = self;
        write!(f, "conv {input}->{output} {side}x{side} k{kernel} s{stride}")?;
        if *dilation != 1 {
            write!(f, " d{dilation}")?;
        }
        if *groups != 1 {
            write!(f, " g{groups}")?;
        }
        Ok(())
    }
}

impl ConvolutionShape {
    fn spec(&self) -> ConvSpec {
        let padding = self.dilation * (self.kernel - 1) / 2;
        ConvSpec::new().stride(self.stride).padding(padding).dilation(self.dilation).groups(self.groups)
    }

    /// Input `[1, C, S, S]` and weight `[O, C/groups, k, k]`.
    fn tensors(&self, rng: &mut Random) -> Result<(Tensor, Tensor)> {
        let x = random_tensor(&[1, self.input, self.side, self.side], rng)?;
        let weight = random_tensor(&[self.output, self.input / self.groups, self.kernel, self.kernel], rng)?;
        Ok((x, weight))
    }

    /// Operations of the forward pass, and of each gradient.
    fn flops(&self) -> Result<f64> {
        let (height, width) = self.spec().output_size((self.side, self.side), (self.kernel, self.kernel))?;
        let per_output = self.input / self.groups * self.kernel * self.kernel;
        Ok(2.0 * (height * width * self.output * per_output) as f64)
    }

    /// The forward pass with bias and ReLU, weights packed once.
    ///
    /// # Errors
    /// Those of the operation.
    pub fn forward(&self, repeat: usize) -> Result<Measurement> {
        let mut rng = Random::new(1);
        let (x, weight) = self.tensors(&mut rng)?;
        let bias = random_tensor(&[self.output], &mut rng)?;
        let spec = self.spec().activation(Activation::Relu);
        let cache = Arc::new(WeightCache::default());
        let times =
            measure(repeat.max(LEAST_RUNS), || conv2d(&x, &weight, Some(&bias), spec, Some((&cache, 1))).map(drop))?;
        Ok(Measurement { flops: self.flops()?, ..Measurement::new(format!("{self} forward"), times) })
    }

    /// Forward and backward pass as they run in training, where new weights are packed each time; then each gradient
    /// alone.
    ///
    /// # Errors
    /// Those of the operation.
    pub fn training(&self, repeat: usize) -> Result<Vec<Measurement>> {
        let repeat = repeat.max(LEAST_RUNS);
        let (x, weight) = self.tensors(&mut Random::new(1))?;
        let (x_var, weight_var) = (Var::from_tensor(&x)?, Var::from_tensor(&weight)?);
        let cache = Arc::new(WeightCache::default());
        let gradient = conv2d(&x, &weight, None, self.spec(), None)?.ones_like()?;
        let mut version = 0;
        // The gradient of the output is given, as a network's is.
        let both = measure(repeat, || {
            version += 1;
            let mut tape = Tape::default();
            let y = tape.record(|| conv2d(&x_var, &weight_var, None, self.spec(), Some((&cache, version))))?;
            tape.backward_from(&y, gradient.clone()).map(drop)
        })?;
        let alone = |x: &Tensor, weight: &Tensor| -> Result<Times> {
            let mut tape = Tape::default();
            let y = tape.record(|| conv2d(x, weight, None, self.spec(), None))?;
            measure(repeat, || tape.clone().backward_from(&y, gradient.clone()).map(drop))
        };
        let (of_input, of_weight) = (alone(&x_var, &weight)?, alone(&x, &weight_var)?);
        Ok(vec![
            self.measurement("forward+backward", both, 3.0)?,
            self.measurement("gradient of input", of_input, 1.0)?,
            self.measurement("gradient of weight", of_weight, 1.0)?,
        ])
    }

    fn measurement(&self, what: &str, times: Times, passes: f64) -> Result<Measurement> {
        Ok(Measurement { flops: passes * self.flops()?, ..Measurement::new(format!("{self} {what}"), times) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_is_not_plain_and_no_two_are_equal() {
        assert_eq!(dense(64, 128, 150, 3, 1).to_string(), "conv 64->128 150x150 k3 s1");
        assert_eq!(depthwise(64, 112, 2).to_string(), "conv 64->64 112x112 k3 s2 g64");
        let mut names = CONVOLUTIONS.map(|shape| shape.to_string());
        assert!(names.contains(&"conv 512->1024 19x19 k3 s1 d6".to_string()));
        names.sort();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn operations_are_counted_by_output_and_group() {
        // 150² outputs of 128 channels, each from 64 · 9 inputs
        assert_eq!(dense(64, 128, 150, 3, 1).flops().unwrap(), 2.0 * 22_500.0 * 128.0 * 576.0);
        // 56² outputs of 64 channels, each from 9 inputs
        assert_eq!(depthwise(64, 112, 2).flops().unwrap(), 2.0 * 3136.0 * 64.0 * 9.0);
        // padded by its reach, a dilated kernel keeps the size too
        let dilated = ConvolutionShape { dilation: 6, ..dense(8, 8, 19, 3, 1) };
        assert_eq!(dilated.flops().unwrap(), 2.0 * 361.0 * 8.0 * 72.0);
    }

    #[test]
    fn every_pass_of_a_small_shape_is_timed() {
        for shape in [dense(4, 6, 12, 3, 1), depthwise(4, 9, 2)] {
            let forward = shape.forward(1).unwrap();
            assert!(forward.times.median > 0.0 && forward.flops > 0.0, "{forward:?}");
            let names: Vec<String> = shape.training(1).unwrap().into_iter().map(|m| m.name).collect();
            let expected = ["forward+backward", "gradient of input", "gradient of weight"];
            assert_eq!(names, expected.map(|what| format!("{shape} {what}")));
        }
    }
}
