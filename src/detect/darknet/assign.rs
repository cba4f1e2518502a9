//! Which anchors learn which object: darknet's one best prior, or mmdet's grid of overlaps.

use super::head::{Head, Slot};
use super::objective::{Assigner, Objective};
use crate::geometry::iou::pairwise_iou;
use crate::geometry::{BBox, Object};
use crate::trace::{AnchorLevel, Assignment, Rule};

/// What the anchors of one image should learn.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Targets {
    /// `iou` and `best_object` are those that decided: of the predicted boxes for the best prior, of the priors for the
    /// grid.
    pub assignment: Assignment,
    /// Anchor and class: more than one class where objects share an anchor under darknet's rule.
    pub labels: Vec<(usize, u32)>,
}

/// Everything but the objects that an assignment looks at.
pub(super) struct Grid<'a> {
    pub head: &'a Head,
    pub runs: &'a [AnchorLevel],
    pub slots: &'a [Slot],
    /// Height and width of the input, pixels.
    pub input: (usize, usize),
}

impl Grid<'_> {
    /// The first anchor of the cell of `run` that holds the middle of `bbox`; the nearest cell for one outside.
    fn cell(&self, run: &AnchorLevel, bbox: BBox) -> usize {
        let (x, y) = bbox.center();
        let place = |center: f32, length: usize, cells: usize| -> usize {
            let stride = length as f32 / cells.max(1) as f32;
            // a cast of a negative number gives 0
            ((center / stride) as usize).min(cells.saturating_sub(1))
        };
        let column = place(x, self.input.1, run.columns);
        let row = place(y, self.input.0, run.rows);
        run.start + (row * run.columns + column) * run.per_cell
    }

    /// Targets for the objects of one image. `predicted` are the decoded boxes of all anchors, with which the best
    /// prior's rule decides what is ignored; without them nothing is. Objects without an area teach nothing.
    pub fn assign(&self, objective: &Objective, predicted: Option<&[BBox]>, objects: &[Object]) -> Targets {
        match objective.assigner {
            Assigner::BestPrior => self.best_prior(objective, predicted, objects),
            Assigner::Grid => self.by_overlap(objective, objects),
        }
    }

    fn best_prior(&self, objective: &Objective, predicted: Option<&[BBox]>, objects: &[Object]) -> Targets {
        let boxes: Vec<BBox> = objects.iter().map(|o| o.bbox).collect();
        let table = predicted.map(|predicted| pairwise_iou(&boxes, predicted)).unwrap_or_default();
        let (iou, best_object) = best_overlaps(&table, self.slots.len());
        let mut targets = Targets::default();
        for &overlap in &iou {
            let ignored = overlap > objective.ignore_threshold;
            targets.assignment.target.push(if ignored { -2 } else { -1 });
            targets.assignment.rule.push(if ignored { Rule::Ignored } else { Rule::Background });
        }
        for (index, object) in objects.iter().enumerate().filter(|(_, o)| o.bbox.is_proper()) {
            let sides = [object.bbox.width(), object.bbox.height()];
            for (level, run) in self.head.levels.iter().zip(self.runs) {
                let fit: Vec<f32> = level.priors.iter().map(|prior| shape_iou(*prior, sides)).collect();
                let best = first_largest(&fit);
                let first = self.cell(run, object.bbox);
                for (position, &prior) in level.mask.iter().enumerate() {
                    let chosen = best == Some(prior);
                    let also = fit.get(prior).is_some_and(|fit| *fit > objective.shape_threshold);
                    let anchor = first + position;
                    let Some(rule) = targets.assignment.rule.get_mut(anchor) else {
                        continue;
                    };
                    // a further prior does not take an anchor from an object that has no other
                    if chosen || (also && *rule != Rule::BestForObject) {
                        *rule = if chosen { Rule::BestForObject } else { Rule::Threshold };
                        targets.assignment.target[anchor] = index as i32;
                        targets.labels.push((anchor, object.class));
                    }
                }
            }
        }
        targets.assignment.iou = iou;
        targets.assignment.best_object = best_object;
        targets
    }

    fn by_overlap(&self, objective: &Objective, objects: &[Object]) -> Targets {
        let count = self.slots.len();
        let priors: Vec<BBox> = self.slots.iter().map(Slot::anchor).collect();
        let boxes: Vec<BBox> = objects.iter().map(|o| o.bbox).collect();
        let table = pairwise_iou(&boxes, &priors);
        let (iou, best_object) = best_overlaps(&table, count);
        let mut target = Vec::with_capacity(count);
        let mut rule = Vec::with_capacity(count);
        for &overlap in &iou {
            let background = overlap <= objective.negative_threshold;
            target.push(if background { -1 } else { -2 });
            rule.push(if background { Rule::Background } else { Rule::Ignored });
        }
        // only anchors of cells that hold the middle of some object can be positive, for whichever object
        let mut responsible: Vec<usize> = Vec::new();
        for object in objects.iter().filter(|o| o.bbox.is_proper()) {
            for run in self.runs {
                let first = self.cell(run, object.bbox);
                responsible.extend((first..first + run.per_cell).filter(|anchor| *anchor < count));
            }
        }
        responsible.sort_unstable();
        responsible.dedup();
        for &anchor in &responsible {
            if iou[anchor] > objective.positive_threshold {
                target[anchor] = best_object[anchor];
                rule[anchor] = Rule::Threshold;
            }
        }
        for index in 0..objects.len() {
            let row = &table[index * count..(index + 1) * count];
            let most = responsible.iter().map(|&anchor| row[anchor]).fold(0.0, f32::max);
            if most > 0.0 {
                for &anchor in responsible.iter().filter(|&&anchor| row[anchor] == most) {
                    if target[anchor] != index as i32 {
                        target[anchor] = index as i32;
                        rule[anchor] = Rule::BestForObject;
                    }
                }
            }
        }
        let class = |&anchor: &usize| {
            let object = usize::try_from(target[anchor]).ok().and_then(|index| objects.get(index));
            object.map(|object| (anchor, object.class))
        };
        let labels = responsible.iter().filter_map(class).collect();
        Targets { assignment: Assignment { target, rule, iou, best_object }, labels }
    }
}

/// Of a table `[objects, anchors]`, for each anchor the largest IoU and its object, the lower on ties; 0 and −1 without
/// objects.
fn best_overlaps(table: &[f32], anchors: usize) -> (Vec<f32>, Vec<i32>) {
    let nobody = if table.is_empty() { -1 } else { 0 };
    let (mut iou, mut object) = (vec![0.0f32; anchors], vec![nobody; anchors]);
    for (index, row) in table.chunks_exact(anchors.max(1)).enumerate() {
        for ((best, object), &overlap) in iou.iter_mut().zip(&mut object).zip(row) {
            if overlap > *best {
                *best = overlap;
                *object = index as i32;
            }
        }
    }
    (iou, object)
}

/// IoU of two boxes of these sides around one centre.
pub(in crate::detect) fn shape_iou(a: [f32; 2], b: [f32; 2]) -> f32 {
    let shared = a[0].min(b[0]) * a[1].min(b[1]);
    let union = a[0] * a[1] + b[0] * b[1] - shared;
    if union > 0.0 { shared / union } else { 0.0 }
}

/// Index of the first of the largest values.
fn first_largest(values: &[f32]) -> Option<usize> {
    let better = |best: usize, index: usize| if values[index] > values[best] { index } else { best };
    (0..values.len()).reduce(better)
}

#[cfg(test)]
mod tests {
    use super::super::head::tests::{raw_outputs, small_head};
    use super::super::objective::Offsets;
    use super::*;

    fn object(x: f32, y: f32, w: f32, h: f32, class: u32) -> Object {
        Object { bbox: BBox::from_cxcywh(x, y, w, h), class, ..Object::default() }
    }

    /// Targets on the small head, whose predictions are the priors themselves.
    fn targets(objective: &Objective, objects: &[Object]) -> Targets {
        let head = small_head(Offsets::Logistic);
        let outputs = raw_outputs(&head, 1, |_, _, _| 0.0).unwrap();
        let (runs, slots) = (head.runs(&outputs), head.slots(&outputs));
        let predicted: Vec<BBox> = slots.iter().map(Slot::anchor).collect();
        Grid { head: &head, runs: &runs, slots: &slots, input: outputs.input }.assign(
            objective,
            Some(&predicted),
            objects,
        )
    }

    #[test]
    fn the_best_shape_of_all_levels_is_responsible_in_the_cell_of_the_middle() {
        // priors 8×10 (fine level), 20×16 and 30×40 (coarse level)
        let found = targets(&Objective::DARKNET, &[object(41.0, 20.0, 9.0, 9.0, 1), object(60.0, 5.0, 31.0, 39.0, 0)]);
        // object 0: row 1, column 2 of the fine level; object 1: column 1 of the coarse level, second prior
        let positives: Vec<(usize, i32)> =
            found.assignment.target.iter().copied().enumerate().filter(|(_, t)| *t >= 0).collect();
        assert_eq!(positives, [(6, 0), (11, 1)]);
        assert_eq!((found.assignment.rule[6], found.assignment.rule[11]), (Rule::BestForObject, Rule::BestForObject));
        assert_eq!(found.labels, [(6, 1), (11, 0)]);
        assert_eq!(found.assignment.best_object.len(), 12);
    }

    #[test]
    fn unchosen_predictions_above_the_ignore_threshold_are_left_out() {
        // the 20×16 prior fits both objects best, each in its cell; around (16, 16) it has IoU 288 / 320 with the first
        let objective = Objective { ignore_threshold: 0.5, ..Objective::DARKNET };
        let found = targets(&objective, &[object(16.0, 16.0, 18.0, 16.0, 0), object(33.0, 16.0, 20.0, 16.0, 0)]);
        assert_eq!(found.assignment.target[8..], [0, -1, 1, -1]);
        assert!((found.assignment.iou[8] - 0.9).abs() < 1e-5);
        let shifted = targets(&objective, &[object(31.0, 16.0, 34.0, 40.0, 0)]);
        // chosen is the 30×40 prior of the left cell; the one on the right shares 600 / 1960 with the object
        assert_eq!((shifted.assignment.target[9], shifted.assignment.target[11]), (0, -1));
        let close = targets(&Objective { ignore_threshold: 0.2, ..objective }, &[object(31.0, 16.0, 34.0, 40.0, 0)]);
        assert_eq!((close.assignment.target[11], close.assignment.rule[11]), (-2, Rule::Ignored));
    }

    #[test]
    fn objects_that_share_an_anchor_leave_the_box_to_the_later_and_both_classes() {
        let found = targets(&Objective::DARKNET, &[object(8.0, 8.0, 8.0, 10.0, 0), object(9.0, 9.0, 8.0, 9.0, 1)]);
        assert_eq!(found.assignment.target[0], 1);
        assert_eq!(found.labels, [(0, 0), (0, 1)]);
    }

    #[test]
    fn further_priors_of_a_like_shape_learn_the_object_when_asked() {
        let objective = Objective { shape_threshold: 0.2, ..Objective::DARKNET };
        // 20×16: itself, and by shape 320 / 1200 the prior 30×40; 80 / 320 the prior 8×10
        let found = targets(&objective, &[object(20.0, 20.0, 20.0, 16.0, 0)]);
        let rules: Vec<Rule> = [5, 8, 9].iter().map(|&anchor: &usize| found.assignment.rule[anchor]).collect();
        assert_eq!(rules, [Rule::Threshold, Rule::BestForObject, Rule::Threshold]);
        assert_eq!(targets(&Objective::DARKNET, &[object(20.0, 20.0, 20.0, 16.0, 0)]).labels.len(), 1);
    }

    #[test]
    fn nothing_and_flat_objects_leave_background() {
        for objective in [Objective::DARKNET, Objective::MMDET] {
            let none = targets(&objective, &[]);
            assert_eq!((none.assignment.target, none.assignment.best_object), (vec![-1; 12], vec![-1; 12]));
            let flat = targets(&objective, &[object(20.0, 20.0, 0.0, 16.0, 0)]);
            assert_eq!((flat.assignment.target, flat.labels.len()), (vec![-1; 12], 0));
            // a middle outside the input belongs to the nearest cell
            let outside = targets(&objective, &[object(70.0, -3.0, 20.0, 16.0, 1)]);
            assert!(outside.labels.iter().all(|(anchor, _)| *anchor == 3 || *anchor >= 10));
        }
    }

    #[test]
    fn the_grid_takes_the_cells_priors_by_overlap_and_the_best_in_any_case() {
        // around the middle (16, 16) of the left coarse cell: 20×16 has IoU 1, 30×40 has 320 / 1200
        let found = targets(&Objective::MMDET, &[object(16.0, 16.0, 20.0, 16.0, 1)]);
        assert_eq!(found.assignment.target[8..10], [0, -1]);
        assert_eq!((found.assignment.rule[8], found.labels.as_slice()), (Rule::Threshold, [(8, 1)].as_slice()));
        // no prior overlaps this one by more than a half: the best is taken still
        let small = targets(&Objective::MMDET, &[object(24.0, 8.0, 4.0, 4.0, 0)]);
        assert_eq!(small.labels, [(1, 0)]);
        assert_eq!(small.assignment.rule[1], Rule::BestForObject);
        // two thresholds: the 30×40 prior, at .27, is neither object nor background
        let two = Objective { positive_threshold: 0.7, negative_threshold: 0.2, ..Objective::MMDET };
        let between = targets(&two, &[object(16.0, 16.0, 20.0, 16.0, 1)]);
        assert_eq!(between.assignment.target[8..10], [0, -2]);
        assert_eq!(between.assignment.rule[9], Rule::Ignored);
    }

    #[test]
    fn shapes_are_compared_around_one_centre() {
        assert_eq!(shape_iou([2.0, 4.0], [4.0, 2.0]), 4.0 / 12.0);
        assert_eq!(shape_iou([0.0, 0.0], [0.0, 1.0]), 0.0);
        assert_eq!(first_largest(&[0.1, 0.4, 0.4]), Some(1));
        assert_eq!(first_largest(&[]), None);
    }
}
