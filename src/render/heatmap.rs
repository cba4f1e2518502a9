//! A map of numbers as colours over a picture: feature maps, attention, masks of probabilities.
//!
//! The numbers go up as they are; colour map, range and opacity are uniforms.

use super::colormap::ColorMap;
use super::context::Gpu;
use super::error::RenderError;
use super::pipeline::{self, Recipe};
use super::shader::{ShaderLibrary, Twin, describe_twin};
use super::upload::Uniform;
use super::view::{Placement, Target, View, ViewUniform};
use std::borrow::Cow;

const WHAT: &str = "heat map";

/// What NaN and infinities are sent as: shaders may not rely on either. Above `MISSING` in the shader.
const HOLE: f32 = f32::MAX;

/// Numbers to show, `[height, width]` row-major. NaN and infinite ones are holes that show nothing.
#[derive(Clone, Copy, Debug)]
pub struct HeatmapInput<'a> {
    /// Numbers are sent to the device when this differs from the last call's.
    pub version: u64,
    pub width: u32,
    pub height: u32,
    pub values: &'a [f32],
}

/// How the map looks. Changing it sends one uniform.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeatmapLook {
    /// Part of the picture that the map covers: x0, y0, x1, y1 in picture pixels.
    pub bounds: [f32; 4],
    /// Values at the two ends of the colour map.
    pub low: f32,
    pub high: f32,
    pub color_map: ColorMap,
    /// 0 to 1.
    pub opacity: f32,
    /// 0: the same opacity everywhere. 1: it falls to nothing at `low`, so that only high values cover the picture.
    pub fade: f32,
    /// Blends between cells instead of showing squares.
    pub smooth: bool,
}

impl Default for HeatmapLook {
    fn default() -> Self {
        Self {
            bounds: [0.0, 0.0, 1.0, 1.0],
            low: 0.0,
            high: 1.0,
            color_map: ColorMap::Viridis,
            opacity: 0.6,
            fade: 0.0,
            smooth: false,
        }
    }
}

/// Twin of `HeatmapUniform` in `shaders/heatmap.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct HeatmapUniform {
    view: ViewUniform,
    bounds: [f32; 4],
    low: f32,
    high: f32,
    opacity: f32,
    fade: f32,
    color_map: u32,
    bilinear: u32,
    padding: [u32; 2],
}

pub(super) fn twins() -> Vec<Twin> {
    vec![describe_twin!(
        HeatmapUniform,
        "heatmap.wgsl",
        "HeatmapUniform",
        [view, bounds, low, high, opacity, fade, color_map, bilinear]
    )]
}

/// Pipeline and layout for maps of numbers.
#[derive(Debug)]
pub struct HeatmapRenderer {
    pipeline: wgpu::RenderPipeline,
    layout: wgpu::BindGroupLayout,
    format: wgpu::TextureFormat,
}

impl HeatmapRenderer {
    /// # Errors
    /// A shader or pipeline that the device refuses; a target format that encodes colours itself.
    pub fn new(gpu: &Gpu, library: &ShaderLibrary, format: wgpu::TextureFormat) -> Result<Self, RenderError> {
        pipeline::check_format(format)?;
        // Not every device blends 32-bit floats by itself: the shader does.
        let layout = pipeline::group_layout(
            &gpu.device,
            "heat map",
            &[pipeline::uniform_entry::<HeatmapUniform>(0), pipeline::texture_entry(1, false)],
        );
        let pipeline = build(&gpu.device, library, format, &layout)?;
        Ok(Self { pipeline, layout, format })
    }

    /// Compiles the shaders again.
    ///
    /// # Errors
    /// As [`new`](Self::new); the pipeline stays as it was.
    pub fn reload(&mut self, gpu: &Gpu, library: &ShaderLibrary) -> Result<(), RenderError> {
        self.pipeline = build(&gpu.device, library, self.format, &self.layout)?;
        Ok(())
    }
}

fn build(
    device: &wgpu::Device,
    library: &ShaderLibrary,
    format: wgpu::TextureFormat,
    layout: &wgpu::BindGroupLayout,
) -> Result<wgpu::RenderPipeline, RenderError> {
    let module = library.compile(device, "heatmap.wgsl")?;
    let recipe =
        Recipe { label: "heat map", vertex: "vs_heat", fragment: "fs_heat", layouts: &[layout], buffers: &[], format };
    pipeline::build(device, &module, &recipe)
}

#[derive(Debug)]
struct Map {
    texture: wgpu::Texture,
    group: wgpu::BindGroup,
}

/// One map in one view.
#[derive(Debug)]
pub struct HeatmapDraw {
    uniform: Uniform<HeatmapUniform>,
    map: Option<Map>,
    version: Option<u64>,
    placement: Placement,
    /// How often numbers were sent.
    pub uploads: u64,
    /// How often the uniform was sent.
    pub uniform_uploads: u64,
}

impl HeatmapDraw {
    pub fn new(gpu: &Gpu) -> Self {
        Self {
            uniform: Uniform::new(&gpu.device, "heat map"),
            map: None,
            version: None,
            placement: Placement::default(),
            uploads: 0,
            uniform_uploads: 0,
        }
    }

    /// Sends what changed since the last call.
    ///
    /// # Errors
    /// [`RenderError::Length`] when `values` is not `width · height` long; [`RenderError::Size`] when a side is 0 or
    /// above the device's limit. Then the last map stays.
    pub fn prepare(
        &mut self,
        renderer: &HeatmapRenderer,
        gpu: &Gpu,
        input: &HeatmapInput<'_>,
        look: &HeatmapLook,
        view: &View,
        target: &Target,
    ) -> Result<(), RenderError> {
        if self.version != Some(input.version) {
            self.upload(renderer, gpu, input)?;
            self.version = Some(input.version);
            self.uploads += 1;
        }
        self.place(gpu, look, view, target);
        Ok(())
    }

    /// Shows numbers that lie in a texture of somebody else, one a texel, instead of sent ones.
    pub(super) fn prepare_texture(
        &mut self,
        renderer: &HeatmapRenderer,
        gpu: &Gpu,
        texture: &wgpu::Texture,
        look: &HeatmapLook,
        view: &View,
        target: &Target,
    ) {
        if self.map.as_ref().is_none_or(|map| map.texture != *texture) {
            self.map = Some(self.bind(renderer, gpu, texture.clone()));
        }
        self.place(gpu, look, view, target);
    }

    fn bind(&self, renderer: &HeatmapRenderer, gpu: &Gpu, texture: wgpu::Texture) -> Map {
        let view = texture.create_view(&wgpu::TextureViewDescriptor::default());
        let resources = [self.uniform.binding(), wgpu::BindingResource::TextureView(&view)];
        let group = pipeline::group(&gpu.device, WHAT, &renderer.layout, &resources);
        Map { texture, group }
    }

    fn place(&mut self, gpu: &Gpu, look: &HeatmapLook, view: &View, target: &Target) {
        let uniform = HeatmapUniform {
            view: ViewUniform::new(view, target),
            bounds: look.bounds,
            low: look.low,
            high: look.high,
            opacity: look.opacity.clamp(0.0, 1.0),
            fade: look.fade.clamp(0.0, 1.0),
            color_map: look.color_map as u32,
            bilinear: u32::from(look.smooth),
            padding: [0; 2],
        };
        self.uniform_uploads += u64::from(self.uniform.set(&gpu.queue, uniform));
        self.placement = Placement::new(&view.viewport, target);
    }

    fn upload(&mut self, renderer: &HeatmapRenderer, gpu: &Gpu, input: &HeatmapInput<'_>) -> Result<(), RenderError> {
        let (width, height) = (input.width, input.height);
        let expected = u64::from(width).saturating_mul(u64::from(height));
        let found = input.values.len() as u64;
        if found != expected {
            return Err(RenderError::Length { what: WHAT, width, height, expected, found });
        }
        let fits = |map: &Map| map.texture.width() == width && map.texture.height() == height;
        if !self.map.as_ref().is_some_and(fits) {
            let format = wgpu::TextureFormat::R32Float;
            let texture = pipeline::data_texture(&gpu.device, WHAT, width, height, format)?;
            self.map = Some(self.bind(renderer, gpu, texture));
        }
        let Some(Map { texture, .. }) = &self.map else {
            return Ok(());
        };
        let values = without_holes(input.values);
        gpu.queue.write_texture(
            texture.as_image_copy(),
            bytemuck::cast_slice::<f32, u8>(&values),
            wgpu::TexelCopyBufferLayout { offset: 0, bytes_per_row: Some(4 * width), rows_per_image: None },
            texture.size(),
        );
        Ok(())
    }

    /// Draws what was prepared.
    pub fn paint(&self, renderer: &HeatmapRenderer, pass: &mut wgpu::RenderPass<'_>) {
        let Some(map) = &self.map else { return };
        if !self.placement.enter(pass) {
            return;
        }
        pass.set_pipeline(&renderer.pipeline);
        pass.set_bind_group(0, &map.group, &[]);
        pass.draw(0..4, 0..1);
    }
}

/// The same numbers with [`HOLE`] for NaN and infinities; copied only when there are any.
pub(super) fn without_holes(values: &[f32]) -> Cow<'_, [f32]> {
    if values.iter().all(|value| value.is_finite()) {
        return Cow::Borrowed(values);
    }
    Cow::Owned(values.iter().map(|&value| if value.is_finite() { value } else { HOLE }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_copied_only_to_fill_holes() {
        let sound = [1.0, -2.0, 0.0];
        assert!(matches!(without_holes(&sound), Cow::Borrowed(_)));
        let torn = [1.0, f32::NAN, f32::NEG_INFINITY];
        assert_eq!(*without_holes(&torn), [1.0, HOLE, HOLE]);
    }
}
