//! Rows picked by index, and the indices of the largest values.

use super::cuda;
use super::storage::{contiguous, with_values};
use super::tape::apply1;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use std::cmp::Ordering;

/// Rows of `x` `[N, D]` in the order of `index`, which may repeat and leave out: `[M, D]`. The gradients of a repeated
/// row add up. More trailing dimensions are kept as they are.
///
/// # Errors
/// A scalar, a tensor that is not f32, or an index of `N` or more.
pub fn select_rows(x: &Tensor, index: &[u32]) -> Result<Tensor> {
    let rows = x.dim(0)?;
    if let Some(outside) = index.iter().find(|&&i| i as usize >= rows) {
        candle_core::bail!("select_rows: row {} of a tensor of shape {:?}", outside, x.dims());
    }
    if x.device().is_cpu() {
        return apply1(x, SelectRows { index: index.to_vec() });
    }
    if index.is_empty() {
        return x.narrow(0, 0, 0)?.contiguous();
    }
    select_rows_of(x, &Tensor::from_slice(index, index.len(), x.device())?)
}

/// [`select_rows`] on a CUDA device that has the index, u32 `[M]`, which must stay below `N`.
///
/// # Errors
/// Tensors that are not on one CUDA device.
pub fn select_rows_of(x: &Tensor, index: &Tensor) -> Result<Tensor> {
    cuda::maps::take_rows(x, index)
}

/// Indices of the `k` largest values, largest first; equals in their original order, NaN after everything else.
/// Fewer than `k` where there are fewer values.
pub fn top_k(values: &[f32], k: usize) -> Vec<u32> {
    let better = |&a: &u32, &b: &u32| {
        let (x, y) = (values[a as usize], values[b as usize]);
        let by_value = match (x.is_nan(), y.is_nan()) {
            (false, false) => y.partial_cmp(&x).unwrap_or(Ordering::Equal),
            (x_nan, y_nan) => x_nan.cmp(&y_nan),
        };
        by_value.then(a.cmp(&b))
    };
    let mut order: Vec<u32> = (0..values.len() as u32).collect();
    if k == 0 {
        return Vec::new();
    }
    if k < order.len() {
        order.select_nth_unstable_by(k - 1, better);
        order.truncate(k);
    }
    order.sort_unstable_by(better);
    order
}

struct SelectRows {
    index: Vec<u32>,
}

/// Rows, and elements in each.
fn rows_of(dims: &[usize]) -> Result<(usize, usize)> {
    match dims {
        [rows, rest @ ..] => Ok((*rows, rest.iter().product())),
        [] => candle_core::bail!("select_rows needs at least one dimension"),
    }
}

impl CustomOp1 for SelectRows {
    fn name(&self) -> &'static str {
        "select_rows"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, size) = rows_of(layout.dims())?;
        let x = contiguous(storage, layout, self.name())?;
        let mut y = Vec::with_capacity(self.index.len() * size);
        for &row in &self.index {
            y.extend_from_slice(&x[row as usize * size..(row as usize + 1) * size]);
        }
        let mut dims = layout.dims().to_vec();
        dims[0] = self.index.len();
        Ok((CpuStorage::F32(y), Shape::from(dims)))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad_res: &Tensor) -> Result<Option<Tensor>> {
        let (_, size) = rows_of(arg.dims())?;
        let gradient = with_values(grad_res, self.name(), |g| {
            let mut gx = vec![0.0f32; arg.elem_count()];
            for (k, &row) in self.index.iter().enumerate() {
                let (start, from) = (row as usize * size, k * size);
                for (gx, &g) in gx[start..start + size].iter_mut().zip(&g[from..from + size]) {
                    *gx += g;
                }
            }
            Ok(gx)
        })?;
        Ok(Some(Tensor::from_vec(gradient, arg.shape(), arg.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn repeated_rows_add_their_gradients() -> Result<()> {
        let device = &Device::Cpu;
        let x = Var::from_slice(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], (3, 2), device)?;
        let y = select_rows(x.as_tensor(), &[2, 0, 2])?;
        assert_eq!(y.to_vec2::<f32>()?, [[5.0, 6.0], [1.0, 2.0], [5.0, 6.0]]);
        let weights = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], (3, 2), device)?;
        let gradients = y.mul(&weights)?.sum_all()?.backward()?;
        let g = gradients.get(x.as_tensor()).expect("a gradient");
        assert_eq!(g.to_vec2::<f32>()?, [[3.0, 4.0], [0.0, 0.0], [6.0, 8.0]]);
        assert_eq!(select_rows(x.as_tensor(), &[])?.dims(), [0, 2]);
        assert!(select_rows(x.as_tensor(), &[3]).is_err());
        Ok(())
    }

    #[test]
    fn top_k_is_stable_with_nan_last() {
        let values = [0.5, f32::NAN, 2.0, 0.5, -1.0, 2.0, f32::NEG_INFINITY];
        assert_eq!(top_k(&values, 3), [2, 5, 0]);
        assert_eq!(top_k(&values, 99), [2, 5, 0, 3, 4, 6, 1]);
        assert!(top_k(&values, 0).is_empty());
        assert!(top_k(&[], 4).is_empty());
        assert_eq!(top_k(&[0.0, -0.0, 0.0], 2), [0, 1]);
    }
}
