//! Step panel: one training iteration, taken apart: phases, losses, the batch, its matched anchors and mined negatives,
//! its targets by level, the layers, and the black box.

mod anchor;
mod batch;
mod black_box;
mod formula;
mod layers;
mod phases;
mod prepare;
mod rois;
mod targets;

pub use prepare::first_draft;

use crate::app::action::Action;
use crate::app::state::State;
use crate::data::open::training_split_among;
use crate::detect::Arch;
use crate::engine::Stepped;
use crate::engine::event::DataSummary;
use crate::train::TrainConfig;
use egui::{ScrollArea, TextureHandle, Ui};
use std::path::{Path, PathBuf};

/// Scratch of the panel: the settings of the next run and what is looked at of the last step.
#[derive(Default)]
pub struct StepPanel {
    pub draft: Option<(Arch, TrainConfig)>,
    /// The draft while it is being dragged or typed into.
    edited: Option<TrainConfig>,
    pub write: bool,
    /// The split to learn from, where one was chosen.
    split: Option<String>,
    image: usize,
    /// Anchor chosen in a table, or the one that moved the loss most.
    anchor: Option<usize>,
    /// Stage of a cascade and RoI chosen in its table.
    roi: Option<(usize, usize)>,
    /// Somebody chose the image.
    chosen: bool,
    texture: Option<(u64, usize, TextureHandle)>,
    order: layers::Order,
    /// The iteration of the black box that is looked at.
    opened: Option<u64>,
}

impl StepPanel {
    /// The folder of the next run within `root`, when it is to be written.
    pub fn folder(&self, arch: Arch, root: &Path) -> Option<PathBuf> {
        let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        self.write.then(|| root.join(format!("{arch}-{seconds}")))
    }

    /// The split that the next run learns from: the chosen one, or the one called train, or the open one.
    pub fn split_of(&self, data: &DataSummary) -> String {
        let chosen = self.split.as_ref().filter(|split| data.splits.contains(split));
        chosen.or_else(|| training_split_among(&data.splits)).unwrap_or(&data.split).clone()
    }

    pub fn select_image(&mut self, image: usize) {
        (self.image, self.anchor, self.roi, self.chosen) = (image, None, None, true);
    }

    /// Takes in what an iteration has made, a `fresh` one or more of the same: what moved the loss most is selected, until
    /// somebody chooses.
    pub fn follow(&mut self, stepped: &Stepped, fresh: bool) {
        if fresh {
            (self.chosen, self.roi) = (false, None);
        }
        if fresh || (!self.chosen && self.anchor.is_none()) {
            (self.image, self.anchor) = batch::hardest(&stepped.report.traces);
        }
    }

    /// Looks at what an iteration learnt from.
    pub fn open_batch(&mut self, iteration: u64) {
        self.opened = Some(iteration);
    }

    /// `runs` is where runs are written.
    pub fn ui(&mut self, ui: &mut Ui, state: &State, runs: &Path, actions: &mut Vec<Action>) {
        ScrollArea::both().auto_shrink(false).show(ui, |ui| {
            match &state.training {
                None => self.prepare(ui, state, runs, actions),
                Some(training) => phases::controls(ui, state, training, actions),
            }
            black_box::incident(ui, state, actions);
            let stepped = state.stepped.clone();
            if let Some(stepped) = &stepped {
                ui.separator();
                phases::progress(ui, stepped);
            }
            if let Some(report) = state.last_step.as_ref().filter(|_| state.stepping.next.is_none()) {
                ui.separator();
                phases::losses(ui, report);
            }
            if let Some(stepped) = &stepped {
                if !stepped.report.layers.is_empty() {
                    ui.collapsing("Layers", |ui| layers::ui(ui, &stepped.report.layers, &mut self.order));
                }
                targets::ui(ui, stepped);
                ui.separator();
                self.batch(ui, stepped, state, actions);
            }
            black_box::ui(ui, state, &mut self.opened, actions);
        });
    }
}

/// A table that may be wider than the panel scrolls by itself: lines below it keep to the panel's width.
fn wide<R>(ui: &mut Ui, name: &str, table: impl FnOnce(&mut Ui) -> R) -> R {
    ScrollArea::horizontal().id_salt(name).auto_shrink([false, true]).show(ui, table).inner
}
