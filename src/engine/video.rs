//! Frames of a video file or a camera, decoded by ffmpeg as a child process and read from its pipe.
//!
//! ffmpeg writes PPM pictures one after another: 24-bit RGB with the size in front. So nothing has to be asked for
//! beforehand, a rotation is already applied, and a stream that changes its size stays readable.

use crate::imaging::Picture;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::ffi::OsString;
use std::io::{BufReader, Error, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

/// Names another ffmpeg than the one on the path.
pub const PROGRAM_VARIABLE: &str = "BOXWRIGHT_FFMPEG";
/// Frames decoded ahead; ffmpeg waits while there is no room.
const AHEAD: usize = 2;
/// Larger frames are refused.
const MAX_SIDE: u32 = 16_384;
/// What is kept of ffmpeg's complaints, bytes.
const COMPLAINTS: usize = 2000;
/// Endings that are taken for videos.
pub const EXTENSIONS: [&str; 14] =
    ["mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "m2ts", "mts", "wmv", "flv", "ogv", "3gp"];

/// Where frames come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VideoSource {
    File(PathBuf),
    /// As ffmpeg names it on this system: `/dev/video0`, `0`, `video=Integrated Camera`.
    Camera(String),
}

/// Why there is no video.
#[derive(Debug, thiserror::Error)]
pub enum VideoError {
    #[error(
        "videos and cameras need ffmpeg, which is not installed: install it (for example `apt install ffmpeg` or \
         `brew install ffmpeg`), or name the program in {PROGRAM_VARIABLE}; looked for {program}"
    )]
    NotInstalled { program: String },
    #[error("ffmpeg does not start: {0}")]
    Start(Error),
    #[error("there is no such video; choose a file: {path}")]
    Missing { path: String },
}

/// What the pipe gives next.
#[derive(Debug)]
pub enum Piece {
    Frame(Picture),
    /// The end, with what ffmpeg complained about.
    Ended(Option<String>),
}

/// A running ffmpeg. Dropping it ends the child.
#[derive(Debug)]
pub struct Video {
    child: Child,
    pieces: Receiver<Piece>,
}

/// Whether the file is named like a video.
pub fn is_video_path(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
    extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str()))
}

/// ffmpeg's input format for cameras on this system, and the first camera's name.
pub const fn camera() -> (&'static str, &'static str) {
    if cfg!(target_os = "macos") {
        ("avfoundation", "0")
    } else if cfg!(windows) {
        ("dshow", "video=Integrated Camera")
    } else {
        ("v4l2", "/dev/video0")
    }
}

impl Video {
    /// Starts decoding at `fps` frames of every second of the source; a file begins again at its end when `looped`.
    ///
    /// # Errors
    /// [`VideoError`]: no file, or no ffmpeg. What is wrong with the stream itself comes as its end.
    pub fn open(source: &VideoSource, fps: f32, looped: bool) -> Result<Self, VideoError> {
        let program = std::env::var_os(PROGRAM_VARIABLE).filter(|name| !name.is_empty());
        Self::open_with(Path::new(&program.unwrap_or_else(|| "ffmpeg".into())), source, fps, looped)
    }

    /// [`open`](Self::open) with a program that takes ffmpeg's arguments.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn open_with(program: &Path, source: &VideoSource, fps: f32, looped: bool) -> Result<Self, VideoError> {
        if let VideoSource::File(path) = source
            && !path.is_file()
        {
            return Err(VideoError::Missing { path: path.display().to_string() });
        }
        let mut command = Command::new(program);
        command.args(arguments(source, fps, looped));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| match error.kind() {
            ErrorKind::NotFound => VideoError::NotInstalled { program: program.display().to_string() },
            _ => VideoError::Start(error),
        })?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (sender, pieces) = bounded(AHEAD);
        // From here on a failure drops the video, which ends the child.
        let video = Self { child, pieces };
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
            return Err(VideoError::Start(Error::other("it has no pipes")));
        };
        let complaints = std::thread::Builder::new()
            .name("boxwright-video-log".into())
            .spawn(move || last_words(stderr))
            .map_err(VideoError::Start)?;
        std::thread::Builder::new()
            .name("boxwright-video".into())
            .spawn(move || read_all(stdout, complaints, &sender))
            .map_err(VideoError::Start)?;
        Ok(video)
    }

    /// The next piece, waiting up to `timeout`; nothing when none has come.
    pub fn next(&self, timeout: Duration) -> Option<Piece> {
        match self.pieces.recv_timeout(timeout) {
            Ok(piece) => Some(piece),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Piece::Ended(None)),
        }
    }
}

impl Drop for Video {
    fn drop(&mut self) {
        // One that has ended by itself cannot be killed; either way it must be waited for, or it stays as a zombie.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn arguments(source: &VideoSource, fps: f32, looped: bool) -> Vec<OsString> {
    let mut list: Vec<OsString> = ["-hide_banner", "-nostdin", "-v", "error"].map(OsString::from).to_vec();
    let mut add = |arguments: &[&str]| list.extend(arguments.iter().map(OsString::from));
    let input = match source {
        VideoSource::File(path) => {
            if looped {
                add(&["-stream_loop", "-1"]);
            }
            // A protocol in front: no file name can then be taken for an option or another protocol.
            let mut input = OsString::from("file:");
            input.push(path);
            input
        }
        VideoSource::Camera(name) => {
            add(&["-f", camera().0]);
            OsString::from(name)
        }
    };
    list.push("-i".into());
    list.push(input);
    list.extend(["-an", "-sn", "-vf"].map(OsString::from));
    list.push(format!("fps={fps}").into());
    list.extend(["-f", "image2pipe", "-c:v", "ppm", "-"].map(OsString::from));
    list
}

/// Hands over frame after frame, then how it ended.
fn read_all(stdout: impl Read, complaints: JoinHandle<String>, sender: &Sender<Piece>) {
    let mut input = BufReader::with_capacity(1 << 20, stdout);
    let fault = loop {
        match read_frame(&mut input) {
            Ok(Some(picture)) => {
                if sender.send(Piece::Frame(picture)).is_err() {
                    return;
                }
            }
            Ok(None) => break None,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => break None,
            Err(error) => break Some(error.to_string()),
        }
    };
    // A stream that is not read on would keep ffmpeg waiting, and with it its last words.
    drop(input);
    let words = complaints.join().unwrap_or_default();
    let words = words.trim();
    let complaint = fault.or_else(|| (!words.is_empty()).then(|| words.to_owned()));
    _ = sender.send(Piece::Ended(complaint));
}

/// One PPM picture; nothing at the end of the stream.
fn read_frame(input: &mut impl Read) -> std::io::Result<Option<Picture>> {
    let invalid = |what: &str| Error::new(ErrorKind::InvalidData, format!("ffmpeg sent something else than {what}"));
    let mut magic = [0; 1];
    if input.read(&mut magic)? == 0 {
        return Ok(None);
    }
    let mut rest = [0; 2];
    input.read_exact(&mut rest)?;
    if [magic[0], rest[0]] != *b"P6" || !rest[1].is_ascii_whitespace() {
        return Err(invalid("PPM pictures"));
    }
    let (width, height, most) = (number(input)?, number(input)?, number(input)?);
    if most != 255 || width == 0 || height == 0 || width > MAX_SIDE || height > MAX_SIDE {
        return Err(invalid("8-bit pictures of at most 16384 pixels a side"));
    }
    let mut rgb = vec![0; 3 * width as usize * height as usize];
    input.read_exact(&mut rgb)?;
    Picture::from_rgb(width, height, rgb).map(Some).map_err(Error::other)
}

/// A decimal number and the one white space behind it.
fn number(input: &mut impl Read) -> std::io::Result<u32> {
    let mut value = 0u32;
    let mut byte = [0; 1];
    for digits in 0..8 {
        input.read_exact(&mut byte)?;
        match byte[0] {
            digit @ b'0'..=b'9' => value = value * 10 + u32::from(digit - b'0'),
            space if space.is_ascii_whitespace() && digits > 0 => return Ok(value),
            _ => break,
        }
    }
    Err(Error::new(ErrorKind::InvalidData, "ffmpeg sent a picture without a size"))
}

/// The end of what is written to a stream.
fn last_words(mut stream: impl Read) -> String {
    let mut kept: Vec<u8> = Vec::new();
    let mut chunk = [0; 1024];
    while let Ok(count) = stream.read(&mut chunk) {
        if count == 0 {
            break;
        }
        kept.extend_from_slice(chunk.get(..count).unwrap_or_default());
        let over = kept.len().saturating_sub(COMPLAINTS);
        kept.drain(..over);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ppm(width: u32, height: u32, value: u8) -> Vec<u8> {
        let mut bytes = format!("P6\n{width} {height}\n255\n").into_bytes();
        bytes.resize(bytes.len() + 3 * (width * height) as usize, value);
        bytes
    }

    #[test]
    fn frames_of_changing_size_follow_each_other() {
        let stream = [ppm(2, 1, 7), ppm(1, 3, 9)].concat();
        let mut input = stream.as_slice();
        let first = read_frame(&mut input).unwrap().unwrap();
        let second = read_frame(&mut input).unwrap().unwrap();
        assert_eq!((first.width, first.height, first.pixel(0, 0)), (2, 1, [7; 3]));
        assert_eq!((second.width, second.height, second.pixel(0, 2)), (1, 3, [9; 3]));
        assert!(read_frame(&mut input).unwrap().is_none());
    }

    #[test]
    fn nonsense_and_impossible_sizes_are_refused() {
        for bytes in [&b"GIF89a"[..], b"P6\n99999 2\n255\n", b"P6\n0 2\n255\n", b"P6\n2 2\n65535\n", b"P6\n\n\n\n"] {
            assert!(read_frame(&mut &bytes[..]).is_err(), "{bytes:?}");
        }
        let cut = &ppm(4, 4, 1)[..20];
        assert_eq!(read_frame(&mut &cut[..]).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn arguments_name_the_source_so_that_it_cannot_be_an_option() {
        let text = |source: VideoSource, looped: bool| -> Vec<String> {
            arguments(&source, 12.5, looped).into_iter().map(|a| a.to_string_lossy().into_owned()).collect()
        };
        let file = text(VideoSource::File("-i.mp4".into()), true).join(" ");
        assert!(file.contains("-stream_loop -1 -i file:-i.mp4 ") && file.contains("-vf fps=12.5 "), "{file}");
        assert!(!text(VideoSource::Camera("0".into()), true).contains(&"-stream_loop".to_string()));
    }

    #[test]
    fn a_missing_program_or_file_is_said_in_a_sentence() {
        let video = tempfile::Builder::new().suffix(".mp4").tempfile().unwrap();
        let source = VideoSource::File(video.path().into());
        let error = Video::open_with(Path::new("/no/such/ffmpeg"), &source, 5.0, false).unwrap_err();
        assert!(
            matches!(error, VideoError::NotInstalled { .. }) && error.to_string().contains("install it"),
            "{error}"
        );
        let missing = VideoSource::File("/no/such/video.mp4".into());
        let error = Video::open_with(Path::new("ffmpeg"), &missing, 5.0, false).unwrap_err();
        assert!(error.to_string().ends_with("/no/such/video.mp4"), "{error}");
        assert!(is_video_path(Path::new("a/B.MP4")) && !is_video_path(Path::new("mp4")));
    }

    #[cfg(unix)]
    #[test]
    fn a_childs_frames_arrive_and_its_complaint_with_the_end() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (frames, program) = (folder.path().join("frames"), folder.path().join("decoder"));
        std::fs::write(&frames, [ppm(3, 2, 1), ppm(3, 2, 2)].concat()).unwrap();
        let script = format!("#!/bin/sh\ncat '{}'\necho 'stream 0 is odd' >&2\n", frames.display());
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let source = VideoSource::File(frames);
        // A fork elsewhere in this process may hold the script open for a moment.
        let video = loop {
            match Video::open_with(&program, &source, 5.0, false) {
                Err(VideoError::Start(error)) if error.kind() == ErrorKind::ExecutableFileBusy => {}
                opened => break opened.unwrap(),
            }
        };
        let mut values = Vec::new();
        let complaint = loop {
            match video.next(Duration::from_secs(20)).expect("a piece in time") {
                Piece::Frame(picture) => values.push(picture.pixel(0, 0)[0]),
                Piece::Ended(complaint) => break complaint,
            }
        };
        assert_eq!((values, complaint.as_deref()), (vec![1, 2], Some("stream 0 is odd")));
    }
}
