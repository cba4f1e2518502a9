//! The Proposals view as a figure: the boxes at one place of their lives, or after every stage, and their numbers.

use super::stages::best_iou;
use super::{Image, ProposalsPanel};
use crate::app::export::table::Maybe;
use crate::app::export::{Draft, Figure, Still, Table};
use crate::app::state::State;
use crate::engine::Shown;
use crate::geometry::BBox;
use crate::render::Scene;
use crate::trace::Trace;

impl ProposalsPanel {
    /// What the panel shows, to be made a figure of; nothing where there are no proposals.
    pub fn draft(&self, state: &State, backdrop: Scene) -> Option<Draft> {
        let shown = state.shown.as_deref()?;
        let trace = shown.trace.clone().filter(|trace| !trace.stages().is_empty())?;
        let title = format!("Proposals in {} at stage {:.2}", shown.name, self.place);
        let still = Still::new(title.clone(), self.scene(backdrop, self.place));
        Some(Box::new(move || Figure::stills(title, vec![still], 1, table(&trace))))
    }
}

/// The best `most` boxes of a pass as anchors and after every stage, side by side.
pub fn by_stage(shown: &Shown, backdrop: &Scene, most: usize) -> Option<Figure> {
    let trace = shown.trace.as_deref().filter(|trace| !trace.stages().is_empty())?;
    let image = Image::new(1, trace);
    let titles: Vec<String> = image
        .numbers
        .iter()
        .map(|stage| match &stage.overlap {
            Some(overlap) => format!("{}: {} boxes, mean IoU {:.3}", stage.name, stage.count, overlap.mean),
            None => format!("{}: {} boxes", stage.name, stage.count),
        })
        .collect();
    let mut panel = ProposalsPanel { image: Some(image), most: most.max(1), ..ProposalsPanel::default() };
    panel.draw_boxes(trace);
    let stills = titles.into_iter().enumerate();
    let stills = stills.map(|(place, title)| Still::new(title, panel.scene(backdrop.clone(), place as f32))).collect();
    Some(Figure::stills(format!("Proposals in {}", shown.name), stills, 2, table(trace)))
}

/// Every box of every stage in pixels of the picture.
fn table(trace: &Trace) -> Table {
    let mut table = Table::new(&["stage", "box", "parent", "score", "iou", "x0", "y0", "x1", "y1"]);
    let objects: Vec<BBox> = trace.objects.iter().map(|o| o.bbox).collect();
    for stage in trace.stages() {
        for (row, bbox) in stage.boxes.iter().enumerate() {
            let b = trace.to_original(*bbox);
            let iou = stage.iou.get(row).copied().or_else(|| best_iou(*bbox, &objects));
            let (parent, score) = (stage.parent.get(row), stage.scores.get(row));
            table.row(&[&stage.name, &row, &Maybe(parent), &Maybe(score), &Maybe(iou), &b.x0, &b.y0, &b.x1, &b.y1]);
        }
    }
    table
}
