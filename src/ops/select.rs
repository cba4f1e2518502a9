//! Choosing among a network's answers: what lies above a bound, the hardest negatives. On a CUDA device only what was chosen comes to main memory.

use super::cuda;
use super::gather::select_rows;
use super::storage::with_values;
use crate::geometry::mining;
use candle_core::{CpuStorage, CudaStorage, InplaceOp1, Layout, Result, Tensor};
use rayon::prelude::*;

/// All elements in row-major order. A view on a CUDA device comes without the rest of what it looks into.
///
/// # Errors
/// A tensor that is not f32.
pub fn fetch(x: &Tensor) -> Result<Vec<f32>> {
    if x.device().is_cpu() {
        return with_values(x, "fetch", |values| Ok(values.to_vec()));
    }
    if x.elem_count() == 0 {
        return Ok(Vec::new());
    }
    x.detach().force_contiguous()?.flatten_all()?.to_vec1()
}

/// The elements of the rows `index` of `x` `[N, …]`, row after row.
///
/// # Errors
/// A scalar, a tensor that is not f32, or an index of `N` or more.
pub fn fetch_rows(x: &Tensor, index: &[u32]) -> Result<Vec<f32>> {
    fetch(&select_rows(&x.detach(), index)?)
}

/// Places (row-major) and values of the elements of `x` `[rows, columns]` that are above `bound` and in a column from
/// `first` on, in order.
///
/// # Errors
/// Another number of dimensions, or a tensor that is not f32.
pub fn above(x: &Tensor, bound: f32, first: usize) -> Result<Vec<(usize, f32)>> {
    let (_, columns) = x.dims2()?;
    if !x.device().is_cpu() {
        return cuda::select::above(x, columns, bound, first);
    }
    let mut found = with_values(x, "above", |values| Ok(scan(values, bound)))?;
    found.retain(|(place, _)| place % columns >= first);
    Ok(found)
}

/// Places and values above `bound`, in order. Few are, so blocks without one are passed over at once.
fn scan(values: &[f32], bound: f32) -> Vec<(usize, f32)> {
    /// Values that one task looks through, and those looked at together.
    const SHARE: usize = 1 << 16;
    const BLOCK: usize = 64;
    let look_through = |(share, values): (usize, &[f32])| {
        let mut found = Vec::new();
        for (block, values) in values.chunks(BLOCK).enumerate() {
            if values.iter().fold(false, |any, &value| any | (value > bound)) {
                let first = share * SHARE + block * BLOCK;
                found.extend((first..).zip(values).filter(|(_, v)| **v > bound).map(|(place, v)| (place, *v)));
            }
        }
        found
    };
    let found: Vec<Vec<(usize, f32)>> = values.par_chunks(SHARE).enumerate().map(look_through).collect();
    found.concat()
}

/// [`cuda::select::best`], where nothing is wanted of some runs.
fn best_of(x: &Tensor, runs: &[[usize; 3]]) -> Result<Vec<Vec<(usize, f32)>>> {
    let asked: Vec<[usize; 3]> = runs.iter().copied().filter(|run| run[2] > 0).collect();
    let found = if asked.is_empty() { Vec::new() } else { cuda::select::best(x, &asked)? };
    let mut found = found.into_iter();
    Ok(runs.iter().map(|run| if run[2] > 0 { found.next().unwrap_or_default() } else { Vec::new() }).collect())
}

/// Of each of `images` the anchors that [`mining::hard_negatives`] takes, from the losses of all anchors, image by
/// image, and which of these are positive. One that is not `eligible` is never taken.
///
/// # Errors
/// Losses that are not as many as `positive` or that `images` do not share evenly, or a tensor that is not f32.
pub fn hard_negatives(
    loss: &Tensor,
    images: usize,
    positive: &[bool],
    eligible: impl Fn(usize) -> bool,
    ratio: f32,
    cap: Option<usize>,
) -> Result<Vec<Vec<u32>>> {
    let count = loss.elem_count();
    let anchors = count / images.max(1);
    if positive.len() != count || images * anchors != count {
        candle_core::bail!("{count} losses of {images} images with {} anchors", positive.len());
    }
    let of_image = |image: usize| image * anchors..(image + 1) * anchors;
    if loss.device().is_cpu() {
        return with_values(loss, "hard_negatives", |loss| {
            let mine = |image: usize| -> Vec<u32> {
                let hardness = |row: usize| if eligible(row) { loss[row] } else { f32::NEG_INFINITY };
                let hardness: Vec<f32> = of_image(image).map(hardness).collect();
                mining::hard_negatives(&hardness, &positive[of_image(image)], ratio, cap)
            };
            Ok((0..images).map(mine).collect())
        });
    }
    let hardness = loss.detach().force_contiguous()?;
    let excluded: Vec<u32> = (0..count).filter(|&row| positive[row] || !eligible(row)).map(|row| row as u32).collect();
    fill_rows(&hardness, &excluded, f32::NEG_INFINITY)?;
    let run = |image: usize| {
        let positives = positive[of_image(image)].iter().filter(|&&p| p).count();
        [image * anchors, anchors, mining::wanted(positives, ratio, cap).min(anchors)]
    };
    let runs: Vec<[usize; 3]> = (0..images).map(run).collect();
    let sorted = |found: Vec<(usize, f32)>| -> Vec<u32> {
        let losses: Vec<f32> = found.iter().map(|(_, loss)| *loss).collect();
        let order = mining::hardest(&losses, &vec![false; losses.len()], losses.len());
        order.into_iter().map(|index| found[index as usize].0 as u32).collect()
    };
    Ok(best_of(&hardness, &runs)?.into_iter().map(sorted).collect())
}

/// Sets the rows `rows` of `x` `[N, …]` to `value`, in place.
///
/// # Errors
/// A scalar, a row of `N` or more, or a tensor that is not contiguous f32.
pub fn fill_rows(x: &Tensor, rows: &[u32], value: f32) -> Result<()> {
    let count = x.dim(0)?;
    if let Some(outside) = rows.iter().find(|&&row| row as usize >= count) {
        candle_core::bail!("fill_rows: row {outside} of a tensor of shape {:?}", x.dims());
    }
    x.inplace_op1(&FillRows { rows, width: x.elem_count() / count.max(1), value })
}

struct FillRows<'a> {
    rows: &'a [u32],
    width: usize,
    value: f32,
}

impl InplaceOp1 for FillRows<'_> {
    fn name(&self) -> &'static str {
        "fill_rows"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (CpuStorage::F32(values), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            candle_core::bail!("fill_rows needs a contiguous f32 tensor");
        };
        let values = &mut values[start..end];
        for &row in self.rows {
            values[row as usize * self.width..][..self.width].fill(self.value);
        }
        Ok(())
    }

    fn cuda_fwd(&self, storage: &mut CudaStorage, layout: &Layout) -> Result<()> {
        cuda::select::fill_rows((storage, layout), self.rows, self.width, self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Var};

    fn list(values: &[f32]) -> Result<Tensor> {
        Tensor::from_slice(values, values.len(), &Device::Cpu)
    }

    #[test]
    fn values_above_a_bound_keep_their_places() -> Result<()> {
        let mut values = vec![-5.0; 200_003];
        for (place, value) in [(0, 1.0), (63, f32::NAN), (64, 2.0), (65_536, f32::INFINITY), (200_002, -2.9)] {
            values[place] = value;
        }
        assert_eq!(scan(&values, -3.0), [(0, 1.0), (64, 2.0), (65_536, f32::INFINITY), (200_002, -2.9)]);
        assert_eq!(scan(&values, f32::NEG_INFINITY).len(), 200_002);
        assert!(scan(&[], 0.0).is_empty());
        let table = list(&[9.0, 1.0, 2.0, 9.0, 0.0, 3.0])?.reshape((2, 3))?;
        assert_eq!(above(&table, 0.5, 1)?, [(1, 1.0), (2, 2.0), (5, 3.0)]);
        Ok(())
    }

    #[test]
    fn views_are_fetched_alone_and_without_a_graph() -> Result<()> {
        let x = Var::from_tensor(&Tensor::arange(0f32, 12.0, &Device::Cpu)?.reshape((2, 3, 2))?)?;
        assert_eq!(fetch(&x.get(1)?.narrow(1, 1, 1)?)?, [7.0, 9.0, 11.0]);
        assert!(fetch(&x.narrow(0, 0, 0)?)?.is_empty());
        assert_eq!(fetch_rows(&x.get(1)?, &[2, 0, 2])?, [10.0, 11.0, 6.0, 7.0, 10.0, 11.0]);
        assert!(fetch_rows(&x.get(1)?, &[3]).is_err() && fetch_rows(&x.get(1)?, &[])?.is_empty());
        Ok(())
    }

    #[test]
    fn negatives_are_mined_image_by_image_among_the_eligible() -> Result<()> {
        let loss = list(&[0.5, 9.0, 0.7, 8.0, 4.0, 3.0, 2.0, 1.0])?;
        let mut positive = [false; 8];
        (positive[1], positive[4]) = (true, true);
        let mined = hard_negatives(&loss, 2, &positive, |row| row != 3, 2.0, None)?;
        assert_eq!(mined, [vec![2, 0], vec![1, 2]]);
        assert_eq!(hard_negatives(&loss, 2, &positive, |_| true, 2.0, Some(1))?, [vec![3], vec![1]]);
        assert!(hard_negatives(&loss, 3, &positive, |_| true, 2.0, None).is_err());
        assert!(hard_negatives(&list(&[])?, 2, &[], |_| true, 2.0, None)?.iter().all(Vec::is_empty));
        Ok(())
    }

    #[test]
    fn rows_are_filled_and_nothing_else() -> Result<()> {
        let x = Tensor::zeros((3, 2), DType::F32, &Device::Cpu)?;
        fill_rows(&x, &[2, 0], 1.5)?;
        assert_eq!(x.to_vec2::<f32>()?, [[1.5, 1.5], [0.0, 0.0], [1.5, 1.5]]);
        assert!(fill_rows(&x, &[3], 0.0).is_err() && fill_rows(&x.t()?, &[0], 0.0).is_err());
        Ok(())
    }
}
