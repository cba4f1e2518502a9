//! The whole data set: scores of every side, how sure their differences are, and the images that decide them.

use super::{ComparePanel, Order, letter};
use crate::app::action::Action;
use crate::app::panels::image_list::{ImageList, image_rows};
use crate::app::settings::Settings;
use crate::app::state::{State, percent};
use crate::engine::compare::CompareSummary;
use egui::{Grid, RichText, Ui};
use std::sync::Arc;

impl ComparePanel {
    pub(super) fn data(&mut self, ui: &mut Ui, state: &State, settings: &Settings, actions: &mut Vec<Action>) {
        let Some(comparison) = state.comparison.clone() else {
            ui.label("Not compared on the open data yet.");
            return;
        };
        ui.weak(format!("{}, {} images, {:.1} s; in per cent", comparison.data, comparison.images, comparison.seconds));
        Grid::new("sides").num_columns(9).striped(true).show(ui, |ui| {
            for (title, help) in [
                ("side", "What is in the slot"),
                ("AP", "COCO's AP: the mean over IoU .50 : .05 : .95 and over classes"),
                ("AP .50", "AP at IoU .50"),
                ("AP .75", "AP at IoU .75"),
                ("small", "AP of objects below 32² pixels"),
                ("medium", "AP of objects from 32² to 96² pixels"),
                ("large", "AP of objects above 96² pixels"),
                ("AR 100", "Recall with at most 100 detections an image, the mean over IoU .50 : .05 : .95"),
                ("ΔAP .50 to the first", "With the 95 % interval of a paired bootstrap over images"),
            ] {
                ui.weak(title).on_hover_text(help);
            }
            ui.end_row();
            for side in &comparison.sides {
                ui.label(RichText::new(format!("{}: {}", letter(side.slot), side.name)).strong());
                let [ap, ap50, ap75, small, medium, large, _, _, ar100, ..] = side.stats;
                for value in [ap, ap50, ap75, small, medium, large, ar100] {
                    ui.label(percent(value));
                }
                match comparison.intervals.iter().find(|i| i.second == side.slot) {
                    Some(found) => {
                        let i = &found.interval;
                        let text = format!(
                            "{:+.1}  [{:+.1}, {:+.1}]",
                            i.difference * 100.0,
                            i.low * 100.0,
                            i.high * 100.0
                        );
                        ui.label(text).on_hover_text(format!(
                            "95 % interval of a paired bootstrap over images, {} draws; {} is higher than {} in {:.0} % \
                             of them",
                            i.samples,
                            letter(found.second),
                            letter(found.first),
                            i.second_wins * 100.0
                        ));
                    }
                    None => _ = ui.label("—"),
                }
                ui.end_row();
            }
        });
        ui.separator();
        let (first, second) = (letter(self.first), letter(self.second));
        ui.horizontal_wrapped(|ui| {
            for (reversed, better, worse) in [(false, first, second), (true, second, first)] {
                ui.selectable_value(&mut self.reversed, reversed, format!("Where {better} beats {worse}"))
                    .on_hover_text("Sorts the images below by it");
            }
            ui.weak(format!("by found − wrong − missed at score {:.2} and IoU .5", settings.score));
        });
        let key = (self.first, self.second, settings.score.to_bits(), self.reversed);
        if self.order.as_ref().is_none_or(|o| o.key != key || !Arc::ptr_eq(&o.comparison, &comparison)) {
            let list = order(&comparison, self.first, self.second, settings.score, self.reversed);
            self.order = Some(Order { comparison, key, list });
        }
        if let Some(order) = &self.order {
            image_rows(ui, &order.list.rows, state, actions);
        }
    }
}

/// Images by the first slot's value minus the second's, highest first; the other way round when `reversed`.
fn order(comparison: &CompareSummary, first: usize, second: usize, score: f32, reversed: bool) -> ImageList {
    let of = |slot: usize| {
        comparison.sides.iter().find(|side| side.slot == slot).map_or(&[][..], |side| side.tallies.as_slice())
    };
    let counts = of(first).iter().zip(of(second)).map(|(a, b)| (a.at(score), b.at(score)));
    let mut images: Vec<_> = counts.enumerate().collect();
    let gain = |a: crate::eval::tally::ImageCounts, b: crate::eval::tally::ImageCounts| {
        let gain = a.value() - b.value();
        if reversed { -gain } else { gain }
    };
    images.sort_by_key(|(_, (a, b))| std::cmp::Reverse(gain(*a, *b)));
    let rows = images.into_iter().map(|(index, (a, b))| {
        let objects = a.found + a.missed;
        let note = format!(
            "{:+}: {} found {}, wrong {}; {} found {}, wrong {}; of {objects}",
            gain(a, b),
            letter(first),
            a.found,
            a.wrong,
            letter(second),
            b.found,
            b.wrong
        );
        (index, note)
    });
    ImageList::new("Differences", rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::compare::SideScore;
    use crate::eval::tally::ImageTally;

    #[test]
    fn the_image_that_one_side_wins_comes_first() {
        let image = |right: &[f32], wrong: &[f32]| ImageTally { right: right.into(), wrong: wrong.into(), objects: 2 };
        let side = |slot: usize, tallies: Vec<ImageTally>| SideScore { slot, tallies, ..SideScore::default() };
        let a = vec![image(&[0.9], &[]), image(&[0.9, 0.8], &[]), image(&[0.4], &[])];
        let b = vec![image(&[0.9], &[]), image(&[0.9], &[0.7]), image(&[0.9, 0.9], &[])];
        let comparison = CompareSummary { sides: vec![side(0, a), side(2, b)], ..CompareSummary::default() };
        let indices = |score: f32, reversed: bool| -> Vec<usize> {
            order(&comparison, 0, 2, score, reversed).rows.iter().map(|row| row.index).collect()
        };
        assert_eq!(indices(0.5, false), [1, 0, 2]);
        assert_eq!(indices(0.5, true), [2, 0, 1]);
        assert!(order(&comparison, 0, 1, 0.5, false).rows.is_empty());
    }
}
