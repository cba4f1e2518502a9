//! The Features view as a figure: maps side by side, each with its range, and their cells as numbers.

use super::tiles::{Tile, tile};
use super::{FeaturesPanel, Page};
use crate::app::export::{Figure, Still, Table};
use crate::app::settings::Settings;
use crate::app::state::State;
use crate::render::ColorMap;
use crate::trace::Trace;

pub use super::tiles::Channels;

/// Longest side of a map, pixels.
const SIDE: f32 = 256.0;
/// Maps of a grid at most.
const MOST: usize = 256;

impl FeaturesPanel {
    /// The page on show; nothing before there are any maps.
    pub fn figure(&mut self, state: &State, settings: &Settings) -> Option<Figure> {
        let shown = state.shown.as_deref()?;
        let trace = shown.trace.as_deref()?;
        match self.page {
            Page::Maps => self.figure_of_maps(trace),
            Page::Levels => Some(self.figure_of_levels(shown, trace, state.shown_version, settings)),
        }
    }

    /// The maps on show, or the chosen one alone.
    fn figure_of_maps(&self, trace: &Trace) -> Option<Figure> {
        let tiles = self.tiles.as_ref()?;
        let chosen: Vec<&Tile> = match self.selected {
            Some(map) if tiles.tiles.iter().any(|tile| tile.map == map) => {
                tiles.tiles.iter().filter(|tile| tile.map == map).collect()
            }
            _ => tiles.tiles.iter().collect(),
        };
        Some(self.figure_of(&chosen, trace))
    }

    fn figure_of(&self, tiles: &[&Tile], trace: &Trace) -> Figure {
        let ranges = tiles.iter().filter_map(|tile| tile.range);
        let shared = ranges.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).filter(|_| self.shared);
        let mut stills = Vec::with_capacity(tiles.len());
        let mut table = Table::new(&["map", "level", "row", "column", "value"]);
        for (index, tile) in tiles.iter().enumerate() {
            let Some(map) = trace.maps.get(tile.map) else { continue };
            let range = tile.range.map_or(String::new(), |(low, high)| format!(", {low:.3} to {high:.3}"));
            let title = format!("{} {}x{}x{}{range}", map.name, map.channels, map.height, map.width);
            if let Some(scene) = self.tile_scene(index, tile, shared) {
                stills.push(Still { size: Some(enlarged(tile)), ..Still::new(title, scene) });
            }
            for (place, value) in tile.values.iter().enumerate() {
                let width = tile.width.max(1) as usize;
                table.row(&[&map.name, &map.level, &(place / width), &(place % width), value]);
            }
            for (place, pixel) in tile.pixels.chunks_exact(4).enumerate() {
                let width = tile.width.max(1) as usize;
                let color = format!("#{:02x}{:02x}{:02x}", pixel[0], pixel[1], pixel[2]);
                table.row(&[&map.name, &map.level, &(place / width), &(place % width), &color]);
            }
        }
        let columns = (stills.len() as f32).sqrt().ceil() as usize;
        Figure::stills("Feature maps", stills, columns, table)
    }
}

/// The maps at these positions of a trace, their channels reduced.
pub fn map_grid(trace: &Trace, maps: &[usize], channels: Channels, color_map: ColorMap, one_scale: bool) -> Figure {
    let panel = FeaturesPanel { channels, color_map, shared: one_scale, ..FeaturesPanel::default() };
    let tiles: Vec<Tile> = maps.iter().take(MOST).map(|&map| tile(trace, map, channels)).collect();
    panel.figure_of(&tiles.iter().collect::<Vec<_>>(), trace)
}

/// The size at which a map is drawn: whole pixels to a cell where there is room.
fn enlarged(tile: &Tile) -> (u32, u32) {
    let longest = tile.width.max(tile.height).max(1) as f32;
    let factor = if longest < SIDE { (SIDE / longest).floor() } else { SIDE / longest };
    let side = |cells: u32| ((cells as f32 * factor) as u32).max(1);
    (side(tile.width), side(tile.height))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::FeatureMap;
    use crate::trace::reduce::Reduction;

    #[test]
    fn every_cell_of_every_map_has_a_row() {
        let map = |name: &str, side: usize| FeatureMap {
            name: name.into(),
            channels: 2,
            height: side,
            width: side,
            data: vec![0.5; 2 * side * side],
            ..FeatureMap::default()
        };
        let trace = Trace { maps: vec![map("p3", 4), map("p4", 2)], ..Trace::default() };
        for channels in [Channels::Reduced(Reduction::Max), Channels::Principal] {
            let figure = map_grid(&trace, &[0, 1, 9], channels, ColorMap::Viridis, true);
            assert_eq!(figure.table.rows(), 16 + 4);
            let Some(crate::app::export::Drawing::Stills { stills, columns }) = &figure.drawing else { panic!() };
            assert_eq!((stills.len(), *columns, stills[1].size), (2, 2, Some((256, 256))));
        }
    }
}
