//! The images where a model fails most: right, wrong and missed per image, and each mistake with its kind.

use super::ImageBoxes;
use super::errors::{ErrorItem, ErrorReport};
use super::verdicts::{Verdict, match_all};
use serde::{Deserialize, Serialize};

/// How one image came out at a score threshold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageLoss {
    /// Position among the images.
    pub image: usize,
    pub image_id: u64,
    pub true_positives: usize,
    pub false_positives: usize,
    /// Objects that no detection of enough score found.
    pub missed: usize,
    /// `2 TP / (2 TP + FP + missed)`; 1 when there is nothing to find and nothing was found.
    pub f1: f64,
    /// Its mistakes by kind, those of detections below the score threshold left out. An object that only such a
    /// detection would have found counts in `missed` without being listed.
    pub mistakes: Vec<ErrorItem>,
}

/// What images are ordered by, worst first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WorstBy {
    /// Wrong detections and missed objects together.
    #[default]
    Mistakes,
    F1,
    Missed,
    FalsePositives,
}

/// The `count` worst images among those with a mistake; equals by F1, then in their order. Detections below `score` are
/// dropped; `errors` is the analysis of the same images.
pub fn worst_images(
    images: &[ImageBoxes],
    classes: usize,
    errors: &ErrorReport,
    (score, iou): (f64, f64),
    by: WorstBy,
    count: usize,
) -> Vec<ImageLoss> {
    let matches = match_all(images, classes, iou, ImageBoxes::compared_by(images));
    let mut losses: Vec<ImageLoss> = Vec::new();
    for (position, (image, matched)) in images.iter().zip(&matches).enumerate() {
        let mut loss = ImageLoss { image: position, image_id: image.image_id, ..Default::default() };
        let mut found_above = 0;
        for (verdict, result) in matched.detections.iter().zip(&image.results) {
            let counts = result.score >= score;
            match verdict.verdict {
                Verdict::TruePositive => {
                    // an object that only a detection below the threshold found is missed
                    found_above += usize::from(counts);
                    loss.missed += usize::from(!counts);
                }
                Verdict::FalsePositive => loss.false_positives += usize::from(counts),
                Verdict::Ignored => {}
            }
        }
        loss.true_positives = found_above;
        loss.missed += matched.missed.len();
        let wrong = loss.false_positives + loss.missed;
        if wrong == 0 {
            continue;
        }
        loss.f1 = 2.0 * found_above as f64 / (2 * found_above + wrong) as f64;
        losses.push(loss);
    }
    let badness = |loss: &ImageLoss| match by {
        WorstBy::Mistakes => (loss.false_positives + loss.missed) as f64,
        WorstBy::F1 => 1.0 - loss.f1,
        WorstBy::Missed => loss.missed as f64,
        WorstBy::FalsePositives => loss.false_positives as f64,
    };
    losses.sort_by(|a, b| badness(b).total_cmp(&badness(a)).then(a.f1.total_cmp(&b.f1)));
    losses.truncate(count);
    for loss in &mut losses {
        let image = &images[loss.image];
        let of_image = errors.items.iter().filter(|item| item.image_id == image.image_id);
        let is_shown = |item: &&ErrorItem| {
            item.detection.is_none_or(|d| image.results.get(d).is_some_and(|result| result.score >= score))
        };
        loss.mistakes = of_image.filter(is_shown).copied().collect();
    }
    losses
}

#[cfg(test)]
mod tests {
    use super::super::errors::{ErrorKind, ErrorSettings, analyse_boxes};
    use super::super::{ResultBox, TruthBox};
    use super::*;

    fn at(x: f64) -> [f64; 4] {
        [x, 0.0, 10.0, 10.0]
    }

    fn image(image_id: u64, objects: &[f64], found: &[(f64, f64)]) -> ImageBoxes {
        let truths = objects.iter().map(|&x| TruthBox { xywh: at(x), area: 100.0, id: 1, ..Default::default() });
        let results =
            found.iter().map(|&(x, score)| ResultBox { xywh: at(x), area: 100.0, score, ..Default::default() });
        ImageBoxes { image_id, truths: truths.collect(), results: results.collect() }
    }

    #[test]
    fn images_come_worst_first_with_their_mistakes() {
        let images = [
            image(1, &[0.0], &[(0.0, 0.9)]),                           // perfect
            image(2, &[0.0, 50.0, 100.0], &[(0.0, 0.9), (50.0, 0.2)]), // one missed, one found below the threshold
            image(3, &[0.0], &[(300.0, 0.8), (400.0, 0.1)]),           // one missed, one wrong
            image(4, &[], &[(0.0, 0.8)]),                              // one wrong
        ];
        let errors = analyse_boxes(&images, 1, ErrorSettings::default());
        let worst = |by: WorstBy| worst_images(&images, 1, &errors, (0.5, 0.5), by, 10);
        let ids = |by: WorstBy| worst(by).iter().map(|loss| loss.image_id).collect::<Vec<_>>();
        assert_eq!(ids(WorstBy::Mistakes), [3, 2, 4]);
        assert_eq!(ids(WorstBy::F1), [3, 4, 2]);
        assert_eq!(ids(WorstBy::Missed), [2, 3, 4]);
        assert_eq!(ids(WorstBy::FalsePositives), [3, 4, 2]);
        let second = &worst(WorstBy::Mistakes)[1];
        assert_eq!((second.true_positives, second.false_positives, second.missed), (1, 0, 2));
        assert_eq!(second.f1, 0.5);
        let first = &worst(WorstBy::Mistakes)[0];
        let kinds: Vec<ErrorKind> = first.mistakes.iter().map(|m| m.kind).collect();
        assert_eq!(kinds, [ErrorKind::Background, ErrorKind::Missed]);
        assert_eq!(worst_images(&images, 1, &errors, (0.5, 0.5), WorstBy::F1, 1).len(), 1);
    }
}
