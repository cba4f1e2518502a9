//! The images of the open data: filtered, as a list or a grid of thumbnails; only what is on the screen is laid out.

use super::entries::{Entry, entry};
use super::filter::{Filter, stem, worst_by_name};
use super::textures::Textures;
use crate::app::action::Action;
use crate::app::state::State;
use crate::app::theme;
use crate::data::Severity;
use crate::data::statistics::SizeRange;
use crate::engine::event::DataSummary;
use egui::{ComboBox, DragValue, RichText, ScrollArea, TextEdit, Ui, vec2};
use std::collections::HashMap;
use std::sync::Arc;

/// Height of a row, and of the square of a grid, points.
const ROW: f32 = 40.0;
const CELL: f32 = 104.0;

/// Scratch of the page.
#[derive(Default)]
pub(super) struct ImagesPage {
    filter: Filter,
    grid: bool,
    listed: Option<Listed>,
    textures: Textures,
    scrolled_to: Option<(usize, bool)>,
}

/// The images that pass, remade when what it depends on changes.
struct Listed {
    of: (usize, usize, Filter),
    positions: Vec<usize>,
    worst: HashMap<String, Severity>,
}

impl ImagesPage {
    pub(super) fn ui(&mut self, ui: &mut Ui, state: &State, data: &Arc<DataSummary>, actions: &mut Vec<Action>) {
        // A class of a data set that was open before would list nothing, and have no name to say why.
        self.filter.class = self.filter.class.filter(|class| (*class as usize) < data.classes.len());
        self.choices(ui, data);
        let of = (
            Arc::as_ptr(data) as usize,
            state.checked.as_ref().map_or(0, |checked| Arc::as_ptr(checked) as usize),
            self.filter.clone(),
        );
        if self.listed.as_ref().is_none_or(|listed| listed.of != of) {
            let worst = worst_by_name(state, data);
            let positions = self.filter.positions(data, &worst);
            self.listed = Some(Listed { of, positions, worst });
            self.scrolled_to = None;
        }
        let Some(listed) = &self.listed else { return };
        ui.horizontal(|ui| {
            ui.selectable_value(&mut self.grid, false, "List").on_hover_text("With names and numbers");
            ui.selectable_value(&mut self.grid, true, "Grid").on_hover_text("Of thumbnails");
            let mut number = state.wanted + 1;
            let last = data.images.len().max(1);
            let jump = ui.add(DragValue::new(&mut number).range(1..=last).prefix("image "));
            let jump = jump.on_hover_text(format!("Go to one of {last} images by its number"));
            if jump.accessible_name("Image number").changed() {
                actions.push(Action::Show(number - 1));
            }
            ui.weak(format!("{} listed", listed.positions.len()));
        });
        let columns = if self.grid { ((ui.available_width() / CELL) as usize).max(1) } else { 1 };
        let rows = listed.positions.len().div_ceil(columns);
        let height = if self.grid { CELL } else { ROW };
        let mut area = ScrollArea::vertical().id_salt("images of the data set").auto_shrink(false);
        if self.scrolled_to != Some((state.wanted, self.grid)) {
            self.scrolled_to = Some((state.wanted, self.grid));
            if let Ok(place) = listed.positions.binary_search(&state.wanted) {
                let before = (place / columns) as f32 - 1.0;
                area = area.vertical_scroll_offset(before.max(0.0) * (height + ui.spacing().item_spacing.y));
            }
        }
        let width = if self.grid { CELL } else { ui.available_width() };
        let gap = ui.spacing().item_spacing.x;
        let mut clicked = None;
        area.show_rows(ui, height, rows, |ui, range| {
            for row in range {
                let positions = listed.positions.iter().skip(row * columns).take(columns);
                ui.horizontal(|ui| {
                    for &position in positions {
                        let Some(image) = data.images.get(position) else { continue };
                        let one = Entry {
                            image,
                            picture: self.textures.get(ui.ctx(), data, position),
                            selected: position == state.wanted,
                            worst: listed.worst.get(stem(&image.name)).copied(),
                        };
                        let size = if self.grid {
                            vec2(width - gap, height)
                        } else {
                            vec2(ui.available_width().min(width), height)
                        };
                        if entry(ui, &one, size, self.grid).clicked() {
                            clicked = Some(position);
                        }
                    }
                });
            }
        });
        if let Some(position) = clicked {
            self.scrolled_to = Some((position, self.grid));
            actions.push(Action::Show(position));
        }
    }

    fn choices(&mut self, ui: &mut Ui, data: &DataSummary) {
        ui.horizontal_wrapped(|ui| {
            let label = ui.label("Find");
            ui.add(TextEdit::singleline(&mut self.filter.name).desired_width(90.0)).labelled_by(label.id);
            let filter = &mut self.filter;
            let chosen = filter.class.and_then(|c| data.classes.get(c as usize)).map_or("all classes", String::as_str);
            let choice = ComboBox::from_id_salt("class of images").selected_text(chosen).show_ui(ui, |ui| {
                ui.selectable_value(&mut filter.class, None, "all classes");
                for (class, (name, count)) in data.classes.iter().zip(&data.class_counts).enumerate() {
                    let text = RichText::new(format!("{name} ({count})")).color(theme::class_text(ui, class as u32));
                    ui.selectable_value(&mut filter.class, Some(class as u32), text);
                }
            });
            choice.response.on_hover_text("Only images with an object of this class");
            let chosen = filter.range.map_or("all sizes", SizeRange::name);
            let choice = ComboBox::from_id_salt("size of objects").selected_text(chosen).show_ui(ui, |ui| {
                ui.selectable_value(&mut filter.range, None, "all sizes");
                for range in SizeRange::ALL {
                    ui.selectable_value(&mut filter.range, Some(range), range.name());
                }
            });
            choice
                .response
                .on_hover_text("Only images with an object of this size: small below 32², large from 96² on");
            ui.checkbox(&mut filter.crowd, "groups").on_hover_text("Only images with a group of objects (crowd)");
            ui.checkbox(&mut filter.found, "with findings")
                .on_hover_text("Only images that something is wrong with; Health says what");
            if *filter != Filter::default() && ui.button("All").on_hover_text("List every image").clicked() {
                *filter = Filter::default();
            }
        });
    }

    /// Positions of the listed images.
    pub(super) fn positions(&self, data: &DataSummary) -> Vec<usize> {
        self.listed.as_ref().map_or_else(|| (0..data.images.len()).collect(), |listed| listed.positions.clone())
    }
}
