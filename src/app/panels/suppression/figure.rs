//! The Suppression view as a figure: candidates before, detections after, and what became of each candidate.

use super::{Fate, Made, SuppressionPanel, own_rules};
use crate::app::export::table::Maybe;
use crate::app::export::{Draft, Figure, Still, Table};
use crate::app::panels::why::class_name;
use crate::app::state::State;
use crate::detect::Config;
use crate::engine::Shown;
use crate::render::Scene;
use crate::trace::{Suppression, Trace};

impl SuppressionPanel {
    /// What the panel shows, removals done so far, to be made a figure of; nothing before the model has run.
    pub fn draft(&self, state: &State, backdrop: Scene) -> Option<Draft> {
        let shown = state.shown.clone()?;
        let made = self.made.as_ref().filter(|_| recorded(&shown).is_some())?;
        let title = format!("{} after {} of {} removals", shown.name, self.step, made.steps);
        let still = Still::new(title.clone(), self.scene(backdrop));
        let fates = made.fates.clone();
        Some(Box::new(move || Figure::stills(title, vec![still], 1, table(&fates, &shown))))
    }
}

/// The candidates of a pass before suppression beside what the model's own rules leave of them.
pub fn before_and_after(config: &Config, shown: &Shown, backdrop: Scene) -> Option<Figure> {
    let (trace, record) = recorded(shown)?;
    let made = Made::new(trace, record, (1, own_rules(Some(config), record)), 1);
    let (steps, kept) = (made.steps, made.replay.kept.len());
    let table = table(&made.fates, shown);
    let mut panel = SuppressionPanel { made: Some(made), ..SuppressionPanel::default() };
    let before = Still::new("before suppression", panel.scene(backdrop.clone()));
    panel.step = steps;
    let after = Still::new(format!("after: {kept} boxes"), panel.scene(backdrop));
    Some(Figure::stills(format!("Suppression in {}", shown.name), vec![before, after], 2, table))
}

fn recorded(shown: &Shown) -> Option<(&Trace, &Suppression)> {
    let trace = shown.trace.as_deref()?;
    Some((trace, trace.suppression.as_ref()?))
}

/// Every candidate in pixels of the picture.
fn table(fates: &[Fate], shown: &Shown) -> Table {
    let mut table =
        Table::new(&["candidate", "class", "score", "x0", "y0", "x1", "y1", "fate", "final_score", "by", "iou"]);
    let Some((trace, record)) = recorded(shown) else { return table };
    for (index, (candidate, fate)) in record.candidates.iter().zip(fates).enumerate() {
        let b = trace.to_original(candidate.bbox);
        let class = class_name(&shown.detection_classes, candidate.class);
        let (word, score, by, overlap) = match *fate {
            Fate::Kept { score } => ("kept", Some(score), None, None),
            Fate::Removed { by, iou, .. } => ("removed", None, Some(by), Some(iou)),
            Fate::Cut => ("over the limit", None, None, None),
            Fate::Absent => ("below the score", None, None, None),
        };
        table.row(&[
            &index,
            &class,
            &candidate.score,
            &b.x0,
            &b.y0,
            &b.x1,
            &b.y1,
            &word,
            &Maybe(score),
            &Maybe(by),
            &Maybe(overlap),
        ]);
    }
    table
}
