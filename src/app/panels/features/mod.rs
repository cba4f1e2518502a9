//! Features panel: any tapped map, one or a whole table of them, and what each level of the pyramid is good for.

pub mod figure;
mod grid;
mod levels;
mod table;
mod tiles;

use super::canvas::Canvas;
use crate::app::action::Action;
use crate::app::settings::Settings;
use crate::app::state::State;
use crate::detect::Config;
use crate::engine::Shown;
use crate::render::{BoxInstance, BoxStyle, ColorMap};
use crate::trace::Trace;
use crate::trace::reduce::Reduction;
use egui::{Slider, Ui};
use std::sync::Arc;
use table::{Cut, Family, families};
use tiles::{Channels, Maker, Tiles};

/// What the panel shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Page {
    #[default]
    Maps,
    Levels,
}

/// Scratch of the panel.
#[derive(Debug)]
pub struct FeaturesPanel {
    page: Page,
    /// Name of the chosen family; the last one of the trace until a choice is made.
    family: Option<String>,
    cut: Cut,
    channels: Channels,
    color_map: ColorMap,
    /// One colour scale for all maps.
    shared: bool,
    smooth: bool,
    /// Position in the trace.
    selected: Option<usize>,
    maker: Maker,
    tiles: Option<Tiles>,
    /// Counts the tiles taken in, for the renderer to tell them apart.
    made: u64,
    canvas: Canvas,
    /// Bit n: level n is muted.
    muted: u32,
    boxes: Option<LevelBoxes>,
}

/// Detections by level, made once an image: solid for those that stay, dashed for those that go.
#[derive(Debug)]
struct LevelBoxes {
    shown: u64,
    pixels: Arc<Vec<u8>>,
    style: Arc<BoxStyle>,
    staying: Arc<Vec<BoxInstance>>,
    going: Arc<Vec<BoxInstance>>,
}

impl Default for FeaturesPanel {
    fn default() -> Self {
        Self {
            page: Page::Maps,
            family: None,
            cut: Cut::Whole,
            channels: Channels::Reduced(Reduction::Mean),
            color_map: ColorMap::Viridis,
            shared: false,
            smooth: false,
            selected: None,
            maker: Maker::default(),
            tiles: None,
            made: 0,
            canvas: Canvas::default(),
            muted: 0,
            boxes: None,
        }
    }
}

impl FeaturesPanel {
    /// The place and zoom that view keys move, while the picture is on show.
    pub fn picture(&mut self) -> Option<&mut Canvas> {
        (self.page == Page::Levels).then_some(&mut self.canvas)
    }

    pub fn ui(&mut self, ui: &mut Ui, state: &State, settings: &Settings, actions: &mut Vec<Action>) {
        let traced = state.shown.as_ref().and_then(|shown| Some((shown.clone(), shown.trace.clone()?)));
        let Some((shown, trace)) = traced.filter(|(_, trace)| !trace.maps.is_empty()) else {
            ui.label("No feature maps yet: they come with the detections of an image.");
            return;
        };
        let by_level = has_levels(state.config(), &trace);
        if !by_level {
            self.page = Page::Maps;
        }
        ui.horizontal_wrapped(|ui| {
            ui.selectable_value(&mut self.page, Page::Maps, "Maps")
                .on_hover_text("What backbone and neck make of the picture");
            if by_level {
                ui.selectable_value(&mut self.page, Page::Levels, "Levels")
                    .on_hover_text("Mute a level and see which detections go");
            }
            ui.separator();
            if self.page == Page::Maps {
                self.choices(ui, &trace, actions);
            }
        });
        match self.page {
            Page::Maps => self.maps(ui, state, &trace, actions),
            Page::Levels => self.levels(ui, &shown, &trace, state.shown_version, settings, actions),
        }
    }

    /// The chosen family; the last tapped one (what the head sees, or nearest to it) until a choice is made.
    fn chosen(&self, all: &[Family]) -> Option<Family> {
        let named = self.family.as_ref().and_then(|name| all.iter().find(|family| family.name == *name));
        named.or(all.last()).cloned()
    }

    fn choices(&mut self, ui: &mut Ui, trace: &Trace, actions: &mut Vec<Action>) {
        let all = families(&trace.maps);
        let Some(family) = self.chosen(&all) else { return };
        let choice = egui::ComboBox::from_id_salt("family").selected_text(&family.name).show_ui(ui, |ui| {
            for other in &all {
                let count: usize = other.rows.iter().map(Vec::len).sum();
                let text = format!("{} ({count})", other.name);
                if ui.selectable_label(other.name == family.name, text).clicked() {
                    self.family = Some(other.name.clone());
                    self.cut = Cut::Whole;
                    self.selected = None;
                }
            }
        });
        choice.response.on_hover_text("Which maps of the network");
        if family.rows.len() > 1 {
            self.choose_cut(ui, &family);
        }
        self.choose_channels(ui, trace, &family);
        let choice = egui::ComboBox::from_id_salt("colours").selected_text(self.color_map.name()).show_ui(ui, |ui| {
            for map in ColorMap::ALL {
                ui.selectable_value(&mut self.color_map, map, map.name());
            }
        });
        choice.response.on_hover_text("Colours of the values; the diverging map is centred on zero");
        ui.checkbox(&mut self.shared, "one scale").on_hover_text("The same colours for the same values in all maps");
        ui.checkbox(&mut self.smooth, "smooth").on_hover_text("Blend between cells instead of showing squares");
        let named = self.selected.and_then(|position| trace.maps.get(position));
        let lay = ui.add_enabled(named.is_some(), egui::Button::new("Lay over the picture"));
        let lay = lay.on_hover_text("Show the chosen map in the Image panel");
        if lay.on_disabled_hover_text("Click a map first").clicked()
            && let Some(map) = named
        {
            actions.push(Action::Overlay(map.name.clone(), self.channels.reduction()));
        }
    }

    /// A table whole, by row or by column.
    fn choose_cut(&mut self, ui: &mut Ui, family: &Family) {
        let (rows, columns) = (family.rows.len(), family.columns());
        let text = match self.cut {
            Cut::Whole => format!("all {rows} × {columns}"),
            Cut::Row(row) => format!("level {}", row + 1),
            Cut::Column(column) => format!("scale {column}"),
        };
        let choice = egui::ComboBox::from_id_salt("cut").selected_text(text).show_ui(ui, |ui| {
            ui.selectable_value(&mut self.cut, Cut::Whole, format!("all {rows} × {columns}"));
            for column in 0..columns {
                ui.selectable_value(&mut self.cut, Cut::Column(column), format!("scale {column} across levels"));
            }
            for row in 0..rows {
                ui.selectable_value(&mut self.cut, Cut::Row(row), format!("level {} across scales", row + 1));
            }
        });
        choice.response.on_hover_text("The table, one scale across levels, or one level across scales");
    }

    fn choose_channels(&mut self, ui: &mut Ui, trace: &Trace, family: &Family) {
        let name = |channels: Channels| match channels {
            Channels::Reduced(Reduction::Mean) => "channel mean",
            Channels::Reduced(Reduction::Max) => "channel maximum",
            Channels::Reduced(Reduction::Channel(_)) => "one channel",
            Channels::Principal => "PCA to RGB",
        };
        let number = match self.channels {
            Channels::Reduced(Reduction::Channel(number)) => number,
            _ => 0,
        };
        let choice = egui::ComboBox::from_id_salt("channels").selected_text(name(self.channels)).show_ui(ui, |ui| {
            for channels in [
                Channels::Reduced(Reduction::Mean),
                Channels::Reduced(Reduction::Max),
                Channels::Reduced(Reduction::Channel(number)),
                Channels::Principal,
            ] {
                ui.selectable_value(&mut self.channels, channels, name(channels));
            }
        });
        let help = "How C channels become one picture: their mean Σ x_c / C, their maximum, one of them, or their three \
                    principal components as red, green and blue";
        choice.response.on_hover_text(help);
        if let Channels::Reduced(Reduction::Channel(number)) = &mut self.channels {
            let maps = family.rows.iter().flatten().filter_map(|position| trace.maps.get(*position));
            let most = maps.map(|map| map.channels).max().unwrap_or(1).saturating_sub(1);
            ui.add(Slider::new(number, 0..=most).text("channel")).on_hover_text("Its number within the map");
        }
    }
}

/// Whether detections come from levels. A box of a two-stage network comes from a proposal, not from an anchor of one.
fn has_levels(config: Option<&Config>, trace: &Trace) -> bool {
    !matches!(config, Some(Config::Rcnn(_))) && !trace.anchors.levels.is_empty()
}

/// The picture's pixels for a view of this panel.
fn pixels_of(shown: &Shown) -> Arc<Vec<u8>> {
    Arc::new(shown.picture.rgba())
}
