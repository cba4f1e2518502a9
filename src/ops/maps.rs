//! Maps put together: sums, concatenation, and a head's maps read cell by cell.

use super::conv::Activation;
use super::cuda;
use super::storage::{CHUNK, contiguous, in_chunks, same_shape, with_values};
use super::tape::{apply1, apply2, with_gradient};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

/// The activation of `a + b`, two tensors of one shape.
///
/// # Errors
/// Shapes that differ, or tensors that are not f32 on one device.
pub fn add(a: &Tensor, b: &Tensor, activation: Activation) -> Result<Tensor> {
    same_shape(a, b, "add")?;
    if a.device().is_cpu() { apply2(a, b, Add(activation)) } else { cuda::maps::add(a, b, activation.slope()) }
}

/// Tensors that differ in dimension `dim` alone, one behind the other in it.
///
/// # Errors
/// No tensor, or shapes that do not fit.
pub fn cat(parts: &[Tensor], dim: usize) -> Result<Tensor> {
    if let [single] = parts {
        return Ok(single.clone());
    }
    let mut ends = Vec::with_capacity(parts.len());
    for part in parts {
        ends.push(ends.last().unwrap_or(&0) + part.dim(dim)?);
    }
    let gradient = move |parts: &[Tensor], _: &Tensor, g: &Tensor| {
        let part = |(part, end): (&Tensor, &usize)| {
            let length = part.dim(dim)?;
            // not a view, which would keep the whole gradient
            part.track_op().then(|| g.narrow(dim, end - length, length)?.contiguous()).transpose()
        };
        parts.iter().zip(&ends).map(part).collect()
    };
    Ok(with_gradient(&parts.iter().collect::<Vec<_>>(), Tensor::cat(parts, dim)?, gradient))
}

/// The elements of `x` in row-major order, in another shape.
///
/// # Errors
/// Another number of elements.
pub fn reshape(x: &Tensor, shape: impl Into<Shape>) -> Result<Tensor> {
    let y = x.reshape(shape.into())?;
    Ok(with_gradient(&[x], y, |x, _, g| Ok(vec![Some(g.reshape(x[0].shape())?)])))
}

/// The maps `[N, A·k, H, W]` of all levels as rows of `values` = k numbers, `[N, anchors, k]`: level, row, column,
/// anchor within the cell.
///
/// # Errors
/// No map, a tensor that is not rank 4 f32, or channels that `values` does not divide.
pub fn by_cell<'a>(maps: impl IntoIterator<Item = &'a Tensor>, values: usize) -> Result<Tensor> {
    let rows: Result<Vec<Tensor>> = maps.into_iter().map(|map| cell_rows(map, values)).collect();
    cat(&rows?, 1)
}

fn cell_rows(map: &Tensor, values: usize) -> Result<Tensor> {
    let (_, channels, ..) = map.dims4()?;
    if values == 0 || !channels.is_multiple_of(values) {
        candle_core::bail!("{channels} channels are no anchors of {values} values each");
    }
    if map.device().is_cpu() { apply1(map, CellRows { values }) } else { cuda::maps::cell_rows(map, values) }
}

struct Add(Activation);

impl CustomOp2 for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (a, b) = (contiguous(s1, l1, self.name())?, contiguous(s2, l2, self.name())?);
        let y = in_chunks(a.len(), |range, y| {
            for ((y, a), b) in y.iter_mut().zip(&a[range.clone()]).zip(&b[range]) {
                *y = self.0.apply(a + b);
            }
        });
        Ok((CpuStorage::F32(y), l1.shape().clone()))
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, y: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = if self.0 == Activation::None {
            g.clone()
        } else {
            let before = with_values(y, self.name(), |y| {
                with_values(g, self.name(), |g| {
                    Ok(in_chunks(y.len(), |range, before| {
                        for ((before, y), g) in before.iter_mut().zip(&y[range.clone()]).zip(&g[range]) {
                            *before = self.0.gradient(*y, *g);
                        }
                    }))
                })
            })?;
            Tensor::from_vec(before, y.shape(), y.device())?
        };
        Ok((a.track_op().then(|| gradient.clone()), b.track_op().then_some(gradient)))
    }
}

/// Every matrix of `x` `[…, rows, columns]` transposed.
fn transposed(x: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    /// Rows of a block: its columns of results stay in the cache.
    const BLOCK: usize = 16;
    let mut y = vec![0.0f32; x.len()];
    if x.is_empty() {
        return y;
    }
    let band = (CHUNK / rows).max(1);
    y.par_chunks_mut(rows * columns).zip(x.par_chunks(rows * columns)).for_each(|(y, x)| {
        y.par_chunks_mut(band * rows).enumerate().for_each(|(index, y)| {
            for first in (0..rows).step_by(BLOCK) {
                for row in first..(first + BLOCK).min(rows) {
                    let x = &x[row * columns + index * band..];
                    for (y, &x) in y.chunks_exact_mut(rows).zip(x) {
                        y[row] = x;
                    }
                }
            }
        });
    });
    y
}

struct CellRows {
    values: usize,
}

impl CustomOp1 for CellRows {
    fn name(&self) -> &'static str {
        "cell_rows"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = contiguous(storage, layout, self.name())?;
        let (images, channels, height, width) = layout.shape().dims4()?;
        let shape = (images, height * width * channels / self.values, self.values);
        Ok((CpuStorage::F32(transposed(&x, channels, height * width)), shape.into()))
    }

    fn bwd(&self, map: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        let (_, channels, height, width) = map.dims4()?;
        let gradient = with_values(g, self.name(), |g| Ok(transposed(g, height * width, channels)))?;
        Ok(Some(Tensor::from_vec(gradient, map.shape(), map.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::tape::Tape;
    use candle_core::{Device, Var};

    fn floats(x: &Tensor) -> Result<Vec<f32>> {
        x.flatten_all()?.to_vec1()
    }

    fn numbers(shape: &[usize]) -> Result<Var> {
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|i| (i as f32 * 0.7).sin()).collect();
        Var::from_vec(values, shape, &Device::Cpu)
    }

    /// Two levels with large and odd sides, so that bands and blocks have ends; what candle makes of them is known.
    #[test]
    fn cells_are_read_level_by_level() -> Result<()> {
        let maps = [numbers(&[2, 36, 41, 30])?, numbers(&[2, 36, 1, 3])?];
        let natively = || -> Result<Tensor> {
            let mut rows = Vec::new();
            for map in &maps {
                let (n, c, h, w) = map.dims4()?;
                rows.push(map.permute((0, 2, 3, 1))?.contiguous()?.reshape((n, h * w * c / 4, 4))?);
            }
            Tensor::cat(&rows, 1)
        };
        let mut tape = Tape::default();
        let found = tape.record(|| by_cell(maps.iter().map(Var::as_tensor), 4))?;
        let known = natively()?;
        assert_eq!((found.dims(), floats(&found)?), (known.dims(), floats(&known)?));
        let weights = numbers(known.dims())?.detach();
        let known = known.mul(&weights)?.sum_all()?.backward()?;
        let gradients = tape.backward_from(&found, weights)?;
        for map in &maps {
            let (Some(found), Some(known)) = (gradients.get(map), known.get(map)) else { panic!("no gradient") };
            assert_eq!((found.dims(), floats(found)?), (known.dims(), floats(known)?));
        }
        assert!(by_cell([maps[0].as_tensor()], 5).is_err() && by_cell([], 4).is_err());
        Ok(())
    }

    /// Channel a·k + j of cell (y, x) is value j of anchor a there.
    #[test]
    fn maps_become_rows_in_the_order_of_the_anchors() -> Result<()> {
        let fine = Tensor::arange(0f32, 24.0, &Device::Cpu)?.reshape((1, 4, 2, 3))?;
        let coarse = Tensor::arange(100f32, 104.0, &Device::Cpu)?.reshape((1, 4, 1, 1))?;
        let rows = by_cell([&fine, &coarse], 2)?;
        assert_eq!(rows.dims(), [1, 14, 2]);
        let rows = rows.get(0)?.to_vec2::<f32>()?;
        // cell (0, 0): channels 0 to 3 are 6 apart; cell (1, 2) is element 5
        assert_eq!((&rows[0][..], &rows[1][..]), (&[0.0, 6.0][..], &[12.0, 18.0][..]));
        assert_eq!(rows[10], [5.0, 11.0]);
        assert_eq!(rows[13], [102.0, 103.0]);
        // channel = anchor · 2 + value, 1 × 2 cells
        let map = Tensor::arange(0f32, 8.0, &Device::Cpu)?.reshape((1, 4, 1, 2))?;
        assert_eq!(floats(&by_cell([&map], 2)?)?, [0.0, 2.0, 4.0, 6.0, 1.0, 3.0, 5.0, 7.0]);
        Ok(())
    }

    #[test]
    fn sums_and_parts_give_their_gradients_on() -> Result<()> {
        let (a, b) = (numbers(&[2, 3, 4])?, Var::from_tensor(&numbers(&[2, 3, 4])?.affine(-0.5, 0.2)?)?);
        for activation in [Activation::None, Activation::Relu, Activation::Leaky(0.1)] {
            let bend = |x: &Tensor| -> Result<Tensor> { x.maximum(&x.affine(f64::from(activation.slope()), 0.0)?) };
            let known = bend(&(a.as_tensor() + b.as_tensor())?)?;
            let mut tape = Tape::default();
            let found = tape.record(|| add(&a, &b, activation))?;
            assert_eq!(floats(&found)?, floats(&known)?);
            let gradients = tape.backward_from(&found, found.ones_like()?)?;
            let known = known.sum_all()?.backward()?;
            for var in [&a, &b] {
                assert_eq!(gradients.get(var).map(floats).transpose()?, known.get(var).map(floats).transpose()?);
            }
        }
        assert!(add(&a, &a.narrow(0, 0, 1)?, Activation::None).is_err());
        let mut tape = Tape::default();
        let parts = [a.as_tensor().clone(), b.detach().narrow(1, 0, 1)?, b.as_tensor().clone()];
        let found = tape.record(|| reshape(&cat(&parts, 1)?, (2, 28)))?;
        let weights = numbers(&[2, 28])?.detach();
        let gradients = tape.backward_from(&found, weights.clone())?;
        let of_b = gradients.get(&b).map(floats).transpose()?;
        assert_eq!(of_b, Some(floats(&weights.reshape((2, 7, 4))?.narrow(1, 4, 3)?)?));
        assert_eq!(cat(&parts[..1], 1)?.id(), a.id());
        Ok(())
    }
}
