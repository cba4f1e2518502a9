//! Overlaps of anchors with objects, of which only those that decide something leave the device.

use super::select::{counters, gathered};
use super::{Arg, floats, indices, launch, upload};
use crate::geometry::BBox;
use crate::geometry::matching::{Force, Matches};
use candle_core::{CudaDevice, CudaStorage, Result};

/// Anchors on the device.
pub(in crate::ops) struct Anchors<'a> {
    device: &'a CudaDevice,
    boxes: CudaStorage,
    count: usize,
}

impl<'a> Anchors<'a> {
    pub(in crate::ops) fn new(device: &'a CudaDevice, boxes: &[BBox]) -> Result<Self> {
        Ok(Self { device, boxes: upload::<f32>(device, bytemuck::cast_slice(boxes))?, count: boxes.len() })
    }

    /// Matches with at least one object by `force`, which is not [`Force::Bipartite`]. IoUs below both thresholds and
    /// their objects are left at 0, but for anchors that are the best of an object.
    pub(in crate::ops) fn matches(
        &self,
        objects: &[BBox],
        (positive, negative): (f32, f32),
        force: Force,
    ) -> Result<Matches> {
        let (device, count, n) = (self.device, self.count, objects.len());
        let boxes = upload::<f32>(device, bytemuck::cast_slice(objects))?;
        let starts = upload(device, &[0, n as i32])?;
        let (mut iou, mut best, mut peaks) = (floats(device, count)?, indices(device, count)?, counters(device, n)?);
        launch(
            device,
            "best_objects",
            count,
            &mut [
                Arg::All(&self.boxes),
                Arg::Ints(&[1, count]),
                Arg::All(&boxes),
                Arg::All(&starts),
                Arg::Out(&mut iou),
                Arg::Out(&mut best),
                Arg::Out(&mut peaks),
            ],
        )?;
        let close = gathered(device, 3, |room, found| {
            launch(
                device,
                "close_anchors",
                count,
                &mut [
                    Arg::All(&iou),
                    Arg::All(&best),
                    Arg::Float(positive.min(negative)),
                    Arg::Ints(&[room]),
                    Arg::Out(found),
                ],
            )
        })?;
        let mut ties = Vec::new();
        if force != Force::None {
            ties = gathered(device, 4, |room, found| {
                launch(
                    device,
                    "peak_anchors",
                    count,
                    &mut [
                        Arg::All(&self.boxes),
                        Arg::All(&boxes),
                        Arg::Ints(&[n]),
                        Arg::All(&iou),
                        Arg::All(&best),
                        Arg::All(&peaks),
                        Arg::Ints(&[room]),
                        Arg::Out(found),
                    ],
                )
            })?;
        }
        Ok(assembled(count, &close, &ties, (positive, negative), force))
    }
}

/// Matches of `count` anchors from rows of anchor, best object and bits of the IoU, and rows of object and such three.
fn assembled(count: usize, close: &[i32], ties: &[i32], (positive, negative): (f32, f32), force: Force) -> Matches {
    let mut matches = Matches {
        target: vec![-1; count],
        iou: vec![0.0; count],
        best_object: vec![0; count],
        forced: vec![false; count],
    };
    let mut pairs: Vec<(i32, usize)> = ties.chunks_exact(4).map(|tie| (tie[0], tie[1] as usize)).collect();
    for known in close.chunks_exact(3).chain(ties.chunks_exact(4).map(|tie| &tie[1..])) {
        let anchor = known[0] as usize;
        matches.best_object[anchor] = known[1];
        matches.iou[anchor] = f32::from_bits(known[2] as u32);
    }
    pairs.sort_unstable();
    if force == Force::BestAnchor {
        pairs.dedup_by_key(|pair| pair.0);
    }
    let wanted: Vec<(usize, i32)> = pairs.into_iter().map(|(object, anchor)| (anchor, object)).collect();
    matches.decide(&wanted, positive, negative, force);
    matches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::iou::iou;
    use crate::geometry::matching::match_anchors;
    use crate::random::Random;

    /// What the kernels find, in an order of their own.
    fn found(anchors: &[BBox], objects: &[BBox], bound: f32) -> (Vec<i32>, Vec<i32>) {
        let (mut close, mut ties) = (Vec::new(), Vec::new());
        let peak = |object: BBox| anchors.iter().map(|&anchor| iou(object, anchor)).fold(0.0, f32::max);
        for (index, &anchor) in anchors.iter().enumerate().rev() {
            let (mut best, mut highest) = (0, 0.0);
            for (k, &object) in objects.iter().enumerate() {
                if iou(object, anchor) > highest {
                    (best, highest) = (k as i32, iou(object, anchor));
                }
            }
            let row = [index as i32, best, highest.to_bits() as i32];
            if highest >= bound {
                close.extend(row);
            }
            for (k, &object) in objects.iter().enumerate().rev() {
                if iou(object, anchor) > 0.0 && iou(object, anchor) == peak(object) {
                    ties.push(k as i32);
                    ties.extend(row);
                }
            }
        }
        (close, ties)
    }

    #[test]
    fn what_the_kernels_find_decides_as_all_overlaps_do() {
        let mut rng = Random::new(5);
        let mut boxes = |n: usize| -> Vec<BBox> {
            let corner = |_| (rng.below(12) as f32, rng.below(12) as f32);
            (0..n).map(corner).map(|(x, y)| BBox::new(x, y, x + 4.0, y + 5.0)).collect()
        };
        let (anchors, objects) = (boxes(90), boxes(7));
        for force in [Force::None, Force::BestAnchor, Force::AllTies] {
            for (positive, negative) in [(0.5_f32, 0.5), (0.7, 0.3), (0.9, 0.8)] {
                let (close, ties) = found(&anchors, &objects, positive.min(negative));
                let ties = if force == Force::None { Vec::new() } else { ties };
                let ours = assembled(anchors.len(), &close, &ties, (positive, negative), force);
                let expected = match_anchors(&anchors, &objects, positive, negative, force);
                assert_eq!((ours.target, ours.forced), (expected.target, expected.forced), "{force:?}");
            }
        }
    }
}
