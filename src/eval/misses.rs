//! Why objects are missed, counted over a data set by class and cause.

use super::verdicts::{Verdict, match_image};
use super::{ImageResult, ImageTruth};
use crate::trace::missed::Cause;
use std::collections::BTreeMap;
use std::fmt::Write;

/// IoU from which a detection finds an object.
pub const MISS_IOU: f32 = 0.5;
/// The kind of a miss that no pass was looked into for, behind those of [`Cause`].
const UNSEEN: usize = Cause::NAMES.len();
/// Classes that a line of words names.
const NAMED: usize = 6;

/// Objects that no detection of at least `score` finds at [`MISS_IOU`], one to one by the COCO rule, with their causes.
/// Kinds are numbers of causes as in [`Cause::kind`]; see [`Misses::name`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Misses {
    pub score: f32,
    /// Objects that count, by class.
    objects: Vec<usize>,
    /// By class and kind: images by position, and the number of their objects, in the order in which they came.
    cells: BTreeMap<(usize, usize), Vec<(usize, usize)>>,
}

impl Misses {
    /// Nothing counted yet, for classes `0..classes`.
    pub fn new(score: f32, classes: usize) -> Self {
        Self { score, objects: vec![0; classes], cells: BTreeMap::new() }
    }

    /// Counts image `index`. `why` gets the position of a missed object among the image's, and the detections that find
    /// other objects; it answers nothing where no pass was looked into.
    pub fn add(
        &mut self,
        index: usize,
        truth: &ImageTruth,
        result: &ImageResult,
        why: impl Fn(usize, &[usize]) -> Option<Cause>,
    ) {
        let matched = match_image(truth, result, self.objects.len(), f64::from(MISS_IOU));
        let (mut missed, mut taken) = (matched.missed, Vec::new());
        // Going by falling score, matching is the same with and without the detections below.
        for (at, (verdict, detection)) in matched.detections.iter().zip(&result.detections).enumerate() {
            match verdict.truth.filter(|_| verdict.verdict == Verdict::TruePositive) {
                Some(object) if detection.score < self.score => missed.push(object),
                Some(object) => {
                    taken.push(at);
                    self.count_object(truth, object);
                }
                None => {}
            }
        }
        for object in missed {
            let Some(class) = self.count_object(truth, object) else { continue };
            let kind = why(object, &taken).map_or(UNSEEN, |cause| cause.kind());
            let images = self.cells.entry((class, kind)).or_default();
            match images.last_mut() {
                Some((last, count)) if *last == index => *count += 1,
                _ => images.push((index, 1)),
            }
        }
    }

    fn count_object(&mut self, truth: &ImageTruth, object: usize) -> Option<usize> {
        let class = truth.objects.get(object)?.class as usize;
        *self.objects.get_mut(class)? += 1;
        Some(class)
    }

    /// What misses of a kind are called.
    pub fn name(kind: usize) -> &'static str {
        Cause::NAMES.get(kind).copied().unwrap_or("not looked into")
    }

    /// Kinds that occur, in the order of the chain from anchor to detection.
    pub fn kinds(&self) -> Vec<usize> {
        (0..=UNSEEN).filter(|&kind| self.count(None, Some(kind)) > 0).collect()
    }

    /// Objects that count, missed or not.
    pub fn objects(&self) -> usize {
        self.objects.iter().sum()
    }

    /// Missed objects of a class and a kind; of all without one.
    pub fn count(&self, class: Option<usize>, kind: Option<usize>) -> usize {
        self.images(class, kind).iter().map(|(_, count)| count).sum()
    }

    /// Images with missed objects of a class and a kind (of all without one) and their number, most first.
    pub fn images(&self, class: Option<usize>, kind: Option<usize>) -> Vec<(usize, usize)> {
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        for ((own_class, own_kind), images) in &self.cells {
            if class.is_none_or(|class| class == *own_class) && kind.is_none_or(|kind| kind == *own_kind) {
                for (index, count) in images {
                    *counts.entry(*index).or_default() += count;
                }
            }
        }
        let mut images: Vec<(usize, usize)> = counts.into_iter().collect();
        images.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        images
    }

    /// Classes that have misses of a kind (of any without one) and their number, most first.
    pub fn classes(&self, kind: Option<usize>) -> Vec<(usize, usize)> {
        let counted = (0..self.objects.len()).map(|class| (class, self.count(Some(class), kind)));
        let mut classes: Vec<(usize, usize)> = counted.filter(|(_, count)| *count > 0).collect();
        classes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        classes
    }

    /// The classes of a kind in words: `cat 3, dog 1`.
    pub fn words(&self, kind: usize, names: &[String]) -> String {
        let classes = self.classes(Some(kind));
        let name = |class: usize| names.get(class).map_or("?", String::as_str);
        let mut parts: Vec<String> =
            classes.iter().take(NAMED).map(|&(class, count)| format!("{} {count}", name(class))).collect();
        if classes.len() > NAMED {
            parts.push(format!("{} more classes", classes.len() - NAMED));
        }
        parts.join(", ")
    }

    /// One line in words above a table: how many, and at what threshold.
    pub fn heading(&self) -> String {
        format!(
            "{} of {} objects missed at score {:.2}, IoU {MISS_IOU:.2}",
            self.count(None, None),
            self.objects(),
            self.score
        )
    }

    /// The heading, and one line a kind with its classes.
    pub fn table(&self, names: &[String]) -> String {
        let mut text = self.heading() + "\n";
        for kind in self.kinds() {
            let (name, count) = (Self::name(kind), self.count(None, Some(kind)));
            // writing to a String cannot fail
            let _ = writeln!(text, "  {name:<26} {count:>6}  {}", self.words(kind, names));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::tally::ImageTally;
    use crate::geometry::{BBox, Detection, Object};

    fn at(x: f32) -> BBox {
        BBox::new(x, 0.0, x + 10.0, 10.0)
    }

    fn object(x: f32, class: u32) -> Object {
        Object { bbox: at(x), class, ..Object::default() }
    }

    fn detection(x: f32, class: u32, score: f32) -> Detection {
        Detection { bbox: at(x), class, score, ..Detection::default() }
    }

    const WHY: [Cause; 3] = [
        Cause::NoAnchor { iou: 0.1 },
        Cause::LowScore { limit: 0.01, score: None },
        Cause::BelowThreshold { score: 0.3, threshold: 0.5 },
    ];

    /// Three images: found, too faint and a group; two missed; one that nobody looked into.
    fn misses() -> (Misses, usize) {
        let crowd = Object { crowd: true, ..object(90.0, 0) };
        let images = [
            (vec![object(0.0, 0), object(50.0, 0), crowd], vec![detection(1.0, 0, 0.9), detection(50.0, 0, 0.3)]),
            (vec![object(0.0, 0), object(50.0, 1)], vec![detection(0.0, 1, 0.9)]),
            (vec![object(0.0, 1)], vec![]),
        ];
        let mut misses = Misses::new(0.5, 2);
        let mut tallied = 0;
        for (index, (objects, detections)) in images.into_iter().enumerate() {
            let truth = ImageTruth { image_id: 7, objects };
            let result = ImageResult { image_id: 7, detections };
            tallied += ImageTally::new(&truth, &result, 2, 0.5).at(0.5).missed;
            misses.add(index, &truth, &result, |object, taken| match index {
                0 => {
                    assert_eq!((object, taken), (1, [0].as_slice()));
                    Some(WHY[2])
                }
                1 => {
                    assert!(taken.is_empty());
                    Some(WHY[object])
                }
                _ => None,
            });
        }
        (misses, tallied)
    }

    #[test]
    fn causes_add_up_to_the_missed_objects() {
        let (misses, tallied) = misses();
        assert_eq!((misses.objects(), misses.count(None, None), tallied), (5, 4, 4));
        let kinds: Vec<&str> = misses.kinds().into_iter().map(Misses::name).collect();
        assert_eq!(kinds, ["no anchor reached it", "low score", "below the threshold", "not looked into"]);
        let sum: usize = misses.kinds().into_iter().map(|kind| misses.count(None, Some(kind))).sum();
        assert_eq!(sum, tallied);
        assert_eq!(misses.classes(None), [(0, 2), (1, 2)]);
        assert_eq!(misses.classes(Some(WHY[1].kind())), [(1, 1)]);
        assert_eq!(misses.images(None, None), [(1, 2), (0, 1), (2, 1)]);
        assert_eq!(misses.images(Some(0), Some(WHY[2].kind())), [(0, 1)]);
        assert_eq!(misses.count(Some(1), Some(WHY[0].kind())), 0);
    }

    #[test]
    fn the_table_says_how_many_of_which_class() {
        let names = ["cat", "dog"].map(str::to_owned);
        let text = misses().0.table(&names);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "4 of 5 objects missed at score 0.50, IoU 0.50");
        assert_eq!(lines.len(), 5);
        assert!(lines[2].contains("low score") && lines[2].ends_with("1  dog 1"), "{text}");
        let mut many = Misses::new(0.5, 9);
        let truth = ImageTruth { image_id: 1, objects: (0..9).map(|class| object(0.0, class)).collect() };
        many.add(0, &truth, &ImageResult::default(), |_, _| Some(WHY[0]));
        assert!(many.words(WHY[0].kind(), &names).ends_with("? 1, 3 more classes"));
    }
}
