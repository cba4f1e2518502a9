//! The panels in their tiles: who draws which, and what a drag of a tile or a border leaves to be undone.

use super::undo::Edit;
use super::{Panels, Workbench, exporting};
use crate::app::action::Action;
use crate::app::layout::Panel;
use crate::app::settings::Settings;
use crate::app::state::State;
use egui::{Context, Ui};
use egui_tiles::{EditAction, Tree};

/// What the tiles need to draw a panel.
struct PanelBehavior<'a> {
    state: &'a State,
    settings: &'a Settings,
    panels: &'a mut Panels,
    actions: &'a mut Vec<Action>,
    /// A tile or a border was moved.
    moved: bool,
}

impl Workbench {
    /// Draws every panel.
    pub(super) fn panes(&mut self, ui: &mut Ui, actions: &mut Vec<Action>) {
        let ctx = ui.ctx().clone();
        let held = ctx.input(|i| i.pointer.any_down() || i.pointer.any_released());
        let before = held.then(|| self.tree.clone());
        let mut behavior = PanelBehavior {
            state: &self.state,
            settings: &self.settings,
            panels: &mut self.panels,
            actions,
            moved: false,
        };
        self.tree.ui(&mut behavior, ui);
        let moved = behavior.moved;
        self.follow_drag(&ctx, before, moved);
    }

    /// A drag is one edit: from the layout before it to that in which the pointer is let go.
    fn follow_drag(&mut self, ctx: &Context, before: Option<Tree<Panel>>, moved: bool) {
        if moved && self.moving.is_none() {
            self.moving = before;
        }
        if !ctx.input(|i| i.pointer.any_down())
            && let Some(before) = self.moving.take()
            && before != self.tree
        {
            self.remember(Edit::Layout(Box::new(before)));
        }
    }
}

impl egui_tiles::Behavior<Panel> for PanelBehavior<'_> {
    fn pane_ui(&mut self, ui: &mut Ui, _id: egui_tiles::TileId, panel: &mut Panel) -> egui_tiles::UiResponse {
        if ui.input(|i| i.pointer.any_pressed()) && ui.rect_contains_pointer(ui.max_rect()) {
            self.panels.pipeline.attention = Some(*panel);
        }
        egui::Frame::NONE.inner_margin(6.0).show(ui, |ui| {
            let (panels, state, actions) = (&mut *self.panels, self.state, &mut *self.actions);
            match panel {
                Panel::Data => panels.data.ui(ui, state, &self.settings.recent, actions),
                Panel::Model => panels.model.ui(ui, state, actions),
                Panel::Image => panels.image.ui(ui, state, self.settings, actions),
                Panel::Losses => panels.losses.ui(ui, state, actions),
                Panel::Step => panels.step.ui(ui, state, &self.settings.runs, actions),
                Panel::Evaluation => panels.evaluation.ui(ui, state, self.settings, actions),
                Panel::Features => panels.features.ui(ui, state, self.settings, actions),
                Panel::Compare => panels.compare.ui(ui, state, self.settings, actions),
                Panel::Log => panels.log.ui(ui, state, actions),
                Panel::Runs => panels.runs.ui(ui, state, self.settings, actions),
                Panel::Anchors | Panel::Proposals | Panel::Suppression => {
                    panels.pipeline.ui(*panel, ui, state, &mut panels.image, actions);
                }
            }
        });
        egui_tiles::UiResponse::None
    }

    fn top_bar_right_ui(
        &mut self,
        tiles: &egui_tiles::Tiles<Panel>,
        ui: &mut Ui,
        _tile: egui_tiles::TileId,
        tabs: &egui_tiles::Tabs,
        _scroll: &mut f32,
    ) {
        if let Some(panel) = tabs.active.and_then(|tile| tiles.get_pane(&tile)) {
            exporting::menu(ui, *panel, self.actions);
        }
    }

    fn on_tab_button(
        &mut self,
        tiles: &mut egui_tiles::Tiles<Panel>,
        tile: egui_tiles::TileId,
        response: egui::Response,
    ) -> egui::Response {
        if response.clicked()
            && let Some(panel) = tiles.get_pane(&tile)
        {
            self.panels.pipeline.attention = Some(*panel);
        }
        response
    }

    fn on_edit(&mut self, action: EditAction) {
        self.moved |= matches!(action, EditAction::TileResized | EditAction::TileDropped);
    }

    fn tab_title_for_pane(&mut self, panel: &Panel) -> egui::WidgetText {
        panel.name().into()
    }

    fn simplification_options(&self) -> egui_tiles::SimplificationOptions {
        egui_tiles::SimplificationOptions { all_panes_must_have_tabs: true, ..Default::default() }
    }
}
