//! Log panel: everything reported, with severity and source.

use crate::app::action::Action;
use crate::app::state::State;
use crate::app::theme;
use crate::engine::Severity;
use egui::{RichText, ScrollArea, Ui};

/// Scratch of the panel.
#[derive(Debug)]
pub struct LogPanel {
    filter: String,
    least: Severity,
}

impl Default for LogPanel {
    fn default() -> Self {
        Self { filter: String::new(), least: Severity::Info }
    }
}

impl LogPanel {
    pub fn ui(&mut self, ui: &mut Ui, state: &State, actions: &mut Vec<Action>) {
        ui.horizontal(|ui| {
            let label = ui.label("Filter");
            ui.text_edit_singleline(&mut self.filter).labelled_by(label.id);
            for (least, name) in [(Severity::Info, "All"), (Severity::Warning, "Warnings"), (Severity::Error, "Errors")]
            {
                ui.selectable_value(&mut self.least, least, name);
            }
            if ui.button("Copy").on_hover_text("Copy the lines below").clicked() {
                let lines: Vec<String> = self.lines(state).map(|l| format!("{}: {}", l.source, l.message)).collect();
                ui.copy_text(lines.join("\n"));
            }
            if ui.button("Clear").clicked() {
                actions.push(Action::ClearLog);
            }
        });
        let lines: Vec<_> = self.lines(state).collect();
        let height = ui.text_style_height(&egui::TextStyle::Body);
        ScrollArea::both().auto_shrink(false).stick_to_bottom(true).show_rows(ui, height, lines.len(), |ui, rows| {
            for line in lines.get(rows).unwrap_or_default() {
                let mark = match line.severity {
                    Severity::Info => RichText::new("·"),
                    Severity::Warning => RichText::new("!").color(theme::WARNING),
                    Severity::Error => RichText::new("x").strong().color(theme::ERROR),
                };
                ui.horizontal(|ui| {
                    ui.label(mark);
                    ui.weak(&line.source);
                    ui.add(egui::Label::new(&line.message).extend());
                });
            }
        });
    }

    fn lines<'a>(&'a self, state: &'a State) -> impl Iterator<Item = &'a crate::app::state::LogLine> {
        let wanted = self.filter.to_lowercase();
        state.log.iter().filter(move |l| {
            l.severity >= self.least
                && (wanted.is_empty()
                    || l.message.to_lowercase().contains(&wanted)
                    || l.source.to_lowercase().contains(&wanted))
        })
    }
}
