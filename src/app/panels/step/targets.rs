//! What the probed batch has to learn, in numbers: targets and losses by level, and how the codes of its boxes spread.

use super::wide;
use crate::engine::Stepped;
use crate::trace::targets::{CodeSpread, LevelTargets, by_level, code_spread};
use egui::{Grid, Ui};

/// The names of a code's four numbers.
const CODE: [&str; 4] = ["dx", "dy", "dw", "dh"];

/// A table by level, once anchors are sampled.
pub fn ui(ui: &mut Ui, stepped: &Stepped) {
    let traces = &stepped.report.traces;
    if traces.iter().all(|trace| trace.sampling.is_empty()) {
        return;
    }
    ui.collapsing("Targets by level", |ui| {
        let levels = by_level(traces);
        let mut parts: Vec<&str> = Vec::new();
        for (name, _) in levels.iter().flat_map(|level| &level.losses) {
            if !parts.contains(&name.as_str()) {
                parts.push(name);
            }
        }
        wide(ui, "targets by level", |ui| {
            Grid::new("targets by level").num_columns(4 + parts.len()).striped(true).show(ui, |ui| {
                for (title, help) in [
                    ("level", "As anchors count them: finest 0, those of YOLO in its own order"),
                    ("positives", "Anchors with an object that enter the loss, over all images"),
                    ("negatives", "Background anchors that enter the loss"),
                    ("IoU", "Mean over the positives, each with the object that it overlaps most"),
                ] {
                    ui.weak(title).on_hover_text(help);
                }
                for part in &parts {
                    ui.weak(*part).on_hover_text("Σ over the level's anchors that enter / N");
                }
                ui.end_row();
                for (number, level) in levels.iter().enumerate() {
                    for text in cells(number, level, &parts) {
                        ui.label(text);
                    }
                    ui.end_row();
                }
            });
        });
        if let Some(spread) = stepped.coder.and_then(|coder| code_spread(traces, &coder)) {
            ui.label(told(&spread)).on_hover_text(
                "Mean ± deviation of what the positives have to learn; where the code's deviations fit the data they \
                 are near 0 ± 1",
            );
        }
    });
}

/// The row of a level.
fn cells(number: usize, level: &LevelTargets, parts: &[&str]) -> Vec<String> {
    let iou = level.iou.map_or("—".to_string(), |iou| format!("{iou:.2}"));
    let counts = [number.to_string(), level.positives.to_string(), level.negatives.to_string(), iou];
    let losses = parts.iter().map(|part| {
        let own = level.losses.iter().find(|(name, _)| name == part);
        own.map_or("—".to_string(), |(_, loss)| format!("{loss:.4}"))
    });
    counts.into_iter().chain(losses).collect()
}

fn told(spread: &CodeSpread) -> String {
    let axis = |axis: usize| format!("{} {:.2} ± {:.2}", CODE[axis], spread.mean[axis], spread.deviation[axis]);
    let codes: Vec<String> = (0..CODE.len()).map(axis).collect();
    format!("target codes of {} positives: {}", spread.count, codes.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_and_the_codes_are_told_in_their_columns() {
        let level = LevelTargets { positives: 3, negatives: 9, iou: Some(0.75), losses: vec![("box".into(), 0.5)] };
        assert_eq!(cells(2, &level, &["class", "box"]), ["2", "3", "9", "0.75", "—", "0.5000"]);
        assert_eq!(cells(0, &LevelTargets::default(), &[]), ["0", "0", "0", "—"]);
        let spread = CodeSpread { count: 4, mean: [0.5, 0.0, -1.0, 0.0], deviation: [1.0; 4] };
        let text = told(&spread);
        assert_eq!(
            text,
            "target codes of 4 positives: dx 0.50 ± 1.00, dy 0.00 ± 1.00, dw -1.00 ± 1.00, dh 0.00 ± 1.00"
        );
    }
}
