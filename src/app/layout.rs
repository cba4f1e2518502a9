//! The panels and how they lie: a tree of tiles that can be dragged, saved and reset.

use egui_tiles::{Container, Tile, Tree};
use serde::{Deserialize, Serialize};

/// One kind of panel; each is open at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Panel {
    Data,
    Model,
    Image,
    Losses,
    Step,
    Evaluation,
    Log,
}

impl Panel {
    pub const ALL: [Self; 7] =
        [Self::Data, Self::Model, Self::Image, Self::Losses, Self::Step, Self::Evaluation, Self::Log];

    pub fn name(self) -> &'static str {
        match self {
            Self::Data => "Data",
            Self::Model => "Model",
            Self::Image => "Image",
            Self::Losses => "Losses",
            Self::Step => "Step",
            Self::Evaluation => "Evaluation",
            Self::Log => "Log",
        }
    }
}

/// Data and model on the left, the image in the middle, training on the right, losses and log below.
pub fn default_layout() -> Tree<Panel> {
    let mut tiles = egui_tiles::Tiles::default();
    let [data, model, image, losses, step, evaluation, log] = Panel::ALL.map(|panel| tiles.insert_pane(panel));
    let left = tiles.insert_vertical_tile(vec![data, model]);
    let lower = tiles.insert_tab_tile(vec![losses, evaluation, log]);
    let middle = tiles.insert_vertical_tile(vec![image, lower]);
    let root = tiles.insert_horizontal_tile(vec![left, middle, step]);
    for (parent, children) in [
        (root, vec![(left, 0.22), (middle, 0.53), (step, 0.25)]),
        (middle, vec![(image, 0.68), (lower, 0.32)]),
        (left, vec![(data, 0.5), (model, 0.5)]),
    ] {
        if let Some(Tile::Container(Container::Linear(linear))) = tiles.get_mut(parent) {
            for (child, share) in children {
                linear.shares.set_share(child, share);
            }
        }
    }
    Tree::new(egui::Id::unique("workbench"), root, tiles)
}

/// Whether a saved layout holds every panel exactly once and a root to draw.
pub fn is_complete(tree: &Tree<Panel>) -> bool {
    let mut panes: Vec<Panel> = Vec::new();
    for (_, tile) in tree.tiles.iter() {
        if let Tile::Pane(panel) = tile {
            panes.push(*panel);
        }
    }
    let each_once = Panel::ALL.iter().all(|panel| panes.iter().filter(|p| *p == panel).count() == 1);
    each_once && tree.root().is_some_and(|root| tree.tiles.get(root).is_some())
}

/// Brings `panel` to the front of its tabs and makes it visible.
pub fn focus(tree: &mut Tree<Panel>, panel: Panel) {
    if let Some(tile) = tree.tiles.find_pane(&panel) {
        tree.set_visible(tile, true);
        tree.make_active(|id, _| id == tile);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_layout_has_every_panel_once_and_survives_saving() {
        let tree = default_layout();
        assert!(is_complete(&tree));
        let text = serde_json::to_string(&tree).unwrap();
        assert!(is_complete(&serde_json::from_str(&text).unwrap()));
    }

    #[test]
    fn a_layout_that_lost_a_panel_is_not_complete() {
        let mut tree = default_layout();
        let log = tree.tiles.find_pane(&Panel::Log).unwrap();
        tree.tiles.remove(log);
        assert!(!is_complete(&tree));
    }
}
