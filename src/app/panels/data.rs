//! Data panel: the open data set, its splits and classes, and the list of its images.

use crate::app::action::{Action, Dialog};
use crate::app::state::State;
use crate::app::theme;
use egui::{RichText, ScrollArea, Ui};
use std::path::PathBuf;

/// Scratch of the panel.
#[derive(Debug, Default)]
pub struct DataPanel {
    filter: String,
    class: Option<u32>,
    /// Positions of the images that pass the filter, remade when what it depends on changes.
    rows: Vec<usize>,
    made_for: Option<(usize, String, Option<u32>)>,
    scrolled_to: Option<usize>,
}

impl DataPanel {
    pub fn ui(&mut self, ui: &mut Ui, state: &State, recent: &[PathBuf], actions: &mut Vec<Action>) {
        ui.horizontal_wrapped(|ui| {
            ui.menu_button("Open", |ui| {
                let items = [
                    ("Image…", Action::OpenDialog(Dialog::Image)),
                    ("Folder or data set…", Action::OpenDialog(Dialog::Folder)),
                    ("COCO annotations…", Action::OpenDialog(Dialog::Annotations)),
                    ("Shapes sample", Action::OpenData { path: "shapes".into(), split: Some("test".into()) }),
                ];
                for (name, action) in items {
                    if ui.button(name).clicked() {
                        actions.push(action);
                    }
                }
                if !recent.is_empty() {
                    ui.separator();
                    for path in recent {
                        if ui.button(path.display().to_string()).clicked() {
                            actions.push(Action::OpenPath(path.clone()));
                        }
                    }
                }
            });
            if let Some(data) = &state.data {
                for split in &data.splits {
                    let selected = *split == data.split;
                    if ui.selectable_label(selected, split).clicked() && !selected {
                        actions.push(Action::OpenData { path: data.path.clone(), split: Some(split.clone()) });
                    }
                }
            }
        });
        let Some(data) = state.data.clone() else {
            ui.label("Open or drop an image, a folder, or a VOC or COCO data set.");
            return;
        };
        let objects: usize = data.class_counts.iter().sum();
        ui.label(RichText::new(&data.name).strong());
        ui.label(format!("{} images, {objects} objects, {} classes", data.images.len(), data.classes.len()));
        if !data.findings.is_empty() {
            let text = format!("{} findings", data.findings.len());
            if ui.link(RichText::new(text).color(theme::WARNING)).on_hover_text("See the log").clicked() {
                actions.push(Action::Focus(crate::app::layout::Panel::Log));
            }
        }
        ui.horizontal(|ui| {
            let label = ui.label("Find");
            ui.add(egui::TextEdit::singleline(&mut self.filter).desired_width(90.0)).labelled_by(label.id);
            let chosen = self.class.and_then(|c| data.classes.get(c as usize)).map_or("all classes", String::as_str);
            let choice = egui::ComboBox::from_id_salt("class of images").selected_text(chosen).show_ui(ui, |ui| {
                ui.selectable_value(&mut self.class, None, "all classes");
                for (class, (name, count)) in data.classes.iter().zip(&data.class_counts).enumerate() {
                    let text = RichText::new(format!("{name} ({count})")).color(theme::class_color(class as u32));
                    ui.selectable_value(&mut self.class, Some(class as u32), text);
                }
            });
            choice.response.on_hover_text("Only images with an object of this class");
        });
        self.filter_rows(&data);
        ui.separator();
        let height = ui.text_style_height(&egui::TextStyle::Body) + 4.0;
        let position = self.rows.iter().position(|r| *r == state.wanted);
        let mut area = ScrollArea::vertical().auto_shrink(false);
        if self.scrolled_to != Some(state.wanted)
            && let Some(position) = position
        {
            let offset = (position as f32 - 3.0).max(0.0) * (height + ui.spacing().item_spacing.y);
            area = area.vertical_scroll_offset(offset);
            self.scrolled_to = Some(state.wanted);
        }
        area.show_rows(ui, height, self.rows.len(), |ui, range| {
            for &index in self.rows.get(range).unwrap_or_default() {
                let Some(image) = data.images.get(index) else { continue };
                let text = format!("{}  {}×{}  {} objects", image.name, image.width, image.height, image.objects);
                let row = egui::Button::selectable(index == state.wanted, text).truncate();
                if ui.add_sized([ui.available_width(), height], row).clicked() {
                    self.scrolled_to = Some(index);
                    actions.push(Action::Show(index));
                }
            }
        });
    }

    fn filter_rows(&mut self, data: &std::sync::Arc<crate::engine::event::DataSummary>) {
        let key = (std::sync::Arc::as_ptr(data) as usize, self.filter.clone(), self.class);
        if self.made_for.as_ref() == Some(&key) {
            return;
        }
        let wanted = self.filter.to_lowercase();
        let passing = data.images.iter().enumerate().filter(|(_, image)| {
            (wanted.is_empty() || image.name.to_lowercase().contains(&wanted))
                && self.class.is_none_or(|class| image.classes.contains(&class))
        });
        self.rows = passing.map(|(index, _)| index).collect();
        self.made_for = Some(key);
    }
}
