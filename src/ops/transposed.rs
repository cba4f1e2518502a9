//! Transposed convolution: a matrix product that gives every input pixel its patch, and the sum of the patches.
//!
//! The product is candle's own in f32, and otherwise a convolution, gradients included; `Fold` adds up the patches and
//! its gradient cuts them out again.

use super::conv::{ConvSpec, conv2d};
use super::cuda;
use super::maps::reshape;
use super::precision::{self, Precision};
use super::storage::{contiguous, with_values};
use super::tape::{apply2, with_gradient};
use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;
use std::ops::Range;

/// Transposed convolution of `x` `[N, Cin, H, W]` with `weight` `[Cin, Cout / groups, kh, kw]` and `bias` `[Cout]`, as
/// PyTorch's `conv_transpose2d`: each side becomes `(side − 1) · stride − 2 · padding + kernel + output_padding`.
///
/// # Errors
/// Shapes that do not fit together, a stride or group count of 0, an `output_padding` that is not smaller than the
/// stride, a result with an empty side, or tensors that are not f32.
pub fn conv_transpose2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    padding: usize,
    output_padding: usize,
    groups: usize,
) -> Result<Tensor> {
    let (n, inputs, h, w) = x.dims4()?;
    let (filters, outputs, kh, kw) = weight.dims4()?;
    if groups == 0 || filters != inputs || inputs % groups != 0 {
        candle_core::bail!(
            "conv_transpose2d: input {:?} and weight {:?} do not fit together in {} groups",
            x.dims(),
            weight.dims(),
            groups
        );
    }
    let channels = outputs * groups;
    if stride == 0 || output_padding >= stride {
        candle_core::bail!("conv_transpose2d: output padding {} needs a larger stride than {}", output_padding, stride);
    }
    let side = |length: usize, kernel: usize| {
        let full = length.checked_sub(1).map(|steps| steps * stride + kernel + output_padding);
        full.and_then(|full| full.checked_sub(2 * padding)).filter(|&side| side > 0)
    };
    let (Some(oh), Some(ow)) = (side(h, kh), side(w, kw)) else {
        candle_core::bail!(
            "conv_transpose2d: input {:?} with a {}x{} kernel and padding {} gives an empty map",
            x.dims(),
            kh,
            kw,
            padding
        );
    };
    if let Some(bias) = bias
        && bias.dims() != [channels]
    {
        candle_core::bail!("conv_transpose2d: bias {:?} for {} channels", bias.dims(), channels);
    }

    let patches = patches(x, weight, groups)?;
    let fold = Fold { n, channels, kernel: (kh, kw), input: (h, w), output: (oh, ow), stride, padding };
    let bias = match bias {
        Some(bias) => bias.clone(),
        None => Tensor::zeros(channels, DType::F32, x.device())?,
    };
    if x.device().is_cpu() {
        return apply2(&patches, &bias, fold);
    }
    cuda::transposed::fold(&patches, &bias, [n, channels, kh, kw, h, w, oh, ow, stride, padding])
}

/// The contribution of every input pixel to every tap of every output channel: `[Cout · kh · kw, N · H · W]`.
fn patches(x: &Tensor, weight: &Tensor, groups: usize) -> Result<Tensor> {
    let (n, inputs, h, w) = x.dims4()?;
    let (_, outputs, kh, kw) = weight.dims4()?;
    let pixels = x.reshape((n, inputs, h * w))?.transpose(0, 1)?.contiguous()?.reshape((inputs, n * h * w))?;
    let pixels = with_gradient(&[x], pixels, |x, _, g| {
        let (n, inputs, h, w) = x[0].dims4()?;
        let g = g.reshape((inputs, n, h * w))?.transpose(0, 1)?.contiguous()?;
        Ok(vec![Some(g.reshape(x[0].shape())?)])
    });
    let filters = reshape(weight, (inputs, outputs * kh * kw))?;
    if groups == 1 {
        return product(&filters, &pixels);
    }
    let members = inputs / groups;
    let mut parts = Vec::with_capacity(groups);
    for group in 0..groups {
        let filters = filters.narrow(0, group * members, members)?;
        parts.push(product(&filters, &pixels.narrow(0, group * members, members)?)?);
    }
    Tensor::cat(&parts, 0)
}

/// The transpose of `filters` `[C, K]` times `pixels` `[C, P]`: `[K, P]`.
fn product(filters: &Tensor, pixels: &Tensor) -> Result<Tensor> {
    let ((channels, taps), count) = (filters.dims2()?, pixels.dim(1)?);
    if precision::current() == Precision::F32 || count == 0 {
        let gradient = |inputs: &[Tensor], _: &Tensor, g: &Tensor| {
            let [filters, pixels] = inputs else { candle_core::bail!("conv_transpose2d lost an operand") };
            let of_filters = filters.track_op().then(|| pixels.detach().matmul(&g.t()?)).transpose()?;
            Ok(vec![of_filters, pixels.track_op().then(|| filters.detach().matmul(g)).transpose()?])
        };
        return Ok(with_gradient(&[filters, pixels], filters.t()?.matmul(pixels)?, gradient));
    }
    let (row, kernels) = (pixels.reshape((1, channels, 1, count))?, filters.t()?.reshape((taps, channels, 1, 1))?);
    conv2d(&row, &kernels, None, ConvSpec::new(), None)?.reshape((taps, count))
}

/// The sum of patches `[Cout · kh · kw, N · H · W]` plus a bias: `[N, Cout, H', W']`.
#[derive(Clone, Copy, Debug)]
struct Fold {
    n: usize,
    channels: usize,
    kernel: (usize, usize),
    input: (usize, usize),
    output: (usize, usize),
    stride: usize,
    padding: usize,
}

impl Fold {
    /// The inputs whose tap `k` lands inside an output side.
    fn inside(&self, k: usize, input: usize, output: usize) -> Range<usize> {
        let start = self.padding.saturating_sub(k).div_ceil(self.stride);
        let end = match (output + self.padding).checked_sub(k + 1) {
            Some(room) => (room / self.stride + 1).min(input),
            None => 0,
        };
        start..end.max(start)
    }

    /// Calls `visit` with each row of taps that falls inside: the first patch element, the first output element
    /// (both within their plane), and how many follow, one stride apart in the output.
    fn rows(&self, (ky, kx): (usize, usize), mut visit: impl FnMut(usize, usize, usize)) {
        let columns = self.inside(kx, self.input.1, self.output.1);
        if columns.is_empty() {
            return;
        }
        for y in self.inside(ky, self.input.0, self.output.0) {
            let out_y = y * self.stride + ky - self.padding;
            let out_x = columns.start * self.stride + kx - self.padding;
            visit(y * self.input.1 + columns.start, out_y * self.output.1 + out_x, columns.len());
        }
    }
}

impl CustomOp2 for Fold {
    fn name(&self) -> &'static str {
        "conv_transpose2d"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (patches, bias) = (contiguous(s1, l1, self.name())?, contiguous(s2, l2, self.name())?);
        let ((kh, kw), (h, w), (oh, ow)) = (self.kernel, self.input, self.output);
        let mut y = vec![0.0f32; self.n * self.channels * oh * ow];
        y.par_chunks_mut(oh * ow).enumerate().for_each(|(plane, y)| {
            let (image, channel) = (plane / self.channels, plane % self.channels);
            y.fill(bias[channel]);
            for ky in 0..kh {
                for kx in 0..kw {
                    let tap = ((channel * kh + ky) * kw + kx) * self.n + image;
                    let patch = &patches[tap * h * w..(tap + 1) * h * w];
                    self.rows((ky, kx), |from, to, count| {
                        for (y, &p) in y[to..].iter_mut().step_by(self.stride).zip(&patch[from..from + count]) {
                            *y += p;
                        }
                    });
                }
            }
        });
        Ok((CpuStorage::F32(y), Shape::from((self.n, self.channels, oh, ow))))
    }

    fn bwd(
        &self,
        arg1: &Tensor,
        arg2: &Tensor,
        _res: &Tensor,
        grad_res: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let ((kh, kw), (h, w), (oh, ow)) = (self.kernel, self.input, self.output);
        let (g_patches, g_bias) = with_values(grad_res, self.name(), |g| {
            let mut g_patches = vec![0.0f32; arg1.elem_count()];
            if !g_patches.is_empty() {
                g_patches.par_chunks_mut(h * w).enumerate().for_each(|(index, patch)| {
                    let (tap, image) = (index / self.n, index % self.n);
                    let (channel, ky, kx) = (tap / (kh * kw), tap / kw % kh, tap % kw);
                    let plane = image * self.channels + channel;
                    let g = &g[plane * oh * ow..(plane + 1) * oh * ow];
                    self.rows((ky, kx), |to, from, count| {
                        for (p, &g) in patch[to..to + count].iter_mut().zip(g[from..].iter().step_by(self.stride)) {
                            *p = g;
                        }
                    });
                });
            }
            let sum = |channel: usize| {
                let planes = (0..self.n).map(|image| (image * self.channels + channel) * oh * ow);
                planes.map(|start| g[start..start + oh * ow].iter().map(|&g| f64::from(g)).sum::<f64>()).sum::<f64>()
            };
            let g_bias: Vec<f32> = if arg2.track_op() {
                (0..self.channels).into_par_iter().map(|channel| sum(channel) as f32).collect()
            } else {
                Vec::new()
            };
            Ok((g_patches, g_bias))
        })?;
        let g_patches = Tensor::from_vec(g_patches, arg1.shape(), arg1.device())?;
        let g_bias = if arg2.track_op() { Some(Tensor::from_vec(g_bias, self.channels, arg2.device())?) } else { None };
        Ok((Some(g_patches), g_bias))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// A 2x2 kernel of ones at stride 1 spreads each pixel over four: the sums of overlapping pairs and quads.
    #[test]
    fn overlapping_patches_add_up() -> Result<()> {
        let x = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0], (1, 1, 2, 2), &Device::Cpu)?;
        let weight = Tensor::ones((1, 1, 2, 2), DType::F32, &Device::Cpu)?;
        let bias = Tensor::from_slice(&[0.5f32], 1, &Device::Cpu)?;
        let y = conv_transpose2d(&x, &weight, Some(&bias), 1, 0, 0, 1)?;
        assert_eq!(y.dims(), [1, 1, 3, 3]);
        let expected = [1.5f32, 3.5, 2.5, 4.5, 10.5, 6.5, 3.5, 7.5, 4.5];
        assert_eq!(y.flatten_all()?.to_vec1::<f32>()?, expected);
        Ok(())
    }

    /// Every product scattered to its place. All numbers are small and whole, so sums are exact in any order, and for
    /// products of up to 256 in any precision.
    #[test]
    fn patches_land_where_the_definition_puts_them() -> Result<()> {
        let whole = |count: usize| (0..count).map(|i| ((i * 29) % 13) as f32 - 6.0).collect::<Vec<f32>>();
        let (inputs, outputs, h, w) = (4, 3, 3, 5);
        // kernel, stride, padding, output padding, groups, batch
        for ((kh, kw), stride, padding, extra, groups, batch) in [
            ((2, 2), 2, 0, 0, 1, 3),
            ((3, 3), 2, 1, 1, 1, 1),
            ((4, 3), 2, 1, 0, 2, 3),
            ((1, 1), 1, 0, 0, 4, 1),
            ((5, 2), 3, 1, 2, 1, 1),
            ((2, 3), 3, 0, 2, 2, 1),
        ] {
            let channels = outputs * groups;
            let (x, weight) = (whole(batch * inputs * h * w), whole(inputs * outputs * kh * kw));
            let bias = whole(channels);
            let oh = (h - 1) * stride + kh + extra - 2 * padding;
            let ow = (w - 1) * stride + kw + extra - 2 * padding;
            let mut expected: Vec<f32> =
                (0..batch * channels * oh * ow).map(|i| bias[i / (oh * ow) % channels]).collect();
            for (i, &value) in x.iter().enumerate() {
                let (image, input, y, x) = (i / (inputs * h * w), i / (h * w) % inputs, i / w % h, i % w);
                for k in 0..outputs * kh * kw {
                    let (output, ky, kx) = (k / (kh * kw), k / kw % kh, k % kw);
                    let (oy, ox) = ((y * stride + ky).wrapping_sub(padding), (x * stride + kx).wrapping_sub(padding));
                    if oy < oh && ox < ow {
                        let channel = input / (inputs / groups) * outputs + output;
                        let plane = image * channels + channel;
                        expected[(plane * oh + oy) * ow + ox] += value * weight[input * outputs * kh * kw + k];
                    }
                }
            }
            let x = Tensor::from_vec(x, (batch, inputs, h, w), &Device::Cpu)?;
            let weight = Tensor::from_vec(weight, (inputs, outputs, kh, kw), &Device::Cpu)?;
            let bias = Tensor::from_vec(bias, channels, &Device::Cpu)?;
            for precision in Precision::ALL {
                let run = || conv_transpose2d(&x, &weight, Some(&bias), stride, padding, extra, groups);
                let y = precision.within(run)?;
                assert_eq!(y.dims(), [batch, channels, oh, ow]);
                let name =
                    format!("{precision}, kernel {kh}x{kw}, stride {stride}, padding {padding}, groups {groups}");
                assert_eq!(y.flatten_all()?.to_vec1::<f32>()?, expected, "{name}");
            }
        }
        Ok(())
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors() -> Result<()> {
        let ones = |shape: (usize, usize, usize, usize)| Tensor::ones(shape, DType::F32, &Device::Cpu);
        let (x, weight) = (ones((1, 2, 3, 3))?, ones((2, 2, 2, 2))?);
        assert!(conv_transpose2d(&x, &ones((3, 2, 2, 2))?, None, 2, 0, 0, 1).is_err());
        assert!(conv_transpose2d(&x, &weight, None, 0, 0, 0, 1).is_err());
        assert!(conv_transpose2d(&x, &weight, None, 2, 0, 2, 1).is_err());
        assert!(conv_transpose2d(&x, &weight, None, 1, 4, 0, 1).is_err());
        assert!(conv_transpose2d(&x, &weight, None, 2, 0, 0, 3).is_err());
        let bias = Tensor::ones(3, DType::F32, &Device::Cpu)?;
        assert!(conv_transpose2d(&x, &weight, Some(&bias), 2, 0, 0, 1).is_err());
        assert_eq!(conv_transpose2d(&x, &weight, None, 2, 0, 0, 2)?.dims(), [1, 4, 6, 6]);
        let nothing = x.narrow(0, 0, 0)?;
        for precision in Precision::ALL {
            let y = precision.within(|| conv_transpose2d(&nothing, &weight, None, 2, 0, 0, 1))?;
            assert_eq!(y.dims(), [0, 2, 6, 6]);
        }
        Ok(())
    }
}
