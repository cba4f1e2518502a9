//! Figures as PNG: pictures and plots drawn by the renderers off screen, text and cells on the CPU.

use super::figure::{Chart, Drawing, Still};
use super::raster::{self, TITLE, label_still, put_title};
use crate::imaging::draw::{class_color, draw_text, encode_png};
use crate::imaging::picture::Picture;
use crate::render::{
    BarDraw, BarInput, BarLook, Context, CurveDraw, CurveInput, CurveStyle, Gpu, PICTURE_FORMAT, Plot, Renderers,
    Scene, SceneDraw, Target, View, Viewport, render_to_rgba,
};

/// Pixels between pictures in a grid.
const GAP: u32 = 8;
/// Most pixels of one side of a grid; its pictures are made smaller to fit.
const MOST: u32 = 16_384;

pub(super) fn bytes(title: &str, drawing: &Drawing, size: (u32, u32)) -> Result<Vec<u8>, String> {
    let picture = match drawing {
        Drawing::Stills { stills, columns } => stills_picture(stills, *columns)?,
        Drawing::Charts { charts, columns } => charts_picture(size, *columns, charts)?,
        Drawing::Matrix(matrix) => raster::matrix(title, matrix),
        Drawing::Bars(bars) => raster::bars(title, bars),
    };
    encode_png(&picture).map_err(|e| e.to_string())
}

fn stills_picture(stills: &[Still], columns: usize) -> Result<Picture, String> {
    let context = Context::headless().map_err(|e| e.to_string())?;
    let gpu = &context.gpu;
    let renderers = Renderers::new(gpu, PICTURE_FORMAT).map_err(|e| e.to_string())?;
    if let [only] = stills {
        return still_picture(gpu, &renderers, only, only.extent());
    }
    let columns = columns.clamp(1, stills.len().max(1));
    let rows = stills.len().div_ceil(columns).max(1);
    let widest = stills.iter().map(|s| s.extent().0).max().unwrap_or(1);
    let highest = stills.iter().map(|s| s.extent().1).max().unwrap_or(1);
    let room = |count: usize, taken: u32| (MOST / count.max(1) as u32).saturating_sub(taken).max(1);
    let shrink = (f64::from(room(columns, GAP)) / f64::from(widest))
        .min(f64::from(room(rows, GAP + TITLE)) / f64::from(highest))
        .min(1.0);
    let fitted = |side: u32| ((f64::from(side) * shrink) as u32).max(1);
    let (cell_width, cell_height) = (fitted(widest) + GAP, fitted(highest) + GAP + TITLE);
    let mut sheet = Picture::new(cell_width * columns as u32, cell_height * rows as u32, [20, 20, 23]);
    for (index, still) in stills.iter().enumerate() {
        let (width, height) = still.extent();
        let drawn = still_picture(gpu, &renderers, still, (fitted(width), fitted(height)))?;
        let (left, top) = ((index % columns) as u32 * cell_width, (index / columns) as u32 * cell_height);
        put_title(&mut sheet, &still.title, left, top, cell_width);
        sheet.paste(&drawn, left + GAP / 2, top + TITLE);
    }
    Ok(sheet)
}

fn still_picture(gpu: &Gpu, renderers: &Renderers, still: &Still, size: (u32, u32)) -> Result<Picture, String> {
    let mut picture = scene_picture(gpu, renderers, &still.scene, still.space(), size)?;
    label_still(&mut picture, still);
    Ok(picture)
}

fn scene_picture(
    gpu: &Gpu,
    renderers: &Renderers,
    scene: &Scene,
    space: (u32, u32),
    (width, height): (u32, u32),
) -> Result<Picture, String> {
    let viewport = Viewport::new(0.0, 0.0, width as f32, height as f32);
    let view = View::fit([space.0 as f32, space.1 as f32], viewport);
    let mut draw = SceneDraw::new(renderers, gpu);
    draw.prepare(renderers, gpu, scene, &view, &Target::new(width, height)).map_err(|e| e.to_string())?;
    let rgba = render_to_rgba(gpu, width, height, [0.0, 0.0, 0.0, 1.0], |pass| draw.paint(renderers, pass))
        .map_err(|e| e.to_string())?;
    opaque(width, height, &rgba)
}

fn opaque(width: u32, height: u32, rgba: &[u8]) -> Result<Picture, String> {
    let rgb = rgba.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect();
    Picture::from_rgb(width, height, rgb).map_err(|e| e.to_string())
}

/// A chart on the graphics device. Each has its own buffers: all are prepared before any is painted.
struct Prepared {
    plot: Plot,
    curves: CurveDraw,
    bars: Option<BarDraw>,
}

/// Plots row by row in a grid of `columns`, with axes, titles and legends.
fn charts_picture((width, height): (u32, u32), columns: usize, charts: &[Chart]) -> Result<Picture, String> {
    let context = Context::headless().map_err(|e| e.to_string())?;
    let gpu = &context.gpu;
    let renderers = Renderers::new(gpu, PICTURE_FORMAT).map_err(|e| e.to_string())?;
    let target = Target::new(width, height);
    let columns = columns.max(1);
    let rows = charts.len().div_ceil(columns).max(1);
    let (cell_width, cell_height) = (width as f32 / columns as f32, height as f32 / rows as f32);
    let mut prepared = Vec::with_capacity(charts.len());
    for (index, chart) in charts.iter().enumerate() {
        let (left, top) = ((index % columns) as f32 * cell_width, (index / columns) as f32 * cell_height);
        let area = Viewport::new(left + 70.0, top + 20.0, cell_width - 90.0, cell_height - 60.0);
        let plot = Plot { area, x_range: chart.x_range, y_range: [0.0, chart.top], log_y: false };
        prepared.push(prepare(&renderers, gpu, chart, plot, &target)?);
    }
    let rgba = render_to_rgba(gpu, width, height, [0.08, 0.08, 0.09, 1.0], |pass| {
        for chart in &prepared {
            if let Some(bars) = &chart.bars {
                bars.paint(&renderers.bars, pass);
            }
            chart.curves.paint(&renderers.curves, pass);
        }
    })
    .map_err(|e| e.to_string())?;
    let mut picture = opaque(width, height, &rgba)?;
    for (chart, prepared) in charts.iter().zip(&prepared) {
        label(&mut picture, chart, &prepared.plot);
    }
    Ok(picture)
}

fn prepare(renderers: &Renderers, gpu: &Gpu, chart: &Chart, plot: Plot, target: &Target) -> Result<Prepared, String> {
    let mut curves = CurveDraw::new(&renderers.curves, gpu);
    let lines: Vec<&[[f32; 2]]> = chart.series.iter().map(|(_, points)| points.as_slice()).collect();
    let color = |index: usize| {
        let [r, g, b] = class_color(index as u32 + 3).map(|c| f32::from(c) / 255.0);
        [r, g, b, 1.0]
    };
    let styles: Vec<CurveStyle> =
        (0..lines.len()).map(|index| CurveStyle { color: color(index), width: 1.5, dash: [0.0; 2] }).collect();
    let input = CurveInput { version: 1, series: &lines };
    curves.prepare(gpu, &input, &styles, &plot, target).map_err(|e| e.to_string())?;
    let bars = match &chart.bars {
        Some((heights, thresholds)) => {
            let [first, last] = chart.x_range;
            let look = BarLook {
                first_edge: first,
                bin_width: (last - first) / heights.len().max(1) as f32,
                thresholds: thresholds.clone(),
                ..BarLook::default()
            };
            let mut draw = BarDraw::new(&renderers.bars, gpu);
            let input = BarInput { version: 1, heights };
            draw.prepare(gpu, &input, &look, &plot, target).map_err(|e| e.to_string())?;
            Some(draw)
        }
        None => None,
    };
    Ok(Prepared { plot, curves, bars })
}

/// Numbers along both axes, what the axes are, the title and the names of the curves.
fn label(picture: &mut Picture, chart: &Chart, plot: &Plot) {
    let gray = [200, 200, 200];
    let [first, last] = chart.x_range;
    let (left, top) = (plot.area.x as i64, plot.area.y as i64);
    let (right, bottom) = ((plot.area.x + plot.area.width) as i64, (plot.area.y + plot.area.height) as i64);
    for step in 0..=4 {
        let share = step as f32 / 4.0;
        let x = first + share * (last - first);
        let [px, _] = plot.screen_from_value([x, 0.0]);
        draw_text(picture, &raster::number(x), (px as i64 - 12, bottom + 8), gray, 1);
        let [_, py] = plot.screen_from_value([first, share * chart.top]);
        draw_text(picture, &raster::number(share * chart.top), (left - 62, py as i64 - 4), gray, 1);
    }
    draw_text(picture, &chart.title, (left, top - 14), gray, 1);
    draw_text(picture, &chart.x_label, ((left + right) / 2 - 3 * chart.x_label.len() as i64, bottom + 22), gray, 1);
    draw_text(picture, &chart.y_label, (left + 4, top + 6), gray, 1);
    let below = if chart.y_label.is_empty() { 6 } else { 20 };
    for (index, (name, _)) in chart.series.iter().enumerate() {
        let tint = class_color(index as u32 + 3);
        draw_text(picture, name, (left + 20, top + below + 12 * index as i64), tint, 1);
    }
}
