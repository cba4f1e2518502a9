//! No animations where the system's settings ask for none.

use egui::Context;
use std::process::Command;

/// Where each system keeps the wish, and the word that says it.
const ASK: Option<(&str, &[&str], &str)> = if cfg!(target_os = "macos") {
    Some(("defaults", &["read", "com.apple.universalaccess", "reduceMotion"], "1"))
} else if cfg!(windows) {
    Some(("reg", &["query", r"HKCU\Control Panel\Desktop\WindowMetrics", "/v", "MinAnimate"], "0"))
} else if cfg!(unix) {
    Some(("gsettings", &["get", "org.gnome.desktop.interface", "enable-animations"], "false"))
} else {
    None
};

/// Asks the system, in a thread of its own, and takes egui's animations away where it says so. A system that does not
/// answer wants them.
pub(super) fn follow_system(ctx: &Context) {
    let Some((program, arguments, still)) = ASK else { return };
    let ctx = ctx.clone();
    let ask = move || {
        let Ok(output) = Command::new(program).args(arguments).output() else { return };
        if output.status.success() && says(&String::from_utf8_lossy(&output.stdout), still) {
            ctx.all_styles_mut(|style| style.animation_time = 0.0);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("boxwright-motion".into()).spawn(ask) {
        tracing::warn!("the system's wish for animations is not known: {error}");
    }
}

/// Whether an answer ends with `word`.
fn says(answer: &str, word: &str) -> bool {
    answer.split_whitespace().last() == Some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_of_the_systems_are_understood() {
        assert!(says("false\n", "false") && !says("true\n", "false") && !says("", "false"));
        assert!(says("\r\nHKEY_CURRENT_USER\r\n    MinAnimate    REG_SZ    0\r\n\r\n", "0"));
        assert!(!says("    MinAnimate    REG_SZ    1\r\n", "0"));
    }
}
