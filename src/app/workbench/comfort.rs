//! The window's own comfort: keys and their sheet, notifications, look and layouts.

use super::Workbench;
use crate::app::action::Action;
use crate::app::key_sheet::Rebinding;
use crate::app::window_action::WindowAction;
use crate::app::{keys, layout, theme};
use crate::engine::Severity;
use egui::Context;

impl Workbench {
    /// Draws what lies over the panels.
    pub(super) fn comfort(&mut self, ctx: &Context, actions: &mut Vec<Action>) {
        let changes = self.sheet.show(ctx, &self.bindings, &self.settings.keys);
        if !changes.is_empty() {
            self.rebind(changes);
        }
        self.toasts.take(&self.state);
        self.toasts.show(ctx, actions);
    }

    fn rebind(&mut self, changes: Rebinding) {
        for (name, key) in changes {
            match key {
                Some(text) => self.settings.keys.insert(name, text),
                None => self.settings.keys.remove(&name),
            };
        }
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
                self.settings.layouts.insert(name, self.tree.clone());
            }
            WindowAction::UseLayout(name) => {
                if let Some(tree) = self.settings.layouts.get(&name) {
                    self.tree = tree.clone();
                }
            }
            WindowAction::ForgetLayout(name) => {
                self.settings.layouts.remove(&name);
            }
            WindowAction::ExportLayout(path) => match layout::export(&self.tree, &path) {
                Ok(()) => self.state.note(Severity::Info, "layout", format!("written: {}", path.display())),
                Err(error) => self.state.note(Severity::Error, "layout", error),
            },
            WindowAction::ImportLayout(path) => match layout::import(&path) {
                Ok(tree) => self.tree = tree,
                Err(error) => self.state.note(Severity::Error, "layout", error),
            },
        }
    }
}
