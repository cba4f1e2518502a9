//! The panels that look inside one pass (Anchors, Proposals, Suppression), and which panel was used last: view keys
//! and steps go there.

use crate::app::action::Action;
use crate::app::export::Draft;
use crate::app::layout::{self, Panel};
use crate::app::panels::anchors::AnchorsPanel;
use crate::app::panels::canvas::Canvas;
use crate::app::panels::image::ImagePanel;
use crate::app::panels::proposals::ProposalsPanel;
use crate::app::panels::suppression::SuppressionPanel;
use crate::app::state::State;
use egui::Ui;
use egui_tiles::Tree;

/// Scratch of the three panels.
#[derive(Debug, Default)]
pub struct PipelinePanels {
    anchors: AnchorsPanel,
    proposals: ProposalsPanel,
    suppression: SuppressionPanel,
    /// The panel that was used last, whichever it is.
    pub attention: Option<Panel>,
}

impl PipelinePanels {
    /// Draws one of the three; any other panel is not drawn here.
    pub fn ui(&mut self, panel: Panel, ui: &mut Ui, state: &State, image: &mut ImagePanel, actions: &mut Vec<Action>) {
        match panel {
            Panel::Anchors => self.anchors.ui(ui, state, image.backdrop(state), actions),
            Panel::Proposals => self.proposals.ui(ui, state, image.backdrop(state)),
            Panel::Suppression => self.suppression.ui(ui, state, image.backdrop(state)),
            _ => {}
        }
    }

    /// Takes away the tabs that have nothing to show for this detector. While an image is on its way they stay.
    pub fn offer(tree: &mut Tree<Panel>, state: &State) {
        if let Some(trace) = state.shown.as_ref().and_then(|shown| shown.trace.as_ref()) {
            layout::offer(tree, Panel::Anchors, !trace.anchors.boxes.is_empty());
            layout::offer(tree, Panel::Proposals, !trace.stages().is_empty());
            layout::offer(tree, Panel::Suppression, trace.suppression.is_some());
        }
    }

    /// What one of the three shows, to be made a figure of; `None` while it shows nothing, and for any other panel.
    pub fn draft(&self, panel: Panel, image: &mut ImagePanel, state: &State) -> Option<Draft> {
        let backdrop = image.backdrop(state)?;
        match panel {
            Panel::Anchors => self.anchors.draft(state, backdrop),
            Panel::Proposals => self.proposals.draft(state, backdrop),
            Panel::Suppression => self.suppression.draft(state, backdrop),
            _ => None,
        }
    }

    /// The picture that view keys move.
    pub fn canvas<'a>(&'a mut self, image: &'a mut ImagePanel) -> &'a mut Canvas {
        match self.attention {
            Some(Panel::Anchors) => &mut self.anchors.canvas,
            Some(Panel::Proposals) => &mut self.proposals.canvas,
            Some(Panel::Suppression) => &mut self.suppression.canvas,
            _ => &mut image.canvas,
        }
    }

    /// Whether the panel that was used last has steps of its own.
    pub fn has_steps(&self) -> bool {
        matches!(self.attention, Some(Panel::Proposals | Panel::Suppression))
    }

    /// Goes so many removals or stages on, or back; false when the panel that was used last has none.
    pub fn replay(&mut self, by: i64) -> bool {
        match self.attention {
            Some(Panel::Proposals) => self.proposals.advance(by),
            Some(Panel::Suppression) => self.suppression.advance(by),
            _ => return false,
        }
        true
    }
}
