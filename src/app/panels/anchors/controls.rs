//! The controls of the Anchors panel: filters, thresholds, sizes and ratios, best possible recall, objects.

use super::{AnchorsPanel, Stale, first_stage};
use crate::app::action::Action;
use crate::app::panels::name_picture;
use crate::app::panels::why::class_name;
use crate::app::scene::shown_object;
use crate::app::theme;
use crate::engine::Shown;
use crate::render::{BoxAssignment, BoxColor};
use crate::trace::{Anchors, Rule, Trace};
use egui::{Color32, ComboBox, Grid, RichText, Slider, Ui};
use egui_plot::{Line, Plot, PlotPoints, VLine};

/// Thresholds of the table of recall.
const RECALLS: [f32; 4] = [0.5, 0.6, 0.7, 0.75];
/// Kinds of assignment that can be filtered, with their names.
const KINDS: [(BoxAssignment, &str); 4] = [
    (BoxAssignment::Positive, "positive"),
    (BoxAssignment::Mined, "mined"),
    (BoxAssignment::Ignored, "ignored"),
    (BoxAssignment::Negative, "negative"),
];
const COLORS: [(BoxColor, &str); 4] = [
    (BoxColor::Assignment, "colour: assignment"),
    (BoxColor::Level, "colour: level"),
    (BoxColor::Score, "colour: IoU"),
    (BoxColor::Class, "colour: shape"),
];

impl AnchorsPanel {
    /// Counts, and what of the anchors is shown: uniforms alone, but for the cell.
    pub(super) fn filters(&mut self, ui: &mut Ui, trace: &Trace) -> Stale {
        let mut stale = Stale::Nothing;
        let Some(made) = &self.made else { return stale };
        let live = &made.live;
        ui.weak("Click an object to select it, another place for the anchors of its cells.");
        ui.label(
            RichText::new(format!("{} anchors on {} levels", live.anchors.boxes.len(), live.anchors.levels.len()))
                .strong(),
        );
        if first_stage(trace).is_some() && self.shapes.is_none() {
            let refined = ui.checkbox(&mut self.refined, "as the first stage moved them");
            if refined.on_hover_text("Refined anchors: what the second stage matches; off: the priors").changed() {
                stale = Stale::Anchors;
            }
        }
        if live.assignment.is_some() {
            for (kind, name) in KINDS {
                let bit = 1 << kind as u32;
                let mut on = self.assignments & bit != 0;
                let count = made.counts.get(kind as usize).copied().unwrap_or(0);
                let [r, g, b, _] = self.style.assignment_colors[kind as usize].map(|c| (c * 255.0) as u8);
                let color = theme::readable(ui, Color32::from_rgb(r, g, b));
                let text = RichText::new(format!("{name}: {count}")).color(color);
                let hint = |ui: &mut Ui| {
                    let text = match kind {
                        BoxAssignment::Positive => format!(
                            "Learn an object: {} by IoU, {} as the best of their object, {} as points inside it",
                            live.count(Rule::Threshold),
                            live.count(Rule::BestForObject),
                            live.count(Rule::Center)
                        ),
                        BoxAssignment::Ignored => format!(
                            "Enter no loss: {} between the thresholds, {} dropped by an earlier stage",
                            live.count(Rule::Ignored),
                            live.count(Rule::Filtered)
                        ),
                        BoxAssignment::Mined => "Background that was chosen for the loss: hard negatives".to_string(),
                        _ => "Background that was not chosen for the loss".to_string(),
                    };
                    ui.label(text);
                };
                if ui.checkbox(&mut on, text).on_hover_ui(hint).changed() {
                    self.assignments ^= bit;
                }
            }
        } else {
            ui.weak("Assignment needs objects of the model's own classes.");
        }
        let text = if made.of.1.is_some() { "IoU with the object at least" } else { "best IoU at least" };
        ui.add(Slider::new(&mut self.iou_min, 0.0..=1.0).fixed_decimals(2).text(text))
            .on_hover_text("IoU = |A ∩ B| / |A ∪ B| with the selected object, or with any when none is selected");
        for (index, level) in live.anchors.levels.iter().enumerate().take(32) {
            let bit = 1 << index;
            let mut on = self.levels & bit != 0;
            let text = format!("level {index}: {}×{}, {} a cell", level.columns, level.rows, level.per_cell);
            let hint = format!("{} anchors, {:.0} px between cells", level.len, level.stride);
            if ui.checkbox(&mut on, text).on_hover_text(hint).changed() {
                self.levels ^= bit;
            }
        }
        let shapes = shapes_of(&live.anchors, self.levels);
        let chosen = self.shape.and_then(|s| shapes.get(s as usize)).map_or("all shapes", String::as_str);
        let choice = ComboBox::from_id_salt("anchor shape").selected_text(chosen.to_string()).show_ui(ui, |ui| {
            ui.selectable_value(&mut self.shape, None, "all shapes");
            for (index, name) in shapes.iter().enumerate() {
                ui.selectable_value(&mut self.shape, Some(index as u32), name.as_str());
            }
        });
        choice.response.on_hover_text("One anchor of the cell: its size and ratio, on the finest level shown");
        let chosen = COLORS.iter().find(|(c, _)| *c == self.color).map_or("", |(_, name)| *name);
        let choice = ComboBox::from_id_salt("anchor colour").selected_text(chosen).show_ui(ui, |ui| {
            for (color, name) in COLORS {
                ui.selectable_value(&mut self.color, color, name);
            }
        });
        choice.response.on_hover_text("What the anchors' colour tells");
        if self.cell.is_some() && ui.button("Show all cells").on_hover_text("Only one cell a level is shown").clicked()
        {
            self.cell = None;
            stale = stale.max(Stale::Cell);
        }
        stale
    }

    pub(super) fn thresholds(&mut self, ui: &mut Ui) -> Stale {
        let Some(own) = self.own else { return Stale::Nothing };
        ui.separator();
        ui.label(RichText::new("Thresholds").strong());
        let mut rule = self.rule.unwrap_or(own);
        let positive = ui.add(Slider::new(&mut rule.positive, 0.0..=1.0).text("positive threshold"));
        let positive = positive.on_hover_text("An anchor whose best IoU is this or more learns that object").changed();
        let negative = ui.add(Slider::new(&mut rule.negative, 0.0..=1.0).text("negative threshold"));
        let negative = negative.on_hover_text("An anchor whose best IoU is below this is background").changed();
        if positive {
            rule.negative = if own.positive == own.negative { rule.positive } else { rule.negative.min(rule.positive) };
        } else if negative {
            rule.positive = rule.positive.max(rule.negative);
        }
        let before = self.rule;
        if positive || negative {
            self.rule = Some(rule);
        }
        let reset = ui.add_enabled(self.rule.is_some(), egui::Button::new("Reset thresholds"));
        if reset.on_hover_text("Back to the model's own assignment").clicked() {
            self.rule = None;
        }
        if self.rule == before { Stale::Nothing } else { Stale::Matching }
    }

    /// Sizes and ratios of the recipe, where the detector has one.
    pub(super) fn ratios(&mut self, ui: &mut Ui) -> Stale {
        let Some(spec) = &self.spec else { return Stale::Nothing };
        ui.separator();
        ui.label(RichText::new("Sizes and ratios").strong());
        ui.weak("Anchors that the model was not trained with: for a look at the assignment alone.");
        let mut shapes = self.shapes.clone().unwrap_or_else(|| spec.shapes());
        let scale = Slider::new(&mut shapes.scale, 0.25..=4.0).logarithmic(true).fixed_decimals(2).text("sizes times");
        let mut changed = ui.add(scale).on_hover_text("Factor of every side").changed();
        for (old, new) in &mut shapes.ratios {
            let slider = Slider::new(new, 0.1..=8.0).logarithmic(true).text(format!("ratio {old:.2}"));
            changed |= ui.add(slider).on_hover_text("One side over the other; areas stay").changed();
        }
        let mut more = shapes.extra.is_some();
        if ui.checkbox(&mut more, "one ratio more").on_hover_text("On every level").changed() {
            shapes.extra = more.then_some(5.0);
            changed = true;
        }
        if let Some(extra) = &mut shapes.extra {
            let slider = Slider::new(extra, 0.1..=8.0).logarithmic(true).fixed_decimals(2).text("additional ratio");
            changed |= ui.add(slider).on_hover_text("One side over the other, on every level").changed();
        }
        let reset = ui.add_enabled(self.shapes.is_some(), egui::Button::new("Reset sizes and ratios"));
        let reset = reset.on_hover_text("Back to the model's own anchors").clicked();
        if !changed && !reset {
            return Stale::Nothing;
        }
        self.shapes = Some(shapes).filter(|shapes| !reset && !shapes.is_unchanged());
        // Another number a cell: a chosen shape would be another one.
        self.shape = None;
        Stale::Anchors
    }

    pub(super) fn recall(&self, ui: &mut Ui) {
        let Some(live) = self.made.as_ref().map(|made| &made.live).filter(|live| !live.best.is_empty()) else { return };
        ui.separator();
        ui.label(RichText::new("Best possible recall").strong())
            .on_hover_text("Share of the objects that some anchor overlaps with at least this IoU");
        Grid::new("recall table").num_columns(RECALLS.len()).striped(true).show(ui, |ui| {
            for threshold in RECALLS {
                ui.weak(format!("IoU {threshold}"));
            }
            ui.end_row();
            for threshold in RECALLS {
                ui.label(live.recall(threshold).map_or("—".to_string(), |r| format!("{:.1} %", r * 100.0)));
            }
            ui.end_row();
        });
        let rule = self.rule.or(self.own);
        if let Some(share) = rule.and_then(|rule| live.recall(rule.positive)) {
            let positive = rule.map_or(0.0, |rule| rule.positive);
            ui.label(format!("{:.1} % at the positive threshold of {positive:.2}", share * 100.0));
        }
        let points: Vec<[f64; 2]> = (0..=50)
            .filter_map(|step| {
                let threshold = step as f32 / 50.0;
                Some([f64::from(threshold), f64::from(live.recall(threshold)?)])
            })
            .collect();
        let plot = Plot::new("best possible recall")
            .height(110.0)
            .include_x(0.0)
            .include_x(1.0)
            .include_y(0.0)
            .include_y(1.0)
            .allow_scroll(false)
            .allow_drag(false)
            .allow_zoom(false);
        let answer = plot.show(ui, |plot| {
            plot.line(Line::new("best possible recall", PlotPoints::from(points)).color(theme::TRUTH));
            if let Some(rule) = rule {
                plot.vline(VLine::new("positive threshold", f64::from(rule.positive)).color(theme::WARNING));
            }
        });
        name_picture(&answer.response, "Best possible recall by IoU");
    }

    pub(super) fn objects(&self, ui: &mut Ui, shown: &Shown, selected: Option<usize>, actions: &mut Vec<Action>) {
        let (Some(made), Some(trace)) = (&self.made, shown.trace.as_deref()) else { return };
        if trace.objects.is_empty() {
            return;
        }
        let rule = self.rule.or(self.own);
        let covered = |index: usize| match rule {
            Some(rule) => made.live.best.get(index).is_some_and(|iou| *iou >= rule.positive),
            None => made.live.positives.get(index).is_some_and(|count| *count > 0),
        };
        let uncovered = (0..trace.objects.len()).filter(|&index| !covered(index)).count();
        ui.separator();
        ui.label(
            RichText::new(format!("{uncovered} of {} objects that no anchor covers", trace.objects.len())).strong(),
        )
        .on_hover_text("No anchor reaches the positive threshold: they learn by force alone, or not at all");
        Grid::new("objects and anchors").num_columns(3).striped(true).show(ui, |ui| {
            for (title, help) in [
                ("object", "A click selects it; the worst covered comes first"),
                ("best IoU", "max over the anchors of |A ∩ B| / |A ∪ B|"),
                ("positives", "Anchors that learn it"),
            ] {
                ui.weak(title).on_hover_text(help);
            }
            ui.end_row();
            let mut order: Vec<usize> = (0..trace.objects.len()).collect();
            order.sort_by(|&a, &b| {
                let best = |index: usize| made.live.best.get(index).copied().unwrap_or(0.0);
                best(a).total_cmp(&best(b)).then(a.cmp(&b))
            });
            for index in order.into_iter().take(200) {
                let Some(object) = trace.objects.get(index) else { continue };
                let name = class_name(&shown.object_classes, object.class);
                let color = if covered(index) { ui.visuals().text_color() } else { ui.visuals().error_fg_color };
                let mark = if covered(index) { "" } else { " (not covered)" };
                let text = RichText::new(format!("{name} {index}{mark}")).color(color);
                if ui.selectable_label(selected == Some(index), text).clicked() {
                    let other = shown_object(shown, index).filter(|_| selected != Some(index));
                    actions.push(Action::SelectObject(other));
                }
                ui.label(format!("{:.2}", made.live.best.get(index).copied().unwrap_or(0.0)));
                ui.label(made.live.positives.get(index).copied().unwrap_or(0).to_string());
                ui.end_row();
            }
        });
    }
}

/// Sizes of the anchors of one cell, on the finest level that `levels` shows.
fn shapes_of(anchors: &Anchors, levels: u32) -> Vec<String> {
    let shown = |index: usize| index >= 32 || (levels >> index) & 1 == 1;
    let Some((_, level)) = anchors.levels.iter().enumerate().find(|(index, _)| shown(*index)) else {
        return Vec::new();
    };
    // A cell of the middle: those at the border may be clipped.
    let first = level.start + (level.rows / 2 * level.columns + level.columns / 2) * level.per_cell;
    let cell = anchors.boxes.get(first..first + level.per_cell).unwrap_or_default();
    cell.iter().map(|b| format!("{:.0}×{:.0} px", b.width(), b.height())).collect()
}
