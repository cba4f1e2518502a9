//! The worker's playing: one picture after another, detected as it comes, between the commands.

use super::Worker;
use crate::detect::Detector;
use crate::detect::predict;
use crate::detect::predict::inference_pass;
use crate::engine::command::Command;
use crate::engine::event::{Event, Severity};
use crate::engine::latest::Shown;
use crate::engine::playback::{Frame, Next, PlayOrder, PlaySettings, Playback};

const PLAYBACK: &str = "playback";

impl Worker {
    /// Whether pictures are coming one after another, faster than anybody could look into one.
    pub(super) fn is_playing(&self) -> bool {
        self.playback.as_ref().is_some_and(|playback| !playback.paused)
    }

    pub(super) fn play(&mut self, order: PlayOrder) {
        match order {
            PlayOrder::Start(settings) => self.start_playing(settings),
            PlayOrder::Pause => self.hold(true),
            PlayOrder::Resume => self.hold(false),
            PlayOrder::Stop => self.stop_playing(None),
        }
    }

    fn start_playing(&mut self, settings: PlaySettings) {
        if self.to_run > 0 {
            return self.error(PLAYBACK, "training is running; pause it, then play");
        }
        // A child that is still there may hold the camera.
        self.playback = None;
        match Playback::start(settings) {
            Ok(playback) => {
                self.playback = Some(playback);
                self.tell_playing();
            }
            Err(error) => {
                self.tell_playing();
                self.error(PLAYBACK, error);
            }
        }
    }

    /// Holds or goes on; a picture that stays is looked into.
    fn hold(&mut self, paused: bool) {
        let Some(playback) = &mut self.playback else { return };
        playback.pause(paused);
        self.tell_playing();
        if paused {
            self.show_again();
        }
    }

    /// Ends what plays; `complaint` is why it ended by itself.
    pub(super) fn stop_playing(&mut self, complaint: Option<String>) {
        let Some(playback) = self.playback.take() else { return };
        if let Some(complaint) = complaint {
            // A stream that gave pictures has merely ended badly.
            let severity = if playback.last.is_none() { Severity::Error } else { Severity::Warning };
            self.log(severity, PLAYBACK, format!("ffmpeg says: {complaint}"));
        }
        self.tell_playing();
        if !playback.is_live() {
            self.show_again();
        }
    }

    fn tell_playing(&mut self) {
        self.out.put(Event::Playing(self.playback.as_ref().map(Playback::status)));
    }

    /// Ends what plays where `command` needs the worker, or the picture, for itself.
    pub(super) fn make_way(&mut self, command: &Command) {
        let Some(playback) = &self.playback else { return };
        let ends = match command {
            Command::Show { .. } => playback.is_live(),
            Command::OpenData { .. }
            | Command::StartTraining { .. }
            | Command::ResumeTraining { .. }
            | Command::Step { .. }
            | Command::Phase
            | Command::FindRate
            | Command::Fork { .. }
            | Command::Scrub { .. }
            | Command::Train
            | Command::Evaluate { .. }
            | Command::CompareData
            | Command::CheckData { .. }
            | Command::Cancel => true,
            _ => false,
        };
        if ends {
            self.playback = None;
            self.tell_playing();
        }
    }

    /// Shows what is due.
    pub(super) fn play_on(&mut self) {
        let Some(playback) = &mut self.playback else { return };
        match playback.next() {
            Next::Nothing => {}
            Next::Image => self.play_image(),
            Next::Frame(frame) => {
                self.show_frame(&frame, false);
                self.count_played();
            }
            Next::Ended(complaint) => self.stop_playing(complaint),
        }
    }

    fn count_played(&mut self) {
        if let Some(playback) = &mut self.playback {
            playback.count();
        }
        self.tell_playing();
    }

    /// The image behind the one on show; after the last the first, or the end.
    fn play_image(&mut self) {
        let Some(count) = self.data.as_ref().map(|data| data.images.len()) else {
            return self.stop_playing(None);
        };
        let looped = self.playback.as_ref().is_some_and(|playback| playback.settings.looped);
        let next = self.shown.map_or(0, |index| index + 1);
        let index = if next < count { next } else { 0 };
        if count == 0 || (next >= count && !looped) {
            return self.stop_playing(None);
        }
        let before = self.slots.shown.version();
        self.show(index);
        if self.slots.shown.version() != before {
            if let Some(playback) = &mut self.playback {
                playback.failed = 0;
            }
            return self.count_played();
        }
        // One that cannot be read is passed over; when none can, that is the end.
        self.shown = Some(index);
        if let Some(playback) = &mut self.playback {
            playback.failed += 1;
            if playback.failed >= count {
                self.stop_playing(None);
            }
        }
    }

    /// Shows the frame of a video again, looked into; false when no video plays.
    pub(super) fn show_frame_again(&mut self) -> bool {
        let Some(playback) = self.playback.as_ref().filter(|playback| playback.is_live()) else {
            return false;
        };
        let probe = self.probe && playback.paused;
        if let Some(frame) = playback.last.clone() {
            self.show_frame(&frame, probe);
        }
        true
    }

    fn show_frame(&mut self, frame: &Frame, probe: bool) {
        let name = format!("frame {} at {:.2} s", frame.number, frame.seconds);
        let mut shown = Shown::undetected(Shown::LIVE, name, frame.picture.clone(), Vec::new(), Vec::new());
        let detector: Option<&dyn Detector> = match (&self.run, &self.model) {
            (Some(run), _) => Some(&*run.detector),
            (None, Some(model)) => Some(&*model.detector),
            (None, None) => None,
        };
        if let Some(detector) = detector {
            match predict(detector, &frame.picture, None, inference_pass(probe)) {
                Ok(prediction) => shown = shown.with(prediction, detector.classes()),
                Err(error) => return self.error("detection", error),
            }
        }
        self.slots.shown.put(shown);
        self.out.put(Event::Shown { index: Shown::LIVE });
    }
}
