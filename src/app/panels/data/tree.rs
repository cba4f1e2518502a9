//! Data sets as a tree: the open one with its splits, and those that were open before.

use crate::app::action::{Action, Dialog};
use crate::app::state::State;
use egui::{CollapsingHeader, RichText, ScrollArea, Ui};
use std::path::PathBuf;

/// The tree takes at most as many points; longer ones scroll.
const HEIGHT: f32 = 160.0;

pub(super) fn ui(ui: &mut Ui, state: &State, recent: &[PathBuf], actions: &mut Vec<Action>) {
    ui.menu_button("Open", |ui| {
        let items = [
            ("Image…", "One picture", Action::OpenDialog(Dialog::Image)),
            ("Folder or data set…", "Recognised by what is in it", Action::OpenDialog(Dialog::Folder)),
            ("COCO annotations…", "An instances_….json", Action::OpenDialog(Dialog::Annotations)),
            ("Video…", "Plays it, with live detections", Action::OpenDialog(Dialog::Video)),
            (
                "Shapes sample",
                "Drawn by the program: no file is needed",
                Action::OpenData { path: "shapes".into(), split: Some("test".into()) },
            ),
        ];
        for (name, help, action) in items {
            if ui.button(name).on_hover_text(help).clicked() {
                actions.push(action);
            }
        }
    });
    ScrollArea::vertical().id_salt("data sets").max_height(HEIGHT).show(ui, |ui| {
        if let Some(data) = &state.data {
            let title = RichText::new(&data.name).strong();
            CollapsingHeader::new(title).id_salt("open data set").default_open(true).show(ui, |ui| {
                let objects: usize = data.class_counts.iter().sum();
                for split in &data.splits {
                    let selected = *split == data.split;
                    let answer = ui.selectable_label(selected, split).on_hover_text("Open this split");
                    if answer.clicked() && !selected {
                        actions.push(Action::OpenData { path: data.path.clone(), split: Some(split.clone()) });
                    }
                }
                let counts = (data.images.len(), data.classes.len());
                ui.label(format!("{} images, {objects} objects, {} classes", counts.0, counts.1));
            });
        }
        if !recent.is_empty() {
            CollapsingHeader::new("Recent").id_salt("recent data sets").show(ui, |ui| {
                for path in recent {
                    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
                    let button = ui.selectable_label(false, name).on_hover_text(path.display().to_string());
                    if button.clicked() {
                        actions.push(Action::OpenPath(path.clone()));
                    }
                }
            });
        }
    });
}
