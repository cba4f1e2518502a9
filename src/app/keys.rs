//! Keys: one table of what they do, used by the keyboard, the palette and the help sheet.

use super::action::{Action, Dialog, Layer};
use super::layout::Panel;
use super::outcome::Coloring;
use super::run_action::RunAction;
use crate::engine::command::InitialWeights;
use egui::{Key, KeyboardShortcut, Modifiers};
use std::collections::BTreeMap;

/// Something that a key or the palette can start.
#[derive(Clone, Debug)]
pub struct Binding {
    /// What the palette and the help sheet call it; also its key in the settings.
    pub name: &'static str,
    pub keys: Vec<KeyboardShortcut>,
    pub action: Action,
}

const fn plain(key: Key) -> KeyboardShortcut {
    KeyboardShortcut::new(Modifiers::NONE, key)
}

const fn with(modifiers: Modifiers, key: Key) -> KeyboardShortcut {
    KeyboardShortcut::new(modifiers, key)
}

/// The default bindings.
pub fn defaults() -> Vec<Binding> {
    let bind = |name, keys: &[KeyboardShortcut], action| Binding { name, keys: keys.to_vec(), action };
    let mut all = vec![
        bind("Next image", &[plain(Key::ArrowRight), plain(Key::D)], Action::Next),
        bind("Previous image", &[plain(Key::ArrowLeft), plain(Key::A)], Action::Previous),
        bind("Train or pause", &[plain(Key::Space)], Action::TrainOrPause),
        bind("Step one iteration", &[plain(Key::Period)], Action::Step(1)),
        bind("One step back", &[plain(Key::Comma)], Action::Replay(-1)),
        bind("Step ten iterations", &[with(Modifiers::SHIFT, Key::Period)], Action::Step(10)),
        bind("Next phase", &[with(Modifiers::ALT, Key::Period)], Action::Run(RunAction::Phase)),
        bind("Step to the end of the epoch", &[], Action::Run(RunAction::StepEpoch)),
        bind("Find the learning rate", &[], Action::Run(RunAction::FindRate)),
        bind("Fit image", &[plain(Key::Num0)], Action::Fit),
        bind("Zoom 100 %", &[plain(Key::Num1)], Action::ActualSize),
        bind("Zoom to selection", &[plain(Key::Z)], Action::ZoomSelection),
        bind("Zoom in", &[plain(Key::Plus), plain(Key::Equals)], Action::ZoomBy(1.25)),
        bind("Zoom out", &[plain(Key::Minus)], Action::ZoomBy(0.8)),
        bind("Ground truth on or off", &[plain(Key::G)], Action::Toggle(Layer::Truth)),
        bind("Predictions on or off", &[plain(Key::P)], Action::Toggle(Layer::Predictions)),
        bind("Boxes on or off", &[plain(Key::B)], Action::Toggle(Layer::Boxes)),
        bind("Masks on or off", &[plain(Key::M)], Action::Toggle(Layer::Masks)),
        bind("Labels on or off", &[plain(Key::L)], Action::Toggle(Layer::Labels)),
        bind("Positive anchors on or off", &[plain(Key::N)], Action::Toggle(Layer::Anchors)),
        bind("Heat map on or off", &[plain(Key::H)], Action::Toggle(Layer::HeatMap)),
        bind("Next of all, TP, FP, FN", &[plain(Key::T)], Action::NextOutcomes),
        bind("Colour by class", &[], Action::Color(Coloring::Class)),
        bind("Colour by instance", &[], Action::Color(Coloring::Instance)),
        bind("Colour by score", &[], Action::Color(Coloring::Score)),
        bind("Colour by error", &[], Action::Color(Coloring::Error)),
        bind("All classes", &[with(Modifiers::ALT, Key::Num0)], Action::Isolate(None)),
        bind("Open image…", &[with(Modifiers::COMMAND, Key::O)], Action::OpenDialog(Dialog::Image)),
        bind(
            "Open folder or data set…",
            &[with(Modifiers::COMMAND.plus(Modifiers::SHIFT), Key::O)],
            Action::OpenDialog(Dialog::Folder),
        ),
        bind("Open COCO annotations…", &[], Action::OpenDialog(Dialog::Annotations)),
        bind("Load weights…", &[with(Modifiers::COMMAND, Key::L)], Action::OpenDialog(Dialog::Weights)),
        bind("Save weights…", &[with(Modifiers::COMMAND, Key::S)], Action::OpenDialog(Dialog::SaveWeights)),
        bind("Export view as PNG…", &[with(Modifiers::COMMAND, Key::E)], Action::OpenDialog(Dialog::ExportView)),
        bind("Open the Shapes sample", &[], Action::OpenData { path: "shapes".into(), split: Some("test".into()) }),
        bind("Evaluate on the open data", &[], Action::Evaluate { misses: false }),
        bind("Score COCO results…", &[], Action::OpenDialog(Dialog::Results)),
        bind("Compare on the open data", &[], Action::CompareData),
        bind("Start training on the open data", &[], Action::StartTraining(InitialWeights::Random)),
        bind("Stop training", &[], Action::StopTraining),
        bind("Play or pause", &[], Action::PlayOrPause),
        bind("Stop playing", &[], Action::StopPlaying),
        bind("Play a video…", &[], Action::OpenDialog(Dialog::Video)),
        bind("Check the open data", &[], Action::CheckData { pixels: false }),
        bind("Save COCO results…", &[], Action::OpenDialog(Dialog::SaveResults)),
        bind("Cancel", &[], Action::Cancel),
        bind("Undo", &[with(Modifiers::COMMAND, Key::Z)], Action::Undo),
        bind("Redo", &[with(Modifiers::COMMAND.plus(Modifiers::SHIFT), Key::Z)], Action::Redo),
        bind("Next theme", &[], Action::ToggleTheme),
        bind("Reset layout", &[], Action::ResetLayout),
        bind("Full screen", &[plain(Key::F)], Action::FullScreen),
        bind("Keys", &[with(Modifiers::SHIFT, Key::Slash), plain(Key::Questionmark)], Action::ToggleHelp),
        bind("Palette", &[with(Modifiers::COMMAND, Key::P)], Action::TogglePalette),
        bind("Close or clear", &[plain(Key::Escape)], Action::Clear),
    ];
    const DIGITS: [(Key, &str); 9] = [
        (Key::Num1, "Isolate class 1"),
        (Key::Num2, "Isolate class 2"),
        (Key::Num3, "Isolate class 3"),
        (Key::Num4, "Isolate class 4"),
        (Key::Num5, "Isolate class 5"),
        (Key::Num6, "Isolate class 6"),
        (Key::Num7, "Isolate class 7"),
        (Key::Num8, "Isolate class 8"),
        (Key::Num9, "Isolate class 9"),
    ];
    for (class, (key, name)) in DIGITS.into_iter().enumerate() {
        all.push(bind(name, &[with(Modifiers::ALT, key)], Action::Isolate(Some(class as u32))));
    }
    const PANELS: [&str; 13] = [
        "Panel: Data",
        "Panel: Model",
        "Panel: Image",
        "Panel: Losses",
        "Panel: Step",
        "Panel: Evaluation",
        "Panel: Log",
        "Panel: Features",
        "Panel: Compare",
        "Panel: Anchors",
        "Panel: Proposals",
        "Panel: Suppression",
        "Panel: Runs",
    ];
    for (name, panel) in PANELS.into_iter().zip(Panel::ALL) {
        all.push(bind(name, &[], Action::Focus(panel)));
    }
    all
}

/// The defaults with the user's own keys in their place, where an empty text is no key; unreadable ones are left out
/// and named. A default gives way to an own key: it may have come with a later version than the choice.
pub fn bindings(changed: &BTreeMap<String, String>) -> (Vec<Binding>, Vec<String>) {
    let mut all = defaults();
    let (mut own, mut wrong) = (Vec::new(), Vec::new());
    for (name, text) in changed {
        match (all.iter_mut().find(|b| b.name == name), parse(text)) {
            (Some(binding), _) if text.trim().is_empty() => binding.keys.clear(),
            (Some(binding), Some(shortcut)) => {
                binding.keys = vec![shortcut];
                own.push(shortcut);
            }
            (Some(_), None) => wrong.push(format!("{name}: {text:?} is no key; write it like Ctrl+Shift+O")),
            (None, _) => wrong.push(format!("{name:?} is no action; see the palette for their names")),
        }
    }
    for binding in all.iter_mut().filter(|b| !changed.contains_key(b.name)) {
        binding.keys.retain(|key| !own.contains(key));
    }
    (all, wrong)
}

/// "Ctrl+Shift+O" as a shortcut.
pub fn parse(text: &str) -> Option<KeyboardShortcut> {
    let mut modifiers = Modifiers::NONE;
    let mut key = None;
    for part in text.split('+').map(str::trim) {
        match part.to_ascii_lowercase().as_str() {
            "ctrl" | "cmd" | "command" => modifiers = modifiers.plus(Modifiers::COMMAND),
            "shift" => modifiers = modifiers.plus(Modifiers::SHIFT),
            "alt" => modifiers = modifiers.plus(Modifiers::ALT),
            _ if key.is_none() => key = Some(Key::from_name(part)?),
            _ => return None,
        }
    }
    key.map(|key| KeyboardShortcut::new(modifiers, key))
}

/// A shortcut as [`parse`] reads it.
pub fn write(shortcut: &KeyboardShortcut) -> String {
    let KeyboardShortcut { modifiers, logical_key } = shortcut;
    let held = [("Ctrl", modifiers.command || modifiers.ctrl), ("Shift", modifiers.shift), ("Alt", modifiers.alt)];
    let mut parts: Vec<&str> = held.into_iter().filter(|(_, held)| *held).map(|(name, _)| name).collect();
    parts.push(logical_key.name());
    parts.join("+")
}

/// What another action than `name` is called that `shortcut` starts already.
pub fn taken_by(bindings: &[Binding], name: &str, shortcut: &KeyboardShortcut) -> Option<&'static str> {
    let brackets = [Key::OpenBracket, Key::CloseBracket, Key::OpenCurlyBracket, Key::CloseCurlyBracket];
    if brackets.contains(&shortcut.logical_key) {
        return Some(SCORE);
    }
    let same = |own: &KeyboardShortcut| write(own) == write(shortcut);
    bindings.iter().find(|b| b.name != name && b.keys.iter().any(same)).map(|b| b.name)
}

/// What `[` and `]` do; they repeat while held and cannot be changed.
pub const SCORE: &str = "Score threshold −0.05, +0.05 (with Shift 0.01)";

/// The actions whose keys were pressed in this frame; none while text is being typed.
pub fn pressed(ctx: &egui::Context, bindings: &[Binding]) -> Vec<Action> {
    if ctx.egui_wants_keyboard_input() {
        return Vec::new();
    }
    let mut actions = Vec::new();
    ctx.input_mut(|input| {
        // Score by brackets repeats while held, and Shift makes it finer.
        let brackets =
            [(Key::OpenBracket, Key::OpenCurlyBracket, -1.0), (Key::CloseBracket, Key::CloseCurlyBracket, 1.0)];
        for (key, with_shift, sign) in brackets {
            // Where Shift makes a brace of a bracket, the brace is what comes.
            let brace = input.count_and_consume_key(Modifiers::NONE, with_shift);
            let fine = (brace + input.count_and_consume_key(Modifiers::SHIFT, key)) as f32;
            let coarse = input.count_and_consume_key(Modifiers::NONE, key) as f32;
            if fine + coarse > 0.0 {
                actions.push(Action::ScoreBy(sign * (0.01 * fine + 0.05 * coarse)));
            }
        }
        // More modifiers first, or Ctrl+Shift+O would be taken for Ctrl+O.
        let mut all: Vec<(&KeyboardShortcut, &Action)> =
            bindings.iter().flat_map(|b| b.keys.iter().map(move |k| (k, &b.action))).collect();
        all.sort_by_key(|(k, _)| {
            std::cmp::Reverse(u8::from(k.modifiers.shift) + u8::from(k.modifiers.alt) + u8::from(k.modifiers.command))
        });
        for (shortcut, action) in all {
            if input.consume_shortcut(shortcut) {
                actions.push(action.clone());
            }
        }
    });
    actions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_keys_are_unique() {
        let all = defaults();
        let mut names: Vec<&str> = all.iter().map(|b| b.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        let keys: Vec<&KeyboardShortcut> = all.iter().flat_map(|b| &b.keys).collect();
        for (i, key) in keys.iter().enumerate() {
            assert!(!keys[..i].contains(key), "{key:?} twice");
        }
    }

    #[test]
    fn own_keys_replace_defaults_and_nonsense_is_named() {
        let mut changed = BTreeMap::new();
        changed.insert("Fit image".to_string(), "Ctrl+Shift+F".to_string());
        changed.insert("Next image".to_string(), "Ctrl+Nonsense".to_string());
        changed.insert("Make coffee".to_string(), "C".to_string());
        let (all, wrong) = bindings(&changed);
        let fit = all.iter().find(|b| b.name == "Fit image").unwrap();
        assert_eq!(fit.keys, [with(Modifiers::COMMAND.plus(Modifiers::SHIFT), Key::F)]);
        assert_eq!(wrong.len(), 2);
        changed.insert("Fit image".to_string(), String::new());
        assert!(bindings(&changed).0.iter().find(|b| b.name == "Fit image").unwrap().keys.is_empty());
    }

    #[test]
    fn an_own_key_is_taken_from_a_default() {
        let changed = BTreeMap::from([("Next theme".to_string(), "T".to_string())]);
        let (all, wrong) = bindings(&changed);
        assert!(wrong.is_empty());
        let with_t: Vec<&str> = all.iter().filter(|b| b.keys.contains(&plain(Key::T))).map(|b| b.name).collect();
        assert_eq!(with_t, ["Next theme"]);
    }

    #[test]
    fn what_is_written_is_read_again_and_a_key_in_use_is_known() {
        let all = defaults();
        for key in all.iter().flat_map(|b| &b.keys) {
            assert_eq!(parse(&write(key)).as_ref(), Some(key), "{}", write(key));
        }
        let open = with(Modifiers::COMMAND, Key::O);
        assert_eq!(taken_by(&all, "Fit image", &open), Some("Open image…"));
        assert_eq!(taken_by(&all, "Open image…", &open), None);
        assert_eq!(taken_by(&all, "Fit image", &plain(Key::OpenBracket)), Some(SCORE));
    }
}
