//! From the answers about anchors to proposals.

use super::select::{LARGEST, counters, read, suppressed, taken};
use super::{Arg, floats, indices, launch, upload, with_operands};
use crate::geometry::BBox;
use crate::geometry::coder::BoxCoder;
use crate::ops::proposals::{Proposal, ProposalRule};
use candle_core::{CudaStorage, Result, Tensor};
use std::ops::Range;

/// Proposals that are on a CUDA device.
pub struct Proposed {
    pub(super) images: usize,
    /// Room for so many of each image.
    pub(super) most: usize,
    /// Of each image a number of proposals, and as many rows of corners and rank, as `take_kept` writes them.
    pub(super) rows: CudaStorage,
}

/// Numbers of the row of a proposal.
const COLUMNS: usize = 6;

impl Proposed {
    /// The boxes of each image, on the device of `like`; they have neither logit nor anchor.
    ///
    /// # Errors
    /// A device that is not CUDA.
    pub fn given(like: &Tensor, boxes: &[Vec<BBox>]) -> Result<Self> {
        let most = boxes.iter().map(Vec::len).max().unwrap_or(0);
        let mut rows = vec![0; boxes.len() * (1 + COLUMNS * most)];
        for (rows, boxes) in rows.chunks_exact_mut(1 + COLUMNS * most).zip(boxes) {
            rows[0] = boxes.len() as i32;
            for (row, b) in rows[1..].chunks_exact_mut(COLUMNS).zip(boxes) {
                row[..4].copy_from_slice(&[b.x0, b.y0, b.x1, b.y1].map(|side| side.to_bits() as i32));
            }
        }
        let rows = with_operands([like], |device, _| upload(device, &rows))?;
        Ok(Self { images: boxes.len(), most, rows })
    }

    /// The proposals of each image.
    ///
    /// # Errors
    /// Those of the device.
    pub fn read(&self) -> Result<Vec<Vec<Proposal>>> {
        Ok(read(&self.rows)?.chunks_exact(1 + COLUMNS * self.most).take(self.images).map(of_rows).collect())
    }
}

/// [`crate::ops::proposals::proposed`] for shapes that it has checked.
pub(in crate::ops) fn proposed(
    [logits, codes, anchors, sizes]: [&Tensor; 4],
    rule: &ProposalRule<'_>,
) -> Result<Proposed> {
    let anchors_of_image = anchors.dim(0)?;
    let own: Vec<&Range<usize>> = rule.runs.iter().filter(|run| !run.is_empty()).collect();
    let (images, of_image) = (sizes.dim(0)?, own.len());
    let (mut runs, mut wanted, mut all) = (Vec::new(), Vec::new(), 0);
    for image in 0..images {
        for run in &own {
            let own = run.len().min(rule.per_run);
            runs.push([image * anchors_of_image + run.start, run.len(), own, all]);
            wanted.extend([0, 0, own as i32]);
            all += own;
        }
    }
    let room = all / images.max(1);
    let most = rule.total.min(room);
    if room == 0 || most == 0 {
        return Proposed::given(logits, &vec![Vec::new(); images]);
    }
    with_operands([logits, codes, anchors, sizes], |device, [logits, codes, anchors, sizes]| {
        let (found, placed) = taken(device, logits, &runs, LARGEST, &upload(device, &wanted)?)?;
        let (mut boxes, mut levels) = (floats(device, 4 * all)?, indices(device, all)?);
        let (mut ranks, mut counts) = (indices(device, 2 * all)?, counters(device, images)?);
        launch(
            device,
            "candidates",
            all,
            &mut [
                Arg::All(&found),
                Arg::All(&placed),
                Arg::Ints(&[images, of_image, room]),
                Arg::In(anchors),
                Arg::In(codes),
                Arg::In(sizes),
                Arg::Ints(&[anchors_of_image]),
                Arg::Float(BoxCoder::RETINA.max_log.unwrap_or(f32::INFINITY)),
                Arg::Float(rule.min_size),
                Arg::Out(&mut boxes),
                Arg::Out(&mut levels),
                Arg::Out(&mut ranks),
                Arg::Out(&mut counts),
            ],
        )?;
        let (mut sorted_boxes, mut sorted_levels) = (floats(device, 4 * all)?, indices(device, all)?);
        let mut sorted_ranks = indices(device, 2 * all)?;
        launch(
            device,
            "sort_candidates",
            all,
            &mut [
                Arg::All(&boxes),
                Arg::All(&levels),
                Arg::All(&ranks),
                Arg::Ints(&[room]),
                Arg::Out(&mut sorted_boxes),
                Arg::Out(&mut sorted_levels),
                Arg::Out(&mut sorted_ranks),
            ],
        )?;
        let kept = suppressed(device, (&sorted_boxes, &sorted_levels, &counts), (images, room), rule.nms, most)?;
        let mut rows = indices(device, images * (1 + COLUMNS * most))?;
        launch(
            device,
            "take_kept",
            images * most,
            &mut [
                Arg::All(&kept),
                Arg::All(&sorted_boxes),
                Arg::All(&sorted_ranks),
                Arg::Ints(&[room, most]),
                Arg::Out(&mut rows),
            ],
        )?;
        Ok(Proposed { images, most, rows })
    })
}

/// A number of proposals, and as many rows of corners and rank.
fn of_rows(rows: &[i32]) -> Vec<Proposal> {
    let (count, rows) = rows.split_first().map_or((0, rows), |(&count, rows)| (count as usize, rows));
    let proposal = |row: &[i32]| {
        let side = |k: usize| f32::from_bits(row[k] as u32);
        let key = row[4] as u32;
        // the way back from `rank_of` in select.cu
        let bits = if key >> 31 == 0 { !key & 0x7fff_ffff } else { key };
        Proposal {
            bbox: BBox::new(side(0), side(1), side(2), side(3)),
            logit: f32::from_bits(bits),
            anchor: row[5] as u32,
        }
    };
    rows.chunks_exact(COLUMNS).take(count).map(proposal).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_hold_the_logit() {
        for logit in [0.0f32, 1.5, -2.25, 1e-30, -1e30] {
            let bits = logit.to_bits();
            let key = if bits >> 31 == 1 { bits } else { !(bits | 0x8000_0000) };
            let found =
                of_rows(&[1, 0, 0, 1f32.to_bits() as i32, 2f32.to_bits() as i32, key as i32, 7, 9, 9, 9, 9, 9, 9]);
            assert_eq!(found, [Proposal { bbox: BBox::new(0.0, 0.0, 1.0, 2.0), logit, anchor: 7 }]);
        }
    }
}
