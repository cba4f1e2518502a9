//! The Compare view as a figure: the sides of one image beside each other, or the scores of the whole data set.

use super::{ComparePanel, Page, letter};
use crate::app::action::Layer;
use crate::app::export::table::{Maybe, score};
use crate::app::export::{Figure, Label, Still, Table};
use crate::app::settings::Settings;
use crate::app::state::State;
use crate::engine::Shown;
use crate::engine::compare::{CompareSummary, ComparedImage};

impl ComparePanel {
    /// What the panel shows; nothing before anything is compared.
    pub fn figure(&self, state: &State, settings: &Settings) -> Option<Figure> {
        if self.page == Page::Data {
            return state.comparison.as_deref().map(side_scores);
        }
        let shown = state.shown.as_deref()?;
        let compared = state.compared.as_deref().filter(|compared| compared.index == shown.index)?;
        let names = state.slots.each_ref().map(|slot| slot.as_ref().map(|s| s.name.clone()).unwrap_or_default());
        Some(self.figure_of(shown, compared, &names, settings))
    }

    fn figure_of(&self, shown: &Shown, compared: &ComparedImage, names: &[String], settings: &Settings) -> Figure {
        let mut stills = Vec::new();
        let mut table = Table::new(&["side", "name", "class", "score", "x0", "y0", "x1", "y1"]);
        for (slot, side) in compared.sides.iter().enumerate() {
            let Some(side) = side else { continue };
            let name = names.get(slot).map_or("", String::as_str);
            let found = || side.detections.iter().filter(|d| d.score >= settings.score);
            if let Some(scene) = self.scene(slot, shown, settings) {
                let labels = self.captions(slot, compared, settings).into_iter().map(Label::from).collect();
                let title = format!("{}: {name}, {} boxes", letter(slot), found().count());
                stills.push(Still { labels, ..Still::new(title, scene) });
            }
            for d in found() {
                let class = compared.classes.get(d.class as usize).map_or("?", String::as_str);
                let b = d.bbox;
                table.row(&[&letter(slot), &name, &class, &d.score, &b.x0, &b.y0, &b.x1, &b.y1]);
            }
        }
        let columns = stills.len().min(2);
        Figure::stills(format!("Comparison in {}", shown.name), stills, columns, table)
    }
}

/// Every side's detections of at least `score` in one image, marked by what the first side says of them; with class and
/// score where `labelled`.
pub fn sides(shown: &Shown, compared: &ComparedImage, names: &[String], score: f32, labelled: bool) -> Figure {
    let mut settings = Settings { score, ..Settings::default() };
    settings.layers.retain(|layer| labelled || *layer != Layer::Labels);
    let mut panel = ComparePanel { second: 1, ..ComparePanel::default() };
    panel.prepare(shown, compared, &State::default(), &settings);
    panel.figure_of(shown, compared, names, &settings)
}

/// Scores of all sides with what each gains over the first.
pub fn side_scores(comparison: &CompareSummary) -> Figure {
    let mut table =
        Table::new(&["side", "name", "AP", "AP50", "AP75", "APs", "APm", "APl", "AR100", "gain_AP50", "low", "high"]);
    for side in &comparison.sides {
        let [ap, ap50, ap75, small, medium, large, _, _, recall, ..] = side.stats;
        let gain = comparison.intervals.iter().find(|i| i.second == side.slot).map(|i| i.interval);
        table.row(&[
            &letter(side.slot),
            &side.name,
            &score(ap),
            &score(ap50),
            &score(ap75),
            &score(small),
            &score(medium),
            &score(large),
            &score(recall),
            &Maybe(gain.map(|g| g.difference)),
            &Maybe(gain.map(|g| g.low)),
            &Maybe(gain.map(|g| g.high)),
        ]);
    }
    Figure::numbers(format!("Comparison on {}", comparison.data), table)
}
