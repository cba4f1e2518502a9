//! Notifications: what failed lies over the panels until somebody has seen it.

use super::action::Action;
use super::layout::Panel;
use super::state::State;
use crate::engine::Severity;
use egui::{Align2, Area, Context, Frame, Id, Label, Order, RichText, Ui, vec2};
use std::collections::VecDeque;

/// Notifications on the screen; the log has the others.
const SHOWN: usize = 3;
const WIDTH: f32 = 380.0;

/// What is on the screen, and how far the log was read.
#[derive(Debug, Default)]
pub struct Toasts {
    /// Errors of the log that were taken in.
    seen: usize,
    shown: VecDeque<Toast>,
    /// Those that had no room.
    more: usize,
}

#[derive(Debug)]
struct Toast {
    source: String,
    message: String,
}

impl Toasts {
    /// Takes in the errors that came since the last time.
    pub fn take(&mut self, state: &State) {
        let fresh = state.unseen_errors.saturating_sub(self.seen);
        self.seen = state.unseen_errors;
        let errors = state.log.iter().rev().filter(|line| line.severity == Severity::Error);
        let latest: Vec<Toast> = errors
            .take(fresh.min(SHOWN))
            .map(|line| Toast { source: line.source.clone(), message: line.message.clone() })
            .collect();
        self.more += fresh.saturating_sub(latest.len());
        for toast in latest.into_iter().rev() {
            // The same failure again says nothing new.
            self.shown.retain(|known| known.message != toast.message);
            self.shown.push_back(toast);
        }
        while self.shown.len() > SHOWN {
            self.shown.pop_front();
            self.more += 1;
        }
    }

    /// Takes all away; false when there were none.
    pub fn dismiss(&mut self) -> bool {
        let any = !self.shown.is_empty();
        self.shown.clear();
        self.more = 0;
        any
    }

    /// Draws them in the lower right corner.
    pub fn show(&mut self, ctx: &Context, actions: &mut Vec<Action>) {
        if self.shown.is_empty() {
            return;
        }
        let area = Area::new(Id::unique("notifications"))
            .order(Order::Foreground)
            .anchor(Align2::RIGHT_BOTTOM, vec2(-12.0, -36.0));
        area.show(ctx, |ui| {
            ui.set_max_width(WIDTH);
            let mut closed = None;
            for (index, toast) in self.shown.iter().enumerate() {
                let answer = Frame::popup(ui.style()).show(ui, |ui| toast.ui(ui, index)).inner;
                match answer {
                    Some(Answer::ShowLog) => {
                        actions.push(Action::Focus(Panel::Log));
                        closed = Some(index);
                    }
                    Some(Answer::Dismiss) => closed = Some(index),
                    None => {}
                }
            }
            if self.more > 0 {
                let text = format!("{} more in the log", self.more);
                Frame::popup(ui.style()).show(ui, |ui| ui.label(text));
            }
            if let Some(index) = closed {
                self.shown.remove(index);
                if self.shown.is_empty() {
                    self.more = 0;
                }
            }
        });
    }
}

enum Answer {
    ShowLog,
    Dismiss,
}

impl Toast {
    fn ui(&self, ui: &mut Ui, index: usize) -> Option<Answer> {
        ui.set_width(WIDTH);
        ui.label(RichText::new(format!("{} failed", self.source)).strong().color(ui.visuals().error_fg_color));
        ui.add(Label::new(&self.message).wrap());
        let mut answer = None;
        ui.horizontal(|ui| {
            if ui.button("Show log").clicked() {
                answer = Some(Answer::ShowLog);
            }
            let dismiss = ui.button("Dismiss").accessible_name(format!("Dismiss notification {}", index + 1));
            if dismiss.clicked() {
                answer = Some(Answer::Dismiss);
            }
        });
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(toasts: &Toasts) -> Vec<&str> {
        toasts.shown.iter().map(|toast| toast.message.as_str()).collect()
    }

    #[test]
    fn each_error_is_shown_once_and_what_has_no_room_is_counted() {
        let (mut state, mut toasts) = (State::default(), Toasts::default());
        state.note(Severity::Info, "a", "fine");
        state.note(Severity::Error, "a", "one");
        toasts.take(&state);
        toasts.take(&state);
        assert_eq!(messages(&toasts), ["one"]);
        for message in ["two", "one", "three", "four", "five"] {
            state.note(Severity::Error, "a", message);
        }
        toasts.take(&state);
        assert_eq!(messages(&toasts), ["three", "four", "five"]);
        assert_eq!(toasts.more, 3);
        assert!(toasts.dismiss() && !toasts.dismiss());
    }
}
