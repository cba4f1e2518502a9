//! The one place where egui and the renderers meet: paint callbacks that draw scenes, curves, histograms and maps.

use crate::render::{
    CurveDraw, CurveInput, CurveStyle, ErrorLog, Gpu, HeatmapLook, HistogramDraw, HistogramInput, HistogramLook, Plot,
    ReduceDraw, ReduceInput, RenderError, Renderers, Scene, SceneDraw, Target, View, Viewport,
};
use crate::trace::Trace;
use crate::trace::reduce::Reduction;
use eframe::egui_wgpu::{CallbackResources, CallbackTrait, RenderState, ScreenDescriptor};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Buffers that were not drawn from for so long are given back.
const KEPT: Duration = Duration::from_secs(10);

/// Renderers and the buffers of every view, kept by egui's renderer.
struct Bridge {
    gpu: Gpu,
    renderers: Renderers,
    scenes: Views<SceneDraw>,
    curves: Views<CurveDraw>,
    histograms: Views<HistogramDraw>,
    maps: Views<ReduceDraw>,
    swept: Instant,
    errors: Messages,
}

/// Buffers by view, with the time of their last use: two views never share any, since all are prepared before any is
/// painted.
struct Views<D>(HashMap<u64, (D, Instant)>);

impl<D> Views<D> {
    fn at(&mut self, id: u64, make: impl FnOnce() -> D) -> &mut D {
        let now = Instant::now();
        let (draw, used) = self.0.entry(id).or_insert_with(|| (make(), now));
        *used = now;
        draw
    }

    fn get(&self, id: u64) -> Option<&D> {
        self.0.get(&id).map(|(draw, _)| draw)
    }

    fn sweep(&mut self, now: Instant) {
        self.0.retain(|_, (_, used)| now.saturating_duration_since(*used) < KEPT);
    }
}

impl<D> Default for Views<D> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

/// What went wrong while drawing, for the log.
#[derive(Clone, Debug, Default)]
pub struct Messages {
    drawing: Arc<Mutex<Vec<String>>>,
    device: ErrorLog,
}

impl Messages {
    fn put(&self, message: String) {
        let mut drawing = self.drawing.lock().unwrap_or_else(PoisonError::into_inner);
        if drawing.last() != Some(&message) {
            drawing.push(message);
        }
    }

    /// Takes what has gathered.
    pub fn take(&self) -> Vec<String> {
        let mut all = std::mem::take(&mut *self.drawing.lock().unwrap_or_else(PoisonError::into_inner));
        all.extend(self.device.take());
        all
    }
}

/// What the window's device draws by shaders beside scenes; without one, panels draw in egui's way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shaders {
    pub curves: bool,
    pub histograms: bool,
    /// Most bytes of a feature map whose channels the device reduces.
    pub map_bytes: u64,
}

impl Shaders {
    pub fn of(ctx: &egui::Context) -> Self {
        ctx.data(|data| data.get_temp(egui::Id::NULL)).unwrap_or_default()
    }

    /// Tells the panels of `ctx`.
    pub fn tell(self, ctx: &egui::Context) {
        ctx.data_mut(|data| data.insert_temp(egui::Id::NULL, self));
    }
}

/// Hands renderers to egui.
///
/// # Errors
/// Shaders or a target format that the device refuses.
pub fn install(state: &RenderState, ctx: &egui::Context) -> Result<Messages, RenderError> {
    let errors = Messages::default();
    errors.device.install(&state.device);
    let gpu = Gpu { device: state.device.clone(), queue: state.queue.clone() };
    let renderers = Renderers::new(&gpu, state.target_format)?;
    let histograms = renderers.histograms.is_available();
    Shaders { curves: true, histograms, map_bytes: renderers.reduce.most_bytes() }.tell(ctx);
    let bridge = Bridge {
        gpu,
        renderers,
        scenes: Views::default(),
        curves: Views::default(),
        histograms: Views::default(),
        maps: Views::default(),
        swept: Instant::now(),
        errors: errors.clone(),
    };
    state.renderer.write().callback_resources.insert(bridge);
    Ok(errors)
}

/// Draws `scene` through `view`, whose viewport is in physical pixels of the window.
pub fn paint_scene(rect: egui::Rect, id: u64, scene: Scene, view: View) -> egui::Shape {
    paint(rect, Callback { id, clip: None, content: Content::Scene(scene, view) })
}

/// Draws a curve in the plot that covers `rect`, where `clip` does not hide it.
pub fn paint_curve(rect: egui::Rect, clip: egui::Rect, id: u64, curve: CurvePicture) -> egui::Shape {
    paint(rect, Callback { id, clip: Some(clip), content: Content::Curve(rect, curve) })
}

/// Draws a histogram over `rect`, where `clip` does not hide it. `id` is that of the numbers, `view` that of the
/// histogram among those of the same numbers, from 0.
pub fn paint_histogram(
    rect: egui::Rect,
    clip: egui::Rect,
    (id, view): (u64, usize),
    histogram: HistogramPicture,
) -> egui::Shape {
    paint(rect, Callback { id, clip: Some(clip), content: Content::Histogram(rect, view, histogram) })
}

/// Draws a feature map through `view`, whose viewport is in physical pixels of the window.
pub fn paint_map(rect: egui::Rect, id: u64, map: MapPicture, view: View) -> egui::Shape {
    paint(rect, Callback { id, clip: None, content: Content::Map(map, view) })
}

fn paint(rect: egui::Rect, callback: Callback) -> egui::Shape {
    eframe::egui_wgpu::Callback::new_paint_callback(rect, callback).into()
}

/// One curve, its style in points of the screen.
pub struct CurvePicture {
    /// Changes with the points.
    pub version: u64,
    pub points: Vec<[f32; 2]>,
    pub style: CurveStyle,
    /// Values at the edges of the plot.
    pub x_range: [f32; 2],
    pub y_range: [f32; 2],
}

/// Numbers to count, shared by all histograms of them.
#[derive(Debug, Default)]
pub struct Samples {
    /// Changes with the numbers.
    pub version: u64,
    pub values: Vec<f32>,
    /// The class, level or stage of each.
    pub groups: Vec<u32>,
}

/// One histogram of numbers; widths in points of the screen.
pub struct HistogramPicture {
    pub samples: Arc<Samples>,
    pub look: HistogramLook,
}

/// One feature map, its channels reduced.
pub struct MapPicture {
    /// Changes with the map.
    pub version: u64,
    pub trace: Arc<Trace>,
    /// Position in the trace.
    pub map: usize,
    pub how: Reduction,
    pub look: HeatmapLook,
}

struct Callback {
    id: u64,
    /// In points of the screen.
    clip: Option<egui::Rect>,
    content: Content,
}

/// Rectangles in points of the screen.
enum Content {
    Scene(Scene, View),
    Curve(egui::Rect, CurvePicture),
    Histogram(egui::Rect, usize, HistogramPicture),
    Map(MapPicture, View),
}

impl Callback {
    fn prepare_in(&self, bridge: &mut Bridge, screen: &ScreenDescriptor) -> Result<(), RenderError> {
        let Bridge { gpu, renderers, scenes, curves, histograms, maps, .. } = bridge;
        let [width, height] = screen.size_in_pixels;
        let scale = screen.pixels_per_point;
        let clip = self.clip.map(|clip| pixels(clip, scale));
        let target = Target { clip, ..Target::new(width, height) };
        match &self.content {
            Content::Scene(scene, view) => {
                let draw = scenes.at(self.id, || SceneDraw::new(renderers, gpu));
                draw.prepare(renderers, gpu, scene, view, &target)
            }
            Content::Curve(rect, curve) => {
                let draw = curves.at(self.id, || CurveDraw::new(&renderers.curves, gpu));
                let CurveStyle { color, width, dash } = curve.style;
                let style = CurveStyle { color, width: width * scale, dash: dash.map(|length| length * scale) };
                let plot =
                    Plot { area: pixels(*rect, scale), x_range: curve.x_range, y_range: curve.y_range, log_y: false };
                let input = CurveInput { version: curve.version, series: &[&curve.points] };
                draw.prepare(gpu, &input, &[style], &plot, &target)
            }
            Content::Histogram(rect, view, HistogramPicture { samples, look }) => {
                let draw = histograms.at(self.id, HistogramDraw::default);
                let Samples { version, values, groups } = samples.as_ref();
                let input = HistogramInput { version: *version, values, groups };
                let mut look = look.clone();
                look.bars.gap *= scale;
                look.bars.line_width *= scale;
                let area = pixels(*rect, scale);
                draw.prepare(&renderers.histograms, &renderers.bars, gpu, *view, &input, &look, area, &target)
            }
            Content::Map(MapPicture { version, trace, map, how, look }, view) => {
                let Some(map) = trace.maps.get(*map) else { return Ok(()) };
                let draw = maps.at(self.id, || ReduceDraw::new(gpu));
                let (width, height) = (map.width as u32, map.height as u32);
                let input = ReduceInput { version: *version, width, height, values: &map.data };
                draw.prepare(&renderers.reduce, &renderers.heatmap, gpu, &input, *how, look, view, &target)
            }
        }
    }
}

/// A rectangle in physical pixels.
fn pixels(rect: egui::Rect, scale: f32) -> Viewport {
    Viewport::new(rect.min.x * scale, rect.min.y * scale, rect.width() * scale, rect.height() * scale)
}

impl CallbackTrait for Callback {
    fn prepare(
        &self,
        _device: &wgpu::Device,
        _queue: &wgpu::Queue,
        screen: &ScreenDescriptor,
        _encoder: &mut wgpu::CommandEncoder,
        resources: &mut CallbackResources,
    ) -> Vec<wgpu::CommandBuffer> {
        if let Some(bridge) = resources.get_mut::<Bridge>() {
            if let Err(error) = bridge.renderers.reload(&bridge.gpu) {
                bridge.errors.put(error.to_string());
            }
            if let Err(error) = self.prepare_in(bridge, screen) {
                bridge.errors.put(error.to_string());
            }
        }
        Vec::new()
    }

    /// All that is on the screen has been used by now: what has not been for long is not.
    fn finish_prepare(
        &self,
        _device: &wgpu::Device,
        _queue: &wgpu::Queue,
        _encoder: &mut wgpu::CommandEncoder,
        resources: &mut CallbackResources,
    ) -> Vec<wgpu::CommandBuffer> {
        if let Some(bridge) = resources.get_mut::<Bridge>()
            && bridge.swept.elapsed() > KEPT
        {
            let now = Instant::now();
            bridge.swept = now;
            bridge.scenes.sweep(now);
            bridge.curves.sweep(now);
            bridge.histograms.sweep(now);
            bridge.maps.sweep(now);
        }
        Vec::new()
    }

    fn paint(
        &self,
        _info: egui::PaintCallbackInfo,
        pass: &mut wgpu::RenderPass<'static>,
        resources: &CallbackResources,
    ) {
        let Some(Bridge { renderers, scenes, curves, histograms, maps, .. }) = resources.get::<Bridge>() else {
            return;
        };
        match &self.content {
            Content::Scene(..) => {
                if let Some(draw) = scenes.get(self.id) {
                    draw.paint(renderers, pass);
                }
            }
            Content::Curve(..) => {
                if let Some(draw) = curves.get(self.id) {
                    draw.paint(&renderers.curves, pass);
                }
            }
            Content::Histogram(_, view, _) => {
                if let Some(draw) = histograms.get(self.id) {
                    draw.paint(&renderers.bars, *view, pass);
                }
            }
            Content::Map(..) => {
                if let Some(draw) = maps.get(self.id) {
                    draw.paint(&renderers.heatmap, pass);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_kept_while_they_are_drawn_from_and_given_back_later() {
        let mut views: Views<u32> = Views::default();
        assert_eq!(*views.at(1, || 5), 5);
        assert_eq!(*views.at(1, || 6), 5, "made once");
        views.sweep(Instant::now() + KEPT / 2);
        assert_eq!(views.get(1), Some(&5));
        views.sweep(Instant::now() + KEPT * 2);
        assert_eq!(views.get(1), None);
    }

    #[test]
    fn panels_hear_of_shaders_and_have_none_before() {
        let ctx = egui::Context::default();
        assert_eq!(Shaders::of(&ctx), Shaders::default());
        let all = Shaders { curves: true, histograms: true, map_bytes: 7 };
        all.tell(&ctx);
        assert_eq!(Shaders::of(&ctx), all);
    }
}
