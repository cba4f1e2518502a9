//! Playing: which picture comes next and when. Images of the open data, a video file, or a camera.

use super::video::{Piece, Video, VideoError, VideoSource};
use crate::imaging::Picture;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Slowest and fastest playing, frames of a second.
pub const RATES: std::ops::RangeInclusive<f32> = 0.2..=60.0;
/// How long one look at the pipe may take: commands wait meanwhile.
const LOOK: Duration = Duration::from_millis(20);
/// Late frames left out at one go.
const CATCH_UP: u64 = 32;
/// Weight of the newest frame in the measured rate.
const FOLLOW: f64 = 0.2;

/// What to play.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlaySource {
    /// The open data, from the image on show on.
    Images,
    File(PathBuf),
    /// See [`VideoSource::Camera`].
    Camera(String),
}

/// What to play and how.
#[derive(Clone, Debug, PartialEq)]
pub struct PlaySettings {
    pub source: PlaySource,
    /// Frames of a second of the source; within [`RATES`].
    pub fps: f32,
    /// Begin again at the end.
    pub looped: bool,
    /// Detect in every frame of a video, however long it takes, instead of leaving out those that are late.
    pub every_frame: bool,
}

/// An order to what plays.
#[derive(Clone, Debug, PartialEq)]
pub enum PlayOrder {
    Start(PlaySettings),
    Pause,
    Resume,
    Stop,
}

/// How the playing goes.
#[derive(Clone, Debug, PartialEq)]
pub struct PlayStatus {
    pub source: PlaySource,
    pub paused: bool,
    /// Frames shown.
    pub shown: u64,
    /// Time of the last frame since the start of the video; 0 for images.
    pub seconds: f64,
    /// Frames shown a second, measured over the last ones.
    pub rate: f64,
    /// Frames of a video that were late and not looked at.
    pub left_out: u64,
}

/// What to do now.
#[derive(Debug)]
pub(super) enum Next {
    /// Show the next image of the open data.
    Image,
    Frame(Frame),
    /// Nothing is due.
    Nothing,
    /// It is over, with what went wrong.
    Ended(Option<String>),
}

/// A frame of a video.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) number: u64,
    pub(super) seconds: f64,
    pub(super) picture: Arc<Picture>,
}

/// Something that plays.
#[derive(Debug)]
pub(super) struct Playback {
    pub(super) settings: PlaySettings,
    pub(super) paused: bool,
    video: Option<Video>,
    /// When the next frame is due.
    due: Instant,
    /// Frames taken from the video.
    taken: u64,
    /// The frame on show, to look at it again.
    pub(super) last: Option<Frame>,
    shown: u64,
    left_out: u64,
    rate: f64,
    shown_at: Option<Instant>,
    /// Images in a row that could not be shown.
    pub(super) failed: usize,
}

impl Playback {
    /// # Errors
    /// A video that does not start.
    pub(super) fn start(mut settings: PlaySettings) -> Result<Self, VideoError> {
        settings.fps = if settings.fps.is_finite() { settings.fps } else { 10.0 };
        settings.fps = settings.fps.clamp(*RATES.start(), *RATES.end());
        let source = match &settings.source {
            PlaySource::Images => None,
            PlaySource::File(path) => Some(VideoSource::File(path.clone())),
            PlaySource::Camera(name) => Some(VideoSource::Camera(name.clone())),
        };
        let video = match source {
            Some(source) => Some(Video::open(&source, settings.fps, settings.looped)?),
            None => None,
        };
        Ok(Self {
            settings,
            paused: false,
            video,
            due: Instant::now(),
            taken: 0,
            last: None,
            shown: 0,
            left_out: 0,
            rate: 0.0,
            shown_at: None,
            failed: 0,
        })
    }

    /// Whether frames come from outside the open data.
    pub(super) fn is_live(&self) -> bool {
        self.settings.source != PlaySource::Images
    }

    /// How long nothing is to do; `None` while nothing will be.
    pub(super) fn wait(&self) -> Option<Duration> {
        (!self.paused).then(|| self.due.saturating_duration_since(Instant::now()))
    }

    pub(super) fn pause(&mut self, paused: bool) {
        self.paused = paused;
        self.due = Instant::now();
        self.shown_at = None;
    }

    fn period(&self) -> Duration {
        Duration::from_secs_f64(1.0 / f64::from(self.settings.fps))
    }

    pub(super) fn next(&mut self) -> Next {
        if self.paused {
            return Next::Nothing;
        }
        let period = self.period();
        let now = Instant::now();
        if self.video.is_none() {
            // A picture that took long is no reason to hurry through the next ones.
            self.due = (self.due + period).max(now);
            return Next::Image;
        }
        let late = if self.settings.every_frame { 0 } else { frames_late(self.due, now, period).min(CATCH_UP) };
        let mut left_out = 0;
        let next = loop {
            let piece = match &self.video {
                Some(video) => video.next(LOOK),
                None => return Next::Nothing,
            };
            match piece {
                None => break Next::Nothing,
                Some(Piece::Ended(complaint)) => return Next::Ended(complaint),
                Some(Piece::Frame(picture)) => {
                    self.taken += 1;
                    if left_out < late {
                        left_out += 1;
                        continue;
                    }
                    let seconds = (self.taken - 1) as f64 * period.as_secs_f64();
                    break Next::Frame(Frame { number: self.taken, seconds, picture: Arc::new(picture) });
                }
            }
        };
        self.left_out += left_out;
        self.due += period * u32::try_from(left_out).unwrap_or(u32::MAX);
        if let Next::Frame(frame) = &next {
            self.last = Some(frame.clone());
            self.due += period;
            // The clock of a camera, or of a video that is looked at frame by frame, is the last frame.
            if self.settings.every_frame || matches!(self.settings.source, PlaySource::Camera(_)) {
                self.due = self.due.max(now);
            }
        } else if left_out == 0 && self.taken == 0 {
            // ffmpeg is still opening the source: time begins with its first frame.
            self.due = Instant::now();
        }
        next
    }

    /// Counts a frame that is on the screen now.
    pub(super) fn count(&mut self) {
        let now = Instant::now();
        if let Some(before) = self.shown_at.replace(now) {
            let rate = 1.0 / now.duration_since(before).as_secs_f64().max(1e-6);
            self.rate = if self.rate > 0.0 { self.rate + FOLLOW * (rate - self.rate) } else { rate };
        }
        self.shown += 1;
    }

    pub(super) fn status(&self) -> PlayStatus {
        PlayStatus {
            source: self.settings.source.clone(),
            paused: self.paused,
            shown: self.shown,
            seconds: self.last.as_ref().map_or(0.0, |frame| frame.seconds),
            rate: self.rate,
            left_out: self.left_out,
        }
    }
}

/// Whole frames by which the clock is ahead of what is due.
fn frames_late(due: Instant, now: Instant, period: Duration) -> u64 {
    let late = now.saturating_duration_since(due).as_secs_f64();
    (late / period.as_secs_f64().max(1e-6)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(fps: f32) -> Playback {
        let settings = PlaySettings { source: PlaySource::Images, fps, looped: false, every_frame: true };
        Playback::start(settings).unwrap()
    }

    #[test]
    fn images_are_due_one_period_apart_and_not_while_paused() {
        let mut playback = images(1.0);
        assert!(playback.wait().unwrap() < Duration::from_millis(900));
        assert!(matches!(playback.next(), Next::Image));
        assert!(playback.wait().unwrap() > Duration::from_millis(100));
        playback.pause(true);
        assert!(playback.wait().is_none() && matches!(playback.next(), Next::Nothing));
        playback.pause(false);
        assert!(playback.wait().unwrap() < Duration::from_millis(900));
    }

    #[test]
    fn rates_stay_in_bounds_and_frames_are_counted() {
        assert_eq!(images(f32::NAN).settings.fps, 10.0);
        assert_eq!(images(1e9).settings.fps, *RATES.end());
        let mut playback = images(0.0);
        assert_eq!(playback.settings.fps, *RATES.start());
        playback.count();
        assert_eq!(playback.status().rate, 0.0);
        playback.count();
        assert!(playback.status().shown == 2 && playback.status().rate > 0.0);
    }

    #[test]
    fn lateness_is_counted_in_whole_frames() {
        let (now, period) = (Instant::now(), Duration::from_millis(100));
        assert_eq!(frames_late(now, now + Duration::from_millis(250), period), 2);
        assert_eq!(frames_late(now + period, now, period), 0);
    }
}
