//! What can be asked of the window itself: its look and its layouts.

use super::theme::Look;
use std::path::PathBuf;

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub enum WindowAction {
    Look(Look),
    /// Keeps the layout under this name, over one that was there.
    SaveLayout(String),
    UseLayout(String),
    ForgetLayout(String),
    ExportLayout(PathBuf),
    ImportLayout(PathBuf),
}
