//! A question that a panel puts to the engine by itself: once for each cause, and again when somebody wants it after a
//! failure.

use crate::app::state::{ENGINE, State};
use egui::Ui;

/// What was asked last, and how often those had failed by then that could have answered.
#[derive(Debug)]
pub struct Question<C> {
    cause: Option<C>,
    /// Who answers, and the way there.
    sources: [&'static str; 2],
    failures: [u64; 2],
}

impl<C> Default for Question<C> {
    fn default() -> Self {
        Self { cause: None, sources: [ENGINE; 2], failures: [0; 2] }
    }
}

impl<C: PartialEq> Question<C> {
    /// Whether `source` is to be asked: nobody did for this `cause` yet. From now on somebody did.
    pub fn is_new(&mut self, state: &State, source: &'static str, cause: C) -> bool {
        if self.cause.as_ref() == Some(&cause) {
            return false;
        }
        self.cause = Some(cause);
        self.sources = [source, ENGINE];
        self.failures = self.sources.map(|source| state.failures(source).0);
        true
    }

    /// In the place of an answer that is not there: `waiting`, or what was said of the failure. True when somebody wants
    /// to ask again.
    pub fn ui(&mut self, ui: &mut Ui, state: &State, waiting: &str) -> bool {
        let said = self.sources.map(|source| state.failures(source));
        let failed = said.iter().zip(self.failures).find(|((count, _), before)| count != before);
        let Some(((_, message), _)) = failed else {
            ui.label(waiting);
            return false;
        };
        ui.colored_label(ui.visuals().error_fg_color, format!("No answer: {message}"));
        let again = ui.button("Retry").on_hover_text("Asks once more").clicked();
        if again {
            self.failures = said.map(|(count, _)| count);
        }
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Event, Severity};
    use egui_kittest::Harness;
    use egui_kittest::kittest::Queryable;
    use std::cell::RefCell;
    use std::rc::Rc;

    /// A question about the number of the state's data, and how often it was asked.
    #[derive(Default)]
    struct Asked {
        state: State,
        question: Question<u64>,
        times: usize,
    }

    #[test]
    fn a_failure_offers_another_try_and_another_cause_asks_by_itself() {
        let asked: Rc<RefCell<Asked>> = Rc::default();
        let inner = asked.clone();
        let mut harness = Harness::new_ui(move |ui| {
            let mut asked = inner.borrow_mut();
            let Asked { state, question, times } = &mut *asked;
            let new = question.is_new(state, "statistics", state.data_version);
            let again = question.ui(ui, state, "It is being measured.");
            *times += usize::from(new || again);
        });
        harness.run_steps(3);
        assert_eq!(asked.borrow().times, 1);
        assert!(harness.query_by_label("It is being measured.").is_some() && harness.query_by_label("Retry").is_none());
        let fail = || {
            let (severity, message) = (Severity::Error, "no data is open".to_string());
            asked.borrow_mut().state.fold(Event::Log { severity, source: "statistics".into(), message });
        };
        fail();
        harness.run_steps(2);
        assert!(harness.query_by_label("No answer: no data is open").is_some());
        harness.get_by_label("Retry").click();
        harness.run_steps(3);
        assert_eq!(asked.borrow().times, 2);
        assert!(harness.query_by_label("Retry").is_none());
        fail();
        asked.borrow_mut().state.data_version += 1;
        harness.run_steps(3);
        assert_eq!(asked.borrow().times, 3);
        asked.borrow_mut().state.refuse(ENGINE, "too much is waiting");
        harness.run_steps(2);
        assert!(harness.query_by_label("No answer: too much is waiting").is_some());
    }
}
