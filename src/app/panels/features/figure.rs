//! The Features view as a figure: maps side by side, each with its range, and their cells as numbers.

use super::tiles::{Tile, tile};
use super::{FeaturesPanel, Page, has_levels};
use crate::app::export::{Draft, Figure, Still, Table};
use crate::app::settings::Settings;
use crate::app::state::State;
use crate::detect::Config;
use crate::engine::Shown;
use crate::render::ColorMap;
use crate::trace::Trace;

pub use super::tiles::Channels;

/// Longest side of a map, pixels.
const SIDE: f32 = 256.0;
/// Maps of a grid at most.
const MOST: usize = 256;

impl FeaturesPanel {
    /// The page on show, to be made a figure of; nothing before there are any maps.
    pub fn draft(&mut self, state: &State, settings: &Settings) -> Option<Draft> {
        let shown = state.shown.as_deref()?;
        let trace = shown.trace.clone()?;
        if self.page == Page::Levels {
            let figure = self.figure_of_levels(shown, &trace, state.shown_version, settings);
            return Some(Box::new(move || figure));
        }
        let maps = self.maps_on_show()?;
        let (channels, color_map, shared, smooth) = (self.channels, self.color_map, self.shared, self.smooth);
        Some(Box::new(move || {
            let panel = Self { channels, color_map, shared, smooth, ..Self::default() };
            panel.figure_of_maps(&trace, &maps)
        }))
    }

    /// All of them, or the chosen one alone.
    fn maps_on_show(&self) -> Option<Vec<usize>> {
        let maps = &self.tiles.as_ref()?.request.maps;
        let chosen = self.selected.filter(|map| maps.contains(map));
        Some(chosen.map_or_else(|| maps.clone(), |map| vec![map]))
    }

    fn figure_of_maps(&self, trace: &Trace, maps: &[usize]) -> Figure {
        let tiles: Vec<Tile> = maps.iter().take(MOST).map(|&map| tile(trace, map, self.channels)).collect();
        grid(self.stills(&tiles, trace), &tiles, trace)
    }

    fn stills(&self, tiles: &[Tile], trace: &Trace) -> Vec<Still> {
        let ranges = tiles.iter().filter_map(|tile| tile.range);
        let shared = ranges.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).filter(|_| self.shared);
        let still = |(index, tile): (usize, &Tile)| {
            let map = trace.maps.get(tile.map)?;
            let range = tile.range.map_or(String::new(), |(low, high)| format!(", {low:.3} to {high:.3}"));
            let title = format!("{} {}x{}x{}{range}", map.name, map.channels, map.height, map.width);
            let scene = self.tile_scene(index, tile, shared)?;
            Some(Still { size: Some(enlarged(tile)), ..Still::new(title, scene) })
        };
        tiles.iter().enumerate().filter_map(still).collect()
    }
}

/// Maps in a square of rows; behind them every cell.
fn grid(stills: Vec<Still>, tiles: &[Tile], trace: &Trace) -> Figure {
    let mut table = Table::new(&["map", "level", "row", "column", "value"]);
    for tile in tiles {
        let Some(map) = trace.maps.get(tile.map) else { continue };
        let width = tile.width.max(1) as usize;
        for (place, value) in tile.values.iter().enumerate() {
            table.row(&[&map.name, &map.level, &(place / width), &(place % width), value]);
        }
        for (place, pixel) in tile.pixels.chunks_exact(4).enumerate() {
            let color = format!("#{:02x}{:02x}{:02x}", pixel[0], pixel[1], pixel[2]);
            table.row(&[&map.name, &map.level, &(place / width), &(place % width), &color]);
        }
    }
    let columns = (stills.len() as f32).sqrt().ceil() as usize;
    Figure::stills("Feature maps", stills, columns, table)
}

/// The detections of at least `score` of a pass over its picture, by the level that they come from; nothing where they
/// come from none.
pub fn by_level(config: &Config, shown: &Shown, score: f32) -> Option<Figure> {
    let trace = shown.trace.as_deref().filter(|trace| has_levels(Some(config), trace))?;
    let settings = Settings { score, ..Settings::default() };
    Some(FeaturesPanel::default().figure_of_levels(shown, trace, 1, &settings))
}

/// The maps at these positions of a trace, their channels reduced.
pub fn map_grid(trace: &Trace, maps: &[usize], channels: Channels, color_map: ColorMap, one_scale: bool) -> Figure {
    let panel = FeaturesPanel { channels, color_map, shared: one_scale, ..FeaturesPanel::default() };
    panel.figure_of_maps(trace, maps)
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
