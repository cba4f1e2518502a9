//! What the window asks of the open data as a whole, and what it plays.

use super::Workbench;
use crate::app::action::Action;
use crate::app::panels::step::first_draft;
use crate::detect::Arch;
use crate::engine::playback::{PlayOrder, PlaySettings, PlaySource};
use crate::engine::{Command, Severity};
use crate::train::TrainConfig;
use std::path::PathBuf;

impl Workbench {
    /// Does what is about the open data, or about playing.
    pub(super) fn collect(&mut self, action: Action) {
        match action {
            Action::CheckData { pixels } => self.send(Command::CheckData { pixels }),
            Action::MeasureData => self.send(Command::MeasureData),
            Action::Augment { index, epoch } => {
                let train = Box::new(self.training_settings());
                self.send(Command::Augment { index, epoch, train });
            }
            Action::Play(settings) => self.send(Command::Play(PlayOrder::Start(settings))),
            Action::PlayOrPause => self.play_or_pause(),
            Action::StopPlaying => self.send(Command::Play(PlayOrder::Stop)),
            _ => {}
        }
    }

    /// Plays a video file as the panel's settings say.
    pub(super) fn play_file(&mut self, path: PathBuf) {
        let settings = self.panels.data.play_settings(PlaySource::File(path));
        self.send(Command::Play(PlayOrder::Start(settings)));
    }

    fn play_or_pause(&mut self) {
        let order = match &self.state.playing {
            Some(playing) if playing.paused => PlayOrder::Resume,
            Some(_) => PlayOrder::Pause,
            None if self.state.images() < 2 => {
                let text = "there is only this image; open a folder, a data set or a video to play";
                return self.state.note(Severity::Info, "playback", text);
            }
            None => {
                let settings: PlaySettings = self.panels.data.play_settings(PlaySource::Images);
                PlayOrder::Start(settings)
            }
        };
        self.send(Command::Play(order));
    }

    /// Settings of the run, or else of the next one.
    fn training_settings(&self) -> TrainConfig {
        if let Some(training) = &self.state.training {
            return training.config.train.clone();
        }
        self.drafted(self.state.model.as_ref().map_or(Arch::SsdNano, |model| model.config.arch()))
    }

    /// Settings of the next run of this detector.
    pub(super) fn drafted(&self, arch: Arch) -> TrainConfig {
        match &self.panels.step.draft {
            Some((of, draft)) if *of == arch => draft.clone(),
            _ => first_draft(arch),
        }
    }
}
