//! Health of the open data: what is wrong with it, rule by rule; a click on a finding shows its image.

use super::filter::stem;
use crate::app::action::Action;
use crate::app::layout::Panel;
use crate::app::state::State;
use crate::app::theme;
use crate::data::{Finding, Severity};
use crate::engine::event::DataSummary;
use egui::{RichText, ScrollArea, Ui};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Scratch of the page.
#[derive(Default)]
pub(super) struct HealthPage {
    groups: Option<Groups>,
}

/// Findings by rule, remade when others come.
struct Groups {
    of: (usize, usize),
    /// Worst first.
    list: Vec<Group>,
}

struct Group {
    severity: Severity,
    rule: String,
    items: Vec<Item>,
    open: bool,
}

struct Item {
    text: String,
    /// Position of its image, where it is about one.
    image: Option<usize>,
}

impl HealthPage {
    pub(super) fn ui(&mut self, ui: &mut Ui, state: &State, data: &Arc<DataSummary>, actions: &mut Vec<Action>) {
        controls(ui, state, actions);
        let checked = state.checked.as_ref();
        let of = (Arc::as_ptr(data) as usize, checked.map_or(0, |checked| Arc::as_ptr(checked) as usize));
        if self.groups.as_ref().is_none_or(|groups| groups.of != of) {
            let findings = checked.map_or(data.findings.as_slice(), |checked| checked.as_slice());
            self.groups = Some(Groups { of, list: grouped(findings, data) });
        }
        let Some(groups) = &mut self.groups else { return };
        let what = if checked.is_some() { "" } else { ", from reading alone: check for the rest" };
        if groups.list.is_empty() {
            ui.label(format!("Nothing found{what}."));
            return;
        }
        let count: usize = groups.list.iter().map(|group| group.items.len()).sum();
        ui.weak(format!("{count} findings{what}"));
        let mut lines: Vec<(usize, Option<usize>)> = Vec::new();
        for (number, group) in groups.list.iter().enumerate() {
            lines.push((number, None));
            if group.open {
                lines.extend((0..group.items.len()).map(|item| (number, Some(item))));
            }
        }
        let mut toggled = None;
        let height = ui.spacing().interact_size.y;
        ScrollArea::both().id_salt("findings").auto_shrink(false).show_rows(ui, height, lines.len(), |ui, range| {
            for &(number, item) in lines.get(range).unwrap_or_default() {
                let Some(group) = groups.list.get(number) else { continue };
                match item.and_then(|item| group.items.get(item)) {
                    None => {
                        let mark = if group.open { "−" } else { "+" };
                        let text = format!("{mark} {}: {}", group.rule, group.items.len());
                        let text = RichText::new(text).color(color(group.severity)).strong();
                        let help = format!("{:?}; a click opens or closes the list", group.severity);
                        if ui.selectable_label(false, text).on_hover_text(help).clicked() {
                            toggled = Some(number);
                        }
                    }
                    Some(item) => {
                        ui.horizontal(|ui| {
                            ui.add_space(12.0);
                            line(ui, item, state, actions);
                        });
                    }
                }
            }
        });
        if let Some(group) = toggled.and_then(|number| groups.list.get_mut(number)) {
            group.open = !group.open;
        }
    }
}

fn line(ui: &mut Ui, item: &Item, state: &State, actions: &mut Vec<Action>) {
    let Some(image) = item.image else {
        ui.label(&item.text);
        return;
    };
    let button = ui.selectable_label(state.wanted == image, &item.text);
    if button.on_hover_text("Show the image").clicked() {
        actions.push(Action::Show(image));
        actions.push(Action::Focus(Panel::Image));
    }
}

fn controls(ui: &mut Ui, state: &State, actions: &mut Vec<Action>) {
    ui.horizontal_wrapped(|ui| {
        if let Some(progress) = state.progress.as_ref().filter(|progress| progress.task == "check") {
            let share = progress.done as f32 / progress.total.max(1) as f32;
            let left = progress.seconds_left().map_or(String::new(), |left| format!(", {left:.0} s left"));
            let text = format!("{} of {}{left}", progress.done, progress.total);
            ui.add(egui::ProgressBar::new(share).desired_width(180.0).text(text));
            if ui.button("Cancel").on_hover_text("End the check; what it found so far stays").clicked() {
                actions.push(Action::Cancel);
            }
            return;
        }
        let ready = !state.is_training();
        let why_not = "Not while training runs";
        for (name, pixels, help) in [
            ("Check", false, "Files, boxes, classes and what the network's input makes too small; reads headers alone"),
            ("Check every pixel", true, "Also files that break off, and pictures that are there twice"),
        ] {
            let button = ui.add_enabled(ready, egui::Button::new(name)).on_hover_text(help);
            if button.on_disabled_hover_text(why_not).clicked() {
                actions.push(Action::CheckData { pixels });
            }
        }
    });
}

fn color(severity: Severity) -> egui::Color32 {
    match severity {
        Severity::Error => theme::ERROR,
        Severity::Warning => theme::WARNING,
        Severity::Info => egui::Color32::GRAY,
    }
}

/// Findings by severity and rule, each with the position of the image that it names.
fn grouped(findings: &[Finding], data: &DataSummary) -> Vec<Group> {
    let positions: HashMap<&str, usize> =
        data.images.iter().enumerate().rev().map(|(index, image)| (stem(&image.name), index)).collect();
    let mut by_rule: BTreeMap<(Severity, &str), Vec<Item>> = BTreeMap::new();
    for finding in findings {
        let object = finding.object.map(|object| format!(", object {object}")).unwrap_or_default();
        let item = Item {
            text: format!("{}{object}: {}", finding.file, finding.message),
            image: positions.get(stem(&finding.file)).copied(),
        };
        by_rule.entry((finding.severity, finding.rule.as_str())).or_default().push(item);
    }
    let groups = by_rule.into_iter();
    groups.map(|((severity, rule), items)| Group { severity, rule: rule.to_owned(), items, open: false }).collect()
}
