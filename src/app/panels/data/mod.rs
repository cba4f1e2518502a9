//! Data panel: the open data set with its splits, its images, its health and numbers, and what augmentation makes of it.

pub mod augmentation;
mod entries;
mod filter;
mod health;
mod images;
mod player;
mod statistics;
mod textures;
mod tree;

use crate::app::action::Action;
use crate::app::export::{Draft, records};
use crate::app::state::State;
use crate::engine::playback::{PlaySettings, PlaySource};
use augmentation::AugmentationPage;
use egui::Ui;
use health::HealthPage;
use images::ImagesPage;
use player::Player;
use statistics::StatisticsPage;
use std::path::PathBuf;

/// What the panel shows below the tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Page {
    #[default]
    Images,
    Health,
    Statistics,
    Augmentation,
}

impl Page {
    const ALL: [Self; 4] = [Self::Images, Self::Health, Self::Statistics, Self::Augmentation];

    fn name(self) -> &'static str {
        match self {
            Self::Images => "Images",
            Self::Health => "Health",
            Self::Statistics => "Statistics",
            Self::Augmentation => "Augmentation",
        }
    }

    fn help(self) -> &'static str {
        match self {
            Self::Images => "Its images, filtered",
            Self::Health => "What is wrong with it",
            Self::Statistics => "Classes, sizes, shapes and places of its objects",
            Self::Augmentation => "The image on show as training sees it",
        }
    }
}

/// Scratch of the panel.
#[derive(Default)]
pub struct DataPanel {
    page: Page,
    images: ImagesPage,
    health: HealthPage,
    statistics: StatisticsPage,
    augmentation: AugmentationPage,
    player: Player,
}

impl DataPanel {
    pub fn ui(&mut self, ui: &mut Ui, state: &State, recent: &[PathBuf], actions: &mut Vec<Action>) {
        tree::ui(ui, state, recent, actions);
        self.player.ui(ui, state, actions);
        let Some(data) = state.data.clone() else {
            ui.label("Open or drop an image, a folder, a video, or a data set.");
            return;
        };
        ui.horizontal_wrapped(|ui| {
            for page in Page::ALL {
                ui.selectable_value(&mut self.page, page, page.name()).on_hover_text(page.help());
            }
        });
        ui.separator();
        match self.page {
            Page::Images => self.images.ui(ui, state, &data, actions),
            Page::Health => self.health.ui(ui, state, &data, actions),
            Page::Statistics => self.statistics.ui(ui, state, actions),
            Page::Augmentation => self.augmentation.ui(ui, state, actions),
        }
    }

    /// How to play `source`, as the controls say.
    pub fn play_settings(&self, source: PlaySource) -> PlaySettings {
        self.player.settings(source)
    }

    /// The page on show, to be made a figure of.
    pub fn draft(&self, state: &State) -> Option<Draft> {
        let data = state.data.clone()?;
        match self.page {
            Page::Images => {
                let positions = self.images.positions(&data);
                Some(Box::new(move || records::images(&data, &positions)))
            }
            Page::Health => {
                let checked = state.checked.clone();
                Some(Box::new(move || records::findings(checked.as_deref().unwrap_or(&data.findings))))
            }
            Page::Statistics => {
                let statistics = state.statistics.clone()?;
                Some(Box::new(move || records::statistics(&statistics)))
            }
            Page::Augmentation => {
                let augmented = state.augmented.clone()?;
                Some(Box::new(move || augmentation::augmented(&augmented)))
            }
        }
    }
}
