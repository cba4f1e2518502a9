//! One image matched at every size range and IoU threshold at once: two bits a detection and cell.
//!
//! The rule is that of pycocotools' `COCOeval.evaluateImg`. Overlaps are computed once for all cells (a cell is one size
//! range with one threshold), detections too far from every object are passed over, and what is kept of an image no
//! longer depends on its boxes, so that a large data set can be matched as its detections come.

use super::coco::{CocoSettings, IouType};
use super::ranking::by_score_falling;
use super::regions::{ImageBoxes, ResultBox, TruthBox, overlap};
use crate::geometry::{BBox, Mask};

/// Size ranges by thresholds. Cell `range · thresholds + threshold` has one bit in words of 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cells {
    pub areas: usize,
    pub thresholds: usize,
}

impl Cells {
    pub fn of(settings: &CocoSettings) -> Self {
        Self { areas: settings.areas.len(), thresholds: settings.thresholds.len() }
    }

    pub fn count(self) -> usize {
        self.areas * self.thresholds
    }

    /// Words that the bits of one detection take.
    pub fn words(self) -> usize {
        self.count().div_ceil(64)
    }

    /// Word and bit of a cell.
    fn place(self, area: usize, threshold: usize) -> (usize, u64) {
        let cell = area * self.thresholds + threshold;
        (cell / 64, 1 << (cell % 64))
    }
}

/// What is kept of one class in one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatchedClass {
    pub class: u32,
    /// First of its detections in the image's lists, and their number.
    pub start: u32,
    pub count: u32,
    /// Objects that are no crowd, whatever their size.
    pub truths: u32,
}

/// What is kept of one image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MatchedImage {
    pub image_id: u64,
    /// By rising class; classes without objects and detections are left out.
    pub classes: Vec<MatchedClass>,
    /// Scores of the kept detections: class after class, falling within each.
    pub scores: Vec<f64>,
    /// `[detections, words]`: the cells in which a detection is a true positive.
    pub hits: Vec<u64>,
    /// `[detections, words]`: those in which it is a false positive. Where it is neither, it is ignored.
    pub misses: Vec<u64>,
    /// Objects that count, `[classes, areas]`.
    pub positives: Vec<u32>,
}

/// Room that is used again from image to image.
#[derive(Default)]
pub struct Scratch {
    truths: Vec<u32>,
    results: Vec<u32>,
    overlaps: Vec<f64>,
    /// Detections that overlap some object enough for the lowest threshold.
    near: Vec<u32>,
    order: Vec<u32>,
    ignored: Vec<bool>,
    free: Vec<bool>,
}

/// Matches the detections of classes `0..classes` in one image. Without categories, objects and detections of all
/// classes are taken together, class after class, as class 0.
pub fn match_image(image: &ImageBoxes, classes: usize, settings: &CocoSettings, scratch: &mut Scratch) -> MatchedImage {
    let cells = Cells::of(settings);
    let limit = settings.max_detections.iter().copied().max().unwrap_or(0);
    let mut matched = MatchedImage { image_id: image.image_id, ..Default::default() };
    // the lists leave the scratch for the time of this call, so that the rest of it can be borrowed apart from them
    let (mut truths, mut results) = (std::mem::take(&mut scratch.truths), std::mem::take(&mut scratch.results));
    sorted_by_class(&mut truths, image.truths.iter().map(|t| t.class), classes);
    sorted_by_class(&mut results, image.results.iter().map(|r| r.class), classes);

    let class_of_truth = |&i: &u32| image.truths[i as usize].class;
    let class_of_result = |&i: &u32| image.results[i as usize].class;
    let (mut truths_left, mut results_left) = (&truths[..], &mut results[..]);
    while !truths_left.is_empty() || !results_left.is_empty() {
        let (class, own_truths, own_results) = if settings.use_categories {
            let (first, other) = (truths_left.first().map(class_of_truth), results_left.first().map(class_of_result));
            let class = first.into_iter().chain(other).min().unwrap_or(0);
            let own_truths = truths_left.partition_point(|i| class_of_truth(i) <= class);
            (class, own_truths, results_left.partition_point(|i| class_of_result(i) <= class))
        } else {
            (0, truths_left.len(), results_left.len())
        };
        let (own, rest) = truths_left.split_at(own_truths);
        truths_left = rest;
        let (ranked, rest) = std::mem::take(&mut results_left).split_at_mut(own_results);
        results_left = rest;
        let score = |i: u32| image.results[i as usize].score;
        ranked.sort_by(|&a, &b| by_score_falling(score(a), score(b)));
        let kept = &ranked[..ranked.len().min(limit)];

        let start = matched.scores.len();
        matched.scores.extend(kept.iter().map(|&i| score(i)));
        matched.classes.push(MatchedClass {
            class,
            start: start as u32,
            count: kept.len() as u32,
            truths: own.iter().filter(|&&i| !image.truths[i as usize].ignore).count() as u32,
        });
        match_class(image, own, kept, cells, settings, scratch, &mut matched);
    }
    (scratch.truths, scratch.results) = (truths, results);
    matched
}

/// Positions of the entries whose class takes part, by class, otherwise in their order.
fn sorted_by_class(list: &mut Vec<u32>, of: impl Iterator<Item = u32>, classes: usize) {
    let mut entries: Vec<(u32, u32)> = (0..).zip(of).filter(|&(_, c)| (c as usize) < classes).collect();
    entries.sort_by_key(|&(_, class)| class);
    list.clear();
    list.extend(entries.into_iter().map(|(position, _)| position));
}

/// True below `low` or above `high`; an undefined area is inside, as in the reference.
fn is_outside(area: f64, low: f64, high: f64) -> bool {
    let (too_small, too_large) = (area < low, area > high);
    too_small || too_large
}

/// Appends the bits of the detections `kept` (falling by score) and the counts of the objects `own` of one class.
fn match_class(
    image: &ImageBoxes,
    own: &[u32],
    kept: &[u32],
    cells: Cells,
    settings: &CocoSettings,
    scratch: &mut Scratch,
    matched: &mut MatchedImage,
) {
    let words = cells.words();
    let base = matched.hits.len();
    matched.hits.resize(base + kept.len() * words, 0);
    matched.misses.resize(base + kept.len() * words, 0);
    // unmatched, a detection is wrong wherever its own size is within the range
    for (place, &result) in kept.iter().enumerate() {
        let area = image.results[result as usize].area;
        for (a, &(_, low, high)) in settings.areas.iter().enumerate() {
            if !is_outside(area, low, high) {
                for t in 0..cells.thresholds {
                    let (word, bit) = cells.place(a, t);
                    matched.misses[base + place * words + word] |= bit;
                }
            }
        }
    }
    let truth = |i: usize| &image.truths[own[i] as usize];
    fill_overlaps(image, own, kept, settings, scratch);
    for (a, &(_, low, high)) in settings.areas.iter().enumerate() {
        scratch.ignored.clear();
        scratch.ignored.extend((0..own.len()).map(|i| truth(i).ignore || is_outside(truth(i).area, low, high)));
        matched.positives.push(scratch.ignored.iter().filter(|&&ignored| !ignored).count() as u32);
        if scratch.near.is_empty() {
            continue;
        }
        scratch.order.clear();
        scratch.order.extend(0..own.len() as u32);
        scratch.order.sort_by_key(|&i| scratch.ignored[i as usize]);
        for (t, &threshold) in settings.thresholds.iter().enumerate() {
            scratch.free.clear();
            scratch.free.resize(own.len(), true);
            let (word, bit) = cells.place(a, t);
            for &place in &scratch.near {
                let row = &scratch.overlaps[place as usize * own.len()..][..own.len()];
                let mut best = threshold.min(1.0 - 1e-10);
                let mut choice: Option<usize> = None;
                for &i in &scratch.order {
                    let i = i as usize;
                    if !scratch.free[i] && !truth(i).crowd {
                        continue;
                    }
                    if scratch.ignored[i] && choice.is_some_and(|c| !scratch.ignored[c]) {
                        break;
                    }
                    if row[i] >= best {
                        best = row[i];
                        choice = Some(i);
                    }
                }
                let Some(i) = choice else { continue };
                scratch.free[i] = false;
                let at = base + place as usize * words + word;
                if scratch.ignored[i] {
                    matched.misses[at] &= !bit;
                } else if truth(i).id != 0 {
                    matched.misses[at] &= !bit;
                    matched.hits[at] |= bit;
                }
            }
        }
    }
}

/// Fills `overlaps`, `[detections, objects]`, and `near`.
fn fill_overlaps(image: &ImageBoxes, own: &[u32], kept: &[u32], settings: &CocoSettings, scratch: &mut Scratch) {
    scratch.overlaps.clear();
    scratch.near.clear();
    if own.is_empty() {
        return;
    }
    let lowest = settings.thresholds.iter().copied().fold(f64::INFINITY, f64::min).min(1.0 - 1e-10);
    let truths: Vec<(&TruthBox, BBox)> =
        own.iter().map(|&i| &image.truths[i as usize]).map(|t| (t, hull(t.mask.as_ref(), settings.iou_type))).collect();
    for (place, &result) in (0..).zip(kept) {
        let result: &ResultBox = &image.results[result as usize];
        let around = hull(result.mask.as_ref(), settings.iou_type);
        let mut highest = f64::NEG_INFINITY;
        for (truth, other) in &truths {
            let apart = settings.iou_type == IouType::Segm && are_apart(around, *other);
            let value = if apart { 0.0 } else { overlap(result, truth, settings.iou_type) };
            highest = highest.max(value);
            scratch.overlaps.push(value);
        }
        if highest >= lowest {
            scratch.near.push(place);
        }
    }
}

/// The box around a mask, where masks are compared.
fn hull(mask: Option<&Mask>, iou_type: IouType) -> BBox {
    match (iou_type, mask) {
        (IouType::Segm, Some(mask)) => mask.bbox(),
        _ => BBox::default(),
    }
}

/// Whether masks in these boxes cannot share a pixel. Boxes that only seem to touch may do so by rounding.
fn are_apart(a: BBox, b: BBox) -> bool {
    a.x1 < b.x0 || b.x1 < a.x0 || a.y1 < b.y0 || b.y1 < a.y0
}

#[cfg(test)]
mod tests {
    use super::super::matching::{Role, assign, by_class, search_order};
    use super::*;
    use crate::random::Random;

    fn random_image(random: &mut Random) -> ImageBoxes {
        let mut xywh = || {
            let mut whole = |n: usize| random.below(n) as f64;
            [whole(60), whole(60), 1.0 + whole(40), 1.0 + whole(40)]
        };
        let boxes: Vec<[f64; 4]> = (0..26).map(|_| xywh()).collect();
        let truths = boxes[..9].iter().zip(1_u64..).map(|(&xywh, id)| TruthBox {
            class: id as u32 % 3,
            xywh,
            area: xywh[2] * xywh[3],
            crowd: id % 5 == 0,
            ignore: id % 5 == 0,
            id: if id == 7 { 0 } else { id },
            ..Default::default()
        });
        // the first detections lie on objects
        let results = boxes.iter().zip(0_u32..).map(|(&xywh, i)| ResultBox {
            class: (i + 1) % 3,
            xywh,
            score: f64::from(i * 7 % 5),
            area: xywh[2] * xywh[3],
            mask: None,
        });
        ImageBoxes { image_id: 4, truths: truths.collect(), results: results.collect() }
    }

    /// The cells one by one, by the assignment of a single threshold: (hits, misses) of a detection.
    fn one_by_one(image: &ImageBoxes, settings: &CocoSettings) -> (Vec<u64>, Vec<u64>) {
        let cells = Cells::of(settings);
        let (mut hits, mut misses) = (Vec::new(), Vec::new());
        for class in by_class(std::slice::from_ref(image), 3, 5).iter().flatten() {
            let overlaps = class.overlaps(IouType::Bbox);
            let base = hits.len();
            hits.resize(base + class.results.len() * cells.words(), 0);
            misses.resize(base + class.results.len() * cells.words(), 0);
            for (a, &(_, low, high)) in settings.areas.iter().enumerate() {
                let ignored = |t: &TruthBox| t.ignore || t.area < low || t.area > high;
                let roles: Vec<Role> =
                    class.truths.iter().map(|t| Role { crowd: t.crowd, ignored: ignored(t) }).collect();
                for (t, &threshold) in settings.thresholds.iter().enumerate() {
                    let taken = assign(&overlaps, &roles, &search_order(&roles), threshold);
                    let (word, bit) = cells.place(a, t);
                    for (place, result) in class.results.iter().enumerate() {
                        let at = base + place * cells.words() + word;
                        let choice = taken.get(place).copied().flatten();
                        let outside = result.area < low || result.area > high;
                        match choice {
                            Some(i) if roles[i].ignored => {}
                            Some(i) if class.truths[i].id != 0 => hits[at] |= bit,
                            _ if outside => {}
                            _ => misses[at] |= bit,
                        }
                    }
                }
            }
        }
        (hits, misses)
    }

    #[test]
    fn all_cells_at_once_are_the_cells_one_by_one() {
        let mut random = Random::new(11);
        let settings = CocoSettings {
            // 80 cells: more than one word
            thresholds: (0..20).map(|i| 0.3 + 0.03 * f64::from(i)).collect(),
            areas: [(0.0, 1e10), (0.0, 300.0), (300.0, 900.0), (900.0, 1e10)]
                .map(|(low, high)| (String::new(), low, high))
                .to_vec(),
            max_detections: vec![5],
            ..Default::default()
        };
        let mut scratch = Scratch::default();
        let mut correct = 0;
        for _ in 0..40 {
            let image = random_image(&mut random);
            let matched = match_image(&image, 3, &settings, &mut scratch);
            let expected = one_by_one(&image, &settings);
            assert_eq!((&matched.hits, &matched.misses), (&expected.0, &expected.1));
            correct += matched.hits.iter().map(|word| word.count_ones()).sum::<u32>();
        }
        assert!(correct > 1000, "{correct}");
    }

    #[test]
    fn without_categories_all_classes_are_one() {
        let mut image = random_image(&mut Random::new(3));
        image.results.truncate(4);
        let settings = CocoSettings { use_categories: false, ..Default::default() };
        let matched = match_image(&image, 3, &settings, &mut Scratch::default());
        assert_eq!(matched.classes, [MatchedClass { class: 0, start: 0, count: 4, truths: 8 }]);
        assert_eq!(matched.scores, [4.0, 2.0, 1.0, 0.0]);
        // classes outside the count take no part
        let matched = match_image(&image, 1, &settings, &mut Scratch::default());
        assert_eq!(matched.classes, [MatchedClass { class: 0, start: 0, count: 1, truths: 3 }]);
    }
}
