//! From the answers about anchors to proposals.

use super::select::{LARGEST, counters, read, suppressed, taken};
use super::{Arg, floats, indices, launch, upload, with_operands};
use crate::geometry::BBox;
use crate::geometry::coder::BoxCoder;
use crate::ops::proposals::{Proposal, ProposalRule};
use candle_core::{Result, Tensor};
use std::ops::Range;

/// [`crate::ops::proposals::propose`] for shapes that it has checked.
pub(in crate::ops) fn propose(
    (logits, codes): (&Tensor, &Tensor),
    anchors: &[BBox],
    sizes: &[(f32, f32)],
    rule: &ProposalRule<'_>,
) -> Result<Vec<Vec<Proposal>>> {
    let own: Vec<&Range<usize>> = rule.runs.iter().filter(|run| !run.is_empty()).collect();
    let (images, of_image) = (sizes.len(), own.len());
    let (mut runs, mut wanted, mut all) = (Vec::new(), Vec::new(), 0);
    for image in 0..images {
        for run in &own {
            let own = run.len().min(rule.per_run);
            runs.push([image * anchors.len() + run.start, run.len(), own, all]);
            wanted.extend([0, 0, own as i32]);
            all += own;
        }
    }
    let room = all / images.max(1);
    let most = rule.total.min(room);
    if room == 0 || most == 0 {
        return Ok(vec![Vec::new(); images]);
    }
    let sides: Vec<f32> = sizes.iter().flat_map(|&(height, width)| [height, width]).collect();
    let rows = with_operands([logits, codes], |device, [logits, codes]| {
        let (found, placed) = taken(device, logits, &runs, LARGEST, &upload(device, &wanted)?)?;
        let (anchors_there, sides) = (upload::<f32>(device, bytemuck::cast_slice(anchors))?, upload(device, &sides)?);
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
                Arg::All(&anchors_there),
                Arg::In(codes),
                Arg::All(&sides),
                Arg::Ints(&[anchors.len()]),
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
        let mut rows = indices(device, images * (1 + 6 * most))?;
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
        read(&rows)
    })?;
    Ok(rows.chunks_exact(1 + 6 * most).map(of_rows).collect())
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
    rows.chunks_exact(6).take(count).map(proposal).collect()
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
