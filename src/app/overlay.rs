//! The palette: every action by name, found by its letters.

use super::action::Action;
use super::keys::Binding;
use egui::{Context, Key, Modifiers, ScrollArea, TextEdit};

/// State of the palette.
#[derive(Debug, Default)]
pub struct Palette {
    pub open: bool,
    text: String,
    chosen: usize,
}

impl Palette {
    pub fn toggle(&mut self) {
        self.open = !self.open;
        self.text.clear();
        self.chosen = 0;
    }

    /// Draws the palette and returns the action that was picked.
    pub fn show(&mut self, ctx: &Context, bindings: &[Binding]) -> Option<Action> {
        if !self.open {
            return None;
        }
        let found: Vec<&Binding> = bindings.iter().filter(|b| matches(&self.text, b.name)).collect();
        self.chosen = self.chosen.min(found.len().saturating_sub(1));
        let (down, up, enter) = ctx.input_mut(|i| {
            (
                i.consume_key(Modifiers::NONE, Key::ArrowDown),
                i.consume_key(Modifiers::NONE, Key::ArrowUp),
                i.consume_key(Modifiers::NONE, Key::Enter),
            )
        });
        if down {
            self.chosen = (self.chosen + 1).min(found.len().saturating_sub(1));
        }
        if up {
            self.chosen = self.chosen.saturating_sub(1);
        }
        let mut picked = enter.then(|| found.get(self.chosen).map(|b| b.action.clone())).flatten();
        let response = egui::Modal::new(egui::Id::unique("palette")).show(ctx, |ui| {
            ui.set_width(420.0);
            let field =
                ui.add(TextEdit::singleline(&mut self.text).hint_text("What to do?").desired_width(f32::INFINITY));
            field.request_focus();
            ScrollArea::vertical().max_height(360.0).show(ui, |ui| {
                for (index, binding) in found.iter().enumerate() {
                    let keys: Vec<String> = binding.keys.iter().map(|k| ctx.format_shortcut(k)).collect();
                    let button = egui::Button::selectable(index == self.chosen, binding.name)
                        .shortcut_text(keys.join("  "))
                        .min_size(egui::vec2(400.0, 0.0));
                    if ui.add(button).clicked() {
                        picked = Some(binding.action.clone());
                    }
                }
            });
        });
        if picked.is_some() || response.should_close() {
            self.open = false;
        }
        picked
    }
}

/// Whether the letters of `query` occur in `name` in order, case aside.
fn matches(query: &str, name: &str) -> bool {
    let mut letters = name.chars().flat_map(char::to_lowercase);
    query.chars().flat_map(char::to_lowercase).filter(|c| !c.is_whitespace()).all(|q| letters.any(|l| l == q))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_palette_finds_letters_in_order() {
        assert!(matches("", "Fit image"));
        assert!(matches("fi im", "Fit image"));
        assert!(matches("fmg", "Fit image"));
        assert!(!matches("gif", "Fit image"));
    }
}
