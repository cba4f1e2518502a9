//! The detections of one class over all images, falling by score, and precision read at given recalls in every cell.
//!
//! Arithmetic is that of pycocotools' `COCOeval.accumulate`. There, precision is computed at every detection and the
//! falling envelope read where a recall is first reached. Recall rises at true positives alone and precision falls
//! everywhere else, so the envelope is made of the true positives: the same numbers from a fraction of the divisions.

use super::coco_image::{Cells, MatchedImage};
use super::ranking::by_score_falling;
use rayon::prelude::*;

/// One class over all images.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClassRanking {
    /// Falling; equal ones in the order of the images, then of the detections.
    pub scores: Vec<f64>,
    /// Place of each detection within its image and class, from 0.
    pub ranks: Vec<u32>,
    /// Position of its image.
    pub images: Vec<u32>,
    /// `[detections, words]`: see [`MatchedImage::hits`].
    pub hits: Vec<u64>,
    pub misses: Vec<u64>,
    /// Positions of the images that hold any of the class.
    pub entries: Vec<u32>,
    /// Objects that count, `[entries, areas]`.
    pub positives: Vec<u32>,
    /// Objects that are no crowd, whatever their size.
    pub truths: usize,
}

/// Rankings of classes `0..classes` over images in the order that decides ties.
pub fn rank_matched(images: &[MatchedImage], classes: usize, cells: Cells) -> Vec<ClassRanking> {
    let mut entries: Vec<Vec<(u32, u32)>> = vec![Vec::new(); classes];
    for (position, image) in (0..).zip(images) {
        for (entry, class) in (0..).zip(&image.classes) {
            if let Some(list) = entries.get_mut(class.class as usize) {
                list.push((position, entry));
            }
        }
    }
    entries.par_iter().map(|list| rank_class(images, list, cells)).collect()
}

/// Brings the entries (position of the image, of the class in it) of one class together.
fn rank_class(images: &[MatchedImage], entries: &[(u32, u32)], cells: Cells) -> ClassRanking {
    let words = cells.words();
    let mut ranking = ClassRanking::default();
    // (score, position of the image, of the detection in its lists, rank)
    let mut order: Vec<(f64, u32, u32, u32)> = Vec::new();
    for &(position, entry) in entries {
        let image = &images[position as usize];
        let class = image.classes[entry as usize];
        let scores = &image.scores[class.start as usize..][..class.count as usize];
        order.extend((0..).zip(scores).map(|(rank, &score)| (score, position, class.start + rank, rank)));
        ranking.entries.push(position);
        ranking.positives.extend_from_slice(&image.positives[entry as usize * cells.areas..][..cells.areas]);
        ranking.truths += class.truths as usize;
    }
    order.par_sort_by(|a, b| by_score_falling(a.0, b.0));
    ranking.hits.reserve_exact(order.len() * words);
    ranking.misses.reserve_exact(order.len() * words);
    for &(_, position, detection, _) in &order {
        let image = &images[position as usize];
        let bits = detection as usize * words..(detection as usize + 1) * words;
        ranking.hits.extend_from_slice(&image.hits[bits.clone()]);
        ranking.misses.extend_from_slice(&image.misses[bits]);
    }
    ranking.scores = order.iter().map(|entry| entry.0).collect();
    ranking.images = order.iter().map(|entry| entry.1).collect();
    ranking.ranks = order.iter().map(|entry| entry.3).collect();
    ranking
}

/// One step of a precision curve: a true positive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// True positives up to here.
    pub found: f64,
    pub precision: f64,
    pub score: f64,
}

/// The true positives of one cell, in ranked order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Steps {
    pub steps: Vec<Step>,
    /// Score of the first detection of all; `None` without a detection.
    pub first_score: Option<f64>,
}

/// A precision curve read at given recalls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// Best precision at or beyond the recall; 0 where it is never reached.
    pub precision: f64,
    /// Score of the detection that first reaches it; 0 where none does.
    pub score: f64,
}

impl Steps {
    /// Turns precision into the falling envelope.
    fn envelop(&mut self) {
        let mut highest = f64::NEG_INFINITY;
        for step in self.steps.iter_mut().rev() {
            highest = highest.max(step.precision);
            step.precision = highest;
        }
    }

    /// Final recall of `positives` objects.
    pub fn recall(&self, positives: f64) -> f64 {
        self.steps.last().map_or(0.0, |last| last.found / positives)
    }

    /// The curve at each of the rising `recalls`, for `positives` objects (more than 0).
    pub fn read(&self, positives: f64, recalls: &[f64], mut visit: impl FnMut(usize, Reading)) {
        let mut next = 0;
        for (r, &wanted) in recalls.iter().enumerate() {
            while self.steps.get(next).is_some_and(|step| step.found / positives < wanted) {
                next += 1;
            }
            let reached = self.steps.get(next);
            let mut reading = Reading { precision: 0.0, score: 0.0 };
            if let Some(step) = reached {
                reading = Reading { precision: step.precision, score: step.score };
            }
            // recall 0 is reached by the first detection, right or wrong
            if wanted <= 0.0
                && let Some(score) = self.first_score
            {
                reading.score = score;
            }
            visit(r, reading);
        }
    }
}

impl ClassRanking {
    /// Curves of every cell with the first `limit` detections of each image, an image counting `weight(position)`
    /// times.
    pub fn curves(&self, cells: Cells, limit: usize, weight: impl Fn(u32) -> u32) -> Vec<Steps> {
        let words = cells.words();
        let mut curves = vec![Steps::default(); cells.count()];
        for word in 0..words {
            let first_cell = word * 64;
            let own = &mut curves[first_cell..cells.count().min(first_cell + 64)];
            let mut wrong = [0_u32; 64];
            let mut right = [0_u32; 64];
            let mut first_score = None;
            for (i, &score) in self.scores.iter().enumerate() {
                let times = if (self.ranks[i] as usize) < limit { weight(self.images[i]) } else { 0 };
                if times == 0 {
                    continue;
                }
                first_score = first_score.or(Some(score));
                let misses = self.misses[i * words + word];
                if misses != 0 {
                    for (bit, count) in wrong.iter_mut().enumerate() {
                        *count += ((misses >> bit) & 1) as u32 * times;
                    }
                }
                let mut hits = self.hits[i * words + word];
                while hits != 0 {
                    let bit = hits.trailing_zeros() as usize;
                    hits &= hits - 1;
                    right[bit] += times;
                    let (found, false_positives) = (f64::from(right[bit]), f64::from(wrong[bit]));
                    let precision = found / (false_positives + found + f64::EPSILON);
                    if let Some(curve) = own.get_mut(bit) {
                        curve.steps.push(Step { found, precision, score });
                    }
                }
            }
            for curve in own {
                curve.first_score = first_score;
                curve.envelop();
            }
        }
        curves
    }

    /// Objects of size range `area` that count, an image counting `weight(position)` times.
    pub fn positives(&self, cells: Cells, area: usize, weight: impl Fn(u32) -> u32) -> f64 {
        let counts = self.positives.chunks_exact(cells.areas.max(1)).zip(&self.entries);
        let sum: u64 = counts.map(|(row, &image)| u64::from(row[area]) * u64::from(weight(image))).sum();
        sum as f64
    }
}

#[cfg(test)]
mod tests {
    use super::super::ranking::{Outcome, linspace};
    use super::*;
    use crate::random::Random;

    const CELLS: Cells = Cells { areas: 1, thresholds: 1 };

    fn ranking(outcomes: &[Outcome]) -> ClassRanking {
        let bits = |wanted: Outcome| outcomes.iter().map(|&o| u64::from(o == wanted)).collect();
        ClassRanking {
            scores: (0..outcomes.len()).map(|i| 1.0 - i as f64 / 1000.0).collect(),
            ranks: vec![0; outcomes.len()],
            images: (0..outcomes.len() as u32).collect(),
            hits: bits(Outcome::TruePositive),
            misses: bits(Outcome::FalsePositive),
            ..Default::default()
        }
    }

    /// Precision and score at each recall, and the final recall, detection by detection as `accumulate` goes.
    fn accumulated(outcomes: &[Outcome], scores: &[f64], positives: f64, recalls: &[f64]) -> (Vec<Reading>, f64) {
        let (mut right, mut wrong) = (0.0_f64, 0.0_f64);
        let (mut recall, mut precision) = (Vec::new(), Vec::new());
        for outcome in outcomes {
            match outcome {
                Outcome::TruePositive => right += 1.0,
                Outcome::FalsePositive => wrong += 1.0,
                Outcome::Ignored => {}
            }
            recall.push(right / positives);
            precision.push(right / (wrong + right + f64::EPSILON));
        }
        for i in (1..precision.len()).rev() {
            precision[i - 1] = f64::max(precision[i - 1], precision[i]);
        }
        let read = |&wanted: &f64| {
            let first = recall.partition_point(|&r| r < wanted);
            let reached = precision.get(first).zip(scores.get(first));
            reached.map_or(Reading { precision: 0.0, score: 0.0 }, |(&precision, &score)| Reading { precision, score })
        };
        (recalls.iter().map(read).collect(), recall.last().copied().unwrap_or(0.0))
    }

    #[test]
    fn true_positives_alone_give_the_curve_of_all_detections() {
        let mut random = Random::new(5);
        let recalls = linspace(0.0, 1.0, 101);
        for case in 0..200 {
            let kinds = [Outcome::TruePositive, Outcome::FalsePositive, Outcome::Ignored];
            let outcomes: Vec<Outcome> = (0..case % 40).map(|_| kinds[random.below(3)]).collect();
            let found = outcomes.iter().filter(|&&o| o == Outcome::TruePositive).count();
            let positives = found + random.below(4);
            if positives == 0 {
                continue;
            }
            let ranking = ranking(&outcomes);
            let positives = positives as f64;
            let (expected, recall) = accumulated(&outcomes, &ranking.scores, positives, &recalls);
            let curve = &ranking.curves(CELLS, 1, |_| 1)[0];
            assert_eq!(curve.recall(positives), recall);
            curve.read(positives, &recalls, |r, reading| assert_eq!(reading, expected[r], "case {case}, recall {r}"));
        }
    }

    #[test]
    fn weights_are_the_same_as_copies() {
        use Outcome::{FalsePositive, TruePositive};
        // image 1 three times, image 2 never
        let weighted = ranking(&[FalsePositive, TruePositive, FalsePositive, TruePositive]);
        let copied = ranking(&[FalsePositive, TruePositive, TruePositive, TruePositive, TruePositive]);
        let recalls = linspace(0.0, 1.0, 11);
        let precision = |ranking: &ClassRanking, weight: fn(u32) -> u32| {
            let mut values = Vec::new();
            ranking.curves(CELLS, 1, weight)[0].read(5.0, &recalls, |_, reading| values.push(reading.precision));
            values
        };
        assert_eq!(precision(&weighted, |image| [1, 3, 0, 1][image as usize]), precision(&copied, |_| 1));
    }
}
