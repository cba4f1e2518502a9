//! The Anchors view as a figure: the priors over the picture, and what each of them should learn.

use super::{AnchorsPanel, Spec, Stale};
use crate::app::export::table::Maybe;
use crate::app::export::{Draft, Figure, Still, Table};
use crate::app::state::State;
use crate::detect::Config;
use crate::engine::Shown;
use crate::render::Scene;
use crate::trace::Trace;

impl AnchorsPanel {
    /// What the panel shows, to be made a figure of; nothing without anchors.
    pub fn draft(&self, state: &State, backdrop: Scene) -> Option<Draft> {
        let shown = state.shown.clone()?;
        let trace = shown.trace.clone().filter(|trace| !trace.anchors.boxes.is_empty())?;
        let scene = self.scene(backdrop);
        Some(Box::new(move || figure(&shown, &trace, scene)))
    }
}

/// The anchors of a pass over its picture, as the panel shows them at first: all but the negatives.
pub fn assigned(config: &Config, shown: &Shown, backdrop: Scene) -> Option<Figure> {
    let trace = shown.trace.as_deref().filter(|trace| !trace.anchors.boxes.is_empty())?;
    let mut panel = AnchorsPanel::default();
    panel.follow(Some(config));
    panel.spec = Spec::of(config, trace);
    panel.make(trace, (1, None), Stale::Anchors);
    Some(figure(shown, trace, panel.scene(backdrop)))
}

fn figure(shown: &Shown, trace: &Trace, scene: Scene) -> Figure {
    let title = format!("Anchors of {}", shown.name);
    Figure::stills(title.clone(), vec![Still::new(title, scene)], 1, table(trace))
}

/// Every anchor in pixels of the picture.
fn table(trace: &Trace) -> Table {
    let mut table = Table::new(&["anchor", "level", "x0", "y0", "x1", "y1", "target", "rule", "iou"]);
    let assignment = trace.assignment.as_ref();
    for (level, run) in trace.anchors.levels.iter().enumerate() {
        let boxes = trace.anchors.boxes.iter().enumerate().skip(run.start).take(run.len);
        for (index, bbox) in boxes {
            let b = trace.to_original(*bbox);
            let target = assignment.and_then(|a| a.target.get(index));
            let rule = assignment.and_then(|a| a.rule.get(index)).map(|rule| format!("{rule:?}"));
            let iou = assignment.and_then(|a| a.iou.get(index));
            table.row(&[&index, &level, &b.x0, &b.y0, &b.x1, &b.y1, &Maybe(target), &Maybe(rule), &Maybe(iou)]);
        }
    }
    table
}
