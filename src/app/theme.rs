//! Light, dark and high contrast, and the colours that mean something.
//!
//! Text keeps a contrast of 4.5 to its background and 7 in the high-contrast look (WCAG 2.2, 1.4.3 and 1.4.6).

use egui::{Color32, Context, CornerRadius, Stroke, Ui, Visuals};
use serde::{Deserialize, Serialize};

/// Ground truth.
pub const TRUTH: Color32 = Color32::from_rgb(0, 158, 115);
/// Marks of errors and of hard negatives.
pub const ERROR: Color32 = Color32::from_rgb(213, 94, 0);
/// Marks of warnings.
pub const WARNING: Color32 = Color32::from_rgb(230, 159, 0);

/// Shades between a colour and black or white that are tried for text.
const SHADES: u32 = 16;

/// How the window looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Look {
    Light,
    #[default]
    Dark,
    HighContrast,
}

impl Look {
    pub const ALL: [Self; 3] = [Self::Light, Self::Dark, Self::HighContrast];

    pub fn name(self) -> &'static str {
        match self {
            Self::Light => "Light",
            Self::Dark => "Dark",
            Self::HighContrast => "High contrast",
        }
    }

    /// The one after it, around.
    pub fn next(self) -> Self {
        match self {
            Self::Light => Self::Dark,
            Self::Dark => Self::HighContrast,
            Self::HighContrast => Self::Light,
        }
    }

    fn visuals(self) -> Visuals {
        match self {
            Self::Light => light(),
            Self::Dark => dark(),
            Self::HighContrast => high_contrast(),
        }
    }
}

/// Lets the monospaced font draw the signs that the proportional one lacks: arrows, norms, set operators.
pub fn install_fonts(ctx: &Context) {
    let mut fonts = egui::FontDefinitions::default();
    let fallbacks = fonts.families.get(&egui::FontFamily::Monospace).cloned().unwrap_or_default();
    let proportional = fonts.families.entry(egui::FontFamily::Proportional).or_default();
    for font in fallbacks {
        if !proportional.contains(&font) {
            proportional.push(font);
        }
    }
    ctx.set_fonts(fonts);
}

/// Sets visuals and scale.
pub fn apply(ctx: &Context, look: Look, scale: f32) {
    let theme = if look == Look::Light { egui::Theme::Light } else { egui::Theme::Dark };
    ctx.set_theme(theme);
    ctx.set_visuals_of(theme, look.visuals());
    ctx.set_zoom_factor(scale);
}

fn light() -> Visuals {
    let mut visuals = Visuals::light();
    visuals.weak_text_color = Some(Color32::from_gray(100));
    visuals.hyperlink_color = Color32::from_rgb(0, 90, 180);
    visuals.error_fg_color = Color32::from_rgb(176, 42, 0);
    visuals.warn_fg_color = Color32::from_rgb(130, 80, 0);
    visuals
}

fn dark() -> Visuals {
    let mut visuals = Visuals::dark();
    visuals.text_edit_bg_color = Some(Color32::from_gray(42));
    visuals.widgets.noninteractive.fg_stroke.color = Color32::from_gray(190);
    visuals.weak_text_color = Some(Color32::from_gray(145));
    visuals.error_fg_color = Color32::from_rgb(255, 120, 80);
    visuals.warn_fg_color = Color32::from_rgb(255, 180, 50);
    visuals
}

fn high_contrast() -> Visuals {
    let mut visuals = dark();
    visuals.text_edit_bg_color = Some(Color32::from_gray(30));
    let line = Stroke::new(1.0, Color32::WHITE);
    let strong = Stroke::new(2.0, Color32::from_rgb(255, 230, 0));
    for widget in [
        &mut visuals.widgets.noninteractive,
        &mut visuals.widgets.inactive,
        &mut visuals.widgets.hovered,
        &mut visuals.widgets.active,
        &mut visuals.widgets.open,
    ] {
        widget.bg_fill = Color32::BLACK;
        widget.weak_bg_fill = Color32::BLACK;
        widget.bg_stroke = line;
        widget.fg_stroke.color = Color32::WHITE;
        widget.corner_radius = CornerRadius::same(2);
    }
    // Where one is must not depend on a shade alone.
    visuals.widgets.hovered.bg_stroke = strong;
    visuals.widgets.active.bg_stroke = strong;
    visuals.panel_fill = Color32::BLACK;
    visuals.window_fill = Color32::BLACK;
    visuals.window_stroke = line;
    visuals.extreme_bg_color = Color32::BLACK;
    visuals.faint_bg_color = Color32::from_gray(24);
    visuals.code_bg_color = Color32::from_gray(32);
    visuals.selection.bg_fill = Color32::from_rgb(0, 60, 140);
    visuals.selection.stroke = Stroke::new(2.0, Color32::WHITE);
    visuals.weak_text_color = Some(Color32::from_gray(210));
    visuals.hyperlink_color = Color32::from_rgb(120, 200, 255);
    visuals.error_fg_color = Color32::from_rgb(255, 150, 120);
    visuals.warn_fg_color = Color32::from_rgb(255, 215, 0);
    visuals
}

/// The stable colour of a class.
pub fn class_color(class: u32) -> Color32 {
    let [r, g, b] = crate::imaging::draw::class_color(class);
    Color32::from_rgb(r, g, b)
}

/// A class's colour as text.
pub fn class_text(ui: &Ui, class: u32) -> Color32 {
    readable(ui, class_color(class))
}

/// The colour next to `color` that can be read as text on the panels: darker where those are light, else lighter.
pub fn readable(ui: &Ui, color: Color32) -> Color32 {
    as_text(color, ui.visuals())
}

fn as_text(color: Color32, visuals: &Visuals) -> Color32 {
    let ground = visuals.panel_fill;
    let end = if visuals.dark_mode { Color32::WHITE } else { Color32::BLACK };
    let least = if ground == Color32::BLACK { 7.0 } else { 4.5 };
    let mut shades = (0..SHADES).map(|shade| color.lerp_to_gamma(end, shade as f32 / SHADES as f32));
    shades.find(|shade| contrast(*shade, ground) >= least).unwrap_or(end)
}

/// Relative luminance of an opaque colour (WCAG 2.2).
fn luminance(color: Color32) -> f64 {
    let [r, g, b, _] = color.to_array();
    let linear = |value: u8| {
        let value = f64::from(value) / 255.0;
        if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b)
}

/// Contrast ratio of two opaque colours, 1 to 21 (WCAG 2.2).
fn contrast(a: Color32, b: Color32) -> f64 {
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

/// Black or white, whichever reads better on `background`.
pub fn text_on(background: Color32) -> Color32 {
    let [r, g, b, _] = background.to_array().map(f32::from);
    if 0.299 * r + 0.587 * g + 0.114 * b > 140.0 { Color32::BLACK } else { Color32::WHITE }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contrast(a: Color32, b: Color32) -> f64 {
        for color in [a, b] {
            assert_eq!(color.a(), 255, "{color:?} is seen through");
        }
        super::contrast(a, b)
    }

    #[test]
    fn contrast_is_that_of_the_standard() {
        assert!((contrast(Color32::BLACK, Color32::WHITE) - 21.0).abs() < 1e-9);
        // The grey that the standard's explanation gives as the lightest of enough contrast on white.
        assert!((contrast(Color32::from_gray(0x76), Color32::WHITE) - 4.54).abs() < 0.01);
    }

    #[test]
    fn every_text_is_readable_in_every_look() {
        for look in Look::ALL {
            let visuals = look.visuals();
            let least = if look == Look::HighContrast { 7.0 } else { 4.5 };
            let texts = [
                ("text", visuals.text_color()),
                ("weak text", visuals.weak_text_color()),
                ("strong text", visuals.strong_text_color()),
                ("link", visuals.hyperlink_color),
                ("error", visuals.error_fg_color),
                ("warning", visuals.warn_fg_color),
            ];
            for (name, color) in texts {
                let found = contrast(color, visuals.panel_fill);
                assert!(found >= least, "{} {name}: {found:.2}", look.name());
            }
            for color in (0..80).map(class_color).chain([TRUTH, ERROR, WARNING]) {
                let found = contrast(as_text(color, &visuals), visuals.panel_fill);
                assert!(found >= least, "{} {color:?}: {found:.2}", look.name());
            }
            for widget in [&visuals.widgets.inactive, &visuals.widgets.hovered, &visuals.widgets.active] {
                let found = contrast(widget.fg_stroke.color, widget.weak_bg_fill);
                assert!(found >= least, "{} button: {found:.2}", look.name());
            }
            // Meaningful marks that are no text need 3 (1.4.11).
            for (name, color) in [("truth", TRUTH), ("error", ERROR)] {
                let found = contrast(color, visuals.panel_fill);
                assert!(found >= 3.0, "{} mark {name}: {found:.2}", look.name());
            }
        }
    }

    #[test]
    fn looks_come_around() {
        assert_eq!(Look::ALL.map(|look| look.next().next().next()), Look::ALL);
    }
}
