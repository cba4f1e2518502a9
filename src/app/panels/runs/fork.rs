//! The form of a fork: where it begins, and the one setting that is another from there on.

use crate::app::action::Action;
use crate::app::run_action::RunAction;
use crate::detect::config::set;
use crate::engine::history::RunDetails;
use crate::engine::run_folder::RunSummary;
use crate::engine::runs::settings;
use crate::train::RunConfig;
use egui::{Button, ComboBox, DragValue, RichText, TextEdit, Ui};
use std::collections::BTreeMap;

/// The setting that is offered first.
const FIRST: &str = "train.schedule.learning_rate";

/// What was filled in.
#[derive(Debug, Default)]
pub struct ForkForm {
    /// The run's settings by dotted name.
    settings: BTreeMap<String, String>,
    iteration: u64,
    key: String,
    value: String,
    error: Option<String>,
}

impl ForkForm {
    /// A form for `run`, beginning at its end with nothing changed.
    pub fn of(run: &RunSummary) -> Self {
        let settings = settings(&run.config);
        let key = if settings.contains_key(FIRST) { FIRST.to_string() } else { String::new() };
        let value = settings.get(&key).cloned().unwrap_or_default();
        Self { settings, iteration: run.iteration, key, value, error: None }
    }

    pub fn ui(&mut self, ui: &mut Ui, run: &RunSummary, details: &RunDetails, actions: &mut Vec<Action>) {
        let Some((first, _)) = details.checkpoints.first() else { return };
        let first = (*first).min(run.iteration);
        ui.horizontal_wrapped(|ui| {
            let label = ui.label("Fork after");
            let place = DragValue::new(&mut self.iteration).range(first..=run.iteration).suffix(" iterations");
            let help = "From the newest checkpoint at or before it; the iterations in between are run again";
            ui.add(place).labelled_by(label.id).on_hover_text(help);
            ui.label("with");
            let before = self.key.clone();
            let choice =
                ComboBox::from_id_salt("setting of the fork").selected_text(self.key.clone()).show_ui(ui, |ui| {
                    for key in self.settings.keys().filter(|key| key.starts_with("train.")) {
                        ui.selectable_value(&mut self.key, key.clone(), key);
                    }
                });
            choice.response.on_hover_text("The one setting that changes");
            if before != self.key {
                self.value = self.settings.get(&self.key).cloned().unwrap_or_default();
            }
            ui.label("=");
            let value = ui.add(TextEdit::singleline(&mut self.value).desired_width(90.0));
            value.accessible_name(format!("New value of {}", self.key));
            let fork = ui.add_enabled(!self.key.is_empty(), Button::new("Fork"));
            let help = "Makes a run of its own beside this one, which stays as it is, and opens it, paused";
            if fork.on_hover_text(help).clicked() {
                match changed(&run.config, &self.key, self.value.trim()) {
                    Ok(config) => {
                        self.error = None;
                        let (name, iteration) = (run.name.clone(), self.iteration);
                        actions.push(Action::Run(RunAction::Fork { name, iteration, config: Box::new(config) }));
                    }
                    Err(error) => self.error = Some(error),
                }
            }
        });
        if let Some(error) = &self.error {
            ui.label(RichText::new(error).color(ui.visuals().error_fg_color));
        }
    }
}

/// The configuration with one setting changed.
fn changed(config: &str, key: &str, value: &str) -> Result<RunConfig, String> {
    let config: RunConfig = toml::from_str(config).map_err(|e| format!("the run's settings do not read: {e}"))?;
    set(&config, key, value).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Arch;
    use crate::engine::run_folder::Status;

    fn summary() -> RunSummary {
        let dataset = crate::data::open("shapes:train=1,val=1,test=1", None).unwrap();
        let config = RunConfig::new(Arch::SsdNano, "shapes", &dataset);
        RunSummary {
            name: "a".into(),
            model: "ssd-nano".into(),
            data: "shapes".into(),
            started: 0,
            iteration: 7,
            iterations: 10,
            best_ap: None,
            status: Status::Unfinished,
            config: toml::to_string(&config).unwrap(),
        }
    }

    #[test]
    fn the_form_begins_with_the_learning_rate_and_changes_one_setting() {
        let run = summary();
        let form = ForkForm::of(&run);
        assert_eq!((form.key.as_str(), form.iteration), (FIRST, 7));
        let before: RunConfig = toml::from_str(&run.config).unwrap();
        let after = changed(&run.config, FIRST, "0.125").unwrap();
        assert_eq!(after.train.schedule.learning_rate, 0.125);
        assert_eq!(after.model, before.model);
        assert!(changed(&run.config, FIRST, "fast").is_err());
        assert!(changed("nonsense", FIRST, "1").is_err());
    }
}
