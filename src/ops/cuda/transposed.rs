//! The sum of the patches of a transposed convolution.

use super::{Arg, apply2, channel_sums, floats, launch, make};
use candle_core::backend::BackendStorage;
use candle_core::{Result, Shape, Tensor};

/// Patches `[Cout · kh · kw, N · H · W]` plus a bias `[Cout]` to `[N, Cout, H', W']`; `sizes` are N, Cout, kh, kw, H, W,
/// H', W', stride and padding.
pub(in crate::ops) fn fold(patches: &Tensor, bias: &Tensor, sizes: [usize; 10]) -> Result<Tensor> {
    let [n, channels, _, _, _, _, oh, ow, ..] = sizes;
    let count = n * channels * oh * ow;
    apply2(
        [patches, bias],
        "conv_transpose2d",
        move |[patches, bias]| {
            let device = patches.0.device();
            let mut y = floats(device, count)?;
            launch(device, "fold", count, &mut [Arg::In(patches), Arg::In(bias), Arg::Ints(&sizes), Arg::Out(&mut y)])?;
            Ok((y, Shape::from((n, channels, oh, ow))))
        },
        move |[patches, bias], _, g| {
            let of_patches = make([g], patches.shape(), |device, [g], to| {
                launch(device, "unfold", patches.elem_count(), &mut [Arg::In(g), Arg::Ints(&sizes), Arg::Out(to)])
            })?;
            let of_bias = if bias.track_op() { Some(channel_sums(g)?) } else { None };
            Ok([Some(of_patches), of_bias])
        },
    )
}
