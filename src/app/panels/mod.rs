//! The panels, one file each: read the state, draw, raise actions.

pub mod anchors;
mod asking;
pub mod canvas;
pub mod compare;
pub mod data;
pub mod evaluation;
pub mod features;
pub mod image;
mod image_list;
pub mod log;
pub mod losses;
pub mod model;
pub mod pipeline;
pub mod proposals;
pub mod runs;
pub mod step;
pub mod suppression;
pub mod why;

/// The slider of the score threshold. It shows two decimals and leaves a finer value alone until somebody drags it.
fn score_slider(score: &mut f32) -> egui::Slider<'_> {
    egui::Slider::new(score, 0.0..=1.0).clamping(egui::SliderClamping::Edits).fixed_decimals(2).text("score")
}
