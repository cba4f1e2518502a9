//! Playing: the images of the open data one after another, a video, or a camera, with how fast it goes.

use crate::app::action::{Action, Dialog};
use crate::app::state::State;
use crate::engine::playback::{PlaySettings, PlaySource, PlayStatus, RATES};
use crate::engine::video::camera;
use egui::{DragValue, TextEdit, Ui};

/// Controls of playing.
pub(super) struct Player {
    fps: f32,
    looped: bool,
    every_frame: bool,
    camera: String,
}

impl Default for Player {
    fn default() -> Self {
        Self { fps: 10.0, looped: false, every_frame: false, camera: camera().1.to_owned() }
    }
}

impl Player {
    /// How to play `source`.
    pub(super) fn settings(&self, source: PlaySource) -> PlaySettings {
        PlaySettings { source, fps: self.fps, looped: self.looped, every_frame: self.every_frame }
    }

    pub(super) fn ui(&mut self, ui: &mut Ui, state: &State, actions: &mut Vec<Action>) {
        let playing = state.playing.as_ref();
        let ready = !state.is_training();
        ui.horizontal_wrapped(|ui| {
            let text = match playing {
                Some(playing) if !playing.paused => "Hold",
                _ => "Play",
            };
            let can = ready && (playing.is_some() || state.images() > 1);
            let button = ui.add_enabled(can, egui::Button::new(text));
            let button = button.on_hover_text("Space: the images one after another, detected as they come");
            if button.on_disabled_hover_text("Needs several images, and no training under way").clicked() {
                actions.push(Action::PlayOrPause);
            }
            let stop = ui.add_enabled(playing.is_some(), egui::Button::new("Stop playing"));
            let stop = stop.on_hover_text("Ends it; the image on show stays");
            if stop.on_disabled_hover_text("Nothing plays").clicked() {
                actions.push(Action::StopPlaying);
            }
            ui.menu_button("Settings", |ui| self.choices(ui, state, ready, actions))
                .response
                .on_hover_text("Frames of a second, repeating, video and camera")
                .accessible_name("Playback settings");
        });
        if let Some(playing) = playing {
            ui.label(describe(playing)).on_hover_ui(|ui| {
                for time in state.shown.iter().flat_map(|shown| &shown.timings) {
                    ui.label(format!("{}: {:.1} ms", time.stage, time.seconds * 1e3));
                }
            });
        }
    }

    fn choices(&mut self, ui: &mut Ui, state: &State, ready: bool, actions: &mut Vec<Action>) {
        let source = state.playing.as_ref().map(|playing| playing.source.clone());
        let is_video = source.as_ref().is_some_and(|source| *source != PlaySource::Images);
        let before = (self.fps, self.looped);
        ui.horizontal(|ui| {
            let label = ui.label("Frames of a second");
            let fps = DragValue::new(&mut self.fps).range(RATES).speed(0.1).fixed_decimals(1);
            let fps = ui.add_enabled(!is_video, fps).labelled_by(label.id);
            fps.on_disabled_hover_text("Chosen before a video starts");
        });
        ui.add_enabled(!is_video, egui::Checkbox::new(&mut self.looped, "begin again at the end"))
            .on_hover_text("Over and over, until it is stopped")
            .on_disabled_hover_text("Chosen before a video starts");
        ui.checkbox(&mut self.every_frame, "every frame of a video")
            .on_hover_text("However long detection takes; else late frames are left out and time stays real");
        if source == Some(PlaySource::Images) && before != (self.fps, self.looped) {
            actions.push(Action::Play(self.settings(PlaySource::Images)));
        }
        ui.separator();
        let video = ui.add_enabled(ready, egui::Button::new("Play a video…"));
        let video = video.on_hover_text("Decoded by ffmpeg, which has to be installed");
        if video.on_disabled_hover_text("Not while training runs").clicked() {
            actions.push(Action::OpenDialog(Dialog::Video));
        }
        ui.horizontal(|ui| {
            let label = ui.label("Camera");
            ui.add(TextEdit::singleline(&mut self.camera).desired_width(140.0)).labelled_by(label.id);
            let start = ui.add_enabled(ready && !self.camera.trim().is_empty(), egui::Button::new("Start camera"));
            if start.on_hover_text("As ffmpeg names it on this system").clicked() {
                let name = self.camera.trim().to_owned();
                actions.push(Action::Play(self.settings(PlaySource::Camera(name))));
            }
        });
    }
}

/// What plays, and how fast.
fn describe(playing: &PlayStatus) -> String {
    let what = match &playing.source {
        PlaySource::Images => "images".to_owned(),
        PlaySource::File(path) => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        PlaySource::Camera(name) => name.clone(),
    };
    let time =
        if playing.source == PlaySource::Images { String::new() } else { format!(" at {:.1} s", playing.seconds) };
    let state = if playing.paused { "held" } else { "playing" };
    let left_out = if playing.left_out > 0 { format!(", {} left out", playing.left_out) } else { String::new() };
    format!("{state} {what}{time}: {} shown, {:.1} a second{left_out}", playing.shown, playing.rate)
}
