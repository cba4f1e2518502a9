//! Log panel: everything reported, with severity and source; a chosen line opens the file or image that it names.

use crate::app::action::Action;
use crate::app::layout::Panel;
use crate::app::state::{LogLine, State};
use crate::app::theme;
use crate::engine::Severity;
use egui::{Color32, RichText, ScrollArea, Ui};
use std::path::{Path, PathBuf};

/// Scratch of the panel.
#[derive(Debug)]
pub struct LogPanel {
    filter: String,
    least: Severity,
    chosen: Option<Chosen>,
}

/// A line that was clicked, and what there is to open.
#[derive(Clone, Debug, PartialEq)]
struct Chosen {
    source: String,
    message: String,
    /// A file or folder that is there.
    path: Option<PathBuf>,
    /// Position of an image of the open data.
    image: Option<usize>,
}

impl Default for LogPanel {
    fn default() -> Self {
        Self { filter: String::new(), least: Severity::Info, chosen: None }
    }
}

impl LogPanel {
    pub fn ui(&mut self, ui: &mut Ui, state: &State, actions: &mut Vec<Action>) {
        ui.horizontal_wrapped(|ui| {
            let label = ui.label("Filter");
            ui.text_edit_singleline(&mut self.filter).labelled_by(label.id);
            for (least, name, help) in [
                (Severity::Info, "All", "Every line"),
                (Severity::Warning, "Warnings", "Warnings and errors"),
                (Severity::Error, "Errors", "Errors alone"),
            ] {
                ui.selectable_value(&mut self.least, least, name).on_hover_text(help);
            }
            if ui.button("Copy").on_hover_text("Copy the lines below").clicked() {
                let lines: Vec<String> = self.lines(state).map(written).collect();
                ui.copy_text(lines.join("\n"));
            }
            if ui.button("Clear").on_hover_text("Forget every line").clicked() {
                self.chosen = None;
                actions.push(Action::ClearLog);
            }
        });
        self.chosen_line(ui, actions);
        let lines: Vec<&LogLine> = self.lines(state).collect();
        let mut clicked = None;
        let height = ui.text_style_height(&egui::TextStyle::Body);
        ScrollArea::both().auto_shrink(false).stick_to_bottom(true).show_rows(ui, height, lines.len(), |ui, rows| {
            for line in lines.get(rows).unwrap_or_default() {
                let (mark, color) = match line.severity {
                    Severity::Info => ("·", Color32::GRAY),
                    Severity::Warning => ("!", theme::WARNING),
                    Severity::Error => ("x", theme::ERROR),
                };
                ui.horizontal(|ui| {
                    ui.label(RichText::new(mark).strong().color(theme::readable(ui, color)));
                    ui.weak(&line.source);
                    let text = egui::Label::new(&line.message).extend().sense(egui::Sense::click());
                    if ui.add(text).on_hover_text("A click shows what can be done with the line").clicked() {
                        clicked = Some(*line);
                    }
                });
            }
        });
        if let Some(line) = clicked {
            let chosen = Chosen::new(line, state);
            self.chosen = if self.chosen.as_ref() == Some(&chosen) { None } else { Some(chosen) };
        }
    }

    /// What can be done with the line that was clicked.
    fn chosen_line(&mut self, ui: &mut Ui, actions: &mut Vec<Action>) {
        let Some(chosen) = self.chosen.clone() else { return };
        ui.separator();
        ui.horizontal_wrapped(|ui| {
            if ui.button("Copy line").on_hover_text("With its source").clicked() {
                ui.copy_text(format!("{}: {}", chosen.source, chosen.message));
            }
            if let Some(path) = &chosen.path {
                let name = if path.is_dir() { "Open folder" } else { "Open file" };
                if ui.button(name).on_hover_text(path.display().to_string()).clicked() {
                    actions.push(Action::Reveal(path.clone()));
                }
                if let Some(folder) = path.parent().filter(|_| path.is_file())
                    && ui.button("Open its folder").on_hover_text(folder.display().to_string()).clicked()
                {
                    actions.push(Action::Reveal(folder.to_path_buf()));
                }
            }
            if let Some(image) = chosen.image
                && ui.button("Show the image").on_hover_text("The one that the line names").clicked()
            {
                actions.push(Action::Show(image));
                actions.push(Action::Focus(Panel::Image));
            }
            if ui.button("Close line").on_hover_text("The line stays in the log").clicked() {
                self.chosen = None;
            }
        });
        ui.label(&chosen.message);
        ui.separator();
    }

    fn lines<'a>(&'a self, state: &'a State) -> impl Iterator<Item = &'a LogLine> {
        let wanted = self.filter.to_lowercase();
        state.log.iter().filter(move |l| {
            l.severity >= self.least
                && (wanted.is_empty()
                    || l.message.to_lowercase().contains(&wanted)
                    || l.source.to_lowercase().contains(&wanted))
        })
    }
}

impl Chosen {
    fn new(line: &LogLine, state: &State) -> Self {
        let images = state.data.as_ref().map(|data| data.images.as_slice()).unwrap_or_default();
        let first = line.message.split(": ").next().unwrap_or_default();
        let first = first.split(" object ").next().unwrap_or(first);
        Self {
            source: line.source.clone(),
            message: line.message.clone(),
            path: named_path(&line.message),
            image: images.iter().position(|image| image.name == first),
        }
    }
}

fn written(line: &LogLine) -> String {
    let severity = format!("{:?}", line.severity).to_lowercase();
    format!("{severity} {}: {}", line.source, line.message)
}

/// The last part of a message that is a file or folder which exists: errors put the path at their end, notes behind a
/// word such as "in".
fn named_path(message: &str) -> Option<PathBuf> {
    let starts = message.match_indices([' ', ':']).map(|(at, separator)| at + separator.len());
    let candidates = std::iter::once(0).chain(starts).filter_map(|at| message.get(at..));
    let mut named = candidates.map(|rest| Path::new(rest.trim())).filter(|path| path.components().count() > 1);
    named.find(|path| path.exists()).map(Path::to_path_buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_at_the_end_of_a_message_is_found_and_words_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a run: last.txt");
        std::fs::write(&file, b"x").unwrap();
        let found = |text: String| named_path(&text);
        assert_eq!(found(format!("cannot read it (torn): {}", file.display())), Some(file.clone()));
        assert_eq!(
            found(format!("run ready at iteration 3, in {}", folder.path().display())),
            Some(folder.path().into())
        );
        assert_eq!(found("nothing: here / there".into()), None);
        assert_eq!(found(String::new()), None);
    }
}
