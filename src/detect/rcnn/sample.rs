//! Which anchors and RoIs an iteration learns from: RoIs are candidates and objects, matched by IoU and sampled. On a
//! CUDA device all of this stays there.

use super::config::{Flow, RcnnConfig};
use super::proposals::{Proposals, Proposed};
use super::refine::NO_PARENT;
use crate::geometry::matching::{Force, match_anchors};
use crate::geometry::sampling::sample_balanced;
use crate::geometry::{BBox, Object, labelled};
use crate::ops::matching::Objects;
use crate::ops::rois::{self, Masks, Rois};
use crate::ops::sampling::{Draw, Key, Share};
use crate::random::{Random, mix};
use candle_core::{Result, Tensor};
use std::rc::Rc;

/// How an iteration draws its samples.
pub(super) enum Sampler {
    Cpu(Random),
    Cuda(Rc<OnDevice>),
}

/// The objects of a batch on a CUDA device, and what the samples follow from.
pub(super) struct OnDevice {
    pub(super) objects: Objects,
    pub(super) masks: Masks,
    key: Key,
    seed: u64,
}

impl OnDevice {
    /// `logits` `[N, anchors]` are the RPN's; the samples follow from them, the objects and `seed`.
    pub(super) fn new(config: &RcnnConfig, logits: &Tensor, objects: &[Vec<Object>], seed: u64) -> Result<Self> {
        let masks = objects.iter().flatten().map(|o| o.mask.as_ref().filter(|_| config.mask.is_some()));
        let seed = sides(objects).fold(seed, |seed, side| mix(seed ^ u64::from(side.to_bits())));
        Ok(Self {
            objects: Objects::new(logits, &labelled(objects))?,
            masks: Masks::new(logits, masks)?,
            key: Key::new(logits)?,
            seed,
        })
    }

    /// A generator for what is not drawn on the device.
    pub(super) fn generator(&self) -> Result<Random> {
        Ok(Random::keyed(self.seed, &[self.key.read()?]))
    }

    /// The draw of this number within the iteration: 0 of the RPN, then those of the stages.
    pub(super) fn draw(&self, number: u64) -> Draw<'_> {
        Draw { key: &self.key, salt: mix(self.seed ^ mix(number)) }
    }
}

/// The sides of all objects.
pub(super) fn sides(objects: &[Vec<Object>]) -> impl Iterator<Item = f32> {
    objects.iter().flatten().flat_map(|o| [o.bbox.x0, o.bbox.y0, o.bbox.x1, o.bbox.y1])
}

/// Boxes of a batch that a stage may learn from.
pub(super) enum Pool {
    Cpu(Vec<Candidates>),
    Cuda(rois::Candidates),
}

impl Pool {
    /// The proposals as they are, from wherever they lie.
    pub(super) fn new(config: &RcnnConfig, proposed: &Proposed, sampler: &Sampler, like: &Tensor) -> Result<Self> {
        let Sampler::Cuda(there) = sampler else {
            return Ok(Self::Cpu(proposed.read()?.iter().map(Candidates::new).collect()));
        };
        let candidates = |all| rois::Candidates::proposed(all, &there.objects, joins(config, 0));
        Ok(Self::Cuda(match proposed {
            Proposed::Cuda(all) => candidates(all)?,
            Proposed::Cpu(all) => {
                let boxes: Vec<Vec<BBox>> = all.iter().map(|own| own.boxes.clone()).collect();
                candidates(&crate::ops::proposals::Proposed::given(like, &boxes)?)?
            }
        }))
    }
}

/// The RoIs of a batch that a stage learns from.
pub(super) struct Sample {
    /// Of each image; on a CUDA device empty unless the pass is probed.
    pub(super) images: Vec<Sampled>,
    pub(super) there: Option<(Rois, Rc<OnDevice>)>,
}

impl Sample {
    pub(super) fn is_empty(&self) -> bool {
        match &self.there {
            Some((rois, _)) => rois.count() == 0,
            None => self.images.iter().all(|own| own.boxes.is_empty()),
        }
    }
}

/// RoIs for `stage`: of each image `objects`, positive from the stage's IoU on, background below.
pub(super) fn sample(
    config: &RcnnConfig,
    stage: usize,
    pool: &Pool,
    objects: &[Vec<Object>],
    sampler: &mut Sampler,
    probed: bool,
) -> Result<Sample> {
    let there = match (pool, sampler) {
        (Pool::Cpu(all), Sampler::Cpu(rng)) => {
            let of_image = |(own, objects): (&Candidates, &Vec<Object>)| of_image(config, stage, own, objects, rng);
            return Ok(Sample { images: all.iter().zip(objects).map(of_image).collect(), there: None });
        }
        (Pool::Cuda(all), Sampler::Cuda(there)) => {
            let (most, positive) = limits(config, stage);
            let (lists, draw) = ((&there.objects, &there.masks), there.draw(1 + stage as u64));
            let (iou, levels) = (config.stage(stage).positive_iou, config.levels_of_rois());
            (all.sample(lists, iou, Share { most, positive }, &draw, &levels)?, there.clone())
        }
        _ => candle_core::bail!("candidates and samples lie on different devices"),
    };
    let images = if probed { there.0.read(&there.1.objects)? } else { Vec::new() };
    let images = images.into_iter().map(Sampled::from).collect();
    Ok(Sample { images, there: Some(there) })
}

/// Whether the objects are among the candidates of `stage`.
fn joins(config: &RcnnConfig, stage: usize) -> bool {
    draws(config, stage) && config.objects_as_rois
}

/// How many RoIs of an image `stage` learns from, and the share that may be positive.
fn limits(config: &RcnnConfig, stage: usize) -> (usize, f32) {
    if draws(config, stage) { (config.roi_samples, config.roi_positive_share) } else { (usize::MAX, 1.0) }
}

/// Boxes that a stage may learn from, of one image.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Candidates {
    pub(super) boxes: Vec<BBox>,
    /// Index of each in the stage before.
    pub(super) parent: Vec<u32>,
}

impl Candidates {
    /// The proposals as they are.
    pub(super) fn new(proposals: &Proposals) -> Self {
        Self { boxes: proposals.boxes.clone(), parent: (0..proposals.boxes.len() as u32).collect() }
    }
}

/// RoIs of one image that enter a stage's loss, positives first.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sampled {
    pub(super) boxes: Vec<BBox>,
    /// Object index, or −1 for background.
    pub(super) target: Vec<i32>,
    /// Index in the stage before, [`NO_PARENT`] for an object.
    pub(super) parent: Vec<u32>,
    /// Whether it is an annotated object itself.
    pub(super) from_object: Vec<bool>,
}

impl From<rois::Sampled> for Sampled {
    fn from(own: rois::Sampled) -> Self {
        Self {
            from_object: own.origin.iter().map(|&origin| origin < 0).collect(),
            // −1 becomes `NO_PARENT`
            parent: own.origin.into_iter().map(|origin| origin as u32).collect(),
            target: own.target,
            boxes: own.boxes,
        }
    }
}

/// Whether `stage` draws a sample of its own; otherwise it learns from every candidate.
fn draws(config: &RcnnConfig, stage: usize) -> bool {
    stage == 0 || config.resample || config.flow == Flow::Integral
}

/// RoIs of one image for `stage`.
fn of_image(
    config: &RcnnConfig,
    stage: usize,
    candidates: &Candidates,
    objects: &[Object],
    rng: &mut Random,
) -> Sampled {
    let mut boxes = candidates.boxes.clone();
    let own: Vec<BBox> = objects.iter().map(|o| o.bbox).collect();
    if joins(config, stage) {
        boxes.extend(own.iter().filter(|bbox| bbox.is_proper()));
    }
    let threshold = config.stage(stage).positive_iou;
    let matches = match_anchors(&boxes, &own, threshold, threshold, Force::None);
    let (most, share) = limits(config, stage);
    let (positives, negatives) = sample_balanced(&matches.target, most, share, rng);
    let mut sampled = Sampled::default();
    for index in positives.into_iter().chain(negatives) {
        let index = index as usize;
        sampled.boxes.push(boxes[index]);
        sampled.target.push(matches.target[index]);
        sampled.parent.push(candidates.parent.get(index).copied().unwrap_or(NO_PARENT));
        sampled.from_object.push(index >= candidates.boxes.len());
    }
    sampled
}

/// The candidates of the next stage: the RoIs of this one at their `refined` boxes, image by image; on a CUDA device at
/// those that `on_device` makes, `[R, 4]`. Where the next stage gets the objects anew, what was an object drops out.
pub(super) fn advance(
    config: &RcnnConfig,
    stage: usize,
    sample: &Sample,
    refined: &[Vec<BBox>],
    on_device: impl FnOnce(&Rois, &OnDevice) -> Result<Tensor>,
) -> Result<Pool> {
    if let Some((rois, batch)) = &sample.there {
        let join = joins(config, stage + 1);
        return Ok(Pool::Cuda(rois::Candidates::refined(&on_device(rois, batch)?, rois, &batch.objects, join)?));
    }
    let pairs = sample.images.iter().zip(refined);
    Ok(Pool::Cpu(pairs.map(|(sampled, refined)| advance_image(config, stage, sampled, refined)).collect()))
}

fn advance_image(config: &RcnnConfig, stage: usize, sampled: &Sampled, refined: &[BBox]) -> Candidates {
    let again = joins(config, stage + 1);
    let mut next = Candidates::default();
    for (index, (&bbox, &from_object)) in refined.iter().zip(&sampled.from_object).enumerate() {
        if !(again && from_object) {
            next.boxes.push(bbox);
            next.parent.push(index as u32);
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    fn square(x: f32, side: f32) -> BBox {
        BBox::new(x, 0.0, x + side, side)
    }

    fn object(bbox: BBox) -> Object {
        Object { bbox, ..Object::default() }
    }

    fn candidates(boxes: Vec<BBox>) -> Candidates {
        Candidates { parent: (0..boxes.len() as u32).collect(), boxes }
    }

    #[test]
    fn thresholds_rise_from_stage_to_stage_and_objects_join_in() {
        let config = RcnnConfig::cascade_nano(&["a".to_string()]);
        let objects = [object(square(0.0, 10.0))];
        // IoU 0.55 and 0.65 with the object, and none
        let found =
            candidates(vec![BBox::new(0.0, 0.0, 10.0, 5.5), BBox::new(0.0, 0.0, 10.0, 6.5), square(30.0, 10.0)]);
        let mut rng = Random::new(1);
        let mut of_stage = |stage: usize| of_image(&config, stage, &found, &objects, &mut rng);
        let first = of_stage(0);
        assert_eq!((first.target.as_slice(), first.parent.as_slice()), (&[0, 0, 0, -1][..], &[0, 1, NO_PARENT, 2][..]));
        assert_eq!(first.from_object, [false, false, true, false]);
        assert_eq!(of_stage(1).target, [0, 0, -1, -1]);
        assert_eq!(of_stage(2).target, [0, -1, -1, -1]);
    }

    #[test]
    fn refined_objects_drop_out_unless_all_rois_are_kept() {
        let config = RcnnConfig::cascade_nano(&["a".to_string()]);
        let objects = [object(square(0.0, 10.0))];
        let sampled = of_image(&config, 0, &candidates(vec![square(40.0, 10.0)]), &objects, &mut Random::new(1));
        assert_eq!(sampled.from_object, [true, false]);
        let refined = [square(1.0, 10.0), square(41.0, 10.0)];
        let next = advance_image(&config, 0, &sampled, &refined);
        assert_eq!(next, Candidates { boxes: vec![refined[1]], parent: vec![1] });
        let kept = RcnnConfig { resample: false, ..config };
        let next = advance_image(&kept, 0, &sampled, &refined);
        assert_eq!(next.boxes, refined);
        let all = of_image(&kept, 1, &next, &objects, &mut Random::new(1));
        assert_eq!((all.target.as_slice(), all.parent.as_slice()), (&[0, -1][..], &[0, 1][..]));
    }

    #[test]
    fn no_object_no_candidate_and_crowds_of_objects_are_fine() {
        let config = RcnnConfig::faster_nano(&["a".to_string()]);
        assert_eq!(of_image(&config, 0, &Candidates::default(), &[], &mut Random::new(1)), Sampled::default());
        let background = of_image(&config, 0, &candidates(vec![square(0.0, 9.0)]), &[], &mut Random::new(1));
        assert_eq!(background.target, [-1]);
        // flat objects never become RoIs
        let flat = [object(BBox::new(3.0, 3.0, 3.0, 9.0))];
        assert_eq!(of_image(&config, 0, &Candidates::default(), &flat, &mut Random::new(1)), Sampled::default());
        let many: Vec<Object> = (0..2000).map(|i| object(square(i as f32 * 4.0, 3.0))).collect();
        let drawn =
            |seed: u64| of_image(&config, 0, &candidates(vec![square(5e4, 9.0); 500]), &many, &mut Random::new(seed));
        // 64 of which a quarter positive
        assert_eq!(drawn(1).target.iter().filter(|&&t| t >= 0).count(), 16);
        assert_eq!((drawn(1).boxes.len(), drawn(1) == drawn(1), drawn(1) == drawn(2)), (64, true, false));
    }
}
