//! Numbers of the open data: classes, sizes, shapes, objects per image, and where objects lie.

use crate::app::action::Action;
use crate::app::panels::asking::Question;
use crate::app::panels::name_picture;
use crate::app::state::State;
use crate::app::theme;
use crate::data::statistics::{Bin, Distribution, Statistics};
use crate::render::ColorMap;
use egui::{Color32, Grid, Rect, RichText, ScrollArea, Sense, Ui, pos2, vec2};

/// Classes that are listed; more are in the exported table.
const LISTED: usize = 200;
const BARS: f32 = 64.0;

/// Scratch of the page.
#[derive(Default)]
pub(super) struct StatisticsPage {
    /// Which change of the data the engine was asked to measure.
    question: Question<u64>,
}

impl StatisticsPage {
    pub(super) fn ui(&mut self, ui: &mut Ui, state: &State, actions: &mut Vec<Action>) {
        let Some(statistics) = state.statistics.clone() else {
            let mut asks = self.question.is_new(state, "statistics", state.data_version);
            asks |= self.question.ui(ui, state, "The data set is being measured.");
            if asks {
                actions.push(Action::MeasureData);
            }
            return;
        };
        ScrollArea::vertical().id_salt("statistics").auto_shrink(false).show(ui, |ui| {
            summary(ui, &statistics);
            classes(ui, &statistics);
            bars(ui, "Objects by side", "√(w·h) of the box, pixels", &statistics.side);
            bars(ui, "Objects by aspect", "w / h of the box", &statistics.aspect);
            bars(ui, "Objects by share", "√(w·h / W·H): the box against the picture", &statistics.relative_side);
            bars(ui, "Images by objects", "objects in one image", &statistics.per_image);
            positions(ui, &statistics);
        });
    }
}

fn summary(ui: &mut Ui, statistics: &Statistics) {
    Grid::new("statistics summary").num_columns(2).show(ui, |ui| {
        let mut row = |name: &str, value: String| {
            ui.weak(name);
            ui.label(value);
            ui.end_row();
        };
        row("Images", format!("{}, {} without objects", statistics.images, statistics.images_without_objects));
        row("Objects", format!("{}, {} with a mask", statistics.objects, statistics.masks));
        row("Groups, difficult", format!("{}, {}", statistics.crowds, statistics.difficult));
        let sizes = statistics.sizes.iter().map(|size| format!("{} {}", size.range.name(), size.objects));
        row("By size", sizes.collect::<Vec<_>>().join(", "));
        let median = statistics.per_image.quantiles.get(3).map_or("—".to_owned(), |median| format!("{median:.0}"));
        row("Objects an image", format!("{median} in the middle"));
        let pictures = statistics.picture_sizes.first();
        let common = pictures.map_or(String::new(), |p| format!("; most often {}×{}", p.width, p.height));
        row("Picture sizes", format!("{}{common}", statistics.distinct_picture_sizes));
    });
}

fn classes(ui: &mut Ui, statistics: &Statistics) {
    ui.separator();
    let most = statistics.classes.iter().map(|class| class.objects).max().unwrap_or(0).max(1);
    Grid::new("statistics of classes").num_columns(5).striped(true).show(ui, |ui| {
        for (title, help) in [
            ("class", "As the data set names it"),
            ("objects", "Annotated ones, groups left out"),
            ("", ""),
            ("images", "With one of them or more"),
            ("side", "Median of √(w·h), pixels"),
        ] {
            let label = ui.weak(title);
            if !help.is_empty() {
                label.on_hover_text(help);
            }
        }
        ui.end_row();
        for (index, class) in statistics.classes.iter().enumerate().take(LISTED) {
            let color = theme::class_color(index as u32);
            ui.label(RichText::new(&class.name).color(color));
            ui.label(class.objects.to_string());
            let (rect, _) = ui.allocate_exact_size(vec2(60.0, 10.0), Sense::hover());
            let width = rect.width() * class.objects as f32 / most as f32;
            ui.painter().rect_filled(Rect::from_min_size(rect.min, vec2(width, rect.height())), 1.0, color);
            ui.label(class.images.to_string());
            ui.label(class.median_side.map_or("—".to_owned(), |side| format!("{side:.0}")));
            ui.end_row();
        }
    });
    if statistics.classes.len() > LISTED {
        ui.weak(format!("and {} classes more", statistics.classes.len() - LISTED));
    }
}

/// A histogram; what a bar holds is said under the pointer.
fn bars(ui: &mut Ui, title: &str, meaning: &str, distribution: &Distribution) {
    ui.separator();
    let mean = distribution.mean.map_or(String::new(), |mean| format!(", mean {}", number(mean)));
    ui.label(RichText::new(title).strong()).on_hover_text(meaning);
    ui.weak(format!("{} in all{mean}", distribution.count));
    let bins: &[Bin] = &distribution.histogram;
    let (Some(first), Some(last)) = (bins.first(), bins.last()) else { return };
    let width = ui.available_width().clamp(80.0, 420.0);
    let (rect, response) = ui.allocate_exact_size(vec2(width, BARS), Sense::hover());
    name_picture(&response, &format!("Histogram: {title}, from {} to {}", number(first.low), number(last.high)));
    let painter = ui.painter_at(rect);
    painter.rect_filled(rect, 2.0, ui.visuals().extreme_bg_color);
    let highest = bins.iter().map(|bin| bin.count).max().unwrap_or(0).max(1) as f32;
    let step = rect.width() / bins.len() as f32;
    for (index, bin) in bins.iter().enumerate() {
        let left = rect.min.x + index as f32 * step;
        let top = rect.max.y - bin.count as f32 / highest * (rect.height() - 2.0);
        let bar = Rect::from_min_max(pos2(left + 0.5, top), pos2(left + step - 0.5, rect.max.y));
        painter.rect_filled(bar, 0.0, ui.visuals().selection.bg_fill);
    }
    ui.weak(format!("{} to {}", number(first.low), number(last.high)));
    if let Some(pointer) = response.hover_pos() {
        let index = (((pointer.x - rect.min.x) / step).max(0.0) as usize).min(bins.len() - 1);
        if let Some(bin) = bins.get(index) {
            let text = format!("{} from {} to {}", bin.count, number(bin.low), number(bin.high));
            response.on_hover_text_at_pointer(text);
        }
    }
}

/// Where the centres of boxes lie in the picture.
fn positions(ui: &mut Ui, statistics: &Statistics) {
    let map = &statistics.positions;
    let most = map.counts.iter().copied().max().unwrap_or(0);
    if map.rows == 0 || map.columns == 0 || most == 0 {
        return;
    }
    ui.separator();
    ui.label(RichText::new("Where objects lie").strong()).on_hover_text("Centres of boxes over equal cells");
    let side = ui.available_width().clamp(80.0, 240.0);
    let (rect, response) = ui.allocate_exact_size(vec2(side, side), Sense::hover());
    name_picture(&response, &format!("Map of where the centres of objects lie, up to {most} a cell"));
    let painter = ui.painter_at(rect);
    let size = vec2(side / map.columns as f32, side / map.rows as f32);
    for (place, count) in map.counts.iter().enumerate() {
        let (row, column) = (place / map.columns, place % map.columns);
        let [r, g, b] = ColorMap::Viridis.rgb(*count as f32 / most as f32);
        let corner = rect.min + vec2(column as f32 * size.x, row as f32 * size.y);
        painter.rect_filled(Rect::from_min_size(corner, size), 0.0, Color32::from_rgb(r, g, b));
    }
    ui.weak(format!("0 to {most} objects a cell"));
    if let Some(pointer) = response.hover_pos() {
        let at = (pointer - rect.min) / size;
        let row = (at.y.max(0.0) as usize).min(map.rows - 1);
        let column = (at.x.max(0.0) as usize).min(map.columns - 1);
        let count = map.counts.get(row * map.columns + column).copied().unwrap_or(0);
        response.on_hover_text_at_pointer(format!("{count} objects"));
    }
}

fn number(value: f32) -> String {
    if value == 0.0 || value.abs() >= 10.0 { format!("{value:.0}") } else { format!("{value:.3}") }
}
