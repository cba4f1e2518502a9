//! The panels and how they lie: a tree of tiles that can be dragged, saved and reset.

use egui_tiles::{Container, Tile, TileId, Tree};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::path::Path;

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
    Features,
    Compare,
    Anchors,
    Proposals,
    Suppression,
    Runs,
}

impl Panel {
    pub const ALL: [Self; 13] = [
        Self::Data,
        Self::Model,
        Self::Image,
        Self::Losses,
        Self::Step,
        Self::Evaluation,
        Self::Log,
        Self::Features,
        Self::Compare,
        Self::Anchors,
        Self::Proposals,
        Self::Suppression,
        Self::Runs,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Data => "Data",
            Self::Model => "Model",
            Self::Image => "Image",
            Self::Losses => "Losses",
            Self::Step => "Step",
            Self::Evaluation => "Evaluation",
            Self::Log => "Log",
            Self::Features => "Features",
            Self::Compare => "Compare",
            Self::Anchors => "Anchors",
            Self::Proposals => "Proposals",
            Self::Suppression => "Suppression",
            Self::Runs => "Runs",
        }
    }
}

/// Data and model on the left, the image in the middle, training on the right, losses and log below.
pub fn default_layout() -> Tree<Panel> {
    let mut tiles = egui_tiles::Tiles::default();
    let [data, model, image, losses, step, evaluation, log, features, compare, anchors, proposals, suppression, runs] =
        Panel::ALL.map(|panel| tiles.insert_pane(panel));
    let left = tiles.insert_vertical_tile(vec![data, model]);
    let lower = tiles.insert_tab_tile(vec![losses, evaluation, log, features, compare, runs]);
    let pictures = tiles.insert_tab_tile(vec![image, anchors, proposals, suppression]);
    let middle = tiles.insert_vertical_tile(vec![pictures, lower]);
    let root = tiles.insert_horizontal_tile(vec![left, middle, step]);
    for (parent, children) in [
        (root, vec![(left, 0.22), (middle, 0.53), (step, 0.25)]),
        (middle, vec![(pictures, 0.68), (lower, 0.32)]),
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

/// Whether a saved layout leads from its root to every panel exactly once.
pub fn is_complete(tree: &Tree<Panel>) -> bool {
    let mut panes: Vec<Panel> = Vec::new();
    let mut waiting: Vec<TileId> = tree.root().into_iter().collect();
    let mut seen: HashSet<TileId> = HashSet::new();
    while let Some(id) = waiting.pop() {
        // A tile under two others, or under itself, would be drawn without end.
        if !seen.insert(id) {
            return false;
        }
        match tree.tiles.get(id) {
            Some(Tile::Pane(panel)) => panes.push(*panel),
            Some(Tile::Container(container)) => waiting.extend(container.children()),
            None => return false,
        }
    }
    let every = Panel::ALL.iter().all(|panel| panes.iter().filter(|p| *p == panel).count() == 1);
    every && panes.len() == tree.tiles.iter().filter(|(_, tile)| matches!(tile, Tile::Pane(_))).count()
}

/// A layout as a file holds it.
#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    layout: Tree<Panel>,
}

/// Files of another version are not read.
const VERSION: u32 = 1;
/// A larger file is no layout.
const LARGEST: u64 = 1 << 20;

/// Writes a layout as JSON.
///
/// # Errors
/// A file that cannot be written.
pub fn export(tree: &Tree<Panel>, path: &Path) -> Result<(), String> {
    let file = File { version: VERSION, layout: tree.clone() };
    let text = serde_json::to_string_pretty(&file).map_err(|e| e.to_string())?;
    crate::weights::write_atomically(path, text.as_bytes()).map_err(|e| e.to_string())
}

/// Reads a layout that [`export`] wrote.
///
/// # Errors
/// A file that cannot be read, or that is no layout of this version with every panel in it.
pub fn import(path: &Path) -> Result<Tree<Panel>, String> {
    let unread = |e: &dyn std::fmt::Display| format!("the layout does not read ({e}): {}", path.display());
    let length = std::fs::metadata(path).map_err(|e| unread(&e))?.len();
    if length > LARGEST {
        return Err(unread(&"the file is too large for one"));
    }
    let text = std::fs::read_to_string(path).map_err(|e| unread(&e))?;
    let file: File = serde_json::from_str(&text).map_err(|e| unread(&e))?;
    if file.version != VERSION || !is_complete(&file.layout) {
        return Err(unread(&"it is of another version of this program, or panels are missing; export it anew"));
    }
    Ok(file.layout)
}

/// Brings `panel` to the front of its tabs and makes it visible.
pub fn focus(tree: &mut Tree<Panel>, panel: Panel) {
    if let Some(tile) = tree.tiles.find_pane(&panel) {
        tree.set_visible(tile, true);
        tree.make_active(|id, _| id == tile);
    }
}

/// Whether the tab of `panel` was taken away.
pub fn is_hidden(tree: &Tree<Panel>, panel: Panel) -> bool {
    tree.tiles.find_pane(&panel).is_some_and(|tile| !tree.is_visible(tile))
}

/// Shows the tab of `panel`, or takes it away while there is nothing that it could show.
pub fn offer(tree: &mut Tree<Panel>, panel: Panel, offered: bool) {
    if let Some(tile) = tree.tiles.find_pane(&panel)
        && tree.is_visible(tile) != offered
    {
        tree.set_visible(tile, offered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panel_that_is_not_offered_keeps_its_place() {
        let mut tree = default_layout();
        offer(&mut tree, Panel::Proposals, false);
        assert!(is_hidden(&tree, Panel::Proposals) && is_complete(&tree));
        offer(&mut tree, Panel::Proposals, true);
        assert!(!is_hidden(&tree, Panel::Proposals));
    }

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

    #[test]
    fn a_layout_that_leads_in_a_circle_is_not_complete() {
        let mut tree = default_layout();
        let root = tree.root().unwrap();
        if let Some(Tile::Container(container)) = tree.tiles.get_mut(root) {
            container.add_child(root);
        }
        assert!(!is_complete(&tree));
    }

    #[test]
    fn a_file_brings_the_layout_back_and_anything_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("layout.json");
        let mut tree = default_layout();
        focus(&mut tree, Panel::Runs);
        export(&tree, &path).unwrap();
        assert!(import(&path).unwrap() == tree);
        std::fs::write(&path, "{\"version\":1}").unwrap();
        assert!(import(&path).unwrap_err().contains("layout.json"));
        assert!(import(&folder.path().join("none.json")).is_err());
    }
}
