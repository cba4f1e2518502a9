//! One image in a list or grid: its thumbnail, name and size, drawn as one button.

use super::textures::Picture;
use crate::app::theme;
use crate::data::Severity;
use crate::engine::event::ImageSummary;
use egui::accesskit::Role;
use egui::{
    Align2, Color32, FontId, Rect, Response, Sense, Stroke, StrokeKind, TextStyle, Ui, Vec2, WidgetInfo, pos2, vec2,
};

/// What an entry shows.
pub(super) struct Entry<'a> {
    pub image: &'a ImageSummary,
    pub picture: Picture,
    pub selected: bool,
    pub worst: Option<Severity>,
}

/// Draws an entry `size` points large; in a grid the picture stands above the name, in a list beside it.
pub(super) fn entry(ui: &mut Ui, entry: &Entry<'_>, size: Vec2, in_grid: bool) -> Response {
    let (rect, response) = ui.allocate_exact_size(size, Sense::click());
    let name = &entry.image.name;
    response.widget_info(|| WidgetInfo::selected(Role::Button, true, entry.selected, name));
    if !ui.is_rect_visible(rect) {
        return response;
    }
    let line = ui.text_style_height(&TextStyle::Small);
    let place = if in_grid {
        Rect::from_min_max(rect.min, pos2(rect.max.x, rect.max.y - line)).shrink(2.0)
    } else {
        Rect::from_min_size(rect.min, vec2(rect.height(), rect.height())).shrink(2.0)
    };
    let visuals = ui.visuals();
    let painter = ui.painter_at(rect);
    if entry.selected {
        painter.rect_filled(rect, 2.0, visuals.selection.bg_fill);
    } else if response.hovered() {
        painter.rect_filled(rect, 2.0, visuals.widgets.hovered.weak_bg_fill);
    }
    let weak = visuals.weak_text_color();
    match &entry.picture {
        Picture::Texture(texture) => {
            let [width, height] = texture.size().map(|side| side.max(1) as f32);
            let factor = (place.width() / width).min(place.height() / height);
            let area = Rect::from_center_size(place.center(), vec2(width, height) * factor);
            let whole = Rect::from_min_max(pos2(0.0, 0.0), pos2(1.0, 1.0));
            painter.image(texture.id(), area, whole, Color32::WHITE);
        }
        Picture::Broken(_) => {
            let font = FontId::proportional(16.0);
            painter.text(place.center(), Align2::CENTER_CENTER, "x", font, theme::ERROR);
        }
        Picture::Coming => {
            painter.rect_stroke(place, 2.0, Stroke::new(1.0, weak), StrokeKind::Inside);
        }
    }
    if let Some(worst) = entry.worst {
        let color = if worst == Severity::Error { theme::ERROR } else { theme::WARNING };
        painter.circle_filled(place.right_top() + vec2(-4.0, 4.0), 4.0, color);
    }
    let small = TextStyle::Small.resolve(ui.style());
    let text = if entry.selected { visuals.strong_text_color() } else { visuals.text_color() };
    if in_grid {
        let end = last_letters(name, (rect.width() / (0.55 * line)).max(4.0) as usize);
        painter.text(pos2(rect.center().x, rect.max.y), Align2::CENTER_BOTTOM, end, small, text);
    } else {
        let left = place.max.x + 6.0;
        let body = TextStyle::Body.resolve(ui.style());
        painter.text(pos2(left, rect.min.y + 2.0), Align2::LEFT_TOP, name, body, text);
        let detail = detail(entry.image);
        painter.text(pos2(left, rect.max.y - 2.0), Align2::LEFT_BOTTOM, detail, small, weak);
    }
    match &entry.picture {
        Picture::Broken(reason) => response.on_hover_text(format!("{name}: {reason}")),
        _ => response.on_hover_text(format!("{name}: {}", detail(entry.image))),
    }
}

/// Size and objects of an image in words.
fn detail(image: &ImageSummary) -> String {
    let crowds = match image.crowds {
        0 => String::new(),
        1 => ", 1 group".into(),
        count => format!(", {count} groups"),
    };
    format!("{}×{}, {} objects{crowds}", image.width, image.height, image.objects)
}

/// The end of a name that is too long: that is where names of a folder differ.
fn last_letters(name: &str, most: usize) -> String {
    let count = name.chars().count();
    if count <= most {
        return name.to_owned();
    }
    std::iter::once('…').chain(name.chars().skip(count + 1 - most)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_long_name_stays() {
        assert_eq!(last_letters("day/0001.png", 8), "…001.png");
        assert_eq!(last_letters("a.png", 8), "a.png");
        assert_eq!(last_letters("äöüß", 3), "…üß");
    }
}
