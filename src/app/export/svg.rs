//! Figures as SVG: boxes, curves and text stay shapes and text; the picture lies inside as a PNG.

use super::figure::{Chart, Drawing, Still};
use super::raster::number;
use crate::app::outcome::bytes;
use crate::eval::report::pictures::base64;
use crate::eval::report::{escape, plot};
use crate::imaging::draw::{class_color, encode_png};
use crate::imaging::picture::Picture;
use crate::render::{BoxInstance, BoxLayer, HeatLayer, Scene};
use std::fmt::Write;

/// Boxes of one picture at most: a drawing program gives up long before a million of them. More are counted in words.
const MOST_BOXES: usize = 20_000;
/// Pixels between pictures, and above one with its title.
const GAP: u32 = 8;
const TITLE: u32 = 20;
/// Room around a plot: left, top, right, bottom.
const MARGIN: [f64; 4] = [64.0, 28.0, 16.0, 44.0];

pub(super) fn text(title: &str, drawing: &Drawing, size: (u32, u32)) -> Result<String, String> {
    match drawing {
        Drawing::Stills { stills, columns } => sheet(title, stills, *columns),
        Drawing::Charts { charts, columns } => Ok(plots(title, charts, *columns, size)),
        Drawing::Matrix(m) => Ok(plot::matrix(title, &m.names, &m.counts, &m.shares)),
        Drawing::Bars(bars) => {
            let items: Vec<(String, f64, String)> =
                bars.iter().map(|bar| (bar.name.clone(), bar.length, bar.words.clone())).collect();
            Ok(plot::bars(title, &items))
        }
    }
}

/// The beginning of a drawing of so many pixels.
pub(super) fn open(title: &str, width: u32, height: u32) -> String {
    let title = escape(title);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\" role=\"img\"><title>{title}</title>\n"
    )
}

// Writing to a String cannot fail, so the results of write! are dropped in this file.

// ---- pictures ----

fn sheet(title: &str, stills: &[Still], columns: usize) -> Result<String, String> {
    let columns = columns.clamp(1, stills.len().max(1));
    let rows = stills.len().div_ceil(columns).max(1) as u32;
    let widest = stills.iter().map(|s| s.extent().0).max().unwrap_or(1);
    let highest = stills.iter().map(|s| s.extent().1).max().unwrap_or(1);
    let several = stills.len() > 1;
    let (gap, above) = if several { (GAP, TITLE) } else { (0, 0) };
    let (cell_width, cell_height) = (widest.saturating_add(gap), highest.saturating_add(gap + above));
    let mut svg = open(title, cell_width.saturating_mul(columns as u32), cell_height.saturating_mul(rows));
    for (index, still) in stills.iter().enumerate() {
        let (left, top) = ((index % columns) as u32 * cell_width, (index / columns) as u32 * cell_height);
        if several {
            let (x, y) = (left + 4, top + 15);
            _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\">{}</text>", escape(&still.title));
        }
        put_still(&mut svg, still, left, top + above)?;
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

fn put_still(svg: &mut String, still: &Still, left: u32, top: u32) -> Result<(), String> {
    let scene = &still.scene;
    let (width, height) = still.extent();
    let space = still.space();
    let picture = flattened(scene, space)?;
    let png = base64(&encode_png(&picture).map_err(|e| e.to_string())?);
    // Cells of a map that is enlarged stay squares.
    let squares = if space.0 < width { " style=\"image-rendering:pixelated\"" } else { "" };
    _ = writeln!(
        svg,
        "<svg x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {0} {1}\" \
         preserveAspectRatio=\"xMidYMid meet\">\
         <image href=\"data:image/png;base64,{png}\" width=\"{0}\" height=\"{1}\"{squares}/>",
        space.0, space.1
    );
    let mut left_over = 0;
    let mut drawn = 0;
    for layer in &scene.boxes {
        // Insides alone are parts of masks: those of one mask share a number and are one shape.
        if layer.look.line_width == 0.0 {
            let masks = layer.boxes.chunk_by(|a, b| a.level == b.level);
            masks.filter(|parts| layer.filter.shows(&parts[0])).for_each(|parts| put_mask(svg, layer, parts));
            continue;
        }
        let shown = layer.nearest().iter().enumerate().filter(|(_, b)| layer.filter.shows(b));
        for (index, instance) in shown {
            if drawn < MOST_BOXES {
                put_box(svg, layer, index, instance);
                drawn += 1;
            } else {
                left_over += 1;
            }
        }
    }
    if left_over > 0 {
        _ = writeln!(svg, "<desc>{left_over} more boxes are not drawn</desc>");
    }
    let letter = 12.0 * f64::from(space.0) / f64::from(width);
    for label in &still.labels {
        let [r, g, b] = label.color;
        _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" font-size=\"{letter:.2}\" fill=\"rgb({r},{g},{b})\" stroke=\"#000\" \
             stroke-width=\"{:.2}\" paint-order=\"stroke\">{}</text>",
            label.at[0],
            f64::from(label.at[1]).max(letter) - 0.2 * letter,
            0.2 * letter,
            escape(&label.text)
        );
    }
    svg.push_str("</svg>\n");
    Ok(())
}

fn put_mask(svg: &mut String, layer: &BoxLayer, parts: &[BoxInstance]) {
    let ([r, g, b], alpha) = color_of(layer, &parts[0]);
    let mut path = String::new();
    for BoxInstance { bbox: [x0, y0, x1, y1], .. } in parts {
        _ = write!(path, "M{x0} {y0}H{x1}V{y1}H{x0}z");
    }
    let opacity = alpha * layer.look.fill_opacity;
    _ = writeln!(svg, "<path d=\"{path}\" fill=\"rgb({r},{g},{b})\" fill-opacity=\"{opacity:.2}\"/>");
}

/// Red, green and blue of a box, and its opacity.
fn color_of(layer: &BoxLayer, instance: &BoxInstance) -> ([u8; 3], f32) {
    let color = layer.style.color(layer.look.color, instance);
    (bytes(color), color[3] * layer.look.opacity)
}

fn put_box(svg: &mut String, layer: &BoxLayer, index: usize, instance: &BoxInstance) {
    let [x0, y0, x1, y1] = instance.bbox;
    if !instance.bbox.iter().all(|v| v.is_finite()) {
        return;
    }
    let ([r, g, b], alpha) = color_of(layer, instance);
    let marked = [layer.look.selected, layer.look.hovered].contains(&u32::try_from(index).ok());
    let width = if marked { 2.0 * layer.look.line_width } else { layer.look.line_width };
    let dashes = match style_of(instance) {
        Line::Solid => "",
        Line::Dashed => " stroke-dasharray=\"6 4\"",
        Line::Dotted => " stroke-dasharray=\"1.5 3\"",
        Line::Hatched => " stroke-dasharray=\"8 3 2 3\"",
    };
    let fill = if layer.look.fill_opacity > 0.0 {
        format!("rgb({r},{g},{b})\" fill-opacity=\"{:.2}", layer.look.fill_opacity)
    } else {
        "none".to_owned()
    };
    _ = writeln!(
        svg,
        "<rect x=\"{:.2}\" y=\"{:.2}\" width=\"{:.2}\" height=\"{:.2}\" fill=\"{fill}\" stroke=\"rgb({r},{g},{b})\" \
         stroke-width=\"{width}\" stroke-opacity=\"{:.2}\" vector-effect=\"non-scaling-stroke\"{dashes}/>",
        x0.min(x1),
        y0.min(y1),
        (x1 - x0).abs(),
        (y1 - y0).abs(),
        alpha
    );
}

enum Line {
    Solid,
    Dashed,
    Dotted,
    Hatched,
}

/// The rules of `shaders/boxes.wgsl`: bits 6–8 are the style, and by outcome missed objects are dashed, duplicates
/// dotted, ignored ones hatched.
fn style_of(instance: &BoxInstance) -> Line {
    match ((instance.flags >> 6) & 0b111, instance.flags & 0b111) {
        (2, _) | (0, 3) => Line::Dashed,
        (3, _) | (0, 4) => Line::Dotted,
        (4, _) | (0, 5) => Line::Hatched,
        _ => Line::Solid,
    }
}

/// The pixels with the heat map blended in, cell by cell. `space` is the still's.
fn flattened(scene: &Scene, space: (u32, u32)) -> Result<Picture, String> {
    let rgb = scene.pixels.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect();
    let mut picture = Picture::from_rgb(scene.width, scene.height, rgb).map_err(|e| e.to_string())?;
    let Some(heat) = &scene.heat else { return Ok(picture) };
    if space != (scene.width, scene.height) {
        picture = Picture::new(space.0, space.1, picture.pixel(0, 0));
    }
    for y in 0..space.1 {
        for x in 0..space.0 {
            let Some(([r, g, b], alpha)) = heat_at(heat, [x as f32 + 0.5, y as f32 + 0.5]) else { continue };
            let below = picture.pixel(x, y);
            let blend = |over: f32, under: u8| (255.0 * over * alpha + f32::from(under) * (1.0 - alpha)).round() as u8;
            picture.set_pixel(x, y, [blend(r, below[0]), blend(g, below[1]), blend(b, below[2])]);
        }
    }
    Ok(picture)
}

/// Colour and opacity of a map at a point of the picture, as `shaders/heatmap.wgsl` has them without blending between
/// cells; nothing outside, and where there is no number.
fn heat_at(heat: &HeatLayer, [x, y]: [f32; 2]) -> Option<([f32; 3], f32)> {
    let look = &heat.look;
    let [x0, y0, x1, y1] = look.bounds;
    let across = (x - x0) / (x1 - x0) * heat.width as f32;
    let down = (y - y0) / (y1 - y0) * heat.height as f32;
    if !(across >= 0.0 && down >= 0.0 && across < heat.width as f32 && down < heat.height as f32) {
        return None;
    }
    let value = *heat.values.get(down as usize * heat.width as usize + across as usize)?;
    if !value.is_finite() {
        return None;
    }
    let span = look.high - look.low;
    let t = if span.abs() > 1e-30 { ((value - look.low) / span).clamp(0.0, 1.0) } else { 0.5 };
    Some((look.color_map.color(t), (look.opacity * (1.0 + (t - 1.0) * look.fade)).clamp(0.0, 1.0)))
}

// ---- plots ----

fn plots(title: &str, charts: &[Chart], columns: usize, (width, height): (u32, u32)) -> String {
    let columns = columns.max(1);
    let rows = charts.len().div_ceil(columns).max(1);
    let cell = [f64::from(width) / columns as f64, f64::from(height) / rows as f64];
    let mut svg = open(title, width, height);
    _ = writeln!(svg, "<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>");
    for (index, chart) in charts.iter().enumerate() {
        let corner = [(index % columns) as f64 * cell[0], (index / columns) as f64 * cell[1]];
        put_chart(&mut svg, chart, corner, cell);
    }
    svg.push_str("</svg>\n");
    svg
}

fn put_chart(svg: &mut String, chart: &Chart, [left, top]: [f64; 2], [cell_width, cell_height]: [f64; 2]) {
    let (x0, y0) = (left + MARGIN[0], top + MARGIN[1]);
    let width = (cell_width - MARGIN[0] - MARGIN[2]).max(16.0);
    let height = (cell_height - MARGIN[1] - MARGIN[3]).max(16.0);
    let [first, last] = chart.x_range.map(f64::from);
    let across = |value: f64| (value - first) / (last - first).max(1e-30) * width;
    let up = |value: f64| height - value / f64::from(chart.top).max(1e-30) * height;
    let label = |svg: &mut String, x: f64, y: f64, anchor: &str, text: &str| {
        _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escape(text));
    };
    label(svg, x0, top + 18.0, "start", &chart.title);
    for step in 0..=4 {
        let share = f64::from(step) / 4.0;
        let (x, y) = (x0 + share * width, y0 + (1.0 - share) * height);
        _ = writeln!(
            svg,
            "<path d=\"M{x:.1} {y0:.1}v{height:.1}M{x0:.1} {y:.1}h{width:.1}\" stroke=\"#ddd\" fill=\"none\"/>"
        );
        label(svg, x, y0 + height + 16.0, "middle", &number((first + share * (last - first)) as f32));
        label(svg, x0 - 6.0, y + 4.0, "end", &number(share as f32 * chart.top));
    }
    label(svg, x0 + width / 2.0, y0 + height + 34.0, "middle", &chart.x_label);
    if !chart.y_label.is_empty() {
        let (x, y) = (left + 14.0, y0 + height / 2.0);
        _ = writeln!(
            svg,
            "<text transform=\"translate({x:.1} {y:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            escape(&chart.y_label)
        );
    }
    // A drawing inside a drawing cuts off what runs out of the axes.
    _ = writeln!(svg, "<svg x=\"{x0:.1}\" y=\"{y0:.1}\" width=\"{width:.1}\" height=\"{height:.1}\">");
    if let Some((heights, thresholds)) = &chart.bars {
        let bar = width / heights.len().max(1) as f64;
        for (index, value) in heights.iter().enumerate().filter(|(_, value)| value.is_finite() && **value > 0.0) {
            let y = up(f64::from(*value)).max(0.0);
            _ = writeln!(
                svg,
                "<rect x=\"{:.2}\" y=\"{y:.2}\" width=\"{:.2}\" height=\"{:.2}\" fill=\"#5b7fa5\"/>",
                index as f64 * bar,
                (bar - 1.0).max(0.5),
                height - y
            );
        }
        for threshold in thresholds {
            let [r, g, b] = [0, 1, 2].map(|k| (255.0 * threshold.color[k].clamp(0.0, 1.0)).round() as u8);
            let x = across(f64::from(threshold.value));
            _ = writeln!(
                svg,
                "<path d=\"M{x:.2} 0V{height:.1}\" stroke=\"rgb({r},{g},{b})\" stroke-width=\"1.5\" fill=\"none\"/>"
            );
        }
    }
    for (index, (name, points)) in chart.series.iter().enumerate() {
        let mut path = String::new();
        let mut begins = true;
        for &[x, y] in points {
            if !(x.is_finite() && y.is_finite()) {
                begins = true;
                continue;
            }
            let (x, y) = (across(f64::from(x)), up(f64::from(y)).clamp(-1e4, 1e4));
            _ = write!(path, "{}{x:.2} {y:.2}", if begins { 'M' } else { 'L' });
            begins = false;
        }
        let [r, g, b] = class_color(index as u32 + 3);
        if !path.is_empty() {
            _ = writeln!(
                svg,
                "<path d=\"{path}\" fill=\"none\" stroke=\"rgb({r},{g},{b})\" stroke-width=\"1.5\"><title>{}</title></path>",
                escape(name)
            );
        }
        let y = 16.0 * (index as f64 + 1.0);
        _ = writeln!(
            svg,
            "<path d=\"M12 {:.1}h16\" stroke=\"rgb({r},{g},{b})\" stroke-width=\"2\"/><text x=\"34\" y=\"{y:.1}\">{}</text>",
            y - 4.0,
            escape(name)
        );
    }
    svg.push_str("</svg>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::{
        BoxColor, BoxFilter, BoxLook, BoxStyle, ColorMap, HeatmapLook, ImageLook, LineStyle, Outcome, Stages,
    };
    use std::sync::Arc;

    fn scene(boxes: Vec<BoxInstance>, filter: BoxFilter) -> Scene {
        let layer = BoxLayer {
            version: 1,
            boxes: Arc::new(boxes),
            style: Arc::new(BoxStyle::default()),
            filter,
            look: BoxLook::default(),
        };
        let pixels = Arc::new([10, 20, 30, 255].repeat(4 * 2));
        Scene { version: 1, width: 4, height: 2, pixels, look: ImageLook::default(), heat: None, boxes: vec![layer] }
    }

    #[test]
    fn boxes_that_are_filtered_out_are_not_drawn_and_styles_follow_the_flags() {
        let at = |score: f32| BoxInstance::new([0.0, 0.0, 2.0, 1.0], score, 0);
        let missed = at(0.9).with_outcome(Outcome::FalseNegative);
        let boxes = vec![at(0.9), at(0.1), missed, missed.with_style(LineStyle::Solid), at(f32::NAN)];
        let filter = BoxFilter { score_min: 0.5, ..BoxFilter::default() };
        let drawing = Drawing::Stills { stills: vec![Still::new("a", scene(boxes, filter))], columns: 1 };
        let svg = text("t", &drawing, (1, 1)).unwrap();
        assert_eq!(svg.matches("<rect ").count(), 3);
        assert_eq!(svg.matches("stroke-dasharray=\"6 4\"").count(), 1);
        assert!(svg.contains("viewBox=\"0 0 4 2\"") && svg.contains("data:image/png;base64,"));
    }

    #[test]
    fn a_mask_is_one_shape_of_its_parts_and_is_hidden_with_its_box() {
        let part =
            |x: f32, number: u32, score: f32| BoxInstance::new([x, 0.0, x + 1.0, 2.0], score, 0).with_level(number);
        let parts = vec![part(0.0, 1, 0.9), part(1.0, 1, 0.9), part(2.0, 0, 0.9), part(3.0, 2, 0.1)];
        let mut scene = scene(parts, BoxFilter { score_min: 0.5, ..BoxFilter::default() });
        let fill = BoxLook { line_width: 0.0, fill_opacity: 0.4, color: BoxColor::Instance, ..BoxLook::default() };
        scene.boxes[0].look = fill;
        scene.boxes[0].style = Arc::new(BoxStyle {
            class_colors: vec![[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 1.0]],
            ..BoxStyle::default()
        });
        let svg = text("t", &Drawing::Stills { stills: vec![Still::new("a", scene)], columns: 1 }, (1, 1)).unwrap();
        let blue = "<path d=\"M0 0H1V2H0zM1 0H2V2H1z\" fill=\"rgb(0,0,255)\" fill-opacity=\"0.40\"/>";
        assert!(svg.contains(blue) && svg.contains("<path d=\"M2 0H3V2H2z\" fill=\"rgb(255,0,0)\""), "{svg}");
        assert_eq!((svg.matches("<path ").count(), svg.matches("<rect ").count()), (2, 0));
    }

    #[test]
    fn between_stages_the_nearest_is_drawn() {
        let at = |x: f32| BoxInstance::new([x, 0.0, x + 1.0, 1.0], 0.9, 0);
        let mut scene = scene(vec![at(0.0), at(1.0), at(2.0)], BoxFilter::default());
        scene.boxes[0].look.stages = Some(Stages { each: 1, place: 1.6 });
        let svg = text("t", &Drawing::Stills { stills: vec![Still::new("a", scene)], columns: 1 }, (1, 1)).unwrap();
        assert!(svg.matches("<rect ").count() == 1 && svg.contains("x=\"2.00\""), "{svg}");
    }

    #[test]
    fn a_map_is_blended_where_it_has_numbers() {
        let mut scene = scene(Vec::new(), BoxFilter::default());
        scene.heat = Some(HeatLayer {
            version: 1,
            width: 2,
            height: 1,
            values: Arc::new(vec![1.0, f32::NAN]),
            look: HeatmapLook { bounds: [0.0, 0.0, 4.0, 2.0], opacity: 1.0, ..HeatmapLook::default() },
        });
        let picture = flattened(&scene, (4, 2)).unwrap();
        assert_eq!(picture.pixel(0, 0), ColorMap::Viridis.rgb(1.0));
        assert_eq!(picture.pixel(3, 1), [10, 20, 30]);
        // a map that stands alone is as large as its cells
        let ground = Arc::new(vec![0, 0, 0, 255]);
        let mut alone = Still::new("map", Scene { width: 1, height: 1, pixels: ground, ..scene });
        if let Some(heat) = &mut alone.scene.heat {
            heat.look.bounds = [0.0, 0.0, 2.0, 1.0];
        }
        let picture = flattened(&alone.scene, alone.space()).unwrap();
        assert_eq!((picture.width, picture.height), (2, 1));
        assert_eq!((picture.pixel(0, 0), picture.pixel(1, 0)), (ColorMap::Viridis.rgb(1.0), [0; 3]));
    }

    #[test]
    fn curves_break_at_what_is_no_number() {
        let chart = Chart {
            x_range: [0.0, 2.0],
            top: 1.0,
            series: vec![("a<b".into(), vec![[0.0, 0.0], [1.0, f32::NAN], [2.0, 1.0]])],
            ..Chart::default()
        };
        let svg = text("t & u", &Drawing::Charts { charts: vec![chart], columns: 1 }, (300, 200)).unwrap();
        assert!(svg.contains("a&lt;b") && svg.contains("t &amp; u") && !svg.contains("NaN"));
        let path = svg.split("<path d=\"M0.00").nth(1).unwrap();
        assert_eq!(path.split('"').next().unwrap().matches('M').count(), 1, "{path}");
    }
}
