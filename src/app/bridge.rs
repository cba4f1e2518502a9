//! The one place where egui and the renderers meet: a paint callback that draws a scene.

use crate::render::{ErrorLog, Gpu, RenderError, Renderers, Scene, SceneDraw, Target, View};
use eframe::egui_wgpu::{CallbackResources, CallbackTrait, RenderState, ScreenDescriptor};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Renderers and the buffers of every view, kept by egui's renderer.
struct Bridge {
    gpu: Gpu,
    renderers: Renderers,
    /// By view: two views never share buffers, since all are prepared before any is painted.
    views: HashMap<u64, SceneDraw>,
    errors: Messages,
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

/// Hands renderers to egui.
///
/// # Errors
/// Shaders or a target format that the device refuses.
pub fn install(state: &RenderState) -> Result<Messages, RenderError> {
    let errors = Messages::default();
    errors.device.install(&state.device);
    let gpu = Gpu { device: state.device.clone(), queue: state.queue.clone() };
    let renderers = Renderers::new(&gpu, state.target_format)?;
    let bridge = Bridge { gpu, renderers, views: HashMap::new(), errors: errors.clone() };
    state.renderer.write().callback_resources.insert(bridge);
    Ok(errors)
}

/// Draws `scene` through `view`, whose viewport is in physical pixels of the window.
pub fn paint_scene(rect: egui::Rect, id: u64, scene: Scene, view: View) -> egui::Shape {
    eframe::egui_wgpu::Callback::new_paint_callback(rect, SceneCallback { id, scene, view }).into()
}

struct SceneCallback {
    id: u64,
    scene: Scene,
    view: View,
}

impl CallbackTrait for SceneCallback {
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
            let Bridge { gpu, renderers, views, errors } = bridge;
            let draw = views.entry(self.id).or_insert_with(|| SceneDraw::new(renderers, gpu));
            let [width, height] = screen.size_in_pixels;
            if let Err(error) = draw.prepare(renderers, gpu, &self.scene, &self.view, &Target::new(width, height)) {
                errors.put(error.to_string());
            }
        }
        Vec::new()
    }

    fn paint(
        &self,
        _info: egui::PaintCallbackInfo,
        pass: &mut wgpu::RenderPass<'static>,
        resources: &CallbackResources,
    ) {
        if let Some(bridge) = resources.get::<Bridge>()
            && let Some(draw) = bridge.views.get(&self.id)
        {
            draw.paint(&bridge.renderers, pass);
        }
    }
}
