//! Step panel: one training iteration, taken apart: phases, losses, the batch, its matched anchors and mined negatives.

use crate::app::action::Action;
use crate::app::state::State;
use crate::app::theme;
use crate::detect::Arch;
use crate::engine::Stepped;
use crate::trace::{Rule, Trace};
use crate::train::TrainConfig;
use egui::{
    Color32, ColorImage, Grid, Pos2, Rect, RichText, ScrollArea, Sense, Slider, Stroke, StrokeKind, TextureHandle, Ui,
    vec2,
};
use std::path::PathBuf;

/// Scratch of the panel: the settings of the next run and what is looked at of the last step.
#[derive(Default)]
pub struct StepPanel {
    pub draft: Option<(Arch, TrainConfig)>,
    pub write: bool,
    image: usize,
    /// Anchor chosen in a table.
    anchor: Option<usize>,
    texture: Option<(u64, usize, TextureHandle)>,
}

impl StepPanel {
    /// The folder of the next run, when it is to be written.
    pub fn folder(&self, arch: Arch) -> Option<PathBuf> {
        let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        self.write.then(|| PathBuf::from("runs").join(format!("{arch}-{seconds}")))
    }

    pub fn select_image(&mut self, image: usize) {
        self.image = image;
        self.anchor = None;
    }

    pub fn ui(&mut self, ui: &mut Ui, state: &State, actions: &mut Vec<Action>) {
        ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
            match &state.training {
                None => self.prepare(ui, state, actions),
                Some(training) => {
                    let total = training.config.train.iterations;
                    ui.horizontal_wrapped(|ui| {
                        let text = if training.running { "Pause" } else { "Train" };
                        if ui.button(text).on_hover_text("Space").clicked() {
                            actions.push(Action::TrainOrPause);
                        }
                        for (count, name) in [(1, "Step"), (10, "Step 10"), (100, "Step 100")] {
                            let button = ui.add_enabled(!training.running, egui::Button::new(name));
                            if button.on_hover_text("Runs with the probe on the last iteration, then pauses").clicked()
                            {
                                actions.push(Action::Step(count));
                            }
                        }
                        if ui
                            .button("Stop")
                            .on_hover_text("Ends the run; its weights become the loaded model")
                            .clicked()
                        {
                            actions.push(Action::StopTraining);
                        }
                    });
                    let share = training.iteration as f32 / total.max(1) as f32;
                    ui.add(egui::ProgressBar::new(share).text(format!("iteration {} of {total}", training.iteration)));
                }
            }
            if let Some(report) = &state.last_step {
                ui.separator();
                losses(ui, report);
            }
            if let Some(stepped) = state.stepped.clone() {
                ui.separator();
                self.batch(ui, &stepped, state.stepped_version, actions);
            }
        });
    }

    /// Settings of a run that is not there yet.
    fn prepare(&mut self, ui: &mut Ui, state: &State, actions: &mut Vec<Action>) {
        let arch = state.model.as_ref().map_or(Arch::SsdNano, |m| m.config.arch());
        if self.draft.as_ref().is_none_or(|(of, _)| *of != arch) {
            self.draft = Some((arch, TrainConfig::new(arch)));
        }
        let trainable = state.data.as_ref().is_some_and(|d| d.class_counts.iter().sum::<usize>() > 0);
        if let Some((_, draft)) = &mut self.draft {
            ui.add(Slider::new(&mut draft.iterations, 1..=200_000).logarithmic(true).text("iterations"));
            ui.add(Slider::new(&mut draft.batch, 1..=64).text("images a batch"));
            let rate =
                Slider::new(&mut draft.schedule.learning_rate, 1e-6..=1.0).logarithmic(true).text("learning rate");
            ui.add(rate).on_hover_text("η, after the warm-up");
            ui.add(Slider::new(&mut draft.momentum, 0.0..=0.99).text("momentum"))
                .on_hover_text("μ of SGD, β₁ of AdamW");
            ui.add(Slider::new(&mut draft.weight_decay, 0.0..=0.1).text("weight decay")).on_hover_text("λ");
        }
        ui.checkbox(&mut self.write, "write the run to runs/").on_hover_text("Metrics and checkpoints to resume from");
        let why_not = "Open a data set with annotated objects first";
        let fits = state.model.as_ref().zip(state.data.as_ref()).is_some_and(|(m, d)| m.config.classes() == d.classes);
        ui.horizontal_wrapped(|ui| {
            let fresh = ui.add_enabled(trainable, egui::Button::new("Start from random weights"));
            if fresh.on_disabled_hover_text(why_not).clicked() {
                actions.push(Action::StartTraining { from_current: false });
            }
            let tune = ui.add_enabled(trainable && fits, egui::Button::new("Start from the loaded weights"));
            if tune.on_disabled_hover_text("Needs a loaded model of the data set's classes").clicked() {
                actions.push(Action::StartTraining { from_current: true });
            }
            let step = ui.add_enabled(trainable, egui::Button::new("Step"));
            if step.on_hover_text("Starts a run and takes one iteration").on_disabled_hover_text(why_not).clicked() {
                actions.push(Action::Step(1));
            }
        });
    }

    /// The probed batch: its images, what was matched and mined in one of them.
    fn batch(&mut self, ui: &mut Ui, stepped: &Stepped, version: u64, actions: &mut Vec<Action>) {
        let traces = &stepped.report.traces;
        if traces.is_empty() {
            return;
        }
        self.image = self.image.min(traces.len() - 1);
        ui.label(RichText::new(format!("Batch of iteration {}", stepped.report.iteration)).strong());
        ui.horizontal_wrapped(|ui| {
            for (index, trace) in traces.iter().enumerate() {
                let loss = image_loss(trace);
                let name = stepped.report.images.get(index).map_or("", String::as_str);
                let button = ui.selectable_label(index == self.image, format!("{loss:.2}"));
                if button.on_hover_text(format!("{name}: share of the loss")).clicked() {
                    actions.push(Action::StepImage(index));
                }
            }
        });
        let Some(trace) = traces.get(self.image) else { return };
        if let Some(name) = stepped.report.images.get(self.image) {
            ui.weak(name);
        }
        self.picture(ui, stepped, trace, version);
        self.tables(ui, stepped, trace);
    }

    fn picture(&mut self, ui: &mut Ui, stepped: &Stepped, trace: &Trace, version: u64) {
        let Some(input) = &trace.input else { return };
        let current = self.texture.as_ref().is_some_and(|(v, i, _)| (*v, *i) == (version, self.image));
        if !current {
            let pixels = input_rgb(input, stepped);
            let image = ColorImage::from_rgb([input.width, input.height], &pixels);
            let texture = ui.ctx().load_texture("training image", image, egui::TextureOptions::NEAREST);
            self.texture = Some((version, self.image, texture));
        }
        let Some((_, _, texture)) = &self.texture else { return };
        let width = ui.available_width().min(420.0);
        let scale = width / input.width.max(1) as f32;
        let (rect, response) = ui.allocate_exact_size(vec2(width, input.height as f32 * scale), Sense::click());
        let painter = ui.painter_at(rect);
        painter.image(texture.id(), rect, Rect::from_min_max(Pos2::ZERO, Pos2::new(1.0, 1.0)), Color32::WHITE);
        let to_screen = |b: crate::geometry::BBox| {
            let min = rect.min + vec2(b.x0, b.y0) * scale;
            Rect::from_min_max(min, rect.min + vec2(b.x1, b.y1) * scale)
        };
        for sample in &trace.sampling {
            let Some(&anchor) = trace.anchors.boxes.get(sample.anchor as usize) else { continue };
            let color = if sample.positive { theme::TRUTH } else { theme::ERROR };
            let chosen = self.anchor == Some(sample.anchor as usize);
            if sample.positive || sample.rank < 12 || chosen {
                let stroke =
                    Stroke::new(if chosen { 3.0 } else { 1.0 }, color.gamma_multiply(if chosen { 1.0 } else { 0.6 }));
                painter.rect_stroke(to_screen(anchor), 0.0, stroke, StrokeKind::Middle);
            }
        }
        for object in &trace.objects {
            painter.rect_stroke(to_screen(object.bbox), 0.0, Stroke::new(2.0, Color32::WHITE), StrokeKind::Middle);
        }
        if let Some(pointer) = response.interact_pointer_pos().filter(|_| response.clicked()) {
            let at = (pointer - rect.min) / scale;
            self.anchor = nearest_sample(trace, at.x, at.y);
        }
        ui.weak(
            "white: objects · green: positive anchors · orange: the 12 hardest negatives · click chooses an anchor",
        );
    }

    fn tables(&mut self, ui: &mut Ui, stepped: &Stepped, trace: &Trace) {
        let Some(assignment) = &trace.assignment else { return };
        let positives = trace.sampling.iter().filter(|s| s.positive).count();
        let negatives = trace.sampling.len() - positives;
        ui.label(format!(
            "{} anchors: {positives} positive, {negatives} mined of {} background",
            assignment.target.len(),
            assignment.target.iter().filter(|t| **t == -1).count()
        ));
        if let Some(anchor) = self.anchor {
            anchor_card(ui, stepped, trace, anchor);
        }
        ui.collapsing("Positives", |ui| {
            Grid::new("positives").num_columns(5).striped(true).show(ui, |ui| {
                header(ui, &["anchor", "object", "rule", "IoU", "loss"]);
                for sample in trace.sampling.iter().filter(|s| s.positive).take(100) {
                    let index = sample.anchor as usize;
                    self.anchor_link(ui, index);
                    let target = assignment.target.get(index).copied().unwrap_or(-1);
                    let object = usize::try_from(target).ok().and_then(|t| trace.objects.get(t));
                    ui.label(object.map_or("—", |o| class_name(stepped, o.class)));
                    ui.label(assignment.rule.get(index).map_or("—", |r| rule_name(*r)));
                    ui.label(format!("{:.2}", assignment.iou.get(index).copied().unwrap_or(0.0)));
                    ui.label(format!("{:.3}", sample.loss));
                    ui.end_row();
                }
            });
        });
        ui.collapsing("Hard negatives by loss", |ui| {
            Grid::new("negatives").num_columns(4).striped(true).show(ui, |ui| {
                header(ui, &["rank", "anchor", "IoU", "loss"]);
                for sample in trace.sampling.iter().filter(|s| !s.positive).take(100) {
                    let index = sample.anchor as usize;
                    ui.label((sample.rank + 1).to_string());
                    self.anchor_link(ui, index);
                    ui.label(format!("{:.2}", assignment.iou.get(index).copied().unwrap_or(0.0)));
                    ui.label(format!("{:.3}", sample.loss));
                    ui.end_row();
                }
            });
        });
    }

    fn anchor_link(&mut self, ui: &mut Ui, anchor: usize) {
        if ui.selectable_label(self.anchor == Some(anchor), anchor.to_string()).clicked() {
            self.anchor = Some(anchor);
        }
    }
}

fn header(ui: &mut Ui, titles: &[&str]) {
    for title in titles {
        ui.weak(*title);
    }
    ui.end_row();
}

/// Phases and parts of one iteration.
fn losses(ui: &mut Ui, report: &crate::train::StepReport) {
    Grid::new("parts").num_columns(2).show(ui, |ui| {
        ui.label(RichText::new("loss").strong());
        ui.label(RichText::new(format!("{:.4}", report.loss)).strong());
        ui.end_row();
        for (name, value) in &report.parts {
            ui.label(name);
            ui.label(format!("{value:.4}"));
            ui.end_row();
        }
        ui.weak("gradient norm").on_hover_text("L2 norm of all gradients, before clipping");
        ui.label(format!("{:.3}", report.gradient_norm));
        ui.end_row();
        ui.weak("learning rate");
        ui.label(format!("{:.6}", report.learning_rate));
        ui.end_row();
    });
    let whole = report.seconds.max(1e-9);
    ui.collapsing(format!("{:.0} ms, by phase", whole * 1e3), |ui| {
        Grid::new("phases").num_columns(3).show(ui, |ui| {
            let mut row = |name: &str, seconds: f64| {
                ui.label(name);
                ui.label(format!("{:.1} ms", seconds * 1e3));
                ui.label(format!("{:.0} %", 100.0 * seconds / whole));
                ui.end_row();
            };
            row("wait for data", report.data_seconds);
            for time in &report.timings {
                row(&time.stage, time.seconds);
            }
        });
    });
}

/// Everything about one anchor, with the loss formula filled in.
fn anchor_card(ui: &mut Ui, stepped: &Stepped, trace: &Trace, anchor: usize) {
    let Some(assignment) = &trace.assignment else { return };
    let (Some(bbox), Some(&target)) = (trace.anchors.boxes.get(anchor), assignment.target.get(anchor)) else { return };
    ui.group(|ui| {
        let level = trace.anchors.level_of(anchor).map_or("—".to_string(), |l| l.to_string());
        ui.label(RichText::new(format!("Anchor {anchor}, level {level}")).strong());
        ui.label(format!(
            "[{:.1} {:.1} {:.1} {:.1}], {:.0}×{:.0} px",
            bbox.x0,
            bbox.y0,
            bbox.x1,
            bbox.y1,
            bbox.width(),
            bbox.height()
        ));
        let object = usize::try_from(target).ok().and_then(|t| trace.objects.get(t));
        let learns = object.map_or("background", |o| class_name(stepped, o.class));
        let rule = assignment.rule.get(anchor).map_or("—", |r| rule_name(*r));
        ui.label(format!(
            "learns {learns}: {rule}, best IoU {:.3}",
            assignment.iou.get(anchor).copied().unwrap_or(0.0)
        ));
        for part in &trace.losses {
            let Some(&own) = part.per_anchor.get(anchor) else { continue };
            let counted = trace.sampling.iter().any(|s| s.anchor as usize == anchor);
            let share = if counted { own / part.normalizer } else { 0.0 };
            let note = if counted { "" } else { " (not sampled: counts 0)" };
            ui.label(format!("{}: {own:.4} / N = {own:.4} / {:.0} = {share:.5}{note}", part.name, part.normalizer));
        }
        if let (Some(object), Some(coder)) = (object, stepped.coder) {
            let t = coder.encode(*bbox, object.bbox);
            ui.label(format!("target deltas ({:.3}, {:.3}, {:.3}, {:.3})", t[0], t[1], t[2], t[3]))
                .on_hover_text("((x−xa)/wa/σx, (y−ya)/ha/σy, ln(w/wa)/σw, ln(h/ha)/σh)");
        }
    });
}

fn rule_name(rule: Rule) -> &'static str {
    match rule {
        Rule::Threshold => "IoU above the threshold",
        Rule::BestForObject => "best anchor of its object",
        Rule::Background => "background",
        Rule::Ignored => "ignored",
        Rule::Filtered => "filtered",
        Rule::Center => "inside the centre region",
    }
}

fn class_name(stepped: &Stepped, class: u32) -> &str {
    stepped.classes.get(class as usize).map_or("?", String::as_str)
}

/// What this image adds to the batch's loss: sampled anchors' losses over the normaliser.
fn image_loss(trace: &Trace) -> f32 {
    let sampled = |part: &crate::trace::LossPart| -> f32 {
        let of = |s: &crate::trace::Sample| part.per_anchor.get(s.anchor as usize).copied().unwrap_or(0.0);
        trace.sampling.iter().map(of).sum::<f32>() / part.normalizer.max(1.0)
    };
    trace.losses.iter().map(sampled).sum()
}

/// The sampled anchor whose centre is nearest to a point of the input.
fn nearest_sample(trace: &Trace, x: f32, y: f32) -> Option<usize> {
    let distance = |index: usize| {
        trace.anchors.boxes.get(index).map_or(f32::INFINITY, |b| {
            let (cx, cy) = b.center();
            (cx - x).powi(2) + (cy - y).powi(2)
        })
    };
    let sampled = trace.sampling.iter().map(|s| s.anchor as usize);
    sampled.min_by(|a, b| distance(*a).total_cmp(&distance(*b)))
}

/// The network's input as 8-bit RGB again.
fn input_rgb(input: &crate::trace::FeatureMap, stepped: &Stepped) -> Vec<u8> {
    let plane = input.width * input.height;
    let mut pixels = vec![0; plane * 3];
    for channel in 0..3 {
        let shown = if stepped.bgr { 2 - channel } else { channel };
        let Some(values) = input.data.get(channel * plane..(channel + 1) * plane) else { continue };
        for (index, value) in values.iter().enumerate() {
            pixels[index * 3 + shown] =
                (value * stepped.std[channel] + stepped.mean[channel]).round().clamp(0.0, 255.0) as u8;
        }
    }
    pixels
}
