//! What a frame with very many boxes costs the CPU while the view is panned: our renderer, and egui's own painter.
//!
//! Rasterising is not in it: on a machine without a graphics card it would measure the software that stands in for one.

use crate::engine::bench::{Measurement, Times, WARM_UP, measure};
use crate::render::{
    BoxDraw, BoxFilter, BoxInput, BoxInstance, BoxLook, BoxStyle, Context, PICTURE_FORMAT, Renderers, Target, View,
    Viewport, render_to_rgba,
};
use egui::{Pos2, RawInput, Rect, Stroke, StrokeKind, Vec2};
use std::convert::Infallible;
use std::hint::black_box;
use std::time::Instant;

/// Size of the view, pixels.
const WIDTH: u32 = 1600;
const HEIGHT: u32 = 1000;
/// Pixels that the view moves in a frame, back and forth.
const STEP: [f32; 2] = [3.0, 2.0];
const LINE: f32 = 1.5;
const BACKGROUND: [f32; 4] = [0.0, 0.0, 0.0, 1.0];

/// `total` boxes in even rows round the middle of the view, about `visible` of them inside it at zoom 1; view pixels.
fn boxes(visible: usize, total: usize) -> Vec<BoxInstance> {
    // the boxes cover more than the view by the share of those outside it
    let grow = (total.max(1) as f32 / visible.max(1) as f32).sqrt().max(1.0);
    let (width, height) = (WIDTH as f32 * grow, HEIGHT as f32 * grow);
    let columns = ((total as f32 * width / height).sqrt().ceil() as usize).max(1);
    let rows = total.div_ceil(columns).max(1);
    let (wide, tall) = (width / columns as f32, height / rows as f32);
    let (left, top) = (0.5 * (WIDTH as f32 - width), 0.5 * (HEIGHT as f32 - height));
    let instance = |index: usize| {
        let (x, y) = (left + (index % columns) as f32 * wide, top + (index / columns) as f32 * tall);
        let score = (index % 101) as f32 / 100.0;
        BoxInstance::new([x, y, x + 0.8 * wide, y + 0.8 * tall], score, (index % 80) as u32)
            .with_level((index % 5) as u32)
    };
    (0..total).map(instance).collect()
}

/// Where the view has moved to in a frame: to one side and back in turns, so that the same boxes stay visible.
fn moved(frame: usize) -> [f32; 2] {
    if frame.is_multiple_of(2) { [0.0; 2] } else { STEP }
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// Our frame: preparing and recording the drawing of `total` boxes, about `visible` of them inside the view.
///
/// The stages also tell, outside the time, what it takes to send all boxes once, to draw a picture without boxes and
/// read it back, and to do the same with them. `uploads_while_panning` counts how often boxes or colours were sent after
/// the first frame.
///
/// # Errors
/// A sentence, when there is no graphics adapter or it cannot hold the boxes.
pub fn renderer(visible: usize, total: usize, repeat: usize) -> Result<Measurement, String> {
    let context = Context::headless().map_err(|e| e.to_string())?;
    let gpu = &context.gpu;
    let renderers = Renderers::new(gpu, PICTURE_FORMAT).map_err(|e| e.to_string())?;
    let (instances, style) = (boxes(visible, total), BoxStyle::default());
    let input = BoxInput { version: 1, boxes: &instances, style: &style };
    let (filter, look) = (BoxFilter::default(), BoxLook { line_width: LINE, ..BoxLook::default() });
    let target = Target::new(WIDTH, HEIGHT);
    let (width, height) = (WIDTH as f32, HEIGHT as f32);
    let home = View::fit([width, height], Viewport::new(0.0, 0.0, width, height));
    let mut draw = BoxDraw::new(&renderers.boxes, gpu);

    let start = Instant::now();
    draw.prepare(gpu, &input, &filter, &look, &home, &target).map_err(|e| e.to_string())?;
    let sending = milliseconds(start);
    let uploads = draw.uploads;

    let (mut frames, mut prepared, mut recorded, mut whole) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for frame in 0..repeat.max(1) + WARM_UP {
        let mut view = home;
        view.pan(moved(frame));
        let start = Instant::now();
        draw.prepare(gpu, &input, &filter, &look, &view, &target).map_err(|e| e.to_string())?;
        let preparing = milliseconds(start);
        let mut recording = 0.0;
        render_to_rgba(gpu, WIDTH, HEIGHT, BACKGROUND, |pass| {
            let start = Instant::now();
            draw.paint(&renderers.boxes, pass);
            recording = milliseconds(start);
        })
        .map_err(|e| e.to_string())?;
        if frame >= WARM_UP {
            whole.push(milliseconds(start));
            prepared.push(preparing);
            recorded.push(recording);
            frames.push(preparing + recording);
        }
    }
    let empty = measure(repeat, || render_to_rgba(gpu, WIDTH, HEIGHT, BACKGROUND, |_| {}).map(drop))
        .map_err(|e| e.to_string())?;
    if let Some(error) = context.errors.take().into_iter().next() {
        return Err(error);
    }
    let mut measurement = Measurement::new(format!("draw {visible} of {total} boxes"), Times::of(frames));
    let stage = |name: &str, times: Vec<f64>| (name.to_string(), Times::of(times).median);
    measurement.stages = vec![
        stage("prepare", prepared),
        stage("record", recorded),
        stage("not counted: send all boxes once", vec![sending]),
        ("not counted: a picture without boxes".to_string(), empty.median),
        stage("not counted: the whole picture", whole),
    ];
    measurement.numbers.push(("uploads_while_panning", (draw.uploads - uploads) as f64));
    Ok(measurement)
}

/// The same `count` visible boxes as shapes of egui's painter: making them, and turning them into triangles. Sending
/// the triangles to the device is not in it.
pub fn egui_painter(count: usize, repeat: usize) -> Measurement {
    let context = egui::Context::default();
    let screen = Rect::from_min_size(Pos2::ZERO, Vec2::new(WIDTH as f32, HEIGHT as f32));
    let instances = boxes(count, count);
    let colors: Vec<Stroke> = (0..80).map(|class| Stroke::new(LINE, super::theme::class_color(class))).collect();
    let mut frame = 0;
    let mut triangles = 0;
    let Ok(times) = measure(repeat, || {
        frame += 1;
        let offset = Vec2::from(moved(frame));
        let input = RawInput { screen_rect: Some(screen), ..RawInput::default() };
        let mut output = context.run_ui(input, |ui| {
            let painter = ui.painter();
            for instance in &instances {
                let [x0, y0, x1, y1] = instance.bbox;
                let rect = Rect::from_min_max(Pos2::new(x0, y0), Pos2::new(x1, y1)).translate(offset);
                let stroke = colors.get(instance.class as usize).copied().unwrap_or_default();
                painter.rect_stroke(rect, 0.0, stroke, StrokeKind::Middle);
            }
        });
        let shapes = std::mem::take(&mut output.shapes);
        let primitives = black_box(context.tessellate(shapes, output.pixels_per_point));
        triangles = primitives.iter().map(triangles_of).sum();
        output.drop_without_applying_deltas();
        Ok::<(), Infallible>(())
    });
    let mut measurement = Measurement::new(format!("draw {count} boxes with egui's painter"), times);
    measurement.numbers.push(("triangles", triangles as f64));
    measurement
}

fn triangles_of(primitive: &egui::ClippedPrimitive) -> usize {
    match &primitive.primitive {
        egui::epaint::Primitive::Mesh(mesh) => mesh.indices.len() / 3,
        egui::epaint::Primitive::Callback(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_boxes_as_asked_lie_inside_the_view() {
        let inside = |b: &&BoxInstance| {
            let [x0, y0, x1, y1] = b.bbox;
            x1 > 0.0 && y1 > 0.0 && x0 < WIDTH as f32 && y0 < HEIGHT as f32
        };
        let all = boxes(1000, 1000);
        assert_eq!((all.len(), all.iter().filter(inside).count()), (1000, 1000));
        let tenth = boxes(1000, 10_000);
        let visible = tenth.iter().filter(inside).count();
        assert!(tenth.len() == 10_000 && (950..1150).contains(&visible), "{visible}");
    }

    #[test]
    fn panning_sends_no_box() {
        match renderer(50, 200, 2) {
            Ok(measurement) => assert_eq!(measurement.numbers, [("uploads_while_panning", 0.0)]),
            Err(reason) => println!("skipped: {reason}"),
        }
    }

    #[test]
    fn every_box_becomes_triangles() {
        let measurement = egui_painter(100, 1);
        assert!(matches!(measurement.numbers[..], [("triangles", n)] if n >= 800.0), "{:?}", measurement.numbers);
    }
}
