//! What a person can ask for. Panels raise actions; the workbench applies them after drawing.

use super::export::Format;
use super::layout::Panel;
use super::outcome::{Coloring, OutcomeFilter};
use super::run_action::RunAction;
use super::window_action::WindowAction;
use crate::detect::Arch;
use crate::engine::DeviceChoice;
use crate::engine::command::{InitialWeights, ModelChoice};
use crate::engine::compare::SlotSource;
use crate::engine::model::Permit;
use crate::engine::playback::PlaySettings;
use crate::trace::reduce::Reduction;
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
        permit: Permit,
    },
    /// Changes the loaded model's limits; the change can be undone.
    Configure(Box<crate::detect::Config>),
    StartTraining(InitialWeights),
    Step(u64),
    TrainOrPause,
    StopTraining,
    /// What is asked of a training run, or of those on disk.
    Run(RunAction),
    /// What is asked of the window itself.
    Window(WindowAction),
    /// Moves the loaded model to another device.
    UseDevice(DeviceChoice),
    /// Counts the operations of the loaded model.
    CountFlops,
    SaveWeights(PathBuf),
    /// Scores the model on the open data; with `misses`, or where the panel asks for it, also why objects are missed at
    /// the score threshold.
    Evaluate {
        misses: bool,
    },
    /// Scores somebody's COCO results on the open data.
    EvaluateResults(PathBuf),
    /// Counts the confusion matrix again at this score.
    CountConfusion(f32),
    SetSlot {
        slot: usize,
        source: SlotSource,
    },
    ClearSlot(usize),
    /// Runs what is in the slots on this image.
    CompareImage(usize),
    CompareData,
    /// Looks for what is wrong with the open data; with `pixels` every picture is decoded.
    CheckData {
        pixels: bool,
    },
    MeasureData,
    /// Makes an image as training sees it in this epoch.
    Augment {
        index: usize,
        epoch: u64,
    },
    Play(PlaySettings),
    PlayOrPause,
    StopPlaying,
    /// Writes what this panel shows, in the format of the file's ending.
    Export {
        panel: Panel,
        path: PathBuf,
    },
    /// Writes what was scored last as COCO results.
    SaveResults(PathBuf),
    /// Opens a file or folder with the program that the system has for it.
    Reveal(PathBuf),
    /// Lays the feature map of this name over the picture, its channels reduced.
    Overlay(String, Reduction),
    Cancel,
    Score(f32),
    ScoreBy(f32),
    Toggle(Layer),
    /// What the colours of detections tell.
    Color(Coloring),
    /// Shows only what comes to this.
    Outcomes(OutcomeFilter),
    /// The outcomes after the ones that are shown, around.
    NextOutcomes,
    Isolate(Option<u32>),
    /// Selects detection `n` of the image on show.
    Select(Option<usize>),
    /// Selects annotated object `n` of the image on show.
    SelectObject(Option<usize>),
    /// So many removals or stages on, or back, in the panel that was used last.
    Replay(i64),
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
    /// COCO results to score.
    Results,
    /// COCO results for a slot of the comparison.
    SlotResults(usize),
    /// Weights for a slot of the comparison.
    SlotWeights(usize),
    /// Weights of a network that has none embedded.
    WeightsOf(Arch),
    /// Weights that a new run starts from.
    Start,
    /// The folder of runs.
    Runs,
    ExportLayout,
    ImportLayout,
    Video,
    /// A view, as a file of this format.
    Export(Panel, Format),
    /// What was scored, as COCO results.
    SaveResults,
}

/// Parts of the image view that can be switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Layer {
    Truth,
    Predictions,
    Boxes,
    Masks,
    Labels,
    Anchors,
    HeatMap,
}

impl Layer {
    pub const ALL: [Self; 7] =
        [Self::Truth, Self::Predictions, Self::Boxes, Self::Masks, Self::Labels, Self::Anchors, Self::HeatMap];

    pub fn name(self) -> &'static str {
        match self {
            Self::Truth => "Ground truth",
            Self::Predictions => "Predictions",
            Self::Boxes => "Boxes",
            Self::Masks => "Masks",
            Self::Labels => "Labels",
            Self::Anchors => "Positive anchors",
            Self::HeatMap => "Heat map",
        }
    }

    pub fn help(self) -> &'static str {
        match self {
            Self::Truth => "G: annotated objects, dashed where no detection of their class takes them at IoU ≥ .5",
            Self::Predictions => "P: detections of at least the score above",
            Self::Boxes => "B: boxes of ground truth and predictions",
            Self::Masks => "M: masks of ground truth and predictions, where there are any",
            Self::Labels => "L: class and score of each detection",
            Self::Anchors => "N: anchors that learn an object, and the hard negatives that were mined with them",
            Self::HeatMap => "H: a feature map, its channels reduced to their mean or as the Features panel has them",
        }
    }
}
