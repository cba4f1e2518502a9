//! What a person can ask for. Panels raise actions; the workbench applies them after drawing.

use super::layout::Panel;
use crate::engine::command::ModelChoice;
use std::path::PathBuf;

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    OpenPath(PathBuf),
    OpenData {
        path: String,
        split: Option<String>,
    },
    OpenDialog(Dialog),
    Show(usize),
    Next,
    Previous,
    LoadModel {
        choice: ModelChoice,
        weights: Option<PathBuf>,
        allow_partial: bool,
    },
    /// Changes the loaded model's limits; the change can be undone.
    Configure(Box<crate::detect::Config>),
    StartTraining {
        from_current: bool,
    },
    Step(u64),
    TrainOrPause,
    StopTraining,
    SaveWeights(PathBuf),
    Evaluate,
    Cancel,
    Score(f32),
    ScoreBy(f32),
    Toggle(Layer),
    Isolate(Option<u32>),
    /// Selects detection `n` of the image on show.
    Select(Option<usize>),
    /// Shows a training image of the last step in the Step panel.
    StepImage(usize),
    Fit,
    ActualSize,
    ZoomSelection,
    ZoomBy(f32),
    Focus(Panel),
    ResetLayout,
    ToggleTheme,
    UiScale(f32),
    ToggleHelp,
    TogglePalette,
    FullScreen,
    Undo,
    Redo,
    ClearLog,
    ExportView(PathBuf),
    /// Esc: closes what is open, then clears the selection.
    Clear,
}

/// Which file dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialog {
    Image,
    Folder,
    Annotations,
    Weights,
    SaveWeights,
    ExportView,
}

/// Parts of the image view that can be switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Layer {
    Truth,
    Predictions,
    Labels,
    Anchors,
    HeatMap,
}

impl Layer {
    pub const ALL: [Self; 5] = [Self::Truth, Self::Predictions, Self::Labels, Self::Anchors, Self::HeatMap];

    pub fn name(self) -> &'static str {
        match self {
            Self::Truth => "Ground truth",
            Self::Predictions => "Predictions",
            Self::Labels => "Labels",
            Self::Anchors => "Positive anchors",
            Self::HeatMap => "Heat map",
        }
    }
}
