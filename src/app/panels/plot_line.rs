//! Lines of plots that the curve shader draws; axes, grid, zoom, hover and clicks stay the plot's own.

use crate::app::bridge::{CurvePicture, Shaders, paint_curve};
use crate::render::CurveStyle;
use egui::{Color32, Pos2, Shape, Ui};
use egui_plot::{
    ClosestElem, Line, LineStyle, PlotBounds, PlotGeometry, PlotItem, PlotItemBase, PlotPoint, PlotTransform, PlotUi,
};
use std::hash::{DefaultHasher, Hasher};
use std::ops::RangeInclusive;

/// The ids of one plot's lines, in the order in which they are added.
pub(super) struct LineIds(u64);

impl LineIds {
    /// For lines of a plot alone: plots are a thousand lines apart.
    pub fn of_plot(plot: u64) -> Self {
        Self(plot * 1000)
    }

    fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

/// Adds a line, by the shader where there is one. A point that is no number leaves a gap.
pub(super) fn add_line<'a>(plot: &mut PlotUi<'a>, ids: &mut LineIds, line: Line<'a>, width: f32, style: LineStyle) {
    let line = line.width(width).style(style);
    let PlotGeometry::Points(points) = line.geometry() else { return };
    if !points.iter().any(is_number) {
        return;
    }
    if Shaders::of(plot.ctx()).curves {
        plot.add(ShadedLine { line, id: ids.next(), width, style });
    } else if points.iter().all(is_number) {
        plot.line(line);
    } else {
        for piece in pieces(points) {
            let piece = Line::new(PlotItem::name(&line), piece).color(PlotItem::color(&line));
            plot.line(piece.width(width).style(style));
        }
    }
}

fn is_number(point: &PlotPoint) -> bool {
    point.x.is_finite() && point.y.is_finite()
}

/// What lies between the gaps.
fn pieces(points: &[PlotPoint]) -> Vec<Vec<[f64; 2]>> {
    let between = points.split(|point| !is_number(point)).filter(|piece| !piece.is_empty());
    between.map(|piece| piece.iter().map(|point| [point.x, point.y]).collect()).collect()
}

/// A line of a plot whose picture is the shader's.
struct ShadedLine<'a> {
    line: Line<'a>,
    id: u64,
    width: f32,
    style: LineStyle,
}

impl PlotItem for ShadedLine<'_> {
    fn shapes(&self, ui: &Ui, transform: &PlotTransform, shapes: &mut Vec<Shape>) {
        let PlotGeometry::Points(points) = self.line.geometry() else { return };
        let Some(first) = points.iter().find(|point| is_number(point)) else { return };
        // 32 bits hold few digits of numbers far from zero: all are told from the first number on.
        let points: Vec<[f32; 2]> = points.iter().map(|p| [(p.x - first.x) as f32, (p.y - first.y) as f32]).collect();
        let (low, high) = (transform.bounds().min(), transform.bounds().max());
        let width = if self.highlighted() { 2.0 * self.width } else { self.width };
        let picture = CurvePicture {
            version: fingerprint(&points),
            points,
            style: curve_style(self.color(), width, self.style),
            x_range: [low[0], high[0]].map(|x| (x - first.x) as f32),
            y_range: [low[1], high[1]].map(|y| (y - first.y) as f32),
        };
        shapes.push(paint_curve(*transform.frame(), ui.clip_rect(), self.id, picture));
    }

    fn initialize(&mut self, x_range: RangeInclusive<f64>) {
        self.line.initialize(x_range);
    }

    fn color(&self) -> Color32 {
        PlotItem::color(&self.line)
    }

    fn geometry(&self) -> PlotGeometry<'_> {
        self.line.geometry()
    }

    fn bounds(&self) -> PlotBounds {
        self.line.bounds()
    }

    fn base(&self) -> &PlotItemBase {
        self.line.base()
    }

    fn base_mut(&mut self) -> &mut PlotItemBase {
        self.line.base_mut()
    }

    fn find_closest(&self, point: Pos2, transform: &PlotTransform) -> Option<ClosestElem> {
        self.line.find_closest(point, transform)
    }
}

/// The plot's style in the shader's terms; lengths in points.
fn curve_style(color: Color32, width: f32, style: LineStyle) -> CurveStyle {
    let color = color.to_srgba_unmultiplied().map(|part| f32::from(part) / 255.0);
    let dash = match style {
        LineStyle::Solid => [0.0; 2],
        LineStyle::Dashed { length } => [length, 0.6 * length],
        LineStyle::Dotted { spacing } => [width, (spacing - width).max(1.0)],
    };
    CurveStyle { color, width, dash }
}

/// The same for the same points: they are sent to the device when it changes.
fn fingerprint(points: &[[f32; 2]]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytemuck::cast_slice(points));
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use egui_kittest::Harness;
    use egui_plot::{Plot, PlotPoints};

    /// Callbacks for the device among what a plot of two lines that begin with a gap paints, and whether its bounds hold
    /// the lines.
    fn callbacks(shaders: Shaders) -> (usize, bool) {
        let mut holds = false;
        let count = {
            let mut harness = Harness::new_ui(|ui| {
                shaders.tell(ui.ctx());
                let answer = Plot::new("two").show(ui, |plot| {
                    let mut ids = LineIds::of_plot(9);
                    for top in [1.0, 2.0] {
                        let points = vec![[1e6, f64::NAN], [1e6, 0.0], [1e6 + 10.0, top]];
                        let line = Line::new("line", PlotPoints::from(points));
                        add_line(plot, &mut ids, line.color(Color32::RED), 1.5, LineStyle::Solid);
                    }
                });
                let bounds = answer.transform.bounds();
                holds = bounds.min()[0] <= 1e6 && bounds.max()[0] >= 1e6 + 10.0 && bounds.max()[1] >= 2.0;
            });
            harness.run_steps(3);
            let shapes = &harness.output().shapes;
            shapes.iter().filter(|clipped| matches!(clipped.shape, Shape::Callback(_))).count()
        };
        (count, holds)
    }

    #[test]
    fn lines_are_the_shaders_where_there_is_one_and_bound_the_plot_either_way() {
        assert_eq!(callbacks(Shaders { curves: true, ..Shaders::default() }), (2, true));
        assert_eq!(callbacks(Shaders::default()), (0, true));
    }

    #[test]
    fn a_line_is_cut_where_a_point_is_no_number() {
        let nan = f64::NAN;
        let points = [[0.0, nan], [1.0, 2.0], [2.0, 3.0], [3.0, nan], [4.0, f64::INFINITY], [5.0, 6.0]];
        let cut = pieces(&points.map(PlotPoint::from));
        assert_eq!(cut, [vec![[1.0, 2.0], [2.0, 3.0]], vec![[5.0, 6.0]]]);
        assert!(pieces(&[PlotPoint::new(0.0, nan)]).is_empty());
    }

    #[test]
    fn styles_keep_colour_and_pattern() {
        let half = Color32::from_rgb(255, 0, 0).gamma_multiply(0.5);
        let style = curve_style(half, 2.0, LineStyle::Dashed { length: 10.0 });
        assert!((style.color[0] - 1.0).abs() < 0.02 && (style.color[3] - 0.5).abs() < 0.02, "{style:?}");
        assert_eq!(style.dash, [10.0, 6.0]);
        assert_eq!(curve_style(half, 2.0, LineStyle::Solid).dash, [0.0; 2]);
        assert_eq!(curve_style(half, 2.0, LineStyle::Dotted { spacing: 5.0 }).dash, [2.0, 3.0]);
    }

    #[test]
    fn equal_points_are_sent_once() {
        assert_eq!(fingerprint(&[[1.0, 2.0]]), fingerprint(&[[1.0, 2.0]]));
        assert_ne!(fingerprint(&[[1.0, 2.0]]), fingerprint(&[[1.0, 2.5]]));
    }
}
