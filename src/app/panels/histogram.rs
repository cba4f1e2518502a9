//! A histogram of numbers from 0 to 1, counted and drawn by shaders; what a bar holds is said under the pointer.

use super::name_picture;
use crate::app::bridge::{HistogramPicture, Samples, Shaders, paint_histogram};
use crate::app::theme;
use crate::render::{BarLook, HistogramLook, Threshold};
use crate::stats::Histogram;
use egui::{Color32, Rect, Sense, Stroke, Ui, pos2, vec2};
use std::sync::Arc;

/// Fewest and most bins that can be chosen.
pub(super) const BINS: std::ops::RangeInclusive<u32> = 5..=100;
const HEIGHT: f32 = 56.0;

/// What to show of numbers.
pub(super) struct HistogramView<'a> {
    /// Buffers of the numbers, and which of their histograms this is.
    pub id: (u64, usize),
    pub samples: &'a Arc<Samples>,
    /// The group that counts; all without one.
    pub group: Option<u32>,
    pub bins: u32,
    /// Bars from here on are green.
    pub threshold: Option<f32>,
    /// What is counted, and by what: "boxes", "IoU".
    pub things: &'a str,
    pub axis: &'a str,
    pub width: f32,
}

impl HistogramView<'_> {
    /// Bars from 0 to 1 on the x axis, the highest as tall as the area, with a line at the threshold.
    pub fn ui(&self, ui: &mut Ui) {
        let (rect, response) = ui.allocate_exact_size(vec2(self.width, HEIGHT), Sense::hover());
        name_picture(&response, &format!("Histogram of {} by {}", self.things, self.axis));
        let painter = ui.painter_at(rect);
        painter.rect_filled(rect, 2.0, ui.visuals().extreme_bg_color);
        if Shaders::of(ui.ctx()).histograms {
            let picture = HistogramPicture { samples: self.samples.clone(), look: self.look() };
            painter.add(paint_histogram(rect, painter.clip_rect(), self.id, picture));
        } else {
            self.bars(&painter, rect);
        }
        if let Some(pointer) = response.hover_pos() {
            let counted = self.count();
            let place = ((pointer.x - rect.left()) / rect.width()).clamp(0.0, 1.0);
            let bin = ((place * self.bins as f32) as usize).min(counted.counts().len() - 1);
            let (low, high) = counted.edges(bin);
            let (count, things, axis) = (counted.counts()[bin], self.things, self.axis);
            response.on_hover_text_at_pointer(format!("{count} {things} with {axis} {low:.2} to {high:.2}"));
        }
    }

    fn look(&self) -> HistogramLook {
        let solid = |color: Color32| color.to_srgba_unmultiplied().map(|part| f32::from(part) / 255.0);
        let threshold = |value| Threshold { value, color: solid(theme::ERROR) };
        let bars = BarLook {
            color: solid(Color32::GRAY),
            above: self.threshold.map(|threshold| (threshold, solid(theme::TRUTH))),
            thresholds: self.threshold.map(threshold).into_iter().collect(),
            line_width: 1.5,
            ..BarLook::default()
        };
        HistogramLook { low: 0.0, high: 1.0, bins: self.bins, group: self.group, bars }
    }

    fn count(&self) -> Histogram {
        let mut histogram = Histogram::new(0.0, 1.0, self.bins as usize);
        let Samples { values, groups, .. } = self.samples.as_ref();
        let own = values.iter().zip(groups).filter(|(_, group)| self.group.is_none_or(|own| own == **group));
        own.for_each(|(&value, _)| histogram.add(value));
        histogram
    }

    fn bars(&self, painter: &egui::Painter, rect: Rect) {
        let histogram = self.count();
        let highest = histogram.counts().iter().copied().max().unwrap_or(0).max(1) as f32;
        let x = |value: f32| rect.left() + value * rect.width();
        for (bin, &count) in histogram.counts().iter().enumerate() {
            let (low, high) = histogram.edges(bin);
            if count == 0 {
                continue;
            }
            // One with anything in it shows.
            let top = rect.bottom() - (count as f32 / highest * (rect.height() - 2.0)).max(1.0);
            let bar = Rect::from_min_max(pos2(x(low) + 0.5, top), pos2(x(high) - 0.5, rect.bottom()));
            let is_above = self.threshold.is_some_and(|threshold| low >= threshold - 1e-6);
            painter.rect_filled(bar, 0.0, if is_above { theme::TRUTH } else { Color32::GRAY });
        }
        if let Some(threshold) = self.threshold {
            painter.vline(x(threshold), rect.y_range(), Stroke::new(1.5, theme::ERROR));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use egui::Shape;
    use egui_kittest::Harness;

    fn samples() -> Arc<Samples> {
        Arc::new(Samples { version: 1, values: vec![0.1, 0.6, 0.7, f32::NAN], groups: vec![0, 0, 1, 1] })
    }

    fn view(samples: &Arc<Samples>, group: Option<u32>) -> HistogramView<'_> {
        let (things, axis) = ("boxes", "IoU");
        HistogramView { id: (1, 0), samples, group, bins: 10, threshold: Some(0.5), things, axis, width: 200.0 }
    }

    #[test]
    fn a_group_counts_alone_and_what_is_no_number_does_not() {
        let samples = samples();
        let count = |group: Option<u32>| view(&samples, group).count().counts().iter().sum::<u64>();
        assert_eq!([None, Some(0), Some(1), Some(2)].map(count), [3, 2, 1, 0]);
        let look = view(&samples, Some(1)).look();
        assert_eq!((look.group, look.bins, look.bars.thresholds.len()), (Some(1), 10, 1));
    }

    #[test]
    fn the_device_draws_the_bars_where_it_counts() {
        for histograms in [true, false] {
            let samples = samples();
            let mut harness = Harness::new_ui(|ui| {
                Shaders { histograms, ..Shaders::default() }.tell(ui.ctx());
                view(&samples, None).ui(ui);
            });
            harness.run_steps(2);
            let shapes = &harness.output().shapes;
            let callbacks = shapes.iter().filter(|clipped| matches!(clipped.shape, Shape::Callback(_))).count();
            assert_eq!(callbacks, usize::from(histograms));
        }
    }
}
