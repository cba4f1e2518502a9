//! Views as files, drawn without a window by the same code.

use crate::imaging::draw::{class_color, draw_text, save_png};
use crate::imaging::picture::Picture;
use crate::render::{
    BarDraw, BarInput, BarLook, Context, CurveDraw, CurveInput, CurveStyle, PICTURE_FORMAT, Plot, Renderers, Scene,
    SceneDraw, Target, Threshold, View, Viewport, render_to_rgba,
};
use crate::stats::quantile;
use std::collections::BTreeMap;
use std::path::Path;

/// Draws `scene` at the picture's own size.
///
/// # Errors
/// No graphics adapter, a picture above its limits, or a file that cannot be written.
pub fn scene_to_png(scene: &Scene, path: &Path) -> Result<(), String> {
    let (width, height) = (scene.width, scene.height);
    let context = Context::headless().map_err(|e| e.to_string())?;
    let gpu = &context.gpu;
    let renderers = Renderers::new(gpu, PICTURE_FORMAT).map_err(|e| e.to_string())?;
    let view = View::fit([width as f32, height as f32], Viewport::new(0.0, 0.0, width as f32, height as f32));
    let mut draw = SceneDraw::new(&renderers, gpu);
    draw.prepare(&renderers, gpu, scene, &view, &Target::new(width, height)).map_err(|e| e.to_string())?;
    let rgba = render_to_rgba(gpu, width, height, [0.0, 0.0, 0.0, 1.0], |pass| draw.paint(&renderers, pass))
        .map_err(|e| e.to_string())?;
    let rgb = rgba.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect();
    let picture = Picture::from_rgb(width, height, rgb).map_err(|e| e.to_string())?;
    save_png(&picture, path).map_err(|e| e.to_string())
}

/// Draws curves by name, or bars over `[0, 1]` with a threshold line, with axes and a legend.
///
/// # Errors
/// No graphics adapter, nothing to draw, or a file that cannot be written.
pub fn plot_to_png(
    (width, height): (u32, u32),
    series: &BTreeMap<String, Vec<[f32; 2]>>,
    bars: Option<(&[f32], f32)>,
    path: &Path,
) -> Result<(), String> {
    let context = Context::headless().map_err(|e| e.to_string())?;
    let gpu = &context.gpu;
    let renderers = Renderers::new(gpu, PICTURE_FORMAT).map_err(|e| e.to_string())?;
    let target = Target::new(width, height);
    let points = || series.values().flatten().filter(|p| p.iter().all(|v| v.is_finite()));
    let (x_range, top) = match bars {
        Some((heights, _)) => ([0.0, 1.0], heights.iter().copied().fold(0.0, f32::max)),
        None => {
            let first = points().map(|p| p[0]).fold(f32::INFINITY, f32::min);
            let last = points().map(|p| p[0]).fold(f32::NEG_INFINITY, f32::max);
            // A run that started high would flatten the rest: the axis ends at the 98th percentile.
            let mut values: Vec<f32> = points().map(|p| p[1]).collect();
            ([first, last.max(first + 1.0)], quantile(&mut values, 0.98).unwrap_or(1.0))
        }
    };
    let top = if top > 0.0 { top * 1.05 } else { 1.0 };
    let area = Viewport::new(70.0, 20.0, width as f32 - 90.0, height as f32 - 60.0);
    let plot = Plot { area, x_range, y_range: [0.0, top], log_y: false };
    let mut curves = CurveDraw::new(&renderers.curves, gpu);
    let lines: Vec<&[[f32; 2]]> = series.values().map(Vec::as_slice).collect();
    let color = |index: usize| {
        let [r, g, b] = class_color(index as u32 + 3).map(|c| f32::from(c) / 255.0);
        [r, g, b, 1.0]
    };
    let styles: Vec<CurveStyle> =
        (0..lines.len()).map(|index| CurveStyle { color: color(index), width: 1.5 }).collect();
    let input = CurveInput { version: 1, series: &lines };
    curves.prepare(gpu, &input, &styles, &plot, &target).map_err(|e| e.to_string())?;
    let mut bar_draw = BarDraw::new(&renderers.bars, gpu);
    if let Some((heights, threshold)) = bars {
        let look = BarLook {
            bin_width: 1.0 / heights.len().max(1) as f32,
            thresholds: vec![Threshold { value: threshold, color: [0.835, 0.369, 0.0, 1.0] }],
            ..BarLook::default()
        };
        let input = BarInput { version: 1, heights };
        bar_draw.prepare(gpu, &input, &look, &plot, &target).map_err(|e| e.to_string())?;
    }
    let rgba = render_to_rgba(gpu, width, height, [0.08, 0.08, 0.09, 1.0], |pass| {
        if bars.is_some() {
            bar_draw.paint(&renderers.bars, pass);
        }
        curves.paint(&renderers.curves, pass);
    })
    .map_err(|e| e.to_string())?;
    let rgb = rgba.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect();
    let mut picture = Picture::from_rgb(width, height, rgb).map_err(|e| e.to_string())?;
    let gray = [200, 200, 200];
    for step in 0..=4 {
        let share = step as f32 / 4.0;
        let x = x_range[0] + share * (x_range[1] - x_range[0]);
        let [px, _] = plot.screen_from_value([x, 0.0]);
        draw_text(&mut picture, &number(x), (px as i64 - 12, i64::from(height) - 32), gray, 1);
        let [_, py] = plot.screen_from_value([0.0, share * top]);
        draw_text(&mut picture, &number(share * top), (8, py as i64 - 4), gray, 1);
    }
    for (index, name) in series.keys().enumerate() {
        let tint = class_color(index as u32 + 3);
        draw_text(&mut picture, name, (90, 26 + 12 * index as i64), tint, 1);
    }
    save_png(&picture, path).map_err(|e| e.to_string())
}

fn number(value: f32) -> String {
    if value == 0.0 || value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}
