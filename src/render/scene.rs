//! A picture with what lies over it: heat map, then layers of boxes. The window and `boxwright render` draw the same one.

use super::{
    BoxDraw, BoxFilter, BoxInput, BoxInstance, BoxLook, BoxStyle, Gpu, HeatmapDraw, HeatmapInput, HeatmapLook,
    ImageDraw, ImageInput, ImageLook, RenderError, Renderers, Target, View,
};
use std::sync::Arc;

/// What to draw. Cloning shares pixels, boxes and numbers.
#[derive(Clone, Debug)]
pub struct Scene {
    /// Changes with the pixels.
    pub version: u64,
    pub width: u32,
    pub height: u32,
    /// `[height, width, 4]`.
    pub pixels: Arc<Vec<u8>>,
    pub look: ImageLook,
    pub heat: Option<HeatLayer>,
    /// Drawn in order, later over earlier.
    pub boxes: Vec<BoxLayer>,
}

/// Numbers over the picture.
#[derive(Clone, Debug)]
pub struct HeatLayer {
    pub version: u64,
    pub width: u32,
    pub height: u32,
    pub values: Arc<Vec<f32>>,
    pub look: HeatmapLook,
}

/// Boxes that share filter and look.
#[derive(Clone, Debug)]
pub struct BoxLayer {
    pub version: u64,
    pub boxes: Arc<Vec<BoxInstance>>,
    pub style: Arc<BoxStyle>,
    pub filter: BoxFilter,
    pub look: BoxLook,
}

impl BoxLayer {
    /// The boxes as they are drawn without shaders, which alone stand between stages: those of the nearest one.
    pub fn nearest(&self) -> &[BoxInstance] {
        self.look.stages.map_or(self.boxes.as_slice(), |stages| stages.nearest(&self.boxes))
    }
}

/// The buffers of one view of a scene.
#[derive(Debug)]
pub struct SceneDraw {
    image: ImageDraw,
    heat: HeatmapDraw,
    shows_heat: bool,
    boxes: Vec<BoxDraw>,
    layers: usize,
}

impl SceneDraw {
    pub fn new(renderers: &Renderers, gpu: &Gpu) -> Self {
        Self {
            image: ImageDraw::new(&renderers.image, gpu),
            heat: HeatmapDraw::new(gpu),
            shows_heat: false,
            boxes: Vec::new(),
            layers: 0,
        }
    }

    /// How often pixels, numbers, boxes or colours were sent; uniforms not counted.
    pub fn uploads(&self) -> u64 {
        self.image.uploads + self.heat.uploads + self.boxes.iter().map(|b| b.uploads).sum::<u64>()
    }

    /// Sends what changed since the last call.
    ///
    /// # Errors
    /// The first part that does not fit the device; what was drawn of it before stays.
    pub fn prepare(
        &mut self,
        renderers: &Renderers,
        gpu: &Gpu,
        scene: &Scene,
        view: &View,
        target: &Target,
    ) -> Result<(), RenderError> {
        let picture =
            ImageInput { version: scene.version, width: scene.width, height: scene.height, pixels: &scene.pixels };
        self.image.prepare(&renderers.image, gpu, &picture, &scene.look, view, target)?;
        self.shows_heat = scene.heat.is_some();
        if let Some(heat) = &scene.heat {
            let input =
                HeatmapInput { version: heat.version, width: heat.width, height: heat.height, values: &heat.values };
            self.heat.prepare(&renderers.heatmap, gpu, &input, &heat.look, view, target)?;
        }
        while self.boxes.len() < scene.boxes.len() {
            self.boxes.push(BoxDraw::new(&renderers.boxes, gpu));
        }
        self.layers = scene.boxes.len();
        for (draw, layer) in self.boxes.iter_mut().zip(&scene.boxes) {
            let input = BoxInput { version: layer.version, boxes: &layer.boxes, style: &layer.style };
            draw.prepare(gpu, &input, &layer.filter, &layer.look, view, target)?;
        }
        Ok(())
    }

    /// Draws what was prepared.
    pub fn paint(&self, renderers: &Renderers, pass: &mut wgpu::RenderPass<'_>) {
        self.image.paint(&renderers.image, pass);
        if self.shows_heat {
            self.heat.paint(&renderers.heatmap, pass);
        }
        for draw in self.boxes.iter().take(self.layers) {
            draw.paint(&renderers.boxes, pass);
        }
    }
}
