//! Separable resampling; going back it is the same kernel with both matrices transposed.

use super::{Arg, apply1, floats, launch, make, upload};
use crate::ops::resize::Axis;
use candle_core::backend::BackendStorage;
use candle_core::{CudaDevice, CudaStorage, Result, Shape, Tensor};

/// The sources of one output and their weights.
type Taps = Vec<(usize, f32)>;

fn taps(axis: &Axis) -> Vec<Taps> {
    (0..axis.outputs()).map(|output| axis.taps(output).to_vec()).collect()
}

fn transposed(taps: &[Taps], inputs: usize) -> Vec<Taps> {
    let mut turned = vec![Vec::new(); inputs];
    for (output, taps) in taps.iter().enumerate() {
        for &(source, weight) in taps {
            turned[source].push((output, weight));
        }
    }
    turned
}

/// Both axes as `resize.cu` reads them: where the taps of each row and then of each column start and the last ends, and
/// the taps as pairs of source and bits of the weight.
fn packed(rows: &[Taps], columns: &[Taps]) -> Vec<i32> {
    let mut at = rows.len() + columns.len() + 2;
    let (mut starts, mut pairs) = (Vec::with_capacity(at), Vec::new());
    for axis in [rows, columns] {
        for taps in axis {
            starts.push(at as i32);
            at += 2 * taps.len();
            pairs.extend(taps.iter().flat_map(|&(source, weight)| [source as i32, weight.to_bits() as i32]));
        }
        starts.push(at as i32);
    }
    starts.extend(pairs);
    starts
}

/// `[planes, height, width]` of x to `[planes, h, w]`.
fn run(
    device: &CudaDevice,
    x: Arg<'_>,
    (rows, columns): (&[Taps], &[Taps]),
    (planes, height, width): (usize, usize, usize),
    y: &mut CudaStorage,
) -> Result<()> {
    let axes = upload(device, &packed(rows, columns))?;
    let sizes = [height, width, rows.len(), columns.len()];
    let count = planes * rows.len() * columns.len();
    launch(device, "resample", count, &mut [x, Arg::All(&axes), Arg::Ints(&sizes), Arg::Out(y)])
}

/// `R · x · Cᵀ` on every plane of `[N, C, H, W]`.
pub(in crate::ops) fn resample(x: &Tensor, rows: &Axis, columns: &Axis, name: &'static str) -> Result<Tensor> {
    let (n, channels, height, width) = x.dims4()?;
    let (rows, columns) = (taps(rows), taps(columns));
    let (h, w) = (rows.len(), columns.len());
    let back = (transposed(&rows, height), transposed(&columns, width));
    apply1(
        x,
        name,
        move |[x]| {
            let device = x.0.device();
            let mut y = floats(device, n * channels * h * w)?;
            run(device, Arg::In(x), (&rows, &columns), (n * channels, height, width), &mut y)?;
            Ok((y, Shape::from((n, channels, h, w))))
        },
        move |[x], _, g| {
            let gradient = make([g], x.shape(), |device, [g], gx| {
                run(device, Arg::In(g), (&back.0, &back.1), (n * channels, h, w), gx)
            })?;
            Ok([Some(gradient)])
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taps_are_packed_behind_their_starts_and_turned_around() {
        let (rows, columns) = (vec![vec![(0, 1.0)], vec![(0, 0.25), (1, 0.75)]], vec![vec![(2, 0.5)]]);
        let half = |v: f32| v.to_bits() as i32;
        let expected = [5, 7, 11, 11, 13, 0, half(1.0), 0, half(0.25), 1, half(0.75), 2, half(0.5)];
        assert_eq!(packed(&rows, &columns), expected);
        assert_eq!(transposed(&rows, 3), [vec![(0, 1.0), (1, 0.25)], vec![(1, 0.75)], vec![]]);
    }
}
