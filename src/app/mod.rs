//! Floor 6: the window. Panels read [`state::State`] and raise [`action::Action`]s; the workbench applies them.

pub mod action;
mod bridge;
mod choice;
mod dialogs;
pub mod export;
pub mod frame_time;
mod key_sheet;
mod keys;
pub mod layout;
mod layout_menu;
mod motion;
pub mod outcome;
mod overlay;
mod panels;
pub mod past_runs;
pub mod run_action;
pub mod scene;
mod settings;
pub mod state;
pub mod stepping;
pub mod theme;
mod toasts;
pub mod training_time;
mod unsaved;
pub mod window_action;
pub mod window_time;
pub mod workbench;
mod writer;

use crate::cli::WindowArguments;
use std::time::Instant;
use workbench::Workbench;

/// Opens the window and returns when it is closed. `start` is when the process began, for `--verbose`.
///
/// # Errors
/// A sentence, when there is no display or no graphics adapter.
pub fn open(arguments: WindowArguments, start: Instant) -> Result<(), String> {
    let options = eframe::NativeOptions {
        viewport: egui::ViewportBuilder::default()
            .with_title("Boxwright")
            .with_app_id("boxwright")
            .with_inner_size([1440.0, 900.0])
            .with_min_inner_size([640.0, 480.0])
            .with_drag_and_drop(true),
        ..eframe::NativeOptions::default()
    };
    let create = move |context: &eframe::CreationContext<'_>| -> Result<
        Box<dyn eframe::App>,
        Box<dyn std::error::Error + Send + Sync>,
    > { Ok(Box::new(Workbench::new(context, &arguments, start)?)) };
    eframe::run_native("boxwright", options, Box::new(create)).map_err(|error| {
        format!("the window does not open ({error}); it needs a display and a Vulkan or OpenGL driver, the other commands do not")
    })
}
