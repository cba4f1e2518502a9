//! The window's own comfort: keys and their sheet, notifications, look and layouts.

use super::Workbench;
use super::undo::Edit;
use crate::app::action::Action;
use crate::app::dialogs::{holds_results, is_weights_path};
use crate::app::key_sheet::Rebinding;
use crate::app::window_action::WindowAction;
use crate::app::{keys, layout, theme};
use crate::engine::Severity;
use crate::engine::video::is_video_path;
use egui::{Align2, Area, Context, Frame, Id, Order, Vec2};
use std::path::PathBuf;

impl Workbench {
    /// Draws what lies over the panels.
    pub(super) fn comfort(&mut self, ctx: &Context, actions: &mut Vec<Action>) {
        let changes = self.sheet.show(ctx, &self.bindings, &self.settings.keys);
        if !changes.is_empty() {
            self.rebind(changes);
        }
        self.toasts.take(&self.state);
        self.toasts.show(ctx, actions);
        drop_hint(ctx);
    }

    fn rebind(&mut self, changes: Rebinding) {
        self.remember(Edit::Keys(self.settings.keys.clone()));
        for (name, key) in changes {
            match key {
                Some(text) => self.settings.keys.insert(name, text),
                None => self.settings.keys.remove(&name),
            };
        }
        self.read_keys();
    }

    /// Takes the user's own keys over from the settings.
    pub(super) fn read_keys(&mut self) {
        let (bindings, wrong) = keys::bindings(&self.settings.keys);
        self.bindings = bindings;
        for message in wrong {
            self.state.note(Severity::Warning, "keys", message);
        }
    }

    /// Does what was asked of the window itself.
    pub(super) fn apply_window(&mut self, ctx: &Context, action: WindowAction) {
        match action {
            WindowAction::Look(look) => {
                self.settings.look = look;
                theme::apply(ctx, look, self.settings.scale);
            }
            WindowAction::SaveLayout(name) => {
                self.state.note(Severity::Info, "layout", format!("kept as “{name}”"));
                self.remember(Edit::Layouts(self.settings.layouts.clone()));
                self.settings.layouts.insert(name, self.tree.clone());
            }
            WindowAction::UseLayout(name) => {
                if let Some(tree) = self.settings.layouts.get(&name).cloned() {
                    self.lay_out(tree);
                }
            }
            WindowAction::ForgetLayout(name) => {
                self.remember(Edit::Layouts(self.settings.layouts.clone()));
                self.settings.layouts.remove(&name);
            }
            WindowAction::ExportLayout(path) => match layout::export(&self.tree, &path) {
                Ok(()) => self.state.note(Severity::Info, "layout", format!("written: {}", path.display())),
                Err(error) => self.state.note(Severity::Error, "layout", error),
            },
            WindowAction::ImportLayout(path) => match layout::import(&path) {
                Ok(tree) => self.lay_out(tree),
                Err(error) => self.state.note(Severity::Error, "layout", error),
            },
        }
    }
}

/// While files are held over the window: what becomes of them when they are let go, wherever that is.
fn drop_hint(ctx: &Context) {
    let paths: Vec<PathBuf> = ctx.input(|i| i.raw.hovered_files.iter().filter_map(|file| file.path.clone()).collect());
    let Some(first) = paths.first() else { return };
    let name = first.file_name().unwrap_or(first.as_os_str()).to_string_lossy();
    let what = if is_weights_path(first) {
        "load the weights"
    } else if is_video_path(first) {
        "play"
    } else if holds_results(first) {
        "score the results"
    } else {
        "open"
    };
    let more = if paths.len() > 1 { format!(" and {} more", paths.len() - 1) } else { String::new() };
    let area = Area::new(Id::unique("drop hint")).order(Order::Foreground).anchor(Align2::CENTER_CENTER, Vec2::ZERO);
    area.interactable(false).show(ctx, |ui| {
        Frame::popup(ui.style()).show(ui, |ui| ui.heading(format!("Let go to {what} {name}{more}")));
    });
}
