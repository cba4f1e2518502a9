//! Notifications: what failed lies over the panels until somebody has seen it, what succeeded for a few seconds.

use super::action::Action;
use super::layout::Panel;
use super::state::State;
use crate::engine::Severity;
use egui::{Align2, Area, Context, Frame, Id, Label, Order, RichText, Ui, vec2};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Notifications on the screen; the log has the others.
const SHOWN: usize = 3;
/// A success goes by itself after so long.
const TOLD: Duration = Duration::from_secs(6);
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
    title: String,
    message: String,
    /// When it goes by itself; a failure stays.
    until: Option<Instant>,
}

impl Toasts {
    /// Takes in the errors that came since the last time.
    pub fn take(&mut self, state: &State) {
        let fresh = state.unseen_errors.saturating_sub(self.seen);
        self.seen = state.unseen_errors;
        let errors = state.log.iter().rev().filter(|line| line.severity == Severity::Error);
        let latest: Vec<Toast> = errors
            .take(fresh.min(SHOWN))
            .map(|line| Toast { title: format!("{} failed", line.source), message: line.message.clone(), until: None })
            .collect();
        self.more += fresh.saturating_sub(latest.len());
        latest.into_iter().rev().for_each(|toast| self.put(toast));
    }

    /// Shows for a while that something is done.
    pub fn tell(&mut self, title: &str, message: &str) {
        let until = Some(Instant::now() + TOLD);
        self.put(Toast { title: title.into(), message: message.into(), until });
    }

    fn put(&mut self, toast: Toast) {
        // The same again says nothing new.
        self.shown.retain(|known| known.message != toast.message);
        self.shown.push_back(toast);
        while self.shown.len() > SHOWN {
            // A success gives way first: the log has it, and nothing is to be done.
            let told = self.shown.iter().position(|known| known.until.is_some()).unwrap_or(0);
            if self.shown.remove(told).is_some_and(|gone| gone.until.is_none()) {
                self.more += 1;
            }
        }
    }

    /// Takes away what was told long enough by `now`; gives how long the next one stays.
    fn expire(&mut self, now: Instant) -> Option<Duration> {
        self.shown.retain(|toast| toast.until.is_none_or(|until| until > now));
        self.shown.iter().filter_map(|toast| toast.until).min().map(|until| until - now)
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
        if let Some(left) = self.expire(Instant::now()) {
            ctx.request_repaint_after(left);
        }
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
        let title = RichText::new(&self.title).strong();
        ui.label(if self.until.is_none() { title.color(ui.visuals().error_fg_color) } else { title });
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

    #[test]
    fn a_success_goes_by_itself_and_never_pushes_a_failure_out() {
        let (mut state, mut toasts) = (State::default(), Toasts::default());
        for message in ["one", "two"] {
            state.note(Severity::Error, "a", message);
        }
        toasts.take(&state);
        toasts.tell("Export", "written: a.png");
        toasts.tell("Export", "written: b.png");
        assert_eq!(messages(&toasts), ["one", "two", "written: b.png"]);
        assert!(toasts.expire(Instant::now()).is_some_and(|left| left <= TOLD));
        assert_eq!(toasts.expire(Instant::now() + TOLD), None);
        assert_eq!((messages(&toasts), toasts.more), (vec!["one", "two"], 0));
    }
}
