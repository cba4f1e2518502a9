//! Convolution as its definition reads, in f64 and one product at a time: what tests measure the kernels against.
//!
//! It uses nothing of the kernels, so that tests outside the crate can include this file as well.

/// A convolution; pairs are (vertical, horizontal).
#[derive(Clone, Copy, Debug)]
pub struct Problem {
    pub batch: usize,
    pub groups: usize,
    /// Channels (in, out) of one group.
    pub channels: (usize, usize),
    pub input: (usize, usize),
    pub kernel: (usize, usize),
    pub stride: (usize, usize),
    pub padding: (usize, usize),
    pub dilation: (usize, usize),
}

impl Problem {
    /// `[N, C, H, W]`.
    pub fn input_shape(&self) -> [usize; 4] {
        [self.batch, self.groups * self.channels.0, self.input.0, self.input.1]
    }

    /// `[O, C/groups, kh, kw]`.
    pub fn weight_shape(&self) -> [usize; 4] {
        [self.groups * self.channels.1, self.channels.0, self.kernel.0, self.kernel.1]
    }

    /// `[N, O, H', W']`.
    pub fn output_shape(&self) -> [usize; 4] {
        let side = |size: usize, kernel: usize, stride: usize, padding: usize, dilation: usize| {
            (size + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1
        };
        let height = side(self.input.0, self.kernel.0, self.stride.0, self.padding.0, self.dilation.0);
        let width = side(self.input.1, self.kernel.1, self.stride.1, self.padding.1, self.dilation.1);
        [self.batch, self.groups * self.channels.1, height, width]
    }

    /// Calls `product(input, weight, output)` with the element numbers of every product of the sum.
    fn each_product(&self, mut product: impl FnMut(usize, usize, usize)) {
        let (ins, outs) = self.channels;
        let [batch, out_channels, out_height, out_width] = self.output_shape();
        let (height, width) = self.input;
        for image in 0..batch {
            for out in 0..out_channels {
                for channel in 0..ins {
                    let plane = (image * self.groups + out / outs) * ins + channel;
                    for tap in 0..self.kernel.0 * self.kernel.1 {
                        let (tap_y, tap_x) = (tap / self.kernel.1, tap % self.kernel.1);
                        let weight = (out * ins + channel) * self.kernel.0 * self.kernel.1 + tap;
                        for out_y in 0..out_height {
                            let y = out_y * self.stride.0 + tap_y * self.dilation.0;
                            for out_x in 0..out_width {
                                let x = out_x * self.stride.1 + tap_x * self.dilation.1;
                                let (top, left) = self.padding;
                                if y >= top && y - top < height && x >= left && x - left < width {
                                    let input = (plane * height + y - top) * width + x - left;
                                    let position = (image * out_channels + out) * out_height + out_y;
                                    product(input, weight, position * out_width + out_x);
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    /// The output before any activation.
    pub fn forward(&self, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f64> {
        let [batch, outs, height, width] = self.output_shape();
        let start = |index: usize| bias.map_or(0.0, |bias| f64::from(bias[index / (height * width) % outs]));
        let mut output: Vec<f64> = (0..batch * outs * height * width).map(start).collect();
        self.each_product(|input, tap, position| output[position] += f64::from(x[input]) * f64::from(weight[tap]));
        output
    }

    /// Gradients of x, weight and bias from the output's gradient (before any activation): the adjoint sums.
    pub fn gradients(&self, x: &[f32], weight: &[f32], output: &[f64]) -> [Vec<f64>; 3] {
        let [_, outs, height, width] = self.output_shape();
        let mut of_x = vec![0.0; x.len()];
        let mut of_weight = vec![0.0; weight.len()];
        let mut of_bias = vec![0.0; outs];
        self.each_product(|input, tap, position| {
            of_x[input] += output[position] * f64::from(weight[tap]);
            of_weight[tap] += output[position] * f64::from(x[input]);
        });
        for (position, gradient) in output.iter().enumerate() {
            of_bias[position / (height * width) % outs] += gradient;
        }
        [of_x, of_weight, of_bias]
    }
}
