//! The panels, one file each: read the state, draw, raise actions.

pub mod anchors;
mod asking;
pub mod canvas;
pub mod compare;
pub mod data;
pub mod evaluation;
pub mod features;
mod histogram;
pub mod image;
mod image_list;
pub mod log;
pub mod losses;
pub mod model;
pub mod pipeline;
mod plot_line;
pub mod proposals;
pub mod runs;
pub mod step;
pub mod suppression;
pub mod why;

use super::outcome::Coloring;
use super::theme;
use crate::render::ColorMap;
use egui::accesskit::Role;
use egui::{Color32, ComboBox, Rect, Response, RichText, Sense, Ui, WidgetInfo, pos2, vec2};

/// Says what a painted area shows to those who do not see it.
fn name_picture(response: &Response, what: &str) {
    response.widget_info(|| WidgetInfo::labeled(Role::Image, true, what));
}

/// A choice of what the colours of detections tell; gives what was chosen now. Without a colouring they tell how sides
/// agree, which only panels with sides offer.
fn coloring_choice(ui: &mut Ui, current: Option<Coloring>, offered: &[Option<Coloring>]) -> Option<Option<Coloring>> {
    let name = |coloring: Option<Coloring>| coloring.map_or("colour: agreement", Coloring::name);
    let mut made = None;
    let choice = ComboBox::from_id_salt("colouring").selected_text(name(current)).show_ui(ui, |ui| {
        for &coloring in offered {
            if ui.selectable_label(current == coloring, name(coloring)).clicked() {
                made = Some(coloring);
            }
        }
    });
    choice.response.on_hover_text("What the colours of detections tell");
    made
}

/// One entry of a legend: text on the colour that it explains.
fn chip(ui: &mut Ui, text: &str, [r, g, b]: [u8; 3], help: &str) {
    let color = Color32::from_rgb(r, g, b);
    let text = RichText::new(format!(" {text} ")).background_color(color).color(theme::text_on(color));
    ui.label(text).on_hover_text(help);
}

/// The legend of scores as colours.
fn score_legend(ui: &mut Ui) {
    for score in [0.0, 0.25, 0.5, 0.75, 1.0] {
        chip(ui, &format!("{score:.2}"), ColorMap::Viridis.rgb(score), "Colour of this score");
    }
}

/// A colour scale between the numbers at its ends.
fn color_bar(ui: &mut Ui, map: ColorMap, low: &str, high: &str) {
    const STEPS: usize = 32;
    ui.label(low);
    let (rect, response) = ui.allocate_exact_size(vec2(160.0, 12.0), Sense::hover());
    name_picture(&response, &format!("Colour scale {} from {low} to {high}", map.name()));
    let size = vec2(rect.width() / STEPS as f32, rect.height());
    for step in 0..STEPS {
        let [r, g, b] = map.rgb((step as f32 + 0.5) / STEPS as f32);
        let part = Rect::from_min_size(pos2(rect.min.x + step as f32 * size.x, rect.min.y), size + vec2(0.5, 0.0));
        ui.painter().rect_filled(part, 0.0, Color32::from_rgb(r, g, b));
    }
    ui.label(high);
}

/// A value at the end of a scale.
fn number(value: f32) -> String {
    if value == 0.0 || (0.01..1000.0).contains(&value.abs()) { format!("{value:.2}") } else { format!("{value:.1e}") }
}

/// The slider of the score threshold. It shows two decimals and leaves a finer value alone until somebody drags it.
fn score_slider(score: &mut f32) -> egui::Slider<'_> {
    egui::Slider::new(score, 0.0..=1.0).clamping(egui::SliderClamping::Edits).fixed_decimals(2).text("score")
}
