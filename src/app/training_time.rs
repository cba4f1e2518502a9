//! What an open window takes from a training run: iterations while every panel is drawn, beside those while none is.
//!
//! Rasterising is not in it, as in the times of frames.

use super::action::Action;
use super::layout::{self, Panel};
use super::window_action::WindowAction;
use super::window_time::{Scratch, Window};
use crate::engine::bench::{Measurement, Times};
use crate::engine::curves::SPEED;
use egui_tiles::{Tiles, Tree};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The shortest time between two frames: that of a usual screen.
const FRAME: Duration = Duration::from_micros(16_667);
/// How often a window without anything to draw looks for what is due.
const TICK: Duration = Duration::from_millis(1);
/// The longest wait for the first iterations.
const PATIENCE: Duration = Duration::from_secs(120);
/// Iterations that pass before any counts.
const WARM_UP: usize = 4;

/// An iteration of the embedded network on built-in scenes, with the window hidden and with every panel in sight, in
/// `turns` of that length in turns.
///
/// # Errors
/// A sentence: a folder that cannot be written, or a run that does not begin.
pub fn training_beside_the_window(turns: usize, length: Duration) -> Result<Vec<Measurement>, String> {
    let mut window = Window::open(None)?;
    lay_out(&mut window)?;
    // When the window asked to be drawn next.
    let due: Arc<Mutex<Option<Instant>>> = Arc::default();
    let asked = due.clone();
    window.context.set_request_repaint_callback(move |request| {
        let at = Instant::now() + request.delay.min(PATIENCE);
        if let Ok(mut due) = asked.lock() {
            *due = Some(due.map_or(at, |known| known.min(at)));
        }
    });
    window.draw(Vec::new(), Some(Action::TrainOrPause));
    let begun = Instant::now();
    while window.workbench.state.curves.len < WARM_UP {
        if begun.elapsed() > PATIENCE {
            return Err("the run beside the window did not begin".into());
        }
        std::thread::sleep(FRAME);
        window.draw(Vec::new(), None);
    }

    let (mut hidden, mut open, mut frames) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..2 * turns.max(1) {
        let (before, end) = (window.workbench.state.curves.len, Instant::now() + length);
        let drawn = turn % 2 == 1;
        while Instant::now() < end {
            let is_due = due.lock().is_ok_and(|mut due| due.take_if(|at| *at <= Instant::now()).is_some());
            if !(drawn && is_due) {
                std::thread::sleep(TICK);
                continue;
            }
            let milliseconds = window.draw(Vec::new(), None);
            frames.push(milliseconds);
            std::thread::sleep(FRAME.saturating_sub(Duration::from_secs_f64(milliseconds / 1e3)));
        }
        window.draw(Vec::new(), None);
        // The first and the last iteration are of two turns.
        let speeds = window.workbench.state.curves.series.get(SPEED).map_or(&[][..], |curve| curve.values());
        let own = speeds.get(before + 1..speeds.len().saturating_sub(1)).unwrap_or_default();
        let times = own.iter().map(|speed| 1e3 / f64::from(*speed));
        if drawn { open.extend(times) } else { hidden.extend(times) }
    }
    window.draw(Vec::new(), Some(Action::StopTraining));
    let (hidden, open) = (Times::of(hidden), Times::of(open));
    let mut beside = Measurement::new("training step, every panel in sight", open);
    beside.numbers.push(("times_hidden", open.median / hidden.median));
    Ok(vec![
        Measurement::new("training step, window hidden", hidden),
        beside,
        Measurement::new("window frame while training", Times::of(frames)),
    ])
}

/// Every panel beside the others, none behind a tab.
fn lay_out(window: &mut Window) -> Result<(), String> {
    let mut tiles = Tiles::default();
    let panes = Panel::ALL.iter().map(|panel| tiles.insert_pane(*panel)).collect();
    let root = tiles.insert_grid_tile(panes);
    let folder = Scratch::new().map_err(|e| format!("no folder for a layout: {e}"))?;
    let path = folder.0.join("layout.json");
    layout::export(&Tree::new(egui::Id::unique("workbench"), root, tiles), &path)?;
    window.draw(Vec::new(), Some(Action::Window(WindowAction::ImportLayout(path))));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iterations_are_timed_in_both_turns_and_frames_are_drawn() {
        let measured = training_beside_the_window(1, Duration::from_secs(3)).unwrap();
        let [hidden, beside, frames] = &measured[..] else { panic!("{measured:?}") };
        assert!(hidden.times.median > 0.0 && beside.numbers[0].1 > 0.0 && frames.times.min > 0.0, "{measured:?}");
    }
}
