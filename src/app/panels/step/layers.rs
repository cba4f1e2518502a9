//! What an update did to each layer: norms, ratio of update to weight, dead units, histograms.

use crate::app::panels::name_picture;
use crate::train::LayerReport;
use crate::train::layers::Spread;
use egui::{Color32, ComboBox, Grid, Rect, ScrollArea, Sense, Ui, pos2, vec2};

/// Healthy updates are about a thousandth of the weights; these are ten times more and less.
const LARGE: f64 = 1e-2;
const SMALL: f64 = 1e-4;

/// By what the table is sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// As the network has them.
    #[default]
    Network,
    Gradient,
    Ratio,
    Dead,
}

impl Order {
    const ALL: [Self; 4] = [Self::Network, Self::Gradient, Self::Ratio, Self::Dead];

    fn name(self) -> &'static str {
        match self {
            Self::Network => "network order",
            Self::Gradient => "gradient norm",
            Self::Ratio => "update ratio",
            Self::Dead => "dead units",
        }
    }
}

/// The rows in an order, the largest first.
fn sorted(layers: &[LayerReport], order: Order) -> Vec<&LayerReport> {
    let mut rows: Vec<&LayerReport> = layers.iter().collect();
    let dead = |layer: &LayerReport| layer.dead as f64 / layer.units.max(1) as f64;
    match order {
        Order::Network => {}
        Order::Gradient => rows.sort_by(|a, b| b.gradient_norm.total_cmp(&a.gradient_norm)),
        Order::Ratio => rows.sort_by(|a, b| b.update_ratio.total_cmp(&a.update_ratio)),
        Order::Dead => rows.sort_by(|a, b| dead(b).total_cmp(&dead(a))),
    }
    rows
}

/// The table.
pub fn ui(ui: &mut Ui, layers: &[LayerReport], order: &mut Order) {
    ui.horizontal(|ui| {
        ui.label("By");
        let choice = ComboBox::from_id_salt("order of layers").selected_text(order.name()).show_ui(ui, |ui| {
            for other in Order::ALL {
                ui.selectable_value(order, other, other.name());
            }
        });
        choice.response.on_hover_text("What the layers are sorted by");
    });
    ScrollArea::both().id_salt("layers").max_height(260.0).show(ui, |ui| {
        Grid::new("layers").num_columns(7).striped(true).show(ui, |ui| {
            for (title, help) in [
                ("layer", "Trained parameter"),
                ("‖w‖", "L2 norm before the update"),
                ("‖g‖", "L2 norm of the gradient, before clipping"),
                ("‖Δw‖/‖w‖", "About 0.001 is healthy"),
                ("dead", "Units whose gradient is exactly 0 everywhere, of all"),
                ("w", "Histogram of the weights"),
                ("g", "Histogram of the gradients"),
            ] {
                ui.weak(title).on_hover_text(help);
            }
            ui.end_row();
            for layer in sorted(layers, *order) {
                ui.monospace(&layer.name);
                ui.label(format!("{:.3}", layer.weight_norm));
                ui.label(format!("{:.3e}", layer.gradient_norm));
                let ratio = format!("{:.1e}", layer.update_ratio);
                if (SMALL..=LARGE).contains(&layer.update_ratio) {
                    ui.label(ratio);
                } else {
                    ui.colored_label(ui.visuals().warn_fg_color, ratio);
                }
                let dead = format!("{} of {}", layer.dead, layer.units);
                if layer.dead == 0 {
                    ui.label(dead)
                } else {
                    ui.colored_label(ui.visuals().warn_fg_color, dead)
                };
                histogram(ui, &layer.weights);
                histogram(ui, &layer.gradients);
                ui.end_row();
            }
        });
    });
}

/// A small bar chart with its range as a tooltip.
fn histogram(ui: &mut Ui, spread: &Spread) {
    let (rect, response) = ui.allocate_exact_size(vec2(64.0, 16.0), Sense::hover());
    name_picture(&response, &format!("Histogram from {:.3e} to {:.3e}", spread.low, spread.high));
    let most = spread.counts.iter().copied().max().unwrap_or(0).max(1) as f32;
    let width = rect.width() / spread.counts.len().max(1) as f32;
    let painter = ui.painter_at(rect);
    let color: Color32 = ui.visuals().text_color();
    for (bin, count) in spread.counts.iter().enumerate() {
        let height = rect.height() * *count as f32 / most;
        let left = rect.min.x + bin as f32 * width;
        let bar = Rect::from_min_max(pos2(left, rect.max.y - height), pos2(left + width, rect.max.y));
        painter.rect_filled(bar, 0.0, color);
    }
    response.on_hover_text(format!("{:.3e} to {:.3e}", spread.low, spread.high));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_come_first_and_no_number_breaks_the_order() {
        let layer = |name: &str, ratio, dead| LayerReport {
            name: name.into(),
            update_ratio: ratio,
            units: 4,
            dead,
            ..LayerReport::default()
        };
        let layers = [layer("a", 0.1, 0), layer("b", f64::NAN, 3), layer("c", 0.5, 1)];
        let names = |order| sorted(&layers, order).iter().map(|l| l.name.as_str()).collect::<Vec<_>>();
        assert_eq!(names(Order::Network), ["a", "b", "c"]);
        assert_eq!(names(Order::Ratio), ["b", "c", "a"]);
        assert_eq!(names(Order::Dead), ["b", "c", "a"]);
    }
}
