//! Light and dark, and the colours that mean something.

use egui::{Color32, Context, Visuals};

/// Ground truth.
pub const TRUTH: Color32 = Color32::from_rgb(0, 158, 115);
/// Errors in the log.
pub const ERROR: Color32 = Color32::from_rgb(213, 94, 0);
/// Warnings in the log.
pub const WARNING: Color32 = Color32::from_rgb(230, 159, 0);

/// Sets visuals and scale.
pub fn apply(ctx: &Context, dark: bool, scale: f32) {
    ctx.set_theme(if dark { egui::Theme::Dark } else { egui::Theme::Light });
    ctx.set_visuals(if dark { Visuals::dark() } else { Visuals::light() });
    ctx.set_zoom_factor(scale);
}

/// The stable colour of a class.
pub fn class_color(class: u32) -> Color32 {
    let [r, g, b] = crate::imaging::draw::class_color(class);
    Color32::from_rgb(r, g, b)
}

/// Black or white, whichever reads better on `background`.
pub fn text_on(background: Color32) -> Color32 {
    let [r, g, b, _] = background.to_array().map(f32::from);
    if 0.299 * r + 0.587 * g + 0.114 * b > 140.0 { Color32::BLACK } else { Color32::WHITE }
}
