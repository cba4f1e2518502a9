//! Maps side by side: as large as all of them fit, each with its colour scale or one for all.

use super::FeaturesPanel;
use super::table::{cut, families};
use super::tiles::{Channels, Request, Tile, fit_device};
use crate::app::action::Action;
use crate::app::bridge::{MapPicture, Shaders, paint_map, paint_scene};
use crate::app::panels::{color_bar, number};
use crate::app::state::State;
use crate::render::{ColorMap, HeatLayer, HeatmapLook, ImageLook, Scene, View, Viewport};
use crate::trace::Trace;
use crate::trace::reduce::Reduction;
use egui::{Align2, FontId, Rect, Sense, Ui, pos2, vec2};
use std::sync::{Arc, OnceLock};

/// Buffers of the first tile's view; those of the others follow.
const VIEW_ID: u64 = 0xF000;
/// More maps than this are not drawn at once.
const MOST: usize = 256;
/// A tile's name and range stand below it from this height on.
const LABELLED: f32 = 60.0;
const LABEL: f32 = 26.0;
const GAP: f32 = 4.0;

impl FeaturesPanel {
    pub(super) fn maps(&mut self, ui: &mut Ui, state: &State, trace: &Arc<Trace>, actions: &mut Vec<Action>) {
        if let Some(made) = self.maker.take() {
            self.made += 1;
            self.tiles = Some(made);
        }
        let all = families(&trace.maps);
        let Some(family) = self.chosen(&all) else { return };
        let rows = cut(&family, self.cut);
        let maps: Vec<usize> = rows.iter().flatten().copied().take(MOST).collect();
        let on_device = self.channels != Channels::Principal && fit_device(Shaders::of(ui.ctx()), trace, &maps);
        // One request for all reductions: choosing another one makes nothing anew.
        let channels = if on_device { Channels::Reduced(Reduction::Mean) } else { self.channels };
        let (shown, family) = (state.shown_version, family.name);
        let request = Request { shown, family, cut: self.cut, channels, on_device, maps };
        if self.tiles.as_ref().is_none_or(|tiles| tiles.request != request)
            && let Err(error) = self.maker.ask(ui.ctx(), trace, request.clone())
        {
            ui.colored_label(ui.visuals().error_fg_color, format!("the maps cannot be prepared: {error}"));
            return;
        }
        let how = self.channels.reduction();
        let Some(tiles) = &mut self.tiles else {
            ui.label("The maps are being prepared.");
            return;
        };
        // While new ones are being made, those of another image or family would have the wrong names.
        if (tiles.request.shown, &tiles.request.maps) != (request.shown, &request.maps) {
            ui.label("The maps are being prepared.");
            return;
        }
        for tile in &mut tiles.tiles {
            if let Some(ranges) = &tile.ranges {
                tile.range = ranges.of(how);
            }
        }
        let Some(tiles) = &self.tiles else { return };
        let range = if self.shared { join(&tiles.tiles) } else { None };
        let channels = if tiles.request.on_device { Channels::Reduced(how) } else { tiles.request.channels };
        self.scale(ui, range, channels);
        let whole = ui.available_rect_before_wrap();
        let places = places(whole, &rows);
        let mut clicked = None;
        for (number, (tile, place)) in tiles.tiles.iter().zip(places).enumerate() {
            if self.tile(ui, number, tile, place, trace, range) {
                clicked = Some(tile.map);
            }
        }
        if let Some(map) = clicked {
            if self.selected == Some(map)
                && let Some(map) = trace.maps.get(map)
            {
                actions.push(Action::Overlay(map.name.clone(), channels.reduction()));
            }
            self.selected = Some(map);
        }
    }

    /// The colour scale with its numbers.
    fn scale(&self, ui: &mut Ui, range: Option<(f32, f32)>, channels: Channels) {
        ui.horizontal(|ui| {
            if channels == Channels::Principal {
                ui.weak("the three principal components of each map as red, green and blue");
                return;
            }
            let (low, high) = match range {
                Some(range) => {
                    let (low, high) = self.ends(range);
                    (number(low), number(high))
                }
                None => ("lowest".to_string(), "highest".to_string()),
            };
            color_bar(ui, self.color_map, &low, &high);
            ui.weak(if range.is_some() { "in all maps" } else { "of each map, as printed below it" });
            ui.weak("· a click chooses a map, a second one lays it over the picture");
        });
    }

    /// Values at the ends of the colours: around zero for the diverging map.
    fn ends(&self, (low, high): (f32, f32)) -> (f32, f32) {
        if self.color_map == ColorMap::Diverging {
            let most = low.abs().max(high.abs());
            (-most, most)
        } else {
            (low, high)
        }
    }

    /// Draws one map; true when it was clicked.
    fn tile(
        &self,
        ui: &Ui,
        index: usize,
        tile: &Tile,
        place: Rect,
        trace: &Arc<Trace>,
        shared: Option<(f32, f32)>,
    ) -> bool {
        let Some(map) = trace.maps.get(tile.map) else { return false };
        let response = ui.interact(place, ui.scope_id().with(("feature map", tile.map)), Sense::click());
        let shape = format!("{}×{}×{}", map.channels, map.height, map.width);
        let range = match tile.range {
            Some((low, high)) => format!("{} to {}", number(low), number(high)),
            None if tile.pixels.is_empty() => "no numbers".into(),
            None => "PCA".into(),
        };
        let labelled = place.height() >= LABELLED;
        let bottom = if labelled { place.max.y - LABEL } else { place.max.y };
        let area = Rect::from_min_max(place.min, pos2(place.max.x, bottom));
        let painter = ui.painter_at(place);
        let scale = ui.ctx().pixels_per_point();
        let viewport =
            Viewport::new(area.min.x * scale, area.min.y * scale, area.width() * scale, area.height() * scale);
        let view = View::fit([tile.width as f32, tile.height as f32], viewport);
        let id = VIEW_ID + index as u64;
        if tile.ranges.is_some() {
            painter.extend(self.map_picture(tile, trace, shared).map(|map| paint_map(area, id, map, view)));
        } else {
            painter.extend(self.tile_scene(index, tile, shared).map(|scene| paint_scene(area, id, scene, view)));
        }
        if labelled {
            let color = ui.visuals().text_color();
            let font = FontId::proportional(10.0);
            painter.text(area.left_bottom(), Align2::LEFT_TOP, &map.name, font.clone(), color);
            let below = area.left_bottom() + vec2(0.0, LABEL / 2.0);
            painter.text(below, Align2::LEFT_TOP, format!("{shape}, {range}"), font, ui.visuals().weak_text_color());
        }
        if self.selected == Some(tile.map) || response.hovered() {
            let stroke = egui::Stroke::new(2.0, ui.visuals().strong_text_color());
            painter.rect_stroke(area, 0.0, stroke, egui::StrokeKind::Inside);
        }
        let clicked = response.clicked();
        response.widget_info(|| {
            let name = format!("Map {}", map.name);
            egui::WidgetInfo::selected(egui::accesskit::Role::Button, true, self.selected == Some(tile.map), name)
        });
        response.on_hover_text(format!("{}, level {}: {shape}, {range}", map.name, map.level));
        clicked
    }

    /// A map whose channels the device reduces.
    fn map_picture(&self, tile: &Tile, trace: &Arc<Trace>, shared: Option<(f32, f32)>) -> Option<MapPicture> {
        let version = map_version(self.tiles.as_ref()?.request.shown, tile.map);
        let (how, look) = (self.channels.reduction(), self.heat_look(tile, shared)?);
        Some(MapPicture { version, trace: trace.clone(), map: tile.map, how, look })
    }

    fn heat_look(&self, tile: &Tile, shared: Option<(f32, f32)>) -> Option<HeatmapLook> {
        let (low, high) = self.ends(shared.or(tile.range)?);
        Some(HeatmapLook {
            bounds: [0.0, 0.0, tile.width as f32, tile.height as f32],
            low,
            high: if high > low { high } else { low + 1.0 },
            color_map: self.color_map,
            opacity: 1.0,
            fade: 0.0,
            smooth: self.smooth,
        })
    }

    pub(super) fn tile_scene(&self, index: usize, tile: &Tile, shared: Option<(f32, f32)>) -> Option<Scene> {
        // 1 is the version of the pixel below the maps of numbers.
        let version = 2 + self.made * MOST as u64 + index as u64;
        let look = ImageLook { grid: 0.0, ..ImageLook::default() };
        if !tile.pixels.is_empty() {
            let (width, height, pixels) = (tile.width, tile.height, tile.pixels.clone());
            return Some(Scene { version, width, height, pixels, look, heat: None, boxes: Vec::new() });
        }
        let (width, height, values) = (tile.width, tile.height, tile.values.clone());
        let heat = HeatLayer { version, width, height, values, look: self.heat_look(tile, shared)? };
        let pixels = ground().clone();
        Some(Scene { version: 1, width: 1, height: 1, pixels, look, heat: Some(heat), boxes: Vec::new() })
    }
}

/// Tells maps of different images apart for the renderer.
fn map_version(shown: u64, map: usize) -> u64 {
    (shown << 20) + map as u64
}

/// One black pixel: a scene needs a picture, and a map covers it.
fn ground() -> &'static Arc<Vec<u8>> {
    static GROUND: OnceLock<Arc<Vec<u8>>> = OnceLock::new();
    GROUND.get_or_init(|| Arc::new(vec![0, 0, 0, 255]))
}

/// Lowest and highest value of all tiles.
fn join(tiles: &[Tile]) -> Option<(f32, f32)> {
    tiles.iter().filter_map(|tile| tile.range).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
}

/// Where tiles go: a table as it is; a single row in as many lines as make its tiles largest.
fn places(whole: Rect, rows: &[Vec<usize>]) -> Vec<Rect> {
    let longest = rows.iter().map(Vec::len).max().unwrap_or(0).max(1);
    let cell =
        |columns: usize, lines: usize| vec2(whole.width() / columns as f32, whole.height() / lines.max(1) as f32);
    let at = |size: egui::Vec2, column: usize, line: usize| {
        let corner = whole.min + vec2(column as f32 * size.x, line as f32 * size.y);
        Rect::from_min_size(corner, (size - vec2(GAP, GAP)).max(vec2(1.0, 1.0)))
    };
    if rows.len() > 1 {
        let size = cell(longest, rows.len());
        return rows
            .iter()
            .enumerate()
            .flat_map(|(line, row)| (0..row.len()).map(move |column| (column, line)))
            .map(|(column, line)| at(size, column, line))
            .collect();
    }
    let side = |columns: usize| {
        let size = cell(columns, longest.div_ceil(columns));
        size.x.min(size.y - LABEL)
    };
    let columns = (1..=longest).max_by(|a, b| side(*a).total_cmp(&side(*b))).unwrap_or(1);
    let size = cell(columns, longest.div_ceil(columns));
    (0..longest).map(|index| at(size, index % columns, index / columns)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::FeatureMap;
    use egui_kittest::Harness;

    #[test]
    fn tiles_stay_inside_and_apart() {
        let whole = Rect::from_min_size(pos2(10.0, 20.0), vec2(300.0, 200.0));
        for rows in [vec![(0..7).collect()], vec![vec![0, 1, 2], vec![3, 4, 5]], vec![vec![0]]] {
            let count: usize = rows.iter().map(Vec::len).sum();
            let placed = places(whole, &rows);
            assert_eq!(placed.len(), count);
            for (index, place) in placed.iter().enumerate() {
                assert!(whole.expand(0.01).contains_rect(*place), "{place:?}");
                assert!(placed[..index].iter().all(|other| !other.shrink(0.1).intersects(*place)));
            }
        }
        assert!(places(whole, &[]).len() <= 1);
    }

    #[test]
    fn a_shared_scale_spans_all_maps() {
        let tile = |range| Tile { range, ..Tile::default() };
        assert_eq!(join(&[tile(Some((0.0, 2.0))), tile(None), tile(Some((-1.0, 1.0)))]), Some((-1.0, 2.0)));
        assert_eq!(join(&[]), None);
        assert_eq!((number(0.0), number(0.5), number(12345.0)), ("0.00".into(), "0.50".into(), "1.2e4".into()));
    }

    #[test]
    fn another_channel_makes_nothing_anew_where_the_device_reduces() {
        let data = (0..8).map(|value| value as f32).collect();
        let map = FeatureMap { name: "p3".into(), channels: 2, height: 2, width: 2, data, ..FeatureMap::default() };
        let trace = Arc::new(Trace { maps: vec![map], ..Trace::default() });
        let (shaders, state) = (Shaders { map_bytes: 1 << 20, ..Shaders::default() }, State::default());
        let app = move |ui: &mut Ui, panel: &mut FeaturesPanel| {
            shaders.tell(ui.ctx());
            panel.maps(ui, &state, &trace, &mut Vec::new());
        };
        let mut harness = Harness::new_ui_state(app, FeaturesPanel::default());
        for _ in 0..500 {
            harness.step();
            if harness.state().made > 0 {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let reductions = [Reduction::Channel(1), Reduction::Mean, Reduction::Channel(0)];
        for (how, range) in reductions.into_iter().zip([(4.0, 7.0), (2.0, 5.0), (0.0, 3.0)]) {
            harness.state_mut().channels = Channels::Reduced(how);
            harness.step();
            let panel = harness.state();
            let tiles = &panel.tiles.as_ref().unwrap().tiles;
            assert_eq!((panel.made, tiles[0].range), (1, Some(range)), "{how:?}");
            let shapes = &harness.output().shapes;
            let drawn = shapes.iter().filter(|clipped| matches!(clipped.shape, egui::Shape::Callback(_))).count();
            assert_eq!(drawn, 1);
        }
    }
}
