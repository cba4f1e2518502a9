//! The balanced sampler.

use super::select::{KEYS, bounds, counters};
use super::{Arg, floats, indices, launch, with_operands, wrap};
use crate::ops::sampling::{Draw, Share};
use crate::random::mix;
use candle_core::{CudaStorage, Layout, Result, Shape, Tensor};

/// Two words that follow from the last `own` numbers of each image of `x` `[N, P]`.
pub(in crate::ops) fn digest(x: &Tensor, own: usize) -> Result<CudaStorage> {
    let (images, per_image) = x.dims2()?;
    with_operands([x], |device, [x]| {
        let mut words = counters(device, 2)?;
        let sizes = [per_image, own];
        launch(device, "digest", images * own, &mut [Arg::In(x), Arg::Ints(&sizes), Arg::Out(&mut words)])?;
        Ok(words)
    })
}

/// [`crate::ops::sampling::drawn`]: what the drawn rows learn, −2 elsewhere, and how many of each image there are, i32.
pub(in crate::ops) fn drawn(targets: &Tensor, images: usize, share: Share, draw: &Draw<'_>) -> Result<[Tensor; 2]> {
    let rows = targets.elem_count();
    let per_image = rows / images;
    // Two numbers of 31 bits.
    let salt = mix(draw.salt);
    let salts = [(salt >> 33) as usize, (salt as u32 >> 1) as usize];
    with_operands([targets], |device, [targets]| {
        let (mut keys, mut counts) = (floats(device, 2 * rows)?, counters(device, images)?);
        launch(
            device,
            "sample_keys",
            rows,
            &mut [
                Arg::All(targets.0),
                Arg::All(&draw.key.words),
                Arg::Ints(&salts),
                Arg::Ints(&[per_image]),
                Arg::Out(&mut keys),
                Arg::Out(&mut counts),
            ],
        )?;
        let mut wanted = indices(device, 6 * images)?;
        let most = [share.most.min(per_image), share.most_positive().min(per_image)];
        launch(device, "sample_sizes", images, &mut [Arg::All(&counts), Arg::Ints(&most), Arg::Out(&mut wanted)])?;
        let runs: Vec<[usize; 4]> = (0..2 * images).map(|run| [run * per_image, per_image, 0, 0]).collect();
        let layout = Layout::contiguous(2 * rows);
        let found = bounds(device, (&keys, &layout), &runs, KEYS, &wanted)?;
        let (mut learnt, mut sizes) = (indices(device, rows)?, counters(device, images)?);
        launch(
            device,
            "draw",
            rows,
            &mut [
                Arg::All(&keys),
                Arg::All(targets.0),
                Arg::All(&wanted),
                Arg::All(&found.bounds),
                Arg::Ints(&[per_image]),
                Arg::Out(&mut learnt),
                Arg::Out(&mut sizes),
            ],
        )?;
        Ok([wrap(learnt, Shape::from(rows)), wrap(sizes, Shape::from(images))])
    })
}
