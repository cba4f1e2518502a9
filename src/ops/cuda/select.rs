//! Choosing on the device, so that only what was chosen is copied to main memory.

use super::{Arg, Operand, indices, launch, upload, with_operands};
use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::{CpuStorage, CudaDevice, CudaStorage, DType, Layout, Result, Shape, Tensor, bail};

/// `len` counters at 0.
pub(super) fn counters(device: &CudaDevice, len: usize) -> Result<CudaStorage> {
    device.zeros_impl(&Shape::from(len.max(1)), DType::I32)
}

/// The numbers of a storage of i32.
pub(in crate::ops) fn read(storage: &CudaStorage) -> Result<Vec<i32>> {
    match storage.to_cpu_storage()? {
        CpuStorage::I32(values) => Ok(values),
        other => bail!("indices came back as {:?}", other.dtype()),
    }
}

/// Places and values from numbers that alternate so, by place.
fn by_place(numbers: &[i32]) -> Vec<(usize, f32)> {
    let pairs = numbers.chunks_exact(2);
    let mut pairs: Vec<(usize, f32)> = pairs.map(|pair| (pair[0] as usize, f32::from_bits(pair[1] as u32))).collect();
    pairs.sort_unstable_by_key(|pair| pair.0);
    pairs
}

/// Pairs of numbers that a kernel finds, in no order. `fill` runs it with room for so many pairs behind their number,
/// which it counts whether there is room or not.
fn gathered(device: &CudaDevice, fill: impl Fn(usize, &mut CudaStorage) -> Result<()>) -> Result<Vec<i32>> {
    // Pairs that are mostly enough; where they are not, the kernel runs again.
    let mut room = 1 << 12;
    loop {
        let mut found = counters(device, 1 + 2 * room)?;
        fill(room, &mut found)?;
        let mut found = read(&found)?;
        let all = found.first().map_or(0, |&all| all as usize);
        if all <= room {
            found.truncate(1 + 2 * all);
            return Ok(found.split_off(1));
        }
        room = all;
    }
}

/// Places and values of the elements above `bound` in columns from `first` on, by place.
pub(in crate::ops) fn above(x: &Tensor, columns: usize, bound: f32, first: usize) -> Result<Vec<(usize, f32)>> {
    with_operands([x], |device, [x]| {
        let (count, sizes) = (x.1.shape().elem_count(), [columns, first]);
        let found = gathered(device, |room, found| {
            launch(
                device,
                "above",
                count,
                &mut [Arg::In(x), Arg::Ints(&sizes), Arg::Float(bound), Arg::Ints(&[room]), Arg::Out(found)],
            )
        })?;
        Ok(by_place(&found))
    })
}

/// The bytes that ranks in runs of up to `longest` elements differ in: four of the value, and those of the place.
fn digits(longest: usize) -> impl Iterator<Item = usize> {
    (0..8).filter(move |&digit| digit < 4 || longest > 1 << (8 * (7 - digit)))
}

/// Runs and, for each, the rank of the last of the elements that are wanted of it.
pub(super) struct Bounds {
    runs: CudaStorage,
    pub(super) bounds: CudaStorage,
}

/// The order of a top-k, as `select.cu` numbers it: zeros are equal, NaN comes last.
pub(super) const LARGEST: usize = 0;

/// The order of hard negatives: NaN comes first.
pub(super) const HARDEST: usize = 1;

/// The order of random keys: by their bits. No two are the same but for those of rows that nobody wants.
pub(super) const KEYS: usize = 2;

/// The bounds of runs of `x`, by radix selection. A run is its start, its length, how many there is
/// room for and where in [`taken`]; `wanted` are two zeros and how many are wanted, for each run.
pub(super) fn bounds(
    device: &CudaDevice,
    x: Operand<'_>,
    runs: &[[usize; 4]],
    order: usize,
    wanted: &CudaStorage,
) -> Result<Bounds> {
    /// Sets of counters that threads share out among themselves.
    const COPIES: usize = 8;
    // Keys alone decide, whatever the place.
    let longest = if order == KEYS { 1 } else { runs.iter().map(|run| run[1]).max().unwrap_or(0) };
    let n = runs.len();
    let table: Vec<i32> = runs.iter().flatten().map(|&value| value as i32).collect();
    let (count, runs) = (x.1.shape().elem_count(), upload(device, &table)?);
    let mut bounds = None;
    for digit in digits(longest) {
        let (mut counts, mut next) = (counters(device, COPIES * n * 256)?, indices(device, 3 * n)?);
        let known = bounds.as_ref().unwrap_or(wanted);
        launch(
            device,
            "count_digits",
            count,
            &mut [
                Arg::In(x),
                Arg::All(&runs),
                Arg::Ints(&[n, order, digit, COPIES]),
                Arg::All(known),
                Arg::Out(&mut counts),
            ],
        )?;
        launch(
            device,
            "choose_digit",
            256 * n,
            &mut [Arg::All(&counts), Arg::Ints(&[n, digit, COPIES]), Arg::All(known), Arg::Out(&mut next)],
        )?;
        bounds = Some(next);
    }
    // There are always the four digits of the value.
    let bounds = bounds.map_or_else(|| counters(device, 3 * n), Ok)?;
    Ok(Bounds { runs, bounds })
}

/// The best elements of runs as [`bounds`] knows them: for each run how many there are, and then from where the run
/// says on place (in the run) and bits of each, in no order. And the runs' table.
pub(super) fn taken(
    device: &CudaDevice,
    x: Operand<'_>,
    runs: &[[usize; 4]],
    order: usize,
    wanted: &CudaStorage,
) -> Result<(CudaStorage, CudaStorage)> {
    let (n, total) = (runs.len(), runs.iter().map(|run| run[2]).sum::<usize>());
    let Bounds { runs, bounds } = bounds(device, x, runs, order, wanted)?;
    let mut found = counters(device, n + 2 * total)?;
    launch(
        device,
        "take_best",
        x.1.shape().elem_count(),
        &mut [Arg::In(x), Arg::All(&runs), Arg::Ints(&[n, order]), Arg::All(&bounds), Arg::Out(&mut found)],
    )?;
    Ok((found, runs))
}

/// Places (in their run) and values of the hardest negatives of runs of losses `x`, by place. A run is its start, its
/// length and how many are wanted, at least one and at most all.
pub(in crate::ops) fn best(x: &Tensor, runs: &[[usize; 3]]) -> Result<Vec<Vec<(usize, f32)>>> {
    let (mut table, mut wanted, mut total) = (Vec::with_capacity(runs.len()), Vec::with_capacity(3 * runs.len()), 0);
    for &[start, length, own] in runs {
        table.push([start, length, own, total]);
        wanted.extend([0, 0, own as i32]);
        total += own;
    }
    with_operands([x], |device, [x]| {
        let (found, _) = taken(device, x, &table, HARDEST, &upload(device, &wanted)?)?;
        let (found, mut at) = (read(&found)?, runs.len());
        let of_run = |&[_, _, wanted]: &[usize; 3]| {
            let start = at;
            at += 2 * wanted;
            by_place(found.get(start..at).unwrap_or_default())
        };
        Ok(runs.iter().map(of_run).collect())
    })
}

/// Sets the rows, `width` elements each, of a contiguous tensor to `value`.
pub(in crate::ops) fn fill_rows(
    (storage, layout): (&mut CudaStorage, &Layout),
    rows: &[u32],
    width: usize,
    value: f32,
) -> Result<()> {
    let device = storage.device().clone();
    let table: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
    let table = upload(&device, &table)?;
    launch(
        &device,
        "fill_rows",
        rows.len() * width,
        &mut [Arg::All(&table), Arg::Ints(&[width]), Arg::Float(value), Arg::Change(storage, layout)],
    )
}

/// Greedy suppression within each class of boxes, best first, of which there are `counts` of each image and room for
/// `room`. For each image how many are kept, at most `most`, and their places in order.
pub(super) fn suppressed(
    device: &CudaDevice,
    (boxes, classes, counts): (&CudaStorage, &CudaStorage, &CudaStorage),
    (images, room): (usize, usize),
    threshold: f32,
    most: usize,
) -> Result<CudaStorage> {
    /// Rounds in which all boxes look at their betters side by side; who is open after them is settled one by one.
    const ROUNDS: usize = 16;
    let (all, words) = (images * room, room.div_ceil(32));
    let (mut mask, mut states) = (indices(device, all * words)?, counters(device, all)?);
    launch(
        device,
        "overlaps",
        all * words,
        &mut [
            Arg::All(boxes),
            Arg::All(classes),
            Arg::All(counts),
            Arg::Ints(&[room, words]),
            Arg::Float(threshold),
            Arg::Out(&mut mask),
        ],
    )?;
    for _ in 0..ROUNDS {
        launch(
            device,
            "settle",
            all,
            &mut [Arg::All(&mask), Arg::All(counts), Arg::Ints(&[room, words]), Arg::Out(&mut states)],
        )?;
    }
    let mut kept = indices(device, images * (1 + most))?;
    launch(
        device,
        "list_kept",
        images,
        &mut [
            Arg::All(&mask),
            Arg::All(counts),
            Arg::Ints(&[room, words, most]),
            Arg::Out(&mut states),
            Arg::Out(&mut kept),
        ],
    )?;
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_place_are_those_that_a_run_needs() {
        let of = |longest: usize| digits(longest).collect::<Vec<usize>>();
        assert_eq!(of(1), [0, 1, 2, 3]);
        assert_eq!(of(256), [0, 1, 2, 3, 7]);
        assert_eq!(of(257), [0, 1, 2, 3, 6, 7]);
        assert_eq!(of((1 << 24) + 1), [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn pairs_come_by_place() {
        let half = 0.5f32.to_bits() as i32;
        assert_eq!(by_place(&[9, 0, 2, half]), [(2, 0.5), (9, 0.0)]);
        assert!(by_place(&[]).is_empty());
    }
}
