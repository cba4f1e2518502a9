//! What leaves the window: views as files, results, and files opened by other programs.

use super::Workbench;
use crate::app::action::{Action, Dialog};
use crate::app::export::{self, Draft, Figure, Format, records};
use crate::app::layout::Panel;
use crate::engine::{Command, Severity};
use egui::Ui;
use std::path::Path;

/// The menu at the right of a panel's tabs.
pub(super) fn menu(ui: &mut Ui, panel: Panel, actions: &mut Vec<Action>) {
    let menu = ui.menu_button("Export", |ui| {
        for format in Format::ALL {
            let text = format!("{} as {}…", panel.name(), format.name());
            let help = match format {
                Format::Png => "Pixels, as seen",
                Format::Svg => "Shapes and text, with the picture inside",
                Format::Csv => "The numbers behind the view",
            };
            if ui.button(text).on_hover_text(help).clicked() {
                actions.push(Action::OpenDialog(Dialog::Export(panel, format)));
            }
        }
        if panel == Panel::Evaluation
            && ui.button("COCO results…").on_hover_text("What was scored last, as others' tools read it").clicked()
        {
            actions.push(Action::OpenDialog(Dialog::SaveResults));
        }
    });
    let help = "What the panel shows, as a file";
    menu.response.on_hover_text(help).accessible_name(format!("Export {}", panel.name()));
}

/// A figure of little work.
fn made(figure: Figure) -> Draft {
    Box::new(move || figure)
}

impl Workbench {
    /// Does what writes or opens files.
    pub(super) fn send_out(&mut self, action: Action) {
        match action {
            Action::Export { panel, path } => self.export(panel, &path),
            Action::ExportView(path) => self.export_view(&path),
            Action::SaveResults(path) => self.send(Command::SaveResults { path }),
            Action::Reveal(path) => self.reveal(&path),
            _ => {}
        }
    }

    /// Writes what the panel used last shows, or the picture where that is a list.
    fn export_view(&mut self, path: &Path) {
        let Some(last) = self.panels.pipeline.attention.and_then(|panel| self.draft_of(panel)) else {
            return self.export(Panel::Image, path);
        };
        let picture = if Format::of(path) == Ok(Format::Csv) { None } else { self.draft_of(Panel::Image) };
        let draft = move || match (last(), picture) {
            (list, Some(picture)) if list.drawing.is_none() => picture(),
            (figure, _) => figure,
        };
        self.write(Box::new(draft), path);
    }

    fn export(&mut self, panel: Panel, path: &Path) {
        match self.draft_of(panel) {
            Some(draft) => self.write(draft, path),
            None => {
                let text = format!("the {} panel shows nothing yet", panel.name());
                self.state.note(Severity::Error, "export", text);
            }
        }
    }

    /// Makes the figure, draws, encodes and writes it on the thread for files; what becomes of it is told when it is
    /// done.
    fn write(&mut self, draft: Draft, path: &Path) {
        let file = path.to_path_buf();
        if !self.writer.write(move || export::write(&draft(), &file, export::PLOT).map(|()| file)) {
            let text = format!("too many files wait to be written; try again in a moment: {}", path.display());
            self.state.note(Severity::Error, "export", text);
        }
    }

    /// Tells what became of files.
    pub(super) fn take_written(&mut self) {
        while let Some(written) = self.writer.poll() {
            match written {
                Ok(path) => {
                    let text = format!("written: {}", path.display());
                    self.toasts.tell("Export", &text);
                    self.state.note(Severity::Info, "export", text);
                }
                Err(error) => self.state.note(Severity::Error, "export", error),
            }
        }
    }

    /// What a panel shows, to be made a figure of.
    fn draft_of(&mut self, panel: Panel) -> Option<Draft> {
        let (state, settings, panels) = (&self.state, &self.settings, &mut self.panels);
        match panel {
            Panel::Data => panels.data.draft(state),
            Panel::Model => state.model.clone().map(|model| -> Draft { Box::new(move || records::model(&model)) }),
            Panel::Image => Some(made(panels.image.figure(state.shown.as_deref()?, state.shown_version, settings))),
            Panel::Losses => panels.losses.draft(state),
            Panel::Step => state.stepped.clone().map(|step| -> Draft { Box::new(move || records::step(&step)) }),
            Panel::Evaluation => Some(panels.evaluation.draft(state.evaluation.clone()?, settings)),
            Panel::Compare => panels.compare.figure(state, settings).map(made),
            Panel::Features => panels.features.draft(state, settings),
            Panel::Runs => state.runs.list.clone().map(|list| -> Draft { Box::new(move || records::runs(&list)) }),
            Panel::Log => Some(made(records::log(state.log.iter()))),
            other => panels.pipeline.draft(other, &mut panels.image, state),
        }
    }

    /// Hands a file or folder to the system's own program for it, without waiting for that.
    fn reveal(&mut self, path: &Path) {
        let program = if cfg!(target_os = "macos") {
            "open"
        } else if cfg!(windows) {
            "explorer"
        } else {
            "xdg-open"
        };
        // An absolute path cannot be taken for an option.
        let opened = std::path::absolute(path).and_then(|path| {
            let child = std::process::Command::new(program).arg(path).spawn()?;
            // Somebody has to take the child's exit status, or it stays behind as a zombie.
            let wait = move || {
                let mut child = child;
                _ = child.wait();
            };
            std::thread::Builder::new().name("boxwright-opened".into()).spawn(wait)
        });
        if let Err(error) = opened {
            let text = format!("{program} does not open it ({error}); look at it yourself: {}", path.display());
            self.state.note(Severity::Error, "open", text);
        }
    }
}
