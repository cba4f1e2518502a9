//! The worker's dealings with runs on disk: forks, checkpoints opened and scrubbed through; and the device in use.

use super::scoring::Ticker;
use super::{Worker, rebuilt};
use crate::detect::predict::inference_pass;
use crate::detect::{Config, predict};
use crate::engine::checkpoints::open_checkpoint;
use crate::engine::device::{DeviceChoice, device_name};
use crate::engine::devices::devices;
use crate::engine::event::Event;
use crate::engine::latest::{Scrubbed, ScrubbedAt};
use crate::engine::model::{self, Model};
use crate::ops::interrupt;
use crate::train::{Run, RunConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const FORK: &str = "fork";
const SCRUB: &str = "checkpoints";
/// Networks up to this many parameters have their operations counted as they are loaded; larger ones when asked.
const SMALL: usize = 4_000_000;

impl Worker {
    /// Forks a run and takes the fork up, paused. The run that is open is ended first.
    pub(super) fn fork(&mut self, source: &Path, iteration: u64, config: RunConfig, folder: PathBuf) {
        if !self.end_run(true) {
            return;
        }
        let devices = self.devices();
        let mut ticker = Ticker::new(&mut self.out, FORK);
        let progress = |done: u64, total: u64| ticker.tell(done as usize, total as usize);
        match Run::fork(source, iteration, config, &devices, folder, progress) {
            Ok(run) => {
                self.finish(FORK, Ok(()));
                self.take_run(run, None);
            }
            Err(error) => self.finish(FORK, Err(error.to_string())),
        }
    }

    /// Makes the averaged weights of a run's checkpoint the loaded model.
    pub(super) fn open_checkpoint(&mut self, path: &Path) {
        match open_checkpoint(path, &self.device) {
            Ok(detector) => self.take_model(Model { detector, report: None, source: path.display().to_string() }),
            Err(error) => self.error("model", error),
        }
    }

    /// Detects in one image of the open data with each of the checkpoints.
    pub(super) fn scrub(&mut self, index: usize, checkpoints: &[(u64, PathBuf)]) {
        let outcome = self.scrubbed(index, checkpoints).map(|scrubbed| {
            self.slots.scrubbed.put(scrubbed);
            self.out.put(Event::Scrubbed { index });
        });
        self.finish(SCRUB, outcome);
    }

    fn scrubbed(&mut self, index: usize, checkpoints: &[(u64, PathBuf)]) -> Result<Scrubbed, String> {
        let Some(dataset) = self.data.clone() else {
            return Err("no data is open".into());
        };
        let Some(entry) = dataset.images.get(index) else {
            return Err(format!("there is no image {index} in {}", dataset.name));
        };
        let picture = dataset.picture(index).map_err(|e| e.to_string())?;
        let mut scrubbed = Scrubbed {
            index,
            picture: Arc::new(picture),
            objects: entry.objects.clone(),
            object_classes: dataset.classes.clone(),
            classes: Vec::new(),
            at: Vec::new(),
        };
        let mut ticker = Ticker::new(&mut self.out, SCRUB);
        for (done, (iteration, path)) in checkpoints.iter().enumerate() {
            interrupt::check().map_err(|e| e.to_string())?;
            let detector = open_checkpoint(path, &self.device).map_err(|e| e.to_string())?;
            let found =
                predict(&*detector, &scrubbed.picture, None, inference_pass(false)).map_err(|e| e.to_string())?;
            scrubbed.classes = detector.classes().to_vec();
            scrubbed.at.push(ScrubbedAt { iteration: *iteration, detections: found.detections });
            ticker.tell(done + 1, checkpoints.len());
        }
        Ok(scrubbed)
    }

    pub(super) fn list_devices(&mut self) {
        let current = device_name(&self.device);
        self.out.put(Event::Devices { found: Arc::new(devices()), current });
    }

    /// Moves the loaded model, and all that comes after it, to another device.
    pub(super) fn use_device(&mut self, choice: DeviceChoice) {
        if self.run.is_some() {
            return self.error("device", "a run is open on the device in use; stop it first");
        }
        let device = match choice.open() {
            Ok(device) => device,
            Err(error) => return self.error("device", error),
        };
        if let Some(model) = &mut self.model {
            let config: Config = model.detector.config().clone();
            match rebuilt(&*model.detector, &config, &device) {
                Ok(detector) => model.detector = detector,
                Err(error) => return self.error("device", format!("the loaded model does not fit there: {error}")),
            }
        }
        self.device = device;
        self.further.clear();
        self.list_devices();
        if let Some(model) = &self.model {
            let summary = model.summary();
            self.out.put(Event::ModelLoaded(Arc::new(summary)));
        }
        self.show_again();
    }

    /// Counts the operations of the loaded model, for a small one or when `asked`.
    pub(super) fn count_flops(&mut self, asked: bool) {
        let Some(model) = &self.model else { return };
        if !asked && model.detector.params().trained_elements() > SMALL {
            return;
        }
        match model::flops(&*model.detector) {
            Ok(flops) => self.out.put(Event::Flops(flops)),
            // Nobody asked for it, so nobody need hear that something else came in between.
            Err(_) if !asked => {}
            Err(error) => self.error("model", error),
        }
    }
}
