//! What a frame of the whole window costs the CPU with large inputs: layout, widgets and triangles, while the pointer
//! moves, lists scroll and the view zooms. What the graphics device does is not in it.

use super::action::Action;
use super::layout::Panel;
use super::workbench::Workbench;
use crate::cli::WindowArguments;
use crate::engine::DeviceChoice;
use crate::engine::bench::{Measurement, Times, WARM_UP};
use crate::engine::curves::Curves;
use egui::{Context, Event, Pos2, RawInput, Rect, Vec2};
use serde_json::json;
use std::fmt::Write;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const SCREEN: Vec2 = Vec2::new(1600.0, 1000.0);
/// The longest wait for the engine to open and show something.
const PATIENCE: Duration = Duration::from_secs(120);
/// One zoom in, undone in the next frame.
const ZOOM: f32 = 1.05;

/// How large the inputs are.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Images of a data set.
    pub images: usize,
    /// Side of a square picture, pixels.
    pub side: u32,
    /// Annotated objects of one image.
    pub objects: usize,
    /// Iterations of a run whose curves are drawn.
    pub iterations: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { images: 10_000, side: 8000, objects: 2000, iterations: 100_000 }
    }
}

/// One measurement for the sample, and one for each of the large inputs, which are made in a folder that goes again.
///
/// # Errors
/// A sentence: a folder that cannot be written, or what the engine could not open.
pub fn large_inputs(sizes: Sizes, repeat: usize) -> Result<Vec<Measurement>, String> {
    let folder = Scratch::new().map_err(|e| format!("no folder for the large inputs: {e}"))?;
    let made = |e: std::io::Error| format!("a large input cannot be written in {}: {e}", folder.0.display());
    let many = many_images(&folder.0, sizes.images).map_err(made)?;
    let large = square(&folder.0.join("large.png"), sizes.side)?;
    let crowd = crowd(&folder.0, sizes.objects)?;
    let curves = curves(&folder.0, sizes.iterations)?;

    let mut all = Vec::new();
    let mut measure = |name: String, path: Option<&Path>, panel: Panel, curves: Option<Curves>| -> Result<(), String> {
        let mut window = Window::open(path)?;
        if let Some(curves) = curves {
            window.workbench.state.curves = curves;
        }
        window.workbench.apply(&window.context, Action::Focus(panel));
        let times = Times::of(window.frames(repeat));
        all.push(Measurement::new(name, times));
        Ok(())
    };
    measure("window frame: the sample".into(), None, Panel::Image, None)?;
    measure(format!("window frame: {} images", sizes.images), Some(&many), Panel::Data, None)?;
    measure(format!("window frame: picture of {0} x {0}", sizes.side), Some(&large), Panel::Image, None)?;
    measure(format!("window frame: {} objects in an image", sizes.objects), Some(&crowd), Panel::Image, None)?;
    measure(format!("window frame: {} iterations of losses", sizes.iterations), None, Panel::Losses, Some(curves))?;
    Ok(all)
}

/// The workbench without a window, fed with input by hand.
pub(super) struct Window {
    pub(super) context: Context,
    pub(super) workbench: Workbench,
    start: Instant,
    drawn: usize,
}

impl Window {
    /// Opens `path`, or the sample, and waits until detections are on the picture.
    pub(super) fn open(path: Option<&Path>) -> Result<Self, String> {
        let context = Context::default();
        let arguments = WindowArguments {
            paths: path.map(Path::to_path_buf).into_iter().collect(),
            device: DeviceChoice::Cpu,
            threads: 0,
            verbose: false,
            exit_after: None,
        };
        let workbench = Workbench::for_tests(&context, &arguments)?;
        let mut window = Self { context, workbench, start: Instant::now(), drawn: 0 };
        while !window.workbench.state.shown.as_ref().is_some_and(|shown| shown.detected) {
            if window.start.elapsed() > PATIENCE {
                let said: Vec<&str> = window.workbench.state.log.iter().map(|line| line.message.as_str()).collect();
                return Err(format!("nothing was shown: {}", said.join("; ")));
            }
            window.frame();
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(window)
    }

    /// Milliseconds of each of `count` frames.
    fn frames(&mut self, count: usize) -> Vec<f64> {
        (0..count.max(1) + WARM_UP).map(|_| self.frame()).skip(WARM_UP).collect()
    }

    /// Milliseconds of a frame with a pointer that moves, a list that scrolls and a view that zooms.
    fn frame(&mut self) -> f64 {
        let forth = self.drawn.is_multiple_of(2);
        let shift = if forth { 0.0 } else { 40.0 };
        let wheel = Event::MouseWheel {
            unit: egui::MouseWheelUnit::Point,
            delta: Vec2::new(0.0, if forth { -60.0 } else { 60.0 }),
            phase: egui::TouchPhase::Move,
            source: egui::MouseWheelSource::Wheel,
            modifiers: egui::Modifiers::NONE,
        };
        self.drawn += 1;
        let pointer = Event::PointerMoved(Pos2::new(0.1 * SCREEN.x + shift, 0.5 * SCREEN.y + shift));
        self.draw(vec![pointer, wheel], Some(Action::ZoomBy(if forth { ZOOM } else { 1.0 / ZOOM })))
    }

    /// Milliseconds of a frame in which this happens.
    pub(super) fn draw(&mut self, events: Vec<Event>, mut action: Option<Action>) -> f64 {
        let input = RawInput {
            screen_rect: Some(Rect::from_min_size(Pos2::ZERO, SCREEN)),
            time: Some(self.start.elapsed().as_secs_f64()),
            events,
            ..RawInput::default()
        };
        let begun = Instant::now();
        let workbench = &mut self.workbench;
        let mut output = self.context.run_ui(input, |ui| {
            workbench.drain(ui.ctx());
            if let Some(action) = action.take() {
                workbench.apply(ui.ctx(), action);
            }
            workbench.draw(ui);
        });
        let shapes = std::mem::take(&mut output.shapes);
        black_box(self.context.tessellate(shapes, output.pixels_per_point));
        let spent = begun.elapsed().as_secs_f64() * 1e3;
        output.drop_without_applying_deltas();
        spent
    }
}

/// A folder of this process, removed at the end.
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    pub(super) fn new() -> std::io::Result<Self> {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let name = format!("boxwright-bench-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

/// A grey picture of `side` × `side` pixels.
fn square(path: &Path, side: u32) -> Result<PathBuf, String> {
    let picture = image::GrayImage::from_fn(side, side, |x, y| image::Luma([(x / 8 + y / 8) as u8]));
    picture.save(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path.to_path_buf())
}

/// A folder with `count` small pictures.
fn many_images(folder: &Path, count: usize) -> std::io::Result<PathBuf> {
    let folder = folder.join("many");
    fs::create_dir(&folder)?;
    let mut bytes = Vec::new();
    let picture = image::GrayImage::from_pixel(32, 24, image::Luma([128]));
    let written = picture.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png);
    written.map_err(std::io::Error::other)?;
    for index in 0..count {
        fs::write(folder.join(format!("{index:06}.png")), &bytes)?;
    }
    Ok(folder)
}

/// A COCO file with one image that holds `count` objects.
fn crowd(folder: &Path, count: usize) -> Result<PathBuf, String> {
    let side = 1000;
    square(&folder.join("crowd.png"), side)?;
    let columns = (count as f64).sqrt().ceil().max(1.0) as usize;
    let cell = f64::from(side) / columns as f64;
    let annotation = |index: usize| {
        let (x, y) = ((index % columns) as f64 * cell, (index / columns) as f64 * cell);
        let box_ = [x, y, 0.8 * cell, 0.8 * cell];
        json!({ "id": index + 1, "image_id": 1, "category_id": 1 + index % 8, "bbox": box_,
                "area": box_[2] * box_[3], "iscrowd": 0 })
    };
    let categories: Vec<_> = (1..=8).map(|id| json!({ "id": id, "name": format!("class {id}") })).collect();
    let file = folder.join("instances_crowd.json");
    let text = json!({
        "images": [{ "id": 1, "file_name": "crowd.png", "width": side, "height": side }],
        "annotations": (0..count).map(annotation).collect::<Vec<_>>(),
        "categories": categories,
    });
    fs::write(&file, text.to_string()).map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(file)
}

/// The curves of a run with `count` iterations and two loss parts.
fn curves(folder: &Path, count: usize) -> Result<Curves, String> {
    let mut text = String::new();
    for iteration in 0..count {
        let wave = (iteration as f64 * 0.37).sin();
        let loss = 1.0 + 4.0 / (1.0 + iteration as f64 * 0.01) + 0.3 * wave;
        let line = json!({
            "iteration": iteration, "loss": loss, "learning_rate": 0.002, "gradient_norm": 1.0 + wave.abs(),
            "parts": { "classification": 0.6 * loss, "localization": 0.4 * loss }, "seconds": 0.1, "data_seconds": 0.0,
        });
        _ = writeln!(text, "{line}");
    }
    let file = folder.join("metrics.jsonl");
    fs::write(&file, text).map_err(|e| format!("{}: {e}", file.display()))?;
    Curves::read(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_input_is_opened_and_drawn() {
        let sizes = Sizes { images: 30, side: 300, objects: 40, iterations: 50 };
        let measured = large_inputs(sizes, 2).unwrap();
        assert_eq!(measured.len(), 5);
        assert!(measured.iter().all(|one| one.times.min > 0.0), "{measured:?}");
    }

    #[test]
    fn the_inputs_are_as_large_as_asked() {
        let folder = Scratch::new().unwrap();
        assert_eq!(fs::read_dir(many_images(&folder.0, 7).unwrap()).unwrap().count(), 7);
        assert_eq!(curves(&folder.0, 9).unwrap().len, 9);
        let set = crate::data::open(&crowd(&folder.0, 11).unwrap().to_string_lossy(), None).unwrap();
        assert_eq!(set.images[0].objects.len(), 11);
        let place = folder.0.clone();
        drop(folder);
        assert!(!place.exists());
    }
}
