//! The sheet of keys: what each does, and a way to change it.

use super::keys::{Binding, SCORE, taken_by, write};
use egui::{Button, Context, Grid, Id, KeyboardShortcut, Modal, Modifiers, RichText, ScrollArea, TextEdit, Ui};
use std::collections::BTreeMap;

/// State of the sheet.
#[derive(Debug, Default)]
pub struct KeySheet {
    open: bool,
    filter: String,
    /// The action that waits for its new key.
    waiting: Option<&'static str>,
    taken: Option<Taken>,
}

/// A key that another action has.
#[derive(Clone, Debug)]
struct Taken {
    wanted_for: &'static str,
    shortcut: KeyboardShortcut,
    by: &'static str,
}

/// Changes of the user's own keys: an action's name and its key as text, empty for none, nothing for the default.
pub type Rebinding = Vec<(String, Option<String>)>;

impl KeySheet {
    pub fn toggle(&mut self) {
        *self = Self { open: !self.open, ..Self::default() };
    }

    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Stops waiting for a key, or else closes the sheet.
    pub fn escape(&mut self) {
        if self.waiting.take().is_none() && self.taken.take().is_none() {
            self.open = false;
        }
    }

    /// Draws the sheet over the window; gives what is to be changed.
    pub fn show(&mut self, ctx: &Context, bindings: &[Binding], own: &BTreeMap<String, String>) -> Rebinding {
        let mut changes = Rebinding::new();
        if !self.open {
            return changes;
        }
        if let Some(name) = self.waiting
            && let Some(shortcut) = pressed(ctx)
        {
            self.waiting = None;
            match taken_by(bindings, name, &shortcut) {
                Some(by) => self.taken = Some(Taken { wanted_for: name, shortcut, by }),
                None => changes.push((name.to_string(), Some(write(&shortcut)))),
            }
        }
        let response = Modal::new(Id::unique("keys")).show(ctx, |ui| {
            ui.set_width(520.0);
            ui.heading("Keys");
            self.notice(ui, bindings, &mut changes);
            let field = TextEdit::singleline(&mut self.filter).hint_text("Find an action").desired_width(f32::INFINITY);
            ui.add_enabled(self.waiting.is_none(), field);
            ScrollArea::vertical().max_height(480.0).show(ui, |ui| self.table(ui, bindings, own, &mut changes));
            ui.horizontal(|ui| {
                let all = ui.add_enabled(!own.is_empty(), Button::new("All as they were"));
                if all.on_hover_text("Every action gets its first key again; Undo takes it back").clicked() {
                    changes.extend(own.keys().map(|name| (name.clone(), None)));
                }
                ui.button("Close").clicked()
            })
            .inner
        });
        if response.inner || response.should_close() {
            self.open = false;
        }
        changes
    }

    /// What is awaited, or in the way.
    fn notice(&mut self, ui: &mut Ui, bindings: &[Binding], changes: &mut Rebinding) {
        if let Some(name) = self.waiting {
            let text = format!("Press the new key of “{name}”, or Escape");
            ui.label(RichText::new(text).color(ui.visuals().warn_fg_color));
        }
        let Some(Taken { wanted_for, shortcut, by }) = self.taken.clone() else { return };
        let key = write(&shortcut);
        ui.label(RichText::new(format!("{key} is the key of “{by}”")).color(ui.visuals().warn_fg_color));
        ui.horizontal(|ui| {
            if by != SCORE && ui.button(format!("Take it from “{by}”")).clicked() {
                // An action with two keys keeps the other one.
                let mut others = bindings.iter().filter(|b| b.name == by).flat_map(|b| &b.keys).map(write);
                changes.push((by.to_string(), Some(others.find(|other| *other != key).unwrap_or_default())));
                changes.push((wanted_for.to_string(), Some(key)));
                self.taken = None;
            }
            if ui.button("Leave it").clicked() {
                self.taken = None;
            }
        });
    }

    fn table(&mut self, ui: &mut Ui, bindings: &[Binding], own: &BTreeMap<String, String>, changes: &mut Rebinding) {
        let wanted = self.filter.to_lowercase();
        Grid::new("key table").num_columns(3).striped(true).show(ui, |ui| {
            for (keys, what) in [("[ ]", SCORE), ("wheel, drag", "Zoom at the pointer, move the image")] {
                ui.monospace(keys);
                ui.label(what);
                ui.end_row();
            }
            for binding in bindings.iter().filter(|b| b.name.to_lowercase().contains(&wanted)) {
                let keys: Vec<String> = binding.keys.iter().map(|k| ui.ctx().format_shortcut(k)).collect();
                ui.monospace(keys.join("  "));
                ui.label(binding.name);
                ui.horizontal(|ui| {
                    let change = ui.small_button("Change").on_hover_text("Then press the new key");
                    if change.accessible_name(format!("Change the key of {}", binding.name)).clicked() {
                        self.waiting = Some(binding.name);
                        self.taken = None;
                    }
                    if own.contains_key(binding.name) {
                        let reset = ui.small_button("Reset").on_hover_text("Its first key again");
                        if reset.accessible_name(format!("Reset the key of {}", binding.name)).clicked() {
                            changes.push((binding.name.to_string(), None));
                        }
                    }
                });
                ui.end_row();
            }
        });
    }
}

/// The key pressed in this frame with what was held; it starts nothing else.
fn pressed(ctx: &Context) -> Option<KeyboardShortcut> {
    ctx.input_mut(|input| {
        let position = input.events.iter().position(|event| {
            matches!(event, egui::Event::Key { key, pressed: true, repeat: false, .. } if *key != egui::Key::Escape)
        })?;
        let egui::Event::Key { key, modifiers, .. } = input.events.remove(position) else { return None };
        // On some systems Ctrl and Command are two keys: either stands for the main one.
        let main = if modifiers.command || modifiers.ctrl { Modifiers::COMMAND } else { Modifiers::NONE };
        let shift = if modifiers.shift { Modifiers::SHIFT } else { Modifiers::NONE };
        let alt = if modifiers.alt { Modifiers::ALT } else { Modifiers::NONE };
        Some(KeyboardShortcut::new(main.plus(shift).plus(alt), key))
    })
}
