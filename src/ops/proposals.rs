//! A region proposal network's answers made into proposals: best of each level, decode, clip, suppress level by level,
//! best of the image. From a CUDA device only the proposals come to main memory, in one copy, or nothing.

use super::cuda::proposals as kernels;
pub use super::cuda::proposals::Proposed;
use super::gather::top_k;
use super::select::{fetch, fetch_rows};
use crate::geometry::BBox;
use crate::geometry::coder::BoxCoder;
use crate::geometry::nms::class_nms;
use candle_core::{Result, Tensor};
use std::ops::Range;

/// How proposals are chosen.
#[derive(Clone, Copy, Debug)]
pub struct ProposalRule<'a> {
    /// The anchors of each level, one run behind the other.
    pub runs: &'a [Range<usize>],
    /// Best of each level, before suppression.
    pub per_run: usize,
    /// Of the image, after it.
    pub total: usize,
    /// Least length of the shorter side, pixels.
    pub min_size: f32,
    /// IoU above which the worse of two boxes of one level goes.
    pub nms: f32,
}

/// A box that may hold an object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Proposal {
    /// Input pixels, clipped to the picture.
    pub bbox: BBox,
    pub logit: f32,
    pub anchor: u32,
}

/// Proposals of each image, best first, the lower anchor among equals, from objectness `logits` `[N, A]` and box `codes`
/// `[N, A, 4]` ([`BoxCoder::RETINA`]). `sizes` are the pictures' heights and widths within the input. An anchor whose
/// answer is not a number proposes nothing.
///
/// # Errors
/// Answers that are not one for each anchor and image, or runs that leave the anchors.
pub fn propose(
    (logits, codes): (&Tensor, &Tensor),
    anchors: &[BBox],
    sizes: &[(f32, f32)],
    rule: &ProposalRule<'_>,
) -> Result<Vec<Vec<Proposal>>> {
    let (logits, codes) = (logits.detach(), codes.detach());
    if !logits.device().is_cpu() {
        let corners: &[f32] = bytemuck::cast_slice(anchors);
        let anchors = Tensor::from_slice(corners, (anchors.len(), 4), logits.device())?;
        let sides: Vec<f32> = sizes.iter().flat_map(|&(height, width)| [height, width]).collect();
        let sizes = Tensor::from_vec(sides, (sizes.len(), 2), logits.device())?;
        return proposed((&logits, &codes), &anchors, &sizes, rule)?.read();
    }
    check((&logits, &codes), (sizes.len(), anchors.len()), rule)?;
    let of_image = |(image, &size)| of_image((&logits.get(image)?, &codes.get(image)?), anchors, size, rule);
    sizes.iter().enumerate().map(of_image).collect()
}

/// [`propose`] on a CUDA device, with `anchors` `[A, 4]` and `sizes` `[N, 2]`: nothing comes to main memory.
///
/// # Errors
/// As [`propose`], or a device that is not CUDA.
pub fn proposed(
    (logits, codes): (&Tensor, &Tensor),
    anchors: &Tensor,
    sizes: &Tensor,
    rule: &ProposalRule<'_>,
) -> Result<Proposed> {
    let (count, images) = (anchors.dim(0)?, sizes.dim(0)?);
    if anchors.dims() != [count, 4] || sizes.dims() != [images, 2] {
        candle_core::bail!("anchors {:?} in pictures {:?}", anchors.dims(), sizes.dims());
    }
    check((logits, codes), (images, count), rule)?;
    kernels::proposed([&logits.detach(), &codes.detach(), anchors, sizes], rule)
}

fn check((logits, codes): (&Tensor, &Tensor), (images, count): (usize, usize), rule: &ProposalRule<'_>) -> Result<()> {
    let outside = rule.runs.iter().any(|run| run.start > run.end || run.end > count);
    if outside || logits.dims() != [images, count] || codes.dims() != [images, count, 4] {
        candle_core::bail!(
            "{count} anchors and {images} images for answers of shape {:?} and {:?}",
            logits.dims(),
            codes.dims()
        );
    }
    Ok(())
}

fn of_image(
    (logits, codes): (&Tensor, &Tensor),
    anchors: &[BBox],
    (height, width): (f32, f32),
    rule: &ProposalRule<'_>,
) -> Result<Vec<Proposal>> {
    let logits = fetch(logits)?;
    let mut chosen: Vec<(u32, u32, f32)> = Vec::new();
    for (run, level) in rule.runs.iter().zip(0..) {
        let best = top_k(&logits[run.clone()], rule.per_run).into_iter().map(|place| run.start + place as usize);
        chosen.extend(best.map(|anchor| (level, anchor as u32, logits[anchor])));
    }
    let rows: Vec<u32> = chosen.iter().map(|&(_, anchor, _)| anchor).collect();
    let codes = fetch_rows(codes, &rows)?;
    let (mut candidates, mut levels) = (Vec::new(), Vec::new());
    for ((level, anchor, logit), c) in chosen.into_iter().zip(codes.chunks_exact(4)) {
        let decoded = BoxCoder::RETINA.decode(anchors[anchor as usize], [c[0], c[1], c[2], c[3]]);
        let bbox = decoded.clip(width, height);
        if bbox.is_proper() && bbox.width().min(bbox.height()) >= rule.min_size && !logit.is_nan() {
            // −0 is 0, as for the choice of the best.
            candidates.push(Proposal { bbox, logit: logit + 0.0, anchor });
            levels.push(level);
        }
    }
    let boxes: Vec<BBox> = candidates.iter().map(|candidate| candidate.bbox).collect();
    // Large logits differ where their probabilities do not.
    let logits: Vec<f32> = candidates.iter().map(|candidate| candidate.logit).collect();
    let kept = class_nms(&boxes, &logits, &levels, rule.nms, None);
    Ok(kept.into_iter().take(rule.total).map(|index| candidates[index as usize]).collect())
}
