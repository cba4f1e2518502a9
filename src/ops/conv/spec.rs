//! What a convolution is asked to do (stride, padding, dilation, groups, activation) and the sizes that follow.

use super::pack::Tap;
use crate::ops::precision::Precision;
use candle_core::{Result, bail};

/// What is applied to each output after the bias, inside the convolution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    None,
    /// max(x, 0); its gradient is 0 where the output is 0.
    Relu,
    /// x where x > 0, else slope · x. The slope must be 0 or more, so that the output's sign tells the branch.
    Leaky(f32),
}

impl Activation {
    /// The derivative below zero.
    pub fn slope(self) -> f32 {
        match self {
            Self::None => 1.0,
            Self::Relu => 0.0,
            Self::Leaky(slope) => slope,
        }
    }

    /// The activated value; NaN stays NaN.
    #[inline(always)]
    pub fn apply(self, value: f32) -> f32 {
        match self {
            Activation::Relu if value <= 0.0 => 0.0,
            Activation::Leaky(slope) if value <= 0.0 => slope * value,
            _ => value,
        }
    }

    /// The gradient before the activation, from the activated `output` and the gradient after it.
    #[inline(always)]
    pub fn gradient(self, output: f32, gradient: f32) -> f32 {
        match self {
            Activation::Relu if output <= 0.0 => 0.0,
            Activation::Leaky(slope) if output <= 0.0 => slope * gradient,
            _ => gradient,
        }
    }
}

/// The settings of a convolution; pairs are (vertical, horizontal).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConvSpec {
    pub stride: (usize, usize),
    pub padding: (usize, usize),
    pub dilation: (usize, usize),
    pub groups: usize,
    pub activation: Activation,
}

impl Default for ConvSpec {
    fn default() -> Self {
        Self::new()
    }
}

impl ConvSpec {
    /// Stride 1, no padding, dilation 1, one group, no activation.
    pub fn new() -> Self {
        Self { stride: (1, 1), padding: (0, 0), dilation: (1, 1), groups: 1, activation: Activation::None }
    }

    /// The same stride both ways.
    pub fn stride(self, stride: usize) -> Self {
        Self { stride: (stride, stride), ..self }
    }

    /// The same zero padding on all four sides, in pixels.
    pub fn padding(self, padding: usize) -> Self {
        Self { padding: (padding, padding), ..self }
    }

    /// The same distance between kernel taps both ways, in pixels.
    pub fn dilation(self, dilation: usize) -> Self {
        Self { dilation: (dilation, dilation), ..self }
    }

    /// Channel groups; as many as input channels makes the convolution depthwise.
    pub fn groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    /// The activation after the bias.
    pub fn activation(self, activation: Activation) -> Self {
        Self { activation, ..self }
    }

    /// Output (height, width): floor((size + 2·padding − dilation·(kernel − 1) − 1) / stride) + 1 each way.
    /// Fails when a size, stride or dilation is 0 or the kernel does not fit into the padded input.
    pub fn output_size(&self, input: (usize, usize), kernel: (usize, usize)) -> Result<(usize, usize)> {
        let height = side(input.0, kernel.0, self.stride.0, self.padding.0, self.dilation.0);
        let width = side(input.1, kernel.1, self.stride.1, self.padding.1, self.dilation.1);
        match (height, width) {
            (Some(height), Some(width)) => Ok((height, width)),
            _ => bail!(
                "conv2d: kernel {kernel:?} with stride {:?}, padding {:?}, dilation {:?} does not fit input {input:?} \
                 (sizes, strides and dilations must be at least 1)",
                self.stride,
                self.padding,
                self.dilation
            ),
        }
    }
}

fn side(size: usize, kernel: usize, stride: usize, padding: usize, dilation: usize) -> Option<usize> {
    if size == 0 || dilation == 0 {
        return None;
    }
    let reach = kernel.checked_sub(1)?.checked_mul(dilation)?.checked_add(1)?;
    let room = padding.checked_mul(2)?.checked_add(size)?.checked_sub(reach)?;
    room.checked_div(stride)?.checked_add(1)
}

/// A convolution with all its sizes checked. Channels are those of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Geometry {
    pub batch: usize,
    pub groups: usize,
    pub in_channels: usize,
    pub out_channels: usize,
    pub input: (usize, usize),
    pub kernel: (usize, usize),
    pub output: (usize, usize),
    pub stride: (usize, usize),
    pub padding: (usize, usize),
    pub dilation: (usize, usize),
    pub precision: Precision,
}

impl Geometry {
    /// From the shapes of input `[N, C, H, W]` and weight `[O, C/groups, kh, kw]`; in f32.
    pub fn new(input: &[usize], weight: &[usize], spec: &ConvSpec) -> Result<Self> {
        let (&[batch, channels, height, width], &[outs, ins, kernel_height, kernel_width]) = (input, weight) else {
            bail!("conv2d: input {input:?} must be [N, C, H, W] and weight {weight:?} [O, C/groups, kh, kw]")
        };
        let groups = spec.groups;
        if groups == 0
            || ins == 0
            || outs == 0
            || ins.checked_mul(groups) != Some(channels)
            || !outs.is_multiple_of(groups)
        {
            bail!(
                "conv2d: input {input:?} and weight {weight:?} do not fit {groups} groups: \
                 needs C = groups · weight's second size, and O a multiple of groups, none of them 0"
            )
        }
        if let Activation::Leaky(slope) = spec.activation
            && (slope.is_nan() || slope < 0.0)
        {
            bail!("conv2d: leaky slope {slope} must be 0 or more")
        }
        let kernel = (kernel_height, kernel_width);
        let output = spec.output_size((height, width), kernel)?;
        let elements = [batch, outs, output.0, output.1].iter().try_fold(1_usize, |n, &size| n.checked_mul(size));
        if elements.is_none() {
            bail!("conv2d: output [{batch}, {outs}, {}, {}] has too many elements", output.0, output.1)
        }
        Ok(Self {
            batch,
            groups,
            in_channels: ins,
            out_channels: outs / groups,
            input: (height, width),
            kernel,
            output,
            stride: spec.stride,
            padding: spec.padding,
            dilation: spec.dilation,
            precision: Precision::F32,
        })
    }

    /// The same in another precision.
    pub fn at(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// Whether the matrix units of a GPU want the channels of a pixel side by side: products of 16 bits, eight channels at
    /// a time (NVIDIA, "Convolutional Layers User's Guide", §4).
    pub fn channels_last(&self) -> bool {
        let by_eight = self.in_channels.is_multiple_of(8) && self.out_channels.is_multiple_of(8);
        self.precision.half().is_some() && self.groups == 1 && by_eight
    }

    /// Pixels of one input plane.
    pub fn input_plane(&self) -> usize {
        self.input.0 * self.input.1
    }

    /// Pixels of one output plane.
    pub fn output_plane(&self) -> usize {
        self.output.0 * self.output.1
    }

    /// Kernel positions.
    pub fn taps(&self) -> usize {
        self.kernel.0 * self.kernel.1
    }

    /// Elements of the input.
    pub fn input_len(&self) -> usize {
        self.batch * self.groups * self.in_channels * self.input_plane()
    }

    /// Elements of the output.
    pub fn output_len(&self) -> usize {
        self.batch * self.groups * self.out_channels * self.output_plane()
    }

    /// Elements of the weight.
    pub fn weight_len(&self) -> usize {
        self.groups * self.out_channels * self.in_channels * self.taps()
    }

    /// Output `[N, O, H', W']`.
    pub fn output_shape(&self) -> (usize, usize, usize, usize) {
        (self.batch, self.groups * self.out_channels, self.output.0, self.output.1)
    }

    /// Weight `[O, C/groups, kh, kw]`.
    pub fn weight_shape(&self) -> [usize; 4] {
        [self.groups * self.out_channels, self.in_channels, self.kernel.0, self.kernel.1]
    }

    /// One channel a group, several groups: nothing to sum over but the taps.
    pub fn is_depthwise(&self) -> bool {
        self.in_channels == 1 && self.groups > 1
    }

    /// Where each kernel position looks, relative to output position · stride.
    pub fn forward_taps(&self) -> Vec<Tap> {
        let mut taps = Vec::with_capacity(self.taps());
        for row in 0..self.kernel.0 {
            for column in 0..self.kernel.1 {
                taps.push(Tap {
                    dy: (row * self.dilation.0) as isize - self.padding.0 as isize,
                    dx: (column * self.dilation.1) as isize - self.padding.1 as isize,
                    weight: row * self.kernel.1 + column,
                });
            }
        }
        taps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_sizes_follow_the_formula() {
        let spec = ConvSpec::new().stride(2).padding(3);
        // floor((800 + 6 - 6 - 1) / 2) + 1 = 400; floor((7 + 6 - 6 - 1) / 2) + 1 = 4
        assert_eq!(spec.output_size((800, 7), (7, 7)).unwrap(), (400, 4));
        assert_eq!(ConvSpec::new().padding(6).dilation(6).output_size((19, 19), (3, 3)).unwrap(), (19, 19));
        assert!(ConvSpec::new().output_size((2, 9), (3, 3)).is_err());
        assert!(ConvSpec::new().stride(0).output_size((9, 9), (3, 3)).is_err());
        assert!(ConvSpec::new().dilation(0).output_size((9, 9), (3, 3)).is_err());
        assert!(ConvSpec::new().padding(usize::MAX).output_size((9, 9), (3, 3)).is_err());
        assert!(ConvSpec::new().output_size((9, 9), (0, 3)).is_err());
    }

    #[test]
    fn impossible_shapes_are_messages() {
        let spec = ConvSpec::new();
        for (input, weight, spec) in [
            (vec![1, 3, 8, 8], vec![4, 2, 3, 3], spec),
            (vec![1, 4, 8, 8], vec![3, 2, 3, 3], spec.groups(2)),
            (vec![1, 4, 8, 8], vec![4, 4, 3, 3], spec.groups(0)),
            (vec![4, 8, 8], vec![4, 4, 3, 3], spec),
            (vec![1, 4, 8, 8], vec![4, 4, 3], spec),
            (vec![1, 4, 8, 8], vec![4, 4, 3, 3], spec.activation(Activation::Leaky(-0.1))),
            (vec![1, 4, 8, 8], vec![4, 4, 3, 3], spec.activation(Activation::Leaky(f32::NAN))),
            (vec![usize::MAX, 1, 8, 8], vec![4, 1, 3, 3], spec),
        ] {
            let message = Geometry::new(&input, &weight, &spec).unwrap_err().to_string();
            assert!(message.contains("conv2d"), "{message}");
        }
    }

    #[test]
    fn activations_and_their_gradients() {
        assert_eq!(Activation::Relu.apply(-2.0), 0.0);
        assert!(Activation::Relu.apply(f32::NAN).is_nan());
        assert_eq!(Activation::Leaky(0.1).apply(-2.0), -0.2);
        assert_eq!(Activation::Relu.gradient(0.0, 3.0), 0.0);
        assert_eq!(Activation::Leaky(0.5).gradient(-1.0, 3.0), 1.5);
        assert_eq!(Activation::None.gradient(-1.0, 3.0), 3.0);
    }
}
