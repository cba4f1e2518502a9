//! What of an image is drawn, and how: the layers, the score, the colours and what is singled out.

use super::action::Layer;
use super::outcome::{Coloring, OutcomeFilter};
use super::settings::Settings;
use crate::trace::reduce::Reduction;

/// Which of the scene's parts are on, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    pub truth: bool,
    pub predictions: bool,
    /// Of ground truth and predictions.
    pub boxes: bool,
    pub masks: bool,
    pub anchors: bool,
    /// Name of the feature map to lay over the picture.
    pub heat: Option<String>,
    /// How its channels become one number.
    pub reduction: Reduction,
    pub score: f32,
    /// What the colours of predictions tell.
    pub coloring: Coloring,
    /// Where there are verdicts.
    pub outcomes: OutcomeFilter,
    pub isolated: Option<u32>,
    /// Index into the detections.
    pub selected: Option<usize>,
    pub hovered: Option<usize>,
}

impl Default for Choice {
    /// Boxes and masks of ground truth and predictions of every score, by class.
    fn default() -> Self {
        Self {
            truth: true,
            predictions: true,
            boxes: true,
            masks: true,
            anchors: false,
            heat: None,
            reduction: Reduction::Mean,
            score: 0.0,
            coloring: Coloring::Class,
            outcomes: OutcomeFilter::All,
            isolated: None,
            selected: None,
            hovered: None,
        }
    }
}

impl Choice {
    /// The layers, the score and the colours of the settings.
    pub fn of(settings: &Settings) -> Self {
        Self {
            truth: settings.shows(Layer::Truth),
            predictions: settings.shows(Layer::Predictions),
            boxes: settings.shows(Layer::Boxes),
            masks: settings.shows(Layer::Masks),
            anchors: settings.shows(Layer::Anchors),
            score: settings.score,
            coloring: settings.coloring,
            ..Self::default()
        }
    }

    /// Whoever asks for missed objects alone sees them without asking for ground truth too.
    pub fn shows_truth(&self) -> bool {
        self.truth || self.outcomes == OutcomeFilter::FalseNegatives
    }
}
