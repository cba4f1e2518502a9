//! A list of images with a note each; a click shows the image. Every panel that leads to images uses it.

use crate::app::action::Action;
use crate::app::layout::Panel;
use crate::app::state::State;
use egui::{Rect, RichText, ScrollArea, Ui, vec2};

/// Share of a panel, and most points, that a list beside something else takes.
const SHARE: f32 = 0.4;
const WIDEST: f32 = 300.0;

/// One image.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageRow {
    /// Position in the open data.
    pub index: usize,
    pub note: String,
}

/// Images with what they have in common.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageList {
    pub title: String,
    pub rows: Vec<ImageRow>,
}

impl ImageList {
    pub fn new(title: impl Into<String>, rows: impl IntoIterator<Item = (usize, String)>) -> Self {
        let rows = rows.into_iter().map(|(index, note)| ImageRow { index, note }).collect();
        Self { title: title.into(), rows }
    }

    /// Draws title and rows; true when it is to be closed.
    pub fn ui(&self, ui: &mut Ui, state: &State, actions: &mut Vec<Action>) -> bool {
        let mut closed = false;
        ui.horizontal(|ui| {
            closed = ui.small_button("×").on_hover_text("Close the list").accessible_name("Close the list").clicked();
            ui.add(egui::Label::new(RichText::new(&self.title).strong()).truncate());
        });
        ui.weak(format!("{} images", self.rows.len()));
        image_rows(ui, &self.rows, state, actions);
        closed
    }
}

/// The rows alone, in what is left of `ui`; only those on the screen are laid out.
pub fn image_rows(ui: &mut Ui, rows: &[ImageRow], state: &State, actions: &mut Vec<Action>) {
    let Some(data) = &state.data else { return };
    let height = ui.text_style_height(&egui::TextStyle::Body) + 4.0;
    ScrollArea::vertical().id_salt("images").auto_shrink(false).show_rows(ui, height, rows.len(), |ui, range| {
        for row in rows.get(range).unwrap_or_default() {
            let name = data.images.get(row.index).map_or("?", |image| image.name.as_str());
            let button = egui::Button::selectable(row.index == state.wanted, format!("{name}  {}", row.note));
            if ui.add_sized([ui.available_width(), height], button.truncate()).clicked() {
                actions.push(Action::Show(row.index));
                actions.push(Action::Focus(Panel::Image));
            }
        }
    });
}

/// What is left of `ui` in two: the main part, and a list to its right.
pub fn split(ui: &Ui) -> (Rect, Rect) {
    let whole = ui.available_rect_before_wrap();
    let width = (whole.width() * SHARE).clamp(1.0, WIDEST);
    let gap = ui.spacing().item_spacing.x;
    let edge = (whole.max.x - width).max(whole.min.x);
    let main = Rect::from_min_max(whole.min, egui::pos2((edge - gap).max(whole.min.x), whole.max.y));
    (main, Rect::from_min_size(egui::pos2(edge, whole.min.y), vec2(width, whole.height())))
}
